"""Small stand-ins for RULER's files, and a second tokenizer."""

import hashlib
import io
import json
import pathlib
import re
import zipfile

import numpy as np

from hsa_jax.data.ruler import assets
from hsa_jax.data.ruler.assets import Package
from hsa_jax.data.ruler.prompt import Request
from hsa_jax.data.ruler.tasks import EssaySource, TaskMaker, Texts
from hsa_jax.data.tokenizer import ByteTokenizer

BYTE = ByteTokenizer()


class ChunkTokenizer:
  """Words, numbers and signs, each cut into pieces of three characters.

  As with many vocabularies, a space belongs to the word after it, and the
  tokens of a text depend on where it is cut.
  """

  spec, eos_id, pad_id = "chunk", 0, 0
  fingerprint = "chunk"
  vocab_size = 1 << 20
  _PARTS = re.compile(r" ?[A-Za-z]+| ?[0-9]+| ?[^\sA-Za-z0-9]+|\s")

  def __init__(self):
    self._ids = {"<eos>": 0}
    self._texts = ["<eos>"]

  def encode(self, text):
    pieces = [
      part[i : i + 3]
      for part in self._PARTS.findall(text)
      for i in range(0, len(part), 3)
    ]
    for piece in pieces:
      if piece not in self._ids:
        self._ids[piece] = len(self._texts)
        self._texts.append(piece)
    return np.array([self._ids[p] for p in pieces], np.int32)

  def decode(self, ids):
    return "".join(self._texts[int(i)] for i in ids if int(i))


def nonsense(count, seed, letters=6):
  """Different small words."""
  rng = np.random.default_rng(seed)
  words = {}
  while len(words) < count:
    size = int(rng.integers(3, letters + 1))
    codes = rng.integers(ord("a"), ord("z") + 1, size, np.uint8)
    words[codes.tobytes().decode()] = None
  return list(words)


def essays(sentences=400):
  words = nonsense(300, 1)
  rng = np.random.default_rng(2)
  out = []
  for _ in range(sentences):
    picked = [words[i] for i in rng.integers(0, 300, rng.integers(4, 15))]
    out.append(" ".join(picked).capitalize() + ".?!"[rng.integers(3)])
  return "  ".join(out[:50]) + "\n\n" + " ".join(out[50:])


def squad():
  """Three articles of paragraphs with one question each, one unanswerable."""
  data = []
  for a in range(3):
    paragraphs = []
    for p in range(20):
      name = f"Name{a}x{p}"
      context = f"Article {a} part {p}. The keeper was called {name} then."
      context += " Nothing else is known about it." * (p % 3)
      answer = {"text": name, "answer_start": context.index(name)}
      asked = {
        "question": f"Who kept part {p} of {a}?",
        "answers": [answer, answer],
        "is_impossible": False,
      }
      silly = {"question": "Why?", "answers": [], "is_impossible": True}
      paragraphs.append({"context": context, "qas": [asked, silly]})
    data.append({"title": f"Article {a}", "paragraphs": paragraphs})
  return {"version": "v2.0", "data": data}


def hotpot():
  """Questions over two of ten pages."""
  items = []
  for q in range(30):
    pages = [
      [f"Page {q}-{i}", [f"Page {q}-{i} is about {i}.", " It is short."]]
      for i in range(10)
    ]
    support = [[f"Page {q}-{3 + q % 5}", 0], [f"Page {q}-1", 1]]
    items.append(
      {
        "question": f"What do pages of {q} share?",
        "answer": f"answer {q}",
        "supporting_facts": support,
        "context": pages,
      }
    )
  return items


def contents():
  """Name -> bytes of every file."""
  adjectives, nouns, verbs = nonsense(60, 3), nonsense(700, 4), nonsense(90, 5)
  return {
    "essays.json": json.dumps({"text": essays()}).encode(),
    "squad.json": json.dumps(squad()).encode(),
    "hotpotqa.json": json.dumps(hotpot()).encode(),
    "adjectives.txt": "\n".join([*adjectives, adjectives[0]]).encode(),
    "nouns.txt": "\n".join([*nouns, "ice cream"]).encode(),
    "verbs.txt": "\n".join(verbs).encode(),
  }


def make_packages(files=None):
  """Archives of `files`, and the packages that pin them."""
  files = files or contents()
  packages, archives = [], {}
  for package in assets.PACKAGES:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as z:
      for name, (path, _) in package.files.items():
        z.writestr(path, files[name])
    hashes = {
      name: (path, hashlib.sha256(files[name]).hexdigest())
      for name, (path, _) in package.files.items()
    }
    data = buffer.getvalue()
    pinned = Package(package.pin, hashlib.sha256(data).hexdigest(), hashes)
    packages.append(pinned)
    archives[package.pin] = data
  return tuple(packages), archives


def install(monkeypatch, folder: pathlib.Path) -> pathlib.Path:
  """The stand-ins in `folder`/ruler, pinned in place of the real ones."""
  packages, _ = make_packages()
  monkeypatch.setattr(assets, "PACKAGES", packages)
  for name, data in contents().items():
    (folder / "ruler").mkdir(parents=True, exist_ok=True)
    (folder / "ruler" / name).write_bytes(data)
  return folder


def make_maker(folder, tokenizer=BYTE, source=EssaySource.ESSAY, free=""):
  tokens = tokenizer.encode(free)
  return TaskMaker(tokenizer, Texts(pathlib.Path(folder), source, tokens))


def request(length, sample=0, num_samples=10, seed=0):
  return Request(seed, sample, num_samples, length)


def text_of(prompt, tokenizer):
  return tokenizer.decode(prompt.segment(0, prompt.length).tolist())
