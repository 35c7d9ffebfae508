"""Memory in bytes: the peak of a piece of work, and what a model and a cache hold."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch.profiler import ProfilerActivity, profile, record_function
from transformers import Cache, PreTrainedModel

from kvpareto.models import families

_BEGIN = "kvpareto: begin"


def peak_allocation(
    step: Callable[[], object],
    steps: int,
    device: torch.device,
    before: Callable[[], object] = lambda: None,
) -> int:
    """Most bytes that `steps` calls of `step` held at one time beyond those held before them.

    On CUDA from the allocator; on a CPU by adding up the profiler's allocation events, since the
    process's resident size says nothing about a few megabytes. Those events do not tell when memory
    is freed that was there before the profile, so what `step` frees has to be made in `before`.

    Args:
        before: called first, and not measured.
    """
    if device.type == "cuda":
        before()
        torch.cuda.synchronize(device)
        held = torch.cuda.memory_allocated(device)
        torch.cuda.reset_peak_memory_stats(device)
        for _ in range(steps):
            step()
        torch.cuda.synchronize(device)
        return torch.cuda.max_memory_allocated(device) - held
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as recorded:
        before()
        with record_function(_BEGIN):
            pass
        for _ in range(steps):
            step()
    return _peak(recorded.profiler.kineto_results.events())


def _peak(events: Iterable[Any]) -> int:
    """Largest sum of allocations, less what is freed, from the mark `_BEGIN` on."""
    held = peak = 0
    for event in sorted(events, key=lambda event: event.start_ns()):
        if event.name() == _BEGIN:
            held = peak = 0
        elif event.name() == "[memory]":
            held += event.nbytes()
            peak = max(peak, held)
    return peak


def weight_bytes(model: PreTrainedModel) -> int:
    """Memory of the model's parameters; tied ones are held, and counted, once."""
    return sum(_storages(model.parameters()).values())


def cache_bytes(cache: Cache) -> tuple[int, int]:
    """Memory of a cache that has been written to.

    Returns:
        Buffers of keys and values, unused slots included; and what the layers hold beside them
        (keys as they arrived, positions, tables of slots). A staging buffer is in neither.
    """
    own: dict[int, int] = {}
    every: dict[int, int] = {}
    layers: list[Any] = cache.layers
    for layer in layers:
        own |= _storages([layer.keys, layer.values])
        every |= _storages(x for x in vars(layer).values() if isinstance(x, torch.Tensor))
    return sum(own.values()), sum((own | every).values()) - sum(own.values())


def analytic_entry_bytes(model: PreTrainedModel) -> int:
    """Bytes of one entry's key and value in one layer, from the model's shapes alone."""
    return 2 * families.kv_heads(model) * families.head_dim(model) * model.dtype.itemsize


def _storages(tensors: Iterable[torch.Tensor]) -> dict[int, int]:
    """Address and size of the memory behind tensors, each once: views share it."""
    found = (tensor.untyped_storage() for tensor in tensors)
    return {storage.data_ptr(): storage.nbytes() for storage in found}
