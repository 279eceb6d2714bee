"""lmms-lab's layout of a checkpoint and transformers' say the same: published sizes, tiny weights."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from tests.models import checkpoints
from tests.models.checkpoints import PUBLISHED, hf_checkpoint, original_checkpoint
from tests.models.original_sizes import (
    CLASSES,
    CLIP,
    POOLED,
    QWEN2,
    QWEN15,
    SIGLIP,
    SIZES,
    TEXT_SIZES,
    VICUNA,
    YI,
    by_hand,
    headers,
    shapes_of,
    stored,
)
from vidllava.errors import ModelError
from vidllava.models import original
from vidllava.models.original import (
    hf_config,
    hf_name,
    is_original,
    legacy_name,
    original_config,
    original_name,
)


@pytest.fixture(params=SIZES)
def published(request: pytest.FixtureRequest) -> tuple[dict[str, Any], str, float]:
    return SIZES[request.param]


def test_published_names_and_shapes_are_mapped_both_ways_without_rest(published: Any):
    own, kind, billions = published
    here = shapes_of(by_hand(own, kind), kind)
    count = sum(torch.Size(shape).numel() for shape in here.values()) / 1e9
    assert count == pytest.approx(billions, rel=0.01)
    there = {original_name(name): shape for name, shape in here.items()}
    assert there == {name: shape for name, shape in stored(own, kind).items() if name in there}
    assert {hf_name(name): shape for name, shape in there.items()} == here
    # lmms-lab's code keeps its parts under these names and no others.
    parts = ("model.vision_tower.vision_tower.vision_model.", "model.mm_projector.", "model.layers.")
    others = {name for name in there if not name.startswith(parts)}
    assert others <= {
        "model.embed_tokens.weight",
        "model.norm.weight",
        "lm_head.weight",
        "model.image_newline",
    }
    legacy = {legacy_name(name) for name in here}
    assert legacy == {checkpoints.legacy_name(name) for name in here}
    assert len(legacy) == len(there) == len(here)


def test_a_published_configuration_and_its_headers_give_the_very_model(published: Any):
    own, kind, _ = published
    assert is_original(own)
    there = stored(own, kind)
    found = json.loads(json.dumps(hf_config(own, headers(there))))
    assert found["model_type"] == kind
    assert found["architectures"] == [CLASSES[kind].__name__]
    assert not is_original(found)
    config = CLASSES[kind].config_class.from_dict(found)
    here = shapes_of(config, kind)
    used = {hf_name(name): shape for name, shape in there.items() if name not in original.unused(found)}
    assert here == used
    assert config.text_config.vocab_size == own["vocab_size"]
    assert config.text_config.max_position_embeddings == own["max_position_embeddings"]
    assert config.text_config.rope_parameters["rope_theta"] == own["rope_theta"]
    assert config.text_config.rope_parameters.get("factor") == (own["rope_scaling"] or {}).get("factor")
    assert getattr(config.text_config, "sliding_window", None) is None
    assert config.tie_word_embeddings == ("lm_head.weight" not in there)
    clip = "clip" in own["mm_vision_tower"]
    assert config.vision_config.image_size == (336 if clip else 384)
    assert config.vision_config.num_attention_heads == 16
    assert config.vision_config.hidden_act == ("quick_gelu" if clip else "gelu_pytorch_tanh")
    assert (config.vision_feature_layer, config.vision_feature_select_strategy) == (
        (-2, "default") if clip else (-1, "full")
    )
    if kind != "llava_onevision":
        assert config.image_seq_length == (576 if clip else 729)
    else:
        assert config.mm_spatial_pool_mode == "bilinear"  # how clips are pooled, which its class does not ask
        assert config.vision_aspect_ratio == "anyres_max_9"
        assert config.image_grid_pinpoints == [[384 * r, 384 * c] for r in range(1, 7) for c in range(1, 7)]
        assert config.mm_newline_position == own["mm_newline_position"]
    if kind == "llava_next_video":
        assert (config.spatial_pool_mode, config.spatial_pool_stride) == ("average", 2)


def test_a_configuration_goes_there_and_back(published: Any):
    own, kind, _ = published
    there = headers(stored(own, kind))
    ours = hf_config(own, there)
    # As the class itself writes it: complete, with all of its defaults.
    complete = CLASSES[kind].config_class.from_dict(dict(ours)).to_dict()
    theirs = json.loads(json.dumps(original_config(complete)))
    assert is_original(theirs)
    again = hf_config(theirs, there)
    # Qwen's window is off, and off it stays; the class says so with other words.
    window = ("sliding_window", "max_window_layers", "use_sliding_window")
    for before, after in ((ours["text_config"], again["text_config"]), (ours, again)):
        keys = before.keys() - {"text_config", *window}
        assert {key: after[key] for key in keys} == {key: before[key] for key in keys}
    assert not again["text_config"].get("use_sliding_window")
    assert theirs["mm_patch_merge_type"] == own["mm_patch_merge_type"]
    same = (
        "architectures",
        "mm_vision_tower",
        "mm_newline_position",
        "rope_theta",
        "torch_dtype",
        *TEXT_SIZES,
    )
    assert {key: theirs.get(key) for key in same} == {key: own.get(key) for key in same}


@pytest.fixture(scope="module", params=sorted(PUBLISHED))
def tiny(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[str, Path, Path]:
    """A name and the same weights in both layouts."""
    folder = tmp_path_factory.mktemp(request.param)
    name = str(request.param)
    return name, hf_checkpoint(name, folder / "hf"), original_checkpoint(name, folder / "original")


def opened(name: str, folder: Path, **how: object) -> tuple[Any, dict[str, list[str]]]:
    """transformers' object and what did not fit."""
    hf, told = PUBLISHED[name].hf_class.from_pretrained(folder, output_loading_info=True, **how)
    return hf, {kind: sorted(keys) for kind, keys in told.items() if keys}


def test_an_original_folder_opens_in_place_with_the_same_bits(tiny: tuple[str, Path, Path], tmp_path: Path):
    name, hf_folder, folder = tiny
    own = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    with safe_open(folder / "model.safetensors", "pt") as file:
        there = headers({key: tuple(file.get_slice(key).get_shape()) for key in file.keys()})  # noqa: SIM118
    ours = hf_config(own, there)
    config = PUBLISHED[name].hf_class.config_class.from_dict(dict(ours))
    found, rest = opened(name, folder, config=config, key_mapping=original.KEY_MAPPING)
    unused = original.unused(ours)
    assert rest == ({"unexpected_keys": sorted(unused)} if unused else {})
    wanted, _ = opened(name, hf_folder)
    weights, theirs = found.state_dict(), wanted.state_dict()
    assert weights.keys() == theirs.keys()
    assert all(torch.equal(tensor, theirs[key]) for key, tensor in weights.items())
    for part in ("text_config", "vision_config"):
        one, other = getattr(found.config, part).to_dict(), getattr(wanted.config, part).to_dict()
        odd = {key for key in one | other if one.get(key) != other.get(key)}
        assert odd <= {"architectures", "dtype", "projection_dim", "_name_or_path", "tie_word_embeddings"}
    ids = torch.arange(3, 40)[None]
    with torch.no_grad():
        assert torch.equal(found(input_ids=ids).logits, wanted(input_ids=ids).logits)


def test_a_folder_that_was_opened_in_place_is_saved_in_its_own_names(tmp_path: Path):
    # transformers turns the mapping round: whoever wants its own layout has to make a fresh object.
    folder = original_checkpoint("onevision-7b", tmp_path / "original")
    before = load_file(folder / "model.safetensors")
    own = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    config = transformers.LlavaOnevisionConfig.from_dict(hf_config(own, before))
    hf, _ = opened("onevision-7b", folder, config=config, key_mapping=original.KEY_MAPPING)
    hf.save_pretrained(tmp_path / "saved")
    after = load_file(tmp_path / "saved" / "model.safetensors")
    assert after.keys() == before.keys()
    assert all(torch.equal(tensor, before[name]) for name, tensor in after.items())


COMPUTED = (
    "model.layers.0.self_attn.rotary_emb.inv_freq",
    "model.vision_tower.vision_tower.vision_model.embeddings.position_ids",
)


def test_tables_that_old_versions_stored_are_passed_over_and_nothing_else_is(tmp_path: Path):
    folder = original_checkpoint("next-video-7b", tmp_path / "original")
    state = load_file(folder / "model.safetensors")
    own = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    state |= {name: torch.ones(4) for name in COMPUTED}
    assert [hf_name(name) for name in COMPUTED] == [None, None]
    save_file(state, folder / "model.safetensors", metadata={"format": "pt"})
    config = transformers.LlavaNextVideoConfig.from_dict(hf_config(own, state))
    assert opened("next-video-7b", folder, config=config, key_mapping=original.KEY_MAPPING)[1] == {}
    for name in (
        "model.faster_token",
        "model.vision_resampler.perceiver.latents",
        "model.mm_projector.1.weight",
    ):
        with pytest.raises(ModelError, match=name):
            hf_config(own, state | {name: torch.ones(4)})
    for rename in (original_name, legacy_name):
        with pytest.raises(ModelError, match="audio_tower"):
            rename("model.audio_tower.weight")


@pytest.mark.parametrize("name", sorted(PUBLISHED))
def test_the_pixels_are_prepared_as_the_published_processor_files_say(name: str, tmp_path: Path):
    folder = original_checkpoint(name, tmp_path)
    own = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    found = original.processor(hf_config(own, load_file(folder / "model.safetensors")))
    theirs = PUBLISHED[name].processor
    assert {key: found.get(key) for key in theirs if key != "aspect_ratio_setting"} == {
        key: value for key, value in theirs.items() if key != "aspect_ratio_setting"
    }


@pytest.mark.parametrize(
    ("stated", "read"),
    [
        ([[384, 768], [768, 384]], [[384, 768], [768, 384]]),
        ("[(384, 768), (768, 384)]", [[384, 768], [768, 384]]),
        ("(1x1),...,(2x3)", [[384 * row, 384 * column] for row in (1, 2) for column in (1, 2, 3)]),
    ],
)
def test_grids_are_read_however_they_are_written(stated: Any, read: list[list[int]]):
    own = QWEN2["0.5b"] | SIGLIP | {"image_grid_pinpoints": stated}
    there = headers(stored(own, "llava_onevision"))
    assert hf_config(own, there)["image_grid_pinpoints"] == read
    # No limit is, to OneVision's class, as many tiles as the largest grid has.
    most = max(height * width for height, width in read) // 384**2
    found = hf_config(own | {"image_aspect_ratio": "anyres"}, there)
    assert found["vision_aspect_ratio"] == f"anyres_max_{most}"


def test_placeholders_are_no_words_of_the_vocabulary():
    own = YI | POOLED
    there = headers(stored(own, "llava_next_video"))
    ids = ("image_token_index", "video_token_index")

    def found(config: dict[str, Any], **given: int) -> list[int]:
        return [hf_config(config, there, **given)[key] for key in ids]

    assert found(own) == [64000, 64001]
    assert found(own | {"image_token_index": 7}) == [7, 64000]
    assert found(own | {"image_token_index": -200}, video_id=5) == [64000, 5]
    assert found(own, image_id=64001, video_id=64000) == [64001, 64000]


def test_pooling_by_a_convolution_has_weights_of_its_own():
    own = VICUNA | POOLED | {"mm_spatial_pool_mode": "conv"}
    there = stored(own, "llava_next_video")
    with pytest.raises(ModelError, match=r"no model\.vision_resampler\.pool\.weight"):
        hf_config(own, headers(there))
    there |= {
        "model.vision_resampler.pool.weight": (1024, 1024, 2, 2),
        "model.vision_resampler.pool.bias": (1024,),
    }
    config = transformers.LlavaNextVideoConfig.from_dict(hf_config(own, headers(there)))
    here = shapes_of(config, "llava_next_video")
    assert here == {hf_name(name): shape for name, shape in there.items()}
    assert {original_name(name) for name in here} == there.keys()
    assert legacy_name("model.vision_resampler.pool.bias") == "vision_resampler.pool.bias"


def test_the_layout_is_told_by_architectures_not_by_model_type():
    assert not is_original({"architectures": ["LlavaForConditionalGeneration"], "model_type": "llava"})
    assert not is_original({"model_type": "llava_qwen", "architectures": None})
    assert not is_original({"architectures": ["LlavaMptForCausalLM"]})
    assert is_original({"architectures": ["LlavaMistralForCausalLM"], "model_type": "llava"})
    assert is_original({"mm_vision_tower": None})


def test_a_tower_of_siglip_without_newlines_is_interleave():
    own = QWEN15["0.5b"] | SIGLIP
    there = headers(stored(own, "llava"))
    assert hf_config(own, there)["model_type"] == "llava_onevision"
    ours = hf_config({key: value for key, value in own.items() if key != "mm_newline_position"}, there)
    assert ours["model_type"] == "llava"
    del ours["image_aspect_ratio"]  # as the hub's file, which does not know it
    assert original_config(ours)["image_aspect_ratio"] == "pad"
    with pytest.raises(ModelError, match="model_type is 'llava_next'"):
        original_config(ours | {"model_type": "llava_next"})


def test_llava_1_5_is_refused_by_its_merge_type():
    own = VICUNA | CLIP | {"mm_patch_merge_type": None}
    with pytest.raises(ModelError, match="mm_patch_merge_type is None"):
        hf_config(own, headers(stored(own, "llava_next")))


def test_the_language_model_keeps_its_window_and_the_rows_that_are_stored():
    own = QWEN2["0.5b"] | SIGLIP | {"use_sliding_window": True, "sliding_window": 1024, "vocab_size": 151646}
    there = headers(stored(QWEN2["0.5b"] | SIGLIP, "llava_onevision"))
    text_config = transformers.LlavaOnevisionConfig.from_dict(hf_config(own, there)).text_config
    assert (text_config.sliding_window, text_config.vocab_size) == (1024, 151936)


def test_clip_without_pooling_is_llava_next_whatever_the_language_model():
    own = QWEN15["7b"] | CLIP  # lmms-lab's LLaVA-NeXT with Qwen1.5
    there = stored(own, "llava_next")
    found = hf_config(own, headers(there))
    assert found["model_type"] == "llava_next"
    config = transformers.LlavaNextConfig.from_dict(found)
    assert shapes_of(config, "llava_next") == {hf_name(name): shape for name, shape in there.items()}


REFUSED: dict[str, Any] = {
    "architectures": ["LlavaMptForCausalLM"],
    "mm_vision_tower": "google/siglip2-so400m-patch16-naflex",
    "mm_projector_type": "linear",
    "mm_resampler_type": "perceiver",
    "mm_spatial_pool_mode": "bilinear",
    "mm_spatial_pool_stride": 0,
    "mm_patch_merge_type": "spatial",
    "mm_vision_select_feature": "slicefour_patch",
    "mm_vision_select_layer": "last",
    "rope_scaling": {"type": "dynamic", "factor": 2.0},
    "rope_theta": "large",
    "num_attention_heads": 0,
    "max_position_embeddings": None,
    "image_grid_pinpoints": "[(336,",
    "num_hidden_layers": 31,
    "intermediate_size": 11007,
    "num_key_value_heads": 8,
}


@pytest.mark.parametrize("key", REFUSED)
def test_what_is_not_read_is_refused_in_one_line_that_names_it(key: str):
    own = VICUNA | POOLED
    there = headers(stored(own, "llava_next_video"))
    assert hf_config(own, there)
    with pytest.raises(ModelError, match=key) as fault:
        hf_config(own | {key: REFUSED[key]}, there, source="folder/config.json")
    value = REFUSED[key][0] if isinstance(REFUSED[key], list) else REFUSED[key]
    assert str(value) in str(fault.value)
    assert "\n" not in str(fault.value)
    assert str(fault.value).startswith("folder/config.json: ")


@pytest.mark.parametrize(
    ("name", "shape"),
    [
        ("model.embed_tokens.weight", None),
        ("model.layers.5.", None),
        ("model.vision_tower.vision_tower.vision_model.encoder.layers.0.", None),
        ("model.vision_tower.vision_tower.vision_model.embeddings.position_embedding.weight", (600, 1024)),
        ("model.vision_tower.vision_tower.vision_model.embeddings.patch_embedding.weight", (1024, 588)),
        ("model.mm_projector.0.weight", (4096, 4096)),
        ("model.mm_projector.2.weight", None),
        ("model.image_newline", (5120,)),
        ("model.image_newline", None),
        ("lm_head.weight", (32064, 4096)),
    ],
)
def test_weights_that_do_not_fit_are_refused_by_name(name: str, shape: tuple[int, ...] | None):
    own = VICUNA | POOLED
    there = stored(own, "llava_next_video")
    there = {key: one for key, one in there.items() if not key.startswith(name)} | (
        {name: shape} if shape else {}
    )
    with pytest.raises(ModelError) as fault:
        hf_config(own, headers(there))
    assert name in str(fault.value)


@pytest.mark.parametrize(
    ("at", "key", "value"),
    [
        ("vision_config", "num_attention_heads", 12),
        ("vision_config", "hidden_act", "gelu"),
        ("vision_config", "image_size", 340),
        ("vision_config", "model_type", "pixtral"),
        ("text_config", "model_type", "gemma2"),
        ("text_config", "hidden_size", None),
        ("text_config", "rope_parameters", {"rope_type": "yarn", "factor": 4.0}),
        ("", "model_type", "vipllava"),
        ("", "vision_feature_layer", [-2, -5]),
        ("", "projector_hidden_act", "relu"),
    ],
)
def test_what_lmms_labs_layout_has_no_place_for_is_refused(at: str, key: str, value: Any):
    own = VICUNA | POOLED
    ours = hf_config(own, headers(stored(own, "llava_next_video")))
    assert original_config(ours)["mm_resampler_type"] == "spatial_pool"
    changed = {**ours, at: {**ours[at], key: value}} if at else {**ours, key: value}
    named = "rope_scaling" if key == "rope_parameters" else key
    with pytest.raises(ModelError, match=named):
        original_config(changed)
