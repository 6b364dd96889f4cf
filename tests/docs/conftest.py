"""Terminals for readers of the documentation."""

import os
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from support.processes import clean_environ
from support.terminal import Terminal
from support.walk import own_network, taken


@pytest.fixture
def open_terminal(tmp_path: Path) -> Iterator[Callable[..., Terminal]]:
    """Open a terminal in a folder, on a loopback of its own, with `chatkit-mint` on its path."""
    network = own_network()
    if network is None and (ports := taken()):
        pytest.skip(f"no network namespace, and somebody listens on {ports}")
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    with ExitStack() as stack:

        def opened(folder: Path, **environ: str) -> Terminal:
            # http.server says at once that it is ready, though no terminal reads it
            given = clean_environ(HOME=str(tmp_path / "home"), PATH=path, PYTHONUNBUFFERED="1", **environ)
            return stack.enter_context(Terminal(folder, tmp_path / "prints", given, command=network or ()))

        yield opened
