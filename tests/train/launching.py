"""Scripts of this folder in two processes that train together."""

import os
import socket
import subprocess
import sys
from pathlib import Path


def launched(script: str, *arguments: Path) -> None:
    launch = ["torch.distributed.run", "--nproc-per-node=2", f"--master-port={_free_port()}"]
    subprocess.run(
        [sys.executable, "-m", *launch, Path(__file__).with_name(script), *arguments],
        check=True,
        timeout=240,
        capture_output=True,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
    )


def _free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return found.getsockname()[1]
