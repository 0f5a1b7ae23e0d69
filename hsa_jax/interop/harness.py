"""A model as lm-evaluation-harness wants it.

    from hsa_jax.interop import HarnessModel, Reader, make_lm
    lm = make_lm(HarnessModel(Reader(model), tokenizer))
    lm_eval.simple_evaluate(model=lm, tasks=["..."])

The harness is optional: without it everything here works but `make_lm`.
"""

import collections
import importlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Protocol

import tqdm

from hsa_jax.data.tokenizer import Tokenizer
from hsa_jax.inference.sampling import GREEDY
from hsa_jax.interop.reader import Reader
from hsa_jax.interop.requests import (
  Generation,
  RequestError,
  Span,
  pair_span,
  read_generation,
  rolling_span,
)
from hsa_jax.interop.scoring import Score, score_spans
from hsa_jax.interop.writing import continue_prompt

EXTRA = "lm-eval"
Remember = Callable[[str, tuple[Any, ...], Any], None]
"""Takes the method, the arguments and the answer of a finished request."""


class MissingHarnessError(RuntimeError):
  """The optional package is not installed."""


class Request(Protocol):
  """What the harness calls an instance."""

  @property
  def args(self) -> tuple[Any, ...]: ...


class HarnessModel:
  """The three questions of the harness, asked of a `LanguageModel`.

  A context may be as long as the memory's home allows. Nothing is truncated,
  and `loglikelihood_rolling` shows every token the whole text before it.

  Attributes:
    reader: the model and its programs.
    tokenizer: of the model.
    info: named in the results of the harness.
  """

  def __init__(
    self,
    reader: Reader,
    tokenizer: Tokenizer,
    *,
    info: Mapping[str, Any] | None = None,
    seed: int = 0,
  ):
    self.reader, self.tokenizer = reader, tokenizer
    self.info, self._seed = dict(info or {}), seed

  @property
  def name(self) -> str:
    """Identity of the vocabulary, for caches of tokenized requests."""
    return f"{self.tokenizer.spec} {self.tokenizer.fingerprint[:16]}"

  def loglikelihood(
    self, requests: Sequence[Request], remember: Remember, *, quiet: bool
  ) -> list[tuple[float, bool]]:
    """Of continuations behind contexts, and whether each is the greedy one."""
    spans = [pair_span(self.tokenizer, *request.args) for request in requests]
    answers: list[Any] = [None] * len(requests)
    for index, score in self._scores(spans, quiet):
      answers[index] = tuple(score)
      remember("loglikelihood", requests[index].args, answers[index])
    return answers

  def loglikelihood_rolling(
    self, requests: Sequence[Request], remember: Remember, *, quiet: bool
  ) -> list[float]:
    """Of whole texts, behind the end of another."""
    spans = [rolling_span(self.tokenizer, *r.args) for r in requests]
    answers = [0.0] * len(requests)
    for index, score in self._scores(spans, quiet):
      answers[index] = score.log_likelihood
      remember("loglikelihood_rolling", requests[index].args, answers[index])
    return answers

  def generate_until(
    self, requests: Sequence[Request], remember: Remember, *, quiet: bool
  ) -> list[str]:
    """Continuations of prompts; a prompt asked twice is continued once.

    Unless it is drawn: then the n-th time it is asked has a seed of its own.
    """
    asked = self._prompts(requests)
    order = sorted(range(len(asked)), key=lambda i: -len(asked[i][0]))
    known: dict[tuple[str, Generation], str] = {}
    answers = [""] * len(requests)
    for i in tqdm.tqdm(order, "prompts", disable=quiet or None, leave=False):
      if asked[i] not in known:
        known[asked[i]] = continue_prompt(
          self.reader, self.tokenizer, *asked[i]
        )
      answers[i] = known[asked[i]]
      if asked[i][1].sampling == GREEDY:
        remember("generate_until", requests[i].args, answers[i])
    return answers

  def _prompts(
    self, requests: Sequence[Request]
  ) -> list[tuple[str, Generation]]:
    asked, times = [], collections.Counter()
    for request in requests:
      prompt, settings = request.args
      how = read_generation(settings, seed=self._seed)
      if how.sampling != GREEDY:
        seed = self._seed + times[prompt, how]
        times[prompt, how] += 1
        how = how._replace(sampling=how.sampling._replace(seed=seed))
      asked.append((prompt, how))
    return asked

  def _scores(
    self, spans: Sequence[Span], quiet: bool
  ) -> Iterable[tuple[int, Score]]:
    size = self.tokenizer.vocab_size
    found = score_spans(self.reader, spans, vocab_size=size)
    return tqdm.tqdm(
      found, "texts", len(spans), disable=quiet or None, leave=False
    )


def import_harness(module: str = "lm_eval") -> Any:
  """A module of the harness.

  Raises:
    MissingHarnessError: if it is not installed.
  """
  try:
    return importlib.import_module(module)
  except ImportError as error:
    raise MissingHarnessError(
      f"the package 'lm_eval' is not installed ({error}); run: python -m pip"
      f" install -e '.[{EXTRA}]' -c constraints.txt"
    ) from error


def make_lm(model: HarnessModel) -> Any:
  """An `lm_eval.api.model.LM`, for `lm_eval.simple_evaluate(model=...)`.

  Raises:
    MissingHarnessError: if the harness is not installed.
  """

  class HsaLM(import_harness("lm_eval.api.model").LM):
    def loglikelihood(
      self, requests: list, disable_tqdm: bool = False
    ) -> list[tuple[float, bool]]:
      remember = self.cache_hook.add_partial
      return model.loglikelihood(requests, remember, quiet=disable_tqdm)

    def loglikelihood_rolling(
      self, requests: list, disable_tqdm: bool = False
    ) -> list[float]:
      remember = self.cache_hook.add_partial
      return model.loglikelihood_rolling(requests, remember, quiet=disable_tqdm)

    def generate_until(
      self, requests: list, disable_tqdm: bool = False
    ) -> list[str]:
      remember = self.cache_hook.add_partial
      return model.generate_until(requests, remember, quiet=disable_tqdm)

    @property
    def tokenizer_name(self) -> str:
      return model.name

    def apply_chat_template(self, *args: Any, **kwargs: Any) -> str:
      raise RequestError("chat templates: these are base models, without one")

    def get_model_info(self) -> dict[str, Any]:
      return model.info

  return HsaLM()
