"""The words and marks by which an answer names, declares and denies an option.

cleaned("**Answer**：Ｂ", 4)        # "Answer:B"

Three tables, which ``letters`` reads in order and a test switches off one by one: ``CLEANERS`` take the
writer's marks away, ``DECLARATIONS`` are the words after which an option is declared, ``DENIALS`` those that
deny one. Text is matched as it stands, in several languages; what no pattern knows is no evidence.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable

from vidllava.evaluation.item import LETTERS

LATIN = "A-Za-z\u00c0-\u024f"
OPEN, CLOSE = r"[(\[{<\"'\u201c\u2018]", r"[)\]}>\"'\u201d\u2019]"

# ---- cleaning: the same words without the writer's marks ----


def _narrow(text: str, count: int) -> str:
    """Full-width letters and marks as ASCII ones; CJK marks as their Latin neighbours."""
    return unicodedata.normalize("NFKC", text).translate(_MARKS)


_MARKS = str.maketrans("\u3002\u3001\u3010\u3011\u300c\u300d\u300e\u300f\u2019\u2018", ".,()''''''")


def _without_latex(text: str, count: int) -> str:
    """``\\text{B}`` and its like as B; no dollars and no ``\\(``."""
    previous = None
    while previous != text:
        previous = text
        text = re.sub(r"\\(?:text|math|textrm|operatorname)\w*\s*\{([^{}]*)\}", r"\1", text)
    return re.sub(r"\\[()\[\]]|\$(?!\d)", " ", text)


def _without_markdown(text: str, count: int) -> str:
    """No bold, code, heading and quote marks; what is struck out is gone."""
    text = re.sub(r"~~.+?~~", " ", text, flags=re.DOTALL)
    text = re.sub(r"```\w*|`|\*+", "", text)
    text = re.sub(r"(?<!\w)_+(?=\w)|(?<=\w)_+(?!\w)", "", text)
    return re.sub(r"^[ \t]*(?:#+[ \t]+|>[ \t]*|[-\u2022][ \t]+)", "", text, flags=re.MULTILINE)


def _without_idioms(text: str, count: int) -> str:
    """ "No doubt it is B" denies nothing."""
    return re.sub(
        r"\b(?:there\s+is\s+)?(?:no|without\s+(?:a|any))\s+doubt\b(?:\s+that)?", " ", text, flags=re.I
    )


_CYRILLIC, _GREEK = "АБВГДЕЖЗИЙКЛМНОПРСТУФХ", "ΑΒΓΔΕΖΗΘΙΚΛΜΝΞΟΠΡΣΤΥΦΧ"
_LOOKS = dict(zip("АВЕКМНОРСТХΑΒΕΖΗΙΚΜΝΟΡΤΥΧ", "ABEKMHOPCTXABEZHIKMNOPTYX", strict=True))
_LOOK_ALIKE = re.compile(
    rf"(?:(?<=\A)|(?<=[:(\[\n—–])|(?<=[:—–-]\s)|(?<=ответ\s))([{''.join(_LOOKS)}])(?=\s*(?:[)\].,:;!\n]|\Z))",
    re.IGNORECASE,
)


def _latin_letters(text: str, count: int) -> str:
    """A lone Cyrillic or Greek letter as the Latin one that it looks like.

    Only where its place in its own alphabet does not name another option: "В" looks like B and is third.
    """

    def latin(match: re.Match[str]) -> str:
        letter = match[1].upper()
        place = (_CYRILLIC if letter in _CYRILLIC else _GREEK).index(letter)
        looks = _LOOKS[letter]
        return looks if place >= count or LETTERS[place] == looks else match[1]

    return _LOOK_ALIKE.sub(latin, text)


CLEANERS: dict[str, Callable[[str, int], str]] = {
    "widths": _narrow,
    "latex": _without_latex,
    "markdown": _without_markdown,
    "idioms": _without_idioms,
    "look-alikes": _latin_letters,
}


def cleaned(text: str, count: int) -> str:
    """``count``: the number of options."""
    for clean in CLEANERS.values():
        text = clean(text, count)
    return text.strip()


# ---- the grammar ----

LINK = (
    r"(?:is|was|are|(?:would|should|must|will|could|can|may|might|has\s+to|have\s+to)\s+(?:\w+ly\s+)?be"
    r"|(?:seems?|appears?|looks?)(?:\s+(?:to\s+be|like))?|remains)"
    r"(?:\s+(?:\w+ly|most\s+likely|therefore|thus|indeed|in\s+fact|that|just))*\b[\s:]*"
)
NOUN = (
    r"\b(?:answers?|ans|response|solution|choice|option|selection|conclusion|verdict|prediction|pick|guess|letter|selected|"
    r"correct\s+(?:one|letter))\b[\"']?"
)
FILLER = r"(?:(?:the|la|le|die|der|das|el|(?-i:[ao]))[ \t]+)?(?:(?:correct|right|best|final)\s+)?"
KIND = (
    r"(?:option|choice|answer|letter|opción|opção|opzione|lettre|letra|lettera|buchstabe|réponse|antwort)"
    r"\s*[:#]?\s*"
)
NAME_START = re.compile(rf"\s*(?:{FILLER}{KIND})?(?={OPEN}|\w|-|\S)", re.IGNORECASE)
LABEL = re.compile(
    rf"(?P<open>(?:{OPEN}\s*)*)(?:(?:option|choice)\s+)?(?P<letter>[A-Za-z])(?![{LATIN}0-9_])"
    rf"(?P<close>(?:\s*{CLOSE})*)"
)
# What may follow a label without marks: the end of its clause, a reason, another option, another script.
CLAUSE_END = re.compile(r"\s*(?:\Z|[.,;:!?)\n\]}]|[-–—](?:\s|\Z)|[/&+])")
REASON = re.compile(
    r"\s+(?:because|since|as|due|given|for|from|based|and|or|but|not|the|this|it|explanation|reason(?:ing)?|"
    r"rationale|justification|in\s+(?:my|the))\b|\s+\(",
    re.IGNORECASE,
)
CONFIRMED = re.compile(
    rf"\s+(?:{LINK})(?:the\s+|my\s+)?(?:most\s+|only\s+|\w+ly\s+)?"
    r"(?:correct|right|best|answer|choice|true|accurate|likely|appropriate)\b",
    re.IGNORECASE,
)
# A second option right after the first: "B or C" is not a choice.
ALSO = re.compile(
    r"[\s)\]\"']*(?P<word>,?\s*\b(?:and/or|or|and|oder|ou|und|et|o|y|vs\.?)\b|[/,;&+])\s*"
    r"(?:(?:also|either|maybe|perhaps|possibly|even)\s+)?",
    re.IGNORECASE,
)

# An option's letter after its text: "blue, which is option B", "blue (B)".
LABEL_AFTER = re.compile(
    r"[ \t,]*(?:(?:which|that)\s+is\s+)?(?:(?:option|choice|letter|answer)\s+[(\[]?|[(\[]|(?<=[,\s]))"
    r"(?P<letter>(?-i:[A-Z]))[)\]]?(?=\s*(?:[.,;!)\n]|\Z))",
    re.IGNORECASE,
)

# Words after which an option is declared. "label": only a letter is read there, and not an option's text.
DECLARATIONS: dict[str, tuple[re.Pattern[str], bool]] = {
    "noun and mark": (re.compile(rf"{NOUN}\s*(?:[:=]|->|=>|→|[-–—](?=\s))[\s:]*", re.I), False),
    # Between noun and verb no other option: "Option A is red" declares no red.
    "noun and verb": (
        re.compile(rf"{NOUN}(?:,?\s+(?:(?!(?-i:[A-Z])\b|because\b|since\b)[\w'-]+\s+){{0,6}}?){LINK}", re.I),
        False,
    ),
    "noun alone": (
        re.compile(
            r"(?:\A|(?<=[\n.;:!,])|\b(?:so|thus|hence|therefore|with|choose|pick|select)\b)\s*(?:the\s+)?"
            r"(?:(?:final|correct|best|right|my)\s+)*(?:answer|ans|option|choice)\s+",
            re.I,
        ),
        True,
    ),
    "pronoun": (re.compile(rf"\b(?:it|that|this)(?:'s\s+|\s+{LINK})", re.I), True),
    "choosing": (
        re.compile(
            r"\b(?:i|we|let's|let\s+me)(?:\s+(?:would|will|can|must|have\s+to|am\s+going\s+to|\w+ly)|'d|'ll|'m)*\s+"
            r"(?:choose|chose|select(?:ed)?|pick(?:ed)?|say|go(?:ing)?\s+(?:with|for)|went\s+with|answer|opt\s+for|"
            r"vote\s+for|guess|think|believe|conclude)\s+(?:that\s+|on\s+)?",
            re.I,
        ),
        False,
    ),
    "contrast": (
        re.compile(
            r"(?:\b(?:not|nicht|no|pas|não|non)\b|n't\b)\s[^.;!?\n]{0,40}?,?\s*\b(?:but|sondern|sino|mais|mas|ma)\s+"
            r"(?:rather\s+)?",
            re.I,
        ),
        True,
    ),
    "correction": (
        re.compile(r"\b(?:wait|actually|sorry|correction|i\s+mean|no(?=[,!]))\b[\s,:;.!—–-]*", re.I),
        True,
    ),
    "conclusion": (
        re.compile(
            r"\b(?:therefore|thus|hence|so|consequently|finally|overall|in\s+(?:conclusion|summary|short))\b[,:]?\s+",
            re.I,
        ),
        True,
    ),
    "european": (
        re.compile(
            r"\b(?:antwort|réponse|reponse|respuesta|resposta|risposta|antwoord|svar|svaret|odpowiedź|odpověď|jawaban|"
            r"cevap|lösung|choix|opción|opção|opzione|c'est|es\s+ist|es|è|é)\b"
            r"(?:\s*[:=]\s*|\s+(?:[\w'-]+\s+){0,3}?(?:est|ist|lautet|es|è|é|is|är|er|jest|je|adalah)\s+(?:donc\s+|also\s+)?|\s+)",
            re.I,
        ),
        True,
    ),
    "other scripts": (
        re.compile(
            r"(?:答案|答え|正解|回答|选项|選項|选择|選擇|选|選|정답|답|ответ|الإجابة|الجواب|إجابة|คำตอบ|תשובה|उत्तर)"
            r"(?:應該|应该)?[\s:]*(?:是|为|為|は|은|는|هي|هو|[-–—])?[\s:]*(?:选项|選項|选|選)?",
            re.I,
        ),
        False,
    ),
}
CONTAINERS = re.compile(
    r"<(?P<tag>answer|final_answer|conclusion|output)>(?P<tagged>.*?)(?:</(?P=tag)>|\Z)"
    r"|\\(?:boxed|fbox)\s*\{(?P<boxed>(?:[^{}]|\{[^{}]*\})*)\}|\\boxed\s+(?P<bare>\w)",
    re.DOTALL | re.IGNORECASE,
)
JSON_KEY = re.compile(
    r"(?:final|correct|best|selected|chosen|predicted|my)?(?:answer|ans|choice|option|prediction|letter|label)"
    r"(?:letter|choice|option|key|id)?"
)
CORRECTION = re.compile(
    r"\b(?:no|wait|actually|correction|sorry|rather|instead|scratch\s+that|second\s+thought|i\s+mean|reconsider\w*)\b",
    re.I,
)

# Denials: in the clause before an option, in the clause after it, right after it, and of "it" after it.
# What follows a list of options and is said of all: "A, C and D are wrong".
PLURAL = re.compile(r"\s*(?:are|were|can|could|do|did|must|should|seem|look|aren't|weren't|don't)\b", re.I)
BREAK = re.compile(
    r"[,;!?\n]|\.(?!\d)|:\s|[—–]|\s-\s|而是|(?<!anything\s)(?<!everything\s)(?<!all\s)\bbut\b|\b(?:so|because|since|therefore|hence|thus|while|whereas|although|"
    r"though|then|yet|aber|sondern|mais|pero|sino|mas|ma)\b",
    re.I,
)
ASIDE = r"(?:(?:is|was|are|seems?|looks?|must\s+be|would\s+be|can\s+be)\s+)(?:\w+ly\s+|also\s+|just\s+)?"
BAD = r"(?:wrong|incorrect|false|impossible|inaccurate|unlikely|ruled\s+out|excluded|eliminated|out)\b"
DENIALS: dict[str, tuple[str, re.Pattern[str]]] = {
    "not": ("before", re.compile(r"\b(?:not|cannot|never|no|none|nothing|nobody|neither|nor)\b|n't\b", re.I)),
    "excluding": (
        "before",
        re.compile(
            r"\b(?:without|except|unlike|doubt|instead\s+of|rather\s+than|other\s+than|(?:anything|everything|all)\s+but|"
            r"(?:rul|eliminat|exclud|reject|dismiss|discard)\w*(?:\s+out)?)\b",
            re.I,
        ),
    ),
    "wrong answer": ("before", re.compile(r"\b(?:wrong|incorrect|false|unlikely)\b", re.I)),
    "foreign not": (
        "before",
        re.compile(r"\b(?:nicht|kein\w*|pas|non|não|nao|nie|не|ни)\b|不|非|没|沒|排除|ليس", re.I),
    ),
    "is not": (
        "after",
        re.compile(
            r"\b(?:is|are|was|were|does|do|did|can|could|has|have|will|would|should|must|may|might)\s+"
            r"(?:\w+ly\s+)?(?:not|never)\b|\w+n't\b|\bcannot\b",
            re.I,
        ),
    ),
    "is wrong": ("after", re.compile(rf"\b{ASIDE}(?:the\s+)?{BAD}|\bcan\s+be\s+{BAD}", re.I)),
    "foreign is not": (
        "after",
        re.compile(r"不|错|錯|误|誤|ではない|じゃない|違|아니|틀|неверн|неправильн", re.I),
    ),
    "verdict": (
        "next",
        re.compile(r"[\s):.,–—-]*\b(?:no|nope|wrong|incorrect|false|not)\b(?=\s*(?:[.,;!?\n]|\Z))", re.I),
    ),
    "but it": (
        "next",
        re.compile(
            rf"[\s),.;–—-]*(?:(?:but|however|though|although|and|which)[\s,]+)*(?:(?:it|this|that)\s*)?(?:'s\s+|{ASIDE})"
            rf"(?:the\s+)?(?:{BAD}|not\s+(?:correct|right|it|the\s+answer|true|possible))",
            re.I,
        ),
    ),
}


def text_pattern(form: str) -> re.Pattern[str] | None:
    """An option's text as a whole: no part of a word, of another number, or of a range of numbers."""
    if not form:
        return None
    words = r"\s+".join(re.escape(word) for word in form.split())
    after = r"(?![\w-])(?!['’]\w)" if form[-1].isalnum() else ""
    if form[-1].isdigit():
        after = r"(?!\w)(?![.,:/]\d)(?!\s*%)(?!\s*[-–—]\s*\d)(?!\s+\d)"
    return re.compile(rf"(?:(?:a|an|the)\s+)?{words}{after}", re.IGNORECASE)
