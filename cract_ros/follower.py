"""The tracker and its target between two images: init, catching up, pause, loss and return, a fall back to the CPU.

No node is needed here. Everything but the history of images belongs to one thread.
"""
from __future__ import annotations

import time
from typing import NamedTuple

import numpy as np
from rclpy.impl.rcutils_logger import RcutilsLogger
from std_msgs.msg import Header

from cract_core import __version__
from cract_core.boxes import check_box
from cract_core.config import CPU, TrackerConfig
from cract_core.encodings import Bounds, Contrast
from cract_core.weights_file import find_weights
from cract_ros.conversions import to_bgr
from cract_ros.history import Frame, FrameHistory, apart, catch_up, nanoseconds, text
from cract_ros.motion import Motion

NO_TARGET, PAUSED, TRACKING, LOST = 'no target', 'paused', 'tracking', 'lost'


class Answer(NamedTuple):
    """What is known after an image. Without a target, and in a pause, estimate is None."""
    header: Header
    image: np.ndarray  # (H, W, 3) uint8 BGR
    estimate: object | None  # cract_core.tracker.Estimate
    state: str  # a key of conversions.STATES
    target_id: str
    frames_since_seen: int  # images that arrived since the latest in which the target was not lost
    seconds_since_seen: float
    processing_time: float  # seconds
    predicted: np.ndarray | None = None  # (4,) x, y, w, h: where a lost target would be; None where that is not known


def load_tracker(config: TrackerConfig, cpu_fallback: bool, log: RcutilsLogger):
    """A Tracker; with `cpu_fallback` on the CPU where the GPU does not do. Raises OSError or ValueError."""
    from cract_core.tracker import Tracker  # loads the runtime: not before the parameters are known to be right
    try:
        return Tracker(config)
    except (RuntimeError, ValueError) as error:
        if not cpu_fallback or config.device == CPU:
            raise
        tracker = Tracker(config.replace(device=CPU))
        log.warning(f'the networks run on the CPU instead of {config.device}: {error}')
        return tracker


def _inside(boxes: np.ndarray, image: np.ndarray, left_out: list[str]) -> np.ndarray:
    """Those of `boxes` (N, 4) that the tracker takes in that image; why not, for each other one, to `left_out`."""
    kept = []
    for box in boxes:
        try:
            kept.append(check_box(box, image.shape[1::-1]))
        except ValueError as error:
            left_out.append(str(error))
    return np.array(kept).reshape(-1, 4)


class Follower:
    """One target, followed through the images of a history, whose pictures are read within `bounds`."""

    def __init__(self, tracker, history: FrameHistory, cpu_fallback: bool, log: RcutilsLogger,
                 bounds: Bounds = Bounds()):
        self.tracker = tracker
        self.target_id = ''
        self._state, self._paused = NO_TARGET, False
        self._history, self._cpu_fallback, self._log = history, cpu_fallback, log
        self._targets = 0
        self._done = 0  # serial of the latest image that was worked on
        self._stamp = 0  # its stamp, ns
        self._view: tuple[Frame, np.ndarray] | None = None  # latest image and box of a target that was not lost
        self._seen = 0  # serial of that image
        self._unseen = 0  # ns since then
        self._contrast, self._bounds = Contrast(), bounds  # of the images
        self._motion = Motion()

    @property
    def described(self) -> str:
        """What works: runtime, precision, device, threads and model, in words."""
        config = self.tracker.config
        threads = f'{config.threads} threads' if config.threads else 'as many threads as the library takes'
        weights = find_weights(config.weights)
        return f'{self.tracker.nets.name} on {self.tracker.device}, {threads}, weights {weights} (version {__version__})'

    @property
    def state(self) -> str:
        """Of the target after the latest image that was worked on; 'no target' or 'paused' where none is followed."""
        return PAUSED if self._paused else self._state

    def init(self, box: np.ndarray, header: Header, target_id: str, budget: float) -> str:
        """Follow what `box` (x, y, w, h) shows in the image of that stamp, and catch up within `budget` seconds.

        Returns what is followed, in words. Raises ValueError for a wrong box or stamp: the present target then stays.
        """
        frame = self._history.at(header.stamp)
        image = self.picture(frame)
        self._run('init', image, box)
        self._targets += 1
        self.target_id = target_id or str(self._targets)
        self._paused, self._motion = False, Motion()
        self._take(frame, box, TRACKING)
        x, y, w, h = box
        away = apart(frame.header.stamp, header.stamp) if nanoseconds(header.stamp) else 0.0
        nearest = f', the nearest to the stamp that was given ({1e3 * away:.1f} ms)' if away else ''
        return f'following {self.target_id!r} from x {x:g}, y {y:g}, w {w:g}, h {h:g} ' \
               f'in the image stamped {text(frame.header.stamp)}{nearest}{self._catch_up(budget)}'

    def consider(self, header: Header, boxes: np.ndarray, budget: float, left_out: list[str] | None = None) -> bool:
        """Let the tracker take back a lost target among `boxes` (N, 4) of the image of that stamp, and catch up.

        True if one convinced it. For each box that is none in that image the reason is appended to `left_out`. Raises
        ValueError for an image that is not in the history or is no picture.
        """
        if self.state != LOST:
            return False
        frame = self._history.at(header.stamp)
        image = self.picture(frame)
        boxes = _inside(boxes, image, [] if left_out is None else left_out)
        estimate = self._run('consider', image, boxes)
        if estimate is None:
            return False
        self._take(frame, estimate.box, estimate.state.value)
        self._catch_up(budget)
        return True

    def answer(self) -> Answer | None:
        """What is known after the newest image; None if that was worked on before. ValueError if it is no picture."""
        frame = self._history.newest()
        if frame is None or frame.serial <= self._done:
            return None
        started = time.perf_counter()
        self._done = frame.serial  # an image that is no picture is not asked for again
        image = self.picture(frame)
        followed = self.state not in (NO_TARGET, PAUSED)
        estimate = self._update(frame, image) if followed else None
        unseen = frame.serial - self._seen if self.state == LOST else 0
        predicted = self._motion.at(self._stamp / 1e9) if unseen and followed else None
        return Answer(frame.header, image, estimate, self.state, self.target_id if followed else '', unseen,
                      self._unseen / 1e9 if unseen else 0.0, time.perf_counter() - started, predicted)

    def pause(self, paused: bool) -> None:
        """Work on no image for a while, or go on with the target where it was."""
        self._paused = paused

    def reset(self) -> bool:
        """Forget the target; False if there was none."""
        had_target = self.tracker.initialized
        self.tracker.reset()
        self._view, self._state, self.target_id = None, NO_TARGET, ''
        return had_target

    def _catch_up(self, budget: float) -> str:
        taken, left_out = catch_up(self._history, self._done, budget, self._step)
        if not taken and not left_out:
            return ''
        return f', caught up through {taken} later images' + (f', {left_out} left out' if left_out else '')

    def _step(self, frame: Frame) -> None:
        try:
            self._update(frame, self.picture(frame))
        except ValueError as error:
            self._log.warning(f'frame skipped: {error}')

    def learn(self) -> None:
        """What the latest answer has put off until it was published."""
        self._run('learn')

    def picture(self, frame: Frame) -> np.ndarray:
        """Of an image, within the bounds, with the contrast of the stream. ValueError for what is no picture."""
        return to_bgr(frame.message, self._contrast, self._bounds)

    def _update(self, frame: Frame, image: np.ndarray):
        estimate = self._run('answer', image)
        self._take(frame, estimate.box, estimate.state.value)
        return estimate

    def _take(self, frame: Frame, box: np.ndarray, state: str) -> None:
        """Note what an image has shown."""
        stamp = nanoseconds(frame.header.stamp)
        if state == LOST:
            self._unseen += max(stamp - self._stamp, 0)
        else:
            self._view, self._seen, self._unseen = (frame, box), frame.serial, 0
        if state == TRACKING:
            self._motion.add(stamp / 1e9, box)
        self._state, self._done, self._stamp = state, frame.serial, stamp

    def _run(self, method: str, *args):
        """Call the tracker; where its GPU fails and that is allowed, go on with one on the CPU.

        The target is started anew there, from the latest box in which it was seen.
        """
        try:
            return getattr(self.tracker, method)(*args)
        except RuntimeError as error:
            if not self._cpu_fallback or self.tracker.device == CPU:
                raise
            self._log.error(f'the networks run on the CPU from now on, {self.tracker.device} failed: {error}')
        self.tracker = load_tracker(self.tracker.config.replace(device=CPU), False, self._log)
        if self._view is not None:
            frame, box = self._view
            self.tracker.init(self.picture(frame), box)
        return getattr(self.tracker, method)(*args)
