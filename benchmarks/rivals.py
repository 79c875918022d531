"""Installs two other packages, each in an environment of its own, and runs benchmarks with them.

    python benchmarks/rivals.py                              # install
    python benchmarks/rivals.py capture.py --docs            # run a benchmark with them
    python benchmarks/rivals.py rival_maps.py --scenes 20

attention-map-diffusers 1.0.0 and DAAM 0.2.0 go to `build/rivals/`, outside the project's `.venv`.
Their environments see the packages of `.venv` (by a `.pth` file), so that all run on one torch and
one diffusers, and what differs is what they do. Their own pins are therefore ignored:

- attention-map-diffusers asks for torchvision, which does not import beside a CPU torch of another
  build and which nothing measured here uses: it is left out.
- DAAM pins diffusers 0.21.2, transformers 4.30.2 and accelerate 0.23.0 (and with them needs
  huggingface_hub 0.25.2). It runs on today's versions.

A benchmark runs in one process, with the folders of those that could be installed on its path.
"""

from __future__ import annotations

import os
import subprocess
import sys
import sysconfig
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
HOME = ROOT / "build" / "rivals"
#: Package → what else it imports that the project does not have.
RIVALS = {"attention-map-diffusers==1.0.0": (), "daam==0.2.0": ("spacy",)}


def packages_of(rival: str) -> Path:
    """Where the packages of a rival's environment are."""
    python = f"python{sys.version_info.major}.{sys.version_info.minor}"
    return HOME / rival.split("==")[0] / "lib" / python / "site-packages"


def install(rival: str, more: tuple[str, ...]) -> bool:
    """Make its environment; where pip refuses, say what it said."""
    folder = packages_of(rival).parents[2]
    python = str(folder / "bin" / "python")
    pip = [python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    subprocess.run([sys.executable, "-m", "venv", "--clear", str(folder)], check=True)
    ours = sysconfig.get_paths()["purelib"]
    (packages_of(rival) / "project.pth").write_text(f"{ours}\n")
    for command in ([*pip, "--no-deps", rival], [*pip, *more] if more else None):
        if command is None:
            continue
        done = subprocess.run(command, check=False, capture_output=True, text=True)
        if done.returncode:
            print(f"{rival}: refused\n{done.stderr.strip()}")
            return False
    print(f"{rival}: installed into {folder.relative_to(ROOT)}")
    return True


def run(script: str, arguments: list[str]) -> int:
    """Run a benchmark with the rivals that are there."""
    there = [str(packages_of(rival)) for rival in installed()]
    if not there:
        print("no rival is installed; run this file without arguments first")
        return 2
    paths = os.pathsep.join([*there, *filter(None, [os.environ.get("PYTHONPATH")])])
    quiet = {"HF_HUB_OFFLINE": "1", "TRANSFORMERS_VERBOSITY": "error"}
    python = [sys.executable, "-W", "ignore::FutureWarning", str(Path(__file__).parent / script)]
    environment = {**os.environ, **quiet, "PYTHONPATH": paths}
    return subprocess.run([*python, *arguments], check=False, env=environment).returncode


def installed() -> list[str]:
    """Those that are there."""
    names = {rival: rival.split("==")[0].replace("-", "_") for rival in RIVALS}
    return [rival for rival, name in names.items() if (packages_of(rival) / name).is_dir()]


def main() -> int:
    """Install, or run."""
    if len(sys.argv) > 1:
        return run(sys.argv[1], sys.argv[2:])
    HOME.mkdir(parents=True, exist_ok=True)
    done = [install(rival, more) for rival, more in RIVALS.items()]
    return int(not any(done))


if __name__ == "__main__":
    sys.exit(main())
