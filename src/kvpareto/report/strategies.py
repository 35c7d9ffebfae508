"""What the figures of the reuse part share: lines and names of strategies, blocks of panels."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from kvpareto.report.marks import parts_of, shared_parts, short_settings
from kvpareto.report.rows import missing_note
from kvpareto.report.style import PolicyStyle, strategy_styles

_DASHES: Sequence[Any] = ("-", (0, (4, 1.5)), (0, (1, 1.5)), (0, (4, 1.5, 1, 1.5)))


def panel_blocks(
    names: Sequence[str],
    title: str,
    *,
    rows: int = 1,
    columns: int = 3,
    left: float = 0.075,
    right: float = 0.985,
    height: float = 3.4,
    gap: float = 0.95,
    below: float = 1.0,
) -> tuple[Figure, list[list[Axes]]]:
    """A figure with a column of `rows` panels under each name, at most `columns` side by side.

    Only the first column and the lowest row of a block have tick labels: callers give all panels
    of a row the same vertical axis, and all of a column the same horizontal one.

    Args:
        columns: most panels side by side; two rows of panels share them evenly.
        left, right: ends of the panels as shares of the width.
        height: of a panel, in inches.
        gap: between blocks, in inches.
        below: room below the lowest panels, in inches.
    """
    blocks = math.ceil(len(names) / columns)
    wide = math.ceil(len(names) / blocks)
    head, block = 0.9, rows * height + (rows - 1) * 0.15
    whole = head + below + blocks * block + (blocks - 1) * gap
    figure = Figure(figsize=(12.8, whole))
    figure.suptitle(title, x=0.012, y=1 - 0.2 / whole, ha="left", weight="bold", fontsize=13)
    outer = figure.add_gridspec(
        blocks,
        1,
        left=left,
        right=right,
        top=1 - head / whole,
        bottom=below / whole,
        hspace=gap / block,
    )
    grids = [
        outer[one]
        .subgridspec(rows, wide, wspace=0.06, hspace=0.15 / height)
        .subplots(squeeze=False)
        for one in range(blocks)
    ]
    panels = [list(column) for grid in grids for column in grid.T]
    for own in panels[len(names) :]:
        for axes in own:
            axes.remove()
    panels = panels[: len(names)]
    for place, (name, own) in enumerate(zip(names, panels, strict=True)):
        own[0].set_title(name, loc="left")
        for axes in own:
            axes.tick_params(labelleft=place % wide == 0, labelbottom=axes is own[-1])
    return figure, panels


def with_lines(rows: pd.DataFrame) -> pd.DataFrame:
    """Add `line`, `step` and `step_name`: what a point belongs to, and its place there.

    A line is a strategy with all that its settings have beside what is swept along it: the ratio,
    or the tokens per chunk of `attnlink`. What the lines of a strategy do not share is in their
    names. A step is NaN, and its name empty, where nothing is swept.

    Args:
        rows: with `strategy` and `setting`, an id such as `c1-r0.15-1f3a9c2e`.
    """
    strategies = rows["strategy"].tolist()
    parts = [parts_of(setting) for setting in rows["setting"]]
    swept = [_swept(*own) for own in zip(strategies, parts, strict=True)]
    fixed = [
        "-".join(part for part in own if part != step)
        for own, step in zip(parts, swept, strict=True)
    ]
    named = pd.DataFrame({"policy": strategies, "setting": fixed})
    short = short_settings(named, shared_parts(named))
    return rows.assign(
        line=[f"{plain_name(a)} {b}".strip() for a, b in zip(strategies, short, strict=True)],
        step=[float(step[1:] or "nan") for step in swept],
        step_name=[_spelt(step) for step in swept],
    )


def _swept(strategy: str, parts: list[str]) -> str:
    """The part of a setting that is swept along a line, such as `r0.15`; empty if there is none."""
    pattern = r"k\d+" if strategy == "attnlink" else r"r[\d.]+"
    return next((part for part in parts if re.fullmatch(pattern, part)), "")


def _spelt(step: str) -> str:
    return f"{100 * float(step[1:]):.3g}%" if step.startswith("r") else step


def plain_name(strategy: str) -> str:
    return strategy.replace("_", " ")


def line_looks(rows: pd.DataFrame) -> dict[str, dict[str, Any]]:
    """Colour, marker and dashes of each line, in the order of the strategies' table.

    Args:
        rows: of `with_lines`.
    """
    return looks_of(strategy_styles(rows["strategy"]), rows["strategy"], rows["line"])


def looks_of(
    styles: Mapping[str, PolicyStyle], methods: pd.Series, lines: pd.Series
) -> dict[str, dict[str, Any]]:
    """Colour and marker of each line by its method; the lines of one method differ in dashes.

    Args:
        styles: of the methods, in the order that the lines are to have.
        methods, lines: of each row.
    """
    looks = {}
    for method, style in styles.items():
        for place, line in enumerate(sorted(lines[methods == method].unique())):
            looks[line] = marker_look(style) | {"ls": _DASHES[place % len(_DASHES)], "lw": 1.5}
    return looks


def marker_look(style: PolicyStyle) -> dict[str, Any]:
    """Colour and marker, hollow for a control."""
    return {
        "color": style.color,
        "marker": style.marker,
        "mfc": "white" if style.hollow else style.color,
        "ms": 0.85 * style.size,
        "mew": 1.5 if style.hollow else 0.8,
    }


def line_handles(looks: dict[str, dict[str, Any]], single: Iterable[str]) -> list[Line2D]:
    """Legend entries; lines in `single` are points without a path."""
    points = set(single)
    return [
        Line2D([], [], label=line, **look | ({"ls": "none"} if line in points else {}))
        for line, look in looks.items()
    ]


def in_percent(rows: pd.DataFrame, *names: str) -> pd.DataFrame:
    """The rows with shares and their bounds in percent."""
    columns = [f"{name}{end}" for name in names for end in ("", "_lo", "_hi")]
    present = [column for column in columns if column in rows]
    return rows.assign(**{column: 100 * rows[column].astype(float) for column in present})


def missing_arms(missing: pd.DataFrame) -> list[str]:
    """One sentence about the arms of the `reuse` table without a point, or nothing."""
    names = [
        f"{' '.join(filter(None, name))} on {task}"
        for *name, task in missing[["line", "step_name", "task"]].itertuples(index=False)
    ]
    return missing_note(names, missing)


def task_names(shown: pd.DataFrame) -> dict[str, str]:
    """Each task with its score, `boxes · qa_f1`, in alphabetical order."""
    pairs = shown[["task", "score_name"]].drop_duplicates("task").sort_values("task")
    return {task: f"{task} · {score}" for task, score in pairs.itertuples(index=False, name=None)}


def of_timed(rows: pd.DataFrame, time: str) -> tuple[pd.DataFrame, list[str]]:
    """The rows of tasks and strategies that were timed at all, and a sentence about the others.

    Args:
        time: the column whose values say that a row was timed.
    """
    timed = rows[rows[time].notna() & (rows["strategy"] != "none")]
    own_task = rows["task"].isin(timed["task"])
    own_strategy = rows["strategy"].isin([*timed["strategy"], "none"]) | (rows["status"] != "ok")
    others = [
        *sorted(rows.loc[~own_task, "task"].unique()),
        *sorted(map(plain_name, rows.loc[own_task & ~own_strategy, "strategy"].unique())),
    ]
    notes = [f"Not timed: {', '.join(others)}."] if others else []
    return rows[own_task & own_strategy], notes


def absent_note(strategies: Iterable[str], shown: Iterable[str]) -> list[str]:
    """One sentence about the strategies of which nothing can be drawn, or nothing."""
    absent = strategy_styles(set(strategies) - set(shown))
    return [f"No result: {', '.join(map(plain_name, absent))}."] if absent else []


def check_one_setting(items: pd.DataFrame) -> None:
    """Refuse items of a strategy in several settings.

    Raises:
        ValueError: says which strategy, and its settings.
    """
    for strategy, settings in items.groupby("strategy")["setting"]:
        if settings.nunique() > 1:
            raise ValueError(
                f"the figure shows one setting of a strategy, and the items of {strategy} are of "
                f"{', '.join(sorted(settings.unique()))}: choose one"
            )


def arm_names(items: pd.DataFrame, strategies: Iterable[str]) -> list[str]:
    """`blend 15%`, `attnlink k8`, `full`: each strategy with what its one setting sweeps."""
    settings = items.drop_duplicates("strategy").set_index("strategy")["setting"]
    return [
        f"{plain_name(name)} {_spelt(_swept(name, parts_of(settings[name])))}".strip()
        for name in strategies
    ]
