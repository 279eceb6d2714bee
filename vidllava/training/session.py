"""A checked job on real processes: model, optimizer, data and checkpoints put together."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator

from vidllava.backbone.load import choose_device, load_backbone
from vidllava.data.batches import Share, StepBatches
from vidllava.data.encode import SampleEncoder
from vidllava.data.ledger import Ledger
from vidllava.data.mixing import BatchOrder
from vidllava.data.mixture import Mixture
from vidllava.data.own_sampler import OwnSampler
from vidllava.errors import DatasetError, ModelError, UsageError
from vidllava.training import lengths, parameters, state
from vidllava.training.checkpoint import FORMAT, STATE_FILE, Checkpoint, publish, write_checkpoint, write_json
from vidllava.training.loop import Trainer
from vidllava.training.report import LEDGER_FILE, Outcome, Report
from vidllava.training.run import Job, run_state
from vidllava.training.settings import TrainingSettings

_SUPPORTED = ("NO", "MULTI_CPU", "MULTI_GPU")


class Session:
    """Everything that one process of a run holds."""

    def __init__(
        self, job: Job, settings: TrainingSettings, mixture: Mixture, found: Checkpoint | None, report: Report
    ) -> None:
        self.job, self.settings, self.found, self.report = job, settings.resolved(), found, report
        self.run_state = run_state(job, settings, mixture)
        self.accelerator = _accelerator(job, settings)
        torch.manual_seed(settings.seed + self.accelerator.process_index)
        self.backbone = load_backbone(
            job.model if found is None else str(found.folder),
            device=str(self.accelerator.device),
            dtype="float32",
            attn_implementation=job.attn_implementation,
            download=job.download,
        )
        parameters.freeze(self.backbone, settings.freeze)
        world = self.accelerator.num_processes
        micro = settings.gradient_accumulation_steps
        mixture = lengths.measured(mixture, job, self.backbone, self.accelerator, report)
        self.lengths = lengths.fingerprint(mixture)
        order = BatchOrder(
            mixture,
            mix=settings.mix,
            batch_size=settings.per_device_train_batch_size * micro * world,
            seed=int(self.settings.data_seed or 0),
        )
        self.total_steps = settings.max_steps or order.steps(settings.num_train_epochs)
        self.sampler = OwnSampler(job.limits)
        encoder = SampleEncoder(self.backbone.settings, self.backbone.codec, job.encode, self.sampler)
        share = Share(rank=self.accelerator.process_index, world_size=world, micro_batches=micro)
        self.trainer = Trainer(
            model=self.backbone,
            batches=StepBatches(order, encoder, share),
            settings=settings,
            total_steps=self.total_steps,
            accelerator=self.accelerator,
            output=job.output_dir,
            ledger=Ledger(job.output_dir / LEDGER_FILE, max_bad_fraction=settings.max_bad_fraction),
            report=report,
        )

    @property
    def is_main(self) -> bool:
        """Whether this process writes the files."""
        return self.accelerator.is_main_process

    def run(self) -> Outcome:
        """Train from the checkpoint, or from the start, to the end or to a signal; then save."""
        try:
            return self._run()
        finally:
            self.sampler.close()

    def _run(self) -> Outcome:
        start = 0
        if self.found is not None:
            start = self.found.step
            if start > self.total_steps:
                raise UsageError("--max-steps", f"{self.total_steps} is before the checkpoint's step {start}")
            self._restore(self.found)
        if self.is_main:
            table = parameters.table(self.backbone, self.settings)
            self.report.begins(total_steps=self.total_steps, done_steps=start, modules=table)
        outcome = self.trainer.run(start, self.save)
        if outcome.signal is not None:
            if outcome.step > start:
                self.save(outcome.step)
        elif self.is_main:
            publish(self.job.output_dir, self.backbone.save)
        self.accelerator.wait_for_everyone()
        return outcome

    def save(self, step: int) -> None:
        """Write `checkpoint-<step>`; every process calls it, the main one writes."""
        random = state.random_state(self.accelerator.device).to(self.accelerator.device)
        states = self.accelerator.gather(random[None])
        if self.is_main:

            def write(folder: Path) -> None:
                self.backbone.save(folder)
                state.save_optimizer(self.trainer.optimizer, self.trainer.named, folder)
                state.save_random(states, folder)
                write_json(folder / STATE_FILE, self._state(step))

            write_checkpoint(self.job.output_dir, step, write, keep=self.settings.save_total_limit)
        self.accelerator.wait_for_everyone()

    def _state(self, step: int) -> dict[str, Any]:
        return {
            "format": FORMAT,
            "step": step,
            "total_steps": self.total_steps,
            "world_size": self.accelerator.num_processes,
            "pending_losses": self.trainer.meter.losses,
            "bad_samples": [self.trainer.ledger.num_bad, self.trainer.ledger.num_drawn],
            "run": self.run_state,
            "lengths": self.lengths,
        }

    def _restore(self, found: Checkpoint) -> None:
        world = self.accelerator.num_processes
        if found.state.get("world_size") != world and not self.job.allow_changes:
            raise ModelError(
                found.folder,
                f"was made by {found.state.get('world_size')} processes, this run has {world}",
                "use as many, or --allow-changes",
            )
        if found.state.get("lengths") != self.lengths and not self.job.allow_changes:
            what = "the media, or what can be read of them, changed since this checkpoint was written"
            raise DatasetError(found.folder, what, "use the same, or --allow-changes")
        state.load_optimizer(self.trainer.optimizer, self.trainer.named, found.folder)
        self.trainer.pending_losses = [float(loss) for loss in found.state["pending_losses"]]
        self.trainer.ledger.num_bad, self.trainer.ledger.num_drawn = found.state["bad_samples"]
        rank = self.accelerator.process_index
        if rank < int(found.state.get("world_size", 1)):
            state.restore_random(state.load_random(found.folder, rank), self.accelerator.device)


def _accelerator(job: Job, settings: TrainingSettings) -> Accelerator:
    """The processes and the device. Without a launcher this is one process on `job.device`."""
    device, _ = choose_device(job.device)
    accelerator = Accelerator(cpu=device.type == "cpu", mixed_precision="bf16" if settings.bf16 else None)
    if accelerator.distributed_type.value not in _SUPPORTED:
        raise UsageError(
            "accelerate",
            f"{accelerator.distributed_type.value} cannot be saved and resumed here yet",
            "launch with plain data parallelism (DDP)",
        )
    if accelerator.device.type == "cuda":
        torch.set_float32_matmul_precision("high")  # TF32 in what autocast leaves in float32, as upstream
    return accelerator
