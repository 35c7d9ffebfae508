"""Quality of one offset method: every model, task, text and setting."""

from pathlib import Path

import torch

from kvpareto.jobs import job
from kvpareto.merge.quality import run_merge
from kvpareto.model_settings import ModelSettings
from kvpareto.reuse.bench import open_bench
from kvpareto.reuse_settings import StoreSettings
from kvpareto.text.streams import load_ids
from kvpareto.text.tasks.item import load_items

p = snakemake.params.p
torch.set_num_threads(1)  # whatever the cores: this is what makes the numbers byte-identical

with job(
    log_file=snakemake.log[0],
    script=Path(snakemake.scriptdir) / "merge_quality.py",
    modules=p["modules"],
    code_hash=snakemake.params.code,
    inputs=snakemake.input,
    threads=1,
    output=snakemake.output.provenance,
):
    for model, how in p["models"].items():
        store = StoreSettings(**how["store"])
        bench = open_bench(ModelSettings(**how["model"]), store, Path(how["folder"]))
        arms = [arm for arm in p["arms"] if arm["model"] == model]
        run_merge(
            bench,
            {name: load_items(file) for name, file in p["tasks"][model].items()},
            {name: load_ids(file) for name, file in p["texts"][model].items()},
            arms,
            [Path("results/merge") / arm["path"] for arm in arms],
        )
