"""Depth images and masks are read as what they are, or refused with path and remedy."""

from __future__ import annotations

import pickle
import struct
from pathlib import Path

import cv2
import numpy as np
import pytest

from hand_mesh_ros.depth_files import (
    DEPTH_SUFFIXES,
    MASK_SUFFIXES,
    CompanionFiles,
    read_depth,
    read_mask,
    write_depth,
    write_mask,
)
from hand_mesh_ros.errors import ConfigurationError, FileFormatError

DEPTH_M = np.array([[0.0, 0.4, 0.4567], [1.5, 65.535, 0.001]], np.float32)


def test_png_holds_millimetres(tmp_path: Path) -> None:
    write_depth(tmp_path / 'a.png', DEPTH_M)
    assert cv2.imread(str(tmp_path / 'a.png'), cv2.IMREAD_UNCHANGED).dtype == np.uint16
    depth_m = read_depth(tmp_path / 'a.png')
    assert depth_m.dtype == np.float32
    np.testing.assert_allclose(depth_m, DEPTH_M, atol=0.0005001)


def test_what_is_no_depth_is_written_as_nothing(tmp_path: Path) -> None:
    write_depth(tmp_path / 'a.png', np.array([[np.nan, np.inf, -np.inf, -0.5, 70.0, 0.5]]))
    np.testing.assert_allclose(read_depth(tmp_path / 'a.png'), [[0, 0, 0, 0, 0, 0.5]])


@pytest.mark.parametrize('dtype', ['<f2', '<f4', '>f4', '<f8'])
def test_npy_holds_metres(tmp_path: Path, dtype: str) -> None:
    stored = np.asfortranarray([[0.0, 0.5, np.nan], [np.inf, -1.0, 2.0]], dtype)
    np.save(tmp_path / 'a.npy', stored)
    depth_m = read_depth(tmp_path / 'a.npy')
    np.testing.assert_array_equal(depth_m, np.array([[0, 0.5, 0], [0, 0, 2]], np.float32))
    assert depth_m.dtype == np.float32 and depth_m.flags.writeable


def test_a_depth_image_without_any_depth_is_one(tmp_path: Path) -> None:
    write_depth(tmp_path / 'a.png', np.zeros((3, 4)))
    np.save(tmp_path / 'a.npy', np.full((3, 4), np.nan))
    assert not read_depth(tmp_path / 'a.png').any() and not read_depth(tmp_path / 'a.npy').any()


def _pickled(path: Path) -> None:
    np.save(path, np.array([[{}]], object), allow_pickle=True)


def _claiming_too_much(path: Path) -> None:
    header = b"{'descr': '<f4', 'fortran_order': False, 'shape': (900000, 900000), }".ljust(117) + b'\n'
    path.write_bytes(b'\x93NUMPY\x01\x00' + struct.pack('<H', len(header)) + header + bytes(64))


@pytest.mark.parametrize(
    ('name', 'write', 'told'),
    [
        ('a.png', lambda path: cv2.imwrite(str(path), np.zeros((4, 4), np.uint8)), 'millimetres'),
        ('a.png', lambda path: cv2.imwrite(str(path), np.zeros((4, 4, 3), np.uint16)), 'greyscale'),
        ('a.png', lambda path: path.write_bytes(b'\x89PNG\r\n\x1a\n' + bytes(20)), 'complete'),
        ('a.png', lambda path: path.write_bytes(b''), 'as an image'),
        ('a.png', lambda path: None, 'cannot be read'),
        ('a.npy', lambda path: None, 'cannot be read'),
        ('a.npy', lambda path: path.write_bytes(b''), 'complete'),
        ('a.npy', lambda path: path.write_bytes(pickle.dumps([1.0])), 'array'),
        ('a.npy', _pickled, 'array'),
        ('a.npy', _claiming_too_much, 'complete'),
        ('a.npy', lambda path: np.save(path, np.ones((4, 4), np.uint16)), 'float'),
        ('a.npy', lambda path: np.save(path, np.ones((1, 4, 4))), '1x4x4'),
        ('a.npy', lambda path: np.save(path, np.full((4, 4), 640.0)), 'metres'),
        ('a.npy', lambda path: path.write_bytes(_archive(path)), 'archive'),
    ],
)
def test_what_is_no_depth_image_is_refused(tmp_path: Path, name: str, write, told: str) -> None:
    write(tmp_path / name)
    with pytest.raises(FileFormatError, match=told) as refusal:
        read_depth(tmp_path / name)
    assert str(tmp_path / name) in str(refusal.value)


def _archive(path: Path) -> bytes:
    np.savez(path.with_suffix('.npz'), depth=np.ones((4, 4)))
    return path.with_suffix('.npz').read_bytes()


def test_masks_are_read_whatever_picture_they_are(tmp_path: Path) -> None:
    mask = np.zeros((48, 64), bool)
    mask[10:30, 20:50] = True
    write_mask(tmp_path / 'grey.png', mask)
    cv2.imwrite(str(tmp_path / 'ones.png'), mask.astype(np.uint8))
    cv2.imwrite(str(tmp_path / 'colour.png'), np.dstack([mask * 0, mask * 0, mask * 200]))
    cv2.imwrite(str(tmp_path / 'alpha.png'), np.dstack([mask * 255] * 3 + [np.full_like(mask, 255) * 255]))
    for file in tmp_path.iterdir():
        assert read_mask(file).dtype == bool
        np.testing.assert_array_equal(read_mask(file), mask, err_msg=file.name)
    cv2.imwrite(str(tmp_path / 'lossy.jpg'), mask * np.uint8(255))
    assert (read_mask(tmp_path / 'lossy.jpg') == mask).mean() > 0.99


def test_all_black_and_all_white_masks_are_masks(tmp_path: Path) -> None:
    for full in (False, True):
        write_mask(tmp_path / 'a.png', np.full((4, 5), full))
        assert (read_mask(tmp_path / 'a.png') == full).all()


def test_a_depth_image_is_no_mask(tmp_path: Path) -> None:
    write_depth(tmp_path / 'a.png', DEPTH_M)
    with pytest.raises(FileFormatError, match='8 bits'):
        read_mask(tmp_path / 'a.png')


def test_files_are_found_by_base_name_and_folder(tmp_path: Path) -> None:
    depth = tmp_path / 'depth'
    for name in ('0001.png', '0002.NPY', '0003.png', '0003.npy', 'clip_000007.png', 'left/0001.png'):
        (depth / name).parent.mkdir(parents=True, exist_ok=True)
        (depth / name).touch()
    (depth / '0004.txt').touch()
    files = CompanionFiles(depth, DEPTH_SUFFIXES)
    images = tmp_path / 'images'
    assert files.find(images / '0001.jpg') == depth / '0001.png'
    assert files.find(images / 'left' / '0001.jpg') == depth / 'left' / '0001.png'
    assert files.find(images / 'right' / '0001.jpg') == depth / '0001.png'
    assert files.of(images / '0002.jpg') == depth / '0002.NPY'
    assert files.of(images / '0003.jpg') == depth / '0003.png'
    assert files.find(images / '0004.jpg') is None
    assert files.of(images / 'clip.mp4', 7) == depth / 'clip_000007.png'
    with pytest.raises(FileFormatError, match=r'no 0004\.png or 0004\.npy'):
        files.of(images / '0004.jpg')
    with pytest.raises(FileFormatError, match=r'clip_000008\.png .* frame 8 of'):
        files.of(images / 'clip.mp4', 8)


def test_a_folder_without_such_files_is_refused(tmp_path: Path) -> None:
    (tmp_path / 'notes.txt').touch()
    with pytest.raises(ConfigurationError, match='ends in'):
        CompanionFiles(tmp_path, MASK_SUFFIXES)
    with pytest.raises(ConfigurationError, match='no such folder'):
        CompanionFiles(tmp_path / 'nowhere', MASK_SUFFIXES)


def test_an_npy_with_a_header_that_is_no_python_is_refused(tmp_path: Path) -> None:
    np.save(tmp_path / 'a.npy', DEPTH_M)
    content = (tmp_path / 'a.npy').read_bytes()
    (tmp_path / 'a.npy').write_bytes(content.replace(b'}', b'('))
    with pytest.raises(FileFormatError, match='a.npy'):
        read_depth(tmp_path / 'a.npy')
