"""Rewriting one text as another (a function's body as the first line of its docstring), for models that can write.

Every paradigm is asked in its own format, through its objective's `blank`: the text is `<bos> source <sep> target
<eos>` and the target with its end is hidden. So a causal model writes on after `<sep>`, a decoder writes what stands
behind the blank, and a diffusion model fills places, as many as the longest target has: shorter ones are filled up
with `<eos>`, which makes the bound one of the same event, the target and its end.
"""

from __future__ import annotations

import copy
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
from torch import Tensor

from bothways.errors import BothwaysError
from bothways.evaluation.likelihood import bound, exact
from bothways.evaluation.questions import Way, ways
from bothways.evaluation.rows import TOKENS
from bothways.evaluation.score import Score, Stopwatch, mean_score
from bothways.tasks.asking import loss, questions
from bothways.tasks.tuning import TuneConfig, tune

if TYPE_CHECKING:
    from bothways.families.trained import Trained

Texts = Sequence[tuple[str, str]]
"""(source, target) pairs."""


@dataclass(frozen=True)
class Format:
    """How long things may be: a source is cut to `source` tokens, a target to `target` (its `<eos>` counted in)."""

    source: int = 160
    target: int = 32


@dataclass(frozen=True)
class Rewriter:
    """A fine-tuned network, the way it is called, and the lengths it was tuned for."""

    trained: Trained
    way: Way
    format: Format

    def prompt(self, source: str) -> list[int]:
        """`<bos> source <sep>`."""
        return _prompt(self.trained, source, self.format)

    def write(self, sources: Sequence[str]) -> list[str]:
        """The likeliest target of each source, by the decoding that fits."""
        from bothways.decoding import GenerateConfig, generate

        config = GenerateConfig(max_new_tokens=self.format.target, temperature=0.0)
        written = generate(self.trained, [self.prompt(source) for source in sources], config, self.way.mode)
        return [self.trained.tokenizer.decode(one.ids).strip() for one in written]


def writing_way(trained: Trained) -> Way | None:
    """The way in which a model writes: left to right, or by diffusion; none for one that only fills single blanks."""
    found = ways(trained, off_mode=False)
    return next((way for way in found if way.kind == "exact"), None) or \
        next((way for way in found if way.mode is not None and way.mode.likelihood == "bound"), None)


def fine_tune(trained: Trained, train: Texts, config: TuneConfig | None = None, form: Format | None = None,
              watch: Callable[[int, float], None] | None = None) -> Rewriter:
    """A copy of a trained network that rewrites.

    Raises:
        BothwaysError: a model that cannot write (a masked encoder), or no texts.
    """
    config, form = config or TuneConfig(), form or Format()
    way = writing_way(trained)
    if way is None:
        raise BothwaysError(f"a model trained by '{trained.objective.name}' fills single blanks but does not write: "
                            "rewrite with a causal, encoder-decoder, hybrid or diffusion model")
    if not len(train):
        raise BothwaysError("rewriting needs pairs of a source and a target to learn from: give some")
    network = copy.deepcopy(trained.network)
    asked = [question(trained, source, target, way, form) for source, target in train]
    fixed = questions(way, asked, 0, 0, range(len(asked))) if way.kind == "exact" else None

    tuned = replace(trained, network=network)

    def loss_of(places: list[int], step: int) -> Tensor:
        return loss(tuned, [fixed[place] for place in places] if fixed is not None else
                    questions(way, [asked[place] for place in places], step, config.seed, places))

    tune(network, None, len(train), loss_of, config, watch)
    return Rewriter(tuned, way, form)


def rewriting(trained: Trained, train: Texts, test: Texts, config: TuneConfig | None = None,
              form: Format | None = None, *, written: int = 32, samples: int = 16, tokens: int = TOKENS) -> list[Score]:
    """Fine-tune on `train`, score on `test`.

    Args:
        written: test sources that are written out (greedily).
    Returns:
        "rewriting NLL" (nats per target token, its end counted), "rewriting token F1" (multiset of lower-case words)
        and "rewriting chrF"; items are texts. An empty list for a model that cannot write.
    """
    watch = Stopwatch()
    if writing_way(trained) is None:
        return []
    rewriter = fine_tune(trained, train, config, form)
    scores = [target_nll(rewriter, test, samples, tokens)]
    pairs = [(one, target) for one, (_, target) in
             zip(rewriter.write([source for source, _ in test[:written]]), test[:written])]
    how, mode = "greedy, against one reference", rewriter.way.name
    scores.append(mean_score("rewriting token F1", mode, how, [token_f1(*pair) for pair in pairs], unit="F1"))
    scores.append(mean_score("rewriting chrF", mode, how, [chrf(*pair) for pair in pairs], unit="chrF"))
    return [replace(score, seconds=watch.seconds / len(scores)) for score in scores]


def target_nll(rewriter: Rewriter, test: Texts, samples: int = 16, tokens: int = TOKENS) -> Score:
    """NLL of the true targets and their ends: exact, or the diffusion bound."""
    trained, way, form = rewriter.trained, rewriter.way, rewriter.format
    asked = [question(trained, source, target, way, form) for source, target in test]
    # the end is counted once, however many <eos> fill up a diffusion model's places
    lengths = [len(_target(trained, target, form)) for _, target in test]
    nats = exact(trained, way, asked, tokens) if way.kind == "exact" else bound(trained, way, asked, samples, 0, tokens)
    return mean_score("rewriting NLL", way.name, "exact" if way.kind == "exact" else f"upper bound, {samples} samples",
                      nats / np.array(lengths), lengths, unit="nats per token", higher_is_better=False)


def question(trained: Trained, source: str, target: str, way: Way, form: Format) -> tuple[np.ndarray, np.ndarray]:
    """`<bos> source <sep> target <eos>` and which of it is hidden: (ids (L,), hidden (L,) bool)."""
    prompt, answer = _prompt(trained, source, form), _target(trained, target, form)
    if way.kind != "exact":
        answer += [trained.vocabulary.eos] * (form.target - len(answer))
    ids = np.array(prompt + answer, dtype=np.int64)
    return ids, np.arange(len(ids)) >= len(prompt)


def token_f1(written: str, reference: str) -> float:
    """F1 of the multisets of lower-case words."""
    one, other = Counter(written.lower().split()), Counter(reference.lower().split())
    return _f1(one, other, 1.0)


def chrf(written: str, reference: str, longest: int = 6, beta: float = 2.0) -> float:
    """chrF2 in percent (Popović 2015): the mean over character n-grams, n = 1..6, of F-beta, spaces left out."""
    one, other = ("".join(text.split()) for text in (written, reference))
    shares = [_f1(_ngrams(one, n), _ngrams(other, n), beta) for n in range(1, longest + 1)
              if len(one) >= n or len(other) >= n]
    return 100 * float(np.mean(shares)) if shares else 0.0


def _f1(one: Counter[str], other: Counter[str], beta: float) -> float:
    shared = sum((one & other).values())
    if not shared:
        return 0.0
    precision, recall = shared / sum(one.values()), shared / sum(other.values())
    return (1 + beta ** 2) * precision * recall / (beta ** 2 * precision + recall)


def _ngrams(text: str, n: int) -> Counter[str]:
    return Counter(text[place:place + n] for place in range(len(text) - n + 1))


def _prompt(trained: Trained, source: str, form: Format) -> list[int]:
    ids = trained.tokenizer.encode(source, reserved=False)[:form.source - 2]
    return [trained.vocabulary.bos, *ids, trained.vocabulary.sep]


def _target(trained: Trained, target: str, form: Format) -> list[int]:
    return [*trained.tokenizer.encode(target, reserved=False)[:form.target - 1], trained.vocabulary.eos]
