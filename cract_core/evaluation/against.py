"""Two evaluations side by side: differences of one run to the JSON figures of another, paired over sequences.

What two runs share, easy and hard sequences, cancels; the interval of the difference is far narrower than those of the
two means.
"""
from __future__ import annotations

import json
from pathlib import Path

from .camera import CASES
from .protocols import Difference, paired_difference
from .runner import LOSSES
from .sequences import Sequence
from .stages import FIGURES

ONE_PASS = ('auc', 'precision', 'norm_precision', *LOSSES)
CAMERA = tuple(f'{case}.{key}' for case in CASES for key in ('iou', 'last_fifth', 'lost', 'tremor'))
STAGES = tuple(key for key in FIGURES if key != 'last')     # which belongs to the sequences, not to a tracker


def read_figures(path) -> dict[str, dict]:
    """Tracker -> figures, in the order of the JSON file that `cract eval --json` wrote at `path`.

    FileNotFoundError without the file, ValueError if it is of another kind.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f'no file {path}: expected the figures of another run of cract eval --json')
    try:
        report = json.loads(path.read_text())
        blocks = {block['tracker']: block for block in (report, *report['peers'])}
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(f'{path} holds no figures of cract eval: expected what its --json writes') from error
    return blocks


def check_comparable(others: dict[str, dict], protocols: tuple[str, ...], sequences: list[Sequence],
                     every: int, frames: int) -> None:
    """ValueError, in one sentence, unless every tracker of `others` (see `read_figures`) was measured with one of
    `protocols` at least, and on all `sequences`."""
    for name, block in others.items():
        shared = [key for key in _tables(block) if key in protocols]
        if not shared:
            raise ValueError(f'the figures to compare with have none of the protocol {", ".join(protocols)} for {name}')
        for protocol in shared:
            table = _tables(block)[protocol][2]
            for sequence in sequences:
                if sequence.name not in table:
                    raise ValueError(f'the figures to compare with have nothing of {name} on {sequence.name}')
                if protocol == 'ope' and table[sequence.name]['frames'] != len(sequence.images):
                    raise ValueError(f'the figures to compare with are of {table[sequence.name]["frames"]} frames of '
                                     f'{sequence.name}, which has {len(sequence.images)} here')
        if 'stages' in shared and block['stages']['every'] != every:
            raise ValueError(f'the figures to compare with look at one frame in {block["stages"]["every"]}: '
                             f'give --every {block["stages"]["every"]} too')
        if 'camera' in shared and block['camera_frames'] != frames:
            raise ValueError(f'the figures to compare with are of {block["camera_frames"]} frames of each case: '
                             f'give --frames {block["camera_frames"]} too')


def differences(block: dict, other: dict, seed: int = 0) -> dict[str, Difference]:
    """Figure -> `block` - `other`, over the sequences of `block`; of the figures that both have.

    Named as in the JSON: `auc`, `off` and the like of one pass, `stages.chosen`, `camera.turn90.iou` and the like.
    """
    found, theirs = {}, _tables(other)
    for protocol, (prefix, keys, table) in _tables(block).items():
        if protocol not in theirs:
            continue
        for key in keys:
            values, baseline = ([rows[name].get(key) for name in table] for rows in (table, theirs[protocol][2]))
            if None not in values and None not in baseline:
                found[prefix + key] = paired_difference(values, baseline, seed)
    return found


def verdict(figure: str, difference: Difference) -> str:
    """'better', 'worse' or 'noise': of some figures less is better."""
    less = figure in LOSSES or figure.endswith(('.lost', '.tremor'))
    return (difference.reversed if less else difference).verdict


def _tables(block: dict) -> dict[str, tuple[str, tuple[str, ...], dict[str, dict]]]:
    """Protocol -> prefix of its figures, their names, the figures by sequence."""
    one_pass = block.get('sequences') if 'intervals' in block else None     # not those of runs with resets
    tables = dict(ope=('', ONE_PASS, one_pass),
                  stages=('stages.', STAGES, block.get('stages_sequences')),
                  camera=('camera.', CAMERA, block.get('camera_sequences')))
    return {protocol: table for protocol, table in tables.items() if table[2]}
