"""How a classifier bears damaged texts: typing errors, letter case, cut ends. Damage is a pure function of a seed."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from bothways.evaluation.score import Score, mean_score

Predict = Callable[[Sequence[str]], np.ndarray]
"""Texts -> (n, C) probabilities."""
KEYS = ("qwertyuiop", "asdfghjkl", "zxcvbnm")


def typos(text: str, rate: float, seed: int) -> str:
    """The text with a share `rate` of its letters hit by a slip: two exchanged, one missing, one twice, or a neighbour
    on the keyboard."""
    rng = np.random.default_rng((seed, len(text)))
    letters, out, place = list(text), [], 0
    while place < len(letters):
        letter = letters[place]
        place += 1
        if not letter.isalpha() or rng.random() >= rate:
            out.append(letter)
            continue
        slip = int(rng.integers(4))
        if slip == 0 and place < len(letters) and letters[place].isalpha():
            out += [letters[place], letter]
            place += 1
        elif slip == 1:
            continue
        elif slip == 2:
            out += [letter, letter]
        else:
            out.append(_neighbour(letter, rng))
    return "".join(out)


def case(text: str, rate: float, seed: int) -> str:
    """The text with a share `rate` of its words in capitals."""
    rng = np.random.default_rng((seed, len(text)))
    return " ".join(word.upper() if rng.random() < rate else word for word in text.split(" "))


def cut(text: str, rate: float, seed: int = 0) -> str:
    """The text without the last share `rate` of its words; one word stays."""
    words = text.split(" ")
    return " ".join(words[:max(1, round(len(words) * (1 - rate)))])


DAMAGE: dict[str, Callable[[str, float, int], str]] = {"typos": typos, "case": case, "cut": cut}
"""Name -> damage(text, rate, seed)."""


def robustness(predict: Predict, texts: Sequence[str], labels: np.ndarray, *, mode: str = "all",
               rates: Sequence[float] = (0.05, 0.1, 0.3), seed: int = 0) -> list[Score]:
    """Accuracy on damaged texts, and what the damage costs each text.

    Args:
        predict: probabilities of texts. labels: (n,) true classes.
        rates: shares of letters, of words in capitals, or of words cut off.
    Returns:
        "accuracy" of the texts as they are, then for each damage and rate "accuracy under DAMAGE" and "accuracy lost
        to DAMAGE" (items are texts, so that losses are paired); the estimator says the rate.
    """
    labels = np.asarray(labels)
    plain = (predict(texts).argmax(1) == labels).astype(float)
    scores = [mean_score("accuracy", mode, "texts as they are", plain, unit="accuracy")]
    for name, damage in DAMAGE.items():
        for rate in rates:
            damaged = [damage(text, rate, seed + number) for number, text in enumerate(texts)]
            right = (predict(damaged).argmax(1) == labels).astype(float)
            how = f"rate {rate:g}"
            scores.append(mean_score(f"accuracy under {name}", mode, how, right, unit="accuracy"))
            scores.append(mean_score(f"accuracy lost to {name}", mode, how, plain - right, unit="accuracy",
                                     higher_is_better=False))
    return scores


def _neighbour(letter: str, rng: np.random.Generator) -> str:
    """The key beside this one, in the same case; the letter itself where the keyboard is not known."""
    for row in KEYS:
        at = row.find(letter.lower())
        if at >= 0:
            near = row[max(0, at - 1):at] + row[at + 1:at + 2]
            found = near[int(rng.integers(len(near)))]
            return found.upper() if letter.isupper() else found
    return letter
