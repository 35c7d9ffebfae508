"""Write the weights of a shape as GGUF."""

from pathlib import Path

from kvpareto.decode_settings import ShapeSettings
from kvpareto.engine.shapes import shape_model
from kvpareto.jobs import job
from kvpareto.model_settings import ModelSettings
from kvpareto.models.gguf import write_gguf

p = snakemake.params.p

with job(
    log_file=snakemake.log[0],
    script=Path(snakemake.scriptdir) / "gguf.py",
    modules=[],
    code_hash=snakemake.params.code,
    inputs=snakemake.input,
    threads=1,
    output=snakemake.output.provenance,
):
    named = None if p["model"] is None else ModelSettings(**p["model"])
    model = shape_model(ShapeSettings(**p["shape"]), named)
    write_gguf(model, snakemake.wildcards.kind, snakemake.output.weights)
