"""Sharded token stores, made by several processes and resumed after a kill.

    STORE/00000.bin     tokens of the documents of one part of the input, in the
                        order train, valid, test; every document ends with eos
    STORE/00000.ends    uint64, the end of each document in that file
    STORE/index.json    the header: counts, splits, SHA-256 of every file
    STORE/progress/     while it is being made: the plan, and a record of each
                        finished shard

A shard counts once its record is written, and its hash is compared before it is
taken up. The header comes last.
"""

import collections
import concurrent.futures
import contextlib
import hashlib
import json
import multiprocessing
import multiprocessing.connection
import os
import signal
import threading
from collections.abc import Iterator, Sequence
from concurrent.futures.process import BrokenProcessPool
from typing import Any

from etils import epath

from hsa_jax.data.corpora import SPLITS
from hsa_jax.data.errors import StoreError
from hsa_jax.data.folders import (
  KEPT,
  is_local,
  open_folder,
  read_json,
  told_faults,
  write_whole,
)
from hsa_jax.data.index import (
  INDEX,
  PLAN,
  PROGRESS,
  SHARDED,
  index_bytes,
  token_type,
  tokenizer_entry,
)
from hsa_jax.data.progress import Progress
from hsa_jax.data.readers import Span
from hsa_jax.data.shard import Job, Made, make_shard
from hsa_jax.data.sources import Source
from hsa_jax.data.store import Existing, TokenStore
from hsa_jax.data.tokenizer import Tokenizer


def build_shards(
  source: Source,
  tokenizer: Tokenizer,
  path: str | os.PathLike,
  *,
  workers: int = 1,
  existing: Existing = Existing.REFUSE,
  progress: Progress | None = None,
) -> TokenStore:
  """Tokenizes a source into a sharded store; goes on where a run was killed.

  Args:
    source: the parts; each becomes a shard. Memory holds one document of it,
      and the tokens of those held out, per process.
    tokenizer: ids must fit its `vocab_size`.
    path: folder to make, local or any that `etils.epath` writes to.
    workers: processes; 1 makes everything in this one. The bytes written do
      not depend on it.
    existing: whether a store, or the beginning of another one, may be replaced.
    progress: told the bytes of each finished shard.

  Returns:
    the store; on object storage it can be described, but not read.

  Raises:
    StoreError: the folder is taken, or cannot be written.
    CorpusError: input that cannot be read, with file and line.
  """
  folder = open_folder(path)
  progress = progress or Progress(0)
  job = Job(str(folder), tokenizer, source.rule)
  plan = _plan(source, tokenizer)
  with told_faults(str(folder)):
    _start(folder, plan, existing)
  entries: list[dict[str, Any]] = []
  for made in _make_all(job, source.parts, workers):
    (progress.kept if made.kept else progress.made)(made.num_bytes)
    entries.append(made.entry)
  entries.sort(key=lambda entry: int(entry["name"].removesuffix(".bin")))
  index = _header(plan, tokenizer, entries)
  with told_faults(str(folder)):
    write_whole(folder / INDEX, index_bytes(index))
  clear_progress(folder)
  if is_local(folder):
    return TokenStore.open(path, tokenizer.fingerprint)
  return TokenStore.describe(folder, tokenizer.fingerprint)


def clear_progress(folder: epath.Path) -> None:
  """Removes what only an unfinished store needs; nothing depends on it."""
  with contextlib.suppress(OSError):
    if (folder / PROGRESS).exists():
      (folder / PROGRESS).rmtree()
    if is_local(folder):
      for leftover in list(folder.glob("*.tmp-*")):
        leftover.unlink()


# --- Before and after -------------------------------------------------------


def _plan(source: Source, tokenizer: Tokenizer) -> dict[str, Any]:
  """What must be equal for a finished shard to be used."""
  made_by = tokenizer_entry(tokenizer)
  del made_by["spec"]  # the same file may lie elsewhere
  parts = [[span.num_bytes for span in part] for part in source.parts]
  digest = hashlib.sha256(json.dumps(parts).encode()).hexdigest()
  return {
    "tokenizer": made_by,
    "corpus": {"name": source.name, "fingerprint": source.fingerprint},
    "shards": {"count": len(parts), "parts": digest},
  }


def _start(
  folder: epath.Path, plan: dict[str, Any], existing: Existing
) -> None:
  """Makes the folder, or finds the shards of an earlier run in it."""
  index = read_json(folder / INDEX)
  found = read_json(folder / PROGRESS / PLAN)
  if isinstance(index, dict) and "tokenizer" in index:
    if existing is Existing.REFUSE:
      raise StoreError(
        f"{folder}: already holds a token store; delete it first, or choose"
        " another folder"
      )
    folder.rmtree()
  elif isinstance(found, dict) and "tokenizer" in found:
    if found == plan:
      return
    if existing is Existing.REFUSE:
      others = ", ".join(name for name in plan if found.get(name) != plan[name])
      raise StoreError(
        f"{folder}: holds the beginning of another store (other {others});"
        " finish that one with its own text and flags, choose another folder,"
        " or pass --replace to start anew"
      )
    folder.rmtree()
  elif folder.exists() and any(p.name != PROGRESS for p in folder.iterdir()):
    raise StoreError(
      f"{folder}: exists and is not a token store; choose another folder"
    )
  (folder / PROGRESS).mkdir(parents=True, exist_ok=True)
  write_whole(folder / PROGRESS / PLAN, json.dumps(plan).encode())


def _header(
  plan: dict[str, Any], tokenizer: Tokenizer, shards: list[dict[str, Any]]
) -> dict[str, Any]:
  splits = {}
  for name in SPLITS:
    mine = [shard["splits"][name] for shard in shards]
    keys = ("length", "text_bytes", "documents")
    splits[name] = {key: sum(entry[key] for entry in mine) for key in keys}
    if not splits[name]["length"]:
      raise StoreError(
        f"no documents for split {name!r}: raise --{name}_share, give"
        " --valid_files and --test_files, or add text"
      )
  hashes = "".join(shard["sha256"] + shard["ends_sha256"] for shard in shards)
  return {
    "version": SHARDED,
    "dtype": token_type(tokenizer).str,
    "num_tokens": sum(shard["num_tokens"] for shard in shards),
    "sha256": hashlib.sha256(hashes.encode()).hexdigest(),
    "tokenizer": tokenizer_entry(tokenizer),
    "corpus": plan["corpus"],
    "splits": splits,
    "shards": shards,
  }


# --- Processes --------------------------------------------------------------


def _make_all(
  job: Job, parts: Sequence[tuple[Span, ...]], workers: int
) -> Iterator[Made]:
  """Shards as they are finished, in any order."""
  if workers <= 1:
    for number, part in enumerate(parts):
      yield make_shard(job, number, part)
    return
  # A forked process would inherit the locks of threads it does not have.
  context = multiprocessing.get_context("spawn")
  pool = concurrent.futures.ProcessPoolExecutor(
    min(workers, len(parts)), context, _begin, (job,)
  )
  try:
    yield from _in_flight(pool, parts, 2 * workers)
  except BrokenProcessPool as e:
    raise StoreError(
      f"{job.folder}: a process died, as happens when memory runs out; use"
      f" fewer --workers; {KEPT}"
    ) from e
  finally:
    pool.shutdown(cancel_futures=True)


def _in_flight(
  pool: concurrent.futures.Executor,
  parts: Sequence[tuple[Span, ...]],
  count: int,
) -> Iterator[Made]:
  """Hands out a few parts at a time: there may be very many."""
  waiting = collections.deque(enumerate(parts))
  running: set[concurrent.futures.Future[Made]] = set()
  while waiting or running:
    while waiting and len(running) < count:
      running.add(pool.submit(_make_here, *waiting.popleft()))
    done, running = concurrent.futures.wait(
      running, return_when=concurrent.futures.FIRST_COMPLETED
    )
    for future in done:
      yield future.result()


_here: list[Job] = []  # of a worker process


def _begin(job: Job) -> None:
  """First thing in a worker."""
  _here[:] = [job]
  # Ctrl-C reaches all processes; the parent alone speaks of it.
  signal.signal(signal.SIGINT, signal.SIG_DFL)
  threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
  """A killed parent cannot stop its workers, which would wait for ever."""
  parent = multiprocessing.parent_process()
  if parent is not None:
    multiprocessing.connection.wait([parent.sentinel])
    os._exit(1)


def _make_here(number: int, part: tuple[Span, ...]) -> Made:
  return make_shard(_here[0], number, part)
