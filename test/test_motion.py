"""Where a lost target would be."""
from __future__ import annotations

import numpy as np
import pytest

from cract_ros.motion import HORIZON, Motion


def moved(times, velocity=(30.0, -12.0)) -> Motion:
    motion = Motion()
    for time in times:
        motion.add(time, np.array([100 + velocity[0] * time, 50 + velocity[1] * time, 20, 10]))
    return motion


def test_a_target_that_moved_evenly_goes_on():
    start = 1.7e9
    motion = Motion()
    for step in range(12):
        motion.add(start + step / 30, np.array([100 + step, 50 - 2 * step, 20, 10]))
    np.testing.assert_allclose(motion.at(start + 21 / 30), [121, 8, 20, 10], atol=1e-3)


def test_noise_is_averaged_out():
    random, motion = np.random.default_rng(0), Motion()
    for step in range(31):
        motion.add(step / 30, np.array([100 + 2 * step, 50, 20, 10]) + [*random.normal(0, 1, 2), 0, 0])
    assert np.abs(motion.at(1.5)[:2] - [190, 50]).max() < 6  # the last two places alone: 30 px and more


@pytest.mark.parametrize('times', [[], [0.0], [0.0, 0.1], [0.0, 0.0, 0.0, 0.0], [0.0, 0.1, 0.2, 0.05]])
def test_too_few_places_make_no_motion(times):
    assert moved(times).at(1.0) is None


def test_only_the_latest_second_counts():
    motion = moved(np.arange(0, 3, 0.1))
    for time in np.arange(3, 4.5, 0.1):  # it stands still
        motion.add(time, np.array([190.0, 14.0, 20, 10]))
    np.testing.assert_allclose(motion.at(5.0), [190, 14, 20, 10], atol=1e-6)


def test_the_prediction_stops_at_its_horizon_and_does_not_go_back():
    motion = moved([0.0, 0.1, 0.2])
    np.testing.assert_allclose(motion.at(1000.0), motion.at(0.2 + HORIZON))
    np.testing.assert_allclose(motion.at(-5.0), motion.at(0.2))
