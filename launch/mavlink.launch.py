"""The tracker as a MAVLink camera:
`ros2 launch cract_ros mavlink.launch.py image:=/camera/image_raw mavlink:=udpin:0.0.0.0:14540`.

`gimbal:=mavlink` points the gimbal, too. The arguments of tracker.launch.py are passed on.
"""
from pathlib import Path

from ament_index_python.packages import get_package_share_directory
from launch import LaunchDescription
from launch.actions import DeclareLaunchArgument, IncludeLaunchDescription
from launch.conditions import IfCondition
from launch.launch_description_sources import PythonLaunchDescriptionSource
from launch.substitutions import LaunchConfiguration, PythonExpression
from launch_ros.actions import Node

SHARE = Path(get_package_share_directory('cract_ros'))


def generate_launch_description() -> LaunchDescription:
    given = LaunchConfiguration
    return LaunchDescription([
        DeclareLaunchArgument('mavlink', default_value='udpin:127.0.0.1:14540',
                              description='where MAVLink comes from: udpin:, udpout:, tcp:, tcpin:HOST:PORT or '
                                          'serial:DEVICE:BAUD'),
        DeclareLaunchArgument('video_url', default_value='', description='where the ground station finds the video'),
        DeclareLaunchArgument('key_file', default_value='', description='key of message signing'),
        DeclareLaunchArgument('system', default_value='1', description='MAVLink system of the vehicle'),
        DeclareLaunchArgument('ground_system', default_value='255',
                              description='the only system whose commands are followed; 0: any'),
        DeclareLaunchArgument('gimbal', default_value='none', choices=['none', 'mavlink', 'twist'],
                              description='point a gimbal at the target, once ~/enable is called'),
        DeclareLaunchArgument('gimbal_mavlink', default_value='udpout:127.0.0.1:14550',
                              description='where MAVLink goes to the gimbal manager'),
        IncludeLaunchDescription(PythonLaunchDescriptionSource(str(SHARE / 'launch' / 'tracker.launch.py'))),
        Node(package='cract_ros', executable='mavlink_camera', name='mavlink_camera', output='screen', emulate_tty=True,
             parameters=[{'url': given('mavlink'), 'video_url': given('video_url'), 'key_file': given('key_file'),
                          'system': PythonExpression(['int(', given('system'), ')']),
                          'ground_system': PythonExpression(['int(', given('ground_system'), ')'])}]),
        Node(package='cract_ros', executable='gimbal_pointing', name='gimbal_pointing', output='screen', emulate_tty=True,
             condition=IfCondition(PythonExpression(["'", given('gimbal'), "' != 'none'"])),
             parameters=[{'output': given('gimbal'), 'url': given('gimbal_mavlink'), 'key_file': given('key_file'),
                          'system': PythonExpression(['int(', given('system'), ')'])}])])
