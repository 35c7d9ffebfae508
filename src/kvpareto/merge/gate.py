"""What each method makes of a chunk whose L lies above or below the target."""

from __future__ import annotations

from typing import Any

import pandas as pd
import torch

from kvpareto.merge.offset import offset_class, offset_of

REACH = 6.0
"""Nats above and below the target."""


def curves(arms: list[dict[str, Any]]) -> pd.DataFrame:
    """The offsets of methods along L - T, for those in which it depends on that.

    Args:
        arms: offset and parameters of each; equal ones count once.

    Returns:
        Columns offset, setting (the parameters in words), excess (L - T, nats), shift (the offset,
        nats; -inf: the chunk is deleted).
    """
    excess = torch.linspace(-REACH, REACH, 241)
    frames = []
    for arm in {repr(arm): arm for arm in arms}.values():
        kind = offset_class(arm["offset"])
        method = offset_of(arm["offset"], arm["parameters"])
        if kind.way != "chunks":
            continue
        # Each point is a chunk of its own with a single head, which decides as its average does.
        # All have one seed: a random misjudgement belongs to no place on the curve.
        points = excess[:, None, None]
        shift = method.offset(points, torch.zeros(1, 1), [0] * len(excess))[:, 0, 0]
        if (shift == shift[0]).all():
            continue
        words = [
            f"{kind.symbols.get(name, name)}={value}" for name, value in arm["parameters"].items()
        ]
        frames.append(
            pd.DataFrame({"excess": excess.numpy(), "shift": shift.numpy()}).assign(
                offset=arm["offset"], setting=" ".join(words)
            )
        )
    nothing = pd.DataFrame(columns=["excess", "shift", "offset", "setting"])
    return pd.concat(frames, ignore_index=True) if frames else nothing
