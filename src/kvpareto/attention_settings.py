"""How the micro-benchmarks of self-attention are written in the configuration."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, NonNegativeInt, PositiveFloat, PositiveInt, model_validator

from kvpareto.config_base import Strict


class AttentionSettings(Strict):
    """One attention layer with random weights, batch 1, in every backend and dtype."""

    embedding: PositiveInt = 256
    heads: PositiveInt = 4
    kv_heads: PositiveInt | None = Field(None, description="null: as heads")
    device: str = Field("cpu", pattern=r"^(cpu|cuda|cuda:\d+)$")
    backends: dict[
        Literal["float32", "bfloat16", "float16"],
        Annotated[list[Literal["reference", "sdpa", "flex", "flex_eager"]], Field(min_length=1)],
    ] = Field({"float32": ["reference", "sdpa"]}, description="of each dtype")
    lengths: list[PositiveInt] = Field(min_length=1, description="of the forward pass, in tokens")
    flex_lengths: list[PositiveInt] | None = Field(
        None, description="lengths at which flex, compiled for each of them, is timed; null: all"
    )
    backward_lengths: list[PositiveInt] = Field(
        [32], description="lengths at which gradients are taken, and compared with float64"
    )
    mask_lengths: list[PositiveInt] = Field(
        [32], description="lengths at which ways to mask are compared"
    )
    input_scales: list[PositiveFloat] = Field(
        [0.001, 1.0, 100.0, 1000.0, 10000.0],
        description="of unit normal inputs",
    )
    scale_length: PositiveInt = Field(32, description="length at which inputs are scaled")
    mask_bytes: NonNegativeInt = Field(2**26, description="limit of the mask cache")
    mask_requests: PositiveInt = Field(1000, description="masks of random lengths asked for")
    rounds: PositiveInt = Field(16, ge=6, description="turns of what is compared")
    seconds: PositiveFloat = Field(
        1.0,
        description="time for each comparison: short calls are repeated within a round, long ones "
        "get fewer rounds, three at least, and below six there is no interval",
    )
    threads: PositiveInt = 1

    @model_validator(mode="after")
    def _heads_divide(self) -> AttentionSettings:
        if self.embedding % self.heads or self.heads % (self.kv_heads or self.heads):
            raise ValueError(
                f"heads: embedding {self.embedding} must be a multiple of heads {self.heads}, and "
                f"heads of kv_heads {self.kv_heads}"
            )
        return self
