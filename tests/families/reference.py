"""A published class and our reading of its folder: one function for each thing that must agree."""

from __future__ import annotations

import copy
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file
from torch import Tensor

import bothways
from bothways.batch import Example, pack
from bothways.families import KNOWN
from bothways.objectives.base import example, reading
from bothways.visibility import bidirectional

EXACT = 1e-5
SCANS = 1e-4
"""For scans, expert routing and gradients."""


def shaken(theirs: Any, seed: int = 0, by: float = 0.1) -> Any:
    """The class with every weight moved, so that a wrong map shows; in evaluation mode."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for weight in theirs.parameters():
            weight.add_(torch.randn(weight.shape, generator=generator) * by)
    return theirs.eval()


def ids_of(vocabulary: int, batch: int = 3, length: int = 17, seed: int = 0) -> Tensor:
    """(B, L) random ids; the first ten are left out, where special tokens lie."""
    return torch.randint(min(10, vocabulary // 2), vocabulary, (batch, length),
                         generator=torch.Generator().manual_seed(seed))


def check(theirs: Any, folder: Path, source: Tensor | None = None, ids: Tensor | None = None, tolerance: float = EXACT,
          segments: Tensor | None = None, embedding_first: bool = True, **given: Any) -> bothways.Model:
    """Everything at once: logits, padding, hidden states, gradients, writing where it writes, and the way back.

    Args:
        theirs: a model of `transformers`, shaken already.
        folder: an empty one to write into.
        source: (B, M) ids of the source, for two towers.
        ids: (B, L) ids, random ones when none.
        segments: (B, L) token types; what can be is compared with them too.
        embedding_first: whether the published hidden states begin with the embedding, as most do.
        given: what else the published class is called with.
    """
    ids = ids_of(theirs.config.vocab_size) if ids is None else ids
    theirs.save_pretrained(folder / "theirs")
    ours = bothways.from_pretrained(folder / "theirs")
    logits(ours, theirs, ids, source, tolerance, **given)
    if segments is not None:
        with torch.no_grad():
            mine = scores(ours, flat(ours, ids, segments=segments))
            reference = _scores(theirs(input_ids=ids, token_type_ids=segments))
        same(mine.view_as(reference), reference, tolerance)
    hidden_states(ours, theirs, ids, source, tolerance, embedding_first, **given)
    padding(ours, theirs, ids, source, tolerance)
    gradients(ours, theirs, ids, source, **given)
    if ours.objective.decoding == "left_to_right" and theirs.can_generate():
        writing(ours, theirs, ids[:, :5], source)
    way_back(ours, theirs, folder, ids, source, **given)
    return ours


def call(theirs: Any, ids: Tensor, source: Tensor | None, **given: Any) -> Any:
    """The published forward pass."""
    if source is None:
        return theirs(input_ids=ids, **given)
    return theirs(input_ids=source, decoder_input_ids=ids, **given)


def logits(ours: bothways.Model, theirs: Any, ids: Tensor, source: Tensor | None = None, tolerance: float = EXACT,
           **given: Any) -> None:
    """Of a batch, and of its first text alone."""
    with torch.no_grad():
        reference = _scores(call(theirs, ids, source, **given))
        if not ours.config.head.scores:
            same(scores(ours, flat(ours, ids, source)).view_as(reference), reference, tolerance)
            return
        same(ours.logits(ids, source=source), reference, tolerance)
        if not given:
            one = None if source is None else source[:1]
            same(ours.logits(ids[0], source=one), _scores(call(theirs, ids[:1], one)), tolerance)


def scores(ours: bothways.Model, row: Example) -> Tensor:
    """What the published class gives for every token: scores over the vocabulary, else a verdict, else states."""
    network = ours.trained.network
    states = network(row).states
    if ours.config.head.scores:
        return network.logits(states, ours.objective.modes[0].head)
    if "replaced" in network.companions:
        return network.logits(states, "replaced")[:, 1]
    return states


def hidden_states(ours: bothways.Model, theirs: Any, ids: Tensor, source: Tensor | None = None,
                  tolerance: float = EXACT, embedding_first: bool = True, **given: Any) -> None:
    """Of the embedding and behind each layer; the last published one is behind the last norm."""
    with torch.no_grad():
        found = call(theirs, ids, source, output_hidden_states=True, **given)
        reference = found.hidden_states if source is None else found.decoder_hidden_states
        output = ours.trained.network(flat(ours, ids, source), hidden=True)
    assert output.hidden is not None
    states = (*output.hidden[:-1], output.states) if embedding_first else (*output.hidden[1:], output.states)
    for mine, published in zip(states, reference, strict=True):
        same(mine.view_as(published), published, tolerance)


def padding(ours: bothways.Model, theirs: Any, ids: Tensor, source: Tensor | None = None, tolerance: float = EXACT
            ) -> None:
    """A text alone has the logits it has behind others, padded to their length there and packed here."""
    lengths = [ids.shape[1] - 3 * i for i in range(len(ids))]
    valid = torch.arange(ids.shape[1]) < torch.tensor(lengths)[:, None]
    with torch.no_grad():
        if source is None:
            reference = _scores(theirs(input_ids=ids.where(valid, 0), attention_mask=valid.long()))
        else:
            told = [source.shape[1] - 2 * i for i in range(len(source))]
            seen = torch.arange(source.shape[1]) < torch.tensor(told)[:, None]
            reference = _scores(theirs(input_ids=source.where(seen, 0), attention_mask=seen.long(),
                                       decoder_input_ids=ids))
        sees = ours.objective.modes[0].visibility
        examples = []
        for i, length in enumerate(lengths):
            if source is None:
                examples.append(reading(ids[i, :length].numpy(), sees, prefix=False))
            else:
                other = example(source[i, :told[i]].numpy(), bidirectional)
                examples.append(example(ids[i].numpy(), sees, source=other, cross=bidirectional))
        (packed,) = pack(examples)
        mine = scores(ours, packed)
    wanted = reference[valid] if source is None else reference.flatten(0, 1)
    same(mine, wanted, tolerance)


def gradients(ours: bothways.Model, theirs: Any, ids: Tensor, source: Tensor | None = None, **given: Any) -> None:
    """Of the same loss for every weight, ours under the published names."""
    theirs.zero_grad()
    reference = _scores(call(theirs, ids, source, **given))
    aims = torch.randn(reference.shape, generator=torch.Generator().manual_seed(7))
    (reference * aims).mean().backward()
    network = ours.trained.network
    network.zero_grad()
    mine = scores(ours, flat(ours, ids, source))
    (mine.view_as(reference) * aims).mean().backward()
    family = KNOWN[theirs.config.model_type]
    grads = {name: torch.zeros_like(weight) if weight.grad is None else weight.grad
             for name, weight in network.named_parameters()}
    fixed = {name: torch.zeros_like(value) for name, value in network.state_dict().items() if name not in grads}
    exported = family.export({**grads, **fixed}, ours.config)
    found = {name: weight.grad for name, weight in theirs.named_parameters() if weight.grad is not None}
    # a bias of keys moves no score, and its gradient is what rounding leaves
    floor = 1e-3 * max(grad.abs().max().item() for grad in found.values())
    if not found.keys() <= exported.keys():
        found = {**found, **_as_saved(theirs)}
    common = found.keys() & exported.keys()
    assert common, "no gradient was compared"
    for name in common:
        same(exported[name], found[name], SCANS, f"the gradient of {name}", floor)
    network.zero_grad()


def _as_saved(theirs: Any) -> dict[str, Tensor]:
    """Gradients under the names their weights are saved by, which may be others than those in memory (experts)."""
    twin = copy.deepcopy(theirs)
    with torch.no_grad(), tempfile.TemporaryDirectory() as folder:
        for own, weight in zip(twin.parameters(), theirs.parameters(), strict=True):
            own.copy_(torch.zeros_like(own) if weight.grad is None else weight.grad)
        for buffer in twin.buffers():
            buffer.zero_()
        twin.save_pretrained(folder)
        return load_file(Path(folder) / "model.safetensors")


def writing(ours: bothways.Model, theirs: Any, prompt: Tensor, source: Tensor | None = None, tokens: int = 32) -> None:
    """Greedy writing through our cache takes what their uncached logits say, wherever the best two are apart."""
    begin = theirs.config.decoder_start_token_id if source is not None else None
    for i in range(len(prompt)):
        text = prompt[i].tolist() if source is None else [begin]
        told = None if source is None else source[i:i + 1]
        network = ours.trained.network
        cache = network.cache(1, len(text) + tokens)
        fresh = torch.tensor(text)
        with torch.no_grad():
            for _ in range(tokens):
                sees = ours.objective.modes[0].visibility
                here = replace(example(fresh.numpy(), sees), fields=cache.fields(len(fresh)))
                if told is not None:
                    other = example(told[0].numpy(), bidirectional) if not cache.cross else None
                    here = replace(here, source=other, cross=bidirectional)
                mine = network.logits(network(here, cache).states[-1:])[0]
                wanted = _scores(call(theirs, torch.tensor([text]), told))[0, -1]
                same(mine, wanted, SCANS)
                best = wanted.topk(2).values
                token = int(wanted.argmax())
                if best[0] - best[1] > 1e-4:
                    assert int(mine.argmax()) == token
                text.append(token)
                fresh = torch.tensor([token])


def way_back(ours: bothways.Model, theirs: Any, folder: Path, ids: Tensor, source: Tensor | None = None, **given: Any
             ) -> None:
    """Saved by us, the weights are theirs to the bit, both libraries read them, and nothing is left out."""
    ours.save_pretrained(folder / "again", layout=theirs.config.model_type)
    first, second = load_file(folder / "theirs/model.safetensors"), load_file(folder / "again/model.safetensors")
    family = KNOWN[theirs.config.model_type]
    for name in first.keys() | second.keys():
        if name in first and name in second:
            # what only repeats another entry may differ in the published file, where nothing reads it
            assert torch.equal(first[name], second[name]) or family.repeats(name, ours.config), name
        else:
            assert family.repeats(name, ours.config), f"{name} is in one of the two folders only"
    again = bothways.from_pretrained(folder / "again")
    row = flat(ours, ids, source)
    with torch.no_grad():
        assert torch.equal(scores(again, row), scores(ours, row))
    loaded, info = type(theirs).from_pretrained(folder / "again", output_loading_info=True)
    assert not info["missing_keys"] and not info["unexpected_keys"] and not info["mismatched_keys"], info
    with torch.no_grad():
        same(_scores(call(loaded.eval(), ids, source, **given)), _scores(call(theirs, ids, source, **given)), 1e-6)


def flat(ours: bothways.Model, ids: Tensor, source: Tensor | None = None, segments: Tensor | None = None) -> Example:
    """Texts of one length as one packed Example."""
    sees = ours.objective.modes[0].visibility
    if source is None:
        told = {} if segments is None else {"segment": segments.flatten()}
        (packed,) = pack([reading(row.numpy(), sees, prefix=False) for row in ids])
        packed = replace(packed, fields={**packed.fields, **told})
    else:
        (packed,) = pack([example(row.numpy(), sees, source=example(other.numpy(), bidirectional), cross=bidirectional)
                          for row, other in zip(ids, source, strict=True)])
    return packed


def same(ours: Tensor, theirs: Tensor, tolerance: float = EXACT, what: str = "the tensor",
         floor: float = 1e-6) -> None:
    """max |a - b| <= tolerance max |b| (at least `floor`), shapes equal."""
    assert ours.shape == theirs.shape, f"{what}: {tuple(ours.shape)} against {tuple(theirs.shape)}"
    worst, scale = (ours - theirs).abs().max().item(), theirs.abs().max().item()
    assert np.isfinite(worst) and worst <= tolerance * max(scale, floor), (
        f"{what}: max |a - b| = {worst:.2e}, max |b| = {scale:.2e}")


def _scores(output: Any) -> Tensor:
    """The scores over the vocabulary, whatever the published output calls them; states where there are none."""
    known = ("logits", "prediction_logits", "last_hidden_state")
    found: Tensor = next(getattr(output, name) for name in known if hasattr(output, name))
    return found
