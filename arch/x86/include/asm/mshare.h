/* SPDX-License-Identifier: GPL-2.0 */
#ifndef _ASM_X86_MSHARE_H
#define _ASM_X86_MSHARE_H

#include <linux/mm.h>
#include <asm/pgtable.h>

/**
 * arch_mshare_p4d() - the entry by which an attached mm reaches a host's table
 * @pud: the PUD table, of the host
 * @vm_flags: of the attachment; VM_WRITE and VM_EXEC limit the attached mm
 *
 * The hardware ands the rights along a walk, so that what is taken away here
 * is taken away from the whole granule. The entry is always built anew and
 * never copied from another mm: with page table isolation and 4 levels the
 * kernel's copy of it carries NX.
 */
static inline p4d_t arch_mshare_p4d(pud_t *pud, vm_flags_t vm_flags)
{
	p4dval_t val = _PAGE_TABLE | __pa(pud);

	if (!(vm_flags & VM_WRITE))
		val &= ~(p4dval_t)_PAGE_RW;
	if (!(vm_flags & VM_EXEC))
		val |= _PAGE_NX & __supported_pte_mask;
	return __p4d(val);
}

/**
 * arch_mshare_adopt() - a region gets a mapping that can only be executed
 * @host: the region's host
 * @mm: the mm from which it gets it
 *
 * Where there are protection keys the mapping has a key that denies access.
 * No other gets that key in a region (see execute_only_pkey()), but this one
 * must lose it when it is made readable: the host has to know it.
 */
static inline void arch_mshare_adopt(struct mm_struct *host,
				     const struct mm_struct *mm)
{
#ifdef CONFIG_X86_INTEL_MEMORY_PROTECTION_KEYS
	host->context.execute_only_pkey = mm->context.execute_only_pkey;
#endif
}

#endif /* _ASM_X86_MSHARE_H */
