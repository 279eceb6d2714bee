"""Every key that a neighbouring format knows has a reader or refuses its row; none is dropped."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from vidllava.data.formats import parse_row
from vidllava.data.keys import CLIPS, PICTURES, unknown_keys
from vidllava.data.load import Loading, load_mixture
from vidllava.data.media_root import MediaRoot
from vidllava.data.records import RecordSource
from vidllava.data.row import RowContext
from vidllava.data.source import RowFault, Sample
from vidllava.errors import DatasetError
from vidllava.media.timeline import SamplingRequest


@pytest.fixture
def root(tmp_path: Path) -> Path:
    (tmp_path / "frames").mkdir()
    for name in ("a.png", "b.png", "frames/1.png"):
        Image.fromarray(np.zeros((8, 8, 3), np.uint8)).save(tmp_path / name)
    (tmp_path / "clip.mp4").write_bytes(b"\0\0\0\x18ftypmp42 not opened further here")
    (tmp_path / "page.mp4").write_bytes(b"<!DOCTYPE html><html></html>")
    return tmp_path


def llava(question: str = "what?", **more: Any) -> dict[str, Any]:
    said = [{"from": "human", "value": question}, {"from": "gpt", "value": "this"}]
    return {"conversations": said, **more}


def swift(question: str = "what?", **more: Any) -> dict[str, Any]:
    said = [{"role": "user", "content": question}, {"role": "assistant", "content": "this"}]
    return {"messages": said, **more}


def parts(*parts: dict[str, Any], **more: Any) -> dict[str, Any]:
    content = [*parts, {"type": "text", "text": "what?"}]
    return {"messages": [*swift(content)["messages"]], **more}  # type: ignore[arg-type]


def read(record: Any, root: Path) -> Sample:
    return parse_row(record, RowContext(1, MediaRoot(root)))


def named(sample: Sample) -> list[str]:
    return [Path(v.path or (v.pictures or ("",))[0]).name for v in sample.visuals]


FORMS = {"llava": llava, "swift": swift}
IMAGE_PART, VIDEO_PART = {"type": "image"}, {"type": "video"}


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("key", PICTURES)
@pytest.mark.parametrize("value", ["a.png", ["a.png"], {"path": "a.png"}, [{"url": "a.png"}]], ids=str)
def test_a_picture_is_read_under_every_key_in_every_format(form: str, key: str, value: Any, root: Path):
    assert named(read(FORMS[form]("<image>?", **{key: value}), root)) == ["a.png"]
    assert named(read(parts(IMAGE_PART, **{key: value}), root)) == ["a.png"]
    with pytest.raises(RowFault, match="0 placeholders for 1 visuals"):
        read(FORMS[form](**{key: value}), root)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("key", CLIPS)
def test_a_clip_is_read_under_every_key_in_every_format(form: str, key: str, root: Path):
    sample = read(FORMS[form]("<video>?", **{key: "clip.mp4", "fps": 2, "clip": [1, 3.5]}), root)
    assert named(sample) == ["clip.mp4"]
    assert sample.visuals[0].request == SamplingRequest(fps=2, start_seconds=1, end_seconds=3.5)
    assert named(read(parts(VIDEO_PART, **{key: "clip.mp4"}), root)) == ["clip.mp4"]
    with pytest.raises(RowFault, match="0 placeholders for 1 visuals"):
        read(FORMS[form](**{key: "clip.mp4"}), root)


@pytest.mark.parametrize("form", FORMS)
def test_media_are_told_apart_by_their_content(form: str, root: Path):
    sample = read(FORMS[form]("<video><image><video>?", media=["a.png", "clip.mp4", "frames"]), root)
    assert [visual.kind for visual in sample.visuals] == ["video", "pictures", "video"]
    with pytest.raises(RowFault, match="0 placeholders for 1 visuals"):
        read(FORMS[form](media=["a.png"]), root)
    with pytest.raises(RowFault, match=r"'page\.mp4' is an HTML page"):
        read(FORMS[form]("<video>", media=["page.mp4"]), root)
    with pytest.raises(RowFault, match="no such file"):
        read(FORMS[form]("<video>", media=["gone.mp4"]), root)


@pytest.mark.parametrize("form", FORMS)
def test_frames_are_the_pictures_of_one_clip(form: str, root: Path):
    (visual,) = read(FORMS[form]("<video>?", frames=["b.png", "a.png"], fps=2), root).visuals
    assert [Path(path).name for path in visual.pictures or ()] == ["b.png", "a.png"]
    assert (visual.kind, visual.pictures_per_second) == ("video", 2.0)
    with pytest.raises(RowFault, match="`frames` must be a file name or a list"):
        read(FORMS[form]("<video>?", frames=8), root)


CLASHES: dict[str, tuple[dict[str, Any], str]] = {
    "image and images": ({"image": "a.png", "images": ["b.png"]}, "`image` and `images` say different"),
    "video and videos": ({"video": "clip.mp4", "videos": ["frames"]}, "`video` and `videos` say different"),
    "frames and video": ({"video": "clip.mp4", "frames": ["a.png"]}, "`frames` and `video` both name"),
    "media and image": ({"image": "a.png", "media": ["b.png"]}, "`media` and `image` both name"),
    "media and video": ({"video": "clip.mp4", "media": ["b.png"]}, "`media` and `video` both name"),
    "media and frames": ({"frames": ["a.png"], "media": ["b.png"]}, "`media` and `frames` both name"),
    "clip and start": ({"video": "clip.mp4", "clip": [0, 1], "start": 0}, "both give a range"),
    "clip and end": ({"video": "clip.mp4", "clip": [0, 1], "end": 1}, "both give a range"),
    "clip is a file": ({"clip": "clip.mp4"}, "`clip` is for videos, and none is named"),
    "clip is a file beside a video": (
        {"video": "clip.mp4", "clip": "b.mp4"},
        r"`clip` must be \[start, end\]",
    ),
    "clip of three": ({"video": "clip.mp4", "clip": [1, 2, 3]}, r"`clip` must be \[start, end\]"),
    "frames of a picture": ({"image": "a.png", "num_frames": 4}, "`num_frames` is for videos"),
    "fps of a text": ({"fps": 4}, "`fps` is for videos"),
    "system is a list": ({"system": ["x"]}, "`system` must be a text"),
    "history of texts": ({"history": ["q", "a"]}, "`history` must be a list of"),
    "history of three": ({"history": [["q", "a", "b"]]}, "`history` must be a list of"),
    "history without an answer": ({"history": [["q", ""]]}, "`history` must be a list of"),
    "history is a text": ({"history": "q"}, "`history` must be a list of"),
    "an object with more": ({"image": {"path": "a.png", "crop": [0, 0, 1, 1]}}, "holds an object"),
    "an object without a file": ({"image": {"size": 3}}, "holds an object"),
}


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("name", CLASHES)
def test_keys_that_contradict_each_other_refuse_the_row(form: str, name: str, root: Path):
    more, what = CLASHES[name]
    with pytest.raises(RowFault, match=what):
        read(FORMS[form](**more), root)


def test_the_same_files_under_two_keys_are_one_set(root: Path):
    assert named(read(llava("<image>", image="a.png", images=["a.png"]), root)) == ["a.png"]


REFUSED: dict[str, Any] = {
    "tools": [{"type": "function"}],
    "functions": [{}],
    "rejected": "no",
    "chosen": "yes",
    "rejected_response": "no",
    "kto_tag": False,
    "label": True,
    "audios": ["a.wav"],
    "audio": "a.wav",
    "objects": {"bbox": [[0, 0, 1, 1]]},
    "bbox": [0, 0, 1, 1],
    "query": "who?",
    "response": "him",
    "instruction": "say",
    "output": "said",
    "prompt": "say",
    "completion": "said",
    "data_path": "media",
    "max_pixels": 100,
    "min_frames": 2,
    "loss_scale": [1],
}


@pytest.mark.parametrize("key", REFUSED)
def test_a_key_that_cannot_be_followed_refuses_its_row_in_every_format(key: str, root: Path, tmp_path: Path):
    for record in (llava(), swift(), parts()):
        read(record | {key: None}, root)
        with pytest.raises(RowFault, match=f"^`{key}` (is|would be)"):
            read(record | {key: REFUSED[key]}, root)
    path = tmp_path / "rows.jsonl"
    path.write_text("\n".join(json.dumps(one) for one in (llava(), llava(**{key: REFUSED[key]}))))
    with pytest.raises(
        DatasetError, match=rf"rows\.jsonl: 1 of 2 rows cannot be used: row 2: `{key}` (is|would)"
    ):
        RecordSource(path, root)


def test_two_conversations_in_one_row_are_refused(root: Path):
    with pytest.raises(RowFault, match="`messages` would be a second conversation"):
        read(llava(**swift()), root)


@pytest.mark.parametrize(
    "key",
    ["images", "image", "video", "media", "frames", "tool_calls", "reasoning_content", "audio", "refusal"],
)
@pytest.mark.parametrize("form", FORMS)
def test_a_key_of_a_turn_that_cannot_be_followed_refuses_its_row(form: str, key: str, root: Path):
    record = FORMS[form]()
    turns = next(iter(record.values()))
    turns[1][key] = ["a.png"]
    with pytest.raises(RowFault, match=f"^turn 2: `{key}` "):
        read(record, root)
    turns[1][key] = None
    read(record, root)


PARTS: dict[str, tuple[dict[str, Any], str]] = {
    "pixels": ({"type": "image", "image": "a.png", "max_pixels": 9}, "part 1: `max_pixels` is not followed"),
    "bytes": ({"type": "image", "data": "AA"}, "part 1: `data` holds a file"),
    "two files": ({"type": "image", "image": "a.png", "url": "b.png"}, "`image` and `url` say different"),
    "text too": (
        {"type": "image", "image": "a.png", "text": "this"},
        "part 1 is of type .image. and holds `text`;",
    ),
    "a clip too": ({"type": "image", "image": "a.png", "video": "clip.mp4"}, "holds `video`;"),
    "a picture too": ({"type": "video", "video": "clip.mp4", "image": "a.png"}, "holds `image`;"),
    "a text's picture": (
        {"type": "text", "text": "x", "image": "a.png"},
        "part 1 is of type .text. and holds `image`;",
    ),
    "a picture's rate": ({"type": "image", "image": "a.png", "fps": 2}, "part 1: `fps` is for videos"),
    "a text's rate": ({"type": "text", "text": "x", "fps": 2}, "part 1: `fps` is for videos"),
}


@pytest.mark.parametrize("name", PARTS)
def test_a_part_says_one_thing_only(name: str, root: Path):
    part, what = PARTS[name]
    with pytest.raises(RowFault, match=what):
        read(parts(part), root)


@pytest.mark.parametrize("form", ["llava", "swift", "parts"])
def test_a_rows_own_system_line_and_history_are_read(form: str, root: Path):
    record = parts() if form == "parts" else FORMS[form]()
    turns = read({**record, "system": "Be brief.", "history": [["q1", "a1"], ["q2", "a2"]]}, root).turns
    assert [turn.role for turn in turns] == ["system", *["user", "assistant"] * 3]
    assert [turn.text for turn in turns] == ["Be brief.", "q1", "a1", "q2", "a2", "what?", "this"]
    assert all(turn.learned for turn in turns if turn.role == "assistant")
    assert [turn.role for turn in read({**record, "system": "", "history": []}, root).turns] == [
        "user",
        "assistant",
    ]


def test_a_picture_may_stand_in_the_history(root: Path):
    sample = read(swift("and now?", images=["a.png"], history=[["<image>what?", "that"]]), root)
    assert [len(turn.placeholders) for turn in sample.turns] == [1, 0, 0, 0]
    turns = read(parts(IMAGE_PART, images=["a.png"], history=[["an <image> tag?", "yes"]]), root).turns
    assert [len(turn.placeholders) for turn in turns] == [0, 0, 1, 0]


def test_a_system_turn_and_a_system_key_are_one_line_or_a_fault(root: Path):
    record = swift(system="Be brief.")
    record["messages"].insert(0, {"role": "system", "content": "Be brief."})
    record["history"] = [["q", "a"]]
    turns = read(record, root).turns
    assert [turn.role for turn in turns] == ["system", *["user", "assistant"] * 2]
    with pytest.raises(RowFault, match="two system lines"):
        read({**record, "system": "Be long."}, root)


def test_keys_that_no_format_knows_are_counted_once_per_file(tmp_path: Path, root: Path):
    record = parts({"type": "image", "image": "a.png", "glow": 1}, mood="calm", width=3, id="x")
    record["messages"][0]["name"] = "Ann"
    assert unknown_keys(record) == {"mood", "messages[].name", "messages[].content[].glow"}
    rows = [llava(mood="calm", empty=None), llava(mood="wild", width=8), record]
    path = tmp_path / "rows.jsonl"
    path.write_text("\n".join(json.dumps(row) for row in rows))
    told: list[str] = []
    load_mixture([str(path)], loading=Loading(media_root=root, on_note=told.append))
    assert told == [
        f"{path}: keys without a meaning (rows that have them): "
        "messages[].content[].glow (1), messages[].name (1), mood (3)"
    ]
    path.write_text(json.dumps(llava(width=8)))
    assert RecordSource(path, root).key_note() is None


def test_a_file_of_many_unknown_keys_is_told_in_one_short_line(tmp_path: Path):
    path = tmp_path / "rows.jsonl"
    path.write_text("\n".join(json.dumps(llava(**{f"k{row:04}": 1})) for row in range(1200)))
    source = RecordSource(path)
    assert len(source.unknown_keys) == 1000
    assert str(source.key_note()).endswith("k0011 (1), and 988 more")
