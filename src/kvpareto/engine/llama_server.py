"""The server of llama.cpp in this process, through the xllamacpp wheel."""

from __future__ import annotations

import importlib.util
from typing import Any

import psutil
import torch

from kvpareto.jobs import UnavailableError


class LlamaServer:
    """The server of llama.cpp, in this process and for one stream.

    Between requests it keeps its cache: a prompt that begins with what the cache holds is not
    processed again.

    Attributes:
        resident_before: resident bytes of this process before the file was loaded.
    """

    def __init__(
        self, path: str, cap: int, sinks: int, discard: int, threads: int, flash: bool
    ) -> None:
        """
        Args:
            path: GGUF file.
            cap: keys that a step attends.
            discard: entries that a shift throws away.
            flash: whether attention is llama.cpp's own choice, which is flash attention, or plain.

        Raises:
            UnavailableError: xllamacpp is not installed.
            RuntimeError: the file cannot be loaded.
        """
        if importlib.util.find_spec("xllamacpp") is None:
            raise UnavailableError(
                "xllamacpp is not installed: pip install -c envs/constraints.txt -e ."
            )
        import xllamacpp

        self.resident_before = psutil.Process().memory_info().rss
        params = xllamacpp.CommonParams()
        params.model.path = path
        params.n_parallel, params.n_gpu_layers = 1, 0
        # The context is rounded up to whole 256s; a slot's limit in a unified cache is not.
        params.kv_unified, params.kv_unified_per_slot, params.n_ctx = True, cap + 1, cap + 1
        params.ctx_shift = True
        if not flash:
            params.flash_attn_type = xllamacpp.llama_flash_attn_type.LLAMA_FLASH_ATTN_TYPE_DISABLED
        params.cache_type_k = params.cache_type_v = xllamacpp.ggml_type.GGML_TYPE_F32
        params.cpuparams.n_threads = params.cpuparams_batch.n_threads = threads
        params.warmup = params.fit_params = params.ui = params.cache_idle_slots = False
        params.cache_ram_mib = params.verbosity = 0
        self._server = xllamacpp.Server(params)
        self._options = {"n_keep": sinks, "n_discard": discard}

    def generate(self, prompt: list[int], tokens: int, *, anew: bool, vocab: int = 0) -> Generated:
        """Greedy tokens behind a prompt.

        Args:
            anew: whether the whole prompt is processed, whatever the cache holds.
            vocab: size of the vocabulary, if the log-probabilities of all of it are asked for at
                each step; 0: of none.

        Raises:
            RuntimeError: the server refuses, or stops early.
        """
        found = Generated()
        request = self._options | {
            "prompt": prompt,
            "cache_prompt": not anew,
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
        if len(found.tokens) != tokens:
            raise RuntimeError(
                f"llama.cpp generated {len(found.tokens)} of {tokens} tokens and says nothing"
            )
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
            by_id = sorted((one["id"], one["logprob"]) for one in step["top_logprobs"])
            own = torch.tensor([value for _, value in by_id], dtype=torch.float64)
            self.log_probabilities.append(own)
