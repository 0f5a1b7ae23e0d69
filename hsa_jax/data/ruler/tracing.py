"""Variable tracking: a chain of assignments hidden line by line in noise."""

import string
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from hsa_jax.data.ruler.lexicon import Encode
from hsa_jax.data.ruler.noise import noise_ring, place_lines
from hsa_jax.data.ruler.prompt import Request, RulerPrompt
from hsa_jax.data.ruler.templates import NOISE, VT_HEAD, VT_TAIL

NAME = "vt"
NEW_TOKENS = 30
HOPS = 4
_NAMES = HOPS + 1
_LETTERS, _EXAMPLE_LETTERS = 5, 3
_LOW, _HIGH = 10_000, 99_999  # values of variables; the high end is left out
_EXAMPLE_TOKENS = 500


class Chain(NamedTuple):
  """One value and the variables that have it.

  Attributes:
    value: what the first is assigned.
    names: each is assigned the one before it.
    depths: relative depth of each line, ascending in [0, 1).
  """

  value: int
  names: tuple[str, ...]
  depths: tuple[float, ...]

  @property
  def lines(self) -> list[str]:
    """The assignments; all but the first end in a space, as RULER's do."""
    first = f"VAR {self.names[0]} = {self.value}\n"
    pairs = zip(self.names[1:], self.names, strict=False)
    return [first, *(f"VAR {b} = VAR {a} \n" for b, a in pairs)]

  @property
  def question(self) -> str:
    """What is asked, and the beginning of the answer."""
    return VT_TAIL.format(value=self.value, count=len(self.names))


class TracingTask:
  """Makes the samples of `vt`: one chain of five, one solved example."""

  name = NAME

  def __init__(self, encode: Encode):
    self._encode, self._noise = encode, noise_ring(encode)
    self._example_lines = self._fit_example()

  def build(self, request: Request) -> RulerPrompt:
    """One sample.

    Raises:
      TooShort: it does not fit, or there is too little noise to hide in.
    """
    rng = request.rng(NAME)
    example = _draw_chain(rng, _EXAMPLE_LETTERS)
    chain = _draw_chain(rng, _LETTERS)
    head = f"{write_example(example, self._example_lines)}\n{VT_HEAD}"
    placed = place_lines(
      self._noise,
      self._encode(head),
      [self._encode(line) for line in chain.lines],
      chain.depths,
      self._encode(chain.question),
      request.length,
      NEW_TOKENS,
    )
    return RulerPrompt(
      body=placed.body,
      depth=chain.depths[0],
      unique_fraction=placed.unique_fraction,
      max_new_tokens=NEW_TOKENS,
      references=chain.names,
      evidence=placed.positions,
      recipe={
        "task": NAME,
        "value": chain.value,
        "names": list(chain.names),
        "positions": list(placed.positions),
      },
    )

  def _fit_example(self) -> int:
    """Most lines of noise with which the example keeps within its tokens."""
    chain = Chain(_LOW, ("AAA",) * _NAMES, (0.0,) * _NAMES)
    lines = _NAMES

    def size(count: int) -> int:
      return len(self._encode(write_example(chain, count)))

    while size(lines + 1) <= _EXAMPLE_TOKENS:
      lines += 1
    return lines


def write_example(chain: Chain, noise: int) -> str:
  """The solved example with `noise` lines of filler, and its line feed."""
  lines: list[str] = [NOISE + "\n"] * noise
  room = noise - len(chain.lines) + 1
  for i, line in enumerate(chain.lines):
    # Of the lines of noise, `gap + i` stand before it, and i of the chain.
    lines.insert(int(chain.depths[i] * room) + 2 * i, line)
  names = " ".join(chain.names)
  return f"{VT_HEAD}{''.join(lines)}{chain.question} {names}\n"


def _draw_chain(rng: np.random.Generator, letters: int) -> Chain:
  value = int(rng.integers(_LOW, _HIGH))
  names: Sequence[str] = ()
  while len(set(names)) < _NAMES:
    codes = rng.integers(0, 26, (_NAMES, letters))
    names = ["".join(string.ascii_uppercase[c] for c in row) for row in codes]
  depths = np.sort(rng.random(_NAMES)).tolist()
  return Chain(value, tuple(names), tuple(depths))
