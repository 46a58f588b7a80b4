// SPDX-License-Identifier: GPL-2.0
/*
 * What memory calls cost in a region, against the same calls in the address space
 * that threads share. One task makes the calls, N - 1 others have touched the
 * memory and sleep. Under -icount a microsecond is a thousand instructions, and
 * the figures repeat.
 *
 * With --spin the caller has a CPU of its own, and on each other CPU one of the
 * others reads the memory all the time. That is measured in real time, of which a
 * machine gives more or less from one second to the next: threads and processes take
 * turns, ROUNDS of each, and each call counts with the best of its rounds' medians.
 *
 * Only the call itself is timed, not what prepares the memory for it.
 */
#define _GNU_SOURCE
#include <getopt.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/wait.h>

#include "../demo/mshare.h"

#define PAGE		4096UL
#define MAX_WORKERS	4096
#define MAX_REPS	2001
#define MAX_COUNTS	8
#define ROUNDS		9	/* in real time */
#define MEM		(4 * MIB)	/* mapped; the calls are on a part of it */
#define PART		(64 * PAGE)
#define THP_ENABLED	"/sys/kernel/mm/transparent_hugepage/enabled"

enum kind { THREADS, PROCESSES };

struct team {
	char *mem;
	char *start;		/* of what is read while spinning */
	bool spin;
	atomic_int ready;
	atomic_int stop;
};

static unsigned int nr_reps = 41;
static bool spin;
static char region[32];

static bool write_file(const char *path, const char *value)
{
	int fd = open(path, O_WRONLY | O_CLOEXEC);
	bool ok = fd >= 0 && write(fd, value, strlen(value)) > 0;

	if (fd >= 0)
		close(fd);
	return ok;
}

static void write_pages(char *p, size_t len)
{
	size_t i;

	for (i = 0; i < len; i += PAGE)
		*(volatile char *)(p + i) = 1;
}

static void map(char *p, size_t len, int flags)
{
	if (mmap(p, len, PROT_READ | PROT_WRITE,
		 MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED | flags, -1, 0) != p)
		err(1, "mmap");
}

/* ------------------------------------------------------------------------- */
/* The calls: prepare, and then the one that is timed */

static void protect_page(char *mem, bool prepare)
{
	if (prepare) {
		if (mprotect(mem + PART, PAGE, PROT_READ | PROT_WRITE))
			err(1, "mprotect");
		write_pages(mem + PART, PAGE);
	} else if (mprotect(mem + PART, PAGE, PROT_READ)) {
		err(1, "mprotect");
	}
}

static void protect_part(char *mem, bool prepare)
{
	if (prepare) {
		if (mprotect(mem + PART, PART, PROT_READ | PROT_WRITE))
			err(1, "mprotect");
		write_pages(mem + PART, PART);
	} else if (mprotect(mem + PART, PART, PROT_READ)) {
		err(1, "mprotect");
	}
}

static void unmap_part(char *mem, bool prepare)
{
	if (prepare)
		map(mem + PART, PART, MAP_POPULATE);
	else if (munmap(mem + PART, PART))
		err(1, "munmap");
}

static void drop_part(char *mem, bool prepare)
{
	if (prepare) {
		map(mem + PART, PART, 0);
		write_pages(mem + PART, PART);
	} else if (madvise(mem + PART, PART, MADV_DONTNEED)) {
		err(1, "madvise");
	}
}

static void map_part(char *mem, bool prepare)
{
	if (prepare) {
		if (munmap(mem + PART, PART))
			err(1, "munmap");
	} else {
		map(mem + PART, PART, MAP_POPULATE);
	}
}

static void map_over(char *mem, bool prepare)
{
	if (!prepare)
		map(mem + PART, PART, MAP_POPULATE);
}

static const struct call {
	const char *name;
	void (*make)(char *mem, bool prepare);
} calls[] = {
	{ "mprotect, a page", protect_page },
	{ "mprotect, 64 pages", protect_part },
	{ "munmap, 64 pages", unmap_part },
	{ "madvise(DONTNEED), 64 pages", drop_part },
	{ "mmap(POPULATE), 64 pages", map_part },
	{ "mmap(FIXED|POPULATE) over 64 pages", map_over },
};

#define NR_CALLS (sizeof(calls) / sizeof(calls[0]))

/* ------------------------------------------------------------------------- */

static void run_on(unsigned int cpu)
{
	cpu_set_t set;

	CPU_ZERO(&set);
	CPU_SET(cpu, &set);
	if (sched_setaffinity(0, sizeof(set), &set))
		err(1, "cannot run on CPU %u", cpu);
}

static void stay(struct team *team, unsigned int i)
{
	bool spins = team->spin && i < sysconf(_SC_NPROCESSORS_ONLN);
	volatile char *p = team->start;

	if (spins)
		run_on(i);
	(void)*p;
	atomic_fetch_add(&team->ready, 1);
	while (!atomic_load(&team->stop)) {
		if (spins)
			(void)*p;
		else
			usleep(3600 * 1000 * 1000U);
	}
}

struct thread_arg {
	struct team *team;
	unsigned int i;
};

static void *thread_main(void *arg)
{
	struct thread_arg a = *(struct thread_arg *)arg;

	stay(a.team, a.i);
	return NULL;
}

static void wake(int sig)
{
	(void)sig;
}

static int compare(const void *a, const void *b)
{
	u64 x = *(const u64 *)a, y = *(const u64 *)b;

	return (x > y) - (x < y);
}

/* In a process of its own: the medians in ns, into @results if they are better. */
static void run(enum kind kind, unsigned int n, u64 *results)
{
	static struct thread_arg args[MAX_WORKERS];
	static pthread_t threads[MAX_WORKERS];
	static pid_t pids[MAX_WORKERS];
	static u64 times[MAX_REPS];
	struct team *team;
	unsigned int i, c;
	size_t granule = mshare_granule();
	char *mem = (char *)round_up_to(REGION_BASE, granule);

	team = mmap(NULL, PAGE, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS,
		    -1, 0);
	if (team == MAP_FAILED)
		err(1, "mmap");
	if (kind == PROCESSES &&
	    mshare(region, mem, granule, O_CREAT | O_EXCL | O_RDWR, 0600))
		err(1, "cannot create region %s", region);
	map(mem, MEM, MAP_POPULATE);
	team->mem = mem;
	team->start = mem;
	team->spin = spin;
	signal(SIGUSR1, wake);
	if (spin)
		run_on(0);

	for (i = 0; i < n - 1; i++) {
		args[i] = (struct thread_arg){ team, i + 1 };
		if (kind == THREADS) {
			errno = pthread_create(&threads[i], NULL, thread_main, &args[i]);
			if (errno)
				err(1, "cannot start thread %u", i);
			continue;
		}
		pids[i] = fork();
		if (pids[i] < 0)
			err(1, "cannot start process %u", i);
		if (!pids[i]) {
			prctl(PR_SET_PDEATHSIG, SIGKILL);
			stay(team, i + 1);
			_exit(0);
		}
	}
	while (atomic_load(&team->ready) != (int)n - 1)
		usleep(1000);

	for (c = 0; c < NR_CALLS; c++) {
		/* The first ones warm the kernel's caches. */
		for (i = 0; i < nr_reps + 3; i++) {
			u64 t;

			calls[c].make(mem, true);
			t = now_ns();
			calls[c].make(mem, false);
			times[i < 3 ? 0 : i - 3] = now_ns() - t;
		}
		qsort(times, nr_reps, sizeof(times[0]), compare);
		if (!results[c] || times[nr_reps / 2] < results[c])
			results[c] = times[nr_reps / 2];
		map(mem, MEM, MAP_POPULATE);
	}

	atomic_store(&team->stop, 1);
	for (i = 0; i < n - 1; i++) {
		if (kind == THREADS) {
			pthread_kill(threads[i], SIGUSR1);
			pthread_join(threads[i], NULL);
		} else {
			kill(pids[i], SIGKILL);
			waitpid(pids[i], NULL, 0);
		}
	}
	if (kind == PROCESSES && mshare_unlink(region))
		err(1, "cannot remove region %s", region);
}

static void run_apart(enum kind kind, unsigned int n, u64 *results)
{
	pid_t pid = fork();
	int status;

	if (pid < 0)
		err(1, "fork");
	if (!pid) {
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		run(kind, n, results);
		_exit(0);
	}
	if (waitpid(pid, &status, 0) != pid || status)
		errx(1, "%s, N = %u: failed", kind == THREADS ? "threads" : "processes", n);
}

static bool missed;

static void bar(const char *name, unsigned int n, u64 measured, u64 reference,
		double limit)
{
	double ratio = (double)measured / reference;
	bool ok = ratio <= limit;

	printf("%-36s %4u %10.2f us / %10.2f us = %.3f, at most %.2f: %s\n", name, n,
	       measured / 1e3, reference / 1e3, ratio, limit, ok ? "ok" : "MISS");
	if (!ok)
		missed = true;
}

static unsigned long number(const char *s, unsigned long min, unsigned long max)
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
		{ "reps", required_argument, NULL, 'r' },
		{ "workers", required_argument, NULL, 'n' },
		{ "spin", no_argument, NULL, 's' },
		{ "no-check", no_argument, NULL, 'c' },
		{ }
	};
	unsigned int counts[MAX_COUNTS] = { 1, 32, 500 }, nr_counts = 3, i, c, round;
	u64 (*results)[2][NR_CALLS];
	bool check = true;
	const char *missing;
	char *item;
	int o;

	while ((o = getopt_long(argc, argv, "", options, NULL)) != -1) {
		switch (o) {
		case 'r':
			nr_reps = number(optarg, 1, MAX_REPS);
			break;
		case 'n':
			nr_counts = 0;
			while ((item = strsep(&optarg, ","))) {
				if (nr_counts == MAX_COUNTS)
					errx(2, "at most %d numbers of workers", MAX_COUNTS);
				counts[nr_counts++] = number(item, 1, MAX_WORKERS);
			}
			break;
		case 's':
			spin = true;
			break;
		case 'c':
			check = false;
			break;
		default:
			errx(2, "usage: calls [--reps R] [--workers N[,N...]] [--spin] [--no-check]");
		}
	}
	setvbuf(stdout, NULL, _IOLBF, 0);
	missing = mshare_missing();
	if (missing)
		errx(1, "%s", missing);
	if (!write_file(THP_ENABLED, "never"))
		warn(THP_ENABLED);
	snprintf(region, sizeof(region), "calls-%d", getpid());
	results = mmap(NULL, MAX_COUNTS * sizeof(*results), PROT_READ | PROT_WRITE,
		       MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	if (results == MAP_FAILED)
		err(1, "mmap");

	for (i = 0; i < nr_counts; i++) {
		printf("N = %u%s\n", counts[i], spin ? ", the memory in use on all CPUs" : "");
		for (round = 0; round < (spin ? ROUNDS : 1); round++) {
			run_apart(THREADS, counts[i], results[i][THREADS]);
			run_apart(PROCESSES, counts[i], results[i][PROCESSES]);
		}
	}
	printf("\nA call in a region with N attached processes, against one by one of N threads:\n\n");
	for (c = 0; c < NR_CALLS; c++)
		for (i = 0; i < nr_counts; i++)
			bar(calls[c].name, counts[i], results[i][PROCESSES][c],
			    results[i][THREADS][c], 1.15);
	if (nr_counts > 1 && !spin) {
		printf("\nWith %u attached processes, against %u:\n\n",
		       counts[nr_counts - 1], counts[0]);
		for (c = 0; c < NR_CALLS; c++)
			bar(calls[c].name, counts[nr_counts - 1],
			    results[nr_counts - 1][PROCESSES][c],
			    results[0][PROCESSES][c], 1.05);
	}
	return check && missed ? 1 : 0;
}
