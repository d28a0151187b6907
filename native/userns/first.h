/* A program as the first process of namespaces of its own, and what is done at their end. */
#ifndef FIRST_H
#define FIRST_H

#include <stdbool.h>
#include <sys/types.h>

enum { CGROUPS_MOST = 32 };

struct first {
	int flags;	    /* of clone(2): the namespaces, that of PIDs is one of them */
	pid_t parent;	    /* this ends with it; 0 for nobody */
	int note;	    /* descriptor that gets the number of the program's process, as this one sees it; -1 for none */
	const char *map[2]; /* user and group numbers as newuidmap(1) and newgidmap(1) take them; NULL for all that there are */
	bool pods;	    /* remove the cgroups that a kubelet made, if nobody is in them */
	const char *cgroups[CGROUPS_MOST]; /* folders: the program is put into these, and they are removed at the end */
	int count;
};

/*
 * Runs a program and waits for it. When it ends, whatever came of it is killed by the kernel, and the cgroups are removed with
 * all below them. SIGTERM, SIGINT and SIGHUP are passed on; a program that does not heed them is killed, at once at the second
 * one. The exit status: the program's, 128 and a number for a signal.
 */
int run_first(const struct first *first, char **words);

/* Runs a program in all namespaces of a process that run_first started, and in these cgroups; its exit status. */
int run_beside(pid_t pid, const struct first *first, char **words);

#endif
