"""8-bit weights with a scale for each block, read as the numbers they stand for."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from tests.families.reference import ids_of, same, shaken

import bothways
from bothways.errors import BothwaysError

transformers = pytest.importorskip("transformers")


def quantised(folder: Path, rows: int, columns: int) -> bothways.Model:
    """A folder whose large weights become 8-bit ones; returns the model of the numbers that they stand for."""
    torch.manual_seed(0)
    theirs = shaken(transformers.DeepseekV3ForCausalLM(transformers.DeepseekV3Config(
        vocab_size=101, hidden_size=32, intermediate_size=44, num_hidden_layers=2, num_attention_heads=4,
        max_position_embeddings=64, q_lora_rank=12, kv_lora_rank=8, qk_rope_head_dim=4, qk_nope_head_dim=8,
        v_head_dim=6, n_routed_experts=4, num_experts_per_tok=2, moe_intermediate_size=12, first_k_dense_replace=1,
        num_key_value_heads=4, n_group=1, topk_group=1, bos_token_id=1, eos_token_id=2)))
    theirs.save_pretrained(folder / "eight")
    file = folder / "eight/model.safetensors"
    plain, eight = {}, {}
    for name, weight in load_file(file).items():
        plain[name] = eight[name] = weight
        if "_proj" in name and weight.dim() == 2:
            # by hand, block by block: the largest number of each becomes 448
            scale = torch.ones(-(-weight.shape[0] // rows), -(-weight.shape[1] // columns))
            small, back = torch.empty_like(weight, dtype=torch.float8_e4m3fn), torch.empty_like(weight)
            for i in range(scale.shape[0]):
                for j in range(scale.shape[1]):
                    block = slice(i * rows, (i + 1) * rows), slice(j * columns, (j + 1) * columns)
                    scale[i, j] = weight[block].abs().max() / 448
                    small[block] = (weight[block] / scale[i, j]).to(torch.float8_e4m3fn)
                    back[block] = small[block].float() * scale[i, j]
            plain[name], eight[name], eight[f"{name}_scale_inv"] = back, small, scale
    (folder / "plain").mkdir()
    config = json.loads((folder / "eight/config.json").read_text())
    (folder / "plain/config.json").write_text(json.dumps(config))
    save_file(plain, folder / "plain/model.safetensors")
    save_file(eight, file)
    config["quantization_config"] = {"quant_method": "fp8", "fmt": "e4m3", "weight_block_size": [rows, columns]}
    (folder / "eight/config.json").write_text(json.dumps(config))
    return bothways.from_pretrained(folder / "plain")


@pytest.mark.parametrize(("rows", "columns"), [(128, 128), (8, 16), (5, 7)])
def test_blocks_are_read_as_numbers(rows: int, columns: int, tmp_path: Path) -> None:
    plain, ids = quantised(tmp_path, rows, columns), ids_of(101)
    ours = bothways.from_pretrained(tmp_path / "eight", dtype=torch.float32)
    same(ours.logits(ids), plain.logits(ids), 1e-6)
    assert bothways.from_pretrained(tmp_path / "eight").trained.dtype in (torch.bfloat16, torch.float32)
    # written again it is a plain folder
    ours.save_pretrained(tmp_path / "again")
    assert "quantization_config" not in json.loads((tmp_path / "again/config.json").read_text())
    assert torch.equal(bothways.from_pretrained(tmp_path / "again").logits(ids), ours.logits(ids))


def test_what_does_not_fit_is_named(tmp_path: Path) -> None:
    quantised(tmp_path, 8, 16)
    config = json.loads((tmp_path / "eight/config.json").read_text())
    for said, phrase in (({"weight_block_size": [4, 16]}, r"_scale_inv has shape .* blocks of 4 x 16"),
                         ({"quant_method": "gptq"}, "quantised by 'gptq'")):
        changed = {**config, "quantization_config": {**config["quantization_config"], **said}}
        (tmp_path / "eight/config.json").write_text(json.dumps(changed))
        with pytest.raises(BothwaysError, match=phrase):
            bothways.from_pretrained(tmp_path / "eight")
