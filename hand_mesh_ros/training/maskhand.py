"""Training of MaskHand: tokens from corrupted tokens, image and cues, through the hand model."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from hand_mesh_ros.errors import ConfigurationError
from hand_mesh_ros.hand_model.layer import HandLayer
from hand_mesh_ros.hand_model.model import HandModel
from hand_mesh_ros.networks.configuration import MaskHandConfiguration
from hand_mesh_ros.networks.context import HandContext, image_keypoints
from hand_mesh_ros.networks.maskhand import MaskHand, MaskHandOutput, describe, load_maskhand
from hand_mesh_ros.networks.prediction import camera_translation, predict, weak_projection
from hand_mesh_ros.networks.sampling import random_masks
from hand_mesh_ros.networks.skeleton_graph import HandCues
from hand_mesh_ros.networks.vq_mano import load_vq_mano
from hand_mesh_ros.training.configuration import LoopConfiguration, require
from hand_mesh_ros.training.hand_errors import aligned_errors, posed, thin_hand_layer
from hand_mesh_ros.training.heatmaps import splat
from hand_mesh_ros.training.kept_samples import KeptSamples
from hand_mesh_ros.training.lifter import lifter_size, load_lifter
from hand_mesh_ros.training.looking import LOOK_PX, pretrained_look
from hand_mesh_ros.training.loop import Training
from hand_mesh_ros.training.pretrained import load_hand_head, load_pretrained
from hand_mesh_ros.training.processes import ProcessGroup
from hand_mesh_ros.training.samples import SampleMaker, Samples, batches
from hand_mesh_ros.training.vq_mano import HELD_OUT_SEED

#: Hands that are evaluated at once.
_EVALUATION_BATCH = 64


@dataclass(frozen=True)
class MaskHandLossWeights:
    """Weights of the terms of the loss.

    :raises ConfigurationError: a negative weight.
    """

    tokens: float = 0.1  #: of the cross entropy of masked and wrong tokens, nats
    pose: float = 5.0  #: of the mean difference between entries of rotation matrices
    lifted: float = 50.0  #: as ``joints``, of the pose that both looks' cues suggest
    joints: float = 100.0  #: of the mean distance between keypoints, from the wrist, in metres
    vertices: float = 50.0  #: of the mean distance between vertices, from the wrist, in metres
    projection: float = 5.0  #: of the mean distance between keypoints in the crop, half sides
    landmarks: float = 10.0  #: of the mean difference between landmarks, half sides
    heatmaps: float = 0.3  #: of the cross entropy of the keypoints' places in the image, nats
    image_keypoints: float = 5.0  #: of the mean distance of the heatmaps' means, half sides
    betas: float = 0.02  #: of the mean squared difference
    confidence: float = 0.1  #: of the negative log-likelihood of the errors

    def __post_init__(self) -> None:
        for name in self.__dataclass_fields__:
            require(self, name, at_least=0)


@dataclass(frozen=True)
class CorruptionConfiguration:
    """What is hidden from the network, or wrong.

    :raises ConfigurationError: shares that are none.
    """

    all_masked: float = 0.4  #: share of hands with every token masked; the others follow the cosine
    wrong_tokens: float = 0.5  #: highest share of known tokens that come from the cues instead of the truth
    no_image: float = 0.1  #: share of hands without an image
    no_cues: float = 0.05  #: share of hands without any cue, besides those that lack some

    def __post_init__(self) -> None:
        for name in self.__dataclass_fields__:
            require(self, name, at_least=0, below=1.0001)


@dataclass(frozen=True)
class MaskHandTrainingConfiguration:
    """All of ``config/training/maskhand.yaml``.

    :raises ConfigurationError: numbers out of their range.
    """

    vq_mano: str = 'runs/vq_mano/best.safetensors'  #: of ``hand-mesh train vq-mano``
    #: Of ``hand-mesh train lifter``: one or more
    lifters: tuple[str, ...] = ('runs/lifter/best.safetensors',)
    begin_with: str = ''  #: weights of an earlier run of the same network, to go on with
    network: MaskHandConfiguration = field(default_factory=MaskHandConfiguration)
    pretrained: bool = True  #: begin with a backbone that was trained on photographs
    frozen_stages: int = 7  #: of the backbone, the stem counting as one; they stay as they were
    residuals: bool = True  #: mix errors of a real detector into the cues
    #: Share of the samples for which MediaPipe's landmark network is asked, see ``DetectedHands``
    looked_share: float = 0.5
    #: How much of the pose's losses those samples have. On renders the network makes errors that it does not
    #: make on photographs: from these hands is learned when not to believe it, less what else they are.
    looked_weight: float = 0.2
    #: Samples to be made once and kept in the run's folder, with what the frozen backbone sees; 0: always new
    kept_samples: int = 0
    loop: LoopConfiguration = field(default_factory=LoopConfiguration)
    loss: MaskHandLossWeights = field(default_factory=MaskHandLossWeights)
    corruption: CorruptionConfiguration = field(default_factory=CorruptionConfiguration)
    loss_vertices: int = 64  #: of the hand model that enter the loss, spread over the hand
    workers: int = 1  #: processes that render; 0 for none
    held_out_samples: int = 512

    def __post_init__(self) -> None:
        require(self, 'loss_vertices', at_least=5)
        require(self, 'held_out_samples', at_least=1)
        if self.frozen_stages and not (self.pretrained or self.begin_with):
            raise ConfigurationError(
                'frozen_stages of a backbone that learned nothing: 0, or pretrained: true'
            )
        for name in ('workers', 'frozen_stages', 'kept_samples', 'looked_weight'):
            require(self, name, at_least=0)
        require(self, 'looked_share', at_least=0, below=1.0001)
        if self.looked_share and self.network.image_size != LOOK_PX:
            raise ConfigurationError(
                f'looked_share: 0, or an image_size of {LOOK_PX}, which is what is looked at'
            )
        if self.loop.seed >= HELD_OUT_SEED:
            raise ConfigurationError(f'seed is {self.loop.seed}, must be below {HELD_OUT_SEED}')


def train_maskhand(
    configuration: MaskHandTrainingConfiguration,
    model: HandModel,
    folder: Path,
    group: ProcessGroup,
    resume: bool,
) -> bool:
    """Train in a folder (see ``Training``); returns False where SIGTERM ended it early."""
    objective = MaskHandObjective(configuration, model, group.device, folder / 'samples')
    description = describe(objective.network, {'name': model.name, 'sha256': model.sha256})
    settings = asdict(configuration)
    return Training(objective, configuration.loop, folder, group, description, settings).run(resume)


class MaskHandObjective:
    """What MaskHand is trained on and for: an ``Objective``."""

    criterion = 'keypoint_mm'  #: how a hand is turned counts, too

    def __init__(
        self,
        configuration: MaskHandTrainingConfiguration,
        model: HandModel,
        device: torch.device,
        samples_folder: Path,
    ) -> None:
        """Build the network; ``samples_folder`` is for the samples that are kept."""
        c = configuration
        self._configuration, self._model, self._device, self._samples_folder = (
            c,
            model,
            device,
            samples_folder,
        )
        self.network = build_network(c)
        backbone = self.network.encoder.image_encoder.backbone
        self._backbone_is_frozen = not any(p.requires_grad for p in backbone.parameters())
        if c.kept_samples and not self._backbone_is_frozen:
            raise ConfigurationError('kept_samples: 0, or frozen_stages that are all of the backbone')
        self.companions = nn.Module()
        self._layer = HandLayer(model).to(device)
        self._thin_layer = thin_hand_layer(model, c.loss_vertices).to(device)
        self._maker = self._maker_of(c.loop.seed, c.looked_share)
        numbers = np.arange(c.held_out_samples)
        #: Held-out hands, by the ending of the figures' names
        self._held_out = {'': self._maker_of(HELD_OUT_SEED, looked_share=0)[numbers]}
        if c.looked_share:
            looked = self._maker_of(HELD_OUT_SEED, looked_share=1)[numbers]
            self._held_out['_looked'] = looked.those(looked.in_the_loop)

    def _maker_of(self, seed: int, looked_share: float) -> SampleMaker:
        return SampleMaker(
            self._model,
            seed,
            self._configuration.network.image_size,
            self._configuration.residuals,
            pictures=True,
            look=pretrained_look,
            looked_share=looked_share,
        )

    def batches(self, first_step: int, group: ProcessGroup) -> Iterator[Samples]:
        """Pictures, or what the backbone sees in them, and cues."""
        for samples in self._batches(first_step, group):
            yield samples.to(self._device)

    def _batches(self, first_step: int, group: ProcessGroup) -> Iterator[Samples]:
        c = self._configuration
        size = c.loop.batch_size
        if c.kept_samples == 0:
            return batches(self._maker, first_step, size, group, c.workers)
        if group.is_first:
            self.kept_samples().complete(self._maker, self.network.see, self._device, c.workers)
        group.any(False)  # the others wait for the files
        return self.kept_samples().batches(c.loop.seed, first_step, size, group)

    def kept_samples(self) -> KeptSamples:
        """Those of the run, as far as they have been made."""
        c, n = self._configuration, self._configuration.network
        pictures = (c.loop.seed, n.image_size, c.residuals, c.looked_share)
        begun = hashlib.sha256(Path(c.begin_with).read_bytes()).hexdigest() if c.begin_with else ''
        made_of = (pictures, self._model.sha256, n.backbone, n.strides, c.pretrained, begun)
        return KeptSamples(self._samples_folder, c.kept_samples, str(made_of))

    def losses(self, network: nn.Module, batch: Samples) -> dict[str, Tensor]:
        """The weighted sum ``loss``, and its terms before they are weighted."""
        truth, tokens, masked = self._corrupted(batch)
        cues, present = self._without_some(batch.cues)
        output: MaskHandOutput = network(_images_of(batch), cues, present, tokens, masked)
        with torch.autocast(self._device.type, enabled=False):
            terms = self._terms(output, batch, (truth, tokens, masked))
        weights = asdict(self._configuration.loss)
        loss = sum(
            (weights[name] * term for name, term in terms.items()), torch.zeros((), device=self._device)
        )
        return {'loss': loss, **terms}

    def after_update(self, step: int, group: ProcessGroup) -> None:
        """Nothing to do."""

    def evaluate(self) -> dict[str, float]:
        """Errors on the held-out hands, by ``_EVALUATIONS``; without an ending, of all that is shipped.

        With ``_looked`` before that ending, on hands whose cues are what the landmark network says of them.
        """
        figures: dict[str, float] = {}
        for ending, samples in self._held_out.items():
            for name, (steps, use_image) in _EVALUATIONS.items():
                parts = [
                    self._errors(samples.part(start, start + _EVALUATION_BATCH), steps, use_image)
                    for start in range(0, len(samples.betas), _EVALUATION_BATCH)
                ]
                for figure in parts[0]:
                    figures[figure + ending + name] = (
                        torch.cat([part[figure] for part in parts]).mean().item()
                    )
        return figures

    def _errors(self, samples: Samples, steps: int, use_image: bool) -> dict[str, Tensor]:
        """Figures (B,) of held-out hands."""
        samples = samples.to(self._device)
        hands = predict(
            self.network, self._layer, _images_of(samples), samples.cues, steps=steps, use_image=use_image
        )
        return {
            'aligned_mm': 1000 * aligned_errors(hands.keypoints, samples.keypoints).mean(dim=1),
            'keypoint_mm': 1000 * (hands.keypoints - samples.keypoints).norm(dim=-1).mean(dim=1),
            'landmarks': (hands.landmarks - samples.landmarks[..., :2]).norm(dim=-1).mean(dim=1),
        }

    def _corrupted(self, batch: Samples) -> tuple[Tensor, Tensor, Tensor]:
        """Tokens of the true poses, those that the network is given, and which of them it does not see."""
        c, vq_mano = self._configuration.corruption, self.network.vq_mano
        with torch.no_grad():
            truth = vq_mano.encode(batch.rotations)
            suggested = vq_mano.encode(self.network.lifter(batch.cues).rotations)
        hands, count = truth.shape
        generator = torch.Generator(self._device).manual_seed(int(torch.randint(2**62, ()).item()))

        def draws(*shape: int) -> Tensor:
            return torch.rand(*shape, generator=generator, device=self._device)

        wrong = draws(hands, count) < c.wrong_tokens * draws(hands, 1)
        masked = random_masks(hands, count, generator) | (draws(hands, 1) < c.all_masked)
        return truth, torch.where(wrong, suggested, truth), masked

    def _without_some(self, cues: HandCues) -> tuple[HandCues, Tensor]:
        """Cues, some hands having none, and which hands have their images: all those without cues do."""
        c = self._configuration.corruption
        hands = len(cues.present)
        blind = torch.rand(hands, device=self._device) < c.no_image
        alone = (torch.rand(hands, device=self._device) < c.no_cues) & ~blind
        return cues._replace(present=cues.present & ~alone[:, None]), ~blind

    def _terms(
        self, output: MaskHandOutput, batch: Samples, tokens: tuple[Tensor, Tensor, Tensor]
    ) -> dict[str, Tensor]:
        truth, given, masked = tokens
        context, decoded, rotations = output.context, output.decoded, output.rotations
        wanted = posed(self._thin_layer, batch.rotations, batch.betas)
        made = posed(self._thin_layer, rotations, batch.betas)
        lifted = posed(self._thin_layer, output.lifted, batch.betas).keypoints
        keypoints, vertices = (points - made.keypoints[:, :1] for points in (made.keypoints, made.vertices))
        true_vertices = wanted.vertices - wanted.keypoints[:, :1]
        share = torch.where(batch.in_the_loop, self._configuration.looked_weight, 1.0)
        share = share / share.sum().clamp(min=1e-6)

        def mean(of_hands: Tensor) -> Tensor:
            """Of values (B,...), each hand counting by its share."""
            return (of_hands.flatten(1).mean(dim=1) * share).sum()

        predicted = (masked | (given != truth)).float() * share[:, None]
        entropy = cross_entropy(decoded.logits.transpose(1, 2), truth, reduction='none')
        entropy_2d, distance_2d = self._image_terms(context, batch)
        camera = context.camera.float()
        moved = keypoints + camera_translation(camera, keypoints, batch.focal_share)[:, None]
        seen = moved[..., :2] / moved[..., 2:].clamp(min=1e-2) * batch.focal_share[:, None, None]
        log_variance = self._log_variance(output, keypoints, camera)
        squared_cm = (100 * aligned_errors(keypoints, batch.keypoints)).square()
        return {
            'tokens': (entropy * predicted).sum() / predicted.sum().clamp(min=1e-6),
            'pose': mean((rotations - batch.rotations)[..., :2].abs()),
            'lifted': mean((lifted - lifted[:, :1] - batch.keypoints).norm(dim=-1)),
            'joints': mean((keypoints - batch.keypoints).norm(dim=-1)),
            'vertices': mean((vertices - true_vertices).norm(dim=-1)),
            'projection': mean((seen - batch.landmarks[..., :2]).norm(dim=-1).clamp(max=1)),
            'landmarks': mean((decoded.landmarks - batch.landmarks).abs().clamp(max=1)),
            'heatmaps': entropy_2d,
            'image_keypoints': distance_2d,
            'betas': mean((context.betas.float() - batch.betas).square()),
            # Of a normal distribution in space, whose variance is a third of the squared distance's mean
            'confidence': (log_variance + squared_cm / 3 * (-log_variance).exp()).mean(),
        }

    def _image_terms(self, context: HandContext, batch: Samples) -> tuple[Tensor, Tensor]:
        """Cross entropy and distance of the keypoints in the image; those beyond the crop do not count."""
        height, width = self.network.encoder.image_encoder.shapes[0]
        places = batch.landmarks[..., :2]
        inside = (places.abs() < 1).all(dim=-1).float()
        heatmaps = context.heatmaps.float()
        wanted = splat(places, height, width)
        entropy = -(wanted * heatmaps.log_softmax(dim=-1)).sum(dim=-1)
        distance = (image_keypoints(heatmaps, self.network.encoder.centres) - places).norm(dim=-1)
        count = inside.sum().clamp(min=1)
        return (entropy * inside).sum() / count, (distance * inside).sum() / count

    def _log_variance(self, output: MaskHandOutput, keypoints: Tensor, camera: Tensor) -> Tensor:
        predicted = self.network.confidence(
            output.decoded.logits,
            output.decoded.features.float(),
            output.context,
            weak_projection(camera, keypoints),
            keypoints,
        )
        return predicted.clamp(-6, 6)


def _images_of(samples: Samples) -> Tensor | list[Tensor]:
    """Images (B,3,S,S) float RGB, 0..1, or what the backbone saw in them."""
    if samples.seen:
        return [maps.float() for maps in samples.seen]
    assert samples.images is not None  # the makers here render
    return samples.images.float() / 255


#: What is evaluated: ending of the figures' names, iterations of the sampling, and whether with the image.
_EVALUATIONS = {'': (5, True), '_one_step': (1, True), '_no_image': (1, False)}


def build_network(configuration: MaskHandTrainingConfiguration) -> MaskHand:
    """The network as training begins with it.

    :raises ConfigurationError: an earlier run of another network, or no such pretrained weights.
    :raises FileFormatError: the files of VQ-MANO, of the lifter or of an earlier run are none.
    """
    c = configuration
    if c.begin_with:
        network, _ = load_maskhand(Path(c.begin_with))
        wanted = replace(c.network, lifters=network.configuration.lifters)  # these were their own, then too
        if network.configuration != wanted:
            raise ConfigurationError(f'begin_with is of {network.configuration}, network says {c.network}')
        network.requires_grad_(True)
        network.vq_mano.requires_grad_(False)
        network.lifter.requires_grad_(False)
    else:
        torch.manual_seed(c.loop.seed)
        lifters = [load_lifter(Path(path)) for path in c.lifters]
        sizes = replace(c.network, lifters=tuple(map(lifter_size, lifters)))
        network = MaskHand(sizes, load_vq_mano(Path(c.vq_mano)))
        network.lifter.members = nn.ModuleList(lifters)
        if c.pretrained:
            load_pretrained(network.encoder.image_encoder.backbone, c.network.backbone)
            if network.hand_head is not None:
                load_hand_head(network.hand_head)
    encoder = network.encoder.image_encoder
    encoder.frozen_statistics = c.pretrained or bool(c.begin_with)
    encoder.freeze(c.frozen_stages)
    encoder.train()  # which leaves frozen statistics alone, unlike the mode that modules are built in
    if network.hand_head is not None and c.frozen_stages:
        network.hand_head.requires_grad_(False)
    return network
