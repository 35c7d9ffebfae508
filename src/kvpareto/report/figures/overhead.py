"""Where a decode step's time goes, over the prune period."""

from __future__ import annotations

from typing import Any

import pandas as pd
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch

from kvpareto.report.notes import empty_figure, write_notes
from kvpareto.report.panels import bottom_legend
from kvpareto.report.rows import check_rows, drawable
from kvpareto.report.style import reach, theme

PROBE = "profile_prune_overhead"
_PARTS = {"forward_ms": "forward pass", "update_ms": "cache update: choosing, moving"}
_STEPS = {"prune_step_ms": "steps that prune", "plain_step_ms": "steps that do not"}


def prune_overhead(probes: pd.DataFrame, *, title: str) -> Figure:
    """Forward and update time per token over R, and whole steps with and without a prune.

    Args:
        probes: rows of the `probes` table of one model and text. Columns used: `probe`, `setting`
            (for example `cap512-S4-R16-compact`), `measure`, `value`, `lo`, `hi` (ms per token,
            medians of blocks), `status`.
        title: written above the plot.

    Raises:
        ValueError: a column is missing, or the rows are of several models or texts.
    """
    check_rows(probes, "probe setting measure value lo hi status")
    rows = probes[(probes["probe"] == PROBE) & probes["measure"].isin([*_PARTS, *_STEPS])]
    named = rows["setting"].str.extract(r"-R(?P<period>\d+)-(?P<layout>\w+)$")
    rows = rows.assign(period=named["period"].astype(float), layout=named["layout"])
    shown, _ = drawable(rows, ["value", "period"])
    with theme():
        figure = Figure(figsize=(12.8, 5.6))
        left, right = figure.subplots(1, 2, sharey=True)
        figure.subplots_adjust(left=0.065, right=0.985, top=0.87, bottom=0.31, wspace=0.06)
        figure.suptitle(title, x=0.012, y=0.965, ha="left", weight="bold", fontsize=13)
        left.set_title("all steps, split", loc="left")
        right.set_title("whole steps", loc="left")
        if shown.empty:
            right.remove()
            return empty_figure(figure, left, [])
        places = sorted(set(zip(shown["period"], shown["layout"], strict=True)))
        keys = zip(shown["period"], shown["layout"], strict=True)
        shown = shown.assign(place=[places.index(key) for key in keys])
        ink = sns.color_palette("colorblind").as_hex()
        left_handles = _stack(left, shown, (ink[0], ink[1]))
        right_handles = _points(right, shown, (ink[3], ink[2]))
        names = [f"R{period:g}" for period, _ in places]
        if shown["layout"].nunique() > 1:
            names = ["\n".join([f"R{period:g}", *layout.split("_")]) for period, layout in places]
        for axes in (left, right):
            axes.set_xticks(range(len(places)), names)
            axes.set_xlim(-0.6, len(places) - 0.4)
            axes.set_xlabel("prune period (tokens)")
            axes.grid(visible=False, axis="x")
        left.set_ylim(bottom=0)
        left.set_ylabel("time per token (ms)")
        bottom_legend(figure, left_handles, "all steps", 2, handlelength=1.2)
        bottom_legend(figure, right_handles, "whole steps", 2, handlelength=1.2, x=0.53)
        write_notes(figure, [])
    return figure


def _stack(axes: Axes, shown: pd.DataFrame, colors: tuple[str, str]) -> list[Patch]:
    """Bars of both parts, each with the interval of its own time at its upper end."""
    handles = []
    bottom = pd.Series(0.0, index=shown["place"].unique())
    # Intervals side by side: the upper part can be thinner than they are long.
    for (measure, name), color, offset in zip(_PARTS.items(), colors, (-0.12, 0.12), strict=True):
        handles.append(Patch(color=color, label=name))
        part = shown[shown["measure"] == measure].set_index("place")
        start, x = bottom[part.index], part.index.to_numpy(float)
        axes.bar(x, part["value"], 0.62, start, color=color, edgecolor="white", lw=0.8)
        bottom[part.index] += part["value"]
        axes.errorbar(
            x + offset,
            start + part["value"],
            yerr=reach(part["value"], part["lo"], part["hi"]),
            fmt="none",
            ecolor="#222222",
            elinewidth=1.3,
            capsize=3,
        )
    return handles


def _points(axes: Axes, shown: pd.DataFrame, colors: tuple[str, str]) -> list[Line2D]:
    handles = []
    for (measure, name), color, marker, offset in zip(
        _STEPS.items(), colors, "so", (-0.1, 0.1), strict=True
    ):
        look: dict[str, Any] = {"color": color, "marker": marker, "ms": 8, "ls": "none"}
        handles.append(Line2D([], [], label=name, **look))
        steps = shown[shown["measure"] == measure]
        axes.errorbar(
            steps["place"] + offset,
            steps["value"],
            yerr=reach(steps["value"], steps["lo"], steps["hi"]),
            elinewidth=1.3,
            capsize=3,
            **look,
        )
    return handles
