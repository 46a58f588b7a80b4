/* SPDX-License-Identifier: GPL-2.0 */
/*
 * What the demo and the benchmark share: the two calls, the granule, and how
 * page-table memory and time are measured.
 */
#ifndef DEMO_MSHARE_H
#define DEMO_MSHARE_H

#include <err.h>
#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/types.h>

#ifndef __NR_mshare
#define __NR_mshare		500
#define __NR_mshare_unlink	501
#endif

#define MSHARE_DIR		"/sys/fs/mshare"

typedef uint64_t u64;

#define NSEC_PER_SEC		1000000000ULL
#define MIB			(1024 * 1024ULL)

/* Regions start at the first granule from here on; nothing else lives there. */
#define REGION_BASE		0x100000000000ULL

static inline int mshare(const char *name, void *addr, size_t len, int oflag,
			 mode_t mode)
{
	return syscall(__NR_mshare, name, addr, len, oflag, mode);
}

static inline int mshare_unlink(const char *name)
{
	return syscall(__NR_mshare_unlink, name);
}

/* One line that says why this kernel cannot do it, or NULL when it can. */
static inline const char *mshare_missing(void)
{
	if (mshare("", NULL, 0, O_RDWR, 0) < 0 && errno == ENOSYS)
		return "this kernel has no mshare(): run it in the one that scripts/vm boots";
	if (access(MSHARE_DIR "/mshare_info", R_OK) < 0)
		return "no msharefs is mounted at " MSHARE_DIR;
	return NULL;
}

/* The unit of alignment and size, which the kernel says and nobody assumes. */
static inline size_t mshare_granule(void)
{
	unsigned long long granule = 0;
	FILE *f = fopen(MSHARE_DIR "/mshare_info", "r");

	if (!f)
		err(1, "cannot read %s/mshare_info", MSHARE_DIR);
	if (fscanf(f, "%llu", &granule) != 1 || !granule)
		errx(1, "%s/mshare_info does not start with the granule",
		     MSHARE_DIR);
	fclose(f);
	return granule;
}

static inline u64 round_up_to(u64 n, u64 unit)
{
	return (n + unit - 1) / unit * unit;
}

static inline u64 now_ns(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return ts.tv_sec * NSEC_PER_SEC + ts.tv_nsec;
}

/*
 * PageTables of /proc/meminfo in kB. The counter is kept per CPU and folded
 * about once a second; stat_refresh folds it now (root only, else slightly
 * stale figures have to do).
 */
static inline long page_tables_kb(void)
{
	char line[128];
	long kb = -1;
	FILE *f;
	int fd;

	fd = open("/proc/sys/vm/stat_refresh", O_WRONLY | O_CLOEXEC);
	if (fd >= 0) {
		if (write(fd, "1", 1) < 0)
			warn("/proc/sys/vm/stat_refresh");
		close(fd);
	}
	f = fopen("/proc/meminfo", "re");
	if (!f)
		err(1, "/proc/meminfo");
	while (kb < 0 && fgets(line, sizeof(line), f))
		sscanf(line, "PageTables: %ld", &kb);
	fclose(f);
	if (kb < 0)
		errx(1, "/proc/meminfo has no PageTables");
	return kb;
}

/* The same once it stands still: what just exited is freed with a delay. */
static inline long page_tables_settled_kb(void)
{
	const struct timespec pause = { .tv_nsec = 30 * 1000 * 1000 };
	long prev, kb = page_tables_kb();
	int same = 0, tries;

	for (tries = 0; same < 3 && tries < 100; tries++) {
		nanosleep(&pause, NULL);
		prev = kb;
		kb = page_tables_kb();
		same = kb == prev ? same + 1 : 0;
	}
	return kb;
}

static inline u64 faults_of(const struct rusage *ru)
{
	return ru->ru_minflt + ru->ru_majflt;
}

/* 1234567 as "1,234,567"; a few results may be in use at a time. */
static inline const char *commas(long long n)
{
	static char bufs[8][32];
	static unsigned int next;
	char *p = bufs[next++ % 8] + 31;
	long long rest = n < 0 ? -n : n;
	int digits = 0;

	*p = '\0';
	do {
		if (digits && digits % 3 == 0)
			*--p = ',';
		*--p = '0' + rest % 10;
		rest /= 10;
		digits++;
	} while (rest);
	if (n < 0)
		*--p = '-';
	return p;
}

#endif /* DEMO_MSHARE_H */
