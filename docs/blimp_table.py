"""Minimal pairs by several networks, in every visibility and by every rule each supports, as Markdown.

    python docs/blimp_table.py runs/causal/model runs/masked/model --pairs blimp.jsonl.gz --keep pairs.json

Names are those of the folders (of the run, where the folder is its `model`). `--limit` takes so many pairs, spread
evenly over the file; what has been measured is kept in `--keep` and not measured again.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import numpy as np
import torch

from bothways.evaluation.pairs import LEVELS, minimal_pairs
from bothways.evaluation.questions import spread
from bothways.evaluation.score import Score
from bothways.families.folder import load
from bothways.text.pairs import read_pairs

RULES = ("nll", "pll-word-l2r", "pll", "difference", "bound", "word-blanks")


def name_of(folder: Path) -> str:
    return folder.parent.name if folder.name == "model" else folder.name


def measured(folder: Path, path: Path, limit: int, samples: int, rules: tuple[str, ...],
             kept: dict[str, list[dict[str, object]]], keep: Path | None) -> list[Score]:
    """The scores of one network: read where they are kept, else measured and kept."""
    key = f"{name_of(folder)}, {limit or 'all'} pairs, {' '.join(rules)}"
    if key not in kept:
        pairs = read_pairs(path)
        some = [pairs[place] for place in spread(len(pairs), limit or len(pairs))]
        found = minimal_pairs(load(folder), some, rules=rules, samples=samples, parts=True, off_mode=True)
        kept[key] = [score.to_dict() for score in found]
        if keep is not None:
            keep.write_text(json.dumps(kept))
    return [Score.from_dict(one) for one in kept[key]]


def cell(score: Score | None) -> str:
    """Percent, with its interval."""
    if score is None:
        return ""
    low, high = score.interval()
    return f"{100 * score.value:.1f} ({100 * low:.1f} to {100 * high:.1f})"


def table(header: list[str], rows: list[list[str]]) -> str:
    lines = ["| " + " | ".join(header) + " |", "|" + " --- |" * len(header)]
    return "\n".join([*lines, *("| " + " | ".join(row) + " |" for row in rows)])


def page(networks: dict[str, list[Score]]) -> str:
    """Every rule overall and by pieces of the critical word; one rule a visibility by phenomenon, and pair by pair."""
    pieces = [f"minimal pairs, critical word of {level}" for level in LEVELS]
    rows, chosen = [], {}
    for name, scores in networks.items():
        whole = [score for score in scores if score.name == "minimal pairs"]
        for score in whole:
            part = {one.name: one for one in scores if (one.mode, one.estimator) == (score.mode, score.estimator)}
            rows.append([name, score.mode, score.estimator, cell(score), *(cell(part.get(one)) for one in pieces)])
            # plain PLL and differing words are other rules for the same visibility
            if score.estimator.startswith(("NLL", "PLL-word-l2r", "upper bound", "word blanks")):
                chosen[f"{name}, {score.mode}, {score.estimator.split(',')[0]}"] = part
    sizes = {one: score.n for part in chosen.values() for one, score in part.items()}
    total = sizes.get("minimal pairs", 0)
    first = table(["network", "called", "rule", f"all ({total})",
                   *(f"{level} ({sizes.get(one, 0)})" for level, one in zip(LEVELS, pieces, strict=True))], rows)
    phenomena = sorted({one for part in chosen.values() for one in part} - {"minimal pairs", *pieces})
    second = table([f"% ({total} pairs)", *chosen], [
        [f"{one.removeprefix('minimal pairs, ').replace('_', ' ')} ({sizes[one]})",
         *(f"{100 * part[one].value:.0f}" if one in part else "" for part in chosen.values())] for one in phenomena])
    (base, one), *others = chosen.items()
    apart = [f"- {name} against {base}: {apart_from(part['minimal pairs'], one['minimal pairs'])} points"
             for name, part in others]
    return "\n".join([first, "", second, "", *apart])


def apart_from(one: Score, other: Score) -> str:
    """The difference of two accuracies in points, with an interval over the pairs, which both have answered."""
    items = 100 * (np.array(one.items) - np.array(other.items))
    means = np.random.default_rng(0).choice(items, (2000, len(items))).mean(1)
    low, high = np.quantile(means, (0.025, 0.975))
    return f"{items.mean():+.1f} ({low:+.1f} to {high:+.1f})"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folders", nargs="+", type=Path)
    parser.add_argument("--pairs", type=Path, required=True)
    parser.add_argument("--limit", type=int, default=0, help="pairs, spread evenly over the file; 0 for all")
    parser.add_argument("--rules", nargs="+", choices=RULES, default=RULES)
    parser.add_argument("--samples", type=int, default=8, help="of a bound")
    parser.add_argument("--keep", type=Path, help="a file of what has been measured")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    keep = arguments.keep
    kept = json.loads(keep.read_text()) if keep is not None and keep.exists() else {}
    print(page({name_of(folder): measured(folder, arguments.pairs, arguments.limit, arguments.samples,
                                            tuple(arguments.rules), kept, keep)
                for folder in arguments.folders}))


if __name__ == "__main__":
    main()
