"""Reading a context in two goes leaves what reading it at once leaves."""

import jax
import numpy as np
import pytest

from hsa_jax.config import LayerConfig, Mixer, Position
from hsa_jax.inference import HaloPrefill, Prefill, capacity_of, read_context
from hsa_jax.inference.midway import from_bytes, to_bytes
from hsa_jax.memory import HostMemory
from tests.evaluation.helpers import build_model, model_config, random_tokens

LENGTH = 131  # ragged
TOKENS = random_tokens((2, LENGTH))
FULL = LayerConfig(mixer=Mixer.FULL, position=Position.NONE)
READERS = {
  "sequential": lambda model: Prefill(model, batch=2, segment=16),
  "halo": lambda model: HaloPrefill(model, batch=2, segment=8, windows=3),
}


class Interrupted(Exception):
  """The power is gone."""


class Interrupting:
  """Saves before every stretch, and gives up after `saves`."""

  def __init__(self, saves):
    self.midway, self.left, self.data = None, saves, b""

  def due(self):
    return True

  def save(self, midway):
    self.data = to_bytes(midway)
    self.left -= 1
    if not self.left:
      raise Interrupted


def read(reader, memory, journal=None):
  asked, advanced = [], []

  def source(start, stop):
    asked.append(start)
    return TOKENS[:, start:stop]

  suffix, memory = read_context(
    reader,
    source,
    memory,
    length=LENGTH,
    keep=40,  # begins in one stretch and ends in another
    advance=advanced.append,
    journal=journal,
  )
  return suffix, memory, min(asked), sum(advanced)


@pytest.mark.parametrize(
  ("name", "changes"),
  [
    ("sequential", {"compute_dtype": "bfloat16"}),
    ("halo", {}),
    ("sequential", {"layers": (FULL, LayerConfig(), LayerConfig())}),
  ],
)
def test_taken_up_in_the_middle(name, changes):
  model = build_model(model_config(changes))
  reader = READERS[name](model)
  want, memory, _, whole = read(reader, HostMemory(LENGTH // 4))
  for saves in (1, 3, 5 if name == "halo" else 8):
    memory, journal = HostMemory(LENGTH // 4), Interrupting(saves)
    with pytest.raises(Interrupted):
      read(reader, memory, journal)
    again = Interrupting(0)
    carry = jax.eval_shape(lambda: model.init_carry(2, capacity_of(LENGTH)))
    again.midway = from_bytes(journal.data, carry)
    stop = again.midway.stop
    assert memory.num_chunks == stop // 4
    got, memory, first, count = read(reader, memory, again)
    past = reader.halo if name == "halo" else 0
    assert first == max(stop - past, 0) and count == whole - stop
    assert got.position == want.position
    np.testing.assert_array_equal(got.hidden, want.hidden)
    jax.tree.map(np.testing.assert_array_equal, got.carry, want.carry)
    assert memory.num_chunks == LENGTH // 4


def test_a_reader_is_never_asked_to_save_what_it_did_not_read():
  reader = READERS["sequential"](build_model())
  journal = Interrupting(100)
  read(reader, HostMemory(LENGTH // 4), journal)
  # Before every stretch but the first; the last is followed by nothing.
  assert 100 - journal.left == -(-LENGTH // 16) - 1
