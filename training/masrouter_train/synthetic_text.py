"""Texts of the synthetic world: invented tasks whose wording shows their domain and their level.

A text is a task of its domain and level, some conditions (more of them at higher levels) and a
closing remark of the level. Slots are filled at random, so that texts differ. All of them are made
of the templates below: nothing was collected from users.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from random import Random

import numpy as np
from numpy.typing import NDArray

from masrouter.errors import ConfigError

LEVELS = 5
"""Difficulty levels that a text shows, 0 (easy) to 4 (expert)."""
LEVEL_SHARES = (0.2, 0.2, 0.2, 0.2, 0.2)
MOST_REDRAWS = 200


@dataclass(frozen=True, slots=True)
class DomainTexts:
    """What the texts of one domain are made of. `{n}` is a number from 2 to 999 in every domain."""

    tasks: tuple[tuple[str, ...], ...]
    """By level: templates."""
    conditions: tuple[str, ...]
    """Templates of requirements; a text of level l has l or l + 1 of them."""
    slots: Mapping[str, tuple[str, ...]]
    """What fills `{name}` in the templates."""


CODE = DomainTexts(
    tasks=(
        (
            "Write a {lang} one-liner that returns the largest {field} in a list of {n} {thing}.",
            "Show the {lang} statement that reverses a list of {n} {thing} by {field}.",
            "In {lang}, print the {field} of the first {n} {thing} in a list.",
        ),
        (
            "Write a {lang} function that groups {thing} by {field} and returns the {n} largest "
            "groups.",
            "Parse a CSV file of {thing} in {lang} and sum the {field} column, skipping the first "
            "{n} rows.",
            "Write a {lang} function that removes duplicate {thing} by {field} and keeps the last "
            "{n}.",
        ),
        (
            "Implement a {lang} class that caches {thing} by {field} and evicts the least recently "
            "used one beyond {n} entries.",
            "Write a {lang} iterator that merges {n} sorted streams of {thing} by {field} with a "
            "heap.",
            "Implement stable cursor pagination in {lang} for an API of {thing}, ordered by "
            "{field}, {n} items a page.",
        ),
        (
            "Refactor a {lang} service that stores {thing} so that concurrent updates of {field} "
            "neither deadlock nor lose writes under {n} threads.",
            "Implement a balanced interval tree in {lang} for {thing} keyed by {field}, with "
            "deletion and range queries over {n} million keys in logarithmic time.",
            "Write a {lang} parser with error recovery for a query language over {thing}, with "
            "nested filters on {field} up to depth {n}.",
        ),
        (
            "Design a lock-free {lang} queue of {thing} ordered by {field} that stays linearizable "
            "under {n} producers and reclaims memory safely.",
            "Implement a consensus log in {lang} that replicates {thing} across {n} nodes, with "
            "leader election, snapshots and recovery of {field} after a network partition.",
            "Build a {lang} compiler pass with alias analysis that vectorises loops over {thing} "
            "and keeps the semantics of {field} on {n} hardware targets.",
        ),
    ),
    conditions=(
        "It must handle empty input.",
        "Do not use third-party packages.",
        "Memory must stay below {n} megabytes.",
        "Add type annotations.",
        "Cover the edge cases with unit tests.",
        "An invalid {field} raises an exception.",
        "Keep the public interface unchanged.",
        "Log every rejected record.",
    ),
    slots={
        "lang": ("Python", "Rust", "Go", "Java", "TypeScript", "Kotlin", "Swift", "C++"),
        "field": ("price", "timestamp", "priority", "owner", "weight", "region", "checksum"),
        "thing": (
            "orders", "invoices", "sensor readings", "log events", "tickets", "parcels", "users",
            "bookings", "playlists", "transactions", "images", "messages", "build jobs", "routes",
        ),
    },
)  # fmt: skip

MATH = DomainTexts(
    tasks=(
        (
            "What is {n} plus {m}, if both count the {items} in one {place}?",
            "A {place} holds {n} rows of {m} {items}. How many {items} is that?",
            "Round {n}.{m} {items} per {place} to the nearest ten.",
        ),
        (
            "A {place} sells {n} {items} at a discount of {m} percent. What is left of a price of "
            "100 for each?",
            "Solve the linear equation {n}x + {m} = 1000 for the number x of {items} in a {place}.",
            "The mean of {n} weekly counts of {items} in a {place} is {m}. What is their sum?",
        ),
        (
            "In how many ways can {n} {items} be shared among {m} shelves of a {place} so that no "
            "shelf is empty?",
            "Find the probability that two of {n} {items} drawn from a {place} with {m} of them "
            "match.",
            "Solve the system of two quadratic equations for the {items} of a {place}: x^2 + y = "
            "{n} and x + y^2 = {m}.",
        ),
        (
            "Find a closed form of the recurrence a(k+1) = {n} a(k) - {m} a(k-1) that counts "
            "tilings of a {place} by {items}, and its asymptotic growth.",
            "Evaluate the integral of x^{n} log(x) / (1 + x^{m}) over the positive axis, met when "
            "{items} diffuse through a {place}.",
            "Find the eigenvalues of the transition matrix of a random walk of {items} on a "
            "{place} of {n} rooms, and bound its mixing time within {m} steps.",
        ),
        (
            "Prove a sharp inequality between the moments of order {n} and {m} for random "
            "{items} in a {place}, and characterise when equality is attained.",
            "Prove or refute: every colouring of the {items} of a {place} with {n} colours has a "
            "monochromatic arithmetic progression of length {m}; derive the best bound.",
            "Classify, up to isomorphism, the groups of order {n} times {m} that act freely on the "
            "{items} of a {place}, with a complete proof.",
        ),
    ),
    conditions=(
        "Show the calculation.",
        "Give the exact value, not a decimal.",
        "State every assumption.",
        "Treat the case of {n} separately.",
        "Verify the result in a second way.",
        "Do not use a calculator.",
        "Express the answer as a reduced fraction.",
        "Discuss the degenerate cases.",
    ),
    slots={
        "items": (
            "apples", "tiles", "marbles", "coins", "books", "tickets", "lamps", "beads", "cards",
            "stamps", "bricks", "chairs", "keys", "seeds",
        ),
        "place": ("garden", "warehouse", "market", "library", "theatre", "harbour", "workshop",
                  "museum"),
    },
)  # fmt: skip

KNOWLEDGE = DomainTexts(
    tasks=(
        (
            "Which country is the {subject} of {place} in, and is it older than {n} years?",
            "Name the language spoken at the {subject} of {place}, {n} kilometres inland.",
            "What is the {subject} of {place} best known for, in {n} characters or fewer?",
        ),
        (
            "When was the {subject} of {place} founded, and who ruled there {n} years later?",
            "List the {n} main facts about the {subject} of {place} that a guidebook gives.",
            "Describe the role of the {subject} of {place} in its region around the year {n}.",
        ),
        (
            "Compare the {subject} of {place} with that of {other} over {n} years: climate, trade "
            "and population.",
            "Explain why the {subject} of {place} declined while that of {other} grew for {n} "
            "years.",
            "Summarise the causes and consequences of the {n}-day strike at the {subject} of "
            "{place}, as seen from {other}.",
        ),
        (
            "Reconcile two conflicting chronicles about the {subject} of {place} and its treaty "
            "with {other} of the year {n}, and date the events.",
            "Trace how a legal doctrine passed from the {subject} of {place} to {other} across {n} "
            "disputed precedents.",
            "Assess the contested evidence on the epidemic at the {subject} of {place}, traced to "
            "{other} by {n} parish registers.",
        ),
        (
            "Identify the unnamed scribe of {n} cipher fragments from the {subject} of {place} by "
            "palaeography and obscure marginalia copied in {other}.",
            "Reconstruct the extinct dialect spoken at the {subject} of {place} from {n} loanwords "
            "in {other}, with sound laws and counterexamples.",
            "Establish the provenance of {n} forged charters of the {subject} of {place} from "
            "fragmentary archival sources scattered in {other}.",
        ),
    ),
    conditions=(
        "Name your sources.",
        "Give dates.",
        "Say what historians disagree about.",
        "Mention at least {n} inhabitants by occupation.",
        "Separate fact from legend.",
        "Give names in the original spelling.",
        "Say how certain each claim is.",
        "Leave out what cannot be verified.",
    ),
    slots={
        "subject": (
            "harbour", "university", "cathedral", "salt mine", "botanical garden", "parliament",
            "observatory", "silk market", "monastery", "shipyard", "hospital", "fortress",
        ),
        "place": ("Arvendal", "Port Selim", "Kestrova", "Monteluce", "Tarrin", "Old Bessary",
                  "Quillon", "Sankt Orsa", "Velmar", "Dunhaven"),
        "other": ("Ostmark", "Lissandra", "Corvane", "Halmstead", "Perrault", "Zirkova", "Amberly"),
    },
)  # fmt: skip

WRITING = DomainTexts(
    tasks=(
        (
            "Write a one-sentence thank-you note to {reader} for {n} {gifts}.",
            "Suggest a friendly subject line for an email to {reader} about {n} {gifts}.",
            "Correct the spelling of this notice for {reader}: '{n} {gifts} for sail'.",
        ),
        (
            "Write a polite email to {reader} that moves a meeting about {n} {gifts} to Monday.",
            "Write a product description of {n} {gifts} for {reader}, in a {tone} voice.",
            "Turn these notes on {n} {gifts} into a {tone} paragraph for {reader}.",
        ),
        (
            "Write a {tone} blog post of {n} words on {gifts} for {reader}, with a hook and a "
            "conclusion.",
            "Rewrite a press release on {n} {gifts} for {reader}, changing its voice to {tone}.",
            "Write a dialogue of {n} words in which {reader} quarrel about {gifts}, in a {tone} "
            "voice.",
        ),
        (
            "Write a {tone} short story of {n} words told backwards by an unreliable narrator, in "
            "which {reader} lose {gifts}.",
            "Write a persuasive {tone} speech of {n} words to hostile {reader} about {gifts}, "
            "interweaving two metaphors.",
            "Write a {tone} satire of {n} words on {reader} and {gifts} in the style of an "
            "eighteenth-century pamphlet.",
        ),
        (
            "Compose a crown of {n} interlocking sonnets in which {reader} mourn {gifts}, "
            "{tone} throughout, with an acrostic and strict iambic metre.",
            "Compose a {tone} villanelle cycle of {n} lines for {reader} on {gifts} whose "
            "refrains shift meaning and whose lines scan as palindromes by word.",
            "Compose a {tone} polyphonic novella outline of {n} scenes about {reader} and {gifts} "
            "in which every voice has its own metre, lipogram and symbolism.",
        ),
    ),
    conditions=(
        "Avoid cliches.",
        "Do not use the word 'very'.",
        "Stay below {n} words.",
        "Address the reader directly.",
        "End with a question.",
        "Keep the sentences short.",
        "Use the present tense only.",
        "Leave the outcome open.",
    ),
    slots={
        "reader": (
            "neighbours", "new colleagues", "retired sailors", "choir members", "gardeners",
            "schoolchildren", "beekeepers", "commuters", "nurses", "chess players", "bakers",
        ),
        "tone": ("warm", "dry", "playful", "solemn", "wry", "lyrical", "brisk"),
        "gifts": ("lanterns", "teapots", "umbrellas", "bicycles", "quilts", "postcards", "violins",
                  "kites", "clocks"),
    },
)  # fmt: skip

DOMAINS: Mapping[str, DomainTexts] = {
    "code": CODE,
    "math": MATH,
    "knowledge": KNOWLEDGE,
    "writing": WRITING,
}

CLOSINGS = (
    ("This is a quick and easy one.", "A short answer is enough.", "Keep it simple."),
    ("This is a routine request.", "A plain, standard answer will do.", "Nothing unusual here."),
    (
        "A careful answer is expected.",
        "Explain the main choice in a few sentences.",
        "Take the usual pitfalls into account.",
    ),
    (
        "This is a demanding task, since its parts depend on each other.",
        "Most first attempts miss something difficult, so justify each step.",
        "It is hard to get right: weigh the alternatives before you commit.",
    ),
    (
        "This is an expert-level challenge, and a partial solution counts as wrong.",
        "Even specialists usually fail at this; be rigorous and check every assumption.",
        "It is extremely hard: nothing may be left unproven, unchecked or approximate.",
    ),
)
"""By level; shared by all domains."""


@dataclass(frozen=True)
class SyntheticQueries:
    """N queries of the world. A text shows domain and level; `residual` cannot be seen in it."""

    ids: tuple[str, ...]  # (N,) sorted
    texts: tuple[str, ...]  # (N,) distinct
    domain: NDArray[np.int64]  # (N,) index into DOMAINS
    level: NDArray[np.int64]  # (N,) 0 (easy) to 4
    words: NDArray[np.int64]  # (N,) length of the text
    residual: NDArray[np.float64]  # (N,) difficulty in logits beyond that of the level

    def __len__(self) -> int:
        return len(self.ids)


def draw_queries(
    n: int, prefix: str, residual_deviation: float, rng: np.random.Generator
) -> SyntheticQueries:
    """N queries of all domains and levels; `prefix` starts their ids."""
    names = tuple(DOMAINS)
    domain = rng.integers(len(names), size=n)
    level = rng.choice(LEVELS, size=n, p=LEVEL_SHARES).astype(np.int64)
    residual = rng.normal(0, residual_deviation, size=n)
    random = Random(int(rng.integers(2**62)))  # many small draws: ten times numpy's speed
    taken: set[str] = set()
    texts = tuple(
        _compose_distinct(names[d], lv, random, taken)
        for d, lv in zip(domain.tolist(), level.tolist(), strict=True)
    )
    return SyntheticQueries(
        ids=tuple(f"{prefix}-{i:07d}" for i in range(n)),
        texts=texts,
        domain=domain,
        level=level,
        words=np.array([len(text.split()) for text in texts], dtype=np.int64),
        residual=residual,
    )


def compose(domain: str, level: int, random: Random) -> str:
    """One text of a domain and level."""
    texts = DOMAINS[domain]

    def fill(template: str) -> str:
        words = {name: random.choice(options) for name, options in texts.slots.items()}
        return template.format(n=random.randint(2, 999), m=random.randint(2, 999), **words)

    task = random.choice(texts.tasks[level])
    conditions = random.sample(texts.conditions, level + random.randint(0, 1))
    return " ".join([*map(fill, (task, *conditions)), random.choice(CLOSINGS[level])])


def _compose_distinct(domain: str, level: int, random: Random, taken: set[str]) -> str:
    """A text that is not in `taken`, and is added to it; ConfigError when none is left to find."""
    for _ in range(MOST_REDRAWS):
        text = compose(domain, level, random)
        if text not in taken:
            taken.add(text)
            return text
    raise ConfigError(
        f"synthetic world: no further text of domain {domain} at level {level} was found after "
        f"{MOST_REDRAWS} draws; ask for fewer than {len(taken)} queries"
    )
