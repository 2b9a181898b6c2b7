"""Certificates: the policies that are tested, the test, how many prompts it needs, and a test of the guarantee."""
