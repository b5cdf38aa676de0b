"""VQ-MANO: rotations in six numbers, the quantiser, the codebook's averages, and learning at all."""

import numpy as np
import pytest
import torch
from scipy.spatial.transform import Rotation

from hand_mesh_ros.datasets.pose_sampler import PoseSampler
from hand_mesh_ros.errors import ConfigurationError, FileFormatError
from hand_mesh_ros.hand_model.files import load_hand_model
from hand_mesh_ros.hand_model.layer import HandLayer
from hand_mesh_ros.networks.rotations import axis_angles, matrices_from_six, six_numbers
from hand_mesh_ros.networks.vq_mano import VqMano, VqManoConfiguration, load_vq_mano
from hand_mesh_ros.networks.weights import save_weights
from hand_mesh_ros.training.configuration import LoopConfiguration
from hand_mesh_ros.training.processes import ProcessGroup
from hand_mesh_ros.training.vq_mano import (
    CodebookAverages,
    CodebookConfiguration,
    VqManoObjective,
    VqManoTrainingConfiguration,
    describe,
    picture_turns,
    thin_hand_layer,
)

SMALL = VqManoConfiguration(tokens=32, codebook_size=64, code_dim=8, width=24, depth=2)
ALONE = ProcessGroup(0, 1, torch.device('cpu'))


def random_rotations(count, seed=0):
    matrices = Rotation.random(count * 16, random_state=seed).as_matrix()
    return torch.tensor(matrices.reshape(count, 16, 3, 3), dtype=torch.float32)


def distances(points, others):
    return torch.cdist(points, others, compute_mode='donot_use_mm_for_euclid_dist')


@pytest.fixture
def network():
    torch.manual_seed(0)
    return VqMano(SMALL)


def test_six_numbers_keep_a_rotation():
    matrices = torch.tensor(Rotation.random(500, random_state=1).as_matrix())
    torch.testing.assert_close(matrices_from_six(six_numbers(matrices)), matrices, atol=1e-12, rtol=0)


def test_any_six_numbers_give_a_rotation():
    numbers = torch.randn(500, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(2)) * 10
    matrices = matrices_from_six(numbers)
    identity = torch.eye(3, dtype=torch.float64).expand(500, 3, 3)
    torch.testing.assert_close(matrices @ matrices.transpose(1, 2), identity, atol=1e-12, rtol=0)
    torch.testing.assert_close(torch.linalg.det(matrices), torch.ones(500, dtype=torch.float64))
    degenerate = torch.tensor([[0.0] * 6, [1.0, 0, 0, 2.0, 0, 0]], requires_grad=True)
    matrices_from_six(degenerate).sum().backward()
    assert torch.isfinite(degenerate.grad).all()


@pytest.mark.parametrize('angle', [0.0, 1e-8, 1e-4, 1e-3, 0.5, 3.0, np.pi - 1e-4, np.pi - 1e-9])
def test_axis_angles_agree_with_scipy_at_every_angle(angle):
    axes = np.random.default_rng(3).normal(size=(50, 3))
    vectors = angle * axes / np.linalg.norm(axes, axis=1, keepdims=True)
    matrices = torch.tensor(Rotation.from_rotvec(vectors).as_matrix(), requires_grad=True)
    found = axis_angles(matrices)
    np.testing.assert_allclose(found.detach(), vectors, atol=1e-7)
    found.sum().backward()
    assert torch.isfinite(matrices.grad).all()


def test_the_quantiser_finds_the_nearest_code(network):
    embeddings = torch.randn(7, 32, 8)
    distances = np.linalg.norm(embeddings.numpy()[:, :, None] - network.codebook.numpy(), axis=3)
    np.testing.assert_array_equal(network.nearest_codes(embeddings), distances.argmin(axis=2))


def test_tokens_decode_as_their_codes_do(network):
    rotations = random_rotations(3)
    tokens = network.encode(rotations)
    assert tokens.shape == (3, 32)
    assert tokens.min() >= 0 and tokens.max() < 64
    one_hot = torch.nn.functional.one_hot(tokens, 64).float()
    decoded = network.decode_indices(tokens)
    assert decoded.shape == (3, 16, 3, 3)
    torch.testing.assert_close(network.decode_embeddings(one_hot @ network.codebook), decoded)
    torch.testing.assert_close(network(rotations).rotations, decoded)


def test_the_decoder_exports_for_any_number_of_hands(network):
    class Decoder(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.network = network

        def forward(self, embeddings):
            return self.network.decode_embeddings(embeddings)

    # Fails on control flow that depends on the data, which ONNX could not say either
    hands = torch.export.Dim('hands', min=1)
    exported = torch.export.export(Decoder(), (torch.randn(2, 32, 8),), dynamic_shapes=({0: hands},))
    embeddings = torch.randn(5, 32, 8)
    torch.testing.assert_close(exported.module()(embeddings), network.decode_embeddings(embeddings))


def test_the_gradient_passes_straight_through_the_quantiser(network):
    rotations = random_rotations(4)
    weights = torch.randn(4, 16, 3, 3)
    (network(rotations).rotations * weights).sum().backward()
    found = [parameter.grad.clone() for parameter in network.encoder.parameters()]
    # The same by hand: the decoder's gradient at the codes, carried on from the embeddings
    codes = network.codebook[network.encode(rotations)].requires_grad_()
    (at_codes,) = torch.autograd.grad((network.decode_embeddings(codes) * weights).sum(), codes)
    wanted = torch.autograd.grad(network.embed(rotations), list(network.encoder.parameters()), at_codes)
    assert any(gradient.abs().max() > 0 for gradient in found)
    for one, other in zip(found, wanted, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-6)


def averages_of(counts, sums, decay=0.9, dead_below=0.1):
    averages = CodebookAverages(
        VqManoConfiguration(tokens=16, codebook_size=len(counts), code_dim=2, width=4, depth=1),
        CodebookConfiguration(decay=decay, dead_below=dead_below),
    )
    averages.counts[:], averages.sums[:] = torch.tensor(counts), torch.tensor(sums)
    return averages


def test_codes_follow_the_moving_averages():
    averages = averages_of([4.0, 2.0], [[4.0, 0.0], [0.0, 2.0]])
    codebook = torch.tensor([[1.0, 0.0], [0.0, 1.0]])
    embeddings = torch.tensor([[2.0, 1.0], [4.0, 3.0], [1.0, 1.0]])
    averages.update(codebook, embeddings, torch.tensor([0, 0, 1]), seed=0, group=ALONE)
    # counts 0.9 * (4, 2) + 0.1 * (2, 1); sums 0.9 * old + 0.1 * ((6, 4), (1, 1))
    torch.testing.assert_close(averages.counts, torch.tensor([3.8, 1.9]))
    torch.testing.assert_close(averages.sums, torch.tensor([[4.2, 0.4], [0.1, 1.9]]))
    torch.testing.assert_close(codebook, torch.tensor([[4.2 / 3.8, 0.4 / 3.8], [0.1 / 1.9, 1.0]]))


def test_dead_codes_take_the_place_of_an_embedding():
    averages = averages_of([5.0, 1e-3, 0.0], [[5.0, 5.0], [9.0, 9.0], [0.0, 0.0]])
    codebook = torch.tensor([[1.0, 1.0], [9e3, 9e3], [7.0, 7.0]])
    embeddings = torch.tensor([[1.0, 2.0], [3.0, 4.0], [5.0, 6.0]])
    averages.update(codebook, embeddings, torch.tensor([0, 0, 0]), seed=0, group=ALONE)
    assert codebook[0].tolist() != [1.0, 1.0]
    for code in codebook[1:].tolist():
        assert any(np.allclose(code, embedding) for embedding in embeddings.tolist())
    assert (averages.counts > 0.1).all()  # alive: dead_below times the mean use, 1 each


def test_a_new_codebook_is_placed_among_the_embeddings():
    averages = averages_of([0.0] * 20, [[0.0, 0.0]] * 20)
    codebook = torch.full((20, 2), 1e6)
    embeddings = torch.randn(50, 2)
    averages.update(codebook, embeddings, torch.zeros(50, dtype=torch.int64), seed=0, group=ALONE)
    assert distances(codebook, embeddings).min(dim=1).values[1:].max() < 1e-5


def test_the_thin_layer_has_vertices_of_the_whole_one():
    model = load_hand_model()
    rotations, betas = random_rotations(2, seed=5), torch.randn(2, 10)
    whole = HandLayer(model).from_rotations(rotations, betas, torch.zeros(2, 3))
    thin = thin_hand_layer(model, 40).from_rotations(rotations, betas, torch.zeros(2, 3))
    assert thin.vertices.shape == (2, 40, 3)
    torch.testing.assert_close(thin.keypoints, whole.keypoints, atol=1e-6, rtol=0)
    assert distances(thin.vertices, whole.vertices).min(dim=2).values.max() < 1e-6


def test_a_step_has_its_poses_wherever_a_run_begins_and_however_many_share_it():
    def objective(batch_size):
        loop = LoopConfiguration(batch_size=batch_size)
        configuration = VqManoTrainingConfiguration(SMALL, loop, loss_vertices=30, held_out_poses=8)
        return VqManoObjective(configuration, load_hand_model(), torch.device('cpu'))

    def fourth(objective, first_step, group):
        batches = objective.batches(first_step, group)
        return [next(batches) for _ in range(4 - first_step)][-1]

    whole = fourth(objective(6), 0, ALONE)
    torch.testing.assert_close(fourth(objective(6), 3, ALONE), whole, rtol=0, atol=0)
    halves = [fourth(objective(3), 2, ProcessGroup(rank, 2, ALONE.device)) for rank in range(2)]
    joined = type(whole)(*(torch.cat(parts) for parts in zip(*halves, strict=True)))
    torch.testing.assert_close(joined, whole, rtol=0, atol=0)


def test_hands_are_turned_in_the_picture_mostly_a_little():
    turns = np.degrees(picture_turns(0, np.arange(20000)))
    assert np.median(np.abs(turns)) == pytest.approx(180 / 2**5, rel=0.05)
    assert np.mean(np.abs(turns) > 90) == pytest.approx(1 - 0.5**0.2, rel=0.1)
    assert abs(turns.mean()) < 2
    configuration = VqManoTrainingConfiguration(SMALL, loss_vertices=30, held_out_poses=8)
    objective = VqManoObjective(configuration, load_hand_model(), torch.device('cpu'))
    batch = next(objective.batches(0, ALONE))
    size = len(batch.betas)
    poses = PoseSampler(load_hand_model(), seed=0)(np.arange(size))
    upright = Rotation.from_rotvec(poses.global_orient)
    turned = Rotation.from_rotvec(turns[:size, None] * [0.0, 0.0, 1.0], degrees=True) * upright
    np.testing.assert_allclose(batch.rotations[:, 0], turned.as_matrix(), atol=1e-5)
    fingers = Rotation.from_rotvec(poses.hand_pose.reshape(-1, 3)).as_matrix()
    np.testing.assert_allclose(batch.rotations[:, 1:].flatten(0, 1), fingers, atol=1e-5)


def test_it_learns_a_handful_of_poses():
    configuration = VqManoTrainingConfiguration(
        network=SMALL, loop=LoopConfiguration(batch_size=8), loss_vertices=30, held_out_poses=8
    )
    objective = VqManoObjective(configuration, load_hand_model(), torch.device('cpu'))
    batch = next(objective.batches(0, ALONE))
    optimizer = torch.optim.Adam(objective.network.parameters(), lr=5e-3)
    errors = []
    for step in range(120):
        losses = objective.losses(objective.network, batch)
        optimizer.zero_grad()
        losses['loss'].backward()
        optimizer.step()
        objective.after_update(step, ALONE)
        errors.append(losses['vertices'].item())
    assert errors[0] > 0.03
    assert errors[-1] < 0.15 * errors[0]


def test_held_out_figures_of_a_perfect_network_are_zero(monkeypatch):
    configuration = VqManoTrainingConfiguration(network=SMALL, loss_vertices=30, held_out_poses=20)
    objective = VqManoObjective(configuration, load_hand_model(), torch.device('cpu'))
    poses = []

    def encode(rotations):
        poses.append(rotations)
        return torch.arange(len(rotations) * 32).reshape(-1, 32) % 16

    monkeypatch.setattr(objective.network, 'encode', encode)
    monkeypatch.setattr(objective.network, 'decode_indices', lambda _: poses.pop())
    figures = objective.evaluate()
    for name in ('vertex_mm', 'vertex_mm_p95', 'keypoint_mm', 'orientation_deg', 'joint_deg'):
        assert figures[name] < 1e-3
    assert figures['codebook_usage'] == 16 / 64
    assert figures['perplexity'] == pytest.approx(16)


def test_an_error_in_orientation_counts_in_full(monkeypatch):
    configuration = VqManoTrainingConfiguration(network=SMALL, loss_vertices=30, held_out_poses=20)
    model = load_hand_model()
    objective = VqManoObjective(configuration, model, torch.device('cpu'))
    turn = torch.eye(3).repeat(16, 1, 1)
    turn[0] = torch.tensor(Rotation.from_rotvec([0.0, 0.0, np.radians(2.0)]).as_matrix())
    poses = []
    monkeypatch.setattr(
        objective.network, 'encode', lambda r: poses.append(r) or torch.zeros(len(r), 32).long()
    )
    monkeypatch.setattr(objective.network, 'decode_indices', lambda _: turn @ poses.pop())
    figures = objective.evaluate()
    assert figures['orientation_deg'] == pytest.approx(2.0, rel=1e-3)
    assert figures['joint_deg'] < 1e-3
    # Vertices move by the angle times their distance from the turning axis, a few centimetres
    assert 0.5 < figures['vertex_mm'] < 4.0


def test_weights_go_to_a_file_and_back(network, tmp_path):
    path = tmp_path / 'best.safetensors'
    save_weights(path, network, describe(SMALL, load_hand_model()))
    rotations = random_rotations(2)
    loaded = load_vq_mano(path)
    torch.testing.assert_close(loaded.encode(rotations), network.encode(rotations))
    torch.testing.assert_close(loaded.decode_indices(loaded.encode(rotations)), network(rotations).rotations)


def test_files_that_hold_no_such_network_are_refused(network, tmp_path):
    path = tmp_path / 'other.safetensors'
    with pytest.raises(FileFormatError, match='other.safetensors'):
        load_vq_mano(path)
    path.write_bytes(b'not safetensors')
    with pytest.raises(FileFormatError, match='other.safetensors'):
        load_vq_mano(path)
    for change in (
        {'network': 'maskhand'},
        {'configuration': {'width': 3}},
        {'configuration': {'wide': 3}},
        {'configuration': 5},
    ):
        save_weights(path, network, describe(SMALL, load_hand_model()) | change)
        with pytest.raises(FileFormatError, match='not the weights of a VQ-MANO network'):
            load_vq_mano(path)


@pytest.mark.parametrize('sizes', [{'tokens': 20}, {'tokens': 0}, {'codebook_size': 0}, {'depth': -1}])
def test_sizes_that_make_no_network_are_refused(sizes):
    with pytest.raises(ConfigurationError, match=next(iter(sizes))):
        VqManoConfiguration(**sizes)
