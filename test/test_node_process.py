"""Start and end of the node's process. Each test has a process and a peer of its own."""
from __future__ import annotations

import signal

import pytest

pytest.importorskip('rclpy', reason='ROS 2 is not installed')

from node_harness import alone, image, launch_tracker, scene, weights  # noqa: F401  (fixtures)

FRAME = scene()


@pytest.mark.parametrize('number', [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_the_node_cleanly(launch_tracker, alone, number):
    tracker = launch_tracker()
    assert alone.target(FRAME).success
    alone.ask(image(FRAME))
    stream = alone.create_timer(0.02, lambda: alone.show(image(FRAME)) if tracker.process.poll() is None else None)
    try:
        seen = len(alone.detections)
        alone.wait(lambda: len(alone.detections) > seen, 'an answer')
        assert tracker.stop(number) == 0
    finally:
        alone.destroy_timer(stream)
    assert 'Traceback' not in tracker.log and 'exception' not in tracker.log


def test_a_signal_while_loading_ends_the_node(launch_tracker, alone):
    tracker = launch_tracker()
    alone.wait(lambda: alone.serves('get_state'), 'the node')
    assert tracker.stop(signal.SIGINT) == 0


@pytest.mark.parametrize('parameters, reason', [
    (dict(weights='/nowhere/at/all.pt'), '/nowhere/at/all.pt'),
    (dict(alpha='3.0'), 'alpha out of range'),
    (dict(device='abacus'), 'device must be one of auto, cpu, cuda'),
    (dict(lost_score='0.9'), 'lost_score must not exceed uncertain_score')])
def test_what_is_wrong_on_start_is_logged_and_the_node_stays_unconfigured(launch_tracker, alone, parameters, reason):
    tracker = launch_tracker(**parameters)
    alone.wait(lambda: 'not configured' in tracker.log, 'the reason')
    assert reason in tracker.log and 'Traceback' not in tracker.log
    assert alone.state() == 'unconfigured'
    assert alone.change('configure') is False
    assert tracker.stop() == 0


def test_a_wrong_live_value_on_start_can_be_put_right(launch_tracker, alone):
    tracker = launch_tracker(alpha='3.0')
    alone.wait(lambda: 'not configured' in tracker.log, 'the reason')
    assert alone.set(alpha=0.5) == [(True, '')]
    assert alone.change('configure')
    assert tracker.stop() == 0


def test_without_autostart_the_node_waits_for_its_manager(launch_tracker, alone):
    tracker = launch_tracker(autostart='false')
    assert alone.state() == 'unconfigured'
    assert alone.change('configure') and alone.state() == 'inactive'
    assert alone.change('activate') and alone.state() == 'active'
    assert tracker.stop() == 0
