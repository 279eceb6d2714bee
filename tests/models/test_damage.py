"""What a checkpoint of any family may have wrong is one line that names the value, before an answer."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.models.checkpoints import hf_checkpoint, original_checkpoint
from vidllava.backbone.load import load_backbone
from vidllava.backbone.settings import read_settings
from vidllava.errors import ModelError

Change = Callable[[Path], None]


def edited(name: str, *keys: str, to: Any) -> Change:
    def change(folder: Path) -> None:
        content = json.loads((folder / name).read_text(encoding="utf-8"))
        place = content
        for key in keys[:-1]:
            place = place[key]
        place[keys[-1]] = to
        (folder / name).write_text(json.dumps(content), encoding="utf-8")

    return change


def written(name: str, text: str) -> Change:
    return lambda folder: (folder / name).write_text(text, encoding="utf-8") and None


CONFIG, ROPE = "config.json", ("text_config", "rope_parameters", "factor")
DAMAGE: dict[str, tuple[Change, str]] = {
    "a factor of 0": (edited(CONFIG, *ROPE, to=0), "linear RoPE factor is 0"),
    "a factor that is a word": (edited(CONFIG, *ROPE, to="x"), "linear RoPE factor is 'x'"),
    "a factor below 1": (edited(CONFIG, *ROPE, to=0.5), r"linear RoPE factor is 0\.5"),
    "another rope": (
        edited(CONFIG, "text_config", "rope_parameters", "rope_type", to="yarn"),
        "rope_type 'yarn' cannot be scaled linearly",
    ),
    "a pooling that does not exist": (
        edited(CONFIG, "spatial_pool_mode", to="median"),
        "spatial_pool_mode is 'median'",
    ),
    "a stride of 0": (edited(CONFIG, "spatial_pool_stride", to=0), "spatial_pool_stride 0"),
    "a stride that is a text": (
        edited(CONFIG, "spatial_pool_stride", to="x"),
        "configuration cannot be read",
    ),
    "a convolution without weights": (
        edited(CONFIG, "spatial_pool_mode", to="conv"),
        "missing weights: model.vision_resampler.pool",
    ),
    "all rows of the tower": (
        edited(CONFIG, "vision_feature_select_strategy", to="full"),
        "a CLIPVisionModel is read as 'default'",
    ),
    "a layer that is not there": (
        edited(CONFIG, "vision_feature_layer", to=-9),
        "vision_feature_layer is -9",
    ),
    "another crop": (
        edited("preprocessor_config.json", "crop_size", to={"height": 70, "width": 70}),
        "short edge of 84 cut to 70, the tower's image_size is 84",
    ),
    "no crop": (edited("preprocessor_config.json", "do_center_crop", to=False), "cut to None"),
    "another model's template": (
        written(
            "chat_template.jinja", "{% for m in messages %}{{ '<|im_start|>' + m['content'] }}{% endfor %}"
        ),
        r"cannot be followed .*is not vicuna.*no 'USER:'",
    ),
    "a template that is not whole": (written("chat_template.jinja", "{% for"), "is no Jinja template"),
    "a place to pool that does not exist": (
        written("vidllava.json", '{"preset": "next-video", "pool_at": "moon"}'),
        "pool_at: 'moon' is not a setting",
    ),
}
ORIGINAL: dict[str, tuple[Change, str]] = {
    "another tower": (edited(CONFIG, "mm_vision_tower", to="eva"), "mm_vision_tower is 'eva'"),
    "another resampler": (
        edited(CONFIG, "mm_resampler_type", to="qformer"),
        "mm_resampler_type is 'qformer'",
    ),
    "other heads": (edited(CONFIG, "num_attention_heads", to=3), "num_attention_heads 3, the weights have 4"),
}


@pytest.mark.parametrize("name", DAMAGE)
def test_what_is_wrong_in_transformers_layout_is_named(name: str, tmp_path: Path):
    folder = hf_checkpoint("next-video-7b", tmp_path)
    load_backbone(str(folder))
    change, what = DAMAGE[name]
    change(folder)
    with pytest.raises(ModelError, match=what) as fault:
        load_backbone(str(folder))
    assert "\n" not in str(fault.value)


@pytest.mark.parametrize("name", ORIGINAL)
def test_what_is_wrong_in_lmms_labs_layout_is_named(name: str, tmp_path: Path):
    folder = original_checkpoint("next-video-7b", tmp_path)
    change, what = ORIGINAL[name]
    change(folder)
    with pytest.raises(ModelError, match=what) as fault:
        load_backbone(str(folder))
    assert "\n" not in str(fault.value)


@pytest.mark.parametrize(
    ("text", "what"),
    [("", "chat template is empty"), ("{{ 1 / 0 }}USER:", "is not followed (cannot be rendered")],
    ids=["empty", "not rendered"],
)
def test_a_template_that_cannot_be_followed_is_said_where_the_familys_own_is_surely_meant(
    text: str, what: str, tmp_path: Path
):
    folder = hf_checkpoint("next-video-7b", tmp_path)
    (folder / "chat_template.jinja").write_text(text, encoding="utf-8")
    settings = read_settings(folder, "mine")
    assert settings.template.name == "vicuna"
    (note,) = settings.notes
    assert what in note
    assert note.endswith("vicuna is spoken")
