"""What a trained network is asked, and the rows it answers with: `measures` filled in by `bothways.evaluation`.

Every row is a `Score` as plain data with the key of its measure and, for controls, who it belongs to.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from bothways.evaluation.score import Score
from bothways.families.trained import Trained
from bothways.study.data import Questions
from bothways.study.efforts import Effort
from bothways.study.measures import SCORE_NAMES
from bothways.study.plan import Source

if TYPE_CHECKING:
    from bothways.text.known import KnownSource

OFF = " (off-mode)"
Rows = list[dict[str, Any]]


@dataclass(frozen=True)
class Desk:
    """Everything measuring needs: the questions, how many of them, the windows, and whom to tell how far it is."""

    source: Source
    effort: Effort
    prepared: Any
    questions: Questions
    seed: int
    tell: Callable[[str, float], None]

    @property
    def truth(self) -> KnownSource | None:
        """The source itself, where it is known: its true probabilities, and what knowing a text's length is worth."""
        if self.source.kind != "known":
            return None
        from bothways.text.known import KnownSource

        return KnownSource(seed=0)


def row(score: Score, measure: str, contender: str | None = None, **details: float) -> dict[str, Any]:
    """A Score as a stored row."""
    data = replace(score, details={**score.details, **details}).to_dict()
    return {**data, "measure": measure, "contender": contender}


def network(trained: Trained, desk: Desk, speeds: bool = True) -> Rows:
    """Everything a trained network is asked."""
    steps: list[tuple[str, Callable[[], Rows]]] = [
        ("likelihood of second halves", lambda: suffixes(trained, desk)),
        ("filling gaps", lambda: gaps(trained, desk)),
        ("minimal pairs", lambda: pairs(trained, desk)),
        ("frozen features", lambda: frozen(trained, desk)),
        ("labels of tokens", lambda: tags(trained, desk)),
        ("fine-tuning", lambda: tuned(trained, desk)),
        ("rewriting", lambda: rewriting(trained, desk)),
        ("speed", lambda: speed(trained, desk) if speeds else []),
    ]
    rows: Rows = []
    for number, (what, ask) in enumerate(steps):
        desk.tell(what, number / len(steps))
        rows += ask()
    return rows


def features_only(trained: Trained, desk: Desk) -> Rows:
    """What an untrained network is asked: does training help features at all?"""
    desk.tell("frozen features", 0.0)
    rows = frozen(trained, desk, shuffled=True)
    desk.tell("labels of tokens", 0.4)
    rows += tags(trained, desk)
    desk.tell("fine-tuning", 0.6)
    return rows + tuned(trained, desk)


# ------------------------------------------------------------------------------------- one function a currency

def suffixes(trained: Trained, desk: Desk) -> Rows:
    """The second half of held-out windows given the first, in every mode, trained or not."""
    from bothways.evaluation.likelihood import suffix

    scores = suffix(trained, desk.prepared.valid, limit=desk.effort.windows, samples=desk.effort.samples,
                    truth=desk.truth)
    return [row(score, SCORE_NAMES[score.name]) for score in scores if _wanted(score.name, desk)]


def _wanted(name: str, desk: Desk) -> bool:
    """Bytes say nothing of a grammar's words, and only there is the truth known."""
    return name in SCORE_NAMES and not (desk.source.kind == "known" and "bits" in name)


def gaps(trained: Trained, desk: Desk) -> Rows:
    """Single hidden tokens, one in each window, in every mode, trained or not."""
    from bothways.evaluation.fill import fill

    scores = fill(trained, desk.prepared.valid, blanks=desk.effort.blanks, spans=(1,), off_mode=True)
    return [row(score, "fill") for score in scores if score.name == "fill accuracy, single token"]


def pairs(trained: Trained, desk: Desk) -> Rows:
    """Minimal pairs, each kind a measure of its own."""
    from bothways.evaluation.pairs import minimal_pairs

    rows: Rows = []
    for measure, members in by_measure(desk.questions):
        rows += [row(score, measure) for score in minimal_pairs(trained, members, samples=desk.effort.samples)]
    return rows


def by_measure(questions: Questions) -> Iterator[tuple[str, list[Any]]]:
    """(measure, its pairs) of all kinds there are."""
    from bothways.text.pairs import Pair

    for measure in dict.fromkeys(kind for _, _, kind in questions.pairs):
        yield measure, [Pair(good, bad, kind) for good, bad, kind in questions.pairs if kind == measure]


def readings(trained: Trained, off: bool = True) -> list[tuple[str, str]]:
    """(visibility, its mode's name) in which texts are read into features: each trained one, and for a purely causal
    network also both sides, since that is how such networks are often adapted."""
    if trained.objective.stack == "two towers":
        return [("native", "bidirectional")]
    own: dict[str, str] = {}
    for mode in trained.objective.modes:
        sentence = repr(mode.visibility)
        own.setdefault(sentence, sentence if sentence in ("causal", "bidirectional") else mode.name)
    extra = [("bidirectional", "bidirectional" + OFF)] if off and list(own) == ["causal"] else []
    return [(name, name) for name in own.values()] + extra


def frozen(trained: Trained, desk: Desk, shuffled: bool = False) -> Rows:
    """A linear classifier over frozen, mean-pooled features; with `shuffled` also the line that chance gives."""
    from bothways.evaluation.probes import probe_texts

    questions, rows = desk.questions, []
    if not questions.train_texts:
        return []
    # in the quick form chance is measured once a seed, not once a contender: shuffled labels are the slowest to fit
    control = shuffled or desk.source.effort == "full"
    for visibility, mode in readings(trained):
        scores = {score.name: replace(score, mode=mode) for score in probe_texts(
            trained, questions.train_texts, questions.test_texts, visibility=visibility, control=control,
            longest=desk.effort.longest)}
        chance = scores.get("probe accuracy, shuffled labels")
        facts = {} if chance is None else {"shuffled_labels": chance.value}
        rows.append(row(scores["probe accuracy"], "classify-frozen", None, **facts))
        if shuffled and chance is not None and not any(entry["contender"] == "shuffled" for entry in rows):
            rows.append(row(chance, "classify-frozen", "shuffled"))
    return rows


def tagged(desk: Desk, found: Sequence[tuple[str, Sequence[tuple[int, int, str]]]]) -> list[Any]:
    """Tags on characters as tags on tokens."""
    from bothways.evaluation.features import tagged_spans

    return [tagged_spans(desk.prepared.tokenizer, text, spans, desk.effort.longest) for text, spans in found]


def tags(trained: Trained, desk: Desk) -> Rows:
    """A linear classifier over the states of single tokens, with a control task for what the words alone give."""
    from bothways.evaluation.probes import probe_tags

    questions, rows = desk.questions, []
    if not questions.train_tagged:
        return []
    train, test = tagged(desk, questions.train_tagged), tagged(desk, questions.test_tagged)
    for visibility, mode in readings(trained):
        scores = {score.name: replace(score, mode=mode)
                  for score in probe_tags(trained, train, test, visibility=visibility)}
        rows.append(row(scores["tagging probe accuracy"], "tag",
                        control_task=scores["tagging probe accuracy, control task"].value))
    return rows


def tuned(trained: Trained, desk: Desk) -> Rows:
    """Fine-tuning on labelled texts: every contender with the same texts, head, steps and choice of learning rates."""
    from bothways.tasks.classify import classification

    questions = desk.questions
    if not questions.train_texts:
        return []
    rows: Rows = []
    ways = readings(trained)
    if desk.source.effort != "full":
        # fine-tuning costs most of all measuring: only the mode a contender stands by on this measure
        ways = [way for way in ways if OFF not in way[1]][-1:]
    for visibility, mode in ways:
        scores = classification(trained, questions.train_texts, questions.test_texts, tuning(desk),
                                visibility=visibility)
        rows += [row(replace(score, mode=mode), "classify-tuned") for score in scores
                 if score.name == "classification accuracy"]
    return rows


def tuning(desk: Desk) -> Any:
    """How every contender is fine-tuned."""
    from bothways.tasks.tuning import TuneConfig

    return TuneConfig(steps=desk.effort.steps, longest=desk.effort.longest, seed=desk.seed)


def rewriting(trained: Trained, desk: Desk) -> Rows:
    """Function body to docstring line, for those that can write."""
    from bothways.tasks.rewrite import rewriting as rewrite

    questions = desk.questions
    if not questions.train_functions:
        return []
    scores = rewrite(trained, questions.train_functions, questions.test_functions, tuning(desk),
                     written=len(questions.test_functions), samples=desk.effort.samples)
    return [row(score, "rewrite") for score in scores if score.name == "rewriting chrF"]


def speed(trained: Trained, desk: Desk) -> Rows:
    """Reading and writing speed, one text at a time for writing."""
    from bothways.evaluation.features import text_ids
    from bothways.evaluation.speed import encoding_speed, writing_speed

    windows = desk.prepared.valid
    texts = [windows[place].ids for place in range(min(64, len(windows)))]
    mode = trained.objective.modes[0].name
    rows = [row(replace(encoding_speed(trained, texts, longest=desk.effort.longest), mode=mode), "read-speed")]
    prompts = text_ids(trained.tokenizer, desk.questions.prompts[:1])
    if prompts:
        score = writing_speed(trained, [ids.tolist() for ids in prompts], new_tokens=desk.effort.written, repeats=2,
                              mode=mode)
        rows.append(row(replace(score, mode=mode), "write-speed"))
    return rows


# --------------------------------------------------------------------------------------------- the controls

def controls(desk: Desk, wanted: Sequence[str]) -> Rows:
    """N-gram model, most frequent answer, TF-IDF with two classifiers, shuffled labels: no network anywhere."""
    rows: Rows = []
    if "ngram" in wanted:
        rows += ngram(desk)
    for number, key in enumerate(("majority", "tfidf-logistic", "tfidf-svm", "shuffled")):
        desk.tell("classifiers without a network", 0.5 + number / 8)
        if key in wanted and desk.questions.train_texts:
            rows += classical(desk, key)
    if "majority" in wanted:
        rows += commonest(desk)
    return rows


def ngram(desk: Desk) -> Rows:
    """Up to four tokens in a row, counted over all training tokens: more text than any contender may see."""
    from bothways.evaluation import controls as simple

    vocabulary = desk.prepared.tokenizer.vocabulary
    desk.tell("counting n-grams", 0.0)
    model = simple.train_ngram(desk.prepared.train, vocabulary.size)
    windows, effort = desk.prepared.valid, desk.effort
    desk.tell("n-gram likelihoods", 0.2)
    scores = simple.ngram_suffix(model, windows, vocabulary, limit=effort.windows, truth=desk.truth)
    rows = [row(score, SCORE_NAMES[score.name], "ngram") for score in scores if _wanted(score.name, desk)]
    filled = simple.ngram_fill(model, windows, vocabulary, blanks=effort.blanks, spans=(1,))
    rows += [row(score, "fill", "ngram") for score in filled if score.name == "fill accuracy, single token"]
    for measure, members in by_measure(desk.questions):
        rows.append(row(simple.ngram_pairs(model, desk.prepared.tokenizer, members), measure, "ngram"))
    return rows


def classical(desk: Desk, key: Any) -> Rows:
    """One classifier without a network, beside both ways of classifying with one."""
    from bothways.evaluation.controls import classify

    scores = classify(key, desk.questions.train_texts, desk.questions.test_texts)
    accuracy = next(score for score in scores if score.name == "classification accuracy")
    return [row(accuracy, "classify-tuned", key), row(accuracy, "classify-frozen", key)]


def commonest(desk: Desk) -> Rows:
    """Each token type's commonest tag, which needs no context at all."""
    from bothways.evaluation.score import mean_score

    train, test = tagged(desk, desk.questions.train_tagged), tagged(desk, desk.questions.test_tagged)
    if not train:
        return []
    counts: dict[tuple[int, ...], dict[str, int]] = {}
    total: dict[str, int] = {}
    for text in train:
        for start, end, tag in text.spans:
            types = counts.setdefault(tuple(text.ids[start:end].tolist()), {})
            types[tag] = types.get(tag, 0) + 1
            total[tag] = total.get(tag, 0) + 1
    default = max(total, key=lambda tag: total[tag])
    hits = []
    for text in test:
        for start, end, tag in text.spans:
            types = counts.get(tuple(text.ids[start:end].tolist()), {default: 1})
            hits.append(float(max(types, key=lambda name: types[name]) == tag))
    score = mean_score("tagging accuracy", "no network", "the commonest tag of each word", hits)
    return [row(score, "tag", "majority")]


# ----------------------------------------------------------------------------------------- points of a curve

def point(trained: Trained, desk: Desk) -> dict[str, float]:
    """The common currencies at a point of a curve, on fewer items than at the end: measure -> value."""
    from bothways.evaluation.likelihood import suffix
    from bothways.evaluation.probes import probe_texts

    effort, questions = desk.effort, desk.questions
    scores = suffix(trained, desk.prepared.valid, limit=effort.curve_windows, samples=effort.curve_samples,
                    off_mode=False, truth=desk.truth)
    found: dict[str, float] = {}
    for score in scores:
        if _wanted(score.name, desk):
            # the first mode is the principal one; a hybrid's is the causal, by which it stands on likelihoods
            found.setdefault(SCORE_NAMES[score.name], score.value)
    train, test = effort.curve_labelled
    if questions.train_texts:
        visibility = readings(trained, off=False)[-1][0]
        probe = probe_texts(trained, questions.train_texts[:train], questions.test_texts[:test], visibility=visibility,
                            control=False, longest=effort.longest)
        found["classify-frozen"] = probe[0].value
    return found
