"""`GET /docs`: the same promises as `/openapi.json`, for people. One page, no script, nothing from another host."""

import inspect
import re
from base64 import b64encode
from collections.abc import Iterable, Sequence
from hashlib import sha256
from html import escape
from http import HTTPStatus
from typing import Final

import orjson

from service import __version__
from service.errors import Refusal
from service.http.operation import Credential, Operation, every_refusal

STYLE: Final = """
:root { color-scheme: light dark; --ink: #1d2330; --soft: #586174; --paper: #fff; --card: #f5f6f8; --line: #d9dde4;
  --link: #0b57c2; --focus: #0b57c2; }
@media (prefers-color-scheme: dark) { :root { --ink: #e6e9ef; --soft: #a4adbd; --paper: #14171d; --card: #1d222b;
  --line: #353c49; --link: #8ab8ff; --focus: #8ab8ff; } }
* { box-sizing: border-box; }
body { margin: 0; color: var(--ink); background: var(--paper); font: 1rem/1.6 system-ui, sans-serif; }
header, main, footer { max-width: 56rem; margin: 0 auto; padding: 0 1.25rem; }
header { padding-top: 2.5rem; }
main { padding-bottom: 4rem; }
h1 { font-size: 2rem; line-height: 1.2; margin: 0 0 .5rem; }
h2 { font-size: 1.4rem; margin: 3rem 0 .75rem; padding-bottom: .3rem; border-bottom: 1px solid var(--line); }
h3 { font-size: 1.05rem; margin: 2rem 0 .4rem; overflow-wrap: anywhere; scroll-margin-top: 1rem; }
section:target > h3 { outline: 2px solid var(--focus); outline-offset: .3rem; border-radius: .2rem; }
p { margin: .4rem 0; }
a { color: var(--link); text-underline-offset: .3em; }
a:focus-visible, [tabindex]:focus-visible { outline: 2px solid var(--focus); outline-offset: 2px; }
code, pre { font: .9em/1.5 ui-monospace, "DejaVu Sans Mono", Menlo, Consolas, monospace; }
code { background: var(--card); padding: .1em .3em; border-radius: .25em; }
pre { background: var(--card); border: 1px solid var(--line); border-radius: .5rem; padding: .8rem 1rem;
  overflow-x: auto; }
pre code, h3 code { background: none; padding: 0; font-weight: inherit; }
dl { display: grid; grid-template-columns: 8.5rem 1fr; gap: .15rem 1rem; margin: .5rem 0; }
dt { color: var(--soft); }
dd { margin: 0; min-width: 0; }
table { border-collapse: collapse; width: 100%; }
th, td { text-align: left; vertical-align: top; padding: .35rem .75rem .35rem 0; border-bottom: 1px solid var(--line); }
th { color: var(--soft); font-weight: 600; }
.scroll { overflow-x: auto; }
.status { color: var(--soft); font-weight: 400; }
.skip { position: absolute; left: -100rem; }
.skip:focus { left: 1rem; top: 1rem; background: var(--paper); padding: .5rem; }
@media (max-width: 40rem) { dl { grid-template-columns: 1fr; } dd { margin-bottom: .5rem; } }
"""
POLICY: Final = "; ".join(
    (
        "default-src 'none'",
        f"style-src 'sha256-{b64encode(sha256(STYLE.encode()).digest()).decode()}'",
        "img-src data:",
        "base-uri 'none'",
        "form-action 'none'",
        "frame-ancestors 'none'",
    )
)
"""The `Content-Security-Policy`: this page's own style, and nothing else."""

_CURL_CREDENTIAL: Final = {
    Credential.USER: '-H "Authorization: Bearer $ACCESS_TOKEN"',
    Credential.SERVICE: '-H "Authorization: Bearer $SERVICE_KEY"',
}
_PLACES: Final = {"{session_id}": "cksess_123", "{tenant}": "acme", "{subject}": "alice"}
_SHAPE: Final = {
    "type": "/docs#rate_limited",
    "title": "Too Many Requests",
    "status": 429,
    "detail": "Too many sessions were requested",
    "code": "rate_limited",
    "request_id": "req_5c1b0f8e2f8e4f0b9a3d7c61",
}

ELSEWHERE: Final = {
    "conflict": "The admin routes of the operations listener",
    "method_not_allowed": "Any path, asked with a method that it does not answer",
}
"""Of the codes that no route of the public listener has: where they come from."""


def page(operations: Sequence[Operation]) -> str:
    """Return the page."""
    refusals = every_refusal()
    return f"""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>chatkit-mint: its routes and refusals</title>
<link rel="icon" href="data:,">
<style>{STYLE}</style>
</head>
<body>
<a class="skip" href="#routes">To the routes</a>
<header>
<h1>chatkit-mint</h1>
<p>Mints short-lived ChatKit sessions for users that it knows, and ends them on logout. This page is made of the same
declarations as <a href="/openapi.json">the OpenAPI document</a>, and shows version {escape(__version__)}.</p>
</header>
<main>
<h2 id="routes">Routes</h2>
<p>In the examples <code>$MINT</code> is this service's address.</p>
{_overview(operations)}
{"".join(_route(operation) for operation in operations)}
<h2 id="refusals">Refusals</h2>
<p>Every no has one shape, problem details (RFC 9457). Switch on <code>code</code>; show <code>detail</code> to people;
tell operators the <code>request_id</code>, by which they find the reason in the log. Where a part of the request is
wrong, <code>field</code> names it.</p>
{_pre(orjson.dumps(_SHAPE, option=orjson.OPT_INDENT_2).decode())}
<p>Under <code>/v1/chatkit/</code> the body also has the <code>error</code> object that OpenAI's SDKs read; under
<code>/api/</code> its <code>error</code> is the text that the official starters' pages show.</p>
{_codes(refusals)}
{"".join(_refusal(kind, operations) for kind in refusals)}
</main>
</body>
</html>
"""


def _overview(operations: Iterable[Operation]) -> str:
    rows = "".join(
        f'<tr><td><a href="#{op.name}"><code>{_line(op)}</code></a></td><td>{_who(op)}</td></tr>\n' for op in operations
    )
    return _table("<tr><th>Route</th><th>Who</th></tr>", rows)


def _route(operation: Operation) -> str:
    codes = ", ".join(_link(kind) for kind in operation.possible)
    body = ""
    if operation.shape is not None:
        need = "" if operation.body_required else ", may be left out"
        body = f"<dt>Body</dt><dd><code>{operation.media_type}</code>{need}</dd>\n"
    answer = f"<code>{escape(operation.answers)}</code>" if operation.answers else "no body"
    return f"""<section id="{operation.name}">
<h3><code>{_line(operation)}</code></h3>
<p>{_prose(operation.summary)}</p>
<dl>
<dt>Credential</dt><dd>{_prose(_capital(operation.credential.value))}</dd>
{body}<dt>Answer</dt><dd>200, {answer}</dd>
<dt>Refusals</dt><dd>{codes}</dd>
</dl>
{_pre(_curl(operation))}
</section>
"""


def _codes(refusals: Iterable[type[Refusal]]) -> str:
    rows = "".join(
        f"<tr><td>{kind.status}</td><td>{_link(kind)}</td><td>{_prose(kind.public)}</td></tr>\n" for kind in refusals
    )
    return _table("<tr><th>Status</th><th>Code</th><th>The usual detail</th></tr>", rows)


def _table(head: str, rows: str) -> str:
    table = f"<table><thead>{head}</thead><tbody>\n{rows}</tbody></table>"
    return f'<div class="scroll" tabindex="0">{table}</div>'


def _refusal(kind: type[Refusal], operations: Iterable[Operation]) -> str:
    where = [f'<a href="#{op.name}"><code>{_line(op)}</code></a>' for op in operations if kind in op.possible]
    waits = kind.default_retry_after is not None
    return f"""<section id="{kind.code}">
<h3><code>{kind.code}</code> <span class="status">{kind.status} {HTTPStatus(kind.status).phrase}</span></h3>
<p>{_prose(inspect.cleandoc(kind.__doc__ or kind.public))}</p>
<dl>
<dt>What to do</dt><dd>{_prose(kind.advice)}</dd>
<dt>Retry-After</dt><dd>{"always" if waits else "no"}</dd>
<dt>Where</dt><dd>{"<br>".join(where) or _prose(ELSEWHERE[kind.code])}</dd>
</dl>
</section>
"""


def _curl(operation: Operation) -> str:
    path = operation.template
    for place, value in _PLACES.items():
        path = path.replace(place, value)
    parts = ["curl" if operation.method == "GET" else f"curl -X {operation.method}", f'"$MINT{path}"']
    if credential := _CURL_CREDENTIAL.get(operation.credential):
        parts.append(credential)
    if operation.example is not None and operation.media_type == "application/json":
        parts.append('-H "Content-Type: application/json"')
        parts.append(f"-d '{orjson.dumps(operation.example).decode()}'")
    elif operation.example is not None:
        parts += [f'--data-urlencode "{name}={value}"' for name, value in operation.example.items()]
    return " \\\n  ".join([" ".join(parts[:2]), *parts[2:]])


def _who(operation: Operation) -> str:
    return escape(_capital(operation.credential.value.partition(":")[0]))


def _line(operation: Operation) -> str:
    return f"{operation.method} {escape(operation.template)}"


def _link(kind: type[Refusal]) -> str:
    return f'<a href="#{kind.code}"><code>{kind.code}</code></a>'


def _pre(text: str) -> str:
    return f'<pre tabindex="0"><code>{escape(text)}</code></pre>'


def _prose(text: str) -> str:
    """Return *text* as HTML; what stands in backticks as code."""
    return re.sub(r"`([^`]+)`", r"<code>\1</code>", escape(text, quote=False))


def _capital(text: str) -> str:
    return text[:1].upper() + text[1:]
