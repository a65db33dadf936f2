"""Train every paradigm at one budget on your text, and report which one to use for what, and how sure that is.

    bothways compare --corpus notes/ --labels tickets.csv --budget 10min --seeds 3 --out study
    bothways compare --contenders "causal, prefix, masked(rate=0.15)" --budget 2min --out objectives
    bothways compare --demo

Five contenders (causal decoder, masked encoder, denoising encoder-decoder, hybrid, masked diffusion) and the controls
they have to beat. The plan and the expected time are printed first. Stopped in the middle (Ctrl-C, a closed terminal),
the same call continues. The report is STUDY/report.html, with report.json and report.md beside it.
"""

from __future__ import annotations

import signal
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from bothways.errors import BothwaysError

if TYPE_CHECKING:
    from bothways.study.plan import Source, Study


@dataclass(frozen=True)
class Options:
    """What `compare` is told."""

    corpus: str = "python-library"
    """Text to train on: a file, a folder, a glob, hf:NAME, or the embedded python-library."""
    field: str | None = None
    """Field of a CSV, JSON lines or Parquet corpus that holds the text."""
    labels: str | None = None
    """CSV of texts and labels to classify; python-library brings its own."""
    pairs: str | None = None
    """JSON lines of minimal pairs (BLiMP's format); otherwise pairs are made by exchanging words."""
    budget: str | None = None
    """Of one run (contender x seed): 10min, 2M tokens, 1e14 flops, 500 steps. Default 10min."""
    seeds: int | None = None
    """Runs of each contender. Default 3."""
    out: Path | None = None
    """The study's folder; a study that is there already is continued. Default: study (study-demo with --demo)."""
    demo: bool = False
    """The quick form: known source with 3 seeds, real text with one, within 10 minutes on 2 cores."""
    recipe: Path | None = None
    """A study as YAML (see recipes/studies/); other options then may not be given, except --out and the machine's."""
    contenders: str = "all"
    """Comma-separated: causal, masked, denoising, hybrid, diffusion, or any objective: "ul2, masked(rate=0.15)"."""
    known: bool = True
    """The known source too, a grammar whose true probabilities can be computed; --no-known leaves it out."""
    workers: int = 0
    """Runs at once; 0 chooses one for each core."""
    threads: int = 0
    """Threads of each run; 0 shares out the cores."""
    device: str = "cpu"
    """cpu or cuda."""
    plan_only: bool = False
    """Print the plan and stop."""


def run(options: Options) -> int:
    """Plan, run, report; returns the exit code."""
    from bothways.study import plan as plans
    from bothways.study import report
    from bothways.study.describe import plan_lines
    from bothways.study.locks import only_one
    from bothways.study.progress import Display, clock
    from bothways.study.run import run as run_plan

    # 1. the plan, printed before anything is done
    study, folder = study_of(options)
    plan = plans.make(study)
    if options.plan_only:
        print("\n".join(plan_lines(plan, folder)))
        return 0
    plan = plans.open_folder(folder, plan)
    print("\n".join(plan_lines(plan, folder)), flush=True)
    # 2. the runs
    display = Display()
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # a polite end keeps checkpoints, as Ctrl-C does
    with only_one(folder, "study"):
        try:
            outcome = run_plan(folder, plan, display)
        except KeyboardInterrupt:
            raise BothwaysError(f"stopped; every run has kept its checkpoint: repeat the same call to continue "
                                f"(folder '{folder}')", exit_code=130) from None
        # 3. the report
        files = report.write(folder)
    print("\n".join(["", *report.first_lines(folder), ""]))
    if outcome.failed:
        print(f"{len(outcome.failed)} runs failed; the report names them, and the same call tries them again",
              file=sys.stderr)
    print(f"done in {clock(outcome.seconds)}: {files[0]}")
    return 1 if outcome.failed and not outcome.finished else 0


def study_of(options: Options) -> tuple[Study, Path]:
    """The study that the options describe, and its folder.

    Raises:
        BothwaysError: options that contradict each other, or a recipe with unknown keys.
    """
    from dataclasses import replace

    from bothways.study.contenders import CONTENDERS, split
    from bothways.study.plan import EMBEDDED, Study
    from bothways.study.recipes import DEMO, read

    def here(study: Study) -> Study:
        return replace(study, workers=options.workers, threads=options.threads, device=options.device)

    folder = options.out or Path("study-demo" if options.demo else "study")
    given = {name for name in ("field", "labels", "pairs", "budget", "seeds")
             if getattr(options, name) is not None} | ({"corpus"} if options.corpus != EMBEDDED else set())
    # 1. a whole study from one file, or the quick form
    if options.recipe is not None and (given or options.demo):
        clash = ", ".join(f"--{name}" for name in sorted(given | ({"demo"} if options.demo else set())))
        raise BothwaysError(f"--recipe says everything about the study, so {clash} cannot be given beside it: "
                            "put it into the recipe")
    if options.recipe is not None:
        return here(read(options.recipe)), folder
    # 2. otherwise from the options
    if options.demo:
        if given & {"budget", "seeds"}:
            raise BothwaysError("--demo has a budget and seeds of its own: leave out --budget and --seeds, or --demo")
        study = replace(DEMO, sources=tuple(
            source if source.kind == "known" else replace(source, corpus=options.corpus, field=options.field,
                                                          labels=options.labels, pairs=options.pairs)
            for source in DEMO.sources))
    else:
        study = Study(sources=_sources(options))
    if not options.known:
        study = replace(study, sources=tuple(source for source in study.sources if source.kind != "known"))
    names = tuple(CONTENDERS) if options.contenders == "all" else split(options.contenders)
    return here(replace(study, contenders=names)), folder


def _sources(options: Options) -> tuple[Source, ...]:
    """The known source at no more than half a minute a run, then the user's text."""
    from bothways.study.plan import Source
    from bothways.study.recipes import known_budget

    budget = options.budget or "10min"
    seeds = 3 if options.seeds is None else options.seeds
    tiny = is_tiny(budget)
    return (Source("known", "grammar", budget=known_budget(budget), seeds=seeds, effort="smoke" if tiny else "quick"),
            Source("text", options.corpus, options.field, options.labels, options.pairs, budget, seeds,
                   "smoke" if tiny else "full"))


def is_tiny(budget: str) -> bool:
    """Whether a budget is a try-out, for which measuring in full would take longer than training."""
    from bothways.training.budget import Budget

    read = Budget.parse(budget)
    return read.amount <= {"seconds": 10, "steps": 50, "tokens": 1e5, "flops": 1e12}[read.unit]
