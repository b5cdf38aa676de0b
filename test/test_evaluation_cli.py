"""hand-mesh eval on rendered hands, as one would call it. On images: see test_cli."""

import csv

import pytest
from maskhand_file import write_maskhand

from hand_mesh_ros.cli.main import main


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
    ],
)
def test_what_cannot_work_is_refused(options, named, capsys):
    assert main(['eval', *options]) == 2
    assert named in capsys.readouterr().err
