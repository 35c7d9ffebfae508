"""How the reuse part of a study is written in the configuration."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    NonNegativeInt,
    PositiveFloat,
    PositiveInt,
    field_validator,
)

from kvpareto.config_base import MethodName, Strict, Swept


class ReuseArms(Swept):
    """One strategy with its parameters; every parameter is a list, and the lists are crossed."""

    strategy: MethodName


class ReuseGroup(Strict):
    """A named matrix of reuse arms: models x tasks x drops x arms."""

    models: list[str] = Field(min_length=1)
    tasks: list[str] = Field(min_length=1)
    drops: list[str] = Field(["none"], min_length=1, description="names under drops, or none")
    timing: bool = Field(True, description="false: quality only")
    arms: list[ReuseArms] = Field(min_length=1)


class DropSettings(BaseModel):
    """What is evicted from the fused cache after the first token; further keys are the method's."""

    model_config = ConfigDict(extra="allow", frozen=True, strict=True)
    method: MethodName

    @property
    def parameters(self) -> dict[str, Any]:
        return dict(self.model_extra or {})


class StoreSettings(Strict):
    """The chunk store."""

    prefix_mode: Literal["bos", "prompt"] = Field(
        "bos", description="a chunk is encoded after BOS alone, or after the prompt's whole prefix"
    )
    surprisal: bool = Field(True, description="keep the losses of the encoding pass")


class GateSettings(Strict):
    """Parity: with r = 1 the fusion forward is a full prefill, or the model gets no numbers."""

    items: PositiveInt = Field(4, description="prompts of each task that are checked")
    tolerance: PositiveFloat = Field(
        1e-4, description="largest error of a logit, relative to the largest logit"
    )
    same_answer: bool = Field(
        True, description="false where rounding may turn a near tie, as in bfloat16"
    )


class DepthSettings(Strict):
    """A deeper model with random weights, for time only: a check at layer 1 costs two layers."""

    family: Literal["llama", "mistral", "qwen2", "qwen3", "gpt_neox"] = "llama"
    shape: dict[str, Any]
    dtype: Literal["float32", "bfloat16", "float16"] = "float32"
    device: str = Field("cpu", pattern=r"^(auto|cpu|cuda|cuda:\d+|mps)$")
    tokens: PositiveInt = Field(2048, description="length of the prompt")
    chunk_tokens: PositiveInt = 256
    question_tokens: PositiveInt = 32
    arms: list[ReuseArms] = Field(min_length=1)


class ReuseTimingSettings(Strict):
    """Time to first token, each arm in turns with a full prefill in one process."""

    tasks: list[str] = Field([], description="tasks to time on; empty: the first of each model")
    pairs: PositiveInt = Field(8, ge=6, description="alternating pairs")
    warm_up: NonNegativeInt = 2
    threads: PositiveInt = 1
    decoded_tokens: PositiveInt = Field(8, description="tokens after the first, for TPOT")
    depths: dict[str, DepthSettings] = {}

    @field_validator("depths", mode="before")
    @classmethod
    def _drop_null_depths(cls, depths: Any) -> Any:
        """As for groups: an overlay takes a depth out by null."""
        if not isinstance(depths, dict):
            return depths
        return {name: depth for name, depth in depths.items() if depth is not None}
