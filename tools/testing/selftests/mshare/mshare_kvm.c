// SPDX-License-Identifier: GPL-2.0
/*
 * Virtual machines whose memory is a region, or a part of one, each process with
 * a machine of its own: their guests read and write what the processes do, what
 * happens to the region by whatever process reaches all of them, and what a
 * guest uses is seen to be used.
 *
 * To make a machine is to subscribe to the notifiers of the process, all of its
 * life, and with other callbacks than the devices of mshare_hmm have.
 */
#include <linux/kvm.h>
#include <signal.h>
#include <sys/ioctl.h>
#include <sys/time.h>
#include "mshare_env.h"

#define RW	(PROT_READ | PROT_WRITE)
#define NR	CHANGE_PAGES

/* Where a guest has its code and its memory, and where its code does what. */
#define GPA_CODE	0x100000UL
#define GPA_MEM		0x10000000UL
#define DO_GET		0x00
#define DO_PUT		0x10
#define DO_TOUCH	0x20

static const unsigned char guest_code[] = {
	[DO_GET] = 0x66, 0xa1, 0, 0,		/* mov %ds:0, %eax */
		0xe6, 0x10,			/* out %al, $0x10 */
	[DO_PUT] = 0x66, 0xa3, 0, 0,		/* mov %eax, %ds:0 */
		0xe6, 0x10,
	[DO_TOUCH] = 0x67, 0x8a, 0x03,		/* 1: mov (%ebx), %al */
		0x66, 0x01, 0xd3,		/* add %edx, %ebx */
		0x66, 0x49,			/* dec %ecx */
		0x75, 0xf6,			/* jnz 1b */
		0xe6, 0x10,
};

/* The machine of a process, and what of the process it has for memory. */
static struct {
	int kvm, vm, vcpu;
	struct kvm_run *run;
	int run_size;
	void *code;
	void *addr;
	size_t size;
} vm = { .kvm = -1, .vm = -1, .vcpu = -1 };

static void vm_close(void)
{
	if (vm.run)
		munmap(vm.run, vm.run_size);
	if (vm.code)
		munmap(vm.code, page());
	if (vm.vcpu >= 0)
		close(vm.vcpu);
	if (vm.vm >= 0)
		close(vm.vm);
	if (vm.kvm >= 0)
		close(vm.kvm);
	vm.run = vm.code = NULL;
	vm.kvm = vm.vm = vm.vcpu = -1;
}

static int vm_memory(int slot, unsigned long gpa, void *addr, size_t size, int flags)
{
	struct kvm_userspace_memory_region mem = {
		.slot			= slot,
		.flags			= flags,
		.guest_phys_addr	= gpa,
		.memory_size		= size,
		.userspace_addr		= (unsigned long)addr,
	};

	return ioctl(vm.vm, KVM_SET_USER_MEMORY_REGION, &mem);
}

/* A machine that has @size bytes of this process from @addr on as its memory. */
static long vm_open(void *addr, size_t size)
{
	int err;

	vm.addr = addr;
	vm.size = size;
	vm.kvm = open("/dev/kvm", O_RDWR | O_CLOEXEC);
	if (vm.kvm < 0)
		return -errno;
	vm.vm = ioctl(vm.kvm, KVM_CREATE_VM, 0);
	if (vm.vm < 0)
		goto fail;
	vm.code = mmap(NULL, page(), RW, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	memcpy(vm.code, guest_code, sizeof(guest_code));
	if (vm_memory(0, GPA_CODE, vm.code, page(), 0) ||
	    vm_memory(1, GPA_MEM, addr, size, 0))
		goto fail;
	vm.vcpu = ioctl(vm.vm, KVM_CREATE_VCPU, 0);
	vm.run_size = ioctl(vm.kvm, KVM_GET_VCPU_MMAP_SIZE, 0);
	if (vm.vcpu < 0 || vm.run_size < 0)
		goto fail;
	vm.run = mmap(NULL, vm.run_size, RW, MAP_SHARED, vm.vcpu, 0);
	if (vm.run != MAP_FAILED)
		return 0;
	vm.run = NULL;
fail:
	err = errno;
	vm_close();
	return -err;
}

static void on_alarm(int sig)
{
}

/*
 * Under emulation (QEMU 7.2) a guest has at times, after a run of it has ended, the
 * state of the kernel that runs it: its RIP is that behind VMRUN. From there it
 * gets nowhere, forever. A guest in real mode has no other way to an address
 * like that.
 */
static bool vm_is_lost(void)
{
	struct kvm_regs regs;

	return !ioctl(vm.vcpu, KVM_GET_REGS, &regs) && (long long)regs.rip < 0;
}

/* As vm_run(), but -ESTALE if the machine is of no use any more. */
static long vm_try(unsigned long ip, unsigned long base, struct kvm_regs *regs)
{
	static const struct itimerval look = { { 1 }, { 1 } }, off;
	struct sigaction act = { .sa_handler = on_alarm };
	struct kvm_sregs sregs;
	bool lost = false;
	int ret, err;

	if (ioctl(vm.vcpu, KVM_GET_SREGS, &sregs))
		return -errno;
	sregs.cs.selector = 0;
	sregs.cs.base = GPA_CODE;
	sregs.ds.selector = 0;
	sregs.ds.base = GPA_MEM + base;
	sregs.ds.limit = 0xffffffff;
	sregs.ds.g = 1;
	regs->rip = ip;
	regs->rflags = 2;
	if (ioctl(vm.vcpu, KVM_SET_SREGS, &sregs) ||
	    ioctl(vm.vcpu, KVM_SET_REGS, regs))
		return -errno;
	sigaction(SIGALRM, &act, NULL);
	setitimer(ITIMER_REAL, &look, NULL);
	do {
		ret = ioctl(vm.vcpu, KVM_RUN, 0);
		err = ret ? errno : 0;
		lost = err == EINTR && vm_is_lost();
	} while (err == EINTR && !lost);
	setitimer(ITIMER_REAL, &off, NULL);
	if (err)
		return lost ? -ESTALE : -err;
	if (vm.run->exit_reason != KVM_EXIT_IO)
		return -1000 - (long)vm.run->exit_reason;
	if (ioctl(vm.vcpu, KVM_GET_REGS, regs))
		return -errno;
	return (unsigned int)regs->rax;
}

/* Runs the guest until it says that it is done; what it has in EAX, or -errno. */
static long vm_run(unsigned long ip, unsigned long base, struct kvm_regs *regs)
{
	const struct kvm_regs begin = *regs;
	long ret;

	for (;;) {
		ret = vm_try(ip, base, regs);
		if (ret != -ESTALE)
			return ret;
		fprintf(stderr, "# the emulator has lost a guest, which runs again in a new machine\n");
		vm_close();
		ret = vm_open(vm.addr, vm.size);
		if (ret)
			return ret;
		*regs = begin;
	}
}

/* The int at an offset, as the guest sees it, or -errno. */
static long vm_get(unsigned long off)
{
	struct kvm_regs regs = {};

	return vm_run(DO_GET, off, &regs);
}

static long vm_put(unsigned long off, unsigned int val)
{
	struct kvm_regs regs = { .rax = val };
	long ret = vm_run(DO_PUT, off, &regs);

	return ret < 0 ? ret : 0;
}

/* The guest reads of each of @n pages from @off on. */
static long vm_touch(unsigned long off, unsigned long n)
{
	struct kvm_regs regs = { .rbx = off, .rdx = page(), .rcx = n };
	long ret = vm_run(DO_TOUCH, 0, &regs);

	return ret < 0 ? ret : 0;
}

/* The same in peers. */

static long do_vm_open(const struct request *rq)
{
	return vm_open((void *)rq->a[0], rq->a[1]);
}

static long do_vm_close(const struct request *rq)
{
	vm_close();
	return 0;
}

static long do_vm_get(const struct request *rq)
{
	return vm_get(rq->a[0]);
}

static long do_vm_put(const struct request *rq)
{
	return vm_put(rq->a[0], rq->a[1]);
}

static long do_madvise(const struct request *rq)
{
	return madvise((void *)rq->a[0], rq->a[1], rq->a[2]) ? -errno : 0;
}

#define PEER_OPEN(_p, _addr, _size)	PEER(_p, do_vm_open, NULL, L(_addr), _size)
#define PEER_GET(_p, _off)		PEER(_p, do_vm_get, NULL, _off)
#define PEER_PUT(_p, _off, _val)	PEER(_p, do_vm_put, NULL, _off, _val)

/* Why there can be no machine, or nothing. */
static const char *vm_why(void)
{
	long err;

	if (access("/dev/kvm", R_OK | W_OK))
		return "no /dev/kvm: needs CONFIG_KVM, CONFIG_KVM_AMD or CONFIG_KVM_INTEL, and a processor that virtualizes";
	err = vm_open(slot(9), page());
	vm_close();
	return err ? "KVM makes no machine" : NULL;
}

/*
 * The test process and two peers are attached; all have machines with the start
 * of the region as memory, which the peers have made before they attached, or
 * after that.
 */
#define VM_SIZE	(4 * MB)

FIXTURE(kvm)
{
	const char *name, *why;
	void *addr;
	size_t len;
	struct peer a, b;
	struct kind_data kind;
	struct setting thp;
};

FIXTURE_VARIANT(kvm)
{
	enum kind kind;
	bool early;
};

FIXTURE_VARIANT_ADD(kvm, anon_private) { .kind = ANON_PRIVATE };
FIXTURE_VARIANT_ADD(kvm, anon_private_early) {
	.kind = ANON_PRIVATE, .early = true
};
FIXTURE_VARIANT_ADD(kvm, anon_shared) { .kind = ANON_SHARED };
FIXTURE_VARIANT_ADD(kvm, memfd) { .kind = MEMFD };
FIXTURE_VARIANT_ADD(kvm, tmpfs_private) { .kind = TMPFS_PRIVATE };

static size_t pg(int i)
{
	return i * page();
}

static volatile int *word(void *base, size_t off)
{
	return at(base, off);
}

FIXTURE_SETUP(kvm)
{
	int i;

	NOT_ON_DEBUG(variant->kind == ANON_SHARED);
	self->name = new_name();
	self->addr = slot(0);
	self->len = granule();
	self->kind.fd = -1;
	self->why = vm_why();
	if (!self->why)
		self->why = kind_init(&self->kind, variant->kind);
	if (self->why)
		return;
	setting_set(&self->thp, THP_ENABLED, "never");
	ASSERT_EQ(0, peer_start(&self->a));
	ASSERT_EQ(0, peer_start(&self->b));
	if (variant->early) {
		ASSERT_EQ(0, vm_open(self->addr, VM_SIZE));
		ASSERT_EQ(0, PEER_OPEN(&self->a, self->addr, VM_SIZE));
		ASSERT_EQ(0, PEER_OPEN(&self->b, self->addr, VM_SIZE));
	}
	ASSERT_OK(create(self->name, self->addr, self->len));
	ASSERT_OK(peer_attach(&self->a, self->name));
	ASSERT_OK(peer_attach(&self->b, self->name));
	ASSERT_EQ(self->addr, kind_map(&self->kind, self->addr, NR * page(), RW,
				       MAP_FIXED, 0));
	for (i = 0; i < NR; i++)
		*word(self->addr, pg(i)) = 1000 + i;
	if (!variant->early) {
		ASSERT_EQ(0, vm_open(self->addr, VM_SIZE));
		ASSERT_EQ(0, PEER_OPEN(&self->a, self->addr, VM_SIZE));
		ASSERT_EQ(0, PEER_OPEN(&self->b, self->addr, VM_SIZE));
	}
}

FIXTURE_TEARDOWN(kvm)
{
	vm_close();
	peer_stop(&self->a);
	peer_stop(&self->b);
	munmap(self->addr, self->len);
	remove_names();
	setting_restore(&self->thp);
	kind_end(&self->kind);
}

#define NEED_KVM() do {							\
	if (self->why)							\
		SKIP(return, "%s", self->why);				\
} while (0)

/* All three guests have translations of the first @_n pages. */
#define MIRROR(_n) do {							\
	int _i;								\
									\
	for (_i = 0; _i < (_n); _i++) {					\
		ASSERT_EQ(1000 + _i, vm_get(pg(_i)));			\
		ASSERT_EQ(1000 + _i, PEER_GET(&self->a, pg(_i)));	\
		ASSERT_EQ(1000 + _i, PEER_GET(&self->b, pg(_i)));	\
	}								\
} while (0)

TEST_F_TIMEOUT(kvm, guests_read_and_write, SHORT_TIMEOUT)
{
	void *fresh = at(self->addr, MB);

	NEED_KVM();
	MIRROR(NR);
	ASSERT_EQ(0, PEER_PUT(&self->a, pg(3), 77));
	EXPECT_EQ(77, *word(self->addr, pg(3)));
	EXPECT_EQ(77, vm_get(pg(3)));
	EXPECT_EQ(77, PEER_GET(&self->b, pg(3)));
	ASSERT_EQ(0, vm_put(pg(3), 78));
	EXPECT_EQ(78, PEER_GET(&self->a, pg(3)));
	*word(self->addr, pg(3)) = 79;
	EXPECT_EQ(79, PEER_GET(&self->b, pg(3)));
	/* Nothing there, then something that no process has touched. */
	EXPECT_EQ(-EFAULT, vm_get(MB));
	EXPECT_EQ(-EFAULT, PEER_PUT(&self->a, MB, 1));
	ASSERT_EQ(fresh, map_anon(fresh, NR * page(), MAP_PRIVATE));
	EXPECT_EQ(0, vm_get(MB));
	ASSERT_EQ(0, PEER_PUT(&self->a, MB, 5));
	EXPECT_EQ(5, vm_get(MB));
	EXPECT_EQ(5, PEER_GET(&self->b, MB));
	EXPECT_EQ(5, *word(fresh, 0));
}

TEST_F_TIMEOUT(kvm, munmap_reaches_all_guests, SHORT_TIMEOUT)
{
	NEED_KVM();
	MIRROR(2);
	ASSERT_OK(peer_munmap(&self->a, self->addr, page()));
	EXPECT_EQ(-EFAULT, vm_get(0));
	EXPECT_EQ(-EFAULT, PEER_GET(&self->a, 0));
	EXPECT_EQ(-EFAULT, PEER_GET(&self->b, 0));
	EXPECT_EQ(1001, vm_get(pg(1)));
	ASSERT_EQ(self->addr, peer_mmap(&self->b, self->addr, page(), RW,
					MAP_FIXED | MAP_PRIVATE | MAP_ANONYMOUS, -1,
					0));
	EXPECT_EQ(0, vm_get(0));
	EXPECT_EQ(0, PEER_GET(&self->a, 0));
	ASSERT_EQ(0, PEER_PUT(&self->b, 0, 9));
	EXPECT_EQ(9, vm_get(0));
}

/* What is dropped, or replaced, is gone for those who have it in use. */
TEST_F_TIMEOUT(kvm, content_goes_for_all_guests, SHORT_TIMEOUT)
{
	int i, advice = self->kind.flags & MAP_PRIVATE ? MADV_DONTNEED : MADV_REMOVE;
	int left = variant->kind == TMPFS_PRIVATE;

	NEED_KVM();
	MIRROR(4);
	ASSERT_EQ(0, PEER(&self->a, do_madvise, NULL, L(at(self->addr, pg(1))),
			  2 * page(), advice));
	for (i = 0; i < 4; i++) {
		int is = i == 0 || i == 3 ? 1000 + i :
			left ? kind_byte(&self->kind, i) * 0x01010101 : 0;

		EXPECT_EQ(is, vm_get(pg(i)));
		EXPECT_EQ(is, PEER_GET(&self->a, pg(i)));
		EXPECT_EQ(is, PEER_GET(&self->b, pg(i)));
	}
}

TEST_F_TIMEOUT(kvm, mprotect_reaches_all_guests, SHORT_TIMEOUT)
{
	NEED_KVM();
	MIRROR(3);
	ASSERT_EQ(0, PEER_PUT(&self->b, pg(1), 1001));
	ASSERT_EQ(0, vm_put(pg(1), 1001));
	ASSERT_OK(peer_mprotect(&self->a, at(self->addr, pg(1)), page(), PROT_READ));
	EXPECT_EQ(-EFAULT, vm_put(pg(1), 1));
	EXPECT_EQ(-EFAULT, PEER_PUT(&self->b, pg(1), 1));
	EXPECT_EQ(1001, vm_get(pg(1)));
	ASSERT_OK(peer_mprotect(&self->b, at(self->addr, pg(1)), page(), PROT_NONE));
	EXPECT_EQ(-EFAULT, vm_get(pg(1)));
	EXPECT_EQ(-EFAULT, PEER_GET(&self->a, pg(1)));
	EXPECT_EQ(1000, vm_get(0));
	EXPECT_EQ(1002, PEER_GET(&self->a, pg(2)));
	ASSERT_OK(mprotect(at(self->addr, pg(1)), page(), RW));
	EXPECT_EQ(1001, PEER_GET(&self->a, pg(1)));
	ASSERT_EQ(0, PEER_PUT(&self->a, pg(1), 2));
	EXPECT_EQ(2, vm_get(pg(1)));
}

/* A guest's memory is its process's, with its process's rights. */
TEST_F_TIMEOUT(kvm, the_guest_of_a_reader_only_reads, SHORT_TIMEOUT)
{
	struct peer c;
	int i;

	NEED_KVM();
	ASSERT_EQ(0, peer_start(&c));
	ASSERT_OK(peer_munmap(&c, self->addr, self->len));
	if (variant->early)
		ASSERT_EQ(0, PEER_OPEN(&c, self->addr, VM_SIZE));
	ASSERT_OK(PEER(&c, do_mshare, self->name, 0, 0, O_RDONLY, 0));
	if (!variant->early)
		ASSERT_EQ(0, PEER_OPEN(&c, self->addr, VM_SIZE));
	/* Also where the page is there, and writable for others. */
	for (i = 0; i < NR; i++) {
		if (i & 1)
			EXPECT_EQ(1000 + i, PEER_GET(&c, pg(i)));
		EXPECT_EQ(-EFAULT, PEER_PUT(&c, pg(i), 1));
		EXPECT_EQ(1000 + i, *word(self->addr, pg(i)));
	}
	*word(self->addr, 0) = 5;
	EXPECT_EQ(5, PEER_GET(&c, 0));
	ASSERT_OK(munmap(self->addr, page()));
	EXPECT_EQ(-EFAULT, PEER_GET(&c, 0));
	peer_stop(&c);
}

TEST_F_TIMEOUT(kvm, detaching_reaches_the_own_guest, SHORT_TIMEOUT)
{
	NEED_KVM();
	MIRROR(2);
	ASSERT_OK(peer_munmap(&self->a, self->addr, self->len));
	EXPECT_EQ(-EFAULT, PEER_GET(&self->a, 0));
	EXPECT_EQ(-EFAULT, PEER_PUT(&self->a, pg(1), 1));
	EXPECT_EQ(1001, vm_get(pg(1)));
	ASSERT_EQ(0, PEER_PUT(&self->b, 0, 4));
	EXPECT_EQ(4, vm_get(0));
	/* And it is told of nothing any more, but again when it is back. */
	ASSERT_OK(munmap(self->addr, page()));
	ASSERT_EQ(self->addr, map_anon(self->addr, page(), MAP_PRIVATE));
	ASSERT_OK(peer_attach(&self->a, self->name));
	EXPECT_EQ(0, PEER_GET(&self->a, 0));
	ASSERT_OK(munmap(self->addr, page()));
	EXPECT_EQ(-EFAULT, PEER_GET(&self->a, 0));
}

/* What a guest has written last goes to swap, and comes back. */
TEST_F_TIMEOUT(kvm, what_guests_write_is_swapped, SHORT_TIMEOUT)
{
	struct zram zram = { .id = -1 };
	int i, round, gone = 0;
	const char *why;

	NEED_KVM();
	why = zram_swapon(&zram, 64 * MB);
	if (why) {
		zram_end(&zram);
		SKIP(return, "%s", why);
	}
	for (round = 1; round <= 3; round++) {
		for (i = 0; i < NR; i++)
			EXPECT_EQ(0, PEER_PUT(i & 1 ? &self->a : &self->b, pg(i),
					      round * 100 + i));
		empty_lru_batches();
		EXPECT_EQ(0, PEER(&self->b, do_madvise, NULL, L(self->addr),
				  NR * page(), MADV_PAGEOUT));
		for (i = 0; i < NR; i++) {
			gone += !pfn_of(at(self->addr, pg(i)));
			EXPECT_EQ(round * 100 + i, i & 2 ? vm_get(pg(i)) :
				  *word(self->addr, pg(i)));
			EXPECT_EQ(round * 100 + i, PEER_GET(&self->a, pg(i)));
		}
	}
	EXPECT_LT(NR, gone);
	munmap(self->addr, NR * page());
	zram_end(&zram);
}

/* A page of a huge page is protected: the guests have a huge page, too. */
TEST_F_TIMEOUT(kvm, huge_pages_are_split_for_all_guests, SHORT_TIMEOUT)
{
	void *huge = at(self->addr, 2 * MB);
	unsigned long off;
	long before;

	NEED_KVM();
	ONLY_ANON();
	if (write_file(THP_ENABLED, "always"))
		SKIP(return, "no THP");
	before = meminfo("AnonHugePages");
	ASSERT_EQ(huge, map_anon(huge, 2 * MB, MAP_PRIVATE));
	for (off = 0; off < 2 * MB; off += page())
		*word(huge, off) = 1 + off / page();
	if (meminfo("AnonHugePages") != before + 2048)
		SKIP(return, "no huge page to be had");
	EXPECT_EQ(0, vm_touch(2 * MB, 512));
	EXPECT_EQ(512, PEER_GET(&self->a, 4 * MB - page()));
	ASSERT_EQ(0, PEER_PUT(&self->b, 3 * MB, 7));
	EXPECT_EQ(7, vm_get(3 * MB));
	ASSERT_OK(peer_mprotect(&self->a, at(huge, MB), page(), PROT_NONE));
	EXPECT_EQ(-EFAULT, vm_get(3 * MB));
	EXPECT_EQ(-EFAULT, PEER_GET(&self->b, 3 * MB));
	EXPECT_EQ(256, vm_get(3 * MB - page()));
	EXPECT_EQ(258, PEER_GET(&self->b, 3 * MB + page()));
	/* And all of it at once. */
	ASSERT_EQ(0, PEER(&self->b, do_madvise, NULL, L(huge), 2 * MB,
			  MADV_DONTNEED));
	EXPECT_EQ(0, vm_get(2 * MB));
	EXPECT_EQ(0, PEER_GET(&self->a, 4 * MB - page()));
}

/* Use by guests. */

/* 1 or 0, as /sys/kernel/mm/page_idle/bitmap has it after looking; or -1. */
static int idle(int fd, long pfn)
{
	unsigned long bits;

	if (pread(fd, &bits, 8, pfn / 64 * 8) != 8)
		return -1;
	return bits >> pfn % 64 & 1;
}

static bool make_idle(int fd, long pfn)
{
	unsigned long bits = 1UL << pfn % 64;

	return pwrite(fd, &bits, 8, pfn / 64 * 8) == 8;
}

/*
 * Whether a guest's second use of a page shows outside of regions: a processor that
 * has the translation still need not look at page tables.
 */
static long do_use_own(const struct request *rq)
{
	int fd = open("/sys/kernel/mm/page_idle/bitmap", O_RDWR | O_CLOEXEC);
	long pfn, seen = 0, i;
	void *own = slot(8);

	if (map_anon(own, page(), MAP_PRIVATE) != own || vm_open(own, page()))
		return -1;
	*word(own, 0) = 1;
	for (i = 0; i < 4; i++) {
		vm_get(0);
		pfn = pfn_of(own);
		empty_lru_batches();
		make_idle(fd, pfn);
		vm_get(0);
		seen += !idle(fd, pfn);
	}
	vm_close();
	munmap(own, page());
	close(fd);
	return seen;
}

/* A page that nobody has used but a guest has been used. */
TEST_F_TIMEOUT(kvm, use_by_a_guest_is_use, SHORT_TIMEOUT)
{
	long pfn[NR], seen;
	struct peer c = {};
	int fd, i;

	NEED_KVM();
	fd = open("/sys/kernel/mm/page_idle/bitmap", O_RDWR | O_CLOEXEC);
	if (fd < 0)
		SKIP(return, "no /sys/kernel/mm/page_idle/bitmap");
	ASSERT_EQ(0, peer_start(&c));
	seen = PEER(&c, do_use_own, NULL, 0);
	peer_stop(&c);
	if (seen != 4)
		SKIP(close(fd); return, "a guest's use is not seen outside of regions: %ld of 4",
		     seen);
	for (i = 0; i < NR; i++) {
		ASSERT_EQ(1000 + i, PEER_GET(&self->a, pg(i)));
		ASSERT_EQ(1000 + i, vm_get(pg(i)));
		pfn[i] = pfn_of(at(self->addr, pg(i)));
		ASSERT_NE(0, pfn[i]);
	}
	empty_lru_batches();
	for (i = 0; i < NR; i++) {
		ASSERT_TRUE(make_idle(fd, pfn[i]));
		EXPECT_EQ(1, idle(fd, pfn[i]));
	}
	for (i = 0; i < NR; i += 2)
		ASSERT_EQ(1000 + i, i & 2 ? vm_get(pg(i)) : PEER_GET(&self->a, pg(i)));
	for (i = 0; i < NR; i++) {
		EXPECT_EQ(i & 1, idle(fd, pfn[i])) {
			TH_LOG("page %d", i);
		}
	}
	for (i = 0; i < NR; i++)
		EXPECT_EQ(pfn[i], pfn_of(at(self->addr, pg(i))));
	close(fd);
}

/* khugepaged makes huge pages of memory that is used, be it by a guest alone. */

#define KHP	"/sys/kernel/mm/transparent_hugepage/khugepaged/"

#ifndef MADV_COLD
#define MADV_COLD	20
#endif

static long full_scans(void)
{
	char buf[32];

	return read_file(KHP "full_scans", buf, sizeof(buf)) < 0 ? -1 : atol(buf);
}

/* Of the second huge page's worth of what the machine has at @base. */
static void made_huge_when_used(struct __test_metadata *_metadata, void *base)
{
	long before = meminfo("AnonHugePages"), scans;
	void *huge = at(base, 2 * MB);
	unsigned long off;

	ASSERT_EQ(huge, map_anon(huge, 2 * MB, MAP_PRIVATE));
	ASSERT_OK(madvise(huge, 2 * MB, MADV_NOHUGEPAGE));
	for (off = 0; off < 2 * MB; off += page())
		*word(huge, off) = 1 + off / page();
	/* Used by nobody for long, so far as page tables say */
	ASSERT_OK(madvise(huge, 2 * MB, MADV_COLD));
	ASSERT_OK(madvise(huge, 2 * MB, MADV_HUGEPAGE));
	scans = full_scans();
	EXPECT_TRUE(WAIT_FOR(full_scans() >= scans + 3, 20));
	EXPECT_EQ(before, meminfo("AnonHugePages"));
	/* The advice leaves alone what the guest has in its page tables. */
	ASSERT_OK(madvise(huge, 2 * MB, MADV_NOHUGEPAGE));
	EXPECT_EQ(0, vm_touch(2 * MB, 512));
	ASSERT_OK(madvise(huge, 2 * MB, MADV_COLD));
	ASSERT_OK(madvise(huge, 2 * MB, MADV_HUGEPAGE));
	EXPECT_TRUE(WAIT_FOR(meminfo("AnonHugePages") == before + 2048, 20));
	EXPECT_EQ(257, vm_get(3 * MB));
	ASSERT_OK(munmap(huge, 2 * MB));
}

TEST_F_TIMEOUT(kvm, khugepaged_sees_what_a_guest_uses, SHORT_TIMEOUT)
{
	struct setting thp, nap, alloc_nap, scan;

	NEED_KVM();
	ONLY_ANON();
	if (setting_set(&thp, THP_ENABLED, "madvise"))
		SKIP(return, "no THP");
	setting_set(&nap, KHP "scan_sleep_millisecs", "10");
	setting_set(&alloc_nap, KHP "alloc_sleep_millisecs", "10");
	setting_set(&scan, KHP "pages_to_scan", "4096");
	made_huge_when_used(_metadata, self->addr);
	/* As outside of a region */
	vm_close();
	ASSERT_EQ(0, vm_open(slot(8), VM_SIZE));
	made_huge_when_used(_metadata, slot(8));
	setting_restore(&scan);
	setting_restore(&alloc_nap);
	setting_restore(&nap);
	setting_restore(&thp);
}

/* Reclaim spares what only a guest uses. */

static size_t all(void)
{
	return debug_kernel() ? 4 * MB : 16 * MB;
}

static size_t hot(void)
{
	return all() / 4;
}

struct hotness {
	long hot, cold;		/* major faults when touched again */
};

static long do_fill(const struct request *rq)
{
	size_t off;

	if (map_anon((void *)rq->a[0], all(), MAP_PRIVATE) == MAP_FAILED)
		return -errno;
	for (off = 0; off < all(); off += page())
		*word((void *)rq->a[0], off) = 1;
	return vm_open((void *)rq->a[0], all());
}

static long do_vm_touch(const struct request *rq)
{
	long i, err;

	for (i = 0; i < rq->a[2]; i++) {
		err = vm_touch(rq->a[0], rq->a[1] / page());
		if (err)
			return err;
	}
	return 0;
}

static long do_touch(const struct request *rq)
{
	long before = majflt(), i;

	for (i = 0; i < rq->a[1]; i += page())
		try_read((void *)(rq->a[0] + i));
	return majflt() - before;
}

static struct hotness reclaim_half(struct peer *p, const char *cg, void *addr)
{
	struct hotness h = { -1, -1 };
	char eighth[32];
	int i;

	snprintf(eighth, sizeof(eighth), "%zu", all() / 8);
	if (PEER(p, do_fill, NULL, L(addr)))
		return h;
	for (i = 0; i < 4; i++) {
		if (PEER(p, do_vm_touch, NULL, 0, hot(), 4))
			return h;
		cg_write(cg, "memory.reclaim", eighth);
	}
	h.hot = PEER(p, do_touch, NULL, L(addr), hot());
	h.cold = PEER(p, do_touch, NULL, L(at(addr, hot())), all() - hot());
	PEER(p, do_vm_close, NULL, 0);
	return h;
}

static void compare_hotness(struct __test_metadata *_metadata,
			    FIXTURE_DATA(kvm) *self, const char *lru_gen)
{
	struct zram zram = { .id = -1 };
	struct hotness own, region;
	const char *why, *name;
	struct setting lru;
	struct peer c;
	char cg[64];

	if (!cg_memory())
		SKIP(return, "no cgroup v2 memory controller");
	if (setting_set(&lru, "/sys/kernel/mm/lru_gen/enabled", lru_gen))
		SKIP(return, "no multi-generational LRU");
	why = zram_swapon(&zram, 64 * MB);
	if (why)
		SKIP(goto out, "%s", why);
	snprintf(cg, sizeof(cg), "mshare-%d-kvm", getpid());
	name = new_name();
	EXPECT_EQ(0, cg_make(cg));
	EXPECT_EQ(0, peer_start(&c));
	EXPECT_EQ(0, PEER(&c, do_cg_enter, cg, 0));
	own = reclaim_half(&c, cg, slot(8));
	EXPECT_EQ(0, peer_munmap(&c, slot(8), all()));
	EXPECT_EQ(0, peer_create(&c, name, slot(4), granule()));
	region = reclaim_half(&c, cg, slot(4));
	peer_stop(&c);
	unlink(path_of(name));
	cg_remove(cg);
	TH_LOG("major faults, hot and cold: %ld and %ld outside, %ld and %ld in a region",
	       own.hot, own.cold, region.hot, region.cold);
	EXPECT_LT(0, region.cold);
	/* A quarter of the pages are hot: a third as many would be blind luck. */
	if (own.hot * 6 > own.cold)
		SKIP(goto out, "reclaim does not tell hot from cold here");
	EXPECT_LE(region.hot * 6, region.cold);
out:
	setting_restore(&lru);
	zram_end(&zram);
}

TEST_F_TIMEOUT(kvm, reclaim_spares_what_a_guest_uses, LONG_TIMEOUT)
{
	NEED_KVM();
	ONLY_ANON();
	IN_ONE_WAY(variant->early);
	compare_hotness(_metadata, self, "7");
}

TEST_F_TIMEOUT(kvm, reclaim_without_generations_spares_it_too, LONG_TIMEOUT)
{
	NEED_KVM();
	ONLY_ANON();
	IN_ONE_WAY(!variant->early);
	compare_hotness(_metadata, self, "0");
}

/*
 * Races, as those of mshare_hmm: a guest must not see what a page had for
 * whoever got it next.
 */

/* @how: 0 a new machine each time, 1 detach and attach, 2 both, 3 neither */
static long do_look(const struct request *rq)
{
	void *addr = (void *)rq->a[0];
	int i, j, how = rq->a[2];
	long val;

	for (i = 0; i < rq->a[1]; i++) {
		if (how == 1 || how == 2) {
			munmap(addr, granule());
			if (mshare(rq->s, 0, 0, O_RDWR, 0))
				return -errno;
		}
		if (how == 0 || how == 2) {
			vm_close();
			val = vm_open(addr, VM_SIZE);
			if (val)
				return val;
		}
		for (j = 0; j < NR; j++) {
			/* Old, new, none. */
			val = vm_get(pg(j));
			if (val != 1000 + j && val && val != -EFAULT)
				return val ? : -1;
		}
	}
	return 0;
}

TEST_F_TIMEOUT(kvm, races, LONG_TIMEOUT)
{
	struct peer c;
	/* Not more: emulated processors do not stand it, see vm_is_lost() */
	long n = scaled(10);
	int how;

	NEED_KVM();
	ONLY_ANON();
	IN_ONE_WAY(!variant->early);
	ASSERT_EQ(0, peer_start(&c));
	ASSERT_EQ(0, PEER_OPEN(&c, self->addr, VM_SIZE));
	for (how = 0; how < 4; how++) {
		PEER_SEND(&self->a, do_change_mirrored, NULL, L(self->addr), 2 * n);
		PEER_SEND(&self->b, do_look, self->name, L(self->addr), n, how);
		PEER_SEND(&c, do_look, self->name, L(self->addr), n, (how + 1) % 4);
		EXPECT_EQ(0, peer_wait(&self->b));
		EXPECT_EQ(0, peer_wait(&c));
		EXPECT_EQ(0, peer_wait(&self->a));
	}
	peer_stop(&c);
	EXPECT_EQ(1001, vm_get(pg(1)));
}

/* A machine beside that which is there, for a moment. */
static long do_vm_again(const struct request *rq)
{
	int i, kvm, more;

	kvm = open("/dev/kvm", O_RDWR | O_CLOEXEC);
	for (i = 0; i < rq->a[0]; i++) {
		more = ioctl(kvm, KVM_CREATE_VM, 0);
		if (more < 0)
			return -errno;
		usleep(1000);
		close(more);
	}
	close(kvm);
	return vm_get(rq->a[1]);
}

/*
 * A subscriber is told of beginnings and ends in pairs, whenever it came: KVM
 * complains of an end without a beginning, and waits for an end that never is.
 */
TEST_F_TIMEOUT(kvm, one_more_machine_while_the_region_changes, LONG_TIMEOUT)
{
	void *big = at(self->addr, GB);
	long n = scaled(100);

	NEED_KVM();
	ONLY_ANON();
	IN_ONE_WAY(!variant->early);
	ASSERT_EQ(big, mmap(big, 8 * MB, RW, MAP_FIXED | MAP_PRIVATE |
			    MAP_ANONYMOUS | MAP_POPULATE, -1, 0));
	PEER_SEND(&self->b, do_toggle, NULL, L(big), 8 * MB, 10 * n);
	EXPECT_EQ(1001, PEER(&self->a, do_vm_again, NULL, n, pg(1)));
	EXPECT_EQ(1000, vm_get(0));
	EXPECT_EQ(0, peer_wait(&self->b));
	EXPECT_EQ(1002, PEER_GET(&self->a, pg(2)));
}

MSHARE_TEST_MAIN
