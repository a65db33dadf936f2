"""Write a model in another layout or number format, or read one that another library wrote.

    bothways convert run/model exported --dtype bfloat16
    bothways convert run/model model.gguf --dtype q8_0
    bothways convert run/model model.onnx

The layout "auto" takes the class of transformers that gives the same logits, where there is one; "bothways" keeps our
own names; the model_type of a family (llama, gpt2, t5, ...) asks for that one, and says which choice prevents it. A
place that ends with .gguf becomes one file for llama.cpp; one that ends with .onnx a graph for onnxruntime, or of two
towers two of them.

A classifier of `bothways tune` becomes the published class of its network (BertForSequenceClassification and its kin),
or a graph whose outputs are the logits of its labels:

    bothways convert my-classifier my-classifier.onnx
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import tyro

if TYPE_CHECKING:
    from bothways.families.trained import Trained


@dataclass(frozen=True)
class Options:
    """From where to where, and as what."""

    folder: tyro.conf.Positional[Path]
    """The model to read: a folder of ours, a plain one of a known family, or a GGUF file; or a tuned classifier."""
    out: tyro.conf.Positional[Path]
    """The folder to write, or a file that ends with .gguf or .onnx."""
    layout: str = "auto"
    """Whose names the weights get: auto, bothways or a family's model_type."""
    dtype: Literal["float32", "bfloat16", "float16", "q8_0"] | None = None
    """The number format of the weights; as they are when none. q8_0 (blocks of bytes) is for GGUF files alone."""
    add_tokens: tuple[str, ...] | None = None
    """Tokens to add, such as <tool>; named without any, all reserved ones that are missing (<mask>, sentinels, ...)."""
    force: bool = False
    """Replace the folder if it exists."""


def run(options: Options) -> int:
    """Read, write, say what it became."""
    import json

    import torch

    from bothways.errors import BothwaysError
    from bothways.families.extend import extend_vocabulary
    from bothways.families.folder import load, save
    from bothways.tasks.published import is_published

    if options.out.exists() and not options.force:
        raise BothwaysError(f"{options.out} exists already: choose another place, or replace it with --force")
    write = {".gguf": _gguf, ".onnx": _onnx}.get(options.out.suffix)
    if options.out.is_dir() and write is not None:
        raise BothwaysError(f"{options.out} is a folder, but one file was asked for: choose another place")
    if options.dtype == "q8_0" and write is not _gguf:
        raise BothwaysError("q8_0 is a number format of GGUF files: name one, such as "
                            f"{options.out.with_suffix('.gguf')}")
    if options.dtype not in (None, "float32") and write is _onnx:
        raise BothwaysError(f"ONNX files are written in float32, not in {options.dtype}: leave --dtype out")
    if options.layout != "auto" and write is not None:
        raise BothwaysError(f"a {options.out.suffix} file has names of its own: leave --layout out")
    if (options.folder / "task.json").is_file() or is_published(options.folder):
        return _classifier(options)
    trained = load(options.folder)
    if options.add_tokens is not None:
        before = trained.config.shape.vocabulary
        trained = extend_vocabulary(trained, options.add_tokens or None)
        print(f"vocabulary    {before:,} rows, now {trained.config.shape.vocabulary:,}")
    if write is not None:
        return write(trained, options)
    save(trained, options.out, options.layout, None if options.dtype is None else getattr(torch, options.dtype))
    written = json.loads((options.out / "config.json").read_text(encoding="utf-8"))
    size = (options.out / "model.safetensors").stat().st_size / 2**20
    print(f"{options.out}: {written['architectures'][0]}, {written['dtype']}, {size:.1f} MiB")
    return 0


def _classifier(options: Options) -> int:
    """The class of others, or a graph with the logits of the labels."""
    from bothways.errors import BothwaysError
    from bothways.families.onnx_write import signature
    from bothways.tasks import classify, folder, onnx, published

    if options.out.suffix == ".gguf":
        raise BothwaysError(f"{options.folder} is a tuned task, and a GGUF file has no place for its head: write a "
                            "folder or a .onnx file")
    for name, value, usual in (("--layout", options.layout, "auto"), ("--add-tokens", options.add_tokens, None)):
        if value != usual:
            raise BothwaysError(f"{options.folder} is a tuned task, which is written as it is: leave {name} out")
    if options.dtype not in (None, "float32"):
        raise BothwaysError(f"classifiers are written in float32, not in {options.dtype}: leave --dtype out")
    task = folder.load(options.folder, device="cpu")
    if not isinstance(task, classify.Task):
        raise BothwaysError(f"{options.folder} was tuned to {task.kind}, and only classifiers are written for others: "
                            f"use it with `bothways {task.kind}`")
    if options.out.suffix == ".onnx":
        said = signature(onnx.write_onnx(task, options.out))
    else:
        said = published.name_of(published.export(task, options.out))
    print(f"{options.out}: {said}, {len(task.labels)} labels")
    return 0


def _gguf(trained: Trained, options: Options) -> int:
    """One file for llama.cpp."""
    from bothways.families.gguf_write import write_gguf

    numbers = options.dtype or ("float16" if trained.dtype.itemsize == 2 else "float32")
    written = write_gguf(trained, options.out, numbers)
    size = options.out.stat().st_size / 2**20
    print(f"{options.out}: {written.architecture}, {numbers}, {written.tensors} tensors, {size:.1f} MiB")
    if written.left_out:
        print(f"left out      {', '.join(written.left_out)}: GGUF holds an encoder's body alone")
    return 0


def _onnx(trained: Trained, options: Options) -> int:
    """Graphs for onnxruntime."""
    from bothways.families.onnx_write import signature, write_onnx

    for file in write_onnx(trained, options.out):
        print(f"{file}: {signature(file)}, {file.stat().st_size / 2**20:.1f} MiB")
    return 0
