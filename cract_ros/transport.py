"""Fast DDS transports that carry camera images: the profile `config/fastdds.xml` (other middleware ignores it)."""
from __future__ import annotations

import os
import sys
from pathlib import Path

NAMES = ('FASTDDS_DEFAULT_PROFILES_FILE', 'FASTRTPS_DEFAULT_PROFILES_FILE')  # of Fast DDS 3 and of Fast DDS 2
VARIABLE = NAMES[os.environ.get('ROS_DISTRO') in ('humble', 'iron', 'jazzy')]
CHOICES = (*NAMES, 'FASTDDS_BUILTIN_TRANSPORTS')  # a user who sets one of them has chosen the transports


def profile() -> Path:
    """The installed profile: in a ROS prefix or, as pip puts it, in the environment of this Python."""
    prefixes = [*filter(None, os.environ.get('AMENT_PREFIX_PATH', '').split(os.pathsep)), sys.prefix]
    for prefix in prefixes:
        path = Path(prefix, 'share', 'cract_ros', 'config', 'fastdds.xml')
        if path.is_file():
            return path
    raise FileNotFoundError(f'share/cract_ros/config/fastdds.xml is in none of {", ".join(prefixes)}: '
                            'cract_ros is not installed there')


def use_profile() -> None:
    """Take the profile for this process and its children, unless the user has chosen; call it before `rclpy.init`."""
    if not any(name in os.environ for name in CHOICES):
        os.environ[VARIABLE] = str(profile())
