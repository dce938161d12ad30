"""The proof that what was accepted is there, once: ``collector.storage.verify.proof.verify``."""
