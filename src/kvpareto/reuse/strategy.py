"""What a reuse strategy is: the choice of the tokens whose keys and values are computed anew.

The document's chunks come from the store, each encoded alone. From the check layer on, only the
chosen document tokens and the question are computed; all else keeps what the store says. One
strategy is one file under `selection/`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from pydantic import NonNegativeInt

from kvpareto.methods import method_class
from kvpareto.text.tasks.item import Item

PACKAGE = "kvpareto.reuse.selection"
"""Where the strategies are."""


@dataclass(frozen=True)
class Layer:
    """Keys and values of a whole prompt in one layer, [kv_heads, tokens, head_dim], after RoPE."""

    keys: torch.Tensor
    values: torch.Tensor


@dataclass(frozen=True)
class View:
    """What a strategy sees when it chooses.

    Attributes:
        item: the prompt.
        queries: of the check layer, [heads, tokens, head_dim], after RoPE.
        new: keys and values of the check layer, computed anew for all tokens.
        old: as the store has them, moved to their positions; the question's are zero.
        scale: factor of query times key.
        surprisal: [tokens], nats, each chunk alone; None where the store has none.
        truth: a full prefill's layers and the store's, moved; asked for by the oracle only.
        seed: of the item.
    """

    item: Item
    queries: torch.Tensor
    new: Layer
    old: Layer
    scale: float
    surprisal: torch.Tensor | None
    truth: Callable[[], Sequence[tuple[Layer, Layer]]]
    seed: int

    @property
    def document(self) -> slice:
        """Positions of the document in the prompt."""
        return slice(*self.item.document)


@dataclass(frozen=True)
class Strategy:
    """A reuse strategy: a frozen dataclass of its parameters.

    Attributes:
        check_layer: c. Layers before it are computed for all tokens; in it the tokens are chosen.
    """

    check_layer: NonNegativeInt = 0

    reuses: ClassVar[bool] = True
    """False for the full prefill."""
    isolates_question: ClassVar[bool] = False
    """Whether the question too is encoded alone, and only its last token sees the document."""
    symbols: ClassVar[dict[str, str]] = {"check_layer": "c", "ratio": "r"}

    def choose(self, view: View) -> torch.Tensor:
        """Document tokens to compute anew: positions in the prompt, any order, each once."""
        raise NotImplementedError

    def rows(self, view: View) -> torch.Tensor:
        """All positions that are computed from the check layer on, sorted."""
        end = len(view.item.ids)
        first = end - 1 if self.isolates_question else view.document.stop
        return torch.cat([self.choose(view).cpu().sort().values, torch.arange(first, end)])


@dataclass(frozen=True)
class Budgeted(Strategy):
    """A strategy with a budget: it computes B = floor(ratio * document length) tokens anew.

    Attributes:
        ratio: r, from 0 (the question only) to 1 (everything).
    """

    ratio: float = 0.15

    def __post_init__(self) -> None:
        if not 0 <= self.ratio <= 1:
            raise ValueError(f"ratio {self.ratio} is not between 0 and 1")

    def score(self, view: View) -> torch.Tensor:
        """How much each document token deserves to be computed anew, [document], float32."""
        raise NotImplementedError

    def choose(self, view: View) -> torch.Tensor:
        start, end = view.item.document
        return start + best(self.score(view), budget(self.ratio, end - start))


def budget(ratio: float, length: int) -> int:
    """floor(ratio * length), without the surprises of binary fractions (0.29 * 100 is 29)."""
    return min(length, math.floor(ratio * length + 1e-9))


def best(score: torch.Tensor, count: int) -> torch.Tensor:
    """Indices of the `count` largest scores, sorted; of equal scores the earlier ones."""
    return score.sort(descending=True, stable=True).indices[:count].sort().values


def strategy_class(name: str) -> type[Strategy]:
    """The class of `selection/<name>.py`.

    Raises:
        KeyError: there is no such file.
    """
    return method_class(PACKAGE, Strategy, name)


def strategy_of(name: str, parameters: dict[str, Any]) -> Strategy:
    """The strategy with its parameters.

    Raises:
        KeyError: there is no such strategy.
        TypeError, ValueError: a parameter it does not have, or a value it cannot have.
    """
    return strategy_class(name)(**parameters)
