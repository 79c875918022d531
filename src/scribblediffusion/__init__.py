"""ScribbleDiffusion: see where each word and each stroke acted."""
