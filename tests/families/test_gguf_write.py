"""GGUF both ways: what is written is read back to the bit, by `transformers` to the same logits, or refused."""

from __future__ import annotations

import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tokenizers
import torch
from tests.families.reference import shaken
from tokenizers import decoders, models, normalizers, pre_tokenizers, processors, trainers

import bothways
from bothways import objectives
from bothways.cli import main
from bothways.errors import BothwaysError
from bothways.families.folder import Trained
from bothways.families.gguf_file import Gguf
from bothways.families.gguf_tokenizer import tokenizer_of
from bothways.families.gguf_tokens import SAMPLES, fields_of
from bothways.families.gguf_write import write_gguf
from bothways.model import LanguageModel, ModelConfig, Norm, Position, Shape
from bothways.model.config import Head, Mixer
from bothways.text.tokenizer import Tokenizer

pytest.importorskip("gguf", reason="needs the package gguf (pip install 'bothways[export]')")
transformers = pytest.importorskip("transformers")

V = 99
IDS = torch.randint(10, V, (2, 9), generator=torch.Generator().manual_seed(0))
SIZES = {"vocab_size": V, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4,
         "num_key_value_heads": 2, "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2}
SCALED = {"rope_type": "llama3", "factor": 32.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
          "original_max_position_embeddings": 8192}
GEMMA = {**SIZES, "head_dim": 8, "query_pre_attn_scalar": 8, "sliding_window": 5}
TWO = {"vocab_size": V, "d_model": 32, "d_kv": 6, "d_ff": 40, "num_layers": 2, "num_heads": 4, "pad_token_id": 0,
       "eos_token_id": 1, "decoder_start_token_id": 0}
MODELS: dict[str, tuple[str, dict[str, Any]]] = {
    "llama": ("Llama", {**SIZES, "attention_bias": True}),
    "llama 3": ("Llama", {**SIZES, "head_dim": 32, "rope_theta": 500000.0, "rope_scaling": SCALED,
                          "max_position_embeddings": 131072}),
    "llama, slowed": ("Llama", {**SIZES, "rope_scaling": {"rope_type": "linear", "factor": 4.0}}),
    "qwen2": ("Qwen2", {**SIZES, "tie_word_embeddings": True}),
    "qwen3": ("Qwen3", {**SIZES, "head_dim": 12}),
    "gemma2": ("Gemma2", GEMMA),
    "gemma3": ("Gemma3Text", {**GEMMA, "num_hidden_layers": 7}),
    "gpt2": ("GPT2", {"vocab_size": V, "n_embd": 32, "n_layer": 2, "n_head": 4, "n_inner": 40, "n_positions": 30,
                      "bos_token_id": 1, "eos_token_id": 1}),
    "bert": ("Bert", {**SIZES, "type_vocab_size": 3, "max_position_embeddings": 40}),
    "t5": ("T5", {**TWO, "num_decoder_layers": 3}),
    "t5 1.1": ("T5", {**TWO, "feed_forward_proj": "gated-gelu", "tie_word_embeddings": False}),
    "mamba": ("Mamba", {"vocab_size": V, "hidden_size": 32, "num_hidden_layers": 2, "state_size": 8}),
}
CLASSES = {"GPT2": "GPT2LMHeadModel", "Bert": "BertModel", "T5": "T5ForConditionalGeneration",
           "Gemma3Text": "Gemma3ForCausalLM"}
ROUNDED = ("gemma2", "gemma3", "mamba")
"""Their files hold norms plus one, or the logarithm of a decay as the decay: exact but for the last bit."""


def published(name: str) -> Any:
    kind, choices = MODELS[name.split(", more")[0]]
    choices = {**choices, "vocab_size": 310 if "more" in name else V}
    theirs = getattr(transformers, CLASSES.get(kind, f"{kind}ForCausalLM"))(
        getattr(transformers, f"{kind}Config")(**choices))
    if name == "t5 1.1":
        theirs.lm_head.weight = torch.nn.Parameter(torch.zeros(V, 32))
        theirs.config.tie_word_embeddings = False
    return shaken(theirs)


def call(model: Any) -> torch.Tensor:
    with torch.no_grad():
        if hasattr(model, "decoder"):
            return model(input_ids=IDS, decoder_input_ids=IDS).logits
        found = model(input_ids=IDS)
        return found.logits if "logits" in found else found.last_hidden_state


@pytest.mark.parametrize("name", MODELS)
def test_what_is_written_is_read(name: str, tmp_path: Path) -> None:
    theirs = published(name)
    theirs.save_pretrained(tmp_path / "theirs")
    ours = bothways.from_pretrained(tmp_path / "theirs")
    written = write_gguf(ours.trained, tmp_path / "model.gguf")
    again = bothways.from_pretrained(tmp_path / "model.gguf")
    # 1. every weight, to the bit where the format allows it; an encoder leaves its pooler behind
    first, second = ours.trained.network.state_dict(), again.trained.network.state_dict()
    assert set(first) - set(second) == set(written.left_out)
    assert all("pooled" in left for left in written.left_out) and bool(written.left_out) == (name == "bert")
    for own, weight in second.items():
        if name in ROUNDED:
            assert torch.allclose(weight, first[own], rtol=1e-6, atol=1e-6), own
        else:
            assert torch.equal(weight, first[own]), own
    assert again.objective.describe() == ours.objective.describe()
    # 2. `transformers` finds the same weights in the file, and says the same of the config
    if name == "bert" or ours.config.shape.layers == 3:
        return  # it does not read BERT, nor a decoder of another depth than the encoder
    from transformers.modeling_gguf_pytorch_utils import load_gguf_checkpoint

    said = load_gguf_checkpoint(str(tmp_path / "model.gguf"))["config"]
    for entry, value in said.items():
        known = getattr(theirs.config, entry, None)
        if known is not None and entry not in ("_model_name_or_path", "is_gated_act", "tie_word_embeddings"):
            assert value == pytest.approx(known), entry
    twin = published(name)
    with torch.no_grad():
        for weight in twin.parameters():
            weight.fill_(torch.nan)
    tensors = load_gguf_checkpoint(str(tmp_path / "model.gguf"), return_tensors=True, model_to_load=twin)["tensors"]
    assert not twin.load_state_dict(tensors, strict=False).unexpected_keys
    if name != "t5 1.1":
        twin.tie_weights()
    if name == "llama":  # it passes over how biases are laid out
        for weight, other in zip(twin.parameters(), theirs.parameters(), strict=True):
            weight.data = other.data if weight.ndim == 1 else weight.data
    assert torch.allclose(call(twin), call(theirs), atol=1e-5 * float(call(theirs).abs().max()))


@pytest.mark.parametrize(("numbers", "worst"), [("float16", 1e-3), ("bfloat16", 1e-2), ("q8_0", 2e-2)])
def test_half_and_quantised_files(numbers: str, worst: float, tmp_path: Path) -> None:
    published("qwen3").save_pretrained(tmp_path / "theirs")
    assert main(["convert", str(tmp_path / "theirs"), str(tmp_path / "small.gguf"), "--dtype", numbers]) == 0
    ours, again = (bothways.from_pretrained(tmp_path / name) for name in ("theirs", "small.gguf"))
    first, second = ours.trained.network.state_dict(), again.trained.network.state_dict()
    for name, weight in first.items():
        assert torch.allclose(weight, second[name], atol=worst * float(weight.abs().max())), name
        assert weight.ndim > 1 or torch.equal(weight, second[name])
    kinds = {kind for _, kind, _ in Gguf(tmp_path / "small.gguf")._tensors.values()}
    # rows of 48 numbers do not divide into blocks of 32, and stay halves
    assert kinds == {"float16": {0, 1}, "bfloat16": {0, 30}, "q8_0": {0, 1, 8}}[numbers]


def test_everything_else_of_a_model(tmp_path: Path) -> None:
    tokenizer = Tokenizer.train(["the cat sat on the mat, and a dog ran to the house in 1999"] * 3, "bpe", 340)
    torch.manual_seed(0)
    network = LanguageModel(ModelConfig(Shape(tokenizer.vocabulary.size, 32, 2, 0, 4, 2))).eval()
    trained = Trained(network, objectives.make("next-token", tokenizer.vocabulary), tokenizer)
    bothways.Model(trained).save_pretrained(tmp_path / "folder")
    assert main(["convert", str(tmp_path / "folder"), str(tmp_path / "out" / "model.gguf")]) == 0
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["model.gguf"]
    again = bothways.from_pretrained(tmp_path / "out")
    ids = tokenizer.encode("the cat in 1999<eos>")
    assert again.tokenizer.encode("the cat in 1999<eos>") == ids and again.vocabulary.ids["<eos>"] == 2
    assert torch.equal(again.logits(ids), bothways.Model(trained).logits(ids))
    assert again.generate("the cat", 5) == bothways.Model(trained).generate("the cat", 5)
    # a file is not replaced unless it is asked for
    assert main(["convert", str(tmp_path / "folder"), str(tmp_path / "out" / "model.gguf")]) == 2
    assert main(["convert", str(tmp_path / "folder"), str(tmp_path / "out" / "model.gguf"), "--force"]) == 0


def test_a_chat_template_travels(tmp_path: Path) -> None:
    published("llama, more tokens").save_pretrained(tmp_path / "theirs")
    core = byte_pairs()
    core.save(str(tmp_path / "theirs" / "tokenizer.json"))
    (tmp_path / "theirs" / "chat_template.jinja").write_text("{% for m in messages %}[{{ m.content }}]{% endfor %}")
    ours = bothways.from_pretrained(tmp_path / "theirs")
    write_gguf(ours.trained, tmp_path / "model.gguf")
    again = bothways.from_pretrained(tmp_path / "model.gguf")
    assert again.tokenizer.chat([{"role": "user", "content": "hi"}]) == "[hi]"  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("config", "why"),
    [
        (ModelConfig(Shape(V, 32, 2, 0, 4), norm=Norm("layer")), "norm.kind is 'layer', not 'rms'"),
        (ModelConfig(Shape(V, 32, 2, 0, 4), reach="GL"), "reach is 'GL', not 'GG'"),
        (ModelConfig(Shape(V, 32, 2, 0, 4), Position(base=1234.56789012)), "position.base is 1234.56789012"),
        (ModelConfig(Shape(V, 32, 2, 0, 4), head=Head(soft_cap=3.0)), "head.soft_cap is 3.0, not none"),
        (ModelConfig(Shape(V, 32, 2, 0, 1), Position("none"), mixer=Mixer("mamba2")), "mixer"),
    ],
)
def test_a_network_that_gguf_cannot_say(config: ModelConfig, why: str, tmp_path: Path) -> None:
    tokenizer = Tokenizer.train(["the cat"], "bytes", 300)
    config = ModelConfig(**{**vars(config), "shape": Shape(tokenizer.vocabulary.size, 32, 2, 0, config.shape.heads)})
    model = Trained(LanguageModel(config), objectives.make("next-token", tokenizer.vocabulary), tokenizer)
    with pytest.raises(BothwaysError, match=f"no architecture of GGUF that is known here holds .*{why}"):
        write_gguf(model, tmp_path / "model.gguf")
    assert not list(tmp_path.iterdir())


# --- tokenizers ---

TEXT = ["the cat sat on the mat, and a dog ran to the house in 1999 (again!)", "Größe, naïve", "it's 12 o'clock"] * 3


def byte_pairs(cut: str | None = None) -> tokenizers.Tokenizer:
    core = tokenizers.Tokenizer(models.BPE())
    core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    core.decoder = decoders.ByteLevel()
    core.train_from_iterator(TEXT, trainers.BpeTrainer(
        vocab_size=300, special_tokens=["<unk>", "<s>", "</s>"], show_progress=False,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet()))
    if cut == "digits":
        core.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.Digits(individual_digits=True),
                                                      core.pre_tokenizer])
    return core


def word_pieces(lower: bool = True) -> tokenizers.Tokenizer:
    core = tokenizers.Tokenizer(models.WordPiece(unk_token="[UNK]"))
    core.normalizer = normalizers.BertNormalizer(lowercase=lower)
    core.pre_tokenizer, core.decoder = pre_tokenizers.BertPreTokenizer(), decoders.WordPiece()
    core.train_from_iterator(TEXT, trainers.WordPieceTrainer(
        vocab_size=120, special_tokens=["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"], show_progress=False))
    core.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", pair="[CLS] $A [SEP] $B:1 [SEP]:1", special_tokens=[("[CLS]", 2), ("[SEP]", 3)])
    return core


def likeliest() -> tokenizers.Tokenizer:
    core = tokenizers.Tokenizer(models.Unigram())
    core.pre_tokenizer, core.decoder = pre_tokenizers.Metaspace(), decoders.Metaspace()
    core.train_from_iterator(TEXT, trainers.UnigramTrainer(
        vocab_size=90, special_tokens=["<pad>", "</s>", "<unk>"], unk_token="<unk>", show_progress=False))
    core.post_processor = processors.TemplateProcessing(single="$A </s>", special_tokens=[("</s>", 1)])
    return core


def pieces() -> tokenizers.Tokenizer:
    """SentencePiece's byte pairs, as LLaMA has them."""
    letters = [*"▁abcdefghijklmnopqrstuvwxyz.,'ABCDEFGHIJKLMNOPQRSTUVWXYZ"]
    merges = [("t", "h"), ("th", "e"), ("▁", "the"), ("c", "a"), ("ca", "t"), ("▁", "cat"), ("▁", "a"), ("o", "n")]
    tokens = ["<unk>", "<s>", "</s>", *(f"<0x{i:02X}>" for i in range(256)), *letters,
              *("".join(one) for one in merges)]
    core = tokenizers.Tokenizer(models.BPE({token: i for i, token in enumerate(tokens)}, merges, byte_fallback=True,
                                           fuse_unk=True, unk_token="<unk>"))
    core.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    core.decoder = decoders.Sequence([decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(),
                                      decoders.Strip(" ", 1, 0)])
    core.add_special_tokens(["<unk>", "<s>", "</s>"])
    return core


@pytest.mark.parametrize(
    ("core", "kind", "ids"),
    [
        (byte_pairs(), ("gpt2", "gpt-2"), {"bos": 1, "eos": 2}),
        (byte_pairs("digits"), ("gpt2", "smollm"), {"bos": 1, "eos": 2}),
        (pieces(), ("llama", "default"), {"bos": 1, "eos": 2, "unknown": 0}),
        (word_pieces(), ("bert", "default"), {"cls": 2, "seperator": 3, "unknown": 1, "padding": 0, "mask": 4}),
        (word_pieces(lower=False), ("bert", "default"), {"cls": 2, "seperator": 3, "unknown": 1, "mask": 4}),
        (likeliest(), ("t5", "default"), {"eos": 1, "unknown": 2, "padding": 0}),
    ],
    ids=["byte pairs", "single digits", "pieces", "word pieces", "word pieces with case", "unigram"],
)
def test_tokenizers_travel(core: tokenizers.Tokenizer, kind: tuple[str, str], ids: dict[str, int]) -> None:
    size = core.get_vocab_size() + 3
    fields = fields_of(core, ids, {}, size, "here")
    assert (fields["tokenizer.ggml.model"], fields["tokenizer.ggml.pre"]) == kind
    assert len(fields["tokenizer.ggml.tokens"]) == size
    again = tokenizer_of(fields)
    assert again is not None
    for text in (*SAMPLES, "The cat's on the mat.</s>", "[MASK] dog"):
        wanted = core.encode(text).ids
        assert again.encode(text).ids == wanted
        assert again.decode(wanted) == core.decode(wanted)


def test_a_header_marks_words_as_llama_cpp_does() -> None:
    core = word_pieces()
    told = fields_of(core, {"cls": 2, "seperator": 3, "unknown": 1}, {}, 120, "here")["tokenizer.ggml.tokens"]
    assert told[:5] == ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    assert told[core.token_to_id("##e")] == "e" and told[core.token_to_id("e")] == "▁e"


def test_a_way_to_cut_without_a_name() -> None:
    core = byte_pairs()
    core.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.Split(tokenizers.Regex("[aeiou]"), "isolated"),
                                                  pre_tokenizers.ByteLevel(False)])
    with pytest.raises(BothwaysError, match=r"the tokenizer of here \(BPE\) cuts text in a way that GGUF has no name"):
        fields_of(core, {}, {}, 400, "here")
    with pytest.raises(BothwaysError, match="the tokenizer of here has 300 tokens, but the network only 99"):
        fields_of(byte_pairs(), {}, {}, 99, "here")
    assert fields_of(None, {}, {}, 400, "here") == {"tokenizer.ggml.model": "none"}


# --- strange files ---

@pytest.mark.parametrize("share", [0.02, 0.3, 0.7, 0.999])
def test_truncated_files_are_refused(share: float, tmp_path: Path) -> None:
    published("mamba").save_pretrained(tmp_path / "theirs")
    file = tmp_path / "model.gguf"
    write_gguf(bothways.from_pretrained(tmp_path / "theirs").trained, file)
    raw = file.read_bytes()
    file.write_bytes(raw[:int(share * len(raw))])
    with pytest.raises(BothwaysError, match="is truncated or not a GGUF file"):
        bothways.from_pretrained(file)


@pytest.mark.parametrize(
    ("before", "after", "what"),
    [
        (struct.pack("<II", 4, 2), struct.pack("<II", 4, 2**31), "speaks of 2147483648 blocks"),
        (struct.pack("<II", 4, 32), struct.pack("<II", 4, 36), r"token_embd|has shape|embed"),
    ],
    ids=["more blocks than tensors", "another width"],
)
def test_a_header_that_does_not_fit(before: bytes, after: bytes, what: str, tmp_path: Path) -> None:
    published("qwen2").save_pretrained(tmp_path / "theirs")
    file = tmp_path / "model.gguf"
    write_gguf(bothways.from_pretrained(tmp_path / "theirs").trained, file)
    key = b"qwen2.block_count" if b"\x00\x80" in after else b"qwen2.embedding_length"
    raw = file.read_bytes()
    place = raw.index(key) + len(key)
    assert raw[place:place + 8] == before
    file.write_bytes(raw[:place] + after + raw[place + 8:])
    with pytest.raises(BothwaysError, match=what):
        bothways.from_pretrained(file)


def test_a_tokenizer_that_does_not_fit_together(tmp_path: Path) -> None:
    published("llama, more tokens").save_pretrained(tmp_path / "theirs")
    byte_pairs().save(str(tmp_path / "theirs" / "tokenizer.json"))
    file = tmp_path / "model.gguf"
    write_gguf(bothways.from_pretrained(tmp_path / "theirs").trained, file)
    raw = file.read_bytes()
    assert raw.count(b"t h") > 0
    file.write_bytes(raw.replace(b"t h", b"t\xc3\xbf", 1))
    with pytest.raises(BothwaysError, match=r"the tokenizer in .*model.gguf does not fit together"):
        bothways.from_pretrained(file)


def test_divisors_of_another_kind(tmp_path: Path) -> None:
    published("llama 3").save_pretrained(tmp_path / "theirs")
    file = tmp_path / "model.gguf"
    write_gguf(bothways.from_pretrained(tmp_path / "theirs").trained, file)
    content = Gguf(file)
    _, _, offset = content._tensors["rope_freqs.weight"]
    raw = bytearray(file.read_bytes())
    raw[offset:offset + 4] = np.float32(3.0).tobytes()
    file.write_bytes(raw)
    with pytest.raises(BothwaysError, match=r"rope_freqs.weight divides frequencies otherwise than Llama 3 does"):
        bothways.from_pretrained(file)
