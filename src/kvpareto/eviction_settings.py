"""How the eviction part of a study, and what all parts measure with, is configured."""

from __future__ import annotations

from typing import Literal

from pydantic import (
    Field,
    NonNegativeInt,
    PositiveInt,
)

from kvpareto.config_base import MethodName, Name, Strict, Swept

CapOn = Literal["post_prune", "peak", "none"]
"""What the cap bounds: entries kept after a prune (the sources), the longest attended length (the
fair comparison), or nothing (an explicit window, everything else on top)."""


class Arms(Swept):
    """One policy with its parameters; every parameter is a list, and the lists are crossed."""

    policy: MethodName
    cap_on: list[CapOn] | None = Field(None, description="overrides the group's cap_on")


class EvictionGroup(Strict):
    """A named matrix of eviction arms: models x texts x caps x cap_on x arms."""

    models: list[Name] = Field(min_length=1)
    texts: list[Name] = Field(min_length=1)
    caps: list[PositiveInt] = Field(min_length=1)
    cap_on: list[CapOn] = Field(["post_prune"], min_length=1)
    timing: bool = Field(True, description="false: quality only")
    arms: list[Arms] = Field(min_length=1)


class BaselineSettings(Strict):
    """The fixed baseline: recompute's quality on thinned positions, its time averaged over runs."""

    positions_per_document: PositiveInt = 100
    runs: PositiveInt = 3
    tokens_per_run: PositiveInt = 200


class QualitySettings(Strict):
    """Quality runs: several settings of one policy share a job, which loads the model once."""

    settings_per_job: PositiveInt = 20


class TimingSettings(Strict):
    """Paired timing against the yardstick arm (strict start_recent, same cap) in one process."""

    texts: list[Name] = Field(
        [], description="texts to time on; time depends on lengths, not words"
    )
    layouts: list[Literal["compact", "soft_ring"]] = Field(["compact"], min_length=1)
    further_layouts: dict[str, list[Literal["soft_ring", "ring"]]] = Field(
        {}, description="further layouts of single policies; ring is for start_recent alone"
    )
    yardstick_sinks: NonNegativeInt = 4
    blocks: PositiveInt = Field(8, ge=6, description="alternating pairs of blocks")
    tokens_per_block: PositiveInt = 128
    warm_up_tokens: PositiveInt = 32
    threads: PositiveInt = 1


class StatisticsSettings(Strict):
    """How intervals are made: a block bootstrap, stratified by document."""

    block_tokens: PositiveInt = Field(64, ge=64)
    resamples: PositiveInt = 2000
    confidence: float = Field(0.95, gt=0.5, lt=1)


class ProbeSettings(Strict):
    """The probes: measurements that explain the arms, on one cap of each model."""

    cap: PositiveInt | None = Field(None, description="null: the study's largest cap")
    sinks: NonNegativeInt = 4
    periods: list[PositiveInt] = Field([1, 4, 16, 64], min_length=1, description="R")
    blocks: PositiveInt = Field(8, ge=6, description="alternating pairs of blocks")
    tokens_per_block: PositiveInt = 64
    warm_up_tokens: PositiveInt = 16
    layouts: list[Literal["compact", "soft_ring"]] = Field(["compact"], min_length=1)
    memory_layouts: list[Literal["compact", "soft_ring", "ring", "dynamic", "converted"]] = Field(
        ["compact", "ring", "dynamic", "converted"], min_length=1
    )
    compared_tokens: PositiveInt = Field(64, description="tokens whose logits are compared")
    profiled_periods: list[PositiveInt] = Field([1, 16], min_length=1)
    profiled_tokens: PositiveInt = Field(8, description="tokens of a block under the profiler")
