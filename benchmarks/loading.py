"""How fast, and with how much memory, is a folder loaded? Ours beside transformers, on a generated sharded checkpoint.

    python benchmarks/loading.py --gigabytes 2

A Llama-shaped folder of random bfloat16 weights is written in shards to a temporary folder (deleted at the end). Each
round loads it once with either, each in a process of its own, in turns, and then makes one forward pass over 128
tokens: a loader that only maps the file pays for reading there. Rounds are `warm` (the system has the files in its
memory) or `cold` (it was asked to forget them). `peak` is the most memory the process had above what it had before
loading, over the size of the weights; `load` and `pass` are seconds of the two parts.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

import torch
from safetensors.torch import save_file

import peers

SHARD = 250_000_000
"""Bytes of a shard, about."""
LIMIT = 1.15
"""The most memory that loading may take, in sizes of the weights."""
CHILD = r"""
import json, resource, sys, time
which, folder = sys.argv[1:]
import torch
if which == "bothways":
    from bothways.batch import Example
    from bothways.families.folder import load
    from bothways.visibility import causal
else:
    from transformers import LlamaForCausalLM
def held():
    return int(next(line for line in open("/proc/self/status") if line.startswith("VmRSS")).split()[1]) * 1024
def loaded(folder):
    if which == "bothways":
        return load(folder).network
    return LlamaForCausalLM.from_pretrained(folder, dtype=torch.bfloat16)
def read(network, ids):
    with torch.no_grad():
        if which == "bothways":
            return network.logits(network(Example(ids, causal)).states)
        return network(ids.unsqueeze(0)).logits
ids = torch.arange(128) + 100
read(loaded(folder + "/tiny"), ids)
before, begun = held(), time.perf_counter()
network = loaded(folder + "/large")
there = time.perf_counter()
peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 - before
read(network, ids)
print(json.dumps({"peak": peak, "load": there - begun, "pass": time.perf_counter() - there}))
"""


def write(folder: Path, size: int) -> int:
    """A Llama folder with about `size` bytes of bfloat16 weights in shards; returns their bytes."""
    width, inner, vocabulary, heads, keys = (2048, 5632, 32000, 32, 4) if size > 10**7 else (64, 128, 256, 4, 2)
    head = width // heads
    parts = {"input_layernorm": (width,), "post_attention_layernorm": (width,), "self_attn.q_proj": (width, width),
             "self_attn.k_proj": (keys * head, width), "self_attn.v_proj": (keys * head, width),
             "self_attn.o_proj": (width, width), "mlp.gate_proj": (inner, width), "mlp.up_proj": (inner, width),
             "mlp.down_proj": (width, inner)}
    layer = 2 * sum(torch.Size(shape).numel() for shape in parts.values())
    layers = max(1, round((size - 2 * vocabulary * width) / layer))
    shapes = {"model.embed_tokens.weight": (vocabulary, width), "model.norm.weight": (width,)}
    shapes |= {f"model.layers.{i}.{name}.weight": shape for i in range(layers) for name, shape in parts.items()}
    folder.mkdir(parents=True)
    index, shard, held, total, number = {}, {}, 0, 0, 0
    for place, (name, shape) in enumerate(shapes.items()):
        shard[name] = torch.randn(shape, dtype=torch.bfloat16)
        held += shard[name].nbytes
        if held > SHARD or place == len(shapes) - 1:
            number += 1
            save_file(shard, folder / f"model-{number:05d}.safetensors", metadata={"format": "pt"})
            index |= dict.fromkeys(shard, f"model-{number:05d}.safetensors")
            total, held, shard = total + held, 0, {}
    (folder / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": index}))
    (folder / "config.json").write_text(json.dumps({
        "architectures": ["LlamaForCausalLM"], "model_type": "llama", "vocab_size": vocabulary, "hidden_size": width,
        "intermediate_size": inner, "num_hidden_layers": layers, "num_attention_heads": heads, "bos_token_id": 1,
        "eos_token_id": 2, "num_key_value_heads": keys, "tie_word_embeddings": True, "torch_dtype": "bfloat16"}))
    return total


def forget(folder: Path) -> None:
    """Ask the system to drop what it holds of these files."""
    for file in folder.iterdir():
        with file.open("rb") as stream:
            os.fsync(stream.fileno())
            os.posix_fadvise(stream.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def main() -> int:
    """Print one JSON line; 1 when ours takes more memory than the limit."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--gigabytes", type=float, default=2.0)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--folder", help="where to put the temporary folder")
    choices = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=choices.folder) as folder:
        size = write(Path(folder) / "large", int(choices.gigabytes * 1e9))
        write(Path(folder) / "tiny", 10**5)
        found: dict[str, dict[str, list[dict[str, float]]]] = {
            state: {"bothways": [], "transformers": []} for state in ("warm", "cold")}
        for turn in range(choices.rounds):
            for state, contenders in found.items():
                for which in contenders if turn % 2 == 0 else reversed(contenders):
                    if state == "cold":
                        forget(Path(folder) / "large")
                    child = subprocess.run([sys.executable, "-c", CHILD, which, folder], check=True,
                                           capture_output=True, text=True)
                    contenders[which].append(json.loads(child.stdout.splitlines()[-1]))
    report: dict[str, object] = {"weights_gigabytes": round(size / 1e9, 3), "rounds": choices.rounds}
    for state, contenders in found.items():
        report[state] = {which: {"peak": round(max(one["peak"] for one in results) / size, 3),
                                 **{part: round(statistics.median(one[part] for one in results), 3)
                                    for part in ("load", "pass")}} for which, results in contenders.items()}
        for name, parts in (("load", ("load",)), ("load and pass", ("load", "pass"))):
            theirs, ours = ([sum(one[part] for part in parts) for one in contenders[which]]
                            for which in ("transformers", "bothways"))
            report[f"{state}, {name}: times as fast"] = peers.ratio(theirs, ours)
    print(json.dumps(report, default=str))
    if choices.gigabytes >= 2:
        print("written to", peers.save("loading", report))
    return int(any(one["peak"] > LIMIT * size for state in found.values() for one in state["bothways"]))


if __name__ == "__main__":
    sys.exit(main())
