"""The whole path for real: a clip as a camera topic, the tracker node, its detections, a video and figures.

    python -m cract_ros.demo [--clip PATH] [--box X,Y,W,H] [--output demo/out.mp4]

Three processes: the tracker node, the player that is the camera, and this one, which listens. Beside the video it
writes `results.txt`, one line x,y,w,h a frame that was answered, the first being the box that was given.
"""
from __future__ import annotations

import dataclasses
import json
import os
import random
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import rclpy
from lifecycle_msgs.msg import Transition
from lifecycle_msgs.srv import ChangeState
from rclpy.executors import ExternalShutdownException
from rclpy.node import Node
from rclpy.qos import QoSProfile
from sensor_msgs.msg import Image
from tqdm import tqdm
from vision_msgs.msg import Detection2D

from cract_core import cli, options
from cract_core.evaluation.metrics import overlaps
from cract_core.evaluation.sequences import read_boxes, write_boxes
from cract_core.files import keep_apart
from cract_core.video import FrameSource, VideoWriter
from cract_ros import overlay, transport
from cract_ros.conversions import box_from_message
from cract_ros.player import stamp_ns

FRAMES = 300  # of the rendered clip
PATIENCE = 120.0  # seconds for the tracker to load
LAST_ANSWER = 3.0  # seconds after the clip's end in which the last answers may come


class DemoError(Exception):
    """The demo cannot go on; the text says why."""


@dataclass(frozen=True)
class Clip:
    """What is played: frames, the target's first box and, where it is known, the truth."""
    path: Path  # video file or folder of images
    box: np.ndarray  # (4,) x, y, w, h in the first frame
    truth: np.ndarray | None  # (N, 4), nan where the target is not visible


@dataclass(frozen=True)
class Answer:
    """One detection as it came."""
    received: int  # ns
    box: np.ndarray  # (4,) x, y, w, h
    score: float | None  # None: lost
    target_id: str


class Listener(Node):
    """Collects what the tracker publishes, and starts the tracker through its lifecycle services."""

    def __init__(self):
        super().__init__('demo')
        self.answers: dict[int, Answer] = {}  # by the stamp of the image, ns
        self.overlay: Image | None = None  # the first that shows an answered frame
        self._change_state = self.create_client(ChangeState, 'tracker/change_state')
        self.create_subscription(Detection2D, 'tracker/detection', self._on_detection, QoSProfile(depth=100))
        self._overlays = self.create_subscription(Image, 'tracker/overlay', self._on_overlay, QoSProfile(depth=1))

    def change_state(self, transition: int, process: subprocess.Popen) -> None:
        """Ask the tracker for a transition; DemoError if it refuses or is not there."""
        deadline = time.monotonic() + PATIENCE
        while not self._change_state.wait_for_service(0.5):
            if process.poll() is not None or time.monotonic() > deadline:
                raise DemoError('the tracker node did not start: its log above says why')
        future = self._change_state.call_async(ChangeState.Request(transition=Transition(id=transition)))
        while not future.done():
            rclpy.spin_once(self, timeout_sec=0.1)
            if process.poll() is not None or time.monotonic() > deadline:
                raise DemoError('the tracker node gave no answer: its log above says why')
        if not future.result().success:
            raise DemoError('the tracker node could not be configured: its log above says why')

    def listen(self) -> None:
        """Take in what comes, for a moment. The overlay costs the tracker time: one of them is enough."""
        rclpy.spin_once(self, timeout_sec=0.05)
        if self._overlays is not None and self.overlay is not None and stamp_ns(self.overlay.header) in self.answers:
            self.destroy_subscription(self._overlays)
            self._overlays = None

    @property
    def overlay_works(self) -> bool:
        """An overlay of an answered frame has come."""
        return self._overlays is None

    def _on_detection(self, message: Detection2D) -> None:
        score = message.results[0].hypothesis.score if message.results else None
        self.answers[stamp_ns(message.header)] = Answer(
            time.time_ns(), box_from_message(message.bbox), score, message.id)

    def _on_overlay(self, message: Image) -> None:
        self.overlay = message


def find_clip(path: Path, box: np.ndarray | None) -> Clip:
    """The user's clip; the truth is `groundtruth.txt` in its folder, or beside its folder `img`."""
    folder = path / 'img' if (path / 'img').is_dir() else path
    annotated = [file for file in (path / 'groundtruth.txt', folder.parent / 'groundtruth.txt')
                 if folder.is_dir() and file.is_file() and (file.parent == folder or folder.name == 'img')]
    truth = read_boxes(annotated[0]) if annotated else None
    if box is None:
        if truth is None:
            raise DemoError(f'{path} has no groundtruth.txt: give the target in the first frame by --box X,Y,W,H')
        if np.isnan(truth[0]).any():
            raise DemoError(f'the target is absent in the first frame of {path}: give --box X,Y,W,H')
        box = truth[0]
    with FrameSource(folder) as source:
        if truth is not None and source.length != len(truth):
            raise DemoError(f'{path} has {source.length} frames, but {annotated[0].name} has {len(truth)} lines')
    return Clip(folder, box, truth)


def run(clip: Clip, args, log: Path) -> tuple[Listener, dict]:
    """Play the clip through the tracker; returns what was heard and the player's log."""
    listener = Listener()
    parameters = [word for setting in ['autostart:=false', *args.param] for word in ('-p', setting)]
    tracker = subprocess.Popen([sys.executable, '-m', 'cract_ros.node', '--ros-args', *parameters])
    processes = [tracker]
    try:
        for transition in (Transition.TRANSITION_CONFIGURE, Transition.TRANSITION_ACTIVATE):
            listener.change_state(transition, tracker)
        options = ['--wait'] if args.wait else []
        options += ['--rate', str(args.rate)] if args.rate else []
        options += ['--frames', str(args.frames)] if args.frames else []
        player = subprocess.Popen([
            sys.executable, '-m', 'cract_ros.player', str(clip.path), '--id', 'demo', '--log', str(log),
            '--box=' + ','.join(repr(float(value)) for value in clip.box), *options])
        processes.append(player)
        while player.poll() is None:
            listener.listen()
            if tracker.poll() is not None:
                raise DemoError(f'the tracker node ended with status {tracker.returncode}: its log above says why')
        if player.returncode and not (player.returncode == 2 and log.is_file()):  # 2: some frames could not be read
            raise DemoError(f'the player ended with status {player.returncode}')
        played = json.loads(log.read_text())
        deadline = time.monotonic() + LAST_ANSWER
        while played['stamps'][-1] not in listener.answers and time.monotonic() < deadline:
            listener.listen()
    finally:
        for process in processes:
            if process.poll() is None:
                process.terminate()
        for process in processes:
            process.wait()
    if tracker.returncode:
        raise DemoError(f'the tracker node ended with status {tracker.returncode} when asked to stop')
    return listener, played


def report(clip: Clip, listener: Listener, played: dict) -> str:
    """The figures, one a line."""
    stamps = played['stamps']
    asked = stamps[1:]  # the first frame is the one on which the target was given
    answered = [(index, stamp) for index, stamp in enumerate(asked, 1) if stamp in listener.answers]
    lines = []
    if clip.truth is not None:
        truth = clip.truth[:len(stamps)]
        boxes, box = [], clip.box
        for stamp in stamps:
            box = listener.answers[stamp].box if stamp in listener.answers else box
            boxes.append(box)
        overlap = overlaps(np.array(boxes), truth)
        own = overlap[[index for index, _ in answered]]
        lines.append(f'mean IoU        {_mean(own)} on the {np.isfinite(own).sum()} visible frames answered; '
                     f'{_mean(overlap[1:])} on all {np.isfinite(overlap[1:]).sum()}, the last box standing in')
    else:
        lines.append('mean IoU        no ground truth for this clip')
    lines.append(f'frames answered {len(answered)} of {len(asked)} ({len(answered) / len(asked):.1%}), '
                 f'{sum(listener.answers[stamp].score is None for _, stamp in answered)} of them as lost')
    latency = np.array([listener.answers[stamp].received - stamp for _, stamp in answered]) / 1e6
    lines.append(f'latency         p50 {np.percentile(latency, 50):.1f} ms, p95 {np.percentile(latency, 95):.1f} ms '
                 'from image published to detection received')
    lines.append(f'target given in {1e3 * played["init_seconds"]:.0f} ms')
    if len(answered) > 1:
        received = [listener.answers[stamp].received for _, stamp in answered]
        lines.append(f'fps             {(len(received) - 1) / (received[-1] - received[0]) * 1e9:.1f} answered, '
                     f'{(len(asked) - 1) / (asked[-1] - asked[0]) * 1e9:.1f} published')
    return '\n'.join(lines)


def _mean(values: np.ndarray) -> str:
    return f'{np.nanmean(values):.3f}' if np.isfinite(values).any() else 'nan'


def write(clip: Clip, listener: Listener, played: dict, output: Path, rate: float | None) -> None:
    """The video and the results file."""
    answers = [listener.answers.get(stamp) for stamp in played['stamps']]
    write_boxes(output.parent / 'results.txt', np.array([clip.box] + [answer.box for answer in answers if answer]))
    with FrameSource(clip.path) as source, VideoWriter(output, rate or source.fps) as video:
        shown = tqdm(zip(source, answers), total=len(answers), unit='frame', desc='writing', disable=None)
        for index, (frame, answer) in enumerate(shown):
            truth = None if clip.truth is None else clip.truth[index]
            if index == 0:
                picture = overlay.draw(frame, clip.box, 'tracking', None, 'demo', truth)
            elif answer is None:
                picture = overlay.draw_message(frame, 'not answered', truth)
            else:
                state = 'lost' if answer.score is None else 'tracking'
                picture = overlay.draw(frame, answer.box, state, answer.score, answer.target_id, truth)
            video.write(picture)


def main(argv: list[str] | None = None) -> int:
    """Run the demo; returns the exit status."""
    parser = options.Parser('cract_ros.demo', description='Track a clip through the ROS 2 node.')
    parser.add_argument('--clip', type=Path, metavar='PATH',
                        help='video file, folder of images or folder with img/ and groundtruth.txt '
                             f'(default: {FRAMES} frames of a rendered aerial scene)')
    parser.add_argument('--box', type=options.box, metavar='X,Y,W,H',
                        help='target in the first frame (default: from groundtruth.txt)')
    parser.add_argument('--output', type=Path, default=Path('demo/out.mp4'), metavar='OUT.mp4',
                        help='video to write; results.txt is written beside it (default: demo/out.mp4)')
    parser.add_argument('--rate', type=options.rate, metavar='HZ',
                        help="camera rate (default: a video's own, 30 for the rendered scene; images have none: the next "
                             'one is shown when the one before has been answered)')
    parser.add_argument('--wait', action='store_true',
                        help='publish a frame when the one before has been answered, so that none is dropped')
    parser.add_argument('--frames', type=int, metavar='N', help='stop after N frames')
    parser.add_argument('--param', action='append', default=[], metavar='NAME:=VALUE',
                        help='parameter of the tracker node; may be repeated')
    args = parser.parse_args(argv)
    if args.frames is not None and args.frames < 2:
        parser.error(f'--frames must be at least 2, got {args.frames}')
    # Other ROS systems on this network stay out of it; large images need the transport (see the README).
    os.environ.setdefault('ROS_DOMAIN_ID', str(random.randint(1, 101)))
    os.environ.setdefault('ROS_AUTOMATIC_DISCOVERY_RANGE', 'LOCALHOST')
    transport.use_profile()
    rclpy.init()
    try:
        with tempfile.TemporaryDirectory(prefix='cract-demo-') as folder:
            path = args.clip
            if path is None:
                path = Path(folder, 'clip')
                if cli.main(['synth', str(path), '--frames', str(args.frames or FRAMES)]):
                    raise DemoError('the scene could not be rendered')
            clip = find_clip(path, args.box)
            if args.clip and clip.path.is_dir() and args.rate is None:
                args.wait = True
            keep_apart({'--clip': args.clip}, {'--output': args.output,
                                               'beside --output': args.output.parent / 'results.txt'})
            args.output.parent.mkdir(parents=True, exist_ok=True)
            listener, played = run(clip, args, Path(folder, 'player.json'))
            if not any(stamp in listener.answers for stamp in played['stamps'][1:]):
                raise DemoError('no frame was answered')
            if played['complaint']:  # frames and lines of the truth no longer belong together
                clip = dataclasses.replace(clip, truth=None)
            write(clip, listener, played, args.output, args.rate)
            print(report(clip, listener, played))
            if not listener.overlay_works:
                raise DemoError('no overlay image came from the tracker')
            print(f'overlay         {listener.overlay.width}x{listener.overlay.height} received while subscribed')
            print(f'written         {args.output}, {args.output.parent / "results.txt"}')
            if played['complaint']:
                print(f'error: {played["complaint"]}', file=sys.stderr)
                return 2
    except (DemoError, OSError, ValueError) as error:
        print(f'error: {error}', file=sys.stderr)
        return 1
    except (KeyboardInterrupt, ExternalShutdownException):
        return 130
    finally:
        rclpy.try_shutdown()
    return 0


if __name__ == '__main__':
    raise SystemExit(main())
