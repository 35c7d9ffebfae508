"""The ten tests that the attention changelog names, of this module."""

import pytest
import torch

from kvpareto.attention.mask_cache import CausalMaskCache, causal_mask
from kvpareto.attention.module import SelfAttention

EMBEDDING = 256
LENGTHS = (8, 16, 32, 64, 128)


@pytest.fixture
def attention() -> SelfAttention:
    torch.manual_seed(0)
    return SelfAttention(EMBEDDING)


def tokens(length: int, batch: int = 1) -> torch.Tensor:
    draw = torch.Generator().manual_seed(length)
    return torch.randn(batch, length, EMBEDDING, generator=draw)


def backward(attention: SelfAttention, x: torch.Tensor) -> list[torch.Tensor]:
    """Gradients of the mean square of the output: of the input, then of the weights."""
    x = x.clone().requires_grad_()
    return [*torch.autograd.grad(attention(x).square().mean(), [x, *attention.parameters()])]


def test_causal_mask_caching(attention):
    first = attention(tokens(16))
    assert (attention.masks.requests, attention.masks.hits) == (1, 0)
    assert torch.equal(attention(tokens(16)), first)
    assert (attention.masks.requests, attention.masks.hits) == (2, 1)


def test_multiple_sequence_lengths(attention):
    for length in (*LENGTHS, 1, 5):
        assert attention(tokens(length)).shape == (1, length, EMBEDDING)
    assert attention.masks.bytes == 128 * 128 * 4  # of the longest, for all of them


@pytest.mark.parametrize("scale", [100.0, 1000.0, 10000.0])
def test_numerical_stability_with_large_values(attention, scale):
    assert attention(scale * tokens(32)).isfinite().all()
    assert attention(-scale * tokens(32)).isfinite().all()


def test_numerical_stability_with_small_values(attention):
    small = attention(0.001 * tokens(32))
    assert small.isfinite().all()
    # Scores of nearly zero: each token gets the mean of the values up to it.
    *_, value = attention.project(0.001 * tokens(32))
    means = value.cumsum(dim=2) / torch.arange(1, 33)[:, None]
    torch.testing.assert_close(small, attention.join(means), atol=1e-8, rtol=1e-3)


def test_gradient_flow(attention):
    for gradient in backward(attention, tokens(16)):
        assert gradient.isfinite().all()
        assert gradient.abs().max() > 0


@pytest.mark.parametrize("scale", [0.001, 100.0, 1000.0])
def test_gradient_stability_with_extreme_values(attention, scale):
    for gradient in backward(attention, scale * tokens(16)):
        assert gradient.isfinite().all()


def test_forward_backward_consistency(attention):
    """A small step against the gradient lowers the loss by what the gradient says."""
    attention.double()
    x = tokens(16).double()
    gradient, *_ = backward(attention, x)
    step = 1e-4 / gradient.norm()
    before, after = (attention(at).square().mean() for at in (x, x - step * gradient))
    expected = step * gradient.square().sum()
    assert (before - after).item() == pytest.approx(expected.item(), rel=1e-3)
    assert torch.equal(attention(x), attention(x))


def test_mask_cache_performance():
    """From the second time on nothing is built: the same memory. The time is in the benchmark."""
    masks, device = CausalMaskCache(), torch.device("cpu")
    first = masks.get(1024, 1024, torch.float32, device)
    later = [masks.get(length, length, torch.float32, device) for length in (1024, 1000, 7)]
    assert {mask.untyped_storage().data_ptr() for mask in (first, *later)} == {
        first.untyped_storage().data_ptr()
    }
    assert (masks.requests, masks.hits) == (4, 3)
    torch.testing.assert_close(later[1], causal_mask(1000, 1000, torch.float32))


@pytest.mark.parametrize("backend", ["reference", "sdpa"])
def test_output_causality(attention, backend):
    attention.backend = backend
    x = tokens(16)
    changed = x.clone()
    changed[:, 9:] += 5
    before, after = attention(x), attention(changed)
    torch.testing.assert_close(after[:, :9], before[:, :9], atol=1e-6, rtol=0)
    assert (after[:, 9:] - before[:, 9:]).abs().amin(dim=1).max() > 1e-3
    x.requires_grad_()
    (gradient,) = torch.autograd.grad(attention(x)[:, 8].sum(), x)
    assert (gradient[:, 9:] == 0).all()


@pytest.mark.parametrize("batch", [1, 2, 7])
def test_different_batch_sizes(attention, batch):
    x = tokens(16, batch)
    alone = torch.cat([attention(row[None]) for row in x])
    torch.testing.assert_close(attention(x), alone, atol=1e-5, rtol=0)
