"""What the server lets nobody do: sizes, hosts, origins, other people's runs, closed doors."""

from __future__ import annotations

import asyncio
import json
import os
import re
import socket
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from unittest.mock import MagicMock

import httpx
import pytest
from running import Served, free_port

from scribblediffusion.errors import InputError
from scribblediffusion.gallery import Gallery
from scribblediffusion.web.guard import Guard
from scribblediffusion.web.limits import Limits
from scribblediffusion.web.server import Options, left_behind, serve, swept
from scribblediffusion.web.studio import VIEWS

pytestmark = pytest.mark.slow


def test_the_page_and_its_headers(served: Served) -> None:
    answer = httpx.get(served.url)
    assert answer.status_code == 200
    assert "default-src 'self'" in answer.headers["content-security-policy"]
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert "HttpOnly; SameSite=Lax" in answer.headers["set-cookie"]
    assert "fonts.googleapis" not in answer.text


@pytest.mark.parametrize("path", ["", "gradio_api/queue/join", "gradio_api/upload", "runs/x"])
def test_other_origins_and_hosts_are_refused(served: Served, path: str) -> None:
    url = served.url + path
    assert httpx.get(url, headers={"Origin": "https://example.com"}).status_code == 403
    assert httpx.get(url, headers={"Host": "example.com"}).status_code == 421
    assert httpx.get(url, headers={"Origin": "http://["}).status_code == 403
    asked = {"Origin": "https://example.com", "Access-Control-Request-Method": "POST"}
    answer = httpx.options(url, headers=asked)
    assert answer.status_code == 403
    assert "access-control-allow-origin" not in answer.headers


def test_one_name_of_this_machine_so_that_the_gallery_is_one(served: Served) -> None:
    asked = {"Host": f"localhost:{served.port}", "Accept": "text/html,*/*"}
    answer = httpx.get(served.url + "?run=x&__theme=dark", headers=asked)
    assert answer.status_code == 307
    assert answer.headers["location"] == served.url + "?run=x&__theme=dark"
    assert httpx.get(served.url + "config", headers=asked).status_code == 200


def test_this_machine_alone_unless_told_otherwise() -> None:
    assert Options().host == "127.0.0.1"
    assert Options().local
    assert not Options(host="0.0.0.0").local
    assert not Options(auth=(("ada", "lovelace"),)).local


def test_a_file_name_is_no_markup(served: Served) -> None:
    files = {"files": ("<img src=x onerror=alert(1)>.svg", b"<svg onload='alert(2)'/>")}
    sent = httpx.post(served.url + "gradio_api/upload", files=files)
    assert sent.status_code == 200
    assert not set("<>\"'&") & set(sent.json()[0])
    back = httpx.get(f"{served.url}gradio_api/file={sent.json()[0]}")
    kept = back.headers.get("content-disposition", "").startswith("attachment")
    assert kept or "svg" not in back.headers["content-type"]


def test_large_bodies_are_refused(served: Served) -> None:
    body = b"x" * 2_100_000
    assert httpx.post(served.url + "gradio_api/queue/join", content=body).status_code == 413

    def unannounced():
        for _ in range(30):
            yield b"x" * 100_000

    try:
        code = httpx.post(served.url + "gradio_api/queue/join", content=unannounced()).status_code
    except httpx.HTTPError:
        code = 413  # the connection was closed in the middle
    assert code >= 400
    files = {"files": ("a.png", b"x" * 15_200_000)}
    assert httpx.post(served.url + "gradio_api/upload", files=files).status_code == 413


FORM = "multipart/form-data; boundary=b"


def guarded(limits: Limits) -> Any:
    """`status(path, size, …)` of a request to a guard with nothing behind it."""

    async def behind(scope: Any, receive: Any, send: Any) -> None:
        while (await receive()).get("more_body"):
            pass
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b""})

    guard = Guard(behind, limits)

    async def status(path: str, size: int, address: str, kind: str) -> int:
        transport = httpx.ASGITransport(guard, client=(address, 1))
        async with httpx.AsyncClient(transport=transport) as client:
            url, headers = f"http://studio/gradio_api/{path}", {"Content-Type": kind}
            return (await client.post(url, content=b"x" * size, headers=headers)).status_code

    def asked(path: str, size: int = 1, address: str = "10.0.0.1", kind: str = FORM) -> int:
        return asyncio.run(status(path, size, address, kind))

    return asked


def test_uploads_have_an_end_and_maps_have_none() -> None:
    status = guarded(Limits(upload=1000, held=102_000))
    assert status("upload", 1001) == 200
    assert status("upload") == status("component_server/", address="10.0.0.2") == 507
    assert status("queue/join") == 200
    assert status("component_server", 1500, kind="application/json") == 200


def test_one_address_cannot_send_without_end() -> None:
    status = guarded(Limits(sent=1000))
    assert status("component_server/", 900, "10.0.0.1") == 200
    assert status("upload", 200, "10.0.0.1") == 200
    assert status("component_server/", 1, "10.0.0.1") == status("upload") == 429
    assert status("queue/join", 1, "10.0.0.1") == 200
    assert status("component_server", kind="application/json") == 200
    assert status("component_server/", 900, "10.0.0.2") == 200


@pytest.mark.parametrize(
    "path",
    [
        "gradio_api/proxy=https://example.com/",
        "gradio_api/vibe-code/",
        "gradio_api/dev/reload",
        "gradio_api/run-history/buckets",
        "gradio_api/deep_link",
        "docs",
        "redoc",
        "gradio_api/file=/etc/passwd",
        "gradio_api/file=../../../../etc/passwd",
        "gradio_api/file=pyproject.toml",
    ],
)
def test_closed_doors(served: Served, path: str) -> None:
    answer = httpx.get(served.url + path)
    assert answer.status_code in (403, 404)
    assert "root:" not in answer.text


def test_nothing_of_the_gallery_is_served_as_a_file(served: Served) -> None:
    served.gallery.mkdir(exist_ok=True)
    secret = served.gallery / "secret.txt"
    secret.write_text("attention")
    for path in (secret, Path(os.path.relpath(secret))):
        answer = httpx.get(f"{served.url}gradio_api/file={path}")
        assert answer.status_code in (403, 404)


def test_the_openapi_tells_of_runs_alone(served: Served) -> None:
    told = httpx.get(served.url + "openapi.json").json()
    assert all(path.startswith("/runs/{run_id}") for path in told["paths"])
    assert set(told["paths"]["/runs/{run_id}"]) == {"get"}


@pytest.fixture
def run(served: Served) -> Iterator[str]:
    """A run that whoever asks from this machine may see."""
    gradio_client = pytest.importorskip("gradio_client")
    program = gradio_client.Client(served.url, verbose=False)
    nothing = {"background": None, "layers": [], "composite": None}
    entry = program.predict(nothing, "a red apple", 2, 3.0, 7, api_name="/generate_image")[3]
    yield entry["id"]
    Gallery(served.gallery).delete(entry["id"])


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::ResourceWarning")
@pytest.mark.parametrize("there", [False, True], ids=["any run", "a run that is there"])
def test_schemathesis_finds_nothing(served: Served, run: str, there: bool) -> None:
    schemathesis = pytest.importorskip("schemathesis")
    from hypothesis import HealthCheck, Phase, given, settings

    schema = schemathesis.openapi.from_url(served.url + "openapi.json")
    quick = settings(
        max_examples=15,
        deadline=None,
        database=None,
        derandomize=True,
        phases=[Phase.explicit, Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    count = 0
    for result in schema.get_all_operations():
        operation = result.ok()

        @quick
        @given(case=operation.as_strategy())
        def check(case) -> None:
            if there:
                case.path_parameters["run_id"] = run
            case.call_and_validate()

        check()
        count += 1
    assert count == 7


@pytest.mark.long
def test_logging_in_is_asked_for(tmp_path: Path) -> None:
    with Served(tmp_path, free_port(), "small", "auth") as served:
        assert httpx.get(served.url + "gradio_api/info").status_code == 401
        run = f"{served.url}runs/{'0' * 26}/image.png"
        assert httpx.get(run).status_code == 401
        with httpx.Client() as ada:
            wrong = {"username": "ada", "password": "no"}
            assert ada.post(served.url + "login", data=wrong).status_code == 400
            right = {"username": "ada", "password": "lovelace"}
            assert ada.post(served.url + "login", data=right).status_code == 200
            assert ada.get(served.url + "gradio_api/info").status_code == 200
            assert ada.get(run).status_code == 404


@pytest.mark.long
@pytest.mark.skipif(sys.platform != "linux", reason="127.0.0.2 is the loopback on Linux alone")
def test_a_server_before_it_as_the_guide_has_it(tmp_path: Path) -> None:
    guide = (Path(__file__).parents[2] / "docs" / "studio.md").read_text(encoding="utf-8")
    seen = {"$http_host": "studio.example.org", "$scheme": "https", "$remote_addr": "192.0.2.7"}
    passed = re.findall(r"proxy_set_header (\S+) (\S+);", guide)
    headers = {name: seen[variable] for name, variable in passed}
    own, other = ({"Origin": f"https://{name}"} for name in (seen["$http_host"], "example.com"))
    with Served(tmp_path, free_port(), "small", "auth", "behind") as served, httpx.Client() as ada:
        ada.headers.update(headers)
        login = {"username": "ada", "password": "lovelace"}
        assert ada.post(served.url + "login", data=login, headers=other).status_code == 403
        assert ada.post(served.url + "login", data=login, headers=own).status_code == 200
        assert ada.get(served.url, headers={"Accept": "text/html"}).status_code == 200
        assert ada.get(served.url + "config").json()["root"] == "https://studio.example.org"
        files = {"files": ("a.png", b"x")}
        sent = ada.post(served.url + "gradio_api/upload", files=files, headers=own)
        assert sent.status_code == 200


def test_an_upload_that_is_broken_off_is_no_error(served: Served) -> None:
    begun = (
        "POST /gradio_api/upload HTTP/1.1\r\nContent-Length: 9000\r\n"
        f"Host: 127.0.0.1:{served.port}\r\n"
        "Content-Type: multipart/form-data; boundary=b\r\n\r\n"
        '--b\r\nContent-Disposition: form-data; name="files"; filename="x.png"\r\n\r\n'
    )
    with socket.create_connection(("127.0.0.1", served.port)) as connection:
        connection.sendall(begun.encode() + b"x" * 1000)
        time.sleep(0.5)
    assert httpx.get(served.url).status_code == 200
    time.sleep(0.5)
    assert "Disconnect" not in served.log.read_text()


def test_old_temporary_files_are_swept(tmp_path: Path) -> None:
    old, new = tmp_path / "a" / "old.png", tmp_path / "b" / "new.png"
    for path in (old, new):
        path.parent.mkdir()
        path.write_text("x")
    os.utime(old, (time.time() - 100, time.time() - 100))
    assert swept(tmp_path, 50) == 1
    assert not old.parent.exists()
    assert new.exists()


def test_what_every_new_page_asks_for_is_not_swept(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setenv("GRADIO_TEMP_DIR", str(tmp_path / "temporary"))
    from scribblediffusion.web.page import build, lasting
    from scribblediffusion.web.studio import Studio

    studio = Studio(tmp_path / "gallery", load=lambda _: MagicMock())

    async def made() -> Any:
        """Inside a loop: outside of one, Gradio makes some that nobody closes."""
        return build(studio)

    try:
        sheets = lasting(asyncio.run(made()))
    finally:
        studio.close()
    assert sheets
    assert all(sheet.is_relative_to(tmp_path / "temporary") for sheet in sheets)
    for sheet in sheets:
        os.utime(sheet, (time.time() - 7200, time.time() - 7200))
    assert swept(tmp_path / "temporary", 3600, sheets) == 0
    assert all(sheet.is_file() for sheet in sheets)


def test_what_killed_servers_left_is_removed(tmp_path: Path) -> None:
    names = ("scribble-app-a", "scribble-app-b", "other-app", f"{VIEWS}a")
    dead, alive, other, views = (tmp_path / name for name in names)
    for folder in (dead, alive, other, views):
        folder.mkdir()
        (folder / "sheet.png").write_text("x")
    for folder in (dead, other, views):
        os.utime(folder, (time.time() - 1000, time.time() - 1000))
    assert left_behind(tmp_path, 500) == 2
    assert not dead.exists()
    assert not views.exists()
    assert alive.is_dir()
    assert other.is_dir()


def test_a_taken_port_is_told_before_an_address(served: Served) -> None:
    from typer.testing import CliRunner

    from scribblediffusion.cli import app

    told = CliRunner().invoke(app, ["app", "--port", str(served.port)])
    assert told.exit_code != 0
    assert "http://" not in told.output


def test_a_port_that_is_taken_is_a_sentence(served: Served) -> None:
    with pytest.raises(InputError, match=r"cannot listen .* try another with --port"):
        serve(Options(port=served.port))


def test_the_config_names_no_place_of_this_machine(served: Served) -> None:
    config = httpx.get(served.url + "config").text
    assert str(served.gallery) not in config
    assert json.loads(config)["title"] == "ScribbleDiffusion"


@pytest.mark.long
def test_a_server_that_stops_ends_what_pages_listen_to(tmp_path: Path) -> None:
    """Interrupted with a page open, it says nothing: no traceback of a broken stream."""
    server = Served(tmp_path / "g", free_port(), "small").start()
    try:
        with httpx.stream(
            "GET", server.url + "gradio_api/heartbeat/somebody", timeout=20
        ) as stream:
            pieces = stream.iter_raw()
            next(pieces)
            assert server.process is not None
            server.process.terminate()
            for _ in pieces:  # to its end, which is sent: else httpx raises
                pass
        server.process.wait(15)
    finally:
        server.stop()
    assert server.log.read_text() == ""
