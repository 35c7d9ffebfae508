"""What the probes of deletion share: items with few chunks, and rows of the `probes` table."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import SupportsFloat

import pandas as pd

from kvpareto.claims.bootstrap import item_mean
from kvpareto.eviction_settings import StatisticsSettings
from kvpareto.merge.asking import Asked, Encoded
from kvpareto.merge.context import Context, with_chunks
from kvpareto.merge_settings import MergeProbeSettings
from kvpareto.reuse.bench import Bench
from kvpareto.text.tasks.item import TaskItems

Value = tuple[str, str, str, SupportsFloat]
"""Of one item: setting, measure, unit and value."""


@dataclass(frozen=True)
class Probing:
    """One probe on one task.

    Attributes:
        name: of the probe.
        model, text: names of the model and the task, for the rows.
    """

    name: str
    model: str
    text: str
    bench: Bench
    task: TaskItems
    settings: MergeProbeSettings
    statistics: StatisticsSettings

    def contexts(self) -> list[Context]:
        return [with_chunks(item, self.settings.chunks) for item in self.task.items]

    def asked(self, context: Context) -> Asked:
        return Asked(Encoded(self.bench, stored=True), self.task, context, self.settings.positions)

    def table(self, values: Iterable[Value]) -> pd.DataFrame:
        """The mean of every measure over items with its interval, in the order of the first."""
        found: dict[tuple[str, str, str], list[float]] = {}
        for setting, measure, unit, value in values:
            found.setdefault((setting, measure, unit), []).append(float(value))
        statistics = self.statistics
        rows = []
        for (setting, measure, unit), own in found.items():
            mean = item_mean(own, resamples=statistics.resamples, confidence=statistics.confidence)
            rows.append(
                {
                    "probe": self.name,
                    "model": self.model,
                    "text": self.text,
                    "setting": setting,
                    "measure": measure,
                    "value": mean.estimate,
                    "lo": mean.lo,
                    "hi": mean.hi,
                    "unit": unit,
                    "status": "ok",
                }
            )
        return pd.DataFrame(rows)
