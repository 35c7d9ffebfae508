"""The `merge` leaf table."""

from pathlib import Path

from kvpareto.eviction_settings import StatisticsSettings
from kvpareto.jobs import job
from kvpareto.records import read_parquet
from kvpareto.report.aggregate import assert_no_overlap
from kvpareto.report.merge_tables import merge_table
from kvpareto.report.tables import write_table

p = snakemake.params.p

with job(
    log_file=snakemake.log[0],
    script=Path(snakemake.scriptdir) / "merge_table.py",
    modules=[],
    code_hash=snakemake.params.code,
    inputs=[],
    threads=1,
):
    assert_no_overlap(read_parquet(snakemake.input.provenance))
    memory = {model: Path(file) for model, file in p["memory"].items()}
    statistics = StatisticsSettings(**p["statistics"])
    frame = merge_table(Path("results"), p["arms"], memory, statistics)
    write_table(frame, Path(snakemake.output.csv).with_suffix(""))
