"""Damage is named: any byte of any file."""

import numpy as np
import pytest

from scribblediffusion.errors import GalleryError, SketchError
from scribblediffusion.gallery import manifest

NAMES = ["image.png", "sketch.png", "trace.safetensors", "run.json", "manifest.json"]


@pytest.fixture
def run(gallery, trace):
    return gallery.add(trace)


@pytest.mark.parametrize("name", NAMES)
def test_a_flipped_byte_is_named(gallery, run, name):
    whole = (run.folder / name).read_bytes()
    places = np.random.default_rng(0).integers(0, len(whole), 25)
    for place in {0, len(whole) - 1, *places.tolist()}:
        data = bytearray(whole)
        data[place] ^= 1 << (place % 8)
        (run.folder / name).write_bytes(data)
        found = gallery.verify()
        assert [(d.run, d.file) for d in found] == [(run.id, name)]
        assert name in str(found[0])
    (run.folder / name).write_bytes(whole)
    assert gallery.verify() == ()


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("how", ["missing", "cut", "longer", "empty"])
def test_missing_and_cut_files_are_named(gallery, run, name, how):
    path = run.folder / name
    data = path.read_bytes()
    if how == "missing":
        path.unlink()
    else:
        path.write_bytes({"cut": data[:-1], "longer": data + b"x", "empty": b""}[how])
    assert [d.file for d in gallery.verify(run.id)] == [name]
    assert len(gallery) == 1


def test_a_file_that_does_not_belong_is_named(gallery, run):
    (run.folder / "extra.txt").write_text("x")
    assert [d.what for d in gallery.verify()] == ["is not in the manifest"]


def flip(path, place=-3):
    data = bytearray(path.read_bytes())
    data[place] ^= 4
    path.write_bytes(data)


def test_damage_hides_no_other_damage(gallery, run):
    flip(run.image)
    (run.folder / "secret").symlink_to("/etc/hostname")
    (run.folder / "a:b").write_text("x")
    assert {d.file for d in gallery.verify()} == {"image.png", "secret", "a:b"}
    (run.folder / "run.json").rename(run.folder / "kept")
    (run.folder / "run.json").symlink_to("kept")
    told = {d.file: d.what for d in gallery.verify()}
    assert told.keys() == {"image.png", "secret", "a:b", "kept", "run.json"}
    assert "is a link" in told["run.json"]


@pytest.mark.parametrize("place", ["{", "format", "sha256", "image.png", "sketch.png", "size"])
def test_a_damaged_manifest_hides_no_flipped_byte(gallery, run, place):
    whole = (run.folder / "manifest.json").read_bytes()
    flip(run.folder / "manifest.json", whole.rindex(place.encode()))
    assert {d.file for d in gallery.verify()} == {"manifest.json"}
    flip(run.trace)
    told = {d.file: d.what for d in gallery.verify()}
    assert {"manifest.json", "trace.safetensors"} <= told.keys()
    why = "unless manifest.json was altered", "manifest.json does not list it any more"
    assert why[place in ("{", "size")] in told["trace.safetensors"]


def test_a_corrupt_trace_is_named_and_never_read(gallery, run):
    data = bytearray(run.trace.read_bytes())
    data[-3] ^= 4
    run.trace.write_bytes(data)
    with pytest.raises(GalleryError, match=r"trace\.safetensors is damaged"):
        gallery.open(run.id)
    run.trace.unlink()
    with pytest.raises(GalleryError, match="is missing"):
        gallery.open(run.id)


def test_a_corrupt_sketch_is_named_and_never_read(gallery, run):
    data = bytearray((run.folder / "sketch.png").read_bytes())
    data[-20] ^= 4
    (run.folder / "sketch.png").write_bytes(data)
    with pytest.raises(GalleryError, match=r"sketch\.png is damaged"):
        run.sketch()


def test_a_run_without_a_trace_says_what_it_has(gallery):
    run = gallery.add(gallery.stage("x"))
    assert run.sketch() is None
    assert run.trace is None
    assert run.image is None
    with pytest.raises(GalleryError, match=r"has no trace\.safetensors; it holds run\.json"):
        run.open()


def test_a_run_with_a_damaged_record_is_still_listed(gallery, run):
    (run.folder / "run.json").write_text("{")
    gallery.rebuild()
    (only,) = gallery
    assert only.damaged
    assert only.id == run.id
    with pytest.raises(GalleryError, match=r"run\.json is damaged"):
        _ = only.record


def test_only_what_was_dumped_is_parsed():
    entries = {"a.txt": manifest.Entry(3, "ab" * 32)}
    whole = manifest.dump(entries)
    assert manifest.parse(whole) == entries
    for place in range(len(whole)):
        data = bytearray(whole)
        data[place] ^= 1
        with pytest.raises(GalleryError, match=r"damaged|outside"):
            manifest.parse(bytes(data))


def test_records_of_cleanings_are_checked():
    from scribblediffusion.cleaning import Cleaning

    with pytest.raises(SketchError, match="not a record"):
        Cleaning.from_record({"nonsense": 1})
