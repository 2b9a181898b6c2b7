"""The OpenAI API: its JSON and headers -> requests, and what answers them -> its JSON. No I/O."""
