"""The words of RULER's prompts, as its current public version writes them.

A prompt is task text, context, question and the beginning of the answer; no
chat template is put around it.
"""

from collections.abc import Sequence

NOISE = (
  "The grass is green. The sky is blue. The sun is yellow. Here we go."
  " There and back again."
)

NEEDLE = "One of the special magic {kind} for {key} is: {value}."
_NIAH_HEAD = (
  "Some special magic {kind} are hidden within the following text. Make sure to"
  " memorize it. I will quiz you about the {kind} afterwards.\n"
)
# Before and after the names of what is asked.
_NIAH_TAIL = (
  "What are all the special magic {kind} for ",
  " mentioned in the provided text? The special magic {kind} for ",
  " mentioned in the provided text are",
)

VT_HEAD = (
  "Memorize and track the chain(s) of variable assignment hidden in the"
  " following text.\n\n"
)
VT_TAIL = (
  "Question: Find all variables that are assigned the value {value} in the text"
  " above. Answer: According to the chain(s) of variable assignment in the text"
  " above, {count} variables are assigned the value {value}, they are: "
)

CWE_HEAD = (
  "Below is a numbered list of words. In these words, some appear more often"
  " than others. Memorize the ones that appear most often.\n"
)
CWE_TAIL = (
  "\nQuestion: What are the 10 most common words in the above list? Answer: The"
  " top 10 words that appear most often in the list are:"
)

FWE_HEAD = (
  "Read the following coded text and track the frequency of each coded word."
  " Find the three most frequently appeared coded words."
)
FWE_TAIL = (
  "\nQuestion: Do not provide any explanation. Please ignore the dots '....'."
  " What are the three most frequently appeared words in the above coded text?"
  " Answer: According to the coded text above, the three most frequently"
  " appeared words are:"
)

_QA_RULE = (
  "Answer the question based on the given documents. Only give me the answer"
  " and do not output any other words.\n\n"
)
QA_HEAD = _QA_RULE + "The following are given documents.\n\n"
QA_TAIL = "\n\n" + _QA_RULE + "Question: {question} Answer:"
QA_DOCUMENT = "Document {number}:\n"


def niah_head(kind: str, answers: int) -> str:
  """Task text of the needle tasks; `kind` is `numbers` or `uuids`."""
  return _in_number(_NIAH_HEAD, kind, answers)


def niah_tail(kind: str, answers: int) -> tuple[str, str, str]:
  """Question and beginning of the answer: the names go between the parts."""
  first, second, third = (_in_number(s, kind, answers) for s in _NIAH_TAIL)
  return first, second, third


def enumeration(names: Sequence[str]) -> str:
  """`a`; `a, and b`; `a, b, and c`."""
  if len(names) == 1:
    return names[0]
  return f"{', '.join(names[:-1])}, and {names[-1]}"


def numbered(words: Sequence[str]) -> str:
  """`1. a 2. b`."""
  return " ".join(f"{i}. {word}" for i, word in enumerate(words, 1))


def _in_number(text: str, kind: str, answers: int) -> str:
  """Puts in the kind; RULER's rule for one answer makes it singular."""
  if answers > 1:
    return text.format(kind=kind)
  rules = (("Some", "A"), ("are all", "is"), ("are", "is"))
  for plural, singular in rules:
    text = text.replace(plural, singular)
  return text.format(kind=kind.removesuffix("s"))
