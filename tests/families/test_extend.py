"""A vocabulary that grows: old tokens say what they said, new ones begin at the mean, and any objective can train."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import tokenizers
import torch

import bothways
from bothways import objectives
from bothways.batch import RESERVED_TOKENS
from bothways.cli import main
from bothways.errors import BothwaysError
from bothways.families.extend import extend_vocabulary
from bothways.families.folder import Trained, load, save
from bothways.model import LanguageModel, ModelConfig, Shape
from bothways.text.tokenizer import Tokenizer

TEXT = ["the cat sat on the mat, and a dog ran to the house. Über alles 日本"] * 4


def foreign(folder: Path, spare: int = 0, tied: bool = True) -> Path:
    """A plain Llama folder with a byte-level tokenizer that has one special token and nothing else of ours."""
    core = tokenizers.Tokenizer(tokenizers.models.BPE())
    core.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)
    core.decoder = tokenizers.decoders.ByteLevel()
    alphabet = tokenizers.pre_tokenizers.ByteLevel.alphabet()
    core.train_from_iterator(TEXT, tokenizers.trainers.BpeTrainer(
        vocab_size=300, special_tokens=["<|end|>"], initial_alphabet=alphabet, show_progress=False))
    size = core.get_vocab_size()
    torch.manual_seed(0)
    network = LanguageModel(ModelConfig(Shape(size + spare, 16, 2, 0, 2), tied=tied))
    with torch.no_grad():
        for weight in network.parameters():
            weight.add_(torch.randn_like(weight) * 0.1)
    ours = Tokenizer.train(["x"], kind="bytes", size=300)
    save(Trained(network.eval(), objectives.make("next-token", ours.vocabulary), ours), folder)
    stored = json.loads((folder / "config.json").read_text())
    del stored["bothways"]
    stored = {name: None if name.endswith("_token_id") else one for name, one in stored.items()}
    stored |= {"bos_token_id": 0, "eos_token_id": 0}
    (folder / "config.json").write_text(json.dumps(stored))
    core.save(str(folder / "tokenizer.json"))
    (folder / "tokenizer_config.json").write_text('{"eos_token": "<|end|>"}')
    return folder


@pytest.mark.parametrize(("spare", "tied"), [(0, True), (0, False), (5, True), (99, False)])
def test_old_tokens_stay_and_new_ones_begin_at_the_mean(spare: int, tied: bool, tmp_path: Path) -> None:
    model = bothways.from_pretrained(foreign(tmp_path / "plain", spare, tied))
    size = model.tokenizer.core.get_vocab_size()
    grown = bothways.extend_vocabulary(model)
    missing = [name for name in RESERVED_TOKENS if name not in ("<bos>", "<eos>")]
    new = [grown.vocabulary.ids[name] for name in missing]
    assert new == list(range(size, size + len(missing)))
    assert grown.config.shape.vocabulary == max(size + spare, size + len(missing))
    # the rows
    for name in ("embedding.weight",) if tied else ("embedding.weight", "head.weight"):
        before, after = (one.trained.network.state_dict()[name] for one in (model, grown))
        assert torch.equal(after[:size], before[:size])
        assert torch.equal(after[new], before[:size].mean(0).expand(len(new), -1))
    # old tokens among themselves are as likely as they were
    ids = torch.tensor(model.tokenizer.encode("the cat sat"))
    assert torch.equal(grown.logits(ids)[..., :size], model.logits(ids)[..., :size])
    # text
    assert grown.tokenizer.encode("the <mask> sat") == [*model.tokenizer.encode("the "), grown.vocabulary.mask,
                                                         *model.tokenizer.encode(" sat")]
    assert grown.tokenizer.encode("<mask>", reserved=False) == model.tokenizer.encode("<mask>")
    assert grown.tokenizer.decode(grown.tokenizer.encode("the <mask>cat<extra_3>")) == "the cat"
    assert bool(grown.vocabulary.special[new].all())


def test_saved_and_loaded_back_here_and_in_transformers(tmp_path: Path) -> None:
    grown = bothways.extend_vocabulary(bothways.from_pretrained(foreign(tmp_path / "plain", tied=False)))
    grown.save_pretrained(tmp_path / "grown")
    again = bothways.from_pretrained(tmp_path / "grown")
    assert dict(again.vocabulary.ids) == dict(grown.vocabulary.ids)
    ids = torch.tensor(grown.tokenizer.encode("the <mask> sat<extra_7>"))
    assert again.tokenizer.encode("the <mask> sat<extra_7>") == ids.tolist()
    assert torch.equal(again.logits(ids), grown.logits(ids))
    assert bothways.extend_vocabulary(again).trained is again.trained
    transformers = pytest.importorskip("transformers")
    theirs = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "grown").eval()
    with torch.no_grad():
        assert torch.allclose(theirs(ids[None]).logits, grown.logits(ids), atol=1e-5)
    text = transformers.AutoTokenizer.from_pretrained(tmp_path / "grown")
    assert text("the <mask> sat<extra_7>", add_special_tokens=False)["input_ids"] == ids.tolist()
    assert text.mask_token == "<mask>"


def test_our_own_tokenizer_takes_more_tokens_too(tmp_path: Path) -> None:
    tokenizer = Tokenizer.train(TEXT, size=320)
    torch.manual_seed(0)
    network = LanguageModel(ModelConfig(Shape(tokenizer.size, 16, 2, 0, 2))).eval()
    trained = Trained(network, objectives.make("masked(rate=0.3)", tokenizer.vocabulary), tokenizer)
    grown = extend_vocabulary(trained, ["<tool>", "<mask>", "<tool>", "<über>"])
    assert grown.config.shape.vocabulary == tokenizer.size + 2
    assert grown.objective.describe() == trained.objective.describe()
    save(grown, tmp_path / "grown")
    again = load(tmp_path / "grown")
    line = "the <tool> sat<über>"
    ids = again.tokenizer.encode(line)
    assert ids == grown.tokenizer.encode(line)
    assert ids.count(tokenizer.size) == 1 and ids[-1] == tokenizer.size + 1
    assert again.tokenizer.decode(ids) == "the  sat"
    assert again.tokenizer.decode(ids, skip_reserved=False) == line
    assert again.vocabulary.ids["<tool>"] == tokenizer.size
    assert bool(again.vocabulary.special[tokenizer.size:].all()) and not again.vocabulary.n_bytes[tokenizer.size:].any()
    assert again.tokenizer.kind == "bpe"
    assert extend_vocabulary(again, ["<tool>"]) is again


def test_bytes_of_foreign_tokens(tmp_path: Path) -> None:
    tokenizer = load(foreign(tmp_path / "plain")).tokenizer
    for text in ("the cat", "Über alles 日本 🙂"):
        ids = tokenizer.encode(text)
        assert int(tokenizer.vocabulary.n_bytes[ids].sum()) == len(text.encode())


def test_refusals(tmp_path: Path) -> None:
    folder = foreign(tmp_path / "plain")
    with pytest.raises(BothwaysError, match="a token to add is empty"):
        extend_vocabulary(load(folder), ["<a>", " "])
    (folder / "tokenizer.json").unlink()
    with pytest.raises(BothwaysError, match=r"has no tokenizer.json, so no token can be added"):
        extend_vocabulary(load(folder))


def test_the_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = foreign(tmp_path / "plain")
    before = load(folder).config.shape.vocabulary
    assert main(["convert", str(folder), str(tmp_path / "one"), "--add-tokens", "<tool>", "<mask>"]) == 0
    assert f"{before:,} rows, now {before + 2:,}" in capsys.readouterr().out
    assert main(["convert", str(folder), str(tmp_path / "all"), "--add-tokens"]) == 0
    assert set(RESERVED_TOKENS) <= set(load(tmp_path / "all").vocabulary.ids)


@pytest.fixture
def corpus(tmp_path: Path) -> Path:
    file = tmp_path / "corpus.txt"
    file.write_text("\n\n".join(f"{number} cats sat on the mat, and {number + 1} dogs ran to the house."
                                for number in range(200)))
    return file


@pytest.mark.parametrize("objective", ["masked", "0.5 next-token + 0.5 masked-next", "fim"])
def test_any_objective_trains_from_a_foreign_folder(objective: str, corpus: Path, tmp_path: Path) -> None:
    folder, out = foreign(tmp_path / "plain"), tmp_path / "run"
    assert main(["train", "--from", str(folder), "--corpus", str(corpus), "--objective", objective, "--budget",
                 "2 steps", "--window", "32", "--batch-tokens", "256", "--precision", "float32", "--out", str(out),
                 "--threads", "1", "--set", "matrix_rate=1e-9", "other_rate=1e-9", "weight_decay=0"]) == 0
    trained, before = load(out), load(folder)
    assert trained.objective.name == objectives.make(objective, trained.vocabulary).name
    # two steps that hardly move anything: it began where the folder's weights are
    old, new = before.network.state_dict(), trained.network.state_dict()
    for name, weight in old.items():
        assert torch.allclose(new[name][:len(weight)], weight, atol=1e-6), name


def test_what_cannot_begin_from_a_folder(corpus: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = foreign(tmp_path / "plain")
    call = ["train", "--from", str(folder), "--corpus", str(corpus), "--budget", "1 steps"]
    call += ["--out", str(tmp_path / "run")]
    for options, what in ((["--objective", "span-corruption"], "holds one tower, but the objective 'span-corruption'"),
                          (["--objective", "masked", "--width", "32"], "network and tokenizer, but model is"),
                          (["--objective", "masked", "--tokenizer", "bytes"], "but text.tokenizer is chosen too")):
        assert main([*call, *options]) == 2, options
        assert what in capsys.readouterr().err
