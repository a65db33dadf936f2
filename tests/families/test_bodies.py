"""Published classes without a head: their states, the way back, a sentence instead of scores, a fresh head."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from tests.families.reference import flat, ids_of, same, shaken

import bothways
from bothways.errors import BothwaysError
from bothways.text.tokenizer import Tokenizer

transformers = pytest.importorskip("transformers")
SIZES = {"vocab_size": 101, "hidden_size": 32, "intermediate_size": 44, "num_hidden_layers": 2,
         "num_attention_heads": 4, "max_position_embeddings": 64, "pad_token_id": 0, "bos_token_id": 1,
         "eos_token_id": 2}
GROUPED = {**SIZES, "num_key_value_heads": 2}
BODIES: dict[str, dict[str, Any]] = {
    "Bert": SIZES, "Roberta": {**SIZES, "pad_token_id": 1}, "ModernBert": {**SIZES, "cls_token_id": 1,
                                                                           "sep_token_id": 2},
    "DebertaV2": {**SIZES, "relative_attention": True, "pos_att_type": ["c2p", "p2c"]}, "EuroBert": GROUPED,
    "Llama": GROUPED, "Mistral": {**GROUPED, "sliding_window": 5}, "Qwen3": {**GROUPED, "head_dim": 6},
    "DeepseekV3": {**SIZES, "q_lora_rank": 12, "kv_lora_rank": 8, "qk_rope_head_dim": 4, "qk_nope_head_dim": 8,
                   "v_head_dim": 6, "n_routed_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 12,
                   "first_k_dense_replace": 1, "n_group": 1, "topk_group": 1},
    "GPT2": {"vocab_size": 101, "n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 64,
             "tie_word_embeddings": False},
    "XLNet": {"vocab_size": 101, "d_model": 32, "n_layer": 2, "n_head": 4, "d_inner": 44},
    "Mamba": {"vocab_size": 101, "hidden_size": 32, "num_hidden_layers": 2, "tie_word_embeddings": False},
    "T5Encoder": {"vocab_size": 101, "d_model": 32, "d_kv": 8, "d_ff": 44, "num_layers": 2, "num_heads": 4}}


def published(name: str, **options: Any) -> Any:
    torch.manual_seed(0)
    config = getattr(transformers, f"{name.removesuffix('Encoder')}Config")(**{**BODIES[name], **options})
    return shaken(getattr(transformers, f"{name}Model")(config))


@pytest.mark.parametrize("name", BODIES)
def test_a_body_gives_its_states_and_goes_back(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(transformers.PreTrainedModel, "get_correct_experts_implementation", lambda *_: "eager")
    theirs, ids = published(name), ids_of(101, 2, 11)
    theirs.save_pretrained(tmp_path / "theirs")
    ours = bothways.from_pretrained(tmp_path / "theirs")
    with torch.no_grad():
        states, wanted = ours.trained.network(flat(ours, ids)).states, theirs(input_ids=ids).last_hidden_state
    same(states.view_as(wanted), wanted, 1e-4 if name in ("Mamba", "DeepseekV3") else 1e-5)
    with pytest.raises(BothwaysError, match="no head over the vocabulary"):
        ours.logits(ids)
    # back to the same class, without and with our own block in its config
    ours.save_pretrained(tmp_path / "again")
    loaded, info = type(theirs).from_pretrained(tmp_path / "again", output_loading_info=True)
    assert loaded.config.architectures == [f"{name}Model"] and not any(info.values()), info
    first, second = load_file(tmp_path / "theirs/model.safetensors"), load_file(tmp_path / "again/model.safetensors")
    assert all(torch.equal(first[entry], second[entry]) for entry in second)
    loaded.save_pretrained(tmp_path / "third")
    third = bothways.from_pretrained(tmp_path / "third")
    assert not third.config.head.scores
    with torch.no_grad():
        assert torch.equal(third.trained.network(flat(third, ids)).states, states)


def test_a_tied_body_is_a_whole_model(tmp_path: Path) -> None:
    """Its embedding is its head, as the class with a head reads the same folder."""
    theirs, ids = published("Llama", tie_word_embeddings=True), ids_of(101)
    theirs.save_pretrained(tmp_path)
    whole = transformers.LlamaForCausalLM.from_pretrained(tmp_path).eval()
    with torch.no_grad():
        same(bothways.from_pretrained(tmp_path).logits(ids), whole(ids).logits)


def test_a_body_embeds_texts_and_gets_a_fresh_head(tmp_path: Path) -> None:
    tokenizer = Tokenizer.train(["the cat sat on the mat. a dog ran to the house "] * 5, size=330)
    published("Llama", vocab_size=tokenizer.vocabulary.size).save_pretrained(tmp_path)
    tokenizer.save(tmp_path)
    ours = bothways.from_pretrained(tmp_path)
    assert ours.embed(["the cat", "a dog"]).shape == (2, 32)
    with pytest.raises(BothwaysError, match="with_objective"):
        ours.generate("the cat", max_new_tokens=2)
    scored = ours.with_objective("next-token")
    assert scored.config.head.scores and len(scored.generate("the cat", max_new_tokens=4)) > 0
    torch.testing.assert_close(scored.embed(["the cat"]), ours.embed(["the cat"]))


def test_a_whole_file_without_its_head_is_refused(tmp_path: Path) -> None:
    theirs = transformers.LlamaForCausalLM(transformers.LlamaConfig(**GROUPED))
    theirs.save_pretrained(tmp_path)
    weights = load_file(tmp_path / "model.safetensors")
    del weights["lm_head.weight"]
    save_file(weights, tmp_path / "model.safetensors")
    with pytest.raises(BothwaysError, match=r"lacks lm_head\.weight"):
        bothways.from_pretrained(tmp_path)
