"""What a chunk above or below the target is shifted by, and what is left of it."""

from __future__ import annotations

import math

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from kvpareto.report.notes import empty_figure
from kvpareto.report.rows import check_rows
from kvpareto.report.strategies import looks_of, plain_name
from kvpareto.report.style import GREY, offset_styles, theme

DELETED = -8.0
"""Nats: where a deleted chunk stands instead of minus infinity."""


def gates(curves: pd.DataFrame, *, title: str) -> Figure:
    """The offset and its exponential against L - T, a line for each different curve.

    Settings and methods with the same curve are one line, in the first one's style. Its name has
    all of them, with the parameters in which the curves of a method differ. Offsets
    that depend on all chunks together have no curve.

    Args:
        curves: of `kvpareto.merge.gate.curves`: `offset`, `setting`, `excess` and `shift` in nats.
        title: written above the plot.

    Raises:
        ValueError: a column is missing.
    """
    check_rows(curves, "offset setting excess shift")
    lines = _different(curves)
    with theme():
        figure = Figure(figsize=(12.8, 5.6))
        figure.suptitle(title, x=0.012, y=0.965, ha="left", weight="bold", fontsize=13)
        left, right = figure.subplots(1, 2)
        figure.subplots_adjust(left=0.062, right=0.985, top=0.87, bottom=0.3, wspace=0.2)
        if lines.empty:
            right.remove()
            return empty_figure(figure, left, [])
        looks = looks_of(offset_styles(lines["offset"]), lines["offset"], lines["line"])
        for name, look in looks.items():
            own = lines[lines["line"] == name]
            # A chunk at its threshold is kept, so a step is at the first value that is.
            steps = "steps-post" if np.isinf(own["shift"]).any() else "default"
            style = {"color": look["color"], "ls": look["ls"], "lw": 2.2, "drawstyle": steps}
            left.plot(own["excess"], own["shift"].clip(lower=DELETED), label=name, **style)
            right.plot(own["excess"], np.exp(own["shift"]), **style)
        left.set_ylim(DELETED + 1, 0.5)
        left.set_ylabel("offset (nats)")
        left.set_title("what is added to L (to a deleted chunk's: minus infinity)", loc="left")
        right.set_ylabel("exp(offset)")
        right.set_title("what is left of the chunk's weight", loc="left")
        _mark(left, -math.log(2), "\N{MINUS SIGN}ln 2 at L = T")
        _mark(right, 0.5, "half at L = T")
        for axes in (left, right):
            axes.set_xlabel("L \N{MINUS SIGN} T: chunk above its target (nats)")
            axes.set_xlim(curves["excess"].min(), curves["excess"].max())
        figure.legend(
            *left.get_legend_handles_labels(),
            loc="lower left",
            bbox_to_anchor=(0.055, 0.01),
            ncols=2,
            frameon=False,
            alignment="left",
        )
    return figure


def _mark(axes: Axes, height: float, name: str) -> None:
    axes.axvline(0, color=GREY, lw=1, zorder=1)
    axes.axhline(height, color=GREY, lw=1, ls=(0, (4, 2)), zorder=1)
    axes.annotate(name, (0, height), (7, -14), textcoords="offset points", fontsize=11)


def _different(curves: pd.DataFrame) -> pd.DataFrame:
    """The curves with `line`, the names of all methods and settings that share one."""
    same: dict[bytes, list[pd.DataFrame]] = {}
    for _, curve in curves.groupby(["offset", "setting"], sort=False):
        same.setdefault(curve["shift"].to_numpy().tobytes(), []).append(curve)
    values = {
        (offset, place): _values(own["setting"])
        for place, group in enumerate(same.values())
        for offset, own in pd.concat(group).groupby("offset")
    }
    lines = []
    for place, group in enumerate(same.values()):
        methods = list(offset_styles(curve["offset"].iloc[0] for curve in group))
        names = []
        for offset in methods:
            others = [own for (name, _), own in values.items() if name == offset]
            words = [
                f"{name}={', '.join(own)}"
                for name, own in values[offset, place].items()
                if any(other.get(name) != own for other in others)
            ]
            names.append(" ".join([plain_name(offset), *words]))
        lines.append(group[0].assign(offset=methods[0], line="; ".join(names)))
    return pd.concat(lines) if lines else curves.assign(line="")


def _values(settings: pd.Series) -> dict[str, list[str]]:
    """All values of each parameter in settings such as `K=2 t=0.5`."""
    found: dict[str, list[str]] = {}
    for word in settings.unique():
        for name, value in (part.split("=") for part in word.split()):
            if value not in found.setdefault(name, []):
                found[name].append(value)
    return found
