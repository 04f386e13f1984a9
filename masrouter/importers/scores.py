"""Outcomes: scores from the export or from a side file, brought to [0, 1] and joined to runs.

Nothing is chosen silently: several names need a name, a scale that is not [0, 1] needs its range,
labels need their worth, and a score of which only a part of the run is known is not the run's.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from masrouter.errors import LogError
from masrouter.importers.options import ImportOptions
from masrouter.importers.report import Account
from masrouter.importers.rows import Row
from masrouter.importers.traces import Place, Span, Trace, Traces
from masrouter.importers.values import BadValue, name_of, needed, number, text
from masrouter.logs.report import quote

_SIDE_FIELDS = ("id", "score", "score_source", "name")


@dataclass(slots=True)
class Score:
    """One judgement of a run, or of a part of one."""

    name: str
    value: float | None
    label: str | None
    source: str | None
    trace_id: str | None
    """None where only `target` says what was judged."""
    target: str | None
    """Id of a span, a response or a trace; None for the whole trace."""
    place: Place


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a run's scores agree on."""

    score: float
    source: str


class ScoreBook:
    """The scores of an import, until each is joined, ignored or rejected."""

    def __init__(self, account: Account, options: ImportOptions) -> None:
        self._account, self._options = account, options
        self._scores: list[Score] = []
        self._of_trace: defaultdict[str, list[tuple[Score, str | None]]] = defaultdict(list)

    def add(self, score: Score) -> None:
        """Take a score; it is joined later, when all rows are known."""
        self._scores.append(score)

    def read(self, rows: Iterable[Row], traces: Traces) -> None:
        """Take a side file's scores: columns id, score and, if there, score_source and name."""
        for row in rows:
            self._account.rows_read += 1
            try:
                self.add(_side_score(row, traces.place(row)))
            except BadValue as bad:
                self._account.reject(row, bad.name, bad.why, bad.detail)
                continue
            unknown = {n: 1 for n, v in row.data.items() if n not in _SIDE_FIELDS and v is not None}
            self._account.unmapped(unknown)

    def settle(self, traces: Traces) -> None:
        """Choose by name, bring to [0, 1] and find what each score judges; raises LogError."""
        chosen = self._chosen()
        self._need_sources(chosen)
        self._need_scale(chosen)
        scaled = [score for score in chosen if self._scale(score)]
        targets = {s.target for s in scaled if s.trace_id is None and s.target is not None}
        found: defaultdict[str, set[tuple[str, str]]] = defaultdict(set)
        for trace in traces:
            for span in trace.spans.values():
                for name in (span.id, span.also):
                    if name in targets and name is not None:
                        found[name].add((trace.id, span.id))
        for score in scaled:
            self._place(score, traces, found.get(score.target or "", set()))

    def outcome(self, trace: Trace, runs: Sequence[Sequence[Span]], run: int) -> Outcome | None:
        """What the scores say of one of a trace's runs, given as their calls.

        A score is of a run when the calls at or under what it judges are the run's calls.
        """
        calls = {span.id for span in runs[run]}
        everything = {span.id for spans in runs for span in spans}
        mine: list[Score] = []
        rest: list[tuple[Score, str | None]] = []
        for score, target in self._of_trace.pop(trace.id, []):
            judged = everything if target is None else _under(trace, target, everything)
            if judged == calls:
                mine.append(score)
            else:
                rest.append((score, target))
        if rest:
            self._of_trace[trace.id] = rest
        said = {(score.value, score.source) for score in mine}
        if len(said) == 1:
            self._account.rows_in_records += len(mine)
            value, source = said.pop()
            assert value is not None
            assert source is not None
            return Outcome(value, source)
        told = ", ".join(f"{value:g} ({source})" for value, source in sorted(said, key=str))
        for score in mine:
            self._account.reject(
                score.place, "score", "its run has scores that differ, and none is taken", told
            )
        return None

    def drop(self, trace: Trace, why: str) -> None:
        """Reject the scores that are left of a trace."""
        for score, target in self._of_trace.pop(trace.id, []):
            of = f"trace {quote(trace.id)}" + (f", part {quote(target)}" if target else "")
            self._account.reject(score.place, "score", why, of)

    def _chosen(self) -> list[Score]:
        names = Counter(score.name for score in self._scores)
        wanted = self._options.score_name
        listed = ", ".join(f"{name!r} ({count:,})" for name, count in names.most_common(30))
        if wanted is None and len(names) > 1:
            raise LogError(
                f"scores have several names: {listed}; say which is the outcome with "
                "--score-name NAME"
            )
        if wanted is not None and wanted not in names:
            there = f"there are {listed}" if names else "the export has no scores"
            raise LogError(f"no score is named {wanted!r}; {there}")
        for name, count in names.items():
            if wanted is not None and name != wanted:
                self._account.ignore(f"score of another name: {name}", count)
        return [score for score in self._scores if wanted is None or score.name == wanted]

    def _need_sources(self, scores: Iterable[Score]) -> None:
        for score in scores:
            score.source = score.source or self._options.score_source
            if score.source is None:
                raise LogError(
                    f"{score.place.file}:{score.place.where}: score {score.name!r}: nothing says "
                    "what scored it; say it with --score-source, such as tests, exact_match, "
                    "judge, human"
                )

    def _need_scale(self, scores: Iterable[Score]) -> None:
        if self._options.score_range is not None:
            return
        labels = self._options.score_labels
        values = [s.value for s in scores if s.value is not None and s.label not in labels]
        if values and not (min(values) >= 0 and max(values) <= 1):
            raise LogError(
                f"scores go from {min(values):g} to {max(values):g}, not from 0 to 1; say the "
                "lowest and highest that their scale allows with --score-range LOW HIGH"
            )

    def _scale(self, score: Score) -> bool:
        """Bring a score to [0, 1]; False where it is rejected."""
        low, high = self._options.score_range or (0.0, 1.0)
        labels = self._options.score_labels
        if score.label is not None and score.label in labels:
            score.value = labels[score.label]
            return True
        if score.value is None:
            why = "a label is no number; say what it is worth with --score-label LABEL=VALUE"
            self._account.reject(score.place, "score", why, f"got {quote(score.label)}")
            return False
        if not low <= score.value <= high:
            why = f"outside the range {low:g} to {high:g}"
            self._account.reject(score.place, "score", why, f"got {score.value:g}")
            return False
        score.value = (score.value - low) / (high - low)
        return True

    def _place(self, score: Score, traces: Traces, spans: set[tuple[str, str]]) -> None:
        """Join a score to its trace, or reject it."""
        why, trace_id, target = "", score.trace_id, score.target
        if trace_id is None and target in traces.by_id:
            trace_id, target = target, None
        elif trace_id is None and len(spans) == 1:
            trace_id, target = next(iter(spans))
        elif trace_id is None:
            why = "matches several calls" if spans else "matches no trace and no call"
        elif trace_id not in traces.by_id:
            why = "matches no trace"
        elif target is not None and not traces.by_id[trace_id].has(target):
            why = "matches no part of its trace"
        if why or trace_id is None:
            told = f"id {quote(score.target if score.trace_id is None else score.trace_id)}"
            self._account.reject(score.place, "score", why, told)
        else:
            self._of_trace[trace_id].append((score, target))


def _under(trace: Trace, target: str, calls: set[str]) -> set[str]:
    """Those of the calls that are a span or stand under it."""
    return {
        call for call in calls if any(span.id == target for span in trace.above(trace.spans[call]))
    }


def _side_score(row: Row, place: Place) -> Score:
    if not isinstance(row.data, dict) or not {"id", "score"} <= row.data.keys():
        raise BadValue("row", "expected the columns id and score", f"got {quote(row.data)}")
    value: float | None = None
    label: str | None = None
    raw = row.data["score"]
    if isinstance(raw, bool) or (isinstance(raw, str) and raw.lower() in ("true", "false")):
        value = float(raw if isinstance(raw, bool) else raw.lower() == "true")
    else:
        try:
            value = number(raw, "score")
        except BadValue:
            label = needed(raw, "score")
    if value is None and label is None:
        raise BadValue("score", "expected a number, true, false or a label", "got null")
    target = name_of(row.data["id"], "id")
    if target is None:
        raise BadValue("id", "expected text", "got null")
    name = text(row.data.get("name"), "name") or "score"
    source = text(row.data.get("score_source"), "score_source")
    return Score(name, value, label, source, None, target, place)
