"""Validation loss: the mean loss over held-out rows, measured without any effect on the run.

    validation = Validation(mixture, encoder, ...)
    row = validation.measure(50, stop)       # {"step": 50, "eval_loss": 1.93, ...}; None after a signal

Every row is read once, in order, in batches that depend on nothing but their size. Dropout is off, nothing
goes backward, and the random numbers of the run are put back.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from vidllava.backbone.splice import collate
from vidllava.data.batches import BadSample, ProcessShare, ReadAhead, StepBatch, encoded_row, modality_of
from vidllava.data.encode import SampleEncoder
from vidllava.data.mixture import Mixture
from vidllava.data.source import MODALITIES
from vidllava.errors import VidllavaError
from vidllava.training import checkpoint
from vidllava.training.meter import sums_by_modality
from vidllava.training.optimizer import Precision
from vidllava.training.report import Report
from vidllava.training.settings import TrainingSettings
from vidllava.training.together import StopRequest, Together, resource_errors

_SMALLER = "a smaller --per-device-eval-batch-size; the last checkpoint is whole"


@dataclass
class ValidationBatches(torch.utils.data.Dataset[StepBatch]):
    """`batches[n]`: the n-th batch of one process; rows that cannot be used are left out and named."""

    mixture: Mixture
    encoder: SampleEncoder
    batch_size: int
    share: ProcessShare
    pool_first: bool = False

    def __len__(self) -> int:
        """Batches of every process: the last one may be empty in some of them."""
        return -(-len(self.mixture) // (self.batch_size * self.share.world_size))

    def __getitem__(self, number: int) -> StepBatch:
        first = (number * self.share.world_size + self.share.rank) * self.batch_size
        bad: list[BadSample] = []
        samples, ids = [], []
        try:
            for index in range(first, min(first + self.batch_size, len(self.mixture))):
                found = encoded_row(self.mixture, self.encoder, index, draw=index, step=0)
                if isinstance(found, BadSample):
                    bad.append(found)
                else:
                    ids.append(found[0])
                    samples.append(found[1])
        except VidllavaError as error:
            return StepBatch(step=number, bad=tuple(bad), error=error)
        micro = (collate(samples, pool_first=self.pool_first),) if samples else ()
        return StepBatch(
            step=number,
            micro=micro,
            ids=tuple(ids),
            modalities=tuple(modality_of(sample) for sample in samples),
            bad=tuple(bad),
        )


class Validation:
    """Measures the loss of `model` over `batches`; every process calls it, each takes its share."""

    def __init__(
        self,
        *,
        model: nn.Module,
        batches: ValidationBatches,
        settings: TrainingSettings,
        device: torch.device,
        precision: Precision,
        together: Together,
        report: Report,
    ) -> None:
        self.model, self.batches, self.device = model, batches, device
        self.precision, self.together, self.report = precision, together, report
        self.num_workers = settings.dataloader_num_workers
        self.every = settings.eval_steps
        self._told_bad = False

    def due(self, step: int, total_steps: int) -> bool:
        """Whether the loss is measured after `step`: every so many steps, and at the end."""
        return step == total_steps or bool(self.every and step % self.every == 0)

    def measure(self, step: int, stop: StopRequest) -> dict[str, Any] | None:
        """The row of figures after `step`; None if a signal asked a process to stop. Raises ResourceError."""
        begin = time.perf_counter()
        random = checkpoint.random_state(self.device)
        self.model.eval()
        try:
            with torch.no_grad():
                sums, bad, error = self._sums(step, stop)
        finally:
            self.model.train()
            checkpoint.restore_random(random, self.device)
        stops, errors, num_bad, *sums = self.together.sums(
            stop.signal is not None, error is not None, len(bad), *sums
        )
        if errors:
            raise self.together.fail(error)
        if stops:
            return None
        self._tell_bad(bad, int(num_bad))
        losses, counts = sums[: len(MODALITIES)], sums[len(MODALITIES) :]
        pairs = zip(MODALITIES, losses, counts, strict=True)
        return {
            "step": step,
            "eval_loss": sum(losses) / sum(counts) if sum(counts) else None,
            **{f"eval_loss_{name}": loss / count for name, loss, count in pairs if count},
            "eval_samples": len(self.batches.mixture) - int(num_bad),
            "eval_labels": int(sum(counts)),
            "eval_bad_samples": int(num_bad),
            "eval_seconds": round(time.perf_counter() - begin, 3),
        }

    def _sums(
        self, step: int, stop: StopRequest
    ) -> tuple[list[float], list[BadSample], VidllavaError | None]:
        """Losses and numbers of labels by modality of this process's share, and the rows left out."""
        total = torch.zeros(2, len(MODALITIES), dtype=torch.float64)
        bad: list[BadSample] = []
        count = len(self.batches)
        with ReadAhead(self.batches, start=0, stop=count, num_workers=self.num_workers) as rows:
            for number in range(count):
                data = stop.wait(_next(rows))
                if data is None:
                    break
                if data.error is not None:
                    return total.flatten().tolist(), bad, data.error
                bad += data.bad
                for prepared in data.micro:
                    micro = prepared.to(self.device, non_blocking=True)
                    with resource_errors(step, data, hint=_SMALLER), self.precision.computing():
                        output = self.model(micro)
                    total += sums_by_modality(output.label_losses, micro, data.modalities).cpu()
                self.report.validating(number + 1, count)
        return total.flatten().tolist(), bad, None

    def _tell_bad(self, bad: list[BadSample], num_bad: int) -> None:
        if num_bad and not self._told_bad:
            first = (
                f"; the first: {bad[0].source}, {bad[0].id or bad[0].index}: {bad[0].reason}" if bad else ""
            )
            total = len(self.batches.mixture)
            self.report.said(
                f"{num_bad} of {total} validation samples cannot be used and are left out{first}"
            )
        self._told_bad = True


def _next(rows: ReadAhead) -> Callable[[], StepBatch]:
    return lambda: next(rows)
