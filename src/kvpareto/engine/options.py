"""What a decode engine can be composed of: the values that its parameters can have."""

from __future__ import annotations

from typing import Literal

Run = Literal["eager", "compiled", "graph"]
"""How a step is executed: call by call, compiled as one graph, or replayed as a CUDA graph."""

Kernel = Literal["auto", "math", "flash", "efficient"]
"""Of attention; `auto` lets torch choose."""

Quantised = Literal["none", "int8", "int8_dynamic", "int4"]
"""`int8`: weights only. `int8_dynamic`: activations too, token by token, and integer products.
`int4`: weights only, in groups, dequantised before the product."""

Scope = Literal["all", "mlp"]
"""Every matrix, the output layer's included, or those of the MLPs."""
