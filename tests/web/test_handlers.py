"""What the page does when something else happened meanwhile."""

from __future__ import annotations

import asyncio
import zipfile
from concurrent.futures import ThreadPoolExecutor
from unittest.mock import MagicMock

import gradio as gr
import pytest

from scribblediffusion.errors import GalleryError
from scribblediffusion.gallery import Gallery
from scribblediffusion.web.asking import field_of
from scribblediffusion.web.handlers import Handlers
from scribblediffusion.web.limits import Order
from scribblediffusion.web.outgoing import write_zip
from scribblediffusion.web.painter import Painted
from scribblediffusion.web.shelf import Shelf
from scribblediffusion.web.studio import Studio
from scribblediffusion.web.visitors import COOKIE, NOBODY, Visitors, digest, new_token
from scribblediffusion.web.worker import Finished, Waiting


class Names(dict):
    """Stands for the page's components: each is its own name."""

    def __missing__(self, name: str) -> str:
        return name


@pytest.fixture
def page():
    studio = MagicMock()
    studio.worker.jobs_of.return_value = ()
    with ThreadPoolExecutor(1) as studio.packing:
        made = Handlers(studio)
        made.parts = Names()
        yield made


def asked(token: str) -> MagicMock:
    return MagicMock(headers={"cookie": f"{COOKIE}={token}"}, username=None, session_hash="page")


async def updates(source) -> list[dict]:
    return [update async for update in source]


def test_a_deleted_original_is_a_sentence_and_one_may_go_on(page: Handlers, bare_trace) -> None:
    order = Order("a kite", None, 2, 3.0, 1.5, 7, note={"without": "the word “red”"})
    painted = Painted(MagicMock(id="new"), bare_trace, order)

    async def news():
        yield Finished(painted)

    page.studio.without.return_value = order
    page.studio.submit.return_value.news = news
    page.studio.visitors.seen.side_effect = GalleryError("there is no such run here")
    event = gr.EventData(None, {"run": "old", "without": {"word": 1}})
    last = asyncio.run(updates(page.without(asked(new_token()), event)))[-1]
    assert last["status"]["kind"] == "error"
    assert "no such run" in last["status"]["text"]
    assert last["go"]["interactive"] is True
    assert last["halt"]["interactive"] is False


def test_stop_reaches_every_order_of_the_visitor(page: Handlers) -> None:
    token = new_token()
    asyncio.run(page.stop(asked(token)))
    page.studio.worker.stop.assert_called_once_with(digest(token))


def test_a_page_that_is_opened_again_can_stop_what_goes_on(page: Handlers) -> None:
    page.shelf = MagicMock()
    for jobs in ((), (MagicMock(),)):
        page.studio.worker.jobs_of.return_value = jobs
        first = asyncio.run(updates(page.visit("", asked(new_token()))))[0]
        assert first["halt"]["interactive"] is bool(jobs)
        assert first["go"]["interactive"] is True


def test_a_second_order_of_the_same_page_waits_for_the_first(page: Handlers) -> None:
    page.studio.without.return_value = Order("a kite", None, 2, 3.0, 1.5, 7)

    async def news():
        yield Waiting(1)
        yield Waiting(0)

    page.studio.submit.return_value.news = news
    event = gr.EventData(None, {"run": "old", "without": {"word": 1}})

    async def twice() -> list[dict]:
        first = page.without(asked(new_token()), event)
        await anext(first)
        second = await updates(page.without(asked(new_token()), event))
        await first.aclose()
        return second

    assert [u["go"]["interactive"] for u in asyncio.run(twice())] == [False]
    assert page.studio.submit.call_count == 1
    asyncio.run(updates(page.without(asked(new_token()), event)))
    assert page.studio.submit.call_count == 2


@pytest.mark.parametrize("sent", [None, [], "x", 7])
def test_an_event_without_fields_has_none(sent) -> None:
    assert field_of(gr.EventData(None, sent), "id") is None


def test_a_folder_of_a_model_is_offered_by_its_name(tmp_path) -> None:
    folders = [tmp_path / part / "mine" for part in ("a", "b")]
    for folder in folders:
        folder.mkdir(parents=True)
    asked = {"shipped model": None, "./mine": str(folders[0]), "hub/id": "hub/id"}
    studio = Studio(tmp_path, models=asked | {"../b/mine": str(folders[1])}, load=MagicMock())
    studio.close()
    assert list(studio.models) == ["shipped model", "mine", "hub/id", "mine (another)"]
    assert list(studio.models.values()) == [None, str(folders[0]), "hub/id", str(folders[1])]


def test_a_run_that_leaves_says_nothing_of_this_machine(tmp_path, bare_trace) -> None:
    here, there = Gallery(tmp_path / "here"), Gallery(tmp_path / "there")
    secret = str(tmp_path / "secret" / "model")
    run = here.add(bare_trace, settings={"visitor": "0123456789abcdef", "model": secret})
    write_zip(here, run, tmp_path / "run.zip", {"mine": secret})
    with zipfile.ZipFile(tmp_path / "run.zip") as archive:
        content = b"".join(archive.read(name) for name in archive.namelist())
    assert b"0123456789abcdef" not in content
    assert str(tmp_path).encode() not in content
    other = there.import_zip(tmp_path / "run.zip")
    assert other.record["settings"]["model"] == "mine"
    assert len(other.open().steps) == len(bare_trace.steps)


def test_more_runs_than_a_page_holds_are_paged(tmp_path, bare_trace) -> None:
    gallery = Gallery(tmp_path)
    for _ in range(26):
        gallery.add(bare_trace)
    shelf = Shelf(MagicMock(visitors=Visitors(gallery, local=True)))
    first, last = shelf.value(NOBODY), shelf.value(NOBODY, page=9)
    assert (first["page"], first["pages"], first["total"], len(first["runs"])) == (1, 2, 26, 24)
    assert (last["page"], len(last["runs"])) == (2, 2)
    assert len({run["id"] for run in first["runs"] + last["runs"]}) == 26
