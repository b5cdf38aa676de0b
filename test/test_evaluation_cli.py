"""hand-mesh eval on rendered hands, as one would call it. On images: see test_cli."""

import csv
import json
from pathlib import Path

import cv2
import numpy as np
import pytest
from mask2hand_file import write_mask2hand
from maskhand_file import write_maskhand

from hand_mesh_ros.cli.main import main
from hand_mesh_ros.datasets.demo_clip import render_demo_clip
from hand_mesh_ros.sources import read_frames


def test_methods_on_rendered_hands_are_compared(tmp_path, capsys):
    weights = write_maskhand(tmp_path / 'maskhand.safetensors')
    out = tmp_path / 'out'
    options = ['--count', '6', '--steps', '1', '2', '--weights', str(weights), '--out', str(out)]
    assert main(['eval', 'synthetic', *options]) == 0
    table = capsys.readouterr().out
    assert table == (out / 'table.md').read_text()
    rows = ['world-landmarks', 'fit', 'maskhand-t1', 'maskhand-t2', 'maskhand-lifter', 'maskhand-no-cues']
    assert all(f'| synthetic | {row} | 6 |' in table for row in rows)
    with open(out / 'samples.csv', newline='') as file:
        samples = list(csv.DictReader(file))
    assert [sample['id'] for sample in samples if sample['method'] == 'fit'] == [*'012345']
    assert all(float(sample['pa_mpjpe_mm']) > 0 for sample in samples)
    assert (out / 'reliability_fit.png').is_file()
    assert not (out / 'reliability_world-landmarks.png').exists()  # landmarks have no confidence


def test_masks_of_rendered_hands(tmp_path, capsys):
    weights, out = write_mask2hand(tmp_path / 'mask2hand.safetensors'), tmp_path / 'out'
    assert main(['eval', 'silhouettes', '--count', '3', '--weights', str(weights), '--out', str(out)]) == 0
    table = capsys.readouterr().out
    assert table == (out / 'table.md').read_text()
    rows = ['mask2hand', 'mask2hand-first', 'mask2hand-best', 'mean-pose']
    assert all(f'| {dataset} | {row} | 3 |' in table for dataset in ('perfect', 'ragged') for row in rows)
    assert '| iou | iou_true |' in table
    with open(out / 'samples.csv', newline='') as file:
        samples = [sample for sample in csv.DictReader(file) if sample['method'] == 'mask2hand-best']
    assert [(sample['dataset'], sample['id']) for sample in samples[2:4]] == [
        ('perfect', '2'),
        ('ragged', '0'),
    ]


def write_index(folder: Path, picture: np.ndarray, ids: list[str]) -> Path:
    """An index of one picture, shown under several ids, of whose hand only the side is known."""
    folder.mkdir()
    samples = [{'id': id_, 'set': 'clip', 'image': f'{id_}.png', 'side': 'right'} for id_ in ids]
    for sample in samples:
        cv2.imwrite(str(folder / sample['image']), picture[:, :, ::-1])
    (folder / 'index.json').write_text(json.dumps({'samples': samples}))
    return folder


def test_several_data_sets_make_one_table_and_one_of_the_hands_they_share(tmp_path, capsys):
    clip = render_demo_clip(tmp_path / 'clip.mp4', seconds=0.1)
    picture = next(iter(read_frames(clip.video))).image
    first = write_index(tmp_path / 'first', picture, ['a', 'b'])
    second = write_index(tmp_path / 'second', picture, ['b'])
    assert main(['eval', str(first), str(second), '--method', 'fit', '--same-hands', '--worst', '0']) == 0
    each, same = capsys.readouterr().out.split('every method found in every data set:')
    assert '| clip | fit | 2 | 2 |' in each and f'| clip {second} | fit | 1 | 1 |' in each
    assert '| clip | fit | 1 | 1 |' in same and f'| clip {second} | fit | 1 | 1 |' in same


def test_mask2hand_stands_beside_the_others_where_masks_are_annotated(tmp_path, capsys):
    weights, out = write_mask2hand(tmp_path / 'mask2hand.safetensors'), tmp_path / 'out'
    clip = render_demo_clip(tmp_path / 'clip.mp4', seconds=0.1)
    picture = next(iter(read_frames(clip.video))).image
    folder, plain = (
        write_index(tmp_path / 'masks', picture, ['a']),
        write_index(tmp_path / 'plain', picture, ['b']),
    )
    document = json.loads((folder / 'index.json').read_text())
    document['samples'][0] |= {'mask': 'mask.png', 'set': 'masked'}
    (folder / 'index.json').write_text(json.dumps(document))
    mask = np.zeros(picture.shape[:2], np.uint8)
    cv2.ellipse(mask, (200, 200), (30, 60), 0, 0, 360, 255, -1)
    cv2.imwrite(str(folder / 'mask.png'), mask)
    options = ['--method', 'fit', '--method', 'mask2hand', '--mask-weights', str(weights), '--out', str(out)]
    assert main(['eval', str(folder), str(plain), *options]) == 0
    table = capsys.readouterr().out
    assert '| masked | mask2hand | 1 |' in table and '| clip | fit | 1 | 1 |' in table
    assert '| clip | mask2hand' not in table and '| iou |' in table
    assert (out / 'worst' / 'sheet_001.png').is_file()
    assert main(['eval', str(plain), *options]) == 2
    assert 'mask2hand needs masks' in capsys.readouterr().err


def test_a_folder_that_cannot_be_made_is_told_at_once(tmp_path, capsys):
    (tmp_path / 'file').touch()
    assert main(['eval', 'synthetic', '--out', str(tmp_path / 'file' / 'out')]) == 2
    assert 'cannot be made' in capsys.readouterr().err


def test_one_method_is_enough(capsys):
    assert main(['eval', 'synthetic', '--count', '2', '--method', 'fit']) == 0
    assert 'maskhand' not in capsys.readouterr().out


@pytest.mark.parametrize(
    ('options', 'named'),
    [
        (['synthetic', '--count', '0'], '--count'),
        (['synthetic', '--steps', '3', '0'], '--steps'),
        (['synthetic', '--method', 'maskhand', '--weights', 'nowhere.safetensors'], 'nowhere.safetensors'),
        (['nowhere.json'], 'nowhere.json'),
        (['synthetic', '--joint-map', 'map.json'], '--joint-map'),
        (['index.json', '--covered', '0.2'], '--covered'),
        (['synthetic', 'index.json'], 'synthetic'),
        (['synthetic', '--same-hands'], '--same-hands'),
        (['synthetic', '--method', 'mask2hand'], 'silhouettes'),
        (['synthetic', '--mask-weights', 'mask2hand.safetensors'], '--mask-weights'),
        (['silhouettes', '--method', 'mask2hand'], '--method'),
        (['silhouettes', '--covered', '0.2'], '--covered'),
        (['silhouettes', '--weights', 'nowhere.safetensors'], 'nowhere.safetensors'),
        (['silhouettes', 'synthetic'], 'stands alone'),
    ],
)
def test_what_cannot_work_is_refused(options, named, capsys):
    assert main(['eval', *options]) == 2
    assert named in capsys.readouterr().err
