"""Prompt → words, and words ↔ tokens for any tokenizer: WordPiece, CLIP's BPE, SentencePiece.

A word is a run of letters and digits, with apostrophes inside it; every other mark is a word of
its own. So "a red-hot apple, isn't it?" is a · red · - · hot · apple · , · isn't · it · ?

`read` starts from the token numbers that a text encoder really received. A text is believed only
if the tokenizer turns it into exactly these numbers; where none fits, the words are those that
the numbers decode to.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

__all__ = ["Piece", "ReadWord", "Reading", "read", "split_words"]

_JOINER = "\u200d"
_WORD = re.compile(r"\w+(?:['’]\w+)*|[^\w\s]")


@dataclass(frozen=True)
class Piece:
    """One token of a prompt.

    Attributes:
        text: As a person reads it: ``"apple"``, ``"##ed"``, ``"<|startoftext|>"``.
        id: Number in the vocabulary.
        start: Where it begins in the text of its `Reading`; equal to `end` for special tokens.
        end: Where it ends.
        special: Start, end or separator; padding too.
        padding: Fills the length.
    """

    text: str
    id: int
    start: int = 0
    end: int = 0
    special: bool = False
    padding: bool = False


@dataclass(frozen=True)
class ReadWord:
    """A word of the text, and the positions of its tokens.

    Attributes:
        text: As written.
        tokens: Positions in `Reading.pieces`; empty if no token stands for it.
        occurrence: 0 for the first time that the word is in the text, then 1, 2, …
        start: Position of the first character.
        whole: False if the length limit cut it off, or a part of it.
    """

    text: str
    tokens: tuple[int, ...]
    occurrence: int
    start: int
    whole: bool = True


@dataclass(frozen=True)
class Reading:
    """A prompt as one tokenizer read it.

    Attributes:
        text: The prompt as written where it was known, else as decoded.
        pieces: Every token in order, special ones and padding included.
        words: Every word of the text in order, cut off or not.
        decoded: True where the text was decoded: its spaces may not be those that were written.
    """

    text: str
    pieces: tuple[Piece, ...]
    words: tuple[ReadWord, ...]
    decoded: bool = False

    @property
    def truncated(self) -> tuple[str, ...]:
        """Words that the length limit cut off, wholly or in part."""
        return tuple(w.text for w in self.words if not w.whole)

    def after(self, start: int) -> Reading:
        """The same without the text before a character; tokens of that stand for no word.

        Occurrences and positions are counted anew, in the text that is left.
        """
        pieces = tuple(
            replace(
                piece,
                start=max(piece.start - start, 0),
                end=max(piece.end - start, 0),
                special=piece.special or piece.end <= start,
            )
            for piece in self.pieces
        )
        cut = (w.start + len(w.text) - 1 for w in self.words if not w.whole)
        limit = min(cut, default=len(self.text)) - start
        text = self.text[start:]
        return replace(self, text=text, pieces=pieces, words=_words(text, pieces, limit))


def split_words(text: str) -> list[tuple[int, int]]:
    """(start, end) of each word in the text, in order.

    >>> [("isn't it?")[a:b] for a, b in split_words("isn't it?")]
    ["isn't", 'it', '?']

    Accents and vowel signs that are characters of their own belong to the letter before them, and
    joined emoji are one word.
    """
    spans: list[tuple[int, int]] = []
    for start, end in (match.span() for match in _WORD.finditer(text)):
        if spans and spans[-1][1] == start and _joined(text, spans[-1][0], start):
            spans[-1] = spans[-1][0], end
        else:
            spans.append((start, end))
    return spans


def _joined(text: str, begin: int, at: int) -> bool:
    """Whether what begins at `at` goes on with the word that ends there and began at `begin`."""
    before, here = text[at - 1], text[at]
    if _is_mark(here) or before == _JOINER:
        return True
    # After a sign within a word of letters comes its next letter: न + म + स + ् + ते.
    return _is_mark(before) and text[begin].isalnum() and (here.isalnum() or here == "_")


def _is_mark(character: str) -> bool:
    toned = "\U0001f3fb" <= character <= "\U0001f3ff"  # the colour of an emoji's skin
    return toned or character == _JOINER or unicodedata.category(character).startswith("M")


def read(tokenizer: Any, ids: Sequence[int], candidates: Iterable[str] = ()) -> Reading:
    """The words and tokens of one row of token numbers.

    Args:
        tokenizer: A transformers tokenizer.
        ids: The row that the text encoder received, special tokens and padding included.
        candidates: Texts that it may come from. The first one whose tokens these are is the
            prompt; without one the text is decoded.

    Returns:
        Pieces for every id, words with the positions of their tokens.
    """
    ids = [int(i) for i in ids]
    padding, decoded = _padding(tokenizer, ids), False
    for text in candidates:
        spans = _spans_of_text(tokenizer, text, ids, padding)
        if spans is not None:
            break
    else:
        text, spans = _spans_by_decoding(tokenizer, ids, padding)
        decoded = True
    pieces = _pieces(tokenizer, ids, text, spans, padding)
    words = _words(text, pieces, _limit(tokenizer, text, spans))
    return Reading(text, pieces, words, decoded)


def _padding(tokenizer: Any, ids: Sequence[int]) -> set[int]:
    """Positions that only fill the length; where the end token pads, the first one is the end."""
    pad, size = getattr(tokenizer, "pad_token_id", None), len(ids)
    if pad is None:
        return set()
    last = next((i for i in range(size - 1, -1, -1) if ids[i] != pad), -1)
    is_end = pad == getattr(tokenizer, "eos_token_id", None)
    trailing = set(range(last + 1 + is_end, size))
    first = next((i for i in range(size) if ids[i] != pad), size)
    left = pad != getattr(tokenizer, "bos_token_id", None) and first < size
    return trailing | (set(range(first)) if left else set())


def _frame(tokenizer: Any) -> set[int]:
    """Numbers of the tokens that stand around a text, not for any of it."""
    names = ("bos", "eos", "cls", "sep", "pad")
    found = {getattr(tokenizer, f"{name}_token_id", None) for name in names}
    return {i for i in found if i is not None}


def _spans_of_text(
    tokenizer: Any, text: str, ids: Sequence[int], padding: set[int]
) -> dict[int, tuple[int, int]] | None:
    """Position → (start, end) in the text, or None if these are not the text's tokens."""
    if not getattr(tokenizer, "is_fast", False):
        return None
    whole = tokenizer(
        text, return_offsets_mapping=True, return_special_tokens_mask=True, verbose=False
    )
    marks = zip(
        whole["input_ids"], whole["special_tokens_mask"], whole["offset_mapping"], strict=True
    )
    content = [(number, span) for number, special, span in marks if not special]
    around = sum(whole["special_tokens_mask"])
    rest = [i for i in range(len(ids)) if i not in padding]
    begin = next((n for n, s in enumerate(whole["special_tokens_mask"]) if not s), around)
    seen = rest[begin : len(rest) - (around - begin)] if around else rest
    fits = len(seen) <= len(content) and all(
        ids[i] == number for i, (number, _) in zip(seen, content, strict=False)
    )
    # A shorter row is the same text only if it was cut off at its length.
    cut = len(seen) < len(content)
    if not fits or (cut and (not seen or len(rest) < len(ids))):
        return None
    return {i: (span[0], span[1]) for i, (_, span) in zip(seen, content, strict=False)}


def _spans_by_decoding(
    tokenizer: Any, ids: Sequence[int], padding: set[int]
) -> tuple[str, dict[int, tuple[int, int]]]:
    """The decoded text and what each token adds to it: works for every kind of tokenizer."""
    around = _frame(tokenizer)
    content = [i for i in range(len(ids)) if i not in padding and ids[i] not in around]
    text, spans = "", {}
    for n, i in enumerate(content):
        numbers = [ids[k] for k in content[: n + 1]]
        longer = tokenizer.decode(numbers, clean_up_tokenization_spaces=False)
        pairs = zip(text, longer, strict=False)
        shared = next((n for n, (a, b) in enumerate(pairs) if a != b), min(len(text), len(longer)))
        spans[i] = (shared, len(longer))
        text = longer
    return text, spans


def _pieces(
    tokenizer: Any,
    ids: Sequence[int],
    text: str,
    spans: dict[int, tuple[int, int]],
    padding: set[int],
) -> tuple[Piece, ...]:
    names = tokenizer.convert_ids_to_tokens(list(ids))
    made = []
    for i, (number, name) in enumerate(zip(ids, names, strict=True)):
        start, end = spans.get(i, (0, 0))
        shown, name = text[start:end].strip(), name or ""  # None: outside the vocabulary
        shown = name if name.startswith("##") or not shown else shown
        made.append(Piece(shown, number, start, end, i not in spans, i in padding))
    return tuple(made)


def _limit(tokenizer: Any, text: str, spans: dict[int, tuple[int, int]]) -> int:
    """Where the last token ends, if the text goes on after it; else the text's end.

    A text of which no token is made, as of characters without width, is not cut off.
    """
    if not getattr(tokenizer, "is_fast", False):
        return len(text) if spans or not text else 0
    whole = tokenizer(text, return_special_tokens_mask=True, verbose=False)
    content = whole["special_tokens_mask"].count(0)
    return max((end for _, end in spans.values()), default=0) if len(spans) < content else len(text)


def _words(text: str, pieces: Sequence[Piece], limit: int) -> tuple[ReadWord, ...]:
    """The words with their tokens; words that share a token are one, as the model read them so."""
    owned: list[tuple[int, int, list[int]]] = []  # begin, end, tokens; in the order of the text
    for start, end in split_words(text):
        mine = [i for i, p in enumerate(pieces) if max(p.start, start) < min(p.end, end)]
        if owned and set(mine) & set(owned[-1][2]):
            start, _, before = owned.pop()
            mine = list(dict.fromkeys([*before, *mine]))
        owned.append((start, end, mine))
    counts: dict[str, int] = {}
    made = []
    for start, end, mine in owned:
        word = text[start:end]
        occurrence = counts.get(word.casefold(), 0)
        counts[word.casefold()] = occurrence + 1
        made.append(ReadWord(word, tuple(mine), occurrence, start, whole=end <= limit))
    return tuple(made)
