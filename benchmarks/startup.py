"""How fast things begin: imports and the help of the command line, each in a new process.

    python benchmarks/startup.py [--rounds N] [--docs]

Limits: `import scribblediffusion` under 0.2 s, `scribble --help` under half a second. A bare
interpreter is measured beside them, since every line of the table includes its time.
"""

import subprocess
import sys

from measuring import Spread, bars, interleaved, machine, options, panels, show, write

PYTHON = [sys.executable, "-c"]
SCRIBBLE = [sys.executable, "-m", "scribblediffusion.cli"]
#: What is run, and the seconds that it may take.
COMMANDS: dict[str, tuple[list[str], float | None]] = {
    "python, nothing": ([*PYTHON, "pass"], None),
    "import scribblediffusion": ([*PYTHON, "import scribblediffusion"], 0.2),
    "AttentionTrace": ([*PYTHON, "from scribblediffusion import AttentionTrace"], None),
    "Gallery": ([*PYTHON, "from scribblediffusion import Gallery"], None),
    "AttentionVisualizer": ([*PYTHON, "from scribblediffusion import AttentionVisualizer"], None),
    "ScribblePipeline": ([*PYTHON, "from scribblediffusion import ScribblePipeline"], None),
    "scribble --help": ([*SCRIBBLE, "--help"], 0.5),
    "scribble draw --help": ([*SCRIBBLE, "draw", "--help"], 0.5),
}
HEAVY = ("torch", "diffusers", "transformers", "matplotlib", "gradio")


def heavy(statement: str) -> list[str]:
    """Which of the heavy packages a statement loads."""
    code = f"{statement}\nimport sys\nprint(*[m for m in {HEAVY} if m in sys.modules])"
    found = subprocess.run([*PYTHON, code], check=True, capture_output=True, text=True)
    return found.stdout.split()


def main() -> int:
    """Measure and report; 1 where a limit is passed."""
    chosen = options(__doc__, rounds=(5, "measurements of each"))
    ways = {
        name: lambda command=command: subprocess.run(command, check=True, capture_output=True)
        for name, (command, _) in COMMANDS.items()
    }
    clock, _ = interleaved(ways, chosen.rounds)
    found = {name: Spread.of(taken) for name, taken in clock.items()}
    loads = {
        name: heavy(command[-1]) if command[1] == "-c" else []
        for name, (command, _) in COMMANDS.items()
    }
    rows, late = [], []
    for name, spread in found.items():
        limit = COMMANDS[name][1]
        if limit is not None and spread.median > limit:
            late.append(name)
        bound = "" if limit is None else f"{limit:.1f}"
        rows.append((name, spread.show(), bound, ", ".join(loads[name])))
    show("Start-up, in a new process", ("", "seconds", "limit", "heavy packages loaded"), rows)
    figure, (axis,) = panels(1, width=7)
    bars(axis, list(found), list(found.values()), "seconds in a new process, median and extremes")
    record = {"machine": machine(), "seconds": found, "loads": loads, "past the limit": late}
    write("startup", record, figure, docs=chosen.docs)
    return int(bool(late))


if __name__ == "__main__":
    sys.exit(main())
