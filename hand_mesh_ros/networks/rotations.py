"""Rotations in the form that networks work with: six numbers, the matrix's first two columns.

Source: Y. Zhou et al., "On the continuity of rotation representations in neural networks", 2019.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import normalize

#: Length below which a vector counts as zero when it is brought to length one.
_SMALL_LENGTH = 1e-6


def six_numbers(matrices: Tensor) -> Tensor:
    """The six numbers (...,6) of rotation matrices (...,3,3): first column, then second column."""
    return matrices[..., :2].transpose(-1, -2).flatten(-2)


def matrices_from_six(numbers: Tensor) -> Tensor:
    """Rotation matrices (...,3,3) from any six numbers (...,6), by Gram-Schmidt on the two columns.

    Finite for every finite input. Where the numbers hold no rotation (a zero or parallel column) neither
    does the result.
    """
    first, second = numbers[..., :3], numbers[..., 3:]
    x = normalize(first, dim=-1, eps=_SMALL_LENGTH)
    y = normalize(second - (x * second).sum(dim=-1, keepdim=True) * x, dim=-1, eps=_SMALL_LENGTH)
    return torch.stack([x, y, torch.linalg.cross(x, y)], dim=-1)


def axis_angles(matrices: Tensor) -> Tensor:
    """Axis-angle vectors (...,3), angles 0 to pi radians, of rotation matrices (...,3,3).

    Goes through the quaternion by its largest component (S. Sarabandi, F. Thomas, "Accurate computation
    of quaternions from rotation matrices", 2018), so that values and gradients are sound near zero and
    near pi. At pi exactly either sign of the axis may come back.
    """
    m00, m01, m02, m10, m11, m12, m20, m21, m22 = matrices.flatten(-2).unbind(dim=-1)
    # Row k is 4 q_k times the quaternion (w, x, y, z): every row says the same, the longest one best.
    rows = torch.stack(
        [
            torch.stack([1 + m00 + m11 + m22, m21 - m12, m02 - m20, m10 - m01], dim=-1),
            torch.stack([m21 - m12, 1 + m00 - m11 - m22, m10 + m01, m02 + m20], dim=-1),
            torch.stack([m02 - m20, m10 + m01, 1 - m00 + m11 - m22, m21 + m12], dim=-1),
            torch.stack([m10 - m01, m02 + m20, m21 + m12, 1 - m00 - m11 + m22], dim=-1),
        ],
        dim=-2,
    )
    diagonal = torch.stack([rows[..., k, k] for k in range(4)], dim=-1)
    largest = diagonal.argmax(dim=-1)[..., None, None]
    row = rows.gather(-2, largest.expand(*largest.shape[:-1], 4)).squeeze(-2)
    quaternion = normalize(row, dim=-1)
    quaternion = torch.where(quaternion[..., :1] < 0, -quaternion, quaternion)
    w, xyz = quaternion[..., :1], quaternion[..., 1:]
    squared_sine = (xyz * xyz).sum(dim=-1, keepdim=True)
    small = squared_sine < _SMALL_LENGTH
    # The root gets a harmless number where the series is taken: its gradient at zero is infinite.
    sine = torch.where(small, torch.ones_like(squared_sine), squared_sine).sqrt()
    # Half angles: of a quaternion of length one, atan2(sine, w) = 2 atan(sine / (1 + w))
    factor = torch.where(small, 2 + squared_sine / 3, 4 * torch.atan(sine / (1 + w)) / sine)
    return factor * xyz
