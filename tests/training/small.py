"""A corpus and a network so small that a step takes milliseconds."""

from __future__ import annotations

import random
from pathlib import Path

from bothways.model.config import ModelConfig, Position, Shape
from bothways.text.prepare import Prepared, prepare
from bothways.text.tokenizer import TokenizerConfig
from bothways.training import Record, TrainConfig

WORDS = [
    "the",
    "a",
    "cat",
    "dog",
    "bird",
    "sat",
    "saw",
    "ran",
    "on",
    "under",
    "mat",
    "tree",
    "house",
    "and",
    "then",
    "it",
    "was",
    "very",
    "old",
    "new",
]


def write_corpus(file: Path, documents: int = 60) -> Path:
    """Documents of some 400 characters, in paragraphs."""
    draw = random.Random(7)
    texts = [" ".join(draw.choice(WORDS) for _ in range(draw.randint(450, 700))) + "." for _ in range(documents)]
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text("\n\n".join(texts), encoding="utf-8")
    return file


def prepare_small(folder: Path) -> Prepared:
    """Bytes, in windows of 32."""
    return prepare(write_corpus(folder / "corpus.txt"), folder / "text", tokenizer=TokenizerConfig("bytes"), window=32)


def small_config(**changes: object) -> TrainConfig:
    """12 steps of 128 tokens; every step logged."""
    model = ModelConfig(shape=Shape(width=16, layers=2, heads=2), position=Position(length=64), dropout=0.1)
    record = Record(log_every=1, held_out_tokens=128, checkpoint_seconds=1e9)
    return TrainConfig(
        **{
            "model": model,
            "objective": "masked",
            "budget": "12 steps",
            "batch_tokens": 128,  # type: ignore[arg-type]
            "precision": "float32",
            "device": "cpu",
            "record": record,
            **changes,
        }
    )
