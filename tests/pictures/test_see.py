"""The command that draws: the calls its help shows, files, and wrong calls."""

from __future__ import annotations

import re
from xml.etree import ElementTree

import pytest
from tests.evaluation.small import small

from bothways.cli import main, see
from bothways.families.folder import save
from bothways.objectives import known
from bothways.text.tokenizer import Tokenizer
from bothways.visibility import NAMED


def called(capsys, *arguments: str) -> tuple[int, str, str]:
    code = main(["see", *arguments])
    captured = capsys.readouterr()
    return code, captured.out, captured.err


def examples() -> list[str]:
    return [line.strip() for line in (see.__doc__ or "").splitlines() if line.strip().startswith("bothways ")]


@pytest.mark.parametrize("line", examples())
def test_the_examples_of_the_help_work_as_printed(capsys, line, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for paradigm in ("causal", "masked"):
        save(small(paradigm, Tokenizer.words("The cat sat on the mat")), tmp_path / "runs" / paradigm / "model")
    arguments = [quoted or bare for quoted, bare in re.findall(r'"([^"]*)"|(\S+)', line)][2:]
    code, out, err = called(capsys, *arguments)
    assert code == 0 and out and not err


@pytest.mark.parametrize("name", [name for name in known() if name != "mixture"])
def test_every_objective_prints_one_example(capsys, name):
    code, out, _ = called(capsys, "--objective", name, "The cat sat on the mat. It looked out of the window.")
    assert code == 0
    assert "goes in" in out and "is asked" in out and "→" in out and known()[name].summary in out


@pytest.mark.parametrize("spec", ["sentence-pairs", "sentence-pairs(asks=sentence-order)", "glm(levels=sentence)",
                                  "denoising(noises=sentence-permutation)"])
def test_what_works_on_sentences_wants_some(capsys, spec):
    code, out, err = called(capsys, "--objective", spec, "the cat sat on the mat")
    assert code == 2 and not out and "sentence" in err and err.count("\n") == 1


@pytest.mark.parametrize("name", NAMED)
def test_every_visibility_is_drawn(capsys, name):
    code, out, _ = called(capsys, name)
    assert code == 0 and "of all pairs are seen" in out


def test_a_mixture_prints_one_example_of_each_member(capsys, tmp_path):
    page = tmp_path / "hybrid.html"
    code, out, _ = called(capsys, "--objective", "0.25 next-token + 0.75 masked-next", "--out", str(page))
    assert code == 0 and "next-token, 25% of the windows" in out and "masked-next, 75% of the windows" in out
    assert page.read_text().count("<svg") == 2


def test_the_list_names_everything(capsys):
    code, out, _ = called(capsys, "--list")
    assert code == 0 and all(f"  {name} " in out for name in [*known(), *NAMED])


def test_a_picture_is_written_whole(capsys, tmp_path):
    for arguments in (["causal"], ["--objective", "denoising"]):
        file = tmp_path / "picture.svg"
        assert called(capsys, *arguments, "--out", str(file))[0] == 0
        ElementTree.parse(file)
        assert [path.name for path in tmp_path.iterdir()] == ["picture.svg"]


def test_the_tokenizer_of_a_model_is_used(capsys, tmp_path):
    Tokenizer.train(["the cat sat on the mat"] * 3, kind="bytes").save(tmp_path)
    code, out, _ = called(capsys, "--objective", "next-token", "hat", "--model", str(tmp_path))
    assert code == 0 and re.search(r"goes in +<bos> h a t <eos>", out)


def test_another_seed_draws_other_noise(capsys):
    text = "one two three four five six seven eight nine ten"
    drawn = {called(capsys, "--objective", "masked(rate=0.3)", text, "--seed", str(seed))[1] for seed in range(4)}
    assert len(drawn) > 1


@pytest.mark.parametrize("arguments, says", [
    ([], "say what to draw"),
    (["causl"], "did you mean 'causal'"),
    (["causal", "and", "valid"], 'put it in quotes: "causal and valid"'),
    (["--objective", "maskd"], "did you mean 'masked'"),
    (["--objective", "masked", ""], "fewer than 2 tokens"),
    (["causal", "--length", "0"], "1 to 512"),
    (["causal", "--out", "picture.png"], "as .svg or .html"),
    (["causal", "--out", "/no/such/folder/picture.svg"], "there is no folder /no/such/folder"),
    (["--objective", "next-token + masked-next", "--out", "picture.svg"], "so write .html"),
    (["--objective", "masked", "--model", "/no/such/model"], "no tokenizer"),
])
def test_wrong_calls(capsys, arguments, says):
    code, out, err = called(capsys, *arguments)
    assert code == 2 and says in err and len(err.strip().splitlines()) == 1
    assert not out
