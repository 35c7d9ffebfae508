"""Whether a stream costs the same at any age: time, memory and error against the tokens decoded."""

from __future__ import annotations

import logging
from typing import Any

import numpy as np
import pandas as pd
import torch
from scipy import stats

from kvpareto.decode_settings import DecodeAgeSettings
from kvpareto.engine.engine import FULL, Arm, Bench, TorchEngine, engine_name, engine_of
from kvpareto.jobs import failure, progress
from kvpareto.measure.dynamic import ShiftedStream
from kvpareto.measure.fidelity import kl_nats
from kvpareto.measure.latency import attention_of, now
from kvpareto.measure.memory import cache_bytes
from kvpareto.provenance import machine

log = logging.getLogger(__name__)


def age_times(arms: list[Arm], bench: Bench, age: DecodeAgeSettings) -> pd.DataFrame:
    """Time per token and bytes of the cache of each engine, bin by bin of its age.

    Args:
        bench: its document is decoded over and over, each time behind what came before.
        age: the cache that is not bounded is run to a lower age than the others.

    Returns:
        Rows of engine, age (decoded tokens at a bin's middle), tpot_ms (median of the bin),
        tpot_ms_lo, tpot_ms_hi (its quartiles), cache_bytes, status, why, machine.
    """
    rows: list[dict[str, Any]] = []
    for arm in arms:
        name = engine_name(*arm)
        tokens = age.full_tokens if tuple(arm) == FULL else age.tokens
        try:
            rows += [
                {"engine": name, "status": "ok", "why": ""} | row
                for row in _timed(arm, bench, tokens, _width(age))
            ]
        except Exception as error:
            log.exception("%s cannot run", name)
            status, why = failure(error)
            rows.append({"engine": name, "status": status, "why": why})
    return pd.DataFrame(rows).assign(machine=machine())


def _width(age: DecodeAgeSettings) -> int:
    """Tokens of a bin."""
    return max(1, age.tokens // age.bins)


def _tokens(bench: Bench, count: int) -> Any:
    """The document's tokens behind the prefill, over and over, [1, 1] each."""
    following = bench.ids[:, bench.cap - 1 :]
    for index in range(count):
        place = index % following.shape[1]
        yield index, following[:, place : place + 1]


@torch.inference_mode()
def _timed(arm: Arm, bench: Bench, tokens: int, width: int) -> list[dict[str, Any]]:
    engine = engine_of(*arm)
    assert isinstance(engine, TorchEngine)
    stream: Any = engine.stream(bench.model(engine.dtype), bench)
    device, rows, seconds = bench.ids.device, [], []
    report = progress(f"{engine_name(*arm)}, tokens")
    with attention_of(stream):
        stream.prefill(bench.ids[:, : bench.cap - 1])
        for index, token in _tokens(bench, tokens):
            begin = now(device)
            stream.decode(token).argmax(-1)
            seconds.append(now(device) - begin)
            if len(seconds) == width:
                lo, middle, hi = np.quantile(seconds, [0.25, 0.5, 0.75])
                times = {"tpot_ms": middle, "tpot_ms_lo": lo, "tpot_ms_hi": hi}
                rows.append(
                    {"age": index + 1 - width // 2, "cache_bytes": sum(cache_bytes(stream.cache))}
                    | {key: 1e3 * value for key, value in times.items()}
                )
                seconds = []
                report(index + 1, tokens)
    return rows


@torch.inference_mode()
def age_errors(arms: list[Arm], bench: Bench, age: DecodeAgeSettings) -> pd.DataFrame:
    """Distance of each engine from the oracle, which decodes beside it; not of the full cache.

    Returns:
        Rows of engine, age, kl_to_oracle (mean of a bin, nats), top1_agreement, status, why.
    """
    oracle = ShiftedStream(bench.model("float32"), bench.cap - 1, bench.sinks)
    streams: dict[str, Any] = {}
    rows: list[dict[str, Any]] = []
    for arm in arms:
        if tuple(arm) == FULL:
            continue
        engine, name = engine_of(*arm), engine_name(*arm)
        assert isinstance(engine, TorchEngine)
        try:
            streams[name] = engine.stream(bench.model("float32"), bench)
        except Exception as error:
            log.exception("%s cannot run", name)
            status, why = failure(error)
            rows.append({"engine": name, "status": status, "why": why})
    prefill = bench.ids[:, : bench.cap - 1]
    for stream in (oracle, *streams.values()):
        with attention_of(stream):
            stream.prefill(prefill)
    width = _width(age)
    found: dict[str, list[tuple[float, bool]]] = {name: [] for name in streams}
    report = progress("tokens beside the oracle")
    for index, token in _tokens(bench, age.tokens):
        with attention_of(oracle):
            truth = oracle.decode(token)
        for name, stream in streams.items():
            with attention_of(stream):
                own = stream.decode(token)
            same = bool((own.argmax(-1) == truth.argmax(-1)).all())
            found[name].append((kl_nats(truth, own), same))
        if (index + 1) % width == 0:
            for name, pairs in found.items():
                kl, same = np.mean(pairs, axis=0)
                rows.append(
                    {"engine": name, "age": index + 1 - width // 2, "kl_to_oracle": kl}
                    | {"top1_agreement": same, "status": "ok", "why": ""}
                )
                pairs.clear()
            report(index + 1, age.tokens)
    return pd.DataFrame(rows)


_TIMES = ("engine", "age", "tpot_ms", "tpot_ms_lo", "tpot_ms_hi", "cache_bytes")


def by_age(times: pd.DataFrame, errors: pd.DataFrame) -> pd.DataFrame:
    """Times and errors of every engine and bin side by side; a failure is one row, of `times`."""
    found = errors.reindex(columns=["engine", "age", "kl_to_oracle", "top1_agreement"])
    rows = times.reindex(columns=list(dict.fromkeys([*_TIMES, *times])))
    # What failed there has failed here as well.
    return rows.merge(found.dropna(subset="age"), on=["engine", "age"], how="left")


MEASURES = {"tpot_ms": "%", "cache_bytes": "%", "kl_to_oracle": "nats"}
"""What slopes are taken of, and their unit, per 100,000 tokens."""


def slopes(rows: pd.DataFrame, skipped: int, confidence: float) -> pd.DataFrame:
    """How each measure of each engine changes with its age, per 100,000 tokens.

    Theil and Sen's slope, which a few disturbed bins do not move, with its interval; of times and
    bytes in percent of their median.

    Args:
        rows: of engine, age and the measures, one per bin; what is NaN is left out.
        skipped: first tokens, of which no slope is taken.

    Returns:
        Rows of engine, measure, value, lo, hi, unit, status, why.
    """
    found = []
    for engine, own in rows[rows["age"] >= skipped].groupby("engine", sort=False):
        for measure, unit in MEASURES.items():
            shown = own.dropna(subset=[measure])
            if len(shown) < 3:
                continue
            values = shown[measure].to_numpy(np.float64)
            line = stats.theilslopes(values, shown["age"].to_numpy(np.float64), alpha=confidence)
            scale = 1e5 * (100 / np.median(values) if unit == "%" else 1)
            bounds = [scale * value for value in (line.slope, line.low_slope, line.high_slope)]
            found.append(
                {"engine": engine, "measure": measure}
                | dict(zip(("value", "lo", "hi"), bounds, strict=True))
                | {"unit": unit, "status": "ok", "why": ""}
            )
    failed = rows.loc[rows["status"] != "ok", ["engine", "status", "why"]]
    return pd.concat([pd.DataFrame(found), failed]) if len(failed) else pd.DataFrame(found)
