// SPDX-License-Identifier: GPL-2.0
/*
 * The host's end of scripts/vm, which becomes this program: starts QEMU, hands
 * the command to PID 1 of the guest, passes its output on, and sees to it that
 * the guest ends in time, whatever happens to either of them. At the end it
 * reads the kernel log and fails the run if the kernel complained.
 *
 *	vm-run [-v] [-t SECONDS] [-w DIR]... -l LOG -n COUNT -- QEMU... COMMAND...
 *
 * QEMU... are COUNT words. QEMU gets the guest's port as file descriptor 3 and
 * the log as 4. Not meant to be called by hand.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <regex.h>
#include <signal.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/time.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "vm-frame.h"

#define ARRAY_SIZE(a)	(sizeof(a) / sizeof(*(a)))

/* Exit statuses of its own; all others are the command's */
#define EXIT_REPORT	99	/* the kernel reported a problem */
#define EXIT_TIMEOUT	124	/* as timeout(1) */
#define EXIT_VM		125	/* the command could not be run */

/*
 * After a report that may leave tasks stuck, a guest that prints nothing for
 * this long is not waited for any more.
 */
#define STUCK_SECONDS	60
/* From the guest's last word to the end of QEMU; a reboot takes one */
#define DOWN_SECONDS	60

#define REPORTS_SHOWN	3
#define REPORT_LINES	60
#define TAIL_LINES	20

extern char **environ;

/*
 * What the kernel says when something is wrong, without the time stamp. They
 * are anchored, so that neither what programs say about themselves ("traps:
 * a.out[70] general protection fault ip:...", which is about user space) nor
 * the stack traces of injected faults and of the OOM killer match.
 */
static const struct {
	const char *regex;
	bool may_stick;
} report_table[] = {
	{ "^-+\\[ cut here \\]-+", false },
	{ "^(kernel )?WARNING: ", false },
	{ "^BUG: (unable to handle|kernel NULL pointer) ", true },
	{ "^(watchdog: )?BUG: (soft|workqueue) lockup ", true },
	{ "^([[:alnum:]_-]+: )?BUG: ", false },
	/* slab and lockdep write it like this */
	{ "^BUG [^ ]+ \\(", false },
	{ "^\\[ BUG: ", false },
	{ "^kernel BUG at ", true },
	{ "^Oops", true },
	{ "^(traps: )?PANIC: ", true },
	{ "^Kernel panic - not syncing", true },
	/* before Linux 6.11 these came without "Oops: " */
	{ "^(general protection fault|stack segment|invalid opcode|divide error|double fault)[,:]", true },
	{ "^UBSAN: ", false },
	{ "^refcount_t: ", false },
	{ "^list_(add|del).* corruption", false },
	{ "^kmemleak: [0-9]+ new suspected memory leaks", false },
	{ "^unreferenced object 0x", false },
	{ "^INFO: task .* blocked for more than ", true },
	{ "^INFO: trying to register non-static key", false },
	{ "^turning off the locking correctness validator", false },
	{ "^(NMI )?watchdog: Watchdog detected ", true },
	{ "^rcu: INFO: .* detected (expedited )?stalls? on ", true },
	{ "^rcu: INFO: .* self-detected stall on ", true },
	/* pmd_ERROR() and its like: no trace, no taint */
	{ "^[^ ]+:[0-9]+: bad p(gd|4d|ud|md|te) ", false },
	{ ": (Bad|Unused) swap (file|offset) entry", false },
	{ "^VFS: Busy inodes after unmount", false },
	{ "^huh, entered ", false },
};

static regex_t report_regex[ARRAY_SIZE(report_table)];

/* Taint flags that only a report sets */
static const struct {
	int bit;
	const char *what;
} taints[] = {
	{ 5, "bad page" },
	{ 7, "oops" },
	{ 9, "warning" },
	{ 14, "soft lockup" },
};

/* A growing buffer; [head, head + len) is in use */
struct buf {
	char *data;
	size_t head, len, size;
};

static volatile sig_atomic_t got_signal;

static struct {
	bool verbose;
	const char *log_path;
	int log_fd;		/* our own, for reading and tidying */
	pid_t qemu;
	int port;		/* socket to the guest's port */
	int qemu_stderr;
	struct buf to_guest, from_guest, qemu_said;
	double start, deadline;
	double last_output;

	/* live look at the log */
	off_t log_seen;
	struct buf log_line;
	double stuck_since;	/* time of the last report that may stick, or 0 */

	bool booted, ended, failed, output_gone;
	struct vm_end end;
} vm = { .port = -1, .qemu_stderr = -1 };

static void __attribute__((format(printf, 1, 2))) say(const char *fmt, ...)
{
	va_list ap;

	fputs("scripts/vm: ", stderr);
	va_start(ap, fmt);
	vfprintf(stderr, fmt, ap);
	va_end(ap);
	fputc('\n', stderr);
}

static void __attribute__((noreturn, format(printf, 1, 2)))
die(const char *fmt, ...)
{
	va_list ap;

	fputs("scripts/vm: ", stderr);
	va_start(ap, fmt);
	vfprintf(stderr, fmt, ap);
	va_end(ap);
	fputc('\n', stderr);
	exit(EXIT_VM);
}

static double now(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return ts.tv_sec + ts.tv_nsec / 1e9;
}

static void buf_add(struct buf *b, const void *data, size_t len)
{
	if (b->head && b->head + b->len + len > b->size) {
		memmove(b->data, b->data + b->head, b->len);
		b->head = 0;
	}
	if (b->head + b->len + len > b->size) {
		b->size = 2 * (b->len + len) + 4096;
		b->data = realloc(b->data, b->size);
		if (!b->data)
			die("out of memory");
	}
	memcpy(b->data + b->head + b->len, data, len);
	b->len += len;
}

static void buf_drop(struct buf *b, size_t len)
{
	b->head += len;
	b->len -= len;
	if (!b->len)
		b->head = 0;
}

static void queue_frame(enum vm_frame_type type, const void *data, size_t len)
{
	struct vm_frame frame = { .type = type, .len = len };

	buf_add(&vm.to_guest, &frame, sizeof(frame));
	buf_add(&vm.to_guest, data, len);
}

static void queue_string(enum vm_frame_type type, const char *s)
{
	queue_frame(type, s, strlen(s));
}

/*
 * Signals. They are blocked but for the moments in which this program waits.
 * The tick is there for the one wait that cannot unblock them atomically, a
 * write to a stdout that nobody reads: it gets another EINTR a second later.
 */

static sigset_t handled, original;

static void on_signal(int sig)
{
	if (sig != SIGALRM && sig != SIGCHLD)
		got_signal = sig;
}

static void catch_signals(void)
{
	static const int sigs[] = {
		SIGINT, SIGTERM, SIGHUP, SIGQUIT, SIGALRM, SIGCHLD
	};
	struct itimerval tick = { { 1, 0 }, { 1, 0 } };
	struct sigaction sa = { .sa_handler = on_signal }, old;
	size_t i;

	sigemptyset(&handled);
	for (i = 0; i < ARRAY_SIZE(sigs); i++) {
		sigaction(sigs[i], NULL, &old);
		/*
		 * nohup means it. An ignored SIGINT only means that a shell
		 * put us into the background; who sends us one all the same
		 * wants the guest to end.
		 */
		if (sigs[i] == SIGHUP && old.sa_handler == SIG_IGN)
			continue;
		sigaction(sigs[i], &sa, NULL);
		sigaddset(&handled, sigs[i]);
	}
	sigprocmask(SIG_BLOCK, &handled, &original);
	for (i = 0; i < ARRAY_SIZE(sigs); i++)
		sigdelset(&original, sigs[i]);
	setitimer(ITIMER_REAL, &tick, NULL);
}

static bool time_is_up(void)
{
	return vm.deadline && now() >= vm.deadline;
}

/* Write all of it, unless the reader is gone or the run is to end */
static void write_out(int fd, const char *p, size_t len)
{
	struct pollfd pfd = { .fd = fd, .events = POLLOUT };

	while (len && !vm.output_gone && !got_signal && !time_is_up()) {
		ssize_t n;

		sigprocmask(SIG_SETMASK, &original, NULL);
		n = write(fd, p, len);
		sigprocmask(SIG_BLOCK, &handled, NULL);
		if (n >= 0) {
			p += n;
			len -= n;
		} else if (errno == EAGAIN) {
			/* Somebody made our stdout non-blocking */
			ppoll(&pfd, 1, NULL, &original);
		} else if (errno != EINTR) {
			if (errno != EPIPE)
				say("writing output failed: %s",
				    strerror(errno));
			vm.output_gone = true;
		}
	}
}

/* QEMU */

static void start_qemu(char **argv, int port, int log, int err)
{
	struct rlimit no_core = { 0, 0 };
	pid_t parent = getpid();
	int fds[5], i;

	vm.qemu = fork();
	if (vm.qemu < 0)
		die("fork: %s", strerror(errno));
	if (vm.qemu)
		return;

	/* Whoever ends us, even by SIGKILL, ends the guest */
	prctl(PR_SET_PDEATHSIG, SIGKILL);
	if (getppid() != parent)
		_exit(EXIT_VM);

	fds[0] = open("/dev/null", O_RDWR);
	fds[1] = err;
	fds[2] = err;
	fds[3] = port;
	fds[4] = log;
	/* Out of the way of the numbers that they are to get */
	for (i = 0; i < 5; i++)
		fds[i] = fcntl(fds[i], F_DUPFD_CLOEXEC, 10);
	for (i = 0; i < 5; i++)
		dup2(fds[i], i);

	setrlimit(RLIMIT_CORE, &no_core);
	sigprocmask(SIG_SETMASK, &original, NULL);
	execvp(argv[0], argv);
	dprintf(2, "%s: %s\n", argv[0], strerror(errno));
	_exit(EXIT_VM);
}

static bool qemu_gone(void)
{
	if (vm.qemu && waitpid(vm.qemu, NULL, WNOHANG) == vm.qemu)
		vm.qemu = 0;
	return !vm.qemu;
}

static void kill_qemu(void)
{
	if (!vm.qemu)
		return;
	kill(vm.qemu, SIGKILL);
	while (waitpid(vm.qemu, NULL, 0) < 0 && errno == EINTR)
		;
	vm.qemu = 0;
}

/* The log */

static const char *skip_stamp(const char *line)
{
	const char *p = line;

	/* "[    1.234567] " and, with PRINTK_CALLER, "[    T1] " */
	while (*p == '[') {
		const char *end = strchr(p, ']');
		size_t n = strspn(p + 1, " 0123456789.TC");

		if (!end || p + 1 + n != end || end[1] != ' ')
			break;
		p = end + 2;
	}
	return p;
}

/* Index into report_table, or -1 */
static int match_report(const char *line)
{
	size_t i;

	line = skip_stamp(line);
	for (i = 0; i < ARRAY_SIZE(report_table); i++) {
		if (!regexec(&report_regex[i], line, 0, NULL, 0))
			return i;
	}
	return -1;
}

static void compile_reports(void)
{
	size_t i;

	for (i = 0; i < ARRAY_SIZE(report_table); i++) {
		if (regcomp(&report_regex[i], report_table[i].regex,
			    REG_EXTENDED | REG_NOSUB))
			die("bad expression %s", report_table[i].regex);
	}
}

/* What is new in the log: has something happened that tasks may hang after? */
static void watch_log(void)
{
	char chunk[65536], *nl;
	ssize_t n;

	while ((n = pread(vm.log_fd, chunk, sizeof(chunk), vm.log_seen)) > 0) {
		vm.log_seen += n;
		buf_add(&vm.log_line, chunk, n);
	}
	while (vm.log_line.len) {
		char *line = vm.log_line.data + vm.log_line.head;
		int i;

		nl = memchr(line, '\n', vm.log_line.len);
		if (!nl)
			break;
		*nl = 0;
		i = match_report(line);
		if (i >= 0 && report_table[i].may_stick)
			vm.stuck_since = now();
		buf_drop(&vm.log_line, nl + 1 - line);
	}
}

static bool is_stuck(void)
{
	double t = now() - STUCK_SECONDS;

	return vm.stuck_since && vm.stuck_since < t && vm.last_output < t;
}

struct lines {
	char **v;
	size_t n;
};

/*
 * Read all of the log, and leave it without the carriage returns that a serial
 * console has.
 */
static struct lines read_log(void)
{
	struct lines lines = { NULL, 0 };
	struct stat st;
	char *text, *p, *q;
	size_t len = 0;

	if (fstat(vm.log_fd, &st))
		return lines;
	text = malloc(st.st_size + 1);
	if (!text)
		return lines;
	while (len < (size_t)st.st_size) {
		ssize_t n = pread(vm.log_fd, text + len, st.st_size - len, len);

		if (n <= 0)
			break;
		len += n;
	}
	for (p = q = text; p < text + len; p++) {
		if (*p != '\r' && *p)
			*q++ = *p;
	}
	if (q < p && pwrite(vm.log_fd, text, q - text, 0) == q - text &&
	    ftruncate(vm.log_fd, q - text))
		say("%s: %s", vm.log_path, strerror(errno));
	*q = 0;

	for (p = text; *p; p = q) {
		q = strchrnul(p, '\n');
		if (*q)
			*q++ = 0;
		if (!(lines.n & (lines.n - 1))) {
			lines.v = realloc(lines.v, (2 * lines.n + 1) *
						   sizeof(*lines.v));
			if (!lines.v)
				die("out of memory");
		}
		lines.v[lines.n++] = p;
	}
	return lines;
}

static double stamp(const char *line)
{
	return *line == '[' ? strtod(line + 1, NULL) : 0;
}

/* The line after the last one of the report that starts at @first */
static size_t report_end(const struct lines *lines, size_t first)
{
	size_t i;

	for (i = first; i < lines->n && i < first + REPORT_LINES; i++) {
		const char *line = lines->v[i];

		/* A report is written in one go */
		if (i > first && stamp(line) > stamp(lines->v[i - 1]) + 1)
			return i;
		if (strstr(line, "---[ end trace ") ||
		    strstr(line, "---[ end Kernel panic"))
			return i + 1;
	}
	return i;
}

/* Show what the kernel complained about; returns the number of reports */
static int show_reports(const struct lines *lines)
{
	size_t i, j, end;
	bool int3 = false;
	int count = 0;

	for (i = 0; i < lines->n; i++) {
		if (match_report(lines->v[i]) < 0)
			continue;
		if (strstr(lines->v[i], "Oops: int3: "))
			int3 = true;
		if (!count++)
			say("the kernel reported a problem:");
		end = report_end(lines, i);
		if (count <= REPORTS_SHOWN) {
			for (j = i; j < end; j++)
				fprintf(stderr, "  %s\n", lines->v[j]);
		}
		i = end - 1;
	}
	if (int3)
		say("int3: QEMU's emulation sometimes runs stale code after the kernel has patched it; if this was at a static branch, run again");
	if (count > REPORTS_SHOWN)
		say("and %d more", count - REPORTS_SHOWN);
	return count;
}

static void show_tail(const struct lines *lines)
{
	size_t i = lines->n > TAIL_LINES ? lines->n - TAIL_LINES : 0;

	say("%s", lines->n ? "the end of the kernel log:" :
			     "the kernel log is empty");
	for (; i < lines->n; i++)
		fprintf(stderr, "  %s\n", lines->v[i]);
}

static void show_qemu_said(void)
{
	if (vm.qemu_said.len)
		fwrite(vm.qemu_said.data + vm.qemu_said.head, 1,
		       vm.qemu_said.len, stderr);
}

/* The guest */

static void handle_frame(const struct vm_frame *frame, const char *data)
{
	switch (frame->type) {
	case FRAME_BOOTED:
		vm.booted = true;
		if (vm.verbose)
			say("booted in %.1f s", now() - vm.start);
		break;
	case FRAME_STDOUT:
		vm.last_output = now();
		write_out(1, data, frame->len);
		break;
	case FRAME_STDERR:
		vm.last_output = now();
		write_out(2, data, frame->len);
		break;
	case FRAME_FAIL:
		vm.failed = true;
		say("the guest: %.*s", (int)frame->len, data);
		queue_frame(FRAME_ACK, "", 0);
		break;
	case FRAME_END:
		vm.ended = true;
		memcpy(&vm.end, data, sizeof(vm.end));
		queue_frame(FRAME_ACK, "", 0);
		break;
	default:
		die("the guest sent an unknown frame, %u", frame->type);
	}
}

static void handle_frames(void)
{
	struct buf *b = &vm.from_guest;
	struct vm_frame frame;

	while (b->len >= sizeof(frame)) {
		memcpy(&frame, b->data + b->head, sizeof(frame));
		if (b->len < sizeof(frame) + frame.len)
			break;
		handle_frame(&frame, b->data + b->head + sizeof(frame));
		buf_drop(b, sizeof(frame) + frame.len);
	}
}

/* False at the end of the stream */
static bool read_some(int fd, struct buf *b)
{
	char chunk[65536];
	ssize_t n = read(fd, chunk, sizeof(chunk));

	if (n > 0)
		buf_add(b, chunk, n);
	return n > 0 || (n < 0 && (errno == EAGAIN || errno == EINTR));
}

/* Why the guest was not left to end by itself */
enum why { GUEST_ENDED, TIMEOUT, STUCK, SIGNAL, OUTPUT_GONE, NOT_DOWN };

static enum why run(void)
{
	struct timespec second = { 1, 0 };
	double down = 0;

	for (;;) {
		struct pollfd fds[2] = {
			{ .fd = vm.port, .events = POLLIN },
			{ .fd = vm.qemu_stderr, .events = POLLIN },
		};

		if (vm.to_guest.len)
			fds[0].events |= POLLOUT;
		if (ppoll(fds, 2, &second, &original) < 0) {
			fds[0].revents = 0;
			fds[1].revents = 0;
		}

		if (got_signal)
			return SIGNAL;
		if (fds[1].revents && !read_some(vm.qemu_stderr, &vm.qemu_said))
			vm.qemu_stderr = -1;
		if (fds[0].revents & POLLOUT) {
			struct buf *b = &vm.to_guest;
			ssize_t n = send(vm.port, b->data + b->head, b->len,
					 MSG_DONTWAIT | MSG_NOSIGNAL);

			if (n > 0)
				buf_drop(b, n);
		}
		if (fds[0].revents & (POLLIN | POLLHUP | POLLERR)) {
			if (!read_some(vm.port, &vm.from_guest))
				vm.port = -1;
			handle_frames();
		}

		if (got_signal)
			return SIGNAL;
		if (vm.output_gone)
			return OUTPUT_GONE;
		/* What QEMU still wrote before it ended is in the socket */
		if (vm.port < 0 && qemu_gone())
			return GUEST_ENDED;
		if (time_is_up() && !vm.ended)
			return TIMEOUT;
		if (vm.ended || vm.failed) {
			if (!down)
				down = now() + DOWN_SECONDS;
			if (now() > down)
				return NOT_DOWN;
			continue;
		}
		watch_log();
		if (is_stuck())
			return STUCK;
	}
}

static void queue_run(char **command, char **rw, int n_rw)
{
	char octal[16];
	mode_t mask = umask(0);
	char **env, *dir;

	umask(mask);
	snprintf(octal, sizeof(octal), "%o", mask);
	queue_string(FRAME_UMASK, octal);
	dir = getcwd(NULL, 0);
	if (!dir)
		die("the working directory: %s", strerror(errno));
	queue_string(FRAME_CWD, dir);
	free(dir);
	for (env = environ; *env; env++)
		queue_string(FRAME_ENV, *env);
	while (n_rw--)
		queue_string(FRAME_RW, *rw++);
	while (*command)
		queue_string(FRAME_ARG, *command++);
	queue_frame(FRAME_START, "", 0);
}

/* End as the signal would have ended us */
static void __attribute__((noreturn)) end_by_signal(int sig)
{
	sigset_t set;

	fflush(stderr);
	signal(sig, SIG_DFL);
	sigemptyset(&set);
	sigaddset(&set, sig);
	raise(sig);
	sigprocmask(SIG_UNBLOCK, &set, NULL);
	_exit(128 + sig);
}

static int verdict(enum why why, int timeout)
{
	bool path_wanted = vm.verbose || why != GUEST_ENDED || !vm.ended;
	int status, reports;
	struct lines log;
	size_t i;

	if (why == OUTPUT_GONE)
		end_by_signal(SIGPIPE);
	if (why == SIGNAL)
		say("interrupted, guest ended");
	log = read_log();
	reports = show_reports(&log);

	if (why == SIGNAL) {
		status = 128 + got_signal;
	} else if (why == TIMEOUT) {
		say("no end after %d seconds, guest killed", timeout);
		show_tail(&log);
		status = EXIT_TIMEOUT;
	} else if (why == STUCK) {
		say("nothing more came for %d seconds after that, guest killed",
		    STUCK_SECONDS);
		status = EXIT_REPORT;
	} else if (vm.ended) {
		status = vm.end.status;
		if (why == NOT_DOWN) {
			say("the guest did not reboot, guest killed");
			show_tail(&log);
			status = EXIT_REPORT;
		}
		for (i = 0; i < ARRAY_SIZE(taints) && !reports; i++) {
			if (!(vm.end.taint >> taints[i].bit & 1))
				continue;
			say("the kernel is tainted (%s), though its log shows no report",
			    taints[i].what);
			status = EXIT_REPORT;
			path_wanted = true;
		}
		if (reports) {
			say("COMMAND ended with status %u", vm.end.status);
			status = EXIT_REPORT;
		}
	} else if (vm.failed) {
		status = EXIT_VM;
	} else if (!log.n && vm.qemu_said.len) {
		say("QEMU did not start the guest:");
		show_qemu_said();
		path_wanted = false;
		status = EXIT_VM;
	} else if (reports) {
		say("the guest ended before COMMAND did");
		status = EXIT_REPORT;
	} else {
		say("the guest ended before COMMAND did");
		show_qemu_said();
		show_tail(&log);
		status = EXIT_VM;
	}

	if (vm.verbose)
		show_qemu_said();
	if (path_wanted || reports)
		say("the kernel log is in %s", vm.log_path);
	if (why == SIGNAL)
		end_by_signal(got_signal);
	return status;
}

int main(int argc, char **argv)
{
	int socks[2], err[2], log, opt, n_rw = 0, n_qemu = 0, timeout = 0;
	char **qemu, *rw[argc];
	enum why why;

	while ((opt = getopt(argc, argv, "+vt:w:l:n:")) != -1) {
		switch (opt) {
		case 'v':
			vm.verbose = true;
			break;
		case 't':
			timeout = atoi(optarg);
			break;
		case 'w':
			rw[n_rw++] = optarg;
			break;
		case 'l':
			vm.log_path = optarg;
			break;
		case 'n':
			n_qemu = atoi(optarg);
			break;
		default:
			return EXIT_VM;
		}
	}
	if (!vm.log_path || n_qemu < 1 || argc - optind <= n_qemu)
		die("vm-run is for scripts/vm to call");

	catch_signals();
	compile_reports();
	vm.start = now();
	if (timeout)
		vm.deadline = vm.start + timeout;

	log = open(vm.log_path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);
	vm.log_fd = open(vm.log_path, O_RDWR | O_CLOEXEC);
	if (log < 0 || vm.log_fd < 0)
		die("%s: %s", vm.log_path, strerror(errno));
	if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, socks) ||
	    pipe2(err, O_CLOEXEC))
		die("no sockets: %s", strerror(errno));

	queue_run(argv + optind + n_qemu, rw, n_rw);
	qemu = calloc(n_qemu + 1, sizeof(*qemu));
	if (!qemu)
		die("out of memory");
	memcpy(qemu, argv + optind, n_qemu * sizeof(*qemu));
	start_qemu(qemu, socks[1], log, err[1]);
	close(socks[1]);
	close(err[1]);
	close(log);
	vm.port = socks[0];
	vm.qemu_stderr = err[0];

	why = run();
	kill_qemu();
	if (why == TIMEOUT || why == STUCK || why == NOT_DOWN) {
		/* What the guest said last is worth having, if it can be had */
		vm.deadline = now() + 1;
		fcntl(vm.port, F_SETFL, O_NONBLOCK);
		while (vm.port >= 0 && read_some(vm.port, &vm.from_guest) &&
		       !time_is_up())
			handle_frames();
	}
	if (vm.qemu_stderr >= 0) {
		fcntl(vm.qemu_stderr, F_SETFL, O_NONBLOCK);
		read_some(vm.qemu_stderr, &vm.qemu_said);
	}
	return verdict(why, timeout);
}
