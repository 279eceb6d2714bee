"""A checked job on real processes: model, lengths, optimizer, data and checkpoints put together."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from accelerate import Accelerator
from accelerate.utils import broadcast

from vidllava.backbone.load import check_compiler, choose_device, load_backbone
from vidllava.backbone.locate import ADAPTER_FILES, WHOLE_FILES, locate
from vidllava.backbone.model import Backbone
from vidllava.data.batches import Ledger, ProcessShare, StepBatches
from vidllava.data.encode import SampleEncoder
from vidllava.data.measure import Measuring, TextLengths, measure
from vidllava.data.media_index import Headers, MediaIndex
from vidllava.data.mixing import BatchOrder
from vidllava.data.mixture import Mixture
from vidllava.data.own_sampler import OwnSampler, SamplerPool
from vidllava.data.token_counter import TokenCounter
from vidllava.errors import DatasetError, ModelError, UsageError, VidllavaError
from vidllava.files.cache_folder import CacheFolder
from vidllava.files.writing import write_json
from vidllava.models import named_models
from vidllava.training import checkpoint, parameters
from vidllava.training.checkpoint import (
    FINISHED_FILE,
    FORMAT,
    STATE_FILE,
    Checkpoint,
    finished_run,
    publish,
    write_checkpoint,
)
from vidllava.training.job import Job, run_state
from vidllava.training.loop import Trainer
from vidllava.training.optimizer import precision_of
from vidllava.training.report import LEDGER_FILE, Report, RunEnd
from vidllava.training.settings import TrainingSettings
from vidllava.training.together import StopRequest, Together, check_room
from vidllava.training.validation import Validation, ValidationBatches


def prepare(backbone: Backbone, job: Job, settings: TrainingSettings, *, fresh: bool) -> None:
    """Tune, freeze and adapt `backbone`; a resumed one (not `fresh`) has its adapter already."""
    backbone.tune(job.tuning)
    if fresh or backbone.adapter is None:
        parameters.freeze(backbone, settings.frozen)
    if settings.lora and backbone.adapter is None:
        from vidllava.backbone.adapter import LoraOptions, add_adapter

        options = LoraOptions(
            modules=settings.lora_modules,
            rank=settings.lora_rank,
            alpha=settings.lora_alpha,
            dropout=settings.lora_dropout,
        )
        add_adapter(backbone, options, base=_base(job.model))
    if settings.gradient_checkpointing:
        backbone.checkpoint_activations()
    if settings.compile:
        check_compiler(backbone.device)
        backbone.compile_layers()


def _base(name: str) -> str:
    """How an adapter's folder calls the model it stands on, from wherever it is read."""
    shown, folder = locate(name)
    if shown in named_models():
        return named_models()[shown].hub_id or shown
    return str(folder.resolve()) if folder.exists() and name == shown and folder.name in name else shown


_PULSE_SECONDS = 0.5


def with_measured_lengths(
    mixture: Mixture, job: Job, backbone: Backbone, accelerator: Accelerator, report: Report
) -> Mixture:
    """The mixture with lengths, where they can be told from headers; else as it is."""
    if any(source.row(0) is None for source in mixture.sources):  # not rows of a file
        return mixture
    together, found = Together(accelerator), np.zeros(len(mixture), np.int32)
    if accelerator.is_main_process:
        error: VidllavaError | None = None
        try:
            found = _looked_up(mixture, job, backbone, together, report)
        except VidllavaError as fault:
            error = fault
        _, failed = together.sums(1.0, error is not None)
    else:
        ended = failed = 0.0
        while not ended:
            ended, failed = together.sums(0.0, 0.0)
        error = None
    if failed:
        raise together.fail(error)
    shared = broadcast(torch.from_numpy(found).to(accelerator.device), from_process=0)
    return replace(mixture, lengths=shared.cpu().numpy())


def _looked_up(
    mixture: Mixture, job: Job, backbone: Backbone, together: Together, report: Report
) -> np.ndarray:
    """int32 [n], found by another thread: this one tells the user and the other processes meanwhile."""
    counter = TokenCounter(backbone.settings, backbone.codec, job.encode)
    folder = CacheFolder.of_environment()
    kept = TextLengths(folder, counter)
    known = kept.find(mixture)
    measuring = Measuring(known.copy())
    try:
        with (
            ThreadPoolExecutor(1, thread_name_prefix="measure") as thread,
            MediaIndex(folder, report.said) as index,
            SamplerPool(job.limits) as pool,
        ):
            work: Future[np.ndarray] = thread.submit(
                measure, mixture, counter, Headers(index), pool, measuring
            )
            while not wait([work], timeout=_PULSE_SECONDS).done:
                report.measured(measuring.num_done, len(mixture))
                together.sums(0.0, 0.0)
            found = work.result()
    finally:  # a start that was cut off need not count those again
        if not np.array_equal(known, measuring.texts):
            kept.keep(mixture, measuring.texts)
    report.measured(len(mixture), len(mixture))
    return found


def lengths_fingerprint(mixture: Mixture) -> str | None:
    """Names the lengths that the order of samples was made from; None where there are none."""
    lengths = mixture.lengths
    return None if lengths is None else hashlib.blake2b(lengths.tobytes(), digest_size=8).hexdigest()


_SUPPORTED = ("NO", "MULTI_CPU", "MULTI_GPU")
_DDP = "use plain data parallelism: accelerate launch --multi_gpu, or torchrun"


class TrainingProcess:
    """Everything that one process of a run holds."""

    def __init__(
        self,
        job: Job,
        settings: TrainingSettings,
        mixture: Mixture,
        found: Checkpoint | None,
        report: Report,
        held_out: Mixture | None = None,
    ) -> None:
        self.run_state = run_state(job, settings, mixture, found)
        settings = settings.resolved()
        self.job, self.settings, self.found, self.report = job, settings, found, report
        self.accelerator = _accelerator(job, settings)
        torch.manual_seed(settings.seed + self.accelerator.process_index)
        self.backbone = load_backbone(
            job.model if found is None else str(found.folder),
            device=str(self.accelerator.device),
            dtype=settings.dtype,
            pool_first=settings.pool_first,
            merge=found
            is None,  # an adapter that is resumed learns on, one to start from is part of the model
            attn_implementation=job.attn_implementation,
            download=job.download,
            family=job.family,
        )
        prepare(self.backbone, job, settings, fresh=found is None)
        world = self.accelerator.num_processes
        micro = settings.gradient_accumulation_steps
        mixture = with_measured_lengths(mixture, job, self.backbone, self.accelerator, report)
        self.lengths = lengths_fingerprint(mixture)
        order = BatchOrder(
            mixture,
            mix=settings.mix,
            batch_size=settings.per_device_train_batch_size * micro * world,
            seed=int(settings.data_seed or 0),
        )
        self.total_steps = settings.max_steps or order.steps(settings.num_train_epochs)
        self.sampler = OwnSampler(job.limits)
        encoder = SampleEncoder(self.backbone.settings, self.backbone.codec, job.encode, self.sampler)
        share = ProcessShare(rank=self.accelerator.process_index, world_size=world, micro_batches=micro)
        self.trainer = Trainer(
            model=self.backbone,
            batches=StepBatches(order, encoder, share, settings.pool_first),
            settings=settings,
            total_steps=self.total_steps,
            accelerator=self.accelerator,
            output=job.output_dir,
            ledger=Ledger(job.output_dir / LEDGER_FILE, max_bad_fraction=settings.max_bad_fraction),
            report=report,
        )
        if held_out is not None:
            self.trainer.validation = self._validation(held_out, encoder)
        self.order = order

    def _validation(self, held_out: Mixture, encoder: SampleEncoder) -> Validation:
        """The loss over `held_out`, read as the samples that are trained on."""
        size = self.settings.per_device_eval_batch_size
        assert size is not None  # resolved
        world, rank = self.accelerator.num_processes, self.accelerator.process_index
        share = ProcessShare(rank=rank, world_size=world)
        return Validation(
            model=self.backbone,
            batches=ValidationBatches(held_out, encoder, size, share, self.settings.pool_first),
            settings=self.settings,
            device=self.accelerator.device,
            precision=self.trainer.precision,
            together=self.trainer.together,
            report=self.report,
        )

    @property
    def is_main(self) -> bool:
        """Whether this process writes the files."""
        return self.accelerator.is_main_process

    def finished_before(self) -> RunEnd | None:
        """How an earlier start has ended this run; None where there is something left to do.

        Raises ModelError for a finished run of another length that left no checkpoint to go on from.
        """
        output = self.job.output_dir
        before = finished_run(output) if self.is_main and self.job.resume is not None else None
        step = int(self.trainer.together.sums(0 if before is None else before.step)[0])
        if not step or (self.found is not None and self.found.folder != output / f"checkpoint-{step}"):
            return None
        if step == self.total_steps:
            self._as_one(lambda: self._check_media(before))
            return RunEnd(step, was_finished=True)
        if self.found is None and not self.job.overwrite:
            what = f"holds a finished run of {step} steps, this one has {self.total_steps}, and no checkpoint"
            raise ModelError(output, what, "--overwrite-output-dir starts from the beginning")
        return None

    def run(self) -> RunEnd:
        """Train from the checkpoint, or from the start, to the end or to a signal; then save."""
        try:
            with StopRequest() as stop:
                return self._run(stop)
        finally:
            self.sampler.close()

    def _run(self, stop: StopRequest) -> RunEnd:
        start = 0
        if self.found is not None:
            start = self.found.step
            if start > self.total_steps:
                raise UsageError(
                    "--max-steps",
                    f"{self.total_steps} is before the checkpoint's step {start}",
                    "more steps, or another --output-dir",
                )
            self._restore(self.found)
            self._tell_length(self.found)
        self.saved = start
        self._as_one(lambda: check_room(self.job.output_dir, self._checkpoint_bytes()))
        if self.is_main:
            table = parameters.table(self.backbone, self.settings)
            for line in self.order.repeated():
                self.report.said(line)
            self.report.begins(total_steps=self.total_steps, done_steps=start, modules=table)
        outcome = self.trainer.run(start, self.save, stop)
        if outcome.signal is None:
            if self.settings.save_steps and outcome.step > self.saved:
                self.save(outcome.step)  # so that a finished run can be made longer
            self._as_one(self._publish)
        elif outcome.step > self.saved:
            self.save(outcome.step)
        return outcome

    def _tell_length(self, found: Checkpoint) -> None:
        """A run that was made longer or shorter has other learning rates from here on."""
        before = found.state.get("total_steps")
        if self.is_main and before != self.total_steps:
            what = "the learning rates follow the new length from here on"
            self.report.said(f"the run has {self.total_steps} steps now, not {before}: {what}")

    def _publish(self) -> None:
        """The final model, and nothing of another kind beside it that an earlier run left: the weights of a
        whole model would be read instead of an adapter, and an adapter on top of a whole model."""
        output = self.job.output_dir
        publish(output, self.backbone.save)
        for name in WHOLE_FILES if self.backbone.adapter is not None else ADAPTER_FILES:
            for path in output.glob(name):
                path.unlink()
        write_json(output / FINISHED_FILE, self._state(self.total_steps))

    def save(self, step: int) -> None:
        """Write `checkpoint-<step>`; every process calls it, the main one writes."""
        random = checkpoint.random_state(self.accelerator.device).to(self.accelerator.device)
        states = self.accelerator.gather(random[None])

        def write(folder: Path) -> None:
            self.backbone.save(folder)
            checkpoint.save_optimizer(self.trainer.optimizer, self.trainer.named, folder)
            checkpoint.save_random(states, folder)
            write_json(folder / STATE_FILE, self._state(step))

        keep = self.settings.save_total_limit
        self._as_one(lambda: write_checkpoint(self.job.output_dir, step, write, keep=keep))
        self.saved = step

    def _as_one(self, act: Callable[[], object]) -> None:
        """What the main process does while the others wait; where it fails, all of them end."""
        error: VidllavaError | None = None
        try:
            if self.is_main:
                act()
        except VidllavaError as fault:
            error = fault
        if self.trainer.together.sums(error is not None)[0]:
            raise self.trainer.together.fail(error)

    def _checkpoint_bytes(self) -> int:
        """Of the next one: the weights, and two moments of each that learns."""
        sizes = [(p.numel() * p.element_size(), p.requires_grad) for p in self.backbone.parameters()]
        resting = 0 if self.backbone.adapter is not None else 1  # an adapter is saved without its base
        return sum(size * (3 if learns else resting) for size, learns in sizes)

    def _state(self, step: int) -> dict[str, Any]:
        return {
            "format": FORMAT,
            "step": step,
            "total_steps": self.total_steps,
            "world_size": self.accelerator.num_processes,
            "num_threads": torch.get_num_threads(),
            "pending_losses": self.trainer.meter.losses,
            "pending_by_modality": self.trainer.meter.by_modality,
            "nonfinite_steps": [self.trainer.meter.nonfinite_steps, self.trainer.nonfinite_in_a_row],
            "bad_samples": [self.trainer.ledger.num_bad, self.trainer.ledger.num_drawn],
            "run": self.run_state,
            "loss_scale": self.trainer.precision.state(),
            "lengths": self.lengths,
        }

    def _check_media(self, found: Checkpoint | None) -> None:
        if found is not None and found.state.get("lengths") != self.lengths and not self.job.allow_changes:
            what = "the media, or what can be read of them, changed since this checkpoint was written"
            raise DatasetError(found.folder, what, "use the same, or --allow-changes")

    def _restore(self, found: Checkpoint) -> None:
        world = self.accelerator.num_processes
        if found.state.get("world_size") != world and not self.job.allow_changes:
            raise ModelError(
                found.folder,
                f"was made by {found.state.get('world_size')} processes, this run has {world}",
                "use as many, or --allow-changes",
            )
        self._check_media(found)
        before, now = found.state.get("num_threads"), torch.get_num_threads()
        if self.is_main and self.backbone.device.type == "cpu" and before not in (None, now):
            what = "sums are cut differently, so the last bits of the weights may differ (OMP_NUM_THREADS)"
            self.report.said(f"the run goes on with {now} CPU threads, not {before}: {what}")
        checkpoint.load_optimizer(self.trainer.optimizer, self.trainer.named, found.folder)
        self.trainer.precision.restore(found.state.get("loss_scale"))
        self.trainer.pending_losses = [float(loss) for loss in found.state["pending_losses"]]
        self.trainer.pending_by_modality = [float(part) for part in found.state["pending_by_modality"]]
        self.trainer.pending_nonfinite, self.trainer.nonfinite_in_a_row = found.state["nonfinite_steps"]
        self.trainer.ledger.num_bad, self.trainer.ledger.num_drawn = found.state["bad_samples"]
        rank = self.accelerator.process_index
        if rank < int(found.state.get("world_size", 1)):
            checkpoint.restore_random(checkpoint.load_random(found.folder, rank), self.accelerator.device)


def _accelerator(job: Job, settings: TrainingSettings) -> Accelerator:
    """The processes and the device. Without a launcher this is one process on `job.device`."""
    device, _ = choose_device(job.device)
    _check_launcher()
    bf16 = precision_of(settings) == "bf16"
    # float16 is our own affair: accelerate has none on a CPU, and its scaler wants to own the optimizer.
    accelerator = Accelerator(cpu=device.type == "cpu", mixed_precision="bf16" if bf16 else "no")
    if accelerator.distributed_type.value not in _SUPPORTED:
        raise UsageError("accelerate", f"{accelerator.distributed_type.value} is not supported", _DDP)
    if accelerator.device.type == "cuda":
        torch.set_float32_matmul_precision("high")  # TF32 in what autocast leaves in float32, as upstream
    return accelerator


def _check_launcher() -> None:
    """Raises UsageError where `accelerate launch` was asked for what would not come about."""
    for name in ("FSDP", "DEEPSPEED"):
        # On a CPU accelerate would leave the wish out and say nothing.
        if os.environ.get(f"ACCELERATE_USE_{name}", "").lower() in ("1", "true", "yes", "on", "y", "t"):
            raise UsageError("accelerate", f"{name} splits weights that are saved whole here", _DDP)
    if "MASTER_ADDR" in os.environ and "WORLD_SIZE" not in os.environ and "ACCELERATE_USE_CPU" in os.environ:
        # More than one was asked for, else it would have named no address.
        what = "--cpu starts one process however many are asked for, unless MPI starts the others"
        raise UsageError("accelerate launch", what, "--multi_gpu --num_processes N, and here --device cpu")
