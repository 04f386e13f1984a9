"""Requests with right answers, for the small workers of `examples/workers.yaml` and not for them.

150 requests in varied wordings, always the same ones. Right answers follow from what a request was
made of, not from the workers. A sixth are distractors: they speak of units, dates, words, elements
or sums as requests to a worker do, and need thinking that no worker can do.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import date, timedelta
from fractions import Fraction
from itertools import islice

from masrouter.llms.simulated import SimulatedTask
from masrouter.problems import Choice, Grader, Number

EACH = 21
"""Requests to each worker."""
DISTRACTORS = 24


@dataclass(frozen=True, slots=True)
class WorkRequest:
    """A request, and how an answer to it is judged."""

    text: str
    worker: str | None
    """Whose kind of request it is; None for a distractor."""
    grader: Grader
    right: str
    wrong: tuple[str, ...]
    domain: str = "math"
    difficulty: float = 2.0
    """For a simulated chat model: assumed, not measured."""

    def simulated(self) -> SimulatedTask:
        """What the simulated provider has to know of it."""
        answers = [f"Answer: {text}" for text in (self.right, *self.wrong)]
        return SimulatedTask(
            self.text, self.domain, self.difficulty, answers[0], tuple(answers[1:])
        )


Make = Callable[[random.Random], WorkRequest]


def work_requests() -> tuple[WorkRequest, ...]:
    """All of them, worker by worker, then the distractors."""
    found: list[WorkRequest] = []
    makers: tuple[tuple[Make, int], ...] = (
        (_sum, EACH), (_unit, EACH), (_date, EACH), (_words, EACH), (_element, EACH),
        (_numeral, EACH), (_distractor, DISTRACTORS),
    )  # fmt: skip
    for make, count in makers:
        drawn = random.Random(make.__name__)
        found += islice(_distinct(make, drawn), count)
    return tuple(found)


def _distinct(make: Make, drawn: random.Random) -> Iterator[WorkRequest]:
    met: set[str] = set()
    while True:
        one = make(drawn)
        if one.text not in met:
            met.add(one.text)
            yield one


def _number(
    text: str,
    worker: str | None,
    answer: Fraction | int,
    decimals: int = 0,
    difficulty: float = 2.0,
) -> WorkRequest:
    value = Fraction(answer)
    step = Fraction(1, 10**decimals)

    def told(number: Fraction) -> str:
        return f"{float(number):.{decimals}f}" if decimals else str(number)

    wrong = tuple(told(other) for other in (value + step, value * 10, value - 2 * step))
    exact = round(value, decimals) if decimals else value
    grader = Number(Fraction(exact), decimals)
    return WorkRequest(text, worker, grader, told(value), wrong, difficulty=difficulty)


def _chosen(
    text: str,
    worker: str | None,
    right: str,
    wrong: tuple[str, ...],
    domain: str,
    difficulty: float,
) -> WorkRequest:
    grader = Choice("A", (right, *wrong))
    return WorkRequest(text, worker, grader, right, wrong, domain, difficulty)


def _sum(drawn: random.Random) -> WorkRequest:
    a, b, c = drawn.randint(12, 987), drawn.randint(12, 98), drawn.randint(3, 19)
    forms: tuple[tuple[str, Fraction], ...] = (
        (f"Compute {a} * {b} - {c}.", Fraction(a * b - c)),
        (f"What do I get for {a} times {b}?", Fraction(a * b)),
        (f"({a} + {b}) * {c} = ?", Fraction((a + b) * c)),
        (f"Please work out {a * c} divided by {c}", Fraction(a)),
        (f"{4 * b}% of {25 * c}, please", Fraction(b * c)),
        (f"Evaluate {a} - {b} * {c}", Fraction(a - b * c)),
        (f"How much is {b} squared plus {c}?", Fraction(b * b + c)),
        (f"Add {a}, {b} and {c}.", Fraction(a + b + c)),
        (f"Give me the product of {a} and {b}", Fraction(a * b)),
        (f"what's {a} plus {b} minus {c}", Fraction(a + b - c)),
        (f"Multiply the sum of {a} and {b} by {c}.", Fraction((a + b) * c)),
    )
    text, answer = drawn.choice(forms)
    return _number(text, "calculator", answer)


_UNIT_PAIRS: tuple[tuple[str, str, Fraction], ...] = (
    ("miles", "kilometres", Fraction("1.609344")),
    ("kilometres", "miles", 1 / Fraction("1.609344")),
    ("pounds", "kilograms", Fraction("0.45359237")),
    ("ounces", "grams", Fraction("28.349523125")),
    ("feet", "metres", Fraction("0.3048")),
    ("inches", "centimetres", Fraction("2.54")),
    ("gallons", "litres", Fraction("3.785411784")),
    ("weeks", "hours", Fraction(168)),
    ("minutes", "days", Fraction(1, 1440)),
    ("litres", "pints", 1 / Fraction("0.473176473")),
)  # fmt: skip


def _unit(drawn: random.Random) -> WorkRequest:
    unit, target, factor = drawn.choice(_UNIT_PAIRS)
    amount = drawn.randint(3, 400)
    form = drawn.choice((
        "Express {n} {unit} in {target}.",
        "{n} {unit} in {target}?",
        "How long, heavy or much is {n} {unit} if measured in {target}?",
        "I have {n} {unit}; what is that in {target}?",
        "Turn {n} {unit} into {target}",
        "The label says {n} {unit}. Give it in {target}.",
        "Change the measurement {n} {unit} to {target}, two decimals are enough.",
        "How many {target} make up {n} {unit}?",
        "My recipe asks for {n} {unit} but my scale shows {target}.",
    ))  # fmt: skip
    text = form.format(n=amount, unit=unit, target=target)
    return _number(text, "units", amount * factor, 2)


_WEEKDAYS = ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday")


def _date(drawn: random.Random) -> WorkRequest:
    start = date(1990, 1, 1) + timedelta(days=drawn.randint(0, 16_000))
    days = drawn.randint(20, 900)
    end = start + timedelta(days=days)
    said = f"{start.day} {start:%B} {start.year}"
    kind = drawn.randrange(3)
    if kind == 0:
        form = drawn.choice((
            "On which weekday did {d} fall?", "Was {d} a Monday or some other day?",
            "My passport says I was born on {d}. What day was that?", "Weekday of {d}?",
        ))  # fmt: skip
        right = _WEEKDAYS[start.weekday()]
        wrong = tuple(day for day in _WEEKDAYS if day != right)
        text = form.format(d=drawn.choice((said, start.isoformat())))
        return _chosen(text, "dates", right, wrong, "math", 3.0)
    if kind == 1:
        form = drawn.choice((
            "How many days lie between {a} and {b}?", "Count the days from {a} until {b}.",
            "A contract runs from {a} to {b}; how many days apart are they?",
            "Number of days, {a} to {b}",
        ))  # fmt: skip
        text = form.format(a=start.isoformat(), b=end.isoformat())
        return _number(text, "dates", days, difficulty=3.0)
    form = drawn.choice((
        "The invoice of {d} is due {n} days later. When is that? Write it as YYYY-MM-DD.",
        "Give me the date {n} days after {d}, as YYYY-MM-DD.",
        "What will the calendar show {n} days after {d} (YYYY-MM-DD)?",
    ))  # fmt: skip
    wrong = tuple((end + timedelta(days=off)).isoformat() for off in (-1, 1, 30))
    text = form.format(d=said, n=days)
    return _chosen(text, "dates", end.isoformat(), wrong, "math", 3.0)


_NOUNS = (
    "lantern", "pebble", "orchard", "violin", "harbour", "thimble", "meadow", "saddle", "canyon",
    "ribbon", "glacier", "walnut", "feather", "bottle", "anchor", "puzzle", "copper", "turnip",
)  # fmt: skip


def _words(drawn: random.Random) -> WorkRequest:
    words = drawn.sample(_NOUNS, drawn.randint(4, 9))
    text, one = " ".join(words), words[0]
    kind = drawn.randrange(4)
    if kind == 0:
        form = drawn.choice((
            "Count the words: {t}", "What is the number of words in '{t}'?",
            "How long is this in words: \"{t}\"", "Word count of '{t}', please",
        ))  # fmt: skip
        return _number(form.format(t=text), "words", len(words), difficulty=2.0)
    if kind == 1:
        letter = drawn.choice(sorted(set(text) - {" "}))
        form = drawn.choice((
            "How many times does the letter {x} appear in '{t}'?",
            "Count the letter {x} in \"{t}\".", "How many {x}'s are there in '{t}'?",
        ))  # fmt: skip
        return _number(form.format(x=letter, t=text), "words", text.count(letter), difficulty=3.0)
    if kind == 2:
        listed = sorted(words)
        form = drawn.choice((
            "Put these words into alphabetical order: {t}", "Arrange by the alphabet: {t}",
            "Sort alphabetically, separated by commas: {t}",
        ))  # fmt: skip
        other = [*listed[1:], listed[0]], listed[::-1]
        wrong = tuple(", ".join(one) for one in other)
        asked = form.format(t=", ".join(words))
        return _chosen(asked, "words", ", ".join(listed), wrong, "knowledge", 2.0)
    form = drawn.choice((
        "Spell '{w}' backwards.", "Write the word \"{w}\" in reverse.",
        "What do you get when '{w}' is read from its end?",
    ))  # fmt: skip
    back = one[::-1]
    wrong = (back[1:], back[:2] + back[3:] + back[2], one)
    return _chosen(form.format(w=one), "words", back, wrong, "knowledge", 2.0)


_TABLE = {
    "helium": (2, "He"), "nitrogen": (7, "N"), "oxygen": (8, "O"), "magnesium": (12, "Mg"),
    "chlorine": (17, "Cl"), "potassium": (19, "K"), "calcium": (20, "Ca"), "iron": (26, "Fe"),
    "copper": (29, "Cu"), "zinc": (30, "Zn"), "silver": (47, "Ag"), "platinum": (78, "Pt"),
    "gold": (79, "Au"), "lead": (82, "Pb"), "bismuth": (83, "Bi"),
}  # fmt: skip
"""Two of them are not in the worker's table."""


def _element(drawn: random.Random) -> WorkRequest:
    name = drawn.choice(sorted(_TABLE))
    number, symbol = _TABLE[name]
    others = [other for other in _TABLE if other != name][:3]
    kind = drawn.randrange(3)
    if kind == 0:
        form = drawn.choice((
            "How many protons has an atom of {e}?", "Atomic number of {e}?",
            "Under which number is {e} listed in the periodic table?",
            "Tell me {e}'s place in the periodic system.",
        ))  # fmt: skip
        return _number(form.format(e=name), "elements", number, difficulty=1.0)
    if kind == 1:
        form = drawn.choice((
            "How is {e} abbreviated by chemists?", "Chemical symbol of {e}, please",
            "Which letters stand for {e} in formulas?",
        ))  # fmt: skip
        wrong = tuple(_TABLE[other][1] for other in others)
        return _chosen(form.format(e=name), "elements", symbol, wrong, "knowledge", 1.0)
    form = drawn.choice((
        "Name the element with {n} protons.", "What stands at number {n} of the periodic table?",
    ))  # fmt: skip
    return _chosen(form.format(n=number), "elements", name, tuple(others), "knowledge", 1.0)


def _numeral(drawn: random.Random) -> WorkRequest:
    value = drawn.randint(21, 3400)
    roman = _roman(value)
    kind = drawn.randrange(4)
    if kind == 0:
        form = drawn.choice((
            "How did the Romans write {n}?", "{n} in Roman numerals, please",
            "I want {n} engraved in Roman numerals.",
        ))  # fmt: skip
        wrong = (_roman(value + 1), _roman(value + 10), _roman(value - 9))
        return _chosen(form.format(n=value), "numerals", roman, wrong, "math", 2.0)
    if kind == 1:
        form = drawn.choice((
            "The clock tower bears the year {r}. Which year is it?", "Read {r} for me.",
            "What is {r} as an ordinary number?",
        ))  # fmt: skip
        return _number(form.format(r=roman), "numerals", value)
    small = value % 900 + 9
    base, digits, name = drawn.choice((
        (2, format(small, "b"), "binary"), (16, format(small, "x"), "hexadecimal"),
        (8, format(small, "o"), "octal"),
    ))  # fmt: skip
    if kind == 2:
        form = drawn.choice((
            "Write {n} as a {b} number.", "{n} in {b}", "Convert the number {n} to {b} notation.",
        ))  # fmt: skip
        written = ("b", "o", "x")[(2, 8, 16).index(base)]
        wrong = tuple(format(small + off, written) for off in (1, 2, -1))
        return _chosen(form.format(n=small, b=name), "numerals", digits, wrong, "math", 2.0)
    form = drawn.choice((
        "What is the decimal value of the {b} number {d}?", "Read {b} {d} as a decimal number.",
    ))  # fmt: skip
    return _number(form.format(b=name, d=digits), "numerals", small)


def _roman(value: int) -> str:
    places = (
        ("", "M", "MM", "MMM"),
        ("", "C", "CC", "CCC", "CD", "D", "DC", "DCC", "DCCC", "CM"),
        ("", "X", "XX", "XXX", "XL", "L", "LX", "LXX", "LXXX", "XC"),
        ("", "I", "II", "III", "IV", "V", "VI", "VII", "VIII", "IX"),
    )
    return "".join(signs[int(d)] for signs, d in zip(places, f"{value:04d}", strict=True))


def _distractor(drawn: random.Random) -> WorkRequest:
    a, b, c = drawn.randint(3, 9), drawn.randint(11, 40), drawn.randint(2, 8)
    forms: tuple[tuple[str, int], ...] = (
        (
            f"A train covers {a * c} kilometres in {a} minutes. How many kilometres does it cover "
            f"in {b} minutes at that speed?",
            c * b,
        ),
        (
            f"Mira is {a} years older than Jon. In {c} years Jon will be {b + c}. How old is Mira "
            "today?",
            a + b,
        ),
        (
            f"A market day is held every {a} days. If one falls on 1 March, how many are held in "
            "March?",
            1 + 30 // a,
        ),
        (
            f"In a book of {b} pages each page has {a} lines of {c} words. Half of the pages are "
            f"pictures only, of {2 * b} pages in all. How many words are in the book?",
            a * b * c,
        ),
        (
            f"Water is made of hydrogen and oxygen. How many atoms are in {b} molecules of it?",
            3 * b,
        ),
        (
            f"How many numbers from 1 to {b} are written with an odd number of digits?",
            9 if b < 100 else b,
        ),
        (
            f"A smith has {b} pounds of copper and loses {a} ounces of it in each of {c} pots of "
            "one pound. How many whole pots can be made if nothing is wasted?",
            b,
        ),
        (
            f"Each of {a} friends shakes hands with every other one, and {c} more join, who shake "
            "hands with everybody. How many handshakes are there?",
            (a + c) * (a + c - 1) // 2,
        ),
    )  # fmt: skip
    text, answer = drawn.choice(forms)
    return _number(text, None, answer, difficulty=3.0)
