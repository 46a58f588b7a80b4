// SPDX-License-Identifier: GPL-2.0
/*
 * Kernel code that takes the pages of a process by their address: direct I/O,
 * registered buffers, vmsplice(), process_vm_readv(), ptrace(), /proc/PID/mem.
 * In a region it does what it does for threads, and for who is attached
 * read-only it writes nothing.
 */
#include <linux/io_uring.h>
#include <linux/mempolicy.h>
#include <sys/ptrace.h>
#include <sys/uio.h>
#include "mshare_env.h"

#define RW	(PROT_READ | PROT_WRITE)
#define N	32UL		/* pages of content */
#define HUGE	(2 * MB)
#define LENGTH	(2 * HUGE)	/* of what is mapped */

#define THP	100
#define HUGETLB	101

FIXTURE(gup)
{
	const char *name;
	void *addr, *p;		/* the region; what is mapped in it */
	size_t len;
	struct peer a, ro;	/* ro is attached read-only */
	struct kind_data kind;
	struct setting thp, nr_huge;
	struct zram dev;
	int fd;			/* of dev, O_DIRECT */
	int pipe[2];
	int flags, map_fd;
	char *own;		/* memory of the test's, N pages */
	const char *why;	/* it cannot be */
};

FIXTURE_VARIANT(gup)
{
	int kind;
	bool shared;
	bool longterm;		/* can be pinned for long */
};

#define VARIANT(_name, _kind, _shared, _longterm)			\
	FIXTURE_VARIANT_ADD(gup, _name) {				\
		.kind = _kind, .shared = _shared, .longterm = _longterm }

VARIANT(anon_private, ANON_PRIVATE, false, true);
VARIANT(anon_shared, ANON_SHARED, true, true);
VARIANT(tmpfs_private, TMPFS_PRIVATE, false, true);
VARIANT(tmpfs_shared, TMPFS_SHARED, true, true);
VARIANT(ext4_private, EXT4_PRIVATE, false, true);
VARIANT(ext4_shared, EXT4_SHARED, true, false);
VARIANT(thp, THP, false, true);
VARIANT(hugetlb_private, HUGETLB, false, true);
VARIANT(hugetlb_shared, HUGETLB, true, true);

static int byte_of(size_t i)
{
	return (i * 13 + 5) & 0xff;
}

/* Pages as the content has them, with @add. */
static void fill(char *buf, size_t n, int add)
{
	size_t i;

	for (i = 0; i < n; i++)
		memset(buf + i * page(), byte_of(i) + add, page());
}

/* How many of @n pages, each read at both ends, are not as fill() does it. */
static long wrong(char *buf, size_t n, int add)
{
	long bad = 0;
	size_t i;

	for (i = 0; i < n; i++)
		if (try_read(buf + i * page()) != ((byte_of(i) + add) & 0xff) ||
		    try_read(buf + (i + 1) * page() - 1) !=
		    ((byte_of(i) + add) & 0xff))
			bad++;
	return bad;
}

static long do_wrong(const struct request *rq)
{
	return wrong((char *)rq->a[0], rq->a[1], rq->a[2]);
}

static long do_pread(const struct request *rq)
{
	return pread(rq->a[0], (void *)rq->a[1], rq->a[2], rq->a[3]);
}

static long do_pwrite(const struct request *rq)
{
	return pwrite(rq->a[0], (void *)rq->a[1], rq->a[2], rq->a[3]);
}

/* Everyone sees the content with @add. */
#define EXPECT_CONTENT(_p, _n, _add) do {				\
	EXPECT_EQ(0, wrong(_p, _n, _add));				\
	EXPECT_EQ(0, PEER(&self->a, do_wrong, NULL, L(_p), _n, _add));	\
	EXPECT_EQ(0, PEER(&self->ro, do_wrong, NULL, L(_p), _n, _add));	\
} while (0)


FIXTURE_SETUP(gup)
{
	self->fd = -1;
	self->map_fd = -1;
	self->dev.id = -1;
	self->kind.fd = -1;
	self->name = new_name();
	self->addr = slot(0);
	self->len = granule();
	self->p = at(self->addr, GB);
	self->own = mmap(NULL, N * page(), RW, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	self->flags = MAP_ANONYMOUS | (variant->shared ? MAP_SHARED : MAP_PRIVATE);

	switch (variant->kind) {
	case THP:
		if (setting_set(&self->thp, THP_ENABLED, "madvise"))
			self->why = "no transparent huge pages";
		break;
	case HUGETLB:
		if (setting_set(&self->nr_huge, "/proc/sys/vm/nr_hugepages", "16") ||
		    meminfo("HugePages_Free:") < 8)
			self->why = "no huge pages";
		self->flags |= MAP_HUGETLB;
		break;
	default:
		self->why = kind_init(&self->kind, variant->kind);
		self->flags = self->kind.flags;
		self->map_fd = self->kind.fd;
		if (self->map_fd >= 0)
			ASSERT_OK(ftruncate(self->map_fd, 4 * LENGTH));
	}
	if (!self->why)
		self->why = zram_new(&self->dev, 16 * MB);
	if (self->why)
		SKIP(return, "%s", self->why);
	self->fd = open(self->dev.dev, O_RDWR | O_DIRECT);
	ASSERT_LE(0, self->fd);

	ASSERT_OK(pipe(self->pipe));
	ASSERT_EQ(0, peer_start(&self->a));
	ASSERT_EQ(0, peer_start(&self->ro));
	ASSERT_OK(create(self->name, self->addr, self->len));
	ASSERT_OK(peer_attach(&self->a, self->name));
	ASSERT_OK(PEER(&self->ro, do_mshare, self->name, 0, 0, O_RDONLY, 0));
	ASSERT_EQ(self->p, mmap(self->p, LENGTH, RW, self->flags | MAP_FIXED,
				self->map_fd, 0));
	if (variant->kind == THP)
		ASSERT_OK(madvise(self->p, LENGTH, MADV_HUGEPAGE));
}

FIXTURE_TEARDOWN(gup)
{
	peer_stop(&self->a);
	peer_stop(&self->ro);
	munmap(self->addr, self->len);
	remove_names();
	if (self->fd >= 0)
		close(self->fd);
	close(self->pipe[0]);
	close(self->pipe[1]);
	kind_end(&self->kind);
	zram_end(&self->dev);
	setting_restore(&self->thp);
	setting_restore(&self->nr_huge);
	munmap(self->own, N * page());
}

#define BYTES	((ssize_t)(N * page()))

TEST_F(gup, direct_io)
{
	char *q = at(self->p, HUGE);

	fill(self->p, N, 0);
	/* From the region, by a walk without locks: the pages are there. */
	EXPECT_EQ(BYTES, pwrite(self->fd, self->p, BYTES, 0));
	EXPECT_EQ(BYTES, pread(self->fd, self->own, BYTES, 0));
	EXPECT_EQ(0, wrong(self->own, N, 0));
	/* Into pages that are not there yet. */
	EXPECT_EQ(BYTES, pread(self->fd, q, BYTES, 0));
	EXPECT_CONTENT(q, N, 0);
	/* And from a process that has never touched them to those that are. */
	fill(self->own, N, 3);
	EXPECT_EQ(BYTES, pwrite(self->fd, self->own, BYTES, 0));
	EXPECT_EQ(BYTES, PEER(&self->a, do_pread, NULL, self->fd, L(self->p),
			      BYTES, 0));
	EXPECT_CONTENT(self->p, N, 3);
}

TEST_F(gup, direct_io_of_who_is_attached_read_only)
{
	char *q = at(self->p, HUGE);

	fill(self->own, N, 7);
	ASSERT_EQ(BYTES, pwrite(self->fd, self->own, BYTES, 0));
	fill(self->p, N, 0);
	/* Present, writable in the page table, and still not to be written. */
	EXPECT_ERR(EFAULT, PEER(&self->ro, do_pread, NULL, self->fd,
				L(self->p), BYTES, 0));
	EXPECT_CONTENT(self->p, N, 0);
	/* Absent. */
	EXPECT_ERR(EFAULT, PEER(&self->ro, do_pread, NULL, self->fd, L(q),
				BYTES, 0));
	EXPECT_EQ(BYTES, PEER(&self->ro, do_pwrite, NULL, self->fd,
			      L(self->p), BYTES, 0));
	EXPECT_EQ(BYTES, pread(self->fd, self->own, BYTES, 0));
	EXPECT_EQ(0, wrong(self->own, N, 0));
	/* Absent, and what is read is what a read of it gives. */
	EXPECT_EQ(BYTES, PEER(&self->ro, do_pwrite, NULL, self->fd, L(q),
			      BYTES, 0));
	EXPECT_EQ(BYTES, pread(self->fd, self->own, BYTES, 0));
	EXPECT_EQ(0, memcmp(self->own, q, BYTES));
}

TEST_F(gup, what_is_not_mapped_is_efault)
{
	EXPECT_ERR(EFAULT, pread(self->fd, at(self->addr, 5 * GB), BYTES, 0));
	EXPECT_ERR(EFAULT, pwrite(self->fd, at(self->addr, 5 * GB), BYTES, 0));
	/* Nor allowed. */
	ASSERT_OK(mprotect(self->p, LENGTH, PROT_NONE));
	EXPECT_ERR(EFAULT, pwrite(self->fd, self->p, BYTES, 0));
	ASSERT_OK(mprotect(self->p, LENGTH, PROT_READ));
	EXPECT_ERR(EFAULT, pread(self->fd, self->p, BYTES, 0));
	EXPECT_EQ(BYTES, pwrite(self->fd, self->p, BYTES, 0));
}

TEST_F(gup, process_vm)
{
	struct iovec local = { self->own, BYTES };
	struct iovec remote = { self->p, BYTES };

	/* Pages that nobody has touched. */
	fill(self->own, N, 1);
	EXPECT_EQ(BYTES, process_vm_writev(self->a.pid, &local, 1, &remote, 1, 0));
	EXPECT_CONTENT(self->p, N, 1);
	memset(self->own, 0, BYTES);
	EXPECT_EQ(BYTES, process_vm_readv(self->a.pid, &local, 1, &remote, 1, 0));
	EXPECT_EQ(0, wrong(self->own, N, 1));
	memset(self->own, 0, BYTES);
	EXPECT_EQ(BYTES, process_vm_readv(self->ro.pid, &local, 1, &remote, 1, 0));
	EXPECT_EQ(0, wrong(self->own, N, 1));
	fill(self->own, N, 2);
	EXPECT_ERR(EFAULT, process_vm_writev(self->ro.pid, &local, 1, &remote,
					     1, 0));
	EXPECT_CONTENT(self->p, N, 1);
}

TEST_F(gup, a_range_over_both_edges_of_an_attachment)
{
	char *lo = at(self->addr, -2 * page()), *hi = at(self->addr, self->len);
	struct iovec local = { self->own, 4 * page() };
	struct iovec remote = { lo, 4 * page() };

	ASSERT_OK(map_anon(lo, 2 * page(), MAP_PRIVATE));
	ASSERT_OK(map_anon(hi, 2 * page(), MAP_PRIVATE));
	ASSERT_OK(map_anon(self->addr, 2 * page(), MAP_PRIVATE));
	ASSERT_OK(map_anon(hi - 2 * page(), 2 * page(), MAP_PRIVATE));

	fill(self->own, 4, 0);
	EXPECT_EQ(L(4 * page()), process_vm_writev(getpid(), &local, 1, &remote,
						   1, 0));
	EXPECT_EQ(0, wrong(lo, 4, 0));
	/* Without locks, and of the slow way what was not there. */
	ASSERT_OK(madvise(self->addr, page(), MADV_DONTNEED));
	ASSERT_EQ(L(4 * page()), pread(self->fd, lo, 4 * page(), 0));
	EXPECT_EQ(L(4 * page()), pwrite(self->fd, lo, 4 * page(), 0));

	remote.iov_base = hi - 2 * page();
	EXPECT_EQ(L(4 * page()), process_vm_writev(getpid(), &local, 1, &remote,
						   1, 0));
	EXPECT_EQ(0, wrong(hi - 2 * page(), 4, 0));
	/* What comes before a hole counts. */
	ASSERT_OK(munmap(hi - page(), page()));
	EXPECT_EQ(L(page()), process_vm_readv(getpid(), &local, 1, &remote, 1, 0));
	ASSERT_OK(munmap(lo, 2 * page()));
	ASSERT_OK(munmap(hi, 2 * page()));
}

TEST_F(gup, proc_mem)
{
	char path[64], c;
	int fd, ro;

	snprintf(path, sizeof(path), "/proc/%d/mem", self->a.pid);
	fd = open(path, O_RDWR);
	snprintf(path, sizeof(path), "/proc/%d/mem", self->ro.pid);
	ro = open(path, O_RDWR);
	ASSERT_TRUE(fd >= 0 && ro >= 0);

	fill(self->own, N, 1);
	EXPECT_EQ(BYTES, pwrite(fd, self->own, BYTES, L(self->p)));
	EXPECT_CONTENT(self->p, N, 1);
	memset(self->own, 0, BYTES);
	EXPECT_EQ(BYTES, pread(ro, self->own, BYTES, L(self->p)));
	EXPECT_EQ(0, wrong(self->own, N, 1));
	EXPECT_ERR(EIO, pwrite(ro, self->own, BYTES, L(self->p)));

	/* By force: for everyone, but not through a read-only attachment. */
	ASSERT_OK(mprotect(self->p, LENGTH, PROT_READ));
	fill(self->own, N, 9);
	EXPECT_ERR(EIO, pwrite(ro, self->own, BYTES, L(self->p)));
	EXPECT_CONTENT(self->p, N, 1);
	if (variant->shared || variant->kind == HUGETLB) {
		EXPECT_ERR(EIO, pwrite(fd, self->own, BYTES, L(self->p)));
		EXPECT_CONTENT(self->p, N, 1);
	} else {
		EXPECT_EQ(BYTES, pwrite(fd, self->own, BYTES, L(self->p)));
		EXPECT_CONTENT(self->p, N, 9);
	}
	ASSERT_OK(mprotect(self->p, LENGTH, PROT_NONE));
	EXPECT_EQ(1, pread(ro, &c, 1, L(self->p)));
	EXPECT_ERR(EIO, pread(fd, &c, 1, L(at(self->addr, 5 * GB))));
	close(fd);
	close(ro);
}

/* Read a word by ptrace() and write another, by @pid. */
static long peek_poke(pid_t pid, void *p, long val, long *old)
{
	long ret = 0;
	int status;

	if (ptrace(PTRACE_SEIZE, pid, NULL, NULL) ||
	    ptrace(PTRACE_INTERRUPT, pid, NULL, NULL) ||
	    waitpid(pid, &status, 0) != pid)
		return -1;
	errno = 0;
	*old = ptrace(PTRACE_PEEKDATA, pid, p, NULL);
	if (errno)
		ret = -2;
	else if (ptrace(PTRACE_POKEDATA, pid, p, val))
		ret = -3;
	return ptrace(PTRACE_DETACH, pid, NULL, NULL) ? -4 : ret;
}

TEST_F(gup, ptrace)
{
	long old;

	fill(self->p, N, 0);
	EXPECT_EQ(0, peek_poke(self->a.pid, self->p, -1L, &old));
	EXPECT_EQ(byte_of(0), old & 0xff);
	EXPECT_EQ(255, try_read(self->p));
	EXPECT_EQ(-3, peek_poke(self->ro.pid, self->p, 0, &old));
	EXPECT_EQ(-1L, old);
	EXPECT_EQ(255, peer_read(&self->a, self->p));
}

static long do_vmsplice(const struct request *rq)
{
	struct iovec iov = { (void *)rq->a[1], rq->a[2] };

	return vmsplice(rq->a[0], &iov, 1, rq->a[3]);
}

TEST_F(gup, vmsplice)
{
	fill(self->p, N, 0);
	EXPECT_EQ(L(4 * page()), PEER(&self->a, do_vmsplice, NULL, self->pipe[1],
				      L(self->p), 4 * page(), 0));
	EXPECT_EQ(L(4 * page()), read(self->pipe[0], self->own, BYTES));
	EXPECT_EQ(0, wrong(self->own, 4, 0));
	EXPECT_EQ(L(4 * page()), PEER(&self->ro, do_vmsplice, NULL, self->pipe[1],
				      L(self->p), 4 * page(), 0));
	/* Unmapped and exited meanwhile, the pages still are. */
	memset(self->own, 0, BYTES);
	peer_stop(&self->ro);
	ASSERT_OK(munmap(self->p, LENGTH));
	EXPECT_EQ(L(4 * page()), read(self->pipe[0], self->own, BYTES));
	EXPECT_EQ(0, wrong(self->own, 4, 0));
}

/* An io_uring with the least that one read or write needs. */
struct ring {
	int fd;
	void *sq, *cq;
	struct io_uring_sqe *sqes;
	struct io_uring_params p;
};

static int ring_init(struct ring *r)
{
	memset(r, 0, sizeof(*r));
	r->fd = syscall(__NR_io_uring_setup, 4, &r->p);
	if (r->fd < 0)
		return -1;
	r->sq = mmap(NULL, r->p.sq_off.array + 4 * r->p.sq_entries, RW,
		     MAP_SHARED, r->fd, IORING_OFF_SQ_RING);
	r->cq = mmap(NULL, r->p.cq_off.cqes +
		     r->p.cq_entries * sizeof(struct io_uring_cqe), RW,
		     MAP_SHARED, r->fd, IORING_OFF_CQ_RING);
	r->sqes = mmap(NULL, r->p.sq_entries * sizeof(*r->sqes), RW,
		       MAP_SHARED, r->fd, IORING_OFF_SQES);
	return r->sq == MAP_FAILED || r->cq == MAP_FAILED ||
	       r->sqes == MAP_FAILED ? -1 : 0;
}

static int ring_register(struct ring *r, void *p, size_t len)
{
	struct iovec iov = { p, len };

	return syscall(__NR_io_uring_register, r->fd, IORING_REGISTER_BUFFERS,
		       &iov, 1);
}

/* The result of reading into, or writing from, the registered buffer. */
static int ring_rw(struct ring *r, int op, int fd, void *p, size_t len)
{
	unsigned int *tail = r->sq + r->p.sq_off.tail;
	unsigned int *head = r->cq + r->p.cq_off.head;
	unsigned int mask = *(unsigned int *)(r->sq + r->p.sq_off.ring_mask);
	unsigned int i = *tail & mask;
	struct io_uring_cqe *cqe;
	int ret;

	memset(&r->sqes[i], 0, sizeof(r->sqes[i]));
	r->sqes[i].opcode = op;
	r->sqes[i].fd = fd;
	r->sqes[i].addr = (unsigned long)p;
	r->sqes[i].len = len;
	((unsigned int *)(r->sq + r->p.sq_off.array))[i] = i;
	__atomic_store_n(tail, *tail + 1, __ATOMIC_RELEASE);
	ret = syscall(__NR_io_uring_enter, r->fd, 1, 1, IORING_ENTER_GETEVENTS,
		      NULL, 0);
	if (ret != 1)
		return ret < 0 ? -errno : -ENODATA;
	mask = *(unsigned int *)(r->cq + r->p.cq_off.ring_mask);
	cqe = (struct io_uring_cqe *)(r->cq + r->p.cq_off.cqes) + (*head & mask);
	ret = cqe->res;
	__atomic_store_n(head, *head + 1, __ATOMIC_RELEASE);
	return ret;
}

static long do_register(const struct request *rq)
{
	struct ring r;
	int ret;

	if (ring_init(&r))
		return -2;
	ret = ring_register(&r, (void *)rq->a[0], rq->a[1]);
	close(r.fd);
	return ret;
}

TEST_F(gup, registered_buffers_stay_the_regions)
{
	struct ring r;
	int err = 0;

	if (ring_init(&r))
		SKIP(return, "no io_uring");
	fill(self->p, N, 0);
	/* They are for writing. */
	EXPECT_ERR(EFAULT, PEER(&self->ro, do_register, NULL, L(self->p), BYTES));
	if (!variant->longterm) {
		/* As with any mapping of such a file. */
		err = errno = 0;
		EXPECT_EQ(-1, ring_register(&r, self->p, BYTES));
		err = errno;
		EXPECT_TRUE(err == EFAULT || err == EOPNOTSUPP);
		close(r.fd);
		SKIP(return, "nobody may pin pages of this file for long");
	}
	ASSERT_OK(ring_register(&r, self->p, BYTES));

	/* Whatever is done to the memory, the pinned pages stay where they are. */
	madvise(self->p, LENGTH, 21 /* MADV_PAGEOUT */);
	syscall(SYS_mbind, self->p, LENGTH, MPOL_BIND, &(unsigned long){ 1 }, 8,
		MPOL_MF_MOVE);
	write_file("/proc/sys/vm/compact_memory", "1");
	madvise(self->p, LENGTH, 25 /* MADV_COLLAPSE */);

	fill(self->own, N, 3);
	ASSERT_EQ(BYTES, pwrite(self->fd, self->own, BYTES, 0));
	EXPECT_EQ(BYTES, ring_rw(&r, IORING_OP_READ_FIXED, self->fd, self->p,
				 BYTES));
	EXPECT_CONTENT(self->p, N, 3);
	/* And the other way round. */
	EXPECT_EQ(0, peer_write(&self->a, self->p, 0x77));
	EXPECT_EQ(L(page()), ring_rw(&r, IORING_OP_WRITE_FIXED, self->fd,
				     self->p, page()));
	EXPECT_EQ(BYTES, pread(self->fd, self->own, BYTES, 0));
	EXPECT_EQ(0x77, self->own[0]);
	/* A child is attached and shares the page, now and later. */
	if (!fork()) {
		_exit(try_write(self->p, 0x55) != 0);
	} else {
		int status = -1;

		wait(&status);
		EXPECT_EQ(0, status);
	}
	EXPECT_EQ(L(page()), ring_rw(&r, IORING_OP_WRITE_FIXED, self->fd,
				     self->p, page()));
	EXPECT_EQ(BYTES, pread(self->fd, self->own, BYTES, 0));
	EXPECT_EQ(0x55, self->own[0]);
	/* Pages that are unmapped are still the buffer's. */
	ASSERT_OK(munmap(self->p, LENGTH));
	EXPECT_EQ(BYTES, ring_rw(&r, IORING_OP_READ_FIXED, self->fd, self->p,
				 BYTES));
	close(r.fd);
}

/* Write the region out again and again, whatever is there. */
static long do_pwrite_loop(const struct request *rq)
{
	char *p = (char *)rq->a[1];
	long i, done = 0;

	for (i = 0; i < rq->a[2]; i++) {
		ssize_t ret = pwrite(rq->a[0], p, BYTES, 0);

		if (ret == BYTES)
			done++;
		else if (ret != -1 ? ret < 0 || ret % page() : errno != EFAULT)
			return -1 - i;
	}
	return done;
}

TEST_F(gup, direct_io_while_it_is_unmapped)
{
	long i, rounds = scaled(100);

	ASSERT_EQ(0, PEER_SEND(&self->a, do_pwrite_loop, NULL, self->fd,
			       L(self->p), 2 * rounds));
	for (i = 0; i < rounds; i++) {
		if (munmap(self->p, LENGTH))
			break;
		sched_yield();
		if (mmap(self->p, LENGTH, RW, self->flags | MAP_FIXED |
			 (i & 1 && variant->kind != HUGETLB ? MAP_POPULATE : 0),
			 self->map_fd, 0) != self->p)
			break;
		if (try_write(self->p, 1))
			break;
		sched_yield();
	}
	EXPECT_EQ(rounds, i);
	EXPECT_LE(0, peer_wait(&self->a));
	/* Whoever has them last frees them. */
	fill(self->p, N, 0);
	EXPECT_CONTENT(self->p, N, 0);
}

static void *come_and_go(void *arg)
{
	struct {
		const char *name;
		char *addr;
		size_t len;
		atomic_bool *stop;
	} *c = arg;
	long n = 0;

	while (!atomic_load(c->stop)) {
		munmap(c->addr, c->len);
		if (mshare(c->name, NULL, 0, O_RDWR, 0))
			return (void *)-1L;
		n++;
	}
	return (void *)n;
}

/* Who looks across the start finds the attachment whole, or gone. */
TEST_F(gup, read_while_it_comes_and_goes)
{
	double end = now() + 4.0 * scaled(10) / 10;
	atomic_bool stop = false;
	struct {
		const char *name;
		char *addr;
		size_t len;
		atomic_bool *stop;
	} c = { self->name, self->addr, self->len, &stop };
	char *before = at(self->addr, -page()), buf[16];
	void *rounds = NULL;
	pthread_t t;
	int fd;

	if (self->why)
		SKIP(return, "%s", self->why);
	if (variant->kind != ANON_PRIVATE)
		SKIP(return, "as with anonymous memory");
	ASSERT_OK(map_anon(before, page(), MAP_PRIVATE));
	ASSERT_EQ(self->addr, peer_mmap(&self->a, self->addr, page(), RW,
					MAP_FIXED | MAP_PRIVATE | MAP_ANONYMOUS,
					-1, 0));
	fd = open("/proc/self/mem", O_RDONLY | O_CLOEXEC);
	ASSERT_LE(0, fd);
	ASSERT_EQ(0, pthread_create(&t, NULL, come_and_go, &c));
	while (now() < end) {
		ssize_t n = pread(fd, buf, sizeof(buf), L(before) + page() - 8);

		if (n != 16 && n != 8)
			break;
	}
	EXPECT_LE(end, now());
	atomic_store(&stop, true);
	pthread_join(t, &rounds);
	EXPECT_LT(2, (long)rounds);
	close(fd);
	munmap(before, page());
}

FIXTURE(plain)
{
	const char *name;
	void *addr;
	size_t len;
	struct zram dev;
	int fd;
	struct peer a;
};

FIXTURE_SETUP(plain)
{
	const char *why;

	self->fd = -1;
	self->name = new_name();
	self->addr = slot(0);
	self->len = granule();
	ASSERT_EQ(0, peer_start(&self->a));
	why = zram_new(&self->dev, 16 * MB);
	if (why)
		SKIP(return, "%s", why);
	self->fd = open(self->dev.dev, O_RDWR | O_DIRECT);
	ASSERT_LE(0, self->fd);
}

FIXTURE_TEARDOWN(plain)
{
	peer_stop(&self->a);
	munmap(self->addr, self->len);
	remove_names();
	if (self->fd >= 0)
		close(self->fd);
	zram_end(&self->dev);
}

struct writer {
	int fd;
	char *p;
	atomic_bool stop;
	volatile long done, failed;
	int err;		/* of the last that failed */
};

static void *writer(void *arg)
{
	struct writer *w = arg;
	struct iovec local, remote;
	char buf[64];

	while (!atomic_load(&w->stop)) {
		errno = 0;
		if (pwrite(w->fd, w->p, BYTES, 0) != BYTES) {
			w->err = errno;
			w->failed++;
		}
		local = (struct iovec){ buf, sizeof(buf) };
		remote = (struct iovec){ w->p, sizeof(buf) };
		if (process_vm_readv(getpid(), &local, 1, &remote, 1, 0) !=
		    sizeof(buf)) {
			w->err = errno;
			w->failed++;
		}
		w->done++;
	}
	return NULL;
}

/* It is the same memory all the time, whoever it belongs to. */
TEST_F(plain, memory_becomes_a_region_under_direct_io)
{
	long rounds = scaled(10), i;
	struct writer w = { .fd = self->fd, .p = self->addr };
	pthread_t t;

	NOT_ELSEWHERE();
	for (i = 0; i < rounds; i++) {
		ASSERT_OK(map_anon(self->addr, N * page(), MAP_PRIVATE));
		/* So that it takes its time. */
		ASSERT_NE(MAP_FAILED, mmap(at(self->addr, GB), 32 * MB, RW,
					   MAP_PRIVATE | MAP_ANONYMOUS |
					   MAP_FIXED | MAP_POPULATE, -1, 0));
		/* Every other time a page has to be faulted in. */
		fill(self->addr, i & 1 ? N : N / 2, 0);
		atomic_store(&w.stop, false);
		w.done = 0;
		ASSERT_EQ(0, pthread_create(&t, NULL, writer, &w));
		while (!w.done)
			sched_yield();
		EXPECT_OK(create(self->name, self->addr, self->len));
		usleep(1000);
		atomic_store(&w.stop, true);
		pthread_join(t, NULL);
		EXPECT_EQ(0, w.failed);
		EXPECT_EQ(0, w.err);
		EXPECT_EQ(0, wrong(self->addr, N / 2, 0));
		EXPECT_OK(mshare_unlink(self->name));
	}
}

TEST_F(plain, protection_keys_are_those_of_the_process)
{
	int key = pkey_alloc(0, 0);
	struct iovec local, remote;
	char *p = at(self->addr, GB), buf[8];

	if (key < 0)
		SKIP(return, "no protection keys");
	ASSERT_OK(create(self->name, self->addr, self->len));
	ASSERT_OK(peer_attach(&self->a, self->name));
	ASSERT_OK(map_anon(p, N * page(), MAP_PRIVATE));
	fill(p, N / 2, 0);
	ASSERT_OK(pkey_mprotect(p, N * page(), RW, key));
	ASSERT_OK(pkey_set(key, PKEY_DISABLE_WRITE));
	EXPECT_EQ(BYTES, pwrite(self->fd, p, BYTES, 0));
	EXPECT_ERR(EFAULT, pread(self->fd, p, BYTES, 0));
	EXPECT_ERR(EFAULT, pread(self->fd, p + BYTES / 2, page(), 0));
	ASSERT_OK(pkey_set(key, PKEY_DISABLE_ACCESS));
	EXPECT_ERR(EFAULT, pwrite(self->fd, p, BYTES, 0));
	/* Another's keys are of no concern. */
	local = (struct iovec){ buf, sizeof(buf) };
	remote = (struct iovec){ p, sizeof(buf) };
	EXPECT_EQ(L(sizeof(buf)), process_vm_readv(self->a.pid, &local, 1,
						   &remote, 1, 0));
	ASSERT_OK(pkey_set(key, 0));
	EXPECT_EQ(BYTES, pread(self->fd, p, BYTES, 0));
	pkey_free(key);
}

MSHARE_TEST_MAIN
