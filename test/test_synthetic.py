"""The rendered scene's annotation against what the pictures show."""
from __future__ import annotations

import numpy as np
import pytest

from cract_core.synthetic import Scene, generate


def target_pixels(scene, index):
    """Where the picture depends on the target's paint, `(H, W)` bool: the target's visible pixels."""
    kept = scene.target.colors
    pictures = []
    for level in (0.0, 255.0):
        scene.target.colors = np.full_like(kept, level)
        pictures.append(scene.render(index).image.astype(int))
    scene.target.colors = kept
    return np.abs(pictures[1] - pictures[0]).max(axis=2) > 80


def alone(seed):
    """The scene with nothing but the target in it."""
    scene = Scene(seed, (640, 480))
    scene.traffic, scene.parked, scene.still, scene.centres = [], [], [], np.empty((0, 3))
    return scene


@pytest.fixture(scope='module')
def scene():
    return Scene(0, (640, 480))


@pytest.fixture(scope='module')
def bare():
    return alone(0)


@pytest.mark.parametrize('index', [0, 60, 120, 280])
def test_the_box_encloses_the_target_to_a_pixel(bare, index):
    frame = bare.render(index)
    rows, columns = np.nonzero(target_pixels(bare, index))
    x, y, w, h = frame.box
    seen = np.array([columns.min(), rows.min(), columns.max() + 1, rows.max() + 1])
    assert seen == pytest.approx([x, y, x + w, y + h], abs=1.5)
    assert frame.visible and frame.visibility == 1


def test_visibility_is_the_share_of_the_targets_pixels_that_show(scene, bare):
    shares = []
    for index in range(212, 250, 3):
        whole = target_pixels(bare, index)
        share = (target_pixels(scene, index) & whole).sum() / whole.sum()
        frame = scene.render(index)
        assert frame.visibility == pytest.approx(share, abs=0.08)
        assert frame.visible == (frame.visibility >= 0.25)
        shares.append(share)
    assert min(shares) < 0.02 and shares[0] > 0.8 and shares[-1] > 0.8


def test_the_target_stays_in_the_frame_at_a_trackable_size():
    for seed in range(3):
        scene = Scene(seed, (160, 120))
        boxes = np.array([scene.render(index).box for index in range(0, 900, 30)]) * 4
        assert (boxes[:, :2] > 0).all() and (boxes[:, 0] + boxes[:, 2] < 640).all()
        assert (boxes[:, 1] + boxes[:, 3] < 480).all()
        longest = boxes[:, 2:].max(axis=1)
        assert longest.min() > 40 and longest.max() < 95


def test_the_same_seed_gives_the_same_pixels_and_another_does_not():
    def clip(seed):
        return list(generate(4, seed, (160, 120)))
    first, again, other = clip(3), clip(3), clip(4)
    assert len(first) == 4
    for a, b in zip(first, again):
        assert (a.image == b.image).all() and (a.box == b.box).all()
    assert any((a.image != b.image).any() for a, b in zip(first, other))


def test_frames_are_pictures_that_change():
    frames = list(generate(3, 0, (320, 240)))
    for frame in frames:
        assert frame.image.shape == (240, 320, 3) and frame.image.dtype == np.uint8
        assert frame.image.std() > 15 and frame.box.dtype == np.float64
    assert np.abs(frames[1].image.astype(int) - frames[0].image).mean() > 2


def test_light_changes():
    scene = Scene(0, (160, 120))
    levels = [scene.render(index).image.mean() for index in range(0, 300, 30)]
    assert max(levels) / min(levels) > 1.2


@pytest.mark.parametrize('arguments, message', [((-1,), 'must not be negative'), ((1, 0, (640, 20)), 'at least 64')])
def test_a_scene_that_cannot_be_is_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        generate(*arguments)
