"""Print a model folder or a recipe: its choices, sizes, costs, modes, and which class of transformers reads it.

    bothways describe run/model
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import tyro


@dataclass(frozen=True)
class Options:
    """What to describe."""

    what: tyro.conf.Positional[Path]
    """A model folder, a run's folder, or a recipe (.yaml)."""


def run(options: Options) -> int:
    """Load, print."""
    from bothways.api import description

    if options.what.suffix in (".yaml", ".yml"):
        from bothways.cli.cost import plain_vocabulary
        from bothways.objectives import make
        from bothways.training.recipe import compose

        recipe = compose(options.what)
        objective = make(recipe.objective, plain_vocabulary(recipe.model.shape.vocabulary))
        print(description(recipe.model, objective, recipe.text.window))
        return 0
    import bothways

    print(bothways.from_pretrained(options.what).describe())
    return 0
