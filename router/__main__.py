"""`python -m router` is `budget-router`."""

from router.cli import main

main()
