"""MQAR: pairs of single ids, then many of the keys, each with its value.

The task of Zoology (arXiv 2312.04927): keys and values are halves of the
vocabulary, the gaps between queries follow a power law, everything else is
random. There the pairs open the row and the queries fill the rest of it. Here
pairs may stand at any depth, and the queries share a zone at the end, four
slots wide for each of them, so that a row of any length asks for the same
logits. The value stands after its key, as it would in a language model's text.
"""

import numpy as np
from jaxtyping import Int

from hsa_jax.config.fields import SourceConfig
from hsa_jax.data.tokenizer import Tokenizer
from hsa_jax.data.tokens.layout import (
  Tail,
  TokenSample,
  lay_out,
  unique_fraction,
)
from hsa_jax.data.tokens.rings import Haystacks, ordinary_ids, random_ring

POWER = 0.01
SLOTS_PER_QUERY = 4


class MqarTask:
  """Ids of one source; meets `TokenTask`."""

  def __init__(self, source: SourceConfig, tokenizer: Tokenizer):
    """Divides the vocabulary.

    Raises:
      ValueError: more pairs than keys, or more queries than pairs.
    """
    pairs, asked = source.num_needles, source.num_questions
    self._ids = ordinary_ids(tokenizer)
    self._keys, self._values = np.array_split(self._ids, 2)
    if not 1 <= asked <= pairs <= len(self._values):
      raise ValueError(
        f"num_needles = {pairs}, num_questions = {asked}: must be in"
        f" 1..{len(self._values)} keys, and no more questions than needles"
      )
    self._pairs, self._asked = pairs, asked
    self._slots = SLOTS_PER_QUERY * asked
    self._eos = np.array([tokenizer.eos_id], np.int32)
    self.min_length = 2 * pairs + 2 * self._slots + len(self._eos) + 1

  def draw(
    self,
    rng: np.random.Generator,
    haystacks: Haystacks,
    *,
    length: int,
    depth: float | None = None,
  ) -> TokenSample:
    """Draws a sample; see `TokenTask.draw`. The haystack is random ids."""
    del haystacks
    keys = rng.choice(self._keys, self._pairs, replace=False)
    values = rng.choice(self._values, self._pairs, replace=False)
    asked = rng.permutation(self._pairs)[: self._asked].tolist()
    law = power_law(self._slots)
    slots = rng.choice(self._slots, self._asked, replace=False, p=law)
    where = float(rng.random()) if depth is None else depth
    others = self._ids[~np.isin(self._ids, keys)]
    zone = others[rng.integers(0, len(others), (self._slots, 2))]
    ring = random_ring(rng, others, length)
    pairs = np.stack([keys, values], axis=1).reshape(-1)
    tail = self._tail(
      zone, dict(zip(slots.tolist(), asked, strict=True)), pairs
    )
    layout = lay_out(ring, 0, [pairs], [where], tail, length)
    recipe = {
      "length": length,
      "position": layout.starts[0],
      "keys": keys.tolist(),
      "values": values.tolist(),
      "slots": sorted(slots.tolist()),
    }
    unique = unique_fraction(ring, layout.body.filler)
    at = layout.depths[0]
    return TokenSample(layout.body, layout.answer, at, unique, recipe)

  def _tail(
    self,
    zone: Int[np.ndarray, "n 2"],
    queries: dict[int, int],
    pairs: Int[np.ndarray, " m"],
  ) -> Tail:
    """The zone of queries; `queries` maps a slot to the pair it asks for."""
    tail = Tail()
    for slot, filler in enumerate(zone):
      if slot in queries:
        at = 2 * queries[slot]
        tail.write(pairs[at : at + 1])
        tail.ask(pairs[at + 1 : at + 2], needle=0, offset=at + 1)
      else:
        tail.write(filler)
    tail.write(self._eos)
    return tail


def power_law(slots: int) -> np.ndarray:
  """Probability of each slot, Zoology's `a g^(a - 1)` with a = 0.01."""
  weight = POWER * np.arange(1, slots + 1) ** (POWER - 1)
  return weight / weight.sum()
