"""The API as programs use it: `/generate_image` through gradio_client."""

from __future__ import annotations

import io
import json
import re
import shutil
import zipfile
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from PIL import Image
from running import SKETCHES, Served

from scribblediffusion.gallery import Gallery
from scribblediffusion.web.visitors import NOBODY, Visitors, digest, new_token

gradio_client = pytest.importorskip("gradio_client")

pytestmark = [
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]


@pytest.fixture(scope="module")
def client(served: Served):
    """A program of a visitor of its own: what it draws is in nobody else's gallery."""
    with httpx.Client() as visitor:
        return by_visitor(served, visitor)


def drawn(name: str = "apple.png") -> dict:
    file = gradio_client.handle_file(str(SKETCHES / name))
    return {"background": file, "layers": [], "composite": file}


def ask(client, sketch="apple.png", prompt="a red apple", steps=2, guidance=3.0, seed=7):
    sketch = drawn(sketch) if isinstance(sketch, str) else sketch
    return client.predict(sketch, prompt, steps, guidance, seed, api_name="/generate_image")


def test_four_outputs_are_what_they_say(client, served: Served) -> None:
    picture, gif, analysis, entry = ask(client)
    with Image.open(picture) as image:
        assert (image.format, image.size) == ("PNG", (256, 256))
    with Image.open(gif) as image:
        assert (image.format, image.n_frames) == ("GIF", 2)
    with Image.open(analysis) as image:
        assert image.format == "PNG"
        assert image.width > 800
    assert entry["prompt"] == "a red apple"
    assert entry["seed"] == 7
    assert entry["complete"] is True
    assert entry["settings"]["num_inference_steps"] == 2
    assert "rows sum to 1.0000" in entry["audit"]
    assert str(served.gallery) not in json.dumps(entry)


def test_same_seed_same_picture(client) -> None:
    pictures = [Path(ask(client, seed=seed)[0]).read_bytes() for seed in (7, 7, 8)]
    assert pictures[0] == pictures[1] != pictures[2]


def test_the_only_public_endpoint(client) -> None:
    told = client.view_api(return_format="dict", print_info=False)
    assert list(told["named_endpoints"]) == ["/generate_image"]
    names = [p["parameter_name"] for p in told["named_endpoints"]["/generate_image"]["parameters"]]
    assert names == ["sketch", "prompt", "num_inference_steps", "guidance_scale", "seed"]
    assert len(told["named_endpoints"]["/generate_image"]["returns"]) == 4


def test_layers_alone_are_a_drawing_too(client) -> None:
    file = gradio_client.handle_file(str(SKETCHES / "apple.png"))
    alone = {"background": None, "layers": [file], "composite": None}
    whole = Path(ask(client)[0]).read_bytes()
    assert Path(ask(client, alone)[0]).read_bytes() == whole


@pytest.mark.parametrize(
    ("given", "sentence"),
    [
        ({"steps": 101}, "choose from 1 to 100"),
        ({"steps": 0}, "choose from 1 to 100"),
        ({"steps": 2.5}, "not a whole number"),
        ({"guidance": 1e9}, "choose from 0 to 20"),
        ({"prompt": "x" * 501}, "at most 500 are read"),
        ({"seed": -5}, "choose from 0"),
        ({"seed": 2.5}, r"seed: '2\.5' is not a whole number"),
        ({"sketch": {"background": None, "layers": [], "composite": None}, "prompt": " "},
         "draw something"),
    ],
)  # fmt: skip
def test_what_cannot_be_used_is_a_sentence(client, given: dict, sentence: str) -> None:
    with pytest.raises(Exception, match=sentence):
        ask(client, **given)


def test_no_prompt_and_no_sketch_alone_are_fine(client) -> None:
    assert ask(client, prompt="")[3]["prompt"] == ""
    nothing = {"background": None, "layers": [], "composite": None}
    assert ask(client, nothing, prompt="a red apple")[3]["complete"] is True


def test_too_many_layers_and_bombs_are_refused(client, tmp_path: Path) -> None:
    file = gradio_client.handle_file(str(SKETCHES / "apple.png"))
    with pytest.raises(Exception, match="At most 6 layers"):
        ask(client, {"background": file, "layers": [file] * 7, "composite": file})
    bomb = tmp_path / "bomb.png"
    Image.new("1", (20_000, 20_000)).save(bomb)
    assert bomb.stat().st_size < 200_000
    wide = gradio_client.handle_file(str(bomb))
    with pytest.raises(Exception, match="at most 16 megapixels"):
        ask(client, {"background": None, "layers": [], "composite": wide})
    text = tmp_path / "not.png"
    text.write_text("this is no picture")
    bad = gradio_client.handle_file(str(text))
    with pytest.raises(Exception, match="no picture that can be read"):
        ask(client, {"background": bad, "layers": [], "composite": None})


def test_an_address_is_not_fetched(client) -> None:
    far = {"path": "https://example.com/a.png", "meta": {"_type": "gradio.FileData"}}
    with pytest.raises(Exception, match="uploaded, not named"):
        ask(client, {"background": far, "layers": [], "composite": None})


@pytest.mark.parametrize("place", range(5))
def test_no_input_makes_the_server_fetch(served: Served, place: int) -> None:
    data: list = [NOTHING, "a red apple", 2, 3.0, 7]
    far = {"path": "https://example.com/a.png", "meta": {"_type": "gradio.FileData"}}
    data[place] = [{"deep": far}] if place % 2 else far
    assert "uploaded, not named by its address" in told(served, data)


def told(served: Served, data: list) -> str:
    """What a program is told that sends raw values."""
    call = f"{served.url}gradio_api/call/generate_image"
    event = httpx.post(call, json={"data": data}).json()["event_id"]
    return httpx.get(f"{call}/{event}", timeout=60).text


def told_on_the_page(served: Served, data: list) -> str:
    """What a page is told that sends raw values with a press of Generate."""
    config = httpx.get(served.url + "config").json()
    go = next(p["id"] for p in config["components"] if p["props"].get("elem_id") == "studio-go")
    event = next(d["id"] for d in config["dependencies"] if [go, "click"] in d["targets"])
    session = {"session_hash": new_token()}
    asked = {"data": data, "fn_index": event, "trigger_id": go, **session}
    assert httpx.post(served.url + "gradio_api/queue/join", json=asked).status_code == 200
    return httpx.get(served.url + "gradio_api/queue/data", params=session, timeout=60).text


NOTHING = {"background": None, "layers": [], "composite": None}
OF_ANOTHER = "a picture of another visitor"


@pytest.fixture(params=["/etc/passwd", OF_ANOTHER, "/dev/zero"])
def not_uploaded(served: Served, request: pytest.FixtureRequest) -> Iterator[dict]:
    """A file of this machine, as if it had been uploaded."""
    picture = served.gallery / "2026-01-01" / "image.png"
    picture.parent.mkdir(parents=True, exist_ok=True)
    Image.new("L", (8, 8)).save(picture)
    place = str(picture) if request.param == OF_ANOTHER else request.param
    yield {"path": place, "meta": {"_type": "gradio.FileData"}}
    shutil.rmtree(picture.parent)


@pytest.mark.parametrize("place", [*range(5), "background", "layers", "composite"])
def test_no_input_takes_a_file_of_this_machine(served, not_uploaded, place) -> None:
    data: list = [NOTHING, "a red apple", 1, 3.0, 7]
    if isinstance(place, int):
        data[place] = not_uploaded if place % 2 else [{"deep": not_uploaded}]
    else:
        data[0] = NOTHING | {place: [not_uploaded] if place == "layers" else not_uploaded}
    for sent in (data, [*data, not_uploaded]):
        answer = told(served, sent)
        assert "A file is uploaded" in answer
        assert "file=" not in answer


@pytest.mark.parametrize("place", [0, 2, 3, 10])
def test_no_field_of_the_page_takes_a_file_of_this_machine(served, not_uploaded, place) -> None:
    data: list = [NOTHING, False, NOTHING, "a kite", 1, 3.0, 1.0, "7", "shipped model", False, ""]
    data[place] = NOTHING | {"composite": not_uploaded} if place in (0, 2) else not_uploaded
    answer = told_on_the_page(served, data)
    assert "A file is uploaded" in answer
    assert "file=" not in answer


def test_a_drawing_that_was_uploaded_is_never_shown_as_a_page(served: Served) -> None:
    script = b"<svg xmlns='http://www.w3.org/2000/svg' onload='alert(1)'/>"
    upload = served.url + "gradio_api/upload"
    path = httpx.post(upload, files={"files": ("a.svg", script)}).json()[0]
    file = {"path": path, "meta": {"_type": "gradio.FileData"}}
    assert "no picture that can be read" in told(
        served, [NOTHING | {"composite": file}, "", 1, 3.0, 7]
    )
    back = httpx.get(f"{served.url}gradio_api/file={path}")
    assert back.headers["content-disposition"].startswith("attachment")


JSON = {"Content-Type": "application/json"}


def nested(deep: int) -> list:
    """Lists within lists."""
    found: list = []
    for _ in range(deep):
        found = [found]
    return found


@pytest.mark.long
@pytest.mark.parametrize("place", range(5))
def test_values_of_other_types_are_a_sentence(served: Served, place: int) -> None:
    nothing = {"background": None, "layers": [], "composite": None}
    call = f"{served.url}gradio_api/call/generate_image"
    far = {"path": "x" * 6000, "meta": {"_type": "gradio.FileData"}}
    half = "a cat \ud83d"
    odd = ["many", True, [1], {"a": 1}, [["x"]], {"path": 7, "meta": {}}, 10**400]
    for other in [*odd, nested(300), nested(870), far, half]:
        data: list = [nothing, "a red apple", 1, 3.0, 7]
        data[place] = other
        asked = httpx.post(call, content=json.dumps({"data": data}), headers=JSON)
        assert asked.status_code in (200, 422), asked.text
        if asked.status_code == 200:
            told = httpx.get(f"{call}/{asked.json()['event_id']}", timeout=60).text
            assert "Traceback" not in told
            assert other is not half or place != 1 or "half of a character" in told
            assert "event: complete" in told or re.search(r'"[^"]{20,}', told), (other, told)


def by_visitor(served: Served, visitor: httpx.Client):
    """A program that keeps a visitor's cookie."""
    visitor.get(served.url)
    cookie = {"Cookie": f"scribble_visitor={visitor.cookies['scribble_visitor']}"}
    return gradio_client.Client(served.url, verbose=False, headers=cookie)


def test_a_visitors_run_is_served_to_nobody_else(served: Served) -> None:
    with httpx.Client() as visitor, httpx.Client() as other, httpx.Client() as bare:
        entry = ask(by_visitor(served, visitor))[3]
        other.get(served.url)
        base = f"{served.url}runs/{entry['id']}"
        forged = {"Cookie": f"scribble_visitor={'0' * 32}"}
        for name in ("", "/image.png", "/sketch.png", "/run.zip", "/thumbnail.webp"):
            assert other.get(base + name).status_code == 404, name
            assert bare.get(base + name).status_code == 404, name
            bare.cookies.clear()
            assert bare.get(base + name, headers=forged).status_code == 404, name
            bare.cookies.clear()


def test_a_program_without_a_cookie_draws_for_whoever_sits_here(served: Served) -> None:
    entry = ask(gradio_client.Client(served.url, verbose=False))[3]
    gallery = Gallery(served.gallery)
    try:
        with httpx.Client() as caller:
            packed = caller.get(served.url + entry["zip"].removeprefix("/"))
            assert packed.status_code == 200, packed.text
            assert zipfile.ZipFile(io.BytesIO(packed.content)).testzip() is None
        with httpx.Client() as person:
            person.get(served.url)  # a browser has a cookie
            assert person.get(f"{served.url}runs/{entry['id']}").json() == entry
        for visitor in (digest(new_token()), NOBODY):
            assert entry["id"] in [r.id for r in Visitors(gallery, local=True).runs(visitor)]
            assert Visitors(gallery, local=False).runs(visitor) == []
    finally:
        gallery.delete(entry["id"])  # other tests count the runs of this server


def test_maps_are_for_those_who_may_see_the_run(served: Served) -> None:
    with httpx.Client() as visitor, httpx.Client() as other:
        run = ask(by_visitor(served, visitor))[3]["id"]
        other.get(served.url)
        parts = visitor.get(served.url + "config").json()["components"]
        named = [p["id"] for p in parts if p["props"].get("elem_id") == "studio-explorer"]
        call = {"component_id": named[0], "fn_name": "layer_maps", "session_hash": "maps"}
        url = f"{served.url}gradio_api/component_server"
        mine = visitor.post(url, json={**call, "data": [run, None, None]})
        assert mine.status_code == 200, mine.text
        assert mine.json()["grid"]
        for client, data, status in (
            (other, [run, None, None], 404),
            (visitor, [run, "no such layer", None], 404),
            (visitor, [run], 422),
            (visitor, {"run": run}, 422),
            (visitor, [run, None, "one"], 422),
        ):
            assert client.post(url, json={**call, "data": data}).status_code == status, data


def test_ones_own_run_comes_whole(served: Served) -> None:
    with httpx.Client() as visitor:
        entry = ask(by_visitor(served, visitor))[3]
        base = f"{served.url}runs/{entry['id']}"
        assert visitor.get(base).json() == entry
        packed = visitor.get(base + "/run.zip")
        with zipfile.ZipFile(io.BytesIO(packed.content)) as archive:
            names = {name.rpartition("/")[2] for name in archive.namelist()}
        assert {
            "image.png",
            "sketch.png",
            "trace.safetensors",
            "run.json",
            "evolution.gif",
        } <= names
        assert visitor.get(base + "/evolution.gif").headers["content-type"] == "image/gif"
        for crooked in ("/..%2f..%2frun.json", "/run.json", "/trace.safetensors"):
            assert visitor.get(base + crooked).status_code in (400, 404)
