"""Prompt-lookup decoding under eviction: guess from the context, verify several tokens at once.

The tokens that followed the last occurrence of the newest n-gram are the guess; one forward pass
computes the next token after each of them, as if each had been decoded alone, evictions included.
A document is given here, so a guess is right where the document goes on with it.

Source: Saxena, Prompt Lookup Decoding, 2023, https://github.com/apoorvumang/prompt-lookup-decoding;
Leviathan et al., Fast Inference from Transformers via Speculative Decoding, ICML 2023.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import nn
from transformers import AttentionInterface, AttentionMaskInterface, PreTrainedModel
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

from kvpareto.eviction.policies.start_recent import StartRecent
from kvpareto.eviction.policy import sinks_and_recent
from kvpareto.measure.block import Block, attend_block
from kvpareto.measure.stream import Stream, new_cache

LOOKUP_ATTENTION = "kvpareto_lookup"


def attend_guesses(
    module: nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    *,
    block: Block | None = None,
    **options: Any,
) -> tuple[torch.Tensor, None]:
    """`attend_block` where several tokens are verified, and the models' `sdpa` anywhere else."""
    if block is not None:
        return attend_block(module, query, key, value, attention_mask, block=block, **options)
    output, _ = sdpa_attention_forward(module, query, key, value, attention_mask, **options)
    return output, None


AttentionInterface.register(LOOKUP_ATTENTION, attend_guesses)
AttentionMaskInterface.register(LOOKUP_ATTENTION, sdpa_mask)


def guess(tokens: list[int], ngram: int, most: int) -> list[int]:
    """What followed the last earlier occurrence of the last `ngram` tokens: `most` at most."""
    newest = tokens[-ngram:]
    for start in range(len(tokens) - ngram - 1, -1, -1):
        if tokens[start : start + ngram] == newest:
            return tokens[start + ngram : start + ngram + most]
    return []


class LookupStream:
    """Strict streaming, whose forward passes take a token and the guesses behind it.

    Attributes:
        passes: forward passes since the prefill.
        tokens: tokens decoded since the prefill.
    """

    attention = LOOKUP_ATTENTION

    def __init__(self, model: PreTrainedModel, cap: int, sinks: int, ngram: int, most: int) -> None:
        """
        Args:
            most: guesses of a pass, at most.
        """
        self.model = model
        self.ngram, self.most = ngram, most
        self.cap, self.sinks = cap, sinks
        policy = StartRecent(capacity=cap - 1, sinks=sinks)
        self.stream = Stream(
            model, policy, new_cache(model, "soft_ring", policy, cap + most), checked=False
        )
        self.passes = self.tokens = 0
        self._seen: list[int] = []
        self._guessed: list[tuple[int, torch.Tensor]] = []

    @property
    def cache(self) -> Any:
        return self.stream.cache

    def prefill(self, ids: torch.Tensor) -> torch.Tensor:
        """The first cap - 1 tokens, [1, tokens]; logits of the last one, [1, vocab]."""
        self._seen, self._guessed = ids[0].tolist(), []
        return self.stream.prefill(ids)

    def decode(self, ids: torch.Tensor) -> torch.Tensor:
        """One token, [1, 1]; logits, [1, vocab]: of a guess that was right, without a pass."""
        token = int(ids)
        self.tokens += 1
        self._seen = [*self._seen, token][-self.cap :]
        if self._guessed and self._guessed[0][0] == token:
            return self._guessed.pop(0)[1]
        self._settle()
        guesses = guess(self._seen, self.ngram, self.most)
        new = torch.tensor([[token, *guesses]], device=ids.device)
        # Each token of a pass finds one entry more gone than the token before it.
        gone = torch.arange(new.shape[1]) if guesses else None
        logits = self.stream.forward(new, gone)
        self.passes += 1
        self._guessed = [(one, logits[:, place]) for place, one in enumerate(guesses, start=1)]
        return logits[:, 0]

    def _settle(self) -> None:
        """Forget guesses that were wrong, and evict for the tokens that were taken."""
        layers: list[Any] = self.stream.cache.layers
        for layer in layers:
            layer.forget_newest(len(self._guessed))
        drop = layers[0].length - (self.cap - 1)
        if drop > 0:
            keep = sinks_and_recent(layers[0].length, self.sinks, drop)
            self.stream.cache.evict([keep] * len(layers))
