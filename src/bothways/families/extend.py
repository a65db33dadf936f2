"""More tokens for a trained model: its tokenizer, its embedding and its head grow together."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import torch
from torch import Tensor

from bothways import objectives
from bothways.batch import RESERVED_TOKENS
from bothways.errors import BothwaysError
from bothways.families.blank import build, shapes_of
from bothways.families.folder import fill, fused
from bothways.families.foreign import ForeignTokenizer
from bothways.families.trained import Trained
from bothways.text.tokenizer import Tokenizer


def extend_vocabulary(trained: Trained, tokens: Sequence[str] | None = None) -> Trained:
    """The same model with more tokens, so that a folder without `<mask>` or sentinels can train with any objective.

    What it says of its old tokens stays the same but for the share of probability that the new ones get. A new row of
    the embedding (and of everything else that has one for each token) is the mean of the old ones: its logit then
    stays near theirs, where a random row may take all the probability (Hewitt 2021, "Initializing New Word Embeddings
    for Pretrained Language Models").

    Args:
        tokens: their names; those that are there already are left as they are. None stands for all reserved tokens.
    Raises:
        BothwaysError: a model without a tokenizer, or a name that is empty.
    """
    wanted = list(dict.fromkeys(RESERVED_TOKENS if tokens is None else tokens))
    if not trained.readable:
        raise BothwaysError("this model has no tokenizer.json, so no token can be added to it")
    if any(not token.strip() for token in wanted):
        raise BothwaysError("a token to add is empty: name each one, such as <mask>")
    known_to = trained.vocabulary.ids
    new = [token for token in wanted if token not in known_to and trained.tokenizer.core.token_to_id(token) is None]
    if not new:
        return trained
    # 1. the tokenizer, and the rows it already has: a network may have more of them than its tokenizer has tokens
    old, tokenizer = trained.tokenizer, trained.tokenizer.extended(new)
    known = min(_names(old), trained.config.shape.vocabulary)
    size = max(trained.config.shape.vocabulary, _names(tokenizer))
    tokenizer = tokenizer.sized(size) if isinstance(tokenizer, ForeignTokenizer) else tokenizer
    fresh = range(_names(old), _names(tokenizer))
    # 2. the network
    config = replace(trained.config, shape=replace(trained.config.shape, vocabulary=size))
    grown = build(config)
    fill(grown, _grown(fused(trained.network), shapes_of(config), shapes_of(trained.config), known, fresh),
         "the model", trained.dtype)
    # 3. the objective it had, over the larger vocabulary
    objective = objectives.make(trained.objective.describe(), tokenizer.vocabulary)
    return Trained(grown.to(trained.device).eval(), objective, tokenizer, trained.report)


def _grown(weights: Mapping[str, Tensor], wanted: Mapping[str, torch.Size], before: Mapping[str, torch.Size],
           known: int, fresh: Sequence[int]) -> dict[str, Tensor]:
    """The weights, with the mean of the `known` rows for every `fresh` token wherever there is a row for each token."""
    grown = dict(weights)
    always = {"embedding.weight", "head.weight"} & set(weights)
    tables = {name for name in weights if wanted[name] != before[name]} | always
    for name in tables:
        rows = weights[name]
        mean = rows[:known].float().mean(0).to(rows.dtype)
        grown[name] = mean.expand(wanted[name]).clone()
        grown[name][:len(rows)] = rows
        grown[name][list(fresh)] = mean
    return grown


def _names(tokenizer: Tokenizer | ForeignTokenizer) -> int:
    """How many ids the tokenizer itself has; a network may have more."""
    assert tokenizer.core is not None
    return tokenizer.core.get_vocab_size()
