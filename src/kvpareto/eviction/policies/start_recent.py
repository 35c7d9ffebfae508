from __future__ import annotations

from dataclasses import dataclass

from kvpareto.eviction.policy import Clock, EvictionPolicy


@dataclass(frozen=True)
class StartRecent(EvictionPolicy):
    """Keep the first S and the last W tokens, pruning after every token: strict StreamingLLM.

    Source: Xiao et al., Efficient Streaming Language Models with Attention Sinks,
    https://arxiv.org/abs/2309.17453.
    """

    def drop(self, clock: Clock) -> int:
        return max(0, clock.length - self.capacity)
