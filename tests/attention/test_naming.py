"""Words are counted as they stand in the prompt, and what is not there is an error."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from scribblediffusion.attention.records import Prompt, Word
from scribblediffusion.attention.trace import AttentionTrace
from scribblediffusion.errors import UnknownWordError


def made(*tokens: str) -> AttentionTrace:
    score = np.exp(np.random.default_rng(0).normal(size=(1, 1, 1, len(tokens), 4, 4)))
    return AttentionTrace.from_arrays({"x": score / score.sum(3, keepdims=True)}, tokens=tokens)


def test_occurrences_count_in_the_prompt_whatever_the_capitals() -> None:
    trace = made("[CLS]", "The", "cat", "the", "dog", "[SEP]")
    assert [word.occurrence for word in trace.words] == [0, 0, 1, 0]
    for spelling in ("the", "The", "THE"):
        assert np.array_equal(trace.word(spelling), trace.token(1))
        assert np.array_equal(trace.word(spelling, occurrence=1), trace.token(3))
        both = trace.word(spelling, occurrence=None, view="attention")
        parts = [trace.token(key, view="attention") for key in (1, 3)]
        assert np.allclose(both, sum(parts) / 2, atol=1e-7)
        with pytest.raises(UnknownWordError, match=r"2 time\(s\)"):
            trace.word(spelling, occurrence=2)


def test_the_number_of_a_name_is_its_occurrence() -> None:
    """What a ranking calls ``the (2)`` is occurrence 1, and the same map."""
    trace = made("The", "cat", "the", "dog")
    shares = dict(trace.at(0, 0))
    for number, name in enumerate(("The (1)", "the (2)")):
        share = trace.word("the", occurrence=number, view="attention")[0, 0]
        assert shares[name] == pytest.approx(share, abs=1e-6)
    assert np.array_equal(trace.word(trace.words[2]), trace.token(2))


@pytest.mark.parametrize("word", ["ared", "redapple", "are d", "aredapple", "r", ""])
def test_letters_across_words_are_no_word(word: str) -> None:
    trace = made("a", "red", "apple")
    with pytest.raises(UnknownWordError, match="words are: a, red, apple"):
        trace.word(word)
    assert np.array_equal(trace.word("RED  apple"), trace.word("red apple"))


def test_a_decoded_prompt_is_matched_spaces_aside(tmp_path: Path) -> None:
    """CLIP decodes ``isn't 12`` as ``isn 't 1 2``: spaces say nothing there, saved or not."""
    pieces = ["isn", "'", "t", "1", "2"]
    words = tuple(Word(text, (key,), start=3 * key) for key, text in enumerate(pieces))
    plain = made(*pieces)
    decoded = replace(plain, prompts=(Prompt("isn 't 1 2", (), words, decoded=True),))
    again = AttentionTrace.load(decoded.save(tmp_path / "decoded.safetensors"))
    for trace in (decoded, again):
        assert trace.find("isn't") == [(0, 1, 2)]
        assert trace.find("12") == [(3, 4)]
    with pytest.raises(UnknownWordError):
        plain.find("12")


def test_a_part_of_what_one_token_holds_names_it_unless_it_stands_alone() -> None:
    trace = made("a", "),", "red", "...", ")")
    assert np.array_equal(trace.word(","), trace.token(1))
    assert np.array_equal(trace.word(")"), trace.token(4))
    phrase = trace.word("a), red", view="attention")
    parts = [trace.token(key, view="attention") for key in (0, 1, 2)]
    assert np.allclose(phrase, sum(parts), atol=1e-7)
    assert np.array_equal(trace.word(". . ."), trace.token(3))
    with pytest.raises(UnknownWordError):
        trace.word(", a")


def test_cut_off_are_words_of_the_prompt_alone() -> None:
    plain = made("the", "cat")
    trace = replace(plain, prompts=(replace(plain.prompts[0], truncated=("the", "dog")),))
    for word in ("dog", "the dog", "cat dog"):
        with pytest.raises(UnknownWordError, match="cut off by the length limit"):
            trace.word(word)
    with pytest.raises(UnknownWordError, match="'the zebra' is not in the prompt"):
        trace.word("the zebra")
