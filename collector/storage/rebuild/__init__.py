"""A damaged commit log made again: ``collector.storage.rebuild.making.rebuild``."""
