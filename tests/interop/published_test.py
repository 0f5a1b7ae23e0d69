"""Published weights: the same logits, and nothing taken on trust."""

import json
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
from hsa_jax.interop.published.safetensors import INDEX, SINGLE, find_tensors
from tests.interop.published_files import (
  FIXTURES,
  frozen,
  load,
  logits_of,
  settings_of,
  tensors_of,
  write_file,
  write_folder,
  write_raw,
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
def test_logits_are_those_of_the_library(cut):
  want = frozen("cohere2")["logits"]
  got = logits_of(
    load(FIXTURES / "cohere2"), frozen("cohere2")["tokens"], cut=cut
  )
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


def small() -> dict:
  return {"a": np.ones(2, "f4"), "b": np.ones(3, "f4")}


def entry(begin: int, end: int, **changes) -> dict:
  shape = [(end - begin) // 4]
  return {
    "dtype": "F32",
    "shape": shape,
    "data_offsets": [begin, end],
  } | changes


@pytest.mark.parametrize(
  ("content", "line"),
  [
    (b"", "0 bytes that begin with no header"),
    (
      b"version https://git-lfs.github.com/spec/v1\noid",
      "a pointer of git-lfs",
    ),
    (({"a": entry(0, 8)}, b"0" * 7), "bytes, its header tells of"),
    (({"a": entry(0, 8)}, b"0" * 9), "bytes, its header tells of"),
    (({"a": entry(0, 8, shape=[3])}, b"0" * 8), "its header is damaged"),
    (({"a": {"shape": [2]}}, b""), "its header is damaged"),
    (({"a": 7}, b""), "its header is damaged"),
    (({"a": entry(0, 8), "b": entry(4, 12)}, b"0" * 12), "the next one free"),
    (({"a": entry(0, 8), "b": entry(12, 16)}, b"0" * 16), "the next one free"),
  ],
)
def test_damaged_files(tmp_path, content, line):
  path = tmp_path / SINGLE
  if isinstance(content, bytes):
    path.write_bytes(content)
  else:
    write_raw(path, *content)
  with pytest.raises(PublishedError, match=line):
    find_tensors(tmp_path)


def test_a_name_twice(tmp_path):
  one = json.dumps(entry(0, 8))
  text = f'{{"a": {one}, "a": {one}}}'.encode()
  content = len(text).to_bytes(8, "little") + text + b"0" * 8
  (tmp_path / SINGLE).write_bytes(content)
  with pytest.raises(PublishedError, match="a twice"):
    find_tensors(tmp_path)


@pytest.mark.parametrize(
  ("places", "line"),
  [
    ({"a": "one", "b": "one", "c": "one"}, "c: not in one, where"),
    ({"a": "one"}, "b: in one, by .* in nowhere"),
    ({"a": "one", "b": "two"}, "two: is missing, and .* names it"),
    ({"a": "one", "b": "../one"}, "../one: must lie beside it"),
    (None, "no index of safetensors"),
  ],
)
def test_indices_that_are_refused(tmp_path, places, line):
  write_file(tmp_path / "one", small())
  (tmp_path / INDEX).write_text(json.dumps({"weight_map": places}))
  with pytest.raises(PublishedError, match=line):
    find_tensors(tmp_path)


def test_folders_that_are_none(tmp_path):
  with pytest.raises(PublishedError, match="give the folder that holds it"):
    open_published(tmp_path)
  shutil.copy(FIXTURES / "cohere2" / "config.json", tmp_path)
  with pytest.raises(PublishedError, match="neither model.safetensors nor"):
    open_published(tmp_path)
