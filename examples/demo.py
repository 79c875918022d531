"""The main job, start to finish: a sketch and a prompt, a picture, and why it looks like that.

python examples/demo.py [SKETCH PROMPT]
"""

import json
import sys
from pathlib import Path

from scribblediffusion import AttentionVisualizer, RealAttentionExtractor, ScribblePipeline, Sketch
from scribblediffusion.settings import seeded

SKETCHES = Path(__file__).parent / "sketches"


def main(sketch_file: Path, prompt: str) -> None:
    """Draw, keep the run, and say where everything is."""
    print(f"{sketch_file.name} + {prompt!r}")
    sketch = Sketch.from_image(sketch_file)
    pipe = ScribblePipeline.from_pretrained()
    with RealAttentionExtractor(pipe) as extractor:
        pipe(prompt, sketch, generator=seeded(7))

    visualizer = AttentionVisualizer("gallery")
    view = visualizer.process_attention_for_web(extractor.trace, prompt, sketch)
    folder = Path(view.gallery["folder"])
    print()
    print(f"picture    {folder / 'image.png'}")
    print(f"evolution  {view.gif_path}")
    print(f"analysis   {view.analysis_path}")
    print(f"attention  {folder / 'trace.safetensors'}")
    print()
    print(extractor.trace.audit)


if __name__ == "__main__":
    if len(sys.argv) == 3:
        main(Path(sys.argv[1]), sys.argv[2])
    else:
        prompts = json.loads((SKETCHES / "prompts.json").read_text(encoding="utf-8"))
        main(SKETCHES / "sun-and-cloud.png", prompts["sun-and-cloud.png"])
