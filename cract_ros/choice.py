"""Which box a request for a target means: the one that it gives, one found at a point, or one of a detector's."""
from __future__ import annotations

from typing import Callable, NamedTuple

import numpy as np
from std_msgs.msg import Header
from vision_msgs.msg import Detection2D, Detection2DArray

from cract_core.boxes import check_box, xywh_to_xyxy
from cract_core.point import box_from_point
from cract_ros.conversions import box_from_message, to_bgr
from cract_ros.history import Frame, FrameHistory, nanoseconds, text
from cract_ros.srv import InitTarget

SAME_TIME = 0.2  # seconds that the candidates' image may be away from that of a point


class Choice(NamedTuple):
    """header: of the image; box (4,) x, y, w, h in pixels of it; score in [0, 1]."""
    header: Header
    box: np.ndarray
    score: float

    def __str__(self) -> str:
        x, y, w, h = self.box
        return f'x {x:g}, y {y:g}, w {w:g}, h {h:g} in the image stamped {text(self.header.stamp)}'


def _picture(frame: Frame) -> np.ndarray:
    return to_bgr(frame.message)


def choose(request: InitTarget.Request, history: FrameHistory, candidates: Detection2DArray, nets,
           read: Callable[[Frame], np.ndarray] = _picture) -> Choice:
    """The box that is meant, on the thread of the networks; `read` makes a picture (H, W, 3) of a frame. ValueError, one
    sentence, where there is none."""
    choice = _meant(request, history, candidates, nets, read)
    if request.propose:   # a target's box is checked by the tracker
        size = read(history.at(choice.header.stamp)).shape[1::-1]
        choice = choice._replace(box=check_box(choice.box, size))
    return choice


def _meant(request: InitTarget.Request, history: FrameHistory, candidates: Detection2DArray, nets,
           read: Callable[[Frame], np.ndarray]) -> Choice:
    if request.kind == InitTarget.Request.CANDIDATE:
        return _candidate(request, history, candidates)
    frame = history.at(request.header.stamp)
    if request.kind == InitTarget.Request.BOX:
        box = box_from_message(request.bbox)
        if request.normalized:
            box = box * np.tile(read(frame).shape[1::-1], 2)
        return Choice(frame.header, box, 1.0)
    if request.kind != InitTarget.Request.POINT:
        raise ValueError(f'a target is told as a box (0), a point (1) or a candidate (2), got kind {request.kind}')
    image = read(frame)
    point = np.array([request.point.x, request.point.y])
    if request.normalized:
        point = point * image.shape[1::-1]
    if not ((0 <= point) & (point <= image.shape[1::-1])).all():
        raise ValueError(f'the point {point[0]:g}, {point[1]:g} lies outside the {image.shape[1]} x {image.shape[0]} image')
    return _candidate_at(point, frame, history, candidates) or \
        Choice(frame.header, *box_from_point(image, point, nets))


def _candidate(request: InitTarget.Request, history: FrameHistory, candidates: Detection2DArray) -> Choice:
    """That of the request's id, or place in the list."""
    if not candidates.detections:
        raise ValueError('there are no candidates')
    if nanoseconds(request.header.stamp) and request.header.stamp != candidates.header.stamp:
        raise ValueError(f'the latest candidates belong to the image stamped {text(candidates.header.stamp)}, '
                         f'not to that stamped {text(request.header.stamp)}')
    for place, detection in enumerate(candidates.detections):
        if (detection.id or str(place)) == request.candidate:
            history.at(candidates.header.stamp)
            return Choice(candidates.header, check_box(box_from_message(detection.bbox)), _score(detection))
    known = [detection.id or str(place) for place, detection in enumerate(candidates.detections)]
    raise ValueError(f'there is no candidate {request.candidate!r} among {", ".join(known[:10])}'
                     f'{", ..." if len(known) > 10 else ""}')


def _candidate_at(point: np.ndarray, frame: Frame, history: FrameHistory, candidates: Detection2DArray) -> Choice | None:
    """The smallest candidate around the point, of that image or, where that is kept, one about the same time."""
    away = abs(nanoseconds(candidates.header.stamp) - nanoseconds(frame.header.stamp)) / 1e9
    if not candidates.detections or away > SAME_TIME:
        return None
    around = []
    for detection in candidates.detections:
        try:
            box = check_box(box_from_message(detection.bbox))
        except ValueError:
            continue
        corners = xywh_to_xyxy(box)
        if (corners[:2] <= point).all() and (point <= corners[2:]).all():
            around.append(Choice(candidates.header, box, _score(detection)))
    try:
        history.at(candidates.header.stamp)
    except ValueError:
        return None
    return min(around, key=lambda choice: choice.box[2] * choice.box[3], default=None)


def _score(detection: Detection2D) -> float:
    scores = [result.hypothesis.score for result in detection.results]
    return float(np.clip(max(scores), 0, 1)) if scores else 1.0
