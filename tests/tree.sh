#!/bin/bash
# Tests scripts/tree and scripts/refresh on a kernel of a few lines. Prints TAP.
set -uo pipefail

root=$(cd -- "$(dirname -- "$0")/.." && pwd -P)
export LC_ALL=C GIT_CONFIG_GLOBAL=/dev/null GIT_CONFIG_NOSYSTEM=1
export GIT_AUTHOR_NAME=Tester GIT_AUTHOR_EMAIL=tester@localhost
export GIT_COMMITTER_NAME=Tester GIT_COMMITTER_EMAIL=tester@localhost
unset FORCE LINUX_ARCHIVE
dir=$(mktemp -d)
trap 'rm -rf -- "$dir"' EXIT
trap 'exit 130' INT TERM HUP

count=0 failures=0
check() { # NAME COMMAND...
	local name=$1
	shift
	count=$((count + 1))
	if "$@"; then
		echo "ok $count $name"
	else
		echo "not ok $count $name"
		failures=$((failures + 1))
		sed 's/^/# /' "$dir/err"
	fi
}
# The command must work, or fail, and stderr must match a pattern; the last line of it
# when it fails, and nobody but the script itself may have written there.
works() { local p=$1; shift; "$@" >"$dir/out" 2>"$dir/err" && { [ -z "$p" ] || grep -qE -- "$p" "$dir/err"; }; }
fails() {
	local p=$1
	shift
	! "$@" >"$dir/out" 2>"$dir/err" || return
	! grep -qvE '^(tree|refresh|clean): ' "$dir/err" && tail -n 1 "$dir/err" | grep -qE -- "$p"
}
repo_clean() { [ -z "$(git -C "$repo" status --porcelain 2>&1 | tee "$dir/err")" ]; }
tree_clean() { [ -z "$(git -C "$linux" status --porcelain 2>&1 | tee "$dir/err")" ]; }
nothing_left() { ! compgen -G "$repo/build/.scratch*" >"$dir/err"; }
is() { echo "is '$1', not '$2'" >"$dir/err"; [ "$1" = "$2" ]; }
left() { find "$repo/build" -mindepth 1 -maxdepth 1 ! -name '.lock*'; }
subjects() { git -C "$linux" log --reverse --format=%s base..HEAD; }

# archive FILE SUBLEVEL: a kernel
archive() {
	local k=$dir/k/linux-6.12.$2
	rm -rf -- "$dir/k"
	mkdir -p -- "$k"/{mm,fs,include/linux,arch/x86/entry/syscalls,scripts,tools/testing/selftests}
	printf 'VERSION = 6\nPATCHLEVEL = 12\nSUBLEVEL = %s\nEXTRAVERSION =\nall:\n' "$2" >"$k/Makefile"
	printf 'source mm\n' >"$k/Kconfig"
	printf '%s\n' '.*' '*.o' '*.patch' '!.gitignore' '' '#' \
		"# Debian packaging: ignore everything at the top level, since it isn't" \
		'# included in our repository' '#' '/*' '!/debian/' >"$k/.gitignore"
	printf '*.c diff=cpp\n' >"$k/.gitattributes"
	{ printf 'int f(int a)\n{\nlabel:\n'; seq 1 60; } >"$k/mm/memory.c"
	seq 1 60 >"$k/mm/mmap.c"
	seq 1 9 >"$k/MAINTAINERS"
	seq 1 9 >"$k/arch/x86/entry/syscalls/syscall_64.tbl"
	printf 'old\n' >"$k/fs/gone.c"
	printf 'cr\r\nlf\r\n' >"$k/fs/dos.c"
	[ "$2" = 117 ] || sed -i 's/^30$/thirty/' "$k/mm/memory.c"
	tar -cJf "$1" -C "$dir/k" "linux-6.12.$2"
}
archive "$dir/a117.tar.xz" 117
archive "$dir/a120.tar.xz" 120
export LINUX_ARCHIVE=$dir/a117.tar.xz

repo=$dir/repo linux=$dir/repo/build/linux
mkdir -p "$repo"/{scripts,patches,mm}
cp "$root"/scripts/{lib.sh,series.sh,tree,refresh,clean} "$repo/scripts/"
cp "$root/.gitignore" "$repo/"
: >"$repo/patches/series"
printf 'kernel 6.12.117\nsource test\n' >"$repo/patches/base"
echo 'new' >"$repo/mm/mshare.c"
echo 'config' >"$repo/Kconfig.mshare"
echo 'what make left' >"$repo/mm/mshare.c~"
git -C "$repo" init -q
git -C "$repo" add -A
git -C "$repo" commit -qm start

commit() { git -C "$linux" add -A && git -C "$linux" commit -q "$@"; }
edit() { sed -i "s/^$2\$/$3/" "$linux/$1"; }

check "tree on an empty series" works '1 commits on' "$repo/scripts/tree"
check "nothing is left over" nothing_left
check "the tree is clean" tree_clean
check "backup files are no kernel files" is "$(git -C "$linux" show --format= --name-only HEAD | xargs)" "Kconfig.mshare mm/mshare.c"
check "files that are shipped though ignored are in the base" is \
	"$(git -C "$linux" ls-tree --name-only base .gitignore)" .gitignore
check "a new file at the top is not ignored" is "$(touch "$linux/x"; git -C "$linux" status --porcelain; rm "$linux/x")" "?? x"
check "tree again does nothing" works 'up to date' "$repo/scripts/tree"
check "refresh after tree" works 'files written: 1,' "$repo/scripts/refresh"
sed -i 's/^source .*/source a117.tar.xz/' "$repo/patches/base"
git -C "$repo" commit -qam base
check "refresh again" works 'files written: 0, removed: 0' "$repo/scripts/refresh"
check "refresh left the repository clean" repo_clean

# Commits of all kinds
edit mm/memory.c 10 ten
edit mm/mmap.c 10 ten
echo more >>"$linux/mm/mshare.c"
mkdir -p "$linux/fs/msharefs" "$linux/tools/testing/selftests/mshare"
echo inode >"$linux/fs/msharefs/inode.c"
printf 'prog\n' >"$linux/tools/testing/selftests/mshare/.gitignore"
printf '#!/bin/sh\n' >"$linux/tools/testing/selftests/mshare/run.sh"
chmod +x "$linux/tools/testing/selftests/mshare/run.sh"
commit -m "mm: touch both kinds of files" -m "A reason
over lines." -m "Signed-off-by: Tester <tester@localhost>"
edit MAINTAINERS 5 five
commit --author 'Jörg Müller <joerg@localhost>' --date '2001-02-03T04:05:06+0700' -m 'MAINTAINERS: Jörg'
edit arch/x86/entry/syscalls/syscall_64.tbl 9 nine
commit -m 'x86: numbers'
edit mm/memory.c 11 eleven
commit -m '[brackets] and: (parentheses) [PATCHES]'
edit mm/memory.c 12 twelve
commit -m "mm: $(printf 'a very long subject %.0s' 1 2 3 4 5 6 7 8 9 10)end"
git -C "$linux" rm -q fs/gone.c
git -C "$linux" mv mm/mmap.c mm/remapped.c
commit -m 'mm: remove and rename'
sed -i 's/lf/LF/' "$linux/fs/dos.c"
commit -m 'fs: carriage returns and  two   spaces' -m '  indented


From here on
>From there on'
edit MAINTAINERS 6 six
commit -m 'MAINTAINERS: Jörg'
chmod +x "$linux/Kconfig"
commit -m 'Kconfig: mode'
echo only >"$linux/mm/new_only.c"
commit -m 'mm: a new file alone'
git -C "$linux" commit -q --allow-empty -m 'nothing at all'
head=$(git -C "$linux" rev-parse 'HEAD^{tree}')
want='mm: touch both kinds of files
MAINTAINERS: Jörg
x86: numbers
[brackets] and: (parentheses) [PATCHES]
mm: a very long subject a very long subject a very long subject a very long subject a very long subject a very long subject a very long subject a very long subject a very long subject a very long subject end
mm: remove and rename
fs: carriage returns and two spaces
MAINTAINERS: Jörg
Kconfig: mode'

check "tree leaves commits alone" works 'commits that are not in the repository' "$repo/scripts/tree"
echo changed >>"$repo/Kconfig.mshare"
check "tree refuses to drop commits" fails 'commits that are not in the repository: run make refresh' "$repo/scripts/tree"
check "a build takes them as they are" works 'taking it as it is' "$repo/scripts/tree" --auto
git -C "$repo" checkout -q Kconfig.mshare
check "refresh" works 'patches in the series: 9' "$repo/scripts/refresh"
check "nothing is left over by refresh" nothing_left
check "names of the patches" is "$(tr '\n' ' ' <"$repo/patches/series")" \
	'mm-touch-both-kinds-of-files.patch ../MAINTAINERS.patch ../arch/x86/entry/syscalls/syscall_64.tbl.patch brackets-and-parentheses-patches.patch mm-a-very-long-subject-a-very-long-subject-a-very-long-subject.patch mm-remove-and-rename.patch fs-carriage-returns-and-two-spaces.patch maintainers-j-rg.patch kconfig-mode.patch '
check "new files are copied" is "$(cd "$repo" && echo Kconfig* mm/* fs/*/*)" \
	"Kconfig.mshare mm/mshare.c mm/mshare.c~ mm/new_only.c mm/remapped.c fs/msharefs/inode.c"
check "modes are kept" test -x "$repo/tools/testing/selftests/mshare/run.sh"
check "the reason is in the patch" grep -q '^over lines\.$' "$repo/patches/mm-touch-both-kinds-of-files.patch"
git -C "$repo" add -A
git -C "$repo" commit -qm 'first refresh'
check "tree after refresh does nothing" works 'up to date' "$repo/scripts/tree"
rm -rf "$linux"
check "tree from nothing" works '10 commits' "$repo/scripts/tree"
check "the same tree" is "$(git -C "$linux" rev-parse 'HEAD^{tree}')" "$head"
check "the same subjects in order" is "$(subjects | tail -n +2)" "$want"
check "author and date survive" is "$(git -C "$linux" log --format='%an <%ae> %ad' --grep 'MAINTAINERS: J' | tail -n 1)" \
	'Jörg Müller <joerg@localhost> Sat Feb 3 04:05:06 2001 +0700'
first=$(git -C "$linux" rev-parse HEAD)
check "refresh changes nothing" works 'files written: 0, removed: 0' "$repo/scripts/refresh"
check "the repository is clean" repo_clean
rm -rf "$linux"
TZ=Asia/Tokyo works . "$repo/scripts/tree"
check "commits are the same every time" is "$(git -C "$linux" rev-parse HEAD)" "$first"

# A tree is laid anew around what did not change.
touch -d 2001-01-01 "$linux/mm/memory.c" "$linux/mm/mshare.c" "$linux/Makefile"
echo 'changed' >>"$repo/mm/mshare.c"
check "tree follows a file" works 'laid anew' "$repo/scripts/tree"
check "it took the file" is "$(tail -n 1 "$linux/mm/mshare.c")" changed
check "it left other files' times alone" is "$(stat -c %y "$linux/mm/memory.c" "$linux/Makefile" | grep -c ^2001)" 2
check "the tree is clean then" tree_clean
sed -i 's/^+nine$/+NINE/' "$repo/arch/x86/entry/syscalls/syscall_64.tbl.patch"
check "tree follows a patch" works 'laid anew' "$repo/scripts/tree"
check "it took the patch" grep -q NINE "$linux/arch/x86/entry/syscalls/syscall_64.tbl"
check "refresh makes the patch canonical" works 'files written: [1-9]' "$repo/scripts/refresh"
git -C "$repo" commit -qam 'by hand'

# Work on both sides
echo here >"$repo/mm/here.c"
echo there >"$linux/mm/there.c"
rm "$linux/mm/new_only.c"
check "refresh refuses what is not committed" fails 'uncommitted changes \(mm/new_only.c and 1 more' "$repo/scripts/refresh"
check "tree refuses to overwrite it" fails 'uncommitted changes .*make refresh' "$repo/scripts/tree"
commit -m 'mm: there'
check "refresh keeps what is new here" works 'kept what changed here only \(mm/here.c\)' "$repo/scripts/refresh"
check "here and there" is "$(cd "$repo/mm" && echo ./*.c)" './here.c ./mshare.c ./remapped.c ./there.c'
check "then tree brings it over" works 'laid anew' "$repo/scripts/tree"
check "here is there" test -e "$linux/mm/here.c"
echo A >>"$repo/mm/here.c"
echo B >>"$linux/mm/here.c"
commit -m 'mm: there B'
check "a conflict is not guessed" fails 'mm/here.c changed here and in build/linux' "$repo/scripts/refresh"
check "unless forced" works 'files written: 1, ' env FORCE=1 "$repo/scripts/refresh"
check "to that of the tree" is "$(tail -n 1 "$repo/mm/here.c")" B
edit mm/memory.c 50 fifty
commit -m 'mm: fifty'
sed -i 's/^over lines/over many lines/' "$repo/patches/mm-touch-both-kinds-of-files.patch"
check "neither are patches" fails 'patches/ changed here and in build/linux' "$repo/scripts/refresh"
git -C "$repo" checkout -q patches
check "nor merges taken" fails 'a merge cannot become a patch' bash -c "
	git -C '$linux' checkout -q -b side HEAD~1 && git -C '$linux' commit -q --allow-empty -m side &&
	git -C '$linux' checkout -q mshare && git -C '$linux' merge -q -m merge side && '$repo/scripts/refresh'"
git -C "$linux" reset -q --hard HEAD~1
check "refresh then works" works 'patches in the series: 10' "$repo/scripts/refresh"
git -C "$repo" add -A
git -C "$repo" commit -qm more
echo 'work' >>"$linux/mm/memory.c"
echo 'untracked' >"$linux/mm/untracked.c"
echo 'changed' >>"$repo/mm/mshare.c"
check "FORCE drops work" works 'kept there as branch saved/' env FORCE=1 "$repo/scripts/tree"
check "the tree is clean again" tree_clean
check "and the work is on a branch" is \
	"$(git -C "$linux" log -1 --format= --name-only --branches='saved/*' | xargs)" 'mm/memory.c mm/untracked.c'
git -C "$repo" commit -qam changed
commit --allow-empty -m 'a commit to drop'
check "FORCE drops commits when nothing changed here" works 'kept there as branch' env FORCE=1 "$repo/scripts/tree"
check "they are gone" is "$(subjects | grep -c drop)" 0
touch "$linux/scripts/mine"
commit -m 'scripts: mine'
check "a file with no place here" fails 'scripts/mine, which has no place here' "$repo/scripts/refresh"
git -C "$linux" reset -q --hard HEAD~1
echo x >>"$linux/MAINTAINERS"
commit -m 'mm: cut' -m 'above
---
below'
check "a message that would be cut" fails "would not survive make tree" "$repo/scripts/refresh"
git -C "$linux" reset -q --hard HEAD~1
check "clean keeps the tree" works '' "$repo/scripts/clean"
check "it is there" test -e "$linux"
commit --allow-empty -m 'work'
check "distclean keeps work" fails 'commits that are not in the repository' "$repo/scripts/clean" --all
git -C "$linux" reset -q --hard HEAD~1
check "the repository is clean at the end" repo_clean

# A tree made by hand
rm -rf "$linux"
mkdir "$linux"
tar -xJf "$LINUX_ARCHIVE" --strip-components=1 -C "$linux"
sed -i '/^#$/,$d' "$linux/.gitignore"
git -C "$linux" init -q -b mshare
git -C "$linux" add -A -f
git -C "$linux" commit -qm "Linux 6.12.117 as in by hand"
git -C "$linux" tag base
edit mm/memory.c 20 twenty
cp "$repo/Kconfig.mshare" "$linux/"
echo hand >"$linux/mm/hand.c"
commit -m 'mm: by hand'
check "a tree without a record and other patches" fails 'patches/ changed here' "$repo/scripts/refresh"
git -C "$repo" rm -q --cached -r patches mm fs tools arch MAINTAINERS.patch
rm -rf "$repo"/{patches,mm,fs,tools,arch,MAINTAINERS.patch}
mkdir "$repo/patches"
: >"$repo/patches/series"
printf 'kernel 6.12.117\nsource test\n' >"$repo/patches/base"
check "a tree made by hand is adopted" works 'patches in the series: 1' "$repo/scripts/refresh"
check "its files come" is "$(cd "$repo" && echo Kconfig* mm/* patches/*)" 'Kconfig.mshare mm/hand.c patches/base patches/mm-by-hand.patch patches/series'
check "what it was made of is recorded" is "$(xargs <"$repo/patches/base")" 'kernel 6.12.117 source by hand'
check "and tree is content" works 'up to date' "$repo/scripts/tree"

# Other versions, and what can be wrong
edit mm/memory.c 30 dreissig
commit -m 'mm: the line that 6.12.120 changed'
works . "$repo/scripts/refresh"
mv "$linux" "$dir/kept"
export LINUX_ARCHIVE=$dir/a120.tar.xz
check "another version, a patch that does not apply" bash -c "
	! '$repo/scripts/tree' 2>'$dir/err' && grep -q 'found Linux 6.12.120, the patches were made against 6.12.117' '$dir/err' &&
	tail -n 1 '$dir/err' | grep -q '^tree: patches/mm-the-line-that-6.12.120-changed.patch does not apply to Linux 6.12.120, the series was made against 6.12.117: it fails at mm/memory.c:'"
check "leaves no tree" is "$(left)" ''
sed -i '/that-6.12.120/d' "$repo/patches/series"
check "another version, all patches apply" works '2 commits on Linux 6.12.120' "$repo/scripts/tree"
rm -rf "$linux"
mkdir -p "$repo/fs"
echo x >"$repo/fs/dos.c"
check "a new file that the kernel has" fails 'fs/dos.c is a new file here, but Linux 6.12.120 has one too' "$repo/scripts/tree"
rm -r "$repo/fs"
echo 'missing.patch' >>"$repo/patches/series"
check "a patch that is missing" fails 'there is no patches/missing.patch' "$repo/scripts/tree"
echo 'hello' >"$repo/patches/missing.patch"
check "a patch that is none" fails 'missing.patch does not apply .*: it is no patch in mail format' "$repo/scripts/tree"
sed -i '/missing/d' "$repo/patches/series"
check "no archive" fails 'no kernel source at /nowhere: run make setup' env LINUX_ARCHIVE=/nowhere "$repo/scripts/tree"
echo 'none' >"$dir/none.tar.xz"
check "an archive that is none" fails 'cannot unpack' env LINUX_ARCHIVE="$dir/none.tar.xz" "$repo/scripts/tree"
check "refresh without a tree" fails 'there is no build/linux: run make tree' "$repo/scripts/refresh"
mkdir "$linux"
check "something else in its place" fails 'not a git tree with a tag' "$repo/scripts/tree"
rmdir "$linux"

# A signal in the middle
mkdir "$dir/bin"
printf '#!/bin/sh\ntouch "%s/started"\nsleep 4321.%d\n' "$dir" $$ >"$dir/bin/tar"
chmod +x "$dir/bin/tar"
for signal in INT TERM; do
	rm -f "$dir/started"
	PATH=$dir/bin:$PATH env --default-signal=INT "$repo/scripts/tree" >/dev/null 2>&1 &
	pid=$!
	until [ -e "$dir/started" ]; do sleep 0.1; done
	kill -s "$signal" "$pid"
	wait "$pid"
	check "SIG$signal ends it" is $? $((128 + $(kill -l $signal)))
	check "nothing is left after SIG$signal" is "$(left)$(pgrep -f "^sleep 4321.$$")" ''
done

echo "1..$count"
[ "$failures" -eq 0 ]
