"""Prompts against the published ones."""

import hashlib

import pytest

from hsa_jax.data.babi.prompts import make_frame
from hsa_jax.data.babi.words import LABELS, TASKS

# First half of the SHA-256 of each published prompt around the context
# "CONTEXT" and the question "Question? ": `get_formatted_input` of the public
# repository's prompts.py at commit ffa075fb, run once over its DEFAULT_PROMPTS.
PUBLISHED = {
  "qa1": "107ed0d1d8a91c97",
  "qa2": "bcab04d855c3aa7e",
  "qa3": "549fff9e3fbdbc49",
  "qa4": "39623faab67a8cee",
  "qa5": "89c0f39c9445280c",
  "qa6": "9e9bf04296fbabf2",
  "qa7": "ac23410b5c48b935",
  "qa8": "4d029f8d66bb47d2",
  "qa9": "f6ddde76afdb3dff",
  "qa10": "d32e1753b6d728bc",
  "qa11": "927e77f2bf9e750c",
  "qa12": "07cf33299c620908",
  "qa13": "74d9597290195b42",
  "qa14": "5a3baafc03839e8f",
  "qa15": "288f47527b49b94a",
  "qa16": "2ddf87e05d0401a0",
  "qa17": "cdcb8fe0d060138f",
  "qa18": "17535f4f838bfe19",
  "qa19": "87500a4fb51c841b",
  "qa20": "90b109789fa9d538",
}


def whole(task, context="CONTEXT", question="Question? "):
  frame = make_frame(task, question)
  return frame.head + context + frame.tail


@pytest.mark.parametrize("task", TASKS)
def test_prompts_equal_the_published_ones(task):
  digest = hashlib.sha256(whole(task).encode()).hexdigest()
  assert digest[:16] == PUBLISHED[task]


def test_a_prompt_written_out():
  assert (
    whole("qa4", "The facts.", "What is north of the office?")
    == """\
I will give you context with the facts about different people, their location \
and actions, hidden in some random text and a question. You need to answer the \
question based only on the information from the facts.

<example>
The hallway is south of the kitchen. The bedroom is north of the kitchen. \
What is the kitchen south of?
Answer: bedroom
</example>
<example>
The garden is west of the bedroom. The bedroom is west of the kitchen. What is \
west of the bedroom?
Answer: garden
</example>

Your answer should contain only one word - location. Do not write anything \
else after that.

<context>
The facts.
</context>

Question: What is north of the office?"""
  )


def test_answer_sets():
  sizes = {task: len(labels) for task, labels in LABELS.items()}
  six = ("qa1", "qa2", "qa3", "qa4", "qa11", "qa12", "qa13", "qa14")
  assert {task for task, size in sizes.items() if size == 6} == set(six)
  assert sizes["qa5"] == 7 and sizes["qa20"] == 7
  assert sizes["qa19"] == 12 and "s,e" in LABELS["qa19"]
  assert "n,s" not in LABELS["qa19"] and "n,n" in LABELS["qa19"]
  assert list(LABELS) != [] and set(LABELS) == set(TASKS)
