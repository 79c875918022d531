"""The face of the package: one list of public names, loaded when they are used."""

import inspect
import re
import subprocess
import sys
from pathlib import Path

import pytest

import scribblediffusion
from scribblediffusion import errors

ROOT = Path(__file__).parents[1]
HEAVY = ("torch", "diffusers", "transformers", "numpy", "PIL", "matplotlib", "skimage", "gradio")


def python(code: str) -> str:
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return run.stdout.strip()


@pytest.mark.parametrize("name", scribblediffusion.__all__)
def test_every_public_name_is_there_and_documented(name):
    thing = getattr(scribblediffusion, name)
    assert name in dir(scribblediffusion)
    if name != "__version__":
        assert thing.__name__ == name
        assert inspect.getdoc(thing)


def test_the_list_of_names_is_sorted_and_complete():
    names = scribblediffusion.__all__
    assert list(names) == sorted(set(names))
    raised = {
        name
        for name, thing in vars(errors).items()
        if inspect.isclass(thing) and issubclass(thing, errors.ScribbleError)
    }
    assert raised <= set(names)


def test_an_unknown_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="no attribute 'Scribble'"):
        scribblediffusion.Scribble  # noqa: B018


def test_star_import_gives_what_is_promised():
    code = "from scribblediffusion import *; print(*sorted(n for n in dir() if n[:2] != '__'))"
    assert set(python(code).split()) == set(scribblediffusion.__all__) - {"__version__"}


def test_import_is_quick_and_loads_nothing_heavy():
    code = (
        "import sys, time; start = time.process_time(); import scribblediffusion;"
        "took = time.process_time() - start;"
        "dir(scribblediffusion); from scribblediffusion import ScribbleError;"
        f"print(took, *[m for m in {HEAVY} if m in sys.modules])"
    )
    took, *loaded = min((python(code).split() for _ in range(3)), key=lambda line: float(line[0]))
    assert not loaded
    assert float(took) < 0.2


def test_sketch_and_trace_and_gallery_load_without_torch():
    code = (
        "import sys; from scribblediffusion import Sketch, AttentionTrace, Gallery;"
        "print(*[m for m in ('torch', 'diffusers', 'transformers') if m in sys.modules])"
    )
    assert python(code) == ""


def test_the_tree_in_the_docstring_is_the_tree():
    drawn = {}
    stack = []
    for line in errors.__doc__.splitlines():
        found = re.match(r"^(\s*(?:│\s*)*(?:[├└]── )?)(\w+Error)\b", line)
        if found:
            depth = len(found[1])
            stack = [(d, name) for d, name in stack if d < depth]
            drawn[found[2]] = stack[-1][1] if stack else None
            stack.append((depth, found[2]))
    real = {
        name: thing.__bases__[0].__name__
        for name, thing in vars(errors).items()
        if inspect.isclass(thing) and issubclass(thing, errors.ScribbleError)
    }
    real["ScribbleError"] = None
    assert drawn == real


def test_the_version_is_that_of_the_project():
    text = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    assert f'version = "{scribblediffusion.__version__}"' in text


def test_types_are_published():
    assert (ROOT / "src/scribblediffusion/py.typed").is_file()


def test_every_dependency_is_pinned():
    """A fresh set-up gets what was tested: nothing in pyproject is missing from constraints."""
    import tomllib

    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    extras = project["optional-dependencies"].values()
    wanted = [*project["dependencies"], *(line for extra in extras for line in extra)]
    lines = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    pins = {line.split("==")[0] for line in lines if "==" in line}
    names = {re.match(r"[\w.-]+", line)[0].lower().replace("_", "-") for line in wanted}
    assert names - pins == {"scribblediffusion"}
