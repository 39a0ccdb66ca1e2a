"""The stages protocol: where accuracy is lost between the anchors and the answer.

The true last box is handed over in every frame (teacher forcing), so that a frame shows what each stage makes of it and
nothing of what went wrong before: a figure with far less noise than that of a whole track. The last box is that of the
latest annotated frame before. Our discriminator learns from the true place, every K frames, as it does while tracking.

Of a peer only its choice is known: the box that `locate(frame, last)` finds for a target that was last at `last`. Both
ours and theirs are taken before the size is smoothed: mixing in the true last size would flatter whoever smooths most.
"""
from __future__ import annotations

from dataclasses import dataclass
from typing import Callable

import numpy as np
from threadpoolctl import threadpool_limits

from ..boxes import iou, to_numpy, xywh_to_xyxy
from ..crop import SEARCH_SIZE
from ..discriminator import NEGATIVE_IOU, draw_samples
from ..tracker import DISTRACTOR_IOU, Look, Tracker
from ..video import read_image
from .sequences import Sequence

TRACKERS = ('cract', 'nano3', 'lighttrack', 'fear', 'vit')     # whose last box can be set
STAGES = ('last', 'anchors', 'proposals', 'top', 'refined', 'chosen', 'by_identifier', 'by_discriminator', 'by_coarse')
SHARES = ('proposals', 'refined', 'chosen')     # whose share of frames above an IoU of a half is told
FIGURES = (*STAGES, 'gain', *(f'{stage}_50' for stage in SHARES))


@dataclass(frozen=True)
class StagesRun:
    """IoU with the truth by stage (F,) in the frames that were looked at; of a peer `last` and `chosen` alone.

    last: the true last box itself, what a tracker that stays there would reach; anchors: the best of all; proposals:
    the best of N; top: the best ranked proposal; refined: the best after R; chosen: the answer (Eq. 10);
    by_identifier, by_discriminator: the refined box with the highest nu+, tau; by_coarse: the anchor with the highest
    c.
    """

    frames: np.ndarray                  # (F,) their numbers, 0 being the first of the sequence
    overlaps: dict[str, np.ndarray]


def run_stages(tracker, sequence: Sequence, every: int = 1, progress: Callable[[], object] = lambda: None) -> StagesRun:
    """Look at each `every`-th frame of `sequence`, where it is annotated; `progress` is called after each frame.

    ValueError if the first frame has no box, or no frame is left to look at.
    """
    truth = sequence.truth
    known = np.flatnonzero(~np.isnan(truth).any(axis=1))
    looked = [int(frame) for frame in known if frame and frame % every == 0]
    if not len(known) or known[0] != 0:
        raise ValueError(f'{sequence.name}: the target is absent in the first frame, where tracking has to start')
    if not looked:
        raise ValueError(f'{sequence.name}: no annotated frame after the first to look at'
                         + (f', one in {every}' if every > 1 else ''))
    tracker.init(read_image(sequence.images[0]), truth[0])
    look = _Stages(tracker) if isinstance(tracker, Tracker) else _Answer(tracker)
    rows, wanted = [], set(looked)
    for index, path in enumerate(sequence.images):
        if index in wanted:
            last = truth[known[known < index][-1]]
            rows.append(dict(last=iou(xywh_to_xyxy(last), xywh_to_xyxy(truth[index])),
                             **look(read_image(path), last, truth[index], index)))
        progress()
    return StagesRun(np.array(looked), {stage: np.array([row[stage] for row in rows]) for stage in rows[0]})


def summarize(run: StagesRun) -> dict[str, float | int | None]:
    """Mean IoU by stage, `gain` of R (refined - proposals), shares of the frames above a half; None for what a peer
    does not show."""
    overlaps = run.overlaps
    figures: dict[str, float | int | None] = dict(frames=len(run.frames), **dict.fromkeys(FIGURES))
    figures.update({stage: float(values.mean()) for stage, values in overlaps.items()})
    figures.update({f'{stage}_50': float((overlaps[stage] > 0.5).mean()) for stage in SHARES if stage in overlaps})
    if 'refined' in overlaps:
        figures['gain'] = figures['refined'] - figures['proposals']
    return figures


def mean_figures(figures: list[dict]) -> dict[str, float | int | None]:
    """Averages over sequences: each counts the same."""
    return dict(sequences=len(figures), frames=sum(one['frames'] for one in figures),
                **{key: None if figures[0][key] is None else float(np.mean([one[key] for one in figures]))
                   for key in FIGURES})


class _Stages:
    """Our tracker, stage by stage; its discriminator learns on."""

    def __init__(self, tracker: Tracker):
        self._tracker, self._taught = tracker, 0
        self._random = np.random.default_rng(tracker.config.seed)

    def __call__(self, frame: np.ndarray, last: np.ndarray, true: np.ndarray, index: int) -> dict[str, float]:
        found = self._tracker.inspect(frame, last)
        true = found.window.to_crop(xywh_to_xyxy(true))
        anchors, proposals, refined = (iou(to_numpy(boxes).astype(np.float64), true)
                                       for boxes in (found.anchors, found.proposals, found.refined))
        _, nu, tau = found.parts.T
        if index - self._taught >= self._tracker.config.update_interval:
            self._teach(found, true)
            self._taught = index
        return dict(anchors=anchors.max(), proposals=proposals.max(), top=proposals[0], refined=refined.max(),
                    chosen=float(iou(found.box, true)), by_identifier=refined[nu.argmax()],
                    by_discriminator=refined[tau.argmax()], by_coarse=anchors[to_numpy(found.coarse).argmax()])

    def _teach(self, found: Look, true: np.ndarray) -> None:
        tracker, config = self._tracker, self._tracker.config
        others = found.refined[iou(found.refined, true) < DISTRACTOR_IOU]
        samples = draw_samples(true, config.update_positives, config.update_negatives, NEGATIVE_IOU[1],
                               SEARCH_SIZE, self._random, distractors=others)
        with threadpool_limits(1, 'blas'):
            tracker.discriminator.remember(tracker.nets.as_array(found.phi), samples)
            tracker.discriminator.update(False, config.update_iterations)


class _Answer:
    """A peer: the box that it chooses."""

    def __init__(self, tracker):
        self._tracker = tracker

    def __call__(self, frame: np.ndarray, last: np.ndarray, true: np.ndarray, index: int) -> dict[str, float]:
        return dict(chosen=iou(xywh_to_xyxy(self._tracker.locate(frame, last)), xywh_to_xyxy(true)))
