"""Questions about a `World`: qa1, qa2, qa3, qa5, and the forms of qa6-8.

Each task asks about something of the last five facts, after every even number
of facts at which there is something to ask, until five questions are asked.
"""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from hsa_jax.data.babi import words
from hsa_jax.data.babi.story import Question, Story, happens, pick
from hsa_jax.data.babi.world import (
  CARRIERS,
  FAR_CARRIERS,
  FRIENDS,
  GIVERS,
  WALKERS,
  Cast,
  Kind,
  World,
)

NUM_QUESTIONS = 5
_STRIDE = 2  # facts between questions, at least
_RECENT = 5  # facts back that a question may be about
_HANDLING = (Kind.GET, Kind.DROP)


class Asked(NamedTuple):
  """A question in words; see `Question`."""

  text: str
  answer: str
  supports: tuple[int, ...]


Ask = Callable[[World, np.random.Generator], Asked | None]


def draw(rng: np.random.Generator, task: str) -> Story:
  """A story of qa1, qa2, qa3, qa5, qa6, qa7 or qa8."""
  cast, ask = _TASKS[task]
  world, questions = World(rng, cast), []
  while len(questions) < NUM_QUESTIONS:
    for _ in range(_STRIDE):
      world.step()
    if (asked := ask(world, rng)) is not None:
      questions.append(Question(*asked, len(world.events)))
  return Story(tuple(world.facts), tuple(questions))


def _recent(world: World) -> int:
  """Index of the oldest fact that a question may be about."""
  return max(len(world.events) - _RECENT, 0)


def _where_is_person(world: World, rng: np.random.Generator) -> Asked:
  actor = pick(rng, world.events[_recent(world) :]).actor
  move = world.last((Kind.MOVE,), actor=actor)
  assert move is not None, "the actor of a fact of qa1 has moved"
  room = world.events[move].thing
  return Asked(f"Where is {actor}? ", room, (move,))


def _where_is_object(world: World, rng: np.random.Generator) -> Asked | None:
  """Of an object whose room follows from two facts."""
  found = []
  for thing in words.OBJECTS:
    at = world.last(_HANDLING, thing=thing)
    if at is None or at < _recent(world):
      continue
    event = world.events[at]
    if event.kind is Kind.DROP:
      moves = world.moves(event.actor, 0, at)
    else:
      moves = world.moves(event.actor, at, len(world.events))
    if moves:
      room = world.events[moves[-1]].thing
      found.append(Asked(f"Where is the {thing}? ", room, (moves[-1], at)))
  return pick(rng, found) if found else None


def _where_was_object(world: World, rng: np.random.Generator) -> Asked | None:
  """Of an object that was carried through two rooms or more."""
  found = [
    asked
    for thing in words.OBJECTS
    if (asked := _carried(world, rng, thing)) is not None
  ]
  return pick(rng, found) if found else None


def _carried(
  world: World, rng: np.random.Generator, thing: str
) -> Asked | None:
  at = world.last(_HANDLING, thing=thing)
  if at is None or at < _recent(world):
    return None
  event, events = world.events[at], world.events
  if event.kind is Kind.DROP:
    # Without gifts, who drops an object is who got it.
    got = [
      i for i in range(at) if events[i][:3] == (Kind.GET, event.actor, thing)
    ]
    moves = world.moves(event.actor, got[-1], at)
  else:
    moves = world.moves(event.actor, at, len(events))
  rooms = [events[i].thing for i in moves]
  # A room that is entered again later would make the question ambiguous.
  last_visits = [
    k for k in range(1, len(moves)) if rooms[k] not in rooms[k + 1 :]
  ]
  if not last_visits:
    return None
  k = pick(rng, last_visits)
  question = f"Where was the {thing} before the {rooms[k]}? "
  return Asked(question, rooms[k - 1], (moves[k - 1], moves[k], at))


def _gift(world: World, rng: np.random.Generator) -> Asked | None:
  """About the latest gift; one form in six each, but two ask what was given."""
  at = world.last((Kind.GIVE,))
  if at is None or at < _recent(world):
    return None
  _, giver, thing, taker = world.events[at]
  text, answer = pick(
    rng,
    (
      *((f"What did {giver} give to {taker}? ", thing),) * 2,
      (f"Who gave the {thing} to {taker}? ", giver),
      (f"Who did {giver} give the {thing} to? ", taker),
      (f"Who gave the {thing}? ", giver),
      (f"Who received the {thing}? ", taker),
    ),
  )
  return Asked(text, answer, (at,))


def _is_person(world: World, rng: np.random.Generator) -> Asked | None:
  moves = [
    i
    for i in range(_recent(world), len(world.events))
    if world.events[i].kind is Kind.MOVE
  ]
  if not moves:
    return None
  actor = world.events[pick(rng, moves)].actor
  at = world.last((Kind.MOVE,), actor=actor)
  assert at is not None, "the actor has moved"
  truth = world.events[at].thing
  yes = happens(rng, 0.5)
  room = truth if yes else pick(rng, [r for r in words.ROOMS if r != truth])
  text = f"Is {actor} in the {room}? "
  return Asked(text, "yes" if yes else "no", (at,))


def _holder(
  world: World, rng: np.random.Generator
) -> tuple[str, tuple[int, ...]] | None:
  """Somebody who handled an object just now, and where all facts of it are."""
  recent = [
    e for e in world.events[_recent(world) :] if e.kind is not Kind.MOVE
  ]
  if not recent:
    return None
  actor = pick(rng, recent).actor
  about = [
    i
    for i, e in enumerate(world.events)
    if e.kind is not Kind.MOVE and actor in (e.actor, e.other)
  ]
  return actor, tuple(about)


def _how_many(world: World, rng: np.random.Generator) -> Asked | None:
  holder = _holder(world, rng)
  if holder is None:
    return None
  actor, about = holder
  count = words.COUNTS[len(world.held[actor])]
  return Asked(f"How many objects is {actor} carrying? ", count, about)


def _which(world: World, rng: np.random.Generator) -> Asked | None:
  holder = _holder(world, rng)
  if holder is None:
    return None
  actor, about = holder
  things = ",".join(world.held[actor]) or "nothing"
  return Asked(f"What is {actor} carrying? ", things, about)


_TASKS: dict[str, tuple[Cast, Ask]] = {
  "qa1": (WALKERS, _where_is_person),
  "qa2": (CARRIERS, _where_is_object),
  "qa3": (FAR_CARRIERS, _where_was_object),
  "qa5": (GIVERS, _gift),
  "qa6": (CARRIERS, _is_person),
  "qa7": (FRIENDS, _how_many),
  "qa8": (CARRIERS, _which),
}
TASKS = tuple(_TASKS)
