#!/bin/sh
# SPDX-License-Identifier: GPL-2.0
#
# The programs that try what is done in a region, once more, with every region
# far from where the tests have it, and attached in part: whatever they do they
# do at translated addresses.  See mshare_elsewhere() in mshare_test.h.

export MSHARE_TEST_ELSEWHERE=1
# What races has done so for long where the region is at its own address.
export MSHARE_TEST_SCALE="${MSHARE_TEST_SCALE:-0.3}"

cd "$(dirname "$0")" || exit 1
only=
if [ $# -eq 0 ]; then
	set -- mshare_mm mshare_calls mshare_numa mshare_tlb mshare_gup mshare_futex \
		mshare_hmm mshare_hwpoison mshare_kvm
	# Where everything takes several times as long, what races is tried.
	[ ! -e /proc/lockdep ] || only=" mshare_tlb mshare_hwpoison "
fi
n=0
failed=0

echo "TAP version 13"
echo "1..$#"
for prog; do
	n=$((n + 1))
	case $only in
	'' | *" $prog "*) ;;
	*)
		echo "ok $n $prog # SKIP takes minutes on a debugging kernel"
		continue
		;;
	esac
	./"$prog" | sed 's/^/# /' > "/tmp/mshare-elsewhere-$$"
	if grep -q '^# # Totals: .* fail:0 ' "/tmp/mshare-elsewhere-$$"; then
		grep '^# # Totals' "/tmp/mshare-elsewhere-$$"
		echo "ok $n $prog"
	else
		cat "/tmp/mshare-elsewhere-$$"
		echo "not ok $n $prog"
		failed=1
	fi
	rm -f "/tmp/mshare-elsewhere-$$"
done
exit $failed
