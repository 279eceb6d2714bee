"""The stages that make nano from nothing: ``make nano``, planned for three hours on one core.

    tower       the vision tower and the projector learn what covers every patch        (20 minutes)
    school      the language model learns to answer, from packed lessons               (150 minutes)
    finetune    `vidllava finetune --mix in-batch` on whole conversations, tower included

Each stage leaves a folder that the next one starts from, so an interrupted run goes on where it was. What
ships as ``weights`` is an average of folders from longer runs of the same stages: the model card says which.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from transformers import LlavaOnevisionForConditionalGeneration as OneVision

STAGE_DATA = "nano-world:2-ov?seed=5000"


def train_nano(folder: Path, *, tower_minutes: float, school_minutes: float, finetune_steps: int) -> Path:
    """Run the stages that ``folder`` lacks; returns the last stage's folder."""
    curve = folder / "curve.jsonl"
    folder.mkdir(parents=True, exist_ok=True)
    tower, taught, tuned = folder / "tower", folder / "school", folder / "finetune"
    if not _complete(tower):
        _tower_stage(tower, curve, tower_minutes)
    if not _complete(taught):
        _school_stage(tower, taught, curve, school_minutes)
    if finetune_steps and not _complete(tuned):
        _finetune_stage(taught, tuned, finetune_steps)
    return tuned if finetune_steps else taught


def _complete(folder: Path) -> bool:
    return (folder / "vidllava.json").exists()  # the last file that a stage writes


def _tower_stage(folder: Path, curve: Path, minutes: float) -> None:
    from examples.train_nano.model import fresh_model, save_nano
    from examples.train_nano.school import log
    from examples.train_nano.tower import train_tower

    model = fresh_model()
    for progress in train_tower(model, minutes=minutes):
        log({"stage": "tower", **asdict(progress)}, curve)
    save_nano(model, folder)


def _school_stage(start: Path, folder: Path, curve: Path, minutes: float) -> None:
    from examples.train_nano.model import save_nano
    from examples.train_nano.school import SchoolSettings, log, school

    model = _load(start)
    for line in school(model, SchoolSettings(minutes=minutes), folder):
        log({"stage": "school", **line}, curve)
    save_nano(model, folder)


def _load(folder: Path) -> OneVision:
    from transformers import LlavaOnevisionForConditionalGeneration as OneVision

    return OneVision.from_pretrained(folder)


def _finetune_stage(start: Path, folder: Path, steps: int) -> None:
    """Stage 2-OV through the same code as `vidllava finetune`."""
    from vidllava.nano.source import world_source
    from vidllava.training.job import Job
    from vidllava.training.report import Silent
    from vidllava.training.run import finetune
    from vidllava.training.settings import TrainingSettings

    job = Job(
        model=str(start),
        data=(STAGE_DATA,),
        output_dir=folder,
        schemes={"nano-world": world_source},
        overwrite=True,
    )
    settings = TrainingSettings(
        max_steps=steps,
        per_device_train_batch_size=8,
        gradient_accumulation_steps=2,
        mix="in-batch",
        learning_rate=2e-4,
        adam_beta2=0.95,
        save_steps=0,
    )
    finetune(job, settings, Silent())


def main(arguments: Sequence[str] | None = None) -> None:
    """Command line."""
    parser = argparse.ArgumentParser(
        prog="python -m examples.train_nano.train", description=__doc__.split("\n")[0]
    )
    parser.add_argument(
        "--output-dir", type=Path, default=Path("build/nano"), help="stages and curve (build/nano)"
    )
    parser.add_argument("--tower-minutes", type=float, default=20.0, help="of wall time (20)")
    parser.add_argument("--school-minutes", type=float, default=150.0, help="of wall time (150)")
    parser.add_argument(
        "--finetune-steps", type=int, default=300, help="steps of 16 conversations; 0 = none (300)"
    )
    options = parser.parse_args(arguments)
    start = time.monotonic()
    done = train_nano(
        options.output_dir,
        tower_minutes=options.tower_minutes,
        school_minutes=options.school_minutes,
        finetune_steps=options.finetune_steps,
    )
    print(f"{done} after {(time.monotonic() - start) / 60:.0f} minutes")
    print(f"measure it: python -m vidllava.nano.score --model {done}")


if __name__ == "__main__":
    main()
