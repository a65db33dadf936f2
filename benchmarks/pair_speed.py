"""Minimal pairs a second, beside `transformers` asked for the same scores.

    python benchmarks/pair_speed.py --case masked --from all-MiniLM-L6-v2 --pairs blimp.jsonl.gz
    python benchmarks/pair_speed.py --case causal --pairs blimp.jsonl.gz

masked: an encoder of MiniLM's size (its weights, and a head over 30,522 tokens) scores both sentences of a pair by
PLL-word-l2r, one copy of a sentence for each of its tokens. The peer is `BertForMaskedLM` on the same copies, padded,
those of like length together, the fastest of several batch sizes. causal: GPT-2's class with 6 layers, 384 wide, whose
peer reads both sentences in padded batches of like length. Scores are compared before anything is timed. The peer's
copies are laid out beforehand; ours are made, from strings, within the time.
"""

from __future__ import annotations

import argparse
import logging
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np
import torch
import transformers as hf
from torch import Tensor, nn

import peers
from bothways.evaluation.pairs import minimal_pairs, score, sentences
from bothways.evaluation.pseudo import turns
from bothways.evaluation.questions import spread, ways
from bothways.families.folder import load, save
from bothways.families.trained import Trained
from bothways.model import FeedForward, LanguageModel, ModelConfig, Norm, Position, Shape
from bothways.model.allocator import keep_memory
from bothways.objectives import make
from bothways.text.pairs import Pair, read_pairs
from bothways.text.tokenizer import Tokenizer

LAYERS, WIDTH, HEADS, VOCABULARY = 6, 384, 12, 8192
RULES = {"masked": "pll-word-l2r", "causal": "nll"}


def clock() -> float:
    """Seconds: of the processor where everybody has one thread, which other work on the machine then slows less."""
    return time.process_time() if torch.get_num_threads() == 1 else time.perf_counter()


def made(case: str, given: Path | None, pairs: Sequence[Pair], folder: Path) -> None:
    """A folder that both sides read: the encoder's weights where they are given, else random ones."""
    torch.manual_seed(0)
    if case == "masked":
        tokenizer = hf.AutoTokenizer.from_pretrained(given)
        network = hf.BertForMaskedLM.from_pretrained(given)
        # a head that tells tokens apart, as a trained one does
        nn.init.normal_(network.cls.predictions.transform.dense.weight, std=0.05)
        network.save_pretrained(folder)
        tokenizer.save_pretrained(folder)
        return
    own = Tokenizer.train([text for pair in pairs for text in pair[:2]], kind="bpe", size=VOCABULARY)
    config = ModelConfig(Shape(own.size, WIDTH, LAYERS, 0, HEADS), Position("learned", length=512),
                         Norm("layer", "before", 1e-5), FeedForward("plain", "gelu_tanh"), bias=True)
    save(Trained(LanguageModel(config), make("next-token", own.vocabulary), own), folder)


# ---------------------------------------------------------------- peers

def padded(several: Sequence[np.ndarray], size: int) -> Iterator[tuple[list[int], Tensor, Tensor]]:
    """Batches of like length: places in `several`, (n, longest) ids, and 1 where they are real."""
    order = sorted(range(len(several)), key=lambda i: len(several[i]))
    for first in range(0, len(order), size):
        some = order[first:first + size]
        yield some, *_padded([several[i] for i in some])


def _padded(several: Sequence[np.ndarray]) -> tuple[Tensor, Tensor]:
    real = np.arange(max(map(len, several))) < np.array([len(one) for one in several])[:, None]
    ids = np.zeros(real.shape, dtype=np.int64)
    ids[real] = np.concatenate(several)
    return torch.from_numpy(ids), torch.from_numpy(real).long()


def masked_peer(folder: Path, dtype: torch.dtype, trained: Trained, members: Sequence[np.ndarray], size: int
                ) -> Callable[[], np.ndarray]:
    """The score of each sentence: copies with the asked token and the rest of its word hidden, in padded batches."""
    network = hf.BertForMaskedLM.from_pretrained(folder, dtype=dtype).eval()
    copies, targets, places, owners = [], [], [], []
    for number, ids in enumerate(members):
        for hidden, target in turns(ids, ~trained.vocabulary.special[ids], "pll-word-l2r", trained.vocabulary):
            place = int(np.flatnonzero(hidden)[target or 0])
            copies.append(np.where(hidden, trained.vocabulary.mask, ids))
            targets.append(int(ids[place]))
            places.append(place)
            owners.append(number)

    @torch.inference_mode()
    def run() -> np.ndarray:
        found = np.zeros(len(members))
        for some, ids, real in padded(copies, size):
            logits = network(input_ids=ids, attention_mask=real).logits
            chosen = logits[range(len(some)), [places[i] for i in some]].float().log_softmax(-1)
            np.add.at(found, [owners[i] for i in some], chosen[range(len(some)), [targets[i] for i in some]].numpy())
        return found
    return run


def causal_peer(folder: Path, dtype: torch.dtype, members: Sequence[np.ndarray], size: int) -> Callable[[], np.ndarray]:
    """log p of each sentence, in padded batches."""
    network = hf.AutoModelForCausalLM.from_pretrained(folder, dtype=dtype).eval()

    @torch.inference_mode()
    def run() -> np.ndarray:
        found = np.zeros(len(members))
        for some, ids, real in padded(members, size):
            logs = network(input_ids=ids, attention_mask=real).logits[:, :-1].float().log_softmax(-1)
            told = logs.gather(-1, ids[:, 1:, None])[..., 0] * real[:, 1:]
            found[some] = told.sum(1).numpy()
        return found
    return run


# ---------------------------------------------------------------- the run

def differences(found: Sequence[tuple[float, float]] | np.ndarray) -> np.ndarray:
    """Good minus bad of each pair; of the peer's scores, good sentences come before their bad ones."""
    both = np.asarray(found, dtype=float)
    return both[:, 0] - both[:, 1] if both.ndim == 2 else both[:len(both) // 2] - both[len(both) // 2:]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--case", choices=tuple(RULES), default="masked")
    parser.add_argument("--from", dest="folder", type=Path, help="a folder with a BERT encoder, for masked")
    parser.add_argument("--pairs", type=Path, required=True, help="minimal pairs in BLiMP's format")
    parser.add_argument("--limit", type=int, default=100, help="pairs of a round")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--sizes", type=int, nargs="+", default=[32, 128], help="of the peer's batches")
    parser.add_argument("--precisions", nargs="+", choices=("float32", "bfloat16"), default=["float32", "bfloat16"])
    arguments = parser.parse_args()
    if arguments.case == "masked" and arguments.folder is None:
        parser.error("--case masked needs --from: a folder with a BERT encoder and its tokenizer")
    torch.set_num_threads(arguments.threads)
    kept = keep_memory()
    hf.utils.logging.set_verbosity_error()
    hf.utils.logging.disable_progress_bar()
    logging.getLogger("accelerate").setLevel(logging.ERROR)
    every = read_pairs(arguments.pairs)
    pairs = [every[place] for place in spread(len(every), arguments.limit)]
    rule = RULES[arguments.case]
    print(f"{len(pairs)} pairs by {rule}; allocator keeps memory for everyone: {'yes' if kept else 'no'}")
    print(*(f"{name}: {value}" for name, value in peers.hardware().items()), sep="; ")
    calls: dict[str, Callable[[], object]] = {}
    exact: dict[str, np.ndarray] = {}
    with tempfile.TemporaryDirectory() as folder:
        made(arguments.case, arguments.folder, every, Path(folder))
        for precision in arguments.precisions:
            trained = load(folder, dtype=getattr(torch, precision))
            good, bad = (sentences(trained.tokenizer, [pair[side] for pair in pairs]) for side in (0, 1))
            (way, *_) = ways(trained, False)
            exact[f"bothways, {precision}"] = differences(score(trained, way, rule, good, bad))
            calls[f"bothways, {precision}"] = lambda trained=trained: minimal_pairs(  # type: ignore[misc]
                trained, pairs, rules=[rule], off_mode=False)
            for size in arguments.sizes:
                name, dtype = f"transformers, {precision}, {size} at a time", getattr(torch, precision)
                run = causal_peer(Path(folder), dtype, [*good, *bad], size) if arguments.case == "causal" else \
                    masked_peer(Path(folder), dtype, trained, [*good, *bad], size)
                exact[name], calls[name] = differences(run()), run
        # 1. the same scores: sums over a sentence, so a thousandth in float32 and what bfloat16 can do
        first = exact[f"transformers, {arguments.precisions[0]}, {arguments.sizes[0]} at a time"]
        far = {name: float(np.abs(found - first).max()) for name, found in exact.items()}
        wrong = [name for name, most in far.items() if "float32" in name and "float32" in arguments.precisions[0]
                 and most > 2e-3]
        assert not wrong, f"{wrong[0]} is {far[wrong[0]]:.2g} off"
        flips = {name: int(((found > 0) != (first > 0)).sum()) for name, found in exact.items()}
        # 2. time
        seconds = peers.interleave(calls, arguments.rounds, warm=1, per_round=1, clock=clock)
    rates = {name: len(pairs) / statistics.median(some) for name, some in seconds.items()}
    print(*peers.table([(name, f"{rates[name]:.1f}", f"{far[name]:.2g}", flips[name]) for name in rates],
                       ("", "pairs per second", "largest change of good - bad", "decisions changed")), sep="\n")
    ratios = {}
    for precision in arguments.precisions:
        best = max((name for name in rates if name.startswith(f"transformers, {precision}")), key=rates.__getitem__)
        ratios[precision] = peers.ratio(seconds[best], seconds[f"bothways, {precision}"])
        print(f"{precision}: {ratios[precision]} times {best}")
    print("written to", peers.save(f"pair_speed_{arguments.case}", {
        "pairs": len(pairs), "rule": rule, "pairs_per_second": rates, "ratios": ratios, "largest_change": far,
        "decisions_changed": flips, "allocator_keeps_memory": kept, "seconds": seconds}))


if __name__ == "__main__":
    main()
