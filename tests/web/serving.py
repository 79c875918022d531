"""The studio for tests.

python serving.py PORT GALLERY [small] [full] [auth] [two] [no-room] [behind]
"""

import sys
import time
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).parents[1]))

from scribbles import small_pipeline

from scribblediffusion.web.limits import Limits
from scribblediffusion.web.server import Options, serve


def load(source: str | None):
    """The small pipeline; a step takes a while where tests want to step in: `Served.slow`."""
    pipe, slow = small_pipeline(seed=1 if source else 0), Path(f"{sys.argv[2]}.slow")
    pipe.unet.register_forward_hook(lambda *_: time.sleep(0.4 if slow.exists() else 0))
    return pipe


if __name__ == "__main__":
    torch.set_num_threads(1)
    options = Options(
        port=int(sys.argv[1]),
        host="127.0.0.2" if "behind" in sys.argv else "127.0.0.1",
        gallery=Path(sys.argv[2]),
        limits=Limits(
            waiting=6 if "full" in sys.argv else 16,
            held=0 if "no-room" in sys.argv else Limits.held,
        ),
        auth=(("ada", "lovelace"), ("bob", "builder")) if "auth" in sys.argv else (),
        models={"shipped model": None, "another": "elsewhere"} if "two" in sys.argv else None,
        load=load if "small" in sys.argv else None,
    )
    serve(options)
