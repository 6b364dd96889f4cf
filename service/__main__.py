"""The `chatkit-mint` command, also as `python -m service`."""

import signal
import sys


def main() -> None:
    """Run the command."""
    if sys.argv[1:2] == ["serve"]:
        # Until the service listens to it, a reload would end it: systemd takes that end for one that was asked for.
        signal.signal(signal.SIGHUP, signal.SIG_IGN)

    from service.cli import main as run  # noqa: PLC0415  (takes a second)

    run()


if __name__ == "__main__":
    main()
