#!/bin/sh
# SPDX-License-Identifier: GPL-2.0
#
# The programs that try what is done in a region, once more, with every region
# far from where the tests have it, and attached in part: whatever they do they
# do at translated addresses.  See mshare_elsewhere() in mshare_test.h.

export MSHARE_TEST_ELSEWHERE=1

cd "$(dirname "$0")" || exit 1
programs="mshare_mm mshare_calls mshare_numa mshare_tlb"
n=0
failed=0

echo "TAP version 13"
echo "1..$(echo "$programs" | wc -w)"
for prog in ${*:-$programs}; do
	n=$((n + 1))
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
