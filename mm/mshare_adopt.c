// SPDX-License-Identifier: GPL-2.0
/*
 * mshare: what the creator has mapped becomes the content of a new region.
 *
 * The creator's PUD tables are moved to the host, with all that is beneath
 * them, and its VMAs are duplicated there. So no page is copied, moved or
 * faulted again, and the cost goes by what is populated: one look at each
 * present entry, for the counters.
 *
 * All that can fail comes first and leaves no trace. Then, with nobody able to
 * see the page tables but the hardware:
 *
 * - The duplicates of the VMAs are in the host's tree and known to rmap, as
 *   those of a child are in fork, with no tables beneath them. Nobody but rmap
 *   comes to the host before its mmap_lock is dropped at the end.
 * - The rmap locks of all that is mapped in the range are taken. A walk by rmap
 *   finds the entries where they were, or, if it waited, where they are: it
 *   looks at both VMAs under one lock. Without, it could look at the duplicate
 *   before the move and at the original after it.
 * - The creator is made an attached mm, but for the entries (mshare_publish()):
 *   from here on its faults in the range wait for the host's mmap_lock, its
 *   CPUs take part in the host's flushes, and lockless walkers know that the
 *   tables are, or are going to be, the host's.
 * - The entries are moved and the creator is flushed. There is nothing that
 *   could use the tables through it any more, nor a flush that reclaim owes it.
 * - The creator's secondary MMUs, if it has any, start anew: its rights may be
 *   less. To them all this is one invalidation of the range.
 * - The rmap locks are dropped, and the creator's VMAs, with nothing beneath
 *   them, are replaced by the attachment. Rmap may still find them until then,
 *   and therefore the tables are only linked into the creator afterwards.
 * - Who waits for a futex there is moved to where others look for it.
 */
#include <linux/futex.h>
#include <linux/mm.h>
#include <linux/hugetlb.h>
#include <linux/khugepaged.h>
#include <linux/ksm.h>
#include <linux/mempolicy.h>
#include <linux/mm_inline.h>
#include <linux/memremap.h>
#include <linux/mmu_notifier.h>
#include <linux/mshare.h>
#include <linux/perf_event.h>
#include <linux/rmap.h>
#include <linux/sched/coredump.h>
#include <linux/sched/mm.h>
#include <linux/sched/signal.h>
#include <linux/shmem_fs.h>
#include <linux/swap.h>
#include <linux/swapops.h>
#include <linux/uprobes.h>
#include <linux/userfaultfd_k.h>

#include <asm/mshare.h>
#include <asm/pgalloc.h>
#include <asm/tlb.h>

#include "internal.h"
#include "mshare_internal.h"

/* What the counters of an mm say of a range. */
struct mshare_counts {
	struct mm_struct *mm;
	long rss[NR_MM_COUNTERS];
	long nr_pmds;		/* PMD tables */
	long nr_ptes;		/* PTE tables, deposited ones included */
	long nr_deposited;	/* those kept for the splitting of huge pages */
	long nr_hugetlb;	/* pages of the base size */
	long ksm_zero_pages;
	bool unsuitable;	/* what the creator's device has for it alone */
};

struct mshare_adoption {
	struct mm_struct *mm;		/* the creator's */
	struct mm_struct *host;
	unsigned long start;
	unsigned long end;
	struct vma_iterator vmi;	/* ready to store @vma in @mm */
	struct vm_area_struct *vma;	/* the attachment */
	struct mshare_attachment *att;
	struct vm_area_struct *both;	/* extends over both ends, or NULL */
	struct vm_area_struct *tail;	/* what is left of it behind the range */
	struct mshare_counts counts;
};

/*
 * Can what @vma maps from @start to @end be shared? An allow list, as in
 * mshare_may_map(), which decides for files.
 */
static int mshare_may_adopt(struct vm_area_struct *vma, unsigned long start,
			    unsigned long end)
{
	struct mm_struct *mm = vma->vm_mm;
	int err;

	if (vma->vm_flags & (VM_MSHARE | VM_IO | VM_PFNMAP | VM_MIXEDMAP |
			     VM_STACK | VM_SHADOW_STACK | VM_SEALED |
			     VM_DROPPABLE))
		return -EINVAL;
	/* The stack, if it were somehow made not to grow; and the heap. */
	if (start <= mm->start_stack && mm->start_stack < end)
		return -EINVAL;
	if (max(start, mm->start_brk) < min(end, mm->brk))
		return -EINVAL;
	/* Registered, or in a child whose parent's monitor is yet to know. */
	if (!is_mergeable_vm_userfaultfd_ctx(vma, NULL_VM_UFFD_CTX))
		return -EINVAL;
	if (uprobe_vma_has_breakpoints(vma, start, end))
		return -EINVAL;

	/* With neither a file nor its looks it is the kernel's: the vDSO. */
	if (!vma->vm_file)
		return vma_is_anonymous(vma) ? 0 : -EINVAL;
	err = mshare_may_map(vma->vm_file, 0);
	if (err)
		return err;
	/* SysV shm: shmdt() finds its mappings by their methods. */
	if (is_vm_hugetlb_page(vma))
		return vma->vm_ops == &hugetlb_vm_ops ? 0 : -EINVAL;
	if (shmem_file(vma->vm_file) && !vma_is_shmem(vma))
		return -EINVAL;
	/* Rings and buffers whose owners know the address. */
	if (vma->vm_flags & VM_DONTEXPAND)
		return -EINVAL;
	return 0;
}

/* Everything that makes the call fail for what is mapped, or for limits. */
static int mshare_check_range(struct mshare_adoption *ad, vm_flags_t vm_flags)
{
	unsigned long start = ad->start, end = ad->end;
	struct mm_struct *mm = ad->mm;
	struct vm_area_struct *vma;
	unsigned long nr_pages = 0;
	int nr_new = 1;
	VMA_ITERATOR(vmi, mm, start);
	int err;

	for_each_vma_range(vmi, vma, end) {
		unsigned long vma_start = max(vma->vm_start, start);
		unsigned long vma_end = min(vma->vm_end, end);

		err = mshare_may_adopt(vma, vma_start, vma_end);
		if (!err && vma->vm_ops && vma->vm_ops->may_split) {
			if (vma->vm_start < start)
				err = vma->vm_ops->may_split(vma, start);
			if (!err && vma->vm_end > end)
				err = vma->vm_ops->may_split(vma, end);
		}
		if (err)
			return err;

		nr_pages += PHYS_PFN(vma_end - vma_start);
		if (vma->vm_start >= start && vma->vm_end <= end)
			nr_new--;
		if (vma->vm_start < start && vma->vm_end > end) {
			ad->both = vma;
			nr_new++;
		}
		cond_resched();
	}

	/* The attachment counts with its length, what goes is what it was. */
	if (!may_expand_vm(mm, vm_flags, PHYS_PFN(end - start) - nr_pages))
		return -ENOMEM;
	if (nr_new > 0 && mm->map_count + nr_new > sysctl_max_map_count)
		return -ENOMEM;
	return 0;
}

/*
 * Duplicate @vma, or a part of it, for the same pages: unlike that of a child,
 * the copy has the same anon_vma, as after a split, since the anonymous pages
 * there stay as they are. Known to rmap when it returns, but in no tree.
 *
 * A part is opened, as after a split. The whole takes over what @vma has opened,
 * which is going to be freed without being closed: ->close may write to a file,
 * which may take forever, and nothing ends here.
 */
static struct vm_area_struct *mshare_dup_vma(struct vm_area_struct *vma,
					     struct mm_struct *mm,
					     unsigned long start,
					     unsigned long end)
{
	bool part = start != vma->vm_start || end != vma->vm_end;
	struct vm_area_struct *new = vm_area_dup(vma);

	if (!new)
		return NULL;
	new->vm_mm = mm;
	vma_set_range(new, start, end, linear_page_index(vma, start));
	if (vma_dup_policy(vma, new))
		goto free_vma;
	if (anon_vma_clone(new, vma))
		goto put_policy;
	if (new->vm_file)
		get_file(new->vm_file);
	if (part && new->vm_ops && new->vm_ops->open)
		new->vm_ops->open(new);

	vma_start_write(new);
	vma_link_file(new);
	return new;

put_policy:
	mpol_put(vma_policy(new));
free_vma:
	vm_area_free(new);
	return NULL;
}

/* Free a VMA that another stands for. */
static void mshare_free_vma(struct vm_area_struct *vma)
{
	vma->vm_ops = &vma_dummy_vm_ops;
	remove_vma(vma, /* unreachable = */ false);
}

/*
 * Undo mshare_dup_vma(): @vma is a copy, of a part, of @orig. It is in no tree
 * or in one that is going to be dropped, with the lock still held.
 */
static void mshare_undup_vma(struct vm_area_struct *vma,
			     struct vm_area_struct *orig)
{
	unlink_anon_vmas(vma);
	unlink_file_vma(vma);
	if (vma->vm_start == orig->vm_start && vma->vm_end == orig->vm_end) {
		mshare_free_vma(vma);
		return;
	}
	/* To close it would give back what @orig still has reserved. */
	if (is_vm_hugetlb_page(vma))
		clear_vma_resv_huge_pages(vma);
	remove_vma(vma, /* unreachable = */ false);
}

/* Give the host what is mapped in the range, without tables beneath. */
static int mshare_dup_range(struct mshare_adoption *ad)
{
	struct mm_struct *host = ad->host;
	struct vm_area_struct *vma, *new;
	unsigned long nr_locked = 0;
	bool mergeable = false;
	VMA_ITERATOR(host_vmi, host, ad->start);
	VMA_ITERATOR(vmi, ad->mm, ad->start);

	for_each_vma_range(vmi, vma, ad->end) {
		/* No change before the move, and no fault afterwards. */
		vma_start_write(vma);
		new = mshare_dup_vma(vma, host, max(vma->vm_start, ad->start),
				     min(vma->vm_end, ad->end));
		if (!new)
			return -ENOMEM;
		/* Of processes: a host has no children. */
		vm_flags_clear(new, VM_DONTCOPY | VM_WIPEONFORK);
		if (vma_iter_store_gfp(&host_vmi, new, GFP_KERNEL)) {
			mshare_undup_vma(new, vma);
			return -ENOMEM;
		}
		host->map_count++;
		if ((new->vm_flags & VM_ACCESS_FLAGS) == VM_EXEC)
			arch_mshare_adopt(host, ad->mm);
		if (new->vm_flags & VM_LOCKED)
			nr_locked += vma_pages(new);

		khugepaged_enter_vma(new, new->vm_flags);
		mergeable |= new->vm_flags & VM_MERGEABLE;
		/* Not of any signal: there may always be a next one. */
		if (fatal_signal_pending(current))
			return -EINTR;
		cond_resched();
	}

	/* Locked memory of a region counts for the user, not for one process. */
	if (nr_locked && !mshare_may_lock(host, nr_locked))
		return -ENOMEM;

	/*
	 * The merged pages stay mapped. ksmd forgets what it knew of them in
	 * the creator and finds them again in the host, as it does when a
	 * parent unmaps what its child still has. As then, it may fail to.
	 */
	if (mergeable)
		ksm_fork(host, ad->mm);
	return 0;
}

/* Nobody but rmap has seen them, and the host's mmap_lock is still held. */
static void mshare_undup_range(struct mshare_adoption *ad)
{
	struct mm_struct *host = ad->host;
	struct vm_area_struct *vma;
	VMA_ITERATOR(vmi, host, 0);

	for_each_vma(vmi, vma) {
		mshare_undup_vma(vma, vma_lookup(ad->mm, vma->vm_start));
		cond_resched();
	}
	__mt_destroy(&host->mm_mt);
	host->map_count = 0;
	mshare_charge_locked(host->mshare_region, 0);
}

/*
 * Where there are five levels the making of an attachment makes P4D tables,
 * which go with the VMAs that have something there. There may be none.
 */
static void mshare_free_p4d_tables(struct mm_struct *mm, unsigned long start,
				   unsigned long end)
{
	struct mmu_gather tlb;
	unsigned long addr;

	if (mm_p4d_folded(mm))
		return;

	tlb_gather_mmu(&tlb, mm);
	for (addr = start & PGDIR_MASK; addr < end; addr += PGDIR_SIZE) {
		if (!pgd_none(*pgd_offset(mm, addr)) &&
		    !find_vma_intersection(mm, addr, addr + PGDIR_SIZE))
			free_pgd_range(&tlb, addr, addr + PGDIR_SIZE,
				       addr, addr + PGDIR_SIZE);
	}
	tlb_finish_mmu(&tlb);
}

/* All of the creator's that is needed later and may not be had then. */
static int mshare_prepare(struct mshare_adoption *ad, struct file *file,
			  vm_flags_t vm_flags)
{
	struct vm_area_struct *both = ad->both;
	struct mm_struct *mm = ad->mm;

	ad->vma = mshare_new_vma(mm, file, ad->start, ad->end, vm_flags);
	if (!ad->vma)
		return -ENOMEM;
	ad->att = mshare_new_attachment(ad->vma);
	if (!ad->att)
		return -ENOMEM;

	/*
	 * A mapping that extends over one end will be made shorter. One that
	 * extends over both needs another VMA, which is in the tree from now
	 * on, while @both still has its size: but it is locked as that is.
	 */
	if (both) {
		ad->tail = mshare_dup_vma(both, mm, ad->end, both->vm_end);
		if (!ad->tail)
			return -ENOMEM;
		if (vma_iter_store_gfp(&ad->vmi, ad->tail, GFP_KERNEL)) {
			mshare_undup_vma(ad->tail, both);
			ad->tail = NULL;
			return -ENOMEM;
		}
		mm->map_count++;
	}

	/* Last, as it is good for the tree as it is now. */
	vma_iter_set(&ad->vmi, ad->start);
	vma_iter_config(&ad->vmi, ad->start, ad->end);
	return vma_iter_prealloc(&ad->vmi, ad->vma);
}

/* Undo what mshare_prepare() has done, be it all or not. */
static void mshare_unprepare(struct mshare_adoption *ad)
{
	struct mm_struct *mm = ad->mm;

	vma_iter_free(&ad->vmi);
	if (ad->tail) {
		MA_STATE(mas, &mm->mm_mt, ad->both->vm_start,
			 ad->both->vm_end - 1);

		mas_store_gfp(&mas, ad->both, GFP_KERNEL | __GFP_NOFAIL);
		mm->map_count--;
		vma_mark_detached(ad->tail, true);
		mshare_undup_vma(ad->tail, ad->both);
	}
	if (ad->vma) {
		remove_vma(ad->vma, /* unreachable = */ false);
		kfree(ad->att);
		mshare_free_p4d_tables(mm, ad->start, ad->end);
	}
}

/*
 * Counting. With the rmap locks and the VMAs locked nobody changes the tables,
 * but the hardware, which sets bits, and so no lock of a table is needed.
 */

static void mshare_count_folio(struct mshare_counts *counts,
			       struct folio *folio, long nr)
{
	if (unlikely(folio_is_device_private(folio) ||
		     folio_is_device_coherent(folio)))
		counts->unsuitable |= !(folio->page.pgmap->flags & PGMAP_ANY_MM);
	if (unlikely(folio_test_hugetlb(folio)))
		counts->nr_hugetlb += nr;
	else
		counts->rss[mm_counter(folio)] += nr;
}

static void mshare_count_ptes(struct mshare_counts *counts, pmd_t *pmd,
			      unsigned long addr)
{
	pte_t *table, *pte;

	table = pte_offset_map(pmd, addr);
	if (WARN_ON_ONCE(!table))
		return;
	counts->nr_ptes++;
	for (pte = table; pte != table + PTRS_PER_PTE; pte++) {
		pte_t entry = ptep_get(pte);
		swp_entry_t swp;

		if (pte_none(entry))
			continue;
		if (pte_present(entry)) {
			/* The zero page, or one of a DAX device. */
			if (!pte_special(entry))
				mshare_count_folio(counts,
						   page_folio(pte_page(entry)), 1);
#ifdef CONFIG_KSM
			else if (is_ksm_zero_pte(entry))
				counts->ksm_zero_pages++;
#endif
			continue;
		}
		swp = pte_to_swp_entry(entry);
		if (!non_swap_entry(swp))
			counts->rss[MM_SWAPENTS]++;
		else if (is_pfn_swap_entry(swp) && !is_hwpoison_entry(swp))
			mshare_count_folio(counts, pfn_swap_entry_folio(swp), 1);
	}
	pte_unmap(table);
}

/* A PMD entry that is not a table: see zap_huge_pmd(). */
static void mshare_count_huge_pmd(struct mshare_counts *counts, pmd_t entry,
				  unsigned long addr)
{
	struct folio *folio = NULL;

	if (pmd_present(entry)) {
		if (pmd_devmap(entry))
			return;
		if (!is_huge_zero_pmd(entry))
			folio = pmd_folio(entry);
	} else {
		swp_entry_t swp = pmd_to_swp_entry(entry);

		/* Those of hugetlb may be poisoned, or markers. */
		if (!is_migration_entry(swp))
			return;
		folio = pfn_swap_entry_folio(swp);
	}

	if (folio) {
		mshare_count_folio(counts, folio, HPAGE_PMD_NR);
		if (folio_test_hugetlb(folio))
			return;
	}
	/* For the huge zero page nothing is deposited by DAX, for a hole. */
	if (!folio && !arch_needs_pgtable_deposit() &&
	    vma_is_dax(vma_lookup(counts->mm, addr)))
		return;
	if (!folio || folio_test_anon(folio) || arch_needs_pgtable_deposit()) {
		counts->nr_ptes++;
		counts->nr_deposited++;
	}
}

/* A PUD entry that is not a table: hugetlb, or DAX, which nobody counts. */
static void mshare_count_huge_pud(struct mshare_counts *counts, pud_t entry)
{
	struct folio *folio = NULL;

	/* As a PTE, since pud_present() is false for PROT_NONE. */
	if (pte_present(__pte(pud_val(entry)))) {
		if (!pud_devmap(entry))
			folio = page_folio(pud_page(entry));
	} else {
		swp_entry_t swp = pte_to_swp_entry(__pte(pud_val(entry)));

		if (is_migration_entry(swp))
			folio = pfn_swap_entry_folio(swp);
	}
	if (folio)
		mshare_count_folio(counts, folio, PUD_SIZE / PAGE_SIZE);
}

static void mshare_count_pmds(struct mshare_counts *counts, pmd_t *pmd,
			      unsigned long addr)
{
	unsigned long end = addr + PUD_SIZE;

	counts->nr_pmds++;
	for (; addr != end; pmd++, addr += PMD_SIZE) {
		pmd_t entry = pmdp_get_lockless(pmd);

		if (pmd_none(entry))
			continue;
		if (pmd_leaf(entry) || !pmd_present(entry))
			mshare_count_huge_pmd(counts, entry, addr);
		else
			mshare_count_ptes(counts, pmd, addr);
		cond_resched();
	}
}

static int mshare_count_granule(struct mshare_counts *counts, pud_t *pud,
				unsigned long addr)
{
	unsigned long end = addr + MSHARE_GRANULE;

	for (; addr != end; pud++, addr += PUD_SIZE) {
		pud_t entry = READ_ONCE(*pud);

		if (pud_none(entry))
			continue;
		if (pud_leaf(entry) || !pud_present(entry))
			mshare_count_huge_pud(counts, entry);
		else
			mshare_count_pmds(counts, pud_pgtable(entry), addr);
		/*
		 * This may take longer than it is to the next tick of some
		 * timer: who does not die of the signal waits for the end.
		 */
		if (fatal_signal_pending(current))
			return -EINTR;
	}
	return 0;
}

/* The P4D entry for @addr, or NULL if there is no table there. */
static p4d_t *mshare_p4d(struct mm_struct *mm, unsigned long addr)
{
	pgd_t *pgd = pgd_offset(mm, addr);
	p4d_t *p4d;

	if (pgd_none(*pgd))
		return NULL;
	p4d = p4d_offset(pgd, addr);
	return p4d_none(*p4d) ? NULL : p4d;
}

/*
 * PMD tables of hugetlb may be shared with other mms, which know nothing of the
 * host. To leave them changes nothing but what is faulted in here. With the lock
 * of the file held nobody can share one, and those of a host are not lent out.
 */
static void mshare_unshare_pmds(struct mshare_adoption *ad)
{
	struct vm_area_struct *vma;
	VMA_ITERATOR(vmi, ad->mm, ad->start);

	for_each_vma_range(vmi, vma, ad->end) {
		if (is_vm_hugetlb_page(vma))
			hugetlb_unshare_pmds_locked(vma,
						    max(vma->vm_start, ad->start),
						    min(vma->vm_end, ad->end));
	}
}

static int mshare_count(struct mshare_adoption *ad)
{
	unsigned long addr;
	p4d_t *p4d;
	int err;

	for (addr = ad->start; addr != ad->end; addr += MSHARE_GRANULE) {
		p4d = mshare_p4d(ad->mm, addr);
		if (!p4d)
			continue;
		err = mshare_count_granule(&ad->counts, p4d_pgtable(*p4d), addr);
		if (err)
			return err;
	}
	return ad->counts.unsuitable ? -EINVAL : 0;
}

/* Give the host what @counts says that the creator has. */
static void mshare_move_counts(struct mshare_adoption *ad)
{
	const struct mshare_counts *counts = &ad->counts;
	struct mm_struct *mm = ad->mm, *host = ad->host;
	long bytes = counts->nr_pmds * PTRS_PER_PMD * sizeof(pmd_t) +
		     counts->nr_ptes * PTRS_PER_PTE * sizeof(pte_t);
	long i;

	update_hiwater_rss(mm);
	for (i = 0; i < NR_MM_COUNTERS; i++) {
		if (!counts->rss[i])
			continue;
		add_mm_counter(mm, i, -counts->rss[i]);
		add_mm_counter(host, i, counts->rss[i]);
	}
	atomic_long_sub(bytes, &mm->pgtables_bytes);
	atomic_long_add(bytes, &host->pgtables_bytes);
	hugetlb_count_sub(counts->nr_hugetlb, mm);
	hugetlb_count_add(counts->nr_hugetlb, host);
#ifdef CONFIG_KSM
	atomic_long_sub(counts->ksm_zero_pages, &mm->ksm_zero_pages);
	atomic_long_add(counts->ksm_zero_pages, &host->ksm_zero_pages);
#endif

	/* With a lock for each PMD table, the deposited ones go with that. */
	if (IS_ENABLED(CONFIG_SPLIT_PMD_PTLOCKS))
		return;
	for (i = 0; i < counts->nr_deposited; i++) {
		pgtable_t table;

		spin_lock(&mm->page_table_lock);
		table = pgtable_trans_huge_withdraw(mm, NULL);
		spin_unlock(&mm->page_table_lock);
		spin_lock(&host->page_table_lock);
		pgtable_trans_huge_deposit(host, NULL, table);
		spin_unlock(&host->page_table_lock);
	}
}

/*
 * A VMA of hugetlb that goes leaves its reservations, or its lock, to the host's
 * VMA, which has the same pointer to them. The lock knows to whom it belongs;
 * who looks has that lock and the file's.
 */
static void mshare_move_hugetlb(struct mshare_adoption *ad)
{
	struct hugetlb_vma_lock *lock;
	struct vm_area_struct *vma;
	VMA_ITERATOR(vmi, ad->host, ad->start);

	for_each_vma_range(vmi, vma, ad->end) {
		if (!is_vm_hugetlb_page(vma) || !(vma->vm_flags & VM_MAYSHARE))
			continue;
		lock = vma->vm_private_data;
		if (lock)
			lock->vma = vma;
	}
}

/*
 * The move itself; see the top of the file. Called with the mmap_locks of both
 * mms and the rmap locks of what is mapped in the range held.
 */
static void mshare_move_tables(struct mshare_adoption *ad)
{
	struct mm_struct *mm = ad->mm, *host = ad->host;
	unsigned long addr;
	p4d_t *p4d;

	mshare_publish(mm, ad->att);

	for (addr = ad->start; addr != ad->end; addr += MSHARE_GRANULE) {
		pud_t *unused, *pud;

		p4d = mshare_p4d(mm, addr);
		if (!p4d)
			continue;
		pud = p4d_pgtable(*p4d);
		p4d_clear(p4d);
		mm_dec_nr_puds(mm);

		/*
		 * The host had a table for this granule, which no CPU has ever
		 * walked: nobody has linked it. Rmap has, but is locked out.
		 * The number of the host's tables stays the same.
		 */
		unused = mshare_pud_table(host, addr);
		p4d = p4d_offset(pgd_offset(host, addr), addr);
		p4d_populate(host, p4d, pud);
		pud_free(host, unused);
	}

	/*
	 * For all translations that the creator's CPUs have: it may end up with
	 * less rights than it had. And as long as nobody can change an entry,
	 * for those that are gone already but not flushed (try_to_unmap() may
	 * put that off): flush_tlb_batched_pending() of the host would not know.
	 */
	flush_tlb_mm(mm);

	mshare_move_counts(ad);
	mshare_move_hugetlb(ad);

	/* Before somebody who looks for swap entries could miss them. */
	if (ad->counts.rss[MM_SWAPENTS] && list_empty(&host->mmlist)) {
		spin_lock(&mmlist_lock);
		list_add(&host->mmlist, &mm->mmlist);
		spin_unlock(&mmlist_lock);
	}
#ifdef CONFIG_TRANSPARENT_HUGEPAGE
	/* A reference to it goes with an mm, and so can't fail for another. */
	if (test_bit(MMF_HUGE_ZERO_PAGE, &mm->flags))
		mm_get_huge_zero_folio(host);
#endif
	/* Pages were perhaps pinned, and will not be through the creator. */
	if (test_bit(MMF_HAS_PINNED, &mm->flags))
		set_bit(MMF_HAS_PINNED, &host->flags);
}

/* Make a VMA of the creator shorter, as its entry in the tree is already. */
static void mshare_trim_vma(struct vm_area_struct *vma, unsigned long start,
			    unsigned long end)
{
	struct address_space *mapping = NULL;

	if (vma->vm_file) {
		mapping = vma->vm_file->f_mapping;
		i_mmap_lock_write(mapping);
		flush_dcache_mmap_lock(mapping);
		vma_interval_tree_remove(vma, &mapping->i_mmap);
	}
	if (vma->anon_vma) {
		anon_vma_lock_write(vma->anon_vma);
		anon_vma_interval_tree_pre_update_vma(vma);
	}
	/* No huge page extends over the edge of a granule. */
	vma_set_range(vma, start, end, linear_page_index(vma, start));
	if (vma->anon_vma) {
		anon_vma_interval_tree_post_update_vma(vma);
		anon_vma_unlock_write(vma->anon_vma);
	}
	if (mapping) {
		vma_interval_tree_insert(vma, &mapping->i_mmap);
		flush_dcache_mmap_unlock(mapping);
		i_mmap_unlock_write(mapping);
	}
}

/*
 * Replace the VMAs, which have nothing beneath them, by the attachment. What
 * was accounted for them is the host's, and so is not given back. Those that
 * are to be freed are put on @gone, by a list head that unlink_anon_vmas()
 * leaves empty.
 */
static void mshare_replace_vmas(struct mshare_adoption *ad,
				struct list_head *gone)
{
	unsigned long start = ad->start, end = ad->end;
	struct mm_struct *mm = ad->mm, *host = ad->host;
	struct vm_area_struct *vma;
	VMA_ITERATOR(vmi, mm, start);

	update_hiwater_vm(mm);
	for_each_vma_range(vmi, vma, end) {
		unsigned long vma_start = vma->vm_start, vma_end = vma->vm_end;
		long nr_pages = PHYS_PFN(min(vma_end, end) -
					 max(vma_start, start));

		vm_stat_account(mm, vma->vm_flags, -nr_pages);
		vm_stat_account(host, vma->vm_flags, nr_pages);
		if (vma->vm_flags & VM_LOCKED) {
			mm->locked_vm -= nr_pages;
			host->locked_vm += nr_pages;
		}

		if (vma_start < start) {
			mshare_trim_vma(vma, vma_start, start);
		} else if (vma_end > end) {
			mshare_trim_vma(vma, end, vma_end);
		} else {
			unlink_anon_vmas(vma);
			unlink_file_vma(vma);
			vma_mark_detached(vma, true);
			list_add_tail(&vma->anon_vma_chain, gone);
			mm->map_count--;
		}
		cond_resched();
	}

	vma = ad->vma;
	vma_start_write(vma);
	vma_iter_store(&ad->vmi, vma);
	mm->map_count++;
	vma_link_file(vma);
	vm_stat_account(mm, vma->vm_flags, vma_pages(vma));
	perf_event_mmap(vma);
}

/**
 * mshare_adopt() - attach a new region, with what is mapped there as content
 * @file: the region's file, which nobody else has seen yet
 * @host: the region's host, empty
 * @start: first address of the region, here and in the host
 * @end: first address behind it
 * @vm_flags: of the attachment
 *
 * Context: mmap_lock of the current mm held for writing. Takes that of @host.
 * Return: 0, or -EINVAL for what cannot be shared, or -ENOMEM, or
 * -ERESTARTNOINTR for a signal; with nothing changed.
 */
int mshare_adopt(struct file *file, struct mm_struct *host,
		 unsigned long start, unsigned long end, vm_flags_t vm_flags)
{
	struct mshare_adoption ad = {
		.mm	= current->mm,
		.host	= host,
		.start	= start,
		.end	= end,
		.counts	= { .mm = current->mm },
	};
	struct mmu_notifier_range range;
	struct vm_area_struct *vma, *next;
	LIST_HEAD(gone);
	int err;

	/* Its memory may have been taken from a process that was killed. */
	if (test_bit(MMF_UNSTABLE, &ad.mm->flags))
		return -EINTR;
	err = mshare_check_range(&ad, vm_flags);
	if (err)
		return err;

	/* Until the end: who comes to the host finds all of it or waits. */
	mmap_write_lock(host);
	/* While nothing is mapped there, and so nothing is invalidated. */
	if (mm_has_notifiers(ad.mm)) {
		err = mshare_forward_locked(host->mshare_region);
		if (err)
			goto unlock;
	}
	vma_iter_init(&ad.vmi, ad.mm, start);
	err = mshare_dup_range(&ad);
	if (err)
		goto undup;
	err = mshare_prepare(&ad, file, vm_flags);
	if (err)
		goto unprepare;

	mmu_notifier_range_init(&range, MMU_NOTIFY_CLEAR, 0, ad.mm, start, end);
	mmu_notifier_invalidate_range_start(&range);

	/*
	 * The host's VMAs have the same anon_vmas and files, so these are their
	 * locks too. No allocation from here on, since reclaim takes them.
	 */
	err = mm_take_range_locks(ad.mm, start, end, TASK_KILLABLE);
	if (err)
		goto end_notifiers;
	mshare_unshare_pmds(&ad);
	err = mshare_count(&ad);
	if (err) {
		mm_drop_range_locks(ad.mm, start, end);
		goto end_notifiers;
	}

	/* Nothing fails from here on. */
	mshare_move_tables(&ad);
	mm_drop_range_locks(ad.mm, start, end);
	mshare_replace_vmas(&ad, &gone);
	mshare_link(ad.mm, ad.att);
	/* Nobody has come to the host yet, nor to a futex there. */
	futex_adopt(ad.mm, host, start, end, ad.att->delta);
	mmu_notifier_invalidate_range_end(&range);
	validate_mm(host);
	validate_mm(ad.mm);
	/* Who has been told of the attachment takes it for what is executed. */
	vma_iter_init(&ad.vmi, host, start);
	for_each_vma(ad.vmi, vma)
		perf_event_mmap(vma);
	mmap_write_unlock(host);

	list_for_each_entry_safe(vma, next, &gone, anon_vma_chain)
		mshare_free_vma(vma);
	return 0;

end_notifiers:
	mmu_notifier_invalidate_range_end(&range);
unprepare:
	mshare_unprepare(&ad);
undup:
	mshare_undup_range(&ad);
unlock:
	mmap_write_unlock(host);
	return err == -EINTR ? -ERESTARTNOINTR : err;
}
