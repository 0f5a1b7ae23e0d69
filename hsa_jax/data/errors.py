"""Errors of the data room; every message names the thing and the fix."""


class DataError(ValueError):
  """Something about tokenizer, corpus or token store the user can fix."""


class TokenizerError(DataError):
  """The tokenizer cannot be loaded."""


class CorpusError(DataError):
  """The text cannot be fetched, read or split."""


class StoreError(DataError):
  """The token store is missing, damaged or made for something else."""
