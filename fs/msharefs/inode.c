// SPDX-License-Identifier: GPL-2.0
/*
 * msharefs: the names and permissions of mshare regions.
 *
 * Every region is a file in the root of an msharefs; mshare(2) makes it,
 * rm(1) and mshare_unlink(2) remove it. What a region is, is mm/mshare.c's
 * business: here it is what an inode holds.
 */
#include <linux/fs.h>
#include <linux/fs_context.h>
#include <linux/fs_parser.h>
#include <linux/init.h>
#include <linux/kobject.h>
#include <linux/magic.h>
#include <linux/mm.h>
#include <linux/mshare.h>
#include <linux/namei.h>
#include <linux/pagemap.h>
#include <linux/seq_file.h>
#include <linux/slab.h>
#include <linux/statfs.h>
#include <linux/sysfs.h>
#include <linux/uio.h>
#include <uapi/linux/mshare.h>

#include "internal.h"

#define MSHAREFS_MAGIC		0x6d736872	/* "mshr" */
#define MSHAREFS_INFO_NAME	"mshare_info"
#define MSHAREFS_DEFAULT_MODE	(S_ISVTX | 0777)

static struct kmem_cache *msharefs_inode_cachep;

/*
 * Files
 */

static ssize_t msharefs_region_read_iter(struct kiocb *iocb, struct iov_iter *to)
{
	struct mshare_region *region = MSHAREFS_I(file_inode(iocb->ki_filp))->region;
	struct mshare_info info;
	size_t copied;

	if (iocb->ki_pos < 0)
		return -EINVAL;
	if (iocb->ki_pos >= sizeof(info) || !iov_iter_count(to))
		return 0;

	mshare_region_info(region, &info);
	copied = copy_to_iter((char *)&info + iocb->ki_pos,
			      sizeof(info) - iocb->ki_pos, to);
	if (!copied)
		return -EFAULT;
	iocb->ki_pos += copied;
	return copied;
}

/* In the root: the unit of a region's address and size, in bytes. */
static ssize_t msharefs_info_read_iter(struct kiocb *iocb, struct iov_iter *to)
{
	char text[24];
	size_t len, copied;

	len = scnprintf(text, sizeof(text), "%lu\n",
			(unsigned long)MSHARE_GRANULE);
	if (iocb->ki_pos < 0)
		return -EINVAL;
	if (iocb->ki_pos >= len || !iov_iter_count(to))
		return 0;

	copied = copy_to_iter(text + iocb->ki_pos, len - iocb->ki_pos, to);
	if (!copied)
		return -EFAULT;
	iocb->ki_pos += copied;
	return copied;
}

static ssize_t msharefs_write_iter(struct kiocb *iocb, struct iov_iter *from)
{
	return -EPERM;
}

static int msharefs_region_mmap(struct file *file, struct vm_area_struct *vma)
{
	return mshare_mmap(file, vma);
}

static long msharefs_region_ioctl(struct file *file, unsigned int cmd,
				  unsigned long arg)
{
	switch (cmd) {
	case PROCMAP_QUERY:
		return proc_query_region(msharefs_region(file),
					 (void __user *)arg);
	default:
		return -ENOIOCTLCMD;
	}
}

const struct file_operations msharefs_region_fops = {
	.read_iter		= msharefs_region_read_iter,
	.write_iter		= msharefs_write_iter,
	.unlocked_ioctl		= msharefs_region_ioctl,
	.compat_ioctl		= compat_ptr_ioctl,
	.mmap			= msharefs_region_mmap,
	.get_unmapped_area	= mshare_region_unmapped_area,
	.llseek			= default_llseek,
};

static const struct file_operations msharefs_info_fops = {
	.read_iter	= msharefs_info_read_iter,
	.write_iter	= msharefs_write_iter,
	.llseek		= default_llseek,
};

static int msharefs_setattr(struct mnt_idmap *idmap, struct dentry *dentry,
			    struct iattr *attr)
{
	if (attr->ia_valid & ATTR_SIZE)
		return -EPERM;
	return simple_setattr(idmap, dentry, attr);
}

static int msharefs_getattr(struct mnt_idmap *idmap, const struct path *path,
			    struct kstat *stat, u32 request_mask,
			    unsigned int query_flags)
{
	struct inode *inode = d_inode(path->dentry);

	generic_fillattr(idmap, request_mask, inode, stat);
	if (msharefs_is_region(inode))
		stat->blocks = mshare_region_rss(MSHAREFS_I(inode)->region)
			       << (PAGE_SHIFT - SECTOR_SHIFT);
	return 0;
}

static const struct inode_operations msharefs_file_iops = {
	.setattr	= msharefs_setattr,
	.getattr	= msharefs_getattr,
};

/* Regions are made by mshare(2) alone. */
static int msharefs_create(struct mnt_idmap *idmap, struct inode *dir,
			   struct dentry *dentry, umode_t mode, bool excl)
{
	return -EPERM;
}

static int msharefs_unlink_file(struct inode *dir, struct dentry *dentry)
{
	struct inode *inode = d_inode(dentry);

	if (!msharefs_is_region(inode))
		return -EPERM;
	if (MSHAREFS_I(inode)->unlink_idle &&
	    mshare_region_busy(MSHAREFS_I(inode)->region))
		return -EBUSY;
	return simple_unlink(dir, dentry);
}

static const struct inode_operations msharefs_dir_iops = {
	.lookup		= simple_lookup,
	.create		= msharefs_create,
	.unlink		= msharefs_unlink_file,
	.setattr	= msharefs_setattr,
};

/**
 * msharefs_region() - the region of an open file
 * @file: an open file of a region
 */
struct mshare_region *msharefs_region(struct file *file)
{
	return MSHAREFS_I(file_inode(file))->region;
}

/* See mshare_is_region() */
bool __mshare_is_region(const struct file *file)
{
	return file->f_op == &msharefs_region_fops;
}

/*
 * Inodes
 */

static struct inode *msharefs_alloc_inode(struct super_block *sb)
{
	struct msharefs_inode *mi;

	mi = alloc_inode_sb(sb, msharefs_inode_cachep, GFP_KERNEL);
	if (!mi)
		return NULL;
	mi->region = NULL;
	mi->unlink_idle = false;
	return &mi->inode;
}

static void msharefs_free_inode(struct inode *inode)
{
	kmem_cache_free(msharefs_inode_cachep, MSHAREFS_I(inode));
}

static void msharefs_evict_inode(struct inode *inode)
{
	struct mshare_region *region = MSHAREFS_I(inode)->region;

	truncate_inode_pages_final(&inode->i_data);
	clear_inode(inode);
	if (region)
		mshare_region_kill(region);
}

static struct inode *msharefs_new_inode(struct super_block *sb, umode_t mode)
{
	struct inode *inode = new_inode(sb);

	if (!inode)
		return NULL;
	inode->i_ino = get_next_ino();
	inode->i_mode = mode;
	simple_inode_init_ts(inode);
	return inode;
}

/**
 * msharefs_new_region_inode() - an inode for a region to come
 * @dir: the directory it is to be in
 * @mode: type and permissions
 *
 * Return: the inode, in no directory and without a region, or NULL.
 */
struct inode *msharefs_new_region_inode(struct inode *dir, umode_t mode)
{
	struct inode *inode = msharefs_new_inode(dir->i_sb, mode);

	if (!inode)
		return NULL;
	inode_init_owner(&nop_mnt_idmap, inode, dir, mode);
	inode->i_op = &msharefs_file_iops;
	inode->i_fop = &msharefs_region_fops;
	return inode;
}

/*
 * The file system
 */

static int msharefs_show_options(struct seq_file *seq, struct dentry *root)
{
	const struct msharefs_sb *sbi = root->d_sb->s_fs_info;

	if (sbi->mode != MSHAREFS_DEFAULT_MODE)
		seq_printf(seq, ",mode=%03ho", sbi->mode);
	if (!uid_eq(sbi->uid, GLOBAL_ROOT_UID))
		seq_printf(seq, ",uid=%u",
			   from_kuid_munged(&init_user_ns, sbi->uid));
	if (!gid_eq(sbi->gid, GLOBAL_ROOT_GID))
		seq_printf(seq, ",gid=%u",
			   from_kgid_munged(&init_user_ns, sbi->gid));
	return 0;
}

static const struct super_operations msharefs_sops = {
	.alloc_inode	= msharefs_alloc_inode,
	.free_inode	= msharefs_free_inode,
	.evict_inode	= msharefs_evict_inode,
	.drop_inode	= generic_delete_inode,
	.statfs		= simple_statfs,
	.show_options	= msharefs_show_options,
};

static int msharefs_fill_super(struct super_block *sb, struct fs_context *fc)
{
	struct msharefs_sb *sbi = sb->s_fs_info;
	struct dentry *dentry;
	struct inode *inode;

	sb->s_maxbytes = MAX_LFS_FILESIZE;
	sb->s_blocksize = PAGE_SIZE;
	sb->s_blocksize_bits = PAGE_SHIFT;
	sb->s_magic = MSHAREFS_MAGIC;
	sb->s_op = &msharefs_sops;
	sb->s_time_gran = 1;
	/*
	 * No other file system on top: its files would be attached with what
	 * has been asked of them, not of the region's.
	 */
	sb->s_stack_depth = FILESYSTEM_MAX_STACK_DEPTH;

	inode = msharefs_new_inode(sb, S_IFDIR | sbi->mode);
	if (!inode)
		return -ENOMEM;
	inode->i_uid = sbi->uid;
	inode->i_gid = sbi->gid;
	inode->i_op = &msharefs_dir_iops;
	inode->i_fop = &simple_dir_operations;
	set_nlink(inode, 2);
	sb->s_root = d_make_root(inode);
	if (!sb->s_root)
		return -ENOMEM;

	dentry = d_alloc_name(sb->s_root, MSHAREFS_INFO_NAME);
	if (!dentry)
		return -ENOMEM;
	inode = msharefs_new_inode(sb, S_IFREG | 0444);
	if (!inode) {
		dput(dentry);
		return -ENOMEM;
	}
	inode->i_op = &msharefs_file_iops;
	inode->i_fop = &msharefs_info_fops;
	d_add(dentry, inode);
	return 0;
}

enum msharefs_param {
	Opt_mode,
	Opt_uid,
	Opt_gid,
};

static const struct fs_parameter_spec msharefs_parameters[] = {
	fsparam_u32oct("mode",	Opt_mode),
	fsparam_uid("uid",	Opt_uid),
	fsparam_gid("gid",	Opt_gid),
	{}
};

static int msharefs_parse_param(struct fs_context *fc,
				struct fs_parameter *param)
{
	struct msharefs_sb *sbi = fc->s_fs_info;
	struct fs_parse_result result;
	int opt;

	opt = fs_parse(fc, msharefs_parameters, param, &result);
	if (opt < 0)
		return opt;

	switch (opt) {
	case Opt_mode:
		if (result.uint_32 & ~S_IALLUGO)
			return invalfc(fc, "mode has more than permission bits");
		sbi->mode = result.uint_32;
		break;
	case Opt_uid:
		sbi->uid = result.uid;
		break;
	case Opt_gid:
		sbi->gid = result.gid;
		break;
	}
	return 0;
}

static int msharefs_get_tree(struct fs_context *fc)
{
	return get_tree_nodev(fc, msharefs_fill_super);
}

/* Of a mount that exists the owner is chown's and chmod's business. */
static int msharefs_reconfigure(struct fs_context *fc)
{
	return 0;
}

static void msharefs_free_fc(struct fs_context *fc)
{
	kfree(fc->s_fs_info);
}

static const struct fs_context_operations msharefs_context_ops = {
	.parse_param	= msharefs_parse_param,
	.get_tree	= msharefs_get_tree,
	.reconfigure	= msharefs_reconfigure,
	.free		= msharefs_free_fc,
};

static int msharefs_init_fs_context(struct fs_context *fc)
{
	struct msharefs_sb *sbi = kzalloc(sizeof(*sbi), GFP_KERNEL);

	if (!sbi)
		return -ENOMEM;
	sbi->mode = MSHAREFS_DEFAULT_MODE;
	sbi->uid = GLOBAL_ROOT_UID;
	sbi->gid = GLOBAL_ROOT_GID;
	INIT_LIST_HEAD(&sbi->making);
	init_waitqueue_head(&sbi->wait);
	fc->s_fs_info = sbi;
	fc->ops = &msharefs_context_ops;
	return 0;
}

static void msharefs_kill_sb(struct super_block *sb)
{
	struct msharefs_sb *sbi = sb->s_fs_info;

	kill_litter_super(sb);
	kfree(sbi);
}

/*
 * Without FS_USERNS_MOUNT: a region outlives its processes, and who may make
 * what nobody can be killed for is for the system's administrator to say.
 */
struct file_system_type msharefs_fs_type = {
	.name			= "msharefs",
	.init_fs_context	= msharefs_init_fs_context,
	.parameters		= msharefs_parameters,
	.kill_sb		= msharefs_kill_sb,
};

static void msharefs_init_once(void *obj)
{
	struct msharefs_inode *mi = obj;

	inode_init_once(&mi->inode);
}

static int __init msharefs_init(void)
{
	int err;

	msharefs_inode_cachep = kmem_cache_create("msharefs_inode_cache",
				sizeof(struct msharefs_inode), 0,
				SLAB_ACCOUNT, msharefs_init_once);
	if (!msharefs_inode_cachep)
		return -ENOMEM;

	err = sysfs_create_mount_point(fs_kobj, "mshare");
	if (err)
		goto destroy_cache;
	err = register_filesystem(&msharefs_fs_type);
	if (err)
		goto remove_mount_point;
	return 0;

remove_mount_point:
	sysfs_remove_mount_point(fs_kobj, "mshare");
destroy_cache:
	kmem_cache_destroy(msharefs_inode_cachep);
	return err;
}
fs_initcall(msharefs_init);
