"""Draw a saved run again, with `AttentionVisualizer`: no model, no torch, no diffusers.

    python examples/saved_run.py [TRACE.safetensors [WORD]]

numpy, pillow, matplotlib, scikit-image, safetensors, platformdirs and python-ulid are enough.
Without a trace, the short run in examples/traces is drawn.
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
    arguments = sys.argv[1:] or [str(Path(__file__).parent / "traces" / "fish.safetensors")]
    if len(arguments) > 2 or not Path(arguments[0]).is_file():
        sys.exit(__doc__)
    main(Path(arguments[0]), *arguments[1:])
