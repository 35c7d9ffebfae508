"""One comparison of arms that other rules have measured."""

from importlib import import_module
from pathlib import Path

from kvpareto.claims.study import Study
from kvpareto.eviction_settings import StatisticsSettings
from kvpareto.jobs import job
from kvpareto.records import read_parquet, write_parquet
from kvpareto.report.merged import with_settings

p = snakemake.params.p

with job(
    log_file=snakemake.log[0],
    script=Path(snakemake.scriptdir) / "comparison.py",
    modules=[p["comparison"]],
    code_hash=snakemake.params.code,
    inputs=snakemake.input,
    threads=1,
    output=snakemake.output.provenance,
):
    study = Study(
        eviction=with_settings(read_parquet(snakemake.input.eviction), snakemake.input.settings),
        timing=read_parquet(snakemake.input.timing),
        spikes=read_parquet(snakemake.input.spikes),
        tokens=lambda arm: read_parquet(Path("results/eviction") / arm / "tokens.parquet"),
        statistics=StatisticsSettings(**p["statistics"]),
    )
    rows = import_module(p["comparison"]).compare(study)
    rows.insert(0, "probe", p["comparison"].rpartition(".")[2])
    write_parquet(snakemake.output.rows, rows)
