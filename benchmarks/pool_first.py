"""Time saved by pooling before the projector's last layer: the tower, the projector and the splice.

    python benchmarks/pool_first.py -o rows.jsonl
    python benchmarks/pool_first.py --width 3584 --device cuda --num-frames 32 128

Random weights of OneVision's sizes: a SigLIP layer (26 of them make a tower), the projector into a language
model of `--width`, and the splice of the frames with 64 words. Rounds are interleaved; medians.
"""

from __future__ import annotations

import argparse
import json
import platform
import statistics
import sys
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.nn import functional as F

from vidllava.backbone.splice import pack
from vidllava.kernels import SplicePlan, splice
from vidllava.prompting.conversation import IGNORE, SLOT, TokenizedPrompt
from vidllava.prompting.layout import video_layout

SIDE, TOWER_WIDTH, NUM_WORDS, HEAD_DIM = 27, 1152, 64, 64


def batch(num_frames: int, *, pool_first: bool) -> tuple[SplicePlan | None, SplicePlan]:
    """Plans of a clip and 64 words, as `ask` packs them."""
    layout = video_layout(num_frames, side=SIDE, stride=2, mode="bilinear", newline="one_token")
    ids = (SLOT, *range(NUM_WORDS))
    packed = pack([(TokenizedPrompt(ids, (IGNORE,) * len(ids)), (layout,))], pool_first=pool_first)
    return packed.pooling, packed.plan


class Projector(nn.Module):
    """OneVision's: two linear layers with a GELU between them."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.linear_1, self.linear_2 = nn.Linear(TOWER_WIDTH, width), nn.Linear(width, width)


def seconds(run: Any, device: torch.device) -> float:
    """Wall seconds of one call."""
    start = time.perf_counter()
    run()
    if device.type == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter() - start


@torch.inference_mode()
def measure(
    width: int, num_frames: int, device: torch.device, dtype: torch.dtype, repeats: int
) -> dict[str, Any]:
    """Median seconds of both orders, and how far apart their rows are."""
    torch.manual_seed(0)
    projector = Projector(width).to(device, dtype)
    states = torch.randn(num_frames * SIDE**2, TOWER_WIDTH, device=device, dtype=dtype)
    embedding = torch.randn(256, width, device=device, dtype=dtype)
    newline = torch.randn(width, device=device, dtype=dtype)
    inv_freq = 1e6 ** (-torch.arange(0, HEAD_DIM, 2, device=device) / HEAD_DIM)
    plans = {
        order: [plan and plan.to(device) for plan in batch(num_frames, pool_first=order)]
        for order in (False, True)
    }

    def rows(order: bool) -> torch.Tensor:
        hidden = F.gelu(projector.linear_1(states))
        pooling, placing = plans[order]
        assert placing is not None
        if pooling is not None:
            hidden = splice(hidden, embedding, newline, pooling, inv_freq)[0]
        return splice(projector.linear_2(hidden), embedding, newline, placing, inv_freq)[0]

    difference = (rows(False) - rows(True)).float().abs().max().item()
    times: dict[bool, list[float]] = {False: [], True: []}
    for _ in range(repeats):
        for order in times:
            times[order].append(seconds(lambda order=order: rows(order), device))
    usual, early = (statistics.median(times[order]) for order in (False, True))
    return {
        "width": width, "num_frames": num_frames, "device": str(device),
        "dtype": str(dtype).removeprefix("torch."),
        "usual_ms": round(1e3 * usual, 2), "pool_first_ms": round(1e3 * early, 2),
        "share": round(early / usual, 3), "largest_difference": difference,
    }  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--width", type=int, nargs="*", default=[896])
    parser.add_argument("--num-frames", type=int, nargs="*", default=[8, 32])
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--dtype", default="float32", choices=["float32", "bfloat16", "float16"])
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("-o", "--output", type=Path, help="append a JSON line for each figure")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    for width in options.width:
        for num_frames in options.num_frames:
            row = measure(
                width,
                num_frames,
                torch.device(options.device),
                getattr(torch, options.dtype),
                options.repeats,
            )
            row |= {"threads": options.threads, "torch": torch.__version__, "machine": platform.machine()}
            row["at"] = datetime.now(UTC).isoformat(timespec="seconds")
            print(json.dumps(row), file=sys.stderr)
            if options.output is not None:
                with options.output.open("a", encoding="utf-8") as file:
                    file.write(json.dumps(row) + "\n")


if __name__ == "__main__":
    main()
