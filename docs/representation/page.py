"""The page: one table of questions, published signs, our numbers and verdicts, then a section for each."""

from __future__ import annotations

from pathlib import Path

import f2_early
import f4_coverage
import f8_few_labels
import f10_pairs
import known_layers
import text_layers
from kept import Kept, table

HEAD = """# What trained networks know

Causal, masked, denoising encoder-decoder, hybrid and diffusion networks from one trainer: what can be read from their
states, layer by layer, how alike they are, and which published findings show at this size. "Cannot be said" is a
difference whose 95 % interval holds 0; the expected sign was the published one. Intervals are not corrected for
the number of rows: one in twenty misses by chance.

| published finding | expected | measured here | verdict |
| --- | --- | --- | --- |
{rows}

Two sets of networks. *Known source*: the twelve objectives of [objectives.md](objectives.md), 3 layers of width 64 on a
small grammar, three training seeds, intervals over seeds. *OpenStax prose*: 4 layers of width 256 that read 6M tokens
of textbooks, **one training seed each**, so intervals there are over texts, splits or draws of labels, and say nothing
of another training run. Both are far smaller than what was published.

```bash
bothways compare --recipe recipes/studies/objectives.yaml --out study
bothways train --corpus openstax_train.txt.gz --objective next-token --budget "6M tokens" --width 256 --layers 4 \\
    --heads 4 --vocabulary 4096 --window 256 --batch-tokens 4096 --set matrix_rate=0.02 other_rate=5e-3 \\
    --out runs/causal
python docs/blimp_table.py runs/*/model --pairs blimp.jsonl.gz --keep pairs.json
python docs/representation measure known f2 f4 f8 f10 text --study study --runs runs --data data --pairs pairs.json
python docs/representation page
```

The other runs differ in `--objective` (`masked(rate=0.3)`, `denoising`, ...) and `--out`. Every measurement is kept in
`docs/representation/results`, and the page is written from there.

## Published findings
"""


def write_page(results: Path, file: Path) -> None:
    """Write the page beside its pictures."""
    pictures = file.parent / "pictures"
    pictures.mkdir(parents=True, exist_ok=True)
    sections, rows = {}, []
    for part, module in (("f2", f2_early), ("f4", f4_coverage), ("f8", f8_few_labels), ("f10", f10_pairs),
                         ("text", text_layers), ("known", known_layers)):
        sections[part], lines = module.page(Kept(results, part), pictures)
        rows += lines
    first = table(("", "", "", ""), rows).split("\n")[2:]
    body = "\n".join(part for part in sections.values() if part)
    file.write_text(HEAD.format(rows="\n".join(first)) + "\n" + body.rstrip() + "\n", encoding="utf-8")
    print(file)
