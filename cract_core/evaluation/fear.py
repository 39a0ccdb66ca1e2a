"""FEAR-XS (Borsuk et al., FEAR: Fast, Efficient, Accurate and Robust Visual Tracker, 2022; MIT licence): its networks
as ONNX files on ONNX Runtime, with the constants of its published configuration."""
from __future__ import annotations

import numpy as np

from .siamese import Networks, OnnxNetwork, SiamesePeer, planes

TEMPLATE_MARGIN, SEARCH_MARGIN = 0.2, 2.0   # around the box, on each side, in parts of its width and height


class FearNetworks(Networks):
    """`template`: (1, 3, S, S) crop, RGB, normalised inside -> features; `track`: crop and features -> distances and
    logits. Raises as `OnnxNetwork` does."""

    def __init__(self, template, track, threads: int = 0):
        self._of_template, self._track = (OnnxNetwork('fear', path, threads) for path in (template, track))

    def template(self, crop: np.ndarray) -> np.ndarray:
        return self._of_template(planes(crop[..., ::-1]))[0]

    def match(self, template: np.ndarray, crop: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        distances, logits = self._track(planes(crop[..., ::-1]), template)
        return 1 / (1 + np.exp(-logits[0, 0])), distances[0]


class Fear(SiamesePeer):
    """FEAR-XS without its update of the template. Its windows have the box's own shape and are stretched to squares."""

    name = 'fear'
    template_size, search_size = 128, 256
    penalty, window, rate = 0.062, 0.38, 0.765
    smallest = 3.0

    def template_side(self, size: np.ndarray) -> np.ndarray:
        return size * (1 + 2 * TEMPLATE_MARGIN)

    def search_side(self, size: np.ndarray) -> np.ndarray:
        return size * (1 + 2 * SEARCH_MARGIN)

    def fit(self, center: np.ndarray, size: np.ndarray, limits: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The part of the box inside of the frame."""
        low = np.clip(center - size / 2, 0, limits - self.smallest)
        size = np.maximum(np.minimum(center + size / 2, limits) - low, self.smallest)
        return low + size / 2, size
