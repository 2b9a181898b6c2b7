"""Learning while serving: what answers at the top rung tell of shorter thoughts, and the file that keeps it."""
