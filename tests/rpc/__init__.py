"""Tests of router.rpc: a real server and a real stub."""
