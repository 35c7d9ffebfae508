"""Score and fidelity of merged chunks against the number of chunks without the answer."""

from __future__ import annotations

import pandas as pd
from matplotlib.figure import Figure

from kvpareto.report.notes import empty_figure, write_notes
from kvpareto.report.offset_lines import (
    count_axis,
    draw_lines,
    families,
    legend_of,
    missing_lines,
    of_panel,
    offset_lines,
    offset_looks,
    panel_keys,
    task_rows,
)
from kvpareto.report.panels import bottom_legend
from kvpareto.report.rows import check_rows, drawable, with_kl_floor
from kvpareto.report.scale import log_axis
from kvpareto.report.strategies import in_percent, panel_blocks
from kvpareto.report.style import theme

_NAMES = {"score": "score (%)", "kl": "KL (nats, log.)"}


def score_against_noise(merge: pd.DataFrame, *, title: str) -> Figure:
    """Score, and below it KL to full attention over the same keys, against noise chunks.

    A column for each task and way to give positions. Offsets and deletion have rows of their own,
    with the controls in both. A ring is a point whose positions pass the trained length.

    Args:
        merge: rows of the `merge` table of one model. Columns used: `task`, `positions`, `arm`,
            `setting`, `chunks`, `gold_chunks`, `extrapolating`, `score_name`, `score`,
            `kl_to_full` (nats), `score_lo`, `score_hi`, `kl_lo`, `kl_hi`, `status`.
        title: written above the plot.

    Raises:
        ValueError: a column is missing, or the rows are of several models.
    """
    check_rows(
        merge,
        "task positions arm setting chunks gold_chunks extrapolating score_name score kl_to_full "
        "status",
        "score kl",
    )
    rows, notes = offset_lines(in_percent(task_rows(merge), "score"))
    rows = rows.rename(columns={"kl_to_full": "kl"})
    shown, missing = drawable(rows, ["score", "kl", "noise"])
    shown, rounding = with_kl_floor(shown)
    notes += rounding + missing_lines(missing)
    keys, looks = panel_keys(shown), offset_looks(shown)
    parts = {(value, name): own for value in _NAMES for name, own in families(shown).items()}
    with theme():
        handles = legend_of(shown, looks)
        figure, panels = panel_blocks(
            [f"{task}, {positions}" for task, positions in keys] or [""],
            title,
            rows=len(parts),
            columns=4,
            left=0.095,
            height=2.35,
            below=1.7 + 0.25 * -(-len(handles) // 4),
        )
        if shown.empty:
            for axes in panels[0][1:]:
                axes.remove()
            return empty_figure(figure, panels[0][0], notes)
        span = 0.5 * shown["kl_lo"].min(), 2 * shown["kl_hi"].max()
        for key, column in zip(keys, panels, strict=True):
            for axes, ((value, name), own) in zip(column, parts.items(), strict=True):
                draw_lines(axes, of_panel(own, key), "noise", value, looks)
                count_axis(axes, of_panel(shown, key)["noise"], "")
                if value == "score":
                    axes.set_ylim(-5, 105)
                else:
                    log_axis(axes, span)
                if axes.yaxis.get_tick_params()["labelleft"]:
                    axes.set_ylabel(f"{name}\n{_NAMES[value]}")
            column[-1].set_xlabel("chunks without the answer")
        bottom_legend(figure, handles, "method and setting", 4, handlelength=2.8, x=0.086, y=0.5)
        write_notes(figure, notes)
    return figure
