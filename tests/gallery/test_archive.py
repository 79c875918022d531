"""ZIP files from strangers: nothing is written outside, nothing half."""

import os
import stat
import zipfile

import pytest

from scribblediffusion.errors import GalleryError
from scribblediffusion.gallery import Gallery, manifest
from scribblediffusion.gallery.manifest import Entry, dump

TOP = "153012-a-red-apple-01M84ZN2SGV66QTDXVXMXBMJVJ"
CONTENT = {"run.json": b'{"prompt": "x", "created": "2026-01-02T03:04:05+00:00"}', "a.txt": b"a"}


def listing(content, **changed):
    import hashlib

    entries = {n: Entry(len(c), hashlib.sha256(c).hexdigest()) for n, c in content.items()}
    return dump({**entries, **changed})


def zipped(path, members):
    with zipfile.ZipFile(path, "w") as archive:
        for name, data in members:
            archive.writestr(name, data)
    return path


def good(top=TOP, content=CONTENT):
    return [(f"{top}/{n}", c) for n, c in content.items()] + [
        (f"{top}/manifest.json", listing(content))
    ]


def link():
    info = zipfile.ZipInfo(f"{TOP}/link")
    info.external_attr = (stat.S_IFLNK | 0o777) << 16
    return info


def with_extra(*names):
    return [*good(), *((name, b"evil") for name in names)]


def listed(name):
    content = {**CONTENT, name: b"evil"}
    return good(content=content)


BAD = {
    "parent": with_extra("../evil.txt"),
    "parent inside": with_extra(f"{TOP}/../evil.txt"),
    "parent listed": listed("../evil.txt"),
    "deep parent listed": listed("views/../../evil.txt"),
    "absolute": with_extra("/tmp/evil.txt"),
    "absolute listed": listed("/evil.txt"),
    "backslash": listed("..\\evil.txt"),
    "drive": listed("C:evil.txt"),
    "device": listed("CON"),
    "hidden": listed(".evil"),
    "link": [*good(), (link(), "/etc/passwd")],
    "two runs": [*good(), *good(TOP[:-1] + "0")],
    "no run": [("hello/a.txt", b"x")],
    "empty": [],
    "no manifest": good()[:-1],
    "unlisted file": with_extra(f"{TOP}/b.txt"),
    "missing file": [good()[0], good()[-1]],
    "no record": good(content={**CONTENT, "run.json": b'{"created": "2026-01-02T00:00:00+00:00"}'}),
    "altered": [(good()[0][0], b"{}"), *good()[1:]],
    "longer": [good()[0], (good()[1][0], b"a" * 10_000), good()[2]],
    "damaged manifest": [*good()[:-1], (good()[-1][0], b"{}")],
    "manifest of another kind": [*good()[:-1], (good()[-1][0], b"[1, 2]")],
}


@pytest.fixture
def empty(tmp_path):
    return Gallery(tmp_path / "in" / "gallery")


@pytest.mark.parametrize("why", BAD)
def test_bad_archives_are_refused_and_leave_nothing(empty, tmp_path, why):
    path = zipped(tmp_path / "x.zip", BAD[why])
    with pytest.raises(GalleryError, match=r"import|manifest") as caught:
        empty.import_zip(path)
    assert "\n" not in str(caught.value)
    assert len(empty) == 0
    files = [name for _, _, names in os.walk(tmp_path) for name in names]
    assert not any("evil" in name for name in files)
    assert sorted(os.listdir(tmp_path)) == ["in", "x.zip"]
    assert os.listdir(tmp_path / "in") == ["gallery"]


def test_a_good_one_of_the_same_make_is_taken(empty, tmp_path):
    run = empty.import_zip(zipped(tmp_path / "x.zip", good()))
    assert run.name == f"2026-01-02/{TOP}"
    assert empty.verify() == ()


def test_an_id_past_the_end_of_the_calendar_is_a_run_like_any_other(empty, tmp_path):
    top = f"153012-x-7{'Z' * 25}"
    undated = {**CONTENT, "run.json": b'{"prompt": "x", "created": "soon"}'}
    with pytest.raises(GalleryError, match=r"run\.json"):
        empty.import_zip(zipped(tmp_path / "x.zip", good(top, undated)))
    run = empty.import_zip(zipped(tmp_path / "x.zip", good(top)))
    (run.folder / "run.json").write_text("{}")
    assert len(empty) == empty.rebuild() == 1
    assert empty.get(run.id).created.year == 9999
    assert [d.file for d in empty.verify()] == ["run.json"]


@pytest.mark.parametrize("data", [b"", b"hello", b"PK\x03\x04" + b"x" * 100])
def test_what_is_no_zip(empty, tmp_path, data):
    (tmp_path / "x.zip").write_bytes(data)
    with pytest.raises(GalleryError, match="cannot import"):
        empty.import_zip(tmp_path / "x.zip")
    with pytest.raises(GalleryError, match="no such file"):
        empty.import_zip(tmp_path / "y.zip")


def test_damaged_archives_are_named(gallery, trace, tmp_path):
    run = gallery.add(trace)
    whole = gallery.export(run.id, tmp_path / "a.zip").read_bytes()
    other = Gallery(tmp_path / "other")
    for place in range(30, len(whole), max(1, len(whole) // 60)):
        data = bytearray(whole)
        data[place] ^= 0xFF
        (tmp_path / "b.zip").write_bytes(data)
        try:
            other.import_zip(tmp_path / "b.zip")
        except GalleryError:
            assert len(other) == 0
        else:  # a byte that says nothing, such as a time stamp
            assert other.verify() == ()
            other.delete(run.id)
            other.empty_bin()


def test_a_bomb_is_not_unpacked(empty, tmp_path, monkeypatch):
    monkeypatch.setattr("scribblediffusion.gallery.archive.MAX_BYTES", 1000)
    big = {**CONTENT, "big.bin": bytes(5000)}
    with pytest.raises(GalleryError, match="unpack"):
        empty.import_zip(zipped(tmp_path / "x.zip", good(content=big)))


def test_encrypted_archives_are_refused(empty, tmp_path):
    data = bytearray(zipped(tmp_path / "x.zip", good()).read_bytes())
    for at in range(len(data) - 4):
        if data[at : at + 4] == b"PK\x03\x04":
            data[at + 6] |= 1
        if data[at : at + 4] == b"PK\x01\x02":
            data[at + 8] |= 1
    (tmp_path / "x.zip").write_bytes(data)
    with pytest.raises(GalleryError, match="cannot import"):
        empty.import_zip(tmp_path / "x.zip")


def test_safe_names():
    for name in ("a", "a.png", "views/a b.gif", "image-2.png", "x_"):
        assert manifest.is_safe(name)
    for name in ("", ".", "..", "a/", "/a", "a//b", "a/../b", "./a", "a\\b", "a:b", "a.", "a ",
                 "nul", "Con.txt", "COM1", "a\0", "a\n", "é", "x" * 201):  # fmt: skip
        assert not manifest.is_safe(name)
