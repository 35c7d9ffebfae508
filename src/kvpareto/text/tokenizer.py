"""The byte-level BPE tokenizer of the reference models."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import PreTrainedTokenizerFast

BOS = "<|bos|>"
EOS = "<|eos|>"
"""Starts every window, and ends every document: two tokens, because a model that sees one token in
both places cannot learn to rest its idle heads on the first position."""


def train_tokenizer(texts: Iterable[str], vocab_size: int) -> Tokenizer:
    """Byte-level BPE with single digits, so that numbers can be copied digit by digit.

    Deterministic: equal texts in equal order give an equal tokenizer.
    """
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Digits(individual_digits=True),
            pre_tokenizers.ByteLevel(add_prefix_space=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        special_tokens=[BOS, EOS],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    return tokenizer


def save_pretrained(tokenizer: Tokenizer, folder: str | Path) -> None:
    """Write `tokenizer` so that `AutoTokenizer.from_pretrained(folder)` reads it.

    The saved one puts BOS in front of a text by itself, as Llama's does.
    """
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{BOS} $A", special_tokens=[(BOS, tokenizer.token_to_id(BOS))]
    )
    PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, bos_token=BOS, eos_token=EOS, clean_up_tokenization_spaces=False
    ).save_pretrained(str(folder))


def structural_tokens(tokenizer: Any, vocab_size: int) -> torch.Tensor:
    """Which tokens end a line, a sentence or a quotation: [vocab_size], bool.

    Args:
        tokenizer: of transformers.
        vocab_size: of the model, which may have room for more tokens than the tokenizer knows.
    """
    known = min(vocab_size, len(tokenizer))
    texts = tokenizer.batch_decode([[token] for token in range(known)])
    ends = [
        "\n" in text or text.rstrip(" ").endswith((".", '"', "'", "\u201d", "\u3002"))
        for text in texts
    ]
    return torch.tensor(ends + [False] * (vocab_size - known))
