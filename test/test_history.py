"""The ring of recent images and the way from an old one to the newest."""
from __future__ import annotations

import array
import threading
import time

import pytest

pytest.importorskip('rclpy', reason='ROS 2 is not installed')

from builtin_interfaces.msg import Time
from sensor_msgs.msg import Image

from cract_ros.history import FrameHistory, catch_up


def picture(stamp: float, size: int = 10) -> Image:
    message = Image(data=array.array('B', bytes(size)))
    message.header.stamp = Time(sec=int(stamp), nanosec=round(stamp % 1 * 1e9))
    return message


def filled(*stamps: float, frames: int = 100, size: int = 10**6) -> FrameHistory:
    history = FrameHistory(frames, size)
    for stamp in stamps:
        history.add(picture(stamp))
    return history


def stamps(frames) -> list[float]:
    return [frame.header.stamp.sec + frame.header.stamp.nanosec / 1e9 for frame in frames]


# The ring

def test_only_the_latest_are_kept():
    assert stamps(filled(*range(1, 9), frames=3).after(0)) == [6, 7, 8]


def test_bytes_are_bounded_by_what_the_images_hold():
    history = FrameHistory(100, 25)
    for stamp in range(1, 6):
        history.add(picture(stamp, size=10))
    assert stamps(history.after(0)) == [4, 5]
    history.add(picture(6, size=20))
    assert stamps(history.after(0)) == [6]


def test_an_image_above_the_bound_is_kept_while_it_is_the_newest():
    history = FrameHistory(100, 25)
    history.add(picture(1, size=1000))
    assert stamps([history.newest()]) == [1]
    history.add(picture(2, size=10))
    assert stamps(history.after(0)) == [2]


def test_an_image_is_found_by_its_stamp_and_zero_means_the_newest():
    history = filled(1.25, 2.5, 3.75)
    assert stamps([history.at(Time(sec=2, nanosec=500_000_000)), history.at(Time())]) == [2.5, 3.75]


@pytest.mark.parametrize('stamp, why', [(4, 'is too old'), (6.5, 'is not among them'), (9, 'has not arrived')])
def test_a_stamp_without_an_image_is_refused_with_what_is_kept(stamp, why):
    with pytest.raises(ValueError, match=rf'the image stamped {stamp:.9f} {why}: 3 images are kept, '
                                         r'from 5\.000000000 to 7\.000000000'):
        filled(5, 6, 7).at(picture(stamp).header.stamp)


def test_where_no_image_has_the_stamp_the_nearest_is_taken_within_the_tolerance():
    history = filled(5, 6, 7)
    history.tolerance = 0.25
    assert [stamps([history.at(picture(stamp).header.stamp)])[0] for stamp in (4.8, 5.2, 5.75, 6.0, 7.25)] == [5, 5, 6, 6, 7]
    for stamp in (4.7, 5.5, 7.3):
        with pytest.raises(ValueError, match='3 images are kept'):
            history.at(picture(stamp).header.stamp)


def test_of_images_as_near_the_newest_is_taken():
    history = filled(5, 5, 6)
    history.tolerance = 0.3
    assert history.at(picture(5.25).header.stamp).serial == 2


def test_the_image_of_a_later_stamp_is_waited_for():
    history = filled(5)
    threading.Timer(0.1, lambda: history.add(picture(6))).start()
    begun = time.monotonic()
    history.wait(picture(6).header.stamp, 20.0)
    assert time.monotonic() - begun < 10 and stamps([history.at(picture(6).header.stamp)]) == [6]


def test_a_later_image_ends_the_wait_too():
    history = filled(5)
    threading.Timer(0.1, lambda: history.add(picture(7))).start()
    begun = time.monotonic()
    history.wait(picture(6).header.stamp, 20.0)
    assert time.monotonic() - begun < 10


@pytest.mark.parametrize('stamp', [0, 5, 5.5, 4])
def test_what_has_come_or_never_will_is_not_waited_for(stamp):
    begun = time.monotonic()
    filled(5, 6).wait(picture(stamp).header.stamp, 20.0)
    filled(6, 5).wait(picture(6).header.stamp, 20.0)  # a bag that has begun anew
    assert time.monotonic() - begun < 10


def test_the_wait_ends_in_time():
    begun = time.monotonic()
    filled(5).wait(picture(9).header.stamp, 0.05)
    assert 0.04 < time.monotonic() - begun < 10


def test_nothing_is_found_before_the_first_image():
    with pytest.raises(ValueError, match='no image has arrived'):
        filled().at(Time())


def test_after_a_stamp_jumped_back_the_newest_of_its_images_is_meant():
    history = filled(5, 6, 7, 5, 6)
    assert history.at(Time(sec=6)).serial == 5
    assert history.at(Time(sec=7)).serial == 3
    assert stamps(history.after(3)) == [5, 6]


def test_of_images_whose_stamps_stand_still_the_newest_is_meant():
    assert filled(5, 5, 5).at(Time(sec=5)).serial == 3


def test_the_nearest_stamp_is_found_on_either_side():
    history = filled(1, 2, 4)
    nearest = [history.nearest(picture(stamp).header.stamp) for stamp in (0.5, 1.6, 2.9, 3.1, 9)]
    assert stamps(nearest) == [1, 2, 2, 4, 4]
    assert filled().nearest(Time()) is None


def test_serials_go_on_after_clearing():
    history = filled(1, 2)
    history.clear()
    assert history.newest() is None and history.after(0) == []
    history.add(picture(3))
    assert history.newest().serial == 3


# Catching up

class Simulation:
    """A camera of `rate` Hz and a tracker that takes `cost` seconds a frame, by a clock of their own."""

    def __init__(self, waiting: int, rate: float, cost: float):
        self.now, self.rate, self.cost = 0.0, rate, cost
        self.history = filled(*range(1, waiting + 2))
        self.shown, self.seen = 0, [1]

    def step(self, frame):
        self.seen.append(frame.serial)
        self.now += self.cost
        while self.shown < int(self.now * self.rate):
            self.shown += 1
            self.history.add(picture(1000 + self.shown))

    def catch_up(self, budget: float) -> tuple[int, int]:
        return catch_up(self.history, 1, budget, self.step, clock=lambda: self.now)


def test_with_time_enough_no_image_is_left_out_not_even_those_that_arrive_meanwhile():
    simulation = Simulation(waiting=15, rate=30, cost=0.01)
    taken, left_out = simulation.catch_up(10.0)
    newest = simulation.history.newest().serial
    assert newest > 16  # some have come meanwhile
    assert simulation.seen == list(range(1, newest))  # the newest is the caller's
    assert (taken, left_out) == (newest - 2, 0)


@pytest.mark.parametrize('cost', [0.02, 0.05, 0.08])
def test_with_too_little_time_images_are_left_out_evenly_and_the_budget_is_kept(cost):
    simulation = Simulation(waiting=15, rate=30, cost=cost)
    taken, left_out = simulation.catch_up(0.3)
    newest = simulation.history.newest().serial
    gaps = [b - a for a, b in zip(simulation.seen, [*simulation.seen[1:], newest])]
    assert min(gaps) >= 1 and simulation.now <= 0.3 + cost
    assert max(gaps[1:]) <= newest / len(gaps) + 3  # none is left to jump at the end
    assert taken == len(gaps) - 1 and taken + left_out == newest - 2


def test_a_tracker_slower_than_the_camera_comes_to_an_end():
    simulation = Simulation(waiting=15, rate=30, cost=1.0)
    assert simulation.catch_up(0.5)[0] == 1


def test_without_a_budget_all_but_the_newest_are_left_out():
    simulation = Simulation(waiting=15, rate=0, cost=0.01)
    assert simulation.catch_up(0.0) == (0, 14)


def test_there_is_nothing_to_catch_up_with_from_the_newest():
    simulation = Simulation(waiting=0, rate=0, cost=0.01)
    assert simulation.catch_up(1.0) == (0, 0)
