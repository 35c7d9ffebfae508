"""How long a step of every decode engine takes, and how much faster it is than two baselines."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FuncFormatter, LogLocator, NullLocator

from kvpareto.report.engines import (
    YARDSTICK,
    engine_look,
    engine_style,
    family_handles,
    family_of,
    lacking,
    of_run,
    run_name,
    runs_of,
    spelt,
)
from kvpareto.report.notes import empty_figure, notes_height, write_notes
from kvpareto.report.panels import bottom_legend
from kvpareto.report.rows import check_rows, drawable
from kvpareto.report.scale import plain
from kvpareto.report.style import GREY, reach, theme

_RATIOS = {
    "speedup_vs_strict": "speed-up over prune (strict)",
    "speedup_vs_recompute": "speed-up over recompute",
}
_ROW = 0.27
"""Inches of an engine's line."""


def steps_and_speedups(decode: pd.DataFrame, *, title: str) -> Figure:
    """Median to 99th percentile of a step, and both speed-ups with intervals, a row per run.

    Engines are sorted by their median. Both speed-ups stand side by side, so that neither is read
    without the other.

    Args:
        decode: rows of the `decode` table of one group and shape. Columns used: `cap`, `threads`,
            `engine`, `exact`, `tpot_ms_p50`, `tpot_ms_p99`, `tpot_ms_max`, `speedup_vs_strict` and
            `speedup_vs_recompute` with bounds, `status`, `why`.
        title: written above the plot.

    Raises:
        ValueError: a column is missing.
    """
    times = "tpot_ms_p50 tpot_ms_p99 tpot_ms_max"
    check_rows(decode, f"cap threads engine exact status why {times}", " ".join(_RATIOS))
    shown, missing = drawable(decode, times.split())
    notes = lacking(missing)
    without = [what for name, what in _RATIOS.items() if shown[name].isna().all()]
    if len(shown) and without:
        notes = [*notes, f"Not measured: {', '.join(without)}."]
    runs = runs_of(shown)
    counts = [len(of_run(shown, run)) for run in runs] or [8]
    with theme():
        figure, panels = _panels(counts, title, below=1.95 + notes_height(notes))
        if shown.empty:
            for axes in panels[0][1:]:
                axes.remove()
            return empty_figure(figure, panels[0][0], notes)
        for row, run in zip(panels, runs, strict=True):
            _draw_row(row, of_run(shown, run), run_name(run))
        _limits(panels, shown)
        handles = [*family_handles(shown["engine"]), *_reading()]
        bottom_legend(figure, handles, "", 4, 1.6, x=0.03, y=0.3 + notes_height(notes))
        write_notes(figure, notes)
    return figure


def _panels(counts: list[int], title: str, below: float) -> tuple[Figure, list[list[Axes]]]:
    """Three panels for each run, as high as its engines need."""
    heights = [_ROW * count + 0.25 for count in counts]
    gap, head = 1.0, 0.95
    whole = head + sum(heights) + gap * (len(counts) - 1) + below
    figure = Figure(figsize=(12.8, whole))
    figure.suptitle(title, x=0.012, y=1 - 0.2 / whole, ha="left", weight="bold", fontsize=13)
    panels, top = [], whole - head
    for height in heights:
        grid = figure.add_gridspec(
            1, 3, width_ratios=(1.5, 1, 1), left=0.235, right=0.985, wspace=0.07,
            top=top / whole, bottom=(top - height) / whole,
        )  # fmt: skip
        panels.append(list(grid.subplots(squeeze=False)[0]))
        top -= height + gap
    return figure, panels


def _draw_row(row: list[Axes], rows: pd.DataFrame, name: str) -> None:
    rows = rows.sort_values("tpot_ms_p50", kind="stable").reset_index(drop=True)
    steps, *ratios = row
    steps.set_title(name, loc="left")
    for place, one in enumerate(rows.to_dict("records")):
        _draw_step(steps, place, one)
        for axes, ratio in zip(ratios, _RATIOS, strict=True):
            _draw_ratio(axes, place, one, ratio)
    for axes in row:
        axes.set_ylim(len(rows) - 0.4, -0.6)
        axes.set_yticks(range(len(rows)), [])
        axes.set_xscale("log")
        axes.grid(visible=False, axis="y")
        for place in range(0, len(rows), 2):
            axes.axhspan(place - 0.5, place + 0.5, color="black", alpha=0.025, lw=0, zorder=0)
    steps.set_yticks(range(len(rows)), [spelt(engine) for engine in rows["engine"]])
    for label, engine in zip(steps.get_yticklabels(), rows["engine"], strict=True):
        label.set_color(engine_style(engine).ink)
        label.set_fontweight(
            "bold" if engine == YARDSTICK or family_of(engine) == "llama.cpp" else "normal"
        )
    steps.set_xlabel("time per token (ms, logarithmic)")
    for axes, what in zip(ratios, _RATIOS.values(), strict=True):
        axes.set_title(what, loc="left", fontsize=12)
        axes.set_xlabel("ratio of times (logarithmic)")
        axes.axvline(1, color=GREY, lw=1, zorder=1)


def _draw_step(axes: Axes, place: int, one: dict[Any, Any]) -> None:
    look = engine_look(one["engine"], bool(one["exact"]))
    p50, p99, longest = (one[f"tpot_ms_{name}"] for name in ("p50", "p99", "max"))
    axes.plot([p50, p99], [place, place], color=look["color"], lw=6, alpha=0.4, zorder=2,
              solid_capstyle="butt")  # fmt: skip
    axes.plot([longest], [place], color=look["color"], marker="|", ms=9, mew=1.1, zorder=2)
    axes.plot([p50], [place], zorder=3, **look | {"ms": 0.85 * look["ms"]})


def _draw_ratio(axes: Axes, place: int, one: dict[Any, Any], ratio: str) -> None:
    value, lo, hi = (float(one[f"{ratio}{end}"]) for end in ("", "_lo", "_hi"))
    if np.isnan(value):
        return
    look = engine_look(one["engine"], bool(one["exact"]))
    axes.errorbar([value], [place], xerr=reach([value], [lo], [hi]), elinewidth=1.4, capsize=2.5,
                  **look | {"ms": 0.75 * look["ms"]})  # fmt: skip
    said = f"{value:.1f}x" if value >= 10 else f"{value:.2f}x"
    axes.annotate(
        said,
        (np.nanmax([value, hi]), place),
        (7, 0),
        textcoords="offset points",
        va="center",
        fontsize=10,
        color="#333333",
    )


def _limits(panels: list[list[Axes]], shown: pd.DataFrame) -> None:
    """One horizontal axis for all panels of a column."""
    columns = (
        ["tpot_ms_p50", "tpot_ms_max"],
        *([f"{name}{end}" for end in ("", "_lo", "_hi")] for name in _RATIOS),
    )
    for place, names in enumerate(columns):
        found = shown[names].to_numpy(np.float64)
        values = np.append(found[np.isfinite(found)], [] if place == 0 else [1.0])
        low, high = values.min(), values.max()
        # A figure stands to the right of each ratio.
        room = (1.15, 1.2) if place == 0 else (1.25, 1.3 * (high / low) ** 0.25)
        for row in panels:
            axes = row[place]
            axes.set_xlim(low / room[0], high * room[1])
            axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5) if high < 30 * low else (1, 3)))
            axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: plain(value)))
            axes.xaxis.set_minor_locator(NullLocator())


def _reading() -> list[Line2D]:
    bar: dict[str, Any] = {"color": GREY, "lw": 6, "alpha": 0.4, "solid_capstyle": "butt"}
    tick: dict[str, Any] = {"color": GREY, "ls": "none", "marker": "|", "ms": 9}
    return [
        Line2D([], [], label="median to 99th percentile", **bar),
        Line2D([], [], label="slowest step", **tick),
    ]
