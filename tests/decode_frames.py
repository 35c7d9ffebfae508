"""Rows of the decode part as a study of two cores could have them, for tests of tables, figures and
claims."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd

from kvpareto.report.decode_tables import DECODE_COLUMNS

NO_GPU = "a graph is captured on a CUDA device, and this machine has none"
NO_INT4 = "int4 weights need a CUDA device"
MIB = 2**20

ENGINES = {  # median step in ms at cap 512 and two threads, bytes read, exact
    "recompute": (41.0, 20.0, False),
    "prune": (3.02, 20.0, True),
    "prune-R64": (2.61, 20.0, False),
    "full": (9.4, 36.0, False),
    "sliding_window": (2.93, 20.0, False),
    "prompt_lookup": (2.66, 20.0, True),
    "ring": (2.38, 20.0, True),
    "ring-fused": (2.06, 20.0, True),
    "ring-sdpa_math": (2.44, 20.0, True),
    "ring-sinks_absolute": (2.36, 20.0, False),
    "ring-bfloat16": (2.95, 10.0, False),
    "ring-compiled": (1.61, 20.0, True),
    "ring-compiled-fused": (1.43, 20.0, True),
    "ring-compiled-int8": (1.52, 7.0, False),
    "ring-compiled-int8_dynamic": (1.71, 7.0, False),
    "ring-compiled-fused-int8_dynamic": (1.55, 7.0, False),
    "ring-graph": (np.nan, 20.0, True),
    "ring-graph-fused": (np.nan, 20.0, True),
    "ring-compiled-int4": (np.nan, 4.0, False),
    "llama_cpp": (3.9, 20.0, True),
    "llama_cpp-discard64": (1.74, 20.0, False),
    "llama_cpp-discardhalf": (1.69, 20.0, False),
    "llama_cpp-q8_0": (1.12, 6.0, False),
}


def decode_row(
    engine: str, shape: str = "ref-neox", cap: int = 512, threads: int = 2, **more: Any
) -> dict[str, Any]:
    """A row of `decode`: more threads are faster, more entries slower."""
    ms, mib, exact = ENGINES[engine]
    ms *= (1.6 if threads == 1 else 1) * (1 + (cap - 512) / 4096)
    strict, recompute = (ENGINES[name][0] / ENGINES[engine][0] for name in ("prune", "recompute"))
    failed = np.isnan(ms)
    bandwidth = 12e9 * threads
    tail = 1.6 if "R64" in engine or "discard" in engine else 1.15
    row = {
        "group": "engines", "shape": shape, "cap": cap, "threads": threads, "weights": "trained",
        "engine": engine, "exact": exact, "tpot_ms_mean": ms, "tpot_ms_p50": ms,
        "tpot_ms_p95": 1.05 * ms, "tpot_ms_p99": tail * ms, "tpot_ms_max": 1.5 * tail * ms,
        "tpot_ratio": 1 / strict, "read_bytes": mib * MIB, "peak_bytes": 1.3 * mib * MIB,
        "bandwidth_share": mib * MIB / (ms / 1e3) / bandwidth, "bandwidth_gb_s": bandwidth / 1e9,
        "kl_to_oracle": 2e-10 if exact else 3e-4, "kl_to_oracle_max": 1e-8 if exact else 2e-2,
        "top1_agreement": 1.0 if exact else 0.98, "nll": 2.1, "oracle_nll": 2.1,
        "compared_tokens": 2000, "finite": True, "first_non_finite": "", "launches_per_step": 60.0,
        "machine": "a machine", "status": "ok", "why": "",
    }  # fmt: skip
    for name, value in (("speedup_vs_strict", strict), ("speedup_vs_recompute", recompute)):
        row |= {name: value, f"{name}_lo": 0.96 * value, f"{name}_hi": 1.05 * value}
    row |= {"tpot_ratio_lo": 0.96 / strict, "tpot_ratio_hi": 1.05 / strict}
    if failed:
        why = NO_INT4 if "int4" in engine else NO_GPU
        row |= {"status": "unavailable", "why": why, "finite": None}
        row |= dict.fromkeys(("kl_to_oracle", "kl_to_oracle_max", "top1_agreement"), np.nan)
    return row | more


def decode_rows(
    caps: tuple[int, ...] = (512,), threads: tuple[int, ...] = (2,), **more: Any
) -> pd.DataFrame:
    """The table `decode` of one group and shape, every engine in every run."""
    rows = [
        decode_row(engine, cap=cap, threads=count, **more)
        for cap in caps
        for count in threads
        for engine in ENGINES
    ]
    return pd.DataFrame(rows).reindex(columns=DECODE_COLUMNS)


def token_rows(levels: dict[str, float], tail: dict[str, float] | None = None) -> pd.DataFrame:
    """Token times of a run whose machine drifts: engine and ms per token, in 12 blocks of 64.

    Args:
        tail: what one token of a block takes over the others, where it is not 1.
    """
    draws = np.random.default_rng(0)
    rows = []
    for block, drift in enumerate(draws.uniform(0.8, 1.3, size=12)):
        for engine, ms in levels.items():
            times = ms * drift * draws.normal(1, 0.004, size=64)
            times[-1] *= (tail or {}).get(engine, 1.0)
            rows.append(pd.DataFrame({"block": block, "engine": engine, "ms": times}))
    return pd.concat(rows, ignore_index=True)


def age_rows(shape: str = "ref-neox") -> pd.DataFrame:
    """Bins of ages: rings to 200,000 tokens, the full cache to 16,000; an engine that failed."""
    draws = np.random.default_rng(1)
    rows: list[dict[str, Any]] = []
    for engine, ms, kl in (("ring", 2.4, 3e-10), ("ring-compiled-fused", 1.45, 2e-10)):
        for age in np.linspace(1000, 200_000, 41)[:-1] + 2487:
            time = ms * draws.normal(1, 0.01)
            rows.append(_age_row(engine, age, time, 4 * MIB, kl * draws.uniform(0.7, 1.4)))
    for age in (2500, 7500, 12_500):
        time = (2.0 + age / 1100) * draws.normal(1, 0.02)
        rows.append(_age_row("full", age, time, age * 8192, np.nan))
    failed = _age_row("ring-graph", np.nan, np.nan, np.nan, np.nan)
    rows.append(failed | {"status": "unavailable", "why": NO_GPU})
    return pd.DataFrame(rows).assign(shape=shape, cap=512)


def _age_row(engine: str, age: float, ms: float, held: float, kl: float) -> dict[str, Any]:
    return {
        "engine": engine, "age": age, "tpot_ms": ms, "tpot_ms_lo": 0.97 * ms,
        "tpot_ms_hi": 1.05 * ms, "cache_bytes": held, "kl_to_oracle": kl, "status": "ok", "why": "",
    }  # fmt: skip


def slope_rows(shape: str = "ref-neox") -> pd.DataFrame:
    """The table `decode_age`: slopes per 100,000 tokens."""
    rows: list[dict[str, Any]] = []
    for engine, found in {
        "ring": ((0.3, -0.4, 1.1), (0.0, 0.0, 0.0), (1e-12, -3e-12, 5e-12)),
        "ring-compiled-fused": ((-0.2, -0.9, 0.4), (0.0, 0.0, 0.0), (-2e-12, -6e-12, 1e-12)),
        "full": ((924.0, 905.0, 951.0), (1212.0, 1212.0, 1212.0), (np.nan, np.nan, np.nan)),
        "ring-graph": ((np.nan,) * 3,) * 3,
    }.items():
        units = {"tpot_ms": "%", "cache_bytes": "%", "kl_to_oracle": "nats"}
        for (measure, unit), (value, lo, hi) in zip(units.items(), found, strict=True):
            failed = engine == "ring-graph"
            row = {"shape": shape, "cap": 512, "engine": engine, "measure": measure, "unit": unit}
            row |= {"value": value, "lo": lo, "hi": hi}
            row |= {"status": "unavailable" if failed else "ok", "why": NO_GPU if failed else ""}
            rows.append(row)
    return pd.DataFrame(rows)


def drift_rows() -> pd.DataFrame:
    """Errors of a rotated key: a walk where every step rounds, level where one does."""
    rows = []
    for dtype, unit in (("float32", 3e-8), ("bfloat16", 2e-3), ("float16", 2.4e-4)):
        for age in np.unique(np.geomspace(1, 1_000_000, 25).astype(int)):
            for way, error in (
                ("cumulative", min(unit * age**0.75, 1.4)),
                ("pristine", unit * (1 + 0.1 * np.sin(age))),
                ("float32 angle", unit + min(1.2e-8 * age, 1.4)),
            ):
                rows.append({"dtype": dtype, "way": way, "age": age, "error": error})
    return pd.DataFrame(rows)
