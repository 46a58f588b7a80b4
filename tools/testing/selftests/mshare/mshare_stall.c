// SPDX-License-Identifier: GPL-2.0
/*
 * A page that never comes, of a file of a FUSE server that does not answer: who
 * wants it waits, and nobody else, neither in the region nor in the address space
 * of the process; and who waits can be killed.
 */
#include <linux/fuse.h>
#include <poll.h>
#include <pthread.h>
#include <sys/uio.h>
#include "mshare_env.h"

#define RW		(PROT_READ | PROT_WRITE)
#define NR_PAGES	4
#define FILE_ID		2
#define VALUE		0x5a

/* What the server and the test share */
struct server {
	atomic_bool hold;	/* reads are not answered */
	atomic_int held;	/* so many of them */
	pid_t pid;
	int fd;
	char dir[64];
};

static void reply(int fd, __u64 unique, int error, const void *data, size_t len)
{
	struct fuse_out_header out = {
		.len = sizeof(out) + len, .error = error, .unique = unique,
	};
	struct iovec iov[2] = { { &out, sizeof(out) }, { (void *)data, len } };

	/* Who wanted it may be gone. */
	if (writev(fd, iov, len ? 2 : 1) < 0 && errno != ENOENT)
		_exit(3);
}

static void attr_of(struct fuse_attr *attr, __u64 id)
{
	*attr = (struct fuse_attr){
		.ino = id,
		.mode = id == FILE_ID ? S_IFREG | 0600 : S_IFDIR | 0700,
		.size = id == FILE_ID ? NR_PAGES * page() : 0,
		.nlink = 1,
		.blksize = 4096,
	};
}

static void serve(struct server *s)
{
	static char buf[FUSE_MIN_READ_BUFFER + 65536], data[65536];
	struct { __u64 unique; __u32 size; } held[64];
	struct fuse_in_header *in = (void *)buf;
	void *arg = buf + sizeof(*in);
	struct pollfd pfd = { s->fd, POLLIN };
	int i, nr_held = 0;

	prctl(PR_SET_PDEATHSIG, SIGKILL);
	memset(data, VALUE, sizeof(data));
	for (;;) {
		if (!atomic_load(&s->hold)) {
			for (i = 0; i < nr_held; i++)
				reply(s->fd, held[i].unique, 0, data, held[i].size);
			nr_held = 0;
			atomic_store(&s->held, 0);
		}
		if (poll(&pfd, 1, 10) <= 0)
			continue;
		if (read(s->fd, buf, sizeof(buf)) < 0) {
			if (errno == ENODEV)
				_exit(0);
			continue;
		}
		switch (in->opcode) {
		case FUSE_INIT: {
			struct fuse_init_in *init = arg;
			struct fuse_init_out out = {
				.major = FUSE_KERNEL_VERSION,
				.minor = FUSE_KERNEL_MINOR_VERSION,
				.max_readahead = init->max_readahead,
				.flags = FUSE_ASYNC_READ,
				.max_background = 64,
				.congestion_threshold = 64,
				.max_write = 65536,
			};

			if (init->minor < out.minor)
				out.minor = init->minor;
			reply(s->fd, in->unique, 0, &out, sizeof(out));
			break;
		}
		case FUSE_LOOKUP: {
			struct fuse_entry_out out = {
				.nodeid = FILE_ID, .entry_valid = 3600,
				.attr_valid = 3600,
			};

			attr_of(&out.attr, FILE_ID);
			reply(s->fd, in->unique, 0, &out, sizeof(out));
			break;
		}
		case FUSE_GETATTR: {
			struct fuse_attr_out out = { .attr_valid = 3600 };

			attr_of(&out.attr, in->nodeid);
			reply(s->fd, in->unique, 0, &out, sizeof(out));
			break;
		}
		case FUSE_OPEN: {
			struct fuse_open_out out = { .fh = 1 };

			reply(s->fd, in->unique, 0, &out, sizeof(out));
			break;
		}
		case FUSE_READ: {
			struct fuse_read_in *rd = arg;

			if (atomic_load(&s->hold) && nr_held < 64) {
				held[nr_held].unique = in->unique;
				held[nr_held++].size = rd->size;
				atomic_store(&s->held, nr_held);
			} else {
				reply(s->fd, in->unique, 0, data, rd->size);
			}
			break;
		}
		case FUSE_FLUSH:
		case FUSE_RELEASE:
		case FUSE_FSYNC:
			reply(s->fd, in->unique, 0, NULL, 0);
			break;
		case FUSE_FORGET:
		case FUSE_BATCH_FORGET:
		case FUSE_INTERRUPT:
			break;
		default:
			reply(s->fd, in->unique, -ENOSYS, NULL, 0);
		}
	}
}

/* Returns why there is none. */
static const char *server_start(struct server *s)
{
	char opts[128];

	strcpy(s->dir, "/tmp/mshare-stall-XXXXXX");
	s->fd = open("/dev/fuse", O_RDWR | O_CLOEXEC);
	if (s->fd < 0)
		return "no /dev/fuse";
	if (!mkdtemp(s->dir))
		return "no directory to mount at";
	snprintf(opts, sizeof(opts), "fd=%d,rootmode=40000,user_id=0,group_id=0",
		 s->fd);
	if (mount("mshare_stall", s->dir, "fuse", 0, opts)) {
		rmdir(s->dir);
		return "cannot mount a FUSE file system";
	}
	s->pid = fork();
	if (!s->pid)
		serve(s);
	return s->pid < 0 ? "cannot fork" : NULL;
}

static void server_end(struct server *s)
{
	if (s->pid > 0) {
		atomic_store(&s->hold, false);
		umount2(s->dir, MNT_DETACH);
		kill(s->pid, SIGKILL);
		waitpid(s->pid, NULL, 0);
		rmdir(s->dir);
	}
	if (s->fd >= 0)
		close(s->fd);
}

/* Ways to want a page. Each returns its first byte, or a FAULT() or -errno. */

static long by_touching(void *p, pid_t pid __maybe_unused)
{
	return try_read(p);
}

/* The page goes into a pipe, by write(2) or vmsplice(2). */
static long through_pipe(void *p, bool splice)
{
	struct iovec iov = { p, 1 };
	unsigned char c = 0;
	int fds[2];
	long ret;

	if (pipe(fds))
		return -errno;
	ret = splice ? vmsplice(fds[1], &iov, 1, 0) : write(fds[1], p, 1);
	if (ret == 1)
		ret = read(fds[0], &c, 1) == 1 ? c : -1;
	else
		ret = -errno;
	close(fds[0]);
	close(fds[1]);
	return ret;
}

static long by_system_call(void *p, pid_t pid __maybe_unused)
{
	return through_pipe(p, false);
}

static long by_vmsplice(void *p, pid_t pid __maybe_unused)
{
	return through_pipe(p, true);
}

static long by_process_vm(void *p, pid_t pid)
{
	unsigned char c = 0;
	struct iovec local = { &c, 1 }, remote = { p, 1 };

	return process_vm_readv(pid, &local, 1, &remote, 1, 0) == 1 ? c : -errno;
}

typedef long (*way_t)(void *p, pid_t pid);

/*
 * The test process and peers are attached. The file is mapped in the region, at
 * @p, and so is memory at the region's start.
 */
FIXTURE(stall)
{
	const char *name, *why;
	void *addr, *p;
	size_t len;
	struct server *s;
	struct peer a, b;
	int fd;
};

FIXTURE_VARIANT(stall)
{
	way_t way;
	bool other;		/* it is a peer's memory that is wanted */
};

FIXTURE_VARIANT_ADD(stall, by_touching) { .way = by_touching };
FIXTURE_VARIANT_ADD(stall, by_system_call) { .way = by_system_call };
FIXTURE_VARIANT_ADD(stall, by_vmsplice) { .way = by_vmsplice };
FIXTURE_VARIANT_ADD(stall, by_process_vm) { .way = by_process_vm, .other = true };

FIXTURE_SETUP(stall)
{
	char path[96];

	self->fd = -1;
	self->name = new_name();
	self->addr = slot(0);
	self->len = granule();
	self->p = at(self->addr, GB);
	self->s = mmap(NULL, page(), RW, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	ASSERT_NE(MAP_FAILED, self->s);
	self->s->fd = -1;
	ASSERT_OK(private_mounts());
	self->why = server_start(self->s);
	if (self->why)
		SKIP(return, "%s", self->why);
	snprintf(path, sizeof(path), "%s/file", self->s->dir);
	self->fd = open(path, O_RDWR | O_CLOEXEC);
	ASSERT_LE(0, self->fd);
	ASSERT_EQ(0, peer_start(&self->a));
	ASSERT_EQ(0, peer_start(&self->b));
	ASSERT_OK(create(self->name, self->addr, self->len));
	ASSERT_OK(peer_attach(&self->a, self->name));
	ASSERT_OK(peer_attach(&self->b, self->name));
	ASSERT_OK(map_anon(self->addr, 16 * page(), MAP_PRIVATE));
	ASSERT_EQ(self->p, mmap(self->p, NR_PAGES * page(), RW,
				MAP_SHARED | MAP_FIXED, self->fd, 0));
	atomic_store(&self->s->hold, true);
}

FIXTURE_TEARDOWN(stall)
{
	atomic_store(&self->s->hold, false);
	peer_stop(&self->a);
	peer_stop(&self->b);
	munmap(self->addr, self->len);
	remove_names();
	if (self->fd >= 0)
		close(self->fd);
	server_end(self->s);
}

struct wanted {
	pthread_t thread;
	way_t way;
	void *p;
	pid_t pid;
	atomic_bool done;
	long ret;
};

static void *want(void *arg)
{
	struct wanted *w = arg;

	w->ret = w->way(w->p, w->pid);
	atomic_store(&w->done, true);
	return NULL;
}

/* A thread of the test wants the page, and waits. */
#define WANT(_w) do {							\
	(_w)->way = variant->way;					\
	(_w)->p = self->p;						\
	(_w)->pid = variant->other ? self->b.pid : getpid();		\
	ASSERT_EQ(0, pthread_create(&(_w)->thread, NULL, want, _w));	\
	ASSERT_TRUE(WAIT_FOR(atomic_load(&self->s->held), 60));		\
	usleep(20000);							\
	ASSERT_FALSE(atomic_load(&(_w)->done));				\
} while (0)

#define GOT(_w) ({							\
	atomic_store(&self->s->hold, false);				\
	pthread_join((_w)->thread, NULL);				\
	(_w)->ret;							\
})

static long do_changes(const struct request *rq)
{
	char *p = (char *)rq->a[0];

	if (mmap(p, page(), RW, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0) != p)
		return -1;
	if (try_write(p, 1) || mprotect(p, page(), PROT_READ) ||
	    madvise(p, page(), MADV_DONTNEED) || munmap(p, page()))
		return -2;
	return try_read(p) == FAULT(SIGBUS, BUS_ADRERR) ? 0 : -3;
}

TEST_F_TIMEOUT(stall, only_who_wants_it_waits, SHORT_TIMEOUT)
{
	struct wanted w = {};
	char *own, buf[64];
	struct peer c;
	int fd;

	WANT(&w);
	/* In the region, for who wants it too, and others. */
	EXPECT_EQ(0, PEER(&self->a, do_changes, NULL, L(at(self->addr, 2 * GB))));
	EXPECT_EQ(0, PEER(&self->b, do_changes, NULL, L(at(self->addr, 2 * GB))));
	EXPECT_OK(mprotect(at(self->addr, page()), page(), PROT_READ));
	EXPECT_EQ(0, peer_write(&self->a, self->addr, 5));
	EXPECT_EQ(5, try_read(self->addr));
	/* In the same VMA. */
	EXPECT_OK(mprotect(at(self->p, 2 * page()), page(), PROT_READ));
	/* In one's own memory. */
	own = mmap(NULL, 8 * page(), RW, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	ASSERT_NE(MAP_FAILED, own);
	EXPECT_OK(mprotect(own, page(), PROT_READ));
	EXPECT_OK(munmap(own, 8 * page()));
	fd = open("/proc/self/maps", O_RDONLY | O_CLOEXEC);
	EXPECT_LT(0, read(fd, buf, sizeof(buf)));
	close(fd);
	/* Processes come and go. */
	ASSERT_EQ(0, peer_start(&c));
	EXPECT_EQ(5, peer_read(&c, self->addr));
	peer_stop(&c);
	EXPECT_OK(peer_munmap(&self->a, self->addr, self->len));
	EXPECT_OK(peer_attach(&self->a, self->name));

	EXPECT_FALSE(atomic_load(&w.done));
	EXPECT_EQ(VALUE, GOT(&w));
}

static long do_want(const struct request *rq)
{
	return ((way_t)rq->a[1])((void *)rq->a[0], rq->a[2] ? : getpid());
}

TEST_F_TIMEOUT(stall, who_waits_can_be_killed, SHORT_TIMEOUT)
{
	double start;

	PEER_SEND(&self->a, do_want, NULL, L(self->p), L(variant->way),
		  variant->other ? L(self->b.pid) : 0L);
	ASSERT_TRUE(WAIT_FOR(atomic_load(&self->s->held), 60));
	usleep(20000);
	start = now();
	peer_stop(&self->a);
	EXPECT_GT(30, now() - start);
	EXPECT_TRUE(atomic_load(&self->s->held));
	/* And the region goes on. */
	EXPECT_EQ(0, PEER(&self->b, do_changes, NULL, L(at(self->addr, 2 * GB))));
	atomic_store(&self->s->hold, false);
	EXPECT_EQ(VALUE, try_read(self->p));
}

/* What is mapped there meanwhile is what counts. */
TEST_F_TIMEOUT(stall, the_attachment_goes_meanwhile, SHORT_TIMEOUT)
{
	struct wanted w = {};
	char *p = self->p;
	long got;

	if (variant->other)
		SKIP(return, "the attachment is another's");
	WANT(&w);
	ASSERT_OK(munmap(self->addr, self->len));
	ASSERT_EQ(p, mmap(p, page(), RW, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED,
			  -1, 0));
	*p = 7;
	EXPECT_FALSE(atomic_load(&w.done));
	got = GOT(&w);
	/* Who gets pages has had that of the file, if it came. */
	if (variant->way == by_vmsplice) {
		EXPECT_TRUE(got == VALUE || got == 7);
	} else {
		EXPECT_EQ(7, got);
	}
	ASSERT_OK(munmap(p, page()));
}

TEST_F_TIMEOUT(stall, it_is_unmapped_meanwhile, SHORT_TIMEOUT)
{
	struct wanted w = {};

	WANT(&w);
	ASSERT_OK(peer_munmap(&self->a, self->p, NR_PAGES * page()));
	if (variant->way == by_touching) {
		EXPECT_EQ(FAULT(SIGBUS, BUS_ADRERR), GOT(&w));
	} else {
		EXPECT_EQ(-EFAULT, GOT(&w));
	}
}

/* The name goes with the last one, and what is waited for when it is done. */
TEST_F_TIMEOUT(stall, the_region_goes_meanwhile, SHORT_TIMEOUT)
{
	struct wanted w = {};

	if (variant->other)
		SKIP(return, "the attachment is another's");
	WANT(&w);
	ASSERT_OK(peer_munmap(&self->a, self->addr, self->len));
	ASSERT_OK(peer_munmap(&self->b, self->addr, self->len));
	ASSERT_OK(mshare_unlink(self->name));
	EXPECT_FALSE(name_exists(self->name));
	if (variant->way == by_touching) {
		EXPECT_EQ(FAULT(SIGSEGV, SEGV_MAPERR), GOT(&w));
	} else {
		long got = GOT(&w);

		EXPECT_TRUE(got == -EFAULT || got == VALUE);
	}
}

MSHARE_TEST_MAIN
