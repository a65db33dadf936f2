"""Attention from the calls that ran, and integrated gradients: laws that hold whatever the network."""

from __future__ import annotations

import xml.etree.ElementTree

import numpy as np
import pytest
import torch
from tests.evaluation.small import PARADIGMS, small, texts

import bothways
from bothways.cli import main
from bothways.errors import BothwaysError
from bothways.evaluation.answers import answers
from bothways.evaluation.attention_maps import attribution, looks
from bothways.evaluation.questions import ways
from bothways.families.folder import save


@pytest.mark.parametrize("paradigm", PARADIGMS)
def test_weights_are_of_what_ran(paradigm):
    trained = small(paradigm)
    ids = texts(trained, 1, 19)[0].ids            # more keys than a head is wide
    found = looks(trained, ids)
    assert found.weights.shape == (2, 2, 19, 19) and found.error < 1e-5
    assert found.weights.sum(-1) == pytest.approx(np.ones((2, 2, 19)), abs=1e-5)
    assert (found.weights[..., ~found.seen] == 0).all()
    assert found.seen.all() == (found.mode == "bidirectional")


def test_grouped_heads_and_score_terms_are_part_of_it():
    trained = small("causal", heads=4, key_heads=2)
    assert looks(trained, texts(trained, 1, 12)[0].ids).error < 1e-5


def test_the_same_weights_as_the_published_class(tmp_path):
    transformers = pytest.importorskip("transformers")
    config = transformers.GPT2Config(vocab_size=97, n_embd=32, n_layer=2, n_head=2, n_positions=32, bos_token_id=0,
                                     eos_token_id=0, attn_implementation="eager")
    theirs = transformers.GPT2LMHeadModel(config).eval()
    for weight in theirs.parameters():
        weight.data.mul_(3)
    theirs.save_pretrained(tmp_path)
    ids = np.random.default_rng(0).integers(0, 97, 14)
    with torch.no_grad():
        known = theirs(torch.from_numpy(ids[None]), output_attentions=True).attentions
    found = looks(bothways.from_pretrained(tmp_path).trained, ids)
    assert found.weights == pytest.approx(np.stack([one[0].numpy() for one in known]), abs=1e-5)


@pytest.mark.parametrize("paradigm", ["causal", "masked", "spans"])
def test_attributions_add_up_to_what_they_explain(paradigm):
    trained = small(paradigm, sharp=1.0)
    ids = texts(trained, 1, 12)[0].ids
    found = attribution(trained, ids, 7, steps=32)
    way = ways(trained, False)[0]
    hidden = np.arange(12) == 7
    assert found.log_prob == pytest.approx(answers(trained, [way.pose(ids, hidden)])[0].log_probs[0], abs=1e-4)
    assert abs(found.missing) < 0.05 * max(1.0, abs(found.log_prob))
    if paradigm == "causal":
        assert (found.scores[7:] == 0).all() and np.abs(found.scores[:7]).max() > 0
    with pytest.raises(BothwaysError, match="place 0"):
        attribution(trained, ids, 0)


def test_pictures_of_several_models(tmp_path, capsys):
    text = "the dog near the cat barks"
    for name in ("causal", "denoising"):
        save(small(name), tmp_path / name)
    both = f"{tmp_path / 'causal'},{tmp_path / 'denoising'}"
    assert main(["see", "--attention", both, text, "--out", str(tmp_path / "a.svg")]) == 0
    printed = capsys.readouterr().out
    assert "layer 2" in printed and "bidirectional" in printed
    xml.etree.ElementTree.parse(tmp_path / "a.svg")
    assert main(["see", "--attention", both, text, "--explain", "cat", "--out", str(tmp_path / "b.svg")]) == 0
    assert "unexplained" in capsys.readouterr().out
    xml.etree.ElementTree.parse(tmp_path / "b.svg")
    assert main(["see", "--attention", both, text, "--explain", "zebra"]) == 2
    assert "'zebra' is not in the text" in capsys.readouterr().err
    assert main(["see", "causal", "--explain", "cat"]) == 2
