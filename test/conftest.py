"""What the tests share: the folder of real data, the ROS environment, and one ROS domain for one run."""
from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent

# The environment is a ROS prefix; `make` says so too, this is for a bare `python -m pytest`.
if sys.prefix not in (prefixes := os.environ.get('AMENT_PREFIX_PATH', '').split(os.pathsep)):
    os.environ['AMENT_PREFIX_PATH'] = os.pathsep.join(p for p in [sys.prefix, *prefixes] if p)
# Nodes of the tests and of their child processes meet each other, not those of another run.
os.environ.setdefault('ROS_DOMAIN_ID', str(os.getpid() % 100 + 1))


def pytest_collection_modifyitems(items) -> None:
    if 'CRACT_LONG' not in os.environ:
        for item in items:
            if item.get_closest_marker('long'):
                item.add_marker(pytest.mark.skip(reason='takes long: make test-all, or set CRACT_LONG'))


@pytest.fixture(scope='session')
def cract_data() -> Path:
    """The folder of real sequences, from the environment variable CRACT_DATA; without it the test is skipped."""
    if 'CRACT_DATA' not in os.environ:
        pytest.skip('needs real sequences: set CRACT_DATA to the folder that holds them')
    return Path(os.environ['CRACT_DATA'])
