"""Score and fidelity over the share of tokens that is computed anew."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from kvpareto.report.notes import empty_figure, write_notes
from kvpareto.report.panels import bottom_legend
from kvpareto.report.rows import check_rows, drawable, with_kl_floor
from kvpareto.report.scale import log_axis
from kvpareto.report.strategies import (
    in_percent,
    line_handles,
    line_looks,
    missing_arms,
    panel_blocks,
    task_names,
    with_lines,
)
from kvpareto.report.style import reach, theme

BORDERS = {"none": "-", "full": (0, (4, 1.5)), "cat": (0, (1, 1.5))}
"""Strategies without a ratio, drawn across, with their dashes."""

_NAMES = {"score": "score (%)", "kl": "KL, first token\n(nats, log.)"}


def score_and_fidelity(reuse: pd.DataFrame, *, title: str) -> Figure:
    """Score, and KL of the first answer token to full prefill, over the ratio, a column per task.

    Strategies without a ratio (`none`, `full`, `cat`) are lines across; `attnlink` stands at the
    share of tokens that it really computed, hollow.

    Args:
        reuse: rows of the `reuse` table of one model. Columns used: `task`, `strategy`, `setting`,
            `ratio`, `computed_share`, `drop` (only "none" is drawn), `score_name`,
            `score`, `kl_first_token` (nats), `score_lo`, `score_hi`, `kl_lo`, `kl_hi`, `status`.
        title: written above the plot.

    Raises:
        ValueError: a column is missing, or the rows are of several models.
    """
    check_rows(
        reuse,
        "task strategy setting ratio computed_share drop score_name score kl_first_token status",
        "score kl",
    )
    rows = with_lines(reuse[reuse["drop"] == "none"]).rename(columns={"kl_first_token": "kl"})
    across = rows["strategy"].isin(BORDERS)
    share = rows["ratio"].fillna(rows["computed_share"]).mask(across, 0)
    rows = in_percent(rows.assign(share=share), "score", "share")
    # Full prefill is what KL is measured against: it has none of its own.
    parts = {"score": rows, "kl": rows[rows["strategy"] != "none"]}
    drawn = {value: drawable(part, [value, "share"]) for value, part in parts.items()}
    notes = missing_arms(pd.concat([missing for _, missing in drawn.values()]))
    shown = {value: own.sort_values("step") for value, (own, _) in drawn.items()}
    shown["kl"], rounding = with_kl_floor(shown["kl"])
    notes += rounding
    both = pd.concat(shown.values())
    tasks = task_names(both)
    looks = _looks(both)
    names = list(tasks.values()) or [""]
    with theme():
        below = 1.5 + 0.25 * -(-len(looks) // 5)
        figure, panels = panel_blocks(
            names, title, rows=2, columns=4, left=0.095, height=2.7, below=below
        )
        if both.empty:
            panels[0][1].remove()
            return empty_figure(figure, panels[0][0], notes)
        for task, column in zip(tasks, panels, strict=True):
            for axes, (value, own) in zip(column, shown.items(), strict=True):
                _draw(axes, own[own["task"] == task], value, looks)
                axes.set_xlim(-2, 1.04 * max(both["share"].max(), 10))
                if axes.yaxis.get_tick_params()["labelleft"]:
                    axes.set_ylabel(_NAMES[value])
            column[0].set_ylim(_limits(shown["score"], "score"))
            log_axis(column[1], _limits(shown["kl"], "kl"))
            column[1].set_xlabel("recomputed tokens (%)")
        key = "strategy · lines across: without a ratio · attnlink, hollow: at its true share"
        bottom_legend(figure, line_handles(looks, []), key, 5, handlelength=2.8, x=0.086)
        write_notes(figure, notes)
    return figure


def _draw(axes: Axes, panel: pd.DataFrame, value: str, looks: dict[str, dict[str, Any]]) -> None:
    for name, path in panel.groupby("line", sort=False):
        look = looks[str(name)]
        lo, hi = path[f"{value}_lo"], path[f"{value}_hi"]
        if path["strategy"].iloc[0] in BORDERS:
            for height, low, high in zip(path[value], lo, hi, strict=True):
                axes.axhline(height, color=look["color"], ls=look["ls"], lw=1.5, zorder=1.5)
                axes.axhspan(low, high, color=look["color"], alpha=0.08, lw=0, zorder=0.5)
            continue
        axes.errorbar(
            path["share"], path[value], yerr=reach(path[value], lo, hi), elinewidth=1.0, **look
        )


def _looks(rows: pd.DataFrame) -> dict[str, dict[str, Any]]:
    looks = line_looks(rows)
    lines = rows[["line", "strategy"]].drop_duplicates()
    for line, strategy in lines.itertuples(index=False, name=None):
        if strategy in BORDERS:
            looks[line] |= {"ls": BORDERS[strategy], "marker": ""}
        if strategy == "attnlink":
            looks[line] |= {"mfc": "white", "mew": 1.5}
    return looks


def _limits(shown: pd.DataFrame, value: str) -> tuple[float, float]:
    """The range of all points and intervals, and some room; KL's in powers."""
    ends = shown[[value, f"{value}_lo", f"{value}_hi"]].to_numpy(np.float64)
    if value == "kl":
        return 0.6 * float(np.nanmin(ends)), 1.7 * float(np.nanmax(ends))
    low, high = float(np.nanmin(ends)), float(np.nanmax(ends))
    room = 0.06 * max(high - low, 1)
    return low - room, high + room
