"""One module per command beyond `run`."""
