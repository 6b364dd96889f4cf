"""`python -m service` is the `chatkit-mint` command."""

import signal
import sys

if sys.argv[1:2] == ["serve"]:
    # Until the service listens to it, a reload would end it: and systemd takes that end for one that was asked for.
    signal.signal(signal.SIGHUP, signal.SIG_IGN)

from service.cli import main

main()
