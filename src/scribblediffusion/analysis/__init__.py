"""Numbers and words from a trace: pure functions whose results are small frozen records."""
