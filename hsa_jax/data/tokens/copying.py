"""Copying tasks among random ids: a span, scattered ids, an induction head.

The ids to copy and the filler come from different halves of the vocabulary; a
marker, the last ordinary id, stands before what is copied and before the
answer. Copying a span is induction with a long answer (arXiv 2209.11895); the
scattered form is the selective copying of Mamba (arXiv 2312.00752), where the
model itself has to tell the ids from the filler.
"""

import numpy as np

from hsa_jax.config.fields import SourceConfig, Task
from hsa_jax.data.tokenizer import Tokenizer
from hsa_jax.data.tokens.layout import (
  Tail,
  TokenSample,
  lay_out,
  unique_fraction,
)
from hsa_jax.data.tokens.rings import Haystacks, ordinary_ids, random_ring

SIZES = {Task.COPY_SPAN: 16, Task.SELECTIVE_COPY: 16, Task.INDUCTION: 1}


class CopyTask:
  """Ids of one source; meets `TokenTask`."""

  def __init__(self, source: SourceConfig, tokenizer: Tokenizer):
    """Divides the vocabulary.

    Raises:
      ValueError: fewer than four ordinary ids.
    """
    *ids, marker = ordinary_ids(tokenizer)
    if len(ids) < 3:
      raise ValueError(f"{len(ids) + 1} ordinary ids: copying needs four")
    self._scattered = source.task is Task.SELECTIVE_COPY
    self._size = SIZES[source.task]
    self._filler, self._data = np.array_split(np.array(ids, np.int32), 2)
    self._marker = np.array([marker], np.int32)
    self._eos = np.array([tokenizer.eos_id], np.int32)
    # Marker in the body and at the end, the ids twice, eos, one of filler.
    self.min_length = 2 * self._size + 4 - self._scattered

  def draw(
    self,
    rng: np.random.Generator,
    haystacks: Haystacks,
    *,
    length: int,
    depth: float | None = None,
  ) -> TokenSample:
    """Draws a sample; see `TokenTask.draw`. The haystack is random ids.

    Scattered ids begin at `depth` and are spread uniformly over the rest.
    """
    del haystacks
    data = self._data[rng.integers(0, len(self._data), self._size)]
    first = float(rng.random()) if depth is None else depth
    later = np.sort(rng.random(self._size - 1))
    tail = Tail()
    tail.write(self._marker)
    if self._scattered:
      needles = list(data[:, None])
      where = [first, *(first + (1 - first) * later).tolist()]
      for i, token in enumerate(needles):
        tail.ask(token, needle=i)
    else:
      needles, where = [np.concatenate([self._marker, data])], [first]
      tail.ask(data, needle=0, offset=1)
    tail.write(self._eos)
    ring = random_ring(rng, self._filler, length)
    layout = lay_out(ring, 0, needles, where, tail, length)
    recipe = {
      "length": length,
      "positions": list(layout.starts),
      "ids": data.tolist(),
    }
    unique = unique_fraction(ring, layout.body.filler)
    at = layout.depths[0]
    return TokenSample(layout.body, layout.answer, at, unique, recipe)
