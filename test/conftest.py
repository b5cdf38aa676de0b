"""Surroundings of every test run: a DDS domain of its own, nothing written to the user's home."""

from __future__ import annotations

import atexit
import os
import shutil
import socket
import tempfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent


def _take_domain() -> tuple[int, socket.socket]:
    """A ROS domain that no other test run on this machine has, and what keeps it ours until we end."""
    for domain in range(1, 101):  # of higher domains the ports reach into Linux's ephemeral range
        lock = socket.socket()
        try:
            lock.bind(('127.0.0.1', 32768 + domain))  # the port by which ROS's own tests lock domains
        except OSError:
            lock.close()
        else:
            return domain, lock
    raise RuntimeError('all ROS domains from 1 to 100 are taken on this machine')


# Not in a fixture: the variables must be there before any test module imports rclpy.
_domain, _domain_lock = _take_domain()
_log_directory = tempfile.mkdtemp(prefix='hand_mesh_ros_log_')
atexit.register(shutil.rmtree, _log_directory, ignore_errors=True)
os.environ.update(
    ROS_DOMAIN_ID=str(_domain),
    ROS_AUTOMATIC_DISCOVERY_RANGE='LOCALHOST',
    ROS_PYTHON_CHECK_FIELDS='1',  # else a wrongly filled message is a crash, not an error
    ROS_LOG_DIR=_log_directory,
    FASTRTPS_DEFAULT_PROFILES_FILE=str(ROOT / 'config' / 'fastdds_shm.xml'),
)
if os.environ.get('ROS_DISTRO') == 'humble':
    os.environ['ROS_LOCALHOST_ONLY'] = '1'  # Humble's name for the discovery range


@pytest.fixture(scope='session')
def real_images() -> Path:
    """Folder of photographs and videos of hands, beside the checkout; they are not part of it."""
    folder = ROOT.parent / 'shared' / 'real'
    if not folder.is_dir():
        pytest.skip(f'needs photographs of hands, which are not in the repository: {folder}')
    return folder


@pytest.fixture(scope='session')
def maskhand_weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Weights for the method maskhand, of a small network that has learned nothing."""
    from maskhand_file import write_maskhand

    return write_maskhand(tmp_path_factory.mktemp('weights') / 'maskhand.safetensors')


@pytest.fixture(scope='session')
def mask2hand_weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Weights for the method mask2hand, of a small network that has learned nothing."""
    from mask2hand_file import write_mask2hand

    return write_mask2hand(tmp_path_factory.mktemp('weights') / 'mask2hand.safetensors')
