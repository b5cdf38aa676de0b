"""hand_mask_node: depth in, a mask of the hands out."""

from __future__ import annotations

import time
from typing import NoReturn

from sensor_msgs.msg import Image

from hand_mesh_ros.camera import DEFAULT_FOV_DEG
from hand_mesh_ros.errors import ConfigurationError
from hand_mesh_ros.hand_model.files import load_hand_model
from hand_mesh_ros.ros import messages
from hand_mesh_ros.ros.camera_info import camera_for_image
from hand_mesh_ros.ros.frame_node import Dropped, FrameNode, run_frame_node
from hand_mesh_ros.ros.images import depth_from_message, message_from_mask
from hand_mesh_ros.ros.inputs import Frame, Streams
from hand_mesh_ros.ros.outputs import OUTPUT_QOS
from hand_mesh_ros.ros.parameters import (
    MaskNodeParameters,
    declare_parameters,
    read_parameters,
    updated_parameters,
)
from hand_mesh_ros.ros.warm_up import WARM_UP_CAMERA, depth_image
from hand_mesh_ros.segmentation import MaskSettings, hand_masks


class HandMaskNode(FrameNode):
    """Publishes a mask of the hands in the newest depth image, which may be an empty one."""

    def __init__(self) -> None:
        """Declare the parameters. Raises ConfigurationError for values that cannot be."""
        super().__init__('hand_mask', 'masks')
        self._settings = declare_parameters(self, MaskNodeParameters)

    def _load(self) -> None:
        """Compile what is compiled, announce the topic. Raises ConfigurationError for depths of no range."""
        self._settings = read_parameters(self, MaskNodeParameters)
        _mask_settings(self._settings)
        hand_masks(depth_image(load_hand_model(None, 'left')), WARM_UP_CAMERA, MaskSettings())
        self._publisher = self.create_publisher(Image, 'hand_mask', OUTPUT_QOS)

    def _unload(self) -> None:
        """Take the topic down."""
        self.destroy_publisher(self._publisher)

    def _streams(self) -> Streams:
        return Streams('depth', with_boxes=self._settings.use_boxes)

    def _look_at(self, frame: Frame) -> None:
        settings = updated_parameters(self, self._settings)
        depth_m = depth_from_message(frame.picture)
        height, width = depth_m.shape
        info = self._inputs.info_of(frame.header)
        camera, problem = camera_for_image(
            info, width, height, settings.image_is_rectified, DEFAULT_FOV_DEG, must_fit=True
        )
        if problem:  # sizes tell hands from other things, and a guess would tell wrong sizes
            raise Dropped('uncalibrated', f'{problem} (topic {self._inputs.info_topic})')
        boxes = None if frame.boxes is None else messages.boxes_from_message(frame.boxes)
        try:
            mask_settings = _mask_settings(settings)
        except ConfigurationError as error:  # each was checked as it was set, but not one against the other
            raise Dropped('parameters', str(error)) from error
        start = time.monotonic()
        masks = hand_masks(depth_m, camera, mask_settings, boxes)
        inference_ms = 1e3 * (time.monotonic() - start)
        message = message_from_mask(masks.mask)
        message.header = frame.header
        self._publisher.publish(message)
        self._statistics.frame_out(inference_ms, 1e3 * self._age_s(frame.header))


def _mask_settings(parameters: MaskNodeParameters) -> MaskSettings:
    """Raises ConfigurationError for depths that are no range."""
    return MaskSettings(
        min_depth_m=parameters.min_depth_m,
        max_depth_m=parameters.max_depth_m,
        max_hands=parameters.max_hands,
    )


def main(args: list[str] | None = None) -> NoReturn:
    """Run the node until SIGINT or SIGTERM, then end the process."""
    run_frame_node(HandMaskNode, args)


if __name__ == '__main__':
    main()
