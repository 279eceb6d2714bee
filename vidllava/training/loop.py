"""The steps: forward, backward, clip, and an update only where every gradient is finite.

The loss of a step is the mean over all labels of the global batch, whatever the number of processes and
micro-batches, so the same global batch gives the same gradient however it is cut.
"""

from __future__ import annotations

import math
import signal
import time
from collections.abc import Callable, Iterable
from contextlib import nullcontext
from pathlib import Path

import torch
from accelerate import Accelerator

from vidllava.data.batches import StepBatch, StepBatches, read_ahead
from vidllava.data.ledger import Ledger
from vidllava.errors import DatasetError, DivergedError
from vidllava.training import parameters, schedule
from vidllava.training.meter import Meter
from vidllava.training.optimizer import build_optimizers
from vidllava.training.report import METRICS_FILE, Outcome, Report, append_row
from vidllava.training.settings import TrainingSettings
from vidllava.training.signals import StopRequest


class Trainer:
    """One run in one process. `save(step)` is called where a checkpoint is due, on every process."""

    def __init__(
        self,
        *,
        model: torch.nn.Module,
        batches: StepBatches,
        settings: TrainingSettings,
        total_steps: int,
        accelerator: Accelerator,
        output: Path,
        ledger: Ledger,
        report: Report,
    ) -> None:
        self.settings, self.total_steps, self.batches = settings, total_steps, batches
        self.accelerator, self.output, self.ledger, self.report = accelerator, output, ledger, report
        self.warmup_steps = schedule.warmup(
            total_steps, ratio=settings.warmup_ratio, steps=settings.warmup_steps
        )
        self.named = parameters.trainable(model)
        self.optimizer = build_optimizers(model, settings)
        self.model = accelerator.prepare_model(model)
        self.pending_losses: list[float] = []
        self._nonfinite_in_a_row = 0

    def run(self, start: int, save: Callable[[int], None]) -> Outcome:
        """Do steps start + 1 .. total_steps.

        Raises DatasetError if too many samples cannot be used, DivergedError after a row of steps with NaN
        or Inf, none of which was applied.
        """
        self.model.train()
        meter = self.meter = Meter(world_size=self.accelerator.num_processes, losses=self.pending_losses)
        with StopRequest() as stop:
            data_before = time.perf_counter()
            for data in self._data(start):
                meter.waited(time.perf_counter() - data_before)
                if self._agree_to_stop(stop.signal is not None):
                    return Outcome(data.step, stop.signal or signal.SIGTERM)
                done = data.step + 1
                loss, norm = self._step(data)
                meter.stepped(data, loss)
                self._check_finite(done, loss, data.ids)
                self.report.stepped(done)
                if done % self.settings.logging_steps == 0 or done in (1, self.total_steps):
                    self._log(done, meter, norm)
                if (
                    self.settings.save_steps
                    and done % self.settings.save_steps == 0
                    and done < self.total_steps
                ):
                    save(done)
                data_before = time.perf_counter()
        if self._nonfinite_in_a_row > 1:  # one alone is bad luck, and was not applied
            what = f"the last {self._nonfinite_in_a_row} steps had NaN or Inf gradients"
            raise DivergedError(f"step {self.total_steps}", what, "a lower --learning-rate")
        return Outcome(self.total_steps)

    def _data(self, start: int) -> Iterable[StepBatch]:
        workers = self.settings.dataloader_num_workers
        rows = read_ahead(self.batches, start=start, stop=self.total_steps, num_workers=workers)
        for data in rows:
            self.ledger.record(data.bad, num_drawn=len(data.ids) + len(data.bad))
            if data.error is not None:
                raise data.error
            if self.ledger.too_many:
                raise DatasetError(
                    self.ledger.path,
                    f"{self.ledger.num_bad} of {self.ledger.num_drawn} samples could not be used",
                    f"mend them, or raise --max-bad-fraction above {self.ledger.max_bad_fraction}",
                )
            yield data

    def _agree_to_stop(self, wanted: bool) -> bool:
        """Whether any process was asked to stop: all must leave the loop after the same step."""
        return self._total(float(wanted)) > 0

    def _total(self, value: float) -> float:
        """The sum of a number over all processes."""
        if self.accelerator.num_processes == 1:
            return value
        number = torch.tensor([value], dtype=torch.float64, device=self.accelerator.device)
        return float(self.accelerator.reduce(number, "sum").item())

    def _step(self, data: StepBatch) -> tuple[float | None, float]:
        """One optimizer step: (mean loss over the global batch's labels, gradient norm); a loss of None means
        that the step was not applied."""
        world, device = self.accelerator.num_processes, self.accelerator.device
        labels = self._total(data.num_labels)
        rate = schedule.factor(
            data.step,
            total_steps=self.total_steps,
            warmup_steps=self.warmup_steps,
            kind=self.settings.lr_scheduler_type,
        )
        for group in self.optimizer.param_groups:
            group["lr"] = group["peak_lr"] * rate
        losses = []
        for number, micro in enumerate(data.micro, 1):
            last = number == len(data.micro)
            with nullcontext() if last or world == 1 else self.accelerator.no_sync(self.model):
                output = self.model(micro.to(device, non_blocking=True))
                # DDP divides the summed gradients by the number of processes: multiply by it beforehand.
                loss = output.loss * (output.num_labels * world / labels)
                self.accelerator.backward(loss)
            losses.append(loss.detach())
        limit = self.settings.max_grad_norm or math.inf
        norm = float(torch.nn.utils.clip_grad_norm_([p for _, p in self.named], limit))
        mean = self._total(float(sum(losses))) / world
        # After DDP's all-reduce the norm is the same number on every process, so all decide alike.
        applied = math.isfinite(norm)
        if applied:
            self.optimizer.step()
        self.optimizer.zero_grad()
        return (mean if applied else None), norm

    def _check_finite(self, step: int, loss: float | None, ids: tuple[str, ...]) -> None:
        if loss is not None:
            self._nonfinite_in_a_row = 0
            return
        self._nonfinite_in_a_row += 1
        shown = ", ".join(ids[:8]) + (", ..." if len(ids) > 8 else "")
        self.report.said(f"step {step} had a NaN or Inf gradient and was not applied; samples {shown}")
        if self._nonfinite_in_a_row >= self.settings.max_nonfinite_steps:
            raise DivergedError(
                f"step {step}",
                f"{self._nonfinite_in_a_row} steps in a row had NaN or Inf gradients; last samples: {shown}",
                "a lower --learning-rate, or look at these samples; the last checkpoint is whole",
            )

    def _log(self, step: int, meter: Meter, norm: float) -> None:
        groups = self.optimizer.param_groups
        rates = {group["module"]: group["lr"] for group in groups if not group["use_muon"]}
        row = {
            "step": step,
            "epoch": round(step * self.batches.order.batch_size / self.batches.order.epoch_size, 4),
            "learning_rate": rates.get("llm", 0.0),
            "vision_lr": rates.get("vision", 0.0),
            "projector_lr": rates.get("projector", 0.0),
            "grad_norm": norm if math.isfinite(norm) else None,
            "bad_samples": self.ledger.num_bad,
            **meter.row(),
        }
        if self.accelerator.is_main_process:
            append_row(self.output / METRICS_FILE, row)
            self.report.logged(row)
