"""Statistics of nano's own media, by which it tells that others are not of its world: fitted and measured.

    python -m examples.train_nano.familiarity fit                          writes world.safetensors (minutes)
    python -m examples.train_nano.familiarity measure --media FOLDER       both error rates, into the card

Fit: mean and covariance of frame features (the mean of a frame's projected cells) over every kind of medium
of the world; threshold: so that a share of 0.5 % of the media of other seeds lies beyond. Measure: media of
seeds used for neither, written to files and read by the real decoder, and the pictures and clips of FOLDER.
"""

from __future__ import annotations

import argparse
import json
import re
import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.nn.functional import interpolate

from examples.train_nano.long_clips import long_clips
from examples.train_nano.model import IMAGE_SIZE
from examples.train_nano.unseen import tinted
from vidllava.backbone.familiarity import World
from vidllava.backbone.folders import nano_folder
from vidllava.backbone.load import load_backbone
from vidllava.backbone.model import Backbone
from vidllava.backbone.see import EncodedVisuals, StageClock, see
from vidllava.errors import VidllavaError
from vidllava.media.pixels import padded_square, picture_tiles, resize_frames
from vidllava.media.probe import media_kind
from vidllava.media.worker import WorkerSampler
from vidllava.nano.draw import draw, to_bytes, weather
from vidllava.nano.lessons import SETTINGS, Exhibit, make_lesson, write_exhibit
from vidllava.nano.scene import Split, generator, still_scene
from vidllava.visuals.question import plan_question

CARD = nano_folder() / "MODEL_CARD.md"
EXAMPLES = Path(__file__).resolve().parents[1]
FIT, CALIBRATE, MEASURE = 31_000, 32_000, 33_000  # seeds
BEYOND = 0.005  # share of the calibration media beyond the threshold
RIDGE = 1e-4  # added to every variance, in parts of it
BLANK_LEVELS = 6.0  # standard deviation of a picture's values, of 255, up to which it shows nothing
_SIZES = (IMAGE_SIZE, 336, IMAGE_SIZE, 168)  # training draws at the tower's size, files are larger
_FRAMES = (4, 5, 8, 16, 32)
_LONG_SIZE = 168


def media(split: Split, seed: int, number: int) -> Iterator[torch.Tensor]:
    """Media of every setting, ``number`` lessons each, as the tower reads them: uint8 [N, 3, S, S]."""
    for setting in SETTINGS:
        for index in range(number):
            frames = _FRAMES[index % len(_FRAMES)]
            lesson, rng = make_lesson(split, seed, index, setting, num_frames=frames, num_questions=1)
            for exhibit in lesson.exhibits:
                yield _pixels(exhibit, _SIZES[index % len(_SIZES)], rng, alone=len(lesson.exhibits) == 1)
    for index, clip in enumerate(long_clips(number, seed=seed)):
        times = np.linspace(0.0, 1.0, _FRAMES[index % len(_FRAMES)])
        yield resize_frames(to_bytes(draw(clip.scene, times, _LONG_SIZE)), IMAGE_SIZE)
    for index in range(number):  # what only the tower was taught with: any size and angle, unnamed colours
        rng = generator(split, seed + 1, index)
        scene = tinted(rng, still_scene(rng, split, 1 + index % 4, wild=True), 0.5)
        yield _pixels(Exhibit("picture", scene, np.zeros(1)), _SIZES[index % len(_SIZES)], rng, alone=True)


def _pixels(exhibit: Exhibit, size: int, rng: np.random.Generator, *, alone: bool) -> torch.Tensor:
    drawn = draw(exhibit.scene, exhibit.times, size)
    frames = weather(drawn, rng) if size == IMAGE_SIZE else to_bytes(drawn)
    if exhibit.medium == "video":
        return resize_frames(frames, IMAGE_SIZE)
    tiles = [(IMAGE_SIZE, IMAGE_SIZE)]
    return picture_tiles(frames[0], tiles, IMAGE_SIZE) if alone else padded_square(frames[0], IMAGE_SIZE)


def features(backbone: Backbone, shown: Iterator[torch.Tensor]) -> list[torch.Tensor]:
    """Frame features [N, D] of each medium."""
    with torch.inference_mode():
        return [backbone.frame_features(backbone.encode(pixels)).double() for pixels in shown]


def fit(backbone: Backbone, number: int) -> World:
    """The statistics of the media of training seeds, with the threshold of other seeds."""
    splits: tuple[Split, ...] = ("train", "combos")
    frames = torch.cat([one for split in splits for one in features(backbone, media(split, FIT, number))])
    covariance = torch.cov(frames.T)
    covariance += RIDGE * covariance.diagonal().diag()
    world = World(frames.mean(dim=0), covariance, 0.0)
    others: tuple[Split, ...] = ("val", "combos")
    distances = [
        world.distance(one) for split in others for one in features(backbone, media(split, CALIBRATE, number))
    ]
    return World(world.mean, world.covariance, round(float(np.quantile(distances, 1 - BEYOND)), 3))


def own_files(folder: Path, number: int) -> Iterator[Path]:
    """``number`` clips and pictures of seeds that nothing was fitted on, as files."""
    written = index = 0
    while True:
        for split in ("test", "combos"):
            for setting in SETTINGS:
                lesson, _ = make_lesson(split, MEASURE, index, setting, num_questions=1)  # type: ignore[arg-type]
                for exhibit in lesson.exhibits:
                    yield write_exhibit(exhibit, folder / str(written))
                    written += 1
                    if written == number:
                        return
        index += 1


def look(backbone: Backbone, path: Path, sampler: WorkerSampler) -> EncodedVisuals:
    """What ``vidllava ask`` has the tower see of one file. Raises what ``ask`` raises."""
    media_kind(str(path))
    question = plan_question([str(path)], "what happens", backbone.settings, backbone.codec, sampler=sampler)
    return see(backbone, question.items, StageClock(backbone.device), sampler=sampler)


def pixels_of(encoded: EncodedVisuals) -> torch.Tensor:
    """uint8 [N, 3, S, S]: what the tower read."""
    pixels = encoded.visuals[0].pixels
    assert pixels is not None  # they are kept unless one says otherwise
    return pixels


def _boxed(pixels: torch.Tensor, height: int, width: int) -> torch.Tensor:
    """Shrunk to a part of the picture, black around."""
    size = pixels.shape[-1]
    small = interpolate(pixels, size=(height, width), mode="bilinear", antialias=True)
    boxed = torch.zeros_like(pixels)
    top, left = (size - height) // 2, (size - width) // 2
    boxed[:, :, top : top + height, left : left + width] = small
    return boxed


def _with_banner(pixels: torch.Tensor) -> torch.Tensor:
    """Flat graphics laid over: a bar of one colour, and a square of another."""
    banner, size = pixels.clone(), pixels.shape[-1]
    banner[:, :, size * 3 // 4 :] = torch.tensor([48, 78, 222], dtype=torch.uint8).view(3, 1, 1)
    banner[:, :, : size // 5, : size // 5] = torch.tensor([244, 214, 44], dtype=torch.uint8).view(3, 1, 1)
    return banner


def _grey(pixels: torch.Tensor) -> torch.Tensor:
    return pixels.float().mean(dim=1, keepdim=True).expand(-1, 3, -1, -1).to(torch.uint8)


VARIANTS: dict[str, Callable[[torch.Tensor], torch.Tensor]] = {
    "grey": _grey,
    "half as bright": lambda pixels: pixels // 2,
    "letterboxed (60 % of the height)": lambda pixels: _boxed(pixels, 50, 84),
    "pillarboxed (60 % of the width)": lambda pixels: _boxed(pixels, 84, 50),
    "half the side, black around": lambda pixels: _boxed(pixels, 42, 42),
    "a quarter of the pixels, enlarged": lambda pixels: interpolate(
        interpolate(pixels, scale_factor=0.5, mode="bilinear", antialias=True), size=84, mode="bilinear"
    ),
    "flat graphics laid over": _with_banner,
}


def measure(backbone: Backbone, world: World, folder: Path, number: int) -> dict[str, Any]:
    """Distances of own and real media, and of variants of the real ones."""
    with tempfile.TemporaryDirectory() as kept, WorkerSampler() as sampler:
        own = {
            path.name: world.distance(backbone.frame_features(look(backbone, path, sampler).features))
            for path in own_files(Path(kept), number)
        }
        listed = sorted(path for path in EXAMPLES.iterdir() if path.suffix in (".mp4", ".png"))
        shipped = {
            path.name: world.distance(backbone.frame_features(look(backbone, path, sampler).features))
            for path in listed
        }
        real: dict[str, float] = {}
        blank: list[str] = []
        variants: dict[str, dict[str, float]] = {name: {} for name in VARIANTS}
        for path in sorted(one for one in folder.iterdir() if one.is_file()):
            try:
                encoded = look(backbone, path, sampler)
            except VidllavaError:
                continue  # there is nothing to see
            pixels = pixels_of(encoded)
            if float(pixels.float().flatten(1).std(dim=1).max()) <= BLANK_LEVELS:
                blank.append(path.name)
                continue
            real[path.name] = world.distance(backbone.frame_features(encoded.features))
            for name, change in VARIANTS.items():
                changed = next(iter(features(backbone, iter([change(pixels)]))))
                variants[name][path.name] = world.distance(changed)
    return {"own": own, "shipped": shipped, "real": real, "blank": blank, "variants": variants}


def report(found: dict[str, Any], threshold: float) -> str:
    """The model card's section."""
    own, shipped, real = found["own"], found["shipped"], found["real"]

    def beyond(distances: dict[str, float]) -> str:
        number = sum(distance > threshold for distance in distances.values())
        return f"{number} of {len(distances)} ({number / len(distances):.1%})"

    missed = sorted(name for name, distance in real.items() if distance <= threshold)
    rows = [
        ("clips and pictures of its world, unseen seeds", "at most 1 %", beyond(own)),
        ("the shipped examples", "none", beyond(shipped)),
        ("real media", "at least 95 %", beyond(real)),
        *((f"the same, {name}", "", beyond(distances)) for name, distances in found["variants"].items()),
    ]
    lines = [
        f"Threshold {threshold:g}; own media have a median of {np.median(list(own.values())):.2f}, "
        f"real ones of {np.median(list(real.values())):.1f}.",
        "",
        "| media | goal | taken for foreign |",
        "|---|---|---|",
        *(f"| {name} | {goal} | {count} |" for name, goal, count in rows),
        "",
        f"Real media taken for its own: {', '.join(f'`{name}`' for name in missed) or 'none'}.",
        f"Left out because every frame is of nearly one colour (standard deviation up to {BLANK_LEVELS:g} of "
        f"255), as nano's empty ground is: {', '.join(f'`{name}`' for name in found['blank'])}.",
    ]
    return "\n".join(lines)


def write_card(text: str) -> None:
    """Put the section between its two marks."""
    card = CARD.read_text(encoding="utf-8")
    begin, end = "<!-- familiarity -->\n", "\n<!-- /familiarity -->"
    card, number = re.subn(f"{begin}.*{end}", lambda _: f"{begin}{text}{end}", card, flags=re.DOTALL)
    assert number == 1, CARD
    CARD.write_text(card, encoding="utf-8")


def main(arguments: Sequence[str] | None = None) -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("what", choices=("fit", "measure"))
    parser.add_argument("--number", type=int, help="lessons per setting (fit, 200); own media (measure, 400)")
    parser.add_argument("--media", type=Path, help="a folder of real clips and pictures (measure)")
    parser.add_argument("--json", type=Path, help="also write every distance here (measure)")
    options = parser.parse_args(arguments)
    backbone = load_backbone("nano", device="cpu", dtype="float32")
    torch.set_num_threads(1)
    if options.what == "fit":
        world = fit(backbone, options.number or 200)
        world.save(nano_folder())
        print(f"threshold {world.threshold:g}")
        return
    if options.media is None:
        parser.error("measure needs --media FOLDER")
    world = backbone.world
    assert world is not None, "run fit first"
    found = measure(backbone, world, options.media, options.number or 400)
    text = report(found, world.threshold)
    if options.json:
        options.json.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    write_card(text)
    print(text)


if __name__ == "__main__":
    main()
