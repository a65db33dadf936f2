"""Every contradiction among the choices of a network, each as a sentence that names both."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import fields, is_dataclass
from typing import TYPE_CHECKING, get_args

from bothways.model.choices import BIASED, Activation, Experts, Head, LatentHeads

if TYPE_CHECKING:
    from bothways.model.config import ModelConfig

MOST_LAYERS = 10_000
"""A network of more layers is a slip of the pen, and would take its time to be refused by its weights."""


def problems(config: ModelConfig) -> Iterator[str]:
    """Every contradiction among the choices, each as a sentence that names both."""
    shape = config.shape
    yield from _endless(config, "")
    for name in ("vocabulary", "width", "layers", "heads"):
        if getattr(shape, name) < 1:
            yield f"shape.{name} is {getattr(shape, name)}, but must be at least 1"
            return
    if shape.source_layers < 0:
        yield f"shape.source_layers is {shape.source_layers}, but a tower cannot have fewer than 0 layers"
    for name in ("layers", "source_layers"):
        if (count := getattr(shape, name)) > MOST_LAYERS:
            yield f"shape.{name} is {count:,}, but must be at most {MOST_LAYERS:,}"
    if shape.head_size is None and shape.width % shape.heads:
        yield (f"shape.width {shape.width} does not divide into shape.heads {shape.heads}: "
               "change one of them or set shape.head_size")
    if shape.heads % max(config.key_heads, 1):
        yield f"shape.heads {shape.heads} does not divide into shape.key_heads {config.key_heads} groups"
    for name in ("key_heads", "head_size", "inner", "embedding", "distinct"):
        if (size := getattr(shape, name)) is not None and size < 1:
            yield f"shape.{name} is {size}, but must be at least 1 (or none, to follow from the other sizes)"
    yield from _of_blocks(config)
    if config.mixer.kind != "attention":
        yield from _of_recurrence(config)
    yield from _of_scores(config)
    if config.feed_forward.experts is not None:
        yield from _of_experts(config, config.feed_forward.experts)
    most = max(shape.layers, shape.source_layers)
    if not config.reach or set(config.reach) - set("GLC"):
        yield f"reach is '{config.reach}', but is written with the letters G (global), L (local) and C (chunk)"
    elif len(config.reach) > most:
        yield (f"reach '{config.reach}' speaks of {len(config.reach)} layers, but shape.layers is {most}: shorten "
               "one or add layers")
    if config.local < 1:
        yield f"local is {config.local}, but a local layer reaches at least 1 token"
    if config.source_local is not None and config.source_local < 1:
        yield f"source_local is {config.source_local}, but a local layer reaches at least 1 token"
    if not shape.source_layers and (config.source_local is not None or not config.shared_embedding):
        what = "source_local" if config.source_local is not None else "shared_embedding false"
        yield f"{what} speaks of another tower, but shape.source_layers is 0: change one of them"
    if config.chunk < 1:
        yield f"chunk is {config.chunk}, but a chunk has at least 1 token"
    if not 0 <= config.dropout < 1:
        yield f"dropout is {config.dropout}, but must lie in [0, 1)"
    if config.norm.epsilon <= 0:
        yield f"norm.epsilon is {config.norm.epsilon}, but must be above 0"


def _endless(config: object, path: str) -> Iterator[str]:
    """Numbers that are none or have no end, by the choices they are given for."""
    for entry in fields(config):  # type: ignore[arg-type]
        value = getattr(config, entry.name)
        if isinstance(value, float) and not math.isfinite(value):
            yield f"{path}{entry.name} is {value}, but must be a number that ends"
        elif is_dataclass(value):
            yield from _endless(value, f"{path}{entry.name}.")


def _of_blocks(config: ModelConfig) -> Iterator[str]:
    """Contradictions between what a block is made of."""
    if not isinstance(config.bias, bool) and (unknown := [part for part in config.bias if part not in BIASED]):
        yield f"bias names '{unknown[0]}', but the parts that may have one are {', '.join(BIASED)}"
    if config.norm.bias and config.norm.kind == "rms":
        yield "norm.bias is true, but norm.kind 'rms' has none: choose 'layer' or leave the bias out"
    if config.norm.centred and config.norm.kind != "rms":
        yield f"norm.centred speaks of RMS norms, but norm.kind is '{config.norm.kind}': change one of them"
    if not config.norm.weight and (config.norm.centred or (config.norm.kind == "layer" and config.norm_bias)):
        yield (f"norm.weight is false, but norm.{'centred' if config.norm.centred else 'bias'} speaks of a norm that "
               "has one: change one of them")
    if not config.norm.first and (config.norm.place != "before" or config.parallel):
        yield ("norm.first is false, but only blocks whose parts are normed one by one (norm.place 'before', not "
               f"parallel) can leave the first norm out: norm.place is '{config.norm.place}'")
    if not config.norm.first and (config.shape.distinct is not None or config.shape.source_layers):
        yield ("norm.first is false for the first block of one tower, but shape.distinct or shape.source_layers "
               "makes that block serve elsewhere: choose one")
    if config.feed_forward.kind == "none" and config.mixer.kind == "attention":
        yield ("feed_forward.kind 'none' leaves attention alone in a block: choose gated, plain or another "
               "mixer.kind")
    if config.parallel and config.norm.place != "before":
        yield f"parallel blocks are normed before, but norm.place is '{config.norm.place}': change one of them"
    if config.parallel and config.shape.source_layers:
        yield (f"parallel blocks have no place to look across at the other tower that shape.source_layers "
               f"{config.shape.source_layers} makes: choose one")
    if config.distinct > max(config.shape.layers, config.shape.source_layers):
        yield (f"shape.distinct {config.shape.distinct} is more than the layers there are "
               f"({max(config.shape.layers, config.shape.source_layers)})")
    run = config.shape.run
    if run < 1 or (run > 1 and (config.shape.distinct is None or config.distinct % run or config.shape.layers % run)):
        yield (f"shape.run {run} says how many blocks are shared together, so shape.distinct {config.shape.distinct} "
               f"and shape.layers {config.shape.layers} must be multiples of it")
    if config.shape.distinct is not None and config.shape.source_layers:
        yield "shape.distinct shares the blocks of one tower, but shape.source_layers makes two: choose one"
    head = config.head
    if not head.scores and (not config.tied or head != Head(scores=False)):
        yield "head.scores is false, so there is no head to be untied or to have other choices: leave them out"
    if (head.activation is not None or head.dense_bias is not None) and not head.transform:
        yield "head.activation and head.dense_bias speak of head.transform, which is false: change one of them"
    if head.activation is not None and head.activation not in get_args(Activation):
        yield (f"head.activation is '{head.activation}', but must be one of {', '.join(get_args(Activation))} "
               "(or none, for the feed-forward's)")
    if head.decoder < 0:
        yield f"head.decoder is {head.decoder}, but a block is asked 0 times or more"
    if head.decoder and config.shape.source_layers:
        yield (f"head.decoder asks the last block of one tower, but shape.source_layers {config.shape.source_layers} "
               "makes two: choose one")
    if config.qkv_bias not in ("qkv", "qv", "q"):
        yield f"qkv_bias is '{config.qkv_bias}', but is 'qkv', 'qv' or 'q'"
    beside = config.convolution
    if beside.kernel and (beside.kernel < 0 or beside.kernel % 2 == 0):
        yield f"convolution.kernel is {beside.kernel}, but has as many neighbours on both sides: choose an odd one"
    if beside.kernel and (beside.groups < 1 or config.shape.width % beside.groups):
        yield f"shape.width {config.shape.width} does not divide into convolution.groups {beside.groups}"
    if beside.kernel and config.shape.source_layers:
        yield (f"convolution.kernel {beside.kernel} is for one tower, but shape.source_layers "
               f"{config.shape.source_layers} makes two: choose one")
    if config.tied and config.embedding_width != config.shape.width and not head.transform and head.scores:
        yield (f"shape.embedding {config.shape.embedding} is not shape.width {config.shape.width}, so a tied head "
               "needs head.transform to come back to it")


def _of_recurrence(config: ModelConfig) -> Iterator[str]:
    """What a recurrence cannot be combined with."""
    mixer = config.mixer
    if config.shape.source_layers:
        yield (f"mixer.kind '{mixer.kind}' reads left to right only, but shape.source_layers "
               f"{config.shape.source_layers} makes a tower that reads both ways: choose one")
    if config.norm.place != "before" or config.parallel:
        yield (f"mixer.kind '{mixer.kind}' stands in blocks that are normed before: use norm.place before, not "
               "parallel")
    if config.narrow:
        yield f"mixer.kind '{mixer.kind}' has no reach, but reach is '{config.reach}': use G"
    if config.position.kind in ("rotary", "relative"):
        yield (f"mixer.kind '{mixer.kind}' makes no scores, so position.kind '{config.position.kind}' has no place "
               "in it: use none")
    for name in ("state", "convolution", "head_size", "groups", "inner", "rank"):
        if (size := getattr(mixer, name)) is not None and size < 1:
            yield f"mixer.{name} is {size}, but must be at least 1"
            return
    if mixer.kind == "mamba2" and config.mixed % (mixer.head_size * mixer.groups):
        yield (f"mixer.inner {config.mixed} does not divide into {mixer.groups} groups of heads of "
               f"mixer.head_size {mixer.head_size}")


def _of_latents(config: ModelConfig, latent: LatentHeads) -> Iterator[str]:
    """What attention by way of latents cannot be combined with."""
    if config.mixer.kind != "attention" or config.shape.source_layers:
        yield "latent is a choice of attention in one tower: leave mixer.kind and shape.source_layers as they are"
    if config.position.kind != "rotary" or config.position.share != 1:
        yield "latent heads have a turned part of their own: use position.kind 'rotary' and position.share 1"
    if config.key_heads != config.shape.heads:
        yield f"latent makes keys for all heads, but shape.key_heads is {config.key_heads}: leave it out"
    if config.norm.query_key:
        yield "latent norms its latents, so norm.query_key has no place: choose one"
    for name in ("keys", "queries", "rotary", "values"):
        if (size := getattr(latent, name)) is not None and size < 1:
            yield f"latent.{name} is {size}, but must be at least 1"
    if latent.rotary > config.head_size:
        yield f"latent.rotary {latent.rotary} is more than shape.head_size {config.head_size}, of which it is a part"


def _of_experts(config: ModelConfig, experts: Experts) -> Iterator[str]:
    """Contradictions between what experts there are and who goes where."""
    name = "feed_forward.experts"
    if config.feed_forward.kind != "gated" or config.biased("feed_forward"):
        yield f"{name} are gated and have no bias: change feed_forward.kind, bias or the experts"
    if config.mixer.kind != "attention":
        yield f"{name} stand beside attention, but mixer.kind is '{config.mixer.kind}': choose one"
    if not 1 <= experts.active <= experts.count:
        yield f"{name}.active is {experts.active}, but a token goes through 1 to {experts.count} of {name}.count"
    if experts.shared < 0 or (experts.inner is not None and experts.inner < 1):
        yield f"{name}.shared {experts.shared} and {name}.inner {experts.inner} cannot be as small as that"
    if not experts.where or set(experts.where) - set("ED"):
        yield f"{name}.where is '{experts.where}', but is written with the letters E (experts) and D (dense)"
    elif len(experts.where) > max(config.shape.layers, config.shape.source_layers):
        yield f"{name}.where '{experts.where}' speaks of more layers than there are: shorten it or add layers"
    elif len(set(experts.where)) > 1 and config.shape.distinct is not None:
        yield f"{name}.where '{experts.where}' differs between layers, which shape.distinct shares: choose one"
    if experts.groups < 1 or experts.count % max(experts.groups, 1):
        yield f"{name}.count {experts.count} does not divide into {name}.groups {experts.groups}"
        return
    size = experts.count // experts.groups
    if not 1 <= experts.open_groups <= experts.groups or not 1 <= experts.group_by <= size:
        yield (f"{name}.open_groups {experts.open_groups} and {name}.group_by {experts.group_by} do not fit "
               f"{experts.groups} groups of {size} experts")
    elif experts.active > experts.open_groups * size:
        yield (f"{name}.active {experts.active} is more than the {experts.open_groups * size} experts in "
               f"{name}.open_groups {experts.open_groups} groups")
    if experts.scale <= 0 or experts.balance < 0 or experts.speed < 0:
        yield (f"{name}.scale {experts.scale} must be above 0, {name}.balance {experts.balance} and {name}.speed "
               f"{experts.speed} not below")


def _of_scores(config: ModelConfig) -> Iterator[str]:
    """Contradictions between what knows places and what scores."""
    position = config.position
    if config.latent is not None:
        yield from _of_latents(config, config.latent)
    if position.kind == "rotary" and config.turned_size % 2:
        yield (f"position.kind 'rotary' turns pairs of numbers, so an odd head size of {config.turned_size} "
               "cannot carry it: change shape.width, shape.heads or shape.head_size")
    if position.kind == "sinusoidal" and config.shape.width % 2:
        yield f"position.kind 'sinusoidal' fills pairs of numbers, so shape.width {config.shape.width} must be even"
    if position.kind in ("relative", "disentangled", "transformer-xl") and config.soft_cap is not None:
        yield f"position.kind '{position.kind}' adds to the scores and soft_cap bends them: choose one"
    if position.kind == "disentangled":
        yield from _of_distances(config)
    if position.kind == "transformer-xl" and config.shape.width % 2:
        yield (f"position.kind 'transformer-xl' fills pairs of numbers, so shape.width {config.shape.width} must be "
               "even")
    if position.kind == "transformer-xl" and position.distance < 0:
        yield f"position.distance is {position.distance}, but must be at least 1, or 0 for no end"
    if position.kind == "relative" and (position.buckets < 4 or position.buckets % 4):
        yield f"position.buckets is {position.buckets}, but must be a multiple of 4 (two sides, near and far)"
    if position.kind == "relative" and position.distance <= position.buckets // 2:
        yield (f"position.distance {position.distance} is no farther than the near half of position.buckets "
               f"{position.buckets}: raise the distance or lower the buckets")
    if not 0 < position.share <= 1 or (position.kind == "rotary" and round(config.turned_size * position.share) % 2):
        yield (f"position.share {position.share} of a head of {config.turned_size} numbers must be an even count of "
               "them, above none")
    yield from _of_unturned(config)
    for name in ("base", "local_base"):
        if (base := getattr(position, name)) is not None and base <= 0:
            yield f"position.{name} is {base}, but must be above 0"
    if position.offset < 0:
        yield f"position.offset is {position.offset}, but must be at least 0"
    if (scaling := position.scaling) is not None:
        if position.kind != "rotary":
            yield (f"position.scaling slows rotary angles, but position.kind is '{position.kind}': change one of "
                   "them")
        if scaling.factor <= 0 or scaling.length < 1 or scaling.magnitude <= 0:
            yield (f"position.scaling has factor {scaling.factor}, length {scaling.length} and magnitude "
                   f"{scaling.magnitude}, but all of them must be above 0")
        if not 0 < scaling.slow < scaling.fast:
            yield (f"position.scaling.slow {scaling.slow} must be above 0 and below position.scaling.fast "
                   f"{scaling.fast}")
    if position.length < 1:
        yield f"position.length is {position.length}, but must be at least 1"
    if config.soft_cap is not None and config.soft_cap <= 0:
        yield f"soft_cap is {config.soft_cap}, but must be above 0"


def _of_unturned(config: ModelConfig) -> Iterator[str]:
    """Contradictions between the layers that turn queries and keys and those that do not."""
    position, most = config.position, max(config.shape.layers, config.shape.source_layers)
    if not position.where or set(position.where) - set("RN"):
        yield f"position.where is '{position.where}', but is written with the letters R (rotary) and N (no places)"
        return
    if len(position.where) > most:
        yield f"position.where '{position.where}' speaks of more layers than there are: shorten it or add layers"
    unturned = "N" in position.where
    if unturned and (position.kind != "rotary" or config.latent is not None or config.shape.source_layers):
        yield (f"position.where '{position.where}' leaves rotary places out of layers of one tower: use position.kind "
               "'rotary', no latent and no shape.source_layers, or R alone")
    if len(set(position.where)) > 1 and config.shape.distinct is not None:
        yield f"position.where '{position.where}' differs between layers, which shape.distinct shares: choose one"
    if config.norm.query_key == "turned" and not unturned:
        yield "norm.query_key 'turned' speaks of the layers that turn, but all do: use true, or position.where"
    if not config.norm.query_key_weight and not config.norm.query_key:
        yield "norm.query_key_weight is false, but norm.query_key norms no queries: change one of them"
    if position.temperature is not None:
        if not unturned:
            yield (f"position.temperature is for layers that turn nothing, but position.where '{position.where}' "
                   "has no N: change one of them")
        if position.temperature.step < 1 or position.temperature.rise < 0:
            yield (f"position.temperature has step {position.temperature.step} and rise {position.temperature.rise}, "
                   "but needs a step of at least 1 and a rise of at least 0")


def _of_distances(config: ModelConfig) -> Iterator[str]:
    """Contradictions among the choices for disentangled places."""
    position = config.position
    if not position.terms or set(position.terms) - {"c2p", "p2c"} or len(set(position.terms)) < len(position.terms):
        yield (f"position.terms is ({', '.join(position.terms)}), but names 'c2p', 'p2c' or both, which "
               "position.kind 'disentangled' adds to the scores")
    if position.buckets < 0 or position.buckets % 2:
        yield f"position.buckets is {position.buckets}, but must be even (near and far), or 0 for none"
    if position.distance < 1:
        yield f"position.distance is {position.distance}, but disentangled places end at 1 or more"
    if position.buckets > 0 and position.distance - 1 <= position.buckets // 2:
        yield (f"position.distance {position.distance} is no farther than the near half of position.buckets "
               f"{position.buckets}: raise the distance or lower the buckets")
