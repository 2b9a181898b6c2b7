"""The pocket reasoner: its tasks, its training, its export."""
