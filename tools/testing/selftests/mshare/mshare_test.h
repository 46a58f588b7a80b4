/* SPDX-License-Identifier: GPL-2.0 */
/*
 * What the mshare selftests have in common: the two calls, names and
 * addresses, probes that survive signals, and peers.
 *
 * A peer is a process that waits for requests and runs them. It is forked from
 * the test, so a function has the same address in both and a request is simply
 * a function and its arguments. A peer that is started before the test attaches
 * anything is unrelated to the region in all that matters.
 *
 * EXPECT and ASSERT are used in the test process only; peers return values.
 */
#ifndef MSHARE_TEST_H
#define MSHARE_TEST_H

#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <limits.h>
#include <poll.h>
#include <pthread.h>
#include <sched.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>
#include <sys/types.h>
#include <sys/vfs.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>
#include <linux/types.h>

#include "../kselftest_harness.h"

/*
 * For tests without a timeout of their own. The harness's 30 seconds are too few
 * for a debugging kernel in an emulator.
 */
#undef TEST_TIMEOUT_DEFAULT
#define TEST_TIMEOUT_DEFAULT	240

#ifndef __NR_mshare
#define __NR_mshare		500
#endif
#ifndef __NR_mshare_unlink
#define __NR_mshare_unlink	501
#endif

#if __has_include(<linux/mshare.h>)
#include <linux/mshare.h>
#else
struct mshare_info {
	__u64 start;
	__u64 size;
	__u64 nr_attached;
};
#endif

#ifndef MAP_FIXED_NOREPLACE
#define MAP_FIXED_NOREPLACE	0x100000
#endif

#define MSHAREFS	"/sys/fs/mshare"
#define KB		1024UL
#define MB		(1024UL * KB)
#define GB		(1024UL * MB)
#define __maybe_unused	__attribute__((unused))

/* Generous: software emulation, KASAN and lockdep together. */
#define SHORT_TIMEOUT	600
#define LONG_TIMEOUT	1200

/* Results that a test reports about a system call. */

#define __EXPECT_CALL(_wanted, _cond, _call) do {			\
	errno = 0;							\
	long _ret = (long)(_call);					\
	int _got = _ret == -1 ? errno : 0;				\
									\
	if (!(_cond)) {							\
		__TH_LOG("%s: %s (%d), wanted %s", #_call,		\
			 _got ? strerror(_got) : "success", _got,	\
			 _wanted);					\
		_metadata->exit_code = KSFT_FAIL;			\
		_metadata->trigger = 1;					\
	}								\
} while (0); OPTIONAL_HANDLER(0)

#define EXPECT_ERR(_err, _call)						\
	__EXPECT_CALL(#_err, _got == (_err), _call)

#define EXPECT_ERR2(_err1, _err2, _call)				\
	__EXPECT_CALL(#_err1 " or " #_err2,				\
		      _got == (_err1) || _got == (_err2), _call)

/* What is not there yet is refused, one way or the other. */
#define EXPECT_REFUSED(_call)	EXPECT_ERR2(EINVAL, EOPNOTSUPP, _call)

#define EXPECT_OK(_call)						\
	__EXPECT_CALL("success", _ret != -1, _call)

#define ASSERT_OK(_call) do {						\
	errno = 0;							\
	long _ret = (long)(_call);					\
	int _got = errno;						\
									\
	if (_ret == -1)							\
		TH_LOG("%s: %s (%d)", #_call, strerror(_got), _got);	\
	ASSERT_NE(-1, _ret);						\
} while (0)

/* The calls under test. */

static __maybe_unused int sys_mshare(const char *name, unsigned long addr,
				     size_t len, int oflag, mode_t mode)
{
	return syscall(__NR_mshare, name, addr, len, oflag, mode);
}

static size_t granule(void);

/*
 * With MSHARE_TEST_ELSEWHERE set, every region that a test makes is far from
 * where the test has it, and has a granule more on either side: all that the
 * test does it does at translated addresses, in the middle of a larger region.
 */
#define ELSEWHERE	(8UL << 40)

/* For what is about where a region is: to adopt, say. */
#define NOT_ELSEWHERE() do {						\
	if (getenv("MSHARE_TEST_ELSEWHERE"))				\
		SKIP(return, "it is about the region's own address");	\
} while (0)

static __maybe_unused int mshare_elsewhere(const char *name, unsigned long addr,
					   size_t len, int oflag, mode_t mode)
{
	int prot = PROT_READ | PROT_EXEC, fd, err, status;
	struct mshare_info info = {};
	size_t g = granule();
	unsigned long own;
	char path[8192];
	void *p;
	pid_t pid;

	/* Somebody else makes it, who isn't attached any more afterwards. */
	if (oflag & O_CREAT) {
		pid = fork();
		if (!pid) {
			if (addr && len) {
				addr += ELSEWHERE - g;
				len += 2 * g;
			}
			_exit(sys_mshare(name, addr, len, oflag, mode) ? errno : 0);
		}
		if (pid < 0 || waitpid(pid, &status, 0) != pid ||
		    !WIFEXITED(status)) {
			errno = ECHILD;
			return -1;
		}
		errno = WEXITSTATUS(status);
		if (errno)
			return -1;
	}
	snprintf(path, sizeof(path), "%s%s", *name == '/' ? "" : MSHAREFS "/",
		 name);
	fd = open(path, (oflag & O_ACCMODE) | O_CLOEXEC);
	if (fd < 0)
		return -1;
	if ((oflag & O_ACCMODE) == O_RDWR)
		prot |= PROT_WRITE;
	if (read(fd, &info, sizeof(info)) < 16) {
		close(fd);
		errno = EIO;
		return -1;
	}
	own = info.start + g - ELSEWHERE;
	if (!addr && !len) {
		addr = own;
		len = info.size - 2 * g;
	}
	p = mmap((void *)addr, len, prot, MAP_SHARED, fd, g + addr - own);
	if (p == MAP_FAILED && errno == EPERM)
		p = mmap((void *)addr, len, prot & ~PROT_EXEC, MAP_SHARED, fd,
			 g + addr - own);
	err = errno;
	close(fd);
	if (p == MAP_FAILED && (oflag & O_CREAT))
		syscall(__NR_mshare_unlink, name);
	errno = err;
	return p == MAP_FAILED ? -1 : 0;
}

static __maybe_unused int mshare(const char *name, void *addr, size_t len,
				 int oflag, mode_t mode)
{
	if (getenv("MSHARE_TEST_ELSEWHERE"))
		return mshare_elsewhere(name, (unsigned long)addr, len, oflag, mode);
	return sys_mshare(name, (unsigned long)addr, len, oflag, mode);
}

static __maybe_unused int mshare_unlink(const char *name)
{
	return syscall(__NR_mshare_unlink, name);
}

/* Small files. */

static __maybe_unused int read_file(const char *path, char *buf, size_t size)
{
	int fd = open(path, O_RDONLY | O_CLOEXEC);
	size_t done = 0;
	ssize_t n;

	if (fd < 0)
		return -1;
	while (done < size - 1) {
		n = read(fd, buf + done, size - 1 - done);
		if (n < 0) {
			int err = errno;

			close(fd);
			errno = err;
			return -1;
		}
		if (!n)
			break;
		done += n;
	}
	buf[done] = 0;
	close(fd);
	return done;
}

static __maybe_unused int write_file(const char *path, const char *text)
{
	int fd = open(path, O_WRONLY | O_CLOEXEC);
	ssize_t n;
	int err;

	if (fd < 0)
		return -1;
	n = write(fd, text, strlen(text));
	err = errno;
	close(fd);
	errno = err;
	return n == (ssize_t)strlen(text) ? 0 : -1;
}

/* A number after @key in a file of "key number" lines; -1 if there is none. */
static __maybe_unused long read_key(const char *path, const char *key)
{
	size_t n = strlen(key);
	long val = -1;
	char line[256];
	FILE *f;

	f = fopen(path, "re");
	if (!f)
		return -1;
	while (fgets(line, sizeof(line), f)) {
		if (!strncmp(line, key, n) &&
		    (line[n] == ':' || line[n] == ' ' || line[n] == '\t')) {
			val = strtol(line + n + 1, NULL, 10);
			break;
		}
	}
	fclose(f);
	return val;
}

/* A counter of /proc/meminfo in kB with what CPUs hold back folded in. */
static __maybe_unused long meminfo(const char *key)
{
	char buf[16];

	read_file("/proc/sys/vm/stat_refresh", buf, sizeof(buf));
	return read_key("/proc/meminfo", key);
}

static __maybe_unused long vmstat(const char *key)
{
	char buf[16];

	read_file("/proc/sys/vm/stat_refresh", buf, sizeof(buf));
	return read_key("/proc/vmstat", key);
}

/* Whether everything takes several times as long. */
static __maybe_unused bool debug_kernel(void)
{
	return !access("/proc/lockdep", F_OK);
}

/*
 * Where everything takes ten times as long, or is done once more elsewhere, what
 * takes long is tried in one way.
 */
#define IN_ONE_WAY(_needed) do {					\
	if ((debug_kernel() || getenv("MSHARE_TEST_ELSEWHERE")) &&	\
	    !(_needed))							\
		SKIP(return, "takes long, and another variant does it");\
} while (0)

/*
 * Stands first in a setup: a debugging kernel leaves such a variant, which is much
 * like another one of the fixture, to the kernel that takes a tenth of the time.
 */
#define MUCH_LIKE_ANOTHER "takes long on a debugging kernel, where another variant much like it does it"
#define NOT_ON_DEBUG(_variant) do {					\
	if ((_variant) && debug_kernel())				\
		SKIP(return, MUCH_LIKE_ANOTHER);			\
} while (0)

/*
 * Slab memory in kB; nothing on a debug kernel, where KASAN keeps what was
 * freed and kmemleak looks for what was not.
 */
static __maybe_unused long slab_memory(void)
{
	return debug_kernel() ? 0 : meminfo("Slab");
}

/* Sizes, addresses, names. */

static __maybe_unused size_t page(void)
{
	return sysconf(_SC_PAGESIZE);
}

static __maybe_unused size_t granule(void)
{
	static size_t size;
	char buf[64];

	if (!size && read_file(MSHAREFS "/mshare_info", buf, sizeof(buf)) > 0)
		size = strtoul(buf, NULL, 10);
	return size;
}

/* The @n-th granule of a part of the address space that nobody uses. */
static __maybe_unused void *slot(unsigned int n)
{
	size_t start = 16UL << 40;

	start += granule() - 1;
	start -= start % granule();
	return (void *)(start + n * granule());
}

static __maybe_unused void *at(void *base, size_t off)
{
	return (char *)base + off;
}

static unsigned int name_count;

/* A name that no other test uses. It is valid until the test ends. */
static __maybe_unused const char *new_name(void)
{
	static char names[256][32];
	char *name = names[name_count % 256];

	snprintf(name, sizeof(names[0]), "t%d-%u", getpid(), name_count++);
	return name;
}

static __maybe_unused const char *path_of(const char *name)
{
	static char paths[8][PATH_MAX];
	static unsigned int next;
	char *path = paths[next++ % 8];

	snprintf(path, PATH_MAX, MSHAREFS "/%s", name);
	return path;
}

static __maybe_unused bool name_exists(const char *name)
{
	struct stat st;

	return !stat(path_of(name), &st);
}

/* Removes the names that new_name() gave this process. */
static __maybe_unused void remove_names(void)
{
	char prefix[16];
	struct dirent *de;
	DIR *dir;

	snprintf(prefix, sizeof(prefix), "t%d-", getpid());
	dir = opendir(MSHAREFS);
	if (!dir)
		return;
	while ((de = readdir(dir))) {
		if (!strncmp(de->d_name, prefix, strlen(prefix)))
			unlink(path_of(de->d_name));
	}
	closedir(dir);
}

/*
 * How often a loop runs, under the user's MSHARE_TEST_SCALE; less often on a
 * debug kernel.
 */
static __maybe_unused long scaled(long n)
{
	const char *s = getenv("MSHARE_TEST_SCALE");
	double f = s ? atof(s) : 1;

	if (f <= 0)
		f = 1;
	if (debug_kernel())
		f /= 8;
	return n * f < 1 ? 1 : n * f;
}

static __maybe_unused unsigned int test_seed(void)
{
	const char *s = getenv("MSHARE_TEST_SEED");
	struct timespec ts;

	if (s)
		return strtoul(s, NULL, 0);
	clock_gettime(CLOCK_REALTIME, &ts);
	return ts.tv_nsec ^ ts.tv_sec;
}

static __maybe_unused double now(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return ts.tv_sec + ts.tv_nsec / 1e9;
}

/* Polls until @_cond holds or @_secs have passed; tells whether it holds. */
#define WAIT_FOR(_cond, _secs) ({					\
	double _end = now() + (_secs);					\
	bool _holds;							\
									\
	while (!(_holds = (_cond)) && now() < _end)			\
		usleep(2000);						\
	_holds;								\
})

static __maybe_unused int pin(int cpu)
{
	cpu_set_t set;

	CPU_ZERO(&set);
	CPU_SET(cpu, &set);
	return sched_setaffinity(0, sizeof(set), &set);
}

static __maybe_unused int nr_cpus(void)
{
	return sysconf(_SC_NPROCESSORS_ONLN);
}

/* How many VMAs of this process touch the range. */
static __maybe_unused int nr_mapped(const void *addr, size_t len)
{
	unsigned long start = (unsigned long)addr, s, e;
	char line[PATH_MAX + 128];
	int n = 0;
	FILE *f;

	f = fopen("/proc/self/maps", "re");
	if (!f)
		return -1;
	while (fgets(line, sizeof(line), f)) {
		if (sscanf(line, "%lx-%lx", &s, &e) == 2 &&
		    s < start + len && start < e)
			n++;
	}
	fclose(f);
	return n;
}

/* What /proc/PID/maps says of a range, to be compared as text. */
static __maybe_unused char *maps_of(const void *addr, size_t len)
{
	unsigned long start = (unsigned long)addr, s, e;
	size_t size = 1 << 20, n = 0;
	char *buf = calloc(1, size), line[PATH_MAX + 128];
	FILE *f = fopen("/proc/self/maps", "re");

	while (f && fgets(line, sizeof(line), f)) {
		if (sscanf(line, "%lx-%lx", &s, &e) == 2 && s < start + len &&
		    start < e && n + strlen(line) < size)
			n += sprintf(buf + n, "%s", line);
	}
	if (f)
		fclose(f);
	return buf;
}

/* The number of the page that is at @addr of this process, 0 without one. */
static __maybe_unused long pfn_of(void *addr)
{
	int fd = open("/proc/self/pagemap", O_RDONLY | O_CLOEXEC);
	unsigned long entry = 0;

	if (pread(fd, &entry, 8, (unsigned long)addr / page() * 8) != 8)
		entry = 0;
	close(fd);
	return entry >> 63 ? entry & ((1UL << 55) - 1) : 0;
}

static __maybe_unused long minflt(void)
{
	struct rusage ru;

	getrusage(RUSAGE_SELF, &ru);
	return ru.ru_minflt;
}

static __maybe_unused long majflt(void)
{
	struct rusage ru;

	getrusage(RUSAGE_SELF, &ru);
	return ru.ru_majflt;
}

/*
 * Probes: an access returns what it read, or what signal it got as
 * FAULT(signal, si_code), which is negative. probe_addr is the si_addr.
 */

#define FAULT(_sig, _code)	(-(long)(((_sig) << 8) | (_code)))

static __thread sigjmp_buf probe_env;
static __thread volatile sig_atomic_t probing;
static __thread volatile int probe_sig;
static __thread volatile int probe_code;
static __thread void *volatile probe_addr;

static __maybe_unused void probe_handler(int sig, siginfo_t *si,
					 void *uc __maybe_unused)
{
	if (!probing) {
		signal(sig, SIG_DFL);
		return;
	}
	probing = 0;
	probe_sig = sig;
	probe_code = si->si_code;
	probe_addr = si->si_addr;
	siglongjmp(probe_env, 1);
}

static __attribute__((constructor)) void probe_init(void)
{
	struct sigaction sa = {
		.sa_sigaction = probe_handler,
		.sa_flags = SA_SIGINFO | SA_NODEFER,
	};

	sigaction(SIGSEGV, &sa, NULL);
	sigaction(SIGBUS, &sa, NULL);
}

static __maybe_unused int fault_sig(long probe)
{
	return probe < 0 ? (int)(-probe >> 8) : 0;
}

static __maybe_unused __attribute__((noinline)) long try_read(const void *addr)
{
	long val;

	if (sigsetjmp(probe_env, 0))
		return FAULT(probe_sig, probe_code);
	probing = 1;
	val = *(const volatile unsigned char *)addr;
	probing = 0;
	return val;
}

static __maybe_unused __attribute__((noinline)) long try_write(void *addr, int val)
{
	if (sigsetjmp(probe_env, 0))
		return FAULT(probe_sig, probe_code);
	probing = 1;
	*(volatile unsigned char *)addr = val;
	probing = 0;
	return 0;
}

#ifdef __x86_64__
/* mov $42, %eax; ret */
static const unsigned char code_42[] = { 0xb8, 42, 0, 0, 0, 0xc3 };

static __maybe_unused __attribute__((noinline)) long try_exec(void *addr)
{
	long val;

	if (sigsetjmp(probe_env, 0))
		return FAULT(probe_sig, probe_code);
	probing = 1;
	val = ((int (*)(void))addr)();
	probing = 0;
	return val;
}
#endif

/* What a process may do to a page. Writing puts back what was read. */
enum page_state { PAGE_NONE = 'n', PAGE_HOLE = '.', PAGE_NOACC = '-',
		  PAGE_RO = 'r', PAGE_RW = 'w' };

static __maybe_unused char page_state(void *addr)
{
	long r = try_read(addr);

	if (r == FAULT(SIGSEGV, SEGV_MAPERR))
		return PAGE_NONE;
	if (fault_sig(r) == SIGBUS)
		return PAGE_HOLE;
	if (r < 0)
		return PAGE_NOACC;
	return try_write(addr, r) < 0 ? PAGE_RO : PAGE_RW;
}

/* The states of @n pages as a string, for one comparison before and after. */
static __maybe_unused const char *page_states(void *addr, int n)
{
	static char bufs[4][1025];
	static unsigned int next;
	char *buf = bufs[next++ % 4];
	int i;

	if (n > 1024)
		n = 1024;
	for (i = 0; i < n; i++)
		buf[i] = page_state(at(addr, i * page()));
	buf[n] = 0;
	return buf;
}

/* Peers. */

struct peer {
	pid_t pid;
	int fd;
};

struct request {
	long (*fn)(const struct request *rq);
	long a[6];
	char s[512];
};

struct reply {
	long ret;
	int err;
};

static __maybe_unused void peer_main(int fd)
{
	static struct request rq;
	struct reply rp;

	while (recv(fd, &rq, sizeof(rq), 0) == sizeof(rq)) {
		errno = 0;
		rp.ret = rq.fn(&rq);
		rp.err = errno;
		if (send(fd, &rp, sizeof(rp), MSG_NOSIGNAL) != sizeof(rp))
			break;
	}
	_exit(0);
}

/* Forks a process that dies with its parent. */
static __maybe_unused pid_t fork_bound(void)
{
	pid_t parent = getpid();
	pid_t pid;

	fflush(stdout);
	fflush(stderr);
	pid = fork();
	if (!pid) {
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		if (getppid() != parent)
			_exit(1);
	}
	return pid;
}

static __maybe_unused int peer_start(struct peer *p)
{
	int sv[2];

	p->pid = 0;
	if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, sv))
		return -1;
	p->pid = fork_bound();
	if (p->pid < 0) {
		close(sv[0]);
		close(sv[1]);
		p->pid = 0;
		return -1;
	}
	if (!p->pid) {
		close(sv[0]);
		peer_main(sv[1]);
	}
	close(sv[1]);
	p->fd = sv[0];
	return 0;
}

/* Ends a peer; returns its wait status. Does nothing to one that never was. */
static __maybe_unused int peer_stop(struct peer *p)
{
	int status = -1;

	if (p->pid <= 0)
		return -1;
	kill(p->pid, SIGKILL);
	waitpid(p->pid, &status, 0);
	close(p->fd);
	p->pid = 0;
	return status;
}

static __maybe_unused int peer_send(struct peer *p,
				    long (*fn)(const struct request *rq),
				    const char *s, const long *a)
{
	static struct request rq;

	memset(&rq, 0, sizeof(rq));
	rq.fn = fn;
	memcpy(rq.a, a, sizeof(rq.a));
	if (s)
		snprintf(rq.s, sizeof(rq.s), "%s", s);
	if (send(p->fd, &rq, sizeof(rq), MSG_NOSIGNAL) != sizeof(rq)) {
		errno = ESRCH;
		return -1;
	}
	return 0;
}

/* What the request returned, with its errno; -1 and ESRCH when the peer died. */
static __maybe_unused long peer_wait(struct peer *p)
{
	struct reply rp;

	if (recv(p->fd, &rp, sizeof(rp), 0) != sizeof(rp)) {
		errno = ESRCH;
		return -1;
	}
	errno = rp.err;
	return rp.ret;
}

#define L(_x)	((long)(_x))

#define PEER_SEND(_p, _fn, _s, ...)					\
	peer_send(_p, _fn, _s, (const long[6]){ __VA_ARGS__ })

#define PEER(_p, _fn, _s, ...)						\
	(PEER_SEND(_p, _fn, _s, __VA_ARGS__) ? -1L : peer_wait(_p))

static __maybe_unused long do_mshare(const struct request *rq)
{
	return mshare(rq->s, (void *)rq->a[0], rq->a[1], rq->a[2], rq->a[3]);
}

static __maybe_unused long do_unlink(const struct request *rq)
{
	return mshare_unlink(rq->s);
}

static __maybe_unused long do_mmap(const struct request *rq)
{
	return L(mmap((void *)rq->a[0], rq->a[1], rq->a[2], rq->a[3], rq->a[4],
		      rq->a[5]));
}

static __maybe_unused long do_munmap(const struct request *rq)
{
	return munmap((void *)rq->a[0], rq->a[1]);
}

static __maybe_unused long do_mprotect(const struct request *rq)
{
	return mprotect((void *)rq->a[0], rq->a[1], rq->a[2]);
}

static __maybe_unused long do_read(const struct request *rq)
{
	return try_read((void *)rq->a[0]);
}

static __maybe_unused long do_write(const struct request *rq)
{
	return try_write((void *)rq->a[0], rq->a[1]);
}

static __maybe_unused long do_state(const struct request *rq)
{
	return page_state((void *)rq->a[0]);
}

static __maybe_unused long do_become(const struct request *rq)
{
	if (setgroups(0, NULL) || setresgid(rq->a[1], rq->a[1], rq->a[1]) ||
	    setresuid(rq->a[0], rq->a[0], rq->a[0]))
		return -1;
	return prctl(PR_SET_PDEATHSIG, SIGKILL);
}

static __maybe_unused long do_pin(const struct request *rq)
{
	return pin(rq->a[0]);
}

static __maybe_unused long do_nr_mapped(const struct request *rq)
{
	return nr_mapped((void *)rq->a[0], rq->a[1]);
}

static __maybe_unused int peer_attach(struct peer *p, const char *name)
{
	return PEER(p, do_mshare, name, 0, 0, O_RDWR, 0);
}

static __maybe_unused int peer_create(struct peer *p, const char *name,
				      void *addr, size_t len)
{
	return PEER(p, do_mshare, name, L(addr), len,
		    O_RDWR | O_CREAT | O_EXCL, 0600);
}

static __maybe_unused int peer_unlink(struct peer *p, const char *name)
{
	return PEER(p, do_unlink, name, 0);
}

static __maybe_unused void *peer_mmap(struct peer *p, void *addr, size_t len,
				      int prot, int flags, int fd, off_t off)
{
	return (void *)PEER(p, do_mmap, NULL, L(addr), len, prot, flags, fd, off);
}

static __maybe_unused int peer_munmap(struct peer *p, void *addr, size_t len)
{
	return PEER(p, do_munmap, NULL, L(addr), len);
}

static __maybe_unused int peer_mprotect(struct peer *p, void *addr, size_t len,
					int prot)
{
	return PEER(p, do_mprotect, NULL, L(addr), len, prot);
}

static __maybe_unused long peer_read(struct peer *p, void *addr)
{
	return PEER(p, do_read, NULL, L(addr));
}

static __maybe_unused long peer_write(struct peer *p, void *addr, int val)
{
	return PEER(p, do_write, NULL, L(addr), val);
}

static __maybe_unused char peer_state(struct peer *p, void *addr)
{
	return PEER(p, do_state, NULL, L(addr));
}

static __maybe_unused int peer_become(struct peer *p, uid_t uid, gid_t gid)
{
	return PEER(p, do_become, NULL, uid, gid);
}

static __maybe_unused int peer_pin(struct peer *p, int cpu)
{
	return PEER(p, do_pin, NULL, cpu);
}

static __maybe_unused int create(const char *name, void *addr, size_t len)
{
	return mshare(name, addr, len, O_RDWR | O_CREAT | O_EXCL, 0600);
}

static __maybe_unused int attach(const char *name)
{
	return mshare(name, NULL, 0, O_RDWR, 0);
}

/* Fixed, readable and writable memory of the given sharing. */
static __maybe_unused void *map_anon(void *addr, size_t len, int sharing)
{
	return mmap(addr, len, PROT_READ | PROT_WRITE,
		    sharing | MAP_ANONYMOUS | MAP_FIXED, -1, 0);
}

/* Whether nobody is attached to the region @name, which goes if so. */
static __maybe_unused bool unlink_stale(const char *name)
{
	return !mshare_unlink(name);
}

/* A private mount namespace with whatever is mounted now. */
static __maybe_unused int private_mounts(void)
{
	if (unshare(CLONE_NEWNS))
		return -1;
	return mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL);
}

static __maybe_unused bool kernel_has_mshare(void)
{
	char buf[8192];

	return read_file("/proc/filesystems", buf, sizeof(buf)) > 0 &&
	       strstr(buf, "msharefs");
}

/*
 * Every program's main: says why it cannot run where that is so, and sees to
 * it that msharefs is mounted.
 */
static __maybe_unused void mshare_prepare(void)
{
	struct rlimit nofile = { 65536, 65536 };

	setrlimit(RLIMIT_NOFILE, &nofile);
	if (!kernel_has_mshare()) {
		ksft_print_header();
		ksft_exit_skip("the kernel has no msharefs\n");
	}
	if (geteuid()) {
		ksft_print_header();
		ksft_exit_skip("needs root\n");
	}
	if (!granule() && mount("none", MSHAREFS, "msharefs", 0, NULL)) {
		ksft_print_header();
		ksft_exit_fail_msg("cannot mount msharefs: %s\n",
				   strerror(errno));
	}
	if (!granule()) {
		ksft_print_header();
		ksft_exit_fail_msg("cannot read " MSHAREFS "/mshare_info\n");
	}
}

#define MSHARE_TEST_MAIN						\
	int main(int argc, char **argv)					\
	{								\
		mshare_prepare();					\
		return test_harness_run(argc, argv);			\
	}

#endif /* MSHARE_TEST_H */
