"""What a task's text shows of the information that it lacks. Nobody is called.

Places left to be filled, things referred to that are not there, options that nobody listed, a
story that begins in its middle. The signals are blunt: most gaps leave no trace in a text, and
which of them can be trusted is measured, not claimed (`calibration.asking`).
English only. What `tools.self_contained` finds is refused outright, and so has rules of its own,
fewer and surer ones: a guess of this module would refuse tasks that are sound.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from typing import Literal, get_args

from masrouter.answers.blocks import FENCED

SignalKind = Literal[
    "placeholder", "reference", "options", "pronoun", "middle", "quantity", "bare", "model"
]
"""placeholder: a place left to be filled. reference: a thing that is not there. options: a choice
without its options. pronoun: nobody it could stand for. middle: it begins as if something stood
before. quantity: asks for a number and gives none. bare: a program to be written, with no word on
what it does. model: a model named it."""

KINDS: tuple[SignalKind, ...] = get_args(SignalKind)

_MATERIAL = (
    r"(?:documents?|files?|texts?|articles?|reports?|e-?mails?|letters?|papers?|essays?|code|"
    r"scripts?|snippets?|logs?|screenshots?|images?|pictures?|photos?|diagrams?|figures?|charts?|"
    r"graphs?|tables?|spreadsheets?|datasets?|data|transcripts?|contracts?|pdfs?|csvs?|messages?|"
    r"paragraphs?|passages?|lists?|pages?|links?|repo(?:sitory)?|drafts?|notes|resume|cv|"
    r"conversation|attachments?|invoices?|slides?)"
)
_WORK = (
    r"(?:please\s+)?(?:summari[sz]e|translate|review|proofread|fix|debug|explain|analy[sz]e|edit|"
    r"rewrite|shorten|refactor|improve|correct|convert|extract|compare|finish|continue|complete|"
    r"reply to|answer|format|sort|clean up|update|merge)"
)
_ABOVE = re.compile(
    rf"\bthe above\b(?!-)|\b(?:mentioned|described|given|shown|listed|stated) above\b(?! the\b)"
    rf"|\b{_MATERIAL} above\b(?! (?:the|an?)\b)|\babove {_MATERIAL}\b|\bas above\b",
    re.IGNORECASE,
)
_BELOW = re.compile(
    rf"\bthe following\b|\b(?:given|shown|listed|described) below\b(?! (?:it|the|an?)\b)"
    rf"|\b{_MATERIAL} below\b(?! (?:it|the|an?)\b)",
    re.IGNORECASE,
)
_HERE = re.compile(
    rf"\b(?:the |see |in )?attached (?:\w+ )?{_MATERIAL}\b|\bsee (?:the )?attach(?:ed|ment)\b"
    rf"|\b(?:this|these) {_MATERIAL}\b|(?:^|[.!?]\s+){_WORK}\b[^.!?\n]*?\b(?:my|our) {_MATERIAL}\b",
    re.IGNORECASE,
)
_OPENING = re.compile(
    rf"^\s*{_WORK}\s+(?:(?:all |the (?:rest )?(?:of )?)?(?:it|this|that|these|those|them)\b(?! \w+"
    # `the paper on bees` is a paper that can be known: behind a bare one stands what is to be done.
    rf"(?:ing|ed)\b)|the (?:\w+ )?{_MATERIAL}\b(?=\W*$|[.,:;!?]|\s+(?:and|as|by|for|in|into|so|to|"
    rf"until|with|without)\b))",
    re.IGNORECASE,
)
_NAMED = re.compile(
    # Bounded, and from a word's start on: else a long run of letters takes time in its square.
    r"https?://|\b\w[\w-]{1,200}\.[A-Za-z]\w{0,4}\b(?!\.)|(?<![\w.-])(?:[\w.-]+/){2}",
    re.ASCII,
)
"""An address or a file's name: what is meant can be got."""
_CODE = re.compile(r"[={}<>;]|\w\(|\)\s*:")
_PLACEHOLDER = re.compile(
    r"\{\{\s*[A-Za-z][\w .-]{0,60}\}\}"
    r"|\[(?:insert|your|enter|paste|fill in|add)\b[^\]\n]{0,60}\]"
    r"|<(?:insert|your|enter|paste|fill in|add)\b[^>\n]{0,60}>"
    r"|\bTBD\b",
    re.IGNORECASE,
)
_ABOUT_PLACES = re.compile(
    r"\b(?:templat\w*|placeholders?|jinja\w*|mustache|handlebars|liquid|vue|angular|django|mail "
    r"merge|acronym|abbreviation|mean|means|stands? for)\b",
    re.IGNORECASE,
)
"""The places are what is spoken of."""
_CHOICE = re.compile(
    r"\bwhich (?:one )?of (?:these|the following)\b|\bwhich (?:one )?of them (?:is|are|was|were|"
    r"has|have|does|do|did|can|will|would|should)\b"
    r"|\bwhich (?:option|statement|choice)\b(?! (?:of|for)\b)"
    r"|\b(?:choose|select) the (?:correct|right|best) (?:answer|option|statement|choice|word|"
    r"response|sentence|alternative|one|ending|meaning|definition|form)s?\b",
    re.IGNORECASE,
)
_OPTION = re.compile(r"^[ \t]*(?:\(?[A-Ja-j1-9][).:]|[-*•])[ \t]*\S", re.MULTILINE)
_PERSON = re.compile(
    # Not a title (`His Dark Materials`), nor a word that is spoken of (`their, there`).
    r"\b(?:he|she|his|her|hers|him|they|their|them|theirs)\b(?!,|['’]|(?-i:\s+[A-Z]))",
    re.IGNORECASE,
)
_SOMEBODY = re.compile(
    r"\b(?:an?|one|each|every|some|two|three|four|five|six|seven|eight|nine|ten|both|many|most|all|"
    r"another|\d+)\s+(?!of\b)\w+|\bthe\s+(?:\w+\s+)?(?:\w+(?:er|or|ist|ian|ant|ess)s?|man|woman|men|women|"
    r"boys?|girls?|child(?:ren)?|people|mother|father|king|queen|friends?|team|couple|family)\b"
    r"|\b(?:my|our|your|people|i|you|we)\b",
    re.IGNORECASE,
)
_NAME = re.compile(
    r"(?<!\w)(?<!\w['’])(?!(?:A|After|All|An|And|Answer|Are|As|At|Before|But|By|Calculate|Can|Compute|Did|Do|"
    r"Does|Each|Find|For|From|Given|Had|Has|Have|He|Her|His|How|I|If|In|Is|It|Its|Next|Not|Now|Of|"
    r"On|One|Or|She|Since|So|That|The|Their|Then|There|These|They|This|Those|Two|Was|Were|What|"
    r"When|Where|Which|While|Who|Whose|Why|Will|With|Would|Write|You|Your)\b)[A-Z][a-z]+"
)
_MIDDLE = re.compile(
    r"\s*(?:(?:however|otherwise|afterwards|finally|therefore|also|besides|instead|next),"
    r"|(?:then|next)\s+(?:he|she|they|it|we|i|the|add|do|take|use|make|put)\b|otherwise\b"
    r"|(?:they|she|he|her|his|their|those)\b(?!\s+(?:say|are often)\b)(?!,|(?-i:\s+[A-Z]))"
    r"|(?:the others?|the rest|the remaining|of these|of those|of them)\b)",
    re.IGNORECASE,
)
_HOW_MANY = re.compile(
    r"\bhow (?:many|much|far|long|old|fast|tall|heavy)\b|\bwhat (?:is|was) the (?:\w+ )?(?:total|"
    r"sum|average|mean|price|cost|speed|probability|area|volume|difference|percentage|ratio|number)\b",
    re.IGNORECASE,
)
_IN_ALL = re.compile(r"\b(?:left over|remain|altogether|in all|in total)\b", re.IGNORECASE)
"""A question that has only these to go on is the end of a story; `how old is the sun` is none."""
_A_NUMBER = re.compile(
    r"\d|\b(?:one|two|three|four|five|six|seven|eight|nine|ten|eleven|twelve|dozen|twenty|thirty|"
    r"forty|fifty|hundred|thousand|million|half|third|quarter|twice|double|triple)\w*\b",
    re.IGNORECASE,
)
_ENGLISH = re.compile(
    r"\b(?:the|of|to|and|what|how|is|are|it|this|these|that|with|my|our|for|please|does|did|def)\b",
    re.IGNORECASE,
)
_FUNCTION = re.compile(r"^[ \t]*(?:async[ \t]+)?def[ \t]+\w+\(.*$", re.MULTILINE)
_MOST = 20_000
"""Characters of a goal that are looked at."""
_MOST_MATCHES = 20
"""References of a kind that are looked into: who writes more of them has given the material."""


@dataclass(frozen=True, slots=True)
class Signal:
    """One reason to think that something is missing."""

    kind: SignalKind
    text: str
    """What was found, or named."""
    question: str
    """What to ask."""


def missing_signals(goal: str, context: str = "") -> tuple[Signal, ...]:
    """What a task's text shows of what it lacks, one signal a kind. Nobody is called.

    With a context, only places left to be filled count: what a goal refers to may stand there.
    """
    text = goal[:_MOST]
    prose = FENCED.sub("\n", text)
    found = [_placeholder(prose)]
    if not context.strip() and _ENGLISH.search(text):
        found += [
            _reference(text, prose), _options(prose), _pronoun(prose), _middle(prose),
            _quantity(prose), _bare(prose),
        ]  # fmt: skip
    return tuple(signal for signal in found if signal is not None)


def _placeholder(prose: str) -> Signal | None:
    match = _PLACEHOLDER.search(prose)
    if match is None or _ABOUT_PLACES.search(prose):
        return None
    return Signal("placeholder", match[0], f"What is to stand in the place of {match[0]}?")


def _reference(text: str, prose: str) -> Signal | None:
    """Something that the text speaks of as if it were there."""
    for match in _references(text, prose):
        said = " ".join(match[0].split())
        return Signal("reference", said, f"Please give what {said!r} refers to.")
    return None


def _references(text: str, prose: str) -> Iterator[re.Match[str]]:
    if text != prose:  # a fenced block may be what is meant
        return
    for match in _first(_ABOVE, prose):
        if _words_in(prose[: match.start()].rpartition("\n")[0]) < 3 and not re.search(
            r"[.!?]\s", prose[: match.start()]
        ):
            yield match
    for match in _first(_BELOW, prose):
        behind = re.split(r"[:\n]|[.!?](?=\s|$)", prose[match.end() :], maxsplit=1)
        if len(behind) < 2 or not _words_in(behind[1]):
            yield match
    if _NAMED.search(prose):
        return
    for pattern in (_HERE, _OPENING):
        for match in _first(pattern, prose):
            start, end = _sentence(prose, match)
            rest = prose[match.end() :]
            told = _words_in(prose[:start]) + _words_in(prose[end:]) >= 12 or _CODE.search(rest)
            given = re.split(r":|\s[-–—]\s|\n", rest, maxsplit=1)[1:]
            if not told and not any(_words_in(text) >= 2 for text in given):
                yield match


def _options(prose: str) -> Signal | None:
    match = _CHOICE.search(prose)
    if match is None or len(_OPTION.findall(prose)) >= 2:
        return None
    behind = prose[match.end() :]
    if re.search(r":\s*\S|\bor\b|,.+,", behind) or _words_in(behind.partition("?")[2]) > 3:
        return None
    return Signal("options", match[0], "Which options are there to choose from?")


def _pronoun(prose: str) -> Signal | None:
    match = _PERSON.search(prose)
    if match is None or _SOMEBODY.search(prose[: match.start()]) or _NAME.search(prose):
        return None
    return Signal("pronoun", match[0], f"Who is meant by {match[0]!r}, and what is known of them?")


def _middle(prose: str) -> Signal | None:
    match = _MIDDLE.match(prose)
    if match is None:
        return None
    said = match[0].strip()
    return Signal("middle", said, f"What comes before {said!r}: what has been given so far?")


def _quantity(prose: str) -> Signal | None:
    match = _HOW_MANY.search(prose)
    if match is None or _A_NUMBER.search(prose) or not _IN_ALL.search(prose[match.end() :]):
        return None
    if _NAME.search(prose):
        return None
    if _words_in(prose) > 60 or len(_OPTION.findall(prose)) >= 2:
        return None
    return Signal("quantity", match[0], f"Which numbers is {match[0]!r} to be worked out from?")


def _bare(prose: str) -> Signal | None:
    match = _FUNCTION.search(prose)
    if match is None:
        return None
    rest = _FUNCTION.sub("", prose)
    rest = re.sub(r"^\s*(?:from|import|pass|return|\.\.\.|@).*$", "", rest, flags=re.MULTILINE)
    if _words_in(rest) >= 4:
        return None
    return Signal("bare", match[0].strip(), "What is the function to do, and what to return?")


def _first(pattern: re.Pattern[str], text: str) -> Iterator[re.Match[str]]:
    return islice(pattern.finditer(text), _MOST_MATCHES)


def _sentence(text: str, match: re.Match[str]) -> tuple[int, int]:
    """Start and end of the sentence around a match."""
    before = [m.end() for m in re.finditer(r"[.!?]\s|\n", text[: match.start()])]
    after = re.search(r"[.!?](?=\s|$)|\n", text[match.end() :])
    return (before[-1] if before else 0), (
        len(text) if after is None else match.end() + after.end()
    )


def _words_in(text: str) -> int:
    return len(re.findall(r"\w+", text))
