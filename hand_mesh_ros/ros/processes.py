"""Nodes as processes of their own in a domain of their own, and watching them."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from rclpy.node import Node

from hand_mesh_ros.errors import ConfigurationError
from hand_mesh_ros.ros.recorder import BagRecorder
from hand_mesh_ros.ros.running import spin_until
from hand_mesh_ros.ros.share import share_directory

_NODE_STOP_S = 5.0
#: A node is done when nothing more comes for this long.
_QUIET_S = 1.5


@contextmanager
def node_process(
    module: str,
    namespace: str,
    parameters: Mapping[str, str],
    log: Path,
    remappings: Mapping[str, str] | None = None,
) -> Iterator[subprocess.Popen[bytes]]:
    """A node as a process of its own, ended as Ctrl-C ends it; what it says goes to ``log``.

    :param module: with a main of the node.
    """
    command = [sys.executable, '-m', module, '--ros-args', '-r', f'__ns:={namespace}']
    for name, value in parameters.items():
        command += ['-p', f'{name}:={value}']
    for name, value in (remappings or {}).items():
        command += ['-r', f'{name}:={value}']
    with open(log, 'wb') as stream:
        process = subprocess.Popen(command, stdout=stream, stderr=subprocess.STDOUT)
        try:
            yield process
        finally:
            if process.poll() is None:
                process.send_signal(signal.SIGINT)
            try:
                process.wait(_NODE_STOP_S)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def spin_for(node: Node, seconds: float | None, finished: Callable[[], bool]) -> None:
    """Serve callbacks until ``finished``, but no longer than ``seconds``."""
    deadline = float('inf') if seconds is None else time.monotonic() + seconds
    spin_until(node, lambda: finished() or time.monotonic() > deadline)


def wait_for_quiet(watcher: Node, recorder: BagRecorder, topic: str) -> None:
    """Serve callbacks until nothing more has come on a topic of the recorder for a while."""
    last_count, last_change = -1, time.monotonic()

    def quiet() -> bool:
        nonlocal last_count, last_change
        count = recorder.counts[topic]
        if count != last_count:
            last_count, last_change = count, time.monotonic()
        return time.monotonic() - last_change > _QUIET_S

    spin_until(watcher, quiet)


@contextmanager
def own_domain() -> Iterator[None]:
    """A DDS domain that no other demo or test uses, on this machine only, with room for large images."""
    for domain in range(1, 101):  # of higher ones the ports reach into Linux's ephemeral range
        with socket.socket() as lock:
            try:
                lock.bind(('127.0.0.1', 32768 + domain))  # the port by which ROS's own tests lock domains
            except OSError:
                continue
            os.environ['ROS_DOMAIN_ID'] = str(domain)
            os.environ['ROS_AUTOMATIC_DISCOVERY_RANGE'] = 'LOCALHOST'
            if os.environ.get('ROS_DISTRO') == 'humble':  # which has an older name for it
                os.environ['ROS_LOCALHOST_ONLY'] = '1'
            os.environ.setdefault(
                'FASTRTPS_DEFAULT_PROFILES_FILE', str(share_directory() / 'config' / 'fastdds_shm.xml')
            )
            print(f'ROS_DOMAIN_ID={domain}')
            yield
            return
    raise ConfigurationError('no free ROS domain on this machine: 100 programs hold one each')


def last_line(log: Path) -> str:
    """The last that a node said, and where all of it is."""
    lines = log.read_text(encoding='utf-8', errors='replace').strip().splitlines()
    return f'{lines[-1] if lines else "it said nothing"} ({log})'
