"""Decodings that fill places: what is kept stays, schedules are the papers', and every stack can fill."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from tests.decoding.small import CONTENDERS, TOKENIZER, tiny

from bothways import decoding
from bothways.decoding import GenerateConfig, blanks
from bothways.decoding.blanks import make_blanks
from bothways.decoding.common import blocked_tokens
from bothways.decoding.diffusion import diffuse
from bothways.decoding.mask_predict import mask_predict
from bothways.errors import BothwaysError

MASK, BOS, EOS = TOKENIZER.vocabulary.mask, TOKENIZER.vocabulary.bos, TOKENIZER.vocabulary.eos
TEXTS = [
    TOKENIZER.encode("the<mask> sat on<mask><mask>"),
    TOKENIZER.encode("<mask> dog"),
    TOKENIZER.encode("a<mask>") * 4,
]


def trace(filler, objective: str, config: GenerateConfig, monkeypatch: pytest.MonkeyPatch, texts=TEXTS):  # type: ignore[no-untyped-def]
    """What each pass saw: for every text its ids and what was hidden."""
    trained, seen = tiny(objective), []
    module = __import__(filler.__module__, fromlist=["predict"])

    def watched(trained, waiting, *rest):  # type: ignore[no-untyped-def]
        seen.append([(text.ids.copy(), text.hidden.copy(), text) for text in waiting])
        return blanks.predict(trained, waiting, *rest)

    monkeypatch.setattr(module, "predict", watched)
    made = make_blanks(texts, MASK, config)
    filler(trained, made, trained.objective.modes[0], blocked_tokens(trained, ()), config)
    return made, seen


@pytest.mark.parametrize("order", ["confidence", "random"])
@pytest.mark.parametrize("steps", [None, 1, 3, 99])
def test_diffusion_never_changes_what_it_kept(order: str, steps: int | None, monkeypatch: pytest.MonkeyPatch) -> None:
    config = GenerateConfig(temperature=1.0, steps=steps, order=order)
    texts = [[BOS, *[MASK] * 10, 50, *[MASK] * 3], [60, MASK]]
    made, seen = trace(diffuse, "diffusion", config, monkeypatch, texts)
    for text, total in zip(made, (13, 1), strict=True):
        passes = [(ids, hidden) for entry in seen for ids, hidden, one in entry if one is text]
        assert len(passes) == min(steps or total, total)
        left = [int(hidden.sum()) for _, hidden in passes]
        assert left == [total - total * turn // len(passes) for turn in range(len(passes))]
        for ids, hidden in passes:
            assert (ids[~hidden] == text.ids[~hidden]).all()
        assert not text.hidden.any()
        assert MASK not in text.ids


def test_diffusion_keeps_the_most_certain(monkeypatch: pytest.MonkeyPatch) -> None:
    texts = [[BOS, *[MASK] * 6]]
    (text,), seen = trace(diffuse, "diffusion", GenerateConfig(steps=2), monkeypatch, texts)
    trained = tiny("diffusion")
    fresh = make_blanks(texts, MASK, GenerateConfig())
    (answer,) = blanks.predict(
        trained, fresh, trained.objective.modes[0], blocked_tokens(trained, ()), GenerateConfig()
    )
    places, tokens, logprobs, _ = answer
    kept = places[np.argsort(-logprobs)[:3]]
    assert set(kept) == set(np.flatnonzero(~seen[1][0][1])) - {0}
    assert (text.ids[kept] == tokens[np.argsort(-logprobs)[:3]]).all()


@pytest.mark.parametrize("steps", [1, 4, None])
def test_mask_predict_hides_the_least_certain_again(steps: int | None, monkeypatch: pytest.MonkeyPatch) -> None:
    made, seen = trace(mask_predict, "masked", GenerateConfig(steps=steps), monkeypatch, [[BOS, *[MASK] * 12]])
    turns = min(steps or 10, 12)
    assert len(seen) == turns
    assert [int(entry[0][1].sum()) for entry in seen] == [12] + [12 * (turns - t) // turns for t in range(1, turns)]
    assert MASK not in made[0].ids


@pytest.mark.parametrize("key", [key for key in CONTENDERS if key != "causal"])
def test_a_batch_is_each_alone(key: str) -> None:
    trained = tiny(CONTENDERS[key])
    together = decoding.fill(trained, TEXTS, GenerateConfig(max_new_tokens=12, seed=3, temperature=0.8))
    for i, text in enumerate(together):
        (alone,) = decoding.fill(trained, [TEXTS[i]], GenerateConfig(max_new_tokens=12, seed=3 + i, temperature=0.8))
        assert alone.ids == text.ids
    assert not any(MASK in text.ids for text in together)


@pytest.mark.parametrize("key", ["masked", "diffusion", "hybrid"])
def test_filling_changes_blanks_only_and_one_token_each(key: str) -> None:
    for text, filled in zip(TEXTS, decoding.fill(tiny(CONTENDERS[key]), TEXTS), strict=True):
        assert len(filled.ids) == len(text)
        assert [a for a, b in zip(filled.ids, text, strict=True) if b != MASK] == [b for b in text if b != MASK]
        assert not TOKENIZER.vocabulary.special[filled.ids].any()
        assert filled.stopped_by == "filled"
        assert len(filled.logprobs) == text.count(MASK)


def test_spans_keep_the_text_around_them() -> None:
    for text, filled in zip(TEXTS, decoding.fill(tiny("span-corruption"), TEXTS), strict=True):
        rest = iter(filled.ids)
        assert all(token in rest for token in text if token != MASK)


def test_the_bidirectional_mode_of_a_hybrid_reads_one_place_before() -> None:
    trained = tiny(CONTENDERS["hybrid"])
    (filled,) = decoding.fill(trained, [[60, MASK, 70]])
    ids = torch.tensor([BOS, 60, MASK, 70, EOS])
    mode = trained.mode("bidirectional")
    example = trained.objective.blank(ids.numpy(), np.array([False, False, True, False, False]), mode)
    with torch.no_grad():
        logits = trained.network.logits(trained.network(example).states[1:2])[0]
    logits[torch.from_numpy(TOKENIZER.vocabulary.special)] = -torch.inf
    assert filled.ids == [60, int(logits.argmax()), 70]


@pytest.mark.parametrize("key", ["masked", "diffusion", "hybrid"])
@pytest.mark.parametrize("block", [None, 4])
def test_continuing_by_filling(key: str, block: int | None) -> None:
    trained = tiny(CONTENDERS[key])
    mode = trained.objective.modes[-1]
    prompts = [TOKENIZER.encode("the cat"), [], TOKENIZER.encode("a dog ran to")]
    config = GenerateConfig(max_new_tokens=10, temperature=1.2, block=block, seed=1)
    together = decoding.generate(trained, prompts, config, mode)
    for i, text in enumerate(together):
        alone = decoding.generate(
            trained, [prompts[i]], GenerateConfig(max_new_tokens=10, temperature=1.2, block=block, seed=1 + i), mode
        )[0]
        assert alone.ids == text.ids
        assert len(text.ids) == len(text.logprobs) <= 10
        assert text.text == TOKENIZER.decode(text.ids)
        assert not TOKENIZER.vocabulary.special[text.ids].any()
    heard: list[str] = []
    decoding.generate(trained, prompts[:1], config, mode, lambda _, piece: heard.append(piece))
    assert "".join(heard) == together[0].text


def test_an_end_inside_a_block_closes_the_text() -> None:
    trained = tiny("diffusion")
    texts = decoding.generate(trained, [[]] * 60, GenerateConfig(max_new_tokens=30, temperature=4.0, steps=5))
    assert {text.stopped_by for text in texts} == {"end", "length"}
    assert all((len(text.ids) < 30) == (text.stopped_by == "end") for text in texts)


def test_a_full_network_is_said() -> None:
    trained = tiny("diffusion")
    (text,) = decoding.generate(trained, [[50] * 90], GenerateConfig(max_new_tokens=20, temperature=1.0, steps=1))
    assert (len(text.ids), text.stopped_by) == (5, "positions")
    with pytest.raises(BothwaysError, match="prompt 1 has 97 tokens, but this network has places for 96, and what"):
        decoding.generate(trained, [[50] * 96])
    with pytest.raises(BothwaysError, match="text 1 has 102 tokens, but this network has places for 96"):
        decoding.fill(trained, [[MASK] * 100])


def test_refusals() -> None:
    with pytest.raises(
        BothwaysError, match=r"only left in its mode 'causal', so it cannot fill blanks: it can continue"
    ):
        decoding.fill(tiny("next-token"), TEXTS)
    hybrid = tiny(CONTENDERS["hybrid"])
    with pytest.raises(BothwaysError, match="fill in the mode 'bidirectional'"):
        decoding.fill(hybrid, TEXTS, mode=hybrid.mode("causal"))
    with pytest.raises(BothwaysError, match="'causal' and 'bidirectional': say which"):
        decoding.generate(hybrid, [[50]])
    with pytest.raises(BothwaysError, match="text 2 has no <mask>"):
        decoding.fill(tiny("masked"), [[MASK], [50]])
    with pytest.raises(BothwaysError, match="a blank at the very beginning cannot be filled"):
        decoding.fill(hybrid, [[MASK, 50]], GenerateConfig(begin=False))


def test_an_unknown_decoding_lists_the_known_ones(monkeypatch: pytest.MonkeyPatch) -> None:
    trained = tiny("masked")
    monkeypatch.setattr(type(trained.objective), "decoding", "telepathy")
    with pytest.raises(
        BothwaysError, match=r"decoding 'telepathy' \(known: block_diffusion, diffusion, gibbs, infill, left_to_right"
    ):
        decoding.generate(trained, [[50]])
