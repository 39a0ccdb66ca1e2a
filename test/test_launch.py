"""The launch file, run by the real launch system."""
from __future__ import annotations

import signal
import subprocess
import sys
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path

import pytest

pytest.importorskip('rclpy', reason='ROS 2 is not installed')
# not `launch` itself: the folder of that name in a source checkout would be taken for it
pytest.importorskip('launch_ros', reason='launch and launch_ros are not installed (a ROS installation has them)')

from launch.actions import DeclareLaunchArgument

from node_harness import peer, weights  # noqa: F401  (fixtures)

FILE = Path(__file__).resolve().parent.parent / 'launch' / 'tracker.launch.py'
RUN = '''
import sys
from launch import LaunchDescription, LaunchService
from launch.actions import IncludeLaunchDescription
from launch.launch_description_sources import PythonLaunchDescriptionSource
arguments = [argument.split(':=', 1) for argument in sys.argv[2:]]
service = LaunchService()
service.include_launch_description(LaunchDescription([
    IncludeLaunchDescription(PythonLaunchDescriptionSource(sys.argv[1]), launch_arguments=arguments)]))
sys.exit(service.run())
'''


def description():
    spec = spec_from_file_location('tracker_launch', FILE)
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.generate_launch_description()


def test_every_argument_is_described():
    arguments = {a.name: a for a in description().entities if isinstance(a, DeclareLaunchArgument)}
    assert set(arguments) == {'image', 'params_file', 'namespace', 'log_level', 'autostart'}
    for argument in arguments.values():
        assert argument.description and argument.description != 'no description given'


def test_the_launched_node_is_active_and_listens_to_the_given_topic(tmp_path, peer, weights):  # noqa: F811
    settings = tmp_path / 'settings.yaml'
    settings.write_text(f'/**/tracker:\n  ros__parameters:\n    alpha: 0.3\n    weights: "{weights}"\n')
    process = subprocess.Popen([sys.executable, '-c', RUN, str(FILE), f'params_file:={settings}',
                                'image:=/drone/camera'], start_new_session=True)
    try:
        peer.wait(lambda: peer.state() == 'active', 'the active state')
        assert peer.get('alpha') == 0.3
        peer.wait(lambda: peer.count_subscribers('/drone/camera'), 'the subscription')
    finally:
        process.send_signal(signal.SIGINT)
        assert process.wait(60) == 0
