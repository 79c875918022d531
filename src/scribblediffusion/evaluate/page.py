"""Pages whose measured parts are written by what measured them."""

from __future__ import annotations

import re
from collections.abc import Mapping

from scribblediffusion.errors import SettingError

_PART = re.compile(r"(<!-- measured: ([\w-]+) -->\n).*?(<!-- end -->)", re.DOTALL)


def filled(page: str, parts: Mapping[str, str]) -> str:
    """A page with its measured parts, ``<!-- measured: name --> … <!-- end -->``, as they are now.

    Args:
        page: Markdown.
        parts: name → Markdown. Parts that the page does not ask for are left out.

    Raises:
        SettingError: the page asks for a part that there is not.
    """
    unknown = [name for _, name, _ in _PART.findall(page) if name not in parts]
    if unknown:
        raise SettingError(f"measured parts {unknown}: there are {', '.join(parts)}")
    return _PART.sub(lambda m: f"{m[1]}{parts[m[2]]}{m[3]}", page)
