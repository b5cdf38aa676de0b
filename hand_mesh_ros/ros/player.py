"""hand_mesh_player: images, a video or a webcam, published as a camera publishes them; depth too."""

from __future__ import annotations

import dataclasses
import itertools
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import cv2
from rclpy.clock import Clock, ClockType
from rclpy.node import Node
from rclpy.publisher import Publisher
from rclpy.qos import QoSProfile, ReliabilityPolicy
from sensor_msgs.msg import CameraInfo, CompressedImage, Image
from std_msgs.msg import Header

from hand_mesh_ros.camera import Camera
from hand_mesh_ros.depth_files import DEPTH_SUFFIXES, MASK_SUFFIXES, CompanionFiles, read_depth, read_mask
from hand_mesh_ros.detection.boxes import load_boxes
from hand_mesh_ros.errors import CameraError, ConfigurationError, FileFormatError, HandMeshError
from hand_mesh_ros.keyed_files import load_cameras
from hand_mesh_ros.msg import HandBoxArray
from hand_mesh_ros.ros.camera_info import info_from_camera
from hand_mesh_ros.ros.images import jpeg_from_rgb, message_from_depth, message_from_mask, message_from_rgb
from hand_mesh_ros.ros.messages import message_from_boxes
from hand_mesh_ros.ros.parameters import PlayerParameters, declare_parameters
from hand_mesh_ros.ros.running import run_program, spin_until
from hand_mesh_ros.sources import Frame, frame_rate, is_video, list_sources, read_frames

_QOS = QoSProfile(depth=5, reliability=ReliabilityPolicy.RELIABLE)
_IMAGE_RATE_HZ = 30.0
#: The last image is still under way when it was published.
_LINGER_S = 0.5


class PlayerNode(Node):
    """Publishes the images of a source at a rate, stamped with the time they go out.

    ``image/compressed`` (JPEG), ``image``, ``depth`` and ``mask`` are filled only while somebody subscribes,
    as image_transport does.
    """

    def __init__(self) -> None:
        """Declare the parameters and open the source.

        :raises ConfigurationError: parameters that cannot work, or a source that is none.
        """
        super().__init__('hand_mesh_player')
        self._settings = declare_parameters(self, PlayerParameters)
        settings = self._settings
        self._cameras = load_cameras(_path(settings.cameras_file)) if settings.cameras_file else None
        self._boxes = load_boxes(_path(settings.boxes_file)) if settings.boxes_file else None
        if len(settings.camera) != 4:
            raise ConfigurationError(f'parameter camera is fx, fy, cx, cy, got {settings.camera}')
        try:
            self._usual_camera(640, 480)  # of any size: now, not at the first image, is the time to complain
        except CameraError as error:
            raise ConfigurationError(f'parameter camera or fov_deg cannot be: {error}') from error
        if not settings.source:
            raise ConfigurationError('parameter source is empty: an image, a folder, a video or a webcam')
        self._files = [] if settings.source.isdecimal() else list_sources([_path(settings.source)])
        self._depth = self._companions(settings.depth, DEPTH_SUFFIXES)
        self._masks = self._companions(settings.masks, MASK_SUFFIXES)
        self._frames = self._all_frames()
        self._image_publisher = self.create_publisher(Image, 'image', _QOS)
        self._jpeg_publisher = self.create_publisher(CompressedImage, 'image/compressed', _QOS)
        self._info_publisher = self.create_publisher(CameraInfo, 'camera_info', _QOS)
        self._boxes_publisher = (
            self.create_publisher(HandBoxArray, 'hand_boxes', _QOS) if self._boxes else None
        )
        self._depth_publisher = self.create_publisher(Image, 'depth', _QOS) if self._depth else None
        self._mask_publisher = self.create_publisher(Image, 'mask', _QOS) if self._masks else None
        self.sent = 0  #: images published so far
        self.ended = False  #: the source has no more
        self.error: HandMeshError | None = None  #: why it ended, if it should not have

    @property
    def patience_s(self) -> float:
        """How long to wait for subscribers, in seconds."""
        return self._settings.wait_for_subscribers_s

    @property
    def is_watched(self) -> bool:
        """Whether as many subscribe as are waited for."""
        colour = sum(
            publisher.get_subscription_count() for publisher in (self._image_publisher, self._jpeg_publisher)
        )
        others = [_subscriptions(publisher) for publisher in (self._depth_publisher, self._mask_publisher)]
        fewest = min(max(colour, *others), self._info_publisher.get_subscription_count())
        return fewest >= self._settings.subscribers

    def start(self) -> None:
        """Publish from now on, whenever the node is spun."""
        rate_hz = self._settings.rate_hz or self._own_rate_hz()
        self.create_timer(1.0 / rate_hz, self._tick, clock=Clock(clock_type=ClockType.STEADY_TIME))
        self.get_logger().info(f'playing {self._settings.source} at {rate_hz:g} Hz')

    def _tick(self) -> None:
        if self.ended:
            return
        try:
            frame = next(self._frames, None)
            if frame is None:
                self.ended = True
            else:
                self._publish(frame)
        except HandMeshError as error:
            self.error = error  # raised in a callback it would be lost
            self.ended = True

    def _publish(self, frame: Frame) -> None:
        header = Header(stamp=self.get_clock().now().to_msg(), frame_id=self._settings.frame_id)
        height, width = frame.image.shape[:2]
        info = info_from_camera(self._camera_of(frame.source, width, height))
        info.header = header
        self._info_publisher.publish(info)
        if self._boxes_publisher is not None and self._boxes is not None:
            self._boxes_publisher.publish(message_from_boxes(header, self._boxes.get(frame.source) or []))
        if self._image_publisher.get_subscription_count() > 0:
            image = message_from_rgb(frame.image)
            image.header = header
            self._image_publisher.publish(image)
        if self._jpeg_publisher.get_subscription_count() > 0:
            jpeg = jpeg_from_rgb(frame.image)
            jpeg.header = header
            self._jpeg_publisher.publish(jpeg)
        self._publish_companion(frame, header, self._depth, self._depth_publisher, _depth_message)
        self._publish_companion(frame, header, self._masks, self._mask_publisher, _mask_message)
        self.sent += 1

    def _publish_companion(
        self,
        frame: Frame,
        header: Header,
        files: CompanionFiles | None,
        publisher: Publisher | None,
        read_message: Callable[[Path], Image],
    ) -> None:
        if files is None or publisher is None or not _subscriptions(publisher):
            return
        file = files.of(frame.source, frame.index)
        message = read_message(file)
        height, width = frame.image.shape[:2]
        if (message.width, message.height) != (width, height):
            raise FileFormatError(
                f'{file}: is {message.width}x{message.height}, must be {width}x{height} as {frame.source}'
            )
        message.header = header
        publisher.publish(message)

    def _companions(self, folder: str, suffixes: Sequence[str]) -> CompanionFiles | None:
        """The files of a folder that a parameter names, once each image is known to have one."""
        if not folder:
            return None
        if not self._files:
            raise ConfigurationError('parameters depth and masks need images or a video, not a webcam')
        files = CompanionFiles(_path(folder), suffixes)
        for file in self._files:
            files.of(file)  # now, not in the middle of the stream, is the time to complain
        return files

    def _camera_of(self, file: Path, width: int, height: int) -> Camera:
        numbers = self._cameras.get(file) if self._cameras is not None else None
        return self._usual_camera(width, height) if numbers is None else Camera(width, height, *numbers)

    def _usual_camera(self, width: int, height: int) -> Camera:
        """The camera of images that cameras_file does not name."""
        settings = self._settings
        if any(settings.camera):
            fx, fy, cx, cy = settings.camera
            return Camera(width, height, fx, fy, cx, cy)
        if settings.fov_deg > 0.0:
            return dataclasses.replace(Camera.from_fov(width, height, settings.fov_deg), calibrated=True)
        return Camera.from_fov(width, height)

    def _all_frames(self) -> Iterator[Frame]:
        for _ in itertools.count() if self._settings.loop else range(1):
            if self._files:
                for file in self._files:
                    yield from read_frames(file)
            else:
                yield from _webcam_frames(int(self._settings.source))

    def _own_rate_hz(self) -> float:
        return frame_rate(self._files[0]) if self._files and is_video(self._files[0]) else _IMAGE_RATE_HZ


def _path(name: str) -> Path:
    return Path(name).expanduser()  # no shell does it behind a parameter's :=


def _depth_message(file: Path) -> Image:
    return message_from_depth(read_depth(file))


def _mask_message(file: Path) -> Image:
    return message_from_mask(read_mask(file))


def _subscriptions(publisher: Publisher | None) -> int:
    return publisher.get_subscription_count() if publisher is not None else 0


def _webcam_frames(number: int) -> Iterator[Frame]:
    webcam = cv2.VideoCapture(number)
    try:
        if not webcam.isOpened():
            raise ConfigurationError(
                f'webcam {number} cannot be opened; is /dev/video{number} there and readable?'
            )
        start = time.monotonic()
        for index in itertools.count():
            there, image = webcam.read()
            if not there:
                return
            stamp = time.monotonic() - start
            yield Frame(Path(f'webcam {number}'), index, stamp, cv2.cvtColor(image, cv2.COLOR_BGR2RGB))
    finally:
        webcam.release()


def _work(node: PlayerNode, stopping: threading.Event) -> None:
    deadline = time.monotonic() + node.patience_s
    spin_until(node, lambda: stopping.is_set() or node.is_watched or time.monotonic() > deadline)
    node.start()
    spin_until(node, lambda: stopping.is_set() or node.ended)
    stopping.wait(_LINGER_S)
    node.get_logger().info(f'{node.sent} images published')
    if node.error:
        raise node.error


def main(args: list[str] | None = None) -> int:
    """Run the player until its source ends, or SIGINT or SIGTERM. Returns the exit code."""
    return run_program(PlayerNode, _work, args)


if __name__ == '__main__':
    sys.exit(main())
