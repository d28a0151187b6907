/*
 * userns: runs a program in namespaces of its own. And it does for native/starter what a shell cannot: it tries what a node
 * needs, has cgroups writable, locks.
 *
 * Alone it gives a root who may not mount, in a sandbox that lets everybody make user namespaces, one in which there is the
 * right to mount, to set up networks, and to make more namespaces, with a mount and a network namespace that belong to it. User
 * and group numbers stay what they are. The process stays the same one, so status and signals are the program's own.
 *
 * With --first it makes those of a node, that of PIDs among them, and stays beside it (first.h). The network of where it is
 * started is left in both cases; --listen opens a socket there before, so that something is left to reach the program by.
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
#include "first.h"
#include "trial.h"
#include "users.h"

enum { CONNECTIONS = 128 };

static _Noreturn void misuse(const char *text)
{
	fprintf(stderr, "userns: %s; --help tells more\n", text);
	exit(OWN_ERROR);
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
	"       userns --try=apart|here|within FOLDER\n"
	"       userns --cgroups ROOT\n"
	"       userns --lock DESCRIPTOR\n"
	"       userns --beside PID [--cgroup FOLDER ...] [--] PROGRAM [ARGUMENT ...]\n"
	"       userns --first [--parent PID] [--note DESCRIPTOR] [--cgroup FOLDER ...] [--pods]\n"
	"              [--users | --uids MAP --gids MAP] [--listen DESCRIPTOR:PORT] [--] PROGRAM ...\n"
	"Runs a program as root of a user namespace, with a mount and a network namespace of its own.\n\n"
	"  --listen DESCRIPTOR:PORT  pass on a socket that listens on this port of the loopback that is left\n"
	"  --try=apart FOLDER        run nothing: try what a node does there, tell what is refused; nothing is left of it\n"
	"  --try=here FOLDER         the same, but for the user namespace\n"
	"  --try=within FOLDER       the same, where cgroups are still to come\n"
	"  --cgroups ROOT            run nothing: make cgroups below ROOT/sys/fs/cgroup writable in this mount namespace\n"
	"  --first                   run the program as the first process of PID, mount, network, UTS and IPC namespaces; this one\n"
	"                            waits, passes SIGTERM, SIGINT and SIGHUP on, and kills the program where they do not help\n"
	"  --beside PID              run the program in the namespaces of this one, and with --cgroup in its cgroups\n"
	"  --parent PID              end when this process ends, which started this one\n"
	"  --note DESCRIPTOR         write the number of the program's process there\n"
	"  --cgroup FOLDER           have it in this cgroup, and a cgroup namespace; remove the cgroup at the end\n"
	"  --pods                    remove the cgroups that a kubelet left in /sys/fs/cgroup, at the end\n"
	"  --users                   have a user namespace, too, where each number stands for itself\n"
	"  --uids MAP, --gids MAP    the same, with what newuidmap(1) and newgidmap(1) make of this\n"
	"  --lock DESCRIPTOR         run nothing: lock what whoever starts this has open there, or fail: somebody else has it locked\n"
	"  --help\n\n"
	"Exit status: the program's; 125 an error here; 126 the program cannot be executed; 127 there is none.\n";

/* As what this was called for. */
enum job { RUN, FIRST, BESIDE, TRY_APART, TRY_HERE, TRY_WITHIN, CGROUPS };

static enum job trial(const char *where)
{
	prefix = "";
	if (strcmp(where, "apart") == 0)
		return TRY_APART;
	if (strcmp(where, "here") == 0)
		return TRY_HERE;
	if (strcmp(where, "within") == 0)
		return TRY_WITHIN;
	prefix = "userns: ";
	misuse("--try wants apart, here or within");
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
	else if (unshare(CLONE_NEWNS | CLONE_NEWNET) != 0)
		fail("no mount namespace");
	try_all(folder, job != TRY_WITHIN);
	return 0;
}

/* Without a list of flags: each set is one that something is started in. */
enum { APART = CLONE_NEWPID | CLONE_NEWNS | CLONE_NEWNET | CLONE_NEWUTS | CLONE_NEWIPC };

static int whole(const char *text, long limit, const char *wanted)
{
	const char *rest;
	int value;
	if (!number(text, '\0', limit, &value, &rest))
		misuse(wanted);
	return value;
}

int main(int count, char **words)
{
	static const struct option options[] = {{"listen", required_argument, NULL, 'l'},
						{"try", required_argument, NULL, 't'},
						{"cgroups", no_argument, NULL, 'c'},
						{"lock", required_argument, NULL, 'k'},
						{"first", no_argument, NULL, 'f'},
						{"parent", required_argument, NULL, 'p'},
						{"note", required_argument, NULL, 'n'},
						{"cgroup", required_argument, NULL, 'g'},
						{"uids", required_argument, NULL, 'U'},
						{"gids", required_argument, NULL, 'G'},
						{"beside", required_argument, NULL, 'b'},
						{"users", no_argument, NULL, 'u'},
						{"pods", no_argument, NULL, 'o'},
						{"help", no_argument, NULL, 'h'},
						{NULL, 0, NULL, 0}};
	struct first first = {.flags = APART, .note = -1};
	int descriptor, port, beside = 0;
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
			descriptor = whole(optarg, 1 << 20, "--lock wants DESCRIPTOR");
			return flock(descriptor, LOCK_EX | LOCK_NB) == 0 ? 0 : OWN_ERROR;
		case 'f':
			job = FIRST;
			break;
		case 'b':
			job = BESIDE;
			beside = whole(optarg, 1 << 30, "--beside wants PID");
			break;
		case 'p':
			first.parent = whole(optarg, 1 << 30, "--parent wants PID");
			break;
		case 'n':
			first.note = whole(optarg, 1 << 20, "--note wants DESCRIPTOR");
			break;
		case 'g':
			if (first.count == CGROUPS_MOST)
				misuse("too many cgroups");
			first.cgroups[first.count++] = optarg;
			break;
		case 'u':
			first.flags |= CLONE_NEWUSER;
			break;
		case 'o':
			first.pods = true;
			break;
		case 'U':
		case 'G':
			first.map[option == 'G'] = optarg;
			first.flags |= CLONE_NEWUSER;
			break;
		case 'h':
			fputs(usage, stdout);
			return 0;
		default:
			fputs("userns: --help tells more\n", stderr);
			return OWN_ERROR;
		}
	}
	if (job > BESIDE && count != optind + 1)
		misuse("one folder is wanted");
	if (optind == count)
		misuse("no program is named");
	switch (job) {
	case RUN:
		return run(words + optind);
	case FIRST:
		return run_first(&first, words + optind);
	case BESIDE:
		return run_beside(beside, &first, words + optind);
	case CGROUPS:
		make_cgroups_serve(words[optind]);
		return 0;
	default:
		return try(job, words[optind]);
	}
}
