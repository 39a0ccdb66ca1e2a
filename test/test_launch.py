"""The launch file, run by the real launch system."""
from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from contextlib import contextmanager
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path

import pytest

pytest.importorskip('rclpy', reason='ROS 2 is not installed')
# not `launch` itself: the folder of that name in a source checkout would be taken for it
pytest.importorskip('launch_ros', reason='launch and launch_ros are not installed (a ROS installation has them)')

from launch.actions import DeclareLaunchArgument

from node_harness import PATIENCE, peer, weights  # noqa: F401  (fixtures)

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
                              'log_level', 'autostart', 'image_transport', 'reliability', 'device', 'threads',
                              'use_sim_time', 'use_respawn', 'selector', 'selector_host', 'selector_port', 'rviz'}
    for argument in arguments.values():
        assert argument.description and argument.description != 'no description given'


@contextmanager
def launched(*arguments: str):
    """The launch process, in a session of its own."""
    process = subprocess.Popen([sys.executable, '-c', RUN, str(FILE), *arguments], start_new_session=True)
    try:
        yield process
    finally:
        process.send_signal(signal.SIGINT)
        assert process.wait(60) == 0


def run(file: Path, *arguments: str) -> tuple[int, str]:
    """Exit status and output of a launch that ends by itself."""
    done = subprocess.run([sys.executable, '-c', RUN, str(file), *arguments], text=True, timeout=60,
                          stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    return done.returncode, done.stdout


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


def test_each_parameter_that_is_an_argument_takes_effect(peer, weights):  # noqa: F811
    given = dict(image_transport='compressed', reliability='reliable', device='cpu', threads=3, use_sim_time=True)
    with launched('namespace:=front', 'autostart:=false', *(f'{name}:={str(value).lower()}' for name, value in given.items())):
        from rcl_interfaces.srv import GetParameters
        from rclpy.parameter import parameter_value_to_python
        client = peer.create_client(GetParameters, '/front/tracker/get_parameters')
        peer.wait(client.service_is_ready, 'the parameters')
        future = client.call_async(GetParameters.Request(names=list(given)))
        peer.wait(future.done, 'the answer')
        assert [parameter_value_to_python(value) for value in future.result().values] == list(given.values())


def test_what_is_not_given_is_left_to_the_file(tmp_path, peer, weights):  # noqa: F811
    settings = tmp_path / 'settings.yaml'
    settings.write_text('/**:\n  ros__parameters:\n    threads: 2\n    reliability: reliable\n')
    with launched(f'params_file:={settings}', 'autostart:=false'):
        assert (peer.get('threads'), peer.get('reliability')) == (2, 'reliable')


def test_the_page_is_served_for_each_target():
    with socket.socket() as free:
        free.bind(('127.0.0.1', 0))
        port = free.getsockname()[1]
    with launched('selector:=true', f'selector_port:={port}', 'targets:=2', 'autostart:=false'):
        for number in (port, port + 1):
            assert b'<canvas' in until_served(f'http://127.0.0.1:{number}/')


def until_served(address: str) -> bytes:
    deadline = time.monotonic() + PATIENCE
    while True:
        try:
            return urllib.request.urlopen(address, timeout=PATIENCE).read()
        except OSError:
            assert time.monotonic() < deadline, f'{address} is not served'
            time.sleep(0.2)


def tracker_processes(session: int) -> list[int]:
    """Ids of the tracker nodes in a session of processes."""
    found = []
    for folder in Path('/proc').glob('[0-9]*'):
        try:
            if 'tracker_node' in (folder / 'cmdline').read_text() and os.getsid(int(folder.name)) == session:
                found.append(int(folder.name))
        except OSError:
            pass
    return found


def test_a_node_that_died_is_started_again():
    with launched('use_respawn:=true', 'autostart:=false') as process:
        deadline = time.monotonic() + PATIENCE
        while not (first := tracker_processes(process.pid)):
            assert time.monotonic() < deadline
            time.sleep(0.1)
        for one in first:
            os.kill(one, signal.SIGKILL)
        while not set(tracker_processes(process.pid)) - set(first):
            assert time.monotonic() < deadline, 'the node is not started again'
            time.sleep(0.1)


@pytest.mark.parametrize('argument, reason', [
    ('threads:=many', 'threads must be a whole number from 0 to 256'), ('threads:=-1', 'threads must be'),
    ('targets:=0', 'targets must be a whole number from 1'), ('targets:=two', 'targets must be'),
    ('selector_port:=99999', 'selector_port must be'), ('params_file:=/none.yaml', 'there is no such file'),
    ('device:=gpu', 'is not valid'), ('reliability:=best', 'is not valid'), ('image_transport:=theora', 'is not valid'),
    ('use_sim_time:=yes', 'is not valid'), ('use_respawn:=1', 'is not valid'), ('selector:=on', 'is not valid')])
def test_a_wrong_argument_is_told_before_anything_starts(argument, reason):
    status, output = run(FILE, argument)
    assert status != 0 and reason in output and 'process started' not in output


def test_without_rviz_nothing_is_started():
    """A tracker must not stay behind when RViz, asked for with it, is not there."""
    from ament_index_python.packages import PackageNotFoundError, get_package_prefix
    try:
        get_package_prefix('rviz2')
        pytest.skip('rviz2 is installed')
    except PackageNotFoundError:
        pass
    status, output = run(FILE, 'rviz:=true', 'targets:=2')
    assert status != 0 and 'needs the package rviz2' in output and 'process started' not in output


def test_an_unknown_argument_is_named_with_the_nearest():
    _, output = run(FILE, 'imge:=/camera', 'foo:=1', 'threads:=none')
    assert "there is no launch argument 'imge': did you mean 'image'?" in output
    assert "there is no launch argument 'foo', it has no effect" in output


def test_arguments_of_a_launch_file_that_includes_this_one_are_none_of_its_business(tmp_path):
    bringup = tmp_path / 'bringup.launch.py'
    bringup.write_text(f'''
from launch import LaunchDescription
from launch.actions import DeclareLaunchArgument, IncludeLaunchDescription
from launch.launch_description_sources import PythonLaunchDescriptionSource

def generate_launch_description():
    return LaunchDescription([DeclareLaunchArgument('speed', default_value='1'), IncludeLaunchDescription(
        PythonLaunchDescriptionSource('{FILE}'), launch_arguments=dict(threads='none').items())])
''')
    status, output = run(bringup, 'speed:=2')
    assert status != 0 and 'threads must be' in output and 'no launch argument' not in output
