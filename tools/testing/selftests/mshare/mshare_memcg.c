// SPDX-License-Identifier: GPL-2.0
/*
 * Who pays: a region's memory and page tables belong to the group that its
 * creator was in, whoever uses it, and as long as it lives.
 */
#include "mshare_env.h"

#define RW	(PROT_READ | PROT_WRITE)

FIXTURE(cg)
{
	const char *name;
	void *addr;
	size_t len;
	char ga[64], gb[64];
	struct peer a, b;	/* the creator in ga, a consumer in gb */
	struct zram zram;
	struct setting thp, lru;
	bool have;
};

FIXTURE_VARIANT(cg)
{
	int sharing;
};

FIXTURE_VARIANT_ADD(cg, anon_private) { .sharing = MAP_PRIVATE };
FIXTURE_VARIANT_ADD(cg, anon_shared) { .sharing = MAP_SHARED };

static size_t pages(size_t n)
{
	return n * page();
}

FIXTURE_SETUP(cg)
{
	self->name = new_name();
	self->addr = slot(0);
	self->len = granule();
	self->zram.id = -1;
	self->have = cg_memory();
	if (!self->have)
		return;
	/* Amounts below are counted in small pages. */
	setting_set(&self->thp, THP_ENABLED, "never");
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

FIXTURE_TEARDOWN(cg)
{
	peer_stop(&self->a);
	peer_stop(&self->b);
	remove_names();
	if (self->have) {
		setting_restore(&self->thp);
		setting_restore(&self->lru);
		cg_remove(self->ga);
		cg_remove(self->gb);
		zram_end(&self->zram);
	}
}

#define NEED_MEMCG() do {						\
	if (!self->have)						\
		SKIP(return, "no cgroup v2 memory controller");		\
} while (0)

#define NEED_SWAP() do {						\
	const char *_why = zram_swapon(&self->zram, 256 * MB);		\
									\
	if (_why)							\
		SKIP(return, "%s", _why);				\
} while (0)

/* Maps and writes a range; returns how many pages it got until a signal. */
static long do_fill(const struct request *rq)
{
	void *p = (void *)rq->a[0];
	size_t len = rq->a[1], step = rq->a[3], i;
	long n = 0;

	if (map_anon(p, len, rq->a[2]) == MAP_FAILED)
		return -1;
	for (i = 0; i < len; i += step, n++)
		if (try_write(at(p, i), 1 + n % 250))
			return n;
	return n;
}

/* Writes on where a range is mapped already. */
static long do_fill_mapped(const struct request *rq)
{
	size_t len = rq->a[1], i;
	long n = 0;

	for (i = 0; i < len; i += page(), n++) {
		long r = try_write((void *)(rq->a[0] + i), 1 + n % 250);

		if (r)
			return r;
	}
	return n;
}

static long do_wrong(const struct request *rq)
{
	size_t len = rq->a[1], i;
	long n = 0, bad = 0;

	for (i = 0; i < len; i += page(), n++)
		if (try_read((void *)(rq->a[0] + i)) != 1 + n % 250)
			bad++;
	return bad;
}

TEST_F_TIMEOUT(cg, memory_is_charged_to_the_creators_group, SHORT_TIMEOUT)
{
	long before_a, before_b;

	NEED_MEMCG();
	before_a = cg_long(self->ga, "memory.current");
	before_b = cg_long(self->gb, "memory.current");
	ASSERT_EQ((long)(16 * MB / page()),
		  PEER(&self->b, do_fill, NULL, L(self->addr), 16 * MB,
		       variant->sharing, page()));
	/* Batches of charges are held back: a margin of 2 MB. */
	EXPECT_LT(before_a + 14 * (long)MB, cg_long(self->ga, "memory.current"));
	EXPECT_GT(before_b + 4 * (long)MB, cg_long(self->gb, "memory.current"));
	/* Given back to the same group. */
	ASSERT_OK(peer_munmap(&self->b, self->addr, 16 * MB));
	EXPECT_TRUE(WAIT_FOR(cg_long(self->ga, "memory.current") <
			     before_a + 4 * (long)MB, 20));
}

TEST_F_TIMEOUT(cg, page_tables_are_charged_to_the_creators_group, SHORT_TIMEOUT)
{
	const long n = 1024;		/* 4 MB of PTE pages */
	long before_a, before_b, got_a, got_b;

	NEED_MEMCG();
	before_a = cg_stat(self->ga, "pagetables");
	before_b = cg_stat(self->gb, "pagetables");
	ASSERT_EQ(n, PEER(&self->b, do_fill, NULL, L(self->addr), n * 2 * MB,
			  variant->sharing | MAP_NORESERVE, 2 * MB));
	/* memory.stat is flushed every two seconds. */
	(void)WAIT_FOR(cg_stat(self->ga, "pagetables") > before_a + 3 * (long)MB, 8);
	got_a = cg_stat(self->ga, "pagetables") - before_a;
	got_b = cg_stat(self->gb, "pagetables") - before_b;
	TH_LOG("page tables: creator's group %ld kB, consumer's %ld kB",
	       got_a / 1024, got_b / 1024);
	EXPECT_LT(3 * (long)MB, got_a);
	EXPECT_GT((long)MB, got_b);
}

/* Within a bound of time: the point is that it ends. */
TEST_F_TIMEOUT(cg, a_full_group_without_processes_gives_sigbus, SHORT_TIMEOUT)
{
	long n, r;

	NEED_MEMCG();
	ASSERT_OK(cg_write(self->ga, "memory.max", "16M"));
	cg_write(self->ga, "memory.swap.max", "0");
	peer_stop(&self->a);		/* nobody is left to kill in there */
	n = PEER(&self->b, do_fill, NULL, L(self->addr), 64 * MB, variant->sharing,
		 page());
	EXPECT_LT((long)(8 * MB / page()), n);
	EXPECT_GT((long)(17 * MB / page()), n);
	r = PEER(&self->b, do_fill_mapped, NULL, L(self->addr), 64 * MB);
	EXPECT_EQ(SIGBUS, fault_sig(r));
	EXPECT_GE(17 * (long)MB, cg_long(self->ga, "memory.current"));
	EXPECT_EQ(0, PEER(&self->b, do_wrong, NULL, L(self->addr), pages(n)));
	/* The consumer lives, and goes on when there is room again. */
	ASSERT_OK(cg_write(self->ga, "memory.max", "max"));
	EXPECT_EQ((long)(64 * MB / page()),
		  PEER(&self->b, do_fill_mapped, NULL, L(self->addr), 64 * MB));
}

static long do_give_back(const struct request *rq)
{
	return madvise((void *)rq->a[0], rq->a[1],
		       rq->a[2] == MAP_SHARED ? MADV_REMOVE : MADV_DONTNEED);
}

static long do_write_one(const struct request *rq)
{
	return try_write((void *)rq->a[0], 1);
}

/*
 * Nor does it go on for ever where a fault needs two pages, the file's and its
 * copy, and there is room for one: that is there again when it has failed.
 */
TEST_F_TIMEOUT(cg, room_for_half_of_what_a_fault_needs, SHORT_TIMEOUT)
{
	const size_t len = 2 * MB;
	char *file = at(self->addr, 512 * MB);
	char *buf = calloc(1, len), path[128];
	const char *why = disk_make();
	long n, i, r;
	int fd;

	NEED_MEMCG();
	if (why)
		SKIP(return, "%s", why);
	snprintf(path, sizeof(path), "%s/half-%d", disk_mnt, getpid());
	fd = open(path, O_RDWR | O_CREAT | O_EXCL, 0600);
	ASSERT_LE(0, fd);
	ASSERT_EQ((long)len, (long)write(fd, buf, len));
	free(buf);
	ASSERT_OK(fsync(fd));
	ASSERT_OK(cg_write(self->ga, "memory.max", "16M"));
	cg_write(self->ga, "memory.swap.max", "0");
	ASSERT_OK(attach(self->name));
	ASSERT_EQ(file, mmap(file, len, RW, MAP_PRIVATE | MAP_FIXED, fd, 0));
	ASSERT_OK(munmap(self->addr, self->len));
	peer_stop(&self->a);
	n = PEER(&self->b, do_fill, NULL, L(self->addr), 64 * MB, variant->sharing,
		 page());
	EXPECT_LT((long)(8 * MB / page()), n);
	/* With some pages' room, of which charges are taken in batches. */
	for (i = 0; i < 4; i++) {
		ASSERT_OK(PEER(&self->b, do_give_back, NULL, L(at(self->addr, pages(i))),
			       page(), variant->sharing));
		posix_fadvise(fd, 0, 0, POSIX_FADV_DONTNEED);
		for (n = 0, r = 0; !r && n < (long)(len / page()); n++)
			r = PEER(&self->b, do_write_one, NULL, L(file + n * page()));
		EXPECT_EQ(SIGBUS, fault_sig(r));
	}
	unlink(path);
	close(fd);
}

/* System calls on such memory fail; they do not hang either. */
static long do_read_into(const struct request *rq)
{
	int fd = open("/dev/zero", O_RDONLY);
	long r = read(fd, (void *)rq->a[0], rq->a[1]);
	int err = errno;

	close(fd);
	errno = err;
	return r;
}

TEST_F_TIMEOUT(cg, a_full_group_gives_efault_in_system_calls, SHORT_TIMEOUT)
{
	long n;

	NEED_MEMCG();
	ASSERT_OK(cg_write(self->ga, "memory.max", "8M"));
	cg_write(self->ga, "memory.swap.max", "0");
	peer_stop(&self->a);
	ASSERT_EQ(self->addr, peer_mmap(&self->b, self->addr, 32 * MB, RW,
					variant->sharing | MAP_ANONYMOUS | MAP_FIXED,
					-1, 0));
	n = PEER(&self->b, do_read_into, NULL, L(self->addr), 32 * MB);
	EXPECT_GT((long)(9 * MB), n);
	EXPECT_ERR(EFAULT, PEER(&self->b, do_read_into, NULL,
				L(at(self->addr, 16 * MB)), MB));
}

/* Processes in the group may be killed for it; the consumer is not. */
TEST_F_TIMEOUT(cg, a_full_group_never_kills_a_consumer_elsewhere, SHORT_TIMEOUT)
{
	long n;

	NEED_MEMCG();
	ASSERT_OK(cg_write(self->ga, "memory.max", "16M"));
	cg_write(self->ga, "memory.swap.max", "0");
	n = PEER(&self->b, do_fill, NULL, L(self->addr), 64 * MB, variant->sharing,
		 page());
	EXPECT_LT((long)(4 * MB / page()), n);
	EXPECT_GT((long)(17 * MB / page()), n);
	EXPECT_GE(17 * (long)MB, cg_long(self->ga, "memory.current"));
	EXPECT_EQ(0, PEER(&self->b, do_wrong, NULL, L(self->addr), pages(n)));
}

/* The consumer's own limit has no say about the region. */
TEST_F_TIMEOUT(cg, the_consumers_limit_does_not_hold_the_region, SHORT_TIMEOUT)
{
	NEED_MEMCG();
	ASSERT_OK(cg_write(self->gb, "memory.max", "8M"));
	cg_write(self->gb, "memory.swap.max", "0");
	EXPECT_EQ((long)(32 * MB / page()),
		  PEER(&self->b, do_fill, NULL, L(self->addr), 32 * MB,
		       variant->sharing, page()));
	EXPECT_EQ(0, PEER(&self->b, do_wrong, NULL, L(self->addr), 32 * MB));
}

/* The oom killer in the consumer's group takes nothing of the region. */
static long do_eat(const struct request *rq)
{
	char *p = mmap(NULL, rq->a[0], RW, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	long i;

	for (i = 0; i < rq->a[0]; i += 4096)
		p[i] = 1;
	return 0;
}

TEST_F_TIMEOUT(cg, an_oom_kill_frees_nothing_of_the_region, SHORT_TIMEOUT)
{
	NEED_MEMCG();
	ASSERT_OK(cg_write(self->gb, "memory.max", "16M"));
	cg_write(self->gb, "memory.swap.max", "0");
	ASSERT_EQ((long)(8 * MB / page()),
		  PEER(&self->b, do_fill, NULL, L(self->addr), 8 * MB,
		       variant->sharing, page()));
	EXPECT_ERR(ESRCH, PEER(&self->b, do_eat, NULL, 64 * MB));
	/* Time for the reaper. */
	usleep(300000);
	EXPECT_EQ(0, PEER(&self->a, do_wrong, NULL, L(self->addr), 8 * MB));
	peer_stop(&self->b);
	EXPECT_EQ(0, PEER(&self->a, do_wrong, NULL, L(self->addr), 8 * MB));
}

TEST_F_TIMEOUT(cg, a_region_goes_on_when_its_group_is_removed, SHORT_TIMEOUT)
{
	NEED_MEMCG();
	ASSERT_EQ((long)(4 * MB / page()),
		  PEER(&self->b, do_fill, NULL, L(self->addr), 4 * MB,
		       variant->sharing, page()));
	peer_stop(&self->a);
	ASSERT_TRUE(cg_remove(self->ga)) {
		TH_LOG("%s", strerror(errno));
	}
	EXPECT_EQ(0, PEER(&self->b, do_wrong, NULL, L(self->addr), 4 * MB));
	EXPECT_EQ((long)(4 * MB / page()),
		  PEER(&self->b, do_fill, NULL, L(at(self->addr, GB)), 4 * MB,
		       variant->sharing, page()));
	EXPECT_EQ(0, PEER(&self->b, do_wrong, NULL, L(at(self->addr, GB)), 4 * MB));
	EXPECT_GT(6 * (long)MB, cg_long(self->gb, "memory.current"));
	EXPECT_OK(peer_unlink(&self->b, self->name));
	EXPECT_FALSE(name_exists(self->name));
}

/* The limit of a parent holds for the region of a group that is gone. */
TEST_F_TIMEOUT(cg, a_removed_group_stands_for_its_parent, SHORT_TIMEOUT)
{
	char parent[64], child[96];
	const char *name = new_name();
	struct peer c;
	long n;

	NEED_MEMCG();
	snprintf(parent, sizeof(parent), "mshare-%d-p", getpid());
	snprintf(child, sizeof(child), "%s/c", parent);
	ASSERT_OK(cg_make(parent));
	ASSERT_OK(cg_write(parent, "cgroup.subtree_control", "+memory"));
	ASSERT_OK(cg_make(child));
	ASSERT_EQ(0, peer_start(&c));
	ASSERT_OK(PEER(&c, do_cg_enter, child, 0));
	ASSERT_OK(peer_create(&c, name, slot(4), self->len));
	peer_stop(&c);
	ASSERT_TRUE(cg_remove(child));
	ASSERT_OK(cg_write(parent, "memory.max", "16M"));
	cg_write(parent, "memory.swap.max", "0");
	ASSERT_OK(peer_attach(&self->b, name));
	n = PEER(&self->b, do_fill, NULL, L(slot(4)), 64 * MB, variant->sharing,
		 page());
	EXPECT_LT((long)(8 * MB / page()), n);
	EXPECT_GT((long)(17 * MB / page()), n);
	EXPECT_LT(8 * (long)MB, cg_long(parent, "memory.current"));
	EXPECT_OK(peer_unlink(&self->b, name));
	EXPECT_TRUE(cg_remove(parent));
}

/* The creator's group at creation counts, not where the creator goes. */
TEST_F_TIMEOUT(cg, the_group_stays_when_the_creator_moves, SHORT_TIMEOUT)
{
	long before;

	NEED_MEMCG();
	before = cg_long(self->ga, "memory.current");
	ASSERT_OK(PEER(&self->a, do_cg_enter, self->gb, 0));
	ASSERT_EQ((long)(16 * MB / page()),
		  PEER(&self->a, do_fill, NULL, L(self->addr), 16 * MB,
		       variant->sharing, page()));
	EXPECT_LT(before + 14 * (long)MB, cg_long(self->ga, "memory.current"));
	EXPECT_GT(6 * (long)MB, cg_long(self->gb, "memory.current"));
}

TEST_F_TIMEOUT(cg, a_limit_makes_the_region_swap, LONG_TIMEOUT)
{
	const long max = debug_kernel() ? 8 * MB : 16 * MB;
	const long size = debug_kernel() ? 14 * MB : 48 * MB;

	IN_ONE_WAY(variant->sharing == MAP_PRIVATE);
	NEED_MEMCG();
	NEED_SWAP();
	ASSERT_OK(cg_write(self->ga, "memory.max", debug_kernel() ? "8M" : "16M"));
	peer_stop(&self->a);
	ASSERT_EQ(size / (long)page(),
		  PEER(&self->b, do_fill, NULL, L(self->addr), size,
		       variant->sharing, page()));
	EXPECT_GE(max + (long)MB, cg_long(self->ga, "memory.current"));
	EXPECT_LT((size - max) * 3 / 4, cg_long(self->ga, "memory.swap.current"));
	EXPECT_EQ(0, PEER(&self->b, do_wrong, NULL, L(self->addr), size));
	EXPECT_GE(max + (long)MB, cg_long(self->ga, "memory.current"));
	EXPECT_EQ(0, cg_long(self->gb, "memory.swap.current"));
	ASSERT_OK(peer_unlink(&self->b, self->name));
	EXPECT_TRUE(WAIT_FOR(cg_long(self->ga, "memory.swap.current") < (long)MB, 20));
}

TEST_F_TIMEOUT(cg, reclaiming_the_group_swaps_the_region, LONG_TIMEOUT)
{
	const long size = debug_kernel() ? 8 * MB : 16 * MB;
	const char *most = debug_kernel() ? "6M" : "12M";
	int i;

	IN_ONE_WAY(variant->sharing == MAP_PRIVATE);
	NEED_MEMCG();
	NEED_SWAP();
	ASSERT_EQ(size / (long)page(),
		  PEER(&self->b, do_fill, NULL, L(self->addr), size,
		       variant->sharing, page()));
	for (i = 0; i < (debug_kernel() ? 1 : 3); i++) {
		/* EAGAIN: less than was asked for. */
		cg_write(self->ga, "memory.reclaim", most);
		EXPECT_LT(size * 3 / 8, cg_long(self->ga, "memory.swap.current"));
		EXPECT_EQ(0, PEER(&self->b, do_wrong, NULL, L(self->addr), size));
		EXPECT_EQ(0, PEER(&self->a, do_wrong, NULL, L(self->addr), size));
	}
	/* The consumer's group has nothing of it to reclaim. */
	cg_write(self->gb, "memory.reclaim", most);
	EXPECT_GT((long)MB, cg_long(self->gb, "memory.swap.current"));
}

/* To exceed memory.high is slow, and that is all. */
TEST_F_TIMEOUT(cg, memory_high_throttles_and_ends, LONG_TIMEOUT)
{
	const long high = debug_kernel() ? 8 * MB : 16 * MB;
	const long size = debug_kernel() ? 12 * MB : 32 * MB;

	IN_ONE_WAY(variant->sharing == MAP_PRIVATE);
	NEED_MEMCG();
	NEED_SWAP();
	ASSERT_OK(cg_write(self->ga, "memory.high", debug_kernel() ? "8M" : "16M"));
	EXPECT_EQ(size / (long)page(),
		  PEER(&self->b, do_fill, NULL, L(self->addr), size,
		       variant->sharing, page()));
	EXPECT_EQ(0, PEER(&self->b, do_wrong, NULL, L(self->addr), size));
	/* Held, give or take what is under way. */
	EXPECT_TRUE(WAIT_FOR(cg_long(self->ga, "memory.current") < high * 5 / 4, 20)) {
		TH_LOG("%ld", cg_long(self->ga, "memory.current"));
	}
}

/* Faults of the kernel, many between two returns to the process. */
static long do_read_zeroes(const struct request *rq)
{
	int fd = open("/dev/zero", O_RDONLY | O_CLOEXEC);
	long n;

	if (map_anon((void *)rq->a[0], rq->a[1], rq->a[2]) == MAP_FAILED)
		return -1;
	n = read(fd, (void *)rq->a[0], rq->a[1]);
	close(fd);
	return n;
}

TEST_F_TIMEOUT(cg, memory_high_holds_system_calls, LONG_TIMEOUT)
{
	const long high = debug_kernel() ? 8 * MB : 16 * MB;
	const long size = debug_kernel() ? 12 * MB : 32 * MB;

	NEED_MEMCG();
	NEED_SWAP();
	ASSERT_OK(cg_write(self->ga, "memory.high", debug_kernel() ? "8M" : "16M"));
	EXPECT_EQ(size, PEER(&self->b, do_read_zeroes, NULL, L(self->addr),
				   size, variant->sharing));
	TH_LOG("%ld at most", cg_long(self->ga, "memory.peak"));
	EXPECT_GT(high * 5 / 4, cg_long(self->ga, "memory.peak"));
}

TEST_F_TIMEOUT(cg, faults_are_counted_where_the_memory_is, SHORT_TIMEOUT)
{
	const long n = 1024;
	long before_a, before_b, got_a, got_b;

	NEED_MEMCG();
	before_a = cg_stat(self->ga, "pgfault");
	before_b = cg_stat(self->gb, "pgfault");
	ASSERT_EQ(n, PEER(&self->b, do_fill, NULL, L(self->addr), n * page(),
			  variant->sharing, page()));
	(void)WAIT_FOR(cg_stat(self->ga, "pgfault") > before_a + n * 3 / 4, 8);
	got_a = cg_stat(self->ga, "pgfault") - before_a;
	got_b = cg_stat(self->gb, "pgfault") - before_b;
	TH_LOG("%ld faults: creator's group %ld, consumer's %ld", n, got_a, got_b);
	EXPECT_LT(n * 3 / 4, got_a);
	EXPECT_GT(n / 2, got_b);
}

static long do_touch(const struct request *rq)
{
	long before = majflt(), rounds = rq->a[2], i, r;

	for (r = 0; r < rounds; r++)
		for (i = 0; i < rq->a[1]; i += page())
			try_read((void *)(rq->a[0] + i));
	return majflt() - before;
}

struct hotness {
	long hot, cold;		/* major faults when touched again */
};

/* Half of 16 MB is used, then half is reclaimed. */
static struct hotness reclaim_half(struct peer *p, const char *cg, void *addr,
				   int sharing)
{
	struct hotness h;
	int i;

	PEER(p, do_fill, NULL, L(addr), 16 * MB, sharing, page());
	for (i = 0; i < 4; i++) {
		PEER(p, do_touch, NULL, L(addr), 4 * MB, 4);
		cg_write(cg, "memory.reclaim", "2M");
	}
	h.hot = PEER(p, do_touch, NULL, L(addr), 4 * MB, 1);
	h.cold = PEER(p, do_touch, NULL, L(at(addr, 4 * MB)), 12 * MB, 1);
	return h;
}

/* With pages in generations, or in lists of active and inactive ones. */
static void compare_hotness(struct __test_metadata *_metadata,
			    FIXTURE_DATA(cg) *self, int sharing,
			    const char *lru_gen)
{
	struct hotness own, region;

	IN_ONE_WAY(sharing == MAP_PRIVATE);
	if (setting_set(&self->lru, "/sys/kernel/mm/lru_gen/enabled", lru_gen))
		SKIP(return, "no multi-generational LRU");
	own = reclaim_half(&self->a, self->ga, slot(8), sharing);
	ASSERT_OK(peer_munmap(&self->a, slot(8), 16 * MB));
	region = reclaim_half(&self->b, self->ga, self->addr, sharing);
	TH_LOG("major faults, hot and cold: %ld and %ld outside, %ld and %ld in a region",
	       own.hot, own.cold, region.hot, region.cold);
	/* A quarter of the pages are hot: a third as many would be blind luck. */
	if (own.hot * 6 > own.cold)
		SKIP(return, "reclaim does not tell hot from cold here");
	EXPECT_LE(region.hot * 6, region.cold);
	EXPECT_LT(0, region.cold);
}

/*
 * The generations of a group, of all nodes: "memcg ID PATH", then for each node
 * " node N" and " SEQ AGE ANON FILE" for each generation.
 */
#define LRU_GEN		"/sys/kernel/debug/lru_gen"
#define MAX_NODES	8

struct gens {
	int id, nr_nodes;
	unsigned long max[MAX_NODES];
	long young[MAX_NODES];	/* anonymous pages in the youngest two */
};

static bool gens_read(struct gens *g, const char *cg)
{
	char line[256], path[128];
	unsigned long seq;
	long anon, last = 0;
	int n;
	FILE *f;

	memset(g, 0, sizeof(*g));
	g->id = -1;
	f = fopen(LRU_GEN, "re");
	while (f && fgets(line, sizeof(line), f)) {
		path[0] = 0;
		if (sscanf(line, "memcg %d %127s", &n, path) >= 1) {
			if (g->id >= 0)
				break;
			if (path[0] && !strcmp(path + 1, cg))
				g->id = n;
		} else if (g->id < 0) {
			continue;
		} else if (sscanf(line, " node %d", &n) == 1) {
			if (g->nr_nodes == MAX_NODES)
				break;
			g->young[g->nr_nodes++] = last = 0;
		} else if (sscanf(line, " %lu %*u %ld", &seq, &anon) == 2) {
			g->max[g->nr_nodes - 1] = seq;
			g->young[g->nr_nodes - 1] = last + anon;
			last = anon;
		}
	}
	if (f)
		fclose(f);
	return g->id >= 0;
}

/*
 * A new generation; in the one before it is what has been used. With @all it is
 * looked for in all mms, else in those that have been on a processor since the
 * last time. The latter takes room for one more generation: the oldest has to
 * be let go of, if there is nothing in it.
 */
static int gens_age(const char *cg, bool all)
{
	char cmd[64];
	struct gens g;
	int i;

	if (!gens_read(&g, cg))
		return -1;
	for (i = 0; i < g.nr_nodes; i++) {
		if (!all) {
			snprintf(cmd, sizeof(cmd), "- %d %d %lu 200 1", g.id, i,
				 g.max[i] - 3);
			write_file(LRU_GEN, cmd);
		}
		snprintf(cmd, sizeof(cmd), "+ %d %d %lu 1 %d", g.id, i, g.max[i], all);
		if (write_file(LRU_GEN, cmd))
			return -1;
	}
	return 0;
}

/* What is in the TLB is not seen to be used. */
static long do_forget_and_touch(const struct request *rq)
{
	size_t len = 64 * page();
	void *p = mmap(NULL, len, RW, MAP_PRIVATE | MAP_ANONYMOUS | MAP_POPULATE, -1, 0);

	if (p == MAP_FAILED || mprotect(p, len, PROT_READ) || munmap(p, len))
		return -1;
	return do_touch(rq);
}

/* Aging looks at who used what by walking page tables, the region's among them. */
TEST_F_TIMEOUT(cg, aging_walks_the_tables_of_the_region, LONG_TIMEOUT)
{
	const long n = 8 * MB / page();
	long young[2] = { 0 };
	struct gens g;
	int i, k;

	NEED_MEMCG();
	if (setting_set(&self->lru, "/sys/kernel/mm/lru_gen/enabled", "7"))
		SKIP(return, "no multi-generational LRU");
	mount("none", "/sys/kernel/debug", "debugfs", 0, NULL);
	ASSERT_EQ(n, PEER(&self->b, do_fill, NULL, L(self->addr), n * page(),
			  variant->sharing, page()));
	/* Those tables are looked at in which there was something used before. */
	if (gens_age(self->ga, true))
		SKIP(return, "cannot make a new generation: %s", strerror(errno));
	PEER(&self->b, do_forget_and_touch, NULL, L(self->addr), n * page(), 1);
	for (i = 0; i < 2; i++) {
		ASSERT_EQ(0, gens_age(self->ga, i > 0));
		if (i)
			ASSERT_EQ(0, gens_age(self->ga, true));
		ASSERT_TRUE(gens_read(&g, self->ga));
		for (k = 0; k < g.nr_nodes; k++)
			young[i] += g.young[k];
	}
	TH_LOG("of %ld pages in the youngest two generations: used %ld, not used %ld",
	       n, young[0], young[1]);
	EXPECT_LT(n * 3 / 4, young[0]);
	EXPECT_GT(n / 4, young[1]);
}

TEST_F_TIMEOUT(cg, reclaim_spares_what_is_used_through_the_region, LONG_TIMEOUT)
{
	NEED_MEMCG();
	NEED_SWAP();
	compare_hotness(_metadata, self, variant->sharing, "7");
}

TEST_F_TIMEOUT(cg, reclaim_without_generations_spares_it_too, LONG_TIMEOUT)
{
	NEED_MEMCG();
	NEED_SWAP();
	compare_hotness(_metadata, self, variant->sharing, "0");
}

MSHARE_TEST_MAIN
