// SPDX-License-Identifier: GPL-2.0
/*
 * What sharing memory costs, by the way it is shared. N workers share memory
 * that is already populated; each reads one byte of every page. All ways run in
 * one boot, so that ratios compare like with like; under -icount a millisecond
 * is a million instructions and the figures repeat.
 *
 *   tables	growth of PageTables in /proc/meminfo at the peak, from before
 *		the memory was mapped
 *   faults	minor and major, the workers' whole lives
 *   reading	those of them taken between the start and the end of reading
 *   touch	from the first fork until the last worker has read everything
 *   exit	from the moment all workers are released until all are gone
 *
 * Idle processes are forked, report and exit, and share nothing: their touch is
 * the cost of N forks.
 */
#define _GNU_SOURCE
#include <getopt.h>
#include <poll.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdbool.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/wait.h>

#include "../demo/mshare.h"

#define PAGE		4096UL
#define MAX_WORKERS	4096
#define MAX_REPS	99
#define MAX_COUNTS	8
#define HUGE_PAGE	(2 * MIB)

#define THP_ENABLED	"/sys/kernel/mm/transparent_hugepage/enabled"
#define NR_HUGEPAGES	"/proc/sys/vm/nr_hugepages"

struct result {
	bool valid;
	double tables_kb;
	double faults;
	double reading;
	double touch_ns;
	double exit_ns;
};

/* One way of sharing: how the memory comes and goes, what a worker is. */
struct way {
	const char *name;
	bool (*setup)(void);	/* sets shared; false: cannot be had here */
	void (*teardown)(void);
	bool threads;		/* workers are threads */
	bool attach;		/* workers attach the region by name */
};

static size_t mem_len = 512 * MIB;
static unsigned int nr_reps = 3;
static char *shared;		/* the memory, NULL for idle processes */

static char region[32];
static char region_path[64];
static size_t region_len;
static char tmpfs_dir[32];

/* ------------------------------------------------------------------------- */
/* Settings that a way needs; all are put back */

static bool write_file(const char *path, const char *value)
{
	int fd = open(path, O_WRONLY | O_CLOEXEC);
	bool ok = fd >= 0 && write(fd, value, strlen(value)) > 0;

	if (fd >= 0)
		close(fd);
	return ok;
}

static long read_number(const char *path)
{
	FILE *f = fopen(path, "re");
	long n = -1;

	if (!f)
		return -1;
	if (fscanf(f, "%ld", &n) != 1)
		n = -1;
	fclose(f);
	return n;
}

static char thp_before[16];

/* Transparent huge pages always, or never while 4 KiB pages are measured. */
static bool set_thp(const char *value)
{
	char line[64] = "", *open_bracket, *close_bracket;
	FILE *f;

	if (!thp_before[0]) {
		f = fopen(THP_ENABLED, "re");
		if (!f)
			return false;
		open_bracket = fgets(line, sizeof(line), f) ?
			strchr(line, '[') : NULL;
		fclose(f);
		close_bracket = open_bracket ? strchr(open_bracket, ']') : NULL;
		if (!close_bracket)
			return false;
		*close_bracket = '\0';
		snprintf(thp_before, sizeof(thp_before), "%.15s",
			 open_bracket + 1);
	}
	return write_file(THP_ENABLED, value);
}

static void drop_region(void)
{
	if (region_path[0])
		unlink(region_path);
	region_path[0] = '\0';
}

static void drop_tmpfs(void)
{
	if (tmpfs_dir[0]) {
		umount2(tmpfs_dir, MNT_DETACH);
		rmdir(tmpfs_dir);
	}
	tmpfs_dir[0] = '\0';
}

static pid_t main_pid;

static void put_back(void)
{
	if (getpid() != main_pid)
		return;
	drop_region();
	drop_tmpfs();
	if (thp_before[0])
		write_file(THP_ENABLED, thp_before);
}

static void on_signal(int sig)
{
	put_back();
	_exit(128 + sig);
}

/* ------------------------------------------------------------------------- */
/* The ways */

/* Not inlined, so that a call on one page faults the code in. */
__attribute__((noinline))
static void write_pages(char *p, size_t len)
{
	size_t i;

	for (i = 0; i < len; i += PAGE)
		*(volatile char *)(p + i) = 1;
}

static bool map_shared(int fd, int flags)
{
	void *p = mmap(NULL, mem_len, PROT_READ | PROT_WRITE, flags, fd, 0);

	if (p == MAP_FAILED)
		return false;
	shared = p;
	write_pages(shared, mem_len);
	return true;
}

static void unmap_shared(void)
{
	munmap(shared, mem_len);
	shared = NULL;
}

static bool setup_idle(void)
{
	return true;
}

static void teardown_idle(void)
{
}

static bool setup_shared(void)
{
	return map_shared(-1, MAP_SHARED | MAP_ANONYMOUS);
}

static bool setup_tmpfs(void)
{
	bool ok = false;
	int fd;

	snprintf(tmpfs_dir, sizeof(tmpfs_dir), "/tmp/bench.%d", getpid());
	if (mkdir(tmpfs_dir, 0700) < 0 ||
	    mount("bench", tmpfs_dir, "tmpfs", 0, "huge=always") < 0) {
		drop_tmpfs();
		return false;
	}
	fd = open(tmpfs_dir, O_TMPFILE | O_RDWR | O_CLOEXEC, 0600);
	ok = fd >= 0 && !ftruncate(fd, mem_len) && map_shared(fd, MAP_SHARED);
	if (fd >= 0)
		close(fd);
	if (!ok)
		drop_tmpfs();
	return ok;
}

static void teardown_tmpfs(void)
{
	unmap_shared();
	drop_tmpfs();
}

static char hugepages_before[32];

static void teardown_hugetlb(void)
{
	if (shared)
		unmap_shared();
	write_file(NR_HUGEPAGES, hugepages_before);
}

static bool setup_hugetlb(void)
{
	long had = read_number(NR_HUGEPAGES), need = mem_len / HUGE_PAGE;
	char value[32];

	if (had < 0)
		return false;
	snprintf(hugepages_before, sizeof(hugepages_before), "%ld", had);
	snprintf(value, sizeof(value), "%ld", had + need);
	write_file(NR_HUGEPAGES, value);
	if (read_number(NR_HUGEPAGES) == had + need &&
	    map_shared(-1, MAP_SHARED | MAP_ANONYMOUS | MAP_HUGETLB))
		return true;
	teardown_hugetlb();
	return false;
}

static void make_region(void)
{
	size_t granule = mshare_granule();

	shared = (char *)round_up_to(REGION_BASE, granule);
	region_len = round_up_to(mem_len, granule);
	snprintf(region, sizeof(region), "bench-%d", getpid());
	if (mshare(region, shared, region_len, O_CREAT | O_EXCL | O_RDWR,
		   0600) < 0)
		err(1, "cannot create region %s", region);
	snprintf(region_path, sizeof(region_path), MSHARE_DIR "/%s", region);
}

static void map_in_region(int flags)
{
	if (mmap(shared, mem_len, PROT_READ | PROT_WRITE, flags | MAP_FIXED,
		 -1, 0) == MAP_FAILED)
		err(1, "cannot map memory in region %s", region);
}

static void teardown_region(void)
{
	if (mshare_unlink(region) < 0)
		err(1, "cannot remove region %s", region);
	region_path[0] = '\0';
	shared = NULL;
}

static bool setup_region(void)
{
	make_region();
	map_in_region(MAP_SHARED | MAP_ANONYMOUS);
	write_pages(shared, mem_len);
	return true;
}

/* The creator leaves; the region stays, having a name. */
static bool setup_region_by_name(void)
{
	setup_region();
	if (munmap(shared, region_len) < 0)
		err(1, "cannot detach region %s", region);
	return true;
}

/* Private in a region is one copy for all who are attached. */
static bool setup_region_thp(void)
{
	if (!set_thp("always"))
		return false;
	make_region();
	map_in_region(MAP_PRIVATE | MAP_ANONYMOUS);
	write_pages(shared, mem_len);
	return true;
}

static void teardown_region_thp(void)
{
	teardown_region();
	set_thp("never");
}

enum {
	WAY_IDLE, WAY_SHARED, WAY_TMPFS, WAY_HUGETLB, WAY_THREADS, WAY_MSHARE,
	WAY_MSHARE_NAME, WAY_MSHARE_THP, NR_WAYS
};

static const struct way ways[NR_WAYS] = {
	[WAY_IDLE] = {
		.name = "idle processes",
		.setup = setup_idle, .teardown = teardown_idle,
	},
	[WAY_SHARED] = {
		.name = "shared mmap, 4 KiB pages",
		.setup = setup_shared, .teardown = unmap_shared,
	},
	[WAY_TMPFS] = {
		.name = "tmpfs huge=always",
		.setup = setup_tmpfs, .teardown = teardown_tmpfs,
	},
	[WAY_HUGETLB] = {
		.name = "hugetlb",
		.setup = setup_hugetlb, .teardown = teardown_hugetlb,
	},
	[WAY_THREADS] = {
		.name = "threads", .threads = true,
		.setup = setup_shared, .teardown = unmap_shared,
	},
	[WAY_MSHARE] = {
		.name = "mshare, 4 KiB pages",
		.setup = setup_region, .teardown = teardown_region,
	},
	[WAY_MSHARE_NAME] = {
		.name = "mshare, attach by name", .attach = true,
		.setup = setup_region_by_name, .teardown = teardown_region,
	},
	[WAY_MSHARE_THP] = {
		.name = "mshare, THP",
		.setup = setup_region_thp, .teardown = teardown_region_thp,
	},
};

static bool is_mshare(unsigned int way)
{
	return way >= WAY_MSHARE;
}

/* ------------------------------------------------------------------------- */
/* Workers */

struct team {
	const struct way *way;
	int report[2];		/* each worker writes its faults when it is done */
	int leave[2];		/* closed when all may go */
};

__attribute__((noinline))
static unsigned int read_pages(const char *p, size_t len)
{
	unsigned int sum = 0;
	size_t i;

	for (i = 0; i < len; i += PAGE)
		sum += *(const volatile char *)(p + i);
	return sum;
}

static void work(const struct team *team)
{
	struct rusage before, after;
	u64 faults;
	char c = 0;

	/* The process's own first faults come before what is counted. */
	getrusage(RUSAGE_THREAD, &after);
	read_pages(&c, 1);
	getrusage(RUSAGE_THREAD, &before);
	if (team->way->attach && mshare(region, NULL, 0, O_RDWR, 0) < 0)
		err(1, "cannot attach region %s", region);
	if (shared)
		read_pages(shared, mem_len);
	getrusage(RUSAGE_THREAD, &after);

	faults = faults_of(&after) - faults_of(&before);
	if (write(team->report[1], &faults, sizeof(faults)) != sizeof(faults))
		err(1, "worker: cannot report");
	if (read(team->leave[0], &c, 1))
		errx(1, "worker: not released");
}

static void *thread_main(void *team)
{
	work(team);
	return NULL;
}

static void process_main(const struct team *team)
{
	prctl(PR_SET_PDEATHSIG, SIGKILL);
	close(team->leave[1]);
	work(team);
	_exit(0);
}

static void collect_reports(const struct team *team, unsigned int n,
			    struct result *r)
{
	struct pollfd pfd = { .fd = team->report[0], .events = POLLIN };
	siginfo_t si = { .si_pid = 0 };
	u64 faults;

	while (n) {
		if (poll(&pfd, 1, 1000) <= 0) {
			if (!waitid(P_ALL, 0, &si, WEXITED | WNOHANG | WNOWAIT) &&
			    si.si_pid)
				errx(1, "a worker died (status %d)",
				     si.si_status);
			continue;
		}
		if (read(team->report[0], &faults, sizeof(faults)) !=
		    sizeof(faults))
			err(1, "reading the reports");
		r->reading += faults;
		n--;
	}
}

static struct result run_team(const struct way *way, unsigned int n,
			      long tables_before)
{
	static pthread_t threads[MAX_WORKERS];
	static pid_t pids[MAX_WORKERS];
	struct result r = { .valid = true };
	struct team team = { .way = way };
	struct rusage ru, self;
	unsigned int i;
	int status;
	u64 t;

	if (pipe2(team.report, O_CLOEXEC) < 0 || pipe2(team.leave, O_CLOEXEC) < 0)
		err(1, "pipe");
	getrusage(RUSAGE_SELF, &self);

	t = now_ns();
	for (i = 0; i < n; i++) {
		if (way->threads) {
			errno = pthread_create(&threads[i], NULL, thread_main,
					       &team);
			if (errno)
				err(1, "cannot start thread %u", i);
			continue;
		}
		pids[i] = fork();
		if (pids[i] < 0)
			err(1, "cannot start process %u", i);
		if (!pids[i])
			process_main(&team);
	}
	collect_reports(&team, n, &r);
	r.touch_ns = now_ns() - t;
	r.tables_kb = page_tables_kb() - tables_before;

	t = now_ns();
	close(team.leave[1]);
	for (i = 0; i < n; i++) {
		if (way->threads) {
			pthread_join(threads[i], NULL);
			continue;
		}
		if (wait4(pids[i], &status, 0, &ru) < 0 || status)
			errx(1, "worker %u failed (status %#x)", i, status);
		r.faults += faults_of(&ru);
	}
	r.exit_ns = now_ns() - t;

	if (way->threads) {
		getrusage(RUSAGE_SELF, &ru);
		r.faults = faults_of(&ru) - faults_of(&self);
	}
	close(team.leave[0]);
	close(team.report[0]);
	close(team.report[1]);
	return r;
}

/* ------------------------------------------------------------------------- */
/* Medians and the table */

static int compare(const void *a, const void *b)
{
	double x = *(const double *)a, y = *(const double *)b;

	return (x > y) - (x < y);
}

static double median(const double *values, unsigned int n)
{
	double sorted[MAX_REPS];

	memcpy(sorted, values, n * sizeof(*values));
	qsort(sorted, n, sizeof(*sorted), compare);
	return n % 2 ? sorted[n / 2] : (sorted[n / 2 - 1] + sorted[n / 2]) / 2;
}

static struct result median_result(const struct result *r, unsigned int n)
{
	struct result m = { .valid = true };
	double v[MAX_REPS];
	unsigned int i;

#define MEDIAN_OF(field)			\
	do {					\
		for (i = 0; i < n; i++)		\
			v[i] = r[i].field;	\
		m.field = median(v, n);		\
	} while (0)

	MEDIAN_OF(tables_kb);
	MEDIAN_OF(faults);
	MEDIAN_OF(reading);
	MEDIAN_OF(touch_ns);
	MEDIAN_OF(exit_ns);
#undef MEDIAN_OF
	return m;
}

static void measure(const struct way *way, const unsigned int *counts,
		    unsigned int nr_counts, struct result *results)
{
	struct result reps[MAX_REPS];
	long before = page_tables_settled_kb();
	unsigned int c, i;

	printf("%s: preparing\n", way->name);
	if (!way->setup()) {
		printf("%s: cannot be had here, left out\n", way->name);
		return;
	}
	for (c = 0; c < nr_counts; c++) {
		/* A first run, not counted, warms the kernel's caches. */
		for (i = 0; i <= nr_reps; i++) {
			page_tables_settled_kb();
			reps[i ? i - 1 : 0] = run_team(way, counts[c], before);
		}
		results[c] = median_result(reps, nr_reps);
		printf("%s: N = %u: touch %.1f ms, exit %.1f ms\n", way->name,
		       counts[c], results[c].touch_ns / 1e6,
		       results[c].exit_ns / 1e6);
	}
	way->teardown();
}

/*
 * In a process of its own, so that no way finds what another one left behind: the
 * stacks of threads, which the C library keeps, are copied by each later fork.
 * @results is memory that is shared with it.
 */
static void measure_way(const struct way *way, const unsigned int *counts,
			unsigned int nr_counts, struct result *results)
{
	pid_t pid = fork();
	int status;

	if (pid < 0)
		err(1, "fork");
	if (!pid) {
		prctl(PR_SET_PDEATHSIG, SIGTERM);
		main_pid = getpid();
		/* What the parent has set for all is the parent's to put back. */
		thp_before[0] = '\0';
		measure(way, counts, nr_counts, results);
		exit(0);
	}
	if (waitpid(pid, &status, 0) != pid || status)
		exit(WIFEXITED(status) ? WEXITSTATUS(status) : 1);
}

static void print_table(const unsigned int *counts, unsigned int nr_counts,
			struct result (*results)[MAX_COUNTS])
{
	const struct result *r;
	unsigned int c, w;

	printf("\n| way of sharing           |   N | page tables, kB |    faults |   reading | touch, ms | exit, ms |\n");
	printf("| ------------------------ | --: | --------------: | --------: | --------: | --------: | -------: |\n");
	for (c = 0; c < nr_counts; c++) {
		for (w = 0; w < NR_WAYS; w++) {
			r = &results[w][c];
			if (!r->valid)
				continue;
			printf("| %-24s | %3u | %15s | %9s | %9s | %9.1f | %8.1f |\n",
			       ways[w].name, counts[c], commas(r->tables_kb),
			       commas(r->faults), commas(r->reading),
			       r->touch_ns / 1e6, r->exit_ns / 1e6);
		}
	}
}

/* ------------------------------------------------------------------------- */
/* First touch of memory that nobody has touched */

enum access { READ, WRITE };

struct touch {
	const char *name;
	int flags;
	enum access access;
	bool file;		/* of a memfd that is resident, not mapped */
	double outside_ns;
	double inside_ns;
};

static struct touch touches[] = {
	{ "private, written", MAP_PRIVATE | MAP_ANONYMOUS, WRITE, false, 0, 0 },
	{ "private, read (zero page)", MAP_PRIVATE | MAP_ANONYMOUS, READ, false,
	  0, 0 },
	{ "shared, written", MAP_SHARED | MAP_ANONYMOUS, WRITE, false, 0, 0 },
	{ "shared memfd, read (resident)", MAP_SHARED, READ, true, 0, 0 },
};

#define NR_TOUCHES	(sizeof(touches) / sizeof(touches[0]))

static double first_touch(const struct touch *touch, int fd, void *at)
{
	char *p;
	u64 t;

	p = mmap(at, mem_len, PROT_READ | PROT_WRITE,
		 touch->flags | (at ? MAP_FIXED : 0), fd, 0);
	if (p == MAP_FAILED)
		err(1, "first touch: cannot map (%s)%s", touch->name,
		    at ? " in a region" : "");
	t = now_ns();
	if (touch->access == WRITE)
		write_pages(p, mem_len);
	else
		read_pages(p, mem_len);
	t = now_ns() - t;
	munmap(p, mem_len);
	return t;
}

static int resident_memfd(void)
{
	int fd = memfd_create("bench", MFD_CLOEXEC);
	char *p;

	if (fd < 0 || ftruncate(fd, mem_len) < 0)
		err(1, "cannot make a memfd");
	p = mmap(NULL, mem_len, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	if (p == MAP_FAILED)
		err(1, "cannot map a memfd");
	write_pages(p, mem_len);
	munmap(p, mem_len);
	return fd;
}

static void measure_first_touch(struct touch *touch, bool inside)
{
	double out[MAX_REPS], in[MAX_REPS];
	int fd = touch->file ? resident_memfd() : -1;
	unsigned int i;

	/* In turn, so that both see the same state of the page allocator. */
	for (i = 0; i <= nr_reps; i++) {
		out[i ? i - 1 : 0] = first_touch(touch, fd, NULL);
		if (inside)
			in[i ? i - 1 : 0] = first_touch(touch, fd, shared);
	}
	touch->outside_ns = median(out, nr_reps);
	touch->inside_ns = inside ? median(in, nr_reps) : 0;
	if (fd >= 0)
		close(fd);
	printf("first touch: %s: %.1f ms outside", touch->name,
	       touch->outside_ns / 1e6);
	if (inside)
		printf(", %.1f ms in a region", touch->inside_ns / 1e6);
	printf("\n");
}

/* ------------------------------------------------------------------------- */
/* The bars */

static bool missed;

/* @measured may be at most @limit times @reference. */
static void bar(const char *name, double measured, double reference,
		double limit, const char *unit)
{
	double ratio = reference > 0 ? measured / reference : 0;
	bool ok = measured <= limit * reference;

	printf("%-48s %9.1f %-2s / %9.1f %-2s = %.3f, at most %.2f: %s\n",
	       name, measured, unit, reference, unit, ratio, limit,
	       ok ? "ok" : "MISS");
	if (!ok)
		missed = true;
}

static void bar_zero(const char *name, double measured)
{
	printf("%-48s %9.0f, at most 0: %s\n", name, measured,
	       measured ? "MISS" : "ok");
	if (measured)
		missed = true;
}

static const char *label(const char *what, const char *way)
{
	static char buf[64];

	snprintf(buf, sizeof(buf), "%s (%s)", what, way);
	return buf;
}

/* @c is the column of the largest N. */
static void print_bars(unsigned int n, unsigned int c,
		       struct result (*results)[MAX_COUNTS])
{
	const struct result *idle = &results[WAY_IDLE][c];
	const struct result *threads = &results[WAY_THREADS][c];
	const struct result *m;
	unsigned int w, i;

	printf("\nN = %u. Page tables and touch: against threads plus %u idle processes.\n"
	       "Exit: against %u idle processes. First touch: against the same mapping\n"
	       "outside a region.\n\n", n, n, n);
	for (w = WAY_MSHARE; w <= WAY_MSHARE_NAME; w++) {
		m = &results[w][c];
		bar(label("page tables", ways[w].name), m->tables_kb,
		    threads->tables_kb + idle->tables_kb, 1.05, "kB");
		bar_zero(label("faults in the region", ways[w].name),
			 m->reading);
		bar(label("touch", ways[w].name), m->touch_ns / 1e6,
		    (threads->touch_ns + idle->touch_ns) / 1e6, 1.1, "ms");
		bar(label("exit", ways[w].name), m->exit_ns / 1e6,
		    idle->exit_ns / 1e6, 1.1, "ms");
	}
	for (i = 0; i < NR_TOUCHES; i++)
		bar(label("first touch", touches[i].name),
		    touches[i].inside_ns / 1e6, touches[i].outside_ns / 1e6,
		    1.1, "ms");
}

/* ------------------------------------------------------------------------- */

static void usage(void)
{
	fprintf(stderr, "usage: bench [--reps R] [--mem MIB] [--workers N[,N...]] [--no-check] [--no-mshare]\n");
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

static unsigned int number_list(char *s, unsigned int *list)
{
	unsigned int n = 0;
	char *item;

	while ((item = strsep(&s, ","))) {
		if (n == MAX_COUNTS)
			errx(2, "at most %d numbers of workers", MAX_COUNTS);
		list[n++] = number(item, 1, MAX_WORKERS);
	}
	return n;
}

int main(int argc, char **argv)
{
	static const struct option options[] = {
		{ "reps", required_argument, NULL, 'r' },
		{ "mem", required_argument, NULL, 'm' },
		{ "workers", required_argument, NULL, 'n' },
		{ "no-check", no_argument, NULL, 'c' },
		{ "no-mshare", no_argument, NULL, 'x' },
		{ }
	};
	struct result (*results)[MAX_COUNTS];
	unsigned int counts[MAX_COUNTS] = { 1, 8, 32 }, nr_counts = 3, w;
	bool check = true, with_mshare = true;
	const char *missing;
	int c;

	while ((c = getopt_long(argc, argv, "", options, NULL)) != -1) {
		switch (c) {
		case 'r':
			nr_reps = number(optarg, 1, MAX_REPS);
			break;
		case 'm':
			mem_len = number(optarg, 2, 1UL << 20) * MIB;
			break;
		case 'n':
			nr_counts = number_list(optarg, counts);
			break;
		case 'c':
			check = false;
			break;
		case 'x':
			with_mshare = false;
			break;
		default:
			usage();
		}
	}
	if (optind != argc)
		usage();

	setvbuf(stdout, NULL, _IOLBF, 0);
	missing = with_mshare ? mshare_missing() : NULL;
	if (missing)
		errx(1, "%s", missing);
	results = mmap(NULL, NR_WAYS * sizeof(*results), PROT_READ | PROT_WRITE,
		       MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	if (results == MAP_FAILED)
		err(1, "mmap");
	main_pid = getpid();
	atexit(put_back);
	signal(SIGINT, on_signal);
	signal(SIGTERM, on_signal);
	signal(SIGHUP, on_signal);
	/* A mount of the benchmark's own is nobody else's business. */
	if (!unshare(CLONE_NEWNS))
		mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL);
	set_thp("never");

	for (w = 0; w < NR_WAYS; w++)
		if (with_mshare || !is_mshare(w))
			measure_way(&ways[w], counts, nr_counts, results[w]);

	if (with_mshare)
		make_region();
	for (w = 0; w < NR_TOUCHES; w++)
		measure_first_touch(&touches[w], with_mshare);
	if (with_mshare)
		teardown_region();

	print_table(counts, nr_counts, results);
	if (with_mshare)
		print_bars(counts[nr_counts - 1], nr_counts - 1, results);
	return check && missed ? 1 : 0;
}
