"""What people look at: the frame with the target's box, score, state and id drawn on it."""
from __future__ import annotations

import cv2
import numpy as np

from cract_core.video import draw_estimate

COLOURS = {'tracking': (80, 220, 60), 'uncertain': (0, 190, 255), 'lost': (60, 60, 255)}  # BGR
NEUTRAL = (220, 220, 220)
TRUTH = (255, 255, 255)


def draw(frame: np.ndarray, box, state: str, score: float | None = None, target_id: str = '',
         truth=None) -> np.ndarray:
    """A copy of a (H, W, 3) uint8 BGR frame with the box (x, y, w, h in pixels) on it.

    `state` is 'tracking', 'uncertain' or 'lost'; for a lost target, whose box is a supposition, LOST stands
    across the top of the frame. `truth` (x, y, w, h) is drawn as a thin white line unless it holds a nan.
    """
    canvas = np.array(frame, np.uint8, order='C')
    _draw_truth(canvas, truth)
    # OpenCV's built-in font has ASCII letters only
    draw_estimate(canvas, box, label(state, score, target_id).encode('ascii', 'replace').decode(), COLOURS[state])
    if state == 'lost':
        _banner(canvas, 'LOST', COLOURS[state])
    return canvas


def label(state: str, score: float | None, target_id: str) -> str:
    """What stands beside a box."""
    words = [target_id, state.upper() if state == 'lost' else state] + ([] if score is None else [f'{score:.2f}'])
    return ' '.join(filter(None, words))


def draw_message(frame: np.ndarray, text: str, truth=None) -> np.ndarray:
    """A copy of the frame with a line of text across the top, for a frame that has no box."""
    canvas = np.array(frame, np.uint8, order='C')
    _draw_truth(canvas, truth)
    _banner(canvas, text, NEUTRAL)
    return canvas


def _draw_truth(canvas: np.ndarray, truth) -> None:
    if truth is not None and np.isfinite(truth).all():
        x, y, w, h = truth
        corners = np.rint([x, y, x + w, y + h]).astype(int).tolist()
        cv2.rectangle(canvas, corners[:2], corners[2:], TRUTH, 1)


def _banner(canvas: np.ndarray, text: str, colour) -> None:
    """Text with a dark rim, centred at the top."""
    scale = max(canvas.shape[0] / 400, 0.4)
    thickness = max(round(3 * scale), 1)
    (width, height), _ = cv2.getTextSize(text, cv2.FONT_HERSHEY_SIMPLEX, scale, thickness)
    origin = ((canvas.shape[1] - width) // 2, round(1.6 * height))
    for rim, ink in ((3, (0, 0, 0)), (0, colour)):
        cv2.putText(canvas, text, origin, cv2.FONT_HERSHEY_SIMPLEX, scale, ink, thickness + rim, cv2.LINE_AA)
