"""A model as ONNX files, which onnxruntime and others run without PyTorch.

A network that reads both ways is one graph, ids to logits and states; one that writes from left to right is one step
with its keys and values; two towers are a graph of the one that reads and a step of the one that writes.
"""

from __future__ import annotations

import copy
import re
import warnings
from collections.abc import Iterator, Mapping
from pathlib import Path

import torch

from bothways.aside import replacing
from bothways.errors import BothwaysError
from bothways.families.onnx_parts import SEGMENT, Graph, Reads, Steps, Tells
from bothways.families.trained import Trained
from bothways.model import LanguageModel
from bothways.objectives.base import Mode
from bothways.visibility import Causal, Visibility

MOST = 2 ** 31
"""Bytes that one ONNX file may have."""
_KNOWN = frozenset({"index", "position", "document", "valid"})
"""Facts of tokens that follow from which of them are real."""
TWO, LENGTHS = 2, {0: "batch", 1: "length"}
"""Examples are of two rows: a graph takes a size of 1 for a constant."""


def write_onnx(trained: Trained, file: Path) -> list[Path]:
    """Write `file`, and for two towers the one that reads beside it (`NAME.encoder.onnx`); each appears whole.

    Inputs and outputs, by name: `ids` (B, L) int64, `valid` (B, L) int64 (1 for real tokens, 0 for padding on either
    side), `segments` where the network knows any; `logits` (B, L, V), `states` (B, L, D). A step has `past.I.keys` and
    `past.I.values` (B, K, P, D) of each layer I, P = 0 at first, gives `present.I...`, and its `valid` is (B, P + L).
    With two towers the encoder gives `across.I.keys` and `across.I.values`, which a step reads with `source_valid`.

    Returns:
        the files.
    Raises:
        BothwaysError: a part of the network that is not written here; a file of more than 2 GB; missing packages; a
            place that cannot be written (exit code 1).
    """
    network, mode = trained.network, trained.mode(trained.objective.modes[0].name)
    if found := list(obstacles(network, mode.visibility)):
        raise BothwaysError(f"this network is not written as ONNX here: {'; '.join(found)}")
    if network.embedding.weight.dtype != torch.float32 or trained.device.type != "cpu":
        network = copy.deepcopy(network).to("cpu", torch.float32).eval()
    files = {file: _of(network, mode)}
    if network.source_tower is not None:
        files[file.with_suffix(f".encoder{file.suffix}")] = _telling(network)
    for place, graph in files.items():
        write_graph(graph, place)
    return list(files)


def signature(file: Path) -> str:
    """Inputs and outputs of an ONNX file in words; what each layer has is said once."""
    import onnx

    graph = onnx.load(file, load_external_data=False).graph
    said = []
    for side in (graph.input, graph.output):
        parts: dict[str, str] = {}
        for value in side:
            sizes = ", ".join(one.dim_param or str(one.dim_value) for one in value.type.tensor_type.shape.dim)
            parts.setdefault(re.sub(r"\.\d+\.", ".I.", value.name), f" ({sizes})")
        said.append(parts)
    inputs, outputs = said
    return f"{', '.join(name + sizes for name, sizes in inputs.items())} to {', '.join(outputs)}"


def obstacles(network: LanguageModel, visibility: Visibility) -> Iterator[str]:
    """What a graph of this module cannot do, as phrases."""
    config = network.config
    if config.mixer.kind != "attention":
        yield (f"mixer.kind is '{config.mixer.kind}', and a recurrence is no attention over kept keys (write a .gguf "
               "file or a folder)")
    if config.feed_forward.experts is not None:
        yield "feed_forward.experts sends each token elsewhere"
    if config.latent is not None:
        yield "latent keeps something else than keys and values"
    if config.position.kind == "transformer-xl":
        yield "position.kind is 'transformer-xl'"
    if config.convolution.kernel or config.head.decoder:
        yield "convolution.kernel and head.decoder need more than attention"
    if any("latent" in one.kind for one in config.companions):
        yield "a latent stands between its towers"
    if left := visibility.needs - _KNOWN:
        yield f"'{visibility!r}' asks for the field {', '.join(sorted(left))} of every token"


def _of(network: LanguageModel, mode: Mode) -> Graph:
    """The graph of a network of one tower, or of the tower that writes."""
    config = network.config
    ids, real = torch.zeros(TWO, 3, dtype=torch.long), torch.ones(TWO, 3, dtype=torch.long)
    # 1. a text as a whole
    if config.stack == "one tower" and not any(isinstance(part, Causal) for part in mode.visibility.conjuncts()):
        inputs = {"ids": ids, "valid": real}
        if any(one.name == SEGMENT for one in config.companions):
            inputs["segments"] = torch.zeros_like(ids)
        scored = config.head.scores or mode.head != "tokens"
        return Graph(Reads(network, mode), inputs, dict.fromkeys(inputs, LENGTHS),
                     ("logits", "states") if scored else ("states",))
    # 2. a step
    count, length = config.shape.layers, 4
    kept = {name: torch.zeros(TWO, config.key_heads, length, config.head_size) for name in _names("past", count)}
    inputs = {"ids": ids, "valid": torch.ones(TWO, length + 3, dtype=torch.long), **kept}
    sizes = {"ids": LENGTHS, "valid": {0: "batch", 1: "all"}, **{name: {0: "batch", 2: "past"} for name in kept}}
    if network.source_tower is not None:
        told = {name: torch.zeros(TWO, config.key_heads, 5, config.head_size) for name in _names("across", count)}
        inputs |= {**told, "source_valid": torch.ones(TWO, 5, dtype=torch.long)}
        sizes |= {**{name: {0: "batch", 2: "source"} for name in told}, "source_valid": {0: "batch", 1: "source"}}
    return Graph(Steps(network, mode), inputs, sizes, ("logits", *_names("present", count)))


def _telling(network: LanguageModel) -> Graph:
    """The graph of the tower that reads."""
    ids = torch.zeros(TWO, 3, dtype=torch.long)
    inputs = {"ids": ids, "valid": torch.ones_like(ids)}
    return Graph(Tells(network), inputs, dict.fromkeys(inputs, LENGTHS),
                 tuple(_names("across", network.config.shape.layers)))


def _names(what: str, layers: int) -> list[str]:
    """Keys, then values of each layer."""
    return [f"{what}.{i}.{part}" for i in range(layers) for part in ("keys", "values")]


def write_graph(graph: Graph, file: Path, about: Mapping[str, str] | None = None) -> None:
    """One file, by the framework's exporter: written aside, then renamed.

    Args:
        about: entries of the file's metadata.
    Raises:
        BothwaysError: see `write_onnx`.
    """
    if sum(weight.numel() for weight in graph.module.parameters()) * 4 >= MOST:
        raise BothwaysError("an ONNX file holds at most 2 GB, and this network has more in float32: "
                            "write a folder or a .gguf file instead")
    arguments, dynamic = graph.module.arguments(graph.inputs), graph.module.arguments(graph.sizes)
    try:
        with torch.no_grad(), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            program = torch.onnx.export(graph.module, arguments, dynamo=True, verbose=False, optimize=True,
                                        input_names=list(graph.inputs), output_names=list(graph.outputs),
                                        dynamic_shapes=dynamic)
    except ModuleNotFoundError as error:
        raise BothwaysError(f"ONNX files need the package '{error.name}', which is not installed: "
                            "pip install 'bothways[export]'", exit_code=1) from None
    assert program is not None
    program.model.metadata_props.update(about or {})
    with replacing(file) as aside:
        program.save(aside, external_data=False)
