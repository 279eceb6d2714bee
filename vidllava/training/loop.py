"""The steps: forward, backward, clip, and an update only where every gradient is finite.

The loss of a step is the mean over all labels of the global batch, whatever the number of processes and
micro-batches, so the same global batch gives the same gradient however it is cut.
"""

from __future__ import annotations

import json
import math
import signal
import time
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from pathlib import Path

import torch
from accelerate import Accelerator

from vidllava.data.batches import Ledger, ReadAhead, StepBatch, StepBatches
from vidllava.errors import DatasetError, DivergedError
from vidllava.training import parameters
from vidllava.training.meter import Meter, sums_by_modality
from vidllava.training.optimizer import (
    Precision,
    build_optimizers,
    num_warmup_steps,
    precision_of,
    schedule_factor,
)
from vidllava.training.report import METRICS_FILE, Report, RunEnd, append_row, validations
from vidllava.training.settings import TrainingSettings
from vidllava.training.together import StopRequest, Together, resource_errors
from vidllava.training.validation import Validation

MAX_IDS = 8  # samples named where a step was not finite


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
        validation: Validation | None = None,
    ) -> None:
        self.settings, self.total_steps, self.batches = settings, total_steps, batches
        self.accelerator, self.output, self.ledger, self.report = accelerator, output, ledger, report
        self.warmup_steps = num_warmup_steps(
            total_steps, ratio=settings.warmup_ratio, steps=settings.warmup_steps
        )
        self.named = parameters.trainable(model)
        self.optimizer = build_optimizers(model, settings)
        self.model = accelerator.prepare_model(model)
        self.precision = Precision(precision_of(settings), accelerator.device)
        self.pending_losses: list[float] = []
        self.pending_by_modality: list[float] = []
        self.nonfinite_in_a_row = self.pending_nonfinite = 0
        self.together = Together(accelerator)
        self.validation = validation

    def run(self, start: int, save: Callable[[int], None], stop: StopRequest) -> RunEnd:
        """Do steps start + 1 .. total_steps, or up to the one in which `stop` came.

        Raises DatasetError if too many samples cannot be used, ResourceError if memory or a data worker is
        gone, DivergedError after a row of steps with NaN or Inf, none of which was applied.
        """
        self.model.train()
        self.meter = Meter(
            world_size=self.accelerator.num_processes,
            losses=self.pending_losses,
            by_modality=self.pending_by_modality,
        )
        self.meter.nonfinite_steps = self.pending_nonfinite
        workers = self.settings.dataloader_num_workers
        ahead = {"start": start, "stop": self.total_steps, "num_workers": workers}
        if start and not self._is_validated(start):
            self._validate(start, stop)  # what a kill has cut off
        with ReadAhead(self.batches, **ahead) as rows:
            for step in range(start, self.total_steps):
                with resource_errors(step + 1, None):
                    data = self._next(rows, stop)
                labels = self._agree(data)
                if data is None or labels is None:
                    return RunEnd(step, stop.signal or signal.SIGTERM)
                with resource_errors(step + 1, data):
                    self._do(data, labels, save, stop)
        if self.nonfinite_in_a_row > 1:  # one alone is bad luck, and was not applied
            what = f"the last {self.nonfinite_in_a_row} steps had NaN or Inf gradients"
            raise DivergedError(f"step {self.total_steps}", what, "a lower --learning-rate")
        return RunEnd(self.total_steps)

    def _next(self, rows: ReadAhead, stop: StopRequest) -> StepBatch | None:
        """The next step's data; None where a signal came, however long the data would have taken."""
        before = time.perf_counter()
        data = stop.wait(lambda: next(rows))
        self.meter.waited(time.perf_counter() - before)
        return data

    def _agree(self, data: StepBatch | None) -> float | None:
        """The labels of the global batch; None if any process was asked to stop: all leave after one step.

        Raises, in every process, what makes one of them end.
        """
        error = None if data is None else data.error
        bad = () if data is None else data.bad
        drawn = 0 if data is None else len(data.ids) + len(bad)
        labels = 0 if data is None else data.num_labels
        stops, errors, num_bad, num_drawn, num_labels = self.together.sums(
            data is None, error is not None, len(bad), drawn, labels
        )
        if stops:
            return None  # nothing of this step is counted or written: it will be done again
        self.ledger.write(bad)
        self.ledger.count(num_bad=int(num_bad), num_drawn=int(num_drawn))
        if errors:
            raise self.together.fail(error)
        if self.ledger.too_many:
            what = f"{self.ledger.num_bad} of {self.ledger.num_drawn} samples could not be used"
            hint = f"mend them, or raise --max-bad-fraction above {self.ledger.max_bad_fraction}"
            raise self.together.fail(DatasetError(self.ledger.path, what, hint))
        return num_labels

    def _do(self, data: StepBatch, labels: float, save: Callable[[int], None], stop: StopRequest) -> None:
        """One step with all that follows from it."""
        done = data.step + 1
        loss, norm, culprits = self._step(data, labels)
        self.meter.stepped(data, loss, self._by_modality)
        if not self.precision.scale_was_too_large:
            self._check_finite(done, loss, culprits)
        self.report.stepped(done)
        if done % self.settings.logging_steps == 0 or done in (1, self.total_steps):
            self._log(done, self.meter, norm)
        self._validate(done, stop)  # before the checkpoint, which then has it in its past
        if self.settings.save_steps and done % self.settings.save_steps == 0 and done < self.total_steps:
            save(done)

    def _validate(self, step: int, stop: StopRequest) -> None:
        """Measure the validation loss where it is due; a signal leaves it to the run that goes on."""
        if self.validation is None or not self.validation.due(step, self.total_steps):
            return
        begin = time.perf_counter()
        row = self.validation.measure(step, stop)
        self.meter.paused(time.perf_counter() - begin)
        if row is not None and self.accelerator.is_main_process:
            append_row(self.output / METRICS_FILE, row)
            self.report.validated(row)
        if row is None and step == self.total_steps:
            self.report.said("a signal has cut off the last validation")

    def _is_validated(self, step: int) -> bool:
        """Whether the metrics have the validation of `step` already; the main process looks."""
        seen = False
        if self.validation is not None and self.accelerator.is_main_process:
            seen = any(row["step"] == step for row in validations(self.output / METRICS_FILE))
        return bool(self.together.sums(seen)[0])

    def _step(self, data: StepBatch, labels: float) -> tuple[float | None, float, tuple[str, ...]]:
        """One optimizer step over `labels` labels of all processes: (their mean loss, gradient norm, ids of
        the samples to look at if it was not finite); a loss of None: the step was not applied."""
        world, device = self.accelerator.num_processes, self.accelerator.device
        rate = schedule_factor(
            data.step,
            total_steps=self.total_steps,
            warmup_steps=self.warmup_steps,
            kind=self.settings.lr_scheduler_type,
        )
        for group in self.optimizer.param_groups:
            group["lr"] = group["peak_lr"] * rate
        losses, by_modality, place = [], [], 0
        for number, prepared in enumerate(data.micro, 1):
            last, micro = number == len(data.micro), prepared.to(device, non_blocking=True)
            with nullcontext() if last or world == 1 else self.accelerator.no_sync(self.model):
                with self.precision.computing():
                    output = self.model(micro)
                # DDP divides the summed gradients by the number of processes: multiply by it beforehand.
                loss = output.loss * (output.num_labels * world / labels)
                self.accelerator.backward(self.precision.scaled(loss))
            losses.append(loss.detach())
            modalities = data.modalities[place : (place := place + len(micro.lengths))]
            by_modality.append(sums_by_modality(output.label_losses, micro, modalities))
        self.precision.unscale(self.optimizer)
        limit = self.settings.max_grad_norm or math.inf
        norm = float(torch.nn.utils.clip_grad_norm_([p for _, p in self.named], limit))
        values = [float(loss) for loss in losses]
        total, *self._by_modality = self.together.sums(
            sum(values), *torch.stack(by_modality).sum(0).flatten().tolist()
        )
        mean = total / world
        # After DDP's all-reduce the norm is the same number on every process, so all decide alike.
        applied = math.isfinite(norm)
        if applied:
            self.optimizer.step()
        self.precision.done(loss=mean, applied=applied)
        self.optimizer.zero_grad()
        return (mean if applied else None), norm, _culprits(data, values)

    def _check_finite(self, step: int, loss: float | None, culprits: tuple[str, ...]) -> None:
        if loss is not None:
            self.nonfinite_in_a_row = 0
            return
        self.nonfinite_in_a_row += 1
        ids = [name for text in self.together.texts(json.dumps(culprits)) for name in json.loads(text)]
        shown = ", ".join(ids[:MAX_IDS]) + (f" and {len(ids) - MAX_IDS} more" if len(ids) > MAX_IDS else "")
        self.report.said(f"step {step} had a NaN or Inf gradient and was not applied; samples {shown}")
        if self.nonfinite_in_a_row >= self.settings.max_nonfinite_steps:
            what = f"{self.nonfinite_in_a_row} steps in a row had NaN or Inf gradients; last samples: {shown}"
            hint = "a lower --learning-rate, or look at these samples; the last checkpoint is whole"
            raise self.together.fail(DivergedError(f"step {step}", what, hint))

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
            **self.precision.row(),
            **meter.row(),
        }
        if self.accelerator.is_main_process:
            append_row(self.output / METRICS_FILE, row)
            self.report.logged(row)


def _culprits(data: StepBatch, losses: Sequence[float]) -> tuple[str, ...]:
    """Ids of the micro-batches whose own loss is not finite; all of this process's if each of them is."""
    found: list[str] = []
    place = 0
    for micro, loss in zip(data.micro, losses, strict=True):
        ids = data.ids[place : place + len(micro.lengths)]
        place += len(ids)
        found += () if math.isfinite(loss) else ids
    return tuple(found) or data.ids
