"""The pocket reasoner: a reasoning model of 1.8 million parameters, trained here from scratch."""
