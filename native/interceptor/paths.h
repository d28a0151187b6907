/* Which path is passed instead. */
#ifndef PATHS_H
#define PATHS_H

#include <stdbool.h>

#include "rules.h"
#include "tracees.h"

/* Looks whether /proc is that of this PID namespace, and what it has. False if it is not. */
bool paths_begin(void);

/* Finds what to pass instead of the path of a stopped call; false if the call is to go on as it is. */
bool replace(const struct thread *thread, char replacement[PATH_SIZE]);

#endif
