"""A checkpoint's own chat template (Jinja) read as one of ours, by what it makes of probes.

    template = follow(text, CHATML, controls={"<|im_start|>", "<|im_end|>"})

The text is rendered with marks in place of questions, answers, a system line and media; what stands between
the marks is the template's. So a question can never end its own turn, whatever it spells: only what the
template itself wrote is searched for control tokens.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Collection, Mapping, Sequence
from functools import lru_cache
from typing import Any

from vidllava.prompting.template import EOS, TEMPLATES, Control, Template
from vidllava.prompting.turns import Role

Pieces = tuple[Control | str, ...]

_SYSTEM, _ASKED, _SAID, _AGAIN = (f"\ue000{name}\ue001" for name in ("system", "asked", "said", "again"))
_PLACES = {"image": "<image>", "video": "<video>"}
# transformers' own tags around what a model says: nothing is written for them.
_GENERATION = re.compile(r"\{%-?\s*(end)?generation\s*-?%\}")


class NotFollowed(ValueError):
    """The template says something that a conversation of ours cannot."""


class NoPlace(NotFollowed):
    """The template leaves media out: a question would be answered without them."""


def follow(text: str, base: Template, *, controls: Collection[str], bos: str = "", eos: str = "") -> Template:
    """The template ``text`` as ours. ``controls``: how the tokenizer spells its control tokens.

    ``base``, the family's own, says what a checkpoint's leaves open or gets wrong: where a system line
    stands, and with which token an answer ends. Raises NoPlace where neither a picture nor a video has a
    place in it, NotFollowed where it is not a plain sequence of turns with media before the question.
    """
    rendered, cut = _Rendered(text, bos, eos), _Cutter(controls)
    before_user, generation = _around(rendered.opening(), _ASKED)
    answered = rendered([_user(), _assistant()], False)
    end = _around(answered, _SAID)[1]
    longer = rendered([_user(), _assistant(), _user(_AGAIN)], True)
    user = _between(longer, _SAID, _AGAIN)
    if not user.startswith(end) or not before_user.endswith(user := user[len(end) :]):
        raise NotFollowed("a first question opens otherwise than a later one")
    opening = before_user[: len(before_user) - len(user)]
    # What waits for an answer must be a prefix of its continuation: how an answer is opened when it is
    # generated wins over how one is opened that is there, and the two may differ in blanks alone.
    opened = _between(answered, _ASKED, _SAID)
    lead = opened[len(generation) :] if opened.startswith(generation) else ""
    if opened.split() != generation.split():
        raise NotFollowed("an answer that is there is opened otherwise than one that is waited for")
    user, words_lead, media = rendered.media(before_user, user)
    begin, system, system_around = _system(rendered, opening, user + words_lead)
    ended = _around(rendered([_user()], False), _ASKED)[1]
    ended = ended if generation.startswith(ended) else generation
    ending = cut(end)
    if not ending or not isinstance(ending[0], Control):
        # Nothing marks the end of an answer: it is what the model itself says there.
        ending = (EOS, *(ending if end.strip() else ()))
    before: dict[Role, Pieces] = {"user": cut(user), "assistant": cut(generation[len(ended) :])}
    after: dict[Role, Pieces] = {"user": cut(ended), "assistant": ending}
    takes_system = system_around is not None or base.takes_system
    before_system, after_system = map(cut, system_around or ("", ""))
    if system_around is None:
        before_system, after_system = base.before["system"], base.after["system"]
    return Template(
        name=f"{base.name}, its own",
        system=system,
        begin=cut(begin),
        before={"system": before_system, **before},
        after={"system": after_system, **after},
        answer_lead=lead,
        words_lead=words_lead,
        around_media=media,
        takes_system=takes_system,
        upstream_trained=base.upstream_trained,
    )


def _user(words: str = _ASKED, kind: str | None = None, count: int = 1) -> dict[str, Any]:
    media = [] if kind is None else [{"type": kind}] * count
    return {"role": "user", "content": [*media, {"type": "text", "text": words}]}


def _assistant() -> dict[str, Any]:
    return {"role": "assistant", "content": [{"type": "text", "text": _SAID}]}


def _around(text: str, mark: str) -> tuple[str, str]:
    if text.count(mark) != 1:
        raise NotFollowed("a text is left out, or written more than once")
    before, _, after = text.partition(mark)
    return before, after


def _between(text: str, first: str, second: str) -> str:
    return _around(_around(text, first)[1], second)[0]


class _Rendered:
    """The template, called with conversations; contents are parts, or texts where it knows no parts."""

    def __init__(self, text: str, bos: str, eos: str) -> None:
        from jinja2 import TemplateError
        from jinja2.sandbox import ImmutableSandboxedEnvironment

        environment = ImmutableSandboxedEnvironment(
            trim_blocks=True, lstrip_blocks=True, extensions=["jinja2.ext.loopcontrols"]
        )
        environment.globals["raise_exception"] = _refuse
        environment.globals["strftime_now"] = lambda form: ""
        self._tokens = {"bos_token": bos, "eos_token": eos}
        self._as_text = False
        try:
            self._template = environment.from_string(_GENERATION.sub("", text))
        except TemplateError as fault:
            raise NotFollowed(f"is no Jinja template: {fault}") from None

    def __call__(self, messages: Sequence[Mapping[str, Any]], waits: bool) -> str:
        if self._as_text:
            messages = [{**one, "content": _as_text(one["content"])} for one in messages]
        try:
            return self._template.render(messages=messages, add_generation_prompt=waits, **self._tokens)
        except NotFollowed:
            raise
        except Exception as fault:  # whatever a template does with messages it did not expect
            raise NotFollowed(f"cannot be rendered: {fault}") from None

    def opening(self) -> str:
        """A first question without media, that waits for its answer."""
        for self._as_text in (False, True):
            try:
                asked = self([_user()], True)
            except NotFollowed:
                if self._as_text:
                    raise
                continue
            if asked.count(_ASKED) == 1:
                return asked
        raise NotFollowed("a question is left out, or written more than once")

    def media(self, lead: str, user: str) -> tuple[str, str, tuple[str, str] | None]:
        """(what opens a question, what stands before its words and after its media, what is around these).

        ``lead`` stands before the words of a first question without media, ``user`` is the question's part.
        """
        if self._as_text:
            return user, "", None  # it sees texts alone: media stand in them as ours do
        for kind, place in (("video", "<video>"), ("image", "<image>")):
            before = _around(self([_user(kind=kind)], True), _ASKED)[0]
            if before.count(place) != 1:
                continue
            first, _, after = before.partition(place)
            # Without media: "user " + "\n"; with them "user " + "<video>\n" + "\n".
            common = _num_common(first, lead)
            words, own = lead[common:], first[common:]
            if not after.endswith(words) or len(words) > len(user):
                raise NotFollowed("media change what stands before a question")
            single = own, after[: len(after) - len(words)]
            if words + single[1] != single[1] + words:
                raise NotFollowed("media and words are not parted alike")
            several = _around(self([_user(kind=kind, count=2)], True), _ASKED)[0]
            shown = several[common : len(several) - len(words)]
            user = user[: len(user) - len(words)]
            if shown == f"{place} {place}\n":
                return user, words, None  # as ours: spaces between them, a line end after the last
            if shown != f"{own}{place}{single[1]}" * 2:
                raise NotFollowed("several media are not parted as one is")
            return user, words, single
        raise NoPlace("writes neither <image> nor <video> for media")


def _num_common(one: str, other: str) -> int:
    """Characters at the start that are alike."""
    pairs = enumerate(zip(one, other, strict=False))
    return next((at for at, (mine, theirs) in pairs if mine != theirs), min(len(one), len(other)))


def _as_text(parts: Sequence[Mapping[str, str]]) -> str:
    return "".join(part.get("text", "") for part in parts)


def _refuse(message: str) -> None:
    raise NotFollowed(str(message))


def _system(rendered: _Rendered, opening: str, user: str) -> tuple[str, str | None, tuple[str, str] | None]:
    """(what stands first, the default system line, what stands around a given one); the last is None where
    the template takes none."""
    line = {"role": "system", "content": [{"type": "text", "text": _SYSTEM}]}
    try:
        before, after = _around(rendered([line, _user()], True), _SYSTEM)
        after = _around(after, _ASKED)[0]
    except NotFollowed:
        return opening, None, None
    if not after.endswith(user):
        raise NotFollowed("a question after a system line opens otherwise")
    after = after[: len(after) - len(user)]
    if opening and opening.startswith(before) and opening.endswith(after):
        default = opening[len(before) : len(opening) - len(after)]
        return "", default or None, (before, after)
    if not before.startswith(opening):
        raise NotFollowed("a system line changes what stands before it")
    return opening, None, (before[len(opening) :], after)


_CONTROL = re.compile(r"<\|[^|<>]+\|>")


class _Cutter:
    """Cuts what a template wrote into control tokens and texts."""

    def __init__(self, controls: Collection[str]) -> None:
        names = sorted(controls, key=lambda name: (-len(name), name))
        self._marks = re.compile("(" + "|".join(map(re.escape, names)) + ")") if names else None
        self._names = frozenset(names)

    def __call__(self, text: str) -> tuple[Control | str, ...]:
        pieces = [text] if self._marks is None else self._marks.split(text)
        for piece in pieces:
            if piece not in self._names and (unknown := _CONTROL.search(piece)):
                raise NotFollowed(f"writes {unknown.group()}, which its tokenizer does not have")
        return tuple(Control(piece) if piece in self._names else piece for piece in pieces if piece)


@lru_cache(maxsize=16)
def _followed(text: str, base: str, controls: frozenset[str], bos: str, eos: str) -> Template | NotFollowed:
    try:
        return follow(text, TEMPLATES[base], controls=controls, bos=bos, eos=eos)
    except NotFollowed as fault:
        return fault


def followed(
    text: str, base: Template, *, controls: Collection[str], bos: str, eos: str
) -> Template | NotFollowed:
    """As ``follow``, remembered; a reason instead of an error. A text that spells ``base`` is not run."""
    if KNOWN.get(hashlib.blake2b(text.strip().encode(), digest_size=8).hexdigest()) == base.name:
        return base
    return _followed(text, base.name, frozenset(controls), bos, eos)


# Texts that say what a template of ours does, by their hash: the commonest start without a Jinja engine.
KNOWN = {"2b0d0d27d9ee0144": "chatml"}


def to_jinja(template: Template, eos: str, places: Mapping[str, str] = _PLACES) -> str:
    """A Jinja chat template that writes what ``template`` does: for folders that transformers reads.

    Contents are texts, or lists of parts: media first, then texts. ``eos``: how the tokenizer spells ``EOS``;
    ``places``: how the placeholders of a picture and of a video are spelt.
    """

    def shown(pieces: Sequence[Control | str]) -> str:
        named = (piece.name if isinstance(piece, Control) else piece for piece in pieces)
        text = "".join(eos if name == EOS.name else name for name in named)
        return "{{ " + _quoted(text) + " }}" if text else ""

    shown_places = "{'image': " + _quoted(places["image"]) + ", 'video': " + _quoted(places["video"]) + "}"
    place = "{{ " + shown_places + "[c['type']] }}"
    if template.around_media is None:
        place += "{{ '\\n' if loop.last else ' ' }}"
    else:
        before, after = (shown((text,)) for text in template.around_media)
        place = before + place + after
    media = "{% for c in m['content'] if c['type'] in ('image', 'video') %}" + place + "{% endfor %}"
    texts = "{% for c in m['content'] if c['type'] == 'text' %}{{ c['text'] }}{% endfor %}"
    default = ""
    if template.system is not None:
        spoken = (*template.before["system"], template.system, *template.after["system"])
        default = "{% if messages[0]['role'] != 'system' %}" + shown(spoken) + "{% endif %}"
    roles = []
    leads: dict[Role, str] = {"system": "", "user": "", "assistant": template.answer_lead}
    for role, lead in leads.items():
        between = shown((template.words_lead,)) if role == "user" else ""
        whole = "{% if m['content'] is string %}" + between + "{{ m['content'] }}{% else %}"
        whole += media + between + texts + "{% endif %}"
        body = shown(template.before[role]) + shown((lead,)) + whole + shown(template.after[role])
        if role == "system" and not template.takes_system:
            body = "{{ raise_exception('this model has no system line') }}"
        roles.append("if m['role'] == '" + role + "' %}" + body)
    turns = "{% for m in messages %}{% " + "{% el".join(roles) + "{% endif %}{% endfor %}"
    header = "{% if add_generation_prompt %}" + shown(template.before["assistant"]) + "{% endif %}"
    return shown(template.begin) + default + turns + header


def _quoted(text: str) -> str:
    escaped = text.replace("\\", "\\\\").replace("'", "\\'").replace("\n", "\\n")
    return f"'{escaped}'"
