"""The same numbers as lm-eval's and minicons' own scorers, where they are installed."""

from __future__ import annotations

import numpy as np
import pytest
from tests.evaluation.small import small

from bothways.evaluation.adapters import Harness
from bothways.evaluation.pseudo import pseudo_nats
from bothways.evaluation.questions import ways
from bothways.evaluation.strided import documents
from bothways.families.folder import load, save
from bothways.text.tokenizer import Tokenizer

transformers = pytest.importorskip("transformers")
TEXTS = ["the unbelievable dogs bark at the cat near a house", "a cat sees the dogs"] * 5
SENTENCES = ["the unbelievable dogs bark", "a cat sees"]


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    folder = tmp_path_factory.mktemp("peers")
    tokenizer = Tokenizer.train(TEXTS, kind="bpe", size=330)
    for paradigm in ("causal", "masked"):
        save(small(paradigm, tokenizer), folder / paradigm)
    return folder


def test_lm_eval(folders):
    huggingface = pytest.importorskip("lm_eval.models.huggingface", exc_type=ImportError)
    from lm_eval.api.instance import Instance

    tokenizer = transformers.AutoTokenizer.from_pretrained(folders / "causal")
    tokenizer.add_special_tokens({"bos_token": "<bos>", "eos_token": "<eos>", "pad_token": "<pad>"})
    theirs = huggingface.HFLM(
        pretrained=transformers.AutoModelForCausalLM.from_pretrained(folders / "causal"), tokenizer=tokenizer,
        device="cpu", batch_size=1, max_length=32)
    trained, text = load(folders / "causal"), " ".join(TEXTS)
    (known,) = theirs.loglikelihood_rolling([Instance("loglikelihood_rolling", {}, (text,), 0)])
    ids = np.array([trained.vocabulary.bos, *trained.tokenizer.encode(text, reserved=False)])
    score = documents(trained, [ids], window=32)[0]
    assert -score.value * (len(ids) - 1) == pytest.approx(known, rel=1e-5)
    asked = [("", sentence) for sentence in SENTENCES]
    known = theirs.loglikelihood([Instance("loglikelihood", {}, one, 0) for one in asked])
    found = Harness(trained).loglikelihood(asked)
    assert [one for one, _ in found] == pytest.approx([one for one, _ in known], rel=1e-5)
    assert [greedy for _, greedy in found] == [greedy for _, greedy in known]


def test_minicons(folders, monkeypatch):
    scorer = pytest.importorskip("minicons.scorer", exc_type=ImportError)
    from transformers.tokenization_utils_base import PreTrainedTokenizerBase

    # a name that newer transformers no longer have
    monkeypatch.setattr(PreTrainedTokenizerBase, "batch_encode_plus",
                        lambda self, *given, **named: self(*given, **named), raising=False)

    def total(numbers):
        return numbers.sum(0).item()

    masked, trained = scorer.MaskedLMScorer(str(folders / "masked"), "cpu"), load(folders / "masked")
    (way, *_) = ways(trained, False)
    texts = [np.array(trained.tokenizer.encode(sentence, reserved=False)) for sentence in SENTENCES]
    for theirs, ours in (("original", "pll"), ("within_word_l2r", "pll-word-l2r")):
        known = masked.sequence_score(SENTENCES, reduction=total, PLL_metric=theirs)
        found = -pseudo_nats(trained, way, [(ids, np.ones(len(ids), bool)) for ids in texts], ours)
        assert found == pytest.approx(known, rel=1e-5)
    causal = scorer.IncrementalLMScorer(str(folders / "causal"), "cpu")
    known = causal.sequence_score(SENTENCES, reduction=total, bos_token=True)
    found = Harness(load(folders / "causal")).loglikelihood([("", sentence) for sentence in SENTENCES])
    assert [one for one, _ in found] == pytest.approx(known, rel=1e-5)
