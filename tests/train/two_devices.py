"""Two processes train together, with clocks that differ; run by `test_trainer.py` by torchrun."""

import itertools
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import torch
from accelerate.utils import gather

from scribblediffusion.model.weights import shipped
from scribblediffusion.train import trainer as loop
from scribblediffusion.train.denoiser import Recipe
from scribblediffusion.train.latents import Shard
from scribblediffusion.train.trainer import Trainer

torch.set_num_threads(1)
trainer = Trainer(Recipe(batch=1, warm_up=1), Shard.load([Path(sys.argv[1])]), cpu=True)
trainer.begin(shipped())
sigmas = [trainer.run_step()[0] for _ in range(2)]
seen = gather(torch.cat(sigmas))
ticks = itertools.count(0, 600 if trainer.accelerator.process_index else 60)
loop.time = SimpleNamespace(monotonic=lambda: next(ticks))  # type: ignore[assignment]
stopped = [report.step for report in trainer.run(minutes=4, fall=0.5)][-1]
stopped = gather(torch.tensor([[stopped]]))
sums = gather(torch.stack([p.detach().double().sum() for p in trainer.model.parameters()])[None])
if trainer.accelerator.is_main_process:
    np.savez(sys.argv[2], seen=seen.numpy(), sums=sums.numpy(), stopped=stopped.numpy())
trainer.save(Path(sys.argv[3]))
trainer.accelerator.end_training()
