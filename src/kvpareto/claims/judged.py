"""Rows of evidence: a verdict on a measured difference, or what a study lacks for one."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd

from kvpareto.claim_settings import Expect
from kvpareto.claims.equivalence import verdict
from kvpareto.claims.metrics.measured import Measured

NOT_TESTED = "not tested here"

Row = dict[str, Any]


def judged(measured: Measured, margin: float, expect: Expect) -> Row:
    """What a measured difference says of a claim."""
    estimate, lo, hi = difference = measured.difference
    decision = verdict(difference, margin, expect)
    why = measured.why
    if decision == "undecided" and not why:
        why = "no interval" if np.isnan(lo) or np.isnan(hi) else "the interval spans the margin"
    return {
        "estimate": estimate, "lo": lo, "hi": hi, "margin": margin, "expect": expect,
        "verdict": decision, "why": why, "machine": measured.machine,
    }  # fmt: skip


def missing(why: str, expect: Expect, margin: float) -> Row:
    """The row of a test that this study cannot make; `why` says what is lacking."""
    texts = dict.fromkeys(("arm", "reference", "model", "text", "machine"), "")
    numbers = dict.fromkeys(("estimate", "lo", "hi"), np.nan) | {"margin": margin}
    return texts | numbers | {"expect": expect, "verdict": NOT_TESTED, "why": why}


def who(arm: pd.Series[Any]) -> Row:
    """Which arm a row is about."""
    return {"arm": label(arm), "model": arm["model"], "text": arm["text"]}


def label(arm: pd.Series[Any]) -> str:
    """An arm as the tables name it, with the cache layout where it is not the plain one."""
    layout = arm.get("layout", "compact")
    shown = "" if layout in ("compact", "none") else f" ({layout})"
    setting = f"/{arm['setting']}" if arm["setting"] else ""
    return f"{arm['policy']}{setting}{shown}"


def spelled(selector: Mapping[str, Any]) -> str:
    """A selector as the configuration spells it."""
    return "{" + ", ".join(f"{name}: {value}" for name, value in selector.items()) + "}"
