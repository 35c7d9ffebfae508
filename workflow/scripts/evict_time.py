"""Time of all settings of one policy, each paired with the yardstick. Runs alone."""

from pathlib import Path

import torch

from kvpareto.jobs import job
from kvpareto.measure.timing import time_policy
from kvpareto.models.load import load_model
from kvpareto.records import write_parquet
from kvpareto.settings import ModelSettings, TimingSettings
from kvpareto.text.streams import load_ids

p = snakemake.params.p
timing = TimingSettings(**p["timing"])
torch.set_num_threads(timing.threads)

with job(
    log_file=snakemake.log[0],
    script=Path(snakemake.scriptdir) / "evict_time.py",
    modules=p["modules"],
    code_hash=snakemake.params.code,
    inputs=snakemake.input,
    threads=timing.threads,
    output=snakemake.output.provenance,
    exclusive=True,
):
    rows, tokens = time_policy(
        load_model(ModelSettings(**p["model"])),
        load_ids(snakemake.input.ids),
        p["policy"],
        p["arms"],
        p["score_start"],
        timing,
        p["confidence"],
    )
    write_parquet(snakemake.output.timing, rows)
    write_parquet(snakemake.output.tokens, tokens)
