"""Finding runs: pages, words, days, seeds and ids."""

import time
from datetime import UTC, date, datetime, timedelta

import pytest
from tiny import stage

from scribblediffusion.errors import GalleryError
from scribblediffusion.gallery.search import words_of


def test_newest_first_in_pages(gallery, ten):
    newest = [run.id for run in reversed(ten)]
    assert [run.id for run in gallery] == newest
    page = gallery.list(page=2, size=4)
    assert [run.id for run in page] == newest[4:8]
    assert (page.total, page.pages, page.number, len(page)) == (10, 3, 2, 4)
    assert [run.id for run in gallery.list(page=3, size=4)] == newest[8:]
    assert len(gallery.list(page=4, size=4)) == 0


@pytest.mark.parametrize(
    ("words", "found"),
    [
        ("apple", 3),
        ("APPLE red", 1),
        ("app", 3),
        ("pple", 0),
        ("cafe creme", 1),
        ("Café", 1),
        ("", 10),
        ("apple kite", 0),
        ("'; --", 0),
        ("%", 0),
        ("\u200b", 0),
        ("\ud800", 0),
        ("apple, (red)", 1),
    ],
)
def test_words_of_the_prompt(gallery, ten, words, found):
    assert gallery.list(words=words).total == found


@pytest.mark.parametrize(
    ("words", "found"),
    [
        ("🍎", True), ("🍏", False), ("❤", True), ("❤️", True), ("苹果", True), ("果苹", False),
        ("红", True), ("apple", True), ("50%", True), ("5%", False), ("%", True), ("&", False),
        ("사과", True), ("사", True), ("과", False), ("か", False), ("が", True),
        ("सेब", True), ("सब", False), ("แมว", True), ("black-cat", True), ("black-dog", False),
    ],
)  # fmt: skip
def test_signs_and_scripts_of_any_kind(gallery, words, found):
    stage(gallery, "🍎❤️ 一个红苹果apple, 50% 사과 が सेब มีแมวดำ black-cat")
    assert gallery.list(words=words).total == found


def test_words():
    assert words_of("Ein SÜSSER Apfel, größer!") == (
        "ein", "susser", "apfel", ",", "grosser", "!"
    )  # fmt: skip
    assert words_of("苹果 🍎 x_1") == ("苹", "果", "🍎", "x_1")
    assert words_of("\ud800 a\0b") == ("a", "b")


@pytest.mark.parametrize("zone", ["UTC", "Pacific/Auckland", "America/Los_Angeles"])
def test_days_at_the_ends_of_the_calendar(gallery, ten, monkeypatch, zone):
    monkeypatch.setenv("TZ", zone)
    time.tzset()
    for first, last in ((date.min, date.max), (datetime.min, datetime.max)):
        assert gallery.list(since=first, until=last).total == 10
        assert gallery.list(since=last).total == gallery.list(until=first).total == 0
    monkeypatch.undo()
    time.tzset()


def test_dates_and_seeds(gallery, ten):
    middle = ten[4].created
    assert gallery.list(since=middle).total == 6
    assert gallery.list(until=middle).total == 4
    day = date.fromisoformat(ten[0].name[:10])
    same = sum(run.name.startswith(str(day)) for run in ten)
    assert gallery.list(since=day, until=day).total == same > 0
    assert gallery.list(since=day + timedelta(days=2)).total == 0
    assert gallery.list(seed=0).total == 3
    assert gallery.list(seed=2**64 - 1).runs[0].id == ten[0].id
    assert gallery.list(seed=1, words="apple", since=middle.astimezone(UTC)).total == 1


def test_paging_is_checked(gallery):
    for bad in ({"page": 0}, {"size": 0}):
        with pytest.raises(GalleryError, match="count from 1"):
            gallery.list(**bad)
    stage(gallery)
    for far in ({"page": 10**18}, {"size": 2**63}, {"page": 2**64, "size": 2**64}):
        assert gallery.list(**far).total == 1
    with pytest.raises(GalleryError, match="at most 100"):
        gallery.list(words=" ".join(f"w{i}" for i in range(101)))


def test_permalinks(gallery, ten):
    run = ten[3]
    assert gallery.get(run.id) == run
    assert gallery.get(run.id.lower()) == run
    assert gallery.get(run.id[-8:]) == run
    for unknown in (
        "01AAAAAAAAAAAAAAAAAAAAAAAA",
        "",
        "x",
        "../..",
        "%%%%",
        "\ud800abc",
        "\udcff" * 4,
        "a\0bc",
    ):
        with pytest.raises(GalleryError, match="there is no run"):
            gallery.get(unknown)
    with pytest.raises(GalleryError, match="several"):
        gallery.get(ten[0].id[:4])


def test_an_empty_gallery_is_empty(gallery):
    assert len(gallery) == 0
    assert list(gallery) == []
    assert gallery.verify() == ()
    assert not gallery.root.exists()


def test_runs_put_or_taken_away_by_hand_are_noticed(gallery, ten, tmp_path):
    assert len(gallery) == 10
    away = tmp_path / ten[5].folder.name
    ten[5].folder.rename(away)
    assert len(gallery) == 9
    away.rename(ten[5].folder)
    assert len(gallery) == 10
    assert gallery.get(ten[5].id) == ten[5]


@pytest.mark.parametrize("asked", [{"words": 5}, {"since": "2026-01-01"}, {"until": 7}])
def test_values_of_another_type_are_named(gallery, ten, asked):
    with pytest.raises(GalleryError, match=f"{next(iter(asked))}: a?.* expected"):
        gallery.list(**asked)
