"""How the merge part of a study is written in the configuration."""

from __future__ import annotations

from typing import Literal

from pydantic import (
    Field,
    PositiveInt,
    model_validator,
)

from kvpareto.config_base import MethodName, Strict, Swept


class MergeArms(Swept):
    """An offset method with its parameters; every parameter is a list; lists are crossed."""

    offset: MethodName


class WindowSettings(Strict):
    """Where a text is cut: tokens that are scored, and the chunks before them."""

    chunk_tokens: PositiveInt = 64
    scored_tokens: PositiveInt = Field(64, ge=2, description="of each window")
    per_document: PositiveInt = Field(4, description="windows of each document")


class MergeGroup(Strict):
    """A named matrix of merge arms: models x (tasks or texts) x positions x arms."""

    models: list[str] = Field(min_length=1)
    tasks: list[str] = []
    texts: list[str] = []
    positions: list[Literal["shared", "sequential"]] = Field(["shared", "sequential"], min_length=1)
    chunks: list[PositiveInt] = Field(
        min_length=1,
        description="chunks of the context: of a task's item those with the answer and the first "
        "others, of a text the last ones before the scored tokens",
    )
    windows: WindowSettings = WindowSettings()
    arms: list[MergeArms] = Field(min_length=1)

    @model_validator(mode="after")
    def _something_to_answer(self) -> MergeGroup:
        if not self.tasks and not self.texts:
            raise ValueError("name tasks or texts")
        return self


class MergeProbeSettings(Strict):
    """The three flaws of deletion, each measured by a probe."""

    models: list[str] = []
    tasks: list[str] = Field([], description="tasks whose items say where their answer is")
    positions: Literal["shared", "sequential"] = "shared"
    chunks: PositiveInt = Field(9, ge=2)
    top_k: PositiveInt = 2
    threshold: float = Field(2.0, description="deficit in nats beyond which a chunk is deleted")
    sink_tokens: PositiveInt = 4


class MergeMemorySettings(Strict):
    """Peak memory and time of a step, chunk by chunk and concatenated, in turns in one process."""

    models: list[str] = []
    chunks: list[PositiveInt] = Field([4, 8, 16, 32, 64], min_length=2)
    chunk_tokens: PositiveInt = 256
    question_tokens: PositiveInt = 16
    arms: list[MergeArms] = Field([MergeArms(offset="energy_deficit")], min_length=1)
    pairs: PositiveInt = Field(8, ge=6, description="alternating pairs")
    warm_up: PositiveInt = 2
    threads: PositiveInt = 1
