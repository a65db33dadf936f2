"""The half of a model that writes: on after a prompt, into blanks, from one text to another."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Literal, overload

import torch
from torch import Tensor

from bothways import decoding
from bothways.api.held import Held, Texts
from bothways.decoding import GenerateConfig, Prefixes, Written
from bothways.decoding.interpolate import interpolate
from bothways.errors import BothwaysError, nearest
from bothways.evaluation.candidates import FillScore, score_fills
from bothways.families.conversation import conversation
from bothways.objectives.base import Mode
from bothways.visibility import Visibility

if TYPE_CHECKING:
    from bothways.api.model import Model


class Writes(Held):
    """A model as one writes with it."""

    @overload
    def generate(self, prompt: str, max_new_tokens: int = ..., *, stream: Literal[True], **options: Any
                 ) -> Iterator[str]: ...
    @overload
    def generate(self, prompt: str, max_new_tokens: int = ..., *, stream: Any = ..., **options: Any) -> str: ...
    @overload
    def generate(self, prompt: list[str], max_new_tokens: int = ..., *, stream: Any = ..., **options: Any
                 ) -> list[str]: ...
    @overload
    def generate(self, prompt: Tensor, max_new_tokens: int = ..., *, stream: Any = ..., **options: Any) -> Tensor: ...

    def generate(self, prompt: Texts | Tensor, max_new_tokens: int = 64, *, visibility: str | Visibility | None = None,
                 stop: Texts = (), stream: bool | Callable[[str], None] = False, draft: Model | None = None,
                 prefixes: Prefixes | None = None, **options: Any) -> str | list[str] | Tensor | Iterator[str]:
        """Write on after a prompt; the result is of the prompt's kind and begins with it (an answer on a new line).

        Args:
            prompt: a text, several, or a (L,) or (B, L) tensor of ids, which are read exactly as they stand (a text
                gets its `<bos>`).
            max_new_tokens: the most tokens to write.
            visibility: the name of a trained mode; needed where there are several.
            stop: strings that end the text and are not part of it.
            stream: true returns an iterator of the new text in pieces of whole characters; a function is called with
                each piece. One text at a time.
            draft: a smaller model with the same tokenizer, whose proposals make writing from left to right faster
                without changing what is written.
            prefixes: a `decoding.Prefixes`, which keeps what was read for later calls with the same beginning.
            options: temperature (0 is greedy), top_k, top_p, min_p, typical_p, the penalties, samples, seed; beams or
                contrast; regex, json_schema, choices or grammar; steps, block and order for models that fill many
                places at once; think_tokens and hide_thought for models that think before they answer. See
                `decoding.GenerateConfig`.
        Returns:
            text, texts, or a tensor (L + n,) or (B, L + n), shorter rows filled up with `<pad>` on the right; with
            `samples` above 1 so many of each prompt, one after the other, in a list or a tensor (B * samples, L + n).
        Raises:
            BothwaysError: an unknown or impossible option, a prompt too long for the network.
        """
        mode = self._mode(visibility)
        config = self._config(max_new_tokens=max_new_tokens, stop=(stop,) if isinstance(stop, str) else tuple(stop),
                              begin=not isinstance(prompt, Tensor), **options)
        helper = None if draft is None else draft.trained
        # 1. ids in, ids out
        if isinstance(prompt, Tensor):
            if stream:
                raise BothwaysError("only text is streamed: give the prompt as a string")
            rows = [row.tolist() for row in self._rows(prompt, "the prompt", empty=True)]
            written = decoding.generate(self.trained, rows, config, mode, None, helper, prefixes)
            joined = [[*rows[number // config.samples], *new.ids] for number, new in enumerate(written)]
            return self._padded(joined, prompt if config.samples == 1 or prompt.dim() == 2 else prompt[None])
        # 2. text in, text out
        texts = [prompt] if isinstance(prompt, str) else list(prompt)
        if stream and not isinstance(prompt, str):
            raise BothwaysError("one text is streamed at a time: give the prompt as a string")
        rows = self.tokenizer.encode_batch(texts)
        if stream is True:
            return decoding.stream(self.trained, rows[0], config, mode, helper, prefixes)
        listen = None if not callable(stream) else lambda _, piece: stream(piece)  # type: ignore[operator]
        written = decoding.generate(self.trained, rows, config, mode, listen, helper, prefixes)
        between = "\n" if self.objective.replies else ""
        results = [texts[number // config.samples] + between + (new.text or "") for number, new in enumerate(written)]
        return results[0] if isinstance(prompt, str) and config.samples == 1 else results

    @overload
    def chat(self, messages: str | Sequence[Mapping[str, str]], max_new_tokens: int = ..., *, stream: Literal[True],
             **options: Any) -> Iterator[str]: ...
    @overload
    def chat(self, messages: str | Sequence[Mapping[str, str]], max_new_tokens: int = ..., **options: Any) -> str: ...

    def chat(self, messages: str | Sequence[Mapping[str, str]], max_new_tokens: int = 256, *, stream: bool = False,
             prefixes: Prefixes | None = None, **options: Any) -> str | Iterator[str]:
        """The answer to a conversation, told as the folder's chat template says, or in our own format where the model
        was trained to answer by it (instruct, pairs).

        Args:
            messages: what a user says, or turns: {"role": "user", "content": "..."} and so on.
            max_new_tokens: the most tokens of the answer, which ends with `<eos>`.
            stream: an iterator of the answer in pieces, as it is written.
            prefixes: a `decoding.Prefixes`, with which earlier turns are not read again.
            options: as for `generate`.
        Raises:
            BothwaysError: the model has no chat template and does not answer, or an option of `generate` is wrong.
        """
        turns = [{"role": "user", "content": messages}] if isinstance(messages, str) else list(messages)
        ids = conversation(self.trained, turns)
        config = self._config(max_new_tokens=max_new_tokens, begin=False, **options)
        if stream:
            return decoding.stream(self.trained, ids, config, self._mode(None), None, prefixes)
        (written,) = decoding.generate(self.trained, [ids], config, self._mode(None), None, None, prefixes)
        return (written.text or "").strip()

    def write(self, prompts: Sequence[str], config: GenerateConfig | None = None,
              visibility: str | Visibility | None = None, draft: Model | None = None,
              prefixes: Prefixes | None = None) -> list[Written]:
        """As `generate`, with all there is to know: new ids, log probabilities, passes, seconds, what stopped it."""
        return decoding.generate(self.trained, self.tokenizer.encode_batch(list(prompts)), config,
                                 self._mode(visibility), None, None if draft is None else draft.trained, prefixes)

    @overload
    def fill(self, text: str, max_new_tokens: int = ..., **options: Any) -> str: ...
    @overload
    def fill(self, text: list[str], max_new_tokens: int = ..., **options: Any) -> list[str]: ...
    @overload
    def fill(self, text: Tensor, max_new_tokens: int = ..., **options: Any) -> Tensor: ...

    def fill(self, text: Texts | Tensor, max_new_tokens: int = 64, *, visibility: str | Visibility | None = None,
             **options: Any) -> str | list[str] | Tensor:
        """Fill every `<mask>`: one token each, or a span of any length each with two towers.

        A space before a `<mask>` belongs to the word that is missing, so it is left out (except with bytes as tokens).

        Args:
            text: a text, several, or a (L,) or (B, L) tensor of ids, read exactly as they stand by one tower.
            max_new_tokens: with two towers, how much longer than the text the answer may be.
            visibility: the name of a trained mode; the one that fills when none.
            options: as for `generate`; decoding, steps, order, guidance and max_blank_tokens where a blank is one
                token.
        Returns:
            the filled text, texts or ids.
        Raises:
            BothwaysError: a model that only looks left, a text without `<mask>`.
        """
        mode = None if visibility is None else self._mode(visibility)
        config = self._config(max_new_tokens=max_new_tokens, begin=not isinstance(text, Tensor), **options)
        if isinstance(text, Tensor):
            rows = [row.tolist() for row in self._rows(text, "the text")]
            return self._padded([new.ids for new in decoding.fill(self.trained, rows, config, mode)], text)
        texts = [text] if isinstance(text, str) else list(text)
        filled = [new.text or "" for new in decoding.fill(self.trained, self._with_blanks(texts), config, mode)]
        return filled[0] if isinstance(text, str) else filled

    def write_in(self, texts: Sequence[str], config: GenerateConfig | None = None,
                 visibility: str | Visibility | None = None) -> list[Written]:
        """As `fill`, with all there is to know: ids, log probabilities, what each pass wrote, seconds."""
        mode = None if visibility is None else self._mode(visibility)
        return decoding.fill(self.trained, self._with_blanks(texts), config, mode)

    def score_fills(self, text: str, candidates: Sequence[str | Sequence[str]],
                    visibility: str | Visibility | None = None) -> list[FillScore]:
        """What each candidate is worth in the text's `<mask>`, the best first; the estimator says what is scored.

        Args:
            candidates: words for the blank, or for several blanks as many strings each. A space goes before a word
                where the text has one before its blank.
            visibility: the name of a trained mode; one that fills when none.
        Raises:
            BothwaysError: no blank, or a candidate that does not fit.
        """
        if not candidates:
            raise BothwaysError("there are no candidates to score: give one at least")
        several = [[one] if isinstance(one, str) else list(one) for one in candidates]
        spaced = [text[:found.start()].endswith(" ") for found in re.finditer("<mask>", text)]
        if getattr(self.tokenizer, "kind", "") in ("bytes", "words"):
            spaced = [False for _ in spaced]
        ids = [[self.tokenizer.encode((" " if before and not word.startswith(" ") else "") + word)
                for word, before in zip(words, [*spaced, *[False] * len(words)], strict=False)] for words in several]
        (read,) = self._with_blanks([text])
        return score_fills(self.trained, read, ids, [" … ".join(words) for words in several],
                           None if visibility is None else self._mode(visibility))

    def interpolate(self, one: str, other: str, steps: int = 5, max_new_tokens: int = 64) -> list[str]:
        """The texts written at `steps` places on the way from one text to another, both included.

        For models with a latent between their towers (variational); each text is the likeliest token after token.

        Raises:
            BothwaysError: a model without a latent, or fewer than 2 steps.
        """
        first, last = self.tokenizer.encode_batch([one, other])
        between = interpolate(self.trained, first, last, steps, max_new_tokens)
        return [self.tokenizer.decode(ids) for ids in between]

    # --- what calls share ---

    def _with_blanks(self, texts: Sequence[str]) -> list[list[int]]:
        """Texts with blanks as ids; a space before a blank belongs to the missing word, but with bytes as tokens."""
        spaced = getattr(self.tokenizer, "kind", "") != "bytes"
        return self.tokenizer.encode_batch([re.sub(r" (?=<mask>)", "", text) if spaced else text for text in texts])

    def _mode(self, visibility: str | Visibility | None) -> Mode:
        """A trained mode, by name or by its visibility."""
        if isinstance(visibility, Visibility):
            for mode in self.objective.modes:
                if mode.visibility == visibility:
                    return mode
            raise BothwaysError(f"this model was not trained to write with '{visibility!r}' "
                                + nearest(repr(visibility), self.modes))
        return self.trained.mode(visibility)

    def _config(self, **options: Any) -> GenerateConfig:
        """The options of a call, with unknown ones refused by name."""
        known = list(GenerateConfig.__dataclass_fields__)
        unknown = [f"'{name}' {nearest(name, known)}" for name in options if name not in known]
        if unknown:
            raise BothwaysError(f"unknown option {' and '.join(unknown)}")
        if isinstance(options.get("json_schema"), Mapping):
            options["json_schema"] = json.dumps(options["json_schema"])
        return replace(GenerateConfig(), **options)

    def _padded(self, rows: list[list[int]], like: Tensor) -> Tensor:
        """Rows of ids as a tensor of as many dimensions as `like`."""
        longest = max(map(len, rows), default=0)
        pad = self.vocabulary.ids.get("<pad>", self.vocabulary.ids.get("<eos>", 0))
        table = torch.tensor([[*row, *[pad] * (longest - len(row))] for row in rows], dtype=torch.long,
                             device=like.device)
        return table[0] if like.dim() == 1 else table
