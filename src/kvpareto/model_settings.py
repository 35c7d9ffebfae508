"""How a model is written in the configuration."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import Field, model_validator

from kvpareto.config_base import LOCAL, Name, Strict, need_revision

Dtype = Literal["float32", "bfloat16", "float16"]

GgufKind = Literal["f32", "f16", "bf16", "q8_0"]
"""Types of the matrices in a GGUF file; norms and biases are always in float32."""


class Conversion(Strict):
    """The very weights of another model of the study, a Llama, written as another family."""

    source: Name
    family: Literal["mistral", "qwen2"]


class ModelSettings(Strict):
    """A causal language model: a local folder or a hub id."""

    path: str = Field(description="folder of this repository, or a hub id")
    revision: str | None = Field(None, description="commit of the hub id; required for hub ids")
    dtype: Dtype = "float32"
    device: str = Field(
        "cpu",
        pattern=r"^(auto|cpu|cuda|cuda:\d+|mps)$",
        description="auto: cuda where torch sees one, else cpu",
    )
    converted: Conversion | None = Field(None, description="made by a rule, at `path`")

    @model_validator(mode="after")
    def _hub_needs_revision(self) -> ModelSettings:
        need_revision(self.path, self.revision)
        return self


def is_local(path: str) -> bool:
    """Whether a model or data path names a folder here rather than a hub id."""
    return Path(path).exists() or path.startswith(LOCAL)
