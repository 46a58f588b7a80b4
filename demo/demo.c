// SPDX-License-Identifier: GPL-2.0
/*
 * What a shared page table is worth, on real data: unrelated processes share a
 * file and anonymous memory and each checksums all of it, once through ordinary
 * shared mappings, once through an mshare region.
 *
 * Both ways do the same. This process fills the memory and reads the file, so
 * that neither way waits for a disk; starts the workers, by fork and exec, so
 * that they inherit no mapping; releases them together; and reads the counters
 * when the last one has read everything and none has left.
 */
#define _GNU_SOURCE
#include <getopt.h>
#include <inttypes.h>
#include <poll.h>
#include <signal.h>
#include <stdbool.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/wait.h>

#include "mshare.h"

#define PAGE		4096UL
#define WORDS		(PAGE / sizeof(u64))
#define REPORT_BYTES	(64 * MIB)
#define MAX_WORKERS	4096

enum way { ORDINARY, REGION, NR_WAYS };

static const char * const way_name[NR_WAYS] = {
	[ORDINARY]	= "ordinary mmap",
	[REGION]	= "mshare region",
};

/* What a worker is told; the file descriptors are the ones it inherits. */
struct job {
	enum way way;
	const char *archive;	/* the file to map ... */
	size_t archive_len;
	const char *mem;	/* the memory: a memfd's path, or the region's name */
	size_t mem_len;
	u64 *mem_at;	/* where both are in the region */
	u64 *archive_at;
};

enum { REPORT_FD = 3, START_FD, LEAVE_FD };

enum msg_kind { MSG_READY, MSG_PROGRESS, MSG_DONE };

struct msg {
	unsigned int kind;
	unsigned int worker;
	u64 bytes;		/* read since the last message */
	u64 faults;	/* taken while mapping and reading */
	u64 mem_sum;
	u64 archive_sum;
};

struct result {
	long tables_kb;		/* growth of PageTables at the peak */
	long own_kb;		/* growth with the workers started, nothing mapped */
	u64 faults;
	u64 faults_reading;
	u64 read_ns;
	u64 leave_ns;
};

static unsigned int nr_workers = 64;
static size_t mem_len = 512 * MIB;
static u64 mem_sum, archive_sum;	/* what every worker must find */
static char region_name[32], region_path[64];

/* ------------------------------------------------------------------------- */
/* The checksum */

/*
 * Every byte is read, in words and into independent sums, one loop turn per
 * 256 bytes: the form that costs least under software emulation, where vector
 * instructions are the slow ones. The sums of each page are mixed into the
 * running value, so pages cannot change places unnoticed.
 */
__attribute__((noinline, optimize("no-tree-vectorize")))
static u64 sum_pages(const u64 *p, size_t len, u64 sum)
{
	const u64 mix = 0x9e3779b97f4a7c15ULL;
	u64 a, b, c, d;
	size_t i;

#define ADD4(n)	do {			\
		a += p[i + (n)];	\
		b += p[i + (n) + 1];	\
		c += p[i + (n) + 2];	\
		d += p[i + (n) + 3];	\
	} while (0)

	for (; len; len -= PAGE, p += WORDS) {
		a = 0;
		b = 0;
		c = 0;
		d = 0;
		for (i = 0; i < WORDS; i += 32) {
			ADD4(0);
			ADD4(4);
			ADD4(8);
			ADD4(12);
			ADD4(16);
			ADD4(20);
			ADD4(24);
			ADD4(28);
		}
		sum = (((sum + a) * mix + b) * mix + c) * mix + d;
		sum ^= sum >> 29;
	}
#undef ADD4
	return sum;
}

/* ------------------------------------------------------------------------- */
/* A worker */

static void send_msg(const struct msg *m)
{
	if (write(REPORT_FD, m, sizeof(*m)) != sizeof(*m))
		err(1, "worker: cannot report");
}

/* Returns when the other end is closed, for all workers at once. */
static void wait_for_close(int fd)
{
	ssize_t n;
	char c;

	do {
		n = read(fd, &c, 1);
	} while (n < 0 && errno == EINTR);
	if (n)
		errx(1, "worker: unexpected word from the parent");
}

static const u64 *map_file(const char *path, size_t len)
{
	int fd = open(path, O_RDONLY | O_CLOEXEC);
	void *p;

	if (fd < 0)
		err(1, "worker: cannot open %s", path);
	p = mmap(NULL, len, PROT_READ, MAP_SHARED, fd, 0);
	if (p == MAP_FAILED)
		err(1, "worker: cannot map %s", path);
	close(fd);
	return p;
}

static u64 sum_and_report(const u64 *p, size_t len, struct msg *m)
{
	u64 sum = 0;
	size_t part;

	len = round_up_to(len, PAGE);
	for (; len; len -= part, p += part / sizeof(*p)) {
		part = len < REPORT_BYTES ? len : REPORT_BYTES;
		sum = sum_pages(p, part, sum);
		m->bytes = part;
		send_msg(m);
	}
	return sum;
}

static int worker(const struct job *job, unsigned int nr)
{
	static u64 sample[WORDS] __attribute__((aligned(4096))) = { 1 };
	struct msg m = { .kind = MSG_READY, .worker = nr };
	const u64 *mem = job->mem_at, *archive = job->archive_at;
	struct rusage before, after;

	prctl(PR_SET_PDEATHSIG, SIGKILL);

	/*
	 * Let the process fault its own code and stack in first: what is
	 * counted from here on comes from the shared memory.
	 */
	getrusage(RUSAGE_SELF, &after);
	mshare("", NULL, 0, O_RDWR, 0);
	m.mem_sum = sum_pages(sample, sizeof(sample), 0);
	send_msg(&m);
	wait_for_close(START_FD);
	getrusage(RUSAGE_SELF, &before);

	m.kind = MSG_PROGRESS;
	if (job->way == REGION) {
		if (mshare(job->mem, NULL, 0, O_RDWR, 0) < 0)
			err(1, "worker: cannot attach region %s", job->mem);
	} else {
		mem = map_file(job->mem, job->mem_len);
		archive = map_file(job->archive, job->archive_len);
	}
	m.mem_sum = sum_and_report(mem, job->mem_len, &m);
	m.archive_sum = sum_and_report(archive, job->archive_len, &m);

	getrusage(RUSAGE_SELF, &after);
	m.faults = faults_of(&after) - faults_of(&before);
	m.kind = MSG_DONE;
	m.bytes = 0;
	send_msg(&m);
	wait_for_close(LEAVE_FD);
	return 0;
}

/* The arguments that start_workers() passes, back into a job. */
static int worker_main(char **argv)
{
	struct job job = {
		.way		= strtoul(argv[1], NULL, 0),
		.archive	= argv[2],
		.archive_len	= strtoul(argv[3], NULL, 0),
		.mem		= argv[4],
		.mem_len	= strtoul(argv[5], NULL, 0),
		.mem_at		= (u64 *)strtoul(argv[6], NULL, 0),
		.archive_at	= (u64 *)strtoul(argv[7], NULL, 0),
	};

	return worker(&job, strtoul(argv[0], NULL, 0));
}

/* ------------------------------------------------------------------------- */
/* The parent */

static pid_t *workers;

static void remove_region(void)
{
	if (region_path[0])
		unlink(region_path);
	region_path[0] = '\0';
}

static void on_signal(int sig)
{
	remove_region();
	_exit(128 + sig);
}

static void make_pipe(int fds[2])
{
	if (pipe2(fds, O_CLOEXEC) < 0)
		err(1, "pipe");
}

/* Place @from at @to for the next program, whatever its close-on-exec flag. */
static void inherit_as(int from, int to)
{
	if (dup2(from, to) < 0)
		_exit(127);
}

static void start_workers(const struct job *job, int report, int start,
			  int leave)
{
	char nr[16], way[16], archive_len[32], memory_len[32], mem_at[32],
	     archive_at[32];
	char * const argv[] = {
		"demo", "--worker", nr, way, (char *)job->archive, archive_len,
		(char *)job->mem, memory_len, mem_at, archive_at, NULL
	};
	unsigned int i;
	int fds[3], j;

	/* Out of the way of the numbers that the workers know. */
	fds[0] = fcntl(report, F_DUPFD_CLOEXEC, 64);
	fds[1] = fcntl(start, F_DUPFD_CLOEXEC, 64);
	fds[2] = fcntl(leave, F_DUPFD_CLOEXEC, 64);

	snprintf(way, sizeof(way), "%d", job->way);
	snprintf(archive_len, sizeof(archive_len), "%zu", job->archive_len);
	snprintf(memory_len, sizeof(memory_len), "%zu", job->mem_len);
	snprintf(mem_at, sizeof(mem_at), "%p", (void *)job->mem_at);
	snprintf(archive_at, sizeof(archive_at), "%p", (void *)job->archive_at);
	for (i = 0; i < nr_workers; i++) {
		snprintf(nr, sizeof(nr), "%u", i);
		workers[i] = fork();
		if (workers[i] < 0)
			err(1, "cannot start worker %u", i);
		if (!workers[i]) {
			prctl(PR_SET_PDEATHSIG, SIGKILL);
			inherit_as(fds[0], REPORT_FD);
			inherit_as(fds[1], START_FD);
			inherit_as(fds[2], LEAVE_FD);
			execv("/proc/self/exe", argv);
			_exit(127);
		}
	}
	for (j = 0; j < 3; j++)
		close(fds[j]);
}

/* A worker that is gone before it was released has failed. */
static void check_workers(void)
{
	siginfo_t si = { .si_pid = 0 };

	if (waitid(P_ALL, 0, &si, WEXITED | WNOHANG | WNOWAIT) < 0 ||
	    !si.si_pid)
		return;
	if (si.si_code == CLD_EXITED)
		errx(1, "a worker exited early with status %d", si.si_status);
	errx(1, "a worker was killed by signal %d (%s)", si.si_status,
	     strsignal(si.si_status));
}

static void next_msg(int fd, struct msg *m)
{
	struct pollfd pfd = { .fd = fd, .events = POLLIN };

	while (poll(&pfd, 1, 1000) <= 0)
		check_workers();
	/* Shorter than PIPE_BUF, so messages arrive whole. */
	if (read(fd, m, sizeof(*m)) != sizeof(*m)) {
		check_workers();
		errx(1, "the workers are gone");
	}
}

static void wait_ready(int report)
{
	unsigned int ready = 0;
	struct msg m;

	while (ready < nr_workers) {
		next_msg(report, &m);
		ready += m.kind == MSG_READY;
	}
}

static void check_sum(enum way way, unsigned int nr, const char *what,
		      u64 found, u64 expected)
{
	if (found != expected)
		errx(1, "WRONG: by %s, process %u finds checksum %016" PRIx64 " in %s, not %016" PRIx64,
		     way_name[way], nr, found, what, expected);
}

/* Until every worker has read everything and found the right sums. */
static void wait_done(const struct job *job, int report, struct result *r)
{
	const u64 all = nr_workers * (round_up_to(job->mem_len, PAGE) +
					   round_up_to(job->archive_len, PAGE));
	const u64 begin = now_ns();
	unsigned int done = 0, percent, shown = 0;
	u64 bytes = 0, shown_ns = begin, t;
	struct msg m;

	while (done < nr_workers) {
		next_msg(report, &m);
		bytes += m.bytes;
		percent = bytes * 100 / all;
		t = now_ns();
		if (percent >= shown + 10 || t - shown_ns >= 5 * NSEC_PER_SEC) {
			printf("%s: %3u %% of %.1f GiB read, %.1f s\n",
			       way_name[job->way], percent,
			       all / (1024.0 * MIB),
			       (double)(t - begin) / NSEC_PER_SEC);
			shown = percent;
			shown_ns = t;
		}
		if (m.kind != MSG_DONE)
			continue;
		done++;
		r->faults_reading += m.faults;
		check_sum(job->way, m.worker, "the anonymous memory",
			  m.mem_sum, mem_sum);
		check_sum(job->way, m.worker, "the file", m.archive_sum,
			  archive_sum);
	}
	if (bytes != all)
		errx(1, "WRONG: %s bytes were read instead of %s",
		     commas(bytes), commas(all));
}

static void wait_gone(struct result *r)
{
	struct rusage ru;
	unsigned int i;
	int status;

	for (i = 0; i < nr_workers; i++) {
		if (wait4(workers[i], &status, 0, &ru) < 0)
			err(1, "wait4");
		if (status)
			errx(1, "worker %u failed on its way out (status %#x)",
			     i, status);
		r->faults += faults_of(&ru);
	}
}

/* Fill the memory that is shared, and note what its checksum must be. */
static void fill(u64 *mem)
{
	u64 page[WORDS], x = 1, sum = 0;
	size_t off, i;

	for (off = 0; off < mem_len; off += PAGE) {
		for (i = 0; i < WORDS; i++) {
			x = x * 6364136223846793005ULL + 1442695040888963407ULL;
			page[i] = x;
		}
		sum = sum_pages(page, PAGE, sum);
		memcpy((char *)mem + off, page, PAGE);
	}
	mem_sum = sum;
}

/*
 * Read the file by read(2): it is in the page cache for both ways, and its
 * checksum is known from a path that maps nothing.
 */
static void read_archive(const char *path, size_t len)
{
	const size_t chunk = MIB;
	int fd = open(path, O_RDONLY | O_CLOEXEC);
	size_t off = 0, have;
	char *buf;
	ssize_t n;

	buf = aligned_alloc(PAGE, chunk);
	if (fd < 0 || !buf)
		err(1, "cannot read %s", path);
	while (off < len) {
		memset(buf, 0, chunk);
		for (have = 0; have < chunk; have += n) {
			n = read(fd, buf + have, chunk - have);
			if (n < 0)
				err(1, "cannot read %s", path);
			if (!n)
				break;
		}
		if (!have)
			errx(1, "%s became shorter", path);
		archive_sum = sum_pages((u64 *)buf,
					round_up_to(have, PAGE), archive_sum);
		off += have;
	}
	free(buf);
	close(fd);
}

static u64 *map_at(void *addr, size_t len, int prot, int flags, int fd,
			const char *what)
{
	void *p = mmap(addr, len, prot, flags, fd, 0);

	if (p == MAP_FAILED)
		err(1, "cannot map %s", what);
	return p;
}

static void must_find(enum way way, const u64 *mem,
		      const u64 *archive, size_t archive_len)
{
	if (sum_pages(mem, mem_len, 0) != mem_sum)
		errx(1, "WRONG: by %s, the anonymous memory is not what was written",
		     way_name[way]);
	if (sum_pages(archive, round_up_to(archive_len, PAGE), 0) !=
	    archive_sum)
		errx(1, "WRONG: by %s, the file is not what read() returns",
		     way_name[way]);
}

/*
 * A memfd is the anonymous memory that unrelated processes can map today. This
 * process unmaps it again, so that only the workers' page tables are counted.
 */
static int prepare_ordinary(struct job *job, char *path, size_t size)
{
	int fd = memfd_create("demo", MFD_CLOEXEC), file;
	u64 *mem, *archive;

	if (fd < 0 || ftruncate(fd, mem_len) < 0)
		err(1, "cannot make a memfd");
	mem = map_at(NULL, mem_len, PROT_READ | PROT_WRITE, MAP_SHARED, fd,
		     "the memfd");
	file = open(job->archive, O_RDONLY | O_CLOEXEC);
	archive = map_at(NULL, job->archive_len, PROT_READ, MAP_SHARED, file,
			 job->archive);
	close(file);
	fill(mem);
	must_find(ORDINARY, mem, archive, job->archive_len);
	munmap(mem, mem_len);
	munmap(archive, job->archive_len);
	snprintf(path, size, "/proc/%d/fd/%d", getpid(), fd);
	job->mem = path;
	return fd;
}

static void prepare_region(struct job *job)
{
	const size_t granule = mshare_granule();
	const size_t archive_off = round_up_to(mem_len, 1024 * MIB);
	char *base = (char *)round_up_to(REGION_BASE, granule);
	int file;

	snprintf(region_name, sizeof(region_name), "demo-%d", getpid());
	if (mshare(region_name, base,
		   round_up_to(archive_off + job->archive_len, granule),
		   O_CREAT | O_EXCL | O_RDWR, 0600) < 0)
		err(1, "cannot create region %s", region_name);
	snprintf(region_path, sizeof(region_path), MSHARE_DIR "/%s",
		 region_name);

	job->mem = region_name;
	job->mem_at = map_at(base, mem_len, PROT_READ | PROT_WRITE,
			     MAP_SHARED | MAP_ANONYMOUS | MAP_FIXED, -1,
			     "anonymous memory in the region");
	file = open(job->archive, O_RDONLY | O_CLOEXEC);
	job->archive_at = map_at(base + archive_off, job->archive_len,
				 PROT_READ, MAP_SHARED | MAP_FIXED, file,
				 "the file in the region");
	close(file);
	fill(job->mem_at);
	must_find(REGION, job->mem_at, job->archive_at, job->archive_len);
}

static void run_way(enum way way, const char *archive, size_t archive_len,
		    struct result *r)
{
	struct job job = {
		.way = way, .archive = archive, .archive_len = archive_len,
		.mem_len = mem_len,
	};
	int report[2], start[2], leave[2], memfd = -1;
	char path[64];
	long before;
	u64 t;

	make_pipe(report);
	make_pipe(start);
	make_pipe(leave);

	before = page_tables_settled_kb();
	printf("%s: filling the memory\n", way_name[way]);
	if (way == REGION)
		prepare_region(&job);
	else
		memfd = prepare_ordinary(&job, path, sizeof(path));

	printf("%s: starting %u processes\n", way_name[way], nr_workers);
	r->own_kb = page_tables_settled_kb();
	start_workers(&job, report[1], start[0], leave[0]);
	close(report[1]);
	close(start[0]);
	close(leave[0]);
	wait_ready(report[0]);
	r->own_kb = page_tables_kb() - r->own_kb;

	t = now_ns();
	close(start[1]);
	wait_done(&job, report[0], r);
	r->read_ns = now_ns() - t;
	r->tables_kb = page_tables_kb() - before;

	t = now_ns();
	close(leave[1]);
	wait_gone(r);
	r->leave_ns = now_ns() - t;

	close(report[0]);
	if (memfd >= 0)
		close(memfd);
	if (way == REGION) {
		if (mshare_unlink(region_name) < 0)
			err(1, "cannot remove region %s", region_name);
		region_path[0] = '\0';
	}
}

/* ------------------------------------------------------------------------- */
/* The table */

/* One line of the table; a way that was not run has "-". */
static void print_row(const char *label, const bool *ways, double ordinary,
		      double region, const char *unit, double scale)
{
	const double values[NR_WAYS] = {
		[ORDINARY] = ordinary, [REGION] = region
	};
	enum way way;

	printf("%-36s", label);
	for (way = 0; way < NR_WAYS; way++) {
		if (!ways[way])
			printf("%14s   ", "-");
		else if (scale == 1)
			printf("%14s %-2s", commas(values[way]), unit);
		else
			printf("%14.2f %-2s", values[way] / scale, unit);
	}
	if (ways[ORDINARY] && ways[REGION] && region > 0)
		printf("%9.1f x\n", ordinary / region);
	else
		printf("%11s\n", "-");
}

static void print_table(const bool *ways, const struct result *o,
			const struct result *g, const char *archive,
			size_t archive_len)
{
	const char *slash = strrchr(archive, '/');

	printf("\n"
	       "%u processes share %.0f MiB of anonymous memory and the %.0f MiB of\n"
	       "%s, and each checksums all of it.\n"
	       "Every checksum is right.\n\n",
	       nr_workers, (double)mem_len / MIB, (double)archive_len / MIB,
	       slash ? slash + 1 : archive);
	printf("%-36s%17s%17s%11s\n", "", way_name[ORDINARY], way_name[REGION],
	       "ratio");
	print_row("page tables, all processes", ways, o->tables_kb,
		  g->tables_kb, "kB", 1);
	print_row("  without what idle processes need", ways,
		  o->tables_kb - o->own_kb, g->tables_kb - g->own_kb, "kB", 1);
	print_row("page faults, all processes", ways, o->faults, g->faults, "",
		  1);
	print_row("  while mapping and reading", ways, o->faults_reading,
		  g->faults_reading, "", 1);
	print_row("time until all have read everything", ways, o->read_ns,
		  g->read_ns, "s", NSEC_PER_SEC);
	print_row("time until all have exited", ways, o->leave_ns, g->leave_ns,
		  "s", NSEC_PER_SEC);
	printf("\n"
	       "Page tables: growth of PageTables in /proc/meminfo, from before anything was\n"
	       "mapped to the moment when the last process has read everything and none has\n"
	       "exited. Page faults: minor and major, summed over the processes (getrusage).\n"
	       "The time to read runs from the moment all processes are released together,\n"
	       "nothing mapped or attached yet; file and memory are resident both times.\n");
}

static void usage(void)
{
	fprintf(stderr, "usage: demo [--workers N] [--mem MIB] [--only ordinary|region] ARCHIVE\n");
	exit(2);
}

static unsigned long number(const char *s, unsigned long min,
			    unsigned long max)
{
	char *end;
	unsigned long n = strtoul(s, &end, 10);

	if (*end || end == s || n < min || n > max)
		errx(2, "%s: a number from %lu to %lu is wanted", s, min, max);
	return n;
}

int main(int argc, char **argv)
{
	static const struct option options[] = {
		{ "workers", required_argument, NULL, 'n' },
		{ "mem", required_argument, NULL, 'm' },
		{ "only", required_argument, NULL, 'o' },
		{ }
	};
	struct result results[NR_WAYS] = { };
	bool ways[NR_WAYS] = { true, true };
	const char *missing, *archive;
	enum way way;
	struct stat st;
	int c, fd;

	if (argc == 10 && !strcmp(argv[1], "--worker"))
		return worker_main(argv + 2);

	while ((c = getopt_long(argc, argv, "", options, NULL)) != -1) {
		switch (c) {
		case 'n':
			nr_workers = number(optarg, 1, MAX_WORKERS);
			break;
		case 'm':
			mem_len = number(optarg, 1, 1UL << 20) * MIB;
			break;
		case 'o':
			ways[ORDINARY] = !strcmp(optarg, "ordinary");
			ways[REGION] = !strcmp(optarg, "region");
			if (!ways[ORDINARY] && !ways[REGION])
				usage();
			break;
		default:
			usage();
		}
	}
	if (argc - optind != 1)
		usage();
	archive = argv[optind];

	setvbuf(stdout, NULL, _IOLBF, 0);
	missing = ways[REGION] ? mshare_missing() : NULL;
	if (missing)
		errx(1, "%s", missing);
	fd = open(archive, O_RDONLY | O_CLOEXEC);
	if (fd < 0 || fstat(fd, &st) < 0)
		err(1, "cannot open %s", archive);
	if (!S_ISREG(st.st_mode) || !st.st_size)
		errx(1, "%s: an ordinary file with content is wanted", archive);
	close(fd);
	workers = calloc(nr_workers, sizeof(*workers));
	if (!workers)
		err(1, "calloc");
	atexit(remove_region);
	signal(SIGINT, on_signal);
	signal(SIGTERM, on_signal);
	signal(SIGHUP, on_signal);

	printf("reading %s (%s bytes)\n", archive, commas(st.st_size));
	read_archive(archive, st.st_size);
	for (way = 0; way < NR_WAYS; way++)
		if (ways[way])
			run_way(way, archive, st.st_size, &results[way]);
	print_table(ways, &results[ORDINARY], &results[REGION], archive,
		    st.st_size);
	return 0;
}
