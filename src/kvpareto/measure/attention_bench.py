"""What the benchmarks of self-attention share: the module, its inputs, rows of the table."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from itertools import product
from typing import Any

import torch

from kvpareto.attention.backends import BACKENDS, Backend, reference, refusal
from kvpareto.attention.mask_cache import CausalMaskCache
from kvpareto.attention.module import SelfAttention
from kvpareto.attention_settings import AttentionSettings
from kvpareto.claims.bootstrap import Interval

ATTENTION_COLUMNS = [
    "backend", "length", "dtype", "measure", "value", "lo", "hi", "unit", "status", "why",
]  # fmt: skip

PLAIN = "plain"
"""The reference with exp and sum for a softmax, as a control."""


_TRIED = 8
"""Length at which a backend is tried."""


def plain_softmax(scores: torch.Tensor) -> torch.Tensor:
    """What is written in text books: it overflows."""
    weights = scores.exp()
    return weights / weights.sum(dim=-1, keepdim=True)


BACKENDS_AND_CONTROL: dict[str, Backend] = {
    **BACKENDS,
    PLAIN: partial(reference, softmax=plain_softmax),
}


def layer(settings: AttentionSettings, dtype: str, backend: str = "reference") -> SelfAttention:
    """The module that is measured; its weights are those of float32, rounded."""
    torch.manual_seed(0)
    module = SelfAttention(
        settings.embedding,
        settings.heads,
        settings.kv_heads,
        backend=backend,
        masks=CausalMaskCache(settings.mask_bytes),
    )
    return module.to(settings.device, getattr(torch, dtype))


def inputs(settings: AttentionSettings, length: int, dtype: str, batch: int = 1) -> torch.Tensor:
    """Unit normal inputs, [batch, length, embedding]."""
    draw = torch.Generator().manual_seed(length)
    x = torch.randn(batch, length, settings.embedding, generator=draw)
    return x.to(settings.device, getattr(torch, dtype))


def cells(settings: AttentionSettings, lengths: list[int]) -> Iterator[tuple[str, int]]:
    """All (dtype, length), ascending in the length."""
    yield from product(settings.backends, sorted(lengths))


def refusals(settings: AttentionSettings, dtype: str, backward: bool) -> dict[str, str]:
    """Each backend of a dtype, and why it cannot run (see `refusal`)."""
    with torch.inference_mode(not backward):
        projected = layer(settings, dtype).project(inputs(settings, _TRIED, dtype))
        parts = [part.detach().requires_grad_(backward) for part in projected]
    names = settings.backends[dtype]  # type: ignore[index]
    return {name: refusal(name, *parts) for name in names}


def row(
    backend: str,
    length: int,
    dtype: str,
    measure: str,
    found: Interval,
    unit: str,
    why: str = "",
) -> dict[str, Any]:
    """A row of the `attention` table, of something that was measured."""
    values = (backend, length, dtype, measure, *found, unit, "ok", why)
    return dict(zip(ATTENTION_COLUMNS, values, strict=True))


def missing(
    backend: str, length: int, dtype: str, measure: str, why: str, status: str = "unavailable"
) -> dict[str, Any]:
    """A row of something that cannot run here, or of something that failed."""
    about = {"backend": backend, "length": length, "dtype": dtype, "measure": measure}
    return about | {"status": status, "why": why.splitlines()[0]}
