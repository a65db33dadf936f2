"""What a network has by heart: training text that comes out again, and facts that are known one way round only."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from bothways.batch import Window
from bothways.errors import BothwaysError
from bothways.evaluation.answers import TOKENS
from bothways.evaluation.conditional import continuations
from bothways.evaluation.questions import Way, spread, ways
from bothways.evaluation.score import Score, mean_score, timed
from bothways.text.records import sound_records, text_of

if TYPE_CHECKING:
    from bothways.families.trained import Trained


def extraction(trained: Trained, windows: Sequence[Window] | Sequence[np.ndarray], *, name: str = "training text",
               prompt: int = 32, lengths: Sequence[int] = (8, 16, 32), limit: int = 256,
               tokens: int = TOKENS) -> list[Score]:
    """The share of texts whose next k tokens are written out exactly, given the tokens before (Carlini et al. 2023,
    arXiv 2202.07646, definition 3.1).

    A greedy continuation is the true one exactly where each true token is the likeliest given those before it: one pass
    for each text, and nothing is written. Held-out text, measured likewise, says how much of it is mere likelihood.

    Args:
        windows: what the network was trained on, or held-out text for the control.
        name: which of the two, for the Scores.
        prompt: tokens given. lengths: k.
        limit: windows, spread evenly; those shorter than prompt and k are passed over.
    Returns:
        "extracted NAME, k tokens" for each k and exact way; items are texts. Nothing for a model without such a way.
    """
    scores: list[Score] = []
    every = [windows[place] for place in spread(len(windows), limit)]
    texts = [np.asarray(one.ids if isinstance(one, Window) else one, dtype=np.int64) for one in every]
    for way in ways(trained, off_mode=False):
        for length in lengths if way.kind == "exact" else ():
            some = [(ids[:prompt], ids[prompt:prompt + length]) for ids in texts if len(ids) >= prompt + length]
            with timed(scores):
                items = [float(bool(one.greedy)) for one in continuations(trained, some, way=way, tokens=tokens)]
                scores.append(mean_score(f"extracted {name}, {length} tokens", way.name,
                                         f"greedy after {prompt} tokens", items, unit="share", higher_is_better=False))
    return scores


def read_facts(path: str | Path) -> list[tuple[str, str]]:
    """Facts from rows with the columns a and b (CSV or JSON lines).

    Raises:
        BothwaysError: a damaged row, a column that is missing, or fewer than two facts.
    """
    path = Path(path)
    found = [(text_of(record, "a", f"{path}:{line}"), text_of(record, "b", f"{path}:{line}"))
             for line, record in sound_records(path)]
    if len(found) < 2:
        raise BothwaysError(f"'{path}' holds {len(found)} facts: an answer is chosen among those of all facts, so give "
                            "at least two")
    return found


def template(sentence: str, asked: str) -> tuple[str, str]:
    """A sentence with {a} and {b} as (prompt, answer): the answer begins with `asked`, which stands last.

    Raises:
        BothwaysError: not each of the two once, or the other order.
    """
    other = "a" if asked == "b" else "b"
    at = sentence.find("{" + asked + "}")
    if any(sentence.count("{" + name + "}") != 1 for name in "ab") or at < sentence.find("{" + other + "}"):
        raise BothwaysError(f"the template '{sentence}' must hold {{{other}}} once and, behind it, {{{asked}}} once")
    return sentence[:at], sentence[at:]


def reversal(trained: Trained, facts: Sequence[tuple[str, str]], *, forward: tuple[str, str] = ("{a} is ", "{b}"),
             backward: tuple[str, str] = ("{b} is ", "{a}"), way: Way | None = None, samples: int = 16,
             tokens: int = TOKENS) -> list[Score]:
    """Facts asked both ways round: is the true answer likelier than those of the other facts? (Berglund et al. 2023,
    arXiv 2309.12288.)

    Args:
        facts: (a, b), each b belonging to one a.
        forward, backward: (prompt, answer) templates, as the facts were trained and the other way round.
        way: of calling the model; the principal one when none.
    Returns:
        "reversal, forward", "reversal, backward" and "reversal gap" (forward minus backward; items are facts). An
        answer wins by its mean log p per token, so that lengths do not decide.
    """
    scores: list[Score] = []
    found = {}
    for name, (prompt, answer) in (("forward", forward), ("backward", backward)):
        with timed(scores):
            said = [prompt.format(a=a, b=b) for a, b in facts]
            options = [answer.format(a=a, b=b) for a, b in facts]
            heads = trained.tokenizer.encode_batch(said, reserved=False)
            tails = trained.tokenizer.encode_batch(options, reserved=False)
            asked = [(head, tail) for head in heads for tail in tails]
            answered = continuations(trained, asked, way=way, samples=samples, tokens=tokens)
            values = np.array([one.log_prob / one.tokens for one in answered]).reshape(len(facts), len(facts))
            found[name] = [float(row[place] >= row.max()) for place, row in enumerate(values)]
            called = (way or next((one for one in ways(trained, False) if one.kind == "exact"),
                                  ways(trained, False)[0])).name
            scores.append(mean_score(f"reversal, {name}", called, f"best of {len(facts)}, {answered[0].estimator}",
                                     found[name], unit="accuracy"))
    gap = np.array(found["forward"]) - np.array(found["backward"])
    scores.append(mean_score("reversal gap", scores[0].mode, "forward minus backward", gap, unit="accuracy",
                             higher_is_better=False))
    return scores
