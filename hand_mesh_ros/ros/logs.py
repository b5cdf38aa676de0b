"""What the library logs, in the node's log."""

from __future__ import annotations

import logging

import rclpy.logging

#: The parent of all loggers of the library.
_LIBRARY = 'hand_mesh_ros'


class RosLogHandler(logging.Handler):
    """Passes records of Python's logging on to ROS, severity for severity."""

    def __init__(self) -> None:
        super().__init__(logging.INFO)
        self._logger = rclpy.logging.get_logger(_LIBRARY)

    def emit(self, record: logging.LogRecord) -> None:
        """See :class:`logging.Handler`."""
        message = record.getMessage()
        # One call a line: rclpy tells the callers of its functions apart by their lines
        if record.levelno >= logging.ERROR:
            self._logger.error(message)
        elif record.levelno >= logging.WARNING:
            self._logger.warning(message)
        else:
            self._logger.info(message)


def send_library_logs_to_ros() -> None:
    """From now on; again does nothing."""
    logger = logging.getLogger(_LIBRARY)
    if not any(isinstance(handler, RosLogHandler) for handler in logger.handlers):
        logger.addHandler(RosLogHandler())
        logger.setLevel(logging.INFO)
        logger.propagate = False
