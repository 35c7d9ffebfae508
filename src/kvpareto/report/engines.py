"""What the figures of the decode engine share: families of engines, their looks, runs, notes."""

from __future__ import annotations

import textwrap
from collections.abc import Iterable
from typing import Any

import pandas as pd
import seaborn as sns
from matplotlib.lines import Line2D

from kvpareto.report.style import GREY, PolicyStyle

YARDSTICK = "prune"
"""What times are ratios to: the library's cache, pruned after every step."""

RUN = ["cap", "threads"]
"""What tells the runs of one group and shape apart."""

_BLUE, _ORANGE, _GREEN, _RED, _PINK, _BROWN, _SKY = (
    sns.color_palette("colorblind").as_hex()[place] for place in (0, 1, 2, 3, 4, 5, 9)
)

_FAMILIES = {
    "prune each step": PolicyStyle("#000000", "P"),
    "prune every R": PolicyStyle(_BROWN, "s"),
    "others of the library": PolicyStyle(GREY, "^"),
    "llama.cpp": PolicyStyle(_RED, "*"),
    "other peers": PolicyStyle(_RED, "X"),
    "ring, eager": PolicyStyle(_BLUE, "o"),
    "ring, compiled": PolicyStyle(_ORANGE, "D"),
    "ring, CUDA graph": PolicyStyle(_GREEN, "h"),
    "ring, 16 bit": PolicyStyle(_SKY, "v"),
    "ring, int8 or int4": PolicyStyle(_PINK, "p"),
}
"""In the order of the legend; a family is found by marker as well as by colour."""

_LIBRARY = ("recompute", "full", "sliding_window", "prompt_lookup")


def family_of(engine: str) -> str:
    """The family of an engine, by its name in the table `decode`."""
    name, *parts = engine.split("-")
    if name == YARDSTICK:
        return "prune every R" if parts else "prune each step"
    if name in _LIBRARY:
        return "others of the library"
    if name != "ring":
        return "llama.cpp" if name == "llama_cpp" else "other peers"
    if any(part.startswith(("int8", "int4")) for part in parts):
        return "ring, int8 or int4"
    if {"bfloat16", "float16"} & set(parts):
        return "ring, 16 bit"
    if "graph" in parts:
        return "ring, CUDA graph"
    return "ring, compiled" if "compiled" in parts else "ring, eager"


def engine_style(engine: str) -> PolicyStyle:
    return _FAMILIES[family_of(engine)]


def engine_look(engine: str, exact: bool) -> dict[str, Any]:
    """Colour and marker of an engine: filled if it is exact, open if it is not."""
    style = engine_style(engine)
    size = {"*": 13.0, "P": 10.0, "D": 7.0}.get(str(style.marker), style.size)
    return {
        "color": style.color,
        "marker": style.marker,
        "ms": size,
        "mfc": style.color if exact else "white",
        "mec": style.color,
        "mew": 1.6,
    }


def spelt(engine: str) -> str:
    """`llama.cpp discard64`, `ring compiled int8 dynamic`."""
    named = engine.replace("llama_cpp", "llama.cpp").replace("discardhalf", "discard half")
    return named.replace("-", " ").replace("_", " ").replace("q8 0", "q8_0")


def family_handles(engines: Iterable[str]) -> list[Line2D]:
    """Legend entries: the families that are there, and what a fill means."""
    here = {family_of(engine) for engine in engines}
    handles = [
        _dot(family, style.color, style.marker, style.color)
        for family, style in _FAMILIES.items()
        if family in here
    ]
    exact = _dot("filled: exact (strict streaming, float32)", GREY, "o", GREY)
    return [*handles, exact, _dot("open: not exact", GREY, "o", "white")]


def _dot(label: str, color: str, marker: Any, fill: str) -> Line2D:
    size = 12 if marker == "*" else 8
    look: dict[str, Any] = {"marker": marker, "mfc": fill, "mew": 1.6, "ms": size}
    return Line2D([], [], ls="none", color=color, label=label, **look)


def run_name(run: tuple[Any, ...]) -> str:
    """`cap 512, 2 threads` of a run's (cap, threads)."""
    cap, threads = run
    return f"cap {cap:,}, {threads} thread{'s' * (threads != 1)}"


def runs_of(decode: pd.DataFrame) -> list[tuple[Any, ...]]:
    """Every (cap, threads), ascending."""
    return sorted(set(decode[RUN].itertuples(index=False, name=None)))


def of_run(rows: pd.DataFrame, run: tuple[Any, ...]) -> pd.DataFrame:
    return rows[(rows[RUN] == list(run)).all(axis=1)]


def lacking(missing: pd.DataFrame) -> list[str]:
    """One sentence for each reason for which engines have no times."""
    said = []
    for (status, why), rows in missing.groupby(["status", "why"], dropna=False, sort=False):
        names = ", ".join(dict.fromkeys(map(spelt, rows["engine"])))
        reason = textwrap.shorten(str(why or ""), 110, placeholder=" \N{HORIZONTAL ELLIPSIS}")
        what = "no value" if status == "ok" else status
        said.append(f"Not shown, {what}: {names}{f' ({reason})' if reason else ''}.")
    return said
