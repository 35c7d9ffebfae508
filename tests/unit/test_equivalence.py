"""The verdict rule: what an interval may claim, and what it may never do."""

from typing import get_args

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from kvpareto.claim_settings import Expect
from kvpareto.claims.bootstrap import Interval
from kvpareto.claims.equivalence import verdict
from kvpareto.claims.ratio import change_pct, exact

EXPECTATIONS = get_args(Expect)
MIRROR = {
    "lower": "higher", "higher": "lower", "equal": "equal", "not_higher": "not_lower",
    "not_lower": "not_higher",
}  # fmt: skip
DENIAL = {"higher": "not_higher", "lower": "not_lower"}

numbers = st.floats(-10, 10)
margins = st.floats(0, 5)
expectations = st.sampled_from(EXPECTATIONS)
intervals = st.tuples(numbers, numbers, numbers).map(
    lambda three: Interval(*(sorted(three)[index] for index in (1, 0, 2)))
)


@pytest.mark.parametrize(
    ("lo", "hi", "expected"),
    [
        # margin 1: lower, higher, equal, not_higher, not_lower; + reproduced, - contradicted
        (2, 3, "-+--+"),
        (-3, -2, "+--+-"),
        (-0.5, 0.5, "--+++"),
        (-1, 1, "--+++"),  # the bounds themselves are inside
        (0.5, 2, "-???+"),
        (-2, -0.5, "?-?+?"),
        (-2, 2, "?????"),
    ],
)
def test_every_place_of_an_interval_has_its_verdict(lo, hi, expected):
    words = {"+": "reproduced", "-": "contradicted", "?": "undecided"}
    interval = Interval((lo + hi) / 2, lo, hi)
    found = [
        verdict(interval, 1.0, expect)
        for expect in ("lower", "higher", "equal", "not_higher", "not_lower")
    ]
    assert found == [words[sign] for sign in expected]


@given(intervals, margins, expectations)
def test_the_mirror_image_of_a_claim_has_the_same_verdict(interval, margin, expect):
    estimate, lo, hi = interval
    mirrored = verdict(Interval(-estimate, -hi, -lo), margin, MIRROR[expect])
    assert verdict(interval, margin, expect) == mirrored


@given(intervals, margins, st.sampled_from(sorted(DENIAL)))
def test_a_claim_and_its_denial_have_opposite_verdicts(interval, margin, expect):
    opposite = {"reproduced": "contradicted", "contradicted": "reproduced"}
    decided = verdict(interval, margin, expect)
    assert verdict(interval, margin, DENIAL[expect]) == opposite.get(decided, decided)


@given(intervals, margins)
def test_lower_equal_and_higher_are_never_reproduced_together(interval, margin):
    kinds = [verdict(interval, margin, expect) for expect in ("lower", "equal", "higher")]
    assert kinds.count("reproduced") <= 1


@given(intervals, margins, expectations, st.floats(0, 5), st.floats(0, 5))
def test_a_wider_interval_changes_a_verdict_to_undecided_or_not_at_all(
    interval, margin, expect, left, right
):
    estimate, lo, hi = interval
    wider = verdict(Interval(estimate, lo - left, hi + right), margin, expect)
    assert wider in (verdict(interval, margin, expect), "undecided")


@given(numbers, margins, expectations)
def test_an_exact_difference_is_always_decided(value, margin, expect):
    assert verdict(exact(value), margin, expect) != "undecided"


@given(numbers)
def test_without_a_margin_an_exact_difference_is_equal_only_if_it_is_none(value):
    assume(value != 0)
    assert verdict(exact(0.0), 0.0, "equal") == "reproduced"
    assert verdict(exact(value), 0.0, "equal") == "contradicted"
    assert verdict(exact(0.0), 0.0, "higher") == "contradicted"


@given(numbers, margins, expectations)
def test_without_bounds_nothing_is_decided(value, margin, expect):
    assert verdict(Interval(value, np.nan, np.nan), margin, expect) == "undecided"


def test_input_that_cannot_be_right_is_refused():
    with pytest.raises(ValueError, match="margin -1 must not be negative"):
        verdict(exact(0.0), -1, "equal")
    with pytest.raises(ValueError, match="lower bound 2 is above the upper bound 1"):
        verdict(Interval(1.5, 2, 1), 0, "equal")


# The interval of a ratio.

positive = st.floats(0.1, 10)
factors = st.tuples(positive, positive, positive).map(
    lambda three: Interval(*(sorted(three)[index] for index in (1, 0, 2)))
)


@given(factors, factors)
def test_the_change_of_a_ratio_lies_between_its_bounds_and_turns_round_with_the_ratio(one, other):
    forth, back = change_pct([one], [other]), change_pct([other], [one])
    assert forth.lo <= forth.estimate <= forth.hi
    assert forth.estimate == pytest.approx(100 * (one.estimate / other.estimate - 1))
    for end, opposite in zip(forth, (back.estimate, back.hi, back.lo), strict=True):
        assert (1 + end / 100) * (1 + opposite / 100) == pytest.approx(1)


@given(factors, positive)
def test_an_exact_divisor_only_scales_the_interval(one, value):
    assert change_pct([one], [exact(value)]) == pytest.approx(
        tuple(100 * (end / value - 1) for end in one), abs=1e-9
    )


@given(factors, factors, factors)
def test_another_factor_never_narrows_the_interval(one, other, third):
    few, many = change_pct([one], [other]), change_pct([one, third], [other])
    width = [np.log1p(end.hi / 100) - np.log1p(end.lo / 100) for end in (few, many)]
    assert width[1] >= width[0] - 1e-9


def test_the_interval_covers_as_often_as_those_of_its_parts():
    random = np.random.default_rng(0)
    hits = 0
    for _ in range(2000):
        logs = random.normal([0.3, -0.2], [0.05, 0.1])
        one, other = (
            Interval(*np.exp([log, log - 1.645 * error, log + 1.645 * error]))
            for log, error in zip(logs, (0.05, 0.1), strict=True)
        )
        found = change_pct([one], [other])
        hits += found.lo <= 100 * np.expm1(0.5) <= found.hi
    assert 0.88 <= hits / 2000 <= 0.92


def test_a_ratio_to_what_may_be_zero_has_no_bounds_and_of_what_may_be_zero_none_below():
    may_be_zero = Interval(1.0, -0.5, 2.0)
    over_it = change_pct([exact(2.0)], [may_be_zero])
    assert over_it.estimate == 100
    assert np.isnan([over_it.lo, over_it.hi]).all()
    assert change_pct([may_be_zero], [exact(1.0)]).lo == -100
    assert np.isnan(change_pct([exact(-1.0)], [exact(1.0)])).all()
    assert np.isnan(change_pct([Interval(1.0, np.nan, np.nan)], [exact(1.0)])[1:]).all()
