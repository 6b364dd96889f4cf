"""Write docs/licences.md: the licence of every package of requirements/runtime.lock, as its own metadata names it.

`--check` writes nothing and ends with 1 where the page says something else.
"""

import re
import sys
from importlib.metadata import PackageNotFoundError, metadata
from pathlib import Path

LOCK = Path(__file__).with_name("runtime.lock")
PAGE = Path(__file__).parents[1] / "docs" / "licences.md"
HEAD = """# Licences of what the service runs with

Every package of `requirements/runtime.lock`, on whatever system it is needed. Made by `make generated`; a test keeps it
true, and refuses licences that ask more of who runs or changes the service than to keep notices: of those with any
copyleft, only the MPL, which ends at the file.

| package | version | licence (SPDX) |
|---|---|---|
"""

SPELLINGS = {
    "Apache 2.0": "Apache-2.0",
    "ISC License": "ISC",
    "ISC License (ISCL)": "ISC",
    "MIT License": "MIT",
}
"""Free text in metadata → SPDX. `License-Expression` is SPDX already (PEP 639)."""
READ = {
    "async-timeout": "Apache-2.0",
    "colorama": "BSD-3-Clause",
    "httpx-aiohttp": "BSD-3-Clause",
    "httpx2-jsfetch": "BSD-3-Clause",
    "uvloop": "MIT OR Apache-2.0",
}
"""Read by a person in the package's own files: it isn't installed everywhere, or its metadata is not exact."""

MAY = {"0BSD", "Apache-2.0", "BSD-2-Clause", "BSD-3-Clause", "ISC", "MIT", "MIT-0", "MPL-2.0", "PSF-2.0"}


class Unclear(Exception):  # noqa: N818
    """A package whose licence nobody has looked at."""


def locked() -> list[tuple[str, str]]:
    """Return the names and versions of the lock file."""
    return re.findall(r"^([\w.-]+)==([^\s;]+)", LOCK.read_text(), re.MULTILINE)


def licence(name: str) -> str:
    """Return a package's licence as an SPDX expression. Raises `Unclear`."""
    if name in READ:
        return READ[name]
    try:
        about = metadata(name)
    except PackageNotFoundError:
        raise Unclear(f"{name} is not installed here: add it to READ in {Path(__file__).name}") from None
    classifiers = [each.rpartition(" :: ")[2] for each in about.get_all("Classifier", []) if each.startswith("License")]
    told = [about[field] for field in ("License-Expression", "License") if field in about]
    text = told[0] if told else classifiers[0] if len(classifiers) == 1 else ""
    expression = SPELLINGS.get(text, text)
    if outside(expression) and "License-Expression" not in about:
        raise Unclear(f"{name} says {text.splitlines()[:1]}: look at its files, and add it to READ or SPELLINGS")
    return expression


def outside(expression: str) -> set[str]:
    """Return the licences of an expression that are not among those that may be, whether by AND or by OR."""
    return (set(re.findall(r"[\w.+-]+", expression)) or {"no licence"}) - {"AND", "OR"} - MAY


def page() -> str:
    """Return the page."""
    return HEAD + "".join(f"| {name} | {version} | {licence(name)} |\n" for name, version in locked())


def main() -> None:
    """Write or check the page; refuse what may not be."""
    try:
        made = page()
    except Unclear as unclear:
        sys.exit(str(unclear))
    refused = {name: found for name, _ in locked() if (found := outside(licence(name)))}
    if refused:
        sys.exit(f"not among the licences that may be: {refused}")
    if "--check" not in sys.argv:
        PAGE.write_text(made)
    elif not PAGE.exists() or PAGE.read_text() != made:
        sys.exit("docs/licences.md is not up to date: make generated")


if __name__ == "__main__":
    main()
