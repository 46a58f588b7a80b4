// SPDX-License-Identifier: GPL-2.0
/*
 * Every allocation of every call made to fail in turn, by /proc/self/fail-nth:
 * a call that fails leaves nothing behind, and succeeds when it is made again.
 *
 * Needs a kernel with fault injection.
 */
#include "mshare_env.h"

#define RW	(PROT_READ | PROT_WRITE)
#define FAIL_NTH "/proc/thread-self/fail-nth"
/* No call allocates this often; the loop ends where nothing was made to fail. */
#define MAX_NTH	2000

/* Injection into allocations that may sleep, without a report for each. */
static const char *setup_injection(void)
{
	static const char * const attrs[][2] = {
		{ "failslab/ignore-gfp-wait", "N" },
		{ "failslab/verbose", "0" },
		{ "failslab/task-filter", "N" },
		{ "fail_page_alloc/ignore-gfp-wait", "N" },
		{ "fail_page_alloc/ignore-gfp-highmem", "N" },
		{ "fail_page_alloc/min-order", "0" },
		{ "fail_page_alloc/verbose", "0" },
		{ "fail_usercopy/verbose", "0" },
		{ "fail_futex/verbose", "0" },
	};
	char path[128];
	size_t i;
	int done = 0;

	if (access(FAIL_NTH, W_OK))
		return "the kernel has no " FAIL_NTH;
	mount("none", "/sys/kernel/debug", "debugfs", 0, NULL);
	for (i = 0; i < ARRAY_SIZE(attrs); i++) {
		snprintf(path, sizeof(path), "/sys/kernel/debug/%s", attrs[i][0]);
		if (!write_file(path, attrs[i][1]))
			done++;
	}
	return done ? NULL : "no failslab and no fail_page_alloc in debugfs";
}

/* Calls of the last loop that failed. */
static int nr_failed;

/* From here on the @nth allocation of this thread fails. */
static int inject(int fd, int nth)
{
	char buf[16];
	int n = snprintf(buf, sizeof(buf), "%d", nth);

	return pwrite(fd, buf, n, 0) == n ? 0 : -1;
}

/* Whether the allocation was reached, and so failed. Ends the injection. */
static bool injected(int fd)
{
	char buf[16] = "";
	int err = errno;
	bool hit;

	/* If it was not, the read may be what fails. */
	hit = pread(fd, buf, sizeof(buf) - 1, 0) > 0 && atoi(buf) == 0;
	inject(fd, 0);
	errno = err;
	return hit;
}

/* What calls say of lacking memory. */
static bool expected(int err)
{
	return err == ENOMEM ||
	       err == EAGAIN ||		/* fork() */
	       err == ENFILE ||		/* a new file */
	       err == ENOSPC ||		/* a new shmem inode */
	       err == EFAULT;		/* a copy from or to user space */
}

FIXTURE(failnth)
{
	const char *name, *why;
	void *addr, *p;
	size_t len;
	struct peer a;
	int fd;
};

FIXTURE_SETUP(failnth)
{
	self->name = new_name();
	self->addr = slot(0);
	self->len = granule();
	self->p = at(self->addr, GB);
	self->why = setup_injection();
	self->fd = open(FAIL_NTH, O_RDWR | O_CLOEXEC);
	ASSERT_EQ(0, peer_start(&self->a));
}

FIXTURE_TEARDOWN(failnth)
{
	if (self->fd >= 0)
		inject(self->fd, 0);
	peer_stop(&self->a);
	munmap(self->addr, self->len);
	remove_names();
}

#define NEED_INJECTION() do {						\
	if (self->why)							\
		SKIP(return, "%s", self->why);				\
} while (0)

/*
 * Runs _call with each allocation failing in turn, until it succeeds with none
 * made to fail. _after checks what a failure left; _undo undoes a success.
 */
#define EACH_ALLOCATION(_call, _after, _undo) do {			\
	int _nth;							\
									\
	nr_failed = 0;							\
	for (_nth = 1; _nth < MAX_NTH; _nth++) {			\
		bool _hit;						\
		int _err;						\
		long _ret;						\
									\
		ASSERT_EQ(0, inject(self->fd, _nth));			\
		errno = 0;						\
		_ret = (long)(_call);					\
		_hit = injected(self->fd);				\
		_err = errno;						\
		if (_ret == -1) {					\
			ASSERT_TRUE(_hit) {				\
				TH_LOG("allocation %d: %s", _nth,	\
				       strerror(_err));			\
			}						\
			ASSERT_TRUE(expected(_err)) {			\
				TH_LOG("allocation %d: %s", _nth,	\
				       strerror(_err));			\
			}						\
			nr_failed++;					\
			_after;						\
		} else {						\
			/* A failure that did no harm is fine. */	\
			_undo;						\
			if (!_hit)					\
				break;					\
		}							\
	}								\
	TH_LOG("%d allocations, %d of them necessary", _nth - 1, nr_failed); \
	ASSERT_GT(MAX_NTH, _nth);					\
} while (0)

TEST_F_TIMEOUT(failnth, creating, LONG_TIMEOUT)
{
	NEED_INJECTION();
	EACH_ALLOCATION(create(self->name, self->addr, 3 * self->len),
	({
		ASSERT_FALSE(name_exists(self->name));
		ASSERT_EQ(0, nr_mapped(self->addr, 3 * self->len));
	}),
	({
		ASSERT_TRUE(name_exists(self->name));
		ASSERT_EQ(SIGBUS, fault_sig(try_read(self->addr)));
		ASSERT_OK(mshare_unlink(self->name));
		ASSERT_FALSE(name_exists(self->name));
	}));
	EXPECT_LT(0, nr_failed);
}

/* Of several kinds, and over an end, so that all of adoption has work to do. */
static int map_to_adopt(void *addr, void *p)
{
	void *left = at(addr, -page());
	int fd;

	if (map_anon(left, 4 * page(), MAP_PRIVATE) != left ||
	    map_anon(p, 4 * page(), MAP_PRIVATE) != p ||
	    map_anon(at(p, 4 * page()), page(), MAP_SHARED) != at(p, 4 * page()))
		return -1;
	fd = memfd_create("mshare", MFD_CLOEXEC);
	if (fd < 0 || ftruncate(fd, 2 * page()) ||
	    mmap(at(p, 5 * page()), 2 * page(), RW, MAP_PRIVATE | MAP_FIXED, fd, 0) ==
	    MAP_FAILED)
		return -1;
	close(fd);
	memset(left, 'l', 4 * page());
	memset(p, 'p', 6 * page());
	return madvise(p, page(), MADV_MERGEABLE) && errno != EINVAL ? -1 : 0;
}

static bool adopted_is_whole(void *addr, void *p)
{
	return try_read(at(addr, -page())) == 'l' && try_read(addr) == 'l' &&
	       try_read(p) == 'p' && try_read(at(p, 4 * page())) == 'p' &&
	       try_read(at(p, 5 * page())) == 'p' && !try_read(at(p, 6 * page()));
}

TEST_F_TIMEOUT(failnth, adopting, LONG_TIMEOUT)
{
	void *left = at(self->addr, -page());
	char *before, *after;

	NEED_INJECTION();
	ASSERT_OK(map_to_adopt(self->addr, self->p));
	before = maps_of(left, self->len + page());
	EACH_ALLOCATION(create(self->name, self->addr, self->len),
	({
		ASSERT_FALSE(name_exists(self->name));
		after = maps_of(left, self->len + page());
		ASSERT_STREQ(before, after);
		free(after);
		ASSERT_TRUE(adopted_is_whole(self->addr, self->p));
	}),
	({
		ASSERT_TRUE(adopted_is_whole(self->addr, self->p));
		ASSERT_OK(mshare_unlink(self->name));
		ASSERT_FALSE(name_exists(self->name));
		ASSERT_OK(map_to_adopt(self->addr, self->p));
		free(before);
		before = maps_of(left, self->len + page());
	}));
	EXPECT_LT(10, nr_failed);
	munmap(left, page());
}

/* One mapping over both ends is split, and whole again after a failure. */
TEST_F_TIMEOUT(failnth, adopting_the_middle, LONG_TIMEOUT)
{
	void *left = at(self->addr, -page());
	size_t len = self->len + 2 * page();
	char *before, *after;

	NEED_INJECTION();
#define MAP_IT() ({							\
	ASSERT_EQ(left, mmap(left, len, RW, MAP_PRIVATE | MAP_ANONYMOUS |	\
			     MAP_FIXED | MAP_NORESERVE, -1, 0));	\
	*(char *)left = 1;						\
	*(char *)self->p = 2;						\
	*(char *)at(self->addr, self->len) = 3;				\
})
#define WHOLE() (try_read(left) == 1 && try_read(self->p) == 2 &&	\
		 try_read(at(self->addr, self->len)) == 3)
	MAP_IT();
	before = maps_of(left, len);
	ASSERT_EQ(1, nr_mapped(left, len));
	EACH_ALLOCATION(create(self->name, self->addr, self->len),
	({
		ASSERT_FALSE(name_exists(self->name));
		after = maps_of(left, len);
		ASSERT_STREQ(before, after);
		free(after);
		ASSERT_TRUE(WHOLE());
	}),
	({
		ASSERT_EQ(3, nr_mapped(left, len));
		ASSERT_TRUE(WHOLE());
		ASSERT_OK(mshare_unlink(self->name));
		MAP_IT();
	}));
	EXPECT_LT(10, nr_failed);
	munmap(left, len);
#undef MAP_IT
#undef WHOLE
}

/* Reservations of huge pages are neither lost nor given back. */
TEST_F_TIMEOUT(failnth, adopting_huge_pages, LONG_TIMEOUT)
{
	const size_t huge = 2 * MB;
	void *left = at(self->addr, -huge);
	struct setting nr;

	NEED_INJECTION();
	if (setting_set(&nr, "/proc/sys/vm/nr_hugepages", "8") ||
	    meminfo("HugePages_Free") < 8)
		SKIP(return, "no huge pages to be had");
#define MAP_IT() ({							\
	ASSERT_EQ(left, mmap(left, 2 * huge, RW, MAP_PRIVATE |		\
			     MAP_ANONYMOUS | MAP_FIXED | MAP_HUGETLB,	\
			     -1, 0));					\
	ASSERT_EQ(self->p, mmap(self->p, 2 * huge, RW, MAP_SHARED |	\
				MAP_ANONYMOUS | MAP_FIXED | MAP_HUGETLB,\
				-1, 0));				\
	*(char *)self->p = 1;						\
})
	MAP_IT();
	EACH_ALLOCATION(create(self->name, self->addr, self->len),
	({
		ASSERT_FALSE(name_exists(self->name));
		ASSERT_EQ(3, meminfo("HugePages_Rsvd"));
		ASSERT_EQ(7, meminfo("HugePages_Free"));
		ASSERT_EQ(1, try_read(self->p));
	}),
	({
		ASSERT_EQ(3, meminfo("HugePages_Rsvd"));
		ASSERT_EQ(1, try_read(self->p));
		ASSERT_OK(mshare_unlink(self->name));
		ASSERT_OK(munmap(left, huge));
		ASSERT_TRUE(WAIT_FOR(meminfo("HugePages_Free") == 8, 20));
		ASSERT_EQ(0, meminfo("HugePages_Rsvd"));
		MAP_IT();
	}));
	EXPECT_LT(10, nr_failed);
	munmap(left, huge);
	munmap(self->addr, self->len);
	EXPECT_EQ(0, meminfo("HugePages_Rsvd"));
	setting_restore(&nr);
#undef MAP_IT
}

TEST_F_TIMEOUT(failnth, attaching, LONG_TIMEOUT)
{
	NEED_INJECTION();
	ASSERT_OK(peer_create(&self->a, self->name, self->addr, 3 * self->len));
	EACH_ALLOCATION(attach(self->name),
	({
		ASSERT_EQ(0, nr_mapped(self->addr, 3 * self->len));
		ASSERT_EQ(FAULT(SIGSEGV, SEGV_MAPERR), try_read(self->addr));
	}),
	({
		ASSERT_EQ(SIGBUS, fault_sig(try_read(self->addr)));
		ASSERT_OK(munmap(self->addr, 3 * self->len));
	}));
	EXPECT_LT(0, nr_failed);
	/* No failure has left a user behind. */
	ASSERT_OK(peer_munmap(&self->a, self->addr, 3 * self->len));
	EXPECT_OK(mshare_unlink(self->name));
}

TEST_F_TIMEOUT(failnth, unlinking, LONG_TIMEOUT)
{
	NEED_INJECTION();
	ASSERT_OK(create(self->name, self->addr, self->len));
	EACH_ALLOCATION(mshare_unlink(self->name),
	({
		ASSERT_TRUE(name_exists(self->name));
		ASSERT_EQ(1, nr_mapped(self->addr, self->len));
	}),
	({
		ASSERT_FALSE(name_exists(self->name));
		ASSERT_EQ(0, nr_mapped(self->addr, self->len));
		ASSERT_OK(create(self->name, self->addr, self->len));
	}));
	EXPECT_LT(0, nr_failed);
}

TEST_F_TIMEOUT(failnth, detaching, LONG_TIMEOUT)
{
	NEED_INJECTION();
	ASSERT_OK(create(self->name, self->addr, self->len));
	ASSERT_OK(map_anon(self->p, page(), MAP_PRIVATE));
	ASSERT_EQ(0, try_write(self->p, 7));
	EACH_ALLOCATION(munmap(self->addr, self->len),
	({
		ASSERT_EQ(1, nr_mapped(self->addr, self->len));
		ASSERT_EQ(7, try_read(self->p));
	}),
	({
		ASSERT_EQ(0, nr_mapped(self->addr, self->len));
		ASSERT_EQ(FAULT(SIGSEGV, SEGV_MAPERR), try_read(self->p));
		ASSERT_OK(attach(self->name));
		ASSERT_EQ(7, try_read(self->p));
	}));
}

TEST_F_TIMEOUT(failnth, mapping_over_an_attachment, LONG_TIMEOUT)
{
	NEED_INJECTION();
	ASSERT_OK(create(self->name, self->addr, self->len));
	ASSERT_OK(map_anon(self->p, page(), MAP_PRIVATE));
	ASSERT_EQ(0, try_write(self->p, 7));
	EACH_ALLOCATION(mmap(self->addr, self->len, PROT_READ, MAP_PRIVATE |
			     MAP_ANONYMOUS | MAP_NORESERVE | MAP_FIXED, -1, 0),
	({
		/* As anywhere else: what stood there stands, or is gone whole. */
		if (nr_mapped(self->addr, self->len)) {
			ASSERT_EQ(7, try_read(self->p));
		} else {
			ASSERT_OK(attach(self->name));
			ASSERT_EQ(7, try_read(self->p));
		}
	}),
	({
		ASSERT_EQ(0, try_read(self->p));
		ASSERT_OK(munmap(self->addr, self->len));
		ASSERT_OK(attach(self->name));
		ASSERT_EQ(7, try_read(self->p));
	}));
}

TEST_F_TIMEOUT(failnth, forking, LONG_TIMEOUT)
{
	pid_t child = 0;

	NEED_INJECTION();
	ASSERT_OK(create(self->name, self->addr, self->len));
	ASSERT_OK(map_anon(self->p, 4 * page(), MAP_PRIVATE));
	ASSERT_EQ(0, try_write(self->p, 5));
	EACH_ALLOCATION(({
		child = fork();
		if (!child) {
			/* fail-nth is the parent's, and not inherited. */
			_exit(try_read(self->p) == 5 ? 0 : 1);
		}
		child;
	}),
	({
		ASSERT_EQ(5, try_read(self->p));
		ASSERT_EQ(1, nr_mapped(self->addr, self->len));
	}),
	({
		int status;

		ASSERT_EQ(child, waitpid(child, &status, 0));
		ASSERT_EQ(0, status);
	}));
	EXPECT_LT(0, nr_failed);
	/* No half-made child is left attached. */
	ASSERT_OK(munmap(self->addr, self->len));
	EXPECT_TRUE(WAIT_FOR(unlink_stale(self->name), 10));
}

FIXTURE(inside)
{
	const char *name, *why;
	void *addr, *p;
	size_t len;
	struct peer a;
	int fd, memfd;
};

FIXTURE_VARIANT(inside)
{
	int flags;
	bool file;
};

FIXTURE_VARIANT_ADD(inside, anon_private) {
	.flags = MAP_PRIVATE | MAP_ANONYMOUS };
FIXTURE_VARIANT_ADD(inside, anon_shared) {
	.flags = MAP_SHARED | MAP_ANONYMOUS };
FIXTURE_VARIANT_ADD(inside, memfd_shared) {
	.flags = MAP_SHARED, .file = true };
FIXTURE_VARIANT_ADD(inside, memfd_private) {
	.flags = MAP_PRIVATE, .file = true };

FIXTURE_SETUP(inside)
{
	self->name = new_name();
	self->addr = slot(0);
	self->len = granule();
	self->p = at(self->addr, GB);
	self->why = setup_injection();
	self->fd = open(FAIL_NTH, O_RDWR | O_CLOEXEC);
	self->memfd = -1;
	if (variant->file) {
		self->memfd = memfd_create("mshare", 0);
		ASSERT_OK(ftruncate(self->memfd, 64 * page()));
	}
	ASSERT_EQ(0, peer_start(&self->a));
	ASSERT_OK(create(self->name, self->addr, self->len));
	ASSERT_OK(peer_attach(&self->a, self->name));
}

FIXTURE_TEARDOWN(inside)
{
	if (self->fd >= 0)
		inject(self->fd, 0);
	peer_stop(&self->a);
	munmap(self->addr, self->len);
	remove_names();
}

TEST_F_TIMEOUT(inside, mapping, LONG_TIMEOUT)
{
	NEED_INJECTION();
	EACH_ALLOCATION(mmap(self->p, 4 * page(), RW, variant->flags | MAP_FIXED,
			     self->memfd, 0),
	({
		ASSERT_STREQ("....", page_states(self->p, 4));
		ASSERT_EQ(PAGE_HOLE, peer_state(&self->a, self->p));
	}),
	({
		ASSERT_STREQ("wwww", page_states(self->p, 4));
		ASSERT_EQ(PAGE_RW, peer_state(&self->a, self->p));
		ASSERT_OK(munmap(self->p, 4 * page()));
	}));
	EXPECT_LT(0, nr_failed);
	EXPECT_EQ(1, nr_mapped(self->addr, self->len));
}

/* In the middle, so that it takes a split. */
TEST_F_TIMEOUT(inside, unmapping, LONG_TIMEOUT)
{
	NEED_INJECTION();
	ASSERT_OK(mmap(self->p, 8 * page(), RW, variant->flags | MAP_FIXED,
		       self->memfd, 0));
	ASSERT_EQ(0, try_write(at(self->p, 3 * page()), 5));
	EACH_ALLOCATION(munmap(at(self->p, 3 * page()), 2 * page()),
	({
		ASSERT_EQ(5, peer_read(&self->a, at(self->p, 3 * page())));
		ASSERT_STREQ("wwwwwwww", page_states(self->p, 8));
	}),
	({
		ASSERT_STREQ("www..www", page_states(self->p, 8));
		ASSERT_EQ(PAGE_HOLE, peer_state(&self->a, at(self->p, 4 * page())));
		ASSERT_OK(mmap(self->p, 8 * page(), RW, variant->flags | MAP_FIXED,
			       self->memfd, 0));
		ASSERT_EQ(0, try_write(at(self->p, 3 * page()), 5));
	}));
}

TEST_F_TIMEOUT(inside, protecting, LONG_TIMEOUT)
{
	NEED_INJECTION();
	ASSERT_OK(mmap(self->p, 8 * page(), RW, variant->flags | MAP_FIXED,
		       self->memfd, 0));
	ASSERT_EQ(0, try_write(at(self->p, 3 * page()), 5));
	EACH_ALLOCATION(mprotect(at(self->p, 3 * page()), 2 * page(), PROT_READ),
	({
		ASSERT_STREQ("wwwwwwww", page_states(self->p, 8));
	}),
	({
		ASSERT_STREQ("wwwrrwww", page_states(self->p, 8));
		ASSERT_EQ(5, peer_read(&self->a, at(self->p, 3 * page())));
		/* Mapped anew, not merged again by another mprotect(). */
		ASSERT_OK(munmap(self->p, 8 * page()));
		ASSERT_OK(mmap(self->p, 8 * page(), RW, variant->flags | MAP_FIXED,
			       self->memfd, 0));
		ASSERT_EQ(0, try_write(at(self->p, 3 * page()), 5));
	}));
}

/* Mapped anew, so that a call has to split again. */
#define MAP_ANEW() do {							\
	ASSERT_OK(munmap(self->p, 8 * page()));				\
	ASSERT_OK(mmap(self->p, 8 * page(), RW, variant->flags | MAP_FIXED, \
		       self->memfd, 0));				\
	ASSERT_EQ(0, try_write(at(self->p, 3 * page()), 5));		\
} while (0)

TEST_F_TIMEOUT(inside, moving, LONG_TIMEOUT)
{
	void *q = at(self->p, GB);

	NEED_INJECTION();
	MAP_ANEW();
	EACH_ALLOCATION(mremap(at(self->p, 3 * page()), 2 * page(), 2 * page(),
			       MREMAP_MAYMOVE | MREMAP_FIXED, q),
	({
		ASSERT_EQ(5, peer_read(&self->a, at(self->p, 3 * page())));
		ASSERT_STREQ("wwwwwwww", page_states(self->p, 8));
		ASSERT_STREQ("..", page_states(q, 2));
	}),
	({
		/* If only unmapping failed then the old pages are mapped still. */
		ASSERT_EQ(5, peer_read(&self->a, q));
		ASSERT_STREQ("ww", page_states(q, 2));
		if (!_hit) {
			ASSERT_STREQ("www..www", page_states(self->p, 8));
		}
		ASSERT_OK(munmap(q, 2 * page()));
		MAP_ANEW();
	}));
	EXPECT_LT(0, nr_failed);
}

TEST_F_TIMEOUT(inside, growing_where_it_must_move, LONG_TIMEOUT)
{
	void *q = MAP_FAILED;

	NEED_INJECTION();
	ASSERT_OK(mmap(at(self->p, 8 * page()), page(), RW,
		       MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0));
	MAP_ANEW();
	EACH_ALLOCATION(q = mremap(self->p, 8 * page(), 9 * page(), MREMAP_MAYMOVE),
	({
		ASSERT_EQ(5, peer_read(&self->a, at(self->p, 3 * page())));
		ASSERT_STREQ("wwwwwwww", page_states(self->p, 8));
	}),
	({
		ASSERT_EQ(5, peer_read(&self->a, at(q, 3 * page())));
		ASSERT_OK(munmap(q, 9 * page()));
		MAP_ANEW();
	}));
	EXPECT_LT(0, nr_failed);
}

TEST_F_TIMEOUT(inside, advising, LONG_TIMEOUT)
{
	static const int advices[] = { MADV_RANDOM, MADV_MERGEABLE,
				       MADV_HUGEPAGE, MADV_DONTNEED };
	size_t i;

	NEED_INJECTION();
	for (i = 0; i < ARRAY_SIZE(advices); i++) {
		MAP_ANEW();
		if (madvise(self->p, page(), advices[i]))
			continue;
		MAP_ANEW();
		EACH_ALLOCATION(madvise(at(self->p, 4 * page()), 2 * page(),
					advices[i]),
		({
			ASSERT_EQ(5, peer_read(&self->a, at(self->p, 3 * page())));
		}),
		({
			ASSERT_EQ(5, peer_read(&self->a, at(self->p, 3 * page())));
			MAP_ANEW();
		}));
	}
}

/*
 * A fault whose allocation fails is tried again by the process, or ends in
 * SIGBUS where memory is said to be gone; it harms nothing else.
 */
TEST_F_TIMEOUT(inside, faulting, LONG_TIMEOUT)
{
	int nth, hits = 0;

	NEED_INJECTION();
	for (nth = 1; nth < MAX_NTH; nth++) {
		/* Alone in its tables, so that all levels are allocated. */
		void *q = at(self->p, nth * GB / 4);
		long r, w;
		bool hit;

		ASSERT_EQ(q, mmap(q, 2 * page(), RW, variant->flags | MAP_FIXED,
				  self->memfd, 0));
		if (variant->file) {
			ASSERT_OK(fallocate(self->memfd, FALLOC_FL_PUNCH_HOLE |
					    FALLOC_FL_KEEP_SIZE, 0, 64 * page()));
		}
		ASSERT_EQ(0, inject(self->fd, nth));
		w = try_write(q, 9);
		hit = injected(self->fd);
		ASSERT_TRUE(!w || (hit && fault_sig(w) == SIGBUS)) {
			TH_LOG("allocation %d: signal %d", nth, fault_sig(w));
		}
		hits += hit;
		ASSERT_EQ(0, try_write(q, 9));
		r = peer_read(&self->a, q);
		ASSERT_EQ(9, r);
		ASSERT_OK(munmap(q, 2 * page()));
		if (!hit)
			break;
	}
	TH_LOG("%d allocations failed", hits);
	EXPECT_GT(MAX_NTH, nth);
	EXPECT_LT(0, hits);
}

/* A system call's access to region memory: done, done in part, or EFAULT. */
TEST_F_TIMEOUT(inside, faulting_in_a_system_call, LONG_TIMEOUT)
{
	int nth, zero = open("/dev/zero", O_RDONLY);

	NEED_INJECTION();
	ASSERT_LE(0, zero);
	for (nth = 1; nth < MAX_NTH; nth++) {
		void *q = at(self->p, nth * GB / 4);
		long r;
		bool hit;

		ASSERT_EQ(q, mmap(q, 2 * page(), RW, variant->flags | MAP_FIXED,
				  self->memfd, 0));
		ASSERT_EQ(0, inject(self->fd, nth));
		r = read(zero, q, 2 * page());
		hit = injected(self->fd);
		ASSERT_TRUE(r == (long)(2 * page()) ||
			    (hit && (r >= 0 || errno == EFAULT || errno == ENOMEM))) {
			TH_LOG("allocation %d: %ld", nth, r);
		}
		ASSERT_EQ((long)(2 * page()), read(zero, q, 2 * page()));
		ASSERT_EQ(0, peer_read(&self->a, q));
		ASSERT_OK(munmap(q, 2 * page()));
		if (!hit)
			break;
	}
	EXPECT_GT(MAX_NTH, nth);
	close(zero);
}

MSHARE_TEST_MAIN
