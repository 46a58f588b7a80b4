/* SPDX-License-Identifier: GPL-2.0 */
#ifndef _MSHAREFS_INTERNAL_H
#define _MSHAREFS_INTERNAL_H

#include <linux/fs.h>
#include <linux/list.h>
#include <linux/wait.h>

struct mshare_region;

/**
 * struct msharefs_sb - a mounted msharefs
 * @mode: of the root, with @uid and @gid, when it is mounted
 * @uid: owner
 * @gid: group
 * @making: regions that are being made and whose names nobody sees yet; under
 *	    the root's inode lock
 * @nr_made: how many were taken off @making; under the same lock
 * @wait: for @nr_made to change
 */
struct msharefs_sb {
	umode_t mode;
	kuid_t uid;
	kgid_t gid;
	struct list_head making;
	unsigned long nr_made;
	wait_queue_head_t wait;
};

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
