// SPDX-License-Identifier: GPL-2.0
/*
 * Huge pages of hugetlbfs in a region.
 */
#include "mshare_env.h"

#define RW		(PROT_READ | PROT_WRITE)
#define POOL		12
#define HPS		(2 * MB)

#ifndef MFD_HUGETLB
#define MFD_HUGETLB	4U
#endif
#ifndef MAP_HUGE_2MB
#define MAP_HUGE_2MB	(21 << 26)
#endif

enum huge { HUGE_ANON_PRIVATE, HUGE_ANON_SHARED, HUGE_MEMFD, HUGE_FILE_SHARED,
	    HUGE_FILE_PRIVATE };

FIXTURE(hugetlb)
{
	const char *name;
	void *addr;
	size_t len;
	struct peer a, b;
	struct setting pool;
	struct setting numa;
	char mnt[64];
	int fd;
	int flags;
	long free;
	const char *why;
};

FIXTURE_VARIANT(hugetlb)
{
	enum huge kind;
};

FIXTURE_VARIANT_ADD(hugetlb, anon_private) { .kind = HUGE_ANON_PRIVATE };
FIXTURE_VARIANT_ADD(hugetlb, anon_shared) { .kind = HUGE_ANON_SHARED };
FIXTURE_VARIANT_ADD(hugetlb, memfd) { .kind = HUGE_MEMFD };
FIXTURE_VARIANT_ADD(hugetlb, file_shared) { .kind = HUGE_FILE_SHARED };
FIXTURE_VARIANT_ADD(hugetlb, file_private) { .kind = HUGE_FILE_PRIVATE };

static bool is_private(enum huge kind)
{
	return kind == HUGE_ANON_PRIVATE || kind == HUGE_FILE_PRIVATE;
}

static long huge_free(void)
{
	return read_key("/proc/meminfo", "HugePages_Free");
}

static long huge_rsvd(void)
{
	return read_key("/proc/meminfo", "HugePages_Rsvd");
}

FIXTURE_SETUP(hugetlb)
{
	NOT_ON_DEBUG(variant->kind == HUGE_ANON_SHARED || variant->kind == HUGE_MEMFD);
	self->name = new_name();
	self->addr = slot(0);
	self->len = granule();
	self->fd = -1;
	self->flags = is_private(variant->kind) ? MAP_PRIVATE : MAP_SHARED;

	write_file("/proc/sys/vm/compact_memory", "1");
	if (setting_set(&self->pool, "/proc/sys/vm/nr_hugepages", "12") ||
	    read_key("/proc/meminfo", "HugePages_Total") < POOL) {
		self->why = "no pool of huge pages";
		return;
	}
	if (read_key("/proc/meminfo", "Hugepagesize") != HPS / KB) {
		self->why = "huge pages are not of 2 MB";
		return;
	}
	switch (variant->kind) {
	case HUGE_ANON_PRIVATE:
	case HUGE_ANON_SHARED:
		self->flags |= MAP_ANONYMOUS | MAP_HUGETLB;
		break;
	case HUGE_MEMFD:
		self->fd = memfd_create("mshare", MFD_CLOEXEC | MFD_HUGETLB);
		break;
	default:
		snprintf(self->mnt, sizeof(self->mnt), "/tmp/mshare-huge-%d", getpid());
		mkdir(self->mnt, 0755);
		if (mount("none", self->mnt, "hugetlbfs", 0, "pagesize=2M")) {
			self->why = "cannot mount hugetlbfs";
			return;
		}
		char path[128];

		snprintf(path, sizeof(path), "%s/file", self->mnt);
		self->fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
	}
	if (!(self->flags & MAP_ANONYMOUS)) {
		ASSERT_LE(0, self->fd);
		ASSERT_OK(ftruncate(self->fd, 16 * HPS));
	}
	ASSERT_EQ(0, peer_start(&self->a));
	ASSERT_EQ(0, peer_start(&self->b));
	ASSERT_OK(peer_create(&self->a, self->name, self->addr, self->len));
	ASSERT_OK(peer_attach(&self->b, self->name));
	ASSERT_OK(attach(self->name));
	self->free = huge_free();
	ASSERT_EQ(POOL, self->free);
}

FIXTURE_TEARDOWN(hugetlb)
{
	peer_stop(&self->a);
	peer_stop(&self->b);
	munmap(self->addr, self->len);
	remove_names();
	if (self->fd >= 0)
		close(self->fd);
	if (self->mnt[0]) {
		umount2(self->mnt, MNT_DETACH);
		rmdir(self->mnt);
	}
	(void)WAIT_FOR(huge_free() == read_key("/proc/meminfo", "HugePages_Total"), 5);
	setting_restore(&self->pool);
}

#define NEED_POOL() do {						\
	if (self->why)							\
		SKIP(return, "%s", self->why);				\
} while (0)

#define MAP(_addr, _len, _extra)					\
	mmap(_addr, _len, RW, self->flags | (_extra), self->fd, 0)

static long do_fill_huge(const struct request *rq)
{
	long i;

	for (i = 0; i < rq->a[1]; i++) {
		long r = try_write((void *)(rq->a[0] + i * HPS + 5000 * i),
				   rq->a[2] + i);

		if (r)
			return r;
	}
	return i;
}

static long do_wrong_huge(const struct request *rq)
{
	long i, bad = 0;

	for (i = 0; i < rq->a[1]; i++)
		if (try_read((void *)(rq->a[0] + i * HPS + 5000 * i)) != rq->a[2] + i)
			bad++;
	return bad;
}

#define PEER_FILL(_p, _addr, _n, _v)					\
	PEER(_p, do_fill_huge, NULL, L(_addr), _n, _v)
#define PEER_WRONG(_p, _addr, _n, _v)					\
	PEER(_p, do_wrong_huge, NULL, L(_addr), _n, _v)

TEST_F(hugetlb, all_see_the_same_pages)
{
	long faults;

	NEED_POOL();
	ASSERT_EQ(self->addr, MAP(self->addr, 4 * HPS, MAP_FIXED));
	EXPECT_EQ(4, huge_rsvd());
	EXPECT_EQ(4, PEER_FILL(&self->a, self->addr, 4, 10));
	EXPECT_EQ(POOL - 4, huge_free());
	EXPECT_EQ(0, huge_rsvd());
	EXPECT_EQ(0, PEER_WRONG(&self->b, self->addr, 4, 10));
	EXPECT_EQ(4, PEER_FILL(&self->b, self->addr, 4, 20));
	EXPECT_EQ(POOL - 4, huge_free());
	faults = minflt();
	for (size_t i = 0; i < 4 * HPS; i += page()) {
		ASSERT_LE(0, try_read(at(self->addr, i)));
	}
	EXPECT_GT(16, minflt() - faults);
	EXPECT_EQ(0, PEER_WRONG(&self->a, self->addr, 4, 20));
	/* Who leaves takes nothing along. */
	peer_stop(&self->b);
	EXPECT_EQ(0, PEER_WRONG(&self->a, self->addr, 4, 20));
	EXPECT_EQ(POOL - 4, huge_free());
	EXPECT_EQ(FAULT(SIGBUS, BUS_ADRERR), try_read(at(self->addr, 4 * HPS)));
}

TEST_F(hugetlb, what_is_private_is_the_regions)
{
	char c = 1;
	void *own;

	NEED_POOL();
	if (self->fd < 0)
		SKIP(return, "not a file");
	ASSERT_EQ(self->addr, MAP(self->addr, 2 * HPS, MAP_FIXED));
	own = mmap(NULL, 2 * HPS, RW, MAP_SHARED, self->fd, 0);
	ASSERT_NE(MAP_FAILED, own);
	ASSERT_EQ(0, try_write(own, 50));
	EXPECT_EQ(50, peer_read(&self->a, self->addr));
	EXPECT_EQ(0, peer_write(&self->b, self->addr, 60));
	EXPECT_EQ(60, peer_read(&self->a, self->addr));
	EXPECT_EQ(1, pread(self->fd, &c, 1, 0));
	EXPECT_EQ(is_private(variant->kind) ? 50 : 60, c);
	EXPECT_EQ(is_private(variant->kind) ? 50 : 60, try_read(own));
	munmap(own, 2 * HPS);
}

TEST_F(hugetlb, a_fixed_address_must_be_aligned)
{
	void *p = at(self->addr, GB);

	NEED_POOL();
	ASSERT_OK(map_anon(p, 8 * MB, MAP_PRIVATE));
	ASSERT_EQ(0, try_write(at(p, MB), 5));
	EXPECT_ERR(EINVAL, MAP(at(p, MB), HPS, MAP_FIXED));
	EXPECT_ERR(EINVAL, MAP(at(p, page()), HPS, MAP_FIXED));
	EXPECT_ERR(EINVAL, MAP(at(p, 16 * MB + page()), HPS, MAP_FIXED_NOREPLACE));
	EXPECT_EQ(5, peer_read(&self->a, at(p, MB)));
	/* A whole page replaces what is there. */
	EXPECT_ERR(EEXIST, MAP(p, HPS, MAP_FIXED_NOREPLACE));
	EXPECT_EQ(p, MAP(p, HPS, MAP_FIXED));
	EXPECT_EQ(0, peer_read(&self->a, at(p, MB)));
	/* The region's ends are. */
	EXPECT_ERR(EINVAL, MAP(at(self->addr, -HPS), 2 * HPS, MAP_FIXED));
	EXPECT_ERR(EINVAL, MAP(at(self->addr, self->len - HPS), 2 * HPS, MAP_FIXED));
	EXPECT_EQ(at(self->addr, self->len - HPS),
		  MAP(at(self->addr, self->len - HPS), HPS, MAP_FIXED));
	EXPECT_EQ(0, try_write(at(self->addr, self->len - 1), 1));
}

TEST_F(hugetlb, a_hint_finds_aligned_room)
{
	void *p = at(self->addr, GB), *q;

	NEED_POOL();
	q = MAP(at(p, page()), HPS, 0);
	EXPECT_EQ(at(p, HPS), q);
	/* Taken. */
	q = MAP(at(p, HPS), HPS, 0);
	ASSERT_NE(MAP_FAILED, q);
	EXPECT_EQ(0, L(q) % (long)HPS);
	EXPECT_LE(self->addr, q);
	EXPECT_GE(at(self->addr, self->len - HPS), q);
	EXPECT_NE(at(p, HPS), q);
	EXPECT_EQ(0, peer_write(&self->a, q, 3));
	EXPECT_EQ(3, peer_read(&self->b, q));
	/* With small pages all around. */
	ASSERT_OK(mmap(self->addr, 512 * MB, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS |
		       MAP_FIXED | MAP_NORESERVE, -1, 0));
	ASSERT_OK(munmap(at(self->addr, 100 * page()), 2 * HPS));
	q = MAP(self->addr, HPS, 0);
	ASSERT_NE(MAP_FAILED, q);
	EXPECT_EQ(0, L(q) % (long)HPS);
	EXPECT_EQ(0, try_write(q, 1));
	/* A length that is no whole number of pages is rounded up. */
	q = mmap(at(self->addr, 4 * GB), page(), RW, self->flags, self->fd, 0);
	EXPECT_EQ(at(self->addr, 4 * GB), q);
	EXPECT_EQ(0, try_write(at(q, HPS - 1), 1));
	EXPECT_ERR(ENOMEM, mmap(self->addr, self->len - page(), RW,
				self->flags | MAP_NORESERVE, self->fd, 0));
}

TEST_F(hugetlb, pages_go_with_what_is_unmapped)
{
	NEED_POOL();
	ASSERT_EQ(self->addr, MAP(self->addr, 4 * HPS, MAP_FIXED));
	ASSERT_EQ(4, PEER_FILL(&self->a, self->addr, 4, 1));
	EXPECT_ERR(EINVAL, peer_munmap(&self->b, self->addr, page()));
	EXPECT_ERR(EINVAL, peer_munmap(&self->b, at(self->addr, page()), HPS - page()));
	EXPECT_ERR(EINVAL, mmap(at(self->addr, page()), page(), RW, MAP_PRIVATE |
				MAP_ANONYMOUS | MAP_FIXED, -1, 0));
	EXPECT_EQ(0, PEER_WRONG(&self->b, self->addr, 4, 1));
	EXPECT_OK(peer_munmap(&self->b, at(self->addr, HPS), HPS));
	EXPECT_EQ(FAULT(SIGBUS, BUS_ADRERR), peer_read(&self->a, at(self->addr, HPS)));
	EXPECT_EQ(1, peer_read(&self->a, self->addr));
	if (self->flags & MAP_ANONYMOUS)
		EXPECT_EQ(POOL - (is_private(variant->kind) ? 3 : 4), huge_free());
	/* Small pages may come where huge ones were, and the other way. */
	ASSERT_OK(map_anon(at(self->addr, HPS), HPS, MAP_PRIVATE));
	EXPECT_EQ(0, peer_write(&self->a, at(self->addr, HPS + page()), 9));
	ASSERT_EQ(at(self->addr, HPS), MAP(at(self->addr, HPS), HPS, MAP_FIXED));
	EXPECT_LE(0, peer_read(&self->b, at(self->addr, HPS)));
	EXPECT_OK(munmap(self->addr, 8 * HPS));
	if (self->flags & MAP_ANONYMOUS)
		EXPECT_EQ(POOL, huge_free());
	if (self->flags & MAP_ANONYMOUS)
		EXPECT_EQ(0, huge_rsvd());
}

TEST_F(hugetlb, pages_go_with_the_region)
{
	NEED_POOL();
	ASSERT_EQ(self->addr, MAP(self->addr, 6 * HPS, MAP_FIXED));
	ASSERT_EQ(4, PEER_FILL(&self->a, self->addr, 4, 1));
	EXPECT_EQ(2, huge_rsvd());
	peer_stop(&self->a);
	peer_stop(&self->b);
	EXPECT_EQ(POOL - 4, huge_free());
	if (self->fd >= 0) {
		close(self->fd);
		self->fd = -1;
		if (self->mnt[0]) {
			char path[128];

			snprintf(path, sizeof(path), "%s/file", self->mnt);
			ASSERT_OK(unlink(path));
		}
	}
	ASSERT_OK(mshare_unlink(self->name));
	EXPECT_TRUE(WAIT_FOR(huge_free() == POOL && !huge_rsvd(), 10)) {
		TH_LOG("%ld free, %ld reserved", huge_free(), huge_rsvd());
	}
}

TEST_F(hugetlb, protection_holds_for_all)
{
	NEED_POOL();
	ASSERT_EQ(self->addr, MAP(self->addr, 2 * HPS, MAP_FIXED));
	ASSERT_EQ(2, PEER_FILL(&self->a, self->addr, 2, 1));
	ASSERT_OK(peer_mprotect(&self->b, self->addr, HPS, PROT_READ));
	EXPECT_EQ(FAULT(SIGSEGV, SEGV_ACCERR), peer_write(&self->a, self->addr, 2));
	EXPECT_EQ(FAULT(SIGSEGV, SEGV_ACCERR), try_write(self->addr, 2));
	EXPECT_EQ(0, peer_write(&self->a, at(self->addr, HPS), 2));
	ASSERT_OK(mprotect(self->addr, HPS, PROT_NONE));
	EXPECT_EQ(FAULT(SIGSEGV, SEGV_ACCERR), peer_read(&self->a, self->addr));
	EXPECT_ERR(EINVAL, mprotect(self->addr, page(), RW));
	ASSERT_OK(mprotect(self->addr, HPS, RW));
	EXPECT_EQ(1, peer_read(&self->a, self->addr));
	EXPECT_EQ(0, peer_write(&self->a, self->addr, 3));
	EXPECT_EQ(3, peer_read(&self->b, self->addr));
}

TEST_F(hugetlb, what_the_pool_has_not_is_not_mapped)
{
	size_t n = (POOL + 1) * HPS;

	NEED_POOL();
	ASSERT_OK(map_anon(self->addr, page(), MAP_PRIVATE));
	ASSERT_EQ(0, try_write(self->addr, 4));
	EXPECT_ERR(ENOMEM, MAP(at(self->addr, GB), n, MAP_FIXED));
	EXPECT_EQ(0, huge_rsvd());
	EXPECT_EQ(4, peer_read(&self->a, self->addr));
	/* Or without a promise, and then the last fault fails. */
	EXPECT_EQ(at(self->addr, GB),
		  MAP(at(self->addr, GB), n, MAP_FIXED | MAP_NORESERVE));
	EXPECT_EQ(0, huge_rsvd());
	EXPECT_EQ(POOL, PEER_FILL(&self->a, at(self->addr, GB), POOL, 1));
	EXPECT_EQ(0, huge_free());
	EXPECT_EQ(FAULT(SIGBUS, BUS_ADRERR),
		  peer_write(&self->b, at(self->addr, GB + POOL * HPS), 1));
	EXPECT_EQ(0, PEER_WRONG(&self->b, at(self->addr, GB), POOL, 1));
}

TEST_F(hugetlb, populating_and_locking_work)
{
	NEED_POOL();
	ASSERT_EQ(self->addr, MAP(self->addr, 2 * HPS, MAP_FIXED | MAP_POPULATE));
	EXPECT_EQ(POOL - 2, huge_free());
	ASSERT_EQ(at(self->addr, GB), MAP(at(self->addr, GB), 2 * HPS,
					  MAP_FIXED | MAP_LOCKED));
	EXPECT_OK(mlock(self->addr, 2 * HPS));
	EXPECT_OK(munlock(self->addr, 2 * HPS));
	EXPECT_EQ(0, peer_write(&self->a, self->addr, 3));
	EXPECT_EQ(3, peer_read(&self->b, self->addr));
}

/* Holes punched and files cut short reach what the region maps. */
TEST_F(hugetlb, punched_holes_and_truncation_reach_the_region)
{
	NEED_POOL();
	if (self->fd < 0)
		SKIP(return, "not a file");
	ASSERT_EQ(self->addr, MAP(self->addr, 4 * HPS, MAP_FIXED));
	ASSERT_EQ(4, PEER_FILL(&self->a, self->addr, 4, 1));
	EXPECT_EQ(0, PEER_WRONG(&self->b, self->addr, 4, 1));
	/* On hugetlbfs private copies go with the file's pages. */
	ASSERT_OK(fallocate(self->fd, 3 /* PUNCH_HOLE | KEEP_SIZE */, 0, HPS));
	EXPECT_EQ(0, peer_read(&self->b, self->addr));
	ASSERT_OK(ftruncate(self->fd, 2 * HPS));
	EXPECT_EQ(SIGBUS, fault_sig(peer_read(&self->b, at(self->addr, 2 * HPS))));
	EXPECT_EQ(SIGBUS, fault_sig(peer_write(&self->a, at(self->addr, 2 * HPS), 1)));
	EXPECT_EQ(2, peer_read(&self->b, at(self->addr, HPS + 5000)));
}

/*
 * Where others can share their page tables for such a file, a region's are none
 * of those: what is done to the one is not done to the other.
 */
static long do_map_fd(const struct request *rq)
{
	return L(mmap((void *)rq->a[0], rq->a[1], RW, MAP_SHARED | MAP_FIXED |
		      MAP_NORESERVE, rq->a[2], 0));
}

static long do_fault_all(const struct request *rq)
{
	unsigned long i;

	for (i = 0; i < (unsigned long)rq->a[1]; i += HPS)
		if (try_read((void *)(rq->a[0] + i)) < 0)
			return -1;
	return 0;
}

TEST_F(hugetlb, tables_are_not_shared_beyond_the_region)
{
	void *own = slot(8), *own2 = slot(9);
	struct peer c;

	NEED_POOL();
	if (self->fd < 0 || is_private(variant->kind))
		SKIP(return, "not a shared file");
	ASSERT_OK(ftruncate(self->fd, 2 * GB));
	ASSERT_EQ(0, peer_start(&c));
	ASSERT_OK(PEER(&c, do_munmap, NULL, L(self->addr), self->len));
	for (int order = 0; order < 2; order++) {
		/* Whoever is first. */
		if (order)
			ASSERT_OK(PEER(&c, do_map_fd, NULL, L(own), 2 * GB, self->fd));
		if (order)
			ASSERT_EQ(2, PEER_FILL(&c, own, 2, 1));
		ASSERT_OK(mmap(self->addr, 2 * GB, RW, MAP_SHARED | MAP_FIXED |
			       MAP_NORESERVE, self->fd, 0));
		ASSERT_EQ(2, PEER_FILL(&self->a, self->addr, 2, 1));
		if (!order)
			ASSERT_OK(PEER(&c, do_map_fd, NULL, L(own), 2 * GB, self->fd));
		ASSERT_OK(mmap(at(self->addr, 4 * GB), 2 * GB, RW, MAP_SHARED | MAP_FIXED |
			       MAP_NORESERVE, self->fd, 0));
		ASSERT_OK(PEER(&c, do_map_fd, NULL, L(own2), 2 * GB, self->fd));
		EXPECT_EQ(0, PEER_WRONG(&c, own, 2, 1));
		EXPECT_EQ(0, PEER_WRONG(&c, own2, 2, 1));
		EXPECT_EQ(0, PEER_WRONG(&self->b, at(self->addr, 4 * GB), 2, 1));
		EXPECT_EQ(0, PEER_WRONG(&self->b, self->addr, 2, 1));
		/* Protecting one leaves the others writable. */
		ASSERT_OK(mprotect(self->addr, 2 * GB, PROT_READ));
		EXPECT_EQ(FAULT(SIGSEGV, SEGV_ACCERR), peer_write(&self->a, self->addr, 7));
		EXPECT_EQ(0, peer_write(&c, own, 1));
		EXPECT_EQ(0, peer_write(&self->a, at(self->addr, 4 * GB), 1));
		ASSERT_OK(mprotect(self->addr, 2 * GB, RW));
		ASSERT_OK(PEER(&c, do_mprotect, NULL, L(own), 2 * GB, PROT_NONE));
		EXPECT_EQ(0, peer_write(&self->a, self->addr, 1));
		EXPECT_EQ(0, PEER_WRONG(&self->b, self->addr, 2, 1));
		ASSERT_OK(PEER(&c, do_munmap, NULL, L(own), 2 * GB));
		EXPECT_EQ(0, PEER_WRONG(&self->b, self->addr, 2, 1));
		EXPECT_EQ(0, PEER_WRONG(&c, own2, 2, 1));
		/* And a hole is one for all. */
		ASSERT_OK(fallocate(self->fd, 3, 0, HPS));
		EXPECT_EQ(0, peer_read(&self->a, self->addr));
		EXPECT_EQ(0, peer_read(&self->b, at(self->addr, 4 * GB)));
		EXPECT_EQ(0, peer_read(&c, own2));
		ASSERT_OK(munmap(self->addr, 8 * GB));
		EXPECT_EQ(2, peer_read(&c, at(own2, HPS + 5000)));
		ASSERT_OK(PEER(&c, do_munmap, NULL, L(own2), 2 * GB));
	}
	peer_stop(&c);
}

/* All at once, with mappings that come and go. */
TEST_F_TIMEOUT(hugetlb, faults_race_with_unmapping, SHORT_TIMEOUT)
{
	double end = now() + 1;
	int rounds = 0;

	NEED_POOL();
	/* Some at least, however slow. */
	while (now() < end || rounds < 10) {
		ASSERT_EQ(self->addr, MAP(self->addr, 6 * HPS, MAP_FIXED));
		PEER_SEND(&self->a, do_fault_all, NULL, L(self->addr), 6 * HPS);
		PEER_SEND(&self->b, do_fill_huge, NULL, L(self->addr), 6, 1);
		if (rounds & 1)
			usleep(rounds % 200);
		ASSERT_OK(munmap(self->addr, 6 * HPS));
		peer_wait(&self->a);
		peer_wait(&self->b);
		rounds++;
	}
	if (self->flags & MAP_ANONYMOUS) {
		EXPECT_EQ(POOL, huge_free());
		EXPECT_EQ(0, huge_rsvd());
	}
}

/* Who pays. */

FIXTURE(hugetlb_cg)
{
	const char *name;
	void *addr;
	size_t len;
	char ga[64], gb[64];
	struct peer a, b;	/* the creator in ga, a consumer in gb */
	struct setting pool;
	const char *why;
};

FIXTURE_VARIANT(hugetlb_cg)
{
	int sharing;
};

FIXTURE_VARIANT_ADD(hugetlb_cg, anon_private) { .sharing = MAP_PRIVATE };
FIXTURE_VARIANT_ADD(hugetlb_cg, anon_shared) { .sharing = MAP_SHARED };

static bool cg_has(const char *controller)
{
	char buf[512], on[64];

	if (!cg_root() ||
	    read_file(cg_path(".", "cgroup.controllers"), buf, sizeof(buf)) < 0 ||
	    !strstr(buf, controller))
		return false;
	snprintf(on, sizeof(on), "+%s", controller);
	write_file(cg_path(".", "cgroup.subtree_control"), on);
	return read_file(cg_path(".", "cgroup.subtree_control"), buf,
			 sizeof(buf)) > 0 && strstr(buf, controller);
}

FIXTURE_SETUP(hugetlb_cg)
{
	self->name = new_name();
	self->addr = slot(0);
	self->len = granule();
	if (!cg_has("hugetlb") || !cg_has("memory")) {
		self->why = "no cgroup v2 hugetlb and memory controllers";
		return;
	}
	write_file("/proc/sys/vm/compact_memory", "1");
	if (setting_set(&self->pool, "/proc/sys/vm/nr_hugepages", "12") ||
	    read_key("/proc/meminfo", "HugePages_Total") < POOL) {
		self->why = "no pool of huge pages";
		return;
	}
	snprintf(self->ga, sizeof(self->ga), "mshare-%d-a", getpid());
	snprintf(self->gb, sizeof(self->gb), "mshare-%d-b", getpid());
	ASSERT_OK(cg_make(self->ga));
	ASSERT_OK(cg_make(self->gb));
	ASSERT_EQ(0, peer_start(&self->a));
	ASSERT_EQ(0, peer_start(&self->b));
	ASSERT_OK(PEER(&self->a, do_cg_enter, self->ga, 0));
	ASSERT_OK(PEER(&self->b, do_cg_enter, self->gb, 0));
	ASSERT_OK(peer_create(&self->a, self->name, self->addr, self->len));
	ASSERT_OK(peer_attach(&self->b, self->name));
}

FIXTURE_TEARDOWN(hugetlb_cg)
{
	peer_stop(&self->a);
	peer_stop(&self->b);
	remove_names();
	(void)WAIT_FOR(huge_free() == read_key("/proc/meminfo", "HugePages_Total"), 5);
	setting_restore(&self->pool);
	if (self->ga[0]) {
		cg_remove(self->ga);
		cg_remove(self->gb);
	}
}

static void *cg_map(struct peer *p, void *addr, size_t len, int flags)
{
	return peer_mmap(p, addr, len, RW, flags | MAP_ANONYMOUS | MAP_FIXED |
			 MAP_HUGETLB, -1, 0);
}

TEST_F(hugetlb_cg, the_creators_group_pays)
{
	NEED_POOL();
	ASSERT_EQ(self->addr, cg_map(&self->b, self->addr, 4 * HPS, variant->sharing));
	EXPECT_EQ(4 * (long)HPS, cg_long(self->ga, "hugetlb.2MB.rsvd.current"));
	EXPECT_EQ(0, cg_long(self->gb, "hugetlb.2MB.rsvd.current"));
	EXPECT_EQ(3, PEER_FILL(&self->b, self->addr, 3, 1));
	EXPECT_EQ(3 * (long)HPS, cg_long(self->ga, "hugetlb.2MB.current"));
	EXPECT_EQ(0, cg_long(self->gb, "hugetlb.2MB.current"));
	EXPECT_OK(peer_munmap(&self->b, self->addr, 4 * HPS));
	EXPECT_EQ(0, cg_long(self->ga, "hugetlb.2MB.current"));
	EXPECT_EQ(0, cg_long(self->ga, "hugetlb.2MB.rsvd.current"));
	/* Without a reservation. */
	ASSERT_EQ(self->addr, cg_map(&self->b, self->addr, 4 * HPS,
				     variant->sharing | MAP_NORESERVE));
	EXPECT_EQ(2, PEER_FILL(&self->b, self->addr, 2, 1));
	EXPECT_EQ(2 * (long)HPS, cg_long(self->ga, "hugetlb.2MB.current"));
	EXPECT_EQ(2 * (long)HPS, cg_long(self->ga, "hugetlb.2MB.rsvd.current"));
	EXPECT_EQ(0, cg_long(self->gb, "hugetlb.2MB.rsvd.current"));
	/* What the process has of its own is its own. */
	ASSERT_NE(MAP_FAILED, cg_map(&self->b, slot(4), HPS, variant->sharing));
	EXPECT_EQ(1, PEER_FILL(&self->b, slot(4), 1, 1));
	EXPECT_EQ((long)HPS, cg_long(self->gb, "hugetlb.2MB.current"));
}

TEST_F(hugetlb_cg, the_creators_limit_holds)
{
	NEED_POOL();
	ASSERT_OK(cg_write(self->gb, "hugetlb.2MB.max", "0"));
	ASSERT_OK(cg_write(self->ga, "hugetlb.2MB.max", "4M"));
	ASSERT_EQ(self->addr, cg_map(&self->b, self->addr, 4 * HPS, variant->sharing));
	EXPECT_EQ(2, PEER_FILL(&self->b, self->addr, 2, 1));
	EXPECT_EQ(FAULT(SIGBUS, BUS_ADRERR),
		  peer_write(&self->b, at(self->addr, 2 * HPS), 1));
	EXPECT_EQ(0, PEER_WRONG(&self->b, self->addr, 2, 1));
	ASSERT_OK(cg_write(self->ga, "hugetlb.2MB.rsvd.max", "8M"));
	EXPECT_ERR(ENOMEM, L(cg_map(&self->b, at(self->addr, GB), HPS, variant->sharing)));
}

TEST_F(hugetlb_cg, a_removed_group_stands_for_its_parent)
{
	char parent[64], child[96];
	const char *name = new_name();
	struct peer c;
	int fd;

	NEED_POOL();
	snprintf(parent, sizeof(parent), "mshare-%d-p", getpid());
	snprintf(child, sizeof(child), "%s/c", parent);
	ASSERT_OK(cg_make(parent));
	ASSERT_OK(cg_write(parent, "cgroup.subtree_control", "+hugetlb"));
	ASSERT_OK(cg_make(child));
	ASSERT_EQ(0, peer_start(&c));
	ASSERT_OK(PEER(&c, do_cg_enter, child, 0));
	ASSERT_OK(peer_create(&c, name, slot(4), self->len));
	ASSERT_OK(peer_attach(&self->b, name));
	ASSERT_NE(MAP_FAILED, cg_map(&self->b, slot(4), 4 * HPS, variant->sharing));
	EXPECT_EQ(2, PEER_FILL(&self->b, slot(4), 2, 1));
	EXPECT_EQ(2 * (long)HPS, cg_long(child, "hugetlb.2MB.current"));
	peer_stop(&c);
	ASSERT_TRUE(cg_remove(child));
	EXPECT_EQ(0, PEER_WRONG(&self->b, slot(4), 2, 1));
	EXPECT_TRUE(WAIT_FOR(cg_long(parent, "hugetlb.2MB.current") == 2 * (long)HPS, 5));
	EXPECT_EQ(4, PEER_FILL(&self->b, slot(4), 4, 1));
	EXPECT_EQ(4 * (long)HPS, cg_long(parent, "hugetlb.2MB.current"));
	ASSERT_OK(cg_write(parent, "hugetlb.2MB.max", "8M"));
	ASSERT_NE(MAP_FAILED, cg_map(&self->b, at(slot(4), GB), HPS, variant->sharing));
	EXPECT_EQ(SIGBUS, fault_sig(peer_write(&self->b, at(slot(4), GB), 1)));

	/* What outlives the region is charged to the parent, and to no ghost. */
	ASSERT_OK(cg_write(parent, "hugetlb.2MB.max", "max"));
	fd = memfd_create("mshare", MFD_CLOEXEC | MFD_HUGETLB);
	ASSERT_LE(0, fd);
	ASSERT_OK(ftruncate(fd, 2 * HPS));
	ASSERT_OK(attach(name));
	ASSERT_OK(mmap(at(slot(4), 2 * GB), 2 * HPS, RW, MAP_SHARED | MAP_FIXED, fd, 0));
	EXPECT_EQ(0, peer_write(&self->b, at(slot(4), 2 * GB), 1));
	ASSERT_OK(munmap(slot(4), self->len));
	EXPECT_OK(peer_unlink(&self->b, name));
	EXPECT_TRUE(WAIT_FOR(read_key(cg_path(parent, "cgroup.stat"),
				      "nr_dying_descendants") == 0, 10));
	EXPECT_EQ((long)HPS, cg_long(parent, "hugetlb.2MB.current"));
	EXPECT_EQ(2 * (long)HPS, cg_long(parent, "hugetlb.2MB.rsvd.current"));
	close(fd);
	EXPECT_TRUE(WAIT_FOR(cg_long(parent, "hugetlb.2MB.current") == 0 &&
			     cg_long(parent, "hugetlb.2MB.rsvd.current") == 0, 10));
	EXPECT_TRUE(cg_remove(parent));
}

/* Where huge pages count as memory, they count as the region's. */
TEST_F_TIMEOUT(hugetlb_cg, memory_is_charged_where_the_mount_says_so, SHORT_TIMEOUT)
{
	long before_a, before_b;
	char max[32];

	NEED_POOL();
	if (mount("none", cg_root(), "cgroup2", MS_REMOUNT,
		  "memory_hugetlb_accounting"))
		SKIP(return, "no memory_hugetlb_accounting");
	before_a = cg_long(self->ga, "memory.current");
	before_b = cg_long(self->gb, "memory.current");
	ASSERT_EQ(self->addr, cg_map(&self->b, self->addr, 8 * HPS, variant->sharing));
	EXPECT_EQ(4, PEER_FILL(&self->b, self->addr, 4, 1));
	/* What the group has else comes and goes, but is not much. */
	EXPECT_LE(before_a + 3 * (long)HPS, cg_long(self->ga, "memory.current"));
	EXPECT_GT(before_b + (long)HPS, cg_long(self->gb, "memory.current"));
	/* A group that is full ends in a signal, not in an endless fault. */
	cg_write(self->ga, "memory.swap.max", "0");
	snprintf(max, sizeof(max), "%ld", cg_long(self->ga, "memory.current") + (long)MB);
	ASSERT_OK(cg_write(self->ga, "memory.max", max));
	EXPECT_EQ(SIGBUS, fault_sig(peer_write(&self->b, at(self->addr, 6 * HPS), 1)));
	peer_stop(&self->a);
	EXPECT_EQ(SIGBUS, fault_sig(peer_write(&self->b, at(self->addr, 6 * HPS), 1)));
	EXPECT_EQ(0, PEER_WRONG(&self->b, self->addr, 4, 1));
	ASSERT_OK(cg_write(self->ga, "memory.max", "max"));
	EXPECT_EQ(8, PEER_FILL(&self->b, self->addr, 8, 1));
	EXPECT_OK(peer_unlink(&self->b, self->name));
	EXPECT_TRUE(WAIT_FOR(cg_long(self->ga, "memory.current") < (long)HPS, 10));
	mount("none", cg_root(), "cgroup2", MS_REMOUNT, "");
}

MSHARE_TEST_MAIN
