"""Ours to a folder to `transformers`, and theirs to a folder to ours: the same logits, and the same bytes again."""

from __future__ import annotations

import filecmp
from pathlib import Path

import pytest
import torch

import bothways
from bothways import families, objectives
from bothways.batch import Companion
from bothways.families.folder import Trained, load, save
from bothways.model import FeedForward, LanguageModel, ModelConfig, Norm, Position, Shape
from bothways.text.tokenizer import Tokenizer

transformers = pytest.importorskip("transformers")
TOKENIZER = Tokenizer.train(["the cat sat on the mat, and a dog ran to the house"], kind="bytes", size=300)
V = TOKENIZER.vocabulary.size
ROTARY = {"rope_type": "default", "rope_theta": 500.0}


def same(ours: torch.Tensor, theirs: torch.Tensor) -> None:
    worst, scale = (ours - theirs).abs().max().item(), theirs.abs().max().item()
    assert worst <= 1e-5 * scale, f"max |a - b| = {worst:.2e}, max |b| = {scale:.2e}"


def trained(config: ModelConfig, objective: str) -> Trained:
    """A random network whose weights are large enough that a wrong map shows."""
    torch.manual_seed(1)
    network = LanguageModel(config)
    with torch.no_grad():
        for weight in network.parameters():
            weight.add_(torch.randn_like(weight) * 0.1)
    return Trained(network.eval(), objectives.make(objective, TOKENIZER.vocabulary), TOKENIZER)


ONE_TOWER = {
    "plain": ModelConfig(Shape(V, 32, 2, 0, 4)),
    "grouped heads, odd vocabulary, untied": ModelConfig(Shape(V + 3, 48, 3, 0, 6, 2, inner=40), tied=False),
    "wide heads, another base and epsilon": ModelConfig(
        Shape(V, 32, 2, 0, 4, 1, head_size=14), norm=Norm(epsilon=1e-4), position=Position(base=300.0, length=77)
    ),
    "gelu": ModelConfig(Shape(V, 24, 1, 0, 2), feed_forward=FeedForward(activation="gelu_tanh")),
}
IDS = torch.randint(0, V, (3, 17), generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("name", ONE_TOWER)
@pytest.mark.parametrize(
    ("objective", "loader", "architecture"),
    [
        ("next-token", "AutoModelForCausalLM", "LlamaForCausalLM"),
        ("masked", "AutoModelForMaskedLM", "EuroBertForMaskedLM"),
        ("diffusion", "AutoModelForMaskedLM", "EuroBertForMaskedLM"),
        ("0.5 next-token + 0.5 masked-next", "AutoModelForCausalLM", "LlamaForCausalLM"),
    ],
)
def test_ours_is_theirs(name: str, objective: str, loader: str, architecture: str, tmp_path: Path) -> None:
    model = trained(ONE_TOWER[name], objective)
    save(model, tmp_path / "model")
    theirs = getattr(transformers, loader).from_pretrained(tmp_path / "model").eval()
    assert type(theirs).__name__ == architecture
    with torch.no_grad():
        reference = theirs(IDS).logits
    same(bothways.Model(model).logits(IDS, visibility=model.objective.modes[0].name), reference)
    same(bothways.from_pretrained(tmp_path / "model").logits(IDS, visibility=model.objective.modes[0].name), reference)


def test_biases_and_query_key_norm(tmp_path: Path) -> None:
    biased = trained(ModelConfig(Shape(V, 32, 2, 0, 4, 2), bias=True), "next-token")
    normed = trained(
        ModelConfig(Shape(V, 32, 2, 0, 4, 2, head_size=12), norm=Norm(query_key=True), tied=False), "next-token"
    )
    for model, architecture in ((biased, "LlamaForCausalLM"), (normed, "Qwen3ForCausalLM")):
        save(model, tmp_path / architecture)
        theirs = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / architecture).eval()
        assert type(theirs).__name__ == architecture
        with torch.no_grad():
            same(bothways.from_pretrained(tmp_path / architecture).logits(IDS), theirs(IDS).logits)


T5_CONFIGS = {
    "v1.1": ModelConfig(
        Shape(V, 32, 2, 2, 4),
        Position("relative"),
        tied=False,
        scale=1.0,
        feed_forward=FeedForward(activation="gelu_tanh"),
    ),
    "tied, uneven towers, wide heads": ModelConfig(
        Shape(V + 1, 24, 1, 3, 2, head_size=20, inner=50),
        Position("relative"),
        scale=1.0,
        feed_forward=FeedForward(activation="gelu_tanh"),
    ),
    "plain relu, few buckets": ModelConfig(
        Shape(V, 32, 2, 1, 4),
        Position("relative", buckets=8, distance=20),
        scale=1.0,
        tied=False,
        feed_forward=FeedForward("plain", "relu"),
    ),
}


@pytest.mark.parametrize("name", T5_CONFIGS)
def test_two_towers_ours_is_theirs(name: str, tmp_path: Path) -> None:
    save(trained(T5_CONFIGS[name], "span-corruption"), tmp_path / "model")
    theirs = transformers.AutoModelForSeq2SeqLM.from_pretrained(tmp_path / "model").eval()
    source = torch.randint(0, V, (3, 40), generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        reference = theirs(input_ids=source, decoder_input_ids=IDS).logits
    same(bothways.from_pretrained(tmp_path / "model").logits(IDS, source=source), reference)


THEIRS = {
    "llama": ("LlamaConfig", "LlamaForCausalLM", {"num_key_value_heads": 2, "rope_parameters": ROTARY}),
    "llama, tied, biased": (
        "LlamaConfig",
        "LlamaForCausalLM",
        {"tie_word_embeddings": True, "attention_bias": True, "mlp_bias": True, "bos_token_id": 3, "eos_token_id": 4},
    ),
    "llama, odd heads": (
        "LlamaConfig",
        "LlamaForCausalLM",
        {"head_dim": 10, "num_key_value_heads": 1, "hidden_act": "gelu", "rms_norm_eps": 1e-3},
    ),
    "qwen3": (
        "Qwen3Config",
        "Qwen3ForCausalLM",
        {"head_dim": 16, "num_key_value_heads": 2, "bos_token_id": 1, "eos_token_id": 2},
    ),
    "eurobert": (
        "EuroBertConfig",
        "EuroBertForMaskedLM",
        {"mask_token_id": 5, "bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0},
    ),
    "eurobert, tied, grouped": (
        "EuroBertConfig",
        "EuroBertForMaskedLM",
        {
            "mask_token_id": 5,
            "bos_token_id": 1,
            "eos_token_id": 2,
            "pad_token_id": 0,
            "tie_word_embeddings": True,
            "num_key_value_heads": 1,
            "rope_parameters": ROTARY,
        },
    ),
    "eurobert, wide heads": (
        "EuroBertConfig",
        "EuroBertForMaskedLM",
        {
            "mask_token_id": 5,
            "bos_token_id": 1,
            "eos_token_id": 2,
            "pad_token_id": 0,
            "head_dim": 6,
            "rms_norm_eps": 1e-3,
        },
    ),
}


@pytest.mark.parametrize("name", THEIRS)
def test_theirs_is_ours(name: str, tmp_path: Path) -> None:
    config, architecture, options = THEIRS[name]
    torch.manual_seed(2)
    theirs = getattr(transformers, architecture)(
        getattr(transformers, config)(
            vocab_size=101,
            hidden_size=32,
            intermediate_size=44,
            num_hidden_layers=2,
            num_attention_heads=4,
            max_position_embeddings=64,
            **options,
        )
    ).eval()
    with torch.no_grad():
        for weight in theirs.parameters():
            weight.add_(torch.randn_like(weight) * 0.1)
    theirs.save_pretrained(tmp_path / "theirs")
    ours = bothways.from_pretrained(tmp_path / "theirs")
    ids = IDS % 101
    with torch.no_grad():
        reference = theirs(ids).logits
    same(ours.logits(ids), reference)
    # saved again, the weights are the same to the bit, and it is the same model to both
    ours.save_pretrained(tmp_path / "again")
    again = bothways.from_pretrained(tmp_path / "again")
    assert torch.equal(again.logits(ids), ours.logits(ids))
    with torch.no_grad():
        same(type(theirs).from_pretrained(tmp_path / "again").eval()(ids).logits, reference)
    again.save_pretrained(tmp_path / "third")
    for file in ("model.safetensors", "config.json", "README.md", "generation_config.json"):
        assert filecmp.cmp(tmp_path / "again" / file, tmp_path / "third" / file, shallow=False), file


@pytest.mark.parametrize(
    "options",
    [
        {"feed_forward_proj": "gated-gelu", "tie_word_embeddings": False},
        {"feed_forward_proj": "relu"},
        {
            "feed_forward_proj": "gated-silu",
            "num_decoder_layers": 1,
            "d_kv": 12,
            "relative_attention_num_buckets": 8,
            "relative_attention_max_distance": 16,
        },
    ],
)
def test_t5_theirs_is_ours(options: dict[str, object], tmp_path: Path) -> None:
    torch.manual_seed(3)
    arguments = {
        "vocab_size": V,
        "d_model": 32,
        "d_kv": 8,
        "d_ff": 44,
        "num_layers": 2,
        "num_heads": 4,
        "decoder_start_token_id": 0,
        "bos_token_id": 1,
        "eos_token_id": 2,
    }
    theirs = transformers.T5ForConditionalGeneration(transformers.T5Config(**{**arguments, **options})).eval()
    with torch.no_grad():
        for weight in theirs.parameters():
            weight.add_(torch.randn_like(weight) * 0.1)
    theirs.save_pretrained(tmp_path / "theirs")
    TOKENIZER.save(tmp_path / "theirs")
    source = torch.randint(0, V, (3, 40), generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        reference = theirs(input_ids=source, decoder_input_ids=IDS).logits
    same(bothways.from_pretrained(tmp_path / "theirs").logits(IDS, source=source), reference)


def test_greedy_writing_is_theirs(tmp_path: Path) -> None:
    model = trained(ONE_TOWER["grouped heads, odd vocabulary, untied"], "next-token")
    save(model, tmp_path / "model")
    theirs = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "model").eval()
    blocked = [[i] for i in range(44) if i != TOKENIZER.vocabulary.eos] + [[i] for i in range(V, V + 3)]
    written = theirs.generate(
        IDS,
        max_new_tokens=12,
        do_sample=False,
        bad_words_ids=blocked,
        eos_token_id=2,
        pad_token_id=0,
        attention_mask=torch.ones_like(IDS),
    )
    assert torch.equal(bothways.Model(model).generate(IDS, max_new_tokens=12), written)


def test_the_tokenizer_is_theirs(tmp_path: Path) -> None:
    save(trained(ONE_TOWER["plain"], "next-token"), tmp_path / "model")
    theirs = transformers.AutoTokenizer.from_pretrained(tmp_path / "model")
    assert theirs("a dog <mask>", add_special_tokens=False)["input_ids"] == TOKENIZER.encode("a dog <mask>")


@pytest.mark.parametrize(
    ("config", "objective", "word"),
    [
        (ModelConfig(Shape(V, 32, 2, 0, 4), Position("learned")), "next-token", "position.kind is 'learned'"),
        (ModelConfig(Shape(V, 32, 2, 0, 4), norm=Norm("layer")), "masked", "norm.kind is 'layer'"),
        (ModelConfig(Shape(V, 32, 2, 0, 4), reach="LG"), "next-token", "reach is 'LG'"),
        (ModelConfig(Shape(V, 32, 2, 0, 4), bias=True), "masked", "bias is queries, attention, feed_forward"),
        (ModelConfig(Shape(V, 32, 2, 0, 4), norm=Norm(query_key=True)), "masked", "norm.query_key is true"),
        (ModelConfig(Shape(V, 32, 2, 0, 4)), "prefix", "into the prefix"),
        (ModelConfig(Shape(V, 32, 2, 0, 4), companions=(Companion("order", "classes", 2),)), "masked",
         "'order' beside"),
        (ModelConfig(Shape(V, 32, 2, 2, 4)), "denoising", "position.kind is 'rotary', not 'relative'"),
    ],
)
def test_what_has_no_class_says_why_and_keeps_our_names(
    config: ModelConfig, objective: str, word: str, tmp_path: Path
) -> None:
    model = trained(config, objective)
    assert word in str(families.obstacle(config, model.objective))
    save(model, tmp_path / "model")
    assert word in (tmp_path / "model" / "README.md").read_text()
    again = load(tmp_path / "model")
    assert all(torch.equal(a, b) for a, b in zip(model.network.parameters(), again.network.parameters(), strict=True))


def test_the_card_says_the_shift_of_a_hybrid(tmp_path: Path) -> None:
    save(trained(ONE_TOWER["plain"], "0.5 next-token + 0.5 masked-next"), tmp_path / "model")
    card = (tmp_path / "model" / "README.md").read_text()
    assert "LlamaForCausalLM" in card
    assert "read one place before it" in card
