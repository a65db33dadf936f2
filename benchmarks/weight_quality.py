"""What weights of fewer bits cost a trained model: its likelihood of held-out text, beside the same weights in full.

    python benchmarks/weight_quality.py models/smollm2

The first tokens of texts from $BOTHWAYS_DATA are scored by the same model read in each way (`from_pretrained(folder,
weights=...)`); the difference is paired by text, with a 95 % bootstrap interval over texts. One token in front of each
text is read and not scored. All ways but float32 are approximations: nothing below zero is a gain to count on.
"""

from __future__ import annotations

import argparse
import gzip
import math
import os
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch

import bothways
import peers
from bothways.model.compact import BITS

WAYS = ("float32", "bfloat16", *BITS)


def texts_of(file: Path, count: int, seed: int = 0) -> list[str]:
    """So many paragraphs, drawn from the whole file."""
    content = gzip.decompress(file.read_bytes()) if file.suffix == ".gz" else file.read_bytes()
    paragraphs = [one.strip() for one in content.decode("utf-8").split("\n") if len(one.strip()) > 400]
    chosen = np.random.default_rng(seed).permutation(len(paragraphs))[:count]
    return [paragraphs[i] for i in sorted(chosen)]


def nats(model: bothways.Model, rows: Sequence[torch.Tensor]) -> tuple[np.ndarray, np.ndarray]:
    """Of each text: what its tokens cost but the first, and how many of them the model would have guessed."""
    costs, hits = [], []
    for row in rows:
        (logits,) = model.logits_of_each([row])
        scores = logits[:-1].float()
        costs.append(float((scores.logsumexp(-1) - scores.gather(-1, row[1:, None]).squeeze(-1)).sum()))
        hits.append(int((scores.argmax(-1) == row[1:]).sum()))
    return np.array(costs), np.array(hits)


def interval(differences: np.ndarray, weights: np.ndarray, resamples: int = 2000) -> tuple[float, float, float]:
    """sum(differences) / sum(weights) with a 95 % bootstrap interval over texts."""
    drawn = np.random.default_rng(0).integers(0, len(differences), (resamples, len(differences)))
    low, high = np.quantile(differences[drawn].sum(1) / weights[drawn].sum(1), (0.025, 0.975))
    return float(differences.sum() / weights.sum()), float(low), float(high)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="a model that writes from left to right")
    parser.add_argument("--text", type=Path, help="$BOTHWAYS_DATA/data/lm/openstax_valid.txt.gz when none")
    parser.add_argument("--texts", type=int, default=100)
    parser.add_argument("--tokens", type=int, default=96, help="of each text")
    parser.add_argument("--ways", nargs="+", choices=WAYS, default=list(WAYS))
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--no-save", action="store_true", help="print only")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    data = Path(os.environ.get("BOTHWAYS_DATA", ""))
    file = arguments.text or next((one for one in (data / "data/lm/openstax_valid.txt.gz",
                                                   data / "lm/openstax_valid.txt.gz") if one.is_file()), None)
    if file is None:
        parser.error("name a text (--text), or the folder of the data in BOTHWAYS_DATA")
    # 1. the same tokens for everybody
    model = bothways.from_pretrained(arguments.folder, weights="float32")
    rows = [torch.tensor(model.tokenizer.encode(text)[:arguments.tokens]) for text in texts_of(file, arguments.texts)]
    sizes = np.array([len(model.tokenizer.decode(row[1:].tolist()).encode()) for row in rows])
    scored = np.array([len(row) - 1 for row in rows])
    # 2. each way in turn
    found: dict[str, tuple[np.ndarray, np.ndarray]] = {}
    lines, kept = [], {}
    for way in dict.fromkeys(("float32", *arguments.ways)):
        model = model if way == "float32" else bothways.from_pretrained(arguments.folder, weights=way)
        begun = time.perf_counter()
        found[way] = nats(model, rows)
        taken = time.perf_counter() - begun
        costs, hits = found[way]
        more = interval(costs - found["float32"][0], scored)
        held = sum(part.numel() * part.element_size() for part in (*model.trained.network.parameters(),
                                                                    *model.trained.network.buffers())) / 2**20
        bits = costs.sum() / math.log(2) / sizes.sum()
        lines.append((way, f"{held:,.0f}", f"{costs.sum() / scored.sum():.4f}", f"{bits:.4f}",
                      "–" if way == "float32" else f"{more[0]:+.4f} [{more[1]:+.4f}, {more[2]:+.4f}]",
                      f"{hits.sum() / scored.sum():.1%}"))
        kept[way] = {"mebibytes": held, "nats_per_token": float(costs.sum() / scored.sum()),
                     "bits_per_byte": float(bits), "more_nats_per_token": more,
                     "guessed": float(hits.sum() / scored.sum()), "seconds": taken}
    # 3. what came of it
    print(f"{len(rows)} texts of at most {arguments.tokens} tokens, {scored.sum():,} tokens scored")
    print(*peers.table(lines, ("weights", "MiB", "nats per token", "bits per byte", "more nats per token than float32",
                               "tokens guessed")), sep="\n")
    if not arguments.no_save:
        print("written to", peers.save("weight_quality", {"model": arguments.folder.name, "texts": len(rows),
                                                          "tokens": int(scored.sum()), "ways": kept}))


if __name__ == "__main__":
    main()
