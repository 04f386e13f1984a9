"""The final value in an answer: a number, an option, or the words behind `Answer:`.

A number is exact (a Fraction): no floats, nothing is evaluated. What is hedged ("3 or 4") or is no
plain number (`2\\sqrt{3}`) is None rather than a guess.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from fractions import Fraction

from masrouter.answers.code import without_reasoning
from masrouter.answers.syntax import MAX_CHARS

MAX_DIGITS = 400
"""Longer numbers, and exponents beyond it, are none: they only cost time."""

_DIGITS = r"\d{1,3}(?:(?:,|\{,\}|\\,|[ ’\u00a0\u2009\u202f])\d{3})+(?!\d)|\d+(?:_\d+)*"
_PLAIN = rf"(?:(?:{_DIGITS})(?:\.\d+)?|\.\d+)"
_POWER = r"(?:[eE][-+]?\d+|\s*(?:[×*x]|\\times|\\cdot)\s*10\s*(?:\^|\*\*)\s*\{?[-+\u2212]?\d+\}?)"
_SCALES = {"k": 10**3, "thousand": 10**3, "million": 10**6, "billion": 10**9}
_SCALE = r"k\b|\s?(?:thousand|million|billion)\b"
_MONEY = r"(?:(?:US|USD|EUR|GBP)\s*)?\\?[$€£¥]\s*"
_NUMBER = re.compile(
    r"(?<![\w.\\])(?P<sign>(?:(?<![\w)\]}])[-+\u2212]\s?)?)"
    rf"(?:{_MONEY})?(?P<sign2>[-\u2212]?)"
    r"(?:\\[dt]?frac\s*(?:\{\s*(?P<top>[-\u2212]?\d+)\s*\}\s*\{\s*(?P<bottom>[-\u2212]?\d+)\s*\}"
    r"|(?P<top1>\d)\s*(?P<bottom1>\d))"
    rf"|(?P<whole>\d+)[ \u00a0](?P<over>\d+)/(?P<under>\d+)(?![\d/])"
    rf"|(?P<plain>{_PLAIN})(?P<power>{_POWER})?(?P<scale>{_SCALE})?(?:\s*/\s*(?P<by>{_PLAIN})(?![\w/]))?)",
    re.ASCII,
)
_ORDINAL = re.compile(r"(?:st|nd|rd|th)\b")
_SURD = re.compile(
    r"\\sqrt|√|\\pi\b|π|\d\s*!|\\log|\\ln|\d\s*\^|\d\*\*[\d(]|\d\s\*\*\s|\d(?:[²³]|[xyzni]\b)"
)
_UNIT_POWER = re.compile(r"(?<=[A-Za-z}])\s*\^\s*\{?-?\d\}?")
_JOINS = re.compile(
    r"[\s$\\(){}\]\[*]*"  # two numbers side by side, or the second with its sign
    r"|[\s$\\(){}\]\[*]*[^\W\d]{0,12}\.?[\s$*]*"
    r"(?:,|;|:|/|±|\+|-|–|—|[*×·÷|]|\bx\b|\\times|\\cdot|\\div|\bto\b|\band\b|\bor\b)"
    r"(?:\s*(?:and|or)\b)?[\s$*({\[\\]*"
)
_HEDGE = re.compile(
    r"\bor\b(?![^()]*\))|\b(?:maybe|perhaps|possibly|otherwise|versus|vs)\b|≠", re.IGNORECASE
)
_NOT = re.compile(r"\bnot\W*\Z", re.IGNORECASE)
_ITEM = re.compile(r"^\s*\d+[.)]\s+(?=\S)", re.MULTILINE)

_ANSWER_LINE = re.compile(
    r"^[ \t>*_#|-]*(?:(?:so|thus|therefore|hence)\b,?[ \t]*)?(?:the[ \t]+|my[ \t]+)?"
    r"(?:(?:final|correct|right|best)[ \t]+)?answer(?:[ \t]+is)?[ \t*_]*"
    r"(?:[:：=]|[-–—](?=[ \t]))[ \t*_]*",
    re.IGNORECASE | re.MULTILINE,
)
_ANSWER_HERE = re.compile(r"\b(?:Final Answer|FINAL ANSWER|Answer|ANSWER)[*_]*[:：][ \t*_]*")
_TAG = re.compile(r"<answer>\s*", re.IGNORECASE)
_HASHES = re.compile(r"^[ \t]*#{4}[ \t]*(?=\S)", re.MULTILINE)
_SENTENCE = re.compile(
    r"\b(?:answer|(?:correct|right|best)[ \t]+(?:option|choice))"
    r"(?:[ \t]+(?:to|for)[ \t][^.\n]{1,80}?)?[ \t]+(?:is|was|would be|must be|=)"
    r"[ \t]*:?[ \t]*",
    re.IGNORECASE,
)
_MOST_MARKS = 100
_TAIL = 20_000
"""Where an answer without marks is searched for its last number."""
_LONGEST = 2000
"""Characters of an answer's mark that are read."""
_BOXED = re.compile(r"\\(?:boxed|fbox)\s*\{")
_LISTED = re.compile(r"[\s$,;*\\()\[\]]*(?:\b(?:or|and)\b)?[\s$*\\()\[\]]*")
_WRAPPED = (
    re.compile(r"\*\*(.+)\*\*", re.DOTALL), re.compile(r"__(.+)__", re.DOTALL),
    re.compile(r"\*([^*]+)\*"), re.compile(r"`([^`]+)`"), re.compile(r"\$\$?([^$]+)\$\$?"),
    re.compile(r"\\\((.+)\\\)", re.DOTALL), re.compile(r"\\\[(.+)\\\]", re.DOTALL),
    re.compile(r"\\(?:text|textbf|mathrm|mathbf)\s*\{([^{}]*)\}"),
    re.compile(r'"([^"]+)"'), re.compile(r"“([^”]+)”"),
    re.compile(r"<answer>(.+)</answer>", re.DOTALL),
)  # fmt: skip
_UNDENIED = r"(?!\W{0,3}(?:is|was)(?:n't\b|\s+(?:not|wrong|incorrect|false)\b))"
"""Behind a letter: no word that rules it out."""
_BOLD = re.compile(r"\*\*([^*\n]+)\*\*")


def final_answer(text: str) -> str | None:
    """What an answer says that its answer is; None where it marks none.

    The last of: a line `Answer: ...`, `\\boxed{...}`, `#### ...`; else the sentence "the answer is
    ...". Without the marks of Markdown and LaTeX around it and the full stop behind it.
    """
    text = without_reasoning(text)[-MAX_CHARS:]
    marks: list[tuple[int, str]] = []
    for pattern, read in (
        (_ANSWER_LINE, _rest_of_line), (_ANSWER_HERE, _rest_of_line), (_HASHES, _value_of_line),
        (_TAG, _tagged),
    ):  # fmt: skip
        marks += _last(text, pattern, read)
    marks += _last_boxed(text)
    marks = marks or _last(text, _SENTENCE, _rest_of_sentence)
    if not marks:
        return None
    said = max(marks, key=lambda mark: mark[0])[1]
    boxed = _BOXED.search(said)
    inside = _braced(said, boxed.end()) if boxed else None
    return _bare(said if inside is None else inside) or None


def _last(
    text: str, pattern: re.Pattern[str], read: Callable[[str, int], str | None]
) -> list[tuple[int, str]]:
    """The last match behind which `read` finds a value: its end and the value."""
    for match in reversed(list(pattern.finditer(text))[-_MOST_MARKS:]):
        said = read(text[match.end() : match.end() + _LONGEST], 0)
        if said is not None:
            return [(match.end(), said)]
    return []


def _last_boxed(text: str) -> list[tuple[int, str]]:
    """The last `\\boxed{...}`, with those that it stands in a list with: `3, 4`."""
    said: list[str] = []
    begin = end = len(text)
    for match in reversed(list(_BOXED.finditer(text))[-_MOST_MARKS:]):
        value = _braced(text, match.end())
        after = match.end() + len(value or "") + 1
        if value is None or (said and after > begin):
            continue
        if said and not (begin - after < 30 and _LISTED.fullmatch(text[after:begin])):
            break
        end = end if said else match.end()
        begin = match.start()
        said.insert(0, value)
    return [(end, ", ".join(dict.fromkeys(said)))] if said else []


def _tagged(text: str, at: int) -> str | None:
    said, tag, _ = text[at:].partition("</answer>")
    return said.strip() or None if tag else _rest_of_line(text, at)


def _rest_of_line(text: str, at: int) -> str | None:
    """The rest of the line, or the next line with words where it is empty; no fence."""
    lines = [line.strip() for line in text[at:].split("\n")]
    opens = ("", "**", "__", "$$", "\\[")
    said = next((line for line in lines if line not in opens), "")
    return None if not said or said.startswith(("```", "~~~")) else said


def _value_of_line(text: str, at: int) -> str | None:
    """The rest of the line where it is a number or a letter, not a heading."""
    said = text[at:].split("\n", 1)[0].strip()
    return said if re.fullmatch(r"\(?[A-Z]\)?", said) or _NUMBER.match(said) else None


def _rest_of_sentence(text: str, at: int) -> str | None:
    said = re.split(r"\.(?=\s|$)|\n", text[at:], maxsplit=1)[0].strip()
    return said if said and len(said) <= 120 else None


def _braced(text: str, at: int) -> str | None:
    """The text from `at` to the brace that closes the one before it."""
    depth = 1
    for i in range(at, min(len(text), at + 2000)):
        depth += (text[i] == "{") - (text[i] == "}")
        if depth == 0:
            return text[at:i]
    return None


def _bare(text: str) -> str:
    """Text without the pairs of marks around it, and without a full stop at its end."""
    while True:
        before = text
        text = text.strip().removesuffix(".").strip()
        if text.count("**") % 2:
            text = text.removesuffix("**").removeprefix("**").strip()
        for wrapped in _WRAPPED:
            match = wrapped.fullmatch(text)
            if match and match[1].strip():
                text = match[1].strip()
        if text == before:
            return text


def extract_number(text: str) -> Fraction | None:
    """The final number of an answer, exact; None where it gives none or hedges between some.

    Behind the answer's mark (`final_answer`), else in the last line with a number: bold, behind the
    last `=`, or the last one. Thousands separators, currencies, units and percent signs are passed
    over: `15 %` is 15, but `2 million` is 2000000. Mixed numbers, fractions and scientific notation
    are read.
    """
    said = final_answer(text)
    if said is not None:
        return number_in(said)
    text = _ITEM.sub("", without_reasoning(text)[-_TAIL:])
    for line in reversed(text.split("\n")):
        if not numbers_in(line):
            continue
        for bold in reversed(_BOLD.findall(line)):
            if (value := number_in(bold)) is not None:
                return value
        if "=" in line and numbers_in(line.rsplit("=", 1)[1]):
            return number_in(line.rsplit("=", 1)[1])
        found = numbers_in(line)
        if len(found) > 1:
            between = line[found[-2][0].end() : found[-1][0].start()]
            if re.fullmatch(r"\W*(?:\bor\b)\W*", between):
                return None
        return found[-1][1]
    return None


def number_in(said: str) -> Fraction | None:
    """The one number that a short text says: `$1,200 a month`, `x = 3/4`, `about 2.5e3 kg`."""
    said = re.split(r"(?<=\w[.!])\s+(?=[A-Z])(?!Or\b)", said, maxsplit=1)[0]
    said = re.sub(r"\b(?:negative|minus)\s+(?=[$€£\d.\\])", "-", said, flags=re.IGNORECASE)
    all_said = [match for match, _ in numbers_in(said)]
    if all_said and (
        _NOT.search(said[: all_said[0].start()])
        or any(
            hedge.start() < all_said[-1].start()
            for hedge in _HEDGE.finditer(said, all_said[0].end())
        )
    ):
        return None
    parts = [part for part in re.split(r"=|≈|\\approx", said) if numbers_in(part)]
    text = _bare(parts[-1]) if parts else ""
    # A minus that stands off its number is one only at the very beginning.
    text = re.sub(r"\A[-\u2212–]\s*(?=[$€£\d.\\])", "-", text)
    text = _UNIT_POWER.sub("", re.sub(r"(?<=\d)\s*\\?%", "", text))
    found = numbers_in(text)
    if len(found) > 1:
        text = re.sub(r"\([^()]*\)", " ", text)
        found = numbers_in(text) or found
    if not found or _SURD.search(_NUMBER.sub(_without_power, text)):
        return None
    if len(found) > 1 and _JOINS.fullmatch(text[found[0][0].end() : found[1][0].start()]):
        return None
    return found[0][1]


def _without_power(match: re.Match[str]) -> str:
    return "0" if match["plain"] else "0 "


def numbers_in(text: str) -> list[tuple[re.Match[str], Fraction | None]]:
    """Everything that reads as a number, with its value; None where it has none (5/0)."""
    return [
        (match, _value(match))
        for match in _NUMBER.finditer(text)
        if not _ORDINAL.match(text, match.end())
    ]


def _value(match: re.Match[str]) -> Fraction | None:
    """None where the number is no number (a division by zero) or is absurdly long."""
    if len(match[0]) > MAX_DIGITS:
        return None
    if match["whole"]:
        if int(match["under"]) == 0:
            return None
        value = int(match["whole"]) + Fraction(int(match["over"]), int(match["under"]))
    elif match["plain"]:
        value = _decimal(match["plain"])
        if match["power"]:
            exponent = _integer(re.findall(r"[-\u2212]?\d+", match["power"])[-1])
            if abs(exponent) > MAX_DIGITS:
                return None
            value *= Fraction(10) ** exponent
        if match["scale"]:
            value *= _SCALES[match["scale"].strip()]
        if match["by"]:
            by = _decimal(match["by"])
            if by == 0:
                return None
            value /= by
    else:
        top = _integer(match["top"] or match["top1"])
        bottom = _integer(match["bottom"] or match["bottom1"])
        if bottom == 0:
            return None
        value = Fraction(top, bottom)
    signs = match["sign"].strip() + match["sign2"]
    return -value if signs.count("-") + signs.count("\u2212") == 1 else value


def _integer(text: str) -> int:
    return int(text.replace("\u2212", "-"))


def _decimal(text: str) -> Fraction:
    return Fraction(re.sub(r"[^\d.]", "", text))


def extract_choice(text: str, letters: str = "ABCD") -> str | None:
    """The option that an answer settles on, one of `letters`; None where it is not clear.

    A letter counts where it stands as an option: behind the answer's mark, in brackets, bold,
    before `)`, alone on a line, or in "option B is right". The article "A" is none.
    """
    said = final_answer(text)
    one = f"[{re.escape(letters)}{re.escape(letters.lower())}]"
    upper = f"[{re.escape(letters)}]"
    if said is not None:
        return _option_in(said, one, upper)
    text = without_reasoning(text)[-MAX_CHARS:]
    settled = re.findall(
        rf"(?:\b[Oo]ption|\b[Cc]hoice|^|[\s(*])[ \t]?[(\[*]{{0,4}}({upper})[)\]*]{{0,4}} is "
        r"(?:therefore |thus |clearly )?(?:the )?(?:only )?(?:correct|right|best|true)\b",
        text,
        re.MULTILINE,
    )
    settled += re.findall(
        rf"\b(?:(?:I|i) (?:choose|pick|select)|go with|[Ii]t is|[Ii]t's) (?:option )?"
        rf"[(*]{{0,3}}({upper})[)*]{{0,3}}[.]?\s*\Z",
        text,
    )
    alone = re.findall(
        rf"^[ \t>*_-]*(?:[Oo]ption\s+)?[(\[]?({upper})[)\]]?[.*_ \t]*$", text, re.MULTILINE
    )
    bold = re.findall(rf"\*\*\(?({upper})\)?(?:[).:][^*\n]*)?\*\*{_UNDENIED}", text)
    for found in (settled, alone, bold):
        if found:
            return str(found[0]) if len(set(found)) == 1 else None
    options = re.findall(
        rf"(?<!\w)\(?({upper})\){_UNDENIED}|\b[Oo]ption\s+({upper})\b{_UNDENIED}", text
    )
    mentioned = {a or b for a, b in options}
    if "\n" not in text.strip() and re.match(rf"{upper}[.:]", text.strip()):
        mentioned |= set(re.findall(rf"(?:\A|[.:]\s+)({upper})(?=[.:](?!\w))", text.strip()))
    return mentioned.pop() if len(mentioned) == 1 else None


def _option_in(said: str, one: str, upper: str) -> str | None:
    """The option in what stands behind an answer's mark."""
    said = re.sub(r"\((?:and )?not\b[^()]*\)", "", said).strip()
    others = re.search(
        rf"(?:\b(?i:or|and|also|maybe|perhaps|possibly)\b|[,;/|&+])\s*[(*]*(?:option\s+)?{upper}"
        rf"[)*]*(?![\w'])(?!\s+[a-z])|\)[,;\s]*\({upper}\)|\s[-–—]\s+\(?{upper}\)?\W*\Z",
        said,
    )
    match = re.match(
        rf"[\s(\[*_\"'${{]*(?:[Oo]ption|[Cc]hoice)?[\s(\[*_\"'$:]*(?:\\text\s*\{{\s*\(?)?({one})"
        r"(?:\s*\Z|[\s*_\"'$}]*[).:,\]*}]|\s+[-–—(]|\s+(?:because|since|as|is\s+(?:correct|right))\b)",
        said,
    ) or re.fullmatch(rf"[^()]*\(({upper})\)\W*", said)
    if match and not others and not re.match(r"(?i:not|neither|either)\b", said):
        return match[1].upper()
    return None
