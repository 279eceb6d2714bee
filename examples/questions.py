"""Ask every example question of one loaded model, and compare with the true answers.

    python examples/questions.py
    python examples/questions.py onevision-0.5b

Among them are several pictures, views of one scene, two clips, and a picture with a clip.
"""

import json
import sys
from pathlib import Path

from vidllava.backbone.answer import answer_question
from vidllava.backbone.load import load_backbone
from vidllava.nano.score import same_answer
from vidllava.visuals.options import GenerateOptions
from vidllava.visuals.question import plan_question

FOLDER = Path(__file__).parent


def main(model: str = "nano") -> tuple[int, int]:
    """(right, asked)."""
    backbone = load_backbone(model)
    rows = [
        json.loads(line) for line in (FOLDER / "questions.jsonl").read_text(encoding="utf-8").splitlines()
    ]
    right = 0
    for row in rows:
        media = [str(FOLDER / name) for name in row["media"]]
        question = plan_question(media, row["question"], backbone.settings, backbone.codec)
        answer = answer_question(backbone, question, GenerateOptions(max_new_tokens=64)).text
        is_right = same_answer(answer, row["answer"])
        right += is_right
        truth = "" if is_right else f"   (true: {row['answer']})"
        print(f"{', '.join(row['media'])}: {row['question']} -> {answer}{truth}")
    print(f"{right} of {len(rows)} right")
    return right, len(rows)


if __name__ == "__main__":
    main(*sys.argv[1:])
