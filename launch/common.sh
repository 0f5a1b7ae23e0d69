# Shared by the scripts of this folder; not a command of its own.
# shellcheck shell=bash

die() {
  printf 'error: %s\n' "$*" >&2
  exit 2
}

# Runs a command, or with DRY_RUN=1 prints it in a form that can be pasted.
run() {
  if [[ ${DRY_RUN:-0} == 1 ]]; then
    printf '%q ' "$@"
    printf '\n'
  else
    "$@"
  fi
}

# Prints "PROCESSES DEVICES" of so many slices of a type. The numbers in the
# names of v4 and v5p count cores, two to a chip; those of v5e and v6e count
# chips. A host has four chips, but up to eight of v5e or v6e are one host.
job_size() { # TYPE SLICES
  local type=$1 slices=$2 number=${1##*-} chips hosts
  [[ $number =~ ^[1-9][0-9]*$ ]] || die "--type=$type: ends in no number"
  case $type in
    v5litepod-* | v6e-*) chips=$number hosts=1 ;;
    v4-* | v5p-*) chips=$((number / 2)) hosts=0 ;;
    *) die "--type=$type: known are v4-N, v5p-N, v5litepod-N and v6e-N" ;;
  esac
  if ((chips > 8 || hosts == 0)); then
    ((chips > 0 && chips % 4 == 0)) \
      || die "--type=$type: $chips chips do not fill hosts of 4"
    hosts=$((chips / 4))
  fi
  echo "$((hosts * slices)) $((chips * slices))"
}
