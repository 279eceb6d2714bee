"""What an answer says, and how alike two texts are: reasoning removed, normalised equality, ROUGE-L.

spoken("<think>red?</think> blue")          # "blue"
same("A red circle.", "red circle")         # True
rouge_l("the cat sat", "the cat ran")       # 0.667
"""

from __future__ import annotations

import re
from itertools import pairwise

# (what opens a reasoning block, what closes it), by the form of the marks.
_NAMES = r"(?:seed:|ant)?(?:think(?:ing)?|thoughts?|reason(?:ing)?|reflection|analysis|scratchpad|rationale)"
REASONING: dict[str, tuple[re.Pattern[str], re.Pattern[str]]] = {
    name: (re.compile(opening, re.IGNORECASE), re.compile(closing, re.IGNORECASE))
    for name, opening, closing in (
        ("tags", rf"<\s*{_NAMES}\b[^<>]*>", rf"<\s*/\s*{_NAMES}\s*>"),
        ("brackets", rf"\[{_NAMES}\]", rf"\[/{_NAMES}\]"),
        (
            "special tokens",
            r"<\|(?:begin_of_thought|start_thinking|begin_of_reasoning|thought_start|think(?:ing)?)\|>",
            r"<\|(?:end_of_thought|end_thinking|end_of_reasoning|thought_end|/think(?:ing)?)\|>",
        ),
        ("triangles", r"\u25c1think\u25b7", r"\u25c1/think\u25b7"),
        ("unused tokens", r"<unused94>", r"<unused95>"),
        (
            "channels",
            r"<\|channel\|>\s*(?:analysis|commentary)",
            r"<\|channel\|>\s*final(?:\s*<\|message\|>)?",
        ),
        ("bare channels", r"\Aanalysis(?=[A-Z])", r"assistantfinal"),
    )
}
_TURN_END = re.compile(r"<\|(?:im_end|eot_id|end|endoftext|end_of_turn|return)\|>|</s>|<eos>|<end_of_turn>")
_SPECIAL = re.compile(r"<\|[^<>|]{1,40}\|>|<s>|<bos>|<start_of_turn>|\[/?INST\]")
_ROLE = re.compile(r"\A\s*(?:assistant|model)\s*(?:\n|:)", re.IGNORECASE)
_TAGGED = re.compile(r"<(answer|final_answer|conclusion|output)>(.*?)(?:</\1>|\Z)", re.DOTALL | re.IGNORECASE)
_EDGES = " \t\r\n.,;:!?\"'`*_()[]{}"
_ARTICLE = re.compile(r"^(?:a|an|the)\s+")


def spoken(answer: str) -> str:
    """The answer without reasoning and without the marks of a chat template.

    Only what follows the last closing mark counts; a block that is not closed leaves no answer. What follows
    the end of the turn is another turn.
    """
    text = answer
    for opening, closing in REASONING.values():
        for end in list(closing.finditer(text))[-1:]:
            text = text[end.end() :]
        if opening.search(text):
            return ""
    text = next((part for part in _TURN_END.split(text) if _SPECIAL.sub("", part).strip()), "")
    return _ROLE.sub("", _SPECIAL.sub(" ", text)).strip()


def said(answer: str) -> str:
    """A free answer: ``spoken``, and of an <answer> block what it holds."""
    text = spoken(answer)
    held = {content.strip() for _, content in _TAGGED.findall(text)}
    return held.pop() if len(held) == 1 else text


def normalised(text: str) -> str:
    """Lower case, single spaces, without marks at either end and without a leading article."""
    return _ARTICLE.sub("", " ".join(text.lower().split()).strip(_EDGES))


def same(one: str, other: str) -> bool:
    """Equal once both are normalised."""
    return normalised(one) == normalised(other)


def rouge_l(prediction: str, reference: str) -> float:
    """F1 of the longest common subsequence of words, 0 to 1 (Lin 2004, beta 1).

    Words are runs of letters and digits in lower case, as in the ``rouge_score`` package without stemming.
    """
    ours, theirs = _words(prediction), _words(reference)
    common = _common(ours, theirs)
    if not common:
        return 0.0
    precision, recall = common / len(ours), common / len(theirs)
    return 2 * precision * recall / (precision + recall)


def _words(text: str) -> list[str]:
    return re.findall(r"[a-z0-9]+", text.lower())


def _common(one: list[str], other: list[str]) -> int:
    """Length of the longest common subsequence."""
    row = [0] * (len(other) + 1)
    for word in one:
        above = row
        row = [0]
        for (diagonal, up), candidate in zip(pairwise(above), other, strict=True):
            row.append(diagonal + 1 if word == candidate else max(up, row[-1]))
    return row[-1]
