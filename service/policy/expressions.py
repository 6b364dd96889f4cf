"""CEL, compiled once and evaluated many times; and text with `${…}` in it.

CEL's answer to an error is a value of type ERROR, which looks like text: every result goes through
`Expression.evaluate`, which raises instead.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import UTC, datetime
from functools import lru_cache
from typing import Any, Final, NamedTuple

import orjson
from cel_expr_python import cel
from cel_expr_python.ext import ext_strings

_MAP: Final = cel.Type.Map(cel.Type.STRING, cel.Type.DYN)
_WHO: Final = {"claims": _MAP, "tenant": cel.Type.STRING}
_ENVIRONMENT: Final = cel.NewEnv(
    variables={**_WHO, "request": _MAP, "now": cel.Type.TIMESTAMP}, extensions=[ext_strings.ExtStrings()]
)
_WHO_ENVIRONMENT: Final = cel.NewEnv(variables=_WHO, extensions=[ext_strings.ExtStrings()])
"""For what says who somebody is: not a matter of what they wish for, nor of when."""

_NUL: Final = rb"\u0000"
TEXT: Final = frozenset({"STRING", "DYN"})
TRUTH: Final = frozenset({"BOOL", "DYN"})
ANY: Final = frozenset({"STRING", "BOOL", "INT", "UINT", "DOUBLE", "DYN"})

HINTS: Final = {
    "recognition error at: '= '": "; compare with ==",
    "recognition error at: '$'": "; `${…}` is for texts, this is an expression already",
    "undeclared reference": "; it may speak of claims and tenant, and in rules and sessions of request and now",
}
"""What people mostly meant, by a part of what CEL says."""


class ExpressionError(ValueError):
    """The expression can't be compiled, or (at decision time) can't be evaluated."""


class Scope(NamedTuple):
    """What an expression may speak of. `now` is in Unix seconds."""

    claims: Mapping[str, Any]
    tenant: str
    request: Mapping[str, Any]
    now: float

    def activation(self) -> Any:
        """Return CEL's form of it, built once and used by every expression of a decision.

        Raises `ExpressionError` where a text holds a NUL: CEL's binding would cut it short there, and `admin␀x`
        would read as `admin`.
        """
        if _may_hold_nul(self) and (_has_nul(self.claims) or _has_nul(self.request)):
            raise ExpressionError("a claim or a wish holds a NUL character")
        return _ENVIRONMENT.Activation(
            {
                "claims": self.claims,
                "tenant": self.tenant,
                "request": self.request,
                "now": datetime.fromtimestamp(self.now, UTC),
            }
        )


def _may_hold_nul(scope: Scope) -> bool:
    """Return False where no text holds a NUL. In JSON there is one way to write it, and looking for that is quick."""
    try:
        return _NUL in orjson.dumps((scope.claims, scope.request))
    except TypeError:  # an integer over 64 bits, say
        return True


def _has_nul(value: Any) -> bool:
    rest = [value]
    while rest:
        each = rest.pop()
        if isinstance(each, str):
            if "\0" in each:
                return True
        elif isinstance(each, dict):
            rest += each.keys()
            rest += each.values()
        elif isinstance(each, list):
            rest += each
    return False


@lru_cache(maxsize=65_536)
def _compile(source: str, *, who: bool) -> Any:
    """Return the compiled form. Tenants that share a template share its expressions, also over reloads."""
    return (_WHO_ENVIRONMENT if who else _ENVIRONMENT).compile(source)


class Expression:
    """One compiled expression. Raises `ExpressionError` from the constructor if its type isn't in *kinds*.

    With *who* it may speak of `claims` and `tenant` alone, not of `request` and `now`.
    """

    __slots__ = ("_compiled", "_kinds", "source")

    def __init__(self, source: str, kinds: frozenset[str], *, who: bool = False) -> None:
        try:
            self._compiled = _compile(source, who=who)
        except RuntimeError as error:
            told = _first_line(str(error))
            hint = next((hint for text, hint in HINTS.items() if text in told), "")
            raise ExpressionError(f"`{source}` is not a valid expression: {told}{hint}") from None
        kind = self._compiled.return_type().name()
        if kind not in kinds:
            wanted = "/".join(sorted(kinds - {"DYN"})).lower()
            raise ExpressionError(f"`{source}` gives {kind.lower()} where {wanted} is needed")
        self.source = source
        self._kinds = kinds

    def evaluate(self, activation: Any) -> Any:
        """Return the value; raise `ExpressionError` where there is none, or one of another type."""
        try:
            result = self._compiled.eval(activation)
            kind = result.type().name()
            value = result.plain_value()
        except (RuntimeError, ValueError, TypeError, OverflowError):
            raise ExpressionError(f"`{self.source}` can't be evaluated for these claims") from None
        # The message of a CEL error may quote a claim; only the expression is ours to repeat.
        if kind == "ERROR":
            raise ExpressionError(f"`{self.source}` has no value for these claims")
        if kind not in self._kinds:
            raise ExpressionError(f"`{self.source}` gives {kind.lower()} for these claims")
        return value


class Conditions:
    """Expressions of type bool that are mostly wanted together: one call of CEL costs what two or three do."""

    __slots__ = ("_each", "_together")

    def __init__(self, each: Sequence[Expression]) -> None:
        self._each = each
        try:
            # Each in its own parentheses and lines: one may end in a comment.
            listed = ",\n".join(f"({expression.source}\n)" for expression in each)
            self._together = _compile(f"[{listed}]", who=False) if len(each) > 1 else None
        except RuntimeError:  # more than CEL takes in one expression
            self._together = None

    def truths(self, activation: Any) -> Iterable[bool]:
        """Return what each one is, in order; at one that has no truth value, taking it raises `ExpressionError`."""
        if self._together is not None:
            try:
                values = self._together.eval(activation).plain_value()
            except (RuntimeError, ValueError, TypeError, OverflowError):
                values = None
            # Where one is an error, all of them are, and where one is no bool, CEL doesn't mind.
            if type(values) is list and {*map(type, values)} == {bool}:
                return values
        return (expression.evaluate(activation) for expression in self._each)


def _first_line(message: str) -> str:
    first = message.partition("\n")[0]
    return first.removeprefix("INVALID_ARGUMENT: ").removeprefix("ERROR: <input>:").removesuffix(" [INVALID_ARGUMENT]")


Computed = Callable[[Any], Any]
"""A value that depends on the caller: activation → value; raises `ExpressionError`."""


@lru_cache(maxsize=65_536)
def parse_value(text: str) -> str | Computed:
    """Return *text* itself, or what computes it if it holds `${…}`; `$${` stands for a plain `${`.

    A whole-value expression keeps its type; inside text it becomes text.
    """
    parts = _split(text)
    if all(isinstance(part, str) for part in parts):
        return "".join(str(part) for part in parts)
    if len(parts) == 1 and isinstance(parts[0], Expression):
        return parts[0].evaluate

    def join(activation: Any) -> str:
        return "".join(part if isinstance(part, str) else _as_text(part.evaluate(activation)) for part in parts)

    return join


def _as_text(value: Any) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    return str(value)


def _split(text: str) -> list[str | Expression]:
    parts: list[str | Expression] = []
    plain, at = "", 0
    while (dollar := text.find("${", at)) >= 0:
        if dollar > at and text[dollar - 1] == "$":
            plain, at = f"{plain}{text[at : dollar - 1]}${{", dollar + 2
            continue
        plain += text[at:dollar]
        if plain:
            parts.append(plain)
        end = _closing_brace(text, dollar + 2)
        parts.append(Expression(text[dollar + 2 : end].strip(), ANY))
        plain, at = "", end + 1
    plain += text[at:]
    return [*parts, plain] if plain or not parts else parts


def _closing_brace(text: str, start: int) -> int:
    """Return where the `}` stands that ends the expression, past the braces and quotes inside it."""
    depth, quote, at = 0, "", start
    while at < len(text):
        letter = text[at]
        if quote:
            if letter == "\\":
                at += 1
            elif letter == quote:
                quote = ""
        elif letter in "\"'":
            quote = letter
        elif letter == "{":
            depth += 1
        elif letter == "}":
            if depth == 0:
                return at
            depth -= 1
        at += 1
    raise ExpressionError(f"`{text}` has a `${{` without its `}}`")
