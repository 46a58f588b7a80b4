// SPDX-License-Identifier: GPL-2.0
/*
 * msharefs: mounting, what its files say and what can be done with them.
 *
 * Every test has a mount namespace and an instance of its own, but for those
 * of the fixture "mounted", which look at what is mounted already.
 */
#include <sys/fanotify.h>

#include "mshare_test.h"

FIXTURE(fs)
{
	const char *name;
	void *addr;
	size_t len;
	struct peer a;
};

FIXTURE_SETUP(fs)
{
	umask(0);
	self->name = new_name();
	self->addr = slot(0);
	self->len = granule();
	ASSERT_OK(private_mounts());
	ASSERT_OK(mount("none", MSHAREFS, "msharefs", 0, NULL));
	ASSERT_EQ(0, peer_start(&self->a));
}

FIXTURE_TEARDOWN(fs)
{
	peer_stop(&self->a);
}

static int mount_with(const char *opts)
{
	return mount("none", MSHAREFS, "msharefs", 0, opts);
}

TEST_F(fs, the_root_is_public_and_sticky_by_default)
{
	struct stat st;

	ASSERT_OK(stat(MSHAREFS, &st));
	EXPECT_TRUE(S_ISDIR(st.st_mode));
	EXPECT_EQ(01777U, st.st_mode & 07777);
	EXPECT_EQ(0U, st.st_uid);
	EXPECT_EQ(0U, st.st_gid);
}

TEST_F(fs, mode_uid_and_gid_are_the_roots)
{
	struct stat st;

	ASSERT_OK(mount_with("mode=2750,uid=1001,gid=1002"));
	ASSERT_OK(stat(MSHAREFS, &st));
	EXPECT_EQ(02750U, st.st_mode & 07777);
	EXPECT_EQ(1001U, st.st_uid);
	EXPECT_EQ(1002U, st.st_gid);
	ASSERT_OK(umount(MSHAREFS));
	ASSERT_OK(mount_with("gid=7"));
	ASSERT_OK(stat(MSHAREFS, &st));
	EXPECT_EQ(01777U, st.st_mode & 07777);
	EXPECT_EQ(0U, st.st_uid);
	EXPECT_EQ(7U, st.st_gid);
}

TEST_F(fs, options_that_make_no_sense_are_refused)
{
	EXPECT_ERR(EINVAL, mount_with("mode=9"));
	EXPECT_ERR(EINVAL, mount_with("mode=banana"));
	EXPECT_ERR(EINVAL, mount_with("uid=nobody"));
	EXPECT_ERR(EINVAL, mount_with("uid=-1"));
	EXPECT_ERR(EINVAL, mount_with("gid="));
	EXPECT_ERR(EINVAL, mount_with("colour=red"));
}

/* What differs from the default shows where the mount is listed. */
TEST_F(fs, the_options_show_in_proc_mounts)
{
	char line[1024];
	bool found = false;
	FILE *f;

	ASSERT_OK(mount_with("mode=750,uid=1001,gid=1002"));
	f = fopen("/proc/mounts", "re");
	ASSERT_NE(NULL, f);
	while (fgets(line, sizeof(line), f)) {
		if (strstr(line, " msharefs ") && strstr(line, "mode=750") &&
		    strstr(line, "uid=1001") && strstr(line, "gid=1002"))
			found = true;
	}
	fclose(f);
	EXPECT_TRUE(found);
}

TEST_F(fs, every_mount_is_an_instance_of_its_own)
{
	struct stat st1, st2;

	ASSERT_OK(create(self->name, self->addr, self->len));
	ASSERT_OK(stat(MSHAREFS, &st1));
	ASSERT_OK(mount_with(""));
	ASSERT_OK(stat(MSHAREFS, &st2));
	EXPECT_NE(st1.st_dev, st2.st_dev);
	EXPECT_FALSE(name_exists(self->name));
	ASSERT_OK(umount(MSHAREFS));
	EXPECT_TRUE(name_exists(self->name));
}

static long do_mount(const struct request *rq __maybe_unused)
{
	return mount("none", MSHAREFS, "msharefs", 0, NULL);
}

static long do_userns(const struct request *rq __maybe_unused)
{
	return unshare(CLONE_NEWUSER | CLONE_NEWNS);
}

TEST_F(fs, mounting_needs_cap_sys_admin)
{
	ASSERT_OK(peer_become(&self->a, 1001, 1001));
	EXPECT_ERR(EPERM, PEER(&self->a, do_mount, NULL, 0));
}

TEST_F(fs, mounting_needs_the_initial_user_namespace)
{
	if (PEER(&self->a, do_userns, NULL, 0))
		SKIP(return, "no user namespaces");
	EXPECT_ERR(EPERM, PEER(&self->a, do_mount, NULL, 0));
}

TEST_F(fs, mshare_info_tells_the_granule)
{
	char buf[64], *end;
	unsigned long g;
	struct stat st;
	int n;

	n = read_file(MSHAREFS "/mshare_info", buf, sizeof(buf));
	ASSERT_LT(0, n);
	g = strtoul(buf, &end, 10);
	EXPECT_TRUE(!strcmp(end, "\n") || !strcmp(end, "")) {
		TH_LOG("'%s'", buf);
	}
	EXPECT_LT(0UL, g);
	EXPECT_EQ(0UL, g & (g - 1));
	EXPECT_EQ(0UL, g % page());
#ifdef __x86_64__
	EXPECT_EQ(512 * GB, g);
#endif
	ASSERT_OK(stat(MSHAREFS "/mshare_info", &st));
	EXPECT_TRUE(S_ISREG(st.st_mode));
	EXPECT_EQ(0444U, st.st_mode & 0777);
}

static long do_open(const struct request *rq)
{
	return open(rq->s, rq->a[0], rq->a[1]);
}

TEST_F(fs, mshare_info_is_for_all_to_read_and_nobody_to_change)
{
	struct stat before, after;

	ASSERT_OK(stat(MSHAREFS "/mshare_info", &before));
	ASSERT_OK(peer_become(&self->a, 1001, 1001));
	EXPECT_OK(PEER(&self->a, do_open, MSHAREFS "/mshare_info", O_RDONLY));
	EXPECT_EQ(-1, unlink(MSHAREFS "/mshare_info"));
	EXPECT_EQ(-1, truncate(MSHAREFS "/mshare_info", 0));
	EXPECT_EQ(-1, write_file(MSHAREFS "/mshare_info", "4096\n"));
	EXPECT_EQ(-1, rename(MSHAREFS "/mshare_info", path_of("other")));
	ASSERT_OK(stat(MSHAREFS "/mshare_info", &after));
	EXPECT_EQ(before.st_ino, after.st_ino);
	EXPECT_EQ(before.st_size, after.st_size);
}

TEST_F(fs, reading_a_region_gives_start_and_size)
{
	__u64 buf[64];
	ssize_t n;
	int fd;

	ASSERT_OK(create(self->name, self->addr, 3 * self->len));
	fd = open(path_of(self->name), O_RDONLY);
	ASSERT_LE(0, fd);
	memset(buf, 0xee, sizeof(buf));
	n = read(fd, buf, sizeof(buf));
	ASSERT_LE((ssize_t)sizeof(struct mshare_info), n);
	EXPECT_EQ(0, n % 8);
	EXPECT_EQ((__u64)self->addr, buf[0]);
	EXPECT_EQ((__u64)(3 * self->len), buf[1]);
	/* Nothing beyond what it says it read, and then the end. */
	EXPECT_EQ(0xeeeeeeeeeeeeeeeeULL, buf[(n + 7) / 8]);
	EXPECT_EQ(0, read(fd, buf, sizeof(buf)));
	close(fd);
}

static long nr_attached(const char *name)
{
	struct mshare_info info;
	int fd = open(path_of(name), O_RDONLY);
	ssize_t n = read(fd, &info, sizeof(info));

	close(fd);
	return n == sizeof(info) ? (long)info.nr_attached : -1;
}

TEST_F(fs, reading_a_region_tells_how_many_are_attached)
{
	struct peer child;

	ASSERT_OK(create(self->name, self->addr, self->len));
	EXPECT_EQ(1, nr_attached(self->name));
	ASSERT_OK(peer_attach(&self->a, self->name));
	EXPECT_EQ(2, nr_attached(self->name));
	ASSERT_EQ(0, peer_start(&child));
	EXPECT_EQ(3, nr_attached(self->name));
	peer_stop(&child);
	EXPECT_EQ(2, nr_attached(self->name));
	ASSERT_OK(peer_munmap(&self->a, self->addr, self->len));
	ASSERT_OK(munmap(self->addr, self->len));
	EXPECT_EQ(0, nr_attached(self->name));
}

TEST_F(fs, a_short_read_of_a_region_gives_a_prefix)
{
	unsigned char all[512], buf[512];
	ssize_t n, i;
	int fd;

	ASSERT_OK(create(self->name, self->addr, self->len));
	fd = open(path_of(self->name), O_RDONLY);
	ASSERT_LE(0, fd);
	n = pread(fd, all, sizeof(all), 0);
	ASSERT_LE(16, n);
	for (i = 1; i <= n; i++) {
		memset(buf, 0xee, sizeof(buf));
		ASSERT_EQ(i, pread(fd, buf, i, 0));
		ASSERT_EQ(0, memcmp(buf, all, i));
		ASSERT_EQ(0xee, buf[i]);
	}
	/* An offset goes on where a read before ended. */
	for (i = 0; i < n; i++) {
		ASSERT_EQ(n - i, pread(fd, buf, sizeof(buf), i));
		ASSERT_EQ(0, memcmp(buf, all + i, n - i));
	}
	EXPECT_EQ(0, pread(fd, buf, sizeof(buf), n));
	EXPECT_EQ(0, pread(fd, buf, sizeof(buf), n + 100));
	ASSERT_EQ(8, read(fd, buf, 8));
	ASSERT_EQ(8, read(fd, buf + 8, 8));
	EXPECT_EQ(0, memcmp(buf, all, 16));
	EXPECT_ERR(EFAULT, syscall(SYS_pread64, fd, NULL, 16, 0));
	close(fd);
}

TEST_F(fs, stat_gives_the_size_of_a_region_and_its_memory)
{
	const long want = 16 * MB / 512;
	struct stat st;
	size_t i;

	ASSERT_OK(create(self->name, self->addr, 2 * self->len));
	ASSERT_OK(stat(path_of(self->name), &st));
	EXPECT_TRUE(S_ISREG(st.st_mode));
	EXPECT_EQ(2 * self->len, (size_t)st.st_size);
	EXPECT_EQ(0, st.st_blocks);
	EXPECT_EQ(1U, st.st_nlink);
	ASSERT_OK(map_anon(self->addr, 16 * MB, MAP_SHARED));
	for (i = 0; i < 16 * MB; i += page()) {
		ASSERT_EQ(0, try_write(at(self->addr, i), 1));
	}
	ASSERT_OK(stat(path_of(self->name), &st));
	EXPECT_EQ(2 * self->len, (size_t)st.st_size);
	EXPECT_EQ(want, st.st_blocks);
	ASSERT_OK(munmap(self->addr, 16 * MB));
	ASSERT_OK(stat(path_of(self->name), &st));
	EXPECT_EQ(0, st.st_blocks);

	/* Whatever it is that each CPU counts for itself. */
	ASSERT_OK(map_anon(self->addr, 5 * page(), MAP_PRIVATE));
	for (i = 0; i < 5; i++) {
		ASSERT_OK(pin(i % sysconf(_SC_NPROCESSORS_ONLN)));
		ASSERT_EQ(0, try_write(at(self->addr, i * page()), 1));
		ASSERT_OK(stat(path_of(self->name), &st));
		EXPECT_EQ((long)((i + 1) * page() / 512), st.st_blocks);
	}
}

TEST_F(fs, chmod_chown_and_times_work)
{
	struct stat st;
	struct timespec ts[2] = { { 1000, 0 }, { 2000, 0 } };

	ASSERT_OK(create(self->name, self->addr, self->len));
	EXPECT_OK(chmod(path_of(self->name), 0640));
	EXPECT_OK(chown(path_of(self->name), 1001, 1002));
	EXPECT_OK(utimensat(AT_FDCWD, path_of(self->name), ts, 0));
	ASSERT_OK(stat(path_of(self->name), &st));
	EXPECT_EQ(0640U, st.st_mode & 07777);
	EXPECT_EQ(1001U, st.st_uid);
	EXPECT_EQ(1002U, st.st_gid);
	EXPECT_EQ(2000, st.st_mtime);
	EXPECT_EQ(1000, st.st_atime);
}

TEST_F(fs, rm_removes_the_name_now)
{
	ASSERT_OK(create(self->name, self->addr, self->len));
	ASSERT_OK(map_anon(self->addr, page(), MAP_SHARED));
	EXPECT_EQ(0, try_write(self->addr, 5));
	ASSERT_OK(unlink(path_of(self->name)));
	EXPECT_FALSE(name_exists(self->name));
	EXPECT_EQ(5, try_read(self->addr));
	ASSERT_OK(map_anon(at(self->addr, page()), page(), MAP_PRIVATE));
	EXPECT_EQ(0, try_write(at(self->addr, page()), 6));
}

TEST_F(fs, writing_and_truncating_a_region_are_not_permitted)
{
	char byte = 1;
	int fd;

	ASSERT_OK(create(self->name, self->addr, self->len));
	fd = open(path_of(self->name), O_RDWR);
	ASSERT_LE(0, fd);
	EXPECT_ERR(EPERM, write(fd, &byte, 1));
	EXPECT_ERR(EPERM, pwrite(fd, &byte, 1, 4096));
	EXPECT_ERR(EPERM, ftruncate(fd, 0));
	EXPECT_ERR(EPERM, ftruncate(fd, 2 * self->len));
	EXPECT_ERR(EPERM, truncate(path_of(self->name), 0));
	EXPECT_EQ(-1, fallocate(fd, 0, 0, 4096));
	EXPECT_EQ(-1, fallocate(fd, FALLOC_FL_KEEP_SIZE | FALLOC_FL_PUNCH_HOLE,
				0, 4096));
	close(fd);
	EXPECT_ERR(EPERM, open(path_of(self->name), O_RDWR | O_TRUNC));
	EXPECT_EQ(1, nr_mapped(self->addr, self->len));
}

TEST_F(fs, only_mshare_makes_files)
{
	EXPECT_ERR(EPERM, open(path_of("new"), O_RDWR | O_CREAT, 0600));
	EXPECT_ERR(EPERM, open(path_of("new"), O_RDWR | O_CREAT | O_EXCL, 0600));
	EXPECT_ERR(EPERM, mkdir(path_of("new"), 0700));
	EXPECT_ERR(EPERM, symlink("/", path_of("new")));
	EXPECT_ERR(EPERM, mknod(path_of("new"), S_IFIFO | 0600, 0));
	EXPECT_ERR2(EPERM, EACCES, mknod(path_of("new"), S_IFREG | 0600, 0));
	EXPECT_EQ(-1, open(MSHAREFS, O_RDWR | O_TMPFILE, 0600));
	EXPECT_FALSE(name_exists("new"));
}

TEST_F(fs, a_region_has_one_name_and_keeps_it)
{
	const char *other = new_name();
	struct stat st;

	ASSERT_OK(create(self->name, self->addr, self->len));
	EXPECT_ERR(EPERM, link(path_of(self->name), path_of(other)));
	EXPECT_ERR(EPERM, rename(path_of(self->name), path_of(other)));
	EXPECT_FALSE(name_exists(other));
	ASSERT_OK(stat(path_of(self->name), &st));
	EXPECT_EQ(1U, st.st_nlink);
}

TEST_F(fs, open_obeys_the_permissions)
{
	ASSERT_OK(create(self->name, self->addr, self->len));
	ASSERT_OK(chmod(path_of(self->name), 0644));
	ASSERT_OK(peer_become(&self->a, 1001, 1001));
	EXPECT_OK(PEER(&self->a, do_open, path_of(self->name), O_RDONLY));
	EXPECT_ERR(EACCES, PEER(&self->a, do_open, path_of(self->name), O_RDWR));
	EXPECT_ERR(EACCES, PEER(&self->a, do_open, path_of(self->name), O_WRONLY));
	ASSERT_OK(chmod(path_of(self->name), 0600));
	EXPECT_ERR(EACCES, PEER(&self->a, do_open, path_of(self->name), O_RDONLY));
}

TEST_F(fs, a_regions_file_is_mapped_shared_and_once)
{
	const char *name2 = new_name();
	int fd, other;
	size_t i;
	const struct {
		int flags;
		int err;
	} ways[] = {
		{ MAP_SHARED, EBUSY }, { MAP_SHARED | MAP_FIXED, EBUSY },
		{ MAP_PRIVATE, EINVAL }, { MAP_PRIVATE | MAP_FIXED, EINVAL },
	};

	ASSERT_OK(create(self->name, self->addr, self->len));
	ASSERT_OK(create(name2, slot(8), self->len));
	ASSERT_OK(munmap(slot(8), self->len));
	fd = open(path_of(self->name), O_RDWR);
	ASSERT_LE(0, fd);
	for (i = 0; i < ARRAY_SIZE(ways); i++) {
		void *p = mmap(slot(4), self->len, PROT_READ, ways[i].flags, fd, 0);

		EXPECT_EQ(MAP_FAILED, p);
		EXPECT_EQ(ways[i].err, errno);
		/* Whole granules */
		EXPECT_EQ(MAP_FAILED, mmap(NULL, page(), PROT_READ,
					   ways[i].flags, fd, 0));
		EXPECT_EQ(EINVAL, errno);
	}
	EXPECT_EQ(0, nr_mapped(slot(4), self->len));
	EXPECT_EQ(1, nr_mapped(self->addr, self->len));

	/* Where it is, or another is, is no place for it, whoever asks. */
	other = open(path_of(name2), O_RDWR);
	ASSERT_LE(0, other);
	EXPECT_ERR(EBUSY, mmap(self->addr, self->len, PROT_READ, MAP_SHARED, fd, 0));
	EXPECT_ERR(EBUSY, mmap(self->addr, self->len, PROT_READ, MAP_SHARED, other, 0));
	ASSERT_OK(munmap(self->addr, self->len));
	ASSERT_OK(mshare(self->name, NULL, 0, O_RDONLY, 0));
	EXPECT_ERR(EBUSY, mmap(self->addr, self->len, PROT_READ, MAP_SHARED, fd, 0));
	EXPECT_ERR(EBUSY, mmap(self->addr, self->len, PROT_READ, MAP_SHARED, other, 0));
	EXPECT_EQ(1, nr_mapped(self->addr, self->len));
	close(other);

	/* Elsewhere, when it is not attached any more. */
	ASSERT_OK(munmap(self->addr, self->len));
	EXPECT_EQ(slot(4), mmap(slot(4), self->len, PROT_READ, MAP_SHARED, fd, 0));
	EXPECT_EQ(1, nr_mapped(slot(4), self->len));
	close(fd);
	fd = open(MSHAREFS "/mshare_info", O_RDONLY);
	EXPECT_EQ(MAP_FAILED, mmap(NULL, page(), PROT_READ, MAP_PRIVATE, fd, 0));
	close(fd);
}

/* What would be asked of a file on top is not asked of the region's. */
TEST_F(fs, nothing_stacks_on_it)
{
	char dir[] = "/tmp/mshare-XXXXXX", opts[128];

	ASSERT_NE(NULL, mkdtemp(dir));
	if (mount("none", dir, "overlay", 0, "lowerdir=/usr:/etc"))
		SKIP(rmdir(dir); return, "no overlayfs: %s", strerror(errno));
	EXPECT_OK(umount(dir));
	snprintf(opts, sizeof(opts), "lowerdir=%s:/usr", MSHAREFS);
	EXPECT_ERR(EINVAL, mount("none", dir, "overlay", 0, opts));
	umount(dir);
	rmdir(dir);
}

static int nr_entries(const char *name)
{
	struct dirent *de;
	int n = 0;
	DIR *dir;

	dir = opendir(MSHAREFS);
	if (!dir)
		return -1;
	while ((de = readdir(dir))) {
		if (strcmp(de->d_name, ".") && strcmp(de->d_name, "..") &&
		    (!name || !strcmp(de->d_name, name)))
			n++;
	}
	closedir(dir);
	return n;
}

TEST_F(fs, names_appear_in_the_directory)
{
	const char *names[20];
	int i;

	EXPECT_EQ(1, nr_entries(NULL));
	EXPECT_EQ(1, nr_entries("mshare_info"));
	for (i = 0; i < 20; i++) {
		names[i] = new_name();
		ASSERT_OK(create(names[i], slot(i), self->len));
	}
	EXPECT_EQ(21, nr_entries(NULL));
	for (i = 0; i < 20; i++) {
		EXPECT_EQ(1, nr_entries(names[i]));
	}
	for (i = 0; i < 20; i += 2) {
		ASSERT_OK(unlink(path_of(names[i])));
	}
	EXPECT_EQ(11, nr_entries(NULL));
	for (i = 0; i < 20; i++) {
		EXPECT_EQ(i & 1, nr_entries(names[i]));
	}
}

TEST_F(fs, statfs_and_sync_work)
{
	struct statfs sf;

	ASSERT_OK(create(self->name, self->addr, self->len));
	EXPECT_OK(statfs(MSHAREFS, &sf));
	EXPECT_OK(statfs(path_of(self->name), &sf));
	EXPECT_NE(0, sf.f_type);
	sync();
}

TEST_F(fs, a_used_mount_is_busy)
{
	int fd;

	ASSERT_OK(create(self->name, self->addr, self->len));
	EXPECT_ERR(EBUSY, umount(MSHAREFS));
	fd = open(path_of(self->name), O_RDONLY);
	ASSERT_LE(0, fd);
	ASSERT_OK(munmap(self->addr, self->len));
	EXPECT_ERR(EBUSY, umount(MSHAREFS));
	close(fd);
	EXPECT_TRUE(name_exists(self->name));
	EXPECT_OK(umount(MSHAREFS));
}

TEST_F(fs, remounting_keeps_the_regions)
{
	struct stat st;

	ASSERT_OK(create(self->name, self->addr, self->len));
	ASSERT_OK(map_anon(self->addr, page(), MAP_SHARED));
	EXPECT_EQ(0, try_write(self->addr, 4));
	ASSERT_OK(munmap(self->addr, self->len));
	ASSERT_OK(mount(NULL, MSHAREFS, NULL, MS_REMOUNT | MS_RDONLY, NULL));
	EXPECT_TRUE(name_exists(self->name));
	EXPECT_ERR(EROFS, unlink(path_of(self->name)));
	EXPECT_ERR(EROFS, chmod(path_of(self->name), 0666));
	ASSERT_OK(mount(NULL, MSHAREFS, NULL, MS_REMOUNT, NULL));
	ASSERT_OK(stat(MSHAREFS, &st));
	EXPECT_EQ(01777U, st.st_mode & 07777);
	ASSERT_OK(attach(self->name));
	EXPECT_EQ(4, try_read(self->addr));
}

static int populate(void *addr, size_t len, int sharing)
{
	size_t i;

	if (map_anon(addr, len, sharing) == MAP_FAILED)
		return -1;
	for (i = 0; i < len; i += page())
		if (try_write(at(addr, i), i / page() + 1))
			return -1;
	return 0;
}

/* Anonymous and shmem memory in kB, wherever it is. */
static long used_memory(void)
{
	return meminfo("AnonPages") + meminfo("Shmem");
}

TEST_F_TIMEOUT(fs, unmounting_destroys_the_regions, SHORT_TIMEOUT)
{
	long before = used_memory();

	ASSERT_OK(create(self->name, self->addr, self->len));
	ASSERT_OK(populate(self->addr, 16 * MB, MAP_PRIVATE));
	ASSERT_OK(populate(at(self->addr, GB), 16 * MB, MAP_SHARED));
	ASSERT_OK(munmap(self->addr, self->len));
	EXPECT_LT(before + 28 * 1024, used_memory());
	ASSERT_OK(umount(MSHAREFS));
	EXPECT_TRUE(WAIT_FOR(used_memory() < before + 4 * 1024, 20)) {
		TH_LOG("%ld kB before, %ld kB after", before, used_memory());
	}
}

TEST_F_TIMEOUT(fs, processes_go_on_after_a_lazy_unmount, SHORT_TIMEOUT)
{
	long before = used_memory();

	ASSERT_OK(create(self->name, self->addr, self->len));
	ASSERT_OK(peer_attach(&self->a, self->name));
	ASSERT_OK(populate(self->addr, 16 * MB, MAP_SHARED));
	ASSERT_OK(umount2(MSHAREFS, MNT_DETACH));
	EXPECT_FALSE(name_exists(self->name));
	EXPECT_EQ(2, peer_read(&self->a, at(self->addr, page())));
	ASSERT_OK(peer_mmap(&self->a, at(self->addr, GB), 8 * MB,
			    PROT_READ | PROT_WRITE,
			    MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0));
	EXPECT_EQ(0, try_write(at(self->addr, GB), 9));
	EXPECT_EQ(9, peer_read(&self->a, at(self->addr, GB)));
	ASSERT_OK(munmap(self->addr, self->len));
	EXPECT_EQ(1, peer_read(&self->a, self->addr));
	peer_stop(&self->a);
	EXPECT_TRUE(WAIT_FOR(used_memory() < before + 4 * 1024, 20)) {
		TH_LOG("%ld kB before, %ld kB after", before, used_memory());
	}
}

/* A dying mount namespace unmounts what it had. */
static long do_private_region(const struct request *rq)
{
	if (private_mounts() || mount("none", MSHAREFS, "msharefs", 0, NULL) ||
	    create(rq->s, (void *)rq->a[0], rq->a[1]))
		return -1;
	if (populate((void *)rq->a[0], 16 * MB, MAP_PRIVATE))
		return -1;
	return munmap((void *)rq->a[0], rq->a[1]);
}

TEST_F_TIMEOUT(fs, the_end_of_a_mount_namespace_destroys_its_regions, SHORT_TIMEOUT)
{
	long before = used_memory();

	ASSERT_OK(PEER(&self->a, do_private_region, self->name, L(self->addr),
		       self->len));
	EXPECT_LT(before + 12 * 1024, used_memory());
	peer_stop(&self->a);
	EXPECT_TRUE(WAIT_FOR(used_memory() < before + 4 * 1024, 20)) {
		TH_LOG("%ld kB before, %ld kB after", before, used_memory());
	}
}

TEST_F_TIMEOUT(fs, mounting_and_unmounting_leaks_nothing, LONG_TIMEOUT)
{
	long i, rounds = scaled(200), before, after;

	for (i = 0; i < rounds; i++) {
		if (i == rounds / 10)
			before = used_memory() + slab_memory() +
				 meminfo("PageTables");
		ASSERT_OK(mount_with(""));
		ASSERT_OK(create(self->name, self->addr, self->len));
		ASSERT_OK(populate(self->addr, 64 * KB, MAP_SHARED));
		ASSERT_OK(populate(at(self->addr, GB), 64 * KB, MAP_PRIVATE));
		ASSERT_OK(munmap(self->addr, self->len));
		ASSERT_OK(umount(MSHAREFS));
	}
	/* 128 kB each of memory alone, were it leaked. */
	EXPECT_TRUE(WAIT_FOR((after = used_memory() + slab_memory() +
			      meminfo("PageTables")) < before + 60 * rounds, 20)) {
		TH_LOG("%ld kB before, %ld kB after", before, after);
	}
}

/* Makes a region in another process, whose exit status is the errno. */
static pid_t create_in_child(const char *name, void *addr, size_t len)
{
	pid_t pid = fork();

	if (!pid)
		_exit(mshare(name, addr, len, O_CREAT | O_RDWR | O_EXCL, 0600) ?
		      errno : 0);
	return pid;
}

/* Waits until the process is about to open a file. Return: what to answer with. */
static int wait_for_open(int fan, pid_t pid)
{
	struct fanotify_event_metadata ev;

	if (read(fan, &ev, sizeof(ev)) != sizeof(ev) || ev.pid != pid)
		return -1;
	return ev.fd;
}

static int answer(int fan, int fd, unsigned int response)
{
	struct fanotify_response r = { .fd = fd, .response = response };
	ssize_t n = write(fan, &r, sizeof(r));

	close(fd);
	return n == sizeof(r) ? 0 : -1;
}

static int exit_status(pid_t pid)
{
	int status;

	return waitpid(pid, &status, 0) == pid && WIFEXITED(status) ?
		WEXITSTATUS(status) : -1;
}

FIXTURE(stuck) {
	const char *name;
	const char *other;
	int fan;
	int fd;
	pid_t pid;
};

FIXTURE_VARIANT(stuck) {
	unsigned int response;
};

FIXTURE_VARIANT_ADD(stuck, and_succeeds) { .response = FAN_ALLOW };
FIXTURE_VARIANT_ADD(stuck, and_fails) { .response = FAN_DENY };

/* A process that makes a region and waits for somebody else in the middle of it */
FIXTURE_SETUP(stuck)
{
	self->name = new_name();
	self->other = new_name();
	ASSERT_OK(private_mounts());
	ASSERT_OK(mount("none", MSHAREFS, "msharefs", 0, NULL));
	self->fan = fanotify_init(FAN_CLASS_CONTENT | FAN_CLOEXEC, O_RDONLY);
	ASSERT_LE(0, self->fan);
	if (fanotify_mark(self->fan, FAN_MARK_ADD | FAN_MARK_MOUNT,
			  FAN_OPEN_PERM, AT_FDCWD, MSHAREFS))
		SKIP(return, "no permission events of fanotify");
	self->pid = create_in_child(self->name, slot(0), granule());
	self->fd = wait_for_open(self->fan, self->pid);
	ASSERT_LE(0, self->fd);
}

FIXTURE_TEARDOWN(stuck)
{
	close(self->fan);
}

TEST_F(stuck, who_makes_a_region_stops_no_other)
{
	pid_t pid;
	int fd;

	/* Not seen, and neither is the directory locked. */
	EXPECT_ERR(ENOENT, access(path_of(self->name), F_OK));
	EXPECT_ERR(ENOENT, mshare_unlink(self->name));
	pid = create_in_child(self->other, slot(0), granule());
	fd = wait_for_open(self->fan, pid);
	ASSERT_LE(0, fd);
	ASSERT_OK(answer(self->fan, fd, FAN_ALLOW));
	EXPECT_EQ(0, exit_status(pid));
	EXPECT_OK(access(path_of(self->other), F_OK));
	EXPECT_OK(mshare_unlink(self->other));

	ASSERT_OK(answer(self->fan, self->fd, variant->response));
	EXPECT_EQ(variant->response == FAN_ALLOW ? 0 : EPERM,
		  exit_status(self->pid));
	EXPECT_EQ(variant->response == FAN_ALLOW ? 0 : -1,
		  access(path_of(self->name), F_OK));
}

TEST_F(stuck, who_wants_the_same_name_waits)
{
	pid_t pid = create_in_child(self->name, slot(0), granule());
	int fd, status;

	usleep(100 * 1000);
	EXPECT_EQ(0, waitpid(pid, &status, WNOHANG));
	ASSERT_OK(answer(self->fan, self->fd, variant->response));
	if (variant->response == FAN_ALLOW) {
		EXPECT_EQ(0, exit_status(self->pid));
		EXPECT_EQ(EEXIST, exit_status(pid));
	} else {
		EXPECT_EQ(EPERM, exit_status(self->pid));
		fd = wait_for_open(self->fan, pid);
		ASSERT_LE(0, fd);
		ASSERT_OK(answer(self->fan, fd, FAN_ALLOW));
		EXPECT_EQ(0, exit_status(pid));
	}
	EXPECT_OK(access(path_of(self->name), F_OK));
}

TEST_F(stuck, who_waits_for_a_name_can_be_killed)
{
	pid_t pid = create_in_child(self->name, slot(0), granule());
	int status;

	usleep(50 * 1000);
	ASSERT_OK(kill(pid, SIGKILL));
	ASSERT_EQ(pid, waitpid(pid, &status, 0));
	EXPECT_TRUE(WIFSIGNALED(status));
	ASSERT_OK(answer(self->fan, self->fd, variant->response));
	EXPECT_EQ(variant->response == FAN_ALLOW ? 0 : EPERM,
		  exit_status(self->pid));
}

FIXTURE(mounted) {
	const char *name;
};

FIXTURE_SETUP(mounted)
{
	self->name = new_name();
}

FIXTURE_TEARDOWN(mounted)
{
	remove_names();
}

TEST_F(mounted, the_mount_point_is_a_directory_of_sysfs)
{
	struct statfs sf;
	struct stat st;

	ASSERT_OK(private_mounts());
	while (!umount2(MSHAREFS, MNT_DETACH))
		;
	ASSERT_OK(stat(MSHAREFS, &st));
	EXPECT_TRUE(S_ISDIR(st.st_mode));
	ASSERT_OK(statfs(MSHAREFS, &sf));
	EXPECT_EQ(0x62656572, sf.f_type);
}

MSHARE_TEST_MAIN
