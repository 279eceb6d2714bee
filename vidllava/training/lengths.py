"""True token lengths of a run's samples: looked up by one process, the same on all of them.

Two processes that looked for themselves could disagree about a file that hangs now and then, and so about
which sample stands in which batch.
"""

from __future__ import annotations

import hashlib

import numpy as np
import torch
from accelerate import Accelerator
from accelerate.utils import broadcast

from vidllava.backbone.model import Backbone
from vidllava.cache_folder import CacheFolder
from vidllava.data.headers import Headers
from vidllava.data.measure import has_files, measure, with_lengths
from vidllava.data.media_index import MediaIndex
from vidllava.data.mixture import Mixture
from vidllava.data.sampler_pool import SamplerPool
from vidllava.data.token_counter import TokenCounter
from vidllava.training.report import Report
from vidllava.training.run import Job


def measured(
    mixture: Mixture, job: Job, backbone: Backbone, accelerator: Accelerator, report: Report
) -> Mixture:
    """The mixture with lengths, where they can be told from headers; else as it is."""
    if not has_files(mixture):
        return mixture
    found = np.zeros(len(mixture), np.int32)
    if accelerator.is_main_process:
        counter = TokenCounter(backbone.settings, backbone.codec, job.encode)
        folder = CacheFolder.of_environment()
        with MediaIndex(folder, report.said) as index, SamplerPool(job.limits) as pool:
            found = measure(mixture, counter, Headers(index), pool)
    shared = broadcast(torch.from_numpy(found).to(accelerator.device), from_process=0)
    return with_lengths(mixture, shared.cpu().numpy())


def fingerprint(mixture: Mixture) -> str | None:
    """Names the lengths that the order of samples was made from; None where there are none."""
    lengths = mixture.lengths
    return None if lengths is None else hashlib.blake2b(lengths.tobytes(), digest_size=8).hexdigest()
