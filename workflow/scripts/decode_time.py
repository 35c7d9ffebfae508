"""Time per token of decode engines that take turns. Runs alone."""

from pathlib import Path

import torch

from kvpareto.decode_settings import DecodeTimingSettings, ShapeSettings
from kvpareto.engine.shapes import bench_of, random_ids, shape_model
from kvpareto.engine.timing import time_engines
from kvpareto.jobs import job
from kvpareto.model_settings import ModelSettings
from kvpareto.records import write_parquet
from kvpareto.text.streams import load_ids

p = snakemake.params.p
timing = DecodeTimingSettings(**p["timing"])
torch.set_num_threads(p["threads"])

with job(
    log_file=snakemake.log[0],
    script=Path(snakemake.scriptdir) / "decode_time.py",
    modules=p["modules"],
    code_hash=snakemake.params.code,
    inputs=[*snakemake.input.ids, *snakemake.input.model],
    threads=p["threads"],
    output=snakemake.output.provenance,
    exclusive=True,
):
    named = None if p["model"] is None else ModelSettings(**p["model"])
    model = shape_model(ShapeSettings(**p["shape"]), named)
    ids = snakemake.input.ids
    document = load_ids(ids[0])[:1] if ids else random_ids(model, p["cap"])
    bench = bench_of(
        model,
        document,
        cap=p["cap"],
        sinks=p["sinks"],
        threads=p["threads"],
        block_tokens=timing.tokens_per_block,
        gguf=p["gguf"],
    )
    rows, tokens = time_engines(p["arms"], bench, timing, p["confidence"])
    write_parquet(snakemake.output.rows, rows)
    write_parquet(snakemake.output.tokens, tokens)
