"""llama.cpp on the same weights: a peer that bounds its cache by shifting its context.

When its context is full, llama.cpp throws the oldest entries behind `n_keep` away and rotates the
keys of the whole cache to their new places (https://github.com/ggml-org/llama.cpp, tools/server).
Thrown away one by one this is strict streaming, at the price of a rotation per token; by default it
throws half away at once.

A context of n entries attends n - 1 keys, so it gets cap + 1; cells are made by 256 all the same,
and a shift rotates them all: a cap of 511 is cheaper than one of 512. The cache is in float32
whatever the weights' type. GPT-NeoX's GELU is llama.cpp's: the tanh form, from a table in half
precision. Wheels from PyPI are built for any x86-64 with AVX2, without AVX-512.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import psutil
import torch

from kvpareto.engine.engine import Bench, Engine
from kvpareto.engine.llama_server import Generated, LlamaServer
from kvpareto.jobs import RefusedError, UnavailableError
from kvpareto.model_settings import GgufKind

if TYPE_CHECKING:
    from kvpareto.engine.cost import Cost

_GENERATED = 500
"""Tokens that are generated to be compared, at most."""

_ALL_PROBABILITIES = 8192
"""Largest vocabulary of which all log-probabilities are fetched: they come as text, slowly."""

_WITH_PROBABILITIES = 100
"""Tokens of which they are fetched, at most."""

_TURN_S = 0.005
"""Between two tokens of a turn there is less; after more, another engine had its turn."""

_LOWEST = -104.0
"""Logarithm below which a probability is zero in float32; such a one comes as the lowest float."""


class LlamaDecoder:
    """One endless stream, asked for a block at a time.

    The server runs ahead by itself, so it cannot be stopped between two tokens: a request generates
    a block, and its tokens' times are handed out one by one. They are differences of the server's
    clock from token to token, shifts included. The next request goes on with what the cache holds:
    its prompt repeats that, and only the last entry is computed again, outside of any token's time.
    What is left of a block when another engine has had its turn is dropped, since times of a turn
    have to be of that turn.

    Attributes:
        resident_bytes: what loading and the first tokens added to the memory of this process: the
            weights as far as they were read, cache, buffers, and the server itself.
    """

    def __init__(self, server: LlamaServer, bench: Bench, discard: int, block: int) -> None:
        """
        Args:
            discard: entries that a shift throws away.
            block: tokens that are generated at once.
        """
        self._server = server
        self._bench = bench
        self._discard = discard
        self._block = block
        self._asked_at = 0.0
        self._held: list[int] = []
        self._times: list[float] = []
        self.resident_bytes = 0

    def start(self) -> tuple[float, float]:
        """Prefill and decode one token; (prefill, prefill and first token) in seconds."""
        self._held = self._bench.ids[0, : self._bench.cap - 1].tolist()
        found = self._generate(2, anew=True)
        self._times = []
        self.resident_bytes = psutil.Process().memory_info().rss - self._server.resident_before
        prefilled = found.prompt_ms / 1e3
        return prefilled, prefilled + (found.ends[1] - found.ends[0]) / 1e3

    def token(self) -> tuple[float, bool]:
        """One token; (seconds, False): shifts are not seen from outside."""
        if not self._times or time.perf_counter() - self._asked_at > _TURN_S:
            found = self._generate(self._block + 1, anew=False)
            if found.processed != 1:
                raise RuntimeError(
                    f"llama.cpp processed {found.processed} tokens again, and 1 was expected: its "
                    "cache does not hold what a shift should leave"
                )
            self._times = [(late - early) / 1e3 for early, late in pairwise(found.ends)]
            self._times.reverse()
        self._asked_at = time.perf_counter()
        return self._times.pop(), False

    def _generate(self, tokens: int, anew: bool) -> Generated:
        found = self._server.generate(self._held, tokens, anew=anew)
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
        attention: `flash` is llama.cpp's default. Over a cache in float32 on a CPU it is slower
            than `plain`, and its products are of lower precision (KL 1e-5 where `plain` has 1e-7).
    """

    discard: int | Literal["half"] = 1
    weights: GgufKind = "f32"
    attention: Literal["plain", "flash"] = "plain"

    symbols: ClassVar[dict[str, str]] = {"discard": "discard"}

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.discard != "half" and not (isinstance(self.discard, int) and self.discard >= 1):
            raise ValueError(
                f"discard {self.discard!r} is neither a positive number of entries nor 'half'"
            )

    @property
    def exact(self) -> bool:
        return (self.discard, self.weights, self.attention) == (1, "f32", "plain")

    def cycle(self, bench: Bench) -> int:
        return self._discarded(bench)

    @property
    def gguf(self) -> str | None:
        return self.weights

    def decoder(self, bench: Bench) -> LlamaDecoder:
        return LlamaDecoder(self._server(bench), bench, self._discarded(bench), self.block(bench))

    def compare(self, bench: Bench) -> dict[str, Any]:
        """On text that it generates: its tokens are fed to the oracle behind the same prefill."""
        from kvpareto.measure.fidelity import kl_by_token

        oracle, prefill = bench.oracle("float32"), bench.cap - 1
        prompt = bench.ids[0, :prefill].tolist()
        tokens = min(_GENERATED, bench.ids.shape[1] - prefill)
        server = self._server(bench)
        found = server.generate(prompt, tokens, anew=True)
        # The oracle's logits are those behind decoded tokens: the first token is not among them.
        logits = oracle.follow(torch.tensor([prompt + found.tokens]))[:-1]
        chosen = torch.tensor(found.tokens[1:])
        fields: dict[str, Any] = {
            "top1_agreement": float((logits.argmax(-1) == chosen).double().mean()),
            "compared_tokens": len(chosen),
        }
        vocab = logits.shape[-1]
        if vocab <= _ALL_PROBABILITIES:
            again = server.generate(
                prompt, min(tokens, _WITH_PROBABILITIES), anew=True, vocab=vocab
            )
            own = torch.stack(again.log_probabilities[1:])
            kl = kl_by_token(logits[: len(own)], own.clamp_min(_LOWEST))
            fields |= {
                "kl_to_oracle": float(kl.mean()),
                "kl_to_oracle_max": float(kl.max()),
                "finite": bool(own.isfinite().all()),
            }
        return fields

    def cost(self, decoder: LlamaDecoder, bench: Bench) -> Cost:
        from kvpareto.engine.cost import Cost, cache_bytes
        from kvpareto.models.gguf import read_bytes

        model = bench.oracle("float32").model
        return Cost(
            read_bytes=read_bytes(bench.gguf[self.weights]) + cache_bytes(model, bench.cap),
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
        flash = self.attention == "flash"
        return LlamaServer(path, bench.cap, bench.sinks, discard, bench.threads, flash)
