"""Time per token of every decode engine against the share of the memory bandwidth that it uses."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, NullLocator

from kvpareto.report.engines import (
    RUN,
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
from kvpareto.report.labels import Label, place_labels
from kvpareto.report.notes import empty_figure, notes_height, write_notes
from kvpareto.report.panels import bottom_legend
from kvpareto.report.rows import check_rows, drawable
from kvpareto.report.scale import log_axis, plain
from kvpareto.report.strategies import panel_blocks
from kvpareto.report.style import GREY, theme

_FIRST = ("prune each step", "prune every R", "llama.cpp")
"""Families that a reader looks for: their labels are bold, and find their places first; then what
is exact, then what is fast."""

_FAR = 5.0
"""Times the yardstick's step: what is slower is named in a note."""


def time_against_bandwidth(decode: pd.DataFrame, *, title: str) -> Figure:
    """Median step against the share of the bandwidth, both logarithmic, a panel per run.

    Engines that read the same bytes lie on one falling line, drawn for those of the yardstick:
    along it a step is slower by what it leaves unused. What takes far longer than the yardstick, as
    recompute does, is named below with its figures, or all others would stand on one spot.

    Args:
        decode: rows of the `decode` table of one group and shape. Columns used: `cap`, `threads`,
            `engine`, `exact`, `tpot_ms_p50`, `bandwidth_share`, `bandwidth_gb_s`, `read_bytes`,
            `status`, `why`.
        title: written above the plot.

    Raises:
        ValueError: a column is missing.
    """
    needed = "tpot_ms_p50 bandwidth_share bandwidth_gb_s read_bytes"
    check_rows(decode, f"cap threads engine exact status why {needed}")
    found, missing = drawable(decode, ["tpot_ms_p50", "bandwidth_share"])
    shown, far = _apart(found)
    notes = [*far, *lacking(missing)]
    runs = runs_of(shown)
    names = [_named(of_run(shown, run), run) for run in runs] or [""]
    with theme():
        below = 1.9 + notes_height(notes)
        figure, panels = panel_blocks(names, title, columns=1, height=5.0, below=below)
        if shown.empty:
            return empty_figure(figure, panels[0][0], notes)
        for (axes,), run in zip(panels, runs, strict=True):
            rows = of_run(shown, run)
            _limits(axes, rows)
            _draw_run(axes, rows)
            homeless = _write_labels(axes, rows)
            if homeless:
                notes = [*notes, f"Without a label, {run_name(run)}: {', '.join(homeless)}."]
            axes.set_ylabel("share of bandwidth (%, logarithmic)")
        room = 0.3 + notes_height(notes)
        bottom_legend(figure, family_handles(shown["engine"]), "", 4, 1.2, y=room)
        write_notes(figure, notes)
    return figure


def _apart(found: pd.DataFrame) -> tuple[pd.DataFrame, list[str]]:
    """Without what is far slower than the yardstick of its run, and a sentence about that."""
    yardstick = found[found["engine"] == YARDSTICK].set_index(RUN)["tpot_ms_p50"]
    limits = _FAR * yardstick.reindex(pd.MultiIndex.from_frame(found[RUN])).to_numpy(np.float64)
    far = found["tpot_ms_p50"].to_numpy(np.float64) > limits
    said = [
        f"{spelt(row['engine'])} at {row['tpot_ms_p50']:.3g} ms and "
        f"{100 * row['bandwidth_share']:.2g}% ({run_name((row['cap'], row['threads']))})"
        for row in found[far].to_dict("records")
    ]
    return found[~far], [f"Far to the right: {', '.join(said)}."] if said else []


def _named(rows: pd.DataFrame, run: tuple[Any, ...]) -> str:
    return f"{run_name(run)} \N{MIDDLE DOT} {rows['bandwidth_gb_s'].iloc[0]:.3g} GB/s measured"


def _limits(axes: Axes, rows: pd.DataFrame) -> None:
    """Room for labels on every side; the whole bandwidth is always in sight."""
    time, share = rows["tpot_ms_p50"], 100 * rows["bandwidth_share"]
    axes.set_xscale("log")
    axes.set_xlim(time.min() / 1.45, time.max() * 1.45)
    steps = (1,) if time.max() > 100 * time.min() else (1, 1.5, 2, 3, 5, 7)
    axes.xaxis.set_major_locator(LogLocator(subs=steps))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: plain(value)))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.tick_params(labelbottom=True)
    axes.set_xlabel("time per token, median (ms, logarithmic)")
    log_axis(axes, (share.min() / 1.6, max(140.0, 1.3 * share.max())))


def _draw_run(axes: Axes, rows: pd.DataFrame) -> None:
    axes.axhline(100, color=GREY, lw=1.2, zorder=1)
    axes.axhspan(100, axes.get_ylim()[1], color="black", alpha=0.045, lw=0, zorder=0)
    look: dict[str, Any] = {"fontsize": 10, "color": GREY, "va": "bottom", "ha": "right"}
    said = "all that this machine can read from memory in the time"
    axes.text(0.99, 102, said, transform=axes.get_yaxis_transform(), **look)
    yardstick = rows[rows["engine"] == YARDSTICK]
    if len(yardstick):
        one = yardstick.iloc[0]
        times = np.geomspace(*axes.get_xlim(), 200)
        shares = 100 * one["bandwidth_share"] * one["tpot_ms_p50"] / times
        inside = (shares > axes.get_ylim()[0]) & (shares < axes.get_ylim()[1])
        axes.plot(times[inside], shares[inside], color=GREY, ls=(0, (4, 3)), lw=1, zorder=1)
        said = f"{one['read_bytes'] / 1e6:,.3g} MB a step, as prune reads"
        clear = shares > 1.3 * axes.get_ylim()[0]  # below the line, and above the frame
        end = (times[clear][-1], shares[clear][-1])
        beside = look | {"va": "top"}
        axes.annotate(said, end, (-4, -5), textcoords="offset points", **beside)
    for row in rows.to_dict("records"):
        axes.plot(
            [row["tpot_ms_p50"]],
            [100 * row["bandwidth_share"]],
            ls="none",
            zorder=5 if family_of(row["engine"]) in _FIRST else 4,
            **engine_look(row["engine"], bool(row["exact"])),
        )


def _write_labels(axes: Axes, rows: pd.DataFrame) -> list[str]:
    """Name every point; returns the names for which there was no room."""
    first = rows["engine"].map(family_of).isin(_FIRST)
    ordered = rows.assign(first=first).sort_values(
        ["first", "exact", "tpot_ms_p50"], ascending=[False, False, True], kind="stable"
    )
    labels = [
        Label(
            row["tpot_ms_p50"],
            100 * row["bandwidth_share"],
            spelt(row["engine"]),
            engine_style(row["engine"]).ink,
            "bold" if row["first"] else "normal",
        )
        for row in ordered.to_dict("records")
    ]
    points = np.column_stack([rows["tpot_ms_p50"], 100 * rows["bandwidth_share"]])
    low, high = axes.get_xlim()
    level = np.array([[low, 100.0, high, 100.0]])
    lines = np.vstack([level, *(_stairs(line.get_xydata()) for line in axes.lines)])
    return [label.text for label in place_labels(axes, labels, points.astype(float), lines)]


def _stairs(path: Any) -> np.ndarray[Any, np.dtype[np.float64]]:
    """A falling line as flat pieces, [lines, 4]: what labels keep clear of; a point has none."""
    corners = np.asarray(path, dtype=np.float64)[::8]
    return np.column_stack([corners[:-1], corners[1:, 0], corners[:-1, 1]])
