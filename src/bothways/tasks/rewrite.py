"""Rewriting one text as another: translating, summarising, simplifying, mending code, for models that can write.

Every paradigm is asked in its own format, through its objective's `blank`: the text is `<bos> source <sep> target
<eos>` and the target with its end is hidden. So a causal model writes on after `<sep>`, a decoder writes what stands
behind the blank, and a diffusion model fills places, as many as the longest target has: shorter ones are filled up
with `<eos>`, which makes the bound one of the same event, the target and its end.
"""

from __future__ import annotations

import copy
import importlib.util
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any, NamedTuple, Self

import numpy as np
from torch import Tensor

from bothways.errors import BothwaysError, nearest
from bothways.evaluation import text_metrics
from bothways.evaluation.questions import Way, ways
from bothways.evaluation.rows import TOKENS
from bothways.evaluation.score import Score, Stopwatch, mean_score
from bothways.families.extend import extend_vocabulary
from bothways.tasks import base, rows
from bothways.tasks.asking import loss, nats, questions
from bothways.tasks.rows import Role
from bothways.tasks.tuning import TuneConfig, tune

if TYPE_CHECKING:
    from bothways.families.trained import Trained

Texts = Sequence[tuple[str, str]]
"""(source, target) pairs."""
TOGETHER = 128
"""Targets that are written at a time."""
LOOKED_AT = 200
"""Rows kept back by which weights are judged, at most: each look costs a pass over them."""
WITH_EVAL = {"sacrebleu": "chrF and BLEU", "rouge_score": "ROUGE"}
"""Packages of the extra `eval`, and what is measured by them."""


class Row(NamedTuple):
    """A source, and its target, or none where it is not known."""

    source: str
    target: str | None = None


@dataclass(frozen=True)
class Options:
    """How texts are rewritten."""

    target: int = 128
    """Tokens of a target, its end counted; longer ones are cut (sources: --longest)."""
    beams: int = 1
    """Above 1 searches with so many beginnings for the likeliest target (models that write left to right)."""
    length_penalty: float = 1.0
    """With beams, texts are compared by log probability / length ** this."""
    visibility: str | None = None
    """The name of a trained mode, for a model that can write in several; the first when none."""
    scored: int = 500
    """Rows of a file, at most, whose targets are written out to be scored; the likelihood is that of all rows."""

    def __post_init__(self) -> None:
        for name in ("target", "beams", "scored"):
            if getattr(self, name) < 1:
                raise BothwaysError(f"{name} is {getattr(self, name)}, but must be at least 1")


@dataclass(frozen=True)
class Format:
    """How long things may be: a source is cut to `source` tokens, a target to `target` (its `<eos>` counted in)."""

    source: int = 160
    target: int = 32


class Task(base.Task):
    """A tuned network that writes targets, the way it is called, and the lengths it was tuned for."""

    kind = "rewrite"
    Options = Options
    roles = (Role("source", ("source", "src", "input", "complex", "buggy", "java", "en", "dialogue", "document",
                             "article", "original_text", "text")),
             Role("target", ("target", "tgt", "output", "simple", "fixed", "cs", "de", "summary", "reference_summary",
                             "highlights", "comment", "docstring", "lv", "fr"), answer=True))
    trained: Trained

    def __init__(self, trained: Trained, options: Any, form: Format, cut: Mapping[str, int] | None = None) -> None:
        way = writing_way(trained, options.visibility)
        if way is None:
            raise BothwaysError(f"a model trained by '{trained.objective.name}' fills single blanks but does not "
                                "write: rewrite with a causal, encoder-decoder, hybrid or diffusion model")
        if options.beams > 1 and way.kind != "exact":
            raise BothwaysError(f"beams is {options.beams}, but a model trained by '{trained.objective.name}' fills "
                                "many places at once and does not search: leave beams out")
        self.trained, self.options, self.form, self.way = trained, options, form, way
        self.cut = dict(cut or {})

    # --- 1. rows ---

    @classmethod
    def row(cls, values: Mapping[str, Any]) -> Row:
        found = values.get("target")
        return Row(_text(values.get("source"), "source"), None if found is None else _text(found, "target"))

    @classmethod
    def key(cls, row: Row) -> str:
        return row.source

    # --- 2. to 5. tuning, answers, scores ---

    @classmethod
    def fit(cls, trained: Trained | None, train: Sequence[Row], dev: Sequence[Row], options: Any, config: TuneConfig,
            watch: base.Watch | None = None) -> Self:
        if trained is None:
            raise BothwaysError("rewriting tunes a network: say which (--from)")
        pairs, kept = pairs_of(train), pairs_of(dev[:LOOKED_AT])
        if not pairs:
            raise BothwaysError("rewriting needs pairs of a source and a target to learn from: give some")
        # 1. a copy of the network, with the marks around source and target, for lengths that it can read
        known = extend_vocabulary(trained, ["<bos>", "<eos>", "<sep>"])
        form = _fitting(known, config.longest, options.target)
        found = cls(replace(known, network=copy.deepcopy(known.network)), options, form)
        found.cut = found._counted(pairs)
        # 2. what is asked; a chain asks for the same each time, diffusion draws anew each step
        way = found.way
        asked = [question(found.trained, source, target, way, form) for source, target in pairs]

        def loss_of(places: list[int], step: int) -> Tensor:
            return loss(found.trained, questions(way, [asked[place] for place in places], step, config.seed, places))

        # 3. the loop
        tune(found.trained.network, None, len(pairs), loss_of, config, watch, lengths=[len(ids) for ids, _ in asked],
             judge=(lambda: -target_nll(found, kept, 4).value) if kept else None)
        return found

    def predict(self, rows: Sequence[Row]) -> list[Any]:
        """The likeliest target of each source, greedily or by beams, by the decoding that fits."""
        return self.write([row.source for row in rows])

    def write(self, sources: Sequence[str]) -> list[str]:
        """The likeliest target of each source."""
        from bothways.decoding import GenerateConfig, generate

        config = GenerateConfig(max_new_tokens=self.form.target, temperature=0.0, beams=self.options.beams,
                                length_penalty=self.options.length_penalty)
        prompts = [self.prompt(source) for source in sources]
        written = [one for start in range(0, len(prompts), TOGETHER)
                   for one in generate(self.trained, prompts[start:start + TOGETHER], config, self.way.mode)]
        return [self.trained.tokenizer.decode(one.ids).strip() for one in written]

    def prompt(self, source: str) -> list[int]:
        """`<bos> source <sep>`."""
        return _prompt(self.trained, source, self.form)

    def outputs(self, rows: Sequence[Row]) -> list[dict[str, Any]]:
        return [{"written": text} for text in self.predict(rows)]

    def scores(self, rows: Sequence[Row]) -> list[Score]:
        """"rewriting NLL" of the true targets (nats per token, the end counted), and of what is written "exact match"
        (spaces aside) and, with the extra `eval`, "chrF", "BLEU" and "ROUGE-1", "-2" and "-L"."""
        watch = Stopwatch()
        if len(pairs := pairs_of(rows)) < len(rows):
            raise BothwaysError(f"{len(rows) - len(pairs)} of {len(rows)} rows have no target, so they cannot be "
                                "scored")
        found = [target_nll(self, pairs)]
        targets = [target for _, target in pairs[:self.options.scored]]
        written = self.write([source for source, _ in pairs[:self.options.scored]])
        found += written_scores(written, targets, self.way.name, self.how)
        return [replace(score, seconds=watch.seconds / len(found)) for score in found]

    def unmeasured(self) -> str:
        missing = [names for package, names in WITH_EVAL.items() if not importlib.util.find_spec(package)]
        return "" if not missing else (f"{' and '.join(missing)} are not measured, since the extra 'eval' is not "
                                       "installed: pip install 'bothways[eval]'")

    @property
    def how(self) -> str:
        """How targets are written, for the estimator of scores."""
        return "greedy" if self.options.beams == 1 else f"{self.options.beams} beams"

    def limits(self) -> str:
        cut = [f"{number} {name} of its data were longer and were cut" for name, number in self.cut.items() if number]
        return (f"It reads {self.form.source} tokens of a source at most and writes {self.form.target} at most"
                + (f" ({'; '.join(cut)})" if cut else "") + ". What it writes may leave out, change or invent what the "
                "source says: have it read before anybody relies on it. Code that it writes was never run.")

    # --- 6. what is stored ---

    def settings(self) -> dict[str, Any]:
        return {"options": asdict(self.options), "written by": self.way.name, "source tokens": self.form.source,
                "target tokens": self.form.target, "cut": self.cut}

    @classmethod
    def restored(cls, trained: Trained | None, settings: Mapping[str, Any], weights: Mapping[str, Tensor]) -> Self:
        assert trained is not None
        return cls(trained, Options(**settings["options"]), Format(settings["source tokens"],
                                                                    settings["target tokens"]), settings["cut"])

    def _counted(self, pairs: Texts) -> dict[str, int]:
        """How many sources and targets are longer than is read."""
        encode = self.trained.tokenizer.encode
        return {"sources": sum(len(encode(source, reserved=False)) > self.form.source - 2 for source, _ in pairs),
                "targets": sum(len(encode(target, reserved=False)) > self.form.target - 1 for _, target in pairs)}


def written_scores(written: Sequence[str], targets: Sequence[str], mode: str, how: str) -> list[Score]:
    """"exact match" (spaces aside) and, with the extra `eval`, "chrF", "BLEU" and "ROUGE-1", "-2" and "-L"."""
    found = [mean_score("exact match", mode, how, [float(one.split() == other.split())
                                                   for one, other in zip(written, targets, strict=True)], unit="share")]
    if importlib.util.find_spec("sacrebleu"):
        found += [text_metrics.chrf(written, targets, mode=mode), text_metrics.bleu(written, targets, mode=mode)]
    if importlib.util.find_spec("rouge_score"):
        found += text_metrics.rouge(written, targets, mode=mode)
    return found


def writing_way(trained: Trained, name: str | None = None) -> Way | None:
    """The way in which a model writes: left to right, or by diffusion; none for one that only fills single blanks.

    Args:
        name: of a trained mode that writes; the first when none.
    Raises:
        BothwaysError: no mode of that name writes.
    """
    found = ways(trained, off_mode=False)
    able = [way for way in found if way.kind == "exact"] + [
        way for way in found if way.kind != "exact" and way.mode is not None and way.mode.likelihood == "bound"]
    if name is not None and name not in [way.name for way in able]:
        raise BothwaysError(f"visibility is '{name}', and this model does not write so "
                            + nearest(name, [way.name for way in able]))
    return next((way for way in able if name in (None, way.name)), None)


def target_nll(task: Task, test: Texts, samples: int = 16, tokens: int = TOKENS) -> Score:
    """NLL of the true targets and their ends: exact, or the diffusion bound."""
    trained, way, form = task.trained, task.way, task.form
    asked = [question(trained, source, target, way, form) for source, target in test]
    # the end is counted once, however many <eos> fill up a diffusion model's places
    lengths = [len(_target(trained, target, form)) for _, target in test]
    found = nats(trained, way, asked, samples, 0, tokens)
    return mean_score("rewriting NLL", way.name, "exact" if way.kind == "exact" else f"upper bound, {samples} samples",
                      found / np.array(lengths), lengths, unit="nats per token", higher_is_better=False)


def question(trained: Trained, source: str, target: str, way: Way, form: Format) -> tuple[np.ndarray, np.ndarray]:
    """`<bos> source <sep> target <eos>` and which of it is hidden: (ids (L,), hidden (L,) bool)."""
    prompt, answer = _prompt(trained, source, form), _target(trained, target, form)
    if way.kind != "exact":
        answer += [trained.vocabulary.eos] * (form.target - len(answer))
    ids = np.array(prompt + answer, dtype=np.int64)
    return ids, np.arange(len(ids)) >= len(prompt)


def _prompt(trained: Trained, source: str, form: Format) -> list[int]:
    ids = trained.tokenizer.encode(source, reserved=False)[:form.source - 2]
    return [trained.vocabulary.bos, *ids, trained.vocabulary.sep]


def _target(trained: Trained, target: str, form: Format) -> list[int]:
    return [*trained.tokenizer.encode(target, reserved=False)[:form.target - 1], trained.vocabulary.eos]


def _text(value: Any, name: str) -> str:
    """A text; a list of sentences is joined by spaces. Raises: BadRow."""
    joined = isinstance(value, (list, tuple)) and value and all(isinstance(one, str) for one in value)
    return rows.text(" ".join(value) if joined else value, name)


def pairs_of(some: Sequence[Row]) -> list[tuple[str, str]]:
    """The rows that have a target."""
    return [(row.source, row.target) for row in some if row.target is not None]


def _fitting(trained: Trained, source: int, target: int) -> Format:
    """These lengths, the source's shortened to what the network has places for. Raises: BothwaysError."""
    places = trained.config.position.length
    room = places if trained.config.stack == "two towers" else places - target
    if target > places or room < 3:
        raise BothwaysError(f"a target of {target} tokens leaves no room for a source in the {places} places of this "
                            "network: lower --target")
    return Format(min(source, room), target)


# ------------------------------------------------------------------------- the comparison that studies make

def fine_tune(trained: Trained, train: Texts, config: TuneConfig | None = None, form: Format | None = None,
              watch: base.Watch | None = None) -> Task:
    """A copy of a trained network that rewrites; errors as `Task.fit`."""
    form = form or Format()
    return Task.fit(trained, [Row(*pair) for pair in train], [], Options(target=form.target),
                    replace(config or TuneConfig(), longest=form.source), watch)


def rewriting(trained: Trained, train: Texts, test: Texts, config: TuneConfig | None = None,
              form: Format | None = None, *, written: int = 32, samples: int = 16, tokens: int = TOKENS) -> list[Score]:
    """Fine-tune on `train`, score on `test`; needs no package of metrics.

    Args:
        written: test sources that are written out (greedily).
    Returns:
        "rewriting NLL" (nats per target token, its end counted), "rewriting token F1" (multiset of lower-case words)
        and "rewriting chrF"; items are texts. An empty list for a model that cannot write.
    """
    watch = Stopwatch()
    if writing_way(trained) is None:
        return []
    task = fine_tune(trained, train, config, form)
    scores = [target_nll(task, test, samples, tokens)]
    pairs = [(one, target) for one, (_, target) in
             zip(task.write([source for source, _ in test[:written]]), test[:written])]
    how, mode = "greedy, against one reference", task.way.name
    scores.append(mean_score("rewriting token F1", mode, how, [token_f1(*pair) for pair in pairs], unit="F1"))
    scores.append(mean_score("rewriting chrF", mode, f"{how}, F of mean precision and recall",
                             [text_metrics.sentence_chrf(*pair) for pair in pairs], unit="chrF"))
    return [replace(score, seconds=watch.seconds / len(scores)) for score in scores]


def token_f1(written: str, reference: str) -> float:
    """F1 of the multisets of lower-case words."""
    one, other = Counter(written.lower().split()), Counter(reference.lower().split())
    return 2 * sum((one & other).values()) / max(1, sum(one.values()) + sum(other.values()))
