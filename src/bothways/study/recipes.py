"""Whole studies as data: the demo, and studies read from YAML, strictly."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from bothways.errors import BothwaysError
from bothways.study.plan import Source, Study

DEMO = Study(sources=(
    Source("known", "grammar", budget="12s", seeds=3, effort="quick"),
    Source("text", budget="30s", seeds=1, effort="quick"),
))
"""`bothways compare --demo`: about five minutes for the known source and three for real text, on 2 cores."""

KNOWN_SECONDS = 30.0
"""The longest the known source is trained: tiny networks learn it in less."""


def known_budget(budget: str) -> str:
    """The budget of the known source beside a text's: the same, but at most half a minute or what is worth one."""
    from bothways.training.budget import Budget

    given = Budget.parse(budget)
    most = {"seconds": KNOWN_SECONDS, "steps": 1000.0, "tokens": 2e6, "flops": 2.5e12}[given.unit]
    return budget if given.amount <= most else str(Budget(most, given.unit))


def read(file: Path) -> Study:
    """A study from YAML: the fields of `Study`, its sources those of `Source`.

    Raises:
        BothwaysError: all unknown keys and wrong values at once, with the nearest right names.
    """
    from bothways.training.config import load_mapping
    from bothways.training.config import read as read_strictly

    data: dict[str, Any] = load_mapping(file)
    sources = data.pop("sources", None)
    study = read_strictly(Study, data, str(file))
    if sources is None:
        return study
    if not isinstance(sources, list) or not sources:
        raise BothwaysError(f"{file}: sources is a list of what to train on, each with kind, corpus, budget and seeds")
    read_sources = tuple(read_strictly(Source, source, str(file), f"sources[{place}]")
                         for place, source in enumerate(sources))
    kinds = [source.kind for source in read_sources]
    if len(set(kinds)) < len(kinds):
        raise BothwaysError(f"{file}: sources has two of the kind '{max(kinds, key=kinds.count)}', and a study has "
                            "at most one known source and one text")
    return Study(**{**study.__dict__, "sources": read_sources})
