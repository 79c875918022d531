"""Prompt → words, and words ↔ tokens for any tokenizer: WordPiece, CLIP's BPE, SentencePiece.

A word is a run of letters and digits, with apostrophes inside it; every other mark is a word of
its own. So "a red-hot apple, isn't it?" is a · red · - · hot · apple · , · isn't · it · ?
"""

from __future__ import annotations

import re

_WORD = re.compile(r"\w+(?:['’]\w+)*|[^\w\s]")


def split_words(text: str) -> list[tuple[int, int]]:
    """(start, end) of each word in the text, in order.

    >>> [("isn't it?")[a:b] for a, b in split_words("isn't it?")]
    ["isn't", 'it', '?']
    """
    return [match.span() for match in _WORD.finditer(text)]
