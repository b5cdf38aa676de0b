"""The hands that came out worst, to be looked at: every method's mesh beside the true skeleton."""

from __future__ import annotations

import heapq
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from html import escape
from itertools import count
from pathlib import Path
from typing import TypeVar

import cv2
import numpy as np

from hand_mesh_ros.camera import Camera
from hand_mesh_ros.evaluation.comparison import DETECTOR_ROW, ComparedHand
from hand_mesh_ros.evaluation.scores import Score
from hand_mesh_ros.hand import Hand, Side
from hand_mesh_ros.rendering.overlay import draw_hands, draw_keypoints

#: Side of one picture, and height of a line of text above, pixels.
_PANEL, _HEADER = 256, 22

#: Side of what is shown, over the larger side of the box around the hand.
_SURROUNDINGS = 1.7

_HANDS_OF_SHEET = 8
_INK, _PAPER = (235, 235, 235), 24
_BORDER = (255, 255, 255)

_STYLE = 'body{font-family:sans-serif}td,th{padding:2px 10px;text-align:right}img{max-width:100%}'
_LEGEND = (
    '<p>Numbers are the aligned joint error in mm; of hands without a truth in space, the error in the image '
    'in % of the box; of those of which only a mask is annotated, how far it and the mesh cover each other '
    '(intersection over union, IoU). Pictures, from left to right: the true skeleton, then every method; '
    'blue meshes are right hands, yellow ones left, and the number on them is the mean confidence. Fingers '
    'from thumb to pinky: red, orange, green, blue, violet. A white line is the border of the annotated '
    'mask. A darkened picture: this method found no hand, or had no mask to look at.</p>'
)

_T = TypeVar('_T')


@dataclass(frozen=True, eq=False)
class _Entry:
    name: str
    image: str  # name of the file
    errors: list[str]  # of each method
    strip: np.ndarray  # PNG


class WorstHands:
    """Keeps pictures of the hands with the largest errors, as they come by, and of some not found."""

    def __init__(self, limit: int, faces: Mapping[Side, np.ndarray]) -> None:
        """Keep ``limit`` hands, and a quarter as many not found; ``faces``: (F,3) of each side's model."""
        self._limit, self._most_missed, self._faces = limit, -(-limit // 4), faces
        self._heap: list[tuple[float, int, _Entry]] = []
        self._missed: list[_Entry] = []
        self._numbers = count()
        self._methods: list[str] = []

    def add(self, compared: ComparedHand) -> None:
        """Consider a hand. Its error is that of the first method beside the detector.

        That is the aligned joint error in millimetres; without a truth in space the error in the image in
        hundredths of the hand's box; without one there either, what mask and mesh have not in common, in
        hundredths of what either covers.
        """
        self._methods = [DETECTOR_ROW, *compared.hands]
        first = _first(compared.scores)
        error = _error(first)[0]
        if not first.found:
            if len(self._missed) < self._most_missed:
                self._missed.append(self._entry(compared))
        elif not np.isnan(error) and (len(self._heap) < self._limit or error > self._heap[0][0]):
            heapq.heappush(self._heap, (error, -next(self._numbers), self._entry(compared)))
            if len(self._heap) > self._limit:
                heapq.heappop(self._heap)

    def write(self, folder: Path) -> None:
        """Write sheet_001.png and so on, worst first, not_found_001.png and so on, and index.html, which
        lists what is on them."""
        folder.mkdir(parents=True, exist_ok=True)
        worst = [entry for *_, entry in sorted(self._heap, key=lambda item: item[:2], reverse=True)]
        page = [
            f'<!doctype html><meta charset="utf-8"><title>Worst hands</title><style>{_STYLE}</style>',
            _LEGEND,
        ]
        if worst:
            page.append(f'<h1>Worst first, by the error of {escape(_first(self._methods))}</h1>')
            page += self._section(folder, worst, 'sheet')
        if self._missed:
            page.append(f'<h1>Not found by {escape(_first(self._methods))}: the first of them</h1>')
            page += self._section(folder, self._missed, 'not_found')
        (folder / 'index.html').write_text('\n'.join(page) + '\n', encoding='utf-8')

    def _section(self, folder: Path, entries: Sequence[_Entry], prefix: str) -> list[str]:
        """Write the sheets; the lines of the page that list and show them."""
        rows, pictures = [], []
        for first in range(0, len(entries), _HANDS_OF_SHEET):
            name, strips = f'{prefix}_{first // _HANDS_OF_SHEET + 1:03d}.png', []
            for rank, entry in enumerate(entries[first : first + _HANDS_OF_SHEET], start=first + 1):
                strips.append(_titled(cv2.imdecode(entry.strip, cv2.IMREAD_COLOR), f'{rank}.  {entry.name}'))
                link = f'<a href="#{name}">{rank}</a>'
                cells = [link, escape(f'{entry.name} ({entry.image})'), *map(escape, entry.errors)]
                rows.append('<tr>' + ''.join(f'<td>{cell}</td>' for cell in cells) + '</tr>')
            (folder / name).write_bytes(cv2.imencode('.png', np.vstack(strips))[1].tobytes())
            pictures.append(f'<h2 id="{name}">{name}</h2><img src="{name}" alt="">')
        heads = ''.join(f'<th>{escape(name)}</th>' for name in ['', 'hand', *self._methods])
        return [f'<table><tr>{heads}</tr>', *rows, '</table>', *pictures]

    def _entry(self, compared: ComparedHand) -> _Entry:
        sample, window = compared.sample, _Window.around(compared)
        image = window.cut(compared.image)
        scores = {score.method: score for score in compared.scores}
        errors = [_error(scores[name])[1] if name in scores else 'no mask' for name in self._methods]
        panels = [_titled(window.outlined(_truth(compared, image, window), compared.mask), 'truth')]
        for method, error in zip(self._methods, errors, strict=True):
            picture = window.outlined(self._panel(compared, method, image, window), compared.mask)
            panels.append(_titled(picture, f'{method} {error}'))
        strip = cv2.cvtColor(np.hstack(panels), cv2.COLOR_RGB2BGR)
        name = f'{sample.dataset} {sample.id}'
        return _Entry(name, sample.image.name, errors, cv2.imencode('.png', strip)[1])

    def _panel(self, compared: ComparedHand, method: str, image: np.ndarray, window: _Window) -> np.ndarray:
        if method == DETECTOR_ROW:
            if compared.detection is None or compared.detection.keypoints_px is None:
                return image // 2
            return draw_keypoints(image, window.pixels(compared.detection.keypoints_px))
        hand = compared.hands[method]
        if hand is None:
            return image // 2
        return draw_hands(image, [window.hand(hand)], self._faces, window.camera(compared.camera))


@dataclass(frozen=True)
class _Window:
    """A square of an image, enlarged to a panel."""

    x0: int
    y0: int
    side: int

    @classmethod
    def around(cls, compared: ComparedHand) -> _Window:
        """Around the true hand, else where it was seen, else the whole image."""
        sample, points = compared.sample, None
        if sample.keypoints_2d is not None and sample.visible.any():
            points = sample.keypoints_2d[sample.visible]
        elif compared.mask is not None and compared.mask.any():
            points = np.argwhere(compared.mask)[:, ::-1]
        elif compared.detection is not None:
            points = compared.detection.keypoints_px
        elif sample.bbox_px is not None:
            points = sample.bbox_px.reshape(2, 2)
        if points is None or not np.isfinite(points).all():
            height, width = compared.image.shape[:2]
            return cls(0, 0, max(height, width))
        low, high = points.min(axis=0), points.max(axis=0)
        longest = 2 * max(compared.image.shape[:2])
        side = int(np.clip(_SURROUNDINGS * (high - low).max(), 16, longest))
        x0, y0 = np.clip((low + high - side) / 2, -longest, longest).astype(int)
        return cls(int(x0), int(y0), side)

    @property
    def scale(self) -> float:
        return _PANEL / self.side

    def cut(self, image: np.ndarray) -> np.ndarray:
        """The square of an image (H,W,3), black outside: (_PANEL,_PANEL,3)."""
        shift = 0.5 * self.scale - 0.5
        matrix = np.array(
            [[self.scale, 0, shift - self.scale * self.x0], [0, self.scale, shift - self.scale * self.y0]]
        )
        way = cv2.INTER_AREA if self.scale < 1 else cv2.INTER_LINEAR
        return cv2.warpAffine(image, matrix, (_PANEL, _PANEL), flags=way)

    def outlined(self, panel: np.ndarray, mask: np.ndarray | None) -> np.ndarray:
        """A panel with the border of a mask (H,W) of the image, if there is one."""
        if mask is None:
            return panel
        seen = self.cut(mask.astype(np.uint8) * 255) > 127
        border, _ = cv2.findContours(seen.astype(np.uint8), cv2.RETR_LIST, cv2.CHAIN_APPROX_NONE)
        return cv2.drawContours(panel.copy(), border, -1, _BORDER, 1)

    def pixels(self, pixels: np.ndarray) -> np.ndarray:
        """Pixels (N,2) of the image, in the panel."""
        return (pixels - (self.x0, self.y0) + 0.5) * self.scale - 0.5

    def camera(self, camera: Camera) -> Camera:
        """The panel's camera."""
        return camera.window(self.x0, self.y0, self.side, self.side, self.scale)

    def hand(self, hand: Hand) -> Hand:
        """The hand with its pixels in the panel."""
        box = self.pixels(hand.bbox_px.reshape(2, 2)).ravel()
        return replace(hand, keypoints_2d=self.pixels(hand.keypoints_2d), bbox_px=box)


def _first(of_methods: Sequence[_T]) -> _T:
    """That of the method by which hands are sorted: the first after the detector's row, if there is one."""
    return of_methods[min(1, len(of_methods) - 1)]


def _truth(compared: ComparedHand, image: np.ndarray, window: _Window) -> np.ndarray:
    sample = compared.sample
    if sample.keypoints_2d is None:
        return image
    pixels = np.where(sample.visible[:, None], window.pixels(sample.keypoints_2d), np.nan)
    return draw_keypoints(image, pixels)


def _error(score: Score) -> tuple[float, str]:
    """Number to sort by, and what to write."""
    if not score.found:
        return float('nan'), 'not found'
    if 'pa_mpjpe_mm' in score.measures:
        error = score.measures['pa_mpjpe_mm']
        return error, f'{error:.1f} mm'
    if 'error_2d_box' in score.measures:
        error = 100.0 * score.measures['error_2d_box']
        return error, f'{error:.1f} %' if np.isfinite(error) else ''
    overlap = score.measures.get('iou', float('nan'))
    return 100.0 * (1.0 - overlap), f'IoU {overlap:.2f}' if np.isfinite(overlap) else ''


def _titled(panel: np.ndarray, title: str) -> np.ndarray:
    header = np.full((_HEADER, panel.shape[1], 3), _PAPER, np.uint8)
    cv2.putText(header, title, (4, _HEADER - 7), cv2.FONT_HERSHEY_SIMPLEX, 0.42, _INK, 1, cv2.LINE_AA)
    return np.vstack([header, panel])
