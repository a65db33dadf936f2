"""Speculative decoding: several tokens are drafted cheaply, and one pass of the network says how many of them stand.

A drafted token x with draft probability q(x) is accepted with probability min(1, p(x) / q(x)); the first that is not
is drawn again from max(0, p - q), normalised. What is written has then exactly the distribution p of drawing token by
token (arXiv 2211.17192, appendix A.1), whatever drafts. Greedy writing accepts what is the likeliest token.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import torch
from torch import Tensor

from bothways.batch import Example
from bothways.decoding.left_to_right import NewToken, Writer
from bothways.decoding.reading import Reader
from bothways.decoding.sampling import BLOCKED, GenerateConfig, draw, filtered
from bothways.model import LanguageModel


class Drafter(Protocol):
    """Who proposes tokens. Texts have the numbers they have in the writer."""

    def begin(self, texts: Sequence[int]) -> None:
        """These texts are written from now on."""

    def draft(self, wanted: dict[int, int], written: dict[int, list[int]], uniform: Uniform
              ) -> dict[int, list[tuple[int, Tensor | None]]]:
        """For each text at most as many tokens as wanted, each with the distribution (V,) it was drawn from (none for a
        token that was certain); `written` is what stands after each prompt."""

    def leave(self, texts: Sequence[int]) -> None:
        """Only these texts are still open."""


class Uniform:
    """Numbers in [0, 1) for each text, from its own seed: the same whoever is written beside it."""

    def __init__(self, seeds: Sequence[int]) -> None:
        self.generators = [torch.Generator().manual_seed(seed) for seed in seeds]

    def __call__(self, texts: Sequence[int]) -> Tensor:
        """One number for each of these texts, (n,) float64."""
        return torch.cat([torch.rand(1, generator=self.generators[text], dtype=torch.float64) for text in texts])


class SpeculativeWriter(Writer):
    """A `Writer` whose steps write between one token and `config.draft_tokens` + 1 of each text.

    Args:
        drafter: who proposes.
        limits: the most tokens of each text; nothing is drafted beyond.
    """

    def __init__(self, network: LanguageModel, examples: Sequence[Example], config: GenerateConfig, blocked: Tensor,
                 limits: Sequence[int], drafter: Drafter, **options: object) -> None:
        self.slack = config.draft_tokens + 1
        super().__init__(network, examples, config, blocked, max(limits), **options)  # type: ignore[arg-type]
        self.drafter, self.limits = drafter, limits
        self.uniform = Uniform(self._seeds)
        self.drafted = self.accepted = 0
        """Tokens that were proposed, and those that stood."""

    @torch.inference_mode()
    def step(self) -> list[NewToken]:
        """One or more tokens for every open text, text after text."""
        if self._waiting:
            self.drafter.begin([row for row, _ in self._waiting])
            logits = self._logits(self._advance())
            rows = list(self.open)
            return [new for _, new in sorted(self._take(rows, self._allowed(logits, rows), logits))]
        self.evaluations += 1
        self._leave()
        rows = list(self.open)
        # 1. proposals, never beyond the last token that may be written
        self.drafter.leave(rows)
        wanted = {row: min(self.config.draft_tokens, self.limits[row] - len(self._written[row]) - 1) for row in rows}
        proposed = self.drafter.draft(wanted, self._written, self.uniform)
        drafts = [proposed.get(row, []) for row in rows]
        # 2. the network reads them all
        states = self.reader.read([[self._last[row], *(token for token, _ in draft)]
                                   for row, draft in zip(rows, drafts, strict=True)])
        logits = self._logits(states)
        firsts = torch.tensor([0, *(len(draft) + 1 for draft in drafts)]).cumsum(0)
        # 3. place by place: accept, or draw again and stop
        new: list[tuple[int, NewToken]] = []
        stood = dict.fromkeys(rows, 0)
        going = list(range(len(rows)))
        place = 0
        while going:
            chosen = logits[(firsts[going] + place).to(self.device)]
            texts = [rows[number] for number in going]
            scores = self._allowed(chosen, texts)
            here = [drafts[number][place] if place < len(drafts[number]) else None for number in going]
            accepted = self._accepted(scores, here, texts)
            kept = [i for i, yes in enumerate(accepted) if yes]
            others = [i for i, yes in enumerate(accepted) if not yes]
            for i in kept:
                token = here[i][0]  # type: ignore[index]
                logprob = float(chosen[i, token] - chosen[i].logsumexp(-1))
                new.append((going[i], self._wrote(texts[i], token, logprob)))
                stood[texts[i]] += 1
            if others:
                left = torch.stack([_remaining(scores[i], here[i]) for i in others])
                new += [(going[others[i]], one) for i, one in
                        self._take([texts[i] for i in others], left, chosen[torch.tensor(others)])]
            going = [going[i] for i in kept]
            place += 1
        # 4. what did not stand is taken back
        self.reader.take_back([len(draft) - stood[row] for row, draft in zip(rows, drafts, strict=True)])
        self.drafted += sum(map(len, drafts))
        self.accepted += sum(stood.values())
        return [one for _, one in sorted(new, key=lambda entry: entry[0])]

    def _accepted(self, scores: Tensor, here: Sequence[tuple[int, Tensor | None] | None], texts: Sequence[int]
                  ) -> list[bool]:
        """Which proposals stand."""
        asked = [i for i, proposal in enumerate(here) if proposal is not None]
        answers = [False] * len(here)
        if not asked:
            return answers
        if self.config.temperature == 0:
            likeliest = scores.argmax(-1).tolist()
            for i in asked:
                answers[i] = here[i][0] == likeliest[i]  # type: ignore[index]
            return answers
        wants = scores.double().softmax(-1)
        lots = self.uniform([texts[i] for i in asked]).tolist()
        for i, lot in zip(asked, lots, strict=True):
            token, distribution = here[i]  # type: ignore[misc]
            drafted = 1.0 if distribution is None else float(distribution[token])
            answers[i] = lot * drafted < float(wants[i, token])
        return answers

    def _take(self, rows: list[int], scores: Tensor, logits: Tensor) -> list[tuple[int, NewToken]]:
        """Draw a token for each of these texts: (number in `rows`, token)."""
        tokens = scores.argmax(-1) if self.config.temperature == 0 else draw(scores, self.uniform(rows))
        logprobs = logits.gather(-1, tokens.unsqueeze(-1)).squeeze(-1) - logits.logsumexp(-1)
        return [(i, self._wrote(row, token, logprob)) for i, (row, token, logprob) in
                enumerate(zip(rows, tokens.tolist(), logprobs.tolist(), strict=True))]


def _remaining(scores: Tensor, proposal: tuple[int, Tensor | None] | None) -> Tensor:
    """Scores (V,) of max(0, p - q) after a proposal that did not stand; those of p where there was none."""
    if proposal is None:
        return scores
    token, drafted = proposal
    wants = scores.double().softmax(-1)
    if drafted is None:
        left = wants.clone()
        left[token] = 0
    else:
        left = (wants - drafted).clamp_(min=0)
    return left.log().to(scores.dtype) if bool(left.any()) else scores


class Model:
    """Drafts with a smaller network that has the same vocabulary.

    Args:
        network: in evaluation mode.
        examples: what each text begins from, as the draft's own objective reads it.
        config: its temperature and filters are those of what is written.
        blocked: (V,) bool, tokens that are never written.
        places: how many tokens the draft's texts may have.
    """

    def __init__(self, network: LanguageModel, examples: Sequence[Example], config: GenerateConfig, blocked: Tensor,
                 places: int, most: int) -> None:
        self.network, self.examples, self.config, self.blocked = network, examples, config, blocked
        self.places, self.most = places, most
        self.reader = Reader(network, config.cached, config.cache_numbers, config.draft_tokens + 1)
        self.rows: list[int] = []
        self.read: dict[int, int] = {}
        """Of each text, how many written tokens it has read."""

    def begin(self, texts: Sequence[int]) -> None:
        self.reader.join([self.examples[text] for text in texts], self.most + self.config.draft_tokens + 1)
        self.rows += texts
        self.read |= dict.fromkeys(texts, 0)

    def leave(self, texts: Sequence[int]) -> None:
        if len(texts) < len(self.rows):
            self.reader.keep([place for place, row in enumerate(self.rows) if row in texts])
            self.rows = [row for row in self.rows if row in texts]

    def draft(self, wanted: dict[int, int], written: dict[int, list[int]], uniform: Uniform
              ) -> dict[int, list[tuple[int, Tensor | None]]]:
        """As `Drafter`; a text for which the draft has no more places gets nothing."""
        room = {row: self.places - len(self.examples[row]) - len(written[row]) for row in self.rows}
        wanted = {row: max(0, min(wanted[row], room[row])) for row in self.rows}
        made: dict[int, list[tuple[int, Tensor | None]]] = {row: [] for row in self.rows}
        drafted = dict.fromkeys(self.rows, 0)
        # 1. first what was written since, then one token after the other
        for turn in range(max(wanted.values(), default=0)):
            some = [row for row in self.rows if wanted[row] > turn]
            fresh = {row: written[row][self.read[row]:] if not turn else [made[row][-1][0]] for row in some}
            states = self.reader.read([fresh.get(row, []) for row in self.rows])
            for row in some:
                self.read[row] += len(fresh[row])
                drafted[row] += bool(turn)
            ends = torch.tensor([len(fresh[row]) for row in some]).cumsum(0) - 1
            logits = self.network.logits(states[ends.to(states.device)]).float()
            scores = filtered(logits.masked_fill(self.blocked, BLOCKED), self.config)
            if self.config.temperature == 0:
                tokens, shares = scores.argmax(-1), [None] * len(some)
            else:
                tokens = draw(scores, uniform(some))
                shares = list(scores.double().softmax(-1))  # type: ignore[arg-type]
            for row, token, share in zip(some, tokens.tolist(), shares, strict=True):
                made[row].append((token, share))
        # 2. what it read of its own proposals is taken back: nobody knows yet what will stand
        self.reader.take_back([drafted[row] for row in self.rows])
        for row in self.rows:
            self.read[row] -= drafted[row]
        return made


class Lookup:
    """Drafts what followed the last tokens where they stood before, in the prompt or in what was written.

    Args:
        texts: what may be looked up before anything is written: the prompt of each text.
        longest: the most last tokens that are compared; the longest match wins, the latest of several.
    """

    def __init__(self, texts: Sequence[Sequence[int]], longest: int, least: int = 1) -> None:
        self.longest, self.least = longest, least
        self.texts = [list(map(int, text)) for text in texts]
        self.known = [len(text) for text in self.texts]
        self.places: list[dict[tuple[int, ...], int]] = [{} for _ in texts]
        for number in range(len(texts)):
            self._note(number, 0)

    def begin(self, texts: Sequence[int]) -> None:
        pass

    def leave(self, texts: Sequence[int]) -> None:
        pass

    def draft(self, wanted: dict[int, int], written: dict[int, list[int]], uniform: Uniform
              ) -> dict[int, list[tuple[int, Tensor | None]]]:
        """As `Drafter`; every token is certain."""
        made = {}
        for text, count in wanted.items():
            # a table of what followed which last tokens: the work for a token is the same wherever it stands
            before = len(self.texts[text])
            self.texts[text] += written[text][before - self.known[text]:]
            found = self._found(text)
            self._note(text, before)
            made[text] = [(token, None) for token in self.texts[text][found:found + count]] if found else []
        return made  # type: ignore[return-value]

    def _note(self, text: int, first: int) -> None:
        """Remember the places behind tokens from `first` on, but for the end: nothing follows it yet."""
        ids = self.texts[text]
        for end in range(max(first, 1), len(ids)):
            for size in range(self.least, min(self.longest, end) + 1):
                self.places[text][tuple(ids[end - size:end])] = end

    def _found(self, text: int) -> int:
        """Where to go on reading; 0 if the last tokens stood nowhere before."""
        ids = self.texts[text]
        return next((self.places[text][key] for size in range(min(self.longest, len(ids)), self.least - 1, -1)
                     if (key := tuple(ids[-size:])) in self.places[text]), 0)
