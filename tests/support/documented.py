"""Every answer that a test gets is held against `/openapi.json`: what is not documented there fails the test."""

import re
from functools import cache
from typing import Any

import httpx2
from jsonschema import Draft202012Validator

from service.http.described import PUBLIC
from service.http.openapi import document

JSON = ("application/json", "application/problem+json")


@cache
def _document() -> dict[str, Any]:
    return document(PUBLIC)


@cache
def _paths() -> list[tuple[re.Pattern[str], str]]:
    """Each path's form; a subject may hold slashes, and so may a path."""
    forms = [(re.sub(r"\\{(\w+)\\}", _place, re.escape(path)), path) for path in _document()["paths"]]
    return [(re.compile(form), path) for form, path in forms]


def _place(found: re.Match[str]) -> str:
    return ".+" if found[1] in ("subject", "path") else "[^/]+"


@cache
def _validator(path: str, method: str, status: str, media_type: str) -> Draft202012Validator:
    place = "/".join(
        each.replace("~", "~0").replace("/", "~1")
        for each in ("paths", path, method, "responses", status, "content", media_type, "schema")
    )
    return Draft202012Validator({**_document(), "$ref": f"#/{place}"})


def check_documented(answer: httpx2.Response) -> None:
    """Fail unless the document says that this request may have this answer."""
    request = answer.request
    whole = request.url.raw_path.decode("ascii").partition("?")[0]
    path = next((path for form, path in _paths() if form.fullmatch(httpx2.URL(whole).path)), None)
    method = "get" if request.method == "HEAD" else request.method.lower()  # RFC 9110 §9.3.2
    operation = _document()["paths"].get(path, {}).get(method)
    if path is None or operation is None:
        assert answer.status_code in (204, 200, 400, 404, 405), f"{request.method} {whole} is not documented"
        assert answer.status_code != 200 or request.method == "HEAD", f"{request.method} {whole} is not documented"
        return
    which, status = f"{request.method} {path} {answer.status_code}", str(answer.status_code)
    assert status in operation["responses"], f"{which} is not documented"
    _check_headers(which, answer, operation["responses"][status]["headers"])
    content = operation["responses"][status].get("content") if request.method != "HEAD" else None
    if content is None:
        assert not answer.content, f"{which} has a body"
        return
    media_type = answer.headers["content-type"].partition(";")[0]
    assert media_type in content, f"{which} as {media_type} is not documented"
    if media_type in JSON:
        for mistake in _validator(path, method, status, media_type).iter_errors(answer.json()):
            raise AssertionError(f"{which}: {mistake.json_path}: {mistake.message}")


def _check_headers(which: str, answer: httpx2.Response, documented: dict[str, Any]) -> None:
    headers = _document()["components"]["headers"]
    for name in documented:
        assert not headers[name].get("required") or name in answer.headers, f"{which} lacks {name}"
    told = {name for name in headers if name in answer.headers}
    assert told <= set(documented), f"{which} has {told - set(documented)}, which is not documented"


def on_answer(answer: httpx2.Response) -> None:
    """Do so as a client's hook."""
    answer.read()
    check_documented(answer)
