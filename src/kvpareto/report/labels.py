"""Labels beside crowded points."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.text import Annotation
from numpy.typing import NDArray

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Label:
    """Text that belongs beside a point given in data coordinates."""

    x: float
    y: float
    text: str
    color: str
    weight: str = "normal"


class _Place(NamedTuple):
    """Where a label may stand, in pixels: middle, box as x0, y0, x1, y1, and its leader's points.

    A label that touches its point has no leader.
    """

    middle: Floats
    box: Floats
    leader: Floats
    cost: float


_RADII = (9, 14, 20, 28, 38, 50, 64, 80, 100)
_TOUCHING = 14
_ANGLES = np.deg2rad([20, -20, 160, -160, 90, -90, 50, -50, 130, -130, 0, 180, 70, -70, 110, -110])
_MARKER = 7
_CROSSING = 14
"""A crossed line costs as much as this many pixels of distance."""


def place_labels(axes: Axes, labels: Sequence[Label], points: Floats, lines: Floats) -> list[Label]:
    """Write labels beside their points, first come, first served, and none upon another.

    Each label takes the best free place around its point: near, off intervals and lines if that
    is possible, never over a marker or a label. A label that does not touch its point gets a thin
    line to it. The figure's layout must be final.

    Args:
        labels: in order of importance.
        points: [points, 2], markers that labels must not cover, data coordinates.
        lines: [lines, 4] as x0, y0, x1, y1, horizontal or vertical, better not covered.

    Returns:
        The labels for which there was no place; they are not drawn.
    """
    figure = axes.get_figure(root=True)
    assert figure is not None
    renderer = FigureCanvasAgg(figure).get_renderer()  # type: ignore[no-untyped-call]
    window = axes.get_window_extent(renderer)
    frame = np.array([window.x0 + 3, window.y0 + 3, window.x1 - 3, window.y1 - 3])
    to_pixels = axes.transData.transform
    centres = to_pixels(points)
    taken = np.hstack([centres - _MARKER, centres + _MARKER])
    ends = np.stack([to_pixels(lines[:, :2]), to_pixels(lines[:, 2:])])
    strokes = np.hstack([ends.min(axis=0), ends.max(axis=0)])
    homeless = []
    for label in labels:
        probe = _write(axes, label, np.zeros(2))
        extent = probe.get_window_extent(renderer)
        probe.remove()
        half = np.array([extent.width, extent.height]) / 2 + 1
        centre = to_pixels((label.x, label.y))
        free = [
            place
            for place in _places(centre, half, strokes)
            if (frame[:2] < place.box[:2]).all()
            and (place.box[2:] < frame[2:]).all()
            and not _overlaps(place.box, taken).any()
            and not _crosses(place.leader, taken, centre)
        ]
        if not free:
            homeless.append(label)
            continue
        best = min(free, key=lambda place: place.cost)
        # In points, so that the place holds at every resolution.
        _write(axes, label, (best.middle - centre) * 72 / figure.dpi, leader=len(best.leader) > 0)
        taken = np.vstack([taken, best.box, np.hstack([best.leader - 1, best.leader + 1])])
    return homeless


def _places(centre: Floats, half: Floats, strokes: Floats) -> Iterator[_Place]:
    """Places around a point for a box of half extent `half`, on rings of growing distance."""
    for radius in _RADII:
        for rank, angle in enumerate(_ANGLES):
            toward = np.array([np.cos(angle), np.sin(angle)])
            middle = centre + toward * (half + radius)
            box = np.hstack([middle - half, middle + half])
            steps = np.arange(9, radius, 6) if radius > _TOUCHING else np.empty(0)
            cost = radius + 0.3 * rank + _CROSSING * _overlaps(box, strokes).sum()
            yield _Place(middle, box, centre + toward * steps[:, None], float(cost))


def _write(axes: Axes, label: Label, offset: Floats, leader: bool = False) -> Annotation:
    line: dict[str, Any] = {"arrowstyle": "-", "color": label.color, "lw": 0.6, "alpha": 0.6}
    return axes.annotate(
        label.text,
        (label.x, label.y),
        (float(offset[0]), float(offset[1])),
        textcoords="offset points",
        ha="center",
        va="center",
        color=label.color,
        weight=label.weight,
        fontsize=10.5,
        zorder=6,
        arrowprops={**line, "shrinkB": 5} if leader else None,
    )


def _crosses(leader: Floats, taken: Floats, centre: Floats) -> bool:
    """Whether a leader runs over something other than its own marker."""
    middles = (taken[:, :2] + taken[:, 2:]) / 2
    others = taken[np.abs(middles - centre).max(axis=1) > 1]
    return any(_overlaps(np.hstack([point, point]), others).any() for point in leader)


def _overlaps(box: Floats, boxes: Floats) -> NDArray[np.bool_]:
    """Which of `boxes` [boxes, 4] overlap `box`, all as x0, y0, x1, y1; a line is a flat box."""
    apart = (box[:2] >= boxes[:, 2:]) | (boxes[:, :2] >= box[2:])
    return ~(apart[:, 0] | apart[:, 1])
