// SPDX-License-Identifier: GPL-2.0
/*
 * Memory policies and the moving of pages in a region. Needs two nodes with
 * memory; numa=fake=2 on the kernel's command line makes them.
 */
#include "mshare_env.h"

#define RW		(PROT_READ | PROT_WRITE)

#define MPOL_DEFAULT_		0
#define MPOL_PREFERRED_		1
#define MPOL_BIND_		2
#define MPOL_INTERLEAVE_	3
#define MPOL_F_NODE_		1
#define MPOL_F_ADDR_		2
#define MPOL_MF_STRICT_		1
#define MPOL_MF_MOVE_		2
#define MPOL_MF_MOVE_ALL_	4

#define NR_PAGES	16

static size_t pages(size_t n)
{
	return n * page();
}

static long mbind_(void *p, size_t len, int mode, unsigned long nodes, int flags)
{
	return syscall(SYS_mbind, p, len, mode, mode ? &nodes : NULL,
		       mode ? 64L : 0L, flags);
}

static long do_mbind(const struct request *rq)
{
	return mbind_((void *)rq->a[0], rq->a[1], rq->a[2], rq->a[3], rq->a[4]);
}

/* The node of the page at an address, faulted in if need be. */
static long do_node(const struct request *rq)
{
	int node = -1;

	if (syscall(SYS_get_mempolicy, &node, NULL, 0L, rq->a[0],
		    (long)(MPOL_F_NODE_ | MPOL_F_ADDR_)))
		return -1;
	return node;
}

/* The policy: mode, and nodes above it. */
static long do_policy(const struct request *rq)
{
	unsigned long nodes[16] = { 0 };
	int mode = -1;

	if (syscall(SYS_get_mempolicy, &mode, nodes, 1024L, rq->a[0],
		    (long)MPOL_F_ADDR_))
		return -1;
	return mode | nodes[0] << 8;
}

static long do_home_node(const struct request *rq)
{
	return syscall(SYS_set_mempolicy_home_node, rq->a[0], rq->a[1], rq->a[2], 0);
}

/* What move_pages() says of one page; its errors as they are. */
static int where(pid_t pid, void *p)
{
	int status = -9999;

	if (syscall(SYS_move_pages, pid, 1L, &p, NULL, &status, 0))
		return -errno;
	return status;
}

static int move(pid_t pid, void *p, int node, int flags)
{
	int status = -9999;

	if (syscall(SYS_move_pages, pid, 1L, &p, &node, &status, flags))
		return -errno;
	return status;
}

static long do_where(const struct request *rq)
{
	return where(rq->a[0], (void *)rq->a[1]);
}

static long do_move(const struct request *rq)
{
	return move(rq->a[0], (void *)rq->a[1], rq->a[2], rq->a[3]);
}

static long do_fill(const struct request *rq)
{
	for (long i = 0; i < rq->a[1]; i++)
		if (try_write((void *)(rq->a[0] + pages(i)), rq->a[2] + i))
			return -1;
	return 0;
}

static long do_attach_ro(const struct request *rq)
{
	return mshare(rq->s, (void *)rq->a[0], rq->a[1], O_RDONLY, 0);
}

static int node_of(struct peer *p, void *addr)
{
	return PEER(p, do_node, NULL, L(addr));
}

FIXTURE(numa)
{
	const char *name;
	void *addr;
	size_t len;
	struct peer a, b;
	struct kind_data k;
	struct setting balancing;
	const char *why;
};

FIXTURE_VARIANT(numa)
{
	enum kind kind;
};

FIXTURE_VARIANT_ADD(numa, anon_private) { .kind = ANON_PRIVATE };
FIXTURE_VARIANT_ADD(numa, anon_shared) { .kind = ANON_SHARED };
FIXTURE_VARIANT_ADD(numa, memfd) { .kind = MEMFD };

static bool two_nodes(void)
{
	return !access("/sys/devices/system/node/node0", F_OK) &&
	       !access("/sys/devices/system/node/node1", F_OK);
}

FIXTURE_SETUP(numa)
{
	self->name = new_name();
	self->addr = slot(0);
	self->len = granule();
	self->k.fd = -1;
	if (!two_nodes()) {
		self->why = "needs two nodes: numa=fake=2 on the command line";
		return;
	}
	setting_set(&self->balancing, "/proc/sys/kernel/numa_balancing", "0");
	/* memfd with nothing in it: policies count when pages are made. */
	self->k.kind = variant->kind;
	self->k.flags = variant->kind == ANON_PRIVATE ? MAP_PRIVATE : MAP_SHARED;
	if (variant->kind == MEMFD) {
		self->k.fd = memfd_create("mshare", MFD_CLOEXEC);
		ASSERT_LE(0, self->k.fd);
		ASSERT_OK(ftruncate(self->k.fd, pages(64)));
		self->k.file = true;
	} else {
		self->k.flags |= MAP_ANONYMOUS;
	}
	ASSERT_EQ(0, peer_start(&self->a));
	ASSERT_EQ(0, peer_start(&self->b));
	ASSERT_OK(peer_create(&self->a, self->name, self->addr, self->len));
	ASSERT_OK(peer_attach(&self->b, self->name));
	ASSERT_OK(attach(self->name));
	ASSERT_OK(kind_map(&self->k, self->addr, pages(NR_PAGES), RW, MAP_FIXED, 0));
}

FIXTURE_TEARDOWN(numa)
{
	peer_stop(&self->a);
	peer_stop(&self->b);
	remove_names();
	kind_end(&self->k);
	setting_restore(&self->balancing);
}

#define NEED_NODES() do {						\
	if (self->why)							\
		SKIP(return, "%s", self->why);				\
} while (0)

TEST_F(numa, a_policy_holds_for_all_who_fault)
{
	NEED_NODES();
	ASSERT_OK(PEER(&self->a, do_mbind, NULL, L(self->addr), pages(4), MPOL_BIND_, 1));
	ASSERT_OK(PEER(&self->b, do_mbind, NULL, L(at(self->addr, pages(4))), pages(4),
		       MPOL_BIND_, 2));
	EXPECT_EQ(0, PEER(&self->b, do_fill, NULL, L(self->addr), 8, 1));
	for (int i = 0; i < 8; i++) {
		EXPECT_EQ(i < 4 ? 0 : 1, node_of(&self->a, at(self->addr, pages(i))));
		EXPECT_EQ(i < 4 ? 0 : 1, where(0, at(self->addr, pages(i))));
	}
	/* The policy can be read by all; there is none beside it. */
	EXPECT_EQ(MPOL_BIND_ | 1 << 8, PEER(&self->b, do_policy, NULL, L(self->addr)));
	EXPECT_EQ(MPOL_BIND_ | 2 << 8,
		  PEER(&self->a, do_policy, NULL, L(at(self->addr, pages(8) - 1))));
	EXPECT_EQ(MPOL_DEFAULT_,
		  PEER(&self->a, do_policy, NULL, L(at(self->addr, pages(8)))));
	EXPECT_ERR(EFAULT, PEER(&self->a, do_policy, NULL, L(at(self->addr, GB))));
	EXPECT_ERR(EFAULT, PEER(&self->a, do_node, NULL, L(at(self->addr, GB))));
	/* Asking for the node of a page that is not there makes one, or takes zeros. */
	if (variant->kind == ANON_PRIVATE)
		return;
	ASSERT_OK(mbind_(at(self->addr, pages(12)), page(), MPOL_BIND_, 2, 0));
	EXPECT_EQ(1, node_of(&self->a, at(self->addr, pages(12))));
	EXPECT_EQ(1, where(0, at(self->addr, pages(12))));
}

TEST_F(numa, interleaving_is_by_address)
{
	NEED_NODES();
	ASSERT_OK(mbind_(self->addr, pages(8), MPOL_INTERLEAVE_, 3, 0));
	for (int i = 0; i < 8; i++) {
		EXPECT_EQ(0, peer_write(i & 2 ? &self->a : &self->b,
					at(self->addr, pages(i)), 1));
	}
	for (int i = 1; i < 8; i++) {
		EXPECT_NE(where(0, at(self->addr, pages(i - 1))),
			  where(0, at(self->addr, pages(i))));
	}
}

TEST_F(numa, mbind_moves_what_is_there)
{
	NEED_NODES();
	ASSERT_OK(mbind_(self->addr, pages(8), MPOL_BIND_, 1, 0));
	ASSERT_EQ(0, PEER(&self->a, do_fill, NULL, L(self->addr), 8, 10));
	EXPECT_ERR(EIO, mbind_(self->addr, pages(8), MPOL_BIND_, 2, MPOL_MF_STRICT_));
	ASSERT_OK(PEER(&self->b, do_mbind, NULL, L(self->addr), pages(8), MPOL_BIND_, 2,
		       MPOL_MF_MOVE_ | MPOL_MF_STRICT_));
	for (int i = 0; i < 8; i++) {
		EXPECT_EQ(1, where(0, at(self->addr, pages(i))));
		EXPECT_EQ(10 + i, peer_read(&self->a, at(self->addr, pages(i))));
	}
	EXPECT_OK(mbind_(self->addr, pages(8), MPOL_DEFAULT_, 0, 0));
	EXPECT_EQ(MPOL_DEFAULT_, PEER(&self->a, do_policy, NULL, L(self->addr)));
	/* A hole is one. */
	EXPECT_ERR(EFAULT, mbind_(at(self->addr, GB), page(), MPOL_BIND_, 1, 0));
	EXPECT_ERR(EFAULT, mbind_(at(self->addr, pages(NR_PAGES - 1)), pages(2),
				  MPOL_BIND_, 1, 0));
}

TEST_F(numa, a_home_node_is_set_for_all)
{
	NEED_NODES();
	if (variant->kind != ANON_PRIVATE)
		SKIP(return, "the policy is the file's");
	EXPECT_ERR(ENOENT, PEER(&self->a, do_home_node, NULL, L(self->addr), page(), 1));
	ASSERT_OK(mbind_(self->addr, pages(4), MPOL_BIND_, 3, 0));
	EXPECT_OK(PEER(&self->a, do_home_node, NULL, L(self->addr), pages(4), 1));
	EXPECT_EQ(0, PEER(&self->b, do_fill, NULL, L(self->addr), 4, 1));
	for (int i = 0; i < 4; i++) {
		EXPECT_EQ(1, where(0, at(self->addr, pages(i))));
	}
	EXPECT_ERR(EINVAL, PEER(&self->a, do_home_node, NULL, L(self->addr), page(), 9));
}

TEST_F(numa, pages_are_moved_by_anyone_for_anyone)
{
	NEED_NODES();
	ASSERT_OK(mbind_(self->addr, pages(4), MPOL_PREFERRED_, 1, 0));
	ASSERT_EQ(0, PEER(&self->a, do_fill, NULL, L(self->addr), 3, 10));
	EXPECT_EQ(1, move(0, self->addr, 1, MPOL_MF_MOVE_));
	EXPECT_EQ(1, PEER(&self->a, do_where, NULL, 0, L(self->addr)));
	EXPECT_EQ(10, peer_read(&self->a, self->addr));
	/* By its pid, and from one who is not attached. */
	EXPECT_EQ(1, where(self->a.pid, self->addr));
	ASSERT_OK(munmap(self->addr, self->len));
	EXPECT_EQ(-EFAULT, where(0, self->addr));
	EXPECT_EQ(-EFAULT, move(0, self->addr, 0, MPOL_MF_MOVE_));
	EXPECT_EQ(0, move(self->b.pid, self->addr, 0, MPOL_MF_MOVE_ALL_));
	EXPECT_EQ(0, where(self->a.pid, self->addr));
	EXPECT_EQ(1, PEER(&self->b, do_move, NULL, 0, L(at(self->addr, page())), 1,
			  MPOL_MF_MOVE_));
	EXPECT_EQ(1, where(self->a.pid, at(self->addr, page())));
	EXPECT_EQ(11, peer_read(&self->a, at(self->addr, page())));
	/* Nothing there, and nothing mapped. */
	EXPECT_EQ(-ENOENT, where(self->a.pid, at(self->addr, pages(3))));
	EXPECT_EQ(-ENOENT, move(self->a.pid, at(self->addr, pages(3)), 1, MPOL_MF_MOVE_));
	EXPECT_EQ(-EFAULT, where(self->a.pid, at(self->addr, GB)));
	EXPECT_EQ(-EFAULT, move(self->a.pid, at(self->addr, GB), 1, MPOL_MF_MOVE_));
}

/* A list with everything in it, longer than what is done at a time. */
TEST_F(numa, a_list_may_mix_what_is_in_a_region_with_what_is_not)
{
	enum { N = 48 };
	void *own = mmap(NULL, pages(N), RW, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	int nodes[N], status[N], i;
	void *list[N];

	NEED_NODES();
	ASSERT_OK(mbind_(self->addr, pages(NR_PAGES), MPOL_BIND_, 1, 0));
	ASSERT_OK(mbind_(own, pages(N), MPOL_BIND_, 1, 0));
	ASSERT_EQ(0, PEER(&self->a, do_fill, NULL, L(self->addr), NR_PAGES, 10));
	for (i = 0; i < N; i++) {
		ASSERT_EQ(0, try_write(at(own, pages(i)), i));
		if (i % 3 == 0)
			list[i] = at(self->addr, pages(i / 3 % NR_PAGES) + i);
		else if (i % 3 == 1)
			list[i] = at(own, pages(i) + i);
		else
			list[i] = at(self->addr, GB);
		nodes[i] = i & 4 ? 1 : 0;
	}
	ASSERT_OK(syscall(SYS_move_pages, 0, (long)N, list, NULL, status, 0));
	for (i = 0; i < N; i++) {
		EXPECT_EQ(i % 3 == 2 ? -EFAULT : 0, status[i]);
	}
	ASSERT_OK(syscall(SYS_move_pages, 0, (long)N, list, nodes, status, MPOL_MF_MOVE_));
	for (i = 0; i < N; i++) {
		EXPECT_EQ(i % 3 == 2 ? -EFAULT : nodes[i], status[i]) {
			TH_LOG("at %d", i);
		}
	}
	ASSERT_OK(syscall(SYS_move_pages, 0, (long)N, list, NULL, status, 0));
	for (i = 0; i < N; i++) {
		EXPECT_EQ(i % 3 == 2 ? -EFAULT : nodes[i], status[i]);
	}
	for (i = 0; i < NR_PAGES; i++) {
		EXPECT_EQ(10 + i, peer_read(&self->b, at(self->addr, pages(i))));
	}
	munmap(own, pages(N));
}

TEST_F(numa, migrate_pages_leaves_regions_alone)
{
	unsigned long from = 1, to = 2;
	void *own;

	NEED_NODES();
	own = mmap(NULL, pages(4), RW, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	ASSERT_OK(mbind_(own, pages(4), MPOL_PREFERRED_, 1, 0));
	ASSERT_OK(mbind_(self->addr, pages(4), MPOL_PREFERRED_, 1, 0));
	ASSERT_EQ(0, try_write(own, 1));
	ASSERT_EQ(0, PEER(&self->a, do_fill, NULL, L(self->addr), 4, 10));
	ASSERT_LE(0, syscall(SYS_migrate_pages, 0, 64L, &from, &to));
	EXPECT_EQ(1, where(0, own));
	ASSERT_LE(0, syscall(SYS_migrate_pages, self->a.pid, 64L, &from, &to));
	for (int i = 0; i < 4; i++) {
		EXPECT_EQ(0, where(0, at(self->addr, pages(i))));
	}
	EXPECT_EQ(10, peer_read(&self->a, self->addr));
	munmap(own, pages(4));
}

/* In cgroup v2 memory follows cpuset.mems. */
static bool cg_cpuset(void)
{
	char buf[512];

	if (!cg_root())
		return false;
	write_file(cg_path(".", "cgroup.subtree_control"), "+cpuset");
	return read_file(cg_path(".", "cgroup.subtree_control"), buf,
			 sizeof(buf)) > 0 && strstr(buf, "cpuset");
}

TEST_F(numa, a_cpuset_leaves_regions_alone)
{
	void *own = slot(4);
	char cg[64];

	NEED_NODES();
	if (!cg_cpuset())
		SKIP(return, "no cgroup v2 cpuset controller");
	snprintf(cg, sizeof(cg), "mshare-%d", getpid());
	ASSERT_OK(cg_make(cg));
	ASSERT_OK(cg_write(cg, "cpuset.mems", "0"));
	ASSERT_OK(PEER(&self->a, do_cg_enter, cg, 0));
	ASSERT_OK(PEER(&self->a, do_mmap, NULL, L(own), pages(4), RW, MAP_PRIVATE |
		       MAP_ANONYMOUS | MAP_FIXED, -1, 0));
	ASSERT_EQ(0, PEER(&self->a, do_fill, NULL, L(own), 4, 1));
	ASSERT_EQ(0, PEER(&self->a, do_fill, NULL, L(self->addr), 4, 10));
	EXPECT_EQ(0, where(0, self->addr));
	ASSERT_OK(cg_write(cg, "cpuset.mems", "1"));
	EXPECT_TRUE(WAIT_FOR(where(self->a.pid, own) == 1, 5));
	for (int i = 0; i < 4; i++) {
		EXPECT_EQ(0, where(0, at(self->addr, pages(i))));
	}
	/* A policy that the set does not allow is none. */
	EXPECT_ERR(EINVAL, PEER(&self->a, do_mbind, NULL, L(self->addr), pages(4),
				MPOL_BIND_, 1, 0));
	EXPECT_OK(PEER(&self->a, do_mbind, NULL, L(self->addr), pages(4), MPOL_BIND_, 2,
		       MPOL_MF_MOVE_));
	EXPECT_EQ(1, where(0, self->addr));
	peer_stop(&self->a);
	cg_remove(cg);
}

TEST_F(numa, readers_ask_and_change_nothing)
{
	struct peer r;

	NEED_NODES();
	ASSERT_OK(mbind_(self->addr, pages(4), MPOL_BIND_, 1, 0));
	ASSERT_EQ(0, try_write(self->addr, 3));
	ASSERT_EQ(0, peer_start(&r));
	ASSERT_OK(PEER(&r, do_munmap, NULL, L(self->addr), self->len));
	ASSERT_OK(PEER(&r, do_attach_ro, self->name, L(self->addr), self->len));
	EXPECT_EQ(MPOL_BIND_ | 1 << 8, PEER(&r, do_policy, NULL, L(self->addr)));
	EXPECT_EQ(0, node_of(&r, self->addr));
	EXPECT_EQ(0, PEER(&r, do_where, NULL, 0, L(self->addr)));
	EXPECT_ERR(EACCES, PEER(&r, do_mbind, NULL, L(self->addr), page(), MPOL_BIND_, 2,
				MPOL_MF_MOVE_));
	EXPECT_ERR(EACCES, PEER(&r, do_home_node, NULL, L(self->addr), page(), 1));
	EXPECT_EQ(-EACCES, PEER(&r, do_move, NULL, 0, L(self->addr), 1, MPOL_MF_MOVE_));
	EXPECT_EQ(-EACCES, move(r.pid, self->addr, 1, MPOL_MF_MOVE_));
	EXPECT_EQ(0, where(0, self->addr));
	peer_stop(&r);
}

TEST_F(numa, across_an_edge_nothing_changes)
{
	void *below = at(self->addr, -page());

	NEED_NODES();
	ASSERT_OK(map_anon(below, page(), MAP_PRIVATE));
	EXPECT_ERR(EINVAL, mbind_(below, pages(2), MPOL_BIND_, 1, 0));
	EXPECT_ERR(EINVAL, syscall(SYS_set_mempolicy_home_node, below, pages(2), 0, 0));
	EXPECT_ERR(EINVAL, mbind_(at(self->addr, self->len - page()), pages(2),
				  MPOL_DEFAULT_, 0, 0));
	EXPECT_EQ(MPOL_DEFAULT_, PEER(&self->a, do_policy, NULL, L(self->addr)));
	munmap(below, page());
}

/* Moved all the time, and never lost. */
static long do_hammer(const struct request *rq)
{
	long bad = 0, i = 0;
	double end = now() + 1;

	while (now() < end) {
		void *p = (void *)(rq->a[0] + pages(i++ % 8) + rq->a[1]);

		if (try_write(p, i & 127) || try_read(p) != (i & 127))
			bad++;
	}
	return bad;
}

TEST_F_TIMEOUT(numa, pages_are_used_while_they_move, SHORT_TIMEOUT)
{
	double end = now() + 1;
	long moved = 0;
	int n = 0;

	NEED_NODES();
	PEER_SEND(&self->a, do_hammer, NULL, L(self->addr), 0);
	PEER_SEND(&self->b, do_hammer, NULL, L(self->addr), 1);
	while (now() < end) {
		if (move(0, at(self->addr, pages(n % 8)), n & 8 ? 1 : 0,
			 MPOL_MF_MOVE_) >= 0)
			moved++;
		n++;
	}
	EXPECT_EQ(0, peer_wait(&self->a));
	EXPECT_EQ(0, peer_wait(&self->b));
	EXPECT_LT(10, moved);
}

MSHARE_TEST_MAIN
