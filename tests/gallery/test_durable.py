"""Whole or absent: killed at any file-system call, on a full disk, and with many writers."""

import errno
import json
import os
import shutil
import subprocess
import sys
import textwrap
import time
import zipfile
from pathlib import Path

import pytest

from scribblediffusion.errors import GalleryError
from scribblediffusion.gallery import Gallery, durable

HERE = Path(__file__).parent
#: Lock files of a gallery, which stay.
LOCKS = {"gate", "index", "views"}
SINGLE = {**os.environ, "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}

pytestmark = pytest.mark.skipif(os.name == "nt", reason="uses fork and signals")


def run_script(*arguments):
    command = [sys.executable, *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, env=SINGLE, cwd=HERE)
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout


@pytest.mark.long
@pytest.mark.parametrize(("doing", "least"), [("add", 40), ("import", 30), ("attach", 20),
                                              ("delete", 10), ("list", 4), ("staged", 45),
                                              ("restore", 8), ("empty", 8),
                                              ("export", 30), ("stage", 2)])  # fmt: skip
def test_killed_at_every_call(tmp_path, doing, least):
    states = [json.loads(line) for line in run_script("killed.py", doing, tmp_path).splitlines()]
    *killed, ended = states
    assert len(killed) >= least
    assert ended["call"] is None
    before, after = {
        "add": (1, 2), "staged": (1, 2), "import": (1, 2), "delete": (1, 0), "restore": (0, 1),
        "empty": (0, 0),
    }.get(doing, (1, 1))  # fmt: skip
    assert len(ended["runs"]) == after
    for state in states:
        assert len(state["runs"]) in (before, after), state
        assert state["damage"] == [], state
        assert state["left"] == [], state
        assert state["opened"] == ["a red apple"] * len(state["runs"]), state
        if doing in ("delete", "restore"):
            assert len(state["runs"]) + len(state["bin"]) == 1, state
    counts = [len(state["runs"]) for state in states]
    assert counts == sorted(counts, reverse=doing == "delete"), "once there, it stays"
    if doing == "staged":
        for state in states:
            assert len(state["views"]) == len(state["runs"]) - 1, "whole: with its view"
    if doing == "empty":
        assert ended["bin"] == []
    if doing in ("add", "staged", "import", "restore"):
        assert {before, after} <= set(counts[:-1]), "killed before and after it was there"
    if doing == "export":
        outside = [state["outside"] for state in states]
        assert all(files in ({}, {"run.zip": None}) for files in outside), "whole or not at all"
        assert outside[0] == {}
        assert outside[-1] == {"run.zip": None}
        assert any("write" in state["call"] for state in killed)
    if doing == "attach":
        assert ended["views"] == ["views/view.gif"]


@pytest.mark.long
def test_two_writers_under_a_frozen_clock(tmp_path):
    code = textwrap.dedent(
        """
        import sys, time
        time.time = lambda: 1_790_000_000.0
        from tiny import tiny_trace
        from scribblediffusion.gallery import Gallery
        gallery, trace = Gallery(sys.argv[1]), tiny_trace()
        sys.stdin.readline()
        for i in range(200):
            gallery.add(trace)
            if i % 20 == 0:
                gallery.list()
        """
    )
    writers = [
        subprocess.Popen(
            [sys.executable, "-c", code, tmp_path / "g"],
            stdin=subprocess.PIPE,
            env=SINGLE,
            cwd=HERE,
        )
        for _ in range(2)
    ]
    for writer in writers:
        writer.stdin.write(b"go\n")
        writer.stdin.close()
    assert [writer.wait() for writer in writers] == [0, 0]
    gallery = Gallery(tmp_path / "g")
    ids = [run.id for run in gallery]
    assert len(ids) == len(set(ids)) == 400
    assert ids == sorted(ids, reverse=True)
    assert gallery.verify() == ()
    assert set(os.listdir(gallery.root / ".tmp")) <= LOCKS


def test_a_full_disk_leaves_old_runs_untouched(gallery, trace, monkeypatch):
    old = gallery.add(trace)
    real, left = os.fsync, 0

    def full(handle):
        nonlocal left
        left -= 1
        if left < 0:
            raise OSError(errno.ENOSPC, "No space left on device")
        real(handle)

    monkeypatch.setattr(os, "fsync", full)
    for succeed in range(6):
        left = succeed
        with pytest.raises(GalleryError, match="disk is full; nothing was changed"):
            gallery.add(trace)
        assert [run.id for run in gallery] == [old.id]
        assert gallery.verify() == ()
        assert set(os.listdir(gallery.root / ".tmp")) <= LOCKS


def test_a_full_disk_spoils_no_view_no_export_and_no_import(gallery, trace, tmp_path, monkeypatch):
    run = gallery.add(trace)
    (tmp_path / "a.gif").write_bytes(b"GIF89a")
    archive = gallery.export(run.id, tmp_path / "run.zip")

    def full(handle):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    other = Gallery(tmp_path / "other")
    for work in (
        lambda: gallery.attach(run.id, tmp_path / "a.gif"),
        lambda: gallery.export(run.id, tmp_path / "again.zip"),
        lambda: other.import_zip(archive),
    ):
        with pytest.raises(GalleryError, match="disk is full"):
            work()
    assert gallery.verify() == ()
    assert "views/a.gif" not in run.files
    assert not (tmp_path / "again.zip").exists()
    assert len(other) == 0
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a.gif", "gallery", "other", "run.zip"]


def test_a_gallery_that_may_only_be_read_is_exported_from(gallery, trace, tmp_path, monkeypatch):
    run = gallery.add(trace)

    def refuse(_root):
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr(durable, "private_folder", refuse)
    assert zipfile.is_zipfile(gallery.export(run.id, tmp_path / "run.zip"))
    assert sorted(p.name for p in tmp_path.iterdir()) == ["gallery", "run.zip"]


def test_files_that_really_cannot_grow(tmp_path):
    code = textwrap.dedent(
        """
        import resource, signal, sys
        from tiny import tiny_trace
        from scribblediffusion.errors import GalleryError
        from scribblediffusion.gallery import Gallery
        gallery, trace = Gallery(sys.argv[1]), tiny_trace()
        old = gallery.add(trace)
        (gallery.root / ".index.sqlite").unlink(missing_ok=True)
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (600, 600))
        try:
            gallery.add(trace)
        except GalleryError as error:
            print(error)
        print([run.id for run in gallery] == [old.id], gallery.verify(), gallery.open(old.id))
        """
    )
    out = run_script("-c", code, tmp_path / "g").splitlines()
    assert out[0].startswith("cannot save the run: the disk is full")
    assert out[1].startswith("True () AttentionTrace")


def test_a_place_that_may_not_be_written_to(gallery, trace, monkeypatch):
    def refuse(*_args, **_options):
        raise PermissionError(errno.EACCES, "Permission denied", str(gallery.root))

    monkeypatch.setattr(os, "rename", refuse)
    with pytest.raises(GalleryError, match="may not be written to"):
        gallery.add(trace)
    assert len(gallery) == 0


def test_an_interrupt_leaves_nothing(gallery, trace, monkeypatch):
    def interrupt(*_args):
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "fsync", interrupt)
    with pytest.raises(KeyboardInterrupt):
        gallery.add(trace)
    assert set(os.listdir(gallery.root / ".tmp")) <= LOCKS


def test_sweeping_leaves_the_living_alone(tmp_path):
    with durable.private_folder(tmp_path) as folder:
        (folder / "half").write_text("x")
        assert durable.sweep(tmp_path) == 0
        assert (folder / "half").exists()
    assert not folder.exists()
    orphan = tmp_path / durable.TEMPORARY / "0123456789abcdef"
    orphan.mkdir()
    (orphan.parent / "fedcba9876543210.lock").touch()
    assert durable.sweep(tmp_path) == 2
    assert set(os.listdir(tmp_path / durable.TEMPORARY)) == {"gate"}


def test_sweeping_leaves_what_is_not_ours_alone(tmp_path):
    home = tmp_path / durable.TEMPORARY
    (home / "mine").mkdir(parents=True)
    (home / "mine" / "thesis.txt").write_text("x")
    (home / "yarn.lock").touch()
    (home / "0123456789abcdef").mkdir()
    Gallery(tmp_path)
    assert (home / "mine" / "thesis.txt").exists()
    assert {p.name for p in home.iterdir()} == {"mine", "yarn.lock", "gate"}


def test_sweeping_outside_removes_the_writers_own_file_only(tmp_path):
    home = tmp_path / "g" / durable.TEMPORARY
    precious = tmp_path / "precious.txt"
    partial = tmp_path / ".run.zip.0123456789abcdef.part"
    for token, named in (("0123456789abcdef", partial), ("fedcba9876543210", precious)):
        (home / token).mkdir(parents=True)
        (home / token / durable.ELSEWHERE).write_text(str(named))
        named.touch()
    assert durable.sweep(tmp_path / "g") == 2
    assert precious.exists()
    assert not partial.exists()


def test_nothing_is_overwritten(tmp_path):
    (tmp_path / "day" / "run").mkdir(parents=True)
    (tmp_path / "day" / "run" / "old").touch()
    with durable.private_folder(tmp_path) as folder, pytest.raises(FileExistsError):
        durable.publish(folder, tmp_path / "day" / "run")
    assert (tmp_path / "day" / "run" / "old").exists()


def aged(folder, hours):
    """Set a folder and all in it back by so many hours."""
    then = time.time() - 3600 * hours
    for path in (*folder.rglob("*"), folder):
        os.utime(path, (then, then))


def test_staged_folders_that_nobody_added_go_after_a_day(gallery, trace):
    forgotten, drawn, fresh = gallery.stage("old"), gallery.stage("drawn"), gallery.stage("new")
    for folder in (forgotten, drawn):
        (folder / "views").mkdir()
        aged(folder, 25)
    (drawn / "views" / "evolution.gif").write_bytes(b"GIF89a")
    aged(fresh, 23)
    Gallery(gallery.root)
    assert not forgotten.exists()
    assert drawn.exists()
    assert fresh.exists()


def test_a_staged_folder_of_any_age_can_be_added(gallery, trace):
    folder = gallery.stage("old")
    aged(folder, 1000)
    assert gallery.add(trace, folder=folder).prompt == "old"
    assert not folder.exists()


def test_a_staged_folder_whose_run_was_saved_goes_at_once(gallery, trace, monkeypatch):
    folder = gallery.stage("drawn")
    monkeypatch.setattr(shutil, "rmtree", lambda *_args, **_options: None)  # its writer dies
    run = gallery.add(trace, folder=folder)
    monkeypatch.undo()
    assert (folder / ".becomes").read_text() == run.id
    assert list(Gallery(gallery.root)) == [run]
    assert not folder.exists()
    assert gallery.verify() == ()


def test_a_save_that_fails_leaves_the_staged_folder_as_it_was(gallery, trace, monkeypatch):
    folder = gallery.stage("drawn")
    before = sorted(os.listdir(folder))
    monkeypatch.setattr(Gallery, "_publish", lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        gallery.add(trace, folder=folder)
    monkeypatch.undo()
    assert sorted(os.listdir(folder)) == before
    assert gallery.add(trace, folder=folder).prompt == "drawn"


def test_a_full_disk_leaves_no_staged_folder(gallery, monkeypatch):
    def full(*_args, **_options):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Path, "write_text", full)
    with pytest.raises(GalleryError, match="disk is full"):
        gallery.stage("x")
    assert os.listdir(gallery.root / ".staging") == []


def test_threads_share_a_gallery(gallery, trace):
    from concurrent.futures import ThreadPoolExecutor

    def work(_):
        run = gallery.add(trace)
        return run.id in {r.id for r in gallery}

    with ThreadPoolExecutor(4) as pool:
        assert all(pool.map(work, range(12)))
    assert len(Gallery(gallery.root)) == 12


def test_a_place_is_prepared_before_anything_is_drawn(tmp_path):
    made = Gallery(tmp_path / "new" / "gallery")
    made.prepare()
    assert made.root.is_dir()
    assert len(made) == 0
    assert not [path for path in (made.root / ".tmp").iterdir() if path.is_dir()]
    (tmp_path / "file").touch()
    with pytest.raises(GalleryError, match="cannot keep runs in"):
        Gallery(tmp_path / "file" / "gallery").prepare()
