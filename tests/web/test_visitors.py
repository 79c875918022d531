"""Whose run is whose; and the limits of an order."""

from __future__ import annotations

import math
from pathlib import Path

import pytest

from scribblediffusion.errors import GalleryError, InputError, PromptError, SketchError
from scribblediffusion.gallery import Gallery
from scribblediffusion.sketch import Sketch
from scribblediffusion.web.guard import _with_visitor
from scribblediffusion.web.limits import Limits, Order, checked, whole
from scribblediffusion.web.visitors import (
    COOKIE,
    NOBODY,
    PROGRAM,
    Visitors,
    digest,
    new_token,
    token_in,
    visitor_with,
)


@pytest.fixture
def gallery(tmp_path: Path, bare_trace) -> Gallery:
    made = Gallery(tmp_path)
    for owner in ("ada", "bob"):
        made.add(bare_trace, settings={"visitor": owner})
    made.add(bare_trace)
    return made


def test_lists_show_ones_own(gallery: Gallery) -> None:
    strangers = Visitors(gallery, local=False)
    assert len(strangers.runs("ada")) == len(strangers.runs("bob")) == 1
    assert strangers.runs("ada")[0].id != strangers.runs("bob")[0].id
    assert strangers.runs("eve") == []
    assert len(Visitors(gallery, local=True).runs("ada")) == 2


def test_a_link_lets_one_look_and_not_delete(gallery: Gallery) -> None:
    visitors = Visitors(gallery, local=False)
    run = visitors.runs("ada")[0]
    with pytest.raises(GalleryError, match="no such run here"):
        visitors.seen("bob", run.id)
    assert visitors.by_link("bob", run.id).id == run.id
    assert visitors.seen("bob", run.id).id == run.id
    with pytest.raises(GalleryError):
        visitors.own("bob", run.id)
    with pytest.raises(GalleryError):
        visitors.seen("eve", run.id)


@pytest.mark.parametrize("asked", ["", "0", "../..", None, 7, "01M8", "%2e%2e", "0" * 26])
def test_part_of_an_id_is_no_key(gallery: Gallery, asked) -> None:
    visitors = Visitors(gallery, local=True)
    run = visitors.runs("ada")[0]
    for name in (asked, run.id[:20], run.id.lower(), run.id[-8:]):
        with pytest.raises(GalleryError, match="no such run here"):
            visitors.by_link("ada", name)


def test_cookies() -> None:
    token = new_token()
    for others in ("a=b", 'ui={"dark":true}', "a=b c", "foo", "=", "ü=1"):
        assert token_in(f"{others}; {COOKIE}={token}") == token
    assert token_in(f"{COOKIE}=short") is None
    assert token_in(f"{COOKIE}={'g' * 32}") is None
    assert token_in("") is None
    assert digest(token) != digest(new_token())
    assert token not in digest(token)


def test_a_public_server_gives_nobody_what_has_no_owner(gallery: Gallery) -> None:
    assert Visitors(gallery, local=False).runs(NOBODY) == []
    assert len(Visitors(gallery, local=True).runs(NOBODY)) == 1
    assert visitor_with(f"{COOKIE}={PROGRAM}") == NOBODY
    assert visitor_with("") != visitor_with("") != NOBODY


def local_or_public(local: bool, cookie: str) -> str:
    """The visitor whom the guard makes of a request."""
    scope = {"path": "/config", "headers": [(b"cookie", cookie.encode())]}
    _with_visitor(scope, {b"cookie": cookie}, local=local)
    return visitor_with(dict(scope["headers"])[b"cookie"].decode())


@pytest.mark.parametrize("cookie", ["", f"{COOKIE}={PROGRAM}", f"{COOKIE}=short"])
def test_only_a_local_server_takes_requests_for_nobodys(cookie: str) -> None:
    assert local_or_public(True, cookie) == NOBODY
    assert local_or_public(False, cookie) not in (NOBODY, local_or_public(False, cookie))
    token = new_token()
    assert local_or_public(True, f"{COOKIE}={token}") == digest(token)


def order(**changed) -> Order:
    plain = {
        "prompt": "a cat",
        "sketch": None,
        "steps": 2,
        "guidance": 3.0,
        "sketch_guidance": 1.5,
        "seed": 7,
    }
    return Order(**plain | changed)


def test_orders_within_the_limits_pass() -> None:
    assert checked(order(), Limits()) == order()
    sketch = Sketch.blank()
    assert checked(order(prompt="", sketch=sketch), Limits()).sketch is sketch


@pytest.mark.parametrize(
    ("changed", "kind"),
    [
        ({"prompt": "x" * 501}, PromptError),
        ({"prompt": ["a"]}, PromptError),
        ({"prompt": "  "}, SketchError),
        ({"steps": 0}, InputError),
        ({"steps": 101}, InputError),
        ({"guidance": math.nan}, InputError),
        ({"guidance": "3"}, InputError),
        ({"sketch_guidance": 21}, InputError),
        ({"sketch_guidance": True}, InputError),
        ({"guidance": 10**400}, InputError),
        ({"sketch_guidance": 10**5000}, InputError),
        ({"guidance": math.inf}, InputError),
        ({"steps": 10**400}, InputError),
        ({"seed": 10**5000}, InputError),
        ({"seed": -1}, InputError),
        ({"seed": 2**63}, InputError),
    ],
)
def test_orders_beyond_them_are_refused(changed, kind) -> None:
    with pytest.raises(kind):
        checked(order(**changed), Limits())


@pytest.mark.parametrize(
    "value", [2.5, math.inf, math.nan, "7", None, True, [1], pytest.param([10**5000], id="huge")]
)
def test_whole_numbers_only(value) -> None:
    assert whole("steps", 3.0) == 3
    with pytest.raises(InputError, match="steps"):
        whole("steps", value)
