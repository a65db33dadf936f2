"""A tokenizer of the `tokenizers` library as the fields of a GGUF header; `gguf_tokenizer` reads them back.

A header names a kind of tokenizer and a way to cut text, of which it knows few. So a tokenizer is written, read back,
and asked for some texts: one that then reads otherwise is refused.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import tokenizers

from bothways.errors import BothwaysError
from bothways.families.gguf_tokenizer import (
    BYTE,
    CONTROL,
    CUTS,
    DEFINED,
    NORMAL,
    SPACE,
    SPECIAL,
    UNKNOWN,
    UNUSED,
    tokenizer_of,
)

SAMPLES = ("The quick brown fox jumps over the lazy dog.", " two  spaces and\ttabs\n\nlines \n",
           "it's 1999, don't we'LL", "Größe, naïve, ÉCOLE", "日本語 текст 🙂", "x=(a+b)*12345;// {code}",
           "HELLO World", "a", "")
"""Texts that tell one way of cutting from another."""


def fields_of(core: tokenizers.Tokenizer | None, ids: Mapping[str, int], settings: Mapping[str, Any], size: int,
              where: str) -> dict[str, Any]:
    """The tokenizer's part of a header.

    Args:
        core: none for a model that speaks in ids alone.
        ids: special ids by SPECIAL's names.
        settings: what tokenizer_config.json says; the template of a chat is taken from it.
        size: how many tokens the network has; those beyond the tokenizer's own are named as unused.
    Raises:
        BothwaysError: GGUF has no name for this kind of tokenizer or its way to cut text.
    """
    if core is None:
        return {"tokenizer.ggml.model": "none"}
    if core.get_vocab_size() > size:
        raise BothwaysError(f"the tokenizer of {where} has {core.get_vocab_size()} tokens, but the network only "
                            f"{size}: extend its vocabulary first (convert --add-tokens)")
    around = core.encode("a").ids
    common = {f"tokenizer.ggml.{key}_token_id": number for key, number in ids.items() if key in SPECIAL}
    common["tokenizer.ggml.add_bos_token"] = len(around) > 1 and around[0] == ids.get("bos", ids.get("cls"))
    common["tokenizer.ggml.add_eos_token"] = len(around) > 1 and around[-1] == ids.get("eos", ids.get("seperator"))
    if isinstance(settings.get("chat_template"), str):
        common["tokenizer.chat_template"] = settings["chat_template"]
    for fields in _tried(core, size):
        fields = {key: value for key, value in {**fields, **common}.items() if value != []}
        again = tokenizer_of(fields)
        if again is not None and all(_ids(again, text) == _ids(core, text) for text in SAMPLES):
            return fields
    kind = type(core.model).__name__
    raise BothwaysError(f"the tokenizer of {where} ({kind}) cuts text in a way that GGUF has no name for: write a "
                        "folder instead, which keeps tokenizer.json")


def _ids(core: tokenizers.Tokenizer, text: str) -> list[int]:
    return list(core.encode(text, add_special_tokens=False).ids)


def _tried(core: tokenizers.Tokenizer, size: int) -> Iterator[dict[str, Any]]:
    """The fields of each kind of tokenizer that it might be."""
    told = json.loads(core.to_str())
    model, added = told["model"], {one["id"]: one["special"] for one in told["added_tokens"]}
    tokens = [core.id_to_token(i) or f"[PAD{i}]" for i in range(size)]
    types = [UNUSED if core.id_to_token(i) is None else CONTROL if added.get(i) else DEFINED if i in added else NORMAL
             for i in range(size)]
    plain: dict[str, Any] = {"tokenizer.ggml.tokens": tokens, "tokenizer.ggml.token_type": types}
    if model["type"] == "BPE":
        merges = [pair if isinstance(pair, str) else " ".join(pair) for pair in model["merges"]]
        if not model.get("byte_fallback"):
            for cut in CUTS:
                yield {**plain, "tokenizer.ggml.model": "gpt2", "tokenizer.ggml.pre": cut,
                       "tokenizer.ggml.merges": merges}
        pieces = {**plain, "tokenizer.ggml.token_type": _of_pieces(tokens, types, model.get("unk_token")),
                  "tokenizer.ggml.model": "llama", "tokenizer.ggml.pre": "default",
                  "tokenizer.ggml.scores": _ranks(tokens, merges)}
        for prefix in (True, False):
            yield {**pieces, "tokenizer.ggml.add_space_prefix": prefix}
    elif model["type"] == "WordPiece":
        marked = [token if kind != NORMAL or token == model["unk_token"] else
                  token.removeprefix("##") if token.startswith("##") else SPACE + token
                  for token, kind in zip(tokens, types, strict=True)]
        yield {**plain, "tokenizer.ggml.tokens": marked, "tokenizer.ggml.model": "bert",
               "tokenizer.ggml.pre": "default"}
    elif model["type"] == "Unigram":
        scores = [float(score) for _, score in model["vocab"]] + [0.0] * size
        unknown = None if model.get("unk_id") is None else tokens[model["unk_id"]]
        pieces = {**plain, "tokenizer.ggml.token_type": _of_pieces(tokens, types, unknown),
                  "tokenizer.ggml.model": "t5", "tokenizer.ggml.pre": "default",
                  "tokenizer.ggml.scores": scores[:size], "tokenizer.ggml.precompiled_charsmap": _charsmap(told)}
        for prefix in (True, False):
            for spaces in (False, True):
                yield {**pieces, "tokenizer.ggml.add_space_prefix": prefix,
                       "tokenizer.ggml.remove_extra_whitespaces": spaces}


def _of_pieces(tokens: Sequence[str], types: Sequence[int], unknown: str | None) -> list[int]:
    """Types of SentencePiece's tokens: it knows bytes and the unknown as well."""
    return [UNKNOWN if token == unknown else BYTE if len(token) == 6 and token.startswith("<0x") else kind
            for token, kind in zip(tokens, types, strict=True)]


def _ranks(tokens: Sequence[str], merges: Sequence[str]) -> list[float]:
    """A score for each token of byte pairs: the earlier it is made, the higher."""
    first: dict[str, int] = {}
    for rank, pair in enumerate(merges):
        first.setdefault(pair.replace(" ", "", 1), rank)
    return [-float(first.get(token, len(merges) if len(token) > 1 else 0)) for token in tokens]


def _charsmap(told: Mapping[str, Any]) -> list[int]:
    """SentencePiece's table of characters, of a tokenizer that has one."""
    normalizer = told.get("normalizer") or {}
    parts = normalizer.get("normalizers", [normalizer])
    found = next((part["precompiled_charsmap"] for part in parts if part.get("type") == "Precompiled"), None)
    return [] if not found else list(base64.b64decode(found))
