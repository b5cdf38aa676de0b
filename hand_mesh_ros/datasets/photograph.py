"""From linear light to the picture that an ordinary camera delivers, with everything that goes wrong."""

from __future__ import annotations

import cv2
import numpy as np

_LEVELS = 2048
#: How far, in pixels, windows of the field of noise may lie apart.
_NOISE_MARGIN = 256


class Photographer:
    """Takes pictures; keeps a field of noise, of which windows serve as sensor noise."""

    def __init__(self, seed: int, size: int) -> None:
        """Draw the noise, which ``seed`` decides, for pictures of up to ``size`` pixels a side."""
        rng = np.random.default_rng([seed, 3])
        self._noise = rng.standard_normal((size + _NOISE_MARGIN, size + _NOISE_MARGIN, 3), np.float32)

    def picture(self, light: np.ndarray, pixel_scale: float, rng: np.random.Generator) -> np.ndarray:
        """Picture (S,S,3) uint8 sRGB of linear light (S,S,3) float32.

        ``pixel_scale``: pixels of the camera for one of the crop; below 1 the crop is enlarged.
        """
        size = len(light)
        light = _defocused(light, rng)
        if pixel_scale < 1.0:
            small = max(round(size * pixel_scale), 12)
            light = cv2.resize(light, (small, small), interpolation=cv2.INTER_AREA)
        picture = _developed(light, rng)
        picture = self._with_noise(picture, rng)
        if rng.random() < 0.5:
            quality = int(rng.integers(20, 96))
            encoded = cv2.imencode('.jpg', picture, [cv2.IMWRITE_JPEG_QUALITY, quality])[1]
            picture = cv2.imdecode(encoded, cv2.IMREAD_COLOR)
        if len(picture) != size:
            picture = cv2.resize(picture, (size, size), interpolation=cv2.INTER_LINEAR)
        if rng.random() < 0.03:  # an infrared camera
            grey = cv2.cvtColor(picture, cv2.COLOR_RGB2GRAY)
            picture = cv2.cvtColor(grey, cv2.COLOR_GRAY2RGB)
        return picture

    def _with_noise(self, picture: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        size = len(picture)
        y, x = rng.integers(0, _NOISE_MARGIN, 2)
        strength = float(rng.exponential(4.0))
        noise = self._noise[y : y + size, x : x + size]
        return cv2.add(picture, strength * noise, dtype=cv2.CV_8U)


def _defocused(light: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    chance = rng.random()
    if chance < 0.35:
        return cv2.GaussianBlur(light, (0, 0), float(rng.uniform(0.4, 1.6)))
    if chance < 0.55:  # the hand or the camera moves
        length = int(rng.integers(3, 12))
        kernel = np.zeros((length, length), np.float32)
        angle, middle = rng.uniform(0, np.pi), (length - 1) / 2.0
        reach = np.array([np.cos(angle), np.sin(angle)]) * middle
        ends = (np.array([middle - reach, middle + reach]) + 0.5).astype(int)
        cv2.line(kernel, ends[0].tolist(), ends[1].tolist(), (1.0,))
        return cv2.filter2D(light, -1, kernel / kernel.sum(), borderType=cv2.BORDER_REPLICATE)
    return light


def _developed(light: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Exposed, white-balanced and gamma-corrected, each more or less well: (S,S,3) uint8."""
    # A camera exposes for the picture as a whole, within limits.
    exposure = 0.20 / max(float(light.mean()), 0.01)
    exposure = exposure ** rng.uniform(0.3, 1.0) * np.exp(rng.normal(0.0, 0.25))
    balance = np.exp(rng.normal(0.0, 0.08, 3))
    scaled = light * (exposure * balance * (_LEVELS - 1)).astype(np.float32)
    steps = np.clip(scaled, 0, _LEVELS - 1).astype(np.int16)
    linear = np.linspace(0.0, 1.0, _LEVELS)
    srgb = np.where(linear <= 0.0031308, 12.92 * linear, 1.055 * linear ** (1 / 2.4) - 0.055)
    table = 255.0 * srgb ** np.exp(rng.normal(0.0, 0.12))
    return table.astype(np.uint8)[steps]
