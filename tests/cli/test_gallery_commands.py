import json
import shutil
import zipfile

import pytest

from scribblediffusion.gallery import Gallery, manifest


@pytest.fixture
def three(gallery, small_trace):
    """Three runs: seeds 1, 2, 3; the last made is the first listed."""
    prompts = ["a red apple", "a blue kite", "a red\n\x1b[31mkite\u202e"]
    return [
        gallery.add(small_trace, settings={"prompt": prompt, "seed": seed})
        for seed, prompt in enumerate(prompts, 1)
    ]


def listed(done):
    """Ids in the order listed."""
    return [line.split()[0] for line in done.out.splitlines() if line.startswith("  01")]


def test_list_shows_runs_newest_first(scribble, three):
    done = scribble("gallery", "list")
    assert listed(done) == [run.id for run in reversed(three)]
    assert "a red [31mkite" in done.out
    assert "\x1b" not in done.out
    assert done.last == "3 runs"


def test_list_by_word_seed_day_and_page(scribble, three):
    assert listed(scribble("gallery", "list", "--words", "red")) == [three[2].id, three[0].id]
    assert listed(scribble("gallery", "list", "--words", "RED ap")) == [three[0].id]
    assert listed(scribble("gallery", "list", "--seed", 2)) == [three[1].id]
    day = f"{three[0].created:%Y-%m-%d}"
    assert len(listed(scribble("gallery", "list", "--since", day))) == 3
    assert len(listed(scribble("gallery", "list", "--until", day))) == 3
    assert "fits" in scribble("gallery", "list", "--until", "2001-01-01").out
    moment = three[1].created.isoformat()
    assert three[0].id not in listed(scribble("gallery", "list", "--since", moment))
    second = scribble("gallery", "list", "--size", 2, "--page", 2)
    assert listed(second) == [three[0].id]
    assert "3 to 3 of 3 runs, page 2 of 2" in second.out
    assert "only 1" in scribble("gallery", "list", "--page", 9).out
    done = scribble("gallery", "list", "--bin", "--words", "red")
    assert done.status == 2
    assert "--words does not go with --bin" in done.err


def test_list_at_the_ends_of_calendar_and_counting(scribble, three):
    assert len(listed(scribble("gallery", "list", "--until", "9999-12-31"))) == 3
    assert len(listed(scribble("gallery", "list", "--since", "0001-01-01"))) == 3
    assert "only 1" in scribble("gallery", "list", "--page", "9" * 20).out
    assert "fits" in scribble("gallery", "list", "--seed", "9" * 30).out
    assert "fits" in scribble("gallery", "list", "--words", "%").out


@pytest.mark.parametrize("command", ["show", "verify", "delete", "restore", "export"])
@pytest.mark.parametrize("name", ["\udcff\udcfe\udcfd\udcfc", "\ud800abc"])
def test_ids_of_bytes_that_are_no_text_are_refused_in_one_line(refused, run, command, name):
    assert "there is no run" in refused("gallery", command, name)


def test_verify_names_a_second_copy(scribble, gallery, run):
    shutil.copytree(run.folder, gallery.root / "2001-01-01" / run.folder.name)
    assert scribble("gallery", "rebuild").last.startswith("1 run in the index")
    done = scribble("gallery", "verify")
    assert done.status == 1
    assert f"{run.id}: 2001-01-01/{run.folder.name}: is this run once more" in done.out


def test_list_of_an_empty_gallery(scribble):
    assert "scribble draw" in scribble("gallery", "list").out


@pytest.mark.parametrize(
    "options",
    [("--since", "yesterday"), ("--page", "0"), ("--seed", "x"), ("--until", "2026-13-01")],
)
def test_list_refuses_in_one_line(refused, options):
    assert options[0].strip("-") in refused("gallery", "list", *options)


def test_no_command_says_which(refused):
    assert "scribble gallery list" in refused("gallery")


def test_the_gallery_can_be_named_before_or_after_the_command(scribble, three, tmp_path):
    elsewhere = tmp_path / "elsewhere"
    assert listed(scribble("gallery", "--gallery", elsewhere, "list")) == []
    assert listed(scribble("gallery", "list", "--gallery", elsewhere)) == []
    assert len(listed(scribble("gallery", "--gallery", tmp_path / "gallery", "list"))) == 3


def test_show_tells_everything(scribble, run):
    said = scribble("gallery", "show", run.id[-5:]).out
    for part in (run.id, "a red apple above a blue kite", "seed", "100 % to", "trace.safetensors",
                 "audit", str(run.folder)):  # fmt: skip
        assert part in said


@pytest.mark.parametrize("odd", [[1], "x", 7, {"a": [None]}, [[1], {"noise_remaining": "x"}]])
def test_show_takes_records_of_any_kind(scribble, gallery, small_trace, tmp_path, odd):
    run = gallery.add(small_trace)
    names = ("settings", "steps", "versions", "audit")
    record = {**run.record, **dict.fromkeys(names, odd)}
    (run.folder / "run.json").write_text(json.dumps(record))
    manifest.write(run.folder)
    done = scribble("gallery", "show", run.id)
    assert done.status == 0
    assert run.id in done.out


def test_show_of_a_damaged_run_names_the_damage(scribble, run):
    (run.folder / "run.json").write_text("{")
    done = scribble("gallery", "show", run.id)
    assert done.status == 1
    assert "damaged: run.json" in done.out


def test_verify_names_the_flipped_byte(scribble, three):
    assert scribble("gallery", "verify").last == "3 runs: every file is as it was saved"
    picture = three[1].folder / "image.png"
    content = bytearray(picture.read_bytes())
    content[50] ^= 4
    picture.write_bytes(content)
    done = scribble("gallery", "verify")
    assert done.status == 1
    assert f"{three[1].id}: image.png: its sha256 differs" in done.out
    assert done.last == "1 of 3 runs damaged"
    assert scribble("gallery", "verify", three[0].id).status == 0
    assert scribble("gallery", "verify", three[0].id, three[1].id).status == 1


def test_rebuild_counts(scribble, three):
    before = listed(scribble("gallery", "list"))
    assert scribble("gallery", "rebuild").last.startswith("3 runs in the index")
    assert listed(scribble("gallery", "list")) == before


def test_export_delete_import_is_the_same_run(scribble, gallery, run, tmp_path):
    path = scribble("gallery", "export", run.id, "--output", "out.zip").last
    assert zipfile.is_zipfile(tmp_path / path)
    other = tmp_path / "other"
    done = scribble("gallery", "import", path, "--gallery", other)
    assert Gallery(other).get(run.id).files == gallery.get(run.id).files
    assert run.id in done.last
    assert Gallery(other).verify() == ()


def test_export_into_a_folder_is_named_after_the_run(scribble, run, tmp_path):
    assert scribble("gallery", "export", run.id).last.endswith(f"{run.folder.name}.zip")
    assert (tmp_path / f"{run.folder.name}.zip").is_file()


def test_import_refuses(refused, tmp_path):
    (tmp_path / "x.zip").write_text("no zip")
    assert "no such file" in refused("gallery", "import", "y.zip")
    assert "x.zip" in refused("gallery", "import", "x.zip", status=1)


def test_delete_and_restore(scribble, refused, gallery, three):
    first, second = three[0].id, three[1].id
    assert f"gallery restore {first}" in scribble("gallery", "delete", first, second).out
    assert len(gallery) == 1
    assert "in the bin" in refused("gallery", "show", first)
    assert set(listed(scribble("gallery", "list", "--bin"))) == {first, second}
    assert first in scribble("gallery", "restore", first).last
    assert len(gallery) == 2
    assert "list --bin" in refused("gallery", "restore", "01ABCDEFG")


def test_delete_of_a_run_that_is_not_there_deletes_none(refused, gallery, three):
    refused("gallery", "delete", three[0].id, "01ABCDEFG")
    assert len(gallery) == 3
