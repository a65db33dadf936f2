"""Classifiers in other people's folders: read as a task, and ours written as theirs, with the same logits.

A class of `transformers` for sequence classification is a body and a small head. What differs between them is a line
of `CLASSES`: which states are read, what lies between, how the two layers are called.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, cast

import tokenizers
import torch
from safetensors.torch import save_file
from tokenizers import processors
from torch import Tensor

from bothways import families
from bothways.aside import replacing
from bothways.errors import BothwaysError
from bothways.families import folder as folders
from bothways.families.base import token_ids
from bothways.families.files import read_json, write_json
from bothways.families.weights import open_weights
from bothways.tasks.classify import Options, Task
from bothways.tasks.ways import Choices, Row
from bothways.tasks.ways.head import Between, ByHead, Form, Head, Pooling

if TYPE_CHECKING:
    from bothways.families.trained import Trained


class Published(NamedTuple):
    """A published class: its name, what it reads, and the names of its layers (an empty one for none)."""

    name: str
    pooling: Pooling
    between: Between = "none"
    dense: str = ""
    out: str = "score"
    norm: str = ""
    facts: Mapping[str, Any] = {}


CLASSES: dict[str, Published] = {
    "bert": Published("BertForSequenceClassification", "first", "tanh", "bert.pooler.dense", "classifier"),
    "roberta": Published("RobertaForSequenceClassification", "first", "tanh", "classifier.dense",
                         "classifier.out_proj"),
    "xlm-roberta": Published("XLMRobertaForSequenceClassification", "first", "tanh", "classifier.dense",
                             "classifier.out_proj"),
    "distilbert": Published("DistilBertForSequenceClassification", "first", "relu", "pre_classifier", "classifier"),
    "modernbert": Published("ModernBertForSequenceClassification", "first", "gelu-norm", "head.dense", "classifier",
                            "head.norm", {"classifier_pooling": "cls"}),
    "eurobert": Published("EuroBertForSequenceClassification", "mean-all", "gelu", "dense", "classifier", "",
                          {"classifier_pooling": "mean"}),
    **{name: Published(f"{name.capitalize()}ForSequenceClassification", "last")
       for name in ("llama", "mistral", "qwen2", "qwen3", "gemma2")},
}
"""The classes by model_type. Mean pooling is EuroBERT's, the first token BERT's and its kin's, the last one that of
causal models."""


def is_published(folder: Path) -> bool:
    """Whether a folder holds a published classifier, and no task of ours."""
    if not (folder / "config.json").is_file() or (folder / "task.json").is_file():
        return False
    return any("ForSequenceClassification" in str(name) for name in read_json(folder / "config.json").get(
        "architectures") or ())


def name_of(folder: Path) -> str:
    """The published class that a folder holds."""
    return str(read_json(folder / "config.json")["architectures"][0])


def load(folder: str | Path, device: torch.device | str | None = None) -> Task:
    """The classifier in a published folder, with its labels by `id2label`.

    Raises:
        BothwaysError: a class that is not known here, a choice of it that we do not follow, or weights that do not fit.
    """
    folder = Path(folder)
    where, stored = folder / "config.json", read_json(folder / "config.json")
    kind = CLASSES.get(str(stored.get("model_type")))
    if kind is None:
        raise BothwaysError(f"{where} is a classifier of the model type '{stored.get('model_type')}', but those read "
                            f"here are {', '.join(sorted(CLASSES))}")
    for entry, wanted in kind.facts.items():
        if (found := stored.get(entry, wanted)) != wanted:
            raise BothwaysError(f"{where} has {entry} '{found}', but only '{wanted}' is read here")
    # 1. the head's tensors, and the body without them
    weights = open_weights(folder)
    own = {name: weights[name].float() for name in weights if _is_head(name, kind)}
    trained = folders.load(folder, device, beside=tuple(own))
    labels = _labels(stored, own[f"{kind.out}.weight"])
    head = Head(trained.config.shape.width, len(labels), kind.between, trained.config.dropout,
                f"{kind.out}.bias" in own)
    ours = {"dense": kind.dense, "out": kind.out, "norm": kind.norm}
    try:
        head.load_state_dict({f"{mine}.{part}": own[f"{theirs}.{part}"] for mine, theirs in ours.items() if theirs
                              for part in ("weight", "bias") if f"{theirs}.{part}" in own})
    except RuntimeError as error:
        raise BothwaysError(f"{folder}: the head does not fit a {kind.name} ({str(error).splitlines()[-1].strip()})"
                            ) from None
    # 2. a task around them
    several = stored.get("problem_type") == "multi_label_classification"
    options = Options(several=several, pooling=kind.pooling, between=kind.between, ends=_ends(trained, kind))
    choices = Choices(labels, several, options)
    segments = any(one.name == "segment" for one in trained.config.companions)
    form = Form(trained.config.position.length, options.ends, segments)
    way = ByHead(trained, head, choices, form, kind.pooling, None)
    way.model.eval()
    return Task(way, choices)


def export(task: Task, folder: str | Path) -> Path:
    """Write a classifier with a head as the published class of its network's family; whole or not at all.

    Raises:
        BothwaysError: another way, a visibility that is not the family's, a family without such a class, or a head
            that does not fit it (the sentence says which would); a place that cannot be written (exit code 1).
    """
    folder, way = Path(folder), task.way
    if not isinstance(way, ByHead):
        raise BothwaysError(f"the way '{way.name}' has no published class: only the way 'head' is exported")
    trained, config = way.trained, way.trained.config
    found = next((families.family(name, "") for name in dict.fromkeys([trained.layout or "", *CLASSES])
                  if name in CLASSES and families.family(name, "").obstacle(config) is None
                  and _sees(families.family(name, "")) == repr(way.sees)), None)
    if found is None:
        raise BothwaysError("no published class for classification has this network in this visibility: known are "
                            f"{', '.join(sorted(CLASSES))}")
    kind, head = CLASSES[found.model_type], way.model.head
    if (way.pooling, head.between) != (kind.pooling, kind.between):
        raise BothwaysError(f"{kind.name} has a head with pooling '{kind.pooling}' and between '{kind.between}', but "
                            f"this one has '{way.pooling}' and '{head.between}': tune with --pooling {kind.pooling} "
                            f"--between {kind.between}")
    # 1. weights
    weights = found.export(folders.fused(trained.network), config)
    kept = {name for link in found.links(config) for name in link.names.theirs
            if not link.ours.startswith(("head", "companions.next-sentence", "companions.pooled"))}
    names = {"dense": kind.dense, "out": kind.out, "norm": kind.norm}
    published = {_placed(name, found.model_type): tensor for name, tensor in weights.items() if name in kept}
    for name, tensor in head.state_dict().items():
        mine, _, part = name.partition(".")
        published[f"{names[mine]}.{part}"] = tensor
    # 2. config and files
    labels = dict(enumerate(task.labels))
    several = task.choices.several
    tokens = {name: value for name, value in token_ids(trained.vocabulary).items() if value is not None}
    stored = {"architectures": [kind.name], "model_type": found.model_type, **tokens, **found.to_config(config),
              **kind.facts, "id2label": {str(number): label for number, label in labels.items()},
              "label2id": {label: number for number, label in labels.items()},
              "problem_type": "multi_label_classification" if several else "single_label_classification",
              "classifier_dropout": config.dropout, "torch_dtype": "float32"}
    with replacing(folder) as aside:
        aside.mkdir()
        save_file({name: tensor.detach().cpu().contiguous().clone() for name, tensor in published.items()},
                  aside / "model.safetensors", metadata={"format": "pt"})
        write_json(aside / "config.json", stored)
        trained.tokenizer.save(aside)
        _tell_the_tokenizer(aside, way)
    return folder


def _tell_the_tokenizer(folder: Path, way: ByHead) -> None:
    """Have a stored tokenizer put around a text what the head was tuned with, for whoever reads with it alone."""
    file = folder / "tokenizer.json"
    if not file.is_file():
        return
    core = tokenizers.Tokenizer.from_file(str(file))
    wanted = [ids.tolist() for ids, _ in way.form.ids(way.trained, [Row("a"), Row("a", "a")])]
    if [core.encode("a").ids, core.encode("a", "a").ids] != wanted:
        vocabulary = way.trained.vocabulary
        begin, end, between = (str(core.id_to_token(number)) for number in (
            vocabulary.bos, vocabulary.eos, vocabulary.ids.get("<sep>", vocabulary.eos)))
        tail = [end] if way.form.ends else []
        core.post_processor = processors.TemplateProcessing(
            single=[begin, "$A", *tail], pair=[begin, "$A", between, *(f"{part}:1" for part in ["$B", *tail])],
            special_tokens=[(token, core.token_to_id(token)) for token in {begin, between, end}])
        file.write_text(core.to_str(pretty=True), encoding="utf-8")


def _ends(trained: Trained, kind: Published) -> bool:
    """Whether texts end with the end token: as the tokenizer has it, or as is usual for the class."""
    core = getattr(trained.tokenizer, "core", None)
    if core is None or core.post_processor is None:
        return kind.pooling != "last"
    return bool(core.encode("a").ids[-1:] == [trained.vocabulary.eos])


def _is_head(name: str, kind: Published) -> bool:
    return any(stem and name.rpartition(".")[0] == stem for stem in (kind.dense, kind.out, kind.norm))


def _labels(stored: Mapping[str, Any], out: Tensor) -> tuple[str, ...]:
    """The labels by their numbers; LABEL_0 and so on where the config names none."""
    named = cast(Mapping[str, str], stored.get("id2label") or {})
    return tuple(str(named.get(str(number), f"LABEL_{number}")) for number in range(out.shape[0]))


def _placed(name: str, model_type: str) -> str:
    """A body's tensor under the prefix that classes with a head have."""
    family = families.family(model_type, "")
    body = getattr(family, "body", family.prefix)
    return name if not body or name.startswith(body) else body + name


def _sees(family: Any) -> str:
    return {"causal": "causal", "bidirectional": "bidirectional"}.get(family.direction, "")
