"""The two networks of MediaPipe Hands, each as a call on one square crop.

MediaPipe's own ``solutions.hands`` chains them in one graph, which hides the presence score and
takes no region from outside. Here each network is a graph of its own, built of the same subgraphs
and the model files of the wheel; what lies between them is in ``detection.mediapipe``.
"""

from __future__ import annotations

import contextlib
import os
import sys
import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from hand_mesh_ros.crops import Crop, Square, axes, upright_turn
from hand_mesh_ros.hand import Side

#: Sides in pixels of the networks' input; crops of these sizes are not resampled again.
PALM_CROP_PX = 192
LANDMARK_CROP_PX = 224

_PALM_GRAPH = """
    input_stream: "image"
    input_side_packet: "model_complexity"
    node {
      calculator: "PalmDetectionCpu"
      input_stream: "IMAGE:image"
      input_side_packet: "MODEL_COMPLEXITY:model_complexity"
      output_stream: "DETECTIONS:palms"
    }
"""

_LANDMARK_GRAPH = """
    input_stream: "image"
    input_stream: "roi"
    input_side_packet: "model_complexity"
    node {
      calculator: "HandLandmarkCpu"
      input_stream: "IMAGE:image"
      input_stream: "ROI:roi"
      input_side_packet: "MODEL_COMPLEXITY:model_complexity"
      output_stream: "LANDMARKS:landmarks"
      output_stream: "WORLD_LANDMARKS:world_landmarks"
      output_stream: "HANDEDNESS:handedness"
    }
"""

#: The subgraph does not hand this stream out; its name follows from the node's.
_PRESENCE_STREAM = 'handlandmarkcpu__hand_presence_score'

#: The networks' normalised coordinates run from edge to edge of the crop: 0 is the left edge of its first
#: pixel, whose centre is pixel coordinate 0 here. Measured: landmarks of a crop and of its mirror image
#: add up to 223.5 +- 0.2 of 224 crop pixels, those of palms to 192.3 +- 0.2 of 192; with pixel centres
#: it would be 223 and 191.
_EDGE_TO_CENTER = 0.5

#: Two threads that start graphs must not restore each other's stderr.
_stderr_lock = threading.Lock()


@dataclass(frozen=True)
class Palm:
    """A palm that may belong to a hand."""

    score: float  #: 0..1
    hand_square: Square  #: the upright square around the whole hand, in pixels of the image


@dataclass(frozen=True)
class Reading:
    """What the landmark network says of a square of the image, in the image's pixels and axes."""

    presence: float  #: 0..1: that the square shows a hand
    side: Side  #: the person's own
    side_score: float  #: 0.5..1
    keypoints_px: np.ndarray  #: (21,2) float64 pixels of the image
    keypoints_depth: np.ndarray  #: (21,) float64 pixels of the image, relative to the wrist, away is positive
    landmarks_world: np.ndarray  #: (21,3) float64 metres, x right, y down, z away, origin about the palm


class PalmNetwork:
    """Finds palms in a crop, however it is turned. Not thread-safe."""

    def __init__(self, min_score: float) -> None:
        self._graph = _Graph(
            _PALM_GRAPH,
            outputs=('palms',),
            option={'palmdetectioncpu__TensorsToDetectionsCalculator.min_score_thresh': min_score},
            first_input={'image': np.zeros((PALM_CROP_PX, PALM_CROP_PX, 3), np.uint8)},
        )

    def find(self, crop: Crop) -> list[Palm]:
        """Palms in ``crop`` (``PALM_CROP_PX`` a side), best first."""
        found = self._graph({'image': crop.pixels}).palms or []
        palms = [Palm(float(palm.score[0]), _hand_square(palm.location_data, crop)) for palm in found]
        return sorted(palms, key=lambda palm: -palm.score)

    def close(self) -> None:
        self._graph.close()


class LandmarkNetwork:
    """Reads the landmarks of the hand in a crop. Not thread-safe."""

    def __init__(self) -> None:
        with stderr_dropped():
            from mediapipe.framework.formats.rect_pb2 import NormalizedRect

        self._whole_crop = NormalizedRect(x_center=0.5, y_center=0.5, width=1.0, height=1.0)
        blank = np.zeros((LANDMARK_CROP_PX, LANDMARK_CROP_PX, 3), np.uint8)
        self._graph = _Graph(
            _LANDMARK_GRAPH,
            outputs=('landmarks', 'world_landmarks', 'handedness', _PRESENCE_STREAM),
            # Below 0 nothing is held back: the caller judges the presence score.
            option={'handlandmarkcpu__ThresholdingCalculator.threshold': -1.0},
            first_input={'image': blank, 'roi': self._whole_crop},
        )

    def read(self, crop: Crop) -> Reading:
        """The hand in ``crop`` (``LANDMARK_CROP_PX`` a side), which should show it upright."""
        out = self._graph({'image': crop.pixels, 'roi': self._whole_crop})
        landmarks = np.array([(p.x, p.y, p.z) for p in out.landmarks.landmark]) * LANDMARK_CROP_PX
        world = np.array([(p.x, p.y, p.z) for p in out.world_landmarks.landmark])
        world[:, :2] = world[:, :2] @ axes(crop.turn_rad).T
        handedness = out.handedness.classification[0]
        return Reading(
            presence=float(getattr(out, _PRESENCE_STREAM)),
            # The network was taught on mirrored pictures, where a right hand looks like a left one.
            side='left' if handedness.label == 'Right' else 'right',
            side_score=float(handedness.score),
            keypoints_px=crop.to_image(landmarks[:, :2] - _EDGE_TO_CENTER),
            keypoints_depth=landmarks[:, 2] / crop.scale,
            landmarks_world=world,
        )

    def close(self) -> None:
        self._graph.close()


class _Graph:
    """A running MediaPipe graph, its start-up messages kept off stderr."""

    def __init__(
        self, config: str, outputs: Sequence[str], option: dict[str, float], first_input: dict[str, Any]
    ) -> None:
        with stderr_dropped():
            # Imported here, as it takes seconds and not every user of this package detects with MediaPipe.
            from mediapipe.python.solution_base import SolutionBase

            self._solution = SolutionBase(
                graph_config=config,
                side_inputs={'model_complexity': 1},
                outputs=list(outputs),
                calculator_params=option,
            )
            # Some messages come with the first input only, so it is given here.
            self._solution.process(first_input)

    def __call__(self, inputs: dict[str, Any]) -> Any:
        """Run it once; the outputs are attributes of the result."""
        return self._solution.process(inputs)

    def close(self) -> None:
        self._solution.close()


def _hand_square(location: Any, crop: Crop) -> Square:
    """From a palm to the square of its hand, as MediaPipe's PalmDetectionDetectionToRoi does."""
    box = location.relative_bounding_box
    points = [(point.x, point.y) for point in location.relative_keypoints]
    relative = [points[0], points[2], (box.xmin + box.width / 2.0, box.ymin + box.height / 2.0)]
    wrist, middle_mcp, center = crop.to_image(np.array(relative) * PALM_CROP_PX - _EDGE_TO_CENTER)
    side_px = max(box.width, box.height) * PALM_CROP_PX / crop.scale
    palm = Square((float(center[0]), float(center[1])), side_px, upright_turn(wrist, middle_mcp))
    return palm.shifted(0.0, -0.5).scaled(2.6)


@contextlib.contextmanager
def stderr_dropped() -> Iterator[None]:
    """Drop what the process writes to file descriptor 2.

    MediaPipe's C++ side says what it loads there, whatever GLOG_minloglevel, TF_CPP_MIN_LOG_LEVEL or
    absl.logging are set to. Failures are not lost: they are raised as exceptions.
    """
    with _stderr_lock:
        kept = _copy_of_stderr()
        try:
            if kept is not None:
                with open(os.devnull, 'w') as sink:
                    os.dup2(sink.fileno(), 2)
            yield
        finally:
            if kept is not None:
                os.dup2(kept, 2)
                os.close(kept)


def _copy_of_stderr() -> int | None:
    """A copy of file descriptor 2, flushed; None where the process was started without it, as daemons are."""
    if sys.stderr is None:
        return None
    sys.stderr.flush()
    try:
        return os.dup(2)
    except OSError:
        return None
