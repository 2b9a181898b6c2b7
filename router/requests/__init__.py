"""What a request may hold, whatever way it has come in: each check is made here, and names its field."""
