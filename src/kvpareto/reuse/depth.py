"""A deeper model with random weights, to time reuse where layers are many.

A check at layer 1 costs two full layers: half of a model of four layers, a sixteenth of one of
thirty-two. Time does not depend on what the weights are, so random ones will do; quality does, and
none is measured.
"""

from __future__ import annotations

from pathlib import Path

import torch
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedModel

from kvpareto.cache.store import ChunkStore, Identity
from kvpareto.models.families import blocks
from kvpareto.models.load import device_of
from kvpareto.records import digest
from kvpareto.reuse.bench import Bench, made_by
from kvpareto.reuse.precompute import SegmentSource
from kvpareto.reuse_settings import DepthSettings
from kvpareto.text.tasks.item import Item

_ITEMS = 2


def deep_bench(settings: DepthSettings, folder: Path) -> tuple[Bench, list[Item]]:
    """A random model of the shape in `settings`, with a store at `folder`, and prompts for it.

    The store is named by shape and seed, so another shape never finds these entries.
    """
    config = AutoConfig.for_model(
        settings.family, max_position_embeddings=settings.tokens + 64, **settings.shape
    )
    torch.manual_seed(0)
    model: PreTrainedModel = AutoModelForCausalLM.from_config(
        config, dtype=getattr(torch, settings.dtype)
    )
    model.to(device_of(settings.device)).eval()  # type: ignore[arg-type]
    identity = Identity(
        model=f"random {digest(settings.model_dump(mode='json'), length=16)} {made_by(model)}",
        tokenizer="none",
        dtype=settings.dtype,
        rope=repr(config.rope_parameters),
        prefix=(),
        surprisal=True,
    )
    source = SegmentSource(blocks(model), ChunkStore(folder), identity, "bos", bos=0)
    return Bench(model, None, source), [
        _item(settings, config.vocab_size, seed) for seed in range(_ITEMS)
    ]


def _item(settings: DepthSettings, vocabulary: int, seed: int) -> Item:
    draw = torch.Generator().manual_seed(seed)

    def some(count: int) -> tuple[int, ...]:
        return tuple(torch.randint(1, vocabulary, (count,), generator=draw).tolist())

    document = settings.tokens - 1 - settings.question_tokens
    sizes = [
        min(settings.chunk_tokens, document - start)
        for start in range(0, document, settings.chunk_tokens)
    ]
    return Item(
        id=f"random-{seed}",
        prefix=(0,),
        chunks=tuple(some(size) for size in sizes),
        question=some(settings.question_tokens),
        answers=(),
    )
