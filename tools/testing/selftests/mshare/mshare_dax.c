// SPDX-License-Identifier: GPL-2.0
/*
 * Files on memory without a page cache (DAX) in a region. Needs /dev/pmem0,
 * which memmap=256M!1G on the kernel's command line makes of ordinary memory,
 * and overwrites it.
 */
#include "mshare_env.h"

#define RW		(PROT_READ | PROT_WRITE)
#define DEV		"/dev/pmem0"

#ifndef MAP_SYNC
#define MAP_SYNC		0x080000
#endif
#ifndef MAP_SHARED_VALIDATE
#define MAP_SHARED_VALIDATE	0x03
#endif

FIXTURE(dax)
{
	const char *name;
	void *addr;
	size_t len;
	struct peer a, b;
	char mnt[64];
	int fd;
	const char *why;
};

FIXTURE_VARIANT(dax)
{
	size_t unit;		/* what a fault maps */
	int flags;
};

FIXTURE_VARIANT_ADD(dax, shared_pte) { .unit = 4096, .flags = MAP_SHARED };
FIXTURE_VARIANT_ADD(dax, shared_pmd) { .unit = 2 * MB, .flags = MAP_SHARED };
FIXTURE_VARIANT_ADD(dax, sync_pte) {
	.unit = 4096, .flags = MAP_SHARED_VALIDATE | MAP_SYNC };
FIXTURE_VARIANT_ADD(dax, sync_pmd) {
	.unit = 2 * MB, .flags = MAP_SHARED_VALIDATE | MAP_SYNC };
FIXTURE_VARIANT_ADD(dax, private_pte) { .unit = 4096, .flags = MAP_PRIVATE };

#define UNITS	4

FIXTURE_SETUP(dax)
{
	char path[128];

	self->name = new_name();
	self->addr = slot(0);
	self->len = granule();
	self->fd = -1;
	if (access(DEV, F_OK)) {
		self->why = "no " DEV ": memmap=256M!1G on the command line";
		return;
	}
	/* Extents are to be aligned for huge pages. */
	if (system("mkfs.ext4 -q -F -b 4096 -E stride=512,stripe-width=512 " DEV
		   " >/dev/null 2>&1")) {
		self->why = "mkfs.ext4 failed";
		return;
	}
	snprintf(self->mnt, sizeof(self->mnt), "/tmp/mshare-dax-%d", getpid());
	mkdir(self->mnt, 0755);
	if (mount(DEV, self->mnt, "ext4", 0, "dax")) {
		self->why = "cannot mount ext4 with dax";
		rmdir(self->mnt);
		self->mnt[0] = 0;
		return;
	}
	snprintf(path, sizeof(path), "%s/file", self->mnt);
	self->fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
	ASSERT_LE(0, self->fd);
	/* One extent, which may be mapped by huge pages; or block by block. */
	if (variant->unit > 4096) {
		ASSERT_OK(fallocate(self->fd, 0, 0, UNITS * variant->unit));
	} else {
		ASSERT_OK(ftruncate(self->fd, UNITS * variant->unit));
	}
	ASSERT_EQ(0, peer_start(&self->a));
	ASSERT_EQ(0, peer_start(&self->b));
	ASSERT_OK(peer_create(&self->a, self->name, self->addr, self->len));
	ASSERT_OK(peer_attach(&self->b, self->name));
	ASSERT_OK(attach(self->name));
}

FIXTURE_TEARDOWN(dax)
{
	peer_stop(&self->a);
	peer_stop(&self->b);
	munmap(self->addr, self->len);
	remove_names();
	if (self->fd >= 0)
		close(self->fd);
	if (self->mnt[0]) {
		/* Busy until the region is gone. */
		(void)WAIT_FOR(!umount2(self->mnt, 0), 10);
		umount2(self->mnt, MNT_DETACH);
		rmdir(self->mnt);
	}
}

#define NEED_DAX() do {							\
	if (self->why)							\
		SKIP(return, "%s", self->why);				\
} while (0)

/* Whether huge pages are mapped as such outside of regions. */
static bool has_units(int fd, size_t unit, int flags)
{
	long faults;
	void *own;

	if (unit == 4096)
		return true;
	own = mmap(slot(4), unit, RW, flags | MAP_FIXED, fd, 0);
	if (own == MAP_FAILED)
		return false;
	faults = minflt();
	for (size_t i = 0; i < unit; i += 4096)
		try_write(at(own, i), 0);
	faults = minflt() - faults;
	munmap(own, unit);
	return faults <= 100;
}

TEST_F(dax, all_see_the_same)
{
	size_t unit = variant->unit;
	unsigned char c;
	long faults;

	NEED_DAX();
	if (!has_units(self->fd, unit, variant->flags))
		SKIP(return, "no huge pages of DAX here");
	ASSERT_EQ(self->addr, mmap(self->addr, UNITS * unit, RW, variant->flags |
				   MAP_FIXED, self->fd, 0));
	for (int i = 0; i < UNITS; i++) {
		EXPECT_EQ(0, peer_write(i & 1 ? &self->a : &self->b,
					at(self->addr, i * unit + 100), 10 + i));
	}
	faults = minflt();
	for (size_t i = 0; i < UNITS * unit; i += 4096) {
		EXPECT_EQ(0, try_read(at(self->addr, i)));
	}
	/* What was mapped for others is mapped. */
	EXPECT_GT(16, minflt() - faults);
	for (int i = 0; i < UNITS; i++) {
		EXPECT_EQ(10 + i, try_read(at(self->addr, i * unit + 100)));
		EXPECT_EQ(10 + i, peer_read(&self->a, at(self->addr, i * unit + 100)));
		ASSERT_EQ(1, pread(self->fd, &c, 1, i * unit + 100));
		EXPECT_EQ(variant->flags == MAP_PRIVATE ? 0 : 10 + i, c);
	}
	/* The file is what is mapped. */
	if (variant->flags != MAP_PRIVATE) {
		c = 77;
		ASSERT_EQ(1, pwrite(self->fd, &c, 1, 200));
		EXPECT_EQ(77, peer_read(&self->b, at(self->addr, 200)));
	}
}

TEST_F(dax, what_is_mapped_becomes_a_region)
{
	const char *name = new_name();
	void *p = slot(2);
	long i;
	char c;

	NEED_DAX();
	ASSERT_EQ(p, mmap(p, UNITS * variant->unit, RW, variant->flags | MAP_FIXED,
			  self->fd, 0));
	for (i = 0; i < UNITS - 1; i++)
		EXPECT_EQ(0, try_write(at(p, i * variant->unit), 1 + i));
	ASSERT_OK(create(name, p, granule()));
	ASSERT_OK(peer_attach(&self->a, name));
	for (i = 0; i < UNITS; i++) {
		void *q = at(p, i * variant->unit);

		EXPECT_EQ(i < UNITS - 1 ? 1 + i : 0, peer_read(&self->a, q));
		EXPECT_EQ(0, peer_write(&self->a, q, 11 + i));
		EXPECT_EQ(11 + i, try_read(q));
		ASSERT_EQ(1, pread(self->fd, &c, 1, i * variant->unit));
		EXPECT_EQ(variant->flags == MAP_PRIVATE ? 0 : 11 + i, c);
	}
	ASSERT_OK(peer_munmap(&self->a, p, variant->unit));
	EXPECT_EQ(PAGE_HOLE, page_state(p));
	ASSERT_OK(ftruncate(self->fd, 2 * variant->unit));
	EXPECT_EQ(SIGBUS, fault_sig(peer_read(&self->a, at(p, 3 * variant->unit))));
	EXPECT_EQ(12, try_read(at(p, variant->unit)));
	ASSERT_OK(munmap(p, granule()));
}

TEST_F(dax, holes_truncation_and_protection_reach_the_region)
{
	size_t unit = variant->unit;

	NEED_DAX();
	ASSERT_EQ(self->addr, mmap(self->addr, UNITS * unit, RW, variant->flags |
				   MAP_FIXED, self->fd, 0));
	for (int i = 0; i < UNITS; i++) {
		EXPECT_EQ(0, peer_write(&self->a, at(self->addr, i * unit), 1 + i));
	}
	ASSERT_OK(fallocate(self->fd, 3 /* PUNCH_HOLE | KEEP_SIZE */, 0, unit));
	EXPECT_EQ(variant->flags == MAP_PRIVATE ? 1 : 0, peer_read(&self->b, self->addr));
	EXPECT_EQ(2, peer_read(&self->b, at(self->addr, unit)));
	ASSERT_OK(mprotect(at(self->addr, unit), unit, PROT_READ));
	EXPECT_EQ(FAULT(SIGSEGV, SEGV_ACCERR), peer_write(&self->b, at(self->addr, unit), 1));
	EXPECT_EQ(2, peer_read(&self->b, at(self->addr, unit)));
	/* Of a huge page, too. */
	ASSERT_OK(mprotect(at(self->addr, unit), 4096, RW));
	EXPECT_EQ(0, peer_write(&self->b, at(self->addr, unit), 9));
	EXPECT_EQ(9, peer_read(&self->a, at(self->addr, unit)));
	ASSERT_OK(ftruncate(self->fd, 2 * unit));
	EXPECT_EQ(SIGBUS, fault_sig(peer_read(&self->b, at(self->addr, 2 * unit))));
	EXPECT_OK(munmap(at(self->addr, unit), 4096));
	EXPECT_EQ(FAULT(SIGBUS, BUS_ADRERR), peer_read(&self->a, at(self->addr, unit)));
	EXPECT_OK(fsync(self->fd));
}

/* Written through the region, it is clean again after fsync and then dirty. */
TEST_F(dax, what_is_written_back_is_noticed_when_written_again)
{
	size_t unit = variant->unit;

	NEED_DAX();
	ASSERT_EQ(self->addr, mmap(self->addr, UNITS * unit, RW, variant->flags |
				   MAP_FIXED, self->fd, 0));
	for (int i = 0; i < 5; i++) {
		EXPECT_EQ(0, peer_write(&self->a, self->addr, 30 + i));
		EXPECT_EQ(0, peer_write(&self->b, at(self->addr, unit), 40 + i));
		EXPECT_OK(fsync(self->fd));
		EXPECT_EQ(30 + i, peer_read(&self->b, self->addr));
		EXPECT_EQ(40 + i, peer_read(&self->a, at(self->addr, unit)));
	}
}

static long do_madvise(const struct request *rq)
{
	return madvise((void *)rq->a[0], rq->a[1], rq->a[2]);
}

/* Whoever is attached is told of a page that fails. */
TEST_F(dax, a_page_fails)
{
	int lsb = __builtin_ctzl(variant->unit), i;
	void *bad = at(self->addr, variant->unit);

	NEED_DAX();
	if (variant->flags == MAP_PRIVATE)
		SKIP(return, "what is written is ordinary memory");
	if (madvise(self->addr, 0, MADV_HWPOISON))
		SKIP(return, "no CONFIG_MEMORY_FAILURE");
	if (!has_units(self->fd, variant->unit, variant->flags))
		SKIP(return, "no huge pages of DAX here");
	ASSERT_EQ(self->addr, mmap(self->addr, UNITS * variant->unit, RW,
				   variant->flags | MAP_FIXED, self->fd, 0));
	ASSERT_OK(PEER(&self->a, do_handle, NULL, PR_MCE_KILL_LATE));
	ASSERT_OK(PEER(&self->b, do_handle, NULL, PR_MCE_KILL_EARLY));
	for (i = 0; i < UNITS; i++)
		EXPECT_EQ(0, try_write(at(self->addr, i * variant->unit), 50 + i));
	EXPECT_EQ(0, PEER(&self->a, do_madvise, NULL, L(bad), 4096, MADV_HWPOISON));
	EXPECT_EQ(1, SEEN(&self->a, 0));
	EXPECT_EQ(BUS_MCEERR_AR, SEEN(&self->a, 1));
	EXPECT_EQ(L(bad), SEEN(&self->a, 2));
	EXPECT_EQ(lsb, SEEN(&self->a, 3));
	EXPECT_TRUE(WAIT_FOR(SEEN(&self->b, 0) == 1, 10));
	EXPECT_EQ(BUS_MCEERR_AO, SEEN(&self->b, 1));
	EXPECT_EQ(L(bad), SEEN(&self->b, 2));
	EXPECT_EQ(50, peer_read(&self->b, self->addr));
	EXPECT_EQ(52, peer_read(&self->b, at(bad, variant->unit)));
}

TEST_F(dax, a_mapping_by_hint_is_aligned_for_huge_pages)
{
	void *p;

	NEED_DAX();
	if (variant->unit != 2 * MB)
		SKIP(return, "small pages");
	ASSERT_OK(map_anon(self->addr, page(), MAP_PRIVATE));
	p = mmap(self->addr, UNITS * variant->unit, RW, variant->flags, self->fd, 0);
	ASSERT_NE(MAP_FAILED, p);
	EXPECT_EQ(0, L(p) % (long)(2 * MB));
	EXPECT_EQ(0, peer_write(&self->a, p, 1));
	EXPECT_EQ(1, peer_read(&self->b, p));
}

MSHARE_TEST_MAIN
