"""Self-attention under torch.compile, and FlexAttention as a compiled kernel."""

import shutil

import pytest
import torch

from kvpareto.attention.backends import flex, reference
from kvpareto.attention.module import SelfAttention

PADDING = torch.tensor([[True] * 6, [False] * 2 + [True] * 4])


def module(backend: str) -> SelfAttention:
    torch.manual_seed(0)
    return SelfAttention(32, 4, 2, backend=backend)


def tokens() -> torch.Tensor:
    return torch.randn(2, 6, 32, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("backend", ["reference", "sdpa"])
def test_the_module_is_one_graph(backend):
    layer = module(backend)
    compiled = torch.compile(layer, fullgraph=True, backend="aot_eager")
    torch.testing.assert_close(compiled(tokens(), PADDING), layer(tokens(), PADDING))


@pytest.mark.skipif(shutil.which("c++") is None, reason="needs a C++ compiler")
def test_compiled_flex_attention_agrees_with_the_reference():
    draw = torch.Generator().manual_seed(0)
    query, key, value = (torch.randn(2, heads, 150, 8, generator=draw) for heads in (4, 2, 2))
    mask = torch.rand(2, 1, 150, 150, generator=draw) < 0.6
    mask[:, :, 75] = False
    with torch.inference_mode():
        found = flex(query, key, value, mask)
        truth = reference(query, key, value, mask)
    torch.testing.assert_close(found, truth, atol=1e-5, rtol=0)
    assert (found[:, :, 75] == 0).all()


@pytest.mark.skipif(shutil.which("c++") is None, reason="needs a C++ compiler")
@pytest.mark.parametrize("queries", [128, 16])
def test_compiled_causal_flex_attention_agrees_for_all_and_for_the_last_queries(queries):
    """The kernel that is timed: without a mask."""
    draw = torch.Generator().manual_seed(0)
    query = torch.randn(1, 4, queries, 8, generator=draw)
    key, value = (torch.randn(1, 2, 128, 8, generator=draw) for _ in range(2))
    with torch.inference_mode():
        found, truth = flex(query, key, value), reference(query, key, value)
    torch.testing.assert_close(found, truth, atol=1e-5, rtol=0)
