"""When checkpoints are saved, which stay, and what becomes of damaged ones."""

import json
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from hsa_jax.training import loop
from hsa_jax.training.checkpoint import Checkpointer, RunInfo
from hsa_jax.training.hooks import Moment
from hsa_jax.training.restore import restore_newest
from hsa_jax.training.saving import Save, retention
from hsa_jax.training.stored import CheckpointError, DamagedError

from .checkpoint_test import INFO, array_file, make_state
from .helpers import losses, make_config, make_inputs

pytestmark = pytest.mark.usefixtures("compile_once")


def steps_in(workdir):
  return sorted(int(p.name) for p in (workdir / "checkpoints").iterdir())


def save_all(workdir, cfg, losses):
  """Saves the steps in order, in two runs, as after a restart."""
  state, _ = make_state()
  info = RunInfo(cfg, "byte", "ab" * 32)
  steps = list(losses)
  for part in (steps[: len(steps) // 2], steps[len(steps) // 2 :]):
    saver = Checkpointer(workdir, info, retention=retention(cfg.train))
    for step in part:
      here = state._replace(step=jnp.asarray(step, jnp.int32))
      saver.save(step, here, loss=losses[step])
    saver.close()


def expected_steps(losses, cfg):
  """The three rules, in plain words."""
  steps, train = sorted(losses), cfg.train
  kept = set(steps[-train.keep_checkpoints :])
  if train.keep_every:
    kept |= {s for s in steps if s % train.keep_every == 0}
  ranked = sorted((loss, -s) for s, loss in losses.items() if loss is not None)
  kept |= {-s for _, s in ranked[: train.keep_best]}
  return sorted(kept)


LOSSES = {1: 2.0, 2: 1.0, 3: 1.5, 4: None, 5: 3.0, 6: 4.0, 7: None, 8: 5.0}


@pytest.mark.parametrize(
  ("every", "best", "expected"),
  [(0, 0, [8]), (3, 0, [3, 6, 8]), (0, 2, [2, 3, 8]), (4, 1, [2, 4, 8])],
)
def test_what_stays(tmp_path, every, best, expected):
  cfg = make_config(keep_checkpoints=1, keep_every=every, keep_best=best)
  save_all(tmp_path, cfg, LOSSES)
  assert steps_in(tmp_path) == expected == expected_steps(LOSSES, cfg)


class Recorder:
  def __init__(self):
    self.saved = []

  def save(self, step, state, *, loss):
    del state
    self.saved.append((step, loss))


def test_by_steps_by_time_at_a_signal_and_at_the_end():
  clock = [0.0]
  cfg = make_config(checkpoint_every=100, checkpoint_every_s=60.0).train
  recorder = Recorder()
  hook = Save(recorder, cfg, loss_at={100: 1.5}.get, now=lambda: clock[0])
  for step in range(1, 131):
    clock[0] += 1.0 if step != 110 else 100.0
    moment = {120: Moment.STOP, 130: Moment.END}.get(step, Moment.STEP)
    if hook.wants(step, moment):
      hook.on_state(step, None)
  expected = [(60, None), (100, 1.5), (110, None), (120, None), (130, None)]
  assert recorder.saved == expected


def test_without_a_time_only_steps_count():
  hook = Save(Recorder(), make_config().train, now=iter([0.0]).__next__)
  assert [hook.wants(s, Moment.STEP) for s in (3, 4)] == [False, True]


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
  workdir = tmp_path_factory.mktemp("saved")
  state, abstract = make_state()
  saver = Checkpointer(workdir, INFO)
  for step in (4, 8):
    saver.save(step, state._replace(step=jnp.asarray(step, jnp.int32)))
  saver.close()
  return workdir, abstract


@pytest.fixture
def copy(saved, tmp_path):
  shutil.copytree(saved[0], tmp_path / "run")
  return tmp_path / "run", saved[1]


def flip(path, offset=-1):
  data = bytearray(path.read_bytes())
  data[offset] ^= 1
  path.write_bytes(bytes(data))


def test_a_damaged_newest_checkpoint_is_passed_over_loudly(copy):
  workdir, abstract = copy
  flip(array_file(workdir))
  said = []
  saver = Checkpointer(workdir, INFO)
  state = restore_newest(saver, abstract, said.append)
  assert int(state.step) == 4 and saver.latest_step == 4
  (text,) = said
  assert text.startswith("WARNING: the checkpoint of step 8 is damaged")
  assert "array output.kernel" in text and "going back to step 4" in text
  assert str(workdir / "checkpoints_damaged" / "8") in text and "fix:" in text
  assert (workdir / "checkpoints_damaged/8/model/output.kernel").is_dir()
  # The step can be saved again, and is whole then.
  saver.save(8, state._replace(step=jnp.asarray(8, jnp.int32)))
  saver.wait()
  assert int(restore_newest(saver, abstract).step) == 8
  saver.close()


def test_one_flipped_byte_in_any_array_file_is_named(copy):
  workdir, abstract = copy
  saver = Checkpointer(workdir, INFO)
  folder = workdir / "checkpoints/8"
  files = [
    (item.name, array.name, file)
    for item in (folder / "model", folder / "optimizer")
    for array in item.iterdir()
    if (array / "zarr.json").exists()
    for file in array.rglob("*")
    if file.is_file() and file.name != "zarr.json"
  ]
  assert len(files) > 12 and {item for item, *_ in files} == {
    "model",
    "optimizer",
  }
  for i, (item, array, file) in enumerate(files):
    offset = (i * 37) % file.stat().st_size
    flip(file, offset)
    with pytest.raises(DamagedError) as error:
      saver.restore(8, abstract)
    (problem,) = error.value.problems
    assert f"array {array}: {folder / item / array} " in problem
    flip(file, offset)
  assert int(saver.restore(8, abstract).step) == 8
  saver.close()


def test_the_second_damaged_copy_does_not_replace_the_first(copy):
  workdir, abstract = copy
  for expected in ("8", "8.1"):
    flip(array_file(workdir))
    saver = Checkpointer(workdir, INFO)
    state = restore_newest(saver, abstract)
    assert (workdir / "checkpoints_damaged" / expected).is_dir()
    saver.save(8, state)
    saver.close()


def test_damaged_metadata_is_damage_too(copy):
  workdir, abstract = copy
  (workdir / "checkpoints/8/_CHECKPOINT_METADATA").write_text("{}")
  said = []
  saver = Checkpointer(workdir, INFO)
  assert int(restore_newest(saver, abstract, said.append).step) == 4
  assert "metadata cannot be read" in said[0]
  saver.close()


def test_if_nothing_is_whole_nothing_is_moved(copy):
  workdir, abstract = copy
  for step in (4, 8):
    folder = workdir / f"checkpoints/{step}/model/output.kernel"
    shutil.rmtree(folder)
  saver = Checkpointer(workdir, INFO)
  with pytest.raises(DamagedError, match=r"no checkpoint is whole.*4, 8"):
    restore_newest(saver, abstract)
  saver.close()
  assert steps_in(workdir) == [4, 8]
  assert not (workdir / "checkpoints_damaged").exists()


def test_another_tokenizer_is_no_damage(copy):
  workdir, abstract = copy
  saver = Checkpointer(workdir, INFO._replace(tokenizer_fingerprint="cd" * 32))
  with pytest.raises(CheckpointError, match="fingerprint") as error:
    restore_newest(saver, abstract)
  saver.close()
  assert not isinstance(error.value, DamagedError)
  assert steps_in(workdir) == [4, 8]


def test_no_checkpoint_is_no_state(tmp_path):
  saver = Checkpointer(tmp_path, INFO)
  assert restore_newest(saver, make_state()[1]) is None
  saver.close()


def test_a_run_goes_on_from_the_one_before_to_the_same_end(tmp_path, capsys):
  cfg = make_config()
  inputs, run = make_inputs(cfg, tmp_path), tmp_path / "run"
  state = loop.train(cfg, workdir=run, inputs=inputs)
  expected = losses(run)
  assert steps_in(run) == [8, 12]
  newest = run / "checkpoints/12/optimizer/opt_state.1.mu.output.kernel"
  flip(
    max(p for p in newest.rglob("*") if p.name != "zarr.json" and p.is_file())
  )
  capsys.readouterr()
  again = loop.train(cfg, workdir=run, inputs=inputs)
  said = capsys.readouterr().err
  assert "WARNING" in said and "resuming at step 8" in said
  assert losses(run) == expected and steps_in(run) == [8, 12]
  for a, b in zip(jax.tree.leaves(state), jax.tree.leaves(again), strict=True):
    np.testing.assert_array_equal(a, b)


def test_validation_loss_lies_with_the_checkpoint(tmp_path):
  cfg = make_config(eval_every=4, keep_best=1, keep_checkpoints=1)
  run = tmp_path / "run"
  loop.train(cfg, workdir=run, inputs=make_inputs(cfg, tmp_path))
  found = {
    step: json.loads((run / f"checkpoints/{step}/metrics/metrics").read_text())
    for step in steps_in(run)
  }
  records = {
    r["step"]: r["valid/loss_nats"]
    for line in (run / "metrics.jsonl").read_text().splitlines()
    if "valid/loss_nats" in (r := json.loads(line))
  }
  best = min(records, key=records.get)
  assert sorted({best, 12}) == steps_in(run)
  assert all(f["valid/loss_nats"] == records[s] for s, f in found.items())
