"""Rules between fields: each broken rule is one line that says what to do."""

import pytest

from hsa_jax.config import Config, ConfigError, from_dict, validate

GOOD = {"data": {"stages": ({"num_steps": 500},)}}


def broken(source, **known) -> list[str]:
  cfg = from_dict(source)
  with pytest.raises(ConfigError) as caught:
    validate(cfg, **known)
  return caught.value.problems


def hsa(**fields):
  return {"model": {"hsa": fields}}


def stage(**fields):
  return {"data": {"stages": ({"num_steps": 500, **fields},)}}


def source(**fields):
  return stage(sources=(fields,))


def test_defaults_are_valid():
  validate(Config())
  validate(from_dict(GOOD), num_devices=8, tokenizer_vocab_size=258)


@pytest.mark.parametrize(
  ("fields", "line"),
  [
    (hsa(top_k=0), "model.hsa.top_k = 0: must be at least 1"),
    (hsa(num_groups=-1), "model.hsa.num_groups = -1: must not be negative"),
    (
      {"model": {"num_kv_heads": 5}},
      "model.num_kv_heads = 5: must divide model.num_heads = 16; nearest: 4",
    ),
    (
      hsa(num_memory_heads=7, landmark_dim=14),
      "model.hsa.num_memory_heads = 7: must divide model.num_heads = 16;"
      " nearest: 8",
    ),
    (
      hsa(num_memory_heads=8, landmark_dim=36),
      "model.hsa.num_memory_heads = 8: must divide model.hsa.landmark_dim ="
      " 36; nearest: 9",
    ),
    (
      hsa(num_groups=4),
      "model.hsa.num_groups = 4: must divide model.num_upper_layers = 6;"
      " nearest: 3",
    ),
    (
      {"model": {"head_dim": 7}},
      "model.head_dim = 7: must be even for rotary pairs; nearest: 8",
    ),
    (
      hsa(encoder_layers=0),
      "model.hsa.landmark = 'cls': needs model.hsa.encoder_layers >= 1; without"
      " an encoder use 'mean'",
    ),
    (hsa(sink=2), "model.hsa.sink = 2: must be 0 or 1"),
    (
      hsa(landmark="token", tokens_per_retrieval=8),
      "model.hsa.tokens_per_retrieval = 8: with model.hsa.landmark = 'token' it"
      " must be model.hsa.chunk_size = 64, so that landmark tokens ask, or 1",
    ),
    (
      hsa(position="relative_rope"),
      "model.hsa.position = 'relative_rope': a read has 'none' or"
      " 'absolute_rope'",
    ),
    (
      hsa(landmark="token", position="absolute_rope"),
      "model.hsa.position = 'absolute_rope': inserted landmark tokens have no"
      " place in it; use 'none' with model.hsa.landmark = 'token'",
    ),
    (
      hsa(landmark_projection=False, landmark_dim=512),
      "model.hsa.landmark_dim = 512: without model.hsa.landmark_projection it"
      " must be model.embed_dim = 1024",
    ),
    (
      hsa(num_groups=3, groups_per_retrieval=2),
      "model.hsa.groups_per_retrieval = 2: must divide model.hsa.num_groups ="
      " 3; nearest: 1",
    ),
    (
      {"model": {"num_upper_layers": 0, "hsa": {"num_groups": 2}}},
      "model.hsa.num_groups = 2: each group needs an upper layer,"
      " model.num_upper_layers = 0; or none has one, with"
      " model.hsa.block_window",
    ),
    (
      hsa(weighting="softmax", top_k=1),
      "model.hsa.top_k = 1: with softmax weights the retriever gets no"
      " gradient; use 'stick_breaking' or top_k >= 2",
    ),
    (
      hsa(implementation="fused"),
      "model.hsa.implementation = 'fused': must be one of auto, reference,"
      " dense, gather",
    ),
    (
      {"optimizer": {"learning_rate": 0}},
      "optimizer.learning_rate = 0.0: must be above 0",
    ),
    ({"optimizer": {"b1": 1.0}}, "optimizer.b1 = 1.0: must be in [0, 1)"),
    (
      {"optimizer": {"warmup_steps": 1001}},
      "optimizer.warmup_steps = 1001: longer than the run of 1000 steps",
    ),
  ],
)
def test_rule(fields, line):
  assert broken(fields) == [line]


@pytest.mark.parametrize(
  "fields",
  [
    hsa(encoder_layers=0, landmark="mean"),
    hsa(weighting="softmax", top_k=2),
    hsa(weighting="stick_breaking", top_k=1),
    # A single retrieval head leaves landmark_dim whole.
    hsa(num_memory_heads=8, landmark_dim=36, retrieval_heads="single"),
    # Without a memory its fields do not matter.
    hsa(num_groups=0, encoder_layers=0, sink=3),
  ],
)
def test_neighbours_of_a_rule_are_valid(fields):
  validate(from_dict(fields))


@pytest.mark.parametrize(
  ("schedule", "rule"),
  [
    (((5, 2),), "steps must start at 0 and increase"),
    (((0, 2), (9, 4), (9, 8)), "steps must start at 0 and increase"),
    (((0, 2), (9, 4), (5, 8)), "steps must start at 0 and increase"),
    (((0, 9),), "values must be in 1..8 (model.hsa.top_k)"),
    (((0, 0),), "values must be in 1..8 (model.hsa.top_k)"),
  ],
)
def test_schedule_of_top_k(schedule, rule):
  lines = broken({"train": {"top_k_schedule": schedule}})
  assert lines == [f"train.top_k_schedule = {schedule}: {rule}"]


def test_schedule_of_the_window():
  lines = broken({"train": {"window_schedule": ((0, 64), (10, 513))}})
  assert lines == [
    "train.window_schedule = ((0, 64), (10, 513)): values must be in 1..512"
    " (model.window_size)"
  ]
  good = {"train": {"window_schedule": ((0, 64), (10, 512))}}
  validate(from_dict(good))
  splash = {"model": {"window_implementation": "splash"}}
  validate(from_dict(splash))
  (line,) = broken({**good, **splash})
  assert line.startswith("model.window_implementation = 'splash': its window")


@pytest.mark.parametrize(
  ("fields", "line"),
  [
    ({"data": {"stages": ()}}, "data.stages = (): needs at least one stage"),
    (
      stage(sources=()),
      "data.stages[0].sources = (): needs at least one source",
    ),
    (stage(seq_len=0), "data.stages[0].seq_len = 0: must be at least 1"),
    (
      source(weight=0),
      "data.stages[0].sources[0].weight = 0.0: must be above 0",
    ),
    (
      source(task="niah", num_needles=2, num_questions=3),
      "data.stages[0].sources[0].num_questions = 3: must be in"
      " 1..num_needles = 2",
    ),
    (
      {**stage(batch_size=6), "train": {"grad_accum_steps": 4}},
      "data.stages[0].batch_size = 6: must be divisible by"
      " train.grad_accum_steps = 4",
    ),
  ],
)
def test_stage(fields, line):
  assert broken(fields) == [line]


@pytest.mark.parametrize("task", ["niah", "text"])
def test_random_haystack_is_for_copying_only(task):
  assert broken(source(task=task, haystack="random")) == [
    "data.stages[0].sources[0].haystack = 'random': only with task = 'copy',"
    f" got task = '{task}'; use 'text' or 'noise'"
  ]
  validate(from_dict(source(task="copy", haystack="random")))


@pytest.mark.parametrize(
  ("fields", "line"),
  [
    (
      {"task": "mk_mq", "num_needles": 6, "num_questions": 3},
      "num_questions = 3: must be even and in 2..num_needles = 6; task ="
      " 'mk_mq' asks for two in each question",
    ),
    (
      {"task": "mk_mq", "num_needles": 2, "num_questions": 4},
      "num_questions = 4: must be even and in 2..num_needles = 2; task ="
      " 'mk_mq' asks for two in each question",
    ),
    (
      {"task": "vt", "num_needles": 4},
      "num_needles = 4: must be a multiple of chain_length = 3, the variables"
      " of a chain of task = 'vt'",
    ),
    ({"task": "vt", "chain_length": 0}, "chain_length = 0: must be at least 1"),
    (
      {"task": "niah", "chain_length": 2},
      "chain_length = 2: only task = 'vt' and 'gca_hops' have chains; leave it"
      " out",
    ),
    (
      {"task": "vt", "num_needles": 6, "num_questions": 3},
      "num_questions = 3: must be in 1..2 chains",
    ),
    (
      {"task": "mqar", "haystack": "random", "num_questions": 2},
      "num_questions = 2: must be in 1..num_needles = 1",
    ),
    (
      {"task": "mqar"},
      "haystack = 'text': task = 'mqar' hides its ids among random ones; use"
      " 'random'",
    ),
    (
      {"task": "induction", "haystack": "noise"},
      "haystack = 'noise': task = 'induction' hides its ids among random ones;"
      " use 'random'",
    ),
    (
      {"task": "fwe", "num_needles": 2},
      "num_needles = 2: task = 'fwe' has one; use 1",
    ),
    (
      {"task": "passkey", "num_questions": 0},
      "num_questions = 0: task = 'passkey' has one; use 1",
    ),
    (
      {"task": "vt", "num_needles": 3, "needle": "ids"},
      "needle = 'ids': only with task = 'niah', got task = 'vt'; use 'digits'",
    ),
    (
      {"task": "copy", "haystack": "noise"},
      "haystack = 'noise': task = 'copy' repeats 'text' or 'random'",
    ),
  ],
)
def test_source(fields, line):
  assert broken(source(**fields)) == [f"data.stages[0].sources[0].{line}"]


@pytest.mark.parametrize(
  "fields",
  [
    {"task": "mk_mq", "num_needles": 6, "num_questions": 2},
    {"task": "vt", "num_needles": 6, "num_questions": 2},
    {"task": "vt", "num_needles": 2, "num_questions": 2, "chain_length": 1},
    {
      "task": "mqar",
      "haystack": "random",
      "num_needles": 8,
      "num_questions": 8,
    },
    {"task": "fwe"},
    {"task": "passkey", "haystack": "noise"},
    {"task": "selective_copy", "haystack": "random"},
  ],
)
def test_neighbours_of_a_source_rule_are_valid(fields):
  validate(from_dict(source(**fields)))


@pytest.mark.parametrize("share", [-0.1, 1.5, float("nan")])
def test_synthetic_mix_is_a_share(share):
  assert broken({"data": {"synthetic_mix": share}}) == [
    f"data.synthetic_mix = {share}: must be in [0, 1], a share of the rows"
  ]
  validate(from_dict({"data": {"synthetic_mix": 1}}))


def test_synthetic_rows_must_fit():
  fields = {"data": {"synthetic_mix": 0.05, **stage(seq_len=300)["data"]}}
  assert broken(fields, min_question_len={"0/mix": 301}) == [
    "data.stages[0].seq_len = 300: data.synthetic_mix = 0.05 needs 301 tokens"
  ]
  validate(from_dict(fields), min_question_len={"0/mix": 300})


def test_questions_must_fit_the_row():
  fields = stage(seq_len=100, sources=({}, {"task": "niah"}))
  assert broken(fields, min_question_len={"0/1": 101}) == [
    "data.stages[0].seq_len = 100: source 1 (1 needles, 1 questions) needs 101"
    " tokens"
  ]
  validate(from_dict(fields), min_question_len={"0/1": 100})


@pytest.mark.parametrize(
  ("mesh", "line"),
  [
    (
      {"data": 0},
      "mesh.data = 0: must be at least 1, or -1 for what is left",
    ),
    ({"tensor": -1}, "mesh: only one axis may be -1, got data, tensor"),
    (
      {"tensor": 3},
      "mesh = data=-1 x fsdp=1 x context=1 x tensor=3: needs 3 devices, this"
      " run has 8",
    ),
    (
      {"data": 2, "fsdp": 2},
      "mesh = data=2 x fsdp=2 x context=1 x tensor=1: needs 4 devices, this"
      " run has 8",
    ),
  ],
)
def test_mesh(mesh, line):
  assert broken({**GOOD, "mesh": mesh}, num_devices=8) == [line]


def test_rows_must_divide_over_the_mesh():
  fields = {
    **stage(batch_size=12),
    "mesh": {"data": -1, "fsdp": 2, "tensor": 2},
    "train": {"grad_accum_steps": 2},
  }
  assert broken(fields, num_devices=16) == [
    "data.stages[0].batch_size = 12: each of the 2 micro-batches must be"
    " divisible by data*fsdp = 8"
  ]
  validate(from_dict(fields), num_devices=4)  # 2 rows at a time
  validate(from_dict(fields))  # devices unknown: no rule


def test_tokenizer_must_fit_the_vocabulary():
  lines = broken(GOOD, tokenizer_vocab_size=300)
  assert lines == [
    "model.vocab_size = 264: tokenizer 'byte' has 300 ids; nearest: 304"
  ]


def test_all_problems_come_at_once():
  fields = {
    "model": {"num_kv_heads": 5, "hsa": {"top_k": 0}},
    "data": {"stages": ({"seq_len": 0},)},
    "train": {"window_schedule": ((1, 5),)},
    "mesh": {"data": 0},
  }
  keys = [line.split(" = ")[0] for line in broken(fields)]
  assert keys == [
    "model.hsa.top_k",
    "model.num_kv_heads",
    "train.window_schedule",
    "data.stages[0].seq_len",
    "mesh.data",
  ]
  with pytest.raises(ConfigError, match="^5 problems in run.py\n  model.hsa"):
    validate(from_dict(fields), where="run.py")
