"""The path of a request: decide, then generate."""
