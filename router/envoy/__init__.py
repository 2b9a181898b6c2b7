"""Envoy's external processing: a gateway carries the bytes, and asks the router for the budget of a request alone."""
