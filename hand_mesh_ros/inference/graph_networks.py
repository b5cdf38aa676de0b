"""The networks on top of what runs their graphs, whatever that is: records in, records out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import fields

import numpy as np

from hand_mesh_ros.cues import Cues
from hand_mesh_ros.inference.graph import GraphRunner
from hand_mesh_ros.inference.network import NetworkOutput, SilhouetteHand
from hand_mesh_ros.inference.weights_file import NetworkFile
from hand_mesh_ros.rendering.masks import hard_silhouettes


class _GraphNetwork:
    """What all networks have in common."""

    def __init__(self, runner: GraphRunner, file: NetworkFile) -> None:
        """Of ``runner``, which runs the graphs of ``file``."""
        self._runner = runner
        self.backend, self.device = runner.backend, runner.device
        self.image_size = file.image_size
        self.hand_model_hash, self.weights_hash = file.hand_model_hash, file.sha256

    def close(self) -> None:
        """Give its memory back; the network cannot be used after."""
        self._runner.close()


def hand_network_inputs(images: np.ndarray, cues: Sequence[Cues]) -> dict[str, np.ndarray]:
    """What the graphs of a :class:`~hand_mesh_ros.inference.network.HandNetwork` take, by name."""
    inputs = {'images': np.ascontiguousarray(images)}
    for field in fields(Cues):
        inputs[field.name] = np.stack([getattr(cue, field.name) for cue in cues])
    return inputs


class GraphHandNetwork(_GraphNetwork):
    """A :class:`~hand_mesh_ros.inference.network.HandNetwork`."""

    def __init__(self, runner: GraphRunner, file: NetworkFile) -> None:
        """See :class:`_GraphNetwork`."""
        super().__init__(runner, file)
        self.finds_hands = file.finds_hands

    def infer(self, images: np.ndarray, cues: Sequence[Cues]) -> tuple[NetworkOutput, ...]:
        """See :class:`~hand_mesh_ros.inference.network.HandNetwork`."""
        told = self._runner.run(hand_network_inputs(images, cues))
        return tuple(
            NetworkOutput(
                global_orient=told['global_orient'][row].astype(np.float64),
                hand_pose=told['hand_pose'][row].astype(np.float64),
                betas=told['betas'][row].astype(np.float64),
                confidence=told['confidence'][row].astype(np.float64),
                presence=float(told['presence'][row]),
                keypoints=told['keypoints_2d'][row].astype(np.float64),
                keypoints_3d=told['keypoints_3d'][row],
                vertices=told['vertices'][row],
                tokens=told['tokens'][row],
            )
            for row in range(len(images))
        )


class GraphSilhouetteNetwork(_GraphNetwork):
    """A :class:`~hand_mesh_ros.inference.network.SilhouetteNetwork`."""

    def infer(self, crops: np.ndarray, half_sides: np.ndarray) -> tuple[tuple[SilhouetteHand, ...], ...]:
        """See :class:`~hand_mesh_ros.inference.network.SilhouetteNetwork`."""
        told = self._runner.run(
            {'crops': np.ascontiguousarray(crops), 'half_sides': np.asarray(half_sides, np.float32)}
        )
        arrays = {name: array.astype(np.float64) for name, array in told.items()}
        return tuple(
            tuple(
                SilhouetteHand(
                    global_orient=arrays['global_orient'][row, k],
                    hand_pose=arrays['hand_pose'][row, k],
                    betas=arrays['betas'][row, k],
                    wrist=arrays['wrist'][row, k],
                    confidence=arrays['confidence'][row, k],
                    score=float(arrays['score'][row, k]),
                )
                for k in np.argsort(-arrays['score'][row], kind='stable')
            )
            for row in range(len(crops))
        )


class GraphSilhouetteRefinement(_GraphNetwork):
    """A :class:`~hand_mesh_ros.inference.network.SilhouetteRefinement`."""

    def refined(
        self, crop: np.ndarray, half_side: float, vertices: np.ndarray, faces: np.ndarray
    ) -> np.ndarray:
        """See :class:`~hand_mesh_ros.inference.network.SilhouetteRefinement`."""
        points, half_sides = np.asarray(vertices, np.float64)[None], np.array([half_side])
        told = self._runner.run(
            {
                'crops': np.ascontiguousarray(crop[None]),
                'drawn': hard_silhouettes(points, faces, half_sides, self.image_size).astype(np.float32),
                'vertices': points.astype(np.float32),
                'half_sides': half_sides.astype(np.float32),
            }
        )
        return points[0] + told['offsets'][0]
