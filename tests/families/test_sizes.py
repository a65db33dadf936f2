"""The sizes of networks without weights are those their papers print."""

from __future__ import annotations

import pytest

from bothways.families.sizes import GPT3, PALM
from bothways.model.cost import parameters

PRINTED = {"125M": (125, 12, 768, 64), "350M": (350, 24, 1024, 64), "760M": (760, 24, 1536, 96),
           "1.3B": (1300, 24, 2048, 128), "2.7B": (2700, 32, 2560, 80), "6.7B": (6700, 32, 4096, 128),
           "13B": (13000, 40, 5140, 128), "175B": (175000, 96, 12288, 128)}
"""Table 2.1 of arXiv 2005.14165: million parameters, layers, width, head size."""


def test_table_2_1_of_gpt3() -> None:
    assert list(GPT3) == list(PRINTED)
    for name, (millions, layers, width, head_size) in PRINTED.items():
        config = GPT3[name]
        assert (config.shape.layers, config.shape.width, config.head_size) == (layers, width, head_size)
        # printed with two or three digits
        assert parameters(config)["total"] / 1e6 == pytest.approx(millions, rel=0.025), name


def test_table_1_of_palm() -> None:
    for name, billions in {"8B": 8.63, "62B": 62.50, "540B": 540.35}.items():
        assert parameters(PALM[name])["total"] / 1e9 == pytest.approx(billions, abs=0.01)
