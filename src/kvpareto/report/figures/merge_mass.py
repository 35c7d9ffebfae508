"""Share of attention that the chunk with the answer gets, before and after the offset."""

from __future__ import annotations

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from kvpareto.report.notes import empty_figure, write_notes
from kvpareto.report.offset_lines import (
    count_axis,
    draw_lines,
    legend_of,
    missing_lines,
    of_panel,
    offset_lines,
    offset_looks,
    panel_keys,
    task_rows,
)
from kvpareto.report.panels import bottom_legend
from kvpareto.report.rows import check_rows, drawable
from kvpareto.report.strategies import in_percent, panel_blocks
from kvpareto.report.style import theme

_NAMES = {"gold_mass_before": "before the offset", "gold_mass": "after the offset"}


def mass_against_noise(merge: pd.DataFrame, *, title: str) -> Figure:
    """Attention to the chunk with the answer against noise chunks, a column per task and positions.

    Before the offset means in the same pass: in a layer, what its offset then changes. Arms whose
    context is not attended to in chunks have no such share.

    Args:
        merge: rows of the `merge` table of one model. Columns used: `task`, `positions`, `arm`,
            `setting`, `chunks`, `gold_chunks`, `extrapolating`, `score_name`, `score`,
            `gold_mass_before`, `gold_mass` and their bounds, `status`.
        title: written above the plot.

    Raises:
        ValueError: a column is missing, or the rows are of several models.
    """
    check_rows(
        merge,
        "task positions arm setting chunks gold_chunks extrapolating score_name score "
        "gold_mass_before gold_mass status",
        "gold_mass_before gold_mass",
    )
    rows, notes = offset_lines(in_percent(task_rows(merge), *_NAMES))
    shown, missing = drawable(rows, [*_NAMES, "noise"])
    notes += missing_lines(missing[missing["status"] != "ok"])
    keys, looks = panel_keys(shown), offset_looks(shown)
    with theme():
        handles = legend_of(shown, looks)
        figure, panels = panel_blocks(
            [f"{task}, {positions}" for task, positions in keys] or [""],
            title,
            rows=2,
            columns=4,
            left=0.095,
            height=3.0,
            below=1.7 + 0.25 * -(-len(handles) // 4),
        )
        if shown.empty:
            panels[0][1].remove()
            return empty_figure(figure, panels[0][0], notes)
        top = 1.08 * float(shown[list(_NAMES)].to_numpy(np.float64).max())
        for key, column in zip(keys, panels, strict=True):
            own = of_panel(shown, key)
            for axes, (value, name) in zip(column, _NAMES.items(), strict=True):
                draw_lines(axes, own, "noise", value, looks)
                count_axis(axes, own["noise"], "")
                axes.set_ylim(-0.02 * top, top)
                if axes.yaxis.get_tick_params()["labelleft"]:
                    axes.set_ylabel(f"{name}\nshare of attention (%)")
            column[-1].set_xlabel("chunks without the answer")
        bottom_legend(figure, handles, "method and setting", 4, handlelength=2.8, x=0.086, y=0.5)
        write_notes(figure, notes)
    return figure
