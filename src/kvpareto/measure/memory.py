"""Peak memory of a piece of work, beyond what was allocated before it."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch.profiler import ProfilerActivity, profile


def peak_allocation(step: Callable[[], object], steps: int, device: torch.device) -> int:
    """Most bytes that `steps` calls of `step` held at one time beyond those held before.

    On CUDA from the allocator; on a CPU by adding up the profiler's allocation events, since the
    process's resident size says nothing about a few megabytes.
    """
    if device.type == "cuda":
        torch.cuda.synchronize()
        before = torch.cuda.memory_allocated()
        torch.cuda.reset_peak_memory_stats()
        for _ in range(steps):
            step()
        torch.cuda.synchronize()
        return torch.cuda.max_memory_allocated() - before
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as recorded:
        for _ in range(steps):
            step()
    held = peak = 0
    events = recorded.profiler.kineto_results.events()
    for event in sorted(events, key=lambda event: event.start_ns()):
        if event.name() == "[memory]":
            held += event.nbytes()
            peak = max(peak, held)
    return peak
