"""What the figures of the merge part share: which settings are lines, and how they are drawn."""

from __future__ import annotations

import re
from collections import Counter
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator

from kvpareto.report.marks import parts_of
from kvpareto.report.merge_tables import MEMORY, PPL
from kvpareto.report.panels import dodge, draw_points
from kvpareto.report.rows import missing_note
from kvpareto.report.scale import plain
from kvpareto.report.strategies import line_handles, looks_of, plain_name
from kvpareto.report.style import offset_styles

_CONTROLS = ("zero", "concat", "full")
_DELETION = ("hard_drop", "tiered", "drop_sink")
_RING: dict[str, Any] = {
    "ls": "none", "marker": "o", "ms": 13, "mfc": "none", "mec": "#e8821e", "mew": 1.2,
}  # fmt: skip


def task_rows(merge: pd.DataFrame) -> pd.DataFrame:
    """The rows of tasks, with `noise`: chunks that do not hold the answer."""
    rows = merge[(merge["task"] != MEMORY) & (merge["score_name"] != PPL)]
    return rows.assign(noise=(rows["chunks"] - rows["gold_chunks"]).astype(np.float64))


def text_rows(merge: pd.DataFrame) -> pd.DataFrame:
    """The rows of texts."""
    return merge[(merge["task"] != MEMORY) & (merge["score_name"] == PPL)]


def offset_lines(rows: pd.DataFrame) -> tuple[pd.DataFrame, list[str]]:
    """The rows that are drawn, with `line`, and sentences about those that are not.

    A line is a method with the words in its setting. Of several numbers the lower middle one of
    each is taken, among the settings that most panels have. Nor is `concat` drawn beside `zero`:
    both are full attention over the same keys.

    Args:
        rows: with `setting`, an id such as `shared-K2-t0.5-head-1f3a9c2e`.
    """
    # A setting begins with its positions, which are panels.
    parts = [parts_of(setting)[1:] for setting in rows["setting"]]
    words = [" ".join(part for part in own if not re.search(r"\d", part)) for own in parts]
    numbers = [" ".join(part for part in own if re.search(r"\d", part)) for own in parts]
    rows = rows.assign(
        words=words,
        numbers=numbers,
        line=[
            " ".join([plain_name(arm), *own]) for arm, own in zip(rows["arm"], parts, strict=True)
        ],
    )
    # Groups of a study that overlap may have other windows: a line is of one group.
    place = ["task", "positions", "line"]
    counts = rows.groupby([*place, "setting"])["chunks"].transform("nunique")
    longest = rows.assign(counts=-counts).sort_values(["counts", "setting"])
    first = longest.drop_duplicates(place)[[*place, "setting"]]
    one = rows.merge(first, on=[*place, "setting"])
    notes = [f"{len(rows) - len(one)} points of further groups of the study are left out."]
    rows, notes = one, notes if len(one) < len(rows) else []
    found = ["task", "positions", "chunks"]
    twins = rows[rows["arm"] == "zero"].merge(rows[rows["arm"] == "concat"], on=found)
    apart = (twins["score_x"] - twins["score_y"]).abs().max()
    if pd.notna(apart):
        rows = rows[rows["arm"] != "concat"]
        notes.append(f"concat, which differs from zero by at most {apart:.2g}, is not drawn.")
    kept = [rows.iloc[:0]]
    left_out: Counter[str] = Counter()
    for (arm, _), group in rows.groupby(["arm", "words"]):
        panels = group.drop_duplicates(["numbers", "task", "positions"])["numbers"].value_counts()
        middle = _middle(list(panels.index[panels == panels.max()]))
        kept.append(group[group["numbers"] == middle])
        left_out[plain_name(str(arm))] += len(panels) - 1
    if left_out.total():
        said = ", ".join(f"{count} of {arm}" for arm, count in left_out.items() if count)
        notes.append(f"Of several settings the middle one is drawn; others: {said}.")
    return pd.concat(kept), notes


def _middle(numbers: list[str]) -> str:
    settings = [own.split() for own in numbers]
    for place in range(len(settings[0])):
        values = sorted({own[place] for own in settings}, key=_number)
        middle = values[(len(values) - 1) // 2]
        settings = [own for own in settings if own[place] == middle]
    return " ".join(settings[0])


def _number(part: str) -> float:
    return float(re.sub(r"^[^\d-]+", "", part))


def missing_lines(missing: pd.DataFrame) -> list[str]:
    """One sentence about drawn settings without a point, or nothing."""
    names = [
        f"{line} on {task}" for line, task in zip(missing["line"], missing["task"], strict=True)
    ]
    return missing_note(names, missing)


def panel_keys(shown: pd.DataFrame) -> list[tuple[str, str]]:
    """Each task with each of its positions, shared ones first."""
    keys = shown[["task", "positions"]].drop_duplicates()
    keys = keys.sort_values(["task", "positions"], ascending=[True, False])
    return list(keys.itertuples(index=False, name=None))


def of_panel(rows: pd.DataFrame, key: tuple[str, str]) -> pd.DataFrame:
    task, positions = key
    return rows[(rows["task"] == task) & (rows["positions"] == positions)]


def families(shown: pd.DataFrame) -> dict[str, pd.DataFrame]:
    """Offsets, and deletion if there is any; the controls stand in both."""
    deletes, control = shown["arm"].isin(_DELETION), shown["arm"].isin(_CONTROLS)
    if not deletes.any():
        return {"offsets": shown}
    return {"offsets": shown[~deletes], "deletion": shown[deletes | control]}


def offset_looks(shown: pd.DataFrame) -> dict[str, dict[str, Any]]:
    """Colour, marker and dashes of each line."""
    return looks_of(offset_styles(shown["arm"]), shown["arm"], shown["line"])


def draw_lines(
    axes: Axes, panel: pd.DataFrame, x: str, value: str, looks: dict[str, dict[str, Any]]
) -> None:
    """A line with intervals for each setting, side by side, and a ring where it extrapolates.

    A value without bounds, which are then NaN, has no intervals.
    """
    here = [line for line in looks if (panel["line"] == line).any()]
    for place, line in enumerate(here):
        path = panel[panel["line"] == line].sort_values(x)
        shift = dodge(axes, place, len(here))
        draw_points(axes, path[x], path, value, looks[line], shift)
        beyond = path[path["extrapolating"].astype(bool)]
        axes.plot(beyond[x], beyond[value], transform=axes.transData + shift, **_RING)


def legend_of(shown: pd.DataFrame, looks: dict[str, dict[str, Any]]) -> list[Artist]:
    """An entry for each line, and one for the ring if a point has it."""
    handles: list[Artist] = list(line_handles(looks, []))
    if shown["extrapolating"].astype(bool).any():
        handles.append(Line2D([], [], label="positions pass the trained length", **_RING))
    return handles


def count_axis(axes: Axes, counts: pd.Series, label: str) -> None:
    """An axis of numbers of chunks with a tick at each: logarithmic, and with a place for zero."""
    ticks = sorted(counts.unique())
    axes.set_xscale("function", functions=(_place, _count))
    axes.set_xlim(_count(_place(ticks[0]) - 0.35), _count(_place(ticks[-1]) + 0.35))
    axes.xaxis.set_major_locator(FixedLocator(ticks))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: plain(value)))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.set_xlabel(label)


def _place(count: Any) -> Any:
    return np.log2(1 + np.maximum(count, -0.9))


def _count(place: Any) -> Any:
    return 2.0**place - 1
