/*
 * userns: runs a program as root of a user namespace of its own, with a mount and a network namespace that belong to it.
 * And it does for native/starter what a shell cannot: it tries what a node needs, has cgroups writable, locks.
 *
 * For a root who may not mount, in a sandbox that lets everybody make user namespaces: inside of one there is the right
 * to mount, to set up networks, and to make more namespaces. User and group numbers stay what they are. The network
 * namespace is needed because that of the sandbox belongs to the namespace that was left; --listen opens a socket there
 * before, so that something is left to reach the program by.
 *
 * The process stays the same one, so status and signals are the program's own.
 *
 * Exit status: the program's; 125 an error here; 126 the program cannot be executed; 127 there is none.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <netinet/in.h>
#include <sched.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include "cgroups.h"
#include "fail.h"
#include "trial.h"

enum { CONNECTIONS = 128 };

static _Noreturn void misuse(const char *text)
{
	fprintf(stderr, "userns: %s; --help tells more\n", text);
	exit(OWN_ERROR);
}

/*
 * user_namespaces(7): each number stands for itself, as far as there are numbers here. Where these are all 4294967295 the
 * last one is left out: runc and containerd take a namespace that maps them all for the first one, and must not, since in
 * this one there are no device filters and no device files.
 */
static void write_map(pid_t pid, const char *name)
{
	char path[64], text[4096];
	unsigned long first, outside, length, whole = 4294967295;
	int used = 0;
	snprintf(path, sizeof path, "/proc/self/%s", name);
	FILE *own = fopen(path, "re");
	if (!own)
		fail("%s", path);
	while (used < (int)sizeof text - 64 && fscanf(own, "%lu %lu %lu", &first, &outside, &length) == 3)
		used += sprintf(text + used, "%lu %lu %lu\n", first, first, length == whole ? length - 1 : length);
	fclose(own);
	snprintf(path, sizeof path, "/proc/%ld/%s", (long)pid, name);
	int file = open(path, O_WRONLY | O_CLOEXEC);
	if (file < 0 || write(file, text, (size_t)used) < 0)
		fail("%s, which takes CAP_SETUID, CAP_SETGID and CAP_SETFCAP", name);
	close(file);
}

/*
 * Moves this process into the new namespaces. A child that stays outside writes the maps: only who has CAP_SETUID,
 * CAP_SETGID and CAP_SETFCAP there may map more than itself. It waits for a byte, which does not come if this process ends before.
 */
static void enter(void)
{
	int gate[2], status;
	char byte;
	pid_t self = getpid();
	bool serve = cgroups_serve("/");
	if (pipe2(gate, O_CLOEXEC) != 0)
		fail("pipe");
	pid_t child = fork();
	if (child < 0)
		fail("fork");
	if (child == 0) {
		close(gate[1]);
		if (read(gate[0], &byte, 1) != 1)
			_exit(OWN_ERROR);
		write_map(self, "uid_map");
		write_map(self, "gid_map");
		_exit(0);
	}
	close(gate[0]);
	if (unshare(CLONE_NEWUSER | CLONE_NEWNS | CLONE_NEWNET) != 0)
		fail(errno == ENOSPC ? "no user namespace (user.max_user_namespaces allows none)" : "no user namespace");
	if (write(gate[1], "", 1) != 1)
		fail("pipe");
	close(gate[1]);
	while (waitpid(child, &status, 0) < 0)
		if (errno != EINTR)
			fail("waitpid");
	if (status != 0)
		exit(OWN_ERROR); /* the child said why */
	if (!serve) /* it gives the right to mount them anew; without it they stay as they are */
		(void)unshare(CLONE_NEWCGROUP);
}

/* Listens on a port of 127.0.0.1 with the given descriptor, which the program inherits. */
static void listen_at(int descriptor, int port)
{
	struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons((uint16_t)port)};
	int one = 1, made = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
	address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
	if (made < 0)
		fail("socket");
	if (setsockopt(made, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one) != 0 ||
	    bind(made, (struct sockaddr *)&address, sizeof address) != 0 || listen(made, CONNECTIONS) != 0)
		fail("127.0.0.1:%d", port);
	if (made == descriptor ? fcntl(made, F_SETFD, 0) != 0 : dup2(made, descriptor) < 0)
		fail("descriptor %d", descriptor);
	if (made != descriptor)
		close(made);
}

/* A whole number up to a limit; false if the text is no such number. */
static bool number(const char *text, char end, long limit, int *value, const char **rest)
{
	char *after;
	errno = 0;
	long found = strtol(text, &after, 10);
	if (after == text || errno != 0 || *after != end || found < 0 || found > limit)
		return false;
	*value = (int)found;
	*rest = after;
	return true;
}

static const char usage[] =
	"Usage: userns [--listen DESCRIPTOR:PORT] [--] PROGRAM [ARGUMENT ...]\n"
	"       userns --try=apart|here FOLDER\n"
	"       userns --cgroups ROOT\n"
	"       userns --lock DESCRIPTOR\n"
	"Runs a program as root of a user namespace, with a mount and a network namespace of its own.\n\n"
	"  --listen DESCRIPTOR:PORT  pass on a socket that listens on this port of the loopback that is left\n"
	"  --try=apart FOLDER        run nothing: try what a node does there, tell what is refused; nothing is left of it\n"
	"  --try=here FOLDER         the same in a mount namespace only\n"
	"  --cgroups ROOT            run nothing: make cgroups below ROOT/sys/fs/cgroup writable in this mount namespace\n"
	"  --lock DESCRIPTOR         run nothing: lock what whoever starts this has open there, or fail: somebody else has it locked\n"
	"  --help\n\n"
	"Exit status: the program's; 125 an error here; 126 the program cannot be executed; 127 there is none.\n";

/* As what this was called for. */
enum job { RUN, TRY_APART, TRY_HERE, CGROUPS };

static enum job trial(const char *where)
{
	prefix = "";
	if (strcmp(where, "apart") == 0)
		return TRY_APART;
	if (strcmp(where, "here") == 0)
		return TRY_HERE;
	prefix = "userns: ";
	misuse("--try wants apart or here");
}

static int run(char **words)
{
	enter();
	execvp(words[0], words);
	int error = errno;
	fprintf(stderr, "userns: %s: %s\n", words[0], strerror(error));
	return error == ENOENT ? NOT_FOUND : NOT_EXECUTABLE;
}

static int try(enum job job, const char *folder)
{
	if (job == TRY_APART)
		enter();
	else if (unshare(CLONE_NEWNS) != 0)
		fail("no mount namespace");
	try_all(folder);
	return 0;
}

int main(int count, char **words)
{
	static const struct option options[] = {{"listen", required_argument, NULL, 'l'},
						{"try", required_argument, NULL, 't'},
						{"cgroups", no_argument, NULL, 'c'},
						{"lock", required_argument, NULL, 'k'},
						{"help", no_argument, NULL, 'h'},
						{NULL, 0, NULL, 0}};
	int descriptor, port;
	enum job job = RUN;
	for (int option; (option = getopt_long(count, words, "+", options, NULL)) != -1;) {
		const char *rest = optarg;
		switch (option) {
		case 'l':
			if (!number(rest, ':', 1 << 20, &descriptor, &rest) || !number(rest + 1, '\0', 65535, &port, &rest))
				misuse("--listen wants DESCRIPTOR:PORT");
			listen_at(descriptor, port);
			break;
		case 't':
			job = trial(optarg);
			break;
		case 'c':
			job = CGROUPS;
			break;
		case 'k':
			if (!number(rest, '\0', 1 << 20, &descriptor, &rest))
				misuse("--lock wants DESCRIPTOR");
			return flock(descriptor, LOCK_EX | LOCK_NB) == 0 ? 0 : OWN_ERROR;
		case 'h':
			fputs(usage, stdout);
			return 0;
		default:
			fputs("userns: --help tells more\n", stderr);
			return OWN_ERROR;
		}
	}
	if (job != RUN && count != optind + 1)
		misuse("one folder is wanted");
	if (optind == count)
		misuse("no program is named");
	if (job == RUN)
		return run(words + optind);
	if (job != CGROUPS)
		return try(job, words[optind]);
	make_cgroups_serve(words[optind]);
	return 0;
}
