"""RefineNet: how far it moves vertices, its file, its training, and hands that are reconstructed with it."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from mask2hand_file import write_mask2hand
from training_runs import ALONE, LOOP, assert_resumes, rows_of

from hand_mesh_ros.camera import Camera
from hand_mesh_ros.cli.main import main
from hand_mesh_ros.detection.masks import hands_in_mask
from hand_mesh_ros.errors import ConfigurationError, FileFormatError
from hand_mesh_ros.hand_model.files import load_hand_model
from hand_mesh_ros.inference.loading import load_silhouette_network, load_silhouette_refinement
from hand_mesh_ros.networks.refine_net import (
    FARTHEST_M,
    REFINE_NET_PATH,
    RefineNet,
    RefineNetConfiguration,
    describe,
    load_refine_net,
    smooth_functions,
)
from hand_mesh_ros.networks.weights import save_weights
from hand_mesh_ros.observation import Observation
from hand_mesh_ros.reconstruction.mask2hand import Mask2HandReconstructor
from hand_mesh_ros.rendering.masks import hard_silhouettes
from hand_mesh_ros.rendering.zbuffer import rasterise
from hand_mesh_ros.training.configuration import load_configuration
from hand_mesh_ros.training.refine_net import (
    RefineNetLossWeights,
    RefineNetObjective,
    RefineNetTrainingConfiguration,
    train_refine_net,
)

MODEL = load_hand_model()
MODELS = {'right': MODEL, 'left': load_hand_model(side='left')}
SMALL = RefineNetConfiguration(image_size=64, channels=(4, 4, 8, 8), width=16, functions=6)
CAMERA = Camera(320, 240, 300.0, 300.0, 159.5, 119.5)


@pytest.fixture(scope='module')
def mask2hand(tmp_path_factory):
    return write_mask2hand(tmp_path_factory.mktemp('mask2hand') / 'weights.safetensors')


@pytest.fixture
def training(mask2hand):
    return RefineNetTrainingConfiguration(
        mask2hand=str(mask2hand), network=SMALL, loop=LOOP, held_out_samples=4
    )


def hands(count, scale=1.0):
    """Masks, drawn silhouettes, vertices and half sides of hands that lie flat before the camera."""
    half_sides = torch.linspace(4, 7, count)
    vertices = torch.from_numpy(MODEL.v_template - MODEL.v_template.mean(axis=0)).float() * scale
    vertices = torch.stack([vertices + torch.tensor([0, 0, 0.16 * scale]) * side for side in half_sides])
    drawn = hard_silhouettes(vertices.double().numpy(), MODEL.faces, half_sides.numpy(), SMALL.image_size)
    drawn = torch.from_numpy(drawn[:, None]).float()
    return drawn.roll(5, dims=3), drawn, vertices, half_sides


def moving(size=1.0, seed=0):
    """A network that moves every hand in some way."""
    torch.manual_seed(seed)
    network = RefineNet(SMALL, MODEL.faces).eval()
    with torch.no_grad():
        network.coefficients.weight.normal_(0, size)
        network.coefficients.bias.normal_(0, size)
    return network


def write_refine_net(path, network, sha256=MODEL.sha256):
    save_weights(path, network, describe(network, {'name': MODEL.name, 'sha256': sha256}))
    return path


def test_a_network_that_learned_nothing_moves_nothing():
    offsets = RefineNet(RefineNetConfiguration()).eval()
    masks, drawn, vertices, half_sides = hands(2)
    larger = [torch.nn.functional.interpolate(mask, size=96) for mask in (masks, drawn)]
    assert torch.equal(offsets(*larger, vertices, half_sides), torch.zeros(2, 778, 3))


def test_it_is_small():
    tensors = RefineNet(RefineNetConfiguration()).state_dict().values()
    assert sum(tensor.numel() for tensor in tensors) < 2e6


@pytest.mark.parametrize('size', [0.1, 1.0, 100.0])
def test_no_vertex_moves_more_than_fifty_millimetres(size):
    with torch.no_grad():
        lengths = moving(size)(*hands(3)).norm(dim=-1)
    assert 0 < lengths.max() <= FARTHEST_M * (1 + 1e-5)
    if size == 100.0:
        assert lengths.median() == pytest.approx(FARTHEST_M)


def test_twice_as_large_twice_as_far_moves_twice_as_much():
    network = moving(0.1)
    with torch.no_grad():
        moved, larger = network(*hands(3)), network(*hands(3, scale=2.0))
    torch.testing.assert_close(larger, 2 * moved, rtol=1e-3, atol=1e-6)


def test_the_mask_matters():
    network = moving(0.1)
    masks, drawn, vertices, half_sides = hands(2)
    with torch.no_grad():
        one, other = network(masks, drawn, vertices, half_sides), network(drawn, drawn, vertices, half_sides)
    assert not torch.allclose(one, other, atol=1e-5)


def test_everything_learns():
    network = moving(0.1).train()
    before = {name: parameter.detach().clone() for name, parameter in network.named_parameters()}
    optimizer = torch.optim.Adam(network.parameters(), lr=1e-2)
    for _ in range(3):  # blocks that begin as the identity learn from their ends on
        optimizer.zero_grad()
        network(*hands(4)).square().sum().backward()
        optimizer.step()
    for name, parameter in network.named_parameters():
        assert parameter.isfinite().all() and not torch.equal(parameter, before[name]), name


def test_one_that_moves_nothing_yet_can_begin_to():
    network = RefineNet(SMALL, MODEL.faces)
    (network(*hands(4)) - 0.01).square().sum().backward()
    assert network.coefficients.weight.grad.abs().sum() > 0
    assert all(p.grad is None or p.grad.isfinite().all() for p in network.parameters())


def test_smooth_functions_differ_little_between_neighbours():
    functions = smooth_functions(MODEL.faces, 778, 24)
    np.testing.assert_allclose((functions**2).mean(axis=1), 1.0)
    np.testing.assert_allclose(functions[0], functions[0, 0])
    differences = functions[:, MODEL.faces[:, 0]] - functions[:, MODEL.faces[:, 1]]
    assert np.sqrt((differences**2).mean(axis=1)).max() < 0.5


def test_hard_silhouettes_are_what_the_crop_s_camera_sees():
    _, _, vertices, half_sides = hands(3)
    drawn = hard_silhouettes(vertices.numpy(), MODEL.faces, half_sides.numpy(), 64)
    for points, half_side, mask in zip(vertices.numpy(), half_sides.tolist(), drawn, strict=True):
        assert mask.dtype == bool and mask.any()
        seen = points[:, :2] / points[:, 2:] * half_side
        rows, columns = np.nonzero(mask)
        shown = np.column_stack([columns, rows]) * (2 / 64) - 63 / 64
        np.testing.assert_allclose(shown.min(0), seen.min(0), atol=2 / 64)
        np.testing.assert_allclose(shown.max(0), seen.max(0), atol=2 / 64)


def test_a_file_gives_the_network_back(tmp_path):
    network = moving(0.1)
    loaded, description = load_refine_net(write_refine_net(tmp_path / 'a.safetensors', network))
    assert loaded.configuration == SMALL
    assert description['hand_model']['sha256'] == MODEL.sha256
    arguments = hands(2)
    with torch.no_grad():
        assert torch.equal(loaded(*arguments), network(*arguments))
    # Half precision, as it is shipped
    half, _ = load_refine_net(write_refine_net(tmp_path / 'half.safetensors', network.half()))
    with torch.no_grad():
        torch.testing.assert_close(half(*arguments), loaded(*arguments), rtol=0.05, atol=2e-4)


def test_other_files_are_refused(tmp_path, mask2hand):
    with pytest.raises(FileFormatError, match='mask2hand'):
        load_refine_net(mask2hand)
    with pytest.raises(FileFormatError, match='none.safetensors'):
        load_silhouette_refinement(tmp_path / 'none.safetensors')
    if not REFINE_NET_PATH.is_file():
        with pytest.raises(ConfigurationError, match='hand-mesh train mask2hand-refinement'):
            load_silhouette_refinement(None)


@pytest.mark.parametrize(
    'sizes', [{'image_size': 50}, {'channels': (8, 8)}, {'functions': 0}, {'functions': 779}]
)
def test_sizes_that_make_no_network_are_refused(sizes):
    with pytest.raises(ConfigurationError, match=next(iter(sizes))):
        RefineNetConfiguration(**sizes)


def test_training_refuses_a_network_that_does_not_fit(training):
    with pytest.raises(ConfigurationError, match='image_size 64'):
        RefineNetObjective(replace(training, network=RefineNetConfiguration()), MODEL, ALONE.device)
    with pytest.raises(ConfigurationError, match='another hand model'):
        RefineNetObjective(training, replace(MODEL, sha256='0' * 64), ALONE.device)


def test_a_killed_and_resumed_training_equals_an_uninterrupted_one(training, tmp_path, monkeypatch):
    assert_resumes(train_refine_net, RefineNetObjective, training, tmp_path, monkeypatch)


def test_training_lowers_the_loss(training, tmp_path):
    loop = replace(LOOP, steps=25, batch_size=6, learning_rate=5e-3, log_every=25, evaluate_every=25)
    loss = RefineNetLossWeights(aligned=0, vertices=0, overlap=1, contour=1, smooth=1, size=0)
    configuration = replace(training, loop=loop, loss=loss, worn_share=0.0, held_out_samples=8)
    before = RefineNetObjective(configuration, MODEL, ALONE.device)
    before.network.eval()
    with torch.no_grad():
        figures = before.evaluate()
    assert figures['overlap'] == figures['overlap_before']
    assert figures['aligned_mm_worn'] == figures['aligned_mm_before_worn']
    assert figures['move_mm'] == 0
    assert train_refine_net(configuration, MODEL, tmp_path / 'run', ALONE, resume=False)
    (row,) = rows_of(tmp_path / 'run' / 'evaluation.csv')
    assert float(row['loss']) < 0.95 * figures['loss']
    assert float(row['overlap']) > figures['overlap'] + 0.03
    network, description = load_refine_net(tmp_path / 'run' / 'best.safetensors')
    assert network.configuration == SMALL and len(description['mask2hand']) == 64


def test_the_command_trains(mask2hand, tmp_path, capsys):
    content = {
        'mask2hand': str(mask2hand),
        'network': vars(SMALL) | {'channels': list(SMALL.channels)},
        'loop': vars(LOOP),
        'held_out_samples': 4,
    }
    path = tmp_path / 'small.yaml'
    path.write_text(json.dumps(content))  # which is YAML, too
    out = str(tmp_path / 'run')
    assert main(['train', 'mask2hand-refinement', '--config', str(path), '--out', out, '--steps', '2']) == 0
    assert 'step 2: loss' in capsys.readouterr().out


def test_the_shipped_configuration_is_valid(pytestconfig):
    path = pytestconfig.rootpath / 'config' / 'training' / 'mask2hand_refinement.yaml'
    assert load_configuration(path, RefineNetTrainingConfiguration).network == RefineNetConfiguration()


def seen_hand(side):
    """The mask of an upright flat hand, and its detection."""
    orient = np.array([np.pi / 2, 0.0, 0.0])
    hand = MODELS[side].posed(orient, np.zeros(45), np.zeros(10), np.array([0.02, 0.05, 0.6]))
    mask = rasterise(hand.vertices, MODELS[side].faces, CAMERA).mask
    (detection,) = hands_in_mask(mask, side=side)
    return Observation(CAMERA, mask=mask), detection


def reconstructed(mask2hand, refinement, side, depth=False):
    reconstructor = Mask2HandReconstructor(MODELS, load_silhouette_network(mask2hand), refinement=refinement)
    observation, detection = seen_hand(side)
    if depth:
        observation = replace(observation, depth_m=np.full(observation.mask.shape, 0.6, np.float32))
    (hand,) = reconstructor.reconstruct(observation, [detection])
    assert hand is not None
    return hand, reconstructor


def of_parameters(hand):
    return MODELS[hand.side].posed(hand.global_orient, hand.hand_pose, hand.betas, hand.transl).vertices


@pytest.mark.parametrize('side', ['right', 'left'])
def test_refined_hands_differ_in_their_vertices_alone(mask2hand, tmp_path, side):
    refinement = load_silhouette_refinement(write_refine_net(tmp_path / 'a.safetensors', moving(0.3)))
    plain, _ = reconstructed(mask2hand, None, side)
    np.testing.assert_allclose(plain.vertices, of_parameters(plain), atol=1e-4)
    refined, reconstructor = reconstructed(mask2hand, refinement, side)
    assert reconstructor.timing_ms['refinement'] > 0
    moved = np.linalg.norm(refined.vertices - plain.vertices, axis=1)
    assert 0.001 < moved.max() <= FARTHEST_M + 1e-5
    assert refined.vertices.dtype == np.float32
    for name in ('global_orient', 'hand_pose', 'betas', 'transl', 'keypoints_3d', 'T_camera_fingertips'):
        np.testing.assert_array_equal(getattr(refined, name), getattr(plain, name))


def test_left_hands_are_refined_as_right_ones_in_a_mirror(mask2hand, tmp_path):
    refinement = load_silhouette_refinement(write_refine_net(tmp_path / 'a.safetensors', moving(0.3)))
    right, reconstructor = reconstructed(mask2hand, refinement, 'right')
    observation, detection = seen_hand('right')
    mirrored = Observation(CAMERA, mask=np.ascontiguousarray(observation.mask[:, ::-1]))
    (detection,) = hands_in_mask(mirrored.mask, side='left')
    (left,) = reconstructor.reconstruct(mirrored, [detection])
    np.testing.assert_allclose(left.vertices * (-1, 1, 1), right.vertices, atol=3e-3)


def test_hands_with_depth_are_not_refined(mask2hand, tmp_path):
    refinement = load_silhouette_refinement(write_refine_net(tmp_path / 'a.safetensors', moving(0.3)))
    hand, _ = reconstructed(mask2hand, refinement, 'right', depth=True)
    np.testing.assert_allclose(hand.vertices, of_parameters(hand), atol=1e-4)


def test_a_refinement_of_another_hand_model_is_refused(mask2hand, tmp_path):
    path = write_refine_net(tmp_path / 'a.safetensors', moving(), sha256='0' * 64)
    with pytest.raises(ConfigurationError, match='another hand model'):
        reconstructed(mask2hand, load_silhouette_refinement(path), 'right')
