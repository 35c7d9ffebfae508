"""How many operations a prefill takes, from shapes: what its time is held against.

Counted are the multiplications of the linear layers and of attention, twice each (multiply and
add), as they are executed: a causal kernel skips half of a square, a scattered mask skips nothing.
"""

from __future__ import annotations

from dataclasses import dataclass

from kvpareto.models.families import Blocks, head_dim


@dataclass(frozen=True)
class Shape:
    """What the count depends on.

    Attributes:
        projection: weights of a layer's query, key and value projections.
        rest: all its other weights.
        width: heads * head_dim.
        output: weights of the output layer.
    """

    layers: int
    projection: int
    rest: int
    width: int
    output: int


def shape_of(blocks: Blocks) -> Shape:
    """The shape of a loaded model."""
    projection, rest = blocks.layer_weights
    config = blocks.model.config
    return Shape(
        layers=blocks.layers,
        projection=projection,
        rest=rest,
        width=config.num_attention_heads * head_dim(blocks.model),
        output=config.vocab_size * config.hidden_size,
    )


def full_prefill(shape: Shape, tokens: int) -> int:
    """Operations of a full prefill of `tokens`; the output layer sees the last one only."""
    weights = shape.layers * (shape.projection + shape.rest) * tokens
    attention = shape.layers * tokens * tokens * shape.width
    return 2 * (weights + attention + shape.output)


def fused_prefill(shape: Shape, tokens: int, rows: int, check_layer: int) -> int:
    """Operations of a fusion forward that computes `rows` tokens from the check layer on."""
    below = Shape(check_layer, shape.projection, shape.rest, shape.width, 0)
    # In the check layer all tokens are projected, and only the rows go on.
    projected = shape.projection * (tokens + (shape.layers - check_layer - 1) * rows)
    later = shape.layers - check_layer
    attention = 2 * rows * tokens * shape.width * later
    above = 2 * (projected + later * shape.rest * rows + attention + shape.output)
    return full_prefill(below, tokens) + above
