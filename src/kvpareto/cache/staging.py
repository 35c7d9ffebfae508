"""A preallocated buffer for what a prune gathers, so that no prune allocates one."""

from __future__ import annotations

import math

import torch


class Staging:
    """One buffer, shared by the layers of a cache: they prune one after the other.

    Attributes:
        buffer: flat, as large as the largest gather so far; None before the first one.
    """

    def __init__(self) -> None:
        self.buffer: torch.Tensor | None = None

    def room_for(self, shape: tuple[int, ...], like: torch.Tensor) -> torch.Tensor:
        """A contiguous tensor of `shape`, of the dtype and device of `like`, in the buffer.

        It is valid until the next call.
        """
        size = math.prod(shape)
        if self.buffer is None or self.buffer.numel() < size:
            self.buffer = like.new_empty(size)
        return self.buffer[:size].view(shape)
