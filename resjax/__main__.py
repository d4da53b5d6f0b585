"""As the `resjax` command: python -m resjax COMMAND ..."""

from resjax.cli import main

main()
