"""States to text: a decoding for every objective, behind two calls."""

from __future__ import annotations

from bothways.decoding.calls import fill, generate, stream
from bothways.decoding.sampling import GenerateConfig
from bothways.decoding.written import Written

__all__ = ["GenerateConfig", "Written", "fill", "generate", "stream"]
