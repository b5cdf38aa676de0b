"""hand_mesh_node: images, masks or depth in, hands out."""

from __future__ import annotations

import threading
import time
from contextlib import ExitStack
from pathlib import Path
from typing import NoReturn

import numpy as np
from rclpy.lifecycle import LifecycleState, TransitionCallbackReturn
from sensor_msgs.msg import Image
from std_srvs.srv import Trigger

from hand_mesh_ros.camera import Camera
from hand_mesh_ros.errors import FrameError
from hand_mesh_ros.estimator import Estimate, HandMeshEstimator
from hand_mesh_ros.hand import ScaleSource
from hand_mesh_ros.reconstruction import MASK_METHODS
from hand_mesh_ros.ros import messages
from hand_mesh_ros.ros.camera_info import camera_for_image
from hand_mesh_ros.ros.frame_node import WARNING_PERIOD_S, Dropped, FrameNode, run_frame_node
from hand_mesh_ros.ros.images import depth_from_message, mask_from_message, rgb_from_message
from hand_mesh_ros.ros.inputs import Frame, Streams
from hand_mesh_ros.ros.outputs import Outputs
from hand_mesh_ros.ros.parameters import (
    NodeParameters,
    declare_parameters,
    read_parameters,
    updated_parameters,
)
from hand_mesh_ros.ros.warm_up import warm_up
from hand_mesh_ros.stage_clock import StageClock

#: What a picture had to do without.
_GOOD_DEPTH = 'usable depth'

#: Frames farther apart than this by their stamps are no continuation of each other, seconds.
_STREAM_GAP_S = 1.0

#: Of an estimate's times those that are made up of others.
_SUMS = ('reconstruct', 'total')


class HandMeshNode(FrameNode):
    """Publishes the hands in the newest image, or those of the newest mask."""

    def __init__(self) -> None:
        """Declare the parameters. Raises ConfigurationError for values that cannot be."""
        super().__init__('hand_mesh', 'hands')
        self._settings = declare_parameters(self, NodeParameters)
        self._calibration_problem = ''
        self._last_stamp_s = float('-inf')
        self._is_reset_due = threading.Event()
        self.create_service(Trigger, '~/reset_tracks', self._on_reset_tracks)

    def _load(self) -> None:
        """Load hand model, detector and network, run them once, announce them on ~/info.

        :raises ConfigurationError: a parameter that cannot work.
        :raises FileFormatError: a file of a hand model or of weights that is none.
        """
        self._settings = read_parameters(self, NodeParameters)
        with ExitStack() as closing:
            estimator = closing.enter_context(self._make_estimator())
            warm_up(estimator, self._settings.use_depth)
            info = messages.model_info(
                estimator.models, estimator.method, estimator.backend, estimator.weights_hash
            )
            self._outputs = Outputs(self, estimator.faces, info)
            self._estimator = estimator
            closing.pop_all()  # it stays open

    def _make_estimator(self) -> HandMeshEstimator:
        settings = self._settings
        return HandMeshEstimator(
            settings.method,
            hand_model=_path(settings.hand_model_path),
            weights=_path(settings.weights_path),
            sampling_steps=settings.sampling_steps,
            backend=settings.backend,
            precision=settings.precision,
            build_engines=settings.build_engines,
            threads=settings.threads,
            max_hands=settings.max_hands,
            min_score=settings.min_score,
            detect_every=settings.detect_every,
            hand_length_m=settings.hand_length_m or None,
            streaming=True,
            side='left' if settings.side == 'left' else 'right',
            refinement=settings.refinement,
        )

    def _unload(self) -> None:
        """Release what ``_load`` loaded; not while a frame is in work, which uses it."""
        self._outputs.close()
        self._estimator.close()
        del self._outputs, self._estimator

    def on_activate(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Listen, and work on what comes, which is no continuation of what came before."""
        self._is_reset_due.set()
        return super().on_activate(state)

    def _on_reset_tracks(self, request: Trigger.Request, response: Trigger.Response) -> Trigger.Response:
        """Have all hands forgotten before the next frame, in the worker's thread, which alone may."""
        self._is_reset_due.set()
        response.success = True
        response.message = 'hands get new ids from the next frame on'
        return response

    def _streams(self) -> Streams:
        settings = self._settings
        of_masks = settings.method in MASK_METHODS
        return Streams(
            'mask' if of_masks else 'image',
            compressed=settings.image_transport == 'compressed' and not of_masks,
            with_depth=settings.use_depth,
            with_boxes=settings.detector == 'boxes',
        )

    def _look_at(self, frame: Frame) -> None:
        began = time.perf_counter()
        clock = StageClock('decode', 'message', 'publish')
        settings = updated_parameters(self, self._settings)
        header = frame.header
        age_s = self._age_s(header)
        if 0.0 < settings.max_frame_age_s < age_s:
            raise Dropped('too old', f'{age_s:.3f} s old, max_frame_age_s is {settings.max_frame_age_s}')
        image = mask = None
        with clock('decode'):
            if settings.method in MASK_METHODS:
                seen = mask = mask_from_message(frame.picture)
            else:
                seen = image = rgb_from_message(frame.picture)
        camera = self._camera_of(frame, seen, settings)
        with clock('decode'):
            depth_m = None if frame.depth is None else self._usable_depth(frame.depth, camera)
        metric_only = settings.use_depth and settings.require_depth
        if metric_only and depth_m is None:
            raise Dropped('no depth', 'it has no usable depth, and require_depth is set')
        boxes = None if frame.boxes is None else messages.boxes_from_message(frame.boxes)
        stamp_s = header.stamp.sec + 1e-9 * header.stamp.nanosec
        if self._is_reset_due.is_set() or not 0.0 <= stamp_s - self._last_stamp_s < _STREAM_GAP_S:
            self._is_reset_due.clear()
            self._estimator.forget()
        self._last_stamp_s = stamp_s
        start = time.monotonic()
        self._estimator.smoothing = settings.smoothing
        estimate = self._estimator.estimate(image, camera, boxes, mask=mask, depth_m=depth_m, stamp_s=stamp_s)
        inference_ms = 1e3 * (time.monotonic() - start)
        hands = estimate.hands
        if metric_only:
            hands = tuple(hand for hand in hands if hand.scale_source == ScaleSource.DEPTH)
        self._outputs.publish(header, seen, camera, hands, settings, clock)
        spent_ms = 1e3 * (time.perf_counter() - began)
        stages_ms = _stages_ms(estimate, clock, spent_ms) if estimate.hands else None
        self._statistics.frame_out(inference_ms, 1e3 * self._age_s(header), stages_ms)

    def _camera_of(self, frame: Frame, seen: np.ndarray, settings: NodeParameters) -> Camera:
        height, width = seen.shape[:2]
        info = self._inputs.info_of(frame.header)
        camera, problem = camera_for_image(
            info,
            width,
            height,
            settings.image_is_rectified,
            settings.fov_deg,
            # A detector looks at any picture, but a mask of another size is not of what this camera saw.
            must_fit=settings.method in MASK_METHODS,
        )
        if problem:
            problem = f'{problem} (topic {self._inputs.info_topic})'
        if problem and problem != self._calibration_problem:
            self.get_logger().warning(
                f'positions are not metric: {problem}', throttle_duration_sec=WARNING_PERIOD_S
            )
        self._calibration_problem = problem
        if problem and settings.require_calibration:
            raise Dropped('uncalibrated', f'{problem}, and require_calibration is set')
        return camera

    def _usable_depth(self, message: Image, camera: Camera) -> np.ndarray | None:
        """Depth (H,W) float32 metres; None, and counted, where it is none of this camera's."""
        if not camera.calibrated:  # which is told already
            return None
        try:
            depth_m = depth_from_message(message)
            if depth_m.shape != (camera.height, camera.width):
                raise FrameError(
                    f'it is {message.width}x{message.height}, the camera {camera.width}x{camera.height}: '
                    'it has to be registered to the pictures'
                )
        except FrameError as error:
            self._statistics.lack(_GOOD_DEPTH)
            self.get_logger().warning(
                f'depth image left out: {error}', throttle_duration_sec=WARNING_PERIOD_S
            )
            return None
        return depth_m

    def _own_problems(self) -> list[str]:
        problems = []
        if self._calibration_problem:
            problems.append(f'positions are not metric: {self._calibration_problem}')
        if self._outputs.tf_problem:
            problems.append(self._outputs.tf_problem)
        return problems


def _stages_ms(estimate: Estimate, clock: StageClock, spent_ms: float) -> dict[str, float]:
    """Milliseconds of a frame by stage, ``spent_ms`` being those of all that was done to it."""
    of_estimate = {name: ms for name, ms in estimate.timing_ms.items() if name not in _SUMS}
    own = spent_ms - of_estimate['detect'] - of_estimate.get('network', 0.0)
    return {**clock.ms, **of_estimate, 'own': own}


def _path(parameter: str) -> Path | None:
    return Path(parameter).expanduser() if parameter else None


def main(args: list[str] | None = None) -> NoReturn:
    """Run the node until SIGINT or SIGTERM, then end the process."""
    run_frame_node(HandMeshNode, args)


if __name__ == '__main__':
    main()
