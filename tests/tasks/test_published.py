"""Published classifiers, read and written: the logits are those of `transformers`."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from tests.evaluation.small import WORDS, small
from tests.tasks.test_tasks import labelled

from bothways.errors import BothwaysError
from bothways.families import folder as models
from bothways.tasks import folder, published
from bothways.tasks.classify import Options, Row, Task, as_rows
from bothways.tasks.tuning import TuneConfig
from bothways.text.tokenizer import Tokenizer

transformers = pytest.importorskip("transformers")
CONFIG = TuneConfig(steps=15, batch=16, learning_rate=2e-3, head_rate=1e-2)
SIZES = {"vocab_size": 80, "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2,
         "intermediate_size": 48, "max_position_embeddings": 40, "pad_token_id": 0}
DISTIL = {"vocab_size": 80, "dim": 32, "n_layers": 2, "n_heads": 2, "hidden_dim": 48, "max_position_embeddings": 40}
LABELS = {"num_labels": 3, "id2label": {0: "cat", 1: "dog", 2: "sees"}, "label2id": {"cat": 0, "dog": 1, "sees": 2}}
MODELS = {
    "BertForSequenceClassification": ("BertConfig", SIZES),
    "RobertaForSequenceClassification": ("RobertaConfig", SIZES),
    "DistilBertForSequenceClassification": ("DistilBertConfig", DISTIL),
    "ModernBertForSequenceClassification": ("ModernBertConfig", {**SIZES, "cls_token_id": 1, "sep_token_id": 2}),
    "LlamaForSequenceClassification": ("LlamaConfig", SIZES),
    "Qwen3ForSequenceClassification": ("Qwen3Config", {**SIZES, "head_dim": 16, "num_key_value_heads": 1}),
}


def logits_of(way, texts_ids):
    """Ours, centred, for lists of ids."""
    from bothways.evaluation.features import reading_example
    from bothways.evaluation.rows import packed, reading

    examples = [reading_example(ids, way.sees) for ids in texts_ids]
    with reading(way.model):
        return way.model(packed(examples, range(len(examples)), torch.device("cpu"))).numpy()


def theirs(model, texts_ids):
    with torch.no_grad():
        return np.concatenate([model(torch.from_numpy(ids)[None]).logits.numpy() for ids in texts_ids])


TEXTS = [np.array([1, 9, 30, 41, 7, 2]), np.array([1, 60, 13, 2])]


@pytest.mark.parametrize("name", MODELS)
def test_a_published_classifier_is_read_with_the_same_logits(name, tmp_path):
    torch.manual_seed(0)
    config, sizes = MODELS[name]
    model = getattr(transformers, name)(getattr(transformers, config)(**sizes, **LABELS)).eval()
    for weight in model.parameters():
        torch.nn.init.normal_(weight, std=0.3) if weight.dim() > 1 else None
    model.save_pretrained(tmp_path / "their")
    Tokenizer.words(WORDS).save(tmp_path / "their")
    task = folder.load(tmp_path / "their", "classify")
    assert task.labels == ("cat", "dog", "sees")
    assert logits_of(task.way, TEXTS) == pytest.approx(theirs(model, TEXTS), abs=2e-5)
    rows = as_rows(labelled(8))
    assert task.predict_proba(rows).sum(1) == pytest.approx(1, abs=1e-5)
    # and it goes out as it came, or as a task of ours
    published.export(task, tmp_path / "again")
    again = getattr(transformers, name).from_pretrained(tmp_path / "again").eval()
    assert theirs(again, TEXTS) == pytest.approx(theirs(model, TEXTS), abs=2e-5)
    ours = folder.load(folder.save(task, tmp_path / "ours"))
    assert (ours.predict_proba(rows) == task.predict_proba(rows)).all()


@pytest.mark.parametrize(("layout", "paradigm", "pooling", "between"), [
    ("llama", "causal", "last", "none"), ("eurobert", "masked", "mean-all", "gelu")])
def test_ours_are_written_as_the_published_class(layout, paradigm, pooling, between, tmp_path):
    trained = small(paradigm, sharp=1.0)
    task = Task.fit(trained, as_rows(labelled(40)), [], Options(pooling=pooling, between=between), CONFIG)
    published.export(task, tmp_path / "out")
    name = published.CLASSES[layout].name
    assert json.loads((tmp_path / "out" / "config.json").read_text())["architectures"] == [name]
    model = getattr(transformers, name).from_pretrained(tmp_path / "out").eval()
    assert model.config.id2label == {0: "cat", 1: "dog", 2: "sees"}
    ids = [ids for ids, _ in task.way.form.ids(task.trained, as_rows(labelled(5)))]
    assert logits_of(task.way, ids) == pytest.approx(theirs(model, ids), abs=2e-5)
    # whoever reads with their tokenizer alone gets the same answers, of pairs too
    read = transformers.AutoTokenizer.from_pretrained(tmp_path / "out")
    assert read("w1 w2").input_ids == ids_of(task, "w1 w2") and read("w1", "w2").input_ids == ids_of(task, "w1", "w2")
    assert set(read("w1")) == {"input_ids", "attention_mask"}, "these networks have no segments"
    pipeline = transformers.pipeline("text-classification", str(tmp_path / "out"), device="cpu")
    for found, line in zip(pipeline(["w1 dog w3 .", "cat"], top_k=3, batch_size=2),
                           task.predict_proba(as_rows([("w1 dog w3 .", ""), ("cat", "")])), strict=True):
        assert {one["label"]: one["score"] for one in found} == pytest.approx(dict(zip(task.labels, line)), abs=1e-5)
    again = folder.load(tmp_path / "out")
    assert again.way.form.ends and again.predict_proba(as_rows(labelled(5, 1))) == pytest.approx(
        task.predict_proba(as_rows(labelled(5, 1))), abs=1e-5)


def ids_of(task, *texts):
    (found,) = task.way.form.ids(task.trained, [Row(*texts)])
    return found[0].tolist()


def test_bert_goes_on_from_its_pooler_and_is_written_back(tmp_path):
    torch.manual_seed(0)
    model = transformers.BertModel(transformers.BertConfig(**SIZES)).eval()
    model.save_pretrained(tmp_path / "their")
    Tokenizer.words(WORDS).save(tmp_path / "their")
    trained = models.load(tmp_path / "their")
    config = TuneConfig(steps=1, learning_rate=1e-9, head_rate=1e-9)
    task = Task.fit(trained, as_rows(labelled(10)), [], Options(pooling="first", between="tanh"), config)
    assert torch.allclose(task.way.model.head.dense.weight, model.pooler.dense.weight, atol=1e-6)
    published.export(task, tmp_path / "out")
    again = transformers.BertForSequenceClassification.from_pretrained(tmp_path / "out").eval()
    assert logits_of(task.way, TEXTS) == pytest.approx(theirs(again, TEXTS), abs=2e-5)


def test_what_has_no_published_class_is_refused(tmp_path):
    rows = as_rows(labelled(20))
    with pytest.raises(BothwaysError, match="only the way 'head'"):
        published.export(Task.fit(None, rows, [], Options(way="bayes"), CONFIG), tmp_path / "out")
    with pytest.raises(BothwaysError, match="tune with --pooling last --between none"):
        published.export(Task.fit(small("causal"), rows, [], Options(), CONFIG), tmp_path / "out")
    opened = Options(pooling="last", visibility="bidirectional")
    with pytest.raises(BothwaysError, match="EuroBertForSequenceClassification has a head"):
        published.export(Task.fit(small("causal"), rows, [], opened, CONFIG), tmp_path / "out")
    assert not list(tmp_path.iterdir())
    (tmp_path / "config.json").write_text('{"architectures": ["XForSequenceClassification"], "model_type": "x"}')
    with pytest.raises(BothwaysError, match="model type 'x', but those read here are bert"):
        folder.load(tmp_path, "classify")


def run(*arguments):
    from bothways.cli import main

    return main([str(one) for one in arguments])


def tuned(out, **more):
    task = Task.fit(small("masked", sharp=1.0), as_rows(labelled(40)), [], Options(**more), CONFIG)
    folder.save(task, out)
    return task


def test_convert_writes_a_tuned_classifier_as_a_class_of_others(tmp_path, capsys):
    task = tuned(tmp_path / "mine", pooling="mean-all", between="gelu")
    assert run("convert", tmp_path / "mine", tmp_path / "theirs") == 0
    assert "EuroBertForSequenceClassification, 3 labels" in capsys.readouterr().out
    # read again it gives the same answers, and can be written again
    rows = as_rows(labelled(5, 1))
    again = folder.load(tmp_path / "theirs")
    assert again.predict_proba(rows) == pytest.approx(task.predict_proba(rows), abs=1e-5)
    for arguments, words in (
            (("theirs", "theirs.gguf"), "a GGUF file has no place for its head"),
            (("mine", "x", "--dtype", "bfloat16"), "float32, not in bfloat16"),
            (("mine", "x", "--layout", "bert"), "leave --layout out"),
            (("mine", "theirs"), "exists already")):
        assert run("convert", *(tmp_path / one if number < 2 else one for number, one in enumerate(arguments))) == 2
        assert words in capsys.readouterr().err
    tuned(tmp_path / "bayes", way="bayes")
    assert run("convert", tmp_path / "bayes", tmp_path / "x.onnx") == 2
    assert "the way 'bayes' has no head to write" in capsys.readouterr().err and not (tmp_path / "x.onnx").exists()


@pytest.mark.parametrize(("paradigm", "more"), [
    ("masked", {"pooling": "mean"}),
    ("masked", {"pooling": "first", "between": "tanh", "several": True}),
    pytest.param("causal", {"pooling": "last"}, marks=pytest.mark.slow),
    pytest.param("spans", {"pooling": "mean-all"}, marks=pytest.mark.slow)])
def test_onnxruntime_gives_the_logits_of_a_tuned_classifier(paradigm, more, tmp_path):
    pytest.importorskip("onnxscript")
    runtime = pytest.importorskip("onnxruntime")
    task = Task.fit(small(paradigm, sharp=1.0), as_rows(labelled(40)), [], Options(**more), CONFIG)
    folder.save(task, tmp_path / "mine")
    assert run("convert", tmp_path / "mine", tmp_path / "mine.onnx") == 0
    session = runtime.InferenceSession(tmp_path / "mine.onnx", providers=["CPUExecutionProvider"])
    about = session.get_modelmeta().custom_metadata_map
    assert json.loads(about["labels"]) == ["cat", "dog", "sees"]
    assert json.loads(about["several"]) is task.choices.several
    # texts of several lengths, padded in front and behind
    texts = [ids for ids, _ in task.way.form.ids(task.trained, as_rows([("w1 cat w2 .", ""), ("dog", ""), ("", "")]))]
    for before in (False, True):
        ids, real = (np.zeros((len(texts), 9), np.int64) for _ in range(2))
        for row, text in enumerate(texts):
            place = slice(9 - len(text), 9) if before else slice(0, len(text))
            ids[row, place], real[row, place] = text, 1
        (found,) = session.run(None, {"ids": ids, "valid": real})
        assert found == pytest.approx(logits_of(task.way, texts), abs=1e-4)
