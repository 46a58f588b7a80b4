/* SPDX-License-Identifier: GPL-2.0 */
/*
 * mshare: regions of address space whose VMAs and page tables are shared.
 *
 * This header is all that the rest of the kernel knows of mshare. Without
 * CONFIG_MSHARE every hook is an inline no-op.
 *
 * See Documentation/mm/mshare.rst for the terms (region, host, attachment,
 * attached mm, granule, splice), the locking and the TLB protocol.
 */
#ifndef _LINUX_MSHARE_H
#define _LINUX_MSHARE_H

#include <linux/errno.h>
#include <linux/mm_types.h>
#include <linux/rculist.h>
#include <linux/sched.h>
#include <linux/types.h>
#include <uapi/linux/mman.h>

struct cgroup_subsys_state;
struct file;
struct inode;
struct mem_cgroup;
struct mmu_gather;
struct mshare_info;
struct mshare_region;

/**
 * struct mshare_attachment - a region in the address space of an attached mm
 * @node: on &mm_struct.mshare_attachments
 * @region: the region; lives as long as the attachment
 * @host: its host mm
 * @mm: the attached mm
 * @mirror: on the region's list of the attached mms that have notifiers; see
 *	    mm/mshare_notifier.c
 * @told_from: the first invalidation of the host that its notifiers are told of
 * @told_until: and the first that they are not told of any more
 * @start: first address of the attachment in the attached mm
 * @end: first address behind it
 * @delta: what to add to an attached address to get the host's
 * @vm_flags: of the attachment's VMA: what the attached mm may do at most
 * @rcu: for freeing
 *
 * Everything but @node, @mirror and @told_* is constant from the time the
 * attachment is published until it is freed, a grace period after it was taken
 * off the list.
 *
 * It is on the list before the first P4D entry is written and until the TLB
 * has been flushed after the last one was cleared. The list is changed under
 * the mmap_lock of the attached mm, taken for writing, or when the mm exits.
 */
struct mshare_attachment {
	struct hlist_node node;
	struct mshare_region *region;
	struct mm_struct *host;
	struct mm_struct *mm;
	struct hlist_node mirror;
	unsigned long told_from;
	unsigned long told_until;
	unsigned long start;
	unsigned long end;
	unsigned long delta;
	vm_flags_t vm_flags;
	struct rcu_head rcu;
};

/**
 * struct mshare_call - a fault or system call that works on a region
 * @region: the region, referenced, or NULL when the call is not inside one
 * @mm: the mm to work on: the region's host, or current->mm
 * @delta: what to add to the caller's address to get the one in @mm
 * @start: first address in @mm of what the caller has attached
 * @end: first address in @mm behind that
 * @vm_flags: what the caller may do in the region at most
 * @old_memcg: active memcg to go back to
 * @old_over_high: what the task has to see to in its own memcg
 * @old_in_mshare: it is at work on another region already
 */
struct mshare_call {
	struct mshare_region *region;
	struct mm_struct *mm;
	unsigned long delta;
	unsigned long start;
	unsigned long end;
	vm_flags_t vm_flags;
	struct mem_cgroup *old_memcg;
	unsigned int old_over_high;
	bool old_in_mshare;
};

/* See MSHARE_CALL() */
static __always_inline struct mshare_call *
mshare_call_init(struct mshare_call *call, struct mm_struct *mm)
{
	call->region = NULL;
	call->mm = mm;
	call->delta = 0;
	return call;
}

/**
 * MSHARE_CALL() - declare a call that is not known to be inside a region
 * @name: of the &struct mshare_call
 * @mm_: the mm that it works on until mshare_enter() or one of its like finds
 *	 that it is inside a region attached to it
 *
 * What they fill in then is not cleared before: faults and system calls of who
 * is attached to nothing come by here, too.
 */
#define MSHARE_CALL(name, mm_)						\
	struct mshare_call name __uninitialized;			\
	struct mshare_call *name##_ptr __maybe_unused =			\
		mshare_call_init(&(name), mm_)

/**
 * struct mshare_owner - whose invalidation of a host it is
 * @mm: the attached mm that it is done for
 * @owner: what the notifiers of @mm are to see as &mmu_notifier_range.owner
 *
 * What is the owner of an invalidation of a host with MMU_NOTIFY_EXCLUSIVE. The
 * notifiers of other mms see none: an owner who leaves an invalidation alone
 * has seen to it for one mm.
 */
struct mshare_owner {
	struct mm_struct *mm;
	void *owner;
};

/**
 * enum mshare_how - what a system call does, for mshare_enter()
 * @MSHARE_CHANGES: it changes the region, its residency or locking: -EACCES for
 *		    who is attached read-only
 * @MSHARE_READS: it does not
 * @MSHARE_MAPS: a range of one or more whole attachments, and what is beside
 *		 them, belongs to the caller: mmap() and munmap()
 * @MSHARE_OWN: only such a range has a meaning: the attachment is the caller's
 */
enum mshare_how {
	MSHARE_CHANGES,
	MSHARE_READS,
	MSHARE_MAPS,
	MSHARE_OWN,
};

#ifdef CONFIG_MSHARE

/* The unit of alignment and size: what one P4D entry maps. */
#define MSHARE_GRANULE		P4D_SIZE

/**
 * mm_is_mshare_host() - is this mm the host of a region?
 * @mm: the mm
 */
static inline bool mm_is_mshare_host(const struct mm_struct *mm)
{
	return mm->mshare_region;
}

/**
 * mm_has_mshare() - is a region attached to this mm?
 * @mm: the mm
 *
 * Stable under the mmap_lock; a hint otherwise.
 */
static inline bool mm_has_mshare(const struct mm_struct *mm)
{
	return !hlist_empty(&mm->mshare_attachments);
}

/*
 * Under rcu_read_lock(), or with interrupts off where RCU watches, or where
 * nobody can change the list.
 */
#define for_each_mshare_attachment(att, mm)				\
	hlist_for_each_entry_rcu(att, &(mm)->mshare_attachments, node, true)

/**
 * mm_attachment_of() - how is the region of a host attached to an mm?
 * @mm: an mm, &init_mm included
 * @host: a host mm
 *
 * There is at most one attachment of a region.
 *
 * Context: RCU read side, or interrupts off.
 * Return: the attachment, or NULL.
 */
static inline const struct mshare_attachment *
mm_attachment_of(const struct mm_struct *mm, const struct mm_struct *host)
{
	struct mshare_attachment *att;

	for_each_mshare_attachment(att, mm)
		if (att->host == host)
			return att;
	return NULL;
}

/**
 * mm_attached_to() - is @host the host of a region attached to @mm?
 * @mm: an mm, &init_mm included
 * @host: a host mm
 *
 * Context: RCU read side, or interrupts off.
 */
static inline bool mm_attached_to(const struct mm_struct *mm,
				  const struct mm_struct *host)
{
	return mm_attachment_of(mm, host);
}

/**
 * mshare_host_used() - a CPU is about to run a process attached to a host
 * @host: the host mm
 *
 * As lru_gen_use_mm(), without writing where nothing changes.
 */
static inline void mshare_host_used(struct mm_struct *host)
{
#ifdef CONFIG_LRU_GEN_WALKS_MMU
	if (READ_ONCE(host->lru_gen.bitmap) != -1)
		lru_gen_use_mm(host);
#endif
}

static inline void mshare_mm_init(struct mm_struct *mm)
{
	INIT_HLIST_HEAD(&mm->mshare_attachments);
	mm->mshare_region = NULL;
}

/**
 * vma_in_mshare_of() - is it mapped in a region that is attached to an mm?
 * @mm: the mm, or NULL
 * @vma: any VMA
 *
 * Then the processes of @mm use it as if it were their own.
 *
 * Context: any in which RCU watches.
 */
static inline bool vma_in_mshare_of(const struct mm_struct *mm,
				    const struct vm_area_struct *vma)
{
	bool ret;

	if (!mm || !mm_is_mshare_host(vma->vm_mm))
		return false;
	rcu_read_lock();
	ret = mm_attached_to(mm, vma->vm_mm);
	rcu_read_unlock();
	return ret;
}

unsigned long __mshare_seen_at(const struct mm_struct *host,
			       unsigned long addr);
bool __mshare_seen_vma(const struct vm_area_struct *vma, unsigned long *start,
		       unsigned long *end, unsigned long *pgoff);

/**
 * mshare_seen_at() - where does the current process see an address of an mm?
 * @mm: current->mm, or the host of a region attached to it
 * @addr: an address in @mm
 *
 * Context: any in which RCU watches.
 */
static inline unsigned long mshare_seen_at(const struct mm_struct *mm,
					   unsigned long addr)
{
	return likely(!mm_is_mshare_host(mm)) ? addr : __mshare_seen_at(mm, addr);
}

/**
 * mshare_seen_vma() - where, and how much of a VMA, does the process see?
 * @vma: a VMA of current->mm, or of the host of a region attached to it
 * @start: where to put the first address, as the current process sees it
 * @end: where to put the first address behind it
 * @pgoff: where to put the offset of @start in the file, in pages
 *
 * Context: any in which RCU watches.
 * Return: false if the process sees nothing of it.
 */
static inline bool mshare_seen_vma(const struct vm_area_struct *vma,
				   unsigned long *start, unsigned long *end,
				   unsigned long *pgoff)
{
	*start = vma->vm_start;
	*end = vma->vm_end;
	*pgoff = vma->vm_pgoff;
	return likely(!mm_is_mshare_host(vma->vm_mm)) ||
	       __mshare_seen_vma(vma, start, end, pgoff);
}

bool __mshare_overlaps(struct mm_struct *mm, unsigned long start,
		       unsigned long end);

/**
 * mshare_overlaps() - does a range touch an attachment?
 * @mm: any mm
 * @start: first address in bytes
 * @end: first address behind the range
 *
 * Context: any in which RCU watches. The answer is stable only as long as the
 * caller keeps attachments from coming and going: with the mmap_lock of @mm,
 * or with interrupts off, since attaching waits for an interrupt on every CPU
 * that runs @mm before it links anything.
 */
static inline bool mshare_overlaps(struct mm_struct *mm, unsigned long start,
				   unsigned long end)
{
	return mm_has_mshare(mm) && __mshare_overlaps(mm, start, end);
}

bool __mshare_cuts(struct mm_struct *mm, unsigned long start,
		   unsigned long end);

/**
 * mshare_cuts() - would unmapping a range leave a part of an attachment?
 * @mm: any mm
 * @start: first address in bytes
 * @end: first address behind the range
 *
 * Context: mmap_lock of @mm held.
 */
static inline bool mshare_cuts(struct mm_struct *mm, unsigned long start,
			       unsigned long end)
{
	return mm_has_mshare(mm) && __mshare_cuts(mm, start, end);
}

int __mshare_recheck(struct mm_struct *mm, unsigned long start,
		     unsigned long len);

/**
 * mshare_recheck() - is the range still outside, as mshare_enter() found?
 * @mm: the mm that the call works on
 * @start: first address in bytes
 * @len: length in bytes
 *
 * A region may have been attached between mshare_enter() and the taking of the
 * mmap_lock.
 *
 * Context: system call; mmap_lock of @mm held.
 * Return: 0, or -ERESTARTNOINTR to be returned from the system call, which
 * starts again.
 */
static inline int mshare_recheck(struct mm_struct *mm, unsigned long start,
				 unsigned long len)
{
	return mm_has_mshare(mm) ? __mshare_recheck(mm, start, len) : 0;
}

unsigned long __mshare_pages(struct mm_struct *mm);

/**
 * mshare_pages() - the part of total_vm that is attachments
 * @mm: any mm
 *
 * Context: mmap_lock of @mm held.
 * Return: pages.
 */
static inline unsigned long mshare_pages(struct mm_struct *mm)
{
	return mm_has_mshare(mm) ? __mshare_pages(mm) : 0;
}

int __mshare_enter(struct mshare_call *call, unsigned long start,
		   unsigned long len, enum mshare_how how);
int __mshare_enter_mmap(struct mshare_call *call, struct file *file,
			unsigned long addr, unsigned long len,
			unsigned long flags);
int __mshare_enter_mremap(struct mshare_call *call, unsigned long addr,
			  unsigned long old_len, unsigned long new_addr,
			  unsigned long new_len, unsigned long flags);
void __mshare_leave(struct mshare_call *call);
unsigned long __mshare_get_unmapped_area(const struct mshare_call *call,
					 struct file *file, unsigned long hint,
					 unsigned long len,
					 unsigned long pgoff);

/* See __mshare_enter() */
static inline int mshare_enter(struct mshare_call *call, unsigned long start,
			       unsigned long len, enum mshare_how how)
{
	if (likely(!mm_has_mshare(call->mm)))
		return 0;
	return __mshare_enter(call, start, len, how);
}

/* See __mshare_enter_mmap() */
static inline int mshare_enter_mmap(struct mshare_call *call,
				    struct file *file, unsigned long addr,
				    unsigned long len, unsigned long flags)
{
	if (likely(!mm_has_mshare(call->mm)))
		return 0;
	return __mshare_enter_mmap(call, file, addr, len, flags);
}

int __mshare_has_mapped(struct vm_area_struct *vma);

/**
 * mshare_has_mapped() - may what a file's ->mmap has made be in a region?
 * @vma: the VMA, not in a tree yet
 *
 * mshare_may_map() is asked before, but some files have another one mapped.
 *
 * Context: mmap_lock of @vma->vm_mm held for writing.
 * Return: 0, or -EINVAL with @vma closed.
 */
static inline int mshare_has_mapped(struct vm_area_struct *vma)
{
	return likely(!mm_is_mshare_host(vma->vm_mm)) ? 0 :
		__mshare_has_mapped(vma);
}

/* See __mshare_enter_mremap() */
static inline int mshare_enter_mremap(struct mshare_call *call,
				      unsigned long addr, unsigned long old_len,
				      unsigned long new_addr,
				      unsigned long new_len,
				      unsigned long flags)
{
	if (likely(!mm_has_mshare(call->mm)))
		return 0;
	return __mshare_enter_mremap(call, addr, old_len, new_addr, new_len,
				     flags);
}

/* See __mshare_leave() */
static inline void mshare_leave(struct mshare_call *call)
{
	if (unlikely(call->region))
		__mshare_leave(call);
}

/**
 * mshare_within() - is an address one that the call may reach up to?
 * @call: from mshare_enter() or its like
 * @end: first address in @call->mm behind a range that begins where the call
 *	 may reach
 *
 * What grows in a region stops at the end of what is attached.
 */
static inline bool mshare_within(const struct mshare_call *call,
				 unsigned long end)
{
	return likely(!call->region) || end <= call->end;
}

/**
 * mshare_place() - where mmap() or mremap() maps what it was told to
 * @call: from mshare_enter_mmap() or mshare_enter_mremap()
 * @file: what is to be mapped, or NULL
 * @addr: the caller's address or hint
 * @len: length in bytes
 * @pgoff: offset in pages
 * @flags: of mmap(2); made MAP_FIXED if it goes to a region
 *
 * Context: mmap_lock of @call->mm held for writing.
 * Return: what to tell do_mmap() or get_unmapped_area(), or -ENOMEM if there is
 * no room in the region.
 */
static inline unsigned long mshare_place(struct mshare_call *call,
					 struct file *file, unsigned long addr,
					 unsigned long len, unsigned long pgoff,
					 unsigned long *flags)
{
	if (likely(!call->region))
		return addr;

	addr += call->delta;
	if (*flags & (MAP_FIXED | MAP_FIXED_NOREPLACE))
		return addr;
	*flags |= MAP_FIXED;
	return __mshare_get_unmapped_area(call, file, addr, len, pgoff);
}

bool mshare_fault_enter(struct mshare_call *call, unsigned long address);
bool mshare_stands(const struct mshare_call *call, struct mm_struct *mm,
		   unsigned long address);
bool mshare_fault_leave(struct mshare_call *call, unsigned long address,
			unsigned int flags, vm_fault_t fault);
bool mshare_oom(struct mshare_call *call);

int mshare_lock_host(struct mshare_call *call, struct vm_area_struct *vma);
void mshare_unlock_host(struct mshare_call *call);

unsigned long __mshare_enter_part(struct mshare_call *call, unsigned long addr,
				  unsigned long end);
void __mshare_leave_part(struct mshare_call *call);
int mshare_look_at(struct mshare_call *call, struct mshare_region *region,
		   unsigned long *addr, bool or_next);
vm_flags_t __mshare_rights(const struct mshare_call *call,
			   const struct vm_area_struct *vma);
unsigned long mshare_nr_sharers(struct mm_struct *host);
unsigned long __mshare_skip_holes(unsigned long addr, unsigned long end);

/* See __mshare_enter_part() */
static inline unsigned long mshare_enter_part(struct mshare_call *call,
					      unsigned long addr,
					      unsigned long end)
{
	if (likely(!mm_has_mshare(call->mm)))
		return end;
	return __mshare_enter_part(call, addr, end);
}

/**
 * mshare_leave_part() - done with a part of a range
 * @call: from mshare_enter_part() or its like
 *
 * Context: no lock of the host held. May sleep, but does not throttle: the
 * caller may hold other locks.
 */
static inline void mshare_leave_part(struct mshare_call *call)
{
	if (unlikely(call->region))
		__mshare_leave_part(call);
}

/* See __mshare_rights() */
static inline vm_flags_t mshare_rights(const struct mshare_call *call,
				       const struct vm_area_struct *vma)
{
	if (likely(!call->region))
		return vma->vm_flags;
	return __mshare_rights(call, vma);
}

/* See __mshare_skip_holes() */
static inline unsigned long mshare_skip_holes(unsigned long addr,
					      unsigned long end)
{
	if (likely(!mm_has_mshare(current->mm)))
		return 0;
	return __mshare_skip_holes(addr, end);
}

#ifdef CONFIG_MMU_NOTIFIER
int __mshare_forward_notifiers(struct mm_struct *mm);
bool __mshare_freeze_mirrors(struct mm_struct *mm);
void __mshare_thaw_mirrors(struct mm_struct *mm);
int __mshare_wait_mirrors(struct mm_struct *mm);
void __mshare_add_mirrors(struct mm_struct *mm);
#endif

/* See __mshare_forward_notifiers(), for this and the next four */
static inline int mshare_forward_notifiers(struct mm_struct *mm)
{
#ifdef CONFIG_MMU_NOTIFIER
	if (unlikely(mm_has_mshare(mm)))
		return __mshare_forward_notifiers(mm);
#endif
	return 0;
}

static inline bool mshare_freeze_mirrors(struct mm_struct *mm)
{
#ifdef CONFIG_MMU_NOTIFIER
	if (unlikely(mm_has_mshare(mm)))
		return __mshare_freeze_mirrors(mm);
#endif
	return true;
}

static inline void mshare_thaw_mirrors(struct mm_struct *mm)
{
#ifdef CONFIG_MMU_NOTIFIER
	if (unlikely(mm_has_mshare(mm)))
		__mshare_thaw_mirrors(mm);
#endif
}

static inline int mshare_wait_mirrors(struct mm_struct *mm)
{
#ifdef CONFIG_MMU_NOTIFIER
	if (unlikely(mm_has_mshare(mm)))
		return __mshare_wait_mirrors(mm);
#endif
	return 0;
}

static inline void mshare_add_mirrors(struct mm_struct *mm)
{
#ifdef CONFIG_MMU_NOTIFIER
	if (unlikely(mm_has_mshare(mm)))
		__mshare_add_mirrors(mm);
#endif
}

bool __mshare_gup_fast(struct mm_struct *mm, unsigned long start,
		       unsigned long end, unsigned int gup_flags);
int __mshare_enter_futex(struct mshare_call *call, unsigned long address,
			 bool write);
bool mshare_task_address(struct task_struct *tsk,
			 const struct vm_area_struct *vma, unsigned long *addr);
bool __mshare_enter_next(struct mshare_call *call, unsigned long *start,
			 unsigned long *end);
vm_flags_t mshare_vm_flags_at(struct vm_area_struct *vma, unsigned long addr,
			      unsigned long *end);

/**
 * mshare_enter_pages() - as mshare_enter_part(), for pages
 * @call: made by MSHARE_CALL() for any mm that the caller holds
 * @start: address of, or in, the first
 * @nr_pages: their number
 *
 * Return: how many of the pages belong to the same; at least one.
 */
static inline unsigned long mshare_enter_pages(struct mshare_call *call,
					       unsigned long start,
					       unsigned long nr_pages)
{
	unsigned long end;

	if (likely(!mm_has_mshare(call->mm)))
		return nr_pages;
	start &= PAGE_MASK;
	end = start + (min(nr_pages, PHYS_PFN(TASK_SIZE_MAX)) << PAGE_SHIFT);
	return PHYS_PFN(__mshare_enter_part(call, start, end) - start);
}

/**
 * mshare_may() - does an attachment allow an access?
 * @call: from mshare_enter_part() or its like
 * @vm_flags: of VM_READ, VM_WRITE and VM_EXEC what is going to be done
 *
 * What is mapped there has its own say.
 */
static inline bool mshare_may(const struct mshare_call *call,
			      vm_flags_t vm_flags)
{
	return likely(!call->region) || !(vm_flags & ~call->vm_flags);
}

/**
 * mshare_gup_fast() - may GUP-fast walk a range?
 * @mm: the current mm
 * @start: first address
 * @end: first address behind the range
 * @gup_flags: FOLL_*
 *
 * The tables of a region are the host's, but walking them without a lock is no
 * different: this CPU takes part in the host's flushes, and nothing is linked
 * or unlinked before it turns interrupts on. Only what the attachment forbids
 * shows in no entry that GUP-fast looks at.
 *
 * Context: interrupts off.
 */
static inline bool mshare_gup_fast(struct mm_struct *mm, unsigned long start,
				   unsigned long end, unsigned int gup_flags)
{
	return likely(!mm_has_mshare(mm)) ||
	       __mshare_gup_fast(mm, start, end, gup_flags);
}

/* See __mshare_enter_futex() */
static inline int mshare_enter_futex(struct mshare_call *call,
				     unsigned long address, bool write)
{
	if (likely(!mm_has_mshare(call->mm)))
		return 0;
	return __mshare_enter_futex(call, address, write);
}

/* See __mshare_enter_next() */
static inline bool mshare_enter_next(struct mshare_call *call,
				     unsigned long *start, unsigned long *end)
{
	if (likely(!mm_has_mshare(call->mm)))
		return false;
	return __mshare_enter_next(call, start, end);
}

int mshare_fork(struct vm_area_struct *dst_vma, struct vm_area_struct *src_vma);
void mshare_unmap(struct vm_area_struct *vma);
void __mshare_exit_host(struct mm_struct *mm);
void __mshare_mmdrop(struct mm_struct *mm);

/**
 * mshare_exit_host() - free the tables that only a region's end may free
 * @mm: any mm in exit_mmap(), with all VMAs gone
 *
 * Context: mmap_lock held for writing, no users left.
 */
static inline void mshare_exit_host(struct mm_struct *mm)
{
	if (unlikely(mm_is_mshare_host(mm)))
		__mshare_exit_host(mm);
}

/**
 * mshare_mmdrop() - the last reference to an mm is gone
 * @mm: any mm in __mmdrop()
 *
 * Frees the region that @mm was the host of.
 */
static inline void mshare_mmdrop(struct mm_struct *mm)
{
	if (unlikely(mm_is_mshare_host(mm)))
		__mshare_mmdrop(mm);
}

struct mem_cgroup *mshare_memcg(struct mm_struct *host);
struct cgroup_subsys_state *mshare_hugetlb_css(struct mm_struct *host);
bool mshare_may_lock(struct mm_struct *host, unsigned long nr_pages);
bool __mshare_is_region(const struct file *file);

/**
 * mshare_is_region() - is a file that of a region?
 * @file: any open file, or NULL
 *
 * Context: any.
 */
static inline bool mshare_is_region(const struct file *file)
{
	return file && __mshare_is_region(file);
}

/**
 * in_mshare() - is the current task at work on a region?
 *
 * Then what it allocates is for the region, which has an active memcg.
 */
static inline bool in_mshare(void)
{
	return current->in_mshare;
}

/**
 * mshare_found_no_victim() - the OOM killer found nobody to kill in a memcg
 *
 * What was to be charged to it is for a region, maybe: see mshare_oom().
 */
static inline void mshare_found_no_victim(void)
{
	if (in_mshare())
		current->mshare_nobody_to_kill = 1;
}

/* Between mm/mshare.c and fs/msharefs/ */
struct mshare_region *mshare_region_create(unsigned long start,
					   unsigned long size);
void mshare_region_kill(struct mshare_region *region);
bool mshare_region_busy(struct mshare_region *region);
void mshare_region_info(struct mshare_region *region, struct mshare_info *info);
unsigned long mshare_region_rss(struct mshare_region *region);
int mshare_mmap(struct file *file, struct vm_area_struct *vma);
unsigned long mshare_region_unmapped_area(struct file *file, unsigned long addr,
					  unsigned long len,
					  unsigned long pgoff,
					  unsigned long flags);

int msharefs_open(const char __user *name, int oflag, umode_t mode,
		  struct mshare_region *(*create)(void *arg),
		  int (*attach_new)(struct file *file, void *arg),
		  int (*attach)(struct file *file, void *arg), void *arg);
int msharefs_unlink(const char __user *name,
		    int (*detach)(struct mshare_region *region));
bool msharefs_has_name(struct file *file);
struct mshare_region *msharefs_region(struct file *file);

/* fs/proc/task_mmu.c: PROCMAP_QUERY on the file of a region */
#ifdef CONFIG_PROC_FS
int proc_query_region(struct mshare_region *region, void __user *uarg);
#else
static inline int proc_query_region(struct mshare_region *region,
				    void __user *uarg)
{
	return -ENOTTY;
}
#endif

/* The architecture's part: arch/x86/mm/tlb.c, arch/x86/include/asm/mshare.h */
void arch_mshare_publish(struct mm_struct *mm);

#else /* !CONFIG_MSHARE */

static inline bool mm_is_mshare_host(const struct mm_struct *mm)
{
	return false;
}

static inline bool mm_has_mshare(const struct mm_struct *mm)
{
	return false;
}

static inline int mshare_has_mapped(struct vm_area_struct *vma)
{
	return 0;
}

static inline void mshare_found_no_victim(void)
{
}

static inline bool mm_attached_to(const struct mm_struct *mm,
				  const struct mm_struct *host)
{
	return false;
}

static inline const struct mshare_attachment *
mm_attachment_of(const struct mm_struct *mm, const struct mm_struct *host)
{
	return NULL;
}

static inline unsigned long mshare_seen_at(const struct mm_struct *mm,
					   unsigned long addr)
{
	return addr;
}

static inline bool mshare_seen_vma(const struct vm_area_struct *vma,
				   unsigned long *start, unsigned long *end,
				   unsigned long *pgoff)
{
	*start = vma->vm_start;
	*end = vma->vm_end;
	*pgoff = vma->vm_pgoff;
	return true;
}

static inline bool vma_in_mshare_of(const struct mm_struct *mm,
				    const struct vm_area_struct *vma)
{
	return false;
}

static inline void mshare_mm_init(struct mm_struct *mm)
{
}

static inline bool mshare_overlaps(struct mm_struct *mm, unsigned long start,
				   unsigned long end)
{
	return false;
}

static inline bool mshare_cuts(struct mm_struct *mm, unsigned long start,
			       unsigned long end)
{
	return false;
}

static inline int mshare_recheck(struct mm_struct *mm, unsigned long start,
				 unsigned long len)
{
	return 0;
}

static inline unsigned long mshare_pages(struct mm_struct *mm)
{
	return 0;
}

static inline int mshare_enter(struct mshare_call *call, unsigned long start,
			       unsigned long len, enum mshare_how how)
{
	return 0;
}

static inline int mshare_enter_mmap(struct mshare_call *call,
				    struct file *file, unsigned long addr,
				    unsigned long len, unsigned long flags)
{
	return 0;
}

static inline int mshare_enter_mremap(struct mshare_call *call,
				      unsigned long addr, unsigned long old_len,
				      unsigned long new_addr,
				      unsigned long new_len,
				      unsigned long flags)
{
	return 0;
}

static inline void mshare_leave(struct mshare_call *call)
{
}

static inline bool mshare_within(const struct mshare_call *call,
				 unsigned long end)
{
	return true;
}

static inline unsigned long mshare_place(struct mshare_call *call,
					 struct file *file, unsigned long addr,
					 unsigned long len, unsigned long pgoff,
					 unsigned long *flags)
{
	return addr;
}

static inline bool mshare_fault_enter(struct mshare_call *call,
				      unsigned long address)
{
	return false;
}

static inline bool mshare_stands(const struct mshare_call *call,
				 struct mm_struct *mm, unsigned long address)
{
	return true;
}

static inline bool mshare_fault_leave(struct mshare_call *call,
				      unsigned long address, unsigned int flags,
				      vm_fault_t fault)
{
	return true;
}

static inline bool mshare_oom(struct mshare_call *call)
{
	return false;
}

static inline int mshare_lock_host(struct mshare_call *call,
				   struct vm_area_struct *vma)
{
	return -EINVAL;
}

static inline void mshare_unlock_host(struct mshare_call *call)
{
}

static inline unsigned long mshare_enter_part(struct mshare_call *call,
					      unsigned long addr,
					      unsigned long end)
{
	return end;
}

static inline void mshare_leave_part(struct mshare_call *call)
{
}

static inline int mshare_look_at(struct mshare_call *call,
				 struct mshare_region *region,
				 unsigned long *addr, bool or_next)
{
	return -EPERM;
}

static inline vm_flags_t mshare_rights(const struct mshare_call *call,
				       const struct vm_area_struct *vma)
{
	return vma->vm_flags;
}

static inline unsigned long mshare_nr_sharers(struct mm_struct *host)
{
	return 1;
}

static inline unsigned long mshare_skip_holes(unsigned long addr,
					      unsigned long end)
{
	return 0;
}

static inline int mshare_forward_notifiers(struct mm_struct *mm)
{
	return 0;
}

static inline bool mshare_freeze_mirrors(struct mm_struct *mm)
{
	return true;
}

static inline unsigned long mshare_enter_pages(struct mshare_call *call,
					       unsigned long start,
					       unsigned long nr_pages)
{
	return nr_pages;
}

static inline bool mshare_may(const struct mshare_call *call,
			      vm_flags_t vm_flags)
{
	return true;
}

static inline void mshare_thaw_mirrors(struct mm_struct *mm)
{
}

static inline int mshare_wait_mirrors(struct mm_struct *mm)
{
	return 0;
}

static inline void mshare_add_mirrors(struct mm_struct *mm)
{
}

static inline bool mshare_gup_fast(struct mm_struct *mm, unsigned long start,
				   unsigned long end, unsigned int gup_flags)
{
	return true;
}

static inline int mshare_enter_futex(struct mshare_call *call,
				     unsigned long address, bool write)
{
	return 0;
}

static inline bool mshare_task_address(struct task_struct *tsk,
				       const struct vm_area_struct *vma,
				       unsigned long *addr)
{
	return false;
}

static inline bool mshare_enter_next(struct mshare_call *call,
				     unsigned long *start, unsigned long *end)
{
	return false;
}

static inline vm_flags_t mshare_vm_flags_at(struct vm_area_struct *vma,
					    unsigned long addr,
					    unsigned long *end)
{
	*end = vma->vm_end;
	return vma->vm_flags;
}

static inline int mshare_fork(struct vm_area_struct *dst_vma,
			      struct vm_area_struct *src_vma)
{
	return 0;
}

static inline void mshare_unmap(struct vm_area_struct *vma)
{
}

static inline void mshare_exit_host(struct mm_struct *mm)
{
}

static inline void mshare_mmdrop(struct mm_struct *mm)
{
}

static inline struct mem_cgroup *mshare_memcg(struct mm_struct *host)
{
	return NULL;
}

static inline struct cgroup_subsys_state *
mshare_hugetlb_css(struct mm_struct *host)
{
	return NULL;
}

static inline bool mshare_may_lock(struct mm_struct *host,
				   unsigned long nr_pages)
{
	return true;
}

static inline bool mshare_is_region(const struct file *file)
{
	return false;
}

static inline bool in_mshare(void)
{
	return false;
}

#endif /* CONFIG_MSHARE */

#endif /* _LINUX_MSHARE_H */
