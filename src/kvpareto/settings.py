"""The configuration of a study, as models that reject what they do not know.

`parse_settings` takes what Snakemake has read and merged, and reports every error at once with its
path in the configuration and what to do. Sweeps are lists throughout:
Snakemake merges mappings but replaces lists, so a list is what an overlay can swap as a whole.
"""

from __future__ import annotations

import json
from typing import Any

from pydantic import Field, ValidationError, field_validator, model_validator

from kvpareto.attention_settings import AttentionSettings
from kvpareto.claim_settings import Claim, Margins, Recommendation, RecommendedTest
from kvpareto.config_base import GroupName, Name, Strict, explain, unknown, without_null
from kvpareto.decode_settings import DecodeSettings
from kvpareto.eviction_settings import (
    BaselineSettings,
    EvictionGroup,
    ProbeSettings,
    QualitySettings,
    StatisticsSettings,
    TimingSettings,
)
from kvpareto.merge_settings import MergeGroup, MergeMemorySettings, MergeProbeSettings
from kvpareto.model_settings import ModelSettings
from kvpareto.reference_settings import ReferenceSettings
from kvpareto.reuse_settings import (
    DropSettings,
    GateSettings,
    ReuseGroup,
    ReuseTimingSettings,
    StoreSettings,
)
from kvpareto.task_settings import TaskSettings
from kvpareto.text_settings import TextSettings


class SettingsError(ValueError):
    """The configuration is wrong; the message lists every error with its path."""


class Settings(Strict):
    """A whole study."""

    study: Name
    models: dict[Name, ModelSettings] = Field(min_length=1)
    texts: dict[Name, TextSettings] = Field(min_length=1)
    eviction: dict[GroupName, EvictionGroup] = {}
    tasks: dict[Name, TaskSettings] = {}
    reuse: dict[GroupName, ReuseGroup] = {}
    drops: dict[Name, DropSettings] = {}
    store: StoreSettings = StoreSettings()
    gate: GateSettings = GateSettings()
    reuse_timing: ReuseTimingSettings = ReuseTimingSettings()
    merge: dict[GroupName, MergeGroup] = {}
    merge_memory: MergeMemorySettings = MergeMemorySettings()
    merge_probes: MergeProbeSettings = MergeProbeSettings()
    attention: AttentionSettings | None = Field(None, description="null: no such part")
    decode: DecodeSettings = DecodeSettings()
    quality: QualitySettings = QualitySettings()
    baseline: BaselineSettings = BaselineSettings()
    timing: TimingSettings = TimingSettings()
    statistics: StatisticsSettings = StatisticsSettings()
    probes: ProbeSettings = ProbeSettings()
    margins: Margins = Margins()
    claims: dict[Name, Claim] = {}
    recommend: dict[str, Recommendation] = {}
    reference: dict[Name, ReferenceSettings] = {}

    @field_validator("eviction", "reuse", "merge", mode="before")
    @classmethod
    def _drop_null_groups(cls, groups: Any) -> Any:
        return without_null(groups)

    @model_validator(mode="after")
    def _groups_name_what_exists(self) -> Settings:
        parts = (self.eviction, self.reuse, self.merge, self.attention, self.decode.groups)
        problems = [] if any(parts) else ["eviction, reuse, merge, decode: no group in any of them"]
        if self.merge_probes.models and not self.merge_probes.tasks:
            problems.append("merge_probes.tasks: models are named and no tasks; name both or none")
        if self.merge_memory.models and not self.merge:
            problems.append(
                "merge_memory.models: without a group under merge nothing reads them; add one, or "
                "write []"
            )
        problems += unknown("timing.texts", self.timing.texts, "texts", self.texts)
        used = {text for matrix in self.eviction.values() for text in matrix.texts}
        problems += [
            f"timing.texts: no group runs on {name!r}; take from {', '.join(sorted(used))}"
            for name in self.timing.texts
            if used and name in self.texts and name not in used
        ]
        known: dict[str, list[str]] = {
            "models": [*self.models],
            "texts": [*self.texts],
            "tasks": [*self.tasks],
            "drops": ["none", *self.drops],
        }
        for part in ("eviction", "reuse", "merge"):
            for group, own in getattr(self, part).items():
                for kind, names in known.items():
                    named = getattr(own, kind, [])
                    problems += unknown(f"{part}.{group}.{kind}", named, kind, names)
        problems += [
            f"merge.{group}: {name!r} is both a task and a text; rename one of the two"
            for group, merged in self.merge.items()
            for name in {*merged.tasks, *merged.texts} & {*self.tasks} & {*self.texts}
        ]
        problems += unknown("merge_memory.models", self.merge_memory.models, "models", self.models)
        problems += unknown("merge_probes.models", self.merge_probes.models, "models", self.models)
        problems += unknown("merge_probes.tasks", self.merge_probes.tasks, "tasks", self.tasks)
        for name, shape in self.decode.shapes.items():
            for kind, own in (("model", shape.model), ("text", shape.text)):
                if own is not None:
                    where = f"decode.shapes.{name}.{kind}"
                    problems += unknown(where, [own], f"{kind}s", known[f"{kind}s"])
        problems += unknown("reuse_timing.tasks", self.reuse_timing.tasks, "tasks", self.tasks)
        for name, model in self.models.items():
            if model.converted is not None:
                where = f"models.{name}.converted.source"
                problems += unknown(where, [model.converted.source], "models", self.models)
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


def export_schema() -> str:
    """The JSON schema of `Settings`, for editors and for workflow/schemas."""
    schema = Settings.model_json_schema()
    # Overlays may set a group or a depth to null, which is taken out before the models see it.
    decode = schema["$defs"]["DecodeSettings"]["properties"]["groups"]
    parts = [schema["properties"][part] for part in ("eviction", "reuse", "merge")]
    for groups in (part["patternProperties"] for part in (*parts, decode)):
        for pattern, group in groups.items():
            groups[pattern] = {"anyOf": [group, {"type": "null"}]}
    depths = schema["$defs"]["ReuseTimingSettings"]["properties"]["depths"]
    depths["additionalProperties"] = {"anyOf": [depths["additionalProperties"], {"type": "null"}]}
    return json.dumps(schema, indent=2, sort_keys=True) + "\n"
