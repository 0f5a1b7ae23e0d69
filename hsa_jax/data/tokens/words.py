"""Random names and numbers, and the most tokens that they can take."""

import string
from collections.abc import Callable

import numpy as np

NAME_LETTERS = 5

Encode = Callable[[str], np.ndarray]


def draw_names(rng: np.random.Generator, count: int) -> list[str]:
  """Different names of five upper-case letters."""
  while count:
    shape = (count, NAME_LETTERS)
    letters = rng.integers(ord("A"), ord("Z") + 1, shape, np.uint8)
    names = [row.tobytes().decode() for row in letters]
    if len(set(names)) == count:
      return names
  return []


def draw_numbers(
  rng: np.random.Generator, count: int, digits: int
) -> list[str]:
  """Uniform decimal numbers of exactly `digits` digits; they may repeat."""
  low = 10 ** (digits - 1)
  return [str(low + int(u * 9 * low)) for u in rng.random(count).tolist()]


def name_bound(encode: Encode) -> int:
  """Most tokens of a space and a name."""
  first = max(len(encode(" " + c)) for c in string.ascii_uppercase)
  other = max(len(encode(c)) for c in string.ascii_uppercase)
  return first + (NAME_LETTERS - 1) * other


def number_bound(encode: Encode, digits: int, *, before: str = "") -> int:
  """Most tokens of `before` and a number of so many digits."""
  digit = max(len(encode(d)) for d in string.digits)
  first = max(len(encode(before + d)) for d in string.digits)
  return first + (digits - 1) * digit
