"""Text of a given form: a regular expression, a JSON schema, one of several strings, or a grammar.

After each token the grammar says which tokens may come next (`llguidance`, an optional extra); all others are blocked.
So whatever is written fits, and ends only where the form is complete.
"""

from __future__ import annotations

import functools
import json
from collections.abc import Collection, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from bothways.decoding.sampling import BLOCKED, GenerateConfig
from bothways.errors import BothwaysError
from bothways.families.foreign import ForeignTokenizer
from bothways.families.trained import Trained
from bothways.text.tokenizer import Tokenizer


class Grammar:
    """A rule that keeps texts to a form.

    Args:
        config: exactly one of regex, json_schema, choices and grammar.
        texts: how many there are.
        ends: tokens that end a text, allowed where the form is complete.
    Raises:
        BothwaysError: `llguidance` is missing, the form is none, or this tokenizer cannot express it.
    """

    def __init__(self, trained: Trained, config: GenerateConfig, texts: int, ends: Collection[int]) -> None:
        self.size, self.ends = trained.config.shape.vocabulary, sorted(ends)
        self.form = _said(config)
        library = _library()
        tokens = _tokens(trained.tokenizer, trained.readable, self.size, tuple(self.ends))
        self.beginning = library.LLMatcher(tokens, _grammar(library, config), log_level=0)
        self._check(self.beginning)
        self.matchers = [self.beginning.deep_copy() for _ in range(texts)]

    def apply(self, logits: Tensor, texts: Sequence[int]) -> Tensor:
        allowed = torch.from_numpy(np.stack([self._allowed(text) for text in texts])).to(logits.device)
        scores = logits.masked_fill(~allowed, BLOCKED)
        for row, text in enumerate(texts):
            if not bool((scores[row] > BLOCKED).any()):
                self._check(self.matchers[text])
                raise BothwaysError(f"this model's tokens cannot express {self.form}: none of them may come next; "
                                    "change it, or use a model with another tokenizer")
        return scores

    def wrote(self, text: int, token: int) -> None:
        matcher = self.matchers[text]
        if not (token in self.ends and matcher.is_accepting()):
            matcher.consume_token(token)
            self._check(matcher)

    def keep(self, texts: Sequence[int]) -> None:
        self.matchers = [self.matchers[text].deep_copy() for text in texts]

    def join(self, read: Sequence[int], begun: Sequence[int]) -> None:
        self.matchers.append(self.beginning.deep_copy())

    def _allowed(self, text: int) -> np.ndarray:
        """(V,) bool of the tokens that may come next."""
        matcher = self.matchers[text]
        if matcher.is_stopped():
            allowed = np.zeros(self.size, dtype=bool)
            allowed[self.ends] = True
            return allowed
        bits = np.frombuffer(matcher.compute_bitmask(), dtype=np.uint8)
        allowed = np.unpackbits(bits, bitorder="little")[:self.size].astype(bool)
        return np.pad(allowed, (0, self.size - len(allowed)))

    def _check(self, matcher: Any) -> None:
        if matcher.is_error():
            why = _first_line(matcher.get_error())
            raise BothwaysError(f"nothing can be written in the form of {self.form}: {why}")


def wants_form(config: GenerateConfig) -> bool:
    """Whether a config asks for text of a form."""
    return bool(config.regex is not None or config.json_schema is not None or config.choices
                or config.grammar is not None)


def _said(config: GenerateConfig) -> str:
    if config.choices:
        return "choices " + ", ".join(map(repr, config.choices))
    return next(f"{name} '{value}'" for name in ("regex", "json_schema", "grammar")
                if (value := getattr(config, name)) is not None)


def _library() -> Any:
    try:
        import llguidance
    except ImportError:
        raise BothwaysError("text of a given form needs the package llguidance: pip install 'bothways[structured]'"
                            ) from None
    return llguidance


def _grammar(library: Any, config: GenerateConfig) -> str:
    """The form as the library takes it."""
    matcher = library.LLMatcher
    if config.regex is not None:
        return str(matcher.grammar_from_regex(config.regex))
    if config.json_schema is not None:
        try:
            json.loads(config.json_schema)
            return str(matcher.grammar_from_json_schema(config.json_schema))
        except ValueError as error:
            raise BothwaysError(f"json_schema is not JSON: {_first_line(str(error))}") from None
    if config.choices:
        return str(matcher.grammar_from_lark("start: " + " | ".join(json.dumps(one) for one in config.choices)))
    return str(matcher.grammar_from_lark(config.grammar))


@functools.lru_cache(maxsize=4)
def _tokens(tokenizer: Any, readable: bool, size: int, ends: tuple[int, ...]) -> Any:
    """The library's view of a tokenizer: the bytes of every token."""
    library = _library()
    if not readable:
        raise BothwaysError("text of a given form needs a tokenizer, and this folder has none")
    if tokenizer.kind == "words":
        raise BothwaysError("a tokenizer of whole words cannot write text of a given form: use one of bytes or of "
                            "pieces of words")
    spelled = _Spelled(tokenizer, size, ends)
    return library.LLTokenizer(library.TokenizerWrapper(spelled), n_vocab=len(spelled.tokens), eos_token=list(ends),
                               slices=[])


class _Spelled:
    """What the library asks of a tokenizer object: the bytes of every token.

    It wants to spell every text, so bytes that no token spells alone get numbers behind all ids, which are never
    written: `Grammar` looks at the network's ids only.
    """

    def __init__(self, tokenizer: Tokenizer | ForeignTokenizer, size: int, ends: Sequence[int]) -> None:
        vocabulary, count = tokenizer.vocabulary, tokenizer.core.get_vocab_size()  # type: ignore[union-attr]
        self._tokenizer = tokenizer
        self.eos_token_id, self.bos_token_id = ends[0], vocabulary.ids.get("<bos>")
        self.special_token_ids = [int(token) for token in vocabulary.special.nonzero()[0]]
        self.tokens = [tokenizer.spelled(token) for token in range(count)] + [b""] * max(0, size - count)
        special = set(self.special_token_ids)
        self._numbers = {raw: token for token, raw in enumerate(self.tokens) if raw and token not in special}
        for byte in range(256):
            if bytes([byte]) not in self._numbers:
                self._numbers[bytes([byte])] = len(self.tokens)
                self.tokens.append(bytes([byte]))
        self._longest = max(map(len, self._numbers))

    def __call__(self, text: bytes | str) -> list[int]:
        raw = text.encode() if isinstance(text, str) else text
        ids = self._tokenizer.encode(raw.decode(errors="replace"), reserved=False)
        if b"".join(self.tokens[token] for token in ids) == raw:
            return ids
        # a tokenizer may put a space before what it reads, or not know a character: the longest tokens that spell it
        ids, first = [], 0
        while first < len(raw):
            last = next(end for end in range(min(len(raw), first + self._longest), first, -1)
                        if raw[first:end] in self._numbers)
            ids.append(self._numbers[raw[first:last]])
            first = last
        return ids


def _first_line(message: str) -> str:
    return message.strip().splitlines()[0].rstrip(".: ") if message.strip() else "no reason given"
