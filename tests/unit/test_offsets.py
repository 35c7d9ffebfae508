"""Offsets: the facts of the energy deficit, and what every method has to keep to."""

from __future__ import annotations

import math
import weakref

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from kvpareto.merge.gate import curves
from kvpareto.merge.offset import offset_of, top_mean

METHODS = {
    "zero": {},
    "concat": {},
    "energy_deficit": {"top_k": 2},
    "mean_field": {},
    "hard_drop-head": {"top_k": 1, "threshold": 1.0, "judge": "head"},
    "hard_drop-average": {"top_k": 2, "threshold": 1.0, "judge": "average"},
    "drop_sink": {"sink_tokens": 2},
    "tiered": {"top_k": 2, "threshold": 1.0, "misjudged": 0.3},
    "ape": {"temperature": 0.9, "scale": 0.8},
    "decrowd": {},
}
"""A row per method; the name before the hyphen is its file."""

levels = st.lists(st.floats(-30, 30, width=32), min_size=1, max_size=8)


def method(name: str):
    return offset_of(name.partition("-")[0], METHODS[name])


def shifts(name: str, lses: torch.Tensor) -> torch.Tensor:
    """Offsets of chunks [chunks, heads, queries]."""
    offset = method(name)
    return offset.offset(lses, offset.target(lses.split(1)), range(len(lses)))


def column(values) -> torch.Tensor:
    return torch.tensor(values, dtype=torch.float32)[:, None, None]


def test_the_gate_has_a_closed_form():
    lses = 5 * torch.randn(6, 4, 3, generator=torch.Generator().manual_seed(0))
    target = top_mean([lses], 2)
    shifted = lses + shifts("energy_deficit", lses)
    torch.testing.assert_close(shifted, 2 * lses - torch.logaddexp(lses, target))
    gated = lses.double().exp() * (lses - target).double().sigmoid()
    torch.testing.assert_close(shifted.double().exp(), gated, rtol=1e-5, atol=0)


@pytest.mark.parametrize("count", [1, 2, 5])
def test_a_chunk_at_the_target_is_halved(count):
    """So one single chunk does not reduce to full attention."""
    found = shifts("energy_deficit", torch.full((count, 2, 3), 1.7))
    torch.testing.assert_close(found, torch.full_like(found, -math.log(2)))


@pytest.mark.parametrize("name", ["energy_deficit", "mean_field"])
@given(levels)
def test_the_gate_only_ever_takes_and_keeps_the_ranks(name, values):
    lses = column(values)
    found = shifts(name, lses)
    assert (found <= 0).all()
    order = lses.squeeze().argsort(dim=0)
    rising = (lses + found).flatten()[order.flatten()].diff()
    assert (rising >= -1e-4).all()
    # Gaps widen, so what is behind falls further behind.
    gaps = lses.flatten()[order.flatten()].diff()
    assert (rising >= gaps - 1e-4).all()


@pytest.mark.parametrize("name", [n for n in METHODS if n != "ape"])
@given(levels, st.floats(-20, 20, width=32))
def test_a_shift_of_all_logits_changes_no_offset(name, values, shift):
    if "drop" in name or name == "tiered":
        # A threshold is met or not: stay away from where rounding decides.
        values = [round(value) * 0.75 for value in values]
        shift = round(shift)
    lses = column(values)
    torch.testing.assert_close(shifts(name, lses), shifts(name, lses + shift), atol=1e-4, rtol=0)


@pytest.mark.parametrize("name", [n for n in METHODS if n != "tiered"])
@given(levels, st.randoms(use_true_random=False))
def test_the_order_of_chunks_does_not_matter(name, values, random):
    order = list(range(len(values)))
    random.shuffle(order)
    lses = column(values)
    torch.testing.assert_close(
        shifts(name, lses)[order], shifts(name, lses[order]), atol=1e-5, rtol=1e-5
    )


def test_the_partition_into_chunks_matters():
    """Two halves of a chunk are each worth less than the chunk was: the gate cuts deeper."""
    whole = column([3.0, 0.0])
    halves = column([3.0 - math.log(2), 3.0 - math.log(2), 0.0])
    weights = [
        (lses + shifts("energy_deficit", lses)).logsumexp(0).item() for lses in (whole, halves)
    ]
    assert abs(weights[0] - weights[1]) > 1e-2
    same = [(lses + shifts("zero", lses)).logsumexp(0).item() for lses in (whole, halves)]
    assert same[0] == pytest.approx(same[1], abs=1e-6)


@pytest.mark.parametrize("name", METHODS)
def test_a_chunk_that_nobody_sees_stays_unseen_and_moves_no_other(name):
    lses = 3 * torch.randn(4, 2, 3, generator=torch.Generator().manual_seed(1))
    with_empty = torch.cat([lses[:2], torch.full((1, 2, 3), -torch.inf), lses[2:]])
    found = with_empty + shifts(name, with_empty)
    assert (found[2] == -torch.inf).all()
    assert not found.isnan().any()
    if name != "tiered":  # it draws by the chunk's seed, and here that is its number
        torch.testing.assert_close(found[[0, 1, 3, 4]], lses + shifts(name, lses))


@pytest.mark.parametrize("name", METHODS)
def test_nothing_visible_gives_no_nan(name):
    nothing = torch.full((3, 2, 1), -torch.inf)
    found = nothing + shifts(name, nothing)
    assert (found == -torch.inf).all()


@given(levels, st.integers(1, 10))
def test_the_target_is_the_mean_of_the_largest(values, count):
    best = sorted(values)[-count:]
    found = top_mean(column(values).split(1), count)
    assert found.item() == pytest.approx(sum(best) / len(best), abs=1e-4)


def test_the_target_takes_one_chunk_at_a_time():
    """Else memory would grow with the number of chunks."""
    alive = weakref.WeakSet()
    most = 0

    def one_by_one():
        nonlocal most
        for number in range(50):
            lse = torch.full((1, 2, 3), float(number))
            alive.add(lse)
            most = max(most, len(alive))
            yield lse

    for name in METHODS:
        method(name).target(one_by_one())
    assert 1 <= most <= 3


def test_deletion_by_each_head_and_by_the_average_disagree_where_heads_do():
    lses = torch.tensor([[[5.0], [0.0]], [[0.0], [2.0]]])  # each head likes another chunk
    own = shifts("hard_drop-head", lses)
    assert own[:, :, 0].tolist() == [[0.0, -math.inf], [-math.inf, 0.0]]
    together = offset_of("hard_drop", {"top_k": 1, "threshold": 1.2, "judge": "average"})
    deleted = together.offset(lses, together.target([lses]), [0, 0])[:, :, 0].tolist()
    assert deleted == [[0.0, 0.0], [-math.inf, -math.inf]]


def test_misjudgement_turns_some_decisions_around_and_always_the_same_ones():
    lses, target = torch.zeros(500, 4, 1), torch.zeros(4, 1)

    def deleted(misjudged: float) -> list[bool]:
        offset = offset_of("tiered", {"misjudged": misjudged})
        found = offset.offset(lses, target, range(500)) == -torch.inf
        assert torch.equal(found.all(1), found.any(1))  # all heads together
        return found[:, 0, 0].tolist()

    assert not any(deleted(0.0))
    assert all(deleted(1.0))
    assert 60 < sum(deleted(0.2)) < 140
    assert deleted(0.2) == deleted(0.2)


def test_ape_gives_the_context_the_weight_of_its_formula():
    lses, temperature, scale = column([1.0, 2.5, -1.0]), 0.9, 0.8
    found = (lses + shifts("ape", lses)).logsumexp(0)
    torch.testing.assert_close(found, scale * temperature * lses.logsumexp(0))


def test_decrowded_chunks_weigh_as_much_as_the_best_and_one_alone_is_left_alone():
    lses = column([1.0, 2.5, -1.0, 2.4])
    torch.testing.assert_close((lses + shifts("decrowd", lses)).logsumexp(0), lses.amax(0))
    assert (shifts("decrowd", lses[:1]) == 0).all()


@pytest.mark.parametrize(
    ("name", "wrong"),
    [
        ("energy_deficit", {"top_k": 0}),
        ("hard_drop", {"judge": "vote"}),
        ("tiered", {"misjudged": 1.5}),
        ("drop_sink", {"sink_tokens": 0}),
        ("ape", {"temperature": 0.0}),
    ],
)
def test_values_that_cannot_be_are_refused_by_name(name, wrong):
    (key,) = wrong
    with pytest.raises(ValueError, match=key):
        offset_of(name, wrong)


def test_curves_are_drawn_of_what_depends_on_the_deficit():
    arms = [{"offset": name.partition("-")[0], "parameters": own} for name, own in METHODS.items()]
    found = curves([*arms, {"offset": "full", "parameters": {}}])
    assert set(found["offset"]) == {"energy_deficit", "mean_field", "hard_drop", "tiered"}
    at = found[(found["offset"] == "energy_deficit") & (found["excess"].abs() < 1e-6)]
    assert at["shift"].item() == pytest.approx(-math.log(2))
