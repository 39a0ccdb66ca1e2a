"""The node's dependence on the distribution, against stand-ins for the rclpy of Humble and of Jazzy.

Written after reading rclpy 3.3 (Humble) and 7.1 (Jazzy); with Kilted, and with Jazzy where its environment is there, the
real thing runs in the other tests.
"""
from __future__ import annotations

import ast
import importlib.util
import os
import subprocess
import sys
from types import ModuleType, SimpleNamespace

import pytest

pytest.importorskip('rclpy', reason='ROS 2 is not installed')

import rclpy.subscription
from conftest import ROOT
from rclpy.exceptions import InvalidHandle
from rclpy.executors import MultiThreadedExecutor
from rclpy.impl.implementation_singleton import rclpy_implementation

from cract_ros import distro
from cract_ros.executor import CallbackPool

# the modules of rclpy that Humble has
HUMBLE_MODULES = set('''action callback_groups client clock constants context duration exceptions executors expand_topic_name
    guard_condition impl lifecycle logging node parameter parameter_service publisher qos qos_event qos_overriding_options
    serialization service signals subscription task time time_source timer topic_endpoint_info topic_or_service_is_hidden
    type_support utilities validate_full_topic_name validate_namespace validate_node_name validate_parameter_name
    validate_topic_name wait_for_message waitable'''.split())
JAZZY = ROOT / '.venv-jazzy' / 'bin' / 'python'


@pytest.fixture
def humble(monkeypatch):
    """`cract_ros.distro` as Humble's rclpy makes it."""
    events = ModuleType('rclpy.qos_event')
    events.SubscriptionEventCallbacks = type('SubscriptionEventCallbacks', (), {})
    events.QoSRequestedIncompatibleQoSInfo = type('QoSRequestedIncompatibleQoSInfo', (), {})
    monkeypatch.setitem(sys.modules, 'rclpy.qos_event', events)
    monkeypatch.setattr(rclpy.subscription, 'Subscription', type('Subscription', (), {}))
    find_spec = importlib.util.find_spec
    spec = importlib.util.spec_from_file_location('humble', distro.__file__)
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setattr(importlib.util, 'find_spec',
                        lambda name, *more: None if name == 'rclpy.event_handler' else find_spec(name, *more))
    spec.loader.exec_module(module)
    return module


def test_humble_has_its_events_in_another_module(humble):
    events = sys.modules['rclpy.qos_event']
    assert humble.SubscriptionEventCallbacks is events.SubscriptionEventCallbacks
    assert humble.QoSRequestedIncompatibleQoSInfo is events.QoSRequestedIncompatibleQoSInfo


@pytest.mark.parametrize('shutdown, second', [
    (lambda self, timeout_sec=None: True, True), (lambda self, timeout_sec=None, *, wait_for_threads=True: True, False)],
    ids=['jazzy', 'kilted'])
def test_the_setting_of_fast_dds_has_the_name_of_its_version(monkeypatch, shutdown, second):
    monkeypatch.setattr(MultiThreadedExecutor, 'shutdown', shutdown)
    monkeypatch.delenv('ROS_DISTRO', raising=False)
    spec = importlib.util.spec_from_file_location('other', distro.__file__)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    assert module.FAST_DDS_2 is second


def test_humble_hands_over_the_message_without_its_info(humble):
    def callback(message, info):
        return message, info.get('publication_sequence_number')

    assert humble.with_info(callback)('image') == ('image', None)


def test_a_distribution_that_hands_over_the_info_is_left_alone():
    def callback(message, info):
        return message, info

    assert distro.with_info(callback) is callback


def lifecycle_node(change_state):
    """As much of a LifecycleNode as the service of its transitions is."""
    lines = []
    log = SimpleNamespace(error=lines.append)
    return SimpleNamespace(_service_change_state=SimpleNamespace(callback=change_state), get_logger=lambda: log, lines=lines)


def test_a_transition_that_cannot_be_made_is_answered_with_no():
    def change_state(request, response):
        raise rclpy_implementation.RCLError('no transition matching 3')

    node = lifecycle_node(change_state)
    distro.answer_wrong_transitions(node)
    response = node._service_change_state.callback(None, SimpleNamespace(success=True))
    assert response.success is False and 'no transition matching 3' in node.lines[0]


def test_a_transition_that_can_be_made_is_answered_as_it_says():
    node = lifecycle_node(lambda request, response: (request, response))
    distro.answer_wrong_transitions(node)
    assert node._service_change_state.callback('ask', 'answer') == ('ask', 'answer')


@pytest.mark.parametrize('base_shutdown', [
    lambda self, timeout_sec=None: True,  # Humble and Jazzy
    lambda self, timeout_sec=None, *, wait_for_threads=True: wait_for_threads], ids=['jazzy', 'kilted'])
def test_the_executor_ends_by_the_means_of_each_distribution(monkeypatch, base_shutdown):
    monkeypatch.setattr(MultiThreadedExecutor, '__init__', lambda self, num_threads: None)
    monkeypatch.setattr(MultiThreadedExecutor, '__del__', lambda self: None, raising=False)
    monkeypatch.setattr(MultiThreadedExecutor, 'shutdown', base_shutdown)
    pool, done = CallbackPool(2), []
    pool._executor.submit(lambda: done.append(1))
    assert pool.shutdown() is True and pool.shutdown(timeout_sec=1.0) is True
    assert done == [1]


def test_what_was_destroyed_before_its_callback_is_passed_over_and_other_errors_are_not(monkeypatch):
    monkeypatch.setattr(MultiThreadedExecutor, '__init__', lambda self, num_threads: None)
    monkeypatch.setattr(MultiThreadedExecutor, '__del__', lambda self: None, raising=False)
    errors = [InvalidHandle('destroyed'), KeyError('x')]

    def spin_once(self, timeout_sec=None):
        raise errors.pop(0)

    monkeypatch.setattr(MultiThreadedExecutor, 'spin_once', spin_once)
    pool = CallbackPool(2)
    pool.spin_once(0.1)
    with pytest.raises(KeyError):
        pool.spin_once(0.1)


def test_only_the_adapter_imports_what_humble_lacks():
    for path in sorted((ROOT / 'cract_ros').glob('*.py')):
        if path.name == 'distro.py':
            continue
        for line in ast.walk(ast.parse(path.read_text())):
            names = [alias.name for alias in line.names] if isinstance(line, ast.Import) else \
                [line.module or ''] if isinstance(line, ast.ImportFrom) else []
            for name in names:
                parts = name.split('.')
                assert parts[0] != 'rclpy' or len(parts) == 1 or parts[1] in HUMBLE_MODULES, f'{path.name}: {name}'


@pytest.mark.slow
@pytest.mark.skipif(not JAZZY.exists(), reason='the environment of Jazzy is not there: make env DISTRO=jazzy')
def test_start_target_detection_end_and_restart_with_jazzy():
    environment = {name: value for name, value in os.environ.items()
                   if name not in ('_ROS_WHEELS_BOOTSTRAP_COMPLETE', 'LD_LIBRARY_PATH')}
    environment['AMENT_PREFIX_PATH'] = str(JAZZY.parent.parent)
    subprocess.run([JAZZY, '-m', 'pytest', '-q', '-p', 'no:cacheprovider', 'test/test_node_process.py', 'test/test_distro.py',
                    '-k', 'signal_ends or restarted or executor'], cwd=ROOT, env=environment, check=True, timeout=540)
