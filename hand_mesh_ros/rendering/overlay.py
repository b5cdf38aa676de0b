"""Reconstructed hands drawn over the picture they came from."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import cv2
import numpy as np

from hand_mesh_ros.camera import Camera
from hand_mesh_ros.compiled import compiled
from hand_mesh_ros.hand import Hand, Side
from hand_mesh_ros.hand_model.keypoints import KEYPOINT_PARENTS
from hand_mesh_ros.rendering.shading import Lighting, linear_to_srgb, shade, srgb_to_linear, vertex_normals
from hand_mesh_ros.rendering.zbuffer import Raster, join_meshes, rasterise

#: sRGB colours of the meshes: told apart by people who see no red or no green, too.
SIDE_COLOURS: Mapping[Side, tuple[int, int, int]] = {'right': (84, 150, 235), 'left': (236, 190, 92)}

#: sRGB colours of the wrist and of the fingers from thumb to pinky.
_WRIST_COLOUR = (235, 235, 235)
_FINGER_COLOURS = ((250, 105, 95), (255, 190, 70), (125, 215, 110), (75, 195, 245), (195, 135, 250))
_KEYPOINT_COLOURS = (_WRIST_COLOUR, *(colour for colour in _FINGER_COLOURS for _ in range(4)))

#: More contrast than a room has, so that the fingers stand out from the palm.
_LIGHTING = Lighting(lamp=(1.05, 1.05, 1.05), sky=(0.42, 0.42, 0.42), ground=(0.10, 0.10, 0.10), gloss=0.12)

#: Opacity of the mesh where it faces the camera and at its rim.
_OPACITY_FACING, _OPACITY_RIM = 0.75, 0.95

#: Keypoints are drawn no fainter than this, so that 21 of them are always there to see.
_FAINTEST = 0.15

#: Windows of more pixels than this are drawn without antialiasing the mesh, for the sake of time.
_ANTIALIASED_PIXELS = 500_000

#: Fractional bits of the coordinates given to OpenCV's drawing functions.
_SUBPIXEL_BITS = 4

#: Light of each 8-bit sRGB value, and 8-bit sRGB value of light in 1/4095: fine enough for every 8-bit step.
_LIGHT_OF_BYTE = srgb_to_linear(np.arange(256) / 255.0)
_BYTE_OF_LIGHT = np.rint(linear_to_srgb(np.arange(4096) / 4095.0) * 255.0).astype(np.uint8)


def draw_hands(
    image: np.ndarray, hands: Sequence[Hand], faces_by_side: Mapping[Side, np.ndarray], camera: Camera
) -> np.ndarray:
    """Picture of ``hands`` over ``image``: shaded translucent meshes, keypoints, bones, side and score.

    :param image: (H,W,3) uint8 RGB; it is not changed.
    :param hands: in the camera optical frame; the nearer hides the farther. What of them is not finite is
        not drawn.
    :param faces_by_side: (F,3) int triangles of the hand model of each side that occurs.
    :param camera: the camera that took the image, of the image's size.
    :return: (H,W,3) uint8 RGB.
    """
    canvas = np.ascontiguousarray(image).copy()
    if not hands:
        return canvas
    _draw_meshes(canvas, hands, faces_by_side, camera)
    farthest_first = sorted(hands, key=lambda hand: -float(hand.keypoints_3d[0, 2]))
    for hand in farthest_first:
        _draw_skeleton(canvas, hand.keypoints_2d, hand.joint_confidence)
    for hand in farthest_first:
        _draw_label(canvas, f'{hand.side} {hand.score:.2f}', hand.bbox_px, SIDE_COLOURS[hand.side])
    return canvas


def draw_keypoints(
    image: np.ndarray, keypoints_px: np.ndarray, confidence: np.ndarray | None = None
) -> np.ndarray:
    """Copy of ``image`` (H,W,3) uint8 RGB with one hand's keypoints and bones, coloured by finger.

    :param keypoints_px: (21,2) pixels; those that are not finite are left out.
    :param confidence: (21,) 0..1: the less, the fainter; None for all certain.
    """
    canvas = np.ascontiguousarray(image).copy()
    _draw_skeleton(canvas, keypoints_px, np.ones(21) if confidence is None else confidence)
    return canvas


def _draw_meshes(
    canvas: np.ndarray, hands: Sequence[Hand], faces_by_side: Mapping[Side, np.ndarray], camera: Camera
) -> None:
    vertices, faces = join_meshes([(hand.vertices, faces_by_side[hand.side]) for hand in hands])
    window = _window(camera.project(vertices), canvas.shape, margin=1)
    if window is None:
        return
    x0, y0, x1, y1 = window
    scale = 2 if (x1 - x0) * (y1 - y0) <= _ANTIALIASED_PIXELS else 1
    raster = rasterise(vertices, faces, camera.window(x0, y0, x1 - x0, y1 - y0, scale))
    colours = np.concatenate([_mesh_colours(hand, faces_by_side[hand.side]) for hand in hands])
    _blend_mesh(raster, faces, colours, scale, canvas[y0:y1, x0:x1])


@np.errstate(invalid='ignore', over='ignore')  # faces of vertices that are not finite are not drawn
def _mesh_colours(hand: Hand, faces: np.ndarray) -> np.ndarray:
    """Per vertex (V,4) float32: linear RGB and opacity."""
    normals = vertex_normals(hand.vertices, faces)
    albedo = srgb_to_linear(np.array(SIDE_COLOURS[hand.side]) / 255.0)
    colours = shade(albedo, hand.vertices, normals, _LIGHTING)
    to_camera = -hand.vertices / np.maximum(np.linalg.norm(hand.vertices, axis=1, keepdims=True), 1e-6)
    rim = 1.0 - np.abs((normals * to_camera).sum(1, keepdims=True))
    opacity = _OPACITY_FACING + (_OPACITY_RIM - _OPACITY_FACING) * rim**2
    return np.hstack([colours, opacity]).astype(np.float32)


def _blend_mesh(
    raster: Raster, faces: np.ndarray, colours: np.ndarray, scale: int, patch: np.ndarray
) -> None:
    _blend(
        raster.face_index, raster.barycentrics, faces, colours, scale, _LIGHT_OF_BYTE, _BYTE_OF_LIGHT, patch
    )


@compiled
def _blend(face_index, barycentrics, faces, colours, scale, light_of_byte, byte_of_light, patch):  # type: ignore[no-untyped-def]
    """Lay ``scale`` x ``scale`` samples over each pixel of ``patch`` (h,w,3) uint8 sRGB, in linear light."""
    share = 1.0 / (scale * scale)
    for y in range(patch.shape[0]):
        for x in range(patch.shape[1]):
            red, green, blue, alpha = 0.0, 0.0, 0.0, 0.0
            for sample_y in range(y * scale, (y + 1) * scale):
                for sample_x in range(x * scale, (x + 1) * scale):
                    f = face_index[sample_y, sample_x]
                    if f < 0:
                        continue
                    for corner in range(3):
                        weight = barycentrics[sample_y, sample_x, corner] * share
                        vertex = faces[f, corner]
                        opacity = weight * colours[vertex, 3]
                        red += opacity * colours[vertex, 0]
                        green += opacity * colours[vertex, 1]
                        blue += opacity * colours[vertex, 2]
                        alpha += opacity
            if alpha == 0.0:
                continue
            for channel, light in enumerate((red, green, blue)):
                mixed = light + (1.0 - alpha) * light_of_byte[patch[y, x, channel]]
                if mixed >= 0.0:  # not so where a colour is NaN, which is no index into a table
                    patch[y, x, channel] = byte_of_light[int(min(mixed, 1.0) * 4095.0 + 0.5)]


def _draw_skeleton(canvas: np.ndarray, keypoints_px: np.ndarray, confidence: np.ndarray) -> None:
    keypoints = np.asarray(keypoints_px, np.float64)
    visible = np.isfinite(keypoints).all(1)
    unit = _line_unit(canvas.shape, keypoints[visible])
    window = _window(keypoints, canvas.shape, margin=int(np.ceil(6 * unit)))
    if window is None:
        return
    x0, y0, x1, y1 = window
    strength = np.clip(confidence, _FAINTEST, 1.0)
    # Farther than OpenCV's integers reach there is nothing to see.
    points = np.clip((keypoints - (x0, y0)) * 2**_SUBPIXEL_BITS, -(2**24), 2**24)
    points = np.where(visible[:, None], points, 0).round().astype(int)
    bones = [(k, p) for k, p in enumerate(KEYPOINT_PARENTS) if p >= 0 and visible[k] and visible[p]]
    # Colours premultiplied with opacity, so that a fainter line replaces what lies under it in this layer
    # and lets the picture through, and antialiased edges keep their colour.
    layer = np.zeros((y1 - y0, x1 - x0, 4), np.uint8)
    for width, darkness in ((4.2 * unit, 0.25), (2.2 * unit, 1.0)):
        for k, parent in bones:
            ink = _ink(_KEYPOINT_COLOURS[k], darkness, min(strength[k], strength[parent]))
            cv2.line(layer, points[parent], points[k], ink, max(1, round(width)), cv2.LINE_AA, _SUBPIXEL_BITS)
    for k in np.flatnonzero(visible):
        for radius, darkness in ((3.6 * unit, 0.25), (2.6 * unit, 1.0)):
            ink = _ink(_KEYPOINT_COLOURS[k], darkness, strength[k])
            size = round(max(radius, 1.0) * 2**_SUBPIXEL_BITS)
            cv2.circle(layer, points[k], size, ink, cv2.FILLED, cv2.LINE_AA, _SUBPIXEL_BITS)
    _lay_over(canvas[y0:y1, x0:x1], layer)


def _draw_label(canvas: np.ndarray, text: str, bbox_px: np.ndarray, colour: tuple[int, int, int]) -> None:
    """Text on a dark plate above the box, kept inside the picture."""
    height, width = canvas.shape[:2]
    x0, y0, x1, y1 = np.nan_to_num(np.asarray(bbox_px, np.float64), posinf=1e6, neginf=-1e6)
    unit = _line_unit(canvas.shape, np.array([[x0, y0], [x1, y1]]))
    font, size, weight = cv2.FONT_HERSHEY_SIMPLEX, 0.28 + 0.18 * unit, max(1, round(1.1 * unit))
    (text_width, text_height), baseline = cv2.getTextSize(text, font, size, weight)
    pad = baseline
    plate_width, plate_height = text_width + 2 * pad, text_height + baseline + pad
    left = int(np.clip((x0 + x1 - plate_width) / 2, 0, max(0, width - plate_width)))
    top = int(np.clip(y0 - plate_height - 8 * unit, 0, max(0, height - plate_height)))
    plate = canvas[top : top + plate_height, left : left + plate_width]
    plate[:] = plate * 0.3 + 6
    at = (left + pad, top + pad + text_height)
    cv2.putText(canvas, text, at, font, size, colour, weight, cv2.LINE_AA)


def _ink(colour: tuple[int, int, int], darkness: float, opacity: float) -> tuple[float, ...]:
    """Premultiplied RGBA, 0..255."""
    return (*(channel * darkness * opacity for channel in colour), 255.0 * opacity)


def _lay_over(patch: np.ndarray, layer: np.ndarray) -> None:
    """Put a premultiplied RGBA layer on top of an RGB patch, in place, both uint8."""
    through = 255 - layer[..., 3:].astype(np.uint16)
    patch[:] = layer[..., :3] + ((patch * through + 127) // 255).astype(np.uint8)


def _line_unit(shape: tuple[int, ...], points: np.ndarray) -> float:
    """Length in pixels of a thin line: 1 for a hand of 200 pixels in a 640x480 picture."""
    hand = float(np.linalg.norm(np.ptp(points, axis=0))) if len(points) else 0.0
    return float(np.clip(min(math.hypot(shape[0], shape[1]) / 800.0, hand / 200.0), 0.4, 6.0))


def _window(points: np.ndarray, shape: tuple[int, ...], margin: int) -> tuple[int, int, int, int] | None:
    """Part of the picture around the finite points: x0, y0, x1, y1, the last two exclusive; None if none."""
    height, width = shape[:2]
    points = points[np.isfinite(points).all(1)]
    if not len(points):
        return None
    low = np.floor(np.clip(points.min(0) - margin, 0, (width, height))).astype(int)
    high = np.ceil(np.clip(points.max(0) + margin + 1, 0, (width, height))).astype(int)
    if (high <= low).any():
        return None
    return int(low[0]), int(low[1]), int(high[0]), int(high[1])
