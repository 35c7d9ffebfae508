"""How the decode part of a study is written in the configuration."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import (
    Field,
    NonNegativeInt,
    PositiveFloat,
    PositiveInt,
    field_validator,
    model_validator,
)

from kvpareto.config_base import GroupName, MethodName, Name, Strict, Swept, unknown, without_null


class ShapeSettings(Strict):
    """A model to decode with: the study's, or random weights, of which only time is taken."""

    model: Name | None = Field(None, description="a model of the study, with its weights")
    text: Name | None = Field(None, description="a text of the study; its first document is read")
    config: dict[str, Any] | None = Field(
        None, description="model_type and sizes as in the library's config.json; random weights"
    )

    @model_validator(mode="after")
    def _one_of_both(self) -> ShapeSettings:
        if (self.model is None) == (self.config is None):
            raise ValueError("name either a model of the study or a config")
        if (self.model is None) != (self.text is None):
            raise ValueError("a model needs a text to read; a config reads random tokens")
        if self.config is not None and "model_type" not in self.config:
            raise ValueError("config: model_type is missing; for example gpt_neox or llama")
        return self


class EngineArms(Swept):
    """A decode engine with its parameters; every parameter is a list; lists are crossed."""

    engine: MethodName


class DecodeGroup(Strict):
    """Engines that are timed beside each other in one process: shapes x caps x threads."""

    shapes: list[Name] = Field(min_length=1)
    caps: list[PositiveInt] = Field(min_length=1)
    threads: list[PositiveInt] = Field([2], min_length=1)
    arms: list[EngineArms] = Field(min_length=1)


class DecodeTimingSettings(Strict):
    """How engines take turns."""

    blocks: PositiveInt = Field(12, ge=6, description="turns of every engine")
    tokens_per_block: PositiveInt = Field(64, description="rounded up to whole prune periods")
    warm_up_tokens: PositiveInt = 8


class DecodeQualitySettings(Strict):
    """How engines are held against the oracle: raw keys, rotated for their cache positions."""

    tokens: PositiveInt = Field(2000, description="decoded one by one, past a full cache")


class DecodeAgeSettings(Strict):
    """Whether a stream of any age costs the same: time, memory and error against its age."""

    shapes: list[Name] = []
    cap: PositiveInt = 512
    tokens: PositiveInt = 200_000
    full_tokens: PositiveInt = Field(16_000, description="age up to which the full cache is run")
    bins: PositiveInt = Field(40, ge=8, description="equal parts of the ages, a figure each")
    skipped: NonNegativeInt = Field(1000, description="first tokens, of which no slope is taken")
    threads: PositiveInt = 2
    engines: list[EngineArms] = Field([EngineArms(engine="ring")], min_length=1)


class DriftSettings(Strict):
    """A key that is rotated again and again, or by a rounded angle, against one exact rotation."""

    dim: PositiveInt = Field(64, multiple_of=2, description="rotated dimensions of a head")
    base: PositiveFloat = 10_000.0
    dtypes: list[Literal["float32", "bfloat16", "float16"]] = Field(
        ["float32", "bfloat16"], min_length=1
    )
    ages: list[PositiveInt] = Field([1, 10, 100, 1000, 10_000], min_length=1)


class DecodeSettings(Strict):
    """The decode part of a study."""

    sinks: NonNegativeInt = 4
    shapes: dict[Name, ShapeSettings] = {}
    groups: dict[GroupName, DecodeGroup] = {}
    timing: DecodeTimingSettings = DecodeTimingSettings()
    quality: DecodeQualitySettings = DecodeQualitySettings()
    age: DecodeAgeSettings = DecodeAgeSettings()
    drift: DriftSettings = DriftSettings()

    @field_validator("groups", mode="before")
    @classmethod
    def _drop_null_groups(cls, groups: Any) -> Any:
        return without_null(groups)

    @model_validator(mode="after")
    def _groups_name_shapes(self) -> DecodeSettings:
        named = {
            **{f"groups.{name}.shapes": group.shapes for name, group in self.groups.items()},
            "age.shapes": self.age.shapes,
        }
        problems = [
            problem
            for where, shapes in named.items()
            for problem in unknown(where, shapes, "decode.shapes", self.shapes)
        ]
        if problems:
            raise ValueError("; ".join(problems))
        return self
