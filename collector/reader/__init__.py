"""The reader process: holds the one connection and writes whole records into the journal."""
