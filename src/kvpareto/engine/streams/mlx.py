"""mlx-lm on the same weights: a peer with a rotating cache.

`RotatingKVCache(max_size, keep)` overwrites the oldest entry in place and leaves the kept ones at
their absolute positions (https://github.com/ml-explore/mlx-lm): sinks drift ever further from the
query, which is not what streaming computes. GPT-NeoX has the tanh form of GELU there, and an MLP of
four times the hidden size.

Wheels: Apple silicon, and Linux as `mlx[cpu]`. It runs on the CPU and has no setting for its
threads, so whatever a comparison asks for, MLX takes what it takes.
"""

from __future__ import annotations

import importlib.util
from importlib import import_module
from typing import Any

import numpy as np
import torch
from transformers import PreTrainedModel

from kvpareto.jobs import RefusedError, UnavailableError
from kvpareto.measure.latency import TimedDecoder
from kvpareto.models import families
from kvpareto.models.families import UnsupportedModelError

_MODULES = {
    "gpt_neox": "gpt_neox",
    "llama": "llama",
    "mistral": "llama",
    "qwen2": "qwen2",
    "qwen3": "qwen3",
}
"""Families, and the modules of mlx-lm that hold them."""

_MEASURED_STEPS = 8


class MlxStream:
    """Decoding in MLX; ids come and logits go as tensors of torch.

    Attributes:
        attention: of the torch model, which computes nothing here.
    """

    attention = "sdpa"

    def __init__(self, model: PreTrainedModel, cap: int, sinks: int) -> None:
        """
        Raises:
            UnavailableError: mlx-lm is not installed, or the model is not on the CPU.
            UnsupportedModelError: another family, or a sliding window.
            RefusedError: mlx-lm's module cannot hold the weights.
        """
        families.rotary(model)  # refuses sliding windows
        for name in ("mlx", "mlx_lm"):
            if importlib.util.find_spec(name) is None:
                raise UnavailableError(
                    f"{name} is not installed: pip install -c envs/constraints.txt -e '.[peers]', "
                    "on Linux or Apple silicon"
                )
        if model.device.type != "cpu":
            raise UnavailableError(f"mlx-lm is run on the CPU, and the model is on {model.device}")
        import mlx.core
        from mlx_lm.models.cache import RotatingKVCache

        self._mx = mlx.core
        self._mx.set_default_device(self._mx.cpu)
        self._cache_class = RotatingKVCache
        self._before = self._mx.get_active_memory()
        self.model = model
        self.cap, self.sinks = cap, sinks
        self._own = self._converted()
        self._cache: list[Any] = []

    def prefill(self, ids: torch.Tensor) -> torch.Tensor:
        """The first tokens, [1, tokens]; logits of the last one, [1, vocab]."""
        count = families.layer_count(self.model)
        self._cache = [self._cache_class(max_size=self.cap, keep=self.sinks) for _ in range(count)]
        return self.decode(ids)

    def decode(self, ids: torch.Tensor) -> torch.Tensor:
        """One token, [1, 1]; logits, [1, vocab]."""
        logits = self._own(self._mx.array(ids.numpy()), cache=self._cache)[:, -1]
        return torch.from_numpy(np.array(logits.astype(self._mx.float32)))

    @property
    def read_bytes(self) -> int:
        """Bytes of weights that a token reads: of an input embedding one row."""
        from mlx.utils import tree_flatten

        sizes = {name: int(part.nbytes) for name, part in tree_flatten(self._own.parameters())}
        if any(name.endswith(("lm_head.weight", "embed_out.weight")) for name in sizes):
            sizes = {name: size for name, size in sizes.items() if ".embed_" not in name}
        return sum(sizes.values())

    def peak_bytes(self, decoder: TimedDecoder) -> int:
        """Bytes that MLX had allocated at most for this stream, over a few tokens."""
        self._mx.reset_peak_memory()
        for _ in range(_MEASURED_STEPS):
            decoder.token()
        return int(self._mx.get_peak_memory() - self._before)

    def _converted(self) -> Any:
        """The model in MLX."""
        config = self.model.config
        if config.model_type not in _MODULES:
            raise UnsupportedModelError(
                f"model family {config.model_type!r} is not supported; supported: "
                f"{', '.join(sorted(_MODULES))}"
            )
        module = import_module(f"mlx_lm.models.{_MODULES[config.model_type]}")
        rope: dict[str, Any] = config.rope_parameters
        scaled = None if rope["rope_type"] == "default" else rope
        described = config.to_dict() | {
            "rope_theta": rope["rope_theta"],
            "rope_scaling": scaled,
            "rotary_emb_base": rope["rope_theta"],
            "rotary_pct": rope.get("partial_rotary_factor", 1.0),
        }
        own = module.Model(module.ModelArgs.from_dict(described))
        dtype = getattr(self._mx, str(self.model.dtype).removeprefix("torch."))
        weights = {
            name: self._mx.array(tensor.float().numpy()).astype(dtype)
            for name, tensor in self.model.state_dict().items()
        }
        try:
            own.load_weights(list(own.sanitize(weights).items()))
        except ValueError as error:
            raise RefusedError(
                f"mlx-lm's {config.model_type} cannot hold the weights: {error}"
            ) from error
        self._mx.eval(own.parameters())
        return own
