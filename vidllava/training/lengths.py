"""True token lengths of a run's samples: looked up by one process, the same on all of them.

Two processes that looked for themselves could disagree about a file that hangs now and then, and so about
which sample stands in which batch. That may take hours, longer than a process waits for another: the one that
looks says again and again that it is alive.
"""

from __future__ import annotations

import hashlib
from concurrent.futures import Future, ThreadPoolExecutor, wait

import numpy as np
import torch
from accelerate import Accelerator
from accelerate.utils import broadcast

from vidllava.backbone.model import Backbone
from vidllava.data.headers import Headers
from vidllava.data.measure import Measuring, has_files, measure, with_lengths
from vidllava.data.media_index import MediaIndex
from vidllava.data.mixture import Mixture
from vidllava.data.sampler_pool import SamplerPool
from vidllava.data.text_lengths import TextLengths
from vidllava.data.token_counter import TokenCounter
from vidllava.errors import VidllavaError
from vidllava.files.cache_folder import CacheFolder
from vidllava.training.report import Report
from vidllava.training.run import Job
from vidllava.training.together import Together

_PULSE_SECONDS = 0.5


def measured(
    mixture: Mixture, job: Job, backbone: Backbone, accelerator: Accelerator, report: Report
) -> Mixture:
    """The mixture with lengths, where they can be told from headers; else as it is."""
    if not has_files(mixture):
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
    return with_lengths(mixture, shared.cpu().numpy())


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


def fingerprint(mixture: Mixture) -> str | None:
    """Names the lengths that the order of samples was made from; None where there are none."""
    lengths = mixture.lengths
    return None if lengths is None else hashlib.blake2b(lengths.tobytes(), digest_size=8).hexdigest()
