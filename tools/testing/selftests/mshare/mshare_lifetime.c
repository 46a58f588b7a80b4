// SPDX-License-Identifier: GPL-2.0
/*
 * Who is attached, for how long, and what is left: fork, exec, exit and kill,
 * the creator's death, names, descriptors, and that memory goes at the end.
 */
#include <linux/sched.h>
#include "mshare_env.h"

#define RW	(PROT_READ | PROT_WRITE)

FIXTURE(life)
{
	const char *name;
	void *addr;
	size_t len;
	struct peer a, b;
	long memory;		/* before anything was made, kB */
};

static size_t pages(size_t n)
{
	return n * page();
}

/* Anonymous and shmem memory and page tables in kB, wherever they are. */
static long used_memory(void)
{
	return meminfo("AnonPages") + meminfo("Shmem") + meminfo("PageTables");
}

static bool memory_back_to(long before, long slack)
{
	return WAIT_FOR(used_memory() < before + slack, 30);
}

FIXTURE_SETUP(life)
{
	self->name = new_name();
	self->addr = slot(0);
	self->len = granule();
	ASSERT_EQ(0, peer_start(&self->a));
	ASSERT_EQ(0, peer_start(&self->b));
	self->memory = used_memory();
}

FIXTURE_TEARDOWN(life)
{
	peer_stop(&self->a);
	peer_stop(&self->b);
	munmap(self->addr, self->len);
	remove_names();
}

/* Maps @len bytes and writes to every page what page_byte() says. */
static int page_byte(size_t i)
{
	return (i * 7 + 3) & 0xff;
}

static int populate(void *addr, size_t len, int sharing)
{
	size_t i;

	if (map_anon(addr, len, sharing) == MAP_FAILED)
		return -1;
	for (i = 0; i < len / page(); i++)
		if (try_write(at(addr, pages(i)), page_byte(i)))
			return -1;
	return 0;
}

/* How many pages do not hold what populate() wrote. */
static long nr_wrong(void *addr, size_t len)
{
	long bad = 0;
	size_t i;

	for (i = 0; i < len / page(); i++)
		if (try_read(at(addr, pages(i))) != page_byte(i))
			bad++;
	return bad;
}

static long do_populate(const struct request *rq)
{
	return populate((void *)rq->a[0], rq->a[1], rq->a[2]);
}

static long do_check(const struct request *rq)
{
	return nr_wrong((void *)rq->a[0], rq->a[1]);
}

TEST_F(life, fork_attaches_the_child)
{
	void *p = self->addr, *q = at(p, MB);
	struct peer child;

	ASSERT_OK(create(self->name, p, self->len));
	ASSERT_OK(map_anon(p, pages(2), MAP_PRIVATE));
	ASSERT_EQ(0, try_write(p, 1));
	ASSERT_EQ(0, peer_start(&child));
	/* Both ways, private memory too, touched before the fork or not. */
	EXPECT_EQ(1, peer_read(&child, p));
	EXPECT_EQ(0, peer_write(&child, p, 2));
	EXPECT_EQ(2, try_read(p));
	EXPECT_EQ(0, try_write(at(p, page()), 3));
	EXPECT_EQ(3, peer_read(&child, at(p, page())));
	EXPECT_EQ(q, peer_mmap(&child, q, page(), RW,
			       MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0));
	EXPECT_EQ(0, peer_write(&child, q, 4));
	EXPECT_EQ(4, try_read(q));
	ASSERT_OK(munmap(p, page()));
	EXPECT_EQ(PAGE_HOLE, peer_state(&child, p));
	EXPECT_EQ(1, PEER(&child, do_nr_mapped, NULL, L(p), self->len));
	/* The child is a user like any other. */
	ASSERT_OK(munmap(p, self->len));
	EXPECT_ERR(EBUSY, mshare_unlink(self->name));
	EXPECT_EQ(4, peer_read(&child, q));
	peer_stop(&child);
	EXPECT_OK(mshare_unlink(self->name));
}

TEST_F(life, detaching_in_the_child_leaves_the_parent_attached)
{
	struct peer child;

	ASSERT_OK(create(self->name, self->addr, self->len));
	ASSERT_OK(populate(self->addr, pages(4), MAP_PRIVATE));
	ASSERT_EQ(0, peer_start(&child));
	ASSERT_OK(peer_munmap(&child, self->addr, self->len));
	EXPECT_EQ(PAGE_NONE, peer_state(&child, self->addr));
	EXPECT_EQ(0, nr_wrong(self->addr, pages(4)));
	ASSERT_OK(peer_attach(&child, self->name));
	EXPECT_EQ(0, PEER(&child, do_check, NULL, L(self->addr), pages(4)));
	peer_stop(&child);
	EXPECT_EQ(0, nr_wrong(self->addr, pages(4)));
}

TEST_F(life, grandchildren_are_attached_when_the_middle_is_gone)
{
	int fds[2], status;
	pid_t child;
	char c = 0;

	ASSERT_OK(pipe(fds));
	ASSERT_OK(create(self->name, self->addr, self->len));
	ASSERT_OK(populate(self->addr, pages(4), MAP_SHARED));
	child = fork();
	if (!child) {
		if (!fork()) {
			usleep(100000);
			c = nr_wrong(self->addr, pages(4)) ? 'n' : 'y';
			try_write(self->addr, 200);
			if (write(fds[1], &c, 1) != 1)
				_exit(1);
		}
		_exit(0);
	}
	ASSERT_EQ(child, waitpid(child, &status, 0));
	ASSERT_EQ(1, read(fds[0], &c, 1));
	EXPECT_EQ('y', c);
	EXPECT_EQ(200, try_read(self->addr));
}

static int write_77(void *arg)
{
	return try_write(arg, 77) ? 1 : 0;
}

static void *write_78(void *arg)
{
	try_write(arg, 78);
	return NULL;
}

/* Those share the mm: nothing is attached, nothing detached at their end. */
TEST_F(life, vfork_clone_vm_and_threads_share_the_attachment)
{
	char *stack = malloc(65536);
	pthread_t thread;
	pid_t child;
	int status;

	ASSERT_OK(create(self->name, self->addr, self->len));
	ASSERT_OK(populate(self->addr, page(), MAP_PRIVATE));
	child = vfork();
	if (!child) {
		*(volatile unsigned char *)self->addr = 55;
		_exit(0);
	}
	ASSERT_EQ(child, waitpid(child, &status, 0));
	EXPECT_EQ(0, status);
	EXPECT_EQ(55, try_read(self->addr));
	/* As vfork(), so that no two tasks share thread-local storage at once. */
	child = clone(write_77, stack + 65536,
		      CLONE_VM | CLONE_VFORK | SIGCHLD, self->addr);
	ASSERT_LT(0, child);
	ASSERT_EQ(child, waitpid(child, &status, 0));
	EXPECT_EQ(0, status);
	EXPECT_EQ(77, try_read(self->addr));
	ASSERT_EQ(0, pthread_create(&thread, NULL, write_78, self->addr));
	ASSERT_EQ(0, pthread_join(thread, NULL));
	EXPECT_EQ(78, try_read(self->addr));
	EXPECT_EQ(1, nr_mapped(self->addr, self->len));
	EXPECT_ERR(EBUSY, peer_unlink(&self->a, self->name));
	free(stack);
}

/* Forks, executes a program that stays, and returns when it runs. */
static pid_t spawn_program(const char *path)
{
	int fds[2];
	pid_t child;
	char c;

	if (pipe2(fds, O_CLOEXEC))
		return -1;
	child = fork_bound();
	if (!child) {
		execl(path, "sleep", "1000", (char *)NULL);
		_exit(127);
	}
	close(fds[1]);
	/* End of file: the descriptor was closed by exec. */
	if (read(fds[0], &c, 1)) {
		/* nothing is ever written */
	}
	close(fds[0]);
	return child;
}

static long do_spawn(const struct request *rq)
{
	return spawn_program(rq->s);
}

static bool maps_have(pid_t pid, const char *text)
{
	char path[64], line[PATH_MAX];
	bool found = false;
	FILE *f;

	snprintf(path, sizeof(path), "/proc/%d/maps", pid);
	f = fopen(path, "re");
	while (f && fgets(line, sizeof(line), f))
		if (strstr(line, text))
			found = true;
	if (f)
		fclose(f);
	return found;
}

TEST_F(life, exec_detaches)
{
	pid_t child;

	ASSERT_OK(peer_create(&self->a, self->name, self->addr, self->len));
	child = PEER(&self->a, do_spawn, "/bin/sleep", 0);
	ASSERT_LT(0, child);
	EXPECT_TRUE(maps_have(child, "sleep"));
	EXPECT_FALSE(maps_have(child, self->name));
	EXPECT_TRUE(maps_have(self->a.pid, self->name));
	ASSERT_OK(peer_munmap(&self->a, self->addr, self->len));
	/* The program runs on and is no user. */
	EXPECT_OK(mshare_unlink(self->name));
	EXPECT_EQ(0, kill(child, SIGKILL));
}

static long do_exec_self(const struct request *rq)
{
	execl(rq->s, "sleep", "1000", (char *)NULL);
	return -1;
}

TEST_F(life, an_exec_that_fails_leaves_the_process_attached)
{
	ASSERT_OK(peer_create(&self->a, self->name, self->addr, self->len));
	ASSERT_OK(PEER(&self->a, do_populate, NULL, L(self->addr), pages(2),
		       MAP_PRIVATE));
	EXPECT_ERR(ENOENT, PEER(&self->a, do_exec_self, "/nonexistent", 0));
	EXPECT_ERR(EACCES, PEER(&self->a, do_exec_self, "/etc/passwd", 0));
	EXPECT_EQ(0, PEER(&self->a, do_check, NULL, L(self->addr), pages(2)));
	EXPECT_ERR(EBUSY, mshare_unlink(self->name));
}

TEST_F(life, a_killed_process_is_detached_when_it_is_reaped)
{
	ASSERT_OK(peer_create(&self->a, self->name, self->addr, self->len));
	ASSERT_OK(peer_attach(&self->b, self->name));
	EXPECT_ERR(EBUSY, mshare_unlink(self->name));
	peer_stop(&self->a);
	EXPECT_ERR(EBUSY, mshare_unlink(self->name));
	peer_stop(&self->b);
	EXPECT_TRUE(WAIT_FOR(unlink_stale(self->name), 5));
}

TEST_F(life, the_region_is_there_when_its_creator_died_before_anyone_came)
{
	ASSERT_OK(peer_create(&self->a, self->name, self->addr, self->len));
	ASSERT_OK(PEER(&self->a, do_populate, NULL, L(self->addr), MB, MAP_PRIVATE));
	ASSERT_OK(PEER(&self->a, do_populate, NULL, L(at(self->addr, GB)), MB,
		       MAP_SHARED));
	peer_stop(&self->a);
	EXPECT_TRUE(name_exists(self->name));
	ASSERT_OK(peer_attach(&self->b, self->name));
	EXPECT_EQ(0, PEER(&self->b, do_check, NULL, L(self->addr), MB));
	EXPECT_EQ(0, PEER(&self->b, do_check, NULL, L(at(self->addr, GB)), MB));
	/* And it can be worked in. */
	ASSERT_OK(attach(self->name));
	ASSERT_OK(PEER(&self->b, do_populate, NULL, L(at(self->addr, 2 * GB)), MB,
		       MAP_PRIVATE));
	EXPECT_EQ(0, nr_wrong(at(self->addr, 2 * GB), MB));
	EXPECT_EQ(0, try_write(self->addr, 1));
	EXPECT_EQ(1, peer_read(&self->b, self->addr));
}

TEST_F(life, the_region_is_there_when_its_creator_died_after_others_came)
{
	ASSERT_OK(peer_create(&self->a, self->name, self->addr, self->len));
	ASSERT_OK(peer_attach(&self->b, self->name));
	ASSERT_OK(PEER(&self->a, do_populate, NULL, L(self->addr), MB, MAP_PRIVATE));
	EXPECT_EQ(page_byte(0), peer_read(&self->b, self->addr));
	peer_stop(&self->a);
	EXPECT_EQ(0, PEER(&self->b, do_check, NULL, L(self->addr), MB));
	ASSERT_OK(PEER(&self->b, do_populate, NULL, L(at(self->addr, GB)), MB,
		       MAP_PRIVATE));
	ASSERT_OK(attach(self->name));
	EXPECT_EQ(0, nr_wrong(at(self->addr, GB), MB));
	ASSERT_OK(munmap(at(self->addr, GB), MB));
	EXPECT_EQ(PAGE_HOLE, peer_state(&self->b, at(self->addr, GB)));
}

static long do_attach_loop(const struct request *rq)
{
	void *addr = (void *)rq->a[0];
	size_t len = rq->a[1];
	long n = rq->a[2], i;

	for (i = 0; i < n; i++) {
		if (attach(rq->s))
			return -1;
		if (nr_wrong(addr, pages(4)))
			return 1;
		if (munmap(addr, len))
			return -1;
	}
	return 0;
}

/* The creator dies while others come and go. */
TEST_F_TIMEOUT(life, the_creator_may_die_while_others_attach, SHORT_TIMEOUT)
{
	long rounds = scaled(20), i;
	unsigned int seed = test_seed();

	TH_LOG("seed %u", seed);
	for (i = 0; i < rounds; i++) {
		const char *name = new_name();
		struct peer creator;

		ASSERT_EQ(0, peer_start(&creator));
		ASSERT_OK(peer_create(&creator, name, self->addr, self->len));
		ASSERT_OK(PEER(&creator, do_populate, NULL, L(self->addr), pages(4),
			       i & 1 ? MAP_PRIVATE : MAP_SHARED));
		PEER_SEND(&self->a, do_attach_loop, name, L(self->addr), self->len, 30);
		PEER_SEND(&self->b, do_attach_loop, name, L(self->addr), self->len, 30);
		usleep(rand_r(&seed) % 3000);
		peer_stop(&creator);
		ASSERT_EQ(0, peer_wait(&self->a)) {
			TH_LOG("%s", strerror(errno));
		}
		ASSERT_EQ(0, peer_wait(&self->b));
		ASSERT_OK(mshare_unlink(name));
	}
}

TEST_F_TIMEOUT(life, a_name_keeps_the_region_and_its_end_frees_it, SHORT_TIMEOUT)
{
	ASSERT_OK(create(self->name, self->addr, self->len));
	ASSERT_OK(populate(self->addr, 16 * MB, MAP_PRIVATE));
	ASSERT_OK(populate(at(self->addr, GB), 16 * MB, MAP_SHARED));
	ASSERT_OK(munmap(self->addr, self->len));
	EXPECT_LT(self->memory + 28 * 1024, used_memory());
	ASSERT_OK(attach(self->name));
	EXPECT_EQ(0, nr_wrong(self->addr, 16 * MB));
	EXPECT_EQ(0, nr_wrong(at(self->addr, GB), 16 * MB));
	ASSERT_OK(mshare_unlink(self->name));
	EXPECT_TRUE(memory_back_to(self->memory, 4 * 1024)) {
		TH_LOG("%ld kB before, %ld kB after", self->memory, used_memory());
	}
}

TEST_F_TIMEOUT(life, a_user_keeps_a_nameless_region_and_its_end_frees_it,
	       SHORT_TIMEOUT)
{
	ASSERT_OK(create(self->name, self->addr, self->len));
	ASSERT_OK(populate(self->addr, 16 * MB, MAP_PRIVATE));
	ASSERT_OK(populate(at(self->addr, GB), 16 * MB, MAP_SHARED));
	ASSERT_OK(peer_attach(&self->a, self->name));
	ASSERT_OK(unlink(path_of(self->name)));
	ASSERT_OK(munmap(self->addr, self->len));
	EXPECT_ERR(ENOENT, attach(self->name));
	EXPECT_EQ(0, PEER(&self->a, do_check, NULL, L(self->addr), 16 * MB));
	ASSERT_OK(PEER(&self->a, do_populate, NULL, L(at(self->addr, 2 * GB)), MB,
		       MAP_PRIVATE));
	EXPECT_LT(self->memory + 28 * 1024, used_memory());
	peer_stop(&self->a);
	EXPECT_TRUE(memory_back_to(self->memory, 4 * 1024)) {
		TH_LOG("%ld kB before, %ld kB after", self->memory, used_memory());
	}
}

TEST_F_TIMEOUT(life, an_open_descriptor_keeps_a_region_and_its_end_frees_it,
	       SHORT_TIMEOUT)
{
	__u64 info[2];
	struct stat st;
	int fd;

	ASSERT_OK(create(self->name, self->addr, self->len));
	fd = open(path_of(self->name), O_RDONLY);
	ASSERT_LE(0, fd);
	ASSERT_OK(populate(self->addr, 16 * MB, MAP_PRIVATE));
	ASSERT_OK(mshare_unlink(self->name));
	EXPECT_FALSE(name_exists(self->name));
	EXPECT_LT(self->memory + 12 * 1024, used_memory());
	ASSERT_EQ(16, pread(fd, info, 16, 0));
	EXPECT_EQ((__u64)self->addr, info[0]);
	EXPECT_EQ((__u64)self->len, info[1]);
	ASSERT_OK(fstat(fd, &st));
	EXPECT_EQ(0U, st.st_nlink);
	EXPECT_LT(12 * 2048, st.st_blocks);
	close(fd);
	EXPECT_TRUE(memory_back_to(self->memory, 4 * 1024)) {
		TH_LOG("%ld kB before, %ld kB after", self->memory, used_memory());
	}
}

TEST_F_TIMEOUT(life, files_mapped_inside_live_as_long_as_the_region, SHORT_TIMEOUT)
{
	int fd = memfd_create("mshare", 0);
	size_t size = 16 * MB, i;

	ASSERT_OK(create(self->name, self->addr, self->len));
	ASSERT_OK(ftruncate(fd, size));
	ASSERT_OK(mmap(self->addr, size, RW, MAP_SHARED | MAP_FIXED, fd, 0));
	close(fd);
	for (i = 0; i < size; i += page()) {
		ASSERT_EQ(0, try_write(at(self->addr, i), 5));
	}
	ASSERT_OK(munmap(self->addr, self->len));
	EXPECT_LT(self->memory + 12 * 1024, used_memory());
	ASSERT_OK(peer_attach(&self->a, self->name));
	EXPECT_EQ(5, peer_read(&self->a, at(self->addr, size - 1 - page() + 1)));
	ASSERT_OK(peer_unlink(&self->a, self->name));
	EXPECT_TRUE(memory_back_to(self->memory, 4 * 1024)) {
		TH_LOG("%ld kB before, %ld kB after", self->memory, used_memory());
	}
}

/* 500 at once, half of them forked, half come by name. */
TEST_F_TIMEOUT(life, five_hundred_processes_are_attached, LONG_TIMEOUT)
{
	const int n = 500;
	const size_t size = 16 * MB;	/* 32 kB of page tables */
	struct peer *p = calloc(n, sizeof(*p));
	long before, idle, peak;
	int i;

	before = meminfo("PageTables");
	for (i = 0; i < n / 2; i++) {
		ASSERT_EQ(0, peer_start(&p[i]));
	}
	ASSERT_OK(create(self->name, self->addr, self->len));
	ASSERT_OK(populate(self->addr, size, MAP_SHARED));
	for (; i < n; i++) {
		ASSERT_EQ(0, peer_start(&p[i]));
	}
	idle = meminfo("PageTables");
	for (i = 0; i < n / 2; i++) {
		ASSERT_OK(peer_attach(&p[i], self->name));
	}
	/* All read everything at once. */
	for (i = 0; i < n; i++) {
		PEER_SEND(&p[i], do_check, NULL, L(self->addr), size);
	}
	for (i = 0; i < n; i++) {
		ASSERT_EQ(0, peer_wait(&p[i])) {
			TH_LOG("process %d", i);
		}
	}
	peak = meminfo("PageTables");
	TH_LOG("page tables, kB: %ld before, %ld with %d processes, %ld when they have read %ld MB each",
	       before, idle, n, peak, size / MB);
	EXPECT_GT(n * 12, peak - idle);
	/* What one changes the others see. */
	ASSERT_EQ(0, peer_write(&p[17], at(self->addr, 123), 17));
	ASSERT_OK(peer_munmap(&p[n - 5], at(self->addr, MB), page()));
	for (i = 0; i < n; i += 7) {
		ASSERT_EQ(17, peer_read(&p[i], at(self->addr, 123)));
		ASSERT_EQ(PAGE_HOLE, peer_state(&p[i], at(self->addr, MB)));
	}
	EXPECT_ERR(EBUSY, peer_unlink(&self->a, self->name));
	/* Half of them go; the tables are still there for the rest. */
	for (i = 0; i < n; i += 2) {
		peer_stop(&p[i]);
	}
	for (i = 1; i < n; i += 50) {
		ASSERT_EQ(17, peer_read(&p[i], at(self->addr, 123)));
	}
	for (i = 1; i < n; i += 2) {
		peer_stop(&p[i]);
	}
	EXPECT_EQ(17, try_read(at(self->addr, 123)));
	ASSERT_OK(mshare_unlink(self->name));
	free(p);
}

static long do_read_all(const struct request *rq)
{
	long i, sum = 0;

	for (i = 0; i < rq->a[1]; i += page())
		sum += try_read((void *)(rq->a[0] + i)) == page_byte(i / page());
	return sum;
}

/* Page tables that @n processes cost when they have read the range at @p. */
static long tables_of(struct __test_metadata *_metadata, int n, void *p,
		      size_t size)
{
	struct peer *peers = calloc(n, sizeof(*peers));
	long before = meminfo("PageTables"), after;
	int i;

	for (i = 0; i < n; i++) {
		ASSERT_EQ(0, peer_start(&peers[i]));
		if (p) {
			ASSERT_EQ((long)(size / page()),
				  PEER(&peers[i], do_read_all, NULL, L(p), size));
		} else {
			ASSERT_EQ(0, PEER(&peers[i], do_read_all, NULL, 0, 0));
		}
	}
	after = meminfo("PageTables");
	for (i = 0; i < n; i++) {
		peer_stop(&peers[i]);
	}
	free(peers);
	return after - before;
}

TEST_F_TIMEOUT(life, page_tables_are_paid_once, LONG_TIMEOUT)
{
	const int n = 20;
	const size_t size = 32 * MB;	/* 64 kB of page tables */
	void *own = slot(9);
	long idle, shared, separate;

	ASSERT_OK(populate(own, size, MAP_SHARED));
	ASSERT_OK(create(self->name, self->addr, self->len));
	ASSERT_OK(populate(self->addr, size, MAP_SHARED));
	idle = tables_of(_metadata, n, NULL, 0);
	shared = tables_of(_metadata, n, self->addr, size);
	separate = tables_of(_metadata, n, own, size);
	TH_LOG("%d processes: idle %ld kB, region %ld kB, shared memory %ld kB",
	       n, idle, shared, separate);
	/* At most a page each more than idle; shared memory costs 64 kB each. */
	EXPECT_GE(idle + n * 8, shared);
	EXPECT_LE(idle + n * 56, separate);
	munmap(own, size);
}

static long do_cycles(const struct request *rq)
{
	void *addr = (void *)rq->a[0];
	size_t len = rq->a[1];
	long n = rq->a[2], i;

	for (i = 0; i < n; i++) {
		if (attach(rq->s) || try_read(addr) != page_byte(0))
			return -1;
		switch (i % 3) {
		case 0:
			if (munmap(addr, len))
				return -1;
			break;
		case 1:
			if (mmap(addr, len, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS |
				 MAP_NORESERVE | MAP_FIXED, -1, 0) == MAP_FAILED ||
			    munmap(addr, len))
				return -1;
			break;
		case 2:
			if (mshare_unlink(rq->s))
				return -1;
			break;
		}
		if (try_read(addr) != FAULT(SIGSEGV, SEGV_MAPERR))
			return 1;
	}
	return 0;
}

/* What a loop of @n may seem to have lost in kB, where a leak would be more. */
static long noise(long n)
{
	return 2 * n < 4096 ? 4096 : 2 * n;
}

static long kernel_memory(void)
{
	return used_memory() + slab_memory() + meminfo("KernelStack");
}

TEST_F_TIMEOUT(life, attaching_and_detaching_leaks_nothing, LONG_TIMEOUT)
{
	long n = scaled(2000), before, after = 0;

	ASSERT_OK(create(self->name, self->addr, self->len));
	ASSERT_OK(populate(self->addr, pages(2), MAP_SHARED));
	ASSERT_EQ(0, PEER(&self->a, do_cycles, self->name, L(self->addr), self->len,
			  n / 10));
	before = kernel_memory();
	PEER_SEND(&self->b, do_cycles, self->name, L(self->addr), self->len, n);
	ASSERT_EQ(0, PEER(&self->a, do_cycles, self->name, L(self->addr), self->len,
			  n)) {
		TH_LOG("%s", strerror(errno));
	}
	ASSERT_EQ(0, peer_wait(&self->b));
	/* A page a cycle would be 16,000 kB. */
	EXPECT_TRUE(WAIT_FOR((after = kernel_memory()) < before + noise(n), 30)) {
		TH_LOG("%ld kB before, %ld kB after", before, after);
	}
}

static long do_region_cycles(const struct request *rq)
{
	void *addr = (void *)rq->a[0];
	size_t len = rq->a[1];
	long n = rq->a[2], i;

	for (i = 0; i < n; i++) {
		if (mshare(rq->s, addr, len, O_RDWR | O_CREAT | O_EXCL, 0600))
			return -1;
		/* In turn: empty, content, content all over. */
		if (i % 3 && populate(addr, pages(4), MAP_PRIVATE))
			return -1;
		if (i % 3 == 2 && populate(at(addr, len - MB), pages(4), MAP_SHARED))
			return -1;
		if (i & 1) {
			if (mshare_unlink(rq->s))
				return -1;
		} else if (unlink(path_of(rq->s)) || munmap(addr, len)) {
			return -1;
		}
	}
	return 0;
}

TEST_F_TIMEOUT(life, creating_and_destroying_leaks_nothing, LONG_TIMEOUT)
{
	long n = scaled(1000), before, after = 0;
	const char *other = new_name();

	ASSERT_EQ(0, PEER(&self->a, do_region_cycles, self->name, L(self->addr),
			  self->len, n / 10));
	before = kernel_memory();
	PEER_SEND(&self->b, do_region_cycles, other, L(self->addr), 3 * self->len, n);
	ASSERT_EQ(0, PEER(&self->a, do_region_cycles, self->name, L(self->addr),
			  self->len, n)) {
		TH_LOG("%s", strerror(errno));
	}
	ASSERT_EQ(0, peer_wait(&self->b)) {
		TH_LOG("%s", strerror(errno));
	}
	EXPECT_TRUE(WAIT_FOR((after = kernel_memory()) < before + noise(n), 30)) {
		TH_LOG("%ld kB before, %ld kB after", before, after);
	}
	EXPECT_FALSE(name_exists(self->name));
	EXPECT_FALSE(name_exists(other));
}

/* Storms. */

/* Does whatever a user of the region @name may do, until it is killed. */
static void storm(const char *name, void *addr, size_t len, unsigned int seed)
{
	bool attached = false;

	for (;;) {
		void *p = at(addr, pages(rand_r(&seed) % 64));
		size_t n = pages(1 + rand_r(&seed) % 8);
		pid_t child;
		int i;

		switch (rand_r(&seed) % 12) {
		case 0:
			munmap(addr, len);
			attached = false;
			break;
		case 1:
			map_anon(p, n, MAP_PRIVATE);
			break;
		case 2:
			map_anon(p, n, MAP_SHARED);
			break;
		case 3:
			munmap(p, n);
			break;
		case 4:
			mprotect(p, n, PROT_READ);
			break;
		case 5:
			mprotect(p, n, RW);
			break;
		case 6:
			child = fork_bound();
			if (!child) {
				for (i = 0; i < 20; i++)
					try_write(at(addr, pages(rand_r(&seed) % 64)), i);
				if (rand_r(&seed) & 1)
					for (;;)
						try_read(p);
				_exit(0);
			}
			if (child > 0) {
				usleep(rand_r(&seed) % 1000);
				kill(child, SIGKILL);
				waitpid(child, NULL, 0);
			}
			break;
		case 7:
			mshare_unlink(name);
			attached = false;
			break;
		default:
			for (i = 0; i < 20; i++)
				try_write(at(addr, pages(rand_r(&seed) % 64)), i);
		}
		if (!attached)
			attached = !mshare(name, addr, len, O_RDWR | O_CREAT, 0600) ||
				   errno == EBUSY;
		/* Without a region the calls above would map memory of our own. */
		while (!attached) {
			munmap(addr, len);
			attached = !mshare(name, addr, len, O_RDWR | O_CREAT, 0600);
		}
	}
}

TEST_F_TIMEOUT(life, processes_may_be_killed_at_any_moment, LONG_TIMEOUT)
{
	const int n = 12;
	unsigned int seed = test_seed();
	pid_t pids[12] = { 0 };
	long kills = 0, before = kernel_memory(), after = 0;
	double end = now() + 4.0 * scaled(10) / 10;
	int i, status;

	TH_LOG("seed %u", seed);
	while (now() < end || kills < 6) {
		i = rand_r(&seed) % n;
		if (pids[i]) {
			ASSERT_EQ(0, kill(pids[i], SIGKILL));
			ASSERT_EQ(pids[i], waitpid(pids[i], &status, 0));
			/* It was alive and did not crash before. */
			ASSERT_TRUE(WIFSIGNALED(status));
			ASSERT_EQ(SIGKILL, WTERMSIG(status));
			kills++;
		}
		pids[i] = fork_bound();
		if (!pids[i])
			storm(self->name, self->addr, self->len, rand_r(&seed));
		usleep(rand_r(&seed) % 5000);
	}
	for (i = 0; i < n; i++) {
		if (pids[i]) {
			kill(pids[i], SIGKILL);
			waitpid(pids[i], NULL, 0);
		}
	}
	TH_LOG("%ld processes killed", kills);
	/* Whatever happened, the name can go and the memory with it. */
	if (name_exists(self->name)) {
		EXPECT_TRUE(WAIT_FOR(unlink_stale(self->name), 10)) {
			TH_LOG("%s", strerror(errno));
		}
	}
	EXPECT_TRUE(WAIT_FOR((after = kernel_memory()) < before + 8 * 1024, 30)) {
		TH_LOG("%ld kB before, %ld kB after", before, after);
	}
	ASSERT_OK(create(self->name, self->addr, self->len));
	EXPECT_OK(populate(self->addr, pages(4), MAP_PRIVATE));
}

struct fork_storm {
	atomic_int stop;
	atomic_long forks, bad;
};

static void *fork_thread(void *arg)
{
	struct fork_storm *f = arg;
	pid_t child;
	int status;

	while (!atomic_load(&f->stop)) {
		child = fork();
		if (!child) {
			/* Attached or not: the region's page, or nothing. */
			long r = try_read(slot(0));

			_exit(r == page_byte(0) ||
			      r == FAULT(SIGSEGV, SEGV_MAPERR) ? 0 : 1);
		}
		if (child < 0)
			continue;
		waitpid(child, &status, 0);
		atomic_fetch_add(&f->forks, 1);
		if (status)
			atomic_fetch_add(&f->bad, 1);
	}
	return NULL;
}

/* Other threads attach and detach while this one forks. */
TEST_F_TIMEOUT(life, forking_races_with_attaching_and_detaching, LONG_TIMEOUT)
{
	struct fork_storm f = { 0 };
	pthread_t thread[2];
	double end;
	long n = 0;
	int i;

	ASSERT_OK(peer_create(&self->a, self->name, self->addr, self->len));
	ASSERT_OK(PEER(&self->a, do_populate, NULL, L(self->addr), pages(2),
		       MAP_PRIVATE));
	for (i = 0; i < 2; i++) {
		ASSERT_EQ(0, pthread_create(&thread[i], NULL, fork_thread, &f));
	}
	end = now() + 3.0 * scaled(10) / 10;
	while (now() < end || atomic_load(&f.forks) < 4) {
		ASSERT_OK(attach(self->name));
		ASSERT_EQ(page_byte(0), try_read(self->addr));
		if (n & 1) {
			ASSERT_OK(mshare_unlink(self->name));
		} else {
			ASSERT_OK(munmap(self->addr, self->len));
		}
		ASSERT_EQ(FAULT(SIGSEGV, SEGV_MAPERR), try_read(self->addr));
		n++;
	}
	atomic_store(&f.stop, 1);
	for (i = 0; i < 2; i++) {
		pthread_join(thread[i], NULL);
	}
	TH_LOG("%ld forks, %ld times attached", atomic_load(&f.forks), n);
	EXPECT_EQ(0, atomic_load(&f.bad));
	EXPECT_EQ(0, PEER(&self->a, do_check, NULL, L(self->addr), pages(2)));
	peer_stop(&self->a);
	EXPECT_TRUE(WAIT_FOR(unlink_stale(self->name), 5));
}

struct detach_race {
	atomic_int stop;
	atomic_long reads, faults, bad;
	void *addr;
};

static void *read_thread(void *arg)
{
	struct detach_race *r = arg;
	long v;

	while (!atomic_load(&r->stop)) {
		v = try_read(r->addr);
		if (v == page_byte(0))
			atomic_fetch_add(&r->reads, 1);
		else if (v == FAULT(SIGSEGV, SEGV_MAPERR))
			atomic_fetch_add(&r->faults, 1);
		else
			atomic_fetch_add(&r->bad, 1);
	}
	return NULL;
}

/* An error from a region that is not there any more is not reported. */
TEST_F_TIMEOUT(life, threads_fault_while_one_attaches_and_detaches, SHORT_TIMEOUT)
{
	struct detach_race r = { .addr = self->addr };
	pthread_t thread[2];
	double end;
	int i;

	ASSERT_OK(peer_create(&self->a, self->name, self->addr, self->len));
	ASSERT_OK(PEER(&self->a, do_populate, NULL, L(self->addr), pages(2),
		       MAP_PRIVATE));
	for (i = 0; i < 2; i++) {
		ASSERT_EQ(0, pthread_create(&thread[i], NULL, read_thread, &r));
	}
	end = now() + 2.0 * scaled(10) / 10;
	while (now() < end) {
		ASSERT_OK(attach(self->name));
		ASSERT_OK(munmap(self->addr, self->len));
	}
	/* At the end once for sure each. */
	ASSERT_OK(attach(self->name));
	EXPECT_TRUE(WAIT_FOR(atomic_load(&r.reads), 10));
	ASSERT_OK(munmap(self->addr, self->len));
	EXPECT_TRUE(WAIT_FOR(atomic_load(&r.faults), 10));
	atomic_store(&r.stop, 1);
	for (i = 0; i < 2; i++) {
		pthread_join(thread[i], NULL);
	}
	EXPECT_EQ(0, atomic_load(&r.bad));
}

/* All that are attached exit at once, with the name gone already. */
TEST_F_TIMEOUT(life, a_nameless_region_goes_when_all_exit_at_once, SHORT_TIMEOUT)
{
	long rounds = scaled(10), round;
	int i;

	for (round = 0; round < rounds; round++) {
		const char *name = new_name();
		pid_t pids[16];

		ASSERT_OK(create(name, self->addr, self->len));
		ASSERT_OK(populate(self->addr, 2 * MB, MAP_PRIVATE));
		for (i = 0; i < 16; i++) {
			pids[i] = fork_bound();
			if (!pids[i]) {
				for (;;)
					nr_wrong(self->addr, 2 * MB);
			}
		}
		ASSERT_OK(unlink(path_of(name)));
		ASSERT_OK(munmap(self->addr, self->len));
		for (i = 0; i < 16; i++) {
			kill(pids[i], SIGKILL);
		}
		for (i = 0; i < 16; i++) {
			waitpid(pids[i], NULL, 0);
		}
	}
	EXPECT_TRUE(memory_back_to(self->memory, 4 * 1024)) {
		TH_LOG("%ld kB before, %ld kB after", self->memory, used_memory());
	}
}

MSHARE_TEST_MAIN
