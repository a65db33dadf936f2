"""The commands that use a model: what they print, what they write, and what they refuse."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from tests.decoding.small import CONTENDERS, tiny

import bothways
from bothways.cli import main


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A run's folder with a model in it."""
    bothways.Model(tiny("next-token")).save_pretrained(tmp_path / "run" / "model")
    return tmp_path / "run"


def saved(key: str, tmp_path: Path) -> str:
    return str(bothways.Model(tiny(CONTENDERS[key])).save_pretrained(tmp_path / key))


def test_generate_prints_the_text(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    model = bothways.from_pretrained(folder)
    assert main(["generate", str(folder), "the cat", "--max-new-tokens", "9"]) == 0
    assert capsys.readouterr().out == model.generate("the cat", 9) + "\n"
    assert (
        main(
            [
                "generate",
                str(folder / "model"),
                "the cat",
                "--max-new-tokens",
                "9",
                "--temperature",
                "1",
                "--seed",
                "3",
                "--samples",
                "2",
                "--verbose",
            ]
        )
        == 0
    )
    shown = capsys.readouterr()
    for seed in (3, 4):
        assert model.generate("the cat", 9, temperature=1.0, seed=seed) in shown.out
    assert "a second" in shown.err


def test_generate_refuses_before_it_repeats_the_prompt(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["generate", str(folder), "the cat", "--top-k", "4", "--contrast", "0.5", "--lookup", "2"]) == 2
    shown = capsys.readouterr()
    assert shown.out == "" and "look-up" in shown.err
    # the network's own places are looked at with the first token only
    assert main(["generate", str(folder), "the cat " * 500]) == 2
    shown = capsys.readouterr()
    assert shown.out == "" and "places" in shown.err


def test_generate_refuses_to_chat_without_a_template(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["generate", str(folder), "the cat", "--chat"]) == 2
    assert "no chat template" in capsys.readouterr().err
    assert main(["generate", str(folder), "the cat", "--chat", "--beams", "2"]) == 2
    assert "is streamed" in capsys.readouterr().err


def test_generate_reads_weights_of_few_bits(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["generate", str(folder), "the cat", "--max-new-tokens", "3", "--weights", "int8"]) == 0
    assert capsys.readouterr().out == bothways.from_pretrained(folder, weights="int8").generate("the cat", 3) + "\n"


@pytest.mark.parametrize("key", ["masked", "denoising", "diffusion"])
def test_every_contender_writes(key: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    fewer = ["--steps", "2"] if key in ("masked", "diffusion") else []
    assert main(["generate", saved(key, tmp_path), "a dog", "--max-new-tokens", "5", *fewer]) == 0
    assert capsys.readouterr().out.startswith("a dog")


def test_every_way_to_write(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    model, grammar = bothways.from_pretrained(folder), tmp_path / "form.lark"
    grammar.write_text('start: "(x)"')
    ways: list[tuple[list[str], dict[str, object]]] = [
        (
            ["--no-repeat-ngram", "2", "--logit-bias", "50=-inf"],
            {"no_repeat_ngram": 2, "logit_bias": {50: -float("inf")}},
        ),
        (["--beams", "3"], {"beams": 3}),
        (["--beams", "4", "--force", "dog", "mat|cat"], {"beams": 4, "force": ("dog", ("mat", "cat"))}),
        (["--contrast", "0.5", "--top-k", "4"], {"contrast": 0.5, "top_k": 4}),
        (["--lookup", "3"], {}),
        (["--draft", str(folder)], {}),
        (["--choices", "a dog", "no"], {"choices": ("a dog", "no")}),
        (["--grammar", str(grammar)], {"grammar": 'start: "(x)"'}),
        (["--json-schema", '{"type": "boolean"}'], {"json_schema": {"type": "boolean"}}),
    ]
    for arguments, options in ways:
        assert main(["generate", str(folder), "the cat", "--max-new-tokens", "12", *arguments]) == 0
        assert capsys.readouterr().out == f"{model.generate('the cat', 12, **options)}\n"
    assert main(["generate", str(folder), "the cat", "--beams", "2", "--samples", "2", "--max-new-tokens", "5"]) == 0
    assert "--- 2 (score -" in capsys.readouterr().out
    assert len(model.generate("the cat", 5, samples=3, temperature=1.0)) == 3
    assert main(["generate", str(folder), "a", "--logit-bias", "x"]) == 2
    assert "is not ID=VALUE" in capsys.readouterr().err
    assert main(["generate", str(folder), "a", "--logit-bias", "99999=3"]) == 2
    assert "logit_bias names the token 99999, but the vocabulary has the ids 0 to" in capsys.readouterr().err
    # bytes that are no characters, as Python hands them on from a terminal
    assert main(["generate", str(folder), "a \udce9"]) == 2
    assert "text 1 is not UTF-8: what stands at character 3 is no character" in capsys.readouterr().err
    assert main(["generate", str(folder), "a", "--json-schema", "missing.json"]) == 2
    assert "cannot read 'missing.json'" in capsys.readouterr().err


def test_a_hybrid_asks_which(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = saved("hybrid", tmp_path)
    assert main(["generate", folder, "a dog"]) == 2
    assert "say which one to use" in capsys.readouterr().err
    assert main(["generate", folder, "a dog", "--visibility", "causal", "--max-new-tokens", "3"]) == 0


def test_fill(tmp_path: Path, capsys: pytest.CaptureFixture[str], folder: Path) -> None:
    masked = saved("masked", tmp_path)
    assert main(["fill", masked, "the <mask> sat"]) == 0
    assert capsys.readouterr().out == bothways.from_pretrained(masked).fill("the <mask> sat") + "\n"
    assert main(["fill", str(folder), "the <mask> sat"]) == 2
    assert "cannot fill blanks" in capsys.readouterr().err
    assert main(["fill", masked, "nothing missing"]) == 2
    assert "text 1 has no <mask>" in capsys.readouterr().err


def test_embed(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    texts = ["the cat", "a dog ran"]
    vectors = bothways.from_pretrained(folder).embed(texts).numpy()
    assert main(["embed", str(folder), *texts]) == 0
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [line["text"] for line in lines] == texts
    np.testing.assert_allclose([line["vector"] for line in lines], vectors, atol=1e-5)
    (tmp_path / "texts.txt").write_text("the cat\n\na dog ran\n")
    (tmp_path / "texts.jsonl").write_text("".join(json.dumps({"body": text}) + "\n" for text in texts))
    for file, options in (("texts.txt", []), ("texts.jsonl", ["--field", "body"])):
        out = tmp_path / "vectors.npy"
        assert main(["embed", str(folder), "--texts", str(tmp_path / file), "--out", str(out), *options]) == 0
        np.testing.assert_allclose(np.load(out), vectors, atol=1e-5)
    capsys.readouterr()
    for call, word in (
        (["--out", "x.txt", "a"], "written as .npy or .jsonl"),
        ([], "give texts in the call"),
        (["--texts", "gone.txt"], "gone.txt: no such file"),
        (["a", "--texts", "b"], "not both"),
        (["a dog " * 90], "text 1 has 273 tokens, but this network has places for 96: shorten it, or truncate it"),
        (["--texts", str(tmp_path / "latin.txt")], "latin.txt is not UTF-8: line 2 cannot be read"),
    ):
        (tmp_path / "latin.txt").write_bytes(b"fine\n\xe9t\xe9\n")
        assert main(["embed", str(folder), *call]) == 2
        assert word in capsys.readouterr().err
    # cut on request, in another number format; nothing half-written stays
    assert main(["embed", str(folder), "a dog " * 90, "--truncate", "right", "--dtype", "bfloat16"]) == 0
    (line,) = capsys.readouterr().out.splitlines()
    cut = bothways.from_pretrained(folder).embed("a dog " * 90, truncate="right")[0].numpy()
    np.testing.assert_allclose(json.loads(line)["vector"], cut, atol=0.05)
    (tmp_path / "long.txt").write_text("fine\n" + "a dog " * 90)
    before = sorted(tmp_path.iterdir())
    for name in ("new.npy", "new.jsonl"):
        assert main(["embed", str(folder), "--texts", str(tmp_path / "long.txt"), "--out", str(tmp_path / name)]) == 2
    assert sorted(tmp_path.iterdir()) == before


def test_convert(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "exported"
    assert main(["convert", str(folder), str(out), "--dtype", "bfloat16"]) == 0
    assert "LlamaForCausalLM, bfloat16" in capsys.readouterr().out
    assert main(["convert", str(folder), str(out)]) == 2
    assert "exists already" in capsys.readouterr().err
    assert main(["convert", str(folder), str(out), "--force", "--layout", "bothways"]) == 0
    assert main(["convert", str(folder), str(tmp_path / "t5"), "--layout", "t5"]) == 2
    assert "shape.source_layers is 0" in capsys.readouterr().err
    assert not (tmp_path / "t5").exists()


def test_describe_a_folder_and_a_recipe(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["describe", str(folder)]) == 0
    shown = capsys.readouterr().out
    assert "next-token" in shown
    assert "LlamaForCausalLM" in shown
    (tmp_path / "recipe.yaml").write_text(
        "objective: denoising\nmodel: {shape: {width: 64, layers: 2, source_layers: 2}}\n"
    )
    assert main(["describe", str(tmp_path / "recipe.yaml")]) == 0
    assert "position.kind is 'rotary', not 'relative'" in capsys.readouterr().out


def test_cost(capsys: pytest.CaptureFixture[str]) -> None:
    from bothways.model import ModelConfig, Shape, cost

    assert main(["cost", "--width", "64", "--layers", "4", "--vocabulary", "1000", "--budget", "1e12 flops"]) == 0
    shown = capsys.readouterr().out
    assert f"{cost.parameters(ModelConfig(Shape(1000, 64, 4, 0, 4)))['total']:,}" in shown
    assert "in tokens" in shown
    assert main(["cost", "--objective", "denoising"]) == 0
    assert "two towers" in capsys.readouterr().out
    for call, word in (
        (["--objective", "maksed"], "did you mean 'masked'"),
        (["--budget", "10min"], "found by training"),
        (["--vocabulary", "10"], "44 are reserved"),
    ):
        assert main(["cost", *call]) == 2
        assert word in capsys.readouterr().err


def test_a_missing_folder_is_one_sentence(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for command in (["generate"], ["fill"], ["embed"], ["describe"]):
        assert main([*command, str(tmp_path / "gone"), *(["a"] if command != ["describe"] else [])]) == 2
        assert capsys.readouterr().err.count("\n") == 1


@pytest.mark.parametrize("command", ["generate", "fill", "embed", "convert", "describe", "cost"])
def test_help_has_an_example(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([command, "--help"]) == 0
    assert f"bothways {command}" in capsys.readouterr().out


def test_show_steps_has_a_line_for_each_step_and_candidates_are_ranked(tmp_path: Path,
                                                                      capsys: pytest.CaptureFixture[str]) -> None:
    folder = saved("masked", tmp_path)
    assert main(["fill", folder, "the <mask> sat on <mask>", "--show-steps", "--decoding", "diffusion", "--order",
                 "1,0"]) == 0
    first, second, third, cost = capsys.readouterr().out.splitlines()
    assert first.split() == ["0", "the", "▁▁", "sat", "on", "▁▁"]
    assert second.count("▁▁") == 1
    assert "▁" not in third
    assert "diffusion: 2 steps, 2 network evaluations" in cost
    assert main(["generate", saved("causal", tmp_path), "a dog", "--max-new-tokens", "3", "--show-steps"]) == 0
    assert capsys.readouterr().out.splitlines()[0].split() == ["0", "a", "dog"]
    assert main(["fill", folder, "the <mask> sat", "--candidates", "cat", "dog"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert sorted(line.split()[-1] for line in lines[:2]) == ["cat", "dog"]
    assert lines[2].startswith("natural logs; ")
