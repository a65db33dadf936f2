"""Every quick benchmark, one after another: `make bench`, or `make bench ARGS="train_speed skewed_lengths"`."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).parent
RUNS: dict[str, list[list[str]]] = {
    "train_speed": [["--case", case, "--rounds", "9"] for case in ("masked", "causal", "encoder-decoder")],
    "skewed_lengths": [[]],
    "corruption_speed": [[]],
}


def main() -> int:
    """Run those named, or all; returns 1 if one failed, 2 for an unknown name."""
    names = sys.argv[1:] or list(RUNS)
    unknown = [name for name in names if name not in RUNS]
    if unknown:
        print(f"there is no benchmark '{unknown[0]}' (known: {', '.join(RUNS)})", file=sys.stderr)
        return 2
    codes = [subprocess.run([sys.executable, str(HERE / f"{name}.py"), *options], check=False).returncode
             for name in names for options in RUNS[name]]
    return int(any(codes))


if __name__ == "__main__":
    sys.exit(main())
