"""What a decode engine is: a way to compute the next token under a bounded cache, to be timed.

One engine is one file under `engines/`; what it can be composed of (`options`) are its parameters.
The workflow reads every engine's parameters whenever it starts, so what takes seconds to import is
imported where it is used: streams, under `streams/`, and with them the models' library.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Any, ClassVar, Literal, get_args, get_origin, get_type_hints

import torch

from kvpareto.methods import hyper_parameters, method_class
from kvpareto.model_settings import Dtype

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from kvpareto.engine.cost import Cost
    from kvpareto.engine.oracle import Oracle
    from kvpareto.measure.latency import Decoder, Decoding, TimedDecoder

_OF_STATELESS = 20
"""Of so many tokens one is compared, where each costs a prefill."""

PACKAGE = "kvpareto.engine.engines"
"""Where the engines are."""

YARDSTICK = "prune"
"""What every time is a ratio to: the library's cache, pruned after every step, in float32."""

Arm = tuple[str, dict[str, Any]]
"""An engine and its parameters."""

FULL: Arm = ("full", {})
"""The cache that is not bounded."""


@dataclass(frozen=True)
class Bench:
    """What all engines of a comparison have in common.

    Attributes:
        model: gives the model with its weights in a dtype; all engines share it.
        ids: [1, tokens], the document, on the model's device.
        cap: keys attended by a step, the current token's included.
        sinks: first tokens that stay.
        threads: threads of a computation.
        block_tokens: tokens that are timed in a row before another engine's turn.
        oracle: gives the oracle in a dtype; all engines share it.
        gguf: files of the weights as GGUF, by type, for engines that read them.
    """

    model: Callable[[Dtype], PreTrainedModel]
    ids: torch.Tensor
    cap: int
    sinks: int
    threads: int
    block_tokens: int
    oracle: Callable[[Dtype], Oracle]
    gguf: dict[str, str]


@dataclass(frozen=True)
class Engine(ABC):
    """A decode engine: a frozen dataclass of its parameters."""

    symbols: ClassVar[dict[str, str]] = {}
    """Short names of parameters in an engine's name; without one the value stands alone."""

    def __post_init__(self) -> None:
        """
        Raises:
            ValueError: a parameter has none of the values that its type names.
        """
        for name, hint in get_type_hints(type(self)).items():
            choices, value = get_args(hint), getattr(self, name)
            if get_origin(hint) is Literal and value not in choices:
                raise ValueError(f"{name} {value!r} is none of {', '.join(choices)}")

    @property
    @abstractmethod
    def exact(self) -> bool:
        """Whether it means to compute strict streaming in float32: what the oracle computes."""

    def cycle(self, bench: Bench) -> int:
        """Tokens after which its work repeats."""
        return 1

    def block(self, bench: Bench) -> int:
        """Tokens of a block of its measurement: the bench's, rounded up to whole cycles."""
        cycle = self.cycle(bench)
        return -(-bench.block_tokens // cycle) * cycle

    @property
    def gguf(self) -> str | None:
        """The type of GGUF file that it reads its weights from; None: none."""
        return None

    @abstractmethod
    def decoder(self, bench: Bench) -> Decoder:
        """What is timed, not yet started.

        Raises:
            UnavailableError: something that it needs is not here.
            RefusedError: it is known not to work; says why.
        """

    @abstractmethod
    def compare(self, bench: Bench) -> dict[str, Any]:
        """How far it is from the oracle: the fields of `Agreement` that can be told."""

    @abstractmethod
    def cost(self, decoder: Any, bench: Bench) -> Cost:
        """What a step of its started decoder costs beside time."""


@dataclass(frozen=True)
class TorchEngine(Engine):
    """An engine on the model's own modules, which gives logits.

    Attributes:
        dtype: of weights, cache and computation.
    """

    dtype: Dtype = "float32"

    def prefill(self, bench: Bench) -> int:
        """Tokens that are processed at once before the first step: the cache is full then."""
        return bench.cap - 1

    @abstractmethod
    def stream(self, model: PreTrainedModel, bench: Bench) -> Decoding:
        """The engine on a model; raises as `decoder` does."""

    def decoder(self, bench: Bench) -> TimedDecoder:
        from kvpareto.measure.latency import TimedDecoder

        stream = self.stream(bench.model(self.dtype), bench)
        return TimedDecoder(stream, bench.ids, self.prefill(bench))

    stateless: ClassVar[bool] = False
    """Whether every token is computed from the document alone: some tokens then stand for all."""

    def compare(self, bench: Bench) -> dict[str, Any]:
        from kvpareto.engine.oracle import agreement, first_non_finite, followed
        from kvpareto.measure.latency import attention_of

        oracle, ids = bench.oracle(self.dtype), bench.ids
        stream = self.stream(bench.model(self.dtype), bench)
        prefill = self.prefill(bench)
        at = None
        if self.stateless:
            at = torch.arange(0, ids.shape[1] - prefill, _OF_STATELESS)
            with torch.inference_mode(), attention_of(stream):
                ends = [prefill + 1 + int(place) for place in at]
                own = torch.cat([stream.prefill(ids[:, :end]).float() for end in ends])
        else:
            own = followed(stream, ids, prefill)
        found = agreement(oracle.logits, own, oracle.targets, at)
        where = "" if found.finite else first_non_finite(stream, ids, prefill)
        return found._asdict() | {"first_non_finite": where}

    def cost(self, decoder: TimedDecoder, bench: Bench) -> Cost:
        from kvpareto.engine.cost import step_cost

        stream: Any = decoder.stream
        computing = getattr(stream, "computing", stream.model)
        return step_cost(decoder, computing, self.attended(bench))

    def attended(self, bench: Bench) -> int:
        """Cached entries that a step reads."""
        return bench.cap


def engine_class(name: str) -> type[Engine]:
    """The class of `engines/<name>.py`.

    Raises:
        KeyError: there is no such file.
    """
    return method_class(PACKAGE, Engine, name)


def engine_of(name: str, parameters: dict[str, Any]) -> Engine:
    """The engine with its parameters.

    Raises:
        KeyError: there is no such engine.
        TypeError, ValueError: a parameter it does not have, or a value it cannot have.
    """
    return engine_class(name)(**parameters)


@cache
def _defaults(name: str) -> dict[str, Any]:
    return {key: field.default for key, field in hyper_parameters(engine_class(name)).items()}


def engine_name(name: str, parameters: dict[str, Any]) -> str:
    """The engine's name and every parameter that is not the default: `ring-compiled-fused`."""
    symbols, defaults = engine_class(name).symbols, _defaults(name)
    others = [(key, value) for key, value in parameters.items() if value != defaults[key]]
    return "-".join([name, *(f"{symbols.get(key, '')}{value}" for key, value in others)])
