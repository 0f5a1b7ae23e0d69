"""A grid as commands for a cluster, to be read, changed and pasted.

Each run is trained by the script of `launch/` that trains anything else; what
is then measured, the sweep command finds by itself in the shared workdir.
"""

import enum
import re
import shlex
from collections.abc import Iterator, Sequence

from hsa_jax.ablation.execute import Commands
from hsa_jax.ablation.resolve import Run
from hsa_jax.ablation.state import folder_of


class Target(enum.StrEnum):
  """Where the commands are to run."""

  SHELL = "shell"
  SLURM = "slurm"
  GKE = "gke"


def emit(
  target: Target, commands: Commands, runs: Sequence[Run], workdir: str
) -> Iterator[str]:
  """Lines of a shell script that runs everything.

  Args:
    target: where.
    commands: of the grid.
    runs: in the order they are to be started.
    workdir: of the grid; on a cluster a folder that all hosts see.
  """
  yield "#!/usr/bin/env bash"
  yield "set -euo pipefail"
  yield from _HEADS[target]
  trained: set[str] = set()
  for run in runs:
    train = commands.train_by_name(run, folder_of(workdir, run))
    if run.hash in trained:
      train = []
    if run.after and run.after.hash not in trained:
      run = run._replace(after=None)  # Trained before, by another script.
    trained.add(run.hash)
    yield f"# {run.name}, configuration {run.hash}"
    yield from _RUNS[target](run, train, _evaluate(commands, run, workdir))


def _evaluate(commands: Commands, run: Run, workdir: str) -> list[str]:
  """The sweep of this run alone: it is trained by then."""
  return [
    "python",
    "-m",
    "hsa_jax.cli.sweep",
    f"--config={commands.config}",
    f"--size={commands.size}",
    f"--only={run.cell.name}",
    f"--seeds={run.seed},",
    f"--workdir={workdir}",
    *commands.overrides,
    "--run",
  ]


def _shell(run: Run, train: list[str], evaluate: list[str]) -> Iterator[str]:
  if train:
    yield shlex.join(["python", *train])
  yield shlex.join(evaluate)


def _slurm(run: Run, train: list[str], evaluate: list[str]) -> Iterator[str]:
  name, number = f"--job-name={run.name}", f"id_{run.hash}"
  if train:
    job = shlex.join(["launch/slurm.sh", *train[1:]])
    first = f'--dependency="afterok:$id_{run.after.hash}" ' if run.after else ""
    yield f'{number}=$(sbatch --parsable {name} {first}"${{NODES[@]}}" {job})'
  after = f'--dependency="afterok:${number}"'
  wrapped = shlex.quote(shlex.join([".venv/bin/python", *evaluate[1:]]))
  yield f'sbatch {name}-eval {after} "${{ONE[@]}}" --wrap={wrapped}'


def _gke(run: Run, train: list[str], evaluate: list[str]) -> Iterator[str]:
  if train:
    if run.after:
      yield f"# once {workload(run.after)} is trained:"
    yield (
      f'launch/gke.sh "${{CLUSTER[@]}}" --workload={workload(run)} --'
      f" {shlex.join(train[1:])}"
    )
  yield f"# once it is trained, on one host: {shlex.join(evaluate)}"


def workload(run: Run) -> str:
  """A name that GKE takes: up to 40 lower-case letters, digits, hyphens."""
  name = re.sub(r"[^a-z0-9]+", "-", run.name.lower()).strip("-")
  return f"{name[:27].strip('-')}-{run.hash}"


_HEADS = {
  Target.SHELL: (),
  Target.SLURM: (
    "# What a job gets; options of sbatch.",
    "NODES=(--nodes=1 --gpus-per-node=8 --time=24:00:00)",
    "ONE=(--nodes=1 --gpus-per-node=1 --time=4:00:00)",
  ),
  Target.GKE: (
    "# Flags of launch/gke.sh; the workdir is a folder that all hosts see.",
    "CLUSTER=(--cluster=NAME --type=v5litepod-16 --image=IMAGE)",
  ),
}
_RUNS = {Target.SHELL: _shell, Target.SLURM: _slurm, Target.GKE: _gke}
