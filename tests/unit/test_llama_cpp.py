"""llama.cpp, entry by entry, is strict streaming; and its blocks are one stream."""

from __future__ import annotations

import dataclasses
import importlib.util
from functools import cache
from pathlib import Path
from typing import get_args

import pytest
import torch
from tests.tiny import SHAPES, VOCAB, random_ids, tiny_model, tiny_variant
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedModel

from kvpareto.decode_settings import DecodeTimingSettings
from kvpareto.engine.engine import Bench, engine_name
from kvpareto.engine.engines.llama_cpp import LlamaCpp
from kvpareto.engine.shapes import bench_of
from kvpareto.engine.timing import time_engines
from kvpareto.jobs import RefusedError, UnavailableError
from kvpareto.model_settings import GgufKind
from kvpareto.models.gguf import write_gguf

CAP, SINKS = 40, 4

missing = importlib.util.find_spec("xllamacpp") is None
here = pytest.mark.skipif(missing, reason="not installed: xllamacpp")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("gguf")


@cache
def bench(family: str, folder: Path) -> Bench:
    files = {kind: str(folder / f"{family}-{kind}.gguf") for kind in get_args(GgufKind)}
    return written(tiny_model(family), files)


def written(model: PreTrainedModel, files: dict[GgufKind, str]) -> Bench:
    for kind, file in files.items():
        write_gguf(model, kind, file)
    return bench_of(
        model, random_ids(1, 300), cap=CAP, sinks=SINKS, threads=1, block_tokens=16, gguf=files
    )


@here
@pytest.mark.parametrize("family", ["llama", "mistral", "qwen2", "qwen3", "gpt_neox"])
def test_thrown_away_one_by_one_it_is_strict_streaming(family: str, folder: Path) -> None:
    found = LlamaCpp().compare(bench(family, folder))
    assert LlamaCpp().exact
    assert found["compared_tokens"] == 260
    assert found["top1_agreement"] >= 0.99
    # GPT-NeoX has another GELU there.
    assert found["kl_to_oracle_max"] < (1e-4 if family == "gpt_neox" else 1e-5)
    assert found["finite"]


@here
@pytest.mark.parametrize(
    ("family", "options"),
    [
        ("llama", {"tie_word_embeddings": True}),
        ("llama", {"head_dim": 32}),
        ("llama", {"attention_bias": True, "mlp_bias": True}),
        ("llama", {"rope_parameters": {"rope_type": "linear", "rope_theta": 1e4, "factor": 4.0}}),
        ("gpt_neox", {"use_parallel_residual": False}),
        ("gpt_neox", {"tie_word_embeddings": True}),
    ],
    ids=str,
)
def test_whatever_is_written_means_the_same_there(
    family: str, options: dict[str, object], tmp_path: Path
) -> None:
    sizes = {"vocab_size": VOCAB, "hidden_size": 64, "intermediate_size": 96}
    torch.manual_seed(0)
    config = AutoConfig.for_model(
        family,
        **sizes | {"num_hidden_layers": 3, "initializer_range": 0.2} | SHAPES[family] | options,
    )
    model = AutoModelForCausalLM.from_config(config, attn_implementation="sdpa").eval()
    for name, part in model.named_parameters():
        if name.endswith("bias"):
            torch.nn.init.normal_(part, std=0.2)
    found = LlamaCpp().compare(written(model, {"f32": str(tmp_path / "own.gguf")}))
    assert found["top1_agreement"] >= 0.99
    assert found["kl_to_oracle"] < 1e-5


@here
def test_slowed_frequencies_mean_the_same_there(tmp_path: Path) -> None:
    model = tiny_variant("llama-llama3")
    found = LlamaCpp().compare(written(model, {"f32": str(tmp_path / "own.gguf")}))
    assert found["top1_agreement"] >= 0.99
    assert found["kl_to_oracle"] < 1e-5


@here
@pytest.mark.parametrize("discard", ["half", 8])
def test_thrown_away_many_at_once_it_is_not(discard: int | str, folder: Path) -> None:
    engine = LlamaCpp(discard)  # type: ignore[arg-type]
    assert not engine.exact
    assert engine.compare(bench("llama", folder))["kl_to_oracle"] > 1e-2


@here
@pytest.mark.parametrize("weights", ["f16", "bf16", "q8_0"])
def test_rounded_weights_are_near_and_not_exact(weights: GgufKind, folder: Path) -> None:
    engine = LlamaCpp(weights=weights)
    assert not engine.exact
    assert 1e-8 < engine.compare(bench("llama", folder))["kl_to_oracle"] < 1e-2


@here
def test_flash_attention_is_of_lower_precision(folder: Path) -> None:
    engine = LlamaCpp(attention="flash")
    assert not engine.exact
    assert 1e-7 < engine.compare(bench("llama", folder))["kl_to_oracle"] < 1e-3


@here
def test_text_of_any_length_is_compared_without_probabilities(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of a large vocabulary the tokens alone are told."""
    monkeypatch.setattr("kvpareto.engine.engines.llama_cpp._ALL_PROBABILITIES", 10)
    found = LlamaCpp().compare(bench("llama", folder))
    assert found.keys() == {"top1_agreement", "compared_tokens"}
    assert found["top1_agreement"] >= 0.99


@here
@pytest.mark.parametrize("discard", [1, 5, "half"])
def test_its_blocks_are_one_stream(discard: int | str, folder: Path) -> None:
    """A block that is not what the cache holds would be processed again, which raises."""
    engine, shared = LlamaCpp(discard), bench("llama", folder)  # type: ignore[arg-type]
    decoder = engine.decoder(shared)
    prefill, first = decoder.start()
    assert 0 < prefill < first
    steps = [decoder.token() for _ in range(4 * CAP)]
    assert all(seconds > 0 and not pruned for seconds, pruned in steps)


@here
def test_it_is_timed_beside_the_yardstick_in_whole_cycles(folder: Path) -> None:
    shared = bench("llama", folder)
    arms = [("prune", {}), ("llama_cpp", {"discard": "half", "weights": "q8_0"})]
    rows, tokens = time_engines(
        arms, shared, DecodeTimingSettings(blocks=6, warm_up_tokens=2), confidence=0.9
    )
    assert rows["status"].tolist() == ["ok", "ok"]
    own = rows.iloc[1]
    assert own["engine"] == "llama_cpp-discardhalf-q8_0"
    assert own["peak_bytes"] > 0
    assert own["tpot_ms_p99"] >= own["tpot_ms_p50"] > 0
    counts = tokens.groupby("engine").size()
    assert counts["llama_cpp-discardhalf-q8_0"] == 6 * 18  # (40 - 4) / 2
    assert counts["prune"] == 6 * 16


@here
def test_a_step_reads_weights_and_cache(folder: Path) -> None:
    shared = bench("llama", folder)
    decoder = LlamaCpp().decoder(shared)
    decoder.start()
    model = shared.model("float32")
    weights = sum(part.nbytes for part in model.parameters())
    table = model.get_input_embeddings().weight.nbytes
    assert LlamaCpp().cost(decoder, shared).read_bytes == weights - table + CAP * 3 * 2 * 2 * 16 * 4


@here
def test_words_of_the_server_are_passed_on(folder: Path) -> None:
    shared = bench("llama", folder)
    strange = dataclasses.replace(shared, ids=shared.ids + 1000)
    with pytest.raises(RuntimeError, match=r"llama\.cpp refuses"):
        LlamaCpp().compare(strange)


@pytest.mark.parametrize(
    ("parameters", "complaint"),
    [
        ({"discard": 0}, "discard 0 is neither"),
        ({"discard": "all"}, "discard 'all' is neither"),
        ({"weights": "q4_0"}, "weights 'q4_0' is none of f32, f16, bf16, q8_0"),
        ({"attention": "fast"}, "attention 'fast' is none of plain, flash"),
    ],
)
def test_impossible_parameters_are_refused(parameters: dict[str, object], complaint: str) -> None:
    with pytest.raises(ValueError, match=complaint):
        LlamaCpp(**parameters)  # type: ignore[arg-type]


def test_a_shift_of_all_entries_is_refused(folder: Path) -> None:
    with pytest.raises(RefusedError, match="36 entries leaves none of the 40"):
        LlamaCpp(CAP - SINKS).decoder(bench("llama", folder))


def test_its_name_tells_what_is_not_default() -> None:
    assert engine_name("llama_cpp", {"discard": 64, "weights": "q8_0"}) == (
        "llama_cpp-discard64-q8_0"
    )


@pytest.mark.skipif(not missing, reason="xllamacpp is installed")
def test_where_it_is_missing_that_is_said(folder: Path) -> None:
    with pytest.raises(UnavailableError, match="xllamacpp is not installed"):
        LlamaCpp().decoder(bench("llama", folder))
