"""Forms of qa15, qa16 and qa20: what follows from a kind or a mood.

Sentences, questions and answers are those of the published tasks; how often
each occurs is our choice.
"""

import numpy as np

from hsa_jax.data.babi import words
from hsa_jax.data.babi.story import Question, Story, pick, shuffled

_PLURAL = {"cat": "Cats", "mouse": "Mice", "sheep": "Sheep", "wolf": "Wolves"}
_AFRAID: tuple[str, ...] = ("Gertrude", "Winona", "Emily", "Jessica")
_COLOURED: tuple[str, ...] = ("Lily", "Bernhard", "Brian", "Julius", "Greg")
_KINDS: tuple[str, ...] = ("frog", "lion", "swan", "rhino")
_MOODS = {  # where it leads, and what is taken there
  "hungry": ("kitchen", "apple"),
  "thirsty": ("kitchen", "milk"),
  "tired": ("bedroom", "pajamas"),
  "bored": ("garden", "football"),
}
_MOODY: tuple[str, ...] = ("Sumit", "Yann", "Jason", "Antoine")


def draw_fears(rng: np.random.Generator, task: str) -> Story:
  """qa15: who is afraid of what, by their species; four questions."""
  del task
  fears = {
    kind: pick(rng, [k for k in words.SPECIES if k != kind])
    for kind in words.SPECIES
  }
  kinds = {name: pick(rng, words.SPECIES) for name in _AFRAID}
  rules = [("rule", kind) for kind in words.SPECIES]
  order = shuffled(rng, [*rules, *(("is", name) for name in _AFRAID)])
  facts = [
    f"{_PLURAL[x]} are afraid of {_PLURAL[fears[x]].lower()}."
    if what == "rule"
    else f"{x} is a {kinds[x]}."
    for what, x in order
  ]
  questions = []
  for name in shuffled(rng, _AFRAID):
    kind = kinds[name]
    supports = (order.index(("rule", kind)), order.index(("is", name)))
    text = f"What is {name.lower()} afraid of?"
    questions.append(Question(text, fears[kind], supports, len(facts)))
  return Story(tuple(facts), tuple(questions))


def draw_colours(rng: np.random.Generator, task: str) -> Story:
  """qa16: the colour of an animal, by another one of its kind."""
  del task
  names = shuffled(rng, _COLOURED)
  asked, twin = names[:2]
  kinds = {name: pick(rng, _KINDS) for name in names}
  kinds[asked] = kinds[twin]
  colours = {kind: pick(rng, words.COLOURS) for kind in _KINDS}
  lines = [f"{name} is a {kinds[name]}." for name in names]
  said = f"{twin} is {colours[kinds[twin]]}."
  lines += [f"{name} is {colours[kinds[name]]}." for name in names[1:]]
  facts = shuffled(rng, lines)
  kind = f"is a {kinds[asked]}."
  needed = [said, f"{asked} {kind}", f"{twin} {kind}"]
  supports = tuple(facts.index(line) for line in needed)
  text = f"What color is {asked}?"
  question = Question(text, colours[kinds[asked]], supports, len(facts))
  return Story(tuple(facts), (question,))


def draw_motives(rng: np.random.Generator, task: str) -> Story:
  """qa20: everybody has a mood, goes where it leads, takes what it wants."""
  del task
  moods = {name: pick(rng, list(_MOODS)) for name in _MOODY}
  steps = [name for name in _MOODY for _ in range(3)]
  done = dict.fromkeys(_MOODY, 0)
  why = dict.fromkeys(_MOODY, 0)
  facts, questions = [], []
  for name in shuffled(rng, steps):
    mood, low = moods[name], name.lower()
    place, thing = _MOODS[mood]
    stage, done[name] = done[name], done[name] + 1
    if stage == 0:
      why[name] = len(facts)
      facts.append(f"{name} is {mood}.")
      text, answer = f"Where will {low} go?", place
    elif stage == 1:
      facts.append(f"{name} {pick(rng, words.MOVES)} the {place}.")
      text, answer = f"Why did {low} go to the {place}?", mood
    else:
      facts.append(f"{name} {pick(rng, words.GETS)} the {thing} there.")
      text, answer = f"Why did {low} get the {thing}?", mood
    questions.append(Question(text, answer, (why[name],), len(facts)))
  return Story(tuple(facts), tuple(questions))
