"""llama.cpp on the same weights: a peer that bounds its cache by shifting its context.

When its context is full, llama.cpp throws the oldest entries behind `n_keep` away and rotates the
keys of the whole cache to their new places (https://github.com/ggml-org/llama.cpp, tools/server).
Thrown away one by one this is strict streaming, at the price of a rotation per token; by default it
throws half away at once.

A context of n entries attends n - 1 keys, so it gets cap + 1; cells are made by 256 all the same,
and a shift rotates them all. Cache and computation are in float32 whatever the weights' type, flash
attention is llama.cpp's own choice (on a CPU it takes it). GPT-NeoX's GELU is llama.cpp's: the tanh
form, from a table in half precision. Wheels from PyPI are built for any x86-64 with AVX2.
"""

from __future__ import annotations

import importlib.util
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import psutil
import torch

from kvpareto.engine.cost import Cost
from kvpareto.engine.engine import Bench, Engine
from kvpareto.jobs import RefusedError, UnavailableError
from kvpareto.models import families
from kvpareto.models.gguf import Kind, read_bytes

_GENERATED = 500
"""Tokens that are generated to be compared, at most."""

_ALL_PROBABILITIES = 8192
"""Largest vocabulary of which all log-probabilities are fetched: they come as text."""

_FLOAT_BYTES = 4


class LlamaServer:
    """The server of llama.cpp, in this process and for one stream.

    Between requests it keeps its cache: a prompt that begins with what the cache holds is not
    processed again.
    """

    def __init__(self, path: str, cap: int, sinks: int, discard: int, threads: int) -> None:
        """
        Args:
            path: GGUF file.
            cap: keys that a step attends.
            discard: entries that a shift throws away; 0: half of what is behind the sinks.

        Raises:
            UnavailableError: xllamacpp is not installed.
            RuntimeError: the file cannot be loaded.
        """
        if importlib.util.find_spec("xllamacpp") is None:
            raise UnavailableError(
                "xllamacpp is not installed: pip install -c envs/constraints.txt -e ."
            )
        import xllamacpp

        params = xllamacpp.CommonParams()
        params.model.path = path
        params.n_parallel, params.n_gpu_layers = 1, 0
        # The context is rounded up to whole 256s; a slot's limit in a unified cache is not.
        params.kv_unified, params.kv_unified_per_slot, params.n_ctx = True, cap + 1, cap + 1
        params.ctx_shift = True
        params.cache_type_k = params.cache_type_v = xllamacpp.ggml_type.GGML_TYPE_F32
        params.cpuparams.n_threads = params.cpuparams_batch.n_threads = threads
        params.warmup = params.fit_params = params.ui = params.cache_idle_slots = False
        params.cache_ram_mib = params.verbosity = 0
        self._server = xllamacpp.Server(params)
        self._options = {"n_keep": sinks, "n_discard": discard, "cache_prompt": True}

    def generate(self, prompt: list[int], tokens: int, vocab: int = 0) -> Generated:
        """Greedy tokens behind a prompt.

        Args:
            vocab: of so many tokens log-probabilities are asked for at each step; 0: of none.

        Raises:
            RuntimeError: the server refuses; its words.
        """
        found = Generated()
        request = self._options | {
            "prompt": prompt,
            "max_tokens": tokens,
            "samplers": ["top_k"],
            "top_k": 1,
            "stream": True,
            "timings_per_token": True,
            "n_probs": vocab,
        }
        self._server.handle_completions(request, found.take)
        if found.error is not None:
            raise RuntimeError(f"llama.cpp refuses: {found.error}")
        return found


class Generated:
    """What the server streams, as it comes.

    Attributes:
        tokens: ids.
        ends: milliseconds, by the server's clock, from the end of the prompt to each token.
        log_probabilities: [vocab] for each token, where they were asked for.
        prompt_ms: milliseconds of processing the prompt.
        processed: tokens of the prompt that were not in the cache.
        error: what went wrong; None: nothing.
    """

    def __init__(self) -> None:
        self.tokens: list[int] = []
        self.ends: list[float] = []
        self.log_probabilities: list[torch.Tensor] = []
        self.prompt_ms = 0.0
        self.processed = 0
        self.error: object = None

    def take(self, chunk: dict[str, Any]) -> None:
        """One token, or the end, which has no text."""
        if "choices" not in chunk:
            self.error = chunk.get("error", chunk)
            return
        (choice,) = chunk["choices"]
        if not choice["text"]:
            return
        self.tokens.append(int(choice["text"].strip("<>")))
        timings = chunk["timings"]
        self.ends.append(timings["predicted_ms"])
        self.prompt_ms, self.processed = timings["prompt_ms"], timings["prompt_n"]
        if choice["logprobs"]:
            (step,) = choice["logprobs"]["content"]
            own = torch.empty(len(step["top_logprobs"]), dtype=torch.float64)
            own[[one["id"] for one in step["top_logprobs"]]] = torch.tensor(
                [one["logprob"] for one in step["top_logprobs"]], dtype=torch.float64
            )
            self.log_probabilities.append(own)


class LlamaDecoder:
    """One endless stream, asked for a block at a time.

    The server runs ahead by itself, so it cannot be stopped between two tokens: a request generates
    a block, and its tokens' times are handed out one by one. They are differences of the server's
    clock from token to token, shifts included. The next request goes on with what the cache holds:
    its prompt repeats that, and only the last entry is computed again, outside of any token's time.

    Attributes:
        resident_bytes: what loading and the first tokens added to the memory of this process: the
            weights as far as they were read, cache, buffers, and the server itself.
    """

    def __init__(self, server: LlamaServer, bench: Bench, discard: int, before: int) -> None:
        """
        Args:
            discard: entries that a shift throws away.
            before: resident bytes of this process before the server was made.
        """
        self._server = server
        self._bench = bench
        self._discard = discard
        self._before = before
        self._held: list[int] = []
        self._times: list[float] = []
        self.resident_bytes = 0

    def start(self) -> tuple[float, float]:
        """Prefill and decode one token; (prefill, prefill and first token) in seconds."""
        self._held = self._bench.ids[0, : self._bench.cap - 1].tolist()
        found = self._generate(2)
        self._times = []
        self.resident_bytes = psutil.Process().memory_info().rss - self._before
        prefilled = found.prompt_ms / 1e3
        return prefilled, prefilled + (found.ends[1] - found.ends[0]) / 1e3

    def token(self) -> tuple[float, bool]:
        """One token; (seconds, False): shifts are not seen from outside."""
        if not self._times:
            found = self._generate(self._bench.block_tokens + 1)
            if found.processed != 1:
                raise RuntimeError(
                    f"llama.cpp processed {found.processed} tokens again, and 1 was expected: its "
                    "cache does not hold what a shift should leave"
                )
            ends = found.ends
            self._times = [(late - early) / 1e3 for early, late in zip(ends, ends[1:], strict=False)]
            self._times.reverse()
        return self._times.pop(), False

    def _generate(self, tokens: int) -> Generated:
        found = self._server.generate(self._held, tokens)
        sinks = self._bench.sinks
        for token in found.tokens[:-1]:  # the last one is not in the cache yet
            if len(self._held) == self._bench.cap:
                del self._held[sinks : sinks + self._discard]
            self._held.append(token)
        return found


@dataclass(frozen=True)
class LlamaCpp(Engine):
    """
    Attributes:
        discard: entries that a shift throws away; `half` is llama.cpp's default, half of what is
            behind the sinks.
        weights: their type in the GGUF file.
    """

    discard: int | Literal["half"] = 1
    weights: Kind = "f32"

    symbols: ClassVar[dict[str, str]] = {"discard": "discard"}

    def __post_init__(self) -> None:
        if self.discard != "half" and not (isinstance(self.discard, int) and self.discard >= 1):
            raise ValueError(
                f"discard {self.discard!r} is neither a positive number of entries nor 'half'"
            )
        if self.weights not in ("f32", "f16", "bf16", "q8_0"):
            raise ValueError(f"weights {self.weights!r} are none of f32, f16, bf16, q8_0")

    @property
    def exact(self) -> bool:
        return self.discard == 1 and self.weights == "f32"

    def cycle(self, bench: Bench) -> int:
        return self._discarded(bench)

    @property
    def gguf(self) -> str | None:
        return self.weights

    def decoder(self, bench: Bench) -> LlamaDecoder:
        before = psutil.Process().memory_info().rss
        return LlamaDecoder(self._server(bench), bench, self._discarded(bench), before)

    def compare(self, bench: Bench) -> dict[str, Any]:
        """On text that it generates: its tokens are fed to the oracle behind the same prefill."""
        oracle, prefill = bench.oracle("float32"), bench.cap - 1
        prompt = bench.ids[0, :prefill].tolist()
        vocab = int(oracle.model.config.vocab_size)
        asked = vocab if vocab <= _ALL_PROBABILITIES else 0
        tokens = min(_GENERATED, bench.ids.shape[1] - prefill)
        found = self._server(bench).generate(prompt, tokens, asked)
        # The oracle's logits are those behind decoded tokens: the first token is not among them.
        true = oracle.follow(torch.tensor([prompt + found.tokens]))[:-1].double().log_softmax(-1)
        chosen = torch.tensor(found.tokens[1:])
        fields: dict[str, Any] = {
            "top1_agreement": float((true.argmax(-1) == chosen).double().mean()),
            "compared_tokens": len(chosen),
        }
        if asked:
            own = torch.stack(found.log_probabilities[1:])
            # Probabilities of zero are written as the lowest float.
            kl = (true.exp() * (true - own)).sum(-1).clamp_min(0)
            fields |= {
                "kl_to_oracle": float(kl.mean()),
                "kl_to_oracle_max": float(kl.max()),
                "finite": bool(own.isfinite().all()),
            }
        return fields

    def cost(self, decoder: LlamaDecoder, bench: Bench) -> Cost:
        model = bench.oracle("float32").model
        entry = 2 * families.kv_heads(model) * families.head_dim(model) * _FLOAT_BYTES
        return Cost(
            read_bytes=read_bytes(bench.gguf[self.weights])
            + bench.cap * families.layer_count(model) * entry,
            peak_bytes=decoder.resident_bytes,
        )

    def _discarded(self, bench: Bench) -> int:
        if self.discard == "half":
            return (bench.cap - bench.sinks) // 2
        return self.discard

    def _server(self, bench: Bench) -> LlamaServer:
        if bench.ids.device.type != "cpu":
            raise UnavailableError(
                "llama.cpp is run on the CPU, where xllamacpp's wheels from PyPI compute, and the "
                f"model is on {bench.ids.device}"
            )
        discard = self._discarded(bench)
        if not 1 <= discard < bench.cap - bench.sinks:
            raise RefusedError(
                f"a shift of {discard} entries leaves none of the {bench.cap} entries of the cap "
                f"beside {bench.sinks} sinks"
            )
        path = bench.gguf[self.weights]
        return LlamaServer(path, bench.cap, bench.sinks, discard, bench.threads)
