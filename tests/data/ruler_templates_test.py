"""Prompts against NVIDIA's published templates, word for word.

The strings are those of scripts/data/synthetic/constants.py of the public
RULER repository (Apache-2.0), written down apart from the implementation's.
"""

import collections
import re

import numpy as np
import pytest

from hsa_jax.data.ruler import assets
from hsa_jax.data.ruler.tasks import TASKS

from .ruler_cases import (
  BYTE,
  ChunkTokenizer,
  install,
  make_maker,
  request,
  text_of,
)

OFFICIAL = {
  "niah": (
    """Some special magic {type_needle_v} are hidden within the following text. Make sure to memorize it. I will quiz you about the {type_needle_v} afterwards.\n{context}\nWhat are all the special magic {type_needle_v} for {query} mentioned in the provided text?""",  # noqa: E501
    """ The special magic {type_needle_v} for {query} mentioned in the provided text are""",  # noqa: E501
  ),
  "variable_tracking": (
    """Memorize and track the chain(s) of variable assignment hidden in the following text.\n\n{context}\nQuestion: Find all variables that are assigned the value {query} in the text above.""",  # noqa: E501
    """ Answer: According to the chain(s) of variable assignment in the text above, {num_v} variables are assigned the value {query}, they are: """,  # noqa: E501
  ),
  "common_words_extraction": (
    """Below is a numbered list of words. In these words, some appear more often than others. Memorize the ones that appear most often.\n{context}\nQuestion: What are the 10 most common words in the above list?""",  # noqa: E501
    """ Answer: The top 10 words that appear most often in the list are:""",
  ),
  "freq_words_extraction": (
    """Read the following coded text and track the frequency of each coded word. Find the three most frequently appeared coded words. {context}\nQuestion: Do not provide any explanation. Please ignore the dots '....'. What are the three most frequently appeared words in the above coded text?""",  # noqa: E501
    """ Answer: According to the coded text above, the three most frequently appeared words are:""",  # noqa: E501
  ),
  "qa": (
    """Answer the question based on the given documents. Only give me the answer and do not output any other words.\n\nThe following are given documents.\n\n{context}\n\nAnswer the question based on the given documents. Only give me the answer and do not output any other words.\n\nQuestion: {query}""",  # noqa: E501
    """ Answer:""",
  ),
}
NOISE = (
  "The grass is green. The sky is blue. The sun is yellow. Here we go."
  " There and back again."
)
LENGTH = 9_000
# hay, kind of value, needles, answers, keys asked
NIAH = {
  "niah_single_1": ("noise", "numbers", 1, 1, 1),
  "niah_single_2": ("essay", "numbers", 1, 1, 1),
  "niah_single_3": ("essay", "uuids", 1, 1, 1),
  "niah_multikey_1": ("essay", "numbers", 4, 1, 1),
  "niah_multikey_2": ("needle", "numbers", 1, 1, 1),
  "niah_multikey_3": ("needle", "uuids", 1, 1, 1),
  "niah_multivalue": ("essay", "numbers", 4, 4, 1),
  "niah_multiquery": ("essay", "numbers", 4, 4, 4),
}
UUID = r"[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}"
VALUE = {"numbers": r"[1-9][0-9]{6}", "uuids": UUID}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
  with pytest.MonkeyPatch.context() as patch:
    yield install(patch, tmp_path_factory.mktemp("assets"))


@pytest.fixture(scope="module", params=["byte", "chunk"])
def maker(request, folder):
  tokenizer = BYTE if request.param == "byte" else ChunkTokenizer()
  return tokenizer, make_maker(folder, tokenizer)


def build(maker, name, sample=0, length=LENGTH):
  tokenizer, made = maker
  prompt = made.task(name).build(request(length, sample))
  assert prompt.length + prompt.max_new_tokens == length
  return prompt, text_of(prompt, tokenizer)


def official(task, singular=False):
  template = "".join(OFFICIAL[task])
  if singular:
    template = template.replace("Some", "A")
    template = template.replace("are all", "is").replace("are", "is")
  return template


def parse(template, text, **known):
  """Values of the template's fields, of which `context` may be anything."""
  pattern = re.escape(template)
  for field in ("context", "query", "type_needle_v", "num_v"):
    mark = re.escape("{" + field + "}")
    named = known.get(field, ".*" if field == "context" else ".*?")
    pattern = pattern.replace(mark, f"(?P<{field}>{named})", 1)
    pattern = pattern.replace(mark, f"(?P={field})")
  match = re.fullmatch(pattern, text, re.DOTALL)
  assert match, text[-600:]
  fields = match.groupdict()
  assert template.format(**fields) == text
  return fields


def test_all_thirteen_are_here():
  assert list(TASKS) == [*NIAH, "vt", "cwe", "fwe", "qa_1", "qa_2"]


@pytest.mark.parametrize("name", NIAH)
@pytest.mark.parametrize("sample", [0, 4, 9])
def test_needle_tasks(maker, folder, name, sample):
  hay, kind, needles, answers, asked = NIAH[name]
  prompt, text = build(maker, name, sample)
  word = kind if answers > 1 else kind[:-1]
  template = official("niah", singular=answers == 1)
  fields = parse(template, text, type_needle_v=word)
  key = UUID if name == "niah_multikey_3" else r"[a-z]+-[a-z ]+"
  pattern = (
    f"One of the special magic {kind} for ({key}) is: ({VALUE[kind]})\\."
  )
  found = re.findall(pattern, fields["context"])
  queries = re.split(r", and |, ", fields["query"])
  assert len(queries) == asked
  want = [v for q in queries for k, v in found if k == q]
  assert sorted(want) == sorted(prompt.references)
  assert len(prompt.references) == answers
  if hay == "needle":
    first, *lines = fields["context"].split("\n")
    assert len(lines) > 20
    assert all(re.fullmatch(pattern, line) for line in lines)
    assert len({k for k, _ in found}) > 20
    return
  assert len(found) == needles
  rest = re.sub(pattern, "@", fields["context"])
  check = noise_is_right if hay == "noise" else essay_is_right
  check(rest, folder)


def noise_is_right(context, folder):
  first, *lines = context.split("\n")
  assert NOISE.endswith(first)
  assert collections.Counter(lines) == {NOISE: len(lines) - 1, "@": 1}


def essay_is_right(context, folder):
  """Essays from their beginning, with needles where a sentence begins."""
  essay = " ".join(assets.read_essays(folder).split())
  plain = re.sub(r"^@ | @", "", context)
  assert plain == ((essay + " ") * 3)[: len(plain)]
  for match in re.finditer("@", context):
    before = re.sub(r"[@ ]+$", "", context[: match.start()])
    after = re.sub(r"^[@ ]+", "", context[match.end() :])
    at_end = not after
    assert at_end or not before or before[-1] in ".!?"
    assert at_end or after[0].isupper()


@pytest.mark.parametrize("sample", [0, 1])
def test_variable_tracking(maker, sample):
  prompt, text = build(maker, "vt", sample)
  cut = text.rindex("\nMemorize and track")
  example, asked = text[:cut], text[cut + 1 :]
  value, names = chain_of(asked, letters=5)
  assert names == list(prompt.references)
  # The example is the same template, solved: its names, a line feed.
  answer = re.search(r" ((?:[A-Z]{3} ?){5})\n$", example)
  solved = example[: answer.start()]
  other, shown = chain_of(solved, letters=3)
  assert shown == answer[1].split() and len(shown) == 5
  assert 10_000 <= min(value, other) <= max(value, other) < 99_999


def chain_of(text, letters):
  fields = parse(official("variable_tracking"), text, num_v="5")
  lines = fields["context"].split("\n")
  noise = [i for i, line in enumerate(lines) if not line.startswith("VAR")]
  assert all(lines[i] == NOISE for i in noise[1:])
  assert NOISE.endswith(lines[noise[0]])
  hidden = [line for line in lines if line.startswith("VAR")]
  name = f"[A-Z]{{{letters}}}"
  first = re.fullmatch(f"VAR ({name}) = ({fields['query']})", hidden[0])
  names = [first[1]]
  for line in hidden[1:]:
    link = re.fullmatch(f"VAR ({name}) = VAR {names[-1]} ", line)
    names.append(link[1])
  assert len(set(names)) == 5
  return int(fields["query"]), names


@pytest.mark.parametrize(
  "length, counts, example",
  [(9_000, (30, 3), (10, 3)), (3_000, (6, 1), (3, 1))],
)
def test_common_words(maker, length, counts, example):
  prompt, text = build(maker, "cwe", length=length)
  cut = text.rindex("\nBelow is")
  template = official("common_words_extraction")
  asked = parse(template, text[cut + 1 :])
  found = list_of(re.sub(r" \d*\.? ?$", "", asked["context"]))
  top = [w for w, c in found.items() if c == counts[0]]
  assert sorted(top) == sorted(prompt.references) and len(top) == 10
  others = collections.Counter(c for c in found.values() if c != counts[0])
  # Besides the rare words, a few that occur once; the last may be cut.
  assert set(others) <= {counts[1], 1}
  assert counts[1] == 1 or others[1] <= 12
  shown, _, answer = text[:cut].rpartition("list are:")
  solved = parse(template, shown + "list are:")
  words = list_of(solved["context"])
  best = re.findall(r"\d+\. (.+?)(?= \d+\. |$)", answer)
  assert answer == " " + " ".join(f"{i}. {w}" for i, w in enumerate(best, 1))
  assert [words[w] for w in best] == [example[0]] * 10
  assert set(words.values()) == set(example)


def list_of(context):
  """Words with their counts; the list is numbered from 1."""
  entries = re.findall(r"(\d+)\. (.+?)(?= \d+\. |$)", context)
  assert [int(n) for n, _ in entries] == list(range(1, len(entries) + 1))
  rest = " ".join(f"{n}. {w}" for n, w in entries)
  assert context.startswith(rest)
  return collections.Counter(w for _, w in entries)


def test_frequent_words(maker):
  prompt, text = build(maker, "fwe")
  context = parse(official("freq_words_extraction"), text)["context"]
  words = context.split(" ")
  counts = collections.Counter(w for w in words if set(w) != {"."})
  assert all(re.fullmatch("[a-z]{6}", word) for word in counts)
  ranked = [w for w, _ in counts.most_common(3)]
  assert ranked == list(prompt.references)
  assert counts[ranked[2]] > sorted(counts.values())[-4]
  # Zipf with exponent 2: rank k has floor(N / (zeta(2) k^2)) words.
  total = prompt.recipe["counts"][1] * 4 * np.pi**2 / 6
  for rank, (_, count) in enumerate(counts.most_common(), 2):
    share = 6 / np.pi**2 / rank**2
    assert (total - 1) * share - 1 < count < (total + 7) * share + 1
  dots = sum(w == "..." for w in words)
  assert dots >= total * 6 / np.pi**2 - 1


@pytest.mark.parametrize("name", ["qa_1", "qa_2"])
def test_reading(maker, folder, name):
  read = assets.read_squad if name == "qa_1" else assets.read_hotpot
  documents, questions = read(folder)
  for sample in (0, 7):
    prompt, text = build(maker, name, sample, length=2_500)
    fields = parse(official("qa"), text)
    question = questions[sample]
    assert fields["query"] == question.text
    assert prompt.references == question.answers
    parts = re.split(r"(?:^|\n\n)Document (\d+):\n", fields["context"])
    numbers, shown = parts[1::2], parts[2::2]
    assert [int(n) for n in numbers] == list(range(1, len(shown) + 1))
    assert set(shown[:-1]) <= set(documents)
    assert len(set(shown[:-1])) == len(shown) - 1
    assert {documents[g] for g in question.gold} <= set(shown[:-1])
    own = {documents.index(d) for d in shown[:-1]} - set(question.gold)
    # Documents of the same article come first.
    related = set(question.related)
    assert own <= related or related <= own
