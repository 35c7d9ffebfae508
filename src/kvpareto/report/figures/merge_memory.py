"""What chunk by chunk takes of memory and time, beside the same with a concatenated cache."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.figure import Figure

from kvpareto.report.merge_tables import MEMORY
from kvpareto.report.notes import empty_figure, write_notes
from kvpareto.report.offset_lines import count_axis
from kvpareto.report.panels import bottom_legend, dodge, draw_points
from kvpareto.report.rows import check_rows, drawable, missing_note
from kvpareto.report.scale import log_axis
from kvpareto.report.strategies import line_handles, plain_name
from kvpareto.report.style import GREY, theme

_INK = sns.color_palette("colorblind").as_hex()
_RUNS = {"chunk by chunk": (_INK[0], "o"), "at once": (_INK[1], "s"), "concatenated": (GREY, "v")}
_DASHES: list[Any] = ["-", (0, (4, 1.5)), (0, (1, 1.5)), (0, (4, 1.5, 1, 1.5))]
_MIB = 2**20


def memory_against_chunks(merge: pd.DataFrame, *, title: str) -> Figure:
    """Peak memory beyond the entries, and time over the concatenated control's, against chunks.

    The legend has the slope of a straight line through each line's peaks, by least squares. Times
    are of the question's pass and of a step after it.

    Args:
        merge: rows of the `merge` table of one model. Columns used: `task` (only rows of memory and
            time are drawn), `arm`, `top_k`, `run`, `chunks`, `tokens`, `peak_extra_bytes`,
            `pass_ratio`, `step_ratio` with `_lo` and `_hi`, `status`.
        title: written above the plot.

    Raises:
        ValueError: a column is missing, or the rows are of several models.
    """
    check_rows(
        merge,
        "task arm top_k run chunks tokens peak_extra_bytes pass_ratio step_ratio status",
        "pass_ratio step_ratio",
    )
    rows = _with_lines(merge[merge["task"] == MEMORY])
    shown, missing = drawable(rows, ["peak_extra_bytes", "pass_ratio", "step_ratio"])
    notes = missing_note(missing["line"], missing)
    with theme():
        figure = Figure(figsize=(12.8, 5.4))
        figure.suptitle(title, x=0.012, y=0.965, ha="left", weight="bold", fontsize=13)
        peak, *times = figure.subplots(1, 3)
        figure.subplots_adjust(left=0.07, right=0.985, top=0.86, bottom=0.335, wspace=0.25)
        if shown.empty:
            for axes in times:
                axes.remove()
            return empty_figure(figure, peak, notes)
        looks = _looks(shown)
        for place, (line, look) in enumerate(looks.items()):
            path = shown[shown["line"] == line].sort_values("chunks")
            peak.plot(path["chunks"], path["peak_extra_bytes"] / _MIB, **look)
            for axes, value in zip(times, ("pass_ratio", "step_ratio"), strict=True):
                if path["run"].iloc[0] == "concatenated":
                    axes.axhline(1, color=look["color"], lw=1.5)
                    continue
                draw_points(axes, path["chunks"], path, value, look, dodge(axes, place, len(looks)))
        peak.set_title("peak memory beyond the entries", loc="left")
        peak.set_ylabel("MiB (log.)")
        log_axis(peak, (0.5 * peak.dataLim.y0, 2 * peak.dataLim.y1))
        count_axis(peak, shown["chunks"], _of_tokens(shown))
        for axes, name in zip(times, ("the question's pass", "a step after it"), strict=True):
            axes.set_title(name, loc="left")
            axes.set_ylim(0, 1.08 * max(1.1, _highest(shown)))
            count_axis(axes, shown["chunks"], "chunks")
        times[0].set_ylabel("time over concatenated")
        named = {f"{line}: {_slope(shown, line)} per chunk": look for line, look in looks.items()}
        bottom_legend(figure, line_handles(named, []), "run: slope of the peak", 2, 2.6, x=0.062)
        write_notes(figure, notes)
    return figure


def _with_lines(rows: pd.DataFrame) -> pd.DataFrame:
    """Add `line`: how it is run and, of several methods, which one; floats for what is drawn."""
    methods = [
        f"{plain_name(arm)}{'' if pd.isna(top_k) else f' K{top_k:g}'}"
        for arm, top_k in zip(rows["arm"], rows["top_k"], strict=True)
    ]
    floats = [name for name in rows.columns if name.startswith(("peak_", "pass_", "step_"))]
    lines = [
        run if run == "concatenated" else f"{run}, {method}"
        for run, method in zip(rows["run"], methods, strict=True)
    ]
    return rows.assign(line=lines).astype(dict.fromkeys([*floats, "chunks"], np.float64))


def _looks(shown: pd.DataFrame) -> dict[str, dict[str, Any]]:
    looks = {}
    for run, (color, marker) in _RUNS.items():
        for place, line in enumerate(sorted(shown.loc[shown["run"] == run, "line"].unique())):
            hollow = run == "concatenated"
            looks[line] = {
                "color": color, "marker": marker, "mfc": "white" if hollow else color, "ms": 7,
                "ls": _DASHES[place % len(_DASHES)], "lw": 1.6,
            }  # fmt: skip
    return looks


def _slope(shown: pd.DataFrame, line: str) -> str:
    """Growth of the peak in bytes per chunk."""
    own = shown[shown["line"] == line]
    if own["chunks"].nunique() < 2:
        return "no slope"
    return f"{np.polyfit(own['chunks'], own['peak_extra_bytes'], 1)[0]:z,.0f} bytes"


def _of_tokens(shown: pd.DataFrame) -> str:
    sizes = (shown["tokens"].astype(float) / shown["chunks"]).unique()
    return f"chunks of {sizes[0]:g} tokens" if len(sizes) == 1 else "chunks"


def _highest(shown: pd.DataFrame) -> float:
    return float(shown[["pass_ratio_hi", "step_ratio_hi"]].to_numpy(np.float64).max())
