"""One hand in its surroundings: another hand, things held or in the way, a lamp, a background."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

from hand_mesh_ros.compiled import compiled
from hand_mesh_ros.crop_view import CropView
from hand_mesh_ros.datasets.hand_figure import HandFigures, Sleeve
from hand_mesh_ros.datasets.props import Prop
from hand_mesh_ros.datasets.shadows import in_shadow, shade_with_shadows
from hand_mesh_ros.hand_model.keypoints import JOINT_PARENTS, KEYPOINT_JOINTS
from hand_mesh_ros.rendering.shading import Lighting, srgb_to_linear
from hand_mesh_ros.rendering.zbuffer import join_meshes, rasterise

_ANTIALIASING = 2
_SRGB_TO_LINEAR = srgb_to_linear(np.arange(256) / 255.0)

#: A keypoint lies within the flesh, so that what is seen before it hides it only if it is this much nearer:
#: the flesh of its own joint and that joint's neighbours, and anything else. Metres. On the resting open
#: hand the wrist lies up to 31 mm deep, the roots of the fingers 24 mm, the other joints 14 mm.
_OWN_FLESH_M = np.full(21, 0.024)
_OWN_FLESH_M[0], _OWN_FLESH_M[1::4] = 0.045, 0.035
_OTHERS_NEARER_M = 0.004

#: A crease this deep gets the full darkening. Metres.
_CREASE_DEPTH_M = 0.02


@dataclass(frozen=True, eq=False)
class SceneHand:
    """A hand of the scene before it is refined and coloured."""

    figures: HandFigures
    coarse_vertices: np.ndarray  #: (V,3) metres, camera optical frame
    sleeve: Sleeve
    skin: int
    tint: np.ndarray  #: (3,) what its albedo is multiplied by
    glove: np.ndarray | None  #: (3,) linear RGB of a glove


class Scene:
    """A hand, what is around it, and how it is lit. The first of ``hands`` is the one it is all about.

    Everything is in the optical frame of the camera that took the whole picture, so that up is up.
    """

    def __init__(self, hands: list[SceneHand], props: list[Prop], lighting: Lighting) -> None:
        self._hands, self._props, self._lighting = hands, props, lighting
        meshes = [(hand.coarse_vertices, hand.figures.coarse_faces) for hand in hands]
        self._coarse = join_meshes(meshes + [(prop.vertices, prop.faces) for prop in props])
        self._parts = np.full(len(self._coarse[1]), -1)
        self._parts[: len(hands[0].figures.coarse_parts)] = hands[0].figures.coarse_parts

    def alone(self) -> Scene:
        """The same hand in the same light, and nothing else."""
        return Scene(self._hands[:1], [], self._lighting)

    @property
    def has_props(self) -> bool:
        """Whether there is anything but hands."""
        return bool(self._props)

    def visible(self, keypoints: np.ndarray, view: CropView) -> np.ndarray:
        """Which keypoints (21,3) of the first hand nothing hides in ``view``, (21,) bool.

        A keypoint lies inside the flesh. It counts as hidden where the surface that its pixel sees is nearer
        than the keypoint and belongs to a prop, another hand or a part of the same hand that is no neighbour
        of its joint (another finger, the palm before a fingertip), or to its neighbours but by so much that
        whole bones lie between (a finger seen along its length). Outside of the view counts as hidden.
        """
        camera = view.camera()
        seen = keypoints @ view.R_crop_camera.T
        raster = rasterise(self._coarse[0] @ view.R_crop_camera.T, self._coarse[1], camera)
        pixels = np.rint(camera.project(seen)).astype(np.int64)
        inside = ((pixels >= 0) & (pixels < view.size)).all(1)
        columns, rows = np.clip(pixels, 0, view.size - 1).T
        faces = raster.face_index[rows, columns]
        nearer = np.where(faces >= 0, seen[:, 2] - raster.depth[rows, columns], -np.inf)
        own = _NEIGHBOURS[np.arange(21), self._parts[faces]]
        return inside & (nearer < np.where(own, _OWN_FLESH_M, _OTHERS_NEARER_M))

    def light(
        self, view: CropView, background: np.ndarray, prop_texture: np.ndarray, crease: float
    ) -> np.ndarray:
        """Linear light (S,S,3) float32 that arrives in ``view``.

        :param background: (S,S,3) uint8 sRGB.
        :param prop_texture: (S,S,3) uint8, what the props' colours are multiplied by, 128 being 1.
        :param crease: darkening, 0..1, of what lies deep between nearer surfaces.
        """
        vertices, faces, colours, prop_faces = self._lit()
        raster = rasterise(vertices @ view.R_crop_camera.T, faces, view.camera(_ANTIALIASING))
        light = np.empty((view.size, view.size, 3), np.float32)
        _compose(
            raster.face_index,
            raster.barycentrics,
            faces,
            colours,
            _creases(raster.depth[::_ANTIALIASING, ::_ANTIALIASING], crease),
            _SRGB_TO_LINEAR[background],
            prop_faces,
            prop_texture,
            light,
        )
        return light

    def _lit(self) -> tuple[np.ndarray, np.ndarray, np.ndarray, int]:
        """Vertices (V,3), faces (F,3), linear RGB (V,3) float32, and the first face of the props."""
        meshes, normals, albedos = [], [], []
        for hand in self._hands:
            figure = hand.figures.figure(hand.coarse_vertices, hand.sleeve, hand.skin)
            albedo = figure.albedo * hand.tint
            if hand.glove is not None:
                brightness = figure.albedo.mean(1, keepdims=True)
                albedo = brightness / brightness.mean() * hand.glove
            meshes.append((figure.vertices, hand.figures.faces))
            normals.append(figure.normals)
            albedos.append(np.clip(albedo, 0.0, 1.0))
        prop_faces = sum(len(faces) for _, faces in meshes)
        for prop in self._props:
            meshes.append((prop.vertices, prop.faces))
            normals.append(prop.normals)
            albedos.append(np.broadcast_to(prop.colour, prop.vertices.shape))
        vertices, faces = join_meshes(meshes)
        normal, albedo = np.concatenate(normals), np.concatenate(albedos)
        centre = self._hands[0].coarse_vertices[: len(self._hands[0].figures.model.v_template)].mean(0)
        shadowed = in_shadow(vertices, *self._coarse, centre, self._lighting)
        colours = shade_with_shadows(albedo, vertices, normal, self._lighting, shadowed)
        return vertices, faces, colours, prop_faces


def _creases(depth: np.ndarray, strength: float) -> np.ndarray:
    """Factors (H,W) float32 that darken what lies behind its surroundings, as between fingers.

    T. Luft, C. Colditz, O. Deussen, "Image Enhancement by Unsharp Masking the Depth Buffer", 2006.
    ``depth`` (H,W) metres, 0 where there is nothing.
    """
    filled = np.where(depth > 0, depth, depth.max())
    behind = filled - cv2.blur(filled, (7, 7))
    return 1.0 - np.float32(strength) * np.clip(behind * np.float32(1 / _CREASE_DEPTH_M), 0.0, 1.0)


@compiled
def _compose(  # type: ignore[no-untyped-def]
    face_index, barycentrics, faces, colours, creases, background, prop_faces, prop_texture, light
):
    # In one pass over the finer raster what interpolating, darkening, texturing, laying over the background
    # and shrinking would each need a picture for.
    size, samples = light.shape[0], face_index.shape[0] // light.shape[0]
    share = np.float32(1.0 / (samples * samples))
    for y in range(size):
        for x in range(size):
            r, g, b, missed = np.float32(0.0), np.float32(0.0), np.float32(0.0), 0
            for fine_y in range(y * samples, (y + 1) * samples):
                for fine_x in range(x * samples, (x + 1) * samples):
                    f = face_index[fine_y, fine_x]
                    if f < 0:
                        missed += 1
                        continue
                    on_prop = f >= prop_faces
                    for corner in range(3):
                        weight, vertex = barycentrics[fine_y, fine_x, corner], faces[f, corner]
                        if on_prop:
                            r += weight * colours[vertex, 0] * prop_texture[y, x, 0] / np.float32(128.0)
                            g += weight * colours[vertex, 1] * prop_texture[y, x, 1] / np.float32(128.0)
                            b += weight * colours[vertex, 2] * prop_texture[y, x, 2] / np.float32(128.0)
                        else:
                            r += weight * colours[vertex, 0]
                            g += weight * colours[vertex, 1]
                            b += weight * colours[vertex, 2]
            darkened, empty = share * creases[y, x], share * missed
            light[y, x, 0] = r * darkened + background[y, x, 0] * empty
            light[y, x, 1] = g * darkened + background[y, x, 1] * empty
            light[y, x, 2] = b * darkened + background[y, x, 2] * empty


def _neighbours() -> np.ndarray:
    """(21,17) bool: whether a joint's flesh is near each keypoint's; the last column is for no joint."""
    near = np.zeros((21, 17), bool)
    for keypoint, joint in enumerate(KEYPOINT_JOINTS):
        near[keypoint, joint] = True
        for other, parent in enumerate(JOINT_PARENTS):
            if parent == joint or JOINT_PARENTS[joint] == other:
                near[keypoint, other] = True
    # Each finger's root reaches into the palm; a keypoint of the palm is not a finger's neighbour for that.
    near[0] = [joint == 0 for joint in range(17)]
    return near


_NEIGHBOURS = _neighbours()
