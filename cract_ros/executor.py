"""rclpy's executor with threads, as the tracker node needs it."""
from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor

from rclpy.exceptions import InvalidHandle
from rclpy.executors import MultiThreadedExecutor


class PromptPool(ThreadPoolExecutor):
    """Threads that have begun a call before `submit` returns.

    rclpy's executor hands a callback out again and again until it has begun, thousands of times a second, and so keeps
    the interpreter's lock from the very thread that should begin it (measured: frames waited up to 2 s).
    """

    def submit(self, call, /, *args, **kwargs):
        begun = threading.Event()

        def run():
            begun.set()
            return call(*args, **kwargs)

        future = super().submit(run)
        begun.wait()
        return future


class CallbackPool(MultiThreadedExecutor):
    """A thread for each callback group, so that one is always free, and an orderly end."""

    def __init__(self, groups: int):
        super().__init__(num_threads=groups)
        self._executor = PromptPool(groups)

    def spin_once(self, timeout_sec: float | None = None) -> None:
        """Wait for callbacks and begin them.

        A subscription or service that a transition destroys between its message and its callback, or before its answer, is
        passed over: rclpy raises.
        """
        try:
            super().spin_once(timeout_sec)
        except InvalidHandle:
            pass

    def shutdown(self, timeout_sec: float | None = None, **options) -> bool:
        """Finish the callbacks that have begun: rclpy takes their guard condition away first."""
        self._executor.shutdown()
        return super().shutdown(timeout_sec, **options)
