"""The time of a ring cache, kept on the device: where the next token goes, and by which angles."""

from __future__ import annotations

import torch

from kvpareto.attention.rope import Rotary


class RingClock:
    """The time of a ring, on the device, and what follows from it; shared by all layers.

    Everything is computed once per forward pass and written in place, without a look from the host,
    so that a decode step can be compiled as one graph and captured in a CUDA graph.

    Attributes:
        position: [1], int64, index in the stream of the next token.
        columns: [moving + 1], int64, the slots that a step writes: the sinks and the new token's.
        growing: whether a step of one token that finds free slots works on whole buffers under a
            mask, so that one graph serves every length. Who drives the ring sets it, once all sinks
            are there, and counts the tokens (`RingLayer.grew`).
        visible: [cap], bool, the slots that are filled; kept while growing.
        query_due: whether keys of this pass are rotated and the query is not yet.
    """

    def __init__(self, rotary: Rotary, cap: int, sinks: int, clamped: bool = True) -> None:
        """
        Args:
            cap: entries attended, the current token's included: the policy's capacity and one.
            clamped: False leaves the sinks where they were in the stream, as some known engines do:
                their distance from the query then grows without bound. A control, not exact.

        Raises:
            ValueError: no room for a recent token beside the sinks.
        """
        if not 0 <= sinks < cap:
            raise ValueError(f"a ring of cap {cap} cannot hold {sinks} sinks and a recent token")
        self.cap, self.sinks = cap, sinks
        self.moving = sinks if clamped else 0
        frequency = rotary.inv_freq.double()
        # cos is even and sin is odd: both halves of x become x * cos + (halves swapped) * sin.
        self._frequency = torch.cat([-frequency, frequency])
        device = frequency.device
        self.position = torch.zeros(1, dtype=torch.int64, device=device)
        self.columns = torch.arange(self.moving + 1, device=device)
        # What a key in `columns` lacks, in a step, beyond the index of the new token; as long as
        # nothing is evicted the sinks stand where they stood when the ring was just full.
        self._lag = torch.zeros(self.moving + 1, dtype=torch.int64, device=device)
        self._earliest = torch.full_like(self._lag, cap - 1)
        self._earliest[-1] = 0
        self._cos = torch.empty(self.moving + 1, rotary.dim, device=device)
        self._sin = torch.empty_like(self._cos)
        self._slots = torch.arange(cap, device=device)
        self.visible = torch.zeros(cap, dtype=torch.bool, device=device)
        self.growing = False
        self.query_due = False
        buffers = (self.position, self.columns, self._lag, self._earliest, self._cos, self._sin)
        for buffer in (*buffers, self._slots, self.visible):
            torch._dynamo.mark_static_address(buffer)

    def reset(self) -> None:
        """Back to the first token."""
        self.position.zero_()
        self.growing = False
        self.query_due = False

    def tick(self, new: int, held: int) -> None:
        """Begin the forward pass that adds `new` tokens to `held` entries."""
        if not self.growing and held < self.moving:
            # A sink arrives rotated for its index within its own forward pass.
            self._lag[held : min(held + new, self.moving)] = held - (self.cap - 1)
        lacking = torch.maximum(self.position, self._earliest) + self._lag
        angle = lacking[:, None] * self._frequency
        self._cos.copy_(angle.cos())
        self._sin.copy_(angle.sin())
        self.columns[self.moving :] = self.sinks + (self.position - self.sinks) % self.recents
        if self.growing:
            self.visible.copy_(self._slots <= self.position)
        self.position += new

    @property
    def recents(self) -> int:
        """Slots that are not the sinks'."""
        return self.cap - self.sinks

    def turn(self, x: torch.Tensor) -> torch.Tensor:
        """Rotate queries or keys of this pass, [batch, heads, new, head_dim], as they arrived."""
        return _turned(x, self._cos[self.moving :], self._sin[self.moving :])

    def turn_written(self, x: torch.Tensor) -> torch.Tensor:
        """Rotate the keys of `columns`, [batch, heads, moving + 1, head_dim], as they arrived."""
        return _turned(x, self._cos, self._sin)


def _turned(x: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor) -> torch.Tensor:
    """Rotate in float32, rounding once; dimensions beyond the tables pass through."""
    dim = cos.shape[-1]
    part = x[..., :dim].float()
    turned = torch.addcmul(part * cos, part.roll(dim // 2, dims=-1), sin).to(x.dtype)
    return turned if dim == x.shape[-1] else torch.cat([turned, x[..., dim:]], dim=-1)
