import itertools
import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bothways.batch import RESERVED_TOKENS
from bothways.errors import BothwaysError
from bothways.text.tokenizer import KINDS, Tokenizer, TokenizerConfig

TEXTS = ["The cat sat on the mat. The dog didn't!", "def f(x):\n    return x + 1\n", "Ein schöner Tag, 日本."] * 30
TRAINED = {kind: Tokenizer.train(TEXTS, kind, 600) for kind in KINDS}

kinds = pytest.mark.parametrize("kind", KINDS)


@kinds
@given(text=st.text(max_size=80))
def test_any_text_round_trips_to_the_byte(kind, text):
    tokenizer = TRAINED[kind]
    assert tokenizer.decode(tokenizer.encode(text, reserved=False), skip_reserved=False) == text


@kinds
def test_long_words_and_reserved_names_as_text_round_trip(kind):
    text = "a" * 500 + " <mask> \u203f # ## " + "é" * 200
    tokenizer = TRAINED[kind]
    ids = tokenizer.encode(text, reserved=False)
    assert tokenizer.decode(ids) == text
    assert min(ids) >= len(RESERVED_TOKENS)
    assert tokenizer.encode_batch([text, "cat"], reserved=False) == [ids, tokenizer.encode("cat")]


@kinds
def test_reserved_tokens_come_first_and_are_recognised(kind):
    tokenizer = TRAINED[kind]
    assert tokenizer.encode("".join(RESERVED_TOKENS)) == list(range(len(RESERVED_TOKENS)))
    ids = tokenizer.encode("The <mask> sat<extra_3>.")
    vocabulary = tokenizer.vocabulary
    assert vocabulary.mask in ids and vocabulary.sentinels[3] in ids
    assert tokenizer.decode(ids) == "The  sat."
    assert tokenizer.decode(ids, skip_reserved=False) == "The <mask> sat<extra_3>."


@kinds
def test_vocabulary_counts_bytes_and_marks_words(kind):
    tokenizer = TRAINED[kind]
    vocabulary, text = tokenizer.vocabulary, "The cat sat. Ein schöner Tag!"
    ids = np.array(tokenizer.encode(text))
    assert vocabulary.n_bytes[ids].sum() == len(text.encode())
    assert vocabulary.special.sum() == len(RESERVED_TOKENS) == 44
    assert not vocabulary.starts_word[vocabulary.special].any()
    assert not vocabulary.n_bytes[vocabulary.special].any()
    starts = [start for (start, _), i in zip(tokenizer.offsets(text), ids, strict=True) if vocabulary.starts_word[i]]
    spaces = [place for place, char in enumerate(text) if char == " "]
    assert set(spaces) <= set(starts)
    ending = [tokenizer.decode([i]) for i in ids if vocabulary.ends_sentence[i]]
    assert [piece[-1] for piece in ending] == [".", "!"]


@kinds
def test_offsets_are_the_characters_of_each_token(kind):
    tokenizer, text = TRAINED[kind], "The cat didn't sit on 日本 mats."
    for i, (start, end) in zip(tokenizer.encode(text), tokenizer.offsets(text), strict=True):
        piece = tokenizer.decode([i])
        assert piece == text[start:end] or "\ufffd" in piece


@kinds
def test_saved_and_loaded_is_the_same(kind, tmp_path):
    tokenizer = TRAINED[kind]
    tokenizer.save(tmp_path)
    again = Tokenizer.load(tmp_path)
    text = "The cat, the dög and <mask>."
    assert again.fingerprint == tokenizer.fingerprint != TRAINED["bytes" if kind != "bytes" else "bpe"].fingerprint
    assert again.encode(text) == tokenizer.encode(text)
    assert again.kind == tokenizer.kind == kind
    assert sorted(path.name for path in tmp_path.iterdir()) == ["tokenizer.json", "tokenizer_config.json"]


@kinds
def test_transformers_reads_what_was_saved(kind, tmp_path):
    transformers = pytest.importorskip("transformers")
    tokenizer, text = TRAINED[kind], "The cat sat on the mat.\n  Ein schöner Tag <mask>"
    tokenizer.save(tmp_path)
    theirs = transformers.PreTrainedTokenizerFast.from_pretrained(tmp_path)
    assert theirs(text, add_special_tokens=False)["input_ids"] == tokenizer.encode(text)
    assert theirs.decode(tokenizer.encode(text)) == text
    assert (theirs.mask_token_id, theirs.pad_token_id) == (tokenizer.vocabulary.mask, tokenizer.vocabulary.pad)


def test_words_of_a_text():
    tokenizer = Tokenizer.words("The cat sat on the mat. <mask>")
    assert tokenizer.pieces(tokenizer.encode("The mat <mask> dog.")) == ["The", "mat", "<mask>", "<unk>", "."]
    assert tokenizer.decode(tokenizer.encode("The cat sat")) == "The cat sat"
    assert tokenizer.kind == "words"
    assert tokenizer.vocabulary.starts_word[tokenizer.encode("cat")].all()


def test_pieces_can_be_printed():
    tokenizer = TRAINED["bytes"]
    assert tokenizer.pieces(tokenizer.encode("a é\n")) == ["a", " ", "<0xC3>", "<0xA9>", "↵"]


def test_bytes_have_no_merges():
    assert TRAINED["bytes"].size == 300
    assert len(TRAINED["bytes"].encode("schön")) == 6


@pytest.mark.parametrize("kind", ["bpe", "unigram", "bytes"])
def test_an_identifier_is_one_word(kind):
    tokenizer, text = TRAINED[kind], "x = os.file_name_2(y)"
    ids = np.array(tokenizer.encode(text))
    begins = np.append(np.flatnonzero(tokenizer.vocabulary.starts_word[ids]), len(ids))
    words = [tokenizer.decode(ids[begin:end]).strip() for begin, end in itertools.pairwise(begins)]
    assert ".file_name_2" in words and "(y" in words


@pytest.mark.parametrize(("kind", "size", "window", "sentinels"), [
    ("bpe", 1024, 128, 32), ("bpe", 1024, 256, 64), ("bpe", 1024, 512, 96), ("bpe", 4096, 512, 128),
    ("unigram", 65536, 4096, 256), ("bpe", 300, 4096, 32), ("wordpiece", 556, 4096, 32), ("bytes", 4096, 4096, 32)])
def test_long_windows_get_more_sentinels_where_the_vocabulary_has_room(kind, size, window, sentinels):
    assert TokenizerConfig(kind, size).sentinels(window) == sentinels


@pytest.mark.parametrize("kind", KINDS)
def test_further_sentinels_are_reserved_tokens_like_the_others(kind, tmp_path):
    Tokenizer.train(TEXTS, kind, 620, sentinels=40).save(tmp_path)
    tokenizer = Tokenizer.load(tmp_path)
    assert tokenizer.kind == kind and tokenizer.reserved == (*RESERVED_TOKENS, *(f"<extra_{i}>" for i in range(32, 40)))
    vocabulary = tokenizer.vocabulary
    assert vocabulary.sentinels == tuple(range(12, 52))
    assert np.flatnonzero(vocabulary.special).tolist() == list(range(52))
    assert not vocabulary.n_bytes[:52].any() and vocabulary.n_bytes[52:].all()
    ids = tokenizer.encode("a<extra_39> cat")
    assert 51 in ids and tokenizer.decode(ids) == "a cat" and tokenizer.decode(ids, False) == "a<extra_39> cat"


@pytest.mark.parametrize(("kind", "size", "words"), [("bpe", 299, "300"), ("wordpiece", 555, "556"),
                                                      ("bpf", 4096, "did you mean 'bpe'")])
def test_what_cannot_be_trained_is_refused(kind, size, words):
    with pytest.raises(BothwaysError, match=words):
        TokenizerConfig(kind, size)
    with pytest.raises(BothwaysError, match=words):
        Tokenizer.train(TEXTS, kind, size)


def test_files_that_are_no_tokenizer_are_refused(tmp_path):
    with pytest.raises(BothwaysError, match="no tokenizer at"):
        Tokenizer.load(tmp_path)
    (tmp_path / "tokenizer.json").write_text("{}")
    with pytest.raises(BothwaysError, match="not a tokenizer file"):
        Tokenizer.load(tmp_path)
    TRAINED["bpe"].save(tmp_path)
    content = json.loads((tmp_path / "tokenizer.json").read_text())
    content["added_tokens"] = content["added_tokens"][:3]
    for name in RESERVED_TOKENS[3:]:
        content["model"]["vocab"]["x" + name] = content["model"]["vocab"].pop(name)
    (tmp_path / "tokenizer.json").write_text(json.dumps(content))
    with pytest.raises(BothwaysError, match="reserved tokens"):
        Tokenizer.load(tmp_path)
