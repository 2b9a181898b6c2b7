"""The OpenAI API over HTTP: read, delegate, write."""
