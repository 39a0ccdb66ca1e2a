"""What the command lines have in common.

Types of options that explain what they expect, numbers below zero, the options that are made from `TrackerConfig`, and
the refusal of outputs that are inputs.
"""
from __future__ import annotations

import argparse
import dataclasses
import importlib.util
import math
import re
from pathlib import Path

from .config import TrackerConfig, field_type
from .files import check_place, keep_apart, read_yaml


class Parser(argparse.ArgumentParser):
    """Takes what begins with a minus and a digit, such as `-5,10,30,30` or `-1e-3`, for a value and not for an option.
    """

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self._negative_number_matcher = re.compile(r'-\.?[0-9]')  # argparse's own knows -5 and -0.5 only


def box(text: str):
    """`X,Y,W,H` as `(4,)` float64."""
    import numpy as np
    try:
        values = np.array([float(value) for value in text.split(',')])
    except ValueError:
        values = np.empty(0)
    if values.shape != (4,) or not np.isfinite(values).all() or (values[2:] <= 0).any():
        raise argparse.ArgumentTypeError(f'expected four numbers X,Y,W,H in pixels with W and H above 0, got {text!r}')
    return values


def positive(text: str) -> int:
    """A whole number from 1."""
    return _whole(text, 1)


def natural(text: str) -> int:
    """A whole number from 0, such as a seed."""
    return _whole(text, 0)


def _whole(text: str, least: int) -> int:
    if not re.fullmatch(r'[0-9]{1,18}', text) or int(text) < least:
        raise argparse.ArgumentTypeError(f'expected a whole number from {least}, got {text!r}')
    return int(text)


def seconds(text: str) -> float:
    """A finite number of seconds from 0."""
    value = _number(text)
    if not 0 <= value <= 1e9:
        raise argparse.ArgumentTypeError(f'expected seconds from 0 on, got {text!r}')
    return value


def rate(text: str) -> float:
    """Frames a second."""
    value = _number(text)
    if not 0 < value <= 1e6:
        raise argparse.ArgumentTypeError(f'expected frames a second above 0, got {text!r}')
    return value


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return math.nan


def size(text: str) -> tuple[int, int]:
    """WxH in pixels."""
    width, _, height = text.partition('x')
    return positive(width), positive(height)


def names(text: str) -> tuple[str, ...]:
    """`A,B` as a tuple."""
    parts = tuple(name.strip('/ ') for name in text.split(','))
    if not all(parts):
        raise argparse.ArgumentTypeError(f'expected names with commas between them, got {text!r}')
    return parts


def choices(known: tuple[str, ...]):
    """The type of an option that takes some of `known`, with commas between them."""
    def choose(text: str) -> tuple[str, ...]:
        chosen = names(text)
        wrong = [name for name in chosen if name not in known]
        if wrong or len(set(chosen)) < len(chosen):
            raise argparse.ArgumentTypeError(f'expected some of {", ".join(known)}, each once, got {text!r}')
        return chosen
    return choose


def add_tracker_parameters(parser: argparse.ArgumentParser) -> None:
    """One option per field of `TrackerConfig`, absent from the result unless given."""
    group = parser.add_argument_group('tracker parameters')
    group.add_argument('--config', type=Path, metavar='FILE.yaml',
                       help='a mapping of parameter names (as below, with underscores) to values; options come on top')
    for field in dataclasses.fields(TrackerConfig):
        text = f'{field.metadata["text"]}{range_text(field, " ({})")} [{default_text(field)}]'
        group.add_argument('--' + field.name.replace('_', '-'), dest='config_' + field.name, type=field_type(field),
                           choices=field.metadata['choices'] or None, default=argparse.SUPPRESS,
                           metavar=None if field.metadata['choices'] else _metavar(field),
                           help=text.replace('%', '%%'))


def tracker_config(args) -> TrackerConfig:
    """The file of --config, and the options on top. ValueError, one sentence, for what is no configuration."""
    values = {} if args.config is None else read_yaml(args.config)
    config = TrackerConfig.from_mapping({**values, **given_parameters(args)})
    keep_apart({f'weights of {args.config}': config.weights}, _paths(args, FILES + FOLDERS + EITHER))
    return config


def given_parameters(args) -> dict:
    """The parameters given as options."""
    return {name.removeprefix('config_'): value for name, value in vars(args).items() if name.startswith('config_')}


def range_text(field: dataclasses.Field, form: str = '{}') -> str:
    """The choices or the range of a parameter in `form`; nothing if it has neither."""
    meta = field.metadata
    if meta['choices']:
        return form.format(', '.join(meta['choices']))
    return '' if meta['minimum'] is None else form.format(f'{meta["minimum"]} to {meta["maximum"]}')


def default_text(field: dataclasses.Field) -> str:
    """Its default as it is printed."""
    return str(field.default) if field.default != '' else 'empty'


def _metavar(field: dataclasses.Field) -> str:
    return {float: 'X', int: 'N', str: 'TEXT'}[field_type(field)]


# The arguments of all commands that name something to read,
INPUTS = ('source', 'bag', 'root', 'data', 'config', 'weights', 'config_weights', 'latency_trace', 'against', 'peers',
          'nano_backbone', 'nano_head', 'imagenet', 'start_from')
FILES = ('json',)                                    # ... a file to write,
FOLDERS = ('report', 'out')                          # ... a folder to write into,
EITHER = ('output', 'results')                       # ... or one of the two, as the command has it
MADE = {'report': ('figures.json', 'report.html', 'latency_trace.json'), 'results': ('latency_trace.json',),
        'output': ('tuned.yaml', 'tune.json', 'study.journal', 'cract.pt', 'checkpoint.pt')}   # names of their own in it
FILE_COMMANDS = {'output': ('track', 'show'), 'results': ('track', 'bag')}


def node_installed() -> bool:
    """Whether the ROS 2 node can be run by this Python."""
    return all(importlib.util.find_spec(name) for name in ('rclpy', 'cract_ros'))


def check_paths(args) -> None:
    """Refuse outputs that are inputs, and places where nothing can be written, before anything is done."""
    inputs = _paths(args, INPUTS)
    if re.match(r'[A-Za-z][A-Za-z0-9+.-]*://', str(inputs.get('SOURCE', ''))):
        del inputs['SOURCE']
    keep_apart(inputs, _paths(args, FILES + FOLDERS + EITHER))
    for name, files in MADE.items():
        folder = getattr(args, name, None)
        if not isinstance(folder, (str, Path)) or not Path(folder).is_dir():
            continue
        for file in files:
            keep_apart({key: path for key, path in inputs.items() if Path(path).is_file()},
                       {f'{_option(name)} {folder}': Path(folder, file)})
    for name in FILES + FOLDERS + EITHER:
        path = getattr(args, name, None)
        if path in (None, '') or name == 'output' and args.command == 'bag':  # it must be new, which `bag` says
            continue
        command = getattr(args, 'data_command', args.command)
        check_place(path, name in FOLDERS or name in EITHER and command not in FILE_COMMANDS[name])


def _paths(args, names: tuple[str, ...]) -> dict[str, str | Path]:
    """Those of the arguments that name a path, under the names that the user knows."""
    values = {name: getattr(args, name, None) for name in names}
    return {_option(name): value for name, value in values.items() if isinstance(value, (str, Path)) and value != ''}


def _option(name: str) -> str:
    if name in ('source', 'bag', 'root', 'out'):
        return {'out': 'OUT_DIR'}.get(name, name.upper())
    return '--' + name.removeprefix('config_').replace('_', '-')
