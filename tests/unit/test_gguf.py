"""GGUF files hold a model's weights, in llama.cpp's order, and nothing that they cannot hold."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import gguf
import numpy as np
import pytest
import torch
from tests.tiny import SHAPES, VOCAB, tiny_model, tiny_variant
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedModel

from kvpareto.model_settings import GgufKind
from kvpareto.models.families import UnsupportedModelError
from kvpareto.models.gguf import CONTEXT, read_bytes, write_gguf


def written(
    model: PreTrainedModel, folder: Path, kind: GgufKind = "f32"
) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """Metadata, and tensors as float32."""
    write_gguf(model, kind, folder / "own.gguf")
    reader = gguf.GGUFReader(folder / "own.gguf")
    fields = {name: field.contents() for name, field in reader.fields.items()}
    tensors = {
        one.name: gguf.quants.dequantize(one.data, one.tensor_type) for one in reader.tensors
    }
    return fields, tensors


def model_of(family: str, **options: Any) -> PreTrainedModel:
    sizes = {"vocab_size": VOCAB, "hidden_size": 64, "intermediate_size": 96}
    config = AutoConfig.for_model(
        family, **sizes | {"num_hidden_layers": 1} | SHAPES.get(family, {}) | options
    )
    return AutoModelForCausalLM.from_config(config)


@pytest.mark.parametrize("family", sorted(SHAPES))
def test_every_weight_is_there_once(family: str, tmp_path: Path) -> None:
    model = tiny_model(family)
    _, tensors = written(model, tmp_path)
    own = sorted(float(part.double().sum()) for part in model.state_dict().values())
    assert np.allclose(sorted(float(part.sum(dtype=np.float64)) for part in tensors.values()), own)


def test_metadata_says_what_the_model_is(tmp_path: Path) -> None:
    fields, _ = written(tiny_model("gpt_neox"), tmp_path)
    own = {name.removeprefix("gptneox."): value for name, value in fields.items()}
    assert own["general.architecture"] == "gptneox"
    assert own["rope.dimension_count"] == 4  # a quarter of a head
    assert own["use_parallel_residual"] is True
    assert own["context_length"] == CONTEXT
    assert len(own["tokenizer.ggml.tokens"]) == VOCAB


def test_no_token_begins_or_ends_a_text(tmp_path: Path) -> None:
    fields, _ = written(tiny_model("llama"), tmp_path)
    assert fields["tokenizer.ggml.add_bos_token"] is False
    assert not [name for name in fields if name.endswith("_token_id")]


def test_rotated_pairs_of_a_llama_become_neighbours(tmp_path: Path) -> None:
    model = tiny_model("llama")
    _, tensors = written(model, tmp_path)
    keys = model.state_dict()["model.layers.0.self_attn.k_proj.weight"].numpy()
    ours = tensors["blk.0.attn_k.weight"]
    # 2 heads of 16: row 1 of a pair is 8 rows on in the model, and next to it in the file.
    assert np.array_equal(ours[16:20], keys[[16, 24, 17, 25]])


def test_the_fused_projection_is_told_apart(tmp_path: Path) -> None:
    model = tiny_model("gpt_neox")
    _, tensors = written(model, tmp_path)
    fused = model.state_dict()["gpt_neox.layers.0.attention.query_key_value.weight"].numpy()
    ours = tensors["blk.0.attn_qkv.weight"]
    # 4 heads of 16, each with its query, key and value one after another.
    assert np.array_equal(ours[16:32], fused[48:64])
    assert np.array_equal(ours[64:80], fused[16:32])


@pytest.mark.parametrize(
    ("kind", "error"), [("f32", 0.0), ("f16", 2**-11), ("bf16", 2**-8), ("q8_0", 2**-5)]
)
def test_matrices_are_rounded_and_vectors_are_not(
    kind: GgufKind, error: float, tmp_path: Path
) -> None:
    model = tiny_variant("qwen2")
    state = model.state_dict()
    _, tensors = written(model, tmp_path, kind)
    matrix = state["model.layers.1.mlp.down_proj.weight"].numpy()
    assert np.abs(tensors["blk.1.ffn_down.weight"] - matrix).max() <= error
    bias = state["model.layers.1.self_attn.q_proj.bias"].numpy()
    assert np.array_equal(tensors["blk.1.attn_q.bias"], bias)


def test_llama3_rope_is_written_as_factors(tmp_path: Path) -> None:
    _, tensors = written(tiny_variant("llama-llama3"), tmp_path)
    factors = tensors["rope_freqs.weight"]
    assert factors.shape == (8,)
    assert 1 < factors[0] < 8  # between the two wavelengths
    assert factors[1:] == pytest.approx(8.0)


def test_a_token_reads_all_but_the_embedding_table(tmp_path: Path) -> None:
    for tied in (False, True):
        model = model_of("llama", tie_word_embeddings=tied)
        write_gguf(model, "f32", tmp_path / "own.gguf")
        every = sum(part.nbytes for part in model.parameters())
        spared = 0 if tied else VOCAB * 64 * 4
        assert read_bytes(tmp_path / "own.gguf") == every - spared


def test_a_tied_neox_has_an_output_layer(tmp_path: Path) -> None:
    _, tensors = written(model_of("gpt_neox", tie_word_embeddings=True), tmp_path)
    assert np.array_equal(tensors["output.weight"], tensors["token_embd.weight"])


def test_equal_weights_are_equal_bytes(tmp_path: Path) -> None:
    for name in ("one", "two"):
        write_gguf(tiny_model("qwen3"), "q8_0", tmp_path / f"{name}.gguf")
    assert (tmp_path / "one.gguf").read_bytes() == (tmp_path / "two.gguf").read_bytes()


@pytest.mark.parametrize(
    ("model", "kind", "complaint"),
    [
        (lambda: tiny_variant("llama-yarn"), "f32", "rope type 'yarn' of a llama"),
        (lambda: tiny_variant("mistral-window"), "f32", "sliding window of 12"),
        (lambda: model_of("gpt_neox", hidden_act="relu"), "f32", "activation 'relu' of a gpt_neox"),
        (lambda: model_of("gpt_neox", attention_bias=False), "f32", "attention_bias False"),
        (
            lambda: model_of("olmo", num_attention_heads=4),
            "f32",
            "family 'olmo' .* gpt_neox, ",
        ),
        (
            lambda: model_of("llama", hidden_size=48),
            "q8_0",
            "rows of 48 weights, and q8_0 packs",
        ),
    ],
)
def test_what_cannot_be_written_is_named_and_leaves_no_file(
    model: Any, kind: GgufKind, complaint: str, tmp_path: Path
) -> None:
    with pytest.raises(UnsupportedModelError, match=complaint):
        write_gguf(model(), kind, tmp_path / "own.gguf")
    assert not list(tmp_path.iterdir())


def test_an_unknown_kind_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="'q4_0' is not one of f32, f16, bf16, q8_0"):
        write_gguf(tiny_model("llama"), "q4_0", tmp_path / "own.gguf")  # type: ignore[arg-type]


def test_weights_in_another_dtype_are_written_too(tmp_path: Path) -> None:
    model = model_of("llama").to(torch.bfloat16)
    _, tensors = written(model, tmp_path, "bf16")
    own = model.state_dict()["model.layers.0.mlp.up_proj.weight"].float().numpy()
    assert np.array_equal(tensors["blk.0.ffn_up.weight"], own)
