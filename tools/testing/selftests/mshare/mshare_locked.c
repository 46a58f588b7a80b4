// SPDX-License-Identifier: GPL-2.0
/*
 * Locked memory in a region: locked for all, and charged to the user who
 * created the region, against the limit of who locks it.
 *
 * What is charged to a user cannot be read anywhere. But a SysV segment is
 * charged to its owner in the same place, so that how much of one can be locked
 * tells what there is already.
 */
#include "mshare_env.h"
#include <sys/ipc.h>
#include <sys/shm.h>
#include <linux/capability.h>

#define RW		(PROT_READ | PROT_WRITE)
#define PROBE_PAGES	1024

#ifndef MLOCK_ONFAULT
#define MLOCK_ONFAULT	1
#endif

static size_t pages(size_t n)
{
	return n * page();
}

static long do_mlock(const struct request *rq)
{
	return mlock((void *)rq->a[0], rq->a[1]);
}

static long do_mlock2(const struct request *rq)
{
	return syscall(SYS_mlock2, rq->a[0], rq->a[1], rq->a[2]);
}

static long do_munlock(const struct request *rq)
{
	return munlock((void *)rq->a[0], rq->a[1]);
}

static long do_mlockall(const struct request *rq)
{
	return mlockall(rq->a[0]);
}

static long do_munlockall(const struct request *rq)
{
	return munlockall();
}

static long do_limit(const struct request *rq)
{
	struct rlimit r = { rq->a[0], rq->a[0] };

	return setrlimit(RLIMIT_MEMLOCK, &r);
}

/* Root that may not override the limit. */
static long do_drop_ipc_lock(const struct request *rq)
{
	struct __user_cap_header_struct hdr = { _LINUX_CAPABILITY_VERSION_3, 0 };
	struct __user_cap_data_struct data[2];

	if (syscall(SYS_capget, &hdr, data))
		return -1;
	data[0].effective &= ~(1U << CAP_IPC_LOCK);
	return syscall(SYS_capset, &hdr, data);
}

static long do_vmlck(const struct request *rq)
{
	return read_key("/proc/self/status", "VmLck");
}

static int peer_mlock(struct peer *p, void *addr, size_t len)
{
	return PEER(p, do_mlock, NULL, L(addr), len);
}

static int peer_munlock(struct peer *p, void *addr, size_t len)
{
	return PEER(p, do_munlock, NULL, L(addr), len);
}

static bool can_lock_segment(size_t n)
{
	int id = shmget(IPC_PRIVATE, pages(n), IPC_CREAT | 0600);
	bool ok = id >= 0 && !shmctl(id, SHM_LOCK, NULL);

	if (ok)
		shmctl(id, SHM_UNLOCK, NULL);
	if (id >= 0)
		shmctl(id, IPC_RMID, NULL);
	return ok;
}

/* How many pages are charged to the user, up to PROBE_PAGES. */
static long do_charged(const struct request *rq)
{
	struct rlimit r = { pages(PROBE_PAGES), pages(PROBE_PAGES) };
	long lo = 0, hi = PROBE_PAGES;

	if (setrlimit(RLIMIT_MEMLOCK, &r))
		return -1;
	while (lo < hi) {
		long mid = (lo + hi + 1) / 2;

		if (can_lock_segment(mid))
			lo = mid;
		else
			hi = mid - 1;
	}
	return PROBE_PAGES - lo;
}

/* A process of a user, with a limit in pages. */
static int user_start(struct peer *p, uid_t uid, size_t limit)
{
	if (peer_start(p) || PEER(p, do_limit, NULL, pages(limit)))
		return -1;
	return peer_become(p, uid, uid);
}

FIXTURE(locked)
{
	const char *name;
	void *addr;
	size_t len;
	uid_t u1, u2;
	struct peer a, b;	/* the creator and another user, attached */
	struct peer p1, p2;	/* who ask what the two are charged */
	struct kind_data k;
	const char *why;
};

FIXTURE_VARIANT(locked)
{
	enum kind kind;
};

FIXTURE_VARIANT_ADD(locked, anon_private) { .kind = ANON_PRIVATE };
FIXTURE_VARIANT_ADD(locked, anon_shared) { .kind = ANON_SHARED };
FIXTURE_VARIANT_ADD(locked, memfd) { .kind = MEMFD };
FIXTURE_VARIANT_ADD(locked, tmpfs_private) { .kind = TMPFS_PRIVATE };

FIXTURE_SETUP(locked)
{
	NOT_ON_DEBUG(variant->kind == ANON_SHARED);
	self->name = new_name();
	self->addr = slot(0);
	self->len = granule();
	self->u1 = 100000 + 2 * getpid();
	self->u2 = self->u1 + 1;
	self->why = kind_init(&self->k, variant->kind);
	if (self->why)
		return;
	ASSERT_EQ(0, user_start(&self->a, self->u1, 64));
	ASSERT_EQ(0, user_start(&self->b, self->u2, 48));
	ASSERT_EQ(0, user_start(&self->p1, self->u1, PROBE_PAGES));
	ASSERT_EQ(0, user_start(&self->p2, self->u2, PROBE_PAGES));
	ASSERT_OK(peer_create(&self->a, self->name, self->addr, self->len));
	ASSERT_OK(chmod(path_of(self->name), 0666));
	ASSERT_OK(peer_attach(&self->b, self->name));
	/* We are root, and map what is not everyone's to open. */
	ASSERT_OK(attach(self->name));
	ASSERT_OK(kind_map(&self->k, self->addr, pages(KIND_PAGES), RW, MAP_FIXED, 0));
}

FIXTURE_TEARDOWN(locked)
{
	peer_stop(&self->a);
	peer_stop(&self->b);
	peer_stop(&self->p1);
	peer_stop(&self->p2);
	remove_names();
	kind_end(&self->k);
}

#define NEED_KIND() do {						\
	if (self->why)							\
		SKIP(return, "%s", self->why);				\
} while (0)

#define EXPECT_CHARGED(_n)						\
	EXPECT_EQ(_n, PEER(&self->p1, do_charged, NULL, 0))

/* A region goes in the background. */
#define EXPECT_CHARGED_SOON(_n)						\
	EXPECT_TRUE(WAIT_FOR(PEER(&self->p1, do_charged, NULL, 0) == (_n), 10)) { \
		TH_LOG("%ld pages are charged",				\
		       PEER(&self->p1, do_charged, NULL, 0));		\
	}

TEST_F(locked, the_creator_is_charged_whoever_locks)
{
	NEED_KIND();
	EXPECT_CHARGED(0);
	EXPECT_OK(peer_mlock(&self->b, self->addr, pages(32)));
	EXPECT_CHARGED(32);
	EXPECT_EQ(0, PEER(&self->p2, do_charged, NULL, 0));
	EXPECT_EQ(0, PEER(&self->b, do_vmlck, NULL, 0));
	/* What is locked already is not charged again, nor is what another locks */
	EXPECT_OK(peer_mlock(&self->b, self->addr, pages(32)));
	EXPECT_CHARGED(32);
	EXPECT_OK(peer_mlock(&self->a, at(self->addr, pages(16)), pages(32)));
	EXPECT_CHARGED(48);
	/* There is one lock, and anyone's to take off. */
	EXPECT_OK(peer_munlock(&self->b, at(self->addr, pages(8)), pages(8)));
	EXPECT_CHARGED(40);
	EXPECT_OK(peer_munlock(&self->a, self->addr, pages(KIND_PAGES)));
	EXPECT_CHARGED(0);
	EXPECT_EQ(0, PEER(&self->p2, do_charged, NULL, 0));
}

TEST_F(locked, the_limit_is_the_callers)
{
	NEED_KIND();
	EXPECT_ERR(ENOMEM, peer_mlock(&self->b, self->addr, pages(49)));
	EXPECT_CHARGED(0);
	EXPECT_OK(peer_mlock(&self->b, self->addr, pages(48)));
	EXPECT_CHARGED(48);
	EXPECT_ERR(ENOMEM, peer_mlock(&self->b, at(self->addr, pages(48)), page()));
	EXPECT_ERR(ENOMEM, peer_mlock(&self->b, at(self->addr, pages(40)), pages(9)));
	EXPECT_OK(peer_mlock(&self->b, at(self->addr, pages(40)), pages(8)));
	EXPECT_CHARGED(48);
	/* It is 64 for the other. */
	EXPECT_OK(peer_mlock(&self->a, at(self->addr, pages(48)), pages(16)));
	EXPECT_CHARGED(64);
	ASSERT_OK(PEER(&self->a, do_limit, NULL, pages(10)));
	ASSERT_OK(map_anon(at(self->addr, GB), page(), MAP_PRIVATE));
	EXPECT_ERR(ENOMEM, peer_mlock(&self->a, at(self->addr, GB), page()));
	EXPECT_OK(peer_munlock(&self->a, self->addr, pages(54)));
	EXPECT_CHARGED(10);
	EXPECT_OK(peer_munlock(&self->a, at(self->addr, pages(63)), page()));
	EXPECT_OK(peer_mlock(&self->a, at(self->addr, GB), page()));
	EXPECT_CHARGED(10);
	ASSERT_OK(PEER(&self->b, do_limit, NULL, 0));
	EXPECT_ERR(EPERM, peer_mlock(&self->b, self->addr, page()));
	EXPECT_CHARGED(10);
}

/* With what is charged to the creator elsewhere. */
TEST_F(locked, all_regions_of_a_user_count)
{
	const char *name = new_name();

	NEED_KIND();
	ASSERT_OK(peer_create(&self->a, name, slot(2), self->len));
	ASSERT_OK(chmod(path_of(name), 0666));
	ASSERT_OK(peer_attach(&self->b, name));
	ASSERT_OK(PEER(&self->b, do_mmap, NULL, L(slot(2)), pages(64), RW,
		       MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0));
	EXPECT_OK(peer_mlock(&self->b, self->addr, pages(30)));
	EXPECT_ERR(ENOMEM, peer_mlock(&self->b, slot(2), pages(19)));
	EXPECT_OK(peer_mlock(&self->b, slot(2), pages(18)));
	EXPECT_CHARGED(48);
	/* A region of the other's own is another matter. */
	name = new_name();
	ASSERT_OK(peer_create(&self->b, name, slot(4), self->len));
	ASSERT_OK(PEER(&self->b, do_mmap, NULL, L(slot(4)), pages(64), RW,
		       MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0));
	EXPECT_OK(peer_mlock(&self->b, slot(4), pages(48)));
	EXPECT_CHARGED(48);
	EXPECT_EQ(48, PEER(&self->p2, do_charged, NULL, 0));
	/* So is what a process locks of its own. */
	ASSERT_OK(PEER(&self->b, do_mmap, NULL, L(slot(8)), pages(48), RW,
		       MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0));
	EXPECT_OK(peer_mlock(&self->b, slot(8), pages(48)));
	EXPECT_EQ((long)pages(48) / 1024, PEER(&self->b, do_vmlck, NULL, 0));
}

TEST_F(locked, who_may_override_the_limit_does)
{
	struct rlimit none = { 0, 0 };
	struct peer c;

	NEED_KIND();
	ASSERT_OK(setrlimit(RLIMIT_MEMLOCK, &none));
	EXPECT_OK(mlock(self->addr, pages(KIND_PAGES)));
	EXPECT_CHARGED(KIND_PAGES);
	EXPECT_OK(mmap(at(self->addr, GB), pages(100), RW, MAP_PRIVATE |
		       MAP_ANONYMOUS | MAP_FIXED | MAP_LOCKED, -1, 0));
	EXPECT_CHARGED(KIND_PAGES + 100);
	ASSERT_EQ(0, peer_start(&c));
	ASSERT_OK(PEER(&c, do_drop_ipc_lock, NULL, 0));
	EXPECT_ERR(EPERM, peer_mlock(&c, self->addr, page()));
	peer_stop(&c);
	/* Others stay below theirs. */
	EXPECT_ERR(ENOMEM, peer_mlock(&self->b, at(self->addr, GB), pages(101)));
	EXPECT_OK(munlock(at(self->addr, GB), pages(100)));
	EXPECT_OK(munlock(self->addr, pages(KIND_PAGES)));
	EXPECT_CHARGED(0);
}

TEST_F(locked, what_is_unmapped_is_given_back)
{
	NEED_KIND();
	EXPECT_OK(peer_mlock(&self->b, self->addr, pages(40)));
	EXPECT_OK(peer_munmap(&self->a, at(self->addr, pages(10)), pages(10)));
	EXPECT_CHARGED(30);
	EXPECT_OK(munmap(at(self->addr, pages(15)), pages(10)));
	EXPECT_CHARGED(25);
	/* Mapped over. */
	EXPECT_OK(kind_map(&self->k, self->addr, pages(5), RW, MAP_FIXED, 0));
	EXPECT_CHARGED(20);
	/* Not what is around it, nor by a call that does nothing. */
	EXPECT_OK(mprotect(self->addr, pages(10), PROT_READ));
	EXPECT_OK(munmap(at(self->addr, pages(10)), pages(5)));
	EXPECT_CHARGED(20);
	EXPECT_OK(munmap(self->addr, pages(KIND_PAGES)));
	EXPECT_CHARGED(0);
}

TEST_F(locked, what_a_region_had_locked_is_given_back_at_its_end)
{
	NEED_KIND();
	EXPECT_OK(peer_mlock(&self->b, self->addr, pages(40)));
	EXPECT_OK(mmap(at(self->addr, GB), pages(20), RW, MAP_PRIVATE |
		       MAP_ANONYMOUS | MAP_FIXED | MAP_LOCKED, -1, 0));
	EXPECT_CHARGED(60);
	/* Whose end does not matter. */
	peer_stop(&self->a);
	EXPECT_CHARGED(60);
	peer_stop(&self->b);
	EXPECT_CHARGED(60);
	EXPECT_OK(mshare_unlink(self->name));
	EXPECT_CHARGED_SOON(0);
}

TEST_F(locked, mmap_with_map_locked_is_charged_or_fails)
{
	void *p = at(self->addr, GB);
	int flags = MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED | MAP_LOCKED;

	NEED_KIND();
	ASSERT_OK(PEER(&self->b, do_mmap, NULL, L(p), pages(100), RW,
		       MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0));
	ASSERT_EQ(0, peer_write(&self->b, p, 7));
	EXPECT_ERR(EAGAIN, PEER(&self->b, do_mmap, NULL, L(p), pages(49), RW, flags,
				-1, 0));
	EXPECT_EQ(7, peer_read(&self->a, p));
	EXPECT_CHARGED(0);
	EXPECT_EQ(L(p), PEER(&self->b, do_mmap, NULL, L(p), pages(30), RW, flags,
			     -1, 0));
	EXPECT_CHARGED(30);
	EXPECT_EQ(0, peer_read(&self->a, p));
	EXPECT_ERR(EEXIST, PEER(&self->b, do_mmap, NULL, L(p), pages(4), RW,
				flags | MAP_FIXED_NOREPLACE, -1, 0));
	/* One that fails after it was allowed: neither shared nor private. */
	EXPECT_ERR(EINVAL, PEER(&self->b, do_mmap, NULL, L(p), pages(4), RW,
				flags & ~MAP_PRIVATE, -1, 0));
	EXPECT_CHARGED(30);
	EXPECT_OK(mmap(at(self->addr, 2 * GB), pages(8), RW, MAP_PRIVATE |
		       MAP_ANONYMOUS | MAP_LOCKED, -1, 0));
	EXPECT_CHARGED(38);
	ASSERT_OK(PEER(&self->b, do_limit, NULL, 0));
	EXPECT_ERR(EPERM, PEER(&self->b, do_mmap, NULL, L(p), page(), RW, flags,
			       -1, 0));
	EXPECT_CHARGED(38);
}

/* As in any process: what comes before the hole is locked. */
TEST_F(locked, a_lock_that_fails_at_a_hole_charges_what_it_locked)
{
	NEED_KIND();
	ASSERT_OK(munmap(at(self->addr, pages(20)), pages(2)));
	EXPECT_ERR(ENOMEM, peer_mlock(&self->b, self->addr, pages(30)));
	EXPECT_CHARGED(20);
	EXPECT_ERR(ENOMEM, peer_mlock(&self->b, at(self->addr, 64 * MB), page()));
	EXPECT_CHARGED(20);
	EXPECT_ERR(ENOMEM, peer_munlock(&self->b, self->addr, pages(30)));
	EXPECT_CHARGED(0);
}

TEST_F(locked, locked_pages_are_there_and_stay)
{
	long locked, n;

	NEED_KIND();
	locked = meminfo("Mlocked");
	ASSERT_OK(peer_mlock(&self->b, self->addr, pages(40)));
	n = (meminfo("Mlocked") - locked) * 1024 / (long)page();
	EXPECT_LE(36, n);
	EXPECT_GE(48, n);
	/* Another's access takes no fault for them. */
	n = minflt();
	for (int i = 0; i < 40; i++) {
		EXPECT_EQ(kind_byte(&self->k, i), try_read(at(self->addr, pages(i))));
	}
	EXPECT_GT(8, minflt() - n);
	ASSERT_OK(munlock(self->addr, pages(KIND_PAGES)));
	n = (meminfo("Mlocked") - locked) * 1024 / (long)page();
	EXPECT_GE(8, n);
}

TEST_F(locked, mlock_onfault_locks_what_is_touched)
{
	long locked, n;

	NEED_KIND();
	locked = meminfo("Mlocked");
	ASSERT_OK(PEER(&self->b, do_mlock2, NULL, L(self->addr), pages(48),
		       MLOCK_ONFAULT));
	EXPECT_CHARGED(48);
	n = (meminfo("Mlocked") - locked) * 1024 / (long)page();
	EXPECT_GE(8, n);
	for (int i = 0; i < 48; i++) {
		EXPECT_EQ(0, peer_write(&self->a, at(self->addr, pages(i)), 1));
	}
	n = (meminfo("Mlocked") - locked) * 1024 / (long)page();
	EXPECT_LE(40, n);
	EXPECT_ERR(EINVAL, PEER(&self->b, do_mlock2, NULL, L(self->addr), page(), 2));
}

TEST_F(locked, across_an_edge_nothing_is_locked)
{
	void *below = at(self->addr, -pages(2));
	void *last = at(self->addr, self->len - pages(2));

	NEED_KIND();
	ASSERT_OK(map_anon(below, pages(2), MAP_PRIVATE));
	ASSERT_OK(map_anon(last, pages(2), MAP_PRIVATE));
	ASSERT_OK(map_anon(at(self->addr, self->len), page(), MAP_PRIVATE));
	EXPECT_ERR(EINVAL, mlock(below, pages(4)));
	EXPECT_ERR(EINVAL, mlock(last, pages(3)));
	EXPECT_ERR(EINVAL, mlock(below, self->len + pages(3)));
	EXPECT_ERR(EINVAL, munlock(below, pages(4)));
	EXPECT_ERR(EINVAL, syscall(SYS_mlock2, last, pages(3), 0));
	/* Rounded to pages first. */
	EXPECT_ERR(EINVAL, mlock(at(below, pages(2) - 1), 2));
	EXPECT_OK(mlock(at(self->addr, 1), 1));
	EXPECT_CHARGED(1);
	EXPECT_EQ(0, read_key("/proc/self/status", "VmLck"));
	/* The whole attachment is what is inside, which has holes. */
	EXPECT_ERR(ENOMEM, mlock(self->addr, self->len));
	EXPECT_CHARGED(KIND_PAGES);
	munmap(below, pages(2));
	munmap(at(self->addr, self->len), page());
}

static long do_attach_ro(const struct request *rq)
{
	int fd = open(path_of(rq->s), O_RDONLY);
	void *p;

	if (fd < 0)
		return -1;
	p = mmap((void *)rq->a[0], rq->a[1], PROT_READ, MAP_SHARED | MAP_FIXED, fd, 0);
	close(fd);
	return p == MAP_FAILED ? -1 : 0;
}

TEST_F(locked, readers_change_no_lock)
{
	struct peer r;

	NEED_KIND();
	ASSERT_EQ(0, user_start(&r, self->u1, 64));
	ASSERT_OK(munmap(self->addr, self->len));
	ASSERT_OK(PEER(&r, do_attach_ro, self->name, L(self->addr), self->len));
	EXPECT_ERR(EACCES, peer_mlock(&r, self->addr, page()));
	EXPECT_ERR(EACCES, PEER(&r, do_mlock2, NULL, L(self->addr), page(), 0));
	EXPECT_OK(peer_mlock(&self->a, self->addr, pages(3)));
	EXPECT_ERR(EACCES, peer_munlock(&r, self->addr, page()));
	EXPECT_CHARGED(3);
	peer_stop(&r);
}

TEST_F(locked, mlockall_leaves_regions_alone)
{
	void *p = at(self->addr, GB);
	long locked;

	NEED_KIND();
	locked = meminfo("Mlocked");
	EXPECT_OK(peer_mlock(&self->a, self->addr, pages(20)));
	/* All that is ours, and nothing of the region. */
	EXPECT_OK(mlockall(MCL_CURRENT));
	EXPECT_CHARGED(20);
	EXPECT_OK(munlockall());
	EXPECT_CHARGED(20);
	EXPECT_LE(16 * (long)page() / 1024, meminfo("Mlocked") - locked);

	/* Under a limit that has no room for a region. */
	ASSERT_OK(PEER(&self->b, do_munmap, NULL, L(self->addr), self->len));
	ASSERT_OK(PEER(&self->b, do_mlockall, NULL, MCL_FUTURE));
	EXPECT_OK(peer_attach(&self->b, self->name));
	ASSERT_OK(PEER(&self->b, do_munmap, NULL, L(self->addr), self->len));
	EXPECT_OK(PEER(&self->b, do_attach_ro, self->name, L(self->addr), self->len));
	ASSERT_OK(PEER(&self->b, do_munmap, NULL, L(self->addr), self->len));
	EXPECT_OK(peer_attach(&self->b, self->name));
	/* What is to be locked is what the process maps for itself. */
	EXPECT_EQ(L(p), PEER(&self->b, do_mmap, NULL, L(p), 64 * MB, RW,
			     MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0));
	EXPECT_CHARGED(20);
	EXPECT_ERR(EAGAIN, PEER(&self->b, do_mmap, NULL, 0, 64 * MB, RW,
				MAP_PRIVATE | MAP_ANONYMOUS, -1, 0));
	EXPECT_EQ(0, PEER(&self->b, do_vmlck, NULL, 0));
	EXPECT_OK(peer_mlock(&self->b, p, pages(4)));
	EXPECT_OK(PEER(&self->b, do_munlockall, NULL, 0));
	EXPECT_CHARGED(24);
}

/* MAP_LOCKED of the region's own file locks nothing either. */
TEST_F(locked, attaching_with_map_locked_locks_nothing)
{
	int fd;

	NEED_KIND();
	fd = open(path_of(self->name), O_RDWR);
	ASSERT_LE(0, fd);
	ASSERT_OK(munmap(self->addr, self->len));
	EXPECT_EQ(self->addr, mmap(self->addr, self->len, RW,
				   MAP_SHARED | MAP_FIXED | MAP_LOCKED, fd, 0));
	EXPECT_EQ(0, read_key("/proc/self/status", "VmLck"));
	EXPECT_CHARGED(0);
	close(fd);
}

/* Processes that lock and unlock at a time, in two regions, and one limit. */
struct race_ctl {
	atomic_int stop;
	atomic_int holders;
	atomic_int broken;
	atomic_long rounds;
};

static long do_race(const struct request *rq)
{
	struct race_ctl *c = (void *)rq->a[2];
	void *p = (void *)rq->a[0];
	size_t len = rq->a[1];

	while (!atomic_load(&c->stop)) {
		if (mlock(p, len))
			continue;
		/* It was charged before, and is until after: no two fit. */
		if (atomic_fetch_add(&c->holders, 1))
			atomic_fetch_add(&c->broken, 1);
		atomic_fetch_add(&c->rounds, 1);
		atomic_fetch_sub(&c->holders, 1);
		if (munlock(p, len))
			return -1;
	}
	return 0;
}

TEST_F_TIMEOUT(locked, who_lock_at_a_time_do_not_exceed_the_limit, SHORT_TIMEOUT)
{
	struct race_ctl *c = mmap(NULL, page(), RW, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	const char *name = new_name();
	struct peer p[2];

	NEED_KIND();
	ASSERT_OK(peer_create(&self->a, name, slot(2), self->len));
	ASSERT_OK(chmod(path_of(name), 0666));
	ASSERT_EQ(0, user_start(&p[0], self->u2, 48));
	ASSERT_EQ(0, user_start(&p[1], self->u2, 48));
	ASSERT_OK(munmap(self->addr, self->len));
	ASSERT_OK(attach(self->name));
	ASSERT_OK(attach(name));
	ASSERT_OK(map_anon(slot(2), pages(40), MAP_PRIVATE));
	ASSERT_OK(peer_munmap(&p[0], self->addr, self->len));
	ASSERT_OK(peer_munmap(&p[1], self->addr, self->len));
	ASSERT_OK(peer_attach(&p[0], self->name));
	ASSERT_OK(peer_attach(&p[1], name));
	PEER_SEND(&p[0], do_race, NULL, L(self->addr), pages(40), L(c));
	PEER_SEND(&p[1], do_race, NULL, L(slot(2)), pages(40), L(c));
	usleep(500000);
	EXPECT_TRUE(WAIT_FOR(atomic_load(&c->rounds) > 10, 60));
	atomic_store(&c->stop, 1);
	EXPECT_EQ(0, peer_wait(&p[0]));
	EXPECT_EQ(0, peer_wait(&p[1]));
	EXPECT_EQ(0, atomic_load(&c->broken));
	EXPECT_CHARGED(0);
	peer_stop(&p[0]);
	peer_stop(&p[1]);
}

/* Many in one region: in the end the count is right. */
static long do_churn(const struct request *rq)
{
	unsigned int seed = rq->a[3];
	char *p = (char *)rq->a[0];
	long n = rq->a[1], i;

	for (i = 0; i < rq->a[2]; i++) {
		size_t off = rand_r(&seed) % n, len = 1 + rand_r(&seed) % (n - off);

		switch (rand_r(&seed) % 4) {
		case 0:
			mlock(p + pages(off), pages(len));
			break;
		case 1:
			munlock(p + pages(off), pages(len));
			break;
		case 2:
			munmap(p + pages(off), pages(len));
			break;
		case 3:
			mmap(p + pages(off), pages(len), RW, MAP_PRIVATE |
			     MAP_ANONYMOUS | MAP_FIXED |
			     (rand_r(&seed) & 1 ? MAP_LOCKED : 0), -1, 0);
			break;
		}
	}
	return 0;
}

TEST_F_TIMEOUT(locked, the_charge_is_right_after_many_calls_at_a_time, SHORT_TIMEOUT)
{
	unsigned int seed = test_seed();
	long n = scaled(300), i, in;

	NEED_KIND();
	TH_LOG("seed %u", seed);
	PEER_SEND(&self->a, do_churn, NULL, L(self->addr), 48, n, seed);
	PEER_SEND(&self->b, do_churn, NULL, L(self->addr), 48, n, seed + 1);
	EXPECT_EQ(0, peer_wait(&self->a));
	EXPECT_EQ(0, peer_wait(&self->b));
	ASSERT_OK(kind_map(&self->k, self->addr, pages(KIND_PAGES), RW, MAP_FIXED, 0));
	EXPECT_CHARGED(0);
	for (i = in = 0; i < 48; i += 3, in++) {
		EXPECT_OK(peer_mlock(&self->a, at(self->addr, pages(i)), page()));
	}
	EXPECT_CHARGED(in);
	EXPECT_OK(munmap(self->addr, pages(KIND_PAGES)));
	EXPECT_CHARGED(0);
}

MSHARE_TEST_MAIN
