"""Hugging Face's StaticCache under pruning: refused by the project, and what happens without that.

The unguarded run is this module as a program, in a process of its own: on CUDA it ends in a device
assertion, after which a process can do nothing more.
"""

from __future__ import annotations

import copy
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedModel, StaticCache

from kvpareto.eviction.policy import sinks_and_recent
from kvpareto.measure.probing import exact, label
from kvpareto.measure.quality import run_quality
from kvpareto.records import read_json

_PAST_THE_CAP = 8
_PREFILLED = "prefilled"


def probe(model: PreTrainedModel, ids: torch.Tensor, options: dict[str, Any]) -> pd.DataFrame:
    """Run the policy `static_cache`, and the same decoding without the guard.

    Measures: `guarded_refused` (1: a quality run ends as `refused`), `unguarded_fails` (1: the
    process ends with an error) and `unguarded_exit_code`; `why` has what was said.

    Args:
        ids: [documents, tokens].
        options: cap, sinks.
    """
    setting = {"cap": options["cap"], "cap_on": "post_prune", "sinks": options["sinks"]}
    arm = {"model": "", "text": "", "policy": "static_cache", "setting": setting}
    with tempfile.TemporaryDirectory() as folder:
        run_quality(model, ids, arm, options["cap"], None, Path(folder))
        guarded = read_json(Path(folder) / "summary.json")
    code, said = _unguarded_run(model, options)
    name = label(options)
    refused = float(guarded["status"] == "refused")
    return pd.DataFrame(
        [
            exact(name, "guarded_refused", refused, "yes or no", guarded["why"]),
            exact(name, "unguarded_fails", float(code != 0), "yes or no", said),
            exact(name, "unguarded_exit_code", code, "exit code", said),
        ]
    )


def _unguarded_run(model: PreTrainedModel, options: dict[str, Any]) -> tuple[int, str]:
    """Exit code and last words of `main`, with one layer of the model's shape.

    Raises:
        RuntimeError: it failed before what it is about.
    """
    config = copy.deepcopy(model.config)
    config.num_hidden_layers = 1
    if getattr(config, "layer_types", None):
        config.layer_types = config.layer_types[:1]
    task = {
        "config": config.to_dict(),
        "cap": options["cap"],
        "sinks": options["sinks"],
        "device": str(model.device),
    }
    done = subprocess.run(
        [sys.executable, "-m", __name__],
        input=json.dumps(task, default=str),
        env=os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
        capture_output=True,
        text=True,
        check=False,
    )
    lines = [line.strip() for line in done.stderr.splitlines() if line.strip()]
    said = lines[-1] if done.returncode and lines else ""
    if _PREFILLED not in done.stdout:
        raise RuntimeError(f"the unguarded run did not get as far as its first prune: {said}")
    return done.returncode, said


@torch.inference_mode()
def main() -> None:
    """Decode past the length of a StaticCache, cutting it to the cap after each token.

    That is what the sources' wrapper did: it replaced the layers' tensors by the kept entries, as
    one can in a DynamicCache. The task comes from standard input. Weights are random: nothing here
    depends on them.
    """
    torch.set_num_threads(1)
    task = json.load(sys.stdin)
    kind = task["config"].pop("model_type")
    model = AutoModelForCausalLM.from_config(AutoConfig.for_model(kind, **task["config"]))
    model.to(task["device"]).eval()
    cap = task["cap"]
    cache = StaticCache(config=model.config, max_cache_len=cap + 1)
    layers: list[Any] = cache.layers
    keep = sinks_and_recent(cap + 1, task["sinks"], 1).to(task["device"])
    ids = torch.zeros(1, cap, dtype=torch.int64, device=task["device"])
    model(input_ids=ids, past_key_values=cache, use_cache=True)
    print(_PREFILLED, flush=True)
    for _ in range(_PAST_THE_CAP):
        logits = model(input_ids=ids[:, :1], past_key_values=cache, use_cache=True).logits
        logits.argmax(-1).cpu()
        for layer in layers:
            layer.keys = layer.keys[:, :, keep]
            layer.values = layer.values[:, :, keep]


if __name__ == "__main__":
    main()
