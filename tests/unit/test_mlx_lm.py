"""mlx-lm's rotating cache is the ring without clamped sinks; where it is missing, that is said."""

from __future__ import annotations

import importlib.util

import pytest
import torch
from tests.tiny import random_ids, tiny_model

from kvpareto.engine.engine import Bench
from kvpareto.engine.engines.mlx_lm import MlxLm
from kvpareto.engine.engines.ring import Ring
from kvpareto.engine.oracle import followed
from kvpareto.engine.shapes import bench_of
from kvpareto.jobs import RefusedError, UnavailableError

CAP, SINKS = 24, 4

missing = [name for name in ("mlx", "mlx_lm") if importlib.util.find_spec(name) is None]
here = pytest.mark.skipif(bool(missing), reason=f"not installed: {', '.join(missing)}")
absent = pytest.mark.skipif(not missing, reason="mlx-lm is installed")


def bench(family: str) -> Bench:
    return bench_of(
        tiny_model(family),
        random_ids(1, 80),
        cap=CAP,
        sinks=SINKS,
        threads=1,
        block_tokens=8,
        gguf={},
    )


@here
@pytest.mark.parametrize("family", ["llama", "mistral", "qwen2", "qwen3"])
def test_it_computes_the_ring_with_absolute_sinks(family: str) -> None:
    shared = bench(family)
    model = shared.model("float32")
    peer, ring = (
        followed(engine.stream(model, shared), shared.ids, CAP - 1)
        for engine in (MlxLm(), Ring(sink_positions="absolute"))
    )
    torch.testing.assert_close(peer, ring, rtol=1e-3, atol=2e-3)


@here
def test_it_is_not_what_streaming_computes() -> None:
    assert not MlxLm().exact
    assert MlxLm().compare(bench("llama"))["kl_to_oracle"] > 1e-2


@here
def test_its_cost_is_that_of_its_weights_and_cache() -> None:
    shared = bench("llama")
    decoder = MlxLm().decoder(shared)
    decoder.start()
    cost = MlxLm().cost(decoder, shared)
    table = shared.model("float32").get_input_embeddings().weight
    weights = sum(part.nbytes for part in shared.model("float32").parameters())
    cache = CAP * 3 * 2 * 2 * 16 * 4
    assert cost.read_bytes == weights - table.nbytes + cache
    assert cost.peak_bytes is not None
    assert cost.peak_bytes > weights
    assert cost.launches is None


@here
def test_weights_of_another_shape_are_refused() -> None:
    """mlx-lm's GPT-NeoX has no intermediate size of its own."""
    with pytest.raises(RefusedError, match="gpt_neox cannot hold the weights"):
        MlxLm().decoder(bench("gpt_neox"))


@absent
def test_where_it_is_missing_that_is_said() -> None:
    with pytest.raises(UnavailableError, match=r"is not installed: pip install .*\[peers\]"):
        MlxLm().decoder(bench("llama"))
