"""People who walk through rooms and carry objects: the world of qa1-3, qa5-8.

Everybody starts in a hidden room, and so does every object. A step draws an
actor, a kind of action and what it is done to, until the action is possible:
rooms among all six, objects and people among those at hand. The rules were
recovered from the published stories; drawing among all objects, too, would make
the stories of qa5 three times as long as they are.
"""

import enum
from typing import NamedTuple

import numpy as np

from hsa_jax.data.babi import words
from hsa_jax.data.babi.story import happens, pick

_THERE = 0.2  # how often a drop, and a get in qa3, ends with "there"


class Kind(enum.Enum):
  """What can happen."""

  MOVE = "move"
  GET = "get"
  DROP = "drop"
  GIVE = "give"


class Event(NamedTuple):
  """Something that happened.

  Attributes:
    kind: of action.
    actor: who did it.
    thing: the room of a move, else the object.
    other: who was given the object.
  """

  kind: Kind
  actor: str
  thing: str
  other: str = ""


class Cast(NamedTuple):
  """Who acts in a task, and how.

  Attributes:
    actors: their names.
    kinds: one of them is drawn, so a kind listed twice is twice as likely.
    get_there: how often a get ends with "there".
  """

  actors: tuple[str, ...]
  kinds: tuple[Kind, ...]
  get_there: float = 1.0


WALKERS = Cast(words.PEOPLE, (Kind.MOVE,))
CARRIERS = Cast(words.PEOPLE, (Kind.MOVE, Kind.GET, Kind.DROP))
FAR_CARRIERS = CARRIERS._replace(get_there=_THERE)
# Three verbs for a gift make it three times as likely.
GIVERS = Cast(words.GIVERS, (*CARRIERS.kinds, *(Kind.GIVE,) * 3))
FRIENDS = GIVERS._replace(actors=words.PEOPLE)


class World:
  """Where everybody and everything is.

  Attributes:
    events: all that happened.
    facts: the same in words.
    room: of each actor.
    held: objects of each actor, in the order they were received.
  """

  def __init__(self, rng: np.random.Generator, cast: Cast):
    self._rng, self._cast = rng, cast
    self.events: list[Event] = []
    self.facts: list[str] = []
    self.room = {actor: pick(rng, words.ROOMS) for actor in cast.actors}
    self.held: dict[str, list[str]] = {actor: [] for actor in cast.actors}
    self._lies_in = {thing: pick(rng, words.ROOMS) for thing in words.OBJECTS}

  def step(self) -> None:
    """Lets one thing happen."""
    while (event := self._draw()) is None:
      pass
    self._apply(event)
    self.events.append(event)
    self.facts.append(self._say(event))

  def last(self, kinds: tuple[Kind, ...], **match: str) -> int | None:
    """Index of the last event of these kinds with these fields, or None."""
    for i in range(len(self.events) - 1, -1, -1):
      event = self.events[i]
      if event.kind in kinds:
        fields = event._asdict()
        if all(fields[name] == value for name, value in match.items()):
          return i
    return None

  def moves(self, actor: str, start: int, stop: int) -> list[int]:
    """Indices of an actor's moves among the events `start .. stop - 1`."""
    return [
      i
      for i in range(start, stop)
      if self.events[i].kind is Kind.MOVE and self.events[i].actor == actor
    ]

  def _draw(self) -> Event | None:
    """A random action; None if it is not possible now."""
    rng, cast = self._rng, self._cast
    actor, kind = pick(rng, cast.actors), pick(rng, cast.kinds)
    room = self.room[actor]
    if kind is Kind.MOVE:
      target = pick(rng, words.ROOMS)
      return Event(kind, actor, target) if target != room else None
    held = self.held[actor]
    if kind is Kind.GET:
      here = [o for o in words.OBJECTS if self._lies_in.get(o) == room]
      return Event(kind, actor, pick(rng, here)) if here else None
    if not held:
      return None
    if kind is Kind.DROP:
      return Event(kind, actor, pick(rng, held))
    near = [a for a in cast.actors if a != actor and self.room[a] == room]
    if not near:
      return None
    return Event(kind, actor, pick(rng, held), pick(rng, near))

  def _apply(self, event: Event) -> None:
    kind, actor, thing, other = event
    if kind is Kind.MOVE:
      self.room[actor] = thing
    elif kind is Kind.GET:
      del self._lies_in[thing]
      self.held[actor].append(thing)
    else:
      self.held[actor].remove(thing)
      if kind is Kind.DROP:
        self._lies_in[thing] = self.room[actor]
      else:
        self.held[other].append(thing)

  def _say(self, event: Event) -> str:
    rng, (kind, actor, thing, other) = self._rng, event
    if kind is Kind.MOVE:
      return f"{actor} {pick(rng, words.MOVES)} the {thing}."
    if kind is Kind.GIVE:
      return f"{actor} {pick(rng, words.GIVES)} the {thing} to {other}."
    get = kind is Kind.GET
    verb = pick(rng, words.GETS if get else words.DROPS)
    there = happens(rng, self._cast.get_there if get else _THERE)
    return f"{actor} {verb} the {thing}{' there' if there else ''}."
