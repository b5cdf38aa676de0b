"""From detections to hands, by several methods."""

from __future__ import annotations

from pathlib import Path

from hand_mesh_ros.errors import ConfigurationError
from hand_mesh_ros.hand import Side
from hand_mesh_ros.hand_model.model import HandModel
from hand_mesh_ros.inference.engine import EngineSettings
from hand_mesh_ros.inference.loading import (
    load_hand_network,
    load_silhouette_network,
    load_silhouette_refinement,
)
from hand_mesh_ros.inference.network import DEFAULT_STEPS
from hand_mesh_ros.reconstruction.assembly import Reconstructor, assemble_hand
from hand_mesh_ros.reconstruction.fit import FitReconstructor
from hand_mesh_ros.reconstruction.mask2hand import Mask2HandReconstructor
from hand_mesh_ros.reconstruction.maskhand import MaskHandReconstructor

__all__ = [
    'IMAGE_METHODS',
    'MASK_METHODS',
    'METHODS',
    'REFINEMENTS',
    'Reconstructor',
    'assemble_hand',
    'make_reconstructor',
]

#: Names of the methods: first the default one.
METHODS = ('maskhand', 'mask2hand', 'fit')

#: Those that look at masks of hands, and those that look at colour images, best first.
MASK_METHODS = ('mask2hand',)
IMAGE_METHODS = ('maskhand', 'fit')

#: What ``mask2hand`` does to a hand that does not quite fill its mask: bend it, so that its parameters still
#: give its vertices; move the vertices alone, as the paper's RefineNet does; nothing.
REFINEMENTS = ('outline', 'vertices', 'none')


def make_reconstructor(
    method: str,
    models: dict[Side, HandModel],
    hand_length_m: float | None = None,
    *,
    weights: Path | None = None,
    sampling_steps: int = DEFAULT_STEPS,
    engine: EngineSettings | None = None,
    use_image: bool = True,
    streaming: bool = False,
    refinement: str = REFINEMENTS[0],
    refinement_weights: Path | None = None,
) -> Reconstructor:
    """The reconstructor of a name in METHODS.

    :param hand_length_m: wrist to tip of the middle finger, hand flat; None for the model's mean hand.
    :param weights: of ``maskhand`` and ``mask2hand``; None for those of the package.
    :param sampling_steps: of ``maskhand``, iterations of the sampling, 1 to 16.
    :param engine: how the networks are run; None lets the engine be chosen.
    :param use_image: of ``maskhand``; False lets the network do with what the detector says.
    :param streaming: of ``mask2hand``: what is looked at are frames of one stream.
    :param refinement: of ``mask2hand``: a name in REFINEMENTS.
    :param refinement_weights: of its ``vertices``; None for those of the package.
    :raises ConfigurationError: a setting that cannot work, or a method whose requirements are missing.
    :raises FileFormatError: a file of weights that is none.
    """
    if method not in METHODS:
        raise ConfigurationError(f'method must be one of {", ".join(METHODS)}, got {method!r}')
    if refinement not in REFINEMENTS:
        raise ConfigurationError(f'refinement must be one of {", ".join(REFINEMENTS)}, got {refinement!r}')
    if method == 'fit':
        return FitReconstructor(models, hand_length_m)
    if method == 'mask2hand':
        silhouettes = load_silhouette_network(weights, engine)
        moves_vertices = refinement == 'vertices'
        return Mask2HandReconstructor(
            models,
            silhouettes,
            hand_length_m,
            streaming,
            refine=refinement == 'outline',
            refinement=load_silhouette_refinement(refinement_weights, engine) if moves_vertices else None,
        )
    network = load_hand_network(weights, sampling_steps, engine, use_image)
    return MaskHandReconstructor(models, network, hand_length_m)
