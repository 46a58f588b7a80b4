# shellcheck shell=bash
# SPDX-License-Identifier: GPL-2.0
#
# The series and the tree made of it; for scripts/tree and scripts/refresh, which
# source it.
#
# The repository holds new kernel files at their in-tree paths and edits as patches.
# build/linux is a git tree: the kernel as it came (tag base), one commit with all
# new files, one commit for each patch. .git/mshare-laid in it records what it was laid
# of: the commit on top and a manifest of the repository's files.

# shellcheck source=scripts/lib.sh
. "${BASH_SOURCE[0]%/*}/lib.sh"

tree=$build/linux
# shellcheck disable=SC2034 # used by the scripts that source this
state=$tree/.git/mshare-laid

# Where new kernel files stand in the repository: folders of the kernel, and
# Kconfig files beside them. The kernel's scripts/ is not among them, the
# repository has one of its own.
kernel_folders=(arch block certs crypto Documentation drivers fs include init
	io_uring ipc kernel lib mm net rust samples security sound tools usr virt)
# shellcheck disable=SC2034
kernel_file="^(($(IFS='|' && printf '%s' "${kernel_folders[*]}"))/.*|Kconfig\\.[^/]*)\$"

# Commits do not depend on who runs this, nor on when.
export GIT_COMMITTER_NAME=mshare GIT_COMMITTER_EMAIL=mshare@localhost
# A tree laid by root may be read by its owner and the other way round.
export GIT_CONFIG_COUNT=1 GIT_CONFIG_KEY_0=safe.directory GIT_CONFIG_VALUE_0='*'

scratch=

# A folder for what must vanish at the end, on the file system of the tree.
make_scratch() {
	mkdir -p -- "$build" 2>/dev/null || die "cannot write to $build"
	scratch=$(mktemp -d "$build/.scratch.XXXXXX") || die "cannot write to $build"
	temporary+=("$scratch")
}

in_tree() { git -C "$tree" "$@"; }

# new_files ROOT: the new kernel files below ROOT, sorted. What a .gitignore names
# and patches are none.
new_files() {
	local list=$scratch/list
	[ -d "$list" ] || git init -q --template= "$list"
	(
		cd -- "$1" || exit
		git --git-dir="$list/.git" --work-tree=. -c core.excludesFile=/dev/null \
			ls-files -o --exclude-standard -- "${kernel_folders[@]}" 'Kconfig.*'
	) | { grep -v '\.patch$' || :; } | sort
}

# series_of ROOT: the patches in order, as paths below ROOT.
series_of() {
	local line path
	[ -e "$1/patches/series" ] || die "patches/series is missing"
	while IFS= read -r line || [ -n "$line" ]; do
		line=${line%%#*}
		line=${line//[[:space:]]/}
		[ -n "$line" ] || continue
		path=$(realpath -m --relative-to="$1" -- "$1/patches/$line")
		[ -f "$1/$path" ] || die "patches/series names $line, but there is no $path"
		printf '%s\n' "$path"
	done <"$1/patches/series"
}

mode_of() { if [ -x "$1" ]; then echo 755; else echo 644; fi; }

# manifest ROOT: "MODE HASH PATH" of each file that the tree is made of.
manifest() {
	local files path
	files=$(new_files "$1")
	files+=$'\n'$(series_of "$1")
	files+=$'\npatches/base\npatches/series'
	files=$(sed '/^$/d' <<<"$files" | sort -u)
	while IFS= read -r path; do
		if [ -L "$1/$path" ] || [ ! -f "$1/$path" ] || [[ $path == *[\"\ ]* ]]; then
			die "$path: not a file that can be part of the series"
		fi
		mode_of "$1/$path"
	done <<<"$files" >"$scratch/modes"
	(cd -- "$1" && git --git-dir="$scratch/list/.git" --work-tree=. hash-object --no-filters --stdin-paths <<<"$files") >"$scratch/hashes"
	paste -d ' ' "$scratch/modes" "$scratch/hashes" - <<<"$files"
}

# version_at TREE COMMIT: the version that the kernel there says it is: 6.12.117
version_at() {
	git -C "$1" show "$2:Makefile" | awk '
		/^VERSION =/ { v = $3 } /^PATCHLEVEL =/ { p = $3 } /^SUBLEVEL =/ { s = $3 }
		/^EXTRAVERSION =/ && !said++ { print v "." p "." s $3 }'
}

# What patches/base says under NAME.
recorded() { sed -n "s/^$1 //p" "$top/patches/base" 2>/dev/null || :; }

# lay ROOT GITDIR BASE: makes the commits of the series of ROOT on top of BASE.
# They end up in $scratch/lay, and GITDIR is only read. Sets $laid.
# Next to no file of the kernel is checked out for it.
lay() {
	local root=$1 gitdir=$2 base lay=$scratch/lay files taken path date error
	local version
	local -a paths
	base=$(git --git-dir="$gitdir" rev-parse -q --verify "$3^{commit}")
	rm -rf -- "$lay"
	git init -q --template= "$lay"
	mkdir -p -- "$lay/.git/info" "$lay/.git/objects/info"
	printf '%s\n' "$gitdir/objects" >"$lay/.git/objects/info/alternates"
	# These say what function a hunk is in.
	printf '.gitattributes\n' >"$lay/.git/info/sparse-checkout"
	git -C "$lay" config core.sparseCheckout true
	git -C "$lay" update-ref refs/heads/mshare "$base"
	git -C "$lay" symbolic-ref HEAD refs/heads/mshare
	git -C "$lay" read-tree -m -u HEAD

	files=$(new_files "$root")
	if [ -n "$files" ]; then
		taken=$(git -C "$lay" ls-tree -r --name-only HEAD | sort | comm -12 - <(printf '%s\n' "$files"))
		[ -z "$taken" ] || die "${taken%%$'\n'*} is a new file here, but Linux $(version_at "$lay" HEAD) has one too"
		date=$(git -C "$lay" log -1 --format=%aI "$base")
		(
			cd -- "$root" || exit
			git --git-dir="$lay/.git" --work-tree=. update-index --add --stdin <<<"$files"
		)
		laid=$(GIT_AUTHOR_NAME=mshare GIT_AUTHOR_EMAIL=mshare@localhost \
			GIT_AUTHOR_DATE=$date GIT_COMMITTER_DATE=$date \
			git -C "$lay" commit-tree -p HEAD -m 'mshare: new files of the series' \
			"$(git -C "$lay" write-tree)")
		git -C "$lay" update-ref refs/heads/mshare "$laid"
		git -C "$lay" read-tree -m -u HEAD
	fi

	path=$(series_of "$root") || exit 1
	mapfile -t paths < <(sed '/^$/d' <<<"$path")
	for path in "${paths[@]}"; do
		# Git keeps every subject and every byte as they are.
		if ! run git -C "$lay" am -q --keep-cr --keep-non-patch --no-scissors \
			--whitespace=nowarn --no-gpg-sign --committer-date-is-author-date \
			"$root/$path" >"$scratch/am" 2>&1; then
			error=$(sed -n 's/^error: patch failed: /it fails at /p
				s/^error: \(.*: No such file or directory\)$/\1/p
				s/^error: \(.*: does not exist in index\)$/\1/p
				s/^error: \(.*: already exists in index\)$/\1/p
				s/^Patch is empty.*/the patch is empty/p
				s/^Patch format detection failed.*/it is no patch in mail format/p
				s/^error: \(corrupt patch at.*\)/\1/p' "$scratch/am" | head -n 1)
			[ -n "$error" ] || error=$(tail -n 1 "$scratch/am")
			version=$(version_at "$lay" "$base")
			die "$path does not apply to Linux $version, the series was made against $(recorded kernel): $error"
		fi
	done
	laid=$(git -C "$lay" rev-parse HEAD)
}

# Why build/linux cannot be laid anew without losing something; nothing if it can.
own_work() {
	local git changed first n
	git=$tree/.git
	for first in rebase-merge rebase-apply MERGE_HEAD CHERRY_PICK_HEAD REVERT_HEAD; do
		if [ -e "$git/$first" ]; then
			echo "a rebase, merge or pick under way"
			return
		fi
	done
	changed=$(in_tree --no-optional-locks status --porcelain --no-renames)
	if [ -n "$changed" ]; then
		n=$(wc -l <<<"$changed")
		first=${changed%%$'\n'*}
		first=${first:3}
		echo "uncommitted changes ($first$([ "$n" -eq 1 ] || echo " and $((n - 1)) more"))"
	elif [ "$(in_tree rev-parse HEAD)" != "$(laid_commit)" ]; then
		echo "commits that are not in the repository"
	fi
}

# The commit that build/linux was laid with; a tree without a record counts as laid
# with nothing on its base.
laid_commit() {
	if [ -e "$state" ]; then
		head -n 1 "$state"
	else
		in_tree rev-parse 'base^{commit}'
	fi
}

check_tree() {
	if ! in_tree rev-parse -q --verify 'base^{commit}' >/dev/null 2>&1 || [ ! -d "$tree/.git" ]; then
		die "build/linux is not a git tree with a tag 'base': move it away"
	fi
}

# record COMMIT <MANIFEST
record() {
	{
		printf '%s\n' "$1"
		cat
	} >"$state.new"
	mv -- "$state.new" "$state"
}
