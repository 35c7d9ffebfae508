"""What an eviction policy is: index logic over cache slots, without tensors of keys or values.

A policy answers two questions after each token: how many entries must go now (`drop`, from lengths
alone, so that a stream can be simulated without a model), and which entries stay (`keep`). A cache
carries the answer out. One policy is one file under `policies/`.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from functools import cache
from importlib import import_module
from typing import ClassVar

import torch
from pydantic import NonNegativeInt

from kvpareto.settings import CapOn


@dataclass(frozen=True)
class Clock:
    """Where a stream stands, in every layer, right after a token's forward pass.

    Attributes:
        step: tokens decoded since the prefill, this one included: 1, 2, ...
        length: cache entries now, this token's included.
        since_prune: steps since the last eviction, or since the prefill.
    """

    step: int
    length: int
    since_prune: int


@dataclass(frozen=True)
class Entries:
    """What a policy sees of one layer when it chooses.

    Attributes:
        length: cache entries now; entry 0 is the oldest.
        rows: documents in the batch.
        heads: key-value heads.
        layer: index of the layer.
        step: as in `Clock`.
    """

    length: int
    rows: int
    heads: int
    layer: int
    step: int


@dataclass(frozen=True)
class EvictionPolicy:
    """Base of all policies: sinks and recent tokens stay. Fields are hyper-parameters.

    Attributes:
        capacity: C, entries kept right after a prune; derived from the budget (`autocap`).
        sinks: S, first entries of the stream, never evicted.
    """

    capacity: int = 0
    sinks: NonNegativeInt = 4

    uses_cache: ClassVar[bool] = True
    """False for recompute alone, which runs without a cache."""

    budgets: ClassVar[tuple[CapOn, ...]] = ("post_prune", "peak", "none")
    """The meanings of the cap that the policy knows; empty: it has no budget at all."""

    symbols: ClassVar[dict[str, str]] = {"sinks": "S", "period": "R", "window": "W"}
    """Short names of hyper-parameters in setting ids; a subclass may add its own."""

    @property
    def beside_window(self) -> int:
        """Entries of the capacity that are not the recent window."""
        return self.sinks

    @property
    def reserved(self) -> int:
        """Entries of the cap that are left free after a prune (slack)."""
        return 0

    @property
    def overshoot(self) -> int:
        """Most entries held, between prunes, beyond the capacity."""
        return 1

    @property
    def window(self) -> int:
        """W, the recent tokens kept."""
        return self.capacity - self.beside_window

    def drop(self, clock: Clock) -> int:
        """How many entries to evict now; 0 when no prune is due."""
        raise NotImplementedError

    def keep(self, entries: Entries, drop: int) -> torch.Tensor:
        """Which entries stay when `drop` of them go.

        Returns:
            Sorted entry indices, int64: [length - drop] for all rows and heads, or
            [rows, heads, length - drop].
        """
        return sinks_and_recent(entries.length, self.sinks, drop)

    @property
    def keeps_sinks_and_recent(self) -> bool:
        """Whether `keep` is the base rule, which a stream can evaluate many tokens at a time."""
        return type(self).keep is EvictionPolicy.keep


def sinks_and_recent(length: int, sinks: int, drop: int) -> torch.Tensor:
    """Indices of the first `sinks` entries and of all but the next `drop`."""
    return torch.cat([torch.arange(sinks), torch.arange(sinks + drop, length)])


def hyper_parameters(policy: type[EvictionPolicy]) -> dict[str, dataclasses.Field[object]]:
    """The fields that a configuration may set: all but the derived capacity."""
    return {
        field.name: field
        for field in dataclasses.fields(policy)
        if field.init and field.name != "capacity"
    }


@cache
def policy_class(name: str) -> type[EvictionPolicy]:
    """The policy class of `policies/<name>.py`: the one class defined there.

    Raises:
        KeyError: there is no such file.
    """
    module_name = f"kvpareto.eviction.policies.{name}"
    try:
        module = import_module(module_name)
    except ModuleNotFoundError as error:
        if error.name != module_name:
            raise
        raise KeyError(name) from None
    (found,) = (
        value
        for value in vars(module).values()
        if isinstance(value, type)
        and issubclass(value, EvictionPolicy)
        and value.__module__ == module_name
    )
    return found
