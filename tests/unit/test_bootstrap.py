"""Intervals: what they cover, what widens them, what must not change them."""

import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from kvpareto.claims.bootstrap import (
    Interval,
    median_ratio,
    paired_mean,
    ppl_delta_pct,
)
from kvpareto.measure.nll import perplexity

OPTIONS = {"block_tokens": 64, "resamples": 400, "confidence": 0.95, "seed": 7}


def autoregressive(random, tokens, rho):
    """Noise of mean zero and variance one in which each token remembers the one before."""
    shocks = random.normal(size=tokens) * np.sqrt(1 - rho**2)
    shocks[0] = random.normal()
    noise = np.empty(tokens)
    level = 0.0
    for index, shock in enumerate(shocks):
        level = rho * level + shock if index else shock
        noise[index] = level
    return noise


def stream(random, documents=5, tokens=2000, rho=0.0):
    """Differences, documents and positions, as a quality run gives them."""
    noise = [autoregressive(random, tokens, rho) for _ in range(documents)]
    return (
        np.concatenate(noise),
        np.repeat(np.arange(documents), tokens),
        np.tile(np.arange(512, 512 + tokens), documents),
    )


def width(interval):
    return interval.hi - interval.lo


def test_covers_the_true_mean_as_often_as_it_says():
    random = np.random.default_rng(1)
    hits = 0
    for _ in range(200):
        difference, document, position = stream(random, documents=4, tokens=1500, rho=0.8)
        # Documents differ, but which documents there are is fixed: no part of the error.
        shift = np.array([0.5, -0.5, 1.0, -1.0])[document]
        interval = paired_mean(difference + shift + 0.3, document, position, **OPTIONS)
        hits += interval.lo <= 0.3 <= interval.hi
    assert 0.89 <= hits / 200 <= 0.99


def test_dependence_between_neighbours_widens_the_interval():
    random = np.random.default_rng(2)
    independent = paired_mean(*stream(random), **OPTIONS)
    dependent = paired_mean(*stream(random, rho=0.9), **OPTIONS)
    assert width(dependent) > 2 * width(independent)


def test_single_tokens_as_blocks_would_miss_the_dependence():
    data = stream(np.random.default_rng(3), rho=0.9)
    assert width(paired_mean(*data, **OPTIONS)) > 2 * width(
        paired_mean(*data, **{**OPTIONS, "block_tokens": 1})
    )


def test_agrees_with_the_textbook_error_where_tokens_are_independent():
    difference, document, position = stream(np.random.default_rng(4))
    interval = paired_mean(difference, document, position, **{**OPTIONS, "resamples": 4000})
    textbook = 2 * 1.96 * difference.std() / np.sqrt(len(difference))
    assert width(interval) == pytest.approx(textbook, rel=0.2)


def test_differences_between_documents_do_not_widen_the_interval():
    difference, document, position = stream(np.random.default_rng(5))
    plain = paired_mean(difference, document, position, **OPTIONS)
    shifted = paired_mean(difference + 100.0 * (document == 1), document, position, **OPTIONS)
    assert width(shifted) == pytest.approx(width(plain), rel=1e-6)


def test_every_token_weighs_the_same_whatever_its_document():
    document = np.repeat([0, 1], [300, 100])
    position = np.r_[np.arange(300), np.arange(100)]
    interval = paired_mean(np.where(document == 0, 1.0, 5.0), document, position, **OPTIONS)
    assert interval.estimate == pytest.approx(2.0)


def test_thinned_positions_keep_their_block_together():
    random = np.random.default_rng(6)
    difference, document, position = stream(random, rho=0.99)
    kept = random.random(len(difference)) < 0.1
    thinned = paired_mean(difference[kept], document[kept], position[kept], **OPTIONS)
    alone = paired_mean(
        difference[kept], document[kept], position[kept], **{**OPTIONS, "block_tokens": 1}
    )
    assert thinned.estimate == pytest.approx(difference[kept].mean())
    assert width(thinned) > 1.3 * width(alone)


def test_same_seed_same_interval_and_other_seed_other_bounds():
    data = stream(np.random.default_rng(8))
    first, again = paired_mean(*data, **OPTIONS), paired_mean(*data, **OPTIONS)
    other = paired_mean(*data, **{**OPTIONS, "seed": 8})
    assert first == again
    assert other.estimate == first.estimate
    assert other.lo != first.lo


def test_the_order_of_rows_changes_no_bit():
    random = np.random.default_rng(9)
    data = stream(random)
    order = random.permutation(len(data[0]))
    assert paired_mean(*(column[order] for column in data), **OPTIONS) == paired_mean(
        *data, **OPTIONS
    )


@settings(max_examples=40, deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1),
    factor=st.floats(0.01, 100),
    shift=st.floats(-50, 50),
    documents=st.integers(1, 4),
    tokens=st.integers(130, 400),
)
def test_shifting_scaling_and_mirroring_the_data_does_so_to_the_interval(
    seed, factor, shift, documents, tokens
):
    difference, document, position = stream(np.random.default_rng(seed), documents, tokens)
    plain = np.array(paired_mean(difference, document, position, **OPTIONS))
    moved = paired_mean(factor * difference + shift, document, position, **OPTIONS)
    mirrored = paired_mean(-difference, document, position, **OPTIONS)
    assert plain[1] <= plain[0] <= plain[2]
    np.testing.assert_allclose(moved, factor * plain + shift, rtol=1e-9, atol=1e-9)
    np.testing.assert_allclose(mirrored, -plain[[0, 2, 1]], rtol=1e-9, atol=1e-12)


@settings(max_examples=40, deadline=None)
@given(value=st.floats(-5, 5), documents=st.integers(1, 4))
def test_a_constant_difference_has_no_uncertainty(value, documents):
    _, document, position = stream(np.random.default_rng(0), documents, 200)
    interval = paired_mean(np.full(len(document), value), document, position, **OPTIONS)
    np.testing.assert_allclose(interval, value, rtol=1e-12, atol=1e-15)


def test_one_block_per_document_gives_an_estimate_without_bounds():
    interval = paired_mean([1.0, 2.0], [0, 0], [3, 9], **OPTIONS)
    assert interval.estimate == 1.5
    assert np.isnan(interval.lo)
    assert np.isnan(interval.hi)


def test_two_thousand_resamples_take_well_under_a_second():
    data = stream(np.random.default_rng(10), documents=5, tokens=2560)
    begin = time.perf_counter()
    paired_mean(*data, **{**OPTIONS, "resamples": 2000})
    assert time.perf_counter() - begin < 1


@pytest.mark.parametrize(
    ("difference", "document", "position", "message"),
    [
        ([], [], [], "non-empty"),
        ([1.0, 2.0], [0], [0, 1], r"difference \(2,\), document \(1,\)"),
        ([1.0, np.nan], [0, 0], [0, 1], r"difference\[1\] is nan"),
        ([1.0, 2.0], [3, 3], [8, 8], "position 8 of document 3 comes twice"),
    ],
)
def test_input_that_cannot_be_right_is_refused(difference, document, position, message):
    with pytest.raises(ValueError, match=message):
        paired_mean(difference, document, position, **OPTIONS)


@pytest.mark.parametrize(
    ("change", "message"),
    [({"block_tokens": 0}, "block_tokens 0"), ({"confidence": 95}, "confidence 95")],
)
def test_parameters_out_of_range_are_refused(change, message):
    with pytest.raises(ValueError, match=message):
        paired_mean([1.0], [0], [0], **{**OPTIONS, **change})


def test_perplexity_change_is_the_ratio_of_perplexities():
    random = np.random.default_rng(11)
    difference, document, position = stream(random)
    reference = random.gamma(2.0, 1.5, size=len(document)).astype(np.float32)
    nll = (reference + 0.02 + 0.1 * difference).astype(np.float32)
    change = ppl_delta_pct(nll, reference, document, position, **OPTIONS)
    ratio = perplexity(nll) / perplexity(reference)
    assert change.estimate == pytest.approx(100 * (ratio - 1), rel=1e-9)
    assert change.lo < change.estimate < change.hi


def test_perplexity_change_transforms_the_interval_of_the_mean():
    difference, document, position = stream(np.random.default_rng(12))
    nll = 3 + 0.1 * difference
    change = ppl_delta_pct(nll, np.full(len(nll), 3.0), document, position, **OPTIONS)
    mean = paired_mean(nll - 3, document, position, **OPTIONS)
    np.testing.assert_allclose(change, 100 * np.expm1(np.array(mean)), rtol=1e-12)


def test_perplexity_change_needs_paired_tokens():
    with pytest.raises(ValueError, match=r"nll \(2,\), reference_nll \(1,\)"):
        ppl_delta_pct([1.0, 2.0], [1.0], [0, 0], [0, 1], **OPTIONS)


def test_perplexity_of_a_fair_coin_is_two():
    assert perplexity(np.full(1000, np.log(2), dtype=np.float32)) == pytest.approx(2.0)


def test_median_ratio_lies_between_sorted_ratios_by_the_binomial():
    ratios = np.arange(1.0, 13.0)
    interval = median_ratio(ratios, np.ones(12), confidence=0.95)
    assert interval == Interval(6.5, 3.0, 10.0)
    assert stats.binom.cdf(9, 12, 0.5) - stats.binom.cdf(2, 12, 0.5) >= 0.95


@settings(max_examples=40, deadline=None)
@given(
    st.lists(st.tuples(st.floats(0.1, 10), st.floats(0.1, 10)), min_size=6, max_size=40),
    st.floats(0.1, 10),
)
def test_a_drift_shared_by_both_blocks_of_a_pair_cancels(pairs, drift):
    a, b = np.array(pairs).T
    speed = np.linspace(1, drift, len(a))
    np.testing.assert_allclose(
        median_ratio(a * speed, b * speed, confidence=0.9),
        median_ratio(a, b, confidence=0.9),
        rtol=1e-9,
    )


def test_median_ratio_covers_the_true_median():
    random = np.random.default_rng(13)
    hits = 0
    for _ in range(300):
        interval = median_ratio(random.lognormal(size=12), np.ones(12), confidence=0.95)
        hits += interval.lo <= 1 <= interval.hi
    assert hits / 300 >= 0.93


def test_too_few_pairs_give_a_median_without_bounds():
    interval = median_ratio([1.0, 2.0, 3.0], [1.0, 1.0, 1.0], confidence=0.95)
    assert interval.estimate == 2.0
    assert np.isnan(interval.lo)


@pytest.mark.parametrize(
    ("a", "b", "message"),
    [
        ([], [], "non-empty"),
        ([1.0], [1.0, 2.0], r"blocks_a \(1,\), blocks_b \(2,\)"),
        ([1.0, 2.0], [1.0, 0.0], "blocks_b holds 0.0"),
    ],
)
def test_times_that_cannot_be_right_are_refused(a, b, message):
    with pytest.raises(ValueError, match=message):
        median_ratio(a, b, confidence=0.95)
