"""Tests of router.http: a real server, and the clients that people use."""
