"""Search texts by meaning: print those of a file that are nearest to a query.

    bothways retrieve run/model "where is my card?" --texts notes.txt --top 3

Prints a line of JSON a hit: rank, cosine, number and text. The model is any model folder, or one that `bothways tune
--task similarity --way bi` made. With --index the vectors are kept in a folder, and later searches need no file:

    bothways retrieve run/model --texts notes.txt --index my-index
    bothways retrieve run/model "where is my card?" --index my-index
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import tyro


@dataclass(frozen=True)
class Options:
    """Which model searches where, and for what."""

    folder: tyro.conf.Positional[Path]
    """The model folder."""
    query: tyro.conf.Positional[tuple[str, ...]] = ()
    """What to search for; several queries are searched one after the other."""
    texts: Path | None = None
    """A file of texts: .jsonl, .csv or .parquet with --field, otherwise one text a line."""
    field: str | None = None
    """The field of the file's records that holds the text."""
    index: Path | None = None
    """The folder of the vectors: written with --texts, read without."""
    top: int = 5
    """How many texts are printed for each query."""
    device: str | None = None
    """cpu, cuda, cuda:1."""


def run(options: Options) -> int:
    """Load or build the index, search, print."""
    import json

    from bothways.errors import BothwaysError

    # 1. check the call before anything is loaded
    if options.texts is None and options.index is None:
        raise BothwaysError("say where to search: --texts with a file, or --index with a folder made before")
    if not options.query and (options.texts is None or options.index is None):
        raise BothwaysError("say what to search for, or keep the vectors of --texts with --index")
    from bothways.tasks.retrieve import Index, encoder, texts_of

    # 2. the index
    task = encoder(options.folder, options.device)
    if options.texts is None:
        index = Index.load(options.index or Path())
    else:
        index = Index.build(task, texts_of(options.texts, options.field), str(options.folder))
        if options.index is not None:
            index.save(options.index)
    if not options.query:
        print(f"{len(index.texts)} vectors of {index.vectors.shape[1]} numbers written to {options.index}")
        return 0
    # 3. the search
    for query, hits in zip(options.query, index.search(task, options.query, options.top), strict=True):
        for rank, hit in enumerate(hits, start=1):
            print(json.dumps({"query": query, "rank": rank, "score": hit.score, "number": hit.number,
                              "text": hit.text}, ensure_ascii=False))
    return 0
