"""Peak memory and time of the merge, chunk by chunk and concatenated."""

from pathlib import Path

import torch

from kvpareto.jobs import job
from kvpareto.merge.memory import measure_memory
from kvpareto.merge_settings import MergeMemorySettings
from kvpareto.model_settings import ModelSettings
from kvpareto.models.families import blocks
from kvpareto.models.load import load_model
from kvpareto.records import write_parquet

p = snakemake.params.p
settings = MergeMemorySettings(**p["memory"])
torch.set_num_threads(settings.threads)

with job(
    log_file=snakemake.log[0],
    script=Path(snakemake.scriptdir) / "merge_memory.py",
    modules=p["modules"],
    code_hash=snakemake.params.code,
    inputs=snakemake.input,
    threads=settings.threads,
    output=snakemake.output.provenance,
    exclusive=True,
):
    parts = blocks(load_model(ModelSettings(**p["model"])))
    write_parquet(snakemake.output.memory, measure_memory(parts, settings, p["confidence"]))
