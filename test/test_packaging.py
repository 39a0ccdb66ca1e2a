"""What is installed: one version everywhere, upstream's message types, docs that say what the code says, a wheel."""
from __future__ import annotations

import dataclasses
import os
import re
import runpy
import shutil
import subprocess
import sys
import sysconfig
import venv
import zipfile
from pathlib import Path
from xml.etree import ElementTree

import pytest

import cract_core
from cract_core.config import TrackerConfig
from conftest import ROOT

# Hashes of vision_msgs 4.1.1 as ROS 2 computes them from upstream's own definition files (tag 4.1.1).
VISION_MSGS = {
    'BoundingBox2D': 'RIHS01_008eacbb0cf8f26e83795547bed013eec3675485ef386ec056d80eaaf1c1ce2f',
    'BoundingBox2DArray': 'RIHS01_2464e82838009386d371b523211c21c91d74d313fcdd6788223c531d621cf691',
    'BoundingBox3D': 'RIHS01_bbb73a65c163d7f9bb29009c7bde9f7faa576bd2d23299c4511d19230dab4698',
    'BoundingBox3DArray': 'RIHS01_a81938db9576b10c2eecd7c5a5da3eac496efd00221b25ed051dfbc81fb56da6',
    'Classification': 'RIHS01_f74db28d0eaef3afb78f48bf2161cd709a1383a0309d3454383b25be11345143',
    'Detection2D': 'RIHS01_0d12b69df5c593b3455b7346fac8205437a7d4bcb09b9e0e0b2dde787ded38ea',
    'Detection2DArray': 'RIHS01_214274120007f4a683866481336b70310268cfa107aebe9d594a6acf75bda968',
    'Detection3D': 'RIHS01_ddd703be132ab0b69d33121f1bb034132bfbb3b0ac5f9fb1516005ba1c8a265b',
    'Detection3DArray': 'RIHS01_793f5eab9595ac1c0da07873cc859db42eae51f0ee76056db8562515d830e018',
    'LabelInfo': 'RIHS01_3d37df4015cdf660cc851c51897f2acd957e1ca6205ba0a99aebffb9406b0783',
    'ObjectHypothesis': 'RIHS01_51da43cec11c01957a64d1e05a24acd18aae7745ec30b74348ad5f6d634f7f90',
    'ObjectHypothesisWithPose': 'RIHS01_41c12344c0396c48b81df12467c192d99b2a0eb1463c5c37194e4223251c80bc',
    'Point2D': 'RIHS01_eab0e83f44ab4de92ceaf76dd7d0e7638f2bdd1d16ffbe16c7a136c48e407247',
    'Pose2D': 'RIHS01_b0b5d1d7b4c20dd4fcde3ed1d4b289a919290572007d67a97043814db25d3648',
    'VisionClass': 'RIHS01_1e4a11f0fed50b5623cb8ff26ca0e37952a48a9c074d16f804b44e9164c2037a',
    'VisionInfo': 'RIHS01_95d3116a17484ad91c9a2686e1d54890bbfc3ff6c6a2de137738c4950d45d284',
}


@pytest.fixture(scope='module')
def node():
    """A node of a ROS context of its own."""
    import rclpy
    context = rclpy.Context()
    context.init()
    node = rclpy.create_node('types', context=context)
    yield node
    node.destroy_node()
    context.shutdown()


@pytest.mark.parametrize('name', sorted(VISION_MSGS))
def test_messages_have_the_type_hashes_of_upstream(node, name):
    """What a subscriber on another machine compares, as it goes over the wire."""
    import vision_msgs.msg
    publisher = node.create_publisher(getattr(vision_msgs.msg, name), f'types/{name}', 1)
    endpoint, = node.get_publishers_info_by_topic(publisher.topic_name)
    assert endpoint.topic_type == f'vision_msgs/msg/{name}'
    assert str(endpoint.topic_type_hash) == VISION_MSGS[name]


def test_all_definitions_of_vision_msgs_have_their_hash_tested():
    assert {path.stem for path in (ROOT / 'third_party/vision_msgs/msg').glob('*.msg')} == set(VISION_MSGS)


def test_one_version_everywhere():
    from importlib.metadata import version
    assert ElementTree.parse(ROOT / 'package.xml').findtext('version') == cract_core.__version__
    assert version('cract_ros') == cract_core.__version__


def test_importing_the_core_loads_no_torch():
    code = 'import sys, cract_core; assert cract_core.TrackerConfig; sys.exit("torch" in sys.modules)'
    assert subprocess.run([sys.executable, '-c', code], cwd=ROOT).returncode == 0


def test_core_does_not_import_ros():
    for path in sorted((ROOT / 'cract_core').rglob('*.py')):
        assert not re.search(r'^\s*(import|from) (rclpy|cract_ros|sensor_msgs|vision_msgs)', path.read_text(), re.M), path


def test_the_nodes_page_has_the_parameters_of_the_code():
    from cract_ros.parameters import NodeConfig
    tables = runpy.run_path(str(ROOT / 'scripts/parameter_tables.py'))
    page = tables['PAGE'].read_text()
    assert tables['with_tables'](page) == page, 'run scripts/parameter_tables.py'
    for field in (*dataclasses.fields(TrackerConfig), *dataclasses.fields(NodeConfig)):
        assert f'| `{field.name}` | ' in page


def test_a_table_without_its_place_is_told():
    with pytest.raises(ValueError, match='<!-- TrackerConfig --> ... <!-- end --> stands 0 times'):
        runpy.run_path(str(ROOT / 'scripts/parameter_tables.py'))['with_tables']('')


def test_the_nodes_page_names_every_topic_and_service():
    code = ''.join((ROOT / 'cract_ros' / name).read_text() for name in ('node.py', 'outputs.py'))
    names = set(re.findall(r"'(~/\w+)'", code)) | {f'~/{name}' for name in re.findall(r"Trigger, '(\w+)'", code)}
    assert {'~/detection', '~/state', '~/init_box', '~/pause'} <= names
    missing = {name for name in names if f'`{name}`' not in (ROOT / 'docs/node.md').read_text()}
    assert not missing


def copy_of_the_checkout(folder: Path) -> Path:
    """Without earlier builds in it."""
    skip = shutil.ignore_patterns('.*', 'build', 'install', 'log', 'dist', '*.egg-info', '__pycache__', 'runs', 'demo')
    return shutil.copytree(ROOT, folder, ignore=skip)


def test_the_newcomers_walk_names_functions_that_are_there():
    """From an image message to Detection2D, in ten lines of CONTRIBUTING.md."""
    text = (ROOT / 'CONTRIBUTING.md').read_text()
    walk = text[text.index('## From an image message'):text.index('## Rules')]
    steps = re.findall(r'`(\w+/\w+\.py)`: `(\w+)`', walk)
    assert len(re.findall(r'^\d+\. ', walk, re.M)) == 10 <= len(steps)
    for file, function in steps:
        assert re.search(rf'^ *def {function}\(', (ROOT / file).read_text(), re.M), (file, function)


@pytest.fixture(scope='module')
def wheel(tmp_path_factory) -> Path:
    """The wheel of this checkout."""
    folder = tmp_path_factory.mktemp('wheel')
    source = copy_of_the_checkout(folder / 'source')
    # a build isolated by pip may hide these tools; here the environment itself is the build environment
    subprocess.run([sys.executable, '-m', 'pip', 'wheel', '--quiet', '--no-deps', '--no-build-isolation',
                    '--wheel-dir', folder, source], check=True)
    built, = folder.glob('*.whl')
    return built


@pytest.mark.slow
def test_wheel_holds_all_that_the_checkout_has(wheel):
    """Every module, the weights, and what the ament index, `ros2 launch` and `ros2 run` look for."""
    names = {re.sub(r'^cract_ros-[^/]*\.data/data/', '', name) for name in zipfile.ZipFile(wheel).namelist()}
    sources = [path.relative_to(ROOT) for package in ('cract_core', 'cract_ros')
               for path in (ROOT / package).rglob('*') if path.suffix in ('.py', '.pt', '.html', '.css', '.js', '.svg', '.onnx')]
    assert Path('cract_core/weights/cract.pt') in sources
    missing = {str(path) for path in sources} - names
    assert not missing
    for folder in ('launch', 'config'):
        assert {f'share/cract_ros/{folder}/{path.name}' for path in (ROOT / folder).iterdir() if path.is_file()} <= names
    assert {'share/ament_index/resource_index/packages/cract_ros', 'share/cract_ros/package.xml',
            'lib/cract_ros/tracker_node', 'lib/cract_ros/select', 'lib/cract_ros/cract',
            'share/cract_ros/srv/InitTarget.srv', 'share/cract_ros/msg/TrackState.msg',
            'cract_ros/srv/_init_target.py', 'cract_ros/msg/_track_state.py'} <= names
    assert not [name for name in names if name.startswith(('test', 'third_party', 'build'))]


@pytest.mark.slow
def test_wheel_works_in_a_new_environment(wheel, tmp_path):
    """The package comes from the wheel alone; torch, OpenCV and ROS are lent by the environment that runs the tests."""
    venv.create(tmp_path / 'venv', with_pip=False)
    prefix = tmp_path / 'venv'
    python = prefix / 'bin/python'
    subprocess.run([sys.executable, '-m', 'pip', '--python', python, 'install', '--quiet', '--no-deps', wheel],
                   check=True)
    packages = Path(sysconfig.get_path('purelib', vars={'base': str(prefix), 'platbase': str(prefix)}))
    (packages / 'lent.pth').write_text(sysconfig.get_path('purelib') + '\n')
    environment = {name: value for name, value in os.environ.items() if name != '_ROS_WHEELS_BOOTSTRAP_COMPLETE'}
    environment |= dict(
        AMENT_PREFIX_PATH=os.pathsep.join([str(prefix), os.environ['AMENT_PREFIX_PATH']]),
        LD_LIBRARY_PATH=os.pathsep.join([str(prefix / 'lib'), str(Path(sys.prefix, 'lib')),
                                         os.environ.get('LD_LIBRARY_PATH', '')]),
        PATH=os.pathsep.join([str(prefix / 'bin'), os.environ['PATH']]))

    def run(*command) -> str:
        done = subprocess.run(command, cwd=tmp_path, env=environment, text=True, capture_output=True)
        assert done.returncode == 0, done.stderr
        return done.stdout

    origins = run(python, '-c', 'import cract_core.cli, cract_ros.node, cract_ros.srv\n'
                                'for module in (cract_core.cli, cract_ros.node, cract_ros.srv): print(module.__file__)')
    assert [Path(line).is_relative_to(packages) for line in origins.split()] == [True] * 3, origins
    assert cract_core.__version__ in run(python, '-c', 'import importlib.metadata as m; print(m.version("cract_ros"))')
    assert 'success' in run(python, '-c', 'from cract_ros.srv import InitTarget; print(InitTarget.Response())')
    help_text = run(prefix / 'bin/cract', '--help')
    assert all(word in help_text for word in ('track', 'eval', 'train'))
    assert 'TRACKING' in run(python, '-c', 'import numpy as np; from cract_core import State, Tracker\n'
                                           'tracker = Tracker()\n'
                                           'frame = np.random.default_rng(0).integers(0, 255, (240, 320, 3), np.uint8)\n'
                                           'tracker.init(frame, (140, 100, 40, 40))\n'
                                           'assert np.isfinite(tracker.update(frame).box).all()\n'
                                           'print(*State)')


@pytest.mark.slow
def test_without_ros_the_library_and_its_command_are_installed(tmp_path):
    """In an environment without ROS, compiler and cmake; what the library stands on is lent to it."""
    venv.create(tmp_path / 'venv', with_pip=False)
    python = tmp_path / 'venv/bin/python'
    packages = Path(sysconfig.get_path('purelib', vars={'base': str(tmp_path / 'venv'), 'platbase': ''}))
    (packages / 'lent.pth').write_text(sysconfig.get_path('purelib') + '\n')
    bare = dict(PATH=str(python.parent), HOME=str(tmp_path))
    source = copy_of_the_checkout(tmp_path / 'source')
    done = subprocess.run([python, '-m', 'pip', 'install', '--verbose', '--no-deps', '--no-build-isolation',
                           '--ignore-installed', '--no-index', source], env=bare, text=True, capture_output=True)
    assert done.returncode == 0, done.stderr
    assert (done.stdout + done.stderr).count('the ROS 2 node is left out') == 1
    assert sorted(one.name for one in packages.iterdir() if 'cract' in one.name) == [
        'cract_core', f'cract_ros-{cract_core.__version__}.dist-info']
    assert 'py3-none-any' in next(packages.glob('cract_ros-*/WHEEL')).read_text()
    sources = {path.relative_to(ROOT) for path in (ROOT / 'cract_core').rglob('*')
               if path.suffix not in ('', '.pyc') and path.is_file()}
    assert Path('cract_core/weights/cract.pt') in sources and Path('cract_core/py.typed') in sources
    assert not {str(path) for path in sources if not (packages / path).is_file()}
    assert not (python.parent / 'cract-tracker').exists()
    cract = python.parent / 'cract'

    def run(*arguments) -> str:
        done = subprocess.run([cract, *arguments], cwd=tmp_path, env=bare, text=True, capture_output=True)
        assert done.returncode == 0, done.stderr
        return done.stdout

    run('synth', 'clip', '--frames', '3', '--size', '160x120')
    assert run('track', 'clip/img', '--box', '60,50,20,20', '--threads', '1').startswith('3 frames on cpu')


def test_make_installs_every_dependency_in_a_pinned_version():
    """What pyproject.toml names has its version in constraints.txt."""
    tables = runpy.run_path(str(ROOT / 'scripts/requirements.py'))

    def name(requirement: str) -> str:
        return re.match(r'[\w.-]+', requirement).group().lower().replace('_', '-')
    pinned = {name(line) for line in (ROOT / 'constraints.txt').read_text().splitlines() if '==' in line}
    wanted = {name(one) for one in tables['requirements']([])}
    assert {'numpy', 'torch', 'ray', 'pytest', 'cmake'} <= wanted
    assert wanted <= pinned
    assert 'ray' not in {name(one) for one in tables['requirements'](['ray'])}
    with pytest.raises(ValueError, match='no extra lidar'):
        tables['requirements'](['lidar'])


@pytest.fixture(scope='module')
def build_folder(tmp_path_factory) -> Path:
    """Where colcon builds: what the interfaces alone need is the first half of the whole."""
    return tmp_path_factory.mktemp('colcon')


def colcon(folder: Path, interfaces_only: str) -> Path:
    """What colcon installs of this checkout, with the option ON or OFF."""
    if shutil.which('colcon') is None:
        pytest.skip('needs colcon: apt-get install python3-colcon-common-extensions')
    prefixes = dict(os.environ, CMAKE_PREFIX_PATH=os.environ['AMENT_PREFIX_PATH'])
    install = folder / f'install_{interfaces_only}'
    done = subprocess.run(
        ['colcon', '--log-base', folder / 'log', 'build', '--paths', ROOT, '--packages-select', 'cract_ros',
         '--build-base', folder / 'build', '--install-base', install, '--merge-install', '--cmake-args',
         f'-DPython3_EXECUTABLE={sys.executable}', f'-DCRACT_INTERFACES_ONLY={interfaces_only}'],
        env=prefixes, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    assert done.returncode == 0, done.stdout[-5000:]
    return install


@pytest.mark.slow
def test_a_cpp_program_needs_the_interfaces_only(build_folder, tmp_path):
    """Built as the docs say, they serve a C++ consumer, and nothing of the tracker is installed."""
    missing = [name for name in ('rosidl_generator_cpp', 'rosidl_typesupport_cpp') if not any(
        Path(prefix, 'share', name).is_dir() for prefix in os.environ['AMENT_PREFIX_PATH'].split(os.pathsep))]
    if missing or shutil.which('c++') is None:
        pytest.skip(f'needs a C++ compiler and {", ".join(missing) or "nothing more"}')
    prefix = colcon(build_folder, 'ON')
    assert (prefix / 'share/cract_ros/msg/TrackState.msg').is_file() and not list(prefix.glob('lib/cract_ros/*'))
    modules = {path.name for path in prefix.glob('lib/python*/site-packages/cract_ros/*.py')}
    assert modules == {'__init__.py'} and not list(prefix.glob('lib/python*/site-packages/cract_core'))

    prefixes = os.pathsep.join([str(prefix), os.environ['AMENT_PREFIX_PATH']])
    environment = dict(os.environ, AMENT_PREFIX_PATH=prefixes, CMAKE_PREFIX_PATH=prefixes, LD_LIBRARY_PATH=os.pathsep.join(
        [str(prefix / 'lib'), str(Path(sys.prefix, 'lib')), os.environ.get('LD_LIBRARY_PATH', '')]))
    build = tmp_path / 'consumer'
    for command in (['cmake', '-S', ROOT / 'test/consumer', '-B', build, f'-DPython3_EXECUTABLE={sys.executable}'],
                    ['cmake', '--build', build]):
        done = subprocess.run(command, env=environment, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
        assert done.returncode == 0, done.stdout[-5000:]
    said = subprocess.run([build / 'follow_target'], env=environment, text=True, capture_output=True, check=True).stdout
    assert 'tracking -0.40' in said and 'lost 0.00' in said and 'id: "car"' in said
    assert 'cract_ros/msg/TrackState' in said


@pytest.mark.slow
def test_colcon_installs_the_command_line(build_folder, tmp_path):
    """`ros2 run cract_ros cract` starts the program in lib/cract_ros."""
    prefix = colcon(build_folder, 'OFF')
    packages, = prefix.glob('lib/python*/site-packages')
    for name in ('cract', 'tracker_node', 'select'):
        assert os.access(prefix / 'lib/cract_ros' / name, os.X_OK)
    environment = dict(os.environ, PYTHONPATH=str(packages))
    done = subprocess.run([prefix / 'lib/cract_ros/cract', 'params'], cwd=tmp_path, env=environment, text=True,
                          capture_output=True)
    assert done.returncode == 0 and 'num_proposals' in done.stdout, done.stderr


def test_the_changelog_has_the_form_of_a_ros_package():
    """A section for each version and one for what is to come, as catkin_pkg, and with it bloom, reads it."""
    from catkin_pkg.changelog import get_changelog_from_path
    from docutils.core import publish_doctree
    tree = publish_doctree((ROOT / 'CHANGELOG.rst').read_text(), settings_overrides=dict(
        report_level=2, halt_level=2, doctitle_xform=False))
    title, *sections = [node.astext() for node in tree.findall() if node.tagname == 'title']
    assert title == 'Changelog for package cract_ros' and sections[0] == 'Forthcoming'
    versions = [version for version, _, _ in get_changelog_from_path(str(ROOT), 'cract_ros').foreach_version()]
    assert len(versions) == len(sections) - 1


def test_the_package_file_is_complete():
    from catkin_pkg.package import parse_package
    warnings = []
    package = parse_package(str(ROOT / 'package.xml'), warnings=warnings)
    package.validate(warnings=warnings)
    assert not warnings
    assert package.maintainers and package.licenses == ['Apache-2.0'] and package.urls
    depends = {one.name for one in package.exec_depends}
    assert {'python3-onnxruntime-pip', 'python3-tornado', 'python3-opencv', 'rclpy', 'launch_ros'} <= depends
