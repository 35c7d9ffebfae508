"""What an offset is: a shift of each context chunk's log partition function before the merge.

A question attends to every chunk by itself; chunk i gives an output and L_i. The outputs are merged
with weights exp(L_i + offset_i). The system prompt, the question and what is generated never get an
offset. One method is one file under `offsets/`.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import torch
from torch.nn.functional import softplus

from kvpareto.methods import method_class

PACKAGE = "kvpareto.merge.offsets"
"""Where the methods are."""

Way = Literal["chunks", "concatenation", "prefill"]
"""How the context is attended to: chunk by chunk; as one concatenated cache; not in chunks at all,
but by the model's own prefill."""


@dataclass(frozen=True)
class Offset:
    """An offset method: a frozen dataclass of its parameters.

    L is [chunks, heads, queries], float32, per query head and query; it is -inf for a chunk of
    which a query sees nothing, and stays so. The chunks of a prompt come in batches of one or more.
    """

    way: ClassVar[Way] = "chunks"
    deletes: ClassVar[bool] = False
    """Whether a chunk with an offset of -inf is deleted: no later query of that head sees it."""
    symbols: ClassVar[dict[str, str]] = {"top_k": "K", "threshold": "t"}

    @property
    def context_temperature(self) -> float:
        """What the logits of context chunks are divided by."""
        return 1.0

    def skipped(self, chunk: int) -> int:
        """Tokens at the head of a chunk that are not there any more."""
        return 0

    def target(self, lses: Iterable[torch.Tensor]) -> torch.Tensor | None:
        """What the chunks' L are held against, from all of them, batch by batch.

        They are computed as they are taken, and none needs to be kept: memory does not grow with
        the number of chunks. A method that needs no target takes none.

        Returns:
            [heads, queries].
        """
        return None

    def offset(
        self, lses: torch.Tensor, target: torch.Tensor | None, seeds: Sequence[int]
    ) -> torch.Tensor:
        """The offsets of a batch, shaped as it; unless a method says otherwise, none.

        Args:
            lses: its L.
            target: as `target` returned it.
            seeds: one of each chunk's own, for methods that draw.
        """
        return torch.zeros_like(lses)


@dataclass(frozen=True)
class Deficit(Offset):
    """A method that looks at the deficit T - L, where T is the mean of the K largest L.

    Attributes:
        top_k: K; of fewer visible chunks, all are taken.
    """

    top_k: int = 2

    def __post_init__(self) -> None:
        if self.top_k < 1:
            raise ValueError(f"top_k {self.top_k} must be at least 1")

    def target(self, lses: Iterable[torch.Tensor]) -> torch.Tensor | None:
        return top_mean(lses, self.top_k)


def gate(lses: torch.Tensor, target: torch.Tensor | None) -> torch.Tensor:
    """-softplus(T - L): exp(L) is multiplied by sigmoid(L - T)."""
    assert target is not None
    return -softplus(target - lses)


def top_mean(lses: Iterable[torch.Tensor], count: int) -> torch.Tensor | None:
    """Mean of the `count` largest, of those that are not -inf; 0 where all are. None: no chunks."""
    top: torch.Tensor | None = None
    for batch in lses:
        new = batch if top is None else torch.cat([top, batch])
        top = new.topk(min(count, len(new)), dim=0).values
    if top is None:
        return None
    visible = top > -torch.inf
    return top.where(visible, 0).sum(0) / visible.sum(0).clamp_min(1)


def offset_class(name: str) -> type[Offset]:
    """The class of `offsets/<name>.py`.

    Raises:
        KeyError: there is no such file.
    """
    return method_class(PACKAGE, Offset, name)


def offset_of(name: str, parameters: dict[str, Any]) -> Offset:
    """The method with its parameters.

    Raises:
        KeyError: there is no such method.
        TypeError, ValueError: a parameter it does not have, or a value it cannot have.
    """
    return offset_class(name)(**parameters)
