"""Stopping within the thought: rules that read the short answers probed at each cut, replayed and certified."""
