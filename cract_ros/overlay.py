"""What people look at: the frame with the target's box, score, state and id drawn on it."""
from __future__ import annotations

import cv2
import numpy as np

from cract_core.video import draw_estimate

COLOURS = {'tracking': (80, 220, 60), 'uncertain': (0, 190, 255), 'lost': (60, 60, 255)}  # BGR
NEUTRAL = (220, 220, 220)
TRUTH = (255, 255, 255)
LONGEST_ID = 24  # characters of an id that are drawn
CLEAR = 0.5  # of the box's size around it in which nothing is written, where there is room elsewhere


def draw(frame: np.ndarray, box, state: str, score: float | None = None, target_id: str = '',
         truth=None) -> np.ndarray:
    """A copy of a (H, W, 3) uint8 BGR frame with the box (x, y, w, h in pixels) on it.

    `state` is 'tracking', 'uncertain' or 'lost'. It stands with score and id in a corner away from the box, so that what
    is around the target stays visible; for a lost target, whose box is a supposition, LOST stands across the frame.
    `truth` (x, y, w, h) is drawn as a thin white line unless it holds a nan.
    """
    canvas = np.array(frame, np.uint8, order='C')
    _draw_truth(canvas, truth)
    draw_estimate(canvas, box, color=COLOURS[state])
    if state == 'lost':
        _banner(canvas, 'LOST', COLOURS[state])
    # OpenCV's built-in font has ASCII letters only
    _caption(canvas, label(state, score, target_id).encode('ascii', 'replace').decode(), COLOURS[state], box)
    return canvas


def label(state: str, score: float | None, target_id: str) -> str:
    """What is said of a box."""
    if len(target_id) > LONGEST_ID:
        target_id = f'{target_id[:LONGEST_ID]}...'
    words = [target_id, state.upper() if state == 'lost' else state] + ([] if score is None else [f'{score:.2f}'])
    return ' '.join(filter(None, words))


def draw_message(frame: np.ndarray, text: str, truth=None) -> np.ndarray:
    """A copy of the frame with a line of text across the top, for a frame that has no box."""
    canvas = np.array(frame, np.uint8, order='C')
    _draw_truth(canvas, truth)
    _banner(canvas, text, NEUTRAL)
    return canvas


def _caption(canvas: np.ndarray, text: str, colour, box) -> None:
    """Text on a plate of that colour, in the first corner of the frame that is clear of the box."""
    height, width = canvas.shape[:2]
    scale = max(0.4, min(height, width) / 900)
    (text_width, text_height), baseline = cv2.getTextSize(text, cv2.FONT_HERSHEY_SIMPLEX, scale, 1)
    right, bottom = max(width - text_width - 4, 0), max(height - text_height - baseline - 4, 0)
    left, top = next((corner for corner in ((0, bottom), (right, bottom), (0, 0), (right, 0))
                      if _is_clear(corner, (text_width + 4, height - bottom), box)), (0, bottom))
    cv2.rectangle(canvas, (left, top), (left + text_width + 3, top + height - bottom - 1), colour, -1)
    ink = (0, 0, 0) if np.dot(colour, (0.114, 0.587, 0.299)) > 127 else (255, 255, 255)
    cv2.putText(canvas, text, (left + 2, top + text_height + 2), cv2.FONT_HERSHEY_SIMPLEX, scale, ink, 1, cv2.LINE_AA)


def _is_clear(corner: tuple[int, int], size: tuple[int, int], box) -> bool:
    """Whether a plate is away from a box and its surroundings in one direction at least."""
    return any(start >= place + (1 + CLEAR) * side or start + length <= place - CLEAR * side
               for start, length, place, side in zip(corner, size, box[:2], box[2:]))


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
