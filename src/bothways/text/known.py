"""A known source: a small grammar whose true probabilities can be computed.

It is a hidden Markov model over about 160 states, so the forward algorithm (Rabiner 1989, section III.A) gives the
exact probability of every token. What it holds is what tells paradigms apart:

- agreement at a distance: the verb agrees with its subject across a modifier that has a noun, or a verb, of its own;
- ambiguity that only the right context resolves: `the light box fell` and `the light fell`, `the sheep run` and
  `the sheep runs`;
- a topic that stays the same through a document, and colours the choice of nouns and verbs.

A document is two to four sentences of one topic, and at most 54 tokens with `<bos>` and `<eos>`.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import scipy.sparse

from bothways.errors import BothwaysError
from bothways.text.grammar import AMBIGUOUS, STOPS, Grammar
from bothways.text.labels import Labelled, Tagged
from bothways.text.pairs import Pair
from bothways.text.prepare import Prepared, building, finish
from bothways.text.tokenizer import Tokenizer
from bothways.text.windows import WindowWriter

SENTENCES = {2: 0.4, 3: 0.35, 4: 0.25}
"""How many sentences a document has, and how likely each number is."""
LONGEST = 4 * 13 + 2
"""The most tokens a document has, `<bos>` and `<eos>` included."""


class KnownSource:
    """The grammar, its words as a tokenizer, and everything true about it.

    `seed` draws how likely each word is in its place; the grammar itself is always the same.
    """

    def __init__(self, seed: int = 0) -> None:
        self.seed = seed
        self.grammar = Grammar.make(seed)
        self.tokenizer = Tokenizer.words(self.grammar.words)
        self.ambiguous = AMBIGUOUS
        """The words whose tag is told by what follows them."""
        self._first = self.tokenizer.size - len(self.grammar.words)
        self._stops = np.isin(np.arange(self.tokenizer.size), [self._id(word) for word in STOPS])
        # (V, S): how likely each state says each token; a reserved token is never said
        self._says = np.zeros((self.tokenizer.size, len(self.grammar.starts)))
        self._says[self._first:] = self.grammar.says.T
        self._moves = scipy.sparse.csr_array(self.grammar.moves)  # a state leads to a handful of others
        ends = np.array([SENTENCES.get(n, 0.0) for n in range(max(SENTENCES) + 1)])
        alive = np.cumsum(ends[::-1])[::-1]
        self._end_after = np.divide(ends, alive, out=np.zeros_like(ends), where=alive > 0)
        """(5,) the probability that the document ends after its n-th sentence."""

    # --- the truth ---

    def true_nll(self, ids: np.ndarray | Sequence[int]) -> np.ndarray:
        """-log p(token | all tokens to its left), in nats, exactly.

        Args:
            ids: (L,) or (N, L) token ids that begin with `<bos>`; `<pad>` may fill up rows after `<eos>`.
        Returns:
            float64 of the same shape: 0 at `<bos>` and `<pad>`, infinite where the grammar forbids a token, and from
            there on.
        Raises:
            BothwaysError: a row does not begin with `<bos>`.
        """
        rows = np.atleast_2d(np.asarray(ids, dtype=np.int64))
        vocabulary = self.tokenizer.vocabulary
        if rows.shape[1] == 0 or (rows[:, 0] != vocabulary.bos).any():
            raise BothwaysError("true probabilities are of whole documents: each row must begin with <bos>")
        # 1. what is not reached below is forbidden, but for padding after the end
        after_end = np.cumsum(rows == vocabulary.eos, axis=1) > 0
        nll = np.where((rows == vocabulary.pad) & after_end, 0.0, np.inf)
        nll[:, 0] = 0.0
        # 2. before the first word: the states a document can begin in, and no sentence finished
        live = np.arange(len(rows))
        forward = np.tile(self.grammar.starts, (len(rows), 1))
        sentences = np.zeros(len(rows), dtype=np.int64)
        after_stop = np.zeros(len(rows), dtype=bool)
        for place in range(1, rows.shape[1]):
            token = rows[live, place]
            # 3. <eos> is said by no state: it follows a finished sentence with a probability of its own
            end = np.where(after_stop, self._end_after[np.minimum(sentences, len(self._end_after) - 1)], 0.0)
            joint = forward * self._says[token]
            said = joint.sum(axis=1)
            probability = np.where(token == vocabulary.eos, end, (1 - end) * said)
            seen = probability > 0
            nll[live[seen], place] = -np.log(probability[seen])
            # 4. on with the documents that have not ended: what is believed of the state, given the token
            going = seen & (token != vocabulary.eos)
            live, token = live[going], token[going]
            if not len(live):
                break
            forward = (joint[going] / said[going, None]) @ self._moves
            after_stop = self._stops[token]
            sentences = sentences[going] + after_stop
        return nll.reshape(np.shape(ids))

    def true_conditional(self, ids: np.ndarray | Sequence[int], place: int) -> np.ndarray:
        """p(token at `place` | all the other tokens of the document), exactly: (V,) float64.

        What stands at `place` now does not matter. By Bayes: the probability of the whole document with each token
        there, normalised.

        Raises:
            BothwaysError: no token makes the document possible, or `place` is not within it.
        """
        row = np.asarray(ids, dtype=np.int64)
        if not 0 < place < len(row):
            raise BothwaysError(f"place {place} is not one of 1 to {len(row) - 1}")
        rows = np.tile(row, (self.tokenizer.size, 1))
        rows[:, place] = np.arange(self.tokenizer.size)
        rows = rows[rows[:, place] != self.tokenizer.vocabulary.pad]
        total = self.true_nll(rows).sum(axis=1)
        if not np.isfinite(total).any():
            raise BothwaysError(f"no token at place {place} makes this document possible")
        shares = np.exp(-(total - total.min()))
        conditional = np.zeros(self.tokenizer.size)
        conditional[rows[:, place]] = shares / shares.sum()
        return conditional

    @functools.cached_property
    def entropy_rate(self) -> float:
        """Nats per token (words and `<eos>`; `<bos>` is given): the mean true loss of 20,000 drawn documents.

        Its standard error is below 0.003.
        """
        rows = self.padded(self.sample(20_000, np.random.default_rng((self.seed, 1))))
        return float(self.true_nll(rows).sum() / ((rows != self.tokenizer.vocabulary.pad).sum() - len(rows)))

    # --- drawing from it ---

    def sample(self, documents: int, rng: np.random.Generator) -> list[np.ndarray]:
        """Documents drawn independently: each (L,) int64, `<bos> ... <eos>`."""
        ids, _ = self._draw(documents, rng)
        return ids

    def padded(self, documents: Sequence[np.ndarray]) -> np.ndarray:
        """Documents as rows (N, longest), filled up with `<pad>`, for `true_nll`."""
        rows = np.full((len(documents), max(map(len, documents))), self.tokenizer.vocabulary.pad, dtype=np.int64)
        for row, ids in zip(rows, documents, strict=True):
            row[:len(ids)] = ids
        return rows

    def _draw(self, documents: int, rng: np.random.Generator) -> tuple[list[np.ndarray], list[np.ndarray]]:
        """Documents and, for each of their words, the state that said it (-1 at `<bos>` and `<eos>`)."""
        vocabulary = self.tokenizer.vocabulary
        states = np.full((documents, LONGEST), -1, dtype=np.int64)
        ids = np.full((documents, LONGEST), vocabulary.eos, dtype=np.int64)
        ids[:, 0] = vocabulary.bos
        lengths = np.zeros(documents, dtype=np.int64)
        wanted = rng.choice(list(SENTENCES), size=documents, p=list(SENTENCES.values()))
        says, moves = _stacked(self.grammar.says), _stacked(self.grammar.moves)
        # one word for every document at a time; those whose last sentence has ended stand aside
        state = _choose(_stacked(self.grammar.starts[None]), np.zeros(documents, dtype=np.int64), rng)
        live = np.arange(documents)
        for place in range(1, LONGEST):
            word = _choose(says, state, rng) + self._first
            states[live, place], ids[live, place] = state, word
            wanted[live] -= self._stops[word]
            lengths[live] = place + 2
            going = wanted[live] > 0
            live, state = live[going], state[going]
            if not len(live):
                break
            state = _choose(moves, state, rng)
        return ([row[:length] for row, length in zip(ids, lengths, strict=True)],
                [row[:length] for row, length in zip(states, lengths, strict=True)])

    def prepare(self, folder: str | Path, *, documents: int = 20_000, window: int = 64, held_out: float = 0.05,
                seed: int = 0) -> Prepared:
        """Draw documents into a folder to train on; `held_out` of them are the `valid` split.

        Duplicates are kept, since leaving them out would change the source.

        Raises:
            BothwaysError: the window does not hold the longest document, so that its probabilities were not true.
        """
        if window < LONGEST:
            raise BothwaysError(f"a document of the known source has up to {LONGEST} tokens, so its window cannot be "
                                f"{window}")
        key = f"known-{self.seed}-{self.tokenizer.fingerprint}-{documents}-{window}-{held_out}-{seed}"
        folder = Path(folder)
        with_key = folder / "prepared.json"
        if with_key.is_file() and f'"{key}"' in with_key.read_text(encoding="utf-8"):
            return Prepared.load(folder)
        drawn = self.sample(documents, np.random.default_rng((self.seed, 2, seed)))
        valid = max(1, round(held_out * documents))
        with building(folder) as aside:
            report: dict[str, object] = {"source": "known source", "window": window, "documents": documents,
                                         "vocabulary": self.tokenizer.size, "tokenizer": "words",
                                         "duplicates_removed": 0}
            for split, part in (("train", drawn[valid:]), ("valid", drawn[:valid])):
                writer = WindowWriter(aside, split, window, self.tokenizer.vocabulary)
                writer.add(part)
                writer.close()
                report |= {f"{split}_documents": len(part), f"{split}_windows": writer.windows,
                           f"{split}_tokens": writer.tokens, f"{split}_bytes": writer.bytes}
            tokens = sum(map(len, drawn))
            text = int(sum(self.tokenizer.vocabulary.n_bytes[ids].sum() for ids in drawn))
            report |= {"tokens": tokens, "bytes": text, "bytes_per_token": round(text / (tokens - 2 * documents), 4),
                       "packing_efficiency": 1.0, "padded_efficiency": round(tokens / (documents * window), 4)}
            finish(aside, self.tokenizer, key, report)
        return Prepared.load(folder)

    # --- tasks with known answers ---

    def pairs(self, n: int, rng: np.random.Generator) -> list[Pair]:
        """Sentences, and the same with the main verb in the wrong number; half have a modifier before the verb.

        Kinds: `near` (the verb follows its subject), `across a modifier`. The grammar forbids every bad one.
        """
        made: dict[str, list[Pair]] = {"near": [], "across a modifier": []}
        wanted = {"near": n - n // 2, "across a modifier": n // 2}
        while any(len(made[kind]) < wanted[kind] for kind in made):
            for words, states in self._sentences(2 * n + 16, rng):
                roles = [self.grammar.roles[state] for state in states]
                verb = next(i for i, role in enumerate(roles) if role.part in ("verb", "be"))
                subject = next(i for i, role in enumerate(roles) if role.part == "noun")
                if words[subject] in self.ambiguous:
                    continue  # either number would do
                kind = "near" if verb == subject + 1 else "across a modifier"
                if len(made[kind]) < wanted[kind]:
                    other = [*words[:verb], self.grammar.other_number[words[verb]], *words[verb + 1:]]
                    made[kind].append(Pair(" ".join(words), " ".join(other), kind))
        pairs = [pair for group in made.values() for pair in group]
        return [pairs[i] for i in rng.permutation(len(pairs))]

    def tagged(self, n: int, rng: np.random.Generator) -> list[Tagged]:
        """Sentences with a tag for each word; the tag of an `ambiguous` word depends on its right context."""
        rows = []
        for words, states in self._sentences(n, rng):
            spans, start = [], 0
            for word, state in zip(words, states, strict=True):
                spans.append((start, start + len(word), self.grammar.roles[state].tag))
                start += len(word) + 1
            rows.append(Tagged(" ".join(words), tuple(spans)))
        return rows

    def parsed(self, n: int, rng: np.random.Generator) -> list[tuple[list[str], list[str]]]:
        """The words of sentences, and the part of the sentence that each stands for (`Role.part`)."""
        return [(words, [self.grammar.roles[state].part for state in states])
                for words, states in self._sentences(n, rng)]

    def labelled(self, n: int, rng: np.random.Generator) -> Labelled:
        """Sentences and the topic of each."""
        rows = self._sentences(n, rng)
        topics = [self.grammar.roles[states[0]].topic for _, states in rows]
        return Labelled.of([" ".join(words) for words, _ in rows], topics, tuple(sorted(self.grammar.topics)))

    def _sentences(self, n: int, rng: np.random.Generator) -> list[tuple[list[str], list[int]]]:
        """(words, states) of the first sentence of `n` documents."""
        rows = []
        for ids, states in zip(*self._draw(n, rng), strict=True):
            end = int(np.flatnonzero(self._stops[ids])[0]) + 1
            rows.append(([self.grammar.words[i - self._first] for i in ids[1:end]], [int(s) for s in states[1:end]]))
        return rows

    def _id(self, word: str) -> int:
        return self.grammar.words.index(word) + self._first


def _stacked(table: np.ndarray) -> np.ndarray:
    """Cumulative rows laid end to end, row r between r and r + 1, so that one sorted search draws from any row."""
    cumulative = np.cumsum(table, axis=1)
    cumulative /= cumulative[:, -1:]
    return (cumulative + np.arange(len(table))[:, None]).ravel()


def _choose(stacked: np.ndarray, rows: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """One draw from row `rows[i]` of a stacked table, for each i: (n,) int64 column numbers."""
    width = len(stacked) // max(1, int(np.ceil(stacked[-1])))
    found = np.searchsorted(stacked, rows + rng.random(len(rows)), side="right")
    return np.minimum(found - rows * width, width - 1)
