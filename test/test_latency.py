"""A box that is half a second late, on a real sequence in which everything has moved away from its box by then.

The node's own code runs in this process. The camera goes on at 30 Hz by a clock on which the tracker takes what it took
on one core of a Xeon, so that a slow or busy machine does not change the result. CRACT_LONG=1 makes 100 tries instead
of 10, by the processor's time of this process; with `-s` it prints the figures.
"""
from __future__ import annotations

import functools
import os
import time

import cv2
import numpy as np
import pytest

pytest.importorskip('rclpy', reason='ROS 2 is not installed')

from node_harness import image
from std_msgs.msg import Header

from cract_core.config import TrackerConfig
from cract_core.evaluation.metrics import overlaps
from cract_core.evaluation.sequences import read_boxes
from cract_ros import follower
from cract_ros.conversions import box_from_message, box_to_message
from cract_ros.history import FrameHistory, catch_up
from cract_ros.parameters import NodeConfig

SEQUENCE = 'eval/OTB/Crossing'
RATE, LATE, AFTER = 30, 15, 5  # Hz; images that the box is late; images until it is judged
LONG = 'CRACT_LONG' in os.environ
TRIES = 100 if LONG else 10
INIT, UPDATE = 0.25, 0.04  # seconds


class SteadyClock:
    """Goes on as the tracker works."""

    def __init__(self):
        self.now = 0.0

    def __call__(self) -> float:
        return self.now

    def work(self, seconds: float) -> None:
        self.now += seconds


class ProcessorClock:
    """That of this process."""

    def __call__(self) -> float:
        return time.process_time()

    def work(self, seconds: float) -> None:
        """It was really done."""


CLOCK = ProcessorClock() if LONG else SteadyClock()


class Camera:
    """Puts images into a history as time goes by."""

    def __init__(self, messages, history: FrameHistory):
        self.messages, self.history = messages, history
        self.shown, self.since = 0, CLOCK()

    def show(self, count: int) -> None:
        for message in self.messages[self.shown:self.shown + count]:
            self.history.add(message)
        self.shown = min(self.shown + count, len(self.messages))
        self.since = CLOCK()

    def go_on(self) -> None:
        """Show what came while the tracker was at work."""
        due = int((CLOCK() - self.since) * RATE)
        if due:
            since = self.since
            self.show(due)
            self.since = since + due / RATE


class WatchedTracker:
    """The tracker; when it has worked, the camera has gone on."""

    def __init__(self, tracker):
        self._tracker, self.camera = tracker, None

    def __getattr__(self, name: str):
        return getattr(self._tracker, name)

    def init(self, frame, box):
        self._tracker.init(frame, box)
        CLOCK.work(INIT)
        self.camera.go_on()

    def answer(self, frame):
        estimate = self._tracker.answer(frame)
        CLOCK.work(UPDATE)
        self.camera.go_on()
        return estimate


@pytest.fixture(scope='module')
def sequence(cract_data):
    """Messages stamped from 1 s on, and boxes (N, 4)."""
    folder = cract_data / SEQUENCE
    if not folder.is_dir():
        pytest.skip(f'{folder} is not there')
    messages = []
    for number, path in enumerate(sorted((folder / 'img').glob('*.jpg'))):
        messages.append(image(cv2.imread(str(path))))
        messages[-1].header.stamp.sec = number + 1
    return messages, read_boxes(folder / 'groundtruth.txt')


@pytest.fixture(scope='module')
def tracker():
    return WatchedTracker(follower.load_tracker(TrackerConfig(threads=1), False, None))


def overlap_after(tracker, sequence, start: int, compensated: bool) -> float:
    """IoU with the truth some images after a box of image `start` came late, in the eyes of the node."""
    messages, boxes = sequence
    config = NodeConfig()
    history = FrameHistory(config.history_frames, config.history_memory * 2**20)
    following = follower.Follower(tracker, history, False, None)
    tracker.camera = camera = Camera(messages, history)
    camera.show(start + 1 + LATE)
    header = Header()
    if compensated:
        header.stamp = messages[start].header.stamp
    following.init(box_from_message(box_to_message(boxes[start])), header, '', config.catch_up)
    answer = following.answer()
    for _ in range(AFTER):
        camera.show(1)
        answer = following.answer() or answer
    return float(overlaps(answer.estimate.box[None], boxes[answer.header.stamp.sec - 1][None])[0])


def test_a_late_box_finds_its_target_by_its_stamp_more_often_than_in_the_latest_image(sequence, tracker, monkeypatch):
    monkeypatch.setattr(follower, 'catch_up', functools.partial(catch_up, clock=CLOCK))
    starts = np.linspace(0, len(sequence[0]) - LATE - AFTER - 1, TRIES).round().astype(int)
    hits = {compensated: sum(overlap_after(tracker, sequence, start, compensated) >= 0.5 for start in starts)
            for compensated in (True, False)}
    print(f'\nboxes {LATE / RATE} s late on {SEQUENCE}, IoU of 0.5 or more {AFTER} images after catching up: '
          f'by stamp {hits[True]} of {TRIES}, in the latest image {hits[False]} of {TRIES}')
    assert hits[True] >= 0.95 * TRIES
    assert hits[True] > hits[False]
