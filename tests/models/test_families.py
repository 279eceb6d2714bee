"""Laws of the families and of the published checkpoints: names, classes, sizes, and who may name one."""

from __future__ import annotations

import ast
import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
import transformers

from vidllava.backbone.settings import named_settings
from vidllava.errors import ModelError, UsageError
from vidllava.models import _by_name, families, family_of, named_models, presets
from vidllava.models.family import Family, NamedModel, Preset, tensor_shapes
from vidllava.prompting.template import TEMPLATES
from vidllava.visuals.planner import VisualPlanner

ROOT = Path(__file__).resolve().parents[2]
PUBLISHED = {name: model for name, model in named_models().items() if model.hub_id is not None}


@pytest.fixture(params=sorted(PUBLISHED))
def model(request: pytest.FixtureRequest) -> NamedModel:
    return PUBLISHED[request.param]


def family_with(name: str, *models: NamedModel, **more: Any) -> Family:
    return Family(
        preset=Preset(name=name, num_frames=4),
        model_type="llava_onevision",
        hf_class="LlavaOnevisionForConditionalGeneration",
        models=models,
        **more,
    )


def modules_of(*found: object) -> tuple[Any, ...]:
    made = tuple(ModuleType("plug_in") for _ in found)
    for module, family in zip(made, found, strict=True):
        vars(module).update(FAMILY=family, __file__="plug_in.py")
    return made


def test_names_of_families_models_and_repositories_are_unique():
    models = [model for family in families().values() for model in family.models]
    assert len({model.name for model in models}) == len(models) == len(named_models())
    repositories = [model.hub_id for model in models if model.hub_id is not None]
    assert len(set(repositories)) == len(repositories)
    assert {name for name, family in families().items() if family.name != name} == set()


def test_a_name_that_two_families_give_is_refused():
    first = family_with("first", NamedModel(name="one", hub_id="a/one", about=""))
    with pytest.raises(UsageError, match="family first: is defined twice"):
        _by_name(modules_of(first, family_with("first")))
    second = family_with("second", NamedModel(name="one", hub_id="b/one", about=""))
    with pytest.raises(UsageError, match="model one: is defined twice"):
        _by_name(modules_of(first, second))
    assert list(_by_name(modules_of(first, family_with("second")))) == ["first", "second"]


def test_a_plug_in_whose_family_is_something_else_is_one_line():
    with pytest.raises(UsageError, match=r"plug_in\.py: FAMILY is of type dict"):
        _by_name(modules_of({"name": "mine"}))


def test_every_class_is_one_of_transformers_that_has_its_model_type():
    for family in families().values():
        kind = getattr(transformers, family.hf_class)
        assert kind.config_class.model_type == family.model_type, family.name


def test_every_template_exists():
    for name, preset in presets().items():
        assert preset.template in TEMPLATES, name
    for name in PUBLISHED:
        assert named_settings(name).template.name in TEMPLATES, name


def test_a_published_config_is_of_the_family_that_names_it(model: NamedModel):
    owner = next(family for family in families().values() if model in family.models)
    assert family_of(model.config, model.name) is owner


def test_what_a_config_says_of_a_preset_is_said_once(model: NamedModel):
    family = family_of(model.config, model.name)
    once = family.of_config(family.preset, model.config)
    assert family.of_config(once, model.config) == once
    assert once.name == family.name
    # What a caller changed in the dictionary it was given would change every later checkpoint.
    before = json.dumps(model.config, default=str, sort_keys=True)
    family.of_config(replace(once, num_frames=1), model.config)
    assert json.dumps(model.config, default=str, sort_keys=True) == before


def test_a_family_that_recognises_more_than_the_model_type_is_asked_first(monkeypatch: pytest.MonkeyPatch):
    narrow = family_with("narrow", recognises=lambda config: config.get("mine") is True)
    wide = family_with("wide")
    for order in ([narrow, wide], [wide, narrow]):
        known = {family.name: family for family in order}
        monkeypatch.setattr("vidllava.models.families", lambda known=known: known)
        assert family_of({"model_type": "llava_onevision", "mine": True}, "here") is narrow
        assert family_of({"model_type": "llava_onevision"}, "here") is wide


@pytest.mark.parametrize(
    "config",
    [
        {},
        {"model_type": "qwen2_vl"},
        # LLaVA-1.5, which shares Interleave's class.
        {"model_type": "llava", "vision_config": {"model_type": "clip_vision_model"}},
        {"model_type": "llava", "vision_config": None},
    ],
)
def test_a_config_of_no_family_is_refused_with_those_there_are(config: dict[str, Any]):
    kind = config.get("model_type")
    with pytest.raises(ModelError, match=f"here: model_type {kind!r} is of no family.*onevision"):
        family_of(config, "here")


def without_memory(model: NamedModel) -> dict[str, tuple[int, ...]]:
    """Names and shapes of transformers' own class for a published configuration."""
    kind = getattr(transformers, family_of(model.config, model.name).hf_class)
    config = kind.config_class(**{key: plain(value) for key, value in model.config.items()})
    with torch.device("meta"):
        hf = kind(config)
    found = {name: tuple(tensor.shape) for name, tensor in hf.state_dict().items()}
    if hf.lm_head.weight is hf.get_input_embeddings().weight or config.tie_word_embeddings:
        del found["lm_head.weight"]
    return found


def plain(value: Any) -> Any:
    return {key: plain(one) for key, one in value.items()} if isinstance(value, Mapping) else value


def test_names_and_shapes_are_those_of_transformers_class(model: NamedModel):
    theirs = without_memory(model)
    assert dict(tensor_shapes(model.config)) == theirs
    assert len(list(tensor_shapes(model.config))) == len(theirs)  # each once
    assert model.num_parameters == sum(torch.Size(shape).numel() for shape in theirs.values())


def test_a_learned_pooling_has_its_tensors():
    config = {**PUBLISHED["next-video-7b"].config, "spatial_pool_mode": "conv"}
    config["spatial_pool_out_channels"] = config["vision_config"]["hidden_size"]
    learned = replace(PUBLISHED["next-video-7b"], config=config)
    assert dict(tensor_shapes(config)) == without_memory(learned)


def test_a_clip_of_one_frame_can_be_planned_for_every_checkpoint(model: NamedModel):
    settings = named_settings(model.name)
    layout = VisualPlanner.of(settings).video(1)
    assert 0 < layout.num_tokens < settings.trained_context
    assert settings.least_factor >= 1


def test_every_family_says_where_its_figures_are_from():
    for name, family in families().items():
        if any(model.hub_id for model in family.models):
            assert family.sources, name
        assert all(source.startswith("https://") for source in family.sources), name


# ------------------------------------------------------------------------------------------------------
# Nothing else in the code names a family.

MAY_NAME = {
    "vidllava.training": "recipes are published figures, and are called as the systems are",
    "vidllava.backbone.locate": "the model that `auto` takes where it is here",
    "vidllava.backbone.published": "figures published of one checkpoint each: first logits, ids of a prompt",
    "vidllava.backbone.convert": "writes another's layout, in which each class has its own keys and ids",
    "vidllava.backbone.familiarity": "the model that nano recommends for media of the real world",
    "vidllava.bench": "measures the operators beside transformers' own model, at published sizes",
    "vidllava.prompting.formatting": "names of data sets, some with a system's name at their end",
    "vidllava.cli.asking": "the model that nano recommends for media of the real world",
}
"""Modules that may name a family, a model of one, or its class in transformers, and why."""

# A word of everyday English is a name only where it is compared with a family, or given for one.
_WHOLE = {"next", "interleave"}
_FAMILIES = {name for name in families() if name != "nano"}  # nano is a part of the package
_MODELS = set(PUBLISHED) | {str(model.hub_id) for model in PUBLISHED.values()}
_KINDS = {family.model_type for family in families().values()} - {"llava"}
_CLASSES = {family.hf_class for family in families().values()}
_NAMES = sorted((_FAMILIES | _MODELS | _KINDS | _CLASSES) - _WHOLE, key=len, reverse=True)
_SPELT = re.compile(rf"(?<![\w-])(?:{'|'.join(map(re.escape, _NAMES))})(?![\w-])")
_IDENTIFIER = re.compile(r"Llava(Next|Onevision|ForCond|Config)|llava_(next|onevision)")


def named_in(source: str) -> Iterator[str]:
    """What of a family a module's code names; docstrings and comments do not count."""
    tree = ast.parse(source)
    documents = {
        id(node.body[0].value)
        for node in ast.walk(tree)
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef)
        and node.body
        and isinstance(node.body[0], ast.Expr)
    }
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in documents:
            yield from _SPELT.findall(node.value)
        given = node.comparators if isinstance(node, ast.Compare) else []
        given = [node.value] if isinstance(node, ast.keyword) else given
        given = given if given and re.search("family|preset|recipe", ast.unparse(node)) else []
        yield from (one.value for one in given if isinstance(one, ast.Constant) and one.value in _WHOLE)
        names = [getattr(node, field, None) for field in ("id", "attr", "name", "module")]
        yield from (name for name in names if isinstance(name, str) and _IDENTIFIER.search(name))


def modules() -> Iterator[tuple[str, str]]:
    for folder, package in (
        ("vidllava", "vidllava"),
        ("cli", "vidllava.cli"),
        ("kernels/ops", "vidllava.kernels"),
    ):
        for path in sorted((ROOT / folder).rglob("*.py")):
            inner = path.relative_to(ROOT / folder).with_suffix("").parts
            yield ".".join((package, *inner)).removesuffix(".__init__"), path.read_text(encoding="utf-8")


def test_no_other_module_names_a_family():
    found = {name: sorted(set(named_in(source))) for name, source in modules()}
    used, others = set(), {}
    for name, words in found.items():
        if not words or name.startswith("vidllava.models"):
            continue
        reasons = {part for part in MAY_NAME if name == part or name.startswith(f"{part}.")}
        used |= reasons
        if not reasons:
            others[name] = words
    assert others == {}, "a family's own file is the place, or a line in MAY_NAME with the reason"
    assert used == set(MAY_NAME), "a line in MAY_NAME that nothing needs"


@pytest.mark.parametrize(
    ("source", "words"),
    [
        ('"""The onevision family."""', []),
        ("x = 1  # next-video", []),
        ('HINT = "get it with: vidllava models pull onevision-0.5b"', ["onevision-0.5b"]),
        ('if kind == "llava_next": pass', ["llava_next"]),
        ('found = family == "next"', ["next"]),
        ('WORDS = {"first", "next"}', []),
        ('hint = "the next frame of interleave-bench"', []),
        ("from transformers import LlavaNextConfig", ["LlavaNextConfig"]),
        ("import transformers.models.llava_onevision", ["transformers.models.llava_onevision"]),
    ],
)
def test_a_name_is_found_where_it_is_code(source: str, words: list[str]):
    assert list(named_in(source)) == words
