/* SPDX-License-Identifier: GPL-2.0 WITH Linux-syscall-note */
#ifndef _UAPI_LINUX_MSHARE_H
#define _UAPI_LINUX_MSHARE_H

#include <linux/types.h>

/**
 * struct mshare_info - what read(2) of a region's file in msharefs returns
 * @start: address of the region in bytes, a multiple of the granule
 * @size: length of the region in bytes, a multiple of the granule
 * @nr_attached: address spaces that are attached at the moment
 *
 * New fields are only ever added at the end. A read of fewer bytes gets a
 * prefix, and a program that knows more fields than its kernel gets a short
 * count.
 */
struct mshare_info {
	__aligned_u64 start;
	__aligned_u64 size;
	__aligned_u64 nr_attached;
};

#endif /* _UAPI_LINUX_MSHARE_H */
