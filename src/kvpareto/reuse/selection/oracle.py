"""The tokens whose stored keys and values are furthest from the true ones: a bound only."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from kvpareto.reuse.strategy import Budgeted, View


@dataclass(frozen=True)
class Oracle(Budgeted):
    """Score: squared error of keys and values, each relative to its layer's norm, over all layers.

    It needs a full prefill to know the truth, so it is not timed.
    """

    def score(self, view: View) -> torch.Tensor:
        document = view.document
        total = torch.zeros(document.stop - document.start, device=view.queries.device)
        for true, old in view.truth():
            for exact, stored in ((true.keys, old.keys), (true.values, old.values)):
                wanted = exact[:, document].float()
                error = (stored[:, document].float() - wanted).square().sum(dim=(0, 2))
                total += error / wanted.square().sum().clamp_min(1e-30)
        return total
