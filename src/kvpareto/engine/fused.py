"""Fewer and larger products per token: an exact rewrite of a model's weights at load.

A norm's scale and shift are linear, so they go into the matrices behind it, and matrices that read
one input become one. In a parallel-residual GPT-NeoX block attention and MLP read the same x:
normalise once, then one product for query, key, value and the MLP's first matrix, and one for both
outputs. Llama kinds get one product for query, key and value, and one for gate and up.

The rewrite is done in float64 and rounded once, to the model's dtype.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import nn
from torch.nn import functional
from transformers import PreTrainedModel
from transformers.cache_utils import Cache
from transformers.modeling_outputs import CausalLMOutputWithPast

from kvpareto.attention.rope import turned
from kvpareto.cache.ring import attend_ring
from kvpareto.cache.ring_clock import RingClock
from kvpareto.jobs import RefusedError
from kvpareto.models import families

Angles = tuple[torch.Tensor, torch.Tensor] | None
"""Cosine and sine for queries and keys of a pass, [1, 1, new, rotary_dim / 2]; None: unmoved."""


def fused(model: PreTrainedModel) -> FusedModel:
    """The model with merged products; it computes the same.

    Raises:
        RefusedError: GPT-NeoX without parallel residual, whose MLP reads another input.
        UnsupportedModelError: another family.
    """
    with torch.no_grad():
        return FusedModel(model).eval()


class FusedModel(nn.Module):
    """A causal language model for a ring cache, called as a model of the library is."""

    def __init__(self, model: PreTrainedModel) -> None:
        super().__init__()
        parts = families.blocks(model)
        trunk: Any = model.base_model
        config = model.config
        head: Any = model.get_output_embeddings()
        self.rotary = parts.rotary
        self.rotary_scale = parts.rotary_scale
        self.embedding: nn.Embedding = model.get_input_embeddings()  # type: ignore[assignment]
        if config.model_type == "gpt_neox":
            if not config.use_parallel_residual:
                raise RefusedError(
                    "fused weights of GPT-NeoX need use_parallel_residual: without it the MLP "
                    "reads another input than attention does"
                )
            self.norm: nn.Module = _Standardise(config.layer_norm_eps)
            last = trunk.final_layer_norm
            kind: type[_ParallelBlock | _GatedBlock] = _ParallelBlock
        else:
            self.norm = _Scale(config.rms_norm_eps)
            last = trunk.norm
            kind = _GatedBlock
        self.head = _merged([(head, last)])
        self.blocks = nn.ModuleList(
            kind(block, self.norm, index, parts.softmax_scale)
            for index, block in enumerate(trunk.layers)
        )

    def forward(
        self,
        input_ids: torch.Tensor,
        position_ids: torch.Tensor,
        past_key_values: Cache,
        ring: RingClock,
        logits_to_keep: int = 0,
        **_: object,
    ) -> CausalLMOutputWithPast:
        """Logits for new tokens, [batch, new, vocab]; one at a time once the ring is full."""
        hidden = self.embedding(input_ids)
        angles = None
        # A single token stands at position 0 of its pass, where RoPE but for its scale is nothing.
        if input_ids.shape[1] > 1 or self.rotary_scale != 1:
            cos, sin = self.rotary.angles(position_ids[:, None])
            angles = cos * self.rotary_scale, sin * self.rotary_scale
        for block in self.blocks:
            hidden = block(hidden, past_key_values, ring, angles)
        logits = self.head(self.norm(hidden[:, -logits_to_keep:]))
        return CausalLMOutputWithPast(logits=logits)


class _Standardise(nn.Module):
    """LayerNorm without scale and shift."""

    def __init__(self, eps: float) -> None:
        super().__init__()
        self.eps = eps

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return functional.layer_norm(x, x.shape[-1:], eps=self.eps)


class _Scale(nn.Module):
    """RMSNorm without scale; the mean square is taken in float32, as the models take it."""

    def __init__(self, eps: float) -> None:
        super().__init__()
        self.eps = eps

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        wide = x.float()
        return (wide * torch.rsqrt(wide.square().mean(-1, keepdim=True) + self.eps)).to(x.dtype)


class _Block(nn.Module):
    """What both kinds of block share: attention over a ring layer."""

    is_causal = True

    def __init__(
        self, norm: nn.Module, index: int, scaling: float, heads: tuple[int, int], head_dim: int
    ) -> None:
        """
        Args:
            heads: query heads, key-value heads.
        """
        super().__init__()
        self.norm = norm
        self.index = index
        self.scaling = scaling
        self.head_dim = head_dim
        self.num_key_value_groups = heads[0] // heads[1]
        self.widths = [head_dim * count for count in (heads[0], heads[1], heads[1])]
        self.query_norm: nn.Module = nn.Identity()
        self.key_norm: nn.Module = nn.Identity()

    def attend(
        self, projected: torch.Tensor, cache: Cache, ring: RingClock, angles: Angles
    ) -> torch.Tensor:
        """[1, new, query, key and value widths] to [1, new, query width]."""
        shape = (*projected.shape[:-1], -1, self.head_dim)
        query, key, value = (part.view(shape) for part in projected.split(self.widths, dim=-1))
        query = _placed(self.query_norm(query).transpose(1, 2), angles)
        key = _placed(self.key_norm(key).transpose(1, 2), angles)
        keys, values = cache.update(key, value.transpose(1, 2), self.index)
        output, _ = attend_ring(self, query, keys, values, None, ring=ring, scaling=self.scaling)
        return output.flatten(2)


class _ParallelBlock(_Block):
    """GPT-NeoX with parallel residual: one product in, one out."""

    def __init__(self, block: Any, norm: nn.Module, index: int, scaling: float) -> None:
        own, mlp = block.attention, block.mlp
        head_dim = own.head_size
        count = own.dense.in_features // head_dim
        super().__init__(norm, index, scaling, (count, count), head_dim)
        inner = _merged(
            [
                (own.query_key_value, block.input_layernorm),
                (mlp.dense_h_to_4h, block.post_attention_layernorm),
            ]
        )
        # Its rows go head by head, each with query, key and value; here all queries come first.
        rows = torch.arange(3 * count * head_dim).view(count, 3, head_dim).transpose(0, 1).flatten()
        for part in (inner.weight, inner.bias):
            if part is not None:
                part[: len(rows)] = part[rows]
        self.inner = inner
        self.outer = _side_by_side(own.dense, mlp.dense_4h_to_h)
        self.act = mlp.act
        self.widths_in = [3 * count * head_dim, mlp.dense_h_to_4h.out_features]

    def forward(
        self, hidden: torch.Tensor, cache: Cache, ring: RingClock, angles: Angles
    ) -> torch.Tensor:
        projected, wide = self.inner(self.norm(hidden)).split(self.widths_in, dim=-1)
        attended = self.attend(projected, cache, ring, angles)
        output: torch.Tensor = self.outer(torch.cat([attended, self.act(wide)], dim=-1))
        return hidden + output


class _GatedBlock(_Block):
    """Llama kinds: one product for query, key and value, one for gate and up."""

    def __init__(self, block: Any, norm: nn.Module, index: int, scaling: float) -> None:
        own, mlp = block.self_attn, block.mlp
        heads = tuple(part.out_features // own.head_dim for part in (own.q_proj, own.k_proj))
        super().__init__(norm, index, scaling, heads, own.head_dim)
        first, second = block.input_layernorm, block.post_attention_layernorm
        self.attention_in = _merged(
            [(part, first) for part in (own.q_proj, own.k_proj, own.v_proj)]
        )
        self.attention_out = own.o_proj
        self.mlp_in = _merged([(part, second) for part in (mlp.gate_proj, mlp.up_proj)])
        self.mlp_out = mlp.down_proj
        self.act = mlp.act_fn
        if hasattr(own, "q_norm"):
            self.query_norm, self.key_norm = own.q_norm, own.k_norm

    def forward(
        self, hidden: torch.Tensor, cache: Cache, ring: RingClock, angles: Angles
    ) -> torch.Tensor:
        projected = self.attention_in(self.norm(hidden))
        hidden = hidden + self.attention_out(self.attend(projected, cache, ring, angles))
        gate, up = self.mlp_in(self.norm(hidden)).chunk(2, dim=-1)
        output: torch.Tensor = self.mlp_out(self.act(gate) * up)
        return hidden + output


def _placed(x: torch.Tensor, angles: Angles) -> torch.Tensor:
    return x if angles is None else turned(x, *angles)


def _merged(parts: list[tuple[nn.Linear, Any]]) -> nn.Linear:
    """One matrix for several that read the same input, each behind its norm's scale and shift."""
    weights, biases = [], []
    for linear, norm in parts:
        weight, scale = linear.weight.double(), norm.weight.double()
        bias = weight.new_zeros(len(weight)) if linear.bias is None else linear.bias.double()
        shift = getattr(norm, "bias", None)
        weights.append(weight * scale)
        biases.append(bias if shift is None else bias + weight @ shift.double())
    return _linear(torch.cat(weights), torch.cat(biases), parts[0][0].weight.dtype)


def _side_by_side(left: nn.Linear, right: nn.Linear) -> nn.Linear:
    """One matrix for the sum of two outputs."""
    weight = torch.cat([left.weight.double(), right.weight.double()], dim=1)
    biases = [part.bias.double() for part in (left, right) if part.bias is not None]
    bias = sum(biases, weight.new_zeros(len(weight)))
    return _linear(weight, bias, left.weight.dtype)


def _linear(weight: torch.Tensor, bias: torch.Tensor, dtype: torch.dtype) -> nn.Linear:
    """A linear layer; without a bias where all of it is zero."""
    with_bias = bool(bias.any())
    width, inputs = weight.shape
    made = nn.Linear(inputs, width, bias=with_bias, device="meta")
    made.weight = nn.Parameter(weight.to(dtype), requires_grad=False)
    if with_bias:
        made.bias = nn.Parameter(bias.to(dtype), requires_grad=False)
    return made
