"""A stream without a model: a policy decides over tokens whose attention, keys and marks are drawn.

What a policy may read belongs to tokens here, not to entries, so that a reference can be written as
a plain loop over the tokens that are held.
"""

from __future__ import annotations

from dataclasses import dataclass, fields, replace

import torch

from kvpareto.eviction.policy import Clock, Entries, EvictionPolicy

ROWS, HEADS, GROUP, LAYERS, DIM = 2, 2, 2, 2, 4


@dataclass(frozen=True)
class Signals:
    """What there is to read in one layer, float64.

    Attributes:
        affinity: [rows, heads, group, tokens, tokens], logit of a query's token for a key's token.
        keys: [rows, heads, tokens, dim].
        structural: [rows, tokens].
        uncertainty: [rows, tokens].
        entropies: one for each token.
    """

    affinity: torch.Tensor
    keys: torch.Tensor
    structural: torch.Tensor
    uncertainty: torch.Tensor
    entropies: list[float]

    @property
    def tokens(self) -> int:
        return self.keys.shape[2]

    def with_row(self, row: int, other: Signals) -> Signals:
        """These signals with one row from `other`."""
        changed = {}
        for field in fields(self):
            mine = getattr(self, field.name)
            if isinstance(mine, torch.Tensor):
                changed[field.name] = mine.clone()
                changed[field.name][row] = getattr(other, field.name)[row]
        return replace(self, **changed)

    def attention(self, queries: torch.Tensor, held: torch.Tensor) -> torch.Tensor:
        """Probabilities of `queries` over the tokens `held` [rows, heads, n], of none after it."""
        rows, heads, length = held.shape
        index = held[:, :, None, None].expand(-1, -1, self.affinity.shape[2], len(queries), -1)
        logits = self.affinity[:, :, :, queries].gather(-1, index)
        hidden = (held[:, :, None] > queries[:, None]).reshape(rows, heads, 1, -1, length)
        return logits.masked_fill(hidden, float("-inf")).softmax(-1)


def signals(seed: int, tokens: int) -> Signals:
    """Random ones; some attention is strong and most is weak, as in a model."""
    draw = torch.Generator().manual_seed(seed)

    def normal(*shape: int) -> torch.Tensor:
        return torch.randn(shape, generator=draw, dtype=torch.float64)

    return Signals(
        2 * normal(ROWS, HEADS, GROUP, tokens, tokens),
        normal(ROWS, HEADS, tokens, DIM),
        normal(ROWS, tokens) > 0.5,
        normal(ROWS, tokens).abs(),
        normal(tokens).abs().tolist(),
    )


class Driver:
    """One layer of a stream under a policy, one row of records per entry."""

    def __init__(self, policy: EvictionPolicy, seen: Signals, layer: int = 0) -> None:
        self.policy, self.seen, self.layer = policy, seen, layer
        self.held = torch.empty(ROWS, HEADS, 0, dtype=torch.int64)
        self.memory: torch.Tensor | None = None
        self.token = self.step = self.since_prune = 0

    def prefill(self, tokens: int) -> None:
        """The first tokens, in one forward pass."""
        if tokens:
            self._append(tokens)

    def decode(self) -> torch.Tensor:
        """One token; what is held after it, [rows, heads, kept], as tokens.

        Raises:
            AssertionError: the policy's answer is none that it may give.
        """
        self._append(1)
        length = self.held.shape[-1]
        self.step += 1
        self.since_prune += 1
        entropies = self.seen.entropies[: self.token] if self.policy.reads == "entropy" else ()
        drop = self.policy.drop(Clock(self.step, length, self.since_prune, entropies))
        assert 0 <= drop < length
        if drop:
            self.since_prune = 0
            self._evict(drop)
        return self.held

    def _append(self, new: int) -> None:
        fresh = torch.arange(self.token, self.token + new)
        self.token += new
        self.held = torch.cat([self.held, fresh.expand(ROWS, HEADS, -1)], dim=-1)
        if self.policy.reads == "attention":
            memory = self.memory
            if memory is not None:
                memory = torch.cat([memory, memory.new_zeros(*memory.shape[:-1], new)], dim=-1)
            self.memory = self.policy.remember(memory, self.seen.attention(fresh, self.held))

    def _evict(self, drop: int) -> None:
        length = self.held.shape[-1]
        entries = Entries(length, ROWS, HEADS, self.layer, self.step, **self._readings())
        keep = self.policy.keep(entries, drop)
        assert keep.dtype == torch.int64
        assert keep.shape in {(length - drop,), (ROWS, HEADS, length - drop)}
        ordered = keep if self.policy.in_order else keep.sort(dim=-1).values
        assert (ordered[..., 1:] > ordered[..., :-1]).all()
        assert (ordered >= 0).all()
        assert (ordered < length).all()
        keep = keep.expand(ROWS, HEADS, -1)
        self.held = self.held.gather(-1, keep)
        if self.memory is not None:
            memory = self.memory.expand(-1, HEADS, -1, -1)
            index = keep[:, :, None].expand(-1, -1, memory.shape[2], -1)
            self.memory = memory.gather(-1, index)

    def _readings(self) -> dict[str, torch.Tensor | None]:
        held, seen = self.held, self.seen
        match self.policy.reads:
            case "attention":
                return {"memory": self.memory}
            case "queries":
                newest = torch.arange(max(0, self.token - self.policy.observed), self.token)
                return {"attention": seen.attention(newest, held)}
            case "keys":
                index = held[..., None].expand(-1, -1, -1, DIM)
                return {"keys": seen.keys.gather(2, index)}
            case "structure":
                return {
                    "structural": seen.structural[:, None].expand(-1, HEADS, -1).gather(2, held)
                }
            case "uncertainty":
                marks = seen.uncertainty[:, None].expand(-1, HEADS, -1)
                return {"uncertainty": marks.gather(2, held)}
        return {}


def decided(
    policy: EvictionPolicy, seen: Signals, prefill: int = 0, layer: int = 0
) -> list[torch.Tensor]:
    """The tokens that a layer holds after each decoded token, [rows, heads, kept] each."""
    driver = Driver(policy, seen, layer)
    driver.prefill(prefill)
    return [driver.decode() for _ in range(seen.tokens - prefill)]


def lengths(after: list[torch.Tensor], prefill: int) -> tuple[list[int], list[int]]:
    """Entries attended by each token, and entries left after it."""
    kept = [held.shape[-1] for held in after]
    return [length + 1 for length in [prefill, *kept[:-1]]], kept


def prunes(attended: list[int], kept: list[int]) -> list[int]:
    """Steps that evicted."""
    return [step for step, (a, k) in enumerate(zip(attended, kept, strict=True)) if k < a]
