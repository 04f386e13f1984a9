"""Six small workers that answer exactly, at once and for nothing what they understand.

Plain functions from text to text: `examples/workers.yaml` makes workers of them. What one does not
understand it refuses with a ValueError, since a wrong answer would be worse.
"""

from __future__ import annotations

import ast
import operator
import re
from collections.abc import Callable
from datetime import date, timedelta
from fractions import Fraction

_NUMBER = r"\d+(?:,\d{3})*(?:\.\d+)?"
_SAID = (
    (r"(\d)\s*%\s*of\b", r"\1 / 100 *"),
    (r"(\d)\s+per\s?cent\s+of\b", r"\1 / 100 *"),
    (r"\b(?:times|multiplied\s+by)\b", "*"),
    (r"\b(?:divided\s+by|over)\b", "/"),
    (r"\bplus\b", "+"),
    (r"\bminus\b", "-"),
    (r"\bsquared\b", "** 2"),
    (r"\bcubed\b", "** 3"),
    (r"\bto\s+the\s+power\s+of\b", "**"),
    (rf"\bsum\s+of\s+({_NUMBER})\s+and\s+({_NUMBER})", r"\1 + \2"),
    (rf"\bproduct\s+of\s+({_NUMBER})\s+and\s+({_NUMBER})", r"\1 * \2"),
    (r"(\d)\s*[x×]\s*(?=[\d(])", r"\1 * "),
    (r"(\d)\s*÷\s*(?=[\d(])", r"\1 / "),
    (r"\^", "**"),
    (r"(?<=\d),(?=\d{3})", ""),
)
_OPERATORS: dict[type[ast.operator], Callable[[Fraction, Fraction], Fraction]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
}
_MOST_EXPONENT = 64
_MOST_DIGITS = 400


def calculate(text: str) -> str:
    """Calculates an arithmetic expression: sums, products, quotients, percentages and powers."""
    for pattern, sign in _SAID:
        text = re.sub(pattern, sign, text, flags=re.IGNORECASE)
    found = re.findall(r"[-(\s]*\d[\d\s.()+*/-]*", text)
    expressions = [one.strip().rstrip(".(+-*/ ") for one in found if re.search(r"\d\D+\d", one)]
    if len(expressions) != 1:
        raise ValueError(f"expected one expression, found {len(expressions)}")
    try:
        tree = ast.parse(expressions[0], mode="eval")
    except (SyntaxError, RecursionError, MemoryError) as error:
        raise ValueError("the expression cannot be read") from error
    return _written(_value(tree.body))


def _value(node: ast.expr) -> Fraction:
    """Exactly; nothing but numbers and the signs of arithmetic has one."""
    if isinstance(node, ast.Constant) and isinstance(node.value, int | float):
        return Fraction(str(node.value))
    if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub):
        return -_value(node.operand)
    if isinstance(node, ast.BinOp):
        left, right = _value(node.left), _value(node.right)
        if isinstance(node.op, ast.Pow):
            small = abs(right) <= _MOST_EXPONENT and len(str(left)) <= _MOST_DIGITS // 64
            if right.denominator != 1 or not small or (right < 0 and not left):
                raise ValueError("the power cannot be calculated exactly")
            return left ** int(right)
        if type(node.op) in _OPERATORS:
            if isinstance(node.op, ast.Div) and not right:
                raise ValueError("division by zero")
            return _OPERATORS[type(node.op)](left, right)
    raise ValueError("the expression holds more than numbers and signs")


def _written(value: Fraction) -> str:
    """As a decimal where it ends soon, else to six places."""
    if value.denominator == 1:
        return str(value)
    return f"{float(value):.6f}".rstrip("0").rstrip(".")


_UNITS: dict[str, tuple[str, str]] = {
    # unit: (what it measures, how many of the base unit)
    "millimetre": ("length", "0.001"), "mm": ("length", "0.001"),
    "centimetre": ("length", "0.01"), "cm": ("length", "0.01"),
    "metre": ("length", "1"), "meter": ("length", "1"), "m": ("length", "1"),
    "kilometre": ("length", "1000"), "kilometer": ("length", "1000"), "km": ("length", "1000"),
    "inch": ("length", "0.0254"), "inches": ("length", "0.0254"),
    "foot": ("length", "0.3048"), "feet": ("length", "0.3048"),
    "yard": ("length", "0.9144"), "mile": ("length", "1609.344"),
    "gram": ("mass", "0.001"), "g": ("mass", "0.001"),
    "kilogram": ("mass", "1"), "kilo": ("mass", "1"), "kg": ("mass", "1"),
    "ounce": ("mass", "0.028349523125"), "pound": ("mass", "0.45359237"),
    "millilitre": ("volume", "0.001"), "ml": ("volume", "0.001"),
    "litre": ("volume", "1"), "liter": ("volume", "1"),
    "pint": ("volume", "0.473176473"), "gallon": ("volume", "3.785411784"),
    "second": ("time", "1"), "minute": ("time", "60"), "hour": ("time", "3600"),
    "day": ("time", "86400"), "week": ("time", "604800"),
}  # fmt: skip
_UNIT = "|".join(sorted(map(re.escape, _UNITS), key=len, reverse=True))
_UNIT_WORD = re.compile(rf"(?:({_NUMBER})\s*|\b)({_UNIT})s?\b", re.IGNORECASE)


def convert_units(text: str) -> str:
    """Converts a length, mass, volume or time from one unit of measurement to another."""
    named = [(amount, unit.lower()) for amount, unit in _UNIT_WORD.findall(text)]
    given = [(amount, unit) for amount, unit in named if amount]
    wanted = [unit for amount, unit in named if not amount]
    if len(given) != 1 or len(wanted) != 1:
        raise ValueError("expected an amount of one unit, and one other unit")
    (amount, unit), target = given[0], wanted[0]
    kind, size = _UNITS[unit]
    target_kind, target_size = _UNITS[target]
    if kind != target_kind:
        raise ValueError(f"{kind} is no {target_kind}")
    return _written(Fraction(amount.replace(",", "")) * Fraction(size) / Fraction(target_size))


_MONTHS = (
    "january", "february", "march", "april", "may", "june", "july", "august", "september",
    "october", "november", "december",
)  # fmt: skip
_DATE = re.compile(
    rf"(\d{{4}})-(\d\d)-(\d\d)|(\d{{1,2}})\s+({'|'.join(_MONTHS)})\s+(\d{{4}})", re.IGNORECASE
)
_AWAY = re.compile(rf"({_NUMBER})\s+(day|week)s?\s+(after|before|from|later)", re.IGNORECASE)


def reckon_dates(text: str) -> str:
    """Tells the weekday of a date, the days between two dates, or the date so many days away."""
    dates = [_date(found) for found in _DATE.finditer(text)]
    if len(dates) == 2:
        return str(abs((dates[1] - dates[0]).days))
    if len(dates) != 1:
        raise ValueError("expected one date or two")
    away = _AWAY.search(text)
    if away is not None:
        days = int(away[1].replace(",", "")) * (7 if away[2].lower() == "week" else 1)
        sign = -1 if away[3].lower() == "before" else 1
        return (dates[0] + timedelta(days=sign * days)).isoformat()
    if not re.search(r"\b(?:week)?day\b", text, re.IGNORECASE):
        raise ValueError("expected to be asked for a weekday or a distance in days")
    return dates[0].strftime("%A")


def _date(found: re.Match[str]) -> date:
    if found[1]:
        return date(int(found[1]), int(found[2]), int(found[3]))
    return date(int(found[6]), _MONTHS.index(found[5].lower()) + 1, int(found[4]))


_QUOTED = re.compile(r"'([^'\n]+)'|\"([^\"\n]+)\"|:\s*([^:\n]+)$")
_BEHIND = re.compile(r":?[ \t]*\n[ \t]*\n|:[ \t]*\n")


def count_words(text: str) -> str:
    """Counts words or letters of a given text, sorts its words by alphabet, or turns it around."""
    request, *behind = _BEHIND.split(text.strip(), maxsplit=1)
    quoted = [next(filter(None, match.groups())) for match in _QUOTED.finditer(request)]
    if len(quoted) + len(behind) != 1:
        where = "in quotation marks, behind a colon or behind an empty line"
        raise ValueError(f"expected one text to work on, {where}")
    given: str = (*quoted, *behind)[0].strip()
    asked = request.replace(given, " ").lower()
    words = re.findall(r"[\w'-]+", given)
    letter = re.search(r"\b(?:letter\s+|the\s+|many\s+)([a-z])(?:'?s)?\b", asked)
    if re.search(r"\b(?:sort|alphabetical|alphabetically|alphabet)\b", asked):
        return ", ".join(sorted(words, key=str.lower))
    if re.search(r"\b(?:reverse|backwards)\b", asked):
        return given[::-1]
    if letter is not None:
        return str(given.lower().count(letter[1]))
    if re.search(r"\bwords?\b", asked) and re.search(r"\b(?:how many|count|number)\b", asked):
        return str(len(words))
    if re.search(r"\b(?:letters|characters)\b", asked):
        return str(sum(sign.isalnum() for sign in given))
    raise ValueError("expected to count, to sort or to turn around")


_ELEMENTS = {
    "hydrogen": (1, "H"), "helium": (2, "He"), "lithium": (3, "Li"), "carbon": (6, "C"),
    "nitrogen": (7, "N"), "oxygen": (8, "O"), "fluorine": (9, "F"), "neon": (10, "Ne"),
    "sodium": (11, "Na"), "magnesium": (12, "Mg"), "aluminium": (13, "Al"), "silicon": (14, "Si"),
    "phosphorus": (15, "P"), "sulfur": (16, "S"), "chlorine": (17, "Cl"), "argon": (18, "Ar"),
    "potassium": (19, "K"), "calcium": (20, "Ca"), "titanium": (22, "Ti"), "iron": (26, "Fe"),
    "nickel": (28, "Ni"), "copper": (29, "Cu"), "zinc": (30, "Zn"), "silver": (47, "Ag"),
    "tin": (50, "Sn"), "iodine": (53, "I"), "gold": (79, "Au"), "mercury": (80, "Hg"),
    "lead": (82, "Pb"), "uranium": (92, "U"),
}  # fmt: skip


def look_up_element(text: str) -> str:
    """Looks up the atomic number or the symbol of a chemical element in a table."""
    names = {word for word in re.findall(r"[a-z]+", text.lower()) if word in _ELEMENTS}
    if len(names) == 1:
        number, symbol = _ELEMENTS[names.pop()]
        if re.search(r"\b(?:symbol|abbreviated|abbreviation)\b", text, re.IGNORECASE):
            return symbol
        if re.search(r"\b(?:number|protons|place)\b", text, re.IGNORECASE):
            return str(number)
    numbers = re.findall(r"\b\d{1,3}\b", text)
    if not names and len(numbers) == 1:
        for name, (number, _) in _ELEMENTS.items():
            if number == int(numbers[0]):
                return name
    raise ValueError("expected one element and what to tell of it")


_ROMAN = (
    (1000, "M"), (900, "CM"), (500, "D"), (400, "CD"), (100, "C"), (90, "XC"), (50, "L"),
    (40, "XL"), (10, "X"), (9, "IX"), (5, "V"), (4, "IV"), (1, "I"),
)  # fmt: skip
_BASES = {"binary": 2, "octal": 8, "hexadecimal": 16, "hex": 16, "base 2": 2, "base 8": 8}


def write_numeral(text: str) -> str:
    """Writes a number as a Roman numeral or in binary or hexadecimal, and reads such numerals."""
    roman = re.findall(r"\b[MDCLXVI]{2,}\b", text)
    numbers = re.findall(r"\b\d[\d,]*\b", re.sub(r"base \d", "", text.lower()))
    if len(roman) == 1 and not numbers:
        return str(_from_roman(roman[0]))
    if len(numbers) != 1:
        raise ValueError("expected one number")
    if re.search(r"\broman\b", text, re.IGNORECASE):
        return _to_roman(int(numbers[0].replace(",", "")))
    named = [base for name, base in _BASES.items() if re.search(rf"\b{name}\b", text.lower())]
    if len(set(named)) != 1:
        raise ValueError("expected Roman numerals or one base")
    reads = re.search(r"\b(?:decimal|value|mean|read)\b", text, re.IGNORECASE)
    if reads:
        return str(int(numbers[0], named[0]))
    value = int(numbers[0].replace(",", ""))
    return format(value, {2: "b", 8: "o", 16: "x"}[named[0]])


def _to_roman(value: int) -> str:
    if not 1 <= value <= 3999:
        raise ValueError("Roman numerals go from 1 to 3999")
    written = ""
    for size, sign in _ROMAN:
        written += sign * (value // size)
        value %= size
    return written


def _from_roman(numeral: str) -> int:
    value, rest = 0, numeral
    for size, sign in _ROMAN:
        while rest.startswith(sign):
            value, rest = value + size, rest[len(sign) :]
    if rest or _to_roman(value) != numeral:
        raise ValueError(f"{numeral} is no Roman numeral")
    return value
