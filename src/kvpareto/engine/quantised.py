"""Weights in 8 or 4 bits, by torchao."""

from __future__ import annotations

import copy
import importlib.util
from typing import Any

import torch
from torch import nn

from kvpareto.engine.options import Quantised, Scope
from kvpareto.jobs import RefusedError, UnavailableError

_GROUP = 32
"""Weights that share one scale under int4."""


def quantised(module: nn.Module, kind: Quantised, scope: Scope) -> nn.Module:
    """A copy of a model whose matrices are quantised; it pays when it is compiled.

    Raises:
        UnavailableError: torchao is not installed.
        RefusedError: nothing is in the scope.
    """
    if importlib.util.find_spec("torchao") is None:
        raise UnavailableError("torchao is not installed: pip install -c envs/constraints.txt -e .")
    # Its import takes seconds and only these engines want it.
    from torchao.quantization import (
        Int8DynamicActivationInt8WeightConfig,
        Int8WeightOnlyConfig,
        IntxWeightOnlyConfig,
        PerGroup,
        quantize_,
    )

    configs: dict[str, Any] = {
        "int8": lambda: Int8WeightOnlyConfig(version=2),
        "int8_dynamic": lambda: Int8DynamicActivationInt8WeightConfig(version=2),
        "int4": lambda: IntxWeightOnlyConfig(
            weight_dtype=torch.int4,  # type: ignore[attr-defined]
            granularity=PerGroup(_GROUP),
        ),
    }

    def chosen(part: nn.Module, name: str) -> bool:
        return isinstance(part, nn.Linear) and (scope == "all" or "mlp" in name)

    if not any(chosen(part, name) for name, part in module.named_modules()):
        raise RefusedError(f"{type(module).__name__} has no matrix in scope {scope!r}")
    own = copy.deepcopy(module)
    quantize_(own, configs[kind](), filter_fn=chosen)
    return own
