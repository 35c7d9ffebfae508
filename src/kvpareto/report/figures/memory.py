"""Where the memory goes: parts of every arm, measured beside what the shapes say."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Patch

from kvpareto.report.marks import shared_parts, short_settings
from kvpareto.report.notes import empty_figure, write_notes
from kvpareto.report.rows import check_rows, missing_note
from kvpareto.report.style import PLAIN_LAYOUTS, mix, policy_styles, theme

_MIB = 2**20
PARTS = {
    "weights": "weights",
    "kv": "keys and values",
    "cache_state": "what a cache keeps beside them",
    "staging": "staging buffer",
    "transient": "transient, most of a step",
    "logits": "logits",
}

_INK = sns.color_palette("colorblind").as_hex()
_COLORS: dict[str, str] = dict(
    zip(PARTS, ("#c3c3c3", _INK[0], _INK[9], _INK[2], _INK[1], _INK[3]), strict=True)
)


def memory_split_bars(memory: pd.DataFrame, *, title: str) -> Figure:
    """Bytes of each part of every arm while it decodes, stacked: with the weights, and without.

    Logits are a part of the transient, so a bar of the transient is without them. What shapes do
    not tell (the transient) is not in the analytic bar.

    Args:
        memory: the `memory` table of one model and text. Columns used: `policy`, `setting`,
            `layout`, `staging`, `part`, `bytes`, `analytic_bytes`, `status`.
        title: written above the plot.

    Raises:
        ValueError: a column is missing, or the rows are of several models or texts.
    """
    check_rows(memory, "policy setting layout staging part bytes analytic_bytes status")
    keys = ["policy", "setting", "layout", "staging"]
    arms = memory[keys].drop_duplicates()
    rows = memory.merge(arms.assign(name=_names(arms)), on=keys)
    failed, rows = rows[rows["status"] != "ok"], rows[rows["status"] == "ok"]
    notes = missing_note(failed["name"], failed)
    order = list(policy_styles(rows["policy"]))
    ranked = rows.assign(rank=rows["policy"].map(order.index)).sort_values(
        ["rank", "setting", "staging"], kind="stable"
    )
    names = list(dict.fromkeys(ranked["name"]))
    with theme():
        height = 1.75 + 0.42 * max(4, len(names))
        figure = Figure(figsize=(12.8, height))
        figure.suptitle(title, x=0.012, y=1 - 0.2 / height, ha="left", weight="bold", fontsize=13)
        whole, beside = figure.subplots(1, 2, sharey=True, width_ratios=(1, 1.8))
        figure.subplots_adjust(
            left=0.2, right=0.765, top=1 - 0.75 / height, bottom=1 / height, wspace=0.06
        )
        whole.set_title("all", loc="left")
        beside.set_title("beside the weights", loc="left")
        if not names:
            beside.remove()
            return empty_figure(figure, whole, notes)
        _draw_bars(whole, rows, names, list(PARTS))
        _draw_bars(beside, rows, names, [part for part in PARTS if part != "weights"])
        whole.set_yticks(range(len(names)), names, fontsize=10.5)
        whole.set_ylim(len(names) - 0.45, -0.55)
        handles = [Patch(color=_COLORS[part], label=name) for part, name in PARTS.items()]
        handles += [
            Patch(color="#6b6b6b", label="upper bar: measured"),
            Patch(color="#c9c9c9", label="lower, pale bar: from the shapes"),
        ]
        figure.legend(
            handles=handles,
            loc="upper left",
            bbox_to_anchor=(0.77, 1 - 0.65 / height),
            frameon=False,
            alignment="left",
            fontsize=10,
        )
        write_notes(figure, notes)
    return figure


def _draw_bars(axes: Axes, rows: pd.DataFrame, names: list[str], parts: list[str]) -> None:
    """A measured and an analytic bar for each name, from the top, and the measured total.

    The axis ends beyond the largest arm with a budget: `full` alone could be many times as large.
    """
    unbounded = rows.loc[rows["policy"] == "full", "name"].unique()
    if len(unbounded) == len(names):
        unbounded = unbounded[:0]
    places = np.arange(len(names))
    for value, offset, thickness, pale in (
        ("bytes", -0.17, 0.36, 0.0),
        ("analytic_bytes", 0.2, 0.24, 0.55),
    ):
        table = _without_logits(rows.pivot(index="name", columns="part", values=value))
        table = table.reindex(index=names, columns=parts).fillna(0) / _MIB
        left = np.zeros(len(names))
        for part in parts:
            color = mix(_COLORS[part], "white", pale)
            look: dict[str, Any] = {"color": color, "edgecolor": "white", "lw": 0.4}
            axes.barh(places + offset, table[part], thickness, left, **look)
            left = left + table[part].to_numpy(np.float64)
        if value == "bytes":
            totals = pd.Series(left, index=names)
    limit = 1.25 * float(totals.drop(unbounded, errors="ignore").max())
    for place, total in zip(places, totals, strict=True):
        inside = total < limit
        axes.annotate(
            f"{total:.3g}" if inside else f"{total:.3g} \N{RIGHTWARDS ARROW}",
            (min(total, limit), place - 0.17),
            (4 if inside else -4, 0),
            textcoords="offset points",
            va="center",
            ha="left" if inside else "right",
            fontsize=9.5,
            color="#333333" if inside else "white",
        )
    axes.set_xlim(0, limit)
    axes.grid(visible=False, axis="y")
    axes.set_xlabel("memory (MiB)")


def _names(arms: pd.DataFrame) -> list[str]:
    """Policy, what sets its settings apart, and the way the cache ran."""
    short = short_settings(arms, shared_parts(arms))
    return [
        ", ".join(
            filter(
                None,
                [
                    f"{policy.replace('_', ' ')} {own}".strip(),
                    "" if layout in PLAIN_LAYOUTS else layout.replace("_", " "),
                    "staging buffer" if staging else "",
                ],
            )
        )
        for policy, own, layout, staging in zip(
            arms["policy"], short, arms["layout"], arms["staging"], strict=True
        )
    ]


def _without_logits(table: pd.DataFrame) -> pd.DataFrame:
    """The transient without the logits, which are shown on their own."""
    if not {"transient", "logits"} <= set(table):
        return table
    return table.assign(transient=(table["transient"] - table["logits"]).clip(lower=0))
