"""Time per token of engines that take turns in one process, and what else a step costs."""

from __future__ import annotations

import logging
from typing import Any

import numpy as np
import pandas as pd

from kvpareto.claims.bootstrap import median_ratio
from kvpareto.decode_settings import DecodeTimingSettings
from kvpareto.engine.cost import read_bandwidth
from kvpareto.engine.engine import YARDSTICK, Arm, Bench, engine_name, engine_of
from kvpareto.jobs import failure, progress
from kvpareto.measure.latency import Decoder, alternating_blocks, block_means
from kvpareto.provenance import machine

log = logging.getLogger(__name__)


def time_engines(
    arms: list[Arm],
    bench: Bench,
    timing: DecodeTimingSettings,
    confidence: float,
    yardstick: str = YARDSTICK,
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Time engines, the yardstick among them, in alternating blocks.

    Returns:
        One row per engine (columns of the `decode` table that are of this machine; what failed has
        its status), and the time of every token: block, engine, ms.
    """
    engines = {engine_name(*arm): engine_of(*arm) for arm in arms}
    rows: dict[str, dict[str, Any]] = {}
    running: dict[str, Decoder] = {}
    for name, engine in engines.items():
        log.info("starting %s", name)
        rows[name] = {"engine": name, "exact": engine.exact, "status": "ok", "why": ""}
        try:
            decoder = engine.decoder(bench)
            decoder.start()
            for _ in range(timing.warm_up_tokens):
                decoder.token()
            rows[name] |= engine.cost(decoder, bench)._asdict()
        except Exception as error:
            log.exception("%s cannot run", name)
            rows[name]["status"], rows[name]["why"] = failure(error)
        else:
            running[name] = decoder
    bandwidth = read_bandwidth(bench.ids.device)
    measured = alternating_blocks(
        running,
        timing.blocks,
        {name: engines[name].block(bench) for name in running},
        timing.warm_up_tokens,
        progress("blocks"),
    )
    for name in running:
        rows[name] |= _figures(measured, name, yardstick, confidence)
        if read := rows[name]["read_bytes"]:
            seconds = rows[name]["tpot_ms_p50"] / 1e3
            rows[name]["bandwidth_share"] = read / seconds / bandwidth
    table = pd.DataFrame(list(rows.values()))
    table["bandwidth_gb_s"] = bandwidth / 1e9
    table["machine"] = machine()
    return table, measured.rename(columns={"runner": "engine"})


def _figures(
    tokens: pd.DataFrame, engine: str, yardstick: str, confidence: float
) -> dict[str, float]:
    """Times of an engine, and ratios to the yardstick and to recompute where it ran."""
    ms = tokens.loc[tokens["runner"] == engine, "ms"].to_numpy()
    names = list(dict.fromkeys(tokens["runner"]))
    figures = {
        "tpot_ms_mean": float(block_means(tokens, engine).median()),
        **{f"tpot_ms_p{q}": float(np.percentile(ms, q)) for q in (50, 95, 99)},
        "tpot_ms_max": float(ms.max()),
    }
    recompute = next((name for name in names if name.startswith("recompute")), "")
    for column, other in (("tpot_ratio", yardstick), ("recompute_ratio", recompute)):
        if other not in names:
            continue
        ratio = median_ratio(
            block_means(tokens, engine), block_means(tokens, other), confidence=confidence
        )
        figures |= {column: ratio.estimate, f"{column}_lo": ratio.lo, f"{column}_hi": ratio.hi}
    return figures
