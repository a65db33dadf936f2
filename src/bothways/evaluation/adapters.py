"""Our networks as the models of lm-eval and mteb, in every paradigm that has what they ask for.

    import lm_eval
    from bothways.evaluation.adapters import harness
    lm_eval.simple_evaluate(model=harness("run/model"), tasks=["blimp"])

    import mteb
    from bothways.evaluation.adapters import Encoder
    mteb.evaluate(Encoder("run/model"), tasks)

Neither package is needed to import this module; `Harness` answers their calls without them.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from bothways.errors import BothwaysError
from bothways.evaluation.answers import TOKENS
from bothways.evaluation.conditional import continuations
from bothways.evaluation.features import text_features
from bothways.evaluation.questions import Way, ways
from bothways.evaluation.strided import documents
from bothways.families.trained import Trained

LONGEST_ANSWER = 256
"""Tokens written where a request names no limit."""


class Harness:
    """What lm-eval asks of a model: log-likelihoods of continuations and of whole texts, and written text.

    Requests are objects with `args`, as lm-eval makes them, or the plain tuples themselves.

    Args:
        model: a folder, or a network that is loaded already.
        mode: the way of calling it (`questions.ways`); an exact one when none, else the model's first.
        rule: a pseudo-likelihood of `pseudo.RULES` instead of the bound, where both sides are seen.
        samples: draws of the bound.
    Raises:
        BothwaysError: an unknown mode.
    """

    def __init__(self, model: str | Path | Trained, mode: str | None = None, rule: str | None = None,
                 samples: int = 16, tokens: int = TOKENS) -> None:
        self.trained = _loaded(model)
        self.way = _way(self.trained, mode)
        self.rule, self.samples, self.tokens = rule, samples, tokens

    def loglikelihood(self, requests: Sequence[Any], disable_tqdm: bool = True) -> list[tuple[float, bool]]:
        """(log p of the continuation given its context, whether it is what greedy writing gives) of each request.

        Text is read as one whole and cut where the context ends; spaces at the end of a context belong to what
        follows. A bound or a pseudo-likelihood is never greedy.
        """
        pairs = [self._pair(*_arguments(request)) for request in requests]
        found = continuations(self.trained, pairs, way=self.way, samples=self.samples, rule=self.rule,
                              tokens=self.tokens)
        return [(one.log_prob, bool(one.greedy)) for one in found]

    def loglikelihood_rolling(self, requests: Sequence[Any], disable_tqdm: bool = True) -> list[float]:
        """log p of each text, in windows of the model's length that share one token."""
        begin = self.trained.vocabulary.bos
        found = []
        for request in requests:
            (text, *_) = _arguments(request)
            ids = np.array([begin, *self._encode(text)], dtype=np.int64)
            if len(ids) < 2:
                found.append(0.0)
                continue
            scores = documents(self.trained, [ids], samples=self.samples, rule=self.rule, tokens=self.tokens,
                               off_mode=not self.way.trained)
            score = next(one for one in scores if one.mode == self.way.name and one.name == "document NLL")
            found.append(-score.value * (len(ids) - 1))
        return found

    def generate_until(self, requests: Sequence[Any], disable_tqdm: bool = True) -> list[str]:
        """What is written after each context, up to any of `until`, `max_gen_toks` tokens or the end.

        Raises:
            BothwaysError: a model that does not write from left to right.
        """
        from bothways.decoding import GenerateConfig, generate

        found = []
        for request in requests:
            context, options = _arguments(request)
            options = dict(options)
            until = options.get("until") or ()
            until = (until,) if isinstance(until, str) else tuple(until)
            drawn = bool(options.get("do_sample", float(options.get("temperature", 0.0) or 0.0) > 0))
            most = int(options.get("max_gen_toks", LONGEST_ANSWER))
            prompt = [self.trained.vocabulary.bos, *self._encode(context)]
            room = self.trained.config.position.length - most
            if room < 1:
                raise BothwaysError(f"a request wants {most} tokens written, but this model has "
                                    f"{self.trained.config.position.length} places: lower max_gen_toks")
            config = GenerateConfig(max_new_tokens=most, stop=until,
                                    temperature=float(options.get("temperature", 1.0) or 1.0) if drawn else 0.0)
            # a context too long loses its beginning
            (written,) = generate(self.trained, [prompt[-room:]], config, self.way.mode)
            text = written.text or ""
            found.append(text[len(context):] if text.startswith(context) else text)
        return found

    @property
    def tokenizer_name(self) -> str:
        """What tells caches of requests apart."""
        return f"bothways-{self.trained.tokenizer.fingerprint}"

    def _pair(self, context: str, continuation: str) -> tuple[list[int], list[int]]:
        cut = len(context.rstrip())
        context, continuation = context[:cut], context[cut:] + continuation
        whole, before = self._encode(context + continuation), self._encode(context)
        # a joint token that crosses the cut belongs to the continuation
        return (before, whole[len(before):]) if len(whole) > len(before) else (before, self._encode(continuation))

    def _encode(self, text: str) -> list[int]:
        return list(self.trained.tokenizer.encode(text, reserved=False))


def harness(model: str | Path | Trained, mode: str | None = None, rule: str | None = None, samples: int = 16) -> Any:
    """A model that lm-eval takes as it is: `Harness` as a subclass of its LM.

    Raises:
        BothwaysError: lm-eval is not installed.
    """
    try:
        from lm_eval.api.model import LM
    except ImportError as error:
        raise BothwaysError(f"this needs lm-eval, which cannot be imported ({error}): "
                            "pip install 'bothways[harness]'") from None

    class Adapted(Harness, LM):  # the package's own methods come second
        def __init__(self) -> None:
            LM.__init__(self)
            Harness.__init__(self, model, mode, rule, samples)

    return Adapted()


class Encoder:
    """What mteb asks of an encoder: a vector for each text, and how alike vectors are.

    Args:
        model: a folder, or a network that is loaded already.
        visibility: who sees whom when texts are read (`features.visibility_named`).
        longest: tokens of a text that are read.
    """

    mteb_model_meta: Any = None

    def __init__(self, model: str | Path | Trained, revision: str | None = None, *, device: str | None = None,
                 visibility: str | None = None, longest: int = 512, **others: Any) -> None:
        self.trained = _loaded(model)
        self.visibility, self.longest = visibility, min(longest, self.trained.config.position.length)
        if device is not None:
            self.trained.network.to(device)

    def encode(self, inputs: Iterable[Any], *, task_metadata: Any = None, hf_split: str = "", hf_subset: str = "",
               prompt_type: Any = None, **others: Any) -> np.ndarray:
        """Mean-pooled states of length 1: (n, D) float32 in the order given.

        Args:
            inputs: texts, or batches that hold them under "text", as mteb's loaders give.
        """
        texts: list[str] = []
        for batch in inputs:
            texts += [batch] if isinstance(batch, str) else list(batch["text"]) if isinstance(batch, Mapping) else batch
        vectors = text_features(self.trained, texts, visibility=self.visibility, longest=self.longest)
        return vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12)

    def similarity(self, first: Any, second: Any) -> Tensor:
        """Cosines of all pairs: (n, m)."""
        return _unit(first) @ _unit(second).T

    def similarity_pairwise(self, first: Any, second: Any) -> Tensor:
        """Cosines of rows that stand beside each other: (n,)."""
        return (_unit(first) * _unit(second)).sum(-1)


def _unit(vectors: Any) -> Tensor:
    return torch.nn.functional.normalize(torch.as_tensor(np.asarray(vectors), dtype=torch.float32), dim=-1)


def _loaded(model: str | Path | Trained) -> Trained:
    if isinstance(model, Trained):
        return model
    from bothways.families.folder import load

    return load(model)


def _way(trained: Trained, mode: str | None) -> Way:
    """The way of that name; an exact one, or else the first, when none is named."""
    found = ways(trained)
    if mode is None:
        return next((way for way in found if way.trained and way.kind == "exact"), found[0])
    for way in found:
        if way.name == mode:
            return way
    raise BothwaysError(f"this model cannot be called '{mode}': choose {', '.join(repr(way.name) for way in found)}")


def _arguments(request: Any) -> tuple[Any, ...]:
    """The arguments of a request, or the request itself where it is a tuple or a text."""
    given = getattr(request, "args", request)
    return given if isinstance(given, tuple) else (given,)
