"""One of the processes of a run: `python -m tests.training.world_size FOLDER`, started by torchrun.

Rank 0 sees only pictures, rank 1 only text or clips (`Sided`). Figures go to FOLDER/rank-<r>.json.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import torch
from accelerate import Accelerator

from tests.worlds import World
from vidllava.backbone.load import load_backbone
from vidllava.backbone.model import ForwardOutput
from vidllava.backbone.splice import PackedBatch
from vidllava.data.batches import Ledger, ProcessShare, StepBatches
from vidllava.data.encode import SampleEncoder
from vidllava.data.mixing import BatchOrder
from vidllava.data.mixture import Mixture
from vidllava.data.token_counter import EncodeOptions
from vidllava.training.loop import Trainer
from vidllava.training.report import Silent
from vidllava.training.settings import TrainingSettings
from vidllava.training.together import StopRequest
from vidllava.training.validation import Validation, ValidationBatches

STEPS, SIZE = 4, 4
# The global batches: the first half is rank 0's. Steps with pictures | text, pictures | clips, both at once.
PATTERN = ("picture", "pictures", "text", "text", "picture", "picture", "video", "text", "text", "video")
BATCHES = ((0, 1, 2, 3), (4, 5, 6, 7), (1, 4, 8, 2), (0, 5, 9, 6))
TEXT_ON_RANK_1 = (0, 2)
DTYPES = (torch.float64, torch.float32)


class Sided(BatchOrder):
    """The batches above, instead of a mixed order."""

    def batch(self, step: int) -> np.ndarray:
        return np.array(BATCHES[step])


def trained(folder: Path, dtype: torch.dtype, accelerator: Accelerator) -> dict[str, Any]:
    """Losses, gradient norms, calls of the tower per forward, and all weights after STEPS steps."""
    backbone = load_backbone(str(folder / "tiny"), device="cpu").to(dtype)
    world, rank = accelerator.num_processes, accelerator.process_index
    mixture = Mixture((World(PATTERN),))
    order = Sided(mixture, mix="in-batch", batch_size=SIZE, seed=0)
    encoder = SampleEncoder(backbone.settings, backbone.codec, EncodeOptions())
    calls: list[int] = []  # how many frames and tiles each call of the tower was given
    labels: list[int] = []
    encode, forward = backbone.encode, backbone.forward

    def counted(pixels: torch.Tensor, **where: str) -> torch.Tensor:
        calls.append(len(pixels))
        return encode(pixels, **where)

    def seen(batch: PackedBatch) -> ForwardOutput:
        labels.append(batch.label_ids.numel())
        return forward(batch)

    backbone.encode, backbone.forward = counted, seen  # type: ignore[method-assign]
    settings = TrainingSettings(
        learning_rate=1e-3,
        vision_lr=1e-3,
        logging_steps=1,
        save_steps=0,
        max_grad_norm=None,
        warmup_ratio=0.0,
    )
    output = folder / f"out-{world}-{dtype}".replace(".", "-")
    output.mkdir(exist_ok=True)
    trainer = Trainer(
        model=backbone,
        batches=StepBatches(order, encoder, ProcessShare(rank=rank, world_size=world)),
        settings=settings.resolved(),
        total_steps=STEPS,
        accelerator=accelerator,
        output=output,
        ledger=Ledger(output / "ledger.jsonl", max_bad_fraction=0.0),
        report=Silent(),
    )
    held_out = Mixture((World(("picture", "text", "video"), 2, bad={4}),))
    validation = Validation(
        model=backbone,
        batches=ValidationBatches(held_out, encoder, 2, ProcessShare(rank=rank, world_size=world)),
        settings=settings.resolved(),
        device=accelerator.device,
        precision=trainer.precision,
        together=trainer.together,
        report=Silent(),
    )
    with StopRequest() as stop:
        trainer.run(0, lambda step: None, stop)
        backbone.encode, backbone.forward = encode, forward  # type: ignore[method-assign]
        validated = validation.measure(STEPS, stop)
    metrics = (output / "metrics.jsonl").read_text() if rank == 0 else ""
    rows = [json.loads(line) for line in metrics.splitlines()]
    return {
        "world": world,
        "loss": [row["loss"] for row in rows],
        "grad_norm": [row["grad_norm"] for row in rows],
        "tower_calls": calls,
        "labels": max(labels),
        "validated": validated,
    }


def main() -> None:
    folder = Path(sys.argv[1])
    torch.set_num_threads(1)
    accelerator = Accelerator(cpu=True)
    found = {str(dtype): trained(folder, dtype, accelerator) for dtype in DTYPES}
    (folder / f"rank-{accelerator.process_index}.json").write_text(json.dumps(found))
    accelerator.wait_for_everyone()
    accelerator.end_training()


if __name__ == "__main__":
    main()
