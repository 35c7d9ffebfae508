"""The front, against its definition."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst

from kvpareto.claims.pareto import front

# Few distinct values, so that ties and equal points are common.
VALUES = st.sampled_from([-np.inf, -1.0, 0.0, 1.0, 2.0, 3.0, np.inf, np.nan])
POINTS = npst.arrays(np.float64, st.tuples(st.integers(0, 30), st.just(2)), elements=VALUES)


def front_by_definition(points):
    def dominates(a, b):
        return bool((a <= b).all() and (a < b).any())

    return [not np.isnan(b).any() and not any(dominates(a, b) for a in points) for b in points]


@given(POINTS)
def test_is_the_set_of_points_that_no_point_dominates(points):
    assert front(points[:, 0], points[:, 1]).tolist() == front_by_definition(points)


@given(POINTS, st.randoms())
def test_does_not_depend_on_the_order_of_points(points, random):
    order = list(range(len(points)))
    random.shuffle(order)
    mask = front(points[:, 0], points[:, 1])
    assert front(points[order, 0], points[order, 1]).tolist() == mask[order].tolist()


@given(POINTS)
def test_treats_both_axes_alike(points):
    assert (front(points[:, 0], points[:, 1]) == front(points[:, 1], points[:, 0])).all()


def test_equal_points_both_stay_and_a_shadowed_one_goes():
    assert front([1, 1, 1, 2], [3, 3, 4, 3]).tolist() == [True, True, False, False]


def test_a_failed_arm_neither_joins_nor_shadows():
    assert front([1, 2, np.nan], [np.nan, 5, 0]).tolist() == [False, True, False]


def test_no_points_give_no_front():
    assert front([], []).shape == (0,)


def test_axes_of_different_length_are_refused():
    with pytest.raises(ValueError, match="vectors of one length"):
        front([1, 2], [1])
