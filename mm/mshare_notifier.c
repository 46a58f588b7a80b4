// SPDX-License-Identifier: GPL-2.0
/*
 * mshare: the notifiers of attached mms are told what happens to a host.
 *
 * A secondary MMU that mirrors an attached mm has translations of what the host
 * maps, and nothing that happens there happens to the attached mm. So a region
 * has a list of the attachments in mms that have notifiers (its mirrors), and
 * the host has two subscriptions that hand on to those what the host is told,
 * with the addresses and the mm that they know.
 *
 * An attachment becomes a mirror when it is made, if its mm has notifiers, and
 * when its mm has got its first one; and stops being one when it is unmapped,
 * when the mm's own notifiers have been told of the unmapping. An mm that has
 * had a notifier counts as having some (mm_has_notifiers()).
 *
 * Starts and ends are paired. An end must go to precisely those notifiers that
 * got the start. So an invalidation remembers when it started, counted in
 * changes of the list (&mmu_notifier_range.mshare_seq), and a mirror when it
 * came and went: it is told of the end if it was of the start. Who adds a
 * mirror waits until what it was not told of has ended: a page found before
 * that might be one that goes. Who removes one waits until what it was told of
 * has. Both wait for what has started before only, as in SRCU, and however many
 * others come.
 *
 * The notifiers of an mm that is a mirror already are another matter: of a new
 * one nobody remembers when it came. But for what notifiers can cope with
 * themselves, it must not come between a start and an end. Registering it takes
 * all rmap locks of the mm, which what invalidates a host may want, or sleep for
 * in reclaim, before it ends. So that does not wait with them but tries and, if
 * there is an invalidation, drops them first. If there is none, then the region
 * is frozen for the moment that it takes. Who would start meanwhile waits, with
 * whatever locks, since one who has frozen something waits for nothing.
 * A thread may start an invalidation within another one, so those that start
 * can't be made to wait for somebody who waits.
 *
 * Flushes and the young bits have no end: SRCU, for which who removes a mirror
 * waits, and so the mm is there.
 *
 * The subscriptions are made when the first mirror comes, with the mmap_lock of
 * the host held for writing and all its rmap locks, and go with the host: to
 * remove them, and make them again, costs more than to find the list empty.
 *
 * Locking: mmap_lock of the attached mm, that of the host, rmap locks,
 * &mshare_mirrors.change, &mshare_mirrors.lock. What starts or ends an
 * invalidation never takes &mshare_mirrors.change.
 */
#include <linux/mm.h>
#include <linux/mmu_notifier.h>
#include <linux/mshare.h>
#include <linux/rculist.h>
#include <linux/sched/mm.h>
#include <linux/srcu.h>
#include <linux/wait.h>

#include "mshare_internal.h"

/* For the mirrors of all regions, where there is no start and end. */
DEFINE_STATIC_SRCU(mshare_srcu);

/*
 * The part of a range of the host that a mirror has, in its mm's addresses.
 * False if it has none.
 */
static bool mshare_mirror_range(const struct mshare_attachment *att,
				unsigned long *start, unsigned long *end)
{
	unsigned long from = max(*start, att->start + att->delta);
	unsigned long to = min(*end, att->end + att->delta);

	if (from >= to)
		return false;
	*start = from - att->delta;
	*end = to - att->delta;
	return true;
}

/* The same for an invalidation, as the mirror's notifiers are to see it. */
static bool mshare_mirror_inval(const struct mshare_attachment *att,
				const struct mmu_notifier_range *range,
				struct mmu_notifier_range *to)
{
	*to = *range;
	to->mm = att->mm;
	/*
	 * Who sees itself as the owner leaves the invalidation alone, since it
	 * has seen to its mirror, of one mm. What a migration would have it
	 * spare it is about to set up anew.
	 */
	to->owner = NULL;
	if (range->event == MMU_NOTIFY_EXCLUSIVE && range->owner) {
		const struct mshare_owner *owner = range->owner;

		if (owner->mm == att->mm)
			to->owner = owner->owner;
	}
	return mshare_mirror_range(att, &to->start, &to->end);
}

#define for_each_mirror(att, mirrors)					\
	hlist_for_each_entry_srcu(att, &(mirrors)->list, mirror,	\
				  srcu_read_lock_held(&mshare_srcu))

/*
 * Are the notifiers of an attached mm told of an invalidation? For its start
 * and its end the answer is the same: what changes meanwhile comes later than
 * @seq.
 */
static bool mshare_is_told(const struct mshare_attachment *att,
			   unsigned long seq)
{
	return att->told_from <= seq && seq < READ_ONCE(att->told_until);
}

static int mshare_range_start(struct mmu_notifier *sub,
			      const struct mmu_notifier_range *range)
{
	struct mshare_mirrors *mirrors = container_of(sub, struct mshare_mirrors,
						      range);
	struct mmu_notifier_range to;
	struct mshare_attachment *att;
	unsigned long seq;
	int id;

	/* The oom_reaper, which is the one that can't wait, reaps no hosts. */
	if (!mmu_notifier_range_blockable(range))
		return -EAGAIN;

	spin_lock(&mirrors->lock);
	while (unlikely(mirrors->frozen)) {
		spin_unlock(&mirrors->lock);
		wait_event(mirrors->wait, !READ_ONCE(mirrors->frozen));
		spin_lock(&mirrors->lock);
	}
	seq = mirrors->seq;
	/* Who started it has it as it was until the end, for us. */
	((struct mmu_notifier_range *)range)->mshare_seq =
		seq << 1 | mirrors->active;
	WRITE_ONCE(mirrors->nr_active[mirrors->active],
		   mirrors->nr_active[mirrors->active] + 1);
	spin_unlock(&mirrors->lock);

	id = srcu_read_lock(&mshare_srcu);
	for_each_mirror(att, mirrors)
		if (mshare_is_told(att, seq) &&
		    mshare_mirror_inval(att, range, &to))
			__mmu_notifier_invalidate_range_start(&to);
	srcu_read_unlock(&mshare_srcu, id);
	return 0;
}

static void mshare_range_end(struct mmu_notifier *sub,
			     const struct mmu_notifier_range *range)
{
	struct mshare_mirrors *mirrors = container_of(sub, struct mshare_mirrors,
						      range);
	unsigned int active = range->mshare_seq & 1;
	struct mmu_notifier_range to;
	struct mshare_attachment *att;
	int id;

	id = srcu_read_lock(&mshare_srcu);
	for_each_mirror(att, mirrors)
		if (mshare_is_told(att, range->mshare_seq >> 1) &&
		    mshare_mirror_inval(att, range, &to))
			__mmu_notifier_forward_range_end(&to);
	srcu_read_unlock(&mshare_srcu, id);

	spin_lock(&mirrors->lock);
	if (!WARN_ON_ONCE(!mirrors->nr_active[active])) {
		WRITE_ONCE(mirrors->nr_active[active],
			   mirrors->nr_active[active] - 1);
		if (!mirrors->nr_active[active])
			wake_up_all(&mirrors->wait);
	}
	spin_unlock(&mirrors->lock);
}

static int mshare_clear_flush_young(struct mmu_notifier *sub,
				    struct mm_struct *host,
				    unsigned long start, unsigned long end)
{
	struct mshare_mirrors *mirrors = container_of(sub, struct mshare_mirrors,
						      range);
	struct mshare_attachment *att;
	int young = 0, id;

	id = srcu_read_lock(&mshare_srcu);
	for_each_mirror(att, mirrors) {
		unsigned long from = start, to = end;

		if (mshare_mirror_range(att, &from, &to))
			young |= mmu_notifier_clear_flush_young(att->mm, from,
								to);
	}
	srcu_read_unlock(&mshare_srcu, id);
	return young;
}

static int mshare_clear_young(struct mmu_notifier *sub, struct mm_struct *host,
			      unsigned long start, unsigned long end)
{
	struct mshare_mirrors *mirrors = container_of(sub, struct mshare_mirrors,
						      range);
	struct mshare_attachment *att;
	int young = 0, id;

	id = srcu_read_lock(&mshare_srcu);
	for_each_mirror(att, mirrors) {
		unsigned long from = start, to = end;

		if (mshare_mirror_range(att, &from, &to))
			young |= mmu_notifier_clear_young(att->mm, from, to);
	}
	srcu_read_unlock(&mshare_srcu, id);
	return young;
}

static int mshare_test_young(struct mmu_notifier *sub, struct mm_struct *host,
			     unsigned long address)
{
	struct mshare_mirrors *mirrors = container_of(sub, struct mshare_mirrors,
						      range);
	struct mshare_attachment *att;
	int young = 0, id;

	id = srcu_read_lock(&mshare_srcu);
	for_each_mirror(att, mirrors) {
		unsigned long from = address, to = address + 1;

		if (!mshare_mirror_range(att, &from, &to))
			continue;
		young = mmu_notifier_test_young(att->mm, from);
		if (young)
			break;
	}
	srcu_read_unlock(&mshare_srcu, id);
	return young;
}

static const struct mmu_notifier_ops mshare_range_ops = {
	.invalidate_range_start	= mshare_range_start,
	.invalidate_range_end	= mshare_range_end,
	.clear_flush_young	= mshare_clear_flush_young,
	.clear_young		= mshare_clear_young,
	.test_young		= mshare_test_young,
};

/* With the lock of a page table held: must not sleep. */
static void mshare_invalidate_tlbs(struct mmu_notifier *sub,
				   struct mm_struct *host,
				   unsigned long start, unsigned long end)
{
	struct mshare_mirrors *mirrors = container_of(sub, struct mshare_mirrors,
						      tlb);
	struct mshare_attachment *att;
	int id;

	id = srcu_read_lock(&mshare_srcu);
	for_each_mirror(att, mirrors) {
		unsigned long from = start, to = end;

		if (mshare_mirror_range(att, &from, &to))
			mmu_notifier_arch_invalidate_secondary_tlbs(att->mm,
								    from, to);
	}
	srcu_read_unlock(&mshare_srcu, id);
}

static const struct mmu_notifier_ops mshare_tlb_ops = {
	.arch_invalidate_secondary_tlbs	= mshare_invalidate_tlbs,
};

/**
 * mshare_init_mirrors() - a new region has none
 * @region: the region
 */
void mshare_init_mirrors(struct mshare_region *region)
{
	struct mshare_mirrors *mirrors = &region->mirrors;

	spin_lock_init(&mirrors->lock);
	mutex_init(&mirrors->change);
	init_waitqueue_head(&mirrors->wait);
	mirrors->range.ops = &mshare_range_ops;
	mirrors->tlb.ops = &mshare_tlb_ops;
}

/**
 * mshare_exit_mirrors() - put the subscriptions of a host that goes
 * @region: its region
 *
 * mmu_notifier_release() has taken them off the host's list, perhaps between the
 * start and the end of an invalidation by rmap, for which nobody waits any more.
 * They hold the host.
 *
 * Context: exit_mmap() of the host; may sleep.
 */
void mshare_exit_mirrors(struct mshare_region *region)
{
	struct mshare_mirrors *mirrors = &region->mirrors;

	WARN_ON_ONCE(!hlist_empty(&mirrors->list));
	if (mirrors->range.mm)
		mmu_notifier_unregister(&mirrors->range, region->mm);
	if (mirrors->tlb.mm)
		mmu_notifier_unregister(&mirrors->tlb, region->mm);
}

/**
 * mshare_forward_locked() - have a host's invalidations forwarded
 * @region: the region
 *
 * Context: mmap_lock of the host held for writing, no other lock but those that
 * may be held with an mmap_lock.
 * Return: 0, or -ENOMEM, or -EINTR if the task is being killed.
 */
int mshare_forward_locked(struct mshare_region *region)
{
	struct mshare_mirrors *mirrors = &region->mirrors;
	int err;

	/* If only the first succeeds it stays, which does no harm. */
	if (!mirrors->range.mm) {
		err = __mmu_notifier_register(&mirrors->range, region->mm);
		if (err)
			return err;
	}
	if (!mirrors->tlb.mm) {
		err = __mmu_notifier_register(&mirrors->tlb, region->mm);
		if (err)
			return err;
	}
	/* Who sees it relies on both without a lock. */
	smp_store_release(&mirrors->forwarding, true);
	return 0;
}

/**
 * mshare_forward() - have a host's invalidations forwarded
 * @region: the region, which is attached or being attached
 *
 * To be called before mshare_add_mirror().
 *
 * Context: mmap_lock of an attached mm held for writing. Takes that of the
 * host, but for the first mirror only.
 * Return: 0, or -ENOMEM, or -EINTR if the task is being killed.
 */
int mshare_forward(struct mshare_region *region)
{
	int err;

	/* Pairs with mshare_forward_locked() */
	if (smp_load_acquire(&region->mirrors.forwarding))
		return 0;
	if (mmap_write_lock_killable(region->mm))
		return -EINTR;
	err = mshare_forward_locked(region);
	mmap_write_unlock(region->mm);
	return err;
}

/*
 * Begin a change of the list: what starts from now on is told according to the
 * number that this returns. With the lock and &mshare_mirrors.change held.
 */
static unsigned long mshare_next_seq(struct mshare_mirrors *mirrors)
{
	mirrors->active ^= 1;
	return ++mirrors->seq;
}

/* Wait for what has started before that, with &mshare_mirrors.change held. */
static void mshare_wait_before(struct mshare_mirrors *mirrors)
{
	wait_event(mirrors->wait,
		   !READ_ONCE(mirrors->nr_active[mirrors->active ^ 1]));
}

/**
 * mshare_add_mirror() - from now on an attached mm is told
 * @att: the attachment
 *
 * mshare_forward() has succeeded. What is being invalidated now, and had been
 * started for others only, has ended when this returns; nobody has looked for
 * the notifiers of the mm at what is mapped in @att.
 *
 * Context: mmap_lock of the attached mm held for writing. May sleep; but if no
 * rmap walk comes to the host and its mmap_lock is held for writing, as in
 * adoption, there is nothing to wait for.
 */
void mshare_add_mirror(struct mshare_attachment *att)
{
	struct mshare_mirrors *mirrors = &att->region->mirrors;

	if (!mm_has_notifiers(att->mm) || !hlist_unhashed(&att->mirror))
		return;
	mutex_lock(&mirrors->change);
	spin_lock(&mirrors->lock);
	att->told_from = mshare_next_seq(mirrors);
	att->told_until = ULONG_MAX;
	hlist_add_head_rcu(&att->mirror, &mirrors->list);
	spin_unlock(&mirrors->lock);
	mshare_wait_before(mirrors);
	mutex_unlock(&mirrors->change);
}

/**
 * mshare_del_mirror() - an attached mm need not be told any more
 * @att: the attachment, whose mm has nothing of it in its page tables and, its
 *	 notifiers having been told of that, in its secondary MMUs
 *
 * When it returns, nobody uses @att or its mm for the region's notifiers.
 *
 * Context: mmap_lock of the mm held for writing, or it has no users. May sleep,
 * for invalidations that are under way already.
 */
void mshare_del_mirror(struct mshare_attachment *att)
{
	struct mshare_mirrors *mirrors = &att->region->mirrors;

	if (hlist_unhashed(&att->mirror))
		return;
	mutex_lock(&mirrors->change);
	spin_lock(&mirrors->lock);
	WRITE_ONCE(att->told_until, mshare_next_seq(mirrors));
	spin_unlock(&mirrors->lock);
	mshare_wait_before(mirrors);

	spin_lock(&mirrors->lock);
	hlist_del_init_rcu(&att->mirror);
	spin_unlock(&mirrors->lock);
	mutex_unlock(&mirrors->change);
	synchronize_srcu(&mshare_srcu);
}

/**
 * __mshare_forward_notifiers() - an attached mm is about to get a notifier
 * @mm: the mm
 *
 * What registers the notifier goes on to take the rmap locks of @mm, and with
 * them calls mshare_freeze_mirrors(). If that succeeds then no start or end of
 * an invalidation of one of its regions is under way to @mm, nor begins to be
 * until mshare_thaw_mirrors(). Otherwise it drops the locks, calls
 * mshare_wait_mirrors(), which fails if a signal is pending, and tries
 * again. When it has dropped the locks it calls mshare_add_mirrors(), and then
 * @mm is told. Before it drops the mmap_lock nobody looks, for a notifier, at
 * what is mapped: mmu_interval_notifier_insert() waits for it.
 *
 * Context: mmap_lock of @mm held for writing.
 * Return: 0, or -ENOMEM, or -EINTR if the task is being killed.
 */
int __mshare_forward_notifiers(struct mm_struct *mm)
{
	struct mshare_attachment *att;
	int err;

	for_each_mshare_attachment(att, mm) {
		err = mshare_forward(att->region);
		if (err)
			return err;
	}
	return 0;
}

static bool mshare_active(const struct mshare_mirrors *mirrors)
{
	return READ_ONCE(mirrors->nr_active[0]) ||
	       READ_ONCE(mirrors->nr_active[1]);
}

static void mshare_thaw_until(struct mm_struct *mm,
			      const struct mshare_attachment *end)
{
	struct mshare_attachment *att;

	for_each_mshare_attachment(att, mm) {
		struct mshare_mirrors *mirrors = &att->region->mirrors;

		if (att == end)
			break;
		if (hlist_unhashed(&att->mirror))
			continue;
		spin_lock(&mirrors->lock);
		WRITE_ONCE(mirrors->frozen, false);
		wake_up_all(&mirrors->wait);
		spin_unlock(&mirrors->lock);
	}
}

/*
 * Only one task at a time is here: mm_all_locks_mutex, with the locks that it
 * has. It does not sleep before the thaw.
 */
bool __mshare_freeze_mirrors(struct mm_struct *mm)
{
	struct mshare_attachment *att, *busy = NULL;

	for_each_mshare_attachment(att, mm) {
		struct mshare_mirrors *mirrors = &att->region->mirrors;

		/* Without a notifier yet, it is told of nothing. */
		if (hlist_unhashed(&att->mirror))
			continue;
		spin_lock(&mirrors->lock);
		if (mshare_active(mirrors))
			busy = att;
		else
			WRITE_ONCE(mirrors->frozen, true);
		spin_unlock(&mirrors->lock);
		if (busy)
			break;
	}
	if (busy)
		mshare_thaw_until(mm, busy);
	return !busy;
}

void __mshare_thaw_mirrors(struct mm_struct *mm)
{
	mshare_thaw_until(mm, NULL);
}

int __mshare_wait_mirrors(struct mm_struct *mm)
{
	struct mshare_attachment *att;
	int err;

	for_each_mshare_attachment(att, mm) {
		struct mshare_mirrors *mirrors = &att->region->mirrors;

		/* As for the locks, to which this belongs, for any signal. */
		err = wait_event_interruptible(mirrors->wait,
					       !mshare_active(mirrors));
		if (err)
			return -EINTR;
	}
	return 0;
}

void __mshare_add_mirrors(struct mm_struct *mm)
{
	struct mshare_attachment *att;

	for_each_mshare_attachment(att, mm)
		mshare_add_mirror(att);
}
