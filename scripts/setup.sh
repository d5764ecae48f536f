# shellcheck shell=bash
# Sourced by the other scripts: gives them a Python environment in which this repository is installed.
#
# set_up EXTRA (base or dev) leaves the interpreter's path in $python, or ends the script with one clear line and exit code 1.
# An active virtual or conda environment is used, else .venv in the repository is made. When all is up to date
# it says nothing, needs no network and takes a few milliseconds. What it says goes to stderr. Until then Ctrl-C is one
# line and exit code 130, afterwards it is answered by what the scripts start.

package=dropout_lab
repo=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd -P)

interrupted() {
  [[ ! -t 2 ]] || echo >&2
  echo interrupted >&2
  exit 130
}
trap interrupted INT

set_up() {
  provide "$1"
  trap - INT
}

provide() {
  local extra=$1
  environment=${VIRTUAL_ENV:-${CONDA_PREFIX:-$repo/.venv}}
  python=$environment/bin/python
  stamp=$environment/.$package.installed
  up_to_date "$extra" && return
  if [[ $environment != "$repo/.venv" && ! -x $python ]]; then
    die "the active environment $environment has no bin/python: deactivate it, then .venv is used"
  fi
  if ! mkdir -p "$environment" || [[ ! -w $environment ]]; then
    die "cannot write to $environment: activate an environment of your own, or none"
  fi
  alone install "$extra"
}

say() { printf '%s: %s\n' "$package" "$*" >&2; }
die() { say "$*" && exit 1; }

# The stamp holds all that an installation depends on, so two clones that share an environment each install anew.
description() {
  printf '%s\n' "$(python_version "$python")" "$repo" "$(<"$repo/pyproject.toml")"
}

up_to_date() {
  [[ -x $python && -f $stamp.$1 && $(<"$stamp.$1") == "$(description)" ]]
}

python_version() {
  [[ $("$1" -V 2>&1) =~ ^Python\ ([0-9]+\.[0-9]+) ]] && echo "${BASH_REMATCH[1]}"
}

supported() {
  [[ $1 == 3.* && ${1#3.} -ge 11 ]]
}

# Run a function in a subshell while no other process does so in this environment.
alone() (
  trap 'exit 130' INT # without a word, which the script says
  lock=$environment/.$package.lock
  exec 9>>"$lock"
  status=0
  flock -n 9 2>/dev/null || status=$?
  case $status in
    0) ;;
    1) say "waiting for another process that is installing into $environment" && flock 9 ;;
    *) lock_with_link "$lock.link" ;; # no flock on this machine (macOS) or on this file system (some clusters)
  esac
  "$@"
)

# A symbolic link is made in one step together with its owner's name, so a dead owner is always recognised.
lock_with_link() {
  local link=$1 me owner waited=0
  me=$(uname -n):$(exec sh -c 'echo $PPID') # of this subshell, which works on when the script itself is killed
  until ln -s "$me" "$link" 2>/dev/null; do
    owner=$(readlink "$link") || continue
    if [[ ${owner%:*} == "${me%:*}" ]] && ! kill -0 "${owner##*:}" 2>/dev/null; then
      break_link "$link" "$owner"
    elif ((waited++ == 0)); then
      say "waiting for another process ($owner) that is installing into $environment"
    elif ((waited > 18000)); then
      die "gave up waiting for $owner: if it no longer runs, remove $link"
    fi
    sleep 0.1
  done
  # shellcheck disable=SC2064  # the link's name is wanted now
  trap "rm -f $(printf '%q' "$link")" EXIT
  trap 'exit 130' INT TERM
}

# Of several who find the same dead owner, one removes its lock; a lock taken since then stays.
break_link() {
  mkdir "$1.break" 2>/dev/null || return 0
  [[ $(readlink "$1") != "$2" ]] || rm -f "$1"
  rmdir "$1.break"
}

install() {
  local extra=$1 target=. version log=$environment/.$package.log
  up_to_date "$extra" && return # done by another process while this one waited
  python_version "$python" >/dev/null || make_environment
  version=$(python_version "$python")
  supported "$version" ||
    die "needs Python 3.11 or newer, found $version in $environment: deactivate or remove that environment"
  announce "$extra"
  rm -f "$stamp".*
  [[ $extra == base ]] || target=".[$extra]"
  cd "$repo" || die "cannot enter $repo"
  # Environments made by uv or without Debian's python3-venv have no pip.
  "$python" -P -m pip --version >/dev/null 2>&1 || "$python" -P -m ensurepip --default-pip >"$log" 2>&1 ||
    fail "$log" "no pip for $python: on Debian and Ubuntu apt install python3-venv, then try again"
  "$python" -P -m pip install --no-input --disable-pip-version-check -e "$target" 2>&1 | tee "$log" | show_last_line ||
    fail "$log" "pip failed, its whole output is in $log; run the same command again to go on"
  write_stamp base
  [[ $extra == base ]] || write_stamp "$extra"
}

make_environment() {
  local found=none candidate version
  for candidate in python3 python3.15 python3.14 python3.13 python3.12 python3.11 python; do
    version=$(python_version "$candidate") || continue
    if supported "$version"; then
      # What an interrupted or outdated set-up left is in the way; the lock must stay.
      find "$environment" -mindepth 1 -maxdepth 1 ! -name ".$package.lock*" -exec rm -rf {} +
      "$candidate" -P -m venv --without-pip "$environment" >"$log" 2>&1 || fail "$log" "$candidate could not make $environment"
      return
    fi
    found="$version ($candidate)"
  done
  die "needs Python 3.11 or newer on the PATH or in an active environment, found $found"
}

announce() {
  if up_to_date base; then
    say "installing what the tests need (pyproject.toml, extra \"$1\") into $environment"
  elif [[ -f $stamp.base ]]; then
    say "updating $environment: pyproject.toml, the Python version or the place of this repository has changed"
  else
    say "first use: installing what is missing of torch, lightning, hydra, wandb, ... into $environment"
    say "(up to 5.6 GB with the CUDA libraries that torch brings on Linux, a few minutes)"
  fi
}

# Progress for a person at a terminal: the newest line of stdin, in place.
show_last_line() {
  local line
  while IFS= read -r line; do
    [[ ! -t 2 ]] || printf '\r\033[K%.78s' "$line" >&2
  done
  [[ ! -t 2 ]] || printf '\r\033[K' >&2
}

fail() {
  tail -n 15 "$1" >&2
  die "$2"
}

write_stamp() {
  description >"$stamp.$1.new" && mv "$stamp.$1.new" "$stamp.$1"
}
