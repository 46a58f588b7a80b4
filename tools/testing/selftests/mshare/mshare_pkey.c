// SPDX-License-Identifier: GPL-2.0
/*
 * Protection keys in a region: a number in the region's page tables, which
 * means to each process what the process makes of it.
 */
#include "mshare_env.h"

#define RW		(PROT_READ | PROT_WRITE)

#ifndef SEGV_PKUERR
#define SEGV_PKUERR	4
#endif

static size_t pages(size_t n)
{
	return n * page();
}

static long do_key_alloc(const struct request *rq)
{
	return syscall(SYS_pkey_alloc, 0, rq->a[0]);
}

static long do_key_free(const struct request *rq)
{
	return syscall(SYS_pkey_free, rq->a[0]);
}

static long do_key_rights(const struct request *rq)
{
	return pkey_set(rq->a[0], rq->a[1]);
}

static long do_key_mprotect(const struct request *rq)
{
	return syscall(SYS_pkey_mprotect, rq->a[0], rq->a[1], rq->a[2], rq->a[3]);
}

static long do_exec(const struct request *rq)
{
	return try_exec((void *)rq->a[0]);
}

/* The kernel reads for the process, and writes for it. */
static long do_kernel_read(const struct request *rq)
{
	int fd[2], err;
	long ret;

	if (pipe(fd))
		return -2;
	ret = write(fd[1], (void *)rq->a[0], 1);
	err = errno;
	close(fd[0]);
	close(fd[1]);
	errno = err;
	return ret;
}

static long do_kernel_write(const struct request *rq)
{
	int fd = open("/dev/zero", O_RDONLY), err;
	long ret = read(fd, (void *)rq->a[0], 1);

	err = errno;
	close(fd);
	errno = err;
	return ret;
}

FIXTURE(pkey)
{
	const char *name;
	void *addr;
	size_t len;
	struct peer a, b;
	int key;		/* a's, of which b knows nothing */
	struct kind_data k;
	const char *why;
};

FIXTURE_VARIANT(pkey)
{
	enum kind kind;
};

FIXTURE_VARIANT_ADD(pkey, anon_private) { .kind = ANON_PRIVATE };
FIXTURE_VARIANT_ADD(pkey, anon_shared) { .kind = ANON_SHARED };
FIXTURE_VARIANT_ADD(pkey, memfd) { .kind = MEMFD };

FIXTURE_SETUP(pkey)
{
	self->name = new_name();
	self->addr = slot(0);
	self->len = granule();
	self->why = kind_init(&self->k, variant->kind);
	if (self->why)
		return;
	ASSERT_EQ(0, peer_start(&self->a));
	ASSERT_EQ(0, peer_start(&self->b));
	self->key = PEER(&self->a, do_key_alloc, NULL, 0);
	if (self->key < 0) {
		self->why = "no protection keys";
		return;
	}
	ASSERT_OK(peer_create(&self->a, self->name, self->addr, self->len));
	ASSERT_OK(peer_attach(&self->b, self->name));
	ASSERT_OK(attach(self->name));
	ASSERT_OK(kind_map(&self->k, self->addr, pages(8), RW, MAP_FIXED, 0));
}

FIXTURE_TEARDOWN(pkey)
{
	peer_stop(&self->a);
	peer_stop(&self->b);
	remove_names();
	kind_end(&self->k);
}

#define NEED_KEYS() do {						\
	if (self->why)							\
		SKIP(return, "%s", self->why);				\
} while (0)

#define RIGHTS(_p, _rights)						\
	ASSERT_OK(PEER(_p, do_key_rights, NULL, self->key, _rights))

TEST_F(pkey, a_key_means_what_each_process_makes_of_it)
{
	NEED_KEYS();
	/* Faulted in before and after. */
	ASSERT_EQ(0, peer_write(&self->b, self->addr, 5));
	ASSERT_OK(PEER(&self->a, do_key_mprotect, NULL, L(self->addr), pages(2), RW,
		       self->key));
	RIGHTS(&self->a, 0);
	EXPECT_EQ(5, peer_read(&self->a, self->addr));
	EXPECT_EQ(0, peer_write(&self->a, at(self->addr, page()), 6));
	/* The other has not allocated it: no access, as the kernel sets it up. */
	EXPECT_EQ(FAULT(SIGSEGV, SEGV_PKUERR), peer_read(&self->b, self->addr));
	EXPECT_EQ(FAULT(SIGSEGV, SEGV_PKUERR), try_read(at(self->addr, page())));
	EXPECT_EQ(0, peer_read(&self->b, at(self->addr, pages(2))) -
		     kind_byte(&self->k, 2));
	/* It may allow it itself. */
	RIGHTS(&self->b, PKEY_DISABLE_WRITE);
	EXPECT_EQ(5, peer_read(&self->b, self->addr));
	EXPECT_EQ(FAULT(SIGSEGV, SEGV_PKUERR), peer_write(&self->b, self->addr, 7));
	RIGHTS(&self->a, PKEY_DISABLE_ACCESS);
	EXPECT_EQ(FAULT(SIGSEGV, SEGV_PKUERR), peer_read(&self->a, self->addr));
	RIGHTS(&self->b, 0);
	EXPECT_EQ(0, peer_write(&self->b, self->addr, 8));
	/* Back to the key that all have. */
	ASSERT_OK(PEER(&self->a, do_key_mprotect, NULL, L(self->addr), pages(2), RW, 0));
	EXPECT_EQ(8, peer_read(&self->a, self->addr));
	EXPECT_EQ(8, try_read(self->addr));
}

TEST_F(pkey, faults_check_the_key)
{
	NEED_KEYS();
	ASSERT_OK(PEER(&self->a, do_key_mprotect, NULL, L(self->addr), pages(8), RW,
		       self->key));
	/* Nothing is there yet. */
	RIGHTS(&self->a, PKEY_DISABLE_ACCESS);
	EXPECT_EQ(FAULT(SIGSEGV, SEGV_PKUERR), peer_read(&self->a, self->addr));
	EXPECT_EQ(FAULT(SIGSEGV, SEGV_PKUERR), peer_write(&self->a, self->addr, 1));
	RIGHTS(&self->a, PKEY_DISABLE_WRITE);
	EXPECT_EQ(kind_byte(&self->k, 0), peer_read(&self->a, self->addr));
	EXPECT_EQ(FAULT(SIGSEGV, SEGV_PKUERR), peer_write(&self->a, self->addr, 1));
	/* A protection that forbids it says so. */
	ASSERT_OK(PEER(&self->a, do_key_mprotect, NULL, L(self->addr), page(), PROT_READ,
		       self->key));
	RIGHTS(&self->a, 0);
	EXPECT_EQ(FAULT(SIGSEGV, SEGV_ACCERR), peer_write(&self->a, self->addr, 1));
}

TEST_F(pkey, system_calls_check_the_key)
{
	NEED_KEYS();
	ASSERT_OK(PEER(&self->a, do_key_mprotect, NULL, L(self->addr), pages(8), RW,
		       self->key));
	RIGHTS(&self->a, 0);
	EXPECT_EQ(1, PEER(&self->a, do_kernel_write, NULL, L(self->addr)));
	EXPECT_EQ(1, PEER(&self->a, do_kernel_read, NULL, L(self->addr)));
	EXPECT_ERR(EFAULT, PEER(&self->b, do_kernel_read, NULL, L(self->addr)));
	RIGHTS(&self->a, PKEY_DISABLE_WRITE);
	EXPECT_ERR(EFAULT, PEER(&self->a, do_kernel_write, NULL, L(self->addr)));
	EXPECT_ERR(EFAULT, PEER(&self->a, do_kernel_write, NULL,
				L(at(self->addr, page()))));
	EXPECT_EQ(1, PEER(&self->a, do_kernel_read, NULL, L(self->addr)));
	RIGHTS(&self->a, PKEY_DISABLE_ACCESS);
	EXPECT_ERR(EFAULT, PEER(&self->a, do_kernel_read, NULL, L(self->addr)));
	EXPECT_ERR(EFAULT, PEER(&self->a, do_kernel_read, NULL, L(at(self->addr, pages(2)))));
}

TEST_F(pkey, the_key_must_be_the_callers)
{
	NEED_KEYS();
	EXPECT_ERR(EINVAL, PEER(&self->b, do_key_mprotect, NULL, L(self->addr), page(),
				RW, self->key));
	EXPECT_ERR(EINVAL, PEER(&self->a, do_key_mprotect, NULL, L(self->addr), page(),
				RW, 15));
	EXPECT_EQ(0, peer_write(&self->b, self->addr, 1));
	/* mprotect() leaves the key as it is. */
	ASSERT_OK(PEER(&self->a, do_key_mprotect, NULL, L(self->addr), page(), PROT_READ,
		       self->key));
	ASSERT_OK(PEER(&self->b, do_mprotect, NULL, L(self->addr), page(), RW));
	EXPECT_EQ(FAULT(SIGSEGV, SEGV_PKUERR), peer_read(&self->b, self->addr));
	ASSERT_OK(PEER(&self->a, do_key_free, NULL, self->key));
	EXPECT_ERR(EINVAL, PEER(&self->a, do_key_mprotect, NULL, L(self->addr), page(),
				RW, self->key));
	EXPECT_ERR(EINVAL, PEER(&self->a, do_key_mprotect, NULL, L(at(self->addr, -page())),
				pages(2), RW, 0));
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

TEST_F(pkey, readers_set_no_key)
{
	struct peer r;
	int key;

	NEED_KEYS();
	ASSERT_EQ(0, peer_start(&r));
	ASSERT_OK(PEER(&r, do_munmap, NULL, L(self->addr), self->len));
	ASSERT_OK(PEER(&r, do_attach_ro, self->name, L(self->addr), self->len));
	key = PEER(&r, do_key_alloc, NULL, 0);
	ASSERT_LT(0, key);
	EXPECT_ERR(EACCES, PEER(&r, do_key_mprotect, NULL, L(self->addr), page(),
				PROT_READ, key));
	EXPECT_EQ(0, peer_write(&self->b, self->addr, 1));
	/* But have rights of their own. */
	ASSERT_OK(PEER(&self->a, do_key_mprotect, NULL, L(self->addr), page(), RW,
		       self->key));
	ASSERT_OK(PEER(&r, do_key_rights, NULL, self->key, PKEY_DISABLE_ACCESS));
	EXPECT_EQ(FAULT(SIGSEGV, SEGV_PKUERR), peer_read(&r, self->addr));
	ASSERT_OK(PEER(&r, do_key_rights, NULL, self->key, 0));
	EXPECT_EQ(1, peer_read(&r, self->addr));
	peer_stop(&r);
}

/* No key stands for execute-only: it would be one process's. */
TEST_F(pkey, what_is_only_executable_has_no_key)
{
	NEED_KEYS();
	memcpy(self->addr, code_42, sizeof(code_42));
	ASSERT_OK(PEER(&self->a, do_mprotect, NULL, L(self->addr), page(), PROT_EXEC));
	EXPECT_EQ(42, PEER(&self->a, do_exec, NULL, L(self->addr)));
	EXPECT_EQ(42, PEER(&self->b, do_exec, NULL, L(self->addr)));
	EXPECT_EQ(code_42[0], peer_read(&self->a, self->addr));
	EXPECT_EQ(code_42[0], peer_read(&self->b, self->addr));
	EXPECT_EQ(FAULT(SIGSEGV, SEGV_ACCERR), peer_write(&self->b, self->addr, 1));
}

MSHARE_TEST_MAIN
