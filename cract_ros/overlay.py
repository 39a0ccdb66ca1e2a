"""What people look at: the frame with the target's box, score, state and id drawn on it."""
from __future__ import annotations

import cv2
import numpy as np

COLOURS = {'tracking': (80, 220, 60), 'uncertain': (0, 190, 255), 'lost': (60, 60, 255)}  # BGR
TRUTH_COLOUR = (255, 255, 255)
_FONT = cv2.FONT_HERSHEY_SIMPLEX


def draw(frame: np.ndarray, box, state: str, score: float | None, target_id: str = '', truth=None) -> np.ndarray:
    """A copy of a (H, W, 3) uint8 BGR frame with the box (x, y, w, h in pixels) on it.

    `state` is 'tracking', 'uncertain' or 'lost'; a lost target's last known box is dashed, and LOST stands across
    the top of the frame. `truth` (x, y, w, h) is drawn as a thin white line; boxes that are not finite are left out.
    """
    colour = COLOURS[state]
    canvas = np.array(frame, np.uint8, order='C')
    scale, thickness = _sizes(canvas)
    if truth is not None and np.isfinite(truth).all():
        cv2.rectangle(canvas, *_corners(truth), TRUTH_COLOUR, 1)
    if np.isfinite(box).all():
        top_left, bottom_right = _corners(box)
        if state == 'lost':
            _dashed_rectangle(canvas, top_left, bottom_right, colour, thickness)
        else:
            cv2.rectangle(canvas, top_left, bottom_right, colour, thickness)
        words = [target_id, state] + ([] if score is None else [f'{score:.2f}'])
        _label(canvas, ' '.join(word for word in words if word), top_left, colour, scale)
    if state == 'lost':
        _banner(canvas, 'LOST', colour, 2 * scale)
    return canvas


def draw_message(frame: np.ndarray, text: str, truth=None) -> np.ndarray:
    """A copy of the frame with a line of text across the top, for a frame that has no box."""
    canvas = np.array(frame, np.uint8, order='C')
    if truth is not None and np.isfinite(truth).all():
        cv2.rectangle(canvas, *_corners(truth), TRUTH_COLOUR, 1)
    _banner(canvas, text, (220, 220, 220), 1.5 * _sizes(canvas)[0])
    return canvas


def _sizes(canvas: np.ndarray) -> tuple[float, int]:
    """Font scale and line thickness that look the same at every frame size."""
    height = canvas.shape[0]
    return float(np.clip(height / 900, 0.35, 3.0)), int(np.clip(round(height / 300), 1, 8))


def _corners(box) -> tuple[tuple[int, int], tuple[int, int]]:
    """First and last pixel of a box, kept where OpenCV's 16-bit line coordinates hold them."""
    x, y, w, h = (float(value) for value in box)
    left, top, right, bottom = (int(v) for v in np.clip(np.round([x, y, x + w - 1, y + h - 1]), -16000, 16000))
    return (left, top), (right, bottom)


def _dashed_rectangle(canvas, top_left, bottom_right, colour, thickness) -> None:
    (left, top), (right, bottom) = top_left, bottom_right
    dash = 4 * thickness + 4
    for start in range(left, right + 1, 2 * dash):
        end = min(start + dash, right)
        cv2.line(canvas, (start, top), (end, top), colour, thickness)
        cv2.line(canvas, (start, bottom), (end, bottom), colour, thickness)
    for start in range(top, bottom + 1, 2 * dash):
        end = min(start + dash, bottom)
        cv2.line(canvas, (left, start), (left, end), colour, thickness)
        cv2.line(canvas, (right, start), (right, end), colour, thickness)


def _label(canvas, text: str, top_left, colour, scale) -> None:
    """Text on a filled ground above the box, or inside the frame where there is no room above."""
    text = text.encode('ascii', 'replace').decode()  # OpenCV's built-in font has no other letters
    (width, height), base = cv2.getTextSize(text, _FONT, scale, 1)
    pad = 2
    x = int(np.clip(top_left[0], 0, max(canvas.shape[1] - width - 2 * pad, 0)))
    y = int(np.clip(top_left[1] - base - 2 * pad, height + pad, max(canvas.shape[0] - base - pad, height + pad)))
    cv2.rectangle(canvas, (x, y - height - pad), (x + width + 2 * pad, y + base + pad), colour, cv2.FILLED)
    cv2.putText(canvas, text, (x + pad, y), _FONT, scale, (0, 0, 0), 1, cv2.LINE_AA)


def _banner(canvas, text: str, colour, scale) -> None:
    thickness = max(int(round(2 * scale)), 1)
    (width, height), _ = cv2.getTextSize(text, _FONT, scale, thickness)
    at = ((canvas.shape[1] - width) // 2, int(1.6 * height))
    cv2.putText(canvas, text, at, _FONT, scale, (0, 0, 0), thickness + 3, cv2.LINE_AA)
    cv2.putText(canvas, text, at, _FONT, scale, colour, thickness, cv2.LINE_AA)
