"""How claims, margins and recommended uses are written in the configuration."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import (
    AfterValidator,
    Field,
    NonNegativeFloat,
    PositiveFloat,
    PositiveInt,
    model_validator,
)

from kvpareto.config_base import Strict

Expect = Literal["lower", "higher", "equal", "not_higher", "not_lower"]
"""What a claim says of an estimate: by more than the margin, or not by more than it."""

PairMetric = Literal[
    "ppl",
    "tpot",
    "spike_peak",
    "spike_area",
    "prunes",
    "trajectory",
    "peak_bytes",
    "score",
    "kl_first_token",
    "ttft",
    "ttft_operations",
    "merge_score",
    "merge_kl",
    "merge_mass",
    "merge_ppl",
    "merge_peak",
    "decode_tpot",
    "decode_tail",
]

DecodeColumn = Literal[
    "bandwidth_share",
    "finite",
    "kl_to_oracle",
    "kl_to_oracle_max",
    "peak_bytes",
    "speedup_vs_recompute",
    "speedup_vs_strict",
    "top1_agreement",
    "tpot_ms_p50",
    "tpot_ms_p99",
    "tpot_ratio",
]

SAME = "same"
"""In a reference selector: the value that the arm has."""

Scalar = bool | int | float | str | None


def _names_a_policy(selector: dict[str, Scalar | list[Scalar]]) -> dict[str, Scalar | list[Scalar]]:
    if not {"policy", "strategy", "offset", "engine"} & selector.keys():
        raise ValueError(
            "must name a policy, a strategy, an offset or an engine, for example "
            "{policy: lazy, period: 64}"
        )
    return selector


def _names_values(selector: dict[str, Scalar | list[Scalar]]) -> dict[str, Scalar | list[Scalar]]:
    relative = [name for name, value in selector.items() if value == SAME]
    if relative:
        raise ValueError(f"{relative[0]}: same belongs into the reference; an arm names values")
    return selector


Selector = Annotated[dict[str, Scalar | list[Scalar]], AfterValidator(_names_a_policy)]
"""Columns or hyper-parameters and their values; a list allows each of its values."""


class Margins(Strict):
    """Differences too small to matter, fixed before looking; in percent unless they say."""

    ppl: NonNegativeFloat = Field(0.5, description="perplexity")
    tpot: NonNegativeFloat = Field(3.0, description="time per token; the noise floor if larger")
    spike: NonNegativeFloat = Field(10.0, description="peak and area of a spike, between arms")
    memory: NonNegativeFloat = Field(5.0, description="peak memory")
    ttft: NonNegativeFloat = Field(5.0, description="time to first token")
    score: NonNegativeFloat = Field(3.0, description="score of a task, in points of 100")
    mass: NonNegativeFloat = Field(1.0, description="share of attention, in points of 100")
    kl: NonNegativeFloat = Field(0.05, description="KL of the first answer token, in nats")


class PairTest(Strict):
    """Arms against a reference.

    The reference has the arm's model, text, cap, cap_on, sinks, ratio, check_layer, positions,
    chunks, top_k, shape, threads and group unless it names them. One that is null is what chance
    gives: for spikes, the same curve around boundaries shifted at random; for the time to first
    token, the full prefill beside it.
    """

    metric: PairMetric
    arm: Annotated[Selector, AfterValidator(_names_values)]
    reference: Selector | None
    expect: Expect
    margin: NonNegativeFloat | None = Field(None, description="overrides that of `margins`")

    @model_validator(mode="after")
    def _only_spikes_have_a_null(self) -> PairTest:
        if self.reference is None and not self.metric.startswith(("spike_", "ttft")):
            raise ValueError(f"reference: {self.metric} needs an arm to compare with")
        return self


class StatusTest(Strict):
    """What became of an arm: refused, invalid, ok."""

    metric: Literal["status"]
    arm: Annotated[Selector, AfterValidator(_names_values)]
    equals: str


class ValueTest(Strict):
    """Measured values against a value."""

    value: float
    difference: Literal["percent", "absolute"]
    expect: Expect
    margin: NonNegativeFloat = Field(description="in percent, or absolute, as the difference")

    @model_validator(mode="after")
    def _percent_of_something(self) -> ValueTest:
        if self.difference == "percent" and self.value == 0:
            raise ValueError("value: nothing is a percentage of 0; write difference: absolute")
        return self


class ProbeTest(ValueTest):
    """A measure of a probe against a value."""

    metric: Literal["probe"]
    probe: str
    measure: str
    setting: str | None = Field(
        None, description="a part of the setting's name, which hyphens divide; null: any setting"
    )
    of: Literal["time", "memory", "values"] = Field(
        "values", description="time and memory are a machine's own, which the verdict then names"
    )


class AttentionTest(ValueTest):
    """Measures of self-attention against a value."""

    metric: Literal["attention"]
    rows: dict[str, Scalar | list[Scalar]] = Field(
        description="columns of the table `attention` and their values; a list allows each"
    )


class DecodeTest(ValueTest):
    """A column of the decode engines against a value."""

    metric: Literal["decode"]
    rows: dict[str, Scalar | list[Scalar]] = Field(
        description="columns of the table `decode` and their values; a list allows each"
    )
    column: DecodeColumn = Field(description="the column that is held against the value")


class DecodeAgeTest(ValueTest):
    """Slopes of a decode engine over the age of its stream against a value."""

    metric: Literal["decode_age"]
    rows: dict[str, Scalar | list[Scalar]] = Field(
        description="columns of the table `decode_age` and their values; a list allows each"
    )


class RecommendedTest(Strict):
    """The recommended arm of a use: its perplexity against the use's limit (`recommended_ppl`), or
    its time per token against the fastest of other arms within that limit (`recommended_tpot`).
    """

    metric: Literal["recommended_ppl", "recommended_tpot"]
    use: str
    reference: Selector | None = None
    expect: Expect
    margin: NonNegativeFloat | None = Field(None, description="0 for perplexity")

    @model_validator(mode="after")
    def _time_needs_a_reference(self) -> RecommendedTest:
        if (self.metric == "recommended_tpot") != (self.reference is not None):
            raise ValueError("reference: recommended_tpot needs it, recommended_ppl has none")
        return self


Test = (
    PairTest | StatusTest | ProbeTest | AttentionTest | DecodeTest | DecodeAgeTest | RecommendedTest
)


class Claim(Strict):
    """One sentence that the tables can contradict."""

    source: str = Field(description="where the claim is from")
    says: str = Field(description="the claim, in one sentence")
    tests: list[Annotated[Test, Field(discriminator="metric")]] = []
    not_tested_here: str | None = Field(
        None,
        description="why there are no tests, or what a study lacks that has none of their arms",
    )
    trick: str | None = Field(None, description="what people do that the claim is about")
    pays_if: Literal["reproduced", "contradicted"] = Field(
        "reproduced", description="the verdict under which the trick pays"
    )

    @model_validator(mode="after")
    def _tests_or_a_reason(self) -> Claim:
        if not self.tests and self.not_tested_here is None:
            raise ValueError("give tests, or not_tested_here, the reason for none")
        return self


class Recommendation(Strict):
    """A use of the model, for which the fastest arm within a limit of perplexity is recommended."""

    texts: list[str] = Field(min_length=1)
    ppl_delta_pct: PositiveFloat = Field(description="limit of perplexity against recompute")
    cap: PositiveInt | None = Field(None, description="budget; null: the largest of each text")
