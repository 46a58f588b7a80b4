// SPDX-License-Identifier: GPL-2.0
/*
 * The model: memory calls in a region act as they do between the threads of
 * one process. So here the same random sequence of calls is made, in lockstep,
 * by the threads of a process on plain memory (T) and by processes that are
 * attached to a region (R), at the same offsets in a window of each. Every step
 * is done by an actor that is chosen at random, and looked at by another: the
 * results, what is resident, what the pages contain and what may be done with
 * them have to be the same on both sides.
 *
 * In every fourth round R begins as a process on plain memory, too. Somewhere on
 * the way that is made a region, content and all, and the others attach.
 *
 * In most rounds some of R have the region at other addresses, or not all of it,
 * each at its own.
 *
 * The threads are the model. So what a step is made of comes from the seed and
 * from what is mapped in T, and whatever R has free to choose, it chooses
 * first, and T is told to do the same after it was seen that it may.
 *
 * A disagreement is reported with the call, what differed, the steps that led
 * to it and the command that does it again.
 *
 * What is known to differ, and how it is dealt with:
 *
 * - Access where nothing is mapped is SIGBUS, BUS_ADRERR in a region, and
 *   SIGSEGV, SEGV_MAPERR between threads. Taken for the same. mincore() tells it
 *   from an access beyond the end of a file, which is SIGBUS for both.
 * - Where a mapping is placed without MAP_FIXED: a region has its own policy and
 *   its own edges. R chooses; the place must be free in T, it must be the hint if
 *   that is free, and there may be no room only if T has none in the window.
 * - PROT_EXEC alone is execute-only between threads where there are protection
 *   keys, and never in a region. Not used.
 * - MAP_GROWSDOWN, device files, secretmem, mseal(), shmat(), userfaultfd,
 *   map_shadow_stack(): refused in regions. Not used.
 * - MADV_DONTFORK, MADV_DOFORK, MADV_DONTDUMP, MADV_DODUMP: the caller's own, so
 *   EINVAL on a part of an attachment. Not used; nor are MADV_WIPEONFORK and
 *   MADV_KEEPONFORK, as a region is not copied by fork().
 * - Ranges that cross an edge of a region: EINVAL. Not used, and neither are
 *   lengths that exceed the address space. Those that wrap around are used, but
 *   for mremap(): it looks at the mapping before the length, and so says EFAULT
 *   where it is EINVAL in a region.
 * - mlockall(), migrate_pages(): leave regions alone. Not used.
 * - fork() copies private memory between threads and attaches in a region. A
 *   child that only looks is a child on both sides. One that writes is a thread
 *   in T, which is what attaching amounts to.
 * - After MADV_FREE a page may have lost its content at any time, on one side
 *   only. Such pages are marked, and may be zero. Before one is written to, the
 *   sides are made equal.
 * - After MADV_PAGEOUT of clean pages of files, shared memory among them, which of
 *   them are resident depends on what the processors have queued. mincore() is
 *   not compared for these from then on. So only every second round has it.
 *   Without swap nothing else goes that MADV_PAGEOUT is told of.
 * - When MADV_COLLAPSE finds pages in somebody else's hands (EAGAIN, EBUSY) it is
 *   done again on both sides.
 * - When there is no memory for a huge page then one side may get one and the
 *   other not. From the first time that the kernel counts such a failure,
 *   mincore() and the result of MADV_COLLAPSE are not compared any more in a
 *   round; it says so.
 * - khugepaged and KSM work when they want. They are told to wait.
 * - A huge page that is split leaves what it has of zeroes to the zero page, of
 *   which move_pages() says EFAULT; but whether it can be split depends on who
 *   holds it, be it the batch of some CPU. Nodes and EFAULT are taken for one.
 *
 * Probing changes nothing that the two sides do not change in the same way: a
 * read fills in a page; a write is "lock orb $0"; what is executed is an
 * instruction made of zeroes, which 16 bytes near the end of every page of
 * memory and of every file always are.
 */
#include "mshare_env.h"
#include <getopt.h>
#include <sys/ioctl.h>
#include <sys/uio.h>
#include <ucontext.h>
#include <linux/futex.h>

/* <linux/fs.h> does not go together with <sys/mount.h>. */
struct procmap {
	__u64 size;
	__u64 query_flags;
	__u64 query_addr;
	__u64 start;
	__u64 end;
	__u64 flags;
	__u64 page_size;
	__u64 offset;
	__u64 inode;
	__u32 dev_major;
	__u32 dev_minor;
	__u32 name_size;
	__u32 build_id_size;
	__u64 name_addr;
	__u64 build_id_addr;
};
#define PROCMAP		_IOWR('f', 17, struct procmap)
#define PROCMAP_NEXT	0x10	/* the mapping at the address or after it */
#define VMA_R		0x01
#define VMA_W		0x02
#define VMA_X		0x04
#define VMA_SHARED	0x08

#ifndef MADV_COLD
#define MADV_COLD		20
#endif
#ifndef MADV_PAGEOUT
#define MADV_PAGEOUT		21
#endif
#ifndef MADV_POPULATE_READ
#define MADV_POPULATE_READ	22
#define MADV_POPULATE_WRITE	23
#endif
#ifndef MADV_DONTNEED_LOCKED
#define MADV_DONTNEED_LOCKED	24
#endif
#ifndef MADV_COLLAPSE
#define MADV_COLLAPSE		25
#endif
#ifndef MREMAP_DONTUNMAP
#define MREMAP_DONTUNMAP	4
#endif
#ifndef PR_SET_VMA
#define PR_SET_VMA		0x53564d41
#define PR_SET_VMA_ANON_NAME	0
#endif
#ifndef MLOCK_ONFAULT
#define MLOCK_ONFAULT		1
#endif
#ifndef FALLOC_FL_KEEP_SIZE
#define FALLOC_FL_KEEP_SIZE	1
#define FALLOC_FL_PUNCH_HOLE	2
#endif
#ifndef __NR_set_mempolicy_home_node
#define __NR_set_mempolicy_home_node 450
#endif

#define PG		4096UL
#define HP		512		/* pages in a huge page */
#define WPAGES		(8UL * HP)	/* of the window */
#define WSIZE		(WPAGES * PG)
#define FILE_PAGES	(2UL * HP)	/* of a file at most */
#define MAX_ACTORS	8
#define HISTORY		20
#define FULL_EVERY	64
#define ZERO_AT		0xff0		/* of each page: always zero from here */
#define SIDES		2
#define T		0
#define R		1

static const char side_name[SIDES] = { 'T', 'R' };

/* What the pages of both sides may come from; every side has its own files. */
enum { ANON, MEMFD_FILE, TMPFS_FILE, PLAIN_FILE, EXT4_FILE, NR_KINDS };

static const char * const kind_names[NR_KINDS] = {
	"anon", "memfd", "tmpfs", "plain", "ext4"
};

enum opcode {
	OP_NONE, OP_MMAP, OP_MUNMAP, OP_MPROTECT, OP_PKEY_MPROTECT, OP_MREMAP,
	OP_MADVISE, OP_PROCESS_MADVISE, OP_MLOCK, OP_MLOCK2, OP_MUNLOCK,
	OP_MSYNC, OP_MINCORE, OP_MBIND, OP_GET_MEMPOLICY, OP_HOME_NODE,
	OP_MOVE_PAGES, OP_REMAP_FILE_PAGES, OP_ANON_NAME, OP_STORE, OP_READ,
	OP_WRITE, OP_FTRUNCATE, OP_PUNCH, OP_FORK, OP_CHILD, NR_OPS,
	/* not of the sequence */
	OP_ZERO = NR_OPS, OP_START, OP_CHECK, OP_QUIT
};

/* How an actor starts: on plain memory, in a region, by making one of it */
enum { START_PLAIN, START_REGION, START_ADOPT };

/* A call; what of it is used depends on the call. Offsets are in the window. */
struct op {
	int code;
	int kind;
	int ro;			/* use the read-only descriptor */
	int prot;
	int flags;
	int arg;
	__u64 off, len;
	__u64 off2, len2;
	__u64 seed;
};

struct outcome {
	long ret;
	int err;
	__u64 aux;		/* what else came out of it */
};

/* What to look at in a page, and what was seen. */
#define LOOK_R	1
#define LOOK_W	2
#define LOOK_X	4

struct look {
	__u32 page;
	__u32 what;
	__u64 hash;		/* of the content */
	int r, w, x;		/* 0 or FAULT() */
};

/* Pages that are all mapped in T, or none of them. */
struct part {
	unsigned int first, nr;
	bool mapped;
};

#define NOT_MAPPED	2	/* for mincore() */
#define NO_MINCORE	3
#define NOT_ASKED	4
#define BAD_ADDR	(1 << 20) /* added to a FAULT(): si_addr is not the address */

/*
 * The mailbox of an actor. Only one of the two sides, the controller and the
 * actor, uses it at a time: whose turn it is says @turn.
 */
struct box {
	_Atomic unsigned int turn;	/* 0: the controller's, 1: the actor's */
	_Atomic unsigned int asleep[2];	/* who waits for turn to be not 0, not 1 */
	struct op op;
	struct outcome out;
	char *win;			/* the actor's window */
	char death[128];
	unsigned int vec_start, vec_nr;	/* pages that mincore() is to tell of */
	unsigned int nr_parts;
	struct part parts[WPAGES];	/* the same, by what is mapped in T */
	unsigned char vec[WPAGES];
	unsigned int nr_looks;
	struct look looks[WPAGES];
} __attribute__((aligned(4096)));

static struct box *boxes;		/* [SIDES][MAX_ACTORS], shared by all */
#define BOX(side, i)	(&boxes[(side) * MAX_ACTORS + (i)])

/* Options */
static unsigned int nr_actors = 3;
static bool verbose, go_on, allow_unsupported;
static bool can_adopt;		/* a region can be made of memory */
static bool adopting;		/* it is in this round */
static unsigned long adopt_at;
static bool spread;		/* the actors are on different processors */
static unsigned int actors_now;	/* of R, so far */
static bool plain;		/* R is on plain memory, so far */
static unsigned int round_seed;
static bool at_home;			/* everyone uses the region's addresses */
static bool no_pageout;			/* MADV_PAGEOUT is not to be used */
static bool both_threads;	/* R is threads, too: tests the test */
static bool op_off[NR_OPS];

/* Known to everyone */
static int fds[SIDES][NR_KINDS][2];	/* for reading and writing; for reading */
static pid_t *pids[SIDES];		/* by actor, shared by all */
static char *base;			/* of the region, at home and for T */
static unsigned long win_off;		/* of the window in the region */
static const char *region_name;
static int pkeys[2] = { -1, -1 };

/*
 * The actors
 */

static int my_side;
static __thread struct box *me;
static __thread unsigned int my_nr;
static __thread char *win;		/* this actor's window */
static __u64 exec_scratch[8];

#define PROBE_MAGIC	0x6d73686172656d6fUL

/*
 * Probes are written so that the handler knows them by R9 and goes on at R8,
 * with RAX saying what happened. So the signal returns as signals do, and with
 * it the rights by protection keys come back, which the kernel resets for the
 * handler.
 */
static void model_handler(int sig, siginfo_t *si, void *ctx)
{
	greg_t *regs = ((ucontext_t *)ctx)->uc_mcontext.gregs;
	long code = FAULT(sig, si->si_code & 0xff);

	if (regs[REG_R9] != (greg_t)PROBE_MAGIC) {
		if (me) {
			snprintf(me->death, sizeof(me->death),
				 "signal %d, code %d, address %p at %p", sig,
				 si->si_code, si->si_addr, (void *)regs[REG_RIP]);
		}
		signal(sig, SIG_DFL);
		return;
	}
	if (sig == SIGTRAP) {
		/* After the jump; the next one is after the instruction */
		if (regs[REG_RIP] == regs[REG_RCX])
			return;
		code = 0;
	} else if (si->si_addr != (void *)regs[REG_RCX]) {
		code -= BAD_ADDR;
	}
	regs[REG_RAX] = code;
	regs[REG_RIP] = regs[REG_R8];
	regs[REG_EFL] &= ~0x100UL;	/* no more single steps */
}

static __attribute__((noinline)) int probe_read(const char *p)
{
	long ret = 0;

	asm volatile("leaq 1f(%%rip), %%r8\n\t"
		     "movq %2, %%r9\n\t"
		     "movb (%%rcx), %%dl\n"
		     "1:\txorl %%r9d, %%r9d"
		     : "+a" (ret) : "c" (p), "i" (PROBE_MAGIC)
		     : "rdx", "r8", "r9", "memory");
	return ret;
}

static __attribute__((noinline)) int probe_or0(char *p)
{
	long ret = 0;

	asm volatile("leaq 1f(%%rip), %%r8\n\t"
		     "movq %2, %%r9\n\t"
		     "lock orb $0, (%%rcx)\n"
		     "1:\txorl %%r9d, %%r9d"
		     : "+a" (ret) : "c" (p), "i" (PROBE_MAGIC)
		     : "r8", "r9", "memory", "cc");
	return ret;
}

static __attribute__((noinline)) int probe_store(char *p, __u64 val)
{
	long ret = 0;

	asm volatile("leaq 1f(%%rip), %%r8\n\t"
		     "movq %3, %%r9\n\t"
		     "movq %2, (%%rcx)\n"
		     "1:\txorl %%r9d, %%r9d"
		     : "+a" (ret) : "c" (p), "d" (val), "i" (PROBE_MAGIC)
		     : "r8", "r9", "memory");
	return ret;
}

/* Executes one instruction at @p, which must be "add %al, (%rax)". */
static __attribute__((noinline)) int probe_exec(char *p)
{
	long ret = (long)exec_scratch;

	asm volatile("leaq 1f(%%rip), %%r8\n\t"
		     "movq %2, %%r9\n\t"
		     "movq %%rsp, %%r10\n\t"
		     "leaq -256(%%rsp), %%rsp\n\t"
		     "pushfq\n\t"
		     "orq $0x100, (%%rsp)\n\t"
		     "popfq\n\t"
		     "jmp *%%rcx\n"
		     "1:\tmovq %%r10, %%rsp\n\t"
		     "xorl %%r9d, %%r9d"
		     : "+a" (ret) : "c" (p), "i" (PROBE_MAGIC)
		     : "r8", "r9", "r10", "memory", "cc");
	return ret;
}

/* From the seed to a number that nothing else of the sequence depends on */
static __u64 mix(__u64 x)
{
	x += 0x9e3779b97f4a7c15UL;
	x = (x ^ x >> 30) * 0xbf58476d1ce4e5b9UL;
	x = (x ^ x >> 27) * 0x94d049bb133111ebUL;
	return x ^ x >> 31;
}

/*
 * A sum, and the sum of the sums so that it matters where something is: much
 * of the time goes here, and an emulator is fastest with few instructions.
 */
static __u64 hash_page(const char *p)
{
	typedef __u64 vec __attribute__((vector_size(16)));
	const vec *q = (const vec *)p;
	vec a = { 1, 2 }, b = { 3, 4 };
	unsigned int i;

	for (i = 0; i < PG / sizeof(*q); i += 2) {
		a += q[i];
		b += a;
		a += q[i + 1];
		b += a;
	}
	return mix(a[0] ^ mix(a[1] ^ mix(b[0] ^ mix(b[1]))));
}

/* One store in each page of the range, at an offset that the seed gives. */
static long store_pages(const struct op *op)
{
	unsigned long i, n = op->len / PG;
	long ret;

	for (i = 0; i < n; i++) {
		__u64 r = mix(op->seed + i);
		unsigned int at = r % (ZERO_AT - 8) & ~(r & 1 ? 0UL : 7UL);

		ret = probe_store(win + op->off + i * PG + at, mix(r));
		/* Where it stopped is part of the result. */
		if (ret) {
			me->out.aux = i;
			return ret;
		}
	}
	return 0;
}

static long zero_page(const struct op *op)
{
	unsigned int i;
	long ret = 0;

	for (i = 0; i < PG && !ret; i += 8)
		ret = probe_store(win + op->off + i, 0);
	return ret;
}

static void *child_thread(void *arg)
{
	struct box *box = arg;

	me = box;
	win = box->win;
	return (void *)store_pages(&box->op);
}

/* What is not mapped is one thing in a region and another outside. */
static int same_fault(int fault)
{
	return fault == (int)FAULT(SIGSEGV, SEGV_MAPERR) ?
		(int)FAULT(SIGBUS, BUS_ADRERR) : fault;
}

/* A child that writes; between threads, another thread. */
static long child_store(const struct op *op)
{
	int status;
	pthread_t thread;
	void *ret;
	pid_t pid;

	if (my_side == T || op->arg) {
		/* It inherits the rights by protection keys, as a child does. */
		errno = pthread_create(&thread, NULL, child_thread, me);
		if (errno)
			return -1;
		pthread_join(thread, &ret);
		return (long)ret;
	}
	/* In case it does not come to tell */
	me->out.ret = -1;
	pid = fork();
	if (pid < 0)
		return -1;
	if (!pid) {
		me->out.ret = store_pages(op);
		_exit(0);
	}
	if (waitpid(pid, &status, 0) != pid || status) {
		errno = ECHILD;
		return -1;
	}
	return me->out.ret;
}

/* A child that looks at a page. */
static long child_look(const struct op *op)
{
	char *p = win + op->off;
	int status;
	pid_t pid;

	/* What it filled in would be its own only in T. */
	probe_read(p);
	/* In case it does not come to tell */
	me->out.ret = -1;
	pid = fork();
	if (pid < 0)
		return -1;
	if (!pid) {
		me->out.ret = same_fault(probe_read(p));
		if (!me->out.ret)
			me->out.aux = hash_page(p);
		_exit(0);
	}
	if (waitpid(pid, &status, 0) != pid || status) {
		errno = ECHILD;
		return -1;
	}
	return me->out.ret;
}

static void look_vec(unsigned int first, unsigned int nr, unsigned char *vec)
{
	unsigned int i;

	if (!mincore(win + first * PG, nr * PG, vec)) {
		for (i = 0; i < nr; i++)
			vec[i] &= 1;
		return;
	}
	if (errno != ENOMEM) {
		memset(vec, errno == EOPNOTSUPP ? NO_MINCORE : 0x80 | errno, nr);
	} else if (nr == 1) {
		*vec = NOT_MAPPED;
	} else {
		look_vec(first, nr / 2, vec);
		look_vec(first + nr / 2, nr - nr / 2, vec + nr / 2);
	}
}

static void check(void)
{
	unsigned int i;

	for (i = 0; i < me->nr_parts; i++) {
		const struct part *p = &me->parts[i];
		unsigned char *vec = me->vec + p->first - me->vec_start;

		if (p->mapped) {
			look_vec(p->first, p->nr, vec);
			continue;
		}
		/* It takes a call for each page to see that none is mapped. */
		memset(vec, NOT_ASKED, p->nr);
		look_vec(p->first, 1, vec);
		look_vec(p->first + p->nr - 1, 1, vec + p->nr - 1);
		look_vec(p->first + mix(p->first) % p->nr, 1,
			 vec + mix(p->first) % p->nr);
	}
	for (i = 0; i < me->nr_looks; i++) {
		struct look *l = &me->looks[i];
		char *p = win + l->page * PG;

		l->r = l->w = l->x = 0;
		l->hash = 0;
		if (l->what & LOOK_X)
			l->x = probe_exec(p + ZERO_AT);
		if (l->what & LOOK_W)
			l->w = probe_or0(p + l->page % ZERO_AT);
		if (l->what & LOOK_R) {
			l->r = probe_read(p);
			if (!l->r)
				l->hash = hash_page(p);
		}
	}
}

/* The result as an offset, if it is an address. */
static long rel(void *p)
{
	return p == MAP_FAILED ? -1 : (char *)p - win;
}

static long mempolicy(const struct op *op, char *addr)
{
	unsigned long mask[4] = {};
	int mode = -1;
	long ret;

	ret = syscall(__NR_get_mempolicy, &mode,
		      op->flags & 1 ? NULL : mask, 256UL, addr, op->flags);
	/* With flags 3, mode is the node that had room for the page. */
	if (!ret)
		me->out.aux = (op->flags & 1) ? 0 : (__u64)mode << 32 | mask[0];
	return ret;
}

static long move_pages_query(const struct op *op)
{
	void *pages[16];
	int status[16];
	unsigned int i, n = op->arg;
	__u64 h = 0;
	long ret;

	for (i = 0; i < n; i++) {
		pages[i] = win + op->off + i * op->len;
		status[i] = 1;
	}
	ret = syscall(__NR_move_pages, 0, (unsigned long)n, pages, NULL, status,
		      0);
	for (i = 0; i < n; i++)
		h = h << 4 | (status[i] >= 0 || status[i] == -EFAULT ?
			      0 : -status[i] & 15);
	me->out.aux = h;
	return ret;
}

static long process_advise(const struct op *op)
{
	pid_t pid = pids[my_side][op->arg];
	struct iovec iov = { BOX(my_side, op->arg)->win + op->off, op->len };
	int fd = syscall(__NR_pidfd_open, pid, 0);
	long ret;
	int err;

	if (fd < 0)
		return -1;
	ret = syscall(__NR_process_madvise, fd, &iov, 1UL, op->flags, 0);
	err = errno;
	close(fd);
	errno = err;
	return ret;
}

static long do_op(const struct op *op)
{
	static const char * const vma_names[] = { "one", "two", "a name", NULL };
	int (*f)[2] = fds[my_side];
	char *addr = win + op->off;
	unsigned long mask = op->arg >> 8;
	int fd = f[op->kind][op->ro];

	switch (op->code) {
	case OP_MMAP:
		return rel(mmap(addr, op->len, op->prot, op->flags, fd, op->off2));
	case OP_MUNMAP:
		return munmap(addr, op->len);
	case OP_MPROTECT:
		return mprotect(addr, op->len, op->prot);
	case OP_PKEY_MPROTECT:
		return syscall(__NR_pkey_mprotect, addr, op->len, op->prot,
			       op->arg);
	case OP_MREMAP:
		return rel((void *)syscall(__NR_mremap, addr, op->len, op->len2,
					   op->flags, win + op->off2));
	case OP_MADVISE:
		return madvise(addr, op->len, op->flags);
	case OP_PROCESS_MADVISE:
		return process_advise(op);
	case OP_MLOCK:
		return syscall(__NR_mlock, addr, op->len);
	case OP_MLOCK2:
		return syscall(__NR_mlock2, addr, op->len, op->flags);
	case OP_MUNLOCK:
		return syscall(__NR_munlock, addr, op->len);
	case OP_MSYNC:
		return msync(addr, op->len, op->flags);
	case OP_MINCORE:
		return mincore(addr, op->len, me->vec);
	case OP_MBIND:
		return syscall(__NR_mbind, addr, op->len, op->arg & 0xff,
			       &mask, 64UL, op->flags);
	case OP_GET_MEMPOLICY:
		return mempolicy(op, addr);
	case OP_HOME_NODE:
		return syscall(__NR_set_mempolicy_home_node, addr, op->len, 0UL,
			       (unsigned long)op->flags);
	case OP_MOVE_PAGES:
		return move_pages_query(op);
	case OP_REMAP_FILE_PAGES:
		return remap_file_pages(addr, op->len, op->prot, op->off2,
					op->flags);
	case OP_ANON_NAME:
		return prctl(PR_SET_VMA, PR_SET_VMA_ANON_NAME, addr, op->len,
			     vma_names[op->arg]);
	case OP_STORE:
		return same_fault(store_pages(op));
	case OP_ZERO:
		return zero_page(op);
	case OP_READ:
		return pread(fd, addr, op->len, op->off2);
	case OP_WRITE:
		return pwrite(fd, addr, op->len, op->off2);
	case OP_FTRUNCATE:
		return ftruncate(fd, op->len2);
	case OP_PUNCH:
		return fallocate(fd, FALLOC_FL_KEEP_SIZE | FALLOC_FL_PUNCH_HOLE,
				 op->off2, op->len2);
	case OP_FORK:
		return child_look(op);
	case OP_CHILD:
		return same_fault(child_store(op));
	}
	errno = ENOSYS;
	return -1;
}

/* Waits, but not for longer than @ms, until it is not @whose turn any more. */
static void wait_turn(struct box *box, unsigned int whose, long ms)
{
	struct timespec ts = { ms / 1000, ms % 1000 * 1000000 };
	unsigned int spins;

	for (spins = 0; spins < 100; spins++) {
		if (atomic_load(&box->turn) != whose)
			return;
		__builtin_ia32_pause();
	}
	/* Either the other one sees this or the futex has changed. */
	atomic_store(&box->asleep[whose], 1);
	syscall(__NR_futex, &box->turn, FUTEX_WAIT, whose, ms ? &ts : NULL, NULL,
		0);
	atomic_store(&box->asleep[whose], 0);
}

static void give_turn(struct box *box, unsigned int to)
{
	atomic_store(&box->turn, to);
	if (atomic_load(&box->asleep[!to]))
		syscall(__NR_futex, &box->turn, FUTEX_WAKE, 1, NULL, NULL, 0);
}

/* What the actors of both sides may do with memory of the two keys differs. */
static void set_pkeys(void)
{
	unsigned int pkru = 0, edx, i;

	if (pkeys[0] < 0)
		return;
	asm volatile("rdpkru" : "=a" (pkru), "=d" (edx) : "c" (0));
	for (i = 0; i < 2; i++) {
		unsigned int rights = (my_nr + i) % 3;

		if (pkeys[i] < 0)
			continue;
		/* all, no writes, nothing */
		rights = rights == 2 ? 3 : rights == 1 ? 2 : 0;
		pkru &= ~(3U << 2 * pkeys[i]);
		pkru |= rights << 2 * pkeys[i];
	}
	asm volatile("wrpkru" : : "a" (pkru), "d" (0), "c" (0));
}

/*
 * The region has a granule more on either side of the two that matter, which not
 * everyone attaches.
 */
static char *region_start(void)
{
	return base - granule();
}

static size_t region_size(void)
{
	return 4 * granule();
}

/*
 * First come the mappings that leave nothing free in the region but the window:
 * so whatever is placed is placed there.
 */
static int fill_around(void)
{
	char *end = region_start() + region_size();
	char *w = base + win_off;
	int flags = MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED | MAP_NORESERVE;

	if (mmap(region_start(), w - region_start(), PROT_NONE, flags, -1, 0) ==
	    MAP_FAILED)
		return -1;
	if (mmap(w + WSIZE, end - w - WSIZE, PROT_NONE, flags, -1, 0) ==
	    MAP_FAILED)
		return -1;
	return 0;
}

/* How an actor is attached */
enum { AT_HOME, PART_AT_HOME, ALL_ABOVE, ALL_BELOW, PART_ABOVE, PART_BELOW,
       PART_ONE_OFF, NR_PLACES };

/* Attaches the region; returns where @base is then, or NULL. */
static char *attach_somewhere(int place)
{
	size_t g = granule();
	char *where = base;
	void *p;
	int fd;

	switch (place) {
	case AT_HOME:
		return mshare(region_name, NULL, 0, O_RDWR, 0) ? NULL : where;
	case PART_AT_HOME:
		return mshare(region_name, base, 2 * g, O_RDWR, 0) ? NULL : where;
	case ALL_ABOVE:
	case ALL_BELOW:
		where = place == ALL_ABOVE ? base + 8 * g : slot(0) - 8 * g;
		return mshare(region_name, where - g, 4 * g, O_RDWR, 0) ? NULL : where;
	case PART_ONE_OFF:
		where = base + g;
		break;
	default:
		where = place == PART_ABOVE ? base + 16 * g : slot(0) - 16 * g;
	}
	fd = open(path_of(region_name), O_RDWR | O_CLOEXEC);
	p = mmap(where, 2 * g, PROT_READ | PROT_WRITE | PROT_EXEC, MAP_SHARED, fd, g);
	close(fd);
	return p == MAP_FAILED ? NULL : where;
}

static long start_actor(int how)
{
	char *where = base;

	if (how != START_PLAIN) {
		if (!my_nr) {
			if (mshare(region_name, region_start(), region_size(),
				   O_RDWR | O_CREAT | O_EXCL, 0600))
				return -1;
		} else {
			where = attach_somewhere(at_home ? AT_HOME :
						 (int)(mix(round_seed * 8UL + my_nr) %
						 NR_PLACES));
			if (!where)
				return -1;
		}
	}
	win = where + win_off;
	me->out.aux = where != base;
	me->win = win;
	set_pkeys();
	return my_nr || how == START_ADOPT ? 0 : fill_around();
}

static void act(unsigned int nr)
{
	my_nr = nr;
	me = BOX(my_side, nr);
	if (spread)
		pin(nr % nr_cpus());
	for (;;) {
		while (!atomic_load(&me->turn))
			wait_turn(me, 0, 0);
		if (me->op.code == OP_QUIT)
			break;
		errno = 0;
		if (me->op.code == OP_CHECK) {
			check();
		} else if (me->op.code == OP_START) {
			me->out.ret = start_actor(me->op.arg);
			me->out.err = errno;
		} else {
			struct op op = me->op;

			me->out.aux = 0;
			me->out.ret = do_op(&op);
			me->out.err = me->out.ret == -1 ? errno : 0;
		}
		give_turn(me, 0);
	}
}

/*
 * The controller: random numbers, what is mapped in T, ranges
 */

static __u64 rng;

static __u64 rnd(__u64 n)
{
	rng += 0x9e3779b97f4a7c15UL;
	return mix(rng) % n;
}

static bool chance(unsigned int percent)
{
	return rnd(100) < percent;
}

static int pick_of(const int *list, unsigned int n)
{
	return list[rnd(n)];
}
#define PICK(...)							\
	pick_of((const int []){ __VA_ARGS__ },				\
		sizeof((const int []){ __VA_ARGS__ }) / sizeof(int))

static int t_maps = -1;

struct span {
	unsigned long first, end;	/* pages of the window */
	unsigned int flags;
	bool file;			/* of a file, if only of shmem */
};

/* The mapping of T at the page, or the next one in the window. */
static bool vma_from(unsigned long pg, struct span *s)
{
	char *w = base + win_off;
	struct procmap q = {
		.size = sizeof(q),
		.query_flags = PROCMAP_NEXT,
		.query_addr = (unsigned long)w + pg * PG,
	};

	if (pg >= WPAGES || ioctl(t_maps, PROCMAP, &q) ||
	    q.start >= (unsigned long)w + WSIZE)
		return false;
	s->first = q.start <= (unsigned long)w ? 0 :
		   (q.start - (unsigned long)w) / PG;
	s->end = (q.end - (unsigned long)w) / PG;
	if (s->end > WPAGES)
		s->end = WPAGES;
	s->flags = q.flags;
	s->file = q.inode;
	return true;
}

static bool t_free(unsigned long pg, unsigned long n)
{
	struct span s;

	return pg + n <= WPAGES && !(vma_from(pg, &s) && s.first < pg + n);
}

static unsigned long t_largest_gap(void)
{
	unsigned long pg = 0, gap = 0;
	struct span s;

	while (vma_from(pg, &s)) {
		if (s.first > pg && s.first - pg > gap)
			gap = s.first - pg;
		pg = s.end;
	}
	return WPAGES - pg > gap ? WPAGES - pg : gap;
}

static bool t_file(unsigned long pg)
{
	struct span s;

	return vma_from(pg, &s) && s.first <= pg && s.file;
}

static unsigned long pick_pages(void)
{
	unsigned int r = rnd(100);

	if (r < 45)
		return 1 + rnd(8);
	if (r < 75)
		return 1 + rnd(64);
	if (r < 95)
		return 1 + rnd(HP / 2);
	return HP * (1 + rnd(2));
}

/* How a range is to lie to what is mapped */
enum where { ANYWHERE, NEAR_VMA, IN_VMA };

static void pick_range(struct op *op, enum where where)
{
	unsigned long pg = rnd(WPAGES), n = pick_pages();
	struct span s;

	if (where != ANYWHERE && (vma_from(pg, &s) || vma_from(0, &s))) {
		unsigned long m = s.end - s.first;

		switch (where == IN_VMA ? rnd(6) : rnd(10)) {
		case 0:
		case 1:				/* all of it, or its begin */
			pg = s.first;
			if (chance(60) || n > m)
				n = m;
			break;
		case 2:				/* its end */
			n = n > m ? m : n;
			pg = s.end - n;
			break;
		case 3:
		case 4:
		case 5:				/* something of it */
			pg = s.first + rnd(m);
			if (n > s.end - pg)
				n = s.end - pg;
			break;
		case 6:
		case 7:				/* over its end */
			pg = s.end - 1 - rnd(m < 16 ? m : 16);
			break;
		default:			/* over its begin */
			pg = s.first - (s.first < 8 ? s.first : rnd(8));
		}
	}
	if (chance(12)) {
		pg -= pg % HP;
		n = (n + HP - 1) / HP * HP;
	}
	if (n > WPAGES - pg)
		n = WPAGES - pg;
	op->off = pg * PG;
	op->len = n * PG;
}

/* Arguments that no call likes, or not every call */
static void spoil(struct op *op)
{
	switch (rnd(6)) {
	case 0:
		op->off += 1 + rnd(PG - 1);
		if (op->off + op->len > WSIZE)
			op->len -= PG;
		break;
	case 1:
		op->len = 0;
		break;
	case 2:				/* wraps around */
		if (op->code != OP_MREMAP)
			op->len = -PG * (1 + rnd(3));
		break;
	case 3:				/* is 0 when rounded up */
		if (op->code != OP_MREMAP)
			op->len = -1UL - rnd(PG - 1);
		break;
	default:			/* some round it up */
		op->len -= rnd(PG);
	}
}

/* Whether the range of a call is an ordinary one. */
static bool proper(const struct op *op)
{
	return op->off < WSIZE && op->len <= WSIZE - op->off;
}

/*
 * The calls
 */

static int pick_prot(void)
{
	return PICK(PROT_NONE, PROT_READ, PROT_READ, PROT_READ | PROT_WRITE,
		    PROT_READ | PROT_WRITE, PROT_READ | PROT_WRITE,
		    PROT_READ | PROT_WRITE, PROT_WRITE, PROT_READ | PROT_EXEC,
		    PROT_READ | PROT_WRITE | PROT_EXEC);
}

static int pick_kind(bool file)
{
	int kind;

	do {
		kind = file ? 1 + rnd(NR_KINDS - 1) : rnd(NR_KINDS);
	} while (kind != ANON && fds[T][kind][0] < 0);
	return kind;
}

/* An offset in a file, in pages; most often in the part that has content. */
static __u64 pick_pgoff(void)
{
	switch (rnd(4)) {
	case 0:
		return 0;
	case 1:
		return HP;
	case 2:
		return rnd(FILE_PAGES);
	default:
		return rnd(64);
	}
}

static void gen_mmap(struct op *op)
{
	pick_range(op, chance(40) ? NEAR_VMA : ANYWHERE);
	op->kind = chance(40) ? ANON : pick_kind(false);
	op->prot = pick_prot();
	op->flags = chance(50) ? MAP_SHARED : MAP_PRIVATE;
	if (op->kind == ANON) {
		op->flags |= MAP_ANONYMOUS;
	} else {
		op->ro = chance(20);
		op->off2 = pick_pgoff() * PG;
		/* Where huge pages can be */
		if (chance(30))
			op->off2 = op->off % (HP * PG);
	}
	if (chance(20))
		op->flags |= MAP_FIXED_NOREPLACE;
	else if (chance(75))
		op->flags |= MAP_FIXED;
	if (chance(15))
		op->flags |= MAP_POPULATE;
	if (chance(10))
		op->flags |= MAP_NORESERVE;
	if (chance(4))
		op->flags |= MAP_LOCKED;
	if (chance(2))
		op->off2 += 1 + rnd(PG - 1);
	if (chance(1))
		op->flags &= ~MAP_TYPE;
}

static void gen_munmap(struct op *op)
{
	pick_range(op, NEAR_VMA);
}

static void gen_mprotect(struct op *op)
{
	pick_range(op, chance(70) ? IN_VMA : NEAR_VMA);
	op->prot = pick_prot();
	if (chance(1))
		op->prot |= 0x800;
}

static void gen_pkey_mprotect(struct op *op)
{
	gen_mprotect(op);
	op->arg = PICK(-1, -1, 0, 0, pkeys[0], pkeys[0], pkeys[1], pkeys[1], 15);
}

static void gen_mremap(struct op *op)
{
	unsigned long n;

	pick_range(op, chance(90) ? IN_VMA : NEAR_VMA);
	n = op->len / PG;
	switch (rnd(4)) {
	case 0:
		n += pick_pages();
		break;
	case 1:
		n = n > 1 ? 1 + rnd(n - 1) : 1;
		break;
	}
	op->flags = PICK(0, MREMAP_MAYMOVE, MREMAP_MAYMOVE,
			 MREMAP_MAYMOVE | MREMAP_FIXED,
			 MREMAP_MAYMOVE | MREMAP_FIXED,
			 MREMAP_MAYMOVE | MREMAP_DONTUNMAP,
			 MREMAP_MAYMOVE | MREMAP_FIXED | MREMAP_DONTUNMAP);
	if (op->flags & MREMAP_DONTUNMAP && chance(95))
		n = op->len / PG;
	if (chance(2))
		op->flags = PICK(MREMAP_FIXED, MREMAP_DONTUNMAP, 8);
	if (n > WPAGES)
		n = WPAGES;
	op->len2 = n * PG;
	if (op->flags & (MREMAP_FIXED | MREMAP_DONTUNMAP))
		op->off2 = rnd(WPAGES - n + 1) * PG;
	/* Without MAYMOVE it grows where it is, and not over the edge. */
	if (op->off + op->len2 > WSIZE && !(op->flags & MREMAP_MAYMOVE))
		op->len2 = WSIZE - op->off;
	if (op->flags & (MREMAP_FIXED | MREMAP_DONTUNMAP) && chance(20) &&
	    op->off2 % (HP * PG) != op->off % (HP * PG)) {
		/* moves whole page tables */
		op->off2 = op->off2 - op->off2 % (HP * PG) + op->off % (HP * PG);
		if (op->off2 + op->len2 > WSIZE)
			op->off2 = 0;
	}
	if (chance(2))
		op->len = 0;
	if (chance(1))
		op->off2 += 1 + rnd(PG - 1);
	if (chance(1))
		op->len2 = 0;
}

static int pick_advice(bool process)
{
	int advice;

	do {
		if (process)
			advice = PICK(MADV_COLD, MADV_PAGEOUT, MADV_WILLNEED,
				      MADV_COLLAPSE, MADV_DONTNEED);
		else
			advice = PICK(MADV_DONTNEED, MADV_DONTNEED, MADV_FREE,
				      MADV_FREE, MADV_REMOVE, MADV_COLD,
				      MADV_PAGEOUT, MADV_WILLNEED,
				      MADV_HUGEPAGE, MADV_NOHUGEPAGE,
				      MADV_COLLAPSE, MADV_MERGEABLE,
				      MADV_UNMERGEABLE, MADV_POPULATE_READ,
				      MADV_POPULATE_READ, MADV_POPULATE_WRITE,
				      MADV_POPULATE_WRITE, MADV_NORMAL,
				      MADV_RANDOM, MADV_SEQUENTIAL,
				      MADV_DONTNEED_LOCKED, 99);
	} while (advice == MADV_PAGEOUT && no_pageout);
	return advice;
}

static void gen_madvise(struct op *op)
{
	pick_range(op, chance(70) ? IN_VMA : NEAR_VMA);
	op->flags = pick_advice(false);
}

static void gen_process_madvise(struct op *op)
{
	pick_range(op, chance(70) ? IN_VMA : NEAR_VMA);
	op->flags = pick_advice(true);
	op->arg = rnd(actors_now);
}

static void gen_range(struct op *op)
{
	pick_range(op, chance(60) ? IN_VMA : NEAR_VMA);
}

static void gen_mlock2(struct op *op)
{
	gen_range(op);
	op->flags = PICK(0, MLOCK_ONFAULT, MLOCK_ONFAULT, 2);
}

static void gen_msync(struct op *op)
{
	gen_range(op);
	op->flags = PICK(MS_SYNC, MS_ASYNC, MS_INVALIDATE,
			 MS_SYNC | MS_INVALIDATE, MS_SYNC | MS_ASYNC, 8);
}

/* Modes and flags of <linux/mempolicy.h>, which is not everywhere. */
static void gen_mbind(struct op *op)
{
	int mode = rnd(7);	/* MPOL_DEFAULT to MPOL_WEIGHTED_INTERLEAVE */
	int nodes = mode == 0 || mode == 4 ? 0 : 1;

	gen_range(op);
	if (chance(5))
		nodes ^= PICK(1, 2);
	op->arg = nodes << 8 | mode;
	op->flags = PICK(0, 0, 1, 2, 3, 7, 8);	/* MPOL_MF_* */
}

static void gen_get_mempolicy(struct op *op)
{
	gen_range(op);
	op->len = PG;
	op->flags = PICK(2, 2, 3);	/* MPOL_F_ADDR, MPOL_F_NODE */
}

static void gen_home_node(struct op *op)
{
	gen_range(op);
	op->flags = PICK(0, 0, 0, 1);
}

static void gen_move_pages(struct op *op)
{
	gen_range(op);
	op->arg = 1 + rnd(16);
	op->len = PG * (op->len / PG / op->arg);
	if (op->off + op->arg * op->len > WSIZE)
		op->len = 0;
}

static void gen_remap_file_pages(struct op *op)
{
	pick_range(op, IN_VMA);
	op->off2 = pick_pgoff();
	op->flags = chance(10) ? MAP_NONBLOCK : 0;
	op->prot = chance(5) ? PROT_READ : 0;
}

static void gen_anon_name(struct op *op)
{
	gen_range(op);
	op->arg = rnd(4);
}

static void gen_store(struct op *op)
{
	pick_range(op, chance(90) ? IN_VMA : NEAR_VMA);
	if (op->len > 64 * PG && chance(90))
		op->len = PG * (1 + rnd(64));
}

static void gen_io(struct op *op)
{
	unsigned long at = 0;

	pick_range(op, chance(80) ? IN_VMA : NEAR_VMA);
	op->kind = pick_kind(true);
	op->off2 = pick_pgoff() * PG;
	if (op->len > 64 * PG)
		op->len = PG * (1 + rnd(64));
	if (op->off2 + op->len > FILE_PAGES * PG)
		op->off2 = 0;
	/*
	 * Bytes stay where they are in their page, or the zeroes would not. No
	 * file on a disk ends within a page: what is beyond its end would be
	 * cleared when it is written back, whenever that is.
	 */
	if (op->code == OP_READ ||
	    op->kind == MEMFD_FILE || op->kind == TMPFS_FILE) {
		at = rnd(PG);
		op->off += at;
		op->off2 += at;
		op->len -= at;
		if (chance(50))
			op->len -= rnd(op->len < PG ? op->len : PG);
	}
	op->ro = op->code == OP_READ ? chance(50) : chance(2);
}

static void gen_ftruncate(struct op *op)
{
	op->kind = pick_kind(true);
	op->len2 = rnd(FILE_PAGES + 1) * PG;
	if (chance(30))
		op->len2 = rnd(64) * PG;
	if (chance(30))
		op->len2 = FILE_PAGES * PG;
	if ((op->kind == MEMFD_FILE || op->kind == TMPFS_FILE) && op->len2 &&
	    chance(30))
		op->len2 -= rnd(PG);
}

static void gen_punch(struct op *op)
{
	op->kind = pick_kind(true);
	op->off2 = pick_pgoff() * PG;
	op->len2 = (1 + rnd(chance(50) ? 64 : HP)) * PG;
	if (chance(20)) {
		op->off2 += rnd(PG);
		op->len2 -= rnd(PG);
	}
}

static void gen_page(struct op *op)
{
	pick_range(op, IN_VMA);
	op->len = PG;
}

static const struct {
	const char *name;
	unsigned int weight;
	void (*gen)(struct op *op);
	unsigned int spoilt;		/* percent */
} ops[NR_OPS] = {
	[OP_MMAP] =		{ "mmap", 160, gen_mmap, 3 },
	[OP_MUNMAP] =		{ "munmap", 60, gen_munmap, 4 },
	[OP_MPROTECT] =		{ "mprotect", 90, gen_mprotect, 4 },
	[OP_PKEY_MPROTECT] =	{ "pkey_mprotect", 25, gen_pkey_mprotect, 3 },
	[OP_MREMAP] =		{ "mremap", 90, gen_mremap, 3 },
	[OP_MADVISE] =		{ "madvise", 160, gen_madvise, 4 },
	[OP_PROCESS_MADVISE] =	{ "process_madvise", 25, gen_process_madvise, 3 },
	[OP_MLOCK] =		{ "mlock", 15, gen_range, 4 },
	[OP_MLOCK2] =		{ "mlock2", 15, gen_mlock2, 4 },
	[OP_MUNLOCK] =		{ "munlock", 35, gen_range, 4 },
	[OP_MSYNC] =		{ "msync", 25, gen_msync, 4 },
	[OP_MINCORE] =		{ "mincore", 25, gen_range, 5 },
	[OP_MBIND] =		{ "mbind", 25, gen_mbind, 4 },
	[OP_GET_MEMPOLICY] =	{ "get_mempolicy", 25, gen_get_mempolicy, 0 },
	[OP_HOME_NODE] =	{ "set_mempolicy_home_node", 10, gen_home_node, 4 },
	[OP_MOVE_PAGES] =	{ "move_pages", 15, gen_move_pages, 0 },
	[OP_REMAP_FILE_PAGES] =	{ "remap_file_pages", 20, gen_remap_file_pages, 4 },
	[OP_ANON_NAME] =	{ "prctl", 15, gen_anon_name, 4 },
	[OP_STORE] =		{ "store", 160, gen_store, 0 },
	[OP_READ] =		{ "pread", 50, gen_io, 0 },
	[OP_WRITE] =		{ "pwrite", 50, gen_io, 0 },
	[OP_FTRUNCATE] =	{ "ftruncate", 20, gen_ftruncate, 0 },
	[OP_PUNCH] =		{ "fallocate", 20, gen_punch, 0 },
	[OP_FORK] =		{ "fork", 6, gen_page, 0 },
	[OP_CHILD] =		{ "child", 15, gen_store, 0 },
};

/*
 * What a call looks like
 */

struct word {
	long val;
	const char *name;
};
#define WORD(x)	{ x, #x }

static const struct word advices[] = {
	WORD(MADV_NORMAL), WORD(MADV_RANDOM), WORD(MADV_SEQUENTIAL),
	WORD(MADV_WILLNEED), WORD(MADV_DONTNEED), WORD(MADV_FREE),
	WORD(MADV_REMOVE), WORD(MADV_MERGEABLE), WORD(MADV_UNMERGEABLE),
	WORD(MADV_HUGEPAGE), WORD(MADV_NOHUGEPAGE), WORD(MADV_COLD),
	WORD(MADV_PAGEOUT), WORD(MADV_POPULATE_READ), WORD(MADV_POPULATE_WRITE),
	WORD(MADV_DONTNEED_LOCKED), WORD(MADV_COLLAPSE), { 0, NULL }
};

static const struct word prots[] = {
	WORD(PROT_READ), WORD(PROT_WRITE), WORD(PROT_EXEC), { 0, NULL }
};

static const struct word map_flags[] = {
	WORD(MAP_SHARED), WORD(MAP_PRIVATE), WORD(MAP_ANONYMOUS),
	WORD(MAP_FIXED), WORD(MAP_FIXED_NOREPLACE), WORD(MAP_POPULATE),
	WORD(MAP_NORESERVE), WORD(MAP_LOCKED), { 0, NULL }
};

static const struct word mremap_flags[] = {
	WORD(MREMAP_MAYMOVE), WORD(MREMAP_FIXED), WORD(MREMAP_DONTUNMAP),
	{ 0, NULL }
};

static const struct word msync_flags[] = {
	WORD(MS_ASYNC), WORD(MS_INVALIDATE), WORD(MS_SYNC), { 0, NULL }
};

static const char *word(long val, const struct word *w)
{
	static char buf[32];

	for (; w->name; w++)
		if (w->val == val)
			return w->name;
	snprintf(buf, sizeof(buf), "%ld", val);
	return buf;
}

static const char *bits(long val, const struct word *w, const char *none)
{
	static char buf[256];
	size_t n = 0;

	buf[0] = 0;
	for (; w->name; w++) {
		if (!(val & w->val))
			continue;
		n += snprintf(buf + n, sizeof(buf) - n, "%s%s", n ? "|" : "",
			      w->name);
		val &= ~w->val;
	}
	if (val)
		snprintf(buf + n, sizeof(buf) - n, "%s0x%lx", n ? "|" : "", val);
	return *buf ? buf : none;
}

/* W is the window. */
static const char *show(const struct op *op)
{
	static char buf[512];
	char range[64], prot[64];
	const char *name = ops[op->code].name;
	unsigned long off = op->off, len = op->len, off2 = op->off2;

	snprintf(prot, sizeof(prot), "%s", bits(op->prot, prots, "PROT_NONE"));
	snprintf(range, sizeof(range), "%s(W+0x%lx, 0x%lx", name, off, len);

#define SHOW(...) snprintf(buf, sizeof(buf), __VA_ARGS__)
	switch (op->code) {
	case OP_MMAP:
		SHOW("%s, %s, %s, %s%s, 0x%lx)", range, prot,
		     bits(op->flags, map_flags, "0"), kind_names[op->kind],
		     op->ro ? "(read-only)" : "", off2);
		break;
	case OP_MPROTECT:
		SHOW("%s, %s)", range, prot);
		break;
	case OP_PKEY_MPROTECT:
		SHOW("%s, %s, %d)", range, prot, op->arg);
		break;
	case OP_MREMAP:
		SHOW("%s, 0x%lx, %s, W+0x%lx)", range, (long)op->len2,
		     bits(op->flags, mremap_flags, "0"), off2);
		break;
	case OP_MADVISE:
		SHOW("%s, %s)", range, word(op->flags, advices));
		break;
	case OP_PROCESS_MADVISE:
		SHOW("%s, %s) of actor %d", range, word(op->flags, advices),
		     op->arg);
		break;
	case OP_MSYNC:
		SHOW("%s, %s)", range, bits(op->flags, msync_flags, "0"));
		break;
	case OP_MBIND:
		SHOW("%s, mode %d, nodes 0x%x, flags 0x%x)", range,
		     op->arg & 0xff, op->arg >> 8, op->flags);
		break;
	case OP_GET_MEMPOLICY:
		SHOW("%s(W+0x%lx, flags 0x%x)", name, off, op->flags);
		break;
	case OP_MOVE_PAGES:
		SHOW("%s(%d pages from W+0x%lx, 0x%lx apart, no nodes)", name,
		     op->arg, off, len);
		break;
	case OP_REMAP_FILE_PAGES:
		SHOW("%s, %s, page 0x%lx, 0x%x)", range, prot, off2, op->flags);
		break;
	case OP_ANON_NAME:
		SHOW("%s(PR_SET_VMA_ANON_NAME, W+0x%lx, 0x%lx, name %d)", name,
		     off, len, op->arg);
		break;
	case OP_STORE:
	case OP_CHILD:
		SHOW("%s%s(W+0x%lx, %lu pages, 0x%llx)", name,
		     op->code == OP_CHILD ? "_store" : "", off, len / PG,
		     (unsigned long long)op->seed);
		break;
	case OP_READ:
	case OP_WRITE:
		SHOW("%s(%s%s, W+0x%lx, 0x%lx, 0x%lx)", name,
		     kind_names[op->kind], op->ro ? "(read-only)" : "", off, len,
		     off2);
		break;
	case OP_FTRUNCATE:
		SHOW("%s(%s, 0x%lx)", name, kind_names[op->kind], (long)op->len2);
		break;
	case OP_PUNCH:
		SHOW("%s(%s, PUNCH_HOLE, 0x%lx, 0x%lx)", name,
		     kind_names[op->kind], off2, (long)op->len2);
		break;
	case OP_FORK:
		SHOW("%s() and look at W+0x%lx", name, off);
		break;
	default:
		SHOW("%s, 0x%x)", range, op->flags);
	}
#undef SHOW
	return buf;
}

static const char *show_out(const struct op *op, const struct outcome *out)
{
	static char bufs[2][64];
	static unsigned int next;
	char *buf = bufs[next++ % 2];

	if (out->ret == -1)
		snprintf(buf, sizeof(bufs[0]), "%s",
			 out->err ? strerrorname_np(out->err) : "-1");
	else if (out->ret < 0)
		snprintf(buf, sizeof(bufs[0]), "signal %d code %ld at %llu",
			 fault_sig(out->ret), -out->ret & 0xff,
			 (unsigned long long)out->aux);
	else if (op->code == OP_MMAP || op->code == OP_MREMAP)
		snprintf(buf, sizeof(bufs[0]), "W+0x%lx", out->ret);
	else
		snprintf(buf, sizeof(bufs[0]), out->aux ? "%ld, 0x%llx" : "%ld",
			 out->ret, (unsigned long long)out->aux);
	return buf;
}

/*
 * A step
 */

static unsigned long round_step, round_steps;
static char history[HISTORY][640];
static __u64 zero_hash;
static unsigned char lazy[WPAGES];	/* may be zero: MADV_FREE */
static bool paged_out;			/* MADV_PAGEOUT was used */
static char wrong[512];			/* what differs; empty if nothing does */
static char ops_option[256];

/* What a round has to tell, and all of them together */
struct stats {
	unsigned long steps;
	unsigned long done[NR_OPS], good[NR_OPS];
	bool no_mincore;
	bool fell_back;			/* no memory for a huge page */
	struct {
		char what[64];
		unsigned long n;
	} unsupported[64];
};

static struct stats *stats;		/* of this round, shared with the parent */

static long fallbacks;			/* at the begin of the round */

/* How often there was no memory for a huge page. */
static long huge_fallbacks(void)
{
	return read_key("/proc/vmstat", "thp_fault_fallback") +
	       read_key("/proc/vmstat", "thp_file_fallback") +
	       read_key("/proc/vmstat", "thp_collapse_alloc_failed");
}

/* May what is resident differ for want of a huge page? */
static bool fell_back(void)
{
	if (stats->fell_back)
		return true;
	if (huge_fallbacks() == fallbacks)
		return false;
	ksft_print_msg("no memory for huge pages: residency not compared from step %lu on\n",
		       round_step);
	stats->fell_back = true;
	return true;
}

static void differs(const char *fmt, ...)
{
	va_list ap;

	if (*wrong)
		return;
	va_start(ap, fmt);
	vsnprintf(wrong, sizeof(wrong), fmt, ap);
	va_end(ap);
}

static void count_unsupported(struct stats *st, const char *what,
			      unsigned long n)
{
	unsigned int i;

	for (i = 0; i < ARRAY_SIZE(st->unsupported) - 1; i++) {
		if (!st->unsupported[i].n)
			strcpy(st->unsupported[i].what, what);
		if (!strcmp(st->unsupported[i].what, what))
			break;
	}
	st->unsupported[i].n += n;
}

static void not_supported(const struct op *op)
{
	char what[64];

	if (op->code == OP_MADVISE || op->code == OP_PROCESS_MADVISE)
		snprintf(what, sizeof(what), "%s(%s)", ops[op->code].name,
			 word(op->flags, advices));
	else if (op->code == OP_MMAP)
		snprintf(what, sizeof(what), "mmap(%s)",
			 op->flags & MAP_LOCKED ? "MAP_LOCKED" : "?");
	else
		snprintf(what, sizeof(what), "%s", ops[op->code].name);
	count_unsupported(stats, what, 1);
}

static void post(int side, unsigned int actor)
{
	give_turn(BOX(side, actor), 1);
}

/* Waits for an actor; an actor that dies or never comes back differs. */
static bool await(int side, unsigned int actor)
{
	struct box *box = BOX(side, actor);
	double end = 0;
	int status;

	while (atomic_load(&box->turn)) {
		wait_turn(box, 1, 500);
		if (!atomic_load(&box->turn))
			break;
		if (!end)
			end = now() + (debug_kernel() ? 300 : 60);
		if (waitpid(pids[side][actor], &status, WNOHANG)) {
			differs("%c's actor %u died (status 0x%x) %s",
				side_name[side], actor, status, box->death);
			return false;
		}
		if (now() > end) {
			differs("%c's actor %u does not return", side_name[side],
				actor);
			return false;
		}
	}
	return true;
}

static bool run(int side, unsigned int actor, const struct op *op,
		struct outcome *out)
{
	struct box *box = BOX(side, actor);

	box->op = *op;
	box->out.aux = 0;
	post(side, actor);
	if (!await(side, actor))
		return false;
	*out = box->out;
	return true;
}

/* The vectors of mincore() of both boxes, from the page on. */
static void compare_vec(const struct box *t, const struct box *r,
			unsigned int first, unsigned int nr)
{
	static const char * const is[] = { "not resident", "resident",
					   "not mapped", "not told",
					   "not asked" };
	unsigned int i;

	for (i = 0; i < nr; i++) {
		if (r->vec[i] == NO_MINCORE)
			continue;
		if (t->vec[i] == r->vec[i])
			continue;
		if (t->vec[i] < 2 && r->vec[i] < 2 &&
		    (lazy[first + i] || (paged_out && t_file(first + i)) ||
		     fell_back()))
			continue;
		differs("mincore() of the page at W+0x%lx: T %s, R %s",
			(first + i) * PG,
			t->vec[i] < 5 ? is[t->vec[i]] : strerror(t->vec[i] & 0x7f),
			r->vec[i] < 5 ? is[r->vec[i]] : strerror(r->vec[i] & 0x7f));
		return;
	}
}

static const char *show_fault(int fault)
{
	static char bufs[2][48];
	static unsigned int next;
	char *buf = bufs[next++ % 2];

	if (!fault) {
		snprintf(buf, sizeof(bufs[0]), "fine");
		return buf;
	}
	snprintf(buf, sizeof(bufs[0]), "%s code %d%s",
		 (-fault >> 8 & 0xff) == SIGSEGV ? "SIGSEGV" :
		 (-fault >> 8 & 0xff) == SIGBUS ? "SIGBUS" : "a signal",
		 -fault & 0xff, -fault & BAD_ADDR ? ", wrong si_addr" : "");
	return buf;
}

static void compare_looks(const struct box *t, const struct box *r)
{
	unsigned int i;

	for (i = 0; i < t->nr_looks && !*wrong; i++) {
		const struct look *a = &t->looks[i], *b = &r->looks[i];
		unsigned long at = a->page * PG;

		if (same_fault(a->r) != same_fault(b->r))
			differs("reading the page at W+0x%lx: T %s, R %s", at,
				show_fault(a->r), show_fault(b->r));
		else if (same_fault(a->w) != same_fault(b->w))
			differs("writing the page at W+0x%lx: T %s, R %s", at,
				show_fault(a->w), show_fault(b->w));
		else if (same_fault(a->x) != same_fault(b->x))
			differs("executing the page at W+0x%lx: T %s, R %s", at,
				show_fault(a->x), show_fault(b->x));
		else if (a->hash != b->hash &&
			 !(lazy[a->page] && (a->hash == zero_hash ||
					     b->hash == zero_hash)))
			differs("the content of the page at W+0x%lx: T %s, R %s",
				at, a->hash == zero_hash ? "zero" : "not zero",
				b->hash == zero_hash ? "zero" : "not zero");
	}
}

/* What of the pages that mincore() is to tell of is mapped in T */
static void make_parts(struct box *t)
{
	unsigned long pg = t->vec_start, end = pg + t->vec_nr;
	struct part *p = t->parts;
	struct span s;

	while (pg < end) {
		bool any = vma_from(pg, &s);

		*p = (struct part) { .first = pg };
		p->mapped = any && s.first <= pg;
		if (p->mapped)
			pg = s.end < end ? s.end : end;
		else
			pg = any && s.first < end ? s.first : end;
		p->nr = pg - p->first;
		p++;
	}
	t->nr_parts = p - t->parts;
}

/* The checks that are in the boxes of T's and R's actor. */
static bool run_checks(unsigned int actor)
{
	struct box *t = BOX(T, actor), *r = BOX(R, actor);

	t->op.code = r->op.code = OP_CHECK;
	r->vec_start = t->vec_start;
	r->vec_nr = t->vec_nr;
	make_parts(t);
	r->nr_parts = t->nr_parts;
	memcpy(r->parts, t->parts, t->nr_parts * sizeof(*t->parts));
	r->nr_looks = t->nr_looks;
	memcpy(r->looks, t->looks, t->nr_looks * sizeof(*t->looks));
	post(R, actor);
	post(T, actor);
	if (!await(R, actor) || !await(T, actor))
		return false;
	if (r->vec_nr && r->vec[0] == NO_MINCORE)
		stats->no_mincore = true;
	compare_vec(t, r, t->vec_start, t->vec_nr);
	compare_looks(t, r);
	return !*wrong;
}

static void add_look(struct box *t, unsigned long pg, unsigned int what)
{
	if (pg >= WPAGES || t->nr_looks == WPAGES)
		return;
	t->looks[t->nr_looks].page = pg;
	t->looks[t->nr_looks].what = what;
	t->nr_looks++;
}

static unsigned int pick_look(void)
{
	return (chance(85) ? LOOK_R : 0) | (chance(30) ? LOOK_W : 0) |
	       (chance(15) ? LOOK_X : 0);
}

static void look_at(struct box *t, unsigned long off, unsigned long len)
{
	unsigned long first = off / PG, n = (len + PG - 1) / PG, i;

	if (!n || first >= WPAGES || n > WPAGES - first)
		return;
	add_look(t, first, pick_look());
	add_look(t, first + n - 1, pick_look());
	add_look(t, first + n, pick_look());
	if (first)
		add_look(t, first - 1, pick_look());
	for (i = 0; i < 4 && n > 2; i++)
		add_look(t, first + rnd(n), pick_look());
}

/* Look at what a call was about, and a bit beside. */
static bool check_step(const struct op *op, const struct outcome *out)
{
	unsigned int actor = rnd(actors_now), i;
	struct box *t = BOX(T, actor);
	unsigned long first, n;

	t->nr_looks = 0;
	first = rnd(WPAGES);
	n = 64;
	if (op->len && proper(op) && op->code != OP_MOVE_PAGES) {
		look_at(t, op->off, op->len);
		first = op->off / PG;
		n = (op->len + PG - 1) / PG + 1;
	}
	if (out->ret >= 0 && (op->code == OP_MREMAP || op->code == OP_MMAP)) {
		unsigned long len = op->code == OP_MREMAP ? op->len2 : op->len;

		look_at(t, out->ret, len);
		if (chance(50)) {
			first = out->ret / PG;
			n = (len + PG - 1) / PG + 1;
		}
	}
	if (first)
		first--, n++;
	if (n > 600) {
		first += rnd(n - 600);
		n = 600;
	}
	t->vec_start = first;
	t->vec_nr = first + n > WPAGES ? WPAGES - first : n;
	for (i = 0; i < 4; i++)
		add_look(t, rnd(WPAGES), pick_look());
	return run_checks(actor);
}

static bool compare_files(void)
{
	static char bufs[SIDES][16 * PG];
	int kind, side;

	for (kind = 1; kind < NR_KINDS; kind++) {
		__u64 at = rnd(FILE_PAGES) * PG;
		struct stat st[SIDES];
		ssize_t n[SIDES];

		if (fds[T][kind][0] < 0)
			continue;
		for (side = 0; side < SIDES; side++) {
			fstat(fds[side][kind][0], &st[side]);
			n[side] = pread(fds[side][kind][0], bufs[side],
					sizeof(bufs[0]), at);
		}
		if (st[T].st_size != st[R].st_size)
			differs("the size of the %s file: T 0x%lx, R 0x%lx",
				kind_names[kind], (long)st[T].st_size,
				(long)st[R].st_size);
		else if (n[T] != n[R] || (n[T] > 0 && memcmp(bufs[T], bufs[R], n[T])))
			differs("the content of the %s file from 0x%lx on",
				kind_names[kind], (long)at);
	}
	return !*wrong;
}

/*
 * Everything. Not all that is not resident is read, or all would be resident
 * soon.
 */
static bool check_full(void)
{
	unsigned int actor = rnd(actors_now), i;
	struct box *t = BOX(T, actor);

	t->nr_looks = 0;
	t->vec_start = 0;
	t->vec_nr = WPAGES;
	if (!run_checks(actor))
		return false;

	for (i = 0; i < WPAGES; i++) {
		unsigned int what = 0;

		if (t->vec[i] == 1 || chance(t->vec[i] ? 2 : 10))
			what = LOOK_R;
		if (chance(3))
			what |= LOOK_W;
		if (chance(1))
			what |= LOOK_X;
		if (what)
			add_look(t, i, what);
	}
	t->vec_nr = 0;
	return run_checks(actor) && compare_files();
}

/* Make both sides equal where MADV_FREE may have made them different. */
static bool settle(const struct op *op)
{
	struct op zero = { .code = OP_ZERO };
	unsigned long first, n, i;
	struct box *t, *r;
	struct outcome out;
	unsigned int actor;

	if (!proper(op) || !op->len)
		return true;
	first = op->off / PG;
	n = (op->off % PG + op->len + PG - 1) / PG;
	for (i = first; i < first + n && i < WPAGES; i++)
		if (lazy[i])
			break;
	if (i >= first + n || i >= WPAGES)
		return true;

	/* Whom the protection keys allow everything */
	for (actor = 0; actor < actors_now; actor++) {
		t = BOX(T, actor);
		r = BOX(R, actor);
		t->nr_looks = 0;
		t->vec_nr = 0;
		for (i = first; i < first + n && i < WPAGES; i++)
			if (lazy[i])
				add_look(t, i, LOOK_R | LOOK_W);
		if (!t->nr_looks)
			break;
		if (!run_checks(actor))
			return false;
		for (i = 0; i < t->nr_looks; i++) {
			unsigned long pg = t->looks[i].page;

			if (t->looks[i].r || t->looks[i].w)
				continue;
			lazy[pg] = 0;
			if (t->looks[i].hash == r->looks[i].hash)
				continue;
			zero.off = pg * PG;
			if (!run(T, actor, &zero, &out) ||
			    !run(R, actor, &zero, &out))
				return false;
		}
	}
	return true;
}

/* What T is to do instead, R having chosen a place. */
static bool follow(const struct op *op, const struct outcome *r, bool hint_free,
		   unsigned int actor, struct op *t_op, bool *skip)
{
	unsigned long len = op->code == OP_MREMAP ? op->len2 : op->len;
	unsigned long n = (len + PG - 1) / PG, pg = r->ret / PG;
	bool fixed = op->code == OP_MREMAP ?
		     !(op->flags & MREMAP_MAYMOVE) || op->flags & MREMAP_FIXED :
		     op->flags & (MAP_FIXED | MAP_FIXED_NOREPLACE);
	struct outcome out;
	struct op try = *op;

	*t_op = *op;
	*skip = false;
	if ((op->code != OP_MMAP && op->code != OP_MREMAP) || fixed)
		return true;

	if (r->ret == -1) {
		/* No room, if that is the reason, is in the window only. */
		if (r->err != ENOMEM || !n || n > WPAGES || t_largest_gap() >= n)
			return true;
		*skip = true;
		if (op->code == OP_MMAP || !op->len ||
		    op->flags & MREMAP_DONTUNMAP)
			return true;
		/* And neither where it is. */
		t_op->flags &= ~MREMAP_MAYMOVE;
		*skip = false;
		return true;
	}
	if (op->code == OP_MREMAP && (unsigned long)r->ret == op->off)
		return true;

	/* Where R placed it there must be room in T. */
	if (r->ret < 0 || pg >= WPAGES || !t_free(pg, n)) {
		differs("R placed it at W+0x%lx, where something is mapped or it does not belong",
			r->ret);
		return false;
	}
	if (op->code == OP_MMAP) {
		if (hint_free && pg != op->off / PG) {
			differs("R did not take the free hint but W+0x%lx",
				r->ret);
			return false;
		}
		t_op->flags |= MAP_FIXED_NOREPLACE;
		t_op->off = r->ret;
		return true;
	}
	if (op->len && op->len2 > op->len && !(op->flags & MREMAP_DONTUNMAP)) {
		try.flags = 0;
		if (!run(T, actor, &try, &out))
			return false;
		if (out.ret != -1 || out.err != ENOMEM) {
			differs("R moved it to W+0x%lx, T need not: %s", r->ret,
				show_out(op, &out));
			return false;
		}
	}
	t_op->flags |= MREMAP_FIXED;
	t_op->off2 = r->ret;
	return true;
}

/* Which pages may be zero after the call, because they may have been before. */
static void track(const struct op *op, const struct outcome *r)
{
	unsigned long first = op->off / PG, n = (op->len + PG - 1) / PG, m, to;
	bool advice = op->code == OP_MADVISE || op->code == OP_PROCESS_MADVISE;

	if (advice && op->flags == MADV_PAGEOUT)
		paged_out = true;
	if (!proper(op) || !n)
		return;
	/* Also when it fails: it goes on behind what is not mapped. */
	if (advice && op->flags == MADV_FREE)
		memset(lazy + first, 1, n);
	if (r->ret == -1)
		return;
	if (op->code == OP_MUNMAP)
		memset(lazy + first, 0, n);
	if (op->code == OP_MMAP)
		memset(lazy + r->ret / PG, 0, n);
	if (op->code == OP_MREMAP) {
		to = r->ret / PG;
		m = (op->len2 + PG - 1) / PG;
		if (to == first)
			return;
		if (n > m)
			n = m;
		memset(lazy + to, 0, m);
		memmove(lazy + to, lazy + first, n);
	}
}

static void remember(const struct op *op, unsigned int actor,
		     const struct outcome *t, const struct outcome *r,
		     const char *note)
{
	char *line = history[round_step % HISTORY];
	char rs[64], ts[64];

	snprintf(rs, sizeof(rs), "%s", show_out(op, r));
	snprintf(ts, sizeof(ts), "%s", t ? show_out(op, t) : "not done");
	snprintf(line, sizeof(history[0]), "%lu: actor %u: %s: %s%s%s%s%s",
		 round_step, actor, show(op), rs, strcmp(rs, ts) ? ", T: " : "",
		 strcmp(rs, ts) ? ts : "", *note ? ", " : "", note);
	if (verbose)
		printf("# %s\n", line);
}

static unsigned int weight_sum(void)
{
	unsigned int i, sum = 0;

	for (i = 0; i < NR_OPS; i++)
		if (!op_off[i])
			sum += ops[i].weight;
	return sum;
}

static void generate(struct op *op)
{
	unsigned int i, r = rnd(weight_sum());

	memset(op, 0, sizeof(*op));
	for (i = 0; i < NR_OPS; i++) {
		if (op_off[i])
			continue;
		if (r < ops[i].weight)
			break;
		r -= ops[i].weight;
	}
	op->code = i;
	op->seed = rnd(1UL << 32);
	ops[i].gen(op);
	if (chance(ops[i].spoilt))
		spoil(op);
	if (i == OP_CHILD)
		op->arg = plain;
	/* Without a region, nothing keeps what is placed in the window. */
	if (plain && i == OP_MMAP && !(op->flags & MAP_FIXED_NOREPLACE))
		op->flags |= MAP_FIXED;
	if (plain && i == OP_MREMAP && op->flags & MREMAP_MAYMOVE)
		op->flags |= MREMAP_FIXED;
}

static bool is_collapse(const struct op *op)
{
	return (op->code == OP_MADVISE || op->code == OP_PROCESS_MADVISE) &&
	       op->flags == MADV_COLLAPSE;
}

static bool busy(const struct outcome *out)
{
	return out->ret == -1 && (out->err == EAGAIN || out->err == EBUSY);
}

static bool step(void)
{
	unsigned int actor, tries;
	struct outcome r, t;
	struct op op, t_op;
	bool hint_free, skip;

	generate(&op);
	actor = rnd(actors_now);
	*history[round_step % HISTORY] = 0;
	snprintf(history[round_step % HISTORY], sizeof(history[0]),
		 "%lu: actor %u: %s", round_step, actor, show(&op));
	switch (op.code) {
	case OP_STORE:
	case OP_CHILD:
	case OP_READ:
	case OP_WRITE:
	case OP_FORK:
		if (!settle(&op))
			return false;
	}
	hint_free = t_free(op.off / PG, (op.len + PG - 1) / PG);

	stats->done[op.code]++;
	if (!run(R, actor, &op, &r))
		return false;
	if (r.ret == -1 && r.err == EOPNOTSUPP && op.code != OP_HOME_NODE) {
		not_supported(&op);
		remember(&op, actor, NULL, &r, "");
		return check_step(&op, &r);
	}
	if (!follow(&op, &r, hint_free, actor, &t_op, &skip)) {
		remember(&op, actor, NULL, &r, "");
		return false;
	}
	if (skip) {
		remember(&op, actor, NULL, &r, "no room");
		return check_step(&op, &r);
	}
	if (!run(T, actor, &t_op, &t))
		return false;
	if (is_collapse(&op)) {
		for (tries = 0; tries < 5 && (busy(&r) || busy(&t)); tries++) {
			if (!run(R, actor, &op, &r) ||
			    !run(T, actor, &t_op, &t))
				return false;
		}
		if (r.err != t.err && fell_back())
			r = t;
	}
	remember(&op, actor, &t, &r, "");
	/* It is also what this call says of most memory policies. */
	if (r.ret == -1 && r.err == EOPNOTSUPP && t.err != EOPNOTSUPP) {
		not_supported(&op);
		return check_step(&op, &r);
	}
	if (r.ret != t.ret || r.err != t.err || r.aux != t.aux) {
		char ts[64];

		snprintf(ts, sizeof(ts), "%s", show_out(&op, &t));
		differs("the result: T %s, R %s", ts, show_out(&op, &r));
		return false;
	}
	if (r.ret >= 0)
		stats->good[op.code]++;
	if (op.code == OP_MINCORE && !r.ret && proper(&op)) {
		compare_vec(BOX(T, actor), BOX(R, actor), op.off / PG,
			    (op.len + PG - 1) / PG);
		if (*wrong)
			return false;
	}
	track(&op, &r);
	return check_step(&op, &r) &&
	       ((round_step + 1) % FULL_EVERY || check_full());
}

/*
 * A round: fresh files, processes and a region, and a sequence of its own
 */

static char tmpfs_dir[64];
static struct zram zram = { .id = -1 };
static pthread_t threads[MAX_ACTORS];

static void *thread_main(void *arg)
{
	act((long)arg);
	return NULL;
}

static int open_file(int side, int kind)
{
	char path[128] = "", proc[64];
	int fd = -1;

	switch (kind) {
	case MEMFD_FILE:
		fd = memfd_create("model", MFD_CLOEXEC);
		break;
	case TMPFS_FILE:
		snprintf(path, sizeof(path), "%s/%d-%c", tmpfs_dir, getpid(),
			 side_name[side]);
		break;
	case PLAIN_FILE:
		snprintf(path, sizeof(path), "/tmp/mshare-model-%d-%c", getpid(),
			 side_name[side]);
		break;
	case EXT4_FILE:
		snprintf(path, sizeof(path), "%s/%d-%c", zram.mnt, getpid(),
			 side_name[side]);
		break;
	}
	if (*path)
		fd = open(path, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
	if (fd < 0)
		return -1;
	snprintf(proc, sizeof(proc), "/proc/self/fd/%d", fd);
	fds[side][kind][0] = fd;
	fds[side][kind][1] = open(proc, O_RDONLY | O_CLOEXEC);
	if (*path)
		unlink(path);
	return 0;
}

/* Whether there is this kind of file. */
static bool have_kind(int kind)
{
	return (kind != TMPFS_FILE || *tmpfs_dir) &&
	       (kind != EXT4_FILE || *zram.mnt);
}

static const char *open_files(void)
{
	static __u64 content[FILE_PAGES * PG / 8];
	unsigned long n, i;
	int kind, side;

	for (kind = 1; kind < NR_KINDS; kind++) {
		if (!have_kind(kind))
			continue;
		n = chance(50) ? FILE_PAGES : 1 + rnd(FILE_PAGES);
		for (i = 0; i < n * PG / 8; i++)
			content[i] = i * 8 % PG < 64 ? rnd(1UL << 62) : 0;
		for (side = 0; side < SIDES; side++) {
			if (open_file(side, kind))
				return "cannot make a file";
			if (write(fds[side][kind][0], content, n * PG) !=
			    (ssize_t)(n * PG))
				return "cannot write a file";
		}
	}
	return NULL;
}

static void close_files(void)
{
	int kind, side, i;

	for (kind = 0; kind < NR_KINDS; kind++) {
		for (side = 0; side < SIDES; side++) {
			for (i = 0; i < 2; i++) {
				if (fds[side][kind][i] >= 0)
					close(fds[side][kind][i]);
				fds[side][kind][i] = -1;
			}
		}
	}
}

static void be_threads(void)
{
	long i;

	for (i = 0; i < nr_actors; i++)
		if (pthread_create(&threads[i], NULL, thread_main, (void *)i))
			_exit(1);
	for (;;)
		pause();
}

/* A process of R, or the one that has all threads. */
static pid_t start_side(int side, unsigned int nr)
{
	pid_t pid = fork_bound();

	if (pid)
		return pid;
	my_side = side;
	if (side == T || both_threads)
		be_threads();
	act(nr);
	_exit(0);
}

static void *shared_mem(size_t len)
{
	void *p = mmap(NULL, len, PROT_READ | PROT_WRITE,
		       MAP_SHARED | MAP_ANONYMOUS, -1, 0);

	if (p == MAP_FAILED)
		ksft_exit_fail_msg("no memory\n");
	return p;
}

static bool start(int side, unsigned int nr, int how)
{
	struct op op = { .code = OP_START, .arg = how };
	struct outcome out;

	if (!run(side, nr, &op, &out))
		return false;
	if (!out.ret)
		return true;
	if (how == START_ADOPT && out.err == EOPNOTSUPP)
		count_unsupported(stats, "adoption", 1);
	differs("%c's actor %u cannot %s: %s", side_name[side], nr,
		how == START_ADOPT ? "make a region of its memory" : "start",
		strerror(out.err));
	return false;
}

/* What R's first actor has made of its memory becomes the region. */
static bool adopt(void)
{
	unsigned int i;

	for (i = 0; i < nr_actors; i++)
		if (!start(R, i, i ? START_REGION : START_ADOPT))
			return false;
	plain = false;
	actors_now = nr_actors;
	return check_full();
}

static bool start_round(void)
{
	const char *why;
	char path[64];
	unsigned int i;

	boxes = shared_mem(sizeof(*boxes) * SIDES * MAX_ACTORS);
	pids[T] = shared_mem(PG);
	pids[R] = pids[T] + MAX_ACTORS;
	no_pageout = round_seed & 1;
	why = open_files();
	if (why) {
		differs("%s", why);
		return false;
	}

	for (i = 0; i < nr_actors; i++) {
		pids[T][i] = i ? pids[T][0] : start_side(T, 0);
		pids[R][i] = i && both_threads ? pids[R][0] : start_side(R, i);
	}
	snprintf(path, sizeof(path), "/proc/%d/maps", pids[T][0]);
	t_maps = open(path, O_RDONLY | O_CLOEXEC);
	if (t_maps < 0) {
		differs("cannot open %s", path);
		return false;
	}
	plain = both_threads || adopting;
	actors_now = adopting ? 1 : nr_actors;
	for (i = 0; i < nr_actors; i++) {
		if (!start(T, i, START_PLAIN))
			return false;
		if (i < actors_now &&
		    !start(R, i, plain ? START_PLAIN : START_REGION))
			return false;
	}
	return true;
}

static void end_round(void)
{
	unsigned int i;
	int side;

	for (side = 0; side < SIDES; side++) {
		for (i = 0; i < nr_actors; i++) {
			if (pids[side][i] <= 0 ||
			    (i && pids[side][i] == pids[side][0]))
				continue;
			kill(pids[side][i], SIGKILL);
			waitpid(pids[side][i], NULL, 0);
		}
	}
	if (t_maps >= 0)
		close(t_maps);
	t_maps = -1;
	close_files();
	remove_names();
}

static void report(void)
{
	unsigned long i = round_step < HISTORY ? 0 : round_step - HISTORY + 1;

	ksft_print_msg("T and R disagree with seed %u at step %lu:\n", round_seed,
		       round_step);
	ksft_print_msg("  %s\n", history[round_step % HISTORY]);
	ksft_print_msg("%s\n", wrong);
	ksft_print_msg("the last steps (W is the window):\n");
	for (; i <= round_step; i++)
		ksft_print_msg("  %s\n", history[i % HISTORY]);
	ksft_print_msg("again: mshare_model -s %u -n %lu -a %u%s%s%s%s%s\n",
		       round_seed, round_step + 1, nr_actors,
		       *ops_option ? " -o " : "", ops_option,
		       allow_unsupported ? " --allow-unsupported" : "",
		       at_home ? " --at-home" : "",
		       both_threads ? " --both-threads" : "");
}

static bool do_round(unsigned int seed, unsigned long steps)
{
	bool ok;

	round_seed = seed;
	rng = seed;
	*wrong = 0;
	round_step = 0;
	round_steps = steps;
	region_name = new_name();
	fallbacks = huge_fallbacks();
	adopting = can_adopt && (seed & 3) == 2;
	adopt_at = rnd(200);
	ok = start_round();
	if (!ok) {
		ksft_print_msg("%s\n", wrong);
	} else {
		for (; ok && round_step < steps; round_step++, stats->steps++) {
			if (adopting && plain && round_step == adopt_at)
				ok = adopt();
			ok = ok && step();
			if (!ok)
				break;
		}
		if (ok) {
			round_step--;
			ok = check_full();
		}
		if (!ok)
			report();
	}
	end_round();
	return ok;
}

/*
 * The program
 */

static struct setting settings[8];
static unsigned int nr_settings;

static void set(const char *path, const char *val)
{
	if (nr_settings < ARRAY_SIZE(settings) &&
	    !setting_set(&settings[nr_settings], path, val))
		nr_settings++;
}

#define THP "/sys/kernel/mm/transparent_hugepage/"

static void set_up(void)
{
	/* Nothing may happen behind the actors' backs. */
	set(THP "enabled", "always");
	/* A host is not scanned for it, see Documentation/mm/mshare.rst. */
	set("/proc/sys/kernel/numa_balancing", "0");
	set(THP "khugepaged/max_ptes_none", "0");
	set(THP "khugepaged/scan_sleep_millisecs", "4000000000");
	set("/sys/kernel/mm/ksm/run", "0");

	snprintf(tmpfs_dir, sizeof(tmpfs_dir), "/tmp/mshare-model-tmpfs-%d",
		 getpid());
	mkdir(tmpfs_dir, 0755);
	if (mount("none", tmpfs_dir, "tmpfs", 0, NULL)) {
		rmdir(tmpfs_dir);
		*tmpfs_dir = 0;
	}
}

static void set_up_ext4(void)
{
	const char *why = zram_ext4(&zram, 48 * MB);

	if (why)
		ksft_print_msg("not used: ext4: %s\n", why);
}

static void tear_down(void)
{
	while (nr_settings)
		setting_restore(&settings[--nr_settings]);
	if (*tmpfs_dir) {
		umount2(tmpfs_dir, MNT_DETACH);
		rmdir(tmpfs_dir);
	}
	zram_end(&zram);
}

static void usage(FILE *f)
{
	unsigned int i;

	fprintf(f, "usage: mshare_model [OPTION]...\n"
		"  -s SEED      of the first round; the next ones count up from it\n"
		"  -n STEPS     in total (20000; 2500 on a debug kernel)\n"
		"  -r STEPS     in a round at most (1000)\n"
		"  -a ACTORS    of each side (3)\n"
		"  -j ROUNDS    at a time (as many as there are processors)\n"
		"  -o LIST, --ops LIST  calls to make, or not to make: a,b or -a,-b\n"
		"  -c           continue with the next round after a disagreement\n"
		"  -v           print each step\n"
		"  --at-home    all use the region's addresses, and have all of it\n"
		"  --both-threads  R is threads on plain memory, too: tests the test\n"
		"  --no-ext4    leave out the file on a disk\n"
		"  --allow-unsupported  calls may fail with EOPNOTSUPP in a region\n"
		"calls:");
	for (i = 0; i < NR_OPS; i++)
		if (ops[i].name)
			fprintf(f, " %s", ops[i].name);
	fprintf(f, "\n");
}

static bool choose_ops(const char *list)
{
	char buf[256], *p, *save;
	bool first = true;
	unsigned int i;

	snprintf(ops_option, sizeof(ops_option), "%s", list);
	snprintf(buf, sizeof(buf), "%s", list);
	for (p = strtok_r(buf, ",", &save); p; p = strtok_r(NULL, ",", &save)) {
		bool off = *p == '-';

		if (first && !off)
			memset(op_off, 1, sizeof(op_off));
		first = false;
		for (i = 1; i < NR_OPS; i++)
			if (!strcmp(ops[i].name, p + off))
				break;
		if (i == NR_OPS)
			return false;
		op_off[i] = off;
	}
	return weight_sum();
}

/* Ends the program with what cannot be helped. */
static void skip_all(const char *why)
{
	tear_down();
	ksft_exit_skip("%s\n", why);
}

/*
 * Rounds are run in processes of their own, some at a time: most of the time
 * somebody waits for somebody.
 */
#define MAX_JOBS 16
static unsigned int nr_jobs;
static struct stats total;

static struct job {
	pid_t pid;
	int out;			/* what it prints; -1: it does so itself */
	unsigned int seed;
	unsigned long steps;
	struct stats *stats;		/* shared with it */
} jobs[MAX_JOBS];

static void start_job(struct job *job)
{
	job->out = nr_jobs > 1 ? memfd_create("out", MFD_CLOEXEC) : -1;
	memset(job->stats, 0, sizeof(*job->stats));
	job->pid = fork_bound();
	if (job->pid)
		return;
	if (job->out >= 0)
		dup2(job->out, STDOUT_FILENO);
	stats = job->stats;
	/*
	 * In every fourth round the processors have to hear of what is done on
	 * the others. It takes much longer than if one does it all.
	 */
	spread = !(job->seed & 3);
	if (!spread)
		pin((job - jobs) % nr_cpus());
	_exit(do_round(job->seed, job->steps) ? 0 : 1);
}

/* Waits for a job to end; returns whether all was well. */
static bool end_job(void)
{
	struct stats *st;
	struct job *job;
	int status = -1;
	unsigned int i;
	char buf[4096];
	ssize_t n;
	off_t at;
	pid_t pid;

	pid = wait(&status);
	for (job = jobs; job->pid != pid && job < jobs + nr_jobs - 1; job++)
		;
	job->pid = 0;
	if (job->out >= 0) {
		for (at = 0; (n = pread(job->out, buf, sizeof(buf), at)) > 0; at += n)
			fwrite(buf, n, 1, stdout);
		close(job->out);
	}
	if (WIFSIGNALED(status))
		ksft_print_msg("ended by signal %d\n", WTERMSIG(status));
	st = job->stats;
	total.steps += st->steps;
	total.no_mincore |= st->no_mincore;
	for (i = 0; i < NR_OPS; i++) {
		total.done[i] += st->done[i];
		total.good[i] += st->good[i];
	}
	for (i = 0; i < ARRAY_SIZE(st->unsupported) && st->unsupported[i].n; i++)
		count_unsupported(&total, st->unsupported[i].what,
				  st->unsupported[i].n);
	ksft_test_result(!status, "seed %u, %lu steps\n", job->seed, job->steps);
	return !status;
}

static void summary(void)
{
	unsigned int i;

	ksft_print_msg("%lu steps; calls made and calls that succeeded:\n",
		       total.steps);
	for (i = 1; i < NR_OPS; i++)
		if (total.done[i])
			ksft_print_msg("  %-24s %6lu %6lu\n", ops[i].name,
				       total.done[i], total.good[i]);
	if (total.no_mincore)
		ksft_print_msg("not supported: mincore: residency not compared\n");
	for (i = 0; i < ARRAY_SIZE(total.unsupported) && total.unsupported[i].n;
	     i++)
		ksft_print_msg("not supported: %s x %lu\n",
			       total.unsupported[i].what,
			       total.unsupported[i].n);
}

/* Whether the kernel can make a region of what is mapped already. */
static bool adoption_works(void)
{
	const char *name = new_name();
	int status = -1;
	pid_t pid = fork_bound();

	if (!pid) {
		mmap(base, PG, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED,
		     -1, 0);
		_exit(mshare(name, base, granule(), O_RDWR | O_CREAT, 0600) &&
		      errno == EOPNOTSUPP);
	}
	waitpid(pid, &status, 0);
	remove_names();
	return !status;
}

int main(int argc, char **argv)
{
	enum { OPT_ALLOW = 256, OPT_NO_EXT4, OPT_BOTH_THREADS, OPT_AT_HOME };
	static const struct option options[] = {
		{ "ops", required_argument, NULL, 'o' },
		{ "allow-unsupported", no_argument, NULL, OPT_ALLOW },
		{ "both-threads", no_argument, NULL, OPT_BOTH_THREADS },
		{ "no-ext4", no_argument, NULL, OPT_NO_EXT4 },
		{ "at-home", no_argument, NULL, OPT_AT_HOME },
		{ "help", no_argument, NULL, 'h' },
		{ NULL, 0, NULL, 0 }
	};
	static const int signals[] = { SIGSEGV, SIGBUS, SIGTRAP };
	struct sigaction sa = {
		.sa_sigaction = model_handler,
		.sa_flags = SA_SIGINFO,
	};
	unsigned long steps = 0, per_round = 1000, n, nr_rounds, i;
	unsigned int busy = 0;
	bool stop = false;
	unsigned int seed = test_seed();
	static char zero[PG];
	bool ext4 = true;
	double begin;
	int c;

	while ((c = getopt_long(argc, argv, "s:n:r:a:j:o:cvh", options, NULL)) != -1) {
		switch (c) {
		case 's':
			seed = strtoul(optarg, NULL, 0);
			break;
		case 'n':
			steps = strtoul(optarg, NULL, 0);
			break;
		case 'r':
			per_round = strtoul(optarg, NULL, 0);
			break;
		case 'a':
			nr_actors = strtoul(optarg, NULL, 0);
			break;
		case 'j':
			nr_jobs = strtoul(optarg, NULL, 0);
			break;
		case 'o':
			if (!choose_ops(optarg)) {
				usage(stderr);
				return 2;
			}
			break;
		case 'c':
			go_on = true;
			break;
		case 'v':
			verbose = true;
			break;
		case OPT_ALLOW:
			allow_unsupported = true;
			break;
		case OPT_BOTH_THREADS:
			both_threads = true;
			break;
		case OPT_NO_EXT4:
			ext4 = false;
			break;
		case OPT_AT_HOME:
			at_home = true;
			break;
		default:
			usage(c == 'h' ? stdout : stderr);
			return c == 'h' ? 0 : 2;
		}
	}
	if (!steps)
		steps = scaled(debug_kernel() ? 8000 : 20000);
	if (!per_round || !nr_actors || nr_actors > MAX_ACTORS) {
		usage(stderr);
		return 2;
	}
	nr_rounds = (steps + per_round - 1) / per_round;

	setvbuf(stdout, NULL, _IOLBF, 0);
	ksft_print_header();
	if (!granule())
		skip_all("no msharefs at " MSHAREFS);
	if (page() != PG)
		skip_all("pages of another size");
	if (!nr_jobs)
		nr_jobs = verbose ? 1 : nr_cpus();
	if (nr_jobs > MAX_JOBS)
		nr_jobs = MAX_JOBS;
	if (nr_jobs > nr_rounds)
		nr_jobs = nr_rounds;
	for (i = 0; i < nr_jobs; i++)
		jobs[i].stats = shared_mem(sizeof(struct stats));
	for (i = 0; i < ARRAY_SIZE(signals); i++)
		sigaction(signals[i], &sa, NULL);
	memset(fds, -1, sizeof(fds));
	zero_hash = hash_page(zero);
	/* The window lies over the boundary of two granules. */
	base = slot(4);
	win_off = granule() - WSIZE / 2;
	pkeys[0] = syscall(__NR_pkey_alloc, 0UL, 0UL);
	pkeys[1] = syscall(__NR_pkey_alloc, 0UL, 0UL);
	can_adopt = !both_threads && adoption_works();
	if (!can_adopt && !both_threads)
		count_unsupported(&total, "adoption", 1);
	set_up();
	if (ext4)
		set_up_ext4();
	ksft_set_plan(nr_rounds + 1);
	ksft_print_msg("seed %u, %lu steps, %u actors of each side%s\n", seed,
		       steps, nr_actors,
		       pkeys[1] < 0 ? ", no protection keys" : "");

	begin = now();
	for (i = 0; i < nr_rounds || busy; ) {
		for (n = 0; n < nr_jobs && jobs[n].pid; n++)
			;
		if (i < nr_rounds && n < nr_jobs) {
			jobs[n].seed = seed + i;
			jobs[n].steps = i == nr_rounds - 1 ?
					steps - i * per_round : per_round;
			if (stop) {
				ksft_test_result_skip("seed %u, not run\n",
						      jobs[n].seed);
			} else {
				start_job(&jobs[n]);
				busy++;
			}
			i++;
			continue;
		}
		busy--;
		if (!end_job() && !go_on)
			stop = true;
	}
	ksft_print_msg("%.1f seconds\n", now() - begin);
	summary();
	ksft_test_result(allow_unsupported || (!total.unsupported[0].n && !total.no_mincore),
			 "all calls are supported in a region\n");
	tear_down();
	ksft_finished();
}
