"""Full attention over the same keys as one concatenated cache: the control of memory and of zero.

What every arm's KL is held against.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from kvpareto.merge.offset import Offset, Way


@dataclass(frozen=True)
class Concat(Offset):
    """All chunks as one."""

    way: ClassVar[Way] = "concatenation"
