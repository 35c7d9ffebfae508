"""The evidence for and against a claim: each of its tests, on all the arms that it means."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from kvpareto.claim_settings import (
    AttentionTest,
    DecodeAgeTest,
    DecodeTest,
    PairTest,
    ProbeTest,
    RecommendedTest,
    StatusTest,
    Test,
)
from kvpareto.claims.bootstrap import Interval
from kvpareto.claims.judged import Row, judged, label, missing, spelled, who
from kvpareto.claims.metrics.decode import decode_tail, decode_tpot
from kvpareto.claims.metrics.lengths import prunes, trajectory
from kvpareto.claims.metrics.measured import Measured
from kvpareto.claims.metrics.memory import peak_bytes
from kvpareto.claims.metrics.merge import merge_kl, merge_mass, merge_peak, merge_ppl, merge_score
from kvpareto.claims.metrics.ppl import ppl
from kvpareto.claims.metrics.reuse import kl_first_token, score, ttft, ttft_operations
from kvpareto.claims.metrics.spikes import spike_area, spike_peak
from kvpareto.claims.metrics.tpot import tpot
from kvpareto.claims.ratio import exact
from kvpareto.claims.recommend import candidates, fastest, places
from kvpareto.claims.study import Study, Table, references, select
from kvpareto.claims.values import attention, decode, decode_age, probes


class Metric(NamedTuple):
    """A way to compare two arms: the table with their rows, and the difference between two."""

    table: Table
    compare: Callable[[Study, pd.Series[Any], Any], Measured]


METRICS = {
    "ppl": Metric("eviction", ppl),
    "prunes": Metric("eviction", prunes),
    "trajectory": Metric("eviction", trajectory),
    "tpot": Metric("timing", tpot),
    "spike_peak": Metric("spikes", spike_peak),
    "spike_area": Metric("spikes", spike_area),
    "peak_bytes": Metric("memory", peak_bytes),
    "score": Metric("answers", score),
    "kl_first_token": Metric("answers", kl_first_token),
    "ttft": Metric("reuse", ttft),
    "ttft_operations": Metric("reuse", ttft_operations),
    "merge_score": Metric("merge", merge_score),
    "merge_kl": Metric("merge", merge_kl),
    "merge_mass": Metric("merge", merge_mass),
    "merge_ppl": Metric("merge", merge_ppl),
    "merge_peak": Metric("merge", merge_peak),
    "decode_tpot": Metric("decode", decode_tpot),
    "decode_tail": Metric("decode", decode_tail),
}

ALONE = {"ttft": "full prefill", "ttft_operations": "count of operations"}
"""What a comparison without a reference is with; all others are with chance."""


def evidence(test: Test, study: Study) -> list[Row]:
    """What a study says on one test: a row per arm and reference, or one that says what it lacks.

    Returns:
        Rows with metric, arm, reference, model, text, estimate, lo, hi, margin, expect, verdict,
        why and machine.
    """
    rows: Iterable[Row]
    match test:
        case PairTest():
            rows = _pairs(test, study)
        case StatusTest():
            rows = _statuses(test, study)
        case ProbeTest():
            rows = probes(test, study)
        case AttentionTest():
            rows = attention(test, study)
        case DecodeTest():
            rows = decode(test, study)
        case DecodeAgeTest():
            rows = decode_age(test, study)
        case RecommendedTest():
            rows = _recommended(test, study)
    return [{"metric": test.metric} | row for row in rows]


def margin_of(test: PairTest | RecommendedTest, study: Study) -> float:
    """The margin of a comparison; no margin of time is below the noise floor.

    What is counted, held against a limit, or held against chance has none unless the test says so.
    """
    default = 0.0
    if test.reference is not None or test.metric == "ttft":
        default = {
            "ppl": study.margins.ppl,
            "tpot": study.margins.tpot,
            "recommended_tpot": study.margins.tpot,
            "spike_peak": study.margins.spike,
            "spike_area": study.margins.spike,
            "peak_bytes": study.margins.memory,
            "score": study.margins.score,
            "kl_first_token": study.margins.kl,
            "ttft": study.margins.ttft,
            "merge_score": study.margins.score,
            "merge_kl": study.margins.kl,
            "merge_mass": study.margins.mass,
            "merge_ppl": study.margins.ppl,
            "merge_peak": study.margins.memory,
            "decode_tpot": study.margins.tpot,
            "decode_tail": study.margins.tpot,
        }.get(test.metric, 0.0)
    margin = default if test.margin is None else test.margin
    return max(margin, study.noise_floor_pct) if test.metric.endswith("tpot") else margin


def _pairs(test: PairTest, study: Study) -> Iterator[Row]:
    table, compare = METRICS[test.metric]
    arms = study.arms(table)
    margin = margin_of(test, study)
    chosen = select(arms, test.arm)
    found = False
    for _, arm in chosen.iterrows():
        others: list[pd.Series[Any] | None] = [None]
        if test.reference is not None:
            others = [row for _, row in references(arms, arm, test.reference).iterrows()]
        for other in others:
            found = True
            beside = ALONE.get(test.metric, "chance") if other is None else label(other)
            named = who(arm) | {"reference": beside}
            failed = [row for row in (arm, other) if row is not None and row["status"] != "ok"]
            if failed and failed[0]["status"] == "unavailable":
                # This machine cannot run it, which says nothing on the claim.
                why = _failure(failed[0]).why
                yield missing(why, test.expect, margin) | named
                continue
            measured = _failure(failed[0]) if failed else compare(study, arm, other)
            yield named | judged(measured, margin, test.expect)
    if not found and chosen.empty:
        yield missing(f"no arm {spelled(test.arm)}", test.expect, margin)
    elif not found:
        lacks = f"no reference {spelled(test.reference or {})} beside {spelled(test.arm)}"
        yield missing(lacks, test.expect, margin)


def _statuses(test: StatusTest, study: Study) -> Iterator[Row]:
    chosen = select(study.arms("eviction"), test.arm)
    for _, arm in chosen.iterrows():
        why = f"the status is {arm['status']}"
        measured = Measured(exact(float(arm["status"] != test.equals)), why=why)
        yield who(arm) | {"reference": test.equals} | judged(measured, 0.0, "equal")
    if chosen.empty:
        yield missing(f"no arm {spelled(test.arm)}", "equal", 0.0)


def _recommended(test: RecommendedTest, study: Study) -> Iterator[Row]:
    rule = study.recommend[test.use]
    margin = margin_of(test, study)
    found = False
    for model, text in places(study.eviction, rule):
        arms = candidates(study.eviction, study.timing, model, text, rule.cap)
        good = fastest(arms, rule.ppl_delta_pct)
        # Where none is good enough, the best of them shows by how much.
        first = good if len(good) else arms.sort_values("ppl_delta_pct")
        others = (
            fastest(select(arms, test.reference), rule.ppl_delta_pct) if test.reference else None
        )
        if first.empty or (others is not None and others.empty):
            continue
        found = True
        arm = first.iloc[0]
        if others is None:
            reference = f"{rule.ppl_delta_pct:g}%"
            measured = _above_limit(study, arm, rule.ppl_delta_pct)
        else:
            reference = label(others.iloc[0])
            same = others.index[0] == arm.name
            measured = tpot(study, arm, others.iloc[0])
            if same:
                measured = Measured(exact(0.0), measured.machine, "the arm is itself the fastest")
        yield who(arm) | {"reference": reference} | judged(measured, margin, test.expect)
    if not found:
        lacks = f"no arm for {test.use}"
        if test.reference is not None:
            lacks += f", or no {spelled(test.reference)} within its limit"
        yield missing(lacks, test.expect, margin)


def _above_limit(study: Study, arm: pd.Series[Any], limit_pct: float) -> Measured:
    """Change of perplexity against recompute at the same cap, less the limit, in points."""
    beside: dict[str, Any] = {name: arm[name] for name in ("model", "text", "cap")}
    baseline = select(study.arms("eviction"), beside | {"policy": "recompute"}).iloc[0]
    change = ppl(study, arm, baseline).difference
    above = Interval(*(value - limit_pct for value in change))
    return Measured(above, why=f"{change.estimate:+.3g}% with a limit of {limit_pct:g}%")


def _failure(arm: pd.Series[Any]) -> Measured:
    why = f"{label(arm)}: {arm['status']}" + (f", {arm['why']}" if arm["why"] else "")
    return Measured(exact(np.nan), why=why)
