#!/usr/bin/env bash
# What launch/tpu_vm.sh does on each host of a slice; run it there, not at home.
#
#   tpu_host.sh install
#   tpu_host.sh train PROCESSES DEVICES FLAGS...   detached; writes train.log
#   tpu_host.sh stop | logs
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

running() {
  [[ -f train.pid ]] && kill -0 "$(<train.pid)" 2>/dev/null
}

install() {
  local python
  python=$(command -v python3.13 python3.12 python3.11 | head -n 1) || true
  if [[ -z $python ]]; then
    sudo apt-get update -q
    sudo apt-get install -qy python3.11-venv
    python=python3.11
  fi
  "$python" -m venv .venv
  .venv/bin/python -m pip install -q -c constraints.txt -e '.[tpu]'
  echo "$(hostname): installed"
}

train() {
  if running; then
    echo "error: $(hostname) trains already: stop it first" >&2
    exit 2
  fi
  export HSA_CLUSTER=tpu HSA_EXPECT_PROCESSES=$1 HSA_EXPECT_DEVICES=$2
  shift 2
  # A session of its own: the run outlives this connection.
  setsid nohup .venv/bin/python train.py "$@" >train.log 2>&1 </dev/null &
  echo $! >train.pid
  echo "$(hostname): started"
}

case ${1:-} in
  install) install ;;
  train) train "${@:2}" ;;
  stop)
    if running; then
      kill -TERM "$(<train.pid)"
      echo "$(hostname): told to save and stop"
    else
      echo "$(hostname): nothing runs"
    fi
    ;;
  logs) tail -n 200 -F train.log ;;
  *)
    echo "error: '${1:-}': say install, train, stop or logs" >&2
    exit 2
    ;;
esac
