"""What a decode step costs beside time, and how fast this machine reads memory."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import nn
from torch.profiler import ProfilerActivity, profile
from transformers import PreTrainedModel

from kvpareto.measure.kernels import operators
from kvpareto.measure.latency import TimedDecoder, now
from kvpareto.measure.memory import analytic_entry_bytes, peak_allocation
from kvpareto.models import families

_PROFILED_STEPS = 8

_REPEATS = 20
_CPU_BUFFER_BYTES = 2**29
"""At least four times the last-level cache of a server."""
_GPU_BUFFER_BYTES = 2**31

_LAUNCHES = ("cudaLaunchKernel", "cuLaunchKernel", "cudaGraphLaunch")


class Cost(NamedTuple):
    """What a decode step costs beside time; None: not known.

    Attributes:
        read_bytes: weights and cached entries that it has to read, each once.
        peak_bytes: weights, cache, and what a step allocates beyond them.
        launches: operators, or kernels, that the host starts.
        capture_s: seconds that capturing its CUDA graph took.
    """

    read_bytes: int | None = None
    peak_bytes: int | None = None
    launches: float | None = None
    capture_s: float | None = None


def step_cost(decoder: TimedDecoder, computing: nn.Module, attended: int) -> Cost:
    """The cost of a step on the model's own modules.

    Args:
        decoder: started.
        computing: what holds the weights.
        attended: cached entries that a step reads.
    """
    device = decoder.ids.device
    kv_bytes = cache_bytes(decoder.stream.model, attended)
    extra = peak_allocation(decoder.token, _PROFILED_STEPS, device)
    held = sum(_weights(computing).values())
    return Cost(
        read_bytes=_read_weights(computing) + kv_bytes,
        peak_bytes=held + kv_bytes + extra,
        launches=_launches(decoder),
        capture_s=getattr(decoder.stream, "capture_s", None),
    )


def cache_bytes(model: PreTrainedModel, entries: int) -> int:
    """Bytes of keys and values of so many entries in every layer."""
    return entries * families.layer_count(model) * analytic_entry_bytes(model)


def _launches(decoder: TimedDecoder) -> float:
    """What the host starts per token: kernels and graphs on CUDA, operators on a CPU.

    On a CPU the kernels that a compiled step has of its own are no operators; they are counted
    where they were made.
    """
    device = decoder.ids.device
    if device.type != "cuda":
        own = getattr(decoder.stream, "own_kernels", 0)
        calls = operators(decoder.token, _PROFILED_STEPS, device)["calls"].sum()
        return float(calls) + own
    with profile(activities=[ProfilerActivity.CPU, ProfilerActivity.CUDA]) as recorded:
        for _ in range(_PROFILED_STEPS):
            decoder.token()
    started = [event for event in recorded.events() if event.name.startswith(_LAUNCHES)]
    return len(started) / _PROFILED_STEPS


def _read_weights(module: nn.Module) -> int:
    """Bytes of weights that a token reads: of an input embedding one row, so its table counts only
    where it is the output layer's as well."""
    tables = {id(part.weight) for part in module.modules() if isinstance(part, nn.Embedding)}
    products = {id(part.weight) for part in module.modules() if isinstance(part, nn.Linear)}
    return sum(size for key, size in _weights(module).items() if key not in tables - products)


def _weights(module: nn.Module) -> dict[int, int]:
    """Bytes of every parameter, each once."""
    return {id(part): _stored_bytes(part) for part in module.parameters()}


def _stored_bytes(tensor: torch.Tensor) -> int:
    """Of a quantised tensor those of its parts, scales included."""
    if not hasattr(tensor, "__tensor_flatten__"):
        return tensor.nbytes
    names, _ = tensor.__tensor_flatten__()
    return sum(_stored_bytes(getattr(tensor, name)) for name in names)


def read_bandwidth(device: torch.device) -> float:
    """Bytes per second: the best of 20 passes over a buffer that no cache holds.

    On a CPU a sum, which only reads; on CUDA a copy, whose bytes count twice.
    """
    if device.type == "cuda":
        source = torch.zeros(_GPU_BUFFER_BYTES, dtype=torch.uint8, device=device)
        target = torch.empty_like(source)
        return 2 * source.nbytes / _best(lambda: target.copy_(source), device)
    values = torch.ones(_CPU_BUFFER_BYTES // 8, dtype=torch.int64)
    return values.nbytes / _best(values.sum, device)


def _best(work: Callable[[], object], device: torch.device) -> float:
    seconds = []
    for _ in range(_REPEATS):
        begin = now(device)
        work()
        seconds.append(now(device) - begin)
    return min(seconds)
