"""What ROS adds to the tracker: `cract bench --ros`.

    python -m cract_ros.bench [--seconds S] [--rate HZ] [--json FILE]

A camera in this process publishes a rendered clip of 640x480, to and fro, to a tracker node in a process of its own, and
hears its detections. Overhead is the time from the publishing of an image to the arrival of its detection, less the
tracker's own. At a rate above the tracker's speed images are skipped, but the time to a detection must not grow.
"""
from __future__ import annotations

import argparse
import json
import math
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import rclpy
from rclpy.qos import QoSProfile

from std_msgs.msg import Header

from cract_core import options
from cract_core.files import write_text
from cract_core.synthetic import generate
from cract_ros import transport
from cract_ros.conversions import from_bgr, to_bgr
from cract_ros.msg import TrackState
from cract_ros.player import Player, PlayerError, stamp_ns

SECONDS, RATE = 20.0, 30.0
CLIP = 300          # different frames
WARM_UP = 10        # frames whose times do not count
LAST_ANSWER = 2.0   # seconds after the last frame in which answers may come


class Camera(Player):
    """Publishes frames by the clock, and notes when their answers come and how long the tracker took."""

    def __init__(self):
        super().__init__('tracker')
        self.received: dict[int, int] = {}    # stamp -> arrival of the detection, ns
        self.processing: dict[int, float] = {}  # stamp -> seconds
        self.create_subscription(TrackState, 'tracker/state', self._on_state, QoSProfile(depth=10))

    def run(self, frames: list[np.ndarray], rate: float) -> None:
        """Publish `frames` at `rate` Hz, and listen in between and for a moment after them."""
        begun = time.monotonic()
        for count, frame in enumerate(frames, 1):
            while (left := begun + count / rate - time.monotonic()) > 0:
                rclpy.spin_once(self, timeout_sec=left)
            self.stamps.append(self.show(frame))
        end = time.monotonic() + LAST_ANSWER
        while self.stamps[-1] not in self.processing and time.monotonic() < end:
            rclpy.spin_once(self, timeout_sec=0.1)

    def _on_detection(self, message) -> None:
        super()._on_detection(message)
        self.received.setdefault(stamp_ns(message.header), self.get_clock().now().nanoseconds)

    def _on_state(self, message: TrackState) -> None:
        self.processing[stamp_ns(message.header)] = message.processing_time


def to_and_fro(count: int, length: int) -> list[int]:
    """`count` indices into a clip of `length` > 1 frames, from its second one on to its end, back, and so on."""
    turn = [*range(length), *range(length - 2, 0, -1)]
    return [turn[i % len(turn)] for i in range(1, count + 1)]


def conversion_seconds(frame: np.ndarray, repeats: int = 50) -> float:
    """What the node spends on making an array of an image message, a part of its processing time."""
    message = from_bgr(frame, Header())
    start = time.perf_counter()
    for _ in range(repeats):
        to_bgr(message)
    return (time.perf_counter() - start) / repeats


def measure(seconds: float, rate: float) -> dict[str, float | int]:
    """Latency and overhead in ms, frames shown and answered; latency_first_ms and latency_last_ms are medians of the
    first and the last quarter of the answers. PlayerError if the node does not work."""
    count = max(1, round(seconds * rate))
    rendered = list(generate(min(count + 1, CLIP), 3))
    camera = Camera()
    node = subprocess.Popen([sys.executable, '-m', 'cract_ros.node'])
    try:
        camera.start(rendered[0].image, rendered[0].box, '')
        camera.run([rendered[i].image for i in to_and_fro(count, len(rendered))], rate)
    finally:
        node.terminate()
        node.wait()
    stamps = camera.stamps[1 + WARM_UP:]
    answered = [stamp for stamp in stamps if stamp in camera.received and stamp in camera.processing]
    if not answered:
        raise PlayerError('no frame was answered')
    own = np.array([camera.processing[stamp] for stamp in answered]) * 1e3
    whole = np.array([camera.received[stamp] - stamp for stamp in answered]) / 1e6
    conversion = conversion_seconds(rendered[0].image) * 1e3
    overhead = whole - own + conversion
    quarter = math.ceil(len(whole) / 4)
    return dict(frames=len(stamps), answered=len(answered), tracker_p50_ms=float(np.median(own) - conversion),
                latency_p50_ms=float(np.median(whole)), latency_p99_ms=float(np.percentile(whole, 99)),
                latency_first_ms=float(np.median(whole[:quarter])), latency_last_ms=float(np.median(whole[-quarter:])),
                **{f'overhead_p{q}_ms': float(np.percentile(overhead, q)) for q in (50, 95, 99)})


def main(argv: list[str] | None = None) -> int:
    """Measure; returns the exit status."""
    parser = argparse.ArgumentParser('cract_ros.bench', description='Measure what ROS adds to the tracker.')
    parser.add_argument('--seconds', type=options.rate, default=SECONDS, metavar='S', help=f'default: {SECONDS:g}')
    parser.add_argument('--rate', type=options.rate, default=RATE, metavar='HZ', help=f'default: {RATE:g}')
    parser.add_argument('--json', type=Path, metavar='FILE', help='write the figures')
    args = parser.parse_args(argv)
    transport.use_profile()
    rclpy.init(args=[])
    try:
        figures = measure(args.seconds, args.rate)
    except PlayerError as error:
        print(f'error: {error}', file=sys.stderr)
        return 2
    finally:
        rclpy.try_shutdown()
    print(f'640x480 at {args.rate:g} Hz: {figures["answered"]} of {figures["frames"]} frames answered; from published to '
          f'detected p50 {figures["latency_p50_ms"]:.1f} ms, of it the tracker {figures["tracker_p50_ms"]:.1f} ms, '
          f'ROS {figures["overhead_p50_ms"]:.1f} ms (p95 {figures["overhead_p95_ms"]:.1f}); in the first quarter '
          f'{figures["latency_first_ms"]:.1f} ms, in the last {figures["latency_last_ms"]:.1f} ms')
    if args.json:
        write_text(args.json, json.dumps(dict(ros=dict(figures, rate=args.rate)), indent=2) + '\n')
    return 0


if __name__ == '__main__':
    raise SystemExit(main())
