/* Numbers of users and groups in a user namespace. */
#ifndef USERS_H
#define USERS_H

#include <sys/types.h>

/*
 * user_namespaces(7): each number stands for itself, as far as there are numbers here. Where these are all 4294967295 the
 * last one is left out: runc and containerd take a namespace that maps them all for the first one, and must not, since in
 * this one there are no device filters and no device files.
 */
void write_map(pid_t pid, const char *name);

#endif
