"""Text, tokens, synthetic tasks and batches: NumPy only, no device."""
