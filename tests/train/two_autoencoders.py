"""As `two_devices.py`, for the autoencoder and its preview network."""

import itertools
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import torch
from accelerate.utils import gather

from scribblediffusion.train import autoencoder as loop
from scribblediffusion.train.autoencoder import AutoencoderTrainer
from scribblediffusion.train.preview import PreviewTrainer

torch.set_num_threads(1)
data, folder = np.load(sys.argv[1]), Path(sys.argv[2])
trainer = AutoencoderTrainer(data, batch=1, cpu=True)
rank = trainer.devices.process_index
losses = torch.tensor([[trainer.run_step() for _ in range(2)]])
ticks = itertools.count(0, 600 if rank else 60)
loop.time = SimpleNamespace(monotonic=lambda: next(ticks))  # type: ignore[assignment]
stopped = [report.step for report in trainer.run(minutes=4)][-1]
latents = torch.randn(4, 4, 32, 32, generator=torch.Generator().manual_seed(0))
losses = torch.cat([losses, torch.tensor([[*PreviewTrainer(trainer.model, latents, data).run(2)]])])
sums = torch.stack([p.detach().double().sum() for p in trainer.model.parameters()])[None]
found = {"losses": losses[None], "stopped": torch.tensor([[stopped]]), "sums": sums}
found = {name: gather(value).numpy() for name, value in found.items()}
if trainer.devices.is_main_process:
    np.savez(folder / "found.npz", **found)
trainer.save(folder / f"checkpoint-{rank}")
trainer.export(folder / f"exported-{rank}")
trainer.devices.destroy_process_group()
