"""The tokenizer in a GGUF header, as one of the `tokenizers` library."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import tokenizers
from tokenizers import AddedToken, Regex, decoders, models, normalizers, pre_tokenizers

_CONTRACTIONS = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|"
_REST = r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
_CUTS = {"llama-bpe": _CONTRACTIONS + r"\p{N}{1,3}" + _REST, "qwen2": _CONTRACTIONS + r"\p{N}" + _REST}
"""Where byte-pair tokenizers cut text before they merge, by the header's name of it."""
_PLAIN = ("gpt-2", "default", "")
_DIGITS = ("smollm",)
_UNKNOWN, _CONTROL, _DEFINED = 2, 3, 4
"""Types of tokens: unknown, never written as text, and added by hand."""


def tokenizer_of(fields: Mapping[str, Any]) -> tokenizers.Tokenizer | None:
    """The tokenizer that a header describes; none for one of a kind or cut that is not known here."""
    kind, tokens = fields.get("tokenizer.ggml.model"), fields.get("tokenizer.ggml.tokens")
    if not isinstance(tokens, list) or not tokens:
        return None
    if kind == "gpt2":
        core = _byte_pairs(fields, tokens)
    elif kind == "llama":
        core = _pieces(fields, tokens)
    else:
        return None
    if core is not None:
        types = fields.get("tokenizer.ggml.token_type") or [1] * len(tokens)
        for token, one in zip(tokens, types, strict=False):
            if one in (_CONTROL, _UNKNOWN):
                core.add_special_tokens([AddedToken(token, normalized=False, special=True)])
            elif one == _DEFINED:
                core.add_tokens([AddedToken(token, normalized=False)])
    return core


def settings_of(fields: Mapping[str, Any]) -> dict[str, Any]:
    """What tokenizer_config.json of the same model would say."""
    tokens = fields.get("tokenizer.ggml.tokens") or []
    settings: dict[str, Any] = {"tokenizer_class": "PreTrainedTokenizerFast", "clean_up_tokenization_spaces": False}
    for key, entry in (("bos", "bos_token"), ("eos", "eos_token"), ("padding", "pad_token"), ("unknown", "unk_token")):
        number = fields.get(f"tokenizer.ggml.{key}_token_id")
        if isinstance(number, int) and number < len(tokens):
            settings[entry] = tokens[number]
    if isinstance(fields.get("tokenizer.chat_template"), str):
        settings["chat_template"] = fields["tokenizer.chat_template"]
    return settings


def _byte_pairs(fields: Mapping[str, Any], tokens: Sequence[str]) -> tokenizers.Tokenizer | None:
    """Byte-level byte pairs (GPT-2 and its heirs)."""
    cut = str(fields.get("tokenizer.ggml.pre", ""))
    bytes_of = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=cut not in _CUTS)
    if cut in _CUTS:
        first = pre_tokenizers.Split(Regex(_CUTS[cut]), behavior="isolated")
        before: pre_tokenizers.PreTokenizer = pre_tokenizers.Sequence([first, bytes_of])
    elif cut in _DIGITS:
        before = pre_tokenizers.Sequence([pre_tokenizers.Digits(individual_digits=True), bytes_of])
    elif cut in _PLAIN:
        before = bytes_of
    else:
        return None
    merges = [tuple(pair.split(" ", 1)) for pair in fields.get("tokenizer.ggml.merges", [])]
    core = tokenizers.Tokenizer(models.BPE({token: i for i, token in enumerate(tokens)}, merges,
                                           ignore_merges=cut == "llama-bpe"))
    core.pre_tokenizer, core.decoder = before, decoders.ByteLevel()
    return core


def _pieces(fields: Mapping[str, Any], tokens: Sequence[str]) -> tokenizers.Tokenizer:
    """Byte pairs of SentencePiece: the likeliest piece is made first, so scores stand for the order of merges."""
    numbers = {token: i for i, token in enumerate(tokens)}
    scores = fields.get("tokenizer.ggml.scores") or [-float(i) for i in range(len(tokens))]
    ways = [(scores[i], numbers[token[:cut]], numbers[token[cut:]]) for token, i in numbers.items()
            for cut in range(1, len(token)) if token[:cut] in numbers and token[cut:] in numbers]
    merges = [(tokens[left], tokens[right]) for _, left, right in sorted(ways, key=lambda way: -way[0])]
    types = fields.get("tokenizer.ggml.token_type") or []
    unknown = next((tokens[i] for i, one in enumerate(types) if one == _UNKNOWN), None)
    core = tokenizers.Tokenizer(models.BPE(numbers, merges, byte_fallback=True, fuse_unk=True, unk_token=unknown))
    prefix = fields.get("tokenizer.ggml.add_space_prefix", True)
    core.normalizer = normalizers.Sequence([*([normalizers.Prepend("▁")] if prefix else []),
                                            normalizers.Replace(" ", "▁")])
    core.decoder = decoders.Sequence([decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(),
                                      *([decoders.Strip(" ", 1, 0)] if prefix else [])])
    return core
