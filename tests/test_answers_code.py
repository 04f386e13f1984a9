"""The program in an answer, whatever stands around it."""

from __future__ import annotations

import ast

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from masrouter.answers import (
    extract_code,
)

GOOD = "def f(x):\n    return x + 1"
OLD = "def f(x):\n    return x"
TEST = "def test_f():\n    assert f(2) == 3"
STUB = "def f(x):\n    ..."


def fenced(code: str, tag: str = "python", fence: str = "```") -> str:
    return f"{fence}{tag}\n{code}\n{fence}"


def shape(program: str | None) -> str:
    assert program is not None
    return ast.dump(ast.parse(program))


ALONE = {
    "one block": f"Sure!\n{fenced(GOOD)}\nThat is all.",
    "no tag": fenced(GOOD, ""),
    "another tag": fenced(GOOD, "py"),
    "upper case tag": fenced(GOOD, "Python"),
    "attributes behind the tag": fenced(GOOD, 'python title="f.py"'),
    "braces around the tag": fenced(GOOD, "{.python}"),
    "tildes": fenced(GOOD, "py", "~~~"),
    "four backticks": fenced(GOOD, "python", "````"),
    "in a list": "1. So:\n   ```python\n   def f(x):\n       return x + 1\n   ```\n2. Done.",
    "behind a bullet": "- ```python\n  def f(x):\n      return x + 1\n  ```",
    "quoted": "> ```python\n> def f(x):\n>     return x + 1\n> ```\n> as asked",
    "fence behind words": f"The code: ```python\n{GOOD}\n```",
    "closing fence behind code": f"```python\n{GOOD}```",
    "unclosed": f"Here:\n```python\n{GOOD}",
    "unclosed with prose": f"```python\n{GOOD}\n\nThis adds one to its argument.",
    "only a closing fence": f"{GOOD}\n```\nIt adds one.",
    "on one line": "Use ```def f(x): return x + 1``` for it.",
    "carriage returns": fenced(GOOD).replace("\n", "\r\n"),
    "no fence": f"Here it is:\n\n{GOOD}\n\nThis works. Note: it is fast.",
    "words that parse around it": f"Note: x\nDone\n{GOOD}\nDone\nNote: fine\n42",
    "indented without a fence": "Code:\n\n    def f(x):\n        return x + 1\n\nFine.",
    "tags instead of fences": f"[PYTHON]\n{GOOD}\n[/PYTHON]",
    "a transcript": "```\n>>> def f(x):\n...     return x + 1\n...\n```",
    "usage in a transcript below": fenced(f"{GOOD}\n>>> f(2)\n3"),
    "prose inside the block": fenced(f"{GOOD}\n\nThis is the idea: it adds one."),
    "reasoning before": f"<think>\n{fenced(OLD)}\nno\n</think>\n{fenced(GOOD)}",
    "reasoning without its start": f"{fenced(OLD)}\nno\n</think>\n{fenced(GOOD)}",
    "usage block after": f"{fenced(GOOD)}\nUsage:\n{fenced('print(f(2))')}",
    "output block after": f"{fenced(GOOD)}\nOutput:\n{fenced('3', '')}",
    "tests after": f"{fenced(GOOD)}\n{fenced(TEST)}",
    "shell before": f"{fenced('pip install x', 'bash')}\n{fenced(GOOD)}",
    "signature after": f"{fenced(GOOD)}\nIts signature:\n{fenced(STUB)}",
    "an older version before": f"{fenced(OLD)}\nBetter:\n{fenced(GOOD)}",
    "a newer version cut off": f"{fenced(GOOD)}\nOr:\n```python\ndef f(x):\n    if x:\n        y =",
}  # fmt: skip


@pytest.mark.parametrize("text", ALONE.values(), ids=ALONE.keys())
def test_the_program_is_found(text: str) -> None:
    assert shape(extract_code(text, "f")) == shape(GOOD)
    assert shape(extract_code(text)) == shape(GOOD)


TOGETHER = {
    "helper first": ("def inc(x):\n    return x + 1", "def f(x):\n    return inc(x)"),
    "import first": ("import operator", "def f(x):\n    return operator.add(x, 1)"),
    "constant first": ("ONE = 1", "def f(x):\n    return x + ONE"),
}


@pytest.mark.parametrize("parts", TOGETHER.values(), ids=TOGETHER.keys())
@pytest.mark.parametrize("turned", [False, True])
def test_blocks_that_need_each_other_are_joined(parts: tuple[str, str], turned: bool) -> None:
    shown = parts[::-1] if turned else parts
    text = "\nand\n".join(map(fenced, shown))
    wanted = shape("\n".join(parts))
    assert shape(extract_code(text, "f")) == wanted
    assert shape(extract_code(text)) == wanted


def test_blocks_without_fences_are_joined_too() -> None:
    helper, main = TOGETHER["helper first"]
    text = f"First a helper.\n\n{helper}\n\nThen what was asked:\n\n{main}\n\nThat is it."
    assert shape(extract_code(text, "f")) == shape(f"{helper}\n{main}")


def test_a_repaired_function_takes_the_helper_of_the_first_version() -> None:
    first = "def inc(x):\n    return x + 1\n\ndef f(x):\n    return inc(inc(x))"
    second = "def f(x):\n    return inc(x)"
    program = extract_code(f"{fenced(first)}\nOnly f changes:\n{fenced(second)}", "f")
    assert program is not None
    assert program.index("inc(inc") < program.rindex("return inc(x)")


@pytest.mark.parametrize("fence", ["```", "~~~"])
def test_a_docstring_may_hold_fences(fence: str) -> None:
    code = 'def f(x):\n    """Add.\n\n```\nf(1)\n```\n    """\n    return x + 1'
    text = f"{fenced(code, 'python', fence)}\nDone.\n{fenced('f(1)', '')}"
    assert shape(extract_code(text, "f")) == shape(code)


BODIES = {
    "raw continuation": "    y = x + 1\n    return y\n",
    "stripped": "y = x + 1\n    return y",
    "in a block": fenced("    y = x + 1\n    return y"),
    "in a block, not indented": fenced("y = x + 1\nreturn y"),
    "in prose": "The body is:\n\n    y = x + 1\n    return y\n\nOk?",
    "in prose, not indented": "The body is:\n\ny = x + 1\nreturn y\n\nOk?",
    "tabs": "\ty = x + 1\n\treturn y\n",
}


@pytest.mark.parametrize("first", ["x.sort()", "# sorted first\nx.sort()", "x %= 7", "x <<= 1"])
def test_a_body_in_prose_is_taken_from_its_first_line(first: str) -> None:
    body = f"{first}\nif(x == []):\n    return None\nreturn x[0]"
    indented = "\n".join(f"    {line}" for line in body.split("\n"))
    assert shape(extract_code(f"The body is:\n\n{indented}\n\nOk?", "f")) == shape(body)


def test_text_within_a_program_keeps_its_blank_lines() -> None:
    code = 'def f(x):\n    return """a\n    \n\t\nb"""'
    for text in (code, f"So:\n\n{code}\n\nDone now.", fenced(code), f"```python\n{code}"):
        assert shape(extract_code(text, "f")) == shape(code)


@pytest.mark.parametrize("text", BODIES.values(), ids=BODIES.keys())
def test_the_body_of_a_function_is_found(text: str) -> None:
    assert shape(extract_code(text, "f")) == shape("y = x + 1\nreturn y")


@pytest.mark.parametrize(
    "text",
    [
        "",
        "I cannot do that.",
        "Answer: 42",
        fenced("42", ""),
        fenced("hello", ""),
        fenced('{"a": [1, 2]}', "json"),
        fenced("def f(x:\n", "python"),
        "<think>def f(x):\n    return x",
        fenced("def f(x):\n    return '\0'"),
        fenced(f"def f(x):\n    return {'(' * 5000}{')' * 5000}"),
        fenced("x = " + "-" * 60_000 + "1"),
        fenced(GOOD) + "x" * 200_000,
    ],
)
def test_where_there_is_no_program_there_is_none(text: str) -> None:
    assert extract_code(text) is None
    assert extract_code(text, "f") is None


def test_a_function_of_another_name_is_found_but_not_renamed() -> None:
    text = fenced("def g(x):\n    return x + 1")
    assert extract_code(text, "f") == "def g(x):\n    return x + 1"
    assert extract_code("Here:\n" + text.replace("```", "").replace("python", ""), "f") is not None


def test_nothing_is_stripped_by_its_letters() -> None:
    for code in ("print(1)", "python = 3\nnot_n = python", "typing = {}\nytho = 1"):
        assert extract_code(fenced(code)) == code


def test_quotes_and_tabs_stay_as_they_are() -> None:
    code = "def f(x):\n\treturn '“' + x + \"'\""
    assert extract_code(fenced(code), "f") == code


PROGRAMS = [
    GOOD,
    "from functools import lru_cache\n\n\n@lru_cache(maxsize=None)\ndef f(x):\n    return x",
    'def f(x):\n    """Return x.\n\n    >>> f(1)\n    1\n    """\n    return x',
    "class Node:\n    pass\n\n\ndef f(x):\n    n = Node()\n    return n, x",
    "def f(x):\n    s = '''```'''\n\n    # a comment\n    return s + str(x)\n",
    "import math\n\nA = 3\n\n\ndef helper(y):\n    return math.sqrt(y) * A\n\n\ndef f(x):\n"
    "    if x:\n        return helper(x)\n\n    return 0",
    "def f(x):\n\n    if x > 1:\n\n        return 1\n\n    else:\n        return f(x - 1)",
    "async def f(x):\n    return [y async for y in x]",
]
BEFORE = ["", "Sure!\n\n", "Here is the code:\n", "## Plan\n1. Add one.\n2. Return it.\n\n",
          "<think>\nLet me see: ```python\ndef f(x): return 0\n```\n</think>\n",
          "I first thought of `f(x) = x`, but no.\n", "Answer:\n",
          "Signature:\n```python\ndef f(x):\n    pass\n```\nSolution:\n"]  # fmt: skip
AFTER = ["", "\n", "\nThis runs in O(n).", "\n\n**Complexity**: O(1).\n- fine\n- good",
         "\n```\n>>> f(2)\n3\n```", "\n```python\nprint(f(2))\nassert f(2) == 3\n```\n",
         "\n```python\ndef test_f():\n    assert f(1)\n```",
         "\n\nOutput:\n\n```text\n3\n```"]  # fmt: skip


@settings(max_examples=300, deadline=None)
@given(
    program=st.sampled_from(PROGRAMS),
    before=st.sampled_from(BEFORE),
    after=st.sampled_from(AFTER),
    fence=st.sampled_from(["```", "````", "~~~"]),
    tag=st.sampled_from(["python", "py", "", "Python3"]),
    indent=st.sampled_from(["", "  ", "   ", "\t"]),
    crlf=st.booleans(),
)
def test_a_program_is_recovered_from_any_chat_around_it(
    program: str, before: str, after: str, fence: str, tag: str, indent: str, crlf: bool
) -> None:
    block = "\n".join(
        indent + line if line else line for line in fenced(program, tag, fence).split("\n")
    )
    text = before + block + after
    found = extract_code(text.replace("\n", "\r\n") if crlf else text, "f")
    assert shape(found) == shape(program)


@settings(max_examples=100, deadline=None)
@given(
    program=st.sampled_from(PROGRAMS),
    before=st.sampled_from(BEFORE[:4]),
    after=st.sampled_from(["", "\n", "\n\nThis runs in O(n).\n", "\n\nHope this helps!"]),
)
def test_a_program_is_recovered_without_any_fence(program: str, before: str, after: str) -> None:
    assert shape(extract_code(before + program + after, "f")) == shape(program)
