"""Start the tracker node: `ros2 launch cract_ros tracker.launch.py image:=/camera/image_raw`.

`targets:=2` starts two, in the namespaces `target_1` and `target_2`, on the same camera. What was not given leaves the
parameter to `params_file`. Everything is checked before anything is started.
"""
import sys
from difflib import get_close_matches
from pathlib import Path

from ament_index_python.packages import PackageNotFoundError, get_package_prefix, get_package_share_directory
from launch import LaunchContext, LaunchDescription
from launch.actions import DeclareLaunchArgument, OpaqueFunction
from launch.logging import get_logger
from launch.substitutions import LaunchConfiguration
from launch_ros.actions import Node

SHARE = Path(get_package_share_directory('cract_ros'))
BOOLEAN = ['true', 'false']
RESPAWN_DELAY = 2.0  # seconds
PARAMETERS = {  # arguments that set the node's parameter of that name
    'image_transport': dict(choices=['', 'raw', 'compressed'],
                            description='form of the images: raw, or compressed for JPEG and PNG'),
    'reliability': dict(choices=['', 'best_effort', 'reliable'], description='QoS of the image subscription'),
    'device': dict(choices=['', 'auto', 'cpu', 'cuda'], description='where the networks run'),
    'threads': dict(description='CPU threads of the networks; 0 leaves the choice to the library'),
    'use_sim_time': dict(choices=['', *BOOLEAN], description='take the time from /clock')}


def arguments() -> list[DeclareLaunchArgument]:
    return [
        DeclareLaunchArgument('image', default_value='image',
                              description='camera topic, sensor_msgs/Image; for compressed images without /compressed'),
        DeclareLaunchArgument('camera_info', default_value='',
                              description='calibration of the camera; empty: camera_info beside the camera topic'),
        DeclareLaunchArgument('depth', default_value='depth', description='depth image, registered to the camera'),
        DeclareLaunchArgument('candidates', default_value='candidates',
                              description='boxes of a detector, among which a lost target may be'),
        DeclareLaunchArgument('targets', default_value='1',
                              description='number of nodes; two or more get the namespaces target_1, target_2, ...'),
        DeclareLaunchArgument('params_file', default_value=str(SHARE / 'config' / 'tracker.yaml'),
                              description='YAML file with the parameters of the nodes'),
        DeclareLaunchArgument('namespace', default_value='', description='namespace of the nodes'),
        DeclareLaunchArgument('log_level', default_value='info', description='level of the log messages',
                              choices=['debug', 'info', 'warn', 'error', 'fatal']),
        DeclareLaunchArgument('autostart', default_value='true', choices=BOOLEAN,
                              description='configure and activate the node; false leaves it to a lifecycle manager'),
        *(DeclareLaunchArgument(name, default_value='', **about) for name, about in PARAMETERS.items()),
        DeclareLaunchArgument('use_respawn', default_value='false', choices=BOOLEAN,
                              description='start a node again when it has ended by itself'),
        DeclareLaunchArgument('selector', default_value='false', choices=BOOLEAN,
                              description='serve the page on which the target is chosen, one for each target'),
        DeclareLaunchArgument('selector_host', default_value='127.0.0.1',
                              description='address of the page; 0.0.0.0 is every network'),
        DeclareLaunchArgument('selector_port', default_value='8080',
                              description='port of the page; further targets have those after it'),
        DeclareLaunchArgument('rviz', default_value='false', choices=BOOLEAN,
                              description='open RViz on the overlay and the ray to the target')]


def generate_launch_description() -> LaunchDescription:
    return LaunchDescription([*arguments(), OpaqueFunction(function=nodes)])


def nodes(context: LaunchContext) -> list[Node]:
    """The trackers, and the page and RViz if asked for."""
    def given(name: str) -> str:
        return LaunchConfiguration(name).perform(context)

    warn_of_unknown(context)
    count = number('targets', given('targets'), 1, 1000)
    port = number('selector_port', given('selector_port'), 0, 65535)
    if given('threads'):
        number('threads', given('threads'), 0, 256)
    if not Path(given('params_file')).is_file():
        raise ValueError(f'params_file:={given("params_file")}: there is no such file')
    if given('rviz') == 'true':
        require('rviz2', 'rviz:=true')

    namespace = given('namespace').strip('/')
    topics = {name: absolute(given(name), namespace) for name in ('image', 'depth', 'candidates')}
    topics['camera_info'] = absolute(given('camera_info'), namespace) if given('camera_info') else \
        topics['image'].rpartition('/')[0] + '/camera_info'
    set_here = {name: value(given(name)) for name in PARAMETERS if given(name)}
    log = ['--ros-args', '--log-level', given('log_level')]
    common = dict(package='cract_ros', output='screen', emulate_tty=True, arguments=log,
                  respawn=given('use_respawn') == 'true', respawn_delay=RESPAWN_DELAY)
    started = []
    for index in range(count):
        space = namespace if count == 1 else f'{namespace}/target_{index + 1}'
        started.append(Node(executable='tracker_node', name='tracker', namespace=space, remappings=list(topics.items()),
                            parameters=[given('params_file'), {'autostart': given('autostart') == 'true'} | set_here],
                            **common))
        if given('selector') == 'true':
            page = dict(host=given('selector_host'), port=port + index if port else 0)
            started.append(Node(executable='select', name='select', namespace=space,
                                parameters=[given('params_file'), page], **common))
    if given('rviz') == 'true':
        started.append(Node(package='rviz2', executable='rviz2', arguments=['-d', str(SHARE / 'config/tracker.rviz')],
                            parameters=[{name: set_here[name]} for name in ('use_sim_time',) if name in set_here]))
    return started


def absolute(topic: str, namespace: str) -> str:
    """A relative topic belongs to the namespace that was given, not to those of the single targets."""
    return topic if topic.startswith('/') else '/' + '/'.join(filter(None, [namespace, topic]))


def value(text: str) -> bool | int | str:
    """The value of a parameter as its type has it."""
    return text == 'true' if text in BOOLEAN else int(text) if text.isdecimal() else text


def number(name: str, text: str, smallest: int, largest: int) -> int:
    """The value of an argument; ValueError for what is no number in that range."""
    if not (text.isascii() and text.isdecimal() and len(text) < 10 and smallest <= int(text) <= largest):
        raise ValueError(f'{name} must be a whole number from {smallest} to {largest}, got {text!r}')
    return int(text)


def require(package: str, argument: str) -> None:
    """ValueError, which names the remedy, where a package is not installed."""
    try:
        get_package_prefix(package)
    except PackageNotFoundError:
        raise ValueError(f'{argument} needs the package {package}, which is not installed '
                         f'(apt-get install ros-$ROS_DISTRO-{package.replace("_", "-")})') from None


def warn_of_unknown(context: LaunchContext) -> None:
    """Name the arguments that this file does not have, which launch itself passes over.

    Included by another launch file, it shares that one's arguments: those are no mistakes.
    """
    names = [argument.name for argument in arguments()]
    if not any(Path(word).name == Path(__file__).name for word in sys.argv):
        return
    for unknown in sorted({*context.launch_configurations} - {*names}):
        near = get_close_matches(unknown, names, 1)
        get_logger('cract_ros').warning(f'there is no launch argument {unknown!r}' +
                                        (f': did you mean {near[0]!r}?' if near else ', it has no effect'))
