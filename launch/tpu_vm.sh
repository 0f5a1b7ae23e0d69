#!/usr/bin/env bash
# Trains on a TPU VM slice of any size.
#
#   launch/tpu_vm.sh create --name=NAME --zone=ZONE --type=v5litepod-256 [--spot]
#   launch/tpu_vm.sh setup  --name=NAME --zone=ZONE
#   launch/tpu_vm.sh train  --name=NAME --zone=ZONE --type=v5litepod-256 \
#     -- --config=configs/paper_240m.py --workdir=/mnt/shared/runs/a
#   launch/tpu_vm.sh logs|stop|delete --name=NAME --zone=ZONE
#
#   create   asks for the slice (a queued resource) and waits until it is there
#   setup    copies this folder to every host and installs it
#   train    starts train.py on every host, detached; the same command resumes
#   logs     follows host 0          stop    saves and ends the run
#   delete   gives the slice back
#
#   --runtime=IMAGE  of the hosts; by default the one of the type
#   --project=NAME   other than gcloud's default
#   --spot           cheaper, and may be taken away: train again to resume
#   --dry-run        prints the commands, runs nothing
#
# The workdir must be a folder that every host sees. See docs/launching.md.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
# shellcheck source=launch/common.sh
source launch/common.sh

action=${1:-}
[[ $# -gt 0 ]] && shift
name='' zone='' type='' runtime='' project=() spot=()
while [[ $# -gt 0 ]]; do
  case $1 in
    --name=*) name=${1#*=} ;;
    --zone=*) zone=${1#*=} ;;
    --type=*) type=${1#*=} ;;
    --runtime=*) runtime=${1#*=} ;;
    --project=*) project=("$1") ;;
    --spot) spot=(--spot) ;;
    --dry-run) DRY_RUN=1 ;;
    --) shift && break ;;
    *) die "$1: not a flag of launch/tpu_vm.sh; those of train.py follow --" ;;
  esac
  shift
done
case $action in
  create | setup | train | logs | stop | delete) ;;
  *) die "'$action': say create, setup, train, logs, stop or delete" ;;
esac
[[ -n $name ]] || die "--name=NAME is missing"
[[ -n $zone ]] || die "--zone=ZONE is missing, as in --zone=us-west4-a"
place=(--zone="$zone" "${project[@]}")

on_hosts() { # WORKERS COMMAND...
  run gcloud compute tpus tpu-vm ssh "$name" "${place[@]}" --worker="$1" \
    --command="$(printf '%q ' bash "${@:2}")"
}

create() {
  job_size "$type" 1 >/dev/null
  case $type in
    v5litepod-*) : "${runtime:=v2-alpha-tpuv5-lite}" ;;
    v5p-*) : "${runtime:=v2-alpha-tpuv5}" ;;
    v6e-*) : "${runtime:=v2-alpha-tpuv6e}" ;;
    *) : "${runtime:=tpu-ubuntu2204-base}" ;;
  esac
  run gcloud compute tpus queued-resources create "$name" "${place[@]}" \
    --node-id="$name" --accelerator-type="$type" \
    --runtime-version="$runtime" "${spot[@]}"
  local state=''
  until [[ ${DRY_RUN:-0} == 1 || $state == ACTIVE ]]; do
    state=$(gcloud compute tpus queued-resources describe "$name" \
      "${place[@]}" --format='value(state.state)')
    echo "$(date +%T) $name: $state"
    [[ $state != FAILED && $state != SUSPENDED ]] \
      || die "$name is $state: delete it, then create again"
    [[ $state == ACTIVE ]] || sleep "${POLL_S:-30}"
  done
}

setup() {
  local archive
  archive=$(mktemp -u).tgz
  # What git tracks, with its uncommitted changes: no data, no runs.
  run bash -c "git ls-files -z | tar --null -T - -czf '$archive'"
  run gcloud compute tpus tpu-vm scp "$archive" "$name:hsa_jax.tgz" \
    "${place[@]}" --worker=all
  on_hosts all -c 'mkdir -p hsa_jax && tar -xzf hsa_jax.tgz -C hsa_jax'
  on_hosts all hsa_jax/launch/tpu_host.sh install
}

train() {
  local size
  [[ $# -gt 0 ]] || die "the flags of train.py follow --"
  size=$(job_size "$type" 1)
  on_hosts all hsa_jax/launch/tpu_host.sh train "${size% *}" "${size#* }" "$@"
}

case $action in
  logs) on_hosts 0 hsa_jax/launch/tpu_host.sh logs ;;
  stop) on_hosts all hsa_jax/launch/tpu_host.sh stop ;;
  delete) run gcloud compute tpus queued-resources delete "$name" \
    "${place[@]}" --force --quiet ;;
  *) "$action" "$@" ;;
esac
