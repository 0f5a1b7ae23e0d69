"""Text to token ids and back: bytes built in, any `tokenizer.json` on demand.

A tokenizer carries a fingerprint of its definition. Token stores and
checkpoints remember it, so that ids are never read with another vocabulary.
"""

import hashlib
import importlib
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from hsa_jax.data.errors import TokenizerError

_BYTE_DEFINITION = "bytes as ids 0..255; 256 end of text; 257 padding"
_HF_PREFIX = "hf:"
END_OF_TEXT, PADDING = "<|endoftext|>", "<pad>"
_EOS_NAMES = (
  END_OF_TEXT,
  "</s>",
  "<|end_of_text|>",
  "<eos>",
  "<|eot_id|>",
  "<|im_end|>",
  "<｜end▁of▁sentence｜>",
  "[SEP]",
  "<EOS_TOKEN>",
)
_PAD_NAMES = (PADDING, "[PAD]", "<|padding|>", "<|pad|>", "<｜▁pad▁｜>")


class Tokenizer(Protocol):
  """What the rest of the package asks of a vocabulary.

  Attributes:
    spec: the string that `load_tokenizer` accepts.
    vocab_size: number of ids, special ones included.
    eos_id: written after every document.
    pad_id: fills rows that have no more text; may equal `eos_id`.
    fingerprint: SHA-256 of the definition, in hexadecimal.
  """

  spec: str
  vocab_size: int
  eos_id: int
  pad_id: int
  fingerprint: str

  def encode(self, text: str) -> np.ndarray:
    """Ids of `text` as int32, without any special token added."""
    ...

  def decode(self, ids: Iterable[int]) -> str:
    """Text of `ids`; special tokens are left out."""
    ...


class ByteTokenizer:
  """UTF-8 bytes as they are: no file, no training, lossless."""

  spec = "byte"
  vocab_size = 258
  eos_id = 256
  pad_id = 257
  fingerprint = hashlib.sha256(_BYTE_DEFINITION.encode()).hexdigest()

  def encode(self, text: str) -> np.ndarray:
    """Ids of `text`, int32, one per byte."""
    return np.frombuffer(text.encode(), np.uint8).astype(np.int32)

  def decode(self, ids: Iterable[int]) -> str:
    """Text of `ids`; bytes that are no UTF-8 show as U+FFFD."""
    data = bytes(int(i) for i in ids if 0 <= int(i) < 256)
    return data.decode("utf-8", errors="replace")


class HfTokenizer:
  """A `tokenizer.json` file through the optional `tokenizers` package.

  Text is text: a special token's name inside it becomes ordinary ids, and what
  the file says about truncation and padding is left aside.
  """

  def __init__(self, spec: str):
    """Loads the file named by `spec`.

    Raises:
      TokenizerError: no package, no such file, not a tokenizer, or no
        end-of-text token under any of the usual names.
    """
    path = Path(spec.removeprefix(_HF_PREFIX)).expanduser()
    self.spec = spec
    self._inner = _load_json(path)
    self._inner.no_truncation()
    self._inner.no_padding()
    self._inner.encode_special_tokens = True
    vocab = self._inner.get_vocab(with_added_tokens=True)
    # Some vocabularies have holes, so the count can be below the last id.
    self.vocab_size = max(vocab.values()) + 1
    self.eos_id = _special(vocab, _EOS_NAMES, path)
    pads = [vocab[name] for name in _PAD_NAMES if name in vocab]
    self.pad_id = pads[0] if pads else self.eos_id
    self.fingerprint = hashlib.sha256(path.read_bytes()).hexdigest()

  def encode(self, text: str) -> np.ndarray:
    """Ids of `text`, int32, without special tokens."""
    ids = self._inner.encode(text, add_special_tokens=False).ids
    return np.asarray(ids, np.int32)

  def decode(self, ids: Iterable[int]) -> str:
    """Text of `ids`, special tokens left out."""
    plain = [int(i) for i in ids]
    return self._inner.decode(plain, skip_special_tokens=True)

  def __setstate__(self, state: dict[str, Any]) -> None:
    self.__dict__.update(state)
    self._inner.encode_special_tokens = True  # not part of the package's pickle


def load_tokenizer(spec: str) -> Tokenizer:
  """The tokenizer that `spec` names.

  Args:
    spec: `"byte"`, or `"hf:/path/to/tokenizer.json"`.

  Raises:
    TokenizerError: unknown name, missing package or unusable file.
  """
  if spec == ByteTokenizer.spec:
    return ByteTokenizer()
  if spec.startswith(_HF_PREFIX):
    return HfTokenizer(spec)
  raise TokenizerError(
    f"data.tokenizer = {spec!r}: must be 'byte' or 'hf:/path/to/tokenizer.json'"
  )


def import_tokenizers(purpose: str) -> Any:
  """The package `tokenizers`, which is optional.

  Args:
    purpose: what needs it; opens the message.

  Raises:
    TokenizerError: if it is not installed.
  """
  try:
    return importlib.import_module("tokenizers")
  except ImportError as e:
    raise TokenizerError(
      f"{purpose}: needs the package 'tokenizers', which is not installed; run:"
      " python -m pip install tokenizers"
    ) from e


def _load_json(path: Path) -> Any:
  tokenizers = import_tokenizers(f"data.tokenizer = 'hf:{path}'")
  if not path.is_file():
    raise TokenizerError(
      f"data.tokenizer = 'hf:{path}': no such file; give the path of a"
      " tokenizer.json, or make one: python -m hsa_jax.cli.tokenizer train"
    )
  try:
    return tokenizers.Tokenizer.from_file(str(path))
  except Exception as e:  # the package raises bare Exception
    raise TokenizerError(
      f"data.tokenizer = 'hf:{path}': not a tokenizer.json file ({e})"
    ) from e


def _special(vocab: dict[str, int], names: tuple[str, ...], path: Path) -> int:
  found = [vocab[name] for name in names if name in vocab]
  if not found:
    raise TokenizerError(
      f"data.tokenizer = 'hf:{path}': no end-of-text token; add one of"
      f" {', '.join(names)} to its added_tokens"
    )
  return found[0]
