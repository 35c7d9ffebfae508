"""How far a cached key drifts when it is rotated again and again, or by a rounded angle."""

from __future__ import annotations

from collections.abc import Iterable

import pandas as pd
import torch

from kvpareto.attention.rope import Rotary, rotated

_KEYS = 64
"""Random keys whose errors are averaged."""


def rotation_drift(rotary: Rotary, ages: Iterable[int], dtypes: Iterable[str]) -> pd.DataFrame:
    """Error of a key that has moved by `age` positions, relative to its norm, against float64.

    Three ways: `cumulative`, by one position at every step, from what the step before has left;
    `pristine`, in one rotation from the key as it arrived; and `float32 angle`, the same with the
    angle, position times frequency, taken in float32, as models take it.

    Args:
        ages: positions moved, ascending.
        dtypes: in which the key is stored.

    Returns:
        Rows of dtype, way, age, error.
    """
    ages = sorted(ages)
    keys = torch.randn(_KEYS, rotary.dim, generator=torch.Generator().manual_seed(0))
    one_step = rotary.angles(torch.tensor([1]))
    rows = []
    for name in dtypes:
        stored = keys.to(getattr(torch, name))
        moved, done = stored, 0
        for age in ages:
            for _ in range(age - done):
                moved = rotated(moved, *one_step)
            done = age
            rounded = (torch.tensor([float(age)]) * rotary.inv_freq)[None]
            truth = _exact(stored, rotary, age)
            for way, found in (
                ("cumulative", moved),
                ("pristine", rotary.rotate(stored, torch.tensor([age]))),
                ("float32 angle", rotated(stored, rounded.cos(), rounded.sin())),
            ):
                error = (found.double() - truth).norm() / truth.norm()
                rows.append({"dtype": name, "way": way, "age": age, "error": float(error)})
    return pd.DataFrame(rows)


def _exact(keys: torch.Tensor, rotary: Rotary, age: int) -> torch.Tensor:
    """The rotation in float64 throughout."""
    angle = age * rotary.inv_freq.double()
    first, second = keys.double().chunk(2, dim=-1)
    cos, sin = angle.cos(), angle.sin()
    return torch.cat([first * cos - second * sin, second * cos + first * sin], dim=-1)
