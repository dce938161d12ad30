"""What is on disk: the journal, the commit log, the resend index, and every disk call there is."""
