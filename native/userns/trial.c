#define _GNU_SOURCE
#include "trial.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/netlink.h>
#include <linux/rtnetlink.h>
#include <net/if.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "cgroups.h"
#include "fail.h"

/* Asks for a change of lo that changes nothing; rtnetlink(7) asks for CAP_NET_ADMIN all the same. */
static void try_network(void)
{
	struct {
		struct nlmsghdr header;
		struct ifinfomsg link;
	} request = {
		.header = {.nlmsg_len = sizeof request, .nlmsg_type = RTM_NEWLINK, .nlmsg_flags = NLM_F_REQUEST | NLM_F_ACK},
		.link = {.ifi_family = AF_UNSPEC, .ifi_index = (int)if_nametoindex("lo")},
	};
	struct {
		struct nlmsghdr header;
		struct nlmsgerr error;
		char rest[256];
	} answer = {.header = {.nlmsg_type = NLMSG_NOOP}};
	int netlink = socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, NETLINK_ROUTE);
	if (netlink < 0 || send(netlink, &request, sizeof request, 0) < 0 || recv(netlink, &answer, sizeof answer, 0) < 0)
		fail("no netlink");
	close(netlink);
	errno = answer.header.nlmsg_type == NLMSG_ERROR ? -answer.error.error : EPROTO;
	if (errno != 0)
		fail("no right to change the network");
}

/* The setting must be on, or must be there to be turned on: a word that is no number is refused only after the right to write. */
static void try_forwarding(const char *proc)
{
	char path[64], value = '\0';
	snprintf(path, sizeof path, "%s/sys/net/ipv4/ip_forward", proc);
	int file = open(path, O_RDONLY | O_CLOEXEC);
	if (file < 0 || read(file, &value, 1) != 1)
		fail("net.ipv4.ip_forward cannot be read");
	close(file);
	if (value == '1')
		return;
	file = open(path, O_WRONLY | O_CLOEXEC);
	if (file < 0 || (write(file, "x", 1) < 0 && errno != EINVAL))
		fail("net.ipv4.ip_forward is off and cannot be set");
	close(file);
}

/* As runc does for each container, in a child that is the first process of its namespaces. */
static void try_container(const char *path)
{
	int status;
	if (unshare(CLONE_NEWPID) != 0)
		fail("no PID namespace");
	pid_t child = fork();
	if (child < 0)
		fail("fork");
	if (child == 0) {
		if (unshare(CLONE_NEWNS | CLONE_NEWNET | CLONE_NEWIPC | CLONE_NEWUTS) != 0)
			fail("no namespaces for containers");
		if (sethostname("trial", 5) != 0)
			fail("no host name for containers");
		if (mount("proc", path, "proc", MS_NOSUID | MS_NODEV | MS_NOEXEC, NULL) != 0)
			fail("no new /proc for containers (is a part of /proc covered here?)");
		if (mount("sysfs", path, "sysfs", MS_NOSUID | MS_NODEV | MS_NOEXEC | MS_RDONLY, NULL) != 0)
			fail("no new /sys for containers (is a part of /sys covered here?)");
		_exit(0);
	}
	while (waitpid(child, &status, 0) < 0)
		if (errno != EINTR)
			fail("waitpid");
	if (status != 0)
		exit(OWN_ERROR); /* the child said why */
}

void try_all(const char *folder, bool cgroups)
{
	if (mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) != 0)
		fail("no private mounts");
	if (cgroups)
		make_cgroups_serve("/");
	if (mount("tmpfs", folder, "tmpfs", 0, NULL) != 0)
		fail("no mount of a tmpfs");
	if (chdir(folder) != 0 || mkdir("proc", 0755) != 0 || mkdir("container", 0755) != 0)
		fail("%s", folder);
	try_network();
	try_forwarding(mount("proc", "proc", "proc", 0, NULL) == 0 ? "proc" : "/proc");
	try_container("container");
	/* Last, since nothing is here any more. The old root lies on the new one, pivot_root(2). */
	if (syscall(SYS_pivot_root, ".", ".") != 0)
		fail("no pivot_root");
}
