// SPDX-License-Identifier: GPL-2.0
/*
 * Memory calls inside a region that act on what is mapped there: madvise,
 * process_madvise, mremap, msync, mincore, remap_file_pages and naming. What one
 * process does all see at once; what a call returns is what it returns for the
 * same memory outside of regions; across an edge it changes nothing.
 */
#include "mshare_env.h"
#include <linux/io_uring.h>
#include <sys/uio.h>

#ifndef SYS_process_madvise
#define SYS_process_madvise	440
#endif
#ifndef PR_SET_VMA
#define PR_SET_VMA		0x53564d41
#define PR_SET_VMA_ANON_NAME	0
#endif
#ifndef MREMAP_DONTUNMAP
#define MREMAP_DONTUNMAP	4
#endif
#undef MADV_FREE
#undef MADV_REMOVE
#define MADV_FREE		8
#define MADV_REMOVE		9
#define MADV_WIPEONFORK_	18
#define MADV_KEEPONFORK_	19
#define MADV_COLD_		20
#define MADV_PAGEOUT_		21
#define MADV_POPULATE_READ_	22
#define MADV_POPULATE_WRITE_	23
#define MADV_DONTNEED_LOCKED_	24
#define MADV_COLLAPSE_		25

#define RW	(PROT_READ | PROT_WRITE)
#define ANON	(MAP_PRIVATE | MAP_ANONYMOUS)
#define THP	(2 * MB)
#define HOLE	FAULT(SIGBUS, BUS_ADRERR)

/* On top of what else is used for tests: outside of the region */
#define OUTSIDE	slot(40)

static size_t pages(size_t n)
{
	return n * page();
}

/* What peers are asked for. */

static long do_madv(const struct request *rq)
{
	return madvise((void *)rq->a[0], rq->a[1], rq->a[2]);
}

static long peer_madvise(struct peer *p, void *addr, size_t len, int advice)
{
	return PEER(p, do_madv, NULL, L(addr), len, advice);
}

static long do_mremap(const struct request *rq)
{
	return L(mremap((void *)rq->a[0], rq->a[1], rq->a[2], rq->a[3],
			(void *)rq->a[4]));
}

static void *peer_mremap(struct peer *p, void *addr, size_t old_len,
			 size_t new_len, int flags, void *new_addr)
{
	return (void *)PEER(p, do_mremap, NULL, L(addr), old_len, new_len, flags,
			    L(new_addr));
}

static long do_msync_(const struct request *rq)
{
	return msync((void *)rq->a[0], rq->a[1], rq->a[2]);
}

static long do_rfp(const struct request *rq)
{
	return remap_file_pages((void *)rq->a[0], rq->a[1], 0, rq->a[2], 0);
}

static long do_name(const struct request *rq)
{
	return prctl(PR_SET_VMA, PR_SET_VMA_ANON_NAME, rq->a[0], rq->a[1], rq->s);
}

/* How many of the pages are in core, or -1. */
static long in_core(void *p, size_t n)
{
	unsigned char *vec = malloc(n);
	long sum = 0, ret;
	size_t i;
	int err;

	memset(vec, 0xaa, n);
	ret = mincore(p, pages(n), vec);
	err = errno;
	for (i = 0; !ret && i < n; i++)
		sum += vec[i] & 1;
	free(vec);
	errno = err;
	return ret ? ret : sum;
}

static long do_in_core(const struct request *rq)
{
	return in_core((void *)rq->a[0], rq->a[1]);
}

/* Reads a byte of each page; returns the faults that took, or -1. */
static long faults_of(void *p, size_t n)
{
	long before = minflt() + majflt();
	size_t i;

	for (i = 0; i < n; i++)
		if (try_read(at(p, pages(i))) < 0)
			return -1;
	return minflt() + majflt() - before;
}

static long do_faults_of(const struct request *rq)
{
	/* Once for the pages of the code itself */
	faults_of((void *)&name_count, 1);
	return faults_of((void *)rq->a[0], rq->a[1]);
}

/* The first of @n pages whose first byte is not @val, or -1. */
static long first_other(void *p, size_t n, int val)
{
	size_t i;

	for (i = 0; i < n; i++)
		if (try_read(at(p, pages(i))) != val)
			return i;
	return -1;
}

static long do_first_other(const struct request *rq)
{
	return first_other((void *)rq->a[0], rq->a[1], rq->a[2]);
}

static long peer_first_other(struct peer *p, void *addr, size_t n, int val)
{
	return PEER(p, do_first_other, NULL, L(addr), n, val);
}

/* As first_other(), for page i with a first byte of @val + i */
static long first_out_of_line(void *p, size_t n, int val)
{
	size_t i;

	for (i = 0; i < n; i++)
		if (try_read(at(p, pages(i))) != (long)(val + i))
			return i;
	return -1;
}

static long do_first_out_of_line(const struct request *rq)
{
	return first_out_of_line((void *)rq->a[0], rq->a[1], rq->a[2]);
}

/*
 * Every kind of memory, a mapping of KIND_PAGES pages at an address where huge
 * pages are possible, in a region that two more processes are attached to and a
 * third is read-only. The first byte of page i is 100 + i, and each process has
 * read it.
 */
FIXTURE(kind)
{
	const char *name, *why;
	void *addr, *p;
	size_t len, n;
	struct peer a, b, ro;
	struct kind_data k;
	struct setting thp;
	bool shared, anon;
};

FIXTURE_VARIANT(kind)
{
	enum kind kind;
	bool thp;
};

FIXTURE_VARIANT_ADD(kind, anon_private) { .kind = ANON_PRIVATE };
FIXTURE_VARIANT_ADD(kind, anon_private_thp) { .kind = ANON_PRIVATE, .thp = true };
FIXTURE_VARIANT_ADD(kind, anon_shared) { .kind = ANON_SHARED };
FIXTURE_VARIANT_ADD(kind, memfd) { .kind = MEMFD };
FIXTURE_VARIANT_ADD(kind, tmpfs_shared) { .kind = TMPFS_SHARED };
FIXTURE_VARIANT_ADD(kind, tmpfs_private) { .kind = TMPFS_PRIVATE };
FIXTURE_VARIANT_ADD(kind, ext4_shared) { .kind = EXT4_SHARED };
FIXTURE_VARIANT_ADD(kind, ext4_private) { .kind = EXT4_PRIVATE };
FIXTURE_VARIANT_ADD(kind, overlay_shared) { .kind = OVERLAY_SHARED };
FIXTURE_VARIANT_ADD(kind, dev_zero_shared) { .kind = ZERO_SHARED };

static void *map_kind(struct _test_data_kind *self, void *p, int fixed)
{
	return kind_map(&self->k, p, pages(self->n), RW, fixed, 0);
}

/* The content of page @i when nobody has written to it, or lost what was. */
static int base_byte(struct _test_data_kind *self, int i)
{
	return i < KIND_PAGES ? kind_byte(&self->k, i) : 0;
}

FIXTURE_SETUP(kind)
{
	size_t i;

	NOT_ON_DEBUG(variant->kind == ANON_SHARED);
	self->why = kind_init(&self->k, variant->kind);
	if (self->why)
		SKIP(return, "%s", self->why);
	self->name = new_name();
	self->addr = slot(0);
	self->len = granule();
	setting_set(&self->thp, THP_ENABLED, variant->thp ? "always" : "never");
	self->n = variant->thp ? THP / page() : KIND_PAGES;
	ASSERT_EQ(0, peer_start(&self->a));
	ASSERT_EQ(0, peer_start(&self->b));
	ASSERT_EQ(0, peer_start(&self->ro));
	self->shared = self->k.flags & MAP_SHARED;
	self->anon = variant->kind == ANON_PRIVATE;
	self->p = at(self->addr, GB);
	ASSERT_OK(create(self->name, self->addr, self->len));
	ASSERT_OK(peer_attach(&self->a, self->name));
	ASSERT_OK(peer_attach(&self->b, self->name));
	ASSERT_OK(PEER(&self->ro, do_mshare, self->name, 0, 0, O_RDONLY, 0));
	ASSERT_EQ(self->p, map_kind(self, self->p, MAP_FIXED));
	for (i = 0; i < KIND_PAGES; i++)
		ASSERT_EQ(0, try_write(at(self->p, pages(i)), 100 + i));
	ASSERT_EQ(-1, PEER(&self->a, do_first_out_of_line, NULL, L(self->p),
			   KIND_PAGES, 100));
	ASSERT_EQ(-1, PEER(&self->ro, do_first_out_of_line, NULL, L(self->p),
			   KIND_PAGES, 100));
}

FIXTURE_TEARDOWN(kind)
{
	peer_stop(&self->a);
	peer_stop(&self->b);
	peer_stop(&self->ro);
	munmap(self->addr, self->len);
	remove_names();
	kind_end(&self->k);
	setting_restore(&self->thp);
}

/* Is page @i as it was written in the setup, in every process? */
#define EXPECT_PAGE(_p, _i, _val) do {					\
	EXPECT_EQ((long)(_val), try_read(at(_p, pages(_i))));		\
	EXPECT_EQ((long)(_val), peer_read(&self->a, at(_p, pages(_i))));	\
	EXPECT_EQ((long)(_val), peer_read(&self->ro, at(_p, pages(_i))));	\
} while (0)

/* The same for @_n pages of rising value */
#define EXPECT_PAGES(_p, _n, _val) do {					\
	EXPECT_EQ(-1, first_out_of_line(_p, _n, _val));			\
	EXPECT_EQ(-1, PEER(&self->a, do_first_out_of_line, NULL, L(_p), _n, _val)); \
	EXPECT_EQ(-1, PEER(&self->ro, do_first_out_of_line, NULL, L(_p), _n, _val)); \
} while (0)

/* madvise */

static void dontneed(struct __test_metadata *_metadata,
		     struct _test_data_kind *self, int advice)
{
	int i;

	/* Pages 2 to 5, by another than whose tables it was filled from */
	EXPECT_OK(peer_madvise(&self->b, at(self->p, pages(2)), pages(4), advice));
	for (i = 0; i < 8; i++) {
		EXPECT_PAGE(self->p, i, self->shared || i < 2 || i > 5 ? 100 + i :
			    base_byte(self, i));
	}
	/* And it is ordinary memory still. */
	EXPECT_EQ(0, peer_write(&self->a, at(self->p, pages(3)), 77));
	EXPECT_PAGE(self->p, 3, 77);
}

TEST_F(kind, madv_dontneed)
{
	dontneed(_metadata, self, MADV_DONTNEED);
}

TEST_F(kind, madv_dontneed_locked)
{
	dontneed(_metadata, self, MADV_DONTNEED_LOCKED_);
}

TEST_F(kind, madv_free)
{
	long val;
	int i;

	if (!self->anon) {
		EXPECT_ERR(EINVAL, peer_madvise(&self->b, self->p, pages(4), MADV_FREE));
		EXPECT_PAGE(self->p, 1, 101);
		return;
	}
	EXPECT_OK(peer_madvise(&self->b, self->p, pages(4), MADV_FREE));
	/* Free to go, unless written to again. */
	EXPECT_EQ(0, peer_write(&self->a, at(self->p, pages(1)), 9));
	for (i = 0; i < 4; i++) {
		val = peer_read(&self->a, at(self->p, pages(i)));
		if (i == 1) {
			EXPECT_EQ(9, val);
		} else {
			EXPECT_TRUE(val == 0 || val == 100 + i);
		}
	}
	EXPECT_PAGE(self->p, 4, 104);
}

TEST_F(kind, madv_remove)
{
	long ret = peer_madvise(&self->b, at(self->p, pages(2)), pages(4),
				MADV_REMOVE);
	int err = errno, i;

	if (ret) {
		EXPECT_EQ(self->anon ? EINVAL :
			  !self->shared ? EACCES : EOPNOTSUPP, err);
		EXPECT_TRUE(!self->shared || variant->kind == OVERLAY_SHARED);
	}
	for (i = 0; i < 8; i++) {
		EXPECT_PAGE(self->p, i, ret || i < 2 || i > 5 ? 100 + i : 0);
	}
}

TEST_F(kind, madv_populate)
{
	void *q = at(self->p, 64 * MB);
	int advice;

	for (advice = MADV_POPULATE_READ_; advice <= MADV_POPULATE_WRITE_; advice++) {
		ASSERT_EQ(q, map_kind(self, q, MAP_FIXED));
		if (!self->shared && !self->k.file) {
			EXPECT_EQ(0, PEER(&self->a, do_in_core, NULL, L(q), KIND_PAGES));
		}
		EXPECT_OK(peer_madvise(&self->b, q, pages(KIND_PAGES), advice));
		/* One fault is no more than noise of the process itself. */
		EXPECT_GE(2, PEER(&self->a, do_faults_of, NULL, L(q), KIND_PAGES));
		EXPECT_EQ(KIND_PAGES, PEER(&self->a, do_in_core, NULL, L(q),
					   KIND_PAGES));
		EXPECT_EQ(self->shared && self->k.file ? 101 : base_byte(self, 1),
			  peer_read(&self->a, at(q, pages(1))));
		ASSERT_OK(munmap(q, pages(self->n)));
	}
	/* What is not mapped is ENOMEM, what may not be written EINVAL. */
	ASSERT_EQ(q, map_kind(self, q, MAP_FIXED));
	EXPECT_ERR(ENOMEM, madvise(at(q, pages(self->n - 1)), pages(2),
				   MADV_POPULATE_READ_));
	ASSERT_OK(mprotect(q, pages(self->n), PROT_READ));
	EXPECT_ERR(EINVAL, peer_madvise(&self->b, q, pages(2), MADV_POPULATE_WRITE_));
	EXPECT_OK(peer_madvise(&self->b, q, pages(2), MADV_POPULATE_READ_));
}

static const int advices[] = {
	MADV_NORMAL, MADV_RANDOM, MADV_SEQUENTIAL, MADV_WILLNEED,
	MADV_COLD_, MADV_PAGEOUT_, MADV_MERGEABLE, MADV_UNMERGEABLE,
	MADV_HUGEPAGE, MADV_NOHUGEPAGE, MADV_POPULATE_READ_,
	MADV_POPULATE_WRITE_, MADV_DONTNEED, MADV_DONTNEED_LOCKED_, MADV_FREE,
	MADV_COLLAPSE_, MADV_REMOVE, 1234,
};

/*
 * Whatever the advice, the same comes back as for memory of the same kind in an
 * address space of one's own: in the middle of a mapping, on all of it, with a
 * hole behind it, with nothing there at all, with strange lengths.
 */
TEST_F(kind, madvise_returns_what_it_does_elsewhere)
{
	void *twin = at(OUTSIDE, GB);
	static const struct {
		long from, len;
	} ranges[] = {
		{ 1, 2 * 4096 }, { 0, 0 }, { 0, -1 }, { 0, -4096 }, { 0, -8192 },
		{ 4, 1 }, { KIND_PAGES - 1, 4096 }, { KIND_PAGES - 1, 2 * 4096 },
		{ KIND_PAGES, 4096 }, { 0, KIND_PAGES * 4096 },
	};
	size_t i, j;

	if (variant->thp)
		SKIP(return, "covered by anon_private");
	ASSERT_EQ(twin, map_kind(self, twin, MAP_FIXED));
	for (i = 0; i < ARRAY_SIZE(advices); i++) {
		for (j = 0; j < ARRAY_SIZE(ranges); j++) {
			long off = pages(ranges[j].from), len = ranges[j].len;
			long in, out, in_err, out_err;

			errno = 0;
			in = peer_madvise(&self->b, at(self->p, off), len, advices[i]);
			in_err = in ? errno : 0;
			errno = 0;
			out = madvise(at(twin, off), len, advices[i]);
			out_err = out ? errno : 0;
			/* Across the edge, far away, but not for no range at all. */
			if (len == -8192 && out_err == EINVAL)
				out_err = in_err;
			EXPECT_EQ(out_err, in_err) {
				TH_LOG("advice %d, page %ld, length %ld", advices[i],
				       ranges[j].from, len);
			}
		}
		EXPECT_EQ('w', peer_state(&self->a, self->p));
	}
	EXPECT_ERR(EINVAL, madvise(at(self->p, 1), page(), MADV_DONTNEED));
	munmap(twin, pages(self->n));
}

/* What is there is done and what is not is ENOMEM. */
TEST_F(kind, madvise_goes_on_behind_a_hole)
{
	int i;

	ASSERT_OK(munmap(at(self->p, pages(3)), page()));
	EXPECT_ERR(ENOMEM, peer_madvise(&self->b, at(self->p, pages(2)), pages(3),
					MADV_DONTNEED));
	for (i = 1; i < 6; i++) {
		if (i == 3)
			continue;
		EXPECT_PAGE(self->p, i, self->shared || i == 1 || i == 5 ? 100 + i :
			    base_byte(self, i));
	}
	EXPECT_EQ(SIGBUS, fault_sig(peer_read(&self->a, at(self->p, pages(3)))));
}

/* mremap */

TEST_F(kind, mremap_grows_in_place)
{
	size_t n = self->n;
	void *p = self->p;
	long val;

	EXPECT_EQ(SIGBUS, fault_sig(peer_read(&self->a, at(p, pages(n)))));
	ASSERT_EQ(p, peer_mremap(&self->b, p, pages(n), pages(n + 8), 0, NULL));
	EXPECT_PAGE(p, 0, 100);
	EXPECT_PAGE(p, 63, 163);
	/* Behind the end of a file or of a shared mapping there is nothing. */
	val = self->anon ? 0 : HOLE;
	EXPECT_EQ(val, try_read(at(p, pages(n + 7))));
	EXPECT_EQ(val, peer_read(&self->a, at(p, pages(n + 7))));
	if (self->anon) {
		EXPECT_EQ(0, peer_write(&self->a, at(p, pages(n + 7)), 5));
		EXPECT_PAGE(p, n + 7, 5);
	}
	EXPECT_ERR(ENOMEM, PEER(&self->a, do_in_core, NULL, L(at(p, pages(n + 8))), 1));
}

TEST_F(kind, mremap_shrinks)
{
	void *p = self->p;

	ASSERT_EQ(p, peer_mremap(&self->b, p, pages(self->n), pages(3), 0, NULL));
	EXPECT_PAGE(p, 2, 102);
	EXPECT_PAGE(p, 3, HOLE);
	EXPECT_PAGE(p, self->n - 1, HOLE);
	EXPECT_ERR(ENOMEM, in_core(at(p, pages(3)), 1));
}

TEST_F(kind, mremap_moves_what_cannot_grow)
{
	size_t n = self->n;
	void *p = self->p, *q;

	ASSERT_OK(map_anon(at(p, pages(n)), page(), MAP_PRIVATE));
	EXPECT_ERR(ENOMEM, peer_mremap(&self->b, p, pages(n), pages(n + 1), 0, NULL));
	EXPECT_PAGE(p, 1, 101);
	q = peer_mremap(&self->b, p, pages(n), pages(n + 8), MREMAP_MAYMOVE, NULL);
	ASSERT_NE(MAP_FAILED, q);
	ASSERT_TRUE(q >= self->addr && q < at(self->addr, self->len));
	EXPECT_PAGES(q, KIND_PAGES, 100);
	EXPECT_EQ(-1, first_other(p, KIND_PAGES, HOLE));
	EXPECT_EQ(-1, peer_first_other(&self->a, p, KIND_PAGES, HOLE));
	EXPECT_EQ(-1, peer_first_other(&self->ro, p, KIND_PAGES, HOLE));
	EXPECT_EQ(0, peer_write(&self->a, q, 1));
	EXPECT_PAGE(q, 0, 1);
}

TEST_F(kind, mremap_moves_a_part_over_another_mapping)
{
	void *p = self->p, *q = at(self->addr, 3 * GB);
	int i;

	ASSERT_OK(map_anon(q, pages(6), MAP_SHARED));
	memset(q, 7, pages(6));
	EXPECT_EQ(7, peer_read(&self->a, at(q, pages(2))));
	ASSERT_EQ(at(q, page()),
		  peer_mremap(&self->b, at(p, pages(8)), pages(4), pages(4),
			      MREMAP_MAYMOVE | MREMAP_FIXED, at(q, page())));
	for (i = 0; i < 4; i++) {
		EXPECT_PAGE(q, i + 1, 108 + i);
		EXPECT_PAGE(p, i + 8, HOLE);
	}
	EXPECT_PAGE(q, 0, 7);
	EXPECT_PAGE(q, 5, 7);
	EXPECT_PAGE(p, 7, 107);
	EXPECT_PAGE(p, 12, 112);
	/* Moving and resizing at once */
	ASSERT_EQ(at(q, GB),
		  peer_mremap(&self->b, p, pages(8), pages(4),
			      MREMAP_MAYMOVE | MREMAP_FIXED, at(q, GB)));
	EXPECT_PAGE(at(q, GB), 3, 103);
	EXPECT_PAGE(at(q, GB), 4, HOLE);
	EXPECT_PAGE(p, 3, HOLE);
	EXPECT_PAGE(p, 7, HOLE);
}

TEST_F(kind, mremap_dontunmap)
{
	void *p = self->p, *q = at(self->addr, 3 * GB), *r;
	int i, val;

	r = peer_mremap(&self->b, p, pages(8), pages(8),
			MREMAP_MAYMOVE | MREMAP_DONTUNMAP, q);
	ASSERT_EQ(q, r);
	for (i = 0; i < 8; i++) {
		val = self->shared ? 100 + i : base_byte(self, i);
		EXPECT_PAGE(q, i, 100 + i);
		EXPECT_PAGE(p, i, val);
	}
	/* A hint that cannot be taken, wherever it is, gives way. */
	r = peer_mremap(&self->b, q, pages(2), pages(2),
			MREMAP_MAYMOVE | MREMAP_DONTUNMAP, p);
	ASSERT_TRUE(r >= self->addr && r < at(self->addr, self->len) && r != p);
	EXPECT_PAGE(r, 1, 101);
	q = peer_mremap(&self->b, r, pages(2), pages(2),
			MREMAP_MAYMOVE | MREMAP_DONTUNMAP, OUTSIDE);
	ASSERT_TRUE(q >= self->addr && q < at(self->addr, self->len) && q != r);
	EXPECT_PAGE(q, 1, 101);
	EXPECT_ERR(EINVAL, mremap(q, pages(2), pages(2),
				  MREMAP_MAYMOVE | MREMAP_DONTUNMAP, at(q, page())));
	EXPECT_ERR(EINVAL, mremap(q, pages(2), pages(2),
				  MREMAP_MAYMOVE | MREMAP_DONTUNMAP, at(p, 1)));
	EXPECT_ERR(EINVAL, mremap(q, pages(2), pages(1),
				  MREMAP_MAYMOVE | MREMAP_DONTUNMAP, 0));
}

TEST_F(kind, mremap_duplicates_what_is_shared)
{
	void *p = self->p, *q = at(self->addr, 3 * GB), *r;

	if (!self->shared) {
		EXPECT_ERR(EINVAL, peer_mremap(&self->b, p, 0, pages(4),
					       MREMAP_MAYMOVE, NULL));
		EXPECT_ERR(EINVAL, peer_mremap(&self->b, p, 0, pages(4), MREMAP_MAYMOVE |
					       MREMAP_FIXED, q));
		EXPECT_PAGE(p, 1, 101);
		return;
	}
	r = peer_mremap(&self->b, at(p, pages(2)), 0, pages(4), MREMAP_MAYMOVE, NULL);
	ASSERT_TRUE(r >= self->addr && r < at(self->addr, self->len));
	ASSERT_EQ(q, peer_mremap(&self->b, at(p, pages(2)), 0, pages(4),
				 MREMAP_MAYMOVE | MREMAP_FIXED, q));
	EXPECT_PAGE(r, 1, 103);
	EXPECT_PAGE(q, 1, 103);
	EXPECT_EQ(0, peer_write(&self->a, at(q, page()), 5));
	EXPECT_PAGE(r, 1, 5);
	EXPECT_PAGE(p, 3, 5);
}

/* msync, mincore, remap_file_pages, names */

TEST_F(kind, msync_writes_back)
{
	void *p = self->p;
	char byte;

	EXPECT_OK(PEER(&self->b, do_msync_, NULL, L(p), pages(8), MS_SYNC));
	EXPECT_OK(msync(p, pages(8), MS_ASYNC));
	EXPECT_OK(msync(p, pages(8), MS_SYNC | MS_INVALIDATE));
	EXPECT_OK(msync(p, pages(8), 0));
	EXPECT_OK(msync(p, 0, MS_SYNC));
	EXPECT_ERR(EINVAL, msync(p, pages(1), MS_ASYNC | MS_SYNC));
	EXPECT_ERR(EINVAL, msync(at(p, 1), pages(1), MS_SYNC));
	EXPECT_ERR(ENOMEM, msync(at(p, pages(self->n - 1)), pages(2), MS_SYNC));
	EXPECT_ERR(ENOMEM, msync(at(p, -page()), pages(2), MS_ASYNC));
	EXPECT_ERR(ENOMEM, msync(at(p, -page()), pages(2), MS_SYNC));
	EXPECT_ERR(ENOMEM, msync(p, -page(), MS_SYNC));
	if (self->k.file) {
		ASSERT_EQ(1, pread(self->k.fd, &byte, 1, pages(1)));
		EXPECT_EQ(self->shared ? 101 : base_byte(self, 1), byte);
	}
	EXPECT_PAGE(p, 1, 101);
}

TEST_F(kind, mincore_tells_what_is_resident)
{
	unsigned char vec[KIND_PAGES + 2], other[KIND_PAGES];
	void *p = self->p;
	int i;

	memset(vec, 0xaa, sizeof(vec));
	EXPECT_OK(mincore(p, pages(KIND_PAGES), vec));
	for (i = 0; i < KIND_PAGES; i++)
		EXPECT_EQ(1, vec[i] & 1);
	EXPECT_EQ(0xaa, vec[KIND_PAGES]);
	if (!self->shared && !self->k.file) {
		ASSERT_OK(peer_madvise(&self->b, at(p, pages(5)), pages(3),
				       MADV_DONTNEED));
		EXPECT_OK(mincore(p, pages(KIND_PAGES), vec));
		for (i = 0; i < KIND_PAGES; i++)
			EXPECT_EQ(i < 5 || i > 7, vec[i] & 1);
		EXPECT_EQ(KIND_PAGES - 3, PEER(&self->ro, do_in_core, NULL, L(p),
					       KIND_PAGES));
	}
	/* A part of a page counts as one; a vector in the region will do. */
	EXPECT_OK(mincore(p, pages(KIND_PAGES - 1) + 1, at(p, pages(1) - 8)));
	EXPECT_OK(mincore(p, pages(KIND_PAGES), other));
	EXPECT_ERR(ENOMEM, mincore(at(p, pages(self->n - 1)), pages(2), vec));
	EXPECT_ERR(ENOMEM, mincore(at(p, -page()), pages(2), vec));
	EXPECT_ERR(EINVAL, mincore(at(p, 1), page(), vec));
	EXPECT_ERR(EFAULT, mincore(p, page(), NULL));
	EXPECT_ERR(EFAULT, mincore(p, page(), self->addr));
	EXPECT_OK(mincore(p, 0, NULL));
}

TEST_F(kind, remap_file_pages_rearranges)
{
	void *p = self->p;

	if (!self->shared) {
		EXPECT_ERR(EINVAL, PEER(&self->b, do_rfp, NULL, L(p), page(), 3));
		EXPECT_PAGE(p, 0, 100);
		return;
	}
	EXPECT_OK(PEER(&self->b, do_rfp, NULL, L(p), page(), 3));
	EXPECT_PAGE(p, 0, 103);
	EXPECT_OK(PEER(&self->b, do_rfp, NULL, L(at(p, pages(1))), pages(2), 10));
	EXPECT_PAGE(p, 1, 110);
	EXPECT_PAGE(p, 2, 111);
	EXPECT_PAGE(p, 3, 103);
	EXPECT_EQ(0, peer_write(&self->a, p, 5));
	EXPECT_PAGE(p, 3, 5);
	/* Over a hole it does nothing. */
	ASSERT_OK(munmap(at(p, pages(20)), page()));
	EXPECT_ERR(EINVAL, remap_file_pages(at(p, pages(19)), pages(3), 0, 1, 0));
	EXPECT_ERR(EINVAL, remap_file_pages(p, 0, 0, 1, 0));
	EXPECT_ERR(EINVAL, remap_file_pages(p, page(), PROT_READ, 1, 0));
	EXPECT_PAGE(p, 19, 119);
}

TEST_F(kind, anonymous_memory_can_be_named)
{
	void *twin = map_kind(self, OUTSIDE, MAP_FIXED);
	long in, out;
	int in_err;

	ASSERT_EQ(OUTSIDE, twin);
	in = PEER(&self->b, do_name, "name", L(at(self->p, page())), pages(2));
	in_err = errno;
	out = prctl(PR_SET_VMA, PR_SET_VMA_ANON_NAME, at(twin, page()), pages(2),
		    "name");
	EXPECT_EQ(out, in);
	EXPECT_EQ(in ? errno : 0, in ? in_err : 0);
	EXPECT_EQ(variant->kind == ANON_PRIVATE || variant->kind == ANON_SHARED ||
		  variant->kind == ZERO_SHARED || variant->kind == MEMFD, !in);
	if (!in) {
		/* What has a name of its own does not grow into what has not. */
		EXPECT_ERR(EFAULT, mremap(self->p, pages(4), pages(5), 0));
		EXPECT_OK(PEER(&self->b, do_name, "name", L(self->p), pages(self->n)));
		EXPECT_OK(prctl(PR_SET_VMA, PR_SET_VMA_ANON_NAME,
				at(self->p, page()), pages(2), NULL));
		EXPECT_ERR(ENOMEM, prctl(PR_SET_VMA, PR_SET_VMA_ANON_NAME,
					 at(self->p, pages(self->n)), page(), "x"));
	}
	munmap(twin, pages(self->n));
}

/* Who may only read. */

TEST_F(kind, read_only_attached_may_look_only)
{
	struct peer *ro = &self->ro;
	void *p = self->p;
	size_t i;

	for (i = 0; i < ARRAY_SIZE(advices); i++) {
		int advice = advices[i];

		if (advice == 1234 || advice == MADV_WILLNEED)
			continue;
		EXPECT_ERR(EACCES, peer_madvise(ro, p, pages(4), advice)) {
			TH_LOG("advice %d", advice);
		}
	}
	EXPECT_OK(peer_madvise(ro, p, pages(4), MADV_WILLNEED));
	EXPECT_ERR(EACCES, peer_mremap(ro, p, pages(4), pages(2), 0, NULL));
	EXPECT_ERR(EACCES, peer_mremap(ro, p, pages(4), pages(8), MREMAP_MAYMOVE, NULL));
	EXPECT_ERR(EACCES, peer_mremap(ro, p, pages(4), pages(4), MREMAP_MAYMOVE |
				       MREMAP_FIXED, at(p, GB)));
	EXPECT_ERR(EACCES, PEER(ro, do_msync_, NULL, L(p), pages(4), MS_SYNC));
	EXPECT_ERR(EACCES, PEER(ro, do_msync_, NULL, L(p), pages(4), MS_INVALIDATE));
	EXPECT_OK(PEER(ro, do_msync_, NULL, L(p), pages(4), MS_ASYNC));
	EXPECT_ERR(EACCES, PEER(ro, do_rfp, NULL, L(p), page(), 3));
	EXPECT_ERR(EACCES, PEER(ro, do_name, "x", L(p), page()));
	EXPECT_LE(4, PEER(ro, do_in_core, NULL, L(p), 4));
	/* Its own */
	EXPECT_OK(peer_madvise(ro, self->addr, self->len, MADV_DONTFORK));
	EXPECT_OK(peer_madvise(ro, self->addr, self->len, MADV_DOFORK));
	EXPECT_PAGES(p, KIND_PAGES, 100);
	EXPECT_EQ(HOLE, peer_read(&self->a, at(p, pages(self->n))));
}

/*
 * Anonymous memory on the first and the last page of a region and on the pages
 * outside, in a process with two regions.
 */
FIXTURE(edge)
{
	const char *name, *name2;
	void *addr, *addr2, *first, *last, *lo, *hi;
	size_t len;
	struct peer a, b;
};

FIXTURE_SETUP(edge)
{
	self->name = new_name();
	self->name2 = new_name();
	self->addr = slot(2);
	self->addr2 = slot(5);
	self->len = granule();
	self->first = self->addr;
	self->last = at(self->addr, self->len - page());
	self->lo = at(self->addr, -page());
	self->hi = at(self->addr, self->len);
	ASSERT_EQ(0, peer_start(&self->a));
	ASSERT_EQ(0, peer_start(&self->b));
	ASSERT_OK(create(self->name, self->addr, self->len));
	ASSERT_OK(create(self->name2, self->addr2, self->len));
	ASSERT_OK(peer_attach(&self->a, self->name));
	ASSERT_OK(peer_attach(&self->b, self->name));
	ASSERT_OK(map_anon(self->lo, page(), MAP_PRIVATE));
	ASSERT_OK(map_anon(self->first, page(), MAP_SHARED));
	ASSERT_OK(map_anon(self->last, page(), MAP_SHARED));
	ASSERT_OK(map_anon(self->hi, page(), MAP_PRIVATE));
	ASSERT_EQ(0, try_write(self->lo, 1));
	ASSERT_EQ(0, try_write(self->first, 2));
	ASSERT_EQ(0, try_write(self->last, 3));
	ASSERT_EQ(0, try_write(self->hi, 4));
}

FIXTURE_TEARDOWN(edge)
{
	peer_stop(&self->a);
	peer_stop(&self->b);
	munmap(self->lo, self->len + pages(2));
	munmap(self->addr2, self->len);
	remove_names();
}

static bool edges_intact(struct _test_data_edge *self)
{
	return try_read(self->lo) == 1 && try_read(self->first) == 2 &&
	       try_read(self->last) == 3 && try_read(self->hi) == 4 &&
	       peer_read(&self->a, self->first) == 2 &&
	       peer_read(&self->a, self->last) == 3 &&
	       fault_sig(try_read(at(self->first, page()))) == SIGBUS &&
	       fault_sig(try_read(at(self->last, -page()))) == SIGBUS &&
	       nr_mapped(self->lo, self->len + pages(2)) == 3;
}

static long across(void *p, size_t len, int i)
{
	static unsigned char vec[16];

	switch (i) {
	case 0:
		return msync(p, len, MS_SYNC);
	case 1:
		return msync(p, len, MS_ASYNC);
	case 2:
		return mincore(p, len, vec);
	case 3:
		return remap_file_pages(p, len, 0, 0, 0);
	case 4:
		return prctl(PR_SET_VMA, PR_SET_VMA_ANON_NAME, p, len, "name");
	case 5:
		return L(mremap(p, len, page(), 0));
	case 6:
		return L(mremap(p, len, len + page(), MREMAP_MAYMOVE));
	case 7:
		return L(mremap(p, len, len, MREMAP_MAYMOVE | MREMAP_DONTUNMAP, 0));
	case 8:
		return L(mremap(p, len, len, MREMAP_MAYMOVE | MREMAP_FIXED, OUTSIDE));
	case 9:
		return L(mremap(p, len, len, MREMAP_MAYMOVE | MREMAP_FIXED,
				at(slot(2), GB)));
	case 10:
		return madvise(p, len, MADV_DONTFORK);
	case 11:
		return madvise(p, len, MADV_DODUMP);
	case 12:
		return madvise(p, len, MADV_WIPEONFORK_);
	case 13:
		return madvise(p, len, MADV_KEEPONFORK_);
	default:
		i -= 14;
		if (i >= (int)ARRAY_SIZE(advices) - 1) {
			errno = 0;
			return 1;
		}
		return madvise(p, len, advices[i]);
	}
}

TEST_F(edge, across_an_edge_nothing_is_changed)
{
	struct {
		const char *where;
		void *p;
		size_t len;
	} ranges[] = {
		{ "lower edge", self->lo, pages(2) },
		{ "upper edge", self->last, pages(2) },
		{ "more than all", self->lo, self->len + pages(2) },
		{ "two regions", self->last, 3 * self->len },
		{ "to the end", self->last, -L(self->last) - page() },
	};
	bool more_than_all, own;
	size_t i;
	long ret;
	int c;

	ASSERT_TRUE(edges_intact(self));
	for (i = 0; i < ARRAY_SIZE(ranges); i++) {
		for (c = 0; (ret = across(ranges[i].p, ranges[i].len, c)) <= 0; c++) {
			int err = ret ? errno : 0;

			/* What is the process's own, over all of an attachment. */
			more_than_all = ranges[i].len == self->len + pages(2);
			own = c == 10 || c == 11;
			if (i == 4 && (c == 2 || c == 6) && err)
				continue;	/* out of user space for any */
			EXPECT_EQ(own && more_than_all ? ENOMEM : EINVAL,
				  own && more_than_all && !err ? ENOMEM : err) {
				TH_LOG("call %d, %s", c, ranges[i].where);
			}
			ASSERT_TRUE(edges_intact(self)) {
				TH_LOG("call %d, %s", c, ranges[i].where);
			}
		}
		madvise(self->lo, self->len + pages(2), MADV_DOFORK);
	}
}

TEST_F(edge, first_and_last_page_are_as_any)
{
	void *ps[] = { self->first, self->last };
	unsigned char vec[2];
	size_t i;

	for (i = 0; i < 2; i++) {
		void *p = ps[i], *q = at(self->addr, GB), *r = at(self->addr, 2 * GB);

		EXPECT_OK(msync(p, page(), MS_SYNC));
		EXPECT_OK(mincore(p, page(), vec));
		EXPECT_EQ(1, vec[0] & 1);
		EXPECT_OK(madvise(p, page(), MADV_DONTNEED));
		EXPECT_EQ(2 + (long)i, peer_read(&self->a, p));
		EXPECT_OK(prctl(PR_SET_VMA, PR_SET_VMA_ANON_NAME, p, page(), "x"));
		EXPECT_OK(prctl(PR_SET_VMA, PR_SET_VMA_ANON_NAME, p, page(), NULL));
		EXPECT_OK(remap_file_pages(p, page(), 0, 0, 0));
		EXPECT_EQ(2 + (long)i, peer_read(&self->a, p));
		EXPECT_OK(madvise(p, page(), MADV_POPULATE_WRITE_));
		ASSERT_EQ(q, mremap(p, page(), page(), MREMAP_MAYMOVE | MREMAP_FIXED, q));
		EXPECT_EQ(2 + (long)i, peer_read(&self->a, q));
		EXPECT_EQ(HOLE, peer_read(&self->a, p));
		ASSERT_EQ(p, mremap(q, page(), page(), MREMAP_MAYMOVE | MREMAP_FIXED, p));
		EXPECT_EQ(2 + (long)i, peer_read(&self->a, p));
		ASSERT_EQ(r, mremap(p, page(), page(), MREMAP_MAYMOVE |
				    MREMAP_FIXED | MREMAP_DONTUNMAP, r));
		EXPECT_EQ(2 + (long)i, peer_read(&self->a, r));
		ASSERT_OK(munmap(r, page()));
		EXPECT_OK(madvise(p, page(), MADV_REMOVE));
		EXPECT_EQ(0, peer_read(&self->a, p));
		ASSERT_EQ(0, try_write(p, 2 + i));
	}
	EXPECT_TRUE(edges_intact(self));
}

/* What grows stops at the end of the region. */
TEST_F(edge, mremap_does_not_grow_out_of_the_region)
{
	void *q;

	ASSERT_OK(munmap(self->hi, page()));
	EXPECT_ERR(ENOMEM, peer_mremap(&self->a, self->last, page(), pages(2), 0, NULL));
	EXPECT_ERR(ENOMEM, mremap(self->last, page(), pages(2), 0));
	q = peer_mremap(&self->a, self->last, page(), pages(2), MREMAP_MAYMOVE, NULL);
	ASSERT_TRUE(q >= self->addr && q < at(self->addr, self->len - page()));
	EXPECT_EQ(3, try_read(q));
	EXPECT_EQ(HOLE, try_read(self->last));
	EXPECT_EQ(FAULT(SIGSEGV, SEGV_MAPERR), try_read(self->hi));
	/* More than there is. */
	EXPECT_ERR(ENOMEM, mremap(q, page(), self->len, MREMAP_MAYMOVE));
	EXPECT_ERR(ENOMEM, mremap(q, page(), self->len + page(), MREMAP_MAYMOVE));
	EXPECT_ERR(EINVAL, mremap(q, page(), 0, MREMAP_MAYMOVE));
	EXPECT_ERR(EINVAL, mremap(q, page(), -1, MREMAP_MAYMOVE));
	EXPECT_ERR(EINVAL, mremap(q, -pages(1), page(), 0));
	EXPECT_ERR(EFAULT, mremap(q, pages(3), pages(4), 0));
	EXPECT_ERR(EFAULT, mremap(at(q, GB), pages(3), page(), 0));
	EXPECT_EQ(3, peer_read(&self->b, q));
	EXPECT_EQ(1, nr_mapped(self->addr, self->len));
}

TEST_F(edge, mremap_has_no_room)
{
	void *p = at(self->first, page());
	size_t len = self->len - pages(2);

	ASSERT_EQ(p, mmap(p, len, PROT_NONE, ANON | MAP_FIXED | MAP_NORESERVE, -1, 0));
	EXPECT_ERR(ENOMEM, peer_mremap(&self->a, self->first, page(), pages(2),
				       MREMAP_MAYMOVE, NULL));
	EXPECT_ERR(ENOMEM, peer_mremap(&self->a, self->first, page(), page(),
				       MREMAP_MAYMOVE | MREMAP_DONTUNMAP, NULL));
	EXPECT_EQ(2, try_read(self->first));
	/* The only room is found. */
	ASSERT_OK(munmap(at(self->addr, 7 * GB), pages(2)));
	EXPECT_EQ(at(self->addr, 7 * GB),
		  peer_mremap(&self->a, self->first, page(), pages(2),
			      MREMAP_MAYMOVE, NULL));
	EXPECT_EQ(2, try_read(at(self->addr, 7 * GB)));
	EXPECT_EQ(HOLE, try_read(self->first));
}

/* Nothing comes in, goes out, or goes elsewhere. */
TEST_F(edge, mremap_does_not_leave_its_region)
{
	int fixed = MREMAP_MAYMOVE | MREMAP_FIXED;
	void *there = at(self->addr2, GB), *own = OUTSIDE;

	ASSERT_OK(map_anon(there, pages(2), MAP_SHARED));
	ASSERT_EQ(0, try_write(there, 8));
	ASSERT_OK(map_anon(own, pages(2), MAP_PRIVATE));
	ASSERT_EQ(0, try_write(own, 9));
	EXPECT_ERR(EINVAL, mremap(self->first, page(), page(), fixed, there));
	EXPECT_ERR(EINVAL, mremap(there, page(), page(), fixed, self->first));
	EXPECT_ERR(EINVAL, mremap(self->first, page(), page(), fixed, own));
	EXPECT_ERR(EINVAL, mremap(self->first, 0, page(), fixed, own));
	EXPECT_ERR(EINVAL, mremap(own, page(), page(), fixed, self->first));
	EXPECT_ERR(EINVAL, mremap(own, page(), page(), fixed, at(self->first, GB)));
	EXPECT_ERR(EINVAL, mremap(own, page(), page(), fixed | MREMAP_DONTUNMAP,
				  self->first));
	EXPECT_ERR(EINVAL, mremap(own, page(), pages(2), fixed, self->lo));
	EXPECT_ERR(EINVAL, mremap(own, page(), self->len, fixed, self->addr));
	EXPECT_ERR(EINVAL, mremap(own, page(), self->len + pages(2), fixed, self->lo));
	EXPECT_ERR(EINVAL, mremap(self->first, page(), pages(2), fixed, self->last));
	EXPECT_ERR(EINVAL, mremap(self->first, page(), pages(2), fixed, self->lo));
	EXPECT_ERR(EINVAL, mremap(self->first, page(), self->len, fixed, self->addr));
	EXPECT_ERR(EINVAL, mremap(self->first, page(), page(), fixed, -pages(1)));
	EXPECT_ERR(EINVAL, mremap(self->first, page(), -pages(4), fixed, own));
	/* The attachment itself */
	EXPECT_ERR(EINVAL, mremap(self->addr, self->len, self->len, fixed, slot(44)));
	EXPECT_ERR(EINVAL, mremap(self->addr, self->len, self->len, MREMAP_MAYMOVE));
	EXPECT_ERR(EINVAL, mremap(self->addr, self->len, self->len / 2, 0));
	EXPECT_ERR(EINVAL, mremap(self->addr, self->len, 2 * self->len, MREMAP_MAYMOVE));
	EXPECT_ERR(EINVAL, mremap(self->addr, self->len, self->len,
				  MREMAP_MAYMOVE | MREMAP_DONTUNMAP, 0));
	/* Of one's own memory, a hint in a region is one that cannot be had. */
	own = mremap(own, page(), page(), MREMAP_MAYMOVE | MREMAP_DONTUNMAP, self->first);
	EXPECT_NE(MAP_FAILED, own);
	EXPECT_TRUE(own < self->addr || own >= self->hi);
	EXPECT_EQ(9, try_read(own));
	munmap(own, page());
	/* What is beside a region grows elsewhere. */
	own = mremap(self->lo, page(), pages(2), MREMAP_MAYMOVE);
	EXPECT_NE(MAP_FAILED, own);
	EXPECT_EQ(1, try_read(own));
	munmap(own, pages(2));
	ASSERT_OK(map_anon(self->lo, page(), MAP_PRIVATE));
	ASSERT_EQ(0, try_write(self->lo, 1));
	EXPECT_ERR(ENOMEM, mremap(self->lo, page(), pages(2), 0));
	EXPECT_EQ(8, try_read(there));
	EXPECT_TRUE(edges_intact(self));
	munmap(OUTSIDE, pages(2));
}

/* Page tables move, not only entries; what was cached below them is flushed. */
TEST_F(edge, mremap_moves_page_tables)
{
	static const size_t sizes[] = { 2 * MB, 6 * MB, GB };
	size_t i, j, n = 8, size;

	for (i = 0; i < ARRAY_SIZE(sizes); i++) {
		void *p = at(self->addr, 8 * GB), *q = at(self->addr, 16 * GB);

		size = sizes[i];
		ASSERT_EQ(p, mmap(p, size, RW, ANON | MAP_FIXED | MAP_NORESERVE, -1, 0));
		ASSERT_OK(madvise(p, size, MADV_NOHUGEPAGE));
		for (j = 0; j < n; j++) {
			void *w = at(p, j * (size / n));

			ASSERT_EQ(0, try_write(w, j + 1));
			ASSERT_EQ((long)j + 1, peer_read(&self->a, w));
			ASSERT_EQ((long)j + 1, peer_read(&self->b, w));
		}
		ASSERT_EQ(q, peer_mremap(&self->a, p, size, size,
					 MREMAP_MAYMOVE | MREMAP_FIXED, q));
		for (j = 0; j < n; j++) {
			void *w = at(p, j * (size / n)), *x = at(q, j * (size / n));

			EXPECT_EQ(HOLE, peer_read(&self->b, w));
			EXPECT_EQ(HOLE, peer_read(&self->a, w));
			EXPECT_EQ((long)j + 1, peer_read(&self->b, x));
			EXPECT_EQ((long)j + 1, peer_read(&self->a, x));
			EXPECT_EQ((long)j + 1, try_read(x));
			EXPECT_EQ(0, try_write(x, 0x40 + j));
			EXPECT_EQ(0x40 + (long)j, peer_read(&self->b, x));
		}
		ASSERT_OK(munmap(q, size));
	}
}

TEST_F(edge, limits_of_the_caller_do_not_hold_inside)
{
	struct rlimit none = { 0, RLIM_INFINITY }, as, data;
	long ret[3];

	getrlimit(RLIMIT_AS, &as);
	getrlimit(RLIMIT_DATA, &data);
	none.rlim_max = as.rlim_max;
	ASSERT_OK(setrlimit(RLIMIT_AS, &none));
	none.rlim_max = data.rlim_max;
	ASSERT_OK(setrlimit(RLIMIT_DATA, &none));
	ret[0] = L(mremap(self->first, page(), 64 * MB, 0));
	ret[1] = L(mremap(self->first, page(), page(), MREMAP_MAYMOVE |
			  MREMAP_DONTUNMAP, 0));
	ret[2] = madvise(self->last, page(), MADV_POPULATE_WRITE_);
	setrlimit(RLIMIT_AS, &as);
	setrlimit(RLIMIT_DATA, &data);
	EXPECT_EQ(L(self->first), ret[0]);
	EXPECT_NE(-1, ret[1]);
	EXPECT_EQ(0, ret[2]);
}

/* What belongs to the process, and to the whole attachment or not at all. */

static long child_reads(void *p)
{
	long val = -1;
	int fds[2];
	pid_t pid;

	if (pipe(fds))
		return -1;
	pid = fork_bound();
	if (!pid) {
		val = try_read(p);
		_exit(write(fds[1], &val, sizeof(val)) != sizeof(val));
	}
	close(fds[1]);
	if (read(fds[0], &val, sizeof(val)) != sizeof(val))
		val = -1;
	close(fds[0]);
	waitpid(pid, NULL, 0);
	return val;
}

static long do_child_reads(const struct request *rq)
{
	return child_reads((void *)rq->a[0]);
}

static bool vm_flag(void *p, const char *flag)
{
	char line[PATH_MAX], find[8];
	bool here = false, has = false;
	unsigned long s, e;
	FILE *f = fopen("/proc/self/smaps", "re");

	snprintf(find, sizeof(find), " %s ", flag);
	while (f && fgets(line, sizeof(line), f)) {
		if (sscanf(line, "%lx-%lx ", &s, &e) == 2)
			here = (unsigned long)p == s;
		else if (here && !strncmp(line, "VmFlags:", 8))
			has = strstr(line, find);
	}
	if (f)
		fclose(f);
	return has;
}

TEST_F(edge, fork_and_dump_advice_is_the_processes_own)
{
	static const int own[] = { MADV_DONTFORK, MADV_DOFORK, MADV_DONTDUMP,
				   MADV_DODUMP };
	size_t i;

	for (i = 0; i < ARRAY_SIZE(own); i++) {
		EXPECT_ERR(EINVAL, madvise(self->first, page(), own[i]));
		EXPECT_ERR(EINVAL, madvise(self->addr, self->len - page(), own[i]));
		EXPECT_ERR(EINVAL, madvise(self->lo, pages(2), own[i]));
	}
	EXPECT_ERR(EINVAL, madvise(self->first, page(), MADV_WIPEONFORK_));
	EXPECT_ERR(EINVAL, madvise(self->first, page(), MADV_KEEPONFORK_));
	EXPECT_ERR(EINVAL, madvise(self->addr, self->len, MADV_WIPEONFORK_));
	EXPECT_ERR(EINVAL, madvise(self->addr, self->len, MADV_KEEPONFORK_));

	EXPECT_OK(madvise(self->addr, self->len, MADV_DONTFORK));
	EXPECT_EQ(FAULT(SIGSEGV, SEGV_MAPERR), child_reads(self->first));
	EXPECT_EQ(2, try_read(self->first));
	EXPECT_EQ(2, PEER(&self->a, do_child_reads, NULL, L(self->first)));
	EXPECT_OK(madvise(self->addr, self->len, MADV_DOFORK));
	EXPECT_EQ(2, child_reads(self->first));
	/* With what is beside it, too. */
	EXPECT_OK(madvise(self->lo, self->len + pages(2), MADV_DONTFORK));
	EXPECT_EQ(FAULT(SIGSEGV, SEGV_MAPERR), child_reads(self->first));
	EXPECT_EQ(FAULT(SIGSEGV, SEGV_MAPERR), child_reads(self->hi));
	EXPECT_OK(madvise(self->lo, self->len + pages(2), MADV_DOFORK));
	EXPECT_EQ(3, child_reads(self->last));

	EXPECT_TRUE(vm_flag(self->addr, "dd"));
	EXPECT_OK(madvise(self->addr, self->len, MADV_DODUMP));
	EXPECT_FALSE(vm_flag(self->addr, "dd"));
	EXPECT_OK(madvise(self->addr, self->len, MADV_DONTDUMP));
	EXPECT_TRUE(vm_flag(self->addr, "dd"));
	EXPECT_TRUE(edges_intact(self));
}

/* The other ways to madvise() */

static long process_madvise_(pid_t pid, void *p, size_t len, int advice)
{
	struct iovec iov = { p, len };
	int fd = syscall(SYS_pidfd_open, pid, 0), err;
	long ret;

	ret = syscall(SYS_process_madvise, fd, &iov, 1, advice, 0);
	err = errno;
	close(fd);
	errno = err;
	return ret;
}

TEST_F(edge, process_madvise_acts_through_the_other)
{
	void *p = at(self->addr, GB), *twin = OUTSIDE;
	pid_t pid = self->a.pid;
	struct peer ro;

	/* It inherits what is attached for writing. */
	ASSERT_EQ(0, peer_start(&ro));
	ASSERT_OK(peer_munmap(&ro, self->addr, self->len));
	ASSERT_OK(PEER(&ro, do_mshare, self->name, 0, 0, O_RDONLY, 0));
	ASSERT_OK(map_anon(p, 4 * MB, MAP_PRIVATE));
	memset(p, 1, 4 * MB);
	/* Whether or not the caller is attached, the range means the other's. */
	EXPECT_EQ(4 * L(MB), process_madvise_(pid, p, 4 * MB, MADV_COLD_));
	EXPECT_EQ(4 * L(MB), process_madvise_(pid, p, 4 * MB, MADV_WILLNEED));
	EXPECT_EQ(4 * L(MB), process_madvise_(pid, p, 4 * MB, MADV_PAGEOUT_));
	EXPECT_EQ(4 * L(MB), process_madvise_(pid, p, 4 * MB, MADV_COLLAPSE_));
	EXPECT_EQ(4 * L(MB), process_madvise_(getpid(), p, 4 * MB, MADV_COLD_));
	ASSERT_OK(munmap(self->addr, self->len));
	ASSERT_OK(map_anon(twin, page(), MAP_PRIVATE));
	EXPECT_EQ(4 * L(MB), process_madvise_(pid, p, 4 * MB, MADV_COLD_));
	EXPECT_ERR(ENOMEM, process_madvise_(pid, twin, page(), MADV_COLD_));
	EXPECT_ERR(EINVAL, process_madvise_(pid, self->lo, pages(2), MADV_COLD_));
	EXPECT_ERR(EINVAL, process_madvise_(pid, p, page(), MADV_DONTNEED));
	EXPECT_ERR(EACCES, process_madvise_(ro.pid, p, page(), MADV_COLD_));
	EXPECT_ERR(EACCES, process_madvise_(ro.pid, p, page(), MADV_PAGEOUT_));
	EXPECT_EQ(4 * L(MB), process_madvise_(ro.pid, p, 4 * MB, MADV_WILLNEED));
	EXPECT_EQ(-1, peer_first_other(&self->b, p, 4 * MB / page(), 1));
	munmap(twin, page());
	peer_stop(&ro);
}

/* One request on a ring of its own; the result as of a system call. */
static long uring_madvise(void *p, size_t len, int advice)
{
	struct io_uring_params par = {};
	struct io_uring_sqe *sqe;
	struct io_uring_cqe *cqe;
	unsigned int *array;
	void *sq, *cq, *sqes;
	long ret = -1;
	int fd;

	fd = syscall(SYS_io_uring_setup, 4, &par);
	if (fd < 0)
		return -2;
	sq = mmap(NULL, page(), RW, MAP_SHARED, fd, IORING_OFF_SQ_RING);
	cq = mmap(NULL, page(), RW, MAP_SHARED, fd, IORING_OFF_CQ_RING);
	sqes = mmap(NULL, page(), RW, MAP_SHARED, fd, IORING_OFF_SQES);
	if (sq == MAP_FAILED || cq == MAP_FAILED || sqes == MAP_FAILED)
		return -2;
	sqe = sqes;
	memset(sqe, 0, sizeof(*sqe));
	sqe->opcode = IORING_OP_MADVISE;
	sqe->addr = (unsigned long)p;
	sqe->len = len;
	sqe->fadvise_advice = advice;
	array = at(sq, par.sq_off.array);
	array[0] = 0;
	__atomic_store_n((unsigned int *)at(sq, par.sq_off.tail), 1, __ATOMIC_RELEASE);
	if (syscall(SYS_io_uring_enter, fd, 1, 1, IORING_ENTER_GETEVENTS, NULL, 0) == 1) {
		cqe = at(cq, par.cq_off.cqes);
		ret = cqe->res;
		if (ret < 0) {
			errno = -ret;
			ret = -1;
		}
	}
	munmap(sq, page());
	munmap(cq, page());
	munmap(sqes, page());
	close(fd);
	return ret;
}

TEST_F(edge, io_uring_madvise)
{
	void *p = at(self->addr, GB);
	long ret;

	ASSERT_OK(map_anon(p, pages(8), MAP_PRIVATE));
	ret = uring_madvise(p, pages(8), MADV_POPULATE_WRITE_);
	if (ret == -2)
		SKIP(return, "no io_uring");
	EXPECT_OK(ret);
	EXPECT_EQ(8, PEER(&self->a, do_in_core, NULL, L(p), 8));
	ASSERT_EQ(0, peer_write(&self->a, p, 5));
	EXPECT_OK(uring_madvise(p, page(), MADV_DONTNEED));
	EXPECT_EQ(0, peer_read(&self->a, p));
	EXPECT_ERR(EINVAL, uring_madvise(self->lo, pages(2), MADV_DONTNEED));
	EXPECT_ERR(EINVAL, uring_madvise(self->last, pages(2), MADV_DONTNEED));
	EXPECT_OK(uring_madvise(self->addr, 0, MADV_DONTFORK));
	EXPECT_TRUE(edges_intact(self));
}

/* Large ranges, and the vector in the region or beside it */
TEST_F(edge, mincore_of_more_than_one_chunk)
{
	long n = 20000, i, wrong = 0;
	void *p = at(self->addr, GB), *v = at(self->addr, 2 * GB);
	unsigned char *vec = v;

	ASSERT_EQ(p, mmap(p, pages(n), RW, ANON | MAP_FIXED | MAP_NORESERVE, -1, 0));
	ASSERT_OK(madvise(p, pages(n), MADV_NOHUGEPAGE));
	ASSERT_OK(map_anon(v, pages(6), MAP_PRIVATE));
	for (i = 0; i < n; i += 1000)
		ASSERT_EQ(0, try_write(at(p, pages(i)), 1));
	EXPECT_OK(mincore(p, pages(n), vec));
	for (i = 0; i < n; i++)
		wrong += (vec[i] & 1) != !(i % 1000);
	EXPECT_EQ(0, wrong);
	EXPECT_EQ(0, vec[n]);
	/* The vector on what it tells of */
	EXPECT_OK(mincore(p, pages(n), p));
	EXPECT_EQ(1, peer_read(&self->a, p));
	EXPECT_EQ(1, peer_read(&self->a, at(p, 19000)));
	EXPECT_EQ(0, peer_read(&self->a, at(p, 19001)));
	/* Across the edge nothing is written. */
	memset(vec, 0xaa, page());
	EXPECT_ERR(EINVAL, mincore(self->last, pages(2), vec));
	EXPECT_EQ(0xaa, vec[0]);
	ASSERT_OK(mprotect(v, page(), PROT_READ));
	EXPECT_ERR(EFAULT, mincore(p, pages(8), vec));
}

/* Threads that join in: ksmd and khugepaged */

static long ksm(const char *file)
{
	char path[64], buf[32];

	snprintf(path, sizeof(path), "/sys/kernel/mm/ksm/%s", file);
	return read_file(path, buf, sizeof(buf)) < 0 ? -1 : atol(buf);
}

TEST_F_TIMEOUT(edge, ksm_merges_what_is_mergeable, SHORT_TIMEOUT)
{
	struct setting run, nap, scan;
	void *p = at(self->addr, GB);
	size_t n = 64;
	long before;

	if (setting_set(&run, "/sys/kernel/mm/ksm/run", "1"))
		SKIP(return, "no KSM");
	setting_set(&nap, "/sys/kernel/mm/ksm/sleep_millisecs", "1");
	setting_set(&scan, "/sys/kernel/mm/ksm/pages_to_scan", "1000");
	before = ksm("pages_sharing");
	ASSERT_OK(map_anon(p, pages(n), MAP_PRIVATE));
	ASSERT_OK(madvise(p, pages(n), MADV_NOHUGEPAGE));
	memset(p, 0x5a, pages(n));
	EXPECT_OK(peer_madvise(&self->b, p, pages(n), MADV_MERGEABLE));
	EXPECT_TRUE(WAIT_FOR(ksm("pages_sharing") >= before + (long)n - 1, 60));
	EXPECT_EQ(-1, peer_first_other(&self->a, p, n, 0x5a));
	/* A write makes one page for all. */
	EXPECT_EQ(0, peer_write(&self->a, at(p, pages(3)), 1));
	EXPECT_EQ(1, try_read(at(p, pages(3))));
	EXPECT_EQ(1, peer_read(&self->b, at(p, pages(3))));
	EXPECT_EQ(0x5a, peer_read(&self->b, at(p, pages(4))));
	EXPECT_EQ(0, peer_write(&self->a, at(p, pages(3)), 0x5a));
	/* Moved pages are unmerged. */
	ASSERT_EQ(at(p, GB), mremap(p, pages(8), pages(8), MREMAP_MAYMOVE |
				    MREMAP_FIXED, at(p, GB)));
	EXPECT_EQ(-1, peer_first_other(&self->a, at(p, GB), 8, 0x5a));
	EXPECT_OK(peer_madvise(&self->b, at(p, pages(8)), pages(n - 8),
			       MADV_UNMERGEABLE));
	EXPECT_OK(peer_madvise(&self->b, at(p, GB), pages(8), MADV_UNMERGEABLE));
	EXPECT_EQ(-1, peer_first_other(&self->a, at(p, pages(8)), n - 8, 0x5a));
	/* ksmd notices later. */
	EXPECT_TRUE(WAIT_FOR(ksm("pages_sharing") == before, 60));
	/* And the region may go while ksmd is at work on it. */
	EXPECT_OK(madvise(at(p, pages(8)), pages(n - 8), MADV_MERGEABLE));
	EXPECT_TRUE(WAIT_FOR(ksm("pages_sharing") > before, 60));
	peer_stop(&self->a);
	peer_stop(&self->b);
	EXPECT_OK(mshare_unlink(self->name));
	EXPECT_TRUE(WAIT_FOR(ksm("pages_sharing") == before, 60));
	setting_restore(&scan);
	setting_restore(&nap);
	setting_restore(&run);
}

TEST_F_TIMEOUT(edge, huge_pages_on_advice, SHORT_TIMEOUT)
{
	struct setting thp, defrag, nap, alloc_nap, scan;
	void *p = at(self->addr, GB);
	size_t n = THP / page(), i;
	long before;

	if (setting_set(&thp, THP_ENABLED, "madvise"))
		SKIP(return, "no THP");
#define KHP	"/sys/kernel/mm/transparent_hugepage/khugepaged/"
	setting_set(&defrag, "/sys/kernel/mm/transparent_hugepage/defrag", "madvise");
	setting_set(&nap, KHP "scan_sleep_millisecs", "10");
	setting_set(&alloc_nap, KHP "alloc_sleep_millisecs", "10");
	setting_set(&scan, KHP "pages_to_scan", "4096");
	before = meminfo("AnonHugePages");
	ASSERT_OK(map_anon(p, THP, MAP_PRIVATE));

	/* By a fault */
	EXPECT_OK(peer_madvise(&self->b, p, THP, MADV_HUGEPAGE));
	EXPECT_EQ(0, peer_write(&self->a, p, 1));
	EXPECT_EQ(before + 2048, meminfo("AnonHugePages"));
	EXPECT_EQ(0, try_read(at(p, THP - 1)));
	/* Of which a part may go: it is split, and the rest stays. */
	EXPECT_EQ(0, peer_write(&self->a, at(p, pages(9)), 9));
	EXPECT_OK(peer_madvise(&self->b, at(p, pages(8)), page(), MADV_DONTNEED));
	EXPECT_EQ(9, try_read(at(p, pages(9))));
	EXPECT_EQ(1, try_read(p));
	ASSERT_OK(munmap(p, THP));

	/* By hand */
	ASSERT_OK(map_anon(p, THP, MAP_PRIVATE));
	for (i = 0; i < n; i++)
		ASSERT_EQ(0, try_write(at(p, pages(i)), 7));
	EXPECT_EQ(before, meminfo("AnonHugePages"));
	EXPECT_EQ(-1, peer_first_other(&self->a, p, n, 7));
	EXPECT_OK(peer_madvise(&self->b, p, THP, MADV_COLLAPSE_));
	EXPECT_EQ(before + 2048, meminfo("AnonHugePages"));
	EXPECT_EQ(-1, peer_first_other(&self->a, p, n, 7));
	EXPECT_EQ(-1, first_other(p, n, 7));
	/* Moved as it is */
	ASSERT_EQ(at(p, GB), mremap(p, THP, THP, MREMAP_MAYMOVE | MREMAP_FIXED,
				    at(p, GB)));
	EXPECT_EQ(before + 2048, meminfo("AnonHugePages"));
	EXPECT_EQ(-1, peer_first_other(&self->a, at(p, GB), n, 7));
	EXPECT_EQ(HOLE, peer_read(&self->a, p));
	EXPECT_OK(madvise(at(p, GB), THP, MADV_DONTNEED));
	EXPECT_EQ(before, meminfo("AnonHugePages"));
	EXPECT_EQ(-1, peer_first_other(&self->a, at(p, GB), n, 0));
	ASSERT_OK(munmap(at(p, GB), THP));

	/* By khugepaged, who is told by the advice */
	ASSERT_OK(map_anon(p, THP, MAP_PRIVATE));
	for (i = 0; i < n; i++)
		ASSERT_EQ(0, try_write(at(p, pages(i)), 7));
	EXPECT_OK(peer_madvise(&self->b, p, THP, MADV_HUGEPAGE));
	EXPECT_TRUE(WAIT_FOR(meminfo("AnonHugePages") == before + 2048, 60));
	EXPECT_EQ(-1, peer_first_other(&self->a, p, n, 7));
	EXPECT_OK(madvise(p, THP, MADV_NOHUGEPAGE));
	EXPECT_OK(madvise(p, THP, MADV_DONTNEED));
	EXPECT_EQ(0, peer_write(&self->a, p, 1));
	EXPECT_EQ(before, meminfo("AnonHugePages"));
	setting_restore(&scan);
	setting_restore(&alloc_nap);
	setting_restore(&nap);
	setting_restore(&defrag);
	setting_restore(&thp);
}

TEST_F(edge, collapse_of_shared_memory)
{
	void *p = at(self->addr, GB);
	size_t n = THP / page(), i;
	int fd = memfd_create("mshare", 0);
	long before, ret;

	ASSERT_LE(0, fd);
	ASSERT_OK(ftruncate(fd, THP));
	ASSERT_EQ(p, mmap(p, THP, RW, MAP_SHARED | MAP_FIXED, fd, 0));
	for (i = 0; i < n; i++)
		ASSERT_EQ(0, try_write(at(p, pages(i)), 7));
	ASSERT_EQ(-1, peer_first_other(&self->a, p, n, 7));
	before = meminfo("ShmemPmdMapped");
	ret = peer_madvise(&self->b, p, THP, MADV_COLLAPSE_);
	if (ret && errno == EINVAL && access(THP_ENABLED, F_OK))
		SKIP(return, "no THP");
	EXPECT_OK(ret);
	EXPECT_EQ(before + 2048, meminfo("ShmemPmdMapped"));
	EXPECT_EQ(-1, peer_first_other(&self->a, p, n, 7));
	EXPECT_EQ(0, peer_write(&self->a, p, 8));
	EXPECT_EQ(8, try_read(p));
	close(fd);
}

/* Pages go out, and come in before they are needed. */
TEST_F(edge, pageout_and_willneed)
{
	void *p = at(self->addr, GB);
	struct setting thp;
	size_t n = 1024;
	struct zram z;
	const char *why = zram_swapon(&z, 64 * MB);

	if (why)
		SKIP(return, "%s", why);
	setting_set(&thp, THP_ENABLED, "never");
	ASSERT_OK(map_anon(p, pages(n), MAP_PRIVATE));
	memset(p, 6, pages(n));
	EXPECT_EQ(-1, peer_first_other(&self->a, p, n, 6));
	/* What is on its way to the LRU lists stays, the first time. */
	EXPECT_TRUE(WAIT_FOR(!peer_madvise(&self->b, p, pages(n), MADV_PAGEOUT_) &&
			     in_core(p, n) < (long)n / 8, 20));
	EXPECT_OK(PEER(&self->a, do_madv, NULL, L(p), pages(n), MADV_WILLNEED));
	EXPECT_TRUE(WAIT_FOR(in_core(p, n) == (long)n, 20));
	EXPECT_EQ(-1, peer_first_other(&self->a, p, n, 6));
	EXPECT_EQ(-1, peer_first_other(&self->b, p, n, 6));
	EXPECT_TRUE(WAIT_FOR(!peer_madvise(&self->b, p, pages(n), MADV_PAGEOUT_) &&
			     in_core(p, n) < (long)n / 8, 20));
	/* Slots go with the pages. */
	EXPECT_OK(madvise(p, pages(n), MADV_DONTNEED));
	EXPECT_EQ(-1, peer_first_other(&self->a, p, n, 0));
	EXPECT_OK(madvise(p, pages(n), MADV_FREE));
	setting_restore(&thp);
	ASSERT_OK(munmap(p, pages(n)));
	zram_end(&z);
}

/* Everything at once */

static void one_call(void *addr, unsigned int *seed, long *bad)
{
	static const int some[] = { MADV_DONTNEED, MADV_WILLNEED, MADV_COLD_,
				    MADV_POPULATE_WRITE_, MADV_RANDOM, MADV_NORMAL,
				    MADV_FREE, MADV_HUGEPAGE, MADV_NOHUGEPAGE,
				    MADV_MERGEABLE, MADV_UNMERGEABLE };
	unsigned char vec[8];
	void *p = at(addr, pages(rand_r(seed) % 60));
	size_t len = pages(1 + rand_r(seed) % 4);
	long ret;

	errno = 0;
	switch (rand_r(seed) % 7) {
	case 0:
	case 1:
		ret = madvise(p, len, some[rand_r(seed) % ARRAY_SIZE(some)]);
		break;
	case 2:
		ret = mincore(p, len, vec);
		break;
	case 3:
		ret = msync(p, len, MS_SYNC);
		break;
	case 4:
		ret = prctl(PR_SET_VMA, PR_SET_VMA_ANON_NAME, p, len,
			    rand_r(seed) % 2 ? "name" : NULL);
		break;
	case 5:
		ret = L(mremap(p, len, len, MREMAP_MAYMOVE | MREMAP_FIXED,
			       at(addr, pages(rand_r(seed) % 60))));
		break;
	default:
		ret = L(mremap(p, page(), pages(2), 0));
	}
	/*
	 * What is not mapped is ENOMEM or EFAULT, a file EBADF, across VMAs
	 * EFAULT, across an edge EINVAL. Nothing else, above all no restart.
	 */
	if (ret == -1 && errno != ENOMEM && errno != EFAULT && errno != EINVAL &&
	    errno != EBADF && errno != EAGAIN)
		(*bad)++;
}

struct racer {
	void *addr;
	atomic_bool stop;
	long bad, calls;
	unsigned int seed;
};

static void *race_calls(void *arg)
{
	struct racer *r = arg;

	while (!atomic_load(&r->stop)) {
		one_call(r->addr, &r->seed, &r->bad);
		r->calls++;
	}
	return NULL;
}

/* Calls of one thread while another attaches and detaches below them. */
TEST_F_TIMEOUT(edge, calls_race_with_attach_and_detach, SHORT_TIMEOUT)
{
	struct racer r = { .addr = self->first, .seed = test_seed() };
	void *safe = at(self->addr, GB);
	double end;
	long i, n = 0;
	pthread_t t;

	TH_LOG("MSHARE_TEST_SEED=%u", r.seed);
	ASSERT_OK(map_anon(safe, pages(16), MAP_PRIVATE));
	memset(safe, 0x33, pages(16));
	ASSERT_OK(map_anon(self->first, pages(64), MAP_PRIVATE));
	ASSERT_EQ(0, pthread_create(&t, NULL, race_calls, &r));
	end = now() + 3;
	for (i = 0; now() < end; i++) {
		ASSERT_OK(munmap(self->addr, self->len));
		/* Now and then there is memory of one's own in its place. */
		if (i % 3 == 0) {
			map_anon(self->first, pages(64), MAP_PRIVATE);
			try_write(self->first, 1);
			munmap(self->first, pages(64));
			/* It may have been moved there by an mremap(). */
			munmap(self->first, pages(64));
		}
		if (attach(self->name)) {
			ASSERT_EQ(EBUSY, errno);
			ASSERT_OK(munmap(self->first, pages(64)));
			ASSERT_OK(attach(self->name));
		}
		n++;
		if (i % 4 == 0)
			map_anon(self->first, pages(64), MAP_PRIVATE);
	}
	atomic_store(&r.stop, true);
	pthread_join(t, NULL);
	EXPECT_EQ(0, r.bad);
	EXPECT_LT(10, n);
	EXPECT_LT(100, r.calls);
	TH_LOG("%ld attachments, %ld calls", n, r.calls);
	EXPECT_EQ(-1, first_other(safe, 16, 0x33));
	EXPECT_EQ(-1, peer_first_other(&self->a, safe, 16, 0x33));
	EXPECT_EQ(3, peer_read(&self->a, self->last));
	EXPECT_EQ(1, nr_mapped(self->addr, self->len));
}

static long do_calls_forever(const struct request *rq)
{
	unsigned int seed = rq->a[1];
	long bad = 0;

	for (;;)
		one_call((void *)rq->a[0], &seed, &bad);
	return 0;
}

/* Processes that are killed in the middle of it */
TEST_F_TIMEOUT(edge, calls_race_with_each_other_and_the_end, SHORT_TIMEOUT)
{
	unsigned int seed = test_seed();
	void *safe = at(self->addr, GB);
	long i, n = scaled(40);

	TH_LOG("MSHARE_TEST_SEED=%u", seed);
	ASSERT_OK(map_anon(safe, pages(16), MAP_PRIVATE));
	memset(safe, 0x33, pages(16));
	for (i = 0; i < n; i++) {
		struct peer p, q;

		map_anon(self->first, pages(64), i % 2 ? MAP_PRIVATE : MAP_SHARED);
		ASSERT_EQ(0, peer_start(&p));
		ASSERT_EQ(0, peer_start(&q));
		PEER_SEND(&p, do_calls_forever, NULL, L(self->first), seed + 2 * i);
		PEER_SEND(&q, do_calls_forever, NULL, L(self->first), seed + 2 * i + 1);
		usleep(rand_r(&seed) % 30000);
		peer_stop(&p);
		peer_stop(&q);
	}
	EXPECT_EQ(-1, peer_first_other(&self->a, safe, 16, 0x33));
	EXPECT_EQ(3, peer_read(&self->a, self->last));
}

MSHARE_TEST_MAIN
