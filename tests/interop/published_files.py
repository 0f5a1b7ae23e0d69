"""Folders of published weights for tests: copied, changed, loaded."""

import dataclasses
import functools
import json
import pathlib
import struct

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from hsa_jax.interop.published import arrays_of, open_published
from hsa_jax.interop.published.safetensors import (
  SINGLE,
  find_tensors,
  read_tensor,
)
from hsa_jax.models import LanguageModel
from hsa_jax.training.stored import fill

FIXTURES = pathlib.Path(__file__).parents[1] / "fixtures" / "published"


def write_file(path: pathlib.Path, tensors: dict[str, np.ndarray]) -> None:
  """A `.safetensors` file of float32, made without the code under test."""
  header, data = {}, b""
  for name, tensor in tensors.items():
    end = len(data) + tensor.nbytes
    header[name] = {
      "dtype": {"float32": "F32", "float64": "F64"}[tensor.dtype.name],
      "shape": list(tensor.shape),
      "data_offsets": [len(data), end],
    }
    data += tensor.tobytes()
  write_raw(path, header, data)


def write_raw(path: pathlib.Path, header: dict, data: bytes) -> None:
  text = json.dumps(header).encode()
  path.write_bytes(struct.pack("<Q", len(text)) + text + data)


def settings_of(name: str, **changes) -> dict:
  """The `config.json` of a fixture; None takes a field out."""
  found = json.loads((FIXTURES / name / "config.json").read_text())
  found.update(changes)
  return {k: v for k, v in found.items() if v is not None or k not in changes}


def tensors_of(name: str) -> dict[str, np.ndarray]:
  """All tensors of a fixture, float32."""
  found = find_tensors(FIXTURES / name)
  return {tensor: read_tensor(stored) for tensor, stored in found.items()}


def write_folder(
  folder: pathlib.Path, settings: dict, tensors: dict[str, np.ndarray]
) -> pathlib.Path:
  folder.mkdir(parents=True, exist_ok=True)
  (folder / "config.json").write_text(json.dumps(settings))
  write_file(folder / SINGLE, tensors)
  return folder


@functools.cache
def frozen(name: str) -> dict[str, np.ndarray]:
  with np.load(FIXTURES / name / "frozen.npz") as file:
    return dict(file)


def load(folder: pathlib.Path) -> LanguageModel:
  """The model of a folder by the real loader, computing in float32."""
  imported, tensors = open_published(folder)
  cfg = dataclasses.replace(imported.model, compute_dtype="float32")
  like = jax.eval_shape(lambda: LanguageModel(cfg, rngs=nnx.Rngs(0)))
  arrays = arrays_of(imported, tensors)
  return fill(like, {name: jnp.asarray(array) for name, array in arrays})


@functools.partial(jax.jit, static_argnames="cut")
def logits_of(model: LanguageModel, tokens: jax.Array, *, cut: int = 0):
  """Logits; with `cut` in two stretches, through the states of the layers."""
  if not cut:
    return model(tokens)
  carry, parts = model.init_carry(*tokens.shape), []
  for start, stop in ((0, cut), (cut, tokens.shape[1])):
    part = tokens[:, start:stop]
    hidden, carry = model.lower(part, carry, position=start)
    parts.append(model.head(hidden))
  return jnp.concatenate(parts, axis=1)
