"""The public surface: a folder becomes a model that gives logits, writes, fills and embeds.

    >>> model = from_pretrained("runs/notes/model")
    >>> model.generate("Once upon a time", max_new_tokens=40)

The same calls work for every objective: which decoding writes, and who may look at whom, the folder says.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal, overload

import numpy as np
import torch
from torch import Tensor

from bothways import decoding, families, model, objectives
from bothways.batch import Vocabulary, pack
from bothways.decoding import GenerateConfig, Prefixes, Written
from bothways.decoding.interpolate import interpolate
from bothways.errors import BothwaysError, nearest
from bothways.evaluation.candidates import FillScore, score_fills
from bothways.families import extend
from bothways.families import folder as folders
from bothways.families.foreign import ForeignTokenizer
from bothways.families.remote import Remote, remote
from bothways.families.trained import Trained
from bothways.model import ModelConfig
from bothways.model.fitted import fitted
from bothways.objectives.base import Mode, Objective, ask, example, reading
from bothways.text.tokenizer import Tokenizer
from bothways.visibility import Visibility, bidirectional

__all__ = ["Model", "Remote", "description", "extend_vocabulary", "from_pretrained", "remote"]

Ids = Tensor | np.ndarray | Sequence[int] | Sequence[Sequence[int]]
"""Token ids: (L,) of one text or (B, L) of several."""
Texts = str | Sequence[str]
POOLINGS = ("mean", "first", "pooled")
"""How the states of a text become one vector."""
ROW = 8192
"""Tokens read in one pass when many texts are embedded."""


def from_pretrained(folder: str | Path, device: torch.device | str | None = None,
                    dtype: torch.dtype | None = None) -> Model:
    """The model in a folder: one that `save_pretrained` or training wrote, or a plain one of a known family.

    Args:
        device: where the weights go, the CPU when none.
        dtype: the number format to compute in, the file's when none.
    Raises:
        BothwaysError: a file that is missing, truncated, of another version or of an unknown family.
    """
    return Model(folders.load(folder, device, dtype))


def extend_vocabulary(model: Model, tokens: Sequence[str] | None = None) -> Model:
    """The model with more tokens in tokenizer, embedding and head: see `families.extend.extend_vocabulary`.

    Args:
        tokens: their names; all reserved ones that are missing when none, so that it can train with any objective.
    """
    return Model(extend.extend_vocabulary(model.trained, tokens))


class Model:
    """A trained network with its tokenizer and its objective."""

    def __init__(self, trained: Trained) -> None:
        self.trained = trained
        trained.network.eval()

    # --- what it is ---

    @property
    def config(self) -> ModelConfig:
        """The network's choices."""
        return self.trained.config

    @property
    def objective(self) -> Objective:
        """What it was trained to do."""
        return self.trained.objective

    @property
    def tokenizer(self) -> Tokenizer:
        """Text to ids and back."""
        return self.trained.tokenizer

    @property
    def vocabulary(self) -> Vocabulary:
        """Facts about token ids."""
        return self.trained.vocabulary

    @property
    def modes(self) -> tuple[str, ...]:
        """The names that `visibility` may take."""
        return tuple(mode.name for mode in self.objective.modes)

    @property
    def device(self) -> torch.device:
        """Where the weights lie."""
        return self.trained.device

    def to(self, device: torch.device | str | None = None, dtype: torch.dtype | None = None) -> Model:
        """The same model elsewhere or in another number format; changes this one and returns it."""
        self.trained.network.to(device=device, dtype=dtype)
        return self

    def save_pretrained(self, folder: str | Path, layout: str = "auto", dtype: torch.dtype | None = None) -> Path:
        """Write the folder, whole or not at all: see `families.folder.save`."""
        return folders.save(self.trained, folder, layout, dtype)

    def with_objective(self, objective: str | Mapping[str, object]) -> Model:
        """The same network, to be trained on by another objective: with its companions, and a head if it has none.

        Args:
            objective: a spec, as for `objectives.make`.
        Raises:
            BothwaysError: an objective for another stack, or one that this tokenizer cannot serve.
        """
        made = objectives.make(objective, self.vocabulary)
        if made.stack != self.config.stack:
            raise BothwaysError(f"this network has {self.config.stack}, but the objective '{made.name}' is for "
                                f"{made.stack}")
        network = fitted(self.trained.network, made.companions)
        return Model(replace(self.trained, network=network, objective=made))

    def describe(self) -> str:
        """Sizes, costs, modes and export, as printed by `bothways describe`."""
        return description(self.config, self.objective, layout=self.trained.layout)

    def __repr__(self) -> str:
        return (f"Model({self.objective.name}, {self.config.stack}, {self.config.shape.width} wide, "
                f"modes {', '.join(self.modes)})")

    # --- logits ---

    @torch.no_grad()
    def logits(self, ids: Ids, source: Ids | None = None, visibility: str | Visibility | None = None,
               segments: Ids | None = None) -> Tensor:
        """Scores over the vocabulary at every place.

        Args:
            ids: (L,) or (B, L) token ids as the network reads them: no `<bos>` is added.
            source: (M,) or (B, M) what the other of two towers reads.
            visibility: the name of a trained mode, or any visibility value; none stands for the only trained one.
            segments: (L,) or (B, L) which segment each token is of (BERT's token types); all of the first when none.
        Returns:
            (B, L, V) float, B = 1 for a single text. What a place speaks of (itself or the next token) the mode says.
        Raises:
            BothwaysError: several trained visibilities and none named; a source for one tower or none for two; ids
                outside the vocabulary, or more of them than the network has places; segments for a network that knows
                none, or not one for each token; a network that gives states only.
        """
        rows = self._rows(ids, "ids")
        sources = None if source is None else self._rows(source, "source")
        facts = None if segments is None else self._segments(rows, segments)
        # texts of one length keep their order, so their passes stand one behind the other
        passes = [logits for _, logits in self._passes(rows, sources, visibility, ROW, facts)]
        return (passes[0] if len(passes) == 1 else torch.cat(passes)).unflatten(0, (len(rows), -1))

    @torch.no_grad()
    def logits_of_each(self, ids: Sequence[Ids], source: Sequence[Ids] | None = None,
                       visibility: str | Visibility | None = None, batch_tokens: int = ROW) -> list[Tensor]:
        """As `logits`, for texts of different lengths, which travel packed and are never padded.

        Args:
            ids: (L_i,) token ids of each text. source: of each, for two towers.
            batch_tokens: how many tokens (of both towers) are read in one pass; one text alone may have more.
        Returns:
            for each text, in order, (L_i, V).
        """
        sources = None if source is None else [self._rows(one, "source")[0] for one in source]
        rows = [self._rows(one, "ids")[0] for one in ids]
        found: list[Tensor] = [torch.empty(0)] * len(rows)
        for group, logits in self._passes(rows, sources, visibility, batch_tokens):
            for i, part in zip(group, logits.split([len(rows[i]) for i in group]), strict=True):
                found[i] = part
        return found

    def _passes(self, rows: Sequence[np.ndarray], sources: Sequence[np.ndarray] | None,
                visibility: str | Visibility | None, budget: int,
                facts: Sequence[Mapping[str, np.ndarray]] | None = None) -> Iterator[tuple[list[int], Tensor]]:
        """Texts of like length read together: which, and the scores (N, V) of all their tokens."""
        sees, two = self._visibility(visibility), self.config.stack == "two towers"
        if (sources is not None) != two:
            raise BothwaysError("this network has two towers: give what the other one reads as `source`" if two else
                                "this network has one tower and reads no source: leave `source` out")
        if sources is not None and len(sources) != len(rows):
            raise BothwaysError(f"ids hold {len(rows)} texts and source {len(sources)}: give one source for each text")
        others = [None] * len(rows) if sources is None else sources
        network, head = self.trained.network, self.objective.modes[0].head
        lengths = [len(row) + (0 if other is None else len(other)) for row, other in zip(rows, others, strict=True)]
        for group in _groups(lengths, budget):
            # 1. every text a document of one row
            (packed,) = pack([reading(rows[i], sees, False, **(facts[i] if facts else {}))
                              if (other := others[i]) is None else
                              example(rows[i], sees, source=example(other, bidirectional), cross=bidirectional)
                              for i in group])
            # 2. one pass, by whoever names tokens
            packed = replace(packed, asks=(ask(np.arange(len(packed)), packed.inputs.numpy(), head=head),))
            yield group, self.objective.logits(network, network(packed.to(self.device)).states, head)

    # --- writing ---

    @overload
    def generate(self, prompt: str, max_new_tokens: int = ..., *, stream: Literal[True], **options: Any
                 ) -> Iterator[str]: ...
    @overload
    def generate(self, prompt: str, max_new_tokens: int = ..., *, stream: Any = ..., **options: Any) -> str: ...
    @overload
    def generate(self, prompt: list[str], max_new_tokens: int = ..., *, stream: Any = ..., **options: Any
                 ) -> list[str]: ...
    @overload
    def generate(self, prompt: Tensor, max_new_tokens: int = ..., *, stream: Any = ..., **options: Any) -> Tensor: ...

    def generate(self, prompt: Texts | Tensor, max_new_tokens: int = 64, *, visibility: str | Visibility | None = None,
                 stop: Texts = (), stream: bool | Callable[[str], None] = False, draft: Model | None = None,
                 prefixes: Prefixes | None = None, **options: Any) -> str | list[str] | Tensor | Iterator[str]:
        """Write on after a prompt; the result is of the prompt's kind and begins with it (an answer on a new line).

        Args:
            prompt: a text, several, or a (L,) or (B, L) tensor of ids, which are read exactly as they stand (a text
                gets its `<bos>`).
            max_new_tokens: the most tokens to write.
            visibility: the name of a trained mode; needed where there are several.
            stop: strings that end the text and are not part of it.
            stream: true returns an iterator of the new text in pieces of whole characters; a function is called with
                each piece. One text at a time.
            draft: a smaller model with the same tokenizer, whose proposals make writing from left to right faster
                without changing what is written.
            prefixes: a `decoding.Prefixes`, which keeps what was read for later calls with the same beginning.
            options: temperature (0 is greedy), top_k, top_p, min_p, typical_p, the penalties, samples, seed; beams or
                contrast; regex, json_schema, choices or grammar; steps, block and order for models that fill many
                places at once; think_tokens and hide_thought for models that think before they answer. See
                `decoding.GenerateConfig`.
        Returns:
            text, texts, or a tensor (L + n,) or (B, L + n), shorter rows filled up with `<pad>` on the right; with
            `samples` above 1 so many of each prompt, one after the other, in a list or a tensor (B * samples, L + n).
        Raises:
            BothwaysError: an unknown or impossible option, a prompt too long for the network.
        """
        mode = self._mode(visibility)
        config = self._config(max_new_tokens=max_new_tokens, stop=(stop,) if isinstance(stop, str) else tuple(stop),
                              begin=not isinstance(prompt, Tensor), **options)
        helper = None if draft is None else draft.trained
        # 1. ids in, ids out
        if isinstance(prompt, Tensor):
            if stream:
                raise BothwaysError("only text is streamed: give the prompt as a string")
            rows = [row.tolist() for row in self._rows(prompt, "the prompt", empty=True)]
            written = decoding.generate(self.trained, rows, config, mode, None, helper, prefixes)
            joined = [[*rows[number // config.samples], *new.ids] for number, new in enumerate(written)]
            return self._padded(joined, prompt if config.samples == 1 or prompt.dim() == 2 else prompt[None])
        # 2. text in, text out
        texts = [prompt] if isinstance(prompt, str) else list(prompt)
        if stream and not isinstance(prompt, str):
            raise BothwaysError("one text is streamed at a time: give the prompt as a string")
        rows = self.tokenizer.encode_batch(texts)
        if stream is True:
            return decoding.stream(self.trained, rows[0], config, mode, helper, prefixes)
        listen = None if not callable(stream) else lambda _, piece: stream(piece)  # type: ignore[operator]
        written = decoding.generate(self.trained, rows, config, mode, listen, helper, prefixes)
        between = "\n" if self.objective.replies else ""
        results = [texts[number // config.samples] + between + (new.text or "") for number, new in enumerate(written)]
        return results[0] if isinstance(prompt, str) and config.samples == 1 else results

    def chat(self, messages: str | Sequence[Mapping[str, str]], max_new_tokens: int = 256, **options: Any) -> str:
        """The answer to a conversation, told as the folder's chat template says.

        Args:
            messages: what a user says, or turns: {"role": "user", "content": "..."} and so on.
            max_new_tokens: the most tokens of the answer, which ends with `<eos>`.
            options: as for `generate`.
        Raises:
            BothwaysError: the model has no chat template, or an option of `generate` is wrong.
        """
        turns = [{"role": "user", "content": messages}] if isinstance(messages, str) else list(messages)
        if not isinstance(self.tokenizer, ForeignTokenizer):
            raise BothwaysError("this model has no chat template: call `generate`"
                                + (", which answers" if self.objective.replies else ""))
        # the template holds what begins a text
        ids = self.tokenizer.encode(self.tokenizer.chat(turns))
        config = self._config(max_new_tokens=max_new_tokens, begin=False, **options)
        (written,) = decoding.generate(self.trained, [ids], config, self._mode(None))
        return (written.text or "").strip()

    def write(self, prompts: Sequence[str], config: GenerateConfig | None = None,
              visibility: str | Visibility | None = None, draft: Model | None = None,
              prefixes: Prefixes | None = None) -> list[Written]:
        """As `generate`, with all there is to know: new ids, log probabilities, passes, seconds, what stopped it."""
        return decoding.generate(self.trained, self.tokenizer.encode_batch(list(prompts)), config,
                                 self._mode(visibility), None, None if draft is None else draft.trained, prefixes)

    @overload
    def fill(self, text: str, max_new_tokens: int = ..., **options: Any) -> str: ...
    @overload
    def fill(self, text: list[str], max_new_tokens: int = ..., **options: Any) -> list[str]: ...
    @overload
    def fill(self, text: Tensor, max_new_tokens: int = ..., **options: Any) -> Tensor: ...

    def fill(self, text: Texts | Tensor, max_new_tokens: int = 64, *, visibility: str | Visibility | None = None,
             **options: Any) -> str | list[str] | Tensor:
        """Fill every `<mask>`: one token each, or a span of any length each with two towers.

        A space before a `<mask>` belongs to the word that is missing, so it is left out (except with bytes as tokens).

        Args:
            text: a text, several, or a (L,) or (B, L) tensor of ids, read exactly as they stand by one tower.
            max_new_tokens: with two towers, how much longer than the text the answer may be.
            visibility: the name of a trained mode; the one that fills when none.
            options: as for `generate`; decoding, steps, order, guidance and max_blank_tokens where a blank is one
                token.
        Returns:
            the filled text, texts or ids.
        Raises:
            BothwaysError: a model that only looks left, a text without `<mask>`.
        """
        mode = None if visibility is None else self._mode(visibility)
        config = self._config(max_new_tokens=max_new_tokens, begin=not isinstance(text, Tensor), **options)
        if isinstance(text, Tensor):
            rows = [row.tolist() for row in self._rows(text, "the text")]
            return self._padded([new.ids for new in decoding.fill(self.trained, rows, config, mode)], text)
        texts = [text] if isinstance(text, str) else list(text)
        filled = [new.text or "" for new in decoding.fill(self.trained, self._with_blanks(texts), config, mode)]
        return filled[0] if isinstance(text, str) else filled

    def write_in(self, texts: Sequence[str], config: GenerateConfig | None = None,
                 visibility: str | Visibility | None = None) -> list[Written]:
        """As `fill`, with all there is to know: ids, log probabilities, what each pass wrote, seconds."""
        mode = None if visibility is None else self._mode(visibility)
        return decoding.fill(self.trained, self._with_blanks(texts), config, mode)

    def score_fills(self, text: str, candidates: Sequence[str | Sequence[str]],
                    visibility: str | Visibility | None = None) -> list[FillScore]:
        """What each candidate is worth in the text's `<mask>`, the best first; the estimator says what is scored.

        Args:
            candidates: words for the blank, or for several blanks as many strings each. A space goes before a word
                where the text has one before its blank.
            visibility: the name of a trained mode; one that fills when none.
        Raises:
            BothwaysError: no blank, or a candidate that does not fit.
        """
        if not candidates:
            raise BothwaysError("there are no candidates to score: give one at least")
        several = [[one] if isinstance(one, str) else list(one) for one in candidates]
        spaced = [text[:found.start()].endswith(" ") for found in re.finditer("<mask>", text)]
        if getattr(self.tokenizer, "kind", "") in ("bytes", "words"):
            spaced = [False for _ in spaced]
        ids = [[self.tokenizer.encode((" " if before and not word.startswith(" ") else "") + word)
                for word, before in zip(words, [*spaced, *[False] * len(words)], strict=False)] for words in several]
        (read,) = self._with_blanks([text])
        return score_fills(self.trained, read, ids, [" … ".join(words) for words in several],
                           None if visibility is None else self._mode(visibility))

    def interpolate(self, one: str, other: str, steps: int = 5, max_new_tokens: int = 64) -> list[str]:
        """The texts written at `steps` places on the way from one text to another, both included.

        For models with a latent between their towers (variational); each text is the likeliest token after token.

        Raises:
            BothwaysError: a model without a latent, or fewer than 2 steps.
        """
        first, last = self.tokenizer.encode_batch([one, other])
        between = interpolate(self.trained, first, last, steps, max_new_tokens)
        return [self.tokenizer.decode(ids) for ids in between]

    # --- reading ---

    @torch.no_grad()
    def embed(self, texts: Texts, layer: int = -1, visibility: str | Visibility | None = None,
              batch_tokens: int = ROW, pooling: Literal["mean", "first", "pooled"] = "mean") -> Tensor:
        """One vector for each text: by default the mean of a layer's states over the text's own tokens.

        Two towers are read by the one that reads. Texts longer than the network has places are cut.

        Args:
            layer: -1 for the last states behind the norm, 0 for the embedding, k for what layer k gives.
            visibility: the name of a trained mode, or a value; needed where several were trained.
            batch_tokens: how many tokens are packed into one pass.
            pooling: "mean" over the text's own tokens; "first", the state of its first token; "pooled", what a trained
                pooler makes of that state (BERT, ALBERT).
        Returns:
            (n, D) float32 on the CPU, in the order of the texts.
        Raises:
            BothwaysError: a layer or a pooling there is not, or a network without a pooler.
        """
        if pooling not in POOLINGS:
            raise BothwaysError(f"pooling is '{pooling}' {nearest(str(pooling), POOLINGS)}")
        texts = [texts] if isinstance(texts, str) else list(texts)
        two = self.config.stack == "two towers"
        sees = bidirectional if two and visibility is None else self._visibility(visibility)
        layers = self.config.shape.source_layers if two else self.config.shape.layers
        if not -layers - 1 <= layer <= layers:
            raise BothwaysError(f"layer is {layer}, but this network has the layers 0 (embedding) to {layers}, or -1")
        vocabulary, most = self.vocabulary, self.config.position.length
        rows = [np.array([vocabulary.bos, *ids, vocabulary.eos][:most], dtype=np.int64)
                for ids in self.tokenizer.encode_batch(texts)]
        pooled = torch.zeros(len(rows), self.config.shape.width)
        # 1. texts of like length together, as many as fit
        for group in _groups([len(row) for row in rows], batch_tokens):
            (packed,) = pack([reading(rows[i], sees) for i in group])
            output = self.trained.network.encode(packed.to(self.device), hidden=layer != -1)
            states = output.states if layer == -1 else (output.hidden or ())[layer]
            lengths = [len(rows[i]) for i in group]
            # 2. the mean over ordinary tokens, or over all where there are none; or what the first one says
            if pooling != "mean":
                first = states[torch.tensor([0, *np.cumsum(lengths)[:-1].tolist()], device=states.device)]
                first = self.trained.network.pooled(first) if pooling == "pooled" else first
                pooled[torch.tensor(group)] = first.float().cpu()
                continue
            for i, part in zip(group, states.float().cpu().split(lengths), strict=True):
                own = torch.from_numpy(~vocabulary.special[rows[i]])
                pooled[i] = part[own].mean(0) if bool(own.any()) else part.mean(0)
        return pooled

    # --- what calls share ---

    def _with_blanks(self, texts: Sequence[str]) -> list[list[int]]:
        """Texts with blanks as ids; a space before a blank belongs to the missing word, but with bytes as tokens."""
        spaced = getattr(self.tokenizer, "kind", "") != "bytes"
        return self.tokenizer.encode_batch([re.sub(r" (?=<mask>)", "", text) if spaced else text for text in texts])

    def _segments(self, rows: Sequence[np.ndarray], segments: Ids) -> list[dict[str, np.ndarray]]:
        """Which segment each token of each text is of, as a fact to tell the network."""
        if not any(one.kind == "embedding" and one.name == "segment" for one in self.config.companions):
            raise BothwaysError("this network knows no segments: leave `segments` out")
        table = np.asarray(segments)
        table = table[None] if table.ndim == 1 else table
        if table.shape != (len(rows), len(rows[0])):
            raise BothwaysError(f"segments have the shape {table.shape}, but there are {len(rows)} texts of "
                                f"{len(rows[0])} tokens: give one for each token")
        return [{"segment": row} for row in table]

    def _mode(self, visibility: str | Visibility | None) -> Mode:
        """A trained mode, by name or by its visibility."""
        if isinstance(visibility, Visibility):
            for mode in self.objective.modes:
                if mode.visibility == visibility:
                    return mode
            raise BothwaysError(f"this model was not trained to write with '{visibility!r}' "
                                + nearest(repr(visibility), self.modes))
        return self.trained.mode(visibility)

    def _visibility(self, visibility: str | Visibility | None) -> Visibility:
        return visibility if isinstance(visibility, Visibility) else self.trained.mode(visibility).visibility

    def _config(self, **options: Any) -> GenerateConfig:
        """The options of a call, with unknown ones refused by name."""
        known = list(GenerateConfig.__dataclass_fields__)
        unknown = [f"'{name}' {nearest(name, known)}" for name in options if name not in known]
        if unknown:
            raise BothwaysError(f"unknown option {' and '.join(unknown)}")
        if isinstance(options.get("json_schema"), Mapping):
            options["json_schema"] = json.dumps(options["json_schema"])
        return replace(GenerateConfig(), **options)

    def _rows(self, ids: Ids, what: str, empty: bool = False) -> list[np.ndarray]:
        """Ids as one array a text, checked."""
        if not isinstance(ids, (Tensor, np.ndarray)):
            ids = torch.tensor(ids, dtype=torch.long)
        table = ids.cpu().numpy() if isinstance(ids, Tensor) else ids
        if table.ndim not in (1, 2) or not np.issubdtype(table.dtype, np.integer):
            raise BothwaysError(f"{what} must be whole numbers of shape (L,) or (B, L), not {table.dtype} of shape "
                                f"{tuple(table.shape)}")
        table = table[None] if table.ndim == 1 else table
        if not table.size and not empty:
            begin = self.vocabulary.ids.get("<bos>")
            raise BothwaysError(f"{what} hold no token: give at least one, such as <bos> ({begin})")
        size, most = self.config.shape.vocabulary, self.config.position.length
        if table.size and not (table.min() >= 0 and table.max() < size):
            worst = table.max() if table.max() >= size else table.min()
            raise BothwaysError(f"{what} hold the token {worst}, but the vocabulary has the ids 0 to {size - 1}")
        if table.shape[1] > most:
            raise BothwaysError(f"{what} have {table.shape[1]} tokens, but this network has places for {most}: "
                                "shorten them")
        return [row.astype(np.int64) for row in table]

    def _padded(self, rows: list[list[int]], like: Tensor) -> Tensor:
        """Rows of ids as a tensor of as many dimensions as `like`."""
        longest = max(map(len, rows), default=0)
        pad = self.vocabulary.ids.get("<pad>", self.vocabulary.ids.get("<eos>", 0))
        table = torch.tensor([[*row, *[pad] * (longest - len(row))] for row in rows], dtype=torch.long,
                             device=like.device)
        return table[0] if like.dim() == 1 else table


def description(config: ModelConfig, objective: Objective, window: int = 128, layout: str | None = None) -> str:
    """A network and its objective in words and numbers: what `bothways describe` prints.

    Args:
        window: tokens of a text, for the costs of attention.
        layout: the family it was read from, which is named where several fit.
    """
    fits, reason = families.fitting(config, objective, layout), families.obstacle(config, objective)
    # 1. what it was trained to do
    lines = [f"objective     {objective.name}: {objective.summary}"]
    for mode in objective.modes:
        speaks = "of the token there" if mode.predicts == "here" else "of the token after it"
        lines.append(f"mode          {mode.name}: {mode.visibility!r}; a state speaks {speaks}; "
                     f"likelihood {mode.likelihood}")
    # 2. the network, and which class of `transformers` reads it; that depends on the objective too
    lines += model.describe(config, objective.profile, window).splitlines()
    lines.append(f"transformers  {fits.written(config)[0] if fits is not None else f'no class: {reason}'}")
    return "\n".join(lines)


def _groups(lengths: Sequence[int], budget: int) -> list[list[int]]:
    """Indices in order of length, cut where the next text would not fit into `budget` tokens."""
    groups: list[list[int]] = []
    filled = budget + 1
    for i in sorted(range(len(lengths)), key=lambda i: lengths[i]):
        if filled + lengths[i] > budget:
            groups.append([])
            filled = 0
        groups[-1].append(i)
        filled += lengths[i]
    return groups
