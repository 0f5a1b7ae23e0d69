#!/usr/bin/env bash
# Trains on GPU nodes under SLURM, one process per node.
#
#   sbatch --nodes=4 --gpus-per-node=8 launch/slurm.sh \
#     --config=configs/paper_240m.py --workdir=/shared/runs/a
#
# Options of sbatch come before the script, those of train.py after it. The job
# is asked to save five minutes before its time ends, then queued again, until
# training is finished. Inside an allocation (salloc) run it with bash.
#
#   PYTHON     interpreter; by default .venv/bin/python of this folder
#   DRY_RUN=1  prints the command, runs nothing
#
#SBATCH --job-name=hsa_jax
#SBATCH --ntasks-per-node=1
#SBATCH --exclusive
#SBATCH --signal=TERM@300
#SBATCH --requeue
#SBATCH --open-mode=append
#SBATCH --output=%x-%j.log
set -euo pipefail
# sbatch runs a copy of this file: the folder is where it was submitted.
cd "${SLURM_SUBMIT_DIR:-$(dirname "${BASH_SOURCE[0]}")/..}"
[[ -f launch/common.sh ]] || {
  echo "error: submit this from the folder of hsa_jax, not from $PWD" >&2
  exit 2
}
# shellcheck source=launch/common.sh
source launch/common.sh
[[ -n ${SLURM_JOB_ID:-} ]] || die "no SLURM job: use sbatch, or salloc first"
[[ $# -gt 0 ]] || die "the flags of train.py are missing, as in --config=FILE"
: "${SLURM_GPUS_ON_NODE:?no GPUs were asked for: add --gpus-per-node=8}"

first=$(scontrol show hostnames "$SLURM_JOB_NODELIST" | head -n 1)
export JAX_COORDINATOR_ADDRESS="$first:$((20000 + SLURM_JOB_ID % 10000))"
export JAX_NUM_PROCESSES=$SLURM_JOB_NUM_NODES
export HSA_EXPECT_PROCESSES=$SLURM_JOB_NUM_NODES
export HSA_EXPECT_DEVICES=$((SLURM_JOB_NUM_NODES * SLURM_GPUS_ON_NODE))
export PYTHON=${PYTHON:-.venv/bin/python}

code=0
# Each task learns its number from SLURM; exec, so that it gets the signals.
# shellcheck disable=SC2016
run srun --ntasks="$SLURM_JOB_NUM_NODES" --ntasks-per-node=1 \
  --kill-on-bad-exit=1 bash -c \
  'JAX_PROCESS_ID=$SLURM_PROCID exec "$PYTHON" train.py "$@"' train.py "$@" \
  || code=$?
if [[ $code == 143 ]]; then # saved after SIGTERM; see train.py --help
  run scontrol requeue "$SLURM_JOB_ID"
fi
exit "$code"
