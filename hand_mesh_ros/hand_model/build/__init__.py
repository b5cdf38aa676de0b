"""Makes the open hand model: ``python -m hand_mesh_ros.hand_model.build --out FILE``.

Needs the ``build`` extra. Nothing outside of this package imports from it.
"""
