"""Tiny models with random weights, one per family; large weights, so that mistakes show."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

import torch
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedModel

from kvpareto.cache.store import ChunkStore, Identity
from kvpareto.models.families import blocks
from kvpareto.reuse.bench import Bench
from kvpareto.reuse.precompute import PrefixMode, SegmentSource
from kvpareto.text.tasks.item import Item

VOCAB = 97
CONTEXT = 64

SHAPES = {
    "gpt_neox": {
        "num_attention_heads": 4,
        "rope_parameters": {
            "rope_type": "default",
            "rope_theta": 10000.0,
            "partial_rotary_factor": 0.25,
        },
    },
    "llama": {"num_attention_heads": 4, "num_key_value_heads": 2},
    "mistral": {"num_attention_heads": 4, "num_key_value_heads": 2, "sliding_window": None},
    "qwen2": {"num_attention_heads": 4, "num_key_value_heads": 2},
    "qwen3": {"num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 16},
}


VARIANTS: dict[str, tuple[str, dict[str, Any]]] = {
    "llama": ("llama", {}),
    "llama-llama3": (
        "llama",
        {
            "rope_parameters": {
                "rope_type": "llama3",
                "rope_theta": 10000.0,
                "factor": 8.0,
                "low_freq_factor": 1.0,
                "high_freq_factor": 4.0,
                "original_max_position_embeddings": 16,
            }
        },
    ),
    "llama-yarn": (
        "llama",
        {
            "rope_parameters": {
                "rope_type": "yarn",
                "rope_theta": 10000.0,
                "factor": 4.0,
                "original_max_position_embeddings": 16,
            }
        },
    ),
    "mistral-window": ("mistral", {"sliding_window": 12}),
    "qwen2": ("qwen2", {}),
    "qwen3": ("qwen3", {}),
    "qwen3-window": (
        "qwen3",
        {"use_sliding_window": True, "sliding_window": 12, "max_window_layers": 2},
    ),
    "gpt_neox": ("gpt_neox", {}),
}
"""All that reuse supports: family, and what differs from its shape."""


@cache
def tiny_model(family: str) -> PreTrainedModel:
    return _model(family, num_hidden_layers=3, **SHAPES[family])


@cache
def tiny_variant(name: str) -> PreTrainedModel:
    """A model of four layers whose biases and norms are not those of a fresh model: 0 and 1."""
    family, changes = VARIANTS[name]
    model = _model(family, num_hidden_layers=4, **SHAPES[family] | changes)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() == 1:
                parameter += 0.2 * torch.randn_like(parameter)
    return model


def _model(family: str, **options: Any) -> PreTrainedModel:
    torch.manual_seed(0)
    config = AutoConfig.for_model(
        family,
        vocab_size=VOCAB,
        hidden_size=64,
        intermediate_size=96,
        max_position_embeddings=CONTEXT,
        initializer_range=0.2,
        bos_token_id=0,
        eos_token_id=1,
        **options,
    )
    return AutoModelForCausalLM.from_config(config, attn_implementation="sdpa").eval()


def tiny_item(
    prefix: int = 4, chunks: tuple[int, ...] = (9, 12, 7), question: int = 6, seed: int = 0
) -> Item:
    """A prompt of random tokens: BOS and `prefix` - 1 others, chunks and question so long."""
    lengths = [prefix - 1, *chunks, question]
    ids = torch.randint(2, VOCAB, (sum(lengths),), generator=torch.Generator().manual_seed(seed))
    start, *middle, end = (tuple(part.tolist()) for part in ids.split(lengths))
    return Item(f"tiny-{seed}", (0, *start), tuple(middle), end, ("",))


def tiny_source(
    model: PreTrainedModel, folder: Path, mode: PrefixMode = "bos", bos: int | None = 0
) -> SegmentSource:
    """A model's chunk store in `folder`, with losses."""
    identity = Identity(model.config.model_type, "tokenizer", "float32", "rope", (), True)
    return SegmentSource(blocks(model), ChunkStore(folder), identity, mode, bos)


def random_ids(rows: int, tokens: int, seed: int = 0) -> torch.Tensor:
    return torch.randint(0, VOCAB, (rows, tokens), generator=torch.Generator().manual_seed(seed))


class Numbers:
    """A tokenizer whose texts are the tokens' numbers."""

    def __len__(self) -> int:
        return VOCAB

    def batch_decode(self, rows: list[list[int]]) -> list[str]:
        return [self.decode(row) for row in rows]

    def decode(self, tokens: list[int], skip_special_tokens: bool = True) -> str:
        return "".join(f" {token}." for token in tokens)


def tiny_bench(folder: Path, name: str = "llama") -> Bench:
    """A tiny variant ready for reuse, its store in `folder`."""
    model = tiny_variant(name)
    return Bench(model, Numbers(), tiny_source(model, folder))
