"""Words and tokens, for WordPiece, CLIP's BPE and SentencePiece."""

import sys
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import BertTokenizer

from scribblediffusion.prompt import read, split_words

sys.path.insert(0, str(Path(__file__).parent / "attention"))
from tiny_pipelines import clip_tokenizer, t5_tokenizer


def words(text: str) -> list[str]:
    return [text[a:b] for a, b in split_words(text)]


def wordpiece() -> BertTokenizer:
    pieces = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "a", "red", "app", "##le", ",", "##s"]
    return BertTokenizer(vocab={piece: i for i, piece in enumerate(pieces)})


TOKENIZERS = {"wordpiece": wordpiece, "clip": clip_tokenizer, "t5": t5_tokenizer}


def test_words_are_runs_of_letters_and_single_marks() -> None:
    assert words("a red-hot apple, isn't it?") == [
        "a", "red", "-", "hot", "apple", ",", "isn't", "it", "?",
    ]  # fmt: skip
    assert words("") == []
    assert words(" \n") == []
    assert words("naïve café 3×3 日本") == ["naïve", "café", "3", "×", "3", "日本"]


def test_signs_that_belong_to_a_letter_or_an_emoji_stay_with_it() -> None:
    """As a reader sees words: accents apart, vowel signs, hearts, skins and families."""
    joined = [
        "e\u0301te\u0301",
        "i\u0307stanbul",
        "नमस्ते",
        "दुनिया",
        "สวัสดี",
        "❤️",
        "👩\u200d🚀",
        "👍🏽",
    ]
    assert words(" ".join(joined)) == joined
    assert words("❤️love, 👍🏽 it") == ["❤️", "love", ",", "👍🏽", "it"]


@settings(deadline=None, max_examples=40)
@given(st.text(max_size=60))
def test_words_lie_in_order_and_hold_every_visible_character(text: str) -> None:
    spans = split_words(text)
    assert all(a < b for a, b in spans)
    assert all(b <= c for (_, b), (c, _) in pairwise(spans))
    assert "".join(words(text)) == "".join(text.split())


@pytest.mark.parametrize("kind", list(TOKENIZERS))
@pytest.mark.parametrize("known", [True, False])
def test_sub_tokens_join_their_word(kind: str, known: bool) -> None:
    tokenizer, text = TOKENIZERS[kind](), "a red apple, red"
    ids = tokenizer(text, padding="max_length", max_length=16)["input_ids"]
    reading = read(tokenizer, ids, ["something else", text] if known else [])
    assert reading.text.replace(" ,", ",") == text
    assert [w.text for w in reading.words] == ["a", "red", "apple", ",", "red"]
    assert [len(w.tokens) for w in reading.words] == [1, 1, 2, 1, 1]
    assert [w.occurrence for w in reading.words] == [0, 0, 0, 0, 1]
    assert reading.truncated == ()
    start = 0 if kind == "t5" else 1
    assert reading.words[0].tokens == (start,)
    padding = [i for i, piece in enumerate(reading.pieces) if piece.padding]
    assert padding == list(range(padding[0], 16))
    assert reading.pieces[padding[0] - 1].special  # the end token is not padding


def test_words_that_one_token_holds_are_one_word() -> None:
    """CLIP merges runs of marks; a learnt word (textual inversion) is one token of any spelling."""
    tokenizer = clip_tokenizer()
    tokenizer.add_tokens("<cat-toy>")
    ids = tokenizer("a <cat-toy> red").input_ids
    found = [(word.text, word.tokens) for word in read(tokenizer, ids, "a <cat-toy> red").words]
    assert found == [("a", (1,)), ("<cat-toy>", (2,)), ("red", found[2][1])]
    assert found[2][1][0] == 3


def test_the_text_as_written_is_kept_where_it_fits() -> None:
    tokenizer = clip_tokenizer()
    ids = tokenizer("A Red apple isn't")["input_ids"]
    assert [w.text for w in read(tokenizer, ids, ["A Red apple isn't"]).words] == [
        "A", "Red", "apple", "isn't",
    ]  # fmt: skip
    assert [w.text for w in read(tokenizer, ids, ["A blue apple"]).words][:3] == [
        "a", "red", "apple",
    ]  # fmt: skip


def test_words_cut_off_are_named_and_partly_cut_ones_too() -> None:
    tokenizer, text = clip_tokenizer(), "a red apple banana pie"
    ids = tokenizer(text, max_length=8, truncation=True)["input_ids"]
    reading = read(tokenizer, ids, [text])
    assert reading.truncated == ("banana", "pie")
    assert [w.whole for w in reading.words] == [True, True, True, False, False]
    assert reading.words[4].tokens == ()


@pytest.mark.parametrize("kind", list(TOKENIZERS))
def test_what_stands_before_the_prompt_is_no_part_of_it(kind: str) -> None:
    tokenizer, text = TOKENIZERS[kind](), "a red: a red apple, red"
    alone = read(tokenizer, tokenizer("a red apple, red")["input_ids"], ["a red apple, red"])
    ids = tokenizer(text, padding="max_length", max_length=20)["input_ids"]
    whole = read(tokenizer, ids, [text])
    rest = whole.after(len("a red: "))
    assert rest.text == "a red apple, red"
    assert [w.text for w in rest.words] == ["a", "red", "apple", ",", "red"]
    assert [w.occurrence for w in rest.words] == [0, 0, 0, 0, 1]
    assert [w.start for w in rest.words] == [w.start for w in alone.words]
    assert [w.tokens for w in rest.words] == [w.tokens for w in whole.words[3:]]
    assert all(rest.pieces[i].special for w in whole.words[:3] for i in w.tokens)
    assert len(rest.pieces) == len(whole.pieces)


def test_words_cut_off_stay_cut_off_without_what_stands_before() -> None:
    tokenizer, text = clip_tokenizer(), "red: a red apple banana pie"
    ids = tokenizer(text, max_length=9, truncation=True)["input_ids"]
    assert read(tokenizer, ids, [text]).truncated == ("banana", "pie")
    assert read(tokenizer, ids, [text]).after(5).truncated == ("banana", "pie")
    assert [w.whole for w in read(tokenizer, ids, [text]).after(5).words] == [True] * 3 + [
        False
    ] * 2


def test_an_empty_prompt_has_no_words() -> None:
    for make in TOKENIZERS.values():
        tokenizer = make()
        ids = tokenizer("", padding="max_length", max_length=6)["input_ids"]
        for candidates in ([""], ["a red apple"], []):
            reading = read(tokenizer, ids, candidates)
            assert (reading.text, reading.words) == ("", ())


def test_a_text_without_any_token_is_not_cut_off() -> None:
    tokenizer, text = wordpiece(), "\u200b"
    ids = tokenizer(text, padding="max_length", max_length=6)["input_ids"]
    reading = read(tokenizer, ids, [text])
    assert reading.text == text
    assert all(piece.special for piece in reading.pieces)
    assert reading.truncated == ()


@settings(deadline=None, max_examples=40)
@given(st.lists(st.sampled_from(["a", "red", "apple", ",", "pie", "x9"]), max_size=12))
def test_reading_inverts_tokenizing(parts: list[str]) -> None:
    tokenizer, text = clip_tokenizer(), " ".join(parts)
    reading = read(tokenizer, tokenizer(text)["input_ids"], [text])
    assert [w.text for w in reading.words] == parts
    assert all(w.tokens for w in reading.words)
    owned = [i for w in reading.words for i in w.tokens]
    assert owned == [i for i, piece in enumerate(reading.pieces) if not piece.special]
