"""Says what ``make`` would fail on later, and less clearly: run by the Makefile before it sets up .venv.

Runs on older Pythons than the package does, to say so.
"""

import ctypes
import importlib.util
import os
import platform
import shutil
import sys
import sysconfig


def missing_library(name):
    """Whether the dynamic linker finds no library of this name."""
    try:
        ctypes.CDLL(name)
    except OSError:
        return True
    return False


def main():
    """Exit with a message, or return when all is well."""
    machine = (platform.system(), platform.machine())
    if machine != ('Linux', 'x86_64'):
        sys.exit(
            f'this is {machine[0]} on {machine[1]}, and PyPI carries ROS 2 for x86-64 Linux only. Install '
            'ROS 2 (on a Jetson: by apt) and build with colcon; see "On a robot" in README.md'
        )
    version = f'python{sys.version_info[0]}.{sys.version_info[1]}'
    if not (3, 10) <= sys.version_info[:2] <= (3, 12):
        sys.exit(
            f'{sys.executable} is {version}: Python 3.10, 3.11 or 3.12 is needed. Choose one, for example: '
            'make demo PYTHON=python3.11'
        )
    needs = {
        f'{version}-venv': importlib.util.find_spec('ensurepip') is None,
        f'{version}-dev': not os.path.isfile(os.path.join(sysconfig.get_path('include'), 'Python.h')),
        'build-essential': not (shutil.which('cc') and shutil.which('c++')),
        # What OpenCV's wheel does not bring along.
        'libgl1': missing_library('libGL.so.1'),
        'libglib2.0-0': missing_library('libgthread-2.0.so.0'),
    }
    packages = [package for package, missing in needs.items() if missing]
    if packages:
        sys.exit('this machine lacks:\n  sudo apt-get install -y ' + ' '.join(packages))


if __name__ == '__main__':
    main()
