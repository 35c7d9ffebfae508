"""The recommended setting of each use, computed from the tables by a stated rule."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pandas as pd

from kvpareto.claim_settings import Recommendation
from kvpareto.claims.study import joined
from kvpareto.claims.timescale import yardstick_ms

CONTROLS = ("full", "recompute", "random")
"""What other policies are held against; never recommended."""

COLUMNS = (
    "use", "policy", "setting", "rule", "tpot_ms_p50", "ppl_delta_pct", "model", "text", "cap",
    "cap_on", "layout", "tpot_ratio", "machine", "status",
)  # fmt: skip


def recommended(
    eviction: pd.DataFrame, timing: pd.DataFrame, uses: Mapping[str, Recommendation]
) -> pd.DataFrame:
    """The `recommended` table: one row per use, model and text.

    The rule: of the candidates at one cap, the one with the lowest time per token among those
    whose change of perplexity against recompute is within the use's limit. The limit is held
    against the estimate: a setting has to be chosen, whatever is still undecided. A use that no arm
    is good enough for has a row that says so in `status`.
    """
    rows: list[dict[str, Any]] = []
    for use, rule in uses.items():
        where = places(eviction, rule)
        if not where:
            status = f"no arm on {', '.join(rule.texts)}"
            rows.append({"use": use, "rule": describe(rule), "status": status})
        for model, text in where:
            arms = candidates(eviction, timing, model, text, rule.cap)
            good = fastest(arms, rule.ppl_delta_pct)
            row: dict[str, Any] = {"use": use, "rule": describe(rule), "model": model, "text": text}
            if good.empty:
                status = f"none of {len(arms)} arms within {rule.ppl_delta_pct:g}%"
                rows.append(row | {"status": status})
                continue
            best = good.iloc[0]
            found = {name: best[name] for name in COLUMNS if name in best}
            rows.append(found | row | {"tpot_ms_p50": best["tpot_ms"]})
    frame = pd.DataFrame(rows).reindex(columns=list(COLUMNS))
    frame["cap"] = frame["cap"].astype("Int64")
    return frame


def places(eviction: pd.DataFrame, rule: Recommendation) -> list[tuple[str, str]]:
    """Models and texts of a use, in a stable order."""
    here = eviction.loc[eviction["text"].isin(rule.texts), ["model", "text"]]
    return sorted(set(here.itertuples(index=False, name=None)))


def candidates(
    eviction: pd.DataFrame, timing: pd.DataFrame, model: str, text: str, cap: int | None
) -> pd.DataFrame:
    """Arms that may be recommended: no controls, within the cap, measured and timed.

    One cap at a time: arms share its recompute, which their perplexity is held against, and its
    yardstick, which their times are held against. `tpot_ms` is the ratio to the yardstick times the
    yardstick's median over all jobs, as in the Pareto figure.

    Args:
        cap: None for the largest.
    """
    timed = joined(eviction, timing)
    here = timed if timed.empty else timed[(timed["model"] == model) & (timed["text"] == text)]
    if here.empty:
        return pd.DataFrame(columns=[*COLUMNS, "tpot_ms"])
    cap = here["cap"].max() if cap is None else cap
    chosen = (
        (here["cap"] == cap).fillna(False)
        & here["cap_on"].isin(["post_prune", "peak"])
        & ~here["policy"].isin(CONTROLS)
        & (here["status"] == "ok")
        & here["tpot_ratio"].notna()
    )
    level = yardstick_ms(timed, model, text, cap).median()
    return here[chosen].assign(tpot_ms=here["tpot_ratio"] * level)


def fastest(arms: pd.DataFrame, limit_pct: float) -> pd.DataFrame:
    """The arms within a limit of perplexity, the fastest first."""
    order = ["tpot_ms", "ppl_delta_pct", "policy", "setting", "layout"]
    return arms[arms["ppl_delta_pct"] <= limit_pct].sort_values(order)


def describe(rule: Recommendation) -> str:
    cap = "the largest cap" if rule.cap is None else f"cap {rule.cap}"
    limit = f"{rule.ppl_delta_pct:g}%"
    return f"lowest time per token at {cap} with perplexity within {limit} of recompute"
