"""A faithful local stand-in for the Livestream service."""
