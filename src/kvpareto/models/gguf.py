"""The weights of a model as GGUF: what llama.cpp reads.

Tensors are what llama.cpp's own converter makes of them: rows of Llama's queries and keys in the
order of its interleaved RoPE, GPT-NeoX's fused projection as all queries, all keys, all values. The
vocabulary is a stand-in of numbered tokens: prompts are given as ids, no token is put before them,
and none ends a text.

Source: https://github.com/ggml-org/llama.cpp (convert_hf_to_gguf.py).
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_args

import gguf
import numpy as np
import torch
from transformers import PreTrainedModel

from kvpareto.model_settings import GgufKind
from kvpareto.models import families
from kvpareto.models.families import UnsupportedModelError
from kvpareto.records import atomic_path

CONTEXT = 2**20
"""Context length that is written down: the server clips its own to it, and a bounded cache never
leaves the first positions anyway."""

_ARCHITECTURES = {
    "gpt_neox": gguf.MODEL_ARCH.GPTNEOX,
    "llama": gguf.MODEL_ARCH.LLAMA,
    "mistral": gguf.MODEL_ARCH.LLAMA,
    "qwen2": gguf.MODEL_ARCH.QWEN2,
    "qwen3": gguf.MODEL_ARCH.QWEN3,
}
_ROPES = {"llama": ("default", "linear", "llama3")}
"""Kinds of RoPE by family that can be written; elsewhere only the default."""

_FILE_TYPES = {
    "f32": gguf.LlamaFileType.ALL_F32,
    "f16": gguf.LlamaFileType.MOSTLY_F16,
    "bf16": gguf.LlamaFileType.MOSTLY_BF16,
    "q8_0": gguf.LlamaFileType.MOSTLY_Q8_0,
}
_ACTIVATIONS = {"gpt_neox": ("gelu", "gelu_new", "gelu_fast", "gelu_pytorch_tanh")}
"""llama.cpp has one GELU for GPT-NeoX, the tanh form, whatever the model was trained with."""

_NO_VOCABULARY = "rwkv"
"""The one kind of vocabulary that has no token of beginning and end unless it is named."""


def write_gguf(model: PreTrainedModel, kind: GgufKind, path: str | Path) -> None:
    """Write a model's weights to `path`; a kill leaves the old file, the new one, or none.

    Raises:
        UnsupportedModelError: a family, RoPE, activation or shape that llama.cpp or `kind` cannot
            express; names what is supported.
        ValueError: no such kind.
    """
    if kind not in get_args(GgufKind):
        raise ValueError(f"kind {kind!r} is not one of {', '.join(get_args(GgufKind))}")
    _check(model)
    with atomic_path(path) as temporary:
        writer = gguf.GGUFWriter(temporary, gguf.MODEL_ARCH_NAMES[_architecture(model)])
        _describe(writer, model, kind)
        for name, tensor in _tensors(model):
            _add(writer, name, tensor, kind)
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_tensors_to_file()
        writer.close()


def read_bytes(path: str | Path) -> int:
    """Bytes of weights that a token reads: of the input embedding one row, so its table counts
    only where it is the output layer's as well."""
    sizes = {tensor.name: int(tensor.n_bytes) for tensor in gguf.GGUFReader(path).tensors}
    if "output.weight" in sizes:
        del sizes["token_embd.weight"]
    return sum(sizes.values())


def _architecture(model: PreTrainedModel) -> gguf.MODEL_ARCH:
    return _ARCHITECTURES[model.config.model_type]


def _check(model: PreTrainedModel) -> None:
    config = model.config
    family = config.model_type
    if family not in _ARCHITECTURES:
        raise UnsupportedModelError(
            f"model family {family!r} cannot be written as GGUF; supported: "
            f"{', '.join(sorted(_ARCHITECTURES))}"
        )
    families.rotary(model)  # refuses sliding windows
    problems: dict[str, tuple[Any, tuple[Any, ...]]] = {
        "rope type": (_rope(config)["rope_type"], _ROPES.get(family, ("default",))),
        "activation": (config.hidden_act, _ACTIVATIONS.get(family, ("silu",))),
    }
    if family == "gpt_neox":
        problems["attention_bias"] = (config.attention_bias, (True,))
    for what, (found, supported) in problems.items():
        if found not in supported:
            raise UnsupportedModelError(
                f"{what} {found!r} of a {family} cannot be written as GGUF; supported: "
                f"{', '.join(map(str, supported))}"
            )


def _rope(config: Any) -> dict[str, Any]:
    found: dict[str, Any] = config.rope_parameters
    return found


def _describe(writer: gguf.GGUFWriter, model: PreTrainedModel, kind: GgufKind) -> None:
    """Metadata."""
    config: Any = model.config
    rope, width = _rope(config), families.head_dim(model)
    writer.add_file_type(_FILE_TYPES[kind])
    writer.add_quantization_version(gguf.GGML_QUANT_VERSION)
    writer.add_vocab_size(config.vocab_size)
    writer.add_context_length(CONTEXT)
    writer.add_embedding_length(config.hidden_size)
    writer.add_block_count(families.layer_count(model))
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(config.num_attention_heads)
    writer.add_head_count_kv(families.kv_heads(model))
    writer.add_key_length(width)
    writer.add_value_length(width)
    writer.add_rope_dimension_count(int(width * rope.get("partial_rotary_factor", 1.0)))
    writer.add_rope_freq_base(rope["rope_theta"])
    if rope["rope_type"] == "linear":
        writer.add_rope_scaling_type(gguf.RopeScalingType.LINEAR)
        writer.add_rope_scaling_factor(rope["factor"])
    if config.model_type == "gpt_neox":
        writer.add_layer_norm_eps(config.layer_norm_eps)
        writer.add_parallel_residual(config.use_parallel_residual)
    else:
        writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    writer.add_tokenizer_model(_NO_VOCABULARY)
    writer.add_token_list([f"<{token}>" for token in range(config.vocab_size)])
    writer.add_token_types([gguf.TokenType.NORMAL] * config.vocab_size)
    writer.add_add_bos_token(False)
    writer.add_add_eos_token(False)


def _tensors(model: PreTrainedModel) -> Iterator[tuple[str, torch.Tensor]]:
    """Every tensor under llama.cpp's name and in its order of rows."""
    names = gguf.get_tensor_name_map(_architecture(model), families.layer_count(model))
    family = model.config.model_type
    # Those that share the table on their own need no second copy; GPT-NeoX's loader asks for it.
    shared = model.config.tie_word_embeddings and family != "gpt_neox"
    interleaved = family in ("llama", "mistral")
    heads = {
        "q_proj": int(model.config.num_attention_heads),
        "k_proj": families.kv_heads(model),
    }
    for name, tensor in model.state_dict().items():
        part = name.split(".")[-2]
        if interleaved and part in heads:
            tensor = _interleaved(tensor, heads[part])
        elif part == "query_key_value":
            tensor = _unfused(tensor, heads["q_proj"])
        written = names.get_name(name, try_suffixes=(".weight", ".bias"))
        if written is None:
            raise UnsupportedModelError(f"llama.cpp has no name for tensor {name}")
        if not (shared and written == "output.weight"):
            yield written, tensor
    if _rope(model.config)["rope_type"] == "llama3":
        yield "rope_freqs.weight", _slowed(model)


def _interleaved(tensor: torch.Tensor, heads: int) -> torch.Tensor:
    """Rows of queries or keys whose rotated pairs are neighbours instead of half a head apart."""
    halves = tensor.view(heads, 2, -1, *tensor.shape[1:])
    return halves.transpose(1, 2).reshape(tensor.shape)


def _unfused(tensor: torch.Tensor, heads: int) -> torch.Tensor:
    """Rows of a projection that has queries, keys and values head by head, each kind together."""
    by_head = tensor.view(heads, 3, -1, *tensor.shape[1:])
    return by_head.transpose(0, 1).reshape(tensor.shape)


def _slowed(model: PreTrainedModel) -> torch.Tensor:
    """How many times slower each pair is rotated than theta says."""
    rotary = families.rotary(model)
    pairs = len(rotary.inv_freq)
    theta = float(_rope(model.config)["rope_theta"])
    plain = theta ** -(torch.arange(pairs, dtype=torch.float64) / pairs)
    return (plain / rotary.inv_freq.double().cpu()).float()


def _add(writer: gguf.GGUFWriter, name: str, tensor: torch.Tensor, kind: GgufKind) -> None:
    values = tensor.detach().float().cpu().numpy()
    own: Any = gguf.GGMLQuantizationType[(kind if tensor.dim() > 1 else "f32").upper()]
    block, _ = gguf.GGML_QUANT_SIZES[own]
    if values.shape[-1] % block:
        raise UnsupportedModelError(
            f"{name} has rows of {values.shape[-1]} weights, and {kind} packs {block} at a time; "
            "write f32, f16 or bf16"
        )
    writer.add_tensor(name, gguf.quants.quantize(np.ascontiguousarray(values), own), raw_dtype=own)
