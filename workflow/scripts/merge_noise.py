"""Score and fidelity of merged chunks against noise, of one model."""

from pathlib import Path

from kvpareto.jobs import job
from kvpareto.records import read_parquet
from kvpareto.report.figures.merge_noise import score_against_noise
from kvpareto.report.style import save_svg

with job(
    log_file=snakemake.log[0],
    script=Path(snakemake.scriptdir) / "merge_noise.py",
    modules=[],
    code_hash=snakemake.params.code,
    inputs=[],
    threads=1,
):
    model = snakemake.wildcards["model"]
    table = read_parquet(snakemake.input.merge)
    save_svg(score_against_noise(table[table["model"] == model], title=model), snakemake.output[0])
