"""What the figures with a panel per cap share: layout, lines, points, legend."""

from __future__ import annotations

import math
from typing import Any

import pandas as pd
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.transforms import ScaledTranslation

from kvpareto.report.scale import Scale, ppl_label, signed
from kvpareto.report.style import GREY, reach

BUDGETS = {
    "post_prune": "post-prune length capped",
    "peak": "peak length capped",
    "none": "over budget (no cap)",
}
"""What each value of cap_on means, in words."""

Line = tuple[int, str, str]
"""Sinks, cap_on and trigger of a line."""


def panels_per_cap(
    caps: pd.Series, title: str, legend_rows: int
) -> tuple[Figure, list[tuple[float, Axes]]]:
    """A figure with one panel per cap, at most three in a row, with room for a legend below."""
    known = [float(cap) for cap in sorted(caps.unique())] or [math.nan]
    columns = min(len(known), 3)
    rows = math.ceil(len(known) / columns)
    below = 1.35 + 0.25 * legend_rows
    height = 0.9 + below + 3.4 * rows + 0.9 * (rows - 1)
    figure = Figure(figsize=(12.8, height))
    figure.suptitle(title, x=0.012, y=1 - 0.2 / height, ha="left", weight="bold", fontsize=13)
    grid = figure.subplots(rows, columns, squeeze=False, sharey=True)
    figure.subplots_adjust(
        left=0.085,
        right=0.985,
        top=1 - 0.9 / height,
        bottom=below / height,
        wspace=0.06,
        hspace=0.9 / 3.4,
    )
    for axes in grid.flat[len(known) :]:
        axes.remove()
    panels = list(zip(known, grid.flat, strict=False))
    for cap, axes in panels:
        axes.set_title("" if math.isnan(cap) else f"cap {cap:g}", loc="left")
    return figure, panels


def finish_panels(figure: Figure, panels: list[tuple[float, Axes]], scale: Scale) -> None:
    for _, axes in panels:
        scale.apply(axes, "y", signed)
        axes.axhline(0, color=GREY, lw=1, zorder=1)
    box = panels[0][1].get_position()
    middle = (box.y1 + panels[-1][1].get_position().y0) / 2
    label = ppl_label(scale)
    figure.supylabel(label, fontsize=12.5, x=0.008, y=middle, va="center", ha="left")


def bottom_legend(
    figure: Figure, handles: list[Line2D], title: str, columns: int, handlelength: float
) -> None:
    figure.legend(
        handles=handles,
        title=title,
        loc="lower left",
        bbox_to_anchor=(0.078, 0.3 / figure.get_figheight()),
        ncols=columns,
        frameon=False,
        alignment="left",
        handlelength=handlelength,
        columnspacing=1.6,
    )


def draw_points(
    axes: Axes,
    x: pd.Series,
    rows: pd.DataFrame,
    look: dict[str, Any],
    shift: ScaledTranslation | None = None,
) -> None:
    """Perplexity changes with their intervals at `x`."""
    axes.errorbar(
        x,
        rows["ppl_delta_pct"],
        yerr=reach(rows["ppl_delta_pct"], rows["ppl_delta_lo"], rows["ppl_delta_hi"]),
        elinewidth=1.3,
        capsize=2.5,
        transform=axes.transData + shift if shift else axes.transData,
        **look,
    )


def dodge(axes: Axes, place: int, places: int) -> ScaledTranslation:
    """A shift of a few points sideways, so that intervals of one period stand side by side."""
    figure = axes.get_figure(root=True)
    assert figure is not None
    points = (place - (places - 1) / 2) * min(4.5, 20 / places)
    return ScaledTranslation(points / 72, 0, figure.dpi_scale_trans)


def line_looks(keys: list[Line]) -> dict[Line, dict[str, Any]]:
    """Colour by trigger, dashes and fill by budget, marker by sinks."""
    colors = dict(
        zip(["overflow", "clock"], sns.color_palette("colorblind").as_hex(), strict=False)
    )
    dashes = {"post_prune": "-", "peak": (0, (4, 1.5)), "none": (0, (1, 1.5))}
    sinks = sorted({key[0] for key in keys})
    markers = dict(zip(sinks, "osD^vPX*", strict=False))
    return {
        (count, cap_on, trigger): {
            "color": colors.get(trigger, GREY),
            "ls": dashes[cap_on],
            "lw": 1.6,
            "marker": markers.get(count, "."),
            "mfc": "white" if cap_on == "peak" else colors.get(trigger, GREY),
            "ms": 7,
        }
        for count, cap_on, trigger in keys
    }


def line_name(key: Line) -> str:
    sinks, cap_on, trigger = key
    return f"{trigger}, {BUDGETS[cap_on]}, S{sinks:g}"


def mark_trained_length(axes: Axes, lengths: pd.Series, trained_length: int) -> None:
    """A line at the trained length, or a note where it lies outside the panel."""
    low, high = float(lengths.min()), float(lengths.max())
    room = max(high - low, 0.02 * high, 4)
    left, right = low - 0.08 * room, high + 0.08 * room
    style: dict[str, Any] = {"va": "top", "fontsize": 10, "color": "#333333"}
    if left <= trained_length <= right + 0.5 * room:
        left = min(left, trained_length - 0.08 * room)
        right = max(right, trained_length + 0.08 * room)
        axes.axvline(trained_length, color="black", ls=(0, (5, 2)), lw=1.3, zorder=2)
        axes.axvspan(trained_length, right, color="#e8821e", alpha=0.11, zorder=0, lw=0)
        near_left = trained_length - left < 0.45 * (right - left)
        style["ha"] = "left" if near_left else "right"
        note = f"  trained length {trained_length:,}  "
        axes.text(trained_length, 0.97, note, transform=axes.get_xaxis_transform(), **style)
    else:
        side = "right" if trained_length > right else "left"
        note = f"trained length {trained_length:,} lies to the {side}"
        axes.text(0.98, 0.97, note, transform=axes.transAxes, ha="right", **style)
    axes.set_xlim(left, right)
