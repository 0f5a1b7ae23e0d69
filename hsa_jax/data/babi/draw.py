"""Stories of any task, by name."""

from collections.abc import Callable

import numpy as np

from hsa_jax.data.babi import carrying, maps, people, traits
from hsa_jax.data.babi.story import Story

_DRAW: dict[str, Callable[[np.random.Generator, str], Story]] = {
  **dict.fromkeys(carrying.TASKS, carrying.draw),
  "qa4": maps.draw_line,
  "qa9": people.draw_doubt,
  "qa10": people.draw_doubt,
  "qa11": people.draw_travels,
  "qa12": people.draw_travels,
  "qa13": people.draw_travels,
  "qa14": people.draw_times,
  "qa15": traits.draw_fears,
  "qa16": traits.draw_colours,
  "qa17": maps.draw_figures,
  "qa18": maps.draw_sizes,
  "qa19": maps.draw_paths,
  "qa20": traits.draw_motives,
}


def draw_story(rng: np.random.Generator, task: str) -> Story:
  """A story of `task`, one of `words.TASKS`; at least one question."""
  return _DRAW[task](rng, task)
