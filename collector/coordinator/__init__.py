"""The coordinator process: the only decider. It never touches the bytes of a hit."""
