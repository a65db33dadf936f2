"""The public surface: a folder becomes a model that gives logits, writes, fills and embeds.

    >>> model = from_pretrained("runs/notes/model")
    >>> model.generate("Once upon a time", max_new_tokens=40)

The same calls work for every objective: which decoding writes, and who may look at whom, the folder says.
"""

from __future__ import annotations

from bothways.api.model import Model, description, extend_vocabulary, from_pretrained
from bothways.families.remote import Remote, remote
from bothways.tasks.predicting import pipeline

__all__ = ["Model", "Remote", "description", "extend_vocabulary", "from_pretrained", "pipeline", "remote"]
