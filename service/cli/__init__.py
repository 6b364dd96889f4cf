"""The `chatkit-mint` command. Exit codes: 0 fine, 1 the thing is wrong, 2 usage."""

# Each adds its commands, and help lists them in this order.
from service.cli import servers  # noqa: F401

# isort: split
from service.cli import policy  # noqa: F401

# isort: split
from service.cli import operate  # noqa: F401
from service.cli.base import run


def main() -> None:
    """Run the command."""
    run()
