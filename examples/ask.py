"""Ask about a clip from Python, and look at what the answer rests on.

python examples/ask.py
python examples/ask.py other.mp4 "what happens" onevision-0.5b
"""

import sys
from pathlib import Path

from vidllava.backbone.answer import answer_question
from vidllava.backbone.load import load_backbone
from vidllava.visuals.options import AskOptions
from vidllava.visuals.question import plan_question

CLIP = str(Path(__file__).with_name("clip.mp4"))


def main(clip: str = CLIP, words: str = "what happens", model: str = "nano") -> None:
    backbone = load_backbone(model)
    # Planned first: which frames, how many tokens, which RoPE factor. Nothing is decoded yet.
    question = plan_question([clip], words, backbone.settings, backbone.codec, AskOptions(num_frames=8))
    answer = answer_question(backbone, question)

    print(answer.text)
    (plan,) = answer.frames
    if plan is not None:
        print("frames at", ", ".join(f"{seconds:.2f} s" for seconds in plan.timestamps_seconds))
    print(f"{answer.prompt_tokens} tokens in, {answer.completion_tokens} out")
    print(", ".join(f"{stage} {seconds:.3f} s" for stage, seconds in answer.seconds.items()))


if __name__ == "__main__":
    main(*sys.argv[1:])
