"""What a ledger reads: the tables of a study, and which of their rows a selector means."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
import pandas as pd

from kvpareto.claim_settings import SAME, Margins, Recommendation, Scalar
from kvpareto.eviction_settings import StatisticsSettings

Selection = Mapping[str, Scalar | list[Scalar]]

Table = Literal["eviction", "timing", "spikes", "memory", "reuse", "answers", "merge", "decode"]

TIMING_ONLY = "timing only"
"""The task of a deep model with random weights."""

KEYS = ["model", "text", "policy", "setting"]
"""What tells arms apart."""

INHERITED = (
    "model",
    "text",
    "cap",
    "cap_on",
    "sinks",
    "ratio",
    "check_layer",
    "positions",
    "chunks",
    "top_k",
    "shape",
    "threads",
    "group",
)
"""What a reference has in common with its arm unless it says otherwise."""

PLAIN: Selection = {
    "layout": ["compact", "overwrite", "none"],
    "staging": [False],
    "drop": ["none"],
    "alias_of_model": [""],
}
"""How arms are meant to run where a selector does not say."""


Reader = Callable[[str], pd.DataFrame]


def _nothing(path: str) -> pd.DataFrame:
    return pd.DataFrame()


@dataclass(frozen=True)
class Study:
    """The results of a study; what is not given is empty.

    Attributes:
        eviction: table `eviction` with a column for each hyper-parameter, empty where a policy has
            none of that name.
        timing, spikes, probes, memory, reuse, merge, attention, decode, decode_age: the tables of
            that name.
        tokens: reads the token table of the arm `<model>/<text>/<policy>/<setting>`.
        answers: reads the item table of the reuse arm `<model>/<task>/<strategy>/<setting>`.
        decode_tokens: reads the token times of the run `<group>/<shape>/cap<cap>/threads<n>`.
        merged: reads the item table of the merge arm `<model>/<task>/<offset>/<setting>`.
        noise_floor_pct: see `timescale.noise_floor_pct`.
    """

    eviction: pd.DataFrame
    timing: pd.DataFrame = field(default_factory=pd.DataFrame)
    spikes: pd.DataFrame = field(default_factory=pd.DataFrame)
    probes: pd.DataFrame = field(default_factory=pd.DataFrame)
    memory: pd.DataFrame = field(default_factory=pd.DataFrame)
    reuse: pd.DataFrame = field(default_factory=pd.DataFrame)
    merge: pd.DataFrame = field(default_factory=pd.DataFrame)
    attention: pd.DataFrame = field(default_factory=pd.DataFrame)
    decode: pd.DataFrame = field(default_factory=pd.DataFrame)
    decode_age: pd.DataFrame = field(default_factory=pd.DataFrame)
    tokens: Reader = _nothing
    answers: Reader = _nothing
    merged: Reader = _nothing
    decode_tokens: Reader = _nothing
    statistics: StatisticsSettings = field(default_factory=StatisticsSettings)
    margins: Margins = field(default_factory=Margins)
    recommend: Mapping[str, Recommendation] = field(default_factory=dict)
    noise_floor_pct: float = 0.0

    def arms(self, table: Table) -> pd.DataFrame:
        """The rows of a table, with budgets and hyper-parameters, one per arm and way to run it.

        `reuse` has the arms that were timed, `answers` those that answered.
        """
        if table == "eviction":
            return self.eviction.reset_index(drop=True)
        if table in ("reuse", "answers"):
            # A strategy is to a task what a policy is to a text.
            names = {"strategy": "policy", "task": "text", "alias_of": "alias_of_model"}
            rows = self.reuse.rename(columns=names).assign(strategy=self.reuse.get("strategy"))
            if rows.empty:
                return rows
            deep = rows["text"] == TIMING_ONLY
            # Times that a task borrows are no evidence of their own.
            return (
                rows[deep | (rows["timed_on"] == rows["text"])] if table == "reuse" else rows[~deep]
            )
        if table == "merge":
            names = {"arm": "policy", "task": "text", "alias_of": "alias_of_model"}
            return self.merge.rename(columns=names).assign(offset=self.merge.get("arm"))
        if table == "decode":
            return _engines(self.decode)
        if table == "timing":
            return joined(self.eviction, measured_times(self.timing))
        other = self.spikes if table == "spikes" else _summed(self.memory)
        return joined(self.eviction, other)

    @property
    def machines(self) -> str:
        """Where the study was timed: on one machine, as a rule."""
        timed = self.decode if self.timing.empty else self.timing
        return "" if timed.empty else "; ".join(sorted(timed["machine"].unique()))


def path_of(arm: pd.Series[Any]) -> str:
    return "/".join(arm[name] for name in KEYS)


def run_path(engine: pd.Series[Any]) -> str:
    """Where the run of a row of `decode` is, below `results/decode/`."""
    place = "{group}/{shape}/cap{cap}/threads{threads}"
    return place.format(**{name: engine[name] for name in ("group", "shape", "cap", "threads")})


def run_text(engine: pd.Series[Any]) -> str:
    """The same in words."""
    return f"cap {engine['cap']}, threads {engine['threads']}, group {engine['group']}"


def _engines(decode: pd.DataFrame) -> pd.DataFrame:
    """Engines named as arms are: an engine is to a shape what a policy is to a model."""
    if decode.empty:
        return decode
    rows = decode.assign(model=decode["shape"], policy=decode["engine"], setting="")
    return rows.assign(text=rows.apply(run_text, axis=1)).reset_index(drop=True)


def joined(eviction: pd.DataFrame, other: pd.DataFrame) -> pd.DataFrame:
    """Rows of `other` with the columns of `eviction`; `status` and `why` are of what failed."""
    if other.empty:
        return pd.DataFrame()
    other = other.assign(why=other.get("why", ""))
    frame = other.merge(eviction, on=KEYS, suffixes=("", "_quality"))
    failed = frame["status_quality"] != "ok"
    for name in ("status", "why"):
        frame[name] = frame[name].where(~failed, frame[f"{name}_quality"])
    return frame


def measured_times(timing: pd.DataFrame) -> pd.DataFrame:
    """Timing rows of the texts that were timed, without those that borrow their times."""
    return timing if timing.empty else timing[timing["timed_on"] == timing["text"]]


def _summed(memory: pd.DataFrame) -> pd.DataFrame:
    """Bytes at the peak of an arm; logits are a part of the transient."""
    if memory.empty:
        return memory
    parts = memory[memory["part"].isin(["weights", "kv", "cache_state", "transient", "staging"])]
    groups = parts.groupby([*KEYS, "layout", "staging"], as_index=False, dropna=False)
    return groups.agg(
        peak_bytes=("bytes", "sum"),
        status=("status", lambda status: next((one for one in status if one != "ok"), "ok")),
    )


def select(rows: pd.DataFrame, wanted: Selection) -> pd.DataFrame:
    """The rows that have all wanted values; a column that is not there holds nothing."""
    chosen = np.ones(len(rows), dtype=bool)
    plain = {name: value for name, value in PLAIN.items() if name in rows}
    for name, value in {**plain, **wanted}.items():
        column = rows[name] if name in rows else pd.Series(None, rows.index, dtype=object)
        values = value if isinstance(value, list) else [value]
        known = [one for one in values if one is not None]
        empty = column.isna() if None in values else False
        chosen &= (column.isin(known) & column.notna()) | empty
    return rows[chosen]


def references(rows: pd.DataFrame, arm: pd.Series[Any], wanted: Selection) -> pd.DataFrame:
    """The rows that an arm is compared with; never its own."""
    relative = [name for name, value in wanted.items() if value == SAME]
    values = {name: _value(arm, name) if name in relative else wanted[name] for name in wanted}
    for name in INHERITED:
        value = _value(arm, name)
        if name not in wanted and name in rows and value is not None:
            # What a reference does not have (full has no cap) cannot differ.
            values[name] = [value, None]
    found = select(rows, values)
    return found[found.index != arm.name]


def _value(arm: pd.Series[Any], name: str) -> Scalar:
    value = arm.get(name)
    return None if pd.isna(value) else value
