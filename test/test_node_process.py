"""Start and end of the node's process. One peer outlives all the nodes that come and go."""
from __future__ import annotations

import os
import signal
from importlib.util import find_spec

import pytest

pytest.importorskip('rclpy', reason='ROS 2 is not installed')

from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus
from node_harness import image, launch_tracker, peer, scene, weights  # noqa: F401  (fixtures)

FRAME = scene()


@pytest.fixture(autouse=True)
def gone(peer):
    """A test begins when the node of the one before is known to be gone."""
    yield
    peer.wait(lambda: not peer.serves('get_state'), 'the end of the node')


@pytest.mark.parametrize('number', [signal.SIGTERM, signal.SIGKILL])
def test_a_restarted_node_works_with_a_camera_and_an_operator_that_stay(launch_tracker, peer, number):
    for restart in range(3):
        tracker = launch_tracker()
        assert peer.target(FRAME, target_id=f'{number} {restart}').success
        assert peer.ask(image(FRAME)).id == f'{number} {restart}'
        tracker.stop(number)


@pytest.mark.parametrize('number', [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_the_node_cleanly(launch_tracker, peer, number):
    tracker = launch_tracker()
    assert peer.target(FRAME).success
    peer.ask(image(FRAME))
    stream = peer.create_timer(0.02, lambda: peer.show(image(FRAME)) if tracker.process.poll() is None else None)
    try:
        seen = len(peer.detections)
        peer.wait(lambda: len(peer.detections) > seen, 'an answer')
        assert tracker.stop(number) == 0
    finally:
        peer.destroy_timer(stream)
    assert 'Traceback' not in tracker.log and 'exception' not in tracker.log


def test_a_signal_while_loading_ends_the_node(launch_tracker, peer):
    tracker = launch_tracker()
    peer.wait(lambda: peer.serves('get_state'), 'the node')
    assert tracker.stop(signal.SIGINT) == 0


@pytest.mark.parametrize('parameters, reason', [
    (dict(weights='/nowhere/at/all.pt'), '/nowhere/at/all.pt'),
    (dict(alpha='3.0'), 'alpha out of range'),
    pytest.param(dict(tf_frame='target'), 'tf_frame needs the package tf2_msgs',
                 marks=pytest.mark.skipif(find_spec('tf2_msgs') is not None, reason='tf2_msgs is installed')),
    (dict(device='abacus'), 'device must be one of auto, cpu, cuda'),
    (dict(lost_score='0.9'), 'lost_score must not exceed uncertain_score')])
def test_what_is_wrong_on_start_is_logged_and_the_node_stays_unconfigured(launch_tracker, peer, parameters, reason):
    tracker = launch_tracker(**parameters)
    peer.wait(lambda: 'not configured' in tracker.log, 'the reason')
    assert reason in tracker.log and 'Traceback' not in tracker.log
    assert peer.state() == 'unconfigured'
    assert peer.change('configure') is False
    assert tracker.stop() == 0


def test_a_missing_package_is_named_with_its_remedy_and_the_diagnostics_say_so(launch_tracker, peer, tmp_path, monkeypatch):
    (tmp_path / 'threadpoolctl.py').write_text(
        "raise ModuleNotFoundError(\"No module named 'threadpoolctl'\", name='threadpoolctl')")
    monkeypatch.setenv('PYTHONPATH', str(tmp_path), prepend=os.pathsep)
    statuses = []
    listener = peer.create_subscription(DiagnosticArray, '/diagnostics', lambda m: statuses.extend(m.status), 10)
    tracker = launch_tracker()
    reason = 'not configured: the Python package threadpoolctl is missing: pip install threadpoolctl'
    peer.wait(lambda: reason in tracker.log, 'the reason')
    assert peer.state() == 'unconfigured' and 'Traceback' not in tracker.log
    status = peer.wait(lambda: next((s for s in statuses if s.message == reason), None), 'the status')
    assert status.level == DiagnosticStatus.ERROR and status.name == 'tracker: tracking'
    peer.destroy_subscription(listener)
    assert tracker.stop() == 0


def test_the_first_lines_say_what_works(launch_tracker, peer):
    tracker = launch_tracker(threads=2, runtime='onnx', precision='fp32')
    peer.wait(lambda: 'configured: onnx fp32 on cpu, 2 threads, weights /' in tracker.log, 'the line')
    assert tracker.stop() == 0


def test_a_wrong_live_value_on_start_can_be_put_right(launch_tracker, peer):
    tracker = launch_tracker(alpha='3.0')
    peer.wait(lambda: 'not configured' in tracker.log, 'the reason')
    assert peer.set(alpha=0.5) == [(True, '')]
    assert peer.change('configure')
    assert tracker.stop() == 0


def test_without_autostart_the_node_waits_for_its_manager(launch_tracker, peer):
    tracker = launch_tracker(autostart='false')
    assert peer.state() == 'unconfigured'
    assert peer.change('configure') and peer.state() == 'inactive'
    assert peer.change('activate') and peer.state() == 'active'
    assert tracker.stop() == 0
