"""People who read the rule and see nothing but the text of a sample."""

import collections
import re

from hsa_jax.data.sample import render

from .cases import FWE, MK_MQ, TOKENIZER, VT


def prompt_and_gold(sample, tokenizer=TOKENIZER):
  """Text before the answer, and the answer's text."""
  tokens = render(sample)
  first = int(sample.answer.positions[0])
  gold = tokenizer.decode(sample.answer.gold)
  return tokenizer.decode(tokens[:first]), gold


def solve_mk_mq(prompt):
  needles = dict(
    re.findall(
      r"\| One of the special magic numbers for ([A-Z]{5}) is (\d{6})\.\|",
      prompt,
    )
  )
  assert len(needles) == 6
  asked = re.search(
    r" What are all the special magic numbers for (\S+) and (\S+) mentioned"
    r" in the provided text\?\. Answer:$",
    prompt,
  )
  return "".join(f" {needles[key]}" for key in asked.groups())


def solve_vt(prompt):
  needles = re.findall(r"\|VAR ([A-Z]{5}) = (\w+)\|", prompt)
  assert len(needles) == 6
  holder = {value: name for name, value in needles}
  assert sum(value.isdecimal() and len(value) == 8 for value in holder) == 2
  at = re.search(
    r" Find all variables that are assigned the value (\d{8})\. Answer:$",
    prompt,
  ).group(1)
  chain = []
  while at in holder:
    at = holder[at]
    chain.append(at)
  assert len(chain) == 3
  return " " + ", ".join(chain)


def solve_fwe(prompt):
  head, rest = prompt.split("coded words. ", 1)
  assert head.startswith("Read the following coded text and track")
  coded, question = rest.split("\nQuestion: ")
  assert question.endswith("the three most frequently appeared words are:")
  words = collections.Counter(re.findall(r"[a-z]{5}", coded))
  return "".join(f" {word}" for word, _ in words.most_common(3))


SOLVERS = [(MK_MQ, solve_mk_mq), (VT, solve_vt), (FWE, solve_fwe)]
