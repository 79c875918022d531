"""python serving.py PORT GALLERY [small] [slow] [full] [auth]: the studio for tests."""

import sys
import time
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).parents[1]))

from scribbles import small_pipeline

from scribblediffusion.web.limits import Limits
from scribblediffusion.web.server import Options, serve


def load(_: str | None):
    """The small pipeline; with "slow" each step takes a while, so that tests can step in."""
    pipe = small_pipeline()
    if "slow" in sys.argv:
        pipe.unet.register_forward_hook(lambda *_: time.sleep(0.4))
    return pipe


if __name__ == "__main__":
    torch.set_num_threads(1)
    options = Options(
        port=int(sys.argv[1]),
        gallery=Path(sys.argv[2]),
        limits=Limits(waiting=6 if "full" in sys.argv else 16),
        auth=(("ada", "lovelace"), ("bob", "builder")) if "auth" in sys.argv else (),
        load=load if "small" in sys.argv else None,
    )
    serve(options)
