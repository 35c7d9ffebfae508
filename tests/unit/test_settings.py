"""The configuration: what ships is right, and what is wrong is said all at once, with its place."""

import copy
import json
import re
from pathlib import Path

import pytest
import yaml
from pydantic import ValidationError
from snakemake.utils import update_config

from kvpareto.eviction.arms import study_arms
from kvpareto.model_settings import is_local
from kvpareto.reuse.arms import reuse_arms
from kvpareto.settings import SettingsError, export_schema, parse_settings
from kvpareto.text.corpora import HELD_OUT
from kvpareto.text_settings import HubText, StdlibText, text_settings

ROOT = Path(__file__).parents[2]
LEDGER = "claims.yaml"
"""Read by every study; the other files in config/ are studies."""
OVERLAYS = sorted(path.name for path in (ROOT / "config").glob("*.yaml") if path.name != LEDGER)

SMALL = {
    "study": "small",
    "models": {"ref": {"path": "resources/models/ref"}},
    "texts": {
        "code": {"source": "stdlib", "part": "code", "documents": ["argparse"], "tokens": 100},
        "books": {"source": "hub", "path": "./books", "tokens": 100},
    },
    "eviction": {
        "core": {
            "models": ["ref"],
            "texts": ["code", "books"],
            "caps": [64],
            "arms": [{"policy": "lazy", "sinks": [4]}],
        }
    },
}
"""A small study that is right, for tests to break."""


def shipped(overlay: str | None) -> dict:
    """config.yaml and the ledger, changed by an overlay as `snakemake --configfile` does it."""
    config = yaml.safe_load((ROOT / "config.yaml").read_text())
    update_config(config, yaml.safe_load((ROOT / "config" / LEDGER).read_text()))
    if overlay:
        update_config(config, yaml.safe_load((ROOT / "config" / overlay).read_text()))
    return config


def broken(path: str, value: object = None) -> dict:
    """`SMALL` with `value` at a dotted path; without it where the value is None."""
    config = copy.deepcopy(SMALL)
    *parents, last = [int(key) if key.isdigit() else key for key in path.split(".")]
    place = config
    for key in parents:
        place = place[key] if isinstance(key, int) else place.setdefault(key, {})
    if value is None:
        del place[last]
    else:
        place[last] = value
    return config


def complaint(config: dict) -> str:
    with pytest.raises(SettingsError) as caught:
        parse_settings(config)
    return str(caught.value)


# What ships.


@pytest.mark.parametrize("overlay", [None, *OVERLAYS])
def test_the_shipped_studies_are_right_and_their_arms_possible(overlay):
    settings = parse_settings(shipped(overlay))
    arms, reuse = study_arms(settings), reuse_arms(settings)
    if settings.eviction:
        assert {arm.policy for arm in arms} >= {"recompute", "start_recent", "full"}
    assert {arm.model for arm in [*arms, *reuse]} <= settings.models.keys()
    for text in settings.texts.values():
        if isinstance(text, StdlibText):
            assert set(text.documents) <= set(HELD_OUT)


def test_studies_have_names_of_their_own():
    names = [shipped(overlay)["study"] for overlay in (None, *OVERLAYS)]
    assert len(set(names)) == len(names)


def test_an_overlay_swaps_lists_and_keeps_what_it_does_not_name():
    plain, smoke = (parse_settings(shipped(overlay)) for overlay in (None, "smoke.yaml"))
    assert smoke.eviction["core"].caps == [64]
    assert smoke.eviction["core"].models == plain.eviction["core"].models
    assert smoke.texts["stdlib-code"].tokens < plain.texts["stdlib-code"].tokens
    assert smoke.texts["stdlib-prose"] == plain.texts["stdlib-prose"]


def test_null_takes_a_group_out():
    config = copy.deepcopy(SMALL)
    update_config(config, {"eviction": {"core": None, "other": SMALL["eviction"]["core"]}})
    assert list(parse_settings(config).eviction) == ["other"]
    config["eviction"]["other"] = None
    assert "eviction, reuse, merge, decode: no group in any of them" in complaint(config)


def test_null_takes_a_depth_out():
    config = shipped(None)
    kept = list(config["reuse_timing"]["depths"])
    update_config(config, {"reuse_timing": {"depths": {kept[0]: None}}})
    assert list(parse_settings(config).reuse_timing.depths) == kept[1:]


def test_a_study_of_reuse_alone_needs_no_change_of_what_eviction_is_timed_on():
    config = shipped(None)
    update_config(config, {"eviction": dict.fromkeys(config["eviction"])})
    settings = parse_settings(config)
    assert settings.timing.texts
    assert study_arms(settings) == []


@pytest.mark.parametrize("text", ["stdlib-code", "stdlib-prose"])
def test_the_default_study_scores_five_documents(text):
    """Perplexity swings by document."""
    documents = parse_settings(shipped(None)).texts[text].documents
    assert len(set(documents)) == len(documents) >= 5


def test_the_small_study_is_right():
    assert parse_settings(SMALL).study == "small"


def test_what_is_left_out_has_its_default():
    settings = parse_settings(SMALL)
    assert settings.eviction["core"].cap_on == ["post_prune"]
    assert settings.timing.yardstick_sinks == 4
    assert settings.models["ref"].dtype == "float32"
    assert settings.reference == {}


# What is wrong, one thing at a time.


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        ("sed", 1, "sed: unknown key; remove it or correct its spelling (got 1)"),
        ("timing.block", 8, "timing.block: unknown key"),
        ("texts.code.tokenz", 5, "texts.code.tokenz: unknown key"),
        ("models.ref.weights", "x", "models.ref.weights: unknown key"),
        ("study", None, "study: required key is missing; add it"),
        ("texts.code.tokens", None, "texts.code.tokens: required key is missing"),
        ("eviction.core.arms.0.policy", None, "eviction.core.arms.0.policy: required key"),
        ("eviction.core.caps", 64, "eviction.core.caps: must be a list: write [value]"),
        ("eviction.core.caps", [], "eviction.core.caps: List should have at least 1 item"),
        ("eviction.core.caps", [64, 0], "eviction.core.caps.1: Input should be greater than 0"),
        ("eviction.core.caps", [64.5], "eviction.core.caps.0: Input should be a valid integer"),
        ("eviction.core.cap_on", ["hard"], "eviction.core.cap_on.0: Input should be 'post_prune'"),
        ("eviction.core.arms.0.cap_on", "peak", "eviction.core.arms.0.cap_on: must be a list"),
        ("eviction.core.arms", [], "eviction.core.arms: List should have at least 1 item"),
        ("eviction.Core", SMALL["eviction"]["core"], "eviction.Core.[key]: String should match"),
        ("models.My_Model", {"path": "./x"}, "models.My_Model.[key]: String should match"),
        ("texts.code.source", "pile", "texts.code: Input tag 'pile' found using 'source'"),
        ("texts.code.part", "poems", "texts.code.part: Input should be 'code' or 'prose'"),
        ("texts.code.documents", [], "texts.code.documents: List should have at least 1 item"),
        ("models.ref.device", "tpu", "models.ref.device: String should match pattern"),
        ("models.ref.dtype", "float64", "models.ref.dtype: Input should be 'float32'"),
        ("timing.yardstick_sinks", -1, "Input should be greater than or equal to 0 (got -1)"),
        ("timing.threads", True, "timing.threads: Input should be a valid integer (got True)"),
        ("timing.blocks", 5, "timing.blocks: Input should be greater than or equal to 6"),
        ("timing.layouts", ["ring"], "timing.layouts.0: Input should be 'compact' or 'soft_ring'"),
        ("statistics.confidence", 0.5, "statistics.confidence: Input should be greater than 0.5"),
        ("statistics.block_tokens", 8, "statistics.block_tokens: Input should be greater than"),
        ("eviction.core.models", ["reff"], "eviction.core.models: 'reff' is not defined under"),
        ("eviction.core.texts", ["cod"], "eviction.core.texts: 'cod' is not defined under texts"),
        ("timing.texts", ["cod"], "timing.texts: 'cod' is not defined under texts; known: code"),
    ],
)
def test_an_error_is_one_line_with_its_path(path, value, message):
    text = complaint(broken(path, value))
    assert text.startswith("the configuration has 1 error:\n  ")
    (line,) = text.splitlines()[1:]
    assert message in line


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("timing.threads", "3"),
        ("timing.blocks", "8"),
        ("statistics.confidence", "0.9"),
        ("eviction.core.caps", "[64]"),
        ("eviction.core.caps", ["64"]),
        ("eviction.core", "{caps: [64]}"),
        ("texts.code", "{tokens: 9}"),
        ("models.ref", "resources/models/ref"),
        ("eviction.core.arms", ["lazy"]),
    ],
)
def test_strings_from_the_command_line_are_refused_with_the_way_out(path, value):
    text = complaint(broken(path, value))
    assert path in text
    assert "write a YAML file and pass it with --configfile" in text


def test_a_wrong_string_is_not_blamed_on_the_command_line():
    assert "--config" not in complaint(broken("models.ref.dtype", "float64"))


def test_a_long_value_is_shown_in_short():
    line = complaint(broken("eviction.core.caps", {str(i): i for i in range(99)}))
    assert len(line) < 250


@pytest.mark.parametrize("config", [{}, [], "study", None])
def test_what_is_no_study_at_all_is_refused(config):
    assert complaint(config).startswith("the configuration has ")


# All at once.


def test_every_error_is_reported_at_once():
    config = copy.deepcopy(SMALL)
    del config["study"]
    config["seed"] = "1"
    config["texts"]["code"]["tokens"] = 0
    config["texts"]["books"]["documents"] = ["argparse"]
    config["eviction"]["core"]["caps"] = 64
    config["timing"] = {"block": 8, "threads": 0}
    lines = complaint(config).splitlines()
    assert lines[0] == "the configuration has 7 errors:"
    assert sorted(line.split(":")[0].strip() for line in lines[1:]) == [
        "eviction.core.caps",
        "seed",
        "study",
        "texts.books.documents",
        "texts.code.tokens",
        "timing.block",
        "timing.threads",
    ]


def test_every_name_that_is_not_defined_is_reported_at_once():
    config = broken("timing.texts", ["one"])
    config["eviction"]["core"] |= {"models": ["two", "three"], "texts": ["four"]}
    text = complaint(config)
    assert re.findall("'(\\w+)' is not defined", text) == ["one", "two", "three", "four"]


# Models and texts.


@pytest.mark.parametrize(
    ("model", "message"),
    [
        ({"path": "EleutherAI/pythia-70m"}, "is a hub id and has no revision; pin the commit"),
        ({"path": "my-models/mine"}, "or write a local folder with a leading ./"),
    ],
)
def test_a_hub_id_needs_its_commit(model, message):
    text = complaint(broken("models.ref", model))
    assert "models.ref: " in text
    assert message in text


@pytest.mark.parametrize(
    "model",
    [
        {"path": "EleutherAI/pythia-70m", "revision": "a39f36b"},
        {"path": "./my-models/mine"},
        {"path": "../mine"},
        {"path": "/models/mine"},
        {"path": "resources/models/ref-neox"},
        {"path": "results/reference/ref-neox/model"},
    ],
)
def test_a_local_folder_needs_none(model):
    settings = parse_settings(broken("models.ref", model)).models["ref"]
    assert is_local(settings.path) == (settings.revision is None)


def test_a_folder_that_exists_is_local_whatever_its_name(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert not is_local("org/model")
    (tmp_path / "org/model").mkdir(parents=True)
    assert is_local("org/model")


@pytest.mark.parametrize("name", ["code", "books"])
def test_a_text_survives_the_way_through_a_jobs_parameters(name):
    text = parse_settings(SMALL).texts[name]
    plain = json.loads(json.dumps(text.model_dump()))
    assert text_settings(plain) == text
    assert type(text) is (StdlibText if name == "code" else HubText)


def test_settings_do_not_change_after_they_were_read():
    with pytest.raises(ValidationError, match="frozen"):
        parse_settings(SMALL).seed = 1


# The schema.


def test_the_exported_schema_is_a_json_schema_that_knows_every_key():
    schema = json.loads(export_schema())
    pointers = set(re.findall(r'"\$ref": "#/\$defs/(\w+)"', export_schema()))
    assert pointers == schema["$defs"].keys()
    assert schema["required"] == ["study", "models", "texts"]
    assert schema["additionalProperties"] is False
    assert schema["$defs"]["EvictionGroup"]["additionalProperties"] is False
    assert schema["$defs"]["Arms"]["additionalProperties"] is True


@pytest.mark.parametrize("overlay", [None, *OVERLAYS])
def test_the_shipped_studies_satisfy_the_exported_schema(overlay):
    jsonschema = pytest.importorskip("jsonschema")  # comes with Snakemake
    schema = json.loads(export_schema())
    jsonschema.Draft202012Validator.check_schema(schema)
    config = shipped(overlay)
    jsonschema.validate(config, schema)


@pytest.mark.parametrize("path", ["timing.block", "texts.code.tokenz", "sed"])
def test_the_exported_schema_refuses_an_unknown_key(path):
    jsonschema = pytest.importorskip("jsonschema")
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(broken(path, 1), json.loads(export_schema()))
