"""The pocket reasoner: a model of 1.8 million parameters, its tasks, its training, its export."""
