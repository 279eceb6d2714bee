"""docs/families.md agrees with the code: its table and figures, links, commands, and what it says of others.

`python -m tests.models.test_families_page` (part of `make docs`) writes the table anew.
"""

from __future__ import annotations

import inspect
import re
import shlex
from pathlib import Path
from typing import Any

import pytest
import transformers
from transformers import LlavaConfig, LlavaNextVideoProcessor

from tests.test_documents import between, put_between
from vidllava.backbone.folders import nano_folder
from vidllava.backbone.settings import named_settings, read_config, read_settings
from vidllava.backbone.verify import SLICES
from vidllava.errors import ModelError
from vidllava.models import families, named_models
from vidllava.models.family import NamedModel
from vidllava.models.original import original_config
from vidllava.prompting.budget import budget
from vidllava.visuals.planner import ModelSettings, VisualPlanner

ROOT = Path(__file__).resolve().parents[2]
PAGE = ROOT / "docs" / "families.md"
HEAD = (
    "name",
    "on the hub",
    "tower",
    "pooling",
    "tokens of a frame",
    "newline",
    "template",
    "context",
    "opens",
)
TOWERS = {"clip_vision_model": "CLIP", "siglip_vision_model": "SigLIP"}


def of(model: NamedModel) -> tuple[ModelSettings, dict[str, Any]]:
    """Settings and configuration in transformers' layout."""
    if model.hub_id is None:
        return read_settings(nano_folder(), model.name), read_config(nano_folder())
    return named_settings(model.name), dict(model.config)


def row(model: NamedModel) -> tuple[str, ...]:
    settings, config = of(model)
    planner, vision = VisualPlanner.of(settings), config["vision_config"]
    one, two = (planner.video(frames).num_tokens for frames in (1, 2))
    once = one - (two - one)
    pooling, place = planner.pooling, "before" if planner.pooling.at == "tower" else "after"
    side = f"{settings.side} to {planner.video(1).blocks[0].out_h}"
    least = f", factor {settings.least_factor:g}" if settings.least_factor != 1 else ""
    hub = f"[{model.hub_id}](https://huggingface.co/{model.hub_id})" if model.hub_id else "in the package"
    tower = f"{TOWERS[vision['model_type']]} {vision['patch_size']}-{vision['image_size']}"
    return (
        f"`{model.name}`",
        hub,
        f"{tower}, {config['vision_feature_layer']} of {vision['num_hidden_layers']}",
        f"{place} the projector, {pooling.mode}, {pooling.stride} ({side})" if pooling.stride > 1 else "none",
        f"{two - one}" + (f", and {once} a clip" if once else ""),
        settings.preset.newline_mode,
        settings.template.name,
        f"{settings.trained_context:,}{least}",
        opens(config),
    )


def opens(config: dict[str, Any]) -> str:
    try:
        original_config(config)
    except ModelError:
        return "transformers'"
    return "both"


def table() -> str:
    rows = [row(model) for family in families().values() for model in family.models]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in (HEAD, ("---",) * len(HEAD), *rows))


def fits() -> str:
    settings = named_settings("next-video-7b")
    counted = budget(
        [VisualPlanner.of(settings).video(1)],
        0,
        reserve_tokens=settings.preset.reserve_tokens,
        context_limit=settings.trained_context,
        least_factor=settings.least_factor,
    )
    assert counted.frames_at_factor is not None
    factors, frames = (
        ", ".join(map(str, part)) for part in zip(*counted.frames_at_factor.items(), strict=True)
    )
    return f"- {frames} frames fit at factors {factors}, {settings.preset.reserve_tokens:,} tokens kept free."


def text() -> str:
    return PAGE.read_text(encoding="utf-8")


def section(name: str) -> str:
    return text().partition(f"\n## {name}\n")[2].partition("\n## ")[0]


def test_the_table_is_what_the_code_says():
    assert between(PAGE, "families") == table(), "run: make docs"
    assert between(PAGE, "fits") == fits(), "run: make docs"


@pytest.mark.parametrize(
    ("name", "figures"),
    [
        (
            "next-video-7b",
            ["CLIP 14-336, -2 of 24", "before", "(24 to 12)", "144", "vicuna", "4,096, factor 2.5"],
        ),
        ("next-video-34b", ["144", "no_token", "chatml", "4,096"]),
        ("next-video-7b-32k", ["144", "mistral", "32,768"]),
        ("interleave-7b", ["SigLIP 14-384, -1 of 26", "none", "729", "no_token", "32,768"]),
        ("onevision-7b", ["after", "(27 to 14)", "196, and 1 a clip", "one_token", "chatml"]),
        ("llava-video-7b", ["210", "grid"]),
        ("next-mistral-7b", ["144", "mistral", "32,768"]),
    ],
)
def test_the_table_has_the_published_figures(name: str, figures: list[str]):
    """By hand, from the blogs and papers: the table is made from the code, and would follow it anywhere."""
    (line,) = (line for line in text().splitlines() if line.startswith(f"| `{name}` |"))
    cells = [cell.strip() for cell in line.strip("|").split("|")]
    for figure in figures:
        assert any(figure == cell or (figure in cell and not figure.isdigit()) for cell in cells), figure


def test_every_family_has_a_section_with_its_sources():
    for name, family in families().items():
        assert section(name), name
        for source in family.sources:
            assert f"]({source})" in section(name), source


def test_figures_of_the_sections_are_the_codes():
    for name, family in families().items():
        frames = re.search(r"(\d+) frames, a newline", section(name))
        assert frames is None or int(frames[1]) == family.preset.num_frames, name
        crops = "the middle square is cut out" in section(name)
        assert crops == (family.centre_crop and name != "next"), name  # which is read as next-video is
    assert [name for name, family in families().items() if family.preset.time_instruction] == ["llava-video"]
    assert VisualPlanner.of(named_settings("interleave-7b")).picture(999, 333).num_tokens == 729
    assert len(named_settings("next-video-7b").pinpoints) == 5
    onevision = named_settings("onevision-7b")
    assert (max(onevision.pinpoints), onevision.max_tiles) == ((6 * 384, 6 * 384), 9)


def test_commands_of_the_page_exist_with_their_options():
    from typer.main import get_command

    from vidllava.cli.main import program

    lines = [line.partition("  #")[0] for line in text().splitlines() if line.startswith("    vidllava")]
    lines += [part for code in re.findall(r"`(vidllava [^`]+)`", text()) for part in code.split(" && ")]
    assert len(lines) > 8
    for line in lines:
        command, words = get_command(program()), shlex.split(line)[1:]
        while words and hasattr(command, "commands"):
            command = command.commands[words.pop(0)]
        known = {option for parameter in command.params for option in parameter.opts}
        assert {word for word in words if word.startswith("--")} <= known, line
        names = [word for word in words if re.fullmatch(r"[a-z-]+-[\d.]+b(-\w+)?", word)]
        assert set(names) <= named_models().keys(), line


def test_flags_of_the_page_exist():
    pages = (ROOT / "docs" / "cli.md").read_text(encoding="utf-8")
    flags = set(re.findall(r"(?<![\w-])--[a-z][a-z-]+", text()))
    assert len(flags) > 5
    assert {flag for flag in flags if not re.search(rf"{flag}(?![\w-])", pages)} == set()


def test_the_checkpoints_with_published_logits_are_those_that_are_named():
    others = {named for named in SLICES if not named.startswith("onevision")}
    assert others == {"next-vicuna-7b", "next-mistral-7b"}
    assert {named for named in named_models() if named.startswith("onevision")} <= SLICES.keys()


def test_what_is_said_of_transformers_is_so():
    """Where one of these fails, transformers was corrected: correct the page."""
    assert "num_image_tokens // 4" in inspect.getsource(LlavaNextVideoProcessor)
    assert "spatial_pool" not in inspect.getsource(LlavaNextVideoProcessor)
    assert LlavaConfig().image_seq_length == 576
    folder = Path(transformers.__file__).parent / "models" / "llava_next_video"
    source = (folder / "video_processing_llava_next_video.py").read_text(encoding="utf-8")
    assert 'size = {"shortest_edge": 224}' in source


if __name__ == "__main__":
    put_between(PAGE, "families", table())
    put_between(PAGE, "fits", fits())
