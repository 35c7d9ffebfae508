"""The `decode` table: what each engine's step costs, and how far it is from the oracle."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import pandas as pd

from kvpareto.records import read_parquet

DECODE_COLUMNS = [
    "shape", "engine", "exact", "tpot_ms_p50", "tpot_ms_p99", "tpot_ratio", "peak_bytes",
    "launches_per_step", "bandwidth_share", "kl_to_oracle", "machine", "status", "why", "group",
    "cap", "threads", "weights", "tpot_ratio_lo", "tpot_ratio_hi", "speedup_vs_strict",
    "speedup_vs_strict_lo", "speedup_vs_strict_hi", "speedup_vs_recompute",
    "speedup_vs_recompute_lo", "speedup_vs_recompute_hi", "tpot_ms_mean", "tpot_ms_p95",
    "tpot_ms_max", "read_bytes", "bandwidth_gb_s", "kl_to_oracle_max", "top1_agreement", "nll",
    "oracle_nll", "compared_tokens", "finite", "first_non_finite",
]  # fmt: skip


def decode_table(runs: Iterable[dict[str, Any]]) -> pd.DataFrame:
    """One row per run and engine.

    Args:
        runs: for each its group, shape, cap, threads, the file of its times, and the file of its
            comparison with the oracle (None: random weights).
    """
    frames = []
    for run in runs:
        rows = read_parquet(run["time"])
        if run["quality"] is not None:
            compared = read_parquet(run["quality"]).drop(columns=["status", "why"])
            rows = rows.merge(compared, on="engine", how="left", validate="one_to_one")
        about = {name: run[name] for name in ("group", "shape", "cap", "threads")}
        about["weights"] = "random" if run["quality"] is None else "trained"
        frames.append(rows.assign(**about))
    rows = pd.concat(frames).rename(columns={"launches": "launches_per_step"})
    for name, ratio in (("strict", "tpot_ratio"), ("recompute", "recompute_ratio")):
        if ratio in rows:
            for own, other in (("", ""), ("_lo", "_hi"), ("_hi", "_lo")):
                rows[f"speedup_vs_{name}{own}"] = 1 / rows[f"{ratio}{other}"]
    keys = ["group", "shape", "cap", "threads", "engine"]
    return rows.reindex(columns=DECODE_COLUMNS).sort_values(keys, kind="stable")
