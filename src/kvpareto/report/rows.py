"""Rows that a figure can draw, and what it says about the others."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import pandas as pd

KL_FLOOR = 1e-5
"""Nats: less is rounding, and is drawn here, because a logarithmic axis has no zero."""


def check_rows(frame: pd.DataFrame, columns: str, intervals: str = "") -> None:
    """Refuse rows that lack a column, or that are of more than one model and text.

    Args:
        columns: names, separated by spaces.
        intervals: names of estimates whose bounds end in `_lo` and `_hi`.

    Raises:
        ValueError: says which columns, or which models or texts.
    """
    bounds = [f"{name}_{end}" for name in intervals.split() for end in ("lo", "hi")]
    lacking = [column for column in [*columns.split(), *bounds] if column not in frame.columns]
    if lacking:
        raise ValueError(f"the frame lacks the columns {', '.join(lacking)}")
    for column in {"model", "text"} & set(frame.columns):
        if frame[column].nunique() > 1:
            raise ValueError(
                f"the figure is of one {column}, and the rows are of "
                f"{', '.join(sorted(frame[column].unique()))}: select one"
            )


def drawable(frame: pd.DataFrame, needed: list[str]) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Rows with the status ok and finite values in the needed columns, and the others."""
    known = np.isfinite(frame[needed].to_numpy(np.float64, na_value=np.nan)).all(axis=1)
    drawn = (frame["status"] == "ok") & known
    return frame[drawn], frame[~drawn]


def with_kl_floor(shown: pd.DataFrame) -> tuple[pd.DataFrame, list[str]]:
    """The rows with `kl` and its bounds at `KL_FLOOR` or above, and a sentence if some were not."""
    rounding = int((shown["kl"] < KL_FLOOR).sum())
    said = f"{rounding} KL below {KL_FLOOR:g} nats stand at {KL_FLOOR:g}."
    floored = shown[["kl", "kl_lo", "kl_hi"]].clip(lower=KL_FLOOR)
    return shown.assign(**floored), [said] if rounding else []


def missing_note(names: Iterable[str], missing: pd.DataFrame) -> list[str]:
    """One sentence about the arms without a point, or nothing."""
    said = [
        f"{name.replace('_', ' ').strip()} ({'no value' if status == 'ok' else status})"
        for name, status in zip(names, missing["status"], strict=True)
    ]
    said = list(dict.fromkeys(said))
    more = f" and {len(said) - 6} more" if len(said) > 6 else ""
    return [f"Not shown: {', '.join(said[:6])}{more}."] if said else []


def with_strict_period(rows: pd.DataFrame) -> pd.DataFrame:
    """Strict streaming prunes after every token: R = 1."""
    strict = rows["policy"] == "start_recent"
    return rows.assign(period=rows["period"].astype(np.float64).mask(strict, 1.0))


def period_names(rows: pd.DataFrame) -> list[str]:
    """For example `lazy R64 at cap 512`."""
    return [
        f"{policy} R{period:g} at cap {cap:g}"
        for policy, period, cap in zip(rows["policy"], rows["period"], rows["cap"], strict=True)
    ]


def usual_lazy(rows: pd.DataFrame) -> pd.Series[bool]:
    """Which rows are lazy arms with the sinks and the trigger that most lazy arms have.

    Of equally many, the fewer sinks, and `overflow`, the trigger of the sources' code.
    """
    lazy = rows["policy"] == "lazy"
    sinks = rows.loc[lazy, "sinks"].mode()[:1]
    trigger = rows.loc[lazy, "trigger"].mode()[-1:]  # in alphabetical order
    return lazy & rows["sinks"].isin(sinks) & rows["trigger"].isin(trigger)


def lazy_lines(rows: pd.DataFrame) -> pd.DataFrame:
    """The lazy arms and, at the R = 1 end of each line that has none, the strict arm.

    Args:
        rows: with policy, period, cap, cap_on, sinks and trigger, of one cache layout.
    """
    rows = with_strict_period(rows)
    lazy = rows[rows["policy"] == "lazy"]
    places = ["cap", "cap_on", "sinks", "trigger"]
    first = lazy.groupby(places, as_index=False)["period"].min()
    open_ends = first.loc[first["period"] > 1, places]
    strict = rows[rows["policy"] == "start_recent"].drop(columns="trigger")
    return pd.concat([lazy, strict.merge(open_ends, on=places[:3])], ignore_index=True)
