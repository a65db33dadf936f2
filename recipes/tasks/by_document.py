"""Rows of two recipes whose data is one file, parted by document so that no contract or website stands on both sides.

    python recipes/tasks/by_document.py DATA

Reads contracts/cuad_30.jsonl.gz and qa/policyqa_train.jsonl.gz of the folder DATA, and writes beside where it is
called (or to --out) cuad_train.jsonl, cuad_test.jsonl, policyqa_train.jsonl and policyqa_test.jsonl.

CUAD asks for spans in whole contracts. A reader would have to look for each of 41 types in contracts of up to 10,000
words, some hundred windows a contract, which is hours on two cores. So a contract is cut into passages, and the
question is which clauses each holds: several labels a text, or none. That also finds the place, to within a passage.
"""

from __future__ import annotations

import argparse
import gzip
import json
import random
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

LONGEST = 120
"""Words of a passage, at most, where its sentences allow it."""
CONTRACTS = 10
"""Contracts in which a type must be marked to be asked for: rarer ones would be missing on one side."""
WORDS = 4
"""Words of a passage, at least: shorter ones are numbers of pages and the like."""
SHARE = 0.25
"""Documents that are the test."""


def passages(text: str) -> list[tuple[int, int]]:
    """The characters [start, end) of paragraphs, long ones cut between sentences."""
    found = []
    for paragraph in re.finditer(r"\S(?:.|\n(?!\s*\n))*", text):
        start = end = paragraph.start()
        for sentence in re.finditer(r".+?(?:[.;:]\s+|$)", paragraph[0], flags=re.DOTALL):
            stop = paragraph.start() + sentence.end()
            if end > start and len(text[start:stop].split()) > LONGEST:
                found.append((start, end))
                start = end
            end = stop
        found.append((start, end))
    return [(start, end) for start, end in found if len(text[start:end].split()) >= WORDS]


def clauses(contracts: Sequence[Mapping[str, Any]]) -> dict[str, list[dict[str, Any]]]:
    """Contract -> its passages, each with the types of clause that are marked in it."""
    placed = {row["contract"]: [(kind, span["start"], span["end"]) for kind, spans in row["spans"].items()
                                for span in spans if span["start"] is not None] for row in contracts}
    counts = Counter(kind for spans in placed.values() for kind in {kind for kind, _, _ in spans})
    asked = {kind for kind, number in counts.items() if number >= CONTRACTS}
    found = {}
    for row in contracts:
        marked = [span for span in placed[row["contract"]] if span[0] in asked]
        found[row["contract"]] = [
            {"text": " ".join(row["text"][start:end].split()),
             "labels": sorted({kind for kind, first, last in marked if first < end and start < last})}
            for start, end in passages(row["text"])]
    return found


def parted(documents: Mapping[str, Sequence[Any]], seed: int = 0) -> tuple[list[Any], list[Any]]:
    """(train, test) rows: whole documents, a seeded quarter of them the test; what a contract of the training part says
    word for word too (such as a running title) is no row of the test."""
    names = sorted(documents)
    random.Random(seed).shuffle(names)
    tested = set(names[:round(SHARE * len(names))])
    train, test = ([row for name in sorted(documents) if (name in tested) == part for row in documents[name]]
                   for part in (False, True))
    known = [{key: row[key] for key in row if key in ("text", "context", "question")} for row in train]
    return train, [row for row in test if {key: row[key] for key in known[0]} not in known]


def main() -> None:
    """Read, part, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("--out", type=Path, default=Path())
    given = parser.parse_args()
    given.out.mkdir(parents=True, exist_ok=True)
    websites: dict[str, list[Any]] = {}
    for row in _rows(given.data / "qa" / "policyqa_train.jsonl.gz"):
        websites.setdefault(row["title"], []).append(row)
    contracts = list(_rows(given.data / "contracts" / "cuad_30.jsonl.gz"))
    for name, documents in (("cuad", clauses(contracts)), ("policyqa", websites)):
        for part, rows in zip(("train", "test"), parted(documents), strict=True):
            lines = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
            (given.out / f"{name}_{part}.jsonl").write_text(lines, encoding="utf-8")
            print(f"{name}_{part}.jsonl: {len(rows)} rows")


def _rows(file: Path) -> Iterable[dict[str, Any]]:
    with gzip.open(file, "rt", encoding="utf-8") as lines:
        yield from map(json.loads, lines)


if __name__ == "__main__":
    main()
