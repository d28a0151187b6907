#define _GNU_SOURCE
#include "first.h"

#include <errno.h>
#include <fcntl.h>
#include <ftw.h>
#include <glob.h>
#include <sched.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "cgroups.h"
#include "fail.h"
#include "users.h"

enum { GRACE = 10, PATIENCE = 500, MOMENT = 10 * 1000 * 1000, DEPTH = 16 }; /* seconds; times; nanoseconds; descriptors */

static void put(const char *path, const char *text)
{
	int file = open(path, O_WRONLY | O_CLOEXEC);
	if (file < 0 || write(file, text, strlen(text)) < 0)
		fail("%s", path);
	close(file);
}

static void join(const char *cgroup, pid_t pid)
{
	char path[4096], text[32];
	if (snprintf(path, sizeof path, "%s/cgroup.procs", cgroup) >= (int)sizeof path) {
		errno = ENAMETOOLONG;
		fail("%s", cgroup);
	}
	snprintf(text, sizeof text, "%ld", (long)pid);
	put(path, text);
}

/* A program with the right to do it writes the map: newuidmap(1) has what /etc/subuid gives this user. */
static void map(const char *program, pid_t pid, const char *numbers)
{
	char copy[1024], number[32], *words[64] = {(char *)program, number}, *rest = copy;
	int status, count = 2;
	snprintf(number, sizeof number, "%ld", (long)pid);
	snprintf(copy, sizeof copy, "%s", numbers);
	while (count < 63 && (words[count] = strsep(&rest, " ")))
		count++;
	words[count] = NULL;
	pid_t child = fork();
	if (child < 0)
		fail("fork");
	if (child == 0) {
		execvp(program, words);
		fail("%s", program);
	}
	while (waitpid(child, &status, 0) < 0)
		if (errno != EINTR)
			fail("waitpid");
	if (status != 0)
		exit(OWN_ERROR); /* it said why */
}

/* In the namespaces. A byte comes when all is there; none does if the other process ended, which has getppid(2) be 0 anyway. */
static _Noreturn void be_first(const struct first *first, int gate, const sigset_t *signals, char **words)
{
	char byte;
	if (prctl(PR_SET_PDEATHSIG, SIGKILL) != 0)
		fail("prctl");
	if (read(gate, &byte, 1) != 1)
		_exit(OWN_ERROR);
	/* In one of its own it may mount cgroups anew; where they do not serve and it gets none, they stay as they are. */
	bool anew = (first->flags & CLONE_NEWUSER) && !cgroups_serve("/");
	if ((first->count > 0 || anew) && unshare(CLONE_NEWCGROUP) != 0 && !anew)
		fail("no cgroup namespace");
	sigprocmask(SIG_SETMASK, signals, NULL);
	execvp(words[0], words);
	int error = errno;
	fprintf(stderr, "userns: %s: %s\n", words[0], strerror(error));
	_exit(error == ENOENT ? NOT_FOUND : NOT_EXECUTABLE);
}

/* proc(5), /proc/PID/status: the first process of a PID namespace gets no signal that it does not catch. */
static bool catches(pid_t pid, int signal)
{
	char path[64], line[256];
	unsigned long long caught = ~0ULL; /* where nothing tells, as in gVisor */
	snprintf(path, sizeof path, "/proc/%ld/status", (long)pid);
	FILE *file = fopen(path, "re");
	while (file && fgets(line, sizeof line, file))
		if (sscanf(line, "SigCgt: %llx", &caught) == 1)
			break;
	if (file)
		fclose(file);
	return caught >> (signal - 1) & 1;
}

/* Waits for the end of the program, and has it end when this is told to; in order, and in its own time, by SIGPWR. */
static int await(pid_t child, const sigset_t *signals)
{
	struct timespec grace = {.tv_sec = GRACE};
	bool asked = false, ending = false;
	for (int status;;) {
		siginfo_t found;
		pid_t ended = waitpid(child, &status, WNOHANG);
		if (ended == child)
			return WIFSIGNALED(status) ? 128 + WTERMSIG(status) : WEXITSTATUS(status);
		if (ended < 0 && errno != EINTR)
			fail("waitpid");
		int signal = sigtimedwait(signals, &found, asked ? &grace : NULL);
		if (signal == SIGCHLD || (signal < 0 && errno == EINTR))
			continue;
		if (signal < 0 || asked || ending || !catches(child, signal))
			signal = SIGKILL;
		kill(child, signal);
		ending = signal == SIGPWR;
		asked = !ending;
	}
}

static int remove_folder(const char *path, const struct stat *status, int kind, struct FTW *place)
{
	(void)status, (void)place;
	return kind == FTW_DP && rmdir(path) != 0 && errno != ENOENT; /* the files of a cgroup go with it */
}

/* A cgroup is busy for a moment after its last process has ended. */
static void remove_cgroup(const char *cgroup)
{
	struct timespec moment = {.tv_nsec = MOMENT};
	for (int tries = 0; nftw(cgroup, remove_folder, DEPTH, FTW_DEPTH | FTW_PHYS) > 0 && tries < PATIENCE; tries++)
		nanosleep(&moment, NULL);
}

static int find_process(const char *path, const struct stat *status, int kind, struct FTW *place)
{
	char procs[4096], byte;
	(void)status, (void)place;
	if (kind != FTW_D || snprintf(procs, sizeof procs, "%s/cgroup.procs", path) >= (int)sizeof procs)
		return 0;
	int file = open(procs, O_RDONLY | O_CLOEXEC);
	int found = file >= 0 && read(file, &byte, 1) == 1;
	if (file >= 0)
		close(file);
	return found;
}

/* Those that a kubelet makes, in each hierarchy. Another kubelet may have them, if there is a process in one. */
static void remove_pods(void)
{
	struct timespec moment = {.tv_nsec = MOMENT};
	glob_t found;
	if (glob("/sys/fs/cgroup/kubepods", GLOB_NOCHECK, NULL, &found) != 0 ||
	    glob("/sys/fs/cgroup/*/kubepods", GLOB_NOCHECK | GLOB_APPEND, NULL, &found) != 0)
		return;
	for (size_t each = 0; each < found.gl_pathc; each++) {
		const char *path = found.gl_pathv[each];
		int inhabited = -1;
		if (access(path, W_OK) != 0)
			continue;
		/* In gVisor those that were killed are in it for a moment after the first process of their namespace has ended. */
		for (int tries = 0; tries < PATIENCE && (inhabited = nftw(path, find_process, DEPTH, FTW_PHYS)) > 0; tries++)
			nanosleep(&moment, NULL);
		if (inhabited == 0)
			remove_cgroup(path);
	}
	globfree(&found);
}

int run_first(const struct first *first, char **words)
{
	int gate[2];
	char text[32];
	sigset_t signals, before;
	sigemptyset(&signals);
	for (const int *each = (int[]){SIGCHLD, SIGTERM, SIGINT, SIGHUP, SIGPWR, 0}; *each; each++)
		sigaddset(&signals, *each);
	sigprocmask(SIG_BLOCK, &signals, &before);
	if (first->parent && (prctl(PR_SET_PDEATHSIG, SIGTERM) != 0 || getppid() != first->parent))
		exit(128 + SIGTERM);
	if (first->note >= 0 && fcntl(first->note, F_SETFD, FD_CLOEXEC) != 0)
		fail("descriptor %d", first->note);
	if (pipe2(gate, O_CLOEXEC) != 0)
		fail("pipe");
	/* In one call: a user namespace that is made with others owns them (user_namespaces(7)). Without a stack it is as fork(2). */
	pid_t child = (pid_t)syscall(SYS_clone, first->flags | SIGCHLD, 0, 0, 0, 0);
	if (child < 0)
		fail(errno == ENOSPC ? "no namespaces (user.max_user_namespaces and its like allow none)" : "no namespaces");
	if (child == 0) {
		close(gate[1]);
		be_first(first, gate[0], &before, words);
	}
	close(gate[0]);
	for (int each = 0; each < first->count; each++)
		join(first->cgroups[each], child);
	for (int each = 0; each < 2 && first->flags & CLONE_NEWUSER; each++)
		if (first->map[each])
			map(each == 0 ? "newuidmap" : "newgidmap", child, first->map[each]);
		else
			write_map(child, each == 0 ? "uid_map" : "gid_map");
	snprintf(text, sizeof text, "%ld\n", (long)child);
	if (first->note >= 0 && write(first->note, text, strlen(text)) < 0)
		fail("descriptor %d", first->note);
	if (write(gate[1], "", 1) != 1)
		fail("pipe");
	close(gate[1]);
	int status = await(child, &signals);
	for (int each = 0; each < first->count; each++)
		remove_cgroup(first->cgroups[each]);
	if (first->pods)
		remove_pods();
	return status;
}

int run_beside(pid_t pid, const struct first *first, char **words)
{
	char path[64];
	int status, process = (int)syscall(SYS_pidfd_open, pid, 0);
	struct stat its, own;
	snprintf(path, sizeof path, "/proc/%ld/ns/user", (long)pid);
	if (process < 0 || stat(path, &its) != 0 || stat("/proc/self/ns/user", &own) != 0)
		fail("process %ld", (long)pid);
	for (int each = 0; each < first->count; each++)
		join(first->cgroups[each], getpid());
	/* All in one call, as in run_first: the right to the others comes with the user namespace, and one's own is an error. */
	int users = its.st_dev == own.st_dev && its.st_ino == own.st_ino ? 0 : CLONE_NEWUSER;
	if (setns(process, first->flags | CLONE_NEWCGROUP | users) != 0)
		fail("the namespaces of process %ld", (long)pid);
	close(process);
	pid_t child = fork(); /* who enters a PID namespace has its children there */
	if (child < 0)
		fail("fork");
	if (child == 0) {
		execvp(words[0], words);
		int error = errno;
		fprintf(stderr, "userns: %s: %s\n", words[0], strerror(error));
		_exit(error == ENOENT ? NOT_FOUND : NOT_EXECUTABLE);
	}
	for (const int *each = (int[]){SIGINT, SIGQUIT, SIGTERM, SIGHUP, 0}; *each; each++)
		signal(*each, SIG_IGN); /* a terminal sends them to both, and this one ends with the other */
	while (waitpid(child, &status, 0) < 0)
		if (errno != EINTR)
			fail("waitpid");
	return WIFSIGNALED(status) ? 128 + WTERMSIG(status) : WEXITSTATUS(status);
}
