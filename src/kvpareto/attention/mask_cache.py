"""Causal masks, built once."""

from __future__ import annotations

import math
from collections import OrderedDict
from typing import Any

import torch

from kvpareto.attention.masks import visible


def causal_mask(
    queries: int, keys: int, dtype: torch.dtype, device: torch.device | str = "cpu"
) -> torch.Tensor:
    """The mask under which the queries, the last ones of `keys` tokens, see no later key.

    Returns:
        [queries, keys]. bool: true where a key is seen. Of a float dtype: 0 there, else -inf, to be
        added to scores.
    """
    seen = visible(torch.arange(keys - queries, keys, device=device), keys)
    if dtype == torch.bool:
        return seen
    return torch.zeros(queries, keys, dtype=dtype, device=device).masked_fill_(~seen, -torch.inf)


class CausalMaskCache:
    """Causal masks by dtype and device, at most `max_bytes` of them.

    A shorter mask is a part of a longer one, so one mask of each dtype and device is kept, with a
    power of two for a length: sequences that grow token by token rarely need another. The mask that
    was not used for longest goes first; one that is larger than `max_bytes` alone is never kept.
    Nothing of it is saved with a module.

    Attributes:
        max_bytes: 0 keeps nothing.
        requests: masks asked for.
        hits: those of them that were there.
    """

    def __init__(self, max_bytes: int = 2**26) -> None:
        self.max_bytes = max_bytes
        self.requests = self.hits = 0
        self._held: OrderedDict[tuple[torch.dtype, torch.device], torch.Tensor] = OrderedDict()

    def get(
        self, queries: int, keys: int, dtype: torch.dtype, device: torch.device
    ) -> torch.Tensor:
        """`causal_mask`, [queries, keys]; a view that must not be written to."""
        if torch.compiler.is_compiling():  # which merges the mask into the kernel that reads it
            return causal_mask(queries, keys, dtype, device)
        self.requests += 1
        place = dtype, device
        held = self._held.get(place)
        if held is None or len(held) < keys:
            most = math.isqrt(self.max_bytes // dtype.itemsize)
            length = min(1 << (keys - 1).bit_length(), most)
            if length < keys:
                return causal_mask(queries, keys, dtype, device)
            with torch.inference_mode(False):  # for training, too, whoever comes first
                held = self._held[place] = causal_mask(length, length, dtype, device)
        else:
            self.hits += 1
        self._held.move_to_end(place)
        while self.bytes > self.max_bytes:
            self._held.popitem(last=False)
        return held[keys - queries : keys, :keys]

    @property
    def bytes(self) -> int:
        """Bytes of the masks that are kept."""
        return sum(mask.nbytes for mask in self._held.values())

    @property
    def hit_rate(self) -> float:
        """Share of the requests that found their mask; NaN before the first."""
        return self.hits / self.requests if self.requests else float("nan")

    def clear(self) -> None:
        """Forget all masks; the counts stay."""
        self._held.clear()

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_held": OrderedDict()}
