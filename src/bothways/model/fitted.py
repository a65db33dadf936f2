"""The same network with the parts that another objective needs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from bothways.batch import Companion
from bothways.errors import BothwaysError
from bothways.model.compact import whole
from bothways.model.config import Head
from bothways.model.language_model import LanguageModel

SCORING = Head(transform=True, bias=True)
"""The head that an encoder's body gets: BERT's."""


def fitted(network: LanguageModel, companions: Sequence[Companion]) -> LanguageModel:
    """A network with these companions and a head over the vocabulary; what it had it keeps, what is new is random.

    A companion it has under that name already stays as it is, whatever it is built of, if it is large enough.

    Returns:
        the network itself where it lacks nothing, else a new one that holds the same numbers.
    Raises:
        BothwaysError: a companion of that name is too small.
    """
    config = network.config
    known = {one.name: one for one in config.companions}
    for one in companions:
        if one.name in known and known[one.name].size < one.size:
            raise BothwaysError(f"'{one.name}' beside this network has {known[one.name].size} values, but the "
                                f"objective needs {one.size}")
    new = tuple(one for one in companions if one.name not in known)
    if not new and config.head.scores:
        return network
    whole(network, "given further parts")
    grown = LanguageModel(replace(config, companions=(*config.companions, *new),
                                  head=config.head if config.head.scores else SCORING))
    grown.load_state_dict(network.state_dict(), strict=False)
    weight = network.embedding.weight
    return grown.to(weight.device, weight.dtype)
