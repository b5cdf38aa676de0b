"""Where the package's installed files are: message definitions, config/, launch/, rviz/."""

from __future__ import annotations

import os
import sys
from pathlib import Path

from ament_index_python.packages import get_package_share_directory


def share_directory() -> Path:
    """The package's share folder, of a ROS installation or of the virtual environment."""
    os.environ.setdefault('AMENT_PREFIX_PATH', sys.prefix)  # nobody sources a setup file of the latter
    return Path(get_package_share_directory('hand_mesh_ros'))
