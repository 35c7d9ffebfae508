"""No offset: chunk by chunk, exactly full attention over the same keys, in any partition."""

from __future__ import annotations

from dataclasses import dataclass

from kvpareto.merge.offset import Offset


@dataclass(frozen=True)
class Zero(Offset):
    """The lossless merge."""
