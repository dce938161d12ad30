"""What becomes of committed parts: shipped to an object store, listed in a table, compacted."""
