"""The drawn picture: what is marked, and that the frame itself stays as it was."""
from __future__ import annotations

import numpy as np
import pytest

pytest.importorskip('rclpy', reason='ROS 2 is not installed')

from cract_ros import overlay

FRAME = np.full((240, 320, 3), 90, np.uint8)
BOX = (100.0, 120.0, 60.0, 40.0)


def near(picture: np.ndarray, colour) -> np.ndarray:
    """(H, W) pixels of that colour, line smoothing allowed for."""
    return np.abs(picture.astype(int) - colour).max(-1) < 30


@pytest.mark.parametrize('state', ['tracking', 'uncertain', 'lost'])
def test_box_is_drawn_in_the_colour_of_its_state(state):
    picture = overlay.draw(FRAME, BOX, state, 0.5, 'car')
    marked = near(picture, overlay.COLOURS[state])
    assert marked[118:123, 110:150].any(0).all() and marked[158:163, 110:150].any(0).all()  # top, bottom
    assert marked[130:150, 98:103].any(1).all() and marked[130:150, 158:163].any(1).all()  # left, right
    assert not (picture[130:150, 110:150] != 90).any()  # the target itself stays visible


@pytest.mark.parametrize('place', [(0, 0), (230, 0), (0, 200), (240, 180), (130, 90), (20, 2)])
@pytest.mark.parametrize('name', ['', 'a' * 300])
def test_nothing_is_written_on_the_target_or_close_to_it(place, name):
    x, y = place
    w, h = 40, 30
    picture = overlay.draw(FRAME, (x, y, w, h), 'tracking', 0.5, name)
    changed = (picture != FRAME).any(2)
    changed[max(y - 2, 0):y + h + 3, max(x - 2, 0):x + w + 3] = False  # the line itself
    assert changed.sum() > 100  # it is written somewhere
    assert not changed[max(y - h // 2, 0):y + h * 3 // 2, max(x - w // 2, 0):x + w * 3 // 2].any()


def test_the_frame_is_left_as_it_was():
    frame = FRAME.copy()
    frame.setflags(write=False)
    assert (overlay.draw(frame, BOX, 'lost', 0.1, 'car', truth=BOX) != frame).any()
    assert (overlay.draw_message(frame, 'no target') != frame).any()


def test_lost_stands_across_the_top():
    lost, tracking = (overlay.draw(FRAME, BOX, state, 0.1)[:40] for state in ('lost', 'tracking'))
    assert near(lost, overlay.COLOURS['lost']).sum() > 100
    assert (tracking == 90).all()


@pytest.mark.parametrize('box', [(-50, -50, 30, 30), (300, 230, 500, 500), (1e6, 1e6, 5, 5), (0.4, 0.4, 1, 1)])
@pytest.mark.parametrize('state', ['tracking', 'lost'])
def test_a_box_beyond_the_frame_is_no_error(box, state):
    assert overlay.draw(FRAME, box, state, 0.5, 'räuber 車', truth=box).shape == FRAME.shape


def test_truth_is_a_thin_white_line_and_nan_is_none():
    white = near(overlay.draw(FRAME, (10, 10, 20, 20), 'tracking', truth=BOX), (255, 255, 255))
    assert white[120, 100:160].all() and not white[121, 102:158].any()
    assert not near(overlay.draw(FRAME, (10, 10, 20, 20), 'tracking', truth=[np.nan] * 4), (255, 255, 255)).any()


@pytest.mark.parametrize('size', [(8, 8), (64, 48), (2160, 3840)])
def test_every_frame_size_can_be_drawn(size):
    frame = np.zeros((*size, 3), np.uint8)
    assert overlay.draw(frame, (1, 1, 4, 4), 'lost', 0.2, 'a' * 50).shape == frame.shape
    assert overlay.draw_message(frame, 'no target').shape == frame.shape
