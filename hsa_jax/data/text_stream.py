"""Text of token ids that arrive one at a time."""

from hsa_jax.data.tokenizer import Tokenizer

_INCOMPLETE = "\ufffd"  # what a decoder shows for part of a character


class TextStream:
  """Gives text out as soon as later ids can no longer change it.

  A character may take several ids, and some vocabularies write a space only
  between two ids: new ids are decoded behind those given out last.
  """

  def __init__(self, tokenizer: Tokenizer):
    self._decode = tokenizer.decode
    self._given: list[int] = []
    self._fresh: list[int] = []

  def add(self, token: int) -> str:
    """Text that `token` completes; empty while a character is unfinished."""
    self._fresh.append(int(token))
    text = self._text()
    if not text or text.endswith(_INCOMPLETE):
      return ""
    self._given, self._fresh = self._fresh, []
    return text

  def finish(self) -> str:
    """What was held back, as it stands."""
    text = self._text()
    self._given, self._fresh = [], []
    return text

  def _text(self) -> str:
    given = self._decode(self._given)
    return self._decode(self._given + self._fresh)[len(given) :]
