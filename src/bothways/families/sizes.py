"""Networks whose weights were never published, by the sizes their papers print: GPT-3 and PaLM.

    >>> from bothways.families.sizes import GPT3, PALM
    >>> GPT3["6.7B"].shape.layers
    32

How each follows from its paper is written down in docs/families-derived.md.
"""

from __future__ import annotations

from bothways.model.config import FeedForward, Head, ModelConfig, Norm, Position, Shape


def gpt3(layers: int, width: int, heads: int, head_size: int) -> ModelConfig:
    """GPT-3 of any size: GPT-2's block, dense and banded layers in turn (arXiv 2005.14165, section 2.1).

    The band's width is not printed; 256 tokens is that of GPT-Neo, which was made after it.
    """
    return ModelConfig(
        Shape(50257, width, layers, 0, heads, head_size=None if heads * head_size == width else head_size,
              inner=4 * width),
        Position("learned", length=2048), Norm("layer", "before", 1e-5), FeedForward("plain", "gelu_tanh"),
        reach="GL", local=255, bias=True, tied=True)


def palm(layers: int, width: int, heads: int) -> ModelConfig:
    """PaLM of any size: parallel blocks, one key head, SwiGLU, no bias at all (arXiv 2204.02311, section 2).

    A head has 256 numbers and the feed-forward 4 times the width; scores over the shared table are divided by the
    root of the width (section 5).
    """
    return ModelConfig(
        Shape(256000, width, layers, 0, heads, key_heads=1, head_size=256, inner=4 * width),
        Position("rotary", length=2048), Norm("layer", "before", 1e-6, bias=False), FeedForward("gated", "silu"),
        head=Head(scale=width ** -0.5), parallel=True, bias=False, tied=True)


GPT3: dict[str, ModelConfig] = {
    "125M": gpt3(12, 768, 12, 64), "350M": gpt3(24, 1024, 16, 64), "760M": gpt3(24, 1536, 16, 96),
    "1.3B": gpt3(24, 2048, 16, 128), "2.7B": gpt3(32, 2560, 32, 80), "6.7B": gpt3(32, 4096, 32, 128),
    "13B": gpt3(40, 5140, 40, 128), "175B": gpt3(96, 12288, 96, 128)}
"""The eight of Table 2.1 (arXiv 2005.14165). Its 24 heads for 1.3B would make 1.5 billion parameters: 16 make 1.3."""

PALM: dict[str, ModelConfig] = {
    "8B": palm(32, 4096, 16), "62B": palm(64, 8192, 32), "540B": palm(118, 18432, 48)}
"""The three of Table 1 (arXiv 2204.02311)."""
