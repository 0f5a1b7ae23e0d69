"""The whole loop in this process, with a model that compiles at once."""

import contextlib
import inspect
import io
import os
import pathlib
import signal

import jax.numpy as jnp
import numpy as np
import pytest

from hsa_jax.training import loop
from hsa_jax.training.hooks import Hook, Moment
from hsa_jax.training.metrics import read_metrics
from hsa_jax.training.program import StepPrograms
from hsa_jax.training.stop import Interrupted
from hsa_jax.training.watch import Diverged

from .helpers import Bigram, losses, make_config, make_inputs

pytestmark = pytest.mark.usefixtures("compile_once")
CFG = make_config(eval_every=6)


def test_the_loop_is_one_page():
  path = pathlib.Path(loop.__file__)
  assert path.read_text().count("\n") < 200
  assert len(inspect.getsource(loop.train).splitlines()) < 80


class Crash(Exception):
  pass


class CrashAt(Hook):
  """Ends the run as a power cut would: nothing is saved on the way out."""

  def __init__(self, step):
    self._step = step

  def on_metrics(self, record):
    if record.step == self._step:
      raise Crash


class SignalAt(Hook):
  def __init__(self, step, number):
    self._step, self._number = step, number

  def wants(self, step, moment):
    if step == self._step and moment is Moment.STEP:
      os.kill(os.getpid(), self._number)
    return False


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
  """A run that nothing disturbed, and its last parameters."""
  root = tmp_path_factory.mktemp("whole")
  inputs = make_inputs(CFG, root)
  said = io.StringIO()
  with contextlib.redirect_stderr(said):
    state = loop.train(CFG, workdir=root / "run", inputs=inputs)
  return root, state, losses(root / "run"), said.getvalue()


def assert_same_end(state, workdir, whole):
  assert losses(workdir) == whole[2]
  np.testing.assert_array_equal(
    state.model.output.kernel[...], whole[1].model.output.kernel[...]
  )


def test_every_step_and_validation_is_logged(whole):
  root, state, values, _ = whole
  assert list(values) == list(range(1, 13)) and int(state.step) == 12
  records = list(read_metrics(root / "run"))
  validation = [r for r in records if "valid/loss_nats" in r]
  assert [r["step"] for r in validation] == [6, 12]
  for r in validation:
    bits = r["valid/loss_nats"] / np.log(2)
    assert r["valid/bits_per_byte"] == pytest.approx(bits)
  assert any("train/answer_accuracy" in r for r in records)
  assert values[12] < values[1] - 0.5


def test_stages_compile_once_each_and_say_so(whole):
  text = whole[3]
  assert text.count("compiled the step") == 2
  assert "4 rows of 32 tokens" in text and "2 rows of 192 tokens" in text


class Seen(Hook):
  """Steps of which the loop has told."""

  def __init__(self):
    self.steps = []

  def on_metrics(self, record):
    self.steps.append(record.step)


def test_no_step_is_on_its_way_while_another_shape_compiles(
  whole, tmp_path, monkeypatch
):
  seen, told, program = Seen(), [], StepPrograms.program

  def recorded(self, leaves, batch, say):
    if not self.has(batch):
      told.append(list(seen.steps))
    return program(self, leaves, batch, say)

  monkeypatch.setattr(StepPrograms, "program", recorded)
  cfg = make_config(eval_every=4)  # Nothing else is due between the stages.
  inputs = make_inputs(cfg, whole[0])
  loop.train(cfg, workdir=tmp_path, inputs=inputs, evaluators=[seen])
  first = cfg.data.stages[0].num_steps
  assert told == [[], list(range(1, first + 1))]


@pytest.mark.parametrize("step", [5, 9])
def test_resume_is_exact(whole, tmp_path, step):
  inputs = make_inputs(CFG, whole[0])
  with pytest.raises(Crash):
    loop.train(CFG, workdir=tmp_path, inputs=inputs, evaluators=[CrashAt(step)])
  state = loop.train(CFG, workdir=tmp_path, inputs=inputs)
  assert_same_end(state, tmp_path, whole)


@pytest.mark.parametrize(("number", "at"), [(signal.SIGTERM, 6)])
def test_a_signal_saves_and_the_run_resumes(whole, tmp_path, number, at):
  inputs = make_inputs(CFG, whole[0])
  before = signal.getsignal(number)
  with pytest.raises(Interrupted) as stop:
    loop.train(
      CFG, workdir=tmp_path, inputs=inputs, evaluators=[SignalAt(at, number)]
    )
  assert stop.value.signal_number == number and stop.value.step == 7
  assert (tmp_path / "checkpoints" / "7").is_dir()
  assert signal.getsignal(number) == before
  state = loop.train(CFG, workdir=tmp_path, inputs=inputs)
  assert_same_end(state, tmp_path, whole)


def test_a_finished_run_does_nothing(whole, capsys):
  root = whole[0]
  loop.train(CFG, workdir=root / "run", inputs=make_inputs(CFG, root))
  assert "nothing to do" in capsys.readouterr().err
  assert losses(root / "run") == whole[2]


def test_divergence_keeps_the_last_good_checkpoint(whole, tmp_path):
  class Bursts(Bigram):
    """Not a number once the weights have moved far enough."""

    def __call__(self, tokens, *, limits, noise_key=None):
      logits = super().__call__(tokens, limits=limits)
      far = jnp.abs(self.output.bias[...]).max() > 0.055
      return jnp.where(far, jnp.nan, logits)

  inputs = make_inputs(CFG, whole[0])
  inputs = inputs._replace(build=lambda rngs: Bursts(rngs=rngs))
  with pytest.raises(Diverged, match="loss_nats = nan") as error:
    loop.train(CFG, workdir=tmp_path, inputs=inputs)
  step = int(str(error.value).split("step ")[1].split(":")[0])
  saved = [int(p.name) for p in (tmp_path / "checkpoints").iterdir()]
  assert saved and max(saved) < step
  assert step not in losses(tmp_path)


def test_a_failing_hook_still_closes_the_others(whole, tmp_path):
  class Closed(Hook):
    closed = False

    def close(self):
      self.closed = True

  hook = Closed()
  inputs = make_inputs(CFG, whole[0])
  with pytest.raises(Crash):
    loop.train(
      CFG, workdir=tmp_path, inputs=inputs, evaluators=[CrashAt(1), hook]
    )
  assert hook.closed
