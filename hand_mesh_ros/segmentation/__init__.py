"""Hand masks from one depth image: what reaches out of the scene, cut off at its wrist."""

from hand_mesh_ros.segmentation.masks import HandMasks, HandRegion, MaskSettings, hand_masks

__all__ = ['HandMasks', 'HandRegion', 'MaskSettings', 'hand_masks']
