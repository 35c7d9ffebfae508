"""The models that engines are timed on: the study's own, or random weights of a known shape."""

from __future__ import annotations

import copy
from functools import cache
from typing import Any

import torch
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedModel

from kvpareto.decode_settings import ShapeSettings
from kvpareto.engine.engine import Bench
from kvpareto.engine.oracle import Oracle
from kvpareto.model_settings import Dtype, ModelSettings
from kvpareto.models.load import load_model

_FURTHER_TOKENS = 2048
"""Random tokens behind a full cache; a timed engine begins anew where they end."""


class Weights:
    """A shape's weights in every dtype that is asked for: rounded from one and the same."""

    def __init__(self, model: PreTrainedModel) -> None:
        self._first = model
        self._of = {model.dtype: model}

    def __call__(self, dtype: Dtype) -> PreTrainedModel:
        wanted: torch.dtype = getattr(torch, dtype)
        if wanted not in self._of:
            rounded: Any = copy.deepcopy(self._first)
            self._of[wanted] = rounded.to(wanted)
        return self._of[wanted]


def random_model(
    config: dict[str, Any], dtype: Dtype = "float32", device: str = "cpu"
) -> PreTrainedModel:
    """A model with random weights, the same at every call.

    Raises:
        ValueError: no such model type.
    """
    torch.manual_seed(0)
    with torch.device(device):
        made: Any = AutoModelForCausalLM.from_config(
            AutoConfig.for_model(**config),
            dtype=getattr(torch, dtype),
            attn_implementation="sdpa",
        )
    model: PreTrainedModel = made.eval()
    return model


def shape_model(shape: ShapeSettings, model: ModelSettings | None) -> PreTrainedModel:
    """A shape's model: the study's model that it names, or random weights."""
    if model is not None:
        return load_model(model)
    assert shape.config is not None
    return random_model(shape.config)


def random_ids(model: PreTrainedModel, cap: int) -> torch.Tensor:
    """A document of random tokens, [1, tokens], long enough to time engines on."""
    draw = torch.Generator().manual_seed(cap)
    vocab = int(model.config.vocab_size)
    ids = torch.randint(vocab, (1, cap + _FURTHER_TOKENS), generator=draw)
    return ids.to(model.device)


def bench_of(
    model: PreTrainedModel,
    ids: torch.Tensor,
    *,
    cap: int,
    sinks: int,
    threads: int,
    block_tokens: int,
    gguf: dict[str, str],
) -> Bench:
    """What all engines of a comparison share.

    Args:
        gguf: files of the weights, by type.
    """
    weights = Weights(model)
    ids = ids.to(model.device)

    @cache
    def oracle(dtype: Dtype) -> Oracle:
        return Oracle(weights(dtype), ids, cap, sinks)

    return Bench(weights, ids, cap, sinks, threads, block_tokens, oracle, gguf)
