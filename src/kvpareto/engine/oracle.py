"""The oracle of strict streaming, and how far another computation is from it.

It keeps raw keys and rotates every one of them for its place in the cache at every step
(`ShiftedStream`): the definition of StreamingLLM's positions, with nothing clever in it.
"""

from __future__ import annotations

from functools import cached_property
from typing import Any, NamedTuple

import torch
from torch.nn.functional import cross_entropy
from transformers import PreTrainedModel

from kvpareto.measure.dynamic import ShiftedStream
from kvpareto.measure.fidelity import kl_by_token
from kvpareto.measure.latency import Decoding, attention_of


def followed(stream: Decoding, ids: torch.Tensor, prefill: int) -> torch.Tensor:
    """Logits of a stream after each of `ids`, [1, tokens], behind a prefill: [decoded, vocab]."""
    with torch.inference_mode(), attention_of(stream):
        stream.prefill(ids[:, :prefill])
        parts = ids[:, prefill:].split(1, dim=1)
        return torch.cat([stream.decode(part).float() for part in parts])


class Oracle:
    """Strict streaming of one document under one model."""

    def __init__(self, model: PreTrainedModel, ids: torch.Tensor, cap: int, sinks: int) -> None:
        """
        Args:
            ids: [1, tokens]; the first cap - 1 are the prefill.
        """
        self.model = model
        self.ids = ids
        self.cap = cap
        self.sinks = sinks

    @property
    def prefill(self) -> int:
        """Tokens that are processed at once."""
        return self.cap - 1

    @cached_property
    def logits(self) -> torch.Tensor:
        """After each decoded token of the document, [decoded, vocab]."""
        return self.follow(self.ids)

    def follow(self, ids: torch.Tensor) -> torch.Tensor:
        """The same for other tokens, [1, tokens]."""
        return followed(ShiftedStream(self.model, self.cap - 1, self.sinks), ids, self.prefill)

    @property
    def targets(self) -> torch.Tensor:
        """The token that follows each decoded one, but for the last: [decoded - 1]."""
        return self.ids[0, self.prefill + 1 :]


class Agreement(NamedTuple):
    """How far an engine is from the oracle, over tokens.

    Attributes:
        kl_to_oracle: mean KL(oracle || engine) of the next token, nats.
        kl_to_oracle_max: the largest of a token.
        top1_agreement: share of tokens whose most probable next token is the same.
        nll, oracle_nll: mean loss on the document, nats per token.
        compared_tokens: tokens that these are over.
        finite: whether all logits are finite.
    """

    kl_to_oracle: float
    kl_to_oracle_max: float
    top1_agreement: float
    nll: float
    oracle_nll: float
    compared_tokens: int
    finite: bool


def agreement(
    oracle: torch.Tensor, own: torch.Tensor, targets: torch.Tensor, at: torch.Tensor | None = None
) -> Agreement:
    """Compare logits, [decoded, vocab].

    Args:
        targets: [decoded - 1], the token that follows each but the last.
        at: the decoded tokens, ascending, that `own` has logits of; None: all.
    """
    places = torch.arange(len(oracle)) if at is None else at
    true, guess = (part.double().log_softmax(-1) for part in (oracle[places], own))
    kl = kl_by_token(oracle[places], own)
    scored = places < len(targets)
    following = targets.cpu()[places[scored]].to(true.device)

    def loss(log_probabilities: torch.Tensor) -> float:
        return float(cross_entropy(log_probabilities[scored.to(true.device)], following))

    return Agreement(
        float(kl.mean()),
        float(kl.max()),
        float((true.argmax(-1) == guess.argmax(-1)).double().mean()),
        loss(guess),
        loss(true),
        len(places),
        bool(own.isfinite().all()),
    )


def first_non_finite(stream: Any, ids: torch.Tensor, prefill: int) -> str:
    """The first layer of a stream whose output over a prefill is not finite; empty: none."""
    computing = getattr(stream, "computing", stream.model)
    layers = getattr(computing, "blocks", None) or computing.base_model.layers
    bad: list[int] = []

    def watch(index: int) -> Any:
        def hook(_: object, __: object, output: Any) -> None:
            hidden = output[0] if isinstance(output, tuple) else output
            if not bool(hidden.isfinite().all()):
                bad.append(index)

        return hook

    hooks = [layer.register_forward_hook(watch(index)) for index, layer in enumerate(layers)]
    try:
        with torch.inference_mode(), attention_of(stream):
            stream.prefill(ids[:, :prefill])
    finally:
        for hook in hooks:
            hook.remove()
    return f"layer {bad[0]}" if bad else "in decoding"
