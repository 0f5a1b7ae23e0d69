#!/usr/bin/env bash
# Trains on TPU slices of a GKE cluster, through xpk.
#
#   launch/gke.sh --cluster=CLUSTER --workload=NAME --type=v5litepod-256 \
#     --slices=2 --image=IMAGE \
#     -- --config=configs/paper_240m.py --workdir=/mnt/shared/runs/a
#
#   --image=IMAGE     made with launch/Dockerfile, where the cluster can pull it
#   --slices=N        of the type; gradients cross between them (default 1)
#   --zone, --project other than gcloud's default
#   --max-restarts=N  after a preemption or a failure (default 50): each goes on
#                     from the newest checkpoint
#   --dry-run         prints the command, runs nothing
#
# Install xpk first (pip install xpk); see docs/launching.md.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
# shellcheck source=launch/common.sh
source launch/common.sh

cluster='' workload='' type='' slices=1 image='' restarts=50 place=()
while [[ $# -gt 0 ]]; do
  case $1 in
    --cluster=*) cluster=${1#*=} ;;
    --workload=*) workload=${1#*=} ;;
    --type=*) type=${1#*=} ;;
    --slices=*) slices=${1#*=} ;;
    --image=*) image=${1#*=} ;;
    --max-restarts=*) restarts=${1#*=} ;;
    --zone=* | --project=*) place+=("$1") ;;
    --dry-run) DRY_RUN=1 ;;
    --) shift && break ;;
    *) die "$1: not a flag of launch/gke.sh; those of train.py follow --" ;;
  esac
  shift
done
[[ -n $cluster ]] || die "--cluster=NAME is missing"
[[ -n $image ]] || die "--image=IMAGE is missing; build launch/Dockerfile"
[[ $slices =~ ^[1-9][0-9]*$ ]] || die "--slices=$slices: must be at least 1"
[[ $workload =~ ^[a-z]([-a-z0-9]{0,38}[a-z0-9])?$ ]] \
  || die "--workload=$workload: up to 40 lower-case letters, digits and hyphens"
[[ $# -gt 0 ]] || die "the flags of train.py follow --"

size=$(job_size "$type" "$slices")
expect="HSA_EXPECT_PROCESSES=${size% *} HSA_EXPECT_DEVICES=${size#* }"
run xpk workload create --cluster="$cluster" --workload="$workload" \
  "${place[@]}" --tpu-type="$type" --num-slices="$slices" \
  --docker-image="$image" --max-restarts="$restarts" \
  --command="exec env HSA_CLUSTER=tpu $expect python train.py$(printf ' %q' "$@")"
