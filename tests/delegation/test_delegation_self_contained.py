"""What a task speaks of and its worker would not see is asked back before anything is sent."""

from __future__ import annotations

from pathlib import Path

import pytest
from tests.delegation.lacking import WRITTEN
from tests.delegation.matching_requests import REQUESTS
from tests.delegation.ordinary_goals import WHOLE
from tests.delegation.tool_samples import call, delegator, errors_in, model

from masrouter.delegation.tasks import Task
from masrouter.delegation.tools.self_contained import unseen
from masrouter.problems import read_problems

DATA = Path(__file__).parents[2] / "data" / "problems"


class TestSelfContained:
    @pytest.mark.parametrize(
        "goal",
        [
            "Summarise the above.",
            "Translate the text mentioned above into French.",
            "Continue our conversation.",
            "Fix the bug that we found in the previous message.".replace("the previous", "my last"),
            "Do as we discussed.",
            "Read the attached file and list its headings.",
            "Put the above in two lines.",
        ],
    )
    def test_what_only_the_parent_saw_is_asked_back(self, goal: str) -> None:
        llm = model()
        answer = call("delegate_task", {"goal": goal, "model": "small"}, delegator(llm))
        assert answer["error"]["type"] == "missing_information"
        assert "context" in answer["error"]["message"]
        assert llm.requests == []
        mended = {"goal": goal, "model": "small", "context": "The material."}
        assert call("delegate_task", mended)["status"] == "done"

    @pytest.mark.parametrize(
        "goal",
        [
            "List numbers above 10 among 5, 12 and 20.",
            "Find the above-average scores of 1, 2 and 9.",
            "Here are two notes. The first is on rivers, the second is on lakes; "
            "both are short. Summarise the above.",
            "Summarise this conversation: A: hello. B: good morning.",
            "Explain the first step of glycolysis.",
            "Name a town that lies above 3000 m.",
            "Tell what the attached document in the Zimmermann affair said.",
            "List what the above ground pool of a hotel needs.",
        ],
    )
    def test_a_goal_that_is_complete_is_let_through(self, goal: str) -> None:
        assert call("delegate_task", {"goal": goal, "model": "small"})["status"] == "done"

    @pytest.mark.parametrize(
        "second",
        ["Check the output of draft.", "Improve task draft.", 'Shorten the answer from "draft".',
         "Review the previous task."],
    )  # fmt: skip
    def test_another_tasks_answer_needs_needs(self, second: str) -> None:
        tasks = [{"id": "draft", "goal": "Draft a note.", "model": "small"},
                 {"goal": second, "model": "small"}]  # fmt: skip
        answer = call("delegate_tasks", {"tasks": tasks})
        assert errors_in(answer) == ["invalid_task"]
        assert answer["results"][1]["error"]["nearest"] == ["draft"]
        tasks[1]["needs"] = ["draft"]  # type: ignore[assignment]
        assert errors_in(call("delegate_tasks", {"tasks": tasks})) == []

    def test_none_of_many_complete_goals_is_refused(self) -> None:
        goals = [problem.query for problem in read_problems(DATA)]
        goals += [*WHOLE, *(text for text, _ in REQUESTS)]
        goals += [one.goal for one in WRITTEN if not one.lacks and not one.context]
        assert len(goals) > 700
        refused = [goal for goal in goals if unseen(Task(goal, id="one"), ("one", "two"))]
        assert refused == []

    @pytest.mark.parametrize(
        "second",
        ["List the second task of Hercules.", "Name the first task of a compiler.",
         "Explain the previous step in the Krebs cycle, before fumarate."],
    )  # fmt: skip
    def test_tasks_and_steps_of_others_are_no_reference(self, second: str) -> None:
        tasks = [{"goal": "Name a river.", "model": "small"}, {"goal": second, "model": "small"}]
        assert errors_in(call("delegate_tasks", {"tasks": tasks})) == []

    def test_a_goal_that_is_made_to_be_searched_for_ever_is_not(self) -> None:
        for goal in ("as we discussed " * 240_000 + ":", "task draft-" * 300_000):
            tasks = [{"id": "draft", "goal": "a"}, {"goal": goal}]
            answer = call("delegate_tasks", {"tasks": tasks, "model": "small"})
            assert len(errors_in(answer)) == 1

    def test_plain_english_is_no_reference_to_a_task_of_a_short_name(self) -> None:
        tasks = [
            {"id": "a", "goal": "Name a river.", "model": "small"},
            {"id": "b", "goal": "Explain the results of a survey in general.", "model": "small"},
        ]
        assert errors_in(call("delegate_tasks", {"tasks": tasks})) == []
