"""The harness itself, on a local task, without network."""

import importlib
import json
import os
import sys

import pytest

from hsa_jax.cli import lm_eval as command
from hsa_jax.interop import MissingHarnessError, import_harness, make_lm
from tests.evaluation.helpers import make_checkpoint

from .helpers import Asked, greedy, harness_model, likelihood, text

DOCS = [
  {"context": text(30, 1), "choices": ["ab", " c", "hello"], "gold": 1},
  {"context": text(200, 2), "choices": ["a", "b", "c"], "gold": 0},
  {"context": text(90, 3), "choices": ["bad", "fad"], "gold": 1},
]
CHOICE = """
task: tiny_choice
output_type: multiple_choice
doc_to_text: "{{context}}"
doc_to_choice: "{{choices}}"
doc_to_target: gold
target_delimiter: ""
metric_list: [{metric: acc}, {metric: acc_norm}]
"""
ROLLING = """
task: tiny_rolling
output_type: loglikelihood_rolling
doc_to_text: ""
doc_to_target: "{{context}}"
metric_list: [{metric: bits_per_byte}, {metric: byte_perplexity}]
"""
WRITING = """
task: tiny_writing
output_type: generate_until
doc_to_text: "{{context}}"
doc_to_target: "{{choices[gold]}}"
generation_kwargs: {until: ["zzz"], max_gen_toks: 6}
metric_list: [{metric: exact_match}]
"""
TASKS = ("tiny_choice", "tiny_rolling", "tiny_writing")
# Raised inside the libraries of the harness.
others = pytest.mark.filterwarnings("ignore")


@pytest.fixture(scope="module")
def harness(tmp_path_factory):
  """The package, told to keep its caches here and to stay off the network."""
  if importlib.util.find_spec("lm_eval") is None:
    pytest.skip("lm_eval is not installed; run: make test-lm-eval")
  os.environ["HF_HOME"] = str(tmp_path_factory.mktemp("hf"))
  os.environ["HF_HUB_OFFLINE"] = os.environ["DISABLE_MULTIPROC"] = "1"
  return importlib.import_module("lm_eval")


@pytest.fixture
def tasks(tmp_path):
  """Three tasks over the same documents, in files."""
  data = tmp_path / "docs.jsonl"
  data.write_text("".join(json.dumps(doc) + "\n" for doc in DOCS))
  source = f"""
dataset_path: json
dataset_kwargs: {{data_files: {{test: {data}}}}}
test_split: test
"""
  for body in (CHOICE, ROLLING, WRITING):
    name = body.split()[1]
    (tmp_path / f"{name}.yaml").write_text(body + source)
  return tmp_path


def resps(samples):
  rows = sorted(samples, key=lambda row: row["doc_id"])
  return [[resp[0] for resp in row["resps"]] for row in rows]


def check(results, samples):
  """Every answer is that of the plain forward pass, and so the metrics."""
  right = []
  for doc, answers in zip(DOCS, resps(samples["tiny_choice"]), strict=True):
    expected = [likelihood(doc["context"], c) for c in doc["choices"]]
    for got, twin in zip(answers, expected, strict=True):
      assert float(got[0]) == pytest.approx(twin[0], abs=1e-4)
      assert str(got[1]) == str(twin[1])
    best = max(range(len(expected)), key=lambda i: expected[i][0])
    right.append(best == doc["gold"])
  accuracy = results["tiny_choice"]["acc,none"]
  assert accuracy == pytest.approx(sum(right) / len(right))
  nats = [likelihood("", doc["context"])[0] for doc in DOCS]
  for answer, twin in zip(resps(samples["tiny_rolling"]), nats, strict=True):
    assert float(answer[0]) == pytest.approx(twin, abs=1e-3)
  size = sum(len(doc["context"]) for doc in DOCS)
  bits = results["tiny_rolling"]["bits_per_byte,none"]
  assert bits == pytest.approx(-sum(nats) / size / 0.6931471805599453, abs=1e-5)
  for doc, answer in zip(DOCS, resps(samples["tiny_writing"]), strict=True):
    assert answer == [greedy(doc["context"], 6)]


@others
def test_a_local_task_gives_the_forward_pass_answers(harness, tasks):
  manager = importlib.import_module("lm_eval.tasks").TaskManager
  results = harness.simple_evaluate(
    model=make_lm(harness_model()),
    tasks=list(TASKS),
    task_manager=manager(include_path=str(tasks), include_defaults=False),
    bootstrap_iters=10,
  )
  check(results["results"], results["samples"])


@others
def test_the_command_writes_goes_on_and_refuses(harness, tasks, capsys):
  make_checkpoint(tasks / "run")
  flags = [
    f"--checkpoint={tasks}/run",
    f"--include-path={tasks}",
    f"--out={tasks}/out",
    "--segment=64",
  ]
  code = command.main([*flags, f"--tasks={','.join(TASKS)}"])
  assert code == 0, capsys.readouterr().err
  assert "tiny_choice" in capsys.readouterr().out
  results = json.loads((tasks / "out/results.json").read_text())
  samples = {
    task: [
      json.loads(line)
      for line in (tasks / f"out/samples_{task}.jsonl").read_text().splitlines()
    ]
    for task in TASKS
  }
  assert [len(rows) for rows in samples.values()] == [3, 3, 3]
  assert results["config"]["step"] == 1
  assert set(results["results"]) == set(TASKS)

  # Answered already: no model is asked again.
  before = (tasks / "out/samples_tiny_choice.jsonl").read_text()
  assert command.main([*flags, "--tasks=tiny_choice", "--batch=3"]) == 0
  assert (tasks / "out/samples_tiny_choice.jsonl").read_text() == before

  capsys.readouterr()
  assert command.main([*flags, "--tasks=tiny_choice", "--kv-dtype=int8"]) == 2
  assert "holds answers of kv_dtype 'computed'" in capsys.readouterr().err
  device = ["--kv-dtype=int8", "--memory=device", f"--out={tasks}/other"]
  assert command.main([*flags, "--tasks=tiny_choice", *device]) == 2
  assert "only host and disk store" in capsys.readouterr().err
  assert command.main([*flags, "--tasks=tiny_chioce"]) == 2
  assert "did you mean 'tiny_choice'" in capsys.readouterr().err


@others
def test_what_the_harness_may_ask_besides(harness):
  lm = make_lm(harness_model())
  assert lm.tokenizer_name.startswith("byte fdb656a2054ed9cd")
  assert lm.world_size == 1 and lm.rank == 0
  with pytest.raises(Exception, match="chat templates"):
    lm.apply_chat_template([])


def test_without_the_package(monkeypatch, tmp_path, capsys):
  monkeypatch.setitem(sys.modules, "lm_eval", None)
  with pytest.raises(
    MissingHarnessError, match=r"pip install -e '\.\[lm-eval\]"
  ):
    import_harness()
  make_checkpoint(tmp_path / "run")
  flags = [f"--checkpoint={tmp_path}/run", "--tasks=a", f"--out={tmp_path}/o"]
  assert command.main(flags) == 2
  assert "'lm_eval' is not installed" in capsys.readouterr().err
  assert not (tmp_path / "o").exists()


@pytest.mark.parametrize(
  ("flag", "message"),
  [
    ("--checkpoint=", "--checkpoint is missing"),
    ("--tasks=", "--tasks is missing: names of the harness"),
    ("--out=", "--out is missing"),
    ("--limit=0", "--limit=0: must be at least 1"),
    ("--num-fewshot=-1", "--num-fewshot=-1: must be at least 0"),
    ("--segment=0", "--segment=0"),
    ("--memory=sharded", "'sharded' is not one of auto, device, host, disk"),
    ("--include-path=/no/such", "--include-path=/no/such: no such folder"),
    ("--taks=a", "--taks=a"),
    ("--checkpoint=/no/such", "/no/such: no such folder"),
  ],
)
def test_bad_flags(capsys, flag, message):
  flags = ["--checkpoint=/no/run", "--tasks=a", "--out=/no/out"]
  assert command.main([*flags, flag]) == 2
  err = capsys.readouterr().err
  assert err.startswith("error: ") and message in err


def test_a_request_is_remembered_when_it_is_answered():
  seen = []
  pairs = [("ab", "c"), ("ab", "")]
  answers = harness_model().loglikelihood(
    [Asked(pair) for pair in pairs],
    lambda name, args, answer: seen.append((name, args, answer)),
    quiet=True,
  )
  expected = [
    ("loglikelihood", p, a) for p, a in zip(pairs, answers, strict=True)
  ]
  assert sorted(seen) == sorted(expected)
