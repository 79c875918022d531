"""The index is a cache: whatever happens to it, the list is the same."""

import json
import os
import shutil
import sqlite3
import time

import pytest

from scribblediffusion.gallery import Gallery, index
from scribblediffusion.gallery.index import NAME
from scribblediffusion.gallery.run import Run


def fill(gallery, count, clock):
    for i in range(count):
        clock.now += 7_000
        folder = gallery.stage("")
        record = {"prompt": f"number {i} of {'apple' if i % 2 else 'kite'}", "seed": i}
        (folder / "run.json").write_text(json.dumps(record))
        gallery.add(folder)


@pytest.fixture
def filled(gallery, clock):
    fill(gallery, 30, clock)
    return gallery


def look(gallery):
    return list(gallery), gallery.list(words="apple", size=5), gallery.list(seed=3).runs


def test_deleted_it_comes_back_identical(filled):
    before = look(filled)
    (filled.root / NAME).unlink()
    assert look(filled) == before
    assert filled.rebuild() == 30
    assert look(filled) == before


@pytest.mark.parametrize("content", [b"", b"garbage" * 1000, b"SQLite format 3\0" + b"\xff" * 5000])
def test_overwritten_it_is_made_anew(filled, content):
    before = look(filled)
    (filled.root / NAME).write_bytes(content)
    assert look(filled) == before


def test_cut_at_any_length_it_is_made_anew(filled):
    before = look(filled)
    whole = (filled.root / NAME).read_bytes()
    for length in range(0, len(whole), len(whole) // 8):
        (filled.root / NAME).write_bytes(whole[:length])
        assert look(filled) == before


def test_flipped_bytes_never_make_up_a_run(filled):
    before = {run.id for run in filled}
    whole = (filled.root / NAME).read_bytes()
    for place in range(0, len(whole), len(whole) // 60):
        data = bytearray(whole)
        data[place] ^= 0x20
        (filled.root / NAME).write_bytes(data)
        assert {run.id for run in filled} == before


def test_rows_that_no_folder_stands_behind_are_dropped(filled):
    before = look(filled)
    with sqlite3.connect(filled.root / NAME) as database:
        database.execute("update runs set folder = replace(folder, 'number', 'lumber')")
    database.close()
    assert look(filled) == before
    with sqlite3.connect(filled.root / NAME) as database:
        database.execute("delete from runs where seed = '3'")
    database.close()
    assert look(filled) == before


def test_an_index_of_another_version_is_made_anew(filled):
    before = look(filled)
    with sqlite3.connect(filled.root / NAME) as database:
        database.execute("pragma user_version = 99")
    database.close()
    assert look(filled) == before


def test_where_no_index_can_be_written_memory_serves(filled):
    before = look(filled)
    (filled.root / NAME).unlink()
    (filled.root / NAME).mkdir()  # in the way, whoever runs the test
    assert look(filled) == before


def test_what_another_process_adds_is_seen_at_once(filled, clock):
    assert len(filled) == 30
    other = Gallery(filled.root)
    fill(other, 1, clock)
    assert len(filled) == 31
    os.rename(next(iter(filled)).folder, filled.root / "elsewhere")
    assert len(other) == 30


def test_a_day_is_listed_again_only_while_its_time_stamp_may_hide_a_change(
    filled, clock, monkeypatch
):
    fill(filled, 1, clock)
    day = next(iter(filled)).folder.parent
    time.sleep(0.2)
    assert len(filled) == 31
    real, listed = os.listdir, []
    monkeypatch.setattr(os, "listdir", lambda path: listed.append(path) or real(path))
    assert len(filled) == 31
    assert listed == []
    whole = int(day.stat().st_mtime)  # as on a disk that counts seconds
    os.utime(day, (whole, whole))
    (filled.root / NAME).touch()
    for _ in range(2):
        assert len(filled) == 31
    assert listed == [day, day]


def test_a_day_that_took_long_to_read_is_not_read_again(filled, clock, monkeypatch):
    monkeypatch.setattr(index, "UNSETTLED", 100_000_000)
    fill(filled, 1, clock)
    real = Run.read
    monkeypatch.setattr(Run, "read", lambda folder: time.sleep(0.01) or real(folder))
    assert filled.rebuild() == 31
    monkeypatch.setattr(os, "listdir", lambda path: pytest.fail(f"read {path} again"))
    assert len(filled) == 31


def test_folders_of_other_kinds_are_left_alone(filled):
    (filled.root / "2026-01-01").mkdir()
    (filled.root / "2026-01-01" / "notes").mkdir()
    (filled.root / "notes.txt").write_text("mine")
    assert filled.rebuild() == 30
    assert (filled.root / "notes.txt").read_text() == "mine"


@pytest.fixture
def copied(filled):
    """A run, and the folder of a copy of it under another day, as merged backups make them."""
    run = filled.list(seed=3).runs[0]
    place = filled.root / "2001-01-01" / run.folder.name
    shutil.copytree(run.folder, place)
    return run, place


def test_of_a_copied_run_one_is_listed_and_verify_names_the_other(filled, copied):
    run, place = copied
    assert filled.rebuild() == len(filled) == 30
    assert filled.get(run.id) == filled.get(run.id[-8:]) == run
    assert filled.list(seed=3).runs == (run,)
    assert filled.list(words="number 3").runs[-1] == run
    (double,) = filled.verify()
    assert (double.run, double.file) == (run.id, f"2001-01-01/{run.folder.name}")
    assert "with the same files" in double.what
    assert filled.verify(run.id) == (double,)
    (place / "run.json").write_text("{")
    assert [damage.file for damage in filled.verify()] == [double.file, f"{double.file}/run.json"]


def test_where_one_copy_goes_the_other_is_listed(filled, copied, tmp_path):
    run, place = copied
    assert filled.get(run.id) == run
    run.folder.rename(tmp_path / "away")
    assert filled.get(run.id).folder == place
    assert filled.verify() == ()
    (tmp_path / "away").rename(run.folder)
    assert filled.get(run.id) == run
    shutil.rmtree(place.parent)
    assert filled.get(run.id) == run
    assert filled.verify() == ()
    assert len(filled) == 30


def test_copies_in_one_day_are_named_too_and_the_whole_one_is_listed(filled):
    run = filled.list(seed=3).runs[0]
    other = run.folder.with_name(run.folder.name.replace("number", "a"))
    shutil.copytree(run.folder, other)
    (other / "run.json").write_text("{")
    assert filled.get(run.id) == run
    assert other.name in str(filled.verify(run.id)[0])


def test_a_day_that_became_a_file_has_no_runs(filled):
    for day in [path for path in filled.root.iterdir() if path.name[0] == "2"]:
        day.rename(filled.root / f"old-{day.name}")
        day.write_text("x")
    assert len(filled) == 0
