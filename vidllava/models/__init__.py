"""Model families: how one line of checkpoints reads pixels and words, one file each.

    family_of(config, "checkpoint")          # by config.json in transformers' layout
    families()["next-video"].preset          # frames, pooling, template, context
    named_models()["next-video-7b"].config   # sizes as published, without a checkpoint at hand

A module of this folder that defines ``FAMILY`` is a family, and so is a plug-in (``vidllava.registry``).
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from typing import Any

from vidllava import registry
from vidllava.errors import ModelError, UsageError
from vidllava.models.family import Family, NamedModel, Preset


def families() -> dict[str, Family]:
    """Every family by the name of its preset: those of this folder, then plug-ins.

    Raises UsageError for two families or two models of one name, and for a ``FAMILY`` that is not a Family.
    """
    return _by_name(registry.members("vidllava.models", "FAMILY"))


@lru_cache(maxsize=8)
def _by_name(modules: tuple[Any, ...]) -> dict[str, Family]:
    found: dict[str, Family] = {}
    names: set[str] = set()
    for module in (module for module in modules if hasattr(module, "FAMILY")):
        family = module.FAMILY
        if not isinstance(family, Family):
            what = f"FAMILY is of type {type(family).__name__}"
            raise UsageError(module.__file__, what, "a vidllava.models.family.Family")
        if family.name in found:
            raise UsageError(f"family {family.name}", "is defined twice", "rename or remove the plug-in")
        for model in family.models:
            if model.name in names:
                raise UsageError(f"model {model.name}", "is defined twice", "rename or remove the plug-in")
            names.add(model.name)
        found[family.name] = family
    return found


def presets() -> dict[str, Preset]:
    """The preset of each family by its name."""
    return {name: family.preset for name, family in families().items()}


def named_models() -> dict[str, NamedModel]:
    """The published checkpoints that ``--model`` knows by a short name, family by family."""
    return {model.name: model for family in families().values() for model in family.models}


def family_named(name: str) -> Family:
    """Raises UsageError naming the families there are."""
    found = families()
    if name not in found:
        raise UsageError(f"family {name}", "is unknown", f"one of {', '.join(found)}")
    return found[name]


def family_of(config: Mapping[str, Any], source: object) -> Family:
    """The family whose checkpoints have this config.json (transformers' layout).

    Those with a rule of their own are asked first: several families may share a class.

    Raises ModelError, naming ``source``, where no family recognises it.
    """
    found = families()
    by_rule = (family for family in found.values() if family.recognises and family.recognises(config))
    by_type = (
        family
        for family in found.values()
        if family.recognises is None and family.model_type == config.get("model_type")
    )
    for family in (*by_rule, *by_type):
        return family
    kinds = sorted({family.model_type for family in found.values()})
    raise ModelError(
        source,
        f"model_type {config.get('model_type')!r} is of no family that is known here",
        f"one of {', '.join(kinds)} with a CLIP or SigLIP tower; families: {', '.join(found)}",
    )
