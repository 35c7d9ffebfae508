"""One quality run: an eviction arm over all documents of a text."""

from pathlib import Path

import torch

from kvpareto.jobs import job
from kvpareto.measure.quality import run_quality
from kvpareto.models.load import load_model
from kvpareto.settings import ModelSettings
from kvpareto.text.streams import load_ids

p = snakemake.params.p
torch.set_num_threads(1)  # whatever the cores: this is what makes the numbers byte-identical

with job(
    log_file=snakemake.log[0],
    script=Path(snakemake.scriptdir) / "evict_quality.py",
    modules=p["modules"],
    code_hash=snakemake.params.code,
    inputs=snakemake.input,
    threads=1,
    output=snakemake.output.provenance,
):
    run_quality(
        load_model(ModelSettings(**p["model"])),
        load_ids(snakemake.input.ids),
        p["arm"],
        p["score_start"],
        p["positions_per_document"],
        Path(snakemake.output.tokens).parent,
    )
