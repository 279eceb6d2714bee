"""What transformers' processors need in a saved folder besides weights: placeholders and a chat template.

    complete_tokenizer(folder, config, template)      # <image>, <video> where the configuration says they are

lmms-lab's tokenizers have no placeholders, and LLaVA-NeXT's has none for a video.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer

from vidllava.errors import ModelError
from vidllava.files.writing import write_json
from vidllava.models.original import processor
from vidllava.prompting.chat_template import to_jinja
from vidllava.prompting.template import Template

_KINDS = ("image", "video")
_ROWS_MULTIPLE = 64


def complete_tokenizer(folder: Path, config: Any, template: Template) -> None:
    """Add the placeholders that ``config`` (transformers' object) has ids for to the tokenizer in ``folder``,
    and a chat template with a place for them where there is none. What is there already stays as it is."""
    path = folder / "tokenizer.json"
    if not path.is_file():
        return
    content = json.loads(path.read_text(encoding="utf-8"))
    added = {token["content"]: token for token in content.get("added_tokens") or ()}
    wanted = {f"<{kind}>": token_id(config, kind) for kind in _KINDS}
    missing = {name: id_ for name, id_ in wanted.items() if id_ is not None and name not in added}
    taken = {token["id"] for token in added.values()} | _ids(content)
    if missing and not taken & set(missing.values()):
        flags = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False, "special": True}
        tokens = [*added.values(), *({"id": id_, "content": name, **flags} for name, id_ in missing.items())]
        content["added_tokens"] = sorted(tokens, key=lambda token: token["id"])
        path.write_text(json.dumps(content, ensure_ascii=False, indent=2), encoding="utf-8")
        _check_ids(path, missing)
        _name_placeholders(folder, missing)
    written = next(
        (file for file in (folder / "chat_template.jinja", folder / "chat_template.json") if file.is_file()),
        None,
    )
    if written is None or (
        missing and not all(name in written.read_text(encoding="utf-8") for name in missing)
    ):
        for name in ("chat_template.json", "chat_template.jinja"):
            (folder / name).unlink(missing_ok=True)
        eos = _spelling(folder)
        (folder / "chat_template.jinja").write_text(
            to_jinja(template, eos, _places(config)), encoding="utf-8"
        )


def complete_processor(folder: Path, config: Mapping[str, Any]) -> None:
    """Write what transformers' processors read, where ``folder`` has none; ``config``: its config.json."""
    if not any((folder / name).is_file() for name in ("preprocessor_config.json", "processor_config.json")):
        write_json(folder / "preprocessor_config.json", processor(config))
    if not (folder / "processor_config.json").is_file():
        described = {
            "patch_size": config["vision_config"]["patch_size"],
            "num_additional_image_tokens": int(config["vision_config"]["model_type"] == "clip_vision_model"),
            "vision_feature_select_strategy": config["vision_feature_select_strategy"],
            "image_token": "<image>",
            "video_token": "<video>",
        }
        write_json(folder / "processor_config.json", described)


def rows_wanted(config: Any, rows: int) -> int | None:
    """Rows that embeddings of ``rows`` need for the placeholders of ``config``; None where they have them.

    A multiple of 64, as transformers' converters pad them.
    """
    ids = (token_id(config, kind) for kind in _KINDS)
    most = max((id_ for id_ in ids if id_ is not None), default=-1) + 1
    return None if most <= rows else -(-most // _ROWS_MULTIPLE) * _ROWS_MULTIPLE


def _check_ids(path: Path, wanted: dict[str, int]) -> None:
    """The library numbers added tokens itself, one after the other: a hole before them would move them."""
    tokenizer = Tokenizer.from_file(str(path))
    for name, id_ in wanted.items():
        if tokenizer.token_to_id(name) != id_:
            what = f"its ids have a hole: {name} would be {tokenizer.token_to_id(name)}, not {id_}"
            raise ModelError(path, what, "use the checkpoint's own tokenizer")


def _places(config: Any) -> dict[str, str]:
    """How a picture's and a video's place is spelt: a class without videos reads them as pictures."""
    return {kind: f"<{kind}>" if token_id(config, kind) is not None else "<image>" for kind in _KINDS}


def token_id(config: Any, kind: str) -> int | None:
    """The id of a placeholder in a configuration, an object or its JSON; None where its class has none."""
    for key in (f"{kind}_token_id", f"{kind}_token_index"):
        value = config.get(key) if isinstance(config, dict) else getattr(config, key, None)
        if isinstance(value, int):
            return value
    return None


def _ids(content: dict[str, Any]) -> set[int]:
    entries = content["model"].get("vocab") or {}
    return set(entries.values()) if isinstance(entries, dict) else set(range(len(entries)))


def _name_placeholders(folder: Path, missing: dict[str, int]) -> None:
    """Say in processor_config.json how the placeholders are spelt, where there is such a file."""
    path = folder / "processor_config.json"
    if path.is_file():
        content = json.loads(path.read_text(encoding="utf-8"))
        content |= {f"{name.strip('<>')}_token": name for name in missing}
        path.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")


def _spelling(folder: Path) -> str:
    """How the tokenizer spells the token that ends an answer."""
    path = folder / "tokenizer_config.json"
    token = json.loads(path.read_text(encoding="utf-8")).get("eos_token") if path.is_file() else None
    return str(token.get("content", "") if isinstance(token, dict) else token or "</s>")
