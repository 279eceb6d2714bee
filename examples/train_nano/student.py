"""nano's forward pass over packed lessons, with the extra labels that make it watch.

The weights are the transformers model's own; only the order of the work differs: text rows attend under
the mask, prefix rows causally, and the last layer computes text rows alone, since nothing reads the others.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn
from transformers import LlavaOnevisionForConditionalGeneration as OneVision
from transformers.models.qwen2.modeling_qwen2 import Qwen2DecoderLayer, apply_rotary_pos_emb

from examples.train_nano.dense import (
    DEEDS,
    NOTHING_COLOUR,
    NOTHING_DEED,
    NOTHING_FORM,
    DenseLabels,
    dense_labels,
)
from examples.train_nano.model import SIDE
from examples.train_nano.packing import Packed, thing_of
from examples.train_nano.tower import see
from examples.train_nano.unseen import without, without_unseen_colours, without_unseen_forms
from vidllava.nano.lessons import Exhibit, Lesson
from vidllava.nano.scene import COLOURS, FORMS
from vidllava.prompting.layout import VisualLayout

WATCHING_LAYER = 3  # after so many layers a visual row should know what its thing has done so far
NAMING_LAYER = 4  # after so many, the end of a name should know what there is to know about the thing
JUDGING_LAYER = 5  # after so many, the answer's start should know it too, and whether a claim is true
_POOLED = -(-SIDE // 2)
_EMPTY_WEIGHT = 0.3


class WatchHeads(nn.Module):
    """What rows of the language model should know.

    Visual rows half-way up: form, colour, deed so far, change. Later the ends of names and the starts of
    answers: form, colour and deed of the thing; the ends of claims: whether they are true.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.named_form = nn.Linear(width, len(FORMS) + 1)
        self.named_colour = nn.Linear(width, len(COLOURS) + 1)
        self.named_deed = nn.Linear(width, len(DEEDS) + 1)
        self.asked_form = nn.Linear(width, len(FORMS) + 1)
        self.asked_colour = nn.Linear(width, len(COLOURS) + 1)
        self.asked_deed = nn.Linear(width, len(DEEDS) + 1)
        self.claim = nn.Linear(width, 2)
        self.form = nn.Linear(width, len(FORMS) + 1)
        self.colour = nn.Linear(width, len(COLOURS) + 1)
        self.deed = nn.Linear(width, len(DEEDS) + 1)
        self.change = nn.Linear(width, 4)


@dataclass(frozen=True, eq=False)
class Read:
    """Outcome of a forward pass: the loss of every target, whether it was right, and rows on their way.

    The watching rows [B, cells, D], those that end a name [M, D], start an answer [K, D] and end a claim
    [C, D], these twice: ``said`` after the naming layer, ``claimed`` after the judging layer.
    """

    losses: torch.Tensor
    right: torch.Tensor
    watched: torch.Tensor
    named: torch.Tensor
    asked: torch.Tensor
    said: torch.Tensor
    claimed: torch.Tensor


def read(model: OneVision, batch: Packed, pixels: torch.Tensor, *, tower_learns: bool) -> Read:
    """Run packed lessons; ``pixels`` uint8 [B * grids, S, S, 3] in the order of lessons and exhibits."""
    with torch.set_grad_enabled(tower_learns and torch.is_grad_enabled()):
        features = see(model, pixels)
    language = model.model.language_model
    size = len(batch.ids)
    grids = features.view(size, -1, SIDE, SIDE, features.shape[-1])
    rows, watching = _rows(model, batch, grids)
    cos, sin = language.rotary_emb(rows, batch.positions)
    watched = named = asked = said = claimed = rows
    for number, layer in enumerate(language.layers, start=1):
        rows = _layer(layer, rows, cos, sin, batch, last=number == len(language.layers))
        if number == WATCHING_LAYER:
            watched = rows[:, watching]
        if number == NAMING_LAYER:
            text_rows = rows[:, batch.prefix :].flatten(0, 1)
            named, said = text_rows[batch.mentions[:, 0]], text_rows[batch.claims[:, 0]]
        if number == JUDGING_LAYER:
            text_rows = rows[:, batch.prefix :].flatten(0, 1)
            asked, claimed = text_rows[batch.asked[:, 0]], text_rows[batch.claims[:, 0]]
    text = language.norm(rows).flatten(0, 1)[batch.targets[:, 0]]
    logits = F.linear(text, language.embed_tokens.weight)
    wanted = batch.targets[:, 1]
    losses = F.cross_entropy(without(logits, batch.targets[:, 3]), wanted, reduction="none")
    return Read(losses, logits.argmax(1) == wanted, watched, named, asked, said, claimed)


def _rows(model: OneVision, batch: Packed, grids: torch.Tensor) -> tuple[torch.Tensor, list[int]]:
    """Language rows [B, L, D], and which of the prefix rows show one cell each."""
    text = model.model.language_model.embed_tokens(batch.ids)
    newline = model.model.image_newline
    pieces: list[torch.Tensor] = []
    watching: list[int] = []
    end, grid = 0, 0
    for start, layout in batch.visuals:
        mine = grids[:, grid : grid + 1 if layout.kind == "picture" else grid + layout.num_grids]
        grid += mine.shape[1]
        cells = mine.shape[1] * (_POOLED**2 if layout.kind == "video" else SIDE**2)
        watching += range(start, start + cells)
        pieces += [text[:, end:start], _visual_rows(layout, mine, newline)]
        end = start + layout.num_tokens
    return torch.cat([*pieces, text[:, end:]], 1), watching


def _visual_rows(layout: VisualLayout, grids: torch.Tensor, newline: torch.Tensor) -> torch.Tensor:
    """[B, grids, side, side, D] -> [B, rows, D], as the splice kernel has it for nano's three layouts."""
    size, _, side, _, width = grids.shape
    if layout.kind == "video":
        maps = grids.flatten(0, 1).permute(0, 3, 1, 2)
        pooled = F.interpolate(maps, size=(_POOLED, _POOLED), mode="bilinear").permute(0, 2, 3, 1)
        return torch.cat([pooled.reshape(size, -1, width), newline.expand(size, 1, width)], 1)
    base = grids[:, 0]
    if layout.kind == "pictures":
        return torch.cat([base.flatten(1, 2), newline.expand(size, 1, width)], 1)
    # Alone: the base view, then the same picture as a 1 x 1 grid with a newline after each row.
    lines = torch.cat([base, newline.expand(size, side, 1, width)], 2)
    return torch.cat([base.flatten(1, 2), lines.flatten(1, 2)], 1)


def _layer(
    layer: Qwen2DecoderLayer,
    rows: torch.Tensor,
    cos: torch.Tensor,
    sin: torch.Tensor,
    batch: Packed,
    *,
    last: bool,
) -> torch.Tensor:
    """One Qwen2 layer: all rows, or in the last layer the text rows only."""
    attention, prefix = layer.self_attn, batch.prefix
    normal = layer.input_layernorm(rows)
    query, key, value = (
        project(normal).unflatten(-1, (-1, attention.head_dim)).transpose(1, 2)
        for project in (attention.q_proj, attention.k_proj, attention.v_proj)
    )
    query, key = apply_rotary_pos_emb(query, key, cos, sin)
    mixed = F.scaled_dot_product_attention(query[:, :, prefix:], key, value, attn_mask=batch.mask)
    if last:
        rows = rows[:, prefix:]
    else:
        first, second, third = (tensor[:, :, :prefix] for tensor in (query, key, value))
        before = F.scaled_dot_product_attention(first, second, third, is_causal=True)
        mixed = torch.cat([before, mixed], 2)
    rows = rows + attention.o_proj(mixed.transpose(1, 2).flatten(2))
    return rows + layer.mlp(layer.post_attention_layernorm(rows))


def watching_loss(
    heads: WatchHeads, watched: torch.Tensor, lessons: Sequence[Lesson]
) -> tuple[torch.Tensor, tuple[float, float, float]]:
    """Loss of the extra labels, and the accuracy of (form, colour, deed) over cells that show something."""
    labels = [_labels(exhibit) for lesson in lessons for exhibit in lesson.exhibits]
    rows = F.rms_norm(watched, watched.shape[-1:]).flatten(0, 1)

    def column(name: str) -> torch.Tensor:
        arrays = [getattr(one, name) for one in labels]
        return torch.from_numpy(np.concatenate([array.reshape(-1, *array.shape[3:]) for array in arrays]))

    total, accuracies = rows.new_zeros(()), []
    shows = torch.ones(len(rows))
    form, colour = column("form"), column("colour")
    for wanted, logits, nothing in (
        (form, without_unseen_forms(heads.form(rows), colour), NOTHING_FORM),
        (colour, without_unseen_colours(heads.colour(rows), form), NOTHING_COLOUR),
        (column("deed"), heads.deed(rows), NOTHING_DEED),
    ):
        shows = (wanted != nothing).float()
        weight = shows + _EMPTY_WEIGHT * (1 - shows)
        losses = F.cross_entropy(logits, wanted, reduction="none")
        total = total + (losses * weight).sum() / weight.sum()
        accuracies.append(float(((logits.argmax(1) == wanted) * shows).sum() / shows.sum()))
    error = (heads.change(rows) - column("change")).square().mean(1)
    return total + (error * shows).sum() / shows.sum(), (accuracies[0], accuracies[1], accuracies[2])


def naming_loss(
    heads: WatchHeads, result: Read, batch: Packed, lessons: Sequence[Lesson]
) -> tuple[torch.Tensor, float, float]:
    """Loss of what names, answers and claims should know; shares of names that know all and of claims judged
    rightly."""
    named, known = _thing_loss(
        (heads.named_form, heads.named_colour, heads.named_deed), result.named, batch.mentions, lessons
    )
    asked, _ = _thing_loss(
        (heads.asked_form, heads.asked_colour, heads.asked_deed), result.asked, batch.asked, lessons
    )
    judging, judged = _claim_loss(heads, result, batch, lessons)
    return named + asked + judging, known, judged


def _claim_loss(
    heads: WatchHeads, result: Read, batch: Packed, lessons: Sequence[Lesson]
) -> tuple[torch.Tensor, float]:
    """Loss at the end of claims: the deed that is claimed, the thing's own deed, whether they agree."""
    if not len(batch.claims):
        return result.claimed.new_zeros(()), 1.0
    late = F.rms_norm(result.claimed, result.claimed.shape[-1:])
    logits, truth = heads.claim(late), batch.claims[:, 1]
    loss = F.cross_entropy(logits, truth)
    deeds = batch.claims[:, 2] >= 0
    if deeds.any():
        early = F.rms_norm(result.said[deeds], late.shape[-1:])
        own = [_thing_labels(lessons[row], thing)[2] for *_, row, thing in batch.claims[deeds].tolist()]
        loss = loss + F.cross_entropy(heads.named_deed(early), batch.claims[deeds, 2])
        loss = loss + F.cross_entropy(heads.asked_deed(late[deeds]), torch.tensor(own))
    return loss, (logits.argmax(1) == truth).float().mean().item()


def _thing_loss(
    heads: tuple[nn.Linear, nn.Linear, nn.Linear],
    rows: torch.Tensor,
    places: torch.Tensor,
    lessons: Sequence[Lesson],
) -> tuple[torch.Tensor, float]:
    """Loss of (form, colour, deed) at ``rows``, and how often all three are right."""
    if not len(places):
        return rows.new_zeros(()), 1.0
    wanted = torch.tensor([_thing_labels(lessons[row], thing) for _, row, thing in places.tolist()])
    normal = F.rms_norm(rows, rows.shape[-1:])
    form, colour, deed = (head(normal) for head in heads)
    choices = (
        without_unseen_forms(form, wanted[:, 1]),
        without_unseen_colours(colour, wanted[:, 0]),
        deed,
    )
    total, right = rows.new_zeros(()), torch.ones(len(rows), dtype=torch.bool)
    for number, logits in enumerate(choices):
        total = total + F.cross_entropy(logits, wanted[:, number])
        right &= logits.argmax(1) == wanted[:, number]
    return total, right.float().mean().item()


def _thing_labels(lesson: Lesson, number: int) -> tuple[int, int, int]:
    thing = thing_of(lesson, number)
    if thing is None:
        return NOTHING_FORM, NOTHING_COLOUR, NOTHING_DEED
    deed = thing.deed.direction if thing.deed.verb == "moves" else thing.deed.verb
    return FORMS.index(thing.form), tuple(COLOURS).index(thing.colour), DEEDS.index(str(deed))


def _labels(exhibit: Exhibit) -> DenseLabels:
    if exhibit.medium == "video":
        return dense_labels(exhibit.scene, exhibit.times, (np.arange(_POOLED) + 0.5) / _POOLED)
    # A picture may show a scene after its change: compare it with the scene's start, and drop that one.
    both = dense_labels(exhibit.scene, np.array([0.0, *exhibit.times]), (np.arange(SIDE) + 0.5) / SIDE)
    return DenseLabels(*(getattr(both, one.name)[1:] for one in fields(both)))
