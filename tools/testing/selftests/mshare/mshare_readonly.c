// SPDX-License-Identifier: GPL-2.0
/*
 * A region that is attached read-only: everything can be seen, and executed,
 * and nothing can be changed.
 */
#include <sys/uio.h>
#include <linux/futex.h>
#include "mshare_env.h"

#define RW	(PROT_READ | PROT_WRITE)

FIXTURE(ro) {
	const char *name;
	void *addr;
	size_t len;
	struct peer reader, writer;
};

enum how { BY_CALL, BY_MMAP_RO_FD, BY_MMAP_RW_FD, BY_FORK };

FIXTURE_VARIANT(ro) {
	enum how how;
};

FIXTURE_VARIANT_ADD(ro, mshare) { .how = BY_CALL };
FIXTURE_VARIANT_ADD(ro, mmap_of_a_read_only_fd) { .how = BY_MMAP_RO_FD };
FIXTURE_VARIANT_ADD(ro, mmap_without_prot_write) { .how = BY_MMAP_RW_FD };
FIXTURE_VARIANT_ADD(ro, forked) { .how = BY_FORK };

static long do_attach_ro(const struct request *rq)
{
	void *addr = (void *)rq->a[0];
	size_t len = rq->a[1];
	pid_t pid;
	void *p;
	int fd;

	switch ((enum how)rq->a[2]) {
	case BY_CALL:
		return mshare(rq->s, NULL, 0, O_RDONLY, 0);
	case BY_FORK:
		if (mshare(rq->s, NULL, 0, O_RDONLY, 0))
			return -1;
		/* The child goes on as the peer. */
		pid = fork();
		if (pid > 0) {
			prctl(PR_SET_CHILD_SUBREAPER, 1);
			waitpid(pid, NULL, 0);
			_exit(0);
		}
		if (!pid)
			prctl(PR_SET_PDEATHSIG, SIGKILL);
		return pid;
	case BY_MMAP_RO_FD:
	case BY_MMAP_RW_FD:
		fd = open(path_of(rq->s), rq->a[2] == BY_MMAP_RO_FD ? O_RDONLY : O_RDWR);
		p = mmap(addr, len, PROT_READ | PROT_EXEC, MAP_SHARED | MAP_FIXED,
			 fd, 0);
		close(fd);
		return p == addr ? 0 : -1;
	}
	return -1;
}

FIXTURE_SETUP(ro)
{
	self->name = new_name();
	self->addr = slot(0);
	self->len = granule();
	ASSERT_EQ(0, peer_start(&self->reader));
	ASSERT_EQ(0, peer_start(&self->writer));
	ASSERT_OK(create(self->name, self->addr, self->len));
	ASSERT_OK(peer_attach(&self->writer, self->name));
	ASSERT_OK(PEER(&self->reader, do_attach_ro, self->name, L(self->addr),
		       self->len, variant->how));
	ASSERT_EQ(self->addr, map_anon(self->addr, 64 * page(), MAP_SHARED));
	ASSERT_EQ(0, try_write(self->addr, 1));
}

FIXTURE_TEARDOWN(ro)
{
	peer_stop(&self->reader);
	peer_stop(&self->writer);
	munmap(self->addr, self->len);
	remove_names();
}

TEST_F(ro, sees_what_others_write)
{
	EXPECT_EQ(1, peer_read(&self->reader, self->addr));
	ASSERT_EQ(0, peer_write(&self->writer, self->addr, 2));
	EXPECT_EQ(2, peer_read(&self->reader, self->addr));
	/* A page that the reader is the first to touch */
	EXPECT_EQ(0, peer_read(&self->reader, at(self->addr, page())));
	ASSERT_EQ(0, try_write(at(self->addr, page()), 3));
	EXPECT_EQ(3, peer_read(&self->reader, at(self->addr, page())));
	/* And what is mapped later */
	ASSERT_EQ(at(self->addr, 64 * MB),
		  map_anon(at(self->addr, 64 * MB), 4 * MB, MAP_PRIVATE));
	EXPECT_EQ(0, peer_read(&self->reader, at(self->addr, 65 * MB)));
	ASSERT_EQ(0, peer_write(&self->writer, at(self->addr, 65 * MB), 4));
	EXPECT_EQ(4, peer_read(&self->reader, at(self->addr, 65 * MB)));
}

TEST_F(ro, stores_are_refused_by_sigsegv)
{
	long accerr = FAULT(SIGSEGV, SEGV_ACCERR);

	/* A page that others have writable in their tables, and one nobody has */
	EXPECT_EQ(accerr, peer_write(&self->reader, self->addr, 9));
	EXPECT_EQ(accerr, peer_write(&self->reader, at(self->addr, page()), 9));
	EXPECT_EQ(1, try_read(self->addr));
	EXPECT_EQ(0, try_read(at(self->addr, page())));
	/* After having read it, too */
	EXPECT_EQ(1, peer_read(&self->reader, self->addr));
	EXPECT_EQ(accerr, peer_write(&self->reader, self->addr, 9));
	EXPECT_EQ(1, try_read(self->addr));
	EXPECT_EQ('r', peer_state(&self->reader, self->addr));
	EXPECT_EQ('w', peer_state(&self->writer, self->addr));
	/* Where nothing is mapped it is as for everyone. */
	EXPECT_EQ(SIGBUS, fault_sig(peer_read(&self->reader,
					      at(self->addr, 128 * page()))));
	EXPECT_EQ(SIGBUS, fault_sig(peer_write(&self->reader,
					       at(self->addr, 128 * page()), 9)));
}

/* mprotect() by a writer gives the reader nothing. */
TEST_F(ro, others_cannot_give_it_rights)
{
	ASSERT_OK(mprotect(self->addr, page(), PROT_READ));
	ASSERT_OK(mprotect(self->addr, page(), RW));
	EXPECT_EQ('r', peer_state(&self->reader, self->addr));
	ASSERT_OK(mprotect(self->addr, page(), PROT_NONE));
	EXPECT_EQ('-', peer_state(&self->reader, self->addr));
	ASSERT_OK(mprotect(self->addr, page(), RW));
	EXPECT_EQ('r', peer_state(&self->reader, self->addr));
	EXPECT_EQ(1, peer_read(&self->reader, self->addr));
}

#ifdef __x86_64__
static long do_exec(const struct request *rq)
{
	return try_exec((void *)rq->a[0]);
}

TEST_F(ro, executes_what_the_region_allows)
{
	memcpy(self->addr, code_42, sizeof(code_42));
	EXPECT_EQ(FAULT(SIGSEGV, SEGV_ACCERR),
		  PEER(&self->reader, do_exec, NULL, L(self->addr)));
	ASSERT_OK(mprotect(self->addr, page(), PROT_READ | PROT_EXEC));
	EXPECT_EQ(42, PEER(&self->reader, do_exec, NULL, L(self->addr)));
}
#endif

static long do_read2(const struct request *rq)
{
	int fd = open("/dev/zero", O_RDONLY);
	ssize_t n = read(fd, (void *)rq->a[0], 8);
	int err = errno;

	close(fd);
	errno = err;
	return n;
}

static long do_readv_self(const struct request *rq)
{
	char buf[8] = "changed";
	struct iovec l = { buf, 8 }, r = { (void *)rq->a[0], 8 };

	return process_vm_writev(getpid(), &l, 1, &r, 1, 0);
}

static long do_futex_wake_op(const struct request *rq)
{
	static int here;

	/* *uaddr2 = 7 */
	return syscall(SYS_futex, &here, FUTEX_WAKE_OP_PRIVATE, 1, 1L,
		       (void *)rq->a[0], FUTEX_OP(FUTEX_OP_SET, 7, FUTEX_OP_CMP_EQ, 0));
}

static long do_proc_mem(const struct request *rq)
{
	int fd = open("/proc/self/mem", O_RDWR);
	ssize_t n = pwrite(fd, "x", 1, rq->a[0]);
	int err = errno;

	close(fd);
	errno = err;
	return n;
}

TEST_F(ro, the_kernel_does_not_write_for_it)
{
	EXPECT_ERR(EFAULT, PEER(&self->reader, do_read2, NULL, L(self->addr)));
	EXPECT_ERR(EFAULT, PEER(&self->reader, do_read2, NULL,
				L(at(self->addr, page()))));
	EXPECT_ERR(EFAULT, PEER(&self->reader, do_readv_self, NULL, L(self->addr)));
	EXPECT_ERR(EFAULT, PEER(&self->reader, do_futex_wake_op, NULL, L(self->addr)));
	EXPECT_ERR(EIO, PEER(&self->reader, do_proc_mem, NULL, L(self->addr)));
	EXPECT_EQ(1, try_read(self->addr));
	EXPECT_EQ(0, try_read(at(self->addr, page())));
}

TEST_F(ro, calls_that_change_the_region_are_eacces)
{
	void *p = self->addr, *hole = at(p, 128 * page());

	EXPECT_ERR(EACCES, peer_munmap(&self->reader, p, page()));
	EXPECT_ERR(EACCES, peer_munmap(&self->reader, hole, page()));
	EXPECT_ERR(EACCES, peer_mprotect(&self->reader, p, page(), RW));
	EXPECT_ERR(EACCES, peer_mprotect(&self->reader, p, page(), PROT_NONE));
	EXPECT_ERR(EACCES, peer_mprotect(&self->reader, p, self->len, PROT_READ));
	EXPECT_ERR(EACCES, L(peer_mmap(&self->reader, p, page(), PROT_READ,
				       MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0)));
	EXPECT_ERR(EACCES, L(peer_mmap(&self->reader, hole, page(), PROT_READ,
				       MAP_SHARED | MAP_ANONYMOUS, -1, 0)));
	EXPECT_ERR(EACCES, L(peer_mmap(&self->reader, hole, page(), PROT_READ,
				       MAP_SHARED | MAP_ANONYMOUS |
				       MAP_FIXED_NOREPLACE, -1, 0)));
	/* An edge is an edge, for whomever. */
	EXPECT_ERR(EINVAL, peer_munmap(&self->reader, at(p, self->len - page()),
				       2 * page()));
	EXPECT_EQ('w', page_state(p));
	EXPECT_EQ(PAGE_HOLE, page_state(hole));
}

/* The attachment itself is the process's own. */
TEST_F(ro, it_can_detach_and_attach_again)
{
	ASSERT_OK(peer_munmap(&self->reader, self->addr, self->len));
	EXPECT_EQ(FAULT(SIGSEGV, SEGV_MAPERR), peer_read(&self->reader, self->addr));
	ASSERT_OK(peer_attach(&self->reader, self->name));
	EXPECT_EQ(0, peer_write(&self->reader, self->addr, 5));
	EXPECT_EQ(5, try_read(self->addr));
	ASSERT_OK(peer_munmap(&self->reader, self->addr, self->len));
	ASSERT_OK(PEER(&self->reader, do_mshare, self->name, L(self->addr),
		       self->len, O_RDONLY, 0));
	EXPECT_EQ('r', peer_state(&self->reader, self->addr));
	EXPECT_EQ(0, peer_unlink(&self->reader, self->name));
	EXPECT_EQ(FAULT(SIGSEGV, SEGV_MAPERR), peer_read(&self->reader, self->addr));
	EXPECT_TRUE(name_exists(self->name));
}

/* It is what the process is attached with that counts, not what it could. */
TEST_F(ro, attaching_twice_is_ebusy)
{
	EXPECT_ERR(EBUSY, peer_attach(&self->reader, self->name));
	EXPECT_EQ('r', peer_state(&self->reader, self->addr));
}

static void *store_forever(void *addr)
{
	for (;;)
		try_write(addr, 66);
	return NULL;
}

static long do_storing_thread(const struct request *rq)
{
	pthread_t t;

	return -pthread_create(&t, NULL, store_forever, (void *)rq->a[0]);
}

/* While the rights inside change, a store never gets through. */
TEST_F(ro, no_store_slips_through)
{
	double end = now() + (debug_kernel() ? 2 : 0.7);
	int seen = 0, i;

	ASSERT_OK(PEER(&self->reader, do_storing_thread, NULL, L(self->addr)));
	for (i = 0; now() < end || i < 12; i++) {
		if (!(i % 3))
			ASSERT_OK(mprotect(self->addr, 64 * page(), PROT_READ));
		if (i % 3 == 1)
			ASSERT_OK(mprotect(self->addr, 64 * page(), RW));
		if (i % 3 == 2)
			ASSERT_EQ(self->addr, map_anon(self->addr, 64 * page(), MAP_SHARED));
		seen += try_read(self->addr) == 66;
	}
	EXPECT_EQ(0, seen);
}

FIXTURE(by) {
	const char *name;
	void *addr;
	size_t len;
};

FIXTURE_SETUP(by)
{
	self->name = new_name();
	self->addr = slot(0);
	self->len = granule();
}

FIXTURE_TEARDOWN(by)
{
	munmap(self->addr, self->len);
	remove_names();
}

TEST_F(by, creating_read_only_leaves_the_creator_read_only)
{
	struct peer p;

	ASSERT_EQ(0, peer_start(&p));
	ASSERT_OK(mshare(self->name, self->addr, self->len, O_RDONLY | O_CREAT, 0600));
	EXPECT_EQ(1, nr_mapped(self->addr, self->len));
	EXPECT_ERR(EACCES, L(map_anon(self->addr, page(), MAP_SHARED)));
	ASSERT_OK(peer_attach(&p, self->name));
	ASSERT_EQ(self->addr, peer_mmap(&p, self->addr, page(), RW, MAP_SHARED |
					MAP_ANONYMOUS | MAP_FIXED, -1, 0));
	ASSERT_EQ(0, peer_write(&p, self->addr, 6));
	EXPECT_EQ(6, try_read(self->addr));
	EXPECT_EQ(FAULT(SIGSEGV, SEGV_ACCERR), try_write(self->addr, 7));
	peer_stop(&p);
}

/* By the mode of the file that it makes, too: as open(2). */
TEST_F(by, creating_does_not_ask_for_the_modes_rights)
{
	ASSERT_OK(mshare(self->name, self->addr, self->len, O_RDWR | O_CREAT, 0));
	EXPECT_EQ(self->addr, map_anon(self->addr, page(), MAP_SHARED));
	EXPECT_EQ(0, try_write(self->addr, 7));
}

TEST_F(by, a_read_only_descriptor_is_not_mapped_for_writing)
{
	void *p;
	int fd;

	ASSERT_OK(create(self->name, self->addr, self->len));
	ASSERT_OK(munmap(self->addr, self->len));
	ASSERT_EQ(self->addr, map_anon(self->addr, page(), MAP_PRIVATE));
	ASSERT_EQ(0, try_write(self->addr, 8));
	fd = open(path_of(self->name), O_RDONLY);
	ASSERT_LE(0, fd);
	p = mmap(self->addr, self->len, RW, MAP_SHARED | MAP_FIXED, fd, 0);
	EXPECT_EQ(MAP_FAILED, p);
	EXPECT_EQ(EACCES, errno);
	/* What was there is still there */
	EXPECT_EQ(8, try_read(self->addr));
	p = mmap(self->addr, self->len, PROT_READ, MAP_PRIVATE | MAP_FIXED, fd, 0);
	EXPECT_EQ(MAP_FAILED, p);
	EXPECT_EQ(8, try_read(self->addr));
	p = mmap(self->addr, self->len, PROT_READ, MAP_SHARED | MAP_FIXED, fd, 0);
	EXPECT_EQ(self->addr, p);
	EXPECT_EQ(SIGBUS, fault_sig(try_read(self->addr)));
	close(fd);
}

#ifdef __x86_64__
/* mmap() without PROT_EXEC, of which no security module was told. */
TEST_F(by, mmap_without_prot_exec_is_not_executable)
{
	struct peer p;
	void *q;
	int fd;

	ASSERT_EQ(0, peer_start(&p));
	ASSERT_OK(create(self->name, self->addr, self->len));
	ASSERT_EQ(self->addr, map_anon(self->addr, page(), MAP_SHARED));
	memcpy(self->addr, code_42, sizeof(code_42));
	ASSERT_OK(mprotect(self->addr, page(), PROT_READ | PROT_EXEC));
	EXPECT_EQ(42, try_exec(self->addr));
	ASSERT_OK(peer_attach(&p, self->name));
	ASSERT_OK(munmap(self->addr, self->len));
	fd = open(path_of(self->name), O_RDWR);
	q = mmap(self->addr, self->len, RW, MAP_SHARED | MAP_FIXED, fd, 0);
	ASSERT_EQ(self->addr, q);
	EXPECT_EQ(code_42[0], try_read(self->addr));
	EXPECT_EQ(FAULT(SIGSEGV, SEGV_ACCERR), try_exec(self->addr));
	ASSERT_OK(munmap(self->addr, self->len));
	q = mmap(self->addr, self->len, RW | PROT_EXEC, MAP_SHARED | MAP_FIXED, fd, 0);
	ASSERT_EQ(self->addr, q);
	EXPECT_EQ(42, try_exec(self->addr));
	close(fd);
	peer_stop(&p);
}
#endif

TEST_F(by, read_only_mounts_can_be_attached_for_reading)
{
	ASSERT_OK(private_mounts());
	ASSERT_OK(create(self->name, self->addr, self->len));
	ASSERT_EQ(self->addr, map_anon(self->addr, page(), MAP_SHARED));
	ASSERT_OK(munmap(self->addr, self->len));
	ASSERT_OK(mount(MSHAREFS, MSHAREFS, NULL, MS_BIND, NULL));
	ASSERT_OK(mount(NULL, MSHAREFS, NULL, MS_REMOUNT | MS_BIND | MS_RDONLY, NULL));
	EXPECT_ERR(EROFS, attach(self->name));
	EXPECT_OK(mshare(self->name, NULL, 0, O_RDONLY, 0));
	EXPECT_EQ(0, try_read(self->addr));
	EXPECT_EQ(FAULT(SIGSEGV, SEGV_ACCERR), try_write(self->addr, 1));
	EXPECT_ERR(EACCES, munmap(self->addr, page()));
	umount2(MSHAREFS, MNT_DETACH);
}

/* Something is mounted over the file: it is none of msharefs any more. */
TEST_F(by, a_file_mounted_over_a_region_is_einval)
{
	int fd;

	ASSERT_OK(private_mounts());
	ASSERT_OK(create(self->name, self->addr, self->len));
	ASSERT_OK(munmap(self->addr, self->len));
	fd = open("/tmp/over", O_RDWR | O_CREAT, 0600);
	ASSERT_LE(0, fd);
	close(fd);
	ASSERT_OK(mount("/tmp/over", path_of(self->name), NULL, MS_BIND, NULL));
	EXPECT_ERR(EINVAL, attach(self->name));
	EXPECT_ERR(EINVAL, mshare(self->name, NULL, 0, O_RDWR | O_CREAT, 0600));
	EXPECT_ERR(EINVAL, mshare(self->name, self->addr, self->len, O_RDWR | O_CREAT, 0600));
	EXPECT_ERR(EINVAL, create(self->name, self->addr, self->len));
	EXPECT_ERR(EINVAL, mshare_unlink(self->name));
	ASSERT_OK(umount2(path_of(self->name), MNT_DETACH));
	EXPECT_OK(attach(self->name));
	unlink("/tmp/over");
}

/* A mapping with a hint in a region and no length is wrong as anywhere. */
TEST_F(by, a_hint_and_no_length_is_einval)
{
	ASSERT_OK(create(self->name, self->addr, self->len));
	EXPECT_ERR(EINVAL, L(mmap(self->addr, 0, RW, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0)));
	EXPECT_ERR(EINVAL, L(mmap(self->addr, 0, RW, MAP_PRIVATE | MAP_ANONYMOUS |
				  MAP_FIXED, -1, 0)));
	EXPECT_ERR(EINVAL, munmap(self->addr, 0));
	EXPECT_OK(mprotect(self->addr, 0, RW));
}

/* Any hint will do, as ever, attached or not. */
TEST_F(by, a_hint_of_minus_one_is_ignored)
{
	long hints[] = { -1, -12, -512, -513, -4095 };
	size_t i;
	void *p;

	for (i = 0; i < 2 * ARRAY_SIZE(hints); i++) {
		if (i == ARRAY_SIZE(hints))
			ASSERT_OK(create(self->name, self->addr, self->len));
		p = mmap((void *)hints[i % ARRAY_SIZE(hints)], page(), RW,
			 MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
		EXPECT_NE(MAP_FAILED, p) {
			TH_LOG("hint %ld: %s", hints[i % ARRAY_SIZE(hints)], strerror(errno));
		}
		if (p != MAP_FAILED)
			munmap(p, page());
	}
}

MSHARE_TEST_MAIN
