"""The guard against a loop written out by hand, and in whole runs."""

import dataclasses
import json

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from hsa_jax.config import Guard
from hsa_jax.training import loop
from hsa_jax.training.guard import (
  GuardState,
  Verdict,
  guarded,
  overdrawn,
  read_guard,
)
from hsa_jax.training.metrics import read_metrics
from hsa_jax.training.schedule import learning_rate
from hsa_jax.training.watch import Diverged, Watch

from .helpers import Bigram, make_config, make_inputs

pytestmark = pytest.mark.usefixtures("compile_once")


def train_config(**changes):
  return make_config(**changes).train


def test_without_a_guard_the_optimizer_is_the_same_object():
  tx = optax.sgd(1.0)
  assert guarded(tx, train_config()) is tx
  assert read_guard(tx.init({"w": jnp.zeros(2)})) is None


NAN, INF = float("nan"), float("inf")
# Gradients of one weight, and the loss beside each.
CASES = [(1.0, 0.5), (1.0, NAN), (NAN, 0.5), (2.0, 0.4), (INF, 0.5), (1.0, 0.3)]


def test_what_is_not_finite_leaves_parameters_and_moments_alone():
  cfg = train_config(on_nonfinite=Guard.SKIP)
  tx, plain = guarded(optax.adam(0.1), cfg), optax.adam(0.1)
  params = theirs = {"w": jnp.asarray([1.0, -2.0])}
  state, other = tx.init(params), plain.init(params)
  update = jax.jit(tx.update)
  for gradient, loss in CASES:
    grads = {"w": jnp.asarray([gradient, 1.0])}
    updates, state = update(grads, state, params, loss=jnp.asarray(loss))
    params = optax.apply_updates(params, updates)
    if np.isfinite(gradient) and np.isfinite(loss):
      expected, other = plain.update(grads, other, theirs)
      theirs = optax.apply_updates(theirs, expected)
    assert isinstance(state, GuardState)
    np.testing.assert_allclose(params["w"], theirs["w"], rtol=1e-6)
  chosen = (state.skipped, state.accepted, optax.tree.get(state.inner, "count"))
  assert [int(x) for x in chosen] == [3, 3, 3]
  # Three skips, and the good steps after the first ones.
  assert float(state.debt) == pytest.approx(3 - 2 * 0.01)


def norms_held_back(norms, warmup, factor):
  """Which norms are spikes, from the definition, one at a time."""
  mean, accepted, spikes = 0.0, 0, []
  for i, norm in enumerate(norms):
    if accepted >= warmup and norm > factor * mean:
      spikes.append(i)
      continue
    mean += max(1 / (accepted + 1), 0.01) * (norm - mean)
    accepted += 1
  return spikes


def test_spikes_are_those_of_the_definition():
  rng = np.random.default_rng(0)
  norms = rng.lognormal(0, 0.8, 300)
  norms[[2, 50, 51, 200]] = 40.0
  cfg = train_config(on_spike=Guard.SKIP, spike_factor=4.0)
  tx = guarded(optax.sgd(0.1), cfg, warmup=20)
  state = tx.init({"w": jnp.zeros(1)})
  update = jax.jit(tx.update)
  found = []
  for i, norm in enumerate(norms):
    grads = {"w": jnp.asarray([norm], jnp.float32)}
    updates, state = update(grads, state, loss=jnp.zeros(()))
    if int(state.verdict) == Verdict.SPIKE:
      found.append(i)
      assert float(updates["w"][0]) == 0.0
  assert found == norms_held_back(norms, 20, 4.0)
  assert {50, 51, 200} < set(found) and 2 not in found


def test_good_steps_make_up_for_skips():
  cfg = train_config(on_nonfinite=Guard.SKIP, max_skips=2)
  tx = guarded(optax.sgd(0.1), cfg)
  state = tx.init({"w": jnp.zeros(1)})
  update = jax.jit(tx.update)

  def feed(value, times):
    nonlocal state
    grads = {"w": jnp.asarray([value])}
    for _ in range(times):
      _, state = update(grads, state, loss=jnp.zeros(()))
    return overdrawn(float(state.debt), cfg)

  assert not feed(NAN, 2)
  assert not feed(1.0, 100)
  assert not feed(NAN, 1)
  assert feed(NAN, 1)


class Poisoned(Bigram):
  """Its loss is not a number where a row begins with `marker`."""

  marker = 0

  def __call__(self, tokens, *, limits, noise_key=None):
    logits = super().__call__(tokens, limits=limits)
    poisoned = jnp.any(tokens[:, 0] == self.marker)
    return jnp.where(poisoned, jnp.nan, logits)


def poisoned_inputs(cfg, folder, step):
  """Inputs whose model fails on the batch of one step, and on which others."""
  inputs = make_inputs(cfg, folder)
  firsts = [inputs.data.batch(i).tokens[:, 0] for i in range(cfg.num_steps)]
  marker = int(firsts[step - 1][0])
  bad = [i + 1 for i, tokens in enumerate(firsts) if marker in tokens]

  class Model(Poisoned):
    pass

  Model.marker = marker
  return inputs._replace(build=lambda rngs: Model(rngs=rngs)), bad


def batch_of(path):
  with np.load(path) as file:
    return {name: file[name] for name in file.files}


def test_a_batch_that_makes_nan_stops_the_run_and_is_kept(tmp_path):
  cfg = make_config(eval_batches=1, checkpoint_every=1)
  inputs, bad = poisoned_inputs(cfg, tmp_path, 4)
  workdir = tmp_path / "run"
  with pytest.raises(Diverged, match="loss_nats = nan") as error:
    loop.train(cfg, workdir=workdir, inputs=inputs)
  path = workdir / "bad_batches" / f"step_{bad[0]:08}.npz"
  assert str(path) in str(error.value)
  kept, batch = batch_of(path), inputs.data.batch(bad[0] - 1)
  for name, array in batch._asdict().items():
    np.testing.assert_array_equal(kept[name], array)
  assert json.loads(str(kept["values"]))["train/loss_nats"] == "nan"
  saved = [int(p.name) for p in (workdir / "checkpoints").iterdir()]
  assert max(saved, default=0) < bad[0]


def test_skipped_steps_do_not_end_the_run_and_resume_alike(tmp_path, capsys):
  cfg = make_config(on_nonfinite=Guard.SKIP, checkpoint_every=1)
  inputs, bad = poisoned_inputs(cfg, tmp_path, 4)
  state = loop.train(cfg, workdir=tmp_path / "run", inputs=inputs)
  said = capsys.readouterr().err
  records = list(read_metrics(tmp_path / "run"))
  skipped = [r["step"] for r in records if r.get("guard/verdict") == 2]
  assert skipped == bad
  assert all(f"step {step}: train/loss_nats = nan" in said for step in bad)
  steps = [r for r in records if "guard/skipped" in r]
  assert steps[-1]["guard/skipped"] == len(bad)
  assert all((r["train/update_norm"] == 0) == (r["step"] in bad) for r in steps)
  assert np.isfinite(state.model.output.kernel[...]).all()
  # The schedule waited, and the rate reported is the one in force.
  rate = learning_rate(cfg.optimizer, cfg.num_steps)
  taken = 0
  for r in steps:
    assert r["train/learning_rate"] == pytest.approx(float(rate(taken)))
    taken += r["step"] not in bad
  assert int(state.opt_state.accepted) == taken


def test_too_many_skips_end_the_run(tmp_path):
  cfg = make_config(on_nonfinite=Guard.SKIP, max_skips=0)
  inputs, bad = poisoned_inputs(cfg, tmp_path, 4)
  with pytest.raises(Diverged, match="max_skips = 0"):
    loop.train(cfg, workdir=tmp_path / "run", inputs=inputs)
  assert (tmp_path / f"run/bad_batches/step_{bad[0]:08}.npz").exists()


@pytest.mark.parametrize("action", [Guard.STOP, Guard.SKIP])
def test_a_spike_stops_or_is_skipped(tmp_path, action):
  cfg = dataclasses.replace(train_config(), on_spike=action)
  batch = make_inputs(make_config(), tmp_path).data.batch(0)
  said = []
  watch = Watch(cfg, tmp_path, say=said.append)
  values = {"train/grad_norm": 50.0, "train/learning_rate": 0.1}
  watch.check(1, values | {"guard/verdict": 0.0}, batch)
  assert not said and not (tmp_path / "bad_batches").exists()
  spike = values | {"guard/verdict": 1.0, "guard/debt": 1.0}
  if action is Guard.SKIP:
    watch.check(2, spike, batch)
    assert "gradient norm 50, a spike" in said[0]
  else:
    with pytest.raises(Diverged, match="(?s)a spike.*train.on_spike=skip"):
      watch.check(2, spike, batch)
  assert (tmp_path / "bad_batches" / "step_00000002.npz").exists()
