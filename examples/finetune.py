"""Fine-tune nano for a few steps on rows of your own, and ask the result.

    python examples/finetune.py out

The rows are LLaVA's: `<video>` or `<image>` stands where the file goes.
"""

import json
import sys
import tempfile
from pathlib import Path

from vidllava.training.job import Job
from vidllava.training.report import Silent
from vidllava.training.run import finetune
from vidllava.training.settings import TrainingSettings

MEDIA = Path(__file__).parent
ROWS = [
    {
        "id": f"row-{number}",
        "video": "clip.mp4",
        "conversations": [
            {"from": "human", "value": f"<video>\n{question}"},
            {"from": "gpt", "value": answer},
        ],
    }
    for number, (question, answer) in enumerate(
        [
            ("is this a test clip?", "yes"),
            ("who drew this clip?", "a program"),
            ("is anybody speaking?", "no"),
            ("what is this for?", "an example"),
        ]
    )
]


def main(folder: str | None = None) -> None:
    output = Path(folder or tempfile.mkdtemp(prefix="vidllava-example-"))
    data = output.with_name(output.name + ".jsonl")
    data.write_text("".join(json.dumps(row) + "\n" for row in ROWS), encoding="utf-8")
    job = Job(model="nano", data=(str(data),), media_root=MEDIA, output_dir=output)
    settings = TrainingSettings(
        max_steps=3, per_device_train_batch_size=4, learning_rate=1e-4, logging_steps=1
    )
    finetune(job, settings, Silent())
    for line in (output / "metrics.jsonl").read_text(encoding="utf-8").splitlines():
        row = json.loads(line)
        print(f"step {row['step']}: loss {row['loss']:.3f}")
    print(f'vidllava ask --model {output} {MEDIA / "clip.mp4"} "who drew this clip?"')


if __name__ == "__main__":
    main(*sys.argv[1:])
