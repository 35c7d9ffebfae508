"""The configuration of a study, as models that reject what they do not know.

`parse_settings` takes what Snakemake has read and merged, and reports every error at once with its
path in the configuration and what to do. Sweeps are lists throughout:
Snakemake merges mappings but replaces lists, so a list is what an overlay can swap as a whole.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    NonNegativeInt,
    PositiveInt,
    StringConstraints,
    TypeAdapter,
    ValidationError,
    field_validator,
    model_validator,
)

from kvpareto.claim_settings import Claim, Margins, Recommendation, RecommendedTest
from kvpareto.config_base import Strict, explain
from kvpareto.reference_settings import ReferenceSettings

Name = Annotated[str, StringConstraints(pattern=r"^[a-z0-9][a-z0-9.-]*$")]
"""A name that becomes part of a path: lower case letters, digits, dots, hyphens."""

GroupName = Annotated[str, StringConstraints(pattern=r"^[a-z0-9][a-z0-9_]*$")]

CapOn = Literal["post_prune", "peak", "none"]
"""What the cap bounds: entries kept after a prune (the sources), the longest attended length (the
fair comparison), or nothing (an explicit window, everything else on top)."""


class SettingsError(ValueError):
    """The configuration is wrong; the message lists every error with its path."""


_LOCAL = ("resources/", "results/", "/", "./", "../")


def _need_revision(path: str, revision: str | None) -> None:
    if not path.startswith(_LOCAL) and revision is None:
        raise ValueError(
            f"{path!r} is a hub id and has no revision; pin the commit, or write a local folder "
            "with a leading ./"
        )


class ModelSettings(Strict):
    """A causal language model: a local folder or a hub id."""

    path: str = Field(description="folder of this repository, or a hub id")
    revision: str | None = Field(None, description="commit of the hub id; required for hub ids")
    dtype: Literal["float32", "bfloat16", "float16"] = "float32"
    device: str = Field("cpu", pattern=r"^(cpu|cuda|cuda:\d+|mps)$")

    @model_validator(mode="after")
    def _hub_needs_revision(self) -> ModelSettings:
        _need_revision(self.path, self.revision)
        return self


class StdlibText(Strict):
    """Held-out modules of this interpreter's standard library: no download."""

    source: Literal["stdlib"]
    part: Literal["code", "prose"]
    documents: list[str] = Field(min_length=1)
    tokens: PositiveInt = Field(description="scored tokens per document")

    @field_validator("documents")
    @classmethod
    def _each_once(cls, documents: list[str]) -> list[str]:
        twice = sorted({name for name in documents if documents.count(name) > 1})
        if twice:
            raise ValueError(f"{', '.join(twice)} named twice; a document counts once")
        return documents


class HubText(Strict):
    """A data set of the hub, or local files of the same schema."""

    source: Literal["hub"]
    path: str
    name: str | None = None
    split: str = "test"
    revision: str | None = None
    column: str = "text"
    join: str | None = Field(None, description="joins rows into one text; null: a row a document")
    documents: PositiveInt = 5
    tokens: PositiveInt = Field(description="scored tokens per document")

    @model_validator(mode="after")
    def _hub_needs_revision(self) -> HubText:
        _need_revision(self.path, self.revision)
        return self


AnyText = StdlibText | HubText
TextSettings = Annotated[StdlibText | HubText, Field(discriminator="source")]


class Arms(BaseModel):
    """One policy with its parameters; every parameter is a list, and the lists are crossed."""

    model_config = ConfigDict(extra="allow", frozen=True, strict=True)
    policy: Annotated[str, StringConstraints(pattern=r"^[a-z][a-z0-9_]*$")]
    cap_on: list[CapOn] | None = Field(None, description="overrides the group's cap_on")

    @property
    def sweeps(self) -> dict[str, Any]:
        return dict(self.model_extra or {})


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


class Settings(Strict):
    """A whole study."""

    study: Name
    models: dict[Name, ModelSettings] = Field(min_length=1)
    texts: dict[Name, TextSettings] = Field(min_length=1)
    eviction: dict[GroupName, EvictionGroup] = Field(min_length=1)
    quality: QualitySettings = QualitySettings()
    baseline: BaselineSettings = BaselineSettings()
    timing: TimingSettings = TimingSettings()
    statistics: StatisticsSettings = StatisticsSettings()
    probes: ProbeSettings = ProbeSettings()
    margins: Margins = Margins()
    claims: dict[Name, Claim] = {}
    recommend: dict[str, Recommendation] = {}
    reference: dict[Name, ReferenceSettings] = {}

    @field_validator("eviction", mode="before")
    @classmethod
    def _drop_null_groups(cls, groups: Any) -> Any:
        """An overlay cannot remove a key, so `group: null` takes a group out."""
        if not isinstance(groups, dict):
            return groups
        return {name: group for name, group in groups.items() if group is not None}

    @model_validator(mode="after")
    def _groups_name_what_exists(self) -> Settings:
        problems = [
            f"timing.texts: {name!r} is not defined under texts; known: {', '.join(self.texts)}"
            for name in self.timing.texts
            if name not in self.texts
        ]
        used = {text for matrix in self.eviction.values() for text in matrix.texts}
        problems += [
            f"timing.texts: no group runs on {name!r}; take from {', '.join(sorted(used))}"
            for name in self.timing.texts
            if name in self.texts and name not in used
        ]
        for group, matrix in self.eviction.items():
            for kind, names, known in (
                ("models", matrix.models, self.models),
                ("texts", matrix.texts, self.texts),
            ):
                problems += [
                    f"eviction.{group}.{kind}: {name!r} is not defined under {kind}; "
                    f"known: {', '.join(known)}"
                    for name in names
                    if name not in known
                ]
        problems += [
            f"claims.{name}: the use {test.use!r} is not defined under recommend; "
            f"known: {', '.join(self.recommend) or 'none'}"
            for name, claim in self.claims.items()
            for test in claim.tests
            if isinstance(test, RecommendedTest) and test.use not in self.recommend
        ]
        if problems:
            raise ValueError("; ".join(problems))
        return self


def parse_settings(config: dict[str, Any]) -> Settings:
    """Validate a configuration mapping.

    Raises:
        SettingsError: one line per error, each with its path in the configuration.
    """
    try:
        return Settings.model_validate(config)
    except ValidationError as error:
        lines = [explain(one) for one in error.errors()]
        raise SettingsError(
            f"the configuration has {len(lines)} error{'s' * (len(lines) > 1)}:\n  "
            + "\n  ".join(lines)
        ) from None


def text_settings(text: dict[str, Any]) -> AnyText:
    """One text's settings from a plain mapping (as a job's parameters hold it)."""
    return TypeAdapter(TextSettings).validate_python(text)


def export_schema() -> str:
    """The JSON schema of `Settings`, for editors and for workflow/schemas."""
    schema = Settings.model_json_schema()
    # Overlays may set a group to null, which is taken out before the models see it.
    groups = schema["properties"]["eviction"]["patternProperties"]
    for pattern, group in groups.items():
        groups[pattern] = {"anyOf": [group, {"type": "null"}]}
    return json.dumps(schema, indent=2, sort_keys=True) + "\n"


def is_local(path: str) -> bool:
    """Whether a model or data path names a folder here rather than a hub id."""
    return Path(path).exists() or path.startswith(_LOCAL)
