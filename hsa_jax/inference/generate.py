"""Continues prompts, token by token."""

from collections.abc import Iterator

import numpy as np
from jaxtyping import Int

from hsa_jax.inference.decode import Decoder
from hsa_jax.inference.sampling import GREEDY, Sampling, sample


def generate(
  decoder: Decoder,
  *,
  max_tokens: int,
  sampling: Sampling = GREEDY,
  stop_token: int | None = None,
  vocab_size: int | None = None,
  num_rows: int | None = None,
) -> Iterator[Int[np.ndarray, " B"]]:
  """Tokens that follow what the decoder has read, one per row at a time.

  Args:
    decoder: from `prefill_decoder`; its memory must have room for the complete
      chunks of all tokens. It can go on where the generator stopped.
    max_tokens: how many at most.
    sampling: how each token is chosen.
    stop_token: ends a row, which repeats it from there on; once every row has
      ended, so does the generation.
    vocab_size: ids below it may be chosen; None: all that the model has.
    num_rows: rows that count; those behind them only fill the program's shape
      and are not waited for. None: all.

  Yields:
    The tokens of one position; `stop_token` itself is yielded.
  """
  rows = decoder.logits.shape[0]
  ended = np.arange(rows) >= (rows if num_rows is None else num_rows)
  for left in range(max_tokens, 0, -1):
    logits = decoder.logits[:, :vocab_size]
    tokens = np.array(sample(logits, decoder.position, sampling))
    if stop_token is not None:
      tokens[ended] = stop_token
      ended |= tokens == stop_token
    yield tokens
    if left == 1 or ended.all():
      return
    decoder.step(tokens)
