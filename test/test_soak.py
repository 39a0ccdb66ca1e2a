"""Many frames through one node process: its memory and file descriptors stay level.

Left out unless the environment variable CRACT_SOAK says how many frames: `CRACT_SOAK=100000 make test
PYTEST_ARGS='-s test/test_soak.py'`. The networks see few of the frames, or a run would take hours: each time that the
target is changed, the tracker starts on one and follows it through some. Every frame goes from the camera's process
over DDS through the node's conversions, history, worker and publishers to the listener, one after the other.
"""
from __future__ import annotations

import os
import time
from pathlib import Path

import cv2
import numpy as np
import pytest

pytest.importorskip('rclpy', reason='ROS 2 is not installed')

import rclpy
from node_harness import PATIENCE, Peer, image, launch_tracker, peer, weights  # noqa: F401  (fixtures)
from rclpy.qos import QoSProfile
from sensor_msgs.msg import Image

from cract_ros.msg import TrackState

CYCLE = 2000  # frames from one target to the next
FOLLOWED = 4  # of them with the target
BAD = 50  # every so many frames, one that cannot be read
SAMPLES = 100
GROWTH = 16 * 2**20  # bytes over the whole run that the fitted line may rise


def pictures() -> list[Image]:
    """The same scene in several sizes and encodings, with and without padding."""
    scene = cv2.resize(np.random.default_rng(1).integers(0, 256, (9, 12, 3), np.uint8), (80, 64))
    grey = np.ascontiguousarray(scene[..., :1])
    return [image(scene), image(scene, 'rgb8', padding=3), image(grey, 'mono8'), image(grey, 'bayer_rggb8'),
            image(np.ascontiguousarray(scene[..., :2]), 'yuyv'), image(np.ascontiguousarray(scene[:48, :64]))]


class Process:
    """Memory in use (bytes) and open file descriptors of a process."""

    def __init__(self, pid: int):
        self._proc = Path('/proc', str(pid))

    def memory(self) -> int:
        return int((self._proc / 'statm').read_text().split()[1]) * os.sysconf('SC_PAGE_SIZE')

    def descriptors(self) -> int:
        return len(list((self._proc / 'fd').iterdir()))


@pytest.mark.skipif('CRACT_SOAK' not in os.environ, reason='set CRACT_SOAK to a number of frames, such as 100000')
@pytest.mark.timeout(4 * 3600)
def test_memory_and_descriptors_stay_level(launch_tracker, peer):
    frames = int(os.environ['CRACT_SOAK'])
    tracker = launch_tracker(init_positives=20, init_negatives=40, num_proposals=2)
    process = Process(tracker.process.pid)
    answered = set()
    peer.create_subscription(TrackState, 'tracker/state', lambda state: answered.add(state.header.stamp.sec),
                             QoSProfile(depth=100))
    shapes = pictures()
    bad = image(np.zeros((48, 64, 3), np.uint8))
    bad.data = bad.data[:-9]
    peer.wait(lambda: peer.state() == 'active', 'the active state')
    counts = dict(answered=0, shown_again=0, unreadable=0, targets=0, followed=0)
    samples = []
    begun = time.monotonic()
    while counts['answered'] < frames:
        number = counts['answered']
        at = number % CYCLE
        if at == 0:
            peer.watch(number // CYCLE % 2 == 0)
            peer.overlays.clear()
            counts['targets'] += number > 0 and peer.init((20, 12, 30, 20), str(number)).success
        if at == FOLLOWED:
            assert peer.reset().success and peer.set(alpha=0.3 + number % 7 / 20) == [(True, '')]
        if at % BAD == BAD - 1:
            peer.show(bad)
            counts['unreadable'] += 1
        stamp, _ = peer.show(shapes[number % len(shapes)])
        until = time.monotonic() + 2.0
        while stamp not in answered and time.monotonic() < until:
            rclpy.spin_once(peer, timeout_sec=0.2)
        if stamp in answered:
            counts['answered'] += 1
        else:  # best effort: one may be lost
            counts['shown_again'] += 1
        assert counts['shown_again'] < 10 + frames / 100
        answered.clear()
        counts['followed'] += len(peer.detections)
        peer.detections.clear()
        if number % max(frames // SAMPLES, 1) == 0 and len(samples) <= number // max(frames // SAMPLES, 1):
            samples.append((number, process.memory(), process.descriptors()))
            if len(samples) % 10 == 1:
                print(f'{number} frames in {time.monotonic() - begun:.0f} s: {samples[-1][1] / 2**20:.1f} MiB, '
                      f'{samples[-1][2]} descriptors', flush=True)
    steady = np.array(samples[len(samples) // 5:], float)  # the first fifth fills pools and caches
    memory, descriptors = (np.polyfit(steady[:, 0], steady[:, column], 1)[0] for column in (1, 2))
    print(f'{counts}; fitted, in 100000 frames: {memory * 1e5 / 2**20:+.2f} MiB, {descriptors * 1e5:+.2f} descriptors; '
          f'{steady[:, 1].min() / 2**20:.1f} to {steady[:, 1].max() / 2**20:.1f} MiB, '
          f'{steady[:, 2].min():.0f} to {steady[:, 2].max():.0f} descriptors')
    assert memory * frames < GROWTH
    assert abs(descriptors) * frames < 3
    assert tracker.stop() == 0 and 'Traceback' not in tracker.log
