"""Prompt-lookup decoding under eviction: guess from the context, verify several tokens at once."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from kvpareto.engine.engine import Bench, TorchEngine

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from kvpareto.engine.streams.lookup import LookupStream


@dataclass(frozen=True)
class PromptLookup(TorchEngine):
    """
    Attributes:
        ngram: tokens that an earlier place has to share with the newest ones.
        guesses: tokens that are guessed at once, at most.
    """

    ngram: int = 2
    guesses: int = 4

    symbols: ClassVar[dict[str, str]] = {"ngram": "n", "guesses": "k"}

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.ngram < 1 or self.guesses < 1:
            raise ValueError(f"ngram {self.ngram} and guesses {self.guesses} must be positive")

    @property
    def exact(self) -> bool:
        return self.dtype == "float32"

    def stream(self, model: PreTrainedModel, bench: Bench) -> LookupStream:
        from kvpareto.engine.streams.lookup import LookupStream

        return LookupStream(model, bench.cap, bench.sinks, self.ngram, self.guesses)
