# shellcheck shell=bash
# SPDX-License-Identifier: GPL-2.0
#
# What the scripts here share. Sourced, never run.
set -euo pipefail

top=$(cd -- "$(dirname -- "${BASH_SOURCE[0]}")/.." && pwd -P)
build=$top/build
me=${0##*/}

export LC_ALL=C
# Neither what make passes down nor what the caller uses for other kernels may
# leak into a kernel build, nor a personal git configuration into the patches.
unset MAKEFLAGS MFLAGS MAKELEVEL MAKEOVERRIDES GNUMAKEFLAGS CDPATH \
      ARCH SRCARCH CROSS_COMPILE O V W C M KBUILD_OUTPUT KBUILD_EXTMOD \
      KCONFIG_CONFIG KCONFIG_ALLCONFIG LLVM INSTALL_PATH GREP_OPTIONS
unset "${!GIT_@}"
export GIT_CONFIG_GLOBAL=/dev/null GIT_CONFIG_NOSYSTEM=1 GIT_TERMINAL_PROMPT=0

say()  { printf '%s: %s\n' "$me" "$*" >&2; }
die()  {
	say "$*"
	# In a subshell: the script itself learns that there was a message.
	if [ "$BASHPID" = $$ ]; then said=1; else kill -USR1 $$; fi
	exit 1
}
said=
trap 'said=1' USR1
need() { command -v "$1" >/dev/null 2>&1 || die "$1 is missing: run make setup"; }

# The cleanup of a script: functions and files that must not outlive it.
temporary=()
child='' others=()
at_exit() {
	local status=$? pid
	trap '' INT TERM HUP
	for pid in $child "${others[@]}"; do
		# One of the others that has ended may have left its number to somebody.
		[ "$pid" = "$child" ] ||
			grep -q "^PPid:[[:space:]]*$$\$" "/proc/$pid/status" 2>/dev/null || continue
		kill -TERM -- "-$pid" 2>/dev/null || :
		wait "$pid" 2>/dev/null || :
	done
	if [ ${#temporary[@]} -gt 0 ]; then
		rm -rf -- "${temporary[@]}"
	fi
	case $status/$said in
	0/* | 129/* | 130/* | 143/* | */1) ;;
	*) say "failed unexpectedly (status $status) at: ${1:0:60}" ;;
	esac
	exit "$status"
}
trap 'at_exit "$BASH_COMMAND"' EXIT
trap 'exit 130' INT
trap 'exit 143' TERM
trap 'exit 129' HUP

# step COMMAND...: a command that says itself what is wrong, when something is.
step() { "$@" || { said=1; exit 1; }; }

# run COMMAND...: run a long command so that a signal to this script alone
# ends it too. It gets a process group of its own, hence no terminal to read.
run() {
	local status=0
	set -m
	"$@" </dev/null 8>&- 9>&- &
	child=$!
	set +m
	wait "$child" || status=$?
	child=
	return "$status"
}

# beside COMMAND...: start a command that ends with this script, or before.
beside() {
	set -m
	"$@" </dev/null 8>&- 9>&- &
	others+=("$!")
	set +m
}

# run_slowly WHAT LOG COUNTED COMMAND...: the same with all output in LOG and a line
# now and then: how many lines of LOG match COUNTED, how long it has taken.
run_slowly() {
	local what=$1 log=$2 counted=$3 status=0 begin=$SECONDS last=$SECONDS
	shift 3
	set -m
	"$@" </dev/null >"$log" 2>&1 8>&- 9>&- &
	child=$!
	set +m
	while kill -0 "$child" 2>/dev/null; do
		read -r -t 0.2 <&"$nothing" || :
		if [ $((SECONDS - last)) -ge 20 ]; then
			last=$SECONDS
			say "$what: $(grep -cE -- "$counted" "$log" || :) done, $(duration $((last - begin)))"
		fi
	done
	wait "$child" || status=$?
	child=
	return "$status"
}
# Something to read from that never says anything: a sleep without a process.
exec {nothing}<> <(:)

duration() { printf '%d:%02d min' $(($1 / 60)) $(($1 % 60)); }

# room DIR MIB WHAT: stop unless the file system of DIR has MIB left.
room() {
	local dir=$1 free
	while [ ! -d "$dir" ]; do dir=$(dirname -- "$dir"); done
	free=$(($(df --output=avail -k -- "$dir" | tail -n 1) / 1024))
	[ "$free" -ge "$2" ] ||
		die "$3 needs $2 MiB of disk, the file system of $dir has $free MiB left"
}

# size DIR: MiB that DIR takes now, 0 without it.
size() {
	if [ -d "$1" ]; then du -sm -- "$1" | cut -f 1; else echo 0; fi
}

# lock NAME: one at a time per build folder.
lock() {
	mkdir -p -- "$build" 2>/dev/null || die "cannot write to $build"
	{ : >>"$build/.lock-$1"; } 2>/dev/null || die "cannot write to $build"
	exec 9>>"$build/.lock-$1"
	flock -n 9 && return
	say "waiting for another run that works on build/$1"
	flock 9
}
