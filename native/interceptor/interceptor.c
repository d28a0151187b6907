/*
 * interceptor: runs a program that opens some files elsewhere than it says.
 *
 * How. A seccomp(2) filter stops the traced program at the calls of calls.c and nowhere else. A stopped call whose path
 * a rule names, and whose replacement exists, is made with another path: the string is put into a page of the program's
 * memory that nothing else uses, the register that holds the path's address points there for as long as the call lasts,
 * and gets its own value back when the call returns.
 *
 * Why not rewrite the path where it is: it may be in read-only memory, other threads may be reading it, and a thread
 * that changes it between our look and the kernel's would make a third path of two. Why not write it below the stack
 * pointer: the stacks of goroutines are small, and what is below them belongs to others. So the page is one that we
 * let the program map itself: the first call of a thread that needs one is first made as mmap(2), then repeated by
 * stepping back over the syscall instruction, as the kernel does to restart a call. A page is one thread's; when the
 * thread ends, the next thread of the process that needs one takes it. It starts with a random mark: without it the
 * program has unmapped the page, and what is there now is not ours. What the program passes is therefore copied once:
 * the call sees the whole old path or the whole new one, and no byte of the program's own memory is written.
 *
 * Replacements are looked up in the root folder of the program that calls, as the kernel will, so that after chroot(2)
 * or in another mount namespace a rule means the files that are there; where /proc does not show it (early gVisor), in
 * ours.
 *
 * Left alone: paths with a part "..", which only the kernel can resolve; symbolic links to named paths; calls of other
 * ABIs (i386, x32); openat2(2) with RESOLVE_BENEATH or RESOLVE_IN_ROOT. Rules of last components do name the first and
 * the last of these.
 *
 * Files: rules (which paths), calls (at which calls), tracees (records of threads and processes), paths (what to pass
 * instead), stops (what is done at each stop); here the start, and the one loop that waits for stops.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ptrace.h>
#include <sys/wait.h>
#include <unistd.h>

#include "calls.h"
#include "fail.h"
#include "paths.h"
#include "rules.h"
#include "stops.h"
#include "tracees.h"

#ifndef VERSION
#define VERSION "0"
#endif

static volatile pid_t program; /* the program that was started; 0 when it has ended */

/* Runs until nothing is traced any more; the exit status of the program. */
static int trace(void)
{
	int result = OWN_ERROR;
	pid_t *stopped = NULL;
	size_t length = 0, room = 0;
	while (traced > 0) {
		int status;
		/* waitpid(2) looks at the youngest first: all that have stopped get a turn before it is asked anew. */
		pid_t tid = waitpid(-1, &status, length > 0 ? __WALL | WNOHANG : __WALL);
		if (tid < 0 && errno == EINTR)
			continue;
		if (tid < 0 && length == 0)
			break;
		if (tid <= 0) {
			for (size_t i = 0; i < length; i++) {
				struct thread *thread = find_thread(stopped[i]);
				if (thread && thread->stopped) {
					thread->stopped = false;
					on_stop(thread, thread->status);
				}
			}
			length = 0;
			continue;
		}
		if (WIFSTOPPED(status)) {
			struct thread *thread = thread_of(tid);
			if (length == room)
				stopped = reserve(stopped, (room += 256) * sizeof *stopped);
			stopped[length++] = tid;
			thread->stopped = true; /* a stop before this one is void: killed, or replaced by execve(2) */
			thread->status = status;
			continue;
		}
		forget(tid);
		if (tid == program) {
			result = WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
			program = 0;
		}
	}
	free(stopped);
	return result;
}

/* --- start --- */

enum step { TRACED, FILTER, EXECUTE };
struct report {
	enum step step;
	int error;
};

static _Noreturn void become(char **words, int go, int tell)
{
	char byte;
	struct report report = {TRACED, ESRCH};
	if (read(go, &byte, 1) == 1) {
		report = (struct report){FILTER, 0};
		if (install_filter() == 0) {
			report.step = EXECUTE;
			execvp(words[0], words);
		}
		report.error = errno;
	}
	_exit(write(tell, &report, sizeof report) == sizeof report ? OWN_ERROR : OWN_ERROR);
}

static void pass_on(int signal)
{
	if (program == 0)
		_exit(128 + signal); /* what the program has left behind ends with its tracer */
	kill(program, signal);
}

static void pass_signals_on(void)
{
	static const int passed[] = {SIGTERM, SIGHUP, SIGUSR1, SIGUSR2};
	struct sigaction action = {.sa_handler = pass_on, .sa_flags = SA_RESTART};
	for (size_t i = 0; i < sizeof passed / sizeof *passed; i++) {
		struct sigaction before;
		if (sigaction(passed[i], NULL, &before) == 0 && before.sa_handler != SIG_IGN) /* nohup(1) */
			sigaction(passed[i], &action, NULL);
	}
	/* A terminal sends these to the program by itself. */
	signal(SIGINT, SIG_IGN);
	signal(SIGQUIT, SIG_IGN);
	signal(SIGPIPE, SIG_IGN); /* a log that nobody reads any more ends nothing */
}

static int start(char **words)
{
	int go[2], tell[2];
	if (!paths_begin())
		fail("/proc is missing or of another PID namespace");
	if (pipe2(go, O_CLOEXEC) != 0 || pipe2(tell, O_CLOEXEC) != 0)
		fail("pipe: %s", strerror(errno));
	program = fork();
	if (program < 0)
		fail("fork: %s", strerror(errno));
	if (program == 0) {
		close(go[1]);
		become(words, go[0], tell[1]);
	}
	close(go[0]);
	close(tell[1]);
	long options = PTRACE_O_TRACESECCOMP | PTRACE_O_TRACECLONE | PTRACE_O_TRACEFORK | PTRACE_O_TRACEVFORK |
		       PTRACE_O_TRACEEXEC | PTRACE_O_TRACESYSGOOD | PTRACE_O_EXITKILL;
	if (ptrace(PTRACE_SEIZE, program, 0, options) != 0) {
		int error = errno;
		kill(program, SIGKILL);
		fail("ptrace: %s", strerror(error));
	}
	thread_of(program);
	pass_signals_on();
	if (write(go[1], "", 1) != 1)
		fail("pipe: %s", strerror(errno));
	close(go[1]);
	int result = trace();
	struct report report;
	if (read(tell[0], &report, sizeof report) != sizeof report)
		return result;
	if (report.step == EXECUTE) {
		fprintf(stderr, "interceptor: %s: %s\n", words[0], strerror(report.error));
		return report.error == ENOENT ? NOT_FOUND : NOT_EXECUTABLE;
	}
	fail("seccomp: %s", strerror(report.error));
}

static const char usage[] =
	"Usage: interceptor --rules FILE [--log FILE] [--all] [--] PROGRAM [ARGUMENT ...]\n"
	"Runs a program that opens some files elsewhere than it says.\n\n"
	"  --rules FILE  one rule a line: FROM TO. Paths that end with a slash stand for all that is below.\n"
	"                */NAME NAME stands for every file of the first name: the second, in the same folder.\n"
	"  --log FILE    write a line for each redirected call, and counts at the end; - is standard error\n"
	"  --all         stop at every system call, for comparison\n"
	"  --version, --help\n\n"
	"Exit status: the program's; 128 and the signal that ended it; 125 an error here; 126 the program\n"
	"cannot be executed; 127 there is none.\n";

int main(int count, char **words)
{
	static const struct option options[] = {
		{"rules", required_argument, NULL, 'r'}, {"log", required_argument, NULL, 'l'},
		{"all", no_argument, NULL, 'a'},         {"version", no_argument, NULL, 'v'},
		{"help", no_argument, NULL, 'h'},        {NULL, 0, NULL, 0},
	};
	const char *rules = NULL, *log = NULL;
	FILE *journal = NULL;
	bool every = false;
	for (int option; (option = getopt_long(count, words, "+", options, NULL)) != -1;)
		switch (option) {
		case 'r':
			rules = optarg;
			break;
		case 'l':
			log = optarg;
			break;
		case 'a':
			every = true;
			break;
		case 'v':
			puts("interceptor " VERSION);
			return 0;
		case 'h':
			fputs(usage, stdout);
			return 0;
		default:
			fputs("interceptor: --help tells more\n", stderr);
			return OWN_ERROR;
		}
	if (!rules || optind == count)
		fail("%s; --help tells more", rules ? "no program is named" : "--rules FILE is missing");
	if (!rules_read(rules))
		return OWN_ERROR;
	if (log && strcmp(log, "-") == 0)
		journal = stderr;
	else if (log && !(journal = fopen(log, "we")))
		fail("%s: %s", log, strerror(errno));
	if (journal)
		setvbuf(journal, NULL, _IOLBF, 0);
	stops_begin(every, journal);
	int result = start(words + optind);
	if (journal) {
		stops_count(journal);
		if (fflush(journal) != 0 || ferror(journal))
			fprintf(stderr, "interceptor: %s: not all could be written\n", log);
	}
	return result;
}
