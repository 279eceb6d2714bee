"""The frames that fit: the budget of a clip at several strides and factors, without weights or torch.

python examples/frames.py
python examples/frames.py other.mp4 onevision-7b
"""

import sys
from pathlib import Path

from vidllava.backbone.settings import named_settings
from vidllava.media.probe import probe
from vidllava.media.timeline import SamplingRequest, plan_frames
from vidllava.prompting.budget import budget
from vidllava.visuals.options import PoolingOptions
from vidllava.visuals.planner import VisualPlanner

CLIP = str(Path(__file__).with_name("clip.mp4"))


def main(clip: str = CLIP, model: str = "onevision-0.5b") -> None:
    info = probe(clip)
    print(
        f"{info.width} x {info.height}, {info.num_frames} frames, {info.duration_seconds:.2f} s, {info.codec}"
    )
    plan = plan_frames(info.frame_times, SamplingRequest(fps=2), source=clip)
    print(plan.reason)
    print("at", ", ".join(f"{seconds:.2f} s" for seconds in plan.timestamps_seconds))

    settings = named_settings(model)
    print(f"\n{model} counted against 4096 tokens: the most frames at each RoPE factor")
    print("stride   tokens a frame      1      2      3      4")
    for stride in (1, 2, 3, 4):
        layout = VisualPlanner.of(settings, PoolingOptions(pool_stride=stride)).video(len(plan))
        counted = budget([layout], text_tokens=0, reserve_tokens=1000, context_limit=4096)
        per_frame = layout.num_visual_tokens // len(plan)
        most = "".join(f"{frames:7d}" for frames in (counted.frames_at_factor or {}).values())
        print(f"{stride:6d} {per_frame:16d} {most}")


if __name__ == "__main__":
    main(*sys.argv[1:])
