"""Where networks see things, and what is next to what in a hand."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from hand_mesh_ros.crop_view import RMS_SHARE
from hand_mesh_ros.hand_model.keypoints import KEYPOINT_PARENTS
from hand_mesh_ros.networks.context import image_keypoints, token_joints
from hand_mesh_ros.networks.prediction import camera_translation, weak_projection
from hand_mesh_ros.networks.skeleton_graph import bone_adjacency, joint_distances


def test_graph_follows_the_bones() -> None:
    adjacency = bone_adjacency().numpy()
    bones = {(c, p) for c, p in enumerate(KEYPOINT_PARENTS) if p >= 0}
    connected = {(int(i), int(j)) for i, j in np.argwhere(adjacency > 0) if i > j}
    assert connected == bones
    np.testing.assert_allclose(np.linalg.eigvalsh(adjacency).max(), 1.0, rtol=1e-6)


def test_distances_between_joints_count_bones() -> None:
    distances = joint_distances()
    assert distances[0, 0] == 0 and distances[0, 3] == 3  # wrist to the index finger's last joint
    assert distances[3, 1] == 2 and distances[3, 15] == 6  # along the finger, and over to the thumb
    assert torch.equal(distances, distances.T)


def test_heatmaps_say_where_their_mass_is() -> None:
    centres = torch.cartesian_prod(torch.tensor([-0.5, 0.5]), torch.tensor([-0.75, -0.25, 0.25, 0.75])).flip(
        1
    )
    heatmaps = torch.full((1, 21, 8), -50.0)
    heatmaps[..., 2] = 0.0
    heatmaps[0, 5, 6] = 0.0  # as much one row below
    found = image_keypoints(heatmaps, centres)
    torch.testing.assert_close(found[0, 0], torch.tensor([0.25, -0.5]))
    torch.testing.assert_close(found[0, 5], torch.tensor([0.25, 0.0]))


def test_camera_puts_the_hand_where_it_says() -> None:
    keypoints = torch.randn(3, 21, 3) * 0.05
    camera = torch.tensor([[0.1, 0.2, -0.3], [0.0, 0.0, 0.0], [-0.2, 0.5, 0.1]])
    focal_share = torch.full((3,), 400.0)  # from so far away perspective hardly matters
    placed = keypoints + camera_translation(camera, keypoints, focal_share)[:, None]
    seen = placed[..., :2] / placed[..., 2:] * focal_share[:, None, None]
    torch.testing.assert_close(seen, weak_projection(camera, keypoints), atol=5e-3, rtol=0)
    torch.testing.assert_close(seen.mean(dim=1), camera[:, 1:], atol=5e-3, rtol=0)
    size = (seen[1] - seen[1].mean(dim=0)).square().sum(dim=-1).mean().sqrt()
    assert size.item() == pytest.approx(2 * RMS_SHARE, rel=0.01)


def test_tokens_of_a_joint_lie_together() -> None:
    assert token_joints(64)[:9] == [0, 0, 0, 0, 1, 1, 1, 1, 2]
