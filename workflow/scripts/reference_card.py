"""Measure a trained reference model and write its card."""

from pathlib import Path

import torch

from kvpareto.jobs import job
from kvpareto.measure.card import make_card
from kvpareto.records import read_json, write_json
from kvpareto.reference_settings import ReferenceSettings

torch.set_num_threads(1)

with job(
    log_file=snakemake.log[0],
    script=Path(snakemake.scriptdir) / "reference_card.py",
    modules=snakemake.params.modules,
    code_hash=snakemake.params.code,
    inputs=[],
    threads=1,
):
    card = make_card(
        Path(snakemake.input.weights).parent,
        ReferenceSettings(**snakemake.params.p),
        read_json(snakemake.input.training),
    )
    write_json(snakemake.output[0], card)
