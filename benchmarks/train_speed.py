"""Tokens per second in training, beside the peer that does the same work: forward, backward, fused AdamW.

    python benchmarks/train_speed.py --case masked --rounds 15

Everyone runs in their best setting: the peer in the faster of its attention forms, in float32, under bfloat16
autocast and with bfloat16 weights; both with the allocator told to keep its memory. Ours is shown twice: as the very
block the peer has (positions, norms, activation, biases), and as our default trunk, which is not the peer's block but
what a user gets.
"""

from __future__ import annotations

import argparse
import contextlib
from collections.abc import Callable, Iterable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

import peers
from bothways.batch import Ask, Example
from bothways.model import FeedForward, LanguageModel, ModelConfig, Norm, Position, Shape
from bothways.model.allocator import keep_memory
from bothways.objectives.loss import cross_entropy
from bothways.visibility import bidirectional, causal, make_fields, same_document

VOCABULARY, WIDTH, LAYERS, HEADS, INNER = 8192, 256, 6, 4, 1024
BATCH, LENGTH, TARGET = 16, 128, 32
ASKED = 0.15


class Updater:
    """Fused AdamW; weights in bfloat16 keep a float32 master copy that is what moves (as our trainer does)."""

    def __init__(self, parameters: Iterable[nn.Parameter]) -> None:
        self.parameters = list(parameters)
        self.low = self.parameters[0].dtype != torch.float32
        self.masters = [p.detach().float().clone() for p in self.parameters] if self.low else self.parameters
        self.optimiser = torch.optim.AdamW(self.masters, lr=1e-4, fused=True)

    @torch.no_grad()
    def step(self) -> None:
        used = [(master, p) for master, p in zip(self.masters, self.parameters) if p.grad is not None]
        if self.low:
            for master, _ in used:
                master.grad = torch.empty_like(master) if master.grad is None else master.grad
            torch._foreach_copy_([master.grad for master, _ in used], [p.grad for _, p in used])
        self.optimiser.step()
        if self.low:
            torch._foreach_copy_([p for _, p in used], [master for master, _ in used])
        for _, p in used:
            p.grad = None


@dataclass(frozen=True)
class Contender:
    """A name for the table, what it belongs to, and one step of training."""

    name: str
    side: str
    precision: str
    step: Callable[[], object]


# ---------------------------------------------------------------- ours

def our_config(case: str, block: str) -> ModelConfig:
    """`block`: 'peer' has the peer's parts, 'default' is what `ModelConfig()` gives, 't5' has relative bias."""
    two = case == "encoder-decoder"
    shape = Shape(VOCABULARY, WIDTH, LAYERS, LAYERS if two else 0, HEADS)
    if block == "default":
        return ModelConfig(shape)
    if block == "t5":
        return ModelConfig(Shape(VOCABULARY, WIDTH, LAYERS, LAYERS, HEADS, inner=INNER), Position("relative"),
                           feed_forward=FeedForward("plain", "relu"), scale=1.0)
    learned = Position("learned", length=512)
    if case == "causal":
        return ModelConfig(shape, learned, Norm("layer", "before", 1e-5), FeedForward("plain", "gelu_tanh"), bias=True)
    return ModelConfig(shape, learned, Norm("layer", "after", 1e-5), FeedForward("plain", "gelu"), bias=True)


def packed(batch: int, length: int) -> dict[str, Tensor]:
    """Fields of `batch` documents of `length` tokens."""
    place = torch.arange(length).repeat(batch)
    return {**make_fields(batch * length), "index": place, "position": place,
            "document": torch.arange(batch).repeat_interleave(length)}


def our_example(case: str) -> Example:
    n = BATCH * LENGTH
    tokens = torch.randint(44, VOCABULARY, (n,))
    if case == "encoder-decoder":
        source = Example(tokens, bidirectional & same_document, packed(BATCH, LENGTH))
        m = BATCH * TARGET
        ask = Ask(torch.arange(m), torch.randint(44, VOCABULARY, (m,)), count=m)
        return Example(torch.randint(44, VOCABULARY, (m,)), causal & same_document, packed(BATCH, TARGET), (ask,),
                       source, bidirectional & same_document)
    where = torch.arange(n) if case == "causal" else torch.randperm(n)[:int(ASKED * n)].sort().values
    ask = Ask(where, torch.randint(44, VOCABULARY, (len(where),)), count=len(where))
    direction = causal if case == "causal" else bidirectional
    return Example(tokens, direction & same_document, packed(BATCH, LENGTH), (ask,))


def ours(case: str, block: str, precision: str) -> Contender:
    network = LanguageModel(our_config(case, block)).to(getattr(torch, precision)).train()
    updater = Updater(network.parameters())

    def step() -> None:
        example = our_example(case)
        part, = cross_entropy(network.logits, network(example, only_asked=True).states, example)
        (part.sum / part.count).backward()
        updater.step()
    return Contender(f"bothways, {block} block", "ours" if block != "t5" else "ours t5", precision, step)


# ---------------------------------------------------------------- peers

def peer_network(case: str, attention: str, which: str) -> nn.Module:
    """The peer from `transformers`, without dropout, with the same sizes."""
    import transformers as hf

    common = {"vocab_size": VOCABULARY, "attn_implementation": attention}
    if case == "masked":
        config = hf.BertConfig(hidden_size=WIDTH, num_hidden_layers=LAYERS, num_attention_heads=HEADS,
                               intermediate_size=INNER, max_position_embeddings=512, hidden_dropout_prob=0.0,
                               attention_probs_dropout_prob=0.0, **common)
        return hf.BertForMaskedLM(config)
    if case == "causal":
        config = hf.GPT2Config(n_embd=WIDTH, n_layer=LAYERS, n_head=HEADS, n_inner=INNER, n_positions=512,
                               resid_pdrop=0.0, embd_pdrop=0.0, attn_pdrop=0.0, use_cache=False, bos_token_id=1,
                               eos_token_id=2, **common)
        return hf.GPT2LMHeadModel(config)
    if which == "T5":
        config = hf.T5Config(d_model=WIDTH, d_kv=WIDTH // HEADS, d_ff=INNER, num_layers=LAYERS, num_heads=HEADS,
                             dropout_rate=0.0, use_cache=False, decoder_start_token_id=0, vocab_size=VOCABULARY)
        return hf.T5ForConditionalGeneration(config)
    config = hf.BartConfig(d_model=WIDTH, encoder_layers=LAYERS, decoder_layers=LAYERS, encoder_attention_heads=HEADS,
                           decoder_attention_heads=HEADS, encoder_ffn_dim=INNER, decoder_ffn_dim=INNER, dropout=0.0,
                           attention_dropout=0.0, max_position_embeddings=512, use_cache=False, **common)
    return hf.BartForConditionalGeneration(config)


def peer_inputs(case: str) -> dict[str, Tensor]:
    tokens = torch.randint(44, VOCABULARY, (BATCH, LENGTH))
    if case == "encoder-decoder":
        return {"input_ids": tokens, "labels": torch.randint(44, VOCABULARY, (BATCH, TARGET))}
    labels = torch.randint(44, VOCABULARY, (BATCH, LENGTH))
    if case == "masked":
        labels = labels.masked_fill(torch.rand(BATCH, LENGTH) >= ASKED, -100)
    return {"input_ids": tokens, "labels": labels}


def peer(case: str, attention: str, precision: str, which: str = "") -> Contender:
    """`precision`: float32, autocast (bfloat16, float32 weights) or bfloat16 (weights too)."""
    network = peer_network(case, attention, which).train()
    network = network.to(torch.bfloat16) if precision == "bfloat16" else network
    updater = Updater(network.parameters())
    autocast = precision == "autocast"

    def step() -> None:
        with torch.autocast("cpu", torch.bfloat16) if autocast else contextlib.nullcontext():
            loss = network(**peer_inputs(case)).loss
        loss.backward()
        updater.step()
    name = {"masked": "BERT", "causal": "GPT-2"}.get(case, which)
    return Contender(f"transformers {name}, {attention}, {precision}", f"peer {name}", precision, step)


def products(case: str, precision: str) -> Contender:
    """The matrix products of the peer block's step and nothing else: nobody who calls the library's can be faster."""
    dtype = getattr(torch, precision)
    n, m = BATCH * LENGTH, BATCH * TARGET
    block = [(3 * WIDTH, WIDTH), (WIDTH, WIDTH), (INNER, WIDTH), (WIDTH, INNER)]
    asked = {"masked": int(ASKED * n), "causal": n, "encoder-decoder": m}[case]
    sizes = [(n, *one) for one in block] * LAYERS + [(asked, VOCABULARY, WIDTH)]
    if case == "encoder-decoder":
        across = [(m, WIDTH, WIDTH), (n, 2 * WIDTH, WIDTH), (m, WIDTH, WIDTH)]
        sizes += ([(m, *one) for one in block] + across) * LAYERS
    made = [tuple(torch.randn(size).to(dtype) for size in ((rows, inner), (outer, inner), (rows, outer)))
            for rows, outer, inner in sizes]

    def step() -> None:
        for states, weight, grad in made:
            torch.mm(states, weight.t())
            torch.mm(grad, weight)
            torch.mm(grad.t(), states)
    return Contender("the matrix products alone", "products", precision, step)


# ---------------------------------------------------------------- the run

def contenders(case: str, fewer: bool) -> list[Contender]:
    """Everyone who takes part; `fewer` leaves out the peer's settings that are known to be slower."""
    precisions = ("float32", "bfloat16")
    result = [ours(case, block, precision) for block in ("peer", "default") for precision in precisions]
    which = ["BART"] if case == "encoder-decoder" else [""]
    attentions = ["eager"] if fewer else ["eager", "sdpa"]
    result += [peer(case, attention, precision, name) for name in which for attention in attentions
               for precision in ("float32", "autocast", "bfloat16")]
    if case == "encoder-decoder":
        result += [ours(case, "t5", precision) for precision in precisions]
        result += [peer(case, "eager", precision, "T5") for precision in ("float32", "autocast", "bfloat16")]
    return result + [products(case, precision) for precision in precisions]


def best(seconds: dict[str, list[float]], group: list[Contender]) -> Contender:
    """The fastest of a group by its median round."""
    return min(group, key=lambda contender: sorted(seconds[key(contender)])[len(seconds[key(contender)]) // 2])


def key(contender: Contender) -> str:
    return f"{contender.name} ({contender.precision})"


def report(case: str, group: list[Contender], seconds: dict[str, list[float]], tokens: int) -> dict[str, object]:
    """Print rates and ratios; returns them for the file."""
    rates = {key(c): peers.median_rate(tokens, seconds[key(c)]) for c in group}
    print(*peers.table([(name, f"{rate:,.0f}") for name, rate in rates.items()], ("contender", "tokens/s")), sep="\n")
    rows, ratios = [], {}
    for side in sorted({c.side for c in group if c.side.startswith("peer")}):
        theirs = [c for c in group if c.side == side]
        for mine in (c for c in group if c.side == ("ours t5" if side == "peer T5" else "ours")):
            slow = [c for c in theirs if (c.precision == "float32") == (mine.precision == "float32")]
            against = [best(seconds, slow)]
            if mine.precision != "float32":
                against.append(best(seconds, [c for c in theirs if c.precision == "float32"]))
            for other in against:
                value = peers.ratio(seconds[key(other)], seconds[key(mine)])
                rows.append((key(mine), key(other), value))
                ratios[f"{key(mine)} / {key(other)}"] = value
    for bound in (c for c in group if c.side == "products"):
        theirs = [c for c in group if c.side.startswith("peer") and c.side != "peer T5"
                  and (c.precision == "float32") == (bound.precision == "float32")]
        value = peers.ratio(seconds[key(best(seconds, theirs))], seconds[key(bound)])
        rows.append((key(bound), key(best(seconds, theirs)), value))
        ratios[f"{key(bound)} / {key(best(seconds, theirs))}"] = value
    print(*peers.table(rows, ("ours", "their best", "times as fast")), sep="\n")
    return {"case": case, "tokens_per_step": tokens, "tokens_per_second": rates, "ratios": ratios, "seconds": seconds}


def peak(case: str, side: str, precision: str) -> float:
    """MiB a few steps add to a process that has only its network."""
    contender = ours(case, "peer", precision) if side == "ours" else peer(case, side, precision, "BART")
    before = peers.resident()
    for _ in range(4):
        contender.step()
    return peers.resident_peak() - before


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--case", choices=("masked", "causal", "encoder-decoder"), default="masked")
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--fewer", action="store_true", help="leave out the peer's sdpa attention")
    parser.add_argument("--no-memory", action="store_true", help="leave out peak memory")
    parser.add_argument("--stock-allocator", action="store_true", help="do not keep memory, for anybody")
    parser.add_argument("--peak", nargs=2, metavar=("SIDE", "PRECISION"), help="print what one's steps add, only")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    torch.manual_seed(0)
    if arguments.peak:
        print(f"peak {peak(arguments.case, *arguments.peak):.0f}")
        return
    kept = not arguments.stock_allocator and keep_memory()
    tokens = BATCH * (LENGTH + (TARGET if arguments.case == "encoder-decoder" else 0))
    print(f"{arguments.case}: {LAYERS} layers, width {WIDTH}, vocabulary {VOCABULARY}, {tokens} tokens a step; "
          f"allocator keeps memory for everyone: {'yes' if kept else 'no'}")
    print(*(f"{name}: {value}" for name, value in peers.hardware().items()), sep="; ")
    group = contenders(arguments.case, arguments.fewer)
    seconds = peers.interleave({key(c): c.step for c in group}, arguments.rounds)
    result = report(arguments.case, group, seconds, tokens)
    if not arguments.no_memory:
        attention = "eager"
        result["peak_mib"] = {
            f"{side} {precision}": peers.peak_growth(
                [__file__, "--case", arguments.case, "--threads", str(arguments.threads), "--peak", side, precision])
            for side in ("ours", attention, "sdpa") for precision in ("float32", "bfloat16")}
        print(*peers.table(list(result["peak_mib"].items()), ("peak memory of a step", "MiB")), sep="\n")
    print("written to", peers.save(f"train_speed_{arguments.case}", {**result, "allocator_keeps_memory": kept}))


if __name__ == "__main__":
    main()
