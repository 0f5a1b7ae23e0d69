"""bAbI stories of our own, and their facts hidden in books (BABILong)."""
