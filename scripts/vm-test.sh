#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
#
# Tests of scripts/vm itself, in some three minutes:
#	scripts/vm-test.sh [OPTION of scripts/vm]...
# Prints one line per test (TAP); the exit status says whether all passed.
# shellcheck disable=SC2016	# what is in single quotes is for the guest's shell
set -uo pipefail

vm=$(dirname "$(readlink -f "$0")")/vm
opts=("$@")
n=0
failures=0
tmp=$(mktemp -d)
mkdir "$tmp.stuck"
trap 'rm -rf "$tmp" "$tmp.stuck"' EXIT

# Run with the options, keeping stdout, stderr and status
run() {
	"$vm" --log "$tmp/log" "${opts[@]}" "$@" >"$tmp/out" 2>"$tmp/err"
	status=$?
}

result() { # PASSED NAME
	n=$((n + 1))
	if (($1)); then
		echo "ok $n $2"
	else
		echo "not ok $n $2"
		echo "# status $status"
		sed 's/^/# stderr: /' "$tmp/err" | head -20
		failures=$((failures + 1))
	fi
}

# The last run's status, and what its stdout and stderr must match
expect() { # NAME STATUS OUT-REGEX ERR-REGEX
	local out err
	out=$(tr -d '\0' <"$tmp/out")
	err=$(<"$tmp/err")
	result $((status == $2)) "$1: status $2"
	[[ $out =~ $3 ]]
	result $((!$?)) "$1: stdout"
	[[ $err =~ $4 ]]
	result $((!$?)) "$1: stderr"
}

# Processes that the run left behind, of those that have our log open
left() {
	local process comm
	for process in /proc/[0-9]*; do
		{ read -r comm <"$process/comm"; } 2>/dev/null || continue
		[[ $comm == qemu-system* ]] || continue
		find "$process/fd" -lname "$tmp/*" 2>/dev/null | grep . && return 0
	done
	return 1
}

none_left() { # NAME
	local i
	for i in {1..30}; do
		left >/dev/null || break
		sleep 0.1
	done
	result $((i < 30)) "$1: no guest is left"
}

one_line='^scripts/vm: [^'$'\n'']*$'

bad() { # NAME ARG...
	local name=$1
	shift
	"$vm" "$@" >"$tmp/out" 2>"$tmp/err"
	status=$?
	expect "$name" 125 '^$' "$one_line"
}

# Options
bad "no command" --
bad "nothing at all"
bad "unknown option" --frobnicate -- true
bad "option without its value" --cpus
bad "unknown configuration" --config slow -- true
bad "no processors" --cpus 0 -- true
bad "odd memory size" --mem lots -- true
bad "unknown accelerator" --accel warp -- true
bad "two processors under icount" --accel icount --cpus 2 -- true
bad "odd timeout" --timeout soon -- true
bad "writable directory that is not there" --rw "$tmp/none" -- true
bad "writable root" --rw / -- true
bad "writable /proc" --rw /proc -- true
bad "kernel that is not there" --kernel "$tmp/none" -- true
bad "log that cannot be written" "${opts[@]}" --log /proc/none/log -- true
mkdir "$tmp/bin"
for tool in bash dirname readlink grep; do
	ln -s "$(type -P $tool)" "$tmp/bin/$tool"
done
PATH=$tmp/bin "$vm" "${opts[@]}" -- true >"$tmp/out" 2>"$tmp/err"
status=$?
expect "no QEMU" 125 '^$' "$one_line"
"$vm" --help >"$tmp/out" 2>"$tmp/err"
status=$?
expect "help" 0 'usage: scripts/vm' '^$'

# The command's streams, status, arguments, directory and environment
run -- sh -c 'echo out; echo err >&2; exit 3'
expect "streams" 3 '^out$' '^err$'
run -- sh -c 'kill -TERM $$'
expect "death by a signal" 143 '^$' '^$'
run -- no-such-command
expect "command not found" 127 '^$' 'no-such-command: not found'
run -- /etc/passwd
expect "command not executable" 126 '^$' 'Permission denied'

args=('' 'a b' "q'\"\\" $'two\nlines' 'ü€' '$HOME *' -- --x "$(printf 'x%.0s' {1..100000})")
printf '%s\0' "${args[@]}" >"$tmp/want"
run -- printf '%s\0' "${args[@]}"
cmp -s "$tmp/out" "$tmp/want"
result $((!$?)) "arguments arrive as they are"

head -c 20000000 /dev/urandom >"$tmp/random"
run -- cat "$tmp/random"
cmp -s "$tmp/out" "$tmp/random"
result $((!$?)) "binary output"
# A reader that is slow at the end; the guest must not go down before it
"$vm" --log "$tmp/log" "${opts[@]}" -- head -c 5000000 "$tmp/random" |
	{ sleep 15; cat; } >"$tmp/out"
cmp -s "$tmp/out" <(head -c 5000000 "$tmp/random")
result $((!$?)) "slow reader"

mkdir -p "$tmp/dir with, comma"
cd "$tmp/dir with, comma" || exit
MSHARE_X='a b' OTHER=1 run -- sh -c 'pwd; echo "$MSHARE_X,$OTHER,$HOME"; umask; wc -c; id -u; test -t 1 || echo pipe; echo again >/dev/stdout'
expect "surroundings" 0 "dir with, comma"$'\n'"a b,,$HOME"$'\n'"$(umask)"$'\n'"0"$'\n'"0"$'\n'"pipe"$'\n'"again" '^$'
mkdir -p "/run/vm-test.$$"
cd "/run/vm-test.$$" || exit
echo here >file
run -- cat file
expect "directory under /run" 0 '^here$' '^$'
cd /dev/shm || exit
run -- sh -c 'pwd; df --output=fstype . | tail -1'
expect "directory /dev/shm" 0 $'^/dev/shm\ntmpfs$' '^$'
cd "$tmp" || exit
rm -r "/run/vm-test.$$"

run -- sh -c 'cat /proc/mounts; cat /sys/class/net/lo/flags; ls /dev/pts/ptmx /sys/fs/cgroup/cgroup.procs'
expect "mounts" 0 'devtmpfs /dev .*devpts /dev/pts .*tmpfs /dev/shm .*tmpfs /run .*cgroup2 /sys/fs/cgroup .*debugfs /sys/kernel/debug .*0x9' '^$'
run -- bash -c 'sleep 1000 & disown; (setsid sleep 1000 &); echo done'
expect "processes left behind" 0 '^done$' '^$'

# The host's files
echo old >"$tmp/file"
run -- sh -c "echo new >'$tmp/file'; cat '$tmp/file'; rm -r '$tmp/dir with, comma'; mkdir /some-dir; mv /etc /etc2; ls -d /etc2"
expect "the guest can change all files" 0 $'^new\n/etc2$' '^$'
[[ $(<"$tmp/file") == old && -d "$tmp/dir with, comma" && ! -e /some-dir && -d /etc ]]
result $((!$?)) "the host's files stay as they are"

mkdir -p "$tmp/rw, 1/sub" "$tmp/rw2" "/run/vm-rw.$$"
run --rw "$tmp/rw, 1" --rw "$tmp/rw, 1/sub" --rw "$tmp/rw2" --rw "/run/vm-rw.$$" -- sh -c "
	cp '$tmp/random' '$tmp/rw, 1/random' && echo 1 >'$tmp/rw, 1/sub/f' && echo 2 >'$tmp/rw2/f' &&
	cp /bin/echo /run/vm-rw.$$/ && /run/vm-rw.$$/echo ran && chown 12:34 '$tmp/rw2/f'"
expect "writable directories" 0 '^ran$' '^$'
cmp -s "$tmp/rw, 1/random" "$tmp/random" && [[ $(cat "$tmp/rw, 1/sub/f" "$tmp/rw2/f" | tr -d '\n') == 12 ]]
result $((!$?)) "writable directories: the writes are there"
rm -r "/run/vm-rw.$$"

# Reports. The kernel's own log device imitates those that cannot be made.
report() { # NAME LINE
	run -- sh -c 'echo "$1" >/dev/kmsg' - "$2"
	expect "report of $1" 99 '^$' "reported a problem.*${2:0:12}.*log is in $tmp/log"
}
report "a warning" "WARNING: CPU: 0 PID: 1 at mm/x.c:1 f+0x1/0x2"
report "lockdep" "WARNING: possible circular locking dependency detected"
report "RCU" "WARNING: suspicious RCU usage"
report "a sleep" "BUG: sleeping function called from invalid context at mm/x.c:1"
report "KASAN" "BUG: KASAN: slab-use-after-free in f+0x1/0x2"
report "SLUB" "BUG kmalloc-64 (Not tainted): Right Redzone overwritten"
report "UBSAN" "UBSAN: shift-out-of-bounds in mm/x.c:1:1"
report "a soft lockup" "watchdog: BUG: soft lockup - CPU#1 stuck for 26s! [a:1]"
report "a stall" "rcu: INFO: rcu_preempt self-detected stall on CPU"
report "a hung task" "INFO: task a:1 blocked for more than 120 seconds."
report "a bad page" "BUG: Bad page state in process a  pfn:00001"
report "a counter" "BUG: Bad rss-counter state mm:(ptrval) type:MM_ANONPAGES val:1"
report "page tables" "BUG: non-zero pgtables_bytes on freeing mm: 4096"
report "a bad pmd" "mm/pgtable-generic.c:54: bad pmd 0000000000000000(0000000000000001)"
report "a leak" "kmemleak: 1 new suspected memory leaks (see /sys/kernel/debug/kmemleak)"
report "a reference count" "refcount_t: underflow; use-after-free."
report "an oops" "Oops: general protection fault, probably for non-canonical address"

run -- sh -c 'echo 512 >/proc/sys/kernel/tainted'
expect "taint without a report" 99 '^$' 'tainted .warning.*log is in'

run -- sh -c 'for l in "a.out[70]: segfault at 0 ip 0 sp 0 error 4 in a.out" \
	"traps: a.out[70] general protection fault ip:0 sp:0 error:0 in a.out" \
	"FAULT_INJECTION: forcing a failure." "name failslab, interval 1, probability 0" \
	"Call Trace:" " <TASK>" "RIP: 0033:0x7f0000000000" \
	"Out of memory: Killed process 70 (a.out) total-vm:1kB" \
	"a.out: page allocation failure: order:0, mode:0x0" \
	"a bug, a warning: nothing of the kernel" "# BUG: quoted by a test"; do
		echo "$l" >/dev/kmsg; done
	cat >/tmp/a.c <<E
int main(void) { *(volatile int *)0 = 1; }
E
	printf "int main(void) { *(volatile long *)0x4141414141414141 = 1; }" >/tmp/b.c
	gcc -o /tmp/a /tmp/a.c && gcc -o /tmp/b /tmp/b.c; /tmp/a; /tmp/b; echo done'
expect "what is no report" 0 '^done$' ''

# What was written just before may be on its way still.
run -- sh -c 'echo out; sleep 1; echo c >/proc/sysrq-trigger'
expect "crash" 99 '^out$' 'Kernel panic - not syncing: sysrq'
run -- sh -c 'kill -9 -1; reboot -f; sleep 100'
expect "reboot" 125 '^$' 'ended before COMMAND did'
run --append init_on_alloc=nonsense --append 'panic_on_warn=1 rdinit=/nowhere root=/dev/none' -- true
expect "no boot" 99 '^$' 'Kernel panic'

# The ends that come too soon
SECONDS=0
run --timeout 8 -- sh -c 'echo out; sleep 1000'
expect "timeout" 124 '^out$' 'no end after 8 seconds.*Run /init.*log is in'
result $((SECONDS < 15)) "timeout: soon"
none_left "timeout"
SECONDS=0
"$vm" --log "$tmp/log" "${opts[@]}" --timeout 8 -- yes 2>"$tmp/err" |
	{ sleep 12; cat >"$tmp/out"; }
status=${PIPESTATUS[0]}
result $((status == 124 || status == 141)) "timeout: output that nobody reads"
none_left "timeout: output that nobody reads"

# This one is given a minute; the others go on.
(
	SECONDS=0
	"$vm" "${opts[@]}" --log "$tmp.stuck/log" -- \
		sh -c 'echo "BUG: unable to handle page fault" >/dev/kmsg; sleep 1000' \
		>"$tmp.stuck/out" 2>"$tmp.stuck/err"
	status=$?
	echo "$SECONDS" >"$tmp.stuck/seconds"
	exit "$status"
) &
stuck=$!

for sig in INT TERM HUP KILL; do
	"$vm" --log "$tmp/log" "${opts[@]}" -- sleep 1000 2>"$tmp/err" &
	pid=$!
	for i in {1..100}; do
		left >/dev/null && break
		sleep 0.1
	done
	result $((i < 100)) "SIG$sig: there is a guest"
	sleep 4
	kill -$sig $pid
	wait $pid 2>/dev/null
	status=$?
	result $((status == 128 + $(kill -l $sig))) "SIG$sig"
	none_left "SIG$sig"
done
status=0
setsid "$vm" --log "$tmp/log" "${opts[@]}" -- sleep 1000 2>"$tmp/err" &
pid=$!
sleep 5
kill -INT -- -$pid
wait $pid
none_left "Ctrl-C"
"$vm" --log "$tmp/log" "${opts[@]}" -- yes 2>"$tmp/err" | head -1 >"$tmp/out"
status=${PIPESTATUS[0]}
expect "reader that goes away" 141 '^y$' ''
none_left "reader that goes away"

# Machines
run --cpus 3 --mem 3G --append numa=fake=2 -- sh -c 'nproc; ls -d /sys/devices/system/node/node*; awk "/MemTotal/ { print int(\$2 / 1000000) }" /proc/meminfo'
expect "processors, memory, nodes" 0 $'^3\n.*node0\n.*node1\n[23]$' '^$'
run --accel icount -- sh -c 'nproc; sleep 100; echo slept'
expect "icount" 0 $'^1\nslept$' '^$'
run --accel tcg --append no5lvl -- sh -c 'grep -ow -m1 pku /proc/cpuinfo; cat /proc/cmdline'
expect "emulation" 0 'pku.* no5lvl$' '^$'

pids=()
for i in 1 2 3; do
	"$vm" "${opts[@]}" --log "$tmp/log$i" -- sh -c "echo $i; exit $i" >"$tmp/out$i" 2>"$tmp/err" &
	pids+=($!)
done
for i in 1 2 3; do
	wait "${pids[i - 1]}"
	status=$?
	result $((status == i && $(<"$tmp/out$i") == i)) "one of three at a time"
done

wait "$stuck"
status=$?
cp "$tmp.stuck/out" "$tmp.stuck/err" "$tmp/"
expect "stuck after a report" 99 '^$' 'BUG: unable.*guest killed'
result $(($(<"$tmp.stuck/seconds") < 90)) "stuck after a report: soon"

echo "1..$n"
echo "# $failures failed"
exit $((failures != 0))
