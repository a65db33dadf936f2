"""Seeds of drawn tests: a few in the quick run, as many as one likes in the slow one.

    BOTHWAYS_DRAWS=50 make test ARGS="-m slow tests/families/test_drawn_configs.py tests/decoding/test_drawn_options.py"
"""

from __future__ import annotations

import os


def many() -> range:
    """The seeds of the slow run: BOTHWAYS_DRAWS=50 is the first fifty, BOTHWAYS_DRAWS=100-150 the fifty from 100 on."""
    first, dash, last = os.environ.get("BOTHWAYS_DRAWS", "10").partition("-")
    return range(int(first), int(last)) if dash else range(int(first))
