// SPDX-License-Identifier: GPL-2.0
/*
 * Memory calls inside a region: what can be mapped, who sees it, what an
 * access gets, what is refused, and what ends an attachment.
 */
#include <sys/ipc.h>
#include <sys/ioctl.h>
#include <sys/shm.h>
#include <sys/uio.h>
#include <linux/userfaultfd.h>
#include "mshare_env.h"

#ifndef SYS_mseal
#define SYS_mseal		462
#endif
#ifndef SYS_map_shadow_stack
#define SYS_map_shadow_stack	453
#endif
#ifndef SYS_set_mempolicy_home_node
#define SYS_set_mempolicy_home_node 450
#endif
#ifndef SYS_memfd_secret
#define SYS_memfd_secret	447
#endif
#ifndef SYS_process_madvise
#define SYS_process_madvise	440
#endif
#ifndef PR_SET_VMA
#define PR_SET_VMA		0x53564d41
#define PR_SET_VMA_ANON_NAME	0
#endif
#define MPOL_DEFAULT_		0

#define RW	(PROT_READ | PROT_WRITE)
#define ANON	(MAP_PRIVATE | MAP_ANONYMOUS)

/*
 * Every kind of memory, in a region with two more processes; and again those
 * that have a file, for what is told of files alone.
 */
#define KIND_FIXTURE(_fixture)						\
	FIXTURE(_fixture) {						\
		const char *name, *why;					\
		void *addr;						\
		size_t len;						\
		struct peer a, b;					\
		struct kind_data k;					\
	};								\
									\
	FIXTURE_VARIANT(_fixture) {					\
		enum kind kind;						\
	};								\
									\
	FIXTURE_SETUP(_fixture)						\
	{								\
		self->name = new_name();				\
		self->addr = slot(0);					\
		self->len = granule();					\
		NOT_ON_DEBUG(variant->kind == ANON_SHARED);		\
		self->why = kind_init(&self->k, variant->kind);		\
		if (self->why)						\
			return;						\
		ASSERT_EQ(0, peer_start(&self->a));			\
		ASSERT_EQ(0, peer_start(&self->b));			\
		ASSERT_OK(create(self->name, self->addr, self->len));	\
		ASSERT_OK(peer_attach(&self->a, self->name));		\
		ASSERT_OK(peer_attach(&self->b, self->name));		\
	}								\
									\
	FIXTURE_TEARDOWN(_fixture)					\
	{								\
		peer_stop(&self->a);					\
		peer_stop(&self->b);					\
		munmap(self->addr, self->len);				\
		remove_names();						\
		kind_end(&self->k);					\
	}

KIND_FIXTURE(kind)

FIXTURE_VARIANT_ADD(kind, anon_private) { .kind = ANON_PRIVATE };
FIXTURE_VARIANT_ADD(kind, anon_shared) { .kind = ANON_SHARED };
FIXTURE_VARIANT_ADD(kind, memfd) { .kind = MEMFD };
FIXTURE_VARIANT_ADD(kind, tmpfs_shared) { .kind = TMPFS_SHARED };
FIXTURE_VARIANT_ADD(kind, tmpfs_private) { .kind = TMPFS_PRIVATE };
FIXTURE_VARIANT_ADD(kind, ext4_shared) { .kind = EXT4_SHARED };
FIXTURE_VARIANT_ADD(kind, ext4_private) { .kind = EXT4_PRIVATE };
FIXTURE_VARIANT_ADD(kind, overlay_shared) { .kind = OVERLAY_SHARED };
FIXTURE_VARIANT_ADD(kind, overlay_private) { .kind = OVERLAY_PRIVATE };
FIXTURE_VARIANT_ADD(kind, dev_zero_shared) { .kind = ZERO_SHARED };
FIXTURE_VARIANT_ADD(kind, dev_zero_private) { .kind = ZERO_PRIVATE };

KIND_FIXTURE(file)

FIXTURE_VARIANT_ADD(file, memfd) { .kind = MEMFD };
FIXTURE_VARIANT_ADD(file, tmpfs_shared) { .kind = TMPFS_SHARED };
FIXTURE_VARIANT_ADD(file, tmpfs_private) { .kind = TMPFS_PRIVATE };
FIXTURE_VARIANT_ADD(file, ext4_shared) { .kind = EXT4_SHARED };
FIXTURE_VARIANT_ADD(file, ext4_private) { .kind = EXT4_PRIVATE };
FIXTURE_VARIANT_ADD(file, overlay_shared) { .kind = OVERLAY_SHARED };
FIXTURE_VARIANT_ADD(file, overlay_private) { .kind = OVERLAY_PRIVATE };

#define NEED_KIND() do {						\
	if (self->why)							\
		SKIP(return, "%s", self->why);				\
} while (0)

static size_t pages(size_t n)
{
	return n * page();
}

TEST_F_TIMEOUT(kind, what_one_writes_all_read, SHORT_TIMEOUT)
{
	void *p = at(self->addr, pages(100));
	int i;

	NEED_KIND();
	ASSERT_EQ(p, kind_map(&self->k, p, pages(KIND_PAGES), RW, MAP_FIXED, 0));
	for (i = 0; i < KIND_PAGES; i++) {
		ASSERT_EQ(kind_byte(&self->k, i), peer_read(&self->a, at(p, pages(i))));
	}
	for (i = 0; i < KIND_PAGES; i += 2) {
		ASSERT_EQ(0, try_write(at(p, pages(i)), 200));
	}
	for (i = 1; i < KIND_PAGES; i += 2) {
		ASSERT_EQ(0, peer_write(&self->b, at(p, pages(i) + 1), 201));
	}
	for (i = 0; i < KIND_PAGES; i++) {
		int first = i & 1 ? kind_byte(&self->k, i) : 200;
		int second = i & 1 ? 201 : kind_byte(&self->k, i);

		ASSERT_EQ(first, peer_read(&self->a, at(p, pages(i))));
		ASSERT_EQ(second, peer_read(&self->a, at(p, pages(i) + 1)));
		ASSERT_EQ(first, peer_read(&self->b, at(p, pages(i))));
		ASSERT_EQ(second, try_read(at(p, pages(i) + 1)));
	}
}

/* A page that was read first and is copied on the first write, for all. */
TEST_F_TIMEOUT(kind, a_write_after_everyone_read_is_seen_by_all, SHORT_TIMEOUT)
{
	void *p = at(self->addr, pages(100));
	int old = kind_byte(&self->k, 3);

	NEED_KIND();
	ASSERT_EQ(p, kind_map(&self->k, p, pages(KIND_PAGES), RW, MAP_FIXED, 0));
	p = at(p, pages(3));
	EXPECT_EQ(old, try_read(p));
	EXPECT_EQ(old, peer_read(&self->a, p));
	EXPECT_EQ(old, peer_read(&self->b, p));
	EXPECT_EQ(0, peer_write(&self->a, p, 111));
	EXPECT_EQ(111, try_read(p));
	EXPECT_EQ(111, peer_read(&self->b, p));
	EXPECT_EQ(0, try_write(p, 112));
	EXPECT_EQ(112, peer_read(&self->a, p));
	EXPECT_EQ(112, peer_read(&self->b, p));
}

TEST_F(file, the_file_changes_exactly_when_the_mapping_is_shared)
{
	void *p = at(self->addr, pages(100));
	unsigned char c = 0;

	NEED_KIND();
	ASSERT_EQ(p, kind_map(&self->k, p, pages(KIND_PAGES), RW, MAP_FIXED, 0));
	ASSERT_EQ(0, peer_write(&self->a, at(p, pages(5)), 99));
	ASSERT_EQ(1, pread(self->k.fd, &c, 1, pages(5)));
	if (self->k.flags & MAP_SHARED) {
		EXPECT_EQ(99, c);
	} else {
		EXPECT_EQ(kind_byte(&self->k, 5), c);
	}
	/* A page of the file that nobody wrote through the mapping follows it. */
	EXPECT_EQ(kind_byte(&self->k, 6), peer_read(&self->b, at(p, pages(6))));
	c = 77;
	ASSERT_EQ(1, pwrite(self->k.fd, &c, 1, pages(6)));
	EXPECT_EQ(77, peer_read(&self->b, at(p, pages(6))));
	if (!(self->k.flags & MAP_SHARED)) {
		ASSERT_EQ(1, pwrite(self->k.fd, &c, 1, pages(5)));
		EXPECT_EQ(99, peer_read(&self->b, at(p, pages(5))));
	}
}

TEST_F(file, an_offset_into_the_file_is_honoured)
{
	void *p = at(self->addr, pages(100));

	NEED_KIND();
	ASSERT_EQ(p, kind_map(&self->k, p, pages(4), RW, MAP_FIXED, pages(10)));
	ASSERT_EQ(at(p, pages(6)),
		  kind_map(&self->k, at(p, pages(6)), pages(2), PROT_READ,
			   MAP_FIXED, pages(20)));
	EXPECT_EQ(kind_byte(&self->k, 10), peer_read(&self->a, p));
	EXPECT_EQ(kind_byte(&self->k, 13), peer_read(&self->a, at(p, pages(3))));
	EXPECT_EQ(SIGBUS, fault_sig(peer_read(&self->a, at(p, pages(4)))));
	EXPECT_EQ(kind_byte(&self->k, 21), peer_read(&self->b, at(p, pages(7))));
}

static long do_touch_faults(const struct request *rq)
{
	volatile unsigned char *p = (void *)rq->a[0];
	size_t len = rq->a[1], step = page(), i;
	static unsigned char warm[4096];
	long before, after;
	int write = rq->a[2], pass;

	/* The second pass has faulted in whatever else it takes. */
	for (pass = 0; pass < 2; pass++) {
		volatile unsigned char *q = pass ? p : warm;
		size_t n = pass ? len : 1;

		before = minflt();
		for (i = 0; i < n; i += step) {
			unsigned char c = q[i];

			if (write)
				q[i] = c;
		}
		after = minflt();
	}
	return after - before;
}

TEST_F_TIMEOUT(kind, a_populated_range_takes_no_fault, SHORT_TIMEOUT)
{
	void *p = at(self->addr, pages(100));
	size_t len = pages(KIND_PAGES);

	NEED_KIND();
	ASSERT_EQ(p, kind_map(&self->k, p, len, RW, MAP_FIXED, 0));
	/* At least one fault while it is populated, else the test is blind. */
	EXPECT_LT(0, PEER(&self->a, do_touch_faults, NULL, L(p), len, 1));
	EXPECT_EQ(0, PEER(&self->b, do_touch_faults, NULL, L(p), len, 0));
	EXPECT_EQ(0, PEER(&self->a, do_touch_faults, NULL, L(p), len, 0));
	/* Writeback may write-protect a file's page again. */
	if (variant->kind != EXT4_SHARED) {
		EXPECT_EQ(0, PEER(&self->b, do_touch_faults, NULL, L(p), len, 1));
	}
}

TEST_F_TIMEOUT(kind, who_attaches_later_takes_no_fault_either, SHORT_TIMEOUT)
{
	void *p = at(self->addr, pages(100));
	size_t len = pages(KIND_PAGES);

	NEED_KIND();
	ASSERT_EQ(p, kind_map(&self->k, p, len, RW, MAP_FIXED, 0));
	EXPECT_LT(0, PEER(&self->a, do_touch_faults, NULL, L(p), len, 1));
	ASSERT_OK(peer_munmap(&self->b, self->addr, self->len));
	ASSERT_OK(peer_attach(&self->b, self->name));
	EXPECT_EQ(0, PEER(&self->b, do_touch_faults, NULL, L(p), len, 0));
}

TEST_F(kind, unmapping_a_part_is_for_all)
{
	void *p = at(self->addr, pages(100));
	int i;

	NEED_KIND();
	ASSERT_EQ(p, kind_map(&self->k, p, pages(8), RW, MAP_FIXED, 0));
	for (i = 0; i < 8; i++) {
		ASSERT_EQ(0, try_write(at(p, pages(i)), 100 + i));
		ASSERT_EQ(100 + i, peer_read(&self->a, at(p, pages(i))));
	}
	ASSERT_OK(peer_munmap(&self->b, at(p, pages(3)), pages(2)));
	for (i = 0; i < 8; i++) {
		int want = i == 3 || i == 4 ? PAGE_HOLE : PAGE_RW;

		EXPECT_EQ(want, page_state(at(p, pages(i))));
		EXPECT_EQ(want, peer_state(&self->a, at(p, pages(i))));
		EXPECT_EQ(want, peer_state(&self->b, at(p, pages(i))));
		if (want == PAGE_RW) {
			EXPECT_EQ(100 + i, peer_read(&self->a, at(p, pages(i))));
		}
	}
	EXPECT_EQ(1, nr_mapped(self->addr, self->len));
	/* What is mapped there anew has nothing of what was there. */
	ASSERT_EQ(at(p, pages(3)),
		  kind_map(&self->k, at(p, pages(3)), pages(2), RW, MAP_FIXED,
			   pages(30)));
	EXPECT_EQ(kind_byte(&self->k, 30), peer_read(&self->a, at(p, pages(3))));
	EXPECT_EQ(kind_byte(&self->k, 31), peer_read(&self->b, at(p, pages(4))));
	/* To unmap nothing is no error. */
	EXPECT_OK(munmap(at(p, pages(1000)), pages(4)));
}

TEST_F(kind, protecting_is_for_all)
{
	void *p = at(self->addr, pages(100));
	int i;

	NEED_KIND();
	ASSERT_EQ(p, kind_map(&self->k, p, pages(6), RW, MAP_FIXED, 0));
	for (i = 0; i < 6; i++) {
		ASSERT_EQ(0, peer_write(&self->a, at(p, pages(i)), 50 + i));
	}
	ASSERT_OK(mprotect(at(p, pages(1)), pages(2), PROT_READ));
	ASSERT_OK(peer_mprotect(&self->a, at(p, pages(4)), pages(1), PROT_NONE));
	EXPECT_STREQ("wrrw-w", page_states(p, 6));
	for (i = 0; i < 6; i++) {
		EXPECT_EQ("wrrw-w"[i], peer_state(&self->a, at(p, pages(i))));
		EXPECT_EQ("wrrw-w"[i], peer_state(&self->b, at(p, pages(i))));
	}
	EXPECT_EQ(FAULT(SIGSEGV, SEGV_ACCERR),
		  peer_write(&self->b, at(p, pages(1)), 0));
	EXPECT_EQ(FAULT(SIGSEGV, SEGV_ACCERR),
		  peer_read(&self->b, at(p, pages(4))));
	ASSERT_OK(peer_mprotect(&self->b, p, pages(6), RW));
	EXPECT_STREQ("wwwwww", page_states(p, 6));
	for (i = 0; i < 6; i++) {
		EXPECT_EQ(50 + i, peer_read(&self->a, at(p, pages(i))));
	}
	/* Holes are an error as anywhere; what lies before them has changed. */
	EXPECT_ERR(ENOMEM, mprotect(at(p, pages(5)), pages(3), PROT_READ));
}

TEST_F(kind, mapping_over_replaces_for_all)
{
	void *p = at(self->addr, pages(100));

	NEED_KIND();
	ASSERT_EQ(p, map_anon(p, pages(4), MAP_PRIVATE));
	ASSERT_EQ(0, peer_write(&self->a, at(p, pages(1)), 250));
	ASSERT_EQ(250, peer_read(&self->b, at(p, pages(1))));
	ASSERT_EQ(at(p, pages(1)),
		  kind_map(&self->k, at(p, pages(1)), pages(2), RW, MAP_FIXED,
			   pages(7)));
	EXPECT_EQ(kind_byte(&self->k, 7), peer_read(&self->a, at(p, pages(1))));
	EXPECT_EQ(kind_byte(&self->k, 8), peer_read(&self->b, at(p, pages(2))));
	EXPECT_EQ(0, peer_read(&self->b, at(p, pages(3))));
	ASSERT_EQ(0, peer_write(&self->b, at(p, pages(1)), 251));
	EXPECT_EQ(251, peer_read(&self->a, at(p, pages(1))));
}

TEST_F(file, beyond_the_end_of_the_file_is_sigbus)
{
	void *p = at(self->addr, pages(100));
	char c;

	NEED_KIND();
	ASSERT_EQ(p, kind_map(&self->k, p, pages(KIND_PAGES + 4), RW, MAP_FIXED, 0));
	EXPECT_EQ(kind_byte(&self->k, KIND_PAGES - 1),
		  peer_read(&self->a, at(p, pages(KIND_PAGES - 1))));
	EXPECT_EQ(FAULT(SIGBUS, BUS_ADRERR),
		  peer_read(&self->a, at(p, pages(KIND_PAGES))));
	EXPECT_EQ(FAULT(SIGBUS, BUS_ADRERR),
		  try_write(at(p, pages(KIND_PAGES + 3)), 1));
	/* A file that is cut short takes its pages from all; private ones too. */
	ASSERT_EQ(0, peer_write(&self->a, at(p, pages(20)), 5));
	ASSERT_EQ(5, peer_read(&self->b, at(p, pages(20))));
	ASSERT_OK(ftruncate(self->k.fd, pages(20)));
	EXPECT_EQ(SIGBUS, fault_sig(peer_read(&self->b, at(p, pages(20)))));
	EXPECT_EQ(SIGBUS, fault_sig(try_read(at(p, pages(20)))));
	EXPECT_EQ(kind_byte(&self->k, 19), peer_read(&self->b, at(p, pages(19))));
	/* Longer again: zeros. */
	ASSERT_OK(ftruncate(self->k.fd, pages(KIND_PAGES)));
	EXPECT_EQ(0, peer_read(&self->a, at(p, pages(20))));
	ASSERT_EQ(1, pread(self->k.fd, &c, 1, pages(20)));
	EXPECT_EQ(0, c);
}

/* The kernel reads and writes on behalf of a call what nobody touched yet. */
TEST_F(kind, system_calls_fault_in_what_they_need)
{
	void *p = at(self->addr, pages(100));
	int fds[2];

	NEED_KIND();
	ASSERT_OK(pipe(fds));
	ASSERT_EQ(p, kind_map(&self->k, p, pages(8), RW, MAP_FIXED, 0));
	ASSERT_EQ(2, write(fds[1], at(p, pages(2) - 1), 2));
	ASSERT_EQ(2, read(fds[0], at(p, pages(5) - 1), 2));
	EXPECT_EQ(kind_byte(&self->k, 1), peer_read(&self->a, at(p, pages(5) - 1)));
	EXPECT_EQ(kind_byte(&self->k, 2), peer_read(&self->a, at(p, pages(5))));
	/* What the mapping forbids or does not have is EFAULT. */
	ASSERT_OK(mprotect(at(p, pages(7)), pages(1), PROT_READ));
	ASSERT_OK(munmap(at(p, pages(6)), pages(1)));
	ASSERT_EQ(1, write(fds[1], "x", 1));
	EXPECT_ERR(EFAULT, read(fds[0], at(p, pages(7)), 1));
	EXPECT_ERR(EFAULT, read(fds[0], at(p, pages(6)), 1));
	EXPECT_ERR(EFAULT, write(fds[1], at(p, pages(6)), 1));
	EXPECT_EQ(1, read(fds[0], at(p, pages(5)), 1));
	EXPECT_EQ('x', peer_read(&self->b, at(p, pages(5))));
}

TEST_F(kind, populate_does_not_fail)
{
	void *p = at(self->addr, pages(100));

	NEED_KIND();
	ASSERT_EQ(p, kind_map(&self->k, p, pages(8), RW, MAP_FIXED | MAP_POPULATE,
			      0));
	EXPECT_EQ(kind_byte(&self->k, 0), peer_read(&self->a, p));
	EXPECT_EQ(kind_byte(&self->k, 7), peer_read(&self->b, at(p, pages(7))));
}

/* The rest of what happens inside. */

FIXTURE(mm)
{
	const char *name;
	void *addr;
	size_t len;
	struct peer a, b;
};

FIXTURE_SETUP(mm)
{
	self->name = new_name();
	self->addr = slot(1);
	self->len = granule();
	ASSERT_EQ(0, peer_start(&self->a));
	ASSERT_EQ(0, peer_start(&self->b));
	ASSERT_OK(create(self->name, self->addr, self->len));
	ASSERT_OK(peer_attach(&self->a, self->name));
	ASSERT_OK(peer_attach(&self->b, self->name));
}

FIXTURE_TEARDOWN(mm)
{
	peer_stop(&self->a);
	peer_stop(&self->b);
	munmap(self->addr, self->len);
	remove_names();
}

static bool inside(const void *p, const void *start, size_t len)
{
	return p >= start && p < at((void *)start, len);
}

TEST_F(mm, noreplace_takes_free_room_and_replaces_nothing)
{
	void *p = at(self->addr, MB);

	ASSERT_EQ(p, mmap(p, pages(2), RW, ANON | MAP_FIXED_NOREPLACE, -1, 0));
	EXPECT_EQ(0, try_write(p, 1));
	EXPECT_ERR(EEXIST, mmap(p, pages(1), RW, ANON | MAP_FIXED_NOREPLACE, -1, 0));
	EXPECT_ERR(EEXIST, mmap(at(p, pages(1)), pages(2), RW,
				ANON | MAP_FIXED_NOREPLACE, -1, 0));
	EXPECT_ERR(EEXIST, mmap(at(p, -pages(1)), pages(4), RW,
				ANON | MAP_FIXED_NOREPLACE, -1, 0));
	EXPECT_STREQ(".ww.", page_states(at(p, -pages(1)), 4));
	EXPECT_EQ(1, peer_read(&self->a, p));
	EXPECT_EQ(at(p, pages(2)),
		  peer_mmap(&self->a, at(p, pages(2)), pages(1), RW,
			    ANON | MAP_FIXED_NOREPLACE, -1, 0));
	EXPECT_EQ(PAGE_RW, page_state(at(p, pages(2))));
	/* Over the whole attachment: there is content. */
	EXPECT_ERR(EEXIST, mmap(self->addr, self->len, PROT_NONE,
				ANON | MAP_NORESERVE | MAP_FIXED_NOREPLACE, -1, 0));
	EXPECT_EQ(1, try_read(p));
}

TEST_F(mm, a_free_hint_is_taken)
{
	void *p = at(self->addr, self->len / 2 + pages(3));

	EXPECT_EQ(p, mmap(p, pages(3), RW, ANON, -1, 0));
	EXPECT_EQ(PAGE_RW, peer_state(&self->a, at(p, pages(2))));
	EXPECT_EQ(PAGE_HOLE, peer_state(&self->a, at(p, pages(3))));
	EXPECT_EQ(self->addr, mmap(self->addr, pages(1), RW, ANON, -1, 0));
	p = at(self->addr, self->len - pages(1));
	EXPECT_EQ(p, mmap(p, pages(1), RW, ANON, -1, 0));
	EXPECT_EQ(PAGE_RW, peer_state(&self->b, p));
}

TEST_F(mm, a_used_hint_finds_other_room_inside)
{
	void *p = at(self->addr, MB), *q, *r;

	ASSERT_EQ(p, map_anon(p, pages(4), MAP_PRIVATE));
	ASSERT_EQ(0, try_write(p, 1));
	q = mmap(p, pages(4), RW, ANON, -1, 0);
	ASSERT_NE(MAP_FAILED, q);
	EXPECT_TRUE(inside(q, self->addr, self->len - pages(3)));
	EXPECT_TRUE(q >= at(p, pages(4)) || at(q, pages(4)) <= p);
	EXPECT_EQ(1, try_read(p));
	EXPECT_EQ(0, peer_read(&self->a, q));
	/* Two pages of room for three. */
	r = mmap(at(p, -pages(2)), pages(3), RW, ANON, -1, 0);
	ASSERT_NE(MAP_FAILED, r);
	EXPECT_TRUE(inside(r, self->addr, self->len - pages(2)));
	EXPECT_EQ(1, try_read(p));
	/* A hint at the very end, with more than there is. */
	r = mmap(at(self->addr, self->len - pages(1)), pages(2), RW, ANON, -1, 0);
	ASSERT_NE(MAP_FAILED, r);
	EXPECT_TRUE(inside(r, self->addr, self->len - pages(1)));
	EXPECT_EQ(PAGE_RW, peer_state(&self->b, at(r, pages(1))));
	/* One that is not aligned to a page. */
	r = mmap(at(self->addr, GB + 123), pages(1), RW, ANON, -1, 0);
	ASSERT_NE(MAP_FAILED, r);
	EXPECT_TRUE(inside(r, self->addr, self->len));
	EXPECT_EQ(0UL, (unsigned long)r % page());
}

/* Two processes that ask for room at once never get the same. */
static long do_many_hints(const struct request *rq)
{
	void *hint = (void *)rq->a[0];
	long n = rq->a[1], id = rq->a[2], i, bad = 0;
	void **got = calloc(n, sizeof(*got));

	for (i = 0; i < n; i++) {
		got[i] = mmap(hint, page(), RW, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
		if (got[i] == MAP_FAILED || try_read(got[i]))
			bad++;
		else if (try_write(got[i], id))
			bad++;
	}
	for (i = 0; i < n; i++)
		if (try_read(got[i]) != id)
			bad++;
	free(got);
	return bad;
}

TEST_F_TIMEOUT(mm, hints_at_once_get_room_of_their_own, SHORT_TIMEOUT)
{
	long n = scaled(200);

	PEER_SEND(&self->a, do_many_hints, NULL, L(self->addr), n, 1);
	PEER_SEND(&self->b, do_many_hints, NULL, L(self->addr), n, 2);
	EXPECT_EQ(0, peer_wait(&self->a));
	EXPECT_EQ(0, peer_wait(&self->b));
}

TEST_F(mm, without_room_inside_a_hint_is_enomem)
{
	const int none = ANON | MAP_FIXED | MAP_NORESERVE;
	size_t half = self->len / 2;
	int before = nr_mapped(NULL, ~0UL);

	/* In halves: over the whole it would replace the attachment. */
	ASSERT_EQ(self->addr, mmap(self->addr, half, PROT_NONE, none, -1, 0));
	ASSERT_EQ(at(self->addr, half),
		  mmap(at(self->addr, half), half, PROT_NONE, none, -1, 0));
	EXPECT_ERR(ENOMEM, mmap(self->addr, page(), RW, ANON, -1, 0));
	EXPECT_ERR(ENOMEM, mmap(at(self->addr, half), page(), RW, ANON, -1, 0));
	EXPECT_EQ(before, nr_mapped(NULL, ~0UL));
	EXPECT_EQ(PAGE_NOACC, peer_state(&self->a, self->addr));
	/* One page of room, found from anywhere; not two. */
	ASSERT_OK(munmap(at(self->addr, pages(77)), page()));
	EXPECT_ERR(ENOMEM, mmap(at(self->addr, half), pages(2), RW, ANON, -1, 0));
	EXPECT_EQ(at(self->addr, pages(77)),
		  mmap(at(self->addr, half), page(), RW, ANON, -1, 0));
	/* Longer than the region. */
	EXPECT_ERR(ENOMEM, mmap(self->addr, self->len + page(), PROT_NONE,
				ANON | MAP_NORESERVE, -1, 0));
	EXPECT_EQ(before, nr_mapped(NULL, ~0UL));
}

TEST_F(mm, without_a_hint_memory_stays_outside)
{
	void *p;
	int i;

	for (i = 0; i < 100; i++) {
		p = mmap(NULL, pages(i + 1), RW, ANON, -1, 0);
		ASSERT_NE(MAP_FAILED, p);
		ASSERT_FALSE(inside(p, self->addr, self->len));
		ASSERT_EQ(0, try_write(p, 1));
		ASSERT_NE(0, peer_read(&self->a, p));
		ASSERT_OK(munmap(p, pages(i + 1)));
	}
	/* Nor does a hint outside get in. */
	p = mmap(at(self->addr, -pages(1)), pages(1), RW, ANON, -1, 0);
	EXPECT_EQ(at(self->addr, -pages(1)), p);
	ASSERT_OK(munmap(p, pages(1)));
}

TEST_F(mm, the_signal_tells_what_the_process_did)
{
	void *p = at(self->addr, MB + 123);

	EXPECT_EQ(SIGBUS, fault_sig(try_read(p)));
	EXPECT_EQ(p, probe_addr);
	EXPECT_EQ(SIGBUS, fault_sig(try_write(at(p, 7), 1)));
	EXPECT_EQ(at(p, 7), probe_addr);
	EXPECT_EQ(SIGBUS, fault_sig(try_read(at(self->addr, self->len - 1))));
	EXPECT_EQ(at(self->addr, self->len - 1), probe_addr);
	EXPECT_EQ(FAULT(SIGSEGV, SEGV_MAPERR), try_read(at(self->addr, self->len)));
	EXPECT_EQ(FAULT(SIGSEGV, SEGV_MAPERR), try_read(at(self->addr, -1)));
	ASSERT_OK(mmap(at(self->addr, MB), pages(2), PROT_READ, ANON | MAP_FIXED,
		       -1, 0));
	EXPECT_EQ(0, try_read(p));
	EXPECT_EQ(FAULT(SIGSEGV, SEGV_ACCERR), try_write(p, 1));
	EXPECT_EQ(p, probe_addr);
	ASSERT_OK(mprotect(at(self->addr, MB), pages(1), PROT_NONE));
	EXPECT_EQ(FAULT(SIGSEGV, SEGV_ACCERR), try_read(p));
	EXPECT_EQ(p, probe_addr);
	EXPECT_EQ(FAULT(SIGSEGV, SEGV_ACCERR), try_write(p, 1));
#ifdef __x86_64__
	EXPECT_EQ(FAULT(SIGSEGV, SEGV_ACCERR), try_exec(at(self->addr, MB + page())));
	EXPECT_EQ(at(self->addr, MB + page()), probe_addr);
	EXPECT_EQ(SIGBUS, fault_sig(try_exec(at(self->addr, GB))));
#endif
}

TEST_F(mm, system_calls_get_efault_where_nothing_is_mapped)
{
	void *p = at(self->addr, MB);
	struct iovec iov = { p, 1 };
	int fds[2];
	struct stat st;

	ASSERT_OK(pipe(fds));
	EXPECT_ERR(EFAULT, write(fds[1], p, 1));
	ASSERT_EQ(1, write(fds[1], "x", 1));
	EXPECT_ERR(EFAULT, read(fds[0], p, 1));
	EXPECT_ERR(EFAULT, readv(fds[0], &iov, 1));
	EXPECT_ERR(EFAULT, syscall(SYS_fstat, fds[0], p));
	EXPECT_ERR(EFAULT, syscall(SYS_openat, AT_FDCWD, p, O_RDONLY));
	EXPECT_ERR(EFAULT, mshare_unlink(p));
	EXPECT_OK(fstat(fds[0], &st));
	EXPECT_OK(map_anon(p, page(), MAP_PRIVATE));
	EXPECT_EQ(1, read(fds[0], p, 1));
	EXPECT_EQ('x', peer_read(&self->a, p));
}

#ifdef __x86_64__
TEST_F(mm, code_in_a_region_runs_in_every_process)
{
	void *p = at(self->addr, MB);
	pid_t child;
	int status;

	ASSERT_OK(map_anon(p, page(), MAP_PRIVATE));
	memcpy(p, code_42, sizeof(code_42));
	EXPECT_EQ(FAULT(SIGSEGV, SEGV_ACCERR), try_exec(p));
	ASSERT_OK(peer_mprotect(&self->a, p, page(), PROT_READ | PROT_EXEC));
	EXPECT_EQ(42, try_exec(p));
	child = fork_bound();
	if (!child)
		_exit(try_exec(p));
	ASSERT_EQ(child, waitpid(child, &status, 0));
	EXPECT_EQ(42, WEXITSTATUS(status));
	/* Execute-only keys are not used: it stays readable. */
	ASSERT_OK(mprotect(p, page(), PROT_EXEC));
	EXPECT_EQ(42, try_exec(p));
	EXPECT_EQ(code_42[0], try_read(p));
	EXPECT_EQ(code_42[0], peer_read(&self->a, p));
	ASSERT_OK(mprotect(p, page(), RW));
	EXPECT_EQ(FAULT(SIGSEGV, SEGV_ACCERR), try_exec(p));
}
#endif

/* A file below the root's overlay, on whatever the root stands on. */
TEST_F_TIMEOUT(mm, a_program_file_can_be_mapped, SHORT_TIMEOUT)
{
	int fd = open("/proc/self/exe", O_RDONLY);
	void *shared = at(self->addr, MB), *private = at(self->addr, GB);
	size_t len = 16 * page(), i;
	char *want = malloc(len);

	ASSERT_LE(0, fd);
	ASSERT_EQ((ssize_t)len, pread(fd, want, len, 0));
	ASSERT_EQ(shared, mmap(shared, len, PROT_READ, MAP_SHARED | MAP_FIXED, fd, 0));
	ASSERT_EQ(private, mmap(private, len, RW, MAP_PRIVATE | MAP_FIXED, fd, 0));
	close(fd);
	EXPECT_EQ(0, memcmp(want, shared, len));
	EXPECT_EQ(0, memcmp(want, private, len));
	for (i = 0; i < len; i += page()) {
		EXPECT_EQ((unsigned char)want[i],
			  peer_read(&self->a, at(private, i)));
	}
	EXPECT_EQ(0, peer_write(&self->a, private, 0));
	EXPECT_EQ(0, try_read(private));
	EXPECT_EQ((unsigned char)want[0], try_read(shared));
	EXPECT_ERR(EACCES, mprotect(shared, page(), RW));
	free(want);
}

TEST_F(mm, rights_of_the_descriptor_are_kept)
{
	void *p = at(self->addr, MB);
	int fd = memfd_create("mshare", 0), ro;
	char path[64];

	ASSERT_OK(ftruncate(fd, page()));
	snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
	ro = open(path, O_RDONLY);
	ASSERT_LE(0, ro);
	EXPECT_ERR(EACCES, mmap(p, page(), RW, MAP_SHARED | MAP_FIXED, ro, 0));
	EXPECT_EQ(PAGE_HOLE, page_state(p));
	EXPECT_OK(mmap(p, page(), PROT_READ, MAP_SHARED | MAP_FIXED, ro, 0));
	EXPECT_ERR(EACCES, mprotect(p, page(), RW));
	EXPECT_EQ(PAGE_RO, peer_state(&self->a, p));
	EXPECT_ERR(EACCES, peer_mprotect(&self->a, p, page(), RW));
	EXPECT_ERR(EBADF, mmap(p, page(), RW, MAP_SHARED | MAP_FIXED, -1, 0));
	EXPECT_EQ(PAGE_RO, page_state(p));
	/* F_SEAL_WRITE holds in a region as well. */
	ASSERT_OK(munmap(p, page()));
	close(ro);
	close(fd);
	fd = memfd_create("mshare", MFD_ALLOW_SEALING);
	ASSERT_OK(ftruncate(fd, page()));
	ASSERT_OK(mmap(p, page(), RW, MAP_SHARED | MAP_FIXED, fd, 0));
	EXPECT_ERR(EBUSY, fcntl(fd, F_ADD_SEALS, F_SEAL_WRITE));
	ASSERT_OK(munmap(p, page()));
	EXPECT_OK(fcntl(fd, F_ADD_SEALS, F_SEAL_WRITE));
	EXPECT_ERR(EPERM, mmap(p, page(), RW, MAP_SHARED | MAP_FIXED, fd, 0));
	EXPECT_EQ(PAGE_HOLE, page_state(p));
}

static int open_secretmem(void)
{
	int fd = syscall(SYS_memfd_secret, 0);

	if (fd >= 0 && ftruncate(fd, page())) {
		close(fd);
		return -1;
	}
	return fd;
}

/* Whatever is refused, what stood there is as it was. */
TEST_F(mm, memory_that_cannot_be_shared_is_refused_and_replaces_nothing)
{
	const struct {
		const char *what;
		int fd;
		int prot;
		int flags;
	} bad[] = {
		{ "the region's own file", open(path_of(self->name), O_RDWR),
		  RW, MAP_SHARED },
		{ "the region's own file, private",
		  open(path_of(self->name), O_RDWR), PROT_READ, MAP_PRIVATE },
		{ "mshare_info", open(MSHAREFS "/mshare_info", O_RDONLY),
		  PROT_READ, MAP_SHARED },
		{ "/dev/mem", open("/dev/mem", O_RDONLY), PROT_READ, MAP_SHARED },
		{ "/dev/null", open("/dev/null", O_RDWR), RW, MAP_SHARED },
		{ "/dev/null, private", open("/dev/null", O_RDWR), RW, MAP_PRIVATE },
		{ "secretmem", open_secretmem(), RW, MAP_SHARED },
		{ "a procfs file", open("/proc/self/maps", O_RDONLY), PROT_READ,
		  MAP_PRIVATE },
		{ "a sysfs file", open("/sys/kernel/mm/transparent_hugepage/enabled",
				       O_RDONLY), PROT_READ, MAP_SHARED },
		{ "a directory", open("/", O_RDONLY | O_DIRECTORY), PROT_READ,
		  MAP_SHARED },
		{ "a socket", socket(AF_UNIX, SOCK_STREAM, 0), RW, MAP_SHARED },
	};
	void *p = at(self->addr, MB);
	size_t i;

	ASSERT_OK(map_anon(p, pages(3), MAP_PRIVATE));
	for (i = 0; i < ARRAY_SIZE(bad); i++) {
		long ret;
		int err;

		if (bad[i].fd < 0) {
			TH_LOG("no %s here", bad[i].what);
			continue;
		}
		ASSERT_EQ(0, peer_write(&self->a, at(p, pages(1)), 100 + i));
		ret = L(mmap(at(p, pages(1)), page(), bad[i].prot,
			     bad[i].flags | MAP_FIXED, bad[i].fd, 0));
		err = errno;
		EXPECT_EQ(-1, ret) {
			TH_LOG("%s was mapped", bad[i].what);
		}
		/* What cannot be mapped anywhere may say so. */
		EXPECT_TRUE(err == EINVAL ||
			    (err == ENODEV && (i == 9 || i == 10)) ||
			    (err == EOPNOTSUPP && i <= 1)) {
			TH_LOG("%s: %s", bad[i].what, strerror(err));
		}
		EXPECT_EQ(100 + (long)i, peer_read(&self->b, at(p, pages(1))));
		EXPECT_STREQ("www", page_states(p, 3));
		ret = L(mmap(at(self->addr, GB), page(), bad[i].prot,
			     bad[i].flags, bad[i].fd, 0));
		EXPECT_EQ(-1, ret) {
			TH_LOG("%s was mapped at a hint", bad[i].what);
		}
		close(bad[i].fd);
	}
}

TEST_F(mm, stacks_that_grow_are_refused)
{
	void *p = at(self->addr, MB);

	ASSERT_OK(map_anon(p, pages(3), MAP_PRIVATE));
	EXPECT_ERR(EINVAL, mmap(at(p, pages(1)), pages(1), RW,
				ANON | MAP_FIXED | MAP_GROWSDOWN, -1, 0));
	EXPECT_STREQ(".www.", page_states(at(p, -pages(1)), 5));
}

/* MAP_DROPPABLE: of a process, since it is empty in a child. */
TEST_F(mm, droppable_memory_is_refused)
{
	void *p = at(self->addr, MB), *q;

	q = mmap(NULL, page(), RW, 0x08 | MAP_ANONYMOUS, -1, 0);
	if (q == MAP_FAILED)
		SKIP(return, "no MAP_DROPPABLE");
	munmap(q, page());
	ASSERT_OK(map_anon(p, pages(3), MAP_PRIVATE));
	EXPECT_ERR(EINVAL, mmap(at(p, pages(1)), pages(1), RW,
				0x08 | MAP_ANONYMOUS | MAP_FIXED, -1, 0));
	EXPECT_STREQ(".www.", page_states(at(p, -pages(1)), 5));
}

TEST_F(mm, odd_lengths_and_addresses_act_as_anywhere)
{
	void *p = at(self->addr, MB);
	void *last = at(self->addr, self->len - page());

	EXPECT_ERR(EINVAL, mmap(p, 0, RW, ANON | MAP_FIXED, -1, 0));
	EXPECT_ERR(EINVAL, mmap(at(p, 1), page(), RW, ANON | MAP_FIXED, -1, 0));
	EXPECT_ERR(EINVAL, munmap(p, 0));
	EXPECT_ERR(EINVAL, munmap(at(p, 1), page()));
	EXPECT_ERR(EINVAL, mprotect(at(p, 1), page(), PROT_READ));
	EXPECT_OK(mprotect(p, 0, PROT_READ));
	ASSERT_EQ(p, map_anon(p, page() + 1, MAP_PRIVATE));
	EXPECT_STREQ("ww.", page_states(p, 3));
	EXPECT_OK(mprotect(p, 1, PROT_READ));
	EXPECT_STREQ("rw.", page_states(p, 3));
	EXPECT_OK(munmap(p, page() + 1));
	EXPECT_STREQ("...", page_states(p, 3));
	/* Lengths that wrap. */
	EXPECT_EQ(-1, munmap(p, -page()));
	EXPECT_EQ(-1, mprotect(p, -page(), PROT_READ));
	EXPECT_EQ(MAP_FAILED, mmap(p, -page(), RW, ANON | MAP_FIXED, -1, 0));
	EXPECT_EQ(MAP_FAILED, mmap(p, -(size_t)p, RW, ANON | MAP_FIXED, -1, 0));
	EXPECT_EQ(MAP_FAILED, mmap(p, ~0UL, RW, ANON, -1, 0));
	EXPECT_EQ(1, nr_mapped(self->addr, self->len));
	/* The last page is as good as any. */
	ASSERT_EQ(last, map_anon(last, page(), MAP_SHARED));
	EXPECT_EQ(0, peer_write(&self->a, at(last, page() - 1), 9));
	EXPECT_EQ(9, try_read(at(last, page() - 1)));
	EXPECT_OK(mprotect(last, page(), PROT_READ));
	EXPECT_EQ(PAGE_RO, peer_state(&self->b, last));
	EXPECT_OK(munmap(last, page()));
	EXPECT_EQ(PAGE_HOLE, peer_state(&self->b, last));
}

TEST_F(mm, protecting_the_whole_attachment_acts_on_what_is_inside)
{
	void *p = self->addr;
	size_t half = self->len / 2;

	/* No holes, as mprotect() wants it. */
	ASSERT_OK(mmap(p, half, RW, ANON | MAP_FIXED | MAP_NORESERVE, -1, 0));
	ASSERT_OK(mmap(at(p, half), half, RW, ANON | MAP_FIXED | MAP_NORESERVE, -1, 0));
	ASSERT_EQ(0, peer_write(&self->a, at(p, MB), 3));
	EXPECT_OK(mprotect(p, self->len, PROT_READ));
	EXPECT_EQ(PAGE_RO, peer_state(&self->a, at(p, MB)));
	EXPECT_EQ(PAGE_RO, peer_state(&self->b, at(p, self->len - page())));
	EXPECT_EQ(1, nr_mapped(self->addr, self->len));
	EXPECT_OK(peer_mprotect(&self->a, p, self->len, RW));
	EXPECT_EQ(3, try_read(at(p, MB)));
	EXPECT_EQ(PAGE_RW, page_state(at(p, self->len - page())));
	/* Still of use to a process that comes later. */
	ASSERT_OK(peer_munmap(&self->b, p, self->len));
	ASSERT_OK(peer_attach(&self->b, self->name));
	EXPECT_EQ(PAGE_RW, peer_state(&self->b, p));
}

static long do_populate(const struct request *rq)
{
	size_t i;

	for (i = 0; i < (size_t)rq->a[1]; i += page())
		if (try_write((void *)(rq->a[0] + i), 1))
			return -1;
	return 0;
}

/* Huge pages that faults get for @size bytes at @p, or -1. */
static long huge_faults(struct peer *who, void *p, size_t size)
{
	long before = vmstat("thp_fault_alloc");

	if (peer_mmap(who, p, size, RW, ANON | MAP_FIXED, -1, 0) != p ||
	    PEER(who, do_populate, NULL, L(p), size))
		return -1;
	return vmstat("thp_fault_alloc") - before;
}

TEST_F_TIMEOUT(mm, huge_pages_are_used_as_outside, SHORT_TIMEOUT)
{
	const size_t size = 8 * MB;
	long outside, within;
	struct setting thp;
	int i;

	if (setting_set(&thp, THP_ENABLED, "always"))
		SKIP(return, "no transparent huge pages");
	outside = huge_faults(&self->a, slot(8), size);
	within = huge_faults(&self->a, at(self->addr, GB), size);
	for (i = 0; i < 8; i++) {
		EXPECT_EQ(1, peer_read(&self->b, at(self->addr, GB + i * MB)));
	}
	/* Undone in part, one page at a time. */
	ASSERT_OK(munmap(at(self->addr, GB + MB), page()));
	ASSERT_OK(mprotect(at(self->addr, GB + 3 * MB), page(), PROT_READ));
	EXPECT_EQ(PAGE_HOLE, peer_state(&self->b, at(self->addr, GB + MB)));
	EXPECT_EQ(PAGE_RW, peer_state(&self->b, at(self->addr, GB + MB + page())));
	EXPECT_EQ(PAGE_RO, peer_state(&self->b, at(self->addr, GB + 3 * MB)));
	EXPECT_EQ(1, peer_read(&self->b, at(self->addr, GB + MB + page())));
	setting_restore(&thp);
	if (outside <= 0)
		SKIP(return, "no huge pages outside of a region either");
	EXPECT_LT(0, within);
}

/*
 * Edges. Around and in the region stands:
 *
 *	page of its own | first page ... last page | page of its own
 */
struct edge {
	void *lo;		/* the page before the region */
	void *first, *last;
	void *hi;		/* the page after the region */
};

static void edges(struct __test_metadata *_metadata, struct edge *e, void *addr,
		  size_t len)
{
	e->lo = at(addr, -page());
	e->first = addr;
	e->last = at(addr, len - page());
	e->hi = at(addr, len);
	ASSERT_OK(map_anon(e->lo, page(), MAP_PRIVATE));
	ASSERT_OK(map_anon(e->first, page(), MAP_PRIVATE));
	ASSERT_OK(map_anon(e->last, page(), MAP_PRIVATE));
	ASSERT_OK(map_anon(e->hi, page(), MAP_PRIVATE));
	ASSERT_EQ(0, try_write(e->lo, 1));
	ASSERT_EQ(0, try_write(e->first, 2));
	ASSERT_EQ(0, try_write(e->last, 3));
	ASSERT_EQ(0, try_write(e->hi, 4));
}

static bool edges_intact(const struct edge *e)
{
	return page_state(e->lo) == PAGE_RW && try_read(e->lo) == 1 &&
	       page_state(e->first) == PAGE_RW && try_read(e->first) == 2 &&
	       page_state(at(e->first, page())) == PAGE_HOLE &&
	       page_state(e->last) == PAGE_RW && try_read(e->last) == 3 &&
	       page_state(at(e->last, -page())) == PAGE_HOLE &&
	       page_state(e->hi) == PAGE_RW && try_read(e->hi) == 4;
}

static void edges_end(struct edge *e)
{
	munmap(e->lo, page());
	munmap(e->hi, page());
}

TEST_F(mm, a_range_across_an_edge_is_refused)
{
	const int noreplace = ANON | MAP_FIXED_NOREPLACE;
	void *p[3];
	size_t n[3];
	struct edge e;
	size_t i;

	edges(_metadata, &e, self->addr, self->len);
	p[0] = e.lo;		/* across the lower edge */
	n[0] = pages(2);
	p[1] = e.last;		/* across the upper edge */
	n[1] = pages(2);
	p[2] = at(e.first, page());	/* most of it, and across */
	n[2] = self->len;
	for (i = 0; i < 3; i++) {
		EXPECT_ERR(EINVAL, munmap(p[i], n[i]));
		EXPECT_ERR(EINVAL, mprotect(p[i], n[i], PROT_READ));
		EXPECT_ERR(EINVAL, mmap(p[i], n[i], RW, ANON | MAP_FIXED |
					MAP_NORESERVE, -1, 0));
		EXPECT_ERR(EINVAL, mmap(p[i], n[i], RW, noreplace | MAP_NORESERVE,
					-1, 0));
		EXPECT_TRUE(edges_intact(&e)) {
			TH_LOG("range %zu", i);
		}
	}
	EXPECT_EQ(1, nr_mapped(self->addr, self->len));
	EXPECT_EQ(2, peer_read(&self->a, e.first));
	edges_end(&e);
}

/* Outside of the ranges above nothing is mapped here. */
TEST_F(mm, a_range_across_an_edge_into_nothing_is_refused)
{
	void *lo = at(self->addr, -page());
	void *hi = at(self->addr, self->len - page());

	ASSERT_OK(map_anon(self->addr, page(), MAP_PRIVATE));
	EXPECT_ERR(EINVAL, munmap(lo, pages(2)));
	EXPECT_ERR(EINVAL, munmap(hi, pages(2)));
	EXPECT_ERR(EINVAL, mmap(lo, pages(2), RW, ANON | MAP_FIXED, -1, 0));
	EXPECT_ERR(EINVAL, mmap(hi, pages(2), RW, ANON | MAP_FIXED, -1, 0));
	EXPECT_ERR(EINVAL, mmap(lo, pages(2), RW, ANON | MAP_FIXED_NOREPLACE, -1, 0));
	EXPECT_EQ(PAGE_RW, page_state(self->addr));
	EXPECT_EQ(0, nr_mapped(lo, page()));
	EXPECT_EQ(0, nr_mapped(at(hi, page()), page()));
	EXPECT_EQ(1, nr_mapped(self->addr, self->len));
}

TEST_F(mm, a_range_across_two_regions_is_refused)
{
	const char *other = new_name();
	void *border = at(self->addr, self->len);

	ASSERT_OK(create(other, border, self->len));
	ASSERT_OK(map_anon(at(border, -page()), page(), MAP_SHARED));
	ASSERT_OK(map_anon(border, page(), MAP_SHARED));
	EXPECT_EQ(0, try_write(at(border, -page()), 1));
	EXPECT_EQ(0, try_write(border, 2));
	EXPECT_ERR(EINVAL, munmap(at(border, -page()), pages(2)));
	EXPECT_ERR(EINVAL, mprotect(at(border, -page()), pages(2), PROT_READ));
	EXPECT_ERR(EINVAL, mmap(at(border, -page()), pages(2), RW,
				ANON | MAP_FIXED, -1, 0));
	/* The whole of one and a part of the other. */
	EXPECT_ERR(EINVAL, munmap(self->addr, self->len + page()));
	EXPECT_ERR(EINVAL, munmap(at(border, -page()), self->len + page()));
	EXPECT_ERR(EINVAL, mmap(self->addr, self->len + page(), PROT_NONE,
				ANON | MAP_FIXED | MAP_NORESERVE, -1, 0));
	EXPECT_EQ(1, try_read(at(border, -page())));
	EXPECT_EQ(2, try_read(border));
	EXPECT_STREQ(".ww.", page_states(at(border, -pages(2)), 4));
	EXPECT_EQ(2, nr_mapped(self->addr, 2 * self->len));
	/* Side by side they do not see each other. */
	ASSERT_OK(munmap(border, page()));
	EXPECT_STREQ(".w..", page_states(at(border, -pages(2)), 4));
	/* Both whole: detached from both. */
	EXPECT_OK(munmap(self->addr, 2 * self->len));
	EXPECT_EQ(0, nr_mapped(self->addr, 2 * self->len));
	EXPECT_EQ(1, peer_read(&self->a, at(border, -page())));
}

TEST_F(mm, unmapping_the_whole_attachment_detaches)
{
	ASSERT_OK(map_anon(self->addr, page(), MAP_PRIVATE));
	ASSERT_EQ(0, try_write(self->addr, 6));
	ASSERT_OK(munmap(self->addr, self->len));
	EXPECT_EQ(FAULT(SIGSEGV, SEGV_MAPERR), try_read(self->addr));
	EXPECT_EQ(6, peer_read(&self->a, self->addr));
	EXPECT_EQ(6, peer_read(&self->b, self->addr));
	/* The addresses are ours again. */
	ASSERT_OK(map_anon(self->addr, page(), MAP_PRIVATE));
	EXPECT_EQ(0, try_read(self->addr));
	EXPECT_EQ(0, try_write(self->addr, 7));
	EXPECT_EQ(6, peer_read(&self->a, self->addr));
	ASSERT_OK(munmap(self->addr, page()));
	ASSERT_OK(attach(self->name));
	EXPECT_EQ(6, try_read(self->addr));
}

TEST_F(mm, unmapping_more_than_the_attachment_takes_all_of_it)
{
	const char *other = new_name();
	void *addr2 = at(self->addr, 3 * self->len);
	struct edge e;

	edges(_metadata, &e, self->addr, self->len);
	ASSERT_OK(create(other, addr2, self->len));
	ASSERT_OK(map_anon(at(addr2, -pages(4)), pages(2), MAP_PRIVATE));
	ASSERT_OK(munmap(e.lo, 4 * self->len + pages(2)));
	EXPECT_EQ(0, nr_mapped(e.lo, 4 * self->len + pages(2)));
	EXPECT_EQ(FAULT(SIGSEGV, SEGV_MAPERR), try_read(e.lo));
	EXPECT_EQ(FAULT(SIGSEGV, SEGV_MAPERR), try_read(e.first));
	EXPECT_EQ(FAULT(SIGSEGV, SEGV_MAPERR), try_read(e.hi));
	EXPECT_EQ(2, peer_read(&self->a, e.first));
	EXPECT_EQ(3, peer_read(&self->a, e.last));
	EXPECT_OK(mshare_unlink(other));
}

TEST_F(mm, mapping_over_the_whole_attachment_detaches)
{
	struct edge e;
	void *p;

	edges(_metadata, &e, self->addr, self->len);
	p = mmap(self->addr, self->len, RW, ANON | MAP_FIXED | MAP_NORESERVE, -1, 0);
	ASSERT_EQ(self->addr, p);
	EXPECT_EQ(0, try_read(e.first));
	EXPECT_EQ(0, try_write(e.first, 99));
	EXPECT_EQ(2, peer_read(&self->a, e.first));
	EXPECT_EQ(1, try_read(e.lo));
	EXPECT_EQ(4, try_read(e.hi));
	/* Parts of it are the caller's now. */
	ASSERT_OK(munmap(self->addr, page()));
	EXPECT_EQ(FAULT(SIGSEGV, SEGV_MAPERR), try_read(self->addr));
	EXPECT_EQ(2, peer_read(&self->a, e.first));
	ASSERT_OK(munmap(self->addr, self->len));
	EXPECT_OK(attach(self->name));
	EXPECT_EQ(2, try_read(e.first));
	/* And over more than the attachment. */
	p = mmap(e.lo, self->len + pages(2), RW, ANON | MAP_FIXED | MAP_NORESERVE,
		 -1, 0);
	ASSERT_EQ(e.lo, p);
	EXPECT_EQ(0, try_read(e.lo));
	EXPECT_EQ(0, try_read(e.first));
	EXPECT_EQ(0, try_read(e.hi));
	EXPECT_EQ(2, peer_read(&self->b, e.first));
	ASSERT_OK(munmap(e.lo, self->len + pages(2)));
}

TEST_F(mm, mapping_over_an_attachment_fails_without_detaching)
{
	struct rlimit rl = { 2 * self->len, RLIM_INFINITY };
	struct edge e;

	edges(_metadata, &e, self->addr, self->len);
	EXPECT_EQ(MAP_FAILED, mmap(self->addr, self->len, RW,
				   MAP_SHARED | MAP_FIXED, -1, 0));
	EXPECT_TRUE(edges_intact(&e));
	ASSERT_OK(setrlimit(RLIMIT_AS, &rl));
	EXPECT_ERR(ENOMEM, mmap(self->addr, 3 * self->len, PROT_NONE,
				ANON | MAP_FIXED | MAP_NORESERVE, -1, 0));
	EXPECT_TRUE(edges_intact(&e));
	edges_end(&e);
}

/* Calls that are refused, whatever they are given. */

struct range_call {
	const char *name;
	long (*fn)(void *p, size_t n);
	int also;		/* an errno besides EINVAL and EOPNOTSUPP */
	bool works;		/* inside: see mshare_calls.c and others */
};

static long c_mremap_grow(void *p, size_t n)
{
	return L(mremap(p, n, n + page(), MREMAP_MAYMOVE));
}

static long c_mremap_shrink(void *p, size_t n)
{
	if (n <= page()) {
		errno = EINVAL;		/* nothing to shrink */
		return -1;
	}
	return L(mremap(p, n, page(), 0));
}

static long c_mremap_out(void *p, size_t n)
{
	return L(mremap(p, n, n, MREMAP_MAYMOVE | MREMAP_FIXED, slot(20)));
}

static long c_mremap_dontunmap(void *p, size_t n)
{
	return L(mremap(p, n, n, MREMAP_MAYMOVE | MREMAP_DONTUNMAP, 0));
}

/* From the caller's own memory into the region. */
static long c_mremap_in(void *p, size_t n)
{
	void *own = mmap(NULL, n < GB ? n : page(), RW, ANON, -1, 0);
	long ret;
	int err;

	ret = L(mremap(own, n < GB ? n : page(), n, MREMAP_MAYMOVE | MREMAP_FIXED, p));
	err = errno;
	if (ret == -1)
		munmap(own, n < GB ? n : page());
	errno = err;
	return ret;
}

static long c_mlock(void *p, size_t n)
{
	return mlock(p, n);
}

static long c_mlock2(void *p, size_t n)
{
	return syscall(SYS_mlock2, p, n, 1);
}

static long c_munlock(void *p, size_t n)
{
	return munlock(p, n);
}

static long c_msync_async(void *p, size_t n)
{
	return msync(p, n, MS_ASYNC);
}

static long c_msync_sync(void *p, size_t n)
{
	return msync(p, n, MS_SYNC | MS_INVALIDATE);
}

static long c_mincore(void *p, size_t n)
{
	static unsigned char vec[64];

	/* Far more pages than the vector has: EFAULT if it comes to that. */
	return mincore(p, n, n > 64 * page() ? NULL : vec);
}

static long c_mbind(void *p, size_t n)
{
	return syscall(SYS_mbind, p, n, MPOL_DEFAULT_, NULL, 0, 0);
}

static long c_home_node(void *p, size_t n)
{
	return syscall(SYS_set_mempolicy_home_node, p, n, 0, 0);
}

static long c_remap_file_pages(void *p, size_t n)
{
	return remap_file_pages(p, n, 0, 0, 0);
}

static long c_mseal(void *p, size_t n)
{
	return syscall(SYS_mseal, p, n, 0);
}

static long c_pkey_mprotect(void *p, size_t n)
{
	int key = syscall(SYS_pkey_alloc, 0, 0), err;
	long ret;

	ret = syscall(SYS_pkey_mprotect, p, n, PROT_READ, key >= 0 ? key : 15);
	err = errno;
	if (key >= 0)
		syscall(SYS_pkey_free, key);
	errno = err;
	return ret;
}

static long c_anon_name(void *p, size_t n)
{
	return prctl(PR_SET_VMA, PR_SET_VMA_ANON_NAME, p, n, "name");
}

static long c_process_madvise(void *p, size_t n)
{
	struct iovec iov = { p, n };
	int fd = syscall(SYS_pidfd_open, getpid(), 0), err;
	long ret;

	ret = syscall(SYS_process_madvise, fd, &iov, 1, MADV_COLD, 0);
	err = errno;
	close(fd);
	errno = err;
	return ret;
}

static long c_process_pageout(void *p, size_t n)
{
	struct iovec iov = { p, n };
	int fd = syscall(SYS_pidfd_open, getpid(), 0), err;
	long ret;

	ret = syscall(SYS_process_madvise, fd, &iov, 1, MADV_PAGEOUT, 0);
	err = errno;
	close(fd);
	errno = err;
	return ret;
}

static long c_shadow_stack(void *p, size_t n)
{
	return syscall(SYS_map_shadow_stack, p, n, 1);
}

static long c_uffd(void *p, size_t n)
{
	struct uffdio_api api = { .api = UFFD_API };
	struct uffdio_register reg = {
		.range = { (unsigned long)p, n },
		.mode = UFFDIO_REGISTER_MODE_MISSING,
	};
	int fd = syscall(SYS_userfaultfd, O_CLOEXEC), err;
	long ret;

	if (fd < 0) {
		errno = EOPNOTSUPP;
		return -1;
	}
	ret = ioctl(fd, UFFDIO_API, &api);
	if (!ret)
		ret = ioctl(fd, UFFDIO_REGISTER, &reg);
	err = errno;
	close(fd);
	errno = err;
	return ret;
}

static const struct range_call calls[] = {
	{ "mremap, growing", c_mremap_grow, EFAULT, true },
	{ "mremap, shrinking", c_mremap_shrink, EFAULT },
	{ "mremap, moving out", c_mremap_out, EFAULT },
	{ "mremap, MREMAP_DONTUNMAP", c_mremap_dontunmap, EFAULT, true },
	{ "mremap, moving in", c_mremap_in, EINVAL },
	{ "mlock", c_mlock, EINVAL, true },
	{ "mlock2", c_mlock2, EINVAL, true },
	{ "munlock", c_munlock, EINVAL, true },
	{ "msync, MS_ASYNC", c_msync_async, EINVAL, true },
	{ "msync, MS_SYNC", c_msync_sync, EINVAL, true },
	{ "mincore", c_mincore, EINVAL, true },
	{ "mbind", c_mbind, ENOSYS, true },
	{ "set_mempolicy_home_node", c_home_node, ENOSYS, true },
	{ "remap_file_pages", c_remap_file_pages, EINVAL, true },
	{ "mseal", c_mseal, ENOSYS },
	{ "pkey_mprotect", c_pkey_mprotect, ENOSYS, true },
	{ "PR_SET_VMA_ANON_NAME", c_anon_name, EINVAL, true },
	{ "process_madvise, MADV_COLD", c_process_madvise, ENOSYS, true },
	{ "process_madvise, MADV_PAGEOUT", c_process_pageout, ENOSYS, true },
	{ "map_shadow_stack", c_shadow_stack, ENOSYS },
	{ "userfaultfd", c_uffd, EINVAL },
};

static const int advices[] = {
	MADV_NORMAL, MADV_RANDOM, MADV_SEQUENTIAL, MADV_WILLNEED, MADV_DONTNEED,
	8 /* FREE */, 9 /* REMOVE */, MADV_DONTFORK, MADV_DOFORK, MADV_MERGEABLE,
	MADV_UNMERGEABLE, MADV_HUGEPAGE, MADV_NOHUGEPAGE, MADV_DONTDUMP,
	MADV_DODUMP, 18 /* WIPEONFORK */, 19 /* KEEPONFORK */, 20 /* COLD */,
	21 /* PAGEOUT */, 22 /* POPULATE_READ */, 23 /* POPULATE_WRITE */,
	24 /* DONTNEED_LOCKED */, 25 /* COLLAPSE */,
};

/* Has a meaning for the whole attachment only, or for none */
static bool never_inside(int advice)
{
	return advice == MADV_DONTFORK || advice == MADV_DOFORK ||
	       advice == MADV_DONTDUMP || advice == MADV_DODUMP ||
	       advice == 18 || advice == 19;
}

static bool callers_own(int advice)
{
	return advice == MADV_DONTFORK || advice == MADV_DOFORK ||
	       advice == MADV_DONTDUMP || advice == MADV_DODUMP;
}

static void refuse_all(struct __test_metadata *_metadata, struct edge *e,
		       const char *where, void *p, size_t n, bool inside,
		       bool whole)
{
	long ret;
	size_t i;

	for (i = 0; i < ARRAY_SIZE(calls); i++) {
		if (inside && calls[i].works)
			continue;
		errno = 0;
		ret = calls[i].fn(p, n);
		EXPECT_TRUE(ret == -1 && (errno == EINVAL ||
					  errno == calls[i].also)) {
			TH_LOG("%s %s: %ld, %s", calls[i].name, where, ret,
			       strerror(errno));
		}
		ASSERT_TRUE(edges_intact(e)) {
			TH_LOG("%s %s changed something", calls[i].name, where);
		}
	}
	for (i = 0; i < ARRAY_SIZE(advices); i++) {
		if (inside && !never_inside(advices[i]))
			continue;
		errno = 0;
		ret = madvise(p, n, advices[i]);
		if (whole && callers_own(advices[i]) && !ret)
			continue;
		EXPECT_TRUE(ret == -1 && errno == EINVAL) {
			TH_LOG("advice %d %s: %ld, %s", advices[i], where, ret,
			       strerror(errno));
		}
		ASSERT_TRUE(edges_intact(e)) {
			TH_LOG("advice %d %s changed something", advices[i], where);
		}
	}
}

TEST_F_TIMEOUT(mm, what_has_no_meaning_inside_is_refused, SHORT_TIMEOUT)
{
	struct edge e;

	edges(_metadata, &e, self->addr, self->len);
	refuse_all(_metadata, &e, "on the first page", e.first, page(), true, false);
	refuse_all(_metadata, &e, "on the last page", e.last, page(), true, false);
	EXPECT_EQ(2, peer_read(&self->a, e.first));
	EXPECT_EQ(3, peer_read(&self->a, e.last));
	EXPECT_EQ(1, nr_mapped(self->addr, self->len));
	edges_end(&e);
}

TEST_F_TIMEOUT(mm, other_calls_across_an_edge_are_refused, SHORT_TIMEOUT)
{
	struct edge e;

	edges(_metadata, &e, self->addr, self->len);
	refuse_all(_metadata, &e, "across the lower edge", e.lo, pages(2), false, false);
	refuse_all(_metadata, &e, "across the upper edge", e.last, pages(2), false, false);
	EXPECT_EQ(2, peer_read(&self->a, e.first));
	EXPECT_EQ(3, peer_read(&self->a, e.last));
	EXPECT_EQ(1, nr_mapped(self->addr, self->len));
	edges_end(&e);
}

TEST_F_TIMEOUT(mm, other_calls_on_the_whole_attachment_are_refused,
	       SHORT_TIMEOUT)
{
	struct edge e;

	edges(_metadata, &e, self->addr, self->len);
	refuse_all(_metadata, &e, "on the whole attachment", self->addr, self->len,
		   true, true);
	EXPECT_EQ(2, peer_read(&self->a, e.first));
	EXPECT_EQ(1, nr_mapped(self->addr, self->len));
	edges_end(&e);
}

TEST_F(mm, shared_memory_segments_stay_outside)
{
	void *p = at(self->addr, MB);
	int id;

	ASSERT_OK(map_anon(p, pages(3), MAP_PRIVATE));
	ASSERT_EQ(0, try_write(at(p, page()), 8));
	id = shmget(IPC_PRIVATE, page(), IPC_CREAT | 0600);
	ASSERT_LE(0, id);
	EXPECT_REFUSED(shmat(id, at(p, page()), 0));
	EXPECT_REFUSED(shmat(id, at(p, page()), SHM_REMAP));
	EXPECT_REFUSED(shmat(id, at(p, pages(3)), 0));
	EXPECT_ERR(EINVAL, shmdt(p));
	EXPECT_ERR(EINVAL, shmdt(self->addr));
	EXPECT_ERR(EINVAL, shmdt(at(self->addr, self->len - page())));
	EXPECT_STREQ("www.", page_states(p, 4));
	EXPECT_EQ(8, peer_read(&self->a, at(p, page())));
	EXPECT_EQ(1, nr_mapped(self->addr, self->len));
	shmctl(id, IPC_RMID, NULL);
}

TEST_F_TIMEOUT(mm, mlockall_leaves_regions_alone, SHORT_TIMEOUT)
{
	size_t size = 64 * MB;
	long anon, locked;

	ASSERT_OK(map_anon(self->addr, size, MAP_PRIVATE));
	anon = meminfo("AnonPages");
	locked = meminfo("Mlocked");
	ASSERT_OK(mlockall(MCL_CURRENT | MCL_FUTURE));
	EXPECT_OK(map_anon(at(self->addr, GB), size, MAP_PRIVATE));
	EXPECT_GT(anon + 32 * 1024, meminfo("AnonPages"));
	EXPECT_GT(locked + 32 * 1024, meminfo("Mlocked"));
	EXPECT_EQ(0, peer_write(&self->a, self->addr, 3));
	EXPECT_EQ(3, try_read(self->addr));
	/* Attached while everything to come is to be locked. */
	ASSERT_OK(munmap(self->addr, self->len));
	EXPECT_OK(attach(self->name));
	EXPECT_EQ(3, try_read(self->addr));
	EXPECT_OK(munlockall());
	EXPECT_EQ(3, try_read(self->addr));
	EXPECT_GT(anon + 32 * 1024, meminfo("AnonPages"));
}

TEST_F(mm, what_is_inside_counts_against_no_limit_of_the_caller)
{
	struct rlimit as = { self->len + GB, RLIM_INFINITY };
	struct rlimit data = { 64 * MB, RLIM_INFINITY };

	ASSERT_OK(setrlimit(RLIMIT_AS, &as));
	ASSERT_OK(setrlimit(RLIMIT_DATA, &data));
	EXPECT_ERR(ENOMEM, mmap(NULL, 2 * GB, RW, ANON | MAP_NORESERVE, -1, 0));
	EXPECT_ERR(ENOMEM, mmap(NULL, 128 * MB, RW, ANON | MAP_NORESERVE, -1, 0));
	EXPECT_OK(mmap(at(self->addr, GB), 2 * GB, RW,
		       ANON | MAP_FIXED | MAP_NORESERVE, -1, 0));
	EXPECT_EQ(0, try_write(at(self->addr, 2 * GB), 1));
	EXPECT_OK(mmap(at(self->addr, GB), 2 * GB, RW, ANON | MAP_NORESERVE, -1, 0));
	/* And leaves what the caller may have outside as it was. */
	EXPECT_OK(mmap(NULL, 8 * MB, RW, ANON, -1, 0));
}

TEST_F(mm, nothing_of_a_region_counts_as_the_processes_own)
{
	long rss, rss2;
	char buf[256];

	ASSERT_OK(read_file("/proc/self/statm", buf, sizeof(buf)));
	rss = strtol(strchr(buf, ' '), NULL, 10);
	ASSERT_OK(map_anon(self->addr, 16 * MB, MAP_PRIVATE));
	for (size_t i = 0; i < 16 * MB; i += page()) {
		ASSERT_EQ(0, try_write(at(self->addr, i), 1));
	}
	ASSERT_OK(read_file("/proc/self/statm", buf, sizeof(buf)));
	rss2 = strtol(strchr(buf, ' '), NULL, 10);
	EXPECT_GT(rss + 1024, rss2);
}

/* Many mappings: splits, merges, and lookups among them. */
TEST_F_TIMEOUT(mm, many_mappings_stand_in_a_region, SHORT_TIMEOUT)
{
	long n = scaled(500), i;

	for (i = 0; i < n; i++) {
		ASSERT_OK(map_anon(at(self->addr, pages(2 * i)), page(),
				   i & 1 ? MAP_PRIVATE : MAP_SHARED));
	}
	for (i = 0; i < n; i++) {
		ASSERT_EQ(0, try_write(at(self->addr, pages(2 * i)), i & 127));
	}
	for (i = 0; i < n; i++) {
		ASSERT_EQ(i & 127, peer_read(&self->a, at(self->addr, pages(2 * i))));
	}
	EXPECT_EQ(1, nr_mapped(self->addr, self->len));
	ASSERT_OK(peer_munmap(&self->b, self->addr, pages(2 * n)));
	for (i = 0; i < n; i += 50) {
		ASSERT_EQ(PAGE_HOLE, page_state(at(self->addr, pages(2 * i))));
	}
}

/*
 * The same pages, changed and used by all at once. Each process owns a byte of
 * every page; what it wrote last must be there while the page is mapped.
 */
struct shared_ctl {
	atomic_int stop;
	atomic_long rounds;
	atomic_long errors;
};

static long do_hammer(const struct request *rq)
{
	struct shared_ctl *c = (void *)rq->a[3];
	unsigned char *p = (void *)rq->a[0];
	long n = rq->a[1], id = rq->a[2], v = 0, i, r;
	unsigned int seed = rq->a[4];

	while (!atomic_load(&c->stop)) {
		i = rand_r(&seed) % n;
		v = (v + 1) & 0x7f;
		r = try_write(p + pages(i) + id, v);
		if (!r) {
			r = try_read(p + pages(i) + id);
			/* Replaced in between: zero. Gone: a signal. */
			if (r > 0 && r != v)
				atomic_fetch_add(&c->errors, 1);
		}
		atomic_fetch_add(&c->rounds, 1);
	}
	return 0;
}

TEST_F_TIMEOUT(mm, changes_race_with_accesses, SHORT_TIMEOUT)
{
	struct shared_ctl *c = mmap(NULL, page(), RW, MAP_SHARED | MAP_ANONYMOUS,
				    -1, 0);
	unsigned int seed = test_seed();
	const int n = 16;
	struct peer p[3];
	double end;
	long calls_made = 0;
	int i;

	TH_LOG("seed %u", seed);
	ASSERT_OK(map_anon(self->addr, pages(n), MAP_PRIVATE));
	for (i = 0; i < 3; i++) {
		ASSERT_EQ(0, peer_start(&p[i]));	/* attached by the fork */
		PEER_SEND(&p[i], do_hammer, NULL, L(self->addr), n, i, L(c),
			  seed + i);
	}
	end = now() + 3.0 * scaled(10) / 10;
	while (now() < end) {
		void *q = at(self->addr, pages(rand_r(&seed) % n));
		size_t len = pages(1 + rand_r(&seed) % 4);

		switch (rand_r(&seed) % 5) {
		case 0:
			ASSERT_OK(munmap(q, len));
			break;
		case 1:
			mprotect(q, len, PROT_READ);
			break;
		case 2:
			mprotect(q, len, PROT_NONE);
			break;
		case 3:
			mprotect(q, len, RW);
			break;
		case 4:
			ASSERT_EQ(q, map_anon(q, len, rand_r(&seed) & 1 ?
					      MAP_PRIVATE : MAP_SHARED));
			break;
		}
		calls_made++;
	}
	EXPECT_TRUE(WAIT_FOR(atomic_load(&c->rounds) > 100, 60));
	atomic_store(&c->stop, 1);
	for (i = 0; i < 3; i++) {
		EXPECT_EQ(0, peer_wait(&p[i]));
		peer_stop(&p[i]);
	}
	EXPECT_EQ(0, atomic_load(&c->errors));
	EXPECT_LT(10, calls_made);
	/* And all is well. */
	ASSERT_OK(map_anon(self->addr, pages(n), MAP_SHARED));
	EXPECT_EQ(0, peer_write(&self->a, self->addr, 3));
	EXPECT_EQ(3, try_read(self->addr));
}

MSHARE_TEST_MAIN
