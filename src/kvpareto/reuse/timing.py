"""Time to first token: every arm of a strategy in turns with a full prefill, in one process.

TTFT is load + rotate + select + recompute + first token. The store is warm (segments in memory)
or cold (read from disk, its pages dropped from the system's cache beforehand, digests verified).
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd
import torch

from kvpareto.cache.store import Segment
from kvpareto.claims.bootstrap import Interval, median_ratio
from kvpareto.jobs import failure, progress
from kvpareto.measure.latency import now
from kvpareto.provenance import machine
from kvpareto.reuse.answer import as_cache, greedy
from kvpareto.reuse.arms import built, setting_id
from kvpareto.reuse.bench import Bench
from kvpareto.reuse.cost import full_prefill, fused_prefill, shape_of
from kvpareto.reuse.fuse import Prefilled, assemble, fuse, prefill
from kvpareto.reuse.strategy import Strategy
from kvpareto.reuse_settings import ReuseTimingSettings
from kvpareto.text.tasks.item import Item

log = logging.getLogger(__name__)

PARTS = ("load", "rotate", "select", "recompute", "first_token")


@dataclass
class Clock:
    """Adds up the time of each part of the work, on any device."""

    device: torch.device
    parts: dict[str, float] = field(default_factory=lambda: dict.fromkeys(PARTS, 0.0))

    def __post_init__(self) -> None:
        self._last = now(self.device)

    def mark(self, part: str) -> None:
        """The work since the last mark belongs to `part`."""
        ended = now(self.device)
        self.parts[part] += ended - self._last
        self._last = ended

    @property
    def total(self) -> float:
        return sum(self.parts.values())


@dataclass(frozen=True)
class _Timer:
    """One item, prefilled in every way that is timed."""

    bench: Bench
    item: Item
    segments: Sequence[Segment]

    def full(self) -> Clock:
        """The model's own prefill, and the token that it gives."""
        clock = Clock(self.bench.model.device)
        logits, _ = prefill(self.bench.model, self.item)
        logits.argmax().item()
        clock.mark("first_token")
        return clock

    def fused(self, strategy: Strategy, cold: bool) -> Clock:
        """A prefill from the store, up to a cache that decoding can go on with."""
        source = self.bench.source
        if cold:
            for before, tokens in source.parts(self.item):
                source.store.forget_pages(source.key(before, tokens))
        clock = Clock(self.bench.model.device)
        got = self.fuse(strategy, source.segments(self.item) if cold else self.segments, clock.mark)
        got.logits.argmax().item()
        as_cache(self.bench.model, got.layers)
        clock.mark("first_token")
        return clock

    def fuse(
        self, strategy: Strategy, segments: Sequence[Segment], mark: Callable[[str], None]
    ) -> Prefilled:
        """A prefill from segments."""
        if strategy.isolates_question:
            segments = [*segments, self.bench.source.alone(self.item)]
        stored = assemble(segments, len(self.item.ids)).to(self.bench.model.device)
        mark("load")
        return fuse(self.bench.blocks, self.item, stored, strategy, mark=mark)

    def operations_ratio(self, strategy: Strategy, rows: int) -> float:
        """What the count of operations predicts of the ratio to a full prefill."""
        shape, tokens = shape_of(self.bench.blocks), len(self.item.ids)
        if not strategy.reuses:
            return 1.0
        fused = fused_prefill(shape, tokens, rows, strategy.check_layer)
        if strategy.isolates_question:
            fused += full_prefill(shape, len(self.item.question))
        return fused / full_prefill(shape, tokens)

    def tpot_ms(self, got: Prefilled, tokens: int) -> float:
        """Median time per token after the first."""
        model, times = self.bench.model, []
        for _ in range(3):
            begin = now(model.device)
            greedy(model, got.logits, got.layers, got.length, tokens + 1, frozenset())
            times.append((now(model.device) - begin) / tokens)
        return 1e3 * float(np.median(times))


def time_arms(
    bench: Bench,
    items: Sequence[Item],
    arms: list[dict[str, Any]],
    settings: ReuseTimingSettings,
    confidence: float,
) -> pd.DataFrame:
    """Time arms, each beside a full prefill.

    Each pair prefills one item by the model and by every arm, in an order that turns around from
    pair to pair; a drop comes after the first token and changes no TTFT.

    Args:
        arms: strategy and setting of each.

    Returns:
        One row per arm: strategy, setting and the timing columns of the `reuse` table; failures
        with their status.
    """
    timers = [_Timer(bench, item, bench.source.segments(item)) for item in items]
    rows = []
    for arm in arms:
        name = setting_id(arm["strategy"], arm["setting"])
        swept = {key: arm["setting"].get(key) for key in ("ratio", "check_layer", "first")}
        about = {"strategy": arm["strategy"], "setting": name, **swept, "machine": machine()}
        log.info("timing %s %s", arm["strategy"], about["setting"])
        try:
            rows.append(about | _measure(timers, arm, settings, confidence))
        except Exception as error:
            log.exception("%s failed", about["setting"])
            status, why = failure(error)
            rows.append(about | {"status": status, "why": why})
    return pd.DataFrame(rows)


def refused_arms(arms: list[dict[str, Any]], why: str) -> pd.DataFrame:
    """Rows of arms that are not timed."""
    names = [(arm["strategy"], setting_id(arm["strategy"], arm["setting"])) for arm in arms]
    frame = pd.DataFrame(names, columns=["strategy", "setting"])
    return frame.assign(machine=machine(), status="refused", why=why)


def _measure(
    timers: Sequence[_Timer], arm: dict[str, Any], settings: ReuseTimingSettings, confidence: float
) -> dict[str, Any]:
    strategy = built(arm)
    ways: dict[str, Callable[[_Timer], Clock]] = {
        "full": _Timer.full,
        "warm": lambda timer: timer.fused(strategy, cold=False),
        "cold": lambda timer: timer.fused(strategy, cold=True),
    }
    if not strategy.reuses:
        ways = {"full": _Timer.full, "warm": _Timer.full}
    measured: dict[str, list[Clock]] = {name: [] for name in ways}
    report = progress(f"{arm['strategy']}, pairs")
    for pair in range(-settings.warm_up, settings.pairs):
        timer = timers[pair % len(timers)]
        order = list(ways) if pair % 2 else list(ways)[::-1]
        for name in order:
            clock = ways[name](timer)
            if pair >= 0:
                measured[name].append(clock)
        report(max(0, pair + 1), settings.pairs)
    totals = {name: [1e3 * clock.total for clock in clocks] for name, clocks in measured.items()}
    ratios = {
        name: median_ratio(totals[name], totals["full"], confidence=confidence)
        for name in ("warm", "cold")
        if name in totals
    }
    parts = pd.DataFrame([clock.parts for clock in measured["warm"]]).median() * 1e3
    first = timers[0]
    got = first.fuse(strategy, first.segments, lambda part: None)
    return {
        "tokens": len(first.item.ids),
        "ttft_ms": float(np.median(totals["warm"])),
        "full_ms": float(np.median(totals["full"])),
        **_spread("ttft_ratio", ratios["warm"]),
        "ttft_cold_ms": float(np.median(totals["cold"])) if "cold" in totals else None,
        **(_spread("ttft_cold_ratio", ratios["cold"]) if "cold" in ratios else {}),
        **{f"{part}_ms": float(parts[part]) for part in PARTS},
        "operations_ratio": first.operations_ratio(strategy, len(got.rows)),
        "tpot_ms": first.tpot_ms(got, settings.decoded_tokens),
        "store_bytes": sum(segment.bytes for segment in first.segments),
        "status": "ok",
        "why": "",
    }


def _spread(name: str, interval: Interval) -> dict[str, float]:
    return {name: interval.estimate, f"{name}_lo": interval.lo, f"{name}_hi": interval.hi}
