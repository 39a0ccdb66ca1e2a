"""The tables that `cract eval` prints."""
from __future__ import annotations

from .stages import STAGES

COLUMNS = {'auc': 'AUC', 'precision': 'prec@20', 'norm_precision': 'norm@.2', 'ao': 'AO', 'sr50': 'SR.50',
           'sr75': 'SR.75', 'off': 'off', 'false_loss': 'lost', 'frozen': 'frozen'}
OTB_KEYS, GOT10K_KEYS = ('auc', 'precision', 'norm_precision'), ('ao', 'sr50', 'sr75')
LONG_KEYS = ('auc', 'off', 'false_loss', 'frozen')


def row(name: str, one: dict, width: int, keys: tuple[str, ...]) -> str:
    times = '         -         -        -        -' if one['p50_ms'] is None else (
        f'{one["fps"]:10.1f}{1e3 / one["p95_ms"]:10.1f}{one["p50_ms"]:9.2f}{one["p95_ms"]:9.2f}')
    return f'{name:{width}}  {one["frames"]:6d}' + ''.join(f'{cell(one[key]):>9}' for key in keys) + times


def heads(keys: tuple[str, ...]) -> str:
    return ''.join(f'{COLUMNS[key]:>9}' for key in keys)


def cell(value: float | None) -> str:
    return '-' if value is None else f'{value:.4f}'


def print_side_by_side(blocks: dict[str, dict], key: str) -> None:
    """One figure of every tracker beside the others, one row a sequence."""
    rows = [(name, [block['sequences'][name][key] for block in blocks.values()])
            for name in next(iter(blocks.values()))['sequences']]
    rows.append(('mean', [block['mean'][key] for block in blocks.values()]))
    width = max(len(name) for name, _ in rows)
    print(f'\n{COLUMNS[key]:{width}}' + ''.join(f'{name:>12}' for name in blocks))
    for name, values in rows:
        print(f'{name:{width}}' + ''.join(f'{cell(value):>12}' for value in values))


def print_protocols(blocks: dict[str, dict]) -> None:
    """The tables of the protocols beside the one pass, one row a tracker."""
    def figure(value, digits: int = 3) -> str:
        return 'never' if value is None else f'{value:.{digits}f}'

    def dash(value) -> str:
        return '-' if value is None else f'{value:.3f}'

    some = next(iter(blocks.values()))
    if 'absence' in some:
        print('\nabsence       AUROC    ECE  absent as lost  false loss  frames to loss  returns in 15')
        for name, block in blocks.items():
            one = block['absence']
            print(f'{name:10}{figure(one["auroc"]):>9}{figure(one["ece"]):>7}{figure(one["absent_as_lost"]):>16}'
                  f'{figure(one["false_loss"]):>12}{figure(one["frames_to_loss"], 1):>16}{figure(one["reacquired_15"]):>15}')
    if 'streaming' in some:
        print(f'\nstreaming at {some["streaming"]["rate"]:g} fps     AUC  prec@20  dropped  AUC without a clock')
        for name, block in blocks.items():
            one = block['streaming']['mean']
            print(f'{name:19}{one["auc"]:10.4f}{one["precision"]:9.4f}{one["dropped"]:9.1%}'
                  f'{block["mean"]["auc"]:21.4f}')
    if 'stages' in some:
        names = [stage.removeprefix('by_')[:10] for stage in STAGES]
        print('\nIoU by stage' + ''.join(f'{name:>11}' for name in names) + '   gain of R   over 0.5: N      R  chosen')
        for name, block in blocks.items():
            one = block['stages']
            print(f'{name:12}' + ''.join(f'{dash(one[stage]):>11}' for stage in STAGES) + f'{dash(one["gain"]):>12}'
                  f'{dash(one["proposals_50"]):>14}{dash(one["refined_50"]):>7}{dash(one["chosen_50"]):>8}')
    if 'camera' in some:
        keys = 'iou', 'last_fifth', 'lost'
        print('\ncamera       mean IoU, in the last fifth, right but called lost' + ''.join(f'{name:>24}' for name in blocks))
        for case in some['camera']:
            print(f'{case:63}' + ''.join(f'{"  ".join(dash(block["camera"][case][key]) for key in keys):>24}'
                                         for block in blocks.values()))
        if 'still' in some['camera']:
            print(f'{"tremor of a still scene":63}' + ''.join(f'{100 * (block["camera"]["still"]["tremor"] or 0):>22.2f} %'
                                                              for block in blocks.values()))
