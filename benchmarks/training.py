"""Speed of a fine-tuning step beside the plain way: transformers' Trainer with a collator that pads.

    python benchmarks/training.py build/training -o rows.jsonl

Both sides: the same weights (nano) and rows (real .png and .mp4 files and text, written first), float32, as
many samples a step and micro-batches, fused AdamW, one data worker that decodes with the same reader, equal
threads. The plain side feeds transformers' own OneVision class as its processor would: placeholders for every
visual token, float pixels, whole rows of labels; its batches come from Trainer's own sampler. First the loss
of one mixed batch is computed on both sides: it must be equal to rounding. Then the sides run in turns, each
time in a new process. Samples per second are counted from the end of the second step to that of the last.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch.utils.data import Dataset

from vidllava.backbone.load import load_backbone
from vidllava.backbone.locate import locate
from vidllava.backbone.splice import SampleInput, collate
from vidllava.data.encode import SampleEncoder
from vidllava.data.records import RecordSource
from vidllava.data.token_counter import EncodeOptions
from vidllava.media.pixels import normalise
from vidllava.nano.lessons import make_lesson, write_exhibit
from vidllava.prompting.conversation import IGNORE, SLOT

SHARES = {"text": 0.2, "picture": 0.4, "clip": 0.4}
SKIPPED = 2  # steps before the clock starts
RATE = 1e-5


def write_rows(folder: Path, count: int) -> Path:
    """``rows.jsonl`` and its media: pictures, clips and text, with one to eight questions each."""
    path = folder / "rows.jsonl"
    if path.exists():
        return path
    folder.mkdir(parents=True)
    rng = np.random.default_rng(7)
    rows = []
    for index in range(count):
        kind = str(rng.choice(list(SHARES), p=list(SHARES.values())))
        asked = int(rng.integers(1, 9))
        lesson, _ = make_lesson(
            "train", 7, index, "clip" if kind == "clip" else "picture", num_questions=asked
        )
        row: dict[str, Any] = {"id": str(index)}
        turns = [
            {"from": who, "value": said}
            for made in lesson.questions
            for who, said in (("human", made.text), ("gpt", made.answer))
        ]
        if kind != "text":
            name = write_exhibit(lesson.exhibits[0], folder / str(index)).name
            key = "video" if kind == "clip" else "image"
            row[key], turns[0]["value"] = name, f"<{key}>\n{turns[0]['value']}"
        rows.append(json.dumps({**row, "conversations": turns}) + "\n")
    path.write_text("".join(rows), encoding="utf-8")
    return path


class Plain(Dataset[dict[str, torch.Tensor]]):
    """Samples as transformers' own class wants them."""

    def __init__(self, source: RecordSource, encoder: SampleEncoder) -> None:
        self.source, self.encoder = source, encoder

    def __len__(self) -> int:
        return len(self.source)

    def __getitem__(self, index: int) -> dict[str, torch.Tensor]:
        sample = self.source.sample(index)
        sizes = []
        for visual in sample.visuals:
            if visual.kind != "video":
                with Image.open(str(visual.path)) as picture:
                    sizes.append((picture.height, picture.width))
        return self.plain(self.encoder(sample), sizes)

    def plain(self, item: SampleInput, sizes: Sequence[tuple[int, int]]) -> dict[str, torch.Tensor]:
        """Ids with a placeholder for every visual token, and labels beside them."""
        settings = self.encoder.settings
        codec = self.encoder.codec
        marks = {"video": codec.special("<video>"), "picture": codec.special("<image>")}
        ids: list[int] = []
        labels: list[int] = []
        visuals = iter(item.visuals)
        found: dict[str, torch.Tensor] = {}
        for token, label in zip(item.prompt.ids, item.prompt.labels, strict=True):
            if token != SLOT:
                ids.append(token)
                labels.append(label if label != IGNORE else -100)
                continue
            visual = next(visuals)
            pixels = normalise(visual.pixels, settings.image_mean, settings.image_std, torch.float32)
            is_clip = visual.layout.kind == "video"
            ids += [marks["video" if is_clip else "picture"]] * visual.layout.num_tokens
            labels += [-100] * visual.layout.num_tokens
            found["pixel_values_videos" if is_clip else "pixel_values"] = pixels
        if sizes:
            found["image_sizes"] = torch.tensor(sizes[0])
        return {"input_ids": torch.tensor(ids), "labels": torch.tensor(labels), **found}


def pad(samples: Sequence[Mapping[str, torch.Tensor]]) -> dict[str, torch.Tensor]:
    """The collator: rows to the longest, media stacked."""
    length = max(len(one["input_ids"]) for one in samples)
    filled = {"input_ids": 0, "labels": -100, "attention_mask": 0}
    batch = {name: torch.full((len(samples), length), value) for name, value in filled.items()}
    for row, one in enumerate(samples):
        size = len(one["input_ids"])
        batch["input_ids"][row, :size] = one["input_ids"]
        batch["labels"][row, :size] = one["labels"]
        batch["attention_mask"][row, :size] = 1
    for name in ("pixel_values", "pixel_values_videos", "image_sizes"):
        stacked = [one[name] for one in samples if name in one]
        if stacked:
            batch[name] = torch.stack(stacked)
    return batch


@dataclass
class Clock:
    """When each step ended, and how much of the rows was padding."""

    ends: list[float]
    cpu: list[float]
    begin: float

    def step(self) -> None:
        self.ends.append(time.perf_counter())
        self.cpu.append(time.process_time())


def same_loss(rows: Path) -> tuple[float, float]:
    """(ours, theirs) on the first eight rows of the file, of all kinds."""
    backbone = load_backbone("nano", device="cpu", dtype="float32")
    encoder = SampleEncoder(backbone.settings, backbone.codec, EncodeOptions())
    source = RecordSource(rows)
    plain = Plain(source, encoder)
    with torch.no_grad():
        ours = backbone(collate([encoder(source.sample(at)) for at in range(8)])).loss
        theirs = theirs_model()(**pad([plain[at] for at in range(8)])).loss
    return float(ours), float(theirs)


def theirs_model() -> Any:
    """Nano's weights in transformers' own class, untouched by us."""
    from transformers import LlavaOnevisionForConditionalGeneration

    return LlavaOnevisionForConditionalGeneration.from_pretrained(
        locate("nano")[1], dtype=torch.float32, attn_implementation="sdpa"
    )


def run_ours(rows: Path, given: argparse.Namespace, clock: Clock) -> dict[str, Any]:
    """`vidllava finetune` as a function."""
    from vidllava.training.job import Job
    from vidllava.training.report import Silent
    from vidllava.training.run import finetune
    from vidllava.training.settings import TrainingSettings

    logged: list[Mapping[str, Any]] = []

    class Watch(Silent):
        def stepped(self, step: int) -> None:
            clock.step()

        def logged(self, row: Mapping[str, Any]) -> None:
            logged.append(row)

    settings = TrainingSettings(
        max_steps=given.steps,
        per_device_train_batch_size=given.batch_size,
        gradient_accumulation_steps=given.accumulation,
        learning_rate=RATE,
        vision_lr=RATE,
        lr_scheduler_type="constant",
        warmup_steps=0,
        weight_decay=0.0,
        save_steps=0,
        logging_steps=given.steps,
        dataloader_num_workers=given.workers,
    )
    job = Job(model="nano", data=(str(rows),), output_dir=given.scratch, device="cpu", overwrite=True)
    finetune(job, settings, Watch())
    return {name: logged[-1][name] for name in ("padding_share", "data_wait_share", "loss")}


def run_plain(rows: Path, given: argparse.Namespace, clock: Clock) -> dict[str, Any]:
    """transformers' Trainer."""
    from transformers import Trainer, TrainerCallback, TrainingArguments

    class Watch(TrainerCallback):
        def on_step_end(self, *_: Any, **__: Any) -> None:
            clock.step()

    backbone = load_backbone("nano", device="cpu", dtype="float32")
    encoder = SampleEncoder(backbone.settings, backbone.codec, EncodeOptions())
    del backbone
    tokens, padded = [0], [0]

    class Counting(Trainer):
        def training_step(self, model: Any, inputs: Any, *more: Any, **others: Any) -> Any:
            tokens[0] += int(inputs["attention_mask"].sum())
            padded[0] += inputs["attention_mask"].numel()
            return super().training_step(model, inputs, *more, **others)

    arguments = TrainingArguments(
        output_dir=str(given.scratch),
        max_steps=given.steps,
        per_device_train_batch_size=given.batch_size,
        gradient_accumulation_steps=given.accumulation,
        learning_rate=RATE,
        lr_scheduler_type="constant",
        weight_decay=0.0,
        max_grad_norm=1.0,
        optim="adamw_torch_fused",
        save_strategy="no",
        logging_steps=given.steps,
        dataloader_num_workers=given.workers,
        dataloader_prefetch_factor=2 * given.accumulation if given.workers else None,  # as many samples ahead
        remove_unused_columns=False,
        use_cpu=True,
        report_to=[],
        disable_tqdm=True,
        seed=given.seed,
    )
    trainer = Counting(
        model=theirs_model(),
        args=arguments,
        data_collator=pad,
        train_dataset=Plain(RecordSource(rows), encoder),
        callbacks=[Watch()],
    )
    result = trainer.train()
    return {"padding_share": round(1 - tokens[0] / padded[0], 4), "loss": result.training_loss}


def measure(rows: Path, given: argparse.Namespace) -> None:
    """One side in this process: a row on stdout."""
    clock = Clock([], [], time.perf_counter())
    found = (run_ours if given.side == "ours" else run_plain)(rows, given, clock)
    samples = (given.steps - SKIPPED) * given.batch_size * given.accumulation
    children = resource.getrusage(resource.RUSAGE_CHILDREN)
    # Not ru_maxrss of this process: that is inherited from whoever started it.
    peak = next(line for line in Path("/proc/self/status").read_text().splitlines() if "VmHWM" in line)
    row = {
        "side": given.side,
        "samples_per_second": samples / (clock.ends[-1] - clock.ends[SKIPPED - 1]),
        # Of the process that trains; the worker's decoding is the same on both sides.
        "cpu_seconds_per_sample": (clock.cpu[-1] - clock.cpu[SKIPPED - 1]) / samples,
        "seconds_before_first_step": clock.ends[0] - clock.begin,
        "peak_megabytes": int(peak.split()[1]) / 1024,
        "peak_megabytes_of_a_child": children.ru_maxrss / 1024,
        **found,
    }
    print(json.dumps(row))


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("folder", type=Path, help="for media, rows and what the runs write")
    parser.add_argument("--rows", type=int, default=320)
    parser.add_argument("--steps", type=int, default=14)
    parser.add_argument("--batch-size", type=int, default=4)
    parser.add_argument("--accumulation", type=int, default=4)
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--side", choices=("ours", "plain"), help=argparse.SUPPRESS)
    parser.add_argument("-o", "--output", type=Path, help="append the rows there, as JSONL")
    given = parser.parse_args(arguments)
    given.scratch = given.folder / "out"
    rows = write_rows(given.folder / "media", given.rows)
    if given.side:
        measure(rows, given)
        return
    ours, theirs = same_loss(rows)
    print(f"loss of one mixed batch: ours {ours:.8f}, theirs {theirs:.8f}")
    # Sums over up to a few hundred terms in another order: some tens of units in the last place.
    assert abs(ours - theirs) <= 1e-5 * theirs, "not the same work"
    found = []
    own = sys.argv[1:] if arguments is None else list(arguments)
    for number in range(given.rounds):
        for side in ("ours", "plain") if number % 2 == 0 else ("plain", "ours"):
            command = [sys.executable, __file__, *own, "--side", side]
            done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
            about = {"date": datetime.now(UTC).isoformat(timespec="seconds"), "load": os.getloadavg()[0]}
            row = {**about, "round": number, **json.loads(done.stdout.splitlines()[-1])}
            found.append({**row, "threads": torch.get_num_threads(), "loss_of_one_batch": [ours, theirs]})
            print(json.dumps(found[-1]), file=sys.stderr)
    if given.output is not None:
        with given.output.open("a", encoding="utf-8") as file:
            file.writelines(json.dumps(row) + "\n" for row in found)
    report(found)


def report(rows: Sequence[Mapping[str, Any]]) -> None:
    """Medians of each side, and ours over theirs."""
    names = (
        "samples_per_second",
        "cpu_seconds_per_sample",
        "padding_share",
        "peak_megabytes",
        "peak_megabytes_of_a_child",
        "seconds_before_first_step",
    )
    print(f"{'':28}{'ours':>10}{'plain':>10}{'ratio':>8}")
    for name in names:
        sides = [
            statistics.median(row[name] for row in rows if row["side"] == side) for side in ("ours", "plain")
        ]
        ratio = f"{sides[0] / sides[1]:8.2f}" if sides[1] else "       -"
        print(f"{name:28}{sides[0]:10.3f}{sides[1]:10.3f}{ratio}")


if __name__ == "__main__":
    main()
