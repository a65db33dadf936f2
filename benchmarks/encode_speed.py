"""Vectors for 128 texts of very different lengths, at MiniLM's size: packed, beside padded and sorted batches.

    python benchmarks/encode_speed.py --rounds 7

Every contender has the same random weights (6 layers, 384 wide, 12 heads, 30,522 tokens) and gives each text the mean
of its states; before anything is timed, all vectors are compared with those of `transformers` in float32. The peers
pad: `transformers` in batches as the texts come, and sorted by length (the fastest of several batch sizes counts);
CTranslate2 sorted, where it is installed. Ours packs the texts into rows under a token budget.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import statistics
import tempfile
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

import numpy as np
import torch
import transformers
from torch import Tensor

import bothways
import peers
from bothways.evaluation.features import vectors
from bothways.visibility import bidirectional

TEXTS, SHORTEST, LONGEST, VOCABULARY = 128, 8, 256, 30_522
SIZES = {"vocab_size": VOCABULARY, "hidden_size": 384, "num_hidden_layers": 6, "num_attention_heads": 12,
         "intermediate_size": 1536, "max_position_embeddings": 512}
Encode = Callable[[list[np.ndarray]], np.ndarray]
"""All texts' ids to their vectors (n, D), in order."""


def texts(seed: int = 0) -> list[np.ndarray]:
    """Random ids of lengths from a long-tailed distribution, without special tokens."""
    rng = np.random.default_rng(seed)
    lengths = np.clip(rng.lognormal(np.log(28), 0.85, TEXTS).astype(int), SHORTEST, LONGEST)
    lengths[:2] = SHORTEST, LONGEST
    return [rng.integers(1000, VOCABULARY, length) for length in rng.permutation(lengths)]


def in_batches(encode: Callable[[list[np.ndarray]], np.ndarray], size: int, ordered: bool) -> Encode:
    """A padding encoder, `size` texts at a time: as they come, or sorted by length."""
    def run(several: list[np.ndarray]) -> np.ndarray:
        order = sorted(range(len(several)), key=lambda i: len(several[i])) if ordered else list(range(len(several)))
        found = np.concatenate([encode([several[i] for i in order[first:first + size]])
                                for first in range(0, len(order), size)])
        back = np.empty(len(order), dtype=int)
        back[order] = range(len(order))
        return found[back]
    return run


def padded(several: list[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """(n, longest) ids and the same in bool, True for real tokens."""
    real = np.arange(max(map(len, several))) < np.array([len(one) for one in several])[:, None]
    ids = np.zeros(real.shape, dtype=np.int64)
    ids[real] = np.concatenate(several)
    return ids, real


def mean(states: np.ndarray, real: np.ndarray) -> np.ndarray:
    """(n, L, D) states to (n, D) over real tokens."""
    return (states * real[..., None]).sum(1) / real.sum(1, keepdims=True)


def ours(folder: Path, dtype: torch.dtype, tokens: int) -> Encode:
    trained = bothways.from_pretrained(folder, dtype=dtype).trained
    return lambda several: np.stack(list(vectors(trained, several, bidirectional, tokens=tokens)))


def published(folder: Path, dtype: torch.dtype, attention: str) -> Callable[[list[np.ndarray]], np.ndarray]:
    network = transformers.BertModel.from_pretrained(folder, dtype=dtype, attn_implementation=attention,
                                                     add_pooling_layer=False).eval()

    @torch.inference_mode()
    def encode(several: list[np.ndarray]) -> np.ndarray:
        ids, real = map(torch.from_numpy, padded(several))
        states: Tensor = network(input_ids=ids, attention_mask=real.long()).last_hidden_state
        return ((states * real[..., None]).float().sum(1) / real.sum(1, keepdim=True)).numpy()
    return encode


def ctranslate(folder: Path, precision: str, threads: int) -> Callable[[list[np.ndarray]], np.ndarray]:
    import ctranslate2

    out = folder / f"ctranslate2-{precision}"
    ctranslate2.converters.TransformersConverter(str(folder)).convert(str(out), quantization=precision)
    encoder = ctranslate2.Encoder(str(out), compute_type=precision, intra_threads=threads)

    def encode(several: list[np.ndarray]) -> np.ndarray:
        states = np.array(encoder.forward_batch([one.tolist() for one in several]).last_hidden_state)
        return mean(states.astype(np.float32), padded(several)[1])
    return encode


def saved(folder: Path) -> None:
    """A BERT of this size with random weights and a tokenizer's files (ids are given, nothing is tokenized)."""
    torch.manual_seed(0)
    # CTranslate2 asks for an entry that the class no longer writes
    config = transformers.BertConfig(**SIZES, position_embedding_type="absolute")
    network = transformers.BertModel(config, add_pooling_layer=False)
    network.save_pretrained(folder)
    words = ["[PAD]", *(f"[unused{i}]" for i in range(99)), "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    words += [f"word{i}" for i in range(VOCABULARY - len(words))]
    (folder / "vocab.txt").write_text("\n".join(words) + "\n", encoding="utf-8")
    transformers.BertTokenizerFast(vocab={word: i for i, word in enumerate(words)}).save_pretrained(folder)


def contenders(folder: Path, threads: int, tokens: int) -> dict[str, Encode]:
    """Everybody by name; a peer that is not installed is left out."""
    found: dict[str, Encode] = {}
    for precision in ("float32", "bfloat16"):
        dtype = getattr(torch, precision)
        found[f"bothways packed, {precision}"] = ours(folder, dtype, tokens)
        for attention in ("sdpa", "eager"):
            encode = published(folder, dtype, attention)
            name = f"transformers, {precision}"
            found |= {f"{name}, sorted, {size} at a time, {attention}": in_batches(encode, size, True)
                      for size in (4, 8, 16)}
            found[f"{name}, as they come, 32 at a time, {attention}"] = in_batches(encode, 32, False)
    if importlib.util.find_spec("ctranslate2") is None:
        print("ctranslate2 is not installed: left out")
        return found
    for precision in ("float32", "int8"):
        encode = ctranslate(folder, precision, threads)
        found |= {f"ctranslate2, {precision}, sorted, {size} at a time": in_batches(encode, size, True)
                  for size in (4, 8, 16)}
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--tokens", type=int, default=2048, help="tokens in one of our rows")
    parser.add_argument("--only", default="", help="those whose names hold one of these words: int8,bfloat16")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    several = texts()
    real = sum(map(len, several))
    print(f"{TEXTS} texts of {min(map(len, several))} to {max(map(len, several))} tokens, {real} in all")
    print(*(f"{name}: {value}" for name, value in peers.hardware().items()), sep="; ")
    with tempfile.TemporaryDirectory() as made:
        folder = Path(made)
        saved(folder)
        transformers.utils.logging.set_verbosity_error()
        transformers.utils.logging.disable_progress_bar()
        everybody = contenders(folder, arguments.threads, arguments.tokens)
        wanted = [word for word in arguments.only.split(",") if word]
        chosen = {name: encode for name, encode in everybody.items() if not wanted or any(w in name for w in wanted)}
        # 1. the same work: vectors against those of the class in float32
        exact = in_batches(published(folder, torch.float32, "eager"), 8, True)(several)
        far = {name: float(np.linalg.norm(encode(several) - exact) / np.linalg.norm(exact))
               for name, encode in chosen.items()}
        wrong = [name for name in far if not far[name] < (1e-4 if "float32" in name else 0.2)]
        assert not wrong, f"{wrong[0]} is {far[wrong[0]]:.2g} off"
        # 2. time
        seconds = peers.interleave({name: lambda encode=encode: encode(several) for name, encode in chosen.items()},
                                   arguments.rounds, warm=1, per_round=1)
    # 3. the fastest setting of each peer stands for it
    best = quickest(seconds)
    rates = {name: TEXTS / statistics.median(seconds[name]) for name in seconds}
    print(*peers.table([(name, f"{rates[name]:.0f}", f"{far[name]:.1g}") for name in best],
                       ("", "texts per second", "relative distance to float32")), sep="\n")
    pairs = {f"{one} / {other}": peers.ratio(seconds[other], seconds[one]) for one in best if "bothways" in one
             for other in best if "bothways" not in other}
    print(*(f"{name}: {ratio}" for name, ratio in pairs.items()), sep="\n")
    if not wanted:
        print("written to", peers.save("encode_speed", {
            "texts": TEXTS, "tokens": real, "row": arguments.tokens, "texts_per_second": rates, "distance": far,
            "ratios": {name: asdict(ratio) for name, ratio in pairs.items()}, "seconds": seconds}))
    else:
        print(json.dumps({name: round(rate) for name, rate in rates.items()}))


def quickest(seconds: dict[str, list[float]]) -> list[str]:
    """Of the settings of one library, precision and order, the one with the smallest median."""
    kinds: dict[str, str] = {}
    for name in seconds:
        kind = ", ".join(name.split(", ")[:3])
        if kind not in kinds or statistics.median(seconds[name]) < statistics.median(seconds[kinds[kind]]):
            kinds[kind] = name
    return list(kinds.values())


if __name__ == "__main__":
    main()
