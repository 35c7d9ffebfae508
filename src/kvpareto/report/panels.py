"""What the figures with a panel per cap share: layout, lines, points, legend."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import pandas as pd
import seaborn as sns
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator
from matplotlib.transforms import ScaledTranslation

from kvpareto.report.scale import Scale, plain, ppl_label, signed
from kvpareto.report.style import GREY, reach

BUDGETS = {
    "post_prune": "post-prune length capped",
    "peak": "peak length capped",
}
"""What each value of cap_on that bounds the cache means, in words."""

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


def finish_panels(
    figure: Figure,
    panels: list[tuple[float, Axes]],
    scale: Scale,
    what: str = "perplexity change against recompute",
) -> None:
    """Set the vertical axis that all panels share: percent, with its zero line and its label."""
    for _, axes in panels:
        scale.apply(axes, "y", signed)
        axes.axhline(0, color=GREY, lw=1, zorder=1)
    label_left(figure, [axes for _, axes in panels], ppl_label(scale, what))


def label_left(figure: Figure, panels: Sequence[Axes], label: str) -> None:
    """Name the vertical axis of all panels, halfway up them."""
    middle = (panels[0].get_position().y1 + panels[-1].get_position().y0) / 2
    figure.supylabel(label, fontsize=12.5, x=0.008, y=middle, va="center", ha="left")


def bottom_legend(
    figure: Figure,
    handles: Sequence[Artist],
    title: str,
    columns: int,
    handlelength: float,
    x: float = 0.078,
    y: float = 0.3,
) -> None:
    """A legend below the panels: at the share `x` of the width, `y` inches above the edge."""
    figure.legend(
        handles=list(handles),
        title=title or None,
        loc="lower left",
        bbox_to_anchor=(x, y / figure.get_figheight()),
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
    value: str,
    look: dict[str, Any],
    shift: ScaledTranslation | None = None,
) -> None:
    """The column `value` at `x`, with its interval; the bounds of `y_pct` are `y_lo`, `y_hi`."""
    lo, hi = (f"{value.removesuffix('_pct')}_{end}" for end in ("lo", "hi"))
    axes.errorbar(
        x,
        rows[value],
        yerr=reach(rows[value], rows[lo], rows[hi]),
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


def line_keys(shown: pd.DataFrame) -> list[Line]:
    """The lines that lazy arms make: by sinks, budget, and the sources' trigger first."""
    keys = shown[["sinks", "cap_on", "trigger"]].drop_duplicates()
    return sorted(
        keys.itertuples(index=False, name=None),
        key=lambda key: (key[0], list(BUDGETS).index(key[1]), key[2] != "overflow"),
    )


def line_rows(shown: pd.DataFrame, cap: float, key: Line) -> pd.DataFrame:
    """The points of a line at one cap, ascending in the period.

    Raises:
        ValueError: two arms fall on one place.
    """
    sinks, cap_on, trigger = key
    here = (shown["cap"] == cap) & (shown["sinks"] == sinks) & (shown["cap_on"] == cap_on)
    line = shown[here & (shown["trigger"] == trigger)].sort_values("period")
    if line["period"].duplicated().any():
        raise ValueError(
            f"two arms of one period at cap {cap:g}, {line_name(key)}: a line is one "
            "policy, lazy, whose settings differ in nothing but the period"
        )
    return line


def period_axis(axes: Axes, periods: pd.Series) -> None:
    """A logarithmic axis of prune periods with a tick at each."""
    ticks = sorted(periods.unique())
    axes.set_xscale("log", base=2)
    axes.set_xlim(min(ticks) / 1.35, max(ticks) * 1.35)
    axes.xaxis.set_major_locator(FixedLocator(ticks))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: plain(value)))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.set_xlabel("prune period R (tokens, logarithmic)")


def line_looks(keys: list[Line]) -> dict[Line, dict[str, Any]]:
    """Colour by trigger, dashes and fill by budget, marker by sinks."""
    colors = dict(
        zip(["overflow", "clock"], sns.color_palette("colorblind").as_hex(), strict=False)
    )
    dashes = {"post_prune": "-", "peak": (0, (4, 1.5))}
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
