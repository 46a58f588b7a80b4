// SPDX-License-Identifier: GPL-2.0
/*
 * Looking at what is mapped in an attached region, and at its pages, for
 * others than those who use it: /proc, the ioctl of a region's file, core
 * dumps.
 *
 * Who looks at one range at a time goes to the host without any lock of the
 * attached mm, as faults and calls do: mshare_enter_part(). Who has the
 * mmap_lock of the attached mm and cannot let go of it, since it is in the
 * middle of its VMAs, takes that of the host after it: mshare_lock_host().
 */
#include <linux/fs.h>
#include <linux/hugetlb.h>
#include <linux/mm.h>
#include <linux/mshare.h>
#include <linux/pagemap.h>
#include <linux/pagewalk.h>
#include <linux/shmem_fs.h>
#include <linux/xarray.h>

#include "mshare_internal.h"

/**
 * mshare_look_at() - start to look at a region that the caller knows
 * @call: made by MSHARE_CALL() for an mm that the caller holds
 * @region: the region
 * @addr: an address in the attached mm; made one in the host
 * @or_next: if @addr is below what is attached then go on from where that
 *	     begins
 *
 * As mshare_enter_part(). What is in the host outside of @call->start and
 * @call->end is none of the caller's business.
 *
 * Context: task context; no mmap_lock held.
 * Return: 0, or -EPERM if the region is not attached, or -ENOENT if @addr is
 * outside of what is attached.
 */
int mshare_look_at(struct mshare_call *call, struct mshare_region *region,
		   unsigned long *addr, bool or_next)
{
	struct mm_struct *mm = call->mm;
	struct mshare_attachment *att;
	int ret = -EPERM;

	rcu_read_lock();
	for_each_mshare_attachment(att, mm) {
		if (att->region != region)
			continue;
		ret = -ENOENT;
		if (*addr < att->start && or_next)
			*addr = att->start;
		if (*addr < att->start || *addr >= att->end)
			break;
		/* If that fails then it was detached this moment. */
		ret = -EPERM;
		if (mshare_begin(call, att)) {
			*addr += att->delta;
			ret = 0;
		}
		break;
	}
	rcu_read_unlock();
	return ret;
}

/**
 * __mshare_rights() - what who looks may do with a mapping
 * @call: from mshare_look_at()
 * @vma: a VMA in @call->mm
 *
 * Return: the VMA's flags, without the rights that the attachment lacks.
 */
vm_flags_t __mshare_rights(const struct mshare_call *call,
			   const struct vm_area_struct *vma)
{
	return mshare_common_rights(call, vma->vm_flags);
}

/**
 * mshare_nr_sharers() - how many mms share the pages of a region
 * @host: the region's host
 *
 * Return: how many are attached now; 1 if the last one just goes.
 */
unsigned long mshare_nr_sharers(struct mm_struct *host)
{
	return max(atomic_long_read(&host->mshare_region->nr_attached), 1L);
}

/*
 * Core dumps
 */

static int mshare_populated_pmd(pmd_t *pmd, unsigned long addr,
				unsigned long end, struct mm_walk *walk)
{
	unsigned long *found = walk->private;
	spinlock_t *ptl;
	pte_t *pte, *start;

	ptl = pmd_trans_huge_lock(pmd, walk->vma);
	if (ptl) {
		spin_unlock(ptl);
		*found = addr;
		return 1;
	}

	start = pte = pte_offset_map_lock(walk->mm, pmd, addr, &ptl);
	if (!pte) {
		walk->action = ACTION_AGAIN;
		return 0;
	}
	for (; addr != end && pte_none(ptep_get(pte)); addr += PAGE_SIZE)
		pte++;
	pte_unmap_unlock(start, ptl);
	if (addr != end) {
		*found = addr;
		return 1;
	}
	cond_resched();
	return 0;
}

#ifdef CONFIG_HUGETLB_PAGE
static int mshare_populated_hugetlb(pte_t *pte, unsigned long hmask,
				    unsigned long addr, unsigned long end,
				    struct mm_walk *walk)
{
	unsigned long *found = walk->private;

	if (huge_pte_none(huge_ptep_get(walk->mm, addr, pte)))
		return 0;
	*found = addr;
	return 1;
}
#else
#define mshare_populated_hugetlb NULL
#endif

static const struct mm_walk_ops mshare_populated_ops = {
	.pmd_entry	= mshare_populated_pmd,
	.hugetlb_entry	= mshare_populated_hugetlb,
	.walk_lock	= PGWALK_RDLOCK,
};

/*
 * Where from @addr to @end of @vma the file has something, in memory or in
 * swap or on a disk; @end if nowhere.
 */
static unsigned long mshare_populated_file(struct vm_area_struct *vma,
					   unsigned long addr,
					   unsigned long end)
{
	unsigned long first = linear_page_index(vma, addr), index = first;
	struct address_space *mapping;

	if (vma_is_anonymous(vma) || !vma->vm_file)
		return end;
	mapping = vma->vm_file->f_mapping;

	/* Of these, what is not there is zero. */
	if (shmem_mapping(mapping) || is_vm_hugetlb_page(vma)) {
		if (!xa_find(&mapping->i_pages, &index,
			     linear_page_index(vma, end) - 1, XA_PRESENT))
			return end;
		/* Or in the middle of a large one */
		return index <= first ? addr :
			addr + ((index - first) << PAGE_SHIFT);
	}
	return index < DIV_ROUND_UP(i_size_read(mapping->host), PAGE_SIZE) ?
		addr : end;
}

/**
 * __mshare_skip_holes() - how much of a range is not worth a look
 * @addr: an address of the current mm
 * @end: where the range ends
 *
 * A region can have terabytes of what was never touched, each page of which
 * would otherwise be asked for. Others may be at work in the region meanwhile:
 * what they put there behind our back is missed, or found gone.
 *
 * Context: task context; no mmap_lock held.
 * Return: how many bytes from @addr have no content of a region but zeros. 0 if
 * @addr is in no region.
 */
unsigned long __mshare_skip_holes(unsigned long addr, unsigned long end)
{
	MSHARE_CALL(call, current->mm);
	struct vm_area_struct *vma;
	unsigned long pos;

	if (addr >= end)
		return 0;
	end = mshare_enter_part(&call, addr, end);
	if (!call.region)
		return 0;

	pos = addr + call.delta;
	end += call.delta;
	if (mmap_read_lock_killable(call.mm)) {
		pos = end;
		goto leave;
	}
	VMA_ITERATOR(vmi, call.mm, pos);
	for_each_vma_range(vmi, vma, end) {
		unsigned long stop = min(vma->vm_end, end), found;

		pos = max(pos, vma->vm_start);
		found = mshare_populated_file(vma, pos, stop);
		/* Finds something nearer, or leaves it as it is. */
		if (pos != found)
			walk_page_range_vma(vma, pos, found,
					    &mshare_populated_ops, &found);
		pos = found;
		if (pos != stop)
			break;
	}
	/* Nothing is mapped behind the last one. */
	if (!vma)
		pos = end;
	mmap_read_unlock(call.mm);
leave:
	pos -= call.delta;
	mshare_leave_part(&call);
	return pos - addr;
}
