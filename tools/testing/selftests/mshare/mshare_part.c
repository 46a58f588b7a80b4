// SPDX-License-Identifier: GPL-2.0
/*
 * Attachments of a part of a region, and at other addresses than the region's
 * own: everything that is true of an ordinary one is true of these, at the
 * addresses that the process has, and what is not attached is not there.
 */
#include "mshare_env.h"
#include <linux/perf_event.h>

#ifndef MREMAP_DONTUNMAP
#define MREMAP_DONTUNMAP	4
#endif
#ifndef SYS_process_madvise
#define SYS_process_madvise	440
#endif
#define MADV_POPULATE_WRITE_	23

#define RW	(PROT_READ | PROT_WRITE)
#define ANON	(MAP_PRIVATE | MAP_ANONYMOUS)
#define HOLE	FAULT(SIGBUS, BUS_ADRERR)
#define GONE	FAULT(SIGSEGV, SEGV_MAPERR)
#define ACCERR	FAULT(SIGSEGV, SEGV_ACCERR)

#define GRANULES	4	/* of the region */
#define HOME		slot(8)	/* of the region */

static size_t pages(size_t n)
{
	return n * page();
}

static size_t granules(size_t n)
{
	return n * granule();
}

/* Attaches @n granules of the region, from the @first on, by mmap(). */
static void *map_part(const char *name, void *addr, unsigned int first,
		      unsigned int n, int prot, int flags)
{
	int fd = open(path_of(name), prot & PROT_WRITE ? O_RDWR : O_RDONLY);
	void *p = mmap(addr, granules(n), prot, flags, fd, granules(first));
	int err = errno;

	close(fd);
	errno = err;
	return p;
}

static long do_map_part(const struct request *rq)
{
	return L(map_part(rq->s, (void *)rq->a[0], rq->a[1], rq->a[2], rq->a[3],
			  rq->a[4]));
}

/* Reads, and says whether a signal that it got told the address. */
static long read_exact(void *p)
{
	long r = try_read(p);

	return r < 0 && probe_addr != p ? -1 : r;
}

static long write_exact(void *p, int val)
{
	long r = try_write(p, val);

	return r < 0 && probe_addr != p ? -1 : r;
}

/* For who spins; all processes know it. */
struct ctl {
	atomic_int stop, after, ended;
	atomic_long beat, stale;
};

static struct ctl *new_ctl(void)
{
	return mmap(NULL, page(), RW, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
}

/*
 * The test process has @n granules of the region, from granule @first on, at
 * @addr. A peer has all of it at home.
 */
FIXTURE(part)
{
	const char *name;
	char *p;		/* the attachment */
	char *h;		/* the same memory as the peer has it */
	size_t len;
	struct ctl *c;
	struct peer a;
};

FIXTURE_VARIANT(part)
{
	unsigned int slot, first, n;
	bool by_mmap;
};

FIXTURE_VARIANT_ADD(part, begin) { .slot = 8, .first = 0, .n = 1 };
FIXTURE_VARIANT_ADD(part, middle) { .slot = 9, .first = 1, .n = 2 };
FIXTURE_VARIANT_ADD(part, end) { .slot = 11, .first = 3, .n = 1 };
FIXTURE_VARIANT_ADD(part, all_above) { .slot = 20, .first = 0, .n = 4 };
FIXTURE_VARIANT_ADD(part, all_below) { .slot = 1, .first = 0, .n = 4 };
FIXTURE_VARIANT_ADD(part, all_one_off) { .slot = 9, .first = 0, .n = 4 };
FIXTURE_VARIANT_ADD(part, middle_by_mmap) { .slot = 9, .first = 1, .n = 2,
	.by_mmap = true };
FIXTURE_VARIANT_ADD(part, middle_above) { .slot = 30, .first = 1, .n = 2,
	.by_mmap = true };
FIXTURE_VARIANT_ADD(part, end_below) { .slot = 2, .first = 2, .n = 2,
	.by_mmap = true };
/* Where another part of the region is at home */
FIXTURE_VARIANT_ADD(part, begin_for_end) { .slot = 11, .first = 0, .n = 1,
	.by_mmap = true };

static int part_attach(const char *name, const FIXTURE_VARIANT(part) *v)
{
	void *p = slot(v->slot);

	if (v->by_mmap)
		return map_part(name, p, v->first, v->n, RW | PROT_EXEC,
				MAP_SHARED) == p ? 0 : -1;
	return sys_mshare(name, L(p), granules(v->n), O_RDWR, 0);
}

FIXTURE_SETUP(part)
{
	/* Of those by mmap(), one */
	NOT_ON_DEBUG(variant->by_mmap && !(variant->first == 1 && variant->slot < 16));
	self->name = new_name();
	self->p = slot(variant->slot);
	self->h = at(HOME, granules(variant->first));
	self->len = granules(variant->n);
	self->c = new_ctl();
	ASSERT_EQ(0, peer_start(&self->a));
	ASSERT_OK(peer_create(&self->a, self->name, HOME, granules(GRANULES)));
	ASSERT_OK(part_attach(self->name, variant));
}

FIXTURE_TEARDOWN(part)
{
	peer_stop(&self->a);
	munmap(self->p, self->len);
	remove_names();
}

/* Some offsets worth trying, @n pages from which are in the attachment */
#define FOR_OFFSETS(_off, _n)						\
	for (size_t _i = 0, _off;					\
	     _off = (size_t[]){ 0, GB + pages(3), self->len - granule(),	\
				self->len - pages(_n) }[_i & 3],	\
	     _i < 4; _i++)

TEST_F(part, content_is_the_same)
{
	FOR_OFFSETS(off, 2) {
		char *p = self->p + off, *h = self->h + off;

		ASSERT_EQ(p, map_anon(p, pages(2), MAP_PRIVATE));
		EXPECT_EQ(0, try_write(p, 5));
		EXPECT_EQ(5, peer_read(&self->a, h));
		EXPECT_EQ(0, peer_write(&self->a, h + page(), 6));
		EXPECT_EQ(6, try_read(p + page()));
		ASSERT_OK(peer_munmap(&self->a, h, pages(2)));
		ASSERT_EQ(h, peer_mmap(&self->a, h, pages(2), RW,
				       MAP_SHARED | MAP_ANONYMOUS | MAP_FIXED, -1, 0));
		EXPECT_EQ(0, peer_write(&self->a, h, 7));
		EXPECT_EQ(7, try_read(p));
		EXPECT_EQ(0, try_write(p + page(), 8));
		EXPECT_EQ(8, peer_read(&self->a, h + page()));
		ASSERT_OK(munmap(p, pages(2)));
		EXPECT_EQ(HOLE, peer_read(&self->a, h));
	}
}

TEST_F(part, a_signal_tells_the_address_that_was_used)
{
	FOR_OFFSETS(off, 1) {
		char *p = self->p + off;

		EXPECT_EQ(HOLE, read_exact(p));
		EXPECT_EQ(HOLE, write_exact(p, 1));
		ASSERT_EQ(p, map_anon(p, page(), MAP_PRIVATE));
		EXPECT_EQ(0, write_exact(p, 1));
		ASSERT_OK(mprotect(p, page(), PROT_READ));
		EXPECT_EQ(ACCERR, write_exact(p, 1));
		EXPECT_EQ(1, read_exact(p));
		ASSERT_OK(mprotect(p, page(), PROT_NONE));
		EXPECT_EQ(ACCERR, read_exact(p));
		ASSERT_OK(munmap(p, page()));
	}
}

TEST_F(part, beside_it_nothing_is_attached)
{
	bool whole = variant->n == GRANULES;
	long before, after;

	/* What others have mapped right beside it is not there. */
	if (variant->first) {
		ASSERT_EQ(self->h - page(),
			  peer_mmap(&self->a, self->h - page(), pages(2), RW,
				    ANON | MAP_FIXED, -1, 0));
		EXPECT_EQ(0, peer_write(&self->a, self->h - page(), 1));
	}
	if (variant->first + variant->n < GRANULES) {
		ASSERT_EQ(self->h + self->len - page(),
			  peer_mmap(&self->a, self->h + self->len - page(),
				    pages(2), RW, ANON | MAP_FIXED, -1, 0));
		EXPECT_EQ(0, peer_write(&self->a, self->h + self->len, 2));
	}
	EXPECT_EQ(GONE, try_read(self->p - page()));
	EXPECT_EQ(GONE, try_read(self->p + self->len));
	EXPECT_EQ(GONE, try_write(self->p - 1, 1));
	EXPECT_EQ(1, nr_mapped(self->p - granule(), self->len + 2 * granule()));

	/* The range is the process's own. */
	before = L(map_anon(self->p - page(), page(), MAP_PRIVATE));
	after = L(map_anon(self->p + self->len, page(), MAP_PRIVATE));
	EXPECT_EQ(L(self->p - page()), before);
	EXPECT_EQ(L(self->p + self->len), after);
	EXPECT_EQ(0, try_write(self->p - page(), 77));
	EXPECT_EQ(0, try_write(self->p + self->len, 78));
	if (variant->first)
		EXPECT_EQ(1, peer_read(&self->a, self->h - page()));
	if (!whole && variant->first + variant->n < GRANULES)
		EXPECT_EQ(2, peer_read(&self->a, self->h + self->len));
	munmap(self->p - page(), page());
	munmap(self->p + self->len, page());
}

TEST_F(part, maps_tells_what_is_attached)
{
	char line[256], *maps = maps_of(self->p, self->len);

	snprintf(line, sizeof(line), "%lx-%lx rwxs %08lx ", L(self->p),
		 L(self->p) + self->len, granules(variant->first));
	EXPECT_EQ(0, strncmp(maps, line, strlen(line))) {
		TH_LOG("%s instead of %s", maps, line);
	}
	EXPECT_NE(NULL, strstr(maps, self->name));
	free(maps);
}

TEST_F(part, a_mapping_stays_inside)
{
	char *p = self->p + GB, *q;
	size_t rest;

	/* A hint is taken, a used one finds room inside. */
	ASSERT_EQ(p, mmap(p, pages(2), RW, ANON, -1, 0));
	q = mmap(p, pages(2), RW, ANON, -1, 0);
	ASSERT_NE(MAP_FAILED, q);
	EXPECT_TRUE(q >= self->p && q < self->p + self->len);
	EXPECT_TRUE(q >= p + pages(2) || q + pages(2) <= p);
	EXPECT_EQ(0, try_write(q, 3));
	EXPECT_EQ(3, peer_read(&self->a, self->h + (q - self->p)));
	EXPECT_ERR(EEXIST, mmap(p + page(), pages(2), RW,
				ANON | MAP_FIXED_NOREPLACE, -1, 0));
	EXPECT_EQ(p + pages(2), mmap(p + pages(2), page(), RW,
				     ANON | MAP_FIXED_NOREPLACE, -1, 0));
	/* Room for huge pages: as aligned here as there */
	q = mmap(p, 2 * MB, RW, ANON, -1, 0);
	ASSERT_NE(MAP_FAILED, q);
	EXPECT_EQ(0, L(q) % (long)(2 * MB));
	EXPECT_TRUE(q >= self->p && q + 2 * MB <= self->p + self->len);

	/* When it is full, there is none, whatever else the region has. */
	ASSERT_OK(munmap(self->p + page(), self->len - page()));
	rest = self->len - pages(5);
	ASSERT_EQ(self->p, mmap(self->p, rest, PROT_NONE,
				ANON | MAP_FIXED | MAP_NORESERVE, -1, 0));
	q = mmap(p, pages(5), RW, ANON, -1, 0);
	EXPECT_EQ(self->p + rest, q);
	EXPECT_ERR(ENOMEM, mmap(p, page(), RW, ANON, -1, 0));
	ASSERT_OK(munmap(q + pages(2), pages(2)));
	EXPECT_ERR(ENOMEM, mmap(p, pages(3), RW, ANON, -1, 0));
	EXPECT_EQ(q + pages(2), mmap(p, pages(2), RW, ANON, -1, 0));
	/* Longer than the attachment */
	EXPECT_ERR(ENOMEM, mmap(p, self->len + page(), PROT_NONE,
				ANON | MAP_NORESERVE, -1, 0));
}

TEST_F(part, mremap_stays_inside)
{
	char *p = self->p + GB, *last = self->p + self->len - pages(2), *q;
	char *h = self->h + GB;

	ASSERT_EQ(p, map_anon(p, pages(2), MAP_PRIVATE));
	EXPECT_EQ(0, try_write(p, 11));
	EXPECT_EQ(0, try_write(p + page(), 12));
	/* In place */
	EXPECT_EQ(p, mremap(p, pages(2), pages(3), 0));
	EXPECT_EQ(0, peer_write(&self->a, h + pages(2), 13));
	EXPECT_EQ(13, try_read(p + pages(2)));
	/* It moves as what follows is used. */
	ASSERT_EQ(p + pages(3), map_anon(p + pages(3), page(), MAP_PRIVATE));
	EXPECT_ERR(ENOMEM, mremap(p, pages(3), pages(4), 0));
	q = mremap(p, pages(3), pages(4), MREMAP_MAYMOVE);
	ASSERT_NE(MAP_FAILED, q);
	ASSERT_TRUE(q >= self->p && q + pages(4) <= self->p + self->len);
	EXPECT_EQ(11, try_read(q));
	EXPECT_EQ(13, peer_read(&self->a, self->h + (q - self->p) + pages(2)));
	EXPECT_EQ(HOLE, try_read(p));
	/* To where it is told */
	EXPECT_EQ(p, mremap(q, pages(4), pages(2), MREMAP_MAYMOVE | MREMAP_FIXED, p));
	EXPECT_EQ(12, peer_read(&self->a, h + page()));
	EXPECT_EQ(HOLE, try_read(q));
	q = mremap(p, pages(2), pages(2), MREMAP_MAYMOVE | MREMAP_DONTUNMAP,
		   self->p + 2 * GB);
	EXPECT_EQ(self->p + 2 * GB, q);
	EXPECT_EQ(11, peer_read(&self->a, self->h + 2 * GB));
	EXPECT_EQ(0, try_read(p));
	/* It does not grow out of what is attached, nor move there. */
	ASSERT_EQ(last, map_anon(last, pages(2), MAP_PRIVATE));
	EXPECT_EQ(0, try_write(last, 14));
	EXPECT_ERR(ENOMEM, mremap(last, pages(2), pages(3), 0));
	q = mremap(last, pages(2), pages(3), MREMAP_MAYMOVE);
	ASSERT_NE(MAP_FAILED, q);
	EXPECT_TRUE(q >= self->p && q + pages(3) <= self->p + self->len);
	EXPECT_EQ(14, try_read(q));
	EXPECT_ERR(EINVAL, mremap(q, pages(3), pages(3),
				  MREMAP_MAYMOVE | MREMAP_FIXED,
				  self->p + self->len));
	EXPECT_ERR(EINVAL, mremap(q, pages(3), pages(3),
				  MREMAP_MAYMOVE | MREMAP_FIXED,
				  self->p - granule()));
	EXPECT_ERR(EINVAL, mremap(q, pages(3), pages(3),
				  MREMAP_MAYMOVE | MREMAP_FIXED, last + page()));
	EXPECT_EQ(14, try_read(q));
	/* Without room there it fails, though the region has some. */
	ASSERT_OK(munmap(self->p + page(), self->len - page()));
	ASSERT_EQ(self->p, mmap(self->p, self->len - page(), PROT_NONE,
				ANON | MAP_FIXED | MAP_NORESERVE, -1, 0));
	ASSERT_NE(MAP_FAILED, mmap(self->p + self->len - page(), page(), PROT_NONE,
				   ANON | MAP_FIXED, -1, 0));
	ASSERT_EQ(p, map_anon(p, page(), MAP_SHARED));
	EXPECT_EQ(0, try_write(p, 15));
	EXPECT_ERR(ENOMEM, mremap(p, page(), pages(2), MREMAP_MAYMOVE));
	EXPECT_EQ(15, peer_read(&self->a, h));
}

static long do_advise_parent(const struct request *rq)
{
	struct iovec iov = { (void *)rq->a[1], rq->a[2] };
	int fd = syscall(SYS_pidfd_open, rq->a[0], 0);
	long ret = syscall(SYS_process_madvise, fd, &iov, 1UL, rq->a[3], 0);
	int err = errno;

	close(fd);
	errno = err;
	return ret;
}

/* Every call acts at the addresses that the caller has. */
TEST_F(part, calls_act_on_what_the_caller_names)
{
	unsigned long mask = 1, got = 0;
	unsigned char vec[4] = {};
	int mode, status[2];
	void *pgs[2];

	FOR_OFFSETS(off, 4) {
		char *p = self->p + off, *h = self->h + off;
		char *file;
		int fd;

		ASSERT_EQ(p, map_anon(p, pages(4), MAP_PRIVATE));
		EXPECT_OK(madvise(p, pages(2), MADV_POPULATE_WRITE_));
		EXPECT_OK(mincore(p, pages(4), vec));
		EXPECT_EQ(1, vec[0] & 1);
		EXPECT_EQ(1, vec[1] & 1);
		EXPECT_EQ(0, vec[2] & 1);
		EXPECT_EQ(0, vec[3] & 1);
		for (int i = 0; i < 4; i++)
			EXPECT_EQ(0, peer_write(&self->a, h + pages(i), 20 + i));
		EXPECT_OK(madvise(p + page(), page(), MADV_DONTNEED));
		EXPECT_EQ(0, peer_read(&self->a, h + page()));
		EXPECT_EQ(20, peer_read(&self->a, h));
		EXPECT_EQ(22, peer_read(&self->a, h + pages(2)));
		/* By another process, which names the addresses of this one */
		EXPECT_EQ((long)page(),
			  PEER(&self->a, do_advise_parent, NULL, getpid(),
			       L(p + pages(2)), page(), MADV_COLD));
		EXPECT_OK(mlock(p, page()));
		EXPECT_OK(munlock(p, pages(4)));
		EXPECT_OK(msync(p, pages(4), MS_SYNC));
		EXPECT_OK(mprotect(p + pages(3), page(), PROT_READ));
		EXPECT_EQ(ACCERR, peer_write(&self->a, h + pages(3), 1));
		EXPECT_EQ(0, peer_write(&self->a, h + pages(2), 22));
		prctl(0x53564d41, 0, p, pages(2), "name");

		if (syscall(SYS_mbind, p, pages(2), 2 /* MPOL_BIND */, &mask, 64UL,
			    0) == 0) {
			EXPECT_OK(syscall(SYS_get_mempolicy, &mode, &got, 64UL, p,
					  2 /* MPOL_F_ADDR */));
			EXPECT_EQ(2, mode);
			EXPECT_OK(syscall(SYS_get_mempolicy, &mode, &got, 64UL,
					  p + pages(2), 2));
			EXPECT_EQ(0, mode);
			EXPECT_OK(syscall(SYS_get_mempolicy, &mode, NULL, 0UL, p, 3));
			EXPECT_EQ(0, mode);
			pgs[0] = p;
			pgs[1] = p + page();
			EXPECT_OK(madvise(p + page(), page(), MADV_DONTNEED));
			EXPECT_OK(syscall(SYS_move_pages, 0, 2UL, pgs, NULL, status, 0));
			EXPECT_EQ(0, status[0]);
			EXPECT_EQ(-ENOENT, status[1]);
		} else {
			EXPECT_EQ(ENOSYS, errno);
		}

		/* A file, at an offset and rearranged */
		fd = memfd_create("mshare", 0);
		ASSERT_OK(ftruncate(fd, pages(4)));
		file = mmap(NULL, pages(4), RW, MAP_SHARED, fd, 0);
		for (int i = 0; i < 4; i++)
			file[pages(i)] = 40 + i;
		ASSERT_EQ(p, mmap(p, pages(2), RW, MAP_SHARED | MAP_FIXED, fd,
				  pages(1)));
		EXPECT_EQ(41, peer_read(&self->a, h));
		EXPECT_OK(remap_file_pages(p + page(), page(), 0, 3, 0));
		EXPECT_EQ(43, peer_read(&self->a, h + page()));
		munmap(file, pages(4));
		close(fd);
		ASSERT_OK(munmap(p, pages(4)));
	}
}

/* Also what the kernel reads and writes for the process */
TEST_F(part, system_calls_fault_in_what_they_need)
{
	char *p = self->p + GB;
	int fds[2];
	char c = 9;

	ASSERT_OK(pipe(fds));
	ASSERT_EQ(p, map_anon(p, pages(2), MAP_PRIVATE));
	EXPECT_EQ(1, write(fds[1], &c, 1));
	EXPECT_EQ(1, read(fds[0], p, 1));
	EXPECT_EQ(9, peer_read(&self->a, self->h + GB));
	EXPECT_EQ(0, peer_write(&self->a, self->h + GB + page(), 8));
	EXPECT_EQ(1, write(fds[1], p + page(), 1));
	EXPECT_EQ(1, read(fds[0], &c, 1));
	EXPECT_EQ(8, c);
	EXPECT_ERR(EFAULT, write(fds[1], p + pages(2), 1));
	close(fds[0]);
	close(fds[1]);
}

/* What another has mapped across the edge of the part is changed up to there. */
TEST_F(part, a_mapping_across_the_edge_is_changed_up_to_the_edge)
{
	char *p, *h;
	int i;

	if (variant->first) {
		p = self->p;
		h = self->h;
		ASSERT_EQ(h - pages(2), peer_mmap(&self->a, h - pages(2), pages(4), RW,
						  ANON | MAP_FIXED, -1, 0));
		for (i = -2; i < 2; i++)
			EXPECT_EQ(0, peer_write(&self->a, h + i * (long)page(), 10 + i));
		EXPECT_OK(mprotect(p, page(), PROT_READ));
		EXPECT_EQ(0, peer_write(&self->a, h - page(), 9));
		EXPECT_EQ(ACCERR, peer_write(&self->a, h, 9));
		EXPECT_OK(mprotect(p, page(), RW));
		EXPECT_OK(mlock(p, pages(2)));
		EXPECT_OK(munlock(p, pages(2)));
		EXPECT_ERR(EINVAL, munmap(p - page(), pages(2)));
		EXPECT_ERR(EINVAL, mprotect(p - page(), pages(2), PROT_NONE));
		EXPECT_OK(munmap(p, pages(2)));
		EXPECT_EQ(9, peer_read(&self->a, h - page()));
		EXPECT_EQ(8, peer_read(&self->a, h - pages(2)));
		EXPECT_EQ(HOLE, peer_read(&self->a, h));
	}
	if (variant->first + variant->n < GRANULES) {
		p = self->p + self->len;
		h = self->h + self->len;
		ASSERT_EQ(h - pages(2), peer_mmap(&self->a, h - pages(2), pages(4), RW,
						  ANON | MAP_FIXED, -1, 0));
		for (i = -2; i < 2; i++)
			EXPECT_EQ(0, peer_write(&self->a, h + i * (long)page(), 10 + i));
		EXPECT_OK(mprotect(p - page(), page(), PROT_READ));
		EXPECT_EQ(0, peer_write(&self->a, h, 9));
		EXPECT_EQ(ACCERR, peer_write(&self->a, h - page(), 9));
		EXPECT_ERR(EINVAL, munmap(p - page(), pages(2)));
		EXPECT_ERR(EINVAL, mremap(p - page(), pages(2), pages(4),
					  MREMAP_MAYMOVE));
		EXPECT_OK(munmap(p - pages(2), pages(2)));
		EXPECT_EQ(9, peer_read(&self->a, h));
		EXPECT_EQ(HOLE, peer_read(&self->a, h - page()));
		EXPECT_OK(peer_munmap(&self->a, h, pages(2)));
	}
}

/* The whole attachment is what this process has attached. */
TEST_F(part, the_whole_part_is_the_processes_own)
{
	char *p = self->p + GB, *h = self->h + GB;

	ASSERT_EQ(p, map_anon(p, page(), MAP_PRIVATE));
	EXPECT_EQ(0, try_write(p, 3));
	EXPECT_OK(madvise(self->p, self->len, MADV_DONTFORK));
	EXPECT_ERR(EINVAL, madvise(self->p, self->len - page(), MADV_DOFORK));
	EXPECT_OK(madvise(self->p, self->len, MADV_DOFORK));
	EXPECT_ERR(EINVAL, mremap(self->p, self->len, self->len,
				  MREMAP_MAYMOVE | MREMAP_FIXED, slot(40)));
	EXPECT_OK(mprotect(self->p, self->len, PROT_READ) == 0 || errno == ENOMEM ?
		  0 : -1);

	EXPECT_OK(munmap(self->p, self->len));
	EXPECT_EQ(0, nr_mapped(self->p, self->len));
	EXPECT_EQ(GONE, try_read(p));
	EXPECT_EQ(3, peer_read(&self->a, h));
	ASSERT_OK(part_attach(self->name, variant));
	EXPECT_EQ(3, try_read(p));
	/* Over it, and what is beside it */
	ASSERT_EQ(self->p - page(), mmap(self->p - page(), self->len + pages(2),
					 PROT_READ, ANON | MAP_FIXED | MAP_NORESERVE,
					 -1, 0));
	EXPECT_EQ(0, try_read(p));
	EXPECT_EQ(3, peer_read(&self->a, h));
	ASSERT_OK(munmap(self->p - page(), self->len + pages(2)));
	ASSERT_OK(part_attach(self->name, variant));
	EXPECT_EQ(3, try_read(p));
	/* The name goes with who is left. */
	EXPECT_OK(mshare_unlink(self->name));
	EXPECT_EQ(GONE, try_read(p));
	EXPECT_TRUE(name_exists(self->name));
	EXPECT_ERR(EBUSY, mshare_unlink(self->name));
	EXPECT_OK(peer_unlink(&self->a, self->name));
	EXPECT_FALSE(name_exists(self->name));
}

TEST_F(part, a_child_has_it_where_the_parent_has)
{
	char *p = self->p + GB, *h = self->h + GB;
	struct peer child;

	ASSERT_EQ(p, map_anon(p, pages(2), MAP_PRIVATE));
	EXPECT_EQ(0, try_write(p, 3));
	ASSERT_EQ(0, peer_start(&child));
	EXPECT_EQ(3, peer_read(&child, p));
	EXPECT_EQ(0, peer_write(&child, p + page(), 4));
	EXPECT_EQ(4, peer_read(&self->a, h + page()));
	EXPECT_EQ(HOLE, peer_read(&child, p + pages(2)));
	EXPECT_EQ(p + pages(2), peer_mmap(&child, p + pages(2), page(), RW, ANON, -1, 0));
	EXPECT_EQ(0, try_write(p + pages(2), 5));
	EXPECT_OK(peer_munmap(&child, self->p, self->len));
	EXPECT_EQ(GONE, peer_read(&child, p));
	EXPECT_EQ(3, try_read(p));
	peer_stop(&child);
	EXPECT_EQ(5, peer_read(&self->a, h + pages(2)));
}

TEST_F(part, exec_and_exit_detach)
{
	struct mshare_info info;
	int status, fd;
	pid_t pid;

	fd = open(path_of(self->name), O_RDONLY | O_CLOEXEC);
	ASSERT_LE(0, fd);
	ASSERT_EQ((ssize_t)sizeof(info), pread(fd, &info, sizeof(info), 0));
	EXPECT_EQ(2, (int)info.nr_attached);
	pid = fork_bound();
	if (!pid)
		_exit(execl("/bin/true", "true", NULL));
	ASSERT_EQ(pid, waitpid(pid, &status, 0));
	EXPECT_EQ(0, status);
	pid = fork_bound();
	if (!pid)
		kill(getpid(), SIGKILL);
	ASSERT_EQ(pid, waitpid(pid, &status, 0));
	EXPECT_TRUE(WAIT_FOR(pread(fd, &info, sizeof(info), 0) > 0 &&
			     info.nr_attached == 2, 10));
	close(fd);
	EXPECT_EQ(HOLE, try_read(self->p));
}

/* A read-only attachment is one wherever it is. */
TEST_F(part, read_only_is_read_only)
{
	char *p = self->p + GB, *h = self->h + GB;

	ASSERT_EQ(p, map_anon(p, page(), MAP_PRIVATE));
	EXPECT_EQ(0, try_write(p, 3));
	ASSERT_OK(munmap(self->p, self->len));
	ASSERT_EQ(self->p, map_part(self->name, self->p, variant->first, variant->n,
				    PROT_READ, MAP_SHARED));
	EXPECT_EQ(3, try_read(p));
	EXPECT_EQ(ACCERR, write_exact(p, 4));
	EXPECT_EQ(HOLE, read_exact(p + page()));
	EXPECT_ERR(EACCES, mprotect(p, page(), RW));
	EXPECT_ERR(EACCES, munmap(p, page()));
	EXPECT_ERR(EACCES, mmap(p, page(), RW, ANON, -1, 0));
	EXPECT_EQ(3, peer_read(&self->a, h));
	EXPECT_EQ(0, peer_write(&self->a, h, 5));
	EXPECT_EQ(5, try_read(p));
}

/*
 * Stale translations, as in mshare_tlb.c: the page is changed by who has it at
 * another address.
 */

static long spin(struct ctl *c, volatile unsigned char *p, bool write)
{
	volatile int after;

	if (sigsetjmp(probe_env, 0)) {
		atomic_store(&c->ended, 1);
		return probe_addr == p ? FAULT(probe_sig, probe_code) : -1;
	}
	probing = 1;
	while (!atomic_load(&c->stop)) {
		after = atomic_load(&c->after);
		if (write)
			*p = 0x11;
		else
			*p;
		if (after)
			atomic_fetch_add(&c->stale, 1);
		atomic_fetch_add(&c->beat, 1);
	}
	probing = 0;
	return 0;
}

static long do_spin(const struct request *rq)
{
	return spin((void *)rq->a[0], (void *)rq->a[1], rq->a[2]);
}

enum { UNMAP, PROTECT, WRPROTECT, NR_CHANGES };

static long change(void *p, size_t len, int how)
{
	switch (how) {
	case UNMAP:
		return munmap(p, len);
	case PROTECT:
		return mprotect(p, len, PROT_NONE);
	default:
		return mprotect(p, len, PROT_READ);
	}
}

static long do_change(const struct request *rq)
{
	return change((void *)rq->a[0], rq->a[1], rq->a[2]);
}

/*
 * A child, which has the part where the test process has it, uses a page while
 * the other changes @n pages from @skip pages before it on.
 */
static void stale_round(struct __test_metadata *_metadata, struct ctl *c,
			struct peer *user, struct peer *changer, char *used,
			char *changed, long skip, size_t n, int how)
{
	long beat, got;

	ASSERT_EQ(changed - pages(skip),
		  peer_mmap(changer, changed - pages(skip), pages(n), RW,
			    ANON | MAP_FIXED, -1, 0));
	ASSERT_EQ(0, peer_write(changer, changed, 0x11));
	atomic_store(&c->stop, 0);
	atomic_store(&c->after, 0);
	atomic_store(&c->ended, 0);
	beat = atomic_load(&c->beat);
	PEER_SEND(user, do_spin, NULL, L(c), L(used), how != PROTECT);
	ASSERT_TRUE(WAIT_FOR(atomic_load(&c->beat) > beat + 50, 20));
	ASSERT_OK(PEER(changer, do_change, NULL, L(changed - pages(skip)), pages(n),
		       how));
	atomic_store(&c->after, 1);
	ASSERT_TRUE(WAIT_FOR(atomic_load(&c->ended), 20)) {
		TH_LOG("the process goes on with a stale translation");
	}
	got = peer_wait(user);
	ASSERT_EQ(how == UNMAP ? HOLE : ACCERR, got);
	ASSERT_EQ(0, atomic_load(&c->stale));
	ASSERT_OK(peer_munmap(changer, changed - pages(skip), pages(n)));
}

#define NEED_CPUS(_n) do {						\
	if (nr_cpus() < (_n))						\
		SKIP(return, "needs %d CPUs", _n);			\
} while (0)

TEST_F_TIMEOUT(part, no_translation_outlives_a_change, LONG_TIMEOUT)
{
	struct ctl *c = self->c;
	struct peer user;
	long rounds = scaled(4), i;
	int how, last;

	NEED_CPUS(2);
	ASSERT_EQ(0, peer_start(&user));
	ASSERT_OK(peer_pin(&user, 1));
	ASSERT_OK(peer_pin(&self->a, 0));
	ASSERT_OK(pin(0));
	for (i = 0; i < rounds; i++) {
		for (how = 0; how < NR_CHANGES; how++) {
			for (last = 0; last < 2; last++) {
				size_t off = last ? self->len - page() : 0;

				/* One page; some; some on both sides of the edge */
				stale_round(_metadata, c, &user, &self->a,
					    self->p + GB, self->h + GB, 0, 1, how);
				stale_round(_metadata, c, &user, &self->a,
					    self->p + off, self->h + off,
					    last || variant->first ? 3 : 0,
					    last && variant->first + variant->n ==
					    GRANULES ? 4 : 7, how);
			}
			/* And the other way round */
			stale_round(_metadata, c, &self->a, &user, self->h + GB,
				    self->p + GB, 0, 1, how);
		}
	}
	peer_stop(&user);
}

/* A CPU that sleeps, or runs something else, finds out when it comes back. */
TEST_F_TIMEOUT(part, no_translation_outlives_a_change_while_asleep, LONG_TIMEOUT)
{
	char *p = self->p + self->len - page(), *h = self->h + self->len - page();
	long rounds = scaled(20), i;
	struct peer user;

	NEED_CPUS(2);
	ASSERT_EQ(0, peer_start(&user));
	ASSERT_OK(peer_pin(&user, 1));
	ASSERT_OK(peer_pin(&self->a, 0));
	ASSERT_OK(pin(0));
	for (i = 0; i < rounds; i++) {
		ASSERT_EQ(h, peer_mmap(&self->a, h, page(), RW, ANON | MAP_FIXED, -1, 0));
		ASSERT_EQ(0, peer_write(&user, p, 1));
		if (i & 1)
			usleep(2000);
		ASSERT_OK(PEER(&self->a, do_change, NULL, L(h), page(), i % NR_CHANGES));
		ASSERT_EQ(i % NR_CHANGES == UNMAP ? HOLE : ACCERR,
			  peer_write(&user, p, 2));
	}
	peer_stop(&user);
}

/* The CPU that makes the change has translations, too, at its own addresses. */
TEST_F_TIMEOUT(part, no_translation_of_the_one_who_changes_is_left, LONG_TIMEOUT)
{
	long rounds = scaled(30), i;

	for (i = 0; i < rounds; i++) {
		char *p = self->p + (i & 1 ? GB : self->len - pages(3));
		int how = i % NR_CHANGES;

		ASSERT_EQ(p, map_anon(p, pages(3), MAP_PRIVATE));
		ASSERT_EQ(0, try_write(p, 1));
		ASSERT_EQ(0, try_write(p + pages(2), 1));
		ASSERT_OK(change(p, pages(3), how));
		ASSERT_EQ(how == UNMAP ? HOLE : ACCERR, write_exact(p, 2));
		ASSERT_EQ(how == UNMAP ? HOLE : ACCERR, write_exact(p + pages(2), 2));
		ASSERT_OK(munmap(p, pages(3)));
	}
}

/*
 * The same addresses show one part of the region after another, while another
 * thread looks.
 */

FIXTURE(place)
{
	const char *name;
	char *home;
	struct peer a;
};

FIXTURE_SETUP(place)
{
	unsigned int i;

	self->name = new_name();
	self->home = HOME;
	ASSERT_EQ(0, peer_start(&self->a));
	ASSERT_OK(peer_create(&self->a, self->name, HOME, granules(GRANULES)));
	for (i = 0; i < GRANULES; i++) {
		char *p = self->home + granules(i);

		ASSERT_EQ(p, peer_mmap(&self->a, p, page(), RW, ANON | MAP_FIXED, -1, 0));
		ASSERT_EQ(0, peer_write(&self->a, p, 10 + i));
	}
}

FIXTURE_TEARDOWN(place)
{
	peer_stop(&self->a);
	mshare_unlink(self->name);
	remove_names();
}

struct looker {
	void *p;
	/* What there is to see, 0 if nothing certain, and above 8 bits a count */
	atomic_int expected;
	atomic_int stop;
	atomic_long wrong, looks;
};

static void *look(void *arg)
{
	struct looker *l = arg;
	int before, after;
	long r;

	pin(1);
	while (!atomic_load(&l->stop)) {
		before = atomic_load(&l->expected);
		r = try_read(l->p);
		after = atomic_load(&l->expected);
		if ((before & 255) && before == after && r != (before & 255))
			atomic_fetch_add(&l->wrong, 1);
		atomic_fetch_add(&l->looks, 1);
	}
	return NULL;
}

/* The same value later is not the same: there was another in between. */
static void expect_now(struct looker *l, int value)
{
	atomic_store(&l->expected,
		     ((atomic_load(&l->expected) & ~255) + 256) | value);
}

TEST_F_TIMEOUT(place, attaching_elsewhere_leaves_nothing_behind, LONG_TIMEOUT)
{
	struct looker l = { .p = slot(20) };
	long rounds = scaled(60), i, looks;
	pthread_t thread;

	NEED_CPUS(2);
	pin(0);
	ASSERT_EQ(0, pthread_create(&thread, NULL, look, &l));
	for (i = 0; i < rounds; i++) {
		unsigned int first = i % GRANULES;

		ASSERT_EQ(l.p, map_part(self->name, l.p, first, 1, RW, MAP_SHARED));
		expect_now(&l, 10 + first);
		looks = atomic_load(&l.looks);
		ASSERT_TRUE(WAIT_FOR(atomic_load(&l.looks) > looks + 5, 20));
		expect_now(&l, 0);
		/* Replaced by another part, at once */
		first = (i + 1 + i / GRANULES % (GRANULES - 1)) % GRANULES;
		ASSERT_EQ(l.p, map_part(self->name, l.p, first, 1, RW,
					MAP_SHARED | MAP_FIXED));
		expect_now(&l, 10 + first);
		looks = atomic_load(&l.looks);
		ASSERT_TRUE(WAIT_FOR(atomic_load(&l.looks) > looks + 5, 20));
		expect_now(&l, 0);
		ASSERT_OK(munmap(l.p, granule()));
	}
	atomic_store(&l.stop, 1);
	ASSERT_EQ(0, pthread_join(thread, NULL));
	EXPECT_EQ(0, atomic_load(&l.wrong));
}

/* Three processes, three places, one memory */
TEST_F(place, everyone_has_it_elsewhere)
{
	char *places[3] = { slot(20), slot(30), slot(1) };
	struct peer peers[3];
	unsigned int i, j;

	for (i = 0; i < 3; i++) {
		ASSERT_EQ(0, peer_start(&peers[i]));
		ASSERT_EQ(places[i], (void *)PEER(&peers[i], do_map_part, self->name,
						  L(places[i]), i, 2, RW, MAP_SHARED));
	}
	for (i = 0; i < 3; i++)
		for (j = 0; j < 2; j++)
			EXPECT_EQ(10 + (long)(i + j),
				  peer_read(&peers[i], places[i] + granules(j)));
	/* Granule 1 is the second of the first and the first of the second. */
	EXPECT_OK(peer_mprotect(&peers[0], places[0] + granule(), page(), PROT_READ));
	EXPECT_EQ(ACCERR, peer_write(&peers[1], places[1], 1));
	EXPECT_EQ(0, peer_write(&peers[2], places[2], 33));
	EXPECT_EQ(33, peer_read(&peers[1], places[1] + granule()));
	EXPECT_EQ(33, peer_read(&self->a, self->home + granules(2)));
	EXPECT_OK(peer_munmap(&peers[1], places[1] + granule(), page()));
	EXPECT_EQ(HOLE, peer_read(&peers[2], places[2]));
	for (i = 0; i < 3; i++)
		peer_stop(&peers[i]);
}

/* What is refused, and with what */

#define EXPECT_REFUSAL(_err, _addr, _len, _oflag) do {			\
	EXPECT_ERR(_err, sys_mshare(self->name, L(_addr), _len, _oflag, 0600)); \
	EXPECT_EQ(before, nr_mapped(NULL, ~0UL));			\
} while (0)

#define EXPECT_NO_MAP(_err, _addr, _first, _n, _flags) do {		\
	EXPECT_ERR(_err, map_part(self->name, _addr, _first, _n, RW, _flags)); \
	EXPECT_EQ(before, nr_mapped(NULL, ~0UL));			\
} while (0)

TEST_F(place, ranges_that_are_neither_part_nor_all_are_refused)
{
	size_t g = granule();
	char *h = self->home;
	int before = nr_mapped(NULL, ~0UL), fd;

	/* Parts that are not where they belong */
	EXPECT_REFUSAL(EINVAL, h + 4 * g, g, O_RDWR);
	EXPECT_REFUSAL(EINVAL, h - g, g, O_RDWR);
	EXPECT_REFUSAL(EINVAL, h - g, 2 * g, O_RDWR);
	EXPECT_REFUSAL(EINVAL, h + 3 * g, 2 * g, O_RDWR);
	EXPECT_REFUSAL(EINVAL, slot(30), 3 * g, O_RDWR);
	EXPECT_REFUSAL(EINVAL, h, 5 * g, O_RDWR);
	EXPECT_REFUSAL(EINVAL, slot(30), 5 * g, O_RDWR);
	/* Not of granules */
	EXPECT_REFUSAL(EINVAL, h + page(), g, O_RDWR);
	EXPECT_REFUSAL(EINVAL, h + g / 2, g, O_RDWR);
	EXPECT_REFUSAL(EINVAL, h, g / 2, O_RDWR);
	EXPECT_REFUSAL(EINVAL, slot(30) + g / 2, 4 * g, O_RDWR);
	EXPECT_REFUSAL(EINVAL, slot(30) + page(), 4 * g, O_RDWR);
	/* Not in user address space */
	EXPECT_REFUSAL(EINVAL, -4 * g, 4 * g, O_RDWR);
	EXPECT_REFUSAL(EINVAL, 1UL << 63, 4 * g, O_RDWR);
	EXPECT_REFUSAL(EINVAL, (1UL << 56) - 4 * g, 4 * g, O_RDWR);
	EXPECT_REFUSAL(EINVAL, 0, 4 * g, O_RDWR);
	EXPECT_REFUSAL(EEXIST, h + g, g, O_RDWR | O_CREAT | O_EXCL);

	/* By mmap */
	EXPECT_NO_MAP(EINVAL, slot(30), 4, 1, MAP_SHARED);
	EXPECT_NO_MAP(EINVAL, slot(30), 3, 2, MAP_SHARED);
	EXPECT_NO_MAP(EINVAL, slot(30), 0, 5, MAP_SHARED);
	EXPECT_NO_MAP(EINVAL, slot(30), 1UL << 23, 1, MAP_SHARED);
	EXPECT_NO_MAP(EINVAL, slot(30) + g / 2, 0, 4, MAP_SHARED);
	EXPECT_NO_MAP(EINVAL, slot(30) + page(), 0, 1, MAP_SHARED | MAP_FIXED);
	EXPECT_NO_MAP(EINVAL, slot(30) + 1, 0, 1, MAP_SHARED | MAP_FIXED);
	EXPECT_NO_MAP(EINVAL, slot(30), 1, 1, MAP_PRIVATE);
	EXPECT_NO_MAP(EINVAL, NULL, 1, 1, MAP_SHARED | MAP_FIXED);
	fd = open(path_of(self->name), O_RDWR);
	ASSERT_LE(0, fd);
	EXPECT_ERR(EINVAL, mmap(slot(30), g, RW, MAP_SHARED, fd, page()));
	EXPECT_ERR(EINVAL, mmap(slot(30), g, RW, MAP_SHARED, fd, g / 2));
	EXPECT_ERR(EINVAL, mmap(slot(30), g / 2, RW, MAP_SHARED, fd, 0));
	EXPECT_ERR(EINVAL, mmap(slot(30), page(), RW, MAP_SHARED, fd, 0));
	EXPECT_ERR(EINVAL, mmap(NULL, g, RW, MAP_SHARED, fd, -(off_t)g));
	close(fd);
	EXPECT_EQ(before, nr_mapped(NULL, ~0UL));
	EXPECT_EQ(10, peer_read(&self->a, h));
}

TEST_F(place, what_is_in_the_way_stays)
{
	size_t g = granule();
	char *p = slot(30);
	int before;

	ASSERT_EQ(p + 3 * g, map_anon(p + 3 * g, page(), MAP_PRIVATE));
	EXPECT_EQ(0, try_write(p + 3 * g, 5));
	before = nr_mapped(NULL, ~0UL);
	EXPECT_REFUSAL(EBUSY, p, 4 * g, O_RDWR);
	EXPECT_NO_MAP(EBUSY, p, 0, 4, MAP_SHARED);
	EXPECT_NO_MAP(EBUSY, p + 2 * g, 1, 2, MAP_SHARED);
	EXPECT_NO_MAP(EEXIST, p, 0, 4, MAP_SHARED | MAP_FIXED_NOREPLACE);
	EXPECT_EQ(5, try_read(p + 3 * g));
	/* What is refused replaces nothing. */
	EXPECT_NO_MAP(EINVAL, p + 3 * g, 4, 1, MAP_SHARED | MAP_FIXED);
	EXPECT_EQ(5, try_read(p + 3 * g));
	/* Beside it there is room. */
	EXPECT_EQ(p, map_part(self->name, p, 0, 3, RW, MAP_SHARED));
	EXPECT_EQ(12, try_read(p + 2 * g));
	EXPECT_EQ(5, try_read(p + 3 * g));
	ASSERT_OK(munmap(p, 4 * g));
	/* Replaced on demand */
	ASSERT_EQ(p + 3 * g, map_anon(p + 3 * g, page(), MAP_PRIVATE));
	EXPECT_EQ(p + 2 * g, map_part(self->name, p + 2 * g, 1, 2, RW,
				      MAP_SHARED | MAP_FIXED));
	EXPECT_EQ(12, try_read(p + 3 * g));
}

TEST_F(place, a_process_attaches_a_region_once)
{
	size_t g = granule();
	char *h = self->home, *p = slot(30);
	const char *other = new_name();
	int before;

	ASSERT_OK(sys_mshare(self->name, L(h + g), g, O_RDWR, 0));
	before = nr_mapped(NULL, ~0UL);
	EXPECT_REFUSAL(EBUSY, h + g, g, O_RDWR);
	EXPECT_REFUSAL(EBUSY, h, g, O_RDWR);
	EXPECT_REFUSAL(EBUSY, h + 2 * g, 2 * g, O_RDWR);
	EXPECT_REFUSAL(EBUSY, p, 4 * g, O_RDWR);
	EXPECT_REFUSAL(EBUSY, 0, 0, O_RDWR);
	EXPECT_NO_MAP(EBUSY, p, 2, 1, MAP_SHARED);
	EXPECT_NO_MAP(EBUSY, p, 2, 1, MAP_SHARED | MAP_FIXED);
	EXPECT_NO_MAP(EBUSY, NULL, 2, 1, MAP_SHARED);
	EXPECT_EQ(11, try_read(h + g));
	/* Nor a region inside another, nor across its edge */
	ASSERT_OK(sys_mshare(other, L(p), 2 * g, O_RDWR | O_CREAT | O_EXCL, 0600));
	before = nr_mapped(NULL, ~0UL);
	EXPECT_ERR(EBUSY, map_part(other, h + g, 0, 1, RW, MAP_SHARED | MAP_FIXED));
	EXPECT_NO_MAP(EINVAL, p, 0, 1, MAP_SHARED | MAP_FIXED);
	EXPECT_NO_MAP(EINVAL, p + g, 2, 2, MAP_SHARED | MAP_FIXED);
	EXPECT_EQ(HOLE, try_read(p));
	EXPECT_EQ(11, try_read(h + g));
	/* In place of itself and of others it can be. */
	EXPECT_EQ(h, map_part(self->name, h, 1, 3, RW, MAP_SHARED | MAP_FIXED));
	EXPECT_EQ(11, try_read(h));
	EXPECT_EQ(13, try_read(h + 2 * g));
	ASSERT_OK(munmap(h, 3 * g));
	EXPECT_EQ(p, map_part(self->name, p, 2, 2, RW, MAP_SHARED | MAP_FIXED));
	EXPECT_EQ(12, try_read(p));
	EXPECT_OK(mshare_unlink(other));
}

TEST_F(place, without_an_address_a_part_goes_where_it_belongs)
{
	size_t g = granule();

	EXPECT_EQ(self->home + 2 * g, map_part(self->name, NULL, 2, 1, RW, MAP_SHARED));
	EXPECT_EQ(12, try_read(self->home + 2 * g));
	EXPECT_EQ(GONE, try_read(self->home + g));
	ASSERT_OK(munmap(self->home + 2 * g, g));
	EXPECT_EQ(self->home, map_part(self->name, NULL, 0, 4, RW, MAP_SHARED));
	EXPECT_EQ(13, try_read(self->home + 3 * g));
}

/* Attachments that touch are not made one. */
TEST_F(place, neighbours_stay_apart)
{
	const char *other = new_name();
	size_t g = granule();
	char *p = slot(30);

	ASSERT_OK(sys_mshare(other, L(p), 2 * g, O_RDWR | O_CREAT | O_EXCL, 0600));
	ASSERT_EQ(p - g, map_part(self->name, p - g, 0, 1, RW, MAP_SHARED));
	ASSERT_EQ(p + 2 * g, map_anon(p + 2 * g, page(), MAP_SHARED));
	EXPECT_EQ(2, nr_mapped(p - g, 3 * g));
	EXPECT_OK(madvise(p - g, 3 * g, MADV_DONTFORK));
	EXPECT_OK(madvise(p - g, 3 * g, MADV_DOFORK));
	EXPECT_EQ(2, nr_mapped(p - g, 3 * g));
	EXPECT_ERR(EINVAL, munmap(p - page(), pages(2)));
	EXPECT_ERR(EINVAL, mprotect(p - page(), pages(2), PROT_READ));
	EXPECT_EQ(10, try_read(p - g));
	EXPECT_OK(munmap(p - g, 3 * g));
	EXPECT_EQ(0, nr_mapped(p - g, 3 * g));
	mshare_unlink(other);
}

static bool high_addresses(void)
{
	void *p = mmap((void *)(1UL << 50), page(), RW, ANON, -1, 0);

	munmap(p, page());
	return p == (void *)(1UL << 50);
}

/* Above and below the limit of 4-level page tables, each seen from the other */
TEST_F(place, high_and_low_addresses)
{
	const char *other = new_name();
	char *high = (char *)(1UL << 50), *low = slot(30);
	size_t g = granule();

	if (!high_addresses()) {
		EXPECT_ERR(EINVAL, sys_mshare(self->name, L(high), 4 * g, O_RDWR, 0));
		EXPECT_ERR(EINVAL, sys_mshare(other, L(high), 4 * g,
					      O_RDWR | O_CREAT, 0600));
		SKIP(return, "no addresses above 47 bits");
	}
	ASSERT_OK(sys_mshare(self->name, L(high), 4 * g, O_RDWR, 0));
	EXPECT_EQ(13, try_read(high + 3 * g));
	EXPECT_EQ(0, try_write(high + 3 * g, 44));
	EXPECT_EQ(44, peer_read(&self->a, self->home + 3 * g));
	EXPECT_EQ(HOLE, read_exact(high + page()));
	ASSERT_EQ(high + page(), mmap(high + page(), page(), RW, ANON, -1, 0));
	EXPECT_EQ(0, try_write(high + page(), 45));
	EXPECT_EQ(45, peer_read(&self->a, self->home + page()));
	EXPECT_OK(peer_munmap(&self->a, self->home + page(), page()));
	EXPECT_EQ(HOLE, read_exact(high + page()));
	ASSERT_OK(munmap(high, 4 * g));

	ASSERT_OK(sys_mshare(other, L(high), 2 * g, O_RDWR | O_CREAT | O_EXCL, 0600));
	ASSERT_EQ(high + g, map_anon(high + g, page(), MAP_PRIVATE));
	EXPECT_EQ(0, try_write(high + g, 46));
	ASSERT_EQ(low, (void *)PEER(&self->a, do_map_part, other, L(low), 1, 1, RW,
				    MAP_SHARED));
	EXPECT_EQ(46, peer_read(&self->a, low));
	EXPECT_EQ(low + page(), peer_mmap(&self->a, low, page(), RW, ANON, -1, 0));
	EXPECT_OK(peer_munmap(&self->a, low, page()));
	EXPECT_EQ(HOLE, read_exact(high + g));
	munmap(high, 2 * g);
}

/*
 * What perf records of the faults of this process and of what it maps: has it
 * been in [@p, @p + @len)?
 */
struct perf_seen {
	int faults, maps, others;
	unsigned long start, len, pgoff;
};

static int perf_open(int config)
{
	struct perf_event_attr attr = {
		.type = PERF_TYPE_SOFTWARE,
		.size = sizeof(attr),
		.config = config,
		.sample_period = 1,
		.sample_type = PERF_SAMPLE_ADDR,
		.mmap = 1,
		.mmap_data = 1,
		.exclude_kernel = 1,
		.exclude_hv = 1,
	};

	return syscall(SYS_perf_event_open, &attr, 0, -1, -1, PERF_FLAG_FD_CLOEXEC);
}

static void perf_look(void *ring, void *p, size_t len, struct perf_seen *seen)
{
	struct perf_event_mmap_page *head = ring;
	unsigned long pos, addr;

	memset(seen, 0, sizeof(*seen));
	for (pos = 0; pos < head->data_head; ) {
		/* The ring never gets full, so nothing wraps around. */
		struct perf_event_header *h = at(ring, page() + pos);
		__u64 *body = (__u64 *)(h + 1);

		if (h->type == PERF_RECORD_SAMPLE) {
			addr = body[0];
			if (addr - L(p) < len)
				seen->faults++;
			else if (addr >= 1UL << 43 && addr < 1UL << 46)
				seen->others++;
		} else if (h->type == PERF_RECORD_MMAP) {
			addr = body[1];
			if (addr - L(p) < len) {
				seen->maps++;
				seen->start = addr;
				seen->len = body[2];
				seen->pgoff = body[3];
			} else if (addr >= 1UL << 43 && addr < 1UL << 46) {
				seen->others++;
			}
		}
		pos += h->size;
	}
}

/*
 * Once, and not for each way to attach: perf makes the kernel patch its code, at
 * which emulators may fail.
 */
TEST_F(place, perf_tells_the_addresses_of_the_process)
{
	char *start = slot(30), *h = self->home + granules(3) - pages(4);
	size_t len = granules(2), size = pages(1 + 16);
	char *p = start + len - pages(4);
	struct perf_seen seen;
	int fd, file;
	void *ring;

	ASSERT_EQ(start, map_part(self->name, start, 1, 2, RW, MAP_SHARED));
	fd = perf_open(PERF_COUNT_SW_PAGE_FAULTS_MIN);
	if (fd < 0)
		SKIP(return, "no perf events: %s", strerror(errno));
	ring = mmap(NULL, size, RW, MAP_SHARED, fd, 0);
	ASSERT_NE(MAP_FAILED, ring);
	file = memfd_create("mshare", 0);
	ASSERT_OK(ftruncate(file, pages(8)));

	ASSERT_EQ(p, mmap(p, pages(2), RW, MAP_SHARED | MAP_FIXED, file, pages(3)));
	EXPECT_EQ(0, try_write(p + page(), 1));
	perf_look(ring, start, len, &seen);
	EXPECT_EQ(1, seen.faults);
	EXPECT_EQ(1, seen.maps);
	EXPECT_EQ(0, seen.others);
	EXPECT_EQ(L(p), (long)seen.start);
	EXPECT_EQ(pages(2), seen.len);
	EXPECT_EQ(pages(3), seen.pgoff);

	/* What others have of the mapping behind the edge is not told of. */
	ASSERT_EQ(h, peer_mmap(&self->a, h, pages(8), RW, ANON | MAP_FIXED, -1, 0));
	ASSERT_OK(mprotect(p, pages(4), PROT_READ));
	ASSERT_OK(mprotect(p, pages(4), RW));
	perf_look(ring, start, len, &seen);
	EXPECT_EQ(3, seen.maps);
	EXPECT_EQ(L(p), (long)seen.start);
	EXPECT_EQ(pages(4), seen.len);
	EXPECT_EQ(0, seen.others);
	close(file);
	munmap(ring, size);
	close(fd);
}

/* What was mapped when a region was made of it is still what is executed. */
TEST_F(place, perf_knows_what_was_adopted)
{
	const char *name = new_name();
	char *start = slot(40), *p = start + pages(8);
	size_t size = pages(1 + 16);
	struct perf_seen seen;
	void *ring;
	int fd;

	fd = perf_open(PERF_COUNT_SW_PAGE_FAULTS_MIN);
	if (fd < 0)
		SKIP(return, "no perf events: %s", strerror(errno));
	ring = mmap(NULL, size, RW, MAP_SHARED, fd, 0);
	ASSERT_NE(MAP_FAILED, ring);
	ASSERT_EQ(p, mmap(p, pages(2), PROT_READ | PROT_EXEC, MAP_PRIVATE |
			  MAP_ANONYMOUS | MAP_FIXED, -1, 0));
	ASSERT_OK(mshare(name, start, granule(), O_CREAT | O_EXCL | O_RDWR, 0600));
	/* The mapping, the attachment over it, and the mapping in that */
	perf_look(ring, start, granule(), &seen);
	EXPECT_EQ(3, seen.maps);
	EXPECT_EQ(L(p), (long)seen.start);
	EXPECT_EQ(pages(2), seen.len);
	munmap(start, granule());
	munmap(ring, size);
	close(fd);
}

/* Huge pages of hugetlbfs, if there are any to be had */
TEST_F(place, hugetlb)
{
	struct setting s;
	char *p = slot(30), *q;

	if (setting_set(&s, "/proc/sys/vm/nr_hugepages", "4") ||
	    meminfo("HugePages_Free") < 3) {
		setting_restore(&s);
		SKIP(return, "no huge pages");
	}
	ASSERT_EQ(p, map_part(self->name, p, 2, 2, RW, MAP_SHARED));
	q = mmap(p + 4 * MB, 2 * MB, RW, MAP_SHARED | MAP_ANONYMOUS | MAP_HUGETLB,
		 -1, 0);
	EXPECT_EQ(p + 4 * MB, q);
	EXPECT_EQ(0, try_write(q + MB, 3));
	EXPECT_EQ(3, peer_read(&self->a, self->home + granules(2) + 5 * MB));
	/* Rounded up, and into the room that is attached */
	q = mmap(p + 4 * MB + page(), 2 * MB, RW,
		 MAP_SHARED | MAP_ANONYMOUS | MAP_HUGETLB, -1, 0);
	EXPECT_EQ(p + 6 * MB, q);
	EXPECT_OK(peer_munmap(&self->a, self->home + granules(2) + 4 * MB, 2 * MB));
	EXPECT_EQ(HOLE, read_exact(p + 5 * MB));
	EXPECT_OK(munmap(q, 2 * MB));
	ASSERT_OK(munmap(p, granules(2)));
	setting_restore(&s);
}

MSHARE_TEST_MAIN
