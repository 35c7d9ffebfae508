"""The smoke study end to end: complete tables, exact re-runs, and nothing lost under SIGKILL."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import time
from collections import Counter
from pathlib import Path

import pandas as pd
import pytest
import yaml

from kvpareto.model_settings import ModelSettings
from kvpareto.models.load import load_model, verify

pytestmark = pytest.mark.xdist_group("smoke")

POLICY = "src/kvpareto/eviction/policies/lazy.py"


def edited(study, file: str, old: str, new: str):
    """Change a file of a study for the length of a with block."""

    class Edit:
        def __enter__(self):
            self.path = study.folder / file
            self.before = self.path.read_bytes()
            text = self.before.decode()
            assert old in text
            self.path.write_text(text.replace(old, new))

        def __exit__(self, *_):
            self.path.write_bytes(self.before)

    return Edit()


def test_every_arm_has_its_row_in_every_table(finished):
    eviction = pd.read_csv(finished.folder / "results/tables/eviction.csv")
    timing = pd.read_csv(finished.folder / "results/tables/timing.csv")
    timed = {"full", "lazy", "random", "recompute", "start_recent"}
    untimed = {"h2o", "refresh", "slack", "max_drop", "static_cache"}
    assert set(eviction["policy"]) == timed | untimed
    refused = eviction["policy"] == "static_cache"
    assert (eviction.loc[refused, "status"] == "refused").all()
    assert eviction.loc[refused, "why"].str.contains("take the policy lazy").all()
    assert (eviction.loc[~refused, "status"] == "ok").all()
    assert eviction.loc[~refused, "ppl"].between(1, 2048).all()
    assert set(timing["policy"]) == timed
    assert set(timing.loc[timing["policy"] == "start_recent", "layout"]) == {
        "compact",
        "soft_ring",
        "ring",
    }
    assert (timing["status"] == "ok").all()
    assert (timing["tpot_ratio_lo"] <= timing["tpot_ratio"]).all()
    assert (timing["tpot_ratio"] <= timing["tpot_ratio_hi"]).all()
    own = timing[timing["policy"] == "recompute"]
    assert (own["speedup_vs_recompute"] == 1).all()


def test_lazy_with_period_one_is_found_to_be_an_alias_and_loses_exactly_the_same(finished):
    eviction = pd.read_csv(finished.folder / "results/tables/eviction.csv")
    eviction.index = eviction["policy"] + "/" + eviction["setting"]
    aliases = eviction[eviction["alias_of"].notna()]
    (lazy,) = aliases.index[aliases.index.str.contains("lazy.*-R1-")]
    assert aliases.loc[lazy, "alias_of"].startswith("start_recent/")
    assert aliases["ppl"].tolist() == eviction.loc[aliases["alias_of"], "ppl"].tolist()


def test_deltas_are_paired_with_the_references_of_the_same_cap(finished):
    eviction = pd.read_csv(finished.folder / "results/tables/eviction.csv").set_index("policy")
    assert eviction.loc["recompute", "ppl_delta_pct"] == 0
    assert eviction.loc["start_recent", "ppl_delta_strict_pct"] == 0
    assert (
        eviction.loc["random", "ppl_delta_strict_lo"]
        < eviction.loc["random", "ppl_delta_strict_hi"]
    )


def test_every_claim_has_a_verdict_and_every_probe_its_rows(finished):
    tables = finished.folder / "results/tables"
    entries = yaml.safe_load((finished.folder / "config/claims.yaml").read_text())["claims"]
    claims = pd.read_csv(tables / "claims.csv").set_index("id")
    assert set(claims.index) == set(entries)
    verdicts = {"reproduced", "contradicted", "undecided", "not tested here"}
    assert set(claims["verdict"]) <= verdicts
    assert claims.loc["static-cache", "verdict"] == "reproduced"
    assert claims.loc["pos-shift", "verdict"] == "reproduced"
    assert claims.loc[claims["verdict"] == "not tested here", "why"].notna().all()
    assert claims.loc["lazy-speed", "machine"]
    probes = pd.read_csv(tables / "probes.csv")
    assert set(probes["probe"]) >= PROBES | {"diagnose_prune_nll", "verify_max_drop_effect"}
    memory = pd.read_csv(tables / "memory.csv")
    kv = memory[(memory["part"] == "kv") & memory["layout"].isin(["compact", "ring"])]
    assert (kv["bytes"] == kv["analytic_bytes"]).all()


def test_nothing_is_due_after_a_run(finished):
    assert not finished.due()


def test_touching_everything_runs_nothing(finished):
    for name in ("src", "workflow", "rules", "config", "resources"):
        for path in (finished.folder / name).rglob("*"):
            os.utime(path)
    os.utime(finished.folder / "config.yaml")
    assert not finished.due()


PROBES = {
    "cache_conversion",
    "framework_only",
    "peak_memory",
    "pos_shift",
    "profile_kernels",
    "profile_prune_overhead",
    "staging_buffers",
    "static_cache",
}
LAZY_PROBES = ("profile_kernels", "profile_prune_overhead", "staging_buffers")
UPSTREAM = PROBES | {"baseline_average", "baseline_time", "evict_time", "texts_table", "tokenise"}


def rules_of(due) -> Counter:
    rules: Counter = Counter()
    for (rule, _), count in due.items():
        rules["evict_quality" if rule.startswith("evict_quality_") else rule] += count
    return rules


@pytest.mark.parametrize(
    ("policy", "expected"),
    [
        ("h2o", Counter(evict_quality=1)),
        ("random", Counter(evict_quality=1, evict_time=1)),
        # Three probes run lazy streams themselves.
        ("lazy", Counter(evict_quality=1, evict_time=1, **dict.fromkeys(LAZY_PROBES, 1))),
    ],
)
def test_editing_one_policy_runs_its_arms_and_their_aggregates_only(finished, policy, expected):
    file = f"src/kvpareto/eviction/policies/{policy}.py"
    with edited(finished, file, "@dataclass(frozen=True)", "# an edit\n@dataclass(frozen=True)"):
        due = finished.due()
    rules = rules_of(due)
    measured = UPSTREAM | {"evict_quality"}
    assert Counter({rule: n for rule, n in rules.items() if rule in measured}) == expected
    assert {"eviction_table", "spikes_table", "claims_table", "all"} <= set(rules)
    assert all(
        f"policy={policy}" in wildcards or f"_{policy}_" in rule
        for rule, wildcards in due
        if rule.startswith("evict_")
    )


def test_editing_a_shared_module_runs_all_that_imports_it(finished):
    """Block evaluation is what quality runs import and timing runs do not."""
    with edited(finished, "src/kvpareto/measure/nll.py", "BLOCK_TOKENS = 128", "BLOCK_TOKENS = 64"):
        due = finished.due()
    rules = rules_of(due)
    arms = pd.read_csv(finished.folder / "results/tables/eviction.csv")
    assert rules["evict_quality"] == arms["policy"].nunique()  # a job each
    # One of the probes runs a refused arm.
    assert set(rules) & UPSTREAM == {"baseline_average", "static_cache"}


def test_swapping_two_values_of_a_setting_is_noticed(finished):
    file = finished.folder / "config/smoke.yaml"
    before = file.read_bytes()
    config = yaml.safe_load(before)
    timing = config["timing"]
    timing["blocks"], timing["tokens_per_block"] = timing["tokens_per_block"], timing["blocks"]
    file.write_text(yaml.safe_dump(config))
    try:
        rules = rules_of(finished.due())
    finally:
        file.write_bytes(before)
    assert {"evict_time", "baseline_time"} <= set(rules)
    assert "evict_quality" not in rules


def test_undeclared_code_stops_the_job(finished):
    """A policy that imports another one by a computed name would escape the code hash."""
    smuggled = "import importlib; importlib.import_module('kvpareto.eviction.policies.random')\n"
    with edited(finished, POLICY, "\n@dataclass", f"\n{smuggled}\n@dataclass"):
        target = "results/eviction/ref-neox/stdlib-code/lazy"
        kept = {file: file.read_bytes() for file in (finished.folder / target).glob("*/*")}
        done = finished.run(str(next(iter(kept)).relative_to(finished.folder)), check=False)
    # Snakemake takes away what a failed job wrote, and the folders with it.
    for file, content in kept.items():
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(content)
    finished.run("--cleanup-metadata", *(str(f.relative_to(finished.folder)) for f in kept))
    assert done.returncode != 0
    assert "kvpareto.eviction.policies.random" in done.stdout + done.stderr


def test_a_killed_run_resumes_to_the_same_bytes(finished, new_study):
    """SIGKILL of the whole process group in mid-run, then the documented way to go on."""
    study = new_study("killed")
    process = subprocess.Popen(
        study.command(),
        cwd=study.folder,
        env=study.environment,
        start_new_session=True,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    started = time.monotonic()
    results = study.folder / "results/eviction"
    while len(list(results.rglob("summary.json"))) < 2:
        assert process.poll() is None, "the run ended before it could be killed"
        assert time.monotonic() - started < 600
        time.sleep(0.2)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    left = list(study.folder.joinpath("results").rglob("summary.json"))
    assert len(left) < finished.table("eviction").count(b"\n") - 1
    assert not (study.folder / "results/tables/eviction.csv").exists()
    study.run("--unlock")
    # All that is deterministic: times are never the same.
    wanted = [
        file.relative_to(finished.folder)
        for part in ("reuse", "merge")
        for file in sorted((finished.folder / "results" / part).rglob("items.parquet"))
    ]
    assert {path.parts[1] for path in wanted} == {"reuse", "merge"}
    wanted += [Path(f"results/tables/{table}.csv") for table in ("eviction", "store")]
    study.run(*map(str, wanted))
    for path in wanted:
        assert (study.folder / path).read_bytes() == (finished.folder / path).read_bytes()


@pytest.mark.parametrize(
    ("overlay", "says"),
    [
        ({"eviction": {"core": {"caps": 64}}}, r"eviction\.core\.caps: must be a list"),
        ({"eviction": {"core": {"capz": [64]}}}, r"eviction\.core\.capz: unknown key"),
        ({"eviction": {"core": {"arms": [{"policy": "h3o"}]}}}, r"no policy 'h3o'"),
        ({"eviction": {"core": {"caps": [8], "arms": [{"policy": "lazy", "sinks": [32]}]}}},
         r"cap 8 on post_prune leaves no recent window"),
        ({"models": {"ref-neox": {"path": "resources/models/none"}}}, r"there is no model in"),
        ({"reuse": {"ratios": {"arms": [{"strategy": "blent"}]}}}, r"no strategy 'blent'"),
        ({"reuse": {"ratios": {"arms": [{"strategy": "blend", "ratio": [1.5]}]}}},
         r"ratio 1\.5 is not between 0 and 1"),
        ({"reuse": {"ratios": {"tasks": ["boxen"]}}}, r"reuse\.ratios\.tasks: 'boxen' is not"),
        ({"tasks": {"boxes": {"lengths": [100], "factz": 3}}}, r"tasks\.boxes\.factz: unknown key"),
        ({"drops": {"snapkv": {"observed": 64}}}, r"drops\.snapkv: budget 64 has no room"),
        ({"merge": {"noise": {"arms": [{"offset": "zeros"}]}}}, r"no offset 'zeros'"),
        ({"merge_probes": {"tasks": []}}, r"merge_probes\.tasks: models are named and no tasks"),
    ],
)  # fmt: skip
def test_a_wrong_config_stops_before_any_job(finished, tmp_path, overlay, says):
    file = tmp_path / "wrong.yaml"
    file.write_text(yaml.safe_dump(overlay))
    done = finished.run("--dry-run", overlays=(str(file),), check=False)
    assert done.returncode != 0
    assert re.search(says, done.stdout + done.stderr)
    assert "Traceback (most recent call last)" not in done.stdout + done.stderr


def test_damaged_weights_are_refused_by_name(new_study):
    study = new_study("damaged")
    weights = study.folder / "resources/models/ref-neox/model.safetensors"
    content = bytearray(weights.read_bytes())
    content[-100] ^= 1
    weights.write_bytes(content)
    target = "results/baselines/ref-neox/stdlib-code/time.json"
    done = study.run(target, check=False)
    assert done.returncode != 0
    assert "model.safetensors is damaged" in done.stdout + done.stderr
    assert not (study.folder / target).exists()


def test_a_reference_model_is_trained_and_described_by_its_rules(new_study, tmp_path):
    """Two steps of a tiny model: what `make reference` does, all the way to the card."""
    shape = {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2}
    tiny = {
        "family": "gpt_neox",
        "shape": shape | {"intermediate_size": 32},
        "context": 512,
        "steps": 2,
        "windows_per_step": 2,
        "evaluate_steps": 2,
        "checkpoint_steps": 1,
    }
    file = tmp_path / "tiny.yaml"
    file.write_text(yaml.safe_dump({"reference": {"ref-tiny": tiny}}))
    study = new_study("reference")
    folder = study.folder / "results/reference/ref-tiny/model"
    study.run("results/reference/ref-tiny/model/card.json", overlays=(str(file),))
    card = json.loads((folder / "card.json").read_text())
    assert card["training"]["curve"][-1]["step"] == 2
    assert set(card["episode_accuracy"]) == {"needle"}
    assert set(card["episode_accuracy"]["needle"]) == {"1", "4"}
    assert set(card["episode_accuracy"]["needle"]["4"]) == {"256", "512"}
    assert card["held_out_perplexity"]["code"]["argparse"] > 100
    verify(str(folder))
    assert load_model(ModelSettings(path=str(folder))).config.model_type == "gpt_neox"
