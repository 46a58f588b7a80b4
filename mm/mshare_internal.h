/* SPDX-License-Identifier: GPL-2.0 */
/* What mm/mshare.c and mm/mshare_adopt.c have in common. */
#ifndef __MM_MSHARE_INTERNAL_H
#define __MM_MSHARE_INTERNAL_H

#include <linux/mshare.h>
#include <asm/pgtable.h>

/* mm/mshare.c */
int mshare_may_map(struct file *file, unsigned long flags);
pud_t *mshare_pud_table(struct mm_struct *host, unsigned long addr);
struct vm_area_struct *mshare_new_vma(struct mm_struct *mm, struct file *file,
				      unsigned long start, unsigned long end,
				      vm_flags_t vm_flags);
struct mshare_attachment *mshare_new_attachment(struct vm_area_struct *vma);
void mshare_publish(struct mm_struct *mm, struct mshare_attachment *att);
void mshare_link(struct mm_struct *mm, struct mshare_attachment *att);

/* mm/mshare_adopt.c */
int mshare_adopt(struct file *file, struct mm_struct *host,
		 unsigned long start, unsigned long end, vm_flags_t vm_flags);

#endif /* __MM_MSHARE_INTERNAL_H */
