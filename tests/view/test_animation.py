"""Files that frames go into."""

import importlib.util
import shutil
import subprocess
import sys
import types

import numpy as np
import pytest
from PIL import Image

from scribblediffusion.errors import SettingError
from scribblediffusion.view.animation import save_animation
from scribblediffusion.view.evolution import Evolution


def test_webp_and_refused_endings(bare_trace, tmp_path):
    evolution = Evolution.of(bare_trace, "apple")
    path = evolution.save(tmp_path / "a.webp")
    with Image.open(path) as image:
        assert image.n_frames == 2
    with pytest.raises(SettingError, match=r"\.gif"):
        evolution.save(tmp_path / "a.avi")
    with pytest.raises(SettingError, match="one for each"):
        save_animation([], [], tmp_path / "a.gif")
    assert [p.name for p in tmp_path.iterdir()] == ["a.webp"]


def test_mp4_is_a_film_of_the_same_frames(bare_trace, tmp_path):
    imageio_ffmpeg = pytest.importorskip("imageio_ffmpeg")
    evolution = Evolution.of(bare_trace, "apple")
    path = evolution.save(tmp_path / "a.mp4")
    command = [imageio_ffmpeg.get_ffmpeg_exe(), "-i", path, "-f", "rawvideo", "-pix_fmt", "rgb24"]
    done = subprocess.run([*command, "-"], capture_output=True, check=True)
    width, height = (side - side % 2 for side in evolution.frame(0).size)
    film = np.frombuffer(done.stdout, np.uint8).reshape(-1, height, width, 3)
    assert b"h264" in done.stderr
    assert b"50 fps" in done.stderr
    assert len(film) / 50 == pytest.approx(sum(evolution.durations) / 1000, abs=0.01)
    for number in (0, -1):
        drawn = np.asarray(evolution.frame(number).crop((0, 0, width, height)), int)
        assert np.abs(film[number].astype(int) - drawn).mean() < 4


def test_mp4_goes_through_ffmpeg_or_says_what_to_install(tmp_path, monkeypatch):
    frames = [Image.new("RGB", (33, 21), (i * 40, 0, 0)) for i in range(3)]
    monkeypatch.setattr(shutil, "which", lambda name: None)
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(SettingError, match="imageio-ffmpeg"):
        save_animation(frames, [80, 80, 200], tmp_path / "a.mp4")
    assert not list(tmp_path.iterdir())
    fake = tmp_path / "ffmpeg"
    fake.write_text(
        f"#!{sys.executable}\nimport sys\nopen(sys.argv[-1], 'wb').write(sys.stdin.buffer.read())\n"
    )
    fake.chmod(0o755)
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: object())
    there = types.SimpleNamespace(get_ffmpeg_exe=lambda: str(fake))
    monkeypatch.setitem(sys.modules, "imageio_ffmpeg", there)
    durations = [180, 190, 2390]
    path = save_animation(frames, durations, tmp_path / "a.mp4")
    film = np.frombuffer(path.read_bytes(), np.uint8).reshape(-1, 20, 32, 3)
    for number, (begin, stays) in enumerate(zip((0, 180, 370), durations, strict=True)):
        first, last = (round(ms * 50 / 1000) for ms in (begin + 20, begin + stays - 20))
        assert (film[first:last, ..., 0] == number * 40).all()
    assert len(film) * 20 == sum(durations)
    fake.write_text(f"#!{sys.executable}\nimport sys\nsys.exit('no such codec')\n")
    large = [Image.new("RGB", (1000, 1000))] * 3
    with pytest.raises(SettingError, match="no such codec"):
        save_animation(large, durations, tmp_path / "b.mp4")


@pytest.mark.parametrize("suffix", ["gif", "webp", "mp4"])
@pytest.mark.parametrize("given", [0, 2, 4])
def test_frames_are_taken_one_at_a_time_and_must_be_as_many_as_told(suffix, given, tmp_path):
    if suffix == "mp4":
        pytest.importorskip("imageio_ffmpeg")
    frames = (Image.new("RGB", (32, 32), (i * 40, 0, 0)) for i in range(given))
    with pytest.raises(SettingError, match="one for each"):
        save_animation(frames, [80] * 3, tmp_path / f"a.{suffix}")
    assert not list(tmp_path.iterdir())
