/* SPDX-License-Identifier: GPL-2.0 */
#ifndef _MSHAREFS_INTERNAL_H
#define _MSHAREFS_INTERNAL_H

#include <linux/fs.h>

struct mshare_region;

/**
 * struct msharefs_inode - the inode of a region's file
 * @region: the region; set before anyone else can see the inode
 * @unlink_idle: remove the name only if nobody is attached; under the
 *		 directory's inode lock
 * @inode: the VFS's part
 */
struct msharefs_inode {
	struct mshare_region *region;
	bool unlink_idle;
	struct inode inode;
};

static inline struct msharefs_inode *MSHAREFS_I(struct inode *inode)
{
	return container_of(inode, struct msharefs_inode, inode);
}

extern struct file_system_type msharefs_fs_type;
extern const struct file_operations msharefs_region_fops;

struct inode *msharefs_new_region_inode(struct inode *dir, umode_t mode);

static inline bool msharefs_is_region(struct inode *inode)
{
	return inode->i_fop == &msharefs_region_fops;
}

#endif /* _MSHAREFS_INTERNAL_H */
