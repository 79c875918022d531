"""The gallery in daily use: add, find, look after, carry."""

import dataclasses
import json
import os
import shutil
import subprocess
import sys
import zipfile
from datetime import datetime
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from PIL import Image
from tiny import stage, tiny_trace

from scribblediffusion.errors import GalleryError, ScribbleError, TraceFileError
from scribblediffusion.gallery import Gallery, default_root
from scribblediffusion.gallery.run import Run, new_id, slug
from scribblediffusion.sketch import Sketch


def a_sketch():
    rng = np.random.default_rng(1)
    drawn = np.where(rng.random((256, 256)) > 0.9, rng.integers(0, 90, (256, 256)), 255)
    mask = np.zeros((256, 256), np.uint8)
    mask[:, :100] = 255
    return Sketch.from_image(drawn.astype(np.uint8), mask=mask)


# --- add ----------------------------------------------------------------------------------------


def test_a_run_keeps_everything(gallery, trace):
    sketch = a_sketch()
    run = gallery.add(trace, sketch=sketch, settings={"guidance_scale": np.float32(3.5)})
    assert set(run.files) == {
        "image.png", "sketch.png", "mask.png", "trace.safetensors", "run.json"
    }  # fmt: skip
    record = run.record
    assert record["prompt"] == run.prompt == "a red apple"
    assert record["seed"] == run.seed == 7
    assert record["settings"] == {"seed": 7, "num_inference_steps": 2, "guidance_scale": 3.5}
    assert [step["noise_remaining"] for step in record["steps"]] == [1.0, 0.5]
    assert record["picture_size"] == [8, 8]
    assert np.asarray(Image.open(run.image)).mean() == 200
    again = gallery.open(run.id)
    np.testing.assert_array_equal(
        again.weights(layer=0, step=0).round(2), trace.weights(layer=0, step=0).round(2)
    )
    assert gallery.verify() == ()


def test_the_sketch_comes_back_bit_for_bit(gallery, trace):
    sketch = a_sketch()
    kept = gallery.add(trace, sketch=sketch).sketch()
    np.testing.assert_array_equal(kept.ink, sketch.ink)
    np.testing.assert_array_equal(kept.mask, sketch.mask)
    assert kept.cleaning == sketch.cleaning
    assert kept.active.tolist() == sketch.active.tolist()


def test_a_folder_is_named_by_time_slug_and_id(gallery, trace, clock):
    run = gallery.add(trace)
    local = datetime.fromtimestamp(clock.now).astimezone()
    assert run.name == f"{local:%Y-%m-%d}/{local:%H%M%S}-a-red-apple-{run.id}"
    assert run.folder == gallery.root / run.name
    assert run.created == local


def test_pictures_carry_prompt_and_seed(gallery):
    prompt = "ein süßer Apfel 🍎\nzweite Zeile"
    run = gallery.add(tiny_trace(prompt, seed=11))
    for name in ("image.png", "sketch.png"):
        text = Image.open(run.folder / name).text
        assert text["Prompt"] == prompt
        assert text["Seed"] == "11"


def test_staged_pictures_carry_prompt_and_seed_too(gallery, trace):
    folder = gallery.stage("a red apple")
    image = Image.fromarray(np.random.default_rng(0).integers(0, 65536, (9, 9), np.uint16))
    image.save(folder / "image.png", dpi=(300, 300))
    (folder / "image-2.png").write_bytes(b"\xff\xd8 no PNG")
    image.save(folder / "mine.png")
    mine = (folder / "mine.png").read_bytes()
    run = gallery.add(trace, folder=folder)
    with Image.open(run.image) as kept:
        assert (kept.text["Prompt"], kept.text["Seed"]) == ("a red apple", "7")
        assert round(kept.info["dpi"][0]) == 300
        np.testing.assert_array_equal(np.asarray(kept), np.asarray(image))
    assert (run.folder / "image-2.png").read_bytes() == b"\xff\xd8 no PNG"
    assert (run.folder / "mine.png").read_bytes() == mine
    again = gallery.stage("another prompt")
    shutil.copy(run.image, again)
    assert gallery.add(again).image.read_bytes() == run.image.read_bytes()


def test_every_picture_of_a_batch_is_kept(gallery):
    trace = tiny_trace()
    run = gallery.add(dataclasses.replace(trace, pictures=(trace.picture, 255 - trace.picture)))
    assert np.asarray(Image.open(run.folder / "image-2.png")).mean() == 55


def test_a_staged_folder_is_published_with_its_views(gallery, trace):
    folder = gallery.stage("a red apple", "two circles")
    assert folder.is_dir()
    (folder / "evolution.gif").write_bytes(b"GIF89a")
    (folder / ".DS_Store").write_bytes(b"x")
    run = gallery.add(trace, folder=folder)
    assert not folder.exists()
    assert "evolution.gif" in run.files
    assert ".DS_Store" not in run.files
    assert run.record["sketch_info"] == "two circles"
    assert len(gallery) == 1


def test_a_folder_staged_without_a_prompt_takes_the_traces(gallery, trace):
    assert gallery.add(trace, folder=gallery.stage("")).prompt == "a red apple"
    assert gallery.add(trace, folder=gallery.stage("a pear")).prompt == "a pear"
    assert gallery.add(gallery.stage("")).prompt == ""


@pytest.mark.parametrize("odd", [None, [1], "x", 7])
def test_settings_of_a_staged_record_may_be_odd(gallery, trace, odd):
    folder = gallery.stage("")
    (folder / "run.json").write_text(json.dumps({"settings": odd, "prompt": None, "seed": None}))
    run = gallery.add(trace, folder=folder, settings={"prompt": None, "steps": 3})
    assert run.prompt == "a red apple"
    assert run.record["settings"]["steps"] == 3


def test_odd_records_are_read(gallery, trace):
    run = gallery.add(trace)
    for created in ("2026-01-02T03:04:05", "2026-01-02"):
        record = {**run.record, "created": created, "prompt": None}
        (run.folder / "run.json").write_text(json.dumps(record))
        again = Run.read(run.folder)
        assert again.prompt == ""
        assert again.created.utcoffset() is not None
        assert again.created.isoformat().startswith(created)
    (run.folder / "run.json").write_text(json.dumps({**record, "created": "0001-01-01"}))
    assert Run.read(run.folder).created.utcoffset() is not None


def test_a_folder_with_a_trace_is_a_run(gallery, trace, tmp_path):
    (tmp_path / "made").mkdir()
    trace.save(tmp_path / "made" / "trace.safetensors")
    run = gallery.add(tmp_path / "made", settings={"seed": 9})
    assert (run.prompt, run.seed) == ("a red apple", 9)
    assert run.image is not None
    assert (tmp_path / "made").exists()


def test_a_folder_with_a_damaged_trace_is_refused(gallery, trace, tmp_path):
    folder = gallery.stage("x")
    data = trace.save(tmp_path / "t.safetensors").read_bytes()
    (folder / "trace.safetensors").write_bytes(data[: len(data) // 2])
    with pytest.raises(TraceFileError):
        gallery.add(folder)
    assert len(gallery) == 0
    assert folder.is_dir()


def test_what_cannot_be_added(gallery, tmp_path):
    with pytest.raises(GalleryError, match="no folder"):
        gallery.add(tmp_path / "none")
    folder = gallery.stage("x")
    (folder / "secret").symlink_to("/etc/hostname")
    with pytest.raises(GalleryError, match="is a link"):
        gallery.add(folder)
    (folder / "secret").unlink()
    (folder / "a:b.txt").write_text("x")
    with pytest.raises(GalleryError, match="cannot be the name"):
        gallery.add(folder)
    assert len(gallery) == 0


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ({"source": None}, "nothing to add"),
        ({"source": 5}, "cannot add a int"),
        ({"sketch": "nope.png"}, "sketch: an image was expected, found str"),
        ({"picture": np.zeros((4, 4, 3))}, "picture: uint8"),
        ({"picture": np.zeros((4, 4, 2), np.uint8)}, r"picture: uint8 .* found uint8 of shape"),
    ],
)
def test_what_is_no_run_is_named(gallery, trace, given, says):
    with pytest.raises(GalleryError, match=says):
        gallery.add(**{"source": trace} | given)
    assert len(gallery) == 0


def test_neither_nothing_nor_the_gallery_itself_becomes_a_run(gallery, trace, tmp_path):
    gallery.add(trace)
    empty = tmp_path / "empty"
    empty.mkdir()
    for folder, says in ((empty, "there is nothing in it"), (gallery.root, "lies in it")):
        with pytest.raises(GalleryError, match=says):
            gallery.add(folder)
    assert len(gallery) == 1


def test_a_renamed_run_is_named(gallery, trace, tmp_path):
    run = gallery.add(trace)
    zipped = gallery.export(run.id, tmp_path / "run.zip")
    other = new_id()
    os.rename(run.folder, run.folder.with_name(run.folder.name.replace(run.id, other)))
    (damage,) = gallery.verify()
    assert damage.run == other
    assert run.id in str(damage)
    with pytest.raises(GalleryError, match="the folder was renamed"):
        gallery.export(other, tmp_path)
    renamed = tmp_path / "renamed.zip"
    with zipfile.ZipFile(zipped) as source, zipfile.ZipFile(renamed, "w") as made:
        for name in source.namelist():
            made.writestr(name.replace(run.id, other), source.read(name))
    elsewhere = Gallery(tmp_path / "elsewhere")
    with pytest.raises(GalleryError, match=f"its run {run.id}"):
        elsewhere.import_zip(renamed)
    assert len(elsewhere) == 0


def test_a_run_that_is_a_link_is_not_followed(gallery, trace, tmp_path):
    run = gallery.add(trace)
    moved = tmp_path / "moved"
    os.rename(run.folder, moved)
    run.folder.symlink_to(moved)
    (damage,) = gallery.verify()
    assert "is a link" in str(damage)
    (found,) = gallery.list()
    assert found.damaged
    assert found.image is None
    with pytest.raises(GalleryError, match="is a link"):
        gallery.open(run.id)


def test_attached_views_are_verified(gallery, trace, tmp_path):
    run = gallery.add(trace)
    (tmp_path / "a.gif").write_bytes(b"first")
    gallery.attach(run.id, tmp_path / "a.gif", "evolution.gif")
    (tmp_path / "a.gif").write_bytes(b"second")
    path = gallery.attach(run.id, tmp_path / "a.gif", "evolution.gif")
    assert path.read_bytes() == b"second"
    assert "views/evolution.gif" in run.files
    assert gallery.verify() == ()
    path.write_bytes(b"sec0nd")
    assert [d.file for d in gallery.verify(run.id)] == ["views/evolution.gif"]
    with pytest.raises(GalleryError, match="cannot name a view"):
        gallery.attach(run.id, tmp_path / "a.gif", "../run.json")


NASTY = [
    "", " ", "../../etc/passwd", "..\\..\\x", "/abs", "a\0b", "\u202egnp.exe", "🍎" * 50, "CON",
    "con.txt", "NUL", "x" * 10_000, "ends. . .", "-rf", "~", "$HOME", "a\nb\tc", "\ud800", "Ä" * 99,
    "C:\\x", "aux", "*?<>|\"'", "\u200b", "ﬃ", "%2e%2e%2f", "run.json", "'; drop table runs; --",
]  # fmt: skip


@settings(
    max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(st.text(st.characters(), max_size=300) | st.sampled_from(NASTY))
@example("a\0b")
@example("\ud800")
@example("x" * 10_000)
def test_prompts_never_become_paths(tmp_path, prompt):
    gallery = Gallery(tmp_path / "g" / "gallery")
    run = stage(gallery, prompt)
    assert run.folder.parent.parent == gallery.root
    assert len(run.folder.name) <= 6 + 1 + 40 + 1 + 26
    assert run.folder.name.isascii()
    assert os.listdir(tmp_path) == ["g"]
    assert os.listdir(tmp_path / "g") == ["gallery"]
    assert gallery.list(size=1).runs[0].prompt == prompt
    assert gallery.verify(run.id) == ()


@pytest.mark.parametrize("prompt", NASTY)
def test_runs_with_traces_keep_any_prompt(gallery, prompt):
    run = gallery.add(tiny_trace(prompt))
    assert run.prompt == gallery.open(run.id).prompt == prompt
    assert gallery.verify() == ()


@pytest.mark.parametrize("prompt", NASTY)
def test_slugs(prompt):
    assert 1 <= len(slug(prompt)) <= 40
    assert set(slug(prompt)) <= set("abcdefghijklmnopqrstuvwxyz0123456789-")
    assert slug(prompt).strip("-") == slug(prompt)


def test_prompts_that_differ_in_case_alone_are_two_runs(gallery, clock):
    first, second = stage(gallery, "Apple"), stage(gallery, "apple")
    assert first.folder.name.lower() != second.folder.name.lower()
    assert len(gallery) == 2


# --- look after ---------------------------------------------------------------------------------


def test_delete_restore_and_empty(gallery, ten):
    place = gallery.delete(ten[2].id)
    assert place.is_dir()
    assert len(gallery) == 9
    with pytest.raises(GalleryError, match="in the bin"):
        gallery.get(ten[2].id)
    assert [run.id for run in gallery.bin()] == [ten[2].id]
    assert gallery.restore(ten[2].id) == ten[2]
    assert len(gallery) == 10
    gallery.delete(ten[2].id)
    gallery.delete(ten[3].id)
    assert gallery.empty_bin() == 2
    assert gallery.bin() == ()
    with pytest.raises(GalleryError, match="in the bin"):
        gallery.restore(ten[2].id)


def test_a_run_that_came_back_can_be_deleted_and_restored_again(gallery, trace, tmp_path):
    run = gallery.add(trace)
    archive = gallery.export(run.id, tmp_path)
    gallery.delete(run.id)
    gallery.import_zip(archive)
    with pytest.raises(GalleryError, match="in the gallery already"):
        gallery.restore(run.id)
    gallery.attach(run.id, archive, "view.zip")
    assert gallery.delete(run.id).is_dir()
    assert [one.id for one in gallery.bin()] == [run.id] * 2
    back = gallery.restore(run.id)
    assert back == run
    assert "views/view.zip" in back.files
    assert gallery.verify() == ()
    assert gallery.empty_bin() == 1


def test_the_place_can_be_chosen(monkeypatch, tmp_path):
    monkeypatch.setenv("SCRIBBLE_GALLERY", str(tmp_path / "here"))
    assert Gallery().root == default_root() == tmp_path / "here"
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("SCRIBBLE_GALLERY", "rel")
    relative = Gallery()
    assert relative.root == default_root() == tmp_path / "rel"
    staged = relative.stage("x")
    os.chdir("/")
    relative.add(staged)
    assert len(relative) == 1
    assert not staged.exists()
    monkeypatch.delenv("SCRIBBLE_GALLERY")
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path))
    monkeypatch.setenv("HOME", str(tmp_path))
    assert Gallery().root.name == "gallery"
    assert "scribblediffusion" in str(Gallery().root)
    (tmp_path / "file").write_text("x")
    with pytest.raises(GalleryError, match="is a file"):
        Gallery(tmp_path / "file")


def test_it_opens_without_torch_and_diffusers(gallery, trace):
    run = gallery.add(trace)
    code = (
        "import sys; sys.modules.update(torch=None, diffusers=None, transformers=None);"
        "from scribblediffusion.gallery import Gallery;"
        f"g = Gallery({str(gallery.root)!r});"
        f"print(g.open({run.id!r}).prompt, len(g.list()), g.get({run.id!r}).sketch().is_blank)"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert out.stdout.strip() == "a red apple 1 True"


def test_errors_belong_to_the_tree():
    assert issubclass(GalleryError, ScribbleError)


# --- carry --------------------------------------------------------------------------------------


def test_export_and_import(gallery, trace, tmp_path):
    run = gallery.add(trace, sketch=a_sketch())
    archive = gallery.export(run.id, tmp_path)
    assert archive == tmp_path / f"{run.folder.name}.zip"
    other = Gallery(tmp_path / "other")
    came = other.import_zip(archive)
    assert (came.id, came.name, came.record) == (run.id, run.name, run.record)
    assert other.verify() == ()
    assert {n: (came.folder / n).read_bytes() for n in came.files} == {
        n: (run.folder / n).read_bytes() for n in run.files
    }
    assert other.import_zip(archive).id == run.id
    assert len(other) == 1
    assert gallery.import_zip(archive) == run


@pytest.mark.parametrize("moment", [0, 5_000_000_000])
def test_files_of_any_date_are_exported(gallery, trace, tmp_path, moment):
    run = gallery.add(trace)
    os.utime(run.folder / "run.json", (moment, moment))
    archive = gallery.export(run.id, tmp_path)
    assert Gallery(tmp_path / "other").import_zip(archive).record == run.record


def test_a_damaged_run_is_not_exported(gallery, trace, tmp_path):
    run = gallery.add(trace)
    run.image.write_bytes(b"x")
    with pytest.raises(GalleryError, match=r"image\.png"):
        gallery.export(run.id, tmp_path / "out.zip")
    assert os.listdir(tmp_path) == ["gallery"]


def test_another_run_under_the_same_id_is_not_overwritten(gallery, trace, tmp_path):
    run = gallery.add(trace)
    archive = gallery.export(run.id, tmp_path / "a.zip")
    (tmp_path / "v.gif").write_bytes(b"v")
    gallery.attach(run.id, tmp_path / "v.gif")
    with pytest.raises(GalleryError, match="is here, but other"):
        gallery.import_zip(archive)
    assert "views/v.gif" in gallery.get(run.id).files


def test_export_says_where_it_cannot_write(gallery, trace):
    run = gallery.add(trace)
    with pytest.raises(GalleryError, match="cannot export"):
        gallery.export(run.id, Path("/proc/none/out.zip"))
