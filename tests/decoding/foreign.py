"""Tiny random models behind tokenizers as other libraries make them."""

from __future__ import annotations

from pathlib import Path

import tokenizers
import torch
from tokenizers import decoders, models, normalizers, pre_tokenizers, trainers

from bothways import objectives
from bothways.families.foreign import ForeignTokenizer
from bothways.families.trained import Trained
from bothways.model import LanguageModel, ModelConfig, Position, Shape

TEXTS = ["the cat sat on the mat 0123456789 déjà vu! - a b c {\"cat\": true}"] * 5
LETTERS = "abcdefghijklmnopqrstuvwxyz0123456789"


def byte_level() -> tokenizers.Tokenizer:
    """As GPT-2's: characters of a byte alphabet."""
    core = tokenizers.Tokenizer(models.BPE())
    core.pre_tokenizer, core.decoder = pre_tokenizers.ByteLevel(add_prefix_space=False), decoders.ByteLevel()
    core.train_from_iterator(TEXTS, trainers.BpeTrainer(
        vocab_size=320, special_tokens=["<s>", "</s>"], initial_alphabet=pre_tokenizers.ByteLevel.alphabet()))
    return core


def byte_fallback() -> tokenizers.Tokenizer:
    """As LLaMA's: pieces of words behind `▁`, and bytes by name for everything else."""
    names = ["<s>", "</s>", "<unk>", *(f"<0x{i:02X}>" for i in range(256)), "▁", *LETTERS, "-", "!", "▁t", "▁c", "at",
             "▁cat", "th", "▁th"]
    merges = [("▁", "t"), ("▁", "c"), ("a", "t"), ("▁c", "at"), ("t", "h"), ("▁t", "h")]
    core = tokenizers.Tokenizer(models.BPE({name: i for i, name in enumerate(names)}, merges, byte_fallback=True,
                                           unk_token="<unk>", fuse_unk=True))
    core.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    core.decoder = decoders.Sequence([decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(),
                                      decoders.Strip(" ", 1, 0)])
    core.add_special_tokens(["<s>", "</s>", "<unk>"])
    return core


def unigram() -> tokenizers.Tokenizer:
    """As T5's: pieces of words, likeliest together."""
    core = tokenizers.Tokenizer(models.Unigram())
    core.pre_tokenizer, core.decoder = pre_tokenizers.Metaspace(), decoders.Metaspace()
    core.train_from_iterator(TEXTS, trainers.UnigramTrainer(
        vocab_size=90, special_tokens=["<s>", "</s>", "<unk>"], unk_token="<unk>"))
    return core


def wordpiece() -> tokenizers.Tokenizer:
    """As BERT's: words, and pieces that go on with one."""
    names = ["[CLS]", "[SEP]", "[UNK]", "[MASK]", *LETTERS, "-", "!", *(f"##{letter}" for letter in LETTERS), "the",
             "cat"]
    core = tokenizers.Tokenizer(models.WordPiece({name: i for i, name in enumerate(names)}, unk_token="[UNK]"))
    core.normalizer, core.decoder = normalizers.BertNormalizer(), decoders.WordPiece()
    core.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    core.add_special_tokens(names[:4])
    return core


def ends_of_words() -> tokenizers.Tokenizer:
    """As the first GPT's: `</w>` ends a word."""
    names = ["<s>", "</s>", "<unk>", *LETTERS, *(f"{letter}</w>" for letter in LETTERS)]
    core = tokenizers.Tokenizer(models.BPE({name: i for i, name in enumerate(names)}, [], unk_token="<unk>",
                                           end_of_word_suffix="</w>"))
    core.pre_tokenizer, core.decoder = pre_tokenizers.Whitespace(), decoders.BPEDecoder(suffix="</w>")
    return core


def behind(core: tokenizers.Tokenizer, objective: str = "next-token") -> Trained:
    """A random model that reads through it, with a few ids more than it has tokens."""
    core.add_special_tokens(["<mask>"] if "[MASK]" not in core.get_vocab() else [])
    size = core.get_vocab_size() + 3
    tokenizer = ForeignTokenizer(Path("nowhere"), {"bos_token_id": 0, "eos_token_id": 1}, size, core, {})
    made = objectives.make(objective, tokenizer.vocabulary)
    torch.manual_seed(0)
    network = LanguageModel(ModelConfig(Shape(size, 32, 1, int(made.stack == "two towers"), 2),
                                        position=Position(length=96)))
    with torch.no_grad():
        for weight in network.parameters():
            weight.add_(torch.randn_like(weight) * 0.15)
    return Trained(network.eval(), made, tokenizer)
