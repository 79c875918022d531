"""What the page does when something else happened meanwhile."""

from __future__ import annotations

import asyncio
import errno
import json
import os
import threading
import time
import zipfile
from concurrent.futures import ThreadPoolExecutor
from unittest.mock import AsyncMock, MagicMock

import gradio as gr
import httpx
import numpy as np
import pytest
from fastapi import FastAPI
from gradio.exceptions import ComponentProcessingError
from painted import make_trace
from running import free_port
from starlette.datastructures import Headers

from scribblediffusion.errors import (
    GalleryError,
    InputError,
    PromptError,
    SettingError,
    WeightsError,
)
from scribblediffusion.gallery import Gallery, manifest
from scribblediffusion.gallery.durable import told_clearly
from scribblediffusion.web import asking
from scribblediffusion.web.asking import field_of
from scribblediffusion.web.clearly import clearly
from scribblediffusion.web.files import routes
from scribblediffusion.web.guard import Guard
from scribblediffusion.web.handlers import Handlers, _seed
from scribblediffusion.web.limits import Limits, Order, checked
from scribblediffusion.web.outgoing import write_zip
from scribblediffusion.web.page import Page
from scribblediffusion.web.painter import Painted
from scribblediffusion.web.sentences import said
from scribblediffusion.web.server import Options, serve
from scribblediffusion.web.shelf import Shelf
from scribblediffusion.web.studio import Studio
from scribblediffusion.web.visitors import COOKIE, NOBODY, Visitors, digest, new_token
from scribblediffusion.web.worker import Failed, Finished, Running, Waiting


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
        page.shelf.show_shelf = AsyncMock()
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

    told = asyncio.run(twice())
    assert [u["go"]["interactive"] for u in told] == [False]
    assert "One picture at a time" in told[0]["status"]["text"]
    assert page.studio.submit.call_count == 1
    asyncio.run(updates(page.without(asked(new_token()), event)))
    assert page.studio.submit.call_count == 2


def opens(page: Handlers, run_id: str):
    return page.open_run(asked(new_token()), gr.EventData(None, {"id": run_id}))


@pytest.fixture
def runs(page: Handlers):
    """Runs of any id: what each shows is its id, as soon as `held` does not hold it any more."""
    held = {}

    def packed(run) -> str:
        held.get(run.id, threading.Event()).wait(0 if run.id not in held else 5)
        return run.id

    page.studio.visitors.seen.side_effect = lambda _, run_id: MagicMock(id=run_id, seed=7)
    page.studio.packed.side_effect = packed
    page.studio.views.side_effect = GalleryError("there is nothing to draw")
    page.studio.trace.return_value = MagicMock(picture=None)
    page.studio.models = {"shipped model": None}
    page._restored = lambda run: {"prompt": run.id, "status": said("done", "Opened.")}
    with ThreadPoolExecutor(4) as page.studio.packing, ThreadPoolExecutor(1) as drawing:
        page.studio.drawing = drawing
        yield held


def test_the_tab_is_changed_once(page: Handlers, runs) -> None:
    told = asyncio.run(updates(opens(page, "one")))
    assert ["tabs" in update for update in told] == [True, False]


def test_of_two_runs_that_are_opened_the_last_one_is_shown(page: Handlers, runs) -> None:
    runs["slow"] = threading.Event()

    async def both() -> list[list[dict]]:
        slow = asyncio.create_task(updates(opens(page, "slow")))
        await asyncio.sleep(0.05)
        fast = await updates(opens(page, "fast"))
        runs["slow"].set()
        return [await slow, fast]

    slow, fast = asyncio.run(both())
    assert slow == []
    assert fast[0]["explorer"] == "fast"


@pytest.mark.parametrize("opened", ["another", "gone"])
def test_a_run_that_is_opened_while_one_is_under_way_stays(
    page: Handlers, runs, bare_trace, opened: str
) -> None:
    order = Order("a kite", None, 2, 3.0, 1.5, 7)
    frames = [{"live": n} for n in range(2)]

    async def news():
        yield Running(1, 2, 1.0, frames[0])
        yield Running(2, 2, 0.5, frames[1])
        yield Finished(Painted(MagicMock(id="new"), bare_trace, order))

    def seen(_, run_id: str):
        if run_id == "gone":
            raise GalleryError("there is no such run here")
        return MagicMock(id=run_id, seed=7)

    page.studio.visitors.seen.side_effect = seen
    page.studio.submit.return_value.news = news
    nothing = {"background": None, "layers": [], "composite": None}
    given = (nothing, False, None, "a kite", 2, 3.0, 1.5, "7", "", False, "", asked(new_token()))

    async def meanwhile() -> list[dict]:
        run = page.generate(*given)
        first = await anext(run)
        assert first["explorer"] is frames[0]
        told = await updates(opens(page, opened))
        assert ("explorer" in told[0]) is (opened == "another")
        return await updates(run)

    told = asyncio.run(meanwhile())
    assert told[0]["status"]["text"] == "Noise remaining: 50%"
    if opened == "another":
        assert not any("explorer" in update or "run_id" in update for update in told)
        assert "It is in the gallery" in told[-1]["status"]["text"]
    else:  # nothing came instead of it
        assert told[0]["explorer"] is frames[1]
        assert told[1]["explorer"] == "new"
    assert any(update.get("go", {}).get("interactive") for update in told)


def test_what_is_asked_for_meanwhile_is_answered_as_long_as_one_is_under_way(page) -> None:
    page.studio.without.return_value = Order("a kite", None, 2, 3.0, 1.5, 7)

    async def news():
        yield Running(1, 2, 1.0)
        yield Running(2, 2, 0.5)

    page.studio.submit.return_value.news = news
    event = gr.EventData(None, {"run": "old", "without": {"word": 1}})

    async def twice() -> list[str]:
        first = page.without(asked(new_token()), event)
        told = [await anext(first)]
        told += await updates(page.without(asked(new_token()), event))
        told += await updates(first)
        return [update["status"]["text"] for update in told]

    alone, second, later = asyncio.run(twice())
    assert alone == "Noise remaining: 100%"
    assert second.startswith("One picture at a time")
    assert later == f"Noise remaining: 50% · {second}"


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


@pytest.mark.parametrize("typed", ["9" * 5000, "1" * 20, "many", "²"])
def test_a_seed_that_is_none_is_a_sentence(typed: str) -> None:
    with pytest.raises(SettingError, match="is not a whole number"):
        _seed(typed)


def test_seeds_as_they_are_typed() -> None:
    assert _seed(" 007 ") == 7
    assert _seed(str(2**63 - 1)) == 2**63 - 1
    assert 0 <= _seed("") < 10**9


@pytest.mark.parametrize("model", [["shipped model"], {"a": 1}, 7, None, "another"])
def test_a_model_that_is_not_offered_is_a_sentence(tmp_path, model) -> None:
    studio = Studio(tmp_path, load=MagicMock())
    try:
        with pytest.raises(InputError, match="model"):
            studio.submit(NOBODY, Order("a kite", None, 2, 3.0, 1.5, 7, model=model))
    finally:
        studio.close()


def test_what_is_remembered_is_bounded_by_its_size(tmp_path) -> None:
    one = make_trace(steps=2)
    studio = Studio(tmp_path, limits=Limits(attention=2 * one.nbytes), load=MagicMock())
    try:
        runs = [studio.gallery.add(one) for _ in range(3)]
        for run in runs:
            studio.trace(run)
        assert list(studio._traces) == [run.id for run in runs[1:]]
        large = make_trace(steps=8)
        studio.keep(Painted(runs[0], large, MagicMock()))
        assert list(studio._traces) == [runs[0].id]
    finally:
        studio.close()


@pytest.fixture
def shelf(tmp_path, bare_trace):
    """A shelf of three runs, and how a page asks for it."""
    gallery = Gallery(tmp_path)
    for _ in range(3):
        gallery.add(bare_trace)
    studio = MagicMock(gallery=gallery, visitors=Visitors(gallery, local=True))
    with ThreadPoolExecutor(1) as studio.packing:
        made = Shelf(studio)

        def ask(name: str, value: dict, **sent) -> dict:
            event = gr.EventData(None, sent)
            return asyncio.run(getattr(made, name)(value, asked(new_token()), event))

        yield made, ask


def test_undo_is_offered_as_long_as_the_run_is_in_the_bin(shelf) -> None:
    made, ask = shelf
    value = made.value(NOBODY)
    run = value["runs"][0]["id"]
    value = ask("remove", value, id=run)
    assert value["undo"]["id"] == run
    value = ask("turn", value, page=1, words="kite")
    value = ask("turn", value, page=1, words="")
    value = asyncio.run(made.show_shelf(value, asked(new_token())))
    assert value["undo"]["id"] == run
    assert value["total"] == 2
    back = ask("restore", value, id=run)
    assert (back["undo"], back["total"], back["message"]) == (None, 3, "")
    assert "not in the bin any more" in ask("restore", value, id=run)["message"]
    made.studio.gallery.delete(run)
    made.studio.gallery.empty_bin()
    assert asyncio.run(made.show_shelf(value, asked(new_token())))["undo"] is None


def test_what_the_gallery_cannot_do_is_a_sentence(shelf) -> None:
    made, ask = shelf
    value = made.value(NOBODY)
    told = ask("remove", value, id="0" * 26)
    assert "no such run" in told["message"]
    assert told["total"] == 3
    made.studio.visitors = MagicMock()
    made.studio.visitors.runs.side_effect = GalleryError("the disk cannot be read")
    for name in ("turn", "remove", "restore"):
        told = ask(name, value, id=value["runs"][0]["id"])
        assert told["message"] == "the disk cannot be read"
        assert told["runs"] == value["runs"]


def test_what_others_deleted_is_not_brought_back(tmp_path, bare_trace) -> None:
    gallery = Gallery(tmp_path)
    run = gallery.add(bare_trace, settings={"visitor": "ada"})
    gallery.delete(run.id)
    shelf = Shelf(MagicMock(gallery=gallery, visitors=Visitors(gallery, local=False)))
    assert shelf.value("ada", undo=run.id)["undo"] is not None
    for odd in (run.id, run.id[:8], "", None, ["x"], {"id": run.id}):
        assert shelf.value("bob", undo=odd)["undo"] is None


def test_a_delete_is_undone_after_the_page_was_opened_again(shelf, monkeypatch) -> None:
    made, ask = shelf
    value = made.value(NOBODY)
    first, last = value["runs"][0]["id"], value["runs"][1]["id"]
    for run in (first, last):
        ask("remove", value, id=run)
        time.sleep(0.02)  # the clock of a file system is coarse
    opened = made.value(NOBODY)
    assert opened["undo"]["id"] == last
    back = ask("restore", opened, id=last)
    assert (back["undo"], back["total"]) == (None, 2)
    now = time.time()
    monkeypatch.setattr(time, "time", lambda: now + 3700)
    assert made.value(NOBODY)["undo"] is None


def odd_record(run, **parts) -> None:
    """A run's record as somebody else may have written it, and a manifest that says so."""
    record = json.loads((run.folder / "run.json").read_text()) | parts
    (run.folder / "run.json").write_text(json.dumps(record))
    manifest.write(run.folder)


ODD = [
    {"complete": False, "steps": {"a": 1}},
    {"complete": False, "steps": [7]},
    {"complete": False, "steps": [{"noise_remaining": 10**400}]},
    {"settings": [1], "steps": "many"},
    {"settings": {"guidance_scale": {"path": "/etc/passwd"}}},
]


@pytest.mark.parametrize("parts", ODD)
def test_an_odd_record_breaks_neither_the_shelf_nor_its_own_page(tmp_path, parts: dict) -> None:
    studio = Studio(tmp_path, load=MagicMock())
    try:
        run, other = studio.gallery.add(make_trace()), studio.gallery.add(make_trace())
        odd_record(run, **parts)
        made = Handlers(studio)
        made.parts = Names()
        made._drawn = AsyncMock(return_value={})
        first, shown, _ = asyncio.run(updates(made.visit(run.id, asked(new_token()))))
        assert {card["id"] for card in first["shelf"]["runs"]} == {run.id, other.id}
        assert shown["status"]["text"].startswith("Opened")
        assert "passwd" not in json.dumps(shown["entry"])
    finally:
        studio.close()


def test_a_run_that_cannot_be_read_is_left_out(shelf, monkeypatch) -> None:
    made, _ = shelf
    bad = made.value(NOBODY)["runs"][1]["id"]

    def noise_left(run) -> None:
        if run.id == bad:
            raise LookupError("odd")

    monkeypatch.setattr("scribblediffusion.web.shelf.noise_left", noise_left)
    for run in made.studio.gallery:
        odd_record(run, complete=False)
    assert len(made.value(NOBODY)["runs"]) == 2


@pytest.mark.parametrize("wrong", [GalleryError("the disk cannot be read"), OSError(5, "no disk")])
def test_a_gallery_that_cannot_be_read_leaves_the_page_and_its_link(page, runs, wrong) -> None:
    page.studio.visitors.runs.side_effect = wrong
    page.studio.visitors.by_link.side_effect = lambda _, run_id: MagicMock(id=run_id, seed=7)
    first, shown, _ = asyncio.run(updates(page.visit("one", asked(new_token()))))
    assert first["shelf"]["runs"] == []
    assert "disk" in first["shelf"]["message"]
    assert shown["explorer"] == "one"


FULL = OSError(errno.ENOSPC, "No space left on device", "/home/ada/gallery/.tmp/x/image.png")


def test_a_full_disk_is_told_beside_the_picture(page: Handlers, runs, bare_trace) -> None:
    page.studio.views.side_effect = FULL
    painted = Painted(MagicMock(id="new"), bare_trace, Order("a kite", None, 2, 3.0, 1.5, 7))

    async def news():
        yield Finished(painted)

    page.studio.submit.return_value.news = news
    given = ({}, False, None, "a kite", 2, 3.0, 1.5, "7", "", False, "", asked(new_token()))
    told = asyncio.run(updates(page.generate(*given)))
    first = next(update for update in told if "explorer" in update)
    assert first["go"]["interactive"] is True
    assert "picture" not in first
    assert first["run_id"] == "new"
    last = told[-1]["status"]
    assert (last["kind"], told[-1]["gif"]) == (first["status"]["kind"], None)
    assert "No evolution and no analysis: the disk is full" in last["text"]


def test_no_sentence_names_a_place_of_this_machine() -> None:
    for number in (errno.ENOSPC, errno.EROFS, errno.EIO):
        with pytest.raises(GalleryError) as raised, told_clearly("save the run"):
            raise OSError(number, "it failed", "/home/ada/my gallery/.tmp/x/image.png")
        assert "ada" not in clearly(raised.value)
    assert "the gallery may not be written to" in clearly(raised_by(errno.EACCES))
    assert clearly(WeightsError("/srv/models/mine: damaged")) == "mine: damaged"
    assert clearly(GalleryError("and/or, 1/2, /?run=x")) == "and/or, 1/2, /?run=x"
    assert clearly(FULL) == "the disk is full; free some space, then try again"


def raised_by(number: int) -> GalleryError:
    """What the gallery makes of what the file system refuses."""
    try:
        with told_clearly("save the run"):
            raise OSError(number, "it failed", "/home/ada/my gallery/.tmp/x/image.png")
    except GalleryError as error:
        return error


def test_a_file_without_room_on_the_page_is_a_sentence(monkeypatch) -> None:
    async def full(*_args, **_kwargs) -> None:
        try:
            raise FULL
        except OSError as error:
            raise ComponentProcessingError("a picture") from error

    monkeypatch.setattr(gr.Blocks, "postprocess_data", full)
    with pytest.raises(gr.Error, match="the disk is full"):
        asyncio.run(Page.postprocess_data(MagicMock(spec=Page)))


def asked_for(gallery: Gallery, path: str, temporary) -> httpx.Response:
    """What the routes of a gallery's runs answer."""
    studio, app = MagicMock(gallery=gallery, visitors=Visitors(gallery, local=True)), FastAPI()
    app.include_router(routes(studio, app, temporary))

    async def answer() -> httpx.Response:
        async with httpx.AsyncClient(transport=httpx.ASGITransport(app)) as client:
            return await client.get(f"http://studio/runs/{path}")

    return asyncio.run(answer())


@pytest.mark.parametrize("wrong", [FULL, None])
def test_a_zip_without_room_is_a_sentence(tmp_path, bare_trace, monkeypatch, wrong) -> None:
    gallery = Gallery(tmp_path / "gallery")
    run = gallery.add(bare_trace)

    def packed(_gallery, _run, path, _models) -> None:
        path.write_bytes(b"half")
        raise wrong or raised_by(errno.ENOSPC)

    monkeypatch.setattr("scribblediffusion.web.outgoing.write_zip", packed)
    temporary = tmp_path / "temporary"
    temporary.mkdir()
    told = asked_for(gallery, f"{run.id}/run.zip", temporary)
    assert told.status_code == 507
    assert "the disk is full" in told.json()["detail"]
    assert not list(temporary.iterdir())


def test_who_brings_no_cookie_is_counted_by_address() -> None:
    seen = []

    async def behind(scope, _receive, _send) -> None:
        seen.append(asking.among(MagicMock(headers=Headers(scope=scope), username=None)))

    guard = Guard(behind, Limits())
    forged = (b"x-scribble-new", b"10.0.0.9")
    cookie = (b"cookie", f"{COOKIE}={new_token()}".encode())
    for headers in ([], [forged], [forged, cookie]):
        scope = {"type": "http", "path": "/x", "headers": headers, "client": ("10.0.0.1", 1)}
        asyncio.run(guard(scope, AsyncMock(), AsyncMock()))
    assert seen == ["10.0.0.1", "10.0.0.1", ""]


@pytest.mark.parametrize("prompt", ["a cat \ud83d", "\udc00"])
def test_half_a_sign_is_a_sentence(prompt: str) -> None:
    with pytest.raises(PromptError, match="half of a character"):
        checked(Order(prompt, None, 2, 3.0, 1.5, 7), Limits())


def test_a_photo_of_twelve_megapixels_is_read() -> None:
    assert Limits().pixels >= 4032 * 3024


def test_plain_files_of_a_folder_alone_are_uploads(tmp_path) -> None:
    folder, outside = tmp_path / "uploads", tmp_path / "secret.png"
    folder.mkdir()
    for file in (folder / "a.png", outside):
        file.write_text("x")
    (folder / "link.png").symlink_to(outside)
    (folder / "circle").symlink_to(folder / "circle")
    os.mkfifo(folder / "pipe")
    assert asking.is_uploaded(str(folder / "a.png"), str(folder))
    names = ("link.png", "circle", "pipe", "gone", "", "../secret.png", "x" * 6000, "\0", "\ud83d")
    assert not any(asking.is_uploaded(str(folder / name), str(folder)) for name in names)


def test_a_gallery_without_room_is_told_before_the_studio_starts(tmp_path) -> None:
    (tmp_path / "file").write_text("in the way")
    for place in (tmp_path / "file", tmp_path / "file" / "gallery"):
        with pytest.raises(GalleryError, match=r"not a gallery|cannot keep runs in"):
            serve(Options(port=free_port(), gallery=place))


@pytest.mark.parametrize("ends", ["told", "raised"])
def test_a_run_that_fails_half_way_leaves_no_explorer_that_seems_alive(page, ends) -> None:
    async def news():
        yield Running(1, 4, 1.0, {"live": "a frame"})
        if ends == "raised":
            raise FULL
        yield Failed("the disk is full")

    page.studio.submit.return_value.news = news
    given = ({}, False, None, "a kite", 2, 3.0, 1.5, "7", "", False, "", asked(new_token()))
    first, last = asyncio.run(updates(page.generate(*given)))
    assert first["explorer"] == {"live": "a frame"}
    assert last["explorer"] is None
    assert "the disk is full" in last["status"]["text"]


def test_the_thumbnail_of_a_damaged_picture_is_a_sentence(tmp_path, bare_trace) -> None:
    gallery = Gallery(tmp_path / "gallery")
    run = gallery.add(bare_trace, picture=np.full((256, 256, 3), 200, np.uint8))
    assert run.image is not None
    run.image.write_bytes(run.image.read_bytes()[:90])
    told = asked_for(gallery, f"{run.id}/thumbnail.webp", tmp_path)
    assert (told.status_code, told.json()["detail"]) == (404, "this run's picture is damaged")
