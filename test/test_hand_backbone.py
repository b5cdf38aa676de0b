"""MediaPipe's hand landmark network as a backbone and a head: that they say what MediaPipe says."""

from __future__ import annotations

import importlib.util
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from hand_mesh_ros.crops import Crop
from hand_mesh_ros.cues import normalised_world
from hand_mesh_ros.datasets.synthetic import SyntheticHands
from hand_mesh_ros.detection.mediapipe_networks import LANDMARK_CROP_PX, LandmarkNetwork, Reading
from hand_mesh_ros.errors import ConfigurationError, FileFormatError
from hand_mesh_ros.networks.encoder import import_timm
from hand_mesh_ros.networks.hand_backbone import HAND_BACKBONE, HandHead, HandLook, register
from hand_mesh_ros.training import pretrained
from hand_mesh_ros.training.pretrained import load_hand_head, load_pretrained

SIZE = LANDMARK_CROP_PX


@pytest.fixture(scope='module')
def timm():
    timm = import_timm()
    register(timm)
    return timm


@pytest.fixture(scope='module')
def pictures() -> np.ndarray:
    """Crops (4,S,S,3) uint8 RGB of right hands, two of them mirrored."""
    hands = SyntheticHands(3, SIZE)
    images = [hands.sample(i).image for i in (6, 7, 14, 23)]
    return np.stack([*images[:2], *(image[:, ::-1] for image in images[2:])])


@pytest.fixture(scope='module')
def readings(pictures) -> list[Reading]:
    """What MediaPipe's own graph says of them, in pixels of the crops."""
    network = LandmarkNetwork()
    found = [network.read(Crop(np.ascontiguousarray(picture), np.eye(3))) for picture in pictures]
    network.close()
    return found


@pytest.fixture(scope='module')
def halves(timm) -> tuple[nn.Module, HandHead]:
    backbone, head = timm.create_model(HAND_BACKBONE, features_only=True), HandHead()
    load_pretrained(backbone, HAND_BACKBONE)
    load_hand_head(head)
    return backbone.eval(), head.eval()


@pytest.fixture(scope='module')
def look(halves, pictures) -> HandLook:
    return _look(halves, _images(pictures))


def test_timm_knows_the_backbone(timm):
    register(timm)  # again does nothing, not even warn
    backbone = timm.create_model(HAND_BACKBONE, features_only=True, out_indices=(1, 3, 4))
    assert backbone.feature_info.reduction() == [4, 16, 32]
    assert backbone.feature_info.channels() == [24, 112, 192]
    everything = timm.create_model(HAND_BACKBONE, features_only=True)
    assert everything.feature_info.reduction() == [2, 4, 8, 16, 32]
    assert everything.feature_info.channels() == [16, 24, 40, 112, 192]
    shapes = [tuple(found.shape[1:]) for found in backbone.eval()(torch.rand(2, 3, SIZE, SIZE))]
    assert shapes == [(24, 56, 56), (112, 14, 14), (192, 7, 7)]
    expected = timm.get_pretrained_cfg(HAND_BACKBONE)
    assert expected.mean == (0.0, 0.0, 0.0) and expected.std == (1.0, 1.0, 1.0)


def test_it_says_what_mediapipe_says(look, readings):
    pixels = (look.keypoints.numpy() + 1) * (SIZE / 2) - 0.5
    np.testing.assert_allclose(pixels, [r.keypoints_px for r in readings], atol=0.01)
    depth = [r.keypoints_depth - r.keypoints_depth[0] for r in readings]
    np.testing.assert_allclose(look.relative_depth.numpy() * (SIZE / 2), depth, atol=0.01)
    world = normalised_world(np.stack([r.landmarks_world for r in readings]))
    np.testing.assert_allclose(look.world.numpy(), world, atol=1e-3)
    np.testing.assert_allclose(look.presence.sigmoid().numpy(), [r.presence for r in readings], atol=1e-3)
    right = [r.side_score if r.side == 'right' else 1 - r.side_score for r in readings]
    np.testing.assert_allclose(look.handedness.sigmoid().numpy(), right, atol=1e-3)
    assert [r.side for r in readings] == ['right', 'right', 'left', 'left']
    assert look.features.shape == (4, 1152)


def test_hands_do_not_depend_on_others_in_the_batch(halves, look, pictures):
    for i, image in enumerate(_images(pictures)):
        for together, alone in zip(look, _look(halves, image[None]), strict=True):
            torch.testing.assert_close(together[i : i + 1], alone, atol=1e-4, rtol=1e-4)


def test_places_stay_fine_under_autocast(halves, pictures):
    backbone, head = halves
    with torch.no_grad():
        last_map = backbone(_images(pictures))[-1]
        with torch.autocast('cpu', torch.bfloat16):
            found = head(last_map)
    assert {part.dtype for part in found} == {torch.float32}
    pixels = found.keypoints * (SIZE / 2)
    assert (pixels - pixels.bfloat16()).abs().max() > 0  # not rounded


def test_weights_of_other_networks_are_refused(timm, tmp_path, monkeypatch):
    with pytest.raises(ConfigurationError, match='no pretrained weights are known of resnet18'):
        load_pretrained(nn.Linear(3, 3), 'resnet18')
    for name in (HAND_BACKBONE, 'tf_efficientnet_lite0'):
        with pytest.raises(FileFormatError, match='not those of'):
            load_pretrained(nn.Linear(3, 3), name)
    other = timm.create_model('tf_efficientnet_lite0', features_only=True)
    with pytest.raises(FileFormatError, match='not those of'):
        load_pretrained(other, HAND_BACKBONE)

    lite = pretrained._hand_file().with_name('hand_landmark_lite.tflite')
    file = Path(shutil.copy(lite, tmp_path))
    monkeypatch.setattr(pretrained, '_hand_file', lambda: file)
    with pytest.raises(FileFormatError, match='not those of the head'):
        load_hand_head(HandHead())
    file.write_bytes(b'')
    with pytest.raises(FileFormatError, match='install mediapipe again'):
        load_hand_head(HandHead())


def test_a_missing_package_is_named(monkeypatch):
    find_spec = importlib.util.find_spec
    monkeypatch.setattr(pretrained, 'find_spec', lambda n: None if n == 'mediapipe' else find_spec(n))
    with pytest.raises(ConfigurationError, match='pip install .mediapipe'):
        load_hand_head(HandHead())


def _images(pictures: np.ndarray) -> Tensor:
    return torch.from_numpy(pictures).permute(0, 3, 1, 2).float() / 255


def _look(halves: tuple[nn.Module, HandHead], images: Tensor) -> HandLook:
    backbone, head = halves
    with torch.no_grad():
        return head(backbone(images)[-1])
