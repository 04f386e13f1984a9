"""The playground's files and what it is told, as the server sends them."""

from __future__ import annotations

import re
from html.parser import HTMLParser
from importlib import resources

import httpx
import pytest
from tests.server.serving import MakeService, ask

from masrouter.catalog import Catalog
from masrouter.router import Router
from masrouter.server.keys import KeyEntry, key_digest

FILES = {
    file.name: file.read_text(encoding="utf-8")
    for file in resources.files("masrouter.server.playground").iterdir()
    if file.name.endswith((".html", ".css", ".js"))
}
SCRIPTS = sorted(name for name in FILES if name.endswith(".js"))
KEY = "a-key-of-thirty-two-characters--"


def get(make_service: MakeService, path: str, **headers: str) -> httpx.Response:
    return ask(make_service(), lambda client: client.get(path), **headers)


@pytest.mark.parametrize(
    ("path", "kind"),
    [
        ("/", "text/html; charset=utf-8"),
        ("/playground/style.css", "text/css; charset=utf-8"),
        *((f"/playground/{name}", "text/javascript; charset=utf-8") for name in SCRIPTS),
    ],
)
def test_every_file_is_served_under_a_strict_policy(
    make_service: MakeService, path: str, kind: str
) -> None:
    answer = get(make_service, path)
    assert answer.status_code == 200
    assert answer.headers["content-type"] == kind
    assert answer.text == FILES[path.rpartition("/")[2] or "index.html"]
    policy = dict(
        part.split(" ", 1) for part in answer.headers["content-security-policy"].split("; ")
    )
    assert policy == {
        "default-src": "'none'", "script-src": "'self'", "style-src": "'self'",
        "connect-src": "'self'", "img-src": "'self' data:", "base-uri": "'none'",
        "form-action": "'none'", "frame-ancestors": "'none'",
        "require-trusted-types-for": "'script'", "trusted-types": "'none'",
    }  # fmt: skip
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert answer.headers["referrer-policy"] == "no-referrer"


def test_a_browser_that_has_the_file_is_told_so_without_sending_it_again(
    make_service: MakeService,
) -> None:
    first = get(make_service, "/playground/app.js")
    assert first.headers["cache-control"] == "no-cache"
    tag = first.headers["etag"]
    for asked in (tag, f"W/{tag}", f'"other", {tag}'):
        again = get(make_service, "/playground/app.js", **{"if-none-match": asked})
        assert (again.status_code, again.content, again.headers["etag"]) == (304, b"", tag)
    assert (
        get(make_service, "/playground/app.js", **{"if-none-match": '"other"'}).status_code == 200
    )
    head = ask(make_service(), lambda client: client.head("/"))
    assert (head.status_code, head.content) == (200, b"")


@pytest.mark.parametrize(
    "path",
    [
        "/playground/page.py", "/playground/index.html", "/playground/", "/playground/nothing.js",
        "/playground/..%2Fpage.py", "/playground/%2e%2e%2fservice.py", "/playground/__init__.py",
    ],
)  # fmt: skip
def test_nothing_else_of_the_package_can_be_read(make_service: MakeService, path: str) -> None:
    answer = get(make_service, path)
    assert answer.status_code == 404
    assert answer.json()["error"]["code"] == "not_found"


def test_the_page_can_be_left_out(make_service: MakeService) -> None:
    service = make_service(playground=False)
    for path in ("/", "/playground/app.js", "/v1/playground/config"):
        assert ask(service, lambda client, path=path: client.get(path)).status_code == 404


def test_the_config_tells_what_the_router_chooses_from(
    make_service: MakeService, served_router: Router
) -> None:
    config = get(make_service, "/v1/playground/config").json()
    plans = served_router.plans
    assert config["runs"] is True
    assert [model["name"] for model in config["models"]] == sorted(
        {model for plan in plans for model in plan.models}
    )
    told = {entry["name"]: entry["description"] for entry in config["topologies"]}
    known = Catalog.default().topologies
    assert told == {plan.topology: known[plan.topology].description for plan in plans}
    assert config["max_agents"] == max(len(plan.agents) for plan in plans)
    weights = config["cost_weights"]
    assert 0 < weights["least"] <= config["default_cost_weight"] <= weights["most"]
    assert config["checkpoint"] == served_router.checkpoint


def test_the_config_says_when_nothing_can_be_run_and_leaves_out_models_nobody_serves(
    make_service: MakeService,
) -> None:
    service = make_service(llm=None)
    everything = [m["name"] for m in get(make_service, "/v1/playground/config").json()["models"]]
    service.unserved = (everything[0],)
    config = ask(service, lambda client: client.get("/v1/playground/config")).json()
    assert config["runs"] is False
    assert [model["name"] for model in config["models"]] == everything[1:]


def test_with_keys_the_page_is_open_and_the_config_is_not(make_service: MakeService) -> None:
    service = make_service(keys=(KeyEntry("me", key_digest(KEY)),))
    assert ask(service, lambda client: client.get("/")).status_code == 200
    config = "/v1/playground/config"
    assert ask(service, lambda client: client.get(config)).status_code == 401
    told = ask(service, lambda client: client.get(config), authorization=f"Bearer {KEY}")
    assert told.status_code == 200


@pytest.mark.parametrize("name", sorted(FILES))
def test_no_file_makes_markup_or_code_of_text_or_loads_from_elsewhere(name: str) -> None:
    text = FILES[name]
    refused = (
        "innerHTML", "outerHTML", "insertAdjacentHTML", "document.write", "eval(", "Function(",
        "createContextualFragment", "DOMParser", "srcdoc", "javascript:", "localStorage",
        "sessionStorage", "document.cookie", "@import", "url(",
    )  # fmt: skip
    found = [word for word in refused if word in text.replace('"url(#tip', "")]
    assert not found
    links = set(re.findall(r"\w+://[^\s'\"`)]+", text))
    assert links <= {"http://www.w3.org/2000/svg"}  # a name, which nothing loads


class Outline(HTMLParser):
    """What the page's markup holds."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def of(self, attribute: str) -> list[str]:
        return [given[attribute] or "" for _, given in self.tags if attribute in given]


def test_markup_and_scripts_agree_on_names() -> None:
    outline = Outline(FILES["index.html"])
    ids = outline.of("id")
    assert len(ids) == len(set(ids))
    used = set()
    for name in SCRIPTS:
        used |= set(re.findall(r'byId\("([^"]+)"\)', FILES[name]))
        for imported in re.findall(r'from "\./([^"]+)"', FILES[name]):
            assert imported in FILES, f"{name} imports {imported}"
    assert used <= set(ids)
    refers = outline.of("for") + outline.of("aria-labelledby")
    refers += [one for value in outline.of("aria-describedby") for one in value.split()]
    assert set(refers) <= set(ids)


def test_every_field_has_a_label_and_no_markup_holds_code_or_style() -> None:
    outline = Outline(FILES["index.html"])
    labels = set(outline.of("for"))
    for tag, given in outline.tags:
        assert not [name for name in given if name.startswith("on") or name == "style"]
        assert tag != "style"
        assert tag != "script" or given.get("src")
        if tag in ("input", "textarea", "select"):
            assert given["id"] in labels
    assert outline.tags[0] == ("html", {"lang": "en"})
