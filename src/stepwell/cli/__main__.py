"""`python -m stepwell.cli` is `stepwell`."""

from stepwell.cli.main import main

main()
