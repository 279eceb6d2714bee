"""Every row format is told by its content, and a row that cannot be used is told with its file and row."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from vidllava.cli.data import help_text
from vidllava.data.formats import detect, formats, parse_row
from vidllava.data.media_root import MediaRoot
from vidllava.data.records import RecordSource
from vidllava.data.row import RowContext, RowFault
from vidllava.data.source import Sample
from vidllava.errors import DatasetError
from vidllava.media.files import natural
from vidllava.media.timeline import SamplingRequest


@pytest.fixture
def root(tmp_path: Path) -> Path:
    folder = tmp_path / "media"
    (folder / "frames").mkdir(parents=True)
    (folder / "empty").mkdir()
    for name in ("a.png", "b.png", *(f"frames/f{number}.png" for number in (10, 9, 1, 2))):
        Image.fromarray(np.zeros((8, 8, 3), np.uint8)).save(folder / name)
    (folder / "frames" / ".hidden.png").write_bytes(b"")
    (folder / "frames" / "notes.txt").write_bytes(b"")
    (folder / "clip.mp4").write_bytes(b"not opened here")
    (tmp_path / "outside.png").write_bytes(b"secret")
    (folder / "frames_out").mkdir()
    (folder / "frames_out" / "1.png").symlink_to(tmp_path / "outside.png")
    return folder


@pytest.fixture
def parse(root: Path):
    def one(record: Any) -> Sample:
        return parse_row(record, RowContext(1, MediaRoot(root)))

    return one


def llava(question: str, answer: str = "yes", **more: Any) -> dict[str, Any]:
    said = [{"from": "human", "value": question}, {"from": "gpt", "value": answer}]
    return {"conversations": said, **more}


def messages(content: Any, **more: Any) -> dict[str, Any]:
    said = [{"role": "user", "content": content}, {"role": "assistant", "content": "yes"}]
    return {"messages": said, **more}


def text(words: str) -> dict[str, Any]:
    return {"type": "text", "text": words}


def files(sample: Sample) -> list[str | tuple[str, ...]]:
    """The visuals by kind and name."""
    return [
        f"{v.kind} {Path(v.path).name}" if v.path else tuple(Path(p).name for p in v.pictures or ())
        for v in sample.visuals
    ]


def test_formats_are_told_by_their_keys():
    assert detect(llava("hi")).NAME == "llava"
    assert detect(llava("hi", sample_id=3)).NAME == "m4-instruct"
    assert detect(llava("hi", metadata={})).NAME == "m4-instruct"
    assert detect(messages("hi")).NAME == "swift"
    assert detect(messages([text("hi")])).NAME == "messages"


@pytest.mark.parametrize("each", formats(), ids=lambda each: each.NAME)
def test_the_help_text_shows_the_example_of_every_format(each):
    for line in each.EXAMPLE.splitlines():
        assert line in help_text()


def test_a_row_of_no_format_says_what_it_has_and_what_was_expected():
    with pytest.raises(RowFault, match=r"has the keys question, answer; needs `conversations`.*`messages`"):
        detect({"question": "q", "answer": "a"})
    with pytest.raises(RowFault, match="has no keys"):
        detect({})
    with pytest.raises(RowFault, match=r"key11, \.\.\.;"):
        detect({f"key{number}": 0 for number in range(30)})


def test_a_file_may_hold_rows_of_every_format(tmp_path: Path, root: Path):
    rows = [
        llava("<image>", image="a.png"),
        llava("<image><image>", image=["a.png", "b.png"], sample_id="m4"),
        messages([{"type": "image", "image": "a.png"}, text("?")]),
        messages("<video>?", videos=["clip.mp4"]),
    ]
    path = tmp_path / "rows"
    path.write_text(json.dumps(rows))
    source = RecordSource(path, root)
    assert [source.modality(index) for index in range(4)] == ["picture", "pictures", "picture", "video"]


PARTS: dict[str, tuple[dict[str, Any], str]] = {
    "image": ({"type": "image", "image": "a.png"}, "picture a.png"),
    "path": ({"type": "image", "path": "a.png"}, "picture a.png"),
    "url": ({"type": "image", "url": "a.png"}, "picture a.png"),
    "image_url": ({"type": "image_url", "image_url": {"url": "a.png"}}, "picture a.png"),
    "image_url text": ({"type": "image_url", "image_url": "a.png"}, "picture a.png"),
    "video": ({"type": "video", "video": "clip.mp4"}, "video clip.mp4"),
    "video_url": ({"type": "video_url", "video_url": {"url": "clip.mp4"}}, "video clip.mp4"),
}


@pytest.mark.parametrize("name", PARTS)
def test_media_parts_in_every_spelling(parse, name: str):
    part, expected = PARTS[name]
    sample = parse(messages([text("look: "), part, text(" what?")]))
    assert files(sample) == [expected]
    mark = "<video>" if expected.startswith("video") else "<image>"
    assert sample.turns[0].text == f"look: {mark} what?"


def test_a_file_url_names_a_local_file(parse, root: Path):
    part = {"type": "image_url", "image_url": {"url": f"file://{root}/a.png"}}
    assert files(parse(messages([part]))) == ["picture a.png"]


def test_parts_keep_their_order_and_say_where_visuals_stand(parse):
    content = [
        {"type": "video", "video": "clip.mp4", "fps": 2, "video_start": 1},
        text("this <image> is text; and "),
        {"type": "image", "image": "b.png"},
    ]
    sample = parse(messages(content, id="x", max_frames=4))
    assert files(sample) == ["video clip.mp4", "pictures b.png"]
    assert sample.visuals[0].request == SamplingRequest(fps=2, start_seconds=1, max_frames=4)
    assert parse(llava("<video>", video="clip.mp4", fps="30000/1001")).visuals[0].request == SamplingRequest(
        fps=30000 / 1001
    )
    assert len(sample.turns[0].placeholders) == 2
    assert sample.turns[0].text == "<video>this <image> is text; and <image>"


def test_parts_without_a_file_take_the_next_of_the_row(parse):
    content = [{"type": "image"}, {"type": "video"}, {"type": "image"}, text("?")]
    sample = parse(messages(content, images=["a.png", {"path": "b.png"}], videos=["clip.mp4"]))
    assert files(sample) == ["pictures a.png", "video clip.mp4", "pictures b.png"]


def test_swift_rows(parse):
    sample = parse(
        messages("<image>or<video>or<image>?", images=["a.png", "b.png"], videos=["clip.mp4"], fps=1)
    )
    assert files(sample) == ["pictures a.png", "video clip.mp4", "pictures b.png"]
    assert sample.visuals[1].request == SamplingRequest(fps=1)
    assert files(parse(messages("<video>?", videos=[["b.png", "a.png"]]))) == [("b.png", "a.png")]


def test_m4_rows_show_choices_that_the_question_does_not(parse):
    def asked(question: str, answer: str, choices: Any) -> str:
        return parse(llava(question, answer, sample_id="s", choice_list=choices)).turns[0].text

    assert asked("which?", "B", ["left", "right"]) == "which?\nA. left\nB. right"
    assert asked("which?", "right", ["left", "right"]) == "which?\n- left\n- right"
    assert asked("left or right?", "left", ["left", "right"]) == "left or right?"
    views = [f"{name}.png" for name in "abab"]
    sample = parse(llava("<image>" * 4 + "where?", image=views, metadata={"dataset": "nuScenes"}))
    assert [visual.kind for visual in sample.visuals] == ["pictures"] * 4


def test_a_folder_of_pictures_is_a_video_in_natural_order(parse):
    names = ("f1.png", "f2.png", "f9.png", "f10.png")
    sample = parse(llava("<image>\nwhat?", video="frames", fps=2, num_frames=3, video_start=0.5))
    visual = sample.visuals[0]
    assert files(sample) == [names]
    assert (visual.kind, visual.pictures_per_second) == ("video", 2.0)
    assert visual.request == SamplingRequest(num_frames=3, start_seconds=0.5)
    assert parse(llava("<video>", video="frames")).visuals[0].pictures_per_second == 1.0
    assert files(parse(llava("<video>", video=[["b.png", "a.png"]]))) == [("b.png", "a.png")]


def test_natural_order():
    names = ["f10.png", "f9.png", "10", "f.png", "f9b.png", "f1.png", "9"]
    assert sorted(names, key=natural) == ["9", "10", "f1.png", "f9.png", "f9b.png", "f10.png", "f.png"]
    # Equal numbers fall back on the text, so that the order never hangs on the folder's.
    assert sorted(["f09", "f9"], key=natural) == sorted(["f9", "f09"], key=natural)


REMOTE = "remote media are not supported"
FAULTY: dict[str, tuple[Any, str]] = {
    "no format": ({"text": "hi"}, "has the keys text; needs"),
    "data url": (messages([{"type": "image_url", "image_url": {"url": "data:image/png;base64,AA"}}]), REMOTE),
    "http part": (messages([{"type": "image_url", "image_url": {"url": "https://x/a.png"}}]), REMOTE),
    "http video": (messages([{"type": "video_url", "video_url": {"url": "http://x/a.mp4"}}]), REMOTE),
    "http swift": (messages("<image>", images=["http://x/a.png"]), REMOTE),
    "file url outside": (messages([{"type": "image", "image": "file:///etc/hostname"}]), "outside the media"),
    "unknown part": (
        messages([{"type": "audio"}]),
        "turn 1 part 1 is of type 'audio'; known are text, image",
    ),
    "part is a number": (messages([3]), "turn 1 part 1 must be an object"),
    "text part without text": (messages([{"type": "text"}]), "part 1 needs a `text`, not nothing"),
    "content is a number": (
        {"messages": [{"role": "user", "content": 3}, {"role": "assistant", "content": [text("a")]}]},
        "turn 1 needs a text or a list of parts, not a number",
    ),
    "image is a number": (messages([{"type": "image", "image": 3}]), "`turn 1 part 1` must be a file name"),
    "video is a number": (messages([{"type": "video", "video": 3}]), "must be a file name"),
    "no file": (messages([{"type": "image"}]), "names no file, and the row's `images` has none left"),
    "unused": (messages([text("hi")], images=["a.png"]), "`images` lists 1 more than the parts"),
    "tool": (
        {"messages": [{"role": "tool", "content": "x"}, {"role": "assistant", "content": "a"}]},
        "from 'tool'",
    ),
    "swift too few": (messages("<image><image>", images=["a.png"]), "2 placeholders for 1 visuals"),
    "swift too many": (messages("hi", images=["a.png"]), "0 placeholders for 1 visuals"),
    "swift wrong kind": (
        messages("<video>", images=["a.png"]),
        "placeholder 1 is <video>, visual 1 is a pic",
    ),
    "swift none": (messages("<image>"), "1 placeholders for 0 visuals"),
    "swift bytes": (messages("<image>", images=[{"bytes": "AA"}]), "`images` holds the bytes of a file"),
    "swift audio": (messages("hi", audios=["a.wav"]), "`audios` is not supported"),
    "empty answer": (
        {"messages": [{"role": "user", "content": [text("a")]}, {"role": "assistant", "content": []}]},
        "turn 2 is an empty answer",
    ),
    "two users": (
        {"messages": [{"role": "user", "content": [text("a")]}, {"role": "user", "content": "b"}]},
        "turn 2 is the user's",
    ),
    "gpt first": ({"conversations": [{"from": "gpt", "value": "a"}]}, "turn 1 is the assistant's"),
    "no messages": ({"messages": []}, "needs `messages`, a list of turns"),
    "messages are text": ({"messages": "hi"}, "needs `messages`, a list of turns"),
    "metadata is text": (llava("hi", metadata="x"), "`metadata` must be an object"),
    "choices are a text": (llava("hi", choice_list="x"), "`choice_list` must be a list of texts"),
    "empty folder": (llava("<video>", video="empty"), "'empty' is a folder without pictures"),
    "folder as picture": (llava("<image>", image="frames"), "not a regular file"),
    "a picture that leads out": (llava("<video>", video="frames_out"), "outside the media root"),
    "no pictures": (llava("<video>", video=[[]]), "empty list of pictures"),
    "a range without a rate": (llava("<video>", video="frames", video_end=2), "needs `fps`"),
    "fps 0": (llava("<video>", video="frames", fps=0), "fps"),
    "fps of words": (llava("<video>", video="clip.mp4", fps="fast"), "`fps`: 'fast' is not a rate"),
    "a start beyond floats": (llava("<video>", video="clip.mp4", start=10**400), "must be 0 s or later"),
    "a name with half a surrogate": (llava("<video>", video="clip\ud800.mp4"), "is not a file name"),
    "fps nan": (llava("<video>", video="clip.mp4", fps=float("nan")), "NaN is not a number"),
    "end before start": (llava("<video>", video="clip.mp4", video_start=3, video_end=2), "must be after"),
    "frames 0": (llava("<video>", video="clip.mp4", num_frames=0), "`num_frames`: must be a whole number"),
    "frames is a truth value": (
        llava("<video>", video="clip.mp4", num_frames=True),
        "must be a whole number",
    ),
    "half a surrogate": (llava("hi \ud800"), "not valid Unicode"),
    "nothing": (None, "must be an object, not nothing"),
}


@pytest.mark.parametrize("name", FAULTY)
def test_a_faulty_row_is_told_with_file_and_row(tmp_path: Path, root: Path, name: str):
    record, what = FAULTY[name]
    path = tmp_path / "rows.jsonl"
    path.write_text("\n".join(json.dumps(one) for one in (llava("hi"), record)))
    with pytest.raises(DatasetError) as caught:
        RecordSource(path, root)
    message = str(caught.value)
    assert message.startswith(f"{path}: 1 of 2 rows cannot be used: row 2: "), message
    assert what in message
    heard: list[tuple[int, str | None, str]] = []
    kept = RecordSource(path, root, on_fault=lambda *fault: heard.append(fault))
    assert (len(kept), [row for row, _, _ in heard]) == (1, [2])


def test_a_text_beside_parts_is_plain_text(parse):
    record = messages([{"type": "image", "image": "a.png"}])
    record["messages"] += [
        {"role": "user", "content": "what is <image> in HTML?"},
        *messages("")["messages"][1:],
    ]
    assert [len(turn.placeholders) for turn in parse(record).turns] == [1, 0, 0, 0]


def test_a_repeated_id_is_left_out_where_faults_are_heard(tmp_path: Path):
    path = tmp_path / "rows.jsonl"
    path.write_text("\n".join(json.dumps(llava("hi", id=name)) for name in "abab"))
    heard: list[tuple[int, str | None, str]] = []
    kept = RecordSource(path, on_fault=lambda *fault: heard.append(fault))
    assert [kept.sample(index).id for index in range(len(kept))] == ["a", "b"]
    assert heard == [(3, "a", "id 'a' was used by row 1"), (4, "b", "id 'b' was used by row 2")]
