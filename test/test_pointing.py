"""The gimbal in closed loop: a target in motion, pictures that are late, a gimbal that follows late."""
from __future__ import annotations

import math

import numpy as np
import pytest

from cract_ros.pointing import Pointing, PointingConfig, Sight, angles

STEP = 0.01        # seconds of the simulation
HALF = np.deg2rad([24.4, 18.8])  # half the field of view: a picture of 640 x 480 with a focal length of 704


class Simulation:
    """A gimbal that turns as it was told 100 ms ago, and a camera whose pictures are known 60 ms after they were taken."""

    def __init__(self, target, config: PointingConfig = PointingConfig(), lag: float = 0.1, age: float = 0.06,
                 noise: float = 0.0, start=(0.0, 0.0)):
        self.pointing, self.target, self.lag, self.age = Pointing(config), target, lag, age
        self.angle, self.now = np.array(start, float), 0.0
        self.commands, self.pictures = [], []
        self.random, self.noise = np.random.default_rng(0), noise
        self.errors, self.rates, self.times = [], [], []

    def run(self, seconds: float, sight=lambda now: Sight.FOLLOWED) -> 'Simulation':
        for _ in range(round(seconds / STEP)):
            error = np.array(self.target(self.now)) - self.angle
            if round(self.now / STEP) % 3 == 0 and sight(self.now) is not None:
                self.pictures.append((self.now, sight(self.now), error + self.random.normal(0, self.noise, 2)))
            while self.pictures and self.pictures[0][0] <= self.now - self.age:
                taken, what, seen = self.pictures.pop(0)
                self.pointing.see(self.now, self.now - taken, what, seen)
            rates = self.pointing.rates(self.now)
            self.commands.append((self.now, rates))
            due = [rate for at, rate in self.commands[-100:] if at <= self.now - self.lag]
            self.angle = self.angle + STEP * np.array(due[-1] if due else (0.0, 0.0))
            self.errors.append(error), self.rates.append(rates), self.times.append(self.now)
            self.now += STEP
        return self

    def settled(self) -> float:
        """When the target came into the middle tenth of the picture for good."""
        outside = np.flatnonzero((np.abs(self.errors) > HALF / 10).any(1))
        return self.times[outside[-1]] + STEP if len(outside) else 0.0


@pytest.mark.parametrize('start', [(0.3, -0.25), (-0.38, 0.0), (0.1, 0.3)])
def test_a_standing_target_comes_to_the_middle_without_swinging(start):
    run = Simulation(lambda t: start).run(4.0)
    assert run.settled() < 1.5
    errors = np.array(run.errors) * np.sign(start)
    assert errors.min() > -0.03                       # beyond the middle
    assert np.abs(run.rates[-100:]).max() < 0.01      # it stands still


@pytest.mark.parametrize('lag, age', [(0.1, 0.06), (0.15, 0.1), (0.05, 0.03)])
def test_a_target_in_motion_is_kept_in_the_middle(lag, age):
    """Also where the gimbal is half again as late, or twice as early, as it was said to be."""
    run = Simulation(lambda t: (0.2 + 0.25 * t, 0.1 * math.sin(0.8 * t)), lag=lag, age=age, noise=0.002).run(5.0)
    assert run.settled() < 1.5
    assert np.sqrt(np.mean(np.square(run.errors[200:]))) < 0.02


def test_rates_and_accelerations_stay_within_their_limits():
    config = PointingConfig(max_rate=0.4, max_acceleration=2.0)
    run = Simulation(lambda t: (1.0 if t < 2 else -1.0, 0.5), config, noise=0.01).run(4.0)
    rates = np.array(run.rates)
    assert np.abs(rates).max() <= 0.4 + 1e-9
    assert np.abs(np.diff(rates, axis=0)).max() <= 2.0 * STEP * 1.001


def test_what_is_left_within_the_deadband_is_left_alone():
    run = Simulation(lambda t: (0.02, -0.02), PointingConfig(deadband=0.03)).run(2.0)
    assert not np.any(run.rates)


def test_a_doubtful_target_is_turned_with_as_it_moved():
    """Two seconds under a bridge: it is still in the picture when it comes out."""
    doubt = lambda now: Sight.DOUBTFUL if 3 < now < 5 else Sight.FOLLOWED  # noqa: E731
    run = Simulation(lambda t: (0.3 * t, 0.0), noise=0.001).run(6.0, doubt)
    assert np.abs(np.array(run.errors)[300:, 0]).max() < HALF[0] / 2
    assert np.abs(np.array(run.rates)[320:500, 0] - 0.3).max() < 0.1


def test_it_does_not_turn_for_ever_with_a_doubtful_target():
    run = Simulation(lambda t: (0.3 * t, 0.0)).run(8.0, lambda now: Sight.DOUBTFUL if now > 2 else Sight.FOLLOWED)
    assert np.any(np.array(run.rates)[450]) and not np.any(run.rates[-100:])


@pytest.mark.parametrize('sight', [Sight.NOTHING, None], ids=['lost', 'silence'])
def test_it_stops_when_the_target_is_lost_and_when_no_answer_comes(sight):
    run = Simulation(lambda t: (0.6 * t, 0.2), age=0.0).run(4.0, lambda now: sight if now > 2 else Sight.FOLLOWED)
    rates = np.array(run.rates)
    assert abs(rates[200, 0]) > 0.4
    last = 2.0 + (0.3 if sight else 0.3 + PointingConfig().timeout)
    assert not np.any(rates[round(last / STEP):])


def test_after_a_stop_nothing_of_the_old_target_is_left():
    run = Simulation(lambda t: (0.3 * t, 0.0)).run(2.0)
    run.pointing.stop()
    assert not run.pointing.active and run.pointing.rates(10.0) == (0.0, 0.0)
    run.pointing.see(10.0, 0.05, Sight.FOLLOWED, (0.0, 0.0))
    assert run.pointing.rates(10.02) == (0.0, 0.0)


def test_a_place_in_the_picture_is_an_angle_of_a_pinhole_camera():
    assert angles(0, 0, (1.0, 0.8)) == (0, 0)
    assert angles(1, -1, (1.0, 0.8)) == pytest.approx((0.5, 0.4))
    assert angles(-0.5, 0.5, (1.0, 0.8)) == pytest.approx((-math.atan(0.5 * math.tan(0.5)), -math.atan(0.5 * math.tan(0.4))))


@pytest.mark.parametrize('values', [dict(gain=0.0), dict(max_rate=-1.0), dict(deadband=-0.1), dict(timeout=math.nan),
                                    dict(delay=math.inf)])
def test_a_wrong_number_is_refused_in_a_sentence(values):
    with pytest.raises(ValueError, match=f'{next(iter(values))} must be'):
        PointingConfig(**values)
