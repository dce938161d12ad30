"""Decides. No sockets, files, processes or clocks: `now` and random numbers are arguments."""
