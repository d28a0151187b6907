/*
 * userns: runs a program as root of a user namespace of its own, with a mount and a network namespace that belong to it.
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
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

enum { OWN_ERROR = 125, NOT_EXECUTABLE = 126, NOT_FOUND = 127 };
enum { CONNECTIONS = 128 };

/*
 * user_namespaces(7): each number stands for itself. All but the last, since runc and containerd take a namespace that
 * maps all 4294967295 for the first one, and must not: in this one there are no device filters and no device files.
 */
static const char everyone[] = "0 0 4294967294\n";

/* Says what failed and why, and ends this process. */
static _Noreturn void fail(const char *text, ...)
{
	va_list arguments;
	int error = errno;
	va_start(arguments, text);
	fputs("userns: ", stderr);
	vfprintf(stderr, text, arguments);
	fprintf(stderr, ": %s\n", strerror(error));
	va_end(arguments);
	exit(OWN_ERROR);
}

static _Noreturn void misuse(const char *text)
{
	fprintf(stderr, "userns: %s; --help tells more\n", text);
	exit(OWN_ERROR);
}

static void write_map(pid_t pid, const char *name)
{
	char path[64];
	snprintf(path, sizeof path, "/proc/%ld/%s", (long)pid, name);
	int file = open(path, O_WRONLY | O_CLOEXEC);
	if (file < 0 || write(file, everyone, strlen(everyone)) < 0)
		fail("%s, which takes CAP_SETUID, CAP_SETGID and CAP_SETFCAP", path);
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
		fail("no user namespace");
	if (write(gate[1], "", 1) != 1)
		fail("pipe");
	close(gate[1]);
	while (waitpid(child, &status, 0) < 0)
		if (errno != EINTR)
			fail("waitpid");
	if (status != 0)
		exit(OWN_ERROR); /* the child said why */
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
	"Runs a program as root of a user namespace, with a mount and a network namespace of its own.\n\n"
	"  --listen DESCRIPTOR:PORT  pass on a socket that listens on this port of the loopback that is left\n"
	"  --help\n\n"
	"Exit status: the program's; 125 an error here; 126 the program cannot be executed; 127 there is none.\n";

int main(int count, char **words)
{
	static const struct option options[] = {
		{"listen", required_argument, NULL, 'l'}, {"help", no_argument, NULL, 'h'}, {NULL, 0, NULL, 0}};
	int descriptor, port;
	for (int option; (option = getopt_long(count, words, "+", options, NULL)) != -1;) {
		const char *rest = optarg;
		switch (option) {
		case 'l':
			if (!number(rest, ':', 1 << 20, &descriptor, &rest) || !number(rest + 1, '\0', 65535, &port, &rest))
				misuse("--listen wants DESCRIPTOR:PORT");
			listen_at(descriptor, port);
			break;
		case 'h':
			fputs(usage, stdout);
			return 0;
		default:
			fputs("userns: --help tells more\n", stderr);
			return OWN_ERROR;
		}
	}
	if (optind == count)
		misuse("no program is named");
	enter();
	execvp(words[optind], words + optind);
	int error = errno;
	fprintf(stderr, "userns: %s: %s\n", words[optind], strerror(error));
	return error == ENOENT ? NOT_FOUND : NOT_EXECUTABLE;
}
