/* Trials: whether a node can be here. */
#ifndef TRIAL_H
#define TRIAL_H

#include <stdbool.h>

/*
 * Does what a node and its containers do, and fails at what is refused. To be called in namespaces that the process ends
 * with, as the first thing there; the folder is mounted over and becomes the root. With `cgroups`, those that are mounted
 * here must serve.
 */
void try_all(const char *folder, bool cgroups);

#endif
