"""A trained model as a folder of the Hugging Face layout, written whole or not at all, and read back.

The network stands twice in `config.json`: as the published entries of its family, where one fits, and in a block
"bothways" that says all we know. Weights carry the family's names where one fits, else our own.
"""

from __future__ import annotations

import os
from collections.abc import Collection, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any, cast

import torch
from safetensors.torch import save_file
from torch import Tensor

from bothways import families, objectives
from bothways.aside import replacing
from bothways.batch import Vocabulary
from bothways.errors import BothwaysError
from bothways.families import scaled, settings
from bothways.families.as_read import AsRead
from bothways.families.base import Family, account, check_shape, token_ids
from bothways.families.blank import build
from bothways.families.card import model_card
from bothways.families.careful import read_config
from bothways.families.files import read_json, write_json
from bothways.families.foreign import ForeignTokenizer
from bothways.families.gguf_file import Gguf, gguf_in
from bothways.families.gguf_tokenizer import settings_of, tokenizer_of
from bothways.families.mapped import mapped
from bothways.families.trained import Trained
from bothways.families.weights import Source, Weights, open_weights, weights_file
from bothways.families.wrapped import text_part, text_weights
from bothways.model import LanguageModel, ModelConfig
from bothways.model.compact import compact, read_as, whole
from bothways.objectives.base import Objective
from bothways.objectives.specs import told_by
from bothways.text.tokenizer import Tokenizer

__all__ = ["FORMAT", "Trained", "build", "fill", "load", "save"]

FORMAT = 1
"""The version of the "bothways" block in config.json; a folder of another version is refused by name."""
OWN = "bothways"
"""The layout with our own names."""
READERS = 4
"""Tensors read at a time: each goes straight to its place, so that more of them take no more memory."""


def save(trained: Trained, folder: str | Path, layout: str = "auto", dtype: torch.dtype | None = None) -> Path:
    """Write the model; the folder appears whole or not at all, and replaces an older one.

    Args:
        layout: "auto" takes the family that fits, "bothways" our own names, or a family's name.
        dtype: of the weights in the file; theirs when none.
    Raises:
        BothwaysError: the family does not fit (with the choice that prevents it), or the place cannot be written
            (exit code 1).
    """
    folder = Path(folder)
    family = _layout(trained, layout)
    with replacing(folder) as aside:
        aside.mkdir()
        _write(trained, aside, family, dtype or trained.dtype)
    return folder


def load(folder: str | Path, device: torch.device | str | None = None, dtype: torch.dtype | None = None,
         weights: str | None = None, beside: Collection[str] | None = None) -> Trained:
    """Read a folder that `save` wrote, or a plain one of a known family; the network is in evaluation mode.

    A run's folder stands for the `model` in it; a GGUF file, or a folder that holds one and nothing else, is read too.

    A plain folder is taken to be trained by its family's objective: next-token, masked or span-corruption. Of a model
    that also sees pictures the language model is read.

    Args:
        weights: float32 or bfloat16, a short way to say `dtype`; int8 or int4 for a network with compact linear layers
            (`model.compact`), which reads and writes faster, approximately, and is neither trained nor saved.
        beside: weights of a head that is not the network's (of a classifier), which are passed over; such a file may
            lack a head over the vocabulary.
    Raises:
        BothwaysError: a missing or truncated file, another format version, an unknown family; weights that are
            missing, unknown or of another shape. One sentence each.
    """
    dtype, bits = read_as(weights, dtype)
    trained = _load(_model_of(Path(folder)), device, dtype, beside)
    if bits is not None:
        compact(trained.network, bits)
    return trained


def _load(folder: Path, device: torch.device | str | None, dtype: torch.dtype | None,
          beside: Collection[str] | None) -> Trained:
    """The folder of a model, its weights as they are."""
    if (file := gguf_in(folder)) is not None:
        return _load_gguf(file, device, dtype)
    where = str(folder / "config.json")
    stored, inside = text_part(read_json(folder / "config.json"), where)
    # 1. what it is
    block = stored.get(OWN)
    if block is None:
        family: Family | None = families.recognised({**stored, "model_type": _model_type(folder, stored)}, where)
        assert family is not None
        config, report = read_config(family, stored, where), {}
    else:
        if not isinstance(block, dict) or block.get("format") != FORMAT:
            found = block.get("format") if isinstance(block, dict) else block
            raise BothwaysError(f"{where} is of format version {found}, but this bothways reads version {FORMAT}: "
                                "save the model again with this version, or install the other")
        needed = [name for name in ("model", "objective", "layout") if name not in block]
        if needed:
            raise BothwaysError(f"{where} lacks {', '.join(needed)} in its \"bothways\" block")
        kinds = {"model": dict, "layout": str, "report": dict}
        if wrong := [name for name, kind in kinds.items() if not isinstance(block.get(name, kind()), kind)]:
            raise BothwaysError(f"{where} holds something else than this version writes under "
                                f"{', '.join(wrong)} in its \"bothways\" block: save the model again")
        family = None if block["layout"] == OWN else families.family(block["layout"], where)
        config, report = settings.from_data(block["model"], where), block.get("report", {})
    # 2. its weights say which parts there are; then its tokenizer, and its objective
    found = scaled.plain(open_weights(folder), stored, where)
    found = text_weights(found) if inside else found
    if beside is not None and family is not None:
        front = "" if family.head in found else family.prefix  # without its head it is a body
        found = Weights({name.removeprefix(front): entry for name, entry in found.stored.items()
                         if name not in beside}, found.where)
    if block is not None:
        specs: Sequence[Mapping[str, object]] = (block["objective"],)
    else:
        assert family is not None
        config = family.settled(config, found.keys())
        specs = family.objectives_of(config)
    foreign = block is None or bool(block.get("foreign", False))
    said = stored if family is None else {**family.special, **stored}
    tokenizer = _tokenizer(folder, said, config, foreign)
    with told_by(where):
        objective = (_read_objective(family, specs, tokenizer) if foreign and family is not None else
                     _first(specs, tokenizer.vocabulary))
    if objective.stack != config.stack:
        raise BothwaysError(f"{where} describes {config.stack}, but the objective '{objective.name}' is for "
                            f"{objective.stack}")
    # 3. the network
    weights: Mapping[str, Tensor] = found
    if family is not None:
        weights = family.gather(found, stored, config, found.where)
    network = build(config)
    fill(network, weights, found.where, dtype)
    layout = None if family is None else family.model_type
    return Trained(network.to(device).eval(), objective, tokenizer, report, layout)


def _load_gguf(file: Path, device: torch.device | str | None, dtype: torch.dtype | None) -> Trained:
    """A GGUF file; what was quantised becomes float32 unless another number format is asked for."""
    content = Gguf(file)
    stored, family = content.config, families.family(content.architecture.model_type, str(file))
    assert family is not None
    config = read_config(family, stored, str(file))
    config = family.settled(config, content.named(_published(family, config)))
    weights = content.weights(_published(family, config), config)
    try:
        core, settings = tokenizer_of(content.fields), settings_of(content.fields)
    except Exception as error:  # the library raises bare Exception
        raise BothwaysError(f"the tokenizer in {file} does not fit together ({error}): convert the model "
                            "again") from None
    stranger = ForeignTokenizer(file, stored, config.shape.vocabulary, core, settings)
    stranger.check_size()
    tokenizer = cast(Tokenizer, stranger)
    network = build(config)
    fill(network, family.gather(weights, stored, config, str(file)), str(file), dtype or torch.float32)
    objective = _read_objective(family, family.objectives_of(config), tokenizer)
    return Trained(network.to(device).eval(), objective, tokenizer, layout=family.model_type)


def _published(family: Family, config: ModelConfig) -> list[str]:
    """Every name that a file of the family has for this network."""
    return [name for link in family.links(config) for name in link.names.theirs]


def _read_objective(family: Family, specs: Sequence[Mapping[str, object]], tokenizer: Tokenizer) -> Objective:
    """The first objective that the tokenizer of a published model can serve; none to train by where it serves none."""
    try:
        return _first(specs, tokenizer.vocabulary)
    except BothwaysError as error:
        return AsRead(tokenizer.vocabulary, family.direction, specs[0], str(error))


def _first(specs: Sequence[Mapping[str, object]], vocabulary: Vocabulary) -> Objective:
    """The first of some objectives that this tokenizer can serve; the error is that of the last."""
    for spec in specs[:-1]:
        with suppress(BothwaysError):
            return objectives.make(spec, vocabulary)
    return objectives.make(specs[-1], vocabulary)


def _model_type(folder: Path, stored: Mapping[str, Any]) -> str:
    """What config.json says, or, in one that is older than that entry, what the names of an encoder's weights say.

    Raises:
        BothwaysError: neither says it.
    """
    if stored.get("model_type") is not None:
        return str(stored["model_type"])
    stems = {name.split(".")[0] for name in open_weights(folder)} if weights_file(folder) is not None else set()
    known = stems & {"bert", "roberta", "distilbert", "albert", "electra"}
    if len(known) != 1:
        raise BothwaysError(f"{folder / 'config.json'} does not say of which family the model is: write its name "
                            'there, such as "model_type": "llama"')
    return known.pop()


def _model_of(folder: Path) -> Path:
    """The folder itself, or the model in a run's folder."""
    inside = folder / "model"
    is_run = (inside / "config.json").is_file() and weights_file(folder) is None
    return inside if is_run else folder


def fill(network: LanguageModel, weights: Mapping[str, Tensor], where: str, dtype: torch.dtype | None = None) -> None:
    """Read tensors into a network that was built without numbers; every entry on both sides is accounted for.

    A large one that needs no change stays in its file (`families.mapped` says what that asks of the file); each of the
    others is read straight to its place, so that nothing but the network is ever in memory.

    Args:
        weights: tensors in memory, or what a file (or a family, of one) gives.
        dtype: the number format of all of them; the one that most of the numbers have, when none.
    Raises:
        BothwaysError: missing and unknown names, all at once; a tensor of another shape, with both shapes.
    """
    source, expected = weights if isinstance(weights, Source) else Weights.of(weights), network.state_dict()
    account(source, set(expected), where)
    for name in source:
        check_shape(name, source.shape(name), expected[name].shape, where)
    dtype, parts = dtype or source.dtype, dict(network.named_parameters(remove_duplicate=False))
    found = {name: mapped(source.pieces(name), expected[name].shape, dtype) for name in source if name in parts}
    there = {name: one for name, one in found.items() if one is not None}
    _allocate(network, dtype, there)
    with ThreadPoolExecutor(READERS) as readers:
        missing = [one for one in network.state_dict().items() if one[0] not in there]
        for done in [readers.submit(source.read_into, *one) for one in missing]:
            done.result()


def _allocate(network: LanguageModel, dtype: torch.dtype, there: Mapping[str, Tensor]) -> None:
    """Give a network of the meta device memory, or what is there; what two modules share stays shared.

    What is no weight keeps its own number format.
    """
    made: dict[int, torch.nn.Parameter] = {}
    for path, module in network.named_modules():
        for name, one in module._parameters.items():
            if one is not None:
                memory = there.get(f"{path}.{name}" if path else name)
                if id(one) not in made:
                    memory = torch.empty(one.shape, dtype=dtype) if memory is None else memory
                    made[id(one)] = torch.nn.Parameter(memory)
                module._parameters[name] = made[id(one)]
        for name, buffer in module._buffers.items():
            if buffer is not None and buffer.is_meta:
                module._buffers[name] = torch.empty(buffer.shape, dtype=buffer.dtype)


def fused(network: LanguageModel) -> dict[str, Tensor]:
    """The network's tensors under our names, with projections that were split for adapters joined again.

    Raises:
        BothwaysError: weights of few bits.
    """
    whole(network, "saved or extended")
    found = network.state_dict()
    weights: dict[str, Tensor] = {}
    for name in build(network.config).state_dict():
        if name in found:
            weights[name] = found[name]
            continue
        stem, last, kind = name.rsplit(".", 2)
        parts = {"qkv": ("q", "k", "v"), "kv": ("k", "v"), "up_gate": ("up", "gate")}[last]
        weights[name] = torch.cat([found[f"{stem}.{part}.{kind}"] for part in parts])
    return weights


def _layout(trained: Trained, layout: str) -> Family | None:
    """The family whose names the weights get; none for our own."""
    if layout == "auto":
        return families.fitting(trained.config, trained.objective, trained.layout)
    if layout == OWN:
        return None
    family = families.family(layout, "the layout")
    reason = family.obstacle(trained.config)
    if reason is not None:
        raise BothwaysError(f"this network cannot be written as {family.architecture}: {reason}")
    return family


def _write(trained: Trained, folder: Path, family: Family | None, dtype: torch.dtype) -> None:
    """Every file of the layout."""
    exact = {name for name, _ in trained.network.named_buffers()}
    weights = {name: tensor.detach().to("cpu", tensor.dtype if name in exact else dtype).contiguous()
               for name, tensor in fused(trained.network).items()}
    if family is not None:
        weights = family.export(weights, trained.config)
    _save_weights(weights, folder / "model.safetensors")
    write_json(folder / "config.json", _config(trained, family, dtype))
    tokens = {entry: number for entry, number in token_ids(trained.vocabulary).items()
              if number is not None and entry != "mask_token_id"}
    if trained.objective.stack == "one tower":
        tokens.pop("decoder_start_token_id", None)
    write_json(folder / "generation_config.json", tokens)
    trained.tokenizer.save(folder)
    (folder / "README.md").write_text(model_card(trained, family), encoding="utf-8")


def _config(trained: Trained, family: Family | None, dtype: torch.dtype) -> dict[str, Any]:
    """The whole of config.json."""
    name = str(dtype).removeprefix("torch.")
    tokens = token_ids(trained.vocabulary)
    if trained.objective.stack == "one tower":
        tokens.pop("decoder_start_token_id")
    if tokens["mask_token_id"] is None:
        tokens.pop("mask_token_id")
    block = {
        "format": FORMAT, "layout": OWN if family is None else family.model_type,
        "model": settings.to_data(trained.config), "objective": trained.objective.describe(),
        "modes": [{"name": mode.name, "visibility": repr(mode.visibility), "predicts": mode.predicts,
                   "likelihood": mode.likelihood} for mode in trained.objective.modes],
        "report": dict(trained.report),
    }
    if isinstance(trained.tokenizer, ForeignTokenizer):
        block["foreign"] = True
    if family is None:
        head: dict[str, Any] = {"architectures": ["BothwaysLanguageModel"], "model_type": OWN,
                                "vocab_size": trained.config.shape.vocabulary}
    else:
        head = {"architectures": [family.written(trained.config)[0]],
                "model_type": family.stored_type or family.model_type, **family.entries(trained.config)}
    tokens = {name: value for name, value in tokens.items() if name not in head}
    return {**head, **tokens, "torch_dtype": name, "dtype": name, OWN: block}


def _save_weights(weights: dict[str, Tensor], file: Path) -> None:
    save_file(weights, file, metadata={"format": "pt"})
    with file.open("rb") as written:
        os.fsync(written.fileno())


def _tokenizer(folder: Path, stored: Mapping[str, Any], config: ModelConfig, foreign: bool) -> Tokenizer:
    """The folder's tokenizer; a plain folder may have one of another make, or none."""
    tokenizer: Tokenizer
    if foreign:
        stranger = ForeignTokenizer(folder, stored, config.shape.vocabulary)
        stranger.check_size()
        tokenizer = cast(Tokenizer, stranger)
        if stranger.readable and "chat_template" not in stranger.settings:
            try:
                tokenizer = Tokenizer.load(folder)
            except BothwaysError:
                pass  # one of another make: keep the stand-in
    else:
        tokenizer = Tokenizer.load(folder)
    if tokenizer.vocabulary.size > config.shape.vocabulary:
        raise BothwaysError(f"{folder}: tokenizer.json has {tokenizer.vocabulary.size} tokens, but the network in "
                            f"config.json has only {config.shape.vocabulary}")
    return tokenizer
