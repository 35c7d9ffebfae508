"""What a GPU makes of the decode engine and of reuse, in one call and without a network.

    python -m kvpareto.engine.gpu_bench --device cuda --out docs/measurements

Shapes are those of known models, with random weights: time and memory only, and whether exact
engines agree with the oracle. It writes a CSV file of each part and one page that shows both.
"""

from __future__ import annotations

import argparse
import logging
import tempfile
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pandas as pd
import torch

from kvpareto.decode_settings import DecodeTimingSettings
from kvpareto.engine.engine import Arm, engine_name
from kvpareto.engine.quality import engine_quality
from kvpareto.engine.shapes import bench_of, random_ids, random_model
from kvpareto.engine.timing import time_engines
from kvpareto.provenance import commit, environment, machine
from kvpareto.records import write_csv, write_text
from kvpareto.reuse.arms import KEEP_ALL, settings_of
from kvpareto.reuse.depth import deep_bench
from kvpareto.reuse.timing import time_arms
from kvpareto.reuse_settings import DepthSettings, ReuseArms, ReuseTimingSettings

log = logging.getLogger(__name__)

_NEOX = {
    "model_type": "gpt_neox",
    "vocab_size": 50304,
    "max_position_embeddings": 2048,
    "rope_parameters": {
        "rope_type": "default",
        "rope_theta": 10000.0,
        "partial_rotary_factor": 0.25,
    },
    "use_parallel_residual": True,
    "tie_word_embeddings": False,
}
DECODE_SHAPES: dict[str, dict[str, Any]] = {
    "pythia-2.8b": _NEOX
    | {
        "hidden_size": 2560,
        "num_hidden_layers": 32,
        "num_attention_heads": 32,
        "intermediate_size": 10240,
    },
    "tiny": _NEOX
    | {
        "hidden_size": 32,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "intermediate_size": 64,
        "vocab_size": 128,
    },
}
TTFT_SHAPES: dict[str, dict[str, Any]] = {
    "llama-3-8b": {
        "vocab_size": 128256,
        "hidden_size": 4096,
        "intermediate_size": 14336,
        "num_hidden_layers": 32,
        "num_attention_heads": 32,
        "num_key_value_heads": 8,
        "head_dim": 128,
        "rope_parameters": {"rope_type": "default", "rope_theta": 500000.0},
    },
    "tiny": {
        "vocab_size": 128,
        "hidden_size": 32,
        "intermediate_size": 64,
        "num_hidden_layers": 3,
        "num_attention_heads": 2,
        "num_key_value_heads": 1,
        "head_dim": 16,
    },
}
_COMPARED_TOKENS = 200


def decode_arms(dtype: str) -> list[Arm]:
    """Recompute, pruning by concatenation, the library's way into CUDA graphs, and the ring."""
    named: list[Arm] = [
        ("prune", {}),
        ("recompute", {}),
        ("prune", {"period": 64}),
        ("reduce_overhead", {}),
        ("ring", {}),
        ("ring", {"run": "compiled"}),
        ("ring", {"run": "graph"}),
        ("ring", {"run": "compiled", "weights": "fused"}),
        ("ring", {"run": "graph", "weights": "fused"}),
        ("ring", {"run": "compiled", "weights": "fused", "quantised": "int8"}),
        ("ring", {"run": "graph", "weights": "fused", "quantised": "int8"}),
    ]
    return [(name, parameters | {"dtype": dtype}) for name, parameters in named]


def decode_rows(arguments: argparse.Namespace) -> Iterator[pd.DataFrame]:
    """Times of every dtype and number of sinks, each beside the distance from the oracle."""
    timing = DecodeTimingSettings(blocks=arguments.blocks, tokens_per_block=arguments.block_tokens)
    for dtype in arguments.dtypes:
        model = random_model(DECODE_SHAPES[arguments.shape], dtype, arguments.device)
        ids = random_ids(model, arguments.cap)
        for sinks in arguments.sinks:
            log.info("%s, %s, %d sinks", arguments.shape, dtype, sinks)
            bench = bench_of(
                model,
                ids,
                cap=arguments.cap,
                sinks=sinks,
                threads=torch.get_num_threads(),
                block_tokens=timing.tokens_per_block,
                gguf={},
            )
            arms = decode_arms(dtype)
            rows, _ = time_engines(
                arms, bench, timing, 0.95, yardstick=engine_name("prune", {"dtype": dtype})
            )
            short = bench_of(
                model,
                ids[:, : arguments.cap - 1 + _COMPARED_TOKENS],
                cap=arguments.cap,
                sinks=sinks,
                threads=bench.threads,
                block_tokens=bench.block_tokens,
                gguf={},
            )
            compared = engine_quality(arms, short).drop(columns=["status", "why"])
            about = {"shape": arguments.shape, "cap": arguments.cap, "sinks": sinks}
            yield rows.merge(compared, on="engine", how="left").assign(**about)


def ttft_rows(arguments: argparse.Namespace) -> pd.DataFrame:
    """Time to first token of reuse, beside a full prefill."""
    dtype = arguments.dtypes[-1]
    arms = [
        {"strategy": strategy, "setting": setting | {"drop": KEEP_ALL}}
        for strategy in ("blend", "debug")
        for setting in settings_of(ReuseArms(strategy=strategy, ratio=[0.15, 0.4]))
    ]
    depth = DepthSettings(
        shape=TTFT_SHAPES["tiny" if arguments.shape == "tiny" else "llama-3-8b"],
        dtype=dtype,
        device="cuda" if arguments.device.startswith("cuda") else arguments.device,
        tokens=arguments.prompt_tokens,
        chunk_tokens=max(8, arguments.prompt_tokens // 16),
        question_tokens=max(4, arguments.prompt_tokens // 64),
        arms=[ReuseArms(strategy="blend")],
    )
    with tempfile.TemporaryDirectory() as folder:
        bench, items = deep_bench(depth, Path(folder))
        timing = ReuseTimingSettings(pairs=arguments.blocks)
        return time_arms(bench, items, arms, timing, 0.95).assign(dtype=dtype)


def device_name(device: str) -> str:
    """The accelerator's name, or the machine's."""
    return torch.cuda.get_device_name(device) if device.startswith("cuda") else machine()


def page(decode: pd.DataFrame, ttft: pd.DataFrame | None, device: str) -> str:
    """Both tables as one page of Markdown, with what they were made by."""
    versions = ", ".join(f"{name} {version}" for name, version in environment().items())
    head, dirty = commit(Path(__file__).resolve().parents[3])
    shown = decode[
        ["shape", "cap", "sinks", "engine", "tpot_ms_p50", "tpot_ms_p99", "tpot_ratio",
         "tpot_ratio_lo", "tpot_ratio_hi", "recompute_ratio", "bandwidth_share", "launches",
         "peak_bytes", "capture_s", "kl_to_oracle", "top1_agreement", "status", "why"]
    ]  # fmt: skip
    parts = [
        f"# {device_name(device)}",
        f"Made {datetime.now(UTC):%Y-%m-%d} by `make gpu-bench` at commit {head[:12]}"
        f"{' with changes' if dirty else ''}; {versions}; {machine()}.",
        "Random weights. `tpot_ratio` is to pruning by concatenation after every token, "
        "`recompute_ratio` to a forward pass over the whole window; `bandwidth_share` is of the "
        f"bandwidth measured in the same run, {decode['bandwidth_gb_s'].median():.0f} GB/s.",
        "## Decode",
        shown.to_markdown(index=False, floatfmt=".4g"),
    ]
    if ttft is not None:
        names = ["strategy", "setting", "tokens", "full_ms", "ttft_ms", "ttft_ratio",
                 "ttft_ratio_lo", "ttft_ratio_hi", "operations_ratio", "status", "why"]  # fmt: skip
        parts += [
            "## Time to first token",
            ttft.reindex(columns=names).to_markdown(index=False, floatfmt=".4g"),
        ]
    return "\n\n".join(parts) + "\n"


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure, and write what was found."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--device", default="cuda", help="cuda, cuda:1, cpu")
    parser.add_argument("--shape", default="pythia-2.8b", choices=DECODE_SHAPES)
    parser.add_argument("--cap", type=int, default=2048)
    parser.add_argument("--sinks", type=int, nargs="+", default=[4, 32])
    parser.add_argument("--dtypes", nargs="+", default=["float16", "bfloat16"])
    parser.add_argument("--blocks", type=int, default=12)
    parser.add_argument("--block-tokens", type=int, default=64)
    parser.add_argument("--prompt-tokens", type=int, default=4096, help="of the reuse part")
    parser.add_argument("--skip-ttft", action="store_true", help="decode only")
    parser.add_argument("--out", type=Path, default=Path("docs/measurements"))
    given = parser.parse_args(arguments)
    if given.device.startswith("cuda") and not torch.cuda.is_available():
        parser.error("torch sees no CUDA device; run it where there is one, or say --device cpu")
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    name = device_name(given.device).split(",")[0].replace(" ", "-").lower()
    name = "".join(one for one in name if one.isalnum() or one == "-")
    found: list[pd.DataFrame] = []
    for rows in decode_rows(given):  # each part is kept: a lease may end at any time
        found.append(rows)
        write_csv(given.out / f"{name}-decode.csv", pd.concat(found))
        write_text(given.out / f"{name}.md", page(pd.concat(found), None, given.device))
    if not given.skip_ttft:
        ttft = ttft_rows(given)
        write_csv(given.out / f"{name}-ttft.csv", ttft)
        write_text(given.out / f"{name}.md", page(pd.concat(found), ttft, given.device))


if __name__ == "__main__":
    main()
