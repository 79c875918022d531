"""Names in a trace: how words are found, and what people read in lists and errors."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from scribblediffusion.attention.records import Column, Prompt, Word
from scribblediffusion.errors import SettingError, UnknownWordError
from scribblediffusion.prompt import split_words


def find(text: str, prompt: Prompt, branch: str = "full") -> list[tuple[int, ...]]:
    """The keys of each place in the prompt where this word or phrase is, whatever the capitals.

    Args:
        text: The word or phrase.
        prompt: What the rows of the branch hold.
        branch: Part of the guidance, for the error.

    Raises:
        UnknownWordError: It is nowhere; the message names the words that are there.
        SettingError: It is no text.
    """
    if not isinstance(text, str):
        raise SettingError(f"word {text!r}: give a word or phrase as text, or one of trace.words")
    if not prompt.named:
        raise no_words(f"word {text!r}")
    wanted = [text[a:b] for a, b in split_words(text)]
    asked = [word.casefold() for word in wanted]
    hits: dict[tuple[int, ...], None] = {}  # each once, though several prompts may have it
    for one in prompt.texts or (tuple(range(len(prompt.words))),):
        there = [prompt.words[i].text.casefold() for i in one]
        found = _spelled(there, "".join(asked)) if prompt.decoded else _in_a_row(there, asked)
        found = found or _within(there, asked)
        hits |= dict.fromkeys(one[a:b] for a, b in found)
    if not hits:
        raise UnknownWordError(_not_in_prompt(text, wanted, prompt, branch))
    # Words of two prompts may share a key, which counts once.
    return [tuple(dict.fromkeys(k for i in hit for k in prompt.words[i].keys)) for hit in hits]


def no_words(asked: str) -> UnknownWordError:
    """The error for what was asked of a prompt without words."""
    return UnknownWordError(
        f"{asked}: the prompt came as embeddings, or its tokenizer could not be asked, so its "
        f"tokens have numbers and no words; capture with the text encoder inside the context, or "
        f"use token(key)"
    )


def _in_a_row(words: Sequence[str], wanted: Sequence[str]) -> list[tuple[int, int]]:
    """Where the words stand in a row, just so."""
    size = len(wanted)
    starts = range(len(words) - size + 1) if size else ()
    return [(i, i + size) for i in starts if words[i : i + size] == wanted]


def _within(words: Sequence[str], wanted: Sequence[str]) -> list[tuple[int, int]]:
    """Where the words stand in a row inside words that one token holds together: `),`."""
    parts = [(i, word[a:b]) for i, word in enumerate(words) for a, b in split_words(word)]
    found = _in_a_row([part for _, part in parts], wanted)
    return [(parts[a][0], parts[b - 1][0] + 1) for a, b in found]


def _spelled(words: Sequence[str], wanted: str) -> list[tuple[int, int]]:
    """Runs of whole words that spell `wanted`, spaces aside: decoding may put them anywhere."""
    found = []
    for i in range(len(words)):
        spelled, j = "", i
        while j < len(words) and len(spelled) < len(wanted):
            spelled, j = spelled + words[j], j + 1
        if wanted and spelled == wanted:
            found.append((i, j))
    return found


def _not_in_prompt(text: str, wanted: Sequence[str], prompt: Prompt, branch: str) -> str:
    cut = {w.casefold() for w in prompt.truncated}
    known = cut | {w.text.casefold() for w in prompt.words}
    asked = {w.casefold() for w in wanted}
    if asked & cut and asked <= known:
        return (
            f"word {text!r} was cut off by the length limit and the model never saw it; "
            f"cut off: {', '.join(prompt.truncated)}"
        )
    there = ", ".join(dict.fromkeys(w.text for w in prompt.words)) or "none"
    sentence = f"word {text!r} is not in the prompt; its words are: {there}"
    if branch == "full":
        return sentence
    return f"{sentence}. Branch {branch!r} has a prompt of its own: capture branch='full' for yours"


def word_name(word: Word, words: Sequence[Word]) -> str:
    """The word; a repeated one with its occurrence: ``apple (2)`` for the second."""
    same = sum(w.text.casefold() == word.text.casefold() for w in words)
    return f"{word.text} ({word.occurrence + 1})" if same > 1 else word.text


def ranges(keys: Sequence[int]) -> str:
    """0, 1, 2, 77, 78 → ``0–2, 77–78``."""
    runs: list[list[int]] = []
    for k in sorted(keys):
        if runs and runs[-1][-1] == k - 1:
            runs[-1][1:] = [k]
        else:
            runs.append([k])
    return ", ".join("–".join(map(str, run)) for run in runs) or "none"


def column_name(column: Column, named: Mapping[int, str]) -> str:
    """A column as a person reads it."""
    if column.key is not None:
        return named[column.key]
    return "rest" if column.rest else column.stream
