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
    assert len(film) == sum(round(stays / 40) for stays in evolution.durations)
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
    path = save_animation(frames, [80, 80, 200], tmp_path / "a.mp4")
    assert path.stat().st_size == (2 + 2 + 5) * 32 * 20 * 3
