"""One probe of what deleting chunks does, on one task."""

from importlib import import_module
from pathlib import Path

import torch

from kvpareto.eviction_settings import StatisticsSettings
from kvpareto.jobs import job
from kvpareto.merge.probing import Probing
from kvpareto.merge_settings import MergeProbeSettings
from kvpareto.model_settings import ModelSettings
from kvpareto.records import write_parquet
from kvpareto.reuse.bench import open_bench
from kvpareto.reuse_settings import StoreSettings
from kvpareto.text.tasks.item import load_items

p = snakemake.params.p
torch.set_num_threads(1)  # whatever the cores: this is what makes the numbers byte-identical

with job(
    log_file=snakemake.log[0],
    script=Path(snakemake.scriptdir) / "merge_probe.py",
    modules=p["modules"],
    code_hash=snakemake.params.code,
    inputs=snakemake.input,
    threads=1,
    output=snakemake.output.provenance,
):
    probing = Probing(
        name=p["probe"].rsplit(".", 1)[-1],
        model=snakemake.wildcards["model"],
        text=snakemake.wildcards["task"],
        bench=open_bench(
            ModelSettings(**p["model"]), StoreSettings(**p["store"]), Path(p["folder"])
        ),
        task=load_items(snakemake.input.task),
        settings=MergeProbeSettings(**p["settings"]),
        statistics=StatisticsSettings(**p["statistics"]),
    )
    write_parquet(snakemake.output.rows, import_module(p["probe"]).run(probing))
