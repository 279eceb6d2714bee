"""Questions with exact answers about one scene, by kind.

A single-fact answer is one to a few words ("red", "2", "moves left", "the blue star"); a free answer is one
sentence per fact in the scene's canonical order. A kind returns None where the scene has no such question, or
where the answer would not be certain. Answers are balanced as far as a scene allows, so that none can be
guessed from the question alone.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib.resources import files
from types import MappingProxyType
from typing import Literal, TypeVar

import numpy as np

from vidllava.nano.scene import (
    COLOURS,
    DIGITS,
    DIRECTIONS,
    FORMS,
    HELD_OUT,
    LETTERS,
    SHAPES,
    Scene,
    Thing,
    noun,
)

_TABLE = json.loads(files(__package__).joinpath("questions.json").read_text(encoding="utf-8"))
WORDINGS = MappingProxyType({kind: tuple(entry["wordings"]) for kind, entry in _TABLE.items()})
"""Question templates by kind. Slots: {it} a thing's name with "the", {a_name} with "a" or "an", {forms} a
plural, {colour} a colour, {phrase} what it does ("moves left"), {do} the same after "does" ("move left"),
{side} and {other} places, {clip} the medium ("clip", "video", "picture", "image")."""
# How often training asks each kind of single fact: binding and motion, which are hardest, most.
WEIGHTS = MappingProxyType(
    {
        medium: {
            kind: entry[f"{medium}_weight"] for kind, entry in _TABLE.items() if f"{medium}_weight" in entry
        }
        for medium in ("clip", "picture")
    }
)
# How a clip or a picture is called in a question.
MEDIA_WORDS = MappingProxyType({"video": ("clip", "video"), "picture": ("picture", "image")})
ORDINALS = ("first", "second", "third")
LOCATORS = ("in the {ordinal} {word}", "in {word} {number}")

Item = TypeVar("Item")
Made = tuple[str, dict[str, str]] | None  # (answer, slots)
Kind = Callable[[Scene, np.random.Generator], Made]

BARE_OF = {
    "moves": "move",
    "turns": "turn",
    "grows": "grow",
    "shrinks": "shrink",
    "appears": "appear",
    "vanishes": "vanish",
    "becomes": "become",
    "meets": "meet",
    "stays": "stay",
}
BARE_VERBS = tuple(BARE_OF.values())


def with_article(name: str) -> str:
    """``a red circle``, ``an orange star``."""
    return f"an {name}" if name.startswith("orange") else f"a {name}"


def pick(rng: np.random.Generator, options: Sequence[Item]) -> Item:
    """One of ``options``, each as likely."""
    return options[int(rng.integers(len(options)))]


def _any(rng: np.random.Generator, options: Sequence[Item]) -> Item | None:
    return pick(rng, options) if options else None


def _colours(thing: Thing) -> set[str]:
    return {thing.colour, thing.deed.colour or thing.colour}


def _called(thing: Thing, scene: Scene, rng: np.random.Generator) -> str:
    """``the circle`` where that is enough (half of the time), else ``the red circle``."""
    unique = sum(other.form == thing.form for other in scene.things) == 1
    return f"the {noun(thing.form)}" if unique and rng.random() < 0.5 else f"the {thing.name}"


def _of_unique_form(scene: Scene) -> list[Thing]:
    forms = [thing.form for thing in scene.things]
    return [thing for thing in scene.things if forms.count(thing.form) == 1]


def _colour(scene: Scene, rng: np.random.Generator) -> Made:
    thing = _any(rng, [t for t in _of_unique_form(scene) if t.deed.verb != "becomes"])
    return None if thing is None else (thing.colour, {"it": f"the {noun(thing.form)}"})


def _shape(scene: Scene, rng: np.random.Generator) -> Made:
    alone = [
        t
        for t in scene.things
        if t.deed.verb != "becomes" and all(t is o or t.colour not in _colours(o) for o in scene.things)
    ]
    thing = _any(rng, alone)
    return None if thing is None else (noun(thing.form), {"colour": thing.colour})


def _count_form(scene: Scene, rng: np.random.Generator) -> Made:
    # A form that is there half of the time or more, else "0" would be the best guess.
    form = pick(rng, scene.things).form if rng.random() < 0.7 else pick(rng, SHAPES)
    if form not in SHAPES:
        return None
    return str(sum(thing.form == form for thing in scene.things)), {
        "forms": f"{form}es" if form.endswith("s") else f"{form}s"
    }


def _count_colour(scene: Scene, rng: np.random.Generator) -> Made:
    colour = pick(rng, scene.things).colour if rng.random() < 0.7 else pick(rng, tuple(COLOURS))
    if any(thing.deed.verb == "becomes" and colour in _colours(thing) for thing in scene.things):
        return None
    return str(sum(thing.colour == colour for thing in scene.things)), {"colour": colour}


def _direction(scene: Scene, rng: np.random.Generator) -> Made:
    thing = _any(rng, [t for t in scene.things if t.deed.verb == "moves"])
    return None if thing is None else (str(thing.deed.direction), {"it": _called(thing, scene, rng)})


def _event(scene: Scene, rng: np.random.Generator) -> Made:
    thing = pick(rng, scene.things)
    return thing.deed.phrase(), {"it": _called(thing, scene, rng)}


def _who(scene: Scene, rng: np.random.Generator) -> Made:
    phrases = [t.deed.phrase() for t in scene.things]
    verbs = [t.deed.verb for t in scene.things]
    thing = _any(rng, [t for t in scene.things if phrases.count(t.deed.phrase()) == 1])
    if thing is None:
        return None
    bare = verbs.count(thing.deed.verb) == 1 and thing.deed.verb in ("moves", "becomes", "meets")
    # "what moves" where one thing moves; "what changes colour" is "becomes" without its colour.
    short = {"moves": "moves", "becomes": "changes colour", "meets": "meets something"}
    phrase = short[thing.deed.verb] if bare and rng.random() < 0.5 else thing.deed.phrase()
    return f"the {thing.name}", {"phrase": phrase}


def _changing(answer: Callable[[Thing], str]) -> Kind:
    """Of a thing that changes colour and whose form is unique."""

    def kind(scene: Scene, rng: np.random.Generator) -> Made:
        thing = _any(rng, [t for t in _of_unique_form(scene) if t.deed.verb == "becomes"])
        return None if thing is None else (answer(thing), {"it": f"the {noun(thing.form)}"})

    return kind


def _glyph(glyphs: tuple[str, ...]) -> Kind:
    """Which of these glyphs is there, where exactly one is."""

    def kind(scene: Scene, rng: np.random.Generator) -> Made:
        found = [thing.form for thing in scene.things if thing.form in glyphs]
        return (found[0], {}) if len(found) == 1 else None

    return kind


def _count_at(time: float | None) -> Kind:
    """How many things are there at this part of the clip; None: always, where none comes or goes."""

    def kind(scene: Scene, rng: np.random.Generator) -> Made:
        if time is not None:
            return str(sum(thing.there_at(time) for thing in scene.things)), {}
        constant = all(thing.deed.verb not in ("appears", "vanishes") for thing in scene.things)
        return (str(len(scene.things)), {}) if constant else None

    return kind


def _meets(scene: Scene, rng: np.random.Generator) -> Made:
    thing = _any(rng, [t for t in scene.things if t.deed.verb == "meets"])
    return None if thing is None else (f"the {thing.deed.partner}", {"it": _called(thing, scene, rng)})


def _is_there(scene: Scene, rng: np.random.Generator) -> Made:
    present = {(c, t.form) for t in scene.things for c in _colours(t)}
    thing = pick(rng, scene.things)
    if rng.random() < 0.5:
        return "yes", {"a_name": with_article(thing.name)}
    while True:
        # Mostly near misses: the colour of one thing on the form of another.
        colour = pick(rng, scene.things).colour if rng.random() < 0.5 else pick(rng, tuple(COLOURS))
        form = thing.form if rng.random() < 0.6 else pick(rng, FORMS if rng.random() < 0.2 else SHAPES)
        # A combination that training never shows must not be learnt as "no".
        if (colour, form) not in present and (colour, form) not in HELD_OUT:
            return "no", {"a_name": with_article(f"{colour} {noun(form)}")}


def _is_colour(scene: Scene, rng: np.random.Generator) -> Made:
    thing = _any(rng, [t for t in _of_unique_form(scene) if t.deed.verb != "becomes"])
    if thing is None:
        return None
    slots = {"it": f"the {noun(thing.form)}"}
    if rng.random() < 0.5:
        return "yes", {**slots, "colour": thing.colour}
    others = [o.colour for o in scene.things if o.colour != thing.colour]
    colour = pick(rng, others) if others and rng.random() < 0.5 else pick(rng, tuple(COLOURS))
    if colour == thing.colour or (colour, thing.form) in HELD_OUT:
        return None
    return "no", {**slots, "colour": colour}


def _does_it(scene: Scene, rng: np.random.Generator) -> Made:
    thing = pick(rng, scene.things)
    slots = {"it": _called(thing, scene, rng)}
    truth = thing.deed.phrase()
    if rng.random() < 0.5:
        return "yes", {**slots, "phrase": truth, "do": _bare(truth)}
    others = [o.deed.phrase() for o in scene.things if o is not thing]
    simple = [
        *(f"moves {d}" for d in DIRECTIONS),
        "turns",
        "grows",
        "shrinks",
        "appears",
        "vanishes",
        "stays still",
    ]
    wrong = pick(rng, others) if others and rng.random() < 0.4 else pick(rng, simple)
    # A thing that moves up to another both moves and meets; ask neither.
    if wrong == truth or thing.deed.verb == "meets" or wrong.startswith("meets"):
        return None
    return "no", {**slots, "phrase": wrong, "do": _bare(wrong)}


def _bare(phrase: str) -> str:
    verb, _, rest = phrase.partition(" ")
    return f"{BARE_OF[verb]} {rest}".strip()


def _where(scene: Scene, rng: np.random.Generator) -> Made:
    thing = pick(rng, scene.things)
    level = rng.random() < 0.5
    place = thing.x if level else thing.y
    if abs(place - 0.5) < 0.1:
        return None
    sides = ("left", "right") if level else ("top", "bottom")
    side, other = sides if rng.random() < 0.5 else sides[::-1]
    return sides[int(place > 0.5)], {"it": _called(thing, scene, rng), "side": side, "other": other}


def _caption(scene: Scene, rng: np.random.Generator) -> Made:
    names = [with_article(thing.name) for thing in scene.things]
    listed = names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"
    return f"{listed[0].upper()}{listed[1:]}.", {}


KINDS: dict[str, Kind] = {
    "colour": _colour,
    "shape": _shape,
    "count": _count_at(None),
    "count_form": _count_form,
    "count_colour": _count_colour,
    "count_start": _count_at(0.0),
    "count_end": _count_at(1.0),
    "direction": _direction,
    "event": _event,
    "who": _who,
    "colour_start": _changing(lambda thing: thing.colour),
    "colour_end": _changing(lambda thing: str(thing.deed.colour)),
    "letter": _glyph(LETTERS),
    "number": _glyph(DIGITS),
    "meets": _meets,
    "is_there": _is_there,
    "is_colour": _is_colour,
    "does_it": _does_it,
    "where": _where,
    "happens": lambda scene, rng: (" ".join(scene.facts()), {}),
    "caption": _caption,
    "different": lambda scene, rng: (next(t.fact() for t in scene.things if t.deed.verb != "stays"), {}),
}

Medium = Literal["video", "picture", "changed"]  # changed: two pictures of one scene, before and after

KINDS_OF: dict[Medium, tuple[str, ...]] = {
    "picture": (*WEIGHTS["picture"], "caption"),
    "changed": ("different",),
    "video": (*WEIGHTS["clip"], "happens"),
}
# Free answers, scored as facts; every other kind is a single fact.
FREE_KINDS = ("happens", "caption", "different")
# The slots that may hold the claim of a yes-or-no question.
_CLAIMS = {"does_it": ("do", "phrase"), "is_colour": ("colour",)}


@dataclass(frozen=True)
class WorldQuestion:
    """A question and its true answer. ``text`` is lower case and without a question mark: see ``styled``.

    ``claim``: what a yes-or-no question says of its thing ("moves left", "red"), as it stands in the text.
    ``about``: which exhibit of its lesson it asks about.
    """

    kind: str
    text: str
    answer: str
    claim: str = ""
    about: int = 0


def question(
    kind: str, scene: Scene, medium: Medium, rng: np.random.Generator, locator: str = ""
) -> WorldQuestion | None:
    """One question of this kind about the scene, or None if the scene has none.

    ``locator`` (`` in the second clip``) ends the question and needs a wording that does not name the clip
    itself.
    """
    made = KINDS[kind](scene, rng) if kind in KINDS_OF[medium] else None
    if made is None:
        return None
    answer, slots = made
    clip = pick(rng, MEDIA_WORDS["video" if medium == "video" else "picture"])
    templates = [
        text for text in WORDINGS[kind] if not locator or ("{clip}" not in text and " here" not in text)
    ]
    template = pick(rng, templates)
    claim = next((slots[slot] for slot in _CLAIMS.get(kind, ()) if f"{{{slot}}}" in template), "")
    return WorldQuestion(kind, template.format(clip=clip, **slots) + locator, answer, claim)


def styled(text: str, rng: np.random.Generator) -> str:
    """The question as people type it: with or without a capital letter and a question mark."""
    if rng.random() < 0.5:
        text = text[0].upper() + text[1:]
    ending = "?" if rng.random() < 0.6 else ""
    if text.lower().startswith(
        ("describe", "tell", "name", "count", "read", "list", "say", "explain", "compare")
    ):
        ending = "." if rng.random() < 0.4 else ""
    return text + ending
