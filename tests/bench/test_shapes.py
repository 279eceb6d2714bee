"""The shapes are those of the models, and the byte model counts what a hand counts."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

import vidllava.nano
from vidllava.backbone.memory import free_bytes
from vidllava.bench.kernel_cases import (
    FAMILY_MODELS,
    MODELS,
    KernelRequest,
    bytes_moved,
    bytes_needed,
    cases,
    family_cases,
    rotate_case,
    splice_case,
    why_skipped,
)


def test_nano_has_the_sizes_of_its_weights():
    config = json.loads((Path(vidllava.nano.__file__).parent / "weights" / "config.json").read_text())
    text, vision, sizes = config["text_config"], config["vision_config"], MODELS["nano"]
    assert (sizes.width, sizes.mlp, sizes.layers) == (
        text["hidden_size"],
        text["intermediate_size"],
        text["num_hidden_layers"],
    )
    assert (sizes.q_heads, sizes.k_heads) == (text["num_attention_heads"], text["num_key_value_heads"])
    assert sizes.rope_theta == text["rope_parameters"]["rope_theta"]
    assert (sizes.tower_width, sizes.tower_mlp) == (vision["hidden_size"], vision["intermediate_size"])
    assert (sizes.tower_layers, sizes.tower_heads) == (
        vision["num_hidden_layers"],
        vision["num_attention_heads"],
    )
    assert (sizes.image_size, sizes.side) == (
        vision["image_size"],
        vision["image_size"] // vision["patch_size"],
    )


@pytest.mark.parametrize(
    ("model", "num_frames", "newline", "length"),
    [
        ("0.5b", 32, "one_token", 6337),
        ("0.5b", 32, "grid", 6784),
        ("7b", 128, "grid", 26944),
        ("7b", 128, "one_token", 25153),
        ("nano", 8, "one_token", 193),
    ],
)
def test_a_prompt_is_as_long_as_the_models_would_be(model, num_frames, newline, length):
    for make in (splice_case, rotate_case):
        assert make(MODELS[model], num_frames, newline_mode=newline).length == length


def test_families_have_their_own_shapes():
    """CLIP's 24 x 24 to 12 x 12 at the tower's width, heads of 128, newlines after rows."""
    pooled, placed, turned = family_cases("next-video-7b", 8)
    assert (pooled.side, pooled.pool_mode, pooled.pool_stride, pooled.channels) == (24, "average", 2, 1024)
    assert (placed.side, placed.pool_stride, placed.channels) == (12, 1, 4096)
    assert pooled.layout.num_tokens == placed.layout.num_tokens == 8 * 144
    assert (turned.q_heads, turned.k_heads, turned.head_size, turned.length) == (32, 32, 128, 8 * 144 + 64)
    *_, yi = family_cases("next-video-34b", 8)
    assert (yi.q_heads, yi.k_heads, yi.head_size) == (56, 8, 128)
    plain, _ = family_cases("interleave-7b", 2)
    assert (plain.pool_stride, plain.layout.num_tokens) == (1, 2 * 729)
    grid, _ = family_cases("llava-video-7b", 2)
    assert (grid.newline_mode, grid.layout.num_tokens) == ("grid", 2 * 14 * 15)
    asked = cases(KernelRequest(models=("next-video-7b",), num_frames=(2, 4), odd=False), on_cuda=False)
    assert len(asked) == 6


def test_each_device_has_its_shapes_and_none_twice():
    cpu, cuda = (cases(KernelRequest(), on_cuda=on_cuda) for on_cuda in (False, True))
    assert {case.model for case in cpu} == {"nano", "0.5b", None}
    assert {(case.model, case.num_frames, case.newline_mode) for case in cuda if case.kernel == "splice"} >= {
        (model, frames, newline)
        for model in ("0.5b", "7b")
        for frames in (8, 32, 128)
        for newline in ("one_token", "grid")
    }
    for found in (cpu, cuda):
        assert len(set(found)) == len(found)
        assert {case.length for case in found if case.model and case.num_frames is None} == {1}


def test_only_what_is_asked_for_is_measured():
    request = KernelRequest(models=("7b",), num_frames=(3,), kernels=("rotate",), odd=False)
    assert cases(request, on_cuda=False) == [rotate_case(MODELS["7b"], 3)]


def test_bytes_of_a_splice_are_those_a_hand_counts():
    case = splice_case(MODELS["0.5b"], 32)
    features, rows, tables = 32 * 729 * 896, 6337 * 896, 2 * 6337 * 64
    assert bytes_moved(case, "forward", element_bytes=2) == 2 * (features + rows + tables) == 54_781_952
    # Text rows have no gradient to give: the embedding does not train.
    backward = 2 * (features + (32 * 196 + 1) * 896)
    assert bytes_moved(case, "backward", element_bytes=2) == backward == 53_044_992
    assert bytes_moved(case, "both", element_bytes=2) == 54_781_952 + 53_044_992


def test_bytes_of_a_rotation_are_those_a_hand_counts():
    case = rotate_case(MODELS["7b"], 32, newline_mode="grid")
    expected = 4 * (2 * 6784 * (28 + 4) * 128 + 2 * 6784 * 128)
    assert bytes_moved(case, "forward", element_bytes=4) == expected
    assert bytes_moved(case, "backward", element_bytes=4) == expected


def test_cells_that_no_square_holds_are_not_read():
    odd = next(c for c in cases(KernelRequest(), on_cuda=False) if c.pool_mode == "average")
    per_sample = 13 * 26 * 26 * 80 + odd.length * 80 + 2 * odd.length * 80
    assert bytes_moved(odd, "forward", element_bytes=1) == 3 * per_sample
    # Every cell's gradient is written, those that are zero too.
    assert bytes_moved(odd, "backward", element_bytes=1) == 3 * 80 * (13 * 27 * 27 + 13 * (13 * 13 + 1))


def test_what_does_not_fit_is_skipped_with_both_figures():
    case = splice_case(MODELS["7b"], 128)
    needed = bytes_needed(case, element_bytes=2, num_sets=1)
    assert why_skipped(case, element_bytes=2, num_sets=1, free=needed) is None
    why = why_skipped(case, element_bytes=2, num_sets=1, free=5_000_000_000)
    assert why == f"needs about {needed / 1e9:.1f} GB of memory, 5.0 GB are free"
    assert bytes_needed(case, element_bytes=2, num_sets=3) > needed
    assert 1 << 20 < free_bytes("cpu") < 1 << 50


def test_the_table_in_the_kernels_readme_has_the_sizes_that_are_measured():
    text = (Path(__file__).resolve().parents[2] / "kernels" / "README.md").read_text(encoding="utf-8")
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in text.splitlines()]
    table = {row[0]: row[1:] for row in rows if len(row) == 6 and row[0] in FAMILY_MODELS}
    assert set(table) == set(FAMILY_MODELS)
    for name, (cells, _, pooled_at, placed_at, heads) in table.items():
        *splices, rotated = family_cases(name, 1)
        assert cells == f"{splices[0].side} x {splices[0].side}"
        assert pooled_at in ("-", str(splices[0].channels))
        assert placed_at == str(splices[-1].channels)
        assert heads == f"{rotated.q_heads} / {rotated.k_heads} x {rotated.head_size}"
