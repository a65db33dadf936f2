"""Text of a given form, by every model that writes from left to right; what cannot be is said."""

from __future__ import annotations

import json
import re
import sys

import pytest
from tests.decoding import foreign
from tests.decoding.small import TOKENIZER, tiny

from bothways import decoding
from bothways.decoding import GenerateConfig
from bothways.errors import BothwaysError
from bothways.text.tokenizer import Tokenizer

pytest.importorskip("llguidance")
PROMPTS = [TOKENIZER.encode("the cat"), []]
SCHEMA = json.dumps({"type": "object", "properties": {"cat": {"enum": ["big", "small"]}, "n": {"type": "boolean"}},
                     "required": ["cat", "n"], "additionalProperties": False})


@pytest.mark.parametrize("spec", ["next-token", "denoising", "prefix", "glm"])
@pytest.mark.parametrize("options", [{}, {"temperature": 1.0}, {"beams": 3}, {"lookup": 2, "temperature": 1.0},
                                     {"contrast": 0.4, "top_k": 4}])
def test_forms_are_kept(spec, options):
    trained = tiny(spec)
    pattern = "[0-9]{2}(-[a-cé]){1,3}!"
    for text in decoding.generate(trained, PROMPTS, GenerateConfig(max_new_tokens=20, regex=pattern, **options)):
        assert re.fullmatch(pattern, text.text) and text.stopped_by == "end"
    choices = ("a dog", "the cat", "déjà vu")
    for text in decoding.generate(trained, PROMPTS, GenerateConfig(max_new_tokens=20, choices=choices, **options)):
        assert text.text in choices


def test_json_fits_its_schema():
    config = GenerateConfig(max_new_tokens=60, json_schema=SCHEMA, temperature=1.0, samples=8)
    for text in decoding.generate(tiny("next-token"), PROMPTS, config):
        if text.stopped_by == "end":
            assert set(json.loads(text.text)) == {"cat", "n"}
        else:
            assert text.text.lstrip().startswith("{")


def test_a_grammar_in_larks_notation():
    config = GenerateConfig(max_new_tokens=20, grammar='start: "(" (start | "x") ")"', temperature=1.0)
    for text in decoding.generate(tiny("next-token"), PROMPTS, config):
        assert re.fullmatch(r"\(+x?\)*", text.text)


@pytest.mark.parametrize("kind", ["bytes", "wordpiece", "unigram"])
def test_every_kind_of_tokenizer(kind):
    from dataclasses import replace

    from bothways import objectives
    from bothways.families.trained import Trained
    from bothways.model import LanguageModel, ModelConfig, Shape
    tokenizer = Tokenizer.train(["the cat sat on the mat 0123456789"] * 3, kind, 600)
    network = LanguageModel(ModelConfig(Shape(tokenizer.size + 5, 16, 1, heads=2))).eval()
    trained = Trained(network, objectives.make("next-token", tokenizer.vocabulary), tokenizer)
    config = GenerateConfig(max_new_tokens=40, choices=("the cat sat", "09 mat"))
    (text,) = decoding.generate(trained, [[]], config)
    assert text.text in config.choices
    assert decoding.generate(trained, [[]], replace(config, choices=("on",)))[0].text == "on"


@pytest.mark.parametrize("objective", ["next-token", "denoising"])
@pytest.mark.parametrize("make", [foreign.byte_level, foreign.byte_fallback, foreign.unigram])
def test_imported_tokenizers_keep_to_forms(make, objective):
    trained = foreign.behind(make(), objective)
    prompts = [trained.tokenizer.encode("the cat"), []]

    def written(**form):
        config = GenerateConfig(max_new_tokens=40, temperature=1.0, samples=4, **form)
        texts = decoding.generate(trained, prompts, config)
        assert any(text.stopped_by == "end" for text in texts)
        return [text.text for text in texts if text.stopped_by == "end"]

    # to the character: also a space at the very beginning, which decoders like to take away
    for pattern in ("[0-9]{2}(-[a-c]){1,3}!", " [a-c]{1,9}", "[a-c]{1,4} (cat|th)"):
        assert all(re.fullmatch(pattern, text) for text in written(regex=pattern))
    choices = ("déjà vu", "the cat", " cat", "0 mat")
    assert set(written(choices=choices)) <= set(choices)
    assert written(choices=(" cat",))[0] == " cat"
    assert written(choices=("cat",))[0] == "cat"
    # the text is the same, token for token, in a search
    (best, *_) = decoding.generate(trained, prompts, GenerateConfig(20, beams=3, choices=choices))
    assert best.text in choices


def test_words_and_their_ends_write_what_they_can_express():
    trained = foreign.behind(foreign.wordpiece())
    config = GenerateConfig(max_new_tokens=30, temperature=1.0, samples=3, regex=" [a-c]{1,9} the")
    for text in decoding.generate(trained, [trained.tokenizer.encode("cat"), []], config):
        assert re.fullmatch(config.regex, text.text)
    # a word has a space before it, and nothing is spelled "é"
    for form in ("[a-c]-[a-c]", "déjà"):
        with pytest.raises(BothwaysError, match="this model's tokens cannot express regex"):
            decoding.generate(trained, [[]], GenerateConfig(max_new_tokens=30, regex=form))
    with pytest.raises(BothwaysError, match="marks the ends of words"):
        decoding.generate(foreign.behind(foreign.ends_of_words()), [[]], GenerateConfig(regex="a"))


def test_refusals(monkeypatch):
    trained = tiny("next-token")
    with pytest.raises(BothwaysError, match=r"nothing can be written in the form of regex '\(\['"):
        decoding.generate(trained, PROMPTS, GenerateConfig(regex="(["))
    with pytest.raises(BothwaysError, match="json_schema is not JSON"):
        decoding.generate(trained, PROMPTS, GenerateConfig(json_schema="{"))
    no_z = {token: float("-inf") for token in range(len(TOKENIZER.vocabulary.special)) if b"z" in
            TOKENIZER.spelled(token) and not TOKENIZER.vocabulary.special[token]}
    with pytest.raises(BothwaysError, match="this model's tokens cannot express choices 'zebra'"):
        decoding.generate(trained, PROMPTS, GenerateConfig(choices=("zebra",), logit_bias=no_z))
    monkeypatch.setitem(sys.modules, "llguidance", None)
    decoding.structured._tokens.cache_clear()
    with pytest.raises(BothwaysError, match=r"needs the package llguidance: pip install 'bothways\[structured\]'"):
        decoding.generate(trained, PROMPTS, GenerateConfig(regex="a"))
