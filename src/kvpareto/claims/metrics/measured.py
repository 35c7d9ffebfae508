"""What a metric returns."""

from __future__ import annotations

from typing import NamedTuple

from kvpareto.claims.bootstrap import Interval


class Measured(NamedTuple):
    """A difference between an arm and its reference.

    Attributes:
        difference: zero where they are the same.
        machine: of times and bytes, which other machines need not share.
        why: what a reader should know of it.
    """

    difference: Interval
    machine: str = ""
    why: str = ""
