"""The representation study: what trained networks know, and which published findings they show.

    bothways compare --recipe recipes/studies/objectives.yaml --out study
    python docs/blimp_table.py runs/*/model --pairs blimp.jsonl.gz --keep pairs.json
    python docs/representation measure known f2 f4 f8 f10 text --study study --runs runs --data data --pairs pairs.json
    python docs/representation page

`measure` writes docs/representation/results/PART.jsonl, line by line: what is there is not measured again, so a
command that was stopped is simply repeated. `--lane 1/2` takes the first half of the work and `--lane 2/2` the second,
so that two processes can share a part. `page` reads those files and nothing else, and writes docs/representation.md
and its pictures.

Parts: known (layers of the known source), f2 (early and late), f4 (share of positions with loss), f8 (few labels),
f10 (minimal pairs: reads what `docs/blimp_table.py --keep` left, given with --pairs), text (layers of the networks
that read OpenStax prose).
"""

from __future__ import annotations

import argparse
from pathlib import Path

from kept import Kept

HERE = Path(__file__).resolve().parent
PARTS = ("known", "f2", "f4", "f8", "f10", "text")


def main() -> None:
    """Measure, or write the page."""
    parser = argparse.ArgumentParser(prog="python docs/representation", description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    work = commands.add_parser("measure", help="measure some parts, keeping each result as soon as it is there")
    work.add_argument("parts", nargs="+", choices=PARTS, metavar="PART", help=", ".join(PARTS))
    work.add_argument("--study", type=Path, default=Path("study"), help="the folder that `bothways compare` wrote")
    work.add_argument("--runs", type=Path, default=Path("runs"),
                      help="a folder with the runs causal, masked, denoising, ... on OpenStax prose; those that are "
                           "done are measured")
    work.add_argument("--data", type=Path, default=Path("data"), help="a folder with lm/, ner/, sentiment/, pairs/, "
                      "dialogue/")
    work.add_argument("--trained", type=Path, default=Path("arms"), help="where the runs of f4 are trained")
    work.add_argument("--lane", default="1/1", help="which part of the work: 1/2 and 2/2 share it")
    work.add_argument("--arms", nargs="*", help="of f8, only these arms; 'head, masked network' and "
                      "'generative, diffusion network' are measured only when they are named")
    work.add_argument("--pairs", type=Path, default=Path("pairs.json"), help="what docs/blimp_table.py kept, for f10")
    work.add_argument("--draws", type=int, default=3, help="of f8, so many draws of the labels for each network")
    write = commands.add_parser("page", help="write the page and its pictures from what was measured")
    write.add_argument("--page", type=Path, default=HERE.parent / "representation.md")
    for one in (work, write):
        one.add_argument("--out", type=Path, default=HERE / "results", help="where results are kept as JSON lines")
    given = parser.parse_args()
    if given.command == "page":
        from page import write_page

        write_page(given.out, given.page)
    else:
        measure(given)


def measure(given: argparse.Namespace) -> None:
    """The parts that were asked for, in order."""
    import networks

    from bothways.text.known import KnownSource

    number, lanes = map(int, given.lane.split("/"))
    kept = {part: Kept(given.out, part, (number - 1, lanes)) for part in PARTS}
    source = KnownSource(seed=0)
    groups = networks.models(given.study, "known") if {"known", "f2", "f4"} & set(given.parts) else {}
    for part in given.parts:
        if part == "known":
            import known_layers

            known_layers.measure(kept[part], groups, source)
        elif part == "f2":
            import f2_early

            f2_early.measure(kept[part], groups, source, given.study, given.runs, given.data)
        elif part == "f4":
            import f4_coverage

            f4_coverage.measure(kept[part], groups, source, given.study, given.runs, given.trained)
        elif part == "f8":
            import f8_few_labels

            f8_few_labels.measure(kept[part], given.runs, given.data, given.arms, given.draws)
        elif part == "f10":
            import f10_pairs

            f10_pairs.measure(kept[part], given.pairs)
        else:
            import text_layers

            text_layers.measure(kept[part], given.runs, given.data)


if __name__ == "__main__":
    main()
