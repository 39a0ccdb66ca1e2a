"""Template and search windows, cut by one exact affine warp.

A window is a square around the target whose side grows with the target and its context; the template covers it with
129 pixels, the search region, about twice as wide, with 257. Both sizes are 16k + 1, for which the padding of a stock
ResNet puts the middle cell of the stride-8 and stride-16 grids exactly on the middle of the window.
"""
from __future__ import annotations

import math
from dataclasses import dataclass

import cv2
import numpy as np

TEMPLATE_SIZE = 129
SEARCH_SIZE = 257
VIEW_SIZE = 161                    # of the views that only teach the discriminator
CONTEXT = 0.5
STRIDE = 8                         # pixels between the cells of phi34
CELL_CENTER = 0.5                  # continuous pixel coordinate of the middle of cell 0
TURNS = (-0.6, -0.3, 0.3, 0.6)     # radians, of the views that the discriminator learns from in the first frame
AUGMENTED_VIEWS = len(TURNS) + 1   # and a mirrored one


@dataclass(frozen=True)
class Window:
    """A square part of a frame that is shown as `size` x `size` pixels.

    center: (x, y) and side in pixels of the frame. All coordinates are continuous (pixel k covers [k, k + 1]).
    """
    center: tuple[float, float]
    side: float
    size: int

    @property
    def scale(self) -> float:
        """Pixels of the crop for one pixel of the frame."""
        return self.size / self.side

    def to_crop(self, box: np.ndarray) -> np.ndarray:
        """Corner boxes (..., 4) in the frame -> in the crop."""
        return (np.asarray(box) - np.tile(self.center, 2)) * self.scale + self.size / 2

    def to_frame(self, box: np.ndarray) -> np.ndarray:
        """Corner boxes (..., 4) in the crop -> in the frame."""
        return (np.asarray(box) - self.size / 2) / self.scale + np.tile(self.center, 2)

    def cut(self, frame: np.ndarray, border) -> np.ndarray:
        """Sample the window from frame (H, W, 3) bilinearly; `border`, three numbers, fills what lies outside.

        Returns (size, size, 3) uint8. The centre of crop pixel u lies at u + 0.5, hence the half pixels.
        """
        step = self.side / self.size
        x = self.center[0] - self.side / 2 + 0.5 * step - 0.5
        y = self.center[1] - self.side / 2 + 0.5 * step - 0.5
        inverse = np.array([[step, 0, x], [0, step, y]])
        return cv2.warpAffine(frame, inverse, (self.size, self.size), flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP,
                              borderMode=cv2.BORDER_CONSTANT, borderValue=border)


def context_side(width, height):
    """Side of the template window in pixels of the frame: sqrt((w + c)(h + c)) with c = (w + h) / 2 (SiamFC). Numbers,
    arrays or tensors."""
    context = CONTEXT * (width + height)
    return ((width + context) * (height + context)) ** 0.5


def template_window(center, width: float, height: float) -> Window:
    return Window((float(center[0]), float(center[1])), context_side(width, height), TEMPLATE_SIZE)


def search_window(center, width: float, height: float) -> Window:
    """Same pixels per target as the template window, but wider."""
    side = context_side(width, height) * SEARCH_SIZE / TEMPLATE_SIZE
    return Window((float(center[0]), float(center[1])), side, SEARCH_SIZE)


def turned_size(size: np.ndarray, angle: float) -> np.ndarray:
    """Width and height (2,) of the upright box around an object turned by `angle` radians.

    Objects lie between an ellipse and a rectangle that fill their box: the mean of both.
    """
    parts = np.abs([[np.cos(angle), np.sin(angle)], [np.sin(angle), np.cos(angle)]]) * size
    return (parts.sum(1) + np.hypot(*parts.T)) / 2


def augmented_views(crop: np.ndarray, box: np.ndarray) -> list[tuple[np.ndarray, np.ndarray]]:
    """Views (161, 161, 3) of the target in the middle of the search crop (257, 257, 3) of the first frame, turned and
    mirrored, each with the corners (4,) of the target in it; `box` (4,) are those in the crop.

    One frame shows one pose: these stand for those to come (ATOM trains on such views, too).
    """
    center, size = (box[:2] + box[2:]) / 2, box[2:] - box[:2]
    middle, views = np.full(2, VIEW_SIZE / 2), []

    def view(warp: np.ndarray, size: np.ndarray) -> None:
        picture = cv2.warpAffine(crop, warp, (VIEW_SIZE, VIEW_SIZE), borderMode=cv2.BORDER_REPLICATE)
        views.append((picture, np.concatenate([middle - size / 2, middle + size / 2])))

    for angle in TURNS:
        warp = cv2.getRotationMatrix2D(tuple(center - 0.5), math.degrees(angle), 1)  # pixel centres are at + 0.5
        warp[:, 2] += middle - center
        view(warp, turned_size(size, angle))
    view(np.array([[-1.0, 0, center[0] + middle[0] - 1], [0, 1, middle[1] - center[1]]]), size)
    return views
