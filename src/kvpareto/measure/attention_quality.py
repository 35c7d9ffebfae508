"""Whether attention is right: errors, finite outputs, hits of the mask cache. Deterministic."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from typing import Any

import numpy as np
import pandas as pd
import torch

from kvpareto.attention.mask_cache import CausalMaskCache
from kvpareto.attention.module import SelfAttention
from kvpareto.attention_settings import AttentionSettings
from kvpareto.claims.ratio import exact
from kvpareto.jobs import failure
from kvpareto.measure.attention_bench import (
    ATTENTION_COLUMNS,
    BACKENDS_AND_CONTROL,
    PLAIN,
    cells,
    inputs,
    layer,
    missing,
    refusals,
    row,
)

log = logging.getLogger(__name__)


def attention_quality(settings: AttentionSettings) -> pd.DataFrame:
    """Rows of the `attention` table that do not depend on the time of day.

    `forward_error` and `gradient_error` are against float64, `finite_x<scale>` is the share of
    finite outputs, `mask_hit_rate` and `mask_bytes` are of the mask cache after requests of random
    lengths, `mask_bytes_by_length` of the sources' cache after the same.
    """
    rows = [*_errors(settings), *_finite(settings), *_mask_cache(settings)]
    return pd.DataFrame(rows, columns=ATTENTION_COLUMNS)


def _errors(settings: AttentionSettings) -> Iterator[dict[str, Any]]:
    for dtype, length in cells(settings, settings.backward_lengths):
        truth = _outcome(settings, layer(settings, dtype).double(), length, dtype, backward=True)
        for backward, measure in ((False, "forward_error"), (True, "gradient_error")):
            for backend, why in refusals(settings, dtype, backward).items():
                if why:
                    yield missing(backend, length, dtype, measure, why)
                    continue
                module = layer(settings, dtype, backend)
                try:
                    found = _outcome(settings, module, length, dtype, backward)
                except Exception as error:
                    log.exception("%s failed at %d tokens", backend, length)
                    status, why = failure(error)
                    yield missing(backend, length, dtype, measure, why, status)
                    continue
                # The output comes first, the gradients after it.
                part = slice(1, None) if backward else slice(1)
                largest = max(map(_relative, found[part], truth[part]))
                yield row(backend, length, dtype, measure, exact(largest), "ratio")


def _outcome(
    settings: AttentionSettings, module: SelfAttention, length: int, dtype: str, backward: bool
) -> list[torch.Tensor]:
    """Output, and gradients of input and weights, of two rows of which one begins with padding."""
    x = inputs(settings, length, dtype, batch=2).to(module.query.weight.dtype)
    padding = torch.ones(2, length, dtype=torch.bool, device=x.device)
    padding[1, : length // 2] = False
    if not backward:
        with torch.no_grad():
            return [module(x, padding)]
    output = module(x.requires_grad_(), padding)
    toward = inputs(settings, length + 1, dtype, batch=2)[:, :length].to(output.dtype)
    return [output.detach(), *torch.autograd.grad(output, [x, *module.parameters()], toward)]


def _relative(found: torch.Tensor, truth: torch.Tensor) -> float:
    """Largest error, in units of the largest true value."""
    return float((found.double() - truth).abs().max() / truth.abs().max())


@torch.no_grad()
def _finite(settings: AttentionSettings) -> Iterator[dict[str, Any]]:
    length = settings.scale_length
    for dtype in settings.backends:
        module = layer(settings, dtype)
        for scale in settings.input_scales:
            measure, x = f"finite_x{scale:g}", scale * inputs(settings, length, dtype)
            for backend, why in (refusals(settings, dtype, backward=False) | {PLAIN: ""}).items():
                if why:
                    yield missing(backend, length, dtype, measure, why)
                    continue
                try:
                    attended = BACKENDS_AND_CONTROL[backend](*module.project(x), None)
                    share = float(module.join(attended).isfinite().double().mean())
                except Exception as error:
                    log.exception("%s failed at %d tokens", backend, length)
                    status, why = failure(error)
                    yield missing(backend, length, dtype, measure, why, status)
                    continue
                yield row(backend, length, dtype, measure, exact(share), "share")


def _mask_cache(settings: AttentionSettings) -> Iterator[dict[str, Any]]:
    draws = np.random.default_rng(0).choice(settings.lengths, settings.mask_requests)
    masks, device = CausalMaskCache(settings.mask_bytes), torch.device(settings.device)
    for length in map(int, draws):
        masks.get(length, length, torch.float32, device)
    one_each = sum(length**2 for length in set(map(int, draws))) * torch.float32.itemsize
    for measure, value, unit in (
        ("mask_hit_rate", masks.hit_rate, "share"),
        ("mask_bytes", masks.bytes, "bytes"),
        ("mask_bytes_by_length", one_each, "bytes"),
    ):
        longest = max(settings.lengths)
        yield row("reference", longest, "float32", measure, exact(float(value)), unit)
