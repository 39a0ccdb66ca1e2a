"""The first frame's template, turned."""
from __future__ import annotations

import math

import cv2
import numpy as np
import pytest

from cract_core.crop import VIEW_SIZE, template_window
from cract_core.pose import GUESSES, RETRY, STEPS, Poses


def make(size=(40.0, 16.0)):
    frame = np.full((200, 200, 3), 60, np.uint8)
    cv2.ellipse(frame, ((100.0, 100.0), size, 0), (30, 30, 220), -1)
    return Poses(frame, template_window((100.5, 100.5), *size), np.array(size), (60, 60, 60)), frame


def test_the_unturned_view_is_the_template():
    poses, frame = make()
    crop, box = poses.view(0)
    expected = template_window((100.5, 100.5), 40, 16).cut(frame, (60, 60, 60))
    assert crop.shape == expected.shape == (129, 129, 3)
    assert np.abs(crop.astype(int) - expected).mean() < 1
    assert box[2:] - box[:2] == pytest.approx(np.array([40, 16]) * 129 / template_window((0, 0), 40, 16).side)


@pytest.mark.parametrize('step', range(STEPS))
@pytest.mark.parametrize('side', [129, VIEW_SIZE])
def test_a_turned_view_shows_the_object_in_its_box(step, side):
    crop, box = make()[0].view(step, side)
    rows, columns = np.nonzero(crop[..., 2].astype(int) - crop[..., 1] > 80)
    found = np.array([columns.min(), rows.min(), columns.max() + 1, rows.max() + 1])
    assert crop.shape == (side, side, 3) and np.abs((found[:2] + found[2:]) / 2 - side / 2).max() < 2
    rectangle = np.abs([[math.cos(t := math.radians(30 * step)), math.sin(t)], [math.sin(t), math.cos(t)]]) @ [40, 16]
    scale = 129 / template_window((0, 0), 40, 16).side
    # the box lies between that of the ellipse that is shown and that of the rectangle around it
    assert (box[2:] - box[:2] > found[2:] - found[:2] - 5).all() and (box[2:] - box[:2] < rectangle * scale + 1).all()
    angle = math.degrees(0.5 * math.atan2(2 * np.cov(columns, rows)[0, 1], np.cov(columns, rows)[0, 0] - np.cov(columns, rows)[1, 1]))
    assert (angle - 30 * step + 90) % 180 - 90 == pytest.approx(0, abs=2)


@pytest.mark.parametrize('turn, step', [(10, None), (19, None), (21, 1), (-25, 11), (44, 1), (90, 3), (180, 6), (350, None),
                                        (365, None), (450, 3)])
def test_a_turn_beyond_the_limit_asks_for_the_nearest_step(turn, step):
    assert make()[0].due(math.radians(turn), 20) == step


def test_a_step_has_a_hysteresis_and_a_refused_one_waits():
    poses = make()[0]
    poses.step = 1
    assert poses.due(math.radians(12), 20) is None and poses.due(math.radians(9), 20) == 0
    poses.refuse()
    assert [poses.due(math.radians(90), 20) for _ in range(RETRY)] == [None] * (RETRY - 1) + [3]


def test_guesses_go_through_all_turns():
    poses = make()[0]
    poses.step = 2
    assert {poses.guess() for _ in GUESSES} == set(range(STEPS)) - {2}


def test_the_box_of_a_quarter_turn_has_its_sides_exchanged():
    poses = make()[0]
    assert np.array([40, 16]) * poses.resized(0, math.pi / 2) == pytest.approx([16, 40])
    assert poses.resized(0.3, 0.9) * poses.resized(0.9, 0.3) == pytest.approx(1)
