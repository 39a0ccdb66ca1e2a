"""Build for pip: the library alone, or, where ROS is in reach, with the node.

With ROS the CMakeLists.txt is run that colcon runs, and what it installs is packed. ROS is in reach if its build tools
are in the environment that builds (`pip install --no-build-isolation .`) or in AMENT_PREFIX_PATH. In a ROS workspace
colcon builds this package through CMakeLists.txt and does not use this file.
"""
from __future__ import annotations

import os
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

from setuptools import Command, Distribution, find_namespace_packages, setup
from setuptools.command.build import build

ROOT = Path(__file__).resolve().parent


def ros_prefixes() -> list[str]:
    """Where ROS may be installed: AMENT_PREFIX_PATH, and this Python's prefix."""
    prefixes = [p for p in os.environ.get('AMENT_PREFIX_PATH', '').split(os.pathsep) if p]
    return prefixes if sys.prefix in prefixes else [*prefixes, sys.prefix]


ROS = any(Path(prefix, 'share', 'ament_cmake').is_dir() for prefix in ros_prefixes())


class BinaryDistribution(Distribution):
    """With the node: its generated type support is compiled, and the wheel belongs to one Python and one platform."""

    def has_ext_modules(self) -> bool:
        return ROS

    def has_data(self) -> bool:
        """What setuptools asks before it packs data files into an editable wheel."""
        return ROS


class BuildRos(Command):
    """Install with CMake into a staging prefix, then sort the files into the wheel.

    The generated half of `cract_ros` joins the hand-written one in the wheel. An editable wheel has no hand-written
    half: there the generated half goes to site-packages as data, with the `__init__.py` that finds the other half.
    """

    description = 'build the ROS interfaces and install launch and configuration files'
    user_options: list = []
    editable_mode = False

    def initialize_options(self) -> None:
        self.build_lib = self.build_temp = None

    def finalize_options(self) -> None:
        self.set_undefined_options('build', ('build_lib', 'build_lib'), ('build_temp', 'build_temp'))

    def get_source_files(self) -> list[str]:
        folders = ('msg', 'launch', 'config', 'scripts', 'cmake')
        files = [path for folder in folders for path in sorted((ROOT / folder).rglob('*')) if path.is_file()]
        return [str(path.relative_to(ROOT)) for path in [ROOT / 'CMakeLists.txt', ROOT / 'package.xml', *files]]

    def get_outputs(self) -> list[str]:
        return []

    def get_output_mapping(self) -> dict[str, str]:
        return {}

    def run(self) -> None:
        stage = Path(self.build_temp).resolve()
        prefix, cmake_build = stage / 'prefix', stage / 'cmake'
        shutil.rmtree(prefix, ignore_errors=True)
        environment = ros_environment()
        cmake = shutil.which('cmake', path=environment['PATH'])
        if cmake is None:
            raise SystemExit('cmake was not found: install it (apt-get install cmake, or pip install cmake).')
        generator = ['-G', 'Ninja'] if shutil.which('ninja', path=environment['PATH']) else []
        subprocess.run([cmake, '-S', ROOT, '-B', cmake_build, *generator, f'-DCMAKE_INSTALL_PREFIX={prefix}',
                        '-DCMAKE_BUILD_TYPE=Release', f'-DPython3_EXECUTABLE={sys.executable}',
                        '-DCRACT_SKIP_PYTHON=ON'], env=environment, check=True)
        subprocess.run([cmake, '--build', cmake_build, '--target', 'install', '--parallel'], env=environment, check=True)

        purelib = Path(sysconfig.get_path('purelib', vars={'base': str(prefix), 'platbase': str(prefix)}))
        data: dict[str, list[str]] = {}
        for path in sorted(path for path in prefix.rglob('*') if path.is_file()):
            inside = path.relative_to(prefix)
            if inside.parts[0] == 'include' or path.suffix in ('.pyc', '.c') or 'egg-info' in str(inside):
                continue
            if purelib not in path.parents:
                data.setdefault(str(inside.parent), []).append(str(path))
                continue
            if path == purelib / 'cract_ros/__init__.py':
                shutil.copyfile(ROOT / 'cract_ros/__init__.py', path)
            if self.editable_mode:
                site_packages = Path(sysconfig.get_path('platlib')).relative_to(sys.prefix)
                data.setdefault(str(site_packages / path.relative_to(purelib).parent), []).append(str(path))
            else:
                target = Path(self.build_lib, path.relative_to(purelib))
                self.mkpath(str(target.parent))
                self.copy_file(str(path), str(target))
        self.distribution.data_files[:] = sorted(data.items())


def ros_environment() -> dict[str, str]:
    """The environment for CMake: this Python's prefix is a ROS prefix too, and its programs come first.

    An isolated pip build hides the environment's own site-packages, where the Python half of the ROS build tools is:
    its folders are taken off PYTHONPATH, so that CMake's children see them again.
    """
    prefixes = ros_prefixes()
    python_path = [p for p in os.environ.get('PYTHONPATH', '').split(os.pathsep) if p and 'pip-build-env-' not in p]
    return dict(os.environ, AMENT_PREFIX_PATH=os.pathsep.join(prefixes), CMAKE_PREFIX_PATH=os.pathsep.join(prefixes),
                PYTHONPATH=os.pathsep.join(python_path),
                PATH=os.pathsep.join([str(Path(sys.prefix, 'bin')), os.environ.get('PATH', os.defpath)]))


class Build(build):
    """The Python build, and after it the ROS build."""

    sub_commands = [*build.sub_commands, ('build_ros', lambda self: ROS)]

    def run(self) -> None:
        super().run()
        if not ROS:
            print('No ROS 2 is in reach: cract_core and the command cract are built, and the ROS 2 node is left out.',
                  file=sys.stderr)


setup(
    distclass=BinaryDistribution,
    cmdclass={'build': Build, 'build_ros': BuildRos},
    packages=find_namespace_packages(include=['cract_core*', *['cract_ros*'] * ROS]),
    entry_points={'console_scripts': ['cract = cract_core.cli:main', *['cract-tracker = cract_ros.node:main'] * ROS]},
    data_files=[('', [])] if ROS else [],  # filled by BuildRos
)
