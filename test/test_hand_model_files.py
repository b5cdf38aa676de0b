"""Hand model files: what loads, as which side, with which numbers; and what is refused, and how."""

from __future__ import annotations

import hashlib
import io
import lzma
import subprocess
import sys
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from hand_mesh_ros.errors import FileFormatError
from hand_mesh_ros.hand_model.files import OPEN_HAND_PATH, load_hand_model
from hand_mesh_ros.hand_model.keypoints import JOINT_PARENTS, KEYPOINT_JOINTS, TIP_KEYPOINTS
from hand_mesh_ros.hand_model.mirroring import mirrored_pose_limits

Fields = dict[str, np.ndarray]
DATA = Path(__file__).parent / 'data'
MANO_KEYS = (
    'v_template', 'f', 'shapedirs', 'posedirs', 'J_regressor', 'weights',
    'kintree_table', 'hands_mean', 'hands_components',
)  # fmt: skip


@pytest.fixture
def mano_fields() -> Fields:
    """The open model with MANO's own fields only."""
    with np.load(OPEN_HAND_PATH) as file:
        return {key: file[key] for key in MANO_KEYS}


@pytest.fixture
def save(tmp_path: Path) -> Callable[..., Path]:
    def save_fields(fields: dict[str, Any], name: str = 'MANO_RIGHT.npz') -> Path:
        np.savez(tmp_path / name, **fields)
        return tmp_path / name

    return save_fields


def left_fields(fields: Fields, shapes_mirrored: bool = True) -> Fields:
    """A left file as MANO publishes it, or, with ``shapes_mirrored``, as it should be."""
    x = np.array([-1.0, 1.0, 1.0])
    return fields | {
        'v_template': fields['v_template'] * x,
        'f': fields['f'][:, ::-1],
        'shapedirs': fields['shapedirs'] * x[:, None] if shapes_mirrored else fields['shapedirs'],
        'posedirs': fields['posedirs'] * x[:, None] * np.tile(np.outer(x, x).ravel(), 15),
        'hands_mean': fields['hands_mean'] * np.tile(-x, 15),
        'hands_components': fields['hands_components'] * np.tile(-x, 15),
    }


# What loads


def test_the_open_model_is_the_default() -> None:
    model = load_hand_model()
    assert (model.side, model.license) == ('right', 'CC0-1.0')
    assert model.sha256 == hashlib.sha256(OPEN_HAND_PATH.read_bytes()).hexdigest()
    assert load_hand_model(side='left').side == 'left'


def test_a_plain_mano_npz_gets_the_conventions_of_mano(
    mano_fields: Fields, save: Callable[..., Path]
) -> None:
    model = load_hand_model(save(mano_fields, 'my_hand.npz'))
    assert model.name == 'my_hand'
    assert model.license == 'user-supplied (MANO licence applies)'
    assert tuple(model.tip_vertices) == (744, 320, 443, 554, 671)
    assert tuple(model.keypoint_joints) == KEYPOINT_JOINTS
    rest = model.rest(np.zeros(10))
    np.testing.assert_allclose(rest.keypoints[list(TIP_KEYPOINTS)], rest.vertices[model.tip_vertices])
    others = [k for k in range(21) if k not in TIP_KEYPOINTS]
    np.testing.assert_allclose(rest.keypoints[others], rest.joints[np.array(KEYPOINT_JOINTS)[others]])
    np.testing.assert_array_equal(model.pose_limits, load_hand_model().pose_limits)
    left = load_hand_model(save(mano_fields, 'my_hand.npz'), 'left')
    np.testing.assert_array_equal(left.pose_limits, mirrored_pose_limits(model.pose_limits))


def test_name_and_license_of_a_file_are_kept(mano_fields: Fields, save: Callable[..., Path]) -> None:
    model = load_hand_model(save(mano_fields | {'name': np.array('mine'), 'license': np.array('CC-BY-4.0')}))
    assert (model.name, model.license) == ('mine', 'CC-BY-4.0')


def test_the_first_ten_shape_components_are_taken(mano_fields: Fields, save: Callable[..., Path]) -> None:
    more = np.concatenate([mano_fields['shapedirs'], np.full((778, 3, 290), 9.0)], axis=2)
    model = load_hand_model(save(mano_fields | {'shapedirs': more}))
    np.testing.assert_array_equal(model.shapedirs, mano_fields['shapedirs'])


# Sides


@pytest.mark.parametrize('name', ['MANO_LEFT.npz', 'MANO_RIGHT.npz', 'hand.npz'])
def test_geometry_tells_the_side_and_not_the_name(
    mano_fields: Fields, save: Callable[..., Path], name: str
) -> None:
    path = save(left_fields(mano_fields), name)
    expected_right, expected_left = load_hand_model(), load_hand_model(side='left')
    for side, expected in (('left', expected_left), ('right', expected_right)):
        model = load_hand_model(path, side)
        assert model.side == side
        np.testing.assert_allclose(model.v_template, expected.v_template, atol=1e-12)
        np.testing.assert_allclose(model.posedirs, expected.posedirs, atol=1e-12)
        np.testing.assert_allclose(model.shapedirs, expected.shapedirs, atol=1e-12)
        np.testing.assert_allclose(model.pose_limits, expected.pose_limits)


@pytest.mark.parametrize('right_name', ['MANO_RIGHT.npz', 'MANO_RIGHT.pkl'])
@pytest.mark.parametrize('shapes_mirrored', [True, False])
def test_unmirrored_shapes_of_a_left_file_are_corrected_beside_the_right_one(
    mano_fields: Fields, save: Callable[..., Path], right_name: str, shapes_mirrored: bool
) -> None:
    with np.load(DATA / 'chumpy_mano_right.npz') as file:
        mano_fields = mano_fields | dict(file)
    path = save(left_fields(mano_fields, shapes_mirrored), 'MANO_LEFT.npz')
    if right_name.endswith('.npz'):
        save(mano_fields, right_name)
    else:
        path.with_name(right_name).write_bytes(chumpy_pickle())
    expected = left_fields(mano_fields)['shapedirs']
    np.testing.assert_allclose(load_hand_model(path, 'left').shapedirs, expected, atol=1e-12)
    np.testing.assert_allclose(load_hand_model(path, 'right').shapedirs, mano_fields['shapedirs'], atol=1e-12)


def test_a_left_file_alone_is_taken_as_it_is(mano_fields: Fields, save: Callable[..., Path]) -> None:
    path = save(left_fields(mano_fields, shapes_mirrored=False), 'MANO_LEFT.npz')
    np.testing.assert_array_equal(load_hand_model(path, 'left').shapedirs, mano_fields['shapedirs'])


# Pickles as chumpy writes them


def chumpy_pickle() -> bytes:
    return lzma.decompress((DATA / 'chumpy_mano_right.pkl.xz').read_bytes())


def test_a_pickle_written_by_chumpy(tmp_path: Path) -> None:
    path = tmp_path / 'MANO_RIGHT.pkl'
    path.write_bytes(chumpy_pickle())
    model = load_hand_model(path)
    assert (model.side, model.name, model.license) == (
        'right',
        'MANO_RIGHT',
        'user-supplied (MANO licence applies)',
    )
    with np.load(DATA / 'chumpy_mano_right.npz') as expected:
        np.testing.assert_array_equal(model.joint_regressor, expected['J_regressor'])
        np.testing.assert_array_equal(model.faces, expected['f'])
        for key in ('v_template', 'shapedirs', 'posedirs', 'weights', 'hands_mean', 'hands_components'):
            np.testing.assert_array_equal(getattr(model, key), expected[key])


def test_neither_chumpy_nor_scipy_nor_torch_is_needed(tmp_path: Path) -> None:
    path = tmp_path / 'MANO_RIGHT.pkl'
    path.write_bytes(chumpy_pickle())
    program = (
        'import sys; from pathlib import Path\n'
        'for name in ("chumpy", "scipy", "torch"): sys.modules[name] = None\n'
        'from hand_mesh_ros.hand_model.files import load_hand_model\n'
        'print(load_hand_model(Path(sys.argv[1])).v_template.shape)\n'
    )
    repository = DATA.parents[1]
    done = subprocess.run(
        [sys.executable, '-c', program, str(path)],
        capture_output=True,
        text=True,
        cwd=repository,
        check=False,
    )
    assert done.stdout == '(778, 3)\n', done.stderr


# What is refused


def with_entry(array: np.ndarray, index: Any, value: float) -> np.ndarray:
    changed = array.copy()
    changed[index] = value
    return changed


SPOILS: dict[str, tuple[Callable[[Fields], dict[str, Any]], str]] = {
    'flat template': (lambda f: {'v_template': f['v_template'].ravel()}, 'v_template has shape'),
    'no vertices': (lambda f: {'v_template': np.zeros((0, 3))}, 'v_template has shape'),
    'NaN': (lambda f: {'v_template': with_entry(f['v_template'], (5, 1), np.nan)}, 'v_template .*not finite'),
    'infinity': (lambda f: {'posedirs': with_entry(f['posedirs'], (5, 1, 3), np.inf)}, 'not finite'),
    'texts': (lambda f: {'weights': f['weights'].astype(str)}, 'weights holds <U.* not real numbers'),
    'complex numbers': (lambda f: {'hands_mean': f['hands_mean'] * 1j}, 'hands_mean holds complex'),
    'millimetres': (lambda f: {'v_template': f['v_template'] * 1000}, 'no length in metres'),
    'other axes': (lambda f: {'v_template': f['v_template'][:, [1, 0, 2]]}, "MANO's axes"),
    'upside down': (lambda f: {'v_template': f['v_template'] * (1, -1, -1)}, "MANO's axes"),
    'face out of range': (lambda f: {'f': with_entry(f['f'], (0, 0), 778)}, 'f holds a number outside'),
    'negative face': (lambda f: {'f': with_entry(f['f'].astype(int), (0, 0), -1)}, 'f holds a number'),
    'faces not whole': (lambda f: {'f': f['f'].astype(float)}, 'f holds float64, not integers'),
    'quads': (lambda f: {'f': np.zeros((9, 4), int)}, r'f has shape \(9, 4\), not \(any, 3\)'),
    'few shapes': (lambda f: {'shapedirs': f['shapedirs'][:, :, :9]}, 'shapedirs has 9 shape components'),
    'another body': (lambda f: {'posedirs': np.zeros((778, 3, 207))}, 'posedirs has shape'),
    'weights over 1': (lambda f: {'weights': f['weights'] * 1.1}, 'weights .*sum to 1'),
    'negative weight': (lambda f: {'weights': f['weights'] * 2 - 1 / 16}, 'weights .*must be positive'),
    'another tree': (lambda f: {'kintree_table': with_entry(f['kintree_table'], (0, 3), 1)}, 'kintree_table'),
    'few components': (lambda f: {'hands_components': np.eye(6, 45)}, 'hands_components has shape'),
    'tips out of range': (lambda f: {'tip_vertices': np.full(5, 778)}, 'tip_vertices holds a number'),
    'limits crossed': (lambda f: {'pose_limits': np.tile([1.0, -1.0], (45, 1))}, 'pose_limits has a lower'),
    'regressor without joints': (lambda f: {'keypoint_regressor': np.zeros((21, 778))}, 'keypoint_joints'),
    'number for a name': (lambda f: {'name': np.array(3)}, 'name is not a text'),
    'no character': (lambda f: {'name': np.array(0xFFFFFFFF, np.uint32).view('<U1')}, 'name is not a text'),
    'beyond Unicode': (lambda f: {'name': np.array(0x110000, np.uint32).view('<U1')}, 'name is not a text'),
    'half a character': (lambda f: {'license': np.array('CC0\ud800')}, 'license is not a text'),
    'many vertices': (lambda f: {'v_template': np.resize(f['v_template'], (20_001, 3))}, '20001 vertices'),
}  # fmt: skip


@pytest.mark.parametrize('spoil', SPOILS)
def test_a_file_out_of_schema_says_what_is_wrong(
    mano_fields: Fields, save: Callable[..., Path], spoil: str
) -> None:
    change, message = SPOILS[spoil]
    path = save(mano_fields | change(mano_fields))
    with pytest.raises(FileFormatError, match=message) as error:
        load_hand_model(path)
    assert str(path) in str(error.value)
    assert 'give the original MANO_RIGHT.pkl' in str(error.value)


@pytest.mark.parametrize('key', MANO_KEYS)
def test_a_missing_field_is_named(mano_fields: Fields, save: Callable[..., Path], key: str) -> None:
    del mano_fields[key]
    with pytest.raises(FileFormatError, match=f'{key} is missing'):
        load_hand_model(save(mano_fields))


def test_another_mesh_needs_its_tips(mano_fields: Fields, save: Callable[..., Path]) -> None:
    fields = small_hand()
    assert len(load_hand_model(save(fields)).v_template) == 21
    del fields['tip_vertices']
    with pytest.raises(FileFormatError, match='tip_vertices is missing'):
        load_hand_model(save(fields))


def test_a_fine_mesh_takes_no_square_of_its_size(mano_fields: Fields, save: Callable[..., Path]) -> None:
    repeats = 20_000 // 778
    fields = {
        key: np.concatenate([mano_fields[key]] * repeats).astype(np.float16)
        for key in ('v_template', 'shapedirs', 'posedirs', 'weights')
    }
    regressor = np.concatenate([mano_fields['J_regressor']] * repeats, axis=1) / repeats
    path = save(
        mano_fields | fields | {'J_regressor': regressor.astype(np.float32), 'tip_vertices': np.arange(5)}
    )
    tracemalloc.start()
    try:
        model = load_hand_model(path)
        assert tracemalloc.get_traced_memory()[1] < 2**28
    finally:
        tracemalloc.stop()
    expected = np.zeros((5, 778 * repeats))
    expected[range(5), range(5)] = 1.0
    np.testing.assert_array_equal(model.keypoint_regressor[list(TIP_KEYPOINTS)], expected)


def test_paths_that_are_no_files(tmp_path: Path) -> None:
    (tmp_path / 'folder.npz').mkdir()
    (tmp_path / 'hand.obj').write_text('v 0 0 0')
    (tmp_path / 'empty.npz').touch()
    (tmp_path / 'empty.pkl').touch()
    for name in ('absent.npz', 'absent.pkl', 'folder.npz', 'hand.obj', 'empty.npz', 'empty.pkl'):
        with pytest.raises(FileFormatError) as error:
            load_hand_model(tmp_path / name)
        assert str(tmp_path / name) in str(error.value)


@pytest.mark.parametrize('name', ['big.npz', 'big.pkl'])
def test_huge_files_are_not_read(tmp_path: Path, name: str) -> None:
    with (tmp_path / name).open('wb') as file:
        file.truncate(2**28)
    with pytest.raises(FileFormatError, match='more than 64 MB'):
        load_hand_model(tmp_path / name)


def test_an_npz_that_unpacks_to_gigabytes(tmp_path: Path) -> None:
    path = tmp_path / 'bomb.npz'
    np.savez_compressed(path, v_template=np.zeros(2**24), weights=np.zeros(2**22))
    assert path.stat().st_size < 2**20
    with pytest.raises(FileFormatError, match='unpacks to more than 64 MB'):
        load_hand_model(path)


def test_an_npz_with_python_objects(mano_fields: Fields, save: Callable[..., Path]) -> None:
    path = save(mano_fields | {'J_regressor': np.array([{'a': 'dict'}], dtype=object)})
    with pytest.raises(FileFormatError, match=r'plain arrays.*savez'):
        load_hand_model(path)


def small_hand() -> Fields:
    """A hand of 21 vertices, its joints and tips: a file whose bytes are structure for a good part."""
    rest = load_hand_model().rest(np.zeros(10))
    vertices = np.concatenate([rest.joints, rest.keypoints[list(TIP_KEYPOINTS)]])
    return {
        'v_template': vertices,
        'f': np.array([[0, 1, 2], [16, 17, 18]], np.uint32),
        'shapedirs': np.random.default_rng(0).normal(size=(21, 3, 10)) * 1e-3,
        'posedirs': np.zeros((21, 3, 135), np.float16),
        'J_regressor': np.eye(16, 21),
        'weights': np.eye(16)[[*range(16), 15, 3, 6, 12, 9]],
        'kintree_table': np.array([JOINT_PARENTS, range(16)]),
        'hands_mean': np.zeros(45),
        'hands_components': np.eye(45, dtype=np.float16),
        'tip_vertices': np.arange(16, 21),
    }


def test_damaged_npz_files_are_refused_and_nothing_else(tmp_path: Path) -> None:
    buffer = io.BytesIO()
    np.savez_compressed(buffer, **small_hand())
    content = buffer.getvalue()
    path = tmp_path / 'hand.npz'
    rng = np.random.default_rng(0)
    refused = 0
    for attempt in range(400):
        damaged = bytearray(content)
        if attempt % 4 == 0:
            del damaged[rng.integers(len(damaged)) :]
        else:
            for position in rng.integers(len(damaged), size=rng.integers(1, 6)):
                damaged[position] = rng.integers(256)
        path.write_bytes(damaged)
        try:
            load_hand_model(path)
        except FileFormatError as error:
            refused += 1
            assert str(path) in str(error)
    assert refused > 200
