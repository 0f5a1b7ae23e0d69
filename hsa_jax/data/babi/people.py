"""Forms of qa9-14: people who are said to be somewhere.

Sentences, questions and answers are those of the published tasks. How often
each occurs is our choice: even odds, ten facts, a question after every two.
"""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from hsa_jax.data.babi import words
from hsa_jax.data.babi.story import Question, Story, happens, pick, shuffled

_ROUNDS = 5
_AFTER = ("Afterwards", "Then", "After that", "Following that")
_TIMES = ("yesterday", "this morning", "this afternoon", "this evening")


class Known(NamedTuple):
  """What the facts say of a person.

  Attributes:
    rooms: where the person may be; in one of them for sure if `certain`.
    certain: whether it is among `rooms`, or surely in none of them.
    fact: index of the fact that says so.
  """

  rooms: tuple[str, ...]
  certain: bool
  fact: int


Tell = Callable[[np.random.Generator, str], tuple[str, tuple[str, ...], bool]]


def _move(
  rng: np.random.Generator, who: str, rooms: tuple[str, ...] = words.ROOMS
) -> tuple[str, str]:
  """A sentence without its full stop, and where it leads."""
  room = pick(rng, rooms)
  return f"{who} {pick(rng, words.MOVES)} the {room}", room


def _tell_negation(
  rng: np.random.Generator, who: str
) -> tuple[str, tuple[str, ...], bool]:
  text, room = _move(rng, who)
  form = pick(rng, ("move", "is", "is no longer", "is not"))
  if form != "move":
    text = f"{who} {form} in the {room}"
  return f"{text}.", (room,), form in ("move", "is")


def _tell_indefinite(
  rng: np.random.Generator, who: str
) -> tuple[str, tuple[str, ...], bool]:
  form = pick(rng, ("move", "is", "either"))
  if form == "either":
    one, two = shuffled(rng, words.PLACES)[:2]
    return f"{who} is either in the {one} or the {two}.", (one, two), True
  text, place = _move(rng, who, words.PLACES)
  return (
    f"{text if form == 'move' else f'{who} is in the {place}'}.",
    (place,),
    True,
  )


def draw_doubt(rng: np.random.Generator, task: str) -> Story:
  """qa9 and qa10: is somebody in a room, if the facts may deny or doubt it?"""
  negation = task == "qa9"
  people = words.PEOPLE if negation else words.VISITORS
  tell: Tell = _tell_negation if negation else _tell_indefinite
  facts: list[str] = []
  known: dict[str, Known] = {}
  questions = []
  for _ in range(_ROUNDS):
    for _ in range(2):
      who = pick(rng, people)
      text, rooms, certain = tell(rng, who)
      known[who] = Known(rooms, certain, len(facts))
      facts.append(text)
    who = pick(rng, list(known))
    room, answer = _ask_doubt(rng, known[who], negation)
    text = f"Is {who} in the {room}? "
    questions.append(Question(text, answer, (known[who].fact,), len(facts)))
  return Story(tuple(facts), tuple(questions))


def _ask_doubt(
  rng: np.random.Generator, known: Known, negation: bool
) -> tuple[str, str]:
  """A room to ask for, and the answer."""
  rooms, certain, _ = known
  # Of somebody who is not in a room, nothing else is known.
  if not certain or happens(rng, 0.5):
    sure = "yes" if certain else "no"
    return pick(rng, rooms), "maybe" if len(rooms) > 1 else sure
  places = words.ROOMS if negation else words.PLACES
  return pick(rng, [p for p in places if p not in rooms]), "no"


def draw_travels(rng: np.random.Generator, task: str) -> Story:
  """qa11-13: who goes where, alone or in pairs, by name or by pronoun."""
  pairs, follow = task in ("qa12", "qa13"), task in ("qa11", "qa13")
  facts: list[str] = []
  seen: dict[str, tuple[str, tuple[int, ...]]] = {}
  questions = []
  for _ in range(_ROUNDS):
    for k in range(2):
      if k == 0 or not follow:
        group = shuffled(rng, words.PEOPLE)[: 2 if pairs else 1]
        text, room = _move(rng, " and ".join(group))
        supports: tuple[int, ...] = (len(facts),)
      else:
        pronoun = "they" if pairs else words.PRONOUNS[group[0]]
        after = f"{pick(rng, _AFTER)} {pronoun}"
        text, room = _move(
          rng, after, tuple(r for r in words.ROOMS if r != room)
        )
        supports = (len(facts), len(facts) - 1)
      facts.append(f"{text}.")
      seen |= dict.fromkeys(group, (room, supports))
    who = pick(rng, list(seen))
    answer, supports = seen[who]
    questions.append(
      Question(f"Where is {who}? ", answer, supports, len(facts))
    )
  return Story(tuple(facts), tuple(questions))


def draw_times(rng: np.random.Generator, task: str) -> Story:
  """qa14: four times of two people, told in any order; where before?"""
  del task
  plans: dict[str, list[tuple[str, int]]] = {}
  todo = []
  for who in shuffled(rng, words.VISITORS)[:3]:
    # The place asked for is visited once, so that it names one time.
    places = shuffled(rng, words.PLACES)[: len(_TIMES)]
    plans[who] = [(place, -1) for place in places]
    todo += [(who, when) for when in range(len(_TIMES))]
  facts, questions = [], []
  for who, when in shuffled(rng, todo):
    place = plans[who][when][0]
    plans[who][when] = (place, len(facts))
    text, time = f"{who} {pick(rng, words.MOVES)} the {place}", _TIMES[when]
    early = f"{time.capitalize()} {text}."
    facts.append(pick(rng, (early, f"{text} {time}.")))
    questions += _ask_before(rng, plans, len(facts))
  return Story(tuple(facts), tuple(questions[-_ROUNDS:]))


def _ask_before(
  rng: np.random.Generator,
  plans: dict[str, list[tuple[str, int]]],
  num_facts: int,
) -> list[Question]:
  """One question about two places whose order is told, if there are any."""
  found = []
  for who, plan in plans.items():
    told = [(place, fact) for place, fact in plan if fact >= 0]
    for (old, i), (new, j) in zip(told, told[1:], strict=False):
      text = f"Where was {who} before the {new}? "
      found.append(Question(text, old, (i, j), num_facts))
  return [pick(rng, found)] if found and num_facts % 2 == 0 else []
