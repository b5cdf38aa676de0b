"""Starting, spinning and ending a node as a program."""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Callable
from types import FrameType
from typing import NoReturn, TypeVar

import rclpy
from rclpy.executors import SingleThreadedExecutor
from rclpy.node import Node
from rclpy.signals import SignalHandlerOptions

from hand_mesh_ros.errors import HandMeshError
from hand_mesh_ros.ros.logs import send_library_logs_to_ros

#: How long a spin may sleep before it looks whether it is to end.
_WAKE_S = 0.1

AnyNode = TypeVar('AnyNode', bound=Node)


def spin_until(node: Node, finished: Callable[[], bool]) -> None:
    """Serve the callbacks of ``node`` until ``finished``."""
    executor = SingleThreadedExecutor()
    executor.add_node(node)
    try:
        while not finished():
            executor.spin_once(timeout_sec=_WAKE_S)
    finally:
        executor.shutdown()


def run_program(
    make_node: Callable[[], AnyNode], work: Callable[[AnyNode, threading.Event], None], args: list[str] | None
) -> int:
    """Run a node as a program until ``work`` returns; its event is set by SIGINT and SIGTERM.

    rclpy's own signal handlers are left out: they take the context down while threads still publish.

    :return: exit code: 0, or 1 after an error, which is told in one line.
    """
    stopping = threading.Event()

    def stop(number: int, frame: FrameType | None) -> None:
        stopping.set()

    signal.signal(signal.SIGINT, stop)
    signal.signal(signal.SIGTERM, stop)
    try:
        rclpy.init(args=args, signal_handler_options=SignalHandlerOptions.NO)
    except RuntimeError as error:  # rclpy's RCLError, which has no public name
        print(f'arguments for ROS cannot be used: {error}', file=sys.stderr)
        return 1
    send_library_logs_to_ros()
    node = None
    try:
        node = make_node()
        work(node, stopping)
        return 0
    except HandMeshError as error:
        logger = node.get_logger() if node else rclpy.logging.get_logger('hand_mesh_ros')
        logger.fatal(str(error))
        return 1
    finally:
        if node is not None:
            node.destroy_node()
        rclpy.try_shutdown()


def exit_program(code: int) -> NoReturn:
    """End the process with that exit code, whatever its daemon threads are doing.

    Python stops them when they next need its lock; inside PyTorch, that aborts the process (SIGABRT).
    """
    if any(thread.daemon for thread in threading.enumerate()):
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)
    sys.exit(code)
