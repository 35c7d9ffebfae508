"""The offset of every gate of the study against L - T."""

from pathlib import Path

from kvpareto.jobs import job
from kvpareto.merge.gate import curves
from kvpareto.report.figures.merge_gate import gates
from kvpareto.report.style import save_svg

p = snakemake.params.p

with job(
    log_file=snakemake.log[0],
    script=Path(snakemake.scriptdir) / "merge_gate.py",
    modules=p["modules"],
    code_hash=snakemake.params.code,
    inputs=[],
    threads=1,
):
    save_svg(gates(curves(p["arms"]), title="every gate of the study"), snakemake.output[0])
