"""What the property-based tests have in common: how many examples, what a refusal is, and a limit of memory."""
from __future__ import annotations

import os
import tracemalloc
from contextlib import contextmanager

from hypothesis import HealthCheck, settings

EXAMPLES = int(os.environ.get('CRACT_FUZZ', 1000))
OVERHEAD = 1 << 16  # bytes that a call may take apart from what the message's own bytes justify


def fuzzed(share: float = 1.0, usual: int | None = None):
    """`share` of CRACT_FUZZ examples; without the variable `usual`, or `share` of its default."""
    count = usual if usual and 'CRACT_FUZZ' not in os.environ else max(round(EXAMPLES * share), 1)
    return settings(max_examples=count, deadline=None, database=None,
                    derandomize='CRACT_FUZZ' not in os.environ, suppress_health_check=list(HealthCheck))


@contextmanager
def refusal():
    """A ValueError is right if it is one sentence that fits into a line of a log; other exceptions are not."""
    try:
        yield
    except ValueError as error:
        assert 0 < len(str(error)) < 700 and '\n' not in str(error), str(error)


@contextmanager
def memory(limit: int):
    """NumPy's and OpenCV's arrays included."""
    tracemalloc.start()
    try:
        yield
        assert tracemalloc.get_traced_memory()[1] <= limit + OVERHEAD
    finally:
        tracemalloc.stop()
