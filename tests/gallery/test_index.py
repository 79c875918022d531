"""The index is a cache: whatever happens to it, the list is the same."""

import json
import os
import sqlite3

import pytest

from scribblediffusion.gallery import Gallery
from scribblediffusion.gallery.index import NAME, words_of


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


def test_folders_of_other_kinds_are_left_alone(filled):
    (filled.root / "2026-01-01").mkdir()
    (filled.root / "2026-01-01" / "notes").mkdir()
    (filled.root / "notes.txt").write_text("mine")
    assert filled.rebuild() == 30
    assert (filled.root / "notes.txt").read_text() == "mine"


def test_words():
    assert words_of("Ein SÜSSER Apfel, größer!") == ("ein", "susser", "apfel", "grosser")
    assert words_of("苹果 🍎 x_1") == ("苹果", "x_1")
    assert words_of("\ud800 a\0b") == ("a", "b")
