"""What a policy does to the cache's length, without a model: simulated in milliseconds."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

import numpy as np

from kvpareto.eviction.policy import Clock, EvictionPolicy


@dataclass(frozen=True)
class Trajectory:
    """Lengths of one layer's cache over a stream; one element per decoded token.

    Attributes:
        attended: [steps], entries attended by the token, itself included.
        dropped: [steps], entries evicted after it.
    """

    attended: np.ndarray
    dropped: np.ndarray

    @property
    def kept(self) -> np.ndarray:
        """[steps], entries left after the step."""
        kept: np.ndarray = self.attended - self.dropped
        return kept

    @property
    def drops(self) -> np.ndarray:
        """[prunes], entries evicted by each prune."""
        drops: np.ndarray = self.dropped[self.dropped > 0]
        return drops

    @property
    def post_prune(self) -> int:
        """Most entries left by a prune; the final length when none happens."""
        pruned = self.dropped > 0
        return int(self.kept[pruned].max() if pruned.any() else self.kept[-1])

    @property
    def mean_attended(self) -> float:
        return float(self.attended.mean())

    @property
    def peak_attended(self) -> int:
        return int(self.attended.max())

    @property
    def digest(self) -> str:
        """Equal for equal sequences of lengths."""
        lengths = np.stack([self.attended, self.dropped]).astype(np.int64)
        return hashlib.sha256(lengths.tobytes()).hexdigest()[:16]


def simulate(policy: EvictionPolicy, prefill: int, steps: int) -> Trajectory:
    """Run `steps` tokens through `policy`, starting from `prefill` entries.

    Raises:
        ValueError: the policy asks to evict sinks, the newest entry, or more than there is.
    """
    attended = np.empty(steps, dtype=np.int64)
    dropped = np.empty(steps, dtype=np.int64)
    length, since_prune = prefill, 0
    for step in range(steps):
        length += 1
        since_prune += 1
        drop = policy.drop(Clock(step + 1, length, since_prune))
        if not 0 <= drop <= max(0, length - policy.sinks - 1):
            raise ValueError(
                f"{type(policy).__name__} wants to evict {drop} of {length} entries at step "
                f"{step + 1}, with {policy.sinks} sinks and the newest entry to be kept"
            )
        attended[step], dropped[step] = length, drop
        length -= drop
        since_prune = 0 if drop else since_prune
    return Trajectory(attended, dropped)
