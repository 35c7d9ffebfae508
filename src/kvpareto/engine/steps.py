"""Ways to execute a decode step: compiled as one graph, captured in a CUDA graph, by one kernel."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from functools import cache

import torch
from torch._inductor import metrics
from torch._inductor.cpp_builder import get_cpp_compiler
from torch._inductor.exc import InvalidCxxCompiler
from torch.nn.attention import SDPBackend, sdpa_kernel

from kvpareto.engine.options import Kernel
from kvpareto.jobs import UnavailableError
from kvpareto.measure.latency import now

Step = Callable[[torch.Tensor], torch.Tensor]
"""Token ids [1, 1] to logits [1, vocab]; all else it reads and writes stays at its address."""

_BACKENDS = {
    "math": SDPBackend.MATH,
    "flash": SDPBackend.FLASH_ATTENTION,
    "efficient": SDPBackend.EFFICIENT_ATTENTION,
}

_GRAPHS_OF_A_PROCESS = 64
"""Engines of a process share the code of a step, and each compiles it anew."""

_WARM_UPS = 3


def with_kernel(kernel: Kernel) -> AbstractContextManager[None]:
    """Attention by one kernel only, while it lasts; it raises where that one cannot serve."""
    return nullcontext() if kernel == "auto" else sdpa_kernel(_BACKENDS[kernel])


@cache
def cpp_compiler() -> str:
    """The C++ compiler that torch would take.

    Raises:
        UnavailableError: there is none.
    """
    try:
        return str(get_cpp_compiler())
    except InvalidCxxCompiler as error:
        raise UnavailableError(
            "torch.compile needs a C++ compiler and finds none: install g++ or name one in CXX"
        ) from error


class Compiled:
    """A step as one graph for fixed shapes; a break of the graph is an error.

    Attributes:
        kernels: kernels that were written for a call; those of the library come on top.
    """

    def __init__(self, step: Step) -> None:
        """
        Raises:
            UnavailableError: there is no C++ compiler.
        """
        cpp_compiler()
        torch._dynamo.config.recompile_limit = _GRAPHS_OF_A_PROCESS
        torch._dynamo.config.accumulated_recompile_limit = 4 * _GRAPHS_OF_A_PROCESS
        self._step: Step = torch.compile(step, fullgraph=True, dynamic=False)
        self.kernels = 0

    def __call__(self, ids: torch.Tensor) -> torch.Tensor:
        before = metrics.generated_kernel_count
        logits = self._step(ids)
        self.kernels = metrics.generated_kernel_count - before or self.kernels
        return logits


class Captured:
    """A step as a CUDA graph, captured by hand: one replay is one token.

    `torch.compile(mode="reduce-overhead")` fails where a graph's output is fed back as an input and
    is overwritten by the next replay. Here state lives in buffers that are written in place, the
    token is copied into one of them, and the logits are copied out.

    Attributes:
        capture_s: seconds that warming up and capturing took.
    """

    def __init__(self, step: Step, device: torch.device) -> None:
        """
        Raises:
            UnavailableError: the device is not a CUDA device.
        """
        if device.type != "cuda":
            raise UnavailableError("CUDA graphs need a CUDA device, and the model is on the CPU")
        self._step = step
        self._token = torch.zeros(1, 1, dtype=torch.int64, device=device)
        self._graph: torch.cuda.CUDAGraph | None = None
        self._logits = torch.empty(0)
        self.capture_s = 0.0

    def __call__(self, ids: torch.Tensor) -> torch.Tensor:
        assert self._graph is not None, "capture first"
        self._token.copy_(ids)
        self._graph.replay()
        return self._logits

    @property
    def ready(self) -> bool:
        """Whether it is captured."""
        return self._graph is not None

    def capture(self) -> None:
        """Capture; the steps that warm up are real ones, and what they wrote has to be undone."""
        begin = now(self._token.device)
        stream = torch.cuda.Stream()
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):
            for _ in range(_WARM_UPS):
                self._step(self._token)
        torch.cuda.current_stream().wait_stream(stream)
        self._graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(self._graph):
            self._logits = self._step(self._token)
        self.capture_s = now(self._token.device) - begin
