// SPDX-License-Identifier: GPL-2.0
/*
 * Everything else in the kernel that looks into processes: it must leave an
 * attachment alone, or refuse, and the region must be as it was.
 */
#include <linux/membarrier.h>
#include <sys/ioctl.h>
#include <sys/ipc.h>
#include <sys/shm.h>
#include <ucontext.h>
#include "mshare_env.h"

#ifndef SYS_process_mrelease
#define SYS_process_mrelease	448
#endif
#ifndef PR_SET_MEMORY_MERGE
#define PR_SET_MEMORY_MERGE	67
#endif
#ifndef PAGEMAP_SCAN
struct page_region {
	__u64 start, end, categories;
};

struct pm_scan_arg {
	__u64 size, flags, start, end, walk_end, vec, vec_len, max_pages;
	__u64 category_inverted, category_mask, category_anyof_mask, return_mask;
};
#define PAGEMAP_SCAN		_IOWR('f', 16, struct pm_scan_arg)
#define PAGE_IS_PRESENT		(1 << 3)
#define PAGE_IS_SWAPPED		(1 << 4)
#endif

#define RW	(PROT_READ | PROT_WRITE)
#define N	256UL		/* pages of content */

FIXTURE(hooks)
{
	const char *name;
	void *addr, *p;
	size_t len;
	struct peer a, b, out;	/* out is not attached */
};

static int byte_of(size_t i)
{
	return (i * 13 + 5) & 0xff;
}

FIXTURE_SETUP(hooks)
{
	size_t i;

	self->name = new_name();
	self->addr = slot(0);
	self->len = granule();
	self->p = at(self->addr, GB);
	ASSERT_EQ(0, peer_start(&self->a));
	ASSERT_EQ(0, peer_start(&self->b));
	ASSERT_EQ(0, peer_start(&self->out));
	ASSERT_OK(create(self->name, self->addr, self->len));
	ASSERT_OK(peer_attach(&self->a, self->name));
	ASSERT_OK(peer_attach(&self->b, self->name));
	ASSERT_OK(map_anon(self->p, N * page(), MAP_PRIVATE));
	for (i = 0; i < N; i++) {
		ASSERT_EQ(0, try_write(at(self->p, i * page()), byte_of(i)));
	}
}

FIXTURE_TEARDOWN(hooks)
{
	peer_stop(&self->a);
	peer_stop(&self->b);
	peer_stop(&self->out);
	munmap(self->addr, self->len);
	remove_names();
}

static long do_wrong(const struct request *rq)
{
	long bad = 0;
	size_t i;

	for (i = 0; i < N; i++)
		if (try_read((void *)(rq->a[0] + i * page())) != byte_of(i))
			bad++;
	return bad;
}

/* All three processes see what was written at first, and can write. */
#define EXPECT_INTACT() do {						\
	struct request _rq = { .a = { L(self->p) } };			\
									\
	EXPECT_EQ(0, do_wrong(&_rq));					\
	EXPECT_EQ(0, PEER(&self->a, do_wrong, NULL, L(self->p)));	\
	EXPECT_EQ(0, PEER(&self->b, do_wrong, NULL, L(self->p)));	\
	EXPECT_EQ(0, try_write(self->p, byte_of(0)));			\
	EXPECT_EQ(1, nr_mapped(self->addr, self->len));			\
} while (0)

TEST_F(hooks, buffered_io_on_a_region_works)
{
	char path[64];
	int fd;

	snprintf(path, sizeof(path), "/tmp/mshare-hooks-%d", getpid());
	fd = open(path, O_RDWR | O_CREAT | O_TRUNC, 0600);
	ASSERT_LE(0, fd);
	unlink(path);
	EXPECT_EQ((ssize_t)(N * page()), pwrite(fd, self->p, N * page(), 0));
	ASSERT_OK(map_anon(at(self->addr, 3 * GB), N * page(), MAP_SHARED));
	EXPECT_EQ((ssize_t)(N * page()),
		  pread(fd, at(self->addr, 3 * GB), N * page(), 0));
	EXPECT_EQ(0, memcmp(self->p, at(self->addr, 3 * GB), N * page()));
	EXPECT_EQ(0, PEER(&self->b, do_wrong, NULL, L(at(self->addr, 3 * GB))));
	close(fd);
}

/* The line of /proc/PID/maps that begins at @addr. */
static bool maps_line(pid_t pid, void *addr, char *line, size_t size, int *count)
{
	char path[64], buf[PATH_MAX];
	unsigned long s, e;
	bool found = false;
	FILE *f;

	*count = 0;
	snprintf(path, sizeof(path), "/proc/%d/maps", pid);
	f = fopen(path, "re");
	while (f && fgets(buf, sizeof(buf), f)) {
		if (sscanf(buf, "%lx-%lx", &s, &e) != 2)
			continue;
		if (s == (unsigned long)addr) {
			snprintf(line, size, "%s", buf);
			found = true;
		}
		if (s < (unsigned long)addr + granule() && e > (unsigned long)addr)
			(*count)++;
	}
	if (f)
		fclose(f);
	return found;
}

TEST_F(hooks, maps_shows_one_line_with_the_regions_path)
{
	char line[PATH_MAX], want[PATH_MAX];
	unsigned long s, e;
	char perms[8];
	int count;

	ASSERT_TRUE(maps_line(self->a.pid, self->addr, line, sizeof(line), &count));
	EXPECT_EQ(1, count);
	ASSERT_EQ(3, sscanf(line, "%lx-%lx %7s", &s, &e, perms));
	EXPECT_EQ(self->len, e - s);
	EXPECT_EQ('r', perms[0]);
	EXPECT_EQ('w', perms[1]);
	EXPECT_EQ('s', perms[3]);
	snprintf(want, sizeof(want), MSHAREFS "/%s\n", self->name);
	EXPECT_NE(NULL, strstr(line, want)) {
		TH_LOG("%s", line);
	}
	ASSERT_OK(unlink(path_of(self->name)));
	ASSERT_TRUE(maps_line(self->a.pid, self->addr, line, sizeof(line), &count));
	EXPECT_EQ(1, count);
	EXPECT_NE(NULL, strstr(line, self->name));
	EXPECT_NE(NULL, strstr(line, "(deleted)"));
}

TEST_F_TIMEOUT(hooks, proc_files_can_be_read, SHORT_TIMEOUT)
{
	static const char * const files[] = {
		"smaps", "smaps_rollup", "numa_maps", "status", "statm", "stat",
		"maps", "oom_score",
	};
	char path[64], *buf = malloc(MB), link[PATH_MAX];
	ssize_t n;
	size_t i;

	for (i = 0; i < ARRAY_SIZE(files); i++) {
		snprintf(path, sizeof(path), "/proc/%d/%s", self->a.pid, files[i]);
		if (access(path, F_OK)) {
			TH_LOG("no %s here", path);
			continue;
		}
		EXPECT_LT(0, read_file(path, buf, MB)) {
			TH_LOG("%s: %s", path, strerror(errno));
		}
		if (!strcmp(files[i], "smaps")) {
			EXPECT_NE(NULL, strstr(buf, self->name));
		}
	}
	/* The region is not the process's own. */
	snprintf(path, sizeof(path), "/proc/%d/status", self->a.pid);
	EXPECT_GT(1000, read_key(path, "RssAnon"));
	snprintf(path, sizeof(path), "/proc/%d/map_files/%lx-%lx", self->a.pid,
		 L(self->addr), L(self->addr) + self->len);
	n = readlink(path, link, sizeof(link) - 1);
	if (n > 0) {
		link[n] = 0;
		EXPECT_STREQ(path_of(self->name), link);
	}
	EXPECT_INTACT();
	free(buf);
}

TEST_F(hooks, pagemap_and_its_scan_do_not_fail)
{
	struct page_region vec[8];
	struct pm_scan_arg arg = {
		.size = sizeof(arg),
		.start = (unsigned long)self->p,
		.end = (unsigned long)self->p + N * page(),
		.vec = (unsigned long)vec,
		.vec_len = ARRAY_SIZE(vec),
		.category_anyof_mask = PAGE_IS_PRESENT | PAGE_IS_SWAPPED,
		.return_mask = PAGE_IS_PRESENT | PAGE_IS_SWAPPED,
	};
	__u64 entries[16];
	char path[64];
	int fd, r;

	snprintf(path, sizeof(path), "/proc/%d/pagemap", self->a.pid);
	fd = open(path, O_RDONLY);
	if (fd < 0)
		SKIP(return, "no pagemap");
	EXPECT_EQ((ssize_t)sizeof(entries),
		  pread(fd, entries, sizeof(entries), L(self->p) / page() * 8));
	r = ioctl(fd, PAGEMAP_SCAN, &arg);
	if (r < 0)
		TH_LOG("PAGEMAP_SCAN: %s", strerror(errno));
	/* The whole attachment and what is around it. */
	arg.start = (unsigned long)self->addr - page();
	arg.end = (unsigned long)self->addr + self->len + page();
	r = ioctl(fd, PAGEMAP_SCAN, &arg);
	if (r < 0)
		TH_LOG("PAGEMAP_SCAN: %s", strerror(errno));
	close(fd);
	EXPECT_INTACT();
}

TEST_F(hooks, clear_refs_leaves_regions_alone)
{
	char path[64], what[2] = "1";
	int i;

	snprintf(path, sizeof(path), "/proc/%d/clear_refs", self->a.pid);
	if (access(path, F_OK))
		SKIP(return, "no clear_refs");
	for (i = 1; i <= 5; i++) {
		what[0] = '0' + i;
		/* 4 needs soft-dirty. */
		if (write_file(path, what) && i != 4) {
			EXPECT_EQ(0, errno);
		}
		EXPECT_INTACT();
	}
}

/* Identical pages, inside and outside, in processes that want all merged. */
TEST_F_TIMEOUT(hooks, ksm_leaves_the_contents_alone, SHORT_TIMEOUT)
{
	struct setting run, scan, ms;
	struct peer child;
	char *own;
	int i;

	if (setting_save(&run, "/sys/kernel/mm/ksm/run"))
		SKIP(return, "no KSM");
	if (prctl(PR_SET_MEMORY_MERGE, 1, 0, 0, 0))
		TH_LOG("PR_SET_MEMORY_MERGE: %s", strerror(errno));
	ASSERT_EQ(0, peer_start(&child));
	setting_set(&scan, "/sys/kernel/mm/ksm/pages_to_scan", "5000");
	setting_set(&ms, "/sys/kernel/mm/ksm/sleep_millisecs", "10");
	own = mmap(NULL, N * page(), RW, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	ASSERT_NE(MAP_FAILED, own);
	memcpy(own, self->p, N * page());
	ASSERT_OK(map_anon(at(self->addr, 3 * GB), N * page(), MAP_PRIVATE));
	memcpy(at(self->addr, 3 * GB), self->p, N * page());
	ASSERT_OK(write_file(run.path, "1"));
	usleep(500000);
	for (i = 0; i < 10; i++) {
		ASSERT_EQ(0, peer_write(&child, at(self->p, i * page() + 8), i));
		ASSERT_EQ(i, peer_read(&self->a, at(self->p, i * page() + 8)));
		ASSERT_EQ(0, *(unsigned char *)at(self->addr, 3 * GB + i * page() + 8));
		ASSERT_EQ(0, own[i * page() + 8]);
		usleep(50000);
	}
	EXPECT_INTACT();
	ASSERT_OK(write_file(run.path, "2"));
	EXPECT_INTACT();
	EXPECT_EQ(0, PEER(&self->b, do_wrong, NULL, L(at(self->addr, 3 * GB))));
	setting_restore(&run);
	setting_restore(&scan);
	setting_restore(&ms);
	peer_stop(&child);
}

#define DAMON	"/sys/kernel/mm/damon/admin/kdamonds/"

static bool damon_write(const char *file, unsigned long val)
{
	char path[256], text[32];

	snprintf(path, sizeof(path), DAMON "%s", file);
	snprintf(text, sizeof(text), "%lu", val);
	return !write_file(path, text);
}

/* Has what a process does not use paged out, of two ranges. */
static bool damon_pageout(pid_t pid, void *a, void *b, size_t len)
{
#define C "0/contexts/0/"
	return damon_write("nr_kdamonds", 1) &&
	       damon_write("0/contexts/nr_contexts", 1) &&
	       !write_file(DAMON C "operations", "fvaddr") &&
	       damon_write(C "monitoring_attrs/intervals/sample_us", 5000) &&
	       damon_write(C "monitoring_attrs/intervals/aggr_us", 50000) &&
	       damon_write(C "targets/nr_targets", 1) &&
	       damon_write(C "targets/0/pid_target", pid) &&
	       damon_write(C "targets/0/regions/nr_regions", 2) &&
	       damon_write(C "targets/0/regions/0/start", L(a)) &&
	       damon_write(C "targets/0/regions/0/end", L(a) + len) &&
	       damon_write(C "targets/0/regions/1/start", L(b)) &&
	       damon_write(C "targets/0/regions/1/end", L(b) + len) &&
	       damon_write(C "schemes/nr_schemes", 1) &&
	       !write_file(DAMON C "schemes/0/action", "pageout") &&
	       damon_write(C "schemes/0/access_pattern/sz/max", ~0UL) &&
	       damon_write(C "schemes/0/access_pattern/nr_accesses/max", 0) &&
	       damon_write(C "schemes/0/access_pattern/age/max", 1000000) &&
	       !write_file(DAMON "0/state", "on");
#undef C
}

#define KPF_IDLE	25

/* Pages of the range that are there, and of these those with the flag KPF_IDLE. */
static void count_pages(void *p, size_t n, int *there, int *idle)
{
	int fd = open("/proc/kpageflags", O_RDONLY | O_CLOEXEC);
	unsigned long flags;
	size_t i;
	long pfn;

	*there = *idle = 0;
	for (i = 0; i < n; i++) {
		pfn = pfn_of(at(p, i * page()));
		if (!pfn)
			continue;
		++*there;
		if (pread(fd, &flags, 8, pfn * 8) == 8)
			*idle += flags >> KPF_IDLE & 1;
	}
	close(fd);
}

/* It does not see who else uses a region. */
TEST_F_TIMEOUT(hooks, damon_leaves_regions_alone, SHORT_TIMEOUT)
{
	struct zram zram = { .id = -1 };
	void *own = slot(8);
	int there, idle;
	const char *why;
	bool done;

	if (access(DAMON "nr_kdamonds", W_OK))
		SKIP(return, "no CONFIG_DAMON_SYSFS");
	why = zram_swapon(&zram, 64 * MB);
	if (why) {
		zram_end(&zram);
		SKIP(return, "%s", why);
	}
	ASSERT_OK(map_anon(own, N * page(), MAP_PRIVATE));
	memset(own, 1, N * page());
	EXPECT_TRUE(damon_pageout(getpid(), self->p, own, N * page()));
	done = WAIT_FOR((count_pages(own, N, &there, &idle), there < (int)N / 4), 60);
	EXPECT_TRUE(done) {
		TH_LOG("DAMON pages nothing out here, either");
	}
	count_pages(self->p, N, &there, &idle);
	EXPECT_EQ((int)N, there);
	EXPECT_EQ(0, idle);
	EXPECT_OK(write_file(DAMON "0/state", "off"));
	damon_write("nr_kdamonds", 0);
	EXPECT_INTACT();
	munmap(own, N * page());
	zram_end(&zram);
}

static bool file_has(const char *path, const unsigned char *what, size_t n)
{
	bool found = false;
	struct stat st;
	void *p;
	int fd;

	fd = open(path, O_RDONLY);
	if (fd < 0 || fstat(fd, &st) || !st.st_size)
		return false;
	p = mmap(NULL, st.st_size, PROT_READ, MAP_PRIVATE, fd, 0);
	if (p != MAP_FAILED) {
		found = memmem(p, st.st_size, what, n);
		munmap(p, st.st_size);
	}
	close(fd);
	return found;
}

/* Bytes that stand nowhere by chance. */
static unsigned char marker(int which, int i)
{
	return (i * i * 31 + i * 73 + which) & 0xff;
}

TEST_F_TIMEOUT(hooks, a_core_dump_leaves_the_region_out, SHORT_TIMEOUT)
{
	struct rlimit rl = { 256 * MB, RLIM_INFINITY };
	unsigned char inside[32], outside[32];
	struct setting pattern;
	char dir[64], core[128], text[160];
	int i, status;
	pid_t child;
	struct stat st;

	snprintf(dir, sizeof(dir), "/tmp/mshare-core-%d", getpid());
	snprintf(core, sizeof(core), "%s/core", dir);
	snprintf(text, sizeof(text), "%s/core", dir);
	ASSERT_OK(mkdir(dir, 0755));
	if (setting_set(&pattern, "/proc/sys/kernel/core_pattern", text)) {
		rmdir(dir);
		SKIP(return, "no core dumps");
	}
	child = fork_bound();
	if (!child) {
		unsigned char *own = mmap(NULL, page(), RW,
					  MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

		/* Everything that a filter can ask for. */
		write_file("/proc/self/coredump_filter", "0x7f");
		write_file("/proc/sys/kernel/core_uses_pid", "0");
		setrlimit(RLIMIT_CORE, &rl);
		prctl(PR_SET_DUMPABLE, 1);
		for (i = 0; i < 32; i++) {
			try_write(at(self->p, page() + 64 + i), marker(7, i));
			own[i] = marker(91, i);
		}
		signal(SIGABRT, SIG_DFL);
		abort();
	}
	ASSERT_EQ(child, waitpid(child, &status, 0));
	EXPECT_TRUE(WIFSIGNALED(status));
	for (i = 0; i < 32; i++) {
		inside[i] = marker(7, i);
		outside[i] = marker(91, i);
	}
	setting_restore(&pattern);
	EXPECT_EQ(0, stat(core, &st)) {
		TH_LOG("no core dump");
	}
	/* What it had of its own is in it, and the search works. */
	EXPECT_TRUE(file_has(core, outside, 32));
	EXPECT_FALSE(file_has(core, inside, 32));
	EXPECT_EQ(marker(7, 0), peer_read(&self->a, at(self->p, page() + 64)));
	unlink(core);
	rmdir(dir);
	EXPECT_INTACT();
}

TEST_F_TIMEOUT(hooks, process_mrelease_frees_nothing_of_a_region, SHORT_TIMEOUT)
{
	long rounds = scaled(20), i, hits = 0;
	int pidfd;
	pid_t child;

	for (i = 0; i < rounds; i++) {
		child = fork_bound();
		if (!child) {
			struct request rq = { .a = { L(self->p) } };

			for (;;)
				do_wrong(&rq);
		}
		pidfd = syscall(SYS_pidfd_open, child, 0);
		ASSERT_LE(0, pidfd);
		usleep(1000);
		kill(child, SIGKILL);
		if (!syscall(SYS_process_mrelease, pidfd, 0))
			hits++;
		else if (errno == ENOSYS)
			i = rounds;
		close(pidfd);
		waitpid(child, NULL, 0);
		EXPECT_INTACT();
	}
	TH_LOG("released %ld of %ld", hits, rounds);
}

TEST_F(hooks, membarriers_work)
{
	int cmds = syscall(SYS_membarrier, MEMBARRIER_CMD_QUERY, 0, 0), i;

	if (cmds < 0)
		SKIP(return, "no membarrier");
	for (i = 0; i < 2; i++) {
		syscall(SYS_membarrier, MEMBARRIER_CMD_REGISTER_PRIVATE_EXPEDITED, 0, 0);
		EXPECT_OK(syscall(SYS_membarrier, MEMBARRIER_CMD_PRIVATE_EXPEDITED, 0, 0));
		EXPECT_OK(syscall(SYS_membarrier, MEMBARRIER_CMD_GLOBAL, 0, 0));
		syscall(SYS_membarrier,
			MEMBARRIER_CMD_REGISTER_PRIVATE_EXPEDITED_SYNC_CORE, 0, 0);
		syscall(SYS_membarrier, MEMBARRIER_CMD_PRIVATE_EXPEDITED_SYNC_CORE, 0, 0);
	}
	EXPECT_INTACT();
}

TEST_F(hooks, migrating_a_process_between_nodes_leaves_regions_alone)
{
	unsigned long from = 1, to = 2;

	if (access("/sys/devices/system/node/node1", F_OK))
		SKIP(return, "one NUMA node (numa=fake=2 gives two)");
	EXPECT_OK(syscall(SYS_migrate_pages, self->a.pid, 64, &from, &to));
	EXPECT_INTACT();
	EXPECT_OK(syscall(SYS_migrate_pages, self->a.pid, 64, &to, &from));
	EXPECT_INTACT();
}

TEST_F_TIMEOUT(hooks, numa_balancing_leaves_regions_alone, SHORT_TIMEOUT)
{
	struct setting balancing;
	int i;

	if (access("/sys/devices/system/node/node1", F_OK))
		SKIP(return, "one NUMA node (numa=fake=2 gives two)");
	if (setting_set(&balancing, "/proc/sys/kernel/numa_balancing", "1"))
		SKIP(return, "no NUMA balancing");
	for (i = 0; i < 20; i++) {
		EXPECT_INTACT();
	}
	setting_restore(&balancing);
}

TEST_F_TIMEOUT(hooks, compaction_and_dropped_caches_keep_the_contents, SHORT_TIMEOUT)
{
	int i;

	for (i = 0; i < 3; i++) {
		write_file("/proc/sys/vm/compact_memory", "1");
		EXPECT_INTACT();
		write_file("/proc/sys/vm/drop_caches", "3");
		EXPECT_INTACT();
	}
}

TEST_F(hooks, splitting_huge_pages_by_address_leaves_regions_alone)
{
	const char *file = "/sys/kernel/debug/split_huge_pages";
	char text[128];

	if (access(file, W_OK))
		SKIP(return, "no %s", file);
	snprintf(text, sizeof(text), "%d,0x%lx,0x%lx", self->a.pid, L(self->p),
		 L(self->p) + N * page());
	write_file(file, text);
	EXPECT_INTACT();
}

#ifdef __x86_64__
TEST_F(hooks, uprobes_are_not_inserted_into_a_region)
{
	const char *events = "/sys/kernel/tracing/uprobe_events";
	const char *enable = "/sys/kernel/tracing/events/mshare_test/probe/enable";
	void *p = at(self->addr, 3 * GB), *q = at(self->addr, 4 * GB), *own;
	char path[64], text[160];
	int fd;

	mount("none", "/sys/kernel/tracing", "tracefs", 0, NULL);
	if (access(events, W_OK))
		SKIP(return, "no uprobe events");
	snprintf(path, sizeof(path), "/tmp/mshare-probe-%d", getpid());
	fd = open(path, O_RDWR | O_CREAT | O_TRUNC, 0700);
	ASSERT_LE(0, fd);
	ASSERT_OK(ftruncate(fd, page()));
	ASSERT_EQ((ssize_t)sizeof(code_42), pwrite(fd, code_42, sizeof(code_42), 0));
	ASSERT_EQ(p, mmap(p, page(), PROT_READ | PROT_EXEC, MAP_PRIVATE | MAP_FIXED,
			  fd, 0));
	own = mmap(NULL, page(), PROT_READ | PROT_EXEC, MAP_PRIVATE, fd, 0);
	EXPECT_EQ(42, try_exec(p));
	snprintf(text, sizeof(text), "p:mshare_test/probe %s:0x0", path);
	if (write_file(events, text) || write_file(enable, "1")) {
		unlink(path);
		SKIP(return, "cannot set a uprobe: %s", strerror(errno));
	}
	/* Outside there is a breakpoint now; mapped before or after, not inside. */
	EXPECT_EQ(0xcc, try_read(own));
	ASSERT_EQ(q, mmap(q, page(), PROT_READ | PROT_EXEC, MAP_PRIVATE | MAP_FIXED,
			  fd, 0));
	EXPECT_EQ(code_42[0], try_read(p));
	EXPECT_EQ(code_42[0], try_read(q));
	EXPECT_EQ(42, try_exec(p));
	EXPECT_EQ(42, try_exec(q));
	EXPECT_EQ(code_42[0], peer_read(&self->a, p));
	EXPECT_OK(write_file(enable, "0"));
	write_file(events, "-:mshare_test/probe");
	EXPECT_EQ(42, try_exec(p));
	close(fd);
	unlink(path);
	EXPECT_INTACT();
}
#endif

static ucontext_t main_context, stack_context;
static volatile bool stack_worked;

/* Deep enough that the stack grows over pages that nobody touched. */
static void stack_user(void)
{
	volatile char buf[32768];
	size_t i;

	for (i = 0; i < sizeof(buf); i += 512)
		buf[i] = 7;
	stack_worked = buf[512] == 7 && (void *)buf > slot(0) &&
		       (void *)buf < at(slot(0), granule());
}

static volatile sig_atomic_t handler_ran;
static void *volatile handler_stack;

static void on_altstack(int sig __maybe_unused)
{
	char here;

	handler_stack = &here;
	handler_ran++;
}

/*
 * User accesses, and the kernel's for signal frames.
 */
TEST_F(hooks, a_stack_may_be_in_a_region)
{
	stack_t ss = { .ss_sp = at(self->addr, 8 * GB), .ss_size = 65536 };
	struct sigaction sa = { .sa_handler = on_altstack, .sa_flags = SA_ONSTACK };

	ASSERT_OK(map_anon(at(self->addr, 7 * GB), 256 * KB, MAP_PRIVATE));
	ASSERT_OK(getcontext(&stack_context));
	stack_context.uc_stack.ss_sp = at(self->addr, 7 * GB);
	stack_context.uc_stack.ss_size = 256 * KB;
	stack_context.uc_link = &main_context;
	makecontext(&stack_context, stack_user, 0);
	ASSERT_OK(swapcontext(&main_context, &stack_context));
	EXPECT_TRUE(stack_worked);
	/* A signal frame on pages that nobody touched. */
	ASSERT_OK(map_anon(ss.ss_sp, ss.ss_size, MAP_PRIVATE));
	ASSERT_OK(sigaltstack(&ss, NULL));
	ASSERT_OK(sigaction(SIGUSR1, &sa, NULL));
	ASSERT_OK(raise(SIGUSR1));
	EXPECT_EQ(1, handler_ran);
	EXPECT_TRUE(handler_stack > ss.ss_sp &&
		    handler_stack < at(ss.ss_sp, ss.ss_size));
	ss.ss_flags = SS_DISABLE;
	ASSERT_OK(sigaltstack(&ss, NULL));
}

#ifndef PR_SET_MM
#define PR_SET_MM		35
#define PR_SET_MM_START_BRK	6
#define PR_SET_MM_BRK		7
#endif

/* brk() unmaps without passing munmap(). */
TEST_F(hooks, brk_never_cuts_into_an_attachment)
{
	pid_t child = fork_bound();
	int status;

	if (!child) {
		unsigned long start = L(self->addr) + 2 * page();
		unsigned long end = L(self->p) + N * page();

		if (prctl(PR_SET_MM, PR_SET_MM_START_BRK, start, 0, 0) ||
		    prctl(PR_SET_MM, PR_SET_MM_BRK, end, 0, 0))
			_exit(KSFT_SKIP);
		syscall(SYS_brk, L(self->p) + page());
		if (try_read(at(self->p, 2 * page())) != byte_of(2))
			_exit(1);
		syscall(SYS_brk, end + 4 * page());
		if (fault_sig(try_read((void *)end)) != SIGBUS)
			_exit(2);
		_exit(nr_mapped(self->addr, self->len) == 1 ? 0 : 3);
	}
	ASSERT_EQ(child, waitpid(child, &status, 0));
	if (WIFEXITED(status) && WEXITSTATUS(status) == KSFT_SKIP)
		SKIP(return, "the program break cannot be set");
	EXPECT_EQ(0, status);
	EXPECT_INTACT();
}

/* The ring of an AIO context is moved and unmapped by the kernel. */
TEST_F(hooks, an_aio_ring_is_not_moved_into_a_region)
{
	unsigned long ctx = 0;
	void *moved;

	if (syscall(SYS_io_setup, 16, &ctx))
		SKIP(return, "no AIO");
	moved = mremap((void *)ctx, page(), page(), MREMAP_MAYMOVE | MREMAP_FIXED,
		       at(self->p, page()));
	EXPECT_EQ(MAP_FAILED, moved);
	EXPECT_INTACT();
	EXPECT_OK(syscall(SYS_io_destroy, ctx));
	EXPECT_INTACT();
}

TEST_F(hooks, an_aio_ring_that_went_is_not_unmapped_in_a_region)
{
	const char *name = new_name();
	unsigned long ctx = 0;
	void *ring = at(slot(30), 4 * MB);

	if (syscall(SYS_io_setup, 16, &ctx))
		SKIP(return, "no AIO");
	/* The context remembers where its ring was, when that is gone. */
	ASSERT_EQ(ring, mremap((void *)ctx, page(), page(), MREMAP_MAYMOVE |
			       MREMAP_FIXED, ring));
	ASSERT_OK(munmap(ring, page()));
	ASSERT_OK(create(name, slot(30), granule()));
	ASSERT_OK(map_anon(slot(30), 8 * MB, MAP_PRIVATE));
	/* What is there now looks like the head of ring 0. */
	ASSERT_EQ(0, try_write(at(ring, 100), 5));
	EXPECT_OK(syscall(SYS_io_destroy, ring));
	EXPECT_EQ(5, try_read(at(ring, 100)));
	EXPECT_EQ(1, nr_mapped(slot(30), granule()));
	EXPECT_INTACT();
}

/* shmdt() looks for the rest of a segment behind the address. */
TEST_F(hooks, shmdt_in_a_region_finds_no_segment_behind_it)
{
	const char *name = new_name();
	size_t len = granule();
	void *rest = at(slot(32), len);
	int id = shmget(IPC_PRIVATE, len + page(), IPC_CREAT | 0600 | SHM_NORESERVE);

	if (id < 0)
		SKIP(return, "no segment of that size");
	ASSERT_EQ(slot(32), shmat(id, slot(32), 0));
	shmctl(id, IPC_RMID, NULL);
	ASSERT_EQ(0, try_write(rest, 7));
	ASSERT_OK(munmap(slot(32), len));
	ASSERT_OK(create(name, slot(32), len));
	EXPECT_ERR(EINVAL, shmdt(slot(32)));
	EXPECT_EQ(7, try_read(rest));
	ASSERT_OK(munmap(slot(32), len));
	/* As it does where there is no region. */
	EXPECT_OK(shmdt(slot(32)));
	EXPECT_EQ(FAULT(SIGSEGV, SEGV_MAPERR), try_read(rest));
}

MSHARE_TEST_MAIN
