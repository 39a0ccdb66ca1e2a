"""What the status on /diagnostics says."""
from __future__ import annotations

import pytest

pytest.importorskip('rclpy', reason='ROS 2 is not installed')

from diagnostic_msgs.msg import DiagnosticStatus

from cract_ros.diagnostics import Facts, explain, status
from cract_ros.monitor import Counts, FrameMonitor

FOLLOWING = dict(lifecycle='active', topic='/image', publishers=1, silence=0.1, timeout=1.0, target='tracking')


@pytest.mark.parametrize('changes, level, message', [
    ({}, DiagnosticStatus.OK, 'tracking'),
    (dict(target='lost'), DiagnosticStatus.WARN, 'lost'),
    (dict(target='no target'), DiagnosticStatus.OK, 'no target'),
    (dict(silence=2.5), DiagnosticStatus.ERROR, 'no image on /image for 2.5 s; 1 publishers'),
    (dict(silence=2.5, publishers=0), DiagnosticStatus.ERROR, 'no image on /image for 2.5 s; nobody publishes it'),
    (dict(lifecycle='inactive', silence=99.0), DiagnosticStatus.OK, 'inactive'),
    (dict(lifecycle='unconfigured', target=''), DiagnosticStatus.OK, 'unconfigured'),
    (dict(lifecycle='unconfigured', autostart=True, target=''), DiagnosticStatus.ERROR, 'not configured'),
    (dict(period=Counts(refused=3)), DiagnosticStatus.WARN, '3 images could not be read'),
    (dict(problem='not configured: no weights', target='lost'), DiagnosticStatus.ERROR, 'not configured: no weights')])
def test_the_worst_is_said_first(changes, level, message):
    made = status('/tracker', Facts(**FOLLOWING | changes))
    assert (made.level, made.message, made.name) == (level, message, 'tracker: tracking')


def test_a_status_is_named_by_node_and_task_in_any_namespace():
    assert status('/drone/tracker', Facts(**FOLLOWING)).name == 'drone/tracker: tracking'


@pytest.mark.parametrize('error, sentence', [
    (ModuleNotFoundError("No module named 'cv2'", name='cv2'),
     'the Python package cv2 is missing: pip install opencv-contrib-python-headless'),
    (ModuleNotFoundError("No module named 'onnx.helper'", name='onnx.helper'),
     'the Python package onnx is missing: pip install onnx'),
    (ImportError('libGL.so.1: cannot open shared object file'), 'ImportError: libGL.so.1: cannot open shared object file'),
    (ValueError('alpha must be\n  at most 1'), 'alpha must be at most 1'), (KeyError('x'), "KeyError: 'x'"),
    (RuntimeError(), 'RuntimeError: ')])
def test_an_error_is_told_in_one_sentence_with_the_remedy(error, sentence):
    assert explain(error) == sentence


def test_rates_ages_and_drops_are_those_of_the_monitor():
    monitor = FrameMonitor(100.0)
    for sequence in (1, 2, 3, 5, 6, 7, 8, 9, 10, 11):
        monitor.arrived(100.5, sequence, 'camera')
    for age in (0.05, 0.15):
        monitor.answered(0.4, age)
    monitor.refused()
    period, seconds = monitor.period(102.0)
    values = {pair.key: pair.value for pair in status('/tracker', Facts(
        **FOLLOWING, period=period, seconds=seconds, total=monitor.total, device='cpu')).values}
    # the keys of diagnostic_updater's FrequencyStatus
    assert float(values['Actual frequency (Hz)']) == 5.0 and float(values['Duration of window (s)']) == 2.0
    assert values['Events in window'] == '10' and values['Events since startup'] == '10'
    assert values['images answered [Hz]'] == '1.0'
    assert values['age of an answered image, mean [ms]'] == '100.0'
    assert values['age of an answered image, max [ms]'] == '150.0'
    assert values['busy [%]'] == '40'
    assert values['images lost on the way'] == '1' and values['images dropped for newer ones'] == '7'
    assert values['images that could not be read'] == '1' and values['device'] == 'cpu'
    assert monitor.period(103.0) == (Counts(), 1.0)  # each period begins at zero
    assert monitor.total.received == 10
