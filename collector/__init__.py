"""Livestream collector: one connection in, Parquet out, every refusal ridden out."""

__version__ = "0.1.0"
