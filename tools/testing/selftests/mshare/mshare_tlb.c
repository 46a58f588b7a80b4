// SPDX-License-Identifier: GPL-2.0
/*
 * Stale translations: after a change to a region no CPU may go on with what it
 * remembers, wherever the process runs, sleeps or waits; and CPUs that run no
 * attached process are left in peace.
 *
 * The spinning process reads "after" before each access, and who makes the
 * change sets it when the call has returned. So an access that succeeds with
 * "after" set is proof that a translation outlived the call.
 */
#include "mshare_env.h"

#define RW	(PROT_READ | PROT_WRITE)

enum op { OP_MUNMAP, OP_PROT_NONE, OP_PROT_READ, OP_REPLACE, OP_TRUNCATE,
	  OP_PUNCH, OP_DETACH, OP_COVER, OP_UNLINK };

struct ctl {
	atomic_int stop;
	atomic_int after;
	atomic_int migrate;
	atomic_long beat;
	atomic_long stale;
	atomic_long ended;
};

static struct ctl *new_ctl(void)
{
	return mmap(NULL, page(), RW, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
}

/* Accesses @p until it gets a signal or is stopped; returns the signal. */
static long spin(struct ctl *c, volatile unsigned char *p, bool write, int allowed)
{
	volatile long n = 0;
	int after, cpu = 0;
	unsigned char v;

	if (sigsetjmp(probe_env, 0)) {
		atomic_store(&c->ended, 1);
		return FAULT(probe_sig, probe_code);
	}
	probing = 1;
	while (!atomic_load(&c->stop)) {
		after = atomic_load(&c->after);
		if (write)
			*p = 0x11;
		v = *p;
		/* @allowed is what a replaced page holds, -1 if none may be. */
		if (after && (allowed < 0 || v != (write ? 0x11 : allowed)))
			atomic_fetch_add(&c->stale, 1);
		atomic_fetch_add(&c->beat, 1);
		n++;
		if (atomic_load(&c->migrate) && !(n & 63)) {
			cpu ^= 1;
			pin(cpu);
		}
	}
	probing = 0;
	return 0;
}

static long do_spin(const struct request *rq)
{
	return spin((void *)rq->a[0], (void *)rq->a[1], rq->a[2], rq->a[3]);
}

static long do_busy(const struct request *rq)
{
	struct ctl *c = (void *)rq->a[0];

	while (!atomic_load(&c->stop))
		atomic_fetch_add(&c->beat, 1);
	return 0;
}

FIXTURE(stale)
{
	const char *name;
	void *addr, *p;
	size_t len;
	struct ctl *c, *idle;
	int fd;
	struct peer a, other;
};

FIXTURE_VARIANT(stale)
{
	enum op op;
	bool write;
	int signal;		/* what the access gets then */
	int byte;		/* or what it reads, if there is no signal */
};

FIXTURE_VARIANT_ADD(stale, read_unmapped) {
	.op = OP_MUNMAP, .signal = SIGBUS, .byte = -1 };
FIXTURE_VARIANT_ADD(stale, write_unmapped) {
	.op = OP_MUNMAP, .write = true, .signal = SIGBUS, .byte = -1 };
FIXTURE_VARIANT_ADD(stale, read_protected) {
	.op = OP_PROT_NONE, .signal = SIGSEGV, .byte = -1 };
FIXTURE_VARIANT_ADD(stale, write_protected) {
	.op = OP_PROT_READ, .write = true, .signal = SIGSEGV, .byte = -1 };
FIXTURE_VARIANT_ADD(stale, read_replaced) {
	.op = OP_REPLACE, .byte = 0 };
FIXTURE_VARIANT_ADD(stale, read_truncated) {
	.op = OP_TRUNCATE, .signal = SIGBUS, .byte = -1 };
FIXTURE_VARIANT_ADD(stale, write_truncated) {
	.op = OP_TRUNCATE, .write = true, .signal = SIGBUS, .byte = -1 };
FIXTURE_VARIANT_ADD(stale, read_punched) {
	.op = OP_PUNCH, .byte = 0 };

FIXTURE_SETUP(stale)
{
	self->name = new_name();
	self->addr = slot(0);
	self->len = granule();
	self->p = at(self->addr, GB + 5 * page());
	self->c = new_ctl();
	self->idle = new_ctl();
	self->fd = memfd_create("mshare", 0);
	ASSERT_LE(0, self->fd);
	ASSERT_EQ(0, peer_start(&self->a));
	ASSERT_EQ(0, peer_start(&self->other));	/* is never attached */
	ASSERT_OK(create(self->name, self->addr, self->len));
	ASSERT_OK(peer_attach(&self->a, self->name));
	ASSERT_OK(pin(0));
}

FIXTURE_TEARDOWN(stale)
{
	peer_stop(&self->a);
	peer_stop(&self->other);
	munmap(self->addr, self->len);
	close(self->fd);
	remove_names();
}

#define NEED_CPUS(_n) do {						\
	if (nr_cpus() < (_n))						\
		SKIP(return, "needs %d CPUs", _n);			\
} while (0)

/* A page at @p with 0x11 in it. */
static int prepare(int fd, enum op op, void *p)
{
	if (op == OP_TRUNCATE || op == OP_PUNCH) {
		if (ftruncate(fd, page()) ||
		    mmap(p, page(), RW, MAP_SHARED | MAP_FIXED, fd, 0) != p)
			return -1;
	} else if (map_anon(p, page(), MAP_PRIVATE) != p) {
		return -1;
	}
	return try_write(p, 0x11) ? -1 : 0;
}

static int change(int fd, enum op op, void *p)
{
	switch (op) {
	case OP_MUNMAP:
		return munmap(p, page());
	case OP_PROT_NONE:
		return mprotect(p, page(), PROT_NONE);
	case OP_PROT_READ:
		return mprotect(p, page(), PROT_READ);
	case OP_REPLACE:
		return map_anon(p, page(), MAP_PRIVATE) == p ? 0 : -1;
	case OP_TRUNCATE:
		return ftruncate(fd, 0);
	case OP_PUNCH:
		return fallocate(fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 0,
				 page());
	default:
		return -1;
	}
}

/* What the access after the change gets. */
static void expect_changed(struct __test_metadata *_metadata,
			   const FIXTURE_VARIANT(stale) *variant, long got)
{
	if (variant->signal) {
		ASSERT_EQ(variant->signal, fault_sig(got));
	} else {
		ASSERT_EQ(variant->byte, got);
	}
}

/* One round with the process running at @cpu, or moving between two. */
static void spin_round(struct __test_metadata *_metadata,
		       FIXTURE_DATA(stale) *self,
		       const FIXTURE_VARIANT(stale) *variant, int cpu)
{
	struct ctl *c = self->c;
	long beat, got;

	ASSERT_EQ(0, prepare(self->fd, variant->op, self->p));
	atomic_store(&c->stop, 0);
	atomic_store(&c->after, 0);
	atomic_store(&c->ended, 0);
	atomic_store(&c->migrate, cpu < 0);
	ASSERT_OK(peer_pin(&self->a, cpu < 0 ? 1 : cpu));
	beat = atomic_load(&c->beat);
	PEER_SEND(&self->a, do_spin, NULL, L(c), L(self->p), variant->write,
		  variant->byte);
	ASSERT_TRUE(WAIT_FOR(atomic_load(&c->beat) > beat + 100, 20));
	ASSERT_EQ(0, change(self->fd, variant->op, self->p));
	atomic_store(&c->after, 1);
	if (variant->signal) {
		ASSERT_TRUE(WAIT_FOR(atomic_load(&c->ended), 20)) {
			TH_LOG("the process goes on with a stale translation");
		}
	} else {
		beat = atomic_load(&c->beat);
		ASSERT_TRUE(WAIT_FOR(atomic_load(&c->beat) > beat + 100, 20));
		atomic_store(&c->stop, 1);
	}
	got = peer_wait(&self->a);
	EXPECT_EQ(0, atomic_load(&c->stale)) {
		TH_LOG("%ld accesses through a stale translation",
		       atomic_load(&c->stale));
	}
	if (variant->signal) {
		ASSERT_EQ(variant->signal, fault_sig(got));
	} else {
		ASSERT_EQ(0, got);
	}
}

TEST_F_TIMEOUT(stale, on_another_cpu, LONG_TIMEOUT)
{
	long rounds = scaled(30), i;

	NEED_CPUS(2);
	for (i = 0; i < rounds; i++)
		spin_round(_metadata, self, variant, 1);
}

TEST_F_TIMEOUT(stale, preempted_on_the_same_cpu, LONG_TIMEOUT)
{
	long rounds = scaled(10), i;

	for (i = 0; i < rounds; i++)
		spin_round(_metadata, self, variant, 0);
}

TEST_F_TIMEOUT(stale, moving_between_cpus, LONG_TIMEOUT)
{
	long rounds = scaled(20), i;

	NEED_CPUS(2);
	for (i = 0; i < rounds; i++)
		spin_round(_metadata, self, variant, -1);
}

/* It waits for the next request; nothing else runs there: a lazy CPU. */
TEST_F_TIMEOUT(stale, asleep_on_an_idle_cpu, SHORT_TIMEOUT)
{
	long rounds = scaled(50), i;

	NEED_CPUS(2);
	ASSERT_OK(peer_pin(&self->a, 1));
	for (i = 0; i < rounds; i++) {
		ASSERT_EQ(0, prepare(self->fd, variant->op, self->p));
		ASSERT_EQ(0x11, peer_read(&self->a, self->p));
		ASSERT_EQ(0, peer_write(&self->a, self->p, 0x11));
		if (i & 1)
			usleep(2000);
		ASSERT_EQ(0, change(self->fd, variant->op, self->p));
		expect_changed(_metadata, variant, variant->write ?
			       peer_write(&self->a, self->p, 1) :
			       peer_read(&self->a, self->p));
	}
}

/* It waits, and a process that has nothing to do with the region runs there. */
TEST_F_TIMEOUT(stale, switched_out_for_a_stranger, SHORT_TIMEOUT)
{
	long rounds = scaled(20), i, beat;

	NEED_CPUS(2);
	ASSERT_OK(peer_pin(&self->a, 1));
	ASSERT_OK(peer_pin(&self->other, 1));
	PEER_SEND(&self->other, do_busy, NULL, L(self->idle));
	for (i = 0; i < rounds; i++) {
		ASSERT_EQ(0, prepare(self->fd, variant->op, self->p));
		ASSERT_EQ(0x11, peer_read(&self->a, self->p));
		ASSERT_EQ(0, peer_write(&self->a, self->p, 0x11));
		beat = atomic_load(&self->idle->beat);
		ASSERT_TRUE(WAIT_FOR(atomic_load(&self->idle->beat) > beat, 20));
		ASSERT_EQ(0, change(self->fd, variant->op, self->p));
		expect_changed(_metadata, variant, variant->write ?
			       peer_write(&self->a, self->p, 1) :
			       peer_read(&self->a, self->p));
	}
	atomic_store(&self->idle->stop, 1);
	EXPECT_EQ(0, peer_wait(&self->other));
}

struct spin_thread {
	struct ctl *c;
	void *p;
	bool write;
	int byte;
	long got;
};

static void *spin_thread(void *arg)
{
	struct spin_thread *t = arg;

	pin(1);
	t->got = spin(t->c, t->p, t->write, t->byte);
	return NULL;
}

/* The process that makes the change is the one that runs elsewhere, too. */
TEST_F_TIMEOUT(stale, in_a_thread_of_the_process_that_changes, LONG_TIMEOUT)
{
	struct spin_thread t = {
		.c = self->c, .p = self->p, .write = variant->write,
		.byte = variant->byte,
	};
	long rounds = scaled(20), i, beat;
	struct ctl *c = self->c;
	pthread_t thread;

	NEED_CPUS(2);
	for (i = 0; i < rounds; i++) {
		ASSERT_EQ(0, prepare(self->fd, variant->op, self->p));
		atomic_store(&c->stop, 0);
		atomic_store(&c->after, 0);
		atomic_store(&c->ended, 0);
		beat = atomic_load(&c->beat);
		ASSERT_EQ(0, pthread_create(&thread, NULL, spin_thread, &t));
		ASSERT_TRUE(WAIT_FOR(atomic_load(&c->beat) > beat + 100, 20));
		ASSERT_EQ(0, change(self->fd, variant->op, self->p));
		atomic_store(&c->after, 1);
		if (variant->signal) {
			ASSERT_TRUE(WAIT_FOR(atomic_load(&c->ended), 20));
		} else {
			beat = atomic_load(&c->beat);
			ASSERT_TRUE(WAIT_FOR(atomic_load(&c->beat) > beat + 100, 20));
			atomic_store(&c->stop, 1);
		}
		ASSERT_EQ(0, pthread_join(thread, NULL));
		ASSERT_EQ(0, atomic_load(&c->stale));
		ASSERT_EQ(variant->signal, fault_sig(t.got));
	}
}

/* The CPU that makes the change has translations of its own. */
TEST_F_TIMEOUT(stale, on_the_cpu_that_changes, SHORT_TIMEOUT)
{
	long rounds = scaled(100), i;

	for (i = 0; i < rounds; i++) {
		ASSERT_EQ(0, prepare(self->fd, variant->op, self->p));
		ASSERT_EQ(0x11, try_read(self->p));
		ASSERT_EQ(0, change(self->fd, variant->op, self->p));
		expect_changed(_metadata, variant, variant->write ?
			       try_write(self->p, 1) : try_read(self->p));
	}
}

/* Detaching: the process's own entries go, and with them all below. */

FIXTURE(detach)
{
	const char *name, *second;
	void *addr;
	size_t len;
	struct ctl *c, *c2;
	struct peer a;
};

FIXTURE_VARIANT(detach)
{
	enum op op;
};

FIXTURE_VARIANT_ADD(detach, munmap) { .op = OP_DETACH };
FIXTURE_VARIANT_ADD(detach, map_over) { .op = OP_COVER };
FIXTURE_VARIANT_ADD(detach, unlink) { .op = OP_UNLINK };

FIXTURE_SETUP(detach)
{
	self->name = new_name();
	self->second = new_name();
	self->addr = slot(0);
	self->len = granule();
	self->c = new_ctl();
	self->c2 = new_ctl();
	ASSERT_EQ(0, peer_start(&self->a));
	ASSERT_OK(peer_create(&self->a, self->name, self->addr, self->len));
	ASSERT_EQ(self->addr, peer_mmap(&self->a, self->addr, page(), RW,
					MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED,
					-1, 0));
	ASSERT_EQ(0, peer_write(&self->a, self->addr, 0x11));
	ASSERT_OK(pin(0));
}

FIXTURE_TEARDOWN(detach)
{
	peer_stop(&self->a);
	remove_names();
}

static int detach(enum op op, const char *name, void *addr, size_t len)
{
	switch (op) {
	case OP_DETACH:
		return munmap(addr, len);
	case OP_COVER:
		return mmap(addr, len, RW, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED |
			    MAP_NORESERVE, -1, 0) == addr ? 0 : -1;
	case OP_UNLINK:
		return mshare_unlink(name);
	default:
		return -1;
	}
}

TEST_F_TIMEOUT(detach, a_running_thread_loses_the_region, LONG_TIMEOUT)
{
	bool cover = variant->op == OP_COVER;
	struct spin_thread t = {
		.c = self->c, .p = self->addr, .byte = cover ? 0 : -1,
	};
	long rounds = scaled(30), i, beat;
	struct ctl *c = self->c;
	pthread_t thread;

	NEED_CPUS(2);
	for (i = 0; i < rounds; i++) {
		t.write = i & 1 && !cover;
		ASSERT_OK(attach(self->name));
		atomic_store(&c->stop, 0);
		atomic_store(&c->after, 0);
		atomic_store(&c->ended, 0);
		beat = atomic_load(&c->beat);
		ASSERT_EQ(0, pthread_create(&thread, NULL, spin_thread, &t));
		ASSERT_TRUE(WAIT_FOR(atomic_load(&c->beat) > beat + 100, 20));
		ASSERT_EQ(0, detach(variant->op, self->name, self->addr, self->len));
		atomic_store(&c->after, 1);
		if (cover) {
			beat = atomic_load(&c->beat);
			ASSERT_TRUE(WAIT_FOR(atomic_load(&c->beat) > beat + 100, 20));
			atomic_store(&c->stop, 1);
		} else {
			ASSERT_TRUE(WAIT_FOR(atomic_load(&c->ended), 20)) {
				TH_LOG("the thread still reaches the region");
			}
		}
		ASSERT_EQ(0, pthread_join(thread, NULL));
		ASSERT_EQ(0, atomic_load(&c->stale));
		if (cover) {
			/* What was written after is the process's own. */
			ASSERT_EQ(0, t.got);
			ASSERT_EQ(0, try_write(self->addr, 0x77));
			ASSERT_OK(munmap(self->addr, self->len));
		} else {
			ASSERT_EQ(FAULT(SIGSEGV, SEGV_MAPERR), t.got);
		}
		ASSERT_EQ(0x11, peer_read(&self->a, self->addr));
	}
}

/* Another process, and another region of the same process, go on. */
TEST_F_TIMEOUT(detach, others_go_on, SHORT_TIMEOUT)
{
	struct spin_thread t = { .c = self->c2, .p = slot(4), .byte = 0x11 };
	long rounds = scaled(50), i;
	pthread_t thread;

	NEED_CPUS(2);
	ASSERT_OK(create(self->second, slot(4), self->len));
	ASSERT_OK(map_anon(slot(4), page(), MAP_SHARED));
	ASSERT_EQ(0, try_write(slot(4), 0x11));
	PEER_SEND(&self->a, do_spin, NULL, L(self->c), L(self->addr), 0, 0x11);
	atomic_store(&self->c->after, 1);
	atomic_store(&self->c2->after, 1);
	ASSERT_EQ(0, pthread_create(&thread, NULL, spin_thread, &t));
	ASSERT_TRUE(WAIT_FOR(atomic_load(&self->c->beat) > 100 &&
			     atomic_load(&self->c2->beat) > 100, 20));
	for (i = 0; i < rounds; i++) {
		ASSERT_OK(attach(self->name));
		ASSERT_EQ(0x11, try_read(self->addr));
		ASSERT_EQ(0, detach(variant->op, self->name, self->addr, self->len));
		if (variant->op == OP_COVER) {
			ASSERT_OK(munmap(self->addr, self->len));
		}
	}
	ASSERT_FALSE(atomic_load(&self->c->ended));
	ASSERT_FALSE(atomic_load(&self->c2->ended));
	atomic_store(&self->c->stop, 1);
	atomic_store(&self->c2->stop, 1);
	EXPECT_EQ(0, peer_wait(&self->a));
	pthread_join(thread, NULL);
	EXPECT_EQ(0, t.got);
	EXPECT_EQ(0, atomic_load(&self->c->stale));
	EXPECT_EQ(0, atomic_load(&self->c2->stale));
}

/* Attaching: what the process knew about the addresses before does not count. */
TEST_F_TIMEOUT(detach, attaching_again_shows_the_region, SHORT_TIMEOUT)
{
	long rounds = scaled(100), i;

	for (i = 0; i < rounds; i++) {
		ASSERT_EQ(self->addr, map_anon(self->addr, page(), MAP_PRIVATE));
		ASSERT_EQ(0, try_write(self->addr, 0x22));
		ASSERT_OK(munmap(self->addr, page()));
		ASSERT_EQ(FAULT(SIGSEGV, SEGV_MAPERR), try_read(self->addr));
		ASSERT_OK(attach(self->name));
		ASSERT_EQ(0x11, try_read(self->addr));
		ASSERT_EQ(0, detach(variant->op, self->name, self->addr, self->len));
		if (variant->op == OP_COVER) {
			ASSERT_EQ(0, try_read(self->addr));
			ASSERT_OK(munmap(self->addr, self->len));
		}
	}
}

/* Pages that were freed belong to someone else. */

FIXTURE(reuse)
{
	const char *name;
	void *addr;
	size_t len;
	struct ctl *c;
	struct peer a;
};

FIXTURE_SETUP(reuse)
{
	self->name = new_name();
	self->addr = slot(0);
	self->len = granule();
	self->c = new_ctl();
	ASSERT_EQ(0, peer_start(&self->a));
	ASSERT_OK(create(self->name, self->addr, self->len));
	ASSERT_OK(peer_attach(&self->a, self->name));
	ASSERT_OK(pin(0));
	ASSERT_OK(peer_pin(&self->a, nr_cpus() > 1));
}

FIXTURE_TEARDOWN(reuse)
{
	peer_stop(&self->a);
	munmap(self->addr, self->len);
	remove_names();
}

/* Writes 0x11 to the page whenever it is there; tells what else it saw. */
static long do_write_always(const struct request *rq)
{
	struct ctl *c = (void *)rq->a[0];
	void *p = (void *)rq->a[1];
	long r;

	while (!atomic_load(&c->stop)) {
		r = try_read(p);
		if (r == 0x55)
			atomic_fetch_add(&c->stale, 1);
		if (!try_write(p, 0x11))
			atomic_fetch_add(&c->beat, 1);
	}
	return 0;
}

TEST_F_TIMEOUT(reuse, freed_pages_are_neither_read_nor_written, LONG_TIMEOUT)
{
	const size_t n = 32;
	long rounds = scaled(60), round, beat, i, wrong = 0;
	/* One after another, so that page-table pages are freed as well. */
	void *p = at(self->addr, 3 * GB);
	unsigned char *own;

	PEER_SEND(&self->a, do_write_always, NULL, L(self->c), L(p));
	for (round = 0; round < rounds; round++) {
		beat = atomic_load(&self->c->beat);
		ASSERT_OK(map_anon(p, page(), round & 1 ? MAP_SHARED : MAP_PRIVATE));
		ASSERT_TRUE(WAIT_FOR(atomic_load(&self->c->beat) > beat + 10, 20));
		ASSERT_OK(munmap(p, page()));
		own = mmap(NULL, n * page(), RW,
			   MAP_PRIVATE | MAP_ANONYMOUS | MAP_POPULATE, -1, 0);
		ASSERT_NE(MAP_FAILED, own);
		memset(own, 0x55, n * page());
		usleep(1000);
		for (i = 0; i < (long)(n * page()); i += page())
			if (own[i] != 0x55)
				wrong++;
		munmap(own, n * page());
		ASSERT_EQ(0, wrong) {
			TH_LOG("a freed page was written");
		}
		ASSERT_EQ(0, atomic_load(&self->c->stale)) {
			TH_LOG("a freed page was read");
		}
	}
	atomic_store(&self->c->stop, 1);
	EXPECT_EQ(0, peer_wait(&self->a));
}

/* Many pages at once: a range, not a page, is flushed. */
TEST_F_TIMEOUT(reuse, a_large_range_leaves_no_translation, SHORT_TIMEOUT)
{
	const size_t n = 1024;
	long rounds = scaled(10), round;
	void *p = at(self->addr, 3 * GB);
	size_t i;

	for (round = 0; round < rounds; round++) {
		ASSERT_OK(map_anon(p, n * page(), MAP_PRIVATE));
		for (i = 0; i < n; i++) {
			ASSERT_EQ(0, try_write(at(p, i * page()), 1));
		}
		for (i = 0; i < n; i += 97) {
			ASSERT_EQ(1, peer_read(&self->a, at(p, i * page())));
		}
		if (round & 1) {
			ASSERT_OK(munmap(p, n * page()));
		} else {
			ASSERT_OK(mprotect(p, n * page(), PROT_NONE));
		}
		for (i = 0; i < n; i += 97) {
			ASSERT_EQ(round & 1 ? SIGBUS : SIGSEGV,
				  fault_sig(peer_read(&self->a, at(p, i * page()))));
		}
		ASSERT_OK(munmap(p, n * page()));
	}
}

/* Huge pages are split and unmapped in part under a reader. */
TEST_F_TIMEOUT(reuse, a_split_huge_page_leaves_no_translation, SHORT_TIMEOUT)
{
	struct setting thp;
	void *p = at(self->addr, 4 * GB);
	long rounds = scaled(20), round;

	if (setting_set(&thp, THP_ENABLED, "always"))
		SKIP(return, "no transparent huge pages");
	for (round = 0; round < rounds; round++) {
		ASSERT_OK(map_anon(p, 2 * MB, MAP_PRIVATE));
		ASSERT_EQ(0, try_write(p, 1));
		ASSERT_EQ(0, peer_write(&self->a, at(p, MB), 2));
		ASSERT_EQ(0, peer_write(&self->a, at(p, MB + page()), 3));
		if (round & 1) {
			ASSERT_OK(munmap(at(p, MB), page()));
			ASSERT_EQ(SIGBUS, fault_sig(peer_read(&self->a, at(p, MB))));
		} else {
			ASSERT_OK(mprotect(at(p, MB), page(), PROT_READ));
			ASSERT_EQ(SIGSEGV,
				  fault_sig(peer_write(&self->a, at(p, MB), 1)));
			ASSERT_EQ(2, peer_read(&self->a, at(p, MB)));
		}
		ASSERT_EQ(3, peer_read(&self->a, at(p, MB + page())));
		ASSERT_EQ(1, peer_read(&self->a, p));
		ASSERT_OK(munmap(p, 2 * MB));
		ASSERT_EQ(SIGBUS, fault_sig(peer_read(&self->a, p)));
	}
	setting_restore(&thp);
}

/* Two regions in one process, each changed by a process that has only one. */
TEST_F_TIMEOUT(reuse, two_regions_are_flushed_each, SHORT_TIMEOUT)
{
	const char *second = new_name();
	long rounds = scaled(50), i;
	void *p = self->addr, *q = slot(4);

	ASSERT_OK(create(second, q, self->len));
	ASSERT_OK(peer_attach(&self->a, second));
	for (i = 0; i < rounds; i++) {
		void *gone = i & 1 ? p : q, *stays = i & 1 ? q : p;

		ASSERT_OK(map_anon(p, page(), MAP_PRIVATE));
		ASSERT_OK(map_anon(q, page(), MAP_PRIVATE));
		ASSERT_EQ(0, peer_write(&self->a, p, 5));
		ASSERT_EQ(0, peer_write(&self->a, q, 5));
		ASSERT_OK(munmap(gone, page()));
		ASSERT_EQ(SIGBUS, fault_sig(peer_read(&self->a, gone)));
		ASSERT_EQ(5, peer_read(&self->a, stays));
		ASSERT_OK(mprotect(stays, page(), PROT_READ));
		ASSERT_EQ(SIGSEGV, fault_sig(peer_write(&self->a, stays, 1)));
	}
}

/* More regions than a CPU may remember the generations of. */
TEST_F_TIMEOUT(reuse, many_regions_are_flushed_each, SHORT_TIMEOUT)
{
	enum { N = 12 };
	const char *names[N];
	long rounds = scaled(24), i;
	int j;

	for (j = 0; j < N; j++) {
		names[j] = new_name();
		ASSERT_OK(create(names[j], slot(2 + j), self->len));
		ASSERT_OK(peer_attach(&self->a, names[j]));
	}
	for (i = 0; i < rounds; i++) {
		for (j = 0; j < N; j++) {
			ASSERT_OK(map_anon(slot(2 + j), page(), MAP_SHARED));
			ASSERT_EQ(0, peer_write(&self->a, slot(2 + j), 1));
		}
		ASSERT_OK(munmap(slot(2 + i % N), page()));
		for (j = 0; j < N; j++) {
			long r = peer_read(&self->a, slot(2 + j));

			if (j == i % N) {
				ASSERT_EQ(SIGBUS, fault_sig(r));
			} else {
				ASSERT_EQ(1, r);
			}
		}
	}
}

struct late_thread {
	struct spin_thread spin;
	atomic_int go, quit;
};

/* Runs all the time, and uses the region whenever it is told to. */
static void *late_thread(void *arg)
{
	struct late_thread *t = arg;

	pin(1);
	while (!atomic_load(&t->quit)) {
		if (atomic_load(&t->go) != 1)
			continue;
		t->spin.got = spin(t->spin.c, t->spin.p, false, -1);
		atomic_store(&t->go, 2);
	}
	return NULL;
}

/*
 * The CPU of a thread that was running when another thread attached knows of
 * the region only because it was told.
 */
TEST_F_TIMEOUT(reuse, a_thread_that_ran_while_another_attached, LONG_TIMEOUT)
{
	struct late_thread t = { .spin = { .c = self->c, .p = self->addr } };
	long rounds = scaled(50), i, beat;
	pthread_t thread;

	NEED_CPUS(2);
	ASSERT_OK(peer_pin(&self->a, 0));
	ASSERT_OK(map_anon(self->addr, page(), MAP_PRIVATE));
	ASSERT_OK(munmap(self->addr, self->len));
	ASSERT_EQ(0, pthread_create(&thread, NULL, late_thread, &t));
	for (i = 0; i < rounds; i++) {
		atomic_store(&self->c->after, 0);
		atomic_store(&self->c->ended, 0);
		/* A flush that finds the CPU without the region: it is forgotten. */
		ASSERT_OK(peer_mprotect(&self->a, self->addr, page(), RW));
		ASSERT_EQ(0, peer_write(&self->a, self->addr, 1));
		ASSERT_OK(peer_mprotect(&self->a, self->addr, page(), PROT_READ));
		ASSERT_OK(peer_mprotect(&self->a, self->addr, page(), RW));
		ASSERT_OK(attach(self->name));
		beat = atomic_load(&self->c->beat);
		atomic_store(&t.go, 1);
		ASSERT_TRUE(WAIT_FOR(atomic_load(&self->c->beat) > beat + 100, 20));
		ASSERT_OK(peer_mprotect(&self->a, self->addr, page(), PROT_NONE));
		atomic_store(&self->c->after, 1);
		ASSERT_TRUE(WAIT_FOR(atomic_load(&t.go) == 2, 20)) {
			TH_LOG("the thread goes on with a stale translation");
		}
		ASSERT_EQ(0, atomic_load(&self->c->stale)) {
			TH_LOG("%ld accesses through a stale translation",
			       atomic_load(&self->c->stale));
		}
		ASSERT_EQ(SIGSEGV, fault_sig(t.spin.got));
		ASSERT_OK(munmap(self->addr, self->len));
		atomic_store(&t.go, 0);
	}
	atomic_store(&t.quit, 1);
	ASSERT_EQ(0, pthread_join(thread, NULL));
}

/* Interrupts. */

static long tlb_interrupts(int cpu)
{
	long n = -1;
	char line[1024], *p;
	FILE *f;
	int i;

	f = fopen("/proc/interrupts", "re");
	while (f && fgets(line, sizeof(line), f)) {
		p = line + strspn(line, " ");
		if (strncmp(p, "TLB:", 4))
			continue;
		p += 4;
		for (i = 0; i <= cpu; i++)
			n = strtol(p, &p, 10);
	}
	if (f)
		fclose(f);
	return n;
}

/* Interrupts that CPU 1 gets while CPU 0 changes a page of the region. */
static long interrupts_of_changes(struct __test_metadata *_metadata, void *p,
				  long n)
{
	long before = tlb_interrupts(1), i;

	for (i = 0; i < n; i++) {
		ASSERT_EQ(0, try_write(p, i & 127));
		ASSERT_OK(mprotect(p, page(), PROT_READ));
		ASSERT_OK(mprotect(p, page(), RW));
	}
	return tlb_interrupts(1) - before;
}

FIXTURE(quiet)
{
	const char *name;
	void *addr;
	size_t len;
	struct ctl *c, *c2;
	struct peer user, stranger;
};

FIXTURE_SETUP(quiet)
{
	self->name = new_name();
	self->addr = slot(0);
	self->len = granule();
	self->c = new_ctl();
	self->c2 = new_ctl();
	ASSERT_EQ(0, peer_start(&self->user));
	ASSERT_EQ(0, peer_start(&self->stranger));
	ASSERT_OK(create(self->name, self->addr, self->len));
	ASSERT_OK(map_anon(self->addr, page(), MAP_PRIVATE));
	ASSERT_OK(pin(0));
}

FIXTURE_TEARDOWN(quiet)
{
	peer_stop(&self->user);
	peer_stop(&self->stranger);
	munmap(self->addr, self->len);
	remove_names();
}

TEST_F_TIMEOUT(quiet, a_cpu_without_attached_processes_is_left_in_peace,
	       SHORT_TIMEOUT)
{
	const long n = scaled(500);
	long got;

	NEED_CPUS(2);
	if (tlb_interrupts(1) < 0)
		SKIP(return, "no TLB line in /proc/interrupts");
	ASSERT_OK(peer_pin(&self->user, 1));
	ASSERT_OK(peer_pin(&self->stranger, 1));
	ASSERT_OK(peer_attach(&self->user, self->name));

	/* First that the counter counts: a user runs there. */
	PEER_SEND(&self->user, do_spin, NULL, L(self->c), L(self->addr), 0, -1);
	ASSERT_TRUE(WAIT_FOR(atomic_load(&self->c->beat) > 100, 20));
	got = interrupts_of_changes(_metadata, self->addr, n);
	TH_LOG("%ld changes, a user on the CPU: %ld interrupts", n, got);
	EXPECT_LT(n / 2, got);
	atomic_store(&self->c->stop, 1);
	EXPECT_EQ(0, peer_wait(&self->user));

	/* The user sleeps, a stranger runs. */
	PEER_SEND(&self->stranger, do_busy, NULL, L(self->c2));
	ASSERT_TRUE(WAIT_FOR(atomic_load(&self->c2->beat) > 100, 20));
	got = interrupts_of_changes(_metadata, self->addr, n);
	TH_LOG("%ld changes, a stranger on the CPU: %ld interrupts", n, got);
	EXPECT_GT(n / 20 + 5, got);

	/* The user is gone. */
	peer_stop(&self->user);
	got = interrupts_of_changes(_metadata, self->addr, n);
	TH_LOG("%ld changes, no user at all: %ld interrupts", n, got);
	EXPECT_GT(n / 20 + 5, got);
	atomic_store(&self->c2->stop, 1);
	EXPECT_EQ(0, peer_wait(&self->stranger));
}

TEST_F_TIMEOUT(quiet, a_sleeping_user_on_an_idle_cpu_is_not_woken_each_time,
	       SHORT_TIMEOUT)
{
	const long n = scaled(500);
	long got;

	NEED_CPUS(2);
	if (tlb_interrupts(1) < 0)
		SKIP(return, "no TLB line in /proc/interrupts");
	ASSERT_OK(peer_pin(&self->user, 1));
	ASSERT_OK(peer_attach(&self->user, self->name));
	ASSERT_EQ(0, peer_write(&self->user, self->addr, 1));
	usleep(100000);
	got = interrupts_of_changes(_metadata, self->addr, n);
	TH_LOG("%ld changes, the CPU idle: %ld interrupts", n, got);
	/* Page-table pages are not freed here, so lazy CPUs need no interrupt. */
	EXPECT_GT(n / 20 + 5, got);
	/* And when it wakes up it is right all the same. */
	ASSERT_OK(mprotect(self->addr, page(), PROT_READ));
	EXPECT_EQ(SIGSEGV, fault_sig(peer_write(&self->user, self->addr, 1)));
}

#define HUNDRED	100

/*
 * One page in the middle of a huge page is protected, by one call: the huge page
 * is split in the one set of page tables, and a hundred processes see it.
 */
TEST_F_TIMEOUT(quiet, a_page_of_a_huge_page_is_protected_for_a_hundred, LONG_TIMEOUT)
{
	char *p = at(self->addr, 2 * MB), *mid = p + 100 * page();
	long before, split;
	struct peer *peers;
	int i, wrong = 0;

	NEED_CPUS(2);
	peers = calloc(HUNDRED, sizeof(*peers));
	ASSERT_NE(NULL, peers);
	ASSERT_EQ(p, map_anon(p, 2 * MB, MAP_PRIVATE));
	ASSERT_OK(madvise(p, 2 * MB, MADV_HUGEPAGE));
	ASSERT_EQ(0, try_write(p, 1));
	for (i = 0; i < HUNDRED; i++) {
		ASSERT_EQ(0, peer_start(&peers[i]));
		/* They inherit the attachment. All run on the first CPU but one. */
		ASSERT_OK(peer_pin(&peers[i], 0));
		ASSERT_EQ(0, peer_write(&peers[i], mid, 1));
		ASSERT_EQ(0, peer_write(&peers[i], mid + page(), 1));
	}
	ASSERT_OK(peer_pin(&self->stranger, 1));
	PEER_SEND(&self->stranger, do_busy, NULL, L(self->c2));
	ASSERT_TRUE(WAIT_FOR(atomic_load(&self->c2->beat) > 100, 20));

	split = vmstat("thp_split_pmd");
	before = tlb_interrupts(1);
	ASSERT_OK(mprotect(mid, page(), PROT_READ));
	/* No more than strays: of the work of the kernel itself. */
	if (before >= 0)
		EXPECT_GT(5, tlb_interrupts(1) - before);
	if (split >= 0)
		EXPECT_EQ(1, vmstat("thp_split_pmd") - split);
	for (i = 0; i < HUNDRED; i++) {
		wrong += peer_write(&peers[i], mid, 2) != FAULT(SIGSEGV, SEGV_ACCERR);
		wrong += peer_read(&peers[i], mid) != 1;
		wrong += peer_write(&peers[i], mid + page(), 1) != 0;
		wrong += peer_write(&peers[i], mid - page(), 1) != 0;
	}
	EXPECT_EQ(0, wrong);

	/* And back, by one of them. */
	ASSERT_OK(peer_mprotect(&peers[7], mid, page(), PROT_READ | PROT_WRITE));
	for (i = 0, wrong = 0; i < HUNDRED; i++)
		wrong += peer_write(&peers[i], mid, 3) != 0;
	EXPECT_EQ(0, wrong);

	atomic_store(&self->c2->stop, 1);
	EXPECT_EQ(0, peer_wait(&self->stranger));
	for (i = 0; i < HUNDRED; i++)
		peer_stop(&peers[i]);
	free(peers);
}

MSHARE_TEST_MAIN
