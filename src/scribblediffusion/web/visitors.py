"""Who is who, and whose run is whose: a cookie that no script reads, and the runs' own records.

A visitor is a random number in a cookie (or the name one logged in with); a run notes a digest of
it. Lists show one's own runs. A run's id has 80 random bits: whoever opens its permalink may look
at that run from then on, in that browser (the last 200 such runs, until the server ends), and only
the owner may delete it. Where the server
answers this machine alone, runs made on the command line, and by programs that keep no cookie, have
no owner: they belong to whoever sits at it.
"""

from __future__ import annotations

import hashlib
import re
import secrets
import threading
from collections import OrderedDict

from scribblediffusion.errors import GalleryError
from scribblediffusion.gallery import Gallery, Run

COOKIE = "scribble_visitor"
#: The visitor whose runs have no owner. No digest is empty.
NOBODY = ""
#: The token of a request without a cookie where the server answers this machine alone; given by the
#: guard, which lets nobody bring it along.
PROGRAM = "0" * 32
#: The header in which the guard says from which address a request without a cookie came.
NEW = "x-scribble-new"
RUN_ID = re.compile(r"[0-7][0-9A-HJKMNP-TV-Z]{25}")
_TOKEN = re.compile(r"[0-9a-f]{32}")
#: Permalinks that are remembered for one visitor, and visitors that they are remembered for.
_LINKS, _VISITORS = 200, 2000


def new_token() -> str:
    """A visitor's cookie."""
    return secrets.token_hex(16)


def token_in(cookies: str) -> str | None:
    """The visitor's token in a Cookie header, None if there is no sound one."""
    # Not by http.cookies, which gives up at an odd cookie of another site; ports share theirs.
    pairs = (cookie.strip().partition("=") for cookie in cookies.split(";"))
    found = [value for name, _, value in pairs if name == COOKIE]
    return found[0] if found and _TOKEN.fullmatch(found[0]) else None


def digest(token: str) -> str:
    """What is written down instead of a token or a name."""
    return hashlib.sha256(f"scribble visitor {token}".encode()).hexdigest()[:24]


def visitor_named(name: str) -> str:
    """Who has logged in under a name: a digest."""
    return digest(f"login {name}")


def visitor_with(cookies: str) -> str:
    """Whom a Cookie header names: a digest, `NOBODY`, or a stranger who is new each time."""
    token = token_in(cookies)
    return NOBODY if token == PROGRAM else digest(token or new_token())


class Visitors:
    """Says which runs a visitor may see, and which are his.

    Args:
        gallery: the runs.
        local: whether runs without an owner are everybody's.
    """

    def __init__(self, gallery: Gallery, *, local: bool) -> None:
        self._gallery, self._local = gallery, local
        self._owners: dict[str, str | None] = {}
        self._opened: OrderedDict[str, OrderedDict[str, None]] = OrderedDict()
        self._lock = threading.Lock()

    def owns(self, visitor: str, run: Run) -> bool:
        """Whether a run is this visitor's own."""
        if run.id not in self._owners:
            self._owners[run.id] = _owner(run)
        owner = self._owners[run.id]
        return self._local if owner is None else owner == visitor

    def by_link(self, visitor: str, run_id: str) -> Run:
        """A run by its permalink; from now on this visitor may look at it.

        Raises:
            GalleryError: there is no such run.
        """
        run = self._get(run_id)
        if not self.owns(visitor, run):
            with self._lock:
                links = self._opened.setdefault(visitor, OrderedDict())
                links[run.id] = None
                self._opened.move_to_end(visitor)
                while len(links) > _LINKS:
                    links.popitem(last=False)
                while len(self._opened) > _VISITORS:
                    self._opened.popitem(last=False)
        return run

    def seen(self, visitor: str, run_id: str) -> Run:
        """A run that is one's own, or whose permalink one has opened.

        Raises:
            GalleryError: there is no such run for this visitor.
        """
        run = self._get(run_id)
        if self.owns(visitor, run) or run.id in self._opened.get(visitor, ()):
            return run
        raise _none()

    def own(self, visitor: str, run_id: str) -> Run:
        """A run of one's own.

        Raises:
            GalleryError: there is none.
        """
        run = self._get(run_id)
        if not self.owns(visitor, run):
            raise _none()
        return run

    def runs(self, visitor: str, words: str = "") -> list[Run]:
        """One's own runs, newest first, with all of these words in the prompt."""
        found: list[Run] = []
        number, pages = 1, 1
        while number <= pages:
            page = self._gallery.list(page=number, size=500, words=words)
            found += [run for run in page if self.owns(visitor, run)]
            number, pages = number + 1, page.pages
        return found

    def _get(self, run_id: str) -> Run:
        if not isinstance(run_id, str) or not RUN_ID.fullmatch(run_id):
            raise _none()
        try:
            return self._gallery.get(run_id)
        except GalleryError:
            raise _none() from None


def _none() -> GalleryError:
    return GalleryError("there is no such run here: it was deleted, or the link is not whole")


def _owner(run: Run) -> str | None:
    try:
        settings = run.record.get("settings")
    except GalleryError:
        return "nobody can say"
    owner = settings.get("visitor") if isinstance(settings, dict) else None
    return owner if isinstance(owner, str) else None
