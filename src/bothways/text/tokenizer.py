"""Text into token ids and back. Every kind round-trips any text to the byte, and carries the reserved tokens first."""

from __future__ import annotations

import functools
import hashlib
import itertools
import json
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

import numpy as np
import tokenizers
from tokenizers import AddedToken, Regex, decoders, models, pre_tokenizers, trainers

from bothways.aside import replacing
from bothways.batch import MOST_SENTINELS, RESERVED_TOKENS, SENTINELS, Vocabulary, reserved_tokens
from bothways.errors import BothwaysError, nearest

Kind = Literal["bpe", "wordpiece", "unigram", "bytes"]
KINDS: tuple[Kind, ...] = get_args(Kind)

_CONTINUES = "\u203f"
"""Marks a WordPiece piece that continues a word; not in the byte alphabet, so it is never mistaken for text."""
_BASIC = {"bpe": 256, "unigram": 256, "wordpiece": 512, "bytes": 256}
"""Ids that a kind needs beside the reserved ones: every byte, and twice for WordPiece."""


@dataclass(frozen=True)
class TokenizerConfig:
    """How to train a tokenizer: a kind and the number of ids it may use, the reserved ones included."""

    kind: Kind = "bpe"
    size: int = 4096

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise BothwaysError(f"unknown tokenizer kind '{self.kind}' {nearest(self.kind, KINDS)}")
        _check_size(self.kind, self.size, SENTINELS)

    def sentinels(self, window: int) -> int:
        """How many sentinels it carries for windows of so many tokens.

        The densest published spans need one for six tokens (UL2, arXiv 2205.05131, table 1) and hidden single tokens
        one for eight with much spread (T5's baseline), so a quarter of the window is enough; T5 has 100 for 512. They
        take an eighth of the ids that are not bytes at most, and `MOST_SENTINELS`, which does for 1,024 tokens.
        """
        room = 0 if self.kind == "bytes" else self.size - _BASIC[self.kind]
        return max(SENTINELS, min(window // 4, room // 8, MOST_SENTINELS))


def _check_size(kind: Kind, size: int, sentinels: int) -> None:
    """Refuse a vocabulary that does not hold the reserved tokens and every byte."""
    reserved = len(reserved_tokens(sentinels))
    if kind != "bytes" and size < reserved + _BASIC[kind]:
        raise BothwaysError(f"a {kind} tokenizer needs a vocabulary of at least {reserved + _BASIC[kind]} ({reserved} "
                            f"reserved tokens and every byte), not {size}")


class Tokenizer:
    """A trained tokenizer of the `tokenizers` library, with what the rest of the house asks of one.

    Train one with `train`, make one of the words of a text with `words`, or `load` a folder.
    """

    def __init__(self, core: tokenizers.Tokenizer) -> None:
        self.core = core
        missing = [name for i, name in enumerate(RESERVED_TOKENS) if core.token_to_id(name) != i]
        if missing:
            raise BothwaysError(f"this tokenizer does not carry the reserved tokens first: '{missing[0]}' is not id "
                                f"{RESERVED_TOKENS.index(missing[0])}, so train one with bothways instead")
        self.reserved = reserved_tokens(next(count for count in itertools.count(SENTINELS)
                                             if core.token_to_id(f"<extra_{count}>") != len(reserved_tokens(count))))
        self.added = {token: str(one.content) for token, one in core.get_added_tokens_decoder().items()
                      if token >= len(self.reserved)}
        """Tokens that were added behind all others, by id: special like the reserved ones."""
        self._words = isinstance(core.model, models.WordLevel)
        self._plain: tokenizers.Tokenizer | None = None

    # --- making one ---

    @classmethod
    def train(cls, texts: Iterable[str], kind: Kind = "bpe", size: int = 4096, sentinels: int = SENTINELS) -> Tokenizer:
        """A tokenizer of `kind` trained on `texts`, with at most `size` ids, so many `sentinels` among them.

        All kinds work on the 256 bytes of UTF-8 (Radford et al. 2019, section 2.2), so nothing is ever unknown:
        byte-pair merges (arXiv 1508.07909), WordPiece (longest match first), Unigram (arXiv 1804.10959), or `bytes`
        without any merge, whose size is fixed.

        Raises:
            BothwaysError: an unknown kind, or a size that does not hold the reserved tokens and every byte.
        """
        config = TokenizerConfig(kind, size)
        alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
        _check_size(config.kind, size, sentinels)
        reserved = list(reserved_tokens(sentinels))
        if config.kind == "bytes":
            vocabulary = {name: i for i, name in enumerate([*reserved, *alphabet])}
            core = tokenizers.Tokenizer(models.BPE(vocab=vocabulary, merges=[]))
        elif config.kind == "bpe":
            core = tokenizers.Tokenizer(models.BPE())
            core.pre_tokenizer = _bytes_first()
            core.train_from_iterator(texts, trainers.BpeTrainer(
                vocab_size=size, special_tokens=reserved, initial_alphabet=alphabet, show_progress=False))
        elif config.kind == "unigram":
            core = tokenizers.Tokenizer(models.Unigram())
            core.pre_tokenizer = _bytes_first()
            core.train_from_iterator(texts, trainers.UnigramTrainer(
                vocab_size=size, special_tokens=reserved, initial_alphabet=alphabet, show_progress=False))
        else:
            core = _train_wordpiece(texts, size, reserved, alphabet)
        core.pre_tokenizer = _bytes_first(longest=64 if config.kind == "wordpiece" else None)
        core.decoder = decoders.ByteLevel() if config.kind != "wordpiece" else decoders.Sequence(
            [decoders.Replace(_CONTINUES, ""), decoders.ByteLevel()])
        return cls(_with_reserved(core, reserved))

    @classmethod
    def words(cls, text: str | Iterable[str]) -> Tokenizer:
        """A word-level tokenizer whose words are those of `text` itself (or the given words), in order of appearance.

        It is what `see` uses without a model, and what the known source speaks. Unknown words become `<unk>`. With a
        text it carries as many sentinels as this text can need.
        """
        pieces, sentinels = list(text), SENTINELS
        if isinstance(text, str):
            pieces = re.findall(r"<\w+>|\w+|[^\w\s]+", text)
            sentinels = max(SENTINELS, min(len(pieces) // 4, MOST_SENTINELS))
        reserved = reserved_tokens(sentinels)
        words = [*reserved, *dict.fromkeys(piece for piece in pieces if piece not in reserved)]
        core = tokenizers.Tokenizer(models.WordLevel({word: i for i, word in enumerate(words)}, unk_token="<unk>"))
        core.pre_tokenizer = pre_tokenizers.Whitespace()
        return cls(_with_reserved(core, reserved))

    @classmethod
    def load(cls, path: str | Path) -> Tokenizer:
        """The tokenizer of a folder (its `tokenizer.json`) or of such a file.

        Raises:
            BothwaysError: no such file, not a tokenizer, or one without the reserved tokens.
        """
        path = Path(path)
        file = path / "tokenizer.json" if path.is_dir() else path
        if not file.is_file():
            raise BothwaysError(f"no tokenizer at '{file}'")
        try:
            return cls(tokenizers.Tokenizer.from_file(str(file)))
        except BothwaysError as error:
            raise BothwaysError(f"{file}: {error}") from None
        except Exception as error:  # the library raises bare Exception
            raise BothwaysError(f"'{file}' is not a tokenizer file: {error}") from None

    def extended(self, tokens: Sequence[str]) -> Tokenizer:
        """A tokenizer with more special tokens behind its own."""
        core = tokenizers.Tokenizer.from_str(self.core.to_str())
        return Tokenizer(_with_reserved(core, tokens))

    def save(self, folder: str | Path) -> None:
        """Write `tokenizer.json` and `tokenizer_config.json`, which `PreTrainedTokenizerFast` reads."""
        folder = Path(folder)
        settings = {
            "tokenizer_class": "PreTrainedTokenizerFast", "clean_up_tokenization_spaces": False,
            "bos_token": "<bos>", "eos_token": "<eos>", "pad_token": "<pad>", "unk_token": "<unk>",
            "cls_token": "<cls>", "sep_token": "<sep>", "mask_token": "<mask>",
        }
        for name, content in (("tokenizer.json", self.core.to_str(pretty=True)),
                              ("tokenizer_config.json", json.dumps(settings, indent=2) + "\n")):
            with replacing(folder / name) as aside:
                aside.write_text(content, encoding="utf-8")

    # --- using it ---

    def encode(self, text: str, reserved: bool = True) -> list[int]:
        """Token ids of `text`, without `<bos>` or `<eos>`.

        With `reserved`, strings such as `<mask>` in the text are the reserved tokens; without, they are plain text.
        """
        return self.encode_batch([text], reserved)[0]

    def encode_batch(self, texts: Sequence[str], reserved: bool = True) -> list[list[int]]:
        """`encode` for many texts, on all cores.

        Raises:
            BothwaysError: a text with bytes that are no characters (Python keeps them as lone surrogates).
        """
        core = self.core if reserved else self._unreserved
        try:
            return [encoding.ids for encoding in core.encode_batch_fast(list(texts), add_special_tokens=False)]
        except TypeError:
            check_characters(texts)
            raise

    def offsets(self, text: str, reserved: bool = True) -> list[tuple[int, int]]:
        """The characters `[start, end)` of `text` that each token of `encode(text, reserved)` stands for, leading space
        included.

        A character that is spread over several tokens belongs to each of them.
        """
        core = self.core if reserved else self._unreserved
        return list(core.encode(text, add_special_tokens=False).offsets)

    def decode(self, ids: Iterable[int], skip_reserved: bool = True) -> str:
        """The text of `ids`; exactly the text that was encoded, unless this is a word-level tokenizer.

        Bytes that are not UTF-8 (a character cut in two) become U+FFFD.
        """
        table, first = self._bytes, len(self.reserved)
        known = [int(i) for i in ids]
        pieces = [table[i] for i in known
                  if 0 <= i < len(table) and not (skip_reserved and (i < first or i in self.added))]
        return (b" " if self._words else b"").join(pieces).decode("utf-8", errors="replace")

    def pieces(self, ids: Iterable[int]) -> list[str]:
        """One printable string a token: text as it stands, line ends as `↵`, loose bytes as `<0xE2>`."""
        shown = []
        for i in ids:
            raw = self._bytes[int(i)]
            try:
                text = raw.decode("utf-8")
            except UnicodeDecodeError:
                text = "".join(f"<0x{byte:02X}>" if byte > 127 else chr(byte) for byte in raw)
            shown.append(text.replace("\r", "").replace("\n", "↵").replace("\t", "⇥"))
        return shown

    def spelled(self, token: int) -> bytes:
        """The UTF-8 bytes that a token stands for, perhaps only part of a character."""
        return self._bytes[token]

    @property
    def size(self) -> int:
        """The number of ids."""
        return self.core.get_vocab_size()

    @property
    def kind(self) -> str:
        """bpe, wordpiece, unigram, bytes or words."""
        if isinstance(self.core.model, models.BPE):
            own = self.size - len(self.reserved) - len(self.added)
            return "bytes" if own == _BASIC["bytes"] else "bpe"
        return {"WordPiece": "wordpiece", "Unigram": "unigram", "WordLevel": "words"}[type(self.core.model).__name__]

    @functools.cached_property
    def fingerprint(self) -> str:
        """16 hexadecimal digits that change with anything that could change an id."""
        content = json.loads(self.core.to_str())
        if isinstance(self.core.model, models.Unigram):  # its scores lose their last bit when written and read
            content["model"]["vocab"] = [[name, round(score, 6)] for name, score in content["model"]["vocab"]]
        return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:16]

    @functools.cached_property
    def vocabulary(self) -> Vocabulary:
        """What objectives may know of this tokenizer."""
        size, first = self.size, len(self.reserved)
        starts, ends, lengths = np.zeros(size, bool), np.zeros(size, bool), np.zeros(size, np.int64)
        capital = np.zeros(size, bool)
        for i, raw in enumerate(self._bytes):
            if i < first or i in self.added:
                continue
            text = raw.decode("utf-8", errors="replace")
            starts[i] = self._starts_word(i, text)
            capital[i] = starts[i] and text.strip()[:1].isupper()
            ends[i] = text.strip().rstrip("\"')]”’").endswith((".", "!", "?"))
            lengths[i] = len(raw) + self._words  # a word stands for itself and the space after it
        special = np.arange(size) < first
        special[list(self.added)] = True
        ids = {name: i for i, name in [*enumerate(self.reserved), *self.added.items()]}
        return Vocabulary(size, ids, special, starts, ends, lengths, capital)

    # --- tables ---

    def _starts_word(self, i: int, text: str) -> bool:
        """Space, line end or punctuation opens a word, but no underscore: an identifier in code is one. WordPiece marks
        the pieces that open none."""
        if self._words:
            return True
        if isinstance(self.core.model, models.WordPiece):
            return not str(self.core.id_to_token(i)).startswith(_CONTINUES)
        return text[:1].isspace() or (text.isascii() and not text[:1].isalnum() and text[:1] != "_")

    @functools.cached_property
    def _bytes(self) -> list[bytes]:
        """The UTF-8 bytes of every id; a reserved token stands for its name."""
        first = len(self.reserved)
        names = [str(self.core.id_to_token(i)) for i in range(self.size)]
        if self._words:
            return [name.encode() for name in names]
        table = byte_of()
        return [name.encode() if i < first or i in self.added
                else bytes(table[char] for char in name.removeprefix(_CONTINUES)) for i, name in enumerate(names)]

    @property
    def _unreserved(self) -> tokenizers.Tokenizer:
        """A twin that reads the names of reserved tokens as plain text: a corpus may speak of `<mask>`."""
        if self._plain is None:
            self._plain = tokenizers.Tokenizer.from_str(self.core.to_str())
            self._plain.encode_special_tokens = True
        return self._plain


def check_characters(texts: Iterable[str]) -> None:
    """Refuse texts with bytes that are no characters, which Python keeps as lone surrogates."""
    for number, text in enumerate(texts):
        try:
            text.encode("utf-8")
        except UnicodeEncodeError as error:
            raise BothwaysError(f"text {number + 1} is not UTF-8: what stands at character {error.start + 1} is no "
                                "character, so mend the text or how it was read") from None


def _bytes_first(longest: int | None = None) -> pre_tokenizers.PreTokenizer:
    """Words with their leading space, written in the byte alphabet; WordPiece also wants them not too long."""
    byte_level = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True)
    if longest is None:
        return byte_level
    cut = pre_tokenizers.Split(Regex(f".{{1,{longest}}}"), behavior="isolated")
    return pre_tokenizers.Sequence([byte_level, cut])


def _with_reserved(core: tokenizers.Tokenizer, reserved: Sequence[str]) -> tokenizers.Tokenizer:
    core.add_special_tokens([AddedToken(name, normalized=False, special=True) for name in reserved])
    return core


def _train_wordpiece(texts: Iterable[str], size: int, reserved: list[str],
                     alphabet: Sequence[str]) -> tokenizers.Tokenizer:
    """WordPiece over bytes; every byte is added in both its forms, so that longest match never fails."""
    trained = tokenizers.Tokenizer(models.WordPiece(unk_token="<unk>", continuing_subword_prefix=_CONTINUES))
    trained.pre_tokenizer = _bytes_first(longest=64)
    trained.train_from_iterator(texts, trainers.WordPieceTrainer(
        vocab_size=size, special_tokens=reserved, initial_alphabet=list(alphabet), show_progress=False,
        continuing_subword_prefix=_CONTINUES))
    learned = sorted(trained.get_vocab().items(), key=lambda item: item[1])
    basic = [*reserved, *alphabet, *(_CONTINUES + char for char in alphabet)]
    names = list(dict.fromkeys([*basic, *(name for name, _ in learned)]))[:size]
    return tokenizers.Tokenizer(models.WordPiece(
        vocab={name: i for i, name in enumerate(names)}, unk_token="<unk>", continuing_subword_prefix=_CONTINUES,
        max_input_chars_per_word=64))


@functools.cache
def byte_of() -> dict[str, int]:
    """The byte that each character of the byte-level alphabet stands for (GPT-2's printable stand-ins)."""
    printable = [*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1)]
    others: Iterator[int] = (byte for byte in range(256) if byte not in printable)
    return {**{chr(byte): byte for byte in printable}, **{chr(256 + n): byte for n, byte in enumerate(others)}}
