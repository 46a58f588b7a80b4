/* SPDX-License-Identifier: GPL-2.0 */
/*
 * What some tests need around them: control groups, zram devices for swap and
 * for ext4, settings that are put back, and the kinds of memory that can be
 * mapped into a region.
 */
#ifndef MSHARE_ENV_H
#define MSHARE_ENV_H

#include <sys/swap.h>
#include "mshare_test.h"

#define THP_ENABLED	"/sys/kernel/mm/transparent_hugepage/enabled"

/* Settings in files. */

struct setting {
	const char *path;
	char old[256];
};

/* The chosen word of "a [b] c", or the whole text. */
static __maybe_unused int setting_save(struct setting *s, const char *path)
{
	char buf[256], *p, *q;

	s->path = NULL;
	if (read_file(path, buf, sizeof(buf)) < 0)
		return -1;
	p = strchr(buf, '[');
	q = p ? strchr(p, ']') : NULL;
	if (q) {
		*q = 0;
		snprintf(s->old, sizeof(s->old), "%s", p + 1);
	} else {
		snprintf(s->old, sizeof(s->old), "%s", buf);
	}
	s->path = path;
	return 0;
}

static __maybe_unused int setting_set(struct setting *s, const char *path,
				      const char *val)
{
	if (setting_save(s, path))
		return -1;
	return write_file(path, val);
}

static __maybe_unused void setting_restore(struct setting *s)
{
	if (s->path)
		write_file(s->path, s->old);
	s->path = NULL;
}

/* Control groups, version 2. */

static __maybe_unused const char *cg_root(void)
{
	static char root[256];
	char line[1024], mnt[256], type[64];
	FILE *f;

	if (*root)
		return root;
	f = fopen("/proc/mounts", "re");
	while (f && fgets(line, sizeof(line), f)) {
		if (sscanf(line, "%*s %255s %63s", mnt, type) == 2 &&
		    !strcmp(type, "cgroup2")) {
			snprintf(root, sizeof(root), "%s", mnt);
			break;
		}
	}
	if (f)
		fclose(f);
	if (!*root) {
		mkdir("/tmp/mshare-cgroup", 0755);
		if (mount("none", "/tmp/mshare-cgroup", "cgroup2", 0, NULL))
			return NULL;
		snprintf(root, sizeof(root), "/tmp/mshare-cgroup");
	}
	return root;
}

static __maybe_unused const char *cg_path(const char *cg, const char *file)
{
	static char paths[4][512];
	static unsigned int next;
	char *path = paths[next++ % 4];

	snprintf(path, sizeof(paths[0]), "%s/%s/%s", cg_root(), cg, file);
	return path;
}

/* Whether the memory controller is there for us to use. */
static __maybe_unused bool cg_memory(void)
{
	char buf[512];

	if (!cg_root() ||
	    read_file(cg_path(".", "cgroup.controllers"), buf, sizeof(buf)) < 0 ||
	    !strstr(buf, "memory"))
		return false;
	write_file(cg_path(".", "cgroup.subtree_control"), "+memory");
	return read_file(cg_path(".", "cgroup.subtree_control"), buf,
			 sizeof(buf)) > 0 && strstr(buf, "memory");
}

static __maybe_unused int cg_make(const char *cg)
{
	return mkdir(cg_path(cg, ""), 0755);
}

static __maybe_unused int cg_write(const char *cg, const char *file,
				   const char *val)
{
	return write_file(cg_path(cg, file), val);
}

static __maybe_unused long cg_long(const char *cg, const char *file)
{
	char buf[64];

	if (read_file(cg_path(cg, file), buf, sizeof(buf)) < 0)
		return -1;
	return strtol(buf, NULL, 10);
}

static __maybe_unused long cg_stat(const char *cg, const char *key)
{
	return read_key(cg_path(cg, "memory.stat"), key);
}

/* Moves the process that calls. */
static __maybe_unused int cg_enter(const char *cg)
{
	return cg_write(cg, "cgroup.procs", "0");
}

static __maybe_unused long do_cg_enter(const struct request *rq)
{
	return cg_enter(rq->s);
}

static __maybe_unused bool cg_rmdir(const char *cg)
{
	return !rmdir(cg_path(cg, ""));
}

/* Removes a group, whose last processes may just be leaving it. */
static __maybe_unused bool cg_remove(const char *cg)
{
	return WAIT_FOR(cg_rmdir(cg) || errno == ENOENT, 10);
}

/* Compressed memory as a block device. */

struct zram {
	int id;
	bool swap;
	char dev[64];
	char mnt[64];
};

/* 0, or a line that says why there is none. */
static __maybe_unused const char *zram_new(struct zram *z, unsigned long size)
{
	char path[128], buf[64];
	unsigned int major, minor;

	memset(z, 0, sizeof(*z));
	z->id = -1;
	if (read_file("/sys/class/zram-control/hot_add", buf, sizeof(buf)) < 0)
		return "no zram (/sys/class/zram-control/hot_add)";
	z->id = atoi(buf);
	snprintf(path, sizeof(path), "/sys/block/zram%d/disksize", z->id);
	snprintf(buf, sizeof(buf), "%lu", size);
	if (write_file(path, buf))
		return "cannot set the size of a zram device";
	snprintf(z->dev, sizeof(z->dev), "/dev/zram%d", z->id);
	if (access(z->dev, F_OK)) {
		snprintf(path, sizeof(path), "/sys/block/zram%d/dev", z->id);
		if (read_file(path, buf, sizeof(buf)) < 0 ||
		    sscanf(buf, "%u:%u", &major, &minor) != 2 ||
		    mknod(z->dev, S_IFBLK | 0600, makedev(major, minor)))
			return "cannot make a node for a zram device";
	}
	return NULL;
}

static __maybe_unused const char *zram_swapon(struct zram *z, unsigned long size)
{
	const char *why = zram_new(z, size);
	unsigned int hdr[3];
	char *buf;
	int fd, ok;

	if (why)
		return why;
	buf = calloc(1, page());
	hdr[0] = 1;			/* version */
	hdr[1] = size / page() - 1;	/* last page */
	hdr[2] = 0;			/* bad pages */
	memcpy(buf + 1024, hdr, sizeof(hdr));
	memcpy(buf + page() - 10, "SWAPSPACE2", 10);
	fd = open(z->dev, O_RDWR | O_CLOEXEC);
	ok = fd >= 0 && pwrite(fd, buf, page(), 0) == (ssize_t)page() &&
	     !fsync(fd);
	free(buf);
	if (fd >= 0)
		close(fd);
	if (!ok)
		return "cannot write a swap header to a zram device";
	if (swapon(z->dev, 0))
		return "swapon of a zram device failed";
	z->swap = true;
	return NULL;
}

static __maybe_unused const char *zram_ext4_at(struct zram *z, const char *mnt,
					       unsigned long size)
{
	const char *why;
	char cmd[256];

	if (system("command -v mkfs.ext4 >/dev/null 2>&1"))
		return "no mkfs.ext4";
	why = zram_new(z, size);
	if (why)
		return why;
	snprintf(cmd, sizeof(cmd),
		 "mkfs.ext4 -q -F -O ^has_journal -E nodiscard %s >/dev/null 2>&1",
		 z->dev);
	if (system(cmd))
		return "mkfs.ext4 failed";
	snprintf(z->mnt, sizeof(z->mnt), "%s", mnt);
	mkdir(z->mnt, 0755);
	if (mount(z->dev, z->mnt, "ext4", 0, NULL)) {
		rmdir(z->mnt);
		z->mnt[0] = 0;
		return "cannot mount ext4";
	}
	return NULL;
}

static __maybe_unused const char *zram_ext4(struct zram *z, unsigned long size)
{
	char mnt[64];

	snprintf(mnt, sizeof(mnt), "/tmp/mshare-ext4-%d", getpid());
	return zram_ext4_at(z, mnt, size);
}

static __maybe_unused void zram_end(struct zram *z)
{
	char buf[16];

	if (z->swap)
		swapoff(z->dev);
	if (z->mnt[0]) {
		umount2(z->mnt, MNT_DETACH);
		rmdir(z->mnt);
	}
	if (z->id >= 0) {
		snprintf(buf, sizeof(buf), "%d", z->id);
		(void)WAIT_FOR(!write_file("/sys/class/zram-control/hot_remove",
					   buf), 5);
	}
	memset(z, 0, sizeof(*z));
	z->id = -1;
}

/*
 * A file system on a disk for all tests of a program: the first who wants it
 * makes it, and it goes with the program, whose tests are its children.
 */

static pid_t disk_owner;
static char disk_mnt[64];

static __attribute__((constructor)) void disk_begin(void)
{
	disk_owner = getpid();
	snprintf(disk_mnt, sizeof(disk_mnt), "/tmp/mshare-disk-%d", disk_owner);
}

/* 0, or a line that says why there is none. */
static __maybe_unused const char *disk_make(void)
{
	struct zram z = { .id = -1 };
	struct statfs sf;
	const char *why;

	if (!statfs(disk_mnt, &sf) && sf.f_type == 0xef53)
		return NULL;
	why = zram_ext4_at(&z, disk_mnt, 64 * MB);
	if (why)
		zram_end(&z);
	return why;
}

static __attribute__((destructor)) void disk_end(void)
{
	char line[1024], dev[64], mnt[256];
	struct zram z = { .id = -1 };
	FILE *f;

	if (getpid() != disk_owner || access(disk_mnt, F_OK))
		return;
	f = fopen("/proc/mounts", "re");
	while (f && fgets(line, sizeof(line), f)) {
		if (sscanf(line, "%63s %255s", dev, mnt) == 2 &&
		    !strcmp(mnt, disk_mnt))
			sscanf(dev, "/dev/zram%d", &z.id);
	}
	if (f)
		fclose(f);
	snprintf(z.mnt, sizeof(z.mnt), "%s", disk_mnt);
	zram_end(&z);
}

/* Kinds of memory. */

enum kind { ANON_PRIVATE, ANON_SHARED, MEMFD, TMPFS_SHARED, TMPFS_PRIVATE,
	    EXT4_SHARED, EXT4_PRIVATE, OVERLAY_SHARED, OVERLAY_PRIVATE,
	    ZERO_SHARED, ZERO_PRIVATE };

#define KIND_PAGES	64

struct kind_data {
	enum kind kind;
	int fd;			/* the file below, or -1 */
	int flags;		/* MAP_SHARED or MAP_PRIVATE, MAP_ANONYMOUS */
	bool file;		/* has content of its own: kind_byte() */
	char path[128];
	char mnt[64];
};

/* The byte that every byte of page @i of a file has. */
static __maybe_unused int kind_byte(const struct kind_data *k, int i)
{
	return k->file ? i + 1 : 0;
}

/* 0, or a line that says why this kind cannot be had. */
static __maybe_unused const char *kind_init(struct kind_data *k, enum kind kind)
{
	const char *why = NULL;
	struct statfs sf;
	char *buf;
	int i;

	memset(k, 0, sizeof(*k));
	k->kind = kind;
	k->fd = -1;
	switch (kind) {
	case TMPFS_SHARED:
	case EXT4_PRIVATE:
	case OVERLAY_PRIVATE:
	case ZERO_SHARED:
	case ZERO_PRIVATE:
		if (debug_kernel())
			return MUCH_LIKE_ANOTHER;
		break;
	default:
		break;
	}
	switch (kind) {
	case ANON_PRIVATE:
	case TMPFS_PRIVATE:
	case EXT4_PRIVATE:
	case OVERLAY_PRIVATE:
	case ZERO_PRIVATE:
		k->flags = MAP_PRIVATE;
		break;
	default:
		k->flags = MAP_SHARED;
	}
	switch (kind) {
	case ANON_PRIVATE:
	case ANON_SHARED:
		k->flags |= MAP_ANONYMOUS;
		return NULL;
	case ZERO_SHARED:
	case ZERO_PRIVATE:
		k->fd = open("/dev/zero", O_RDWR | O_CLOEXEC);
		return k->fd < 0 ? "no /dev/zero" : NULL;
	case MEMFD:
		k->fd = memfd_create("mshare", MFD_CLOEXEC);
		if (k->fd < 0)
			return "no memfd";
		break;
	case TMPFS_SHARED:
	case TMPFS_PRIVATE:
		snprintf(k->mnt, sizeof(k->mnt), "/tmp/mshare-tmpfs-%d", getpid());
		mkdir(k->mnt, 0755);
		if (mount("none", k->mnt, "tmpfs", 0, NULL)) {
			rmdir(k->mnt);
			k->mnt[0] = 0;
			return "cannot mount tmpfs";
		}
		snprintf(k->path, sizeof(k->path), "%s/file", k->mnt);
		break;
	case EXT4_SHARED:
	case EXT4_PRIVATE:
		why = disk_make();
		if (why)
			return why;
		snprintf(k->path, sizeof(k->path), "%s/file-%d", disk_mnt, getpid());
		break;
	case OVERLAY_SHARED:
	case OVERLAY_PRIVATE:
		if (statfs("/", &sf) || sf.f_type != 0x794c7630)
			return "the root file system is not overlayfs";
		snprintf(k->path, sizeof(k->path), "/mshare-test-%d", getpid());
		break;
	}
	if (k->fd < 0)
		k->fd = open(k->path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
	if (k->fd < 0)
		return "cannot make a file";
	k->file = true;
	buf = malloc(page());
	for (i = 0; i < KIND_PAGES && !why; i++) {
		memset(buf, kind_byte(k, i), page());
		if (pwrite(k->fd, buf, page(), i * page()) != (ssize_t)page())
			why = "cannot write a file";
	}
	free(buf);
	return why;
}

static __maybe_unused void kind_end(struct kind_data *k)
{
	if (k->fd >= 0)
		close(k->fd);
	if (k->path[0])
		unlink(k->path);
	if (k->mnt[0]) {
		umount2(k->mnt, MNT_DETACH);
		rmdir(k->mnt);
	}
	k->fd = -1;
}

/* @off counts for files only: shared /dev/zero ends where the mapping does. */
static __maybe_unused void *kind_map(const struct kind_data *k, void *addr,
				     size_t len, int prot, int extra, off_t off)
{
	return mmap(addr, len, prot, k->flags | extra, k->fd, k->file ? off : 0);
}

/*
 * Failing memory. The last signal about it that this process got, and how many.
 */

#ifndef MADV_HWPOISON
#define MADV_HWPOISON	100
#endif
#ifndef BUS_MCEERR_AR
#define BUS_MCEERR_AR		4
#endif
#ifndef BUS_MCEERR_AO
#define BUS_MCEERR_AO		5
#endif

static volatile struct {
	int nr, code, lsb;
	void *addr;
} seen;

static __maybe_unused void on_sigbus(int sig, siginfo_t *si, void *ctx)
{
	if (probing) {
		probe_handler(sig, si, ctx);
		return;
	}
	seen.nr++;
	seen.code = si->si_code;
	seen.addr = si->si_addr;
	seen.lsb = si->si_addr_lsb;
}

/* PR_MCE_KILL_EARLY or PR_MCE_KILL_LATE */
static __maybe_unused long do_handle(const struct request *rq)
{
	struct sigaction sa = { .sa_sigaction = on_sigbus,
				.sa_flags = SA_SIGINFO | SA_NODEFER |
					    SA_RESTART };

	memset((void *)&seen, 0, sizeof(seen));
	if (sigaction(SIGBUS, &sa, NULL))
		return -1;
	return prctl(PR_MCE_KILL, PR_MCE_KILL_SET, rq->a[0], 0, 0);
}

static __maybe_unused long do_seen(const struct request *rq)
{
	switch (rq->a[0]) {
	case 0:
		return seen.nr;
	case 1:
		return seen.code;
	case 2:
		return L(seen.addr);
	default:
		return seen.lsb;
	}
}

#define SEEN(_p, _i)	PEER(_p, do_seen, NULL, _i)

/*
 * Puts pages on their lists that processors keep in batches until then. Only what is on
 * a list is reclaimed, or can be idle. This migrates nothing; compaction would fill
 * the batches again.
 */
static __maybe_unused void empty_lru_batches(void)
{
	unsigned long node = 1;

	syscall(SYS_migrate_pages, 0, 8 * sizeof(node), &node, &node);
}

/*
 * Change for those who mirror a region. Page @i has 1000 + @i, or nothing; what is
 * freed is filled with POISON by somebody else, and nobody must see that.
 */

#ifndef MADV_PAGEOUT
#define MADV_PAGEOUT	21
#endif

/* In a test of a fixture whose variants are kinds of memory. */
#define ONLY_ANON() do {						\
	if (variant->kind != ANON_PRIVATE)				\
		SKIP(return, "only anonymous memory can be that");	\
} while (0)

#define CHANGE_PAGES	16
#define POISON		0x6b6b6b6b6b6b6b6bL

/* In as many rounds as said. */
static __maybe_unused long do_change_mirrored(const struct request *rq)
{
	void *addr = (void *)rq->a[0], *other;
	size_t len = CHANGE_PAGES * page();
	size_t i, rounds = rq->a[1], off;

	for (i = 0; i < rounds; i++) {
		switch (i % 4) {
		case 0:
			madvise(addr, len, MADV_DONTNEED);
			break;
		case 1:
			munmap(addr, len);
			break;
		case 2:
			mprotect(addr, len, PROT_READ);
			break;
		case 3:
			madvise(addr, len, MADV_PAGEOUT);
			break;
		}
		other = mmap(NULL, len, PROT_READ | PROT_WRITE, MAP_PRIVATE |
			     MAP_ANONYMOUS | MAP_POPULATE, -1, 0);
		if (other == MAP_FAILED)
			return -errno;
		for (off = 0; off < len; off += page())
			*(volatile long *)at(other, off) = POISON;
		if (map_anon(addr, len, MAP_PRIVATE) != addr)
			return -errno;
		for (off = 0; off < len; off += page())
			*(volatile long *)at(addr, off) = 1000 + off / page();
		munmap(other, len);
	}
	return 0;
}

/* Something is being invalidated most of the time. */
static __maybe_unused long do_toggle(const struct request *rq)
{
	void *addr = (void *)rq->a[0];
	int i;

	for (i = 0; i < rq->a[2]; i++)
		if (mprotect(addr, rq->a[1], i & 1 ? PROT_READ | PROT_WRITE : PROT_READ))
			return -errno;
	return 0;
}

#endif /* MSHARE_ENV_H */
