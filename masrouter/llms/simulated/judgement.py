"""Right or wrong: what a simulated model makes of a situation.

A model's ability on a task, in log-odds of a right answer, is

    a = skill(model, domain) - step * (difficulty - 3) + e(task) + e(model, task)
        + role + reasoning + plans + second chance

with skill from published accuracy and e(.) fixed by the seed: some tasks are harder than they look,
and every model has tasks that it does not get however often it is asked. One sample is right with
probability sigmoid(sharpness * a). Wrong answers are not spread evenly: most models fall for the
same mistake, so that a majority can be wrong.

Where the prompt shows answers, the model believes in each of them, its own sample too, by

    belief(k) = own + peers(k) + evidence(k) + conviction(model, k) + noise

evidence being what its checking finds (for a capable model, more for the right one), a report of
tests and a critique; conviction is fixed by the seed, so that who is taken in once is taken in
again. It says what it believes in most. Weights are assumptions of the simulation, chosen
so that published findings about teams come out as tendencies: samples and votes help where
a model is right more often than not (Wang et al. 2023, arXiv 2203.11171), debate helps where
answers can be checked and may spread errors otherwise (Du et al. 2023, arXiv 2305.14325), and
self-criticism without feedback from outside helps little (Huang et al. 2024, arXiv 2310.01798).

Where a needed part of the question stands nowhere in the prompt, nobody can do better than guess,
and no checking tells a right answer from a wrong one; whether a model notices is another matter
(`finds_missing`).
"""

from __future__ import annotations

import hashlib
import math
import random
from collections import Counter
from dataclasses import dataclass

from masrouter.llms.simulated.models import SimulatedModel
from masrouter.llms.simulated.situation import Situation
from masrouter.llms.simulated.tasks import RIGHT, SimulatedTask


@dataclass(frozen=True, slots=True)
class Weights:
    """The simulation's assumptions, in log-odds where nothing else is said."""

    step: float = 0.8
    """Per grade of difficulty."""
    task_spread: float = 0.6
    """Standard deviation of e(task)."""
    model_spread: float = 0.8
    """Standard deviation of e(model, task)."""
    sharpness: float = 1.6
    """How sure a model is of itself from sample to sample; higher: the same answer again."""
    fitting_role: float = 0.2
    """A role of the task's domain; another domain's costs as much."""
    no_reasoning: tuple[tuple[str, float], ...] = (
        ("math", -0.6),
        ("code", -0.1),
        ("knowledge", -0.2),
    )
    """Answering at once where no reasoning is asked for; nothing for models that always reason."""
    plan: float = 0.6
    """A plan or part result that hits the point; one that misses it costs as much."""
    second_chance: float = 0.5
    """Being told rightly that the earlier answer is wrong."""
    own: float = 0.8
    peer: float = 0.7
    """First peer with an answer; further ones add less: peer * log(1 + votes) / log(2)."""
    checking: float = 1.0
    """Most that checking weighs; scaled by sigmoid(ability), and by domain below."""
    checkable: tuple[tuple[str, float], ...] = (("math", 1.0), ("code", 0.8), ("knowledge", 0.5))
    tests_failed: float = -4.0
    tests_passed: float = 2.0
    critique_wrong: float = -1.3
    critique_stands: float = 0.5
    conviction: float = 1.0
    """Standard deviation of what a model finds convincing in an answer, right or wrong; it belongs
    to the model and the answer, so that asking again does not help."""
    noise: float = 0.5
    """Standard deviation of the noise in beliefs, from call to call."""
    missed_fault: float = 0.4
    """How much less able a model is to see what is wrong with an answer than to give one."""
    false_alarm: float = 0.3
    """Share of right answers that a model without any ability would call wrong."""
    steps: tuple[tuple[str, float], ...] = (("math", 1.0), ("code", 0.5), ("knowledge", 0.5))
    """Steps of work, beyond two, per grade of difficulty."""
    strayed: float = 0.3
    """Most of the times that a model shown a step on the way to a wrong answer does not go on from
    it; scaled by sigmoid(ability). Finding a mistake in given steps is hard even for models that
    could mend it (Tyen et al. 2024, arXiv 2311.08516), so that most follow."""
    guess: float = 0.05
    """Share of right answers without a needed part; among options, an equal share of them."""
    gap_noticed: float = -0.3
    """Log-odds that a model told to name what is missing notices that a needed part is, if it gets
    half of a domain's tasks right. The level is a guess: about half of the gaps for small models,
    as it falls between the 40 to 50 % and the high rates at which models picked the right question
    to ask in logic and in school mathematics (QuestBench, Li et al. 2025, arXiv 2503.22674)."""
    gap_skill: float = 0.4
    """Per unit of skill in the domain; little, as abler models hardly abstain more where they
    should (AbstentionBench, Kirichenko et al. 2025, arXiv 2506.09038)."""
    gap_reasons: float = -0.6
    """For models that always reason: training for it made models abstain less, by 24 % in the mean
    (there); so much is 24 % of a share of 0.6."""
    gap_spread: float = 1.0
    """Standard deviation of how readily a model misses something in a task; it belongs to the two,
    so that asking again does not help."""
    gap_alarm: float = -2.5
    """Log-odds that such a model misses something where nothing is missing; skill counts against
    it as it counts for noticing."""


def draws(*key: object) -> random.Random:
    """A stream of random numbers that is a function of its key alone."""
    text = "\x1f".join(map(str, key))
    digest = hashlib.sha256(text.encode("utf-8", "surrogatepass")).digest()
    return random.Random(int.from_bytes(digest[:16], "big"))


def sigmoid(x: float) -> float:
    """1 / (1 + e^-x)."""
    return 1.0 / (1.0 + math.exp(-x)) if x > -500 else 0.0


def log_odds(share: float) -> float:
    """log(p / (1 - p)) of a share in (0, 1)."""
    return math.log(share / (1.0 - share))


@dataclass(frozen=True, slots=True)
class Mind:
    """A model in front of one task; `seed` names the simulated world."""

    model: SimulatedModel
    task: SimulatedTask
    seed: int
    weights: Weights = Weights()

    def ability(self, situation: Situation) -> float:
        """Log-odds of a right answer, before anybody's answer is weighed."""
        w, task = self.weights, self.task
        if situation.lacks:
            share = 1.0 / (1 + len(task.wrong)) if task.has_options else w.guess
            return log_odds(share) / w.sharpness
        a = self.model.skill(task.domain) - w.step * (task.difficulty - 3.0)
        a += draws(self.seed, "task", task.key).gauss(0.0, w.task_spread)
        own = draws(self.seed, "model", self.model.name, task.key)
        a += own.gauss(0.0, w.model_spread)
        if situation.role_domain is not None:
            a += w.fitting_role if situation.role_domain == task.domain else -w.fitting_role
        if not situation.asks_reasoning and not self.model.reasons:
            a += dict(w.no_reasoning).get(task.domain, 0.0)
        hits, misses = situation.right_hints, situation.wrong_hints
        if hits + misses:
            a += w.plan * (hits - misses) / (hits + misses)
        return a

    def sample(
        self,
        ability: float,
        rng: random.Random,
        excluded: int | None = None,
        among: frozenset[int] | None = None,
    ) -> int:
        """One answer drawn afresh; `excluded` is one known not to be it.

        among: the answers that are left, at least one; the draw is that without it, given that it
        falls among them. Where only the excluded one is left, it is that.
        """
        right = sigmoid(self.weights.sharpness * ability)
        if among is not None:
            return self._among(among - {excluded} or among, right, rng)
        if excluded != RIGHT and rng.random() < right:
            return RIGHT
        wrong = [i for i in range(1, len(self.task.wrong) + 1) if i != excluded]
        if not wrong:
            return RIGHT if excluded != RIGHT else 1
        tempting = sorted(wrong, key=self._temptations().index)
        return rng.choices(tempting, [0.5**rank for rank in range(len(tempting))])[0]

    def _among(self, left: frozenset[int], right: float, rng: random.Random) -> int:
        """One of some answers, as likely to each other as they are among all."""
        order = self._temptations()
        tempts = {k: 0.5**rank for rank, k in enumerate(order)}
        likely = {k: (1.0 - right) * tempts[k] / sum(tempts.values()) for k in order}
        likely[RIGHT] = right
        answers = sorted(left)
        return rng.choices(answers, [likely[k] + 1e-300 for k in answers])[0]

    def _temptations(self) -> list[int]:
        """Wrong answers, each half as tempting as the one before: an order of the task."""
        wrong = range(1, len(self.task.wrong) + 1)
        return draws(self.seed, "mistakes", self.task.key).sample(wrong, len(wrong))

    def answer(
        self, situation: Situation, rng: random.Random, among: frozenset[int] | None = None
    ) -> int:
        """The answer that the model gives: an index of the task's answers.

        among: the answers to which the steps that it is shown can lead; None for all.
        """
        w = self.weights
        ability = self.ability(situation)
        refuted = situation.refuted
        told = refuted is not None and refuted != RIGHT
        if situation.own is not None and refuted is None:
            fresh = situation.own  # nobody asked it to start afresh
        else:
            fresh = self.sample(
                ability + (w.second_chance if told and not situation.lacks else 0.0),
                rng,
                excluded=refuted if situation.tests == "failed" else None,
                among=among,
            )
        seen = Counter(situation.answers)
        if not seen and situation.own is None:
            return fresh
        beliefs: dict[int, float] = {}
        for k in sorted({fresh, *seen, *(() if situation.own is None else (situation.own,))}):
            belief = w.own if k in (situation.own, fresh) else 0.0
            belief += w.peer * math.log2(1 + seen[k])
            belief += 0.0 if situation.lacks else self.evidence(ability, k)
            belief += draws(self.seed, "conviction", self.model.name, self.task.key, k).gauss(
                0.0, w.conviction
            )
            if k == situation.shown:
                belief += self._feedback(situation)
            beliefs[k] = belief + rng.gauss(0.0, w.noise)
        return max(beliefs, key=beliefs.__getitem__)

    def evidence(self, ability: float, index: int) -> float:
        """What checking an answer says for it."""
        w = self.weights
        strength = w.checking * dict(w.checkable).get(self.task.domain, 0.5) * sigmoid(ability)
        return strength if index == RIGHT else -strength

    def calls_wrong(self, situation: Situation, rng: random.Random) -> bool:
        """A critic's verdict on the answer that is shown."""
        w = self.weights
        ability = self.ability(situation)
        if situation.tests == "failed":
            return True
        if situation.shown is None:
            return rng.random() < 0.5
        if situation.lacks:
            return rng.random() < w.false_alarm
        if situation.shown == RIGHT:
            return rng.random() < w.false_alarm * sigmoid(-ability)
        scale = dict(w.checkable).get(self.task.domain, 0.5)
        return rng.random() < scale * sigmoid(w.sharpness * (ability - w.missed_fault))

    def hits_the_point(self, situation: Situation, rng: random.Random) -> int:
        """Index of the answer that a plan or part result leads to."""
        return self.sample(self.ability(situation), rng)

    def leaves(self, situation: Situation, rng: random.Random) -> bool:
        """Whether it turns away from given steps that lead to a wrong answer."""
        return rng.random() < self.weights.strayed * sigmoid(self.ability(situation))

    def finds_missing(self, situation: Situation, rng: random.Random) -> bool:
        """Whether it says that the question lacks something, rightly or not."""
        w = self.weights
        skill = w.gap_skill * self.model.skill(self.task.domain)
        struck = draws(self.seed, "gap", self.model.name, self.task.key).gauss(0.0, w.gap_spread)
        if situation.lacks:
            odds = w.gap_noticed + skill + struck + (w.gap_reasons if self.model.reasons else 0.0)
        else:
            odds = w.gap_alarm - skill + struck
        return rng.random() < sigmoid(odds)

    def _feedback(self, situation: Situation) -> float:
        w = self.weights
        change = {"failed": w.tests_failed, "passed": w.tests_passed, None: 0.0}[situation.tests]
        for wrong in situation.verdicts:
            change += w.critique_wrong if wrong else w.critique_stands
        return change
