"""Where the weights of the package are."""

from __future__ import annotations

from pathlib import Path

_DATA = Path(__file__).parent / 'data'

MASKHAND_PATH = _DATA / 'maskhand.safetensors'
MASK2HAND_PATH = _DATA / 'mask2hand.safetensors'
REFINE_NET_PATH = _DATA / 'mask2hand_refinement.safetensors'
