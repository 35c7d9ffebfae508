"""Where a step's operators go: how many of them run, and for how long, by class.

On a CPU an operator call is counted where the work is asked for (`addmm`, and not the copy inside
it), and views, which compute nothing, are not counted. On CUDA every kernel launch is counted, and
time is the device's.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from functools import cache
from typing import Any

import pandas as pd
import torch
from torch import nn
from torch.profiler import ProfilerActivity, profile, record_function

_PARTS = ("mlp", "norm", "cache")
_LAYER = "layer"

CLASSES = (*_PARTS, "attention", "matmul", "elementwise", "other", "outside")
"""Everything that an MLP, a normalisation or the cache does is theirs. The rest of a decoder layer
goes by operator; `matmul` is the projections of attention. `outside` of the layers: embedding,
positions, mask, head."""

_MATMUL = {"addmm", "mm", "bmm", "baddbmm", "mv", "addmv", "dot"}


@contextmanager
def labelled(modules: Iterable[tuple[str, nn.Module]]) -> Iterator[None]:
    """Record everything that these (label, module) compute under their label while it lasts."""
    open_ranges: list[record_function] = []

    def enter(name: str) -> Callable[..., None]:
        def hook(*_: object) -> None:
            open_ranges.append(record_function(name))
            open_ranges[-1].__enter__()

        return hook

    def leave(*_: object) -> None:
        open_ranges.pop().__exit__(None, None, None)

    with ExitStack() as hooks:
        for name, module in modules:
            hooks.callback(module.register_forward_pre_hook(enter(name)).remove)
            hooks.callback(module.register_forward_hook(leave).remove)
        yield


def parts_of(model: nn.Module) -> list[tuple[str, nn.Module]]:
    """The model's layers, MLP and normalisation modules, as (label, module), by their names.

    Raises:
        ValueError: one of the three is not found.
    """
    named = []
    for name, module in model.named_modules():
        kind = type(module).__name__
        if name.endswith("mlp"):
            named.append(("mlp", module))
        elif kind.endswith("Norm"):
            named.append(("norm", module))
        elif kind.endswith("Layer"):
            named.append((_LAYER, module))
    missing = sorted({"mlp", "norm", _LAYER} - {label for label, _ in named})
    if missing:
        raise ValueError(f"{type(model).__name__} has no module known as {', '.join(missing)}")
    return named


def operators(step: Callable[[], object], steps: int, device: torch.device) -> pd.DataFrame:
    """Profile `steps` calls of `step`.

    Returns:
        Index `CLASSES`; `calls` per step (on CUDA kernel launches) and `time_us` per step (the
        operators' own time, on CUDA the kernels').
    """
    on_cuda = device.type == "cuda"
    activities = [ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if on_cuda else [])]
    with profile(activities=activities) as recorded:
        for _ in range(steps):
            step()
        if on_cuda:
            torch.cuda.synchronize(device)
    totals = {kind: [0.0, 0.0] for kind in CLASSES}
    for event in recorded.events():
        if event.device_type.name != "CPU":
            continue
        outermost, label = _place(event)
        if label == _LAYER:
            label = _kind(outermost.name) if outermost else "other"
        total = totals[label or "outside"]
        if on_cuda:
            total[0] += len(event.kernels)
            total[1] += sum(kernel.duration for kernel in event.kernels)
        elif event.name.startswith("aten::"):
            total[0] += outermost is event
            total[1] += event.self_cpu_time_total
    table = pd.DataFrame.from_dict(totals, orient="index", columns=["calls", "time_us"])
    return table / steps


def _place(event: Any) -> tuple[Any, str | None]:
    """The outermost operator that computes at or above an event, and the innermost label."""
    outermost = label = None
    while event is not None:
        if event.name.startswith("aten::") and _computes(event.name):
            outermost = event
        elif label is None and event.name in (*_PARTS, _LAYER):
            label = event.name
        event = event.cpu_parent
    return outermost, label


@cache
def _computes(name: str) -> bool:
    """Whether an operator does work itself: no view, no allocation, no wrapper around others."""
    operator = _operator(name)
    if operator is None or name.startswith(("aten::empty", "aten::resize", "aten::_unsafe_view")):
        return False
    wraps = operator.has_kernel_for_dispatch_key(torch._C.DispatchKey.CompositeImplicitAutograd)
    return not (wraps or operator.is_view)


@cache
def _kind(name: str) -> str:
    """Class of an operator by its name."""
    short = name.removeprefix("aten::")
    if "scaled_dot_product" in short or "softmax" in short:
        return "attention"
    if short in _MATMUL:
        return "matmul"
    operator = _operator(name)
    return "elementwise" if operator and torch.Tag.pointwise in operator.tags else "other"


def _operator(name: str) -> Any:
    """The first overload of `aten::<name>`, which stands for all of them; None: there is none."""
    packet = getattr(torch.ops.aten, name.removeprefix("aten::"), None)
    return packet and getattr(packet, packet.overloads()[0])
