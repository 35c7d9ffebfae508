"""Axes, labels and styles that the figures share."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from matplotlib.figure import Figure
from tests.frames import labels

from kvpareto.report.labels import Label, place_labels
from kvpareto.report.scale import Scale
from kvpareto.report.style import policy_styles


def test_policies_have_styles_that_differ_and_stay():
    known = ["start_recent", "lazy", "slack", "max_drop", "overlap", "refresh", "bridge", "recent"]
    known += ["adaptive_slack", "adaptive_entropy", "h2o", "scissorhands", "snapkv", "tova"]
    known += ["pyramidkv", "knorm", "keydiff", "random", "full", "recompute"]
    styles = policy_styles([*known, "zeta", "alpha"])
    assert len({(style.color, style.marker, style.hollow) for style in styles.values()}) == 22
    assert len({str(styles[name].marker) for name in known[:17]}) == 17
    assert policy_styles(["lazy"])["lazy"] == styles["lazy"]
    assert policy_styles(["alpha", "zeta"])["alpha"] == policy_styles(["zeta", "alpha"])["alpha"]


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.floats(0.01, 1e5), min_size=1, max_size=30),
    st.booleans(),
    st.floats(0, 0.5),
)
def test_a_scale_keeps_every_point_in_order_inside_and_invertible(values, logarithmic, reach):
    points = np.sort(values)
    scale = Scale.around(
        points, points * (1 - reach), points * (1 + reach), logarithmic=logarithmic
    )
    assert scale.low < points[0]
    assert points[-1] < scale.high
    assert (np.diff(scale.forward(points)) >= 0).all()
    np.testing.assert_allclose(scale.inverse(scale.forward(points)), points, rtol=1e-6)
    assert all(scale.low <= tick <= scale.high for tick in scale.ticks())


def test_a_scale_without_far_off_points_is_not_squeezed():
    none = [np.nan] * 4
    assert not Scale.around([0, 1, 2, 4], none, none, logarithmic=False).squeezed
    assert Scale.around([0, 1, 2, 400], none, none, logarithmic=False).squeezed
    assert not Scale.around([0, 0, 0, 0], none, none, logarithmic=False).squeezed


def test_a_label_without_a_place_is_handed_back():
    figure = Figure(figsize=(1, 1))
    axes = figure.add_axes((0, 0, 1, 1))
    too_long = Label(0.5, 0.5, "much too long for so small a picture", "black")
    assert place_labels(axes, [too_long], np.array([[0.5, 0.5]]), np.empty((0, 4))) == [too_long]
    assert labels(figure) == []
