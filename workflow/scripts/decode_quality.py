"""Decode engines against the oracle, token by token."""

from pathlib import Path

import torch

from kvpareto.decode_settings import ShapeSettings
from kvpareto.engine.quality import engine_quality
from kvpareto.engine.shapes import bench_of, shape_model
from kvpareto.jobs import job
from kvpareto.model_settings import ModelSettings
from kvpareto.records import write_parquet
from kvpareto.text.streams import load_ids

p = snakemake.params.p
torch.set_num_threads(1)

with job(
    log_file=snakemake.log[0],
    script=Path(snakemake.scriptdir) / "decode_quality.py",
    modules=p["modules"],
    code_hash=snakemake.params.code,
    inputs=snakemake.input,
    threads=1,
    output=snakemake.output.provenance,
):
    model = shape_model(ShapeSettings(**p["shape"]), ModelSettings(**p["model"]))
    tokens = p["cap"] - 1 + p["quality"]["tokens"]
    bench = bench_of(
        model,
        load_ids(snakemake.input.ids[0])[:1, :tokens],
        cap=p["cap"],
        sinks=p["sinks"],
        threads=1,
        block_tokens=p["timing"]["tokens_per_block"],
        gguf=p["gguf"],
    )
    write_parquet(snakemake.output.rows, engine_quality(p["arms"], bench))
