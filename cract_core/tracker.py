"""Algorithm 1: init(frame, box), then update(frame) -> Estimate."""
from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass
from typing import Iterator, NamedTuple

import cv2
import numpy as np
from threadpoolctl import ThreadpoolController

from .boxes import check_box, iou, to_numpy, xywh_to_xyxy
from .camera_motion import CameraMotion, Motion
from .config import ON, TrackerConfig
from .crop import AUGMENTED_VIEWS, SEARCH_SIZE, VIEW_SIZE, Window, augmented_views, search_window, template_window
from .discriminator import NEGATIVE_IOU, Discriminator, Samples, draw_samples
from .pose import Poses
from .presence import Presence, State, probability
from .proposals import vote
from .redetection import SAME_IOU, Redetection
from .runtime import Template, make_nets

MIN_SIZE = 4.0           # a target never shrinks below, pixels of the frame
SAME_ASPECT = 0.01       # frames whose aspects differ by less are one picture at two sizes
CONSIDERED = 8           # boxes of a detector that are looked at in one frame
STEADIEST = 0.2          # part of a step that is followed however small it is
DISTRACTOR_IOU = 0.3     # a proposal that overlaps the target less is another object
DISTRACTOR_RATIO = 0.5   # ... and a distractor if its score exceeds this part of the target's
DISTRACTOR_SCORE = 0.25  # ... and this


@dataclass(frozen=True)
class Estimate:
    """The answer for one frame.

    box: (4,) float64 x, y, w, h in pixels of the frame, 0-based, continuous, always finite; for a lost target that of the
    hypothesis that is followed, or the last one that was believed. score: calibrated probability that the target is in
    view and `box` overlaps it by more than a half. fused: Eq. 10; identification nu+, discrimination tau (clamped) and
    proposal c are its parts, all in [0, 1] and for a lost target those of its best candidate. updated: the discriminator
    learns from this frame. motion: of the picture since the frame before, None where it is unsure.
    """
    box: np.ndarray
    score: float
    fused: float
    state: State
    identification: float
    discrimination: float
    proposal: float
    updated: bool
    motion: Motion | None = None


def check_frame(frame) -> np.ndarray:
    """Raise ValueError, in one sentence, unless `frame` is a (H, W, 3) uint8 array of at least 8 x 8 pixels."""
    if not isinstance(frame, np.ndarray):
        raise ValueError(f'a frame is a (height, width, 3) uint8 array, got {type(frame).__name__}')
    if frame.dtype != np.uint8 or frame.ndim != 3 or frame.shape[2] != 3:
        raise ValueError(f'a frame is a (height, width, 3) uint8 array, got {frame.dtype} in shape {frame.shape}')
    if min(frame.shape[:2]) < 8:
        raise ValueError(f'a frame has at least 8 x 8 pixels, got {frame.shape[1]} x {frame.shape[0]}')
    return frame


class Lesson(NamedTuple):
    """What D has yet to learn from a frame: phi34 and, where the target was found in it, its box (4,) and those of
    other objects (m, 4), corners in the crop, whose side is `extent` pixels. short_term: of the memory only the latest
    frames count."""
    phi: object
    box: np.ndarray | None
    others: np.ndarray
    short_term: bool
    extent: int = SEARCH_SIZE


class Look(NamedTuple):
    """What every stage finds in one search region. Boxes are corners in the crop; `window.to_frame` leads into the frame.

    anchors (M, 4) with their coarse scores (M,); proposals (N, 4); refined (N, 4) with the fused scores of Eq. 10 (N,) and
    their parts c, nu+, tau (N, 3); box (4,): the answer. phi: phi34, valid until the networks search again.
    """
    window: Window
    phi: object
    anchors: np.ndarray
    coarse: np.ndarray
    proposals: np.ndarray
    refined: np.ndarray
    scores: np.ndarray
    parts: np.ndarray
    box: np.ndarray

    @property
    def best(self) -> int:
        """Number of the best scored box."""
        return int(self.scores.argmax())

    @property
    def rivals(self) -> np.ndarray:
        """(N,) bool: which boxes show other objects than the best."""
        return iou(self.refined, self.refined[self.best]) < DISTRACTOR_IOU

    @property
    def distracted(self) -> bool:
        """Whether another object nearly takes the target's place."""
        rival = float(self.scores[self.rivals].max(initial=0.0))
        return rival > max(DISTRACTOR_RATIO * self.scores[self.best], DISTRACTOR_SCORE)


class Target:
    """Everything that belongs to the object being tracked and is gone with it. frame_size: width, height."""

    def __init__(self, box: np.ndarray, template: Template, discriminator: Discriminator, border: tuple[float, ...],
                 random: np.random.Generator, frame_size: tuple[int, int], poses: Poses):
        self.center, self.size = box[:2] + box[2:] / 2, box[2:].copy()
        self.template, self.discriminator, self.border, self.random = template, discriminator, border, random
        self.frame_size, self.poses = frame_size, poses
        self.camera, self.turn = CameraMotion(), 0.0        # radians that the picture turned since the first frame
        self.velocity = np.zeros(2)     # beside the camera's motion, pixels a frame
        self.moving = False       # `center` was moved by it in this frame
        self.presence = Presence()
        self.since_update = 0     # frames since the last training of D
        self.since_view = 0       # frames since the identifier's recent view was taken
        self.lesson: Lesson | None = None           # what D has yet to learn
        self.view: tuple | None = None              # crop and box (4,) in it, yet to become the recent view
        self.look: Look | None = None               # the latest, as long as phi34 of it is valid
        self.due = False          # `learn` was not called since the latest answer
        self.seen = self.center, self.size          # where nothing spoke against it last
        self.redetection: Redetection | None = None  # of a lost target

    @property
    def state(self) -> State:
        return self.presence.state

    @property
    def seeking(self) -> bool:
        """Whether it is lost, and this look is not at the hypothesis that is followed."""
        return self.redetection is not None and not self.redetection.following

    def lose(self) -> None:
        """It is lost from now on: sought from where nothing spoke against it last."""
        self.presence.state, self.redetection = State.LOST, Redetection(*self.seen)
        self.velocity, self.moving = np.zeros(2), False

    def take_back(self, corners: np.ndarray) -> None:
        """It is believed to be seen again, with the size of `corners` (4,)."""
        self.presence.restore()
        self.redetection, self.size = None, corners[2:] - corners[:2]

    def carry(self, motion: Motion) -> None:
        """The picture has moved: all that is known of places moves along."""
        resized = motion.scale * self.poses.resized(self.turn, self.turn + motion.angle)
        sizes = MIN_SIZE, max(*self.frame_size, MIN_SIZE)
        self.turn += motion.angle
        self.center, self.size = motion.carry(self.center), np.clip(self.size * resized, *sizes)
        self.seen = motion.carry(self.seen[0]), np.clip(self.seen[1] * resized, *sizes)
        self.velocity = motion.linear @ self.velocity
        if self.redetection is not None:
            self.redetection.carry(motion, resized)
            self.redetection.size = np.clip(self.redetection.size, *sizes)

    @property
    def corners(self) -> np.ndarray:
        """(4,) in pixels of the frame."""
        return np.concatenate([self.center - self.size / 2, self.center + self.size / 2])

    @property
    def box(self) -> np.ndarray:
        """x, y, w, h in pixels of the frame."""
        return np.concatenate([self.center - self.size / 2, self.size])


class Tracker:
    """CRACT. Weights are read once; a new `init` replaces the target.

    config: checked parameters; model: a CractModel that runs on torch, in place of the weights that `config` names.
    Raises FileNotFoundError or ValueError for bad weights and for a runtime, precision or device that is not there.
    """

    def __init__(self, config: TrackerConfig = TrackerConfig(), model=None):
        self.config = config
        self.nets = make_nets(config, model)
        self._pools = ThreadpoolController()
        self._target: Target | None = None

    @property
    def device(self) -> str:
        """Where the networks really run, such as 'cpu' or 'cuda:0'."""
        return self.nets.device

    @property
    def initialized(self) -> bool:
        return self._target is not None

    def reset(self) -> None:
        """Forget the target."""
        self._target = None

    def configure(self, **changes) -> None:
        """Change live parameters without losing the target. ValueError if one is not live or out of its range."""
        live = {field.name for field in dataclasses.fields(TrackerConfig) if field.metadata['live']}
        for name in changes:
            if name not in live:
                raise ValueError(f'{name} cannot change while tracking')
        self.config = self.config.replace(**changes)

    def init(self, frame: np.ndarray, box) -> None:
        """Start to follow what `box` (x, y, w, h) shows in `frame` (H, W, 3) BGR uint8.

        Raises ValueError for a bad frame or box; the previous target, if any, is then kept.
        """
        frame = check_frame(frame)
        box = check_box(box, (frame.shape[1], frame.shape[0]))
        config = self.config
        border = cv2.mean(frame)[:3]
        center, corners = box[:2] + box[2:] / 2, xywh_to_xyxy(box)

        window = template_window(center, *box[2:])                                       # Algorithm 1, line 1
        template = self.nets.template(window.cut(frame, border), window.to_crop(corners))  # line 2
        discriminator = Discriminator(config.regularization, config.cg_iterations, config.long_memory,
                                      config.short_memory, config.seed)
        target = Target(box, template.beside(template), discriminator, border, np.random.default_rng(config.seed),
                        frame.shape[1::-1], Poses(frame, window, box[2:], border))
        target.poses.made[0] = template
        if config.camera_motion == ON:
            target.camera.follow(frame, corners)
        with self._one_blas_thread():
            discriminator.start(self._views(target, frame), config.init_iterations)
        self._target = target

    def update(self, frame: np.ndarray) -> Estimate:
        """Find the target in the next frame (H, W, 3) BGR uint8, of any size, and learn from it.

        Raises RuntimeError before `init`, ValueError for a bad frame; the state is then unchanged.
        """
        estimate = self.answer(frame)
        self.learn()
        return estimate

    def answer(self, frame: np.ndarray) -> Estimate:
        """As `update`, but what is to be learned from the frame waits for `learn`, or for the next call."""
        target = self._followed()
        frame = check_frame(frame)
        if target.due:
            self.learn()

        self._fit(target, frame)
        motion = self._predict(target, frame)
        window = self._window(target)                                                    # Algorithm 1, line 4
        # the window decides nothing where a lost target is sought: it may return anywhere
        influence = 0.0 if target.seeking else self.config.window_influence
        look = self._look(window, target, frame, target.corners, influence)              # lines 5-11
        corners, fused = window.to_frame(look.box), float(look.scores[look.best])
        c, nu, tau = (float(value) for value in look.parts[look.best])
        score = self._judge(target, corners, fused, nu, tau)
        if not target.seeking:
            self._move(target, corners, fused, frame)
        lesson = self._lesson(target, look, score)                                       # line 12
        if lesson is not None:
            while target.lesson is not None:  # only where updates follow each other in successive frames
                self.learn()
            target.lesson = lesson
        self._take_view(target, look, frame, score)
        target.due, target.look = True, look
        return Estimate(target.box, score, fused, target.state, nu, tau, c, lesson is not None, motion)

    def learn(self) -> None:
        """Take the next step of what the discriminator has to learn, if anything; without a target nothing.

        Samples of a frame are stored after its answer, and trained on after the next one: each takes half the time.
        """
        target, config = self._target, self.config
        if target is None:
            return
        target.due, lesson, look, target.look = False, target.lesson, target.look, None
        if lesson is None:
            if target.view is not None:
                target.template, target.view = target.template.beside(self.nets.template(*target.view)), None
            elif look is not None:
                self._turn_template(target, look)
            return
        with self._one_blas_thread():
            if lesson.box is not None:
                samples = draw_samples(lesson.box, config.update_positives, config.update_negatives, NEGATIVE_IOU[1],
                                       lesson.extent, target.random, distractors=lesson.others)
                target.discriminator.remember(self.nets.as_array(lesson.phi), samples)
                target.lesson = lesson._replace(phi=None, box=None)
            else:
                target.discriminator.update(lesson.short_term, config.update_iterations)
                target.lesson = None

    def consider(self, frame: np.ndarray, boxes: np.ndarray) -> Estimate | None:
        """Take a lost target back at one of `boxes` (M, 4) x, y, w, h in `frame`, such as those of a detector.

        Each box is searched in its own region, nearest to the last place first, eight at most. Identifier and
        discriminator decide as they do after a scan, but at once: the detector has confirmed the place. None if no box
        convinces or the target is not lost. Raises RuntimeError before `init`, ValueError for a bad frame or box.
        """
        target = self._followed()
        frame = check_frame(frame)
        boxes = [check_box(box, (frame.shape[1], frame.shape[0])) for box in boxes]
        if target.state is not State.LOST:
            return None
        self.learn()
        found = None
        for box in sorted(boxes, key=lambda box: np.linalg.norm(box[:2] + box[2:] / 2 - target.center))[:CONSIDERED]:
            place = xywh_to_xyxy(box)
            window = search_window(box[:2] + box[2:] / 2, *box[2:])
            look = self._look(window, target, frame, place, 0.0)
            corners, fused, (c, nu, tau) = window.to_frame(look.box), float(look.scores[look.best]), look.parts[look.best]
            if self._agree(fused, nu, tau) and iou(corners, place) > SAME_IOU and (not found or fused > found[1]):
                found = corners, fused, float(nu), float(tau), float(c)
        if found is None:
            return None
        corners, fused, nu, tau, c = found
        target.take_back(corners)
        score = self._judge(target, corners, fused, nu, tau)
        self._move(target, corners, fused, frame)
        return Estimate(target.box, score, fused, target.state, nu, tau, c, False)

    @property
    def discriminator(self) -> Discriminator:
        """D of the target that is followed; RuntimeError before `init`."""
        return self._followed().discriminator

    def inspect(self, frame: np.ndarray, last: np.ndarray) -> Look:
        """What each stage finds in `frame` (H, W, 3) for a target being tracked that was last at `last` (x, y, w, h).

        Nothing is followed or learned: the target stays as it is. Raises RuntimeError before `init`, ValueError for a
        bad frame.
        """
        target, frame = self._followed(), check_frame(frame)
        center, size = last[:2] + last[2:] / 2, np.maximum(last[2:], MIN_SIZE)
        corners = np.concatenate([center - size / 2, center + size / 2])
        return self._look(search_window(center, *size), target, frame, corners, self.config.window_influence)

    def _one_blas_thread(self):
        """A second one gains little on D's matrices, and then waits busily while the networks want its core."""
        return self._pools.limit(limits=1, user_api='blas')

    def _followed(self) -> Target:
        if self._target is None:
            raise RuntimeError('the tracker has no target yet: call init(frame, box) first')
        return self._target

    def _views(self, target: Target, frame: np.ndarray) -> Iterator[tuple[object, Samples]]:
        """phi34 and training boxes of the first search crop and of views of the target: half of the boxes in the crop."""
        def draw(box: np.ndarray, share: float, extent: int, others: np.ndarray | None = None) -> Samples:
            counts = (math.ceil(share * count) for count in (self.config.init_positives, self.config.init_negatives))
            return draw_samples(box, *counts, NEGATIVE_IOU[0], extent, target.random, distractors=others)

        window = search_window(target.center, *target.size)
        crop, box = window.cut(frame, target.border), window.to_crop(target.corners)
        phi, boxes, coarse = self.nets.search(crop, target.template)
        others = to_numpy(self.nets.select(boxes, coarse, np.float32(box), self.config.scale_penalty,
                                           self.config.window_influence).boxes)
        yield self.nets.as_array(phi), draw(box, 0.5, SEARCH_SIZE, others)
        for picture, box in augmented_views(crop, box):
            yield self.nets.features(picture), draw(box, 0.5 / AUGMENTED_VIEWS, VIEW_SIZE)

    def _look(self, window: Window, target: Target, frame: np.ndarray, last: np.ndarray, influence: float) -> Look:
        """Algorithm 1, lines 5 to 11, in one search region; last (4,): where the target was, corners in the frame.
        influence: of the cosine window over the region on the rank of the anchors."""
        config, last = self.config, np.float32(window.to_crop(last))
        phi, anchors, coarse = self.nets.search(window.cut(frame, target.border), target.template)  # line 5
        proposals = self.nets.select(anchors, coarse, last, config.scale_penalty, influence)        # line 6
        refined, views, tau = self.nets.refine(phi, proposals.boxes, target.template,
                                               target.discriminator.classifier)                     # lines 7-10
        refined = refined.astype(np.float64)
        nu = views.max(0)  # of the first view and a recent one, whichever is more alike
        parts = np.stack([to_numpy(proposals.scores), nu, tau.clip(0, 1)], 1).astype(np.float64)
        scores = self._fuse(*parts.T)
        return Look(window, phi, anchors, coarse, proposals.boxes, refined, scores, parts,
                    vote(refined, scores, config.vote_iou))                                         # line 11

    def _fuse(self, c: np.ndarray, nu: np.ndarray, tau: np.ndarray) -> np.ndarray:
        config = self.config
        refined = config.alpha * nu + (1 - config.alpha) * tau                           # Eq. 9
        return config.beta * refined + (1 - config.beta) * c                             # Eq. 10

    @staticmethod
    def _fit(target: Target, frame: np.ndarray) -> None:
        """A frame of the same picture in another size: what is known in pixels is rescaled. In one of another aspect it
        stays as it is."""
        (width, height), (old_width, old_height) = frame.shape[1::-1], target.frame_size
        target.frame_size = width, height
        factor = width / old_width
        if (width, height) == (old_width, old_height) or abs(factor * old_height / height - 1) > SAME_ASPECT:
            return
        target.carry(Motion(np.eye(2) * factor, np.zeros(2)))

    def _predict(self, target: Target, frame: np.ndarray) -> Motion | None:
        """Move all that is known of a target that is followed along with the picture, and by its own motion; returns the
        picture's, None where it is unsure: the target is then expected where it was."""
        config, target.moving = self.config, False
        if config.camera_motion != ON:
            target.camera = CameraMotion()  # switched on again, it begins anew
            return None
        motion = target.camera.follow(frame, target.corners)
        if motion is not None and target.redetection is None:
            target.carry(motion)
            if config.velocity_rate:
                target.center, target.moving = target.center + target.velocity, True
        return motion

    def _turn_template(self, target: Target, look: Look) -> None:
        """Take the first frame's template as the camera has turned it, if the identifier knows the best box better by it: an
        object that turns along with the camera looks as it did. Where it knows it hardly at all, other turns are tried."""
        config, poses = self.config, target.poses
        if config.template_turn >= 180:
            return
        step, needed = poses.due(target.turn, config.template_turn), 0.0
        if step is None and target.state is State.UNCERTAIN:
            step, needed = poses.guess(), config.guess_identification
        if step is None or needed >= 1:
            return
        if step not in poses.made:
            poses.made[step] = self.nets.template(*poses.view(step))
        turned, present = poses.made[step], poses.made[poses.step]
        _, views, _ = self.nets.refine(look.phi, look.proposals, target.template._replace(
            identify_term=turned.beside(present).identify_term), target.discriminator.classifier)
        if views[0, look.best] <= max(views[1, look.best], needed):
            poses.refuse()
            return
        if needed:
            target.turn = poses.angle(step)
        recent = target.template.identify_term[1:]
        target.template, poses.step = turned.beside(turned._replace(identify_term=recent)), step
        view, box = poses.view(step, VIEW_SIZE)
        target.lesson = Lesson(self.nets.features(view), box, np.empty((0, 4)), False, VIEW_SIZE)

    def _window(self, target: Target) -> Window:
        """Where to look: around the last box, or where a lost target is sought."""
        if target.redetection is None:
            return search_window(target.center, *target.size)
        if not target.redetection.alive:
            target.center, target.size = target.seen
        return target.redetection.window(target.center, target.size, target.frame_size, self.config)

    def _judge(self, target: Target, corners: np.ndarray, fused: float, nu: float, tau: float) -> float:
        """Set the next state from the best box, `corners` (4,) in the frame, and return the score.

        A lost target is taken back when `reacquire_frames` looks agree on one place.
        """
        score, presence = self._calibrated(fused), target.presence
        if presence.lost:
            if not target.redetection.confirm(corners, self._agree(fused, nu, tau), tau, self.config):
                return min(score, self.config.lost_score)  # the box that is told is not where the target may be
            target.take_back(corners)
        presence.judge(score, self.config)
        if presence.lost:
            target.lose()
        return score

    def _calibrated(self, fused: float) -> float:
        return float(probability(fused, self.config.score_slope, self.config.score_offset))

    def _agree(self, fused: float, nu: float, tau: float) -> bool:
        """Whether identifier and discriminator, each and together, think that a lost target is seen."""
        config = self.config
        return bool(nu >= config.reacquire_identification and tau >= config.reacquire_discrimination
                    and self._calibrated(fused) >= config.reacquire_score)

    def _move(self, target: Target, corners: np.ndarray, score: float, frame: np.ndarray) -> None:
        """Follow the best box (corners in the frame): the position at once unless it hardly differs from the expected one, the
        size smoothed by the score."""
        rate = self.config.size_rate * score
        size = (1 - rate) * target.size + rate * (corners[2:] - corners[:2])
        height, width = frame.shape[:2]
        target.size = np.clip(size, MIN_SIZE, (max(width, MIN_SIZE), max(height, MIN_SIZE)))
        expected, center = target.center, np.clip((corners[:2] + corners[2:]) / 2, 0, (width, height))
        step, noise = center - expected, self.config.steadiness * math.sqrt(np.prod(target.size))
        if noise:
            step = step * np.clip(np.linalg.norm(step) / noise, STEADIEST, 1)
        target.center = expected + step
        if target.moving:
            target.velocity = target.velocity + self.config.velocity_rate * score * step
        if target.presence.sure and not target.presence.lost:
            target.seen = target.center, target.size

    def _lesson(self, target: Target, look: Look, score: float) -> Lesson | None:
        """What D shall learn from a frame: every K frames, when a distractor shows, when the score falls."""
        config = self.config
        target.since_update += 1
        if target.since_update < min(config.update_gap, config.update_interval) or target.presence.lost:
            return None
        falling = score < config.learn_score or target.presence.fallen > 0
        if not (falling or look.distracted or target.since_update >= config.update_interval):
            return None
        target.since_update = 0
        return Lesson(look.phi, None if falling else look.box, look.refined[look.rivals], falling)

    def _take_view(self, target: Target, look: Look, frame: np.ndarray, score: float) -> None:
        """Take the target's recent view for the identifier, of a frame in which nothing is in doubt."""
        config = self.config
        target.since_view += 1
        sure = target.presence.sure and target.state is State.TRACKING and score >= config.view_score
        if (target.since_view < config.view_interval or not sure or look.distracted
                or look.parts[look.best, 1:].min() < config.view_agreement):
            return
        window = template_window(target.center, *target.size)
        target.view, target.since_view = (window.cut(frame, target.border), window.to_crop(target.corners)), 0
