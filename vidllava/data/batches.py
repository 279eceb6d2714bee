"""The batches of each optimizer step, decoded and tokenised ahead of time.

One item is everything that one process needs for one step: its share of the global batch, encoded, sorted by
true length into micro-batches (so that padding is small), with the bad samples replaced. It depends on the
step number alone, so workers may take steps in any order and a resumed run starts at any step.
"""

from __future__ import annotations

import ctypes
import errno
import multiprocessing
import os
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path

import torch
from torch.utils.data import DataLoader, Dataset

from vidllava.backbone.splice import PackedBatch, SampleInput, collate
from vidllava.data.encode import SampleEncoder
from vidllava.data.mixing import BatchOrder, rank_share
from vidllava.data.mixture import Mixture
from vidllava.data.source import MODALITIES
from vidllava.errors import DatasetError, ResourceError, VidllavaError
from vidllava.files.writing import append_lines


@dataclass(frozen=True, kw_only=True)
class BadSample:
    """A sample that could not be encoded, and what stood in for it.

    row          the row of the source's file, counted from 1; None where the source has no rows
    reason       one line
    replaced_by  id of the sample of the same modality that was trained on instead
    """

    step: int
    source: str
    index: int
    row: int | None
    id: str | None
    reason: str
    replaced_by: str | None = None


class Ledger:
    """Appends bad samples to a file and counts them. Several processes may share the file."""

    def __init__(self, path: Path, *, max_bad_fraction: float) -> None:
        self.path = path
        self.max_bad_fraction = max_bad_fraction
        self.num_bad = 0
        self.num_drawn = 0

    def count(self, *, num_bad: int, num_drawn: int) -> None:
        """Count `num_drawn` samples, all processes' together, of which `num_bad` failed."""
        self.num_bad += num_bad
        self.num_drawn += num_drawn

    def write(self, bad: tuple[BadSample, ...]) -> None:
        """Append a line for each. Raises ResourceError."""
        if not bad:
            return
        append_lines(self.path, [asdict(one) for one in bad])  # one write a step: processes share the file

    @property
    def too_many(self) -> bool:
        """Whether more than the allowed share failed; the share is of at least 1000 samples."""
        return self.num_bad > self.max_bad_fraction * max(self.num_drawn, 1000)


MAX_REPLACEMENTS = 10  # bad samples in a row before the data set is given up
# Not the sample's fault: no descriptors, no memory, no room.
_SHORT_OF = (errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.ENOSPC)
_PR_SET_PDEATHSIG = 1


@dataclass(frozen=True, eq=False, kw_only=True)
class StepBatch:
    """One process's data for one step; `error` says why there is none (then `micro` is empty)."""

    step: int
    micro: tuple[PackedBatch, ...] = ()
    ids: tuple[str, ...] = ()
    modalities: tuple[int, ...] = ()
    bad: tuple[BadSample, ...] = ()
    visual_tokens: int = 0
    text_tokens: int = 0
    error: VidllavaError | None = None

    @property
    def num_labels(self) -> int:
        """Labels that the loss of this process's share is summed over."""
        return sum(len(batch.label_ids) for batch in self.micro)

    @property
    def num_rows(self) -> int:
        """Rows of the language model's input, padding included."""
        return sum(batch.plan.num_rows for batch in self.micro)


@dataclass(frozen=True, kw_only=True)
class ProcessShare:
    """Which part of every global batch this process takes, and in how many micro-batches."""

    rank: int = 0
    world_size: int = 1
    micro_batches: int = 1


@dataclass
class StepBatches(Dataset[StepBatch]):
    """`steps[s]` is the `StepBatch` of step s, counted from 0."""

    order: BatchOrder
    encoder: SampleEncoder
    share: ProcessShare = field(default_factory=ProcessShare)
    pool_first: bool = False

    def __getitem__(self, step: int) -> StepBatch:
        indices = rank_share(self.order.batch(step), self.share.rank, self.share.world_size)
        bad: list[BadSample] = []
        try:
            first = step * self.order.batch_size + self.share.rank * len(indices)
            chosen = [self._usable(int(index), first + n, bad) for n, index in enumerate(indices)]
        except VidllavaError as error:  # handed over as a value: a worker's traceback would bury it
            return StepBatch(step=step, bad=tuple(bad), error=error)
        # A stable sort: equal lengths keep the order of the draw. Sorted neighbours pad each other least.
        chosen.sort(key=lambda pair: pair[1].num_tokens)
        size = len(chosen) // self.share.micro_batches
        samples = [encoded for _, encoded in chosen]
        micro = tuple(
            collate(samples[at : at + size], pool_first=self.pool_first)
            for at in range(0, len(samples), size)
        )
        visual = sum(v.layout.num_tokens for encoded in samples for v in encoded.visuals)
        return StepBatch(
            step=step,
            micro=micro,
            ids=tuple(name for name, _ in chosen),
            modalities=tuple(modality_of(encoded) for encoded in samples),
            bad=tuple(bad),
            visual_tokens=visual,
            text_tokens=sum(encoded.num_tokens for encoded in samples) - visual,
        )

    def _usable(self, index: int, draw: int, bad: list[BadSample]) -> tuple[str, SampleInput]:
        """The encoded sample at `index`, or the next of its modality that can be used."""
        mixture, failed = self.order.mixture, len(bad)
        for candidate in (index, *mixture.replacements(index, MAX_REPLACEMENTS)):
            found = encoded_row(
                mixture, self.encoder, candidate, draw=draw, step=draw // self.order.batch_size + 1
            )
            if isinstance(found, BadSample):
                bad.append(found)
                continue
            name = found[0]
            bad[failed:] = [_replaced(one, name) for one in bad[failed:]]
            return found
        source, _ = mixture.locate(index)
        raise DatasetError(
            source.name,
            f"{len(bad) - failed} samples in a row cannot be used; last: {bad[-1].reason}",
            "vidllava data check lists every bad row",
        )


def encoded_row(
    mixture: Mixture, encoder: SampleEncoder, index: int, *, draw: int, step: int
) -> tuple[str, SampleInput] | BadSample:
    """(id, encoded) of the sample at `index`, or why it cannot be used. Raises ResourceError."""
    source, local = mixture.locate(index)
    name = None
    try:
        sample = source.sample(local)
        name = sample.id
        return sample.id, encoder(sample, draw=draw)
    except (VidllavaError, OSError) as fault:
        if isinstance(fault, OSError) and fault.errno in _SHORT_OF:
            raise ResourceError("data", str(fault), "fewer --dataloader-num-workers") from None
        return BadSample(
            step=step,
            source=source.name,
            index=local,
            row=source.row(local),
            id=name,
            reason=str(fault),
        )


def modality_of(encoded: SampleInput) -> int:
    """The place in `MODALITIES` of an encoded sample."""
    kinds = [visual.layout.kind for visual in encoded.visuals]
    return MODALITIES.index("video" if "video" in kinds else kinds[0] if kinds else "text")


def _replaced(bad: BadSample, name: str) -> BadSample:
    return BadSample(**{**bad.__dict__, "replaced_by": name})


class ReadAhead:
    """The batches of steps start .. stop - 1 in order; each worker process keeps `prefetch` ready.

    With 0 workers a step is prepared when it is asked for. `next` raises ResourceError if a worker dies;
    torch may say so from a signal handler, in the middle of any other line: see `worker_died`. What
    comes into `next` from outside, as from the handler of another signal, leaves only `close` to be called.
    """

    def __init__(
        self, batches: Dataset[StepBatch], *, start: int, stop: int, num_workers: int, prefetch: int = 2
    ) -> None:
        if num_workers:
            os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")  # tokenizers warn about forks otherwise
        loader = DataLoader(
            batches,
            batch_size=None,
            sampler=range(start, stop),
            num_workers=num_workers,
            prefetch_factor=prefetch if num_workers else None,
            worker_init_fn=_belong_to_the_parent,
            # The loader draws a number for its workers' seeds: from a generator of its own, or reading data
            # would change the run's random numbers.
            generator=torch.Generator(),
        )
        before = set(multiprocessing.active_children())
        self._rows: Iterator[StepBatch] | None = iter(loader)
        self._workers = [child for child in multiprocessing.active_children() if child not in before]

    def __enter__(self) -> ReadAhead:
        return self

    def __exit__(self, *_fault: object) -> None:
        self.close()

    def __iter__(self) -> ReadAhead:
        return self

    def __next__(self) -> StepBatch:
        if self._rows is None:
            raise StopIteration
        try:
            return next(self._rows)
        except RuntimeError as fault:
            raise worker_died(fault) or fault from None
        except (OSError, EOFError) as fault:  # it was killed while it handed something over
            raise _killed(str(fault)) from None

    def close(self) -> None:
        """Kill the workers, whatever they decode: torch's own end waits 5 s for each that is busy."""
        with _child_signals_ignored():
            for worker in self._workers:
                worker.kill()
            for worker in self._workers:
                worker.join()
            self._rows = None  # its queues are closed, and it finds no one left to wait for
            self._workers = []


def worker_died(fault: RuntimeError) -> ResourceError | None:
    """What torch says of a worker that was killed, in our words; None if it says something else."""
    return _killed(str(fault)) if "DataLoader worker" in str(fault) else None


def _killed(how: str) -> ResourceError:
    hint = "fewer --dataloader-num-workers, or more memory or /dev/shm"
    return ResourceError("data worker", f"was killed: {how}", hint)


@contextmanager
def _child_signals_ignored() -> Iterator[None]:
    """torch's handler raises in the main thread when a worker is killed: not when we kill it."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    handler = signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    try:
        yield
    finally:
        signal.signal(signal.SIGCHLD, handler)


def _belong_to_the_parent(_worker: int) -> None:
    """A worker leaves signals to its parent, which finishes its step first, and dies with it."""
    # Ctrl-C reaches the whole process group.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    if sys.platform == "linux":
        # torch's own watch looks every 5 s. Until then a forked worker holds the lock on the output folder
        # that it inherited, and the run cannot be resumed.
        with suppress(OSError, AttributeError):
            ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, int(signal.SIGKILL))
