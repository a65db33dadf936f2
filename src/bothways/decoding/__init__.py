"""States to text: a decoding for every objective, behind two calls."""

from __future__ import annotations

from bothways.decoding.calls import fill, generate, stream
from bothways.decoding.prefixes import Prefixes
from bothways.decoding.sampling import GenerateConfig
from bothways.decoding.written import Written

__all__ = ["GenerateConfig", "Prefixes", "Written", "fill", "generate", "stream"]
