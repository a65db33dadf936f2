"""A classifier with a head as one ONNX file: token ids to logits over the labels, without PyTorch."""

from __future__ import annotations

import copy
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from bothways.errors import BothwaysError
from bothways.families.onnx_parts import SEGMENT, Exported, Graph, fields_of, through
from bothways.families.onnx_write import LENGTHS, TWO, obstacles, write_graph
from bothways.tasks.classify import Task
from bothways.tasks.ways.head import ByHead

LABELS = "labels"
"""The entry of the file's metadata that names the labels in the order of the logits, as a JSON list."""


class Classifies(Exported):
    """Padded texts to logits over the labels."""

    def __init__(self, way: ByHead) -> None:
        super().__init__()
        self.classifier, self.pooling, self.sees = way.model, way.pooling, way.sees

    def arguments(self, named: Mapping[str, Any]) -> tuple[Any, ...]:
        """What is said of the inputs by name, as `forward` takes it."""
        return tuple(named.values())

    def forward(self, ids: Tensor, real: Tensor, segments: Tensor | None = None) -> Tensor:
        """(B, L) ids and which of them are real, to (B, labels)."""
        network, fields = self.classifier.network, fields_of(real)
        if segments is not None:
            fields[SEGMENT] = segments
        states = through(network, ids, fields, fields, self.sees, source=network.source_tower is not None)
        found: Tensor = self.classifier.head(self._pooled(states.unflatten(0, ids.shape), ids, real))
        return found

    def _pooled(self, states: Tensor, ids: Tensor, real: Tensor) -> Tensor:
        """(B, L, D) states to one vector for each text, as `ways.head.pooled`."""
        there = real > 0
        if self.pooling in ("first", "last"):
            counted = there.long().cumsum(dim=-1)
            wanted = torch.ones_like(counted[:, :1]) if self.pooling == "first" else counted[:, -1:]
            chosen = (there & (counted == wanted)).to(states.dtype)
        else:
            own = there & ~self.classifier.special[ids]
            some = own if self.pooling == "mean" else there
            # a text of reserved tokens alone is the mean of those; onnxruntime chooses between no truth values (Where)
            some = some | (there & ~some.any(dim=-1, keepdim=True))
            chosen = some.to(states.dtype)
        return (states * chosen.unsqueeze(-1)).sum(dim=1) / chosen.sum(dim=1, keepdim=True)


def write_onnx(task: Task, file: Path) -> Path:
    """Write `file`: `ids` (B, L) int64, `valid` (B, L) int64 (1 for real tokens, 0 for padding on either side) and
    `segments`, where the classifier tells the texts of a pair so, to `logits` (B, labels).

    A text is given as it was tuned: `<bos> text <eos>`, a pair with `<sep>` between (`tasks.ways.head.Form`). The
    names of the labels stand in the file's metadata under "labels", and whether a text may have several.

    Raises:
        BothwaysError: a way without a head, a network that is not written here, more than 2 GB, missing packages; a
            place that cannot be written (exit code 1).
    """
    way = task.way
    if not isinstance(way, ByHead):
        raise BothwaysError(f"the way '{way.name}' has no head to write: only the way 'head' is exported")
    if found := list(obstacles(way.trained.network, way.sees)):
        raise BothwaysError(f"this classifier is not written as ONNX here: {'; '.join(found)}")
    made = copy.copy(way)
    made.model = copy.deepcopy(way.model).to("cpu", torch.float32).eval()
    ids = torch.ones(TWO, 3, dtype=torch.long)
    inputs = {"ids": ids, "valid": torch.ones_like(ids)}
    if way.form.segments:
        inputs["segments"] = torch.zeros_like(ids)
    graph = Graph(Classifies(made), inputs, dict.fromkeys(inputs, LENGTHS), ("logits",))
    write_graph(graph, file, {LABELS: json.dumps(list(task.labels), ensure_ascii=False),
                              "several": json.dumps(task.choices.several)})
    return file
