"""The estimate of memory beside what was measured: one model, one question, in a fresh process.

    python benchmarks/estimate.py nano examples/clip.mp4 --num-frames 8
    python benchmarks/estimate.py onevision-0.5b examples/clip.mp4 --num-frames 8 --weights random

Prints one JSON object. Measured is the peak resident size of the process that answers, less what it had after
importing torch and transformers; decoding runs in a process of its own.
"""

from __future__ import annotations

import argparse
import json
import resource
from typing import Any


def measure(model: str, clip: str, num_frames: int, weights: Any, dtype: str) -> dict[str, Any]:
    """Both figures, in bytes."""
    import vidllava.backbone.answer
    from vidllava.backbone.memory import Workload, estimate
    from vidllava.bench.models import open_model
    from vidllava.media.worker import WorkerSampler
    from vidllava.visuals.options import AskOptions, GenerateOptions
    from vidllava.visuals.question import plan_question

    def peak() -> int:
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024

    before = peak()
    backbone = open_model(model, weights=weights, dtype=dtype)
    loaded = peak()
    options = GenerateOptions(max_new_tokens=16)
    with WorkerSampler() as sampler:
        asked = AskOptions(num_frames=num_frames)
        question = plan_question(
            [clip], "what happens", backbone.settings, backbone.codec, asked, sampler=sampler
        )
        vidllava.backbone.answer.answer_question(
            backbone, question, options, sampler=sampler, keep_pixels=False
        )
    size = sum(parameter.numel() for parameter in backbone.hf.parameters()) * backbone.dtype.itemsize
    work = Workload.of(question, options.max_new_tokens)
    need = estimate(backbone.hf.config, size, itemsize=backbone.dtype.itemsize, workload=work)
    return {
        "model": model,
        "dtype": str(backbone.dtype).removeprefix("torch."),
        "num_frames": num_frames,
        "tokens": work.num_tokens,
        "estimate_bytes": {**vars(need), "total": need.total},
        "measured_bytes": {"imports": before, "weights": loaded - before, "total": peak() - before},
        "estimate_over_measured": round(need.total / (peak() - before), 3),
    }


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("model")
    parser.add_argument("clip")
    parser.add_argument("--num-frames", type=int, default=8)
    parser.add_argument("--weights", choices=("checkpoint", "random"), default="checkpoint")
    parser.add_argument("--dtype", default="auto")
    given = parser.parse_args()
    print(json.dumps(measure(given.model, given.clip, given.num_frames, given.weights, given.dtype)))


if __name__ == "__main__":
    main()
