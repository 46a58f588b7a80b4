/* SPDX-License-Identifier: GPL-2.0 */
/*
 * What vm-run (on the host) and vm-init (PID 1 in the guest)
 * say to each other over one virtio-serial port: a stream of frames, each a
 * header and @len bytes.
 *
 * One port, not one per stream: everything arrives in the order in which it was
 * sent, so when the host has seen FRAME_END it has seen all output. The guest
 * waits for FRAME_ACK before it goes down, because data that QEMU holds for a
 * slow reader is lost with it.
 */
#ifndef VM_FRAME_H
#define VM_FRAME_H

#include <stdint.h>

enum vm_frame_type {
	/* host to guest: the run, ended by FRAME_START */
	FRAME_ARG = 1,		/* next argument of the command */
	FRAME_ENV,		/* NAME=VALUE */
	FRAME_CWD,		/* working directory */
	FRAME_UMASK,		/* octal */
	FRAME_RW,		/* writable directory; the n-th has 9p tag rw<n> */
	FRAME_START,

	/* guest to host */
	FRAME_BOOTED,		/* the command starts now */
	FRAME_STDOUT,
	FRAME_STDERR,
	FRAME_FAIL,		/* text: the command could not be started */
	FRAME_END,		/* struct vm_end */

	/* host to guest */
	FRAME_ACK,		/* answer to FRAME_FAIL and FRAME_END */
};

struct vm_frame {
	uint32_t type;
	uint32_t len;
};

struct vm_end {
	uint32_t status;	/* as a shell gives it: 128 + n after signal n */
	uint32_t unused;
	uint64_t taint;		/* /proc/sys/kernel/tainted */
};

#endif /* VM_FRAME_H */
