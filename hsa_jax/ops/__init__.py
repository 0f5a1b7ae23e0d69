"""Pure functions on arrays; every fast path has a slow twin in `reference`."""
