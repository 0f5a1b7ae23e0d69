"""Published weights: the same logits, and nothing taken on trust."""

import shutil

import numpy as np
import pytest

from hsa_jax.config import ConfigError, Mixer, layers_of
from hsa_jax.interop.published import (
  PublishedError,
  arrays_of,
  open_published,
  plan,
)
from hsa_jax.interop.published.safetensors import SINGLE
from tests.interop.published_files import (
  FIXTURES,
  frozen,
  load,
  logits_of,
  settings_of,
  tensors_of,
  write_folder,
)

# Command R7B's fields as published for older versions of the library.
OLDER = {
  "layer_types": None,
  "rope_parameters": None,
  "dtype": None,
  "torch_dtype": "bfloat16",
  "rope_theta": 50_000,
  "rope_scaling": None,
  "sliding_window_pattern": 4,
  "layer_switch": 4,
  "order_of_interleaved_layers": "local_attn_first",
  "position_embedding_type": "rope_gptj",
  "rotary_pct": 1.0,
  "use_embedding_sharing": True,
  "use_gated_activation": True,
  "use_parallel_block": True,
  "use_parallel_embedding": False,
  "use_qk_norm": False,
  "cache_implementation": "hybrid",
}
QUERY = "model.layers.1.self_attn.q_proj.weight"


@pytest.mark.parametrize("cut", [0, 4, 13])
@pytest.mark.parametrize("name", ["cohere2", "mamba2"])
def test_logits_are_those_of_the_library(name, cut):
  want = frozen(name)["logits"]
  got = logits_of(load(FIXTURES / name), frozen(name)["tokens"], cut=cut)
  assert np.abs(want).max() > 0.5
  np.testing.assert_allclose(got, want, rtol=0, atol=1e-5)


def test_one_file_or_several(tmp_path):
  """The same parameters, and the parts are read one stack at a time."""
  folder = write_folder(tmp_path, settings_of("cohere2"), tensors_of("cohere2"))
  several, one = open_published(FIXTURES / "cohere2"), open_published(folder)
  assert {s.path.name for s in one.tensors.values()} == {SINGLE}
  assert len({s.path for s in several.tensors.values()}) == 3
  for (name, a), (other, b) in zip(
    arrays_of(*several), arrays_of(*one), strict=True
  ):
    assert name == other and a.dtype == np.float32
    np.testing.assert_array_equal(a, b)


def test_every_tensor_is_read_once_and_late(monkeypatch):
  reads = []
  read = plan.read_tensor
  monkeypatch.setattr(
    plan,
    "read_tensor",
    lambda *asked: (reads.append(asked[0]), read(*asked))[1],
  )
  published = open_published(FIXTURES / "cohere2")
  assert reads == []
  arrays = arrays_of(*published)
  for _ in arrays:
    assert len(reads) <= 2  # layers 0 and 4 are the longest stack
    break
  for _ in arrays:
    pass
  assert sorted(reads) == sorted(published.tensors.values())


def test_parts_of_a_tensor_are_all_of_it():
  """Five of our matrices are rows of one of theirs."""
  imported, tensors = open_published(FIXTURES / "mamba2")
  parts = dict(arrays_of(imported, tensors))
  name = "lower_blocks.attention.{}.kernel"
  names = ("gate", "value", "key", "query", "step")
  mine = np.concatenate([parts[name.format(n)] for n in names], axis=2)
  theirs = tensors_of("mamba2")
  for i, matrix in enumerate(mine):
    want = theirs[f"backbone.layers.{i}.mixer.in_proj.weight"]
    np.testing.assert_array_equal(matrix.T, want)


def original(**changes) -> tuple[dict, dict[str, np.ndarray]]:
  """The Mamba-2 of the fixture with the names of state-spaces' own package."""
  settings = {
    "d_model": 16,
    "d_intermediate": 0,
    "n_layer": 3,
    "vocab_size": 260,
    "ssm_cfg": {
      "layer": "Mamba2",
      "d_state": 8,
      "headdim": 8,
      "ngroups": 2,
      "chunk_size": 8,
    },
    "attn_layer_idx": [],
    "attn_cfg": {},
    "rms_norm": True,
    "residual_in_fp32": True,
    "fused_add_norm": True,
    "pad_vocab_size_multiple": 8,
    "tie_embeddings": True,
  }
  tensors = tensors_of("mamba2")
  table = tensors.pop("backbone.embeddings.weight")
  names = ("backbone.embedding.weight", "lm_head.weight")
  return settings | changes, tensors | dict.fromkeys(names, table)


def test_the_original_names_of_mamba(tmp_path):
  model = load(write_folder(tmp_path, *original()))
  got = logits_of(model, frozen("mamba2")["tokens"])
  want = frozen("mamba2")["logits"]
  np.testing.assert_allclose(got, want, rtol=0, atol=1e-5)


@pytest.mark.parametrize(
  ("changes", "line"),
  [
    ({"ssm_cfg": {}}, "ssm_cfg.layer = \"Mamba1\": must be 'Mamba2'"),
    (
      {"ssm_cfg": {"layer": "Mamba2", "norm_before_gate": True}},
      "ssm_cfg.norm_before_gate = true: not known here, and may change what is"
      " computed; if it does not, pass --ignore=ssm_cfg.norm_before_gate",
    ),
    (
      {"ssm_cfg": {"layer": "Mamba2", "ngroups": "2"}},
      'ssm_cfg.ngroups = "2": must be a whole',
    ),
    ({"d_intermediate": 32}, "d_intermediate = 32: blocks have no MLP here"),
    ({"attn_layer_idx": [1]}, "attn_layer_idx = [1]: no attention between"),
    ({"rms_norm": False}, "rms_norm = false: the norm is RMSNorm here"),
    ({"n_layer": 0}, "n_layer = 0: must be a whole number above 0"),
  ],
)
def test_original_fields_that_are_refused(tmp_path, changes, line):
  folder = write_folder(tmp_path, original(**changes)[0], {})
  with pytest.raises(PublishedError) as caught:
    open_published(folder)
  assert len(caught.value.problems) == 1
  assert caught.value.problems[0].startswith(line)


@pytest.mark.parametrize(
  ("changes", "line"),
  [
    ({"use_bias": True}, "use_bias = true: projections have no bias here"),
    ({"use_conv_bias": False}, "use_conv_bias = false: filters have a bias"),
    ({"hidden_act": "gelu"}, 'hidden_act = "gelu": filters and gates take'),
    (
      {"num_heads": 5},
      "num_heads = 5: must be expand * hidden_size / head_dim",
    ),
    (
      {"time_step_limit": [0.0, 1.0]},
      "time_step_limit = [0.0, 1.0]: steps are",
    ),
    ({"time_step_limit": 3}, "time_step_limit = 3: steps are not cut off"),
    ({"norm_before_gate": True}, "norm_before_gate = true: not known here"),
  ],
)
def test_fields_of_mamba_that_are_refused(tmp_path, changes, line):
  folder = write_folder(tmp_path, settings_of("mamba2", **changes), {})
  with pytest.raises(PublishedError) as caught:
    open_published(folder)
  assert len(caught.value.problems) == 1
  assert caught.value.problems[0].startswith(line)


def test_an_endless_step_in_the_older_spelling(tmp_path):
  settings = settings_of("mamba2", time_step_limit=[0.0, float("inf")])
  folder = write_folder(tmp_path, settings, tensors_of("mamba2"))
  fixture = open_published(FIXTURES / "mamba2").imported
  assert open_published(folder).imported == fixture


def test_the_older_spelling_is_the_same_model(tmp_path):
  folder = write_folder(
    tmp_path, settings_of("cohere2", **OLDER), tensors_of("cohere2")
  )
  assert (
    open_published(folder).imported.model
    == open_published(FIXTURES / "cohere2").imported.model
  )


def test_other_patterns(tmp_path):
  kinds = ["full_attention", "sliding_attention"] * 2 + ["full_attention"]
  folder = write_folder(
    tmp_path, settings_of("cohere2", layer_types=kinds), tensors_of("cohere2")
  )
  model = open_published(folder).imported.model
  assert len(model.layers) == 2
  full = [layer.mixer is Mixer.FULL for layer in layers_of(model, 0, 5)]
  assert full == [True, False, True, False, True]
  one = settings_of("cohere2", layer_types=["sliding_attention"] * 5)
  write_folder(tmp_path, one, tensors_of("cohere2"))
  assert len(open_published(folder).imported.model.layers) == 1


def test_a_head_of_its_own(tmp_path):
  tensors = tensors_of("cohere2")
  table = tensors["model.embed_tokens.weight"]
  settings = settings_of("cohere2", tie_word_embeddings=False)
  head = {"lm_head.weight": np.ascontiguousarray(table[::-1])}
  folder = write_folder(tmp_path, settings, {**tensors, **head})
  got = logits_of(load(folder), frozen("cohere2")["tokens"])
  want = frozen("cohere2")["logits"][..., ::-1]
  np.testing.assert_allclose(got, want, rtol=0, atol=1e-5)


def test_a_head_that_is_the_table_may_be_there_again(tmp_path):
  tensors = tensors_of("cohere2")
  tensors["lm_head.weight"] = tensors["model.embed_tokens.weight"]
  folder = write_folder(tmp_path, settings_of("cohere2"), tensors)
  names = dict(arrays_of(*open_published(folder))).keys()
  assert "output.kernel" not in names


@pytest.mark.parametrize(
  ("changes", "line"),
  [
    ({"hidden_act": "gelu"}, 'hidden_act = "gelu": this MLP is SwiGLU'),
    ({"attention_bias": True}, "attention_bias = true: projections have no"),
    ({"use_qk_norm": True}, "use_qk_norm = true: not part of the Cohere2"),
    ({"use_parallel_block": False}, "use_parallel_block = false: blocks of"),
    (
      {"rope_parameters": {"rope_type": "yarn", "rope_theta": 1e4}},
      "scaled angles of windows are not known here",
    ),
    (
      {"rope_parameters": None, "rope_scaling": {"type": "linear"}},
      'rope_scaling = {"type": "linear"}: scaled angles of windows',
    ),
    ({"sliding_window": None}, "sliding_window: is missing; must be a whole"),
    ({"logit_scale": 0}, "logit_scale = 0: must be a number above 0"),
    ({"vocab_size": "264"}, 'vocab_size = "264": must be a whole number'),
    ({"intermediate_size": True}, "intermediate_size = true: must be a whole"),
    ({"layer_types": ["full_attention"]}, "must name 5 layers, each"),
    ({"layer_types": ["chunked_attention"] * 5}, "must name 5 layers, each"),
    ({"dtype": "float8"}, 'dtype = "float8": must be one of float32, bfloat16'),
    ({"tie_word_embeddings": "no"}, "must be true or false"),
    (
      {"attention_sinks": 4},
      "attention_sinks = 4: not known here, and may change what is computed; if"
      " it does not, pass --ignore=attention_sinks",
    ),
    (
      {"quantization_config": {"bits": 4}},
      'quantization_config = {"bits": 4}: take the release',
    ),
    (
      {"architectures": ["LlamaForCausalLM"]},
      "architectures = ['LlamaForCausalLM']: must be one of Cohere2ForCausalLM",
    ),
  ],
)
def test_fields_that_are_refused(tmp_path, changes, line):
  folder = write_folder(tmp_path, settings_of("cohere2", **changes), {})
  with pytest.raises(PublishedError) as caught:
    open_published(folder)
  assert len(caught.value.problems) == 1
  assert line in caught.value.problems[0]
  assert str(caught.value).startswith(f"{folder / 'config.json'}: cannot be")


def test_all_bad_fields_are_told_at_once(tmp_path):
  settings = settings_of("cohere2", hidden_act="gelu", logit_scale=-1, new=1)
  with pytest.raises(PublishedError) as caught:
    open_published(write_folder(tmp_path, settings, {}))
  assert len(caught.value.problems) == 3
  write_folder(tmp_path, settings_of("cohere2", new=1), tensors_of("cohere2"))
  open_published(tmp_path, ignore=["new"])


def test_sizes_that_do_not_go_together(tmp_path):
  settings = settings_of("cohere2", num_key_value_heads=3)
  folder = write_folder(tmp_path, settings, tensors_of("cohere2"))
  with pytest.raises(ConfigError, match="num_kv_heads = 3: must divide"):
    open_published(folder)


@pytest.mark.parametrize(
  ("change", "line"),
  [
    (
      lambda t: t.pop(QUERY),
      f"{QUERY}: is missing; the file is not complete, or the configuration is"
      " of another model",
    ),
    (
      lambda t: t.update({"lm_head.weight": np.zeros((264, 16), "f4")}),
      "lm_head.weight: is not model.embed_tokens.weight, and config.json says",
    ),
    (
      lambda t: t.update({"model.layers.5.mlp.bias": np.zeros(4, "f4")}),
      "model.layers.5.mlp.bias: is left over; no part of Cohere2ForCausalLM as"
      " config.json describes it",
    ),
    (
      lambda t: t.update({QUERY: np.zeros((16, 12), "f4")}),
      f"{QUERY}: 16x12 in model.safetensors, 16x16 by config.json",
    ),
    (
      lambda t: t.update({QUERY: np.zeros((16, 16))}),
      f"{QUERY}: of type F64; F32, F16, BF16 are read here",
    ),
  ],
)
def test_tensors_that_are_refused(tmp_path, change, line):
  tensors = tensors_of("cohere2")
  change(tensors)
  folder = write_folder(tmp_path, settings_of("cohere2"), tensors)
  with pytest.raises(PublishedError) as caught:
    open_published(folder)
  assert len(caught.value.problems) == 1
  assert caught.value.problems[0].startswith(line)


def test_numbers_that_are_not_finite(tmp_path):
  tensors = tensors_of("cohere2")
  tensors[QUERY][3, 3] = np.inf
  folder = write_folder(tmp_path, settings_of("cohere2"), tensors)
  with pytest.raises(PublishedError, match=f"{QUERY}: holds numbers that are"):
    list(arrays_of(*open_published(folder)))


def test_folders_that_are_none(tmp_path):
  with pytest.raises(PublishedError, match="give the folder that holds it"):
    open_published(tmp_path)
  shutil.copy(FIXTURES / "cohere2" / "config.json", tmp_path)
  with pytest.raises(PublishedError, match="neither model.safetensors nor"):
    open_published(tmp_path)
