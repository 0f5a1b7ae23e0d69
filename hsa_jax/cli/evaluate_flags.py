"""The flags of `eval.py`: each is checked by itself, before anything else."""

import argparse
import enum
import pathlib
from collections.abc import Callable, Sequence
from typing import NamedTuple, TypeVar

from hsa_jax.cli.flags import Parser, read_member, read_names
from hsa_jax.cli.memory_flags import (
  MemoryChoice,
  add_memory_flags,
  read_memory,
)
from hsa_jax.cli.override_flag import add_override_flag, read_overrides
from hsa_jax.config import Haystack, Needle
from hsa_jax.data.ruler.tasks import EssaySource
from hsa_jax.evaluation import SUITES, FlagError, Settings
from hsa_jax.evaluation.lengths import parse_lengths, parse_samples
from hsa_jax.evaluation.session import Diagnostics, PrefillKind
from hsa_jax.evaluation.suite import select_suites, task_names

T = TypeVar("T")
E = TypeVar("E", bound=enum.StrEnum)
DEFAULT_SEGMENT = 4096  # tokens; what two CPU cores keep in their caches


class Arguments(NamedTuple):
  """The command line, each value checked by itself."""

  checkpoint: str
  step: int | None
  suites: tuple[str, ...]
  settings: Settings
  workdir: str
  overrides: dict[str, int | float]


def read_arguments(values: argparse.Namespace) -> Arguments:
  """Checks every flag by itself.

  Raises:
    FlagError: naming all that is wrong, one line each.
  """
  problems: list[str] = []

  def read(parse: Callable[[], T], otherwise: T) -> T:
    try:
      return parse()
    except FlagError as error:
      problems.extend(error.problems)
      return otherwise

  if not values.checkpoint:
    problems.append("--checkpoint is missing: the --workdir of a training run")
  names = tuple(suite.name for suite in SUITES)
  suites = read(lambda: read_names("--suites", values.suites, names), ())
  tasks = read(lambda: read_tasks(values.tasks, suites or names), ())
  kinds = [str(kind) for kind in Haystack]
  haystacks = read(lambda: read_names("--haystack", values.haystack, kinds), ())
  for flag in ("segment", "batch"):
    if vars(values)[flag] < 1:
      problems.append(f"--{flag}={vars(values)[flag]}: must be at least 1")
  if values.seed < 0:
    problems.append(f"--seed={values.seed}: must not be negative")

  def choose(flag: str, kind: type[E]) -> E:
    text = vars(values)[flag.replace("-", "_")]
    known = tuple(kind)
    return read(lambda: read_member(f"--{flag}", text, known), known[0])

  memory = read(lambda: read_memory(values), MemoryChoice())
  overrides = read(lambda: read_overrides(values.override), {})
  settings = Settings(
    lengths=read(lambda: parse_lengths(values.lengths), (1,)),
    samples=read(lambda: parse_samples(values.samples), ()),
    tasks=tasks,
    haystacks=tuple(map(Haystack, haystacks)),
    needle=choose("needle", Needle),
    segment=values.segment,
    batch=values.batch,
    seed=values.seed,
    diagnostics=choose("diagnostics", Diagnostics),
    assets=values.assets,
    essays=choose("essays", EssaySource),
    memory=memory.home,
    kv_dtype=memory.kv_dtype,
    kv_place=memory.kv_place,
    prefill=choose("prefill", PrefillKind),
    babilong_facts=values.babilong_facts,
    babilong_books=values.babilong_books,
  )
  if problems:
    raise FlagError(problems)
  workdir = values.workdir or str(pathlib.Path(values.checkpoint) / "eval")
  return Arguments(
    values.checkpoint, values.step, suites, settings, workdir, overrides
  )


def read_tasks(text: str, suites: Sequence[str]) -> tuple[str, ...]:
  """The tasks that `--tasks` names; none of them for an empty text.

  Raises:
    FlagError: for a task that none of the suites has.
  """
  if not text:
    return ()
  known = task_names(select_suites(SUITES, suites))
  if not known:
    names = ", ".join(suites)
    raise FlagError([f"--tasks={text}: {names} has no tasks to choose from"])
  return read_names("--tasks", text, known)


def make_parser(description: str | None) -> Parser:
  """All flags; `description` opens the help."""
  parser = Parser(
    prog="eval.py",
    description=description,
    formatter_class=argparse.RawDescriptionHelpFormatter,
    allow_abbrev=False,
  )
  add = parser.add_argument_group("what is measured").add_argument
  add("--checkpoint", help="workdir of a training run, or one step's folder")
  add("--step", type=int, help="which checkpoint; default: the newest")
  add_override_flag(add)
  suites = "; ".join(f"{suite.name}: {suite.summary}" for suite in SUITES)
  add("--suites", default="hsa_ruler", help=f"one or more of {suites}")
  tasks = "; ".join(
    f"{s.name}: {', '.join(s.tasks)}" for s in SUITES if s.tasks
  )
  add(
    "--tasks",
    default="",
    help="some of what the suites have; a suite of which none is named runs"
    f" as it does without this flag ({tasks})",
  )
  add("--lengths", default="256,1K,4K,16K", help="tokens, as 256,4K,1M")
  add("--samples", default="20", help="per length; 20,256K:10 from 256K on 10")
  add("--haystack", default="text", help="text, noise")
  add("--needle", default="digits", help="digits or ids")
  add("--assets", default="data/assets", help="files fetched for ruler")
  add(
    "--essays",
    default="essay",
    help="what ruler's essay tasks read: essay (RULER's, from --assets), or"
    " essay_free (the held-out split of the token store)",
  )
  add("--seed", type=int, default=0, help="of the samples")
  add(
    "--diagnostics",
    default="basic",
    help="basic: recall@K of the chunks that hold the answer; full: also, per"
    " group, the exact rank of such a chunk among all visible ones, distances"
    " of the selected chunks, and for the first samples of each job which"
    " chunks every answer token read. The answers are the same; samples that"
    " are finished without it stay without",
  )
  add("--workdir", help="where results go; default: CHECKPOINT/eval")
  add(
    "--babilong-facts",
    default="",
    metavar="DIR",
    help="published bAbI files (en-10k); default: stories of our own",
  )
  add(
    "--babilong-books",
    default="",
    metavar="DIR",
    help="*.txt files to hide facts in; default: held-out text of the store",
  )
  _add_ways(parser)
  add = parser.add_argument_group(
    "reports", "Made from results folders; nothing is evaluated."
  ).add_argument
  add(
    "--report",
    nargs="+",
    metavar="DIR",
    help="remake the report of one run, or of several side by side in --out",
  )
  add(
    "--compare",
    nargs=2,
    metavar=("A", "B"),
    help="paired test of two runs on the same samples, per task and length",
  )
  add("--out", metavar="DIR", help="where the report or comparison goes")
  return parser


def _add_ways(parser: Parser) -> None:
  """Flags that change speed and room, never an answer, but for --kv-dtype."""
  ways = parser.add_argument_group(
    "how", "The answers are the same, whatever is chosen but --kv-dtype."
  )
  add = ways.add_argument
  add(
    "--segment",
    type=int,
    default=DEFAULT_SEGMENT,
    help="tokens per call of the prefill program, over all devices; whole"
    " chunks, to which the default is cut down",
  )
  add("--batch", type=int, default=1, help="sequences read at the same time")
  add(
    "--prefill",
    default="auto",
    help="sequential: one segment after the other; halo: a part of the segment"
    " on each device at the same time (on a CPU each core is one), every part"
    " with the few tokens in front of it that it depends on; auto: halo where"
    " there are several devices and chunks are not kept on one of them",
  )
  add_memory_flags(
    ways,
    homes="host (RAM), disk (in --workdir; least RAM, and a sample that was"
    " killed goes on where it was), device, sharded (over all devices), auto"
    " (the first of device or sharded, host, disk that fits)",
  )
