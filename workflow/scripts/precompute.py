"""Encode the chunks of a task, each alone, into the chunk store."""

from pathlib import Path

import torch

from kvpareto.jobs import job
from kvpareto.model_settings import ModelSettings
from kvpareto.records import write_parquet
from kvpareto.reuse.bench import open_bench
from kvpareto.reuse.precompute import precompute
from kvpareto.reuse_settings import StoreSettings
from kvpareto.text.tasks.item import load_items

p = snakemake.params.p
torch.set_num_threads(1)

with job(
    log_file=snakemake.log[0],
    script=Path(snakemake.scriptdir) / "precompute.py",
    modules=[],
    code_hash=snakemake.params.code,
    inputs=snakemake.input,
    threads=1,
    output=snakemake.output.provenance,
):
    bench = open_bench(ModelSettings(**p["model"]), StoreSettings(**p["store"]), Path(p["folder"]))
    items = load_items(snakemake.input.task).items
    write_parquet(snakemake.output.entries, precompute(bench.source, items))
