"""Leaf tables as CSV, parquet and one readable HTML page each."""

from __future__ import annotations

import html
import math
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pandas as pd

from kvpareto.records import write_csv, write_parquet, write_text
from kvpareto.report.columns import COLUMNS, Column, Kind

MISSING = "\N{EN DASH}"

_OPEN = "open"
_TONES = {
    **dict.fromkeys(("ok", "reproduced"), "good"),
    **dict.fromkeys(("contradicted", "invalid", "oom", "timeout"), "bad"),
    **dict.fromkeys(("not tested here", "not studied", "refused", "unavailable"), "idle"),
}
"""How a status is set; any other is open. Blue, orange, yellow and grey, each with a sign of its
own: nobody needs to tell the colours apart."""

_STYLE = """
body { font: 14px/1.45 system-ui, "Segoe UI", Helvetica, Arial, sans-serif; color: #222;
  background: #fff; margin: 1.2em; }
h1 { font-size: 1.3em; margin: 0 0 .2em; }
p { max-width: 62em; margin: .2em 0 1em; color: #444; }
table { border-collapse: separate; border-spacing: 0; font-size: 13px; }
th, td { padding: .3em .6em; border-bottom: 1px solid #e4e4e4; text-align: left;
  vertical-align: top; }
td { white-space: nowrap; }
td.long { white-space: normal; min-width: 18em; max-width: 30em; overflow-wrap: anywhere; }
thead th { position: sticky; top: 0; background: #f2f4f7; border-bottom: 2px solid #b9c0ca;
  vertical-align: bottom; }
th button { all: unset; cursor: pointer; font-weight: 600; text-decoration: underline dotted
  #9aa3af; text-underline-offset: 3px; }
th button:focus-visible { outline: 2px solid #0173b2; }
th[aria-sort=ascending] button::after { content: " \\25B2"; }
th[aria-sort=descending] button::after { content: " \\25BC"; }
.unit { display: block; font-weight: 400; color: #666; }
.num { text-align: right; font-variant-numeric: tabular-nums; }
.ci { color: #666; }
.code { font-family: ui-monospace, Menlo, Consolas, monospace; font-size: 12px; }
.good { background: #d4e6f5; } .bad { background: #fbd0a8; } .open { background: #fdf5cf; }
.idle { background: #ebebeb; color: #555; }
.good::before { content: "\\2713\\00a0"; } .bad::before { content: "\\2717\\00a0"; }
.open::before { content: "?\\00a0"; } .idle::before { content: "\\2013\\00a0"; }
tbody tr:hover td { box-shadow: inset 0 0 0 99em rgba(1, 115, 178, .06); }
dl { display: grid; grid-template-columns: max-content auto; gap: .15em 1em; max-width: 62em;
  font-size: 13px; }
dt { font-weight: 600; } dd { margin: 0; color: #444; }
"""

_SCRIPT = """
for (const button of document.querySelectorAll("th button")) button.onclick = () => {
  const head = button.parentElement, column = head.cellIndex;
  const up = head.getAttribute("aria-sort") !== "ascending";
  for (const other of head.parentElement.cells) other.removeAttribute("aria-sort");
  head.setAttribute("aria-sort", up ? "ascending" : "descending");
  const body = document.querySelector("tbody"), key = row => row.cells[column].dataset.key;
  const compare = (a, b) => head.classList.contains("num") ? a - b : a.localeCompare(b);
  body.append(...[...body.rows].sort((one, two) => {
    const a = key(one), b = key(two);
    if (a === "" || b === "") return (a === "") - (b === "");
    return up ? compare(a, b) : compare(b, a);
  }));
};
"""


def write_table(
    frame: pd.DataFrame, stem: str | Path, *, title: str = "", caption: str = ""
) -> None:
    """Write `<stem>.csv`, `<stem>.parquet` and `<stem>.html`.

    Args:
        frame: the rows; its index is not written.
        stem: path without suffix, for example results/tables/eviction.
        title: heading of the page; the file's name if empty.
        caption: a sentence or two below the heading.
    """
    write_csv(f"{stem}.csv", frame)
    write_parquet(f"{stem}.parquet", frame)
    write_text(f"{stem}.html", html_table(frame, title=title or Path(stem).name, caption=caption))


def html_table(
    frame: pd.DataFrame,
    *,
    title: str,
    caption: str = "",
    columns: Mapping[str, Column] | None = None,
) -> str:
    """One self-contained page with the rows of `frame`, sorted by a click on a heading.

    Bounds stand in their estimate's cell: `x_lo` and `x_hi` with `x` or `x_<unit>`, `lo` and `hi`
    with `value` or `estimate`. Numbers are rounded for reading; the CSV beside has the digits.

    Args:
        frame: the rows.
        title: heading.
        caption: a sentence or two below it.
        columns: kind, unit and meaning of columns, in addition to those of the leaf tables.
    """
    known = {**COLUMNS, **(columns or {})}
    frame = _with_intervals(frame, known)
    bounds = _bounds(list(frame.columns))
    hidden = {end for ends in bounds.values() for end in ends}
    described = {
        str(name): known.get(name) or Column(_guess(frame[name]))
        for name in frame.columns
        if name not in hidden
    }
    same = _same_everywhere(frame, described)
    ordered = sorted(described, key=_REMARKS.__contains__)
    shown = {name: described[name] for name in ordered if name not in same}
    rows = "\n".join(
        "<tr>"
        + "".join(
            _cell(row[name], [row[end] for end in bounds.get(name, ())], column)
            for name, column in shown.items()
        )
        + "</tr>"
        for row in frame.to_dict("records")
    )
    heads = "".join(_head(name, column) for name, column in shown.items())
    legend = "".join(
        f"<dt>{html.escape(name)}</dt><dd>{html.escape(column.meaning)}"
        f"{f' [{column.unit}]' if column.unit else ''}</dd>"
        for name, column in shown.items()
        if column.meaning
    )
    said = [f"{name} {html.escape(value)}" for name, value in same.items() if value]
    empty = [name for name, value in same.items() if not value]
    notes = (f"In every row: {'; '.join(said)}. " if said else "") + (
        f"Empty in every row: {', '.join(empty)}. " if empty else ""
    )
    how = "Click a heading to sort. " + ("[ ] holds the interval. " if bounds else "")
    above = f"{html.escape(caption)} {how}{notes}{_count(frame)}"
    return (
        f'<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        f"<title>{html.escape(title)}</title>\n<style>{_STYLE}</style>\n</head>\n<body>\n"
        f"<h1>{html.escape(title)}</h1>\n<p>{above}</p>\n"
        f"<table>\n<thead><tr>{heads}</tr></thead>\n<tbody>\n{rows}\n</tbody>\n</table>\n"
        f"<dl>{legend}</dl>\n<script>{_SCRIPT}</script>\n</body>\n</html>\n"
    )


def _same_everywhere(frame: pd.DataFrame, columns: dict[str, Column]) -> dict[str, str]:
    """Columns that say the same in every row ("" for nothing), for a sentence above the table.

    Words only: one looks for numbers in their column, even when they are all the same.
    """
    if len(frame) < 3:
        return {}
    same = {}
    for name, column in columns.items():
        values = frame[name]
        if values.isna().all() or (values == "").all():
            same[name] = ""
        elif column.kind in ("text", "code") and values.nunique(dropna=False) == 1:
            same[name] = _shorten(str(values.iloc[0]))
    return same


def _shorten(text: str) -> str:
    """A hash by its first digits."""
    return f"{text[:10]}\N{HORIZONTAL ELLIPSIS}" if re.fullmatch(r"[0-9a-f]{32,}", text) else text


def _bounds(names: list[str]) -> dict[str, tuple[str, str]]:
    """For each estimate, the names of its lower and upper bound."""
    pairs = {}
    for name in names:
        stem = name.removesuffix("_lo") if name.endswith("_lo") else ""
        lo, hi = (name, f"{stem}_hi") if stem else ("lo", "hi")
        named = [stem, *(f"{stem}_{unit}" for unit in ("pct", "nats", "tokens"))]
        estimates = named if stem else ["value", "estimate"]
        if lo == name and hi in names:
            pairs.update({one: (lo, hi) for one in estimates if one in names})
    return pairs


def _with_intervals(frame: pd.DataFrame, known: Mapping[str, Column]) -> pd.DataFrame:
    """With a column for each interval, in the place of its bounds, that sorts by the upper one."""
    for name, column in known.items():
        if column.kind == "interval" and {f"{name}_lo", f"{name}_hi"} <= set(frame.columns):
            place = list(frame.columns).index(f"{name}_lo")
            frame = frame.copy()
            frame.insert(place, name, frame[f"{name}_hi"])
    return frame


def _guess(values: pd.Series) -> Kind:
    """Kind of a column that nobody has described."""
    if pd.api.types.is_bool_dtype(values):
        return "flag"
    if pd.api.types.is_integer_dtype(values):
        return "count"
    return "number" if pd.api.types.is_float_dtype(values) else "text"


# Long words that would push the figures off the page stand at its right end.
_REMARKS = frozenset({"alias_of", "decided_by", "machine", "why"})
_NUMERIC = ("count", "bytes", "number", "percent", "interval")


def _head(name: str, column: Column) -> str:
    numeric = ' class="num"' if column.kind in _NUMERIC else ""
    # A break may come after each underscore, so that long names do not make wide columns.
    label = html.escape(name).replace("_", "_<wbr>")
    unit = f'<span class="unit">{html.escape(column.unit)}</span>' if column.unit else ""
    tip = html.escape(column.meaning, quote=True)
    return f'<th scope="col"{numeric} title="{tip}"><button>{label}</button>{unit}</th>'


def _cell(value: Any, bounds: list[Any], column: Column) -> str:
    numeric = column.kind in _NUMERIC
    css = "num" if numeric else "code" if column.kind == "code" else ""
    if _missing(value):
        return f'<td class="{css}" data-key="">{MISSING}</td>'
    if not numeric or isinstance(value, str):
        spelt = ("yes" if value else "no") if column.kind == "flag" else str(value)
        if column.kind == "status":
            css += " " + _TONES.get(spelt, _OPEN)
        if len(spelt) > 80:
            css += " long"
        key = html.escape(spelt)
        return f'<td class="{css.strip()}" title="{key}" data-key="{key}">{_shorten(key)}</td>'
    known = [float(bound) for bound in bounds if not _missing(bound)]
    text = _spell(float(value), column, known)
    return f'<td class="{css}" data-key="{float(value):.10g}">{text}</td>'


def _spell(value: float, column: Column, bounds: list[float]) -> str:
    """The number, and its bounds if it has both, all to the same decimal."""
    if column.kind == "bytes":
        return _spell_bytes(value)
    width = abs(bounds[1] - bounds[0]) / 2 if len(bounds) == 2 else 0.0
    size = max((one for one in (abs(value), width) if math.isfinite(one)), default=0.0)
    if column.kind == "count":
        decimals = 0 if value == round(value) else 1
    elif column.kind == "percent":
        decimals = 2 if size < 100 else 0
    else:
        decimals = column.digits if size == 0 else column.digits - 1 - math.floor(math.log10(size))
    sign = "+" if column.kind == "percent" else ""
    decimals = min(max(decimals, 0), 10)
    text = _fixed(value, decimals, sign)
    if len(bounds) < 2 or (bounds[0] == bounds[1] == value and column.kind != "interval"):
        return text  # what is exact has no interval
    lo, hi = (_fixed(bound, decimals) for bound in bounds)
    if column.kind == "interval":
        return f"[{lo}, {hi}]"
    return f'{text} <span class="ci">[{lo}, {hi}]</span>'


def _fixed(value: float, decimals: int, sign: str = "") -> str:
    if not math.isfinite(value):
        return f"{value:{sign}}".replace("inf", "\N{INFINITY}").replace("-", "\N{MINUS SIGN}")
    rounded = round(value, decimals) + 0.0
    sign = sign if rounded else ""
    return f"{rounded:{sign},.{decimals}f}".replace("-", "\N{MINUS SIGN}")


def _spell_bytes(value: float) -> str:
    for unit in ("B", "KiB", "MiB", "GiB"):
        if abs(value) < 1024 or unit == "GiB":
            break
        value /= 1024
    return f"{value:,.0f} B" if unit == "B" else f"{value:,.3g} {unit}"


def _missing(value: Any) -> bool:
    return value is None or value == "" or bool(pd.isna(value))


def _count(frame: pd.DataFrame) -> str:
    """How many rows there are, and how many of them failed."""
    text = f"{len(frame):,} row{'s' * (len(frame) != 1)}"
    if "status" in frame:
        failed = int((frame["status"] != "ok").sum())
        text += f", {failed} without a result" if failed else ", all ok"
    return text + "."
