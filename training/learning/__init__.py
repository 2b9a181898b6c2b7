"""Learning from evidence of a running service: rounds of policies, tests on what came after them, certified bundles."""
