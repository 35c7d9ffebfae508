"""Deletion that takes the head of the first chunk along, where attention likes to rest."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from kvpareto.merge.offset import Offset


@dataclass(frozen=True)
class DropSink(Offset):
    """Without the first tokens of the first chunk; nothing else is changed.

    Attributes:
        sink_tokens: how many are deleted.
    """

    sink_tokens: int = 4

    symbols: ClassVar[dict[str, str]] = {"sink_tokens": "n"}

    def __post_init__(self) -> None:
        if self.sink_tokens < 1:
            raise ValueError(f"sink_tokens {self.sink_tokens} must be at least 1")

    def skipped(self, chunk: int) -> int:
        return self.sink_tokens if chunk == 0 else 0
