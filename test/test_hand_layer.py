"""The PyTorch hand layer: the NumPy model's numbers, right gradients, and fit for export."""

from __future__ import annotations

import pickle
import warnings
from pathlib import Path

import numpy as np
import pytest
import smplx
import torch

from hand_mesh_ros.hand_model.files import OPEN_HAND_PATH, load_hand_model
from hand_mesh_ros.hand_model.layer import HandLayer, HandLayerOutput, rotation_matrices
from hand_mesh_ros.hand_model.model import HandModel

PARAMETERS = ('global_orient', 'hand_pose', 'betas', 'transl')


@pytest.fixture(scope='module', params=['right', 'left'])
def model(request: pytest.FixtureRequest) -> HandModel:
    return load_hand_model(side=request.param)


def random_batch(size: int, dtype: torch.dtype, seed: int = 0) -> dict[str, torch.Tensor]:
    rng = np.random.default_rng(seed)
    scales = {'global_orient': (3, 1.5), 'hand_pose': (45, 0.4), 'betas': (10, 1.0), 'transl': (3, 1.0)}
    return {
        name: torch.tensor(rng.normal(size=(size, n)) * scale, dtype=dtype)
        for name, (n, scale) in scales.items()
    }


def test_the_numbers_are_those_of_the_numpy_model(model: HandModel) -> None:
    batch = random_batch(16, torch.float64)
    output = HandLayer(model, torch.float64)(**batch)
    for index in range(16):
        posed = model.posed(**{name: values[index].numpy() for name, values in batch.items()})
        np.testing.assert_allclose(output.vertices[index], posed.vertices, rtol=0, atol=1e-12)
        np.testing.assert_allclose(output.joints[index], posed.joints, rtol=0, atol=1e-12)
        np.testing.assert_allclose(output.keypoints[index], posed.keypoints, rtol=0, atol=1e-12)


def test_float32_is_good_to_a_micrometre(model: HandModel) -> None:
    batch = random_batch(64, torch.float64, seed=1)
    batch['transl'] *= 0.1
    exact = HandLayer(model, torch.float64)(**batch)
    single = HandLayer(model)(**{name: values.float() for name, values in batch.items()})
    for expected, got in zip(exact, single, strict=True):
        assert got.dtype == torch.float32
        np.testing.assert_allclose(got, expected, rtol=0, atol=1e-6)


def test_vertices_and_joints_are_those_of_smplx(tmp_path: Path) -> None:
    (tmp_path / 'MANO_RIGHT.npz').symlink_to(OPEN_HAND_PATH)
    path = str(tmp_path / 'MANO_RIGHT.npz')
    reference = smplx.create(path, model_type='mano', ext='npz', use_pca=False, flat_hand_mean=True)
    batch = random_batch(32, torch.float32, seed=2)
    expected, got = reference(**batch), HandLayer(load_hand_model())(**batch)
    np.testing.assert_allclose(got.vertices, expected.vertices.detach(), rtol=0, atol=1e-6)
    np.testing.assert_allclose(got.joints, expected.joints.detach(), rtol=0, atol=1e-6)


def test_rotation_matrices_do_as_well_as_axis_angles(model: HandModel) -> None:
    layer = HandLayer(model, torch.float64)
    batch = random_batch(4, torch.float64, seed=3)
    vectors = torch.cat([batch['global_orient'], batch['hand_pose']], dim=1).reshape(4, 16, 3)
    by_rotations = layer.from_rotations(rotation_matrices(vectors), batch['betas'], batch['transl'])
    for expected, got in zip(layer(**batch), by_rotations, strict=True):
        np.testing.assert_array_equal(got, expected)


def test_gradients_are_the_slopes(model: HandModel) -> None:
    layer = HandLayer(model, torch.float64)
    chosen = torch.randperm(len(model.v_template), generator=torch.Generator().manual_seed(0))[:8]

    def some_points(*parameters: torch.Tensor) -> torch.Tensor:
        output = layer(*parameters)
        return torch.cat([output.vertices[:, chosen], output.joints, output.keypoints], dim=1)

    inputs = tuple(values.requires_grad_() for values in random_batch(2, torch.float64, seed=4).values())
    assert torch.autograd.gradcheck(some_points, inputs, eps=1e-6, atol=1e-7, rtol=1e-6, fast_mode=True)


@pytest.mark.parametrize('angle', [0.0, 1e-30, 1e-8, 0.0316, 0.0317])
def test_gradients_hold_at_and_about_zero_pose(angle: float) -> None:
    vectors = torch.full((3, 3), angle, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(rotation_matrices, (vectors,), eps=1e-6, atol=1e-8, rtol=1e-6)


@pytest.mark.parametrize('dtype', [torch.float32, torch.float64])
def test_gradients_are_finite_at_zero_pose(model: HandModel, dtype: torch.dtype) -> None:
    inputs = {
        name: torch.zeros_like(values, requires_grad=True) for name, values in random_batch(2, dtype).items()
    }
    output = HandLayer(model, dtype)(**inputs)
    (output.vertices.square().sum() + output.keypoints.square().sum()).backward()
    for name in PARAMETERS:
        gradient = inputs[name].grad
        assert gradient is not None
        assert torch.isfinite(gradient).all()
        assert gradient.abs().max() > 0


def test_it_exports_for_any_batch_size() -> None:
    layer = HandLayer(load_hand_model()).eval()
    batch = tuple(random_batch(3, torch.float32, seed=5).values())
    any_size = torch.export.Dim('batch', min=1, max=1024)
    exported = torch.export.export(layer, batch, dynamic_shapes=({0: any_size},) * 4)
    other = tuple(random_batch(7, torch.float32, seed=6).values())
    output = exported.module()(*other)
    assert isinstance(output, HandLayerOutput)
    for expected, got in zip(layer(*other), output, strict=True):
        np.testing.assert_allclose(got, expected, rtol=0, atol=1e-7)


def test_its_memory_is_not_that_of_the_model(tmp_path: Path) -> None:
    with np.load(OPEN_HAND_PATH) as file:
        fields = {key: file[key] for key in file.files if file[key].dtype.kind in 'fiu'}
    path = tmp_path / 'hand.pkl'
    path.write_bytes(pickle.dumps(fields | {'v_template': fields['v_template'].astype(np.float64)}, 4))
    model = load_hand_model(path)
    before = model.v_template.copy()
    with warnings.catch_warnings():
        warnings.simplefilter('error')  # PyTorch warns of arrays that must not be written to
        layer = HandLayer(model, torch.float64)
    layer.v_template.zero_()
    np.testing.assert_array_equal(model.v_template, before)


def test_a_checkpoint_holds_nothing_of_the_model(model: HandModel) -> None:
    layer = HandLayer(model)
    assert not layer.state_dict()
    assert not list(layer.parameters())
    assert layer.to(torch.float64).v_template.dtype == torch.float64
    assert layer.keypoint_joints.dtype == torch.int64
