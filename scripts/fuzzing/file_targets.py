"""Files that users hand to the package, through their loaders."""

from __future__ import annotations

import io
import json
import pickle
from collections.abc import Callable, Sequence
from pathlib import Path
from random import Random
from typing import Any

import cv2
import numpy as np
import yaml

from fuzzing.mutations import changed_tree, damaged, damaged_pickle, json_bytes, operation_places
from fuzzing.target import Reader, Target, expect
from hand_mesh_ros.depth_files import read_depth, read_mask
from hand_mesh_ros.detection.boxes import load_boxes
from hand_mesh_ros.hand_model.files import load_hand_model
from hand_mesh_ros.hand_model.keypoints import JOINT_PARENTS, TIP_KEYPOINTS
from hand_mesh_ros.inference.engine_cache import EngineCache, EngineKey
from hand_mesh_ros.keyed_files import load_cameras
from hand_mesh_ros.sources import count_frames, read_frames, read_image
from hand_mesh_ros.training.adaptation import AdaptationConfiguration
from hand_mesh_ros.training.configuration import load_configuration
from hand_mesh_ros.training.mask2hand import Mask2HandTrainingConfiguration
from hand_mesh_ros.training.maskhand import MaskHandTrainingConfiguration

_CONFIGURATIONS = Path(__file__).parents[2] / 'config' / 'training'

Read = Callable[[Path], object]


def file_reader(
    folder: Path, name: str, make: Callable[[Random], bytes], read: Read, mode: int = 0o644
) -> Reader:
    """A reader of a file of that name."""
    path = folder / name

    def written(content: bytes) -> object:
        # Deleted first: what is read may still be mapped.
        path.unlink(missing_ok=True)
        path.write_bytes(content)
        path.chmod(mode)
        return read(path)

    return Reader(make, written)


def damaged_files(name: str, contents: Callable[[], Sequence[bytes]], read: Read) -> Callable[[Path], Reader]:
    """Files of a format of bytes; ``contents`` are whole ones."""

    def setup(folder: Path) -> Reader:
        whole = contents()
        return file_reader(
            folder, name, lambda random: damaged(random.choice(whole), random.choice(whole), random), read
        )

    return setup


def small_hand() -> dict[str, np.ndarray]:
    """A hand of 21 vertices, its joints and tips: a file whose bytes are structure for a good part."""
    rest = load_hand_model().rest(np.zeros(10))
    return {
        'v_template': np.concatenate([rest.joints, rest.keypoints[list(TIP_KEYPOINTS)]]),
        'f': np.array([[0, 1, 2], [16, 17, 18]], np.uint32),
        'shapedirs': np.full((21, 3, 10), 1e-3),
        'posedirs': np.zeros((21, 3, 135), np.float16),
        'J_regressor': np.eye(16, 21),
        'weights': np.eye(16)[[*range(16), 15, 3, 6, 12, 9]],
        'kintree_table': np.array([JOINT_PARENTS, range(16)]),
        'hands_mean': np.zeros(45),
        'hands_components': np.eye(45, dtype=np.float16),
        'tip_vertices': np.arange(16, 21),
    }


def _read_hand(path: Path) -> None:
    model = load_hand_model(path)
    posed = model.posed(np.zeros(3), np.zeros(45), np.zeros(10), np.array([0.0, 0.0, 0.5]))
    expect(bool(np.isfinite(posed.keypoints).all()), 'a hand with keypoints that are not finite')


def _pickles(folder: Path) -> Reader:
    fields: dict[str, Any] = {**small_hand(), 'bs_style': 'lbs', 'name': 'hand'}
    contents = [pickle.dumps(fields, protocol=protocol) for protocol in (2, 3, 4, 5)]
    places = [operation_places(content) for content in contents]

    def make(random: Random) -> bytes:
        which = random.randrange(len(contents))
        return damaged_pickle(contents[which], places[which], random.choice(contents), random)

    return file_reader(folder, 'MANO_RIGHT.pkl', make, _read_hand)


def mano_pickle(content: bytes) -> Callable[[Path], Reader]:
    """A pickle of MANO's own structure and size."""

    def setup(folder: Path) -> Reader:
        places = operation_places(content)
        return file_reader(
            folder, 'MANO_RIGHT.pkl', lambda r: damaged_pickle(content, places, content, r), _read_hand
        )

    return setup


def _archives() -> list[bytes]:
    contents = []
    for save in (np.savez, np.savez_compressed):
        buffer = io.BytesIO()
        save(buffer, **small_hand())  # type: ignore[arg-type]
        contents.append(buffer.getvalue())
    return contents


def _json_files(name: str, tree: Any, read: Read) -> Callable[[Path], Reader]:
    return lambda folder: file_reader(folder, name, lambda random: json_bytes(tree, random), read)


def _read_boxes(path: Path) -> None:
    boxes = load_boxes(path)
    for box in boxes.get(Path('0001.jpg')) or ():
        x0, y0, x1, y1 = box.bbox_px
        expect(bool(np.isfinite(box.bbox_px).all()) and x0 < x1 and y0 < y1, f'box {box.bbox_px}')


def _read_cameras(path: Path) -> None:
    numbers = load_cameras(path).get(Path('0001.jpg'))
    if numbers is not None:
        expect(bool(np.isfinite(numbers).all()) and min(numbers[:2]) > 0, f'intrinsics {numbers}')


_BOXES = {
    '0001.jpg': [{'side': 'left', 'bbox': [1.0, 2.0, 30.5, 40.0], 'score': 0.5}],
    'a/2.jpg': [{'side': 'right', 'bbox': [1, 2, 3, 4]}, {'side': 'left', 'bbox': [5, 6, 7, 8]}],
    '3.jpg': [],
}
_CAMERAS = {'0001.jpg': [600.0, 600.0, 320.0, 240.0], 'left/2.jpg': [500, 501, 10, 11]}


def _configurations(folder: Path) -> Reader:
    kinds = {
        'mask2hand.yaml': Mask2HandTrainingConfiguration,
        'maskhand.yaml': MaskHandTrainingConfiguration,
        'adapt.yaml': AdaptationConfiguration,
    }
    contents = {name: (_CONFIGURATIONS / name).read_bytes() for name in kinds}
    # Aliases of aliases, and dates and numbers that only look like such.
    bomb = '\n'.join(['a0: &a0 [x, x]', *(f'a{i}: &a{i} [*a{i - 1}, *a{i - 1}]' for i in range(1, 40))])
    odd = (
        bomb,
        'steps: *x',
        'loop: &x {loop: *x}',
        'steps: 2001-99-99',
        f'steps: {"9" * 5000}',
        '? [1]\n: 2',
    )
    odd += (
        '[' * 5000,
        '!!python/object/apply:os.getcwd []',
        'steps: 1:99:99',
        'loop: 0b_',
        '\ufeff\0',
        '- ' * 3000,
    )

    def make(random: Random) -> bytes:
        name = random.choice(list(contents))
        kind = random.randrange(8)
        if kind == 0:
            content = random.choice(odd).encode()
            content = damaged(content, contents[name], random) if random.random() < 0.5 else content
        elif kind < 5:
            tree = changed_tree(yaml.safe_load(contents[name]), random)
            try:
                content = yaml.safe_dump(tree, allow_unicode=True).encode('utf-8', 'surrogatepass')
            except RecursionError:  # too deep for PyYAML to write
                content = b'steps: ' + b'[' * 3000
        else:
            content = damaged(contents[name], contents[random.choice(list(contents))], random)
        return bytes([list(contents).index(name)]) + content

    def read(path: Path) -> None:
        content = path.read_bytes()
        path.write_bytes(content[1:])
        load_configuration(path, list(kinds.values())[content[0] % len(kinds)])

    return file_reader(folder, 'training.yaml', make, read)


def _engines(folder: Path) -> Reader:
    key = EngineKey('a' * 64, 'b' * 64, '8.6.0', 'NVIDIA H100', '9.0', 'fp16', (1, 2, 4), 1, 'd' * 64)
    cache = EngineCache(folder)
    cache.store('hand', key, bytes(range(256)) * 4)
    path = cache.path_of('hand', key)
    content = path.read_bytes()
    start = content.index(b'{')
    header = content[start : content.index(b'}', content.index(b'"sha256"')) + 1]

    def make(random: Random) -> bytes:
        if random.random() < 0.5:
            return damaged(content, content, random)
        changed = json_bytes(json.loads(header), random)[: random.choice((2**16, 2**16, 2**20))]
        return (
            content[: start - 8]
            + len(changed).to_bytes(8, 'little')
            + changed
            + content[start + len(header) :]
        )

    def read(file: Path) -> None:
        cache.files()
        engine = cache.load('hand', key)
        expect(engine == bytes(range(256)) * 4, 'an engine that is not the one kept')

    return file_reader(folder, path.name, make, read, mode=0o600)


def _picture() -> np.ndarray:
    noise = np.random.default_rng(0).integers(0, 256, (48, 64, 3), np.uint8)
    return cv2.GaussianBlur(noise, (9, 9), 0)


def _encoded(*endings: str, depth: bool = False) -> list[bytes]:
    picture = _picture()[..., 0].astype(np.uint16) * 20 if depth else _picture()
    return [cv2.imencode(ending, picture)[1].tobytes() for ending in endings]


def _arrays() -> list[bytes]:
    contents = []
    for kind in (np.float32, np.float64, np.float16):
        buffer = io.BytesIO()
        np.save(buffer, _picture()[..., 0].astype(kind) / 100)
        contents.append(buffer.getvalue())
    return contents


def _read_depth(path: Path) -> None:
    depth_m = read_depth(path)
    expect(depth_m.dtype == np.float32 and depth_m.ndim == 2, f'depth {depth_m.dtype} {depth_m.shape}')
    expect(bool(np.isfinite(depth_m).all() and (depth_m >= 0).all()), 'depth that is not finite or negative')


def _read_mask(path: Path) -> None:
    mask = read_mask(path)
    expect(mask.dtype == bool and mask.ndim == 2, f'mask {mask.dtype} {mask.shape}')


def _read_image(path: Path) -> None:
    image = read_image(path)
    expect(image.dtype == np.uint8 and image.ndim == 3 and image.shape[2] == 3, f'image {image.shape}')


def _videos(ending: str, code: str) -> Callable[[Path], Reader]:
    def setup(folder: Path) -> Reader:
        whole = folder / f'whole{ending}'
        video = cv2.VideoWriter(str(whole), cv2.VideoWriter_fourcc(*code), 30.0, (64, 48))
        for shift in range(12):
            video.write(np.roll(_picture(), shift, axis=1))
        video.release()
        content = whole.read_bytes()
        return file_reader(folder, f'clip{ending}', lambda r: damaged(content, content, r), _read_video)

    return setup


def _read_video(path: Path) -> None:
    count_frames(path)
    stamp = -1.0
    for number, frame in enumerate(read_frames(path)):
        expect(frame.stamp > stamp, f'frame {number} has stamp {frame.stamp} after {stamp}')
        stamp = frame.stamp
        if number > 300:  # as many as that a damaged video of twelve may have
            break


def _mano_structure() -> bytes:
    import lzma

    with lzma.open(Path(__file__).parents[2] / 'test' / 'data' / 'chumpy_mano_right.pkl.xz') as file:
        return file.read()


PICTURE_ENDINGS = ('.jpg', '.png', '.webp', '.tif', '.bmp', '.ppm')

FILE_TARGETS = (
    Target('hand_pickle', 'file', 20_000, _pickles),
    Target('mano_pickle', 'file', 2_000, lambda folder: mano_pickle(_mano_structure())(folder), 1000),
    Target('hand_npz', 'file', 10_000, damaged_files('hand.npz', _archives, _read_hand)),
    Target('boxes_json', 'file', 15_000, _json_files('boxes.json', _BOXES, _read_boxes)),
    Target('cameras_json', 'file', 15_000, _json_files('cameras.json', _CAMERAS, _read_cameras)),
    Target('training_yaml', 'file', 6_000, _configurations, 2000),
    Target('engine_cache', 'file', 15_000, _engines),
    Target('depth_npy', 'file', 10_000, damaged_files('depth.npy', _arrays, _read_depth)),
    Target(
        'depth_png', 'file', 8_000, damaged_files('d.png', lambda: _encoded('.png', depth=True), _read_depth)
    ),
    Target('mask_png', 'file', 4_000, damaged_files('m.png', lambda: _encoded('.png'), _read_mask)),
    Target(
        'pictures', 'file', 10_000, damaged_files('i.png', lambda: _encoded(*PICTURE_ENDINGS), _read_image)
    ),
    Target('video_avi', 'file', 600, _videos('.avi', 'MJPG'), 300),
    Target('video_mp4', 'file', 600, _videos('.mp4', 'mp4v'), 300),
)
