"""What a token costs, and how far it is from the oracle, against the age of the stream."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FuncFormatter, LogLocator, NullLocator

from kvpareto.report.engines import engine_style, lacking, spelt
from kvpareto.report.notes import empty_figure, notes_height, write_notes
from kvpareto.report.panels import bottom_legend
from kvpareto.report.rows import check_rows, drawable
from kvpareto.report.scale import plain, signed
from kvpareto.report.style import GREY, theme

AGE_KL_FLOOR = 1e-15
"""Nats: less is rounding of sums of 64-bit numbers, and is drawn here: the axis has no zero."""

_FULL = "full"

_MEASURES = {
    "tpot_ms": ("time per token", "ms, log.", 1.0),
    "cache_bytes": ("entries of the cache", "MiB, log.", 2.0**20),
    "kl_to_oracle": ("KL from the oracle", "nats, log.", 1.0),
}
"""Of each measure its panel's title, its unit, and what it is divided by."""


def cost_against_age(age: pd.DataFrame, slopes: pd.DataFrame, *, title: str) -> Figure:
    """Time, cache and error of every engine against the tokens decoded, all logarithmic.

    Times are medians with the span of their quartiles. The slopes over the ages stand above each
    panel's lines, with their intervals.

    Args:
        age: bins of ages of one shape. Columns used: `engine`, `age`, `tpot_ms` with bounds,
            `cache_bytes`, `kl_to_oracle` (NaN for the full cache), `status`, `why`.
        slopes: rows of the table `decode_age` of the same shape: `engine`, `measure`, `value`,
            `lo`, `hi`, `unit`, per 100,000 tokens.
        title: written above the plot.

    Raises:
        ValueError: a column is missing.
    """
    check_rows(age, "engine age cache_bytes kl_to_oracle status why tpot_ms", "tpot_ms")
    check_rows(slopes, "engine measure value lo hi unit")
    shown, missing = drawable(age, ["age", "tpot_ms", "cache_bytes"])
    notes = lacking(missing)
    error = shown["kl_to_oracle"].to_numpy(np.float64)
    if (error < AGE_KL_FLOOR).any():
        low = int((error < AGE_KL_FLOOR).sum())
        notes = [*notes, f"{low} KL below {AGE_KL_FLOOR:g} nats stand at {AGE_KL_FLOOR:g}."]
    shown = shown.assign(kl_to_oracle=np.maximum(error, AGE_KL_FLOOR))
    engines = sorted(shown["engine"].unique(), key=lambda engine: (engine == _FULL, engine))
    looks = _looks(engines)
    with theme():
        above, below = 0.95 + 0.21 * len(engines), 1.25 + notes_height(notes)
        height = above + 3.2 + below
        figure = Figure(figsize=(12.8, height))
        figure.suptitle(title, x=0.012, y=1 - 0.2 / height, ha="left", weight="bold", fontsize=13)
        panels = list(figure.subplots(1, 3))
        figure.subplots_adjust(
            left=0.06, right=0.985, wspace=0.24, top=1 - above / height, bottom=below / height
        )
        if shown.empty:
            for axes in panels[1:]:
                axes.remove()
            return empty_figure(figure, panels[0], notes)
        for axes, measure in zip(panels, _MEASURES, strict=True):
            for engine, look in looks.items():
                _draw_line(axes, shown[shown["engine"] == engine], measure, look)
            _finish(axes, measure, shown["age"])
            _write_slopes(axes, measure, slopes[slopes["measure"] == measure], looks)
        handles = [Line2D([], [], label=spelt(name), **look) for name, look in looks.items()]
        notes = ["Above the panels: slopes per 100,000 tokens, with intervals.", *notes]
        bottom_legend(figure, handles, "", 4, 2.6, x=0.05, y=0.25 + notes_height(notes))
        write_notes(figure, notes)
    return figure


def _looks(engines: list[str]) -> dict[str, dict[str, Any]]:
    """Colours of the families, dashes within one; thinner and thinner, for lines that coincide."""
    dashes: list[Any] = ["-", (0, (4, 1.5)), (0, (1, 1.5))]
    looks: dict[str, dict[str, Any]] = {}
    for engine in engines:
        color = engine_style(engine).color
        same = sum(look["color"] == color for look in looks.values())
        looks[engine] = {"color": color, "ls": dashes[same % len(dashes)]}
        looks[engine]["lw"] = max(1.4, 3.8 - 1.4 * (len(looks) - 1))
    return looks


def _draw_line(axes: Axes, rows: pd.DataFrame, measure: str, look: dict[str, Any]) -> None:
    rows = rows.sort_values("age").dropna(subset=[measure])
    if measure == "tpot_ms":
        spans = rows["tpot_ms_lo"], rows["tpot_ms_hi"]
        axes.fill_between(rows["age"], *spans, color=look["color"], alpha=0.2, lw=0)
    scale = _MEASURES[measure][2]
    # The full cache is not run to the ages of the others: it has few bins, which then show.
    few = {"marker": "o", "ms": 5} if len(rows) < 12 else {}
    axes.plot(rows["age"], rows[measure] / scale, **look | few)


def _finish(axes: Axes, measure: str, ages: pd.Series) -> None:
    unit = _MEASURES[measure][1]
    axes.set_xscale("log")
    axes.set_yscale("log")
    axes.set_xlim(max(1.0, ages.min() / 1.3), 1.3 * ages.max())
    axes.xaxis.set_major_locator(LogLocator(base=10))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: plain(value)))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.set_xlabel("age of the stream (tokens, log.)")
    low, high = axes.dataLim.y0, axes.dataLim.y1
    # A decade at least, of what is nearly nothing three: what is flat has to look it.
    least = 10**0.5 if measure != "kl_to_oracle" else 10**1.5
    middle, half = np.sqrt(low * high), max(1.25 * np.sqrt(high / low), least)
    axes.set_ylim(middle / half, middle * half)
    if measure != "kl_to_oracle":
        axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: plain(value)))
    axes.yaxis.set_minor_locator(NullLocator())
    axes.set_ylabel(unit, labelpad=2)


def _write_slopes(
    axes: Axes, measure: str, slopes: pd.DataFrame, looks: dict[str, dict[str, Any]]
) -> None:
    """Above the panel: its title, and a line for each engine in its colour."""
    known = slopes[np.isfinite(slopes["value"].astype(float))].set_index("engine")
    said = {str(engine): _slope(row) for engine, row in known.iterrows()}
    lines = [(_MEASURES[measure][0], "black", 13.0)]
    lines += [
        (f"{spelt(engine)}: {said[engine]}", engine_style(engine).ink, 10.5)
        if engine in said
        else (f"{spelt(engine)}: no slope", GREY, 10.5)
        for engine in looks
    ]
    for place, (text, color, size) in enumerate(reversed(lines)):
        look: dict[str, Any] = {"xycoords": "axes fraction", "textcoords": "offset points"}
        axes.annotate(text, (0, 1), (0, 6 + 15 * place), fontsize=size, color=color, **look)


def _slope(row: pd.Series[Any]) -> str:
    """`+0.3 [-0.4, +1.1] %`, or nats as a multiple of a power of ten."""
    values = row[["value", "lo", "hi"]].to_numpy(np.float64)
    unit, digits = "%", 0 if abs(values[0]) >= 100 else 2
    if row["unit"] != "%":
        largest = np.nanmax(np.abs(values))
        power = int(np.floor(np.log10(largest))) if largest > 0 else 0
        values, digits = values / 10.0**power, 1
        unit = f"\N{MULTIPLICATION SIGN} $10^{{{power}}}$ {row['unit']}"
    value, lo, hi = (signed(round(float(one), digits)) for one in values)
    bounds = "" if np.isnan(values[1]) or values[1] == values[2] else f" [{lo}, {hi}]"
    return f"{value}{bounds} {unit}"
