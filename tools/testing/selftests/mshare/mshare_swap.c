// SPDX-License-Identifier: GPL-2.0
/*
 * Region memory in swap: it goes out and comes back whole, whoever touches it,
 * also when the swap device is taken away, and its slots go with the region.
 */
#include "mshare_env.h"

#define RW	(PROT_READ | PROT_WRITE)
#define SIZE	(debug_kernel() ? 2 * MB : 8 * MB)

FIXTURE(swap)
{
	const char *name, *why;
	void *addr;
	size_t len;
	char cg[64];
	struct peer a, b;
	struct zram zram;
	struct setting thp;
	int fd;
};

FIXTURE_VARIANT(swap)
{
	enum kind kind;
};

FIXTURE_VARIANT_ADD(swap, anon_private) { .kind = ANON_PRIVATE };
FIXTURE_VARIANT_ADD(swap, anon_shared) { .kind = ANON_SHARED };
FIXTURE_VARIANT_ADD(swap, memfd) { .kind = MEMFD };
FIXTURE_VARIANT_ADD(swap, memfd_private) { .kind = TMPFS_PRIVATE };

FIXTURE_SETUP(swap)
{
	NOT_ON_DEBUG(variant->kind == ANON_SHARED);
	self->name = new_name();
	self->addr = slot(0);
	self->len = granule();
	self->zram.id = -1;
	self->fd = -1;
	if (!cg_memory()) {
		self->why = "no cgroup v2 memory controller";
		return;
	}
	self->why = zram_swapon(&self->zram, 256 * MB);
	if (self->why)
		return;
	setting_set(&self->thp, THP_ENABLED, "never");
	snprintf(self->cg, sizeof(self->cg), "mshare-%d", getpid());
	ASSERT_OK(cg_make(self->cg));
	/* The region belongs to the group; its users are outside. */
	ASSERT_EQ(0, peer_start(&self->a));
	ASSERT_EQ(0, peer_start(&self->b));
	ASSERT_OK(PEER(&self->a, do_cg_enter, self->cg, 0));
	ASSERT_OK(peer_create(&self->a, self->name, self->addr, self->len));
	ASSERT_OK(attach(self->name));
	ASSERT_OK(peer_attach(&self->b, self->name));
	if (variant->kind == MEMFD || variant->kind == TMPFS_PRIVATE) {
		self->fd = memfd_create("mshare", 0);
		ASSERT_LE(0, self->fd);
		ASSERT_OK(ftruncate(self->fd, SIZE));
		ASSERT_EQ(self->addr, mmap(self->addr, SIZE, RW, MAP_FIXED |
					   (variant->kind == MEMFD ? MAP_SHARED :
					    MAP_PRIVATE), self->fd, 0));
	} else {
		ASSERT_EQ(self->addr, map_anon(self->addr, SIZE,
					       variant->kind == ANON_PRIVATE ?
					       MAP_PRIVATE : MAP_SHARED));
	}
}

FIXTURE_TEARDOWN(swap)
{
	peer_stop(&self->a);
	peer_stop(&self->b);
	munmap(self->addr, self->len);
	remove_names();
	if (self->fd >= 0)
		close(self->fd);
	setting_restore(&self->thp);
	if (self->cg[0])
		cg_remove(self->cg);
	zram_end(&self->zram);
}

#define NEED_SWAP() do {						\
	if (self->why)							\
		SKIP(return, "%s", self->why);				\
} while (0)

static size_t nr_pages(void)
{
	return SIZE / page();
}

static unsigned long *word(void *addr, size_t i)
{
	return at(addr, i * page() + (i % 64) * sizeof(long));
}

static void fill(void *addr, unsigned long seed)
{
	size_t i;

	for (i = 0; i < nr_pages(); i++)
		*word(addr, i) = seed * 1000003 + i;
}

static long nr_wrong(void *addr, unsigned long seed)
{
	long bad = 0;
	size_t i;

	for (i = 0; i < nr_pages(); i++)
		if (*word(addr, i) != seed * 1000003 + i)
			bad++;
	return bad;
}

static long do_wrong(const struct request *rq)
{
	return nr_wrong((void *)rq->a[0], rq->a[1]);
}

/* Has the region's group give up memory; kB that are in swap after that. */
static long swap_out(const char *cg)
{
	char most[32];
	int i;

	snprintf(most, sizeof(most), "%lu", SIZE);
	for (i = 0; i < 4 && cg_long(cg, "memory.swap.current") < (long)SIZE / 2; i++)
		cg_write(cg, "memory.reclaim", most);
	return cg_long(cg, "memory.swap.current") / 1024;
}

TEST_F_TIMEOUT(swap, contents_survive, SHORT_TIMEOUT)
{
	unsigned long seed;

	IN_ONE_WAY(variant->kind == ANON_PRIVATE || variant->kind == MEMFD);
	NEED_SWAP();
	for (seed = 1; seed <= 3; seed++) {
		fill(self->addr, seed);
		EXPECT_LE((long)SIZE / 2 / 1024, swap_out(self->cg));
		/* A different process first each time. */
		switch (seed) {
		case 1:
			EXPECT_EQ(0, PEER(&self->b, do_wrong, NULL, L(self->addr), seed));
			EXPECT_EQ(0, nr_wrong(self->addr, seed));
			break;
		case 2:
			EXPECT_EQ(0, nr_wrong(self->addr, seed));
			EXPECT_EQ(0, PEER(&self->a, do_wrong, NULL, L(self->addr), seed));
			break;
		case 3:
			PEER_SEND(&self->a, do_wrong, NULL, L(self->addr), seed);
			PEER_SEND(&self->b, do_wrong, NULL, L(self->addr), seed);
			EXPECT_EQ(0, nr_wrong(self->addr, seed));
			EXPECT_EQ(0, peer_wait(&self->a));
			EXPECT_EQ(0, peer_wait(&self->b));
			break;
		}
	}
}

TEST_F_TIMEOUT(swap, who_attaches_later_finds_what_is_swapped, SHORT_TIMEOUT)
{
	struct peer child;

	NEED_SWAP();
	fill(self->addr, 4);
	EXPECT_LE((long)SIZE / 2 / 1024, swap_out(self->cg));
	ASSERT_OK(peer_munmap(&self->b, self->addr, self->len));
	ASSERT_OK(peer_attach(&self->b, self->name));
	ASSERT_EQ(0, peer_start(&child));
	EXPECT_EQ(0, PEER(&child, do_wrong, NULL, L(self->addr), 4));
	EXPECT_EQ(0, PEER(&self->b, do_wrong, NULL, L(self->addr), 4));
	peer_stop(&child);
}

TEST_F_TIMEOUT(swap, swapoff_brings_everything_back, SHORT_TIMEOUT)
{
	NEED_SWAP();
	fill(self->addr, 5);
	EXPECT_LE((long)SIZE / 2 / 1024, swap_out(self->cg));
	ASSERT_OK(swapoff(self->zram.dev));
	self->zram.swap = false;
	EXPECT_EQ(0, nr_wrong(self->addr, 5));
	EXPECT_EQ(0, PEER(&self->b, do_wrong, NULL, L(self->addr), 5));
	EXPECT_EQ(0, cg_long(self->cg, "memory.swap.current"));
}

/* Nobody is attached; the host alone knows of the entries. */
TEST_F_TIMEOUT(swap, swapoff_finds_a_region_without_users, SHORT_TIMEOUT)
{
	NEED_SWAP();
	fill(self->addr, 6);
	ASSERT_OK(peer_munmap(&self->b, self->addr, self->len));
	ASSERT_OK(peer_munmap(&self->a, self->addr, self->len));
	ASSERT_OK(munmap(self->addr, self->len));
	EXPECT_LE((long)SIZE / 2 / 1024, swap_out(self->cg));
	ASSERT_OK(swapoff(self->zram.dev));
	self->zram.swap = false;
	ASSERT_OK(attach(self->name));
	EXPECT_EQ(0, nr_wrong(self->addr, 6));
}

static long do_swapoff(const struct request *rq)
{
	return swapoff(rq->s);
}

TEST_F_TIMEOUT(swap, swapoff_races_with_faults, LONG_TIMEOUT)
{
	struct peer off;
	int i;

	IN_ONE_WAY(variant->kind == ANON_PRIVATE || variant->kind == MEMFD);
	NEED_SWAP();
	ASSERT_EQ(0, peer_start(&off));
	fill(self->addr, 7);
	EXPECT_LE((long)SIZE / 2 / 1024, swap_out(self->cg));
	PEER_SEND(&off, do_swapoff, self->zram.dev, 0);
	for (i = 0; i < 3; i++) {
		PEER_SEND(&self->a, do_wrong, NULL, L(self->addr), 7);
		PEER_SEND(&self->b, do_wrong, NULL, L(self->addr), 7);
		EXPECT_EQ(0, nr_wrong(self->addr, 7));
		EXPECT_EQ(0, peer_wait(&self->a));
		EXPECT_EQ(0, peer_wait(&self->b));
	}
	ASSERT_EQ(0, peer_wait(&off)) {
		TH_LOG("swapoff: %s", strerror(errno));
	}
	self->zram.swap = false;
	peer_stop(&off);
	EXPECT_EQ(0, nr_wrong(self->addr, 7));
}

TEST_F_TIMEOUT(swap, destroying_a_region_frees_its_swap, SHORT_TIMEOUT)
{
	NEED_SWAP();
	if (self->fd >= 0) {
		close(self->fd);
		self->fd = -1;
	}
	fill(self->addr, 8);
	EXPECT_LE((long)SIZE / 2 / 1024, swap_out(self->cg));
	ASSERT_OK(peer_unlink(&self->b, self->name));
	peer_stop(&self->b);
	ASSERT_OK(peer_unlink(&self->a, self->name));
	ASSERT_OK(mshare_unlink(self->name));
	/* The creator's own memory may be out as well, the little there is. */
	EXPECT_TRUE(WAIT_FOR(cg_long(self->cg, "memory.swap.current") < (long)MB, 20)) {
		TH_LOG("%ld bytes in swap", cg_long(self->cg, "memory.swap.current"));
	}
}

TEST_F_TIMEOUT(swap, unmapping_what_is_swapped_leaves_the_rest, SHORT_TIMEOUT)
{
	size_t half = SIZE / 2, i;
	long bad = 0;

	NEED_SWAP();
	fill(self->addr, 9);
	EXPECT_LE((long)SIZE / 2 / 1024, swap_out(self->cg));
	ASSERT_OK(peer_munmap(&self->b, at(self->addr, half), half));
	EXPECT_EQ(PAGE_HOLE, page_state(at(self->addr, half)));
	for (i = 0; i < nr_pages() / 2; i++)
		if (*word(self->addr, i) != 9 * 1000003 + i)
			bad++;
	EXPECT_EQ(0, bad);
}

TEST_F_TIMEOUT(swap, rights_survive_with_what_is_swapped, SHORT_TIMEOUT)
{
	NEED_SWAP();
	fill(self->addr, 10);
	ASSERT_OK(mprotect(self->addr, page(), PROT_READ));
	EXPECT_LE((long)SIZE / 2 / 1024, swap_out(self->cg));
	ASSERT_OK(mprotect(at(self->addr, page()), page(), PROT_NONE));
	EXPECT_EQ(PAGE_RO, peer_state(&self->b, self->addr));
	EXPECT_EQ(PAGE_NOACC, peer_state(&self->b, at(self->addr, page())));
	ASSERT_OK(mprotect(self->addr, 2 * page(), RW));
	EXPECT_EQ(0, nr_wrong(self->addr, 10));
}

struct counters {
	atomic_int stop;
	unsigned long done[4];
};

/* Counts up in words that are its own, in every page in turn. */
static long do_count(const struct request *rq)
{
	struct counters *c = (void *)rq->a[1];
	long id = rq->a[2], i;

	while (!atomic_load(&c->stop)) {
		for (i = 0; i < 64; i++) {
			volatile unsigned long *p =
				at((void *)rq->a[0], i * page() + id * 64);

			*p = *p + 1;
		}
		c->done[id]++;
	}
	return 0;
}

/*
 * A page is unmapped and written out while others write to it. A write through
 * a translation that outlived the unmapping would be lost.
 */
TEST_F_TIMEOUT(swap, no_write_is_lost_to_reclaim, LONG_TIMEOUT)
{
	struct counters *c = mmap(NULL, page(), RW, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	long i, bad = 0, id, written;
	struct peer p[3];
	double end;

	NEED_SWAP();
	for (id = 0; id < 3; id++) {
		ASSERT_EQ(0, peer_start(&p[id]));
		PEER_SEND(&p[id], do_count, NULL, L(self->addr), L(c), id);
	}
	written = vmstat("pswpout");
	end = now() + 2.0 * scaled(10) / 10;
	while (now() < end ||
	       (now() < end + 60 && vmstat("pswpout") <= written + 16)) {
		/* No more than is there, or it tries for long. */
		cg_write(self->cg, "memory.reclaim", "64K");
		usleep(2000);
	}
	ASSERT_TRUE(WAIT_FOR(c->done[0] > 2 && c->done[1] > 2 && c->done[2] > 2, 60));
	atomic_store(&c->stop, 1);
	for (id = 0; id < 3; id++) {
		EXPECT_EQ(0, peer_wait(&p[id]));
		for (i = 0; i < 64; i++)
			if (*(unsigned long *)at(self->addr, i * page() + id * 64) !=
			    c->done[id])
				bad++;
		peer_stop(&p[id]);
	}
	EXPECT_EQ(0, bad) {
		TH_LOG("writes were lost; rounds %lu %lu %lu", c->done[0], c->done[1],
		       c->done[2]);
	}
	EXPECT_LT(written + 16, vmstat("pswpout"));
}

TEST_F_TIMEOUT(swap, many_processes_fault_it_in_at_once, LONG_TIMEOUT)
{
	struct peer p[16];
	long rounds = scaled(3), r;
	int i;

	IN_ONE_WAY(variant->kind == ANON_PRIVATE || variant->kind == MEMFD);
	NEED_SWAP();
	for (i = 0; i < 16; i++) {
		ASSERT_EQ(0, peer_start(&p[i]));
	}
	for (r = 0; r < rounds; r++) {
		fill(self->addr, 11 + r);
		EXPECT_LE((long)SIZE / 2 / 1024, swap_out(self->cg));
		for (i = 0; i < 16; i++) {
			PEER_SEND(&p[i], do_wrong, NULL, L(self->addr), 11 + r);
		}
		for (i = 0; i < 16; i++) {
			EXPECT_EQ(0, peer_wait(&p[i]));
		}
	}
	for (i = 0; i < 16; i++) {
		peer_stop(&p[i]);
	}
}

MSHARE_TEST_MAIN
