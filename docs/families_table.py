"""The table of docs/families.md: every family, what it chooses, and how it compares with its published class.

    python benchmarks/families.py
    python docs/families_table.py
"""

from __future__ import annotations

import inspect
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from bothways.families import KNOWN, Family
from bothways.families.settings import from_data
from bothways.model import ModelConfig

RESULTS = Path(__file__).parent.parent / "benchmarks" / "results" / "families.json"
LOOKS = {"causal": "left", "bidirectional": "both ways", "two towers": "both ways, then left",
         "prefix": "both ways in a prefix, then left"}
PLACES = {"before": "before", "after": "after", "both": "before and after"}


def main() -> None:
    """Print the table, and what it was measured on."""
    result = json.loads(RESULTS.read_text())
    print("| family | in words | looks | positions | norm | feed-forward | largest difference | forward pass |")
    print("| --- | --- | --- | --- | --- | --- | --- | --- |")
    for name, family in KNOWN.items():
        print("| " + " | ".join(row(name, family, result["families"].get(name))) + " |")
    print("\n| the peer has no fused kernels | 8 texts of 128 tokens | 2 texts of 512 |\n| --- | --- | --- |")
    for name, entry in result["families"].items():
        if "faster_long" in entry:
            print(f"| `{name}` | {times(entry['faster'])} | {times(entry['faster_long'])} |")
    hardware = result["hardware"]
    print(f"\n{result['rounds']} interleaved rounds beside {result['peer']}, float32, {hardware['threads']} threads of "
          f"{hardware['processor']}, PyTorch {hardware['torch']}; medians with 95 % intervals.")


def row(name: str, family: Family, entry: dict[str, Any] | None) -> Iterator[str]:
    """The cells of one family."""
    module = inspect.getmodule(type(family))
    paper = re.search(r"arXiv \d+\.\d+", inspect.getdoc(module) or "")
    yield f"`{name}`" + (f", {paper[0]}" if paper else "")
    yield (inspect.getdoc(type(family)) or "").splitlines()[0].rstrip(".")
    yield LOOKS[family.direction]
    if entry is None:
        yield from ("", "", "", "not measured: by tests alone", "")
        return
    config = from_data(entry["config"], name)
    yield config.position.kind + (f", reach {config.reach}" if config.narrow else "")
    yield f"{config.norm.kind}, {PLACES[config.norm.place]}"
    yield feed(config)
    yield f"{entry['difference']:.0e}"
    yield times(entry["faster"])


def times(ratio: dict[str, float]) -> str:
    """How many times as fast, with its interval."""
    return f"{ratio['value']:.2f} ({ratio['low']:.2f} to {ratio['high']:.2f})"


def feed(config: ModelConfig) -> str:
    """The feed-forward in words."""
    if config.feed_forward.kind == "none":
        return "none"
    experts = getattr(config, "experts", None) or getattr(config.feed_forward, "experts", None)
    return f"{config.feed_forward.kind}, {config.feed_forward.activation}" + (", experts" if experts else "")


if __name__ == "__main__":
    main()
