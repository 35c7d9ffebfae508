"""How far a cached key drifts when it is rotated again and again, or by a rounded angle."""

from pathlib import Path

import torch

from kvpareto.attention.rope import Rotary
from kvpareto.engine.drift import rotation_drift
from kvpareto.jobs import job
from kvpareto.records import write_parquet

p = snakemake.params.p

with job(
    log_file=snakemake.log[0],
    script=Path(snakemake.scriptdir) / "drift_rows.py",
    modules=[],
    code_hash=snakemake.params.code,
    inputs=[],
    threads=1,
    output=snakemake.output.provenance,
):
    rotary = Rotary(p["base"] ** (-torch.arange(0, p["dim"], 2) / p["dim"]))
    write_parquet(snakemake.output.rows, rotation_drift(rotary, p["ages"], p["dtypes"]))
