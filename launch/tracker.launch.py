"""Start the tracker node: `ros2 launch cract_ros tracker.launch.py image:=/camera/image_raw`."""
from pathlib import Path

from ament_index_python.packages import get_package_share_directory
from launch import LaunchDescription
from launch.actions import DeclareLaunchArgument
from launch.substitutions import LaunchConfiguration
from launch_ros.actions import Node
from launch_ros.parameter_descriptions import ParameterValue


def generate_launch_description() -> LaunchDescription:
    share = Path(get_package_share_directory('cract_ros'))
    arguments = [
        DeclareLaunchArgument('image', default_value='image', description='camera topic, sensor_msgs/Image'),
        DeclareLaunchArgument('params_file', default_value=str(share / 'config' / 'tracker.yaml'),
                              description='YAML file with the parameters of the node'),
        DeclareLaunchArgument('namespace', default_value='', description='namespace of the node'),
        DeclareLaunchArgument('log_level', default_value='info', description='level of the log messages',
                              choices=['debug', 'info', 'warn', 'error', 'fatal']),
        DeclareLaunchArgument('autostart', default_value='true', choices=['true', 'false'],
                              description='configure and activate the node; false leaves it to a lifecycle manager'),
    ]
    node = Node(
        package='cract_ros', executable='tracker_node', name='tracker', namespace=LaunchConfiguration('namespace'),
        output='screen', emulate_tty=True,
        parameters=[LaunchConfiguration('params_file'),
                    {'autostart': ParameterValue(LaunchConfiguration('autostart'), value_type=bool)}],
        remappings=[('image', LaunchConfiguration('image'))],
        arguments=['--ros-args', '--log-level', LaunchConfiguration('log_level')])
    return LaunchDescription([*arguments, node])
