"""A clip as a camera: publishes its frames on `image` and gives the tracker its target on the first one.

    python -m cract_ros.player CLIP --box X,Y,W,H [--rate HZ | --wait]

The first frame is published and stands still until the tracker has accepted the box; then the clip runs at its own
rate, like a camera that waits for nobody, or with --wait as fast as the tracker answers, so that it sees every frame.
"""
from __future__ import annotations

import json
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from queue import Queue
from threading import Thread

import numpy as np
import rclpy
from rclpy.executors import ExternalShutdownException
from rclpy.node import Node
from rclpy.qos import QoSProfile
from sensor_msgs.msg import Image
from std_msgs.msg import Header
from tqdm import tqdm
from vision_msgs.msg import Detection2D

from cract_core import options
from cract_core.files import check_place, keep_apart, write_text
from cract_core.video import FrameSource
from cract_ros import transport
from cract_ros.conversions import box_to_message, from_bgr
from cract_ros.srv import InitTarget

NO_IMAGE = 'no image'  # how the tracker's refusal begins when the first frame has not reached it
PATIENCE = 60.0  # seconds to wait for the tracker to appear or to accept the target
TRAVEL = 0.2  # seconds that the first frame is given to arrive; if it has not, it is shown again
ANSWER = 10.0  # seconds to wait for the answer to one frame


class PlayerError(Exception):
    """The clip cannot be played; the text says why."""


class Player(Node):
    """Publishes frames and remembers their stamps."""

    def __init__(self, tracker: str):
        super().__init__('player')
        self._publisher = self.create_publisher(Image, 'image', QoSProfile(depth=1))
        self._init = self.create_client(InitTarget, f'{tracker}/init_target')
        self.create_subscription(Detection2D, f'{tracker}/detection', self._on_detection, QoSProfile(depth=10))
        self._answered = 0  # stamp of the latest answer, ns
        self.stamps: list[int] = []  # ns, one a frame
        self.init_seconds = 0.0

    def show(self, frame: np.ndarray) -> int:
        """Publish a frame stamped with the present time; returns the stamp in ns."""
        stamp = self.get_clock().now()
        self._publisher.publish(from_bgr(frame, Header(stamp=stamp.to_msg(), frame_id='camera')))
        return stamp.nanoseconds

    def start(self, frame: np.ndarray, box, target_id: str) -> None:
        """Show the first frame until the tracker follows the box in it."""
        deadline = time.monotonic() + PATIENCE
        if not self._init.wait_for_service(PATIENCE):
            raise PlayerError(f'no service {self._init.srv_name} within {PATIENCE:.0f} s: is the tracker running?')
        while not self._publisher.get_subscription_count() and time.monotonic() < deadline:
            rclpy.spin_once(self, timeout_sec=0.1)
        while True:
            stamp = self.show(frame)
            time.sleep(TRAVEL)
            request = InitTarget.Request(bbox=box_to_message(box), id=target_id)
            begun = time.perf_counter()
            future = self._init.call_async(request)
            rclpy.spin_until_future_complete(self, future, timeout_sec=PATIENCE)
            if not future.done():
                raise PlayerError(f'no answer from {self._init.srv_name} within {PATIENCE:.0f} s')
            answer = future.result()
            if answer.success:
                self.init_seconds = time.perf_counter() - begun
                self.stamps.append(stamp)
                return
            if not answer.message.startswith(NO_IMAGE) or time.monotonic() > deadline:
                raise PlayerError(f'the tracker refused the target: {answer.message}')

    def play(self, frames: Iterator[np.ndarray], rate: float, wait: bool) -> None:
        """Show the frames that follow the first, at `rate` Hz or each when the one before is answered."""
        begun = time.monotonic()
        for count, frame in enumerate(frames, 1):
            if not wait:
                time.sleep(max(begun + count / rate - time.monotonic(), 0))
            self.stamps.append(self.show(frame))
            if wait:
                self._wait_for_answer()

    def _wait_for_answer(self) -> None:
        deadline = time.monotonic() + ANSWER
        while self._answered < self.stamps[-1]:
            if time.monotonic() > deadline:
                self.get_logger().warning(f'frame {len(self.stamps) - 1} was not answered within {ANSWER:.0f} s')
                return
            rclpy.spin_once(self, timeout_sec=0.1)

    def _on_detection(self, message: Detection2D) -> None:
        self._answered = max(self._answered, stamp_ns(message.header))


def stamp_ns(header: Header) -> int:
    """The stamp of a header in nanoseconds."""
    return header.stamp.sec * 10**9 + header.stamp.nanosec


def read_ahead(source: FrameSource, limit: int | None, depth: int = 32) -> Iterator[np.ndarray]:
    """The frames of a source, decoded on a thread of their own up to `depth` frames ahead."""
    queue: Queue = Queue(depth)

    def read():
        try:
            for count, frame in enumerate(source):
                if count == limit:
                    break
                queue.put(frame)
            queue.put(None)
        except Exception as error:  # raised again where the frames are consumed
            queue.put(error)

    Thread(target=read, daemon=True).start()
    while (item := queue.get()) is not None:
        if isinstance(item, Exception):
            raise item
        yield item


def main(argv: list[str] | None = None) -> int:
    """Play one clip; returns the exit status."""
    parser = options.Parser('cract_ros.player', description='Play a clip as a camera topic.')
    parser.add_argument('clip', help='video file or folder of images')
    parser.add_argument('--box', type=options.box, required=True, metavar='X,Y,W,H', help='target in the first frame')
    parser.add_argument('--id', default='', help="the target's id (default: given by the tracker)")
    parser.add_argument('--rate', type=options.rate, metavar='HZ', help="frames a second (default: the clip's own)")
    parser.add_argument('--wait', action='store_true', help='publish a frame when the one before has been answered')
    parser.add_argument('--frames', type=options.positive, metavar='N', help='stop after N frames')
    parser.add_argument('--tracker', default='tracker', help='name of the tracker node (default: tracker)')
    parser.add_argument('--log', type=Path, metavar='FILE.json', help='write the stamps of the frames')
    args, ros_args = parser.parse_known_args(argv)
    transport.use_profile()
    rclpy.init(args=ros_args)
    try:
        keep_apart({'CLIP': args.clip}, {'--log': args.log})
        if args.log:
            check_place(args.log)
        with FrameSource(args.clip) as source:
            player = Player(args.tracker)
            frames = read_ahead(source, args.frames)
            player.start(next(frames), args.box, args.id)
            total = min((n for n in (source.length, args.frames) if n is not None), default=None)
            played = tqdm(frames, total=total, initial=1, unit='frame', desc='playing', disable=None)
            player.play(played, args.rate or source.fps, args.wait)
            if args.log:
                write_text(args.log, json.dumps({'stamps': player.stamps, 'init_seconds': player.init_seconds,
                                                 'complaint': source.complaint}))
            if source.complaint:
                print(f'error: {source.complaint}', file=sys.stderr)
                return 2
    except (PlayerError, OSError, ValueError) as error:
        print(f'error: {error}', file=sys.stderr)
        return 1
    except (KeyboardInterrupt, ExternalShutdownException):
        return 130
    finally:
        rclpy.try_shutdown()
    return 0


if __name__ == '__main__':
    raise SystemExit(main())
