"""How the training of a reference model is written in the configuration."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field, PositiveFloat, PositiveInt

from kvpareto.config_base import Strict


class ReferenceSettings(Strict):
    """How a reference model is trained. Every field enters the identity of its checkpoint."""

    family: Literal["gpt_neox", "llama"]
    shape: dict[str, Any]
    context: PositiveInt
    vocab_size: PositiveInt = 2048
    steps: PositiveInt
    windows_per_step: PositiveInt = 8
    learning_rate: PositiveFloat = 2e-3
    weight_decay: float = 0.1
    warm_up_steps: PositiveInt = 100
    episode_share: float = Field(0.5, ge=0, le=1)
    code_share: float = Field(0.7, ge=0, le=1)
    seed: int = 0
    evaluate_steps: PositiveInt = 250
    checkpoint_steps: PositiveInt = 250
