"""How long attention takes: forward, backward, ways to mask, sizes of the input, growth.

What is compared takes turns in one process, in an order that turns around from round to round, so
that a ratio is of neighbours in time.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from scipy import stats

from kvpareto.attention.backends import reference
from kvpareto.attention.mask_cache import CausalMaskCache, causal_mask
from kvpareto.attention.module import SelfAttention
from kvpareto.attention_settings import AttentionSettings
from kvpareto.claims.bootstrap import Interval, median_ratio
from kvpareto.jobs import failure, progress
from kvpareto.measure.attention_bench import (
    ATTENTION_COLUMNS,
    cells,
    inputs,
    layer,
    missing,
    refusals,
    row,
)
from kvpareto.measure.latency import now
from kvpareto.measure.probing import median
from kvpareto.provenance import machine

log = logging.getLogger(__name__)

Way = Callable[[], tuple[float, ...]]
"""Does something once; the seconds that each part of it took."""

Times = NDArray[np.float64]

_FEWEST = 3
"""Rounds: of three, one that was disturbed does not matter."""


def attention_time(settings: AttentionSettings, confidence: float) -> pd.DataFrame:
    """Rows of the `attention` table that are times of this machine.

    `forward_ms` is without gradients, `training_forward_ms` and `backward_ms` are of one pass with
    gradients of input and weights, and `backward_ratio` is of these two. `forward_ratio` is to the
    reference, `mask_cache_ratio` of a forward with the mask cache to one without,
    `mask_addition_ratio` of attention that adds a mask to one that fills scores by it,
    `forward_ms_x<scale>` of inputs that are multiplied by a scale, and `growth_exponent` of time
    against length, over the longer half of the lengths.
    """
    timer = _Timer(settings, confidence)
    rows = [*timer.forward(), *timer.backward(), *timer.masking(), *timer.scales()]
    rows += growth(pd.DataFrame(rows), confidence)
    return pd.DataFrame(rows, columns=ATTENTION_COLUMNS).assign(machine=machine())


class _Timer:
    def __init__(self, settings: AttentionSettings, confidence: float) -> None:
        self.settings = settings
        self.confidence = confidence
        self.device = torch.device(settings.device)

    def forward(self) -> Iterator[dict[str, Any]]:
        settings = self.settings
        places = list(cells(settings, settings.lengths))
        report = progress("forward, lengths")
        refused = {str(one): refusals(settings, one, backward=False) for one in settings.backends}
        for done, (dtype, length) in enumerate(places, start=1):
            x = inputs(settings, length, dtype)
            ways: dict[str, Way] = {}
            for backend, why in refused[dtype].items():
                if backend == "flex" and length not in (settings.flex_lengths or settings.lengths):
                    continue
                if why:
                    yield missing(backend, length, dtype, "forward_ms", why)
                else:
                    ways[backend] = self._forward(layer(settings, dtype, backend), x)
            failed = self._tried(ways)
            for backend, (status, why) in failed.items():
                yield missing(backend, length, dtype, "forward_ms", why, status)
            times = self._take_turns(ways)
            for backend, (own,) in times.items():
                yield row(backend, length, dtype, "forward_ms", self._median_ms(own), "ms")
                if backend != "reference" and "reference" in times:
                    ratio = self._ratio(own, times["reference"][0])
                    yield row(backend, length, dtype, "forward_ratio", ratio, "ratio")
            report(done, len(places))

    def backward(self) -> Iterator[dict[str, Any]]:
        settings = self.settings
        refused = {str(one): refusals(settings, one, backward=True) for one in settings.backends}
        for dtype, length in cells(settings, settings.backward_lengths):
            ways: dict[str, Way] = {}
            for backend, why in refused[dtype].items():
                if why:
                    yield missing(backend, length, dtype, "backward_ms", why)
                else:
                    x = inputs(settings, length, dtype).requires_grad_()
                    ways[backend] = self._training(layer(settings, dtype, backend), x)
            for backend, (status, why) in self._tried(ways).items():
                yield missing(backend, length, dtype, "backward_ms", why, status)
            for backend, (ahead, back) in self._take_turns(ways).items():
                for measure, interval, unit in (
                    ("training_forward_ms", self._median_ms(ahead), "ms"),
                    ("backward_ms", self._median_ms(back), "ms"),
                    ("backward_ratio", self._ratio(back, ahead), "ratio"),
                ):
                    yield row(backend, length, dtype, measure, interval, unit)

    def masking(self) -> Iterator[dict[str, Any]]:
        for length in sorted(self.settings.mask_lengths):
            for measure, ways in (
                ("mask_cache_ratio", self._with_and_without_cache(length)),
                ("mask_addition_ratio", self._added_and_filled(length)),
            ):
                failed = self._tried(ways)
                for status, why in failed.values():
                    yield missing("reference", length, "float32", measure, why, status)
                if failed:
                    continue
                (own,), (other,) = self._take_turns(ways).values()
                ratio = self._ratio(own, other)
                yield row("reference", length, "float32", measure, ratio, "ratio")

    def _with_and_without_cache(self, length: int) -> dict[str, Way]:
        x = inputs(self.settings, length, "float32")
        cached, uncached = (layer(self.settings, "float32") for _ in range(2))
        uncached.masks = CausalMaskCache(max_bytes=0)
        return {"with": self._forward(cached, x), "without": self._forward(uncached, x)}

    @torch.no_grad()
    def _added_and_filled(self, length: int) -> dict[str, Way]:
        module, x = layer(self.settings, "float32"), inputs(self.settings, length, "float32")
        query, key, value = module.project(x)
        added, filled = (
            causal_mask(length, length, dtype, self.device) for dtype in (torch.float32, torch.bool)
        )
        return {
            "added": self._timed(lambda: reference(query, key, value, added)),
            "filled": self._timed(lambda: reference(query, key, value, filled)),
        }

    def scales(self) -> Iterator[dict[str, Any]]:
        settings, length = self.settings, self.settings.scale_length
        module, x = layer(settings, "float32"), inputs(settings, length, "float32")
        ways = {
            f"forward_ms_x{scale:g}": self._forward(module, scale * x)
            for scale in settings.input_scales
        }
        for measure, (status, why) in self._tried(ways).items():
            yield missing("reference", length, "float32", measure, why, status)
        for measure, (own,) in self._take_turns(ways).items():
            yield row("reference", length, "float32", measure, self._median_ms(own), "ms")

    def _forward(self, module: SelfAttention, x: torch.Tensor) -> Way:
        return self._timed(lambda: module(x))

    def _timed(self, work: Callable[[], object]) -> Way:
        def way() -> tuple[float, ...]:
            begin = now(self.device)
            with torch.inference_mode():
                work()
            return (now(self.device) - begin,)

        return way

    def _training(self, module: SelfAttention, x: torch.Tensor) -> Way:
        toward = torch.ones_like(x)

        def way() -> tuple[float, ...]:
            x.grad = None
            module.zero_grad()
            begin = now(self.device)
            output = module(x)
            middle = now(self.device)
            output.backward(toward)
            return middle - begin, now(self.device) - middle

        return way

    def _take_turns(self, ways: Mapping[str, Way]) -> dict[str, Times]:
        """Seconds a call of each way's parts, [parts, rounds]."""
        if not ways:
            return {}
        # The first round says how many there can be, and how long they are.
        round_s = float(sum(sum(way()) for way in ways.values()))
        rounds = max(_FEWEST, min(self.settings.rounds, int(self.settings.seconds / round_s)))
        calls = max(1, int(self.settings.seconds / (rounds * round_s)))
        times: dict[str, list[Times]] = {name: [] for name in ways}
        for number in range(rounds):
            for name in list(ways)[::-1] if number % 2 else ways:
                times[name].append(np.median([ways[name]() for _ in range(calls)], axis=0))
        return {name: np.array(own).T for name, own in times.items()}

    def _tried(self, ways: dict[str, Way]) -> dict[str, tuple[str, str]]:
        """Call each once, which does what only a first call does; take out those that fail."""
        failed = {}
        for name, way in list(ways.items()):
            try:
                way()
            except Exception as error:
                log.exception("%s failed", name)
                failed[name] = failure(error)
                del ways[name]
        return failed

    def _median_ms(self, seconds: Times) -> Interval:
        return median(1e3 * seconds, self.confidence)

    def _ratio(self, above: Times, below: Times) -> Interval:
        return median_ratio(above, below, confidence=self.confidence)


def growth(rows: pd.DataFrame, confidence: float) -> list[dict[str, Any]]:
    """Rows of the exponent b in time = a * length ** b, of the longer half of the lengths.

    Short lengths are spent on calls, not on tokens. The interval is that of a line's slope under
    normal errors; it needs three lengths.
    """
    times = rows[(rows["measure"] == "forward_ms") & (rows["status"] == "ok")]
    found = []
    for names, own in times.groupby(["backend", "dtype"], sort=False):
        backend, dtype = map(str, names)
        own = own.sort_values("length").iloc[-max(3, len(own) // 2) :]
        if len(own) < 3:
            continue
        line = stats.linregress(
            np.log(own["length"].astype(float)), np.log(own["value"].astype(float))
        )
        reach = line.stderr * stats.t.ppf((1 + confidence) / 2, len(own) - 2)
        interval = Interval(*map(float, (line.slope, line.slope - reach, line.slope + reach)))
        why = f"from {own['length'].min()} tokens on"
        longest = int(own["length"].max())
        found.append(row(backend, longest, dtype, "growth_exponent", interval, "", why))
    return found
