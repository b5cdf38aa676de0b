"""What a depth camera makes of a scene: a model of active stereo cameras, as of a RealSense D4xx.

Two imagers side by side are matched; what is measured is disparity, in pixels, and depth = focal length x
baseline / disparity. The errors are made where they arise, in disparity, so they grow with depth squared.

The levels of :class:`DepthNoise` are of the size that is usual for such cameras, not measured on one: about
a twelfth of a pixel of RMS disparity error, disparity in steps of 1/32 px, lasting waves on flat walls. The
strip on one side of each object that only one imager sees follows from the geometry; loss at steep surfaces
and lateral noise at edges were measured by C. Nguyen, S. Izadi, D. Lovell, "Modeling Kinect sensor noise",
3DIMPVT 2012. How much is lost at borders and in holes is chosen by eye to be rather too much than too little.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from statistics import NormalDist

import cv2
import numpy as np

from hand_mesh_ros.camera import Camera
from hand_mesh_ros.errors import ConfigurationError

#: Depth that differs by more than this share within 3 x 3 pixels is two surfaces, not one that is slanted.
#: (At 0.5 m and 550 px of focal length, a surface seen at 80 degrees differs by 2 %.)
_BORDER_SHARE = 0.03

_BOX = np.ones((3, 3), np.uint8)
#: Over how many pixels the shift of a border stays alike, and the furthest that it goes.
_RAGGED_PX, _MOST_SHIFT_PX = 4.0, 3
#: Size of the pieces that drop out at borders, in pixels.
_PIECE_PX = 2
#: Interpolated white noise deviates less, by this factor.
_LOST_BY_INTERPOLATION = 1.165


@dataclass(frozen=True)
class DepthNoise:
    """Levels of a depth camera's errors; the defaults are those of a RealSense D4xx at 640x480.

    Shares are of the pixels concerned, 0..1; what is given in pixels is in pixels of the image.
    """

    baseline_m: float = 0.05  #: between the two imagers, the second one to the right
    disparity_px: float = 0.08  #: RMS error of disparity
    correlation_px: float = 1.5  #: standard deviation of the window over which that error is alike
    wave_px: float = 0.03  #: RMS error of disparity that is alike over ``wave_length_px``
    wave_length_px: float = 40.0
    disparity_step_px: float = 1.0 / 32.0  #: 0 for none
    depth_step_m: float = 0.001  #: 0 for none
    border_shift_px: float = 1.2  #: RMS shift of the borders of things, smooth along them
    border_fattening_px: float = 0.6  #: mean of that shift, outwards
    flying: float = 0.25  #: share, of the pixels at a border, whose depth lies between the two surfaces
    edge_dropout: float = 0.25  #: share, of the pixels at a border, that are lost
    shadows: bool = True  #: what the second imager does not see is lost
    speckles: float = 0.002  #: share of single pixels that are lost
    holes: float = 0.004  #: share of pixels lost in blobs of ``hole_px``
    hole_px: float = 7.0
    grazing_deg: tuple[float, float] = (70.0, 83.0)  #: from none to all surfaces seen so steeply are lost
    range_m: tuple[float, float] = (0.2, 6.0)  #: depths that can be measured

    def __post_init__(self) -> None:
        for name in ('flying', 'edge_dropout', 'speckles', 'holes'):
            if not 0.0 <= getattr(self, name) <= 1.0:
                raise ConfigurationError(f'{name} must be a share of pixels, 0 to 1')
        for name in ('baseline_m', 'correlation_px', 'wave_length_px', 'hole_px'):
            if not 0.0 < getattr(self, name) < math.inf:
                raise ConfigurationError(f'{name} must be positive')
        for name in ('disparity_px', 'wave_px', 'disparity_step_px', 'depth_step_m', 'border_shift_px'):
            if not 0.0 <= getattr(self, name) < math.inf:
                raise ConfigurationError(f'{name} must not be negative')
        if not 0.0 < self.range_m[0] < self.range_m[1] or not 0.0 < self.grazing_deg[0] < 90.0:
            raise ConfigurationError('range_m and grazing_deg must be ranges of depths and of angles')


#: The levels of a camera that errs nowhere.
NO_NOISE = DepthNoise(
    disparity_px=0.0,
    wave_px=0.0,
    disparity_step_px=0.0,
    depth_step_m=0.0,
    border_shift_px=0.0,
    border_fattening_px=0.0,
    flying=0.0,
    edge_dropout=0.0,
    shadows=False,
    speckles=0.0,
    holes=0.0,
    grazing_deg=(89.9, 90.0),
)


def camera_depth(
    depth_m: np.ndarray, camera: Camera, rng: np.random.Generator, noise: DepthNoise | None = None
) -> np.ndarray:
    """What a depth camera measures, (H,W) float32 metres, 0 where nothing; two calls differ as frames do.

    :param depth_m: (H,W) the scene as it is, metres along the optical axis; 0 or not finite for nothing.
    :param camera: whose image that is; its ``fx`` counts.
    :param noise: None for the default levels.
    """
    noise = noise or DepthNoise()
    depth_m = np.asarray(depth_m, np.float32)
    scale = np.float32(camera.fx * noise.baseline_m)
    with np.errstate(divide='ignore'):
        true = np.where(np.isfinite(depth_m) & (depth_m > 0), scale / depth_m, np.float32(0.0))
    disparity = _with_ragged_borders(true, noise, rng)
    nearer, farther = cv2.dilate(disparity, _BOX), cv2.erode(disparity, _BOX)
    at_border = farther < nearer * np.float32(1.0 - _BORDER_SHARE)

    lost = rng.random(true.shape, np.float32) < np.float32(noise.speckles)
    if noise.holes > 0:
        lost |= _smooth_field(true.shape, noise.hole_px, rng) > _exceeded_by(noise.holes)
    if noise.shadows:
        lost |= _in_shadow(disparity)
    _lose_steep(lost, disparity, at_border, camera, noise, rng)
    _mix_at_borders(disparity, lost, nearer, farther, at_border, noise, rng)

    disparity += _disparity_error(true.shape, noise, rng)
    if noise.disparity_step_px > 0:
        disparity = _rounded(disparity, noise.disparity_step_px)
    nearest, farthest = scale / noise.range_m[0], scale / noise.range_m[1]
    lost |= (disparity < farthest) | (disparity > nearest)
    measured = scale / np.maximum(disparity, farthest)
    if noise.depth_step_m > 0:
        measured = _rounded(measured, noise.depth_step_m)
    measured[lost] = 0.0
    return measured


def _with_ragged_borders(true: np.ndarray, noise: DepthNoise, rng: np.random.Generator) -> np.ndarray:
    """Disparity (H,W) whose borders are shifted, mostly outwards."""
    # Matching compares windows, and a window with a border in it takes the depth of the surface that has
    # more texture: mostly, not always, the nearer one.
    shift = np.float32(noise.border_shift_px) * _smooth_field(true.shape, _RAGGED_PX, rng)
    steps = np.clip(np.rint(shift + np.float32(noise.border_fattening_px)), -_MOST_SHIFT_PX, _MOST_SHIFT_PX)
    disparity = true.copy()
    for radius in range(1, _MOST_SHIFT_PX + 1):
        kernel = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * radius + 1, 2 * radius + 1))
        outwards, inwards = cv2.dilate(true, kernel), cv2.erode(true, kernel)
        near_border = inwards < outwards * np.float32(1.0 - radius * _BORDER_SHARE)
        np.copyto(disparity, outwards, where=near_border & (steps == radius))
        np.copyto(disparity, inwards, where=near_border & (steps == -radius))
    return disparity


def _mix_at_borders(
    disparity: np.ndarray,
    lost: np.ndarray,
    nearer: np.ndarray,
    farther: np.ndarray,
    at_border: np.ndarray,
    noise: DepthNoise,
    rng: np.random.Generator,
) -> None:
    """Put flying pixels into ``disparity`` and mark dropouts in ``lost``, between two surfaces."""
    rows, columns = np.nonzero(at_border)
    # What is lost at a border is lost in pieces, not pixel by pixel.
    height, width = at_border.shape
    pieces = rng.random((height // _PIECE_PX + 2, width // _PIECE_PX + 2), np.float32)
    y, x = rng.integers(0, _PIECE_PX, 2)
    chance = pieces[(rows + y) // _PIECE_PX, (columns + x) // _PIECE_PX]
    gone = chance < noise.edge_dropout
    lost[rows[gone], columns[gone]] = True
    fly = ~gone & (rng.random(len(rows), np.float32) < noise.flying)
    at = rows[fly], columns[fly]
    disparity[at] = farther[at] + rng.random(len(at[0]), np.float32) * (nearer[at] - farther[at])


def _in_shadow(disparity: np.ndarray) -> np.ndarray:
    """Pixels (H,W) bool that something nearer hides from the second imager."""
    # A pixel in column x is seen by the second imager at x - disparity. Where something further right in the
    # first image is seen left of that, it is in front.
    place = np.arange(disparity.shape[1], dtype=np.float32) - disparity
    leftmost = np.minimum.accumulate(place[:, ::-1], axis=1)[:, ::-1]
    shadow = np.zeros(disparity.shape, bool)
    shadow[:, :-1] = place[:, :-1] > leftmost[:, 1:]
    return shadow


def _lose_steep(
    lost: np.ndarray,
    disparity: np.ndarray,
    at_border: np.ndarray,
    camera: Camera,
    noise: DepthNoise,
    rng: np.random.Generator,
) -> None:
    """Mark in ``lost`` what is seen almost edge-on."""
    # Depth that changes by a share of itself in one pixel belongs to a slope of share * f; disparity changes
    # by the same share.
    change_x = cv2.Sobel(disparity, cv2.CV_32F, 1, 0, scale=1.0 / 8.0)
    change_y = cv2.Sobel(disparity, cv2.CV_32F, 0, 1, scale=1.0 / 8.0)
    slope = cv2.magnitude(change_x, change_y) * np.float32(camera.fx)
    low, high = noise.grazing_deg
    rows, columns = np.nonzero((slope > math.tan(math.radians(low)) * disparity) & ~at_border)
    angles = np.degrees(np.arctan2(slope[rows, columns], disparity[rows, columns]))
    gone = angles > low + (high - low) * rng.random(len(rows), np.float32)
    lost[rows[gone], columns[gone]] = True


def _disparity_error(shape: tuple[int, ...], noise: DepthNoise, rng: np.random.Generator) -> np.ndarray:
    """Error (H,W) float32 of disparity in pixels."""
    white = rng.standard_normal(shape, np.float32)
    # Blurring leaves white noise a deviation of 1 / (2 sqrt(pi) sigma).
    white *= np.float32(noise.disparity_px * max(2.0 * math.sqrt(math.pi) * noise.correlation_px, 1.0))
    alike_nearby = cv2.GaussianBlur(white, (0, 0), noise.correlation_px)
    alike_far = np.float32(noise.wave_px) * _smooth_field(shape, noise.wave_length_px, rng)
    return np.add(alike_nearby, alike_far)


def _smooth_field(shape: tuple[int, ...], length_px: float, rng: np.random.Generator) -> np.ndarray:
    """Noise (H,W) float32 of mean 0 and variance about 1 that changes over ``length_px``."""
    height, width = (math.ceil(n / length_px) + 4 for n in shape)
    coarse = rng.standard_normal((height, width), np.float32) * np.float32(_LOST_BY_INTERPOLATION)
    # Else every frame's field would have its knots at the same pixels.
    x, y = 1.0 + rng.random(2)
    to_coarse = np.array([[1.0 / length_px, 0.0, x], [0.0, 1.0 / length_px, y]])
    return cv2.warpAffine(
        coarse, to_coarse, (shape[1], shape[0]), flags=cv2.INTER_CUBIC | cv2.WARP_INVERSE_MAP
    )


def _exceeded_by(share: float) -> np.float32:
    """The value that a smooth field exceeds in this share of its pixels."""
    return np.float32(NormalDist().inv_cdf(1.0 - min(max(share, 1e-9), 1.0 - 1e-9)))


def _rounded(values: np.ndarray, step: float) -> np.ndarray:
    return np.rint(values * np.float32(1.0 / step)) * np.float32(step)
