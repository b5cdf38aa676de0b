"""Human hands as full meshes from camera images: a ROS 2 node, and a Python library without ROS.

The library's public face is below, imported when first asked for; the node is in ``hand_mesh_ros.ros``.
"""

from __future__ import annotations

from importlib import import_module
from pkgutil import extend_path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from hand_mesh_ros.camera import Camera
    from hand_mesh_ros.estimator import Estimate, HandMeshEstimator
    from hand_mesh_ros.hand import Hand, ScaleSource

__version__ = '0.1.0'
__all__ = ['Camera', 'Estimate', 'Hand', 'HandMeshEstimator', 'ScaleSource']

# The generated half of this package, hand_mesh_ros.msg, is installed elsewhere (site-packages, or
# colcon's install folder): a checkout that comes first on sys.path must find it there.
__path__ = extend_path(__path__, __name__)

_HOME = {
    'Camera': 'camera',
    'Estimate': 'estimator',
    'Hand': 'hand',
    'HandMeshEstimator': 'estimator',
    'ScaleSource': 'hand',
}


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f'module {__name__!r} has no attribute {name!r}')
    return getattr(import_module(f'{__name__}.{_HOME[name]}'), name)
