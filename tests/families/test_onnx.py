"""ONNX: onnxruntime gives the network's own logits: at other sizes than it was exported with, padded, step by step."""

from __future__ import annotations

import functools
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

import bothways
from bothways import objectives
from bothways.cli import main
from bothways.errors import BothwaysError
from bothways.families import KNOWN
from bothways.families.onnx_write import write_onnx
from bothways.families.trained import Trained
from bothways.model import LanguageModel, ModelConfig, Norm, Position, Shape
from bothways.model.config import Experts, FeedForward, LatentHeads, Mixer
from bothways.text.tokenizer import Tokenizer
from bothways.visibility import bidirectional

pytest.importorskip("onnx", reason="needs the package onnx (pip install 'bothways[export]')")
pytest.importorskip("onnxscript")
runtime = pytest.importorskip("onnxruntime")

TOKENIZER = Tokenizer.train(["the cat sat on the mat"], kind="bytes", size=300)
V = TOKENIZER.vocabulary.size
SIZES = {"vocab_size": V, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4,
         "max_position_embeddings": 64}
TWO = {"vocab_size": V, "d_model": 32, "d_kv": 6, "d_ff": 40, "num_layers": 2, "num_heads": 4,
       "feed_forward_proj": "gated-gelu", "tie_word_embeddings": False}
BART = {"vocab_size": V, "d_model": 32, "encoder_layers": 1, "decoder_layers": 1, "encoder_attention_heads": 4,
        "decoder_attention_heads": 4, "encoder_ffn_dim": 48, "decoder_ffn_dim": 48, "max_position_embeddings": 64}
CLOSE = 1e-4


def trained(family: str, stored: dict[str, Any], objective: str) -> Trained:
    return of(KNOWN[family].from_config(stored, family), objective)


def of(config: ModelConfig, objective: str) -> Trained:
    torch.manual_seed(0)
    made = objectives.make(objective, TOKENIZER.vocabulary)
    network = LanguageModel(config)
    with torch.no_grad():
        for weight in network.parameters():
            weight.add_(torch.randn_like(weight) * 0.1)
    return Trained(network.eval(), made, TOKENIZER)


ENCODERS: dict[str, Any] = {
    "ours": (ModelConfig(Shape(V, 32, 1, 0, 4, 2), norm=Norm(query_key=True)),),
    "ours, relative and narrow": (ModelConfig(Shape(V, 30, 3, 0, 5), Position("relative", buckets=8, distance=20),
                                              reach="GL", local=2),),
    "bert": ("bert", {**SIZES, "type_vocab_size": 2, "num_hidden_layers": 1}),
    "roberta": ("roberta", {**SIZES, "type_vocab_size": 1, "pad_token_id": 0}),
    "deberta-v2": ("deberta-v2", {**SIZES, "relative_attention": True, "position_buckets": 8, "type_vocab_size": 0,
                                  "max_relative_positions": -1, "pos_att_type": ["p2c", "c2p"], "share_att_key": True,
                                  "norm_rel_ebd": "layer_norm", "position_biased_input": False}),
    "albert": ("albert", {**SIZES, "embedding_size": 20, "num_hidden_groups": 1}),
}
DECODERS: dict[str, Any] = {
    "llama": ("llama", {**SIZES, "num_key_value_heads": 2, "rope_scaling": {
        "rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
        "original_max_position_embeddings": 16}}),
    "gpt2": ("gpt2", {"vocab_size": V, "n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 64}),
    "gemma3": ("gemma3_text", {**SIZES, "head_dim": 8, "num_key_value_heads": 2, "sliding_window": 4,
                               "sliding_window_pattern": 2, "final_logit_softcapping": 3.0}),
    "ours, in waves": (ModelConfig(Shape(V, 32, 2, 0, 4), Position("sinusoidal"), parallel=True),),
}
COUPLES: dict[str, Any] = {"t5": ("t5", TWO), "bart": ("bart", BART)}
OFTEN = {"bert", "llama", "bart"}
"""One of each kind; an export takes seconds, so that the others are for `-m slow`."""


def some(names: dict[str, Any]) -> list[Any]:
    return [name if name in OFTEN else pytest.param(name, marks=pytest.mark.slow) for name in names]


def made(told: Any, objective: str) -> Trained:
    return of(told[0], objective) if len(told) == 1 else trained(*told, objective)


def session(file: Path) -> Any:
    return runtime.InferenceSession(file, providers=["CPUExecutionProvider"])


def close(found: np.ndarray, wanted: Tensor) -> None:
    assert found.shape == tuple(wanted.shape)
    assert np.abs(found - wanted.numpy()).max() <= CLOSE * float(wanted.abs().max())


def texts(batch: int, length: int, seed: int = 0) -> Tensor:
    return torch.randint(10, V, (batch, length), generator=torch.Generator().manual_seed(seed))


@pytest.fixture(scope="module")
def encoder(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], tuple[bothways.Model, Any]]:
    """A model that reads both ways by its name, and its graph; each is exported once."""
    @functools.cache
    def exported(name: str) -> tuple[bothways.Model, Any]:
        model, folder = bothways.Model(made(ENCODERS[name], "masked")), tmp_path_factory.mktemp("encoder")
        (file,) = write_onnx(model.trained, folder / "model.onnx")
        assert [path.name for path in folder.iterdir()] == ["model.onnx"]
        return model, session(file)

    return exported


@pytest.mark.parametrize("name", some(ENCODERS))
def test_a_text_as_a_whole(name: str, encoder: Callable[[str], tuple[bothways.Model, Any]]) -> None:
    model, run = encoder(name)
    assert [one.shape for one in run.get_inputs()][:2] == [["batch", "length"]] * 2
    more = {"segments"} & {one.name for one in run.get_inputs()}
    assert bool(more) == any(one.name == "segment" for one in model.config.companions)
    for batch, length in ((3, 11), (1, 1), (2, 40)):
        ids = texts(batch, length)
        lengths = [max(1, length - 3 * i) for i in range(batch)]
        real = (torch.arange(length) < torch.tensor(lengths)[:, None]).long()
        told = {one: torch.zeros_like(ids).numpy() for one in more}
        logits, states = run.run(["logits", "states"], {"ids": ids.numpy(), "valid": real.numpy(), **told})
        assert states.shape == (batch, length, model.config.shape.width)
        for i, count in enumerate(lengths):
            close(logits[i, :count], model.logits(ids[i, :count])[0])
        # padding before a text says the same of it
        turned = {"ids": ids.flip(1).numpy(), "valid": real.flip(1).numpy(), **told}
        (before,) = run.run(["logits"], turned)
        close(before[-1, length - lengths[-1]:], model.logits(ids[-1, :lengths[-1]].flip(0))[0])


def test_segments_are_read(encoder: Callable[[str], tuple[bothways.Model, Any]]) -> None:
    model, run = encoder("bert")
    ids, segments = texts(1, 6), torch.tensor([[0, 0, 0, 1, 1, 1]])
    told = {"ids": ids.numpy(), "valid": np.ones((1, 6), np.int64), "segments": segments.numpy()}
    close(run.run(["logits"], told)[0], model.logits(ids, segments=segments))


def step(run: Any, ids: Tensor, real: Tensor, kept: dict[str, np.ndarray], **more: np.ndarray
         ) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """One step of writing, and what is kept for the next."""
    names = [one.name for one in run.get_outputs()]
    found = dict(zip(names, run.run(names, {"ids": ids.numpy(), "valid": real.numpy(), **kept, **more}), strict=True))
    return found.pop("logits"), {name.replace("present", "past"): value for name, value in found.items()}


def nothing(model: Trained, batch: int) -> dict[str, np.ndarray]:
    config = model.config
    return {f"past.{i}.{part}": np.zeros((batch, config.key_heads, 0, config.head_size), np.float32)
            for i in range(config.shape.layers) for part in ("keys", "values")}


@pytest.mark.parametrize("name", some(DECODERS))
def test_step_by_step(name: str, tmp_path: Path) -> None:
    model = bothways.Model(made(DECODERS[name], "next-token"))
    (file,) = write_onnx(model.trained, tmp_path / "model.onnx")
    run = session(file)
    shapes = {one.name: one.shape for one in run.get_inputs()}
    assert (shapes["ids"], shapes["past.1.keys"][0], shapes["past.1.keys"][2]) == (["batch", "length"], "batch", "past")
    # 1. two texts of unequal length, padded before them, then 16 tokens of each
    ids, lengths = texts(2, 7), [7, 4]
    real = (torch.arange(7) >= 7 - torch.tensor(lengths)[:, None]).long()
    logits, kept = step(run, ids, real, nothing(model.trained, 2))
    read = [ids[i, 7 - count:] for i, count in enumerate(lengths)]
    for i, count in enumerate(lengths):
        close(logits[i, 7 - count:], model.logits(read[i])[0])
    for _ in range(16):
        token = torch.from_numpy(logits[:, -1].argmax(-1))
        for i in range(2):
            wanted = model.logits(read[i])[0, -1]
            best = wanted.topk(2).values
            assert int(token[i]) == int(wanted.argmax()) or best[0] - best[1] < 1e-4
            read[i] = torch.cat((read[i], token[i:i + 1]))
        real = torch.cat((real, torch.ones(2, 1, dtype=torch.long)), dim=1)
        logits, kept = step(run, token[:, None], real, kept)
        close(logits[:, -1], torch.stack([model.logits(one)[0, -1] for one in read]))
    # 2. several tokens at once behind some that were read
    one = texts(1, 9, seed=1)
    _, kept = step(run, one[:, :4], torch.ones(1, 4, dtype=torch.long), nothing(model.trained, 1))
    logits, _ = step(run, one[:, 4:], torch.ones(1, 9, dtype=torch.long), kept)
    close(logits, model.logits(one)[:, 4:])


@pytest.mark.parametrize("name", some(COUPLES))
def test_two_towers(name: str, tmp_path: Path) -> None:
    model = bothways.Model(made(COUPLES[name], "span-corruption" if name == "t5" else "denoising"))
    writes, reads = (session(file) for file in write_onnx(model.trained, tmp_path / "model.onnx"))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["model.encoder.onnx", "model.onnx"]
    source, lengths = texts(2, 8, seed=3), [8, 5]
    seen = (torch.arange(8) < torch.tensor(lengths)[:, None]).long()
    names = [one.name for one in reads.get_outputs()]
    across = dict(zip(names, reads.run(names, {"ids": source.numpy(), "valid": seen.numpy()}), strict=True))
    token, kept = torch.full((2, 1), 11), nothing(model.trained, 2)
    written = token
    for _ in range(16):
        real = torch.ones_like(written)
        logits, kept = step(writes, token, real, kept, **across, source_valid=seen.numpy())
        wanted = torch.stack([model.logits(written[i], source=source[i, :count])[0, -1]
                              for i, count in enumerate(lengths)])
        close(logits[:, -1], wanted)
        token = wanted.argmax(-1, keepdim=True)
        written = torch.cat((written, token), dim=1)


@pytest.mark.parametrize(
    ("config", "objective", "why"),
    [
        (ModelConfig(Shape(V, 32, 1, 0, 1), Position("none"), feed_forward=FeedForward("none"), mixer=Mixer("mamba")),
         "next-token", "mixer.kind is 'mamba', and a recurrence is no attention over kept keys"),
        (ModelConfig(Shape(V, 32, 1, 0, 4), feed_forward=FeedForward(experts=Experts(4, 2))), "next-token",
         "feed_forward.experts sends each token elsewhere"),
        (ModelConfig(Shape(V, 32, 1, 0, 4, head_size=12), latent=LatentHeads(8, rotary=4)), "next-token",
         "latent keeps something else"),
        (ModelConfig(Shape(V, 32, 1, 0, 4)), "prefix", "asks for the field .*prefix"),
    ],
    ids=["mamba", "experts", "latents", "prefix"],
)
def test_what_is_not_written(config: ModelConfig, objective: str, why: str, tmp_path: Path) -> None:
    with pytest.raises(BothwaysError, match=f"this network is not written as ONNX here: .*{why}"):
        write_onnx(of(config, objective), tmp_path / "model.onnx")
    assert not list(tmp_path.iterdir())


def test_by_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    bothways.Model(made(ENCODERS["ours"], "masked")).to(dtype=torch.bfloat16).save_pretrained(tmp_path / "folder")
    assert main(["convert", str(tmp_path / "folder"), str(tmp_path / "model.onnx")]) == 0
    told = capsys.readouterr().out
    assert "ids (batch, length), valid (batch, length) to logits, states" in told
    assert main(["convert", str(tmp_path / "folder"), str(tmp_path / "other.onnx"), "--dtype", "float16"]) == 2
    assert "float32" in capsys.readouterr().err
    model = bothways.from_pretrained(tmp_path / "folder", dtype=torch.float32)
    ids = texts(2, 5)
    (logits,) = session(tmp_path / "model.onnx").run(["logits"], {"ids": ids.numpy(),
                                                                  "valid": np.ones((2, 5), np.int64)})
    close(logits, model.logits(ids))
    assert json.loads((tmp_path / "folder" / "config.json").read_text())["bothways"]
    assert bidirectional == model.objective.modes[0].visibility
