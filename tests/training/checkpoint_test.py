import json
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from hsa_jax.config import MeshConfig
from hsa_jax.parallel import make_mesh
from hsa_jax.training import checkpoint, digest
from hsa_jax.training.checkpoint import (
  Checkpointer,
  CheckpointError,
  load_model,
)
from hsa_jax.training.optimizer import make_optimizer
from hsa_jax.training.state import abstract_state, init_state

from .helpers import Bigram, make_config


def build(rngs):
  return Bigram(rngs=rngs)


CFG = make_config(keep_checkpoints=2)
INFO = checkpoint.RunInfo(CFG, "byte", "ab" * 32)


def make_state():
  mesh = make_mesh(MeshConfig())
  tx = make_optimizer(CFG.optimizer, num_steps=CFG.num_steps)
  abstract = abstract_state(build, tx, mesh=mesh)
  with jax.set_mesh(mesh):
    state = init_state(build, tx, seed=3, abstract=abstract)
  return state, abstract


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
  """A workdir with checkpoints 4 and 8, never changed."""
  workdir = tmp_path_factory.mktemp("run")
  state, abstract = make_state()
  saver = Checkpointer(workdir, INFO)
  for step in (2, 4, 8):
    saver.save(step, state._replace(step=jnp.asarray(step, jnp.int32)))
  saver.close()
  return workdir, state, abstract


@pytest.fixture
def copy(saved, tmp_path):
  """A copy of the workdir to damage."""
  shutil.copytree(saved[0], tmp_path / "run")
  return tmp_path / "run"


def test_restore_is_exact_and_keeps_the_newest(saved):
  workdir, state, abstract = saved
  saver = Checkpointer(workdir, INFO)
  assert saver.latest_step == 8
  restored = saver.restore(8, abstract)
  saver.close()
  assert int(restored.step) == 8
  for a, b in zip(
    jax.tree.leaves(restored._replace(step=state.step)),
    jax.tree.leaves(state),
    strict=True,
  ):
    np.testing.assert_array_equal(a, b)
  left = sorted(p.name for p in (workdir / "checkpoints").iterdir())
  assert left == ["4", "8"]


def test_arrays_saved_in_the_background_survive_donation(tmp_path):
  state, abstract = make_state()
  expected = jax.tree.map(np.array, state)

  def overwrite(state):
    return jax.tree.map(lambda x: x * 0 - 7, state)

  spoil = jax.jit(overwrite, donate_argnums=0)
  saver = Checkpointer(tmp_path, INFO)
  saver.save(1, state)
  spoil(state)
  saver.close()
  restored = Checkpointer(tmp_path, INFO).restore(1, abstract)
  for a, b in zip(
    jax.tree.leaves(restored), jax.tree.leaves(expected), strict=True
  ):
    np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("inside", ["", "checkpoints", "checkpoints/8"])
def test_load_model_finds_it_from_anywhere(saved, inside):
  workdir, state, _ = saved
  model, cfg, meta = load_model(workdir / inside, build=build)
  assert cfg == CFG
  assert meta.step == 8 and meta.tokenizer_fingerprint == "ab" * 32
  assert meta.tokens_seen == 6 * 32 * 4 + 2 * 192 * 2
  assert "jax" in meta.versions
  np.testing.assert_array_equal(
    model.output.kernel[...], state.model.output.kernel[...]
  )


def test_load_model_takes_the_step_asked_for(saved):
  assert load_model(saved[0], step=4, build=build)[2].step == 4
  with pytest.raises(CheckpointError, match=r"no checkpoint of step 5.*4, 8"):
    load_model(saved[0], step=5, build=build)


def test_missing_folders(tmp_path):
  with pytest.raises(CheckpointError, match="no such folder"):
    load_model(tmp_path / "nowhere", build=build)
  with pytest.raises(CheckpointError, match="no complete checkpoint"):
    load_model(tmp_path, build=build)


def array_file(workdir, item="model", name="output.kernel"):
  folder = workdir / "checkpoints" / "8" / item / name
  return max(
    p for p in folder.rglob("*") if p.is_file() and p.name != "zarr.json"
  )


@pytest.mark.parametrize("damage", ["truncate", "empty", "delete", "garbage"])
def test_a_damaged_array_is_named_with_its_file(copy, damage):
  file = array_file(copy)
  data = file.read_bytes()
  if damage == "delete":
    file.unlink()
  else:
    cut = {"truncate": data[:-40], "empty": b"", "garbage": data[::-1]}
    file.write_bytes(cut[damage])
  with pytest.raises(CheckpointError) as error:
    load_model(copy, build=build)
  text = str(error.value)
  assert "array output.kernel" in text
  assert str(copy / "checkpoints/8/model/output.kernel") in text
  assert "go back to step 4" in text


def test_wrong_values_are_caught_by_the_digest(copy):
  """A valid array file with other contents, as after a silent bit flip."""
  import tensorstore

  path = copy / "checkpoints/8/model/output.kernel"
  spec = {"driver": "zarr3", "kvstore": f"file://{path}/"}
  array = tensorstore.open(spec, open=True).result()
  values = np.array(array.read().result())
  values[3, 5] += 1e-6
  array.write(values).result()
  with pytest.raises(CheckpointError, match="array output.kernel.*SHA-256"):
    load_model(copy, build=build)


def test_damage_in_the_optimizer_stops_a_resume_but_not_an_evaluation(
  copy, saved
):
  array_file(copy, "optimizer", "opt_state.1.mu.output.kernel").write_bytes(b"")
  saver = Checkpointer(copy, INFO)
  with pytest.raises(CheckpointError, match="opt_state.1.mu.output.kernel"):
    saver.restore(8, saved[2])
  saver.close()
  load_model(copy, build=build)


def test_damaged_metadata(copy):
  (copy / "checkpoints/8/_CHECKPOINT_METADATA").write_text("{}")
  with pytest.raises(CheckpointError, match="metadata cannot be read"):
    load_model(copy, build=build)


def test_another_model_is_refused(saved):
  def other(rngs):
    model = Bigram(rngs=rngs)
    model.extra = jax.tree.map(jnp.zeros_like, model.output)
    return model

  with pytest.raises(
    CheckpointError, match="array extra.kernel: not in the check"
  ):
    load_model(saved[0], build=other)


def test_digest_sees_shape_and_type():
  a = np.zeros((2, 3), np.float32)
  same = [a, a.copy(), np.asfortranarray(a)]
  other = [a.T, a.astype(np.int32), a.reshape(6), a + 1]
  assert len({digest.digest(x) for x in same}) == 1
  assert len({digest.digest(x) for x in [a, *other]}) == 5


def test_metadata_is_plain_json(saved):
  path = saved[0] / "checkpoints/8/_CHECKPOINT_METADATA"
  custom = json.loads(path.read_text())["custom_metadata"]
  assert custom["config"]["train"]["keep_checkpoints"] == 2
  assert set(custom["digests"]) == {"model", "optimizer"}
