"""The CRACT tracker without ROS: `Tracker(config).init(frame, box)`, then `.update(frame) -> Estimate`.

Importing the package is light: torch is loaded when `Tracker`, `Estimate` or `State` is first asked for.
"""
from __future__ import annotations

from typing import TYPE_CHECKING

from cract_core.config import TrackerConfig

if TYPE_CHECKING:
    from cract_core.tracker import Estimate, State, Tracker

__version__ = '0.1.0'
__all__ = ['Estimate', 'State', 'Tracker', 'TrackerConfig']


def __getattr__(name: str):
    if name in ('Estimate', 'State', 'Tracker'):
        from cract_core import tracker
        return getattr(tracker, name)
    raise AttributeError(f'module {__name__!r} has no attribute {name!r}')
