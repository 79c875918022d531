"""Draw a saved run again: no model, no torch, no diffusers.

python examples/saved_run.py TRACE.safetensors [WORD]
"""

import sys
from pathlib import Path

from scribblediffusion import AttentionTrace, AttentionVisualizer


def main(path: Path, word: str | None = None) -> None:
    """Print the summary; write the evolution and the analysis beside the trace."""
    trace = AttentionTrace.load(path)
    visualizer = AttentionVisualizer()
    folder = path.parent / f"{path.stem}-views"
    folder.mkdir(exist_ok=True)
    print(visualizer.summary(trace))
    print(visualizer.create_evolution_gif(trace, trace.prompt, None, folder, word=word))
    formats = ("png", "svg", "html")
    print(visualizer.create_comprehensive_analysis(trace, "", None, folder, formats=formats))


if __name__ == "__main__":
    if len(sys.argv) not in (2, 3):
        sys.exit(__doc__)
    main(Path(sys.argv[1]), *sys.argv[2:])
