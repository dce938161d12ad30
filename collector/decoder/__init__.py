"""The decoder processes: blocks of the journal in, staged Parquet parts out."""
