"""What real engines do with what the router sends them: budgets, fields of a request, and the three ways in."""
