"""Rooms and things related to one another: qa4, and the forms of qa17-19."""

import itertools
from collections.abc import Iterator

import numpy as np

from hsa_jax.data.babi import words
from hsa_jax.data.babi.story import Question, Story, happens, pick, shuffled

_AXES = (("north", "south"), ("west", "east"))
_FROM_END = 2 / 3  # how often a fact of qa4 begins with the outer room
_FIGURES = (
  "triangle",
  "pink rectangle",
  "blue square",
  "red square",
  "red sphere",
  "yellow square",
)
_SIDES = {
  "above": (0, 1),
  "below": (0, -1),
  "to the left of": (-1, 0),
  "to the right of": (1, 0),
}
_THINGS = (
  "box",
  "box of chocolates",
  "chest",
  "chocolate",
  "container",
  "suitcase",
)
_STEPS = {"north": (0, 1), "south": (0, -1), "east": (1, 0), "west": (-1, 0)}


def draw_line(rng: np.random.Generator, task: str) -> Story:
  """qa4: three rooms in a line, one question about one of two facts."""
  del task
  one, centre, other = shuffled(rng, words.ROOMS)[:3]
  facts = []
  for end, side in zip((one, other), pick(rng, _AXES), strict=True):
    if happens(rng, _FROM_END):
      facts.append((end, side, centre))
    else:
      facts.append((centre, words.OPPOSITE[side], end))
  facts = shuffled(rng, facts)
  at = int(rng.random() * len(facts))
  room, side, base = facts[at]
  text = pick(
    rng,
    (
      f"What is {side} of the {base}?",
      f"What is the {base} {words.OPPOSITE[side]} of?",
    ),
  )
  told = tuple(f"The {a} is {d} of the {b}." for a, d, b in facts)
  return Story(told, (Question(text, room, (at,), len(told)),))


def draw_figures(rng: np.random.Generator, task: str) -> Story:
  """qa17: two figures beside a third, eight questions about the outer two."""
  del task
  one, centre, other = shuffled(rng, _FIGURES)[:3]
  side, height = pick(rng, list(_SIDES)[2:]), pick(rng, list(_SIDES)[:2])
  facts = shuffled(rng, [(one, side, centre), (other, height, centre)])
  offset = np.subtract(_SIDES[side], _SIDES[height])  # of `one` from `other`
  asked = [(one, other, offset, s) for s in _SIDES]
  asked += [(other, one, -offset, s) for s in _SIDES]
  told = tuple(f"The {a} is {s} the {b}." for a, s, b in facts)
  questions = [
    Question(
      f"Is the {a} {s} the {b}?",
      "yes" if np.dot(by, _SIDES[s]) > 0 else "no",
      (0, 1),
      len(told),
    )
    for a, b, by, s in shuffled(rng, asked)
  ]
  return Story(told, tuple(questions))


def draw_sizes(rng: np.random.Generator, task: str) -> Story:
  """qa18: five sizes in order, pairs of neighbours told, five questions."""
  del task
  order = shuffled(rng, _THINGS)[:5]  # small to large
  facts = []
  for small, large in shuffled(rng, list(itertools.pairwise(order))):
    inside = f"The {small} fits inside the {large}."
    facts.append(
      pick(rng, (inside, f"The {large} is bigger than the {small}."))
    )
  questions = []
  for _ in range(5):
    i, j = rng.permutation(len(order))[:2].tolist()
    text, larger = pick(
      rng,
      (
        (f"Does the {order[i]} fit in the {order[j]}?", j),
        (f"Is the {order[i]} bigger than the {order[j]}?", i),
      ),
    )
    answer = "yes" if larger == max(i, j) else "no"
    needed = tuple(range(len(facts)))
    questions.append(Question(text, answer, needed, len(facts)))
  return Story(tuple(facts), tuple(questions))


def draw_paths(rng: np.random.Generator, task: str) -> Story:
  """qa19: a map of six rooms in five facts, one way of two steps."""
  del task
  rooms = shuffled(rng, words.ROOMS)
  places, facts = {rooms[0]: (0, 0)}, []
  for room in rooms[1:]:
    old, side, place = pick(rng, list(_free_places(places)))
    places[room] = place
    facts.append((room, side, old))
  start, goal = pick(rng, list(_two_steps_apart(places, facts)))
  path, needed = _way(facts, start, goal)
  order = rng.permutation(len(facts)).tolist()
  told = tuple("The {} is {} of the {}.".format(*facts[i]) for i in order)
  text = f"How do you go from the {start} to the {goal}?"
  supports = tuple(order.index(i) for i in needed)
  return Story(told, (Question(text, path, supports, len(told)),))


Place = tuple[int, int]


def _free_places(
  places: dict[str, Place],
) -> Iterator[tuple[str, str, Place]]:
  """Empty places beside rooms: the room, the side of it, the place."""
  for room, (x, y) in places.items():
    for side, (dx, dy) in _STEPS.items():
      if (x + dx, y + dy) not in places.values():
        yield room, side, (x + dx, y + dy)


def _ways(
  facts: list[tuple[str, str, str]],
) -> Iterator[tuple[str, str, str, int]]:
  """Steps that facts allow: from, to, the side, which fact."""
  for i, (room, side, base) in enumerate(facts):
    yield base, room, side, i
    yield room, base, words.OPPOSITE[side], i


def _two_steps_apart(
  places: dict[str, Place], facts: list[tuple[str, str, str]]
) -> Iterator[tuple[str, str]]:
  beside = {(a, b) for a, b, _, _ in _ways(facts)}
  for a, b in itertools.permutations(places, 2):
    if any((a, c) in beside and (c, b) in beside for c in places):
      yield a, b


def _way(
  facts: list[tuple[str, str, str]], start: str, goal: str
) -> tuple[str, tuple[int, int]]:
  """The way of two steps, as `s,e`, and the facts that say it."""
  steps = list(_ways(facts))
  return next(
    (f"{one[0]},{two[0]}", (i, j))
    for a, b, one, i in steps
    for c, d, two, j in steps
    if (a, b, d) == (start, c, goal)
  )
