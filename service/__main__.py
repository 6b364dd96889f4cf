"""The `chatkit-mint` command, also as `python -m service`."""

import signal
import sys

SETUP = "make setup, then .venv/bin/chatkit-mint"


def main() -> None:
    """Run the command."""
    if sys.argv[1:2] == ["serve"]:
        # Until the service listens to it, a reload would end it: systemd takes that end for one that was asked for.
        signal.signal(signal.SIGHUP, signal.SIG_IGN)

    if sys.version_info < (3, 11):  # noqa: UP036  (somebody may start a clone with any)
        sys.exit(f"chatkit-mint needs Python 3.11 to 3.14; this is {sys.version.split()[0]}. In a clone: {SETUP}")
    try:
        from service.cli import main as run  # noqa: PLC0415  (takes a second)
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] == "service":
            raise
        sys.exit(f"chatkit-mint needs {error.name}, which {sys.executable} doesn't have. In a clone: {SETUP}")

    run()


if __name__ == "__main__":
    main()
