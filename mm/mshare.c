// SPDX-License-Identifier: GPL-2.0
/*
 * mshare: share a range of address space, VMAs and page tables and all,
 * between unrelated processes.
 *
 * A region has a host mm, an mm_struct without threads, that owns the VMAs,
 * the page tables and the counters of what is mapped in it. A process is
 * attached through one VMA in its own mm (VM_MSHARE) and P4D entries that
 * point at the host's PUD tables. Everything the process does there, faults
 * and memory calls alike, is done on the host.
 *
 * Lifetime. The inode of the region's file in msharefs owns the region; the
 * file's name, its open descriptors and the attachments (vm_file) hold the
 * inode. Its eviction kills &mshare_region.users, which faults and calls hold
 * while they work on the host without any lock of an attached mm. When that
 * is zero, the region's reference to the host mm is put. Others may hold the
 * host a little longer (swapoff, KSM, khugepaged) and still charge memory
 * through it, so the region itself goes with the host's last reference.
 *
 * Locking. mm_struct::mmap_lock of an attached mm and that of a host do not
 * nest here: who comes from an attached mm takes a reference to the region
 * and lets go of the attached mm first. So a fault whose page never comes
 * stalls those who want the page and no one else.
 *
 * Documentation/mm/mshare.rst has the whole story; what must be flushed, and
 * when, is told in arch/x86/mm/tlb.c.
 */
#include <linux/cgroup.h>
#include <linux/cred.h>
#include <linux/fs.h>
#include <linux/hugetlb.h>
#include <linux/major.h>
#include <linux/memcontrol.h>
#include <linux/mm.h>
#include <linux/mm_inline.h>
#include <linux/mman.h>
#include <linux/mmu_context.h>
#include <linux/mmu_notifier.h>
#include <linux/mshare.h>
#include <linux/backing-dev.h>
#include <linux/percpu-refcount.h>
#include <linux/sched/coredump.h>
#include <linux/sched/mm.h>
#include <linux/security.h>
#include <linux/shmem_fs.h>
#include <linux/slab.h>
#include <linux/syscalls.h>
#include <linux/user_namespace.h>
#include <uapi/linux/mshare.h>

#include <asm/mshare.h>
#include <asm/pgalloc.h>
#include <asm/tlb.h>

#include "internal.h"
#include "mshare_internal.h"

/* The host's mmap_lock may be taken where an attached mm's is held. */
static struct lock_class_key mshare_host_mmap_lock_key;

/*
 * Locked memory
 *
 * It is charged to the user who created the region, as that of a SysV segment
 * is: it has nobody's lifetime but the region's. Who locks more asks
 * mshare_may_lock(), which charges at once, so that two who ask at a time don't
 * both get the last page; and mshare_settle_locked() makes good for what a call
 * did not lock after all, or unlocked.
 */

static DEFINE_SPINLOCK(mshare_memlock_lock);

/**
 * mshare_may_lock() - may so much more be locked in a region?
 * @host: the region's host
 * @nr_pages: how much more, in pages
 *
 * The limit is the caller's. To be followed by mshare_leave().
 *
 * Context: system call; mmap_lock of @host held for writing.
 */
bool mshare_may_lock(struct mm_struct *host, unsigned long nr_pages)
{
	struct mshare_region *region = host->mshare_region;
	unsigned long limit = rlimit(RLIMIT_MEMLOCK);
	bool may = true;
	long locked;

	mmap_assert_write_locked(host);
	if (limit != RLIM_INFINITY)
		limit >>= PAGE_SHIFT;

	/* Who fails must not make another fail. */
	spin_lock(&mshare_memlock_lock);
	locked = inc_rlimit_ucounts(region->ucounts, UCOUNT_RLIMIT_MEMLOCK,
				    nr_pages);
	if ((locked == LONG_MAX || locked > limit) && !capable(CAP_IPC_LOCK)) {
		dec_rlimit_ucounts(region->ucounts, UCOUNT_RLIMIT_MEMLOCK,
				   nr_pages);
		may = false;
	}
	spin_unlock(&mshare_memlock_lock);

	if (may)
		WRITE_ONCE(region->locked, region->locked + nr_pages);
	return may;
}

/* The host's mmap_lock is held for writing. */
void mshare_charge_locked(struct mshare_region *region,
			  unsigned long nr_pages)
{
	long more = nr_pages - region->locked;

	if (more > 0)
		inc_rlimit_ucounts(region->ucounts, UCOUNT_RLIMIT_MEMLOCK, more);
	else if (more < 0)
		dec_rlimit_ucounts(region->ucounts, UCOUNT_RLIMIT_MEMLOCK, -more);
	WRITE_ONCE(region->locked, nr_pages);
}

/*
 * At the end of every call, with no lock held. If the counts are seen equal
 * while another call is changing them then that one will see to it.
 */
static void mshare_settle_locked(struct mm_struct *host)
{
	struct mshare_region *region = host->mshare_region;

	if (likely(READ_ONCE(region->locked) == READ_ONCE(host->locked_vm)))
		return;
	/*
	 * Whoever has the lock may wait for a page that never comes. A task
	 * that was killed doesn't; the next call, or the end, settles it.
	 */
	if (mmap_write_lock_killable(host))
		return;
	mshare_charge_locked(region, host->locked_vm);
	mmap_write_unlock(host);
}

/*
 * The hugetlb cgroup
 */

#ifdef CONFIG_CGROUP_HUGETLB
static void mshare_get_hugetlb_css(struct mshare_region *region)
{
	region->hugetlb_css = task_get_css(current, hugetlb_cgrp_id);
}

static void mshare_put_hugetlb_css(struct mshare_region *region)
{
	css_put(region->hugetlb_css);
}

/**
 * mshare_hugetlb_css() - the hugetlb cgroup that pays for a region
 * @host: the region's host mm
 *
 * A cgroup that was removed is represented by its nearest ancestor that was
 * not.
 *
 * Context: any; the region holds the cgroup and that its ancestors.
 */
struct cgroup_subsys_state *mshare_hugetlb_css(struct mm_struct *host)
{
	struct cgroup_subsys_state *css = host->mshare_region->hugetlb_css;

	while (css_is_dying(css))
		css = css->parent;
	return css;
}
#else
static void mshare_get_hugetlb_css(struct mshare_region *region)
{
}

static void mshare_put_hugetlb_css(struct mshare_region *region)
{
}
#endif

/*
 * Regions
 */

static void mshare_region_release(struct percpu_ref *ref)
{
	struct mshare_region *region = container_of(ref, struct mshare_region,
						    users);

	/* In RCU context: exit_mmap() is for a worker. */
	mmput_async(region->mm);
}

/*
 * What an mm gets from the task that makes it, or at exec, and what a host
 * must not have, or have different.
 */
static void mshare_init_host(struct mm_struct *mm, struct mshare_region *region)
{
#ifdef CONFIG_MEMCG
	/* Nobody's: the region says who pays. The creator may be gone soon. */
	WRITE_ONCE(mm->owner, NULL);
#endif
	mm->mshare_region = region;
	/* No THP policy, KSM, MDWE or core dump filter of the creator's. */
	mm->flags = 0;
	mm->def_flags = 0;
	mm->task_size = TASK_SIZE_MAX;
	mm->mmap_base = region->start + region->size;
	mm->mmap_legacy_base = region->start;
	lockdep_set_class(&mm->mmap_lock, &mshare_host_mmap_lock_key);
}

/* Give every granule of the region its PUD table, for good. */
static int mshare_alloc_tables(struct mshare_region *region)
{
	unsigned long addr, end = region->start + region->size;
	struct mm_struct *mm = region->mm;

	for (addr = region->start; addr != end; addr += MSHARE_GRANULE) {
		p4d_t *p4d = p4d_alloc(mm, pgd_offset(mm, addr), addr);

		if (!p4d || !pud_alloc(mm, p4d, addr))
			return -ENOMEM;
		if (fatal_signal_pending(current))
			return -EINTR;
		cond_resched();
	}
	return 0;
}

/**
 * mshare_pud_table() - the PUD table of a granule
 * @host: the host
 * @addr: an address in the granule, in the host
 *
 * Context: any; the table of a region that is attached somewhere is constant.
 */
pud_t *mshare_pud_table(struct mm_struct *host, unsigned long addr)
{
	p4d_t *p4d = p4d_offset(pgd_offset(host, addr), addr);

	return p4d_pgtable(READ_ONCE(*p4d));
}

/**
 * mshare_region_create() - make an empty region
 * @start: its first address, a multiple of the granule
 * @size: its length in bytes, a multiple of the granule
 *
 * The memory cgroup of the calling process is to pay for it.
 *
 * Context: may sleep; no mmap_lock held.
 * Return: the region, to be given to mshare_region_kill() in the end, or an
 * ERR_PTR.
 */
struct mshare_region *mshare_region_create(unsigned long start,
					   unsigned long size)
{
	struct mshare_region *region;
	int err;

	region = kzalloc(sizeof(*region), GFP_KERNEL_ACCOUNT);
	if (!region)
		return ERR_PTR(-ENOMEM);

	region->start = start;
	region->size = size;
	region->creator = current;
	mshare_init_mirrors(region);

	err = -ENOMEM;
	region->ucounts = get_ucounts(current_ucounts());
	if (!region->ucounts)
		goto free_region;

	err = percpu_ref_init(&region->users, mshare_region_release, 0,
			      GFP_KERNEL_ACCOUNT);
	if (err)
		goto put_ucounts;

	err = -ENOMEM;
	region->mm = mm_alloc();
	if (!region->mm)
		goto exit_ref;

	region->memcg = get_mem_cgroup_from_mm(current->mm);
	mshare_get_hugetlb_css(region);
	mshare_init_host(region->mm, region);
	lru_gen_add_mm(region->mm);

	err = mshare_alloc_tables(region);
	if (err) {
		mshare_region_kill(region);
		return ERR_PTR(err);
	}
	return region;

exit_ref:
	percpu_ref_exit(&region->users);
put_ucounts:
	put_ucounts(region->ucounts);
free_region:
	kfree(region);
	return ERR_PTR(err);
}

/**
 * mshare_region_kill() - nobody can come to the region any more
 * @region: the region; no attachments are left
 *
 * The region and its memory go when the last fault or call in it is done.
 *
 * Context: any task context, never waits: a task that is at work in the
 * region may wait for the caller.
 */
void mshare_region_kill(struct mshare_region *region)
{
	percpu_ref_kill(&region->users);
}

/**
 * __mshare_exit_host() - free the PUD tables of a region
 * @mm: the host
 *
 * free_pgd_range() leaves them, and the P4D tables above, to attached mms.
 * There are none any more, but a lockless walker (GUP-fast) may still be
 * below them, so they are freed as page tables are.
 *
 * What was locked is not any more.
 *
 * Context: exit_mmap(), mmap_lock held for writing.
 */
void __mshare_exit_host(struct mm_struct *mm)
{
	struct mshare_region *region = mm->mshare_region;
	unsigned long addr, end = region->start + region->size;
	struct mmu_gather gather, *tlb = &gather;

	mshare_charge_locked(region, 0);
	mshare_exit_mirrors(region);

	tlb_gather_mmu_fullmm(tlb, mm);
	for (addr = region->start; addr != end; addr += MSHARE_GRANULE) {
		pgd_t *pgd = pgd_offset(mm, addr);
		pud_t *pud;
		p4d_t *p4d;

		/* The tables of a region whose creation failed may lack some. */
		if (pgd_none(*pgd))
			continue;
		p4d = p4d_offset(pgd, addr);
		if (!p4d_none(*p4d)) {
			pud = p4d_pgtable(*p4d);
			p4d_clear(p4d);
			pud_free_tlb(tlb, pud, addr);
			mm_dec_nr_puds(mm);
		}
		/* With 4 levels this is nothing: the P4D is the PGD. */
		if (!mm_p4d_folded(mm) &&
		    (addr + MSHARE_GRANULE == end ||
		     !((addr + MSHARE_GRANULE) & ~PGDIR_MASK))) {
			p4d = p4d_offset(pgd, addr & PGDIR_MASK);
			pgd_clear(pgd);
			p4d_free_tlb(tlb, p4d, addr);
		}
	}
	tlb_finish_mmu(tlb);
}

/**
 * __mshare_mmdrop() - free the region whose host is gone
 * @mm: the host
 *
 * Context: __mmdrop(), nobody knows of @mm any more.
 */
void __mshare_mmdrop(struct mm_struct *mm)
{
	struct mshare_region *region = mm->mshare_region;

	percpu_ref_exit(&region->users);
	mem_cgroup_put(region->memcg);
	mshare_put_hugetlb_css(region);
	put_ucounts(region->ucounts);
	kfree(region);
}

/**
 * mshare_memcg() - the memory cgroup that pays for a region
 * @host: the region's host mm
 *
 * A cgroup that was removed is represented by its nearest ancestor that was
 * not.
 *
 * Context: any; the region holds the cgroup and that its ancestors.
 * Return: NULL without memory cgroups.
 */
struct mem_cgroup *mshare_memcg(struct mm_struct *host)
{
	struct mem_cgroup *memcg = host->mshare_region->memcg;

	while (memcg && !mem_cgroup_online(memcg))
		memcg = parent_mem_cgroup(memcg);
	return memcg;
}

/**
 * mshare_region_busy() - is anybody attached?
 * @region: the region
 */
bool mshare_region_busy(struct mshare_region *region)
{
	return atomic_long_read(&region->nr_attached);
}

/**
 * mshare_region_info() - what a region's file says of it
 * @region: the region
 * @info: filled in
 */
void mshare_region_info(struct mshare_region *region, struct mshare_info *info)
{
	*info = (struct mshare_info) {
		.start		= region->start,
		.size		= region->size,
		.nr_attached	= atomic_long_read(&region->nr_attached),
	};
}

/**
 * mshare_region_rss() - resident memory of a region
 * @region: the region
 *
 * Return: pages.
 */
unsigned long mshare_region_rss(struct mshare_region *region)
{
	struct mm_struct *mm = region->mm;

	return get_mm_counter_sum(mm, MM_FILEPAGES) +
	       get_mm_counter_sum(mm, MM_ANONPAGES) +
	       get_mm_counter_sum(mm, MM_SHMEMPAGES) + hugetlb_count(mm);
}

/*
 * Attaching and detaching
 */

/*
 * What to add to an address of an attachment to get that in the host: the one
 * place that knows.
 */
static unsigned long mshare_delta(struct mshare_region *region,
				  unsigned long start, unsigned long pgoff)
{
	return region->start + (pgoff << PAGE_SHIFT) - start;
}

static struct mshare_attachment *mshare_find_region(struct mm_struct *mm,
						    struct mshare_region *region)
{
	struct mshare_attachment *att;

	for_each_mshare_attachment(att, mm)
		if (att->region == region)
			return att;
	return NULL;
}

/**
 * mshare_find() - the attachment that an address is in
 * @mm: any mm
 * @addr: an address of it
 *
 * Context: RCU read side, or whatever else keeps the list.
 * Return: NULL if it is in none.
 */
struct mshare_attachment *mshare_find(struct mm_struct *mm, unsigned long addr)
{
	struct mshare_attachment *att;

	for_each_mshare_attachment(att, mm)
		if (att->start <= addr && addr < att->end)
			return att;
	return NULL;
}

/**
 * mshare_new_attachment() - all that attaching may fail for
 * @vma: the VMA that attaches a region, of a file of msharefs
 *
 * Of the P4D tables that this makes in the mm, unmapping @vma, once it is in
 * the mm's tree, frees the unused.
 *
 * Context: mmap_lock of the mm held for writing or, in fork, the mm is not
 * visible to anyone.
 * Return: what mshare_publish() is to be called with, or kfree(); or NULL.
 */
struct mshare_attachment *mshare_new_attachment(struct vm_area_struct *vma)
{
	struct mshare_region *region = vma->vm_private_data;
	struct mm_struct *mm = vma->vm_mm;
	struct mshare_attachment *att;
	unsigned long addr;

	for (addr = vma->vm_start; addr != vma->vm_end; addr += MSHARE_GRANULE)
		if (!p4d_alloc(mm, pgd_offset(mm, addr), addr))
			return NULL;

	att = kmalloc(sizeof(*att), GFP_KERNEL_ACCOUNT);
	if (!att)
		return NULL;
	att->region = region;
	att->host = region->mm;
	att->mm = mm;
	INIT_HLIST_NODE(&att->mirror);
	att->start = vma->vm_start;
	att->end = vma->vm_end;
	att->delta = mshare_delta(region, vma->vm_start, vma->vm_pgoff);
	att->vm_flags = vma->vm_flags;
	return att;
}

/**
 * mshare_publish() - attach an mm, but for the link in its page tables
 * @mm: the mm
 * @att: from mshare_new_attachment()
 *
 * When it returns, every CPU that runs @mm, or is going to, takes part in the
 * flushes of the host (see arch_mshare_publish()), faults and memory calls of
 * @mm in the range go to the host, and no lockless walk of the range by @mm is
 * under way that does not know of the attachment: each has interrupts off and
 * looks for attachments first. And the notifiers of @mm, if it has any, are told
 * of all that is going to be invalidated in the host; mshare_forward() has seen
 * to that.
 *
 * Context: as mshare_new_attachment(). May sleep.
 */
void mshare_publish(struct mm_struct *mm, struct mshare_attachment *att)
{
	atomic_long_inc(&att->region->nr_attached);
	mshare_add_mirror(att);
	hlist_add_head_rcu(&att->node, &mm->mshare_attachments);
	arch_mshare_publish(mm);
}

/**
 * mshare_link() - link a region's tables into an mm
 * @mm: the mm
 * @att: published before
 *
 * Context: as mshare_new_attachment().
 */
void mshare_link(struct mm_struct *mm, struct mshare_attachment *att)
{
	unsigned long addr;

	for (addr = att->start; addr != att->end; addr += MSHARE_GRANULE) {
		pud_t *pud = mshare_pud_table(att->host, addr + att->delta);
		p4d_t *p4d = p4d_offset(pgd_offset(mm, addr), addr);

		VM_WARN_ON_ONCE(!p4d_none(*p4d));
		set_p4d(p4d, arch_mshare_p4d(pud, att->vm_flags));
	}
}

/*
 * Attach the mm of @vma, whose making may fail later, or which may not be in
 * the mm's tree yet.
 */
static int mshare_splice(struct vm_area_struct *vma)
{
	struct mshare_attachment *att = mshare_new_attachment(vma);
	int err;

	if (!att)
		return -ENOMEM;
	if (mm_has_notifiers(vma->vm_mm)) {
		err = mshare_forward(att->region);
		if (err) {
			kfree(att);
			return err == -EINTR ? -ERESTARTNOINTR : err;
		}
	}

	/* Nothing fails from here on. */
	mshare_publish(vma->vm_mm, att);
	mshare_link(vma->vm_mm, att);
	return 0;
}

/**
 * mshare_unmap() - unlink a region's tables from an mm
 * @vma: the attachment, which is being unmapped
 *
 * Idempotent, and does nothing for an attachment whose making failed.
 *
 * Context: the mmap_lock of its mm is held for writing, or the mm has no users.
 * May sleep.
 */
void mshare_unmap(struct vm_area_struct *vma)
{
	struct mm_struct *mm = vma->vm_mm;
	struct mshare_attachment *att;
	unsigned long addr;

	att = mshare_find(mm, vma->vm_start);
	if (!att)
		return;

	for (addr = att->start; addr != att->end; addr += MSHARE_GRANULE)
		p4d_clear(p4d_offset(pgd_offset(mm, addr), addr));

	/*
	 * The translations below are valid in the host, where nothing happens
	 * to them: nobody but us will flush them, nor what the CPU, even in
	 * lazy mode, remembers of the tables. Only when no CPU has any left may
	 * the mm be taken off those that take part in the host's flushes, and
	 * the reference to the region, which is the attachment's file, be put.
	 */
	flush_tlb_mm(mm);

	/*
	 * Who finds it would go on and fault a page in for nothing, again and
	 * again: before something is waited for.
	 */
	hlist_del_rcu(&att->node);

	/*
	 * Nor has a secondary MMU any: this is between the start and the end
	 * of an invalidation of the range in @mm (unmap_vmas()).
	 */
	mshare_del_mirror(att);

	atomic_long_dec(&att->region->nr_attached);
	kfree_rcu(att, rcu);
}

/**
 * mshare_fork() - attach a child
 * @dst_vma: the attachment in the child's mm, in its tree already
 * @src_vma: the attachment in the parent's mm
 *
 * Context: dup_mmap(), both mmap_locks held for writing.
 * Return: 0 or -ENOMEM, and then unmapping @dst_vma cleans up.
 */
int mshare_fork(struct vm_area_struct *dst_vma, struct vm_area_struct *src_vma)
{
	return mshare_splice(dst_vma);
}

/* The core asks before it cuts a VMA in two, whoever wants it. */
static int mshare_may_split(struct vm_area_struct *vma, unsigned long addr)
{
	return -EINVAL;
}

static vm_fault_t mshare_no_fault(struct vm_fault *vmf)
{
	return VM_FAULT_SIGBUS;
}

static const struct vm_operations_struct mshare_vm_ops = {
	.may_split	= mshare_may_split,
	.fault		= mshare_no_fault,
};

/* A range that a region, or a part of one, can be in. */
static bool mshare_range_ok(unsigned long addr, unsigned long len)
{
	return addr && len && IS_ALIGNED(addr | len, MSHARE_GRANULE) &&
	       len <= TASK_SIZE && addr <= TASK_SIZE - len;
}

/*
 * May @len bytes of @region, from @pgoff on, be attached to the current mm at
 * @addr? mmap_lock is held.
 */
static int mshare_may_attach(struct mshare_region *region, unsigned long addr,
			     unsigned long len, unsigned long pgoff)
{
	/* Pairs with mshare_attach_new() */
	struct task_struct *creator = smp_load_acquire(&region->creator);
	unsigned long pages = region->size >> PAGE_SHIFT;

	if (!mshare_range_ok(addr, len) ||
	    !IS_ALIGNED(pgoff, MSHARE_GRANULE >> PAGE_SHIFT) ||
	    pgoff >= pages || len >> PAGE_SHIFT > pages - pgoff)
		return -EINVAL;
	/*
	 * Adoption is going to replace the tables. Who watches files being
	 * opened (fanotify) may have the file already.
	 */
	if (creator && creator != current)
		return -EBUSY;
	return 0;
}

/* What an attachment with the rights of @prot has in its VMA. */
static vm_flags_t mshare_vm_flags(unsigned long prot)
{
	vm_flags_t flags = VM_MSHARE | VM_SHARED | VM_MAYSHARE | VM_READ |
			   VM_MAYREAD | VM_DONTEXPAND | VM_DONTDUMP;

	if (prot & PROT_WRITE)
		flags |= VM_WRITE | VM_MAYWRITE;
	if (prot & PROT_EXEC)
		flags |= VM_EXEC | VM_MAYEXEC;
	return flags;
}

/**
 * mshare_new_vma() - the VMA that attaches all of a region, not from mmap()
 * @mm: its mm
 * @file: the region's file
 * @start: first address
 * @end: first address behind it
 * @vm_flags: from mshare_vm_flags()
 *
 * Return: the VMA, to be freed by remove_vma(), or NULL.
 */
struct vm_area_struct *mshare_new_vma(struct mm_struct *mm, struct file *file,
				      unsigned long start, unsigned long end,
				      vm_flags_t vm_flags)
{
	struct vm_area_struct *vma = vm_area_alloc(mm);

	if (!vma)
		return NULL;
	vma_set_range(vma, start, end, 0);
	/* As every new VMA, it counts as written to. */
	vm_flags_init(vma, vm_flags | VM_SOFTDIRTY);
	vma_set_page_prot(vma);
	vma->vm_file = get_file(file);
	vma->vm_ops = &mshare_vm_ops;
	vma->vm_private_data = msharefs_region(file);
	return vma;
}

/**
 * mshare_mmap() - make a VMA an attachment: mmap of a region's file
 * @file: the region's file
 * @vma: the new VMA
 *
 * Context: mmap_lock of the current mm held for writing.
 * Return: 0 or a negative error.
 */
int mshare_mmap(struct file *file, struct vm_area_struct *vma)
{
	struct mshare_region *region = msharefs_region(file);
	unsigned long prot = 0;
	int err;

	if (!(vma->vm_flags & VM_MAYSHARE))
		return -EINVAL;
	/* By a file that has this one mapped for it: see mshare_may_map(). */
	if (mm_is_mshare_host(vma->vm_mm))
		return -EINVAL;
	err = mshare_may_attach(region, vma->vm_start,
				vma->vm_end - vma->vm_start, vma->vm_pgoff);
	if (err)
		return err;
	if (mshare_find_region(vma->vm_mm, region))
		return -EBUSY;

	/* What was asked for and granted, and never more than that. */
	if (vma->vm_flags & VM_WRITE)
		prot |= PROT_WRITE;
	if (vma->vm_flags & VM_EXEC)
		prot |= PROT_EXEC;

	vma->vm_ops = &mshare_vm_ops;
	vma->vm_private_data = region;
	vma_start_write(vma);
	vm_flags_reset(vma, mshare_vm_flags(prot));
	return mshare_splice(vma);
}

/**
 * mshare_region_unmapped_area() - where mmap() of a region's file puts it
 * @file: the region's file
 * @addr: where, or 0 for where it is in the host
 * @len: length in bytes
 * @pgoff: offset in the region, in pages
 * @flags: of mmap(2)
 *
 * Never anywhere else: what is in a region may point to it, so that an address
 * is no mere hint. Refuses what mshare_mmap() would refuse, before what is
 * mapped there now is unmapped for it.
 *
 * Context: mmap_lock of the current mm held for writing.
 * Return: the address or a negative error.
 */
unsigned long mshare_region_unmapped_area(struct file *file, unsigned long addr,
					  unsigned long len,
					  unsigned long pgoff,
					  unsigned long flags)
{
	struct mshare_region *region = msharefs_region(file);
	struct mshare_attachment *att;
	int err;

	if ((flags & MAP_TYPE) != MAP_SHARED &&
	    (flags & MAP_TYPE) != MAP_SHARED_VALIDATE)
		return -EINVAL;
	/* If that wraps then @pgoff is not one in the region. */
	if (!addr && !(flags & MAP_FIXED))
		addr = region->start + (pgoff << PAGE_SHIFT);

	err = mshare_may_attach(region, addr, len, pgoff);
	if (err)
		return err;

	if (!(flags & MAP_FIXED)) {
		if (find_vma_intersection(current->mm, addr, addr + len))
			return -EBUSY;
		return addr;
	}

	/* Attached, and not where it is going to be replaced? */
	att = mshare_find_region(current->mm, region);
	if (att && (att->start < addr || att->end > addr + len))
		return -EBUSY;
	return addr;
}

/*
 * What mshare() attaches with: execution too, but where the file's mount or the
 * task says no. The security modules are asked as they are for an mmap(), with
 * no lock held that they may want.
 *
 * Return: PROT_* or a negative error.
 */
static long mshare_attach_prot(struct file *file, unsigned long addr)
{
	unsigned long prot = PROT_READ;
	int err;

	if (file->f_mode & FMODE_WRITE)
		prot |= PROT_WRITE;
	if (!path_noexec(&file->f_path) &&
	    !test_bit(MMF_HAS_MDWE, &current->mm->flags))
		prot |= PROT_EXEC;

	err = security_mmap_file(file, prot, MAP_SHARED | MAP_FIXED);
	if (err)
		return err;
	err = security_mmap_addr(addr);
	if (err)
		return err;
	return prot;
}

/*
 * Attach @len bytes of the region of @file, from @pgoff on, to the current
 * process at @addr. What is mapped in the range is in the way, or, with @adopt,
 * becomes the content of the region, which is at its own address then.
 */
static int mshare_attach(struct file *file, unsigned long prot,
			 unsigned long addr, unsigned long len,
			 unsigned long pgoff, bool adopt)
{
	struct mshare_region *region = msharefs_region(file);
	struct mm_struct *mm = current->mm;
	unsigned long ret;
	int err;

	if (mmap_write_lock_killable(mm))
		return -EINTR;

	err = mshare_may_attach(region, addr, len, pgoff);
	if (err)
		goto unlock;
	err = -EBUSY;
	if (mshare_find_region(mm, region))
		goto unlock;
	if (find_vma_intersection(mm, addr, addr + len)) {
		if (adopt)
			err = mshare_adopt(file, region->mm, addr, addr + len,
					   mshare_vm_flags(prot));
		goto unlock;
	}
	err = -ENOMEM;
	if (mm->map_count > sysctl_max_map_count)
		goto unlock;

	/*
	 * Not do_mmap(): mlockall(MCL_FUTURE) is none of a region's business,
	 * and nor is a limit on what is locked.
	 */
	ret = mmap_region(mm, file, addr, len, mshare_vm_flags(prot), pgoff,
			  NULL);
	err = IS_ERR_VALUE(ret) ? (int)ret : 0;
unlock:
	mmap_write_unlock(mm);
	return err;
}

/*
 * Detach the current process from a region.
 * Return: 1 if it was attached, 0 if not, or a negative error.
 */
static int mshare_detach(struct mshare_region *region)
{
	struct mm_struct *mm = current->mm;
	struct mshare_attachment *att;
	int ret = 0;

	if (mmap_write_lock_killable(mm))
		return -EINTR;
	att = mshare_find_region(mm, region);
	if (att) {
		ret = do_munmap(mm, att->start, att->end - att->start, NULL);
		if (!ret)
			ret = 1;
	}
	mmap_write_unlock(mm);
	return ret;
}

/*
 * The two system calls
 */

struct mshare_args {
	unsigned long addr;
	unsigned long len;
};

static struct mshare_region *mshare_make_region(void *arg)
{
	const struct mshare_args *args = arg;

	return mshare_region_create(args->addr, args->len);
}

static int mshare_attach_new(struct file *file, void *arg)
{
	const struct mshare_args *args = arg;
	struct mshare_region *region = msharefs_region(file);
	long prot = mshare_attach_prot(file, args->addr);
	int err;

	if (prot < 0)
		return prot;
	err = mshare_attach(file, prot, args->addr, args->len, 0, true);
	/* The tables are final now: pairs with mshare_may_attach() */
	if (!err)
		smp_store_release(&region->creator, NULL);
	return err;
}

static int mshare_attach_existing(struct file *file, void *arg)
{
	struct mshare_region *region = msharefs_region(file);
	struct mshare_args args = *(struct mshare_args *)arg;
	unsigned long offset = 0;
	long prot;
	int err;

	if (!args.addr && !args.len) {
		args.addr = region->start;
		args.len = region->size;
	}
	/* All of it, wherever, or a part of it at its address. */
	if (args.len != region->size) {
		offset = args.addr - region->start;
		if (args.addr < region->start || offset >= region->size ||
		    args.len > region->size - offset)
			return -EINVAL;
	}
	/* The region's own may be out of an x32 process's reach. */
	if (!mshare_range_ok(args.addr, args.len))
		return -EINVAL;
	prot = mshare_attach_prot(file, args.addr);
	if (prot < 0)
		return prot;

	err = mshare_attach(file, prot, args.addr, args.len,
			    offset >> PAGE_SHIFT, false);
	if (!err && !msharefs_has_name(file)) {
		/* It has gone meanwhile: as if we had come later. */
		mshare_detach(region);
		err = -ENOENT;
	}
	return err;
}

/**
 * sys_mshare - create a region of address space to be shared, or attach one
 * @name: in /sys/fs/mshare, or a path if it starts with '/'
 * @addr: first address, a multiple of the granule; 0 with a @len of 0 to
 *        attach an existing region where it belongs
 * @len: length in bytes, a multiple of the granule
 * @oflag: O_RDWR, with O_CREAT and O_EXCL as for open(2)
 * @mode: permissions of a new region
 *
 * See Documentation/filesystems/msharefs.rst.
 */
SYSCALL_DEFINE5(mshare, const char __user *, name, unsigned long, addr,
		size_t, len, int, oflag, umode_t, mode)
{
	struct mshare_args args = { .addr = addr, .len = len };
	bool own = !addr && !len;
	int acc = oflag & O_ACCMODE;

	if (oflag & ~(O_ACCMODE | O_CREAT | O_EXCL))
		return -EINVAL;
	if (acc != O_RDONLY && acc != O_RDWR)
		return -EINVAL;
	if (!own && !mshare_range_ok(addr, len))
		return -EINVAL;

	return msharefs_open(name, oflag, mode,
			     own ? NULL : mshare_make_region,
			     mshare_attach_new, mshare_attach_existing, &args);
}

/**
 * sys_mshare_unlink - end the caller's access to a region
 * @name: as for mshare()
 *
 * See Documentation/filesystems/msharefs.rst.
 */
SYSCALL_DEFINE1(mshare_unlink, const char __user *, name)
{
	return msharefs_unlink(name, mshare_detach);
}

/*
 * Faults and calls in a region
 */

/* How a range of addresses lies to the attachments of an mm. */
enum mshare_relation {
	MSHARE_NONE,		/* touches none */
	MSHARE_INSIDE,		/* is a part of one, but not all of it */
	MSHARE_WHOLE,		/* is exactly one */
	MSHARE_COVERS,		/* one or more and what is beside them */
	MSHARE_CUTS,		/* crosses an edge of one */
};

/*
 * The one place that decides whether a range is inside, outside, over or
 * across an attachment. RCU read side, or the list is otherwise stable. With
 * MSHARE_INSIDE and MSHARE_WHOLE, @attp is the one.
 */
static enum mshare_relation mshare_relate(struct mm_struct *mm,
					  unsigned long start,
					  unsigned long end,
					  struct mshare_attachment **attp)
{
	enum mshare_relation relation = MSHARE_NONE;
	struct mshare_attachment *att;

	for_each_mshare_attachment(att, mm) {
		if (att->end <= start || end <= att->start)
			continue;
		if (att->start <= start && end <= att->end) {
			*attp = att;
			return att->start == start && end == att->end ?
				MSHARE_WHOLE : MSHARE_INSIDE;
		}
		if (att->start < start || end < att->end)
			return MSHARE_CUTS;
		relation = MSHARE_COVERS;
	}
	return relation;
}

/* A range that no call will accept is nobody's. */
static bool mshare_no_range(unsigned long start, unsigned long len)
{
	return !len || offset_in_page(start) || PAGE_ALIGN(len) < len ||
	       start + PAGE_ALIGN(len) < start;
}

/* See mshare_seen_at() */
unsigned long __mshare_seen_at(const struct mm_struct *host, unsigned long addr)
{
	const struct mshare_attachment *att;

	rcu_read_lock();
	att = mm_attachment_of(current->mm, host);
	/* Detached meanwhile, it has no place any more. */
	if (att)
		addr -= att->delta;
	rcu_read_unlock();
	return addr;
}

/* See mshare_seen_vma() */
bool __mshare_seen_vma(const struct vm_area_struct *vma, unsigned long *start,
		       unsigned long *end, unsigned long *pgoff)
{
	const struct mshare_attachment *att;
	bool seen = false;

	rcu_read_lock();
	att = mm_attachment_of(current->mm, vma->vm_mm);
	if (att) {
		*start = max(vma->vm_start, att->start + att->delta);
		*end = min(vma->vm_end, att->end + att->delta);
		*pgoff += (*start - vma->vm_start) >> PAGE_SHIFT;
		seen = *start < *end;
		*start -= att->delta;
		*end -= att->delta;
	}
	rcu_read_unlock();
	return seen;
}

bool __mshare_overlaps(struct mm_struct *mm, unsigned long start,
		       unsigned long end)
{
	struct mshare_attachment *att;
	bool ret;

	rcu_read_lock();
	ret = mshare_relate(mm, start, end, &att) != MSHARE_NONE;
	rcu_read_unlock();
	return ret;
}

/* See vms_gather_munmap_vmas() */
bool __mshare_cuts(struct mm_struct *mm, unsigned long start,
		   unsigned long end)
{
	enum mshare_relation relation;
	struct mshare_attachment *att;

	rcu_read_lock();
	relation = mshare_relate(mm, start, end, &att);
	rcu_read_unlock();
	return relation == MSHARE_INSIDE || relation == MSHARE_CUTS;
}

int __mshare_recheck(struct mm_struct *mm, unsigned long start,
		     unsigned long len)
{
	if (mshare_no_range(start, len) ||
	    !__mshare_overlaps(mm, start, start + PAGE_ALIGN(len)))
		return 0;
	return restart_syscall();
}

unsigned long __mshare_pages(struct mm_struct *mm)
{
	struct mshare_attachment *att;
	unsigned long nr = 0;

	for_each_mshare_attachment(att, mm)
		nr += (att->end - att->start) >> PAGE_SHIFT;
	return nr;
}

/**
 * mshare_begin() - start to work on a host
 * @call: filled in
 * @att: the attachment that is worked in
 *
 * Context: RCU read side, or whatever else keeps @att.
 * Return: false if the region is dead: @att was detached this moment.
 */
bool mshare_begin(struct mshare_call *call,
		  const struct mshare_attachment *att)
{
	struct mshare_region *region = att->region;
	unsigned long delta;

	if (!percpu_ref_tryget(&region->users))
		return false;

	delta = att->delta;
	call->region = region;
	call->mm = att->host;
	call->delta = delta;
	call->start = att->start + delta;
	call->end = att->end + delta;
	call->vm_flags = att->vm_flags;
	call->old_memcg = set_active_memcg(mshare_memcg(att->host));
	call->old_over_high = mem_cgroup_set_over_high(0);
	call->old_in_mshare = current->in_mshare;
	current->in_mshare = 1;
	current->mshare_nobody_to_kill = 0;
	return true;
}

/*
 * What was charged made the region's group exceed its high limit by @nr_pages.
 * It is this task that reclaims, and it may be made to wait: not with the
 * region in hand, without which only we hold the group.
 */
static noinline void mshare_end_over_high(struct mshare_call *call,
					  unsigned int nr_pages, bool throttle)
{
	struct mem_cgroup *memcg = mshare_memcg(call->mm);

	if (!mem_cgroup_tryget(memcg))
		memcg = NULL;
	percpu_ref_put(&call->region->users);
	if (!memcg)
		return;

	set_active_memcg(memcg);
	mem_cgroup_set_over_high(nr_pages);
	if (throttle)
		mem_cgroup_handle_over_high(GFP_KERNEL);
	else
		mem_cgroup_reclaim_over_high(GFP_KERNEL);
	mem_cgroup_put(memcg);
}

/**
 * mshare_end() - work on a host is done
 * @call: as it came from mshare_begin()
 * @throttle: this is a place to be made to wait, for a group over its limit
 *
 * Context: no lock of the host held. May sleep.
 */
void mshare_end(struct mshare_call *call, bool throttle)
{
	unsigned int over_high = mem_cgroup_set_over_high(0);

	if (unlikely(over_high))
		mshare_end_over_high(call, over_high, throttle);
	else
		percpu_ref_put(&call->region->users);
	call->region = NULL;
	mem_cgroup_set_over_high(call->old_over_high);
	set_active_memcg(call->old_memcg);
	current->in_mshare = call->old_in_mshare;
}

/**
 * __mshare_enter() - find out whom a system call's range belongs to
 * @call: made by MSHARE_CALL() for current->mm, or an mm that the caller holds
 * @start: first address in bytes
 * @len: length in bytes
 * @how: what the call does
 *
 * If the range is inside an attached region then @call is made to work on the
 * region's host, as which the caller goes on, with @call->delta added to the
 * addresses, and finishes with mshare_leave(). Otherwise it goes on as ever, and
 * calls mshare_recheck() when it has the mmap_lock, unless @how is MSHARE_MAPS
 * or MSHARE_OWN.
 *
 * @call may be for another mm than the current one, if the caller holds that.
 *
 * Context: task context; no mmap_lock held, or that of @call->mm, in which case
 * there is nothing to recheck, but it must be let go of in a region.
 * Return: 0, or -EINVAL if the range crosses an edge of an attachment, or
 * -EACCES if the region is attached read-only and @how changes it.
 */
int __mshare_enter(struct mshare_call *call, unsigned long start,
		   unsigned long len, enum mshare_how how)
{
	bool whole = how == MSHARE_MAPS || how == MSHARE_OWN;
	enum mshare_relation relation;
	struct mshare_attachment *att;
	int ret = 0;

	if (mshare_no_range(start, len))
		return 0;

	rcu_read_lock();
	relation = mshare_relate(call->mm, start, start + PAGE_ALIGN(len), &att);
	switch (relation) {
	case MSHARE_NONE:
		break;
	case MSHARE_WHOLE:
		if (whole)
			break;
		fallthrough;
	case MSHARE_INSIDE:
		if (how == MSHARE_OWN)
			ret = -EINVAL;
		else if (how != MSHARE_READS && !(att->vm_flags & VM_WRITE))
			ret = -EACCES;
		else	/* if that fails then there is nothing left to act on */
			mshare_begin(call, att);
		break;
	case MSHARE_COVERS:
		if (whole)
			break;
		fallthrough;
	case MSHARE_CUTS:
		ret = -EINVAL;
		break;
	}
	rcu_read_unlock();
	return ret;
}

/**
 * mshare_enter_vma() - start to work on the host, from the attached mm
 * @call: filled in
 * @vma: the attachment, as found in the tree of its mm
 *
 * For those who cannot let go of the attached mm. As long as @vma is not
 * unmapped, which takes the lock that is held, the attachment and the region
 * stay.
 *
 * Context: mmap_lock of @vma's mm held.
 */
void mshare_enter_vma(struct mshare_call *call, struct vm_area_struct *vma)
{
	struct mshare_attachment *att;

	mmap_assert_locked(vma->vm_mm);

	rcu_read_lock();
	att = mshare_find(vma->vm_mm, vma->vm_start);
	/* It can't fail: the attachment holds the region. */
	WARN_ON_ONCE(!mshare_begin(call, att));
	rcu_read_unlock();
}

/**
 * mshare_leave_vma() - back to the attached mm
 * @call: as it came from mshare_enter_vma()
 *
 * Context: may sleep.
 */
void mshare_leave_vma(struct mshare_call *call)
{
	/* With the lock of the attached mm is no place to be made to wait. */
	mshare_end(call, false);
}

/**
 * mshare_lock_host() - as mshare_enter_vma(), and lock the host
 * @call: filled in
 * @vma: the attachment, as found in the tree of its mm
 *
 * Context: mmap_lock of @vma's mm held; the order is attached, then host. May
 * sleep.
 * Return: 0, with the mmap_lock of @call->mm, the host, held for reading, and
 * @call->delta to be added to addresses, to be followed by mshare_unlock_host();
 * or -EINTR.
 */
int mshare_lock_host(struct mshare_call *call, struct vm_area_struct *vma)
{
	mshare_enter_vma(call, vma);
	if (mmap_read_lock_killable(call->mm)) {
		mshare_leave_vma(call);
		return -EINTR;
	}
	return 0;
}

/**
 * mshare_unlock_host() - back to the attached mm
 * @call: as it came from mshare_lock_host()
 *
 * Context: the lock that mshare_lock_host() took is held. May sleep.
 */
void mshare_unlock_host(struct mshare_call *call)
{
	mmap_read_unlock(call->mm);
	mshare_leave_vma(call);
}

/**
 * mshare_may_map() - can this be mapped in a region?
 * @file: what is to be mapped, or NULL for anonymous memory
 * @flags: of mmap(2)
 *
 * What can is ordinary memory, of which every page has a struct page that stays
 * what it is. An allow list, since VM_PFNMAP and the like show only after
 * ->mmap, when what was mapped there is gone; and by the file system, since
 * sysfs and procfs have regular files that are devices. Files that have another
 * one mapped (FUSE passthrough), and the like, pass and are refused after that:
 * see mshare_has_mapped().
 *
 * Context: any task context.
 * Return: 0 or -EINVAL.
 */
int mshare_may_map(struct file *file, unsigned long flags)
{
	struct inode *inode;

	/* Droppable memory is empty in a child, which a region's can't be. */
	if ((flags & MAP_GROWSDOWN) || (flags & MAP_TYPE) == MAP_DROPPABLE)
		return -EINVAL;
	if (!file || shmem_file(file) || is_file_hugepages(file))
		return 0;

	inode = file_inode(file);
	/* /dev/zero, which is anonymous memory by another name. */
	if (S_ISCHR(inode->i_mode) && inode->i_rdev == MKDEV(MEM_MAJOR, 5))
		return 0;

	/* overlayfs maps the file below */
	inode = d_real_inode(file_dentry(file));
	if (!S_ISREG(inode->i_mode))
		return -EINVAL;
	if (shmem_mapping(inode->i_mapping))
		return 0;
	/* Page cache of something, be it a disk or a server; or DAX. */
	if (inode_to_bdi(inode) == &noop_backing_dev_info)
		return -EINVAL;
	return 0;
}

/* See mshare_has_mapped() */
int __mshare_has_mapped(struct vm_area_struct *vma)
{
	if (!(vma->vm_flags & (VM_PFNMAP | VM_IO)))
		return 0;
	vma_close(vma);
	return -EINVAL;
}

/**
 * __mshare_enter_mmap() - as mshare_enter(), for mmap(2)
 * @call: made by MSHARE_CALL() for current->mm
 * @file: what is to be mapped, or NULL
 * @addr: address or hint
 * @len: length in bytes
 * @flags: of mmap(2)
 *
 * Without MAP_FIXED, the hint decides alone: with one inside a region the
 * mapping goes there, if there is room.
 *
 * Context: task context; no mmap_lock held.
 * Return: 0, or -EINVAL if the range crosses an edge of an attachment or what
 * is to be mapped cannot be shared.
 */
int __mshare_enter_mmap(struct mshare_call *call, struct file *file,
			unsigned long addr, unsigned long len,
			unsigned long flags)
{
	int err;

	if (!len)
		return 0;
	if (flags & (MAP_FIXED | MAP_FIXED_NOREPLACE)) {
		err = __mshare_enter(call, addr, len, MSHARE_MAPS);
	} else if ((flags & MAP_32BIT) || mshare_is_region(file)) {
		/* There are no regions down there, and none in a region. */
		return 0;
	} else {
		err = __mshare_enter(call, addr & PAGE_MASK, PAGE_SIZE,
				     MSHARE_MAPS);
	}
	if (err || !call->region)
		return err;

	err = mshare_may_map(file, flags);
	if (err)
		mshare_end(call, false);
	return err;
}

/**
 * __mshare_enter_mremap() - as mshare_enter(), for mremap(2)
 * @call: made by MSHARE_CALL() for current->mm
 * @addr: first address of what is to be moved or resized
 * @old_len: length in bytes, a multiple of the page size, or 0 to duplicate
 * @new_addr: with MREMAP_FIXED, where it is to go to
 * @new_len: length in bytes there, a multiple of the page size, not 0
 * @flags: of mremap(2)
 *
 * Nothing goes from an address space to another: what is in a region stays in
 * it, and what is not stays out. The attachment itself, exactly or with what is
 * beside it, does not move. Without MREMAP_FIXED, where it goes is
 * mshare_place()'s business.
 *
 * Otherwise the caller calls mshare_recheck() for both ranges when it has the
 * mmap_lock.
 *
 * Context: task context; no mmap_lock held.
 * Return: 0, or -EINVAL if one of the ranges crosses an edge of an attachment,
 * is one, or is in another region than the other or in none, or -EACCES if the
 * region is attached read-only.
 */
int __mshare_enter_mremap(struct mshare_call *call, unsigned long addr,
			  unsigned long old_len, unsigned long new_addr,
			  unsigned long new_len, unsigned long flags)
{
	unsigned long end = addr + max(old_len, PAGE_SIZE);
	struct mshare_attachment *att, *to = NULL;
	enum mshare_relation relation;
	int ret = 0;

	/* Too long for any mapping: at most it crosses an edge. */
	if (end < addr)
		end = ULONG_MAX;

	rcu_read_lock();
	relation = mshare_relate(call->mm, addr, end, &att);
	if (relation == MSHARE_NONE)
		att = NULL;
	else if (relation != MSHARE_INSIDE)
		ret = -EINVAL;

	/* A bad new range, which is refused by and by, is nobody's. */
	if (!ret && (flags & MREMAP_FIXED) &&
	    !mshare_no_range(new_addr, new_len)) {
		relation = mshare_relate(call->mm, new_addr, new_addr + new_len,
					 &to);
		if (relation == MSHARE_CUTS || relation == MSHARE_COVERS ||
		    to != att)
			ret = -EINVAL;
	}

	if (!ret && att) {
		if (!(att->vm_flags & VM_WRITE))
			ret = -EACCES;
		else	/* if that fails then there is nothing left to act on */
			mshare_begin(call, att);
	}
	rcu_read_unlock();
	return ret;
}

/**
 * __mshare_leave() - the call on the host is done
 * @call: as it came from mshare_enter()
 *
 * Context: no lock of the host held. May sleep.
 */
void __mshare_leave(struct mshare_call *call)
{
	mshare_settle_locked(call->mm);
	mshare_end(call, true);
}

/*
 * First free range of @len bytes, of what the caller has attached, at an address
 * that is @offset modulo @align.
 */
static unsigned long mshare_find_room(const struct mshare_call *call,
				      unsigned long len, unsigned long align,
				      unsigned long offset)
{
	MA_STATE(mas, &call->mm->mm_mt, 0, 0);

	/* Whatever the gap's start is, this much holds an aligned range. */
	len += align - PAGE_SIZE;
	if (len > call->end - call->start ||
	    mas_empty_area(&mas, call->start, call->end - 1, len))
		return -ENOMEM;
	return mas.index + ((offset - mas.index) & (align - 1));
}

/**
 * __mshare_get_unmapped_area() - find room in a region
 * @call: from mshare_enter_mmap() or mshare_enter_mremap()
 * @file: what is to be mapped, or NULL
 * @hint: address in the host; of use only in what the caller has attached
 * @len: length in bytes
 * @pgoff: offset in the file in pages
 *
 * Context: mmap_lock of @call->mm held for writing.
 * Return: the hint, rounded up for hugetlb, if the range is free, or another
 * address, or -ENOMEM: never one that the caller has not attached. Huge pages
 * are possible where they are elsewhere.
 */
unsigned long __mshare_get_unmapped_area(const struct mshare_call *call,
					 struct file *file, unsigned long hint,
					 unsigned long len, unsigned long pgoff)
{
	bool huge = file && is_file_hugepages(file);
	unsigned long align = huge ? huge_page_size(hstate_file(file)) : PAGE_SIZE;
	unsigned long addr = -ENOMEM;

	hint &= PAGE_MASK;
	if (huge)
		hint = ALIGN(hint, align);
	len = PAGE_ALIGN(len);
	if (!len || len > call->end - call->start)
		return -ENOMEM;
	if (hint >= call->start && hint <= call->end - len &&
	    !find_vma_intersection(call->mm, hint, hint + len))
		return hint;
	if (huge)
		return mshare_find_room(call, len, align, 0);

	if (IS_ENABLED(CONFIG_TRANSPARENT_HUGEPAGE) && len >= PMD_SIZE)
		addr = mshare_find_room(call, len, PMD_SIZE, file ?
					(pgoff << PAGE_SHIFT) & ~PMD_MASK : 0);
	if (IS_ERR_VALUE(addr))
		addr = mshare_find_room(call, len, align, 0);
	return addr;
}

/**
 * __mshare_enter_part() - find out whom the first part of a range belongs to
 * @call: made by MSHARE_CALL() for any mm that the caller holds
 * @addr: where the range begins
 * @end: where it ends
 *
 * For those who look up VMAs and fault them, or walk tables, on their own, part
 * by part. If @addr is inside an attached region then @call is made to work on
 * the region's host, as which the caller goes on, with @call->delta added to the
 * addresses. In any case it finishes with mshare_leave_part(). What the
 * attachment allows mshare_may() tells.
 *
 * A region that is detached lives until mshare_leave_part().
 *
 * Context: task context. As long as the mmap_lock of @call->mm is held what is
 * outside of all regions stays so.
 * Return: how far the part goes: @end, or where the attachment ends that @addr is
 * in, or where the next one starts. In addresses of @call's first mm.
 */
unsigned long __mshare_enter_part(struct mshare_call *call, unsigned long addr,
				  unsigned long end)
{
	struct mm_struct *mm = call->mm;
	struct mshare_attachment *att;

	rcu_read_lock();
	for_each_mshare_attachment(att, mm) {
		if (att->end <= addr || end <= att->start)
			continue;
		if (addr < att->start) {
			end = att->start;
			continue;
		}
		/* If that fails then nothing is there any more. */
		mshare_begin(call, att);
		end = min(end, att->end);
		break;
	}
	rcu_read_unlock();
	return end;
}

void __mshare_leave_part(struct mshare_call *call)
{
	mshare_end(call, false);
}

/**
 * __mshare_enter_next() - go through all attachments of an mm
 * @call: made by MSHARE_CALL() for any mm that the caller holds
 * @start: address to begin the search at; then where the attachment begins
 * @end: where it ends
 *
 * The addresses are those of @call->mm. The caller finishes with
 * mshare_leave_part(), and goes on with a new call at @end.
 *
 * Context: task context.
 * Return: false if there is no further one.
 */
bool __mshare_enter_next(struct mshare_call *call, unsigned long *start,
			 unsigned long *end)
{
	struct mshare_attachment *att, *next;
	bool ret = false;

	rcu_read_lock();
	do {
		next = NULL;
		for_each_mshare_attachment(att, call->mm)
			if (att->start >= *start &&
			    (!next || att->start < next->start))
				next = att;
		if (next) {
			ret = mshare_begin(call, next);
			*start = ret ? next->start : next->end;
			*end = next->end;
		}
	} while (next && !ret);
	rcu_read_unlock();
	return ret;
}

/* See mshare_gup_fast() */
bool __mshare_gup_fast(struct mm_struct *mm, unsigned long start,
		       unsigned long end, unsigned int gup_flags)
{
	struct mshare_attachment *att;
	bool ret = true;

	rcu_read_lock();
	for_each_mshare_attachment(att, mm) {
		if (att->end <= start || end <= att->start)
			continue;
		if ((gup_flags & FOLL_WRITE) && !(att->vm_flags & VM_WRITE)) {
			ret = false;
			break;
		}
		/* It is the host whose pages are pinned. */
		if ((gup_flags & FOLL_PIN) &&
		    !test_bit(MMF_HAS_PINNED, &att->host->flags))
			set_bit(MMF_HAS_PINNED, &att->host->flags);
	}
	rcu_read_unlock();
	return ret;
}

/*
 * What mshare_enter_futex() has to know of the host's VMA.
 * Return: 1 if a futex there is the region's, 0 if its page says whose it is,
 * or -EFAULT.
 */
static int mshare_check_futex(const struct mshare_call *call,
			      struct vm_area_struct *vma, bool write)
{
	if (!vma)
		return -EFAULT;
	if (vma->vm_flags & VM_MAYSHARE)
		return 0;
	/*
	 * Nobody writes here. As elsewhere, there is nothing to wait for if the
	 * page is anonymous, and otherwise the file may be written to.
	 */
	if (!(vma->vm_flags & VM_WRITE))
		return 0;

	if (mshare_may(call, VM_WRITE) &&
	    arch_vma_access_permitted(vma, true, false, false))
		return 1;
	/* Others write what this process can only read and wait for. */
	if (!write && (vma->vm_flags & VM_READ) &&
	    arch_vma_access_permitted(vma, false, false, false))
		return 1;
	return -EFAULT;
}

/**
 * __mshare_enter_futex() - is a shared futex one in private memory of a region?
 * @call: made by MSHARE_CALL() for current->mm
 * @address: of the futex's page
 * @write: it must be writable
 *
 * Memory that is private to a region is everyone's who is attached, and so is a
 * futex there. The mapping decides and not the page, since a read-only attached
 * process may wait on a page that is only going to be made, or copied, when
 * somebody writes to it.
 *
 * If so, @call is at work on the host, @call->delta is to be added to the
 * address, and mshare_leave_part() ends it. Otherwise it is an ordinary futex,
 * @call->region is NULL.
 *
 * Context: task context, no lock held.
 * Return: 0, or -EFAULT if nothing is mapped there or it may not be accessed,
 * or -EINTR if the task is being killed.
 */
int __mshare_enter_futex(struct mshare_call *call, unsigned long address,
			 bool write)
{
	struct mm_struct *mm = call->mm;
	struct vm_area_struct *vma;
	int ret;

	__mshare_enter_part(call, address, address + 1);
	if (!call->region)
		return 0;

	address += call->delta;
	vma = lock_vma_under_rcu(call->mm, address);
	if (vma) {
		ret = mshare_check_futex(call, vma, write);
		vma_end_read(vma);
	} else {
		ret = mshare_read_lock(call->mm);
		if (!ret) {
			vma = vma_lookup(call->mm, address);
			ret = mshare_check_futex(call, vma, write);
			mmap_read_unlock(call->mm);
		}
	}
	if (ret > 0)
		return 0;
	mshare_end(call, false);
	/* The caller may ask again. */
	call->mm = mm;
	return ret;
}

/**
 * mshare_task_address() - where has a task what is mapped in a host?
 * @tsk: any task
 * @vma: any VMA
 * @addr: an address in @vma; made that in @tsk's mm
 *
 * Context: any in which RCU watches and task_lock() can be taken.
 * Return: false if @vma is not a host's, or @tsk is not attached to what is at
 * @addr.
 */
bool mshare_task_address(struct task_struct *tsk,
			 const struct vm_area_struct *vma, unsigned long *addr)
{
	struct mshare_attachment *att;
	bool ret = false;

	if (!mm_is_mshare_host(vma->vm_mm))
		return false;

	/* Until it is dropped the task does not let go of its mm. */
	task_lock(tsk);
	rcu_read_lock();
	if (tsk->mm) {
		for_each_mshare_attachment(att, tsk->mm) {
			unsigned long own = *addr - att->delta;

			if (att->host == vma->vm_mm &&
			    att->start <= own && own < att->end) {
				*addr = own;
				ret = true;
				break;
			}
		}
	}
	rcu_read_unlock();
	task_unlock(tsk);
	return ret;
}

/**
 * mshare_vm_flags_at() - what is mapped at an address
 * @vma: the VMA that is there in its mm
 * @addr: the address
 * @end: where to put the first address behind what the answer holds for
 *
 * Context: mmap_lock of @vma->vm_mm held; takes that of a host.
 * Return: the flags of @vma or, if it is an attachment, of what is mapped in
 * the region there, without the rights that the attachment does not give; 0 for
 * nothing, or if the task is being killed.
 */
vm_flags_t mshare_vm_flags_at(struct vm_area_struct *vma, unsigned long addr,
			      unsigned long *end)
{
	MSHARE_CALL(call, vma->vm_mm);
	struct vm_area_struct *host_vma;
	unsigned long host_end;
	vm_flags_t vm_flags = 0;

	*end = vma->vm_end;
	if (likely(!vma_is_mshare(vma)))
		return vma->vm_flags;

	mshare_enter_pages(&call, addr, 1);
	if (!call.region)
		return 0;
	/* Who is killed need not wait for others: it will not look. */
	if (!mmap_read_lock_killable(call.mm)) {
		host_vma = find_vma(call.mm, addr + call.delta);
		host_end = call.end;
		if (host_vma && host_vma->vm_start > addr + call.delta) {
			host_end = min(host_end, host_vma->vm_start);
		} else if (host_vma) {
			host_end = min(host_end, host_vma->vm_end);
			vm_flags = mshare_common_rights(&call,
							host_vma->vm_flags);
		}
		*end = host_end - call.delta;
		mmap_read_unlock(call.mm);
	}
	mshare_leave_part(&call);
	return vm_flags;
}
EXPORT_SYMBOL_GPL(mshare_vm_flags_at);

/**
 * mshare_fault_enter() - is a fault one in an attached region?
 * @call: made by MSHARE_CALL() for current->mm
 * @address: where
 *
 * If so, the caller goes on in @call->mm, with @call->delta added to the
 * address, and finishes with mshare_fault_leave().
 *
 * The list of attachments says the same as the VMA would, which is in the tree
 * for a part of the time that the attachment is on the list, when nothing else
 * can be mapped there; but it can be asked without a lock.
 *
 * Context: task context; no lock held that a fault may not be taken with.
 */
bool mshare_fault_enter(struct mshare_call *call, unsigned long address)
{
	struct mshare_attachment *att;
	bool ret;

	rcu_read_lock();
	att = mshare_find(call->mm, address);
	ret = att && mshare_begin(call, att);
	rcu_read_unlock();
	return ret;
}

/**
 * mshare_stands() - is an address still in the region that a call works on?
 * @call: from mshare_fault_enter() or mshare_enter_pages(), in a region
 * @mm: the attached mm
 * @address: an address in @mm
 *
 * While no lock of @mm is held the attachment may go, and something else be
 * mapped there: what then goes wrong in the region is not the caller's error.
 *
 * Context: any in which RCU watches.
 */
bool mshare_stands(const struct mshare_call *call, struct mm_struct *mm,
		   unsigned long address)
{
	struct mshare_attachment *att;
	bool ret;

	rcu_read_lock();
	att = mshare_find(mm, address);
	ret = att && att->region == call->region && att->delta == call->delta;
	rcu_read_unlock();
	return ret;
}

/**
 * mshare_fault_leave() - the fault in the host is done
 * @call: as it came from mshare_fault_enter()
 * @address: the address in the current mm
 * @flags: FAULT_FLAG_*
 * @fault: how it went
 *
 * Context: no lock held. May sleep.
 * Return: false if it failed in a region that is not attached there any more.
 */
bool mshare_fault_leave(struct mshare_call *call, unsigned long address,
			unsigned int flags, vm_fault_t fault)
{
	bool stands = true;

	if (unlikely(fault & VM_FAULT_ERROR)) {
		stands = mshare_stands(call, current->mm, address);
		/* Nobody else will: see pagefault_out_of_memory(). */
		if (!stands && task_in_memcg_oom(current))
			mem_cgroup_oom_synchronize(false);
	}
	/* In the middle of a system call is no place to be made to wait. */
	mshare_end(call, flags & FAULT_FLAG_USER);
	return stands;
}

/**
 * mshare_oom() - is it of no use to retry a fault that got VM_FAULT_OOM?
 * @call: as it came from mshare_fault_enter()
 *
 * Context: after a user fault; no lock held.
 *
 * It is if the OOM killer has found nobody to kill in the memory cgroup that was
 * to pay, the region's as a rule, to which none of the attached processes need
 * belong: the fault would fail again. That the group has room now tells nothing,
 * since what the fault had charged before it failed has been given back.
 */
bool mshare_oom(struct mshare_call *call)
{
	/* With cgroup v1 userspace may want to see to it, and we to wait. */
	return current->mshare_nobody_to_kill && !fatal_signal_pending(current) &&
	       !task_in_memcg_oom(current);
}
