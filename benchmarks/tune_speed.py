"""Examples per second of fine-tuning and of prediction, beside the Trainer of `transformers` on the same work.

    python benchmarks/tune_speed.py --from all-MiniLM-L6-v2 --data banking77_train.csv --name banking77
    python benchmarks/tune_speed.py --from all-MiniLM-L6-v2 --data movie_reviews_train.jsonl.gz --name movie_reviews

Both sides begin with the same weights and compute one function: a linear layer on the mean of a text's own states (or,
with `--head class`, `BertForSequenceClassification` as it is, and ours with its pooler). Their losses on one batch are
compared before anything is timed. Same texts, same cut, same batch size, dropout and clipping as usual, AdamW in its
fused form; products in float32 on both sides, or in bfloat16 on both (theirs by `bf16=True`). The Trainer has its usual
best: `DataCollatorWithPadding`, texts of like length together, nothing logged or saved; its texts are tokenized
beforehand and its start is not counted, while ours are tokenized within the time. Everybody reads each text of a round
once. Prediction: `Trainer.predict` on texts sorted by length against ours, as they come.
"""

from __future__ import annotations

import argparse
import contextlib
import copy
import functools
import io
import logging
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers as hf
from torch import Tensor, nn
from torch.nn import functional as F

import peers
from bothways.evaluation.rows import packed
from bothways.families.folder import load
from bothways.families.trained import Trained
from bothways.model.allocator import keep_memory
from bothways.tasks import kind
from bothways.tasks.classify import Options
from bothways.tasks.rows import read
from bothways.tasks.tuning import TuneConfig
from bothways.tasks.ways import Choices, Row
from bothways.tasks.ways.head import ByHead

Encoded = list[dict[str, Any]]


def clock() -> float:
    """Seconds: of the processor where everybody has one thread, which other work on the machine then slows less."""
    return time.process_time() if torch.get_num_threads() == 1 else time.perf_counter()


class Mean(nn.Module):
    """The peer's encoder with a linear layer on the mean of each text's states, [CLS] and [SEP] left out."""

    def __init__(self, encoder: nn.Module, labels: int, special: Tensor) -> None:
        super().__init__()
        self.encoder, self.out = encoder, nn.Linear(encoder.config.hidden_size, labels)
        self.dropout = encoder.config.hidden_dropout_prob
        self.register_buffer("special", special, persistent=False)
        nn.init.zeros_(self.out.weight)
        nn.init.zeros_(self.out.bias)

    def forward(self, input_ids: Tensor, attention_mask: Tensor, labels: Tensor | None = None) -> dict[str, Tensor]:
        states = self.encoder(input_ids=input_ids, attention_mask=attention_mask).last_hidden_state
        counted = (attention_mask.bool() & ~self.special[input_ids]).unsqueeze(-1).to(states.dtype)
        logits = self.out(F.dropout((states * counted).sum(1) / counted.sum(1).clamp(min=1), self.dropout,
                                    self.training))
        found = {"logits": logits}
        return found if labels is None else {"loss": F.cross_entropy(logits, labels), **found}


def peer_network(folder: Path, head: str, labels: int, special: Tensor, attention: str) -> nn.Module:
    """The peer's network with the folder's weights and a head that knows nothing."""
    if head == "mean":
        encoder = hf.BertModel.from_pretrained(folder, attn_implementation=attention, add_pooling_layer=False)
        return Mean(encoder, labels, special)
    network = hf.BertForSequenceClassification.from_pretrained(folder, num_labels=labels,
                                                               attn_implementation=attention)
    nn.init.zeros_(network.classifier.weight)
    nn.init.zeros_(network.classifier.bias)
    return network


class Clock(hf.TrainerCallback):
    """Seconds of the Trainer's loop alone."""

    def on_train_begin(self, *_: Any, **__: Any) -> None:
        self.start = clock()

    def on_train_end(self, *_: Any, **__: Any) -> None:
        self.seconds = clock() - self.start


def trainer(network: nn.Module, tokenizer: Any, texts: Encoded, batch: int, precision: str, out: str
            ) -> tuple[hf.Trainer, Clock]:
    """The Trainer in its usual best form, over one pass of the texts."""
    watch = Clock()
    arguments = hf.TrainingArguments(
        output_dir=out, per_device_train_batch_size=batch, per_device_eval_batch_size=batch, num_train_epochs=1,
        train_sampling_strategy="group_by_length", length_column_name="length", learning_rate=1e-4, weight_decay=0.01,
        optim="adamw_torch_fused", max_grad_norm=1.0, bf16=precision == "bfloat16", use_cpu=True, report_to=[],
        logging_strategy="no", save_strategy="no", eval_strategy="no", disable_tqdm=True, dataloader_num_workers=0,
        dataloader_pin_memory=False, seed=0)
    return hf.Trainer(network, arguments, train_dataset=Texts(texts), callbacks=[watch],
                      data_collator=hf.DataCollatorWithPadding(tokenizer)), watch


class Texts(torch.utils.data.Dataset[dict[str, Any]]):
    """Tokenized texts, without what the collator does not pad."""

    def __init__(self, texts: Encoded) -> None:
        self.texts = [{name: value for name, value in text.items() if name != "length"} for text in texts]

    def __len__(self) -> int:
        return len(self.texts)

    def __getitem__(self, place: int) -> dict[str, Any]:
        return self.texts[place]


class Contest:
    """Both sides of one comparison, ready to be run."""

    def __init__(self, trained: Trained, folder: Path, rows: Sequence[Row], arguments: argparse.Namespace) -> None:
        self.trained, self.folder, self.rows, self.given = trained, folder, rows, arguments
        self.tokenizer = hf.AutoTokenizer.from_pretrained(folder)
        options = Options(pooling="mean") if arguments.head == "mean" else Options(pooling="first", between="tanh")
        self.choices = Choices(tuple(sorted({row.labels[0] for row in rows})), False, options)
        numbers = self.choices.numbers(rows)
        ids = self.tokenizer([row.text for row in rows], truncation=True, max_length=arguments.longest,
                             return_token_type_ids=False)["input_ids"]
        self.encoded: Encoded = [{"input_ids": one, "attention_mask": [1] * len(one), "labels": number,
                                  "length": len(one)} for one, number in zip(ids, numbers, strict=True)]
        special = torch.from_numpy(trained.vocabulary.special)
        self.peer = peer_network(folder, arguments.head, len(self.choices.labels), special, arguments.attention)

    # --- the same function ---

    def losses(self) -> tuple[float, float]:
        """The loss of the first batch without dropout, with a head that is the same and not zero: ours, theirs."""
        config = TuneConfig(steps=1, batch=2, longest=self.given.longest)
        way = ByHead.fit(self.trained, self.rows[:2], [], self.choices, config, None)
        network, head = copy.deepcopy(self.trained.network).eval(), way.model.head.eval()
        way.model.network = network
        theirs = copy.deepcopy(self.peer).eval()
        out = theirs.out if self.given.head == "mean" else theirs.classifier
        torch.manual_seed(1)
        with torch.no_grad():
            head.out.weight.normal_(0.0, 0.5)
            out.weight.copy_(head.out.weight)
            out.bias.copy_(head.out.bias)
            if head.dense is not None:
                head.dense.load_state_dict(theirs.bert.pooler.dense.state_dict())
            some = range(min(self.given.batch, len(self.rows)))
            examples = way.form.examples(self.trained, [self.rows[place] for place in some], way.sees)
            targets = torch.tensor([self.encoded[place]["labels"] for place in some])
            mine = F.cross_entropy(way.model(packed(examples, list(some), self.trained.device)), targets)
            batch = hf.DataCollatorWithPadding(self.tokenizer)(
                [{name: value for name, value in self.encoded[place].items() if name != "length"} for place in some])
            answered = theirs(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"])
            other = F.cross_entropy(answered["logits"], targets)
        return float(mine), float(other)

    # --- fine-tuning ---

    def ours(self, precision: str) -> float:
        """Seconds of one pass."""
        config = TuneConfig(epochs=1.0, batch=self.given.batch, by_length=True, longest=self.given.longest,
                            learning_rate=1e-4, precision=precision, head_rate=1e-4)
        start = clock()
        ByHead.fit(self.trained, self.rows, [], self.choices, config, None)
        return clock() - start

    def theirs(self, precision: str) -> float:
        with tempfile.TemporaryDirectory() as out:
            loop, watch = trainer(copy.deepcopy(self.peer), self.tokenizer, self.encoded, self.given.batch, precision,
                                  out)
            with contextlib.redirect_stdout(io.StringIO()):
                loop.train()
        return watch.seconds

    # --- prediction ---

    def predictors(self, precision: str) -> dict[str, Callable[[], Any]]:
        """A call of each that answers every text."""
        config = TuneConfig(steps=1, batch=2, longest=self.given.longest)
        way = ByHead.fit(self.trained, self.rows[:2], [], self.choices, config, None)
        if precision == "bfloat16":
            way.model.to(torch.bfloat16)
        ordered = Texts(sorted(self.encoded, key=lambda one: one["length"]))
        network = copy.deepcopy(self.peer)
        if precision == "bfloat16":
            network.to(torch.bfloat16)
        with tempfile.TemporaryDirectory() as out:
            loop, _ = trainer(network, self.tokenizer, self.encoded, self.given.batch, "float32", out)
        return {"ours": lambda: way.log_probabilities(self.rows), "theirs": lambda: loop.predict(ordered)}


def rounds(calls: dict[str, Callable[[], float]], times: int) -> dict[str, list[float]]:
    """Seconds that each call tells of itself, in turn."""
    seconds: dict[str, list[float]] = {name: [] for name in calls}
    for turn in range(times):
        for name in calls if turn % 2 == 0 else reversed(calls):
            seconds[name].append(calls[name]())
            print(f"round {turn + 1}: {name} {seconds[name][-1]:.2f} s", flush=True)
    return seconds


def chosen(path: Path, texts: int) -> list[Row]:
    """So many rows of a file, evenly over its labels' order."""
    task = kind("classify")
    every = read(path, task.roles, task.row, answers=True).items
    order = np.random.default_rng(0).permutation(len(every))[:texts]
    return [every[place] for place in order]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--from", dest="folder", type=Path, required=True, help="a folder with a BERT encoder")
    parser.add_argument("--data", type=Path, required=True, help="labelled texts")
    parser.add_argument("--name", required=True, help="of the result")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--updates", type=int, default=20)
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--longest", type=int, default=256)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--head", choices=("mean", "class"), default="mean")
    parser.add_argument("--attention", choices=("sdpa", "eager"), default="sdpa", help="the peer's")
    parser.add_argument("--precisions", nargs="+", choices=("float32", "bfloat16"), default=["float32", "bfloat16"])
    parser.add_argument("--only", choices=("tuning", "prediction"))
    parser.add_argument("--stock-allocator", action="store_true", help="do not keep memory, for anybody")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    hf.utils.logging.set_verbosity_error()
    logging.getLogger("accelerate").setLevel(logging.ERROR)
    kept = not arguments.stock_allocator and keep_memory()
    contest = Contest(load(arguments.folder), arguments.folder,
                      chosen(arguments.data, arguments.updates * arguments.batch), arguments)
    texts, lengths = len(contest.rows), [one["length"] for one in contest.encoded]
    print(f"{texts} texts of {min(lengths)} to {max(lengths)} tokens, {sum(lengths) / texts:.1f} in the mean; "
          f"{arguments.batch} in an update; allocator keeps memory for everyone: {'yes' if kept else 'no'}")
    print(*(f"{name}: {value}" for name, value in peers.hardware().items()), sep="; ")
    mine, other = contest.losses()
    print(f"loss of one batch: ours {mine:.6f}, theirs {other:.6f}")
    assert abs(mine - other) < 1e-4 * max(1.0, abs(other)), "the two sides do not compute the same"
    result: dict[str, Any] = {}
    for precision in arguments.precisions:
        for what in ("tuning", "prediction") if arguments.only is None else (arguments.only,):
            if what == "tuning":
                seconds = rounds({"ours": functools.partial(contest.ours, precision),
                                  "theirs": functools.partial(contest.theirs, precision)}, arguments.rounds)
            else:
                seconds = peers.interleave(contest.predictors(precision), arguments.rounds, warm=1, per_round=1,
                                           clock=clock)
            rates = {name: peers.median_rate(texts, some) for name, some in seconds.items()}
            value = peers.ratio(seconds["theirs"], seconds["ours"])
            print(*peers.table([(name, f"{rate:.1f}") for name, rate in rates.items()],
                               (f"{what}, {precision}", "examples/s")), f"times as fast: {value}", sep="\n")
            result[f"{what} {precision}"] = {"examples_per_second": rates, "ratio": value, "seconds": seconds}
    name = f"tune_speed_{arguments.name}" + ("" if arguments.head == "mean" else f"_{arguments.head}")
    print("written to", peers.save(name, {
        "texts": texts, "tokens": {"mean": sum(lengths) / texts, "most": max(lengths)}, "loss": [mine, other],
        "batch": arguments.batch, "head": arguments.head, "attention_of_peer": arguments.attention,
        "allocator_keeps_memory": kept, **result}))


if __name__ == "__main__":
    main()
