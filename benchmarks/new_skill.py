"""Teach nano a colour that it never saw from 200 rows, and measure what it keeps of what it knew.

    python benchmarks/new_skill.py build/new_skill -o rows.jsonl

Writes pictures and clips (.png, .mp4) of scenes with a pink thing, and of scenes without one (replay), as
LLaVA JSONL; fine-tunes with `vidllava finetune --mix in-batch`; asks about unseen scenes before and after.
`pink` is not one of nano's words: its tokenizer spells it in three pieces. Skill: questions whose answer
or wording names the new colour. Old skills: `vidllava.nano.score`, `test` split, the same lessons both times.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import time
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from vidllava.nano.lessons import Exhibit, write_exhibit
from vidllava.nano.questions import KINDS_OF, WorldQuestion, question, styled
from vidllava.nano.scene import Scene, clip_scene, still_scene
from vidllava.nano.score import same_answer

if TYPE_CHECKING:
    from vidllava.backbone.model import Backbone

COLOUR, RGB = "pink", (246.0, 120.0, 186.0)  # further than 100 levels from every colour that nano knows
TRAIN, TEST = 1, 2  # streams of random numbers that never meet
TURNS = 9
# What can be asked of a colour, most of what asks for it by name.
KINDS = ("colour", "shape", "who", "count_colour", "is_colour", "is_there", "event", "direction")
FREE = {"video": "happens", "picture": "caption"}


@dataclass(frozen=True)
class Shown:
    """One row: what is shown, whether the new colour is in it, and what is asked."""

    exhibit: Exhibit
    is_new: bool
    questions: tuple[WorldQuestion, ...]


def recoloured(scene: Scene, rng: np.random.Generator) -> Scene:
    """The scene with one of its things in the new colour, named last."""
    before = scene.things[int(rng.integers(len(scene.things)))]
    after = replace(before, colour=COLOUR, tint=RGB)
    others = [
        replace(thing, deed=replace(thing.deed, partner=after.name))
        if thing.deed.partner == before.name
        else thing
        for thing in scene.things
        if thing is not before
    ]
    return replace(scene, things=(*others, after))


def shown(stream: int, index: int, *, is_new: bool) -> Shown:
    """Row ``index``: even ones are pictures, odd ones clips."""
    rng = np.random.default_rng([2026, stream, index, is_new])
    split, things = "train" if stream == TRAIN else "test", 1 + int(rng.integers(3))
    make = clip_scene if index % 2 else still_scene
    scene = make(rng, split, things)  # type: ignore[arg-type]
    if is_new:
        scene = recoloured(scene, rng)
        while any(thing.deed.colour for thing in scene.things if thing.colour == COLOUR):
            scene = recoloured(make(rng, split, things), rng)  # type: ignore[arg-type]
    medium = "video" if index % 2 else "picture"
    times = np.linspace(0.0, 1.0, 8) if index % 2 else np.zeros(1)
    asked: dict[str, WorldQuestion] = {}
    for kind in (FREE[medium], *rng.choice(KINDS, 40)):
        if len(asked) == TURNS or str(kind) not in KINDS_OF[medium]:
            continue
        made = question(str(kind), scene, medium, rng)  # type: ignore[arg-type]
        if made is not None:
            asked.setdefault(made.text, replace(made, text=styled(made.text, rng)))
    return Shown(Exhibit(medium, scene, times), is_new, tuple(asked.values()))  # type: ignore[arg-type]


def write_rows(folder: Path, num_rows: int, num_replay: int) -> tuple[Path, dict[str, int]]:
    """``rows.jsonl`` and its media; how many of what kind."""
    folder.mkdir(parents=True, exist_ok=True)
    counts: dict[str, int] = defaultdict(int)
    rows = []
    for index in range(num_rows):
        one = shown(TRAIN, index, is_new=index >= num_replay)
        rng = np.random.default_rng([2027, index])
        path = write_exhibit(one.exhibit, folder / f"{index:03}")
        key, mark = ("video", "<video>") if path.suffix == ".mp4" else ("image", "<image>")
        turns = []
        for made in rng.permutation(np.array(one.questions, dtype=object)):
            turns += [{"from": "human", "value": made.text}, {"from": "gpt", "value": made.answer}]
        turns[0]["value"] = f"{mark}\n{turns[0]['value']}"
        rows.append({"id": f"{index:03}", key: path.name, "conversations": turns})
        counts[f"{key} {'new' if one.is_new else 'replay'}"] += 1
    path = folder / "rows.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path, dict(counts)


def skill(backbone: Backbone, folder: Path, num_scenes: int) -> dict[str, dict[str, float]]:
    """Exact answers to what names the new colour, in unseen scenes; by kind and over all."""
    from vidllava.backbone.answer import answer_question
    from vidllava.visuals.options import GenerateOptions
    from vidllava.visuals.question import plan_question

    folder.mkdir(parents=True, exist_ok=True)
    right: dict[str, list[bool]] = defaultdict(list)
    for index, path, one in _test_scenes(folder, num_scenes):
        for made in one.questions:
            if COLOUR not in f"{made.text} {made.answer}".lower() or made.kind in FREE.values():
                continue
            plan = plan_question([str(path)], made.text, backbone.settings, backbone.codec)
            given = answer_question(backbone, plan, GenerateOptions(max_new_tokens=32)).text
            right[made.kind].append(same_answer(given, made.answer))
            right["picture" if index % 2 == 0 else "clip"].append(right[made.kind][-1])
            right["all"].append(right[made.kind][-1])
            if made.answer.lower() == COLOUR or made.answer.endswith(f" {COLOUR}"):
                right["names it"].append(right[made.kind][-1])
    return {name: {"asked": len(all_), "exact": float(np.mean(all_))} for name, all_ in sorted(right.items())}


def _test_scenes(folder: Path, num_scenes: int) -> Iterator[tuple[int, Path, Shown]]:
    for index in range(num_scenes):
        one = shown(TEST, index, is_new=True)
        stem = folder / f"{index:03}"
        found = stem.with_suffix(".mp4" if index % 2 else ".png")
        yield index, found if found.exists() else write_exhibit(one.exhibit, stem), one


def old_skills(backbone: Backbone, lessons: int) -> dict[str, Any]:
    """Single facts and free answers of `vidllava.nano.score`, on its first lessons."""
    from vidllava.nano.score import ask_held_out, summary

    figures = summary(list(ask_held_out(backbone, ("test",), lessons=lessons, questions=4)))["test"]
    return {name: figures[name] for name in ("single_fact", "free")}


def measured(model: str, folder: Path, given: argparse.Namespace) -> dict[str, Any]:
    """Both scores of a model."""
    from vidllava.backbone.load import load_backbone

    backbone = load_backbone(model)
    return {
        "skill": skill(backbone, folder / "unseen", given.scenes),
        "old": old_skills(backbone, given.lessons),
    }


def finetune(rows: Path, output: Path, given: argparse.Namespace) -> dict[str, Any]:
    """Run the command; wall and CPU seconds of it and its children."""
    words = [
        "finetune",
        "--mix",
        "in-batch",
        "--model",
        "nano",
        "--data",
        str(rows),
        "--output-dir",
        str(output),
    ]
    rates = ["--learning-rate", str(given.learning_rate), "--vision-lr", str(given.vision_lr)]
    steps = ["--num-train-epochs", str(given.epochs), "--per-device-train-batch-size", "4"]
    more = ["--gradient-accumulation-steps", "2", "--save-steps", "0", "--dataloader-num-workers", "1"]
    command = [*words, *rates, *steps, *more, "--overwrite-output-dir", "--seed", str(given.seed)]
    before, start = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    subprocess.run(
        [sys.executable, "-m", "vidllava.cli.main", *command], check=True, stdout=subprocess.DEVNULL
    )
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return {"command": " ".join(command), "wall_seconds": time.perf_counter() - start, "cpu_seconds": cpu}


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("folder", type=Path, help="for media, rows and the trained model")
    parser.add_argument("--rows", type=int, default=200)
    parser.add_argument("--replay", type=int, default=60, help="of the rows: scenes without the new colour")
    parser.add_argument("--epochs", type=float, default=10)
    parser.add_argument("--learning-rate", type=float, default=3e-4)
    parser.add_argument("--vision-lr", type=float, default=1.5e-4)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--scenes", type=int, default=60, help="unseen scenes with the new colour")
    parser.add_argument("--lessons", type=int, default=16, help="clips of the old skills")
    parser.add_argument("-o", "--output", type=Path, help="append a row there, as JSONL")
    given = parser.parse_args(arguments)
    rows, counts = write_rows(given.folder / "train", given.rows, given.replay)
    before = measured("nano", given.folder, given)
    training = finetune(rows, given.folder / "out", given)
    after = measured(str(given.folder / "out"), given.folder, given)
    row = {
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "cores": os.cpu_count(),
        "load": os.getloadavg()[0],
        "colour": COLOUR,
        "rows": counts,
        "training": {**training, "command": training["command"].replace(f"{given.folder}/", "")},
        "before": before,
        "after": after,
    }
    if given.output is not None:
        with given.output.open("a", encoding="utf-8") as file:
            file.write(json.dumps(row) + "\n")
    report(row)


def report(row: dict[str, Any]) -> None:
    """Before and after, for people."""
    seconds = row["training"]
    print(f"{row['rows']}: {seconds['wall_seconds']:.0f} s wall, {seconds['cpu_seconds']:.0f} s CPU")
    for name, figures in row["before"]["skill"].items():
        after = row["after"]["skill"][name]["exact"]
        print(f"{name:14} {figures['exact']:6.1%} -> {after:6.1%}   of {figures['asked']}")
    for name, key in (("single_fact", "exact"), ("free", "f1")):
        before, after = (row[when]["old"][name] for when in ("before", "after"))
        print(f"old {name:10} {before[key]:6.1%} -> {after[key]:6.1%}   of {before['asked']}")


if __name__ == "__main__":
    main()
