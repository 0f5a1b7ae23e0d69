"""Rows that go on where the row of the step before ended."""

import dataclasses

import numpy as np

from hsa_jax.config import StageConfig
from hsa_jax.data.pipeline import TrainData
from hsa_jax.data.streams import Place, place_of, read_stream
from hsa_jax.data.tokenizer import load_tokenizer
from tests.training.helpers import make_config, make_store

STEPS, ROWS, LENGTH = 4, 3, 10


def make_data(tmp_path) -> TrainData:
  """Streams, then rows drawn by themselves, then streams again."""
  cfg = make_config()
  stages = (
    StageConfig("first", 9, LENGTH, ROWS, stream_steps=STEPS),
    StageConfig("drawn", 2, LENGTH, ROWS),
    StageConfig("again", 9, LENGTH, ROWS, stream_steps=STEPS),
  )
  cfg = dataclasses.replace(
    cfg, data=dataclasses.replace(cfg.data, stages=stages)
  )
  tokenizer = load_tokenizer("byte")
  return TrainData(cfg, make_store(tmp_path / "store"), tokenizer)


def test_rows_take_turns_in_beginning_anew():
  steps = np.arange(10)[:, None]
  place = place_of(steps, np.arange(ROWS), rows=ROWS, steps=STEPS)
  # Rows 0, 1, 2 of 3 are 0, 1 and 2 steps ahead.
  np.testing.assert_array_equal(place.index[:5, 0], [0, 1, 2, 3, 0])
  np.testing.assert_array_equal(place.index[:5, 1], [1, 2, 3, 0, 1])
  np.testing.assert_array_equal(place.index[:5, 2], [2, 3, 0, 1, 2])
  np.testing.assert_array_equal(place.stream[:5, 2], [0, 0, 1, 1, 1])


def test_a_row_goes_on_where_it_ended_until_it_begins_elsewhere(tmp_path):
  data = make_data(tmp_path)
  batches = [data.batch(step) for step in range(len(data))]
  continued = 0
  for stage_start in (0, 11):
    for inside in range(8):
      now, then = batches[stage_start + inside :][:2]
      for row in range(ROWS):
        index = place_of(inside, row, rows=ROWS, steps=STEPS).index
        goes_on = now.targets[row, -1] == then.tokens[row, 0]
        if index < STEPS - 1:
          assert goes_on
          continued += 1
  assert continued == 2 * 3 * 6
  text = bytes(np.asarray(data._store.split("train"), np.uint8))
  stretch = np.concatenate([batches[i].tokens[0] for i in range(STEPS)])
  assert bytes(stretch.astype(np.uint8)) in text
  both = np.concatenate([batches[i].tokens[0] for i in (3, 4)])
  assert bytes(both.astype(np.uint8)) not in text


def test_batches_are_functions_of_the_step_and_the_row(tmp_path):
  data = make_data(tmp_path)
  for step in (0, 6, 13):
    whole = data.batch(step)
    part = data.batch(step, share=lambda rows: [2])
    np.testing.assert_array_equal(part.tokens[0], whole.tokens[2])
    assert np.all(whole.weights == 1) and not np.any(whole.answers)


def test_stages_read_other_streams(tmp_path):
  data = make_data(tmp_path)
  assert not np.array_equal(data.batch(0).tokens, data.batch(11).tokens)


def test_a_text_shorter_than_a_stream_is_a_ring():
  text = np.arange(17)
  options = {"seed": 0, "stage": 0, "row": 0, "steps": 3, "length": 8}
  rows = [read_stream(text, Place(0, i), **options) for i in range(3)]
  for before, after in zip(rows, rows[1:], strict=False):
    assert before[-1] == after[0]
  assert np.all((np.diff(np.concatenate([r[1:] for r in rows])) % 17) == 1)
