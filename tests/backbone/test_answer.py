"""From real files to an answer: the plan is known before weights, and the answer says what it used."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.clips import read_number, write_clip
from vidllava.backbone.answer import Answer, answer_question
from vidllava.backbone.load import load_backbone
from vidllava.backbone.model import Backbone
from vidllava.errors import MediaError, UsageError
from vidllava.prompting.budget import OverBudget
from vidllava.prompting.conversation import SLOT
from vidllava.visuals.options import AskOptions, GenerateOptions
from vidllava.visuals.question import Question, plan_question

SHORT = GenerateOptions(max_new_tokens=4)


@pytest.fixture(scope="module")
def backbone(checkpoint: Path) -> Backbone:
    return load_backbone(str(checkpoint))


@pytest.fixture(scope="module")
def media(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    folder = tmp_path_factory.mktemp("media")
    write_clip(folder / "clip.mp4", num_frames=60, fps=30)
    write_clip(folder / "slow.mkv", num_frames=12, fps=2)
    for name, size in (("wide", (200, 80)), ("tall", (60, 150))):
        Image.fromarray(np.full((size[1], size[0], 3), 90, np.uint8)).save(folder / f"{name}.png")
    return {path.stem: str(path) for path in folder.iterdir()}


def plan(backbone: Backbone, paths: list[str], text: str = "What happens?", **options: object) -> Question:
    return plan_question(paths, text, backbone.settings, backbone.codec, AskOptions(**options))  # type: ignore[arg-type]


def ask(backbone: Backbone, question: Question) -> Answer:
    return answer_question(backbone, question, SHORT)


def test_the_answer_reports_the_frames_it_used(backbone: Backbone, media: dict[str, str]) -> None:
    question = plan(backbone, [media["clip"]], num_frames=4)
    answer = ask(backbone, question)
    assert answer.frames[0] is not None
    assert answer.frames[0].indices == (0, 19, 39, 59)
    pixels = answer.visuals[0].pixels.permute(0, 2, 3, 1).numpy()
    assert [read_number(picture) for picture in pixels] == [0, 19, 39, 59]
    assert answer.prompt_tokens == question.budget.total_tokens - question.budget.reserve_tokens
    assert answer.completion_tokens <= 4
    stages = {"cache", "decode", "vision", "overlap", "prefill", "generate"}
    assert set(answer.seconds) == stages


def test_the_pieces_streamed_are_the_answer(backbone: Backbone, media: dict[str, str]) -> None:
    pieces: list[str] = []
    answer = answer_question(backbone, plan(backbone, [media["clip"]]), SHORT, on_text=pieces.append)
    assert "".join(pieces).strip() == answer.text


@pytest.mark.parametrize(
    ("names", "kinds"),
    [
        (["clip"], ["video"]),
        (["wide"], ["picture"]),
        (["wide", "tall"], ["pictures", "pictures"]),
        (["clip", "slow"], ["video", "video"]),
        (["wide", "clip"], ["pictures", "video"]),
        (["tall", "clip", "wide"], ["pictures", "video", "pictures"]),
    ],
)
def test_videos_and_pictures_mix_in_the_order_given(
    names: list[str], kinds: list[str], backbone: Backbone, media: dict[str, str]
) -> None:
    question = plan(backbone, [media[name] for name in names], num_frames=3 if "video" in kinds else None)
    assert [item.layout.kind for item in question.items] == kinds
    assert question.prompt.ids.count(SLOT) == len(names)
    answer = ask(backbone, question)
    assert [visual.layout for visual in answer.visuals] == [item.layout for item in question.items]


def test_the_same_question_has_the_same_answer(backbone: Backbone, media: dict[str, str]) -> None:
    question = plan(backbone, [media["clip"], media["wide"]], num_frames=3)
    assert ask(backbone, question).text == ask(backbone, question).text


def test_another_clip_gives_the_model_other_rows(backbone: Backbone, media: dict[str, str]) -> None:
    first, second = (ask(backbone, plan(backbone, [media[name]], num_frames=3)) for name in ("clip", "slow"))
    assert not (first.visuals[0].pixels == second.visuals[0].pixels).all()


def test_auto_raises_the_factor_and_says_so(backbone: Backbone, media: dict[str, str]) -> None:
    question = plan(backbone, [media["clip"]], num_frames=60)  # 60 x 9 rows and text, context 512
    assert question.budget.rope_factor == 2
    assert any("RoPE factor 2" in note for note in question.notes)
    assert ask(backbone, question).frames[0] is not None


def test_off_refuses_in_one_line_that_says_what_would_fit(backbone: Backbone, media: dict[str, str]) -> None:
    with pytest.raises(OverBudget, match=r"would fit: --max-frames 41") as caught:
        plan(backbone, [media["clip"]], num_frames=60, rope_factor="off")
    assert "\n" not in str(caught.value)


def test_generation_stops_where_the_scaled_context_ends(backbone: Backbone, media: dict[str, str]) -> None:
    question = plan(backbone, [media["clip"]], num_frames=40, context_limit=512)
    room = question.budget.limit - (question.budget.total_tokens - question.budget.reserve_tokens)
    assert room < 200
    answer = answer_question(backbone, question, GenerateOptions(max_new_tokens=5000))
    assert answer.completion_tokens <= room


def test_pooling_and_newline_options_reach_the_rows(backbone: Backbone, media: dict[str, str]) -> None:
    stride = plan(backbone, [media["clip"]], num_frames=2, pool_stride=4, pool_mode="max")
    assert stride.items[0].layout.num_visual_tokens == 2
    grid = plan(backbone, [media["clip"]], num_frames=2, newline_mode="grid")
    assert grid.items[0].layout.num_newline_tokens == 6
    other = plan(backbone, [media["clip"]], preset="interleave", context_limit=4096)
    assert other.items[0].layout.num_tokens == 16 * 25


def test_a_time_instruction_names_the_frames_times(backbone: Backbone, media: dict[str, str]) -> None:
    question = plan(backbone, [media["clip"]], num_frames=2, time_instruction=True)
    text = backbone.codec.decode([token for token in question.prompt.ids if token != SLOT])
    assert "2 frames are uniformly sampled from it. These frames are located at 0.00s,1.97s." in text


def test_frame_options_without_a_video_are_refused(backbone: Backbone, media: dict[str, str]) -> None:
    with pytest.raises(UsageError, match="--num-frames: is for videos"):
        plan(backbone, [media["wide"]], num_frames=4)
    with pytest.raises(UsageError, match="--start: is for videos"):
        plan(backbone, [media["wide"]], start_seconds=1.0)


def test_a_question_is_never_answered_without_its_video(
    backbone: Backbone, media: dict[str, str], tmp_path: Path
) -> None:
    copy = tmp_path / "gone.mp4"
    copy.write_bytes(Path(media["clip"]).read_bytes())
    question = plan(backbone, [str(copy)])
    copy.unlink()
    with pytest.raises(MediaError, match=r"gone\.mp4"):
        ask(backbone, question)
