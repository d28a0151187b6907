/* Cgroups that pods can be put in. */
#ifndef CGROUPS_H
#define CGROUPS_H

#include <stdbool.h>

/* Whether a cgroup can be made in each hierarchy below ROOT/sys/fs/cgroup that is mounted; one is made and removed. */
bool cgroups_serve(const char *root);

/*
 * Has them serve in this mount namespace, if they do not: mounts that are read-only become writable, or are covered by
 * mounts of what this cgroup namespace shows. Fails where there is neither.
 */
void make_cgroups_serve(const char *root);

#endif
