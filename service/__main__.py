"""`python -m service` is the `chatkit-mint` command."""

from service.cli import main

main()
