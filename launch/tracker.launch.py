"""Start the tracker node: `ros2 launch cract_ros tracker.launch.py image:=/camera/image_raw`.

`targets:=2` starts two, in the namespaces `target_1` and `target_2`, on the same camera.
"""
from pathlib import Path

from ament_index_python.packages import get_package_share_directory
from launch import LaunchContext, LaunchDescription
from launch.actions import DeclareLaunchArgument, OpaqueFunction
from launch.substitutions import LaunchConfiguration
from launch_ros.actions import Node

SHARE = Path(get_package_share_directory('cract_ros'))


def generate_launch_description() -> LaunchDescription:
    return LaunchDescription([
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
        DeclareLaunchArgument('autostart', default_value='true', choices=['true', 'false'],
                              description='configure and activate the node; false leaves it to a lifecycle manager'),
        DeclareLaunchArgument('rviz', default_value='false', choices=['true', 'false'],
                              description='open RViz on the overlay and the ray to the target'),
        OpaqueFunction(function=nodes)])


def nodes(context: LaunchContext) -> list[Node]:
    """The trackers, and RViz if asked for."""
    def given(name: str) -> str:
        return LaunchConfiguration(name).perform(context)

    namespace = given('namespace').strip('/')
    topics = {name: absolute(given(name), namespace) for name in ('image', 'depth', 'candidates')}
    topics['camera_info'] = absolute(given('camera_info'), namespace) if given('camera_info') else \
        topics['image'].rpartition('/')[0] + '/camera_info'
    count = int(given('targets'))
    if count < 1:
        raise ValueError(f'targets must be at least 1, got {count}')
    spaces = [namespace] if count == 1 else [f'{namespace}/target_{number}' for number in range(1, count + 1)]
    started = [
        Node(package='cract_ros', executable='tracker_node', name='tracker', namespace=space, output='screen',
             emulate_tty=True, parameters=[given('params_file'), {'autostart': given('autostart') == 'true'}],
             remappings=list(topics.items()), arguments=['--ros-args', '--log-level', given('log_level')])
        for space in spaces]
    if given('rviz') == 'true':
        started.append(Node(package='rviz2', executable='rviz2', arguments=['-d', str(SHARE / 'config/tracker.rviz')]))
    return started


def absolute(topic: str, namespace: str) -> str:
    """A relative topic belongs to the namespace that was given, not to those of the single targets."""
    return topic if topic.startswith('/') else '/' + '/'.join(filter(None, [namespace, topic]))
