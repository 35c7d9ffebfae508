"""Times of self-attention. Runs alone."""

from pathlib import Path

import torch

from kvpareto.attention_settings import AttentionSettings
from kvpareto.jobs import job
from kvpareto.measure.attention_time import attention_time
from kvpareto.records import write_parquet

p = snakemake.params.p
settings = AttentionSettings(**p["settings"])
torch.set_num_threads(settings.threads)

with job(
    log_file=snakemake.log[0],
    script=Path(snakemake.scriptdir) / "attention_time.py",
    modules=[],
    code_hash=snakemake.params.code,
    inputs=[],  # it waits for the kernels that its input has compiled, and reads nothing
    threads=settings.threads,
    output=snakemake.output.provenance,
    exclusive=True,
):
    write_parquet(snakemake.output.rows, attention_time(settings, p["confidence"]))
