from __future__ import annotations

from dataclasses import dataclass

from pydantic import NonNegativeInt

from kvpareto.eviction.periodic import PeriodicPolicy


@dataclass(frozen=True)
class Overlap(PeriodicPolicy):
    """Keep O more recent tokens at each prune.

    Inside a cap, O comes off the window and is added to it again: a re-labelling of `lazy`. With
    `cap_on: none` it is on top of the window, as in the sources' first runs.

    Attributes:
        overlap: O.
    """

    overlap: NonNegativeInt = 32

    symbols = PeriodicPolicy.symbols | {"overlap": "O"}

    @property
    def beside_window(self) -> int:
        return self.sinks + self.overlap
