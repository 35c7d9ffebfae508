"""Error of a rotated key against its age."""

from pathlib import Path

from kvpareto.jobs import job
from kvpareto.records import read_parquet
from kvpareto.report.figures.rotation_drift import error_against_age
from kvpareto.report.style import save_svg

with job(
    log_file=snakemake.log[0],
    script=Path(snakemake.scriptdir) / "rotation_drift.py",
    modules=[],
    code_hash=snakemake.params.code,
    inputs=[],
    threads=1,
):
    drift = read_parquet(snakemake.input.drift)
    save_svg(error_against_age(drift, title="rotation of a cached key"), snakemake.output[0])
