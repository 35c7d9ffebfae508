"""The `timing` leaf table; refuses times that were taken beside another job."""

from pathlib import Path

from kvpareto.jobs import job
from kvpareto.records import read_parquet
from kvpareto.report.aggregate import assert_no_overlap, timing_table
from kvpareto.report.tables import write_table

p = snakemake.params.p

with job(
    log_file=snakemake.log[0],
    script=Path(snakemake.scriptdir) / "timing_table.py",
    modules=[],
    code_hash=snakemake.params.code,
    inputs=[],
    threads=1,
):
    assert_no_overlap(read_parquet(snakemake.input.provenance))
    folders = [str(Path(file).parent) for file in snakemake.input.timing]
    runs = [run | {"folder": folder} for run, folder in zip(p["runs"], folders, strict=True)]
    frame = timing_table(runs, [Path(file) for file in snakemake.input.baselines], p["arms"])
    write_table(frame, Path(snakemake.output.csv).with_suffix(""))
