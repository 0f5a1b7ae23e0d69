"""What a harness asks, as tokens: no model, no device, no harness.

The conventions are those of lm-evaluation-harness, so that numbers compare:
spaces at the end of a context belong to the continuation, a pair is tokenized
as one text, and the end-of-text token stands in front of a text that has
nothing before it.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Int

from hsa_jax.data.tokenizer import Tokenizer
from hsa_jax.inference import Sampling

DEFAULT_MAX_TOKENS = 256
_MAX_TOKENS = (  # names of one thing, the first that is given counts
  "max_gen_toks",
  "max_new_tokens",
  "max_tokens",
  "max_completion_tokens",
)
_KNOWN = {"until", "do_sample", "temperature", "top_k", "top_p", *_MAX_TOKENS}
# What other backends need to be told, and their value for "nothing special".
_NEUTRAL = {
  "num_beams": 1,
  "repetition_penalty": 1.0,
  "num_return_sequences": 1,
}


class RequestError(ValueError):
  """A request that cannot be answered as asked."""


class Span(NamedTuple):
  """Tokens to read, and those that the last outputs are compared with.

  Attributes:
    inputs: at least one token.
    targets: the token after each of the last `A` inputs, `A <= T`.
  """

  inputs: Int[np.ndarray, " T"]
  targets: Int[np.ndarray, " A"]


class Generation(NamedTuple):
  """How a prompt is continued.

  Attributes:
    until: texts that end the continuation, which leaves them out.
    max_tokens: how many at most.
    sampling: greedy, or drawn.
  """

  until: tuple[str, ...] = ()
  max_tokens: int = DEFAULT_MAX_TOKENS
  sampling: Sampling = Sampling()


def pair_span(tokenizer: Tokenizer, context: str, continuation: str) -> Span:
  """Tokens of `continuation` as targets behind `context`; may have none."""
  stripped = context.rstrip()
  context, moved = stripped, context[len(stripped) :]
  before = tokenizer.encode(context)
  after = tokenizer.encode(context + moved + continuation)[len(before) :]
  if not len(after) and moved + continuation:
    # All of it melted into the last token of the context.
    after = tokenizer.encode(moved + continuation)
  return _span(tokenizer, before, after)


def rolling_span(tokenizer: Tokenizer, text: str) -> Span:
  """All tokens of `text` as targets; the whole text before each is read."""
  return _span(tokenizer, np.zeros(0, np.int32), tokenizer.encode(text))


def _span(tokenizer: Tokenizer, before: np.ndarray, after: np.ndarray) -> Span:
  if not len(before):
    before = np.array([tokenizer.eos_id], np.int32)
  return Span(np.concatenate([before, after[:-1]]), after)


def prompt_tokens(tokenizer: Tokenizer, text: str) -> Int[np.ndarray, " T"]:
  """Tokens to continue: at least the end of the text before."""
  tokens = tokenizer.encode(text)
  return tokens if len(tokens) else np.array([tokenizer.eos_id], np.int32)


def read_generation(settings: Mapping[str, Any], *, seed: int) -> Generation:
  """The `generation_kwargs` of a task.

  Args:
    settings: as the task gives them; sampling only if `do_sample`, or a
      temperature without `do_sample: false`, says so.
    seed: of the draws.

  Raises:
    RequestError: for a setting that is not supported, or out of range.
  """
  _check_known(settings)
  until = settings.get("until") or []
  until = [until] if isinstance(until, str) else until
  limits = [settings[k] for k in _MAX_TOKENS if settings.get(k) is not None]
  max_tokens = int(limits[0]) if limits else DEFAULT_MAX_TOKENS
  if max_tokens < 1:
    raise RequestError(f"generation_kwargs: max_gen_toks = {max_tokens}: min 1")
  return Generation(
    tuple(text for text in until if text),
    max_tokens,
    _read_sampling(settings, seed),
  )


def _check_known(settings: Mapping[str, Any]) -> None:
  unknown = [
    f"{name} = {value!r}"
    for name, value in settings.items()
    if name not in _KNOWN and value not in (None, _NEUTRAL.get(name))
  ]
  if unknown:
    raise RequestError(
      f"generation_kwargs: {', '.join(unknown)}: not supported; there are"
      f" {', '.join(sorted(_KNOWN))}"
    )


def _read_sampling(settings: Mapping[str, Any], seed: int) -> Sampling:
  temperature = settings.get("temperature")
  do_sample = settings.get("do_sample")
  if do_sample is None:
    do_sample = bool(temperature)
  if not do_sample:
    return Sampling()
  temperature = 1.0 if temperature is None else float(temperature)
  top_k, top_p = settings.get("top_k") or 0, settings.get("top_p")
  top_p = 1.0 if top_p is None else float(top_p)
  if not (0 <= temperature < math.inf and top_k >= 0 and 0 < top_p <= 1):
    raise RequestError(
      f"generation_kwargs: temperature = {temperature}, top_k = {top_k}, top_p"
      f" = {top_p}: must not be negative, and top_p lie in (0, 1]"
    )
  return Sampling(temperature, int(top_k), top_p, seed)


def first_stop(text: str, until: Sequence[str], start: int = 0) -> int | None:
  """Where the earliest of `until` begins in `text`; None: nowhere.

  Args:
    text: the continuation so far.
    until: what ends it.
    start: characters that hold no complete one of them.
  """
  longest = max(map(len, until), default=0)
  begin = max(start - longest + 1, 0)
  places = [text.find(stop, begin) for stop in until]
  return min((place for place in places if place >= 0), default=None)
