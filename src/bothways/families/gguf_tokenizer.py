"""The tokenizer in a GGUF header, as one of the `tokenizers` library. `gguf_tokens` writes what is read here."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import tokenizers
from tokenizers import AddedToken, Regex, decoders, models, normalizers, pre_tokenizers, processors

_CONTRACTIONS = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|"
_REST = r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
_CUTS = {"llama-bpe": _CONTRACTIONS + r"\p{N}{1,3}" + _REST, "qwen2": _CONTRACTIONS + r"\p{N}" + _REST}
"""Where byte-pair tokenizers cut text before they merge, by the header's name of it."""
_PLAIN = ("gpt-2", "default", "")
_DIGITS = ("smollm",)
CUTS = ("gpt-2", *_DIGITS, *_CUTS)
"""Every name of a way to cut text that is known here."""
NORMAL, UNKNOWN, CONTROL, DEFINED, UNUSED, BYTE = range(1, 7)
"""Types of tokens: a piece of text, the unknown, never written as text, added by hand, nothing, and one byte."""
SPACE = "▁"
"""How SentencePiece writes a space; llama.cpp marks with it the pieces that begin a word, also of WordPiece."""


def tokenizer_of(fields: Mapping[str, Any]) -> tokenizers.Tokenizer | None:
    """The tokenizer that a header describes; none for one of a kind or cut that is not known here."""
    kind, tokens = fields.get("tokenizer.ggml.model"), fields.get("tokenizer.ggml.tokens")
    if not isinstance(tokens, list) or not tokens:
        return None
    if kind == "gpt2":
        core = _byte_pairs(fields, tokens)
    elif kind == "llama":
        core = _pieces(fields, tokens)
    elif kind == "bert":
        core = _word_pieces(fields, tokens)
    elif kind == "t5":
        core = _likeliest(fields, tokens)
    else:
        return None
    if core is not None:
        types = fields.get("tokenizer.ggml.token_type") or [1] * len(tokens)
        for token, one in zip(tokens, types, strict=False):
            if one in (CONTROL, UNKNOWN):
                core.add_special_tokens([AddedToken(token, normalized=False, special=True)])
            elif one == DEFINED:
                core.add_tokens([AddedToken(token, normalized=False)])
        core.post_processor = _around(fields, tokens)
    return core


SPECIAL = {"bos": "bos_token", "eos": "eos_token", "padding": "pad_token", "unknown": "unk_token",
           "cls": "cls_token", "seperator": "sep_token", "mask": "mask_token"}
"""How a header calls special tokens (its spelling), and tokenizer_config.json."""


def settings_of(fields: Mapping[str, Any]) -> dict[str, Any]:
    """What tokenizer_config.json of the same model would say."""
    tokens = fields.get("tokenizer.ggml.tokens") or []
    settings: dict[str, Any] = {"tokenizer_class": "PreTrainedTokenizerFast", "clean_up_tokenization_spaces": False}
    for key, entry in SPECIAL.items():
        if (token := _token(fields, key, tokens)) is not None:
            settings[entry] = token
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
    unknown = next((tokens[i] for i, one in enumerate(types) if one == UNKNOWN), None)
    core = tokenizers.Tokenizer(models.BPE(numbers, merges, byte_fallback=True, fuse_unk=True, unk_token=unknown))
    prefix = fields.get("tokenizer.ggml.add_space_prefix", True)
    core.normalizer = normalizers.Sequence([*([normalizers.Prepend("▁")] if prefix else []),
                                            normalizers.Replace(" ", "▁")])
    core.decoder = decoders.Sequence([decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(),
                                      *([decoders.Strip(" ", 1, 0)] if prefix else [])])
    return core


def _word_pieces(fields: Mapping[str, Any], tokens: Sequence[str]) -> tokenizers.Tokenizer:
    """WordPiece of BERT: the longest piece first; those without a mark of a word's beginning continue one."""
    types = fields.get("tokenizer.ggml.token_type") or [NORMAL] * len(tokens)
    whole = {fields.get(f"tokenizer.ggml.{key}_token_id") for key in SPECIAL}
    pieces = {}
    for i, (token, kind) in enumerate(zip(tokens, types, strict=False)):
        if kind == NORMAL and i not in whole:
            token = token.removeprefix(SPACE) if token.startswith(SPACE) else f"##{token}"
        pieces[token] = i
    unknown = _token(fields, "unknown", tokens) or "[UNK]"
    # a header does not say whether case counts: a vocabulary without capitals does
    lower = not any(token != token.lower() for i, token in enumerate(tokens) if types[i] == NORMAL and i not in whole)
    core = tokenizers.Tokenizer(models.WordPiece(pieces, unk_token=unknown))
    core.normalizer, core.pre_tokenizer = normalizers.BertNormalizer(lowercase=lower), pre_tokenizers.BertPreTokenizer()
    core.decoder = decoders.WordPiece()
    return core


def _likeliest(fields: Mapping[str, Any], tokens: Sequence[str]) -> tokenizers.Tokenizer:
    """Unigram of SentencePiece: the likeliest way to cut a text (T5)."""
    scores = fields.get("tokenizer.ggml.scores") or [0.0] * len(tokens)
    types = fields.get("tokenizer.ggml.token_type") or []
    unknown = next((i for i, one in enumerate(types) if one == UNKNOWN), fields.get("tokenizer.ggml.unknown_token_id"))
    core = tokenizers.Tokenizer(models.Unigram(list(zip(tokens, map(float, scores), strict=False)), unknown,
                                               byte_fallback=BYTE in types))
    first = fields.get("tokenizer.ggml.precompiled_charsmap")
    made: list[normalizers.Normalizer] = []
    if first:
        made.append(normalizers.Precompiled(bytes(number & 255 for number in first)))
    if fields.get("tokenizer.ggml.remove_extra_whitespaces"):
        made += [normalizers.Strip(), normalizers.Replace(Regex(" {2,}"), " ")]
    if made:
        core.normalizer = normalizers.Sequence(made)
    scheme = "always" if fields.get("tokenizer.ggml.add_space_prefix", True) else "never"
    core.pre_tokenizer = pre_tokenizers.Metaspace(SPACE, prepend_scheme=scheme)
    core.decoder = decoders.Metaspace(SPACE, prepend_scheme=scheme)
    return core


def _around(fields: Mapping[str, Any], tokens: Sequence[str]) -> processors.PostProcessor | None:
    """What is put around a text: BERT's two tokens, or those that the header says."""
    if fields.get("tokenizer.ggml.model") == "bert":
        first, last = _token(fields, "cls", tokens), _token(fields, "seperator", tokens)
    else:
        first, last = (_token(fields, key, tokens) if fields.get(f"tokenizer.ggml.add_{key}_token") else None
                       for key in ("bos", "eos"))
    around = [(token, tokens.index(token)) for token in (first, last) if token]
    if not around:
        return None
    one = [*([first] if first else []), "$A", *([last] if last else [])]
    two = [*one, *(f"{part}:1" for part in ["$B", *([last] if last else [])])]
    return processors.TemplateProcessing(single=one, pair=two, special_tokens=around)


def _token(fields: Mapping[str, Any], key: str, tokens: Sequence[str]) -> str | None:
    """A special token by its name in the header."""
    number = fields.get(f"tokenizer.ggml.{key}_token_id")
    return tokens[number] if isinstance(number, int) and 0 <= number < len(tokens) else None
