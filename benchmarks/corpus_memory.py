"""How much memory does it take to prepare a large text file? Writes one, prepares it, prints the peak.

    python -m benchmarks.corpus_memory --gigabytes 2

The file and what is made of it lie in a temporary folder (about 1.6 times the file) and are deleted at the end.
"""

from __future__ import annotations

import argparse
import json
import resource
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

from bothways.text.prepare import prepare
from bothways.text.tokenizer import TokenizerConfig

LIMIT = 1.5


def write_text(path: Path, size: int, seed: int = 0) -> None:
    """About `size` bytes of made-up words with the frequencies of words (Zipf), in paragraphs; a tenth repeat."""
    rng = np.random.default_rng(seed)
    letters = np.array(list("etaoinshrdlucmfwypvbgk"))
    words = np.array(["".join(rng.choice(letters, rng.integers(2, 10))) for _ in range(50_000)])
    written, last = 0, ""
    with path.open("w", encoding="ascii") as stream:
        while written < size:
            numbers = np.minimum(rng.zipf(1.2, 200_000), len(words)) - 1
            block = " ".join(words[numbers].tolist())
            paragraphs = [block[start:start + 2_500] for start in range(0, len(block), 2_500)]
            if last:
                paragraphs += [last] * (len(paragraphs) // 10)
            last = paragraphs[0]
            text = "\n\n".join(paragraphs) + "\n\n"
            stream.write(text)
            written += len(text)


def peak_gigabytes() -> float:
    """The most memory this process has had in use."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024) / 1e9


def main() -> int:
    """Print one JSON line; 1 when the peak passes the limit."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--gigabytes", type=float, default=2.0)
    parser.add_argument("--vocabulary", type=int, default=4096)
    parser.add_argument("--folder", help="where to put the temporary folder")
    choices = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=choices.folder) as folder:
        text = Path(folder) / "corpus.txt"
        write_text(text, int(choices.gigabytes * 1e9))
        before, begun = peak_gigabytes(), time.perf_counter()
        prepared = prepare(text, Path(folder) / "prepared", tokenizer=TokenizerConfig("bpe", choices.vocabulary))
        seconds, size = time.perf_counter() - begun, text.stat().st_size
        report = {"file_gigabytes": round(size / 1e9, 3), "peak_gigabytes": round(peak_gigabytes(), 3),
                  "before_gigabytes": round(before, 3), "limit_gigabytes": LIMIT, "seconds": round(seconds, 1),
                  "megabytes_per_second": round(size / 1e6 / seconds, 2), "tokens": prepared.report["tokens"],
                  "documents": prepared.report["documents"],
                  "duplicates_removed": prepared.report["duplicates_removed"]}
    print(json.dumps(report))
    return int(peak_gigabytes() > LIMIT)


if __name__ == "__main__":
    sys.exit(main())
