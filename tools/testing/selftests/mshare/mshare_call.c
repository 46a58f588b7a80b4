// SPDX-License-Identifier: GPL-2.0
/*
 * The two calls: arguments, names, permissions and every errno they promise.
 * After each failure nothing may be left: no name, no mapping.
 */
#include <linux/landlock.h>
#include "mshare_test.h"

#define CREATE	(O_RDWR | O_CREAT | O_EXCL)

#ifndef PR_SET_MDWE
#define PR_SET_MDWE		65
#define PR_MDWE_REFUSE_EXEC_GAIN 1
#endif

FIXTURE(call)
{
	const char *name;
	void *addr;
	size_t len;
	struct peer a, b;
};

FIXTURE_SETUP(call)
{
	umask(0);
	self->name = new_name();
	self->addr = slot(0);
	self->len = granule();
	ASSERT_EQ(0, peer_start(&self->a));
	ASSERT_EQ(0, peer_start(&self->b));
}

FIXTURE_TEARDOWN(call)
{
	peer_stop(&self->a);
	peer_stop(&self->b);
	remove_names();
}

/* A creation that fails as @err says, and leaves no name and no mapping. */
#define EXPECT_NOT_CREATED(_err, _addr, _len, _oflag) do {		\
	int _before = nr_mapped(NULL, ~0UL);				\
									\
	EXPECT_ERR(_err, mshare(self->name, (void *)(_addr), _len,	\
				_oflag, 0600));				\
	EXPECT_FALSE(name_exists(self->name)) {				\
		mshare_unlink(self->name);				\
		unlink(path_of(self->name));				\
	}								\
	EXPECT_EQ(_before, nr_mapped(NULL, ~0UL));			\
} while (0)

/* An attach of process @_p that fails and leaves no mapping. */
#define EXPECT_NOT_ATTACHED(_err, _p, _addr, _len, _oflag) do {		\
	int _before = PEER(_p, do_nr_mapped, NULL, 0, ~0UL);		\
									\
	EXPECT_ERR(_err, PEER(_p, do_mshare, self->name, L(_addr), _len, \
			      _oflag, 0600));				\
	EXPECT_EQ(_before, PEER(_p, do_nr_mapped, NULL, 0, ~0UL));	\
} while (0)

static bool la57(void)
{
	char *buf = malloc(MB);
	bool has = read_file("/proc/cpuinfo", buf, MB) > 0 && strstr(buf, " la57");

	free(buf);
	return has;
}

TEST_F(call, creator_is_attached_and_others_can_attach)
{
	EXPECT_EQ(0, nr_mapped(self->addr, self->len));
	ASSERT_OK(create(self->name, self->addr, self->len));
	EXPECT_TRUE(name_exists(self->name));
	EXPECT_EQ(1, nr_mapped(self->addr, self->len));
	ASSERT_OK(peer_attach(&self->a, self->name));
	ASSERT_OK(PEER(&self->b, do_mshare, self->name, L(self->addr),
		       self->len, O_RDWR, 0));
	EXPECT_EQ(1, PEER(&self->a, do_nr_mapped, NULL, L(self->addr), self->len));
	EXPECT_EQ(1, PEER(&self->b, do_nr_mapped, NULL, L(self->addr), self->len));
	ASSERT_OK(map_anon(self->addr, page(), MAP_SHARED));
	EXPECT_EQ(0, peer_write(&self->a, self->addr, 7));
	EXPECT_EQ(7, peer_read(&self->b, self->addr));
	EXPECT_EQ(7, try_read(self->addr));
}

TEST_F(call, a_new_region_is_empty)
{
	ASSERT_OK(create(self->name, self->addr, self->len));
	EXPECT_EQ(SIGBUS, fault_sig(try_read(self->addr)));
	EXPECT_EQ(SIGBUS, fault_sig(try_write(at(self->addr, self->len - 1), 1)));
	EXPECT_EQ(SIGBUS, fault_sig(try_read(at(self->addr, self->len / 2))));
}

TEST_F(call, a_region_may_have_many_granules)
{
	const size_t n = 64;
	size_t i;

	ASSERT_OK(create(self->name, self->addr, n * self->len));
	ASSERT_OK(peer_attach(&self->a, self->name));
	for (i = 0; i < n; i++) {
		void *p = at(self->addr, i * self->len + i * page());

		ASSERT_OK(map_anon(p, page(), MAP_PRIVATE));
		EXPECT_EQ(0, try_write(p, i + 1));
	}
	for (i = 0; i < n; i++) {
		EXPECT_EQ((long)i + 1,
			  peer_read(&self->a, at(self->addr,
						 i * self->len + i * page())));
	}
	EXPECT_EQ(FAULT(SIGSEGV, SEGV_MAPERR),
		  peer_read(&self->a, at(self->addr, n * self->len)));
}

TEST_F(call, a_process_may_have_several_regions)
{
	const char *names[5];
	int i;

	for (i = 0; i < 5; i++) {
		names[i] = new_name();
		ASSERT_OK(create(names[i], slot(2 * i), self->len));
		ASSERT_OK(map_anon(slot(2 * i), page(), MAP_SHARED));
		EXPECT_EQ(0, try_write(slot(2 * i), i + 1));
	}
	for (i = 4; i >= 0; i--) {
		ASSERT_OK(peer_attach(&self->a, names[i]));
	}
	for (i = 0; i < 5; i++) {
		EXPECT_EQ(i + 1, peer_read(&self->a, slot(2 * i)));
	}
	ASSERT_OK(munmap(slot(4), self->len));
	EXPECT_EQ(FAULT(SIGSEGV, SEGV_MAPERR), try_read(slot(4)));
	EXPECT_EQ(3, peer_read(&self->a, slot(4)));
	EXPECT_EQ(2, try_read(slot(2)));
	EXPECT_EQ(4, try_read(slot(6)));
}

TEST_F(call, creation_refuses_zero_and_misaligned_ranges)
{
	unsigned long a = (unsigned long)self->addr;
	size_t g = self->len;

	EXPECT_NOT_CREATED(EINVAL, 0, 0, CREATE);
	EXPECT_NOT_CREATED(EINVAL, 0, g, CREATE);
	EXPECT_NOT_CREATED(EINVAL, a, 0, CREATE);
	EXPECT_NOT_CREATED(EINVAL, a + 1, g, CREATE);
	EXPECT_NOT_CREATED(EINVAL, a + page(), g, CREATE);
	EXPECT_NOT_CREATED(EINVAL, a + g / 2, g, CREATE);
	EXPECT_NOT_CREATED(EINVAL, a, 1, CREATE);
	EXPECT_NOT_CREATED(EINVAL, a, page(), CREATE);
	EXPECT_NOT_CREATED(EINVAL, a, g / 2, CREATE);
	EXPECT_NOT_CREATED(EINVAL, a, g + page(), CREATE);
	EXPECT_NOT_CREATED(EINVAL, a, 2 * g - 1, CREATE);
	EXPECT_NOT_CREATED(EINVAL, a, g + g / 2, O_RDWR | O_CREAT);
}

TEST_F(call, creation_refuses_ranges_beyond_user_space)
{
	unsigned long a = (unsigned long)self->addr;
	unsigned long end = 1UL << (la57() ? 56 : 47);
	size_t g = self->len;

	EXPECT_NOT_CREATED(EINVAL, end, g, CREATE);
	EXPECT_NOT_CREATED(EINVAL, end - g, 2 * g, CREATE);
	EXPECT_NOT_CREATED(EINVAL, end - g, g, CREATE);
	EXPECT_NOT_CREATED(EINVAL, a, end, CREATE);
	EXPECT_NOT_CREATED(EINVAL, 1UL << 63, g, CREATE);
	EXPECT_NOT_CREATED(EINVAL, 0xffff800000000000UL, g, CREATE);
	EXPECT_NOT_CREATED(EINVAL, -g, g, CREATE);
	EXPECT_NOT_CREATED(EINVAL, -g, 2 * g, CREATE);
	EXPECT_NOT_CREATED(EINVAL, a, -a, CREATE);
	EXPECT_NOT_CREATED(EINVAL, a, -a + g, CREATE);
	EXPECT_NOT_CREATED(EINVAL, a, -g, CREATE);
}

/* With five levels a region may lie where only explicit addresses reach. */
TEST_F(call, addresses_above_47_bits_follow_the_paging_mode)
{
	void *high = (void *)(1UL << 50);

	if (!la57()) {
		EXPECT_NOT_CREATED(EINVAL, high, self->len, CREATE);
		return;
	}
	ASSERT_OK(create(self->name, high, 3 * self->len));
	ASSERT_OK(map_anon(at(high, self->len), page(), MAP_SHARED));
	EXPECT_EQ(0, try_write(at(high, self->len), 5));
	ASSERT_OK(peer_attach(&self->a, self->name));
	EXPECT_EQ(5, peer_read(&self->a, at(high, self->len)));
}

TEST_F(call, unknown_flags_are_refused)
{
	const char *other = new_name();
	unsigned int bit;

	ASSERT_OK(peer_create(&self->b, other, self->addr, self->len));
	for (bit = 0; bit < 32; bit++) {
		unsigned int f = 1U << bit;

		if (f & (O_ACCMODE | O_CREAT | O_EXCL))
			continue;
		EXPECT_NOT_CREATED(EINVAL, self->addr, self->len, CREATE | f);
		EXPECT_ERR(EINVAL, mshare(other, NULL, 0, O_RDWR | f, 0)) {
			TH_LOG("flag %#o", f);
		}
		EXPECT_EQ(0, nr_mapped(self->addr, self->len));
	}
}

TEST_F(call, write_only_and_the_fourth_access_mode_are_refused)
{
	EXPECT_NOT_CREATED(EINVAL, self->addr, self->len,
			   O_WRONLY | O_CREAT | O_EXCL);
	EXPECT_NOT_CREATED(EINVAL, self->addr, self->len,
			   O_ACCMODE | O_CREAT | O_EXCL);
	ASSERT_OK(peer_create(&self->b, self->name, self->addr, self->len));
	EXPECT_NOT_ATTACHED(EINVAL, &self->a, 0, 0, O_WRONLY);
	EXPECT_NOT_ATTACHED(EINVAL, &self->a, 0, 0, O_ACCMODE);
}

TEST_F(call, names_that_cannot_be_are_refused_by_both_calls)
{
	static const char * const bad[] = {
		"", ".", "..", "mshare_info",
		MSHAREFS "/mshare_info", MSHAREFS "/.", MSHAREFS "/..", MSHAREFS,
		MSHAREFS "/", "/",
	};
	struct stat before, after;
	size_t i;

	ASSERT_OK(stat(MSHAREFS "/mshare_info", &before));
	for (i = 0; i < ARRAY_SIZE(bad); i++) {
		EXPECT_ERR(EINVAL, mshare(bad[i], self->addr, self->len, CREATE,
					  0600)) {
			TH_LOG("name '%s'", bad[i]);
		}
		EXPECT_ERR(EINVAL, mshare(bad[i], NULL, 0, O_RDWR, 0)) {
			TH_LOG("name '%s'", bad[i]);
		}
		EXPECT_ERR(EINVAL, mshare_unlink(bad[i])) {
			TH_LOG("name '%s'", bad[i]);
		}
		EXPECT_EQ(0, nr_mapped(self->addr, self->len));
	}
	ASSERT_OK(stat(MSHAREFS "/mshare_info", &after));
	EXPECT_EQ(before.st_ino, after.st_ino);
}

/* One component is a name; more than one is none. */
TEST_F(call, a_relative_name_has_one_component)
{
	static const char * const bad[] = { "a/b", "./x", "../mshare/x", "x/" };
	size_t i;

	for (i = 0; i < ARRAY_SIZE(bad); i++) {
		long ret = mshare(bad[i], self->addr, self->len, CREATE, 0600);
		int err = errno;

		EXPECT_EQ(-1, ret);
		EXPECT_TRUE(err == EINVAL || err == ENOENT || err == ENOTDIR ||
			    err == EACCES || err == EISDIR) {
			TH_LOG("name '%s': %s", bad[i], strerror(err));
		}
		EXPECT_EQ(-1, mshare_unlink(bad[i]));
		EXPECT_EQ(0, nr_mapped(self->addr, self->len));
	}
	EXPECT_FALSE(name_exists("x"));
}

TEST_F(call, names_have_up_to_255_bytes)
{
	char name[300];

	memset(name, 'n', sizeof(name));
	snprintf(name, 20, "t%d-", getpid());
	name[strlen(name)] = 'n';
	name[256] = 0;
	EXPECT_ERR(ENAMETOOLONG, mshare(name, self->addr, self->len, CREATE, 0600));
	EXPECT_ERR(ENAMETOOLONG, mshare(name, NULL, 0, O_RDWR, 0));
	EXPECT_ERR(ENAMETOOLONG, mshare_unlink(name));
	EXPECT_EQ(0, nr_mapped(self->addr, self->len));
	name[255] = 0;
	ASSERT_OK(create(name, self->addr, self->len));
	EXPECT_TRUE(name_exists(name));
	EXPECT_OK(peer_attach(&self->a, name));
	EXPECT_OK(peer_unlink(&self->a, name));
	EXPECT_OK(mshare_unlink(name));
	EXPECT_FALSE(name_exists(name));
}

TEST_F(call, a_path_longer_than_path_max_is_refused)
{
	char *path = malloc(2 * PATH_MAX);

	memset(path, '/', 2 * PATH_MAX - 1);
	path[2 * PATH_MAX - 1] = 0;
	EXPECT_ERR(ENAMETOOLONG, mshare(path, self->addr, self->len, CREATE, 0600));
	EXPECT_ERR(ENAMETOOLONG, mshare_unlink(path));
	free(path);
}

TEST_F(call, a_name_may_have_any_byte_but_slash_and_nul)
{
	char name[64];

	snprintf(name, sizeof(name), "t%d- \n\t\xff\x80*?", getpid());
	ASSERT_OK(create(name, self->addr, self->len));
	EXPECT_TRUE(name_exists(name));
	EXPECT_OK(peer_attach(&self->a, name));
	EXPECT_OK(peer_unlink(&self->a, name));
	EXPECT_OK(mshare_unlink(name));
	EXPECT_FALSE(name_exists(name));
}

TEST_F(call, a_name_that_cannot_be_read_gives_efault)
{
	char *p = mmap(NULL, 2 * page(), PROT_READ | PROT_WRITE,
		       MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	ASSERT_NE(MAP_FAILED, p);
	ASSERT_OK(munmap(p + page(), page()));
	memset(p, 'x', page());
	EXPECT_ERR(EFAULT, mshare(NULL, self->addr, self->len, CREATE, 0600));
	EXPECT_ERR(EFAULT, mshare((char *)-4096L, NULL, 0, O_RDWR, 0));
	EXPECT_ERR(EFAULT, mshare(p + page() - 4, self->addr, self->len, CREATE,
				  0600));
	EXPECT_ERR(EFAULT, mshare_unlink(NULL));
	EXPECT_ERR(EFAULT, mshare_unlink(p + page() - 4));
	EXPECT_EQ(0, nr_mapped(self->addr, self->len));
	EXPECT_FALSE(name_exists("xxxx"));
}

TEST_F(call, no_such_name_is_enoent)
{
	EXPECT_NOT_CREATED(ENOENT, 0, 0, O_RDWR);
	EXPECT_NOT_CREATED(ENOENT, self->addr, self->len, O_RDWR);
	EXPECT_ERR(ENOENT, mshare_unlink(self->name));
	EXPECT_ERR(ENOENT, mshare_unlink(path_of(self->name)));
}

TEST_F(call, exclusive_creation_of_an_existing_name_is_eexist)
{
	ASSERT_OK(create(self->name, self->addr, self->len));
	EXPECT_NOT_ATTACHED(EEXIST, &self->a, self->addr, self->len, CREATE);
	EXPECT_NOT_ATTACHED(EEXIST, &self->a, slot(3), self->len, CREATE);
	EXPECT_TRUE(name_exists(self->name));
}

TEST_F(call, creation_of_an_existing_name_attaches)
{
	ASSERT_OK(create(self->name, self->addr, 2 * self->len));
	ASSERT_OK(map_anon(self->addr, page(), MAP_SHARED));
	EXPECT_EQ(0, try_write(self->addr, 9));
	ASSERT_OK(PEER(&self->a, do_mshare, self->name, L(self->addr),
		       2 * self->len, O_RDWR | O_CREAT, 0644));
	EXPECT_EQ(9, peer_read(&self->a, self->addr));
	ASSERT_OK(PEER(&self->b, do_mshare, self->name, 0, 0, O_RDWR | O_CREAT,
		       0644));
	EXPECT_EQ(9, peer_read(&self->b, self->addr));
}

TEST_F(call, attaching_takes_both_of_addr_and_len_or_neither)
{
	ASSERT_OK(create(self->name, self->addr, self->len));
	EXPECT_NOT_ATTACHED(EINVAL, &self->a, self->addr, 0, O_RDWR);
	EXPECT_NOT_ATTACHED(EINVAL, &self->a, 0, self->len, O_RDWR);
	EXPECT_NOT_ATTACHED(EINVAL, &self->a, self->addr, 0, O_RDWR | O_CREAT);
	EXPECT_NOT_ATTACHED(EINVAL, &self->a, 0, self->len, O_RDWR | O_CREAT);
}

TEST_F(call, attaching_refuses_ranges_that_are_not_the_regions)
{
	unsigned long a = (unsigned long)self->addr;
	size_t g = self->len;

	ASSERT_OK(create(self->name, self->addr, 2 * g));
	EXPECT_NOT_ATTACHED(EINVAL, &self->a, a, 3 * g, O_RDWR);
	EXPECT_NOT_ATTACHED(EINVAL, &self->a, a - g, 3 * g, O_RDWR);
	EXPECT_NOT_ATTACHED(EINVAL, &self->a, a + 2 * g, g, O_RDWR);
	EXPECT_NOT_ATTACHED(EINVAL, &self->a, a - g, g, O_RDWR);
	EXPECT_NOT_ATTACHED(EINVAL, &self->a, a + 5 * g, 3 * g, O_RDWR);
	EXPECT_NOT_ATTACHED(EINVAL, &self->a, a + page(), 2 * g, O_RDWR);
	EXPECT_NOT_ATTACHED(EINVAL, &self->a, a, g + page(), O_RDWR);
	EXPECT_NOT_ATTACHED(EINVAL, &self->a, a, page(), O_RDWR);
	EXPECT_NOT_ATTACHED(EINVAL, &self->a, a + 1, 2 * g, O_RDWR);
	EXPECT_NOT_ATTACHED(EINVAL, &self->a, 1UL << 63, 2 * g, O_RDWR);
	EXPECT_NOT_ATTACHED(EINVAL, &self->a, -g, 2 * g, O_RDWR);
	EXPECT_NOT_ATTACHED(EINVAL, &self->a, a, -a, O_RDWR);
}

/* More of this is in mshare_part.c. */
TEST_F(call, parts_and_other_addresses_attach)
{
	unsigned long a = (unsigned long)self->addr;
	size_t g = self->len;

	ASSERT_OK(create(self->name, self->addr, 2 * g));
	ASSERT_OK(map_anon(at(self->addr, g), page(), MAP_SHARED));
	EXPECT_EQ(0, try_write(at(self->addr, g), 9));
	ASSERT_OK(PEER(&self->a, do_mshare, self->name, a + g, g, O_RDWR, 0));
	EXPECT_EQ(9, peer_read(&self->a, (void *)(a + g)));
	ASSERT_OK(PEER(&self->b, do_mshare, self->name, a + 8 * g, 2 * g, O_RDWR, 0));
	EXPECT_EQ(9, peer_read(&self->b, (void *)(a + 9 * g)));
	/* What is wrong in itself stays wrong. */
	EXPECT_NOT_ATTACHED(EEXIST, &self->a, a, 2 * g, O_RDONLY | O_CREAT | O_EXCL);
}

/* What can never be shared. */
TEST_F(call, creating_over_the_stack_or_an_attachment_is_refused)
{
	const char *other = new_name();
	unsigned long stack = (unsigned long)&other;
	int before = nr_mapped(NULL, ~0UL);

	stack -= stack % self->len;
	EXPECT_ERR(EINVAL, mshare(self->name, (void *)stack, self->len, CREATE, 0600));
	EXPECT_FALSE(name_exists(self->name));
	ASSERT_OK(create(other, self->addr, self->len));
	EXPECT_EQ(before + 1, nr_mapped(NULL, ~0UL));
	EXPECT_ERR(EINVAL, mshare(self->name, self->addr, self->len, CREATE, 0600));
	EXPECT_ERR(EINVAL, mshare(self->name, slot(0), 2 * self->len, CREATE, 0600));
	EXPECT_FALSE(name_exists(self->name));
	EXPECT_EQ(before + 1, nr_mapped(NULL, ~0UL));
}

TEST_F(call, attaching_where_something_is_mapped_is_ebusy)
{
	size_t offs[] = { 0, self->len / 2, 2 * self->len - page() };
	size_t i;

	ASSERT_OK(create(self->name, self->addr, 2 * self->len));
	for (i = 0; i < ARRAY_SIZE(offs); i++) {
		void *p = at(self->addr, offs[i]);

		ASSERT_OK(peer_mmap(&self->a, p, page(), PROT_READ | PROT_WRITE,
				    MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0));
		EXPECT_EQ(0, peer_write(&self->a, p, 77));
		EXPECT_NOT_ATTACHED(EBUSY, &self->a, 0, 0, O_RDWR);
		EXPECT_NOT_ATTACHED(EBUSY, &self->a, self->addr, 2 * self->len,
				    O_RDWR);
		EXPECT_EQ(77, peer_read(&self->a, p));
		ASSERT_OK(peer_munmap(&self->a, p, page()));
	}
	EXPECT_OK(peer_attach(&self->a, self->name));
}

TEST_F(call, a_process_attaches_a_region_once)
{
	ASSERT_OK(create(self->name, self->addr, self->len));
	EXPECT_ERR(EBUSY, attach(self->name));
	EXPECT_ERR(EBUSY, mshare(self->name, self->addr, self->len, O_RDWR, 0));
	EXPECT_ERR(EBUSY, mshare(self->name, self->addr, self->len,
				 O_RDWR | O_CREAT, 0600));
	EXPECT_EQ(1, nr_mapped(self->addr, self->len));
	ASSERT_OK(peer_attach(&self->a, self->name));
	EXPECT_NOT_ATTACHED(EBUSY, &self->a, 0, 0, O_RDWR);
	/* After it has detached it may again. */
	ASSERT_OK(peer_munmap(&self->a, self->addr, self->len));
	EXPECT_OK(peer_attach(&self->a, self->name));
}

TEST_F(call, two_regions_cannot_overlap_in_a_process)
{
	const char *other = new_name();

	ASSERT_OK(peer_create(&self->a, self->name, self->addr, self->len));
	ASSERT_OK(peer_create(&self->b, other, self->addr, 2 * self->len));
	EXPECT_NOT_ATTACHED(EBUSY, &self->b, 0, 0, O_RDWR);
	ASSERT_OK(attach(other));
	EXPECT_ERR(EBUSY, attach(self->name));
	EXPECT_EQ(1, nr_mapped(self->addr, self->len));
}

TEST_F(call, the_mode_is_masked_and_the_owner_is_the_caller)
{
	const char *other = new_name();
	struct stat st;

	ASSERT_OK(mshare(self->name, self->addr, self->len, CREATE, 07777));
	ASSERT_OK(stat(path_of(self->name), &st));
	EXPECT_EQ(0777U, st.st_mode & 07777);
	EXPECT_EQ(0U, st.st_uid);
	EXPECT_EQ(0U, st.st_gid);
	ASSERT_OK(mshare_unlink(self->name));
	umask(027);
	ASSERT_OK(mshare(self->name, self->addr, self->len, CREATE, 0666));
	ASSERT_OK(stat(path_of(self->name), &st));
	EXPECT_EQ(0640U, st.st_mode & 07777);
	umask(0);

	ASSERT_OK(peer_become(&self->a, 1001, 1002));
	ASSERT_OK(PEER(&self->a, do_mshare, other, L(self->addr), self->len,
		       CREATE, 0600));
	ASSERT_OK(stat(path_of(other), &st));
	EXPECT_EQ(0600U, st.st_mode & 07777);
	EXPECT_EQ(1001U, st.st_uid);
	EXPECT_EQ(1002U, st.st_gid);
}

/* As open(2): the rights a file gets do not bind the one who makes it. */
TEST_F(call, the_creator_is_attached_whatever_the_mode)
{
	ASSERT_OK(peer_become(&self->a, 1001, 1001));
	ASSERT_OK(PEER(&self->a, do_mshare, self->name, L(self->addr), self->len,
		       CREATE, 0));
	EXPECT_OK(peer_mmap(&self->a, self->addr, page(), PROT_READ | PROT_WRITE,
			    MAP_SHARED | MAP_ANONYMOUS | MAP_FIXED, -1, 0));
	EXPECT_EQ(0, peer_write(&self->a, self->addr, 1));
	ASSERT_OK(peer_become(&self->b, 1001, 1001));
	EXPECT_NOT_ATTACHED(EACCES, &self->b, 0, 0, O_RDWR);
}

FIXTURE(perm)
{
	const char *name;
	void *addr;
	size_t len;
	struct peer owner, user;
};

FIXTURE_VARIANT(perm)
{
	mode_t mode;
	uid_t uid;
	gid_t gid;
	bool read;
	bool write;
};

/* The region belongs to 1001:1001. */
FIXTURE_VARIANT_ADD(perm, owner_rw) {
	.mode = 0600, .uid = 1001, .gid = 1001, .read = true, .write = true };
FIXTURE_VARIANT_ADD(perm, owner_ro) {
	.mode = 0466, .uid = 1001, .gid = 1001, .read = true, .write = false };
FIXTURE_VARIANT_ADD(perm, owner_wo) {
	.mode = 0266, .uid = 1001, .gid = 1001, .read = false, .write = false };
FIXTURE_VARIANT_ADD(perm, group_rw) {
	.mode = 0060, .uid = 1003, .gid = 1001, .read = true, .write = true };
FIXTURE_VARIANT_ADD(perm, group_ro) {
	.mode = 0646, .uid = 1003, .gid = 1001, .read = true, .write = false };
FIXTURE_VARIANT_ADD(perm, group_none) {
	.mode = 0606, .uid = 1003, .gid = 1001, .read = false, .write = false };
FIXTURE_VARIANT_ADD(perm, other_rw) {
	.mode = 0006, .uid = 1003, .gid = 1003, .read = true, .write = true };
FIXTURE_VARIANT_ADD(perm, other_ro) {
	.mode = 0664, .uid = 1003, .gid = 1003, .read = true, .write = false };
FIXTURE_VARIANT_ADD(perm, other_wo) {
	.mode = 0662, .uid = 1003, .gid = 1003, .read = false, .write = false };
FIXTURE_VARIANT_ADD(perm, other_none) {
	.mode = 0660, .uid = 1003, .gid = 1003, .read = false, .write = false };
FIXTURE_VARIANT_ADD(perm, root_with_capabilities) {
	.mode = 0000, .uid = 0, .gid = 0, .read = true, .write = true };

FIXTURE_SETUP(perm)
{
	umask(0);
	self->name = new_name();
	self->addr = slot(0);
	self->len = granule();
	ASSERT_EQ(0, peer_start(&self->owner));
	ASSERT_EQ(0, peer_start(&self->user));
	ASSERT_OK(peer_become(&self->owner, 1001, 1001));
	if (variant->uid) {
		ASSERT_OK(peer_become(&self->user, variant->uid, variant->gid));
	}
	ASSERT_OK(PEER(&self->owner, do_mshare, self->name, L(self->addr),
		       self->len, CREATE, variant->mode));
}

FIXTURE_TEARDOWN(perm)
{
	peer_stop(&self->owner);
	peer_stop(&self->user);
	remove_names();
}

TEST_F(perm, the_files_permissions_decide_about_attaching)
{
	if (variant->read) {
		EXPECT_OK(PEER(&self->user, do_mshare, self->name, 0, 0,
			       O_RDONLY, 0));
		EXPECT_OK(peer_munmap(&self->user, self->addr, self->len));
	} else {
		EXPECT_NOT_ATTACHED(EACCES, &self->user, 0, 0, O_RDONLY);
	}
	if (variant->read && variant->write) {
		EXPECT_OK(peer_attach(&self->user, self->name));
	} else {
		EXPECT_NOT_ATTACHED(EACCES, &self->user, 0, 0, O_RDWR);
	}
	EXPECT_NOT_ATTACHED(EEXIST, &self->user, self->addr, self->len, CREATE);
}

TEST_F(perm, chmod_and_chown_change_who_may_attach)
{
	ASSERT_OK(chmod(path_of(self->name), 0));
	if (variant->uid) {
		EXPECT_NOT_ATTACHED(EACCES, &self->user, 0, 0, O_RDWR);
	}
	ASSERT_OK(chown(path_of(self->name), variant->uid, variant->gid));
	ASSERT_OK(chmod(path_of(self->name), 0600));
	EXPECT_OK(peer_attach(&self->user, self->name));
}

static void private_msharefs(struct __test_metadata *_metadata, const char *opts)
{
	ASSERT_OK(private_mounts());
	ASSERT_OK(mount("none", MSHAREFS, "msharefs", 0, opts));
}

static long do_mounts(const struct request *rq)
{
	if (private_mounts())
		return -1;
	return mount("none", MSHAREFS, "msharefs", 0, rq->s);
}

static long do_remount(const struct request *rq)
{
	return mount(NULL, MSHAREFS, NULL, MS_REMOUNT | rq->a[0], NULL);
}

static long do_bind_flags(const struct request *rq)
{
	if (mount(MSHAREFS, MSHAREFS, NULL, MS_BIND, NULL))
		return -1;
	return mount(NULL, MSHAREFS, NULL, MS_REMOUNT | MS_BIND | rq->a[0], NULL);
}

static long do_exists(const struct request *rq)
{
	return name_exists(rq->s);
}

static long do_chmod(const struct request *rq)
{
	return chmod(path_of(rq->s), rq->a[0]);
}

/*
 * Mount tests run in a peer's own mount namespace; this starts a second one
 * in that namespace, with another user.
 */
static long do_as_user(const struct request *rq)
{
	int pid = fork_bound(), status;
	int err;

	if (!pid) {
		if (setgroups(0, NULL) || setresgid(rq->a[0], rq->a[0], rq->a[0]) ||
		    setresuid(rq->a[0], rq->a[0], rq->a[0]))
			_exit(255);
		umask(0);
		if (rq->a[1])
			err = mshare_unlink(rq->s);
		else
			err = mshare(rq->s, (void *)rq->a[2], rq->a[3], rq->a[4],
				     0666);
		_exit(err ? errno : 0);
	}
	if (waitpid(pid, &status, 0) != pid || !WIFEXITED(status))
		return -1;
	errno = WEXITSTATUS(status);
	return errno ? -1 : 0;
}

TEST_F(call, creating_needs_the_right_to_write_the_directory)
{
	ASSERT_OK(PEER(&self->a, do_mounts, "mode=0755", 0));
	EXPECT_ERR(EACCES, PEER(&self->a, do_as_user, self->name, 1001, 0,
				L(self->addr), self->len, CREATE));
	EXPECT_EQ(0, PEER(&self->a, do_exists, self->name, 0));
	ASSERT_OK(peer_create(&self->a, self->name, self->addr, self->len));
	ASSERT_OK(PEER(&self->a, do_chmod, self->name, 0666));
	ASSERT_OK(peer_munmap(&self->a, self->addr, self->len));
	EXPECT_OK(PEER(&self->a, do_as_user, self->name, 1001, 0, 0, 0, O_RDWR));
	/* To look up a name needs the right to search. */
	ASSERT_OK(PEER(&self->a, do_chmod, ".", 0700));
	EXPECT_ERR(EACCES, PEER(&self->a, do_as_user, self->name, 1001, 0, 0, 0,
				O_RDWR));
	EXPECT_ERR(EACCES, PEER(&self->a, do_as_user, self->name, 1001, 1));
	EXPECT_EQ(1, PEER(&self->a, do_exists, self->name, 0));
}

TEST_F(call, a_set_gid_directory_hands_on_its_group)
{
	struct stat st;

	private_msharefs(_metadata, "mode=2777,gid=77");
	ASSERT_OK(mshare(self->name, self->addr, self->len, CREATE, 0660));
	ASSERT_OK(stat(path_of(self->name), &st));
	EXPECT_EQ(77U, st.st_gid);
	EXPECT_EQ(0660U, st.st_mode & 07777);
}

TEST_F(call, protected_regular_guards_creation_in_sticky_directories)
{
	const char *sysctl = "/proc/sys/fs/protected_regular";
	const char *other = new_name();
	char old[16];

	ASSERT_OK(read_file(sysctl, old, sizeof(old)));
	ASSERT_OK(peer_become(&self->a, 1001, 1001));
	ASSERT_OK(peer_become(&self->b, 1002, 1002));
	ASSERT_OK(PEER(&self->a, do_mshare, self->name, L(self->addr), self->len,
		       CREATE, 0666));
	ASSERT_OK(PEER(&self->a, do_mshare, other, L(slot(4)), self->len,
		       CREATE, 0666));

	ASSERT_OK(write_file(sysctl, "1"));
	EXPECT_NOT_ATTACHED(EACCES, &self->b, 0, 0, O_RDWR | O_CREAT);
	EXPECT_ERR(EACCES, mshare(self->name, NULL, 0, O_RDWR | O_CREAT, 0600));
	/* Who does not ask to create is not concerned, nor is the owner. */
	EXPECT_OK(peer_attach(&self->b, self->name));
	ASSERT_OK(peer_munmap(&self->a, self->addr, self->len));
	EXPECT_OK(PEER(&self->a, do_mshare, self->name, 0, 0, O_RDWR | O_CREAT,
		       0600));
	ASSERT_OK(write_file(sysctl, "0"));
	EXPECT_OK(PEER(&self->b, do_mshare, other, 0, 0, O_RDWR | O_CREAT, 0600));
	write_file(sysctl, old);
}

TEST_F(call, a_read_only_mount_gives_erofs)
{
	const char *other = new_name();

	ASSERT_OK(PEER(&self->a, do_mounts, "", 0));
	ASSERT_OK(peer_create(&self->a, self->name, self->addr, self->len));
	ASSERT_OK(peer_munmap(&self->a, self->addr, self->len));
	ASSERT_OK(PEER(&self->a, do_remount, NULL, MS_RDONLY));
	EXPECT_ERR(EROFS, peer_create(&self->a, other, slot(4), self->len));
	EXPECT_NOT_ATTACHED(EROFS, &self->a, 0, 0, O_RDWR);
	EXPECT_ERR(EROFS, peer_unlink(&self->a, self->name));
	EXPECT_EQ(1, PEER(&self->a, do_exists, self->name, 0));
	EXPECT_EQ(0, PEER(&self->a, do_exists, other, 0));
	ASSERT_OK(PEER(&self->a, do_remount, NULL, 0));
	EXPECT_OK(peer_attach(&self->a, self->name));
	EXPECT_OK(peer_unlink(&self->a, self->name));
}

/* The mount is read-only, the file system is not. */
TEST_F(call, a_read_only_bind_mount_gives_erofs)
{
	const char *other = new_name();

	ASSERT_OK(PEER(&self->a, do_mounts, "", 0));
	ASSERT_OK(peer_create(&self->a, self->name, self->addr, self->len));
	ASSERT_OK(peer_munmap(&self->a, self->addr, self->len));
	ASSERT_OK(PEER(&self->a, do_bind_flags, NULL, MS_RDONLY));
	EXPECT_ERR(EROFS, peer_create(&self->a, other, slot(4), self->len));
	EXPECT_NOT_ATTACHED(EROFS, &self->a, 0, 0, O_RDWR);
	EXPECT_ERR(EROFS, peer_unlink(&self->a, self->name));
	EXPECT_EQ(1, PEER(&self->a, do_exists, self->name, 0));
}

/* A region's file that is mounted elsewhere comes without its directory. */
static long do_bind_alone(const struct request *rq)
{
	char target[] = "/tmp/mshare-bind-XXXXXX";
	int fd, err = 0;

	fd = mkstemp(target);
	if (fd < 0)
		return -errno;
	close(fd);
	if (mount(path_of(rq->s), target, NULL, MS_BIND, NULL)) {
		err = -errno;
		goto unlink;
	}
	if (!mshare_unlink(target) || errno != EBUSY)
		err = -1000;
	else if (mshare(target, NULL, 0, O_RDWR, 0))
		err = -1001;
	else if (try_write((void *)rq->a[0], 3) || mshare_unlink(target))
		err = -1002;
	else if (!name_exists(rq->s))
		err = -1003;
	/* Without its name it is nobody's, and in the way of a new one. */
	else if (rq->a[1] && mshare_unlink(rq->s))
		err = -1004;
	else if (rq->a[1] && (!mshare(target, NULL, 0, O_RDWR, 0) || errno != ENOENT))
		err = -1005;
	else if (rq->a[1] && (!mshare(target, (void *)rq->a[0], granule(),
				      O_RDWR | O_CREAT, 0600) || errno != EBUSY))
		err = -1006;
	umount(target);
unlink:
	unlink(target);
	return err;
}

TEST_F(call, a_file_mounted_alone_is_attached_and_not_removed)
{
	char *p = self->addr;

	ASSERT_OK(create(self->name, self->addr, self->len));
	ASSERT_OK(map_anon(p, page(), MAP_PRIVATE));
	ASSERT_OK(munmap(self->addr, self->len));
	EXPECT_EQ(0, PEER(&self->a, do_bind_alone, self->name, L(p), 0));
	ASSERT_OK(mshare(self->name, NULL, 0, O_RDWR, 0));
	EXPECT_EQ(3, try_read(p));
	ASSERT_OK(munmap(self->addr, self->len));
	EXPECT_EQ(0, PEER(&self->a, do_bind_alone, self->name, L(p), 1));
	EXPECT_FALSE(name_exists(self->name));
}

#ifdef SYS_landlock_create_ruleset
/* LSMs that go by paths see the names that come and go. */
static long do_under_landlock(const struct request *rq)
{
	struct landlock_ruleset_attr attr = {
		.handled_access_fs = LANDLOCK_ACCESS_FS_MAKE_REG |
				     LANDLOCK_ACCESS_FS_REMOVE_FILE,
	};
	const char *other = new_name();
	int fd;

	fd = syscall(SYS_landlock_create_ruleset, &attr, sizeof(attr), 0);
	if (fd < 0)
		return -errno;
	if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) ||
	    syscall(SYS_landlock_restrict_self, fd, 0))
		return -errno;
	close(fd);
	if (!mshare(other, (void *)rq->a[0], granule(), O_CREAT | O_RDWR, 0600))
		return 1;
	if (errno != EACCES)
		return 2;
	if (name_exists(other))
		return 3;
	if (!mshare_unlink(rq->s))
		return 4;
	if (errno != EACCES)
		return 5;
	if (mshare(rq->s, NULL, 0, O_RDWR, 0))
		return 6;
	/* It is detached, and keeps its name. */
	if (mshare_unlink(rq->s))
		return 7;
	return 0;
}

TEST_F(call, landlock_forbids_to_make_and_remove_names)
{
	long ret;

	ASSERT_OK(create(self->name, self->addr, self->len));
	ASSERT_OK(munmap(self->addr, self->len));
	ret = PEER(&self->a, do_under_landlock, self->name, L(slot(4)));
	if (ret == -ENOSYS || ret == -EOPNOTSUPP)
		SKIP(return, "the kernel has no Landlock");
	EXPECT_EQ(0, ret);
	EXPECT_TRUE(name_exists(self->name));
	EXPECT_OK(mshare_unlink(self->name));
}
#endif

#ifdef __x86_64__
static long do_try_code(const struct request *rq)
{
	void *p = (void *)rq->a[0];

	if (mmap(p, page(), PROT_READ | PROT_WRITE,
		 MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0) == MAP_FAILED)
		return -1;
	memcpy(p, code_42, sizeof(code_42));
	/* Where the process may not, someone else may have. */
	mprotect(p, page(), PROT_READ | PROT_EXEC);
	return try_exec(p);
}

static long do_exec(const struct request *rq)
{
	return try_exec((void *)rq->a[0]);
}

/* Attached, and not executable. */
static void never_executable(struct __test_metadata *_metadata, struct peer *p,
			     const char *name, void *addr)
{
	ASSERT_OK(peer_attach(p, name));
	EXPECT_EQ(SIGSEGV, fault_sig(PEER(p, do_exec, NULL, L(addr))));
	EXPECT_NE(42, PEER(p, do_try_code, NULL, L(at(addr, page()))));
}

TEST_F(call, a_noexec_mount_never_gives_executable_memory)
{
	struct peer p;

	private_msharefs(_metadata, "");
	ASSERT_OK(create(self->name, self->addr, self->len));
	ASSERT_OK(map_anon(self->addr, page(), MAP_SHARED));
	memcpy(self->addr, code_42, sizeof(code_42));
	ASSERT_OK(mprotect(self->addr, page(), PROT_READ | PROT_EXEC));
	EXPECT_EQ(42, try_exec(self->addr));
	ASSERT_OK(munmap(self->addr, self->len));
	ASSERT_OK(mount(MSHAREFS, MSHAREFS, NULL, MS_BIND, NULL));
	ASSERT_OK(mount(NULL, MSHAREFS, NULL, MS_REMOUNT | MS_BIND | MS_NOEXEC,
			NULL));
	ASSERT_EQ(0, peer_start(&p));
	never_executable(_metadata, &p, self->name, self->addr);
	peer_stop(&p);
}

/* Maps a file executable at @a[0]. */
static long do_map_code(const struct request *rq)
{
	int fd = open(rq->s, O_RDONLY), err;
	void *p = mmap((void *)rq->a[0], rq->a[1], PROT_READ | PROT_EXEC,
		       rq->a[2], fd, 0);

	err = errno;
	close(fd);
	errno = err;
	return p == MAP_FAILED ? -1 : 0;
}

static long do_mdwe(const struct request *rq)
{
	return prctl(PR_SET_MDWE, rq->a[0], 0, 0, 0);
}

TEST_F(call, a_process_under_mdwe_never_gets_executable_memory)
{
	ASSERT_OK(create(self->name, self->addr, self->len));
	ASSERT_OK(map_anon(self->addr, page(), MAP_SHARED));
	memcpy(self->addr, code_42, sizeof(code_42));
	ASSERT_OK(mprotect(self->addr, page(), PROT_READ | PROT_EXEC));
	EXPECT_EQ(42, try_exec(self->addr));
	ASSERT_OK(PEER(&self->a, do_mdwe, NULL, PR_MDWE_REFUSE_EXEC_GAIN));
	never_executable(_metadata, &self->a, self->name, self->addr);

	/* Nor by the other way. */
	ASSERT_OK(peer_unlink(&self->a, self->name));
	EXPECT_ERR(EACCES, PEER(&self->a, do_map_code, path_of(self->name),
				L(self->addr), L(self->len), MAP_SHARED));
	ASSERT_OK(peer_mmap(&self->a, self->addr, page(), PROT_READ | PROT_WRITE,
			    MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0));
	ASSERT_EQ(0, peer_write(&self->a, self->addr, 5));
	EXPECT_ERR(EACCES, PEER(&self->a, do_map_code, path_of(self->name),
				L(self->addr), L(self->len),
				MAP_SHARED | MAP_FIXED));
	EXPECT_EQ(5, peer_read(&self->a, self->addr));
	ASSERT_OK(PEER(&self->b, do_map_code, path_of(self->name),
		       L(self->addr), L(self->len), MAP_SHARED));
	EXPECT_EQ(42, PEER(&self->b, do_exec, NULL, L(self->addr)));
}
#endif

TEST_F(call, a_path_on_msharefs_is_a_name)
{
	ASSERT_OK(create(path_of(self->name), self->addr, self->len));
	EXPECT_TRUE(name_exists(self->name));
	EXPECT_NOT_ATTACHED(EEXIST, &self->a, self->addr, self->len, CREATE);
	ASSERT_OK(peer_attach(&self->a, path_of(self->name)));
	EXPECT_ERR(EBUSY, peer_unlink(&self->b, path_of(self->name)));
	EXPECT_OK(peer_unlink(&self->a, path_of(self->name)));
	EXPECT_OK(mshare_unlink(path_of(self->name)));
	EXPECT_FALSE(name_exists(self->name));
}

/* Wherever else msharefs is mounted, paths reach it. */
TEST_F(call, a_path_reaches_msharefs_elsewhere)
{
	char dir[64], path[128];

	snprintf(dir, sizeof(dir), "/tmp/mshare-elsewhere-%d", getpid());
	ASSERT_OK(mkdir(dir, 0755));
	ASSERT_OK(private_mounts());
	ASSERT_OK(mount("none", dir, "msharefs", 0, NULL));
	snprintf(path, sizeof(path), "%s/%s", dir, self->name);
	EXPECT_OK(create(path, self->addr, self->len));
	EXPECT_FALSE(name_exists(self->name));
	EXPECT_EQ(0, access(path, F_OK));
	EXPECT_OK(mshare_unlink(path));
	EXPECT_EQ(-1, access(path, F_OK));
	umount2(dir, MNT_DETACH);
	rmdir(dir);
}

TEST_F(call, a_file_that_is_not_on_msharefs_is_refused)
{
	char dir[64], path[128];
	int fd;

	snprintf(dir, sizeof(dir), "/tmp/mshare-call-%d", getpid());
	ASSERT_OK(mkdir(dir, 0777));
	snprintf(path, sizeof(path), "%s/file", dir);
	fd = open(path, O_RDWR | O_CREAT, 0666);
	ASSERT_LE(0, fd);
	close(fd);
	EXPECT_ERR(EINVAL, mshare(path, NULL, 0, O_RDWR, 0));
	EXPECT_ERR(EINVAL, mshare(path, self->addr, self->len, O_RDWR, 0));
	EXPECT_ERR(EINVAL, mshare(path, self->addr, self->len, O_RDWR | O_CREAT,
				  0600));
	EXPECT_ERR(EINVAL, mshare_unlink(path));
	EXPECT_EQ(0, access(path, F_OK));
	EXPECT_ERR(EINVAL, mshare("/dev/null", NULL, 0, O_RDWR, 0));
	EXPECT_ERR(EINVAL, mshare_unlink("/dev/null"));
	EXPECT_EQ(0, access("/dev/null", F_OK));
	/* What is not there is not made either. */
	snprintf(path, sizeof(path), "%s/none", dir);
	EXPECT_ERR(EINVAL, mshare(path, self->addr, self->len, CREATE, 0600));
	EXPECT_EQ(-1, access(path, F_OK));
	EXPECT_ERR2(EINVAL, ENOENT, mshare(path, NULL, 0, O_RDWR, 0));
	EXPECT_ERR2(EINVAL, ENOENT, mshare_unlink(path));
	/* Nor in a directory that is not there. */
	snprintf(path, sizeof(path), "%s/none/none", dir);
	EXPECT_ERR(ENOENT, mshare(path, self->addr, self->len, CREATE, 0600));
	EXPECT_ERR(ENOENT, mshare_unlink(path));
	EXPECT_EQ(0, nr_mapped(self->addr, self->len));
	snprintf(path, sizeof(path), "%s/file", dir);
	unlink(path);
	rmdir(dir);
}

TEST_F(call, symbolic_links_are_followed_as_by_open)
{
	char dir[64], l1[128], l2[128], in[160];

	snprintf(dir, sizeof(dir), "/tmp/mshare-link-%d", getpid());
	snprintf(l1, sizeof(l1), "%s/one", dir);
	snprintf(l2, sizeof(l2), "%s/two", dir);
	snprintf(in, sizeof(in), "%s/one/name", dir);
	ASSERT_OK(mkdir(dir, 0755));
	ASSERT_OK(symlink(l2, l1));
	ASSERT_OK(symlink(l1, l2));
	EXPECT_ERR(ELOOP, mshare(in, self->addr, self->len, CREATE, 0600));
	EXPECT_ERR(ELOOP, mshare(in, NULL, 0, O_RDWR, 0));
	EXPECT_ERR(ELOOP, mshare_unlink(in));
	EXPECT_ERR(ELOOP, mshare(l1, NULL, 0, O_RDWR, 0));
	unlink(l1);
	unlink(l2);
	/* A link to the directory, then one to the file. */
	ASSERT_OK(symlink(MSHAREFS, l1));
	snprintf(in, sizeof(in), "%s/%s", l1, self->name);
	EXPECT_OK(create(in, self->addr, self->len));
	EXPECT_TRUE(name_exists(self->name));
	ASSERT_OK(symlink(path_of(self->name), l2));
	EXPECT_OK(peer_attach(&self->a, l2));
	EXPECT_EQ(1, PEER(&self->a, do_nr_mapped, NULL, L(self->addr), self->len));
	unlink(l1);
	unlink(l2);
	/* To nowhere: nothing is made through it. */
	ASSERT_OK(symlink(path_of("nowhere"), l1));
	snprintf(in, sizeof(in), "%s/", l1);
	EXPECT_ERR(ENOENT, mshare(l1, slot(8), self->len, O_RDWR | O_CREAT, 0600));
	EXPECT_ERR(ENOENT, mshare(in, slot(8), self->len, O_RDWR | O_CREAT, 0600));
	EXPECT_ERR(ENOENT, mshare(l1, NULL, 0, O_RDWR, 0));
	EXPECT_FALSE(name_exists("nowhere"));
	unlink(l1);
	rmdir(dir);
}

static long do_unmount_all(const struct request *rq __maybe_unused)
{
	char buf[64];

	if (private_mounts())
		return -1;
	while (read_file(MSHAREFS "/mshare_info", buf, sizeof(buf)) > 0)
		if (umount2(MSHAREFS, MNT_DETACH))
			return -1;
	return 0;
}

TEST_F(call, without_msharefs_there_is_no_name)
{
	ASSERT_OK(create(self->name, self->addr, self->len));
	ASSERT_OK(PEER(&self->a, do_unmount_all, NULL, 0));
	EXPECT_NOT_ATTACHED(ENOENT, &self->a, 0, 0, O_RDWR);
	EXPECT_NOT_ATTACHED(ENOENT, &self->a, self->addr, self->len, CREATE);
	EXPECT_ERR(ENOENT, peer_unlink(&self->a, self->name));
	EXPECT_TRUE(name_exists(self->name));
}

TEST_F(call, every_mount_has_its_own_names)
{
	ASSERT_OK(create(self->name, self->addr, self->len));
	ASSERT_OK(PEER(&self->a, do_mounts, "", 0));
	EXPECT_NOT_ATTACHED(ENOENT, &self->a, 0, 0, O_RDWR);
	EXPECT_ERR(ENOENT, peer_unlink(&self->a, self->name));
	ASSERT_OK(peer_create(&self->a, self->name, slot(8), self->len));
	EXPECT_EQ(0, PEER(&self->a, do_nr_mapped, NULL, L(self->addr), self->len));
	EXPECT_EQ(1, PEER(&self->a, do_nr_mapped, NULL, L(slot(8)), self->len));
	/* Same name, and no say over the other region. */
	EXPECT_OK(peer_unlink(&self->a, self->name));
	EXPECT_EQ(0, PEER(&self->a, do_exists, self->name, 0));
	EXPECT_TRUE(name_exists(self->name));
	EXPECT_EQ(1, nr_mapped(self->addr, self->len));
}

static long do_chroot(const struct request *rq)
{
	return chroot(rq->s) || chdir("/") ? -1 : 0;
}

TEST_F(call, names_are_looked_up_below_the_callers_root)
{
	char dir[64];

	snprintf(dir, sizeof(dir), "/tmp/mshare-root-%d", getpid());
	ASSERT_OK(mkdir(dir, 0755));
	ASSERT_OK(create(self->name, self->addr, self->len));
	ASSERT_OK(PEER(&self->a, do_chroot, dir, 0));
	EXPECT_ERR(ENOENT, peer_attach(&self->a, self->name));
	EXPECT_ERR(ENOENT, peer_create(&self->a, self->name, self->addr, self->len));
	EXPECT_ERR(ENOENT, peer_unlink(&self->a, self->name));
	rmdir(dir);
}

static long do_rlimit_as(const struct request *rq)
{
	struct rlimit rl = { rq->a[0], rq->a[0] };

	return setrlimit(RLIMIT_AS, &rl);
}

TEST_F(call, the_attachment_counts_against_rlimit_as)
{
	const char *other = new_name();

	ASSERT_OK(create(self->name, self->addr, self->len));
	ASSERT_OK(PEER(&self->a, do_rlimit_as, NULL, self->len / 2));
	EXPECT_NOT_ATTACHED(ENOMEM, &self->a, 0, 0, O_RDWR);
	EXPECT_ERR(ENOMEM, peer_create(&self->a, other, slot(4), self->len));
	EXPECT_FALSE(name_exists(other));
	ASSERT_OK(PEER(&self->b, do_rlimit_as, NULL, self->len + self->len / 2));
	EXPECT_OK(peer_attach(&self->b, self->name));
	EXPECT_ERR(ENOMEM, peer_create(&self->b, other, slot(4), self->len));
	EXPECT_FALSE(name_exists(other));
}

TEST_F(call, unlinking_detaches_the_caller_and_removes_the_name)
{
	ASSERT_OK(create(self->name, self->addr, self->len));
	ASSERT_OK(map_anon(self->addr, page(), MAP_SHARED));
	EXPECT_OK(mshare_unlink(self->name));
	EXPECT_FALSE(name_exists(self->name));
	EXPECT_EQ(0, nr_mapped(self->addr, self->len));
	EXPECT_EQ(FAULT(SIGSEGV, SEGV_MAPERR), try_read(self->addr));
	EXPECT_ERR(ENOENT, mshare_unlink(self->name));
}

TEST_F(call, unlinking_leaves_the_name_while_others_are_attached)
{
	ASSERT_OK(create(self->name, self->addr, self->len));
	ASSERT_OK(map_anon(self->addr, page(), MAP_SHARED));
	ASSERT_OK(peer_attach(&self->a, self->name));
	ASSERT_OK(peer_attach(&self->b, self->name));
	EXPECT_EQ(0, peer_write(&self->a, self->addr, 3));
	EXPECT_OK(mshare_unlink(self->name));
	EXPECT_EQ(0, nr_mapped(self->addr, self->len));
	EXPECT_TRUE(name_exists(self->name));
	EXPECT_EQ(3, peer_read(&self->b, self->addr));
	/* We are a stranger now, but may come back. */
	EXPECT_ERR(EBUSY, mshare_unlink(self->name));
	EXPECT_OK(attach(self->name));
	EXPECT_EQ(3, try_read(self->addr));
	EXPECT_OK(mshare_unlink(self->name));
	EXPECT_OK(peer_unlink(&self->a, self->name));
	EXPECT_TRUE(name_exists(self->name));
	EXPECT_OK(peer_unlink(&self->b, self->name));
	EXPECT_FALSE(name_exists(self->name));
}

TEST_F(call, a_stranger_unlinks_only_a_region_without_users)
{
	ASSERT_OK(peer_create(&self->a, self->name, self->addr, self->len));
	EXPECT_ERR(EBUSY, mshare_unlink(self->name));
	EXPECT_TRUE(name_exists(self->name));
	EXPECT_EQ(1, PEER(&self->a, do_nr_mapped, NULL, L(self->addr), self->len));
	ASSERT_OK(peer_munmap(&self->a, self->addr, self->len));
	EXPECT_TRUE(name_exists(self->name));
	EXPECT_OK(mshare_unlink(self->name));
	EXPECT_FALSE(name_exists(self->name));
}

TEST_F(call, the_exit_of_the_last_user_removes_no_name)
{
	ASSERT_OK(peer_create(&self->a, self->name, self->addr, self->len));
	peer_stop(&self->a);
	EXPECT_TRUE(name_exists(self->name));
	EXPECT_OK(mshare_unlink(self->name));
	EXPECT_FALSE(name_exists(self->name));
}

/* Who was left when the name stayed does not take it along when leaving. */
TEST_F(call, a_name_that_stayed_does_not_go_with_the_last_exit)
{
	ASSERT_OK(create(self->name, self->addr, self->len));
	ASSERT_OK(peer_attach(&self->a, self->name));
	EXPECT_OK(mshare_unlink(self->name));
	peer_stop(&self->a);
	EXPECT_TRUE(name_exists(self->name));
	EXPECT_OK(mshare_unlink(self->name));
}

TEST_F(call, unlinking_without_the_right_to_delete_only_detaches)
{
	ASSERT_OK(peer_become(&self->a, 1001, 1001));
	ASSERT_OK(peer_become(&self->b, 1002, 1002));
	/* The root directory is sticky: only the owner deletes. */
	ASSERT_OK(PEER(&self->a, do_mshare, self->name, L(self->addr), self->len,
		       CREATE, 0666));
	ASSERT_OK(peer_munmap(&self->a, self->addr, self->len));
	EXPECT_ERR2(EPERM, EACCES, peer_unlink(&self->b, self->name));
	EXPECT_TRUE(name_exists(self->name));
	ASSERT_OK(peer_attach(&self->b, self->name));
	EXPECT_OK(peer_unlink(&self->b, self->name));
	EXPECT_EQ(0, PEER(&self->b, do_nr_mapped, NULL, L(self->addr), self->len));
	EXPECT_TRUE(name_exists(self->name));
	EXPECT_OK(peer_unlink(&self->a, self->name));
	EXPECT_FALSE(name_exists(self->name));
}

TEST_F(call, deleting_needs_the_right_to_write_the_directory)
{
	ASSERT_OK(PEER(&self->a, do_mounts, "mode=0755", 0));
	ASSERT_OK(peer_create(&self->a, self->name, self->addr, self->len));
	ASSERT_OK(PEER(&self->a, do_chmod, self->name, 0666));
	ASSERT_OK(peer_munmap(&self->a, self->addr, self->len));
	EXPECT_ERR2(EPERM, EACCES, PEER(&self->a, do_as_user, self->name, 1001, 1));
	EXPECT_EQ(1, PEER(&self->a, do_exists, self->name, 0));
	/* In a directory that all may write and that is not sticky, all may. */
	ASSERT_OK(PEER(&self->a, do_chmod, ".", 0777));
	EXPECT_OK(PEER(&self->a, do_as_user, self->name, 1001, 1));
	EXPECT_EQ(0, PEER(&self->a, do_exists, self->name, 0));
}

TEST_F(call, the_right_to_delete_needs_no_right_to_attach)
{
	ASSERT_OK(peer_become(&self->a, 1001, 1001));
	ASSERT_OK(PEER(&self->a, do_mshare, self->name, L(self->addr), self->len,
		       CREATE, 0));
	ASSERT_OK(peer_munmap(&self->a, self->addr, self->len));
	EXPECT_NOT_ATTACHED(EACCES, &self->a, 0, 0, O_RDWR);
	EXPECT_OK(peer_unlink(&self->a, self->name));
	EXPECT_FALSE(name_exists(self->name));
}

TEST_F(call, a_name_that_is_used_again_is_another_region)
{
	ASSERT_OK(peer_create(&self->a, self->name, self->addr, self->len));
	ASSERT_OK(peer_mmap(&self->a, self->addr, page(), PROT_READ | PROT_WRITE,
			    MAP_SHARED | MAP_ANONYMOUS | MAP_FIXED, -1, 0));
	EXPECT_EQ(0, peer_write(&self->a, self->addr, 1));
	ASSERT_OK(unlink(path_of(self->name)));
	EXPECT_ERR(ENOENT, peer_attach(&self->b, self->name));
	EXPECT_ERR(ENOENT, peer_unlink(&self->a, self->name));
	EXPECT_EQ(1, peer_read(&self->a, self->addr));

	ASSERT_OK(peer_create(&self->b, self->name, self->addr, self->len));
	EXPECT_EQ(SIGBUS, fault_sig(peer_read(&self->b, self->addr)));
	ASSERT_OK(peer_mmap(&self->b, self->addr, page(), PROT_READ | PROT_WRITE,
			    MAP_SHARED | MAP_ANONYMOUS | MAP_FIXED, -1, 0));
	EXPECT_EQ(0, peer_write(&self->b, self->addr, 2));
	EXPECT_EQ(1, peer_read(&self->a, self->addr));
	/* The old region's user is a stranger to the new one. */
	EXPECT_ERR(EBUSY, peer_unlink(&self->a, self->name));
	EXPECT_NOT_ATTACHED(EBUSY, &self->a, 0, 0, O_RDWR);
	EXPECT_EQ(1, peer_read(&self->a, self->addr));
	ASSERT_OK(peer_munmap(&self->b, self->addr, self->len));
	EXPECT_OK(peer_unlink(&self->a, self->name));
	EXPECT_FALSE(name_exists(self->name));
	EXPECT_EQ(1, peer_read(&self->a, self->addr));
}

TEST_F(call, unlinking_in_one_thread_ends_the_access_of_all)
{
	pid_t child;
	int status;

	ASSERT_OK(create(self->name, self->addr, self->len));
	ASSERT_OK(map_anon(self->addr, page(), MAP_SHARED));
	child = vfork();
	if (!child)
		_exit(syscall(__NR_mshare_unlink, self->name) ? 1 : 0);
	ASSERT_EQ(child, waitpid(child, &status, 0));
	EXPECT_EQ(0, status);
	EXPECT_FALSE(name_exists(self->name));
	EXPECT_EQ(0, nr_mapped(self->addr, self->len));
}

/* Two that create the same name at once: one of them does. */
TEST_F_TIMEOUT(call, only_one_creates, SHORT_TIMEOUT)
{
	long round, rounds = scaled(50);

	for (round = 0; round < rounds; round++) {
		const char *name = new_name();
		int ra, rb, ea, eb;

		PEER_SEND(&self->a, do_mshare, name, L(self->addr), self->len,
			  CREATE, 0600);
		PEER_SEND(&self->b, do_mshare, name, L(self->addr), self->len,
			  CREATE, 0600);
		ra = peer_wait(&self->a);
		ea = errno;
		rb = peer_wait(&self->b);
		eb = errno;
		ASSERT_EQ(-1, ra + rb);
		ASSERT_EQ(EEXIST, ra ? ea : eb);
		if (ra) {
			ASSERT_OK(peer_attach(&self->a, name));
		} else {
			ASSERT_OK(peer_attach(&self->b, name));
		}
		ASSERT_OK(peer_unlink(&self->a, name));
		ASSERT_OK(peer_unlink(&self->b, name));
		ASSERT_FALSE(name_exists(name));
	}
}

/*
 * Creation without O_EXCL against unlinking. Whoever creates or attaches ends
 * attached or with an errno that the race explains, and the name goes at last.
 */
TEST_F_TIMEOUT(call, creating_races_with_unlinking, SHORT_TIMEOUT)
{
	long round, rounds = scaled(100);

	for (round = 0; round < rounds; round++) {
		int ra, rb, ea, eb;

		PEER_SEND(&self->a, do_mshare, self->name, L(self->addr),
			  self->len, O_RDWR | O_CREAT, 0600);
		PEER_SEND(&self->b, do_unlink, self->name, 0);
		ra = peer_wait(&self->a);
		ea = errno;
		rb = peer_wait(&self->b);
		eb = errno;
		ASSERT_EQ(0, ra) {
			TH_LOG("create: %s", strerror(ea));
		}
		ASSERT_EQ(1, PEER(&self->a, do_nr_mapped, NULL, L(self->addr),
				  self->len));
		ASSERT_TRUE(!rb || eb == ENOENT || eb == EBUSY) {
			TH_LOG("unlink: %s", strerror(eb));
		}
		/* A name that was there for a moment may be gone already. */
		if (name_exists(self->name)) {
			ASSERT_OK(peer_unlink(&self->a, self->name));
		} else {
			ASSERT_OK(peer_munmap(&self->a, self->addr, self->len));
		}
		ASSERT_FALSE(name_exists(self->name));
	}
}

MSHARE_TEST_MAIN
