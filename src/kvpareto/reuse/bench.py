"""What every reuse job has in common: a model taken apart, its tokenizer, its store."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from transformers import PreTrainedModel

from kvpareto.cache.store import ChunkStore, Identity, Segment
from kvpareto.model_settings import ModelSettings, is_local
from kvpareto.models.families import Blocks, blocks
from kvpareto.models.load import load_model, load_tokenizer
from kvpareto.provenance import closure
from kvpareto.records import digest, file_sha256
from kvpareto.reuse.fuse import assemble
from kvpareto.reuse.precompute import PrefixMode, SegmentSource
from kvpareto.reuse_settings import StoreSettings
from kvpareto.text.tasks.item import Item


@dataclass(frozen=True)
class Bench:
    """A model ready for reuse."""

    model: PreTrainedModel
    tokenizer: Any
    source: SegmentSource
    _ends: dict[tuple[str, ...], frozenset[int]] = field(default_factory=dict, init=False)

    @property
    def blocks(self) -> Blocks:
        return self.source.blocks

    def stored(self, item: Item, *, question_alone: bool = False) -> Segment:
        """An item's stored keys and values, on the model's device.

        Args:
            question_alone: encode the question alone as well; else its places are zero.
        """
        segments = self.source.segments(item)
        if question_alone:
            segments.append(self.source.alone(item))
        return assemble(segments, len(item.ids)).to(self.model.device)

    @cached_property
    def eos(self) -> frozenset[int]:
        """Tokens that end every answer."""
        eos = self.model.generation_config.eos_token_id if self.model.generation_config else None
        return frozenset([eos] if isinstance(eos, int) else eos or [])

    def ends(self, stop: tuple[str, ...]) -> frozenset[int]:
        """Tokens that end an answer: those of the model, and all that hold a stop text."""
        if stop not in self._ends:
            texts = self._texts if stop else []
            holding = {i for i, text in enumerate(texts) if any(one in text for one in stop)}
            self._ends[stop] = self.eos | holding
        return self._ends[stop]

    @cached_property
    def _texts(self) -> list[str]:
        return list(self.tokenizer.batch_decode([[i] for i in range(len(self.tokenizer))]))

    def text(self, tokens: list[int], stop: tuple[str, ...]) -> str:
        """An answer as text, cut at the first stop text."""
        text: str = self.tokenizer.decode(tokens, skip_special_tokens=True)
        return text[: min((at for one in stop if (at := text.find(one)) >= 0), default=len(text))]


def open_bench(settings: ModelSettings, store: StoreSettings, folder: Path) -> Bench:
    """Load a model and its tokenizer, and open its store.

    Raises:
        ModelError, UnsupportedModelError: as `load_model` and `blocks`.
    """
    model, tokenizer = load_model(settings), load_tokenizer(settings)
    return Bench(model, tokenizer, source_of(model, tokenizer, settings, store, folder))


def made_by(model: PreTrainedModel) -> str:
    """Digest of a model's configuration and of the code that encodes: both make other entries."""
    config = model.config.to_dict()
    for name in ("_name_or_path", "transformers_version"):
        config.pop(name, None)
    code = closure(None, "kvpareto.reuse.precompute").values()
    return digest([repr(sorted(config.items())), *map(file_sha256, code)], length=16)


def source_of(
    model: PreTrainedModel,
    tokenizer: Any,
    settings: ModelSettings,
    store: StoreSettings,
    folder: Path,
) -> SegmentSource:
    """The source of a loaded model."""
    files = sorted(Path(settings.path).glob("*.safetensors")) if is_local(settings.path) else []
    weights = digest([file_sha256(file) for file in files], length=16) if files else ""
    backend = getattr(tokenizer, "backend_tokenizer", None)
    spelled = (
        backend.to_str() if backend is not None else repr(sorted(tokenizer.get_vocab().items()))
    )
    identity = Identity(
        model=f"{settings.path} {settings.revision} {weights} {made_by(model)}",
        tokenizer=hashlib.sha256(spelled.encode()).hexdigest(),
        dtype=settings.dtype,
        rope=repr(getattr(model.config, "rope_parameters", None)),
        prefix=(),
        surprisal=store.surprisal,
    )
    mode: PrefixMode = store.prefix_mode
    return SegmentSource(blocks(model), ChunkStore(folder), identity, mode, tokenizer.bos_token_id)
