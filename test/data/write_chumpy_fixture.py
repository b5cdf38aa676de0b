"""Writes chumpy_mano_right.pkl.xz: the open hand model, pickled by chumpy in the structure of MANO's files.

Also writes chumpy_mano_right.npz: the same numbers, as chumpy and scipy themselves evaluate them.
chumpy 0.70 needs an old numpy and some help on Python 3.11; in an environment of its own:

    pip install numpy==1.23.5 scipy==1.10.1 six 'setuptools<70' wheel
    pip install --no-build-isolation --no-deps chumpy==0.70
    python test/data/write_chumpy_fixture.py

The numbers are coarse so that the files stay small: they are there to be read, not to look like a hand.
"""

from __future__ import annotations

import inspect
import lzma
import pickle
from pathlib import Path

import numpy as np
from scipy import sparse

# chumpy asks for what Python 3.11 no longer has
inspect.getargspec = inspect.getfullargspec  # type: ignore[attr-defined]
import chumpy as ch  # noqa: E402

_HERE = Path(__file__).parent
_OPEN_HAND = _HERE.parents[1] / 'hand_mesh_ros' / 'hand_model' / 'data' / 'open_hand_right.npz'

#: MANO's files have 20 shape components, of which its users take the first 10.
_STORED_BETAS = 20


def coarse_weights(weights: np.ndarray) -> np.ndarray:
    """Weights in whole 64ths, whose rows still sum to 1."""
    parts = np.floor(weights * 64)
    parts[np.arange(len(parts)), weights.argmax(axis=1)] += 64 - parts.sum(axis=1)
    return parts / 64


def main() -> None:
    model = np.load(_OPEN_HAND)
    v_template = np.round(model['v_template'], 4).astype(np.float64)
    shapedirs = np.zeros((*v_template.shape, _STORED_BETAS))
    shapedirs[:, :, :10] = np.round(model['shapedirs'], 4)
    shapedirs[:, :, 10:] = 9.0
    posedirs = np.round(model['posedirs'], 4).astype(np.float64)
    posedirs[:, :, np.arange(posedirs.shape[2]) % 9 != 1] = 0.0
    regressor = np.where(model['J_regressor'] > 0.02, np.round(model['J_regressor'], 3), 0.0)
    regressor /= regressor.sum(axis=1, keepdims=True)
    stored = {
        'v_template': ch.array(v_template),
        'f': model['f'].astype(np.uint32),
        'shapedirs': ch.array(shapedirs)[:, :, :10],
        'posedirs': ch.array(posedirs),
        'J_regressor': sparse.csc_matrix(regressor),
        'J': regressor @ v_template,
        'weights': coarse_weights(model['weights']),
        'kintree_table': model['kintree_table'].astype(np.uint32),
        'hands_mean': np.round(model['hands_mean'], 3).astype(np.float64),
        'hands_components': np.round(model['hands_components'], 2).astype(np.float64),
        'bs_style': 'lbs',
        'bs_type': 'lrotmin',
    }
    evaluated = {
        'v_template': stored['v_template'].r,
        'shapedirs': stored['shapedirs'].r,
        'posedirs': stored['posedirs'].r,
        'J_regressor': stored['J_regressor'].toarray(),
        'weights': stored['weights'],
        'f': stored['f'],
        'hands_mean': stored['hands_mean'],
        'hands_components': stored['hands_components'],
    }
    pickled = pickle.dumps(stored, protocol=2)
    (_HERE / 'chumpy_mano_right.pkl.xz').write_bytes(lzma.compress(pickled, preset=9))
    np.savez_compressed(_HERE / 'chumpy_mano_right.npz', **evaluated)


if __name__ == '__main__':
    main()
