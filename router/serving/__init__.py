"""The composition root, and the processes and checks around it."""
