"""What was decided and how it turned out: the log and the audit."""
