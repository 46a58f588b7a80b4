/* SPDX-License-Identifier: GPL-2.0 */
/* What the files of mshare under mm/ have in common. */
#ifndef __MM_MSHARE_INTERNAL_H
#define __MM_MSHARE_INTERNAL_H

#include <linux/mmu_notifier.h>
#include <linux/mshare.h>
#include <linux/percpu-refcount.h>
#include <asm/pgtable.h>

/**
 * struct mshare_mirrors - who is told of the invalidations of a host
 * @lock: protects everything here
 * @change: held by who adds a mirror, or removes one, and waits
 * @list: the attachments in mms that have notifiers; read under SRCU
 * @seq: counts the changes of @list
 * @active: which of @nr_active counts those invalidations that start now
 * @nr_active: invalidations that have started and not ended; the other one is
 *	       zero but while somebody has @change
 * @frozen: none may start
 * @forwarding: the host's invalidations come here; never reset. Written with
 *		the host's mmap_lock held for writing
 * @wait: for @nr_active to be zero, and for @frozen to end
 * @range: the host's subscription for what has a start and an end, and for the
 *	   young bits
 * @tlb: and that for the flushes, since one can't have both
 */
struct mshare_mirrors {
#ifdef CONFIG_MMU_NOTIFIER
	spinlock_t lock;
	struct mutex change;
	struct hlist_head list;
	unsigned long seq;
	unsigned int active;
	unsigned long nr_active[2];
	bool frozen;
	bool forwarding;
	wait_queue_head_t wait;
	struct mmu_notifier range;
	struct mmu_notifier tlb;
#endif
};

/**
 * struct mshare_region - a range of addresses with VMAs and page tables
 * @users: the inode's reference and those of faults and calls at work
 * @mm: the host
 * @start: first address of the region in the host
 * @size: length in bytes
 * @nr_attached: attached mms
 * @memcg: the creator's memory cgroup, which pays; NULL if there are none
 * @hugetlb_css: the creator's hugetlb cgroup
 * @ucounts: the creator's, to whom locked memory is charged
 * @creator: the task that is making the region; nobody else may attach it yet
 * @mirrors: attached mms with notifiers
 * @locked: how many pages of that are; changed under the host's mmap_lock, held
 *	    for writing
 */
struct mshare_region {
	struct percpu_ref users;
	struct mm_struct *mm;
	unsigned long start;
	unsigned long size;
	atomic_long_t nr_attached;
	struct mem_cgroup *memcg;
#ifdef CONFIG_CGROUP_HUGETLB
	struct cgroup_subsys_state *hugetlb_css;
#endif
	struct ucounts *ucounts;
	struct task_struct *creator;
	struct mshare_mirrors mirrors;
	unsigned long locked;
};

/* Of the rights of a VMA of the host those that the attachment gives, too. */
static inline vm_flags_t mshare_common_rights(const struct mshare_call *call,
					      vm_flags_t vm_flags)
{
	return vm_flags & (call->vm_flags | ~(VM_ACCESS_FLAGS | VM_MAYREAD |
					      VM_MAYWRITE | VM_MAYEXEC));
}

/* mm/mshare.c */
struct mshare_attachment *mshare_find(struct mm_struct *mm, unsigned long addr);
bool mshare_begin(struct mshare_call *call,
		  const struct mshare_attachment *att);
void mshare_end(struct mshare_call *call, bool throttle);
void mshare_enter_vma(struct mshare_call *call, struct vm_area_struct *vma);
void mshare_leave_vma(struct mshare_call *call);
int mshare_may_map(struct file *file, unsigned long flags);
pud_t *mshare_pud_table(struct mm_struct *host, unsigned long addr);
struct vm_area_struct *mshare_new_vma(struct mm_struct *mm, struct file *file,
				      unsigned long start, unsigned long end,
				      vm_flags_t vm_flags);
struct mshare_attachment *mshare_new_attachment(struct vm_area_struct *vma);
void mshare_publish(struct mm_struct *mm, struct mshare_attachment *att);
void mshare_link(struct mm_struct *mm, struct mshare_attachment *att);

void mshare_charge_locked(struct mshare_region *region,
			  unsigned long nr_pages);

/* mm/mshare_adopt.c */
int mshare_adopt(struct file *file, struct mm_struct *host,
		 unsigned long start, unsigned long end, vm_flags_t vm_flags);

/* mm/mshare_notifier.c */
#ifdef CONFIG_MMU_NOTIFIER
void mshare_init_mirrors(struct mshare_region *region);
void mshare_exit_mirrors(struct mshare_region *region);
int mshare_forward(struct mshare_region *region);
int mshare_forward_locked(struct mshare_region *region);
void mshare_add_mirror(struct mshare_attachment *att);
void mshare_del_mirror(struct mshare_attachment *att);
#else
static inline void mshare_init_mirrors(struct mshare_region *region)
{
}

static inline void mshare_exit_mirrors(struct mshare_region *region)
{
}

static inline int mshare_forward(struct mshare_region *region)
{
	return 0;
}

static inline int mshare_forward_locked(struct mshare_region *region)
{
	return 0;
}

static inline void mshare_add_mirror(struct mshare_attachment *att)
{
}

static inline void mshare_del_mirror(struct mshare_attachment *att)
{
}
#endif

#endif /* __MM_MSHARE_INTERNAL_H */
