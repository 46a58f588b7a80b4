// SPDX-License-Identifier: GPL-2.0
/*
 * What /proc, the ioctl of a region's file and core dumps tell of what is mapped
 * in a region: the pages that the host has, to those who are attached, and only
 * of what they have attached.
 */
#include <elf.h>
#include <linux/fs.h>
#include <sys/ioctl.h>
#include "mshare_env.h"

#define RW		(PROT_READ | PROT_WRITE)
#define HPS		(2 * MB)
#define OFF		(16 * MB)	/* of the memory in the region */

/* /proc/PID/pagemap */
#define PM_SOFT_DIRTY	(1ULL << 55)
#define PM_EXCLUSIVE	(1ULL << 56)
#define PM_FILE		(1ULL << 61)
#define PM_SWAP		(1ULL << 62)
#define PM_PRESENT	(1ULL << 63)
#define PM_FRAME(_e)	((_e) & ((1ULL << 55) - 1))
#define PM_TYPE(_e)	((_e) & 31)
#define PM_OFFSET(_e)	(PM_FRAME(_e) >> 5)

#ifndef PROCMAP_QUERY
#error "needs the kernel's headers"
#endif
#ifndef MFD_HUGETLB
#define MFD_HUGETLB	4U
#endif

static const char *proc_path(pid_t pid, const char *file)
{
	static char paths[4][64];
	static unsigned int next;
	char *path = paths[next++ % 4];

	snprintf(path, sizeof(paths[0]), "/proc/%d/%s", pid, file);
	return path;
}

/* A field of the entry of smaps that begins with @addr, in kB; -1 if none. */
static long smaps(pid_t pid, void *addr, const char *key)
{
	FILE *f = fopen(proc_path(pid, "smaps"), "re");
	unsigned long start, end;
	bool in = false;
	char line[PATH_MAX + 128];
	size_t n = strlen(key);
	long val = -1;

	while (f && fgets(line, sizeof(line), f)) {
		if (sscanf(line, "%lx-%lx ", &start, &end) == 2)
			in = start == (unsigned long)addr;
		else if (in && !strncmp(line, key, n) && line[n] == ':')
			val = strtol(line + n + 1, NULL, 10);
	}
	if (f)
		fclose(f);
	return val;
}

/* The sum of a field over all entries. */
static long smaps_sum(pid_t pid, const char *key)
{
	FILE *f = fopen(proc_path(pid, "smaps"), "re");
	char line[PATH_MAX + 128];
	size_t n = strlen(key);
	long val = 0;

	while (f && fgets(line, sizeof(line), f))
		if (!strncmp(line, key, n) && line[n] == ':')
			val += strtol(line + n + 1, NULL, 10);
	if (f)
		fclose(f);
	return val;
}

static long rollup(pid_t pid, const char *key)
{
	return read_key(proc_path(pid, "smaps_rollup"), key);
}

/* The line of numa_maps that begins with @addr. */
static bool numa_line(pid_t pid, void *addr, char *line, size_t size)
{
	FILE *f = fopen(proc_path(pid, "numa_maps"), "re");
	bool found = false;

	while (f && !found && fgets(line, size, f))
		found = strtoul(line, NULL, 16) == (unsigned long)addr;
	if (f)
		fclose(f);
	return found;
}

/* " key=NUMBER" of it; -1 if there is none */
static long numa_key(const char *line, const char *key)
{
	char text[32];
	const char *p;

	snprintf(text, sizeof(text), " %s=", key);
	p = strstr(line, text);
	return p ? strtol(p + strlen(text), NULL, 10) : -1;
}

/* The number of entries read. */
static long pagemap(pid_t pid, void *addr, __u64 *entries, size_t n)
{
	int fd = open(proc_path(pid, "pagemap"), O_RDONLY | O_CLOEXEC);
	ssize_t ret;

	if (fd < 0)
		return -1;
	ret = pread(fd, entries, n * sizeof(*entries),
		    (unsigned long)addr / page() * sizeof(*entries));
	close(fd);
	return ret < 0 ? ret : ret / (ssize_t)sizeof(*entries);
}

static __u64 pagemap_one(pid_t pid, void *addr)
{
	__u64 entry = -1;

	return pagemap(pid, addr, &entry, 1) == 1 ? entry : ~0ULL;
}

static int scan(pid_t pid, struct pm_scan_arg *arg, void *start, void *end,
		struct page_region *vec, size_t n)
{
	int fd = open(proc_path(pid, "pagemap"), O_RDONLY | O_CLOEXEC);
	int ret, err;

	arg->size = sizeof(*arg);
	arg->start = (unsigned long)start;
	arg->end = (unsigned long)end;
	arg->vec = (unsigned long)vec;
	arg->vec_len = n;
	arg->walk_end = 0;
	ret = ioctl(fd, PAGEMAP_SCAN, arg);
	err = errno;
	close(fd);
	errno = err;
	return ret;
}

static long do_touch(const struct request *rq)
{
	char *p = (void *)rq->a[0];
	long i, n = rq->a[1], step = rq->a[2] ?: 1;

	for (i = 0; i < n; i += step)
		p[i * page()] = i + 1;
	return 0;
}

static long peer_touch(struct peer *p, void *addr, long n, long step)
{
	return PEER(p, do_touch, NULL, L(addr), n, step);
}

/* What those who keep changing things share with the test */
struct churn {
	atomic_int stop;
	atomic_long done[2];
};

static struct churn *churn_new(void)
{
	return mmap(NULL, page(), RW, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
}

/*
 * A region with memory of each kind. Three are attached: the two peers and the
 * test.
 */

enum mem { MEM_ANON, MEM_ANON_SHARED, MEM_MEMFD, MEM_MEMFD_PRIVATE, MEM_THP,
	   MEM_HUGETLB, MEM_ADOPTED };

FIXTURE(proc)
{
	const char *name;
	void *addr;
	char *p;		/* the memory, of n pages */
	size_t len;
	long n;
	struct churn *churn;
	struct peer a, b, c;
	struct setting thp, pool;
	int fd;
	const char *why;
};

FIXTURE_VARIANT(proc)
{
	enum mem mem;
};

FIXTURE_VARIANT_ADD(proc, anon) { .mem = MEM_ANON };
FIXTURE_VARIANT_ADD(proc, anon_shared) { .mem = MEM_ANON_SHARED };
FIXTURE_VARIANT_ADD(proc, memfd) { .mem = MEM_MEMFD };
FIXTURE_VARIANT_ADD(proc, memfd_private) { .mem = MEM_MEMFD_PRIVATE };
FIXTURE_VARIANT_ADD(proc, thp) { .mem = MEM_THP };
FIXTURE_VARIANT_ADD(proc, hugetlb) { .mem = MEM_HUGETLB };
FIXTURE_VARIANT_ADD(proc, adopted) { .mem = MEM_ADOPTED };

static bool mem_anon(enum mem mem)
{
	return mem == MEM_ANON || mem == MEM_MEMFD_PRIVATE || mem == MEM_THP ||
	       mem == MEM_ADOPTED;
}

FIXTURE_SETUP(proc)
{
	int flags = MAP_PRIVATE | MAP_FIXED;

	NOT_ON_DEBUG(variant->mem == MEM_ANON_SHARED || variant->mem == MEM_MEMFD_PRIVATE ||
		     variant->mem == MEM_ADOPTED);
	self->name = new_name();
	self->addr = slot(0);
	self->len = granule();
	self->p = at(self->addr, OFF);
	self->n = 64;
	self->fd = -1;
	setting_set(&self->thp, THP_ENABLED,
		    variant->mem == MEM_THP ? "always" : "never");
	self->churn = churn_new();
	ASSERT_NE(MAP_FAILED, self->churn);
	ASSERT_EQ(0, peer_start(&self->a));
	ASSERT_EQ(0, peer_start(&self->b));
	ASSERT_EQ(0, peer_start(&self->c));

	switch (variant->mem) {
	case MEM_ANON_SHARED:
		flags = MAP_SHARED | MAP_FIXED;
		break;
	case MEM_MEMFD:
		flags = MAP_SHARED | MAP_FIXED;
		self->fd = memfd_create("mshare", MFD_CLOEXEC);
		break;
	case MEM_MEMFD_PRIVATE:
		self->fd = memfd_create("mshare", MFD_CLOEXEC);
		break;
	case MEM_THP:
		self->n = 2 * HPS / page();
		if (setting_set(&self->thp, THP_ENABLED, "always"))
			self->why = "no transparent huge pages";
		break;
	case MEM_HUGETLB:
		self->n = 2 * HPS / page();
		flags = MAP_SHARED | MAP_FIXED;
		write_file("/proc/sys/vm/compact_memory", "1");
		if (setting_set(&self->pool, "/proc/sys/vm/nr_hugepages", "4") ||
		    read_key("/proc/meminfo", "HugePages_Total") < 4 ||
		    read_key("/proc/meminfo", "Hugepagesize") != HPS / KB)
			self->why = "no pool of huge pages of 2 MB";
		else
			self->fd = memfd_create("mshare", MFD_CLOEXEC | MFD_HUGETLB);
		break;
	default:
		break;
	}
	if (self->why)
		return;
	if (self->fd >= 0)
		ASSERT_OK(ftruncate(self->fd, self->n * page()));
	else
		flags |= MAP_ANONYMOUS;
	if (variant->mem == MEM_ADOPTED) {
		ASSERT_EQ(self->p, mmap(self->p, self->n * page(), RW, flags,
					self->fd, 0));
		memset(self->p, 1, self->n * page());
	}
	ASSERT_OK(create(self->name, self->addr, self->len));
	ASSERT_OK(peer_attach(&self->a, self->name));
	ASSERT_OK(peer_attach(&self->b, self->name));
	if (variant->mem != MEM_ADOPTED)
		ASSERT_EQ(self->p, mmap(self->p, self->n * page(), RW, flags,
					self->fd, 0));
	ASSERT_EQ(0, peer_touch(&self->a, self->p, self->n, 1));
}

FIXTURE_TEARDOWN(proc)
{
	peer_stop(&self->a);
	peer_stop(&self->b);
	peer_stop(&self->c);
	munmap(self->addr, self->len);
	remove_names();
	if (self->fd >= 0)
		close(self->fd);
	setting_restore(&self->thp);
	setting_restore(&self->pool);
}

#define NEED_MEM() do {							\
	if (self->why)							\
		SKIP(return, "%s", self->why);				\
} while (0)

TEST_F_TIMEOUT(proc, smaps_has_the_pages, SHORT_TIMEOUT)
{
	long kb = self->n * page() / KB;
	pid_t pid = self->b.pid;
	long shared;

	NEED_MEM();
	EXPECT_EQ((long)(self->len / KB), smaps(pid, self->addr, "Size"));
	EXPECT_EQ(0, smaps(pid, self->addr, "Private_Clean"));
	EXPECT_EQ(0, smaps(pid, self->addr, "Private_Dirty"));
	EXPECT_EQ(0, smaps(pid, self->addr, "Private_Hugetlb"));
	EXPECT_EQ(0, smaps(pid, self->addr, "Swap"));
	if (variant->mem == MEM_HUGETLB) {
		EXPECT_EQ(kb, smaps(pid, self->addr, "Shared_Hugetlb"));
		EXPECT_EQ(0, smaps(pid, self->addr, "Rss"));
		return;
	}
	EXPECT_EQ(kb, smaps(pid, self->addr, "Rss"));
	shared = smaps(pid, self->addr, "Shared_Clean") +
		 smaps(pid, self->addr, "Shared_Dirty");
	EXPECT_EQ(kb, shared);
	EXPECT_EQ(kb, smaps(pid, self->addr, "Shared_Dirty"));
	EXPECT_EQ(kb / 3, smaps(pid, self->addr, "Pss"));
	EXPECT_EQ(kb / 3, smaps(pid, self->addr, "Pss_Dirty"));
	EXPECT_EQ(mem_anon(variant->mem) ? kb : 0,
		  smaps(pid, self->addr, "Anonymous"));
	EXPECT_EQ(variant->mem == MEM_THP ? kb : 0,
		  smaps(pid, self->addr, "AnonHugePages"));
	EXPECT_EQ(0, smaps(pid, self->addr, "Locked"));
}

TEST_F_TIMEOUT(proc, everyone_has_a_share_and_no_more, SHORT_TIMEOUT)
{
	long kb = self->n * page() / KB;
	struct peer child;

	NEED_MEM();
	if (variant->mem == MEM_HUGETLB)
		SKIP(return, "hugetlb has no Pss");
	ASSERT_EQ(0, peer_start(&child));	/* and has it attached */
	EXPECT_EQ(kb / 4, smaps(child.pid, self->addr, "Pss"));
	EXPECT_EQ(kb / 4, smaps(self->b.pid, self->addr, "Pss"));
	peer_stop(&child);
	EXPECT_EQ(kb / 3, smaps(self->b.pid, self->addr, "Pss"));
	ASSERT_OK(peer_munmap(&self->a, self->addr, self->len));
	EXPECT_EQ(kb / 2, smaps(self->b.pid, self->addr, "Pss"));
	EXPECT_EQ(-1, smaps(self->a.pid, self->addr, "Pss"));
	ASSERT_OK(munmap(self->addr, self->len));
	/* It is the region's and not the process's own, also if there is one. */
	EXPECT_EQ(kb, smaps(self->b.pid, self->addr, "Pss"));
	EXPECT_EQ(kb, smaps(self->b.pid, self->addr, "Shared_Dirty"));
	EXPECT_EQ(0, smaps(self->b.pid, self->addr, "Private_Dirty"));
}

TEST_F_TIMEOUT(proc, what_is_locked_is_locked_by_all, SHORT_TIMEOUT)
{
	long kb = self->n * page() / KB;

	NEED_MEM();
	if (variant->mem == MEM_HUGETLB)
		SKIP(return, "hugetlb is never locked");
	ASSERT_OK(mlock(self->p, self->n / 2 * page()));
	EXPECT_EQ(kb / 2 / 3, smaps(self->b.pid, self->addr, "Locked"));
	ASSERT_OK(munlock(self->p, self->n / 2 * page()));
	EXPECT_EQ(0, smaps(self->b.pid, self->addr, "Locked"));
}

TEST_F_TIMEOUT(proc, rollup_is_the_sum, SHORT_TIMEOUT)
{
	static const char * const keys[] = {
		"Rss", "Shared_Clean", "Shared_Dirty", "Private_Clean",
		"Private_Dirty", "Referenced", "Anonymous", "AnonHugePages",
		"ShmemPmdMapped", "Shared_Hugetlb", "Private_Hugetlb", "Swap",
	};
	size_t i;

	NEED_MEM();
	for (i = 0; i < ARRAY_SIZE(keys); i++) {
		EXPECT_EQ(smaps_sum(self->b.pid, keys[i]),
			  rollup(self->b.pid, keys[i])) {
			TH_LOG("%s", keys[i]);
		}
	}
	/* Each entry is rounded down. */
	EXPECT_LE(smaps_sum(self->b.pid, "Pss"), rollup(self->b.pid, "Pss"));
	EXPECT_GE(smaps_sum(self->b.pid, "Pss") + 64, rollup(self->b.pid, "Pss"));
	EXPECT_LE(smaps(self->b.pid, self->addr, "Rss"),
		  rollup(self->b.pid, "Rss"));
}

TEST_F_TIMEOUT(proc, status_does_not_have_the_pages, SHORT_TIMEOUT)
{
	static const char * const keys[] = { "VmRSS", "RssAnon", "RssFile",
					     "RssShmem", "VmPTE", "VmSwap",
					     "VmLck", "HugetlbPages" };
	char before[256], after[256];
	long old[8], i;

	NEED_MEM();
	EXPECT_LE(0, read_file(proc_path(self->b.pid, "statm"), before, 256));
	for (i = 0; i < 8; i++)
		old[i] = read_key(proc_path(self->b.pid, "status"), keys[i]);
	ASSERT_EQ(0, peer_touch(&self->b, self->p, self->n, 1));
	ASSERT_OK(map_anon(at(self->addr, GB), 16 * MB, MAP_PRIVATE));
	ASSERT_EQ(0, peer_touch(&self->b, at(self->addr, GB), 16 * MB / page(), 1));
	/* But for what a request takes in its stack and libraries. */
	for (i = 0; i < 8; i++) {
		long now = read_key(proc_path(self->b.pid, "status"), keys[i]);

		EXPECT_GE(old[i] + 256, now) {
			TH_LOG("%s", keys[i]);
		}
	}
	EXPECT_LE(0, read_file(proc_path(self->b.pid, "statm"), after, 256));
	EXPECT_GE(strtol(strchr(before, ' '), NULL, 10) + 64,
		  strtol(strchr(after, ' '), NULL, 10));
	EXPECT_LE((long)(16 * MB / KB), smaps(self->b.pid, self->addr, "Rss"));
}

TEST_F_TIMEOUT(proc, numa_maps_has_the_pages, SHORT_TIMEOUT)
{
	char line[4096];
	long sum = 0;
	int node;

	NEED_MEM();
	if (access(proc_path(self->b.pid, "numa_maps"), F_OK))
		SKIP(return, "no numa_maps");
	ASSERT_TRUE(numa_line(self->b.pid, self->addr, line, sizeof(line)));
	EXPECT_NE(NULL, strstr(line, path_of(self->name)));
	for (node = 0; node < 16; node++) {
		char key[8];
		long nr;

		snprintf(key, sizeof(key), "N%d", node);
		nr = numa_key(line, key);
		sum += nr < 0 ? 0 : nr;
	}
	EXPECT_EQ(self->n, sum) {
		TH_LOG("%s", line);
	}
	EXPECT_EQ(3, numa_key(line, "mapmax"));
	if (mem_anon(variant->mem)) {
		EXPECT_EQ(self->n, numa_key(line, "anon"));
	} else {
		EXPECT_EQ(-1, numa_key(line, "anon"));
	}
	EXPECT_EQ(4, numa_key(line, "kernelpagesize_kB"));
}

TEST_F_TIMEOUT(proc, pagemap_has_the_frames, SHORT_TIMEOUT)
{
	__u64 *mine = calloc(self->n + 16, 8), *theirs = calloc(self->n + 16, 8);
	char *own = MAP_FAILED;
	long i, bad[6] = { 0 };

	NEED_MEM();
	/* Eight pages of nothing before and behind. */
	ASSERT_EQ(self->n + 16, pagemap(getpid(), self->p - 8 * page(), mine,
					self->n + 16));
	ASSERT_EQ(self->n + 16, pagemap(self->b.pid, self->p - 8 * page(), theirs,
					self->n + 16));
	if (variant->mem == MEM_MEMFD || variant->mem == MEM_HUGETLB) {
		own = mmap(NULL, self->n * page(), PROT_READ, MAP_SHARED, self->fd, 0);
		ASSERT_NE(MAP_FAILED, own);
	}
	for (i = 0; i < 8; i++) {
		EXPECT_EQ(0ULL, mine[i]);
		EXPECT_EQ(0ULL, mine[self->n + 8 + i]);
	}
	for (i = 0; i < self->n; i++) {
		__u64 e = mine[i + 8];

		bad[0] += !(e & PM_PRESENT) || (e & PM_SWAP);
		bad[1] += !PM_FRAME(e);
		bad[2] += e != theirs[i + 8];
		bad[3] += !!(e & PM_EXCLUSIVE);
		bad[4] += !(e & PM_FILE) != mem_anon(variant->mem);
		/* The same as where the file is mapped outside. */
		if (own != MAP_FAILED) {
			try_read(own + i * page());
			bad[5] += PM_FRAME(e) !=
				  PM_FRAME(pagemap_one(getpid(), own + i * page()));
		}
	}
	for (i = 0; i < 6; i++) {
		EXPECT_EQ(0, bad[i]) {
			TH_LOG("check %ld", i);
		}
	}
	if (own != MAP_FAILED)
		munmap(own, self->n * page());
	free(mine);
	free(theirs);
}

static long do_pagemap_one(const struct request *rq)
{
	/* Its files are root's since it changed the user. */
	prctl(PR_SET_DUMPABLE, 1);
	return pagemap_one(getpid(), (void *)rq->a[0]);
}

TEST_F_TIMEOUT(proc, frames_are_not_for_everyone, SHORT_TIMEOUT)
{
	__u64 e;

	NEED_MEM();
	ASSERT_OK(chmod(path_of(self->name), 0666));
	ASSERT_OK(peer_become(&self->c, 65534, 65534));
	ASSERT_OK(peer_attach(&self->c, self->name));
	e = PEER(&self->c, do_pagemap_one, NULL, L(self->p));
	if (e == ~0ULL)
		SKIP(return, "cannot open its own pagemap");
	EXPECT_TRUE(!!(e & PM_PRESENT));
	EXPECT_EQ(0ULL, PM_FRAME(e));
}

/* Where nothing is mapped, where nothing was touched, and at the edges. */
TEST_F_TIMEOUT(proc, pagemap_has_holes, SHORT_TIMEOUT)
{
	size_t n = 4 * HPS / page(), i;
	__u64 *e = calloc(n, 8), before;
	long bad = 0;
	void *edge = self->addr;

	NEED_MEM();
	ASSERT_OK(map_anon(at(self->addr, GB), 16 * MB, MAP_PRIVATE));
	ASSERT_OK(map_anon(at(self->addr, -page()), page(), MAP_PRIVATE));
	ASSERT_EQ(0, try_write(at(self->addr, -page()), 1));
	ASSERT_EQ(0, try_write(at(self->addr, GB + 5 * page()), 1));

	/* Starts in the test's own memory. */
	before = pagemap_one(getpid(), at(edge, -page()));
	ASSERT_EQ((long)n, pagemap(getpid(), at(edge, -page()), e, n));
	EXPECT_EQ(before, e[0]);
	EXPECT_TRUE(!!(e[0] & PM_PRESENT));
	for (i = 1; i < n; i++)
		bad += !!e[i];
	EXPECT_EQ(0, bad);
	/* Never touched, but for one page. */
	ASSERT_EQ((long)n, pagemap(getpid(), at(self->addr, GB), e, n));
	for (i = 0, bad = 0; i < n; i++)
		bad += !!(e[i] & PM_PRESENT) != (variant->mem == MEM_THP ?
						 i < HPS / page() : i == 5);
	EXPECT_EQ(0, bad);
	/* The last pages of the region, and what is behind. */
	edge = at(self->addr, self->len);
	ASSERT_OK(map_anon(at(edge, -page()), page(), MAP_PRIVATE));
	ASSERT_OK(map_anon(edge, page(), MAP_PRIVATE));
	ASSERT_EQ(0, try_write(at(edge, -page()), 1));
	ASSERT_EQ(0, try_write(edge, 1));
	ASSERT_EQ(4, pagemap(getpid(), at(edge, -2 * page()), e, 4));
	EXPECT_EQ(0ULL, e[0]);
	EXPECT_EQ(PM_PRESENT, e[1] & (PM_PRESENT | PM_EXCLUSIVE));
	EXPECT_EQ(PM_PRESENT | PM_EXCLUSIVE, e[2] & (PM_PRESENT | PM_EXCLUSIVE));
	EXPECT_EQ(0ULL, e[3]);
	munmap(edge, page());
	munmap(at(self->addr, -page()), page());
	free(e);
}

TEST_F_TIMEOUT(proc, scan_finds_the_pages, SHORT_TIMEOUT)
{
	struct page_region vec[64];
	struct pm_scan_arg arg = {
		.category_mask = PAGE_IS_PRESENT,
		.return_mask = PAGE_IS_PRESENT | PAGE_IS_FILE | PAGE_IS_HUGE |
			       PAGE_IS_SWAPPED,
	};
	__u64 want = PAGE_IS_PRESENT;
	void *edge = self->addr, *pos;
	long found, i, r;

	NEED_MEM();
	if (!mem_anon(variant->mem))
		want |= PAGE_IS_FILE;
	if (variant->mem == MEM_THP || variant->mem == MEM_HUGETLB)
		want |= PAGE_IS_HUGE;

	/* All of the region, half a terabyte. */
	r = scan(self->b.pid, &arg, self->addr, at(self->addr, self->len), vec, 64);
	ASSERT_EQ(1, r);
	EXPECT_EQ(L(self->p), (long)vec[0].start);
	EXPECT_EQ(L(self->p + self->n * page()), (long)vec[0].end);
	EXPECT_EQ(want, vec[0].categories);
	EXPECT_EQ(L(self->addr) + self->len, arg.walk_end);

	/* With what is on both sides, one range at a time. */
	ASSERT_OK(map_anon(at(edge, -page()), page(), MAP_PRIVATE));
	ASSERT_OK(map_anon(at(edge, self->len), page(), MAP_PRIVATE));
	ASSERT_EQ(0, try_write(at(edge, -page()), 1));
	ASSERT_EQ(0, try_write(at(edge, self->len), 1));
	for (pos = at(edge, -page()), found = 0, i = 0;
	     i < 16 && pos < at(edge, self->len + page());
	     pos = (void *)(unsigned long)arg.walk_end, i++) {
		r = scan(getpid(), &arg, pos, at(edge, self->len + page()), vec, 1);
		ASSERT_LE(0, r);
		if (r) {
			switch (found++) {
			case 0:
				EXPECT_EQ(L(at(edge, -page())), (long)vec[0].start);
				EXPECT_EQ(L(edge), (long)vec[0].end);
				break;
			case 1:
				EXPECT_EQ(L(self->p), (long)vec[0].start);
				EXPECT_EQ(L(self->p + self->n * page()), (long)vec[0].end);
				break;
			case 2:
				EXPECT_EQ(L(at(edge, self->len)), (long)vec[0].start);
				break;
			}
		}
	}
	EXPECT_EQ(3, found);
	EXPECT_EQ(L(at(edge, self->len + page())), L(pos));
	/* At once, and with a limit. */
	r = scan(getpid(), &arg, at(edge, -page()), at(edge, self->len + page()), vec, 64);
	EXPECT_EQ(3, r);
	EXPECT_EQ(L(at(edge, self->len + page())), (long)arg.walk_end);
	arg.max_pages = 3;
	r = scan(getpid(), &arg, at(edge, -page()), at(edge, self->len + page()), vec, 64);
	EXPECT_EQ(2, r);
	EXPECT_EQ(L(self->p + 2 * page()), (long)vec[1].end);
	EXPECT_EQ(L(self->p + 2 * page()), (long)arg.walk_end);
	munmap(at(edge, -page()), page());
	munmap(at(edge, self->len), page());
}

/* A scan with many more ranges than a walk has room for. */
TEST_F_TIMEOUT(proc, scan_goes_on_where_it_stopped, SHORT_TIMEOUT)
{
	size_t n = 2048, i;
	long bad = 0;
	struct page_region *vec = calloc(n + 1, sizeof(*vec));
	struct pm_scan_arg arg = { .category_mask = PAGE_IS_PRESENT,
				   .return_mask = PAGE_IS_PRESENT };
	char *p = at(self->addr, 4 * GB);

	if (variant->mem != MEM_ANON)
		SKIP(return, "once is enough");
	ASSERT_OK(map_anon(p, 2 * n * page(), MAP_PRIVATE));
	ASSERT_EQ(0, peer_touch(&self->a, p, 2 * n, 2));
	ASSERT_EQ((int)n, scan(self->b.pid, &arg, p, at(self->addr, self->len), vec, n));
	for (i = 0; i < n; i++)
		bad += vec[i].start != (unsigned long)p + 2 * i * page() ||
		       vec[i].end != vec[i].start + page();
	EXPECT_EQ(0, bad);
	EXPECT_EQ(L(self->addr) + self->len, arg.walk_end);

	/* So it is outside. */
	p = mmap(NULL, (2 * n + 1) * page(), RW, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	ASSERT_NE(MAP_FAILED, p);
	for (i = 0; i < n; i++)
		p[2 * i * page()] = 1;
	EXPECT_EQ((int)n, scan(getpid(), &arg, p, p + (2 * n + 1) * page(), vec, n + 1));
	EXPECT_EQ(L(p + (2 * n + 1) * page()), (long)arg.walk_end);
	munmap(p, (2 * n + 1) * page());
	free(vec);
}

/* As with ordinary memory for which no userfaultfd asked for it. */
TEST_F_TIMEOUT(proc, scan_does_not_protect, SHORT_TIMEOUT)
{
	struct page_region vec[4];
	struct pm_scan_arg arg = {
		.flags = PM_SCAN_WP_MATCHING | PM_SCAN_CHECK_WPASYNC,
		.category_mask = PAGE_IS_WRITTEN,
		.return_mask = PAGE_IS_WRITTEN,
	};
	__u64 before = pagemap_one(getpid(), self->p);
	void *end = self->p + self->n * page();
	long faults;

	NEED_MEM();
	/* What this takes for the first time */
	EXPECT_EQ(0, try_write(self->p, 1));
	EXPECT_LT(0, minflt());
	EXPECT_ERR(EPERM, scan(getpid(), &arg, self->p, end, vec, 4));
	arg.flags = PM_SCAN_CHECK_WPASYNC;
	EXPECT_ERR(EPERM, scan(getpid(), &arg, self->p, end, vec, 4));
	arg.flags = PM_SCAN_WP_MATCHING;
	EXPECT_EQ(0, scan(getpid(), &arg, self->p, end, vec, 4));
	EXPECT_EQ(0, scan(getpid(), &arg, self->p, end, NULL, 0));
	EXPECT_EQ(before, pagemap_one(getpid(), self->p));
	faults = minflt();
	EXPECT_EQ(0, try_write(self->p, 1));
	EXPECT_EQ(faults, minflt());
}

TEST_F_TIMEOUT(proc, clear_refs_leaves_the_pages_alone, SHORT_TIMEOUT)
{
	long kb = self->n * page() / KB;
	__u64 before = pagemap_one(getpid(), self->p);
	char what[2] = "1";
	int i;

	NEED_MEM();
	for (i = 1; i <= 5; i++) {
		what[0] = '0' + i;
		ASSERT_OK(write_file(proc_path(self->b.pid, "clear_refs"), what));
		EXPECT_EQ(before, pagemap_one(getpid(), self->p));
		EXPECT_TRUE(!!(pagemap_one(self->b.pid, self->p) & PM_SOFT_DIRTY));
		if (variant->mem != MEM_HUGETLB) {
			EXPECT_EQ(kb, smaps(self->b.pid, self->addr, "Referenced"));
		}
	}
	/* Of the process's own memory they are cleared. */
	EXPECT_GT(rollup(self->b.pid, "Rss"), rollup(self->b.pid, "Referenced"));
	EXPECT_EQ(0, try_write(self->p, 3));
	EXPECT_EQ(3, peer_read(&self->b, self->p));
}

TEST_F_TIMEOUT(proc, st_blocks_has_the_pages, SHORT_TIMEOUT)
{
	struct stat st;

	NEED_MEM();
	ASSERT_OK(stat(path_of(self->name), &st));
	EXPECT_EQ(self->n * (long)page() / 512, (long)st.st_blocks);
}

/* What is on the other side of a mapping, and attached, but not by all. */
TEST_F_TIMEOUT(proc, a_part_shows_what_is_in_it, SHORT_TIMEOUT)
{
	void *addr = slot(4), *second = at(addr, granule());
	struct page_region vec[8];
	struct pm_scan_arg arg = { .category_mask = PAGE_IS_PRESENT,
				   .return_mask = PAGE_IS_PRESENT };
	struct procmap_query q = { .size = sizeof(q) };
	const char *name = new_name();
	int fd;

	if (variant->mem != MEM_ANON)
		SKIP(return, "once is enough");
	/* A mapping that reaches from the one half into the other. */
	ASSERT_OK(peer_create(&self->a, name, addr, 2 * granule()));
	ASSERT_NE(MAP_FAILED, peer_mmap(&self->a, at(second, -MB), 2 * MB, RW,
					MAP_FIXED | MAP_PRIVATE | MAP_ANONYMOUS, -1, 0));
	ASSERT_EQ(0, peer_touch(&self->a, at(second, -MB), 2 * MB / page(), 1));
	if (mshare(name, second, granule(), O_RDWR, 0)) {
		ASSERT_EQ(EOPNOTSUPP, errno);
		SKIP(return, "no parts of regions can be attached");
	}
	EXPECT_EQ((long)(2 * MB / KB), smaps(self->a.pid, addr, "Rss"));
	EXPECT_EQ((long)(MB / KB), smaps(getpid(), second, "Rss"));
	EXPECT_EQ(PM_PRESENT, pagemap_one(getpid(), second) & PM_PRESENT);
	EXPECT_EQ(0ULL, pagemap_one(getpid(), at(second, -page())));
	EXPECT_EQ(1, scan(getpid(), &arg, addr, at(second, granule()), vec, 8));
	EXPECT_EQ(L(second), (long)vec[0].start);
	fd = open(path_of(name), O_RDONLY);
	ASSERT_LE(0, fd);
	q.query_addr = L(second);
	ASSERT_OK(ioctl(fd, PROCMAP_QUERY, &q));
	EXPECT_EQ(L(second), (long)q.vma_start);
	EXPECT_EQ(L(second) + MB, q.vma_end);
	q.query_addr = L(second) - page();
	EXPECT_ERR(ENOENT, ioctl(fd, PROCMAP_QUERY, &q));
	q.query_flags = PROCMAP_QUERY_COVERING_OR_NEXT_VMA;
	ASSERT_OK(ioctl(fd, PROCMAP_QUERY, &q));
	EXPECT_EQ(L(second), (long)q.vma_start);
	/* The other half. */
	ASSERT_OK(munmap(second, granule()));
	ASSERT_OK(mshare(name, addr, granule(), O_RDWR, 0));
	q.query_flags = 0;
	q.query_addr = L(second) - page();
	ASSERT_OK(ioctl(fd, PROCMAP_QUERY, &q));
	EXPECT_EQ(L(second) - MB, q.vma_start);
	EXPECT_EQ(L(second), (long)q.vma_end);
	q.query_addr = L(second);
	q.query_flags = PROCMAP_QUERY_COVERING_OR_NEXT_VMA;
	EXPECT_ERR(ENOENT, ioctl(fd, PROCMAP_QUERY, &q));
	EXPECT_EQ(1, scan(getpid(), &arg, addr, at(second, granule()), vec, 8));
	EXPECT_EQ(L(second), (long)vec[0].end);
	EXPECT_EQ(L(at(second, granule())), (long)arg.walk_end);
	close(fd);
	ASSERT_OK(munmap(addr, granule()));
}

/* Who splits by address has no business in a region. */
TEST_F_TIMEOUT(proc, huge_pages_are_not_split_by_address, SHORT_TIMEOUT)
{
	const char *file = "/sys/kernel/debug/split_huge_pages";
	char text[128];
	long huge;

	if (variant->mem != MEM_THP)
		SKIP(return, "no huge pages");
	NEED_MEM();
	if (access(file, W_OK))
		SKIP(return, "no %s", file);
	huge = smaps(getpid(), self->addr, "AnonHugePages");
	ASSERT_LT(0, huge);
	snprintf(text, sizeof(text), "%d,0x%lx,0x%lx", self->a.pid, L(self->p),
		 L(self->p + self->n * page()));
	write_file(file, text);
	EXPECT_EQ(huge, smaps(getpid(), self->addr, "AnonHugePages"));
}

TEST_F_TIMEOUT(proc, elsewhere_the_addresses_are_the_callers, SHORT_TIMEOUT)
{
	char *there = slot(8), *q_there = there + OFF;
	struct page_region vec[8];
	struct pm_scan_arg arg = { .category_mask = PAGE_IS_PRESENT,
				   .return_mask = PAGE_IS_PRESENT };
	struct procmap_query q = { .size = sizeof(q) };
	char line[4096];
	int fd;

	NEED_MEM();
	ASSERT_OK(munmap(self->addr, self->len));
	if (mshare(self->name, there, self->len, O_RDWR, 0)) {
		ASSERT_EQ(EOPNOTSUPP, errno);
		SKIP(return, "no region can be attached elsewhere");
	}
	EXPECT_EQ(pagemap_one(self->b.pid, self->p), pagemap_one(getpid(), q_there));
	EXPECT_EQ(0ULL, pagemap_one(getpid(), self->p));
	EXPECT_EQ(smaps(self->b.pid, self->addr, "Rss"), smaps(getpid(), there, "Rss"));
	EXPECT_EQ(smaps(self->b.pid, self->addr, "Shared_Hugetlb"),
		  smaps(getpid(), there, "Shared_Hugetlb"));
	ASSERT_TRUE(numa_line(getpid(), there, line, sizeof(line)));
	EXPECT_EQ(3, numa_key(line, "mapmax"));
	EXPECT_EQ(1, scan(getpid(), &arg, there, at(there, self->len), vec, 8));
	EXPECT_EQ(L(q_there), (long)vec[0].start);
	EXPECT_EQ(L(q_there + self->n * page()), (long)vec[0].end);
	EXPECT_EQ(L(there) + self->len, arg.walk_end);
	fd = open(path_of(self->name), O_RDONLY);
	ASSERT_LE(0, fd);
	q.query_addr = L(q_there);
	ASSERT_OK(ioctl(fd, PROCMAP_QUERY, &q));
	EXPECT_EQ(L(q_there), (long)q.vma_start);
	EXPECT_EQ(L(q_there + self->n * page()), (long)q.vma_end);
	close(fd);
	ASSERT_OK(munmap(there, self->len));
}

/* A mapping as large as the region: what is not there costs nothing. */
TEST_F_TIMEOUT(proc, nothing_costs_nothing, SHORT_TIMEOUT)
{
	struct page_region vec[4];
	struct pm_scan_arg arg = { .category_mask = PAGE_IS_PRESENT,
				   .return_mask = PAGE_IS_PRESENT };
	char *first = at(self->addr, 2 * MB), *last = at(self->addr, self->len - page());
	int flags = MAP_FIXED | MAP_ANONYMOUS | MAP_NORESERVE |
		    (variant->mem == MEM_ANON ? MAP_PRIVATE : MAP_SHARED);
	char line[4096];

	if (variant->mem != MEM_ANON && variant->mem != MEM_ANON_SHARED)
		SKIP(return, "once is enough");
	/* Not at once: that would be in the place of the region. */
	ASSERT_NE(MAP_FAILED, mmap(self->addr, self->len - HPS, RW, flags, -1, 0));
	ASSERT_NE(MAP_FAILED, mmap(at(self->addr, self->len - HPS), HPS, RW, flags,
				   -1, 0));
	*first = *last = 1;
	EXPECT_EQ(8, smaps(self->b.pid, self->addr, "Rss"));
	EXPECT_LE(8, rollup(self->b.pid, "Rss"));
	ASSERT_TRUE(numa_line(self->b.pid, self->addr, line, sizeof(line)));
	EXPECT_EQ(3, numa_key(line, "mapmax"));
	EXPECT_EQ(2, scan(self->b.pid, &arg, self->addr,
			  at(self->addr, self->len), vec, 4));
	EXPECT_EQ(L(first), (long)vec[0].start);
	EXPECT_EQ(L(last), (long)vec[1].start);
}

/*
 * The ioctl of the region's file.
 */

static int query(int fd, struct procmap_query *q, void *addr, __u64 flags)
{
	memset(q, 0, sizeof(*q));
	q->size = sizeof(*q);
	q->query_addr = (unsigned long)addr;
	q->query_flags = flags;
	return ioctl(fd, PROCMAP_QUERY, q);
}

#define NEXT	PROCMAP_QUERY_COVERING_OR_NEXT_VMA

TEST_F_TIMEOUT(proc, query_of_the_region, SHORT_TIMEOUT)
{
	struct procmap_query q;
	void *gap = at(self->p, self->n * page());
	struct stat st;
	int fd;

	NEED_MEM();
	fd = open(path_of(self->name), O_RDONLY | O_CLOEXEC);
	ASSERT_LE(0, fd);
	ASSERT_OK(query(fd, &q, self->p + page(), 0));
	EXPECT_EQ(L(self->p), (long)q.vma_start);
	EXPECT_EQ(L(gap), (long)q.vma_end);
	EXPECT_EQ(PROCMAP_QUERY_VMA_READABLE | PROCMAP_QUERY_VMA_WRITABLE |
		  (variant->mem == MEM_ANON_SHARED || variant->mem == MEM_MEMFD ||
		   variant->mem == MEM_HUGETLB ? PROCMAP_QUERY_VMA_SHARED : 0),
		  L(q.vma_flags));
	EXPECT_EQ(variant->mem == MEM_HUGETLB ? HPS : page(), q.vma_page_size);
	EXPECT_EQ(0, L(q.vma_offset));
	if (self->fd >= 0) {
		ASSERT_OK(fstat(self->fd, &st));
		EXPECT_EQ(st.st_ino, q.inode);
		EXPECT_EQ(major(st.st_dev), q.dev_major);
		EXPECT_EQ(minor(st.st_dev), q.dev_minor);
	} else if (variant->mem != MEM_ANON_SHARED) {
		EXPECT_EQ(0, L(q.inode));
	}
	/* Nothing there, nothing further on, nothing outside. */
	EXPECT_ERR(ENOENT, query(fd, &q, gap, 0));
	EXPECT_ERR(ENOENT, query(fd, &q, gap, NEXT));
	EXPECT_ERR(ENOENT, query(fd, &q, at(self->addr, -page()), 0));
	EXPECT_ERR(ENOENT, query(fd, &q, at(self->addr, self->len), NEXT));
	EXPECT_ERR(ENOENT, query(fd, &q, at(self->addr, self->len), 0));
	EXPECT_OK(query(fd, &q, self->addr, NEXT));
	EXPECT_EQ(L(self->p), (long)q.vma_start);
	EXPECT_OK(query(fd, &q, NULL, NEXT));
	EXPECT_EQ(L(self->p), (long)q.vma_start);
	/* Another one, with other rights. */
	ASSERT_OK(mmap(at(gap, HPS), page(), PROT_READ | PROT_EXEC, MAP_FIXED |
		       MAP_PRIVATE | MAP_ANONYMOUS, -1, 0));
	EXPECT_OK(query(fd, &q, self->addr, NEXT | PROCMAP_QUERY_VMA_EXECUTABLE));
	EXPECT_EQ(L(at(gap, HPS)), (long)q.vma_start);
	EXPECT_EQ(PROCMAP_QUERY_VMA_READABLE | PROCMAP_QUERY_VMA_EXECUTABLE,
		  L(q.vma_flags));
	EXPECT_OK(query(fd, &q, gap, NEXT));
	EXPECT_EQ(L(at(gap, HPS)), (long)q.vma_start);
	EXPECT_ERR(ENOENT, query(fd, &q, gap, NEXT | PROCMAP_QUERY_VMA_SHARED));
	EXPECT_ERR(ENOENT, query(fd, &q, gap, NEXT | PROCMAP_QUERY_FILE_BACKED_VMA));
	if (self->fd >= 0) {
		EXPECT_OK(query(fd, &q, self->addr, NEXT | PROCMAP_QUERY_FILE_BACKED_VMA));
		EXPECT_EQ(L(self->p), (long)q.vma_start);
	}
	close(fd);
}

TEST_F_TIMEOUT(proc, query_gives_names, SHORT_TIMEOUT)
{
	struct procmap_query q;
	char name[128] = "";
	int fd;

	NEED_MEM();
	fd = open(path_of(self->name), O_RDONLY | O_CLOEXEC);
	ASSERT_LE(0, fd);
	if (self->fd < 0 && variant->mem != MEM_ANON_SHARED)
		prctl(PR_SET_VMA, PR_SET_VMA_ANON_NAME, self->p, self->n * page(),
		      "cache");
	memset(&q, 0, sizeof(q));
	q.size = sizeof(q);
	q.query_addr = L(self->p);
	q.vma_name_addr = L(name);
	q.vma_name_size = sizeof(name);
	ASSERT_OK(ioctl(fd, PROCMAP_QUERY, &q));
	EXPECT_EQ(strlen(name) + 1, q.vma_name_size);
	EXPECT_NE(NULL, strstr(name, self->fd >= 0 ? "memfd:mshare" :
			       variant->mem == MEM_ANON_SHARED ? "/dev/zero" :
			       "[anon:cache]")) {
		TH_LOG("%s", name);
	}
	/* Too small for it */
	q.vma_name_size = 3;
	EXPECT_ERR(ENAMETOOLONG, ioctl(fd, PROCMAP_QUERY, &q));
	close(fd);
}

struct long_query {
	struct procmap_query q;
	__u64 more;
};

static long do_query(const struct request *rq)
{
	struct procmap_query q;
	long ret;
	int fd;

	fd = open(path_of(rq->s), O_RDONLY | O_CLOEXEC);
	if (fd < 0)
		return -1;
	ret = query(fd, &q, (void *)rq->a[0], rq->a[1]);
	close(fd);
	return ret ? ret : (long)q.vma_flags;
}

TEST_F_TIMEOUT(proc, query_is_for_who_is_attached, SHORT_TIMEOUT)
{
	int fd;

	NEED_MEM();
	EXPECT_LE(0, PEER(&self->b, do_query, self->name, L(self->p), 0));
	EXPECT_ERR(EPERM, PEER(&self->c, do_query, self->name, L(self->p), 0));
	ASSERT_OK(PEER(&self->c, do_mshare, self->name, 0, 0, O_RDONLY, 0));
	EXPECT_EQ(PROCMAP_QUERY_VMA_READABLE, PROCMAP_QUERY_VMA_READABLE &
		  PEER(&self->c, do_query, self->name, L(self->p), 0));
	EXPECT_EQ(0, PROCMAP_QUERY_VMA_WRITABLE &
		  PEER(&self->c, do_query, self->name, L(self->p), 0));
	EXPECT_ERR(ENOENT, PEER(&self->c, do_query, self->name, L(self->p),
				PROCMAP_QUERY_VMA_WRITABLE));
	ASSERT_OK(peer_munmap(&self->c, self->addr, self->len));
	EXPECT_ERR(EPERM, PEER(&self->c, do_query, self->name, L(self->p), 0));
	/* The other file of an msharefs has no such call. */
	fd = open(MSHAREFS "/mshare_info", O_RDONLY);
	EXPECT_ERR(ENOTTY, ioctl(fd, PROCMAP_QUERY, NULL));
	close(fd);
}

TEST_F_TIMEOUT(proc, query_can_grow, SHORT_TIMEOUT)
{
	struct long_query lq = { .q = { .size = sizeof(lq) } };
	struct procmap_query q;
	int fd;

	if (variant->mem != MEM_ANON)
		SKIP(return, "once is enough");
	fd = open(path_of(self->name), O_RDONLY | O_CLOEXEC);
	ASSERT_LE(0, fd);
	lq.q.query_addr = L(self->p);
	EXPECT_OK(ioctl(fd, PROCMAP_QUERY, &lq));
	lq.more = 1;
	EXPECT_ERR(E2BIG, ioctl(fd, PROCMAP_QUERY, &lq));
	memset(&q, 0x55, sizeof(q));
	q.size = offsetof(struct procmap_query, vma_flags);
	q.query_flags = 0;
	q.query_addr = L(self->p);
	EXPECT_OK(ioctl(fd, PROCMAP_QUERY, &q));
	EXPECT_EQ(L(self->p), (long)q.vma_start);
	EXPECT_EQ(0x5555555555555555ULL, q.vma_flags);
	q.size = 8;
	EXPECT_ERR(EINVAL, ioctl(fd, PROCMAP_QUERY, &q));
	q.size = 100000;
	EXPECT_ERR(E2BIG, ioctl(fd, PROCMAP_QUERY, &q));
	EXPECT_ERR(EINVAL, query(fd, &q, self->p, 0x8000));
	EXPECT_ERR(EFAULT, ioctl(fd, PROCMAP_QUERY, (void *)8));
	EXPECT_ERR(ENOTTY, ioctl(fd, PAGEMAP_SCAN, &q));
	close(fd);
}

/* In /proc/PID the attachment is one file mapping like others. */
TEST_F_TIMEOUT(proc, query_of_the_process, SHORT_TIMEOUT)
{
	struct procmap_query q;
	char name[128] = "", id[64], link[256];
	struct stat st;
	ssize_t n;
	int fd;

	NEED_MEM();
	fd = open(proc_path(self->b.pid, "maps"), O_RDONLY | O_CLOEXEC);
	ASSERT_LE(0, fd);
	memset(&q, 0, sizeof(q));
	q.size = sizeof(q);
	q.query_addr = L(self->p);
	q.vma_name_addr = L(name);
	q.vma_name_size = sizeof(name);
	q.build_id_addr = L(id);
	q.build_id_size = sizeof(id);
	ASSERT_OK(ioctl(fd, PROCMAP_QUERY, &q));
	EXPECT_EQ(L(self->addr), (long)q.vma_start);
	EXPECT_EQ(L(at(self->addr, self->len)), (long)q.vma_end);
	EXPECT_STREQ(path_of(self->name), name);
	EXPECT_EQ(0, L(q.build_id_size));
	ASSERT_OK(stat(path_of(self->name), &st));
	EXPECT_EQ(st.st_ino, q.inode);
	close(fd);

	snprintf(name, sizeof(name), "/proc/%d/map_files/%lx-%lx", self->b.pid,
		 L(self->addr), L(self->addr) + self->len);
	n = readlink(name, link, sizeof(link) - 1);
	ASSERT_LT(0, n);
	link[n] = 0;
	EXPECT_STREQ(path_of(self->name), link);
}

/*
 * Processes that come and go, and what is mapped, while others look.
 */

static long read_all(pid_t pid, const char *file)
{
	static char buf[64 * KB];
	long total = 0, n;
	int fd = open(proc_path(pid, file), O_RDONLY | O_CLOEXEC);

	if (fd < 0)
		return -1;
	while ((n = read(fd, buf, sizeof(buf))) > 0)
		total += n;
	close(fd);
	return total;
}

TEST_F_TIMEOUT(proc, a_zombie_has_nothing, SHORT_TIMEOUT)
{
	static const char * const files[] = {
		"maps", "smaps", "smaps_rollup", "numa_maps", "pagemap", "status",
	};
	struct page_region vec[2];
	struct pm_scan_arg arg = { .category_mask = PAGE_IS_PRESENT,
				   .return_mask = PAGE_IS_PRESENT };
	char buf[4096];
	int maps, pm;
	siginfo_t si;
	pid_t child;
	size_t i;
	__u64 e;

	NEED_MEM();
	child = fork_bound();
	if (!child)
		for (;;)
			pause();
	EXPECT_LT(-1, smaps(child, self->addr, "Rss"));
	maps = open(proc_path(child, "smaps"), O_RDONLY | O_CLOEXEC);
	pm = open(proc_path(child, "pagemap"), O_RDONLY | O_CLOEXEC);
	ASSERT_LE(0, maps);
	ASSERT_LE(0, pm);
	kill(child, SIGKILL);
	ASSERT_EQ(0, waitid(P_PID, child, &si, WEXITED | WNOWAIT));
	for (i = 0; i < ARRAY_SIZE(files); i++)
		read_all(child, files[i]);
	EXPECT_EQ(-1, smaps(child, self->addr, "Rss"));
	/* Opened while it lived */
	EXPECT_GE(0, read(maps, buf, sizeof(buf)));
	EXPECT_GE(0, pread(pm, &e, 8, L(self->p) / page() * 8));
	arg.size = sizeof(arg);
	arg.start = L(self->p);
	arg.end = arg.start + page();
	arg.vec = L(vec);
	arg.vec_len = 2;
	EXPECT_ERR(ESRCH, ioctl(pm, PAGEMAP_SCAN, &arg));
	waitpid(child, NULL, 0);
	close(maps);
	close(pm);
}

/* Attaches and detaches. */
static long do_come_and_go(const struct request *rq)
{
	struct churn *c = (void *)rq->a[0];
	void *addr = (void *)rq->a[1];
	size_t len = rq->a[2];

	while (!atomic_load(&c->stop)) {
		if (mshare(rq->s, NULL, 0, O_RDWR, 0))
			return -1;
		try_read(at(addr, OFF));
		if (munmap(addr, len))
			return -1;
		atomic_fetch_add(&c->done[0], 1);
	}
	return 0;
}

/* Maps, touches and unmaps, at random and in the middle of others. */
static long do_map_and_unmap(const struct request *rq)
{
	struct churn *c = (void *)rq->a[0];
	char *p = at((void *)rq->a[1], GB);
	unsigned int seed = test_seed();
	int i;

	while (!atomic_load(&c->stop)) {
		for (i = 0; i < 8; i++) {
			char *q = p + (rand_r(&seed) % 64) * 16 * page();
			int shared = rand_r(&seed) & 1;

			if (map_anon(q, 32 * page(), shared ? MAP_SHARED :
				     MAP_PRIVATE) == MAP_FAILED)
				return -1;
			for (; q < p + 1024 * page() && rand_r(&seed) % 40; q += page())
				try_write(q, 1);
		}
		if (munmap(p, 512 * page()))
			return -1;
		atomic_fetch_add(&c->done[1], 1);
	}
	return 0;
}

TEST_F_TIMEOUT(proc, looks_race_with_changes, LONG_TIMEOUT)
{
	struct churn *c = self->churn;
	struct pm_scan_arg arg = { .category_mask = PAGE_IS_PRESENT,
				   .return_mask = PAGE_IS_PRESENT };
	struct page_region vec[8];
	struct procmap_query q;
	__u64 e[128];
	long rounds = scaled(24), i;
	pid_t pids[3];
	int fd, k;

	NEED_MEM();
	pids[0] = getpid();
	pids[1] = self->b.pid;
	pids[2] = self->c.pid;
	fd = open(path_of(self->name), O_RDONLY | O_CLOEXEC);
	ASSERT_LE(0, fd);
	PEER_SEND(&self->c, do_come_and_go, self->name, L(c), L(self->addr), self->len);
	PEER_SEND(&self->a, do_map_and_unmap, self->name, L(c), L(self->addr));
	for (i = 0; i < rounds; i++) {
		for (k = 0; k < 3; k++) {
			EXPECT_LT(0, read_all(pids[k], "maps"));
			EXPECT_LT(0, read_all(pids[k], "smaps"));
			EXPECT_LT(0, read_all(pids[k], "smaps_rollup"));
			read_all(pids[k], "numa_maps");
			EXPECT_EQ(128, pagemap(pids[k], at(self->addr, GB), e, 128));
			EXPECT_LE(0, scan(pids[k], &arg, at(self->addr, -page()),
					  at(self->addr, self->len + page()), vec, 8));
			if (!k)
				continue;
			EXPECT_OK(write_file(proc_path(pids[k], "clear_refs"), "1"));
			EXPECT_OK(write_file(proc_path(pids[k], "clear_refs"), "4"));
		}
		/* What never changes is always seen. */
		EXPECT_TRUE(!!(pagemap_one(getpid(), self->p) & PM_PRESENT));
		EXPECT_OK(query(fd, &q, self->p, 0));
		query(fd, &q, at(self->addr, GB), NEXT);
	}
	/* And both have got somewhere meanwhile. */
	EXPECT_TRUE(WAIT_FOR(atomic_load(&c->done[0]) > 2 &&
			     atomic_load(&c->done[1]) > 2, 60));
	atomic_store(&c->stop, 1);
	EXPECT_EQ(0, peer_wait(&self->c));
	EXPECT_EQ(0, peer_wait(&self->a));
	close(fd);
}

/*
 * What is in swap.
 */

#define SWAP_SIZE	(8 * MB)
#define THP_SHMEM_64K	"/sys/kernel/mm/transparent_hugepage/hugepages-64kB/shmem_enabled"

FIXTURE(swapped)
{
	const char *name, *why;
	void *addr;
	char *p;
	size_t len, n;
	char cg[64];
	struct peer a, b;
	struct zram zram;
	struct setting thp, shmem;
	int fd;
};

FIXTURE_VARIANT(swapped)
{
	enum mem mem;
};

FIXTURE_VARIANT_ADD(swapped, anon) { .mem = MEM_ANON };
FIXTURE_VARIANT_ADD(swapped, anon_shared) { .mem = MEM_ANON_SHARED };
FIXTURE_VARIANT_ADD(swapped, memfd) { .mem = MEM_MEMFD };

static const char *swapped_start(const char *cg, struct zram *zram,
				 struct setting *thp)
{
	const char *why;

	zram->id = -1;
	if (!cg_memory())
		return "no cgroup v2 memory controller";
	why = zram_swapon(zram, 256 * MB);
	if (why)
		return why;
	setting_set(thp, THP_ENABLED, "never");
	return cg_make(cg) ? "cannot make a control group" : NULL;
}

FIXTURE_SETUP(swapped)
{
	NOT_ON_DEBUG(variant->mem == MEM_ANON_SHARED);
	self->name = new_name();
	self->addr = slot(0);
	self->p = at(self->addr, OFF);
	self->len = granule();
	self->n = SWAP_SIZE / page();
	self->fd = -1;
	snprintf(self->cg, sizeof(self->cg), "mshare-%d", getpid());
	self->why = swapped_start(self->cg, &self->zram, &self->thp);
	if (self->why)
		return;
	ASSERT_EQ(0, peer_start(&self->a));
	ASSERT_EQ(0, peer_start(&self->b));
	ASSERT_OK(PEER(&self->a, do_cg_enter, self->cg, 0));
	ASSERT_OK(peer_create(&self->a, self->name, self->addr, self->len));
	ASSERT_OK(attach(self->name));
	ASSERT_OK(peer_attach(&self->b, self->name));
	if (variant->mem == MEM_MEMFD) {
		self->fd = memfd_create("mshare", MFD_CLOEXEC);
		ASSERT_LE(0, self->fd);
		/* From the middle of the file, to tell indices from addresses. */
		ASSERT_OK(ftruncate(self->fd, SWAP_SIZE + 3 * page()));
		ASSERT_EQ(self->p, mmap(self->p, SWAP_SIZE, RW, MAP_FIXED |
					MAP_SHARED, self->fd, 3 * page()));
	} else {
		ASSERT_EQ(self->p, map_anon(self->p, SWAP_SIZE,
					    variant->mem == MEM_ANON ?
					    MAP_PRIVATE : MAP_SHARED));
	}
}

FIXTURE_TEARDOWN(swapped)
{
	peer_stop(&self->a);
	peer_stop(&self->b);
	munmap(self->addr, self->len);
	remove_names();
	if (self->fd >= 0)
		close(self->fd);
	setting_restore(&self->thp);
	setting_restore(&self->shmem);
	if (self->cg[0]) {
		cg_enter(".");
		cg_remove(self->cg);
	}
	zram_end(&self->zram);
}

static void swap_out(const char *cg)
{
	int i;

	for (i = 0; i < 6; i++)
		cg_write(cg, "memory.reclaim", "8M");
}

/* All pages but every eighth, which is not touched. */
static bool touched(size_t i)
{
	return i % 8;
}

TEST_F_TIMEOUT(swapped, pagemap_has_the_slots, SHORT_TIMEOUT)
{
	size_t i, swapped = 0, present = 0, slots = 256 * MB / page();
	__u64 *e = calloc(self->n, 8), *theirs = calloc(self->n, 8);
	char *seen = calloc(slots, 1);
	long bad[6] = { 0 };

	NEED_MEM();
	for (i = 0; i < self->n; i++)
		if (touched(i))
			self->p[i * page()] = i + 1;
	swap_out(self->cg);
	ASSERT_EQ((long)self->n, pagemap(getpid(), self->p, e, self->n));
	ASSERT_EQ((long)self->n, pagemap(self->b.pid, self->p, theirs, self->n));
	for (i = 0; i < self->n; i++) {
		bad[0] += e[i] != theirs[i];
		if (!touched(i)) {
			bad[1] += !!(e[i] & (PM_PRESENT | PM_SWAP)) || PM_FRAME(e[i]);
			continue;
		}
		present += !!(e[i] & PM_PRESENT);
		if (!(e[i] & PM_SWAP))
			continue;
		swapped++;
		bad[2] += PM_TYPE(e[i]) >= 24;
		if (PM_OFFSET(e[i]) >= slots || !PM_OFFSET(e[i]))
			bad[3]++;
		else	/* each has its own */
			bad[4] += seen[PM_OFFSET(e[i])]++;
		bad[5] += !(e[i] & PM_FILE) != (variant->mem == MEM_ANON);
	}
	for (i = 0; i < 6; i++) {
		EXPECT_EQ(0, bad[i]) {
			TH_LOG("check %zu", i);
		}
	}
	EXPECT_LT(self->n / 2, swapped) {
		TH_LOG("%zu of %zu in swap, %zu resident", swapped, self->n, present);
	}
	EXPECT_LE(swapped + present, self->n / 8 * 7);
	EXPECT_EQ((long)(swapped * page() / KB), smaps(getpid(), self->addr, "Swap"));
	EXPECT_EQ((long)(present * page() / KB), smaps(getpid(), self->addr, "Rss"));
	if (variant->mem == MEM_ANON) {
		EXPECT_EQ((long)(swapped * page() / KB / 3),
			  smaps(getpid(), self->addr, "SwapPss"));
	}
	/* The group has no more than a little of its own there. */
	EXPECT_LE((long)(swapped * page()), cg_long(self->cg, "memory.swap.current"));
	/* And back. */
	for (i = 0; i < self->n; i++)
		if (touched(i))
			bad[0] += self->p[i * page()] != (char)(i + 1);
	EXPECT_EQ(0, bad[0]);
	for (i = 0; i < self->n; i++)
		if (touched(i))
			bad[0] += !(pagemap_one(getpid(), self->p + i * page()) & PM_PRESENT);
	EXPECT_EQ(0, bad[0]);
	EXPECT_EQ(0, smaps(getpid(), self->addr, "Swap"));
	free(seen);
	free(theirs);
	free(e);
}

/*
 * Where many pages are one entry of the file, each counts once, and also in a
 * mapping that begins and ends in the middle of one.
 */
TEST_F_TIMEOUT(swapped, large_entries_of_files, SHORT_TIMEOUT)
{
	const size_t skip = 5, n = self->n - 16;
	__u64 *whole = calloc(self->n, 8), *part = calloc(n, 8);
	size_t i, swapped = 0;
	long bad = 0;
	char *own;

	NEED_MEM();
	if (variant->mem == MEM_ANON)
		SKIP(return, "not of a file");
	if (setting_set(&self->shmem, THP_SHMEM_64K, "always"))
		SKIP(return, "no large folios of shmem");
	if (variant->mem == MEM_MEMFD) {
		/* From the start of the file, as large folios want it. */
		own = mmap(slot(20), SWAP_SIZE, RW, MAP_SHARED | MAP_FIXED,
			   self->fd, 0);
		ASSERT_NE(MAP_FAILED, own);
		ASSERT_OK(cg_enter(self->cg));
		memset(own, 1, SWAP_SIZE);
		ASSERT_OK(cg_enter("."));
		munmap(own, SWAP_SIZE);
		ASSERT_EQ(self->p, mmap(self->p, SWAP_SIZE, RW, MAP_SHARED |
					MAP_FIXED, self->fd, 0));
	} else {
		memset(self->p, 1, SWAP_SIZE);
	}
	setting_restore(&self->shmem);
	swap_out(self->cg);
	ASSERT_EQ((long)self->n, pagemap(getpid(), self->p, whole, self->n));
	for (i = 0; i < self->n; i++)
		swapped += !!(whole[i] & PM_SWAP);
	EXPECT_LT(self->n / 2, swapped);
	EXPECT_EQ((long)(swapped * page() / KB), smaps(getpid(), self->addr, "Swap"));
	if (variant->mem != MEM_MEMFD)
		goto out;
	/* And without page tables */
	ASSERT_OK(munmap(self->p, SWAP_SIZE));
	ASSERT_EQ(self->p, mmap(self->p, n * page(), RW, MAP_SHARED | MAP_FIXED,
				self->fd, skip * page()));
	ASSERT_EQ((long)n, pagemap(getpid(), self->p, part, n));
	for (i = swapped = 0; i < n; i++) {
		bad += (part[i] ^ whole[i + skip]) & (PM_SWAP | PM_PRESENT) &&
		       !(whole[i + skip] & PM_PRESENT);
		bad += (part[i] & PM_SWAP) &&
		       PM_OFFSET(part[i]) != PM_OFFSET(whole[i + skip]);
		swapped += !!(part[i] & PM_SWAP);
	}
	EXPECT_EQ(0, bad);
	EXPECT_EQ((long)(swapped * page() / KB), smaps(getpid(), self->addr, "Swap"));
out:
	free(part);
	free(whole);
}

TEST_F_TIMEOUT(swapped, slots_are_not_for_everyone, SHORT_TIMEOUT)
{
	size_t i;
	__u64 e;

	NEED_MEM();
	for (i = 0; i < self->n; i++)
		self->p[i * page()] = 1;
	swap_out(self->cg);
	for (i = 0; i < self->n; i++)
		if (pagemap_one(getpid(), self->p + i * page()) & PM_SWAP)
			break;
	ASSERT_GT(self->n, i);
	ASSERT_OK(peer_become(&self->b, 65534, 65534));
	e = PEER(&self->b, do_pagemap_one, NULL, L(self->p + i * page()));
	if (e == ~0ULL)
		SKIP(return, "cannot open its own pagemap");
	EXPECT_TRUE(!!(e & PM_SWAP));
	EXPECT_EQ(0ULL, PM_FRAME(e));
}

/* The scan says the same as pagemap. */
TEST_F_TIMEOUT(swapped, scan_finds_what_is_swapped, SHORT_TIMEOUT)
{
	struct page_region *vec = calloc(self->n, sizeof(*vec));
	struct pm_scan_arg arg = { .category_mask = PAGE_IS_SWAPPED,
				   .return_mask = PAGE_IS_SWAPPED | PAGE_IS_FILE |
						  PAGE_IS_PRESENT };
	__u64 *e = calloc(self->n, 8), want = PAGE_IS_SWAPPED;
	long bad = 0;
	size_t i;
	int r, k;

	NEED_MEM();
	if (variant->mem != MEM_ANON)
		want |= PAGE_IS_FILE;
	for (i = 0; i < self->n; i++)
		if (touched(i))
			self->p[i * page()] = i + 1;
	swap_out(self->cg);
	ASSERT_EQ((long)self->n, pagemap(getpid(), self->p, e, self->n));
	r = scan(self->b.pid, &arg, self->addr, at(self->addr, self->len), vec, self->n);
	ASSERT_LT(0, r);
	for (k = 0; k < r; k++) {
		char *q = (char *)(unsigned long)vec[k].start;

		bad += vec[k].categories != want;
		for (; q < (char *)(unsigned long)vec[k].end; q += page()) {
			i = (q - self->p) / page();
			if (i >= self->n || !(e[i] & PM_SWAP)) {
				bad++;
				break;
			}
			e[i] &= ~PM_SWAP;
		}
	}
	for (i = 0; i < self->n; i++)
		bad += !!(e[i] & PM_SWAP);
	EXPECT_EQ(0, bad);
	free(vec);
	free(e);
}

/* Nobody in the region has touched it: all that there is to see is the file. */
TEST_F_TIMEOUT(swapped, without_page_tables, SHORT_TIMEOUT)
{
	struct page_region *vec = calloc(self->n, sizeof(*vec));
	struct pm_scan_arg arg = { .category_mask = PAGE_IS_SWAPPED,
				   .return_mask = PAGE_IS_SWAPPED };
	__u64 *e = calloc(self->n, 8);
	size_t i, swapped = 0, found = 0;
	int r, k;

	NEED_MEM();
	if (variant->mem != MEM_MEMFD)
		SKIP(return, "needs a file");
	for (i = 0; i < self->n; i++)
		if (touched(i))
			self->p[i * page()] = i + 1;
	swap_out(self->cg);
	/* Mapped afresh it has no page tables. */
	ASSERT_EQ(self->p, mmap(self->p, SWAP_SIZE, RW, MAP_FIXED | MAP_SHARED,
				self->fd, 3 * page()));
	ASSERT_EQ((long)self->n, pagemap(getpid(), self->p, e, self->n));
	for (i = 0; i < self->n; i++) {
		swapped += !!(e[i] & PM_SWAP);
		EXPECT_FALSE(!touched(i) && (e[i] & PM_SWAP));
	}
	EXPECT_LT(self->n / 2, swapped);
	EXPECT_EQ((long)(swapped * page() / KB), smaps(getpid(), self->addr, "Swap"));
	r = scan(self->b.pid, &arg, self->addr, at(self->addr, self->len), vec, self->n);
	for (k = 0; k < r; k++)
		found += (vec[k].end - vec[k].start) / page();
	EXPECT_EQ(swapped, found);
	free(vec);
	free(e);
}

/*
 * Core dumps.
 */

FIXTURE(core)
{
	const char *name;
	void *addr;
	size_t len;
	char dir[64], core[128];
	struct setting pattern, pid;
	struct churn *churn;
	struct peer a;
	const char *why;
};

FIXTURE_SETUP(core)
{
	char text[160];

	self->name = new_name();
	self->addr = slot(0);
	self->len = 2 * granule();
	snprintf(self->dir, sizeof(self->dir), "/tmp/mshare-core-%d", getpid());
	snprintf(self->core, sizeof(self->core), "%s/core", self->dir);
	ASSERT_OK(mkdir(self->dir, 0755));
	/* A file with holes of terabytes is not for every file system. */
	ASSERT_OK(mount("none", self->dir, "tmpfs", 0, "size=256m"));
	snprintf(text, sizeof(text), "%s/core", self->dir);
	if (setting_set(&self->pattern, "/proc/sys/kernel/core_pattern", text))
		self->why = "no core dumps";
	setting_set(&self->pid, "/proc/sys/kernel/core_uses_pid", "0");
	self->churn = churn_new();
	ASSERT_NE(MAP_FAILED, self->churn);
	ASSERT_EQ(0, peer_start(&self->a));
	ASSERT_OK(peer_create(&self->a, self->name, self->addr, self->len));
}

FIXTURE_TEARDOWN(core)
{
	peer_stop(&self->a);
	munmap(self->addr, self->len);
	setting_restore(&self->pattern);
	setting_restore(&self->pid);
	umount2(self->dir, MNT_DETACH);
	rmdir(self->dir);
	remove_names();
}

/* A process that attaches, asks for its region to be dumped, and aborts. */
static int dump_as(int oflag, const char *name, void *addr, size_t len,
		   int advice)
{
	struct rlimit rl = { 256 * MB, 256 * MB };
	int status = -1;
	pid_t child;

	child = fork_bound();
	if (!child) {
		/* Unless it is attached since the fork */
		if ((mshare(name, NULL, 0, oflag, 0) && errno != EBUSY) ||
		    (advice && madvise(addr, len, advice)))
			_exit(1);
		/* No file mapping of its own, shared or private. */
		write_file("/proc/self/coredump_filter", "0x01");
		setrlimit(RLIMIT_CORE, &rl);
		prctl(PR_SET_DUMPABLE, 1);
		signal(SIGABRT, SIG_DFL);
		abort();
	}
	waitpid(child, &status, 0);
	return status;
}

static int dump(const char *name, void *addr, size_t len, int advice)
{
	return dump_as(O_RDWR, name, addr, len, advice);
}

struct elf {
	int fd, nr;
	Elf64_Phdr ph[512];
};

static bool elf_open(struct elf *elf, const char *path)
{
	Elf64_Ehdr eh;
	ssize_t n;

	elf->fd = open(path, O_RDONLY | O_CLOEXEC);
	if (elf->fd < 0 || read(elf->fd, &eh, sizeof(eh)) != sizeof(eh) ||
	    memcmp(eh.e_ident, ELFMAG, SELFMAG) || eh.e_phnum > 512)
		return false;
	elf->nr = eh.e_phnum;
	n = elf->nr * sizeof(elf->ph[0]);
	return pread(elf->fd, elf->ph, n, eh.e_phoff) == n;
}

/* The segment of an address; NULL if there is none. */
static Elf64_Phdr *elf_find(struct elf *elf, void *addr)
{
	int i;

	for (i = 0; i < elf->nr; i++) {
		Elf64_Phdr *ph = &elf->ph[i];

		if (ph->p_type == PT_LOAD && ph->p_vaddr <= (unsigned long)addr &&
		    (unsigned long)addr < ph->p_vaddr + ph->p_memsz)
			return ph;
	}
	return NULL;
}

/* A byte of the process; -1 if it is not in the file. */
static int elf_byte(struct elf *elf, void *addr)
{
	Elf64_Phdr *ph = elf_find(elf, addr);
	unsigned char c;

	if (!ph || (unsigned long)addr - ph->p_vaddr >= ph->p_filesz ||
	    pread(elf->fd, &c, 1, ph->p_offset + (unsigned long)addr - ph->p_vaddr) != 1)
		return -1;
	return c;
}

#define NEED_CORE() NEED_MEM()

TEST_F_TIMEOUT(core, leaves_the_region_out, SHORT_TIMEOUT)
{
	struct elf elf;
	int status;

	NEED_CORE();
	ASSERT_OK(attach(self->name));
	ASSERT_OK(map_anon(at(self->addr, OFF), 4 * page(), MAP_PRIVATE));
	ASSERT_EQ(0, try_write(at(self->addr, OFF), 7));
	status = dump(self->name, self->addr, self->len, 0);
	ASSERT_TRUE(WIFSIGNALED(status) && WCOREDUMP(status));
	ASSERT_TRUE(elf_open(&elf, self->core));
	ASSERT_NE(NULL, elf_find(&elf, self->addr));
	EXPECT_EQ(0, L(elf_find(&elf, self->addr)->p_filesz));
	EXPECT_EQ(self->len, elf_find(&elf, self->addr)->p_memsz);
	EXPECT_EQ(-1, elf_byte(&elf, at(self->addr, OFF)));
	close(elf.fd);
}

TEST_F_TIMEOUT(core, has_it_when_asked_to, SHORT_TIMEOUT)
{
	char *anon = at(self->addr, OFF), *shared = at(anon, HPS);
	char *file = at(shared, HPS), *huge = at(self->addr, GB);
	char *edge = at(self->addr, granule() - HPS), *none = at(anon, MB);
	int fd = memfd_create("mshare", MFD_CLOEXEC), i, status;
	struct setting thp;
	struct stat st;
	struct elf elf;

	NEED_CORE();
	ASSERT_OK(attach(self->name));
	ASSERT_OK(ftruncate(fd, 16 * page()));
	ASSERT_OK(map_anon(anon, 8 * page(), MAP_PRIVATE));
	ASSERT_OK(map_anon(shared, 8 * page(), MAP_SHARED));
	ASSERT_OK(mmap(file, 8 * page(), PROT_READ, MAP_FIXED | MAP_SHARED, fd, 0));
	/* Over the border of two granules */
	ASSERT_OK(map_anon(edge, 2 * HPS, MAP_PRIVATE));
	setting_set(&thp, THP_ENABLED, "always");
	ASSERT_OK(map_anon(huge, HPS, MAP_PRIVATE));
	ASSERT_EQ(0, try_write(huge + 5 * page(), 99));
	setting_restore(&thp);
	for (i = 0; i < 8; i++) {
		char c = 40 + i;

		if (i == 3)
			continue;
		ASSERT_EQ(0, try_write(anon + i * page(), 10 + i));
		ASSERT_EQ(0, try_write(shared + i * page(), 20 + i));
		ASSERT_EQ(1, pwrite(fd, &c, 1, i * page()));
	}
	ASSERT_EQ(0, try_write(edge + HPS - 1, 51));
	ASSERT_EQ(0, try_write(edge + HPS, 52));
	ASSERT_OK(mprotect(anon, page(), PROT_READ));
	ASSERT_OK(mprotect(anon + page(), page(), PROT_NONE));

	status = dump(self->name, self->addr, self->len, MADV_DODUMP);
	ASSERT_TRUE(WIFSIGNALED(status) && WCOREDUMP(status));
	ASSERT_TRUE(elf_open(&elf, self->core));
	for (i = 0; i < 8; i++) {
		EXPECT_EQ(i == 3 ? 0 : 10 + i, elf_byte(&elf, anon + i * page()));
		EXPECT_EQ(i == 3 ? 0 : 20 + i, elf_byte(&elf, shared + i * page()));
		EXPECT_EQ(i == 3 ? 0 : 40 + i, elf_byte(&elf, file + i * page()));
	}
	EXPECT_EQ(99, elf_byte(&elf, huge + 5 * page()));
	EXPECT_EQ(0, elf_byte(&elf, huge + 6 * page()));
	EXPECT_EQ(51, elf_byte(&elf, edge + HPS - 1));
	EXPECT_EQ(52, elf_byte(&elf, edge + HPS));
	/* With the rights it has there, and with nothing where there is none. */
	ASSERT_NE(NULL, elf_find(&elf, anon));
	EXPECT_EQ(PF_R, L(elf_find(&elf, anon)->p_flags));
	EXPECT_EQ(0, L(elf_find(&elf, anon + page())->p_flags));
	EXPECT_EQ(PF_R | PF_W, L(elf_find(&elf, anon + 2 * page())->p_flags));
	ASSERT_NE(NULL, elf_find(&elf, none));
	EXPECT_EQ(0, L(elf_find(&elf, none)->p_filesz));
	EXPECT_EQ(-1, elf_byte(&elf, none));
	EXPECT_NE(NULL, elf_find(&elf, at(self->addr, self->len - page())));
	EXPECT_EQ(NULL, elf_find(&elf, at(self->addr, self->len)));
	ASSERT_OK(fstat(elf.fd, &st));
	EXPECT_GT((long)GB, (long)st.st_size);
	close(elf.fd);
	close(fd);
	/* The region is what it was. */
	EXPECT_EQ(12, try_read(anon + 2 * page()));
}

TEST_F_TIMEOUT(core, of_who_may_only_read, SHORT_TIMEOUT)
{
	char *anon = at(self->addr, OFF);
	struct elf elf;
	int status;

	NEED_CORE();
	ASSERT_EQ(anon, peer_mmap(&self->a, anon, page(), RW, MAP_PRIVATE |
				  MAP_ANONYMOUS | MAP_FIXED, -1, 0));
	ASSERT_EQ(0, peer_write(&self->a, anon, 7));
	status = dump_as(O_RDONLY, self->name, self->addr, self->len,
			 MADV_DODUMP);
	ASSERT_TRUE(WIFSIGNALED(status) && WCOREDUMP(status));
	ASSERT_TRUE(elf_open(&elf, self->core));
	EXPECT_EQ(7, elf_byte(&elf, anon));
	ASSERT_NE(NULL, elf_find(&elf, anon));
	EXPECT_EQ(PF_R, L(elf_find(&elf, anon)->p_flags));
	close(elf.fd);
}

/* What was excluded when it was a process's own stays so in a region. */
TEST_F_TIMEOUT(core, leaves_out_what_was_excluded_before, SHORT_TIMEOUT)
{
	const char *name = new_name();
	void *start = slot(20);
	char *p = at(start, OFF);
	struct elf elf;
	int status;

	NEED_CORE();
	ASSERT_OK(map_anon(p, 3 * page(), MAP_PRIVATE));
	memset(p, 7, 3 * page());
	ASSERT_OK(madvise(p + page(), page(), MADV_DONTDUMP));
	ASSERT_OK(create(name, start, granule()));
	status = dump(name, start, granule(), MADV_DODUMP);
	ASSERT_TRUE(WIFSIGNALED(status) && WCOREDUMP(status));
	ASSERT_TRUE(elf_open(&elf, self->core));
	EXPECT_EQ(7, elf_byte(&elf, p));
	EXPECT_EQ(-1, elf_byte(&elf, p + page()));
	EXPECT_EQ(7, elf_byte(&elf, p + 2 * page()));
	close(elf.fd);
	munmap(start, granule());
}

/* Terabytes of which next to nothing is there: the dump must come to an end. */
TEST_F_TIMEOUT(core, does_not_look_at_what_was_never_there, SHORT_TIMEOUT)
{
	size_t half = granule();
	char *last = at(self->addr, self->len - page());
	struct stat st;
	struct elf elf;
	int status;

	NEED_CORE();
	ASSERT_OK(attach(self->name));
	ASSERT_NE(MAP_FAILED, mmap(self->addr, half, RW, MAP_FIXED | MAP_PRIVATE |
				   MAP_ANONYMOUS | MAP_NORESERVE, -1, 0));
	ASSERT_NE(MAP_FAILED, mmap(at(self->addr, half), half, RW, MAP_FIXED |
				   MAP_SHARED | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0));
	ASSERT_EQ(0, try_write(at(self->addr, half / 2 + 5), 61));
	ASSERT_EQ(0, try_write(at(self->addr, half + half / 3), 62));
	ASSERT_EQ(0, try_write(last, 63));
	status = dump(self->name, self->addr, self->len, MADV_DODUMP);
	ASSERT_TRUE(WIFSIGNALED(status) && WCOREDUMP(status));
	ASSERT_TRUE(elf_open(&elf, self->core));
	EXPECT_EQ(61, elf_byte(&elf, at(self->addr, half / 2 + 5)));
	EXPECT_EQ(62, elf_byte(&elf, at(self->addr, half + half / 3)));
	EXPECT_EQ(63, elf_byte(&elf, last));
	EXPECT_EQ(0, elf_byte(&elf, at(self->addr, half / 4)));
	ASSERT_OK(fstat(elf.fd, &st));
	EXPECT_LE((long)self->len, (long)st.st_size);
	EXPECT_GT((long)(64 * MB / 512), (long)st.st_blocks);
	close(elf.fd);
}

TEST_F_TIMEOUT(core, of_an_empty_region, SHORT_TIMEOUT)
{
	struct stat st;
	struct elf elf;
	int status;

	NEED_CORE();
	status = dump(self->name, self->addr, self->len, MADV_DODUMP);
	ASSERT_TRUE(WIFSIGNALED(status) && WCOREDUMP(status));
	ASSERT_TRUE(elf_open(&elf, self->core));
	ASSERT_NE(NULL, elf_find(&elf, self->addr));
	EXPECT_EQ(0, L(elf_find(&elf, self->addr)->p_filesz));
	EXPECT_EQ(self->len, elf_find(&elf, self->addr)->p_memsz);
	ASSERT_OK(fstat(elf.fd, &st));
	EXPECT_GT((long)GB, (long)st.st_size);
	close(elf.fd);
}

/* Through a pipe, which has no holes, nothing is written for gaps. */
TEST_F_TIMEOUT(core, through_a_pipe, SHORT_TIMEOUT)
{
	char script[160], text[256];
	struct elf elf;
	int fd, status;

	NEED_CORE();
	ASSERT_OK(attach(self->name));
	ASSERT_OK(map_anon(self->addr, page(), MAP_PRIVATE));
	ASSERT_OK(map_anon(at(self->addr, granule()), page(), MAP_PRIVATE));
	ASSERT_EQ(0, try_write(self->addr, 71));
	ASSERT_EQ(0, try_write(at(self->addr, granule()), 72));
	snprintf(script, sizeof(script), "%s/save", self->dir);
	fd = open(script, O_WRONLY | O_CREAT | O_CLOEXEC, 0755);
	ASSERT_LE(0, fd);
	dprintf(fd, "#!/bin/sh\n/bin/cat > %s.new && /bin/mv %s.new %s\n",
		self->core, self->core, self->core);
	close(fd);
	snprintf(text, sizeof(text), "|%s", script);
	ASSERT_OK(write_file("/proc/sys/kernel/core_pattern", text));
	status = dump(self->name, self->addr, self->len, MADV_DODUMP);
	ASSERT_TRUE(WIFSIGNALED(status));
	ASSERT_TRUE(WAIT_FOR(!access(self->core, F_OK), 60));
	ASSERT_TRUE(elf_open(&elf, self->core));
	EXPECT_EQ(71, elf_byte(&elf, self->addr));
	EXPECT_EQ(72, elf_byte(&elf, at(self->addr, granule())));
	close(elf.fd);
}

/* Others go on meanwhile. */
TEST_F_TIMEOUT(core, races_with_changes, LONG_TIMEOUT)
{
	struct churn *c = self->churn;
	long rounds = scaled(5), i;
	struct elf elf;
	int status;

	NEED_CORE();
	ASSERT_OK(attach(self->name));
	ASSERT_OK(map_anon(self->addr, page(), MAP_PRIVATE));
	ASSERT_EQ(0, try_write(self->addr, 81));
	PEER_SEND(&self->a, do_map_and_unmap, self->name, L(c), L(self->addr));
	for (i = 0; i < rounds; i++) {
		status = dump(self->name, self->addr, self->len, MADV_DODUMP);
		EXPECT_TRUE(WIFSIGNALED(status) && WCOREDUMP(status));
		ASSERT_TRUE(elf_open(&elf, self->core));
		EXPECT_EQ(81, elf_byte(&elf, self->addr));
		close(elf.fd);
	}
	atomic_store(&c->stop, 1);
	EXPECT_EQ(0, peer_wait(&self->a));
}

/*
 * "mshare_proc bench": what reading pagemap costs, for resident and for swapped
 * memory. Under -icount the time stamp counter counts instructions.
 */

static __u64 tsc(void)
{
	unsigned int lo, hi;

	__asm__ volatile("lfence; rdtsc; lfence" : "=a" (lo), "=d" (hi));
	return (__u64)hi << 32 | lo;
}

static __u64 bench_pagemap(void *p, size_t n, __u64 *e)
{
	int fd = open("/proc/self/pagemap", O_RDONLY | O_CLOEXEC), i;
	__u64 best = ~0ULL, t;

	for (i = 0; i < 5; i++) {
		t = tsc();
		if (pread(fd, e, n * 8, (unsigned long)p / page() * 8) != (ssize_t)n * 8)
			return 0;
		t = tsc() - t;
		if (t < best)
			best = t;
	}
	close(fd);
	return best / n;
}

static int bench(void)
{
	static const char * const what[] = { "anon", "shmem" };
	struct zram zram;
	struct setting thp;
	const char *why, *name = new_name();
	size_t len = 64 * MB, n = len / page(), i, k, swapped;
	__u64 *e = malloc(n * 8), resident, gone;
	char cg[64], *addr = slot(0);
	struct peer a;

	snprintf(cg, sizeof(cg), "mshare-%d", getpid());
	why = swapped_start(cg, &zram, &thp);
	if (why) {
		printf("%s\n", why);
		return 1;
	}
	memset(e, 0, n * 8);
	if (peer_start(&a) || PEER(&a, do_cg_enter, cg, 0) ||
	    peer_create(&a, name, addr, granule()) || attach(name))
		return 1;
	for (k = 0; k < 2; k++) {
		map_anon(addr, len, k ? MAP_SHARED : MAP_PRIVATE);
		for (i = 0; i < n; i++)
			addr[i * page()] = i;
		resident = bench_pagemap(addr, n, e);
		for (i = 0; i < 8; i++)
			cg_write(cg, "memory.reclaim", "64M");
		gone = bench_pagemap(addr, n, e);
		for (i = 0, swapped = 0; i < n; i++)
			swapped += !!(e[i] & PM_SWAP);
		printf("%-6s %llu per resident page, %llu when %zu of %zu are in swap: %.2f\n",
		       what[k], (unsigned long long)resident,
		       (unsigned long long)gone, swapped, n,
		       (double)gone / resident);
		munmap(addr, len);
	}
	peer_stop(&a);
	munmap(addr, granule());
	remove_names();
	setting_restore(&thp);
	cg_remove(cg);
	zram_end(&zram);
	return 0;
}

int main(int argc, char **argv)
{
	mshare_prepare();
	if (argc > 1 && !strcmp(argv[1], "bench"))
		return bench();
	return test_harness_run(argc, argv);
}
