"""Decode engines: what is exact agrees with the oracle, and the rest says what it is."""

from __future__ import annotations

import dataclasses
import importlib.util

import pytest
import torch
from tests.oracle import oracle_logits
from tests.tiny import SHAPES, VARIANTS, VOCAB, random_ids, tiny_model, tiny_variant
from torch._dynamo.testing import CompileCounterWithBackend
from transformers import PreTrainedModel

from kvpareto.engine.engine import Bench, TorchEngine, engine_name, engine_of
from kvpareto.engine.fused import fused
from kvpareto.engine.oracle import Oracle, followed
from kvpareto.engine.quality import engine_quality
from kvpareto.engine.quantised import quantised
from kvpareto.engine.shapes import bench_of, random_model
from kvpareto.engine.shapes import random_ids as random_document
from kvpareto.engine.streams.lookup import LookupStream, guess
from kvpareto.engine.streams.ring import RingStream
from kvpareto.eviction.policy import sinks_and_recent
from kvpareto.jobs import RefusedError, UnavailableError

CAP, SINKS = 24, 4
UNWINDOWED = [name for name in VARIANTS if not name.endswith("window")]

torchao = pytest.mark.skipif(
    importlib.util.find_spec("torchao") is None, reason="not installed: torchao"
)


def bench(model: PreTrainedModel, tokens: int = 90, cap: int = CAP) -> Bench:
    return bench_of(
        model, random_ids(1, tokens), cap=cap, sinks=SINKS, threads=1, block_tokens=8, gguf={}
    )


def logits_of(name: str, own: Bench, **parameters: object) -> torch.Tensor:
    engine = engine_of(name, parameters)
    assert isinstance(engine, TorchEngine)
    stream = engine.stream(own.model(engine.dtype), own)
    return followed(stream, own.ids, engine.prefill(own))


@pytest.mark.parametrize("family", list(SHAPES))
def test_the_oracle_is_the_public_one(family):
    model, ids = tiny_model(family), random_ids(1, 60)

    def keep(step: int, length: int) -> torch.Tensor | None:
        return sinks_and_recent(length, SINKS, 1) if length == CAP else None

    slow = oracle_logits(model, ids, keep)
    own = Oracle(model, ids, CAP, SINKS).logits
    torch.testing.assert_close(own, slow[0, -len(own) :], atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("family", UNWINDOWED)
@pytest.mark.parametrize(
    ("name", "parameters"),
    [
        ("prune", {}),
        ("ring", {}),
        ("ring", {"weights": "fused"}),
        ("ring", {"kernel": "math"}),
        ("prompt_lookup", {"ngram": 1}),
    ],
    ids=str,
)
def test_what_is_exact_agrees_with_the_oracle(family, name, parameters):
    engine, own = engine_of(name, parameters), bench(tiny_variant(family))
    assert engine.exact
    found = engine.compare(own)
    assert found["kl_to_oracle_max"] < 1e-6
    assert found["top1_agreement"] == 1
    assert found["compared_tokens"] == 90 - (CAP - 1)
    assert found["finite"]
    assert abs(found["nll"] - found["oracle_nll"]) < 1e-5


@pytest.mark.parametrize(
    ("name", "parameters"),
    [
        ("recompute", {}),
        ("full", {}),
        ("prune", {"period": 8}),
        ("sliding_window", {}),
        ("ring", {"sink_positions": "absolute"}),
        ("ring", {"dtype": "bfloat16"}),
    ],
    ids=str,
)
def test_what_is_not_exact_says_so_and_differs(name, parameters):
    engine, own = engine_of(name, parameters), bench(tiny_variant("llama"))
    assert not engine.exact
    truth = own.oracle("float32").logits
    if name != "recompute":
        assert (logits_of(name, own, **parameters) - truth).abs().max() > 1e-3
    assert engine.compare(own)["finite"]


def test_other_dtypes_are_held_against_the_oracle_in_their_own():
    own = bench(tiny_variant("llama"))
    near = engine_of("ring", {"dtype": "bfloat16"}).compare(own)["kl_to_oracle"]
    truth, rounded = own.oracle("float32").logits, own.oracle("bfloat16").logits
    assert near < 0.2
    assert not torch.equal(truth, rounded)


def test_a_stateless_engine_is_looked_at_now_and_then():
    found = engine_of("recompute", {}).compare(bench(tiny_variant("llama")))
    assert found["compared_tokens"] == 4  # every twentieth of 67


@pytest.mark.parametrize("family", list(SHAPES))
@pytest.mark.parametrize("weights", ["stock", "fused"])
def test_a_ring_grows_token_by_token_as_it_is_filled_at_once(family, weights):
    model, ids = tiny_model(family), random_ids(1, 60)
    at_once, growing = (
        RingStream(model, CAP, SINKS, computing=fused(model) if weights == "fused" else None)
        for _ in range(2)
    )
    whole = followed(at_once, ids, CAP)
    parts = followed(growing, ids, SINKS)
    torch.testing.assert_close(parts[CAP - SINKS :], whole, atol=1e-4, rtol=1e-4)
    assert growing.held == CAP
    assert [layer.length for layer in growing.layers] == [CAP] * len(growing.layers)


def test_growth_and_steady_state_are_one_graph_each():
    model, ids = tiny_model("gpt_neox"), random_ids(1, 60)
    expected = followed(RingStream(model, CAP, SINKS), ids, SINKS)
    torch._dynamo.reset()
    stream, graphs = RingStream(model, CAP, SINKS), CompileCounterWithBackend("aot_eager")
    step = torch.compile(stream._step, fullgraph=True, dynamic=False, backend=graphs)
    stream._growing = stream._steady = step
    found = followed(stream, ids, SINKS)
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-5)
    assert graphs.frame_count == 2


@pytest.mark.parametrize("tokens", [SINKS - 1, CAP + 1])
def test_a_ring_is_prefilled_with_its_sinks_and_no_more_than_it_holds(tokens):
    stream = RingStream(tiny_model("llama"), CAP, SINKS)
    with pytest.raises(ValueError, match=f"prefilled with {tokens} tokens"):
        stream.prefill(random_ids(1, tokens))


def test_graphs_need_a_cuda_device():
    with pytest.raises(UnavailableError, match="CUDA"):
        engine_of("ring", {"run": "graph"}).decoder(bench(tiny_model("llama")))


def test_fused_weights_have_fewer_products_and_no_scales():
    model = tiny_variant("gpt_neox")
    made = fused(model)
    layers = model.config.num_hidden_layers
    products = [part for part in made.modules() if isinstance(part, torch.nn.Linear)]
    assert len(products) == 2 * layers + 1  # the stock model has four a layer
    assert not any("norm" in name for name, _ in made.named_parameters())


def test_fused_neox_needs_a_parallel_residual():
    model = random_model(model_config("gpt_neox") | {"use_parallel_residual": False})
    with pytest.raises(RefusedError, match="use_parallel_residual"):
        fused(model)


def model_config(family: str) -> dict[str, object]:
    sizes = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "vocab_size": 50}
    return {"model_type": family, "num_attention_heads": 2, **sizes}


def test_random_weights_are_the_same_at_every_call():
    first, second = (random_model(model_config("llama")) for _ in range(2))
    pairs = zip(first.parameters(), second.parameters(), strict=True)
    assert all(torch.equal(one, other) for one, other in pairs)
    assert torch.equal(random_document(first, 16), random_document(second, 16))


@torchao
@pytest.mark.parametrize(
    ("kind", "most"), [("int8", 0.02), ("int8_dynamic", 0.05), ("int4", 1.0)], ids=str
)
def test_quantised_weights_stay_near_and_are_smaller(kind, most):
    own = bench(tiny_model("llama"))
    found = engine_of("ring", {"quantised": kind}).compare(own)
    assert found["finite"]
    assert 1e-7 < found["kl_to_oracle"] < most
    assert not engine_of("ring", {"quantised": kind}).exact
    assert all(part.dtype == torch.float32 for part in own.model("float32").parameters())


@torchao
def test_the_scope_of_quantisation_is_kept():
    made = quantised(tiny_model("llama"), "int8", "mlp")
    kinds = {name: type(part.weight).__name__ for name, part in made.named_modules()
             if isinstance(part, torch.nn.Linear)}  # fmt: skip
    assert {kind for name, kind in kinds.items() if "mlp" not in name} == {"Parameter"}
    assert "Parameter" not in {kind for name, kind in kinds.items() if "mlp" in name}
    with pytest.raises(RefusedError, match="no matrix in scope 'mlp'"):
        quantised(fused(tiny_model("gpt_neox")), "int8", "mlp")


def test_a_guess_is_what_followed_the_last_occurrence():
    assert guess([1, 2, 3, 9, 1, 2, 4, 5, 1, 2], 2, 3) == [4, 5, 1]
    assert guess([1, 2, 3], 2, 3) == []
    assert guess([7, 7], 1, 4) == [7]


def test_prompt_lookup_saves_passes_where_text_repeats():
    model = tiny_model("llama")
    ids = random_ids(1, 10).repeat(1, 9)
    stream = LookupStream(model, CAP, SINKS, ngram=2, most=4)
    truth = Oracle(model, ids, CAP, SINKS).logits
    found = followed(stream, ids, CAP - 1)
    torch.testing.assert_close(found, truth, atol=1e-4, rtol=1e-4)
    assert stream.tokens == ids.shape[1] - (CAP - 1)
    assert stream.passes <= stream.tokens / 4


def test_an_engine_is_named_by_what_is_not_the_default():
    assert engine_name("ring", {"run": "eager", "weights": "stock"}) == "ring"
    assert engine_name("ring", {"run": "compiled", "weights": "fused"}) == "ring-compiled-fused"
    assert engine_name("ring", {"kernel": "math"}) == "ring-sdpa_math"
    assert engine_name("prune", {"period": 64}) == "prune-R64"


@pytest.mark.parametrize(
    ("name", "parameters", "message"),
    [
        ("prune", {"period": 0}, "period 0"),
        ("ring", {"scope": "mlp"}, "scope 'mlp' needs weights that are quantised"),
        ("ring", {"run": "graphs"}, "run 'graphs' is none of eager, compiled, graph"),
        ("prune", {"dtype": "float64"}, "dtype 'float64' is none of float32, bfloat16, float16"),
        ("prompt_lookup", {"guesses": 0}, "guesses 0"),
    ],
    ids=str,
)
def test_impossible_parameters_are_refused(name, parameters, message):
    with pytest.raises(ValueError, match=message):
        engine_of(name, parameters)


def test_a_prune_that_takes_all_is_refused():
    with pytest.raises(RefusedError, match="a prune of 24 entries"):
        engine_of("prune", {"period": 24}).decoder(bench(tiny_model("llama")))


def test_failures_are_rows_and_non_finite_logits_name_their_layer():
    model = tiny_model("llama")
    broken = random_model(model_config("llama"))
    with torch.no_grad():
        broken.model.layers[1].mlp.up_proj.weight[0, 0] = float("nan")
    ids = random_ids(1, 60) % 50
    own = dataclasses.replace(bench(model), model=lambda dtype: broken, ids=ids)
    arms = [("ring", {}), ("ring", {"run": "graph"})]
    oracle = Oracle(broken, ids, CAP, SINKS)
    rows = engine_quality(arms, dataclasses.replace(own, oracle=lambda dtype: oracle))
    bad, missing = rows.to_dict("records")
    assert (bad["status"], bad["finite"], bad["first_non_finite"]) == ("ok", False, "layer 1")
    assert missing["status"] == "unavailable"
    assert "CUDA" in missing["why"]


def test_the_vocabulary_is_the_models():
    assert random_document(tiny_model("llama"), 8).max() < VOCAB
