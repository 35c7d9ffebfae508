"""What the probes share: any stream as a timed decoder, paired ratios, rows.

A probe answers one question about one mechanism. It is one file under `probes/` with one public
function, `probe(model, ids, options)`, which returns rows (`ROW`) for the `probes` table.
"""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from typing import Any, Protocol

import numpy as np
import pandas as pd
import torch
from numpy.typing import ArrayLike
from transformers import PreTrainedModel

from kvpareto.cache.layouts import Layout
from kvpareto.claims.bootstrap import Interval, median_ratio
from kvpareto.eviction.policy import EvictionPolicy
from kvpareto.jobs import failure
from kvpareto.measure.latency import Decoder, block_means, paired_blocks
from kvpareto.measure.stream import Stream, new_cache

log = logging.getLogger(__name__)

ROW = ["setting", "measure", "value", "lo", "hi", "unit", "status", "why"]
"""Columns of a probe's rows. Bounds of an exact value are the value; status is ok, refused,
unavailable or invalid."""


def run_probe(
    name: str, model: PreTrainedModel, ids: torch.Tensor, options: dict[str, Any]
) -> pd.DataFrame:
    """Rows of the probe `probes/<name>.py`; if it raises, one row that says so.

    Args:
        ids: [documents, tokens].
        options: see the probe.

    Returns:
        Columns probe and `ROW`.
    """
    try:
        module = import_module(f"kvpareto.measure.probes.{name}")
        rows: pd.DataFrame = module.probe(model, ids, options)
    except Exception as error:
        log.exception("probe %s failed", name)
        status, why = failure(error)
        rows = pd.DataFrame([{"setting": "", "measure": "", "status": status, "why": why}])
    return rows.reindex(columns=ROW).assign(probe=name)[["probe", *ROW]]


class Decoding(Protocol):
    """A stream: it takes a prefill, then one token at a time, and returns logits.

    Attributes:
        attention: the attention function that its model must run under.
    """

    model: PreTrainedModel

    @property
    def attention(self) -> str: ...

    def prefill(self, ids: torch.Tensor) -> torch.Tensor:
        """The first tokens, [batch, tokens]; logits of the last one, [batch, vocab]."""

    def decode(self, ids: torch.Tensor) -> torch.Tensor:
        """One token per row, [batch, 1]; logits, [batch, vocab]."""


def stream_of(
    model: PreTrainedModel,
    policy: EvictionPolicy,
    layout: Layout = "compact",
    *,
    entries: int | None = None,
    staging: bool = False,
    structural: torch.Tensor | None = None,
) -> Stream:
    """A stream in the project's cache, with room for exactly what is held.

    Args:
        entries: most entries that are held, for a policy without a budget.
        staging: as in `EvictingCache`.
        structural: as in `Stream`.
    """
    cache = new_cache(model, layout, policy, entries or policy.peak, staging=staging)
    return Stream(model, policy, cache, structural=structural, checked=False)


@contextmanager
def attention_of(stream: Decoding) -> Iterator[None]:
    """Run the stream's model under its attention function: several streams share one model."""
    model = stream.model
    before = model.config._attn_implementation
    if before == stream.attention:
        yield
        return
    model.set_attn_implementation(stream.attention)
    try:
        yield
    finally:
        model.set_attn_implementation(before)


class TimedDecoder:
    """Decodes one document in any stream, over and over; a token's time ends with its arg max."""

    def __init__(self, stream: Decoding, ids: torch.Tensor, prefill: int) -> None:
        """
        Args:
            ids: [1, tokens], the document, on the model's device.
            prefill: tokens of it that are processed at once.

        Raises:
            ValueError: the document leaves no token to decode.
        """
        if ids.shape[1] <= prefill:
            raise ValueError(f"a document of {ids.shape[1]} tokens ends with its prefill {prefill}")
        self.stream = stream
        self.ids = ids
        self.prefill = prefill
        self.position = ids.shape[1]

    @torch.inference_mode()
    def restart(self) -> None:
        """Prefill."""
        with attention_of(self.stream):
            self.stream.prefill(self.ids[:, : self.prefill]).argmax(-1)
        self.position = self.prefill

    def restart_for(self, tokens: int) -> None:
        """Prefill, so that the next `tokens` tokens are decoded without another prefill.

        Raises:
            ValueError: the document ends before.
        """
        if self.ids.shape[1] - self.prefill < tokens:
            raise ValueError(
                f"{tokens} tokens after a prefill of {self.prefill} are to be profiled, and the "
                f"document has {self.ids.shape[1]}: take a longer text or profile fewer tokens"
            )
        self.restart()

    def start(self) -> tuple[float, float]:
        """Prefill and decode one token; (prefill, prefill and first token) in seconds."""
        begin = self._now()
        self.restart()
        prefilled = self._now() - begin
        return prefilled, prefilled + self.token()[0]

    @torch.inference_mode()
    def token(self) -> tuple[float, bool]:
        """Decode one token; (seconds, False): what a stream evicts is not seen from outside."""
        if self.position == self.ids.shape[1]:
            self.restart()
        chunk = self.ids[:, self.position : self.position + 1]
        self.position += 1
        with attention_of(self.stream):
            begin = self._now()
            self.stream.decode(chunk).argmax(-1)
            return self._now() - begin, False

    def _now(self) -> float:
        if self.ids.device.type == "cuda":
            torch.cuda.synchronize(self.ids.device)
        return time.perf_counter()


def time_ratio(arm: Decoder, reference: Decoder, options: dict[str, Any]) -> Interval:
    """Time per token of `arm` over that of `reference`, from alternating blocks in this process.

    Args:
        options: blocks, tokens_per_block, warm_up_tokens, confidence.

    Returns:
        The median ratio of blocks, with its interval.
    """
    arm.start()
    reference.start()
    timed = paired_blocks(
        arm, reference, options["blocks"], options["tokens_per_block"], options["warm_up_tokens"]
    )
    means = (block_means(timed, runner) for runner in ("arm", "yardstick"))
    return median_ratio(*means, confidence=options["confidence"])


@torch.inference_mode()
def logit_difference(
    one: Decoding, other: Decoding, ids: torch.Tensor, prefill: int, steps: int
) -> float:
    """Largest absolute difference of two streams' logits over `steps` tokens after a prefill.

    Args:
        ids: [1, tokens], the same for both.
    """
    logits = []
    for stream in (one, other):
        chunks = ids[:, prefill : prefill + steps].split(1, dim=1)
        with attention_of(stream):
            stream.prefill(ids[:, :prefill])
            logits.append(torch.stack([stream.decode(chunk) for chunk in chunks]).float())
    return float((logits[0] - logits[1]).abs().max())


def median(values: ArrayLike, confidence: float) -> Interval:
    """Median of one positive figure per block, with its interval (see `median_ratio`)."""
    return median_ratio(values, np.ones_like(values, dtype=np.float64), confidence=confidence)


def exact(setting: str, measure: str, value: float, unit: str, why: str = "") -> dict[str, Any]:
    """A row whose value has no error: its bounds are the value itself."""
    return estimated(setting, measure, Interval(value, value, value), unit, why)


def estimated(
    setting: str, measure: str, interval: Interval, unit: str, why: str = ""
) -> dict[str, Any]:
    """A row with an interval."""
    status = "ok" if math.isfinite(interval.estimate) else "invalid"
    values = (setting, measure, *map(float, interval), unit, status, why)
    return dict(zip(ROW, values, strict=True))


def label(options: dict[str, Any], *parts: object) -> str:
    """A setting's name: the cap, the sinks, and what sets it apart, for example `cap256-S4-R64`."""
    return "-".join([f"cap{options['cap']}", f"S{options['sinks']}", *map(str, parts)])
