"""Evidence of measured rows, each held against a value that its test names."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pandas as pd

from kvpareto.claim_settings import (
    AttentionTest,
    DecodeAgeTest,
    DecodeTest,
    ProbeTest,
    ValueTest,
)
from kvpareto.claims.judged import Row, judged, missing, spelled
from kvpareto.claims.metrics.value import against
from kvpareto.claims.study import Study, run_text, select

_OF_MACHINE = ("tpot_", "speedup_", "bandwidth_", "peak_bytes")
"""How the columns of `decode` begin that other machines need not share."""


def probes(test: ProbeTest, study: Study) -> Iterator[Row]:
    wanted: dict[str, Any] = {"probe": test.probe, "measure": test.measure}
    chosen = select(study.probes, wanted)
    if test.setting and len(chosen):
        wanted["setting"] = test.setting
        chosen = chosen[[test.setting in str(name).split("-") for name in chosen["setting"]]]
    for _, row in chosen.iterrows():
        parts = [row[name] for name in ("probe", "setting", "measure") if row[name]]
        who = {"arm": "/".join(parts), "reference": f"{test.value:g}"}
        who |= {"model": row["model"], "text": row["text"]}
        machine = study.machines if test.of != "values" else ""
        yield _against(row, test, machine) | who
    if chosen.empty:
        lacks = f"no probe {spelled(wanted)}"
        yield missing(lacks, test.expect, test.margin)


def attention(test: AttentionTest, study: Study) -> Iterator[Row]:
    chosen = select(study.attention, test.rows)
    for _, row in chosen.iterrows():
        who = {"arm": f"{row['backend']}/{row['measure']}", "reference": f"{test.value:g}"}
        who |= {"model": "self-attention", "text": f"{row['length']} tokens, {row['dtype']}"}
        # Times have a machine, what is counted or compared has none.
        machine = "" if pd.isna(row["machine"]) else row["machine"]
        yield _against(row, test, machine) | who
    if chosen.empty:
        yield missing(f"no row {spelled(test.rows)}", test.expect, test.margin)


def decode(test: DecodeTest, study: Study) -> Iterator[Row]:
    """A column of the table `decode`, with its bounds where it has any."""
    chosen = select(study.decode, test.rows)
    for _, row in chosen.iterrows():
        who = {"arm": f"{row['engine']}/{test.column}", "reference": f"{test.value:g}"}
        who |= {"model": row["shape"], "text": run_text(row)}
        if pd.isna(row[test.column]):
            lacks = f"{row['status']}: {row['why']}"
            if row["status"] == "ok":
                lacks = f"no {test.column} with {row['weights']} weights"
            yield missing(lacks, test.expect, test.margin) | who
            continue
        value, lo, hi = (
            float(row.get(f"{test.column}{end}", row[test.column])) for end in ("", "_lo", "_hi")
        )
        # What is compared with the oracle is no machine's own.
        machine = row["machine"] if test.column.startswith(_OF_MACHINE) else ""
        measured = against(pd.Series({"value": value, "lo": lo, "hi": hi}), test, machine)
        yield judged(measured, test.margin, test.expect) | who
    if chosen.empty:
        yield missing(f"no row {spelled(test.rows)}", test.expect, test.margin)


def decode_age(test: DecodeAgeTest, study: Study) -> Iterator[Row]:
    """Slopes of the table `decode_age`, per 100,000 tokens."""
    chosen = select(study.decode_age, test.rows)
    for _, row in chosen.iterrows():
        who = {"arm": f"{row['engine']}/{row['measure']}", "reference": f"{test.value:g}"}
        who |= {"model": row["shape"], "text": f"cap {row['cap']}, per 100,000 tokens"}
        timed = row["measure"] == "tpot_ms"
        machine = row.get("machine", study.machines) if timed else ""
        yield _against(row, test, machine) | who
    if chosen.empty:
        yield missing(f"no row {spelled(test.rows)}", test.expect, test.margin)


def _against(row: pd.Series[Any], test: ValueTest, machine: str) -> Row:
    """A measured row beside the value of a test, or why there is none."""
    if np.isnan(row["value"]):
        lacks = ": ".join(part for part in (row["status"], row.get("why")) if part)
        return missing(lacks, test.expect, test.margin)
    return judged(against(row, test, machine), test.margin, test.expect)
