"""Perplexity of a text after merged chunks, against how many of them there are."""

from __future__ import annotations

import numpy as np
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
    text_rows,
)
from kvpareto.report.panels import bottom_legend
from kvpareto.report.rows import check_rows, drawable
from kvpareto.report.scale import Scale, plain, signed
from kvpareto.report.strategies import panel_blocks
from kvpareto.report.style import theme

_NAMES = {"ppl": "perplexity (log.)", "change": "against zero (%)"}


def ppl_against_chunks(merge: pd.DataFrame, *, title: str) -> Figure:
    """Perplexity, and its change against no offset, over the chunks before the scored tokens.

    A column for each text and way to give positions. Offsets and deletion have rows of their own,
    with the controls in both. A ring is a point whose positions pass the trained length. Changes
    are on the same windows, so their intervals are much narrower.

    Args:
        merge: rows of the `merge` table of one model. Columns used: `task`, `positions`, `arm`,
            `setting`, `chunks`, `extrapolating`, `score_name`, `score` (a text's perplexity),
            `score_lo`, `score_hi`, `ppl_delta_pct` and its bounds, `status`.
        title: written above the plot.

    Raises:
        ValueError: a column is missing, or the rows are of several models.
    """
    check_rows(
        merge,
        "task positions arm setting chunks extrapolating score_name score ppl_delta_pct status",
        "score ppl_delta",
    )
    rows, notes = offset_lines(text_rows(merge))
    shown, missing = drawable(rows, ["score"])
    notes += missing_lines(missing)
    shown = shown.rename(columns=_renamed).astype({"chunks": np.float64})
    keys, looks = panel_keys(shown), offset_looks(shown)
    parts = {(value, name): own for value in _NAMES for name, own in families(shown).items()}
    with theme():
        handles = legend_of(shown, looks)
        figure, panels = panel_blocks(
            [f"{text}, {positions}" for text, positions in keys] or [""],
            title,
            rows=len(parts),
            columns=4,
            left=0.095,
            height=2.7,
            below=1.7 + 0.25 * -(-len(handles) // 4),
        )
        if shown.empty:
            for axes in panels[0][1:]:
                axes.remove()
            return empty_figure(figure, panels[0][0], notes)
        high = 1.03 * shown["ppl_hi"].max()
        bounds = (shown[name] for name in ("change", "change_lo", "change_hi"))
        changes = Scale.around(*bounds, logarithmic=False)
        span = Scale(0.97 * shown["ppl_lo"].min(), high, high, logarithmic=True)
        for key, column in zip(keys, panels, strict=True):
            for axes, ((value, name), own) in zip(column, parts.items(), strict=True):
                draw_lines(axes, of_panel(own, key), "chunks", value, looks)
                count_axis(axes, of_panel(shown, key)["chunks"], "")
                if value == "ppl":
                    span.apply(axes, "y", plain)
                else:
                    changes.apply(axes, "y", signed)
                if axes.yaxis.get_tick_params()["labelleft"]:
                    axes.set_ylabel(f"{name}\n{_NAMES[value]}")
            column[-1].set_xlabel("chunks before the scored tokens")
        bottom_legend(figure, handles, "method and setting", 4, handlelength=2.8, x=0.086, y=0.5)
        write_notes(figure, notes)
    return figure


def _renamed(column: str) -> str:
    if column == "ppl_delta_pct":
        return "change"
    return column.replace("ppl_delta", "change").replace("score", "ppl")
