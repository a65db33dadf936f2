"""Every published family at one size: the largest difference of logits, and how fast ours reads beside `transformers`.

    python benchmarks/families.py --rounds 9
    python benchmarks/families.py --only bert,mamba

Both libraries read the same folder: 4 layers, 256 wide, 8 texts of 128 tokens, float32, no gradients, all logits. The
peer attends by its fastest way (PyTorch's fused attention where it has that, else written out); where it has no other
than the last, the same tokens are read as 2 texts of 512 as well. The table of docs/families.md is printed from the
result by docs/families_table.py. Each family's entry is kept when it is measured, beside those of earlier calls.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
from collections.abc import Callable
from typing import Any

import torch
import transformers
from torch import Tensor

import bothways
import peers
from bothways.families import KNOWN, Family
from bothways.families.settings import to_data
from bothways.visibility import bidirectional, causal

VOCABULARY, BATCH, LENGTH, LONG = 8192, 8, 128, 512
EAGER = ("openai-gpt", "mamba", "mamba2", "deberta", "deberta-v2", "xlnet")
"""Families that the peer runs without fused kernels: for them the same tokens are read in longer texts as well."""
SPECIAL = {"pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2, "decoder_start_token_id": 1, "cls_token_id": 4,
           "sep_token_id": 5, "mask_token_id": 6}
USUAL = {"vocab_size": VOCABULARY, "hidden_size": 256, "intermediate_size": 1024, "num_hidden_layers": 4,
         "num_attention_heads": 4, "max_position_embeddings": 512}
OPENAI = {"vocab_size": VOCABULARY, "n_embd": 256, "n_layer": 4, "n_head": 4, "n_positions": 512}
TWO = {"vocab_size": VOCABULARY, "d_model": 256, "encoder_layers": 4, "decoder_layers": 4, "encoder_ffn_dim": 1024,
       "decoder_ffn_dim": 1024, "encoder_attention_heads": 4, "decoder_attention_heads": 4,
       "max_position_embeddings": 512}
GROUPED = {**USUAL, "num_key_value_heads": 2, "head_dim": 64}
SIZES: dict[str, dict[str, Any]] = {
    **dict.fromkeys(("gpt2", "openai-gpt"), OPENAI), "gptj": {**OPENAI, "rotary_dim": 32},
    "gpt_neo": {"vocab_size": VOCABULARY, "hidden_size": 256, "num_layers": 4, "num_heads": 4,
                "max_position_embeddings": 512, "attention_types": [[["global", "local"], 2]], "window_size": 64},
    "t5": {"vocab_size": VOCABULARY, "d_model": 256, "d_kv": 64, "d_ff": 1024, "num_layers": 4, "num_heads": 4},
    **dict.fromkeys(("bart", "plbart"), TWO),
    "mamba": {"vocab_size": VOCABULARY, "hidden_size": 256, "num_hidden_layers": 4},
    "mamba2": {"vocab_size": VOCABULARY, "hidden_size": 256, "num_hidden_layers": 4, "num_heads": 8, "head_dim": 64,
               "n_groups": 1, "state_size": 64},
    "xlnet": {"vocab_size": VOCABULARY, "d_model": 256, "n_layer": 4, "n_head": 4, "d_inner": 1024, "mem_len": None},
    "distilbert": {"vocab_size": VOCABULARY, "dim": 256, "n_layers": 4, "n_heads": 4, "hidden_dim": 1024},
    "albert": {**USUAL, "embedding_size": 128}, "electra": {**USUAL, "embedding_size": 128},
    **{name: {**USUAL, "relative_attention": True, "pos_att_type": ["c2p", "p2c"], "max_relative_positions": 64}
       for name in ("deberta", "deberta-v2")},
    **dict.fromkeys(("llama", "qwen2", "qwen3", "mistral", "gemma2", "gemma3_text", "glm", "glm4", "eurobert", "cohere",
                     "nanochat"), GROUPED),
    **{name: {**GROUPED, "num_local_experts": 4, "num_experts": 4, "num_experts_per_tok": 2,
              "moe_intermediate_size": 512} for name in ("mixtral", "qwen3_moe")},
    **{name: {**USUAL, "num_key_value_heads": 4, "q_lora_rank": 64, "kv_lora_rank": 64, "qk_rope_head_dim": 32,
              "qk_nope_head_dim": 32, "v_head_dim": 64, "n_routed_experts": 4, "n_shared_experts": 1, "n_group": 1,
              "topk_group": 1, "num_experts_per_tok": 2, "moe_intermediate_size": 512, "first_k_dense_replace": 1}
       for name in ("deepseek_v2", "deepseek_v3")},
    "llama4_text": {**GROUPED, "intermediate_size": 512, "intermediate_size_mlp": 1024, "num_local_experts": 4,
                    "attention_chunk_size": 64, "interleave_moe_layer_step": 2},
    "t5gemma": {"vocab_size": VOCABULARY, "encoder": GROUPED, "decoder": GROUPED},
}
"""Sizes under the names each config has for them; others take the usual ones."""


def published(family: Family) -> Any | None:
    """A model of the class with random weights, large enough that a wrong map would show; none if there is no class."""
    if not hasattr(transformers, family.architecture):
        return None
    try:
        config = transformers.AutoConfig.for_model(family.model_type, **SPECIAL, **SIZES.get(family.model_type, USUAL))
    except ValueError:
        return None
    torch.manual_seed(0)
    model = getattr(transformers, family.architecture)(config).eval()
    with torch.no_grad():
        for weight in model.parameters():
            weight.add_(torch.randn_like(weight) * 0.02)
    return model


def compared(family: Family, rounds: int) -> dict[str, Any] | None:
    """One family's entry of the result, or none where the peer has no such class."""
    theirs = published(family)
    if theirs is None:
        return None
    ids, source = (torch.randint(10, VOCABULARY, (BATCH, LENGTH), generator=torch.Generator().manual_seed(seed))
                   for seed in (0, 1))
    two = family.direction == "two towers"
    given = {"input_ids": source, "decoder_input_ids": ids} if two else {"input_ids": ids}
    with tempfile.TemporaryDirectory() as folder:
        theirs.save_pretrained(folder)
        ours = bothways.from_pretrained(folder)

    def peer() -> Tensor:
        output = theirs(**given)
        return output.logits if hasattr(output, "logits") else output.prediction_logits

    sees = bidirectional if family.direction == "bidirectional" else causal

    def own() -> Tensor:
        return ours.logits(ids, source=source if two else None, visibility=sees)
    steps: dict[str, Callable[[], object]] = {"peer": peer, "ours": own}
    with torch.no_grad():
        reference = peer()
        difference = ((own() - reference).abs().max() / reference.abs().max()).item()
        seconds = peers.interleave(steps, rounds, warm=2, per_round=1)
        entry = {"difference": difference, "faster": peers.ratio(seconds["peer"], seconds["ours"]),
                 "ours_ms": 1000 * statistics.median(seconds["ours"]), "config": to_data(ours.config),
                 "attention": getattr(theirs.config, "_attn_implementation", None)}
        if family.model_type in EAGER:
            ids = given["input_ids"] = ids.view(-1, LONG)
            seconds = peers.interleave(steps, rounds, warm=2, per_round=1)
            entry["faster_long"] = peers.ratio(seconds["peer"], seconds["ours"])
    return entry


def keep(found: dict[str, Any], rounds: int) -> None:
    """Put these entries beside those of families that were measured before."""
    file = peers.RESULTS / "families.json"
    known = json.loads(file.read_text())["families"] if file.is_file() else {}
    peers.save("families", {"peer": f"transformers {transformers.__version__}", "rounds": rounds,
                            "families": {name: found.get(name, known.get(name)) for name in KNOWN
                                         if name in found or name in known}})


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--only", default="", help="families by their model_type, separated by commas")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    wanted = [name for name in arguments.only.split(",") if name]
    found: dict[str, Any] = {}
    for name, family in KNOWN.items():
        if wanted and name not in wanted:
            continue
        entry = compared(family, arguments.rounds)
        if entry is None:
            print(f"{name:15}  no class in transformers {transformers.__version__}")
            continue
        found[name] = entry
        long = f"; in long texts {entry['faster_long']}" if "faster_long" in entry else ""
        print(f"{name:15}  difference {entry['difference']:.1e}  {entry['faster']} times as fast{long}  "
              f"({entry['ours_ms']:.1f} ms, peer's attention: {entry['attention']})", flush=True)
        keep(found, arguments.rounds)


if __name__ == "__main__":
    main()
