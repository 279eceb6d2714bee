"""A mixture file: which sets, which part of each, how often; told by content, and refused where it slips."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from vidllava.data.load import Loading, Subset, load_mixture, load_sources, parse_strategy, subset
from vidllava.data.mixing import BatchOrder
from vidllava.data.source import Modality, Sample, Source
from vidllava.errors import DatasetError, UsageError


def rows(path: Path, count: int) -> Path:
    said = [{"from": "human", "value": "what?"}, {"from": "gpt", "value": "that"}]
    path.write_text(
        "\n".join(json.dumps({"id": f"{path.stem}{n}", "conversations": said}) for n in range(count))
    )
    return path


def ids(source) -> list[str]:
    return [source.sample(index).id for index in range(len(source))]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    rows(tmp_path / "a", 10)
    rows(tmp_path / "b", 40)
    return tmp_path


def mixture_file(folder: Path, text: str) -> str:
    path = folder / "mix.txt"  # told by what is in it
    path.write_text(text)
    return str(path)


def test_sets_parts_and_weights(folder: Path):
    spec = mixture_file(
        folder,
        "datasets:\n"
        "  - json_path: a\n    sampling_strategy: first:3\n    weight: 2\n"
        "  - path: b\n    sampling_strategy: 'end:5%'\n"
        "  - json_path: b\n",
    )
    mixture = load_mixture((spec, str(folder / "a")), (0.5, 1.0))
    assert [len(source) for source in mixture.sources] == [3, 2, 40, 10]
    assert mixture.weights == (1.0, 0.5, 0.5, 1.0)
    assert [ids(source) for source in mixture.sources[:2]] == [["a0", "a1", "a2"], ["b38", "b39"]]
    assert mixture.sources[1].row(1) == 40  # type: ignore[attr-defined]
    assert len(BatchOrder(mixture, mix="in-batch", batch_size=4, seed=0).epoch(0)) == 3 + 1 + 20 + 10


@pytest.mark.parametrize(
    ("strategy", "count"), [("all", 40), ("first:7", 7), ("end:100", 40), ("random:30%", 12), ("first:1%", 1)]
)
def test_parts_are_counts_or_percentages_rounded_up(folder: Path, strategy: str, count: int):
    part = subset(load_sources(str(folder / "b"), Loading())[0][0], strategy, seed=1)
    assert len(part) == count
    assert [part.modality(index) for index in range(count)] == ["text"] * count


def test_a_random_part_is_a_function_of_the_seed(folder: Path):
    spec = mixture_file(folder, "datasets: [{json_path: b, sampling_strategy: 'random:30%'}]\n")
    one, again, other = (load_mixture((spec,), (), Loading(seed=seed)) for seed in (1, 1, 2))
    assert ids(one.sources[0]) == ids(again.sources[0]) != ids(other.sources[0])
    assert ids(one.sources[0]) == sorted(ids(one.sources[0]), key=lambda name: int(name[1:]))
    assert one.fingerprint() == again.fingerprint() != other.fingerprint()
    # Pinned: a resumed run must find the part that it left.
    assert isinstance(one.sources[0], Subset)
    drawn = subset(Named(), "random:5", seed=42)
    assert drawn.chosen.tolist() == PINNED  # type: ignore[attr-defined]


class Named(Source):
    name = "some/folder/a fixed name"

    def __len__(self) -> int:
        return 100

    def modality(self, index: int) -> Modality:
        return "text"

    def sample(self, index: int) -> Sample:
        raise AssertionError("no sample is read")


PINNED = [40, 49, 57, 75, 80]


def test_media_roots_are_relative_to_the_file(tmp_path: Path):
    (tmp_path / "sets" / "coco").mkdir(parents=True)
    (tmp_path / "sets" / "coco" / "a.png").write_bytes(b"")
    said = [{"from": "human", "value": "<image>?"}, {"from": "gpt", "value": "that"}]
    (tmp_path / "sets" / "a.json").write_text(json.dumps([{"image": "a.png", "conversations": said}]))
    spec = mixture_file(tmp_path / "sets", "datasets:\n- json_path: a.json\n  image_folder: coco\n")
    mixture = load_mixture((spec,), (), Loading(media_root=tmp_path))
    assert mixture.sample(0).visuals[0].path == str(tmp_path / "sets" / "coco" / "a.png")


@pytest.mark.parametrize(
    ("text", "what"),
    [
        ("datasets: 3\n", "`datasets` must be a list"),
        ("datasets: []\n", "`datasets` must be a list"),
        ("datasets:\n- a\n", "entry 1: must be a mapping, not a text"),
        ("datasets:\n- {weight: 1}\n", "entry 1: needs `json_path`"),
        ("datasets:\n- {json_path: a}\n- {json_path: a, wieght: 2}\n", "entry 2: unknown key wieght"),
        ("datasets:\n- {json_path: a, path: b}\n", "name different things"),
        ("datasets:\n- {json_path: 3}\n", "`json_path` must be a text, not a number"),
        ("datasets:\n- {json_path: a, weight: 0}\n", "`weight` must be a number above 0"),
        ("datasets:\n- {json_path: a, weight: .nan}\n", "`weight` must be a number above 0"),
        ("datasets:\n- {json_path: a, sampling_strategy: some}\n", "'some' is unknown"),
        ("datasets:\n- {json_path: a, sampling_strategy: 'random:101%'}\n", "takes no possible part"),
        ("datasets:\n- {json_path: a, sampling_strategy: 'first:0'}\n", "takes no possible part"),
        ("datasets:\n- {json_path: a, sampling_strategy: 'first:2.5'}\n", "takes no possible part"),
        ("datasets:\n- {json_path: a}\nseed: 3\n", "has unknown keys: seed"),
        ("datasets:\n- {json_path: a\n", "is not YAML"),
        ("datasets:\n- {json_path: nowhere}\n", "no such file"),
        ("datasets:\n- {json_path: mix.txt}\n", "is a mixture within the mixture"),
        ("datasets: !!python/object/apply:os.system ['true']\n", "is not YAML"),
    ],
)
def test_a_slip_is_refused(folder: Path, text: str, what: str):
    with pytest.raises(DatasetError, match=what):
        load_mixture((mixture_file(folder, text),))


def test_braces_are_several_files_unless_one_is_called_so(folder: Path):
    for name in ("a", "b"):
        (folder / name).rename(folder / f"{name}.json")
    both = load_mixture((f"{folder}/{{a,b}}.json",), (3.0,))
    assert [Path(source.name).name for source in both.sources] == ["a.json", "b.json"]
    assert both.weights == (3.0, 3.0)
    assert [Path(s.name).name for s in load_mixture((f"{folder}/{{b}}.json",)).sources] == ["b.json"]
    with pytest.raises(DatasetError, match=r"c.json: no such file"):
        load_mixture((f"{folder}/{{a,c}}.json",))
    (folder / "a.json").rename(folder / "{a,b}.json")
    assert len(load_mixture((f"{folder}/{{a,b}}.json",)).sources) == 1


@pytest.mark.parametrize("text", ["dataset:\n- {json_path: a}\n", "", "a: 1\n"])
def test_a_yaml_without_datasets_is_a_slip_and_no_file_of_rows(folder: Path, text: str):
    path = folder / "mix.yaml"
    path.write_text(text)
    with pytest.raises(DatasetError, match=r"mix.yaml: `datasets` must be a list"):
        load_mixture((str(path),))
    path.write_text('{"conversations": [{"from": "human", "value": "a"}, {"from": "gpt", "value": "b"}]}')
    assert len(load_mixture((str(path),))) == 1


def test_rows_that_speak_of_datasets_are_rows(folder: Path):
    path = folder / "c.json"
    path.write_text(
        '[\n{"conversations": [{"from": "human", "value": "a"}, {"from": "gpt", "value": "\\ndatasets:"}]}]'
    )
    assert len(load_mixture((str(path),))) == 1


def test_every_spec_needs_its_weight(folder: Path):
    with pytest.raises(UsageError, match="2 weights for 1 data sets"):
        load_mixture((str(folder / "a"),), (1.0, 2.0))


def test_strategies_are_parsed():
    assert parse_strategy("all") is None
    assert parse_strategy("random:30%") == ("random", 30.0, True)
    assert parse_strategy("end:12") == ("end", 12.0, False)
