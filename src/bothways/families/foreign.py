"""Tokenizers of folders that others made: text in and out, and what an objective may know of their tokens."""

from __future__ import annotations

import functools
import hashlib
import json
import re
import shutil
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import tokenizers

from bothways.batch import RESERVED_TOKENS, Vocabulary
from bothways.errors import BothwaysError
from bothways.families.base import TOKEN_ENTRIES
from bothways.families.chat import render
from bothways.families.files import read_json, write_json
from bothways.text.tokenizer import byte_of, check_characters

_BYTE = re.compile("<0x[0-9A-F]{2}>")
"""How a vocabulary of pieces names single bytes."""
_SENTINEL = "<extra_id_{}>"
"""How T5 writes the sentinel that we call `<extra_0>`, ..."""
_ENTRIES = {"<pad>": "pad_token", "<bos>": "bos_token", "<eos>": "eos_token", "<unk>": "unk_token",
            "<cls>": "cls_token", "<sep>": "sep_token", "<mask>": "mask_token"}
"""How tokenizer_config.json names special tokens."""
TEMPLATE = "chat_template.jinja"
"""The file that newer folders keep the template of a chat in."""


_SPELLED = (("<mask>", "<mask>"), ("<mask>", "[MASK]"), ("<mask>", "<|mask|>"), ("<cls>", "[CLS]"), ("<sep>", "[SEP]"),
            ("<pad>", "[PAD]"), ("<unk>", "[UNK]"), ("<unk>", "<unk>"), ("<sop>", "<|startofpiece|>"),
            ("<eop>", "<|endofpiece|>"))
"""Our names of special tokens and how others spell them; the first that is there counts."""


class ForeignTokenizer:
    """A `tokenizer.json` without our reserved tokens, behind the calls of `text.tokenizer.Tokenizer`.

    `<mask>` in a text is read as the folder's own mask token. Without a file there is no text: `readable` is false
    and every call with text is refused.
    """

    def __init__(self, folder: Path, stored: Mapping[str, Any], size: int, core: tokenizers.Tokenizer | None = None,
                 settings: Mapping[str, Any] | None = None) -> None:
        """The tokenizer of a folder.

        Args:
            stored: the published config, which names special ids.
            size: how many ids the network has.
            core: the tokenizer, where it comes from elsewhere than the folder's tokenizer.json.
            settings: what tokenizer_config.json would say; read from the folder when none.
        """
        self.folder, self.size = folder, size
        file = folder / "tokenizer.json"
        self.core = core
        self.settings = dict(settings) if settings is not None else _settings(folder)
        """What tokenizer_config.json says: names of special tokens, the template of a chat."""
        self.made = core is not None
        if core is None and file.is_file():
            try:
                self.core = tokenizers.Tokenizer.from_file(str(file))
            except Exception as error:  # the library raises bare Exception
                raise BothwaysError(f"'{file}' is not a tokenizer file: {error}") from None
            # some files fill every text up to one length, or cut it there
            self.core.no_padding()
            self.core.no_truncation()
        self.readable = self.core is not None
        self.ids = self._ids(stored)

    def encode(self, text: str, reserved: bool = True) -> list[int]:
        """Token ids of `text`, without special ones around it."""
        core = self._core()
        own = None if "<mask>" not in self.ids else core.id_to_token(self.ids["<mask>"])
        if reserved and own and own != "<mask>":
            text = text.replace("<mask>", own)
        try:
            ids = list((core if reserved else self._unreserved).encode(text, add_special_tokens=False).ids)
        except TypeError:
            check_characters([text])
            raise
        if self.beyond and (found := self.beyond.keys() & set(ids)):
            raise BothwaysError(f"the text holds '{self.beyond[min(found)]}', but the network knows no such token "
                                f"(it has {self.size:,}): leave it out")
        return ids

    def offsets(self, text: str, reserved: bool = True) -> list[tuple[int, int]]:
        """The characters `[start, end)` of `text` that each token of `encode(text, reserved)` stands for.

        Raises:
            BothwaysError: with `reserved`, a `<mask>` in the text that the folder spells otherwise.
        """
        core = self._core()
        if reserved and "<mask>" in text and core.token_to_id("<mask>") is None:
            raise BothwaysError("characters cannot be told of a text with <mask> in it, which this folder spells "
                                "otherwise: leave it out")
        return list((core if reserved else self._unreserved).encode(text, add_special_tokens=False).offsets)

    def encode_batch(self, texts: Sequence[str], reserved: bool = True) -> list[list[int]]:
        """`encode` for many texts."""
        return [self.encode(text, reserved) for text in texts]

    def decode(self, ids: Iterable[int], skip_reserved: bool = True) -> str:
        """The text of `ids`."""
        return str(self._core().decode([int(token) for token in ids], skip_special_tokens=skip_reserved))

    def pieces(self, ids: Iterable[int]) -> list[str]:
        """One printable string a token."""
        return [str(self._core().id_to_token(int(token))) for token in ids]

    def spelled(self, token: int) -> bytes:
        """The UTF-8 bytes that a token adds to a text it does not begin, perhaps only part of a character.

        Raises:
            BothwaysError: the tokenizer marks where words end, so that what a token adds depends on the next one.
        """
        return self._bytes[token] if token < len(self._bytes) else b""

    @property
    def kind(self) -> str:
        """That somebody else made it."""
        return "foreign"

    def extended(self, tokens: Sequence[str]) -> ForeignTokenizer:
        """A twin with more special tokens behind its own."""
        core = tokenizers.Tokenizer.from_str(self._core().to_str())
        core.add_special_tokens([tokenizers.AddedToken(token, normalized=False, special=True) for token in tokens])
        twin = ForeignTokenizer(self.folder, {}, self.size, core, self.settings)
        numbers = {token: core.token_to_id(token) for token in tokens}
        twin.ids = {**{token: number for token, number in numbers.items() if number is not None}, **self.ids}
        for token, entry in _ENTRIES.items():
            if token in tokens and token not in self.ids:
                twin.settings.setdefault(entry, token)
        return twin

    def sized(self, size: int) -> ForeignTokenizer:
        """A twin for a network with so many ids."""
        twin = ForeignTokenizer(self.folder, {}, size, self.core, self.settings)
        twin.ids, twin.made = dict(self.ids), self.made
        return twin

    def save(self, folder: str | Path) -> None:
        """Write the tokenizer's files: copies of the folder's own, where they came from there."""
        if self.made:
            self._core().save(str(Path(folder) / "tokenizer.json"))
            write_json(Path(folder) / "tokenizer_config.json", self.settings)
            return
        for name in ("tokenizer.json", "tokenizer_config.json", TEMPLATE):
            if (self.folder / name).is_file():
                shutil.copyfile(self.folder / name, Path(folder) / name)

    def chat(self, messages: Sequence[Mapping[str, str]]) -> str:
        """A conversation as the text that the model was trained to answer, ready for its answer.

        Raises:
            BothwaysError: the folder has no template, or the template refuses the conversation.
        """
        template = self.settings.get("chat_template")
        if not isinstance(template, str):
            raise BothwaysError(f"{self.folder} has no chat template: give the prompt to `generate` as the model "
                                "expects it")
        names = {entry: self.settings.get(entry) for entry in ("bos_token", "eos_token", "pad_token", "unk_token")}
        spelled = {entry: one.get("content") if isinstance(one, Mapping) else one
                   for entry, one in names.items() if one}
        return render(template, messages, spelled, str(self.folder))

    @functools.cached_property
    def beyond(self) -> dict[int, str]:
        """Tokens by ids that the network does not have: a text tower leaves out those of pictures, for one."""
        if self.core is None or self.core.get_vocab_size() <= self.size:
            return {}
        return {token: name for name, token in self.core.get_vocab().items() if token >= self.size}

    def check_size(self) -> None:
        """Refuse a tokenizer that is of another network; special tokens alone may be beyond its ids.

        Raises:
            BothwaysError: a token of plain text has no id in the network.
        """
        added = self.core.get_added_tokens_decoder() if self.core is not None and self.beyond else {}
        if plain := [token for token in self.beyond if token not in added or not added[token].special]:
            first = min(plain)
            raise BothwaysError(f"{self.folder}: the tokenizer gives '{self.beyond[first]}' the id {first:,}, but "
                                f"the network has only {self.size:,}: take the tokenizer that the network was "
                                "trained with")

    @functools.cached_property
    def fingerprint(self) -> str:
        """16 hexadecimal digits that change with anything that could change an id."""
        return hashlib.sha256((self.core.to_str() if self.core else json.dumps(self.ids)).encode()).hexdigest()[:16]

    @functools.cached_property
    def vocabulary(self) -> Vocabulary:
        """What objectives may know; byte counts are those of each token's own text."""
        special = np.zeros(self.size, bool)
        special[[token for token in self.ids.values() if token < self.size]] = True
        lengths = np.zeros(self.size, np.int64)
        starts, ends = np.zeros(self.size, bool), np.zeros(self.size, bool)
        by_bytes = self.core is not None and isinstance(self.core.decoder, tokenizers.decoders.ByteLevel)
        for token in range(min(self.size, self.core.get_vocab_size()) if self.core else 0):
            name = self.core.id_to_token(token) or ""  # type: ignore[union-attr]
            text = name.lstrip("▁Ġ")
            starts[token] = name != text or not text[:1].isalnum()
            ends[token] = text.endswith((".", "!", "?"))
            # in the byte alphabet every character stands for one byte
            size = len(name) if by_bytes else len(text.encode()) + (name != text)
            lengths[token] = 0 if special[token] else size
        for token, added in (self.core.get_added_tokens_decoder() if self.core else {}).items():
            if added.special and token < self.size:
                special[token], lengths[token] = True, 0
        return Vocabulary(self.size, self.ids, special, starts, ends, lengths)

    def _ids(self, stored: Mapping[str, Any]) -> dict[str, int]:
        """Our names for the special ids that the config and the tokenizer name."""
        ids: dict[str, int] = {}
        for entry, name in (*TOKEN_ENTRIES.items(), ("cls_token_id", "<cls>"), ("sep_token_id", "<sep>")):
            value = stored.get(entry)
            value = value[0] if isinstance(value, list) and value else value
            if isinstance(value, int):
                ids.setdefault(name, value)
        if "<begin>" in ids:
            ids.setdefault("<bos>", ids["<begin>"])
        if self.core is not None:
            for i in range(100):
                token = self.core.token_to_id(_SENTINEL.format(i))
                if token is not None:
                    ids[f"<extra_{i}>"] = token
            for name, entry in (*_SPELLED, *((name, name) for name in RESERVED_TOKENS)):
                token = self.core.token_to_id(entry)
                if token is not None:
                    ids.setdefault(name, token)
        # an encoder's texts begin and end with what BERT calls [CLS] and [SEP]
        for name, instead in (("<bos>", "<cls>"), ("<eos>", "<sep>"),):
            if instead in ids:
                ids.setdefault(name, ids[instead])
        return ids

    @functools.cached_property
    def _unreserved(self) -> tokenizers.Tokenizer:
        """A twin that reads the names of special tokens as plain text: a corpus may speak of `<mask>`."""
        plain = tokenizers.Tokenizer.from_str(self._core().to_str())
        plain.encode_special_tokens = True
        return plain

    @functools.cached_property
    def _bytes(self) -> list[bytes]:
        """The bytes of every id: by the byte alphabet or the name of a byte, else by decoding it behind another."""
        core = self._core()
        if isinstance(core.decoder, tokenizers.decoders.BPEDecoder):
            raise BothwaysError("this tokenizer marks the ends of words, so that nobody can say what one of its tokens "
                                "adds to a text: use a model with another tokenizer")
        names = [core.id_to_token(token) or "" for token in range(core.get_vocab_size())]
        if isinstance(core.decoder, tokenizers.decoders.ByteLevel):
            table = byte_of()
            return [bytes(map(table.__getitem__, name)) if all(char in table for char in name) else name.encode()
                    for name in names]
        # the token before keeps what a decoder takes from the beginning of a text
        before = next((i for i, name in enumerate(names) if name.isalnum() and name.isascii()), 0)
        known = core.decode([before])
        grown = core.decode_batch([[before, token] for token in range(len(names))])
        return [bytes([int(name[3:5], 16)]) if _BYTE.fullmatch(name) else text[len(known):].encode()
                for name, text in zip(names, grown, strict=True)]

    def _core(self) -> tokenizers.Tokenizer:
        if self.core is None:
            raise BothwaysError(f"{self.folder} has no tokenizer.json, so this model speaks in token ids only")
        return self.core


def _settings(folder: Path) -> dict[str, Any]:
    """tokenizer_config.json, with the template of a chat that may lie beside it; empty where there is none."""
    file, template = folder / "tokenizer_config.json", folder / TEMPLATE
    settings = read_json(file) if file.is_file() else {}
    if isinstance(several := settings.get("chat_template"), list):
        settings["chat_template"] = next((one.get("template") for one in several if one.get("name") == "default"), None)
    if template.is_file():
        settings["chat_template"] = template.read_text(encoding="utf-8")
    return settings
