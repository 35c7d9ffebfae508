"""Errors, finite outputs and mask cache of self-attention: nothing that depends on time."""

from pathlib import Path

import torch

from kvpareto.attention_settings import AttentionSettings
from kvpareto.jobs import job
from kvpareto.measure.attention_quality import attention_quality
from kvpareto.records import write_parquet

settings = AttentionSettings(**snakemake.params.p)
torch.set_num_threads(1)  # whatever the cores: this is what makes the numbers byte-identical

with job(
    log_file=snakemake.log[0],
    script=Path(snakemake.scriptdir) / "attention_quality.py",
    modules=[],
    code_hash=snakemake.params.code,
    inputs=[],
    threads=1,
    output=snakemake.output.provenance,
):
    write_parquet(snakemake.output.rows, attention_quality(settings))
