"""Data sets of any known kind, told by their files."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from published_hand import write_json
from test_dexycb import write_dexycb
from test_freihand import write_freihand
from test_ho3d import write_ho3d

from hand_mesh_ros.datasets.opening import open_dataset
from hand_mesh_ros.errors import ConfigurationError, FileFormatError


def test_an_index_is_opened_by_its_file_and_by_its_folder(tmp_path: Path) -> None:
    write_json(tmp_path / 'index.json', {'samples': [{'id': 'one', 'image': 'one.jpg'}]})
    for path in (tmp_path, tmp_path / 'index.json'):
        assert [hand.id for hand in open_dataset(path)] == ['one']
    with pytest.raises(ConfigurationError, match='no splits'):
        open_dataset(tmp_path, 'evaluation')


@pytest.mark.parametrize('write', [write_freihand, write_ho3d, write_dexycb])
def test_a_split_that_the_data_set_does_not_have_is_refused(tmp_path: Path, write: Any) -> None:
    with pytest.raises(ConfigurationError, match=r"'test'; choose of"):
        open_dataset(write(tmp_path), 'test')


def test_what_is_no_data_set_is_told_what_was_looked_for(tmp_path: Path) -> None:
    with pytest.raises(FileFormatError, match=r'index\.json.*FreiHAND.*HO-3D.*DexYCB'):
        open_dataset(tmp_path)
    with pytest.raises(FileFormatError, match='no such file or folder'):
        open_dataset(tmp_path / 'nothing')
