"""A folder of pictures is a clip of a stated rate, in the natural order of names, by either sampler."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from vidllava.errors import MediaError, ResourceError, UsageError
from vidllava.media.files import media_kind
from vidllava.media.limits import Limits
from vidllava.media.picture_folder import folder_info
from vidllava.media.sampler import IN_PROCESS, InProcess, Sampler
from vidllava.media.timeline import SamplingRequest, plan_frames
from vidllava.media.worker import WorkerSampler

RATE = 3.0


@pytest.fixture(scope="module", params=["in process", "worker"])
def sampler(request: pytest.FixtureRequest) -> Iterator[Sampler]:
    if request.param == "in process":
        yield IN_PROCESS
        return
    with WorkerSampler() as worker:
        yield worker


def write(folder: Path, names: list[str], size: tuple[int, int] = (12, 8)) -> str:
    """One picture of one grey each: 10 times its place among ``names``."""
    folder.mkdir(exist_ok=True)
    for place, name in enumerate(names):
        Image.new("RGB", size, (10 * place,) * 3).save(folder / name)
    return str(folder)


def greys(folder: str, sampler: Sampler, size: int | None = None, **wanted: float) -> list[int]:
    info = folder_info(folder, RATE, sampler)
    plan = plan_frames(info.frame_times, SamplingRequest(**wanted), source=folder)  # type: ignore[arg-type]
    heard: list[int | None] = []
    batch = sampler.decode(info, plan, size=size, on_ready=lambda place, _: heard.append(place))
    assert heard == list(range(len(plan)))
    assert batch.pixels.shape == (len(plan), *((8, 12) if size is None else (size, size)), 3)
    assert batch.backend == "pillow"
    assert len(np.unique(batch.pixels.reshape(len(plan), -1), axis=1)[0]) >= 1
    return [int(value) for value in batch.pixels[:, 0, 0, 0]]


@pytest.mark.parametrize(
    "names",
    [
        [f"{number:05}.png" for number in range(1, 13)],
        [f"{number}.png" for number in range(1, 13)],
        [f"frame_{number}.PNG" for number in range(12)],
        [f"ep1-{number * 10}.png" for number in range(12)],
    ],
)
def test_pictures_are_taken_in_the_order_of_their_numbers(tmp_path: Path, names: list[str], sampler: Sampler):
    folder = write(tmp_path / "clip", names)
    assert greys(folder, sampler) == [10 * place for place in range(12)]
    assert greys(folder, sampler, start_seconds=2.0, end_seconds=3.0) == [60, 70, 80]
    assert greys(folder, sampler, size=4, num_frames=2) == [0, 110]


def test_what_a_probe_would_say(tmp_path: Path):
    folder = write(tmp_path / "clip", [f"{number}.png" for number in range(9)])
    info = folder_info(folder, RATE, IN_PROCESS)
    assert (info.num_frames, info.duration_seconds, info.average_fps) == (9, 3.0, RATE)
    assert (info.width, info.height, info.codec, info.notes) == (12, 8, "png", ())
    assert info.frame_times.tolist() == [number / RATE for number in range(9)]
    assert not info.frame_times.flags.writeable
    assert info.key_frames.tolist() == list(range(9))
    assert float(info.time_base) == pytest.approx(1 / RATE)


def test_other_files_are_no_frames_and_gaps_are_said(tmp_path: Path):
    folder = write(tmp_path / "clip", ["1.png", "2.png", "4.png"])
    (tmp_path / "clip" / "notes.txt").write_text("3.png is lost")
    (tmp_path / "clip" / ".5.png").write_bytes(b"a hidden file")
    info = folder_info(folder, RATE, IN_PROCESS)
    assert info.num_frames == 3
    assert ["have gaps" in note for note in info.notes] == [True]


def test_a_rate_must_be_given_and_a_folder_must_hold_pictures(tmp_path: Path):
    folder = write(tmp_path / "clip", ["1.png", "2.png"])
    assert media_kind(folder) == "video"
    with pytest.raises(UsageError, match=r"directory of 2 pictures.*--frame-rate"):
        folder_info(folder, None, IN_PROCESS)
    (tmp_path / "empty").mkdir()
    with pytest.raises(MediaError, match="directory without pictures"):
        media_kind(tmp_path / "empty")


def test_pictures_of_different_sizes_are_each_resized_and_refused_as_they_are(
    tmp_path: Path, sampler: Sampler
):
    folder = write(tmp_path / "clip", ["1.png"])
    Image.new("RGB", (30, 20), (50,) * 3).save(tmp_path / "clip" / "2.png")
    assert greys(folder, sampler, size=4) == [0, 50]
    with pytest.raises(MediaError, match=r"30 x 20, and the first picture of its folder 12 x 8"):
        greys(folder, sampler)


def test_a_picture_that_cannot_be_read_is_named(tmp_path: Path, sampler: Sampler):
    folder = write(tmp_path / "clip", ["1.png", "2.png"])
    (tmp_path / "clip" / "2.png").write_bytes((tmp_path / "clip" / "2.png").read_bytes()[:40])
    with pytest.raises(MediaError) as fault:
        greys(folder, sampler, size=4)
    assert fault.value.thing.endswith("2.png")


def test_a_folder_that_changes_is_told(tmp_path: Path, sampler: Sampler):
    folder = write(tmp_path / "clip", ["1.png", "2.png"])
    info = folder_info(folder, RATE, sampler)
    plan = plan_frames(info.frame_times, SamplingRequest(), source=folder)
    write(tmp_path / "clip", ["3.png"])
    with pytest.raises(MediaError, match="had 2 pictures and now has 3"):
        sampler.decode(info, plan, size=4)


def test_limits_hold_for_each_picture(tmp_path: Path):
    folder = write(tmp_path / "clip", ["1.png"])
    with pytest.raises(ResourceError):
        folder_info(folder, RATE, InProcess(Limits(max_frame_pixels=95)))
