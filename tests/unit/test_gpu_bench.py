"""The benchmark for GPU machines, on a CPU and a tiny shape."""

from __future__ import annotations

import pandas as pd
import pytest
import torch

from kvpareto.engine.gpu_bench import main
from kvpareto.jobs import UnavailableError


@pytest.mark.skipif(torch.cuda.is_available(), reason="a CUDA device is here")
def test_it_says_what_it_needs(capsys):
    with pytest.raises(SystemExit):
        main(["--device", "cuda"])
    assert "torch sees no CUDA device" in capsys.readouterr().err


def test_it_runs_on_a_cpu_and_writes_tables_and_a_page(tmp_path, monkeypatch):
    # Compiled steps take half a minute each, and have tests of their own.
    def none() -> str:
        raise UnavailableError("no compiler in this test")

    monkeypatch.setattr("kvpareto.engine.steps.cpp_compiler", none)
    options = "--device cpu --shape tiny --cap 24 --sinks 4 --dtypes float32 --blocks 6"
    main([*options.split(), "--block-tokens", "4", "--prompt-tokens", "96",
          "--out", str(tmp_path)])  # fmt: skip
    (decode_file,), (ttft_file,) = (
        list(tmp_path.glob(f"*-{part}.csv")) for part in ("decode", "ttft")
    )
    decode = pd.read_csv(decode_file).set_index("engine")
    ran = decode[decode["status"] == "ok"]
    assert set(ran.index) == {"prune", "recompute", "ring"}
    assert decode.loc["prune-R64", "status"] == "refused"  # 24 entries cannot lose 64
    missing = set(decode.index[decode["status"] == "unavailable"])
    assert missing >= {"ring-graph", "ring-compiled", "reduce_overhead"}
    exact = ran[ran["exact"]]
    assert (exact["kl_to_oracle"] < 1e-6).all()
    assert (ran["tpot_ratio"] > 0).all()
    ttft = pd.read_csv(ttft_file)
    assert (ttft["status"] == "ok").all()
    assert (ttft["ttft_ratio"] > 0).all()
    (page,) = tmp_path.glob("*.md")
    text = page.read_text()
    for part in ("make gpu-bench", "torch", "ring-graph-fused", "blend", "GB/s"):
        assert part in text
