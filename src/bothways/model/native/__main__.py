"""Build the native kernel: `python -m bothways.model.native`."""

from __future__ import annotations

import sys

from bothways.errors import BothwaysError
from bothways.model import native


def main() -> int:
    """Build it where it is missing; 0 when it is there, 1 when it cannot be built."""
    try:
        print("the native kernel lies in", native.build().file)
    except (BothwaysError, OSError) as error:
        print(f"the native kernel cannot be built: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
