"""What pip runs. colcon never reads it: package.xml says ament_cmake.

The messages need ROS 2's CMake-based generators. On a machine without ROS those come from PyPI as
build requirements (pyproject.toml); this script runs the package's own CMakeLists.txt against them
and adds what it installs for the interfaces to the wheel, at the places where the ros-* wheels
keep theirs, relative to sys.prefix: lib/*.so, lib/pythonX.Y/site-packages/<package>/msg, share/.

The messages are left out where a ROS installation is sourced, because there colcon builds them, and
on request: HAND_MESH_ROS_NO_INTERFACES=1, for the library alone.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from setuptools import Distribution, find_packages, setup  # isort: skip - provides distutils on 3.12
from distutils.command.install_data import install_data

ROOT = Path(__file__).resolve().parent
NAME = 'hand_mesh_ros'
PROJECTS = ('.', 'interfaces/tf2_msgs')  # PyPI carries no tf2_msgs
WITH_INTERFACES = not (os.environ.get('HAND_MESH_ROS_NO_INTERFACES') or 'AMENT_PREFIX_PATH' in os.environ)

#: What lies in a checkout and no CMakeLists.txt installs.
NOT_BUILT = ('.*', '__pycache__', 'build', 'install', 'interfaces', 'log', 'out', 'test')

#: Of what CMake installs, what goes into the wheel. Headers and CMake exports are for C++ users.
SHIPPED = (
    'lib/*.so',
    'lib/python*/site-packages/*/*.so',
    'lib/python*/site-packages/*/*.py',
    'lib/python*/site-packages/*/msg/*.py',
    f'lib/{NAME}/*',
    'share/ament_index/**/*',
    'share/*/package.xml',
    'share/*/msg/*',
    'share/*/config/*',
    'share/*/config/*/*',
    'share/*/launch/*',
    'share/*/rviz/*',
)


def ros_prefix() -> str:
    """Where the ROS build wheels are: pip's build environment, or this virtual environment."""
    for entry in (*sys.path, sys.prefix):
        for prefix in (Path(entry), *Path(entry).parents):
            if (prefix / 'share/rosidl_cmake/package.xml').is_file():
                return str(prefix)
    sys.exit('the ROS 2 build wheels are missing: see [build-system] requires in pyproject.toml')


def cmake_install(source: Path, build: Path, stage: Path) -> None:
    """Configure, build and install one ament_cmake package into ``stage``."""
    ros = ros_prefix()
    environment = {**os.environ, 'AMENT_PREFIX_PATH': ros}
    configure = [
        'cmake',
        *('-S', source, '-B', build),
        f'-DCMAKE_INSTALL_PREFIX={stage}',
        f'-DCMAKE_PREFIX_PATH={ros}',
        '-DCMAKE_BUILD_TYPE=Release',
        f'-DPython3_EXECUTABLE={sys.executable}',
        '-DBUILD_TESTING=OFF',
        f'-DCMAKE_PROJECT_INCLUDE={ROOT / "cmake/pypi_ros_wheels.cmake"}',
    ]
    subprocess.run(configure, check=True, env=environment)
    compile_and_install = ['cmake', '--build', build, '--target', 'install']
    subprocess.run([*compile_and_install, '--parallel', str(os.cpu_count())], check=True, env=environment)


class InstallData(install_data):
    """Builds the interfaces just before data files are installed, and adds them to these."""

    def run(self) -> None:
        with tempfile.TemporaryDirectory() as scratch:  # a CMake cache would name a prefix that goes away
            stage = Path(scratch, 'stage')
            if WITH_INTERFACES:
                for number, project in enumerate(PROJECTS):
                    # From a copy: CMake refuses exported include paths below the source tree, and
                    # a virtual environment in the checkout holds NumPy's.
                    source = Path(scratch, f'source{number}')
                    shutil.copytree(ROOT / project, source, ignore=shutil.ignore_patterns(*NOT_BUILT))
                    cmake_install(source, Path(scratch, f'build{number}'), stage)
            own = {path.relative_to(ROOT) for path in (ROOT / NAME).rglob('*') if path.is_file()}
            found = {path for pattern in SHIPPED for path in stage.glob(pattern) if path.is_file()}
            for path in sorted(found):
                place = path.relative_to(stage)
                if Path(*place.parts[3:]) not in own:  # our own modules are in the wheel already
                    self.data_files.append((str(place.parent), [str(path)]))
            super().run()


class BinaryDistribution(Distribution):
    """A wheel for this interpreter and platform, whose editable form installs data files too."""

    has_data = Distribution.has_data_files  # the name editable_wheel asks for

    def has_ext_modules(self) -> bool:
        return WITH_INTERFACES


setup(
    packages=find_packages(include=[NAME, f'{NAME}.*']),
    package_dir={'': '.'},  # an editable install then puts the checkout itself on sys.path
    data_files=[(f'share/{NAME}', ['package.xml'])],
    distclass=BinaryDistribution,
    cmdclass={'install_data': InstallData},
)
