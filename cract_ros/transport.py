"""Fast DDS transports that carry camera images: the profile `config/fastdds.xml` (other middleware ignores it)."""
from __future__ import annotations

import os
import sys
from pathlib import Path

from rclpy.utilities import get_rmw_implementation_identifier

from cract_ros import distro

NAMES = ('FASTDDS_DEFAULT_PROFILES_FILE', 'FASTRTPS_DEFAULT_PROFILES_FILE')  # of Fast DDS 3 and of Fast DDS 2
VARIABLE = NAMES[distro.FAST_DDS_2]
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


_taken: str | None = None  # what this process has set VARIABLE to


def use_profile() -> None:
    """Take the profile for this process and its children, unless the user has chosen; call it before `rclpy.init`."""
    global _taken
    if chosen() is None:
        os.environ[VARIABLE] = _taken = str(profile())


def chosen() -> str | None:
    """The variable by which the user has chosen the transports."""
    return next((name for name in CHOICES if os.environ.get(name, _taken) != _taken), None)


def advice() -> str:
    """What to do where images are lost on the way."""
    middleware = get_rmw_implementation_identifier()
    if not middleware.startswith('rmw_fastrtps'):
        return f'{middleware} may need larger buffers for them, here and at the camera node'
    if name := chosen():
        return f'{name} is set here: the camera node needs the same, and buffers that hold an image'
    return f'with Fast DDS large images need the setting {VARIABLE}={profile()} in the environment of the camera node'
