"""The prompts of BABILong, equal to the published ones by every character.

    {instruction}

    {examples}

    {what the answer should look like}

    <context>
    {context}
    </context>

    Question: {question}

Source: the public repository of BABILong (Apache-2.0), `prompts.py`.
"""

from typing import NamedTuple

from hsa_jax.data.babi.examples import EXAMPLES

_FACTS = "I will give you context with the facts about "
_HIDDEN = "hidden in some random text and a question. "
_ONLY = (
  "You need to answer the question based only on the information from the"
  " facts."
)
_LATEST = (
  " If a person was in different locations, use the latest location the person"
  " was in to answer the question."
)
_CARRIED = (
  "If a person got an item in the first location and travelled to the second"
  " location the item is also in the second location. If a person dropped an"
  " item in the first location and moved to the second location the item"
  " remains in the first location."
)
_ITEMS = (
  "I give you context with the facts about locations and actions of different"
  " persons "
)


def _about(what: str) -> str:
  return f"{_FACTS}{what}{_HIDDEN}{_ONLY}"


def _animals(what: str) -> str:
  return (
    f"{_FACTS}animals, their names and {what}. The facts and a question are"
    f" hidden in some random text. {_ONLY}"
  )


_PEOPLE = _about("people and their locations ") + _LATEST
_LOADS = _about("people and objects they carry, ")
_INSTRUCTIONS = {
  "qa1": _about("positions of different persons ")
  + " If a person was in different locations, use the latest location to answer"
  " the question.",
  # The published text has no space here.
  "qa2": f"{_ITEMS}{_HIDDEN.rstrip()}{_ONLY}\n{_CARRIED}",
  "qa3": f"{_ITEMS}{_HIDDEN}{_ONLY}\n{_CARRIED}",
  "qa4": _about("different people, their location and actions, "),
  "qa5": _about("locations and their relations "),
  **dict.fromkeys(("qa6", *(f"qa{i}" for i in range(9, 15))), _PEOPLE),
  "qa7": _LOADS,
  "qa8": _LOADS,
  "qa15": _animals("relations"),
  "qa16": _animals("colors"),
  "qa17": _about("different figures, their location and colors, "),
  "qa18": _about("different objects and their sizes, "),
  "qa19": _about("different places and their locations, "),
  "qa20": _about("people, their locations and condition ") + _LATEST,
}

_FORMAT = "Always return your answer in the following format: "
_AFTER = " Do not write anything else after that."
_ELSE = " Do not write anything else."
_EXPLAIN = " Do not explain your answer."
_WORD = "Your answer should contain only one word"
_YES_NO = f"{_WORD} - $yes$ or $no$.{_ELSE}{_EXPLAIN}"
_PLACE = f"{_WORD} - location.{_AFTER}{_EXPLAIN}"
_ANSWERS = {
  "qa1": f"{_FORMAT}The most recent location of ’person’ is ’location’."
  f"{_AFTER}",
  "qa2": f"{_FORMAT}The ’item’ is in ’location’.{_AFTER}",
  "qa3": f"{_FORMAT}Before the $location_1$ the $item$ was in the"
  f" $location_2$.{_AFTER}",
  "qa4": f"{_WORD} - location.{_AFTER}",
  "qa5": f"{_WORD}.{_AFTER}{_EXPLAIN}",
  "qa6": f"{_WORD} - $yes$ or $no$.{_AFTER}{_EXPLAIN}",
  "qa7": f"{_WORD} - $none$ or $number_of_objects$.{_AFTER}{_EXPLAIN}",
  "qa8": "Your answer should contain only one or two words: $nothing$ or"
  f" $object$ or $object_1$, $object_2$.{_ELSE}{_EXPLAIN}",
  "qa9": _YES_NO,
  "qa10": f"{_WORD} - $yes$ or $no$ or $maybe$.{_ELSE}{_EXPLAIN}",
  **dict.fromkeys((f"qa{i}" for i in range(11, 15)), _PLACE),
  "qa15": f"{_WORD} - an animal species.{_AFTER}{_EXPLAIN}",
  "qa16": f"{_WORD} - a color.{_AFTER}{_EXPLAIN}",
  "qa17": _YES_NO,
  "qa18": _YES_NO,
  "qa19": "Your answer should contain only two letters, separated by a comma -"
  " ordinal directions. You can choose the letters from $n$, $s$, $e$ and"
  f" $w$.{_AFTER}",
  "qa20": f"{_WORD} - a person condition or a place.{_AFTER}{_EXPLAIN}",
}

# What follows the last example, and what stands between two, where it is not a
# line feed.
_ENDS = {
  **dict.fromkeys(("qa6", "qa7", "qa8", "qa9", "qa19"), "\n"),
  **dict.fromkeys((f"qa{i}" for i in range(10, 17)), "\n<context>\n"),
  "qa20": "\n<context>\n",
}
_BETWEEN = {"qa1": ("\n\n",), "qa17": ("\n", ""), "qa18": ("\n", "")}


class Frame(NamedTuple):
  """What stands around a context.

  Attributes:
    head: everything before its first character.
    tail: everything after its last.
  """

  head: str
  tail: str


def make_frame(task: str, question: str) -> Frame:
  """The prompt of `task` around a context."""
  head = f"{_INSTRUCTIONS[task]}\n\n{_examples(task)}\n\n{_ANSWERS[task]}\n\n"
  tail = f"\n</context>\n\nQuestion: {question}"
  return Frame(f"{head}<context>\n", tail.rstrip())


def _examples(task: str) -> str:
  shots = EXAMPLES[task]
  between = (*_BETWEEN.get(task, ("\n",) * (len(shots) - 1)), "")
  text = "".join(
    f"<example>\n{story}\nAnswer: {answer}\n</example>{gap}"
    for (story, answer), gap in zip(shots, between, strict=True)
  )
  return text + _ENDS.get(task, "")
