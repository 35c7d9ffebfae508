"""The ledger of claims: a verdict each, from the evidence of all its tests."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping

import pandas as pd

from kvpareto.claim_settings import Claim
from kvpareto.claims.evidence import evidence
from kvpareto.claims.judged import NOT_TESTED, Row
from kvpareto.claims.study import Study

CLAIM_COLUMNS = (
    "id", "source", "verdict", "metric", "estimate", "lo", "hi", "margin", "machine", "why", "says",
    "tests", "decided_by",
)  # fmt: skip

TEST_COLUMNS = (
    "id", "test", "metric", "arm", "reference", "model", "text", "estimate", "lo", "hi", "margin",
    "expect", "verdict", "why", "machine",
)  # fmt: skip


def ledger(claims: Mapping[str, Claim], study: Study) -> tuple[pd.DataFrame, pd.DataFrame]:
    """The tables `claims` and `claim_tests`.

    A claim is contradicted if any evidence contradicts it and reproduced if all of it reproduces
    it. Without any it is `not tested here`; where a part is missing or undecided, so is the claim.
    The claim's figures are those of its deciding evidence: the first row, in the order of its
    tests, that has the claim's own verdict, or else the first that has one.

    Returns:
        One row per claim, and one per test, arm and reference.
    """
    rows: list[Row] = []
    found: list[Row] = []
    for name, claim in claims.items():
        tests = [
            {"id": name, "test": number} | row
            for number, test in enumerate(claim.tests, start=1)
            for row in evidence(test, study)
        ]
        rows.append(
            {"id": name, "source": claim.source, "says": claim.says} | _sum_up(claim, tests)
        )
        found += tests
    return (
        pd.DataFrame(rows).reindex(columns=list(CLAIM_COLUMNS)),
        pd.DataFrame(found).reindex(columns=list(TEST_COLUMNS)),
    )


def overall(verdicts: Iterable[str]) -> str:
    """The verdict of a claim from those of its evidence."""
    kinds = set(verdicts)
    if "contradicted" in kinds:
        return "contradicted"
    if kinds <= {NOT_TESTED}:
        return NOT_TESTED
    return "reproduced" if kinds == {"reproduced"} else "undecided"


def _sum_up(claim: Claim, tests: list[Row]) -> Row:
    """What the claim's row says of its evidence."""
    verdicts = Counter(row["verdict"] for row in tests)
    seen = [row for row in tests if row["verdict"] != NOT_TESTED]
    lacks = dict.fromkeys(row["why"] for row in tests if row["verdict"] == NOT_TESTED)
    decision = overall(verdicts)
    machines = sorted({row["machine"] for row in seen} - {""})
    summary: Row = {"verdict": decision, "tests": len(seen), "machine": "; ".join(machines)}
    if not seen:
        return summary | {"why": claim.not_tested_here or "; ".join(lacks), "decided_by": ""}
    deciding = next((row for row in seen if row["verdict"] == decision), seen[0])
    tally = ", ".join(f"{count} {name}" for name, count in verdicts.items())
    return summary | {
        **{name: deciding[name] for name in ("metric", "estimate", "lo", "hi", "margin")},
        "why": "; ".join(filter(None, [tally, deciding["why"], *lacks])),
        "decided_by": "test {test}: {arm} against {reference}, {model} on {text}".format(
            **deciding
        ),
    }
