// SPDX-License-Identifier: GPL-2.0
/*
 * msharefs: what the names of mshare(2) and mshare_unlink(2) mean.
 *
 * A name is one component in what is mounted at /sys/fs/mshare, or a path.
 * Either way it is looked up, created, opened and removed as any other file:
 * every permission, LSM hook and errno here is the VFS's own.
 */
#include <linux/audit.h>
#include <linux/cred.h>
#include <linux/file.h>
#include <linux/fs.h>
#include <linux/fs_struct.h>
#include <linux/fsnotify.h>
#include <linux/mount.h>
#include <linux/mshare.h>
#include <linux/namei.h>
#include <linux/sched/signal.h>
#include <linux/security.h>
#include <linux/slab.h>
#include <linux/string.h>
#include <linux/uaccess.h>
#include <uapi/linux/mshare.h>

#include "internal.h"

#define MSHAREFS_DIR	"/sys/fs/mshare/"

static bool msharefs_is_mounted_at(const struct path *path)
{
	return path->mnt->mnt_sb->s_type == &msharefs_fs_type;
}

/* Is there an msharefs where the names are? Return: -ENOENT if not. */
static int msharefs_check_mounted(void)
{
	struct path path;
	int err;

	err = kern_path(MSHAREFS_DIR, LOOKUP_FOLLOW, &path);
	if (err)
		return err;
	err = msharefs_is_mounted_at(&path) ? 0 : -ENOENT;
	path_put(&path);
	return err;
}

/*
 * The path that a name stands for. @is_name says whether it was a name, whose
 * msharefs is mounted then.
 *
 * Return: memory of __getname(), or an ERR_PTR.
 */
static char *msharefs_get_path(const char __user *uname, bool *is_name)
{
	const size_t dir = sizeof(MSHAREFS_DIR) - 1;
	const char *last;
	char *path;
	long len;

	path = __getname();
	if (!path)
		return ERR_PTR(-ENOMEM);

	memcpy(path, MSHAREFS_DIR, dir);
	len = strncpy_from_user(path + dir, uname, PATH_MAX - dir);
	if (len == PATH_MAX - dir) {
		/* Too long, but as a path of its own perhaps just not. */
		len = strncpy_from_user(path, uname, PATH_MAX);
		if (len >= 0 && (len == PATH_MAX || path[0] != '/'))
			len = -ENAMETOOLONG;
		*is_name = false;
	} else if (len > 0) {
		*is_name = path[dir] != '/';
		if (!*is_name)
			memmove(path, path + dir, len + 1);
	} else if (!len) {
		len = -EINVAL;
	}
	if (len < 0)
		goto fail;

	/* The names that are none, and more than one component. */
	len = -EINVAL;
	last = strrchr(path, '/') + 1;
	if (*is_name && last != path + dir)
		goto fail;
	if (!strcmp(last, ".") || !strcmp(last, ".."))
		goto fail;

	len = *is_name ? msharefs_check_mounted() : 0;
	if (len < 0)
		goto fail;
	return path;

fail:
	__putname(path);
	return ERR_PTR(len);
}

/* A path was found: is it a region, and nothing that is mounted over one? */
static int msharefs_check(const struct path *path)
{
	if (!msharefs_is_mounted_at(path) ||
	    !msharefs_is_region(d_inode(path->dentry)))
		return -EINVAL;
	return 0;
}

struct msharefs_new {
	int oflag;
	umode_t mode;
	struct mshare_region *(*create)(void *arg);
	int (*attach)(struct file *file, void *arg);
	void *arg;
};

/* A region that is being made, on the list of its msharefs. */
struct msharefs_making {
	struct list_head node;
	struct dentry *dentry;
};

/* Is a region of this name being made? The directory is locked. */
static bool msharefs_is_being_made(struct msharefs_sb *sbi,
				   const struct qstr *name)
{
	struct msharefs_making *making;

	list_for_each_entry(making, &sbi->making, node) {
		const struct qstr *other = &making->dentry->d_name;

		if (other->hash_len == name->hash_len &&
		    !memcmp(other->name, name->name, name->len))
			return true;
	}
	return false;
}

/* Make the region and attach its creator. No lock is held. */
static int msharefs_make_region(const struct path *path, struct inode *inode,
				const struct msharefs_new *new)
{
	struct mshare_region *region;
	struct mshare_info info;
	struct file *file;
	int err;

	region = new->create(new->arg);
	if (IS_ERR(region)) {
		iput(inode);
		return PTR_ERR(region);
	}
	MSHAREFS_I(inode)->region = region;
	mshare_region_info(region, &info);
	i_size_write(inode, info.size);

	/* The dentry has the inode from here on, and the inode the region. */
	d_instantiate(path->dentry, inode);
	file = dentry_open(path, new->oflag & O_ACCMODE, current_cred());
	if (IS_ERR(file))
		return PTR_ERR(file);
	err = new->attach(file, new->arg);
	fput(file);
	return err;
}

/*
 * Make a new region of the name of @negative, whose directory is locked, and
 * attach its creator. Nobody sees the name before all of it has succeeded: a
 * failure leaves no trace.
 *
 * The creator may have to wait for its own mmap_lock, and a thread of it may
 * hold that for a page that never comes. So the directory is not locked
 * meanwhile: only who wants to make the same name waits.
 *
 * Return: 0 or a negative error, or 1 if somebody else is making a region of
 * that name.
 */
static int msharefs_make(const struct path *dir, struct dentry *negative,
			 const struct msharefs_new *new)
{
	umode_t mode = S_IFREG | (new->mode & 0777 & ~current_umask());
	struct inode *dir_inode = d_inode(dir->dentry);
	struct msharefs_sb *sbi = dir_inode->i_sb->s_fs_info;
	struct path path = { .mnt = dir->mnt };
	struct msharefs_making making;
	struct inode *inode;
	int err;

	err = security_path_mknod(dir, negative, mode, 0);
	if (err)
		return err;
	/* There is but one directory, and it is not going to be removed. */
	err = inode_permission(&nop_mnt_idmap, dir_inode, MAY_WRITE | MAY_EXEC);
	if (err)
		return err;
	err = security_inode_create(dir_inode, negative, mode);
	if (err)
		return err;
	if (msharefs_is_being_made(sbi, &negative->d_name))
		return 1;

	/*
	 * In a dentry of its own, since who found @negative before the
	 * directory was locked would see it become positive.
	 */
	path.dentry = d_alloc(dir->dentry, &negative->d_name);
	if (!path.dentry)
		return -ENOMEM;
	inode = msharefs_new_region_inode(dir_inode, mode);
	if (!inode) {
		dput(path.dentry);
		return -ENOMEM;
	}
	making.dentry = path.dentry;
	list_add(&making.node, &sbi->making);

	inode_unlock(dir_inode);
	err = msharefs_make_region(&path, inode, new);
	inode_lock_nested(dir_inode, I_MUTEX_PARENT);

	list_del(&making.node);
	WRITE_ONCE(sbi->nr_made, sbi->nr_made + 1);
	wake_up_all(&sbi->wait);
	if (err) {
		dput(path.dentry);
		return err;
	}

	/*
	 * Nobody else can have made the name, nor found another dentry of it
	 * than @negative, to which we have a reference. Our reference to the new
	 * one is the name's now.
	 */
	d_drop(negative);
	d_rehash(path.dentry);
	inode_set_mtime_to_ts(dir_inode, inode_set_ctime_current(dir_inode));
	audit_inode_child(dir_inode, path.dentry, AUDIT_TYPE_CHILD_CREATE);
	fsnotify_create(dir_inode, path.dentry);
	return 0;
}

/* What to say of a name that was to be new and exists. */
static int msharefs_exists(const char *pathname)
{
	struct path path;
	int err;

	err = kern_path(pathname, 0, &path);
	if (err)
		return err == -ENOENT ? -EEXIST : err;
	err = msharefs_check(&path) ?: -EEXIST;
	path_put(&path);
	return err;
}

/*
 * Return: 0 or a negative error: -EEXIST if there is something of that name;
 * or 1 if there may be now.
 */
static int msharefs_create_name(const char *pathname,
				const struct msharefs_new *new)
{
	struct msharefs_sb *sbi = NULL;
	unsigned long nr_made = 0;
	struct dentry *dentry;
	struct path dir, wait;
	int err;

	dentry = kern_path_create(AT_FDCWD, pathname, &dir, 0);
	if (IS_ERR(dentry))
		return PTR_ERR(dentry);

	err = -EINVAL;
	if (msharefs_is_mounted_at(&dir) && new->create)
		err = msharefs_make(&dir, dentry, new);
	if (err > 0) {
		wait = dir;
		path_get(&wait);
		sbi = dir.dentry->d_sb->s_fs_info;
		nr_made = sbi->nr_made;
	}
	done_path_create(&dir, dentry);

	if (sbi) {
		if (wait_event_interruptible(sbi->wait,
					     READ_ONCE(sbi->nr_made) != nr_made))
			err = -ERESTARTNOINTR;
		path_put(&wait);
	}
	return err;
}

/* Open the region at @path as open(2) would by its name there. */
static struct file *msharefs_open_path(const struct path *path, int flags)
{
	struct name_snapshot name;
	struct path dir = { .mnt = path->mnt };
	struct file *file;

	/* A mount of its own has no directory. */
	if (path->dentry == path->mnt->mnt_root)
		return file_open_root(path, "", flags, 0);

	/*
	 * By its name, not by the dentry: it is the walk that knows what
	 * O_CREAT may not open in a sticky directory.
	 */
	dir.dentry = dget_parent(path->dentry);
	take_dentry_name_snapshot(&name, path->dentry);
	file = file_open_root(&dir, name.name.name, flags, 0);
	release_dentry_name_snapshot(&name);
	dput(dir.dentry);
	/* It may be another's name meanwhile. */
	if (!IS_ERR(file) && file_inode(file) != d_inode(path->dentry)) {
		fput(file);
		file = ERR_PTR(-ENOENT);
	}
	return file;
}

/* A symbolic link, or with a slash at its end what one would point to? */
static bool msharefs_is_link(const char *pathname)
{
	struct path path;
	bool ret;

	if (pathname[strlen(pathname) - 1] == '/')
		return true;
	if (kern_path(pathname, 0, &path))
		return false;
	ret = d_is_symlink(path.dentry);
	path_put(&path);
	return ret;
}

/* Return: -ENOENT if there is no such name, or none any more. */
static int msharefs_open_name(const char *pathname, int oflag,
			      int (*attach)(struct file *file, void *arg),
			      void *arg)
{
	struct file *file;
	struct path path;
	int err;

	err = kern_path(pathname, LOOKUP_FOLLOW, &path);
	if (err)
		return err;
	err = msharefs_check(&path);
	if (err)
		goto put_path;

	file = msharefs_open_path(&path, oflag & (O_ACCMODE | O_CREAT));
	if (IS_ERR(file)) {
		err = PTR_ERR(file);
		/* O_CREAT of what was removed meanwhile */
		if (err == -EPERM && d_unhashed(path.dentry) &&
		    path.dentry != path.mnt->mnt_root)
			err = -ENOENT;
		goto put_path;
	}

	err = attach(file, arg);
	/* A file that is mounted there stays when its name is gone. */
	if (err == -ENOENT && (oflag & O_CREAT) &&
	    path.dentry == path.mnt->mnt_root)
		err = -EBUSY;
	fput(file);
put_path:
	path_put(&path);
	return err;
}

/**
 * msharefs_has_name() - has a region been attached before its name went?
 * @file: open file of the region, which is attached by now
 *
 * mshare_unlink() removes the name of a region that nobody is attached to, and
 * nobody may have attached it by that name when it does. With the inode locked
 * it finds the region attached, or is found to have removed the name.
 *
 * Context: may sleep.
 */
bool msharefs_has_name(struct file *file)
{
	struct inode *inode = file_inode(file);
	bool ret;

	inode_lock_shared(inode);
	ret = inode->i_nlink;
	inode_unlock_shared(inode);
	return ret;
}

/**
 * msharefs_open() - find or make a region by its name and attach it
 * @uname: name or path, as the user gave it
 * @oflag: O_RDONLY or O_RDWR, O_CREAT, O_EXCL
 * @mode: permissions of a new file, before the umask
 * @create: makes a new region, or NULL if it can't be
 * @attach_new: attaches the creator to the region of the file; if it fails
 *		there will have been neither
 * @attach: attaches the caller to the region of an existing file
 * @arg: for the three
 *
 * Context: may sleep. The functions are called with no lock held. @attach calls
 * msharefs_has_name() when it is done.
 * Return: 0 or a negative error, of mshare(2).
 */
int msharefs_open(const char __user *uname, int oflag, umode_t mode,
		  struct mshare_region *(*create)(void *arg),
		  int (*attach_new)(struct file *file, void *arg),
		  int (*attach)(struct file *file, void *arg), void *arg)
{
	const struct msharefs_new new = {
		.oflag	= oflag,
		.mode	= mode,
		.create	= create,
		.attach	= attach_new,
		.arg	= arg,
	};
	bool is_name;
	char *path;
	int err;

	path = msharefs_get_path(uname, &is_name);
	if (IS_ERR(path))
		return PTR_ERR(path);

	for (;;) {
		if (oflag & O_CREAT) {
			err = msharefs_create_name(path, &new);
			if (err > 0)
				continue;
			if (err != -EEXIST)
				break;
			if (oflag & O_EXCL) {
				err = msharefs_exists(path);
				break;
			}
		}
		err = msharefs_open_name(path, oflag, attach, arg);
		if (err != -ENOENT || !(oflag & O_CREAT))
			break;
		/*
		 * It exists and it doesn't: it is a symbolic link to nowhere,
		 * or somebody has just removed it.
		 */
		if (msharefs_is_link(path))
			break;
		err = -ERESTARTNOINTR;
		if (signal_pending(current))
			break;
		cond_resched();
	}
	__putname(path);
	return err;
}

/**
 * msharefs_unlink() - end the caller's access to a region
 * @uname: name or path, as the user gave it
 * @detach: detaches the caller from a region; returns 1, 0 if it was not
 *	    attached, or a negative error
 *
 * Context: may sleep.
 * Return: 0 or a negative error, of mshare_unlink(2).
 */
int msharefs_unlink(const char __user *uname,
		    int (*detach)(struct mshare_region *region))
{
	struct path dir, path;
	struct inode *inode;
	bool attached;
	bool is_name;
	char *name;
	int err;

	name = msharefs_get_path(uname, &is_name);
	if (IS_ERR(name))
		return PTR_ERR(name);
	err = kern_path(name, 0, &path);
	__putname(name);
	if (err)
		return err;
	err = msharefs_check(&path);
	if (err)
		goto put_path;

	/* It goes with the name, unless somebody holds it, but not before that. */
	inode = d_inode(path.dentry);
	ihold(inode);
	err = detach(MSHAREFS_I(inode)->region);
	if (err < 0)
		goto put_inode;
	attached = err;

	/* The last one out removes the name, if it may. */
	err = 0;
	if (attached && mshare_region_busy(MSHAREFS_I(inode)->region))
		goto put_inode;

	/* A mount of its own has no directory. */
	err = -EBUSY;
	if (path.dentry == path.mnt->mnt_root)
		goto out;
	err = mnt_want_write(path.mnt);
	if (err)
		goto out;
	dir.mnt = path.mnt;
	dir.dentry = dget_parent(path.dentry);
	inode_lock_nested(d_inode(dir.dentry), I_MUTEX_PARENT);
	err = -ENOENT;
	if (path.dentry->d_parent == dir.dentry && !d_unhashed(path.dentry)) {
		err = security_path_unlink(&dir, path.dentry);
		if (err)
			goto unlock;
		MSHAREFS_I(inode)->unlink_idle = true;
		err = vfs_unlink(mnt_idmap(path.mnt), d_inode(dir.dentry),
				 path.dentry, NULL);
		MSHAREFS_I(inode)->unlink_idle = false;
	}
unlock:
	inode_unlock(d_inode(dir.dentry));
	dput(dir.dentry);
	mnt_drop_write(path.mnt);
out:
	/* Who was attached is not any more: that is what was asked for. */
	if (attached)
		err = 0;
put_inode:
	iput(inode);
put_path:
	path_put(&path);
	return err;
}
