// SPDX-License-Identifier: GPL-2.0
/*
 * Futexes in regions. What is private to a region is common to all who are
 * attached, so a futex there is one for all of them, whatever process is asked;
 * and all that the C library builds on it works between processes.
 */
#include <linux/futex.h>
#include <semaphore.h>
#include "mshare_env.h"

#define RW	(PROT_READ | PROT_WRITE)
#define HUGE	(2 * MB)
#define LENGTH	(2 * HUGE)

#define THP	100
#define HUGETLB	101

#ifndef __NR_futex_waitv
#define __NR_futex_waitv	449
#endif

static long futex(void *p, int op, long val, const void *ts, void *p2, long val3)
{
	return syscall(SYS_futex, p, op, val, ts, p2, val3);
}

static int *word(void *p, size_t off)
{
	return at(p, off);
}

/* Wait for up to a minute while *a[0] is a[1]. a[2] are flags of the call. */
static long do_wait(const struct request *rq)
{
	struct timespec ts = { 60, 0 };

	return futex((void *)rq->a[0], FUTEX_WAIT | rq->a[2], rq->a[1], &ts,
		     NULL, 0);
}

static long do_wake(const struct request *rq)
{
	return futex((void *)rq->a[0], FUTEX_WAKE | rq->a[2], rq->a[1], NULL,
		     NULL, 0);
}

static long do_futex(const struct request *rq)
{
	return futex((void *)rq->a[0], rq->a[1], rq->a[2], (void *)rq->a[3],
		     (void *)rq->a[4], rq->a[5]);
}

/* As FUTEX_WAKE, when the waiters are on their way: how many were woken. */
static int wake(void *p, int nr)
{
	int i, got = 0;

	for (i = 0; i < 2000 && got < nr; i++) {
		long ret = futex(p, FUTEX_WAKE, nr - got, NULL, NULL, 0);

		if (ret < 0)
			return -errno;
		got += ret;
		if (got < nr)
			usleep(5000);
	}
	return got;
}

/* Until @pid sleeps in futex(), or something like that. */
static bool sleeps(pid_t pid, pid_t tid)
{
	char path[64], buf[128];

	snprintf(path, sizeof(path), "/proc/%d/task/%d/syscall", pid, tid);
	if (read_file(path, buf, sizeof(buf)) < 0)
		return false;
	return atoi(buf) == SYS_futex || atoi(buf) == __NR_futex_waitv;
}

#define WAIT_ASLEEP(_pid, _tid)	ASSERT_TRUE(WAIT_FOR(sleeps(_pid, _tid), 60))

FIXTURE(futex)
{
	const char *name;
	void *addr, *p;
	size_t len;
	struct peer a, ro;	/* ro is attached read-only */
	struct kind_data kind;
	struct setting thp, nr_huge, pattern;
	int flags, fd;
};

FIXTURE_VARIANT(futex)
{
	int kind;
	bool shared;
};

#define VARIANT(_name, _kind, _shared)					\
	FIXTURE_VARIANT_ADD(futex, _name) { .kind = _kind, .shared = _shared }

VARIANT(anon_private, ANON_PRIVATE, false);
VARIANT(anon_shared, ANON_SHARED, true);
VARIANT(tmpfs_private, TMPFS_PRIVATE, false);
VARIANT(tmpfs_shared, TMPFS_SHARED, true);
VARIANT(ext4_private, EXT4_PRIVATE, false);
VARIANT(thp, THP, false);
VARIANT(hugetlb_private, HUGETLB, false);
VARIANT(hugetlb_shared, HUGETLB, true);

FIXTURE_SETUP(futex)
{
	const char *why = NULL;

	self->kind.fd = -1;
	self->fd = -1;
	self->name = new_name();
	self->addr = slot(0);
	self->len = granule();
	self->p = at(self->addr, GB);
	self->flags = MAP_ANONYMOUS | (variant->shared ? MAP_SHARED : MAP_PRIVATE);

	switch (variant->kind) {
	case THP:
		if (setting_set(&self->thp, THP_ENABLED, "madvise"))
			why = "no transparent huge pages";
		break;
	case HUGETLB:
		if (setting_set(&self->nr_huge, "/proc/sys/vm/nr_hugepages", "8") ||
		    meminfo("HugePages_Free:") < 4)
			why = "no huge pages";
		self->flags |= MAP_HUGETLB;
		break;
	default:
		why = kind_init(&self->kind, variant->kind);
		self->flags = self->kind.flags;
		self->fd = self->kind.fd;
		/* No content, so that a page that is not written to is 0. */
		if (!why && self->fd >= 0 &&
		    (ftruncate(self->fd, 0) || ftruncate(self->fd, LENGTH)))
			why = "cannot make a file";
	}
	if (why)
		SKIP(return, "%s", why);

	ASSERT_EQ(0, peer_start(&self->a));
	ASSERT_EQ(0, peer_start(&self->ro));
	ASSERT_OK(create(self->name, self->addr, self->len));
	ASSERT_OK(peer_attach(&self->a, self->name));
	ASSERT_OK(PEER(&self->ro, do_mshare, self->name, 0, 0, O_RDONLY, 0));
	ASSERT_EQ(self->p, mmap(self->p, LENGTH, RW, self->flags | MAP_FIXED,
				self->fd, 0));
	if (variant->kind == THP)
		ASSERT_OK(madvise(self->p, LENGTH, MADV_HUGEPAGE));
}

FIXTURE_TEARDOWN(futex)
{
	peer_stop(&self->a);
	peer_stop(&self->ro);
	munmap(self->addr, self->len);
	remove_names();
	kind_end(&self->kind);
	setting_restore(&self->thp);
	setting_restore(&self->nr_huge);
	setting_restore(&self->pattern);
}

TEST_F(futex, wait_and_wake)
{
	int *f = word(self->p, page() + 512);

	/* A page that nobody has touched. */
	ASSERT_EQ(0, PEER_SEND(&self->a, do_wait, NULL, L(f), 0));
	EXPECT_EQ(1, wake(f, 1));
	EXPECT_EQ(0, peer_wait(&self->a));
	/* And one that changes before the other wakes us. */
	ASSERT_EQ(0, PEER_SEND(&self->a, do_wait, NULL, L(f), 0));
	WAIT_ASLEEP(self->a.pid, self->a.pid);
	EXPECT_EQ(0, try_write(f, 1));
	EXPECT_EQ(1, wake(f, 1));
	EXPECT_EQ(0, peer_wait(&self->a));
	EXPECT_ERR(EAGAIN, PEER(&self->a, do_wait, NULL, L(f), 0));
	EXPECT_EQ(0, PEER(&self->a, do_wake, NULL, L(f), 1));
	/* The word beside it, and the page behind it, are others. */
	ASSERT_EQ(0, PEER_SEND(&self->a, do_wait, NULL, L(f), 1));
	WAIT_ASLEEP(self->a.pid, self->a.pid);
	usleep(20000);
	EXPECT_EQ(0, futex(f + 1, FUTEX_WAKE, 1, NULL, NULL, 0));
	EXPECT_EQ(0, futex(at(f, page()), FUTEX_WAKE, 1, NULL, NULL, 0));
	EXPECT_EQ(1, wake(f, 1));
	EXPECT_EQ(0, peer_wait(&self->a));
}

/* It is one futex wherever a process has the region. */
TEST_F(futex, at_another_address)
{
	int *f = word(self->p, 256), *g = word(self->p, page() + 128);
	long there = L(slot(8)) - L(self->addr);

	NOT_ELSEWHERE();
	ASSERT_EQ(0, try_write(f, 0));
	ASSERT_EQ(0, try_write(g, 0));
	ASSERT_OK(peer_munmap(&self->a, self->addr, self->len));
	ASSERT_OK(PEER(&self->a, do_mshare, self->name, L(slot(8)), self->len,
		       O_RDWR, 0));
	PEER_SEND(&self->a, do_wait, NULL, L(f) + there, 0, 0);
	WAIT_ASLEEP(self->a.pid, self->a.pid);
	EXPECT_EQ(1, wake(f, 1));
	EXPECT_EQ(0, peer_wait(&self->a));

	/* From here to there, and from there on. */
	PEER_SEND(&self->a, do_wait, NULL, L(f) + there, 0, 0);
	WAIT_ASLEEP(self->a.pid, self->a.pid);
	EXPECT_TRUE(WAIT_FOR(futex(f, FUTEX_CMP_REQUEUE, 0, (void *)1, g, 0) == 1, 60));
	EXPECT_EQ(0, futex(f, FUTEX_WAKE, 1, NULL, NULL, 0));
	EXPECT_EQ(1, futex(g, FUTEX_WAKE, 1, NULL, NULL, 0));
	EXPECT_EQ(0, peer_wait(&self->a));
	EXPECT_EQ(0, PEER(&self->a, do_wake, NULL, L(g) + there, 1, 0));
}

TEST_F(futex, who_is_attached_read_only_may_wait)
{
	int *untouched = word(self->p, 512), *f = word(self->p, HUGE + 64);

	/* The page is made, or copied from the file, while it sleeps. */
	ASSERT_EQ(0, PEER_SEND(&self->ro, do_wait, NULL, L(untouched), 0));
	WAIT_ASLEEP(self->ro.pid, self->ro.pid);
	usleep(20000);
	EXPECT_EQ(0, try_write(untouched, 1));
	EXPECT_EQ(1, wake(untouched, 1));
	EXPECT_EQ(0, peer_wait(&self->ro));
	/* It is there. */
	EXPECT_EQ(0, try_write(f, 1));
	ASSERT_EQ(0, PEER_SEND(&self->ro, do_wait, NULL, L(f), 1));
	EXPECT_EQ(1, wake(f, 1));
	EXPECT_EQ(0, peer_wait(&self->ro));
	/* To wake is to read. */
	ASSERT_EQ(0, PEER_SEND(&self->a, do_wait, NULL, L(f), 1));
	EXPECT_TRUE(WAIT_FOR(PEER(&self->ro, do_wake, NULL, L(f), 1) == 1, 60));
	EXPECT_EQ(0, peer_wait(&self->a));
}

TEST_F(futex, who_is_attached_read_only_may_not_lock)
{
	int *f = word(self->p, 512), *g = word(self->p, 1024), i;

	for (i = 0; i < 2; i++) {
		EXPECT_ERR(EFAULT, PEER(&self->ro, do_futex, NULL, L(f),
					FUTEX_LOCK_PI, 0));
		EXPECT_ERR(EFAULT, PEER(&self->ro, do_futex, NULL, L(f),
					FUTEX_TRYLOCK_PI, 0));
		EXPECT_ERR(EFAULT, PEER(&self->ro, do_futex, NULL, L(f),
					FUTEX_WAKE_OP, 1, 1, L(g),
					FUTEX_OP(FUTEX_OP_SET, 1, FUTEX_OP_CMP_EQ, 0)));
		EXPECT_ERR(EFAULT, PEER(&self->ro, do_futex, NULL, L(f),
					FUTEX_CMP_REQUEUE_PI, 1, 1, L(g), 0));
		EXPECT_EQ(0, try_read(f));
		EXPECT_EQ(0, try_read(g));
		/* Not there and there. */
		EXPECT_EQ(0, try_write(f, 0));
	}
}

/* A list of robust futexes with *a[0] on it; the caller holds it, it says. */
static long do_claim(const struct request *rq)
{
	static struct robust_list_head head;
	static struct robust_list entry;

	entry.next = &head.list;
	head.list.next = &entry;
	head.futex_offset = rq->a[0] - L(&entry);
	return syscall(SYS_set_robust_list, &head, sizeof(head));
}

/* Its exit changes nothing, and does not try to for ever. */
TEST_F(futex, who_is_attached_read_only_dies_with_a_robust_one)
{
	int *f = word(self->p, 512);
	int i, tid = self->ro.pid;

	ASSERT_EQ(0, try_read(f));
	__atomic_store_n(f, tid, __ATOMIC_SEQ_CST);
	ASSERT_OK(PEER(&self->ro, do_claim, NULL, L(f)));
	peer_stop(&self->ro);
	EXPECT_EQ(tid, *f);
	/* As it would be if it was allowed. */
	for (i = 0; i < 2; i++) {
		ASSERT_EQ(0, peer_start(&self->ro));
		__atomic_store_n(f, self->ro.pid, __ATOMIC_SEQ_CST);
		ASSERT_OK(PEER(&self->ro, do_claim, NULL, L(f)));
		peer_stop(&self->ro);
		EXPECT_EQ(FUTEX_OWNER_DIED, *f);
	}
}

/* A dump of core that goes nowhere */
static long do_dump(const struct request *rq __maybe_unused)
{
	const struct rlimit all = { RLIM_INFINITY, RLIM_INFINITY };
	char *p = malloc(4 * MB);

	signal(SIGABRT, SIG_DFL);
	if (!p || setrlimit(RLIMIT_CORE, &all) || prctl(PR_SET_DUMPABLE, 1))
		return -1;
	memset(p, 1, 4 * MB);
	abort();
}

static bool dumps(pid_t pid)
{
	char path[64];

	snprintf(path, sizeof(path), "/proc/%d/status", pid);
	return read_key(path, "CoreDumping") == 1;
}

/*
 * Who is killed while it dumps core is being killed all the time that it exits;
 * and what it owns is in a page that nobody has written to: it takes a fault.
 */
TEST_F_TIMEOUT(futex, who_is_killed_twice_dies_with_a_robust_one, SHORT_TIMEOUT)
{
	int *f = word(self->p, 512), tid = self->a.pid;

	if (variant->kind != TMPFS_PRIVATE && variant->kind != EXT4_PRIVATE)
		SKIP(return, "not a private mapping of a file");
	if (access("/bin/sleep", X_OK) ||
	    setting_set(&self->pattern, "/proc/sys/kernel/core_pattern",
			"|/bin/sleep 20"))
		SKIP(return, "no core dumps");
	ASSERT_EQ((ssize_t)sizeof(tid), pwrite(self->fd, &tid, sizeof(tid), 512));
	ASSERT_EQ(tid, *(volatile int *)f);
	ASSERT_OK(PEER(&self->a, do_claim, NULL, L(f)));
	ASSERT_EQ(0, PEER_SEND(&self->a, do_dump, NULL, 0));
	EXPECT_TRUE(WAIT_FOR(dumps(tid), 30));
	kill(tid, SIGKILL);
	EXPECT_EQ(-1, peer_wait(&self->a));
	peer_stop(&self->a);
	EXPECT_EQ(FUTEX_OWNER_DIED, *(volatile int *)f);
}

TEST_F(futex, where_nothing_is_mapped_or_allowed)
{
	int *none = word(self->addr, 5 * GB), *f = word(self->p, 512);
	struct timespec ts = { 0, 1000000 };

	EXPECT_ERR(EFAULT, futex(none, FUTEX_WAIT, 0, &ts, NULL, 0));
	EXPECT_ERR(EFAULT, futex(none, FUTEX_WAKE, 1, NULL, NULL, 0));
	ASSERT_OK(mprotect(self->p, LENGTH, PROT_NONE));
	EXPECT_ERR(EFAULT, futex(f, FUTEX_WAIT, 0, &ts, NULL, 0));
	EXPECT_ERR(EFAULT, futex(f, FUTEX_WAKE, 1, NULL, NULL, 0));
	ASSERT_OK(mprotect(self->p, LENGTH, PROT_READ));
	EXPECT_ERR(EFAULT, futex(f, FUTEX_LOCK_PI, 0, NULL, NULL, 0));
	EXPECT_ERR(EFAULT, PEER(&self->ro, do_futex, NULL, L(f), FUTEX_LOCK_PI, 0));
}

TEST_F(futex, requeue_and_wake_op)
{
	int *f = word(self->p, 512), *g = word(self->p, HUGE + 512);

	ASSERT_EQ(0, PEER_SEND(&self->a, do_wait, NULL, L(f), 0));
	WAIT_ASLEEP(self->a.pid, self->a.pid);
	EXPECT_TRUE(WAIT_FOR(futex(f, FUTEX_CMP_REQUEUE, 0, (void *)1, g, 0) == 1,
			     60));
	EXPECT_EQ(0, futex(f, FUTEX_WAKE, 1, NULL, NULL, 0));
	EXPECT_EQ(1, wake(g, 1));
	EXPECT_EQ(0, peer_wait(&self->a));

	/* On pages that have been given back and must be faulted in to write. */
	if (variant->kind == ANON_PRIVATE)
		ASSERT_OK(madvise(self->p, LENGTH, MADV_DONTNEED));
	ASSERT_EQ(0, PEER_SEND(&self->a, do_wait, NULL, L(f), 0));
	WAIT_ASLEEP(self->a.pid, self->a.pid);
	usleep(20000);
	EXPECT_EQ(1, futex(f, FUTEX_WAKE_OP, 1, (void *)1, g,
			   FUTEX_OP(FUTEX_OP_SET, 5, FUTEX_OP_CMP_EQ, 0)));
	EXPECT_EQ(5, try_read(g));
	EXPECT_EQ(0, peer_wait(&self->a));
}

TEST_F(futex, a_private_one_is_the_processs_own)
{
	int *f = word(self->p, 512);

	ASSERT_EQ(0, PEER_SEND(&self->a, do_wait, NULL, L(f), 0,
			       FUTEX_PRIVATE_FLAG));
	WAIT_ASLEEP(self->a.pid, self->a.pid);
	usleep(20000);
	EXPECT_EQ(0, futex(f, FUTEX_WAKE_PRIVATE, 1, NULL, NULL, 0));
	EXPECT_EQ(0, futex(f, FUTEX_WAKE, 1, NULL, NULL, 0));
	kill(self->a.pid, SIGKILL);
	EXPECT_EQ(-1, peer_wait(&self->a));
}

/* What the C library makes of it. */

struct objects {
	pthread_mutex_t mutex, robust, pi, robust_pi;
	pthread_cond_t cond;
	pthread_rwlock_t rwlock;
	pthread_barrier_t barrier;
	sem_t sem, back;
	volatile long count, turn, dying;
};

static int objects_init(struct objects *o)
{
	pthread_mutexattr_t m;
	pthread_condattr_t c;
	pthread_rwlockattr_t r;
	pthread_barrierattr_t b;
	int err = 0;

	pthread_mutexattr_init(&m);
	err |= pthread_mutexattr_setpshared(&m, PTHREAD_PROCESS_SHARED);
	err |= pthread_mutex_init(&o->mutex, &m);
	err |= pthread_mutexattr_setrobust(&m, PTHREAD_MUTEX_ROBUST);
	err |= pthread_mutex_init(&o->robust, &m);
	err |= pthread_mutexattr_setprotocol(&m, PTHREAD_PRIO_INHERIT);
	err |= pthread_mutex_init(&o->robust_pi, &m);
	err |= pthread_mutexattr_setrobust(&m, PTHREAD_MUTEX_STALLED);
	err |= pthread_mutex_init(&o->pi, &m);
	pthread_condattr_init(&c);
	err |= pthread_condattr_setpshared(&c, PTHREAD_PROCESS_SHARED);
	err |= pthread_cond_init(&o->cond, &c);
	pthread_rwlockattr_init(&r);
	err |= pthread_rwlockattr_setpshared(&r, PTHREAD_PROCESS_SHARED);
	err |= pthread_rwlock_init(&o->rwlock, &r);
	pthread_barrierattr_init(&b);
	err |= pthread_barrierattr_setpshared(&b, PTHREAD_PROCESS_SHARED);
	err |= pthread_barrier_init(&o->barrier, &b, 2);
	err |= sem_init(&o->sem, 1, 0);
	err |= sem_init(&o->back, 1, 0);
	return err;
}

/* Count under a lock; the yield in between makes the other one wait. */
static long count_mutex(struct objects *o, pthread_mutex_t *m, long n)
{
	long i, c;

	for (i = 0; i < n; i++) {
		if (pthread_mutex_lock(m))
			return -1;
		c = o->count;
		if (!(i % 4))
			sched_yield();
		o->count = c + 1;
		if (pthread_mutex_unlock(m))
			return -2;
	}
	return 0;
}

static long count_rwlock(struct objects *o, long n)
{
	long i, c;

	for (i = 0; i < n; i++) {
		if (pthread_rwlock_rdlock(&o->rwlock))
			return -1;
		pthread_rwlock_unlock(&o->rwlock);
		if (pthread_rwlock_wrlock(&o->rwlock))
			return -2;
		c = o->count;
		if (!(i % 4))
			sched_yield();
		o->count = c + 1;
		pthread_rwlock_unlock(&o->rwlock);
	}
	return 0;
}

/* Two take turns. */
static long take_turns(struct objects *o, long who, long n)
{
	long i;

	for (i = 0; i < n; i++) {
		pthread_mutex_lock(&o->mutex);
		while (o->turn != who)
			if (pthread_cond_wait(&o->cond, &o->mutex))
				return -1;
		o->turn = !who;
		o->count++;
		pthread_cond_broadcast(&o->cond);
		pthread_mutex_unlock(&o->mutex);
	}
	return 0;
}

static long meet(struct objects *o, long who, long n)
{
	long i;

	for (i = 0; i < n; i++) {
		if (who)
			o->count++;
		if (pthread_barrier_wait(&o->barrier) > 0)
			return -1;
		if (o->count != i + 1)
			return -2;
		if (pthread_barrier_wait(&o->barrier) > 0)
			return -3;
	}
	return 0;
}

static long ping_pong(struct objects *o, long who, long n)
{
	long i;

	for (i = 0; i < n; i++) {
		if (who)
			sem_post(&o->sem);
		if (sem_wait(who ? &o->back : &o->sem))
			return -1;
		if (!who)
			sem_post(&o->back);
	}
	return 0;
}

enum { MUTEX, PI_MUTEX, ROBUST_MUTEX, ROBUST_PI_MUTEX, RWLOCK, COND, BARRIER,
       SEM, NR_OBJECTS };

static long work(struct objects *o, int what, long who, long n)
{
	switch (what) {
	case MUTEX:
		return count_mutex(o, &o->mutex, n);
	case PI_MUTEX:
		return count_mutex(o, &o->pi, n);
	case ROBUST_MUTEX:
		return count_mutex(o, &o->robust, n);
	case ROBUST_PI_MUTEX:
		return count_mutex(o, &o->robust_pi, n);
	case RWLOCK:
		return count_rwlock(o, n);
	case COND:
		return take_turns(o, who, n);
	case BARRIER:
		return meet(o, who, n);
	default:
		return ping_pong(o, who, n);
	}
}

static long do_work(const struct request *rq)
{
	return work((struct objects *)rq->a[0], rq->a[1], rq->a[2], rq->a[3]);
}

TEST_F(futex, what_the_c_library_makes_of_it)
{
	struct objects *o = self->p;
	long n = scaled(1000), i;

	ASSERT_EQ(0, objects_init(o));
	for (i = 0; i < NR_OBJECTS; i++) {
		o->count = o->turn = 0;
		ASSERT_EQ(0, PEER_SEND(&self->a, do_work, NULL, L(o), i, 0, n));
		EXPECT_EQ(0, work(o, i, 1, n));
		EXPECT_EQ(0, peer_wait(&self->a));
		switch (i) {
		case BARRIER:
			EXPECT_EQ(n, o->count);
			break;
		case SEM:
			break;
		default:
			EXPECT_EQ(2 * n, o->count);
		}
	}
}

static long do_die_with(const struct request *rq)
{
	struct objects *o = (struct objects *)rq->a[0];

	if (pthread_mutex_lock(rq->a[1] ? &o->robust_pi : &o->robust))
		return -1;
	o->dying = getpid();
	pause();
	return 0;
}

static void *kill_later(void *arg)
{
	struct objects *o = arg;

	/* The other thread is to wait for the lock, but need not. */
	usleep(50000);
	kill(o->dying, SIGKILL);
	return NULL;
}

TEST_F(futex, the_owner_of_a_robust_mutex_dies)
{
	struct objects *o = self->p;
	pthread_mutex_t *m;
	pthread_t t;
	int i;

	ASSERT_EQ(0, objects_init(o));
	for (i = 0; i < 2; i++) {
		m = i ? &o->robust_pi : &o->robust;
		o->dying = 0;
		peer_stop(&self->a);
		ASSERT_EQ(0, peer_start(&self->a));
		/* The new one was forked from us, and is attached. */
		ASSERT_EQ(0, PEER_SEND(&self->a, do_die_with, NULL, L(o), i));
		ASSERT_TRUE(WAIT_FOR(o->dying, 60));
		EXPECT_EQ(EBUSY, pthread_mutex_trylock(m));
		ASSERT_EQ(0, pthread_create(&t, NULL, kill_later, o));
		EXPECT_EQ(EOWNERDEAD, pthread_mutex_lock(m));
		EXPECT_EQ(0, pthread_mutex_consistent(m));
		EXPECT_EQ(0, pthread_mutex_unlock(m));
		EXPECT_EQ(0, pthread_mutex_lock(m));
		EXPECT_EQ(0, pthread_mutex_unlock(m));
		pthread_join(t, NULL);
	}
}

/* Memory that becomes a region while threads sleep on futexes in it. */

FIXTURE(adopt)
{
	const char *name;
	void *addr;
	size_t len;
	struct peer a;
};

FIXTURE_SETUP(adopt)
{
	NOT_ELSEWHERE();
	self->name = new_name();
	self->addr = slot(0);
	self->len = granule();
	ASSERT_EQ(0, peer_start(&self->a));
	ASSERT_OK(map_anon(self->addr, HUGE, MAP_PRIVATE));
}

FIXTURE_TEARDOWN(adopt)
{
	peer_stop(&self->a);
	munmap(self->addr, self->len);
	remove_names();
}

struct sleeper {
	int *f, *g;
	int op;
	long val;
	int seconds;		/* until it gives up, 0 for long */
	pthread_t t;
	atomic_int tid;
	long ret;
	int err;
};

static void *sleeper(void *arg)
{
	struct sleeper *s = arg;
	struct timespec ts = { 60, 0 }, abs;

	clock_gettime(CLOCK_MONOTONIC, &abs);
	abs.tv_sec += s->seconds ? : 60;
	atomic_store(&s->tid, syscall(SYS_gettid));
	if (s->op == -1) {
		struct futex_waitv w[2] = {
			{ .val = 0, .uaddr = (unsigned long)s->g,
			  .flags = FUTEX_32 },
			{ .val = 0, .uaddr = (unsigned long)s->f,
			  .flags = FUTEX_32 },
		};

		s->ret = syscall(__NR_futex_waitv, w, 2, 0, &abs, CLOCK_MONOTONIC);
	} else {
		s->ret = futex(s->f, s->op, s->val,
			       s->op == FUTEX_WAIT ? (void *)&ts :
			       s->op == FUTEX_LOCK_PI ? NULL : (void *)&abs,
			       s->g, FUTEX_BITSET_MATCH_ANY);
	}
	s->err = s->ret < 0 ? errno : 0;
	if (s->op == FUTEX_LOCK_PI && !s->ret)
		s->err = futex(s->f, FUTEX_UNLOCK_PI, 0, NULL, NULL, 0) ? errno : 0;
	if (s->op == FUTEX_WAIT_REQUEUE_PI && !s->ret)
		s->err = futex(s->g, FUTEX_UNLOCK_PI, 0, NULL, NULL, 0) ? errno : 0;
	return NULL;
}

static int sleeper_start_for(struct sleeper *s, int *f, int op, long val,
			     int *g, int seconds)
{
	*s = (struct sleeper){ .f = f, .g = g, .op = op, .val = val,
			       .seconds = seconds };
	if (pthread_create(&s->t, NULL, sleeper, s))
		return -1;
	if (!WAIT_FOR(atomic_load(&s->tid) && sleeps(getpid(), s->tid), 60))
		return -1;
	/* In the call is not yet asleep. */
	usleep(20000);
	return 0;
}

static int sleeper_start(struct sleeper *s, int *f, int op, long val, int *g)
{
	return sleeper_start_for(s, f, op, val, g, 0);
}

TEST_F(adopt, sleepers_are_woken_by_who_attaches)
{
	struct sleeper s[4];
	int *f = word(self->addr, 64);
	int i;

	ASSERT_EQ(0, sleeper_start(&s[0], f, FUTEX_WAIT, 0, NULL));
	ASSERT_EQ(0, sleeper_start(&s[1], f, FUTEX_WAIT, 0, NULL));
	ASSERT_EQ(0, sleeper_start(&s[2], f + 1, -1, 0, f + 2));
	ASSERT_EQ(0, sleeper_start(&s[3], f, FUTEX_WAIT_PRIVATE, 0, NULL));
	ASSERT_OK(create(self->name, self->addr, self->len));
	ASSERT_OK(peer_attach(&self->a, self->name));
	EXPECT_EQ(2, PEER(&self->a, do_wake, NULL, L(f), 5));
	EXPECT_EQ(1, PEER(&self->a, do_wake, NULL, L(f + 1), 5));
	EXPECT_EQ(1, futex(f, FUTEX_WAKE_PRIVATE, 5, NULL, NULL, 0));
	for (i = 0; i < 4; i++) {
		pthread_join(s[i].t, NULL);
		EXPECT_EQ(i == 2 ? 1 : 0, s[i].ret);
	}
}

TEST_F(adopt, other_sleepers_and_failed_creations)
{
	int *f = word(self->addr, 64), *out;
	struct sleeper s[2];

	out = mmap(NULL, page(), RW, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	ASSERT_EQ(0, sleeper_start(&s[0], f, FUTEX_WAIT, 0, NULL));
	ASSERT_EQ(0, sleeper_start(&s[1], out, FUTEX_WAIT, 0, NULL));
	/* A stack cannot be shared. */
	ASSERT_NE(MAP_FAILED, mmap(at(self->addr, GB), page(), RW, MAP_PRIVATE |
				   MAP_ANONYMOUS | MAP_FIXED | MAP_GROWSDOWN,
				   -1, 0));
	EXPECT_ERR(EINVAL, create(self->name, self->addr, self->len));
	EXPECT_EQ(1, futex(f, FUTEX_WAKE, 1, NULL, NULL, 0));
	pthread_join(s[0].t, NULL);

	ASSERT_EQ(0, sleeper_start(&s[0], f, FUTEX_WAIT, 0, NULL));
	ASSERT_OK(munmap(at(self->addr, GB), page()));
	ASSERT_OK(create(self->name, self->addr, self->len));
	EXPECT_EQ(1, futex(out, FUTEX_WAKE, 1, NULL, NULL, 0));
	EXPECT_EQ(1, futex(f, FUTEX_WAKE, 1, NULL, NULL, 0));
	pthread_join(s[0].t, NULL);
	pthread_join(s[1].t, NULL);
	munmap(out, page());
}

static long do_lock_pi(const struct request *rq)
{
	int *f = (int *)rq->a[0];

	if (futex(f, FUTEX_LOCK_PI, 0, NULL, NULL, 0))
		return -1;
	return futex(f, FUTEX_UNLOCK_PI, 0, NULL, NULL, 0);
}

TEST_F(adopt, waiters_for_a_pi_futex)
{
	int *f = word(self->addr, 64);
	struct sleeper s[2];
	int i;

	ASSERT_OK(futex(f, FUTEX_LOCK_PI, 0, NULL, NULL, 0));
	ASSERT_EQ(0, sleeper_start(&s[0], f, FUTEX_LOCK_PI, 0, NULL));
	ASSERT_OK(create(self->name, self->addr, self->len));
	ASSERT_EQ(0, sleeper_start(&s[1], f, FUTEX_LOCK_PI, 0, NULL));
	ASSERT_OK(peer_attach(&self->a, self->name));
	ASSERT_EQ(0, PEER_SEND(&self->a, do_lock_pi, NULL, L(f)));
	WAIT_ASLEEP(self->a.pid, self->a.pid);
	usleep(20000);
	EXPECT_OK(futex(f, FUTEX_UNLOCK_PI, 0, NULL, NULL, 0));
	EXPECT_EQ(0, peer_wait(&self->a));
	for (i = 0; i < 2; i++) {
		pthread_join(s[i].t, NULL);
		EXPECT_EQ(0, s[i].ret);
		EXPECT_EQ(0, s[i].err);
	}
	EXPECT_EQ(0, *f);
}

static void *lock_and_exit(void *arg)
{
	int *f = arg;

	if (futex(f, FUTEX_LOCK_PI, 0, NULL, NULL, 0))
		return (void *)1;
	while (!__atomic_load_n(&f[1], __ATOMIC_ACQUIRE))
		usleep(1000);
	return NULL;
}

TEST_F(adopt, the_owner_of_a_pi_futex_exits)
{
	int *f = word(self->addr, 64);
	struct sleeper s;
	pthread_t t;
	void *ret;

	ASSERT_EQ(0, pthread_create(&t, NULL, lock_and_exit, f));
	ASSERT_TRUE(WAIT_FOR(__atomic_load_n(f, __ATOMIC_ACQUIRE), 60));
	ASSERT_EQ(0, sleeper_start(&s, f, FUTEX_LOCK_PI, 0, NULL));
	ASSERT_OK(create(self->name, self->addr, self->len));
	f[1] = 1;
	pthread_join(t, &ret);
	EXPECT_EQ(NULL, ret);
	/* Without a robust list it is the kernel that hands it on. */
	pthread_join(s.t, NULL);
	EXPECT_EQ(0, s.ret);
	EXPECT_EQ(0, s.err);
}

TEST_F(adopt, waiters_that_are_to_be_requeued)
{
	int *f = word(self->addr, 64), *g = word(self->addr, page() + 64);
	struct sleeper s[2];
	int i;

	/* One is requeued before, one after, and one falls asleep again. */
	ASSERT_EQ(0, sleeper_start(&s[0], f, FUTEX_WAIT_REQUEUE_PI, 0, g));
	ASSERT_OK(futex(g, FUTEX_LOCK_PI, 0, NULL, NULL, 0));
	ASSERT_EQ(1, futex(f, FUTEX_CMP_REQUEUE_PI, 1, (void *)0, g, 0));
	ASSERT_EQ(0, sleeper_start(&s[1], f, FUTEX_WAIT_REQUEUE_PI, 0, g));
	ASSERT_OK(create(self->name, self->addr, self->len));
	EXPECT_EQ(1, futex(f, FUTEX_CMP_REQUEUE_PI, 1, (void *)4, g, 0));
	EXPECT_OK(futex(g, FUTEX_UNLOCK_PI, 0, NULL, NULL, 0));
	for (i = 0; i < 2; i++) {
		pthread_join(s[i].t, NULL);
		EXPECT_EQ(0, s[i].ret);
		EXPECT_EQ(0, s[i].err);
	}
	EXPECT_EQ(0, *g);
}

/* Who gives up takes itself off the queue, wherever that is by now. */
TEST_F(adopt, waiters_that_give_up)
{
	int *f = word(self->addr, 64), *g = word(self->addr, page() + 64);
	struct sleeper s[4];
	unsigned int i;

	ASSERT_OK(futex(g, FUTEX_LOCK_PI, 0, NULL, NULL, 0));
	ASSERT_EQ(0, sleeper_start_for(&s[0], f, FUTEX_WAIT_REQUEUE_PI, 0, g, 5));
	ASSERT_EQ(1, futex(f, FUTEX_CMP_REQUEUE_PI, 1, (void *)0, g, 0));
	ASSERT_EQ(0, sleeper_start_for(&s[1], f, FUTEX_WAIT_REQUEUE_PI, 0, g, 5));
	ASSERT_EQ(0, sleeper_start_for(&s[2], f, FUTEX_WAIT_BITSET, 0, NULL, 5));
	ASSERT_EQ(0, sleeper_start_for(&s[3], f + 1, -1, 0, f + 2, 5));
	ASSERT_OK(create(self->name, self->addr, self->len));
	for (i = 0; i < 4; i++) {
		pthread_join(s[i].t, NULL);
		EXPECT_EQ(-1, s[i].ret);
		EXPECT_EQ(ETIMEDOUT, s[i].err);
	}
	EXPECT_EQ(0, futex(f, FUTEX_WAKE, 5, NULL, NULL, 0));
	EXPECT_EQ(0, futex(f + 1, FUTEX_WAKE, 5, NULL, NULL, 0));
	EXPECT_OK(futex(g, FUTEX_UNLOCK_PI, 0, NULL, NULL, 0));
}

struct worker {
	struct objects *o;
	int what;
	long who, n, ret;
	pthread_t t;
};

static void *worker(void *arg)
{
	struct worker *w = arg;

	w->ret = work(w->o, w->what, w->who, w->n);
	return NULL;
}

/* No wake-up is lost and no lock taken twice, whenever it happens. */
TEST_F(adopt, threads_at_work)
{
	static const int what[] = { MUTEX, PI_MUTEX, COND, SEM };
	long rounds = scaled(25), n = scaled(150), i;
	struct objects *o = self->addr;
	struct worker w[2];
	unsigned int j, k;

	for (i = 0; i < rounds; i++) {
		for (j = 0; j < 4; j++) {
			ASSERT_OK(map_anon(self->addr, HUGE, MAP_PRIVATE));
			ASSERT_EQ(0, objects_init(o));
			for (k = 0; k < 2; k++) {
				w[k] = (struct worker){ o, what[j], k, n };
				ASSERT_EQ(0, pthread_create(&w[k].t, NULL,
							    worker, &w[k]));
			}
			usleep(i % 5 * 200);
			EXPECT_OK(create(self->name, self->addr, self->len));
			for (k = 0; k < 2; k++) {
				pthread_join(w[k].t, NULL);
				EXPECT_EQ(0, w[k].ret);
			}
			if (what[j] != SEM)
				EXPECT_EQ(2 * n, o->count);
			ASSERT_OK(mshare_unlink(self->name));
		}
	}
}

MSHARE_TEST_MAIN
