"""What GGUF calls the families: for each architecture a table of header keys, and of tensors laid out otherwise.

Names of tensors are the `gguf` package's own (its maps lead from published names to llama.cpp's). Both directions read
the same table: a header makes a published config, and a published config a header.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from bothways.errors import BothwaysError
from bothways.families.base import TRANSPOSED, Change, turned
from bothways.model.choices import Scaling
from bothways.model.position import frequencies

Shapes = Mapping[str, tuple[int, ...]]
"""Shapes of the tensors of a file, by GGUF's names."""
FREQUENCIES = "rope_freqs.weight"
"""The tensor that says by what each rotary frequency is divided (Llama 3)."""
_SCALING = "rope.scaling."


def _nothing(stored: Mapping[str, Any], shapes: Shapes) -> dict[str, Any]:
    return {}


@dataclass(frozen=True)
class Architecture:
    """How a GGUF architecture is one of ours.

    model_type: of the family.
    entries: of the published config, by the GGUF key without the architecture in front.
    changes: of tensors that llama.cpp lays out otherwise than the published file, by the last parts of its own names.
    always: keys whose value follows from the architecture.
    rest: entries of the published config that only the other entries and the tensors say.
    rotary: whether it has rotary positions.
    """

    model_type: str
    entries: Mapping[str, str]
    changes: Mapping[str, Change] = field(default_factory=dict)
    always: Mapping[str, Any] = field(default_factory=dict)
    rest: Callable[[Mapping[str, Any], Shapes], dict[str, Any]] = _nothing
    rotary: bool = False

    def change(self, own: str) -> Change | None:
        """What is changed in a tensor of that name."""
        return next((change for end, change in self.changes.items() if own.endswith(end)), None)

    def published(self, name: str, fields: Mapping[str, Any], shapes: Shapes, divisors: Tensor | None, where: str
                  ) -> dict[str, Any]:
        """What config.json of the same model would say.

        Args:
            name: of the architecture, which stands before its keys.
            fields: the header.
            divisors: the tensor FREQUENCIES, where there is one.
        Raises:
            BothwaysError: a scaling of rotary positions that is not known here.
        """
        stored: dict[str, Any] = {"model_type": self.model_type, "tie_word_embeddings": "output.weight" not in shapes}
        for key, entry in self.entries.items():
            if f"{name}.{key}" in fields:
                stored[entry] = _said(fields[f"{name}.{key}"])
        embedding = shapes.get("token_embd.weight")
        stored["vocab_size"] = embedding[0] if embedding else len(fields.get("tokenizer.ggml.tokens") or ())
        if self.rotary:
            scaling = {key.rpartition(".")[2]: _said(value) for key, value in fields.items()
                       if key.startswith(f"{name}.{_SCALING}")}
            stored["rope_scaling"] = _scaling(scaling, divisors, stored, where)
        return {**stored, **self.rest(stored, shapes)}

    def header(self, name: str, stored: Mapping[str, Any]) -> dict[str, Any]:
        """The keys of a published config, and those of the architecture itself."""
        fields = {f"{name}.{key}": stored[entry] for key, entry in self.entries.items()
                  if stored.get(entry) is not None}
        scaling = (stored.get("rope_parameters") or {}) if self.rotary else {}
        if scaling.get("rope_type") in ("linear", "yarn"):
            said = {"type": scaling["rope_type"], "factor": float(scaling["factor"]),
                    "original_context_length": scaling.get("original_max_position_embeddings")}
            fields |= {f"{name}.{_SCALING}{key}": value for key, value in said.items() if value is not None}
        return {**fields, **{f"{name}.{key}": value for key, value in self.always.items()}}


def divisors_of(scaling: Scaling | None, size: int, base: float) -> Tensor | None:
    """By what each of the size / 2 rotary frequencies is divided, for a scaling that a header cannot say."""
    if scaling is None or scaling.kind != "llama3":
        return None
    return (frequencies(size, base) / frequencies(size, base, scaling)).float()


def _scaling(said: Mapping[str, Any], divisors: Tensor | None, stored: Mapping[str, Any], where: str
             ) -> dict[str, Any] | None:
    """Slowed-down positions as a published config has them."""
    if divisors is not None:
        # a file holds the divisors alone: what all published Llamas of this kind share explains them, or nothing does
        factor, base = round(float(divisors.max()), 4), float(stored.get("rope_theta", 10000.0))
        usual = divisors_of(Scaling("llama3", factor, 8192, 1.0, 4.0), 2 * len(divisors), base)
        assert usual is not None
        if not torch.allclose(usual, divisors, rtol=1e-4):
            raise BothwaysError(f"{where}: {FREQUENCIES} divides frequencies otherwise than Llama 3 does, which is not "
                                "read here: convert the model from its folder")
        return {"rope_type": "llama3", "factor": factor, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
                "original_max_position_embeddings": 8192}
    if said.get("type", "none") == "none":
        return None
    return {"rope_type": said["type"], **({"factor": said["factor"]} if "factor" in said else {}),
            **({"original_max_position_embeddings": said["original_context_length"]}
               if "original_context_length" in said else {})}


def _said(value: Any) -> Any:
    """A header keeps 32 bits: 9.99999975e-06 was 1e-05."""
    return float(f"{value:.7g}") if isinstance(value, float) else value


def as_stored(fields: Mapping[str, Any]) -> dict[str, Any]:
    """The fields as they come back from a file: floats lose half of their digits."""
    return {key: struct.unpack("<f", struct.pack("<f", value))[0] if isinstance(value, float) else value
            for key, value in fields.items()}


def _biases(stored: Mapping[str, Any], shapes: Shapes) -> dict[str, Any]:
    return {"attention_bias": "blk.0.attn_output.bias" in shapes, "mlp_bias": "blk.0.ffn_down.bias" in shapes}


def _of_gemma(stored: Mapping[str, Any], shapes: Shapes) -> dict[str, Any]:
    return {"query_pre_attn_scalar": stored.get("head_dim", 256)}


def _of_t5(stored: Mapping[str, Any], shapes: Shapes) -> dict[str, Any]:
    return {"feed_forward_proj": "gated-gelu" if "enc.blk.0.ffn_gate.weight" in shapes else "relu"}


def _of_mamba(stored: Mapping[str, Any], shapes: Shapes) -> dict[str, Any]:
    width, inner = int(stored.get("hidden_size", 1)), int(stored.get("intermediate_size", 2))
    return {"expand": inner // width if inner % width == 0 else inner / width,
            "use_conv_bias": "blk.0.ssm_conv1d.bias" in shapes, "use_bias": "blk.0.ssm_in.bias" in shapes}


def _of_bert(stored: Mapping[str, Any], shapes: Shapes) -> dict[str, Any]:
    return {"type_vocab_size": shapes.get("token_types.weight", (2,))[0]}


def _under(names: Collection[str], change: Change) -> dict[str, Change]:
    return dict.fromkeys(names, change)


_DECODER = {
    "embedding_length": "hidden_size", "block_count": "num_hidden_layers", "feed_forward_length": "intermediate_size",
    "attention.head_count": "num_attention_heads", "attention.head_count_kv": "num_key_value_heads",
    "attention.key_length": "head_dim", "attention.value_length": "head_dim",
    "attention.layer_norm_rms_epsilon": "rms_norm_eps", "rope.freq_base": "rope_theta",
    "context_length": "max_position_embeddings"}
_WHOLE = {**_DECODER, "rope.dimension_count": "head_dim"}
_GEMMA = {**_DECODER, "attention.sliding_window": "sliding_window"}
_BESIDE_ONE = _under(("norm.weight",), Change(lambda theirs, config: theirs - 1, lambda ours, config: ours + 1))
"""Gemma stores what its norms add to 1, llama.cpp the sum."""
_RECURRENCE = {"ssm_conv1d.weight": Change(lambda theirs, config: theirs.unsqueeze(1),
                                                lambda ours, config: ours.squeeze(1)),
                    "ssm_a": Change(lambda theirs, config: (-theirs).log(), lambda ours, config: -ours.exp())}
KNOWN: dict[str, Architecture] = {
    "llama": Architecture("llama", _WHOLE, _under(
        ("attn_q.weight", "attn_q.bias", "attn_k.weight", "attn_k.bias"), turned(interleaved=True)),
        rest=_biases, rotary=True),
    "qwen2": Architecture("qwen2", _DECODER, rotary=True),
    "qwen3": Architecture("qwen3", _DECODER, rest=_biases, rotary=True),
    "gemma2": Architecture("gemma2", {**_GEMMA, "attn_logit_softcapping": "attn_logit_softcapping",
                                      "final_logit_softcapping": "final_logit_softcapping"},
                           _BESIDE_ONE, rest=_of_gemma, rotary=True),
    "gemma3": Architecture("gemma3_text", _GEMMA, _BESIDE_ONE, rest=_of_gemma, rotary=True),
    "gpt2": Architecture("gpt2", {
        "context_length": "n_positions", "embedding_length": "n_embd", "block_count": "n_layer",
        "feed_forward_length": "n_inner", "attention.head_count": "n_head",
        "attention.layer_norm_epsilon": "layer_norm_epsilon"},
        _under(("attn_qkv.weight", "attn_output.weight", "ffn_up.weight", "ffn_down.weight"), TRANSPOSED)),
    "bert": Architecture("bert", {
        "context_length": "max_position_embeddings", "embedding_length": "hidden_size",
        "block_count": "num_hidden_layers", "feed_forward_length": "intermediate_size",
        "attention.head_count": "num_attention_heads", "attention.layer_norm_epsilon": "layer_norm_eps"},
        always={"attention.causal": False}, rest=_of_bert),
    "t5": Architecture("t5", {
        "context_length": "n_positions", "embedding_length": "d_model", "feed_forward_length": "d_ff",
        "block_count": "num_layers", "decoder_block_count": "num_decoder_layers", "attention.head_count": "num_heads",
        "attention.key_length": "d_kv", "attention.value_length": "d_kv",
        "attention.layer_norm_epsilon": "layer_norm_epsilon",
        "attention.layer_norm_rms_epsilon": "layer_norm_epsilon",
        "attention.relative_buckets_count": "relative_attention_num_buckets",
        "decoder_start_token_id": "decoder_start_token_id"}, rest=_of_t5),
    "mamba": Architecture("mamba", {
        "embedding_length": "hidden_size", "block_count": "num_hidden_layers", "ssm.conv_kernel": "conv_kernel",
        "ssm.inner_size": "intermediate_size", "ssm.state_size": "state_size", "ssm.time_step_rank": "time_step_rank",
        "attention.layer_norm_rms_epsilon": "layer_norm_epsilon"}, _RECURRENCE,
        always={"context_length": 2 ** 20, "feed_forward_length": 0, "attention.head_count": 0}, rest=_of_mamba)}
"""The architectures that are read and written."""
