# mshare: a patch series for the Linux kernel. Every target is a script in scripts/.

CONFIG ?= fast
export FORCE LINUX_ARCHIVE JOBS MSHARE

help:
	@echo 'On a fresh Debian machine:'
	@echo '  make demo      boot the kernel and show what sharing page tables saves'
	@echo '  make test      all tests, on both kernels'
	@echo
	@echo 'Working on it:'
	@echo '  make setup     install the Debian packages that are missing'
	@echo '  make tree      lay out build/linux: the kernel source with the series as commits'
	@echo '  make refresh   bring the commits of build/linux back into files and patches here'
	@echo '  make kernel    build the kernel in build/linux; CONFIG=fast (default) or debug'
	@echo '  make bench     the measurements'
	@echo '  make mm-tests  the kernel'"'"'s own mm tests, with the series and without'
	@echo '  make check     style: shellcheck, checkpatch'
	@echo '  make clean     remove what was built; make distclean: build/linux, too'

setup tree refresh demo bench test mm-tests check:
	@scripts/$@

kernel: setup
	@scripts/tree --auto
	@scripts/kernel $(CONFIG)

clean:
	@scripts/clean

distclean:
	@scripts/clean --all

.PHONY: help setup tree refresh kernel demo bench test mm-tests check clean distclean
