"""Our models behind lm-eval's and mteb's interfaces: without the packages, and inside them where they are installed."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import pytest
from tests.evaluation.small import small

from bothways.errors import BothwaysError
from bothways.evaluation.adapters import Encoder, Harness, harness
from bothways.evaluation.answers import answers
from bothways.evaluation.questions import ways
from bothways.text.tokenizer import Tokenizer


class Request(NamedTuple):
    """What lm-eval hands over."""

    args: tuple


REQUESTS = [Request(("the dog", " barks near")), Request(("", "the cat")), Request(("the dog ", "barks"))]


@pytest.mark.parametrize("paradigm", ["causal", "masked", "spans", "denoising", "hybrid", "glm", "diffusion", "prefix"])
def test_every_paradigm_answers_what_it_can(paradigm):
    trained = small(paradigm)
    model = Harness(trained, samples=2)
    found = model.loglikelihood(REQUESTS)
    assert len(found) == 3 and all(log_p < 0 and isinstance(greedy, bool) for log_p, greedy in found)
    assert found[0][0] != found[1][0]
    (rolled,) = model.loglikelihood_rolling([Request(("the dog barks near the cat .",))])
    assert rolled < 0 and model.loglikelihood_rolling([("",)]) == [0.0]


def test_a_causal_model_adds_up_its_tokens():
    trained = small("causal")
    model = Harness(trained)
    ids = np.array([trained.vocabulary.bos, *trained.tokenizer.encode("the dog barks near", reserved=False)])
    (way, *_) = ways(trained, False)
    (one,) = answers(trained, [way.pose(ids, np.arange(5) >= 3)])
    (found,) = model.loglikelihood(REQUESTS[:1])
    assert found == (pytest.approx(one.log_probs.sum(), abs=1e-5), bool(one.correct.all()))
    (rolled,) = model.loglikelihood_rolling([("the dog barks near",)])
    (whole,) = model.loglikelihood([("", "the dog barks near")])
    assert rolled == pytest.approx(whole[0], abs=1e-5)
    # greedy text is greedy
    written = model.generate_until([Request(("the dog", {"until": ["."], "max_gen_toks": 4}))])[0]
    assert "." not in written
    if trained.tokenizer.encode(written, reserved=False):
        assert model.loglikelihood([("the dog", " " + written.strip())])[0][1]


def test_spaces_before_the_cut_belong_to_what_follows():
    tokenizer = Tokenizer.train(["the unbelievable dogs bark"] * 5, kind="bpe", size=320)
    model = Harness(small("causal", tokenizer))
    one, other = model.loglikelihood([("the dogs ", "bark"), ("the dogs", " bark")])
    assert one == other


def test_modes_and_pseudo_likelihoods_by_name():
    trained = small("hybrid")
    causal, both = Harness(trained), Harness(trained, mode="bidirectional", rule="pll-word-l2r")
    assert causal.way.name == "causal" and both.way.name == "bidirectional"
    assert causal.loglikelihood(REQUESTS)[0] != both.loglikelihood(REQUESTS)[0]
    with pytest.raises(BothwaysError, match="choose 'causal', 'bidirectional'"):
        Harness(trained, mode="sideways")


def test_vectors_in_order_from_lists_and_from_loaders():
    trained = small("masked")
    encoder = Encoder(trained)
    texts = ["the dog barks", "a cat", "the dog barks often near the cat"]
    vectors = encoder.encode(texts, task_metadata=None, hf_split="test", hf_subset="default")
    assert vectors.shape == (3, 32) and np.linalg.norm(vectors, axis=1) == pytest.approx(1, abs=1e-5)
    loader = [{"text": texts[:2]}, {"text": texts[2:]}]
    assert encoder.encode(loader) == pytest.approx(vectors, abs=1e-5)
    square = encoder.similarity(vectors, vectors)
    assert square.diagonal().tolist() == pytest.approx([1, 1, 1], abs=1e-5)
    assert encoder.similarity_pairwise(vectors, vectors[::-1].copy())[0] == pytest.approx(float(square[0, 2]), abs=1e-6)


def test_inside_lm_eval(tmp_path):
    pytest.importorskip("lm_eval.api.model")
    from lm_eval.api.instance import Instance
    from lm_eval.api.model import LM

    trained = small("causal")
    model = harness(trained)
    assert isinstance(model, LM)
    asked = [Instance("loglikelihood", {}, ("the dog", " barks"), 0)]
    assert model.loglikelihood(asked) == Harness(trained).loglikelihood([("the dog", " barks")])


def test_without_the_package_one_sentence(monkeypatch):
    import sys

    monkeypatch.setitem(sys.modules, "lm_eval.api.model", None)
    with pytest.raises(BothwaysError, match=r"bothways\[harness\]"):
        harness(small("causal"))
