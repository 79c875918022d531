"""Run as a script: kill a process at its 1st, 2nd, 3rd … file-system call, and look after each.

Prints one JSON line for every kill: what was being done, the call, and the state afterwards.
"""

import io
import json
import os
import shutil
import signal
import sys
import time
import zipfile
from pathlib import Path

from tiny import tiny_trace

from scribblediffusion.gallery import Gallery

CALLS = {
    "open", "os.mkdir", "os.rename", "os.remove", "os.rmdir", "os.listdir", "os.scandir",
    "os.utime", "shutil.rmtree", "shutil.copyfile", "sqlite3.connect", "fcntl.flock",
}  # fmt: skip
#: What is done with an open file; the interpreter reports no events for these.
WRITES = {"write", "flush", "close", "__exit__"}


def die_at(number, told):
    """Kill this process just before its `number`-th call, or after an fsync."""
    count = 0

    def step(call):
        nonlocal count
        count += 1
        if count == number:
            os.write(told, call.encode())
            os.kill(os.getpid(), signal.SIGKILL)

    real = os.fsync

    def fsync(handle):
        step("before fsync")
        real(handle)
        step("after fsync")

    os.fsync = fsync
    sys.addaudithook(lambda event, _: step(event) if event in CALLS else None)

    def file(_frame, event, called):
        written = event == "c_call" and called.__name__ in WRITES
        if written and isinstance(getattr(called, "__self__", None), io.IOBase):
            step(f"file {called.__name__}")

    sys.setprofile(file)


def killed_at(number, work):
    """(The call, or None if the work came to its end)."""
    read, told = os.pipe()
    child = os.fork()
    if child == 0:
        code = 1
        try:
            die_at(number, told)
            work()
            code = 0
        finally:
            os._exit(code)
    os.close(told)
    _, status = os.waitpid(child, 0)
    with os.fdopen(read) as pipe:
        call = pipe.read()
    if os.WIFSIGNALED(status):
        return call
    assert os.WEXITSTATUS(status) == 0, "the work itself failed"
    return None


def a_day_later(folder):
    """Set all that lies in a folder back by 25 hours."""
    then = time.time() - 25 * 3600
    for path in folder.rglob("*"):
        os.utime(path, (then, then))


def state(root):
    """What is left; a staged folder of which a run was made goes at once, any other in a day."""
    staged = root / ".staging"
    saved = {path.name[-26:] for path in root.glob("2*/*")}
    Gallery(root)
    over = [p for p in staged.glob("*/.becomes") if p.read_text() in saved]
    a_day_later(staged)
    gallery = Gallery(root)
    left = sorted(os.listdir(root / ".tmp")) if (root / ".tmp").exists() else []
    left += [*map(str, over), *(sorted(os.listdir(staged)) if staged.exists() else [])]
    runs = list(gallery)
    return {
        "runs": [run.id for run in runs],
        "bin": [run.id for run in gallery.bin()],
        "damage": [str(d) for d in gallery.verify()],
        "opened": [run.open().prompt for run in runs],
        "views": [name for run in runs for name in run.files if name.startswith("views/")],
        "left": [name for name in left if name not in ("gate", "index", "views")],
    }


def outside(folder):
    """The files there; a ZIP file with the name of what is wrong in it."""
    names = sorted(os.listdir(folder))
    return {n: zipfile.ZipFile(folder / n).testzip() if n == "run.zip" else None for n in names}


def main(doing, root):
    root = Path(root)
    trace = tiny_trace()
    template = root / "template"
    first = Gallery(template).add(trace)
    archive = Gallery(template).export(first.id, root / "run.zip")
    (root / "view.gif").write_bytes(b"GIF89a")
    if doing == "import":
        shutil.rmtree(template)
        Gallery(template).add(trace)
    staged = Gallery(template).stage("a red apple") if doing == "staged" else template
    if doing == "staged":
        (staged / "views").mkdir()
        (staged / "views" / "evolution.gif").write_bytes(b"GIF89a")
    if doing in ("restore", "empty"):
        Gallery(template).delete(first.id)
    place = root / "now"
    folder = place / staged.relative_to(template)
    works = {
        "add": lambda: Gallery(place).add(trace),
        "stage": lambda: Gallery(place).stage("a red apple"),
        "staged": lambda: Gallery(place).add(trace, folder=folder),
        "restore": lambda: Gallery(place).restore(first.id),
        "empty": lambda: Gallery(place).empty_bin(),
        "export": lambda: Gallery(place).export(first.id, root / "out" / "run.zip"),
        "list": lambda: list(Gallery(place)),
        "delete": lambda: Gallery(place).delete(first.id),
        "import": lambda: Gallery(place).import_zip(archive),
        "attach": lambda: Gallery(place).attach(first.id, root / "view.gif"),
    }
    number, call = 0, ""
    while call is not None:
        number += 1
        shutil.rmtree(place, ignore_errors=True)
        shutil.copytree(template, place)
        shutil.rmtree(root / "out", ignore_errors=True)
        (root / "out").mkdir()
        (place / ".index.sqlite").unlink(missing_ok=True)
        call = killed_at(number, works[doing])
        line = {"number": number, "call": call, **state(place)}
        line["outside"] = outside(root / "out")
        sys.stdout.write(json.dumps(line) + "\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main(*sys.argv[1:])
