"""`python -m training` is `budget-train`."""

from training.cli import main

main()
