"""The model's own prefill, in which chunks see those before them: what encoding apart costs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from kvpareto.merge.offset import Offset, Way


@dataclass(frozen=True)
class Full(Offset):
    """Nothing is encoded apart, and nothing merged."""

    way: ClassVar[Way] = "prefill"
