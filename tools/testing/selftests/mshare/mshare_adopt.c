// SPDX-License-Identifier: GPL-2.0
/*
 * Adoption: what the creator of a region has mapped in its range becomes the
 * region's content, at once or not at all, with no page copied or faulted.
 */
#include <linux/aio_abi.h>
#include <linux/perf_event.h>
#include <linux/userfaultfd.h>
#include "mshare_env.h"
#include <sys/ioctl.h>
#include <sys/ipc.h>
#include <sys/shm.h>
#include <sys/time.h>

#define RW	(PROT_READ | PROT_WRITE)
#define RWX	(RW | PROT_EXEC)
#define THP	(2 * MB)

#ifndef MADV_COLLAPSE
#define MADV_COLLAPSE	25
#endif
#ifndef MADV_PAGEOUT
#define MADV_PAGEOUT	21
#endif
#ifndef __NR_memfd_secret
#define __NR_memfd_secret	447
#endif
#ifndef __NR_map_shadow_stack
#define __NR_map_shadow_stack	453
#endif
#ifndef __NR_mseal
#define __NR_mseal	462
#endif

/* A counter of this process in kB. */
static long status(const char *key)
{
	return read_key("/proc/self/status", key);
}

static long region_kb(const char *name)
{
	struct stat st;

	return stat(path_of(name), &st) ? -1 : st.st_blocks / 2;
}

static unsigned long *word(void *addr, size_t i)
{
	return at(addr, i * page() + (i % 64) * sizeof(long));
}

static void fill(void *addr, size_t nr, unsigned long seed)
{
	size_t i;

	for (i = 0; i < nr; i++)
		*word(addr, i) = seed * 1000003 + i;
}

static long nr_wrong(void *addr, size_t nr, unsigned long seed)
{
	long bad = 0;
	size_t i;

	for (i = 0; i < nr; i++)
		if (*(volatile unsigned long *)word(addr, i) != seed * 1000003 + i)
			bad++;
	return bad;
}

static long do_wrong(const struct request *rq)
{
	return nr_wrong((void *)rq->a[0], rq->a[1], rq->a[2]);
}

static long do_fill(const struct request *rq)
{
	fill((void *)rq->a[0], rq->a[1], rq->a[2]);
	return 0;
}

/* Minor and major faults that a look at every page takes. */
static long do_look_faults(const struct request *rq)
{
	long before = minflt() + majflt();
	size_t i;

	for (i = 0; i < (size_t)rq->a[1]; i++)
		(void)*(volatile char *)at((void *)rq->a[0], i * page());
	return minflt() + majflt() - before;
}

static long look_faults(void *addr, size_t nr)
{
	struct request rq = { .a = { L(addr), nr } };

	return do_look_faults(&rq);
}

/* What the kernel's own code may fault around it. */
#define FEW_FAULTS	8

/*
 * Every kind of memory.
 */

FIXTURE(kind)
{
	const char *name, *why;
	void *addr, *p;
	size_t len;
	struct kind_data k;
	struct peer a;
};

FIXTURE_VARIANT(kind)
{
	enum kind kind;
};

FIXTURE_VARIANT_ADD(kind, anon_private) { .kind = ANON_PRIVATE };
FIXTURE_VARIANT_ADD(kind, anon_shared) { .kind = ANON_SHARED };
FIXTURE_VARIANT_ADD(kind, memfd) { .kind = MEMFD };
FIXTURE_VARIANT_ADD(kind, tmpfs_shared) { .kind = TMPFS_SHARED };
FIXTURE_VARIANT_ADD(kind, tmpfs_private) { .kind = TMPFS_PRIVATE };
FIXTURE_VARIANT_ADD(kind, ext4_shared) { .kind = EXT4_SHARED };
FIXTURE_VARIANT_ADD(kind, ext4_private) { .kind = EXT4_PRIVATE };
FIXTURE_VARIANT_ADD(kind, overlay_shared) { .kind = OVERLAY_SHARED };
FIXTURE_VARIANT_ADD(kind, overlay_private) { .kind = OVERLAY_PRIVATE };
FIXTURE_VARIANT_ADD(kind, zero_shared) { .kind = ZERO_SHARED };
FIXTURE_VARIANT_ADD(kind, zero_private) { .kind = ZERO_PRIVATE };

FIXTURE_SETUP(kind)
{
	NOT_ON_DEBUG(variant->kind == ANON_SHARED);
	self->name = new_name();
	self->addr = slot(0);
	self->len = granule();
	self->p = at(self->addr, GB);
	self->why = kind_init(&self->k, variant->kind);
	if (self->why)
		return;
	ASSERT_EQ(0, peer_start(&self->a));
}

FIXTURE_TEARDOWN(kind)
{
	peer_stop(&self->a);
	munmap(self->addr, self->len);
	remove_names();
	kind_end(&self->k);
}

#define NEED_KIND() do {						\
	if (self->why)							\
		SKIP(return, "%s", self->why);				\
} while (0)

TEST_F(kind, content_stays_and_is_shared)
{
	size_t i;

	NEED_KIND();
	ASSERT_EQ(self->p, kind_map(&self->k, self->p, KIND_PAGES * page(), RW,
				    MAP_FIXED, 0));
	/* Written, only read, and never touched. */
	for (i = 0; i < KIND_PAGES; i++) {
		if (i % 3 == 0)
			*(volatile char *)at(self->p, i * page()) = 100 + i;
		else if (i % 3 == 1)
			(void)*(volatile char *)at(self->p, i * page());
	}
	ASSERT_OK(create(self->name, self->addr, self->len));
	ASSERT_EQ(1, nr_mapped(self->addr, self->len));
	ASSERT_OK(peer_attach(&self->a, self->name));
	for (i = 0; i < KIND_PAGES; i++) {
		char *c = at(self->p, i * page());
		char want = i % 3 ? kind_byte(&self->k, i) : 100 + (int)i;

		ASSERT_EQ(want, (char)try_read(c));
		ASSERT_EQ(want, (char)peer_read(&self->a, c));
		ASSERT_EQ(kind_byte(&self->k, i), try_read(c + 1));
	}
	/* And writes are everybody's, to what was written before and what not. */
	for (i = 0; i < KIND_PAGES; i++) {
		char *c = at(self->p, i * page() + 64);

		ASSERT_EQ(0, peer_write(&self->a, c, 7 + i));
		ASSERT_EQ(7 + (long)i, try_read(c));
		ASSERT_EQ(0, try_write(c + 1, 8 + i));
		ASSERT_EQ(8 + (long)i, peer_read(&self->a, c + 1));
	}
	EXPECT_EQ(PAGE_HOLE, page_state(at(self->p, KIND_PAGES * page())));
	EXPECT_EQ(PAGE_HOLE, page_state(at(self->p, -page())));
	/* It is the region's to unmap. */
	ASSERT_OK(peer_munmap(&self->a, self->p, page()));
	EXPECT_EQ(PAGE_HOLE, page_state(self->p));
	EXPECT_EQ(PAGE_RW, page_state(at(self->p, page())));
}

TEST_F(kind, nothing_is_faulted_again)
{
	char *buf = malloc(page());
	size_t i;

	NEED_KIND();
	ASSERT_EQ(self->p, kind_map(&self->k, self->p, KIND_PAGES * page(), RW,
				    MAP_FIXED, 0));
	for (i = 0; i < KIND_PAGES; i++)
		*(volatile char *)at(self->p, i * page()) = 1 + i;
	ASSERT_OK(create(self->name, self->addr, self->len));
	EXPECT_EQ(KIND_PAGES * (long)page() / 1024, region_kb(self->name));
	EXPECT_GT(FEW_FAULTS, look_faults(self->p, KIND_PAGES));
	ASSERT_OK(peer_attach(&self->a, self->name));
	EXPECT_GT(FEW_FAULTS, PEER(&self->a, do_look_faults, NULL, L(self->p),
				   KIND_PAGES));
	EXPECT_EQ(KIND_PAGES * (long)page() / 1024, region_kb(self->name));
	/* What was shared with a file is, and what was private is not. */
	if (self->k.file) {
		ASSERT_EQ((ssize_t)page(), pread(self->k.fd, buf, page(), page()));
		EXPECT_EQ(2, buf[0]);
		ASSERT_EQ(0, peer_write(&self->a, at(self->p, page()), 99));
		ASSERT_EQ((ssize_t)page(), pread(self->k.fd, buf, page(), page()));
		EXPECT_EQ(self->k.flags & MAP_SHARED ? 99 : 2, buf[0]);
	}
	free(buf);
}

TEST_F(kind, truncation_reaches_the_region)
{
	NEED_KIND();
	if (!self->k.file)
		SKIP(return, "not a file");
	ASSERT_EQ(self->p, kind_map(&self->k, self->p, KIND_PAGES * page(), RW,
				    MAP_FIXED, 0));
	EXPECT_EQ(0, try_write(self->p, 1));
	EXPECT_EQ(0, try_write(at(self->p, 9 * page()), 1));
	ASSERT_OK(create(self->name, self->addr, self->len));
	ASSERT_OK(peer_attach(&self->a, self->name));
	EXPECT_EQ(1, peer_read(&self->a, at(self->p, 9 * page())));
	ASSERT_OK(ftruncate(self->k.fd, 4 * page()));
	EXPECT_EQ(SIGBUS, fault_sig(peer_read(&self->a, at(self->p, 9 * page()))));
	EXPECT_EQ(SIGBUS, fault_sig(try_read(at(self->p, 9 * page()))));
	EXPECT_EQ(1, try_read(self->p));
}

TEST_F(kind, what_extends_over_the_ends_stays_outside)
{
	size_t n = KIND_PAGES, half = KIND_PAGES / 2 * page();
	void *left = at(self->addr, -half);
	void *right = at(self->addr, self->len - half);
	size_t i;

	NEED_KIND();
	ASSERT_EQ(left, kind_map(&self->k, left, n * page(), RW, MAP_FIXED, 0));
	ASSERT_EQ(right, kind_map(&self->k, right, n * page(), RW, MAP_FIXED, 0));
	for (i = 0; i < n; i++) {
		*(volatile char *)at(left, i * page()) = 1 + i;
		*(volatile char *)at(right, i * page()) = 1 + i;
	}
	ASSERT_OK(create(self->name, self->addr, self->len));
	EXPECT_EQ(1, nr_mapped(left, half));
	EXPECT_EQ(1, nr_mapped(at(right, half), half));
	EXPECT_EQ(1, nr_mapped(self->addr, self->len));
	for (i = 0; i < n; i++) {
		EXPECT_EQ(1 + (long)i, try_read(at(left, i * page())));
		EXPECT_EQ(1 + (long)i, try_read(at(right, i * page())));
	}
	ASSERT_OK(peer_attach(&self->a, self->name));
	for (i = 0; i < n / 2; i++) {
		EXPECT_EQ(PAGE_NONE, peer_state(&self->a, at(left, i * page())));
		EXPECT_EQ(1 + (long)(i + n / 2),
			  peer_read(&self->a, at(self->addr, i * page())));
		EXPECT_EQ(1 + (long)i, peer_read(&self->a, at(right, i * page())));
	}
	/* Each is whole: it can be written, unmapped and mapped. */
	EXPECT_EQ(0, try_write(left, 1));
	EXPECT_EQ(0, try_write(at(right, half), 1 + n / 2));
	ASSERT_OK(munmap(left, half));
	ASSERT_OK(munmap(at(right, half), half));
	EXPECT_EQ(1 + (long)n / 2, try_read(self->addr));
	EXPECT_EQ(1, peer_read(&self->a, right));
}

TEST_F(kind, detaching_leaves_nothing_with_the_creator)
{
	NEED_KIND();
	ASSERT_EQ(self->p, kind_map(&self->k, self->p, KIND_PAGES * page(), RW,
				    MAP_FIXED, 0));
	EXPECT_EQ(0, try_write(self->p, 5));
	ASSERT_OK(create(self->name, self->addr, self->len));
	ASSERT_OK(munmap(self->addr, self->len));
	EXPECT_EQ(0, nr_mapped(self->addr, self->len));
	EXPECT_EQ(FAULT(SIGSEGV, SEGV_MAPERR), try_read(self->p));
	ASSERT_OK(peer_attach(&self->a, self->name));
	EXPECT_EQ(5, peer_read(&self->a, self->p));
	ASSERT_OK(peer_unlink(&self->a, self->name));
	EXPECT_FALSE(name_exists(self->name));
}

/*
 * The layout: holes, rights, ends, sizes, counters.
 */

FIXTURE(adopt)
{
	const char *name;
	void *addr, *p;
	size_t len;
	struct peer a;
	struct setting thp;
};

FIXTURE_SETUP(adopt)
{
	self->name = new_name();
	self->addr = slot(0);
	self->len = granule();
	self->p = at(self->addr, GB);
	ASSERT_EQ(0, peer_start(&self->a));
}

FIXTURE_TEARDOWN(adopt)
{
	peer_stop(&self->a);
	munmap(self->addr, 4 * self->len);
	remove_names();
	setting_restore(&self->thp);
}

/* The sequence of the first proposal: a donor and a consumer. */
TEST_F(adopt, donor_and_consumer)
{
	struct mshare_info info = { 0 };
	int fd, i;

	ASSERT_EQ(self->addr, map_anon(self->addr, 2 * MB, MAP_SHARED));
	memset(self->addr, 'd', 2 * MB);
	ASSERT_OK(mshare(self->name, self->addr, self->len,
			 O_CREAT | O_EXCL | O_RDWR, 0600));
	fd = open(path_of(self->name), O_RDONLY);
	ASSERT_LE(0, fd);
	ASSERT_LE(16, read(fd, &info, sizeof(info)));
	close(fd);
	EXPECT_EQ((unsigned long)self->addr, info.start);
	EXPECT_EQ(self->len, info.size);
	ASSERT_OK(PEER(&self->a, do_mshare, self->name, info.start, info.size,
		       O_RDWR, 0600));
	for (i = 0; i < 16; i++) {
		EXPECT_EQ('d', peer_read(&self->a, at(self->addr, i * 128 * KB)));
		EXPECT_EQ(0, peer_write(&self->a, at(self->addr, i * 128 * KB), 'c'));
		EXPECT_EQ('c', try_read(at(self->addr, i * 128 * KB)));
	}
	ASSERT_OK(peer_unlink(&self->a, self->name));
	EXPECT_EQ('c', try_read(self->addr));
	ASSERT_OK(mshare_unlink(self->name));
	EXPECT_FALSE(name_exists(self->name));
	EXPECT_EQ(0, nr_mapped(self->addr, self->len));
}

static long do_adopt_zero(const struct request *rq)
{
	char *p = (char *)rq->a[0];
	long i, sum = 0;

	if (map_anon(p, 8 * MB, MAP_PRIVATE) == MAP_FAILED ||
	    madvise(p, 8 * MB, MADV_HUGEPAGE))
		return -1;
	for (i = 0; i < (long)(8 * MB); i += page())
		sum += *(volatile char *)(p + i);
	return mshare(rq->s, p, rq->a[1], O_CREAT | O_EXCL | O_RDWR, 0600) ?: sum;
}

/* An mm has a reference to it, and the region's goes on when the creator ends. */
TEST_F(adopt, the_huge_zero_page_outlives_its_reader)
{
	size_t i, n = 64 * MB;
	int wrong = 0, round;
	char *fill;

	ASSERT_EQ(0, PEER(&self->a, do_adopt_zero, self->name, L(self->addr),
			  self->len));
	ASSERT_OK(attach(self->name));
	peer_stop(&self->a);
	for (round = 0; round < 3; round++) {
		/* Frees it if nobody has a reference; others take the memory. */
		ASSERT_OK(write_file("/proc/sys/vm/drop_caches", "2"));
		fill = mmap(NULL, n, PROT_READ | PROT_WRITE,
			    MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
		ASSERT_NE(MAP_FAILED, fill);
		madvise(fill, n, MADV_HUGEPAGE);
		memset(fill, 0x55, n);
		for (i = 0; i < 8 * MB; i += page())
			wrong += try_read(at(self->addr, i)) != 0;
		munmap(fill, n);
	}
	EXPECT_EQ(0, wrong);
	EXPECT_EQ(0, try_write(self->addr, 1));
	EXPECT_EQ(0, try_read(at(self->addr, page())));
}

TEST_F(adopt, rights_and_holes_stay)
{
	static const int prot[] = { RW, PROT_READ, PROT_NONE, RWX };
	const char *want = "wr-w.wr-w.wr-w.wr-w.";
	int i;

	for (i = 0; i < 20; i++) {
		void *p = at(self->p, i * page());

		if (i % 5 == 4)
			continue;
		ASSERT_EQ(p, map_anon(p, page(), i % 2 ? MAP_SHARED : MAP_PRIVATE));
		*(char *)p = 1 + i;
		ASSERT_OK(mprotect(p, page(), prot[i % 5]));
	}
	ASSERT_OK(create(self->name, self->addr, self->len));
	ASSERT_OK(peer_attach(&self->a, self->name));
	EXPECT_STREQ(want, page_states(self->p, 20));
	for (i = 0; i < 20; i++) {
		void *p = at(self->p, i * page());

		EXPECT_EQ(want[i], peer_state(&self->a, p));
		if (i % 5 == 4)
			continue;
		/* What was forbidden is there all the same. */
		ASSERT_OK(mprotect(p, page(), PROT_READ));
		EXPECT_EQ(1 + i, peer_read(&self->a, p));
	}
}

TEST_F(adopt, code_runs)
{
	ASSERT_EQ(self->p, map_anon(self->p, page(), MAP_PRIVATE));
	memcpy(self->p, code_42, sizeof(code_42));
	ASSERT_OK(mprotect(self->p, page(), PROT_READ | PROT_EXEC));
	EXPECT_EQ(42, try_exec(self->p));
	ASSERT_OK(create(self->name, self->addr, self->len));
	EXPECT_EQ(42, try_exec(self->p));
}

/* With protection keys such memory has one, which must go when it is readable. */
TEST_F(adopt, code_that_can_only_be_executed)
{
	bool hidden;

	ASSERT_EQ(self->p, map_anon(self->p, page(), MAP_PRIVATE));
	memcpy(self->p, code_42, sizeof(code_42));
	ASSERT_OK(mprotect(self->p, page(), PROT_EXEC));
	hidden = try_read(self->p) < 0;
	ASSERT_OK(create(self->name, self->addr, self->len));
	ASSERT_OK(peer_attach(&self->a, self->name));
	EXPECT_EQ(42, try_exec(self->p));
	EXPECT_EQ(hidden, try_read(self->p) < 0);
	EXPECT_EQ(hidden, peer_read(&self->a, self->p) < 0);
	ASSERT_OK(peer_mprotect(&self->a, self->p, page(), PROT_READ | PROT_EXEC));
	EXPECT_EQ(code_42[0], try_read(self->p));
	EXPECT_EQ(code_42[0], peer_read(&self->a, self->p));
	if (!hidden)
		TH_LOG("no protection keys here");
}

/* A mapping that covers the region and more on both sides. */
TEST_F(adopt, one_mapping_over_both_ends)
{
	void *p = at(self->addr, -(4 * MB));
	size_t len = self->len + 8 * MB, i;
	void *spots[6];

	spots[0] = p;
	spots[1] = at(self->addr, -page());
	spots[2] = self->addr;
	spots[3] = at(self->addr, self->len - page());
	spots[4] = at(self->addr, self->len);
	spots[5] = at(p, len - page());
	ASSERT_EQ(p, mmap(p, len, RW, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED |
			  MAP_NORESERVE, -1, 0));
	for (i = 0; i < 6; i++)
		*(char *)spots[i] = 1 + i;
	EXPECT_EQ(1, nr_mapped(p, len));

	ASSERT_OK(create(self->name, self->addr, self->len));
	EXPECT_EQ(3, nr_mapped(p, len));
	for (i = 0; i < 6; i++)
		EXPECT_EQ(1 + (long)i, try_read(spots[i]));
	ASSERT_OK(peer_attach(&self->a, self->name));
	EXPECT_EQ(3, peer_read(&self->a, spots[2]));
	EXPECT_EQ(4, peer_read(&self->a, spots[3]));
	EXPECT_EQ(PAGE_NONE, peer_state(&self->a, spots[1]));
	EXPECT_EQ(PAGE_NONE, peer_state(&self->a, spots[4]));
	/* Nothing holds the two that are left together. */
	ASSERT_OK(mprotect(p, 4 * MB, PROT_READ));
	EXPECT_EQ(0, try_write(spots[4], 9));
	ASSERT_OK(munmap(p, 4 * MB));
	EXPECT_EQ(9, try_read(spots[4]));
	EXPECT_EQ(3, try_read(spots[2]));
	ASSERT_OK(munmap(at(self->addr, self->len), 4 * MB));
	EXPECT_EQ(1, nr_mapped(p, len));
}

TEST_F(adopt, several_granules_with_an_empty_one)
{
	size_t i;

	for (i = 0; i < 4; i++) {
		if (i == 1)
			continue;
		ASSERT_EQ(at(self->addr, i * self->len),
			  map_anon(at(self->addr, i * self->len), MB, MAP_PRIVATE));
		fill(at(self->addr, i * self->len), MB / page(), i);
	}
	/* And one across the edge between two of them. */
	ASSERT_EQ(at(self->addr, 3 * self->len - MB),
		  map_anon(at(self->addr, 3 * self->len - MB), MB, MAP_PRIVATE));
	fill(at(self->addr, 3 * self->len - MB), MB / page(), 9);
	ASSERT_OK(create(self->name, self->addr, 4 * self->len));
	ASSERT_OK(peer_attach(&self->a, self->name));
	for (i = 0; i < 4; i++) {
		void *p = at(self->addr, i * self->len);

		if (i == 1) {
			EXPECT_EQ(PAGE_HOLE, page_state(p));
			ASSERT_EQ(p, map_anon(p, MB, MAP_PRIVATE));
			EXPECT_EQ(0, try_write(p, 5));
			EXPECT_EQ(5, peer_read(&self->a, p));
			continue;
		}
		EXPECT_EQ(0, nr_wrong(p, MB / page(), i));
		EXPECT_EQ(0, PEER(&self->a, do_wrong, NULL, L(p), MB / page(), i));
	}
	EXPECT_EQ(0, nr_wrong(at(self->addr, 3 * self->len - MB), MB / page(), 9));
	ASSERT_OK(munmap(self->addr, 4 * self->len));
	EXPECT_EQ(0, PEER(&self->a, do_wrong, NULL, L(self->addr), MB / page(), 0));
}

TEST_F(adopt, many_mappings)
{
	long n = debug_kernel() ? 400 : 2000, i;
	int before;

	for (i = 0; i < n; i++) {
		void *p = at(self->p, 2 * i * page());

		ASSERT_EQ(p, map_anon(p, page(), i & 1 ? MAP_SHARED : MAP_PRIVATE));
		*(long *)p = i;
	}
	before = nr_mapped(NULL, -1UL >> 1);
	ASSERT_OK(create(self->name, self->addr, self->len));
	EXPECT_EQ(before - n + 1, nr_mapped(NULL, -1UL >> 1));
	ASSERT_OK(peer_attach(&self->a, self->name));
	for (i = 0; i < n; i++)
		ASSERT_EQ(i, *(long *)at(self->p, 2 * i * page()));
	EXPECT_EQ((n - 1) & 0xff, peer_read(&self->a,
					    at(self->p, 2 * (n - 1) * page())));
}

TEST_F(adopt, huge_pages_stay_huge)
{
	size_t size = 8 * MB, i;
	long before, thp;

	if (setting_set(&self->thp, THP_ENABLED, "always"))
		SKIP(return, "no transparent huge pages");
	before = meminfo("AnonHugePages");
	ASSERT_EQ(self->p, map_anon(self->p, size, MAP_PRIVATE));
	fill(self->p, size / page(), 3);
	thp = meminfo("AnonHugePages") - before;
	if (thp < (long)size / 1024)
		SKIP(return, "no huge pages to be had");
	ASSERT_OK(create(self->name, self->addr, self->len));
	EXPECT_EQ(thp, meminfo("AnonHugePages") - before);
	EXPECT_EQ((long)size / 1024, region_kb(self->name));
	ASSERT_OK(peer_attach(&self->a, self->name));
	EXPECT_EQ(0, PEER(&self->a, do_wrong, NULL, L(self->p), size / page(), 3));
	EXPECT_EQ(0, nr_wrong(self->p, size / page(), 3));
	/* They can be split, with the table that was put aside for it. */
	ASSERT_OK(munmap(at(self->p, page()), page()));
	ASSERT_OK(mprotect(at(self->p, THP + page()), page(), PROT_READ));
	EXPECT_EQ(PAGE_HOLE, peer_state(&self->a, at(self->p, page())));
	EXPECT_EQ(PAGE_RO, peer_state(&self->a, at(self->p, THP + page())));
	for (i = 0; i < size / page(); i++)
		if (i != 1)
			ASSERT_EQ(3 * 1000003 + i, *word(self->p, i));
}

/* One huge page up to the edge on each side of it. */
TEST_F(adopt, huge_pages_at_the_ends)
{
	void *p = at(self->addr, -THP);
	void *q = at(self->addr, self->len - THP);

	if (setting_set(&self->thp, THP_ENABLED, "always"))
		SKIP(return, "no transparent huge pages");
	ASSERT_EQ(p, map_anon(p, 2 * THP, MAP_PRIVATE));
	ASSERT_EQ(q, map_anon(q, 2 * THP, MAP_PRIVATE));
	fill(p, 2 * THP / page(), 5);
	fill(q, 2 * THP / page(), 6);
	ASSERT_OK(create(self->name, self->addr, self->len));
	EXPECT_EQ(0, nr_wrong(p, 2 * THP / page(), 5));
	EXPECT_EQ(0, nr_wrong(q, 2 * THP / page(), 6));
	ASSERT_OK(peer_attach(&self->a, self->name));
	EXPECT_EQ(0, PEER(&self->a, do_wrong, NULL, L(q), THP / page(), 6));
	fill(p, THP / page(), 7);
	EXPECT_EQ(0, nr_wrong(p, THP / page(), 7));
	munmap(p, THP);
	munmap(at(q, THP), THP);
	EXPECT_EQ(0, PEER(&self->a, do_wrong, NULL, L(q), THP / page(), 6));
}

TEST_F(adopt, counters_go_with_the_memory)
{
	size_t size = 48 * MB;
	long rss, anon, pte, data, shmem, virt;

	setting_set(&self->thp, THP_ENABLED, "never");
	rss = status("VmRSS");
	anon = status("RssAnon");
	shmem = status("RssShmem");
	pte = status("VmPTE");
	data = status("VmData");
	virt = status("VmSize");
	ASSERT_EQ(self->p, map_anon(self->p, size, MAP_PRIVATE));
	ASSERT_EQ(at(self->p, size), map_anon(at(self->p, size), size, MAP_SHARED));
	memset(self->p, 1, 2 * size);
	EXPECT_LT(rss + 90 * 1024, status("VmRSS"));
	EXPECT_LT(pte + 180, status("VmPTE"));
	ASSERT_OK(create(self->name, self->addr, self->len));
	EXPECT_GT(rss + 2048, status("VmRSS"));
	EXPECT_GT(anon + 1024, status("RssAnon"));
	EXPECT_GT(shmem + 1024, status("RssShmem"));
	EXPECT_GT(pte + 16, status("VmPTE"));
	EXPECT_GT(data + 1024, status("VmData"));
	EXPECT_EQ(virt + (long)(self->len / 1024), status("VmSize"));
	EXPECT_EQ(2 * (long)size / 1024, region_kb(self->name));
	/* And are taken from it there. */
	ASSERT_OK(munmap(self->p, size));
	EXPECT_EQ((long)size / 1024, region_kb(self->name));
	ASSERT_OK(munmap(at(self->p, size), size));
	EXPECT_EQ(0, region_kb(self->name));
}

TEST_F(adopt, memory_is_freed_with_the_region)
{
	long free_before, commit, i;

	setting_set(&self->thp, THP_ENABLED, "never");
	free_before = meminfo("AnonPages") + meminfo("PageTables");
	commit = meminfo("Committed_AS");
	for (i = 0; i < 4; i++) {
		ASSERT_EQ(self->p, map_anon(self->p, 16 * MB, MAP_PRIVATE));
		memset(self->p, 1, 16 * MB);
		ASSERT_OK(create(self->name, self->addr, self->len));
		EXPECT_LE(16 * 1024, meminfo("Committed_AS") - commit + 512);
		ASSERT_OK(mshare_unlink(self->name));
	}
	EXPECT_TRUE(WAIT_FOR(meminfo("AnonPages") + meminfo("PageTables") <
			     free_before + 4096, 10));
	EXPECT_TRUE(WAIT_FOR(meminfo("Committed_AS") < commit + 4096, 10));
}

TEST_F(adopt, the_region_outlives_its_creator)
{
	struct peer c;

	ASSERT_EQ(0, peer_start(&c));
	ASSERT_EQ(self->p, peer_mmap(&c, self->p, MB, RW, MAP_PRIVATE |
				     MAP_ANONYMOUS | MAP_FIXED, -1, 0));
	ASSERT_EQ(0, PEER(&c, do_fill, NULL, L(self->p), MB / page(), 4));
	ASSERT_OK(peer_create(&c, self->name, self->addr, self->len));
	peer_stop(&c);
	ASSERT_OK(attach(self->name));
	EXPECT_EQ(0, nr_wrong(self->p, MB / page(), 4));
}

TEST_F(adopt, locked_memory)
{
	long locked = status("VmLck"), mlocked = meminfo("Mlocked");

	ASSERT_EQ(self->p, map_anon(self->p, MB, MAP_PRIVATE));
	ASSERT_OK(mlock(self->p, MB));
	EXPECT_EQ(locked + 1024, status("VmLck"));
	EXPECT_LE(mlocked + 1024, meminfo("Mlocked"));
	ASSERT_OK(create(self->name, self->addr, self->len));
	EXPECT_EQ(locked, status("VmLck"));
	EXPECT_LE(mlocked + 1024, meminfo("Mlocked"));
	ASSERT_OK(mshare_unlink(self->name));
	EXPECT_TRUE(WAIT_FOR(meminfo("Mlocked") < mlocked + 512, 10));
}

/* What is locked in a region counts for the user. */
TEST_F(adopt, locked_memory_has_its_limit)
{
	pid_t pid;
	int st;

	pid = fork();
	if (!pid) {
		struct rlimit lim = { MB, MB };
		void *q = at(self->addr, self->len + GB);

		/* A user whom nobody else is. */
		if (setgroups(0, NULL) || setresgid(54321, 54321, 54321) ||
		    setresuid(54321, 54321, 54321) || setrlimit(RLIMIT_MEMLOCK, &lim))
			_exit(2);
		if (map_anon(self->p, MB, MAP_PRIVATE) != self->p ||
		    mlock(self->p, MB / 2) ||
		    map_anon(q, MB, MAP_PRIVATE) != q || mlock(q, MB / 2))
			_exit(3);
		if (create(self->name, self->addr, self->len) || status("VmLck") != 512)
			_exit(4);
		/* The process may lock as much again, but the user has it. */
		if (mlock(at(q, MB / 2), MB / 2))
			_exit(5);
		if (create(new_name(), at(self->addr, self->len), self->len) != -1 ||
		    errno != ENOMEM || status("VmLck") != 1024)
			_exit(6);
		if (munlock(at(q, MB / 2), MB / 2) ||
		    create(new_name(), at(self->addr, self->len), self->len))
			_exit(7);
		_exit(0);
	}
	ASSERT_EQ(pid, waitpid(pid, &st, 0));
	EXPECT_EQ(0, st);
}

TEST_F(adopt, a_child_and_its_parent_go_separate_ways)
{
	struct peer child;

	ASSERT_EQ(self->p, map_anon(self->p, MB, MAP_PRIVATE));
	fill(self->p, MB / page(), 1);
	ASSERT_EQ(0, peer_start(&child));
	ASSERT_OK(create(self->name, self->addr, self->len));
	ASSERT_OK(peer_attach(&self->a, self->name));
	EXPECT_EQ(0, PEER(&child, do_wrong, NULL, L(self->p), MB / page(), 1));
	/* The half that the region writes first, and the half the child does. */
	fill(self->p, MB / 2 / page(), 2);
	EXPECT_EQ(0, PEER(&child, do_wrong, NULL, L(self->p), MB / page(), 1));
	EXPECT_EQ(0, PEER(&child, do_fill, NULL, L(self->p), MB / page(), 3));
	EXPECT_EQ(0, PEER(&self->a, do_wrong, NULL, L(self->p), MB / 2 / page(), 2));
	EXPECT_EQ(0, PEER(&child, do_wrong, NULL, L(self->p), MB / page(), 3));
	ASSERT_EQ(0, PEER(&self->a, do_fill, NULL, L(self->p), MB / page(), 4));
	EXPECT_EQ(0, nr_wrong(self->p, MB / page(), 4));
	EXPECT_EQ(0, PEER(&child, do_wrong, NULL, L(self->p), MB / page(), 3));
	/* The child makes a region of what it has. */
	ASSERT_OK(peer_create(&child, new_name(), self->addr, self->len));
	EXPECT_EQ(0, PEER(&child, do_wrong, NULL, L(self->p), MB / page(), 3));
	EXPECT_EQ(0, nr_wrong(self->p, MB / page(), 4));
	peer_stop(&child);
	EXPECT_EQ(0, nr_wrong(self->p, MB / page(), 4));
}

/* The pages are the parent's, and rmap must find them in the region. */
TEST_F(adopt, a_child_adopts_what_it_inherited)
{
	struct peer child;

	ASSERT_EQ(self->p, map_anon(self->p, MB, MAP_PRIVATE));
	fill(self->p, MB / page(), 1);
	ASSERT_EQ(0, peer_start(&child));
	ASSERT_OK(peer_create(&child, self->name, self->addr, self->len));
	ASSERT_OK(peer_attach(&self->a, self->name));
	fill(self->p, MB / 2 / page(), 2);
	EXPECT_EQ(0, PEER(&self->a, do_wrong, NULL, L(self->p), MB / page(), 1));
	write_file("/proc/sys/vm/compact_memory", "1");
	ASSERT_OK(munmap(self->p, MB));
	EXPECT_EQ(0, PEER(&child, do_wrong, NULL, L(self->p), MB / page(), 1));
	EXPECT_EQ(0, PEER(&self->a, do_fill, NULL, L(self->p), MB / page(), 5));
	EXPECT_EQ(0, PEER(&child, do_wrong, NULL, L(self->p), MB / page(), 5));
	peer_stop(&child);
	write_file("/proc/sys/vm/compact_memory", "1");
	EXPECT_EQ(0, PEER(&self->a, do_wrong, NULL, L(self->p), MB / page(), 5));
}

TEST_F(adopt, who_forks_and_execs_later_is_not_in_the_way)
{
	pid_t pid;
	int st;

	ASSERT_EQ(self->p, map_anon(self->p, MB, MAP_PRIVATE));
	fill(self->p, MB / page(), 1);
	ASSERT_OK(create(self->name, self->addr, self->len));
	pid = fork();
	if (!pid) {
		if (nr_wrong(self->p, MB / page(), 1))
			_exit(1);
		fill(self->p, MB / page(), 2);
		execl("/bin/true", "true", NULL);
		_exit(2);
	}
	ASSERT_EQ(pid, waitpid(pid, &st, 0));
	EXPECT_EQ(0, st);
	EXPECT_EQ(0, nr_wrong(self->p, MB / page(), 2));
}

/* A reader gets no right from what it could do to its own memory. */
static void *write_until_fault(void *p)
{
	long ret, n = 0;

	while (!(ret = try_write(p, n)) && n < 1000000000)
		n++;
	return (void *)ret;
}

TEST_F(adopt, a_creator_that_only_reads_loses_its_rights)
{
	pthread_t t;
	void *ret;

	ASSERT_EQ(self->p, map_anon(self->p, MB, MAP_PRIVATE));
	fill(self->p, MB / page(), 1);
	ASSERT_EQ(0, pthread_create(&t, NULL, write_until_fault,
				    at(self->p, 256 * 8 + page())));
	usleep(10000);
	ASSERT_OK(mshare(self->name, self->addr, self->len, O_RDONLY | O_CREAT, 0600));
	ASSERT_EQ(0, pthread_join(t, &ret));
	EXPECT_EQ(FAULT(SIGSEGV, SEGV_ACCERR), (long)ret);
	EXPECT_EQ(0, nr_wrong(self->p, MB / page(), 1));
	EXPECT_EQ(FAULT(SIGSEGV, SEGV_ACCERR), try_write(self->p, 1));
	EXPECT_ERR(EACCES, munmap(self->p, page()));
	ASSERT_OK(peer_attach(&self->a, self->name));
	EXPECT_EQ(0, peer_write(&self->a, self->p, 77));
	EXPECT_EQ(77, try_read(self->p));
}

TEST_F(adopt, limits)
{
	struct rlimit lim, old;
	size_t virt;

	ASSERT_EQ(self->p, map_anon(self->p, 64 * MB, MAP_PRIVATE));
	*(char *)self->p = 1;
	getrlimit(RLIMIT_AS, &old);
	/* The attachment takes the place of what is there, and counts whole. */
	virt = status("VmSize") * 1024;
	lim = old;
	lim.rlim_cur = virt + self->len - 64 * MB - page();
	ASSERT_OK(setrlimit(RLIMIT_AS, &lim));
	EXPECT_ERR(ENOMEM, create(self->name, self->addr, self->len));
	EXPECT_EQ(1, try_read(self->p));
	EXPECT_FALSE(name_exists(self->name));
	lim.rlim_cur = virt + self->len - 64 * MB + 4 * MB;
	ASSERT_OK(setrlimit(RLIMIT_AS, &lim));
	EXPECT_OK(create(self->name, self->addr, self->len));
	ASSERT_OK(setrlimit(RLIMIT_AS, &old));
	EXPECT_EQ(1, try_read(self->p));
}

static volatile long alarms;

static void count_alarm(int sig __maybe_unused)
{
	alarms++;
}

/* It restarts, or waits, but is never seen to be interrupted. */
TEST_F(adopt, signals_are_not_seen)
{
	/* A debug kernel needs longer to take a signal. */
	const long usec = debug_kernel() ? 20000 : 300;
	struct itimerval it = { { 0, usec }, { 0, usec } }, none = { };
	struct sigaction sa = { .sa_handler = count_alarm }, old;
	long n = scaled(400), i, rounds;

	sigaction(SIGALRM, &sa, &old);
	for (rounds = 0; rounds < 10; rounds++) {
		for (i = 0; i < n; i++) {
			void *p = at(self->p, 2 * i * page());

			ASSERT_EQ(p, map_anon(p, page(), MAP_PRIVATE));
			*(long *)p = i;
		}
		setitimer(ITIMER_REAL, &it, NULL);
		if (it.it_value.tv_usec < 300000)
			it.it_value.tv_usec = it.it_interval.tv_usec *= 2;
		EXPECT_OK(create(self->name, self->addr, self->len));
		setitimer(ITIMER_REAL, &none, NULL);
		for (i = 0; i < n; i++)
			ASSERT_EQ(i, *(long *)at(self->p, 2 * i * page()));
		ASSERT_OK(mshare_unlink(self->name));
	}
	sigaction(SIGALRM, &old, NULL);
	EXPECT_LT(0, alarms);
}

TEST_F(adopt, merged_pages)
{
	struct setting run, pages, sleep, zero;
	size_t n = MB / page(), i;
	long merged;

	if (setting_save(&run, "/sys/kernel/mm/ksm/run"))
		SKIP(return, "no KSM");
	setting_set(&pages, "/sys/kernel/mm/ksm/pages_to_scan", "2000");
	setting_set(&sleep, "/sys/kernel/mm/ksm/sleep_millisecs", "5");
	setting_set(&zero, "/sys/kernel/mm/ksm/use_zero_pages", "1");
	ASSERT_EQ(self->p, map_anon(self->p, MB, MAP_PRIVATE));
	ASSERT_OK(madvise(self->p, MB, MADV_NOHUGEPAGE));
	ASSERT_OK(madvise(self->p, MB, MADV_MERGEABLE));
	/* Two that are the same after every one of zeros. */
	for (i = 0; i < n; i++)
		memset(at(self->p, i * page()), i % 3 ? 7 : 0, page());
	write_file("/sys/kernel/mm/ksm/run", "1");
	EXPECT_TRUE(WAIT_FOR(read_key("/proc/self/ksm_stat", "ksm_merging_pages") >=
			     (long)n / 2, 60));
	merged = read_key("/proc/self/ksm_stat", "ksm_merging_pages");
	ASSERT_OK(create(self->name, self->addr, self->len));
	ASSERT_OK(peer_attach(&self->a, self->name));
	for (i = 0; i < n; i++)
		EXPECT_EQ(i % 3 ? 7 : 0, peer_read(&self->a, at(self->p, i * page())));
	/* Let it forget the creator and find the host, and break some. */
	usleep(200000);
	for (i = 0; i < n / 2; i++)
		ASSERT_EQ(0, peer_write(&self->a, at(self->p, i * page()), 9));
	for (i = 0; i < n; i++)
		EXPECT_EQ(i < n / 2 ? 9 : i % 3 ? 7 : 0,
			  try_read(at(self->p, i * page())));
	EXPECT_TRUE(WAIT_FOR(read_key("/proc/self/ksm_stat", "ksm_merging_pages") == 0,
			     30)) {
		TH_LOG("%ld were merged", merged);
	}
	/* Unmerging all finds the host, or they would be merged for good. */
	write_file("/sys/kernel/mm/ksm/run", "2");
	{
		char buf[32] = "";

		read_file("/sys/kernel/mm/ksm/pages_shared", buf, sizeof(buf));
		EXPECT_EQ(0, atol(buf));
	}
	for (i = 0; i < n; i++)
		EXPECT_EQ(i < n / 2 ? 9 : i % 3 ? 7 : 0,
			  try_read(at(self->p, i * page())));
	setting_restore(&zero);
	setting_restore(&sleep);
	setting_restore(&pages);
	setting_restore(&run);
}

TEST_F(adopt, swapped_memory)
{
	size_t n = 4 * MB / page();
	struct zram zram;
	const char *why;
	long swapped;

	setting_set(&self->thp, THP_ENABLED, "never");
	why = zram_swapon(&zram, 64 * MB);
	if (why) {
		zram_end(&zram);
		SKIP(return, "%s", why);
	}
	ASSERT_EQ(self->p, map_anon(self->p, 4 * MB, MAP_PRIVATE));
	fill(self->p, n, 1);
	ASSERT_EQ(at(self->p, 4 * MB), map_anon(at(self->p, 4 * MB), 4 * MB, MAP_SHARED));
	fill(at(self->p, 4 * MB), n, 2);
	madvise(self->p, 8 * MB, MADV_PAGEOUT);
	swapped = status("VmSwap");
	EXPECT_LT(2 * 1024, swapped);
	ASSERT_OK(create(self->name, self->addr, self->len));
	EXPECT_GT(256, status("VmSwap"));
	ASSERT_OK(peer_attach(&self->a, self->name));
	EXPECT_EQ(0, PEER(&self->a, do_wrong, NULL, L(self->p), n / 2, 1));
	EXPECT_EQ(0, PEER(&self->a, do_wrong, NULL, L(at(self->p, 4 * MB)), n, 2));
	/* The rest must be found by swapoff, in the host alone. */
	ASSERT_OK(swapoff(zram.dev));
	zram.swap = false;
	EXPECT_EQ(0, nr_wrong(self->p, n, 1));
	zram_end(&zram);
}

/*
 * What cannot be adopted, and that nothing has changed then.
 */

FIXTURE(refused)
{
	const char *name;
	void *addr, *p, *q;
	size_t len;
	struct peer a;
};

FIXTURE_SETUP(refused)
{
	self->name = new_name();
	self->addr = slot(0);
	self->len = granule();
	self->p = at(self->addr, GB);
	self->q = at(self->addr, 2 * GB);
	ASSERT_EQ(0, peer_start(&self->a));
	/* Something that could be shared comes before and after it. */
	ASSERT_EQ(at(self->addr, -page()),
		  map_anon(at(self->addr, -page()), 2 * page(), MAP_PRIVATE));
	*(char *)self->addr = 1;
	ASSERT_EQ(self->q, map_anon(self->q, page(), MAP_PRIVATE));
	*(char *)self->q = 2;
}

FIXTURE_TEARDOWN(refused)
{
	peer_stop(&self->a);
	munmap(at(self->addr, -page()), self->len + page());
	remove_names();
}

#define EXPECT_REFUSED_WITH(_err) do {					\
	char *_before = maps_of(at(self->addr, -page()),		\
				self->len + page()), *_after;		\
	long _rss = region_kb(self->name);				\
									\
	EXPECT_ERR(_err, create(self->name, self->addr, self->len));	\
	_after = maps_of(at(self->addr, -page()), self->len + page());	\
	EXPECT_STREQ(_before, _after);					\
	EXPECT_EQ(-1, _rss);						\
	EXPECT_FALSE(name_exists(self->name));				\
	EXPECT_EQ(1, try_read(self->addr));				\
	EXPECT_EQ(2, try_read(self->q));				\
	EXPECT_EQ(PAGE_RW, page_state(self->addr));			\
	free(_before);							\
	free(_after);							\
} while (0)

/* ... and when it is gone it works. */
#define EXPECT_ADOPTED() do {						\
	EXPECT_OK(create(self->name, self->addr, self->len));		\
	EXPECT_OK(peer_attach(&self->a, self->name));			\
	EXPECT_EQ(1, peer_read(&self->a, self->addr));			\
	EXPECT_EQ(2, peer_read(&self->a, self->q));			\
} while (0)

TEST_F(refused, nothing_in_the_way)
{
	EXPECT_ADOPTED();
}

TEST_F(refused, growing_stack)
{
	ASSERT_NE(MAP_FAILED, mmap(self->p, page(), RW, MAP_PRIVATE | MAP_ANONYMOUS |
				   MAP_GROWSDOWN | MAP_FIXED, -1, 0));
	EXPECT_REFUSED_WITH(EINVAL);
	ASSERT_OK(munmap(self->p, page()));
	EXPECT_ADOPTED();
}

TEST_F(refused, droppable_memory)
{
	if (mmap(self->p, page(), RW, 0x08 /* MAP_DROPPABLE */ | MAP_ANONYMOUS |
		 MAP_FIXED, -1, 0) == MAP_FAILED)
		SKIP(return, "no MAP_DROPPABLE");
	EXPECT_REFUSED_WITH(EINVAL);
	ASSERT_OK(munmap(self->p, page()));
	EXPECT_ADOPTED();
}

TEST_F(refused, stack_and_vdso)
{
	unsigned long g = granule();
	void *base = (void *)((unsigned long)&g & ~(g - 1));

	EXPECT_ERR(EINVAL, create(self->name, base, g));
	EXPECT_FALSE(name_exists(self->name));
	EXPECT_EQ(granule(), g);
}

TEST_F(refused, heap)
{
	void *addr = slot(150);		/* above the program */
	pid_t pid;
	int st;

	pid = fork();
	if (!pid) {
		void *p = at(addr, GB);

		if (map_anon(p, MB, MAP_PRIVATE) != p)
			_exit(1);
		if (prctl(PR_SET_MM, PR_SET_MM_BRK, at(p, MB), 0, 0) ||
		    prctl(PR_SET_MM, PR_SET_MM_START_BRK, p, 0, 0))
			_exit(2);
		if (create(self->name, addr, granule()) != -1 || errno != EINVAL)
			_exit(3);
		if (prctl(PR_SET_MM, PR_SET_MM_START_BRK, at(p, MB), 0, 0))
			_exit(4);
		if (create(self->name, addr, granule()))
			_exit(5);
		_exit(0);
	}
	ASSERT_EQ(pid, waitpid(pid, &st, 0));
	ASSERT_TRUE(WIFEXITED(st));
	if (WEXITSTATUS(st) == 2)
		SKIP(return, "the heap cannot be moved");
	EXPECT_EQ(0, WEXITSTATUS(st));
}

TEST_F(refused, another_attachment)
{
	const char *other = new_name();

	ASSERT_OK(create(other, at(self->addr, self->len), self->len));
	EXPECT_ERR(EINVAL, create(self->name, self->addr, 2 * self->len));
	EXPECT_FALSE(name_exists(self->name));
	EXPECT_EQ(1, try_read(self->addr));
	ASSERT_OK(mshare_unlink(other));
	EXPECT_ADOPTED();
}

TEST_F(refused, secret_memory)
{
	int fd = syscall(__NR_memfd_secret, 0);

	if (fd < 0)
		SKIP(return, "no memfd_secret()");
	ASSERT_OK(ftruncate(fd, page()));
	ASSERT_EQ(self->p, mmap(self->p, page(), RW, MAP_SHARED | MAP_FIXED, fd, 0));
	*(char *)self->p = 1;
	EXPECT_REFUSED_WITH(EINVAL);
	EXPECT_EQ(1, try_read(self->p));
	ASSERT_OK(munmap(self->p, page()));
	EXPECT_ADOPTED();
	close(fd);
}

TEST_F(refused, sysv_shm)
{
	int id = shmget(IPC_PRIVATE, page(), IPC_CREAT | 0600);

	ASSERT_LE(0, id);
	ASSERT_EQ(self->p, shmat(id, self->p, 0));
	*(char *)self->p = 1;
	EXPECT_REFUSED_WITH(EINVAL);
	EXPECT_EQ(1, try_read(self->p));
	ASSERT_OK(shmdt(self->p));
	EXPECT_ADOPTED();
	shmctl(id, IPC_RMID, NULL);
}

TEST_F(refused, shadow_stack)
{
	void *p = (void *)syscall(__NR_map_shadow_stack, self->p, page(), 0);

	if (p != self->p)
		SKIP(return, "no shadow stacks");
	EXPECT_REFUSED_WITH(EINVAL);
	ASSERT_OK(munmap(self->p, page()));
	EXPECT_ADOPTED();
}

TEST_F(refused, sealed_memory)
{
	pid_t pid;
	int st;

	ASSERT_EQ(self->p, map_anon(self->p, page(), MAP_PRIVATE));
	pid = fork();
	if (!pid) {
		if (syscall(__NR_mseal, self->p, page(), 0))
			_exit(2);
		if (create(self->name, self->addr, self->len) != -1 || errno != EINVAL)
			_exit(3);
		_exit(!!name_exists(self->name));
	}
	ASSERT_EQ(pid, waitpid(pid, &st, 0));
	if (WEXITSTATUS(st) == 2)
		SKIP(return, "no mseal()");
	EXPECT_EQ(0, st);
	EXPECT_ADOPTED();
}

TEST_F(refused, userfaultfd)
{
	struct uffdio_api api = { .api = UFFD_API };
	struct uffdio_register reg = {
		.range = { (unsigned long)self->p, page() },
		.mode = UFFDIO_REGISTER_MODE_MISSING,
	};
	int fd = syscall(__NR_userfaultfd, O_CLOEXEC | UFFD_USER_MODE_ONLY);

	if (fd < 0 || ioctl(fd, UFFDIO_API, &api))
		SKIP(return, "no userfaultfd");
	ASSERT_EQ(self->p, map_anon(self->p, page(), MAP_PRIVATE));
	ASSERT_OK(ioctl(fd, UFFDIO_REGISTER, &reg));
	EXPECT_REFUSED_WITH(EINVAL);
	ASSERT_OK(ioctl(fd, UFFDIO_UNREGISTER, &reg.range));
	EXPECT_ADOPTED();
	close(fd);
}

TEST_F(refused, aio_ring)
{
	aio_context_t ctx = 0;
	unsigned long s, e;
	char *maps, *line;

	if (syscall(__NR_io_setup, 8, &ctx))
		SKIP(return, "no AIO");
	maps = maps_of(NULL, -1UL >> 1);
	line = strstr(maps, "/[aio]");
	ASSERT_NE(NULL, line);
	while (line > maps && line[-1] != '\n')
		line--;
	ASSERT_EQ(2, sscanf(line, "%lx-%lx", &s, &e));
	free(maps);
	ASSERT_EQ(self->p, mremap((void *)s, e - s, e - s,
				  MREMAP_MAYMOVE | MREMAP_FIXED, self->p));
	EXPECT_REFUSED_WITH(EINVAL);
	ASSERT_OK(mremap(self->p, e - s, e - s, MREMAP_MAYMOVE | MREMAP_FIXED,
			 at(self->addr, self->len)) == MAP_FAILED ? -1 : 0);
	EXPECT_ADOPTED();
	syscall(__NR_io_destroy, at(self->addr, self->len));
}

TEST_F(refused, perf_buffer)
{
	struct perf_event_attr attr = {
		.type = PERF_TYPE_SOFTWARE, .size = sizeof(attr),
		.config = PERF_COUNT_SW_DUMMY,
	};
	int fd = syscall(__NR_perf_event_open, &attr, 0, -1, -1, 0);

	if (fd < 0)
		SKIP(return, "no perf events");
	ASSERT_EQ(self->p, mmap(self->p, 2 * page(), RW, MAP_SHARED | MAP_FIXED, fd, 0));
	EXPECT_REFUSED_WITH(EINVAL);
	ASSERT_OK(munmap(self->p, 2 * page()));
	EXPECT_ADOPTED();
	close(fd);
}

TEST_F(refused, device_memory)
{
	int fd = open("/dev/mem", O_RDWR);

	if (fd < 0 || mmap(self->p, page(), PROT_READ, MAP_SHARED | MAP_FIXED, fd,
			   0xa0000) == MAP_FAILED)
		SKIP(return, "cannot map /dev/mem");
	EXPECT_REFUSED_WITH(EINVAL);
	ASSERT_OK(munmap(self->p, page()));
	EXPECT_ADOPTED();
	close(fd);
}

TEST_F(refused, breakpoints)
{
	const char *tracefs = "/sys/kernel/tracing";
	char path[64], text[128];
	void *text_at = self->p;
	int fd, i;

	mount("none", tracefs, "tracefs", 0, NULL);
	if (access("/sys/kernel/tracing/uprobe_events", W_OK))
		SKIP(return, "no uprobe_events");
	snprintf(path, sizeof(path), "/tmp/mshare-uprobe-%d", getpid());
	fd = open(path, O_RDWR | O_CREAT | O_TRUNC, 0700);
	ASSERT_LE(0, fd);
	for (i = 0; i < 8192; i += 16)
		ASSERT_EQ((ssize_t)sizeof(code_42),
			  pwrite(fd, code_42, sizeof(code_42), i));
	snprintf(text, sizeof(text), "p:mshare_test/t %s:0x10\n", path);
	if (write_file("/sys/kernel/tracing/uprobe_events", text))
		SKIP(return, "cannot make a uprobe");
	ASSERT_OK(write_file("/sys/kernel/tracing/events/mshare_test/t/enable", "1"));
	ASSERT_EQ(text_at, mmap(text_at, 2 * page(), PROT_READ | PROT_EXEC,
				MAP_PRIVATE | MAP_FIXED, fd, 0));
	EXPECT_EQ(0xcc, try_read(at(text_at, 0x10)));
	EXPECT_REFUSED_WITH(EINVAL);
	EXPECT_EQ(42, try_exec(at(text_at, 0x10)));
	/* The other page of it may be. */
	ASSERT_OK(munmap(text_at, page()));
	EXPECT_ADOPTED();
	EXPECT_EQ(42, try_exec(at(text_at, page())));
	write_file("/sys/kernel/tracing/events/mshare_test/t/enable", "0");
	write_file("/sys/kernel/tracing/uprobe_events", "-:mshare_test/t");
	unlink(path);
	close(fd);
}

/* The text is outside, but what counts its breakpoints is not. */
TEST_F(refused, reference_counters_of_breakpoints)
{
	const char *tracefs = "/sys/kernel/tracing";
	const int prot = PROT_READ | PROT_WRITE;
	volatile short *counter = at(self->p, 0x20);
	char path[64], text[128];
	void *text_at;
	int fd;

	mount("none", tracefs, "tracefs", 0, NULL);
	if (access("/sys/kernel/tracing/uprobe_events", W_OK))
		SKIP(return, "no uprobe_events");
	snprintf(path, sizeof(path), "/tmp/mshare-uprobe-%d", getpid());
	fd = open(path, O_RDWR | O_CREAT | O_TRUNC, 0700);
	ASSERT_LE(0, fd);
	ASSERT_OK(ftruncate(fd, 2 * page()));
	ASSERT_EQ((ssize_t)sizeof(code_42),
		  pwrite(fd, code_42, sizeof(code_42), 0x10));
	snprintf(text, sizeof(text), "p:mshare_test/r %s:0x10(0x%zx)\n", path,
		 page() + 0x20);
	if (write_file("/sys/kernel/tracing/uprobe_events", text))
		SKIP(return, "cannot make a uprobe");
	ASSERT_OK(write_file("/sys/kernel/tracing/events/mshare_test/r/enable", "1"));
	text_at = mmap(NULL, page(), PROT_READ | PROT_EXEC, MAP_PRIVATE, fd, 0);
	ASSERT_NE(MAP_FAILED, text_at);
	EXPECT_EQ(0xcc, try_read(at(text_at, 0x10)));
	ASSERT_EQ(self->p, mmap(self->p, page(), prot, MAP_PRIVATE | MAP_FIXED,
				fd, page()));
	EXPECT_EQ(1, *counter);
	EXPECT_REFUSED_WITH(EINVAL);
	/* It can be removed, and then there is nothing in the way. */
	write_file("/sys/kernel/tracing/events/mshare_test/r/enable", "0");
	write_file("/sys/kernel/tracing/uprobe_events", "-:mshare_test/r");
	EXPECT_EQ(0, *counter);
	EXPECT_ADOPTED();
	EXPECT_EQ(42, try_exec(at(text_at, 0x10)));
	munmap(text_at, page());
	unlink(path);
	close(fd);
}

TEST_F(refused, files_that_are_no_memory)
{
	int fd = open("/sys/bus/pci/devices/0000:00:01.0/resource0", O_RDWR);

	if (fd < 0)
		SKIP(return, "no PCI device with memory");
	if (mmap(self->p, page(), PROT_READ, MAP_SHARED | MAP_FIXED, fd, 0) == MAP_FAILED)
		SKIP(return, "cannot map it");
	EXPECT_REFUSED_WITH(EINVAL);
	close(fd);
}

/*
 * Huge pages of hugetlb, with what is reserved of them.
 */

#ifndef MFD_HUGETLB
#define MFD_HUGETLB	0x0004U
#endif
#ifndef MFD_HUGE_2MB
#define MFD_HUGE_2MB	(21U << 26)
#endif
#define MAP_HUGE	(MAP_HUGETLB | 21 << 26)
#define NR_HUGE		16

FIXTURE(hugetlb)
{
	const char *name;
	void *addr, *p;
	size_t len;
	struct peer a;
	struct setting nr;
	bool none;
	int fd;
};

FIXTURE_VARIANT(hugetlb)
{
	int flags;
	bool file;
};

FIXTURE_VARIANT_ADD(hugetlb, private) { .flags = MAP_PRIVATE };
FIXTURE_VARIANT_ADD(hugetlb, shared) { .flags = MAP_SHARED };
FIXTURE_VARIANT_ADD(hugetlb, file_private) { .flags = MAP_PRIVATE, .file = true };
FIXTURE_VARIANT_ADD(hugetlb, file_shared) { .flags = MAP_SHARED, .file = true };

FIXTURE_SETUP(hugetlb)
{
	self->name = new_name();
	self->addr = slot(0);
	self->len = granule();
	self->p = at(self->addr, GB);
	self->fd = -1;
	/* Before there is a file, which it would have open too. */
	ASSERT_EQ(0, peer_start(&self->a));
	self->none = setting_set(&self->nr, "/proc/sys/vm/nr_hugepages", "16") ||
		     !WAIT_FOR(meminfo("HugePages_Free") >= NR_HUGE, 10);
	if (self->none)
		return;
	if (variant->file) {
		self->fd = memfd_create("mshare", MFD_HUGETLB | MFD_HUGE_2MB);
		ASSERT_LE(0, self->fd);
		ASSERT_OK(ftruncate(self->fd, NR_HUGE * THP));
	}
}

FIXTURE_TEARDOWN(hugetlb)
{
	peer_stop(&self->a);
	munmap(self->addr, self->len);
	remove_names();
	if (self->fd >= 0)
		close(self->fd);
	setting_restore(&self->nr);
}

#define NEED_HUGETLB() do {						\
	if (self->none)							\
		SKIP(return, "no huge pages to be had");		\
} while (0)

#define map_huge(_addr, _n)						\
	mmap(_addr, (_n) * THP, RW, variant->flags | MAP_FIXED |	\
	     (variant->file ? 0 : MAP_ANONYMOUS | MAP_HUGE), self->fd, 0)

TEST_F(hugetlb, reservations_go_with_the_memory)
{
	long avail, rsvd, i;

	NEED_HUGETLB();
	ASSERT_EQ(self->p, map_huge(self->p, 8));
	for (i = 0; i < 3; i++)
		*(char *)at(self->p, i * THP) = 1 + i;
	avail = meminfo("HugePages_Free");
	rsvd = meminfo("HugePages_Rsvd");
	EXPECT_EQ(NR_HUGE - 3, avail);
	EXPECT_EQ(5, rsvd);
	EXPECT_LE(6 * 1024, status("HugetlbPages"));
	ASSERT_OK(create(self->name, self->addr, self->len));
	EXPECT_EQ(avail, meminfo("HugePages_Free"));
	EXPECT_EQ(rsvd, meminfo("HugePages_Rsvd"));
	EXPECT_EQ(0, status("HugetlbPages"));
	ASSERT_OK(peer_attach(&self->a, self->name));
	EXPECT_GT(FEW_FAULTS, PEER(&self->a, do_look_faults, NULL, L(self->p), 3));
	for (i = 0; i < 8; i++) {
		EXPECT_EQ(i < 3 ? 1 + i : 0, peer_read(&self->a, at(self->p, i * THP)));
		EXPECT_EQ(0, peer_write(&self->a, at(self->p, i * THP), 9 + i));
		EXPECT_EQ(9 + i, try_read(at(self->p, i * THP)));
	}
	EXPECT_EQ(0, meminfo("HugePages_Rsvd"));
	ASSERT_OK(munmap(at(self->p, 4 * THP), 4 * THP));
	EXPECT_EQ(PAGE_HOLE, peer_state(&self->a, at(self->p, 4 * THP)));
	EXPECT_EQ(12, try_read(at(self->p, 3 * THP)));
	ASSERT_OK(peer_unlink(&self->a, self->name));
	ASSERT_OK(mshare_unlink(self->name));
	if (self->fd >= 0)
		close(self->fd);
	self->fd = -1;
	EXPECT_TRUE(WAIT_FOR(meminfo("HugePages_Free") == NR_HUGE, 10));
	EXPECT_EQ(0, meminfo("HugePages_Rsvd"));
}

TEST_F(hugetlb, over_both_ends)
{
	void *left = at(self->addr, -2 * THP);
	void *right = at(self->addr, self->len - 2 * THP);
	long i, rsvd;

	NEED_HUGETLB();
	ASSERT_EQ(left, map_huge(left, 4));
	for (i = 0; i < 4; i += 2)
		*(char *)at(left, i * THP) = 1 + i;
	if (!variant->file) {
		ASSERT_EQ(right, map_huge(right, 4));
		for (i = 0; i < 4; i += 2)
			*(char *)at(right, i * THP) = 1 + i;
	}
	rsvd = meminfo("HugePages_Rsvd");
	ASSERT_OK(create(self->name, self->addr, self->len));
	EXPECT_EQ(rsvd, meminfo("HugePages_Rsvd"));
	ASSERT_OK(peer_attach(&self->a, self->name));
	EXPECT_EQ(1, try_read(left));
	EXPECT_EQ(3, peer_read(&self->a, self->addr));
	EXPECT_EQ(0, try_write(at(left, THP), 5));
	EXPECT_EQ(0, peer_write(&self->a, at(self->addr, THP), 6));
	EXPECT_EQ(rsvd - 2, meminfo("HugePages_Rsvd"));
	if (!variant->file) {
		EXPECT_EQ(1, peer_read(&self->a, right));
		EXPECT_EQ(3, try_read(at(right, 2 * THP)));
	}
	ASSERT_OK(munmap(left, 2 * THP));
	EXPECT_EQ(3, try_read(self->addr));
	EXPECT_EQ(6, try_read(at(self->addr, THP)));
	munmap(at(self->addr, self->len), 2 * THP);
	ASSERT_OK(peer_unlink(&self->a, self->name));
	ASSERT_OK(mshare_unlink(self->name));
	if (self->fd >= 0)
		close(self->fd);
	self->fd = -1;
	EXPECT_TRUE(WAIT_FOR(meminfo("HugePages_Free") == NR_HUGE, 10));
	EXPECT_EQ(0, meminfo("HugePages_Rsvd"));
}

static long do_map_gb(const struct request *rq)
{
	void *p = (void *)rq->a[0];

	return L(mmap(p, GB, RW, MAP_SHARED | MAP_FIXED | MAP_NORESERVE, rq->a[1], 0));
}

/* Whoever maps a whole GB of a file shares page tables with others who do. */
TEST_F(hugetlb, tables_that_are_shared_stay_with_the_others)
{
	struct peer b;
	long i;

	NEED_HUGETLB();
	if (!variant->file || variant->flags != MAP_SHARED)
		SKIP(return, "such tables are of shared files");
	ASSERT_OK(ftruncate(self->fd, GB));
	ASSERT_EQ(0, peer_start(&b));
	ASSERT_EQ(L(self->p), PEER(&b, do_map_gb, NULL, L(self->p), self->fd));
	for (i = 0; i < 4; i++)
		EXPECT_EQ(0, peer_write(&b, at(self->p, i * THP), 1 + i));
	ASSERT_EQ(self->p, mmap(self->p, GB, RW, MAP_SHARED | MAP_FIXED | MAP_NORESERVE,
				self->fd, 0));
	for (i = 0; i < 4; i++)
		EXPECT_EQ(1 + i, try_read(at(self->p, i * THP)));
	ASSERT_OK(create(self->name, self->addr, self->len));
	ASSERT_OK(peer_attach(&self->a, self->name));
	for (i = 0; i < 6; i++) {
		void *p = at(self->p, i * THP);

		EXPECT_EQ(i < 4 ? 1 + i : 0, peer_read(&self->a, p));
		EXPECT_EQ(0, peer_write(&self->a, p, 11 + i));
		EXPECT_EQ(11 + i, peer_read(&b, p));
		EXPECT_EQ(11 + i, try_read(p));
	}
	/* What one does to its mapping does not reach the other's. */
	ASSERT_OK(munmap(self->p, THP));
	EXPECT_EQ(11, peer_read(&b, self->p));
	ASSERT_OK(peer_mprotect(&b, at(self->p, THP), THP, PROT_READ));
	EXPECT_EQ(PAGE_RW, peer_state(&self->a, at(self->p, THP)));
	ASSERT_OK(peer_munmap(&b, self->p, GB));
	EXPECT_EQ(12, try_read(at(self->p, THP)));
	/* Truncation finds it all. */
	ASSERT_OK(ftruncate(self->fd, 2 * THP));
	EXPECT_EQ(SIGBUS, fault_sig(peer_read(&self->a, at(self->p, 2 * THP))));
	EXPECT_EQ(12, peer_read(&self->a, at(self->p, THP)));
	peer_stop(&b);
}

TEST_F(hugetlb, sysv_shm)
{
	int id;

	NEED_HUGETLB();
	id = shmget(IPC_PRIVATE, THP, IPC_CREAT | SHM_HUGETLB | 0600);
	if (id < 0)
		SKIP(return, "no SysV segment of huge pages");
	ASSERT_EQ(self->p, shmat(id, self->p, 0));
	EXPECT_ERR(EINVAL, create(self->name, self->addr, self->len));
	ASSERT_OK(shmdt(self->p));
	shmctl(id, IPC_RMID, NULL);
}

/*
 * Races. Words only count up, so that a lost write shows.
 */

FIXTURE(race)
{
	const char *name;
	void *addr, *p;
	size_t len, size;
	struct peer a;
	struct setting thp;
};

FIXTURE_VARIANT(race)
{
	int sharing;
	bool thp;
};

FIXTURE_VARIANT_ADD(race, anon_private) { .sharing = MAP_PRIVATE };
FIXTURE_VARIANT_ADD(race, anon_huge) { .sharing = MAP_PRIVATE, .thp = true };
FIXTURE_VARIANT_ADD(race, anon_shared) { .sharing = MAP_SHARED };

FIXTURE_SETUP(race)
{
	self->name = new_name();
	self->addr = slot(0);
	self->len = granule();
	self->p = at(self->addr, GB);
	self->size = 4 * MB;
	setting_set(&self->thp, THP_ENABLED, variant->thp ? "always" : "never");
	ASSERT_EQ(0, peer_start(&self->a));
}

FIXTURE_TEARDOWN(race)
{
	peer_stop(&self->a);
	munmap(self->addr, self->len);
	remove_names();
	setting_restore(&self->thp);
}

#define NR_WRITERS	2

struct writers {
	atomic_int stop;
	void *p;
	size_t nr;
	unsigned long done[NR_WRITERS];
	pthread_t t[NR_WRITERS];
};

struct writer {
	struct writers *w;
	int id;
};

static void *write_words(void *arg)
{
	struct writer *wr = arg;
	struct writers *w = wr->w;
	unsigned long n = 0;
	int id = wr->id;
	size_t i;

	free(wr);
	while (!atomic_load(&w->stop)) {
		n++;
		for (i = 0; i < w->nr; i++) {
			volatile unsigned long *p = at(w->p, i * page() + 64 * id);

			/* What was there must be what we wrote the last time. */
			if (n > 1 && *p != n - 1) {
				w->done[id] = -1UL;
				return (void *)1;
			}
			*p = n;
		}
		w->done[id] = n;
	}
	return NULL;
}

static int start_writers(struct writers *w, void *p, size_t nr)
{
	int i;

	memset(w, 0, sizeof(*w));
	w->p = p;
	w->nr = nr;
	for (i = 0; i < NR_WRITERS; i++) {
		struct writer *wr = malloc(sizeof(*wr));

		wr->w = w;
		wr->id = i;
		if (pthread_create(&w->t[i], NULL, write_words, wr))
			return -1;
	}
	return 0;
}

/* Words that are not what was written last. */
static long stop_writers(struct writers *w)
{
	long bad = 0;
	size_t i;
	int id;

	atomic_store(&w->stop, 1);
	for (id = 0; id < NR_WRITERS; id++)
		pthread_join(w->t[id], NULL);
	for (id = 0; id < NR_WRITERS; id++)
		for (i = 0; i < w->nr; i++)
			if (*(unsigned long *)at(w->p, i * page() + 64 * id) !=
			    w->done[id])
				bad++;
	return bad;
}

static void adopt_under_load(struct __test_metadata *_metadata,
			     FIXTURE_DATA(race) *self, int sharing, size_t nr,
			     long rounds, void (*load)(void *p, size_t size))
{
	struct writers w;
	long i;

	for (i = 0; i < rounds; i++) {
		ASSERT_EQ(self->p, map_anon(self->p, self->size, sharing));
		ASSERT_EQ(0, start_writers(&w, self->p, nr));
		if (load)
			load(self->p, self->size);
		usleep(i % 8 * 300);
		ASSERT_OK(create(self->name, self->addr, self->len));
		if (load)
			load(self->p, self->size);
		usleep(2000);
		ASSERT_EQ(0, stop_writers(&w)) {
			TH_LOG("round %ld: %lu and %lu times", i, w.done[0],
			       w.done[1]);
		}
		ASSERT_OK(peer_attach(&self->a, self->name));
		ASSERT_EQ((long)(w.done[0] & 0xff), peer_read(&self->a, self->p));
		ASSERT_OK(peer_unlink(&self->a, self->name));
		ASSERT_OK(mshare_unlink(self->name));
	}
}

TEST_F_TIMEOUT(race, with_writers, SHORT_TIMEOUT)
{
	adopt_under_load(_metadata, self, variant->sharing, self->size / page(),
			 scaled(8), NULL);
}

TEST_F_TIMEOUT(race, with_writers_of_few_pages, SHORT_TIMEOUT)
{
	adopt_under_load(_metadata, self, variant->sharing, 8, scaled(25), NULL);
}

static long do_compact(const struct request *rq)
{
	atomic_int *stop = (void *)rq->a[0];

	while (!atomic_load(stop)) {
		write_file("/proc/sys/vm/compact_memory", "1");
		usleep(1000);
	}
	return 0;
}

TEST_F_TIMEOUT(race, with_compaction, LONG_TIMEOUT)
{
	atomic_int *stop = mmap(NULL, page(), RW, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	struct peer c;

	ASSERT_EQ(0, peer_start(&c));
	PEER_SEND(&c, do_compact, NULL, L(stop));
	adopt_under_load(_metadata, self, variant->sharing, self->size / page(),
			 scaled(6), NULL);
	atomic_store(stop, 1);
	EXPECT_EQ(0, peer_wait(&c));
	peer_stop(&c);
}

struct pageout {
	atomic_int stop;
	int pidfd;
};

/* Reclaims the memory of another process, all the time. */
static long do_pageout(const struct request *rq)
{
	atomic_int *stop = (void *)rq->a[0];
	int pidfd = syscall(SYS_pidfd_open, rq->a[1], 0);
	struct iovec iov = { (void *)rq->a[2], rq->a[3] };
	long done = 0;

	while (!atomic_load(stop)) {
		if (syscall(SYS_process_madvise, pidfd, &iov, 1, MADV_PAGEOUT, 0) > 0)
			done++;
		usleep(200);
	}
	close(pidfd);
	return done;
}

TEST_F_TIMEOUT(race, with_reclaim, LONG_TIMEOUT)
{
	atomic_int *stop = mmap(NULL, page(), RW, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	struct zram zram;
	const char *why;
	struct peer c;

	why = zram_swapon(&zram, 128 * MB);
	if (why) {
		zram_end(&zram);
		SKIP(return, "%s", why);
	}
	ASSERT_EQ(0, peer_start(&c));
	PEER_SEND(&c, do_pageout, NULL, L(stop), getpid(), L(self->p), self->size);
	adopt_under_load(_metadata, self, variant->sharing, self->size / page(),
			 scaled(10), NULL);
	atomic_store(stop, 1);
	EXPECT_LT(0, peer_wait(&c));
	peer_stop(&c);
	EXPECT_OK(swapoff(zram.dev));
	zram.swap = false;
	zram_end(&zram);
}

/* Threads that fault, map and unmap all over the range meanwhile. */
struct churn {
	atomic_int stop;
	void *p;
	size_t size;
	long errors;
};

static void *churn(void *arg)
{
	struct churn *c = arg;
	unsigned int seed = 1;

	while (!atomic_load(&c->stop)) {
		size_t n = c->size / page();
		size_t i = rand_r(&seed) % n;
		void *p = at(c->p, i * page());
		long r;

		switch (rand_r(&seed) % 6) {
		case 0:
			r = try_write(p, 1);
			if (r && fault_sig(r) != SIGSEGV && fault_sig(r) != SIGBUS)
				c->errors++;
			break;
		case 1:
			if (map_anon(p, page(), MAP_PRIVATE) != p)
				c->errors++;
			break;
		case 2:
			if (munmap(p, page()))
				c->errors++;
			break;
		case 3:
			mprotect(p, page(), PROT_READ);
			break;
		case 4:
			madvise(p, page(), MADV_DONTNEED);
			break;
		case 5:
			(void)try_read(p);
			break;
		}
	}
	return NULL;
}

TEST_F_TIMEOUT(race, with_memory_calls_and_faults, LONG_TIMEOUT)
{
	long rounds = scaled(25), i, j;

	for (i = 0; i < rounds; i++) {
		struct churn c[2] = { };
		pthread_t t[2];

		ASSERT_EQ(self->p, map_anon(self->p, self->size, variant->sharing));
		for (j = 0; j < 2; j++) {
			c[j].p = self->p;
			c[j].size = self->size;
			ASSERT_EQ(0, pthread_create(&t[j], NULL, churn, &c[j]));
		}
		usleep(i % 8 * 300);
		ASSERT_OK(create(self->name, self->addr, self->len));
		usleep(3000);
		for (j = 0; j < 2; j++) {
			atomic_store(&c[j].stop, 1);
			pthread_join(t[j], NULL);
			EXPECT_EQ(0, c[j].errors);
		}
		ASSERT_OK(peer_attach(&self->a, self->name));
		for (j = 0; j < 32; j++) {
			void *p = at(self->p, j * page());

			ASSERT_EQ(page_state(p), peer_state(&self->a, p));
		}
		ASSERT_OK(peer_unlink(&self->a, self->name));
		ASSERT_OK(mshare_unlink(self->name));
	}
}

static void *truncate_often(void *arg)
{
	struct churn *c = arg;
	int fd = c->errors;

	while (!atomic_load(&c->stop)) {
		ftruncate(fd, 0);
		ftruncate(fd, c->size);
	}
	return NULL;
}

TEST_F_TIMEOUT(race, with_truncation, LONG_TIMEOUT)
{
	int fd = memfd_create("mshare", MFD_CLOEXEC);
	long rounds = scaled(25), i, j;

	ASSERT_LE(0, fd);
	for (i = 0; i < rounds; i++) {
		struct churn c = { .size = self->size, .errors = fd };
		pthread_t t;

		ASSERT_EQ(self->p, mmap(self->p, self->size, RW, MAP_FIXED |
					variant->sharing, fd, 0));
		ASSERT_EQ(0, pthread_create(&t, NULL, truncate_often, &c));
		for (j = 0; j < 64; j++)
			(void)try_write(at(self->p, (j + i) % 1024 * page()), 1);
		ASSERT_OK(create(self->name, self->addr, self->len));
		for (j = 0; j < 64; j++)
			(void)try_write(at(self->p, (j + i) % 1024 * page()), 1);
		atomic_store(&c.stop, 1);
		pthread_join(t, NULL);
		/* All is gone with the last of it, wherever it was mapped. */
		ASSERT_OK(ftruncate(fd, 0));
		for (j = 0; j < 64; j++)
			ASSERT_EQ(SIGBUS, fault_sig(try_read(at(self->p, j * page()))));
		ASSERT_OK(mshare_unlink(self->name));
	}
	close(fd);
}

/* Children come and go, which share the pages. */
TEST_F_TIMEOUT(race, with_forks, LONG_TIMEOUT)
{
	long rounds = scaled(12), i;
	size_t n = self->size / page();

	for (i = 0; i < rounds; i++) {
		pid_t pid[3];
		int j, st;

		ASSERT_EQ(self->p, map_anon(self->p, self->size, variant->sharing));
		fill(self->p, n, i);
		for (j = 0; j < 3; j++) {
			pid[j] = fork();
			if (!pid[j]) {
				if (variant->sharing == MAP_PRIVATE)
					fill(self->p, n / 2, 1000 + j);
				usleep(j * 500);
				_exit(variant->sharing == MAP_PRIVATE &&
				      nr_wrong(self->p, n / 2, 1000 + j));
			}
		}
		ASSERT_OK(create(self->name, self->addr, self->len));
		EXPECT_EQ(0, nr_wrong(self->p, n, i));
		fill(self->p, n, i + 1);
		for (j = 0; j < 3; j++) {
			ASSERT_EQ(pid[j], waitpid(pid[j], &st, 0));
			EXPECT_EQ(0, st);
		}
		EXPECT_EQ(0, nr_wrong(self->p, n, i + 1));
		ASSERT_OK(mshare_unlink(self->name));
	}
}

/* Somebody attaches in the same moment that the name appears. */
static long do_attach_soon(const struct request *rq)
{
	double end = now() + 10;

	while (mshare(rq->s, NULL, 0, O_RDWR, 0)) {
		if (errno != ENOENT || now() > end)
			return -1;
	}
	return nr_wrong((void *)rq->a[0], rq->a[1], rq->a[2]);
}

TEST_F_TIMEOUT(race, with_attaching, LONG_TIMEOUT)
{
	long rounds = scaled(12), i;
	size_t n = 64;

	for (i = 0; i < rounds; i++) {
		ASSERT_EQ(self->p, map_anon(self->p, self->size, variant->sharing));
		fill(self->p, n, i);
		PEER_SEND(&self->a, do_attach_soon, self->name, L(self->p), n, i);
		ASSERT_OK(create(self->name, self->addr, self->len));
		ASSERT_EQ(0, peer_wait(&self->a));
		ASSERT_OK(peer_unlink(&self->a, self->name));
		ASSERT_OK(mshare_unlink(self->name));
	}
}

MSHARE_TEST_MAIN
