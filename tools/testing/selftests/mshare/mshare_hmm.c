// SPDX-License-Identifier: GPL-2.0
/*
 * Devices that mirror region memory, with lib/test_hmm.c as the device: they
 * read and write what the processes do, and what happens to the region by
 * whatever process reaches the mirrors of all.
 *
 * To open a device is to subscribe to the notifiers of the process.
 */
#include <linux/fs.h>
#include <sys/ioctl.h>
#include "mshare_env.h"
#include "../../../../lib/test_hmm_uapi.h"

#define RW	(PROT_READ | PROT_WRITE)
#define NR	CHANGE_PAGES

/* The open devices of a process. */
static int dev[4] = { -1, -1, -1, -1 };

static int dev_open(int i)
{
	char path[64];

	snprintf(path, sizeof(path), "/dev/hmm_dmirror%d", i);
	dev[i] = open(path, O_RDWR | O_CLOEXEC);
	return dev[i] < 0 ? -1 : 0;
}

static void dev_close(int i)
{
	if (dev[i] >= 0)
		close(dev[i]);
	dev[i] = -1;
}

static int dev_cmd(int i, unsigned long req, void *addr, void *buf, size_t n,
		   struct hmm_dmirror_cmd *cmd)
{
	int ret;

	*cmd = (struct hmm_dmirror_cmd) {
		.addr	= (unsigned long)addr,
		.ptr	= (unsigned long)buf,
		.npages	= n,
	};
	do {
		ret = ioctl(dev[i], req, cmd);
	} while (ret && errno == EINTR);
	return ret ? -errno : 0;
}

/* The long at the start of a page, as the device sees it, or -errno. */
static long dev_get(int i, void *addr)
{
	static long buf[512] __attribute__((aligned(4096)));
	struct hmm_dmirror_cmd cmd;
	int err = dev_cmd(i, HMM_DMIRROR_READ, addr, buf, 1, &cmd);

	return err ? : buf[0];
}

/* Faults of the device that it took to read a page. */
static long dev_faults(int i, void *addr)
{
	static long buf[512] __attribute__((aligned(4096)));
	struct hmm_dmirror_cmd cmd;
	int err = dev_cmd(i, HMM_DMIRROR_READ, addr, buf, 1, &cmd);

	return err ? : (long)cmd.faults;
}

static long dev_put(int i, void *addr, long val)
{
	static long buf[512] __attribute__((aligned(4096)));
	struct hmm_dmirror_cmd cmd;

	buf[0] = val;
	return dev_cmd(i, HMM_DMIRROR_WRITE, addr, buf, 1, &cmd);
}

static long dev_range(int i, unsigned long req, void *addr, size_t n)
{
	static char buf[NR * 4096] __attribute__((aligned(4096)));
	struct hmm_dmirror_cmd cmd;

	return dev_cmd(i, req, addr, buf, n, &cmd);
}

/* HMM_DMIRROR_PROT_* of a page, without faulting it. */
static long dev_snap(int i, void *addr)
{
	static unsigned char perm[64];
	struct hmm_dmirror_cmd cmd;
	int err = dev_cmd(i, HMM_DMIRROR_SNAPSHOT, addr, perm, 1, &cmd);

	return err ? : perm[0];
}

/* The same in peers. */

static long do_dev_open(const struct request *rq)
{
	return dev_open(rq->a[0]);
}

static long do_dev_close(const struct request *rq)
{
	dev_close(rq->a[0]);
	return 0;
}

static long do_dev_get(const struct request *rq)
{
	return dev_get(rq->a[0], (void *)rq->a[1]);
}

static long do_dev_faults(const struct request *rq)
{
	return dev_faults(rq->a[0], (void *)rq->a[1]);
}

static long do_dev_put(const struct request *rq)
{
	return dev_put(rq->a[0], (void *)rq->a[1], rq->a[2]);
}

static long do_dev_range(const struct request *rq)
{
	return dev_range(rq->a[0], rq->a[1], (void *)rq->a[2], rq->a[3]);
}

static long do_dev_snap(const struct request *rq)
{
	return dev_snap(rq->a[0], (void *)rq->a[1]);
}

static long do_get(const struct request *rq)
{
	return *(volatile long *)rq->a[0];
}

static long do_put(const struct request *rq)
{
	*(volatile long *)rq->a[0] = rq->a[1];
	return 0;
}

static long do_madvise(const struct request *rq)
{
	return madvise((void *)rq->a[0], rq->a[1], rq->a[2]) ? -errno : 0;
}

#define PEER_OPEN(_p, _i)	PEER(_p, do_dev_open, NULL, _i)
#define PEER_GET(_p, _i, _addr)	PEER(_p, do_dev_get, NULL, _i, L(_addr))
#define PEER_FAULTS(_p, _i, _addr)					\
	PEER(_p, do_dev_faults, NULL, _i, L(_addr))
#define PEER_PUT(_p, _i, _addr, _val)					\
	PEER(_p, do_dev_put, NULL, _i, L(_addr), _val)
#define PEER_SNAP(_p, _i, _addr)					\
	PEER(_p, do_dev_snap, NULL, _i, L(_addr))
#define PEER_RANGE(_p, _i, _req, _addr, _n)				\
	PEER(_p, do_dev_range, NULL, _i, _req, L(_addr), _n)

/*
 * The test process and two peers are attached; all have device 0 open, which
 * the peers have opened before they attached, or after that.
 */
FIXTURE(hmm)
{
	const char *name, *why;
	void *addr;
	size_t len;
	struct peer a, b;
	struct kind_data kind;
	struct setting thp;
};

FIXTURE_VARIANT(hmm)
{
	enum kind kind;
	bool early;
};

FIXTURE_VARIANT_ADD(hmm, anon_private) { .kind = ANON_PRIVATE };
FIXTURE_VARIANT_ADD(hmm, anon_private_early) {
	.kind = ANON_PRIVATE, .early = true
};
FIXTURE_VARIANT_ADD(hmm, anon_shared) { .kind = ANON_SHARED };
FIXTURE_VARIANT_ADD(hmm, memfd) { .kind = MEMFD };
FIXTURE_VARIANT_ADD(hmm, memfd_early) { .kind = MEMFD, .early = true };
FIXTURE_VARIANT_ADD(hmm, tmpfs_private) { .kind = TMPFS_PRIVATE };

static void *pg(void *base, int i)
{
	return at(base, i * page());
}

FIXTURE_SETUP(hmm)
{
	int i;

	NOT_ON_DEBUG(variant->kind == ANON_SHARED ||
		     (variant->kind == MEMFD && variant->early));
	self->name = new_name();
	self->addr = slot(0);
	self->len = granule();
	self->kind.fd = -1;
	if (access("/dev/hmm_dmirror0", R_OK | W_OK)) {
		self->why = "no /dev/hmm_dmirror0: needs CONFIG_TEST_HMM";
		return;
	}
	self->why = kind_init(&self->kind, variant->kind);
	if (self->why)
		return;
	setting_set(&self->thp, THP_ENABLED, "never");
	ASSERT_EQ(0, peer_start(&self->a));
	ASSERT_EQ(0, peer_start(&self->b));
	if (variant->early) {
		ASSERT_EQ(0, dev_open(0));
		ASSERT_EQ(0, PEER_OPEN(&self->a, 0));
		ASSERT_EQ(0, PEER_OPEN(&self->b, 0));
	}
	ASSERT_OK(create(self->name, self->addr, self->len));
	ASSERT_OK(peer_attach(&self->a, self->name));
	ASSERT_OK(peer_attach(&self->b, self->name));
	ASSERT_EQ(self->addr, kind_map(&self->kind, self->addr, NR * page(), RW,
				       MAP_FIXED, 0));
	for (i = 0; i < NR; i++)
		*(volatile long *)pg(self->addr, i) = 1000 + i;
	if (!variant->early) {
		ASSERT_EQ(0, dev_open(0));
		ASSERT_EQ(0, PEER_OPEN(&self->a, 0));
		ASSERT_EQ(0, PEER_OPEN(&self->b, 0));
	}
}

FIXTURE_TEARDOWN(hmm)
{
	int i;

	for (i = 0; i < 4; i++)
		dev_close(i);
	peer_stop(&self->a);
	peer_stop(&self->b);
	munmap(self->addr, self->len);
	remove_names();
	setting_restore(&self->thp);
	kind_end(&self->kind);
}

#define NEED_DEVICE() do {						\
	if (self->why)							\
		SKIP(return, "%s", self->why);				\
} while (0)

/* All three have translations of the first @n pages. */
#define MIRROR(_n) do {							\
	int _i;								\
									\
	for (_i = 0; _i < (_n); _i++) {					\
		ASSERT_EQ(1000 + _i, dev_get(0, pg(self->addr, _i)));	\
		ASSERT_EQ(1000 + _i, PEER_GET(&self->a, 0,		\
					      pg(self->addr, _i)));	\
		ASSERT_EQ(1000 + _i, PEER_GET(&self->b, 0,		\
					      pg(self->addr, _i)));	\
	}								\
	ASSERT_EQ(0, dev_faults(0, self->addr));			\
	ASSERT_EQ(0, PEER_FAULTS(&self->a, 0, self->addr));		\
	ASSERT_EQ(0, PEER_FAULTS(&self->b, 0, self->addr));		\
} while (0)

TEST_F_TIMEOUT(hmm, devices_read_and_write, SHORT_TIMEOUT)
{
	int i;

	NEED_DEVICE();
	for (i = 0; i < NR; i++)
		ASSERT_EQ(1000 + i, PEER_GET(&self->a, 0, pg(self->addr, i)));
	ASSERT_EQ(0, PEER_PUT(&self->a, 0, pg(self->addr, 3), 77));
	EXPECT_EQ(77, *(volatile long *)pg(self->addr, 3));
	EXPECT_EQ(77, dev_get(0, pg(self->addr, 3)));
	EXPECT_EQ(77, PEER_GET(&self->b, 0, pg(self->addr, 3)));
	EXPECT_EQ(77, PEER(&self->b, do_get, NULL, L(pg(self->addr, 3))));
	ASSERT_EQ(0, dev_put(0, pg(self->addr, 3), 78));
	EXPECT_EQ(78, PEER_GET(&self->a, 0, pg(self->addr, 3)));
	*(volatile long *)pg(self->addr, 3) = 79;
	EXPECT_EQ(79, PEER_GET(&self->b, 0, pg(self->addr, 3)));
	/* Nothing there. */
	EXPECT_EQ(-EFAULT, dev_get(0, pg(self->addr, NR)));
	EXPECT_EQ(-EFAULT, PEER_PUT(&self->a, 0, pg(self->addr, NR), 1));
	EXPECT_EQ(HMM_DMIRROR_PROT_ERROR, dev_snap(0, pg(self->addr, NR)));
}

/* A device fills in what no process has touched, and they find it. */
TEST_F_TIMEOUT(hmm, devices_fault_pages_in, SHORT_TIMEOUT)
{
	void *fresh = at(self->addr, GB);

	NEED_DEVICE();
	ASSERT_EQ(fresh, map_anon(fresh, NR * page(), MAP_PRIVATE));
	EXPECT_EQ(HMM_DMIRROR_PROT_NONE, PEER_SNAP(&self->b, 0, fresh));
	EXPECT_EQ(0, dev_get(0, fresh));
	ASSERT_EQ(0, PEER_PUT(&self->a, 0, pg(fresh, 1), 5));
	EXPECT_EQ(5, *(volatile long *)pg(fresh, 1));
	EXPECT_EQ(HMM_DMIRROR_PROT_WRITE, PEER_SNAP(&self->b, 0, pg(fresh, 1)));
	/* A range of which a part is the process's own. */
	ASSERT_EQ(0, dev_put(0, pg(fresh, NR - 1), 6));
	EXPECT_EQ(6, PEER_GET(&self->b, 0, pg(fresh, NR - 1)));
}

TEST_F_TIMEOUT(hmm, munmap_reaches_all_mirrors, SHORT_TIMEOUT)
{
	NEED_DEVICE();
	MIRROR(2);
	ASSERT_OK(peer_munmap(&self->a, self->addr, page()));
	EXPECT_EQ(-EFAULT, dev_get(0, self->addr));
	EXPECT_EQ(-EFAULT, PEER_GET(&self->a, 0, self->addr));
	EXPECT_EQ(-EFAULT, PEER_GET(&self->b, 0, self->addr));
	EXPECT_EQ(1001, dev_get(0, pg(self->addr, 1)));
	ASSERT_EQ(self->addr, peer_mmap(&self->a, self->addr, page(), RW,
					MAP_FIXED | MAP_PRIVATE | MAP_ANONYMOUS, -1,
					0));
	EXPECT_EQ(0, dev_get(0, self->addr));
	ASSERT_EQ(0, PEER(&self->a, do_put, NULL, L(self->addr), 5));
	EXPECT_EQ(5, dev_get(0, self->addr));
	EXPECT_EQ(5, PEER_GET(&self->b, 0, self->addr));
}

TEST_F_TIMEOUT(hmm, mmap_over_and_mremap_reach_mirrors, SHORT_TIMEOUT)
{
	void *to = at(self->addr, GB);

	NEED_DEVICE();
	MIRROR(3);
	ASSERT_EQ(self->addr, peer_mmap(&self->a, self->addr, page(), RW,
					MAP_FIXED | MAP_PRIVATE | MAP_ANONYMOUS, -1,
					0));
	EXPECT_EQ(0, dev_get(0, self->addr));
	EXPECT_EQ(0, PEER_GET(&self->b, 0, self->addr));
	ASSERT_EQ(to, mremap(pg(self->addr, 1), page(), page(),
			     MREMAP_MAYMOVE | MREMAP_FIXED, to));
	EXPECT_EQ(-EFAULT, PEER_GET(&self->b, 0, pg(self->addr, 1)));
	EXPECT_EQ(-EFAULT, dev_get(0, pg(self->addr, 1)));
	EXPECT_EQ(1001, PEER_GET(&self->b, 0, to));
	EXPECT_EQ(1002, dev_get(0, pg(self->addr, 2)));
}

TEST_F_TIMEOUT(hmm, madvise_reaches_mirrors, SHORT_TIMEOUT)
{
	long wanted = 0;

	NEED_DEVICE();
	MIRROR(1);
	if (variant->kind == ANON_SHARED || variant->kind == MEMFD)
		wanted = 1000;
	else if (variant->kind == TMPFS_PRIVATE)
		wanted = 0x0101010101010101;
	ASSERT_EQ(0, PEER(&self->a, do_madvise, NULL, L(self->addr), page(),
			  MADV_DONTNEED));
	EXPECT_EQ(1, PEER_FAULTS(&self->b, 0, self->addr));
	EXPECT_EQ(wanted, PEER_GET(&self->b, 0, self->addr));
	EXPECT_EQ(wanted, dev_get(0, self->addr));
}

TEST_F_TIMEOUT(hmm, mprotect_reaches_mirrors, SHORT_TIMEOUT)
{
	NEED_DEVICE();
	ASSERT_EQ(0, dev_put(0, self->addr, 1000));
	ASSERT_EQ(0, PEER_PUT(&self->b, 0, self->addr, 1000));
	ASSERT_OK(peer_mprotect(&self->a, self->addr, page(), PROT_READ));
	EXPECT_EQ(-EPERM, dev_put(0, self->addr, 1));
	EXPECT_EQ(-EPERM, PEER_PUT(&self->b, 0, self->addr, 1));
	EXPECT_EQ(1000, PEER_GET(&self->b, 0, self->addr));
	EXPECT_EQ(1000, *(volatile long *)self->addr);
	ASSERT_OK(peer_mprotect(&self->a, self->addr, page(), PROT_NONE));
	EXPECT_EQ(-EFAULT, dev_get(0, self->addr));
	ASSERT_OK(peer_mprotect(&self->b, self->addr, page(), RW));
	EXPECT_EQ(0, dev_put(0, self->addr, 2));
	EXPECT_EQ(2, PEER_GET(&self->a, 0, self->addr));
}

TEST_F_TIMEOUT(hmm, truncation_reaches_mirrors, SHORT_TIMEOUT)
{
	NEED_DEVICE();
	if (variant->kind != MEMFD && variant->kind != TMPFS_PRIVATE)
		SKIP(return, "nothing to truncate");
	MIRROR(4);
	ASSERT_OK(ftruncate(self->kind.fd, 2 * page()));
	EXPECT_EQ(1001, PEER_GET(&self->a, 0, pg(self->addr, 1)));
	EXPECT_EQ(-EFAULT, dev_get(0, pg(self->addr, 2)));
	EXPECT_EQ(-EFAULT, PEER_GET(&self->a, 0, pg(self->addr, 2)));
	EXPECT_EQ(-EFAULT, PEER_GET(&self->b, 0, pg(self->addr, 3)));
	ASSERT_OK(ftruncate(self->kind.fd, NR * page()));
	EXPECT_EQ(0, PEER_GET(&self->b, 0, pg(self->addr, 3)));
}

TEST_F_TIMEOUT(hmm, reclaim_reaches_mirrors, SHORT_TIMEOUT)
{
	struct zram zram = { .id = -1 };
	bool gone = false, gone_b = false, out, out_b;
	const char *why;
	int i;

	NEED_DEVICE();
	why = zram_swapon(&zram, 64 * MB);
	if (why) {
		zram_end(&zram);
		SKIP(return, "%s", why);
	}
	MIRROR(NR);
	/* Dropped, and read from swap again: who still has the old page? */
	for (i = 0; i < 100 && !(gone_b && gone); i++) {
		empty_lru_batches();
		ASSERT_EQ(0, PEER(&self->a, do_madvise, NULL, L(self->addr),
				  NR * page(), MADV_PAGEOUT));
		out_b = !pfn_of(pg(self->addr, 5));
		out = !pfn_of(pg(self->addr, 6));
		if (out_b)
			EXPECT_EQ(1, PEER_FAULTS(&self->b, 0, pg(self->addr, 5)));
		if (out)
			EXPECT_EQ(1, dev_faults(0, pg(self->addr, 6)));
		gone_b |= out_b;
		gone |= out;
	}
	EXPECT_TRUE(gone_b);
	EXPECT_TRUE(gone);
	for (i = 0; i < NR; i++) {
		EXPECT_EQ(1000 + i, PEER_GET(&self->b, 0, pg(self->addr, i)));
		EXPECT_EQ(1000 + i, dev_get(0, pg(self->addr, i)));
	}
	zram_end(&zram);
}

TEST_F_TIMEOUT(hmm, who_detaches_has_no_mirror, SHORT_TIMEOUT)
{
	int i;

	NEED_DEVICE();
	MIRROR(2);
	for (i = 0; i < 3; i++) {
		ASSERT_OK(peer_munmap(&self->b, self->addr, self->len));
		EXPECT_EQ(-EFAULT, PEER_GET(&self->b, 0, self->addr));
		ASSERT_EQ(self->addr, peer_mmap(&self->b, self->addr, page(), RW,
				MAP_FIXED | MAP_PRIVATE | MAP_ANONYMOUS, -1,
					0));
		ASSERT_EQ(0, PEER_PUT(&self->b, 0, self->addr, 9));
		EXPECT_EQ(1000, dev_get(0, self->addr));
		/* What happens in the region is no business of b's. */
		ASSERT_EQ(0, PEER(&self->a, do_madvise, NULL,
				  L(pg(self->addr, 8)), page(), MADV_DONTNEED));
		EXPECT_EQ(0, PEER_FAULTS(&self->b, 0, self->addr));
		EXPECT_EQ(9, PEER_GET(&self->b, 0, self->addr));
		ASSERT_OK(peer_munmap(&self->b, self->addr, page()));
		ASSERT_OK(peer_attach(&self->b, self->name));
		EXPECT_EQ(1000, PEER_GET(&self->b, 0, self->addr));
	}
	EXPECT_EQ(1001, PEER_GET(&self->b, 0, pg(self->addr, 1)));
	ASSERT_OK(peer_munmap(&self->a, pg(self->addr, 1), page()));
	EXPECT_EQ(-EFAULT, PEER_GET(&self->b, 0, pg(self->addr, 1)));
}

/* By mmap() with MAP_FIXED over the whole attachment, and by a descriptor. */
TEST_F_TIMEOUT(hmm, attach_by_descriptor, SHORT_TIMEOUT)
{
	int fd;

	NOT_ELSEWHERE();
	NEED_DEVICE();
	MIRROR(1);
	fd = open(path_of(self->name), O_RDWR | O_CLOEXEC);
	ASSERT_LE(0, fd);
	ASSERT_EQ(self->addr, mmap(self->addr, self->len, PROT_NONE, MAP_FIXED |
				   MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE,
				   -1, 0));
	EXPECT_EQ(-EFAULT, dev_get(0, self->addr));
	ASSERT_EQ(self->addr, mmap(self->addr, self->len, RW, MAP_FIXED |
				   MAP_SHARED, fd, 0));
	EXPECT_EQ(1000, dev_get(0, self->addr));
	ASSERT_OK(peer_munmap(&self->a, self->addr, page()));
	EXPECT_EQ(-EFAULT, dev_get(0, self->addr));
	close(fd);
}

TEST_F_TIMEOUT(hmm, several_devices_in_several_processes, SHORT_TIMEOUT)
{
	NEED_DEVICE();
	ASSERT_EQ(0, dev_open(1));
	ASSERT_EQ(0, PEER_OPEN(&self->a, 1));
	ASSERT_EQ(0, PEER_OPEN(&self->b, 1));
	MIRROR(2);
	EXPECT_EQ(1000, dev_get(1, self->addr));
	EXPECT_EQ(1000, PEER_GET(&self->a, 1, self->addr));
	EXPECT_EQ(1000, PEER_GET(&self->b, 1, self->addr));
	ASSERT_OK(munmap(self->addr, page()));
	EXPECT_EQ(-EFAULT, dev_get(0, self->addr));
	EXPECT_EQ(-EFAULT, dev_get(1, self->addr));
	EXPECT_EQ(-EFAULT, PEER_GET(&self->a, 0, self->addr));
	EXPECT_EQ(-EFAULT, PEER_GET(&self->a, 1, self->addr));
	EXPECT_EQ(-EFAULT, PEER_GET(&self->b, 0, self->addr));
	EXPECT_EQ(-EFAULT, PEER_GET(&self->b, 1, self->addr));
	dev_close(0);
	PEER(&self->a, do_dev_close, NULL, 1);
	ASSERT_OK(peer_mprotect(&self->b, pg(self->addr, 1), page(), PROT_NONE));
	EXPECT_EQ(-EFAULT, dev_get(1, pg(self->addr, 1)));
	EXPECT_EQ(-EFAULT, PEER_GET(&self->a, 0, pg(self->addr, 1)));
}

TEST_F_TIMEOUT(hmm, two_regions, SHORT_TIMEOUT)
{
	void *other = slot(1);
	const char *name;

	NEED_DEVICE();
	name = new_name();
	ASSERT_OK(peer_create(&self->a, name, other, self->len));
	ASSERT_OK(attach(name));
	ASSERT_EQ(other, map_anon(other, page(), MAP_PRIVATE));
	*(volatile long *)other = 4;
	MIRROR(1);
	EXPECT_EQ(4, dev_get(0, other));
	EXPECT_EQ(4, PEER_GET(&self->a, 0, other));
	/* Another subscription freezes both. */
	ASSERT_EQ(0, dev_open(1));
	EXPECT_EQ(4, dev_get(1, other));
	ASSERT_OK(peer_munmap(&self->a, other, page()));
	EXPECT_EQ(-EFAULT, dev_get(0, other));
	EXPECT_EQ(-EFAULT, dev_get(1, other));
	ASSERT_OK(peer_munmap(&self->b, self->addr, page()));
	EXPECT_EQ(-EFAULT, dev_get(0, self->addr));
	EXPECT_EQ(-EFAULT, PEER_GET(&self->a, 0, self->addr));
	ASSERT_OK(munmap(other, self->len));
}

/* A child has no subscriptions, until it gets its own. */
TEST_F_TIMEOUT(hmm, fork, SHORT_TIMEOUT)
{
	struct peer child;

	NEED_DEVICE();
	MIRROR(2);
	ASSERT_EQ(0, peer_start(&child));
	PEER(&child, do_dev_close, NULL, 0);
	EXPECT_EQ(0, dev_faults(0, self->addr));
	ASSERT_OK(peer_munmap(&child, self->addr, page()));
	EXPECT_EQ(-EFAULT, dev_get(0, self->addr));
	EXPECT_EQ(-EFAULT, PEER_GET(&self->a, 0, self->addr));
	ASSERT_EQ(0, PEER_OPEN(&child, 0));
	EXPECT_EQ(1001, PEER_GET(&child, 0, pg(self->addr, 1)));
	ASSERT_OK(peer_munmap(&self->a, pg(self->addr, 1), page()));
	EXPECT_EQ(-EFAULT, PEER_GET(&child, 0, pg(self->addr, 1)));
	EXPECT_EQ(-EFAULT, dev_get(0, pg(self->addr, 1)));
	peer_stop(&child);
	EXPECT_EQ(1002, dev_get(0, pg(self->addr, 2)));
}

TEST_F_TIMEOUT(hmm, read_only_process_has_read_only_devices, SHORT_TIMEOUT)
{
	NEED_DEVICE();
	ASSERT_OK(peer_munmap(&self->b, self->addr, self->len));
	ASSERT_OK(PEER(&self->b, do_mshare, self->name, 0, 0, O_RDONLY, 0));
	EXPECT_EQ(1000, PEER_GET(&self->b, 0, self->addr));
	EXPECT_EQ(HMM_DMIRROR_PROT_READ, PEER_SNAP(&self->b, 0, self->addr));
	EXPECT_EQ(HMM_DMIRROR_PROT_WRITE, dev_snap(0, self->addr));
	EXPECT_EQ(-EPERM, PEER_PUT(&self->b, 0, self->addr, 1));
	EXPECT_EQ(-EACCES, PEER_RANGE(&self->b, 0, HMM_DMIRROR_MIGRATE_TO_DEV,
				      self->addr, 1));
	EXPECT_EQ(-EBUSY, PEER_RANGE(&self->b, 0, HMM_DMIRROR_EXCLUSIVE,
				     self->addr, 1));
	EXPECT_EQ(1000, *(volatile long *)self->addr);
	/* Others go on writing, and it sees that. */
	ASSERT_EQ(0, PEER_PUT(&self->a, 0, self->addr, 3));
	EXPECT_EQ(3, PEER_GET(&self->b, 0, self->addr));
	ASSERT_OK(peer_munmap(&self->a, self->addr, page()));
	EXPECT_EQ(-EFAULT, PEER_GET(&self->b, 0, self->addr));
}

TEST_F_TIMEOUT(hmm, exclusive_access, SHORT_TIMEOUT)
{
	NEED_DEVICE();
	ONLY_ANON();
	MIRROR(3);
	ASSERT_EQ(0, dev_range(0, HMM_DMIRROR_EXCLUSIVE, self->addr, 3));
	EXPECT_EQ(-EPERM, dev_range(0, HMM_DMIRROR_CHECK_EXCLUSIVE,
				    self->addr, 3));
	/* Another process's device is as good as a CPU. */
	EXPECT_EQ(1000, PEER_GET(&self->a, 0, self->addr));
	EXPECT_EQ(0, dev_range(0, HMM_DMIRROR_CHECK_EXCLUSIVE, self->addr, 1));
	/* The driver forgets the page behind, too. */
	EXPECT_EQ(-EPERM, dev_range(0, HMM_DMIRROR_CHECK_EXCLUSIVE,
				    pg(self->addr, 2), 1));
	ASSERT_EQ(0, PEER(&self->b, do_put, NULL, L(pg(self->addr, 2)), 8));
	EXPECT_EQ(0, dev_range(0, HMM_DMIRROR_CHECK_EXCLUSIVE, self->addr, 3));
	EXPECT_EQ(8, dev_get(0, pg(self->addr, 2)));
	/* From one device to another. */
	ASSERT_EQ(0, dev_range(0, HMM_DMIRROR_EXCLUSIVE, self->addr, 1));
	ASSERT_EQ(0, PEER_RANGE(&self->b, 0, HMM_DMIRROR_EXCLUSIVE,
				self->addr, 1));
	EXPECT_EQ(0, dev_range(0, HMM_DMIRROR_CHECK_EXCLUSIVE, self->addr, 1));
	EXPECT_EQ(-EPERM, PEER_RANGE(&self->b, 0, HMM_DMIRROR_CHECK_EXCLUSIVE,
				     self->addr, 1));
	EXPECT_EQ(1000, *(volatile long *)self->addr);
}

/* Of ordinary memory and a region in one range */
TEST_F_TIMEOUT(hmm, exclusive_access_over_an_edge, SHORT_TIMEOUT)
{
	char *low = at(self->addr, -2 * (long)page());
	int i;

	NEED_DEVICE();
	ONLY_ANON();
	ASSERT_EQ(low, mmap(low, 2 * page(), RW, MAP_PRIVATE | MAP_ANONYMOUS |
			    MAP_FIXED_NOREPLACE, -1, 0));
	for (i = 0; i < 4; i++)
		*(long *)(low + i * page()) = 70 + i;
	for (i = 0; i < 4; i++)
		ASSERT_EQ(70 + i, dev_get(0, low + i * page()));
	ASSERT_EQ(0, dev_range(0, HMM_DMIRROR_EXCLUSIVE, low, 4));
	for (i = 0; i < 4; i++) {
		EXPECT_EQ(-EPERM, dev_range(0, HMM_DMIRROR_CHECK_EXCLUSIVE,
					    low + i * page(), 1));
	}
	EXPECT_EQ(73, PEER(&self->b, do_get, NULL, L(low + 3 * page())));
	EXPECT_EQ(70, *(volatile long *)low);
	EXPECT_EQ(0, dev_range(0, HMM_DMIRROR_CHECK_EXCLUSIVE, low, 1));
	munmap(low, 2 * page());
}

/*
 * To the memory of device @dev_nr and back: one change of the page table, which
 * all see.
 */
static void migrate(struct __test_metadata *_metadata, FIXTURE_DATA(hmm) *self,
		    int dev_nr, long local)
{
	int i;

	if (dev_nr) {
		ASSERT_EQ(0, dev_open(dev_nr));
		ASSERT_EQ(0, PEER_OPEN(&self->a, dev_nr));
		ASSERT_EQ(0, PEER_OPEN(&self->b, dev_nr));
	}
	/* The same device has the old pages for all processes. */
	for (i = 0; i < NR; i++) {
		ASSERT_EQ(1000 + i, dev_get(dev_nr, pg(self->addr, i)));
		ASSERT_EQ(1000 + i, PEER_GET(&self->a, dev_nr, pg(self->addr, i)));
		ASSERT_EQ(1000 + i, PEER_GET(&self->b, dev_nr, pg(self->addr, i)));
	}
	ASSERT_EQ(0, dev_range(dev_nr, HMM_DMIRROR_MIGRATE_TO_DEV, self->addr,
			       NR));
	for (i = 0; i < NR; i++) {
		EXPECT_EQ(local | HMM_DMIRROR_PROT_WRITE,
			  dev_snap(dev_nr, pg(self->addr, i)));
		EXPECT_EQ(local | HMM_DMIRROR_PROT_WRITE,
			  PEER_SNAP(&self->a, dev_nr, pg(self->addr, i)));
	}
	/* A device writes to its memory: who has an old page does not see it. */
	ASSERT_EQ(0, dev_put(dev_nr, pg(self->addr, 1), 5));
	EXPECT_EQ(5, PEER_GET(&self->a, dev_nr, pg(self->addr, 1)));
	EXPECT_EQ(5, PEER_GET(&self->b, dev_nr, pg(self->addr, 1)));
	ASSERT_EQ(0, PEER_PUT(&self->b, dev_nr, pg(self->addr, 2), 6));
	EXPECT_EQ(6, dev_get(dev_nr, pg(self->addr, 2)));

	/* A processor wants it. */
	EXPECT_EQ(5, PEER(&self->b, do_get, NULL, L(pg(self->addr, 1))));
	ASSERT_EQ(0, PEER(&self->b, do_put, NULL, L(pg(self->addr, 1)), 7));
	EXPECT_EQ(7, dev_get(dev_nr, pg(self->addr, 1)));
	EXPECT_EQ(7, PEER_GET(&self->a, dev_nr, pg(self->addr, 1)));
	EXPECT_EQ(7, *(volatile long *)pg(self->addr, 1));
	EXPECT_EQ(6, *(volatile long *)pg(self->addr, 2));

	/* And the rest is asked for by another process. */
	ASSERT_EQ(0, PEER_RANGE(&self->a, dev_nr, HMM_DMIRROR_MIGRATE_TO_SYS,
				self->addr, NR));
	for (i = 0; i < NR; i++)
		EXPECT_EQ(HMM_DMIRROR_PROT_WRITE,
			  dev_snap(dev_nr, pg(self->addr, i)));
	for (i = 3; i < NR; i++) {
		EXPECT_EQ(1000 + i, *(volatile long *)pg(self->addr, i));
		EXPECT_EQ(1000 + i, PEER_GET(&self->b, dev_nr, pg(self->addr, i)));
	}

	/* Unmapped while it is on the device. */
	ASSERT_EQ(0, dev_range(dev_nr, HMM_DMIRROR_MIGRATE_TO_DEV, self->addr,
			       NR));
	ASSERT_OK(peer_munmap(&self->a, self->addr, page()));
	EXPECT_EQ(-EFAULT, dev_get(dev_nr, self->addr));
	EXPECT_EQ(-EFAULT, PEER_GET(&self->b, dev_nr, self->addr));
	/* And whose device it is goes. */
	dev_close(dev_nr);
	EXPECT_EQ(1003, *(volatile long *)pg(self->addr, 3));
	EXPECT_EQ(1004, PEER_GET(&self->b, dev_nr, pg(self->addr, 4)));
}

TEST_F_TIMEOUT(hmm, migration_to_device_private_memory, SHORT_TIMEOUT)
{
	NEED_DEVICE();
	ONLY_ANON();
	migrate(_metadata, self, 0, HMM_DMIRROR_PROT_DEV_PRIVATE_LOCAL);
}

TEST_F_TIMEOUT(hmm, migration_to_device_coherent_memory, SHORT_TIMEOUT)
{
	NEED_DEVICE();
	ONLY_ANON();
	if (access("/dev/hmm_dmirror2", R_OK | W_OK))
		SKIP(return, "no /dev/hmm_dmirror2: boot with memmap=512M$0x60000000 test_hmm.spm_addr_dev0=0x60000000 test_hmm.spm_addr_dev1=0x70000000");
	migrate(_metadata, self, 2, HMM_DMIRROR_PROT_DEV_COHERENT_LOCAL);
}

/* A range of several mappings, of which some are none of a device's business. */
TEST_F_TIMEOUT(hmm, migration_of_several_mappings, SHORT_TIMEOUT)
{
	int i;

	NEED_DEVICE();
	ONLY_ANON();
	ASSERT_OK(munmap(pg(self->addr, 2), page()));
	ASSERT_OK(mprotect(pg(self->addr, 4), page(), PROT_READ));
	ASSERT_OK(mprotect(pg(self->addr, 6), page(), PROT_NONE));
	ASSERT_EQ(pg(self->addr, 8), map_anon(pg(self->addr, 8), page(),
					      MAP_SHARED));
	*(volatile long *)pg(self->addr, 8) = 1008;
	/* Never touched: to be made on the device, but where it may not write. */
	ASSERT_OK(madvise(pg(self->addr, 10), 2 * page(), MADV_DONTNEED));
	ASSERT_OK(mprotect(pg(self->addr, 11), page(), PROT_READ));

	/* It can't return the data of all. */
	EXPECT_EQ(-ENOENT, dev_range(0, HMM_DMIRROR_MIGRATE_TO_DEV, self->addr,
				     NR));
	for (i = 0; i < NR; i++) {
		long snap = PEER_SNAP(&self->a, 0, pg(self->addr, i));

		switch (i) {
		case 2:
		case 6:
			EXPECT_EQ(HMM_DMIRROR_PROT_ERROR, snap);
			break;
		case 4:
			EXPECT_EQ(HMM_DMIRROR_PROT_DEV_PRIVATE_LOCAL |
				  HMM_DMIRROR_PROT_READ, snap);
			break;
		case 8:
			EXPECT_EQ(HMM_DMIRROR_PROT_WRITE, snap);
			break;
		case 11:
			EXPECT_EQ(HMM_DMIRROR_PROT_NONE, snap);
			break;
		default:
			EXPECT_EQ(HMM_DMIRROR_PROT_DEV_PRIVATE_LOCAL |
				  HMM_DMIRROR_PROT_WRITE, snap);
		}
	}
	ASSERT_EQ(0, dev_put(0, pg(self->addr, 10), 1010));
	for (i = 0; i < NR; i++)
		if (i != 2 && i != 6 && i != 11)
			EXPECT_EQ(1000 + i, PEER(&self->b, do_get, NULL,
						 L(pg(self->addr, i))));
	EXPECT_EQ(0, PEER(&self->b, do_get, NULL, L(pg(self->addr, 11))));
}

/* Nothing that a device could have: it says so, and holds no lock. */
TEST_F_TIMEOUT(hmm, migration_of_nothing, SHORT_TIMEOUT)
{
	NEED_DEVICE();
	ONLY_ANON();
	ASSERT_OK(munmap(pg(self->addr, 2), page()));
	ASSERT_EQ(pg(self->addr, 3), map_anon(pg(self->addr, 3), page(),
					      MAP_SHARED));
	*(volatile long *)pg(self->addr, 3) = 1003;
	EXPECT_GT(0, dev_range(0, HMM_DMIRROR_MIGRATE_TO_DEV, pg(self->addr, 2), 1));
	ASSERT_OK(mprotect(pg(self->addr, 1), page(), PROT_READ));
	EXPECT_GT(0, dev_range(0, HMM_DMIRROR_MIGRATE_TO_DEV, pg(self->addr, 3), 1));
	ASSERT_OK(munmap(pg(self->addr, 4), page()));
	EXPECT_EQ(1003, PEER_GET(&self->a, 0, pg(self->addr, 3)));
}

/* Reads until *a[1]; ends with what is not right. */
static long do_get_all(const struct request *rq)
{
	int i;

	while (!*(volatile long *)rq->a[1]) {
		for (i = 0; i < NR; i++) {
			long val = *(volatile long *)pg((void *)rq->a[0], i);

			if (val != 1000 + i)
				return val ? : -1;
		}
	}
	return 0;
}

/* Processors want back what is on a device, as the process goes that has it. */
TEST_F_TIMEOUT(hmm, whose_device_it_is_goes_at_any_moment, LONG_TIMEOUT)
{
	volatile long *stop;
	long n = scaled(40);
	struct peer c;
	int i;

	NEED_DEVICE();
	ONLY_ANON();
	stop = map_anon(pg(self->addr, NR), page(), MAP_SHARED);
	ASSERT_EQ(pg(self->addr, NR), (void *)stop);
	PEER_SEND(&self->a, do_get_all, NULL, L(self->addr), L(stop));
	PEER_SEND(&self->b, do_get_all, NULL, L(self->addr), L(stop));
	for (i = 0; i < n; i++) {
		ASSERT_EQ(0, peer_start(&c));
		ASSERT_EQ(0, PEER_OPEN(&c, 0));
		(void)PEER_RANGE(&c, 0, HMM_DMIRROR_MIGRATE_TO_DEV, self->addr, NR);
		if (i & 1)
			PEER_SEND(&c, do_dev_range, NULL, 0,
				  HMM_DMIRROR_MIGRATE_TO_DEV, L(self->addr), NR);
		peer_stop(&c);
	}
	*stop = 1;
	EXPECT_EQ(0, peer_wait(&self->a));
	EXPECT_EQ(0, peer_wait(&self->b));
	for (i = 0; i < NR; i++)
		EXPECT_EQ(1000 + i, *(volatile long *)pg(self->addr, i));
}

/* What is mapped becomes the region's content, under a device's eyes. */
TEST_F_TIMEOUT(hmm, adoption, SHORT_TIMEOUT)
{
	void *addr = slot(2);
	const char *name;
	int i, rw;

	NOT_ELSEWHERE();
	NEED_DEVICE();
	for (rw = 0; rw < 2; rw++) {
		name = new_name();
		ASSERT_EQ(addr, map_anon(addr, NR * page(), MAP_PRIVATE));
		for (i = 0; i < NR; i++) {
			*(volatile long *)pg(addr, i) = 50 + i;
			ASSERT_EQ(0, dev_put(0, pg(addr, i), 60 + i));
		}
		ASSERT_OK(mshare(name, addr, self->len, O_CREAT | O_EXCL |
				 (rw ? O_RDWR : O_RDONLY), 0600));
		for (i = 0; i < NR; i++)
			EXPECT_EQ(60 + i, dev_get(0, pg(addr, i)));
		EXPECT_EQ(rw ? 0 : -EPERM, dev_put(0, pg(addr, 3), 3));
		ASSERT_OK(peer_attach(&self->a, name));
		EXPECT_EQ(rw ? 3 : 63, PEER_GET(&self->a, 0, pg(addr, 3)));
		ASSERT_OK(peer_munmap(&self->a, addr, page()));
		EXPECT_EQ(-EFAULT, dev_get(0, addr));
		ASSERT_EQ(0, PEER_PUT(&self->a, 0, pg(addr, 4), 44));
		EXPECT_EQ(44, dev_get(0, pg(addr, 4)));
		ASSERT_OK(munmap(addr, self->len));
		ASSERT_OK(peer_unlink(&self->a, name));
	}
}

/*
 * Races. The pages of the region change all the time, and what is freed is
 * filled with POISON by somebody else. A device must not see that.
 */

#define ROUNDS	80

/* Old, new, none; or no answer, which the device is free to give. */
static bool sane(long val, int i)
{
	return val == 1000 + i || !val || val == -EFAULT || val == -EBUSY ||
	       val == -EPERM || val == -ENOENT;
}

/* @how: 0 open and close, 1 detach and attach, 2 both, 3 neither */
static long do_look(const struct request *rq)
{
	void *addr = (void *)rq->a[0];
	int i, j, how = rq->a[2];

	for (i = 0; i < rq->a[1]; i++) {
		if (how == 1 || how == 2) {
			munmap(addr, granule());
			if (mshare(rq->s, 0, 0, O_RDWR, 0))
				return -errno;
		}
		if (how == 0 || how == 2) {
			dev_close(0);
			if (dev_open(0))
				return -errno;
		}
		for (j = 0; j < NR; j++) {
			long val = dev_get(0, pg(addr, j));

			if (!sane(val, j))
				return val ? : -1;
		}
	}
	return 0;
}

TEST_F_TIMEOUT(hmm, races, LONG_TIMEOUT)
{
	struct peer c, d;
	long n = scaled(ROUNDS);
	int how;

	IN_ONE_WAY(!variant->early);
	NEED_DEVICE();
	ONLY_ANON();
	ASSERT_EQ(0, peer_start(&c));
	ASSERT_EQ(0, peer_start(&d));
	for (how = 0; how < 3; how++) {
		PEER_SEND(&self->a, do_change_mirrored, NULL, L(self->addr), 2 * n);
		PEER_SEND(&self->b, do_look, self->name, L(self->addr), n, how);
		PEER_SEND(&c, do_look, self->name, L(self->addr), n, (how + 1) % 3);
		PEER_SEND(&d, do_look, self->name, L(self->addr), n, 0);
		EXPECT_EQ(0, peer_wait(&self->b));
		EXPECT_EQ(0, peer_wait(&c));
		EXPECT_EQ(0, peer_wait(&d));
		EXPECT_EQ(0, peer_wait(&self->a));
	}
	peer_stop(&c);
	peer_stop(&d);
	EXPECT_EQ(1001, dev_get(0, pg(self->addr, 1)));
}

/* The first device of a process that is attached, time and again. */
TEST_F_TIMEOUT(hmm, first_subscription_while_region_changes, LONG_TIMEOUT)
{
	void *big = at(self->addr, GB);
	long n = scaled(25);
	struct peer c;
	int i;

	IN_ONE_WAY(!variant->early);
	NEED_DEVICE();
	ONLY_ANON();
	ASSERT_EQ(big, mmap(big, 8 * MB, RW, MAP_FIXED | MAP_PRIVATE |
			    MAP_ANONYMOUS | MAP_POPULATE, -1, 0));
	PEER_SEND(&self->a, do_change_mirrored, NULL, L(self->addr), 10 * n);
	PEER_SEND(&self->b, do_toggle, NULL, L(big), 8 * MB, 40 * n);
	for (i = 0; i < n; i++) {
		ASSERT_EQ(0, peer_start(&c));
		EXPECT_EQ(0, PEER(&c, do_look, self->name, L(self->addr), 2, i & 1 ? 0 : 2));
		/* With an invalidation under way to it, perhaps. */
		peer_stop(&c);
	}
	EXPECT_EQ(0, peer_wait(&self->a));
	EXPECT_EQ(0, peer_wait(&self->b));
	EXPECT_EQ(1001, dev_get(0, pg(self->addr, 1)));
}

static long do_drop(const struct request *rq)
{
	for (;;)
		if (madvise((void *)rq->a[0], rq->a[1], MADV_DONTNEED))
			return -errno;
}

/*
 * Nobody who goes, or comes, waits for those who always change something, and
 * never are all done at the same time.
 */
TEST_F_TIMEOUT(hmm, mirrors_come_and_go_however_much_changes, LONG_TIMEOUT)
{
	enum { NR_DROPPERS = 8, EACH = 6 };
	struct peer t[NR_DROPPERS], c;
	size_t size = debug_kernel() ? 8 * MB : 32 * MB;
	double start, longest = 0;
	void *big[NR_DROPPERS];
	long val;
	int i;

	IN_ONE_WAY(!variant->early);
	NEED_DEVICE();
	ONLY_ANON();
	for (i = 0; i < NR_DROPPERS; i++) {
		big[i] = at(self->addr, (i + 1) * GB);
		ASSERT_EQ(big[i], mmap(big[i], size, RW, MAP_FIXED | MAP_PRIVATE |
				       MAP_ANONYMOUS | MAP_POPULATE, -1, 0));
		ASSERT_EQ(0, peer_start(&t[i]));
	}
	for (i = 0; i < NR_DROPPERS; i++)
		PEER_SEND(&t[i], do_drop, NULL, L(big[i]), size);
	for (i = 0; i < EACH; i++) {
		start = now();
		/* Attached, as a child; with its first device, or again. */
		ASSERT_EQ(0, peer_start(&c));
		ASSERT_EQ(0, PEER_OPEN(&c, 0));
		if (i & 1) {
			ASSERT_OK(peer_munmap(&c, self->addr, self->len));
			ASSERT_OK(peer_attach(&c, self->name));
		}
		/* So much changes that a device may give up, as anywhere. */
		val = PEER_GET(&c, 0, pg(self->addr, 1));
		EXPECT_TRUE(val == 1001 || val == -EBUSY);
		if (i & 2)
			ASSERT_OK(peer_munmap(&c, self->addr, self->len));
		peer_stop(&c);
		if (now() - start > longest)
			longest = now() - start;
	}
	TH_LOG("%.1f s at most", longest);
	for (i = 0; i < NR_DROPPERS; i++)
		peer_stop(&t[i]);
	EXPECT_EQ(1001, dev_get(0, pg(self->addr, 1)));
}

static long do_scan_and_protect(const struct request *rq)
{
	struct pm_scan_arg arg = {
		.size		= sizeof(arg),
		.flags		= PM_SCAN_WP_MATCHING,
		.start		= rq->a[0],
		.end		= rq->a[0] + rq->a[1],
		.category_mask	= PAGE_IS_PRESENT,
		.return_mask	= PAGE_IS_PRESENT,
	};
	int fd = open("/proc/self/pagemap", O_RDONLY | O_CLOEXEC), ret;

	if (fd < 0)
		return -errno;
	ret = ioctl(fd, PAGEMAP_SCAN, &arg) < 0 ? -errno : 0;
	close(fd);
	return ret;
}

/* Nothing of a region is protected that way, so nobody need be told. */
TEST_F_TIMEOUT(hmm, pagemap_scan_disturbs_no_mirror, SHORT_TIMEOUT)
{
	NEED_DEVICE();
	MIRROR(2);
	ASSERT_EQ(0, PEER(&self->b, do_scan_and_protect, NULL, L(self->addr),
			  self->len));
	EXPECT_EQ(0, dev_faults(0, self->addr));
	EXPECT_EQ(0, PEER_FAULTS(&self->a, 0, self->addr));
}

MSHARE_TEST_MAIN
