// SPDX-License-Identifier: GPL-2.0
/*
 * PID 1 of the guest that scripts/vm starts. It is the only program in the
 * initramfs, static, and does by system calls what scripts would need seconds
 * for under emulation: make the host's file tree the root, run one command,
 * carry its output to the host, check for leaks, and end the machine.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <linux/kvm.h>
#include <net/if.h>
#include <poll.h>
#include <signal.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mount.h>
#include <sys/reboot.h>
#include <sys/resource.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "vm-frame.h"

#define PORT		"/dev/vport0p1"
#define PORT_WAIT_MS	60000

/*
 * One request of 9p moves at most this much. More is hardly faster, but listing
 * a directory allocates a buffer of this size in one piece, which must also
 * succeed when a test has used up and fragmented the memory.
 */
#define MSIZE		"131072"
#define P9_OPTIONS	"trans=virtio,version=9p2000.L,msize=" MSIZE

/* Small enough for the driver's copy of it to be an order-2 allocation */
#define CHUNK		(16384 - sizeof(struct vm_frame))

#define NEWROOT		"/new"
#define PLAIN		"/plain"

static int port = -1;
static int kmsg = -1;

struct list {
	char **v;
	int n;
};

static struct list args, envs, rw_dirs;
static char *cwd;
static mode_t mask = 022;

static void __attribute__((noreturn)) end_machine(void)
{
	sync();
	/* QEMU runs with -no-reboot; unlike power-off this needs no ACPI */
	reboot(RB_AUTOBOOT);
	for (;;)
		pause();
}

static int write_all(int fd, const void *buf, size_t len)
{
	const char *p = buf;

	while (len) {
		ssize_t n = write(fd, p, len);

		if (n < 0) {
			if (errno == EINTR)
				continue;
			return -1;
		}
		p += n;
		len -= n;
	}
	return 0;
}

/*
 * Header and data go out in one write where they fit: each write is an exit to
 * the emulator.
 */
static void send_frame(enum vm_frame_type type, const void *data, size_t len)
{
	static char buf[sizeof(struct vm_frame) + CHUNK];
	struct vm_frame frame = { .type = type, .len = len };

	memcpy(buf, &frame, sizeof(frame));
	memcpy(buf + sizeof(frame), data, len);
	write_all(port, buf, sizeof(frame) + len);
}

static void read_all(void *buf, size_t len)
{
	char *p = buf;

	while (len) {
		ssize_t n = read(port, p, len);

		if (n > 0) {
			p += n;
			len -= n;
		} else if (n < 0 && errno != EINTR) {
			end_machine();
		} else {
			/* 0: the host's end is not connected yet */
			usleep(1000);
		}
	}
}

static void log_line(const char *text)
{
	dprintf(kmsg, "<4>vm-init: %s\n", text);
}

static void wait_for_ack(void)
{
	struct vm_frame frame;

	do {
		read_all(&frame, sizeof(frame));
	} while (frame.type != FRAME_ACK);
}

/* The command cannot be run: tell the host why, and end */
static void __attribute__((noreturn, format(printf, 1, 2)))
fail(const char *fmt, ...)
{
	char text[1024];
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(text, sizeof(text), fmt, ap);
	va_end(ap);

	log_line(text);
	if (port >= 0) {
		send_frame(FRAME_FAIL, text, strlen(text));
		wait_for_ack();
	}
	end_machine();
}

static void *xrealloc(void *p, size_t size)
{
	p = realloc(p, size);
	if (!p)
		fail("out of memory");
	return p;
}

/* Keeps @list->v terminated by NULL, as exec wants it */
static void list_add(struct list *list, char *s)
{
	list->v = xrealloc(list->v, (list->n + 2) * sizeof(*list->v));
	list->v[list->n++] = s;
	list->v[list->n] = NULL;
}

static void mkdirs(const char *path)
{
	char *copy = strdup(path);
	char *p;

	if (!copy)
		fail("out of memory");
	for (p = copy + 1; *p; p++) {
		if (*p != '/')
			continue;
		*p = 0;
		mkdir(copy, 0755);
		*p = '/';
	}
	mkdir(copy, 0755);
	free(copy);
}

static bool do_mount(const char *source, const char *target, const char *type,
		     unsigned long flags, const char *options)
{
	if (!mount(source, target, type, flags, options))
		return true;
	return false;
}

static void must_mount(const char *source, const char *target, const char *type,
		       unsigned long flags, const char *options)
{
	if (!do_mount(source, target, type, flags, options))
		fail("mounting %s on %s failed: %s", type, target,
		     strerror(errno));
}

static void write_file(const char *path, const char *text)
{
	int fd = open(path, O_WRONLY | O_CLOEXEC);

	if (fd < 0)
		return;
	write_all(fd, text, strlen(text));
	close(fd);
}

static void open_port(void)
{
	int ms;

	/* The port appears some time after its device, from a work item */
	for (ms = 0; ms < PORT_WAIT_MS; ms++) {
		port = open(PORT, O_RDWR | O_CLOEXEC);
		if (port >= 0)
			return;
		usleep(1000);
	}
	fail("no " PORT " (is CONFIG_VIRTIO_CONSOLE on?)");
}

static void read_run(void)
{
	struct vm_frame frame;
	char *s;

	for (;;) {
		read_all(&frame, sizeof(frame));
		s = xrealloc(NULL, frame.len + 1);
		read_all(s, frame.len);
		s[frame.len] = 0;

		switch (frame.type) {
		case FRAME_ARG:
			list_add(&args, s);
			break;
		case FRAME_ENV:
			list_add(&envs, s);
			break;
		case FRAME_RW:
			list_add(&rw_dirs, s);
			break;
		case FRAME_CWD:
			cwd = s;
			break;
		case FRAME_UMASK:
			mask = strtoul(s, NULL, 8);
			free(s);
			break;
		case FRAME_START:
			free(s);
			return;
		default:
			fail("unexpected frame %u", frame.type);
		}
	}
}

/*
 * The host's tree, read-only, with memory on top. The lower tree may be cached
 * without asking back (cache=loose): nothing in the guest can change it, and
 * what the host changes meanwhile need not show. access=any: one connection for
 * all users, permissions are checked here, from the files' modes.
 */
static void mount_root(void)
{
	mkdir("/host", 0755);
	mkdir("/upper", 0755);
	mkdir(NEWROOT, 0755);
	mkdir(PLAIN, 0755);

	must_mount("root", "/host", "9p", MS_RDONLY,
		   P9_OPTIONS ",cache=loose,access=any");
	must_mount("tmpfs", "/upper", "tmpfs", 0, "mode=0755");
	mkdir("/upper/data", 0755);
	mkdir("/upper/work", 0755);
	/* redirect_dir: rename() of a directory that the host has works */
	must_mount("overlay", NEWROOT, "overlay", 0,
		   "lowerdir=/host,upperdir=/upper/data,workdir=/upper/work,redirect_dir=on,xino=off");

	/* The same tree as it is under what gets mounted over parts of it */
	must_mount(NEWROOT, PLAIN, NULL, MS_BIND, NULL);
}

static void mount_system(void)
{
	static const struct {
		const char *type, *target, *options;
		bool optional;
	} mounts[] = {
		{ "proc", "/proc", NULL, false },
		{ "sysfs", "/sys", NULL, false },
		{ "devtmpfs", "/dev", "mode=0755", false },
		{ "devpts", "/dev/pts", "gid=5,mode=0620,ptmxmode=0666", false },
		{ "tmpfs", "/dev/shm", "mode=1777", false },
		{ "mqueue", "/dev/mqueue", NULL, true },
		{ "tmpfs", "/run", "mode=0755", false },
		{ "cgroup2", "/sys/fs/cgroup", NULL, true },
		{ "debugfs", "/sys/kernel/debug", NULL, true },
		{ "tracefs", "/sys/kernel/tracing", NULL, true },
	};
	char target[64];
	size_t i;

	for (i = 0; i < sizeof(mounts) / sizeof(*mounts); i++) {
		snprintf(target, sizeof(target), NEWROOT "%s",
			 mounts[i].target);
		mkdir(target, 0755);
		if (!do_mount(mounts[i].type, target, mounts[i].type, 0,
			      mounts[i].options) && !mounts[i].optional)
			fail("mounting %s on %s failed: %s", mounts[i].type,
			     mounts[i].target, strerror(errno));
	}

	/* Kernels without the feature are run too, to compare */
	if (!do_mount("msharefs", NEWROOT "/sys/fs/mshare", "msharefs", 0,
		      NULL) && errno != ENODEV && errno != ENOENT)
		fail("mounting msharefs on /sys/fs/mshare failed: %s",
		     strerror(errno));

	symlink("/proc/self/fd", NEWROOT "/dev/fd");
	symlink("/proc/self/fd/0", NEWROOT "/dev/stdin");
	symlink("/proc/self/fd/1", NEWROOT "/dev/stdout");
	symlink("/proc/self/fd/2", NEWROOT "/dev/stderr");
}

static char *under(const char *base, const char *path)
{
	char *s;

	if (asprintf(&s, "%s%s", base, path) < 0)
		fail("out of memory");
	return s;
}

static void mount_rw(void)
{
	char tag[16];
	char *target;
	int i;

	for (i = 0; i < rw_dirs.n; i++) {
		snprintf(tag, sizeof(tag), "rw%d", i);
		target = under(NEWROOT, rw_dirs.v[i]);
		/* Not there when it lies under /run or /dev/shm */
		mkdirs(target);
		/*
		 * cache=mmap is the least caching with which files can be
		 * mapped shared and writable
		 */
		must_mount(tag, target, "9p", 0, P9_OPTIONS ",cache=mmap");
		free(target);
	}
}

/* A working directory under /run or /dev/shm is hidden: bring that one back */
static void uncover_cwd(void)
{
	char *target = under(NEWROOT, cwd);
	char *source = under(PLAIN, cwd);

	if (access(target, F_OK) && !access(source, F_OK)) {
		mkdirs(target);
		must_mount(source, target, NULL, MS_BIND, NULL);
	}
	free(target);
	free(source);
}

static void switch_root(void)
{
	/* Not reachable any more, and memory that the tests could use */
	unlink("/init");
	if (chdir(NEWROOT) || mount(".", "/", NULL, MS_MOVE, NULL) ||
	    chroot(".") || chdir("/"))
		fail("changing root failed: %s", strerror(errno));
}

static void loopback_up(void)
{
	struct ifreq ifr = { .ifr_name = "lo", .ifr_flags = IFF_UP };
	int fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);

	if (fd < 0)
		return;
	ioctl(fd, SIOCSIFFLAGS, &ifr);
	close(fd);
}

/*
 * The kernel patches its scheduler when the first virtual machine is made and when
 * the last one goes, which is what an emulated machine with several processors
 * does not always survive: see scripts/vm. So there is one from the start to the end.
 */
static void keep_virtual_machine(void)
{
	int fd = open("/dev/kvm", O_RDWR | O_CLOEXEC);
	int vm;

	if (fd < 0)
		return;
	vm = ioctl(fd, KVM_CREATE_VM, 0);
	if (vm < 0 || ioctl(vm, KVM_CREATE_VCPU, 0) < 0)
		log_line("no virtual machine of our own");
	close(fd);
}

/*
 * scripts/vm has the kernel boot on one processor where it is emulated; see
 * there. The others join now.
 */
static void start_cpus(void)
{
	char path[64];
	int cpu, fd;

	for (cpu = 1; ; cpu++) {
		snprintf(path, sizeof(path),
			 "/sys/devices/system/cpu/cpu%d", cpu);
		if (access(path, F_OK))
			return;
		strcat(path, "/online");
		fd = open(path, O_RDWR | O_CLOEXEC);
		if (fd < 0 || write_all(fd, "1", 1))
			fail("starting processor %d failed: %s", cpu,
			     strerror(errno));
		close(fd);
	}
}

static void setup(void)
{
	struct rlimit files = { .rlim_cur = 1024, .rlim_max = 1048576 };

	mount_root();
	mount_system();
	mount_rw();
	uncover_cwd();
	switch_root();

	if (!access("/sys/devices/system/cpu/cpu1", F_OK))
		keep_virtual_machine();
	start_cpus();
	loopback_up();
	if (sethostname("mshare-vm", strlen("mshare-vm")))
		log_line("no host name");
	setrlimit(RLIMIT_NOFILE, &files);
	/* Leaks are looked for at the end, not now and then in between */
	write_file("/sys/kernel/debug/kmemleak", "scan=off");
}

static void __attribute__((noreturn)) run_command(int out, int err)
{
	sigset_t none;
	int null;

	setsid();
	sigemptyset(&none);
	sigprocmask(SIG_SETMASK, &none, NULL);

	null = open("/dev/null", O_RDONLY);
	dup2(null, 0);
	dup2(out, 1);
	dup2(err, 2);
	/* All others, whatever their numbers, are close-on-exec */
	if (null > 2)
		close(null);

	umask(mask);
	if (chdir(cwd)) {
		dprintf(2, "scripts/vm: %s: %s\n", cwd, strerror(errno));
		_exit(125);
	}
	environ = envs.v;
	execvp(args.v[0], args.v);
	dprintf(2, "scripts/vm: %s: %s\n", args.v[0],
		errno == ENOENT ? "not found" : strerror(errno));
	_exit(errno == ENOENT ? 127 : 126);
}

/* One read, if there is something; false at the end of the stream */
static bool pump(int fd, enum vm_frame_type type)
{
	static char buf[CHUNK];
	ssize_t n = read(fd, buf, sizeof(buf));

	if (n > 0)
		send_frame(type, buf, n);
	return n > 0 || (n < 0 && (errno == EAGAIN || errno == EINTR));
}

/*
 * Reap whatever has ended. Returns false when no process is left. @status gets
 * that of @pid.
 */
static bool reap(pid_t pid, int *status)
{
	int st;
	pid_t p;

	while ((p = waitpid(-1, &st, WNOHANG)) > 0) {
		if (p == pid)
			*status = WIFSIGNALED(st) ? 128 + WTERMSIG(st) :
						    WEXITSTATUS(st);
	}
	return !p;
}

/*
 * Run the command until it has ended, then end what it left behind. Pipes, not
 * the port itself, are its stdout and stderr: they can be opened again through
 * /dev/stdout, and written to by many.
 */
static int run(void)
{
	struct pollfd fds[3];
	int out[2], err[2], status = -1;
	bool others = true;
	sigset_t chld;
	pid_t pid;

	sigemptyset(&chld);
	sigaddset(&chld, SIGCHLD);
	sigprocmask(SIG_BLOCK, &chld, NULL);

	if (pipe2(out, O_CLOEXEC) || pipe2(err, O_CLOEXEC))
		fail("no pipe: %s", strerror(errno));
	fds[0].fd = signalfd(-1, &chld, SFD_CLOEXEC | SFD_NONBLOCK);
	if (fds[0].fd < 0)
		fail("no signalfd: %s", strerror(errno));
	fds[1].fd = out[0];
	fds[2].fd = err[0];
	fds[0].events = POLLIN;
	fds[1].events = POLLIN;
	fds[2].events = POLLIN;

	send_frame(FRAME_BOOTED, "", 0);
	pid = fork();
	if (pid < 0)
		fail("no process: %s", strerror(errno));
	if (!pid)
		run_command(out[1], err[1]);
	close(out[1]);
	close(err[1]);
	/* Only now: the flag belongs to each end of a pipe, not to both */
	fcntl(out[0], F_SETFL, O_NONBLOCK);
	fcntl(err[0], F_SETFL, O_NONBLOCK);

	while (status < 0 || others) {
		struct signalfd_siginfo si;

		if (poll(fds, 3, -1) < 0)
			continue;
		if (fds[1].revents && !pump(fds[1].fd, FRAME_STDOUT))
			fds[1].fd = -1;
		if (fds[2].revents && !pump(fds[2].fd, FRAME_STDERR))
			fds[2].fd = -1;
		if (!fds[0].revents)
			continue;
		while (read(fds[0].fd, &si, sizeof(si)) > 0)
			;
		others = reap(pid, &status);
		/* Again each time: a fork may have been under way */
		if (status >= 0)
			kill(-1, SIGKILL);
	}

	/* What lies in the pipes; nobody is left to write more */
	while (fds[1].fd >= 0 && pump(fds[1].fd, FRAME_STDOUT))
		;
	while (fds[2].fd >= 0 && pump(fds[2].fd, FRAME_STDERR))
		;
	return status;
}

/*
 * Leaks, when the kernel looks for them. It reports what it found unreferenced
 * in two scans and what is older than five seconds. The report goes into the
 * kernel log, where vm-run finds it like any other.
 */
static void check_leaks(void)
{
	const char *path = "/sys/kernel/debug/kmemleak";
	char line[512];
	FILE *f;

	if (access(path, W_OK))
		return;
	sleep(5);
	write_file(path, "scan");
	write_file(path, "scan");

	f = fopen(path, "re");
	if (!f)
		return;
	while (fgets(line, sizeof(line), f))
		dprintf(kmsg, "<4>%s", line);
	fclose(f);
}

static void unmount_all(void)
{
	int i;

	/* The last regions go now, so that what that breaks is seen */
	umount("/sys/fs/mshare");
	sync();
	for (i = rw_dirs.n - 1; i >= 0; i--) {
		if (umount(rw_dirs.v[i]))
			dprintf(kmsg, "<4>vm-init: unmounting %s failed: %s\n",
				rw_dirs.v[i], strerror(errno));
	}
}

static uint64_t read_taint(void)
{
	unsigned long long taint = 0;
	FILE *f = fopen("/proc/sys/kernel/tainted", "re");

	if (f) {
		if (fscanf(f, "%llu", &taint) != 1)
			taint = 0;
		fclose(f);
	}
	return taint;
}

int main(void)
{
	struct vm_end end = { 0 };
	int fd;

	mkdir("/dev", 0755);
	mount("devtmpfs", "/dev", "devtmpfs", 0, NULL);
	/* Without a console 0, 1 and 2 are free; keep them for the command */
	do {
		fd = open("/dev/null", O_RDWR | O_CLOEXEC);
	} while (fd >= 0 && fd <= 2);
	close(fd);
	kmsg = open("/dev/kmsg", O_WRONLY | O_CLOEXEC);
	signal(SIGPIPE, SIG_IGN);

	open_port();
	read_run();
	setup();

	end.status = run();
	unmount_all();
	check_leaks();
	end.taint = read_taint();
	send_frame(FRAME_END, &end, sizeof(end));
	wait_for_ack();
	end_machine();
}
