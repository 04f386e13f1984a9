"""Policies as a settings file has them, with every mistake at its line.

    careful: {deliberate: {cheap: small, strong: large, thresholds: thresholds.json}}
    quick:   {deliberate: {cheap: small, rule: {samples: 3, threshold: 0.6}, missing: true}}
    looked:  {iterate: {model: medium, subtask: small, rounds: 3, requests: 4}}
    by_log:  {iterate: {model: medium, ahead: notes, thresholds: thresholds.json}}
    fitting: {match: {otherwise: small, thresholds: thresholds.json}}
    strict:  {match: {otherwise: small, fall_back: false}}

`thresholds` is a file that `masrouter deliberate` wrote, seen from the settings file's folder. Of
`iterate` it gives the rounds and requests that are left out, and `ahead` is asked only where the
file says that it pays.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import fields
from pathlib import Path as FilePath
from typing import TYPE_CHECKING, Any

from masrouter.delegation.policies.specs import Deliberate, Iterate, Match, PolicySpec
from masrouter.errors import ConfigError
from masrouter.strict_yaml import Document, Path, describe

if TYPE_CHECKING:
    from masrouter.delegation.deliberation.agreement import Rule
    from masrouter.delegation.deliberation.missing import MissingRule
    from masrouter.delegation.deliberation.thresholds import Thresholds
    from masrouter.delegation.workers.matching import MatchingRule


def policies_at(document: Document, top: Path) -> dict[str, PolicySpec]:
    """The policies of the mapping at `top`; raises the document's error at the first mistake."""
    kinds: Mapping[str, Callable[[_Entry], PolicySpec]] = {
        "deliberate": _deliberate,
        "iterate": _iterate,
        "match": _match,
    }
    found: dict[str, PolicySpec] = {}
    for name in document.mapping(top):
        path = (*top, name)
        given = document.mapping(path, kinds)
        if len(given) != 1:
            raise document.problem(path, f"expected one of {', '.join(kinds)}, got {len(given)}")
        (kind,) = given
        try:
            found[name] = kinds[kind](_Entry(document, (*path, kind)))
        except ConfigError as error:
            if str(error).startswith(f"{document.source}:"):
                raise
            raise document.problem((*path, kind), str(error)) from None
    return found


def deliberate_by(cheap: str, strong: str, thresholds: str | FilePath | None = None) -> Deliberate:
    """A policy of deliberating by a file of thresholds, or by the default rule without one.

    Raises ConfigError for a file that cannot be read, or that has no rule.
    """
    if thresholds is None:
        return Deliberate(cheap=cheap, strong=strong)
    found = _thresholds(thresholds)
    return Deliberate(
        cheap=cheap,
        strong=strong,
        rule=_rule_of(found, thresholds),
        missing=found.missing,
        ask_missing=_word_pays(found),
    )


class _Entry:
    """The mapping of one policy."""

    def __init__(self, document: Document, path: Path) -> None:
        self.document = document
        self.path = path
        self.given: Mapping[str, Any] = {}

    def keys(self, *allowed: str, needed: str) -> None:
        """Refuse other keys, and one that is lacking."""
        self.given = self.document.mapping(self.path, allowed)
        if needed not in self.given:
            raise self.document.problem(self.path, f"expected `{needed}`: a model's name")

    def name(self, key: str, otherwise: str = "auto") -> str:
        """A name; where it may lead is not looked at here."""
        value = self.given.get(key, otherwise)
        if not isinstance(value, str):
            raise self.problem(key, f"expected a name, got {describe(value)}")
        return value

    def count(self, key: str, otherwise: int) -> int:
        value = self.given.get(key, otherwise)
        if isinstance(value, bool) or not isinstance(value, int) or value < 1:
            raise self.problem(key, f"expected a whole number >= 1, got {describe(value)}")
        return value

    def truth(self, key: str) -> bool | None:
        """None where the key is not there."""
        value = self.given.get(key)
        if key in self.given and not isinstance(value, bool):
            raise self.problem(key, f"expected true or false, got {describe(value)}")
        return value

    def thresholds(self) -> Thresholds | None:
        """Of the file that is named; None where none is."""
        if "thresholds" not in self.given:
            return None
        name = self.given["thresholds"]
        if not isinstance(name, str) or not name.strip() or "\0" in name:
            raise self.problem("thresholds", f"expected a file's name, got {describe(name)}")
        try:
            return _thresholds(FilePath(self.document.source).parent / name)
        except ConfigError as error:
            raise self.problem("thresholds", str(error)) from None

    def problem(self, key: str, why: str) -> Exception:
        return self.document.problem((*self.path, key), why)


def _deliberate(entry: _Entry) -> Deliberate:
    entry.keys("cheap", "strong", "thresholds", "rule", "missing", "ask_missing", needed="cheap")
    found = entry.thresholds()
    asked = entry.truth("missing")
    rule: Rule | None = None
    if "rule" in entry.given:
        if found is not None:
            raise entry.problem("rule", "the thresholds' file has one; leave one of both out")
        rule = _rule(entry)
    elif found is not None:
        try:
            rule = _rule_of(found, entry.given["thresholds"])
        except ConfigError as error:
            raise entry.problem("thresholds", str(error)) from None
    word = entry.truth("ask_missing")
    return Deliberate(
        cheap=entry.name("cheap"),
        strong=entry.name("strong"),
        rule=rule,
        missing=_missing(found, asked),
        ask_missing=asked is not False and _word_pays(found) if word is None else word,
    )


def _iterate(entry: _Entry) -> Iterate:
    entry.keys("model", "subtask", "ahead", "rounds", "requests", "thresholds", needed="model")
    found = entry.thresholds()
    if found is not None and found.matching is None and found.iterating is None:
        why = "has no rule of iterating or matching; calibrate one, or leave the file out"
        raise entry.problem("thresholds", f"{entry.given['thresholds']}: {why}")
    rule = None if found is None else found.iterating
    nobody = "subtask" in entry.given and entry.given["subtask"] is None
    ahead = entry.name("ahead") if entry.given.get("ahead") is not None else None
    told = {"rounds", "requests"} <= set(entry.given)
    if rule is not None and rule.ahead and ahead is None and not told:
        why = "was chosen with a look-up first; name `ahead`, or give `rounds` and `requests`"
        raise entry.problem("thresholds", f"{entry.given['thresholds']}: {why}")
    pays = rule is None or rule.ahead
    return Iterate(
        model=entry.name("model"),
        subtask=None if nobody else entry.name("subtask"),
        ahead=ahead if pays else None,
        unasked=None if pays else ahead,
        rounds=entry.count("rounds", 3 if rule is None else rule.rounds),
        requests=entry.count("requests", 4 if rule is None else rule.requests),
        matching=None if found is None else found.matching,
    )


def _match(entry: _Entry) -> Match:
    entry.keys("otherwise", "thresholds", "fall_back", needed="otherwise")
    return Match(
        otherwise=entry.name("otherwise"),
        matching=_matching(entry),
        fall_back=entry.truth("fall_back") is not False,
    )


def _rule(entry: _Entry) -> Rule:
    from masrouter.delegation.deliberation.agreement import Rule

    path = (*entry.path, "rule")
    given = entry.document.mapping(path, (field.name for field in fields(Rule)))
    try:
        return Rule(**given)
    except ConfigError as error:
        raise entry.document.problem(path, str(error).removeprefix("rule: ")) from None


def _missing(found: Thresholds | None, asked: bool | None) -> MissingRule | None:
    """By the file, where it has a rule; `missing: true` alone takes the default one."""
    from masrouter.delegation.deliberation.missing import MissingRule

    calibrated = None if found is None else found.missing
    if asked is False:
        return None
    return MissingRule() if asked and calibrated is None else calibrated


def _word_pays(found: Thresholds | None) -> bool:
    """Whether calibration found that asking the model what is missing is worth its cost."""
    return found is not None and found.missing is not None and "model" in found.missing.weights


def _matching(entry: _Entry) -> MatchingRule | None:
    found = entry.thresholds()
    if found is not None and found.matching is None:
        why = "has no rule of matching; calibrate it, or leave the file out"
        raise entry.problem("thresholds", f"{entry.given['thresholds']}: {why}")
    return None if found is None else found.matching


def _rule_of(found: Thresholds, file: str | FilePath) -> Rule:
    if found.rule is None:
        raise ConfigError(
            f"{file}: has no rule of deliberating; `masrouter deliberate calibrate` chooses one"
        )
    return found.rule


def _thresholds(file: str | FilePath) -> Thresholds:
    # The room of deliberation imports the delegator, which imports the settings.
    from masrouter.delegation.deliberation.thresholds import Thresholds

    return Thresholds.load(file)
