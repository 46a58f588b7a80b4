// SPDX-License-Identifier: GPL-2.0
/*
 * Memory that fails in a region: whoever is attached is told, at his own
 * address, and nobody else.
 */
#include <sys/uio.h>
#include "mshare_env.h"

#define RW	(PROT_READ | PROT_WRITE)
#define HUGE	(2 * MB)
#define LENGTH	(2 * HUGE)

#define THP	100
#define HUGETLB	101

#ifndef MADV_SOFT_OFFLINE
#define MADV_SOFT_OFFLINE	101
#endif
static long do_madvise(const struct request *rq)
{
	return madvise((void *)rq->a[0], rq->a[1], rq->a[2]);
}

FIXTURE(hwpoison)
{
	const char *name;
	void *addr, *p;
	size_t len;
	/* early wants to know at once; ro is attached read-only, out is not */
	struct peer a, early, ro, out;
	struct kind_data kind;
	struct setting thp, nr_huge;
	int flags, fd;
};

FIXTURE_VARIANT(hwpoison)
{
	int kind;
	bool shared;
};

#define VARIANT(_name, _kind, _shared)					\
	FIXTURE_VARIANT_ADD(hwpoison, _name) {				\
		.kind = _kind, .shared = _shared }

VARIANT(anon_private, ANON_PRIVATE, false);
VARIANT(anon_shared, ANON_SHARED, true);
VARIANT(tmpfs_private, TMPFS_PRIVATE, false);
VARIANT(tmpfs_shared, TMPFS_SHARED, true);
VARIANT(thp, THP, false);
VARIANT(hugetlb_private, HUGETLB, false);

FIXTURE_SETUP(hwpoison)
{
	const char *why = NULL;
	size_t i;

	self->kind.fd = -1;
	self->fd = -1;
	self->name = new_name();
	self->addr = slot(0);
	self->len = granule();
	self->p = at(self->addr, GB);
	self->flags = MAP_ANONYMOUS | (variant->shared ? MAP_SHARED : MAP_PRIVATE);

	if (madvise(self->p, 0, MADV_HWPOISON))
		SKIP(return, "no CONFIG_MEMORY_FAILURE");
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
		if (!why && self->fd >= 0 && ftruncate(self->fd, LENGTH))
			why = "cannot make a file";
	}
	if (why)
		SKIP(return, "%s", why);

	ASSERT_EQ(0, peer_start(&self->a));
	ASSERT_EQ(0, peer_start(&self->early));
	ASSERT_EQ(0, peer_start(&self->ro));
	ASSERT_EQ(0, peer_start(&self->out));
	ASSERT_OK(PEER(&self->a, do_handle, NULL, PR_MCE_KILL_LATE));
	ASSERT_OK(PEER(&self->early, do_handle, NULL, PR_MCE_KILL_EARLY));
	ASSERT_OK(PEER(&self->ro, do_handle, NULL, PR_MCE_KILL_EARLY));
	ASSERT_OK(PEER(&self->out, do_handle, NULL, PR_MCE_KILL_EARLY));
	ASSERT_OK(create(self->name, self->addr, self->len));
	ASSERT_OK(peer_attach(&self->a, self->name));
	ASSERT_OK(peer_attach(&self->early, self->name));
	ASSERT_OK(PEER(&self->ro, do_mshare, self->name, 0, 0, O_RDONLY, 0));
	ASSERT_EQ(self->p, mmap(self->p, LENGTH, RW, self->flags | MAP_FIXED,
				self->fd, 0));
	if (variant->kind == THP)
		ASSERT_OK(madvise(self->p, LENGTH, MADV_HUGEPAGE));
	for (i = 0; i < LENGTH; i += page())
		ASSERT_EQ(0, try_write(at(self->p, i), i / page()));
}

FIXTURE_TEARDOWN(hwpoison)
{
	peer_stop(&self->a);
	peer_stop(&self->early);
	peer_stop(&self->ro);
	peer_stop(&self->out);
	munmap(self->addr, self->len);
	remove_names();
	kind_end(&self->kind);
	setting_restore(&self->thp);
	setting_restore(&self->nr_huge);
}

TEST_F(hwpoison, a_page_fails)
{
	char *bad = at(self->p, 3 * page()), buf[8];
	struct iovec local = { buf, sizeof(buf) }, remote = { bad, sizeof(buf) };
	int lsb = __builtin_ctzl(page());
	char *good = variant->kind == HUGETLB ? at(self->p, HUGE) :
		     bad + page();

	if (variant->kind == HUGETLB) {
		bad = self->p;
		remote.iov_base = bad;
		lsb = 21;
	}
	EXPECT_EQ(0, PEER(&self->a, do_madvise, NULL, L(bad), page(),
			  MADV_HWPOISON));
	/* The one whose access it was. */
	EXPECT_EQ(1, SEEN(&self->a, 0));
	EXPECT_EQ(BUS_MCEERR_AR, SEEN(&self->a, 1));
	EXPECT_EQ(L(bad), SEEN(&self->a, 2));
	EXPECT_EQ(lsb, SEEN(&self->a, 3));
	/* Those who wanted to know. */
	EXPECT_TRUE(WAIT_FOR(SEEN(&self->early, 0) == 1, 10));
	EXPECT_EQ(BUS_MCEERR_AO, SEEN(&self->early, 1));
	EXPECT_EQ(L(bad), SEEN(&self->early, 2));
	EXPECT_EQ(lsb, SEEN(&self->early, 3));
	EXPECT_TRUE(WAIT_FOR(SEEN(&self->ro, 0) == 1, 10));
	EXPECT_EQ(BUS_MCEERR_AO, SEEN(&self->ro, 1));
	EXPECT_EQ(L(bad), SEEN(&self->ro, 2));
	EXPECT_EQ(0, SEEN(&self->out, 0));
	/* Whoever touches it. */
	EXPECT_EQ(FAULT(SIGBUS, BUS_MCEERR_AR), try_read(bad));
	EXPECT_EQ((void *)bad, probe_addr);
	EXPECT_EQ(FAULT(SIGBUS, BUS_MCEERR_AR), peer_write(&self->early, bad, 1));
	EXPECT_EQ(FAULT(SIGBUS, BUS_MCEERR_AR), peer_read(&self->ro, bad));
	EXPECT_EQ(-1, process_vm_readv(self->a.pid, &local, 1, &remote, 1, 0));
	EXPECT_TRUE(errno == EFAULT || errno == EHWPOISON);
	/* What is beside it is fine. */
	EXPECT_EQ((good - (char *)self->p) / page() & 0xff,
		  (unsigned long)try_read(good));
	EXPECT_EQ(0, peer_write(&self->early, good, 42));
	EXPECT_EQ(42, peer_read(&self->ro, good));
	if (variant->shared)
		return;
	/* And a new mapping there is, too. */
	ASSERT_OK(munmap(self->p, LENGTH));
	ASSERT_OK(map_anon(self->p, LENGTH, MAP_PRIVATE));
	EXPECT_EQ(0, peer_write(&self->early, bad, 43));
	EXPECT_EQ(43, peer_read(&self->ro, bad));
}

/* A page of KSM's is one page at two addresses. */
TEST_F(hwpoison, a_merged_page_fails)
{
	struct setting run, scan, nap;
	void *two[] = { self->p, at(self->p, page()) };
	int i;

	if (variant->kind != ANON_PRIVATE)
		SKIP(return, "only private anonymous memory is merged");
	if (setting_set(&run, "/sys/kernel/mm/ksm/run", "1"))
		SKIP(return, "no CONFIG_KSM");
	setting_set(&nap, "/sys/kernel/mm/ksm/sleep_millisecs", "1");
	setting_set(&scan, "/sys/kernel/mm/ksm/pages_to_scan", "1000");
	for (i = 0; i < 2; i++)
		memset(two[i], 0x77, page());
	ASSERT_OK(madvise(self->p, 2 * page(), MADV_MERGEABLE));
	EXPECT_TRUE(WAIT_FOR(pfn_of(two[0]) && pfn_of(two[0]) == pfn_of(two[1]), 60));
	/* Waits until the one page is known to be at both addresses. */
	EXPECT_OK(write_file(run.path, "0"));
	EXPECT_EQ(0, PEER(&self->a, do_madvise, NULL, L(two[1]), page(),
			  MADV_HWPOISON));
	EXPECT_EQ(1, SEEN(&self->a, 0));
	EXPECT_EQ(BUS_MCEERR_AR, SEEN(&self->a, 1));
	EXPECT_TRUE(SEEN(&self->a, 2) == L(two[0]) || SEEN(&self->a, 2) == L(two[1]));
	EXPECT_TRUE(WAIT_FOR(SEEN(&self->early, 0) == 1, 10));
	EXPECT_EQ(BUS_MCEERR_AO, SEEN(&self->early, 1));
	EXPECT_TRUE(SEEN(&self->early, 2) == L(two[0]) ||
		    SEEN(&self->early, 2) == L(two[1]));
	EXPECT_TRUE(WAIT_FOR(SEEN(&self->ro, 0) == 1, 10));
	EXPECT_EQ(0, SEEN(&self->out, 0));
	for (i = 0; i < 2; i++) {
		EXPECT_EQ(FAULT(SIGBUS, BUS_MCEERR_AR), try_read(two[i]));
		EXPECT_EQ(FAULT(SIGBUS, BUS_MCEERR_AR), peer_read(&self->ro, two[i]));
	}
	EXPECT_EQ(2, peer_read(&self->ro, at(self->p, 2 * page())));
	/* KSM would count that page, and merge others with it: it does not look. */
	EXPECT_OK(write_file(run.path, "2"));
	setting_restore(&run);
	setting_restore(&nap);
	setting_restore(&scan);
}

static long do_wrong(const struct request *rq)
{
	long bad = 0;
	size_t i;

	for (i = 0; i < LENGTH; i += page())
		bad += try_read((void *)(rq->a[0] + i)) != (long)(i / page() & 0xff);
	return bad;
}

TEST_F(hwpoison, soft_offline)
{
	ASSERT_OK(PEER(&self->a, do_madvise, NULL, L(self->p), 3 * page(),
		       MADV_SOFT_OFFLINE));
	EXPECT_EQ(0, PEER(&self->ro, do_wrong, NULL, L(self->p)));
	EXPECT_EQ(0, try_write(self->p, 9));
	EXPECT_EQ(9, peer_read(&self->early, self->p));
	EXPECT_EQ(0, SEEN(&self->early, 0));
}

TEST_F(hwpoison, who_may)
{
	int advice;

	for (advice = MADV_HWPOISON; advice <= MADV_SOFT_OFFLINE; advice++) {
		EXPECT_ERR(EACCES, PEER(&self->ro, do_madvise, NULL, L(self->p),
					page(), advice));
		EXPECT_ERR(EFAULT, madvise(at(self->addr, 5 * GB), page(), advice));
		EXPECT_ERR(EINVAL, madvise(at(self->addr, -page()), 2 * page(),
					   advice));
		EXPECT_ERR(EINVAL, madvise(at(self->addr, self->len - page()),
					   2 * page(), advice));
	}
	EXPECT_EQ(0, peer_read(&self->ro, self->p));
}

MSHARE_TEST_MAIN
