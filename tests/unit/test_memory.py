"""Memory: what is counted is what is held, and shapes say the same."""

import pytest
import torch
from tests.tiny import SHAPES, VOCAB, random_ids, tiny_model

from kvpareto.eviction.autocap import build_policy
from kvpareto.eviction.policies.full import Full
from kvpareto.eviction.policies.lazy import Lazy
from kvpareto.eviction.policies.random import Random
from kvpareto.eviction.policies.recompute import Recompute
from kvpareto.eviction.policies.start_recent import StartRecent
from kvpareto.measure.block import BLOCK_ATTENTION
from kvpareto.measure.memory import cache_bytes, peak_allocation, weight_bytes
from kvpareto.measure.memory_split import decoding, memory_of_arms, memory_split, peak_bytes
from kvpareto.measure.probing import logit_difference, stream_of

CPU = torch.device("cpu")
FAMILIES = list(SHAPES)
DOCUMENT = random_ids(1, 120)
STRICT = StartRecent(capacity=24, sinks=4)
FLOATS = 4096  # 16 KiB: far more than any tensor of bookkeeping


def parts(policy, layout: str, family: str = "gpt_neox", **options):
    """Measured and analytic bytes by part."""
    split = memory_split(tiny_model(family), policy, layout, DOCUMENT, **options)
    assert (split["status"] == "ok").all()
    return split.set_index("part")


# Peaks.


def test_the_peak_counts_what_is_held_at_one_time():
    def step() -> None:
        one = torch.empty(FLOATS)
        two = torch.empty(2 * FLOATS)
        del one, two
        torch.empty(FLOATS)

    assert peak_allocation(step, 3, CPU) == 3 * FLOATS * 4


def test_memory_that_a_step_frees_makes_room_for_what_it_allocates():
    held = {}

    def fill() -> None:
        held["x"] = torch.empty(FLOATS)

    def replace() -> None:
        del held["x"]
        held["x"] = torch.empty(FLOATS)

    def grow() -> None:
        held["x"] = torch.cat([held["x"], torch.empty(1)])

    assert peak_allocation(replace, 3, CPU, before=fill) == 0
    # The old tensor is held while the new one is filled.
    assert peak_allocation(grow, 1, CPU, before=fill) == FLOATS * 4 + 2 * 4


def test_what_is_allocated_before_is_not_counted():
    held = []
    assert peak_allocation(lambda: None, 1, CPU, before=lambda: held.append(torch.empty(9))) == 0


# What is held.


def test_tied_weights_are_held_once():
    model = torch.nn.Module()
    model.embed, model.head = torch.nn.Linear(7, 5, bias=False), torch.nn.Linear(7, 5, bias=False)
    assert weight_bytes(model) == 2 * 7 * 5 * 4
    model.head.weight = model.embed.weight
    assert weight_bytes(model) == 7 * 5 * 4
    model.head.weight = torch.nn.Parameter(model.embed.weight.detach())  # a view of it
    assert weight_bytes(model) == 7 * 5 * 4


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("layout", ["compact", "ring", "overwrite", "dynamic", "converted"])
def test_keys_and_values_take_what_their_shapes_say(family, layout):
    """Heads of keys and values, not of queries: half of them under grouped-query attention."""
    found = parts(STRICT, layout, family)
    kv = found.loc["kv"]
    entries = 24 if layout in ("dynamic", "converted") else 25
    heads = SHAPES[family].get("num_key_value_heads", 4)
    assert kv["bytes"] == kv["analytic_bytes"] == 3 * entries * heads * 2 * 16 * 4


def test_a_soft_ring_holds_twice_as_much():
    kv = parts(STRICT, "soft_ring").loc["kv"]
    assert kv["bytes"] == 2 * kv["analytic_bytes"]


def test_a_lazy_arm_holds_its_overshoot_and_full_the_document():
    strict, lazy, full = (
        parts(policy, "compact").loc["kv", "bytes"]
        for policy in (STRICT, Lazy(capacity=24, sinks=4, period=8), Full())
    )
    assert lazy * 25 == strict * 32
    assert full * 25 == strict * DOCUMENT.shape[1]


def test_compaction_keeps_pristine_rotary_dimensions_beside_keys():
    """A quarter of a head under partial rotary of 0.25, and an int64 position per slot."""
    state = parts(STRICT, "compact").loc["cache_state", "bytes"]
    assert state == 3 * 25 * (4 * 4 * 4 + 8)


def test_a_cache_that_only_grows_holds_nothing_beside_keys_and_values():
    stream = decoding(tiny_model("llama"), Full(), "dynamic", DOCUMENT)
    with torch.inference_mode():
        stream.prefill(DOCUMENT[:, :10])
    kv, state = cache_bytes(stream.cache)
    assert (kv, state) == (3 * 10 * 2 * 2 * 16 * 4, 0)


def test_weights_and_logits_take_what_their_shapes_say():
    found = parts(STRICT, "compact")
    for part in ("weights", "logits"):
        assert found.loc[part, "bytes"] == found.loc[part, "analytic_bytes"]
    assert found.loc["logits", "bytes"] == VOCAB * 4
    assert found.loc["transient", "bytes"] > found.loc["logits", "bytes"]


def test_recompute_holds_no_cache_and_needs_a_whole_window_for_a_moment():
    small, large = (parts(Recompute(capacity=cap), "compact")["bytes"] for cap in (16, 64))
    assert small["kv"] == large["kv"] == 0
    assert large["transient"] > 3 * small["transient"]
    assert parts(STRICT, "compact")["bytes"]["transient"] < small["transient"]


def test_conversions_hold_the_old_cache_the_kept_tuples_and_the_new_cache_together():
    plain, converted = (parts(STRICT, layout)["bytes"] for layout in ("dynamic", "converted"))
    assert converted["kv"] == plain["kv"]
    assert converted["transient"] >= 2 * plain["kv"] > plain["transient"]


def test_the_peak_is_the_sum_of_all_parts_but_the_logits():
    split = memory_split(tiny_model("gpt_neox"), STRICT, "compact", DOCUMENT)
    found = split.set_index("part")["bytes"]
    assert peak_bytes(split) == found.sum() - found["logits"]
    assert peak_bytes(split, weights=False) == peak_bytes(split) - found["weights"]


def test_a_concatenating_cache_refuses_what_it_cannot_run():
    for policy in (Lazy(capacity=24, period=4), Random(capacity=24)):
        with pytest.raises(ValueError, match="'dynamic' runs strict start_recent and full"):
            memory_split(tiny_model("gpt_neox"), policy, "dynamic", DOCUMENT)


def test_a_document_that_ends_within_the_profile_is_refused():
    with pytest.raises(ValueError, match="take a longer text or profile fewer tokens"):
        memory_split(tiny_model("gpt_neox"), STRICT, "compact", DOCUMENT[:, :30])


# Staging.


@pytest.mark.parametrize("name", ["h2o", "snapkv", "knorm", "refresh", "pyramidkv"])
def test_memory_of_observing_policies_is_measured_whatever_ran_before(name):
    """A timing run leaves the model under the attention function of its last stream."""
    model = tiny_model("llama")
    model.set_attn_implementation(BLOCK_ATTENTION)
    setting = {"cap": 48, "cap_on": "peak", "sinks": 4, "period": 8}
    setting |= {} if name == "refresh" else {"recent": 8}
    arm = {"policy": name, "setting": setting, "layout": "compact", "staging": False}
    rows = memory_of_arms(model, DOCUMENT, [arm], {"model": "m", "text": "t"})
    model.set_attn_implementation("sdpa")
    assert (rows["status"] == "ok").all()
    assert rows.set_index("part").loc["kv", "bytes"] > 0


@pytest.mark.parametrize("layout", ["compact", "soft_ring"])
@pytest.mark.parametrize(
    ("name", "own"), [("start_recent", {}), ("lazy", {"period": 7}), ("random", {"period": 5})]
)
def test_staging_changes_no_logit(layout, name, own):
    model = tiny_model("llama")
    policy = build_policy(name, 24, "post_prune", {"sinks": 4, **own})
    staged, plain = (stream_of(model, policy, layout, staging=on) for on in (True, False))
    assert logit_difference(staged, plain, DOCUMENT, 24, 60) == 0


def test_one_staging_buffer_serves_all_layers_and_all_prunes():
    stream = stream_of(tiny_model("gpt_neox"), STRICT, staging=True)
    with torch.inference_mode():
        stream.prefill(DOCUMENT[:, :24])
        addresses = set()
        for t in range(24, 40):
            stream.decode(DOCUMENT[:, t : t + 1])
            addresses.add(stream.cache.staging.buffer.data_ptr())
    assert len(addresses) == 1


def test_staging_holds_what_one_gather_takes_and_allocates_no_gather():
    on, off = (parts(STRICT, "compact", staging=staging) for staging in (True, False))
    staged = on.loc["staging"]
    assert staged["bytes"] == staged["analytic_bytes"] == 24 * 4 * 16 * 4
    assert off.loc["staging", "bytes"] == 0
    assert on.loc["transient", "bytes"] < off.loc["transient", "bytes"]
