"""What the command lines have in common: types of options that explain what they expect, and numbers below zero."""
from __future__ import annotations

import argparse
import math
import re


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
