"""Self-attention: stable softmax, mask cache, backends that agree, exact gradients, caches."""

import io
import pickle
from itertools import pairwise

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.autograd import gradcheck
from transformers import DynamicCache

from kvpareto.attention.backends import BACKENDS, reference, refusal
from kvpareto.attention.mask_cache import CausalMaskCache, causal_mask
from kvpareto.attention.module import SelfAttention
from kvpareto.attention.rope import Rotary
from kvpareto.attention.softmax import stable_softmax
from kvpareto.cache.layouts import EvictingCache

INF = torch.inf
CPU = torch.device("cpu")
QUICK = ["reference", "sdpa", "flex_eager"]
"""All but `flex`, which compiles for seconds, and has a test of its own."""
FUSED = QUICK[1:]


def module(backend: str = "reference", dtype: torch.dtype = torch.float32, **more) -> SelfAttention:
    torch.manual_seed(0)
    return SelfAttention(32, 4, **({"kv_heads": 2} | more), backend=backend).to(dtype)


def tokens(length: int, batch: int = 1, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    return torch.randn(batch, length, 32, generator=torch.Generator().manual_seed(length)).to(dtype)


# Softmax


@given(st.lists(st.floats(-1e4, 1e4, width=32), min_size=1, max_size=8))
def test_softmax_sums_to_one_and_is_that_of_float64(row):
    scores = torch.tensor(row)
    weights = stable_softmax(scores)
    assert weights.sum() == pytest.approx(1, abs=1e-6)
    torch.testing.assert_close(weights.double(), scores.double().softmax(-1), atol=1e-6, rtol=0)


@pytest.mark.parametrize(
    ("row", "weights"),
    [
        ([-INF, -INF], [0, 0]),  # nothing to see
        ([-INF, 3], [0, 1]),
        ([INF, 3], [1, 0]),
        ([INF, INF, -INF], [0.5, 0.5, 0]),
        ([1e4, 1e4], [0.5, 0.5]),
        ([-1e4, -1e4], [0.5, 0.5]),
        ([-1e38, 1e38], [0, 1]),
    ],
)
def test_softmax_of_rows_at_the_edge(row, weights):
    scores = torch.tensor(row).float().requires_grad_()
    found = stable_softmax(scores)
    assert found.tolist() == weights
    found.square().sum().backward()
    assert scores.grad.isfinite().all()


def test_the_gradient_of_softmax_is_exact():
    scores = torch.randn(3, 5, dtype=torch.float64, requires_grad=True)
    assert gradcheck(stable_softmax, scores)


# Masks


def test_a_mask_lets_the_last_tokens_see_themselves_and_what_is_before():
    assert causal_mask(2, 4, torch.bool).tolist() == [[True, True, True, False], [True] * 4]
    assert causal_mask(2, 3, torch.float32).tolist() == [[0, 0, -INF], [0, 0, 0]]


def test_parts_of_one_longer_mask_serve_all_shorter_lengths():
    masks = CausalMaskCache()
    for length in (100, 64, 3, 128, 1):
        found = masks.get(length, length, torch.float32, CPU)
        assert torch.equal(found, causal_mask(length, length, torch.float32))
    assert torch.equal(masks.get(2, 77, torch.float32, CPU), causal_mask(2, 77, torch.float32))
    assert (masks.requests, masks.hits) == (6, 5)
    assert masks.hit_rate == 5 / 6
    assert masks.bytes == 128 * 128 * 4


@settings(max_examples=50)
@given(
    st.integers(0, 6000),
    st.lists(st.tuples(st.integers(1, 40), st.sampled_from([torch.float32, torch.bool]))),
)
def test_the_masks_never_take_more_than_their_limit(limit, requests):
    masks = CausalMaskCache(limit)
    for length, dtype in requests:
        assert torch.equal(
            masks.get(length, length, dtype, CPU), causal_mask(length, length, dtype)
        )
        assert masks.bytes <= limit


def test_the_mask_that_was_not_used_for_longest_goes_first():
    masks = CausalMaskCache(max_bytes=8 * 8 * 4 + 8 * 8 * 1)
    for dtype in (torch.float32, torch.bool, torch.float32, torch.float16):
        masks.get(8, 8, dtype, CPU)
    hits = masks.hits
    masks.get(8, 8, torch.float16, CPU)
    assert masks.hits == hits + 1
    masks.get(8, 8, torch.bool, CPU)
    assert masks.hits == hits + 1


def test_clearing_forgets_the_masks():
    masks = CausalMaskCache()
    masks.get(8, 8, torch.float32, CPU)
    masks.clear()
    assert masks.bytes == 0
    masks.get(8, 8, torch.float32, CPU)
    assert masks.hits == 0


def test_a_sequence_that_grows_token_by_token_rarely_needs_a_new_mask():
    masks = CausalMaskCache()
    for length in range(1, 200):
        masks.get(1, length, torch.float32, CPU)
    assert masks.requests - masks.hits == 9  # 1, 2, 4, ... 256


# Backends


def random_heads(queries: int, keys: int, heads: int = 4, kv_heads: int = 2, batch: int = 2):
    draw = torch.Generator().manual_seed(queries)
    shapes = [(batch, count, size, 8) for count, size in
              ((heads, queries), (kv_heads, keys), (kv_heads, keys))]  # fmt: skip
    return [torch.randn(shape, generator=draw) for shape in shapes]


def some_mask(queries: int, keys: int, batch: int) -> torch.Tensor:
    """Random, with a fully masked query in each row."""
    mask = torch.rand(batch, 1, queries, keys, generator=torch.Generator().manual_seed(1)) < 0.6
    mask[:, :, queries // 2] = False
    return mask


@pytest.mark.parametrize("backend", FUSED)
@pytest.mark.parametrize(("heads", "kv_heads"), [(4, 4), (4, 2), (4, 1)])
@pytest.mark.parametrize("masked", ["causal", "bool", "added"])
@pytest.mark.parametrize(("queries", "keys"), [(9, 9), (3, 9)])
def test_fused_backends_agree_with_the_reference(backend, heads, kv_heads, masked, queries, keys):
    parts = random_heads(queries, keys, heads, kv_heads)
    mask = None if masked == "causal" else some_mask(queries, keys, batch=2)
    if masked == "added":
        mask = torch.zeros(mask.shape).masked_fill(~mask, -INF)
    found, truth = (BACKENDS[name](*parts, mask) for name in (backend, "reference"))
    torch.testing.assert_close(found, truth, atol=1e-5, rtol=0)
    if mask is not None:
        assert (found[:, :, queries // 2] == 0).all()


@pytest.mark.parametrize("backend", FUSED)
def test_gradients_of_fused_backends_agree_with_the_reference(backend):
    why = refusal(backend, *(part.requires_grad_() for part in random_heads(7, 7)))
    if why:
        pytest.skip(why)
    gradients = []
    for name in (backend, "reference"):
        parts = [part.requires_grad_() for part in random_heads(7, 7)]
        attended = BACKENDS[name](*parts, some_mask(7, 7, batch=2))
        gradients.append(torch.autograd.grad(attended.square().sum(), parts))
    for found, truth in zip(*gradients, strict=True):
        assert found.isfinite().all()
        torch.testing.assert_close(found, truth, atol=1e-5, rtol=0)


def test_gradients_of_the_reference_are_exact():
    parts = [part.double().requires_grad_() for part in random_heads(4, 4, batch=1)]
    assert gradcheck(lambda *parts: reference(*parts, some_mask(4, 4, batch=1)), parts)
    assert gradcheck(lambda *parts: reference(*parts), parts)


def test_a_backend_that_cannot_run_says_why():
    parts = [part.requires_grad_() for part in random_heads(7, 7)]
    assert refusal("sdpa", *parts) == ""
    assert refusal("sdpa", *(part.to("meta") for part in parts[:2]), parts[2]) != ""


# Module


def test_gradients_of_the_module_are_exact_with_padding_and_grouped_heads():
    layer = module(dtype=torch.float64)
    padding = torch.tensor([[True] * 4, [False, False, True, True]])
    x = tokens(4, batch=2, dtype=torch.float64).requires_grad_()
    weights = [weight.detach().requires_grad_() for weight in layer.parameters()]
    names = [name for name, _ in layer.named_parameters()]

    def forward(x, *weights):
        named = dict(zip(names, weights, strict=True))
        return torch.func.functional_call(layer, named, (x, padding))

    assert gradcheck(forward, (x, *weights), fast_mode=True)


@pytest.mark.parametrize("backend", QUICK)
def test_a_batch_gives_what_its_rows_give_alone(backend):
    layer = module(backend)
    x = tokens(6, batch=3)
    with torch.no_grad():
        alone = torch.cat([layer(row[None]) for row in x])
        torch.testing.assert_close(layer(x), alone, atol=1e-6, rtol=0)


@pytest.mark.parametrize("backend", QUICK)
@pytest.mark.parametrize("side", ["left", "right"])
def test_padding_changes_nothing_for_the_tokens(backend, side):
    layer = module(backend)
    x = tokens(6)
    padded = torch.full((1, 9, 32), 7.0)
    place = slice(3, 9) if side == "left" else slice(0, 6)
    padded[:, place] = x
    padding = torch.zeros(1, 9, dtype=torch.bool)
    padding[:, place] = True
    with torch.no_grad():
        found = layer(padded, padding)
        torch.testing.assert_close(found[:, place], layer(x), atol=1e-5, rtol=0)
    if side == "left":
        assert (found[:, :3] == 0).all()


def filled_caches():
    yield "dynamic", DynamicCache()
    for layout in ("compact", "soft_ring"):
        yield layout, EvictingCache(layout, 1, Rotary(torch.ones(4)), slots=16)


@pytest.mark.parametrize("backend", QUICK)
@pytest.mark.parametrize("kind", ["dynamic", "compact", "soft_ring"])
def test_decoding_with_a_cache_gives_the_full_forward_pass(backend, kind):
    layer, cache = module(backend), dict(filled_caches())[kind]
    x = tokens(10)
    found = []
    with torch.inference_mode():
        for start, stop in pairwise([0, 4, 7, 8, 9, 10]):
            if kind != "dynamic":
                cache.next_position(stop - start)
            found.append(layer(x[:, start:stop], cache=cache))
        torch.testing.assert_close(torch.cat(found, dim=1), layer(x), atol=1e-5, rtol=0)


def test_decoding_with_a_cache_and_padding():
    layer, cache = module(), DynamicCache()
    x = tokens(8, batch=2)
    padding = torch.ones(2, 8, dtype=torch.bool)
    padding[1, :3] = False
    with torch.no_grad():
        found = [layer(x[:, :6], padding[:, :6], cache), layer(x[:, 6:], padding, cache)]
        torch.testing.assert_close(torch.cat(found, dim=1), layer(x, padding), atol=1e-5, rtol=0)


@pytest.mark.parametrize("backend", QUICK)
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_autocast_and_half_precision_stay_near_float32(backend, dtype):
    x = tokens(12, batch=2)
    padding = torch.ones(2, 12, dtype=torch.bool)
    padding[0, :5] = False
    with torch.no_grad():
        truth = module()(x, padding)
        with torch.autocast("cpu", dtype):
            cast = module(backend)(x, padding)
        half = module(backend, dtype)(x.to(dtype), padding)
    assert cast.dtype == half.dtype == dtype
    for found in (cast, half):
        torch.testing.assert_close(found.float(), truth, atol=0.02, rtol=0)


def test_autocast_trains():
    layer = module()
    with torch.autocast("cpu", torch.bfloat16):
        layer(tokens(6)).float().square().mean().backward()
    assert all(weight.grad.isfinite().all() for weight in layer.parameters())


def test_masks_made_under_inference_mode_serve_training():
    layer = module("sdpa")
    padding = torch.ones(1, 6, dtype=torch.bool)
    with torch.inference_mode():
        layer(tokens(6), padding)
    layer(tokens(6), padding).sum().backward()
    assert layer.masks.hits == 1


def test_the_state_dict_has_the_weights_alone_and_goes_round():
    layer = module()
    layer(tokens(6))
    assert set(layer.state_dict()) == {f"{part}.weight" for part in
                                       ("query", "key", "value", "output")}  # fmt: skip
    file = io.BytesIO()
    torch.save(layer.state_dict(), file)
    file.seek(0)
    torch.manual_seed(1)
    other = SelfAttention(32, 4, 2)
    other.load_state_dict(torch.load(file))  # strict: a file without masks is complete
    assert torch.equal(other(tokens(6)), layer(tokens(6)))


def test_a_module_that_is_pickled_whole_leaves_its_masks_behind():
    layer = module()
    layer(tokens(64))
    assert layer.masks.bytes > 0
    copy = pickle.loads(pickle.dumps(layer))
    assert copy.masks.bytes == 0
    assert torch.equal(copy(tokens(64)), layer(tokens(64)))


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        ({"embedding": 30}, "embedding 30 must be a multiple of heads 4"),
        ({"kv_heads": 3}, "of kv_heads 3"),
        ({"backend": "flash"}, "'flash' must be one of reference, sdpa, flex, flex_eager"),
    ],
)
def test_wrong_shapes_and_backends_are_named(arguments, complaint):
    with pytest.raises(ValueError, match=complaint):
        SelfAttention(**({"embedding": 32, "heads": 4} | arguments))
