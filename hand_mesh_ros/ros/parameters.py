"""ROS parameters as typed records: one table says name, default, meaning and range of each.

A table is a frozen dataclass whose fields are made by :func:`parameter`. The README, the YAML file in
config/ and what ``ros2 param describe`` prints all come from it.
"""

from __future__ import annotations

import copy
import dataclasses
import math
import textwrap
from array import array
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import yaml
from rcl_interfaces.msg import FloatingPointRange, IntegerRange, ParameterDescriptor, SetParametersResult
from rclpy.exceptions import ParameterException
from rclpy.node import Node
from rclpy.parameter import Parameter

from hand_mesh_ros.camera import DEFAULT_FOV_DEG
from hand_mesh_ros.errors import ConfigurationError
from hand_mesh_ros.inference.engine import BACKENDS, PRECISIONS
from hand_mesh_ros.inference.network import DEFAULT_STEPS, MAX_STEPS, MIN_STEPS
from hand_mesh_ros.reconstruction import METHODS, REFINEMENTS
from hand_mesh_ros.segmentation import MaskSettings
from hand_mesh_ros.tracking.tracker import DETECT_EVERY


@dataclass(frozen=True)
class Meaning:
    """What is said of a parameter beside its name and default."""

    description: str
    limits: tuple[float, float] | None = None
    choices: tuple[str, ...] = ()
    read_only: bool = False  #: it can be set when the node starts only
    or_number: bool = False  #: of text: a number will do, which on the command line is an integer to ROS


def parameter(
    default: Any,
    description: str,
    *,
    limits: tuple[float, float] | None = None,
    choices: Sequence[str] = (),
    read_only: bool = False,
    or_number: bool = False,
) -> Any:
    """A field of a table of parameters."""
    meaning = Meaning(description, limits, tuple(choices), read_only, or_number)
    return dataclasses.field(default_factory=lambda: copy.copy(default), metadata={'meaning': meaning})


def _autostart() -> Any:
    return parameter(
        True,
        'Configure and activate the node at start; else it waits for the transitions of its lifecycle.',
        read_only=True,
    )


@dataclass(frozen=True)
class NodeParameters:
    """Parameters of hand_mesh_node."""

    method: str = parameter(
        METHODS[0],
        'How hands are reconstructed: maskhand is a network that looks at images; mask2hand, another, looks '
        'at nothing but masks, on the topic mask; fit is the baseline without one.',
        choices=METHODS,
        read_only=True,
    )
    weights_path: str = parameter(
        '',
        'Of maskhand and mask2hand: weights that hand-mesh train wrote; empty for those of the package.',
        read_only=True,
    )
    sampling_steps: int = parameter(
        DEFAULT_STEPS,
        'Of maskhand: iterations of the sampling of a pose; more take longer.',
        limits=(MIN_STEPS, MAX_STEPS),
        read_only=True,
    )
    backend: str = parameter(
        BACKENDS[0],
        'What runs maskhand and mask2hand; auto takes the first of the others that works on the machine.',
        choices=BACKENDS,
        read_only=True,
    )
    precision: str = parameter(
        PRECISIONS[0],
        "Of TensorRT's engines: half precision is faster, and within 1 mm of single.",
        choices=PRECISIONS,
        read_only=True,
    )
    build_engines: bool = parameter(
        True,
        'Let TensorRT build an engine at start where there is none yet, which takes minutes; else hand-mesh '
        'engine build must have been run.',
        read_only=True,
    )
    threads: int = parameter(
        0,
        'Of maskhand and mask2hand on the CPU; 0 for one each core.',
        limits=(0, 256),
        read_only=True,
    )
    detector: str = parameter(
        'mediapipe',
        'How hands are found: mediapipe looks for them; boxes takes them from the topic hand_boxes, paired '
        'with the image by stamp. mask2hand then looks in the mask only where boxes are, and '
        'takes sides from them.',
        choices=('mediapipe', 'boxes'),
        read_only=True,
    )
    side: str = parameter(
        'right',
        'Of mask2hand without boxes: which hand the masks are of, which no mask tells.',
        choices=('right', 'left'),
        read_only=True,
    )
    refinement: str = parameter(
        REFINEMENTS[0],
        'Of mask2hand without depth: what is done to a hand that does not quite fill its mask. outline bends '
        'it; vertices moves its vertices alone, which its parameters then give no longer.',
        choices=REFINEMENTS,
        read_only=True,
    )
    use_depth: bool = parameter(
        False,
        'Put hands where a depth camera measures them: takes sensor_msgs/Image on depth, registered to the '
        'images or masks, paired by stamp. An image whose depth does not come within 0.2 s goes without.',
        read_only=True,
    )
    hand_model_path: str = parameter(
        '', 'A MANO .pkl or .npz of yours; empty for the open hand model of the package.', read_only=True
    )
    max_hands: int = parameter(
        2,
        'The most hands to look for in one image. While fewer are in view than that, others are searched for '
        'every detect_every images (method fit: in each), which takes about 12 ms.',
        limits=(1, 16),
        read_only=True,
    )
    detect_every: int = parameter(
        DETECT_EVERY,
        'Of maskhand: while hands are followed, others are searched for in one of so many images. New hands '
        'appear so much later. Not with detector boxes.',
        limits=(1, 1000),
        read_only=True,
    )
    min_score: float = parameter(
        0.5,
        'Detections scored lower than this are left out. Not of mask2hand.',
        limits=(0.0, 1.0),
        read_only=True,
    )
    require_depth: bool = parameter(
        False,
        'With use_depth: drop images and masks without usable depth, and leave out hands that it says '
        'nothing of; else these are published at the distance that fits the assumed size of hands.',
    )
    hand_length_m: float = parameter(
        0.0,
        'Length of the hands to expect in metres, wrist to tip of the middle finger, flat; '
        "0 for the hand model's mean.",
        limits=(0.0, 0.3),
        read_only=True,
    )
    image_transport: str = parameter(
        'raw',
        'raw takes sensor_msgs/Image on image; compressed, sensor_msgs/CompressedImage on image/compressed. '
        'Masks and depth are always raw.',
        choices=('raw', 'compressed'),
        read_only=True,
    )
    image_is_rectified: bool = parameter(
        False, 'The image is rectified: it is described by P of camera_info, not by K and D.'
    )
    require_calibration: bool = parameter(
        False, 'Drop images without calibration; else their hands are published as SCALE_UNKNOWN.'
    )
    fov_deg: float = parameter(
        DEFAULT_FOV_DEG,
        'Horizontal field of view in degrees that is assumed where the camera is not calibrated.',
        limits=(1.0, 170.0),
    )
    publish_vertices: bool = parameter(True, 'Fill HandMesh.vertices.')
    publish_tf: bool = parameter(True, 'Publish frames of the wrist and the fingertips on /tf.')
    tf_prefix: str = parameter('', 'Prefix of the frames on /tf, e.g. "front_" for front_right_hand.')
    max_frame_age_s: float = parameter(
        0.0,
        'Drop an image whose stamp is older than this when its turn comes, in seconds; 0 never does.',
        limits=(0.0, 3600.0),
    )
    no_image_warning_s: float = parameter(
        3.0, 'Warn when no image came for this long, in seconds.', limits=(0.1, 3600.0)
    )
    autostart: bool = _autostart()
    smoothing: bool = parameter(
        False,
        'Smooth the hands over time, by the stamps of the images: steadier at rest, in motion late by less '
        'than one image at 30 Hz. Not of hands in boxes that are given.',
    )


@dataclass(frozen=True)
class MaskNodeParameters:
    """Parameters of hand_mask_node."""

    min_depth_m: float = parameter(
        MaskSettings.min_depth_m, 'Nothing nearer than this is a hand, in metres.', limits=(0.05, 10.0)
    )
    max_depth_m: float = parameter(
        MaskSettings.max_depth_m, 'Nothing farther than this is a hand, in metres.', limits=(0.05, 10.0)
    )
    max_hands: int = parameter(
        MaskSettings.max_hands, 'The most hands in one mask, nearest first.', limits=(1, 16)
    )
    use_boxes: bool = parameter(
        False,
        'Look for hands only inside the boxes on the topic hand_boxes, paired with the depth by stamp.',
        read_only=True,
    )
    image_is_rectified: bool = parameter(
        False, 'The depth image is rectified: it is described by P of camera_info, not by K and D.'
    )
    no_image_warning_s: float = parameter(
        3.0, 'Warn when no depth image came for this long, in seconds.', limits=(0.1, 3600.0)
    )
    autostart: bool = _autostart()


@dataclass(frozen=True)
class PlayerParameters:
    """Parameters of hand_mesh_player."""

    source: str = parameter(
        '', 'An image, a video, a folder of both, or the number of a webcam.', read_only=True, or_number=True
    )
    rate_hz: float = parameter(
        0.0,
        "Images a second; 0 for a video's own rate, and 30 for images.",
        limits=(0.0, 1000.0),
        read_only=True,
    )
    loop: bool = parameter(False, 'Start again at the end.', read_only=True)
    frame_id: str = parameter('camera_optical_frame', 'Frame of the images.', read_only=True)
    camera: Sequence[float] = parameter(
        [0.0, 0.0, 0.0, 0.0], 'fx, fy, cx, cy of the images, in pixels; zeros when unknown.', read_only=True
    )
    cameras_file: str = parameter(
        '', 'JSON object: file name -> [fx, fy, cx, cy]; it goes before camera.', read_only=True
    )
    fov_deg: float = parameter(
        0.0,
        'Horizontal field of view in degrees, for camera_info where camera is unknown; '
        '0 publishes an uncalibrated camera_info.',
        limits=(0.0, 170.0),
        read_only=True,
    )
    boxes_file: str = parameter(
        '',
        'JSON object: file name -> list of {"side", "bbox"}, sent on hand_boxes with each image.',
        read_only=True,
    )
    depth: str = parameter(
        '',
        'Folder of depth images with the base names of the images (frame 12 of clip.mp4: clip_000012), of '
        "the images' camera and size: 16-bit PNG in millimetres or .npy in metres; sent on depth.",
        read_only=True,
    )
    masks: str = parameter(
        '', 'Folder of hand masks, named likewise: pictures, bright is hand; sent on mask.', read_only=True
    )
    subscribers: int = parameter(
        1,
        'Wait before the first image until so many subscribe to the images (or to depth or mask, if more '
        'do), and to camera_info.',
        limits=(0, 100),
        read_only=True,
    )
    wait_for_subscribers_s: float = parameter(
        5.0, 'How long to wait for them, in seconds.', limits=(0.0, 3600.0), read_only=True
    )


Table = TypeVar('Table', NodeParameters, MaskNodeParameters, PlayerParameters)


def meaning_of(field: dataclasses.Field[Any]) -> Meaning:
    """What a table says of one of its fields."""
    meaning: Meaning = field.metadata['meaning']
    return meaning


def declare_parameters(node: Node, table: type[Table]) -> Table:
    """Declare the parameters of ``table`` on ``node`` and return what they are set to.

    Later changes that break the table are refused by the node; :func:`updated_parameters` gives them.

    :raises ConfigurationError: a value from a file or the command line that cannot be.
    """
    defaults = table()
    for field in dataclasses.fields(table):
        default = getattr(defaults, field.name)
        try:
            value = node.declare_parameter(field.name, default, _descriptor(field, default)).value
        except ParameterException as error:
            raise ConfigurationError(f'parameter {field.name}: {error}') from error
        problem = _problem(field, value)
        if problem:
            raise ConfigurationError(problem)
    fields = {field.name: field for field in dataclasses.fields(table)}

    def check(changes: list[Parameter]) -> SetParametersResult:
        known = [(fields[change.name], change.value) for change in changes if change.name in fields]
        problems = [problem for field, value in known if (problem := _problem(field, value))]
        return SetParametersResult(successful=not problems, reason='; '.join(problems))

    node.add_on_set_parameters_callback(check)
    return read_parameters(node, table)


def read_parameters(node: Node, table: type[Table]) -> Table:
    """What the parameters of ``table`` are set to now."""
    fields = dataclasses.fields(table)
    return table(**{field.name: _as_meant(field, node.get_parameter(field.name).value) for field in fields})


def updated_parameters(node: Node, before: Table) -> Table:
    """What the parameters are set to now: those that may change are read anew, as each takes its time."""
    changing = [field for field in dataclasses.fields(before) if not meaning_of(field).read_only]
    now = {field.name: _as_meant(field, node.get_parameter(field.name).value) for field in changing}
    return dataclasses.replace(before, **now)


def as_yaml(table: type[Table], node: str = '/**') -> str:
    """A parameter file with all defaults of ``table``, each with a comment, for nodes of that name."""
    lines = [f'{node}:', '  ros__parameters:']
    for name, default, description in _documentation(table):
        lines += textwrap.wrap(description, 100, initial_indent='    # ', subsequent_indent='    # ')
        lines.append(f'    {name}: {default}')
    return '\n'.join(lines) + '\n'


def as_markdown(table: type[Table]) -> str:
    """The parameters of ``table`` as a table for the README."""
    lines = ['| parameter | default | |', '|---|---|---|']
    for name, default, description in _documentation(table):
        lines.append(f'| `{name}` | {default} | {description} |')
    return '\n'.join(lines) + '\n'


def _documentation(table: type[Table]) -> list[tuple[str, str, str]]:
    """Name, default as YAML, and all that is to be said, of each parameter."""
    defaults = table()
    rows: list[tuple[str, str, str]] = []
    for field in dataclasses.fields(table):
        meaning = meaning_of(field)
        notes = [meaning.description]
        if meaning.choices:
            notes.append(f'One of: {", ".join(meaning.choices)}.')
        if meaning.limits:
            notes.append('Range: {:g} to {:g}.'.format(*meaning.limits))
        if meaning.read_only:
            notes.append('Read-only.')
        default = yaml.safe_dump(getattr(defaults, field.name), default_flow_style=True).splitlines()[0]
        rows.append((field.name, default, ' '.join(notes)))
    return rows


def _descriptor(field: dataclasses.Field[Any], default: Any) -> ParameterDescriptor:
    meaning = meaning_of(field)
    descriptor = ParameterDescriptor(
        description=meaning.description,
        read_only=meaning.read_only,
        # Else ROS refuses 10 where 10.0 is meant, or a webcam's number where text is.
        dynamic_typing=isinstance(default, (float, list)) or meaning.or_number,
    )
    if meaning.choices:
        descriptor.additional_constraints = f'one of: {", ".join(meaning.choices)}'
    if meaning.limits:
        low, high = meaning.limits
        if isinstance(default, int):
            descriptor.integer_range = [IntegerRange(from_value=int(low), to_value=int(high), step=1)]
        else:
            descriptor.floating_point_range = [
                FloatingPointRange(from_value=float(low), to_value=float(high))
            ]
    return descriptor


def _as_meant(field: dataclasses.Field[Any], value: Any) -> Any:
    """An integer as the float or the text that is declared; what cannot be that, as it is."""
    default = _default(field)
    if isinstance(default, float) and type(value) is int:
        return float(value)
    if isinstance(default, str) and type(value) is int:
        return str(value)
    if isinstance(default, list) and isinstance(value, (list, array)):
        return [float(number) if type(number) is int else number for number in value]
    return value


def _problem(field: dataclasses.Field[Any], value: Any) -> str:
    """What is wrong with a value; empty if nothing is."""
    meaning, default, value = meaning_of(field), _default(field), _as_meant(field, value)
    numbers = value if isinstance(default, list) else [value]
    kind = type(default[0]) if isinstance(default, list) else type(default)
    if not isinstance(numbers, list) or any(type(number) is not kind for number in numbers):
        return f'parameter {field.name} must be like {default!r}, got {value!r}'
    if meaning.choices and value not in meaning.choices:
        return f'parameter {field.name} must be one of {", ".join(meaning.choices)}, got {value!r}'
    if kind is float and not all(map(math.isfinite, numbers)):
        return f'parameter {field.name} must be finite, got {value}'
    if meaning.limits and not meaning.limits[0] <= value <= meaning.limits[1]:
        return 'parameter {} must be within {:g} to {:g}, got {}'.format(field.name, *meaning.limits, value)
    return ''


def _default(field: dataclasses.Field[Any]) -> Any:
    assert callable(field.default_factory)
    return field.default_factory()
