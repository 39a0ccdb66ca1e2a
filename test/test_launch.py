"""The launch file, run by the real launch system."""
from __future__ import annotations

import signal
import subprocess
import sys
from contextlib import contextmanager
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


def launch_file():
    spec = spec_from_file_location('tracker_launch', FILE)
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_every_argument_is_described():
    entities = launch_file().generate_launch_description().entities
    arguments = {a.name: a for a in entities if isinstance(a, DeclareLaunchArgument)}
    assert set(arguments) == {'image', 'camera_info', 'depth', 'candidates', 'targets', 'params_file', 'namespace',
                              'log_level', 'autostart', 'rviz'}
    for argument in arguments.values():
        assert argument.description and argument.description != 'no description given'


@contextmanager
def launched(*arguments: str):
    process = subprocess.Popen([sys.executable, '-c', RUN, str(FILE), *arguments], start_new_session=True)
    try:
        yield
    finally:
        process.send_signal(signal.SIGINT)
        assert process.wait(60) == 0


def test_the_launched_node_is_active_and_listens_to_the_given_topic(tmp_path, peer, weights):  # noqa: F811
    settings = tmp_path / 'settings.yaml'
    settings.write_text(f'/**/tracker:\n  ros__parameters:\n    alpha: 0.3\n    weights: "{weights}"\n')
    with launched(f'params_file:={settings}', 'image:=/drone/camera'):
        peer.wait(lambda: peer.state() == 'active', 'the active state')
        assert peer.get('alpha') == 0.3
        for topic in ('/drone/camera', '/drone/camera_info', '/depth', '/candidates'):
            peer.wait(lambda: peer.count_subscribers(topic), f'the subscription of {topic}')


def test_several_targets_share_a_camera_in_namespaces_of_their_own(peer, weights):  # noqa: F811
    with launched('targets:=2', 'namespace:=drone', 'image:=camera/image_raw', 'autostart:=false'):
        for number in (1, 2):
            peer.wait(lambda: peer.count_publishers(f'/drone/target_{number}/tracker/transition_event'), 'the node')


def test_relative_topics_belong_to_the_given_namespace():
    assert launch_file().absolute('camera/image_raw', 'drone') == '/drone/camera/image_raw'
    assert launch_file().absolute('/camera/image_raw', 'drone') == '/camera/image_raw'
