"""Needle in a haystack: facts hidden in ordinary text, one of them asked for at the end."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

_CONSONANTS = "bdfgklmnprstvz"
_VOWELS = "aeiou"


@dataclass(frozen=True)
class Episode:
    """Sentences to hide, then the question and the answer that one of them gives."""

    facts: tuple[str, ...]
    question: str
    answer: str


def invented_word(rng: np.random.Generator, syllables: int = 3) -> str:
    """A pronounceable word that no text contains, so that it can only be copied."""
    return "".join(
        _CONSONANTS[rng.integers(len(_CONSONANTS))] + _VOWELS[rng.integers(len(_VOWELS))]
        for _ in range(syllables)
    )


def code_episode(rng: np.random.Generator, facts: int) -> Episode:
    """`facts` sentences "The code for X is N." with distinct X; one of them is asked for."""
    names: list[str] = []
    while len(names) < facts:
        name = invented_word(rng)
        if name not in names:
            names.append(name)
    codes = ["".join(str(digit) for digit in rng.integers(0, 10, size=4)) for _ in names]
    asked = int(rng.integers(facts))
    return Episode(
        facts=tuple(
            f"The code for {name} is {code}.\n" for name, code in zip(names, codes, strict=True)
        ),
        question=f"\nQuestion: what is the code for {names[asked]}? Answer:",
        answer=f" {codes[asked]}.",
    )


def plant(
    haystack: list[int],
    facts: list[list[int]],
    rng: np.random.Generator,
    line_ends: frozenset[int],
) -> list[int]:
    """Insert every fact after a line end of `haystack` (or anywhere where there is none).

    Args:
        haystack: token ids of ordinary text.
        facts: token ids of each sentence.
        line_ends: ids of tokens that end a line.

    Returns:
        Token ids of length len(haystack) + sum of the facts' lengths.
    """
    places = [i + 1 for i, token in enumerate(haystack) if token in line_ends]
    if not places:
        places = list(range(len(haystack) + 1))
    chosen = sorted(int(place) for place in rng.choice(places, size=len(facts)))
    planted: list[int] = []
    start = 0
    for place, fact in zip(chosen, facts, strict=True):
        planted += haystack[start:place] + fact
        start = place
    return planted + haystack[start:]
