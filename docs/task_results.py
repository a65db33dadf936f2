"""The tables of docs/results.md: every recipe of recipes/tasks from every base that can do it, beside the baselines.

    python docs/task_results.py --data DATA --base minilm=MiniLM --base causal=runs/causal/model --out results

Each run is one call of `bothways tune`, in a process of its own; its folder is OUT/RECIPE/BASE. A run that is there is
not repeated, so the same call goes on where it was stopped, and two calls at once share the work: whoever comes first
takes a run. A run that cannot be made (an encoder does not rewrite) is listed with the sentence that bothways gives for
it. A base whose name begins with "scratch" is the network of its folder with random weights. What stands behind -- is
given to every run: -- --steps 20.

All of docs/results.md, in two lanes of one thread each (about an hour, both at once):

    bases() { for name in "$@"; do echo --base $name=runs/$name/model; done; }
    lane() { OMP_NUM_THREADS=1 python docs/task_results.py --data DATA --out results --threads 1 "$@"; }
    all() {
      core="polarity banking77 wnut17 sick_relatedness sick_entailment"
      lane --base minilm=MiniLM --only $core squad policyqa btc cuad movie_reviews
      lane $(bases causal masked denoising hybrid diffusion) --base scratch=runs/causal/model --only $core
      lane $(bases causal denoising prefix) --base scratch=runs/causal/model \
        --only multi30k docs_en_lv wikisplit refinement java_cs dialogsum plain_english
    }
    all > lane1.md & all > lane2.md & wait
    python docs/task_results.py --data DATA --out results --tables --into docs/results.md
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import bothways
from bothways import tasks
from bothways.aside import replacing
from bothways.cli import parsing
from bothways.cli import tune as command
from bothways.errors import BothwaysError, nearest
from bothways.families.files import read_json, write_json
from bothways.study.locks import only_one
from bothways.tasks import folder as folders
from bothways.tasks.baselines import baselines
from bothways.tasks.run import data as rows_of

ROOT = Path(__file__).parents[1]
RECIPES = ROOT / "recipes" / "tasks"
SHOWN = {"classify": ("classification accuracy", "classification macro-F1"), "tag": ("span F1", "tag accuracy"),
         "answer": ("answer F1", "exact match"), "similarity": ("similarity Spearman", "similarity Pearson"),
         "rewrite": ("chrF", "BLEU", "ROUGE-L", "exact match", "rewriting NLL")}
"""The scores in a table, the one that it is sorted by first."""


@dataclass(frozen=True)
class Recipe:
    """A recipe, the kind of its task, and the options of `bothways tune` that name its files."""

    name: str
    file: Path
    options: Any
    files: tuple[str, ...]

    @classmethod
    def read(cls, file: Path, data: Path, made: Path) -> Recipe:
        """A recipe whose files lie in `data`, or in `made` where by_document.py writes them. Raises: BothwaysError."""
        plain = _options(file, "--out", "x")
        files: list[str] = []
        for role in ("data", "dev", "test"):
            name = getattr(plain, role)
            if name is not None:
                path = next((folder / name for folder in (data, made) if (folder / name).is_file()), None)
                if path is None:
                    raise BothwaysError(f"{file}: there is no {name} in {data}")
                files += [f"--{role}", str(path)]
        return cls(file.stem, file, _options(file, "--out", "x", *files), tuple(files))


def _options(file: Path, *more: str) -> Any:
    arguments = ["--recipe", str(file), *more]
    return parsing.parse(command.options_for(arguments), "bothways tune", None, arguments)


def main(argv: Sequence[str] | None = None) -> int:
    """Run what is not there yet, then print the tables."""
    given = _arguments(argv)
    out: Path = given.out
    out.mkdir(parents=True, exist_ok=True)
    try:
        with only_one(out / "locks" / "preparing", "folder", wait=600):
            recipes = _recipes(given, out)
            bases = {name: _base(name, Path(folder), out) for name, _, folder in
                     (one.partition("=") for one in given.base)}
    except BothwaysError as problem:
        print(problem, file=sys.stderr)
        return problem.exit_code
    if not given.tables:
        # the cheap rows of every table first, then base by base, so that a stopped call leaves whole columns
        for recipe in recipes:
            _once(out, recipe, "baselines", lambda folder, recipe=recipe: _baselines(recipe, folder))
        for name, base in bases.items():
            for recipe in recipes:
                _once(out, recipe, name, lambda folder, recipe=recipe, base=base: _tune(recipe, base, folder, given))
    for recipe in recipes:
        print(f"## {recipe.name}\n\n{table(recipe, out / recipe.name)}")
    if given.into is not None:
        # a recipe that nothing is known of leaves its place as it is
        put(given.into, {recipe.name: table(recipe, out / recipe.name) for recipe in recipes
                         if any((out / recipe.name).glob(f"*/{folders.FILE}"))})
    return 0


def _arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="the folder that the recipes' files lie in")
    parser.add_argument("--base", action="append", default=[], metavar="NAME=FOLDER", help="a model to begin with")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--only", nargs="+", default=[], metavar="RECIPE")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--tables", action="store_true", help="print what is there, run nothing")
    parser.add_argument("--into", type=Path, metavar="PAGE", help="also put the tables into this page")
    parser.add_argument("--keep-weights", action="store_true", help="keep the tuned networks too, not only task.json")
    parser.add_argument("--recipes", type=Path, default=RECIPES)
    parser.add_argument("more", nargs="*", metavar="-- OPTION", help="options of bothways tune for every run")
    return parser.parse_args(argv)


def _recipes(given: argparse.Namespace, out: Path) -> list[Recipe]:
    files = {file.stem: file for file in sorted(given.recipes.glob("*.yaml"))}
    for name in given.only:
        if name not in files:
            raise BothwaysError(f"there is no recipe '{name}' {nearest(name, files)}")
    made = out / "data"
    script = given.recipes / "by_document.py"
    if script.is_file() and not made.is_dir():
        with replacing(made) as aside:
            subprocess.run([sys.executable, str(script), str(given.data), "--out", str(aside)], check=True,
                           stdout=subprocess.DEVNULL)
    return [Recipe.read(files[name], given.data, made) for name in given.only or files]


def _base(name: str, folder: Path, out: Path) -> Path:
    """The folder of a base; for one from scratch, a copy with random weights."""
    if not name.startswith("scratch"):
        return folder
    made = out / "bases" / name
    if not made.is_dir():
        from dataclasses import replace

        import torch

        from bothways.families.folder import load, save
        from bothways.model import LanguageModel

        trained = load(folder, dtype=torch.float32)
        torch.manual_seed(0)
        save(replace(trained, network=LanguageModel(trained.config)), made)
    return made


# ------------------------------------------------------------------------------------------------ runs

def _once(out: Path, recipe: Recipe, name: str, work: Any) -> None:
    """Do the work of a run unless it is done, or another process is at it; a failure is written down."""
    folder = out / recipe.name / name
    failed = folder.with_suffix(".failed")
    try:
        with only_one(out / "locks" / f"{recipe.name}-{name}", "run"):
            if (folder / folders.FILE).is_file():
                return
            print(f"{recipe.name} from {name}", file=sys.stderr, flush=True)
            failed.unlink(missing_ok=True)
            folder.parent.mkdir(parents=True, exist_ok=True)
            try:
                work(folder)
            except Exception as problem:  # a run that fails, however it does, must not stop the others
                sentence = " ".join(str(problem).split()) or type(problem).__name__
                failed.write_text(sentence + "\n", encoding="utf-8")
                print(f"{recipe.name} from {name}: {sentence}", file=sys.stderr, flush=True)
    except BothwaysError as busy:
        print(f"{recipe.name} from {name}: {busy}", file=sys.stderr, flush=True)


def _tune(recipe: Recipe, base: Path, folder: Path, given: argparse.Namespace) -> None:
    """One call of `bothways tune`; what it printed is kept beside its folder."""
    call = [sys.executable, "-m", "bothways", "tune", "--recipe", str(recipe.file), "--from", str(base), "--out",
            str(folder), *recipe.files, *given.more]
    # the same bothways as here, also where it is not installed
    found = {"PYTHONPATH": os.pathsep.join(filter(None, (str(Path(bothways.__file__).parents[1]),
                                                         os.environ.get("PYTHONPATH"))))}
    threads = {"OMP_NUM_THREADS": str(given.threads), "OMP_WAIT_POLICY": "PASSIVE"}
    with folder.with_suffix(".log").open("w+", encoding="utf-8") as log:
        code = subprocess.run(call, stdout=log, stderr=log, env={**os.environ, **threads, **found},
                              check=False).returncode
        log.seek(0)
        lines = [line for line in log.read().splitlines() if line.strip()]
    if code:
        raise BothwaysError(lines[-1] if lines else f"bothways tune ended with {code}")
    if not given.keep_weights:
        for file in (*folder.glob("*.safetensors"), *folder.glob("tokenizer*")):
            file.unlink()


def _baselines(recipe: Recipe, folder: Path) -> None:
    """The baselines on the same rows as the runs, in the form of a task's scores."""
    options = recipe.options
    kind = tasks.kind(options.task)
    given = rows_of(kind, options.data, options.dev, options.test, columns=command.named_columns(options.columns),
                    keep=options.keep, seed=options.tuning.seed, tell=lambda sentence: None)
    tested = given.dev if given.test is None else given.test
    found = [{"name": one.name, "parameters": one.parameters, "learning": {"processor seconds": round(one.learning, 1)},
              "scores": [folders.stored(score) for score in one.scores]}
             for one in baselines(options.task, given.train.items, tested.items, options.own)]
    with replacing(folder) as aside:
        aside.mkdir()
        write_json(aside / folders.FILE, {"baselines": found, "learned": len(given.train), "tested": len(tested)})


# ------------------------------------------------------------------------------------------------ tables

def table(recipe: Recipe, folder: Path) -> str:
    """What is known of a recipe, the best first, then what could not be run."""
    names = SHOWN[recipe.options.task]
    lines: list[tuple[float, list[str]]] = []
    tested: dict[str, Any] = {}
    for file in sorted(folder.glob(f"*/{folders.FILE}")):
        found = read_json(file)
        if "baselines" in found:
            rows = [(one["name"], one["scores"], one) for one in found["baselines"]]
            tested = tested or {name: found[name] for name in ("learned", "tested") if name in found}
        else:
            report = found["report"]
            tested = {"learned": report["data"]["train"]["rows"],
                      "tested": (report["data"]["test"] or report["data"]["dev"] or {"rows": 0})["rows"]}
            rows = [(file.parent.name, found["scores"], report)]
        for name, scores, about in rows:
            by_name = {score["name"].removeprefix("test "): score for score in scores}
            cells = [_cell(by_name.get(one) or by_name.get(f"dev {one}")) for one in names]
            first = by_name.get(names[0]) or by_name.get(f"dev {names[0]}") or {}
            lines.append((-(first.get("value") or 0.0), [name, *cells,
                                                          f"{about['learning']['processor seconds']:,.0f}",
                                                          f"{about['parameters']:,}"]))
    head = ["from", *names, "learning, processor s", "parameters"]
    text = [f"{tested['learned']:,} rows to learn from, {tested['tested']:,} tested.\n"] if tested else []
    text += ["| " + " | ".join(head) + " |", "| --- " * len(head) + "|"]
    text += ["| " + " | ".join(cells) + " |" for _, cells in sorted(lines, key=lambda line: line[0])]
    for file in sorted(folder.glob("*.failed")):
        text.append(f"\nNot from {file.stem}: {file.read_text(encoding='utf-8').strip()}")
    return "\n".join(text) + "\n"


def put(page: Path, tables: Mapping[str, str]) -> None:
    """Replace what stands between `<!-- table NAME -->` and `<!-- end -->` of each name in a page.

    Raises:
        BothwaysError: a name without its marks; the page is then as it was.
    """
    text = page.read_text(encoding="utf-8")
    for name, found in tables.items():
        before, mark, rest = text.partition(f"<!-- table {name} -->\n")
        _, end, after = rest.partition("<!-- end -->")
        if not mark or not end:
            raise BothwaysError(f"{page} has no '<!-- table {name} -->' with an '<!-- end -->' behind it: add them")
        text = f"{before}{mark}\n{found}\n{end}{after}"
    with replacing(page) as aside:
        aside.write_text(text, encoding="utf-8")


def _cell(score: dict[str, Any] | None) -> str:
    """A score with its interval; BLEU and chrF are in percent."""
    if score is None or score["value"] is None:
        return ""
    digits = 1 if score["name"].split()[-1] in ("chrF", "BLEU") else 3
    spread = "" if score["low"] is None else f" ({score['low']:.{digits}f} to {score['high']:.{digits}f})"
    return f"{score['value']:.{digits}f}{spread}"


if __name__ == "__main__":
    sys.exit(main())
